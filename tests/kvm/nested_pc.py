#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Debian's kernel on machine q35, started from a virtio disk by SeaBIOS and SYSLINUX, and by OVMF's shell, under the KVM engine with hardware support as in nested.py. Minutes, so
`make check-kvm-q35` and no part of make check. --keep prints everything."""

import argparse
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import nested  # noqa: E402
import tap  # noqa: E402

SEABIOS = "/usr/share/seabios/bios-256k.bin"
OVMF_CODE, OVMF_VARS = "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"
# What runs in the inner guest: it says what it has, and what its kernel has against it, and powers off by ACPI.
INNER = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t sysfs sys /sys
for m in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do /bin/busybox insmod /modules/*-$m.ko; done
/bin/busybox echo "INNER $(/bin/busybox uname -r) $(/bin/busybox nproc)"
/bin/busybox cat /proc/interrupts /sys/devices/system/clocksource/clocksource0/available_clocksource
/bin/busybox dd if=/dev/vda bs=1 skip=3 count=8 2> /dev/null; /bin/busybox echo " on the disk"
/bin/busybox dmesg | /bin/busybox grep -iE 'acpi.*(error|warning|exception)|pci.*(error|fail|conflict)|BUG:|firmware bug' | /bin/busybox sed 's/^/COMPLAINT /'
/bin/busybox sleep 1
/bin/busybox echo "INNER DONE"
/bin/busybox poweroff -f
"""


def boot_disk(guest, path):
    """A FAT file system with kernel and initrd, that SeaBIOS starts by SYSLINUX, and OVMF's shell by a script."""
    pc = nested.fetched("amd64-pc")
    inner = nested.base(nested.read(guest["busybox"]))
    inner.folder("sys")
    inner.file("init", INNER.encode(), 0o755)
    for name in sorted(os.listdir(pc["modules"])):
        if "virtio" in name:
            inner.file("modules/" + name, nested.read(os.path.join(pc["modules"], name)))
    folder = os.path.dirname(path)
    initrd, setup, script = (os.path.join(folder, name) for name in ("inner.gz", "syslinux.cfg", "startup.nsh"))
    with open(initrd, "wb") as file:
        file.write(gzip.compress(inner.bytes(), 6))
    with open(setup, "w", encoding="utf-8") as file:
        file.write(f"DEFAULT linux\nLABEL linux\nLINUX kernel\nINITRD inner.gz\nAPPEND {nested.APPEND}\n")
    with open(script, "w", encoding="utf-8") as file:
        file.write(f"fs0:\r\nkernel.efi initrd=\\inner.gz {nested.APPEND}\r\n")
    with open(path, "wb") as file:
        file.truncate(60 << 20)
    for command in (["mformat", "-i", path, "-F", "::"], ["syslinux", "--install", path],
                    ["mcopy", "-i", path, pc["kernel"], "::kernel"], ["mcopy", "-i", path, pc["kernel"], "::kernel.efi"],
                    ["mcopy", "-i", path, initrd, setup, script, "::"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        tap.check(done.returncode == 0, f"{command}: {done.stdout} {done.stderr}")


def outer_archive(guest, config, folder):
    disk = os.path.join(folder, "disk.raw")
    boot_disk(guest, disk)
    archive, made = nested.base(nested.read(guest["busybox"])), {"bin", "usr", "proc", "dev"}
    for name in sorted(os.listdir(guest["modules"])):
        archive.file("modules/" + name, nested.read(os.path.join(guest["modules"], name)))
    archive.file("disk", nested.read(disk))
    archive.file("config.json", json.dumps(config).encode())
    flash = [bank["file"] for bank in config.get("flash", []) if bank["file"].startswith("/usr")]
    for path in [*(flash or [SEABIOS]), *nested.libraries(nested.EMU)]:
        nested.add_path(archive, made, path)
    if flash:
        archive.file("vars", nested.read(OVMF_VARS))
        archive.file("vars.old", nested.read(OVMF_VARS))
    archive.file("emu", nested.read(nested.EMU), 0o755)
    outer = (nested.OUTER % {"emu": "/emu"}).replace("poweroff -f\n", "cmp /vars /vars.old\n/bin/busybox poweroff -f\n") if flash else nested.OUTER % {"emu": "/emu"}
    archive.file("init", outer.encode(), 0o755)
    return gzip.compress(archive.bytes(), 1)


def boots(wanted, *files, **more):
    for program in (nested.QEMU, "ldd", "syslinux", "mformat", "mcopy"):
        if not shutil.which(program):
            raise tap.Skip(program + " (qemu-system-x86, syslinux, mtools)")
    for path in files:
        if not os.path.exists(path):
            raise tap.Skip(f"{path} (seabios, ovmf)")
    guest = nested.fetched("amd64-kvm")
    config = {"name": "inner", "arch": "x86_64", "machine": "q35", "engine": "kvm", "memory": 256 << 20, "cpus": 2, "rng": False, "root_ports": 1,
              "disks": [{"file": "/disk", "format": "raw", "bus": "virtio-pci"}], **more}
    with tempfile.TemporaryDirectory(prefix="vmd-nested-") as folder:
        initrd = os.path.join(folder, "initrd.gz")
        with open(initrd, "wb") as file:
            file.write(outer_archive(guest, config, folder))
        text = nested.output([nested.QEMU, "-accel", "tcg", "-cpu", "max,+svm", "-m", "1G", "-kernel", guest["kernel"], "-initrd", initrd, "-append",
                              "console=ttyS0 quiet panic=-1", "-nographic", "-no-reboot", "-nic", "none"], SHOW)
    for want in ("OUTER STARTS", *wanted, "Linux version", "Hypervisor detected: KVM", "Brought up 1 node, 2 CPUs", "INNER ", "SYSLINUX on the disk",
                 "INNER DONE", "OUTER ENDED 0"):
        tap.check(want in text, f"no '{want}' in {text[-4000:]}")
    tap.check("COMPLAINT" not in text, "\n".join(line for line in text.splitlines() if "COMPLAINT" in line))


def debian_boots_through_seabios():
    boots(["SeaBIOS (version", "SYSLINUX"], SEABIOS)


def debian_boots_through_ovmf():
    """Its variables are kept: they are others than before."""
    boots(["UEFI Interactive Shell", "startup.nsh", "EFI stub", "/vars /vars.old differ"], OVMF_CODE, OVMF_VARS,
          flash=[{"file": OVMF_CODE, "readonly": True}, {"file": "/vars"}])


SHOW = False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="show what the machines say")
    # QEMU 7.2's translator was seen to die of an assertion of its own (tcg_handle_interrupt) under OVMF, so that one is for asking.
    parser.add_argument("case", nargs="*", default=["debian_boots_through_seabios"], help="names of cases, by default debian_boots_through_seabios; debian_boots_through_ovmf")
    ARGS = parser.parse_args()
    SHOW = ARGS.keep
    sys.argv = sys.argv[:1] + ARGS.case
    sys.exit(tap.run_cases([debian_boots_through_seabios, debian_boots_through_ovmf]))
