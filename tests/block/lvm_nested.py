#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Storage pools of kind logical with the real LVM, on any host: QEMU's translator plays a machine whose Debian kernel has the device mapper and a second disk; in it
vmd makes a volume group of that disk, and volumes of it. What it says is compared with what lvs says. --keep prints everything."""

import argparse
import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in ("../lib", "../guests", "../kvm", "../e2e"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib  # noqa: E402
import nested  # noqa: E402
import tap  # noqa: E402

BUILD = os.environ.get("VMD_BUILDDIR") or os.getcwd()
PROGRAMS = ("vmd", "vmd-spawn", "vmd-emu", "vmd-image", "vmctl")
LVM = "/usr/sbin/lvm"
DISK = 96 << 20
SHOW = False
# Without udev lvm makes its nodes itself; what it keeps goes into memory.
LVM_CONF = """devices { dir="/dev" scan=["/dev"] obtain_device_list_from_udev=0 external_device_info_source="none" use_devicesfile=0 }
activation { udev_sync=0 udev_rules=0 verify_udev_operations=0 monitoring=0 checks=0 }
global { use_lvmpolld=0 locking_dir="/run/lock/lvm" }
backup { backup=0 archive=0 }
"""
HEAD = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/sbin LC_ALL=C
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs run /run; mount -t tmpfs tmp /tmp
mkdir -p /run/lock/lvm /dev/pts; ln -s /proc/self/fd /dev/fd
for m in /modules/*.ko; do insmod $m; done
for p in lvs vgs lvcreate lvchange lvrename lvremove; do ln -sf lvm /usr/sbin/$p; done
ctl() { /vmctl --dir /d "$@" 2>&1; }
api() { ctl api "$@"; }
serve() { /vmd --dir /d --log /d.log & daemon=$!; while ! [ -S /d/run/vmd.sock ] || ! ctl list >/dev/null; do sleep 0.1; done; }
report() { lvs --noheadings --units b --nosuffix --separator , -o "$1" --sort lv_name vg0; }
mkdir /d; serve
"""
TAIL = """
echo "@@ END"; tail -n 20 /d.log
poweroff -f
"""


def archive(script):
    guest = nested.fetched("amd64-lvm")
    out, made = nested.base(nested.read(guest["busybox"])), {"bin", "usr", "proc", "dev", "tmp"}
    for name in ("sys", "run", "etc", "etc/lvm", "usr/sbin"):
        out.folder(name)
    made |= {"etc", "usr/sbin"}
    for name in sorted(os.listdir(guest["modules"])):
        out.file("modules/" + name, nested.read(os.path.join(guest["modules"], name)))
    libraries = set()
    for program in (*(os.path.join(BUILD, name) for name in PROGRAMS), LVM):
        libraries |= set(nested.libraries(program))
    for path in sorted(libraries):
        nested.add_path(out, made, path)
    for name in PROGRAMS:
        out.file(name, nested.read(os.path.join(BUILD, name)), 0o755)
    out.file("usr/sbin/lvm", nested.read(LVM), 0o755)
    out.file("etc/lvm/lvm.conf", LVM_CONF.encode())
    out.file("etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")
    out.file("etc/group", b"root:x:0:\n")
    out.file("loop.bin", daemon_lib.payload(b"."))
    out.file("init", script.encode(), 0o755)
    return guest["kernel"], gzip.compress(out.bytes(), 1)


class Steps:
    """A script of shell lines, each of which is shown with what it printed and its status."""

    def __init__(self):
        self.lines, self.checks = [], []

    def run(self, line, check):
        """check(what it printed, its status): None, or what is wrong."""
        number = len(self.checks)
        self.lines.append(f"echo '@@ {number}'; {line}\necho \"@@ status $?\"")
        self.checks.append((line, check))

    def api(self, method, **params):
        check = params.pop("check")
        self.run(f"api {method} {shlex.quote(json.dumps(params))}", check)

    def judge(self, text):
        for number, (line, check) in enumerate(self.checks):
            found = re.search(rf"@@ {number}\n(.*?)@@ status (\d+)\n", text, re.S)
            tap.check(found, f"step {number} ({line}) did not end: {text[-3000:]}")
            wrong = check(found.group(1), int(found.group(2)))
            tap.check(not wrong, f"step {number} ({line}): {wrong}: {found.group(0)[:1500]}")


def fine(_, status):
    return None if status == 0 else f"status {status}"


def says(*words):
    """Refused, with these words."""
    return lambda out, status: None if status != 0 and all(w in out for w in words) else f"no {words}"


def has(**want):
    """A JSON object with these members."""
    def check(out, status):
        if status != 0:
            return f"status {status}"
        got = json.loads(out)
        got = got.get("result", got)
        return None if all(got.get(k) == v for k, v in want.items()) else f"{got}, not {want}"
    return check


def prints(*lines):
    def check(out, status):
        got = [line.strip() for line in out.strip().splitlines()]
        return None if status == 0 and got == list(lines) else f"{got}, not {list(lines)}"
    return check


MIB = 1 << 20


def group_steps(s):
    s.api("pool.define", config={"name": "vg", "type": "logical", "source_name": "vg0", "devices": [{"path": "/dev/vda"}]},
          check=has(path="/dev/vg0", state="inactive"))
    s.api("pool.start", pool="vg", check=says("vg0", "--build"))
    s.api("pool.start", pool="vg", build=True, check=has(state="active", capacity=DISK - 4 * MIB, available=DISK - 4 * MIB, volumes=0))
    s.run("vgs --noheadings -o vg_name,pv_count", prints("vg0   1"))
    s.run("ctl pool xml vg", lambda out, _: None if all(w in out for w in ("type='logical'", "<name>vg0</name>", "/dev/vda")) else "other XML")


def volume_steps(s):
    s.api("volume.create", pool="vg", config={"name": "a", "capacity": 10 * MIB + 1}, check=has(capacity=12 * MIB, path="/dev/vg0/a", format="raw"))
    s.run("report lv_name,lv_size,lv_tags", prints(f"a,{12 * MIB},"))
    s.run("dd if=/dev/urandom of=/tmp/in bs=1M count=5", fine)
    s.run("ctl volume upload vg a /tmp/in; cmp -n 5242880 /tmp/in /dev/vg0/a", fine)
    s.run("ctl volume download vg a /tmp/out; cmp /tmp/out /dev/vg0/a", fine)
    s.run("rm /tmp/out; ctl volume clone vg a b; cmp /dev/vg0/a /dev/vg0/b", fine)
    s.api("volume.resize", pool="vg", volume="a", capacity=20 * MIB, check=has(capacity=20 * MIB))
    s.api("volume.resize", pool="vg", volume="a", capacity=20 * MIB - 5, shrink=True, check=has(capacity=20 * MIB))
    s.api("volume.resize", pool="vg", volume="a", capacity=8 * MIB, check=says("shrink"))
    s.run("report lv_name,lv_size", prints(f"a,{20 * MIB}", f"b,{12 * MIB}"))
    s.api("volume.wipe", pool="vg", volume="a", check=has(capacity=20 * MIB))
    s.run("tr -d '\\0' < /dev/vg0/a | wc -c", prints("0"))
    # What one had is not what the next one finds.
    s.api("volume.delete", pool="vg", volume="b", check=has(name="b"))
    s.run("while report lv_name | grep -q gone; do sleep 0.1; done; report lv_name", prints("a"))
    s.api("volume.create", pool="vg", config={"name": "c", "capacity": 60 * MIB}, check=has(capacity=60 * MIB))
    s.run("tr -d '\\0' < /dev/vg0/c | wc -c", prints("0"))
    s.api("volume.create", pool="vg", config={"name": "d", "capacity": 60 * MIB}, check=says("nsufficient free space", "free space"))
    s.api("volume.create", pool="vg", config={"name": "snapshot1", "capacity": MIB}, check=says("reserved"))
    s.api("volume.create", pool="vg", config={"name": "q", "capacity": MIB, "format": "qcow2"}, check=says("are raw"))
    s.api("volume.create", pool="vg", config={"name": "q", "capacity": 8 * MIB, "allocation": 0}, check=says("at once"))
    s.api("volume.create", pool="vg", config={"name": "../a", "capacity": MIB}, check=says("no name"))
    s.api("volume.delete", pool="vg", volume="c", check=has(name="c"))


def machine_steps(s):
    s.api("vm.define", config={"name": "m", "firmware": "/loop.bin", "memory": 16 * MIB, "tcg": {"cache_size": 4 * MIB},
                               "disks": [{"pool": "vg", "volume": "a"}]}, check=fine)
    s.run("ctl start m", fine)
    s.run("ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q -- '-> /dev/.*vg0'", fine)
    for method, more in (("volume.wipe", {}), ("volume.resize", {"capacity": 40 * MIB}), ("volume.write", {"offset": 0, "data": "", "last": True})):
        s.api(method, pool="vg", volume="a", check=says("in use by VM 'm'"), **more)
    s.api("volume.delete", pool="vg", volume="a", check=says("VM 'm'"))
    s.api("pool.stop", pool="vg", check=says("in use by VM 'm'"))
    s.run("ctl stop --force m", fine)
    s.run("/vmctl image bench -q -w -c 64 -f raw /dev/vg0/a", fine)
    # Somebody else's use counts, too.
    s.api("volume.create", pool="vg", config={"name": "fs", "capacity": 8 * MIB}, check=fine)
    s.run("sleep 600 < /dev/vg0/fs & user=$!; sleep 0.2", fine)
    s.api("volume.resize", pool="vg", volume="fs", capacity=16 * MIB, check=says("another program"))
    s.run("kill $user; wait $user; ctl volume rm vg fs", fine)
    s.api("vm.delete", vm="m", check=fine)


def life_steps(s):
    s.api("pool.stop", pool="vg", check=has(state="inactive"))
    s.run("report lv_name,lv_active", prints("a,"))
    s.api("volume.create", pool="vg", config={"name": "x", "capacity": MIB}, check=says("not active"))
    s.api("pool.start", pool="vg", check=has(state="active", volumes=1))
    s.run("report lv_name,lv_active", prints("a,active"))
    # What a daemon that died left: one that was being made, one that was to be deleted; and what somebody else made.
    s.run("kill -9 $daemon; lvcreate -q -q -y --addtag vmd-new.made.deadbeef0000.half -L 4M -n half vg0 && "
          "lvchange -q --addtag vmd-gone.gone.deadbeef0000.a vg0/a && lvrename -q vg0 a vmd-gone-1 && "
          "lvcreate -q -q -y -L 4M -n theirs vg0; "
          "lvs --reportformat json --units b --nosuffix -o lv_name,lv_uuid,lv_size,lv_attr,lv_tags,lv_device_open -- vg0; serve", fine)
    s.run("ctl volume list vg --quiet", prints("a", "theirs"))
    s.run("report lv_name,lv_tags", prints("a,", "theirs,"))
    s.api("volume.get", pool="vg", volume="theirs", check=has(capacity=4 * MIB, format="raw"))
    # A second daemon keeps off.
    s.run("mkdir /e; /vmd --dir /e & other=$!; while ! /vmctl --dir /e list >/dev/null 2>&1; do sleep 0.1; done; "
          "/vmctl --dir /e api pool.define '{\"config\":{\"name\":\"v\",\"type\":\"logical\",\"source_name\":\"vg0\"}}'", fine)
    s.run("/vmctl --dir /e api pool.start '{\"pool\":\"v\"}' 2>&1", says("another vmd"))
    # A device that has something on it is not taken.
    s.api("pool.define", config={"name": "v2", "type": "logical", "devices": [{"path": "/dev/vdb"}]}, check=fine)
    s.run("mke2fs -q /dev/vdb 2>/dev/null || mkfs.ext2 /dev/vdb >/dev/null", fine)
    s.api("pool.start", pool="v2", build=True, check=says("ext2", "wipefs"))
    s.run("vgs --noheadings -o vg_name | tr -d ' '", prints("vg0"))
    s.run("kill $other; ctl volume rm vg a; ctl volume rm vg theirs; ctl pool stop vg; ctl pool undefine vg", fine)
    s.run("while report lv_name | grep -q .; do sleep 0.1; done", fine)


def volumes_of_a_group_are_volumes():
    for program, package in ((nested.QEMU, "qemu-system-x86"), (LVM, "lvm2"), ("ldd", "libc-bin")):
        if not shutil.which(program):
            raise tap.Skip(f"{program} ({package})")
    s = Steps()
    group_steps(s)
    volume_steps(s)
    machine_steps(s)
    life_steps(s)
    with tempfile.TemporaryDirectory(prefix="vmd-lvm-") as folder:
        kernel, initrd = archive(HEAD + "\n".join(s.lines) + TAIL)
        with open(os.path.join(folder, "initrd.gz"), "wb") as file:
            file.write(initrd)
        command = [nested.QEMU, "-accel", "tcg", "-cpu", "max", "-m", "1G", "-smp", "2", "-kernel", kernel, "-initrd", file.name, "-append",
                   "console=ttyS0 quiet panic=-1", "-nographic", "-no-reboot", "-nic", "none"]
        for name, size in (("group", DISK), ("other", 16 << 20)):
            path = os.path.join(folder, name)
            with open(path, "wb") as disk:
                disk.truncate(size)
            command += ["-drive", f"file={path},format=raw,if=virtio,cache=unsafe"]
        text = nested.output(command, SHOW).replace("\r", "")
    s.judge(text)
    tap.check("@@ END" in text, "did not end")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="show what the machine says")
    SHOW = parser.parse_args().keep
    sys.argv = sys.argv[:1]
    sys.exit(tap.run_cases([volumes_of_a_group_are_volumes]))
