# SPDX-License-Identifier: Apache-2.0
"""Measures rows of rows.py inside a riscv64 Linux guest.

Rows that need the same machine share a boot. The guest's own clock gives the seconds of a row, so
it is checked against the host's: a guest whose clock runs slow would look fast. What a row prints
is checked too. Progress shows guest seconds and, in brackets, those of the host's CPUs.
"""

import os
import re
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "guests"))
import build  # noqa: E402
import guest  # noqa: E402
import rows as tables  # noqa: E402
from report import say  # noqa: E402

ROW_TIMEOUT = 600.0
MEMORY = {"": 512 << 20, "tools": 512 << 20, "apps": 1 << 30}  # by what the archive holds


class Boot:
    """Rows that share a machine, and the archive that holds their programs."""

    def __init__(self, rows, files, short, tools, root, folder):
        self.rows = rows
        self.short = short
        self.cpus = rows[0].cpus
        self.cpu = rows[0].cpu
        self.memory = MEMORY[tools]
        self.kernel = files["kernel"]
        if rows[0].prog == "init":
            self.initrd = files["initrd"]
            steps = ["bench:" + row.name for row in rows if row.name != "boot"]
        else:
            self.initrd = build.initrd(files["initrd"], rows, short, tools, root, folder)
            steps = ["row:" + "+".join(row.name for row in rows)]
        self.steps = ",".join(steps) or "poweroff"

    def config(self, emulator, cpus):
        config = {"arch": "riscv64", "cpus": max(cpus, self.cpus), "memory": self.memory,
                  "kernel": self.kernel, "initrd": self.initrd,
                  "append": "console=ttyS0 quiet vmd.run=" + self.steps}
        if self.cpu:
            config["cpu"] = tables.CPUS[self.cpu][emulator]
        return config

    def runs_on(self, emulator):
        return not self.cpu or tables.CPUS[self.cpu].get(emulator) is not None


def take_row(vm, row, short, results, failures):
    """Waits for one row's lines; what is wrong with it goes to failures and not further."""
    match = vm.expect(rf"^BENCH(-BEGIN|-FAIL) {row.name}( [^\r]*)?\r", ROW_TIMEOUT)
    if match.group(1) == b"-FAIL":
        failures[row.name] = (match.group(2) or b"").decode().strip()
        return
    cpu0, wall0 = vm.cpu_seconds(), time.monotonic()
    match = vm.expect(rf"^BENCH(-FAIL)? {row.name} (\S+)([^\r]*)\r", ROW_TIMEOUT)
    wall = time.monotonic() - wall0
    cpu = vm.cpu_seconds() - cpu0
    if match.group(1):
        failures[row.name] = match.group(2).decode() + match.group(3).decode()
        return
    seconds, printed = float(match.group(2)), match.group(3).decode().strip()
    want = row.check_want if short else row.want
    if want not in (None, printed):
        failures[row.name] = f"printed {printed!r}, not {want}"
    elif not short and abs(wall - seconds) > 0.15 + 0.05 * wall:  # a test does not judge by the clock
        failures[row.name] = f"the guest's clock says {seconds:.2f} s, the host's {wall:.2f} s"
    else:
        results[row.name] = {"seconds": max(seconds, 0.0001), "cpu": max(cpu, 0.01),
                             "printed": printed}


def run_boot(boot, emulator, cpus):
    """Returns ({row: {"seconds", "cpu", "printed"}}, {row: what was wrong})."""
    results, failures = {}, {}
    try:
        with guest.Guest(boot.config(emulator, cpus), emulator) as vm:
            vm.expect(r"^BOOT-OK\r", ROW_TIMEOUT)
            if boot.rows[0].name == "boot":
                seconds = vm.cpu_seconds()
                results["boot"] = {"seconds": seconds, "cpu": seconds, "printed": ""}
            for row in boot.rows:
                if row.name != "boot":
                    take_row(vm, row, boot.short, results, failures)
            status = vm.wait(60.0)
            late = re.findall(r"^BENCH-FAIL (\S+) ([^\r]*)", vm.text(), re.MULTILINE)
            failures.update({name: why for name, why in late if name in results})
            if status != 0:
                failures[boot.rows[-1].name] = f"exit status {status} after power-off"
    except (guest.GuestError, OSError) as problem:
        failures[boot.rows[min(len(results) + len(failures), len(boot.rows) - 1)].name] = \
            str(problem)
    return results, failures


def boots(rows, short, folder):
    """Groups rows by the machine they need, in their order."""
    files = guest.fetched("riscv64")
    groups = {}
    for row in rows:
        groups.setdefault((row.prog == "init", row.cpus, row.cpu, row.tools == "apps"), []).append(row)
    made = []
    for number, group in enumerate(groups.values()):
        place = os.path.join(folder, str(number))
        os.mkdir(place)
        tools = max(row.tools for row in group)
        root = guest.fetched("riscv64-" + tools)[tools] if tools else None
        made.append(Boot(group, files, short, tools, root, place))
    return made


def describe(results):
    return ", ".join(f"{name} {value['seconds']:.2f} ({value['cpu']:.2f})"
                     for name, value in results.items())


def agree(row, samples, failures):
    """Rows whose checksum no table holds: everyone must have printed the same."""
    printed = {sample["printed"] for emulator in samples.values() for sample in emulator}
    if len(printed) > 1:
        failures.append(("all", f"{row.name}: checksums differ: {sorted(printed)}"))


def measure(rows, emulators, runs, cpus=1, short=False, between=None):
    """Samples of every row: ({row: {emulator: [sample]}}, [(emulator, problem)])."""
    samples = {row.name: {name: [] for name in emulators} for row in rows}
    failures = []
    with tempfile.TemporaryDirectory(prefix="vmd-bench") as folder:
        groups = boots(rows, short, folder)
        for index in range(runs):
            for boot in groups:
                for emulator in filter(boot.runs_on, emulators):
                    results, wrong = run_boot(boot, emulator, cpus)
                    for name, sample in results.items():
                        samples[name][emulator].append(sample)
                    failures += [(emulator, f"{name}: {text}") for name, text in wrong.items()]
                    for name, text in wrong.items():
                        say(f"{emulator}: {name}: {text}")
                    say(f"run {index + 1} of {runs}, {emulator}: {describe(results)}")
            if between:
                between()
    for row in rows:
        agree(row, samples[row.name], failures)
    return samples, failures


def spread(values):
    return (max(values) - min(values)) / min(values) if min(values) > 0 else 0.0


def compare(row, samples, names, peers):
    """One row of the result file, or None where ours has no sample."""
    ours = [sample["seconds"] for sample in samples.get("vmd", [])]
    if not ours:
        return None
    cpu = min(sample["cpu"] for sample in samples["vmd"])
    entry = {"name": row.name, "title": row.title, "unit": row.unit,
             "ours": round(min(ours), 4), "ours_host_cpu": round(cpu, 3), "peers": {}}
    best = {}
    for peer in peers:
        values = [sample["seconds"] for sample in samples.get(peer, [])]
        if values:
            best[peer] = values
            entry["peers"][names[peer]] = {
                "seconds": round(min(values), 4),
                "host_cpu": round(min(sample["cpu"] for sample in samples[peer]), 3)}
    if best:
        peer = min(best, key=lambda name: min(best[name]))
        peer_cpu = min(min(sample["cpu"] for sample in samples[name]) for name in best)
        entry.update(peer=names[peer], peer_value=round(min(best[peer]), 4),
                     peer_host_cpu=round(peer_cpu, 3),
                     ratio=round(min(best[peer]) / min(ours), 3),
                     cpu_ratio=round(peer_cpu / cpu, 3),
                     spread=round(max(spread(ours), spread(best[peer])), 3))
    return entry


class Scaling:
    """What two native processes gain over one, measured between the runs of the guests."""

    def __init__(self, row):
        self.command = [build.native(row.prog), *row.args.split()]
        self.times = {1: [], 2: []}

    def __call__(self):
        for count in self.times:
            begin = time.monotonic()
            running = [subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
                       for _ in range(count)]
            for process in running:
                process.wait()
            self.times[count].append(time.monotonic() - begin)

    def row(self, samples):
        """The guest's gain over the native one; at least 0.9 of it is wanted."""
        native = 2 * min(self.times[1]) / min(self.times[2])
        one = [sample["seconds"] for sample in samples["parallel1"]["vmd"]]
        two = [sample["seconds"] for sample in samples["parallel2"]["vmd"]]
        if not one or not two:
            return []
        gain = 2 * min(one) / min(two)
        worst = max(map(spread, (one, two, self.times[1], self.times[2])))
        return [{"name": "scaling", "title": f"2 vCPUs over 1 ({gain:.2f}), native {native:.2f}",
                 "unit": "ratio", "ours": round(gain / native, 3), "limit": 0.9,
                 "ratio": round(gain / native / 0.9, 3), "spread": round(worst, 3)}]


def bench(args):
    """A set of rows.py; returns ({table, means}, failures)."""
    groups = tables.SETS[args.set]
    rows = [row for group in groups.values() for row in group
            if not args.rows or row.name in args.rows]
    emulators = [name for name in ["vmd", *args.peers] if name not in args.skip]
    names = {name: ("vmd" if name == "vmd" else "QEMU " + guest.emulator_version(name))
             for name in emulators}
    scaling = None
    if {"parallel1", "parallel2"} <= {row.name for row in rows}:
        scaling = Scaling(next(row for row in rows if row.name == "parallel1"))
    samples, failures = measure(rows, emulators, args.runs, args.cpus, between=scaling)
    table = []
    for row in rows:
        entry = compare(row, samples[row.name], names,
                        [name for name in args.peers if name in emulators])
        if entry:
            entry["group"] = next(name for name, group in groups.items() if row in group)
            table.append(entry)
    if scaling and "vmd" in emulators:
        table += scaling.row(samples)
    return table, failures
