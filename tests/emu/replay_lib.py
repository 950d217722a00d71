# SPDX-License-Identifier: Apache-2.0
"""Recordings for the tests: made and played by vmd-emu, read and written anew with mistakes in them."""

import ctypes
import ctypes.util
import json
import os
import random
import re
import struct
import subprocess
import sys
import zlib

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import emu_lib  # noqa: E402
import guest  # noqa: E402
from emu_lib import tap  # noqa: E402

EMU = emu_lib.emu_control.EMU
LIMIT = 300  # seconds, against hangs only
HEAD, CHUNK, RECORD = struct.Struct("<8sIII"), struct.Struct("<IIII"), struct.Struct("<BBHIHHIQQQ")
INPUT, DATA, OUTPUT, MARK, SAVED, END = range(1, 7)
MAGIC = 0x4B484356


class Run:
    """What a run of the emulator gave."""

    def __init__(self, done):
        self.status, self.out = done.returncode, done.stdout
        self.errors = done.stderr.decode(errors="replace")
        found = re.findall(r"(?:recorded|replayed to instruction) (\d+).* state ([0-9a-f]{64})", self.errors)
        self.count, self.state = (int(found[-1][0]), found[-1][1]) if found else (None, None)

    def __str__(self):
        return f"status {self.status}, {self.errors[-800:]}"


def emulate(config, *args, stdin=subprocess.DEVNULL, **more):
    """Runs the machine to its end."""
    return Run(subprocess.run([EMU, "--config", config, "--sandbox", "off", *args], stdin=stdin, capture_output=True,
                              timeout=LIMIT, check=False, **more))


def replay(config, log, *args):
    return emulate(config, "--replay", log, *args)


def write_config(folder, name="config.json", **config):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"name": "t", "rng": False, **config}, f)
    return path


def bare(folder, name="config.json", **config):
    """The machine with the small guest of the emulator's tests."""
    program = os.path.join(folder, "guest.bin")
    with open(program, "wb") as f:
        f.write(emu_lib.emu_control.GUEST)
    return write_config(folder, name, memory=64 << 20, firmware=program, **config)


def linux(folder, image, name="config.json", run="rng,disk,diskwrite:told,net,poweroff", **config):
    """Debian's kernel with a disk, a network card in user mode and an entropy device."""
    disk, net = guest.fetched("riscv64-disk"), guest.fetched("riscv64-net")
    both = os.path.join(folder, "initrd.gz")
    with open(both, "wb") as out: # the kernel takes one archive behind the other
        for path in (disk["initrd"], net["initrd"]):
            with open(path, "rb") as f:
                out.write(f.read())
    return write_config(folder, name, memory=256 << 20, kernel=disk["kernel"], initrd=both, **{
        "rng": True, "append": f"console=ttyS0 vmd.virtio vmd.run={run}",
        "disks": [{"name": "root", "file": image, "format": "raw"}],
        "nics": [{"name": "net0", "type": "user"}], **config})


def new_image(path, seed=1, size=8 << 20):
    with open(path, "wb") as f:
        first = b"first line\n"
        f.write(first + random.Random(seed).randbytes(size - len(first)))


# ---- the file ----

def zstd():
    name = ctypes.util.find_library("zstd")
    if not name:
        raise tap.Skip("libzstd for ctypes")
    lib = ctypes.CDLL(name)
    lib.ZSTD_compressBound.restype = lib.ZSTD_compress.restype = lib.ZSTD_decompress.restype = ctypes.c_size_t
    lib.ZSTD_compressBound.argtypes = [ctypes.c_size_t]
    lib.ZSTD_compress.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]
    lib.ZSTD_decompress.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
    return lib


class Log:
    """A recording: its text and records [kind, source, (turn, traps), count, now, check, bytes]."""

    def __init__(self, path):
        with open(path, "rb") as f:
            data = f.read()
        magic, self.version, n, _ = HEAD.unpack_from(data)
        tap.check(magic == b"VMD-REC\n", "no recording")
        self.text, at, raw, lib = data[HEAD.size:HEAD.size + n], HEAD.size + n, b"", zstd()
        while at < len(data):
            _, packed, size, _ = CHUNK.unpack_from(data, at)
            room = ctypes.create_string_buffer(size)
            at += CHUNK.size
            tap.check(lib.ZSTD_decompress(room, size, data[at:at + packed], packed) == size, "it does not decompress")
            raw += room.raw
            at += packed
        self.records, at = [], 0
        while at < len(raw):
            kind, _, source, n, turn, _, traps, count, now, check = RECORD.unpack_from(raw, at)
            at += RECORD.size
            self.records.append([kind, source, (turn, traps), count, now, check, raw[at:at + n]])
            at += n

    def write(self, path, records=None):
        lib, raw = zstd(), b""
        for kind, source, (turn, traps), count, now, check, payload in self.records if records is None else records:
            raw += RECORD.pack(kind, 0, source, len(payload), turn, 0, traps, count, now, check) + payload
        with open(path, "wb") as f:
            f.write(header(self.text, self.version))
            room = ctypes.create_string_buffer(lib.ZSTD_compressBound(len(raw)))
            n = lib.ZSTD_compress(room, len(room), raw, len(raw), 1)
            sizes = struct.pack("<II", n, len(raw))
            f.write(struct.pack("<I", MAGIC) + sizes + struct.pack("<I", zlib.crc32(sizes + room.raw[:n])) + room.raw[:n])


def header(text, version=1):
    sizes = struct.pack("<II", version, len(text))
    return b"VMD-REC\n" + sizes + struct.pack("<I", zlib.crc32(sizes + text)) + text
