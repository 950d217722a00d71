# SPDX-License-Identifier: Apache-2.0
"""Options of `vmctl image` that qemu-img has: each does what the real one does with the same words."""
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
BUILD = os.environ["VMD_BUILDDIR"]
sys.path.insert(0, os.path.join(os.environ["VMD_SRCDIR"], "tests", "lib"))
import tap  # noqa: E402

OURS = [os.path.join(BUILD, "vmctl"), "image"]
THEIRS = ["qemu-img"]
MIB = 1 << 20


def run(*words, ok=0):
    got = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False, timeout=300)
    if ok is not None and got.returncode != ok:
        raise AssertionError(f"{' '.join(words)}: status {got.returncode}: {(got.stderr or got.stdout).strip()[:400]}")
    return got.stdout


def refused(text, *words):
    got = subprocess.run([*OURS, *words], capture_output=True, text=True, check=False, timeout=120)
    tap.check(got.returncode != 0 and text in got.stderr, f"{words}: {got.returncode} {got.stderr[:300]}")


class Folder:
    """Images of all kinds, the same each time."""

    def __enter__(self):
        self.dir = tempfile.mkdtemp()
        self.was = os.getcwd()
        os.chdir(self.dir)
        self.rng = random.Random(7)
        return self

    def __exit__(self, *_):
        os.chdir(self.was)
        shutil.rmtree(self.dir)

    def raw(self, name, size, pieces):
        with open(name, "wb") as file:
            file.truncate(size)
            for at, length in pieces:
                file.seek(at)
                file.write(self.rng.randbytes(length))
        return name

    def chain(self):
        """base.raw (4 MiB) below mid.qcow2 (6 MiB) below top.qcow2 (8 MiB)."""
        self.raw("base.raw", 4 * MIB, [(0, MIB), (3 * MIB, 65536)])
        run(*THEIRS, "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "mid.qcow2", "6M")
        run("qemu-io", "-c", "write -P 1 512k 1M", "-c", "write -z 3M 128k", "-c", "write -P 2 5M 64k", "mid.qcow2")
        run(*THEIRS, "create", "-q", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "top.qcow2", "8M")
        run("qemu-io", "-c", "write -P 3 1M 64k", "-c", "write -P 4 7M 64k", "-c", "write -z 5M 64k", "top.qcow2")

    def copy(self, *names):
        for name in names:
            shutil.copy(name, name + ".was")

    def back(self, *names):
        for name in names:
            shutil.copy(name + ".was", name)


def same(a, b, fa="raw", fb="raw"):
    run(*THEIRS, "compare", "-q", "-f", fa, "-F", fb, a, b)


def map_begins_and_ends_where_it_is_told():
    with Folder() as f:
        f.chain()
        for words in (["--start-offset", "1M"], ["--max-length=2M"], ["--start-offset=700k", "--max-length", "3M"],
                      ["--start-offset", "8M"], ["--start-offset=9M"], ["--start-offset=7M", "--max-length=100M"]):
            for name in ("top.qcow2", "base.raw"):
                mine, their = (json.loads(run(*x, "map", "--output=json", *words, name)) for x in (OURS, THEIRS))
                keys = ("start", "length", "depth", "zero", "data", "present")
                tap.check([[m[k] for k in keys] for m in mine] == [[m[k] for k in keys] for m in their if m["length"]],
                          f"{words} {name}: {mine} {their}")


def commit_goes_down_to_the_base_that_is_named():
    with Folder() as f:
        f.chain()
        names = ("base.raw", "mid.qcow2", "top.qcow2")
        f.copy(*names)
        for words in ([], ["-d"], ["-b", "base.raw"], ["-b", "mid.qcow2"], ["-b", "base.raw", "-d"]):
            run(*THEIRS, "commit", "-q", *words, "top.qcow2")
            their = {name: run(*THEIRS, "convert", "-O", "raw", name, f"their-{name}.raw") for name in names}
            f.back(*names)
            run(*OURS, "commit", *words, "top.qcow2")
            for name in their:
                run(*THEIRS, "convert", "-O", "raw", name, f"our-{name}.raw")
                if name != "mid.qcow2" or "base.raw" not in words:  # what is committed over is nobody's business
                    same(f"their-{name}.raw", f"our-{name}.raw")
            tap.check(run(*THEIRS, "map", "--output=json", "top.qcow2").count('"depth": 0') > 0 or not words,
                      f"{words}: emptied")
            run(*THEIRS, "check", "-q", "top.qcow2")
            f.back(*names)
        refused("has no backing file", "commit", "-b", "other.raw", "top.qcow2")


def amend_changes_what_qemu_img_changes():
    with Folder() as f:
        run(*THEIRS, "create", "-q", "-f", "qcow2", "-o", "compat=1.1", "a.qcow2", "8M")
        run("qemu-io", "-c", "write -P 5 0 1M", "-c", "write -z 2M 256k", "-c", "write -P 6 2M 4k", "a.qcow2")
        run(*THEIRS, "convert", "-O", "raw", "a.qcow2", "was.raw")

        def info():
            run(*THEIRS, "check", "-q", "a.qcow2")
            same("was.raw", "a.qcow2", "raw", "qcow2")
            return json.loads(run(*THEIRS, "info", "--output=json", "a.qcow2"))
        for words, key, value in (("lazy_refcounts=on", "lazy-refcounts", True), ("lazy_refcounts=off", "lazy-refcounts", False),
                                  ("compat=0.10", "compat", "0.10"), ("compat=1.1,lazy_refcounts=on", "lazy-refcounts", True),
                                  ("compat=v2,lazy_refcounts=off", "compat", "0.10"), ("compat=v3", "compat", "1.1")):
            run(*OURS, "amend", "-f", "qcow2", "-o", words, "a.qcow2")
            data = info()["format-specific"]["data"]
            tap.check(data[key] == value, f"{words}: {data}")
        run(*OURS, "amend", "-o", "size=16M", "a.qcow2")
        tap.check(json.loads(run(*THEIRS, "info", "--output=json", "a.qcow2"))["virtual-size"] == 16 * MIB, "size")
        f.raw("b.raw", MIB, [])
        run(*OURS, "amend", "-o", "backing_file=b.raw,backing_fmt=raw", "a.qcow2")
        tap.check(json.loads(run(*THEIRS, "info", "--output=json", "a.qcow2"))["backing-filename"] == "b.raw", "backing file")
        run("qemu-io", "-c", "read -P 5 0 1M", "a.qcow2")
        run(*OURS, "snapshot", "-c", "one", "a.qcow2")
        refused("snapshots", "amend", "-o", "compat=0.10", "a.qcow2")
        refused("cannot be changed in place", "amend", "-o", "cluster_size=4k", "a.qcow2")
        refused("would shrink", "amend", "-o", "size=1M", "a.qcow2")
        run(*THEIRS, "create", "-q", "-f", "qcow2", "-o", "compat=0.10", "old.qcow2", "1M")
        refused("no lazy_refcounts", "amend", "-o", "lazy_refcounts=on", "old.qcow2")
        refused("no options that can be changed", "amend", "-o", "compat=0.10", "b.raw")


def sleeping(pid):
    """Whether a thread waits in clock_nanosleep(2)."""
    number = {"x86_64": "230", "aarch64": "115", "riscv64": "115"}[os.uname().machine]
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/syscall") as file:
                if file.read().split()[0] == number:
                    return True
    except OSError:  # a thread that has just ended; the next look tells
        pass
    return False


def sleeps_at_a_byte_a_second():
    """After its first piece: how long things take says nothing on a loaded host."""
    copy = subprocess.Popen([*OURS, "convert", "-S", "0", "-r", "1", "-O", "raw", "base.raw", "never.raw"])
    try:
        while not sleeping(copy.pid):
            tap.check(copy.poll() is None, f"it ended, status {copy.returncode}, and kept to no limit")
            time.sleep(0.05)
    finally:
        copy.kill()
        copy.wait(60)


def told(text, *words):
    got = subprocess.run([*OURS, *words], capture_output=True, text=True, check=False, timeout=120)
    lines = got.stderr.splitlines()
    tap.check(got.returncode == 0 and len(lines) == 1 and text in lines[0], f"{words}: {got.returncode} {got.stderr[:300]}")


def options_without_effect_are_named():
    with Folder() as f:
        f.chain()
        told("--copy-range has no effect", "convert", "-C", "-O", "raw", "top.qcow2", "a.raw")
        told("--out-of-order has no effect", "convert", "-W", "-O", "raw", "top.qcow2", "a.raw")
        told("--no-drain has no effect", "bench", "-c", "1", "--no-drain", "a.raw")
        told("--aio has no effect", "bench", "-c", "1", "-i", "native", "a.raw")
        told("--native has no effect", "bench", "-c", "1", "-n", "a.raw")
        told("--source-cache has no effect", "rebase", "-T", "none", "-b", "", "top.qcow2")
        told("--force-share has no effect", "rebase", "-U", "-b", "", "mid.qcow2")
        got = subprocess.run([*OURS, "bench", "-c", "1", "a.raw"], capture_output=True, text=True, check=False, timeout=120)
        tap.check(got.stderr == "", "nothing is said where nothing is ignored")


def dd_takes_options_for_a_name():
    with Folder() as f:
        f.chain()
        run(*THEIRS, "dd", "-U", "--image-opts", "-O", "raw", "bs=64k", "count=9", "if=driver=qcow2,file.filename=top.qcow2", "of=want.raw")
        run(*OURS, "dd", "--image-opts", "-O", "raw", "bs=64k", "count=9", "if=driver=qcow2,file.filename=top.qcow2", "of=got.raw")
        tap.check(open("want.raw", "rb").read() == open("got.raw", "rb").read(), "dd")
        refused("do not go together", "dd", "-f", "raw", "--image-opts", "if=driver=raw,file.filename=want.raw", "of=x.raw")
        refused("needs file.filename", "dd", "--image-opts", "if=driver=raw", "of=x.raw")


def convert_has_the_options_of_scripts():
    with Folder() as f:
        f.chain()
        run(*THEIRS, "convert", "-O", "raw", "top.qcow2", "want.raw")
        run(*OURS, "convert", "-C", "-W", "-r", "100M", "-O", "raw", "top.qcow2", "a.raw")
        same("want.raw", "a.raw")
        f.raw("n.raw", 8 * MIB, [])
        run(*OURS, "convert", "-n", "--target-is-zero", "-O", "raw", "top.qcow2", "n.raw")
        same("want.raw", "n.raw")
        refused("goes with --no-create", "convert", "--target-is-zero", "-O", "raw", "top.qcow2", "m.raw")
        run(*OURS, "convert", "-O", "qcow2", "-B", "base.raw", "-F", "raw", "top.qcow2", "over.qcow2")
        same("want.raw", "over.qcow2", "raw", "qcow2")
        run(*OURS, "convert", "-S", "0", "-r", "100M", "-O", "raw", "base.raw", "slow.raw")
        same("base.raw", "slow.raw")
        sleeps_at_a_byte_a_second()


def salvage_goes_on_where_nothing_can_be_read():
    """A qcow2 image whose data cluster lies behind the file's end cannot be told from zeroes; one that is compressed wrongly cannot be read."""
    with Folder() as f:
        f.raw("a.raw", MIB, [(0, 512 << 10)])
        with open("b.raw", "wb") as file:
            file.write(b"x" * 65536 + f.rng.randbytes(1000) + b"y" * (MIB - 66536))
        run(*THEIRS, "convert", "-c", "-O", "qcow2", "b.raw", "c.qcow2")
        host = json.loads(run(*OURS, "map", "--output=json", "c.qcow2"))
        tap.check(any(x["compressed"] for x in host), str(host))
        data = bytearray(open("c.qcow2", "rb").read())
        l1 = int.from_bytes(data[40:48], "big")
        l2 = int.from_bytes(data[l1:l1 + 8], "big") & ((1 << 56) - 512)
        entry = int.from_bytes(data[l2 + 8:l2 + 16], "big")
        at = entry & ((1 << (62 - 8)) - 1)
        data[at:at + 40] = bytes(range(200, 240))
        open("c.qcow2", "wb").write(data)
        refused("at offset", "convert", "-O", "raw", "c.qcow2", "no.raw")
        run(*OURS, "convert", "--salvage", "-O", "raw", "c.qcow2", "yes.raw")
        run(*THEIRS, "convert", "--salvage", "-O", "raw", "c.qcow2", "their.raw")
        same("their.raw", "yes.raw")


def images_are_named_by_options():
    with Folder() as f:
        f.chain()
        for verb, more in (("info", ["--output=json"]), ("map", ["--output=json"]), ("check", [])):
            name = "driver=qcow2,file.driver=file,file.filename=mid.qcow2"
            mine = run(*OURS, verb, *more, "--image-opts", name)
            tap.check(mine == run(*OURS, verb, *more, "mid.qcow2"), f"{verb}: {mine}")
        run(*OURS, "compare", "--image-opts", "driver=qcow2,file.filename=top.qcow2", "driver=qcow2,file.filename=top.qcow2", "-U")
        run(*OURS, "convert", "--image-opts", "-O", "raw", "driver=qcow2,file.filename=top.qcow2", "out.raw")
        run(*THEIRS, "convert", "-O", "raw", "top.qcow2", "want.raw")
        same("want.raw", "out.raw")
        server = subprocess.Popen(["qemu-nbd", "-t", "-k", os.path.join(f.dir, "s"), "-f", "raw", "-x", "e", "base.raw"])
        try:
            end = time.monotonic() + 60
            while not os.path.exists("s"):
                tap.check(time.monotonic() < end, "qemu-nbd does not serve")
                time.sleep(0.05)
            run(*OURS, "convert", "--image-opts", "-O", "raw",
                f"driver=raw,file.driver=nbd,file.server.type=unix,file.server.path={f.dir}/s,file.export=e", "nbd.raw")
            same("base.raw", "nbd.raw")
        finally:
            server.kill()
            server.wait(60)
        refused("needs file.filename", "info", "--image-opts", "driver=qcow2")
        refused("not 'cache.direct'", "info", "--image-opts", "driver=qcow2,file.filename=a,cache.direct=on")
        refused("do not go together", "info", "-f", "raw", "--image-opts", "driver=qcow2,file.filename=mid.qcow2")


def bench_and_measure_have_their_options():
    with Folder() as f:
        f.raw("a.raw", 4 * MIB, [(0, 4096)])
        run(*OURS, "bench", "-w", "-c", "64", "-d", "4", "-s", "4k", "-S", "64k", "-o", "64k", "--pattern", "171", "--flush-interval", "8",
            "-n", "-i", "threads", "--no-drain", "-t", "none", "a.raw")
        f.raw("b.raw", 4 * MIB, [])
        with open("b.raw", "r+b") as file:
            file.write(open("a.raw", "rb").read(4096))
            for i in range(63):
                file.seek((i + 1) * 65536)
                file.write(b"\xab" * 4096)
        data = open("a.raw", "rb").read()
        want = open("b.raw", "rb").read()
        tap.check(data[4096:] == want[4096:], "what bench wrote")
        tap.check("Run completed in" in run(*OURS, "bench", "-c", "10", "-U", "a.raw"), "bench reads")
        refused("goes with --write", "bench", "--pattern", "1", "a.raw")
        refused("goes with --write", "bench", "--flush-interval", "1", "a.raw")
        run(*THEIRS, "convert", "-O", "qcow2", "a.raw", "a.qcow2")
        run(*OURS, "snapshot", "-c", "one", "a.qcow2")
        run("qemu-io", "-c", "write -z -u 0 4M", "a.qcow2")
        for words in (["-l", "one", "a.qcow2"], ["a.qcow2"], ["-U", "a.qcow2"]):
            mine, their = (json.loads(run(*x, "measure", "-O", "qcow2", "--output=json", *words)) for x in (OURS, THEIRS))
            tap.check(mine["required"] == their["required"] and mine["fully-allocated"] == their["fully-allocated"],
                      f"{words}: {mine} {their}")


def strict_comparison_wants_the_same_size():
    with Folder() as f:
        f.raw("a.raw", MIB, [(0, 4096)])
        shutil.copy("a.raw", "b.raw")
        os.truncate("b.raw", 2 * MIB)
        for words in ([], ["-s"], ["-s", "-T", "none"], ["-T", "writeback"]):
            mine, their = (subprocess.run([*x, "compare", "-f", "raw", "-F", "raw", *words, "a.raw", "b.raw"], capture_output=True,
                                          check=False, timeout=60).returncode for x in (OURS, THEIRS))
            tap.check(mine == their == (1 if "-s" in words else 0), f"{words}: {mine} {their}")


if __name__ == "__main__":
    if not shutil.which("qemu-img") or not shutil.which("qemu-io"):
        print("skipped: qemu-img and qemu-io (package qemu-utils)")
        sys.exit(77)
    sys.exit(tap.run_cases([map_begins_and_ends_where_it_is_told, commit_goes_down_to_the_base_that_is_named,
                            amend_changes_what_qemu_img_changes, convert_has_the_options_of_scripts,
                            salvage_goes_on_where_nothing_can_be_read, images_are_named_by_options,
                            bench_and_measure_have_their_options, strict_comparison_wants_the_same_size,
                            options_without_effect_are_named, dd_takes_options_for_a_name]))
