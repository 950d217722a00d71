#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a guest's clocks tell after a pause, a save, a revert and in copies (R7): the one on the wall is the host's, within 50 ms; the one that
counts never goes back, as the guest itself sees it.

    daemon_guest_time.py --count N     in so many copies"""

import base64
import os
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402

WORDS = 0x80100000  # where the guest writes: mtime, the clock on the wall (ns), whether mtime was ever less than before
ERROR = 50_000_000
TRIES = 200  # a vCPU that the host keeps waiting has read its clock long before it is looked at


def watcher():
    """A guest (RV64, machine mode) that reads both clocks for ever."""
    def imm(rd, rs, value, kind, opcode):
        return (value & 0xFFF) << 20 | rs << 15 | kind << 12 | rd << 7 | opcode

    def store(rs2, rs1, at):
        return (at >> 5) << 25 | rs2 << 20 | rs1 << 15 | 3 << 12 | (at & 31) << 7 | 0x23
    begin = [0x100 << 12 | 5 << 7 | 0x17, 0x101 << 12 | 9 << 7 | 0x37, 0x200C << 12 | 28 << 7 | 0x37]  # the words, the RTC, behind mtime
    loop = [imm(29, 28, -8, 3, 0x03), imm(6, 5, 0, 3, 0x03),
            6 << 20 | 29 << 15 | 7 << 12 | 12 << 7 | 0x63,  # bgeu mtime, last: over the next two
            imm(7, 0, 1, 0, 0x13), store(7, 5, 16),
            store(29, 5, 0), imm(10, 9, 0, 6, 0x03), imm(11, 9, 4, 6, 0x03), imm(11, 11, 32, 1, 0x13), 11 << 20 | 10 << 15 | 6 << 12 | 10 << 7 | 0x33,
            store(10, 5, 8)]
    back = -4 * len(loop)
    jump = ((back >> 20) & 1) << 31 | ((back >> 1) & 0x3FF) << 21 | ((back >> 11) & 1) << 20 | ((back >> 12) & 0xFF) << 12 | 0x6F
    return b"".join(word.to_bytes(4, "little") for word in [*begin, *loop, jump])


def words(client, vm):
    data = base64.b64decode(client.call("vm.memory", vm=vm, address=hex(WORDS), size=24)["data"])
    return [int.from_bytes(data[at:at + 8], "little") for at in (0, 8, 16)]


def right(client, vm, least, what):
    """Of a VM that runs; mtime that it has seen."""
    worst = None
    for _ in range(TRIES):
        before = time.time_ns()
        client.call("vm.pause", vm=vm)
        count, wall, went_back = words(client, vm)
        after = time.time_ns()
        client.call("vm.resume", vm=vm)
        tap.check(not went_back and count >= least, f"{what}: mtime went back: {count}, before {least}")
        tap.check(wall <= after + ERROR, f"{what}: {(wall - after) / 1e6} ms ahead")
        least, worst = count, (before - wall) / 1e6
        if worst * 1e6 <= ERROR:
            return count
        time.sleep(0.01)
    tap.check(False, f"{what}: {worst} ms behind")
    return 0


def job(client, method, **params):
    out = client.call("job.wait", job=client.call(method, vm="a", **params)["job"], timeout_ms=120000)
    tap.check(out["state"] == "done", f"{method}: {out}")
    return out


def begun(daemon, client):
    path = os.path.join(daemon.dir, "watcher.bin")
    with open(path, "wb") as file:
        file.write(watcher())
    client.call("vm.define", config=daemon.config("a", firmware=path))
    client.call("vm.start", vm="a")
    lib.wait_for(lambda: words(client, "a")[1] > 0, 60, "the guest runs")


def clocks_are_right_whatever_became_of_the_guest():
    with lib.Daemon() as daemon, daemon.client(300) as client:
        begun(daemon, client)
        count = right(client, "a", 0, "started")
        client.call("vm.pause", vm="a")
        time.sleep(1.5)
        client.call("vm.resume", vm="a")
        count = right(client, "a", count, "resumed")
        job(client, "snapshot.create", name="one")
        then = count
        count = right(client, "a", count, "behind a snapshot")
        job(client, "vm.save")
        time.sleep(1.5)
        client.call("vm.start", vm="a")
        right(client, "a", count, "started from a saved state")
        job(client, "snapshot.revert", name="one")
        right(client, "a", then, "gone back")


def clocks_of_copies_are_right(count=8):
    with lib.Daemon() as daemon, daemon.client(300) as client:
        begun(daemon, client)
        least, made = right(client, "a", 0, "the source"), 0
        while made < count:
            names = job(client, "vm.fork", count=min(4, count - made), prefix=f"c{made}")["result"]["copies"]  # they need a processor each
            for name in names:
                right(client, name, least, name)
            for name in names:
                client.call("vm.stop", vm=name, force=True)
                client.call("vm.delete", vm=name)
            made += len(names)
        right(client, "a", least, "the source")
        print(f"# {made} copies")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--count"]:
        clocks_of_copies_are_right(int(sys.argv[2]))
        sys.exit(0)
    sys.exit(tap.run_cases([clocks_are_right_whatever_became_of_the_guest, clocks_of_copies_are_right]))
