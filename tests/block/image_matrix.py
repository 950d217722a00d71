# SPDX-License-Identifier: Apache-2.0
"""Random images against qemu-img, both ways: formats, options, chains, snapshots, resizes.

What vmctl image writes must pass qemu-img check and compare equal, and the other way round. --seed N --from N
--count N make slices of a campaign.
"""
import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile

BUILD = os.environ["VMD_BUILDDIR"]
VMCTL = [os.path.join(BUILD, "vmctl"), "image"]
QEMU = ["qemu-img"]
MIB = 1 << 20


class Failure(Exception):
    """A command that should have gone well."""


def run(words, ok=(0,)):
    got = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    if got.returncode not in ok:
        raise Failure(f"{' '.join(words)}: status {got.returncode}: {(got.stderr or got.stdout).strip()[:300]}")
    return got.stdout


def contents(rng, path, size):
    with open(path, "wb") as f:
        f.truncate(size)
        for _ in range(rng.randrange(1, 12)):
            at = rng.randrange(size // 512) * 512
            n = min(size - at, rng.choice((512, 4096, 65536, 200000 // 512 * 512)))
            f.seek(at)
            f.write(rng.randbytes(n) if rng.random() < 0.6 else bytes([rng.randrange(256)]) * n)


def options(rng, backed):
    o = {"cluster_size": rng.choice(("512", "4096", "16384", "65536", "2097152"))}
    if rng.random() < 0.15:
        return {**o, "compat": "0.10"}
    o["refcount_bits"] = rng.choice("1 2 4 8 16 32 64".split())
    o["lazy_refcounts"] = rng.choice(("on", "off"))
    if int(o["cluster_size"]) >= 16384 and rng.random() < 0.4:
        o["extended_l2"] = "on"
    if rng.random() < 0.3:
        o["compression_type"] = "zstd"
    if not backed and rng.random() < 0.2:
        o["preallocation"] = rng.choice(("metadata", "falloc", "full"))
    return o


def sound(rng):
    """By qemu-img, and now and then by our checker, which tests of its own look at."""
    run(QEMU + ["check", "-q", "a.qcow2"])
    if rng.random() < 0.3:
        run(VMCTL + ["check", "-q", "a.qcow2"])


def text(o):
    return ",".join(f"{k}={v}" for k, v in o.items())


def convert_case(rng):
    """raw to qcow2 by one, checked by both, back by the other."""
    ours = rng.random() < 0.5
    make, other = (VMCTL, QEMU) if ours else (QEMU, VMCTL)
    size = rng.choice((MIB, 3 * MIB + 512 * 7, 4 * MIB))
    contents(rng, "src.raw", size)
    o = options(rng, False)
    if "compat" not in o and rng.random() < 0.2:
        o["data_file"] = "data"
        o["data_file_raw"] = rng.choice(("on", "off"))
    zipped = ["-c"] if rng.random() < 0.4 and not {"preallocation", "data_file"} & set(o) else []
    run(make + ["convert", "-f", "raw", "-O", "qcow2", "-o", text(o)] + zipped + ["src.raw", "a.qcow2"])
    sound(rng)
    run(other + ["convert", "-f", "qcow2", "-O", "raw", "a.qcow2", "b.raw"])
    with open("src.raw", "rb") as a, open("b.raw", "rb") as b:
        if a.read() != b.read():
            raise Failure("the contents differ after the way back")


def chain_case(rng):
    """An overlay with writes by qemu-io, snapshots and resizes by one or the other."""
    size = rng.choice((MIB, 2 * MIB))
    contents(rng, "base.raw", size)
    o = options(rng, True)
    tool = VMCTL if rng.random() < 0.7 else QEMU
    run(tool + ["create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "-o", text(o), "a.qcow2"])
    names = []
    for step in range(rng.randrange(1, 5)):
        tool = VMCTL if rng.random() < 0.7 else QEMU
        what = rng.choice(("write", "snap", "resize", "apply", "delete"))
        if what == "write":
            at = rng.randrange(size // 512 - 256) * 512
            run(["qemu-io", "-c", f"write -P {rng.randrange(1, 255)} {at} {rng.randrange(1, 256) * 512}",
                 "-c", f"write -z {rng.randrange(size // 512 - 64) * 512} 32k", "a.qcow2"])
        elif what == "snap" and int(o.get("refcount_bits", 16)) >= 8:
            run(tool + ["snapshot", "-c", f"s{step}", "a.qcow2"])
            names.append(f"s{step}")
        elif what == "resize" and "compat" not in o and not names:
            mode = rng.choice(("off", "metadata", "falloc", "full"))
            run(tool + ["resize", "-q", "--preallocation", mode, "a.qcow2", "+1M"])
        elif what in ("apply", "delete") and "s0" in names:
            run(tool + ["snapshot", "-a" if what == "apply" else "-d", "s0", "a.qcow2"])
            if what == "delete":
                names.remove("s0")
        else:
            continue
        sound(rng)
    run(QEMU + ["check", "-q", "a.qcow2"])
    run(VMCTL + ["convert", "-O", "raw", "a.qcow2", "b.raw"])
    run(QEMU + ["compare", "-q", "-f", "qcow2", "-F", "raw", "a.qcow2", "b.raw"])
    last = rng.choice(("rebase", "commit", "none"))
    if last == "rebase":
        run(VMCTL + ["rebase", "-b", "", "a.qcow2"])
        run(QEMU + ["check", "-q", "a.qcow2"])
        run(QEMU + ["compare", "-q", "-f", "qcow2", "-F", "raw", "a.qcow2", "b.raw"])
    elif last == "commit" and not names:
        run(VMCTL + ["commit", "-q", "a.qcow2"])
        run(QEMU + ["check", "-q", "a.qcow2"])
        run(QEMU + ["compare", "-q", "-f", "raw", "-F", "raw", "base.raw", "b.raw"])


def map_case(rng):
    """The same extents with data as qemu-img finds."""
    contents(rng, "src.raw", MIB)
    run(QEMU + ["convert", "-O", "qcow2", "-o", text(options(rng, True)), "src.raw", "a.qcow2"])
    run(VMCTL + ["compare", "-q", "-f", "raw", "-F", "qcow2", "src.raw", "a.qcow2"])
    sides = []
    for tool in (VMCTL, QEMU):
        out = run(tool + ["map", "--output=json", "a.qcow2"])
        data = set()
        for part in __import__("json").loads(out):
            if part["data"]:
                data.update(range(part["start"] // 512, (part["start"] + part["length"]) // 512))
        sides.append(data)
    if sides[0] != sides[1]:
        raise Failure("map finds other data than qemu-img")


FOREIGN = (("vdi", ""), ("vdi", "static=on"), ("vpc", ""), ("vpc", "subformat=fixed"), ("vpc", "force_size=on"),
           ("vhdx", "block_size=1M,log_size=1M"), ("vhdx", "subformat=fixed,block_size=2M,log_size=1M"),
           ("vmdk", ""), ("vmdk", "zeroed_grain=on"), ("vmdk", "subformat=streamOptimized"))


def foreign_case(rng):
    """An image of another program, made by qemu-img, read by us alone and as a backing file."""
    size = rng.choice((MIB, 3 * MIB + 512 * 7, 5 * MIB))
    contents(rng, "src.raw", size)
    fmt, o = rng.choice(FOREIGN)
    run(QEMU + ["convert", "-f", "raw", "-O", fmt] + (["-o", o] if o else []) + ["src.raw", "x"])
    run(VMCTL + ["convert", "-f", fmt, "-O", "raw", "x", "b.raw"])
    with open("src.raw", "rb") as a, open("b.raw", "rb") as b:
        data = b.read()
        if a.read() != data[:size] or any(data[size:]):
            raise Failure(f"{fmt} ({o}) reads otherwise than what was written")
    run(QEMU + ["compare", "-q", "-f", "raw", "-F", fmt, "b.raw", "x"])
    run(VMCTL + ["compare", "-q", "-f", "raw", "-F", fmt, "src.raw", "x"])
    run(VMCTL + ["create", "-f", "qcow2", "-b", "x", "-F", fmt, "a.qcow2"])
    run(VMCTL + ["bench", "-w", "-c", str(rng.randrange(1, 30)), "-s", "4k", "-o",
                 str(rng.randrange(size // 4096 - 30) * 4096), "a.qcow2"])
    sound(rng)
    run(VMCTL + ["convert", "-O", "raw", "a.qcow2", "b.raw"])
    run(QEMU + ["compare", "-q", "-f", "raw", "-F", "qcow2", "b.raw", "a.qcow2"])


CASES = ((convert_case, 0.45), (chain_case, 0.35), (map_case, 0.1), (foreign_case, 0.1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=int(os.environ.get("VMD_TEST_SEED", "1")))
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--count", type=int, default=300)
    args = parser.parse_args()
    if not shutil.which("qemu-img") or not shutil.which("qemu-io"):
        print("skipped: qemu-img and qemu-io (Debian: qemu-utils)")
        sys.exit(77)
    print(f"# seed {args.seed}, {args.count} images from {args.first} on")
    bad = []
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        os.chdir(folder)
        for i in range(args.first, args.first + args.count):
            rng = random.Random(args.seed * 1000003 + i)
            case = rng.choices([c for c, _ in CASES], [w for _, w in CASES])[0]
            try:
                case(rng)
            except (Failure, subprocess.TimeoutExpired) as e:
                print(f"# image {i} ({case.__name__}): {e}")
                bad.append(i)
            for name in os.listdir("."):
                os.unlink(name)
        os.chdir("/")
    print(f"{'not ok' if bad else 'ok'} 1 - images_agree_with_qemu_img_in_a_random_matrix")
    print("1..1")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
