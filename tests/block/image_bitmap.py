# SPDX-License-Identifier: Apache-2.0
"""Dirty bitmaps of qcow2 images against QEMU: either writes, changes and stores them, QEMU's NBD server shows them."""
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.environ["VMD_SRCDIR"], "tests", "lib"))
import tap  # noqa: E402

VMCTL = [os.path.join(os.environ["VMD_BUILDDIR"], "vmctl"), "image"]
SEED = int(os.environ.get("VMD_TEST_SEED", "1"))
SIZE = 8 << 20


def run(words, ok=0):
    got = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    tap.check(got.returncode == ok, f"{' '.join(words)}: {got.returncode}: {got.stderr or got.stdout}")
    return got.stdout


def bits(image, name, granularity, size):
    """The dirty grains, as QEMU's NBD server tells them."""
    with subprocess.Popen(["qemu-nbd", "-r", "-t", "-k", os.path.abspath("s"), "-f", "qcow2", "-B", name, image],
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        while not os.path.exists("s") and server.poll() is None:
            time.sleep(0.005)
        try:
            tap.check(server.poll() is None, "qemu-nbd ended")
            out = run(["qemu-img", "map", "--output=json", "--image-opts",
                       "driver=nbd,server.type=unix,server.path=s,x-dirty-bitmap=qemu:dirty-bitmap:" + name])
        finally:
            server.terminate()
            server.wait()
            if os.path.exists("s"):
                os.unlink("s")
    dirty = set()
    for part in json.loads(out):
        if not part["data"]:
            dirty.update(range(part["start"] // granularity, (part["start"] + part["length"] - 1) // granularity + 1))
    return {g for g in dirty if g * granularity < size}


def info(image):
    out = json.loads(run(["qemu-img", "info", "--output=json", image]))
    return {b["name"]: b for b in out["format-specific"]["data"].get("bitmaps", [])}


def one(rng, number):
    grains = {}
    cluster = rng.choice(("512", "4096", "65536"))
    run(rng.choice((VMCTL, ["qemu-img"])) + ["create", "-q", "-f", "qcow2", "-o", f"cluster_size={cluster}", "a", str(SIZE)])
    model, enabled = {}, {}
    for _ in range(rng.randrange(4, 9)):
        tool = rng.choice((VMCTL, ["qemu-img"]))
        what = rng.choice(("add", "write", "write", "remove", "clear", "enable", "disable", "merge"))
        name = f"b{rng.randrange(3)}"
        if not model or (what == "add" and name not in model):
            grains[name] = rng.choice((512, 4096, 65536))
            run(tool + ["bitmap", "--add", "-g", str(grains[name]), "a", name])
            model[name], enabled[name] = set(), True
        elif what == "write":
            at, count = rng.randrange(SIZE // 4096 - 64) * 4096, rng.randrange(1, 64)
            if rng.random() < 0.5:
                run(["qemu-io", "-f", "qcow2", "-c", f"write {at} {count * 4096}", "a"])
            else:
                run(VMCTL + ["bench", "-w", "-c", str(count), "-o", str(at), "-s", "4096", "a"])
            for b, on in enabled.items():
                if on:
                    model[b].update(range(at // grains[b], (at + count * 4096 - 1) // grains[b] + 1))
        elif what == "add" or name not in model:
            continue
        elif what == "merge":
            source = rng.choice(list(model))
            if source != name:
                run(tool + ["bitmap", "--merge", source, "a", name])
                for g in model[source]:
                    model[name].update(range(g * grains[source] // grains[name],
                                             ((g + 1) * grains[source] - 1) // grains[name] + 1))
        else:
            run(tool + ["bitmap", "--" + what, "a", name])
            if what == "remove":
                del model[name], enabled[name]
            elif what == "clear":
                model[name] = set()
            else:
                enabled[name] = what == "enable"
        run(["qemu-img", "check", "-q", "a"])
        run(VMCTL + ["check", "-q", "a"])
    listed = info("a")
    tap.check(set(listed) == set(model), f"image {number}: bitmaps {sorted(listed)}, not {sorted(model)}")
    mine = {b["name"]: b for b in json.loads(run(VMCTL + ["bitmap", "--json", "a"]))}
    tap.check(mine == listed, f"image {number}: {mine} and {listed}")
    for name, want in model.items():
        tap.check(("auto" in listed[name]["flags"]) == enabled[name], f"image {number}: flags of {name}")
        if enabled[name]:  # only such are shown by qemu-nbd of a read-only image
            have = bits("a", name, grains[name], SIZE)
            tap.check(have == want, f"image {number}: {name}: {sorted(have ^ want)[:10]} differ")
    os.unlink("a")


def bitmaps_agree_with_qemu():
    rng = random.Random(SEED)
    print(f"# seed {SEED}")
    for i in range(12):
        one(rng, i)


def bitmaps_of_another_image_are_merged():
    for name in ("a", "b"):
        run(VMCTL + ["create", "-q", "-f", "qcow2", name, str(SIZE)])
        run(VMCTL + ["bitmap", "--add", name, "x"])
    run(["qemu-io", "-c", "write 1M 64k", "b"])
    run(VMCTL + ["bitmap", "--merge", "x", "-b", "b", "-F", "qcow2", "a", "x"])
    tap.check(bits("a", "x", 65536, SIZE) == {16}, "bits of the merged bitmap")
    got = subprocess.run(VMCTL + ["bitmap", "--merge", "y", "a", "x"], capture_output=True, text=True, check=False)
    tap.check(got.returncode == 1 and "has no bitmap 'y'" in got.stderr, got.stderr)
    got = subprocess.run(VMCTL + ["bitmap", "--add", "a", "x"], capture_output=True, text=True, check=False)
    tap.check(got.returncode == 1 and "has a bitmap 'x' already" in got.stderr, got.stderr)
    got = subprocess.run(VMCTL + ["bitmap", "--add", "-g", "1000", "a", "z"], capture_output=True, text=True,
                         check=False)
    tap.check(got.returncode == 1 and "a power of two" in got.stderr, got.stderr)
    run(["qemu-img", "check", "-q", "a"])


def converting_takes_bitmaps_along():
    rng = random.Random(SEED)
    run(VMCTL + ["create", "-q", "-f", "qcow2", "a", str(SIZE)])
    run(VMCTL + ["bitmap", "--add", "-g", "4096", "a", "x"])
    run(VMCTL + ["bitmap", "--add", "-g", "65536", "a", "off"])
    want = set()
    for _ in range(20):
        at = rng.randrange(SIZE // 4096)
        run(["qemu-io", "-c", f"write {at * 4096} 4096", "a"])
        want.add(at)
    run(VMCTL + ["bitmap", "--disable", "a", "off"])
    for tool in (VMCTL, ["qemu-img"]):
        run(tool + ["convert", "--bitmaps", "-O", "qcow2", "-o", "cluster_size=4096", "a", "b"])
        run(["qemu-img", "check", "-q", "b"])
        run(["qemu-img", "compare", "-q", "a", "b"])
        tap.check(bits("b", "x", 4096, SIZE) == want, f"{tool[0]}: bits of x")
        tap.check(info("b") == info("a"), f"{tool[0]}: {info('b')}")
        run(VMCTL + ["bitmap", "--enable", "b", "off"])
        tap.check(bits("b", "off", 65536, SIZE) == {g // 16 for g in want}, f"{tool[0]}: bits of off")
        os.unlink("b")
    got = subprocess.run(VMCTL + ["convert", "--bitmaps", "-O", "raw", "a", "r"], capture_output=True, text=True,
                         check=False)
    tap.check(got.returncode == 1 and "keep no bitmaps" in got.stderr and not os.path.exists("r"), got.stderr)
    with open("a", "r+b") as f:  # as after a crash: in use
        data = bytearray(f.read())
        at = data.index((0x23852875).to_bytes(4, "big")) + 24  # its directory's offset
        place = int.from_bytes(data[at:at + 8], "big")
        data[place + 15] |= 1
        f.seek(0)
        f.write(data)
    got = subprocess.run(VMCTL + ["convert", "--bitmaps", "-O", "qcow2", "a", "b"], capture_output=True, text=True,
                         check=False)
    tap.check(got.returncode == 1 and "is inconsistent" in got.stderr and not os.path.exists("b"), got.stderr)
    run(VMCTL + ["convert", "--bitmaps", "--skip-broken-bitmaps", "-O", "qcow2", "a", "b"])
    tap.check(len(info("b")) == 1, f"{info('b')}")


def main():
    for tool in ("qemu-img", "qemu-io", "qemu-nbd"):
        if not shutil.which(tool):
            print(f"skipped: {tool} (Debian: qemu-utils)")
            sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        status = tap.run_cases((bitmaps_agree_with_qemu, bitmaps_of_another_image_are_merged,
                                converting_takes_bitmaps_along))
        os.chdir("/")
    sys.exit(status)


if __name__ == "__main__":
    main()
