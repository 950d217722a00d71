#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Boots the root filesystem of tests/guests/rootfs to a login and compiles a C project in it.

    make rootfs-check        (some minutes; makes the disk first unless the cache has it)

A copy of the disk is written to, on virtio-blk: systemd to the login prompt, root logs in, unpacks
the project from a second disk, `make -j`, runs it, and powers off. What the project prints must be
what it prints when the host's compiler made it; the file system must be clean afterwards. EMULATOR
names another emulator to compare with. Prints TAP.
"""

import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, HERE)
import guest  # noqa: E402

CPUS = int(os.environ.get("CPUS", "2"))


def rootfs():
    run = subprocess.run([sys.executable, "-B", os.path.join(HERE, "rootfs")], check=False,
                         stdout=subprocess.PIPE, text=True)
    if run.returncode != 0:
        raise guest.Unavailable("the root filesystem could not be made (see above)")
    return dict(line.split("=", 1) for line in run.stdout.splitlines())


def expected(folder):
    """What the project prints here."""
    run = subprocess.run(["make", "-s", "-C", folder, "-j2", "CC=" + os.environ.get("CC", "gcc")],
                         check=False, capture_output=True, text=True)
    if run.returncode != 0:
        raise guest.Unavailable("a C compiler and make for the host's copy of the project")
    out = subprocess.run([os.path.join(folder, "report")], check=True, stdout=subprocess.PIPE,
                         text=True).stdout
    subprocess.run(["make", "-s", "-C", folder, "clean"], check=True)
    return out


def session(vm, reference, done):
    if vm.expect(r"guest login: |Freezing execution", 1200.0).group(0) != b"guest login: ":
        raise guest.GuestError("systemd gave up; the host may be too busy for the time that it allows:\n"
                               + vm.text()[-1000:])
    vm.send("root\n")
    vm.expect(r"root@guest:~# ", 300.0)
    done("it boots to a login on virtio-blk and lets root in")
    # No echo and no line editing: what is printed below is only what commands print.
    vm.send("exec env TERM=dumb PS1= bash --noediting\nstty -echo; echo REA''DY\n")
    vm.expect(r"READY\r", 120.0)  # behind an escape of the line editor
    vm.send("mkdir job && tar -xf /dev/vdb -C job && cd job && echo UNPA''CKED\n")
    vm.expect(r"^UNPACKED\r", 120.0)
    vm.send("make -j4 && echo MADE-O''K || echo MADE-FA''ILED\n")
    if vm.expect(r"^MADE-(OK|FAILED)\r", 1800.0).group(1) != b"OK":
        raise guest.GuestError("make failed:\n" + vm.text()[-2000:])
    done("it compiles a C project of twelve files with make -j4")
    vm.send("echo BEG''IN; ./report; echo EN''D\n")
    text = vm.expect(r"^BEGIN\r\n((?:.*\n)*?)END\r", 600.0).group(1).decode().replace("\r\n", "\n")
    if text != reference:
        raise guest.GuestError(f"the program printed\n{text}\nand not\n{reference}")
    done("the program prints what the host's compiler makes of it")
    vm.send("poweroff\n")
    if vm.wait(300.0) != 0:
        raise guest.GuestError("exit status after power-off")
    done("it shuts down")


def check(files, done):
    with tempfile.TemporaryDirectory(dir=os.path.dirname(files["disk"])) as folder:
        project = os.path.join(folder, "project")
        subprocess.run(["cp", "-r", os.path.join(HERE, "project"), project], check=True)
        subprocess.run(["chmod", "-R", "u+w", project], check=True)
        reference = expected(project)
        archive, disk = os.path.join(folder, "project.tar"), os.path.join(folder, "disk")
        subprocess.run(["tar", "-c", "--owner=0", "--group=0", "-f", archive, "-C", project, "."],
                       check=True)
        subprocess.run(["cp", "--sparse=always", files["disk"], disk], check=True)
        config = {"arch": "riscv64", "cpus": CPUS, "memory": 1 << 30, "kernel": files["kernel"],
                  "initrd": files["initrd"], "append": files["append"], "rng": True,
                  "disks": [{"name": "root", "file": disk, "format": "raw"},
                            {"name": "job", "file": archive, "format": "raw", "readonly": True}]}
        with guest.Guest(config) as vm:
            session(vm, reference, done)
        tool = "/usr/sbin/e2fsck" if os.path.exists("/usr/sbin/e2fsck") else "e2fsck"
        subprocess.run([tool, "-fn", disk], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        done("the file system is clean afterwards")


def main():
    count = 0

    def done(name):
        nonlocal count
        count += 1
        print(f"ok {count} - {name}", flush=True)

    try:
        check(rootfs(), done)
    except guest.Unavailable as missing:
        print(f"skipped: {missing}")
        return 77
    except (guest.GuestError, subprocess.CalledProcessError) as problem:
        print(f"not ok {count + 1} - {str(problem)}")
        return 1
    print(f"1..{count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
