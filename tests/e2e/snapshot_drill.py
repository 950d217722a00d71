# SPDX-License-Identifier: Apache-2.0
"""The shipped script docs/examples/snapshot-drill: 20 running VMs are snapshotted, damaged, restored and verified, by the unix socket
and over TLS; and it says so when one is not what it was.

    snapshot_drill.py [CASE...]; VMD_DRILL_VMS sets their number"""

import os
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402
from remote_lib import RemoteDaemon  # noqa: E402

SCRIPT = os.path.join(HERE, "..", "..", "docs", "examples", "snapshot-drill")
VMS = int(os.environ.get("VMD_DRILL_VMS") or 20)
MIB = lib.MIB
LIMIT = 800


def counter():
    """A guest that adds one to the word 1 MiB behind its first instruction, a hundred times a second of its clock; it sleeps between."""
    def lui(rd, imm, opcode=0x37):
        return imm << 12 | rd << 7 | opcode

    def imm(rd, rs, value, kind, opcode):
        return (value & 0xFFF) << 20 | rs << 15 | kind << 12 | rd << 7 | opcode

    def store(rs2, rs1, kind):
        return rs2 << 20 | rs1 << 15 | kind << 12 | 0x23
    begin = [lui(5, 0x100, 0x17),        # auipc t0: the word
             lui(7, 0x2004),             # mtimecmp
             lui(28, 0x200C),            # mtime, 8 behind
             lui(31, 0x18),              # about 10 ms
             imm(30, 0, 0x80, 0, 0x13),  # the timer's interrupt ...
             0x304 << 20 | 30 << 15 | 1 << 12 | 0x73]  # ... may end wfi: mie
    loop = [imm(29, 28, -8, 3, 0x03), 31 << 20 | 29 << 15 | 29 << 7 | 0x33, store(29, 7, 3),
            0x10500073,                  # wfi
            imm(6, 5, 0, 2, 0x03), imm(6, 6, 1, 0, 0x13), store(6, 5, 2)]
    back = -4 * len(loop)
    jump = ((back >> 20) & 1) << 31 | ((back >> 1) & 0x3FF) << 21 | ((back >> 11) & 1) << 20 | ((back >> 12) & 0xFF) << 12 | 0x6F
    return b"".join(word.to_bytes(4, "little") for word in [*begin, *loop, jump])


def prepared(daemon):
    """A pool, and the guest; what the script is given."""
    if not shutil.which("jq"):
        raise tap.Skip("jq")
    folder = os.path.join(daemon.dir, "pool")
    os.mkdir(folder)
    with daemon.client() as client:
        client.call("pool.define", config={"name": "p", "path": folder})
        client.call("pool.start", pool="p")
    guest = os.path.join(daemon.dir, "counter.bin")
    with open(guest, "wb") as file:
        file.write(counter())
    return ["p", "--", "--firmware", guest, "--memory", "16M", "--tcg", "cache_size=4M"]


def drill(daemon, *words, status=0, env=None):
    path = os.pathsep.join([lib.BUILD, os.environ.get("PATH", "/usr/bin:/bin")])
    done = subprocess.run(["sh", SCRIPT, *words], capture_output=True, text=True, timeout=LIMIT, check=False,
                          env={**(env or os.environ), "PATH": path, "TMPDIR": daemon.dir})
    tap.check(done.returncode == status, f"{words}: status {done.returncode}\n{done.stdout}{done.stderr}\n{daemon.tail()}")
    for line in done.stdout.splitlines()[-1:]:
        print(f"# {line}")
    return done


def left(daemon):
    with daemon.client() as client:
        return [vm["name"] for vm in client.call("vm.list")["vms"]], os.listdir(os.path.join(daemon.dir, "pool"))


def all_are_what_they_were():
    with lib.Daemon() as daemon:
        rest = prepared(daemon)
        done = drill(daemon, "-c", daemon.sock, "-n", str(VMS), "-w", "0x80100000", *rest)
        tap.check(f"all {VMS} VMs are what they were" in done.stdout, done.stdout)
        tap.check(left(daemon) == ([], []), f"{left(daemon)}")


def and_over_tls():
    with RemoteDaemon() as daemon:
        rest = prepared(daemon)
        daemon.init()
        ann = daemon.user("ann", "admin", "*")
        daemon.vmctl("context", "add", "far", f"vmd+tls://{daemon.host}:{daemon.port}", "--tls", os.path.dirname(ann.cert))
        done = drill(daemon, "-c", "far", "-n", str(VMS), "-w", "0x80100000", *rest, env=daemon.env())
        tap.check(f"all {VMS} VMs are what they were" in done.stdout, done.stdout)
        tap.check(left(daemon) == ([], []), f"{left(daemon)}")
        seen = {(e["who"].split("@")[0], e["method"]) for e in daemon.audit("snapshot.revert")}
        tap.check(any("ann" in who for who, _ in seen), f"{seen}")


def what_is_not_restored_is_found():
    """A vmctl between the script and the daemon, whose revert does nothing, or all but the disk."""
    with lib.Daemon() as daemon:
        rest = prepared(daemon)
        real, folder = os.path.join(lib.BUILD, "vmctl"), os.path.join(daemon.dir, "bin")
        os.mkdir(folder)
        for lie, words in (("exit 0", "it does not run"),
                           ('"$real" "$@"; "$real" set "$4" --description other; exit 0', "its definition is another"),
                           ('"$real" resume "$4"; "$real" set "$4" --description whole; exit 0', "its disk is another")):
            with open(os.path.join(folder, "vmctl"), "w", encoding="utf-8") as file:
                file.write(f'#!/bin/sh\nreal={real}\ncase "$*" in\n*"snapshot revert"*) {lie} ;;\nesac\nexec "$real" "$@"\n')
            os.chmod(os.path.join(folder, "vmctl"), 0o755)
            path = os.pathsep.join([folder, os.environ["PATH"]])
            done = subprocess.run(["sh", SCRIPT, "-c", daemon.sock, "-n", "2", *rest], capture_output=True, text=True, timeout=LIMIT,
                                  check=False, env={**os.environ, "PATH": path, "TMPDIR": daemon.dir})
            tap.check(done.returncode == 1 and words in done.stderr, f"{lie}: {done}")
            tap.check(left(daemon) == ([], []), f"{left(daemon)}")
        done = drill(daemon, "-c", daemon.sock, "-n", "2", "none", *rest[1:], status=1)
        tap.check("none" in done.stderr and "make: 2 of 2 failed" in done.stderr, done.stderr)
        drill(daemon, "-n", "x", "p", status=2)
        drill(daemon, status=2)


if __name__ == "__main__":
    sys.exit(tap.run_cases([all_are_what_they_were, and_over_tls, what_is_not_restored_is_found]))
