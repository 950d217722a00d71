# SPDX-License-Identifier: Apache-2.0
"""Disk images that firmware boots from: a GPT with one EFI system partition, FAT16, made from files.

    esp.write("disk.img", {"EFI/BOOT/BOOTRISCV64.EFI": data, "kernel": data}, size=128 << 20)

Written after the UEFI specification 2.10 §5 (GPT) and Microsoft's FAT specification of 2000.
"""

import struct
import uuid
import zlib

SECTOR = 512
FIRST = 2048  # sector of the partition
CLUSTER = 4096
ESP_TYPE = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")


def short_name(name, taken):
    """The 11 bytes of a directory entry that stand for a name, unlike all in `taken`."""
    base, _, suffix = name.upper().rpartition(".") if "." in name else (name.upper(), "", "")
    if len(base) <= 8 and len(suffix) <= 3 and base.isalnum() and (not suffix or suffix.isalnum()):
        short = (base.ljust(8) + suffix.ljust(3)).encode()
        return short, name != name.upper()
    clean = "".join(c for c in base if c.isalnum())
    for n in range(1, 10):
        short = (f"{clean[:6]}~{n}".ljust(8) + suffix[:3].ljust(3)).encode()
        if short not in taken:
            return short, True
    raise ValueError(f"too many names like {name}")


def entries(name, short, is_long, attributes, cluster, size):
    """The directory entries of a file: its long name, last part first, then the short one."""
    out = b""
    if is_long:
        total = 0
        for byte in short:
            total = ((total & 1) << 7) + (total >> 1) + byte & 0xff
        text = name.encode("utf-16-le")
        if len(text) % 26:
            text += b"\0\0"
        text += b"\xff" * (-len(text) % 26)
        parts = [text[i:i + 26] for i in range(0, len(text), 26)]
        for i in range(len(parts), 0, -1):
            part = parts[i - 1]
            out += struct.pack("<B10sBBB12sH4s", i | (0x40 if i == len(parts) else 0), part[:10], 15, 0,
                               total, part[10:22], 0, part[22:])
    return out + struct.pack("<11sBBBHHHHHHHI", short, attributes, 0, 0, 0, 0, 0, 0, 0, 0x21, cluster, size)


class Fat:
    def __init__(self, sectors):
        self.sectors = sectors
        clusters = sectors * SECTOR // CLUSTER
        self.fat_sectors = (clusters + 2) * 2 // SECTOR + 1
        self.root_sectors = 32
        self.data = 1 + 2 * self.fat_sectors + self.root_sectors
        self.count = (sectors - self.data) * SECTOR // CLUSTER
        if not 4085 <= self.count < 65525:
            raise ValueError("no size for FAT16")
        self.fat = [0xfff8, 0xffff]
        self.blocks = []

    def store(self, data):
        """Puts bytes into clusters; the first of them, 0 for none."""
        n = (len(data) + CLUSTER - 1) // CLUSTER
        if n == 0:
            return 0
        if len(self.fat) + n > self.count + 2:
            raise ValueError("the files do not fit")
        first = len(self.fat)
        self.fat += list(range(first + 1, first + n)) + [0xffff]
        self.blocks.append(data.ljust(n * CLUSTER, b"\0"))
        return first

    def folder(self, tree, parent):
        """The entries of a folder whose members are stored here. parent None: the root."""
        out, taken = b"", set()
        for name, what in sorted(tree.items()):
            short, is_long = short_name(name, taken)
            taken.add(short)
            if isinstance(what, dict):
                first = len(self.fat)
                self.fat.append(0xffff)
                self.blocks.append(None)
                place = len(self.blocks) - 1
                inside = entries("", b".          ", False, 0x10, first, 0)
                inside += entries("", b"..         ", False, 0x10, parent or 0, 0)
                inside += self.folder(what, first)
                if len(inside) > CLUSTER:
                    raise ValueError("a folder with too many files")
                self.blocks[place] = inside.ljust(CLUSTER, b"\0")
                out += entries(name, short, is_long, 0x10, first, 0)
            else:
                out += entries(name, short, is_long, 0x20, self.store(what), len(what))
        return out

    def bytes(self, tree):
        root = self.folder(tree, None)
        boot = struct.pack("<3s8sHBHBHHBHHHIIBBBI11s8s", b"\xeb\x3c\x90", b"VMD     ", SECTOR,
                           CLUSTER // SECTOR, 1, 2, self.root_sectors * SECTOR // 32, 0, 0xf8,
                           self.fat_sectors, 63, 16, FIRST, self.sectors, 0x80, 0, 0x29, 0x564d4421,
                           b"VMD ESP    ", b"FAT16   ")
        boot = boot.ljust(510, b"\0") + b"\x55\xaa"
        fat = struct.pack(f"<{len(self.fat)}H", *self.fat).ljust(self.fat_sectors * SECTOR, b"\0")
        return boot + fat + fat + root.ljust(self.root_sectors * SECTOR, b"\0") + b"".join(self.blocks)


def gpt(sectors, first, last):
    """Protective MBR with the primary header and table; the backup table and header."""
    table = struct.pack("<16s16sQQQ72s", ESP_TYPE.bytes_le, uuid.uuid4().bytes_le, first, last, 0,
                        "EFI".encode("utf-16-le")).ljust(128 * 128, b"\0")
    disk = uuid.uuid4().bytes_le

    def header(at, other, entries_at):
        raw = struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, at, other, 34,
                          sectors - 34, disk, entries_at, 128, 128, zlib.crc32(table))
        raw = raw[:16] + struct.pack("<I", zlib.crc32(raw)) + raw[20:]
        return raw.ljust(SECTOR, b"\0")

    mbr = bytes(446) + struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xee, b"\xff\xff\xff", 1,
                                   min(sectors - 1, 0xffffffff))
    mbr = mbr.ljust(510, b"\0") + b"\x55\xaa"
    return mbr + header(1, sectors - 1, 2) + table, table + header(sectors - 1, 1, sectors - 33)


def write(path, files, size=128 << 20):
    tree = {}
    for name, data in files.items():
        *folders, last = name.split("/")
        at = tree
        for folder in folders:
            at = at.setdefault(folder, {})
        at[last] = data
    sectors = size // SECTOR
    last = sectors - FIRST - 1
    head, tail = gpt(sectors, FIRST, last)
    with open(path, "wb") as file:
        file.truncate(size)
        file.write(head)
        file.seek(FIRST * SECTOR)
        file.write(Fat(last - FIRST + 1).bytes(tree))
        file.seek((sectors - 33) * SECTOR)
        file.write(tail)
    return path
