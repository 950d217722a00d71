# SPDX-License-Identifier: Apache-2.0
"""The KVM engine beside QEMU's on the same bare PVH guest (tests/kvm/pvh.S), both on their machine microvm.

Rows: start of the process to the guest's first byte on the serial port; the same on machine q35 to the first word of Debian's SeaBIOS; accesses to a port and to device memory, rings of a
queue's bell, interrupts of a processor to itself and to another one that halts in a second; user CPU of the process for each of them; memory of the process beside the guest's
(proportional set size). Runs alternate. Rows are left out where /dev/kvm is missing.
"""

import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(HERE, "..", "kvm"))
import kvm_lib  # noqa: E402
import guest  # noqa: E402
from report import say  # noqa: E402

COUNTS = {"port": 1000000, "mmio": 1000000, "bell": 1000000, "ipis": 20000, "pair": 20000}  # as pvh.S has them
CPUS = {"pair": "2"}
PATIENCE = 120
QEMU = ["qemu-system-x86_64", "-accel", "kvm", "-M", "microvm,isa-serial=on,rtc=off,pit=off,pic=off", "-cpu", "host", "-m", "64M", "-nodefaults",
        "-no-user-config", "-nographic", "-serial", "stdio", "-global", "virtio-mmio.force-legacy=false", "-device", "virtio-rng-device"]
ROWS = (("port", "accesses to a port", True), ("mmio", "reads of device memory", True),
        ("bell", "rings of a queue's bell", True), ("ipis", "interrupts to itself", False),
        ("pair", "interrupts to another processor", False))  # the last: the process does something for each
SEABIOS = "/usr/share/seabios/bios-256k.bin"
RAM = 64 << 20


def user_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return int(file.read().rsplit(")", 1)[1].split()[11]) / os.sysconf("SC_CLK_TCK")


def beside_guest(pid):
    """MiB of the process' proportional set size without the mapping that is the guest's memory."""
    total, own = 0, True
    with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as file:
        for line in file:
            head = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) ", line)
            if head:
                own = "w" not in head[3] or int(head[2], 16) - int(head[1], 16) < RAM
            elif own and line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def command(who, kernel, word, folder):
    """With no kernel: SeaBIOS on machine q35."""
    if who == "qemu" and not kernel:
        return ["qemu-system-x86_64", "-accel", "kvm", "-M", "q35", "-cpu", "host", "-m", "64M", "-nodefaults", "-no-user-config", "-nographic", "-serial", "stdio",
                "-bios", SEABIOS]
    if who == "qemu":
        return [*QEMU, "-smp", CPUS.get(word, "1"), "-kernel", kernel, "-append", word]
    path = os.path.join(folder, "config.json")
    config = kvm_lib.config(kernel, word, cpus=int(CPUS.get(word, "1"))) if kernel else \
        {"name": "pc", "arch": "x86_64", "machine": "q35", "engine": "kvm", "memory": RAM, "rng": False, "firmware": SEABIOS}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    return [guest.emulator_path("vmd"), "--config", path, "--sandbox", "on"]


def one(words, begin_with, end_with, first_of=b"pvh", look=None):
    """Seconds and user CPU seconds from one text on the guest's console to the other, seconds to the console's first guest text, and what look(pid) saw at the end."""
    began = time.monotonic()
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        text, first, at = b"", None, None
        try:
            while end_with not in text:
                ready = select.select([process.stdout], [], [], max(0, began + PATIENCE - time.monotonic()))[0]
                piece = os.read(process.stdout.fileno(), 65536) if ready else b""
                now = time.monotonic()
                if not piece or now - began > PATIENCE:
                    process.kill()
                    raise guest.GuestError(repr(text[-300:] + process.stderr.read()[-300:]))
                text += piece
                first = first or (now if first_of in text else None)
                if at is None and begin_with in text:
                    at = (now, user_seconds(process.pid))
            return now - at[0], user_seconds(process.pid) - at[1], first - began, look(process.pid) if look else None
        finally:
            process.kill()


def row(name, title, unit, values, more_is_better):
    best = max if more_is_better else min
    ours, theirs = best(values["vmd"]), best(values["qemu"])
    ratio = ours / theirs if more_is_better else theirs / ours
    spread = max((max(v) - min(v)) / min(v) for v in values.values())
    return {"name": name, "title": title, "unit": unit, "ours": round(ours, 4), "peer": "qemu", "peer_value": round(theirs, 4), "ratio": round(ratio, 3),
            "cpu_ratio": round(ratio, 3), "spread": round(spread, 3), "group": "kvm"}


def pairs():
    return {"vmd": [], "qemu": []}


class Run:
    """The values of all runs, by row."""

    def __init__(self, kernel, folder, wanted):
        self.kernel, self.folder = kernel, folder
        self.kinds = [kind for kind in ROWS if not wanted or wanted & {kind[0], kind[0] + "-cpu"}]
        self.rate, self.cpu = ({kind: pairs() for kind, _title, _exits in self.kinds} for _ in range(2))
        self.start, self.firmware, self.memory = pairs(), pairs(), pairs()
        self.wants = lambda name: not wanted or name in wanted

    def kind(self, kind, who):
        seconds, user, first, _ = one(command(who, self.kernel, kind, self.folder), b"ready\n", b"bye")
        self.rate[kind][who].append(COUNTS[kind] / seconds)
        self.cpu[kind][who].append(max(user, 0.005) / COUNTS[kind] * 1e6)
        self.start[who].append(first * 1000)
        say(f"{kind} {who}: first byte after {first * 1000:.1f} ms, {COUNTS[kind] / seconds:.0f}/s, {user / COUNTS[kind] * 1e6:.2f} us user CPU each")

    def whole(self, who):
        """Start and memory of a guest that waits, start of the firmware."""
        _, _, first, mib = one(command(who, self.kernel, "echo", self.folder), b"ready\n", b"ready\n", look=beside_guest)
        self.start[who].append(first * 1000)
        self.memory[who].append(mib)
        said = f"{who}: {mib:.1f} MiB beside the guest's memory"
        if self.wants("firmware") and os.path.exists(SEABIOS):
            word = b"SeaBIOS (version"
            first = one(command(who, None, "", self.folder), word, word, first_of=word)[2]
            self.firmware[who].append(first * 1000)
            said += f", SeaBIOS' first word after {first * 1000:.1f} ms"
        say(said)

    def table(self):
        whole = [("start", "start of the process to the guest's first byte", "ms", self.start), ("firmware", "start of the process to SeaBIOS' first word", "ms", self.firmware),
                 ("memory", "memory beside the guest's", "MiB", self.memory)]
        out = [row(name, title, unit, values, False) for name, title, unit, values in whole if values["vmd"] and self.wants(name)]
        for kind, title, exits in self.kinds:
            out.append(row(kind, title, "1/s", self.rate[kind], True))
            if exits:
                out.append(row(kind + "-cpu", title + ": user CPU each", "us", self.cpu[kind], False))
        return out


def bench(args):
    why = kvm_lib.missing()
    if why:
        return [], [("vmd", why)]
    with tempfile.TemporaryDirectory(prefix="vmd-bench") as folder:
        run = Run(kvm_lib.build_guest(folder), folder, set(args.rows))
        for index in range(args.runs):
            say(f"run {index + 1} of {args.runs}")
            for who in ("vmd", "qemu"):
                try:
                    if any(run.wants(name) for name in ("start", "firmware", "memory")):
                        run.whole(who)
                    for kind, _title, _exits in run.kinds:
                        run.kind(kind, who)
                except (OSError, guest.GuestError) as problem:
                    return [], [(who, str(problem))]
    return run.table(), []
