#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Live migration between two daemons over mutual TLS: the guest checks its memory, nothing is lost, never two run. Campaign:
--seed N --from N --count N faults at random points; the checked-in run makes a few."""

import argparse
import json
import os
import random
import socket
import sqlite3
import struct
import sys
import time
import zlib

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import migrate_lib  # noqa: E402
import remote_lib as remote  # noqa: E402
import tap  # noqa: E402


def a_guest_goes_to_and_fro():
    with migrate_lib.Pair() as pair:
        pair.define(pages=256, cpus=2)
        here, there = pair.both
        for number in range(6):
            pair.watch(here)
            job = pair.migrate(here, there, streams=1 + number % 4, cache=0 if number == 2 else 1 << 20)
            tap.check(job["state"] == "done", f"{number}: {job}\n{here.tail()}\n{there.tail()}")
            tap.check(pair.states()[pair.both.index(here)] is None, f"it is still there: {pair.states()}")
            vm = there.call("vm.get", vm="a")
            tap.check((vm["state"], vm["transient"]) == ("running", False), f"{vm}")
            tap.check(here.call("migrate.list")["migrations"] == [], "something is left")
            here, there = there, here
        pair.watch(here)
        here.call("vm.pause", vm="a")
        tap.check(pair.migrate(here, there)["state"] == "done", "a paused one does not move")
        tap.check(there.call("vm.get", vm="a")["state"] == "paused", "it was paused")
        there.call("vm.resume", vm="a")
        pair.watch(there)


def what_would_fail_is_told_before_the_guest_is_paused():
    with migrate_lib.Pair(join=False) as pair:
        here, there = pair.both
        pair.define()
        url = pair.url(there)
        with here.client() as client:
            def refused(code, text, **more):
                seen = len([e for e in client.events if e.get("state") == "paused"])
                job = client.call("job.wait", job=client.call("migrate.start", vm="a", to=url, **more)["job"])
                tap.check(job["state"] == "failed" and job["error"]["error"] in code.split() and text in job["error"]["message"],
                          f"{code}, {text}: {job}")
                tap.check(client.call("vm.get", vm="a")["reason"] == "resume", "it was touched")
                tap.check([e for e in client.events if e.get("state") == "paused"][seen:] == [], "it was paused")
                return job
            client.call("event.subscribe")
            client.fails("denied", "migrate.start", vm="a", to=url)
            client.fails("invalid-params", "migrate.start", vm="a", to="http://x")
            pair.introduce(here, there, role="viewer", project="default")
            refused("denied", "role")
            there.call("user.set", user="peer", role="admin", project="*")
            # The name is taken.
            other = there.config("a")
            there.call("vm.define", config=other)
            refused("exists", "exists already")
            there.call("vm.delete", vm="a")
            tap.check(pair.migrate(here, there, check=True)["state"] == "done", "it would go")
            tap.check(pair.states() == ["running", None], f"{pair.states()}")
            # An image that is not there.
            hidden = os.path.join(here.dir, "checker256.bin")
            os.rename(hidden, hidden + ".away")
            refused("file-error", "checker256")
            os.rename(hidden + ".away", hidden)
            # A certificate of another authority.
            forge = remote.Forge(here)
            bad = forge.make("bad", subject="/CN=peer")
            folder = os.path.join(here.dir, "lib", "peers", f"127.0.0.1_{there.port}")
            for name, source in (("cert.pem", bad.cert), ("key.pem", bad.key)):
                with open(source, "rb") as a, open(os.path.join(folder, name), "wb") as b:
                    b.write(a.read())
            refused("denied unresponsive", "")  # in TLS 1.3 a server tells after the handshake
            tap.check(there.call("migrate.list")["migrations"] == [], "something is left")
        pair.watch(here)


def devices_that_came_meanwhile_keep_it_here():
    with migrate_lib.Pair() as pair:
        here, there = pair.both
        pair.define(root_ports=2)
        with here.client() as client:
            client.call("vm.attach", vm="a", nic={"name": "late", "type": "none", "bus": "virtio-pci"})
            for check in (True, False):
                job = pair.migrate(here, there, check=check)
                tap.check(job["state"] == "failed" and "network card 'late'" in job["error"]["message"], f"{check}: {job}")
                tap.check(pair.states() == ["running", None], f"{pair.states()}")
            # Whoever asks the emulator itself hears the same; nothing was sent, and the guest never stood still.
            emulator = Emulator(here, "a")
            tap.check("'late'" in emulator.client.call("emu.migrate_status")["stays"], "it would go")
            emulator.lend(0)
            tap.check("'late'" in emulator.client.fails("bad-state", "emu.migrate_out", streams=1).message, "another reason")
            client.call("vm.detach", vm="a", nic="late")
        job = pair.migrate(here, there)
        tap.check(job["state"] == "done", f"{job}")
        pair.watch(there)


def a_migration_is_cancelled():
    with migrate_lib.Pair() as pair:
        here, there = pair.both
        pair.define(pages=1024)
        job = pair.migrate(here, there, wait=False, bandwidth=20000)
        lib.wait_for(lambda: [m for m in here.call("migrate.list")["migrations"] if m["state"] == "copying"], 30, "copying")
        here.call("job.cancel", job=job)
        done = here.call("job.wait", job=job, timeout_ms=30000)
        tap.check(done["state"] == "cancelled", f"{done}")
        lib.wait_for(lambda: pair.states() == ["running", None], 30, "it stays where it was")
        pair.watch(here)
        tap.check(pair.migrate(here, there)["state"] == "done", "and moves another time")
        pair.watch(there)


def nobody_runs_it(here):
    """While it is given away it is paused and stays so; the other's last word may still come while we look."""
    with here.client() as client:
        def given():
            return any(m["state"] == "given" for m in client.call("migrate.list")["migrations"])
        if not given():
            return
        seen = [vm["state"] for vm in client.call("vm.list")["vms"] if vm["name"] == "a"]
        tap.check(not given() or seen in (["paused"], ["stopping"], []), f"in doubt and not paused: {seen}")
        try:
            tap.check(False, f"resumed: {client.call('vm.resume', vm='a')}")
        except lib.CallError as error:
            tap.check(error.error in ("bad-state", "not-found"), f"{error}")


def in_doubt_it_is_paused_until_the_daemons_meet():
    """The destination is gone when the source has given the VM away: nobody runs it, then the destination does."""
    with migrate_lib.Pair() as pair:
        here, there = pair.both
        pair.define()
        met = {"there": 0, "here": 0, "resolved": 0}
        for number in range(6):
            job = pair.migrate(here, there, wait=False)
            lib.wait_for(lambda: here.call("job.get", job=job)["state"] != "queued", 30, "begun")
            time.sleep(0.02 * number)
            there.kill()
            nobody_runs_it(here)
            there.start()
            owner = settle(pair)
            met["here" if owner is here else "there"] += 1
            if owner is there:
                here, there = there, here
            pair.watch(here)
        print(f"# {met}")


def locked(daemon):
    """Its store, whose commits wait until this is rolled back."""
    store = sqlite3.connect(os.path.join(daemon.dir, "lib", "vmd.db"), isolation_level=None, timeout=30)
    store.execute("BEGIN IMMEDIATE")
    return store


def said(daemon):
    with open(daemon.log, encoding="utf-8", errors="replace") as file:
        return file.read()


def given_and_its_emulator_dead(pair):
    """The source has given it away, the destination cannot record it; then the source's emulator dies, which cannot be recorded."""
    here, there = pair.both
    pair.migrate(here, there, wait=False, bandwidth=20000)
    lib.wait_for(lambda: [m for m in here.call("migrate.list")["migrations"] if m["state"] == "copying"], 150, "copying")
    theirs = locked(there)
    try:
        Emulator(here, "a").client.call("emu.migrate_set", bandwidth=0)
        lib.wait_for(lambda: [m for m in here.call("migrate.list")["migrations"] if m["state"] == "given"], 150, "given")
        ours = locked(here)
        for pids in here.emulators().values():
            for pid in pids:
                lib.kill(pid)
        lib.wait_for(lambda: here.call("vm.get", vm="a")["state"] == "crashed", 150, "the end")
    finally:
        theirs.execute("ROLLBACK")
        theirs.close()
    return ours


def what_has_moved_is_gone_from_the_store():
    """The end of the source's emulator and the other daemon's word cross each other: its definition goes all the same."""
    with migrate_lib.Pair() as pair:
        pair.define()
        here, there = pair.both
        ours = given_and_its_emulator_dead(pair)
        lib.wait_for(lambda: "has moved to" in said(here), 150, "the word of the other")
        ours.execute("ROLLBACK")
        ours.close()
        tap.check(settle(pair) is there, "it has moved")
        here.kill()
        here.start()
        tap.check(pair.states() == [None, "running"], f"it is back: {pair.states()}")
        tap.check(pair.migrate(there, here)["state"] == "done", "its name is taken")
        pair.watch(here)


def a_definition_that_stays_runs_only_when_somebody_says_so():
    """It would start by itself after every end, and with the host; the source's daemon dies when it has given the VM away."""
    with migrate_lib.Pair() as pair:
        here, there = pair.both
        pair.define(restart={"mode": "always", "delay_ms": 1}, autostart={"enabled": "on"})
        here.call("migrate.set", vm="a", bandwidth=20000)
        pair.migrate(here, there, wait=False, keep=True, transient=True)
        lib.wait_for(lambda: [m for m in here.call("migrate.list")["migrations"] if m["state"] == "copying"], 150, "copying")
        theirs = locked(there)
        try:
            here.call("migrate.set", vm="a", bandwidth=0, downtime_ms=1000)
            lib.wait_for(lambda: [m for m in here.call("migrate.list")["migrations"] if m["state"] == "given"], 150, "given")
            here.kill()
        finally:
            theirs.execute("ROLLBACK")
            theirs.close()
        here.start()
        lib.wait_for(lambda: pair.states() == ["stopped", "running"], 150, f"that it runs there: {pair.states()}")
        pair.watch(there)
        lib.wait_for(lambda: not here.call("migrate.list")["migrations"], 150, "the end")
        here.kill()
        here.start()
        tap.check(pair.states() == ["stopped", "running"], f"both run: {pair.states()}")
        config = here.call("vm.list", config=True)["vms"][0]["config"]
        tap.check("autostart" not in config and "restart" in config, f"it starts by itself: {config}")
        there.call("vm.stop", vm="a", force=True)
        lib.wait_for(lambda: pair.states() == ["stopped", None], 150, "that it was a transient one")


def emulators(pair):
    return [pid for one in pair.both for pids in one.emulators().values() for pid in pids]


def settle(pair, name="a", timeout=60.0):
    """Whoever has it in the end; never two meanwhile."""
    end = time.monotonic() + timeout
    while True:
        states = pair.states(name)
        tap.check(states.count("running") < 2, f"two run: {states}")
        quiet = all(not one.call("migrate.list")["migrations"] for one in pair.both)
        ended = sorted(map(str, states)) in (["None", "running"], ["None", "crashed"], ["None", "stopped"])
        if quiet and ended and len(emulators(pair)) == ("running" in states):
            return pair.both[0 if states[0] else 1]
        if time.monotonic() > end:
            raise AssertionError(f"no end: {states} {[one.call('migrate.list') for one in pair.both]}\n"
                                 f"{pair.both[0].tail()}\n{pair.both[1].tail()}")
        time.sleep(0.02)


def fault(pair, here, there, rng, number):
    """One of the four dies at a random moment of a migration."""
    what = rng.choice(["source", "destination", "source-emulator", "destination-emulator"])
    delay = rng.choice([rng.random() * 0.25, rng.random() * 0.08])
    pair.migrate(here, there, wait=False, streams=rng.randrange(1, 4))
    time.sleep(delay)
    if what in ("source", "destination"):
        one = here if what == "source" else there
        one.kill()
        time.sleep(rng.random() * 0.1)
        runs = [s for s in pair.states() if s == "running"]
        tap.check(len(runs) < 2, f"two run: {runs}")
        one.start()
    else:
        one = here if what == "source-emulator" else there
        for pids in one.emulators().values():
            for pid in pids:
                lib.kill(pid)
                lib.wait_for(lambda: not lib.alive(pid), 20, "it is dead")
    owner = settle(pair)
    state = owner.call("vm.get", vm="a")["state"]
    end = f"{what} {'moved' if owner is there else 'stayed'} {state}"
    if "emulator" not in what:
        tap.check(state == "running", f"{number}: {end}: nobody's emulator died\n{here.tail()}\n{there.tail()}")
    if what == "destination-emulator" and owner is here:
        tap.check(state == "running", f"{number}: {end}: the source did not die")
    if state == "running":
        pair.watch(owner, passes=2)
    else:
        owner.call("vm.start", vm="a")
    return owner, end


def campaign(seed, first, count):
    ends = {}
    with migrate_lib.Pair() as pair:
        pair.define(pages=512)
        here, there = pair.both
        for number in range(first, first + count):
            rng = random.Random(f"{seed}:{number}")
            try:
                owner, end = fault(pair, here, there, rng, number)
            except BaseException:
                print(f"# fault {number} of seed {seed}, source {here.dir}\n{pair.both[0].tail()}\n{pair.both[1].tail()}")
                raise
            ends[end] = ends.get(end, 0) + 1
            if owner is there:
                here, there = there, here
    print(f"# seed {seed}, {count} faults: {ends}")


def whoever_dies_one_has_it():
    seed = int(os.environ.get("VMD_TEST_SEED", random.randrange(1 << 30)))
    print(f"# seed {seed}")
    campaign(seed, 0, 12)


def vmctl_moves_a_vm():
    with migrate_lib.Pair() as pair:
        here, there = pair.both
        pair.define()
        url = pair.url(there)
        tap.check(url in here.vmctl("peer", "list"), "it is not listed")
        here.vmctl("migrate", "a", url, "--check")
        here.vmctl("migrate", "a", url, "--streams", "3")
        tap.check(here.vmctl("migrate", "list", "-q") == "", "something is left")
        tap.check("running" in there.vmctl("list"), "it does not run there")
        there.vmctl("migrate", "resolve", "a", "--owner", "here", status=5)
        here.vmctl("peer", "rm", url)
        here.vmctl("peer", "rm", url, status=4)


def tickets_name_one_migration():
    with migrate_lib.Pair() as pair, pair.both[1].client() as client:
        here, there = pair.both
        for method in ("migrate.complete", "migrate.commit", "migrate.abort", "migrate.finish"):
            client.fails("not-found", method, ticket="0" * 64)
        config = {**here.config("a"), "uuid": "6ad7e7a4-5e4b-4dd6-b4d7-5f2ccf0e0e0a", "firmware": pair.guest()}
        client.fails("unsupported", "migrate.prepare", config=config, streams=1, version="0.0")
        version = client.hello["params"]["version"]
        tap.check("ticket" not in client.call("migrate.prepare", config=config, streams=1, version=version, check=True),
                  "a check gives no ticket")
        ticket = client.call("migrate.prepare", config=config, streams=1, version=version)["ticket"]
        vm = client.call("vm.get", vm="a")
        tap.check((vm["state"], vm["transient"]) == ("paused", True), f"{vm}")
        for method in ("vm.resume", "vm.reset"):
            client.fails("bad-state", method, vm="a")
        client.fails("bad-state", "migrate.resolve", vm="a", owner="here")
        client.fails("bad-state", "migrate.commit", ticket=ticket)
        client.fails("bad-state", "migrate.finish", ticket=ticket)
        client.fails("exists", "migrate.prepare", config=config, streams=1, version=version)
        client.call("migrate.abort", ticket=ticket)
        client.fails("not-found", "vm.get", vm="a")
        client.fails("not-found", "migrate.commit", ticket=ticket)
        client.call("migrate.prepare", config=config, streams=1, version=version)
        with there.client() as other:  # who asked has gone: nothing of it stays
            client.close()
            lib.wait_for(lambda: not other.call("vm.list")["vms"] and not other.call("migrate.list")["migrations"], 30,
                         "it is dropped")
            url = pair.url(here)
            tap.check([p["url"] for p in other.call("peer.list")["peers"]] == [url], "peer.list")
            other.call("peer.delete", url=url)
            other.fails("not-found", "peer.delete", url=url)


class Control(lib.Client):
    """Its notifications are of another kind than the daemon's."""

    def read(self):
        message = super().read()
        while message.get("method") == "event":
            message = super().read()
        return message


class Emulator:
    """The control socket of a VM's emulator."""

    def __init__(self, daemon, name):
        self.daemon = daemon
        pid = daemon.call("vm.get", vm=name)["pid"]
        number = [n for n, pids in daemon.emulators().items() if pid in pids][0]
        self.client = Control(os.path.join(daemon.dir, "run", "vm", str(number), "control"))

    def pass_one(self, method, **params):
        """Begins a call that one end of a stream goes with; our end, and the call's number."""
        ours, theirs = socket.socketpair()
        self.client.number += 1
        line = json.dumps({"jsonrpc": "2.0", "id": self.client.number, "method": method, "params": params}) + "\n"
        socket.send_fds(self.client.sock, [line.encode()], [theirs.fileno()])
        theirs.close()
        return ours, self.client.number

    def lend(self, index):
        """Our end of a stream."""
        ours, number = self.pass_one("emu.migrate_stream", index=index)
        self.client.answer(number)
        return ours


def frame(kind, body=b"", region=0, page=0):
    head = struct.pack("<4sIIIQI", b"VDMF", kind, region, len(body), page, zlib.crc32(body))
    return head + struct.pack("<I", zlib.crc32(head)) + body


def split(data):
    """Greeting and frames of a stream, as docs/reference/migration-stream.md has them."""
    magic, version, index, streams, uuid = struct.unpack("<8sIII40s", data[:60])
    tap.check((magic, version, zlib.crc32(data[:60])) == (b"VMDMOVE\0", 1, struct.unpack("<I", data[60:64])[0]), "greeting")
    frames, at = [], 64
    while at < len(data):
        magic, kind, region, length, page, body_sum = struct.unpack("<4sIIIQI", data[at:at + 28])
        body = data[at + 32:at + 32 + length]
        tap.check(magic == b"VDMF" and zlib.crc32(body) == body_sum and
                  zlib.crc32(data[at:at + 28]) == struct.unpack("<I", data[at + 28:at + 32])[0], f"frame at {at}")
        frames.append((kind, region, page, body))
        at += 32 + length
    return data[:64], (index, streams, uuid.rstrip(b"\0").decode()), frames


def hostile_streams_are_refused_with_the_field():
    with lib.Daemon() as daemon, daemon.client() as client:
        uuid = "6ad7e7a4-5e4b-4dd6-b4d7-5f2ccf0e0e0a"
        client.call("vm.define", config=daemon.config("a", uuid=uuid))
        client.call("vm.start", vm="a")
        emulator = Emulator(daemon, "a")
        stream = emulator.lend(0)
        emulator.client.fails("invalid-params", "emu.migrate_out", streams=2)
        out = emulator.client.send("emu.migrate_out", streams=1)
        emulator.client.answer(out)
        emulator.client.call("emu.migrate_set", bandwidth=0, downtime_ms=50)
        switch = emulator.client.send("emu.migrate_switch")
        emulator.client.answer(switch)
        tap.check(emulator.client.call("emu.migrate_status")["state"] == "sent", "sent")
        emulator.client.fails("bad-state", "emu.resume")
        data = b""
        stream.settimeout(0.5)
        try:
            while True:
                data += stream.recv(1 << 20)
        except TimeoutError:
            pass
        emulator.client.call("emu.migrate_cancel")
        lib.wait_for(lambda: client.call("vm.get", vm="a")["state"] == "running", 20, "it runs on")
        client.call("vm.stop", vm="a")
        greeting, said, frames = split(data)
        tap.check(said == (0, 1, uuid) and [f[0] for f in frames][:1] == [1] and [f[0] for f in frames][-2:] == [2, 5], f"{said}")
        info, machine = frame(1, frames[0][3]), frame(2, frames[-2][3])
        mask = lambda bits: bits.to_bytes(32, "little")
        pages = lambda named, whole, differ, body, kind=0, **more: frame(
            4, bytes([kind]) + bytes(7) + mask(named) + mask(whole) + mask(differ) + body, **more)
        bad = [(b"x" + data[1:], "magic"), (data[:9] + b"\x07" + data[10:], "greeting"), (data[:64] + b"x" + data[65:], "magic"),
               (data[:-40], "cut off"), (greeting + info + frame(9), "type 9"), (greeting + info + frame(5, page=7), "says 7"),
               (greeting + machine, "has no place"), (greeting + info + info, "has no place"),
               (greeting + info + pages(1, 1, 0, bytes(4096), region=77), "region 77"),
               (greeting + info + pages(1, 1, 0, bytes(4096), page=3), "page 0x3"),
               (greeting + info + pages(1, 1, 1, bytes(4096)), "contradict"), (greeting + info + pages(0, 1, 0, bytes(4096)), "contradict"),
               (greeting + info + pages(3, 3, 0, bytes(4096)), "4096"), (greeting + info + pages(1, 1, 0, b"zstd", kind=1), "unpacked"),
               (greeting + info + pages(1, 1, 0, bytes(4096), kind=8), "packing"), (greeting + info + frame(4, b"short"), "too few"),
               (greeting + info + frame(5, page=1), "without the machine"),
               (greeting + frame(1, b"{}"), "whose state"), (greeting + info + frame(2, b"x") + frame(5, page=2), "name")]
        for number, (stream_bytes, text) in enumerate(bad):
            client.call("vm.start", vm="a", paused=True)
            emulator = Emulator(daemon, "a")
            stream = emulator.lend(0)
            call = emulator.client.send("emu.migrate_in", streams=1)
            stream.sendall(stream_bytes)
            stream.shutdown(socket.SHUT_WR)
            try:
                emulator.client.answer(call)
                raise AssertionError(f"{number}: taken, not refused for {text}")
            except lib.CallError as error:
                tap.check(text in error.message, f"{number}: {error}, not {text}")
            emulator.client.fails("bad-state", "emu.resume")
            client.call("vm.stop", vm="a", force=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("case", nargs="*")
    args = parser.parse_args()
    if args.count:
        campaign(args.seed if args.seed is not None else random.randrange(1 << 30), args.first, args.count)
        sys.exit(0)
    sys.exit(tap.run_cases([a_guest_goes_to_and_fro, what_would_fail_is_told_before_the_guest_is_paused,
                            devices_that_came_meanwhile_keep_it_here, a_migration_is_cancelled, in_doubt_it_is_paused_until_the_daemons_meet,
                            what_has_moved_is_gone_from_the_store, a_definition_that_stays_runs_only_when_somebody_says_so, whoever_dies_one_has_it, tickets_name_one_migration,
                            hostile_streams_are_refused_with_the_field, vmctl_moves_a_vm]))
