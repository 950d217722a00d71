# SPDX-License-Identifier: Apache-2.0
"""Recordings: a machine that is replayed comes to the same state, bit by bit; what does not fit is told with its place."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import replay_lib as lib  # noqa: E402
import replay_soak  # noqa: E402
import emu_lib  # noqa: E402
from emu_lib import Client, Emu, check_end, ready  # noqa: E402
from replay_lib import tap  # noqa: E402

TYPED = b"A man walked along the beach at noon" # no command of the guest is in it


def until(p, seen, text, times=1):
    """Reads the console until the text was there."""
    while seen.count(text) < times:
        byte = p.stdout.read(1)
        tap.check(byte, f"the emulator ended after {seen}")
        seen += byte
    return seen


def typing(config, log, end=b"q", **more):
    """Records the small guest while somebody types, at moments that no two runs share."""
    with subprocess.Popen([lib.EMU, "--config", config, "--sandbox", "off", "--record", log], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, **more) as p:
        seen = until(p, b"", b"READY\n")
        for i in range(0, len(TYPED), 7):
            p.stdin.write(TYPED[i:i + 7])
            time.sleep(0.01)
            seen = until(p, seen, TYPED[:i + 7])
        if end is None:
            p.send_signal(signal.SIGTERM)
        elif end == "kill":
            time.sleep(0.5)  # past the time that a record stays out of the file
            p.kill()
        else:
            for i in range(len(end)):
                p.stdin.write(end[i:i + 1])
                if end[i:i + 1] == b"r":
                    seen = until(p, seen, b"READY\n", 2)
        out, errors = p.communicate(timeout=lib.LIMIT)
        done = subprocess.CompletedProcess([], p.returncode, seen + out, errors)
    return lib.Run(done)


def check_same(run, was):
    tap.check(run.status == 0, f"{run}")
    tap.check(run.state == was.state and run.count == was.count, f"{run.state} at {run.count} is not {was.state} at "
              f"{was.count}")
    tap.check(run.out == was.out, "the consoles differ")


def what_was_typed_is_typed_again_at_the_same_instruction():
    with tempfile.TemporaryDirectory() as d:
        config, log = lib.bare(d), os.path.join(d, "a.rec")
        was = typing(config, log)
        tap.check(was.status == 0 and was.state and TYPED in was.out, f"{was}")
        for _ in range(3):
            check_same(lib.replay(config, log), was)
        interp = lib.bare(d, "interp.json", tcg={"backend": "interp"})
        check_same(lib.replay(interp, log), was)


def a_replay_stops_at_any_count_and_is_the_same_there():
    with tempfile.TemporaryDirectory() as d:
        config, log = lib.bare(d), os.path.join(d, "a.rec")
        was = typing(config, log)
        for count in (0, 1, 77, was.count // 2, was.count - 1):
            runs = [lib.replay(config, log, "--replay-to", str(count)) for _ in range(2)]
            tap.check(all(r.status == 0 and r.count == count for r in runs), f"{runs[0]}")
            tap.check(runs[0].state == runs[1].state, f"they differ at {count}")
            tap.check(runs[0].state != was.state, f"the end's state at {count}")


def a_recording_that_somebody_ended_ends_there():
    with tempfile.TemporaryDirectory() as d:
        config, log = lib.bare(d), os.path.join(d, "a.rec")
        was = typing(config, log, end=None)
        tap.check(was.status == 0, f"{was}")
        check_same(lib.replay(config, log), was)


def a_recorder_that_was_killed_leaves_what_it_had():
    with tempfile.TemporaryDirectory() as d:
        config, log = lib.bare(d), os.path.join(d, "a.rec")
        typing(config, log, end="kill")
        runs = [lib.replay(config, log) for _ in range(2)]
        tap.check(all(r.status == 0 and "cut off" in r.errors for r in runs), f"{runs[0]}")
        tap.check(runs[0].state and runs[0].state == runs[1].state, "they differ")
        tap.check(TYPED[:14] in runs[0].out, f"{runs[0].out}")


def several_vcpus_and_resets_are_replayed():
    with tempfile.TemporaryDirectory() as d:
        config, log = lib.bare(d, cpus=3), os.path.join(d, "a.rec")
        was = typing(config, log, end=b"rq")
        tap.check(was.out.count(b"READY") == 2 and was.status == 0, f"{was}")
        for _ in range(2):
            check_same(lib.replay(config, log), was)


def linux_with_disk_and_network_is_replayed():
    with tempfile.TemporaryDirectory() as d:
        base, image, log = (os.path.join(d, n) for n in ("base", "image", "a.rec"))
        lib.new_image(base)
        shutil.copy(base, image)
        config = lib.linux(d, image)
        was = lib.emulate(config, "--record", log)
        tap.check(was.status == 0 and was.state, f"{was}")
        for text in (b"RNG ", b"DISK 16384 first line", b"DISKWRITE told", b"NET eth0 10.0.2.15"):
            tap.check(text in was.out, f"{text}: {was.out[-600:]}")
        tap.check(open(image, "rb").read() != open(base, "rb").read(), "nothing was written")
        shutil.copy(base, image)
        for _ in range(3):
            check_same(lib.replay(config, log), was)
        points = []
        for _ in range(2):
            points.append(lib.replay(config, log, "--replay-to", str(was.count * 9 // 10)).state)
        tap.check(points[0] and points[0] == points[1], "they differ on the way")
        tap.check(open(image, "rb").read() == open(base, "rb").read(), "a replay wrote to the disk")
        scratch = os.path.join(d, "b.rec")
        was = lib.emulate(config, "--record", scratch, "--record-scratch")
        tap.check(was.status == 0 and b"DISKWRITE told" in was.out, f"{was}")
        tap.check(open(image, "rb").read() == open(base, "rb").read(), "the recording wrote to the disk")
        check_same(lib.replay(config, scratch), was)
        with open(image, "r+b") as f:
            f.write(b"second")
        run = lib.replay(config, log)
        tap.check(run.status == 3 and "'disk:root': request 0 reads other data at byte 0" in run.errors, f"{run}")


def three_vcpus_of_linux_are_replayed():
    with tempfile.TemporaryDirectory() as d:
        base, image, log = (os.path.join(d, n) for n in ("base", "image", "a.rec"))
        lib.new_image(base)
        shutil.copy(base, image)
        config = lib.linux(d, image, run="cpus,rng,disk,net,poweroff", cpus=3)
        was = lib.emulate(config, "--record", log)
        tap.check(was.status == 0 and b"CPUS 3" in was.out and b"NET eth0 10.0.2.15" in was.out, f"{was}")
        check_same(lib.replay(config, log), was)


def a_changed_recording_is_told_with_its_place():
    with tempfile.TemporaryDirectory() as d:
        config, good, bad = lib.bare(d), os.path.join(d, "a.rec"), os.path.join(d, "b.rec")
        was = typing(config, good)
        log = lib.Log(good)
        log.write(bad)
        check_same(lib.replay(config, bad), was)
        inputs = [i for i, r in enumerate(log.records) if r[0] == lib.INPUT]
        tap.check(len(inputs) > 3 and log.records[-1][0] == lib.END, f"{[r[:5] for r in log.records]}")

        def changed(change, *texts):
            records = [list(r) for r in log.records]
            change(records)
            log.write(bad, records)
            run = lib.replay(config, bad)
            tap.check(run.status in (1, 3) and all(t in run.errors for t in texts), f"{texts}: {run}")

        def byte(records):
            records[inputs[1]][6] = b"\0" + b"Z" * (len(records[inputs[1]][6]) - 1)

        def earlier(records):
            records[inputs[2]][3] -= 1

        def missing(records):
            del records[inputs[1]]

        def extra(records):
            records.insert(1, [lib.OUTPUT, 0, records[0][2], *records[0][3:6], bytes(16)])

        def source(records):
            records[inputs[1]][1] = 9

        def end(records):
            records[-1][6] = b"\1" * 96
        place = f"at instruction {log.records[inputs[2]][3]}"
        changed(byte, "diverged", place, "are not what they were")
        changed(missing, "diverged", place)
        changed(extra, "diverged", f"at instruction {log.records[0][3]}", "an output of 'console'")
        changed(source, "diverged", f"at instruction {log.records[inputs[1]][3]}", "source 9")
        changed(earlier, "diverged", f"at instruction {log.records[inputs[2]][3] - 1}")
        changed(end, "vCPUs differ, devices differ, memory differs")


def a_damaged_file_is_refused_with_the_place():
    with tempfile.TemporaryDirectory() as d:
        config, good, bad = lib.bare(d), os.path.join(d, "a.rec"), os.path.join(d, "b.rec")
        typing(config, good)
        data, first = open(good, "rb").read(), lib.HEAD.size + len(lib.Log(good).text)

        def refused(change, text):
            with open(bad, "wb") as f:
                f.write(change)
            run = lib.replay(config, bad)
            tap.check(run.status == 1 and text in run.errors and run.out == b"", f"{text}: {run}")

        def flipped(at):
            return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1:]
        refused(b"", "does not begin as one")
        refused(data[:first - 1], "header: checksum")
        refused(flipped(0), "does not begin as one")
        refused(flipped(8), "format version 17")
        refused(flipped(15), "length of the description")
        refused(flipped(30), "header: checksum")
        refused(flipped(first), f"chunk at byte {first}: it does not begin as one")
        refused(flipped(first + 7), f"chunk at byte {first}: bytes in the file")
        refused(flipped(first + 11), f"chunk at byte {first}: bytes of records")
        refused(flipped(first + 20), f"chunk at byte {first}: checksum")
        log = lib.Log(good)
        for place, value, text in ((0, 7, "kind (7)"), (3, 0, "its place lies before")):
            records = [list(r) for r in log.records]
            records[2][place] = value
            log.write(bad, records)
            refused(open(bad, "rb").read(), text)
        run = lib.replay(lib.bare(d, "other.json", cpus=2), good)
        tap.check(run.status == 1 and "it says 'cpus=1', here 'cpus=2'" in run.errors, f"{run}")


def what_cannot_be_recorded_is_refused_by_name():
    with tempfile.TemporaryDirectory() as d:
        for what, name in (({"balloon": {}}, "a balloon"), ({"display": {}}, "a screen"), ({"agent": True}, "channels"),
                           ({"usb": [{"type": "tablet"}]}, "USB devices"), ({"audio": {}}, "a sound card"), ({"guest_watchdog": {}}, "a watchdog")):
            run = lib.emulate(lib.bare(d, **what), "--record", os.path.join(d, "a.rec"))
            tap.check(run.status == 1 and f"has {name}, which cannot be recorded" in run.errors, f"{run}")
            tap.check(not os.path.exists(os.path.join(d, "a.rec")), "a file is left")


def a_file_that_takes_no_more_ends_the_recording_and_not_the_machine():
    with tempfile.TemporaryDirectory() as d:
        read, write = os.pipe()
        config = lib.bare(d)
        with subprocess.Popen([lib.EMU, "--config", config, "--sandbox", "off", "--record-fd", str(write)],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[write],
                              bufsize=0) as p:
            os.close(write)
            seen = until(p, b"", b"READY\n")  # the header is whole
            tap.check(os.read(read, 8) == b"VMD-REC\n", "no header")
            os.close(read)
            p.stdin.write(TYPED)
            until(p, seen, TYPED)
            time.sleep(0.5)  # past the time that a record stays out of the file
            p.stdin.write(b"q")
            out, errors = p.communicate(timeout=lib.LIMIT)
        tap.check(p.returncode == 0 and out == b"", f"{p.returncode} {errors}")
        tap.check(b"the recording ends at instruction" in errors and b"recorded" not in errors, f"{errors}")


def debugged(folder, config, log, *commands):
    """Replays under GDB; each of its commands after the one that connects. The run, and what GDB printed."""
    path = os.path.join(folder, "gdb.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)  # GDB may come before the emulator is there
        fd = listener.fileno()
        p = subprocess.Popen([lib.EMU, "--config", config, "--sandbox", "off", "--replay", log, "--gdb-fd", str(fd), "--paused"],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[fd])
    with p:
        try:
            argv = ["gdb-multiarch", "-nx", "-q", "-batch", "-ex", "set confirm off", "-ex", f"set remotetimeout {lib.LIMIT}",
                    "-ex", "set architecture riscv:rv64"]
            for command in (f"target remote {path}", *commands):
                argv += ["-ex", command]
            gdb = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 timeout=lib.LIMIT, check=False)
            out, errors = p.communicate(timeout=lib.LIMIT)
        finally:
            if p.poll() is None:
                p.kill()
    return lib.Run(subprocess.CompletedProcess([], p.returncode, out, errors)), gdb.stdout.decode(errors="replace")


def a_debugger_leaves_a_replay_as_it_was():
    if not shutil.which("gdb-multiarch"):
        raise tap.Skip("gdb-multiarch")
    polls, reads = 0x80000030, 0x8000003C  # the guest asks for a byte; it takes one
    tell = 'printf "AT %lx %lx %lx\\n", $pc, $t0, $t2'
    look = (f"break *{reads:#x}", *["continue", tell, "x/4xw $pc"] * 9, *["stepi", tell] * 40,
            f"break *{polls:#x}", *["continue", tell] * 20, "monitor reset", "delete", "continue")
    with tempfile.TemporaryDirectory() as d:
        config, log = lib.bare(d), os.path.join(d, "a.rec")
        was = typing(config, log)
        tap.check(was.status == 0 and was.state, f"{was}")
        seen = []
        for backend in ("jit", "jit", "interp"):
            which = lib.bare(d, "gdb.json", tcg={"backend": backend})
            run, told = debugged(d, which, log, *look)
            check_same(run, was)
            stops = re.findall(r"^AT ([0-9a-f]+) [0-9a-f]+ [0-9a-f]+$", told, re.MULTILINE)
            tap.check(len(stops) == 69 and set(stops[:9]) == {f"{reads:x}"} and set(stops[49:]) <= {f"{reads:x}", f"{polls:x}"}
                      and stops[9] == f"{reads + 4:x}" and "cannot be reset" in told, told)
            seen.append(re.findall(r"^AT .*$", told, re.MULTILINE))
            os.unlink(os.path.join(d, "gdb.sock"))
        tap.check(seen[0] == seen[1] == seen[2], f"GDB saw other things: {seen}")


def standing(c):
    """The digests of a machine that stands still, when it does."""
    end = time.monotonic() + lib.LIMIT
    while c.ok("emu.status")["state"] == "running":
        tap.check(time.monotonic() < end, f"it does not stop: {c.ok('emu.replay_status')}")
        time.sleep(0.01)
    return c.ok("emu.state_hash")


# What leaves the guest alone; whatever else comes is refused while a recording is made or played.
LOOKS = {"emu." + name for name in (
    "hello status stats engine replay_status replay_to state_hash pause resume quit set_action trace_start trace_read trace_stop coverage channels exports jobs dump dump_status "
    "dump_cancel state_status state_cancel migrate_status migrate_cancel fault_list state memory_search blocks registers memory screenshot pci devices device_class file_drop").split()}


def every_call_that_could_reach_the_guest_is_refused():
    with open(os.path.join(HERE, "../../api-schema/schema/emu.json"), encoding="utf-8") as file:
        methods = json.load(file)["methods"]
    bare = [name for name, m in methods.items() if name not in LOOKS and not any(p.get("required") for p in m.get("in", {}).values())]
    tap.check({"emu.reset", "emu.powerdown", "emu.balloon", "emu.memory_devices"} <= set(bare) and LOOKS <= set(methods), str(bare))
    with tempfile.NamedTemporaryFile() as log:
        fd = os.open(log.name, os.O_RDWR)
        with Emu(extra=("--record-fd", str(fd)), descriptors=[fd]) as emu:
            _, c = ready(emu)
            for name in bare:
                error = c.call(name).get("error", {})
                tap.check("past its recording" in error.get("message", ""), f"{name}: {error}")
            c.ok("emu.quit")
            check_end(emu)
        os.close(fd)


def the_control_socket_moves_a_replay():
    with tempfile.NamedTemporaryFile() as log:
        fd = os.open(log.name, os.O_RDWR)
        with Emu(extra=("--record-fd", str(fd)), descriptors=[fd]) as emu:
            console, c = ready(emu)
            console.sendall(b"a")
            emu_lib.read_until(console, b"a")
            tap.check(c.ok("emu.replay_status")["mode"] == "record", str(c.ok("emu.replay_status")))
            tap.check(c.call("emu.state_hash")["error"]["data"]["error"] == "bad-state", "the state of a machine that runs")
            tap.check("error" in c.call("emu.replay_to", count=1), "a machine that is not replayed is moved")
            c.ok("emu.pause")
            was = c.ok("emu.state_hash")
            c.ok("emu.quit")
            check_end(emu)
        os.close(fd)
        fd = os.open(log.name, os.O_RDWR)
        with Emu(paused=True, extra=("--replay-fd", str(fd)), descriptors=[fd]) as emu:
            c = Client(emu)
            tap.check(c.ok("emu.replay_status")["mode"] == "replay", str(c.ok("emu.replay_status")))
            early = 10  # later on it may stand where it stood
            c.ok("emu.replay_to", count=early)
            there = standing(c)
            tap.check(there["count"] == early and there["state"] != was["state"], f"{there}, wanted {early}")
            tap.check(c.call("emu.replay_to", count=early - 1)["error"]["data"]["error"] == "invalid-params", "time runs back")
            c.ok("emu.replay_to", count=was["count"])
            tap.check(standing(c) == was, f"{standing(c)} is not {was}")
            c.ok("emu.quit")
            check_end(emu)
        os.close(fd)


def somebody_types_while_linux_boots():
    replay_soak.case(1, 2)


CASES = [
    what_was_typed_is_typed_again_at_the_same_instruction,
    a_replay_stops_at_any_count_and_is_the_same_there,
    a_recording_that_somebody_ended_ends_there,
    a_recorder_that_was_killed_leaves_what_it_had,
    several_vcpus_and_resets_are_replayed,
    a_changed_recording_is_told_with_its_place,
    a_damaged_file_is_refused_with_the_place,
    what_cannot_be_recorded_is_refused_by_name,
    every_call_that_could_reach_the_guest_is_refused,
    the_control_socket_moves_a_replay,
    a_debugger_leaves_a_replay_as_it_was,
    a_file_that_takes_no_more_ends_the_recording_and_not_the_machine,
    linux_with_disk_and_network_is_replayed,
    three_vcpus_of_linux_are_replayed,
    somebody_types_while_linux_boots,
]

if __name__ == "__main__":
    sys.exit(tap.run_cases(CASES))
