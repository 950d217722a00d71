# SPDX-License-Identifier: Apache-2.0
"""Image operations of `vmctl image` against qemu-img, in turn in the same run, on files in one temporary folder.

Each row is wall-clock seconds of one command (two for snapshots), minimum of the runs; "by CPU" compares user and
system seconds of the processes.
"""

import os
import random
import resource
import shutil
import subprocess
import tempfile
import time

import guest
from report import say

MIB = 1 << 20
OURS = [os.path.join(os.environ["VMD_BUILDDIR"], "vmctl"), "image"] if "VMD_BUILDDIR" in os.environ else []
PEER = ["qemu-img"]
ZSTD = ["-c", "-O", "qcow2", "-o", "compression_type=zstd"]
# name, title, the commands behind the program's name; %s is a file of the side's own
ROWS = (
    ("raw-qcow2", "convert raw to qcow2", [["convert", "-O", "qcow2", "src.raw", "%s.qcow2"]]),
    ("qcow2-raw", "convert qcow2 to raw", [["convert", "-O", "raw", "plain.qcow2", "%s.raw"]]),
    ("raw-zstd", "convert raw to qcow2, zstd", [["convert", *ZSTD, "src.raw", "%s.qcow2"]]),
    ("zstd-raw", "convert qcow2, zstd, to raw", [["convert", "-O", "raw", "zstd.qcow2", "%s.raw"]]),
    ("check", "check 100 GiB sparse", [["check", "big.qcow2"]]),
    ("snapshot", "snapshot create, delete, 10 GiB", [["snapshot", "-c", "x", "full.qcow2"],
                                                     ["snapshot", "-d", "x", "full.qcow2"]]),
)


def quiet(words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def prepare(folder):
    """1 GiB with 160 MiB of data, half of it text; images by the peer, so that both read the same."""
    rng = random.Random(9)
    words = [bytes(rng.choice(b"abcdefghijklmnopqrstuvwxyz ") for _ in range(rng.randrange(3, 12)))
             for _ in range(3000)]
    os.chdir(folder)
    with open("src.raw", "wb") as f:
        f.truncate(1024 * MIB)
        for i in range(40):
            f.seek(i * 25 * MIB)
            f.write(rng.randbytes(4 * MIB) if i % 2 else b" ".join(rng.choice(words) for _ in range(700000))[:4 * MIB])
    quiet(PEER + ["convert", "-O", "qcow2", "src.raw", "plain.qcow2"])
    quiet(PEER + ["convert", *ZSTD, "src.raw", "zstd.qcow2"])
    quiet(PEER + ["create", "-f", "qcow2", "big.qcow2", "100G"])
    quiet(["qemu-io"] + [w for i in range(100) for w in ("-c", f"write -q {i * 1000}M 1M")] + ["big.qcow2"])
    quiet(PEER + ["create", "-f", "qcow2", "-o", "preallocation=metadata", "full.qcow2", "10G"])


def cpu():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(side, program, commands):
    before, start = cpu(), time.monotonic()
    for command in commands:
        quiet(program + [word % side if "%s" in word else word for word in command])
    return time.monotonic() - start, cpu() - before


def bench(args):
    if not OURS or not shutil.which("qemu-img"):
        raise guest.Unavailable("qemu-img (Debian: qemu-utils) and a build (make bench)")
    table = []
    back = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="vmd-bench") as folder:
        try:
            prepare(folder)
            for name, title, commands in ROWS:
                if args.rows and name not in args.rows:
                    continue
                ours, peer = [], []
                for _ in range(args.runs):
                    ours.append(measure("ours", OURS, commands))
                    peer.append(measure("peer", PEER, commands))
                mine, theirs = min(x[0] for x in ours), min(x[0] for x in peer)
                spread = max((max(x[0] for x in taken) - min(x[0] for x in taken)) / min(x[0] for x in taken)
                             for taken in (ours, peer))
                say(f"{title}: {mine:.3f} s, qemu-img {theirs:.3f} s")
                table.append({"name": name, "title": title, "unit": "s", "ours": round(mine, 3),
                              "peer": "qemu-img", "peer_value": round(theirs, 3), "ratio": round(theirs / mine, 3),
                              "spread": round(spread, 3),
                              "cpu_ratio": round(min(x[1] for x in peer) / min(x[1] for x in ours), 3)})
        finally:
            os.chdir(back)
    return table, []
