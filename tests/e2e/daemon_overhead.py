#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a VM costs beside its guest's memory (R10): proportional set size of an idle guest's emulator, by smaps, and a crowd of idle copies of
it, on a host that must not run out of memory; the daemon's own. The limits are of memory that is resident when the guest has booted and
waits: the engine's cache has a limit of its own (`tcg.cache_size`) and is told apart: the code, and the tables that count with it, which
are anonymous and begin at a multiple of 2 MiB, as nothing else does.

    daemon_overhead.py --count N           so many copies of Linux; ends before the host has less than 6 GiB left, and says so. Each takes
                                           0.2 to 0.3% of a processor, for its own timers: 300 are enough for two processors
    daemon_overhead.py --count N --bare    of a guest that sleeps for ever"""

import os
import re
import socket
import struct
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests", "../kvm"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import guest  # noqa: E402
import kvm_lib  # noqa: E402
import tap  # noqa: E402

MIB = 1 << 20
GIB = 1 << 30
LIMITS = {"tcg": 6.0, "kvm": 4.0}  # MiB
DAEMON = 64.0
FLOOR = 6 * GIB
COPIES = 100  # a tenth
BATCH = 50
PATIENCE = 600.0
SLEEPER = (0x10000fb7, 0x02100e13, 0x01cf8023, 0x10500073, 0xffdff06f)  # lui t6; li t3, '!'; sb t3, 0(t6); wfi; j -4


def available():
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable:"))


def pss(pid):
    """MiB by kind: the guest's memory, the cache, all else."""
    kinds = {"guest": 0, "cache": 0, "else": 0}
    kind = "else"
    with open(f"/proc/{pid}/smaps", encoding="ascii") as file:
        for line in file:
            head = re.match(r"([0-9a-f]+)-[0-9a-f]+ (\S+) \S+ \S+ (\d+)\s*(.*)$", line)
            if head:
                at, name = int(head[1], 16), head[4]
                table = not name and head[3] == "0" and head[2] == "rw-p" and at % (2 * MIB) == 0
                kind = "guest" if re.match(r"/memfd:vmd-(ram|fork|mem)", name) else "cache" if table or "vmd-code" in name else "else"
            elif line.startswith("Pss:"):
                kinds[kind] += int(line.split()[1]) / 1024
    return kinds


def rollup(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("Pss:"))


def booted(daemon, client, engine, name="a", memory=256 * MIB):
    """A guest that waits for what is typed: Linux, or a bare one under KVM; its emulator's pid."""
    if engine == "kvm":  # a bare guest, which waits for a byte
        if kvm_lib.missing():
            raise tap.Skip(kvm_lib.missing())
        config, ready = kvm_lib.config(kvm_lib.build_guest(daemon.dir), "echo",
                                       disks=[{"file": kvm_lib.make_disk(daemon.dir, name), "format": "raw"}]), b"ready\n"
    else:
        files, ready = guest.fetched("riscv64"), b"guest# "
        config = {"memory": memory, "kernel": files["kernel"], "initrd": files["initrd"], "append": "console=ttyS0 vmd.run=shell"}
    client.call("vm.define", config={**config, "name": name})
    client.call("vm.start", vm=name)
    with socket.socket(socket.AF_UNIX) as console:
        console.settimeout(PATIENCE)
        console.connect(client.call("vm.console", vm=name)["path"])
        text = b""
        while ready not in text:
            piece = console.recv(65536)
            tap.check(piece, f"it ended: {text[-300:]!r}")
            text += piece
    time.sleep(2)  # its last programs end
    return client.call("vm.get", vm=name)["pid"]


def idle(engine):
    """MiB by kind of an idle guest: on a host that has no other, and on one that has three more. What files programs and libraries
    are read from is shared by then; how much of them is mapped is the kernel's guess (fault-around), and so the first differs by 1 MiB."""
    with lib.Daemon() as daemon, daemon.client(PATIENCE) as client:
        pid = booted(daemon, client, engine)
        alone = pss(pid)
        for name in "bcd":
            booted(daemon, client, engine, name)
        kinds = pss(pid)
        for how, seen in (("alone", alone), ("of four", kinds)):
            print(f"# {engine}, {how}: " + ", ".join(f"{kind} {mib:.1f} MiB" for kind, mib in seen.items()))
        return kinds


def an_idle_guest_costs_little(engine="tcg"):
    if lib.sanitized():
        raise tap.Skip("a build without sanitizers")
    kinds = idle(engine)
    tap.check(kinds["else"] <= LIMITS[engine], f"{kinds}")


def an_idle_guest_under_kvm_costs_less():
    an_idle_guest_costs_little("kvm")


def asleep(daemon, client):
    """A guest that says '!' and waits for an interrupt."""
    path = os.path.join(daemon.dir, "sleeper.bin")
    with open(path, "wb") as file:
        file.write(struct.pack("<5I", *SLEEPER))
    client.call("vm.define", config={**daemon.config("a", memory=256 * MIB), "firmware": path})
    client.call("vm.start", vm="a")
    console = daemon.console("a")
    while b"!" not in console.read_some(PATIENCE):
        pass
    console.close()


def crowd(count, bare=False, report=print):
    """So many idle copies; figures of the last state."""
    with lib.Daemon() as daemon, daemon.client(PATIENCE) as client:
        if bare:
            asleep(daemon, client)
        else:
            booted(daemon, client, "tcg")
        before, names = available(), []
        while len(names) < count:
            if available() < FLOOR:
                report(f"# ended after {len(names)} copies: less than {FLOOR >> 30} GiB are available")
                break
            job = client.call("vm.fork", vm="a", count=min(BATCH, count - len(names)), prefix=f"c{len(names)}")["job"]
            done = client.call("job.wait", job=job, timeout_ms=int(PATIENCE * 1000))
            tap.check(done["state"] == "done", f"{done}")
            names += done["result"]["copies"]
        time.sleep(5)
        vms = {vm["name"]: vm for vm in client.call("vm.list")["vms"]}
        tap.check(all(vms[n]["state"] == "running" for n in names), "one has ended")
        kinds = [pss(vms[n]["pid"]) for n in names[:: max(1, len(names) // 20)]]
        out = {"copies": len(names), "else": max(k["else"] for k in kinds), "all": max(sum(k.values()) for k in kinds),
               "host": (before - available()) / MIB / len(names),
               "daemon": rollup(daemon.process.pid)}
        report("# " + ", ".join(f"{k} {v if k == 'copies' else round(v, 2)}" for k, v in out.items()))
        began = time.monotonic()
        for name in () if bare else (names[0], names[-1]):  # and they live
            console = daemon.console(name)
            console.sock.sendall(b"echo a$((1 + 1))b\n")
            text = b""
            while b"a2b" not in text:
                text += console.read_some() or b""
                tap.check(time.monotonic() < began + PATIENCE, f"{name}: {text}")
            console.close()
        return out


def a_crowd_of_idle_copies_fits(count=COPIES, bare=False):
    if lib.sanitized():
        raise tap.Skip("a build without sanitizers")
    if available() < FLOOR + GIB:
        raise tap.Skip("7 GiB of memory")
    out = crowd(count, bare)
    tap.check(out["else"] <= LIMITS["tcg"] and out["daemon"] <= DAEMON, f"{out}")
    tap.check(out["host"] * 1000 < 24 * 1024, f"1,000 of them need {out['host'] * 1000 / 1024:.1f} GiB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--count"]:
        a_crowd_of_idle_copies_fits(int(sys.argv[2]), "--bare" in sys.argv)
        sys.exit(0)
    sys.exit(tap.run_cases([an_idle_guest_costs_little, an_idle_guest_under_kvm_costs_less, a_crowd_of_idle_copies_fits],
                           missing=(guest.Unavailable,)))
