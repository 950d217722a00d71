# SPDX-License-Identifier: Apache-2.0
"""Checks vmd-emu against the committed instruction vectors, by JIT and by interpreter.

One TAP case for each instruction, word length and backend; and that every instruction of the
translator's .isa file has a vector. EMULATOR=qemu runs the vectors under QEMU instead, which shows
the known deviations of deviations.py and no other.
"""

import os
import re
import sys

sys.dont_write_bytecode = True
import image  # noqa: E402
import runner  # noqa: E402
import vectors  # noqa: E402

sys.path.insert(0, os.path.join(runner.HERE, "..", "lib"))
import tap as taplib  # noqa: E402

RESTARTS = 30
SHOWN = 3
ISA_FILE = os.path.join(runner.HERE, "..", "..", "engine", "tcg", "guest_riscv", "riscv.isa")


def run_all(emulator, xlen, backend, todo):
    """Results in the order of `todo`; a string where the emulator ended before a case did."""
    results = []
    for _ in range(RESTARTS):
        rest = todo[len(results):]
        built = image.Image([vector.case for vector in rest], xlen)
        try:
            part, ended = runner.run(emulator, built, backend), None
        except runner.Ended as problem:
            part, ended = problem.results, str(problem)
        results += [(result, address) for result, address in zip(part, built.addresses)]
        if ended is None:
            return results
        if len(results) < len(todo):
            results.append((f"the emulator did not get past it: {ended}", 0))
    missing = len(todo) - len(results)
    return results + [("not run: the emulator ended too often before", 0)] * missing


def describe(state):
    return " ".join(f"{image.slot_name(slot)}={value:x}" for slot, value in sorted(state.items()))


def check(vector, result, address, xlen):
    """None, or what is wrong."""
    if isinstance(result, str):
        return f"{vectors.to_line(vector, xlen)}\n{result}"
    expected = vector.expected(address, xlen)
    if result == expected:
        return None
    return (f"{vectors.to_line(vector, xlen)}\ncode at {address:x}\n"
            f"expected {describe(expected)}\ngot      {describe(result)}")


def check_backend(tap, emulator, xlen, backend, todo):
    problems = {}
    totals = {}
    for vector, (result, address) in zip(todo, run_all(emulator, xlen, backend, todo)):
        totals[vector.name] = totals.get(vector.name, 0) + 1
        if emulator != "vmd" and vector.deviation:
            continue
        problem = check(vector, result, address, xlen)
        if problem:
            problems.setdefault(vector.name, []).append(problem)
    for name, total in totals.items():
        found = problems.get(name)
        text = None
        if found:
            text = f"{len(found)} of {total} vectors differ\n" + "\n".join(found[:SHOWN])
        tap.case(f"rv{xlen} {backend} {name} gives the reference's results", text)


def isa_patterns():
    """(name, mask, match, length in bytes, features) of every instruction of the .isa file."""
    with open(ISA_FILE, encoding="utf-8") as file:
        for line in file:
            match = re.match(r"([01.][01. ]*?)\s{2,}(\S+)\s+\S+\s+(\S+)", line)
            if not match:
                continue
            bits = match.group(1).replace(" ", "")
            if len(bits) in (16, 32):
                yield (match.group(2), int(re.sub("[01]", "1", bits).replace(".", "0"), 2),
                       int(bits.replace(".", "0"), 2), len(bits) // 8, match.group(3).split(","))


def check_coverage(tap, everything):
    """Every pattern of the .isa file is matched by the code of some vector of its word length."""
    words = {64: set(), 32: set()}
    for xlen, todo in everything.items():
        for vector in todo:
            code = vector.case.code
            for at in range(vector.case.entry, min(len(code), vector.case.entry + 32) - 1, 2):
                words[xlen].add((2, int.from_bytes(code[at:at + 2], "little")))
                words[xlen].add((4, int.from_bytes(code[at:at + 4], "little")))
    if not os.path.exists(ISA_FILE):
        tap.case("every instruction of the .isa file has vectors", skip="no riscv.isa")
        return
    missing, total = [], 0
    for name, mask, match, length, features in isa_patterns():
        for xlen in (64, 32):
            if f"rv{96 - xlen}" in features:
                continue
            total += 1
            if not any(size == length and word & mask == match for size, word in words[xlen]):
                missing.append(f"rv{xlen} {name}")
    problem = None
    if missing or total < 300:
        problem = f"{len(missing)} of {total} have none: " + ", ".join(missing)
    tap.case("every instruction of the .isa file has vectors", problem)


def main():
    emulator = os.environ.get("EMULATOR", "vmd")
    backends = ("jit", "interp") if emulator == "vmd" else (emulator,)
    tap = taplib.Tap()
    everything = {xlen: vectors.load(xlen) for xlen in (64, 32)}
    check_coverage(tap, everything)
    for xlen, todo in everything.items():
        for backend in backends:
            try:
                runner.available(emulator, xlen)
                check_backend(tap, emulator, xlen, backend, todo)
            except runner.guest.Unavailable as missing:
                tap.case(f"rv{xlen} {backend} vectors", skip=str(missing))
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
