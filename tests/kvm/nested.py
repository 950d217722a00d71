#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Debian's kernel under the KVM engine with hardware support, on any host: QEMU's translator plays a machine of AMD's whose Debian kernel has kvm_amd, and in
that vmd-emu starts a second one on machine microvm. Minutes, so `make check-kvm-nested` and no part of make check. --keep prints everything."""

import argparse
import gzip
import json
import os
import re
import selectors
import shutil
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in ("../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import newc  # noqa: E402
import tap  # noqa: E402

BUILD = os.environ.get("VMD_BUILDDIR") or os.getcwd()
EMU = os.environ.get("VMD_EMU") or os.path.join(BUILD, "vmd-emu")
QEMU = "qemu-system-x86_64"
LIMIT = 1500
APPEND = "console=ttyS0 earlyprintk=serial,ttyS0,115200 panic=-1"
DISK_TEXT = "a line on the disk"
# What runs in the inner guest: it says what it has, and powers off.
INNER = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for m in virtio virtio_ring virtio_mmio virtio_blk; do /bin/busybox insmod /modules/*-$m.ko; done
/bin/busybox echo "INNER $(/bin/busybox uname -r) $(/bin/busybox nproc)"
/bin/busybox grep -E 'ttyS|virtio|LOC' /proc/interrupts
/bin/busybox head -n 1 /dev/vda
/bin/busybox sleep 1
/bin/busybox echo "INNER DONE"
/bin/busybox poweroff -f
"""
OUTER = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for m in irqbypass kvm kvm_amd; do /bin/busybox insmod /modules/*-$m.ko; done
/bin/busybox ls -l /dev/kvm
/bin/busybox echo "OUTER STARTS"
%(emu)s --config /config.json --sandbox on < /dev/null
/bin/busybox echo "OUTER ENDED $?"
/bin/busybox poweroff -f
"""


def fetched(target):
    script = os.path.join(HERE, "..", "guests", "fetch")
    done = subprocess.run([sys.executable, script, target], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise tap.Skip(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "fetch " + target)
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def read(path):
    with open(path, "rb") as file:
        return file.read()


def base(busybox):
    archive = newc.Newc()
    for name in ("bin", "proc", "dev", "tmp", "modules", "usr"):
        archive.folder(name)
    archive.char_device("dev/console", 5, 1)
    archive.char_device("dev/null", 1, 3)
    archive.file("bin/busybox", busybox, 0o755)
    return archive


def libraries(program):
    """What the dynamic linker loads for it, as the paths where it looks."""
    out = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return sorted(set(re.findall(r"(/\S+)", out.replace(program, ""))))


def add_path(archive, made, path):
    inside = path.lstrip("/")
    parts = inside.split("/")[:-1]
    for i in range(1, len(parts) + 1):
        folder = "/".join(parts[:i])
        if folder not in made:
            made.add(folder)
            archive.folder(folder)
    archive.file(inside, read(os.path.realpath(path)), 0o755)


def outer_archive(guest, config):
    inner = base(read(guest["busybox"]))
    inner.file("init", INNER.encode(), 0o755)
    for name in sorted(os.listdir(guest["modules"])):
        if "virtio" in name:
            inner.file("modules/" + name, read(os.path.join(guest["modules"], name)))
    archive, made = base(read(guest["busybox"])), {"bin", "usr", "proc", "dev"}
    for name in sorted(os.listdir(guest["modules"])):
        archive.file("modules/" + name, read(os.path.join(guest["modules"], name)))
    archive.file("kernel", read(guest["kernel"]))
    archive.file("inner", gzip.compress(inner.bytes(), 1))
    archive.file("disk", (DISK_TEXT + "\n").encode().ljust(1 << 16, b"\0"))
    archive.file("config.json", json.dumps(config).encode())
    for path in libraries(EMU):
        add_path(archive, made, path)
    archive.file("emu", read(EMU), 0o755)
    archive.file("init", (OUTER % {"emu": "/emu"}).encode(), 0o755)
    return gzip.compress(archive.bytes(), 1)


def output(command, show):
    """What a machine said, until it powered off."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        text, end = b"", time.monotonic() + LIMIT
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while selector.select(max(0, end - time.monotonic())):
                piece = os.read(process.stdout.fileno(), 65536)
                if not piece:
                    break
                text += piece
                if show:
                    sys.stderr.write(piece.decode(errors="replace"))
        if process.poll() is None:
            process.kill()
    return text.decode(errors="replace")


def run(guest, config, show):
    """What the outer machine said, until it powered off."""
    with tempfile.TemporaryDirectory(prefix="vmd-nested-") as folder:
        initrd = os.path.join(folder, "initrd.gz")
        with open(initrd, "wb") as file:
            file.write(outer_archive(guest, config))
        command = [QEMU, "-accel", "tcg", "-cpu", "max,+svm", "-m", "1G", "-kernel", guest["kernel"], "-initrd", initrd, "-append",
                   "console=ttyS0 quiet panic=-1", "-nographic", "-no-reboot", "-nic", "none"]
        return output(command, show)


SHOW = False


def debian_boots_on_microvm():
    for program in (QEMU, "ldd"):
        if not shutil.which(program):
            raise tap.Skip(program + (" (qemu-system-x86)" if program == QEMU else ""))
    guest = fetched("amd64-kvm")
    config = {"name": "inner", "arch": "x86_64", "machine": "microvm", "engine": "kvm", "memory": 256 << 20, "cpus": 2, "kernel": "/kernel",
              "initrd": "/inner", "append": APPEND, "rng": False, "disks": [{"file": "/disk", "format": "raw"}]}
    text = run(guest, config, SHOW)
    for want in ("/dev/kvm", "OUTER STARTS", "Linux version", "Hypervisor detected: KVM", "Brought up 1 node, 2 CPUs", "INNER ", DISK_TEXT, "INNER DONE",
                 "OUTER ENDED 0"):
        tap.check(want in text, f"no '{want}' in {text[-4000:]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="show what the machines say")
    SHOW = parser.parse_args().keep
    sys.argv = sys.argv[:1]
    sys.exit(tap.run_cases([debian_boots_on_microvm]))
