# SPDX-License-Identifier: Apache-2.0
"""Disks and network cards that come and go while Debian's kernel runs, over PCI Express native hot-plug, by the emulator's
control socket: the guest's own view is compared each time.

Needs the guest riscv64-storage (tests/guests/fetch), used when it is in the cache, fetched when VMD_TEST_STORAGE=1.
"""

import os
import socket
import sys
import tempfile
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests", "../device"):
    sys.path.insert(0, os.path.join(HERE, folder))
import emu_control  # noqa: E402
import guest_disks  # noqa: E402
import guest_shell  # noqa: E402
import tap  # noqa: E402

LIMIT = 200.0  # of patience, nothing is measured


class Machine(guest_shell.Shell):
    """A guest with a shell on its console, and a control client."""

    def __init__(self, slots, disks=()):
        files = guest_disks.fetched("riscv64-storage")
        config = {"firmware": "default", "kernel": files["kernel"], "initrd": files["initrd"], "cpus": 2,
                  "append": "console=ttyS0 vmd.virtio vmd.run=shell", "memory": 512 << 20, "root_ports": slots,
                  "rng": True, "disks": list(disks)}
        given = {files["kernel"]: os.O_RDONLY, files["initrd"]: os.O_RDONLY,
                 guest_disks.guest.OPENSBI: os.O_RDONLY, **{d["file"]: os.O_RDWR for d in disks}}
        self.emu = emu_control.Emu(config=config, files=given)
        self.client = emu_control.Client(self.emu)
        self.console = self.emu.connect(self.emu.console)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.console.close()
        self.client.sock.close()
        self.emu.__exit__(*exc)

    def call(self, method, **params):
        answer = self.client.call(method, **params)
        tap.check("result" in answer, f"{method} {params}: {answer}")
        return answer["result"]

    def refused(self, method, **params):
        answer = self.client.call(method, **params)
        tap.check("error" in answer, f"{method} {params}: {answer}")
        return answer["error"]

    def attach(self, **disk):
        answer = self.client.call_with(os.open(disk["file"], os.O_RDWR), "emu.file_add", path=disk["file"])
        tap.check("result" in answer, str(answer))
        return self.call("emu.attach_disk", disk=disk)

    def event(self, kind, timeout=LIMIT):
        """The next event of that kind."""
        end = time.monotonic() + timeout
        while True:
            for i, event in enumerate(self.client.events):
                event = event.get("params", event)
                if event["type"] == kind:
                    self.client.events.pop(i)
                    return event
            tap.check(time.monotonic() < end, f"no event {kind}")
            self.client.sock.settimeout(max(0.1, end - time.monotonic()))
            line = self.client.line()
            if line.get("method") == "event":
                self.client.events.append(line["params"])

    def detach(self, kind, name):
        self.call("emu.detach", kind=kind, name=name)
        event = self.event("device-deleted")
        tap.check((event["kind"], event["name"]) == (kind, name), str(event))

    def wait_for(self, text):
        """A command of the guest that is tried until it succeeds."""
        self.run(f"until {text}; do sleep 0.1; done")


def verify(machine, disk):
    machine.run(f"dd if=/dev/urandom of=/tmp/x bs=1M count=4 2>/dev/null && "
                f"dd if=/tmp/x of=/dev/{disk} bs=256k oflag=direct conv=fsync 2>/dev/null && "
                f"dd if=/dev/{disk} bs=64k count=64 iflag=direct 2>/dev/null | cmp - /tmp/x")


SLOT_CONTROL, SLOT_STATUS = "CAP_EXP+18.w", "CAP_EXP+1a.w"


class Driver:
    """What a driver of the slots does, done by the guest with setpci: Debian's kernel for riscv64 has no pciehp."""

    def __init__(self, machine, slot):
        self.machine, self.port = machine, f"{slot}.0"
        self.set("COMMAND", "0407")  # without interrupts, which nobody would serve
        self.set(SLOT_STATUS, "011f")
        self.set(SLOT_CONTROL, "1129")  # button, presence and link tell; the power indicator is on

    def set(self, register, value):
        self.machine.run(f"setpci -s {self.port} {register}={value}")

    def get(self, register):
        return int(self.machine.run(f"echo V=$(setpci -s {self.port} {register})=").split("V=")[-1].split("=")[0], 16)

    def wait(self, bits, register=SLOT_STATUS):
        end = time.monotonic() + LIMIT
        while self.get(register) & bits != bits:
            tap.check(time.monotonic() < end, f"{self.port} {register}: no {bits:x}")
        return self.get(register)


def rescan(machine):
    machine.run("echo 1 >/sys/bus/pci/rescan")


def remove(machine, slot):
    """The guest's drivers let go of what is in a slot."""
    machine.run(f"echo 1 >/sys/bus/pci/devices/0000:0{slot}:00.0/remove")


def disks_and_cards_come_and_go():
    with tempfile.TemporaryDirectory() as folder, Machine(3) as machine:
        one, two, three = (guest_disks.image(folder, name, 16 << 20) for name in ("one", "two", "three"))
        tap.check("no disk 'one'" in machine.refused("emu.detach", kind="disk", name="one")["message"], "unknown")
        machine.expect(r"guest# ")
        machine.attach(file=one, name="one", bus="virtio-pci", serial="first")
        rescan(machine)
        machine.wait_for("test -b /dev/vda")
        tap.check("first" in machine.run("cat /sys/block/vda/serial; echo"), "serial")
        verify(machine, "vda")
        machine.attach(file=two, name="two", bus="nvme")
        rescan(machine)
        machine.wait_for("test -b /dev/nvme0n1")
        verify(machine, "nvme0n1")
        blocks = {b["name"]: b for b in machine.call("emu.blocks")["blocks"]}
        tap.check(set(blocks) == {"one", "two"} and blocks["two"]["size"] == 16 << 20, str(blocks))
        # Further queues of a card come one by one, each with its descriptor.
        tap.check("no descriptor" in machine.refused("emu.nic_queue", nic="lan", number=1)["message"], "without one")
        for number, right in ((2, False), (1, True), (3, False), (2, True)):
            answer = machine.client.call_with(os.open("/dev/null", os.O_RDWR), "emu.nic_queue", nic="lan", number=number)
            tap.check(("result" in answer) == right, f"{number}: {answer}")
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with mine:
            answer = machine.client.call_with(theirs.detach(), "emu.attach_nic", nic={
                "name": "lan", "type": "stream", "path": "/nowhere", "bus": "virtio-pci",
                "mac": "52:54:00:01:02:03"})
            tap.check("result" in answer, str(answer))
            answer = machine.client.call_with(os.open(three, os.O_RDWR), "emu.file_add", path=three)
            answer = machine.refused("emu.attach_disk", disk={"file": three, "name": "three", "bus": "virtio-pci"})
            tap.check("slot is taken" in answer["message"], str(answer))
            rescan(machine)
            machine.wait_for("lspci -n | grep -q 1af4:1041")
            # In use, and nobody could be asked for it.
            tap.check("in use" in machine.refused("emu.detach", kind="disk", name="two")["message"], "in use")
            machine.run("dd if=/dev/nvme0n1 of=/dev/null bs=64k count=64 iflag=direct 2>/dev/null")
            for slot, kind, name in ((2, "disk", "two"), (1, "disk", "one"), (3, "nic", "lan")):
                remove(machine, slot)
                machine.detach(kind, name)
                rescan(machine)
            tap.check("1af4:1041" not in machine.run("lspci -n; ls /sys/block"), "the card is gone")
            tap.check(mine.recv(1) == b"", "the card's socket is closed")
        machine.run("! ls /dev/vda /dev/nvme0n1 2>/dev/null")
        tap.check(machine.call("emu.blocks")["blocks"] == [], "no disk is left")
        # The slots serve again; a reset leaves the card where it is.
        machine.attach(file=one, name="one", bus="nvme")
        machine.call("emu.reset")
        machine.expect(r"^BOOT-OK")
        machine.expect(r"guest# ")
        machine.wait_for("test -b /dev/nvme0n1")
        remove(machine, 1)
        machine.detach("disk", "one")
        machine.call("emu.quit")
        status, errors = machine.emu.wait()
        tap.check(status == 0, errors)


def a_driver_of_the_slot_is_asked():
    with tempfile.TemporaryDirectory() as folder, Machine(1) as machine:
        one = guest_disks.image(folder, "one", 16 << 20)
        machine.expect(r"guest# ")
        driver = Driver(machine, 1)
        machine.attach(file=one, name="one", bus="virtio-pci")
        tap.check(driver.wait(0x148) & 0x40, "a card is present, that changed, and the link is up")
        driver.wait(0x2000, "CAP_EXP+12.w")
        driver.set(SLOT_STATUS, "011f")
        rescan(machine)
        machine.wait_for("test -b /dev/vda")
        machine.call("emu.detach", kind="disk", name="one")
        driver.wait(1)  # the button
        verify(machine, "vda")  # it is not gone before it was let go
        driver.set(SLOT_STATUS, "0001")
        driver.set(SLOT_CONTROL, "1229")  # blinking: thinking about it
        driver.set(SLOT_CONTROL, "1129")  # steady: no
        event = machine.event("device-refused")
        tap.check((event["kind"], event["name"]) == ("disk", "one"), str(event))
        verify(machine, "vda")
        machine.call("emu.detach", kind="disk", name="one")
        driver.wait(1)
        driver.set(SLOT_CONTROL, "1229")
        remove(machine, 1)
        driver.set(SLOT_CONTROL, "1629")  # the power goes
        event = machine.event("device-deleted")
        tap.check((event["kind"], event["name"]) == ("disk", "one"), str(event))
        tap.check(driver.wait(0x108) & 0x40 == 0, "the slot is empty")
        tap.check(driver.get("CAP_EXP+12.w") & 0x2000 == 0, "and its link down")
        # A card that comes into a slot without power shows itself when the guest gives it power.
        machine.attach(file=one, name="one", bus="virtio-pci")
        rescan(machine)
        machine.run("! test -e /dev/vda")
        driver.set(SLOT_CONTROL, "1129")
        driver.wait(0x2000, "CAP_EXP+12.w")
        rescan(machine)
        machine.wait_for("test -b /dev/vda")
        verify(machine, "vda")


if __name__ == "__main__":
    sys.exit(tap.run_cases([disks_and_cards_come_and_go, a_driver_of_the_slot_is_asked]))
