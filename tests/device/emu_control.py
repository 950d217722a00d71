# SPDX-License-Identifier: Apache-2.0
"""vmd-emu as the spawner of vmd starts it: descriptors, control socket, console, statistics page, sandbox.

The guest is a small program (source below) that says READY, echoes what is typed, and ends, resets,
fails or floods the console on a letter.
"""

import base64
import json
import mmap
import os
import re
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import tap  # noqa: E402

EMU = os.environ.get("VMD_EMU") or os.path.join(os.environ.get("VMD_BUILDDIR", "."), "vmd-emu")
COOKIE = "00112233445566778899aabbccddeeff"
UUID = "01234567-89ab-4def-8123-456789abcdef"
LIMIT = 60.0  # of patience, nothing is measured

# hart 0: switches the FIFOs on (FCR, offset 2), prints "READY\n" at 0x10000000, then polls LSR (offset 5) and echoes each byte, except the
# commands below. Before each byte it waits until LSR says that the transmitter is empty: what is sent to a full one is lost.
#   q: 0x5555 to 0x100000 (power off)       r: 0x7777 (reset)      f: 0x73333 (fail, code 7)
#   x: prints 100000 bytes '0' + (n & 63), n from 100000 down to 1, then powers off
# other harts: wfi for ever.
GUEST = bytes.fromhex(
    "6316050cb7020010370e10001303100023816200170300001303030c83430300"
    "63880300ef004009130313006ff01fff83c3520093f31300e38c03fe83c30200"
    "930e10076382d303930e20076386d303930e6006638ad303930e8007638ed303"
    "ef0080056ff0dffcb75e00009b8e5e552320de016ff05fffb77e00009b8e7e77"
    "2320de016ff05fffb73e07009b8e3e332320de016ff05fff378f01001b0f0f6a"
    "9373ff0393830303ef000001130fffffe3180ffe6ff05ffb83cf520093ff0f02"
    "e38c0ffe2380720067800000730050106ff0dfff52454144590a0000")
FLOOD = bytes(48 + (n & 63) for n in range(100000, 0, -1))


class Emu:
    """One vmd-emu in descriptor mode."""

    def __init__(self, sandbox="on", paused=False, config=None, files=None, extra=(), descriptors=()):
        self.dir = tempfile.TemporaryDirectory()
        where = self.dir.name
        self.guest = os.path.join(where, "guest.bin")
        with open(self.guest, "wb") as f:
            f.write(GUEST)
        full = {"name": "t1", "uuid": UUID, "memory": 64 << 20, "firmware": self.guest, **(config or {})}
        full = {key: value for key, value in full.items() if value is not None}
        self.control, self.console = (os.path.join(where, n) for n in ("control", "console"))
        self.log = os.path.join(where, "console.log")
        fds = {}
        read, write = os.pipe()
        os.write(write, json.dumps(full).encode())
        os.close(write)
        fds["--config-fd"] = read
        self.bound = []
        for option, path in (("--control-fd", self.control), ("--console-fd", self.console)):
            s = socket.socket(socket.AF_UNIX)
            s.bind(path)
            self.bound.append(s)
            fds[option] = s.fileno()
        fds["--console-log-fd"] = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.page_fd = fds["--stats-fd"] = os.memfd_create("stats")
        os.ftruncate(self.page_fd, 4096)
        argv = [EMU, "--sandbox", sandbox, *extra]
        for option, fd in fds.items():
            argv += [option, str(fd)]
        given = {self.guest: os.open(self.guest, os.O_RDONLY)}
        for path, mode in (files or {}).items():
            given[path] = os.open(path, mode)
        for path, fd in given.items():
            argv += ["--file", f"{path}={fd}"]
        if paused:
            argv.append("--paused")
        passed = [*fds.values(), *given.values(), *descriptors]
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, pass_fds=passed,
                                        env={**os.environ, "VMD_COOKIE": COOKIE})
        bound = [s.fileno() for s in self.bound]
        for fd in passed:
            if fd != self.page_fd and fd not in bound and fd not in descriptors:
                os.close(fd)
        for s in self.bound:
            s.close()  # now only the emulator can answer

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        os.close(self.page_fd)
        self.dir.cleanup()

    def connect(self, path):
        """A client of the control or console socket, as soon as the emulator listens."""
        end = time.monotonic() + LIMIT
        while True:
            s = socket.socket(socket.AF_UNIX)
            try:
                s.connect(path)
                s.settimeout(LIMIT)
                return s
            except OSError:
                s.close()
                if self.process.poll() is not None:
                    errors = self.rest()
                    if "this build has sanitizers" in errors:
                        raise tap.Skip("a build without sanitizers") from None
                    raise AssertionError("the emulator ended: " + errors) from None
                tap.check(time.monotonic() < end, "nobody listens")
                time.sleep(0.01)

    def rest(self):
        return self.process.communicate(timeout=LIMIT)[1].decode(errors="replace")

    def wait(self):
        """Exit status; what it wrote to stderr goes into the report of a failure."""
        try:
            errors = self.rest()
        except subprocess.TimeoutExpired:
            raise AssertionError("the emulator does not end") from None
        return self.process.returncode, errors

    def page(self):
        with mmap.mmap(self.page_fd, 4096, prot=mmap.PROT_READ) as m:
            return bytes(m)


class Client:
    """A control client."""

    def __init__(self, emu):
        self.sock = emu.connect(emu.control)
        self.file = self.sock.makefile("rw", encoding="utf-8", newline="\n")
        self.emu = emu
        self.number = 0
        self.events = []
        self.greeting = self.line()

    def line(self):
        try:
            text = self.file.readline()
        except ConnectionResetError:
            text = ""
        if not text and "this build has sanitizers" in self.emu.rest():
            raise tap.Skip("a build without sanitizers")
        tap.check(text, "the control connection is closed")
        return json.loads(text)

    def call(self, method, **params):
        return self.call_with(None, method, **params)

    def call_with(self, fd, method, **params):
        """With a descriptor, which is closed."""
        self.number += 1
        text = json.dumps({"jsonrpc": "2.0", "id": self.number, "method": method, "params": params}) + "\n"
        socket.send_fds(self.sock, [text.encode()], [] if fd is None else [fd])
        if fd is not None:
            os.close(fd)
        while True:
            answer = self.line()
            if answer.get("id") == self.number:
                return answer
            self.events.append(answer)

    def ok(self, method, **params):
        answer = self.call(method, **params)
        tap.check("result" in answer, f"{method}: {answer}")
        return answer["result"]

    def event(self):
        while not self.events:
            self.events.append(self.line())
        return self.events.pop(0)["params"]

    def close(self):
        self.file.close()


def read_until(sock, word, have=b""):
    end = time.monotonic() + LIMIT
    while word not in have:
        tap.check(time.monotonic() < end and select.select([sock], [], [], LIMIT)[0], f"no {word!r} in {have[-200:]!r}")
        got = sock.recv(65536)
        tap.check(got, f"console closed before {word!r}: {have[-200:]!r}")
        have += got
    return have


def read_all(sock, have=b""):
    while True:
        got = sock.recv(65536)
        if not got:
            return have
        have += got


def check_end(emu, status=0):
    code, errors = emu.wait()
    tap.check(code == status, f"exit status {code}, expected {status}: {errors[-800:]}")


def emulator_says_who_it_is():
    with Emu() as emu:
        c = Client(emu)
        hello = c.ok("emu.hello")
        tap.check(hello["uuid"] == UUID and hello["name"] == "t1" and hello["cookie"] == COOKIE, str(hello))
        tap.check(hello["pid"] == emu.process.pid and hello["state"] == "running", str(hello))
        tap.check(c.ok("emu.hello", cookie=COOKIE)["uuid"] == UUID, "right cookie refused")
        tap.check("error" in c.call("emu.hello", cookie="ff" * 16), "wrong cookie accepted")
        c.ok("emu.quit")
        check_end(emu)


def pause_resume_and_reset_answer_and_notify_all_clients():
    with Emu(paused=True) as emu:
        one, two = Client(emu), Client(emu)
        tap.check(one.ok("emu.status")["state"] == "paused", "not paused")
        tap.check("error" in one.call("emu.pause"), "paused twice")
        one.ok("emu.resume")
        tap.check(two.event()["state"] == "running", "no event of the resume")
        console = emu.connect(emu.console)
        read_until(console, b"READY\n")
        one.ok("emu.pause")
        tap.check(two.event() == {"type": "state", "state": "paused", "reason": "pause"}, "pause event")
        console.sendall(b"late")  # waits for the guest to run again
        one.ok("emu.resume")
        two.event()
        read_until(console, b"late")
        one.ok("emu.reset")
        tap.check(two.event()["type"] == "reset", "reset event")
        read_until(console, b"READY\n")
        powerdown = one.call("emu.powerdown")
        tap.check("power button" in powerdown["error"]["message"], str(powerdown))
        tap.check("error" in one.call("emu.nothing"), "unknown method accepted")
        two.ok("emu.quit")
        check_end(emu)


def guest_power_off_reset_and_failure_end_as_they_should():
    with Emu() as emu:
        console, c = emu.connect(emu.console), Client(emu)
        read_until(console, b"READY\n")
        console.sendall(b"r")
        read_until(console, b"READY\n")
        tap.check(c.event() == {"type": "reset", "state": "running", "reason": "guest-reset"}, "reset")
        console.sendall(b"q")
        stopped = c.event()
        tap.check(stopped == {"type": "state", "state": "stopped", "reason": "guest-poweroff"}, str(stopped))
        check_end(emu, 0)
    with Emu() as emu:
        console = emu.connect(emu.console)
        read_until(console, b"READY\n")
        console.sendall(b"f")
        check_end(emu, 2)


def resets_and_power_offs_do_what_set_action_says():
    with Emu() as emu:
        console, c = emu.connect(emu.console), Client(emu)
        read_until(console, b"READY\n")
        c.ok("emu.set_action", reboot="shutdown")
        console.sendall(b"r")
        stopped = c.event()
        tap.check(stopped["type"] == "state" and stopped["state"] == "stopped", str(stopped))
        check_end(emu, 0)
    with Emu() as emu:
        console, c = emu.connect(emu.console), Client(emu)
        read_until(console, b"READY\n")
        c.ok("emu.set_action", shutdown="pause")
        console.sendall(b"q")
        paused = c.event()
        tap.check(paused["type"] == "state" and paused["state"] == "paused", str(paused))
        tap.check(emu.process.poll() is None, "the process has ended")
        c.ok("emu.quit")
        check_end(emu, 0)


def console_gives_backlog_to_several_readers():
    with Emu() as emu:
        one = emu.connect(emu.console)
        read_until(one, b"READY\n")
        one.sendall(b"abc")
        read_until(one, b"abc")
        two = emu.connect(emu.console)
        read_until(two, b"READY\nabc")
        two.sendall(b"deg")
        read_until(one, b"deg")
        read_until(two, b"deg")
        one.close()
        two.sendall(b"ghi" + b"q")
        tap.check(read_all(two) == b"ghi", "the reader that stayed sees the rest")
        check_end(emu)
        with open(emu.log, "rb") as f:
            tap.check(f.read() == b"READY\nabcdegghi", "console log")


def input_beyond_any_queue_arrives_whole():
    text = bytes(b"abcdeghijklmnop"[i % 15] for i in range(100000))
    with Emu() as emu:
        console = emu.connect(emu.console)
        have = read_until(console, b"READY\n")[6:]
        console.setblocking(False)
        sent = 0
        end = time.monotonic() + LIMIT
        while len(have) < len(text):
            tap.check(time.monotonic() < end, f"{len(have)} of {len(text)} bytes came back")
            r, w, _ = select.select([console], [console] if sent < len(text) else [], [], LIMIT)
            if r:
                have += console.recv(65536)
            if w:
                sent += console.send(text[sent:sent + 8192])
        tap.check(have == text, "bytes were lost or reordered")
        console.setblocking(True)
        console.sendall(b"q")
        check_end(emu)


def last_output_is_never_lost():
    with Emu() as emu:
        console = emu.connect(emu.console)
        read_until(console, b"READY\n")
        console.sendall(b"x")
        got = read_all(console)
        same = next((i for i, (a, b) in enumerate(zip(got, FLOOD)) if a != b), min(len(got), len(FLOOD)))
        tap.check(got == FLOOD, f"a reader got {len(got)} of {len(FLOOD)} bytes, the first {same} right")
        check_end(emu)
        with open(emu.log, "rb") as f:
            tap.check(f.read() == b"READY\n" + FLOOD, "the log misses output")
    with tempfile.TemporaryDirectory() as where:
        path, config = (os.path.join(where, n) for n in ("guest.bin", "vm.json"))
        with open(path, "wb") as f:
            f.write(GUEST)
        with open(config, "w", encoding="utf-8") as f:
            json.dump({"memory": 64 << 20, "firmware": path}, f)
        with subprocess.Popen([EMU, "--config", config], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as p:
            out = p.stdout.read(6)
            p.stdin.write(b"x")
            p.stdin.close()
            time.sleep(0.5)  # the pipe fills, what does not fit waits
            out += p.stdout.read()
            tap.check(p.wait(LIMIT) == 0 and out == b"READY\n" + FLOOD, f"{len(out)} bytes on standard output")


def slow_reader_is_dropped_and_never_holds_up_the_guest():
    with Emu() as emu:
        slow, fast = emu.connect(emu.console), emu.connect(emu.console)
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        read_until(fast, b"READY\n")
        for _ in range(8):
            fast.sendall(b"z" * 65536)
            read_until(fast, b"z" * 65536)
        fast.sendall(b"q")
        read_all(fast)
        check_end(emu)


def statistics_page_is_published():
    with Emu() as emu:
        console, c = emu.connect(emu.console), Client(emu)
        read_until(console, b"READY\n")
        console.sendall(b"hello")
        read_until(console, b"hello")
        stats = c.ok("emu.stats")
        tap.check(stats["console_in"] == 5 and stats["console_out"] == 11, str(stats))
        tap.check(len(stats["vcpus"]) == 1 and stats["tb_translated"] > 0, str(stats))
        c.ok("emu.pause")
        page = emu.page()
        magic, version, size, seq = struct.unpack_from("<8sIIQ", page)
        tap.check(magic == b"VMDSTATS" and version == 3 and 0 < size <= 4096 and seq % 2 == 0, repr(page[:32]))
        pid, state = struct.unpack_from("<II", page, 48)
        tap.check(pid == emu.process.pid and state == 0, f"pid {pid} state {state}")
        c.ok("emu.quit")
        check_end(emu)
        tap.check(struct.unpack_from("<I", emu.page(), 52)[0] == 2, "the end is not published")


def quit_while_paused_and_sigterm_end_cleanly():
    with Emu(paused=True) as emu:
        Client(emu).ok("emu.quit")
        check_end(emu)
    with Emu() as emu:
        read_until(emu.connect(emu.console), b"READY\n")
        emu.process.terminate()
        check_end(emu)


def hundred_control_clients_come_and_go():
    with Emu() as emu:
        for i in range(100):
            c = Client(emu)
            if i % 3 == 0:
                c.file.write('{"jsonrpc":"2.0","id":1,"meth')  # leaves in the middle of a line
                c.file.flush()
            elif i % 3 == 1:
                c.ok("emu.status")
            c.close()
        Client(emu).ok("emu.quit")
        check_end(emu)


def every_thread_is_confined():
    with Emu(sandbox="require", config={"cpus": 2}) as emu:
        c = Client(emu)
        read_until(emu.connect(emu.console), b"READY\n")
        kinds = {}
        for task in os.listdir(f"/proc/{emu.process.pid}/task"):
            with open(f"/proc/{emu.process.pid}/task/{task}/status", encoding="utf-8") as f:
                text = f.read()
            field = dict(re.findall(r"^(\w+):\s+(.*)$", text, re.M))
            kinds[field["Name"]] = (field["Seccomp"], field["NoNewPrivs"])
        if emu.process.poll() is not None:
            raise AssertionError(emu.rest())
        tap.check(set(kinds) == {"vm:t1", "vcpu0", "vcpu1"}, str(kinds))
        tap.check(all(v == ("2", "1") for v in kinds.values()), str(kinds))
        c.ok("emu.reset")
        layers = dict(text.split(": ", 1) for text in c.ok("emu.stats")["sandbox"])
        layers.pop("seccomp-pager", None)  # of hosts that can watch memory
        tap.check(set(layers) == {"no-new-privs", "not-dumpable", "limits", "seccomp-main", "seccomp-vcpu", "seccomp-io"},
                  str(layers))
        tap.check(all(state.startswith("on") for state in layers.values()), str(layers))
        c.ok("emu.quit")
        check_end(emu)


def disks_come_as_descriptors_and_are_locked():
    with tempfile.TemporaryDirectory() as where:
        image = os.path.join(where, "root.img")
        with open(image, "wb") as f:
            f.truncate(1 << 20)
        disk = {"disks": [{"name": "root", "file": image}]}
        with Emu(config=disk, files={image: os.O_RDWR}) as emu:
            read_until(emu.connect(emu.console), b"READY\n")
            c = Client(emu)
            rule = c.ok("emu.fault_add", disk="root", op="flush", layer="format")["id"]
            found = c.ok("emu.fault_list")["faults"]
            tap.check([(f["id"], f["disk"], f["op"], f["layer"]) for f in found] == [(rule, "root", "flush", "format")],
                      f"{found}")
            c.ok("emu.fault_remove", id=rule)
            tap.check("error" in c.call("emu.fault_remove", id=rule), "removed twice")
            with Emu(config={**disk, "name": "t2"}, files={image: os.O_RDWR}) as second:
                code, errors = second.wait()
                tap.check(code == 1 and "disk 'root' is locked by VM 't1'" in errors and
                          str(emu.process.pid) in errors, f"{code} {errors}")
            c = Client(emu)
            tap.check(c.ok("emu.stats")["disks"][0]["name"] == "root", "disk statistics")
            c.ok("emu.quit")
            check_end(emu)
        readonly = {"disks": [{"name": "root", "file": image, "readonly": True}]}
        with Emu(config=readonly, files={image: os.O_RDONLY}) as one:
            read_until(one.connect(one.console), b"READY\n")
            with Emu(config=readonly, files={image: os.O_RDONLY}) as two:
                read_until(two.connect(two.console), b"READY\n")
                Client(two).ok("emu.quit")
                check_end(two)
            Client(one).ok("emu.quit")
            check_end(one)
        with Emu(config=disk, files={image: os.O_RDONLY}) as emu:
            code, errors = emu.wait()
            tap.check(code == 1 and "read-only" in errors, f"{code} {errors}")
        with Emu(config=disk) as emu:
            code, errors = emu.wait()
            tap.check(code == 1 and "--file" in errors, f"{code} {errors}")


def devices_registers_and_memory_can_be_looked_at():
    with tempfile.TemporaryDirectory() as where:
        image = os.path.join(where, "root.img")
        with open(image, "wb") as f:
            f.truncate(1 << 20)
        with Emu(config={"disks": [{"name": "root", "file": image}]}, files={image: os.O_RDWR}) as emu:
            c = Client(emu)
            blocks = c.ok("emu.blocks")["blocks"]
            want = {"name": "root", "device": "disk0", "size": 1 << 20, "file": image, "format": "raw"}
            tap.check(len(blocks) == 1 and want.items() <= blocks[0].items(), f"{blocks}")
            tap.check(c.ok("emu.disk_resize", disk="root", size=2 << 20) == {"size": 2 << 20}, "resize")
            tap.check(os.path.getsize(image) == 2 << 20, "the image has the new size")
            tap.check("error" in c.call("emu.disk_resize", disk="root", size=1 << 20), "a disk is not made smaller")
            text = c.ok("emu.registers")["text"]
            tap.check("\npc = 0x" in text and "x[31] = " in text, text)
            tap.check("error" in c.call("emu.registers", vcpu=511), "a vCPU that is not there")
            state = {(f["part"], f["field"]): f["value"] for f in c.ok("emu.state")["fields"]}
            tap.check(("machine", "clock_ns") in state and ("device:serial0", "lcr") in state, f"{list(state)[:9]}")
            tap.check({f["part"] for f in c.ok("emu.state", part="cpu0")["fields"]} == {"cpu0"}, "a part")
            rom = base64.b64decode(c.ok("emu.memory", address="0x1000", size=8)["data"])
            seen = base64.b64decode(c.ok("emu.memory", address="0x1000", size=8, vcpu=0)["data"])
            tap.check(rom == seen and rom[:4] == bytes.fromhex("97020000"), f"{rom} {seen}")
            for wrong in ({"address": "0", "size": 1}, {"address": "x", "size": 1}, {"address": "0x1ffe", "size": 65536}):
                tap.check("error" in c.call("emu.memory", **wrong), f"{wrong}")
            found = c.ok("emu.memory_search", bytes=base64.b64encode(rom).decode())["found"]
            tap.check("0x1000" in found, f"{found}")
            for wrong in ({"bytes": ""}, {"bytes": "!"}, {"bytes": "AAAA", "address": "here"}):
                tap.check("error" in c.call("emu.memory_search", **wrong), f"{wrong}")
            devices = {d["id"]: d for d in c.ok("emu.devices")["devices"]}
            tap.check("lcr = 0x" in devices["serial0"]["state"], f"{devices['serial0']}")
            one = c.ok("emu.devices", id="disk0")["devices"]
            tap.check(len(one) == 1 and one[0]["device_class"] == "virtio-blk", f"{one}")
            names = [p["name"] for p in c.ok("emu.device_class", name="ns16550a")["properties"]]
            tap.check("clock-hz" in names, f"{names}")
            tap.check("error" in c.call("emu.device_class", name="nope"), "a class that is not there")
            c.ok("emu.quit")
            check_end(emu)


def memory_is_dumped_into_a_descriptor():
    with Emu(config={"cpus": 2}) as emu:
        c = Client(emu)
        tap.check(c.ok("emu.dump_status") == {"state": "none", "completed": 0, "total": 0, "bytes": 0}, "none yet")
        answer = c.call("emu.dump")
        tap.check(answer["error"]["data"]["error"] == "invalid-params", f"{answer}")
        read, write = os.pipe()
        answer = c.call_with(read, "emu.dump")
        tap.check("regular file" in answer["error"]["message"], f"{answer}")
        os.close(write)
        path = os.path.join(emu.dir.name, "core")
        out = c.call_with(os.open(path, os.O_RDWR | os.O_CREAT), "emu.dump")
        size = os.path.getsize(path)
        tap.check(out.get("result") == {"bytes": size, "memory": 64 << 20}, f"{out}")
        tap.check(c.ok("emu.dump_status") == {"state": "completed", "completed": 64 << 20, "total": 64 << 20, "bytes": size},
                  "and that is kept")
        with open(path, "rb") as f:
            head = f.read(64)
            tap.check(head[:6] == b"\x7fELF\x02\x01" and head[16:20] == b"\x04\x00\xf3\x00", f"{head}")
            f.seek(size - (64 << 20))
            tap.check(f.read(len(GUEST)) == GUEST, "the guest's program is where it was loaded")
        c.ok("emu.dump_cancel")  # nothing to cancel
        only = os.open(path, os.O_RDONLY)
        answer = c.call_with(only, "emu.dump")
        tap.check(answer["error"]["data"]["error"] == "file-error", f"{answer}")
        tap.check(c.ok("emu.dump_status")["state"] == "failed", "which is told")
        tap.check(c.ok("emu.status")["state"] == "running", "the guest runs on")
        c.ok("emu.quit")
        check_end(emu)


def no_descriptor_is_left_over():
    with Emu() as emu:
        c = Client(emu)
        console = emu.connect(emu.console)
        read_until(console, b"READY\n")
        before = None
        for _ in range(5):
            extra = [Client(emu) for _ in range(4)] + [emu.connect(emu.console) for _ in range(4)]
            for e in extra:
                e.close()
            console.sendall(b"a")
            read_until(console, b"a")
            end = time.monotonic() + LIMIT
            while True:
                try:
                    now = len(os.listdir(f"/proc/{emu.process.pid}/fd"))
                except PermissionError:
                    raise tap.Skip("root, to look into a process that is not dumpable") from None
                if before is None or now <= before or time.monotonic() > end:
                    break
                time.sleep(0.05)
            before = now if before is None else before
            tap.check(now <= before, f"{now} descriptors, {before} before")
        c.ok("emu.quit")
        check_end(emu)


def files_are_taken_while_the_vm_runs_and_dropped_again():
    with Emu() as emu, tempfile.NamedTemporaryFile() as image:
        c = Client(emu)
        read_until(emu.connect(emu.console), b"READY\n")
        sock = emu.connect(emu.control)
        answers = sock.makefile("r", encoding="utf-8")
        answers.readline()

        def add(path, fd=None, **more):
            text = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "emu.file_add",
                               "params": {"path": path, **more}}).encode() + b"\n"
            socket.send_fds(sock, [text], [fd] if fd is not None else [])
            return json.loads(answers.readline())
        before = len(os.listdir(f"/proc/{emu.process.pid}/fd"))
        tap.check("result" in add("/a", image.fileno()), "/a is refused")
        tap.check("result" in add("/b", image.fileno(), role="backing", format="raw"), "/b is refused")
        for answer, word in ((add("/a", image.fileno()), "waits already"), (add("/c"), "no descriptor"),
                             (add("/d", image.fileno(), format="raw"), "a backing file has a format"),
                             (add("/d", image.fileno(), role="backing"), "a backing file has a format")):
            tap.check(word in answer.get("error", {}).get("message", ""), f"{word}: {answer}")
        tap.check(len(os.listdir(f"/proc/{emu.process.pid}/fd")) == before + 2, "not two more descriptors")
        c.ok("emu.file_drop", path="/a")
        tap.check("error" in c.call("emu.file_drop", path="/a"), "dropped twice")
        tap.check(len(os.listdir(f"/proc/{emu.process.pid}/fd")) == before, "descriptors are left")
        c.ok("emu.quit")
        check_end(emu)


def media_of_drives_come_and_go():
    with tempfile.TemporaryDirectory() as where:
        paths = {name: os.path.join(where, name) for name in ("root", "disc", "other", "empty")}
        for mib, path in enumerate(paths.values(), 1):
            with open(path, "wb") as f:
                f.truncate(mib << 20 if not path.endswith("empty") else 0)
        disks = [{"name": "root", "file": paths["root"]},
                 {"name": "cd", "file": paths["disc"], "bus": "scsi", "cdrom": True, "readonly": True}]
        with Emu(config={"disks": disks}, files={paths["root"]: os.O_RDWR, paths["disc"]: os.O_RDONLY}) as emu:
            read_until(emu.connect(emu.console), b"READY\n")
            c = Client(emu)
            sock = emu.connect(emu.control)
            answers = sock.makefile("r", encoding="utf-8")
            answers.readline()

            def give(path):
                with open(path, "rb") as file:
                    socket.send_fds(sock, [json.dumps({"jsonrpc": "2.0", "id": 1, "method": "emu.file_add",
                                                       "params": {"path": path}}).encode() + b"\n"], [file.fileno()])
                    answer = next(a for a in map(json.loads, answers) if a.get("id") == 1)  # trays that move are told in between
                    tap.check("result" in answer, f"{path} is not taken: {answer}")

            def drive():
                return {"tray": False, "tray_open": False, **c.ok("emu.blocks")["blocks"][1]}

            tap.check(drive()["tray"] and not drive()["tray_open"], f"{drive()}")
            c.ok("emu.disk_tray", disk="cd", open=True)
            tap.check(drive()["tray_open"], "it is open")
            c.ok("emu.disk_tray", disk="cd", open=False)
            tap.check(not drive()["tray_open"], "it is closed")
            give(paths["other"])
            c.ok("emu.disk_medium", disk="cd", file=paths["other"])
            tap.check(not drive()["tray_open"], "closed over the new one")
            c.ok("emu.disk_medium", disk="cd")
            tap.check(drive()["tray_open"], "open, and nothing is in it")
            for method, more in (("emu.disk_tray", {"open": True}), ("emu.disk_medium", {})):
                for disk, error in (("nope", "not-found"), ("root", "unsupported")):
                    got = c.call(method, disk=disk, **more)["error"]["data"]["error"]
                    tap.check(got == error, f"{method} of {disk}: {got}")
            give(paths["empty"])
            got = c.call("emu.disk_medium", disk="cd", file=paths["empty"])["error"]
            tap.check(got["data"]["error"] == "file-error" and "is empty" in got["message"], f"{got}")
            c.ok("emu.quit")
            check_end(emu)


def screen_is_looked_at_and_typed_at():
    calls = [("emu.send_key", {"keys": ["ctrl", "a"]}), ("emu.type_text", {"text": "Hello\n"}),
             ("emu.input", {"events": [{"key": "btn-left"}, {"axis": "x", "value": 7}]})]
    with Emu(config={"display": {"device": "bochs", "width": 640, "height": 480}}) as emu:
        c = Client(emu)
        shot = c.ok("emu.screenshot")
        data = base64.b64decode(shot["data"])
        tap.check((shot["width"], shot["height"], shot["size"]) == (640, 480, len(data)), f"{shot['size']}")
        tap.check(data[:8] == b"\x89PNG\r\n\x1a\n" and "next" not in shot, "a PNG in one piece")
        tap.check("error" in c.call("emu.screenshot", picture=99), "a picture that was never taken")
        for method, params in calls:  # the guest has no driver: what is typed is dropped
            c.ok(method, **params)
        tap.check("error" in c.call("emu.send_key", keys=["nope"]), "a key that is not there")
        tap.check("error" in c.call("emu.input", events=[{"axis": "x", "value": -1}]), "a place left of the screen")
        tap.check(c.ok("emu.vnc")["clients"] == 0, "nobody looks")
        found = {f["id"]: f for f in c.ok("emu.pci")["functions"]}
        card = [f for f in found.values() if (f["vendor"], f["device"]) == (0x1234, 0x1111)]
        tap.check(len(card) == 1 and card[0]["bars"][0]["size"] == 16 << 20, f"{found}")
        c.ok("emu.quit")
        check_end(emu)
    with Emu() as emu:
        c = Client(emu)
        for method, params in [("emu.screenshot", {}), *calls]:
            answer = c.call(method, **params)
            tap.check("no screen" in answer.get("error", {}).get("message", ""), f"{method}: {answer}")
        c.ok("emu.quit")
        check_end(emu)


def channel_socket(emu, name):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(os.path.join(emu.dir.name, name))
    sock.listen(1)
    return sock.detach()


def channels_come_and_go_while_it_runs():
    with Emu(config={"root_ports": 1}) as emu:
        c = Client(emu)
        tap.check(c.ok("emu.channels")["channels"] == [], "there are none")
        answers = [c.call_with(channel_socket(emu, name), "emu.channel_add", name=name, console=console)
                   for name, console in (("one", False), ("term", True))]
        tap.check(all("result" in a for a in answers), f"{answers}")
        tap.check("error" in c.call_with(channel_socket(emu, "again"), "emu.channel_add", name="one"), "a name twice")
        tap.check("descriptor" in c.call("emu.channel_add", name="three")["error"]["message"], "it takes a socket")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(os.path.join(emu.dir.name, "one"))
            client.settimeout(LIMIT)
            while not c.ok("emu.channels")["channels"][0]["connected"]:
                time.sleep(0.01)
            channels = c.ok("emu.channels")["channels"]
            tap.check(channels == [{"name": "one", "console": False, "open": False, "connected": True},
                                   {"name": "term", "console": True, "open": False, "connected": False}], f"{channels}")
            c.ok("emu.channel_resize", name="term", columns=80, rows=24)
            tap.check("error" in c.call("emu.channel_resize", name="one", columns=80, rows=24), "it is no terminal")
            c.ok("emu.channel_remove", name="one")
            tap.check(client.recv(1) == b"", "its client is let go of")
        tap.check("error" in c.call("emu.channel_remove", name="one"), "it is gone")
        tap.check([x["name"] for x in c.ok("emu.channels")["channels"]] == ["term"], "the other is there")
        c.ok("emu.quit")
        check_end(emu)


def balloon_is_told_and_asked():
    with Emu(config={"memory": 64 << 20, "balloon": {"memory": 48 << 20}}) as emu:
        c = Client(emu)
        tap.check(c.ok("emu.balloon") == {"memory": 64 << 20, "target": 48 << 20, "actual": 64 << 20, "driver": False,
                                          "given_back": 0, "reported": 0}, f"{c.ok('emu.balloon')}")
        tap.check(c.ok("emu.balloon", memory=32 << 20)["target"] == 32 << 20, "another size")
        tap.check("cannot have more" in c.call("emu.balloon", memory=65 << 20)["error"]["message"], "too much")
        tap.check(c.ok("emu.stats")["balloon"]["target"] == 32 << 20, "statistics")
        c.ok("emu.quit")
        check_end(emu)
    with Emu() as emu:
        tap.check("no balloon" in Client(emu).call("emu.balloon")["error"]["message"], "none")


def memory_devices_are_told_and_asked():
    with Emu(config={"memory": 64 << 20, "memory_devices": [{"size": 64 << 20, "requested": 8 << 20}, {"name": "b", "size": 8 << 20}]}) as emu:
        c = Client(emu)
        have = c.ok("emu.memory_devices")["devices"]
        tap.check([(d["name"], d["address"], d["size"], d["block"], d["requested"], d["plugged"]) for d in have] ==
                  [("memory0", "0xc0000000", 64 << 20, 2 << 20, 8 << 20, 0), ("b", "0x100000000", 8 << 20, 2 << 20, 0, 0)], f"{have}")
        tap.check(c.ok("emu.memory_devices", name="b", requested=4 << 20)["devices"][1]["requested"] == 4 << 20, "another size")
        tap.check("2 memory devices" in c.call("emu.memory_devices", requested=4 << 20)["error"]["message"], "which")
        tap.check("more than its size" in c.call("emu.memory_devices", name="b", requested=16 << 20)["error"]["message"], "too much")
        tap.check("no such" in c.call("emu.memory_devices", name="c", requested=0)["error"]["message"], "none of that name")
        c.ok("emu.quit")
        check_end(emu)
    with Emu() as emu:
        tap.check("no memory device" in Client(emu).call("emu.memory_devices")["error"]["message"], "none")


CASES = [
    memory_devices_are_told_and_asked,
    balloon_is_told_and_asked,
    emulator_says_who_it_is,
    pause_resume_and_reset_answer_and_notify_all_clients,
    guest_power_off_reset_and_failure_end_as_they_should,
    resets_and_power_offs_do_what_set_action_says,
    console_gives_backlog_to_several_readers,
    input_beyond_any_queue_arrives_whole,
    last_output_is_never_lost,
    slow_reader_is_dropped_and_never_holds_up_the_guest,
    statistics_page_is_published,
    quit_while_paused_and_sigterm_end_cleanly,
    hundred_control_clients_come_and_go,
    every_thread_is_confined,
    disks_come_as_descriptors_and_are_locked,
    files_are_taken_while_the_vm_runs_and_dropped_again,
    media_of_drives_come_and_go,
    devices_registers_and_memory_can_be_looked_at,
    memory_is_dumped_into_a_descriptor,
    screen_is_looked_at_and_typed_at,
    channels_come_and_go_while_it_runs,
    no_descriptor_is_left_over,
]

if __name__ == "__main__":
    sys.exit(tap.run_cases(CASES))
