#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A Debian root filesystem on qcow2 boots to a login and survives a hard stop during writes, again and again.

    make crash-check CRASH_ARGS='--seed 7 --from 0 --count 5 [--bus virtio-mmio]'

A copy of the disk of tests/guests/rootfs, as qcow2, is booted to a login; a job then writes, deletes and
syncs files, and after a random while the emulator is killed. Afterwards `qemu-img check` must find no
corruption, e2fsck nothing beyond what a journal and a list of orphans mend by themselves, and each file
that the guest called synced must hold what it wrote. The next round goes on with the same image; a
slice begins with a fresh copy. Some minutes a slice; makes the disk first unless the cache has it.
"""

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, HERE)
import guest  # noqa: E402
import rootfs_check  # noqa: E402

# One line a file that is on the disk; three other writers keep it busy.
JOB = r"""cat >/root/job <<'END'
cd /var/tmp
for w in 1 2 3; do
    (while :; do
        dd if=/dev/urandom of=busy$w bs=64k count=$((RANDOM % 64 + 1)) status=none
        cp -r /etc etc$w; rm -rf etc$w; [ $((RANDOM % 4)) -gt 0 ] || sync
    done) &
done
n=0
while :; do
    n=$((n + 1))
    for k in 1 2 3 4 5 6 7 8; do printf 'round ROUND file %d line %d\n' $n $k; done >synced$((n % 40)).new
    sync synced$((n % 40)).new && mv synced$((n % 40)).new synced$((n % 40)) && sync . && echo "SYN""CED $n"
done
END
"""


def run(*command, good=(0,)):
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode not in good:
        raise guest.GuestError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def one_round(number, image, files, bus, rng):
    """Boots, writes, kills; returns the number of the last file that was synced."""
    config = {"arch": "riscv64", "cpus": 2, "memory": 1 << 30, "kernel": files["kernel"],
              "initrd": files["initrd"], "append": files["append"], "rng": True,
              "disks": [{"name": "root", "file": image, "format": "qcow2", "bus": bus}]}
    with guest.Guest(config, "vmd") as vm:
        if vm.expect(r"guest login: |Freezing execution", 1200.0).group(0) != b"guest login: ":
            raise guest.GuestError("systemd gave up:\n" + vm.text()[-2000:])
        vm.send("root\n")
        vm.expect(r"root@guest:~# ", 300.0)
        vm.send("exec env TERM=dumb PS1= bash --noediting\nstty -echo; echo REA''DY\n")
        vm.expect(r"READY\r", 120.0)
        vm.send(JOB.replace("ROUND", str(number)) + "bash /root/job\n")
        vm.expect(r"SYNCED 1\r", 300.0)  # behind prompts
        until = time.monotonic() + rng.uniform(1, 8)
        last = 1
        while time.monotonic() < until:
            last = int(vm.expect(r"SYNCED (\d+)\r", 300.0).group(1))
        vm.process.kill()
        vm.process.wait()
    return last


def released(image):
    """The kernel closes what a killed process had in an io_uring a little after it is gone, locks too."""
    for _ in range(300):
        if subprocess.run(["qemu-img", "info", image], check=False, capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    raise guest.GuestError("the image is still locked 30 s after its emulator was killed")


def examine(number, image, last, folder):
    released(image)
    run("qemu-img", "check", "-q", image, good=(0, 3))  # 3: leaked clusters only
    raw = os.path.join(folder, "raw")
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw)
    run("/usr/sbin/e2fsck", "-fp", raw, good=(0, 1))  # the journal, orphans; never what needs a decision
    run("/usr/sbin/e2fsck", "-fn", raw)
    for n in range(max(1, last - 30), last + 1):
        want = "".join(f"round {number} file {n} line {k}\n" for k in range(1, 9))
        text = run("/usr/sbin/debugfs", "-R", f"cat /var/tmp/synced{n % 40}", raw)
        # The writer may have got further than what reached us.
        got = re.match(r"round (\d+) file (\d+) ", text)
        newer = got and int(got.group(1)) == number and int(got.group(2)) > n
        if text != want and not newer:
            raise guest.GuestError(f"file {n} was synced and holds {text[:200]!r}")
    os.unlink(raw)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--bus", default="virtio-mmio")
    args = parser.parse_args()
    try:
        files = rootfs_check.rootfs()
    except guest.Unavailable as missing:
        print(f"skipped: {missing}")
        return 77
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        image = os.path.join(folder, "disk.qcow2")
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", files["disk"], image)
        for number in range(args.first, args.first + args.count):
            try:
                last = one_round(number, image, files, args.bus, random.Random(args.seed * 1000003 + number))
                examine(number, image, last, folder)
            except guest.GuestError as problem:
                print(f"not ok {number - args.first + 1} - round {number} of seed {args.seed}: {problem}")
                return 1
            print(f"ok {number - args.first + 1} - round {number} of seed {args.seed}: {last} files synced", flush=True)
    print(f"1..{args.count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
