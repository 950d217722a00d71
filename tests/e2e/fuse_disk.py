# SPDX-License-Identifier: Apache-2.0
"""A filesystem in user space with one file, for tests that stop or lose it.

    fuse_disk.py FOLDER SIZE [KEPT]     mounts itself on FOLDER with FOLDER/disk of SIZE zero bytes; prints "ready"

The file KEPT holds what a loss of power would leave at the least: what was written before the last fsync of the disk.
It speaks the kernel's protocol by /dev/fuse (Documentation/filesystems/fuse.rst, include/uapi/linux/fuse.h)
without a page cache in between, so that each read of the file comes here. Root mounts; the end of the
process, SIGKILL included, leaves the mount to be taken away by `umount -l`.
"""

import ctypes
import errno
import os
import stat
import struct
import sys

LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE = 1, 2, 3, 4, 14, 15, 16
STATFS, RELEASE, FSYNC, FLUSH, INIT, OPENDIR, READDIR = 17, 18, 20, 25, 26, 27, 28
RELEASEDIR, INTERRUPT, DESTROY, BATCH_FORGET = 29, 36, 38, 42
SILENT = (FORGET, INTERRUPT, BATCH_FORGET)
ROOT, FILE = 1, 2
DIRECT_IO = 1
HEADER = struct.Struct("=IIQQIIII")


class Disk:
    def __init__(self, fd, size, kept):
        self.fd = fd
        self.data = bytearray(size)
        self.kept = kept and open(kept, "r+b", buffering=0)
        self.unsafe = []  # (offset, length) since the last fsync

    def attr(self, node):
        mode = stat.S_IFDIR | 0o755 if node == ROOT else stat.S_IFREG | 0o666
        size = 0 if node == ROOT else len(self.data)
        return struct.pack("=6Q10I", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def answer(self, op, node, body):
        """The reply's bytes, or a negative errno."""
        if op == INIT:
            return struct.pack("=4I2HI2I32x", 7, 31, 65536, 0, 16, 12, 65536, 1, 0)[:64]
        if op == LOOKUP:
            if node != ROOT or body != b"disk\0":
                return -errno.ENOENT
            return struct.pack("=4Q2I", FILE, 0, 3600, 3600, 0, 0) + self.attr(FILE)
        if op in (GETATTR, SETATTR):
            return struct.pack("=Q2I", 3600, 0, 0) + self.attr(node)
        if op in (OPEN, OPENDIR):
            return struct.pack("=Q2I", 0, DIRECT_IO if op == OPEN else 0, 0)
        if op == READ:
            _, offset, size = struct.unpack_from("=QQI", body)
            return bytes(self.data[offset:offset + size])
        if op == WRITE:
            _, offset, size = struct.unpack_from("=QQI", body)
            self.data[offset:offset + size] = body[40:40 + size]
            if self.kept:
                self.unsafe.append((offset, size))
            return struct.pack("=2I", size, 0)
        if op == FSYNC:
            for offset, size in self.unsafe:
                self.kept.seek(offset)
                self.kept.write(self.data[offset:offset + size])
            self.unsafe.clear()
            return b""
        if op == STATFS:
            return struct.pack("=5Q3I28x", 1 << 20, 1 << 20, 1 << 20, 1, 1, 4096, 255, 4096)
        return b"" if op in (RELEASE, FLUSH, READDIR, RELEASEDIR, DESTROY) else -errno.ENOSYS

    def serve(self):
        while True:
            try:
                message = os.read(self.fd, 65536 + 4096 + 4096)
            except OSError as problem:
                if problem.errno in (errno.EINTR, errno.ENOENT):
                    continue
                return  # unmounted
            length, op, unique, node = HEADER.unpack_from(message)[:4]
            if op in SILENT:
                continue
            reply = self.answer(op, node, message[HEADER.size:length])
            code, reply = (reply, b"") if isinstance(reply, int) else (0, reply)
            try:
                os.write(self.fd, struct.pack("=IiQ", 16 + len(reply), code, unique) + reply)
            except OSError:
                pass  # its asker is gone


def main():
    folder, size = sys.argv[1], int(sys.argv[2])
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other"
    if libc.mount(b"vmd-test", folder.encode(), b"fuse", 0, options.encode()) != 0:
        print(f"mount: {os.strerror(ctypes.get_errno())}", flush=True)
        return 1
    print("ready", flush=True)
    Disk(fd, size, sys.argv[3] if sys.argv[3:] else None).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
