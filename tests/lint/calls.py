# SPDX-License-Identifier: Apache-2.0
"""What runs inside the emulator's sandbox calls no function of the C library whose system call its filters
(engine/emu/confine.c) end the process for: looks at the symbols that objects of its rooms ask for."""
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import globals as lint_globals  # noqa: E402
import tree  # noqa: E402

ROOMS = re.compile(r"engine/|devices/(?!audio/server)|storage/(?!share)|network/(?!server)")
INSTEAD = {
    "pread": "fd_pread()", "pread64": "fd_pread()", "pwrite": "fd_pwrite()", "pwrite64": "fd_pwrite()",
    "readv": "read() or recvmsg()", "recvmmsg": "recvmsg()", "sendmmsg": "writev()",
    "nanosleep": "a timer of the loop, or a condition with a deadline",
    "clock_nanosleep": "a timer of the loop, or a condition with a deadline",
    "usleep": "a timer of the loop, or a condition with a deadline", "sleep": "a timer of the loop",
    "getpid": "the pid of struct emu", "select": "the loop", "ppoll": "poll()", "fsync": "fdatasync()", "sync_file_range": "fdatasync()",
}
# (object, symbol): why that is never reached with a filter on.
ALLOWED = {
    ("engine/base/log", "getpid"): "log_init(), or a program that never called it",
    ("storage/lock", "getpid"): "only where blk_lock() may look around in /proc, which a sandbox cannot",
    ("engine/emu/main", "getpid"): "the first thing main() does",
    ("engine/emu/observe", "getpid"): "name of a perf map, opened before the filters close",
    ("engine/base/fd", "fsync"): "file_replace(), of programs that open files by path",
}


def problems(obj, nm_text):
    base = re.sub(r"/[A-Za-z0-9_]+-([^/]+)$", r"/\1", obj)[:-2]
    found = []
    for line in nm_text.splitlines():
        name = line.split()[-1].split("@")[0] if line.split() else ""
        if name in INSTEAD and (base, name) not in ALLOWED:
            found.append(f"{obj}: calls {name}(), which the sandbox refuses; use {INSTEAD[name]}")
    return found


def main():
    out = os.environ.get("VMD_BUILDDIR", ".")
    seen, found = 0, []
    for obj in lint_globals.objects(out):
        if ROOMS.match(obj):
            seen += 1
            found += problems(obj, lint_globals.tool("nm", "-u", os.path.join(out, obj)))
    if seen < 50:
        found.append(f"only {seen} objects below {out}: not built?")
    if problems("engine/x.o", "                 U pwrite64@GLIBC_2.2.5\n") == []:
        found.append("this lint sees nothing")
    print("\n".join(found) or f"{seen} objects")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
