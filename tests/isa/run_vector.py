# SPDX-License-Identifier: Apache-2.0
"""Vector instructions of vmd-emu: the committed cases of what older references lack, and random ones
against the reference that is installed. VMD_VECTOR_COUNT sets how many, VMD_TEST_SEED which."""

import os
import random
import subprocess
import sys
from importlib.machinery import SourceFileLoader

sys.dont_write_bytecode = True
import runner  # noqa: E402
from vector_image import VectorCase, WINDOW_SIZE  # noqa: E402

sys.path.insert(0, os.path.join(runner.HERE, "..", "lib"))
import tap as taplib  # noqa: E402

DIFF = os.path.join(runner.HERE, "vector_diff")
diff = SourceFileLoader("vector_diff", DIFF).load_module()
SHOWN = 3


def load():
    """(name, case, hash) of every committed case."""
    with open(os.path.join(runner.HERE, "vectors", "vector-rv64.txt"), encoding="ascii") as file:
        for line in file:
            if line.startswith("#"):
                continue
            name, words, fields, result = line.rstrip("\n").split(";")
            values = {key: int(value, 16) for key, _, value in
                      (field.partition("=") for field in fields.split())}
            yield name, VectorCase([int(bits, 16) for bits in words.split()], **values), \
                bytes.fromhex(result)


def committed(tap, backend):
    names, cases, wanted = zip(*load())
    pool = diff.make_pool(random.Random("pool 1"))
    results = diff.Side(f"vmd:{backend}", 256).run(list(cases), pool, pool[:WINDOW_SIZE])
    problems = {}
    for name, case, want, got in zip(names, cases, wanted, results):
        problems.setdefault(name, [])
        if want != got:
            problems[name].append(" ".join(f"{bits:08x}" for bits in case.words) + " " + " ".join(
                f"{key}={value:x}" for key, value in case.values.items()))
    for name, found in problems.items():
        text = f"{len(found)} cases differ\n" + "\n".join(found[:SHOWN]) if found else None
        tap.case(f"{backend} {name} gives the reference's results", text)


def campaign(tap, name, count, *options):
    seed = os.environ.get("VMD_TEST_SEED") or str(random.SystemRandom().getrandbits(32))
    run = subprocess.run([sys.executable, "-B", DIFF, "--seed", seed, "--count", str(count),
                          *options], capture_output=True, text=True, check=False)
    if run.returncode == 77:
        tap.case(name, skip=run.stdout.strip().removeprefix("skipped: "))
        return
    print(f"# {name}: seed {seed}, {run.stdout.strip().splitlines()[-1].lstrip('# ')}")
    tap.case(name, None if run.returncode == 0 else (run.stdout + run.stderr)[-4000:])


def main():
    tap = taplib.Tap()
    count = int(os.environ.get("VMD_VECTOR_COUNT", "6000"))
    try:
        runner.available("vmd", 64)
    except runner.guest.Unavailable as missing:
        tap.case("vector instructions", skip=str(missing))
        return tap.done()
    for backend in ("jit", "interp"):
        committed(tap, backend)
    campaign(tap, "random vector instructions agree with the reference", count)
    campaign(tap, "... in the interpreter", count // 4, "--a", "vmd:interp")
    campaign(tap, "... with registers of 128 bits", count // 5, "--vlen", "128")
    campaign(tap, "... with registers of 1024 bits", count // 5, "--vlen", "1024")
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
