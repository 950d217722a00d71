# SPDX-License-Identifier: Apache-2.0
"""Storage against QEMU, in turn in the same run, on files in one temporary folder.

Image rows: wall-clock seconds of one command of `vmctl image` and of qemu-img with their default cache modes. What a command
reads is in the page cache before, what it writes does not exist before, and the two take turns at going first. "one CPU" is
the ratio with both bound to one processor, the share that threads do not explain.

Guest rows: seconds of the guest's own clock for a number of requests past the guest's page cache (guest/disk.c), the same
kernel under vmd's translator and QEMU's, virtio-blk on virtio-mmio, cache mode writeback, image in the page cache.

Rows "bad-time" and "bad-memory": see badimages.py.

"by CPU" compares user and system seconds of the processes.
"""

import os
import random
import resource
import shutil
import subprocess
import tempfile
import time

import badimages
import build
import guest
import linux
from report import say
from rows import Row

MIB = 1 << 20
OURS = [os.path.join(os.environ["VMD_BUILDDIR"], "vmctl"), "image"] if "VMD_BUILDDIR" in os.environ else []
PEER = ["qemu-img"]
ZLIB = ["-c", "-O", "qcow2"]
ZSTD = [*ZLIB, "-o", "compression_type=zstd"]
# name, title, the command behind the program's name; %s is a file of the side's own
IMAGE_ROWS = (
    ("raw-qcow2", "convert raw to qcow2", ["convert", "-O", "qcow2", "src.raw", "%s.new"]),
    ("qcow2-raw", "convert qcow2 to raw", ["convert", "-O", "raw", "plain.qcow2", "%s.new"]),
    ("raw-zstd", "convert raw to qcow2, zstd", ["convert", *ZSTD, "src.raw", "%s.new"]),
    ("zstd-raw", "convert qcow2, zstd, to raw", ["convert", "-O", "raw", "zstd.qcow2", "%s.new"]),
    ("raw-zlib", "convert raw to qcow2, zlib", ["convert", *ZLIB, "src.raw", "%s.new"]),
    ("zlib-raw", "convert qcow2, zlib, to raw", ["convert", "-O", "raw", "zlib.qcow2", "%s.new"]),
    ("check", "check 100 GiB sparse", ["check", "big.qcow2"]),
    ("snapshot-create", "snapshot create, 10 GiB", ["snapshot", "-c", "x", "%s.full.qcow2"]),
    ("snapshot-delete", "snapshot delete, 10 GiB", ["snapshot", "-d", "x", "%s.full.qcow2"]),
)
IMAGE_ROUNDS = 5  # of a run: commands of some 0.05 s want more of them for their minimum
READS = ("src.raw", "plain.qcow2", "zstd.qcow2", "zlib.qcow2", "big.qcow2", "ours.full.qcow2", "peer.full.qcow2")
BAD_ROWS = ("bad-time", "bad-memory")
RAW, QCOW2 = 512, 640  # MiB; the guest's program knows its disk by the size


def guest_row(name, title, disk, operation, order, block, depth, count):
    args = f"{disk} {operation} {order} {block} {depth} {count}"
    return Row("guest-" + name, "guest " + title, "disk", args)


GUEST_ROWS = (
    guest_row("read", "4 KiB random read, raw", RAW, "read", "rand", 4096, 1, 12000),
    guest_row("write", "4 KiB random write, raw", RAW, "write", "rand", 4096, 1, 12000),
    guest_row("read-16", "the same read, 16 in flight", RAW, "read", "rand", 4096, 16, 24000),
    guest_row("write-16", "the same write, 16 in flight", RAW, "write", "rand", 4096, 16, 24000),
    guest_row("seq-read", "1 MiB sequential read, raw", RAW, "read", "seq", MIB, 1, 2048),
    guest_row("seq-write", "1 MiB sequential write, raw", RAW, "write", "seq", MIB, 1, 1024),
    guest_row("q-read", "4 KiB random read, qcow2", QCOW2, "read", "rand", 4096, 1, 12000),
    guest_row("q-write", "4 KiB random write, qcow2", QCOW2, "write", "rand", 4096, 1, 12000),
    guest_row("q-read-16", "qcow2 read, 16 in flight", QCOW2, "read", "rand", 4096, 16, 24000),
    guest_row("q-write-16", "qcow2 write, 16 in flight", QCOW2, "write", "rand", 4096, 16, 24000),
    guest_row("q-seq-read", "1 MiB sequential read, qcow2", QCOW2, "read", "seq", MIB, 1, 2048),
    guest_row("q-seq-write", "1 MiB sequential write, qcow2", QCOW2, "write", "seq", MIB, 1, 1024),
)


def quiet(words, **how):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **how)


def prepare_images():
    """1 GiB with 160 MiB of data, half of it text; images by the peer, so that both read the same."""
    rng = random.Random(9)
    words = [bytes(rng.choice(b"abcdefghijklmnopqrstuvwxyz ") for _ in range(rng.randrange(3, 12)))
             for _ in range(3000)]
    with open("src.raw", "wb") as f:
        f.truncate(1024 * MIB)
        for i in range(40):
            f.seek(i * 25 * MIB)
            f.write(rng.randbytes(4 * MIB) if i % 2 else b" ".join(rng.choice(words) for _ in range(700000))[:4 * MIB])
    quiet(PEER + ["convert", "-O", "qcow2", "src.raw", "plain.qcow2"])
    quiet(PEER + ["convert", *ZSTD, "src.raw", "zstd.qcow2"])
    quiet(PEER + ["convert", *ZLIB, "src.raw", "zlib.qcow2"])
    quiet(PEER + ["create", "-f", "qcow2", "big.qcow2", "100G"])
    quiet(["qemu-io"] + [w for i in range(100) for w in ("-c", f"write -q {i * 1000}M 1M")] + ["big.qcow2"])
    for side in ("ours", "peer"):
        quiet(PEER + ["create", "-f", "qcow2", "-o", "preallocation=metadata", f"{side}.full.qcow2", "10G"])


def cpu():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def warm(paths):
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.read(8 * MIB):
                pass


def one_cpu():
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def measure(side, command, bound):
    program = OURS if side == "ours" else PEER
    words = program + [word % side if "%s" in word else word for word in command]
    before, start = cpu(), time.monotonic()
    quiet(words, preexec_fn=one_cpu if bound else None)
    taken = time.monotonic() - start, cpu() - before
    if os.path.exists(f"{side}.new"):
        os.unlink(f"{side}.new")  # with it goes what the next command would have to wait for
    return taken


def best(samples, which):
    return min(sample[which] for sample in samples)


def spread(values):
    return (max(values) - min(values)) / min(values)


def compare(name, title, samples, alone):
    ours, peer = samples["ours"], samples["peer"]
    mine, theirs = best(ours, 0), best(peer, 0)
    one = best(alone["peer"], 0) / best(alone["ours"], 0)
    say(f"{title}: {mine:.3f} s, qemu-img {theirs:.3f} s; one CPU {one:.2f}")
    return {"name": name, "title": title, "unit": "s", "group": "image", "ours": round(mine, 4),
            "peer": f"qemu-img, one CPU {one:.2f}", "peer_value": round(theirs, 4),
            "ratio": round(theirs / mine, 3),
            "spread": round(max(spread([x[0] for x in taken]) for taken in (ours, peer)), 3),
            "one_cpu_ratio": round(one, 3), "ours_host_cpu": round(best(ours, 1), 4),
            "peer_host_cpu": round(best(peer, 1), 4),
            "cpu_ratio": round(best(peer, 1) / best(ours, 1), 3)}


def bench_images(args, wanted):
    """The rows of commands. What a row leaves behind (a snapshot) the next one takes away."""
    samples = {name: {bound: {"ours": [], "peer": []} for bound in (False, True)} for name, _, _ in wanted}
    prepare_images()
    for run in range(args.runs * IMAGE_ROUNDS):
        for bound in (False, True):
            for name, _, command in wanted:
                warm([word % side if "%s" in word else word for word in command for side in ("ours", "peer")
                      if (word % side if "%s" in word else word) in READS])
                for side in ("ours", "peer") if run % 2 else ("peer", "ours"):
                    samples[name][bound][side].append(measure(side, command, bound))
    return [compare(name, title, samples[name][False], samples[name][True]) for name, title, _ in wanted]


class DiskBoot(linux.Boot):
    """A boot with a raw and a qcow2 disk, made anew of the same contents for each guest."""

    def __init__(self, rows, folder):
        files = guest.fetched("riscv64-disk")
        super().__init__(rows, files, False, rows[0].tools, None, folder)
        self.folder = folder
        self.master = os.path.join(folder, "master")
        rng = random.Random(5)
        with open(self.master, "wb") as f:
            for _ in range(QCOW2):
                f.write(rng.randbytes(MIB))

    def config(self, emulator, cpus):
        raw, qcow2 = (os.path.join(self.folder, "guest." + kind) for kind in ("raw", "qcow2"))
        for path in (raw, qcow2):
            if os.path.exists(path):
                os.unlink(path)
        shutil.copyfile(self.master, raw)
        os.truncate(raw, RAW * MIB)
        quiet(PEER + ["convert", "-O", "qcow2", self.master, qcow2])
        warm((raw, qcow2))
        config = super().config(emulator, cpus)
        config["append"] += " vmd.virtio"
        config["disks"] = [{"name": "raw", "file": raw, "format": "raw"},
                           {"name": "qcow2", "file": qcow2, "format": "qcow2"}]
        return config


def bench_guests(args, wanted, folder):
    emulators = [name for name in ["vmd", *args.peers] if name not in args.skip]
    names = {name: "vmd" if name == "vmd" else "QEMU " + guest.emulator_version(name) for name in emulators}
    samples = {row.name: {name: [] for name in emulators} for row in wanted}
    failures, table = [], []
    boot = DiskBoot(wanted, folder)
    for run in range(args.runs):
        for emulator in emulators[run % len(emulators):] + emulators[:run % len(emulators)]:
            results, wrong = linux.run_boot(boot, emulator, args.cpus)
            for name, sample in results.items():
                samples[name][emulator].append(sample)
            failures += [(emulator, f"{name}: {text}") for name, text in wrong.items()]
            say(f"run {run + 1} of {args.runs}, {emulator}: {linux.describe(results)}")
    for row in wanted:
        linux.agree(row, samples[row.name], failures)
        entry = linux.compare(row, samples[row.name], names, [name for name in args.peers if name in emulators])
        if entry:
            entry["group"] = "guest"
            table.append(entry)
    return table, failures


def bench(args):
    if not OURS or not shutil.which("qemu-img"):
        raise guest.Unavailable("qemu-img (Debian: qemu-utils) and a build (make bench)")
    table, failures = [], []
    images = [row for row in IMAGE_ROWS if not args.rows or row[0] in args.rows]
    guests = [row for row in GUEST_ROWS if not args.rows or row.name in args.rows]
    back = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="vmd-bench") as folder:
        try:
            os.chdir(folder)
            if images:
                table += bench_images(args, images)
                for name in os.listdir(folder):
                    os.unlink(name)
            if not args.rows or set(BAD_ROWS) & set(args.rows):
                measured, failures = badimages.bench(OURS)
                table += [row for row in measured if not args.rows or row["name"] in args.rows]
            if guests:
                measured, wrong = bench_guests(args, guests, folder)
                table += measured
                failures += wrong
        finally:
            os.chdir(back)
    return table, failures
