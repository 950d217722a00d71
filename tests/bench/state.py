# SPDX-License-Identifier: Apache-2.0
"""Saving and restoring a machine against QEMU's savevm and loadvm, in turn in the same run: the same bare guest of 1 GiB, of which it
has filled 256 MiB with random numbers, and goes on writing.

save: seconds until the state is whole in its file, of emu.save with the guest standing still, and of savevm into a qcow2
image. resume: seconds from the command until the guest runs again, of emu.load, whose memory comes behind, and of loadvm.
fork-50: seconds until 50 copies of that VM, which waits by then, run under vmd; fork-memory: MiB that are one copy's alone, the worst of them.
idle-memory, idle-memory-kvm, daemon-memory: what VMs and vmd take of the host's memory (tests/e2e/daemon_overhead.py).
live-pause, lazy-restore and the forks have limits in place of a peer: how long a guest stands still that is saved while it runs, and the
same as resume."""

import base64
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import daemon_lib as lib  # noqa: E402
import daemon_overhead as overhead  # noqa: E402
import guest
import tap
from report import say

HERE = os.path.dirname(os.path.abspath(__file__))
MIB = 1 << 20
MEMORY, FILLED = 1024, 256
KEY = base64.b64encode(bytes(range(32))).decode()
PAUSE_LIMIT, RESTORE_LIMIT, FORK_LIMIT, FORK_MIB_LIMIT = 0.020, 0.030, 2.0, 10.0
MEMORY_ROWS = ("fork-memory", "idle-memory", "idle-memory-kvm", "daemon-memory")
COPIES = 50
UUID = "5fe4ad6b-9f31-4f5b-9b6c-0d7d9a2b4c11"


def word(*fields):
    value = 0
    for bits, shift in fields:
        value |= bits << shift
    return struct.pack("<I", value & 0xffffffff)


def lui(rd, imm):
    return word((imm, 12), (rd, 7), (0x37, 0))


def addi(rd, rs, imm):
    return word((imm & 0xfff, 20), (rs, 15), (rd, 7), (0x13, 0))


def op(rd, a, b, funct7=0):
    return word((funct7, 25), (b, 20), (a, 15), (rd, 7), (0x33, 0))


def slli(rd, rs, by):
    return word((by, 20), (rs, 15), (1, 12), (rd, 7), (0x13, 0))


def back(funct3, a, b, words):
    off = -4 * words & 0x1fff
    return word((off >> 12, 31), (off >> 5 & 0x3f, 25), (b, 20), (a, 15), (funct3, 12), (off >> 1 & 0xf, 8), (off >> 11 & 1, 7), (0x63, 0))


def payload():
    """Fills [16 MiB, 16 + 256 MiB) of memory with numbers of a linear congruence, says '!' and adds to a word for ever (RV64)."""
    return (addi(5, 0, 1) + slli(5, 5, 31) + lui(28, 16 << 8) + op(5, 5, 28) +   # t0: begin
            lui(29, FILLED << 8) + op(6, 5, 29) +                                 # t1: end
            lui(30, 0x5851f) + addi(30, 30, 0x42d) + slli(30, 30, 20) + addi(30, 30, 0x57d) +  # t5: multiplier
            addi(7, 0, 1) +
            op(7, 7, 30, 1) + addi(7, 7, 0x2f5) +                                 # t2 = t2 * t5 + c
            word((7, 20), (5, 15), (3, 12), (0x23, 0)) + addi(5, 5, 8) + back(6, 5, 6, 4) +
            lui(31, 0x10000) + addi(28, 0, ord("!")) + word((28, 20), (31, 15), (0x23, 0)) +
            addi(7, 7, 1) + word((0x7f, 25), (7, 20), (6, 15), (3, 12), (0x18, 7), (0x23, 0)) +  # sd t2, -8(t1)
            back(0, 0, 0, 2))


def cpu_of(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Lines:
    """A socket of JSON lines."""

    def __init__(self, path, process):
        end = time.monotonic() + 30
        while True:
            self.sock = socket.socket(socket.AF_UNIX)
            try:
                self.sock.connect(path)
                break
            except OSError:
                self.sock.close()
                if process.poll() is not None or time.monotonic() > end:
                    raise guest.GuestError(f"{process.args[0]} does not run") from None
                time.sleep(0.01)
        self.sock.settimeout(120)
        self.file = self.sock.makefile("r", encoding="utf-8")

    def ask(self, message, fd=None):
        """The answer to a request: QMP's return or JSON-RPC's result."""
        socket.send_fds(self.sock, [json.dumps(message).encode() + b"\n"], [] if fd is None else [fd])
        while True:
            answer = json.loads(self.file.readline())
            if "return" in answer or "result" in answer:
                return answer.get("return", answer.get("result"))
            if "error" in answer:
                raise guest.GuestError(str(answer["error"]))


def wait_for_mark(path, process):
    end = time.monotonic() + 120
    while not os.path.exists(path) or b"!" not in open(path, "rb").read():  # pylint: disable=consider-using-with
        if process.poll() is not None or time.monotonic() > end:
            raise guest.GuestError(f"{process.args[0]}: the guest does not get ready")
        time.sleep(0.02)


class Side:
    """One emulator process; ended when the block is left."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def timed(self, what):
        cpu, start = cpu_of(self.process.pid), time.monotonic()
        answer = what()
        return time.monotonic() - start, cpu_of(self.process.pid) - cpu, answer


class Ours(Side):
    def __init__(self, folder, firmware, paused):
        name = os.path.join(folder, "restored" if paused else "saved")
        config = {"name": "bench", "uuid": UUID, "memory": MEMORY * MIB, "firmware": firmware}
        fds = {"--config-fd": os.memfd_create("config"), "--console-log-fd": os.open(name + ".console", os.O_WRONLY | os.O_CREAT)}
        os.pwrite(fds["--config-fd"], json.dumps(config).encode(), 0)
        bound = []
        for option, path in (("--control-fd", name + ".control"), ("--console-fd", name + ".socket")):
            if os.path.exists(path):
                os.unlink(path)
            bound.append(socket.socket(socket.AF_UNIX))
            bound[-1].bind(path)
            fds[option] = bound[-1].fileno()
        file = os.open(firmware, os.O_RDONLY)
        words = [os.path.join(os.environ["VMD_BUILDDIR"], "vmd-emu"), "--sandbox", "on", "--file", f"{firmware}={file}"]
        for option, fd in fds.items():
            words += [option, str(fd)]
        self.process = subprocess.Popen(words + ["--paused"] * paused, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,  # pylint: disable=consider-using-with
                                        pass_fds=[*fds.values(), file], env={**os.environ, "VMD_COOKIE": "0" * 64})
        os.close(file)
        os.close(fds["--config-fd"])
        os.close(fds["--console-log-fd"])
        for one in bound:
            one.close()
        self.lines = Lines(name + ".control", self.process)
        if not paused:
            wait_for_mark(name + ".console", self.process)

    def call(self, method, path, flags, **params):
        fd = os.open(path, flags, 0o600)
        try:
            return self.timed(lambda: self.lines.ask({"jsonrpc": "2.0", "id": 1, "method": method,
                                                      "params": {"key": KEY, **params}}, fd))
        finally:
            os.close(fd)


class Qemu(Side):
    def __init__(self, folder, firmware, program):
        name = os.path.join(folder, "qemu")
        for suffix in (".console", ".qmp", ".qcow2"):
            if os.path.exists(name + suffix):
                os.unlink(name + suffix)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", name + ".qcow2", "1M"], check=True)
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            [program, "-M", "virt", "-m", str(MEMORY), "-bios", firmware, "-display", "none", "-serial", f"file:{name}.console",
             "-qmp", f"unix:{name}.qmp,server=on,wait=off", "-drive", f"if=none,id=d,file={name}.qcow2,format=qcow2",
             "-device", "virtio-blk-device,drive=d"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.lines = Lines(name + ".qmp", self.process)
        self.lines.ask({"execute": "qmp_capabilities"})
        wait_for_mark(name + ".console", self.process)

    def monitor(self, line):
        said = self.timed(lambda: self.lines.ask({"execute": "human-monitor-command", "arguments": {"command-line": line}}))
        if said[2]:
            raise guest.GuestError(f"{line}: {said[2]}")
        return said


def ours(folder, firmware, samples):
    state = os.path.join(folder, "state")
    with Ours(folder, firmware, False) as side:
        taken = side.call("emu.save", state, os.O_RDWR | os.O_CREAT | os.O_TRUNC, live=True)
        if not taken[2].get("live"):
            raise guest.Unavailable(f"a guest saved while it runs: {taken[2].get('why_not_live')}")
        samples["live-pause"].append((taken[2]["pause_us"] / 1e6, taken[1]))
        samples["save"].append(side.call("emu.save", state, os.O_RDWR | os.O_CREAT | os.O_TRUNC)[:2])
    with Ours(folder, firmware, True) as side:
        taken = side.call("emu.load", state, os.O_RDONLY, lazy=True, resume=True)
        samples["resume"].append(taken[:2])
        samples["lazy-restore"].append(taken[:2])


def peer(folder, firmware, program, samples):
    with Qemu(folder, firmware, program) as side:
        samples["save"].append(side.monitor("savevm s")[:2])
        samples["resume"].append(side.monitor("loadvm s")[:2])


def spread(values):
    return round((max(values) - min(values)) / min(values), 3)


def entry(name, title, mine, theirs, limit, version):
    best = lambda taken, i: max(min(one[i] for one in taken), 1e-6)
    out = {"name": name, "title": title, "unit": "MiB" if name in MEMORY_ROWS else "s", "group": "state", "ours": round(best(mine, 0), 4),
           "spread": spread([one[0] for one in mine])}
    if limit:
        return {**out, "limit": limit, "ratio": round(limit / best(mine, 0), 3)}
    return {**out, "peer": "QEMU " + version, "peer_value": round(best(theirs, 0), 4),
            "ratio": round(best(theirs, 0) / best(mine, 0), 3),
            "cpu_ratio": round(max(best(theirs, 1), 0.01) / max(best(mine, 1), 0.01), 3),
            "spread": max(out["spread"], spread([one[0] for one in theirs]))}


def forks(samples):
    """A guest that has filled its memory and waits, under vmd, and 50 copies of it."""
    idle = payload()[:-12] + word((0x10500073, 0)) + back(0, 0, 0, 1)  # wfi, again
    with lib.Daemon() as daemon, daemon.client(timeout=300) as client:
        firmware = os.path.join(daemon.dir, "guest.bin")
        with open(firmware, "wb") as file:
            file.write(idle)
        client.call("vm.define", config={**daemon.config("a", memory=MEMORY * MIB), "firmware": firmware})
        client.call("vm.start", vm="a")
        log = os.path.join(daemon.dir, "lib", "vm", "1", "console.log")
        end = time.monotonic() + 120
        while not os.path.exists(log) or b"!" not in open(log, "rb").read():  # pylint: disable=consider-using-with
            if time.monotonic() > end:
                raise guest.GuestError("the guest does not get ready")
            time.sleep(0.02)
        cpu, start = cpu_of(daemon.process.pid), time.monotonic()
        job = client.call("job.wait", job=client.call("vm.fork", vm="a", count=COPIES)["job"], timeout_ms=120000)
        taken = time.monotonic() - start
        if job["state"] != "done":
            raise guest.GuestError(str(job))
        samples["fork-50"].append((taken, cpu_of(daemon.process.pid) - cpu))
        time.sleep(1)
        worst = 0
        for name in job["result"]["copies"]:
            with open(f"/proc/{client.call('vm.get', vm=name)['pid']}/smaps_rollup", encoding="ascii") as file:
                worst = max(worst, sum(int(line.split()[1]) for line in file if line.startswith("Private_")))
        samples["fork-memory"].append((worst / 1024, 0))


def sizes(samples, wanted):
    """What VMs and vmd take of the host's memory; no row where the host has no KVM."""
    for row, engine in (("idle-memory", "tcg"), ("idle-memory-kvm", "kvm")):
        if not wanted or row in wanted:
            try:
                samples[row].append((overhead.idle(engine)["else"], 0))
            except tap.Skip as missing:
                say(f"{row}: {missing} is missing")
    if not wanted or "daemon-memory" in wanted:
        samples["daemon-memory"].append((overhead.crowd(100, True)["daemon"], 0))


def bench(args):
    rows = (("save", "save 1 GiB, 256 MiB of it random", None), ("resume", "restored until it runs", None),
            ("live-pause", "pause of a live save, 1 GiB", PAUSE_LIMIT), ("lazy-restore", "lazy restore, 1 GiB", RESTORE_LIMIT),
            ("fork-50", "fork of 50 copies, 1 GiB, 256 MiB of it random", FORK_LIMIT),
            ("fork-memory", "private memory of an idle copy, MiB", FORK_MIB_LIMIT),
            ("idle-memory", "an idle Linux over its memory and cache, PSS, one of four", overhead.LIMITS["tcg"]),
            ("idle-memory-kvm", "the same of a bare guest under KVM", overhead.LIMITS["kvm"]),
            ("daemon-memory", "vmd with 100 VMs, PSS", overhead.DAEMON))
    wanted = [row for row in rows if not args.rows or row[0] in args.rows]
    mine, theirs, failures = {row[0]: [] for row in rows}, {row[0]: [] for row in rows}, []
    program = guest.emulator_path("qemu")
    with tempfile.TemporaryDirectory(prefix="vmd-bench-state-") as folder:
        firmware = os.path.join(folder, "guest.bin")
        with open(firmware, "wb") as file:
            file.write(payload())
        for run in range(args.runs):
            ours(folder, firmware, mine)
            if not args.rows or {"fork-50", "fork-memory"} & set(args.rows):
                forks(mine)
            sizes(mine, args.rows)
            if "qemu" not in args.skip:
                peer(folder, firmware, program, theirs)
            say(f"run {run + 1} of {args.runs}: " + ", ".join(f"{name} {taken[-1][0]:.3f} s" for name, taken in mine.items() if taken))
    version = guest.emulator_version("qemu")
    table = [entry(name, title, mine[name], theirs[name], limit, version) for name, title, limit in wanted
             if (limit or theirs[name]) and mine[name]]
    return table, failures


if __name__ == "__main__":
    sys.exit("tests/bench/run state")
