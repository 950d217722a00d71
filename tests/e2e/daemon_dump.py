#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Dumps of guest memory: by the API, by vmctl and by QMP, read back by readelf and gdb, and laid out as QEMU lays out its own;
and a guest that tells of its panic."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import qmp_lib  # noqa: E402
import tap  # noqa: E402
from daemon_lib import MIB  # noqa: E402

RAM = 0x80000000
VMCTL = os.path.join(lib.BUILD, "vmctl")


def readelf(*args):
    return subprocess.run(["readelf", "-W", *args], check=True, capture_output=True, text=True, timeout=60).stdout


def segments(path):
    """[(type, offset, physical address, size in the file, in memory)] as readelf sees them."""
    found = []
    for line in readelf("-l", path).splitlines():
        field = line.split()
        if field and field[0] in ("LOAD", "NOTE"):
            found.append((field[0], *(int(field[i], 16) for i in (1, 3, 4, 5))))
    return found


def notes(path):
    """[(owner, size of the description)]"""
    return [(m[1], int(m[2], 16)) for m in re.finditer(r"^\s+(\S+)\s+0x([0-9a-f]+)\s", readelf("-n", path), re.M)]


def memory(path, address, size):
    for kind, offset, base, there, _ in segments(path):
        if kind == "LOAD" and base <= address and address + size <= base + there:
            with open(path, "rb") as file:
                file.seek(offset + address - base)
                return file.read(size)
    raise AssertionError(f"{path} has no memory at 0x{address:x}")


def started(client, daemon, name="a", **more):
    client.call("vm.define", config=daemon.config(name, **more))
    client.call("vm.start", vm=name)
    with open(daemon.guest(), "rb") as file:
        return file.read()


def ended(client, job):
    return client.call("job.wait", job=job, timeout_ms=60000)


def states(client, after):
    return [e["state"] for e in client.call("event.list", after=after, types=["vm-state"])["events"]]


def core_has_memory_and_registers_and_the_guest_runs_on():
    with lib.Daemon() as daemon, daemon.client() as client:
        code = started(client, daemon, cpus=2)
        core = os.path.join(daemon.dir, "a.core")
        after = client.call("event.list")["newest"]
        begun = client.call("vm.dump", vm="a", file=core)
        tap.check(begun["name"] == "a" and begun["file"] == core, f"{begun}")
        job = ended(client, begun["job"])
        size = os.path.getsize(core)
        tap.check(job["state"] == "done" and job["result"] == {"file": core, "bytes": size, "memory": 16 * MIB} and
                  job["done"] == job["total"] == 16 * MIB and job["unit"] == "bytes", f"{job}")
        lib.wait_for(lambda: client.call("vm.get", vm="a")["state"] == "running", 20, "the guest runs on")
        tap.check(states(client, after) == ["paused", "running"], f"{states(client, after)}")
        head = readelf("-h", core)
        for text in ("ELF64", "CORE (Core file)", "RISC-V", "little endian"):
            tap.check(text in head, f"{text}: {head}")
        found = segments(core)
        tap.check([(s[0], s[2], s[3], s[4]) for s in found[1:]] == [("LOAD", RAM, 16 * MIB, 16 * MIB)], f"{found}")
        tap.check(memory(core, RAM, len(code)) == code, "the guest's code is where it was loaded")
        tap.check(notes(core)[:2] == [("CORE", 376), ("CORE", 264)] and len(notes(core)) == 6, f"{notes(core)}")
        tap.check(os.stat(core).st_mode & 0o777 == 0o600, "for its owner alone")
        tap.check(os.stat(core).st_blocks * 512 < MIB, f"memory never touched is a hole: {os.stat(core).st_blocks}")


def gdb_reads_the_registers_of_every_vcpu():
    if not shutil.which("gdb-multiarch"):
        raise tap.Skip("gdb-multiarch is missing")
    with lib.Daemon() as daemon, daemon.client() as client:
        started(client, daemon, cpus=2)
        client.call("vm.pause", vm="a")
        core = os.path.join(daemon.dir, "a.core")
        ended(client, client.call("vm.dump", vm="a", file=core)["job"])
        tap.check(client.call("vm.get", vm="a")["state"] == "paused", "what stood still stands still")
        out = subprocess.run(
            ["gdb-multiarch", "-nx", "-batch", "-ex", "set architecture riscv:rv64", "-ex", f"core-file {core}",
             "-ex", "info threads", "-ex", "thread apply all info registers pc t0 t1", "-ex", f"x/2wx 0x{RAM:x}"],
            capture_output=True, text=True, timeout=120).stdout
        with daemon.qmp() as q:
            ours = [q.execute("human-monitor-command", command_line="info registers", cpu_index=i) for i in (0, 1)]
        pcs = [int(m, 16) for m in re.findall(r"^pc\s+0x([0-9a-f]+)", out, re.M)]
        # gdb tells the last thread first
        mine = [int(re.search(r"^\s*pc\s*=\s*(?:0x)?([0-9a-f]+)", text, re.M)[1], 16) for text in ours]
        tap.check(sorted(pcs) == sorted(mine) and len(pcs) == 2, f"{out}\n{ours}")
        with open(daemon.guest(), "rb") as file:
            words = [int.from_bytes(file.read(4), "little") for _ in range(2)]
        tap.check(all(f"0x{w:08x}" in out for w in words), f"{words} {out}")


def core_of_a_guest_of_32_bits_is_one_of_32_bits():
    with lib.Daemon() as daemon, daemon.client() as client:
        started(client, daemon, arch="riscv32")
        core = os.path.join(daemon.dir, "a.core")
        ended(client, client.call("vm.dump", vm="a", file=core)["job"])
        tap.check("ELF32" in readelf("-h", core), readelf("-h", core))
        tap.check(notes(core)[0] == ("CORE", 204), f"{notes(core)}")
        tap.check(segments(core)[1][2:] == (RAM, 16 * MIB, 16 * MIB), f"{segments(core)}")


def part_of_the_memory_may_be_asked_for():
    with lib.Daemon() as daemon, daemon.client() as client:
        code = started(client, daemon)
        core = os.path.join(daemon.dir, "a.core")
        job = ended(client, client.call("vm.dump", vm="a", file=core, begin=RAM + 4, length=4096)["job"])
        tap.check(job["state"] == "done" and segments(core)[1][2:] == (RAM + 4, 4096, 4096), f"{job} {segments(core)}")
        tap.check(memory(core, RAM + 4, 8) == code[4:12], "and it is that part")
        job = ended(client, client.call("vm.dump", vm="a", file=core + "2", begin=1 << 50)["job"])
        tap.check(job["state"] == "failed" and job["error"]["error"] == "invalid-params" and
                  not os.path.exists(core + "2"), f"{job}")


def bad_requests_are_refused_and_leave_nothing():
    with lib.Daemon() as daemon, daemon.client() as client:
        core = os.path.join(daemon.dir, "a.core")
        client.call("vm.define", config=daemon.config("a"))
        client.fails("bad-state", "vm.dump", vm="a", file=core)
        client.fails("not-found", "vm.dump", vm="nobody", file=core)
        client.fails("invalid-params", "vm.dump", vm="a", file="a.core")
        client.call("vm.start", vm="a")
        with open(core, "w", encoding="ascii") as file:
            file.write("precious")
        job = ended(client, client.call("vm.dump", vm="a", file=core)["job"])
        tap.check(job["state"] == "failed" and job["error"]["error"] == "exists", f"{job}")
        with open(core, encoding="ascii") as file:
            tap.check(file.read() == "precious", "a file that is there stays")
        link = os.path.join(daemon.dir, "link")
        os.symlink(os.path.join(daemon.dir, "elsewhere"), link)
        job = ended(client, client.call("vm.dump", vm="a", file=link)["job"])
        tap.check(job["state"] == "failed" and not os.path.exists(os.path.join(daemon.dir, "elsewhere")), f"{job}")
        job = ended(client, client.call("vm.dump", vm="a", file="/nowhere/a.core")["job"])
        tap.check(job["state"] == "failed" and job["error"]["error"] == "file-error" and
                  "/nowhere/a.core" in job["error"]["message"], f"{job}")
        job = ended(client, client.call("vm.dump", vm="a", file="/dev/full")["job"])
        tap.check(job["state"] == "failed", f"{job}")
        tap.check(client.call("vm.get", vm="a")["state"] == "running", "the guest runs on")


@tap.local("it stops the emulator by its process number")
def dump_is_cancelled_or_ends_with_its_vm():
    with lib.Daemon() as daemon, daemon.client() as client, daemon.client() as other:
        started(client, daemon)
        core = os.path.join(daemon.dir, "a.core")
        pid = client.call("vm.get", vm="a")["pid"]
        os.kill(pid, signal.SIGSTOP)
        job = client.call("vm.dump", vm="a", file=core)["job"]
        lib.wait_for(lambda: os.path.exists(core), 20, "the file is made")
        time.sleep(0.1)  # most often it was asked now; when not, it is cancelled before that
        waiting = other.send("vm.pause", vm="a")
        client.call("job.cancel", job=job)
        os.kill(pid, signal.SIGCONT)
        end = ended(client, job)
        tap.check(end["state"] == "cancelled" and end["error"]["error"] == "cancelled", f"{end}")
        tap.check(not os.path.exists(core), "nothing is left of it")
        tap.check(other.answer(waiting)["state"] == "paused", "what waited for it goes on")

        os.kill(pid, signal.SIGSTOP)
        job = client.call("vm.dump", vm="a", file=core)["job"]
        lib.wait_for(lambda: os.path.exists(core), 20, "the file is made")
        client.call("vm.stop", vm="a", force=True)
        end = ended(client, job)
        tap.check(end["state"] == "failed" and "ended" in end["error"]["message"], f"{end}")
        tap.check(not os.path.exists(core), "nothing is left of it")
        client.call("vm.start", vm="a")
        end = ended(client, client.call("vm.dump", vm="a", file=core)["job"])
        tap.check(end["state"] == "done", f"{end}")


@tap.local("it stops the emulator by its process number")
def dump_outlives_the_daemon():
    with lib.Daemon() as daemon:
        with daemon.client() as client:
            code = started(client, daemon)
            core = os.path.join(daemon.dir, "a.core")
            pid = client.call("vm.get", vm="a")["pid"]
            os.kill(pid, signal.SIGSTOP)
            job = client.call("vm.dump", vm="a", file=core)["job"]
            lib.wait_for(lambda: sockets_hold(pid), 20, "the emulator was asked")
        daemon.kill()
        os.kill(pid, signal.SIGCONT)
        daemon.start()
        with daemon.client() as client:
            end = ended(client, job)
            tap.check(end["state"] == "done" and end["result"]["file"] == core, f"{end}")
            tap.check(memory(core, RAM, len(code)) == code, "it is whole")
            lib.wait_for(lambda: client.call("vm.get", vm="a")["state"] == "running", 20, "the guest runs on")


def sockets_hold(pid):
    """Does the emulator's control connection hold a passed descriptor that was not taken? Seen by what waits to be read."""
    text = subprocess.run(["ss", "-xpH"], capture_output=True, text=True).stdout
    return any(f"pid={pid}," in line and int(line.split()[2]) > 0 for line in text.splitlines())


def vmctl_waits_and_says_where():
    with lib.Daemon() as daemon, daemon.client() as client:
        started(client, daemon)
        core = os.path.join(daemon.dir, "a.core")
        command = [VMCTL, "--dir", daemon.dir, "dump", "a", core]
        out = subprocess.run(command, capture_output=True, text=True, timeout=60)
        tap.check(out.returncode == 0 and out.stdout == "a: dumped\n", f"{out}")
        out = subprocess.run(command, capture_output=True, text=True, timeout=60)
        tap.check(out.returncode != 0 and "File exists" in out.stderr, f"{out}")
        out = subprocess.run([*command[:-1], core + "2", "--no-wait", "--json"], capture_output=True, text=True, timeout=60)
        tap.check(out.returncode == 0 and ended(client, json.loads(out.stdout)["job"])["state"] == "done", f"{out}")


@tap.local("passes a descriptor over a VM's own socket")
def qmp_dumps_to_files_and_descriptors():
    with lib.Daemon() as daemon, daemon.client() as client:
        code = started(client, daemon)
        with daemon.qmp() as q:
            tap.check(q.execute("query-dump") == {"status": "none", "completed": 0, "total": 0}, "none yet")
            tap.check(q.execute("query-dump-guest-memory-capability") == {"formats": ["elf"]}, "one format")
            core = os.path.join(daemon.dir, "a.core")
            whole = {"status": "completed", "completed": 16 * MIB, "total": 16 * MIB}
            q.order.clear()
            tap.check(q.execute("dump-guest-memory", paging=False, protocol=f"file:{core}") == {}, "answered")
            tap.check(q.execute("query-dump") == whole, f"{q.execute('query-dump')}")
            tap.check(q.event("DUMP_COMPLETED")["data"] == {"result": whole}, f"{q.order}")
            tap.check(q.order.index("STOP") < q.order.index("RESUME") < q.order.index("DUMP_COMPLETED"), f"{q.order}")
            tap.check(memory(core, RAM, len(code)) == code, "it is whole")

            q.execute("dump-guest-memory", paging=False, protocol=f"file:{core}2", detach=True)
            tap.check(q.event("DUMP_COMPLETED")["data"] == {"result": whole}, "and the event tells of the end")
            fd = os.open(core + "3", os.O_RDWR | os.O_CREAT)
            tap.check(q.ask('{"execute":"getfd","arguments":{"fdname":"dump"}}', [fd]) == {"return": {}}, "getfd")
            os.close(fd)
            q.execute("dump-guest-memory", paging=False, protocol="fd:dump", begin=RAM, length=4096)
            tap.check(memory(core + "3", RAM, 8) == code[:8], "into the descriptor")
            q.fails("GenericError", "dump-guest-memory", paging=False, protocol="fd:dump")
            q.fails("GenericError", "dump-guest-memory", paging=False, protocol=f"file:{core}")
            q.fails("GenericError", "dump-guest-memory", paging=True, protocol=f"file:{core}4")
            q.fails("GenericError", "dump-guest-memory", paging=False, protocol=f"file:{core}4", format="kdump-zlib")
            q.fails("GenericError", "dump-guest-memory", paging=False, protocol=f"file:{core}4", begin=RAM)
            q.fails("GenericError", "dump-guest-memory", paging=False, protocol=core)
            tap.check(not os.path.exists(core + "4"), "nothing was made")


@tap.local("it is about the form of the file")
def core_is_laid_out_as_qemu_lays_out_its_own():
    if not qmp_lib.Qemu.there():
        raise tap.Skip(f"{qmp_lib.Qemu.program} is missing")
    with lib.Daemon() as daemon, daemon.client() as client:
        started(client, daemon, cpus=2)
        ours, theirs = (os.path.join(daemon.dir, name) for name in ("ours", "theirs"))
        disk = os.path.join(daemon.dir, "disk")
        with open(disk, "wb") as file:
            file.truncate(MIB)
        ended(client, client.call("vm.dump", vm="a", file=ours)["job"])
        with qmp_lib.Qemu(daemon.guest(), disk, "a", "11111111-2222-3333-4444-555555555555") as qemu:
            with qmp_lib.Qmp(qemu.path) as q:
                q.execute("dump-guest-memory", paging=False, protocol=f"file:{theirs}")
        rows = [[line.split(":")[1].strip() for line in readelf("-h", path).splitlines()
                 if line.strip().startswith(("Class", "Data", "Type", "Machine"))] for path in (ours, theirs)]
        tap.check(rows[0] == rows[1], f"{rows}")
        loads = [[s[2:] for s in segments(path) if s[0] == "LOAD"] for path in (ours, theirs)]
        tap.check(loads[0] == [s for s in loads[1] if s[0] >= RAM], f"{loads}")
        status = [[n for n in notes(path) if n == ("CORE", 376)] for path in (ours, theirs)]
        tap.check(status[0] == status[1] and len(status[0]) == 2, f"{notes(ours)} {notes(theirs)}")


def panicking():
    """A guest that gives the panic device (the first function of bus 0) an address and tells of its panic, then idles."""
    def lui(rd, imm):
        return lib.word((imm >> 12, 12), (rd, 7), (0x37, 0))

    def addi(rd, rs, imm):
        return lib.word((imm & 0xfff, 20), (rs, 15), (rd, 7), (0x13, 0))

    def store(rs2, rs1, offset, size):
        return lib.word((offset >> 5, 25), (rs2, 20), (rs1, 15), (size, 12), (offset & 31, 7), (0x23, 0))

    return (lui(5, 0x30008000) + lui(6, 0x40000000) + store(6, 5, 0x10, 2) +  # BAR 0
            addi(7, 0, 2) + store(7, 5, 4, 2) +                               # memory decoding on
            lib.word((6, 15), (4, 12), (28, 7), (0x03, 0)) +                  # lbu t3, 0(t1): the events there are
            lui(29, 0x40001000) + addi(29, 29, -0x800) + lib.word((1, 20), (29, 15), (1, 12), (29, 7), (0x13, 0)) +
            store(28, 29, 0, 2) +                                             # kept at twice 0x40000800
            addi(7, 0, 1) + store(7, 6, 0, 0) + lib.word((0x6f, 0)))          # panicked


def panic_ends_the_vm_or_what_set_action_says():
    with lib.Daemon() as daemon, daemon.client() as client:
        path = os.path.join(daemon.dir, "panic.bin")
        with open(path, "wb") as file:
            file.write(panicking())
        for action, state, reason in (("shutdown", "stopped", "panic"), ("pause", "paused", "panic"),
                                      ("none", "running", None)):
            client.call("vm.define", config=daemon.config(action, firmware=path, panic=True))
            after = client.call("event.list", after=0)["newest"]
            client.call("vm.start", vm=action, paused=True)
            with daemon.qmp(action) as q:
                q.execute("set-action", panic=action)
                q.execute("cont")
                what = {"shutdown": "poweroff", "none": "run"}.get(action, action)
                tap.check(q.event("GUEST_PANICKED")["data"] == {"action": what}, f"{q.events}")
                if action == "shutdown":
                    tap.check(q.event("SHUTDOWN")["data"] == {"guest": True, "reason": "guest-panic"}, f"{q.events}")
            lib.wait_for(lambda: client.call("vm.get", vm=action)["state"] == state, 30, f"{action}: {state}")
            info = client.call("vm.get", vm=action)
            tap.check(reason is None or info["reason"] == reason, f"{info}")
            told = client.call("event.list", after=after, types=["vm-panic"])["events"]
            tap.check([e["reason"] for e in told] == [action], f"{told}")
            if action == "pause":
                with daemon.qmp(action) as q:
                    tap.check(q.execute("query-status")["status"] == "guest-panicked", "and that is its status")
                    text = q.execute("human-monitor-command", command_line="xp /1xb 0x80001000")
                    tap.check(text.split()[-1] == "0x03", f"both events are offered: {text}")
                    q.execute("cont")
                    tap.check(q.execute("query-status")["status"] == "running", "it may go on")


def panic_counts_as_a_failure_for_the_restart_policy():
    with lib.Daemon() as daemon, daemon.client() as client:
        path = os.path.join(daemon.dir, "panic.bin")
        with open(path, "wb") as file:
            file.write(panicking())
        client.call("vm.define", config=daemon.config("a", firmware=path, panic=True,
                                                      restart={"mode": "on-failure", "limit": 2, "delay_ms": 10}))
        client.call("vm.start", vm="a", paused=True)
        client.call("vm.resume", vm="a")
        wanted = ["restart", "restart", "restart-given-up"]  # later ones may panic before they have said hello

        def told(kind):
            return [e["reason"] for e in client.call("event.list", types=[kind])["events"]]
        lib.wait_for(lambda: told("vm-policy") == wanted, 60, "started twice more, then given up")
        tap.check(told("vm-panic")[0] == "shutdown", f"{told('vm-panic')}")


CASES = (core_has_memory_and_registers_and_the_guest_runs_on, gdb_reads_the_registers_of_every_vcpu,
         core_of_a_guest_of_32_bits_is_one_of_32_bits, part_of_the_memory_may_be_asked_for,
         bad_requests_are_refused_and_leave_nothing, dump_is_cancelled_or_ends_with_its_vm, dump_outlives_the_daemon,
         vmctl_waits_and_says_where, qmp_dumps_to_files_and_descriptors, core_is_laid_out_as_qemu_lays_out_its_own,
         panic_ends_the_vm_or_what_set_action_says, panic_counts_as_a_failure_for_the_restart_policy)

if __name__ == "__main__":
    sys.exit(tap.run_cases(CASES))
