# SPDX-License-Identifier: Apache-2.0
"""The KVM engine beside QEMU's on the same bare PVH guest (tests/kvm/pvh.S), both on their machine microvm.

Rows: start of the process to the guest's first byte on the serial port; accesses to a port and to device memory, rings of a queue's bell, and interrupts of a
processor to itself in a second; user CPU of the process for each of them. Runs alternate. Rows are left out where /dev/kvm is missing.
"""

import json
import os
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

COUNTS = {"port": 200000, "mmio": 200000, "bell": 200000, "ipis": 20000}  # as pvh.S has them
PATIENCE = 120
QEMU = ["qemu-system-x86_64", "-accel", "kvm", "-M", "microvm,isa-serial=on,rtc=off,pit=off,pic=off", "-cpu", "host", "-m", "64M", "-nodefaults",
        "-no-user-config", "-nographic", "-serial", "stdio", "-global", "virtio-mmio.force-legacy=false", "-device", "virtio-rng-device"]
ROWS = (("port", "accesses to a port", True), ("mmio", "reads of device memory", True),
        ("bell", "rings of a queue's bell", True), ("ipis", "interrupts to itself", True))


def user_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return int(file.read().rsplit(")", 1)[1].split()[11]) / os.sysconf("SC_CLK_TCK")


def command(who, kernel, word, folder):
    if who == "qemu":
        return [*QEMU, "-kernel", kernel, "-append", word]
    path = os.path.join(folder, "config.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(kvm_lib.config(kernel, word), file)
    return [guest.emulator_path("vmd"), "--config", path, "--sandbox", "on"]


def one(words, begin_with, end_with):
    """Seconds and user CPU seconds from one text on the guest's console to the other, and seconds to the console's first guest byte."""
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
                first = first or (now if b"pvh" in text else None)
                if at is None and begin_with in text:
                    at = (now, user_seconds(process.pid))
            return now - at[0], user_seconds(process.pid) - at[1], first - began
        finally:
            process.kill()


def row(name, title, unit, values, more_is_better):
    best = max if more_is_better else min
    ours, theirs = best(values["vmd"]), best(values["qemu"])
    ratio = ours / theirs if more_is_better else theirs / ours
    spread = max((max(v) - min(v)) / min(v) for v in values.values())
    return {"name": name, "title": title, "unit": unit, "ours": round(ours, 4), "peer": "qemu", "peer_value": round(theirs, 4), "ratio": round(ratio, 3),
            "cpu_ratio": round(ratio, 3), "spread": round(spread, 3), "group": "kvm"}


def bench(args):
    why = kvm_lib.missing()
    if why:
        return [], [("vmd", why)]
    rate, cpu, start = ({kind: {"vmd": [], "qemu": []} for kind, _title, _more in ROWS} for _ in range(3))
    with tempfile.TemporaryDirectory(prefix="vmd-bench") as folder:
        kernel = kvm_lib.build_guest(folder)
        for index in range(args.runs):
            for kind, _title, _more in ROWS:
                for who in ("vmd", "qemu"):
                    try:
                        seconds, user, first = one(command(who, kernel, kind, folder), b"ready\n", b"bye")
                    except (OSError, guest.GuestError) as problem:
                        return [], [(who, f"{kind}: {problem}")]
                    rate[kind][who].append(COUNTS[kind] / seconds)
                    cpu[kind][who].append(max(user, 0.005) / COUNTS[kind] * 1e6)
                    start[kind][who].append(first * 1000)
                    say(f"run {index + 1} of {args.runs}, {kind} {who}: first byte after {first * 1000:.1f} ms, {COUNTS[kind] / seconds:.0f}/s, "
                        f"{user / COUNTS[kind] * 1e6:.2f} us user CPU each")
    both = {who: [value for kind in start for value in start[kind][who]] for who in ("vmd", "qemu")}
    table = [row("start", "start of the process to the guest's first byte", "ms", both, False)]
    for kind, title, more in ROWS:
        table.append(row(kind, title, "1/s", rate[kind], more))
        table.append(row(kind + "-cpu", title + ": user CPU each", "us", cpu[kind], False))
    return table, []
