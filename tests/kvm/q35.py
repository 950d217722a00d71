#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Machine q35 under the KVM engine: Debian's SeaBIOS to its boot menu on a serial console, a boot sector from each kind of disk, a card's ROM, resets, states that go on, wrong configurations."""

import os
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import kvm_lib as lib  # noqa: E402
import microvm  # noqa: E402
import tap  # noqa: E402

FOLDER = microvm.FOLDER
SEABIOS = "/usr/share/seabios/bios-256k.bin"
OVMF = "/usr/share/OVMF"
IPXE = "/usr/lib/ipxe/qemu/pxe-virtio.rom"


def config(**more):
    return {"name": "pc", "arch": "x86_64", "machine": "q35", "engine": "kvm", "memory": 128 << 20, "rng": False, **more}


class Machine(microvm.Machine):
    """As on microvm, with another configuration."""

    def config(self, kernel, _append, more):
        return config(**more, **({"kernel": kernel} if kernel else {}))


def needs_seabios():
    why = lib.missing()
    if why is None and not os.path.exists(SEABIOS):
        why = f"{SEABIOS} (seabios)"
    if why:
        raise tap.Skip(why)


def boot_disk(name="boot.raw", folder=None):
    """A disk whose first sector is bootsector.S, with a text behind it."""
    path = os.path.join(folder or FOLDER.name, name)
    code = os.path.join(FOLDER.name, "bootsector")
    command = [*(os.environ.get("VMD_CC") or "cc").split(), "-m32", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none",
               "-Wl,-Ttext=0x7c00", "-Wl,--oformat=binary", "-o", code, os.path.join(lib.HERE, "bootsector.S")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    tap.check(done.returncode == 0, f"{command}: {done.stderr}")
    with open(code, "rb") as file:
        sector = file.read()
    tap.check(len(sector) == 512, f"a sector of {len(sector)} bytes")
    with open(path, "wb") as file:
        file.write(sector + f"second sector of {name}\r\n\0".encode())
        file.truncate(4 << 20)
    return path


def send(machine, what):
    machine.process.stdin.write(what)
    machine.process.stdin.flush()


def shows_its_boot_menu():
    needs_seabios()
    disks = [{"file": boot_disk("one.raw"), "format": "raw", "bus": "virtio-pci"},
             {"file": boot_disk("two.raw"), "format": "raw", "bus": "sata"}]
    with Machine(None, extra=("--sandbox", "on"), disks=disks, cpus=2) as m:
        m.until(b"SeaBIOS (version ")
        m.until(b"Press ESC for boot menu.")
        send(m, b"\x1b")
        m.until(b"Select boot device:")
        text = m.until(b"2. ") + m.until(b"\n")
        tap.check(b"Virtio disk" in text or b"AHCI/" in text, text)
        send(m, b"2")
        m.until(b"second sector of ")


def boots_from(bus, **more):
    name = f"{bus}.raw"
    with Machine(None, extra=("--sandbox", "on"), disks=[{"file": boot_disk(name), "format": "raw", "bus": bus}], **more) as m:
        m.until(b"Booting from Hard Disk")
        m.until(b"sector runs")
        m.until(f"second sector of {name}".encode())
        send(m, b"r")  # the whole firmware again
        m.until(b"SeaBIOS (version ")
        m.until(f"second sector of {name}".encode())
        send(m, b"o")
        tap.check(m.end().endswith(b"bye\r\n"), m.text)


def boots_from_virtio():
    needs_seabios()
    boots_from("virtio-pci")
    boots_from("virtio-mmio")  # what is said when nothing is: virtio, which is on PCI here


def boots_from_sata():
    needs_seabios()
    boots_from("sata", cpus=2)


def boots_from_nvme_scsi_and_with_much_memory():
    needs_seabios()
    boots_from("nvme")
    boots_from("scsi", memory=5 << 30)


def firmware_runs_the_rom_of_a_card():
    """SeaBIOS starts iPXE out of a card's expansion ROM. A software KVM ends what iPXE goes on with (the IRET of its real-mode
    calls), under QEMU too; nested_pc.py boots by it."""
    needs_seabios()
    if not os.path.exists(IPXE):
        raise tap.Skip(f"{IPXE} (ipxe-qemu)")
    for more in ({}, {"hotplug": True}):
        nic = {"type": "user", "bus": "virtio-pci", "rom": IPXE, **more}
        with Machine(None, extra=("--sandbox", "on"), root_ports=len(more), nics=[nic]) as m:
            m.until(b"iPXE (http")
            m.until(b"Booting from ROM...")
            m.until(b"starting execution")


def broken_rom(name, change):
    with open(IPXE, "rb") as file:
        data = bytearray(file.read())
    data = change(data) or data
    path = os.path.join(FOLDER.name, name)
    with open(path, "wb") as file:
        file.write(data)
    return path


def wrong_roms_are_refused():
    needs_seabios()
    if not os.path.exists(IPXE):
        raise tap.Skip(f"{IPXE} (ipxe-qemu)")
    def pcir(data):
        return int.from_bytes(data[0x18:0x1a], "little")
    for name, change, words in (
            ("unsigned", lambda data: data.__setitem__(1, 0), ["no PCI expansion ROM"]),
            ("nowhere", lambda data: data.__setitem__(slice(0x18, 0x1a), b"\xff\xff"), ["no PCI expansion ROM"]),
            ("short", lambda data: data[:1024], ["ends before"]),
            ("lies", lambda data: data.__setitem__(slice(pcir(data) + 0x10, pcir(data) + 0x12), bytes(2)), ["ends before"]),
            ("tiny", lambda data: data[:100], ["512 bytes to 4 MiB"]),
            ("huge", lambda data: data + bytes(4 << 20), ["512 bytes to 4 MiB"])):
        path = broken_rom(name, change)
        refuses([path, *words], nics=[{"type": "user", "bus": "virtio-pci", "rom": path}])
    refuses(["e1000", "8086:100e", "1af4:1041"], nics=[{"type": "user", "bus": "virtio-pci", "rom": IPXE.replace("virtio", "e1000")}])
    refuses(["rom", "virtio-pci"], nics=[{"type": "user", "rom": IPXE}])
    refuses(["/none.rom"], nics=[{"type": "user", "bus": "virtio-pci", "rom": "/none.rom"}])


def refuses(words, **more):
    with Machine(None, **more) as m:
        _out, errors = m.process.communicate(timeout=microvm.LIMIT)
        text = errors.decode()
        tap.check(m.process.returncode == 1 and all(w in text for w in words), f"{words}: {m.process.returncode} {text}")


def ovmf_file(name, size):
    """A copy that was cut, or has zeroes behind it."""
    path = os.path.join(FOLDER.name, name)
    with open(os.path.join(OVMF, name), "rb") as file, open(path, "wb") as out:
        out.write(file.read(size))
        out.truncate(size)
    return path


def wrong_flash_files_are_refused_by_name():
    needs_seabios()
    for name in ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd", "OVMF_VARS.fd"):
        if not os.path.exists(os.path.join(OVMF, name)):
            raise tap.Skip(f"{OVMF}/{name} (ovmf)")
    code = {"file": os.path.join(OVMF, "OVMF_CODE_4M.fd"), "readonly": True}
    whole = os.path.getsize(os.path.join(OVMF, "OVMF_VARS_4M.fd"))
    for size in (4096, whole - 4096, whole + 4096):
        path = ovmf_file("OVMF_VARS_4M.fd", size)
        refuses([path, f"{size} bytes", f"{whole}: copy it anew"], flash=[code, {"file": path}])
    path = ovmf_file("OVMF_VARS.fd", os.path.getsize(os.path.join(OVMF, "OVMF_VARS.fd")))
    refuses([code["file"], path, "not of one firmware"], flash=[code, {"file": path}])
    path = ovmf_file("OVMF_CODE_4M.fd", 1 << 20)
    refuses([path, "1048576 bytes", "copy it anew"], flash=[{"file": path, "readonly": True}])


def wrong_machines_are_named_with_the_remedy():
    needs_seabios()
    disk = boot_disk("wrong.raw")
    refuses(["16 MiB"], memory=8 << 20)
    refuses(["firmware", "default"], firmware="none")
    short = os.path.join(FOLDER.name, "short.bin")
    with open(short, "wb") as file:
        file.write(bytes(1000))
    refuses(["short.bin", "multiple of 64 KiB"], firmware=short)
    refuses(["flash bank 0", disk, "readonly"], flash=[{"file": disk}])
    refuses(["flash bank 0", "short.bin", "4 KiB", "8 MiB"], flash=[{"file": short, "readonly": True}])
    refuses(["microvm starts kernels"], kernel=disk)
    refuses(["machine q35 has no riscv64"], arch="riscv64", engine="tcg", firmware="none")


if __name__ == "__main__":
    sys.exit(tap.run_cases([shows_its_boot_menu, boots_from_virtio, boots_from_sata, boots_from_nvme_scsi_and_with_much_memory,
                            firmware_runs_the_rom_of_a_card, wrong_roms_are_refused, wrong_flash_files_are_refused_by_name,
                            wrong_machines_are_named_with_the_remedy]))
