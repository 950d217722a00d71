#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""QMP's commands and events of migration between two daemons; certificates that are read again while a VM moves."""

import json
import os
import sys
import threading

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import migrate_lib  # noqa: E402
import tap  # noqa: E402

RELOADS = int(os.environ.get("VMD_RELOADS", "10"))


def set_capabilities(q, **state):
    q.execute("migrate-set-capabilities", capabilities=[{"capability": k.replace("_", "-"), "state": v} for k, v in state.items()])


def statuses(events):
    return [e["data"]["status"] for e in events if e["event"] == "MIGRATION"]


def until_end(q):
    """Everything that comes until the socket ends."""
    events = list(q.events)
    try:
        while True:
            events.append(q.read())
    except EOFError:
        return events


def what_was_set_is_kept_and_refused_by_name():
    with lib.Daemon() as daemon:
        with daemon.client() as client:
            client.call("vm.define", config=daemon.config("a"))
            client.call("vm.start", vm="a")
        with daemon.qmp() as q:
            tap.check(q.execute("query-migrate") == {}, "something is told of a migration that was not")
            states = {c["capability"]: c["state"] for c in q.execute("query-migrate-capabilities")}
            tap.check(len(states) == 20 and not any(states.values()), f"{states}")
            set_capabilities(q, xbzrle=True, multifd=True, auto_converge=True, events=True, return_path=True, postcopy_ram=False)
            set_capabilities(q, xbzrle=False)
            desc = q.fails("GenericError", "migrate-set-capabilities",
                           capabilities=[{"capability": "xbzrle", "state": True}, {"capability": "postcopy-ram", "state": True}])
            tap.check("postcopy-ram" in desc, desc)
            on = sorted(c["capability"] for c in q.execute("query-migrate-capabilities") if c["state"])
            tap.check(on == ["auto-converge", "events", "multifd", "return-path"], f"{on}")
            q.execute("migrate-set-parameters", downtime_limit=77, max_bandwidth=1 << 20, multifd_channels=3, xbzrle_cache_size=1 << 20,
                      tls_creds="", tls_hostname="")
            for name, value in (("downtime-limit", 0), ("max-bandwidth", -1), ("multifd-channels", 17), ("xbzrle-cache-size", 1)):
                desc = q.fails("GenericError", "migrate-set-parameters", **{"downtime-limit": 5, name: value})
                tap.check(name in desc, desc)
            q.fails("GenericError", "migrate-set-parameters", tls_creds="tls0")
            now = q.execute("query-migrate-parameters")
            tap.check(now == {"downtime-limit": 77, "max-bandwidth": 1 << 20, "multifd-channels": 3, "xbzrle-cache-size": 1 << 20,
                              "tls-creds": "", "tls-hostname": ""}, f"{now}")
            for uri in ("tcp:127.0.0.1:1", "exec:true", "", "vmd+tls://"):
                q.fails("GenericError", "migrate", uri=uri)
            q.fails("GenericError", "migrate", uri="vmd+tls://127.0.0.1:1", resume=True)
            q.fails("GenericError", "migrate", uri="vmd+tls://127.0.0.1:1", blk=True, inc=True)
            q.execute("migrate_cancel")
            tap.check(q.execute("query-migrate") == {} and not q.events, f"{q.events}")
        with daemon.qmp() as q:  # of the VM, not of the connection
            tap.check(q.execute("query-migrate-parameters")["downtime-limit"] == 77, "forgotten")
        daemon.call("vm.stop", vm="a")
        daemon.call("vm.start", vm="a")
        with daemon.qmp() as q:
            tap.check(q.execute("query-migrate-parameters")["downtime-limit"] == 30, "kept beyond the run")


def a_vm_moves_and_tells_each_step():
    with migrate_lib.Pair() as pair:
        here, there = pair.both
        pair.define(pages=512)
        pair.watch(here)
        with here.qmp() as q, here.qmp() as other:
            set_capabilities(q, events=True, multifd=True)
            q.execute("migrate", uri=pair.url(there), detach=True)
            for one in (q, other):
                events = until_end(one)
                order = [s for s in statuses(events) if s != "pre-switchover"]
                tap.check(order == ["setup", "active", "device", "completed"], f"{order}")
                names = [e["event"] for e in events]
                tap.check("SHUTDOWN" not in names and names.index("STOP") < len(names) - 1 - names[::-1].index("MIGRATION"), f"{names}")
        pair.watch(there)
        with there.qmp() as q:  # capabilities stay behind; without them nothing is told
            q.execute("migrate", uri=pair.url(here))
            events = until_end(q)
            tap.check(statuses(events) == [] and "STOP" in [e["event"] for e in events], f"{events}")
        pair.watch(here)


def a_migration_at_work_is_looked_at_limited_and_called_off():
    with migrate_lib.Pair() as pair:
        here, there = pair.both
        pair.define(pages=1024)
        with here.qmp() as q:
            set_capabilities(q, events=True)
            q.execute("migrate-set-parameters", max_bandwidth=200)
            q.execute("migrate", uri=pair.url(there))
            lib.wait_for(lambda: q.execute("query-migrate")["status"] == "active", 30, "active")
            lib.wait_for(lambda: q.execute("query-status") and "active" in statuses(q.events), 30, "told as active")
            lib.wait_for(lambda: q.execute("query-migrate")["ram"]["transferred"] > 0, 30, "bytes that went")
            seen = q.execute("query-migrate")
            tap.check(seen["ram"]["total"] >= 16 * lib.MIB and seen["total-time"] >= seen["setup-time"] >= 0, f"{seen}")
            q.execute("migrate-set-parameters", max_bandwidth=100)
            for command, more in (("migrate", {"uri": pair.url(there)}), ("migrate-set-capabilities", {"capabilities": []})):
                tap.check("in progress" in q.fails("GenericError", command, **more), "another one")
            q.execute("migrate_cancel")
            lib.wait_for(lambda: q.execute("query-migrate")["status"] == "cancelled", 30, "cancelled")
            tap.check(statuses(q.events) == ["setup", "active", "cancelling", "cancelled"], f"{q.events}")
            lib.wait_for(lambda: not here.call("migrate.list")["migrations"] and pair.states() == ["running", None], 30, "it stays")
            pair.watch(here)
            q.events.clear()
            there.kill()
            q.execute("migrate", uri=pair.url(there))
            lib.wait_for(lambda: q.execute("query-migrate")["status"] == "failed", 60, "failed")
            tap.check(q.execute("query-migrate")["error-desc"], "without a reason")
            tap.check(statuses(q.events) == ["setup", "failed"], f"{q.events}")
            there.start()
            q.execute("migrate-set-parameters", max_bandwidth=0)
            q.execute("migrate", uri=pair.url(there))
            tap.check(statuses(until_end(q))[-1] == "completed", "it does not move another time")
        pair.watch(there)


def certificates_are_read_again_while_a_vm_moves():
    """VMD_RELOADS times on both sides, under clients that go on calling; neither the migration nor a client is dropped."""
    with migrate_lib.Pair() as pair:
        here, there = pair.both
        pair.define(pages=1024)
        over, wrong = threading.Event(), []

        def calls(daemon, creds):
            try:
                with daemon.connect(creds) as client:
                    while not over.is_set():
                        client.call("vm.list")
            except (AssertionError, OSError, EOFError, lib.CallError, lib.Gone) as error:
                wrong.append(f"{error!r}")
        clients = [threading.Thread(target=calls, args=(one, one.user("u", "viewer", "*"))) for one in pair.both]
        for one in clients:
            one.start()
        try:
            job = pair.migrate(here, there, wait=False, bandwidth=200)
            lib.wait_for(lambda: [m for m in here.call("migrate.list")["migrations"] if m["state"] == "copying"], 60, "copying")
            for number in range(RELOADS):
                for one in pair.both:
                    one.call("cert.init", names=["127.0.0.1", "localhost", f"n{number}"])
                    tap.check(one.call("cert.reload")["dropped"] == 0, "somebody was dropped")
            state = [m["state"] for m in here.call("migrate.list")["migrations"]]
            tap.check(state == ["copying"], f"it was over before the last reload, or is stuck: {state}")
            with here.qmp() as q:
                q.execute("migrate-set-parameters", max_bandwidth=0)
            done = here.call("job.wait", job=job, timeout_ms=100000)
        finally:
            over.set()
            for one in clients:
                one.join()
        tap.check(done["state"] == "done" and not wrong, f"{json.dumps(done)} {wrong}")
        pair.watch(there)
        print(f"# {RELOADS} reloads on both sides during one migration")


CASES = [what_was_set_is_kept_and_refused_by_name, a_vm_moves_and_tells_each_step,
         a_migration_at_work_is_looked_at_limited_and_called_off, certificates_are_read_again_while_a_vm_moves]

if __name__ == "__main__":
    wanted = sys.argv[1:]
    sys.exit(tap.run_cases([c for c in CASES if not wanted or c.__name__ in wanted]))
