#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Limits of VMs in a Linux that has the controllers of control groups (version 2), whatever the host's has.

    make cgroup-check        (some minutes; fetches a kernel first unless the cache has it)

The programs of this build, with the libraries they need, are packed into an initramfs and run by QEMU under Debian's amd64 kernel:
vmd with a delegated control group, VMs with limits, and what the kernel counts of them. All figures are of the guest's clock and of
shares, so that it does not matter how busy the host is. Prints TAP. In `make check` it is skipped unless VMD_TEST_CGROUP=1."""

import gzip
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../e2e"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import guest  # noqa: E402
import newc  # noqa: E402
import tap  # noqa: E402

QEMU = "qemu-system-x86_64"
PROGRAMS = ("vmd", "vmd-emu", "vmd-spawn", "vmctl")
SECONDS = 10  # that a share is looked at

SCRIPT = r"""#!/bin/busybox sh
export PATH=/bin HOME=/tmp
/bin/busybox mkdir -p /bin /proc /sys /dev /tmp
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
# What a service manager does for a unit with Delegate=yes.
for c in cpu memory io pids; do echo +$c >/sys/fs/cgroup/cgroup.subtree_control; done
G=/sys/fs/cgroup/vmd
mkdir $G /tmp/d
echo "CG controllers $(cat $G/cgroup.controllers)"
echo "cgroup = $G" >/tmp/d/vmd.conf
vmd --dir /tmp/d >/tmp/vmd.log 2>&1 &
daemon=$!
v() { vmctl --dir /tmp/d "$@"; }
for i in $(seq 300); do v list >/dev/null 2>&1 && break; sleep 0.2; done
echo "CG group $(v host info --json | grep -o '"cgroup": *"[^"]*"')"
# made NAME MEMBERS: the VM's control group is in $at
made() {
    n=$1; shift
    echo "{\"name\":\"$n\",\"memory\":16777216,\"firmware\":\"/loop.bin\",\"tcg\":{\"cache_size\":4194304},$*}" >/tmp/$n.json
    v create -f /tmp/$n.json
    at=$(ls -d $G/vm-* 2>/dev/null | tail -n 1)
}
usage() { sed -n 's/^usage_usec //p' $1/cpu.stat; }
# share NAME GROUP...: what each used of one CPU in the time, in percent
share() {
    name=$1; shift
    before=; for g; do before="$before $(usage $g)"; done
    read t0 rest </proc/uptime
    sleep SECONDS
    read t1 rest </proc/uptime
    for g; do
        set -- $before; b=$1; shift; before="$*"
        echo "CG $name $(awk "BEGIN{print ($(usage $g)-$b)/10000/($t1-$t0)}") $(sed -n 's/^nr_throttled //p' $g/cpu.stat)"
    done
}
made cpu '"limits":{"cpu_percent":25,"pids_max":100,"io_weight":200}'
cpu=$at
echo "CG files cpu.max=$(cat $at/cpu.max | tr ' ' /) pids.max=$(cat $at/pids.max) io.weight=$(tr ' ' / <$at/io.weight | tail -n 1)"
sleep 3
share quarter $cpu
v set cpu --limits '{"cpu_percent":50}' || v api vm.set '{"vm":"cpu","set":{"limits":{"cpu_percent":50}}}'
echo "CG files cpu.max=$(cat $cpu/cpu.max | tr ' ' /)"
share half $cpu
# Others in its group: as many as pids.max lets be, and they end with the VM.
sh -c "echo \$\$ >$cpu/cgroup.procs; for i in \$(seq 150); do sleep 1000 & done" >/dev/null 2>&1
echo "CG pids $(cat $cpu/pids.current) $(sed -n 's/^max //p' $cpu/pids.events)"
v stop cpu; v rm cpu
for i in $(seq 300); do ps | grep -q '[s]leep 1000' || break; sleep 0.2; done
echo "CG sleepers $(ps | grep -c '[s]leep 1000')"
for i in $(seq 300); do [ -e $cpu ] || break; sleep 0.2; done
[ -e $cpu ] && echo "CG left $cpu"
made light '"limits":{"cpu_weight":100}'; light=$at
made heavy '"limits":{"cpu_weight":300}'; heavy=$at
sleep 3
share weight $light $heavy
v stop --force light heavy; v rm light heavy
cat >/tmp/eater.json <<END
{"name":"eater","memory":268435456,"firmware":"/eat.bin","tcg":{"cache_size":4194304},"limits":{"memory_max":67108864}}
END
v create -f /tmp/eater.json
v wait eater --timeout 5m >/dev/null
echo "CG eater $(v show eater --json | tr -d ' \n' | grep -o '"state":"[a-z]*"\|"signal":[0-9]*' | tr '\n' ' ')"
echo "CG oom $(dmesg | grep -c 'Memory cgroup out of memory')"
for i in $(seq 300); do ls -d $G/vm-* >/dev/null 2>&1 || break; sleep 0.2; done
ls -d $G/vm-* 2>/dev/null | sed 's/^/CG left /'
kill -0 $daemon && echo "CG daemon lives"
tail -n 20 /tmp/vmd.log | sed 's/^/LOG /'
echo "CG done"
poweroff -f
"""


def eat():
    """A guest that writes a byte into each page of its memory from 1 MiB on, then waits for ever."""
    def lui(rd, imm):
        return lib.word((imm >> 12, 12), (rd, 7), (0x37, 0))

    def addi(rd, rs, imm):
        return lib.word((imm & 0xfff, 20), (rs, 15), (rd, 7), (0x13, 0))

    def slli(rd, rs, n):
        return lib.word((n, 20), (rs, 15), (1, 12), (rd, 7), (0x13, 0))

    return (lui(5, 0x40080000) + slli(5, 5, 1) +      # t0: 0x80100000
            lui(6, 0x08000000 - 0x200000 >> 1 << 1) +  # t1: bytes to write
            lui(7, 0x1000) +
            lib.word((5, 20), (5, 15), (0, 12), (0x23, 0)) +                      # sb t0, 0(t0)
            lib.word((7, 20), (5, 15), (5, 7), (0x33, 0)) +                       # add t0, t0, t2
            lib.word((0x20, 25), (7, 20), (6, 15), (6, 7), (0x33, 0)) +           # sub t1, t1, t2
            lib.word((0x7f, 25), (0, 20), (6, 15), (5, 12), (0x15, 7), (0x63, 0)) +  # bge t1, zero, -12
            lib.word((0x10500073, 0)) + lib.word((0xffdff06f, 0)))                # wfi, and again


def libraries():
    """{path: file} of what the programs are linked with."""
    found = {}
    for name in PROGRAMS:
        out = subprocess.run(["ldd", os.path.join(lib.BUILD, name)], capture_output=True, text=True, check=True).stdout
        for line in out.splitlines():
            match = re.search(r"(?:=> )?(/\S+) \(0x", line)
            if match:
                found[match[1]] = os.path.realpath(match[1])
    return found


def initramfs(path, busybox):
    archive, made = newc.Newc(), set()

    def folder(name):
        if name and name not in made:
            folder(os.path.dirname(name))
            made.add(name)
            archive.folder(name)

    def add(name, file, perm=0o755):
        folder(os.path.dirname(name))
        with open(file, "rb") as data:
            archive.file(name, data.read(), perm)
    folder("dev")
    archive.char_device("dev/console", 5, 1)
    archive.char_device("dev/null", 1, 3, 0o666)
    add("bin/busybox", busybox)
    for name in PROGRAMS:
        add("bin/" + name, os.path.join(lib.BUILD, name))
    for name, file in libraries().items():
        add(name.lstrip("/"), file)
    archive.file("init", SCRIPT.replace("SECONDS", str(SECONDS)).encode(), 0o755)
    archive.file("loop.bin", lib.payload())
    archive.file("eat.bin", eat())
    with open(path, "wb") as out:
        out.write(gzip.compress(archive.bytes(), 1))


def run():
    """[(name, rest)] of what the guest said."""
    if os.environ.get("VMD_TEST_CGROUP") != "1":
        raise tap.Skip("VMD_TEST_CGROUP=1: it takes minutes (make cgroup-check)")
    if platform.machine() != "x86_64":
        raise tap.Skip("a host whose programs an amd64 kernel runs")
    if not shutil.which(QEMU):
        raise tap.Skip(f"{QEMU} (package qemu-system-x86)")
    if lib.sanitized():
        raise tap.Skip("a build without sanitizers")
    try:
        files = guest.fetched("amd64")
    except guest.Unavailable as problem:
        raise tap.Skip(str(problem)) from problem
    with tempfile.TemporaryDirectory(prefix="vmd-cgroup-") as where:
        image = os.path.join(where, "initrd.gz")
        initramfs(image, files["busybox"])
        command = [QEMU, "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "1536M", "-display", "none", "-no-reboot", "-monitor", "none",
                   "-serial", "stdio", "-kernel", files["kernel"], "-initrd", image, "-append", "console=ttyS0 quiet panic=-1"]
        out = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=840, check=False)
    text = out.stdout.decode(errors="replace")
    said = [tuple(line.strip()[3:].split(" ", 1)) for line in text.splitlines() if line.startswith("CG ")]
    tap.check(("done",) in said, f"the guest did not come to its end:\n{text[-4000:]}{out.stderr.decode()[-500:]}")
    if os.environ.get("VERBOSE"):
        print("\n".join("# " + line for line in text.splitlines()))
    return said


def limits_hold_in_the_kernel():
    said = run()
    told = {}
    for name, *rest in said:
        told.setdefault(name, []).append(rest[0] if rest else "")
    for name, values in told.items():
        print(f"# {name}: {'; '.join(values)}")
    tap.check({"cpu", "memory", "pids", "io"} <= set(told["controllers"][0].split()), f"{told}")
    tap.check("/sys/fs/cgroup/vmd" in told["group"][0], f"{told}")
    tap.check(told["files"] == ["cpu.max=25000/100000 pids.max=100 io.weight=default/200", "cpu.max=50000/100000"], f"{told}")
    quarter, half = (float(told[name][0].split()[0]) for name in ("quarter", "half"))
    tap.check(15 <= quarter <= 27 and 35 <= half <= 54, f"cpu.max: {quarter} of 25 %, {half} of 50 %")
    tap.check(int(told["quarter"][0].split()[1]) > 0, "and it was throttled for it")
    light, heavy = (float(value.split()[0]) for value in told["weight"])
    tap.check(2.2 <= heavy / light <= 4, f"cpu.weight: {heavy} % and {light} %, 3 to 1 was asked for")
    current, refused = (int(n) for n in told["pids"][0].split())
    tap.check(90 <= current <= 100 and refused >= 1, f"pids.max: {current} of 100, refused {refused} times")
    tap.check(told["sleepers"] == ["0"], f"{told['sleepers']} processes of the group outlive the VM")
    tap.check('"state":"crashed"' in told["eater"][0] and '"signal":9' in told["eater"][0] and int(told["oom"][0]) >= 1,
              f"memory.max: {told['eater']} {told['oom']}")
    tap.check("left" not in told and told["daemon"] == ["lives"], f"{told}")


if __name__ == "__main__":
    sys.exit(tap.run_cases([limits_hold_in_the_kernel]))
