# SPDX-License-Identifier: Apache-2.0
"""USB under Debian's drivers: what sysfs lists, a disk on USB storage, and what is typed and pointed at through evdev.

Needs the guest riscv64-screen (tests/guests/fetch), as guest_screen.py does.
"""

import hashlib
import os
import re
import socket
import struct
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import guest  # noqa: E402
import guest_screen  # noqa: E402
import tap  # noqa: E402

TIMEOUT = 300.0
SIZE = 32 * lib.MIB
LIST = r"""for d in /sys/bus/usb/devices/*-*; do [ ! -f $d/product ] || echo "USB $(basename $d) $(cat $d/speed) $(cat $d/product)"; done"""
EVENT_SIZE = 24  # of struct input_event with 64-bit times


class Shell:
    """The guest's shell at its serial console."""

    def __init__(self, client, vm, number=0):
        self.number, self.seen = number, b""
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(TIMEOUT)
        self.s.connect(client.call("vm.console", vm=vm)["path"])
        if number == 0:
            self.until(rb"guest# ")

    def until(self, pattern):
        while not re.search(pattern, self.seen):
            some = self.s.recv(65536)
            tap.check(some, "the console hung up")
            self.seen += some
        at = re.search(pattern, self.seen).end()
        before, self.seen = self.seen[:at], self.seen[at:]
        return before

    def run(self, text):
        """Output of a command that must succeed."""
        self.number += 1
        self.s.sendall(f"{text}; echo END{self.number}=$?=\n".encode())
        got = self.until(rb"(?m)^END%d=\d+=\r?\n" % self.number).decode("utf-8", "replace")
        tap.check(f"END{self.number}=0=" in got, got)
        return got.replace("\r", "")


def config(daemon, name, **more):
    files = guest.fetched("riscv64-screen")
    return daemon.config(name, memory=256 * lib.MIB, firmware="default", kernel=files["kernel"], initrd=files["initrd"],
                         append="console=ttyS0 vmd.virtio vmd.run=shell", tcg={"cache_size": 64 * lib.MIB}, **more)


def wait_disk(shell):
    shell.run("until [ -b /dev/sda ]; do sleep 1; done")


def events(shell, number):
    """What evdev has told since the last look: (type, code, value)."""
    text = shell.run(f"hexdump -v -e '1/1 \"%02x\"' /tmp/ev{number}; echo")
    raw = bytes.fromhex(max(re.findall(r"^[0-9a-f]*$", text, re.M), key=len))
    return [struct.unpack_from("<HHi", raw, at + 16) for at in range(0, len(raw) - EVENT_SIZE + 1, EVENT_SIZE)]


def event_file(shell, name):
    return int(re.search(r"/event(\d+)/", shell.run(f"grep -l '{name}' /sys/class/input/event*/device/name")).group(1))


def disk_keeps_what_is_written(daemon, client):
    image = os.path.join(daemon.dir, "stick")
    with open(image, "wb") as file:
        file.truncate(SIZE)
    client.call("vm.define", config=config(daemon, "a", disks=[
        {"name": "stick", "bus": "usb", "file": image, "serial": "STICK-7"}],
        usb=[{"type": "hub", "port": "2"}, {"type": "keyboard"}, {"type": "mouse", "port": "2.4"}]))
    client.call("vm.start", vm="a")
    shell = Shell(client, "a")
    wait_disk(shell)
    listed = shell.run(LIST)
    for line in ("USB 2-3 5000 USB Storage", "USB 1-2 480 USB Hub", "USB 1-1 480 USB Keyboard", "USB 1-2.4 480 USB Mouse"):
        tap.check(line in listed, f"{line} in {listed}")
    tap.check("STICK-7" in shell.run("cat /sys/bus/usb/devices/2-3/serial"), "serial number")
    tap.check(f"{SIZE // 512}\n" in shell.run("cat /sys/block/sda/size"), "size")
    shell.run("dd if=/dev/urandom of=/tmp/x bs=1M count=24 2>/dev/null")
    for block in ("512k", "4k"):
        shell.run(f"dd if=/tmp/x of=/dev/sda bs={block} oflag=direct conv=fsync 2>/dev/null")
        shell.run("echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/sda bs=64k count=384 iflag=direct 2>/dev/null | cmp - /tmp/x")
    digest = re.search(r"[0-9a-f]{64}", shell.run("sha256sum /tmp/x")).group()
    with open(image, "rb") as file:
        tap.check(hashlib.sha256(file.read(24 * lib.MIB)).hexdigest() == digest, "the image holds what the guest wrote")
    return shell


def linux_lists_devices_and_a_disk_keeps_its_data():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        shell = disk_keeps_what_is_written(daemon, client)
        # Saved under load, and back: nothing is lost on the way.
        shell.s.sendall(b"(while :; do dd if=/dev/sda of=/dev/null bs=64k iflag=direct 2>/dev/null || echo LOST >/dev/ttyS0; done) &\n")
        shell.run("sleep 1")
        shell.s.close()
        client.call("vm.save", vm="a")
        lib.wait_for(lambda: client.call("vm.get", vm="a")["state"] == "stopped", TIMEOUT, "saved")
        client.call("vm.start", vm="a")
        again = Shell(client, "a", 100)
        same = again.run("kill %1; wait; dd if=/dev/sda bs=64k count=384 iflag=direct 2>/dev/null | cmp - /tmp/x && echo sa''me")
        tap.check("same" in same, same)
        errors = again.run("echo errors:$(dmesg | grep -c 'I/O error')")
        tap.check("errors:0" in errors, errors)


def keys_and_the_tablet_reach_evdev():
    """By the API and by VNC, as the same with virtio."""
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        client.call("vm.define", config=config(
            daemon, "a", display={"device": "virtio", "width": 640, "height": 400, "input": False},
            usb=[{"type": "keyboard"}, {"type": "tablet"}]))
        client.call("vm.start", vm="a")
        shell = Shell(client, "a")
        shell.run("until grep -q 'USB Tablet' /sys/class/input/event*/device/name; do sleep 1; done")
        shell.run("until grep -q 'USB Keyboard' /sys/class/input/event*/device/name; do sleep 1; done")
        keyboard, tablet = event_file(shell, "USB Keyboard"), event_file(shell, "USB Tablet")
        for number in (keyboard, tablet):
            shell.s.sendall(f"cat /dev/input/event{number} >/tmp/ev{number} &\n".encode())
        shell.run("sleep 1")
        client.call("vm.input", vm="a", events=[{"axis": "x", "value": 16384}, {"axis": "y", "value": 8192}])
        viewer = guest_screen.Vnc(client.call("vm.vnc", vm="a")["path"])
        viewer.s.sendall(struct.pack(">BBHH", 5, 1, 320, 200))
        viewer.s.sendall(struct.pack(">BBHH", 5, 0, 639, 399))
        viewer.type("aZ")
        client.call("vm.type_text", vm="a", text="q")

        def told(number, want):
            have = events(shell, number)
            at = 0
            for one in want:
                if one not in have[at:]:
                    return False
                at += have[at:].index(one) + 1
            return True
        x = round(320 * 0x7fff / 639), round(200 * 0x7fff / 399)
        lib.wait_for(lambda: told(tablet, [(3, 0, 16384), (1, 272, 1), (1, 272, 0)]), TIMEOUT, "the tablet's events")
        have = events(shell, tablet)
        near = [v for t, c, v in have if (t, c) == (3, 0)]
        tap.check(any(abs(v - x[0]) <= 60 for v in near) and max(near) >= 0x7f00, f"places of x: {near}")
        lib.wait_for(lambda: told(keyboard, [(1, 30, 1), (1, 30, 0), (1, 44, 1), (1, 44, 0), (1, 16, 1), (1, 16, 0)]),
                     TIMEOUT, "the keys")


if __name__ == "__main__":
    guest.need("riscv64-screen")
    sys.exit(tap.run_cases([
        linux_lists_devices_and_a_disk_keeps_its_data,
        keys_and_the_tablet_reach_evdev,
    ]))
