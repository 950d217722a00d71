# SPDX-License-Identifier: Apache-2.0
"""States in numbers: files that are cut, flipped, or hostile behind a seal that holds are refused, and what they were to change stands as
it was; what is saved and loaded, again and again, stays the same (promise R6).

    state_many.py [--seed N] [--from N] [--count N] [--cycles N]

Number I of a seed is always the same file. Hostile files are written in format 1, whose seals need SHA-256 alone."""

import argparse
import hashlib
import hmac
import json
import os
import random
import struct
import sys
import zlib

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from emu_lib import Client, Emu, ready, tap  # noqa: E402
from state import MEMORY, digests, echo, entries, format_1, load, save  # noqa: E402

INFO, MACHINE = 1, 2
WRONG_NUMBERS = (0, 1, 2, 255, 1 << 15, (1 << 16) - 1, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1)


def sections(data):
    """[[type, region, page, bytes]] in their order in the file."""
    return [[*key, bytes(data[at:at + size])] for key, (at, size, _) in sorted(entries(data).items(), key=lambda e: e[1][0])]


def assemble(head, parts, unsorted=False):
    """A file of format 1 of these sections, under a seal that holds."""
    out, index = bytearray(head), []
    for kind, region, page, body in parts:
        said = struct.pack("<IIQQ", kind, region, page, len(body))
        index.append((kind, region, page, struct.pack("<IIQQQ", kind, region, page, len(out), len(body)) + hashlib.sha256(said + body).digest()))
        out += body
    rows = b"".join(row[3] for row in (index if unsorted else sorted(index)))
    tail = b"VMDSTEND" + struct.pack("<IIQQ", 1, 64, len(out), len(rows))
    seal = hmac.new(bytes(range(32)), bytes(out[:64]) + rows + tail, hashlib.sha256).digest()
    return bytes(out + rows + tail + seal)


def objects(machine):
    """Where the parts of a machine begin: [(offset of the length, length)]."""
    found, at = [], 0
    while at < len(machine) and machine[at]:
        for _ in range(2):
            at += 1 + machine[at]
        length = struct.unpack_from("<I", machine, at)[0]
        found.append((at, length))
        at += 8 + length
    return found


def with_sum(machine, at, length, body):
    """The machine with another body in a part, whose sum is right."""
    said = struct.pack("<I", len(body)) + body
    return machine[:at] + said + struct.pack("<I", zlib.crc32(said)) + machine[at + 8 + length:]


# --- what is done to a sound file. Each returns another file, or the same by chance. ---

def cut(rng, state):
    return state[:rng.randrange(len(state))]


def flip(rng, state):
    bad = bytearray(state)
    for _ in range(rng.choice((1, 1, 2, 8))):
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
    return bytes(bad)


def outside_memory(rng, state):
    spots = [(at, size) for (kind, _, _), (at, size, _) in entries(state).items() if kind != MEMORY]
    index = struct.unpack_from("<Q", state, len(state) - 48)[0]
    at, size = rng.choice([*spots, (0, 64), (index, len(state) - index)])
    bad = bytearray(state)
    bad[at + rng.randrange(size)] ^= 1 << rng.randrange(8)
    return bytes(bad)


def grown(rng, state):
    at = rng.choice((len(state), rng.randrange(len(state))))
    return state[:at] + rng.randbytes(rng.choice((1, 64, 4096))) + state[at:]


def trailer(rng, state):
    bad = bytearray(state)
    struct.pack_into("<Q", bad, len(bad) - 48 + 8 * rng.randrange(2), rng.choice(WRONG_NUMBERS))
    return bytes(bad)


def sealed_info(rng, state):
    """JSON that says something else."""
    parts = sections(state)
    info = next(part for part in parts if part[0] == INFO)
    what = json.loads(info[3])
    how = rng.randrange(5)
    if how == 0:
        info[3] = info[3][:rng.randrange(len(info[3]))]
    elif how == 1:
        what[rng.choice(list(what))] = rng.choice((None, 7, "", [], {}, [[]], "x" * 70000, -1))
        info[3] = json.dumps(what).encode()
    elif how == 2:
        what["memory"][0][rng.choice(("name", "size"))] = rng.choice((0, -1, 1 << 62, "ram2", None))
        info[3] = json.dumps(what).encode()
    elif how == 3:
        info[3] = b"[" * rng.choice((30, 100000))
    else:
        info[3] = rng.randbytes(rng.randrange(300))
    return assemble(state[:64], parts)


def sealed_machine(rng, state):
    """A part of the machine with another body, under sums that hold."""
    parts = sections(state)
    machine = next(part for part in parts if part[0] == MACHINE)
    at, length = rng.choice(objects(machine[3]))
    body = bytearray(machine[3][at + 4:at + 4 + length])
    how = rng.randrange(5)
    if how == 0:
        body = body[:rng.randrange(len(body) + 1)]
    elif how == 1:
        body += rng.randbytes(rng.randrange(1, 100))
    elif how == 2:
        for _ in range(rng.randrange(1, 4)):
            body[rng.randrange(len(body))] = rng.randrange(256)
    elif how == 3:
        number = rng.choice(WRONG_NUMBERS)
        size = rng.choice((2, 4, 8))
        spot = rng.randrange(max(1, len(body) - size))
        body[spot:spot + size] = (number & (1 << 8 * size) - 1).to_bytes(size, "little")
    else:
        machine[3] = machine[3][:at - rng.randrange(3)]
        return assemble(state[:64], parts)
    machine[3] = with_sum(machine[3], at, length, bytes(body))
    return assemble(state[:64], parts)


def sealed_memory(rng, state):
    """A piece of memory that is none, or not there."""
    parts = sections(state)
    piece = rng.choice([part for part in parts if part[0] == MEMORY])
    how = rng.randrange(6)
    if how == 0:
        piece[3] = piece[3][:rng.randrange(len(piece[3]))]
    elif how == 1:
        piece[3] = bytes([rng.choice((0, 1, 2, 255))]) + rng.randbytes(rng.randrange(200))
    elif how == 2:
        piece[1] = rng.choice((7, 255, (1 << 32) - 1))
    elif how == 3:
        piece[2] = rng.choice((1, 255, 1 << 30, 1 << 52, (1 << 64) - 256))
    elif how == 4:
        body = bytearray(piece[3])
        body[40 + rng.randrange(max(1, len(body) - 40))] ^= 1 << rng.randrange(8)
        piece[3] = bytes(body)
    else:
        bomb = zlib.compress(bytes(1 << 20))  # no zstd; as it is named one
        piece[3] = b"\1" + bytes(7) + b"\xff" * 32 + bomb
    return assemble(state[:64], parts)


def sealed_sections(rng, state):
    """Sections of unknown kinds, doubled, missing, out of order."""
    parts = sections(state)
    how = rng.randrange(4)
    if how == 0:
        parts.append([rng.choice((0, 4, 9, (1 << 32) - 1)), 0, 0, rng.randbytes(rng.randrange(100))])
    elif how == 1:
        parts.append(list(rng.choice(parts)))
    elif how == 2:
        parts.remove(rng.choice(parts))
    else:
        rng.shuffle(parts)
        return assemble(state[:64], parts, unsorted=True)
    return assemble(state[:64], parts)


KINDS = (cut, flip, outside_memory, grown, trailer, sealed_info, sealed_machine, sealed_memory, sealed_sections)


class Target:
    """An emulator that is paused and has run nothing, made anew when a file has got to it."""

    def __init__(self):
        self.emu = None

    def __enter__(self):
        self.renew()
        return self

    def __exit__(self, *_):
        self.emu.__exit__(None, None, None)

    def renew(self):
        if self.emu:
            self.emu.__exit__(None, None, None)
        self.emu = Emu(paused=True)
        self.client = Client(self.emu)
        self.before = digests(save(self.client)[0])

    def changed(self):
        answer = save(self.client)
        return "error" in answer[1] or digests(answer[0]) != self.before


def one(target, state, old, seed, number):
    """What came of a file. Either nothing has changed, or the machine never runs; of files that lack an end one in five is looked at."""
    rng = random.Random(f"{seed}/{number}")
    kind = KINDS[number % len(KINDS)]
    sealed = kind.__name__.startswith("sealed")
    bad = kind(rng, old if sealed else state)
    what = f"number {number}, {kind.__name__}"
    answer = load(target.client, bad)
    if "started paused" in answer.get("error", {}).get("message", ""):  # the file before got as far as this machine
        target.renew()
        answer = load(target.client, bad)
    tap.check(target.emu.process.poll() is None, f"{what}: the emulator has ended")
    error = answer.get("error")
    if error is None:
        tap.check(sealed or bad == state, f"{what}: taken: {answer}")
        target.renew()
        return "taken"  # a state of its own; it is never run here
    tap.check(len(error["message"]) > 12, f"{what}: {error}")
    whole = kind in (cut, grown, trailer)  # seen before anything is read into the machine
    if number % 5 and whole:
        return "refused"
    changed = target.changed()
    tap.check(not changed or not whole, f"{what}: the machine has changed")
    if changed:
        resumed = target.client.call("emu.resume")
        tap.check(resumed.get("error", {}).get("data", {}).get("error") == "bad-state", f"{what}: a machine that has changed runs")
        target.renew()
    return "refused, and never runs" if changed else "refused, nothing has changed"


def hostile(options):
    with Emu() as emu:
        console, client = ready(emu)
        echo(console, b"a")
        state, _ = save(client)
    old = format_1(state)
    tap.check(assemble(old[:64], sections(old)) == old, "the sound file is not put together as it was")
    counts = {}
    with Target() as target:
        for number in range(options.first, options.first + options.count):
            what = KINDS[number % len(KINDS)].__name__, one(target, state, old, options.seed, number)
            counts[what] = counts.get(what, 0) + 1
    for (kind, outcome), n in sorted(counts.items()):
        print(f"# {kind}: {n} {outcome}")


def cycles(options):
    """Saved, loaded elsewhere, goes on for a moment, is saved again: what was loaded is what was saved."""
    with Emu() as emu:
        console, client = ready(emu)
        state, _ = save(client)
    for number in range(options.cycles):
        with Emu(paused=True) as emu:
            console, client = emu.connect(emu.console), Client(emu)
            tap.check("result" in load(client, state, lazy=bool(number % 2)), f"cycle {number}: not loaded")
            again, _ = save(client)
            tap.check(digests(again) == digests(state), f"cycle {number}: what was loaded is not what was saved")
            client.ok("emu.resume")
            echo(console, b"abcd"[number % 4:number % 4 + 1])
            client.ok("emu.pause")
            state, _ = save(client)
    print(f"# {options.cycles} cycles")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("VMD_TEST_SEED", random.randrange(1 << 30))))
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--count", type=int, default=450)
    parser.add_argument("--cycles", type=int, default=25)
    options = parser.parse_args()
    print(f"# seed {options.seed}")

    def hostile_files_are_refused_and_change_nothing():
        hostile(options)

    def what_is_saved_and_loaded_stays_the_same():
        cycles(options)

    sys.argv = sys.argv[:1]
    return tap.run_cases([hostile_files_are_refused_and_change_nothing, what_is_saved_and_loaded_stays_the_same])


if __name__ == "__main__":
    sys.exit(main())
