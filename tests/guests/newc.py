# SPDX-License-Identifier: Apache-2.0
"""Writes initramfs archives in cpio's newc format, with device nodes and without root.

A pure function of its input: times and inode numbers are fixed, so equal input gives equal bytes.
The format is the one that the kernel documents in Documentation/driver-api/early-userspace/
buffer-format.rst.
"""

import os
import stat

MAGIC = b"070701"
TRAILER = "TRAILER!!!"


class Newc:
    """Collects entries in order; bytes() closes the archive."""

    def __init__(self):
        self._out = bytearray()
        self._inode = 0

    def _entry(self, name, mode, data=b"", rdev=(0, 0)):
        self._inode += 1
        links = 2 if stat.S_ISDIR(mode) else 1
        raw = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, links, 0, len(data), 0, 0, rdev[0], rdev[1],
                  len(raw), 0)
        self._out += MAGIC + b"".join(b"%08X" % field for field in fields)
        self._out += raw
        self._pad()
        self._out += data
        self._pad()

    def _pad(self):
        self._out += b"\0" * (-len(self._out) % 4)

    def folder(self, name, perm=0o755):
        self._entry(name, stat.S_IFDIR | perm)

    def file(self, name, data, perm=0o644):
        self._entry(name, stat.S_IFREG | perm, data)

    def link(self, name, target):
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def char_device(self, name, major, minor, perm=0o600):
        self._entry(name, stat.S_IFCHR | perm, rdev=(major, minor))

    def tree(self, root):
        """All of root/usr, as it is there. Debian's /bin, /sbin and /lib are links into /usr."""
        made = ("usr", "usr/bin", "usr/sbin", "usr/lib")
        for name in made:
            self.folder(name)
        self.link("lib", "usr/lib")
        for folder, folders, files in os.walk(os.path.join(root, "usr")):
            folders.sort()
            inside = os.path.relpath(folder, root)
            if inside not in made:
                self.folder(inside)
            for name in sorted(files + [name for name in folders
                                        if os.path.islink(os.path.join(folder, name))]):
                path = os.path.join(folder, name)
                if os.path.islink(path):
                    self.link(os.path.join(inside, name), os.readlink(path))
                else:
                    with open(path, "rb") as file:
                        mode = 0o755 if os.access(path, os.X_OK) else 0o644
                        self.file(os.path.join(inside, name), file.read(), mode)

    def bytes(self):
        self._inode = -1
        self._entry(TRAILER, 0)
        return bytes(self._out + b"\0" * (-len(self._out) % 512))


def read(data):
    """Yields (name, mode, bytes) of every entry of a newc archive."""
    at = 0
    while data[at:at + 6] in (MAGIC, b"070702"):
        fields = [int(data[at + 6 + 8 * i:at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110:at + 110 + name_size - 1].decode(errors="replace")
        start = at + 110 + name_size
        start += -start % 4
        if name == TRAILER:
            return
        yield name, mode, data[start:start + size]
        at = start + size
        at += -at % 4
