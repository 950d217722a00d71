#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Machine microvm under the KVM engine: the bare PVH guest of pvh.S in vmd-emu by itself. What it is given at its start, the serial port with its
interrupt, a disk by virtio-mmio with level-triggered interrupts, resets and power-off, kernels that cannot be started."""

import json
import os
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import kvm_lib as lib  # noqa: E402
import tap  # noqa: E402

FOLDER = tempfile.TemporaryDirectory(prefix="vmd-kvm-")
LIMIT = 120  # a guard against hangs
GUEST = None


class Machine:
    """vmd-emu with its console on standard input and output."""

    def __init__(self, append, kernel=None, extra=(), **more):
        path = os.path.join(FOLDER.name, "config.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.config(kernel or GUEST, append, more), file)
        self.process = subprocess.Popen([os.path.join(lib.BUILD, "vmd-emu"), "--config", path, *extra], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.text = b""

    def config(self, kernel, append, more):
        return lib.config(kernel, append, **more)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def until(self, what):
        """What it said up to there."""
        end = time.monotonic() + LIMIT
        while what not in self.text:
            ready = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))[0]
            piece = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            tap.check(piece, f"no {what} in {self.text[-2000:]}")
            self.text += piece
        head, self.text = self.text.split(what, 1)
        return head + what

    def end(self, status=0):
        out, errors = self.process.communicate(timeout=LIMIT)
        tap.check(self.process.returncode == status, f"status {self.process.returncode}: {self.text}{out} {errors.decode()}")
        return self.text + out


def needs_kvm():
    global GUEST
    why = lib.missing()
    if why:
        raise tap.Skip(why)
    GUEST = GUEST or lib.build_guest(FOLDER.name)


def starts_by_pvh_and_powers_off():
    needs_kvm()
    with Machine("off acpi=off", rng=False) as m:
        text = m.end()
    tap.check(b"pvh: off acpi=off virtio_mmio.device=4K@0xfeb17000:23\n" in text, text)
    with Machine("off") as m:
        text = m.end()
    tap.check(b"pvh: off\n" in text, f"ACPI tells of the devices: {text}")
    tap.check(b"map:\n00000000 0009fc00\n0009fc00 00060400\n00100000 03f00000\n" in text and text.endswith(b"bye\n"), text)
    for sandbox in ("on", "off"):
        with Machine("off", extra=("--sandbox", sandbox), cpus=4, memory=5 << 30) as m:
            text = m.end()
        tap.check(b"00100000 bff00000\n00000000 80000000\n" in text, f"memory on both sides of the gap: {text}")


def is_given_an_initrd():
    needs_kvm()
    path = os.path.join(FOLDER.name, "initrd")
    with open(path, "wb") as file:
        file.write(b"initrd text\n\0" + bytes(9000))
    with Machine("off", initrd=path) as m:
        tap.check(b"initrd text\n" in m.end(), "it is where the guest was told")


def reads_a_disk_with_an_interrupt_each():
    needs_kvm()
    with Machine("off", extra=("--sandbox", "on"), rng=True, disks=[{"file": lib.make_disk(FOLDER.name), "format": "raw"}]) as m:
        text = m.end()
    tap.check(b"disk: " + lib.DISK_TEXT in text, text)


def echoes_by_the_serial_interrupt():
    needs_kvm()
    with Machine("echo") as m:
        m.until(b"ready\n")
        for word in (b"one", b"two", b"0123456789abcdefghijklmnop"):
            m.process.stdin.write(word)
            m.process.stdin.flush()
            m.until(word)
        m.process.stdin.write(b"q")
        m.process.stdin.flush()
        tap.check(b"interrupts came" in m.end(), "the receiver interrupted")


def resets_and_triple_faults_begin_anew():
    needs_kvm()
    for how in ("reset", "fault"):
        with Machine(how, extra=("--sandbox", "on")) as m:
            for _ in range(4):
                m.until(b"pvh: " + how.encode())


def gdb_stops_it_and_changes_it():
    needs_kvm()
    if not shutil.which("gdb"):
        raise tap.Skip("gdb")
    door = os.path.join(FOLDER.name, "gdb")
    with Machine("count", extra=("--gdb", door, "--sandbox", "on")) as m:
        m.until(b"ready\n")
        commands = [f"target remote {door}", "break *on_timer", "continue", "p $pc == (void *)&on_timer", "stepi", "stepi",
                    "p *(int *)&timer_count > 0", "set var *(int *)&timer_count = 1000000", "set var $r11 = 12345", "continue",
                    "p *(int *)&timer_count", "p $r11", "p/x $cs", "delete", "detach"]
        done = subprocess.run(["gdb", "-nx", "-batch", *(word for c in commands for word in ("-ex", c)), GUEST],
                              capture_output=True, text=True, timeout=LIMIT, check=False)
        said = [line.split(" = ")[1] for line in done.stdout.splitlines() if line.startswith("$")]
        tap.check(said == ["1", "1", "1000000", "12345", "0x8"], f"{said} {done.stdout} {done.stderr}")
        m.until(b"." * 2)


def refuses(words, status=1, **more):
    with Machine(more.pop("append", "off"), **more) as m:
        _out, errors = m.process.communicate(timeout=LIMIT)
        text = errors.decode()
        tap.check(m.process.returncode == status and all(w in text for w in words), f"{words}: {m.process.returncode} {text}")


def wrong_kernels_are_named_with_the_remedy():
    needs_kvm()
    def kernel(name, data):
        path = os.path.join(FOLDER.name, name)
        with open(path, "wb") as file:
            file.write(data)
        return path
    with open(GUEST, "rb") as file:
        whole = file.read()
    refuses(["neither a bzImage nor an ELF program"], kernel=kernel("text", b"no kernel at all" * 99))
    refuses(["has no PVH entry", "CONFIG_PVH"], kernel=os.path.join(lib.BUILD, "vmctl"))
    refuses(["truncated"], kernel=kernel("cut", whole[:3000]))
    refuses(["PVH entry at 0x10"], kernel=kernel("low", whole.replace(struct.pack("<IIII", 4, 4, 18, 0x6e6558) + struct.pack("<I", 0x200000),
                                                                       struct.pack("<IIII", 4, 4, 18, 0x6e6558) + struct.pack("<I", 0x10))))
    header = bytearray(4096)
    header[0x1f1:0x1f2] = b"\4"
    struct.pack_into("<I", header, 0x1f4, 1 << 20)
    header[0x201] = 0x6a
    header[0x202:0x208] = b"HdrS\x0c\x02"
    header[0x211] = 1
    refuses(["truncated", "16779776"], kernel=kernel("bz-cut", bytes(header)))
    struct.pack_into("<I", header, 0x1f4, 16)
    struct.pack_into("<I", header, 0x260, 1 << 30)
    refuses(["no room", "more memory"], kernel=kernel("bz-big", bytes(header)))
    struct.pack_into("<II", header, 0x258, 0, 0)
    struct.pack_into("<I", header, 0x260, 8192)
    struct.pack_into("<I", header, 0x238, 40)
    refuses(["command line has", "takes 40"], append="a" * 41, kernel=kernel("bz-short", bytes(header)))
    header[0x206:0x208] = b"\x03\x02"
    refuses(["boot protocol", "2.3", "too old"], kernel=kernel("bz-old", bytes(header)))
    header[0x206:0x208] = b"\x0c\x02"
    header[0x201] = 0xff
    refuses(["damaged boot header"], kernel=kernel("bz-bad", bytes(header)))


def wrong_machines_are_named_with_the_remedy():
    needs_kvm()
    disk = {"file": lib.make_disk(FOLDER.name), "format": "raw"}
    refuses(["disk 'disk0'", "virtio-mmio and scsi-mmio"], disks=[{**disk, "bus": "nvme"}])
    refuses(["firmware"], firmware=GUEST)
    refuses(["24 virtio devices", "23 slots"], rng=True,
            disks=[{"file": lib.make_disk(FOLDER.name, f"disk{i}"), "format": "raw"} for i in range(23)])
    refuses(["machine rv-virt has no x86_64"], machine="rv-virt")
    refuses(["engine tcg does not translate x86_64"], engine="tcg")
    refuses(["this host runs x86_64 by itself, not riscv64"], arch="riscv64", machine="rv-virt", firmware="none", append="")
    refuses(["memory"], memory=1 << 20)
    refuses(["cpu", "needs what this host cannot give", "vmx"] if "vmx" not in cpu_flags() else ["unknown feature"],
            cpu="x86-64,+vmx" if "vmx" not in cpu_flags() else "x86-64,+nonsense")
    refuses(["unknown model '486'"], cpu="486")
    for cpu in ("host", "max", "x86-64", "max,avx=off,-aes"):
        with Machine("off", cpu=cpu) as m:
            m.end()


def cpu_flags():
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        return file.read().split("flags", 1)[1].split("\n", 1)[0].split()


if __name__ == "__main__":
    sys.exit(tap.run_cases([
        starts_by_pvh_and_powers_off,
        is_given_an_initrd,
        reads_a_disk_with_an_interrupt_each,
        echoes_by_the_serial_interrupt,
        resets_and_triple_faults_begin_anew,
        gdb_stops_it_and_changes_it,
        wrong_kernels_are_named_with_the_remedy,
        wrong_machines_are_named_with_the_remedy,
    ]))
