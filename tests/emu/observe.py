# SPDX-License-Identifier: Apache-2.0
"""Looking into the engine of a running vmd-emu: counters, traces, coverage, plugins, the map for perf."""

import base64
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from emu_lib import Client, Emu, counters, emu_control, end, read_until, ready, tap  # noqa: E402

PLUGINS = os.path.join(os.environ.get("VMD_BUILDDIR", "."), "engine", "tcg", "plugins")
TURNS = 0xf4000
# A loop of TURNS turns, then power-off:
#   lui t0,0xf4; auipc t3,1; 1: addi t1,t1,1; ld t2,-4(t3); sd t1,-4(t3); addi t0,t0,-1; bne t0,zero,1b
#   lui t1,0x100; lui t2,5; addi t2,t2,0x555; sw t2,0(t1); j .
LOOP = struct.pack("<12I", 0x000f42b7, 0x00001e17, 0x00130313, 0xffce3383, 0xfe6e3e23, 0xfff28293, 0xfe0298e3,
                   0x00100337, 0x000053b7, 0x55538393, 0x00732023, 0x0000006f)
RAM = 0x80000000


def run_loop(*options, **config):
    """Runs LOOP by itself; what it wrote to stderr."""
    with tempfile.NamedTemporaryFile(suffix=".bin") as code, tempfile.NamedTemporaryFile("w") as file:
        code.write(LOOP)
        code.flush()
        json.dump({"name": "t", "firmware": code.name, "memory": 64 << 20, **config}, file)
        file.flush()
        done = subprocess.run([emu_control.EMU, "--config", file.name, "--console", "none", *options],
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
    text = done.stderr.decode()
    tap.check(done.returncode == 0, f"status {done.returncode}: {text[-1000:]}")
    return text


def wait_for(what, check):
    for _ in range(400):
        found = check()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"it never came: {what}")


# ---- counters ----

def counters_tell_what_the_engine_does():
    with Emu(config={"cpus": 2}) as emu:
        console, c = ready(emu)
        vm, cpus = counters(c)
        tap.check(vm["blocks"] > 0 and vm["translations"] >= vm["blocks"], str(vm))
        tap.check(vm["insns"] > vm["blocks"] and vm["code_bytes"] > 0 and vm["table_bytes"] > 0, str(vm))
        tap.check(vm["cache_size"] == 64 << 20, str(vm))
        tap.check(len(cpus) == 2 and cpus[0]["translated"] > 0, str(cpus))
        c.ok("emu.pause")
        one = counters(c)[1][0]
        c.ok("emu.resume")
        tap.check(one["mmio"] == one["mmio_read"] + one["mmio_write"] and one["mmio_write"] >= 7, str(one))
        tap.check(one["enter"] > 0 and one["walk_fetch"] > 0 and one["walk_read"] > 0, str(one))
        wait_for("the second hart waits", lambda: counters(c)[1][1]["left_halt"] == 1)
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


# ---- traces ----

def records(client):
    answer = client.ok("emu.trace_read")
    data = base64.b64decode(answer["data"])
    tap.check(len(data) == 40 * answer["records"], "length")
    return [struct.unpack_from("<QQQQBBHI", data, at) for at in range(0, len(data), 40)], answer


def trace_shows_device_accesses_of_a_running_guest():
    with Emu(sandbox="require") as emu:
        console, c = ready(emu)
        tap.check(records(c)[1] == {"data": "", "records": 0, "dropped": 0, "on": False}, "off at first")
        c.ok("emu.trace_start", mmio=True)
        console.sendall(b"Z")
        read_until(console, b"Z")
        seen = []

        def written():
            seen.extend(records(c)[0])
            return [r for r in seen if r[4] == 5]
        write = wait_for("the echo", written)[0]
        tap.check(write[2:4] == (0x10000000, ord("Z")) and write[5] == 1 and write[6] == 0, f"{write}")
        reads = [r for r in seen if r[4] == 4]
        tap.check(reads and all(r[2] in (0x10000000, 0x10000005) for r in reads), f"{reads[:3]}")
        tap.check(all(RAM <= r[1] < RAM + 0x200 for r in seen), "pc outside the guest's code")
        tap.check([r[0] for r in seen] == sorted(r[0] for r in seen), "times go back")
        c.ok("emu.trace_stop")
        console.sendall(b"Y")
        read_until(console, b"Y")
        tap.check(records(c)[1]["records"] == 0, "it goes on")
        end(emu, c)


def trace_of_blocks_keeps_to_its_filter_and_drops_when_full():
    with Emu(config={"cpus": 2}) as emu:
        console, c = ready(emu)
        wait_for("the second hart waits", lambda: counters(c)[1][1]["left_halt"] == 1)
        c.ok("emu.trace_start", blocks=True, vcpu=1)
        read_one = c.ok("emu.trace_read")
        tap.check(read_one["on"] and read_one["records"] == 0, "the second hart waits")
        c.ok("emu.trace_start", blocks=True)
        wait_for("a full ring", lambda: c.ok("emu.trace_read")["dropped"] > 0 if time.sleep(0.3) is None else 0)
        some, _ = records(c)
        tap.check(some and all(r[4] == 1 and r[6] == 0 and r[2] == r[1] and r[7] > 0 for r in some), f"{some[:3]}")
        pcs = sorted({r[1] for r in some})
        c.ok("emu.trace_start", blocks=True, **{"from": hex(pcs[-1]), "to": hex(pcs[-1])})
        wait_for("that block", lambda: c.ok("emu.trace_read")["records"])
        tap.check({r[1] for r in records(c)[0]} <= {pcs[-1]}, "filter")
        console.sendall(b"k")
        read_until(console, b"k")
        error = c.call("emu.trace_start", blocks=True, **{"from": "nonsense"})["error"]
        tap.check("from" in str(error), f"{error}")
        end(emu, c)


def trace_can_be_switched_again_and_again_under_load():
    with Emu(config={"cpus": 3}) as emu:
        console, c = ready(emu)
        for i in range(40):
            c.ok("emu.trace_start", blocks=i % 2 == 0, mmio=True)
            console.sendall(b"a")
            read_until(console, b"a")
            c.ok("emu.trace_stop")
        end(emu, c)


def exceptions_and_interrupts_are_traced():
    # mtvec = 0x80000040; ecall; there: j .
    code = struct.pack("<4I", 0x00000297, 0x04028293, 0x30529073, 0x00000073).ljust(64, b"\0") + \
        struct.pack("<I", 0x0000006f)
    with Emu(paused=True) as emu:
        with open(emu.guest, "r+b") as f:
            f.write(code)
        c = Client(emu)
        c.ok("emu.reset")
        c.ok("emu.trace_start", exceptions=True)
        c.ok("emu.resume")
        found = wait_for("the exception", lambda: records(c)[0])
        tap.check([(r[1], r[2], r[4], r[7]) for r in found] == [(RAM + 12, 0, 2, 11)], f"{found}")
        end(emu, c)


# ---- coverage ----

def coverage_knows_exactly_which_blocks_began():
    with Emu(extra=["--set", "tcg.coverage=true"]) as emu:
        _, c = ready(emu)
        first = c.ok("emu.coverage")
        blocks = struct.unpack(f"<{len(base64.b64decode(first['blocks'])) // 8}Q", base64.b64decode(first["blocks"]))
        edges = base64.b64decode(first["edges"])
        tap.check(RAM in blocks and list(blocks) == sorted(blocks), f"{blocks}")
        tap.check(all(RAM <= b < RAM + len(emu_control.GUEST) for b in blocks), f"{blocks}")
        tap.check(len(edges) == 65536 and 2 <= sum(map(bool, edges)) <= 60, f"{sum(map(bool, edges))} edges")
        tap.check("next" not in first, "all in one")
        end(emu, c)
    with Emu() as emu:
        _, c = ready(emu)
        tap.check("not recorded" in c.call("emu.coverage")["error"]["message"], "off")
        end(emu, c)


def coverage_file_is_shared_with_a_fuzzer():
    fd = os.memfd_create("coverage")
    with tempfile.NamedTemporaryFile(suffix=".bin") as code, tempfile.NamedTemporaryFile("w") as file:
        code.write(LOOP)
        code.flush()
        file.write('{"name": "t", "firmware": "%s", "memory": 67108864}' % code.name)
        file.flush()
        subprocess.run([emu_control.EMU, "--config", file.name, "--console", "none", "--coverage-fd", str(fd)],
                       stdin=subprocess.DEVNULL, timeout=60, check=True, pass_fds=[fd])
    magic, edges, bitmap, base, size = struct.unpack("<5Q", os.pread(fd, 40, 0))
    tap.check((magic, base, size) == (0x31564f43444d56, RAM, 64 << 20), hex(magic))
    bits = os.pread(fd, 4, bitmap)
    began = {RAM + 16 * i + 2 * k for i, byte in enumerate(bits) for k in range(8) if byte >> k & 1}
    # 0x18 is the branch back: where a vCPU that was asked to look up goes on.
    allowed = {RAM, RAM + 8, RAM + 0x18, RAM + 0x1c, RAM + 0x2c}
    tap.check({RAM, RAM + 8} <= began <= allowed, f"{sorted(map(hex, began))}")
    counts = [b for b in os.pread(fd, 65536, edges) if b]
    tap.check(2 <= len(counts) <= 8 and max(counts) > 1, f"{counts}")
    os.close(fd)


# ---- plugins ----

def number(text, name):
    found = re.search(rf"{name} +(\d+)", text)
    tap.check(found, f"no {name} in {text[-1500:]}")
    return int(found.group(1))


def instruction_mix_is_exact():
    for backend in ("jit", "interp"):
        text = run_loop("--plugin", f"{PLUGINS}/mix.so,top=40", tcg={"backend": backend})
        # the boot ROM before it has two ld and one addi
        for name, count in (("ld", TURNS + 2), ("sd", TURNS), ("bne", TURNS), ("addi", 2 * TURNS + 2)):
            tap.check(number(text, f": {name}") == count, f"{backend} {name}: {text[-1500:]}")
        tap.check(number(text, ": sw") == 1, f"{backend}: {text[-1500:]}")


def cache_model_counts_each_access():
    for backend in ("jit", "interp"):
        text = run_loop("--plugin", f"{PLUGINS}/cache.so,l1=1024:2:64", tcg={"backend": backend})
        found = re.search(r"cpu0 L1 +(\d+) accesses +(\d+) misses", text)
        accesses, misses = map(int, found.groups())
        tap.check(2 * TURNS + 1 <= accesses <= 2 * TURNS + 20, text[-600:])
        tap.check(2 <= misses <= 20, text[-600:])
        tap.check(number(text, "L2") == misses, text[-600:])


def plugins_work_inside_the_sandbox_and_may_refuse():
    extra = ["--plugin", f"{PLUGINS}/mix.so", "--plugin", f"{PLUGINS}/cache.so"]
    with Emu(sandbox="require", extra=extra, config={"cpus": 2}) as emu:
        console, c = ready(emu)
        console.sendall(b"abc")
        read_until(console, b"abc")
        c.ok("emu.quit")
        status, errors = emu.wait()
        tap.check(status == 0 and "mnemonics" in errors and "hit rate" in errors, f"{status} {errors[-800:]}")
    for plugin, why in ((f"{PLUGINS}/mix.so,top=x", "refused to start"), ("/nonexistent.so", "cannot open"),
                        (emu_control.EMU, "plugin")):
        with Emu(extra=["--plugin", plugin]) as emu:
            status, errors = emu.wait()
            tap.check(status == 1 and why in errors, f"{status} {errors}")


# ---- perf ----

def perf_map_covers_the_code_and_names_the_guest():
    with tempfile.NamedTemporaryFile("r") as file:
        run_loop(f"--perf-map={file.name}")
        rows = [line.split() for line in file.read().splitlines()]
    tap.check(rows[0][2] == "vmd:thunks" and len(rows) >= 4, f"{rows}")
    ranges = [(int(a, 16), int(a, 16) + int(n, 16)) for a, n, _ in rows]
    tap.check(all(a < b for a, b in ranges) and ranges == sorted(ranges), "ranges")
    tap.check(all(ranges[i][1] <= ranges[i + 1][0] for i in range(len(ranges) - 1)), "overlap")
    names = [row[2] for row in rows[1:]]
    tap.check(f"guest:0x{RAM:x}+12" in names and f"guest:0x{RAM + 8:x}+10" in names, f"{names}")


CASES = [
    counters_tell_what_the_engine_does,
    instructions_are_absent_while_nobody_counts,
    trace_shows_device_accesses_of_a_running_guest,
    trace_of_blocks_keeps_to_its_filter_and_drops_when_full,
    trace_can_be_switched_again_and_again_under_load,
    exceptions_and_interrupts_are_traced,
    coverage_knows_exactly_which_blocks_began,
    coverage_file_is_shared_with_a_fuzzer,
    instruction_mix_is_exact,
    cache_model_counts_each_access,
    plugins_work_inside_the_sandbox_and_may_refuse,
    perf_map_covers_the_code_and_names_the_guest,
]

if __name__ == "__main__":
    sys.exit(tap.run_cases(CASES))
