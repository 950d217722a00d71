# SPDX-License-Identifier: Apache-2.0
"""Recordings of a booting Linux with network, disk, entropy and somebody who types, each replayed three times to the same state.

    replay_soak.py [--seed N] [--from N] [--count N]        (make soak SOAK_ARGS='--count 100000 replay')

Case I of a seed is always the same machine (vCPUs, clock, disk, work); when what comes from outside comes is never the same.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import replay_lib as lib  # noqa: E402
from replay_lib import tap  # noqa: E402

WORK = ("rng", "disk", "diskwrite:one", "net", "diskwrite:two", "disk", "rng", "net")


def types(pipe, rng, done):
    """Somebody at the console, at moments of the host's choice."""
    while not done.wait(rng.random() * 0.3):
        try:
            pipe.write(bytes(rng.choice(b"abc \n") for _ in range(rng.randrange(1, 20))))
        except OSError:
            return


def record(config, log, rng):
    with subprocess.Popen([lib.EMU, "--config", config, "--sandbox", "off", "--record", log], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as p:
        done = threading.Event()
        typist = threading.Thread(target=types, args=(p.stdin, rng, done))
        out = []
        reader = threading.Thread(target=lambda: out.append(p.stdout.read()))
        errors = []
        teller = threading.Thread(target=lambda: errors.append(p.stderr.read()))
        for thread in (typist, reader, teller):
            thread.start()
        try:
            p.wait(lib.LIMIT * 2)
        finally:
            done.set()
            if p.poll() is None:
                p.kill()
            for thread in (typist, reader, teller):
                thread.join()
        return lib.Run(subprocess.CompletedProcess([], p.returncode, out[0], errors[0]))


def case(seed, number):
    rng = random.Random(f"{seed}/{number}")
    with tempfile.TemporaryDirectory() as d:
        base, image, log = (os.path.join(d, n) for n in ("base", "image", "a.rec"))
        lib.new_image(base, rng.random())
        shutil.copy(base, image)
        work = rng.sample(WORK, rng.randrange(3, len(WORK)))
        work += [w for w in ("disk", "net") if w not in work]
        config = lib.linux(d, image, run=",".join(work + ["poweroff"]), cpus=rng.choice((1, 1, 1, 2, 3)),
                           tcg={"icount": rng.choice((0, 0, 1, 3))})
        was = record(config, log, rng)
        what = f"seed {seed} case {number}"
        tap.check(was.status == 0 and was.state, f"{what}: {was}")
        tap.check(b"NET eth0 10.0.2.15" in was.out and b"DISK 16384" in was.out, f"{what}: {was.out[-800:]}")
        points, at = set(), str(rng.randrange(was.count))
        shutil.copy(base, image)
        for _ in range(3):
            run = lib.replay(config, log)
            tap.check((run.status, run.state, run.count) == (0, was.state, was.count), f"{what}: {was.state}: {run}")
            tap.check(run.out == was.out, f"{what}: the consoles differ")
        for _ in range(2):
            points.add(lib.replay(config, log, "--replay-to", at).state)
        tap.check(open(image, "rb").read() == open(base, "rb").read(), f"{what}: a replay wrote to the disk")
        tap.check(len(points) == 1 and None not in points, f"{what}: they differ at {at}")


def main():
    parser = argparse.ArgumentParser()
    for name, value in (("--seed", 1), ("--from", 0), ("--count", 10)):
        parser.add_argument(name, type=int, default=value)
    args = vars(parser.parse_args())
    for number in range(args["from"], args["from"] + args["count"]):
        try:
            case(args["seed"], number)
        except lib.guest.Unavailable as e:
            print(f"skipped: {e}")
            return 77
        print(f"case {number}: three times the same", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
