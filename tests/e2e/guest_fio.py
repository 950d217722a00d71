# SPDX-License-Identifier: Apache-2.0
"""fio, resets and flushes on every bus of disks, under Debian's drivers.

Only when VMD_TEST_STORAGE=1 asks for it: half a minute, and the guests riscv64-storage and riscv64-fio (tests/guests/fetch, 150 MB)."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../guests", "../lib"):
    sys.path.insert(0, os.path.join(HERE, folder))
import crash_check  # noqa: E402
import guest  # noqa: E402
import guest_disks as disks  # noqa: E402
import guest_stuck  # noqa: E402
import tap  # noqa: E402

BUSES = ("virtio-pci", "nvme", "scsi", "sata")
SIZE = 32 << 20
LIBRARIES = "/opt/usr/lib/riscv64-linux-gnu"
FIO = f"LD_LIBRARY_PATH={LIBRARIES}:{LIBRARIES}/ceph /opt/usr/bin/fio --output-format=terse --direct=1 --ioengine=libaio " \
      "--verify=crc32c --verify_fatal=1 --do_verify=1"
# How a bus, or what hangs on it, is reset by the guest. A virtio device is let go of and taken again: what is under way then fails.
RESETS = {"nvme": "nvme reset /dev/nvme0", "scsi": "sg_reset -d /dev/{disk}; sg_reset -t /dev/{disk}", "sata": "sg_reset -d /dev/{disk}"}


def boot(files, mine, extra=(), **more):
    config = {"kernel": files["kernel"], "initrd": files["initrd"], "cpus": 2, "memory": 768 << 20,
              "append": "console=ttyS0 vmd.virtio vmd.run=shell", "disks": [*mine, *extra], **more}
    return guest.Guest(config, "vmd")


def names(machine, first):
    """{bus: name in /dev}; `first` is that of the disk at virtio-pci."""
    found = {"virtio-pci": first, "nvme": "nvme0n1"}
    for place, name in disks.block_names(machine).items():
        found["sata" if place.startswith("ata") else "scsi"] = name
    tap.check(sorted(found) == sorted(BUSES), f"{found}")
    return found


def tools_disk(folder, tree):
    """fio and its libraries, as a file system."""
    mke2fs = shutil.which("mke2fs", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not mke2fs:
        raise tap.Skip("mke2fs (Debian: e2fsprogs)")
    path = os.path.join(folder, "tools")
    subprocess.run([mke2fs, "-q", "-t", "ext4", "-O", "^has_journal", "-d", tree, path, "128m"], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=240)
    return {"name": "tools", "bus": "virtio-pci", "file": path, "format": "raw", "readonly": True}


def qcow2(folder, bus):
    path = os.path.join(folder, bus + ".qcow2")
    subprocess.run([os.path.join(guest.builddir(), "vmctl"), "image", "create", "-f", "qcow2", path, str(SIZE)], check=True,
                   stdout=subprocess.DEVNULL, timeout=120)
    return {"name": bus, "bus": bus, "file": path, "format": "qcow2"}


def fio(disk, more):
    return f"{FIO} --name={disk} --filename=/dev/{disk} {more}"


def verified(machine, disk):
    """Writes of all sizes, many under way, with flushes between, then read back and compared."""
    disks.command(machine, fio(disk, "--rw=randwrite --bsrange=512-128k --bs_unaligned=0 --blockalign=512 --iodepth=16 "
                               "--size=8m --fsync=24") + " >/dev/null", 600)


def reset_under_load(machine, bus, disk):
    """fio goes on as if nothing had been: its requests are done again, and read as they were written."""
    load = fio(disk, "--rw=randwrite --bs=4k --iodepth=32 --size=6m --verify_backlog=512")
    disks.command(machine, f"{load} >/dev/null & for i in 1 2 3; do {RESETS[bus].format(disk=disk)}; sleep 0.2; done; wait $!", 600)


def let_go_under_load(machine, disk):
    """The writer has it open, and opens that again: by its name it would make a file where the disk has gone."""
    disks.command(machine, "yes vmd-reset | head -c 4194304 >/tmp/x")
    disks.command(machine, f"driver=$(readlink -f /sys/block/{disk}/device/driver); "
                  f"device=$(basename $(readlink -f /sys/block/{disk}/device)); for i in 1 2 3; do exec 3<>/dev/{disk}; "
                  "while dd if=/tmp/x of=/proc/self/fd/3 bs=64k oflag=direct; do :; done 2>/dev/null & sleep 0.3; "
                  "echo $device >$driver/unbind; wait; exec 3>&-; echo $device >$driver/bind; done", 600)
    verified(machine, disk)


def fio_reads_what_it_wrote_on_every_bus_under_resets_too(queues=None, **more):
    files = {**disks.fetched("riscv64-storage"), **disks.fetched("riscv64-fio")}
    with tempfile.TemporaryDirectory() as folder:
        mine = [qcow2(folder, bus) for bus in BUSES]
        for one in mine:
            one.update({"queues": queues} if queues and one["bus"] in ("virtio-pci", "scsi") else {})
        with boot(files, [tools_disk(folder, files["fio"])], mine, **more) as machine:
            machine.expect(r"guest# ", 240)
            disks.command(machine, "mkdir -p /opt && mount -o ro /dev/vda /opt")
            for bus, disk in names(machine, "vdb").items():
                verified(machine, disk)
                if bus in RESETS:
                    reset_under_load(machine, bus, disk)
            let_go_under_load(machine, "vdb")
            disks.command(machine, "sync")
        for one in mine:
            crash_check.released(one["file"])
            subprocess.run(["qemu-img", "check", "-q", one["file"]], check=True, timeout=120)


def the_same_with_io_threads():
    fio_reads_what_it_wrote_on_every_bus_under_resets_too(queues=2, io_threads=3)


class Volatile(guest_stuck.Filesystem):
    """A disk that forgets at a loss of power what no fsync came after; `kept` is the rest."""

    def __init__(self, folder, bus):
        self.kept = disks.image(folder, bus + ".kept", SIZE)
        super().__init__(SIZE, self.kept)

    def holds(self, at, text):
        with open(self.kept, "rb") as file:
            file.seek(at)
            return file.read(len(text)) == text


def what_a_guest_flushed_outlives_power_on_every_bus():
    files = disks.fetched("riscv64-storage")
    text = b"vmd-flush\n" * 104858
    text = text[:1 << 20]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        volatile = {}
        for bus in BUSES:
            volatile[bus] = Volatile(folder, bus)
            stack.callback(volatile[bus].end)
        mine = [{"name": bus, "bus": bus, "file": volatile[bus].disk, "format": "raw"} for bus in BUSES]
        with boot(files, mine) as machine:
            machine.expect(r"guest# ", 240)
            disks.command(machine, "yes vmd-flush | head -c 1048576 >/tmp/x")
            for bus, disk in names(machine, "vda").items():
                write = f"dd if=/tmp/x of=/dev/{disk} bs=64k oflag=direct"
                disks.command(machine, write)
                tap.check(not volatile[bus].holds(0, text), f"{bus}: written through, which shows nothing")
                disks.command(machine, f"{write} seek=16 conv=fsync")
                for at in (0, 1 << 20):
                    tap.check(volatile[bus].holds(at, text), f"{bus}: what was flushed at {at} is lost")
            machine.process.kill()
            machine.process.wait()


if __name__ == "__main__":
    if not shutil.which("qemu-img"):
        print("skipped: qemu-img was not found (Debian: qemu-utils)")
        sys.exit(77)
    if os.environ.get("VMD_TEST_STORAGE") != "1":
        print("skipped: VMD_TEST_STORAGE=1, which takes half a minute and guests of 150 MB")
        sys.exit(77)
    sys.exit(tap.run_cases([fio_reads_what_it_wrote_on_every_bus_under_resets_too, the_same_with_io_threads,
                            what_a_guest_flushed_outlives_power_on_every_bus]))
