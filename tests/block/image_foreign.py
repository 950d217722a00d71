# SPDX-License-Identifier: Apache-2.0
"""Images of other programs, broken: each gets its exact error, in 64 MiB of data memory, and is not changed.

Sound ones are in image_matrix.py; here are also streams as VMware writes them, with the directory at the end.
"""
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
OPTIONS = {"vdi": "", "vhd": "force_size=on", "vhdx": "block_size=1M,log_size=1M", "vmdk": "",
           "stream": "subformat=streamOptimized", "fixed": "subformat=fixed,force_size=on"}
FORMAT = {"stream": "vmdk", "fixed": "vhd"}
THEIRS = {"vhd": "vpc"}


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def put(at, fmt, value):
    def change(data):
        place = at + len(data) if at < 0 else at
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


def vhd_sums(data):
    """The checksums put right again."""
    for at, size, place in ((0, 512, 64), (512, 1024, 36), (len(data) - 512, 512, 64)):
        part = bytearray(data[at:at + size])
        part[place:place + 4] = bytes(4)
        struct.pack_into(">I", data, at + place, ~sum(part) & 0xffffffff)


def vhdx_sums(data):
    for at, size in ((65536, 4096), (131072, 4096), (192 << 10, 65536), (256 << 10, 65536)):
        part = bytearray(data[at:at + size])
        part[4:8] = bytes(4)
        struct.pack_into("<I", data, at + 4, crc32c(part))


def vhdx_both(offset, fmt, value):
    """In both headers."""
    return both(put(65536 + offset, fmt, value), put(131072 + offset, fmt, value), vhdx_sums)


def vhdx_region(entry, offset, fmt, value):
    return both(*(put(at + 16 + entry * 32 + offset, fmt, value) for at in (192 << 10, 256 << 10)), vhdx_sums)


def vhdx_item(name, fmt, value):
    """A metadata item by the first bytes of its name."""
    def change(data):
        meta = next(struct.unpack_from("<Q", data, (192 << 10) + 16 + i * 32 + 16)[0] for i in range(2)
                    if data[(192 << 10) + 16 + i * 32] == 0x06)
        for i in range(struct.unpack_from("<H", data, meta + 10)[0]):
            if data[meta + 32 + i * 32:][:4] == bytes.fromhex(name):
                struct.pack_into(fmt, data, meta + struct.unpack_from("<I", data, meta + 32 + i * 32 + 16)[0], value)
    return change


def vhdx_bat(fmt, value):
    def change(data):
        bat = next(struct.unpack_from("<Q", data, (192 << 10) + 16 + i * 32 + 16)[0] for i in range(2)
                   if data[(192 << 10) + 16 + i * 32] == 0x66)
        struct.pack_into(fmt, data, bat, value)
    return change


def vmdk_first_grain(value):
    def change(data):
        directory = struct.unpack_from("<Q", data, 56)[0] * 512
        struct.pack_into("<I", data, struct.unpack_from("<I", data, directory)[0] * 512, value)
    return change


def stream_bomb(data):
    """The first grain says that it is 4 GiB long."""
    directory = struct.unpack_from("<Q", data, 56)[0] * 512
    grain = struct.unpack_from("<I", data, struct.unpack_from("<I", data, directory)[0] * 512)[0] * 512
    struct.pack_into("<I", data, grain + 8, 0xfffffff0)


def text(old, new):
    def change(data):
        at = bytes(data).find(old)
        data[at:at + len(new)] = new
    return change


# kind, name, change, what the error says; with `late` only what reads contents fails
CASES = (
    ("vdi", "wrong magic", put(0x40, "<I", 1), "is no vdi image"),
    ("vdi", "version 9", put(0x44, "<I", 0x90000), "is of version 9.0"),
    ("vdi", "differences", put(0x4c, "<I", 4), "image of type 4"),
    ("vdi", "a parent", put(0x1b8, "<Q", 1), "has a parent image"),
    ("vdi", "sectors of 4 KiB", put(0x168, "<I", 4096), "not of 512 bytes"),
    ("vdi", "blocks of 3 bytes", put(0x178, "<I", 3), "block size is not"),
    ("vdi", "blocks of 2 GiB", put(0x178, "<I", 1 << 31), "block size is not"),
    ("vdi", "size 2^63", put(0x170, "<Q", 1 << 63), "fewer blocks than its size needs"),
    ("vdi", "2^32 blocks", put(0x180, "<I", 0xffffffff), "table of blocks lies outside"),
    ("vdi", "no blocks", put(0x180, "<I", 0), "fewer blocks"),
    ("vdi", "data in the table", put(0x158, "<I", 512), "data lies in its table"),
    ("vdi", "table behind the end", put(0x154, "<I", 0xfffffe00), "table of blocks lies outside"),
    ("vdi", "block behind the end", put(0x200, "<I", 0x7fffffff), "late"),
    ("vdi", "cut in the header", cut(300), "is no sound vdi image"),
    ("vhd", "wrong magic", both(put(0, "<Q", 1), put(-512, "<Q", 1)), "is no vhd image"),
    ("vhd", "wrong checksum", both(put(64, ">I", 1), put(-448, ">I", 1)), "checksum of its footer"),
    ("vhd", "version 9", both(put(-500, ">I", 0x90000), vhd_sums), "is of version 9"),
    ("vhd", "differences", both(put(-452, ">I", 4), vhd_sums), "has a parent image"),
    ("vhd", "type 77", both(put(-452, ">I", 77), vhd_sums), "type is none that we know"),
    ("vhd", "size 2^63", both(put(-464, ">Q", 1 << 63), vhd_sums), "size is beyond all bounds"),
    ("vhd", "second header behind the end", both(put(-496, ">Q", 1 << 50), vhd_sums), "second header lies outside"),
    ("vhd", "second header wrong", put(512, ">Q", 1), "checksum of its second header"),
    ("vhd", "blocks of 3 bytes", both(put(512 + 32, ">I", 3), vhd_sums), "block size is not"),
    ("vhd", "2^32 blocks", both(put(512 + 28, ">I", 0xffffffff), vhd_sums), "table of blocks lies outside"),
    ("vhd", "no blocks", both(put(512 + 28, ">I", 0), vhd_sums), "fewer blocks"),
    ("vhd", "table behind the end", both(put(512 + 16, ">Q", 1 << 60), vhd_sums), "table of blocks lies outside"),
    ("vhd", "block behind the end", put(1536, ">I", 0xfffffffe), "late"),
    ("fixed", "larger than its file", both(put(-464, ">Q", 1 << 40), vhd_sums), "shorter than its size"),
    ("vhdx", "wrong magic", put(0, "<Q", 1), "is no vhdx image"),
    ("vhdx", "headers without checksum", both(put(65540, "<I", 1), put(131076, "<I", 1)), "neither of its headers"),
    ("vhdx", "version 9", vhdx_both(66, "<H", 9), "is of version 9"),
    ("vhdx", "a log that waits", vhdx_both(48, "<Q", 7), "its log waits"),
    ("vhdx", "regions without checksum", both(put((192 << 10) + 4, "<I", 1), put((256 << 10) + 4, "<I", 1)),
     "neither of its tables of regions"),
    ("vhdx", "2^32 regions", both(put((192 << 10) + 8, "<I", 0xffffffff), put((256 << 10) + 8, "<I", 0xffffffff),
                                  vhdx_sums), "longer than 2047"),
    ("vhdx", "no regions", both(put((192 << 10) + 8, "<I", 0), put((256 << 10) + 8, "<I", 0), vhdx_sums),
     "a region is missing"),
    ("vhdx", "region behind the end", vhdx_region(0, 16, "<Q", 1 << 50), "a region lies outside"),
    ("vhdx", "region of odd size", vhdx_region(1, 24, "<I", 77), "a region lies outside"),
    ("vhdx", "unknown region", both(vhdx_region(0, 0, "<Q", 77), vhdx_region(0, 28, "<I", 1)),
     "needs a region that we do not know"),
    ("vhdx", "blocks of 3 bytes", vhdx_item("3767a1ca", "<I", 3), "block size is not"),
    ("vhdx", "a parent", vhdx_item("3767a1ca", "<Q", 2 << 32 | 1 << 20), "has a parent image"),
    ("vhdx", "size 2^63", vhdx_item("2442a52f", "<Q", 1 << 63), "size is over 64 TiB"),
    ("vhdx", "more blocks than table", vhdx_item("2442a52f", "<Q", 1 << 45), "table of blocks is too small"),
    ("vhdx", "sectors of 77 bytes", vhdx_item("1dbf4181", "<I", 77), "sectors have neither"),
    ("vhdx", "block behind the end", vhdx_bat("<Q", 6 | 1 << 60), "late"),
    ("vhdx", "block in a parent", vhdx_bat("<Q", 7), "late"),
    ("vhdx", "cut in the headers", cut(70000), "neither of its"),
    ("vmdk", "wrong magic", put(0, "<I", 1), "is no vmdk image"),
    ("vmdk", "version 9", put(4, "<I", 9), "is of version 9"),
    ("vmdk", "carried as text", put(75, "<H", 0x0a0a), "carried as text"),
    ("vmdk", "a parent", text(b"parentCID=ffffffff", b"parentCID=12345678"), "has a parent image"),
    ("vmdk", "another type", text(b'createType="monolithicSparse"', b'createType="vmfsSparseXXXXXX"'),
     "is of type vmfsSparse"),
    ("vmdk", "grains of 3 sectors", put(20, "<Q", 3), "grain size is not"),
    ("vmdk", "grains of 2^63", put(20, "<Q", 1 << 63), "grain size is not"),
    ("vmdk", "tables of 2^31", put(44, "<I", 1 << 31), "not 1 to 512 entries"),
    ("vmdk", "tables of nothing", put(44, "<I", 0), "not 1 to 512 entries"),
    ("vmdk", "size 2^63", put(12, "<Q", 1 << 63), "size is beyond all bounds"),
    ("vmdk", "size 2^50", put(12, "<Q", 1 << 50), "grain directory lies outside"),
    ("vmdk", "directory behind the end", put(56, "<Q", 1 << 60), "grain directory lies outside"),
    ("vmdk", "descriptor behind the end", put(28, "<Q", 1 << 40), "descriptor lies outside"),
    ("vmdk", "descriptor of 2^40", put(36, "<Q", 1 << 40), "descriptor lies outside"),
    ("vmdk", "no footer", put(56, "<Q", (1 << 64) - 1), "footer is missing"),
    ("vmdk", "grain behind the end", vmdk_first_grain(0xfffffff0), "late"),
    ("stream", "method 7", put(77, "<H", 7), "compressed by method 7"),
    ("stream", "a grain of 4 GiB", stream_bomb, "late read"),
    ("stream", "grain in the header", vmdk_first_grain(2), "late read"),
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


def source():
    if not os.path.exists("src.raw"):
        with open("src.raw", "wb") as f:
            f.write(b"first" * 1000)
            f.truncate(3 << 20)
            f.seek(2 << 20)
            f.write(bytes(range(256)) * 256)
    return "src.raw"


def good_image(kind):
    fmt = FORMAT.get(kind, kind)
    options = ["-o", OPTIONS[kind]] if OPTIONS[kind] else []
    subprocess.run(["qemu-img", "convert", "-O", THEIRS.get(fmt, fmt)] + options + [source(), "good"], check=True)
    with open("good", "rb") as f:
        return bytearray(f.read())


def one(kind, name, change, want, good):
    fmt = FORMAT.get(kind, kind)
    data = bytearray(good)
    change(data)
    with open("bad", "wb") as f:
        f.write(data)
    before = digest("bad")
    for words in (["info", "-f", fmt], ["map", "-f", fmt], ["convert", "-f", fmt, "-O", "raw"]):
        got = run(words + ["bad"] + (["out.raw"] if words[0] == "convert" else []))
        label = f"{kind}: {name}: {words[0]}"
        tap.check(got.returncode >= 0, f"{label} died of signal {-got.returncode}")
        if want.startswith("late"):
            fails = words[0] == "convert" or (words[0] == "map" and want == "late")
            tap.check(got.returncode == (1 if fails else 0), f"{label}: status {got.returncode} {got.stderr}")
            if fails:
                tap.check("leads nowhere" in got.stderr or "Input/output error" in got.stderr, f"{label}: {got.stderr}")
        else:
            tap.check(got.returncode == 1 and want in got.stderr, f"{label}: {got.returncode} {got.stderr.strip()!r}, not {want!r}")
    tap.check(digest("bad") == before, f"{kind}: {name}: the file was changed")


def broken_images_of_other_programs_get_their_exact_errors():
    good = {kind: good_image(kind) for kind in OPTIONS}
    for kind, name, change, want in CASES:
        one(kind, name, change, want, good[kind])


def images_of_other_programs_are_only_read():
    for kind in OPTIONS:
        good_image(kind)
        before = digest("good")
        got = run(["resize", "-f", FORMAT.get(kind, kind), "good", "+1M"])
        tap.check(got.returncode == 1 and "are only read" in got.stderr, got.stderr)
        got = run(["create", "-f", FORMAT.get(kind, kind), "new", "1M"])
        tap.check(got.returncode == 1 and "are only read" in got.stderr, got.stderr)
        tap.check(digest("good") == before, f"{kind} was changed")


def streams_with_their_directory_at_the_end_are_read():
    data = good_image("stream")
    footer = bytearray(data[:512])
    struct.pack_into("<Q", data, 56, (1 << 64) - 1)
    data += bytes(-len(data) % 512)
    data += struct.pack("<QII", 1, 0, 3) + bytes(496) + footer + bytes(512)
    with open("stream.vmdk", "wb") as f:
        f.write(data)
    for tool in (VMCTL, ["qemu-img"]):
        got = subprocess.run(tool + ["compare", "-f", "raw", "-F", "vmdk", "src.raw", "stream.vmdk"],
                             capture_output=True, text=True, check=False)
        tap.check(got.returncode == 0, f"{tool[0]}: {got.stdout} {got.stderr}")


def an_image_of_several_files_is_refused_by_its_type():
    subprocess.run(["qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", "flat.vmdk", "1M"],
                   check=True)
    got = run(["info", "flat.vmdk"])
    tap.check(got.returncode == 1 and "is of type monolithicFlat" in got.stderr, got.stderr)


def main():
    if not shutil.which("qemu-img"):
        print("skipped: qemu-img (Debian: qemu-utils)")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        status = tap.run_cases((broken_images_of_other_programs_get_their_exact_errors,
                                images_of_other_programs_are_only_read,
                                streams_with_their_directory_at_the_end_are_read,
                                an_image_of_several_files_is_refused_by_its_type))
        os.chdir("/")
    sys.exit(status)


if __name__ == "__main__":
    main()
