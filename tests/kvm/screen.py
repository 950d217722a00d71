#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The VGA of machine q35: SeaBIOS with Debian's VGA ROM writes on it what it writes under QEMU, and it is in saved states."""

import base64
import os
import socket
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import kvm_lib as lib  # noqa: E402
import emu_control as ec  # noqa: E402
import microvm  # noqa: E402
import q35  # noqa: E402
import tap  # noqa: E402

VGA_ROM = "/usr/share/seabios/vgabios-stdvga.bin"
UUID = ec.UUID
CELL = (9, 16)
WIDTH, HEIGHT = 720, 400
PATIENCE = 300


def needs_vga():
    q35.needs_seabios()
    if not os.path.exists(VGA_ROM):
        raise tap.Skip(f"{VGA_ROM} (seabios)")


def read_ppm(data):
    """Size and pixels of a PPM of three bytes a pixel."""
    head, at = [], 0
    while len(head) < 4:
        end = at
        while data[end:end + 1].strip():
            end += 1
        head.append(data[at:end])
        at = end + 1
    tap.check(head[0] == b"P6" and head[3] == b"255", f"{head}")
    return int(head[1]), int(head[2]), data[at:]


def cells(pixels):
    """Each place of a text screen as its ink, a bit a pixel: two makers of pictures give colours that differ a little."""
    width, height = CELL
    out = []
    for row in range(HEIGHT // height):
        for column in range(WIDTH // width):
            bits = 0
            for y in range(height):
                at = ((row * height + y) * WIDTH + column * width) * 3
                line = pixels[at:at + width * 3:3]
                for value in line:
                    bits = bits << 1 | (value > 64)
            out.append(bits)
    return out


def same_text(ours, theirs):
    """All but at most two places: each may show its cursor."""
    return sum(a != b for a, b in zip(ours, theirs)) <= 2


def lines(screen):
    """Rows with text on them, without the cursor's; which disk is tried first is not the screen's affair."""
    rows = [tuple(screen[at:at + 80]) for at in range(0, len(screen), 80)]
    return sorted(row for row in rows if sum(bool(c) for c in row) > 1)


def still(picture):
    """The text screen when it says nothing new for a while."""
    end, last, calm = time.monotonic() + PATIENCE, None, 0
    while calm < 4:
        tap.check(time.monotonic() < end, "the firmware does not come to rest")
        time.sleep(1.5)
        width, height, pixels = picture()
        now = cells(pixels) if (width, height) == (WIDTH, HEIGHT) else None
        written = now is not None and sum(bool(c) for c in now) > 150
        calm = calm + 1 if written and last is not None and same_text(now, last) else 0
        last = now
    return last


def under_qemu(folder):
    """What QEMU's screendump shows of the same firmware, with its translator."""
    if not any(os.access(os.path.join(p, "qemu-system-x86_64"), os.X_OK) for p in os.environ["PATH"].split(":")):
        raise tap.Skip("qemu-system-x86_64")
    door, path = os.path.join(folder, "hmp"), os.path.join(folder, "dump.ppm")
    argv = ["qemu-system-x86_64", "-M", "q35", "-m", "128", "-nodefaults", "-vga", "std", "-display", "none", "-uuid", UUID, "-boot", "order=ca,menu=on,reboot-timeout=60000",
            "-monitor", f"unix:{door},server=on,wait=off"]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + PATIENCE
        while not os.path.exists(door):
            tap.check(process.poll() is None and time.monotonic() < end, "QEMU's monitor")
            time.sleep(0.2)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(door)
            sock.settimeout(PATIENCE)

            def prompt():
                text = b""
                while not text.endswith(b"(qemu) "):
                    text += sock.recv(4096)

            def picture():
                sock.sendall(f"screendump {path}\n".encode())
                prompt()
                with open(path, "rb") as file:
                    return read_ppm(file.read())

            prompt()
            return still(picture)
    finally:
        process.kill()
        process.wait()


def start(config=None, extra=()):
    kvm = os.open("/dev/kvm", os.O_RDWR)
    try:
        return ec.Emu(config={**q35.config(), "firmware": "default", "display": {"device": "vga", "input": False}, **(config or {})},
                      files={q35.SEABIOS: os.O_RDONLY, VGA_ROM: os.O_RDONLY}, extra=("--kvm-fd", str(kvm), *extra), descriptors=(kvm,))
    finally:
        os.close(kvm)


def shot(client):
    answer = client.ok("emu.screenshot", format="ppm")
    data = base64.b64decode(answer["data"])
    while "next" in answer:
        answer = client.ok("emu.screenshot", picture=answer["picture"], after=answer["next"], format="ppm")
        data += base64.b64decode(answer["data"])
    return read_ppm(data)


def firmware_writes_what_it_writes_under_qemu():
    needs_vga()
    with start() as emu:
        client = ec.Client(emu)
        ours = still(lambda: shot(client))
        client.ok("emu.quit")
        ec.check_end(emu)
    theirs = under_qemu(microvm.FOLDER.name)
    tap.check(lines(ours) == lines(theirs), f"{len(lines(ours))} lines of text, QEMU shows {len(lines(theirs))} or others")


if __name__ == "__main__":
    sys.exit(tap.run_cases([firmware_writes_what_it_writes_under_qemu]))
