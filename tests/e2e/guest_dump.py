#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""gdb opens cores of a Debian guest that runs and shows its kernel's banner, by vmctl dump and by QMP; vmctl finds it in memory by the
kernel's own address and in a snapshot, and tells two snapshots apart by the page and the fields that the guest changed.

Needs the guest riscv64 (tests/guests/fetch) and gdb-multiarch."""

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import guest  # noqa: E402
import guest_shell  # noqa: E402
import tap  # noqa: E402

LIMIT = 600.0
VMCTL = os.path.join(lib.BUILD, "vmctl")


class Machine(guest_shell.Shell):
    limit = LIMIT
    between = "\n"

    def __init__(self):
        files = guest.fetched("riscv64")
        self.daemon = lib.Daemon()
        self.daemon.__enter__()
        self.client = self.daemon.client(LIMIT)
        self.client.call("vm.define", config={"name": "a", "kernel": files["kernel"], "initrd": files["initrd"], "memory": 256 << 20, "cpus": 2,
                                              "append": "console=ttyS0 vmd.run=shell"})
        self.client.call("vm.start", vm="a")
        self.console = socket.socket(socket.AF_UNIX)
        self.console.connect(self.client.call("vm.console", vm="a")["path"])
        self.expect("guest# ")
        self.run("stty -echo; PS1= PS2=; mount -t proc proc /proc 2>/dev/null; echo 0 >/proc/sys/kernel/kptr_restrict; true")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.console.close()
        self.client.close()
        self.daemon.__exit__(*exc)

    def vmctl(self, *words):
        done = subprocess.run([VMCTL, "--dir", self.daemon.dir, *words], capture_output=True, text=True, timeout=LIMIT, check=False)
        tap.check(done.returncode == 0, f"vmctl {words}: {done.returncode} {done.stderr}")
        return done.stdout

    def symbol(self, name):
        return int(re.search(r"^([0-9a-f]{16}) \w " + name + r"\s*$", self.run(f"grep -w {name} /proc/kallsyms"), re.M)[1], 16)

    def banner(self):
        """What the kernel says of itself, where it has that, and where its memory has it."""
        version = re.search(r"Linux version \S+", self.run("cat /proc/version"))[0]
        at = self.symbol("linux_banner")
        # The kernel's image lies in memory in one piece, its text first.
        text = int(re.search(r"^\s*([0-9a-f]+)-[0-9a-f]+ : Kernel code", self.run("grep 'Kernel code' /proc/iomem"), re.M)[1], 16)
        return version, at, at - self.symbol("_text") + text


def gdb(core, *commands):
    words = ["gdb-multiarch", "-nx", "-batch", "-ex", "set architecture riscv:rv64", "-ex", f"core-file {core}"]
    for command in commands:
        words += ["-ex", command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, check=False)
    return done.stdout + done.stderr


def gdb_shows_the_banner_of_a_guest_that_runs():
    if not shutil.which("gdb-multiarch"):
        raise tap.Skip("gdb-multiarch")
    with Machine() as m:
        version, virtual, physical = m.banner()
        by_vmctl, by_qmp = (os.path.join(m.daemon.dir, n) for n in ("vmctl.core", "qmp.core"))
        m.vmctl("dump", "a", by_vmctl)
        with m.daemon.qmp(timeout=LIMIT) as q:
            q.execute("dump-guest-memory", paging=False, protocol=f"file:{by_qmp}")
            tap.check(q.execute("query-status")["running"], "it stands still")
        for core in (by_vmctl, by_qmp):
            out = gdb(core, f"x/s 0x{physical:x}", "info threads")
            tap.check(version in out, f"{version} at 0x{virtual:x}, 0x{physical:x}: {out}")
            tap.check(len(re.findall(r"^[* ]+\d+\s+(?:LWP|Thread|process)", out, re.M)) == 2, out)
        # The same by vmd's own means: at the kernel's address, and at the physical one.
        text = m.client.call("vm.memory", vm="a", address=f"0x{virtual:x}", size=len(version), vcpu=0)
        seen = subprocess.run([VMCTL, "--dir", m.daemon.dir, "memory", "show", "a", f"0x{physical:x}", str(len(version)), "--quiet"],
                              capture_output=True, timeout=LIMIT, check=True).stdout
        tap.check(seen == version.encode(), f"{seen} {text}")
        print(f"# {version} at 0x{virtual:x}, in memory at 0x{physical:x}")


def a_difference_names_pages_and_fields():
    with Machine() as m:
        m.run("dd if=/dev/zero of=/tmp/page bs=4096 count=64 2>/dev/null")
        m.vmctl("snapshot", "create", "a", "one")
        m.run("i=0; while [ $i -lt 512 ]; do printf 'vmd was here now'; i=$((i + 1)); done >/tmp/page; sync")
        m.vmctl("snapshot", "create", "a", "two")
        marks = m.client.call("vm.memory_search", vm="a", bytes=base64.b64encode(b"vmd was here now" * 8).decode(), snapshot="two")
        found = {int(at, 16) & ~4095 for at in marks["found"]}
        diff = m.client.call("snapshot.diff", vm="a", **{"from": "one", "to": "two"}, limit=4096)
        pages = {int(p["address"], 16) + n * 4096 for p in diff["pages"] if "address" in p for n in range(p["pages"])}
        tap.check(found and found <= pages, f"{sorted(map(hex, found))} are not among {len(pages)} pages: {json.dumps(diff)[:500]}")
        fields = {(f["part"], f["field"]) for f in diff["fields"]}
        tap.check(any(part.startswith("cpu") for part, _ in fields), f"{fields}")
        text = m.vmctl("snapshot", "diff", "a", "one", "two")
        tap.check("page" in text and "cpu" in text, text[:500])
        print(f"# {len(diff['fields'])} fields, {diff['pages_changed']} pages; the guest's text in {len(found)} of them")


if __name__ == "__main__":
    sys.exit(tap.run_cases([gdb_shows_the_banner_of_a_guest_that_runs, a_difference_names_pages_and_fields], missing=(guest.Unavailable,)))
