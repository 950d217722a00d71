# SPDX-License-Identifier: Apache-2.0
"""The control plane: rows with absolute limits, measured on a private daemon and idle guests.

Every value is the median of the runs; the spread is (maximum - minimum) / minimum.
"""

import os
import signal
import statistics
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
import daemon_lib as lib  # noqa: E402

MANY = 200
DEFINED = 1000
# name: (title, unit, limit)
ROWS = {
    "readopt": ("2 VMs back after kill -9", "ms", 200.0),
    "readopt-many": (f"{MANY} VMs, {DEFINED} defined, back", "ms", 200.0),
    "define": (f"{DEFINED} definitions, durable", "ms", 500.0),
    "stats": (f"statistics of {DEFINED}, one wedged", "ms", 10.0),
    "start": ("define, then start until it runs", "ms", 50.0),
    "kill": ("forced stop of a wedged VM", "ms", 50.0),
    "call": ("round trip of a call", "us", 75.0),
}


def say(text):
    print("bench: " + text, file=sys.stderr, flush=True)


def idle(daemon):
    """A guest that waits for an interrupt that never comes."""
    path = os.path.join(daemon.dir, "idle.bin")
    if not os.path.exists(path):
        with open(path, "wb") as file:
            file.write(lib.word((0x10500073, 0)) + lib.word((0xffdff06f, 0)))
    return path


def config(daemon, name):
    return {"name": name, "firmware": idle(daemon), "memory": 16 * lib.MIB,
            "tcg": {"cache_size": lib.MIB}}


def pipelined(client, calls):
    """Many calls at once, as a program makes them; answers are read meanwhile."""
    open_calls = []
    for method, params in calls:
        open_calls.append(client.send(method, **params))
        if len(open_calls) >= 48:
            client.answer(open_calls.pop(0))
    for number in open_calls:
        client.answer(number)


def timed(function, *args, **params):
    start = time.perf_counter()
    result = function(*args, **params)
    return (time.perf_counter() - start) * 1000.0, result


def readopt(daemon, expected):
    """From the start of a new vmd until it lists the VMs as running."""
    daemon.kill()
    start = time.perf_counter()
    daemon.start(wait=False)
    end = start + 60
    while True:
        try:
            with daemon.client() as client:
                vms = client.call("vm.list", states=["running", "paused"])["vms"]
            if len(vms) == expected:
                return (time.perf_counter() - start) * 1000.0
        except lib.Gone:
            pass
        if time.perf_counter() > end:
            raise AssertionError(f"{expected} VMs were not back within 60 s")
        time.sleep(0.001)


def run_readopt(runs, values):
    with lib.Daemon() as daemon:
        for name in ("a", "b"):
            daemon.call("vm.define", config=config(daemon, name))
            daemon.call("vm.start", vm=name)
        values["readopt"] = [readopt(daemon, 2) for _ in range(runs)]


def run_many(runs, rows, values):
    with lib.Daemon() as daemon, daemon.client(120) as client:
        if "define" in rows:
            values["define"] = []
            for _ in range(runs):
                names = [f"vm{number}" for number in range(DEFINED)]
                ms, _ = timed(pipelined, client, [
                    ("vm.define", {"config": config(daemon, name)}) for name in names])
                values["define"].append(ms)
                pipelined(client, [("vm.delete", {"vm": name}) for name in names])
        pipelined(client, [("vm.define", {"config": config(daemon, f"vm{number}")})
                           for number in range(DEFINED)])
        if "stats" in rows or "readopt-many" in rows:
            for number in range(MANY):
                client.call("vm.start", vm=f"vm{number}")
        if "stats" in rows:
            pid = client.call("vm.get", vm="vm0")["pid"]
            os.kill(pid, signal.SIGSTOP)
            client.call("vm.list", stats=True)
            values["stats"] = [timed(client.call, "vm.list", stats=True)[0] for _ in range(runs)]
            os.kill(pid, signal.SIGCONT)
        if "readopt-many" in rows:
            values["readopt-many"] = [readopt(daemon, MANY) for _ in range(runs)]


def run_one(runs, rows, values):
    with lib.Daemon() as daemon, daemon.client() as client:
        values.update({name: [] for name in ("start", "kill", "call") if name in rows})
        for number in range(runs):
            if "start" in rows or "kill" in rows:
                name = f"s{number}"

                def begin(vm=name):
                    client.call("vm.define", config=config(daemon, vm))
                    return client.call("vm.start", vm=vm)
                ms, info = timed(begin)
                os.kill(info["pid"], signal.SIGSTOP)
                killed, _ = timed(client.call, "vm.stop", vm=name, force=True)
                if "start" in rows:
                    values["start"].append(ms)
                if "kill" in rows:
                    values["kill"].append(killed)
            if "call" in rows:
                trips = sorted(timed(client.call, "api.ping")[0] for _ in range(1000))
                values["call"].append(trips[500] * 1000.0)


def bench(args):
    """Rows of the result file, and what failed."""
    rows = [row for row in ROWS if not args.rows or row in args.rows]
    values, failures, table = {}, [], []
    for name, run in (("readopt", lambda: run_readopt(args.runs, values)),
                      ("many", lambda: run_many(args.runs, rows, values)),
                      ("one", lambda: run_one(args.runs, rows, values))):
        wanted = {"readopt": {"readopt"}, "many": {"readopt-many", "define", "stats"},
                  "one": {"start", "kill", "call"}}[name]
        if not wanted & set(rows):
            continue
        try:
            run()
        except (AssertionError, lib.CallError, lib.Gone, OSError) as problem:
            say(f"{name} failed: {problem}")
            failures.append((name, str(problem).splitlines()[0]))
    for row in rows:
        if not values.get(row):
            continue
        title, unit, limit = ROWS[row]
        got = values[row]
        ours = statistics.median(got)
        table.append({"name": row, "title": title, "unit": unit, "ours": round(ours, 2),
                      "limit": limit, "spread": round((max(got) - min(got)) / min(got), 3)})
        if ours > limit:
            failures.append((row, f"{ours:.1f} {unit}, the limit is {limit:g}"))
    return table, failures
