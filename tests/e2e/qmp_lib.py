# SPDX-License-Identifier: Apache-2.0
"""A client of QMP for the tests, for our sockets and for QEMU's."""

import array
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time

CAPABILITIES = '{"execute":"qmp_capabilities"}'


class Failed(Exception):
    """An error reply."""

    def __init__(self, error):
        self.kind, self.desc = error["class"], error["desc"]
        super().__init__(f"{self.kind}: {self.desc}")


class Qmp:
    """One connection. `events` keeps what came between answers, `order` everything in the order it came."""

    bound = True  # to one VM, with whose end it ends; False: a connection of the daemon's, by vmd-select

    def __init__(self, path, ready=True, timeout=30.0, sock=None, data=b"", greeting=None):
        """`sock`, when given, is connected already; `data` and `greeting` were read from it."""
        self.sock = sock or socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        if not sock:
            self.sock.connect(path)
        self.data, self.events, self.order = data, [], []
        self.greeting = greeting or self.read()
        if ready:
            self.execute("qmp_capabilities")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def close(self):
        self.sock.close()

    def read(self):
        """The next message; EOFError at the end."""
        while b"\n" not in self.data:
            try:
                piece = self.sock.recv(1 << 16)
            except ConnectionError:
                piece = b""
            if not piece:
                raise EOFError
            self.data += piece
        line, self.data = self.data.split(b"\n", 1)
        assert line.endswith(b"\r"), line
        return json.loads(line)

    def send(self, text, fds=()):
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        if fds:
            self.sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
        else:
            self.sock.sendall(data)

    def answer(self):
        """The next message that is no event."""
        while True:
            message = self.read()
            self.order.append(message.get("event") or ("error" if "error" in message else "return"))
            if "event" not in message:
                return message
            self.events.append(message)

    def ask(self, text, fds=()):
        self.send(text, fds)
        return self.answer()

    def execute(self, command, **arguments):
        message = {"execute": command}
        if arguments:
            message["arguments"] = {k.replace("_", "-") if k != "command_line" else "command-line": v
                                    for k, v in arguments.items()}
        reply = self.ask(json.dumps(message))
        if "error" in reply:
            raise Failed(reply["error"])
        return reply["return"]

    def fails(self, kind, command, **arguments):
        try:
            got = self.execute(command, **arguments)
        except Failed as error:
            assert error.kind == kind, error
            return error.desc
        raise AssertionError(f"{command} succeeded: {got}")

    def event(self, name):
        """The next event of that name; others before it are dropped."""
        while True:
            while self.events:
                message = self.events.pop(0)
                if message["event"] == name:
                    return message
            message = self.read()
            self.order.append(message.get("event", "reply"))
            assert "event" in message, message
            self.events.append(message)


class Qemu:
    """A real QEMU with the same board, the same guest and one disk."""

    program = "qemu-system-riscv64"

    @classmethod
    def there(cls):
        return shutil.which(cls.program) is not None

    def __init__(self, firmware, disk, name, uuid, *more):
        self.dir = tempfile.mkdtemp(prefix="vmd-qmp-", dir="/tmp")
        self.path = os.path.join(self.dir, "qmp")
        self.process = subprocess.Popen(
            [self.program, "-M", "virt", "-m", "16M", "-smp", "2", "-bios", firmware, "-display", "none", "-serial",
             "null", "-monitor", "none", "-name", name, "-uuid", uuid, "-S",
             "-drive", f"if=none,id=disk0,file={disk},format=raw,file.locking=off",
             "-device", "virtio-blk-device,drive=disk0,id=vd0", "-qmp", f"unix:{self.path},server=on,wait=off", *more],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def __enter__(self):
        end = time.monotonic() + 60
        while True:
            try:
                socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect(self.path)
                return self
            except OSError:
                assert self.process.poll() is None and time.monotonic() < end, "QEMU does not start"
                time.sleep(0.05)

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)
