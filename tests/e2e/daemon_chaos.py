# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the daemon, sometimes of vmd-spawn as well, during random calls, with an oracle.

    daemon_chaos.py [--seed N] [--from N] [--count N] [--clients N]     kills FROM to FROM + COUNT - 1 of a seed

Each client thread works on VMs of its own and keeps a model of what was acknowledged. A call that
was cut off is tried again with its idempotency key by the next daemon. After each restart: every
acknowledged definition, deletion, change and run state is there, nothing else is, no VM has two
emulators, no event of an acknowledged call is missing or doubled.
"""

import argparse
import os
import random
import sys
import threading
import time
import uuid

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402

LIVE = ("running", "paused")


class Worker:
    """One client: its VMs {name: {"uuid", "memory", "state"}} and the call that was cut off."""

    def __init__(self, daemon, number):
        self.daemon, self.number = daemon, number
        self.random = None  # of the turn
        self.model = {}
        self.deleted = set()
        self.cut = None
        self.calls = 0
        self.problem = None

    def pick(self):
        """A random call: (method, params, how it changes the model)."""
        rnd = self.random
        names = sorted(self.model)
        if not names or (len(names) < 3 and rnd.random() < 0.3):
            name = f"w{self.number}-{rnd.randrange(1000000)}"
            if name in self.model:
                return None
            config = self.daemon.config(name, uuid=str(uuid.UUID(int=rnd.getrandbits(128),
                                                                 version=4)))
            return "vm.define", {"config": config}, ("define", name, config)
        name = rnd.choice(names)
        state = self.model[name]["state"]
        choices = ["set", "rename"]
        if state == "stopped":
            choices += ["start", "start", "start", "delete", "start-paused"]
        elif state == "running":
            choices += ["pause", "stop", "kill"]
        else:
            choices += ["resume", "kill", "stop"]
        what = rnd.choice(choices)
        if what == "set":
            memory = rnd.randrange(16, 64) * lib.MIB
            return "vm.set", {"vm": name, "set": {"memory": memory}}, ("set", name, memory)
        if what == "rename":
            new = f"w{self.number}-r{rnd.randrange(1000000)}"
            return "vm.rename", {"vm": name, "name": new}, ("rename", name, new)
        method, params, end = {
            "start": ("vm.start", {}, "running"),
            "start-paused": ("vm.start", {"paused": True}, "paused"),
            "delete": ("vm.delete", {}, None),
            "pause": ("vm.pause", {}, "paused"),
            "resume": ("vm.resume", {}, "running"),
            "stop": ("vm.stop", {}, "stopped"),
            "kill": ("vm.stop", {"force": True}, "stopped"),
        }[what]
        change = ("delete", name, None) if what == "delete" else ("state", name, end)
        return method, {"vm": name, **params}, change

    def apply(self, change):
        what, name, value = change
        if what == "define":
            self.model[name] = {"uuid": value["uuid"], "memory": value["memory"],
                                "state": "stopped"}
        elif what == "delete":
            self.deleted.add(self.model.pop(name)["uuid"])
        elif what == "rename":
            self.model[value] = self.model.pop(name)
        elif what == "set":
            self.model[name]["memory"] = value
        else:
            self.model[name]["state"] = value

    def again(self, client):
        """The call that was cut off, with the same key: it happens once in all."""
        method, params, change = self.cut
        try:
            client.call(method, **params)
        except lib.CallError as error:
            # Its effect may be there without the remembered reply: a run state has no row to put
            # it into. Nothing else may fail.
            if change[0] != "state" or error.error != "bad-state":
                raise AssertionError(f"{method} {params} again: {error}") from error
            self.settle(client, change)
            self.cut = None
            return
        self.apply(change)
        self.cut = None

    def settle(self, client, change):
        """A call that was never acknowledged has changed the run state or not, once what the last daemon began
        has come to its end; anything else is wrong."""
        _, name, end = change
        was = self.model[name]["state"]

        def settled():
            state = client.call("vm.get", vm=name)["state"]
            return state if state not in ("starting", "stopping", "unresponsive") else None
        state = lib.wait_for(settled, 30, f"{name} settles")
        tap.check(state in (was, end), f"{name} was {was}, was to be {end}, is {state}")
        self.model[name]["state"] = state

    def run(self, stop):
        client = None
        try:
            client = self.daemon.client()
            if self.cut:
                self.again(client)
            while not stop.is_set():
                picked = self.pick()
                if not picked:
                    continue
                method, params, change = picked
                params["idempotency_key"] = f"{self.number}-{self.calls}-{self.random.randrange(1 << 60)}"
                self.cut = (method, params, change)
                self.calls += 1
                client.call(method, **params)
                self.apply(change)
                self.cut = None
        except lib.Gone:
            pass
        except (AssertionError, lib.CallError, OSError) as problem:
            self.problem = f"{self.cut}: {problem!r}"
        finally:
            if client:
                client.close()


def check_lists(daemon, workers):
    """What the new daemon says is what was acknowledged, give or take the calls cut off."""
    vms = {vm["name"]: vm for vm in daemon.call("vm.list", config=True)["vms"]}
    expected = {}
    doubtful = set()
    for worker in workers:
        expected.update(worker.model)
        if worker.cut:
            _, _, (what, name, value) = worker.cut
            doubtful.add(name)
            if what in ("define", "rename"):
                doubtful.add(name)
                doubtful.add(value if what == "rename" else name)
    for name, want in expected.items():
        if name in doubtful:
            continue
        have = vms.get(name)
        tap.check(have, f"acknowledged VM {name} is lost")
        tap.check(have["uuid"] == want["uuid"], f"{name} has another identity")
        tap.check(have["config"]["memory"] == want["memory"], f"change of {name} is lost")
        tap.check(have["state"] == want["state"],
                  f"{name} is {have['state']} ({have.get('reason')}), not {want['state']}")
    for name in vms:
        tap.check(name in expected or name in doubtful, f"VM {name} came from nowhere")


def check_processes(daemon):
    """One emulator for each VM that runs. What a call cut off began may end meanwhile, so the two
    lists are taken again until they agree."""
    seen = {}

    def agree():
        live = {vm["pid"] for vm in daemon.call("vm.list")["vms"] if vm.get("pid")}
        emulators = daemon.emulators()
        for number, pids in emulators.items():
            tap.check(len(pids) == 1, f"VM {number} has {len(pids)} emulators: {pids}")
        seen.update(live=live, emulators=emulators)
        return {pids[0] for pids in emulators.values()} == live
    if os.geteuid() == 0:  # another user's emulators cannot be looked into
        try:
            lib.wait_for(agree, 10)
        except AssertionError as problem:
            raise AssertionError(f"{problem}: {seen}") from problem


class Events:
    """What the journal told so far: it keeps its last 10,000, a campaign makes more."""

    def __init__(self):
        self.after = 0
        self.defined, self.deleted = {}, {}

    def read(self, daemon):
        """Every number once, in order."""
        seen = self.after
        while True:
            page = daemon.call("event.list", after=self.after, limit=1000)
            for event in page["events"]:
                tap.check(event["seq"] > seen, f"event {event['seq']} after {seen}")
                seen = event["seq"]
                for kind, table in (("vm-defined", self.defined), ("vm-deleted", self.deleted)):
                    if event["type"] == kind:
                        table[event["vm"]] = table.get(event["vm"], 0) + 1
            if page["cursor"] == self.after:
                return
            self.after = page["cursor"]

    def check(self, daemon, workers):
        """A vm-defined for all that was defined, a vm-deleted for all that was deleted, none twice."""
        self.read(daemon)
        for worker in workers:
            for name, vm in worker.model.items():
                tap.check(self.defined.get(vm["uuid"]) == 1,
                          f"{name} has {self.defined.get(vm['uuid'], 0)} vm-defined events")
            for identity in worker.deleted:
                tap.check(self.deleted.get(identity) == 1,
                          f"{identity} has {self.deleted.get(identity, 0)} vm-deleted events")


def campaign(seed, first, count, clients):
    with lib.Daemon() as daemon:
        workers = [Worker(daemon, n) for n in range(clients)]
        events = Events()
        for turn in range(first, first + count):
            rnd = random.Random(f"{seed} {turn}")
            for worker in workers:
                worker.random = random.Random(rnd.getrandbits(64))
            stop = threading.Event()
            threads = [threading.Thread(target=w.run, args=(stop,)) for w in workers]
            for thread in threads:
                thread.start()
            time.sleep(rnd.uniform(0.01, 0.25))
            helper = daemon.helper() if rnd.random() < 0.3 else None
            daemon.kill()
            if helper:  # in the middle of a start, perhaps
                lib.kill(helper)
            stop.set()
            for thread in threads:
                thread.join()
            problems = [w.problem for w in workers if w.problem]
            tap.check(not problems, f"turn {turn}: {problems}")
            daemon.start()
            try:
                check_lists(daemon, workers)
                check_processes(daemon)
                events.check(daemon, workers)
            except AssertionError as problem:
                cuts = [w.cut for w in workers]
                raise AssertionError(f"turn {turn}: {problem}\ncut off: {cuts}\n"
                                     f"{daemon.tail()}") from problem
            if turn % 100 == 99:
                print(f"# {turn + 1} of seed {seed}", flush=True)
        # What was cut off last happens once, too.
        for worker in workers:
            with daemon.client() as client:
                if worker.cut:
                    worker.again(client)
        check_lists(daemon, workers)
        check_processes(daemon)
        print(f"# {count} kills from {first} during {sum(w.calls for w in workers)} calls", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=int(os.environ.get("VMD_TEST_SEED") or
                                                        time.time_ns() & 0xffffffff))
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--clients", type=int, default=3)
    args = parser.parse_args()
    if not os.access(os.path.join(lib.BUILD, "vmd-emu"), os.X_OK):
        print("skipped: vmd-emu is not built")
        return 77
    print(f"# seed {args.seed} (again with --seed {args.seed})", flush=True)
    sys.argv[1:] = []

    def no_acknowledged_call_is_lost_or_doubled_when_vmd_is_killed():
        campaign(args.seed, args.first, args.count, args.clients)
    return tap.run_cases([no_acknowledged_call_is_lost_or_doubled_when_vmd_is_killed])


if __name__ == "__main__":
    sys.exit(main())
