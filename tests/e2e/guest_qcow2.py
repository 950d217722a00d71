# SPDX-License-Identifier: Apache-2.0
"""qcow2 images as disks of Linux guests: what the guest wrote is what qemu-img finds, and the images stay sound."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import guest  # noqa: E402
import tap  # noqa: E402

TIMEOUT = 240.0
# Written over each other and in pieces of all sizes; holes stay between.
WRITES = ("dd if=/dev/urandom of=/dev/vda bs=64k seek=3 count=40 2>/dev/null",
          "dd if=/dev/urandom of=/dev/vda bs=512 seek=1000 count=9 conv=notrunc 2>/dev/null",
          "dd if=/dev/urandom of=/dev/vda bs=1M seek=20 count=6 2>/dev/null",
          "dd if=/dev/zero of=/dev/vda bs=64k seek=330 count=8 2>/dev/null",
          "dd if=/dev/urandom of=/dev/vda bs=4k seek=8191 count=1 2>/dev/null")


def qemu_img(*words):
    return subprocess.run(["qemu-img", *words], check=True, capture_output=True, text=True, timeout=120).stdout


def digest(path):
    """Of what the image reads as, by qemu-img."""
    raw = path + ".raw"
    qemu_img("convert", "-O", "raw", path, raw)
    with open(raw, "rb") as file:
        data = file.read()
    os.unlink(raw)
    return hashlib.sha256(data).hexdigest(), data


def linux(run, disk):
    files = guest.fetched("riscv64-disk")
    return {"memory": 256 << 20, "kernel": files["kernel"], "initrd": files["initrd"], "firmware": "default",
            "append": f"console=ttyS0 vmd.virtio vmd.run={run}", "disks": [{"name": "root", **disk}]}


def guest_writes_and_qemu_img_finds_them():
    with tempfile.TemporaryDirectory() as folder:
        base, path = os.path.join(folder, "base.raw"), os.path.join(folder, "a.qcow2")
        with open(base, "wb") as file:
            file.write(b"first line of the base\n")
            file.truncate(32 << 20)
        qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, "-o", "cluster_size=4k,lazy_refcounts=on",
                 path)
        config = linux("disk,shell", {"file": path, "format": "qcow2"})
        with guest.Guest(config, "vmd", ["--sandbox", "on"]) as vm:
            vm.expect(r"^DISK 65536 first line of the base", TIMEOUT)
            vm.expect(r"guest# ", TIMEOUT)
            vm.send("; ".join(WRITES) + "; sync; echo 3 >/proc/sys/vm/drop_caches; sha256sum /dev/vda; poweroff\n")
            seen = vm.expect(r"^([0-9a-f]{64})  /dev/vda", TIMEOUT).group(1).decode()
            status = vm.wait(TIMEOUT)
            tap.check(status == 0, f"status {status}: {vm.errors[-500:]!r}")
        qemu_img("check", "-q", path)
        found, _ = digest(path)
        tap.check(found == seen, "qemu-img reads something else than the guest wrote")
        with open(base, "rb") as file:
            tap.check(file.read(1 << 16).rstrip(b"\0") == b"first line of the base\n", "the base was written")


def direct_io(folder):
    """Does its file system take O_DIRECT?"""
    path = os.path.join(folder, "probe")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT))
        return True
    except OSError:
        return False


def all_cache_modes_hold_what_the_guest_writes():
    with tempfile.TemporaryDirectory() as folder:
        disks = []
        for number, mode in enumerate(("writeback", "none", "writethrough", "directsync", "unsafe")):
            kind = "raw" if number % 2 else "qcow2"
            if direct_io(folder) or mode not in ("none", "directsync"):
                path = os.path.join(folder, f"{mode}.{kind}")
                qemu_img("create", "-q", "-f", kind, path, "16M")
                disks.append({"name": mode, "file": path, "format": kind, "cache": mode})
        config = linux("shell", {})
        config["disks"] = disks
        job = ("for d in /dev/vd?; do dd if=/dev/urandom of=$d bs=512 seek=77 count=300 2>/dev/null; "
               "dd if=/dev/urandom of=$d bs=1M seek=9 count=3 2>/dev/null; done; sync; echo 3 >/proc/sys/vm/drop_caches; "
               "sha256sum /dev/vd?; poweroff\n")
        with guest.Guest(config, "vmd", ["--sandbox", "on"]) as vm:
            vm.expect(r"guest# ", TIMEOUT)
            vm.send(job)
            seen = sorted(vm.expect(r"^([0-9a-f]{64})  /dev/vd", TIMEOUT).group(1).decode() for _ in disks)
            status = vm.wait(TIMEOUT)
            tap.check(status == 0, f"status {status}: {vm.errors[-500:]!r}")
        tap.check(seen == sorted(digest(disk["file"])[0] for disk in disks), "a disk holds something else")


def daemon_gives_a_vm_its_qcow2_disk():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        path = os.path.join(daemon.dir, "a.qcow2")
        qemu_img("create", "-q", "-f", "qcow2", path, "8M")
        client.call("vm.define", config=daemon.config(
            "a", **{**linux("diskwrite:persist", {"file": path, "format": "qcow2"}),
                    "tcg": {"cache_size": 64 * lib.MIB}}))
        client.call("vm.start", vm="a")
        lib.wait_for(lambda: client.call("vm.get", vm="a")["state"] in ("stopped", "crashed"), TIMEOUT, "power-off")
        state = client.call("vm.get", vm="a")
        tap.check(state["state"] == "stopped", f"{state}")
        qemu_img("check", "-q", path)
        data = digest(path)[1]
        tap.check(data[-512:].startswith(b"persist "), f"the disk ends in {data[-64:]!r}")


def daemon_refuses_what_is_no_qcow2_image():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        base = os.path.join(daemon.dir, "base.raw")
        with open(base, "wb") as file:
            file.truncate(1 << 20)
        client.call("vm.define", config=daemon.config("a", disks=[{"file": base, "format": "qcow2"}]))
        try:
            client.call("vm.start", vm="a")
            raise AssertionError("a file that is no qcow2 image was started")
        except lib.CallError as error:
            tap.check("is no qcow2 image" in str(error), str(error))


def main():
    try:
        guest.fetched("riscv64-disk")
        guest.emulator_path("vmd")
        if not shutil.which("qemu-img"):
            raise guest.Unavailable("qemu-img (package qemu-utils)")
        if not os.path.exists(guest.OPENSBI):
            raise guest.Unavailable(f"{guest.OPENSBI} (package opensbi)")
    except guest.Unavailable as problem:
        print(f"skipped: {problem}")
        sys.exit(77)
    sys.exit(tap.run_cases((guest_writes_and_qemu_img_finds_them, all_cache_modes_hold_what_the_guest_writes,
                            daemon_gives_a_vm_its_qcow2_disk,
                            daemon_refuses_what_is_no_qcow2_image)))


if __name__ == "__main__":
    main()
