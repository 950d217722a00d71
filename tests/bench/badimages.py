# SPDX-License-Identifier: Apache-2.0
"""How long broken images take, and how much memory, until `vmctl image` says what is wrong: those of tests/block, whose exact errors are
tested there. The slowest of all is held against 100 ms, the largest against 64 MiB. Each is asked several
times and its fastest answer counts, so that what else the machine does does not."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ.get("VMD_SRCDIR", "."), "tests", "block"))

TRIES = 5
MS, MIB = 100, 64


# A small program of its own, since what a process had in memory before it became another one counts as its own.
HELPER = """
import os, sys, time
for _ in range(int(sys.argv[1])):
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os.execv(sys.argv[2], sys.argv[2:])
    status, used = os.wait4(pid, 0)[1:]
    print(time.monotonic() - start, used.ru_maxrss, os.WIFSIGNALED(status))
"""


def ask(words):
    """Each time's seconds, KiB, and whether a signal ended the command."""
    out = subprocess.run([sys.executable, "-I", "-S", "-c", HELPER, str(TRIES), *words], capture_output=True,
                         text=True, check=True).stdout
    return [(float(t), int(kib), died == "True") for t, kib, died in (line.split() for line in out.splitlines())]


def cases(tools):
    """Each broken image, one after the other, as the file "bad"; its name and format."""
    own, foreign = tools
    good = own.good_image()
    for name, change, _ in own.CASES:
        yield f"qcow2: {name}", "qcow2", change, good
    kinds = {kind: foreign.good_image(kind) for kind in foreign.OPTIONS}
    for kind, name, change, _ in foreign.CASES:
        yield f"{kind}: {name}", foreign.FORMAT.get(kind, kind), change, kinds[kind]


def bench(vmctl):
    """In the current folder. Rows, and what went wrong."""
    import image_broken
    import image_foreign

    slowest, largest, failures, count = (0.0, ""), (0, ""), [], 0
    for name, fmt, change, good in cases((image_broken, image_foreign)):
        data = bytearray(good)
        change(data)
        with open("bad", "wb") as f:
            f.write(data)
        for verb in (["info"], ["map"], ["convert", "-O", "raw"]):
            words = [*vmctl, *verb, "-f", fmt, "bad"] + (["out"] if verb[0] == "convert" else [])
            taken = ask(words)
            slowest = max(slowest, (min(t[0] for t in taken), f"{name}: {verb[0]}"))
            largest = max(largest, (max(t[1] for t in taken), f"{name}: {verb[0]}"))
            failures += [("vmd", f"{name}: {verb[0]} died")] if any(t[2] for t in taken) else []
        with open("bad", "rb") as f:
            if f.read() != data:
                failures.append(("vmd", f"{name}: the file was changed"))
        count += 1
    ms, mib = slowest[0] * 1000, largest[0] / 1024
    return [{"name": "bad-time", "title": f"slowest of {count} broken images", "unit": "ms", "group": "bad", "note": slowest[1],
             "ours": round(ms, 2), "limit": MS, "ratio": round(MS / ms, 3), "spread": 0.0},
            {"name": "bad-memory", "title": f"most memory of {count} broken images", "unit": "MiB", "group": "bad",
             "note": largest[1], "ours": round(mib, 2), "limit": MIB, "ratio": round(MIB / mib, 3), "spread": 0.0}], failures
