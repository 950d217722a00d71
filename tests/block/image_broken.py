# SPDX-License-Identifier: Apache-2.0
"""Broken qcow2 images: each gets its exact error, in 64 MiB of data memory, and is not changed."""
import hashlib
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.environ["VMD_SRCDIR"], "tests", "lib"))
import tap  # noqa: E402

VMCTL = [os.path.join(os.environ["VMD_BUILDDIR"], "vmctl"), "image"]
SANITIZED = "fsanitize" in os.environ.get("VMD_CFLAGS", "")
LIMIT = 64 << 20
L2 = 0x40000


def put(at, fmt, value):
    """Places 0x40000 and up stand for the first L2 table."""
    def change(data):
        place = at
        if at >= L2:
            place += (struct.unpack_from(">Q", data, 0x30000)[0] & 0xfffffffffffe00) - L2
        data[place:place + struct.calcsize(fmt)] = struct.pack(fmt, value)
    return change


def both(*changes):
    def change(data):
        for c in changes:
            c(data)
    return change


def cut(size):
    def change(data):
        del data[size:]
    return change


# name, change, what the error says (None: check finds corruptions, status 2)
CASES = (
    ("wrong magic", put(0, ">I", 0x12345678), "is no qcow2 image"),
    ("version 1", put(4, ">I", 1), "version 1; we know 2 and 3"),
    ("version 9", put(4, ">I", 9), "version 9; we know 2 and 3"),
    ("cluster bits 8", put(20, ">I", 8), "cluster size is not 512 bytes to 2 MiB"),
    ("cluster bits 22", put(20, ">I", 22), "cluster size is not 512 bytes to 2 MiB"),
    ("cluster bits 2^31", put(20, ">I", 1 << 31), "cluster size is not 512 bytes to 2 MiB"),
    ("size 2^63", put(24, ">Q", 1 << 63), "size is beyond all bounds"),
    ("size larger than L1", put(24, ">Q", 1 << 45), "L1 table is too small"),
    ("encrypted", put(32, ">I", 1), "is encrypted"),
    ("L1 of 32 GiB", put(36, ">I", 0xffffffff), "larger than 32 MiB"),
    ("L1 behind the end", put(40, ">Q", 1 << 40), "L1 table lies outside the file"),
    ("L1 not aligned", put(40, ">Q", 0x30001), "L1 table lies outside the file"),
    ("L1 at the header", put(40, ">Q", 0), "L1 table lies outside the file"),
    ("refcount table behind the end", put(48, ">Q", 1 << 50), "refcount table lies outside the file"),
    ("refcount table of 256 TiB", put(56, ">I", 0xffffffff), "larger than 8 MiB"),
    ("no refcount table", put(56, ">I", 0), "refcount table lies outside the file"),
    ("snapshots 2^32", put(60, ">I", 0xffffffff), "table of snapshots"),
    ("snapshots behind the end", both(put(60, ">I", 1), put(64, ">Q", 1 << 40)), "table of snapshots"),
    ("snapshot of rubbish", both(put(60, ">I", 1), put(64, ">Q", 0x30000)), None),
    ("unknown feature", put(72, ">Q", 1 << 40), "needs feature bit 40"),
    ("refcount order 7", put(96, ">I", 7), "wider than 64 bits"),
    ("header length 8", put(100, ">I", 8), "length of its header"),
    ("header length 2^31", put(100, ">I", 1 << 31), "length of its header"),
    ("compression type 7", both(put(72, ">Q", 8), put(104, ">B", 7)), "unknown compression type"),
    ("extension of 4 GiB", put(116, ">I", 0xfffffff0), "longer than the header"),
    ("backing name of 64 KiB", both(put(8, ">Q", 200), put(16, ">I", 65535)), "name of its backing file"),
    ("backing name behind the header", both(put(8, ">Q", 1 << 33), put(16, ">I", 10)),
     "name of its backing file"),
    ("data file without a name", put(72, ">Q", 4), "names no data file"),
    ("L2 not aligned", put(0x30000, ">Q", 0x40200 | 1 << 63), None),
    ("L2 behind the end", put(0x30000, ">Q", 1 << 45), None),
    ("data behind the end", put(0x40000, ">Q", 1 << 45 | 1 << 63), None),
    ("data not aligned", put(0x40000, ">Q", 0x50200 | 1 << 63), None),
    ("data on the header", put(0x40000, ">Q", 1 << 62), None),
    ("compressed behind the end", put(0x40000, ">Q", 1 << 62 | 1 << 50), None),
    ("refcounts that lie", put(0x20000, ">H", 0), None),
    ("refcount block behind the end", put(0x10000, ">Q", 1 << 50), None),
    ("two clusters on one place", put(0x40008, ">Q", 0x40000 | 1 << 63), None),
    ("L1 on L2", put(0x40000, ">Q", 0x30000 | 1 << 63), None),
    ("cut in the header", cut(40), None),
    ("cut in the tables", cut(0x30000), "L1 table lies outside the file"),
)


def limited():
    if not SANITIZED:
        resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))


def run(words):
    return subprocess.run(VMCTL + words, capture_output=True, text=True, check=False, timeout=60,
                          preexec_fn=limited)


def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def good_image():
    subprocess.run(VMCTL + ["create", "-q", "-f", "qcow2", "good.qcow2", "4M"], check=True)
    with open("src.raw", "wb") as f:
        f.write(os.urandom(3 * 65536))
        f.truncate(4 << 20)
    subprocess.run(VMCTL + ["convert", "-q", "-f", "raw", "-O", "qcow2", "-m", "1", "src.raw", "good.qcow2"],
                   check=True)
    with open("good.qcow2", "rb") as f:
        return bytearray(f.read())


def one(name, change, text, good):
    data = bytearray(good)
    change(data)
    with open("bad.qcow2", "wb") as f:
        f.write(data)
    before = digest("bad.qcow2")
    for words in (["check", "-f", "qcow2"], ["info", "-f", "qcow2"], ["map", "-f", "qcow2"],
                  ["convert", "-f", "qcow2", "-O", "raw"], ["snapshot", "-f", "qcow2"]):
        target = ["out.raw"] if words[0] == "convert" else []
        got = run(words + ["bad.qcow2"] + target)
        tap.check(got.returncode >= 0, f"{name}: {words[0]} died of signal {-got.returncode}")
        if text:
            tap.check(got.returncode != 0 and text in got.stderr,
                      f"{name}: {words[0]}: status {got.returncode}, {got.stderr.strip()!r}, not {text!r}")
        elif words[0] == "check":
            tap.check(got.returncode in (1, 2), f"{name}: check: status {got.returncode}")
    tap.check(digest("bad.qcow2") == before, f"{name}: the file was changed")


def broken_images_get_their_exact_errors_and_stay_as_they_are():
    good = good_image()
    for name, change, text in CASES:
        one(name, change, text, good)


def loops_of_backing_files_are_found():
    for a, b in (("a.qcow2", "b.qcow2"), ("b.qcow2", "a.qcow2")):
        subprocess.run(VMCTL + ["create", "-q", "-u", "-f", "qcow2", "-b", b, "-F", "qcow2", a, "1M"],
                       check=True)
    got = run(["map", "a.qcow2"])
    tap.check(got.returncode == 1 and "loop" in got.stderr, got.stderr)
    got = run(["info", "--backing-chain", "a.qcow2"])
    tap.check(got.returncode == 1 and "loop" in got.stderr, got.stderr)


def repair_makes_broken_images_sound():
    good = good_image()
    for name, change, text in CASES:
        if text or name.startswith(("cut", "snapshot")):
            continue
        data = bytearray(good)
        change(data)
        with open("bad.qcow2", "wb") as f:
            f.write(data)
        got = run(["check", "-f", "qcow2", "-r", "all", "bad.qcow2"])
        tap.check(got.returncode == 0, f"{name}: repair: {got.returncode} {got.stdout} {got.stderr}")
        if shutil.which("qemu-img"):
            theirs = subprocess.run(["qemu-img", "check", "-q", "bad.qcow2"], capture_output=True, text=True,
                                    check=False)
            tap.check(theirs.returncode == 0, f"{name}: after repair qemu-img says {theirs.stderr}")


def an_image_in_use_is_refused_and_the_holder_named():
    good_image()
    with subprocess.Popen(VMCTL + ["bench", "-q", "-w", "-c", "1000000", "good.qcow2"],
                          stdout=subprocess.DEVNULL) as holder:
        try:
            inode = f":{os.stat('good.qcow2').st_ino} "
            while holder.poll() is None:  # it ends when it is through
                with open("/proc/locks", encoding="ascii") as f:
                    if inode in f.read():
                        break
            text = run(["resize", "good.qcow2", "+1M"]).stderr
            tap.check("is locked by" in text and str(holder.pid) in text, text)
        finally:
            holder.kill()


def an_image_that_qemu_uses_is_refused_and_its_process_named():
    if not shutil.which("qemu-io"):
        raise tap.Skip("qemu-io (Debian: qemu-utils)")
    good_image()
    with subprocess.Popen(["qemu-io", "good.qcow2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        holder.stdin.write("read 0 512\n")
        holder.stdin.flush()
        line = ""
        while "bytes" not in line:  # it has opened the image
            line = holder.stdout.readline()
        got = run(["resize", "good.qcow2", "+1M"])
        holder.stdin.close()
        tap.check(got.returncode == 1 and f"is locked by qemu-io (pid {holder.pid})" in got.stderr, got.stderr)


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        status = tap.run_cases((broken_images_get_their_exact_errors_and_stay_as_they_are,
                                loops_of_backing_files_are_found, repair_makes_broken_images_sound,
                                an_image_in_use_is_refused_and_the_holder_named,
                                an_image_that_qemu_uses_is_refused_and_its_process_named))
        os.chdir("/")
    sys.exit(status)


if __name__ == "__main__":
    main()
