# SPDX-License-Identifier: Apache-2.0
"""Disks on every bus, under Debian's drivers and tools, and UEFI firmware from flash.

Needs the guests riscv64-storage and efi (tests/guests/fetch, 120 MB). They are used when they are
in the cache, and fetched when VMD_TEST_STORAGE=1 asks for it.
"""

import hashlib
import os
import re
import shutil
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in ("guests", "lib"):
    sys.path.insert(0, os.path.join(HERE, "..", folder))
import esp  # noqa: E402
import guest  # noqa: E402
import tap  # noqa: E402

VARIABLE = "12345678-1234-1234-1234-123456789abc"
SHELL = r"Shell> \x1b"


def fetched(target):
    cache = os.environ.get("VMD_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "vmd")
    there = os.path.exists(os.path.join(cache, "guests", target, "manifest.json"))
    if not there and os.environ.get("VMD_TEST_STORAGE") != "1":
        raise tap.Skip(f"guest {target} (tests/guests/fetch {target}, or VMD_TEST_STORAGE=1)")
    try:
        return guest.fetched(target)
    except guest.Unavailable as problem:
        raise tap.Skip(str(problem)) from None


def image(folder, name, size):
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def command(machine, text, timeout=120):
    """Runs a command in the guest's shell; its output, or an error when its status is not 0."""
    machine.send(text + "; echo STATUS=$?=\n")
    match = machine.expect(r"((?:.|\n)*?)^STATUS=(\d+)=\r?$", timeout)
    output = match.group(1).decode("utf-8", "replace")
    if match.group(2) != b"0":
        raise AssertionError(f"{text}: status {match.group(2).decode()}\n{output}")
    return output


def file_system(machine, disk):
    """A file system made, filled, compared after a fresh mount, and checked."""
    command(machine, f"/usr/sbin/mke2fs -q -F -t ext4 /dev/{disk} && mount /dev/{disk} /mnt && "
            "cp -r /usr/sbin /mnt/ && umount /mnt && mount /dev/" + disk + " /mnt && "
            "diff -r /usr/sbin /mnt/sbin && umount /mnt && "
            f"/usr/sbin/e2fsck -fn /dev/{disk}")


def verify(machine, disk):
    """Random data written and read back past the cache."""
    command(machine, f"dd if=/tmp/x of=/dev/{disk} bs=256k oflag=direct conv=fsync && "
            f"dd if=/dev/{disk} bs=64k count=256 iflag=direct | cmp - /tmp/x")


def nvme_tools(machine):
    for text in ("nvme id-ctrl /dev/nvme0", "nvme smart-log /dev/nvme0", "nvme fw-log /dev/nvme0",
                 "nvme get-log /dev/nvme0 -i 5 -l 4096", "nvme error-log /dev/nvme0 >/dev/null",
                 "nvme write-zeroes /dev/nvme0n1 -s 0 -c 2047",
                 "nvme compare /dev/nvme0n1 -s 0 -c 7 -z 4096 -d /dev/zero",
                 "nvme dsm /dev/nvme0n1 -d -s 4096 -b 4096", "nvme flush /dev/nvme0n1",
                 "nvme format -f /dev/nvme0n1"):
        command(machine, text)
    assert "PASSED" in command(machine, "smartctl -a /dev/nvme0")


def reset_under_load(machine):
    command(machine, "for i in 1 2 3; do dd if=/dev/nvme0n1 of=/dev/null bs=64k iflag=direct & "
            "dd if=/tmp/x of=/dev/nvme0n1 bs=128k oflag=direct & done 2>/dev/null; "
            "nvme reset /dev/nvme0; wait")
    verify(machine, "nvme0n1")


def write_cache(machine):
    queue = "/sys/block/vda/queue/write_cache"
    assert "write back" in command(machine, f"cat {queue}")
    command(machine, f"echo 'write through' >{queue}")
    verify(machine, "vda")
    command(machine, f"echo 'write back' >{queue}")


def linux_drives_disks_on_every_bus():
    files = fetched("riscv64-storage")
    with tempfile.TemporaryDirectory() as folder:
        disks = [{"name": "virtio", "bus": "virtio-pci", "file": image(folder, "a", 64 << 20)},
                 {"name": "flash", "bus": "nvme", "file": image(folder, "b", 64 << 20)}]
        config = {"kernel": files["kernel"], "initrd": files["initrd"], "cpus": 2,
                  "append": "console=ttyS0 vmd.virtio vmd.run=shell", "memory": 768 << 20,
                  "disks": disks, "root_ports": 1, "rng": True}
        with guest.Guest(config, "vmd") as machine:
            machine.expect(r"guest# ", 240)
            shown = command(machine, "lspci -vv 2>&1")
            for text in ("Root Port", "Kernel driver in use: nvme",
                         "Kernel driver in use: virtio-pci", "VirtIO: CommonCfg"):
                assert text in shown, text
            assert "!!!" not in shown
            command(machine, "dd if=/dev/urandom of=/tmp/x bs=1M count=16")
            for disk in ("vda", "nvme0n1"):
                file_system(machine, disk)
                verify(machine, disk)
            write_cache(machine)
            nvme_tools(machine)
            reset_under_load(machine)


def block_names(machine):
    """{place: name in /dev} of SCSI and SATA units, a place as "virtio1:0:5" or "ata3"."""
    names = {}
    for line in command(machine, "for b in /sys/block/s[dr]*; do readlink -f $b; done").split():
        match = re.search(r"/(virtio\d+|ata\d+)/host.*/\d+:\d+:(\d+):(\d+)/block/(\w+)$", line)
        if match:
            bus, target, lun, name = match.groups()
            names[bus if bus.startswith("ata") else f"{bus}:{target}:{lun}"] = name
    return names


def scsi_tools(machine, disk, drive):
    for text in (f"sg_inq /dev/{disk}", f"sg_vpd -a /dev/{disk}", f"sg_modes -a /dev/{disk}",
                 f"sg_logs -a /dev/{disk}", f"sg_luns /dev/{disk}", f"sg_opcodes /dev/{disk}",
                 f"sg_opcodes -t /dev/{disk}", f"sg_requests /dev/{disk}", f"sg_sync /dev/{disk}",
                 f"sg_unmap --force --lba=8 --num=8 /dev/{disk}",
                 f"sg_get_lba_status --lba=0 /dev/{disk}", f"sg_verify --lba=0 --count=16 /dev/{disk}",
                 f"sg_inq /dev/{drive}", f"sg_get_config /dev/{drive}", f"smartctl -a /dev/{disk}",
                 # Every block becomes the first one of the file.
                 f"sg_write_same --lba=0 --num=9000 -i /tmp/x -x 512 /dev/{disk}",
                 f"for at in 0 4095 8999; do dd if=/dev/{disk} bs=512 skip=$at count=1 iflag=direct "
                 "2>/dev/null | cmp -n 512 - /tmp/x || exit 1; done"):
        command(machine, text)
    assert "Invalid opcode" in command(machine, f"sg_persist -k /dev/{disk} 2>&1 || true")
    cache = f"/sys/block/{disk}/device/scsi_disk/*/cache_type"
    command(machine, f"echo 'write through' >$(echo {cache})")
    assert "write through" in command(machine, f"cat /sys/block/{disk}/queue/write_cache")
    verify(machine, disk)
    command(machine, f"echo 'write back' >$(echo {cache})")


def sata_tools(machine, disk, drive):
    shown = command(machine, f"smartctl -a /dev/{disk}")
    assert "PASSED" in shown and "SER-SATA" in shown and "No Errors Logged" in shown, shown
    command(machine, f"smartctl -x /dev/{disk} >/dev/null && smartctl -t short /dev/{disk}")
    assert "Completed without error" in command(machine, f"smartctl -l selftest /dev/{disk}")
    command(machine, f"sg_inq /dev/{drive} && sg_get_config /dev/{drive}")
    assert "NCQ (depth 32)" in command(machine, "dmesg | grep NCQ")


def reset_busy_units(machine, scsi, sata):
    """Units and links are reset while reads and writes are under way; nothing of it is lost."""
    command(machine, f"for disk in {scsi} {sata}; do for i in 1 2; do "
            "dd if=/dev/$disk of=/dev/null bs=64k iflag=direct & "
            "dd if=/tmp/x of=/dev/$disk bs=128k oflag=direct & done; done 2>/dev/null; "
            f"sg_reset -d /dev/{scsi}; sg_reset -t /dev/{scsi}; sg_reset -d /dev/{sata}; wait", 240)
    for disk in (scsi, sata):
        verify(machine, disk)


def linux_drives_scsi_and_sata():
    files = fetched("riscv64-storage")
    text = bytes(i * 7 % 251 for i in range(1 << 18))
    with tempfile.TemporaryDirectory() as folder:
        for name in ("disc1", "disc2"):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(text)
        disks = [{"name": "a", "bus": "scsi", "file": image(folder, "a", 64 << 20), "queues": 2},
                 {"name": "b", "bus": "scsi", "file": image(folder, "b", 32 << 20), "unit": 0, "lun": 5},
                 {"name": "c", "bus": "scsi", "file": os.path.join(folder, "disc1"), "cdrom": True},
                 {"name": "d", "bus": "sata", "file": image(folder, "d", 64 << 20), "serial": "SER-SATA"},
                 {"name": "e", "bus": "sata", "file": os.path.join(folder, "disc2"), "cdrom": True},
                 {"name": "f", "bus": "scsi-mmio", "file": image(folder, "f", 32 << 20)}]
        config = {"kernel": files["kernel"], "initrd": files["initrd"], "cpus": 2,
                  "append": "console=ttyS0 vmd.virtio vmd.run=shell", "memory": 768 << 20, "disks": disks}
        with guest.Guest(config, "vmd") as machine:
            machine.expect(r"guest# ", 240)
            command(machine, "dd if=/dev/urandom of=/tmp/x bs=1M count=16")
            names = block_names(machine)
            pci = [place.split(":")[0] for place in names if place.endswith(":5")][0]
            mmio = [place for place in names if place.startswith("virtio") and not place.startswith(pci)][0]
            scsi, drive = names[f"{pci}:0:0"], names[f"{pci}:1:0"]
            sata, drive2 = names["ata1"], names["ata2"]
            for name in (drive, drive2):
                assert hashlib.sha256(text).hexdigest() in command(
                    machine, f"dd if=/dev/{name} bs=2048 count=128 2>/dev/null | sha256sum")
            for disk in (scsi, sata):
                file_system(machine, disk)
            for disk in (scsi, sata, names[f"{pci}:0:5"], names[mmio]):
                verify(machine, disk)
            scsi_tools(machine, scsi, drive)
            sata_tools(machine, sata, drive2)
            reset_busy_units(machine, scsi, sata)
            shown = command(machine, "lspci -vv 2>&1")
            assert "Kernel driver in use: ahci" in shown and "!!!" not in shown, shown


def uefi_keeps_its_variables():
    files = fetched("efi")
    with tempfile.TemporaryDirectory() as folder:
        store = os.path.join(folder, "vars.fd")
        shutil.copyfile(files["efi_vars"], store)
        config = {"memory": 512 << 20,
                  "flash": [{"file": files["efi_code"], "readonly": True}, {"file": store}],
                  "disks": [{"name": "a", "bus": "nvme", "file": image(folder, "a", 1 << 20)}]}
        for text in (f"setvar vmdtest -guid {VARIABLE} -bs -rt -nv =0x4142\r",
                     f"dmpstore -guid {VARIABLE}\r"):
            with guest.Guest(config, "vmd") as machine:
                machine.expect(SHELL, 240)
                machine.send(text)
                machine.expect(SHELL, 60)
                shown = machine.text()
                machine.send("reset -s\r")
                assert machine.wait(60) == 0
        assert "DataSize = 0x02" in shown, shown[-600:]


def write_boot_disk(path, loader, kernel, initrd):
    """A disk as an installer leaves it: GRUB where firmware looks, its configuration, a kernel."""
    menu = ("set timeout=0\nmenuentry Linux {\n  echo GRUB-IS-HERE\n  search --file --set=root /vmlinuz\n"
            "  linux /vmlinuz console=ttyS0 vmd.run=poweroff\n  initrd /initrd\n}\n").encode()
    content = {"EFI/BOOT/BOOTRISCV64.EFI": loader, "EFI/debian/grub.cfg": menu, "EFI/BOOT/grub.cfg": menu,
               "grub.cfg": menu}
    for name, source in (("vmlinuz", kernel), ("initrd", initrd)):
        with open(source, "rb") as file:
            content[name] = file.read()
    return esp.write(path, content)


def uefi_boots_grub_and_linux_from_a_disk(bus):
    files = {**fetched("efi"), **fetched("grub"), **fetched("riscv64")}
    with open(files["grub"], "rb") as file:
        loader = file.read()
    with tempfile.TemporaryDirectory() as folder:
        store = os.path.join(folder, "vars.fd")
        shutil.copyfile(files["efi_vars"], store)
        disk = write_boot_disk(os.path.join(folder, "disk"), loader, files["kernel"], files["initrd"])
        config = {"memory": 512 << 20,
                  "flash": [{"file": files["efi_code"], "readonly": True}, {"file": store}],
                  "disks": [{"name": "a", "bus": bus, "file": disk}]}
        with guest.Guest(config, "vmd") as machine:
            machine.expect(r"GRUB-IS-HERE", 240)
            machine.expect(r"BOOT-OK", 240)
            assert machine.wait(120) == 0


def uefi_boots_from_sata():
    uefi_boots_grub_and_linux_from_a_disk("sata")


def uefi_boots_from_every_other_bus():
    """Longer: only when VMD_TEST_STORAGE=1 asks for it."""
    if os.environ.get("VMD_TEST_STORAGE") != "1":
        raise tap.Skip("VMD_TEST_STORAGE=1, which takes a minute more")
    for bus in ("scsi", "nvme", "virtio-mmio", "virtio-pci"):
        uefi_boots_grub_and_linux_from_a_disk(bus)


if __name__ == "__main__":
    sys.exit(tap.run_cases([
        linux_drives_disks_on_every_bus,
        linux_drives_scsi_and_sata,
        uefi_keeps_its_variables,
        uefi_boots_from_sata,
        uefi_boots_from_every_other_bus,
    ]))
