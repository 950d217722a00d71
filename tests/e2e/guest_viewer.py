# SPDX-License-Identifier: Apache-2.0
"""A viewer that nobody here wrote (TigerVNC's, under Xvfb), by password and through TLS, types at a guest's text console and shows
its screen."""

import os
import pathlib
import shutil
import struct
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(TOP / part) for part in ("tests/lib", "tests/e2e", "tests/guests")]

import guest  # noqa: E402
import guest_screen as screen  # noqa: E402
import tap  # noqa: E402
from daemon_lib import wait_for  # noqa: E402
from remote_lib import RemoteDaemon  # noqa: E402

TIMEOUT = screen.TIMEOUT
TOOLS = {"xtigervncviewer": "tigervnc-viewer", "vncpasswd": "tigervnc-tools", "Xvfb": "xvfb", "xdotool": "xdotool"}


class Desktop:
    """An X server whose picture is a file."""

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        read, write = os.pipe()
        self.server = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", "800x600x24", "-fbdir", self.folder,
                                        "-nolisten", "tcp"], pass_fds=[write], stderr=subprocess.DEVNULL)
        os.close(write)
        with os.fdopen(read) as file:
            self.env = {**os.environ, "DISPLAY": ":" + file.readline().strip(), "HOME": self.folder}
        return self

    def __exit__(self, *_):
        self.server.terminate()
        self.server.wait()

    def colours(self):
        """How many pixels the picture has of each colour (an XWD file)."""
        with open(os.path.join(self.folder, "Xvfb_screen0"), "rb") as file:
            data = file.read()
        head = struct.unpack(">25I", data[:100])
        start, (width, height), stride = head[0] + head[19] * 12, head[4:6], head[12]
        assert head[11] == 32 and head[7] == 0, head
        found = {}
        for y in range(height):
            for pixel in struct.unpack_from(f"<{width}I", data, start + y * stride):
                found[pixel & 0xffffff] = found.get(pixel & 0xffffff, 0) + 1
        return found

    def type(self, text):
        for line in text.splitlines():
            subprocess.run(["xdotool", "type", "--delay", "30", line], env=self.env, check=True, timeout=TIMEOUT)
            subprocess.run(["xdotool", "key", "Return"], env=self.env, check=True, timeout=TIMEOUT)


def use(d, address, kind, number, env, log):
    """A viewer of one kind of security types a command and has the guest paint its screen."""
    with Desktop(os.path.join(d.dir, kind)) as x:
        password = os.path.join(d.dir, "password")
        with open(password, "wb") as file:
            file.write(subprocess.run(["vncpasswd", "-f"], input=b"letmein8\n", capture_output=True, check=True).stdout)
        command = ["xtigervncviewer", "-SecurityTypes", kind, "-X509CA", d.ca, "-FullScreen", "-RemoteResize=0",
                   "-AlertOnFatalError=0", "-ReconnectOnError=0"]
        command += [] if kind == "X509Plain" else ["-PasswordFile", password]
        with open(os.path.join(d.dir, kind + ".log"), "wb") as out:
            viewer = subprocess.Popen([*command, address.replace(":", "::")], env={**x.env, **env}, stdout=out, stderr=out)
        try:
            wait_for(lambda: len(x.colours()) > 1 or viewer.poll() is not None, TIMEOUT, "a window")
            assert viewer.poll() is None, open(os.path.join(d.dir, kind + ".log"), encoding="utf-8").read()
            x.type(f"echo {kind}-$((6*{number})) >/dev/ttyS0")
            screen.console_has(log, f"{kind}-{6 * number}".encode())
            x.type(screen.colour_screen(2).strip())
            wait_for(lambda: x.colours().get(screen.GREEN, 0) >= screen.WIDTH * screen.HEIGHT, TIMEOUT, "a green screen")
            x.type("\n")
        finally:
            viewer.terminate()
            viewer.wait()


def viewer_types_and_sees():
    missing = [f"{name} (package {package})" for name, package in TOOLS.items() if not shutil.which(name)]
    if missing:
        raise tap.Skip(", ".join(missing))
    d = RemoteDaemon()
    d.start()
    try:
        d.init()
        with d.client(TIMEOUT) as c:
            config = screen.linux(d, "a", "virtio")
            c.call("vm.define", config={**config, "vnc": {"security": "password"}})
            c.call("vm.start", vm="a")
            log = c.call("vm.console", vm="a")["log"]
            screen.console_has(log, b"SCREEN %d,%d" % (screen.WIDTH, screen.HEIGHT))
            c.call("vm.set_vnc_password", vm="a", password="letmein8")
            address = c.call("vm.vnc", vm="a")["address"].replace("127.0.0.1", "localhost")
            for number, (kind, security) in enumerate((("VncAuth", "password"), ("X509Vnc", "tls-password"),
                                                       ("X509Plain", "tls-user")), 1):
                os.mkdir(os.path.join(d.dir, kind))
                c.call("vm.set", vm="a", set={"vnc": {"security": security}})
                use(d, address, kind, number, {"VNC_USERNAME": "a", "VNC_PASSWORD": "letmein8"}, log)
    finally:
        d.end()


if __name__ == "__main__":
    guest.need("riscv64-screen")
    sys.exit(tap.run_cases([viewer_types_and_sees]))
