# SPDX-License-Identifier: Apache-2.0
"""The instruction clock: runs of Linux are the same to the last time stamp and instruction."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import emu_lib  # noqa: E402
import guest  # noqa: E402
from emu_lib import tap  # noqa: E402

EMU = emu_lib.emu_control.EMU


def boot(run, cpus=1, sandbox="off", **tcg):
    """Boots the test kernel; its console as bytes."""
    files = guest.fetched("riscv64")
    config = {"name": "t", "cpus": cpus, "memory": 256 << 20, "kernel": files["kernel"],
              "initrd": files["initrd"], "append": f"console=ttyS0 vmd.run={run}", "rng": False,
              "tcg": {"icount": 0, **tcg}}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(config, file)
        file.flush()
        done = subprocess.run([EMU, "--config", file.name, "--sandbox", sandbox], stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=400, check=False)
    tap.check(done.returncode == 0, f"status {done.returncode}: {done.stderr[-500:]!r}")
    tap.check(b"BOOT-OK" in done.stdout, done.stdout[-500:])
    return done.stdout


def stamps(text):
    return re.findall(rb"^\[ *(\d+\.\d+)\]", text, re.M)


def two_boots_have_the_same_time_stamps():
    first, second = boot("poweroff"), boot("poweroff", cache_size=2 << 20)
    tap.check(len(stamps(first)) > 100, "no time stamps")
    tap.check(first == second, "the consoles differ")


def two_boots_with_three_vcpus_are_the_same():
    first, second = boot("cpus", cpus=3), boot("cpus", cpus=3)
    tap.check(b"CPUS 3" in first, "not three vCPUs")
    tap.check(first == second, "the consoles differ")


def instructions_are_told_and_time_follows_them():
    with emu_lib.Emu(config={"rng": False, "tcg": {"icount": 4}}) as emu:
        console, c = emu_lib.ready(emu)
        c.ok("emu.pause")
        stats = c.ok("emu.stats")
        n = stats["instructions"]
        tap.check(n > 0 and stats["vcpus"][0]["instructions"] == n, f"{stats}")
        tap.check(stats["guest_time_ns"] == n * 16, f"{stats}")
        tap.check(c.ok("emu.engine")["instructions"] == n, "not the same")
        c.ok("emu.resume")
        console.sendall(b"a")
        emu_lib.read_until(console, b"a")
        tap.check(c.ok("emu.stats")["instructions"] > n, "it stands still")
        emu_lib.end(emu, c)


def reset_starts_vcpus_that_waited():
    with emu_lib.Emu(config={"cpus": 2, "rng": False, "tcg": {"icount": 0}}) as emu:
        console, c = emu_lib.ready(emu)

        def waits(times):
            for _ in range(400):
                if emu_lib.counters(c)[1][1]["left_halt"] == times:
                    return
                time.sleep(0.05)
            raise AssertionError(f"{emu_lib.counters(c)[1][1]}")
        waits(1)
        console.sendall(b"r")
        emu_lib.read_until(console, b"READY\n")
        waits(2)
        emu_lib.end(emu, c)


CASES = [
    reset_starts_vcpus_that_waited,
    two_boots_have_the_same_time_stamps,
    two_boots_with_three_vcpus_are_the_same,
    instructions_are_told_and_time_follows_them,
]

if __name__ == "__main__":
    sys.exit(tap.run_cases(CASES))
