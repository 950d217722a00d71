# SPDX-License-Identifier: Apache-2.0
"""The control plane: rows with absolute limits, and rows held against libvirtd of Debian's packages, both
measured on private daemons and idle guests.

Every value is the median of the runs; the spread is (maximum - minimum) / minimum.
"""

import json
import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
import daemon_hostile  # noqa: E402
sys.path[:0] = [os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "guests")]
import daemon_lib as lib  # noqa: E402
import guest  # noqa: E402
import guest_stuck  # noqa: E402
import tap  # noqa: E402
import libvirt_peer  # noqa: E402

MANY = 200
DEFINED = 1000
HOSTILE = 10000
# name: (title, unit, limit)
ROWS = {
    "readopt": ("2 VMs back after kill -9", "ms", 200.0),
    "readopt-many": (f"{MANY} VMs, {DEFINED} defined, back", "ms", 200.0),
    "define": (f"{DEFINED} definitions, durable", "ms", 500.0),
    "stats": (f"statistics of {DEFINED}, one wedged", "ms", 10.0),
    "start": ("define, then start until it runs", "ms", 50.0),
    "kill": ("forced stop of a wedged VM", "ms", 50.0),
    "kill-p99": ("the same, p99 of 100", "ms", 500.0),
    "kill-fuse": ("forced stop, disk on a stopped FUSE filesystem", "ms", 500.0),
    "call": ("round trip of a call", "us", 75.0),
    "rss": (f"daemon, {DEFINED} defined, {MANY} running", "MiB", 64.0),
    "p99": ("slowest call's p99 there", "ms", 50.0),
    "hostile": (f"a call's p99 during {HOSTILE} hostile attempts", "ms", 50.0),
    "hostile-mem": ("daemon's peak there", "MiB", 128.0),
}
# Against libvirtd: name: (title, unit, least ratio). Throughput where the unit is calls/s.
PEER_ROWS = {
    "rt": ("round trip, p50", "us", 1.0),
    "calls1": ("calls on 1 connection", "calls/s", 1.0),
    "calls8": ("calls on 8 connections", "calls/s", 1.0),
    "define1000": ("define 1,000", "ms", 5.0),
    "list1000": ("list 1,000", "ms", 1.0),
    "stats1000": ("statistics of 1,000 defined", "ms", 5.0),
    "stats16": ("statistics of 16 running", "ms", 5.0),
    "restart1000": ("restart until 1,000 are listed", "ms", 5.0),
    "first": ("create to first console byte", "ms", 1.0),
    "destroy": ("destroy a running VM", "ms", 1.0),
    "client": ("one client process (list)", "ms", 1.0),
}
# The same of ours against its driver test:///default, which keeps everything in memory and runs nothing: what
# is left to compare.
TEST_ROWS = {f"{name}-test": (f"{title}, test:///default", unit, least)
             for name, (title, unit, least) in PEER_ROWS.items()
             if name in ("rt", "calls1", "calls8", "define1000", "list1000", "stats1000", "client")}
PEER_ROWS.update(TEST_ROWS)
LOAD = os.path.join(lib.BUILD, "tests", "bench", "rpc_load")


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


def burst(client, calls):
    """Requests made beforehand, sent as fast as they are taken; the time until the last answer is there, ms. What
    they say is looked at afterwards, as libvirt's XML is made before and its answers are not looked into."""
    out = b"".join(json.dumps({"jsonrpc": "2.0", "id": number, "method": method,
                               "params": params}).encode() + b"\n"
                   for number, (method, params) in enumerate(calls))
    got, lines, at = [], 0, 0
    start = time.perf_counter()
    while lines < len(calls):
        reads, writes, _ = select.select([client.sock], [client.sock] if at < len(out) else [], [], 120)
        if writes:
            at += client.sock.send(out[at:at + 65536], socket.MSG_DONTWAIT)
        if reads:
            got.append(client.sock.recv(1 << 18))
            lines += got[-1].count(b"\n")
    ms = (time.perf_counter() - start) * 1000.0
    for line in b"".join(got).splitlines():
        assert "result" in json.loads(line), line
    return ms


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
                values["define"].append(burst(client, [
                    ("vm.define", {"config": config(daemon, name)}) for name in names]))
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
            values["stats"] = [answered(client, "vm.list", stats=True) for _ in range(runs)]
            os.kill(pid, signal.SIGCONT)
        if "readopt-many" in rows:
            values["readopt-many"] = [readopt(daemon, MANY) for _ in range(runs)]


def kill_p99(daemon, client):
    client.call("vm.define", config=config(daemon, "wedged"))
    times = []
    for _ in range(100):
        os.kill(client.call("vm.start", vm="wedged")["pid"], signal.SIGSTOP)
        times.append(timed(client.call, "vm.stop", vm="wedged", force=True)[0])
    client.call("vm.delete", vm="wedged")
    return sorted(times)[98]


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
            if "kill-p99" in rows:
                values.setdefault("kill-p99", []).append(kill_p99(daemon, client))
            if "call" in rows:
                trips = sorted(timed(client.call, "api.ping")[0] for _ in range(1000))
                values["call"].append(trips[500] * 1000.0)


def run_fuse(runs, values):
    """Of several forced stops the slowest; needs root, /dev/fuse and the guest's image."""
    try:
        values["kill-fuse"] = [max(guest_stuck.forced_stops(4)) for _ in range(runs)]
    except (tap.Skip, guest.Unavailable) as problem:
        say(f"kill-fuse is left out: {problem}")


def rss_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS:"))


def run_crowd(runs, values):
    """What a daemon with many VMs weighs, and how long calls take there."""
    with lib.Daemon() as daemon, daemon.client(120) as client:
        pipelined(client, [("vm.define", {"config": config(daemon, f"vm{number}")})
                           for number in range(DEFINED)])
        for number in range(MANY):
            client.call("vm.start", vm=f"vm{number}")
        calls = {
            "vm.list": {"stats": True}, "vm.get": {"vm": "vm7"}, "vm.stats": {},
            "event.list": {"limit": 1000}, "host.info": {}, "job.list": {},
            "vm.set": {"vm": "vm999", "set": {"cpus": 1}}, "vm.pause": {"vm": "vm3"},
            "vm.resume": {"vm": "vm3"}, "quota.list": {},
        }
        values["p99"], values["rss"] = [], []
        for _ in range(runs):
            times = {method: [] for method in calls}
            for _ in range(100):
                for method, params in calls.items():
                    times[method].append(timed(client.call, method, **params)[0])
            p99 = {method: sorted(got)[98] for method, got in times.items()}
            say("p99, ms: " + ", ".join(f"{method} {p99[method]:.1f}" for method in calls))
            values["p99"].append(max(p99.values()))
            values["rss"].append(rss_mib(daemon.process.pid))


def run_hostile(runs, values):
    values["hostile"], values["hostile-mem"] = [], []
    for number in range(runs):
        times, most = daemon_hostile.campaign(1, number * HOSTILE, HOSTILE)
        values["hostile"].append(times[len(times) * 99 // 100])
        values["hostile-mem"].append(most / lib.MIB)


# --- against libvirtd -----------------------------------------------------------------------------

def rpc_load(kind, where, connections, calls):
    done = subprocess.run([LOAD, kind, where, str(connections), str(calls)], text=True,
                          capture_output=True, timeout=300, check=True)
    return json.loads(done.stdout)


def load_rows(kind, where, add):
    add("rt", rpc_load(kind, where, 1, 5000)["p50_us"])
    add("calls1", rpc_load(kind, where, 1, 10000)["per_s"])
    add("calls8", rpc_load(kind, where, 8, 4000)["per_s"])


def process_ms(command):
    def run():
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return statistics.median(timed(run)[0] for _ in range(15))


def often(function, *args, **params):
    """Median of five calls, ms."""
    return statistics.median(timed(function, *args, **params)[0] for _ in range(5))


def answered(client, method, **params):
    """The same of ours, until the answer is there: Python's reading of it is not the daemon's time."""
    return statistics.median(burst(client, [(method, params)]) for _ in range(5))


def first_byte(path, begin):
    """From the call until the guest's first byte is in the console's file."""
    start = time.perf_counter()
    begin()
    while not os.path.exists(path) or os.path.getsize(path) == 0:
        if time.perf_counter() > start + 30:
            raise AssertionError("the guest wrote nothing within 30 s")
        time.sleep(0.0002)
    return (time.perf_counter() - start) * 1000.0


def speak(daemon, name):
    return {**config(daemon, name), "firmware": daemon.guest()}


def ours(add):
    with lib.Daemon() as daemon, daemon.client(120) as client:
        load_rows("vmd", daemon.sock, add)
        client.call("vm.define", config=speak(daemon, "first"))
        log = client.call("vm.start", vm="first") and client.call("vm.console", vm="first")["log"]
        add("destroy", timed(client.call, "vm.stop", vm="first", force=True)[0])
        client.call("vm.delete", vm="first")
        number = int(os.path.basename(os.path.dirname(log))) + 1
        log = os.path.join(os.path.dirname(os.path.dirname(log)), str(number),
                           os.path.basename(log))
        add("first", first_byte(log, lambda: (
            client.call("vm.define", config=speak(daemon, "first")),
            client.call("vm.start", vm="first"))))
        for number in range(15):
            client.call("vm.define", config=config(daemon, f"run{number}"))
            client.call("vm.start", vm=f"run{number}")
        add("stats16", answered(client, "vm.stats"))
        add("client", process_ms([os.path.join(lib.BUILD, "vmctl"), "--dir", daemon.dir, "list",
                                  "--quiet"]))
    with lib.Daemon() as daemon:
        with daemon.client(120) as client:
            add("define1000", burst(client, [
                ("vm.define", {"config": config(daemon, f"vm{number}")})
                for number in range(DEFINED)]))
            add("list1000", answered(client, "vm.list"))
            add("stats1000", answered(client, "vm.list", stats=True))
        daemon.kill()
        start = time.perf_counter()
        daemon.start(wait=False)
        while True:
            try:
                with daemon.client() as client:
                    tally = len(client.call("vm.list")["vms"])
                break
            except lib.Gone:
                time.sleep(0.001)
        add("restart1000", (time.perf_counter() - start) * 1000.0)
        assert tally == DEFINED


def theirs(add):
    with libvirt_peer.Libvirtd() as virt:
        loop, wait = os.path.join(virt.dir, "loop.bin"), os.path.join(virt.dir, "wait.bin")
        with open(loop, "wb") as file:
            file.write(lib.payload())
        with open(wait, "wb") as file:
            file.write(lib.word((0x10500073, 0)) + lib.word((0xffdff06f, 0)))
        for path in (loop, wait):
            os.chmod(path, 0o644)
        conn = virt.connect()
        conn.define(virt.xml("warm", loop, os.path.join(virt.dir, "warm.log")))
        conn.start("warm")  # it has looked at the emulator once
        conn.destroy("warm")
        conn.undefine("warm")
        load_rows("libvirt", virt.uri, add)
        log = os.path.join(virt.dir, "first.log")
        add("first", first_byte(log, lambda: (
            conn.define(virt.xml("first", loop, log)), conn.start("first"))))
        add("destroy", timed(conn.destroy, "first")[0])
        for number in range(16):
            conn.define(virt.xml(f"run{number}", wait, os.path.join(virt.dir, f"{number}.log")))
            conn.start(f"run{number}")
        conn.stats()  # its first looks at every emulator of the machine, for many seconds
        add("stats16", often(conn.stats))
        add("client", process_ms(["virsh", "-c", virt.uri, "list", "--all", "--name"]))
        for number in range(16):
            conn.destroy(f"run{number}")
            conn.undefine(f"run{number}")
        conn.undefine("first")
        xml = [virt.xml(f"vm{number}", wait, "/dev/null") for number in range(DEFINED)]
        add("define1000", timed(lambda: [conn.define(text) for text in xml])[0])
        add("list1000", often(conn.list))
        add("stats1000", often(conn.stats))
        conn.close()
        virt.kill()
        start = time.perf_counter()
        virt.start()
        while True:
            conn = virt.connect()
            tally = conn.list()
            conn.close()
            if tally == DEFINED:
                break
            time.sleep(0.001)
        add("restart1000", (time.perf_counter() - start) * 1000.0)
        theirs_in_memory(virt, add)


def theirs_in_memory(virt, add):
    """Its test driver, by the same daemon; its client once by itself, as people know it."""
    uri = virt.test_uri()
    load_rows("libvirt", uri, lambda name, value: add(name + "-test", value))
    conn = virt.connect(uri=uri)
    xml = [virt.xml_test(f"vm{number}") for number in range(DEFINED)]
    add("define1000-test", timed(lambda: [conn.define(text) for text in xml])[0])
    add("list1000-test", often(conn.list))
    add("stats1000-test", often(conn.stats))
    conn.close()
    add("client-test", process_ms(["virsh", "-c", "test:///default", "list", "--all", "--name"]))


def bench_peer(args, rows, mine=ours):
    """Both in turns, in one run."""
    values, failures, table = {}, [], []
    for _ in range(args.runs):
        for who, run in (("ours", mine), ("theirs", theirs)):
            run(lambda name, value, who=who: values.setdefault(name, {}).setdefault(
                who, []).append(value))
    for name in TEST_ROWS:
        values.setdefault(name, {})["ours"] = values[name.removesuffix("-test")]["ours"]
    for name in rows:
        title, unit, least = PEER_ROWS[name]
        got, peer = (statistics.median(values[name][who]) for who in ("ours", "theirs"))
        ratio = got / peer if unit == "calls/s" else peer / got
        spread = (max(values[name]["ours"]) - min(values[name]["ours"])) / min(values[name]["ours"])
        table.append({"name": name, "title": title, "unit": unit, "ours": round(got, 2),
                      "peer": "libvirt", "peer_value": round(peer, 2), "ratio": round(ratio, 3),
                      "cpu_ratio": round(ratio, 3), "least": least, "spread": round(spread, 3)})
        if ratio < least:
            failures.append((name, f"{ratio:.2f} times libvirt's, {least:g} is the least"))
    return table, failures


def bench(args):
    """Rows of the result file, and what failed."""
    rows = [row for row in ROWS if not args.rows or row in args.rows]
    values, failures, table = {}, [], []
    for name, run in (("readopt", lambda: run_readopt(args.runs, values)),
                      ("many", lambda: run_many(args.runs, rows, values)),
                      ("one", lambda: run_one(args.runs, rows, values)),
                      ("fuse", lambda: run_fuse(args.runs, values)),
                      ("crowd", lambda: run_crowd(args.runs, values)),
                      ("hostile", lambda: run_hostile(args.runs, values))):
        wanted = {"readopt": {"readopt"}, "many": {"readopt-many", "define", "stats"},
                  "one": {"start", "kill", "kill-p99", "call"}, "crowd": {"rss", "p99"},
                  "fuse": {"kill-fuse"}, "hostile": {"hostile", "hostile-mem"}}[name]
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
        value = statistics.median(got)
        table.append({"name": row, "title": title, "unit": unit, "ours": round(value, 2),
                      "limit": limit, "spread": round((max(got) - min(got)) / min(got), 3)})
        if value > limit:
            failures.append((row, f"{value:.1f} {unit}, the limit is {limit:g}"))
    against = [row for row in PEER_ROWS if not args.rows or row in args.rows]
    if against:
        try:
            more, failed = bench_peer(args, against)
            table += more
            failures += failed
        except libvirt_peer.Unavailable as problem:
            say(f"no libvirt to compare with: {problem}")
        except (AssertionError, lib.CallError, lib.Gone, OSError,
                subprocess.SubprocessError) as problem:
            failures.append(("libvirt", str(problem).splitlines()[0]))
    return table, failures
