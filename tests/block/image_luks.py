# SPDX-License-Identifier: Apache-2.0
"""Encrypted images against QEMU, both ways: LUKS in qcow2 and alone. Wrong secrets and broken headers get their exact errors."""
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.environ["VMD_SRCDIR"], "tests", "lib"))
import tap  # noqa: E402

VMCTL = [os.path.join(os.environ["VMD_BUILDDIR"], "vmctl"), "image"]
SEED = int(os.environ.get("VMD_TEST_SEED", "1"))
OBJECT = ["--object", "secret,id=s,file=pw"]
SIZE = 3 << 20
KINDS = (("aes-256", "xts", "plain64", "sha256"), ("aes-128", "xts", "plain64", "sha256"),
         ("aes-256", "cbc", "essiv", "sha256"), ("aes-256", "cbc", "plain", "sha1"),
         ("aes-128", "ecb", "plain64", "sha512"))


def run(words, ok=0):
    got = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    tap.check(got.returncode == ok, f"{' '.join(words)}: {got.returncode}: {got.stderr or got.stdout}")
    return got.stdout


def fails(words, text):
    got = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    tap.check(got.returncode == 1 and text in got.stderr, f"{' '.join(words)}: {got.returncode}: {got.stderr.strip()!r}")


def make_theirs(words):
    """QEMU measures how fast keys are derived, and says so when the clock was too coarse for it."""
    for _ in range(50):
        got = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
        if "accurate CPU usage" not in got.stderr:
            break
    tap.check(got.returncode == 0, f"{' '.join(words)}: {got.stderr}")


def setup(rng):
    with open("pw", "wb") as f:
        f.write(b"open sesame\n")
    with open("other", "wb") as f:
        f.write(b"shut sesame\n")
    with open("src.raw", "wb") as f:
        f.truncate(SIZE)
        for _ in range(12):
            f.seek(rng.randrange(SIZE // 512 - 200) * 512)
            f.write(rng.randbytes(rng.choice((512, 4096, 100352))))


def theirs(fmt, path):
    return f"driver={fmt},file.filename={path},{'encrypt.' if fmt == 'qcow2' else ''}key-secret=s"


def options(fmt, kind, key):
    prefix = "encrypt." if fmt == "qcow2" else ""
    values = {"cipher-alg": kind[0], "cipher-mode": kind[1], "ivgen-alg": kind[2], "hash-alg": kind[3],
              "iter-time": "10", key[0]: key[1]}
    if kind[2] == "essiv":
        values["ivgen-hash-alg"] = "sha256"
    return ",".join(["encrypt.format=luks"] * (fmt == "qcow2") + [f"{prefix}{k}={v}" for k, v in values.items()])


def same(path):
    with open("src.raw", "rb") as a, open(path, "rb") as b:
        tap.check(a.read() == b.read(), f"{path}: the contents differ")


def compare(fmt, path, other="src.raw"):
    run(["qemu-img", "compare", "-q"] + OBJECT + ["--image-opts", f"driver=raw,file.filename={other}", theirs(fmt, path)])


def images_that_qemu_encrypted_are_read():
    setup(random.Random(SEED))
    for fmt in ("qcow2", "luks"):
        for kind in KINDS[1:4] if fmt == "luks" else KINDS[:1]:  # QEMU takes a second for each
            make_theirs(["qemu-img", "create", "-q"] + OBJECT +
                        ["-f", fmt, "-o", options(fmt, kind, ("key-secret", "s")), "x", str(SIZE)])
            run(["qemu-img", "convert", "-n"] + OBJECT + ["-f", "raw", "src.raw", "--target-image-opts", theirs(fmt, "x")])
            run(VMCTL + ["convert", "-f", fmt, "--secret", "pw", "-O", "raw", "x", "b.raw"])
            same("b.raw")
            tap.check("encrypted: yes" in run(VMCTL + ["info", "x"]), "info does not say that it is encrypted")
            fails(VMCTL + ["convert", "-f", fmt, "-O", "raw", "x", "c.raw"], "is encrypted; give its secret")
            fails(VMCTL + ["convert", "-f", fmt, "--secret", "other", "-O", "raw", "x", "c.raw"], "does not open with this secret")
            os.unlink("x")


def images_that_we_encrypted_are_read_by_qemu():
    rng = random.Random(SEED)
    setup(rng)
    for fmt in ("qcow2", "luks"):
        for kind in KINDS if fmt == "luks" else KINDS[:3]:
            o = options(fmt, kind, ("key-file", "pw"))
            if fmt == "qcow2":
                o += f",cluster_size={rng.choice(('512', '4096', '65536'))}"
            run(VMCTL + ["convert", "-O", fmt, "-o", o, "src.raw", "x"])
            compare(fmt, "x")
            run(VMCTL + ["bench", "--secret", "pw", "-w", "-c", "50", "-s", "5k", "-o", "1M", "x"])
            run(VMCTL + ["convert", "--secret", "pw", "-O", "raw", "x", "b.raw"])
            compare(fmt, "x", "b.raw")
            if fmt == "qcow2":
                run(VMCTL + ["snapshot", "--secret", "pw", "-c", "s", "x"])
                run(VMCTL + ["resize", "--secret", "pw", "x", "+1M"])
                run(VMCTL + ["check", "-q", "x"])
                run(["qemu-img", "check", "-q"] + OBJECT + ["--image-opts", theirs(fmt, "x")])
            else:
                run(VMCTL + ["resize", "--secret", "pw", "x", "+1M"])
            run(["qemu-io"] + OBJECT + ["--image-opts", "-c", f"read -P 0 {SIZE} 1M", theirs(fmt, "x")])
            os.unlink("x")


def nothing_of_the_contents_is_in_the_file():
    setup(random.Random(SEED))
    with open("plain.raw", "wb") as f:
        f.write(b"a line that shows through\n" * 4000)
        f.truncate(SIZE)
    for fmt in ("qcow2", "luks"):
        run(VMCTL + ["convert", "-O", fmt, "-o", options(fmt, KINDS[0], ("key-file", "pw")), "plain.raw", "x"])
        with open("x", "rb") as f:
            tap.check(b"shows through" not in f.read(), f"{fmt}: the contents can be read in the file")
    fails(VMCTL + ["convert", "-c", "-O", "qcow2", "-o", options("qcow2", KINDS[0], ("key-file", "pw")), "plain.raw", "x"],
          "not supported")


def broken_headers_get_their_exact_errors():
    setup(random.Random(SEED))
    run(VMCTL + ["create", "-q", "-f", "luks", "-o", options("luks", KINDS[0], ("key-file", "pw")), "good", "1M"])
    with open("good", "rb") as f:
        good = f.read()
    cases = ((6, ">H", 2, "LUKS of version 2"), (8, ">Q", 0x7878787878787878, "is not supported"),
             (40, ">Q", 0x7878787878787878, "is not supported"), (72, ">Q", 0x7878787878787878, "is not supported"),
             (108, ">I", 1 << 31, "is not supported"), (108, ">I", 0, "is not supported"),
             (104, ">I", 0xffffffff, "payload lies behind its end"), (164, ">I", 0, "iterations of its digest"),
             (164, ">I", 0xffffffff, "iterations of its digest"), (208 + 4, ">I", 0xffffffff, "a key slot"),
             (208 + 40, ">I", 0xffffffff, "a key slot"), (208 + 44, ">I", 0xffffffff, "a key slot"),
             (208 + 44, ">I", 0, "a key slot"), (208, ">I", 0xdead, "does not open with this secret"),
             (112, ">I", 1, "does not open with this secret"))
    for at, fmt, value, text in cases:
        data = bytearray(good)
        struct.pack_into(fmt, data, at, value)
        with open("bad", "wb") as f:
            f.write(data)
        fails(VMCTL + ["map", "-f", "luks", "--secret", "pw", "bad"], text)
    fails(VMCTL + ["create", "-f", "luks", "new", "1M"], "needs a secret")
    fails(VMCTL + ["create", "-f", "qcow2", "-o", "encrypt.format=aes", "new", "1M"], "encrypt.format is luks")
    fails(VMCTL + ["create", "-f", "qcow2", "-o", "encrypt.key-file=pw", "new", "1M"], "goes with encrypt.format=luks")
    fails(VMCTL + ["create", "-f", "luks", "-o", "key-file=pw,cipher-alg=rot13", "new", "1M"], "cipher-alg is")


def main():
    if not shutil.which("qemu-img") or not shutil.which("qemu-io"):
        print("skipped: qemu-img and qemu-io (Debian: qemu-utils)")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        status = tap.run_cases((images_that_qemu_encrypted_are_read, images_that_we_encrypted_are_read_by_qemu,
                                nothing_of_the_contents_is_in_the_file, broken_headers_get_their_exact_errors))
        os.chdir("/")
    sys.exit(status)


if __name__ == "__main__":
    main()
