# SPDX-License-Identifier: Apache-2.0
"""A private daemon, a client of its API and a bare-metal guest, for the tests of the daemon.

Every process is ended by the id that started it, or that the daemon named; nothing is left when a
`with` block ends.
"""

import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

import qmp_lib

BUILD = os.environ.get("VMD_BUILDDIR") or os.getcwd()
FAKE = os.path.join(BUILD, "tests", "e2e", "fake_emu")
MIB = 1 << 20


class CallError(Exception):
    """An error reply: code name, message, object and remedy."""

    def __init__(self, error):
        data = error.get("data") or {}
        self.code = error.get("code")
        self.error = data.get("error")
        self.object = data.get("object", "")
        self.remedy = data.get("remedy", "")
        self.message = error.get("message", "")
        super().__init__(f"{self.error}: {self.message}")


class Gone(Exception):
    """The connection ended before the answer."""


class Client:
    """One connection. Events that arrive between answers are kept in `events`."""

    def __init__(self, path, timeout=30.0):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        self.data = b""
        self.number = 0
        self.events = []
        self.answers = {}
        try:
            self.sock.connect(path)
            self.hello = self.read()
        except (OSError, Gone) as problem:
            self.sock.close()
            raise Gone(str(problem)) from problem

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def read(self):
        """The next message, as Python value."""
        while b"\n" not in self.data:
            try:
                piece = self.sock.recv(1 << 18)
            except ConnectionError as problem:
                raise Gone(str(problem)) from problem
            if not piece:
                raise Gone("closed")
            self.data += piece
        line, self.data = self.data.split(b"\n", 1)
        return json.loads(line)

    def send(self, method, **params):
        self.number += 1
        text = json.dumps({"jsonrpc": "2.0", "id": self.number, "method": method,
                           "params": params}) + "\n"
        try:
            self.sock.sendall(text.encode())
        except OSError as problem:
            raise Gone(str(problem)) from problem
        return self.number

    def answer(self, number):
        while number not in self.answers:
            message = self.read()
            if message.get("method") == "event":
                self.events.append(message["params"]["event"])
            elif "method" not in message:
                self.answers[message.get("id")] = message
        message = self.answers.pop(number)
        if "error" in message:
            raise CallError(message["error"])
        return message["result"]

    def call(self, method, **params):
        return self.answer(self.send(method, **params))

    def fails(self, code, method, **params):
        """The error of a call that must fail with this code name."""
        try:
            result = self.call(method, **params)
        except CallError as error:
            if error.error != code:
                raise AssertionError(f"{method}: {error}, not {code}") from error
            return error
        raise AssertionError(f"{method} succeeded: {result}, not {code}")


def word(*fields):
    value = 0
    for bits, shift in fields:
        value |= bits << shift
    return struct.pack("<I", value & 0xffffffff)


def payload(text=b"."):
    """A guest that writes `text` to its console every now and then, for ever (RV64, M-mode)."""
    def lui(rd, imm):
        return word((imm >> 12, 12), (rd, 7), (0x37, 0))

    def addi(rd, rs, imm):
        return word((imm & 0xfff, 20), (rs, 15), (rd, 7), (0x13, 0))

    def store_byte(rs2, rs1):
        return word((rs2, 20), (rs1, 15), (0x23, 0))

    def bne_back(rs1, offset):
        off = offset & 0x1fff
        return word((off >> 12 & 1, 31), (off >> 5 & 0x3f, 25), (rs1, 15), (1, 12),
                    (off >> 1 & 0xf, 8), (off >> 11 & 1, 7), (0x63, 0))

    def jump_back(offset):
        off = offset & 0x1fffff
        return word((off >> 20 & 1, 31), (off >> 1 & 0x3ff, 21), (off >> 11 & 1, 20),
                    (off >> 12 & 0xff, 12), (0x6f, 0))

    code = lui(5, 0x10000000)
    for byte in text:
        code += addi(6, 0, byte) + store_byte(6, 5)
    body = len(code) - 4
    code += lui(7, 0x00400000) + addi(7, 7, -1) + bne_back(7, -4)
    return code + jump_back(-(body + 12))


def power_off(value=5):
    """A guest that powers off at once (the board's syscon at 0x100000): 5; or resets: 7."""
    return (word((0x100000 >> 12, 12), (5, 7), (0x37, 0)) +       # lui t0, 0x100
            word((value, 12), (6, 7), (0x37, 0)) +                # lui t1, 0x5
            word((0x111 * value, 20), (6, 15), (6, 7), (0x13, 0)) +  # addi t1, t1, 0x555
            word((6, 20), (5, 15), (2, 12), (0x23, 0)) +          # sw t1, 0(t0)
            word((0, 12), (0x6f, 0)))                             # j .


def wait_for(condition, timeout=20.0, what="condition"):
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.005)


def sanitized():
    """Was vmd built with sanitizers? They take memory and time, and want to be loaded first."""
    with open(os.path.join(BUILD, "vmd"), "rb") as file:
        return b"__asan_init" in file.read()


def alive(pid):
    """Is it there, and no zombie?"""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


class Daemon:
    """vmd in a folder of its own; killed and started again at will."""

    def __init__(self, emulator=None, wrapper=(), folder=None, options=()):
        self.dir = folder or tempfile.mkdtemp(prefix="vmd-e2e-", dir="/tmp")
        self.emulator = emulator
        self.binary = os.path.join(BUILD, "vmd")
        self.wrapper = list(wrapper)
        self.options = list(options)
        self.process = None
        self.log = os.path.join(self.dir, "vmd.log")
        self.sock = os.path.join(self.dir, "run", "vmd.sock")
        self.guests = {}

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.end()

    def command(self, *more):
        command = [*self.wrapper, self.binary, "--dir", self.dir, *self.options, *more]
        if self.emulator:
            command += ["--emulator", self.emulator]
        return command

    def start(self, wait=True, settle=True, **more):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, **more)
        if wait:
            self.wait_ready()
        if wait and settle:
            self.wait_settled()

    def wait_settled(self):
        """Until every VM was taken up again; a loaded machine takes longer than vmd waits."""
        not_yet = "not taken up again yet"
        wait_for(lambda: not [vm for vm in self.call("vm.list")["vms"]
                              if vm.get("reason") == not_yet], 30, "VMs are taken up again")

    def wait_ready(self, timeout=60.0):
        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"vmd ended with {self.process.returncode}:\n{self.tail()}")
            try:
                Client(self.sock).close()
                return True
            except Gone:
                return False
        wait_for(ready, timeout, "vmd listens")

    def tail(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()[-3000:]

    def client(self, timeout=30.0):
        return Client(self.sock, timeout)

    def raw(self):
        """A connection behind its greeting: (socket, file)."""
        client = self.client()
        return client.sock, client.sock.makefile("rwb")

    def console(self, vm):
        return Console(self.call("vm.console", vm=vm)["path"])

    def qmp(self, vm="a", **more):
        return qmp_lib.Qmp(self.call("vm.get", vm=vm)["qmp"], **more)

    def call(self, method, **params):
        with self.client() as client:
            return client.call(method, **params)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def helper(self):
        """Process of vmd-spawn, None when there is none now."""
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        with open(path, encoding="ascii") as file:
            children = file.read().split()
        return int(children[0]) if children else None

    def terminate(self, timeout=60.0):
        self.process.terminate()
        return self.process.wait(timeout)

    def guest(self, name="loop", text=b"."):
        """A firmware file that runs for ever."""
        path = os.path.join(self.dir, name + ".bin")
        if not os.path.exists(path):
            with open(path, "wb") as file:
                file.write(power_off() if name == "off" else power_off(7) if name == "again" else payload(text))
        return path

    def config(self, name, **more):
        return {"name": name, "firmware": self.guest(), "memory": 16 * MIB,
                "tcg": {"cache_size": 4 * MIB}, **more}

    def emulators(self):
        """{run folder number: [pids]} of the emulators that live, seen from outside."""
        found = {}
        base = os.path.join(self.dir, "run", "vm")
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                target = os.readlink(f"/proc/{pid}/fd/2")
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    command = file.read()
            except OSError:
                continue
            if target.startswith(base + "/") and b"--control-fd" in command and alive(pid):
                found.setdefault(int(target[len(base) + 1:].split("/")[0]), []).append(int(pid))
        return found

    def networks(self):
        """The processes of networks that live, seen from outside."""
        found = []
        base = os.path.join(self.dir, "run", "net")
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                target = os.readlink(f"/proc/{pid}/fd/2")
            except OSError:
                continue
            if target.startswith(base + "/") and alive(pid):
                found.append(int(pid))
        return found

    def end(self):
        """Ends VMs and daemon, removes the folder."""
        try:
            if self.process and self.process.poll() is not None:
                self.start()
            if self.process:
                with self.client() as client:
                    client.call("host.shutdown-daemon", stop_vms=True)
                self.process.wait(60)
        except (AssertionError, Gone, CallError, subprocess.TimeoutExpired):
            pass
        if self.process and self.process.poll() is None:
            self.kill()
        for pids in self.emulators().values():
            for pid in pids:
                kill(pid)
        for pid in self.networks():
            kill(pid)
        shutil.rmtree(self.dir, ignore_errors=True)


class Console:
    """A connection to a VM's console socket, as vmctl makes it."""

    def __init__(self, path, sock=None, data=b""):
        """`sock`, when given, is connected already; `data` was read from it."""
        self.sock, self.data = sock or socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), data
        if not sock:
            self.sock.connect(path)

    def ready(self, timeout):
        """Is there something to read? What TLS has decrypted already is not seen by select."""
        return self.data or getattr(self.sock, "pending", int)() or select.select([self.sock], [], [], timeout)[0]

    def read_some(self, timeout=20.0):
        if not self.ready(timeout):
            raise AssertionError(f"the console was silent for {timeout} s")
        data, self.data = self.data, b""
        return data or self.sock.recv(1 << 16)

    def drain(self):
        """Drops what has come until now."""
        while self.ready(0):
            if not self.read_some():
                break

    def close(self):
        self.sock.close()
