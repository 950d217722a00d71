# SPDX-License-Identifier: Apache-2.0
"""vmd-share by itself: a client that lies, at its socket. What leads out of the folder, what is no 9P, and how much may be asked for."""

import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../lib"))
import tap  # noqa: E402

SHARE = os.path.join(os.environ["VMD_BUILDDIR"], "vmd-share")
ENOENT, EBADF, EINVAL, EROFS, EMFILE, EOPNOTSUPP, EMSGSIZE = 2, 9, 22, 30, 24, 95, 90


def text(s):
    data = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<H", len(data)) + data


class Server:
    def __init__(self, *flags, files=1024):
        self.dir = tempfile.mkdtemp(prefix="vmd-9p-")
        self.share = os.path.join(self.dir, "share")
        os.mkdir(self.share)
        with open(os.path.join(self.dir, "secret"), "w", encoding="utf-8") as file:
            file.write("secret\n")
        mine, theirs = socket.socketpair()
        root = os.open(self.share, os.O_PATH | os.O_DIRECTORY)
        # /proc/self/fd must be the server's own: the shell opens it, and becomes the server.
        self.process = subprocess.Popen(
            ["bash", "-c", f'ulimit -n {files}; exec 9</proc/self/fd; exec "$0" --socket-fd={theirs.fileno()} --root-fd={root} --proc-fd=9 "$@"',
             SHARE, *flags], pass_fds=(theirs.fileno(), root))
        theirs.close()
        os.close(root)
        self.sock = mine
        self.sock.settimeout(200)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()
        self.process.wait(200)
        shutil.rmtree(self.dir, ignore_errors=True)

    def send(self, kind, body=b"", tag=1, size=None):
        self.sock.sendall(struct.pack("<IBH", 7 + len(body) if size is None else size, kind, tag) + body)

    def answer(self):
        head = self.sock.recv(7, socket.MSG_WAITALL)
        if len(head) < 7:
            return None, b""
        size, kind, _ = struct.unpack("<IBH", head)
        return kind, self.sock.recv(size - 7, socket.MSG_WAITALL) if size > 7 else b""

    def ask(self, kind, body=b""):
        self.send(kind, body)
        return self.answer()

    def ok(self, kind, body=b""):
        got, data = self.ask(kind, body)
        tap.check(got == kind + 1, f"{kind}: {got} {data.hex()}")
        return data

    def fails(self, error, kind, body=b""):
        got, data = self.ask(kind, body)
        tap.check(got == 7 and struct.unpack("<I", data)[0] == error, f"{kind}: {got} {data.hex()}, not {error}")

    def begin(self, msize=65536):
        self.ok(100, struct.pack("<I", msize) + text("9P2000.L"))
        self.ok(104, struct.pack("<II", 0, 0xffffffff) + text("root") + text("") + struct.pack("<I", 0))

    def walk(self, fid, new, *names):
        return struct.pack("<IIH", fid, new, len(names)) + b"".join(map(text, names))


def nothing_leads_out():
    with Server() as s:
        s.begin()
        os.symlink("../secret", os.path.join(s.share, "link"))
        os.symlink("..", os.path.join(s.share, "up"))
        os.mkdir(os.path.join(s.share, "d"))
        for names in ([".."], ["../secret"], ["d/../../secret"], ["."], ["/etc/passwd"], ["d", ".."], ["up", "secret"], ["a\0b"]):
            kind, data = s.ask(110, s.walk(0, 1, *names))
            if kind == 111:  # part of the way: no fid has come of it
                tap.check(struct.unpack_from("<H", data)[0] < len(names), str(names))
                s.fails(EBADF, 24, struct.pack("<IQ", 1, 0x7ff))
            else:
                tap.check(kind == 7, f"{names}: {kind}")
        s.ok(110, s.walk(0, 2, "link"))  # the link itself
        s.fails(EOPNOTSUPP, 12, struct.pack("<II", 2, 0))
        for name in ("..", ".", "", "../x", "d/x", "/tmp/x"):
            s.fails(EINVAL, 72, struct.pack("<I", 0) + text(name) + struct.pack("<II", 0o755, 0))
            s.fails(EINVAL, 76, struct.pack("<I", 0) + text(name) + struct.pack("<I", 0x200))
            s.fails(EINVAL, 74, struct.pack("<I", 0) + text("d") + struct.pack("<I", 0) + text(name))
        s.ok(110, s.walk(0, 3))
        s.fails(EINVAL, 14, struct.pack("<I", 3) + text("../new") + struct.pack("<III", 0o102, 0o644, 0))
        # A folder that is moved out of the share while the client is in it: what is above stays out of reach.
        s.ok(110, s.walk(0, 4, "d"))
        os.rename(os.path.join(s.share, "d"), os.path.join(s.dir, "d"))
        s.fails(EOPNOTSUPP, 110, s.walk(4, 5, ".."))
        tap.check(sorted(os.listdir(s.dir)) == ["d", "secret", "share"] and sorted(os.listdir(s.share)) == ["link", "up"], "nothing was made")


def what_is_only_read_stays():
    with Server("--readonly") as s:
        with open(os.path.join(s.share, "f"), "w", encoding="utf-8") as file:
            file.write("old")
        s.begin()
        s.ok(110, s.walk(0, 1, "f"))
        for flags in (1, 2, 0o1000):
            s.fails(EROFS, 12, struct.pack("<II", 1, flags))
        s.ok(12, struct.pack("<II", 1, 0))
        tap.check(s.ok(116, struct.pack("<IQI", 1, 0, 100))[4:] == b"old", "read")
        s.fails(EROFS, 118, struct.pack("<IQI", 1, 0, 3) + b"new")
        s.fails(EROFS, 72, struct.pack("<I", 0) + text("d") + struct.pack("<II", 0o755, 0))
        s.fails(EROFS, 76, struct.pack("<I", 0) + text("f") + struct.pack("<I", 0))
        s.fails(EROFS, 26, struct.pack("<IIIII", 1, 8, 0, 0, 0) + bytes(40))


def requests_have_bounds():
    with Server("--mapped", files=96) as s:
        s.begin()
        fid = 1
        while True:
            kind, data = s.ask(110, s.walk(0, fid))
            if kind == 7:
                tap.check(struct.unpack("<I", data)[0] == EMFILE, data.hex())
                break
            fid += 1
            tap.check(fid < 200, "there is a bound")
        for one in range(1, fid):
            s.ok(120, struct.pack("<I", one))
        s.fails(EBADF, 120, struct.pack("<I", 1))
        s.ok(110, s.walk(0, 1))
        s.fails(7, 32, struct.pack("<I", 1) + text("user.big") + struct.pack("<QI", 1 << 40, 0))
        s.fails(EOPNOTSUPP, 32, struct.pack("<I", 1) + text("user.virtfs.uid") + struct.pack("<QI", 4, 0))
        s.fails(EOPNOTSUPP, 32, struct.pack("<I", 1) + text("security.selinux") + struct.pack("<QI", 4, 0))
        s.ok(14, struct.pack("<I", 1) + text("f") + struct.pack("<III", 0o102, 0o644, 0))
        s.fails(EINVAL, 118, struct.pack("<IQI", 1, 0, 1 << 31) + b"x")
        s.fails(EINVAL, 118, struct.pack("<IQI", 1, 1 << 63, 1) + b"x")
        tap.check(len(s.ok(116, struct.pack("<IQI", 1, 0, 0xffffffff))) == 4, "nothing to read, however much is asked for")
        s.fails(EOPNOTSUPP, 99)
        s.fails(EINVAL, 110, struct.pack("<IIH", 0, 9, 17))
        s.fails(EINVAL, 110, struct.pack("<IIH", 0, 9, 16))  # names that are not there
        s.fails(EINVAL, 100, struct.pack("<I", 100) + text("9P2000.L"))
        tap.check(s.ok(100, struct.pack("<I", 8192) + text("9P2000"))[4:] == text("unknown"), "another protocol")
    for size in (0, 6, (1 << 20) + 1, 0xffffffff):
        with Server() as s:
            s.send(100, b"", size=size)
            tap.check(s.answer() == (None, b""), f"a message of {size} bytes ends it")


def anything_is_answered():
    seed = int(os.environ.get("VMD_TEST_SEED", "1"))
    print(f"# seed {seed}")
    chance = random.Random(seed)
    kinds = [8, 12, 14, 16, 18, 22, 24, 26, 30, 32, 40, 50, 52, 54, 70, 72, 74, 76, 104, 108, 110, 116, 118, 120, 122]
    names = [b"a", b"b", b"c", b"..", b"a/b", b"", b"user.x", b"\xff\xfe", b"x" * 255, b"x" * 256]
    with Server("--mapped") as s:
        s.begin()
        for _ in range(20000):
            body = b"".join(chance.choice([
                lambda: struct.pack("<I", chance.randrange(6)), lambda: text(chance.choice(names)),
                lambda: struct.pack("<Q", chance.choice([0, 1, 4096, 1 << 20])), lambda: chance.randbytes(chance.randrange(9))])()
                            for _ in range(chance.randrange(1, 8)))
            kind = chance.choice(kinds)
            if kind in (12, 120, 122, 110, 76) or chance.random() < 0.5:
                body = struct.pack("<I", chance.randrange(6)) + body
            got, _ = s.ask(kind, body)
            tap.check(got in (7, kind + 1), f"{kind} {body.hex()}: {got}")
        tap.check(s.process.poll() is None, "it lives")
        tap.check(sorted(os.listdir(s.dir)) == ["secret", "share"], "and nothing is outside")


if __name__ == "__main__":
    sys.exit(tap.run_cases([nothing_leads_out, what_is_only_read_stays, requests_have_bounds, anything_is_answered]))
