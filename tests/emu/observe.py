# SPDX-License-Identifier: Apache-2.0
"""Looking into the engine of a running vmd-emu: counters."""

import os
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from emu_lib import Emu, counters, end, read_until, ready, tap  # noqa: E402


def counters_tell_what_the_engine_does():
    with Emu(config={"cpus": 2}) as emu:
        console, c = ready(emu)
        vm, cpus = counters(c)
        tap.check(vm["blocks"] > 0 and vm["translations"] >= vm["blocks"], str(vm))
        tap.check(vm["insns"] > vm["blocks"] and vm["code_bytes"] > 0 and vm["table_bytes"] > 0, str(vm))
        tap.check(vm["cache_size"] == 256 << 20, str(vm))
        tap.check(len(cpus) == 2 and sum(v["translated"] for v in cpus) == vm["translations"], str(cpus))
        one = cpus[0]
        tap.check(one["mmio"] == one["mmio_read"] + one["mmio_write"] and one["mmio_write"] >= 7, str(one))
        tap.check(one["enter"] > 0 and one["walk_fetch"] > 0 and one["walk_read"] > 0, str(one))
        for _ in range(200):
            if counters(c)[1][1]["left_halt"] == 1:
                break
            time.sleep(0.05)
        else:
            raise AssertionError(f"the second hart never waits: {counters(c)[1][1]}")
        before = one["mmio_write"]
        console.sendall(b"hello")
        read_until(console, b"hello")
        after = counters(c)[1][0]["mmio_write"]
        tap.check(after == before + 5, f"five bytes echoed: {before} to {after} register writes")
        for _ in range(4):
            c.ok("emu.pause")
            c.ok("emu.resume")
        tap.check(counters(c)[1][0]["kicks"] >= 1, "pauses are kicks")
        end(emu, c)


def instructions_are_absent_while_nobody_counts():
    with Emu() as emu:
        _, c = ready(emu)
        stats = c.ok("emu.stats")
        tap.check("instructions" not in stats and "instructions" not in stats["vcpus"][0], str(stats))
        tap.check("instructions" not in c.ok("emu.engine"), "counted by nobody")
        tap.check(stats["mmio"] > 0 and stats["exits"] > 0, str(stats))
        end(emu, c)


CASES = [
    counters_tell_what_the_engine_does,
    instructions_are_absent_while_nobody_counts,
]

if __name__ == "__main__":
    sys.exit(tap.run_cases(CASES))
