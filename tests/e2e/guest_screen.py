# SPDX-License-Identifier: Apache-2.0
"""Screen and keyboard of a Linux guest: typed at its text console, looked at in pictures, by the API and by VNC."""

import base64
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import zlib

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import guest  # noqa: E402
import tap  # noqa: E402

VMCTL = os.path.join(lib.BUILD, "vmctl")
TIMEOUT = 300.0  # of patience with a machine that has much to do
WIDTH, HEIGHT = 640, 400
RED, GREEN, BLUE = 0xaa0000, 0x00aa00, 0x0000aa  # of the text console


def linux(daemon, name, device):
    files = guest.fetched("riscv64-screen")
    return daemon.config(name, memory=256 * lib.MIB, firmware="default", kernel=files["kernel"],
                         initrd=files["initrd"], append="console=ttyS0 vmd.virtio vmd.run=screen",
                         display={"device": device, "width": WIDTH, "height": HEIGHT},
                         tcg={"cache_size": 64 * lib.MIB})


def console_has(log, text):
    def there():
        try:
            with open(log, "rb") as file:
                return text in file.read()
        except OSError:
            return False
    lib.wait_for(there, TIMEOUT, f"{text} on the console")


def picture(client, vm, **more):
    """A picture's whole file."""
    data, answer = b"", {"picture": 0, "next": 0}
    while "next" in answer:
        answer = client.call("vm.screenshot", vm=vm, picture=answer["picture"], after=answer["next"], **more)
        data += base64.b64decode(answer["data"])
    tap.check(len(data) == answer["size"], f"{len(data)} bytes of {answer['size']}")
    return data


def png_rows(data):
    """Pixels of a PNG of 8 bits a channel without alpha, as rows of numbers."""
    tap.check(data[:8] == b"\x89PNG\r\n\x1a\n", "no PNG")
    at, packed = 8, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        tap.check(zlib.crc32(kind + body) == struct.unpack(">I", data[at + 8 + size:at + 12 + size])[0], f"{kind}")
        if kind == b"IHDR":
            width, height = struct.unpack(">II", body[:8])
        elif kind == b"IDAT":
            packed += body
        at += size + 12
    raw = zlib.decompress(packed)
    stride, above, rows = width * 3, bytes(width * 3), []
    for y in range(height):
        line = raw[y * (stride + 1):(y + 1) * (stride + 1)]
        tap.check(line[0] == 2, f"filter {line[0]}")
        above = bytes((a + b) & 255 for a, b in zip(line[1:], above))
        rows.append([above[i] << 16 | above[i + 1] << 8 | above[i + 2] for i in range(0, stride, 3)])
    return rows


def ppm_rows(data):
    head, size, top, body = data.split(b"\n", 3)
    tap.check((head, top) == (b"P6", b"255"), f"{data[:20]}")
    width, height = map(int, size.split())
    return [[int.from_bytes(body[(y * width + x) * 3:(y * width + x) * 3 + 3], "big") for x in range(width)]
            for y in range(height)]


def all_is(rows, colour):
    return (len(rows), len(rows[0])) == (HEIGHT, WIDTH) and all(set(row) == {colour} for row in rows)


def colour_screen(number):
    """What makes the whole text console one colour, without a cursor."""
    return f"printf '\\033[?25l\\033[4{number}m\\033[2J'; read x\n"


def guest_paints_what_is_typed(device):
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        client.call("vm.define", config=linux(daemon, "a", device))
        client.call("vm.start", vm="a")
        log = client.call("vm.console", vm="a")["log"]
        console_has(log, b"SCREEN %d,%d" % (WIDTH, HEIGHT))
        client.call("vm.type_text", vm="a", text="echo TYPED-$((6*7)) 'AbC~|' >/dev/ttyS0\n")
        console_has(log, b"TYPED-42 AbC~|")
        client.call("vm.type_text", vm="a", text=colour_screen(1))
        lib.wait_for(lambda: all_is(png_rows(picture(client, "a")), RED), TIMEOUT, "a red screen")
        tap.check(all_is(ppm_rows(picture(client, "a", format="ppm")), RED), "the same as a PPM")
        client.call("vm.send_key", vm="a", keys=["ret"])
        client.call("vm.input", vm="a", events=[{"key": key} for key in ("l", "s", "ret")])
        client.call("vm.type_text", vm="a", text=colour_screen(2))
        lib.wait_for(lambda: all_is(png_rows(picture(client, "a")), GREEN), TIMEOUT, "a green screen")
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "a.png")
            subprocess.run([VMCTL, "--dir", daemon.dir, "screenshot", "a", path], check=True)
            with open(path, "rb") as file:
                tap.check(all_is(png_rows(file.read()), GREEN), "vmctl screenshot")
        client.call("vm.send_key", vm="a", keys=["ret"])
        viewer_that_nobody_here_wrote_sees_it(daemon, vnc_types_and_looks(client, log))
        bad_clients_disturb_nobody(client)
        client.fails("invalid-params", "vm.send_key", vm="a", keys=["no-such-key"])
        client.fails("invalid-params", "vm.type_text", vm="a", text="\u20ac")
        client.fails("invalid-params", "vm.input", vm="a", events=[{"axis": "z", "value": 1}])
        client.fails("not-found", "vm.screenshot", vm="a", picture=12345)


def guest_paints_on_virtio_gpu():
    guest_paints_what_is_typed("virtio")


def guest_paints_on_bochs_display():
    guest_paints_what_is_typed("bochs")


class Vnc:
    """As little of RFB 3.8 as the test needs: keys by their symbols, pictures in one encoding."""

    def __init__(self, path, encoding=0):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(TIMEOUT)
        self.s.connect(path)
        self.encoding = encoding
        self.zlib = zlib.decompressobj()
        tap.check(self.read(12) == b"RFB 003.008\n", "version")
        self.s.sendall(b"RFB 003.008\n")
        tap.check(self.read(2) == b"\1\1", "no security, on a socket with permissions")
        self.s.sendall(b"\1")
        tap.check(self.read(4) == bytes(4), "let in")
        self.s.sendall(b"\1")
        self.width, self.height = struct.unpack(">HH", self.read(4))
        self.read(16)
        self.name = self.read(struct.unpack(">I", self.read(4))[0])
        self.s.sendall(struct.pack(">BxHi", 2, 1, encoding))

    def read(self, n):
        data = b""
        while len(data) < n:
            some = self.s.recv(n - len(data))
            tap.check(some, "the server hung up")
            data += some
        return data

    def type(self, text):
        for c in text:
            sym = 0xff0d if c == "\n" else ord(c)
            for down in (1, 0):
                self.s.sendall(struct.pack(">BBxxI", 4, down, sym))

    def rows(self):
        self.s.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, self.width, self.height))
        screen = [[None] * self.width for _ in range(self.height)]
        kind, count = struct.unpack(">BxH", self.read(4))
        tap.check(kind == 0, f"message {kind}")
        for _ in range(count):
            x, y, w, h, encoding = struct.unpack(">HHHHi", self.read(12))
            tap.check(encoding == self.encoding, f"encoding {encoding}")
            if encoding == 0:
                data = self.read(w * h * 4)
            else:
                data = self.zlib.decompress(self.read(struct.unpack(">I", self.read(4))[0]))
            if encoding == 16:
                self.tiles(screen, x, y, w, h, data)
                continue
            for row in range(h):
                line = struct.unpack_from(f"<{w}I", data, row * w * 4)
                screen[y + row][x:x + w] = line
        return screen

    @staticmethod
    def tiles(screen, x0, y0, w, h, data):
        """ZRLE; of its tiles those of one colour, with a palette, and raw."""
        at = 0

        def colour():
            nonlocal at
            at += 3
            return int.from_bytes(data[at - 3:at], "little")
        for ty in range(0, h, 64):
            for tx in range(0, w, 64):
                tw, th = min(64, w - tx), min(64, h - ty)
                kind = data[at]
                at += 1
                palette = [colour() for _ in range(kind)]
                bits = 1 if kind <= 2 else 2 if kind <= 4 else 4
                for row in range(th):
                    if kind == 0:
                        line = [colour() for _ in range(tw)]
                    elif kind == 1:
                        line = palette * tw
                    else:
                        n = (tw * bits + 7) // 8
                        number = int.from_bytes(data[at:at + n], "big")
                        line = [palette[number >> (n * 8 - bits * (i + 1)) & (1 << bits) - 1] for i in range(tw)]
                        at += n
                    screen[y0 + ty + row][x0 + tx:x0 + tx + tw] = line
        tap.check(at == len(data), f"{at} of {len(data)} bytes")


def vnc_types_and_looks(client, log):
    path = client.call("vm.vnc", vm="a")["path"]
    viewer = Vnc(path)
    tap.check((viewer.width, viewer.height, viewer.name) == (WIDTH, HEIGHT, b"a"), "greeting")
    viewer.type("echo VNC-$((6*7)) 'xYz' >/dev/ttyS0\n")
    console_has(log, b"VNC-42 xYz")
    want = png_rows(picture(client, "a"))
    for encoding in (0, 6, 16):
        tap.check(len({tuple(row) for row in want}) > 4, "a text on the screen")
        other = Vnc(path, encoding)
        lib.wait_for(lambda: other.rows() == png_rows(picture(client, "a")), TIMEOUT,
                     f"the same picture by encoding {encoding}")
        other.s.close()
    viewer.type(colour_screen(4))
    lib.wait_for(lambda: all_is(viewer.rows(), BLUE), TIMEOUT, "a blue screen")
    return viewer


def viewer_that_nobody_here_wrote_sees_it(daemon, viewer):
    """vncsnapshot, through the port that vmctl listens on; a JPEG, so nearly the colour."""
    if not all(shutil.which(name) for name in ("vncsnapshot", "djpeg")):
        print("# no vncsnapshot or djpeg (packages vncsnapshot, libjpeg-turbo-progs)")
        return
    relay = subprocess.Popen([VMCTL, "--dir", daemon.dir, "vnc", "a"], stdout=subprocess.PIPE, text=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            where = relay.stdout.readline().strip()
            tap.check(where.startswith("127.0.0.1::"), where)
            path = os.path.join(folder, "a.jpg")
            for encodings in ("raw", "zlib", "tight"):
                subprocess.run(["vncsnapshot", "-quiet", "-quality", "100", "-encodings", encodings, where, path],
                               check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=TIMEOUT)
                rows = ppm_rows(subprocess.run(["djpeg", path], check=True, stdout=subprocess.PIPE).stdout)
                tap.check((len(rows), len(rows[0])) == (HEIGHT, WIDTH), f"{len(rows)} rows")
                far = {p for row in rows for p in row
                       if max(abs((p >> s & 255) - (BLUE >> s & 255)) for s in (0, 8, 16)) > 8}
                tap.check(not far, f"{encodings}: colours {[hex(p) for p in sorted(far)[:5]]}")
        finally:
            relay.kill()
            relay.wait()
            relay.stdout.close()
    viewer.type("\n")
    viewer.s.close()


def bad_clients_disturb_nobody(client):
    path = client.call("vm.vnc", vm="a")["path"]
    for bad in (b"GET / HTTP/1.0\r\n\r\n", b"RFB 003.008\n\2", b"RFB 003.008\n\1\1\x77",
                b"RFB 003.008\n\1\1" + struct.pack(">BxxxI", 6, 0xffffffff),
                b"RFB 003.008\n\1\1" + struct.pack(">BxH", 2, 0xffff),
                b"RFB 003.008\n\1\1" + b"\0\0\0\0" + bytes(16)):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(TIMEOUT)
        s.connect(path)
        s.sendall(bad)
        try:
            while s.recv(4096):
                pass
        except ConnectionResetError:
            pass
        s.close()
    Vnc(path).s.close()


def vm_without_a_screen_says_so():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        config = linux(daemon, "a", "virtio")
        del config["display"]
        client.call("vm.define", config=config)
        client.fails("bad-state", "vm.vnc", vm="a")
        client.call("vm.start", vm="a")
        for method, params in (("vm.screenshot", {}), ("vm.type_text", {"text": "x"}),
                               ("vm.send_key", {"keys": ["a"]}), ("vm.input", {"events": [{"key": "a"}]}),
                               ("vm.vnc", {})):
            error = client.fails("unsupported", method, vm="a", **params)
            tap.check("no screen" in error.message and "--display" in error.remedy, f"{error}")


if __name__ == "__main__":
    guest.need("riscv64-screen")
    sys.exit(tap.run_cases([
        vm_without_a_screen_says_so,
        guest_paints_on_virtio_gpu,
        guest_paints_on_bochs_display,
    ]))
