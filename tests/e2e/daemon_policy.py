# SPDX-License-Identifier: Apache-2.0
"""What the daemon does by itself: autostart in order, restarts with back-off and a cap, the
watchdog, the orderly shutdown of the host. With a stand-in for the emulator that ends on cue."""

import os
import signal
import sqlite3
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402


def fake():
    return lib.Daemon(emulator=lib.FAKE)


def define(client, daemon, name, append="", **more):
    kernel = {"kernel": daemon.guest(), "append": append} if append else {}
    client.call("vm.define", config=daemon.config(name, **kernel, **more))


def start(client, name):
    """Starts a VM that ends soon: it may end before its start was answered, then it is tried again."""
    for _ in range(50):
        try:
            return client.call("vm.start", vm=name)
        except lib.CallError as error:
            tap.check(error.error in ("start-failed", "bad-state"), str(error))
    raise AssertionError(f"'{name}' cannot be started")


def events(daemon, **match):
    found, after = [], 0
    while True:
        page = daemon.call("event.list", after=after, limit=1000)
        found += page["events"]
        if page["cursor"] == after or not page["events"]:
            break
        after = page["cursor"]
    return [e for e in found if all(e.get(key) == value for key, value in match.items())]


def started(daemon):
    """Names in the order in which they began to run."""
    return [e["name"] for e in events(daemon, type="vm-state", state="starting")]


def boot(daemon):
    """The next vmd believes that the host was booted since the last one."""
    daemon.terminate()
    with sqlite3.connect(os.path.join(daemon.dir, "lib", "vmd.db")) as store:
        store.execute("UPDATE facts SET value = 'former' WHERE key = 'autostart_boot'")
    store.close()
    daemon.start()


def state(daemon, name):
    return daemon.call("vm.get", vm=name)["state"]


def until(daemon, name, word, what=None):
    return lib.wait_for(lambda: daemon.call("vm.get", vm=name)
                        if state(daemon, name) == word else None, what=what or f"{name} is {word}")


def vms_are_started_once_after_a_boot_in_order_of_after_priority_and_name():
    with fake() as daemon:
        with daemon.client() as client:
            for name, auto in (("web", {"after": ["db", "cache"], "priority": 0}),
                               ("db", {"priority": 700}), ("zoo", {}), ("ant", {}),
                               ("cache", {"priority": 100, "delay_ms": 50}), ("no", None),
                               ("off", {"enabled": "off"})):
                define(client, daemon, name, **({"autostart": auto} if auto is not None else {}))
        boot(daemon)
        lib.wait_for(lambda: len(started(daemon)) == 5, what="five VMs are started")
        tap.check(started(daemon) == ["cache", "ant", "zoo", "db", "web"], f"{started(daemon)}")
        for name in ("web", "zoo"):
            until(daemon, name, "running")
        tap.check(state(daemon, "no") == state(daemon, "off") == "stopped", "too many run")
        # Another daemon in the same boot starts nothing: what a person stopped stays so.
        daemon.call("vm.stop", vm="zoo", force=True)
        lib.wait_for(lambda: len(events(daemon, type="vm-policy", reason="autostart")) == 5,
                     what="all were told")
        daemon.kill()
        daemon.start()
        tap.check(state(daemon, "zoo") == "stopped" and len(started(daemon)) == 5, "started anew")


def autostart_that_goes_in_a_circle_or_fails_does_not_hold_up_the_others():
    with fake() as daemon:
        with daemon.client() as client:
            define(client, daemon, "a", autostart={"after": ["b"]})
            define(client, daemon, "b", autostart={"after": ["a"]})
            define(client, daemon, "bad", autostart={"priority": 1}, firmware="/nonexistent/fw")
            define(client, daemon, "last", autostart={"priority": 1000, "after": ["bad"]})
        boot(daemon)
        for name in ("a", "b", "last"):
            until(daemon, name, "running")
        tap.check(state(daemon, "bad") == "stopped", "it cannot run")


def crashed_vm_is_started_again_with_growing_pauses_until_the_cap():
    with fake() as daemon:
        with daemon.client() as client:
            define(client, daemon, "a", append="crash-after=30",
                   restart={"mode": "on-failure", "delay_ms": 10, "max_delay_ms": 50, "limit": 4})
            start(client, "a")
        lib.wait_for(lambda: events(daemon, type="vm-policy", reason="restart-given-up"),
                     what="given up")
        pauses = [e["detail"]["delay_ms"]
                  for e in events(daemon, type="vm-policy", reason="restart")]
        tap.check(pauses == [10, 20, 40, 50], f"pauses {pauses}")
        vm = daemon.call("vm.get", vm="a")
        tap.check("pid" not in vm and "restart_due_ms" not in vm, f"{vm}")


def restart_happens_after_a_failure_only_or_after_each_end_nobody_asked_for():
    with fake() as daemon:
        with daemon.client() as client:
            define(client, daemon, "failure", append="off-after=30", restart={"delay_ms": 1})
            define(client, daemon, "always", append="off-after=30",
                   restart={"mode": "always", "delay_ms": 1, "limit": 3})
            define(client, daemon, "never", append="crash-after=30", restart={"mode": "never"})
            define(client, daemon, "asked", append="button=1",
                   restart={"mode": "always", "delay_ms": 1})
            for name in ("failure", "never", "always", "asked"):
                start(client, name)
            client.call("vm.shutdown", vm="asked")
            client.call("vm.wait", vm="asked", timeout_ms=20000)
        lib.wait_for(lambda: events(daemon, type="vm-policy", reason="restart-given-up"),
                     what="'always' gave up")
        count = {name: len(events(daemon, type="vm-policy", reason="restart", name=name))
                 for name in ("failure", "always", "never", "asked")}
        tap.check(count == {"failure": 0, "always": 3, "never": 0, "asked": 0}, f"{count}")


def shutdown_waits_as_long_as_it_was_told_and_then_ends_the_vm_if_forced():
    with fake() as daemon:
        with daemon.client() as client, daemon.client() as other:
            for name, append in (("soon", "button=30"), ("late", "button=3600000"), ("none", "nothing"),
                                 ("deaf", "button=3600000 no-quit")):
                define(client, daemon, name, append=append)
                client.call("vm.start", vm=name)
            out = client.call("vm.shutdown", vm="soon", timeout_ms=60000)
            tap.check(out["state"] == "stopped" and out["exit"]["reason"] == "poweroff", f"{out}")
            client.fails("bad-state", "vm.shutdown", vm="soon", force=True)
            # Too late, and nothing was done to it; another call about it is not held up.
            number = client.send("vm.shutdown", vm="late", timeout_ms=300)
            tap.check(other.call("vm.get", vm="late")["state"] in ("running", "stopping"), "ended")
            other.call("vm.reset", vm="late")
            try:
                client.answer(number)
                raise AssertionError("it has not ended")
            except lib.CallError as error:
                tap.check(error.error == "timeout" and "300 ms" in error.message, str(error))
            tap.check(state(daemon, "late") == "stopping", "it was not asked")
            out = client.call("vm.shutdown", vm="late", timeout_ms=30, force=True)
            tap.check(out["state"] == "stopped" and out["exit"]["reason"] == "quit", f"{out}")
            # Nobody can be asked: by force it ends all the same, and at once.
            client.fails("unsupported", "vm.shutdown", vm="none", timeout_ms=60000)
            tap.check(state(daemon, "none") == "running", "refused, and ended")
            out = client.call("vm.shutdown", vm="none", force=True)
            tap.check(out["state"] == "stopped" and out["exit"]["reason"] == "quit", f"{out}")
            # A stop by another client is the end that is waited for.
            number = client.send("vm.shutdown", vm="deaf", timeout_ms=3600000, force=True)
            until(daemon, "deaf", "stopping")
            other.call("vm.stop", vm="deaf", force=True)
            out = client.answer(number)
            tap.check(out["state"] == "stopped" and out["exit"]["reason"] == "killed", f"{out}")


def stop_and_kill_are_not_followed_by_a_restart_and_stop_cancels_one_that_is_due():
    with fake() as daemon:
        with daemon.client() as client:
            define(client, daemon, "a", restart={"mode": "always", "delay_ms": 1})
            define(client, daemon, "b", append="crash-after=30",
                   restart={"mode": "always", "delay_ms": 3600000, "max_delay_ms": 3600000})
            for force in (False, True):
                client.call("vm.start", vm="a")
                client.call("vm.stop", vm="a", force=force)
            start(client, "b")
            client.call("vm.wait", vm="b", timeout_ms=20000)
            due = client.call("vm.get", vm="b").get("restart_due_ms", 0)
            tap.check(due > 0, "no restart is due")
            client.call("vm.stop", vm="b")
            tap.check("restart_due_ms" not in client.call("vm.get", vm="b"), "still due")
            client.fails("bad-state", "vm.stop", vm="b")
        tap.check(started(daemon).count("a") == 2, "started again after a stop")


def restart_that_is_due_outlives_the_daemon():
    with fake() as daemon:
        with daemon.client() as client:
            define(client, daemon, "a", append="crash-after=30",
                   restart={"mode": "always", "delay_ms": 2000, "limit": 1})
            start(client, "a")
            client.call("vm.wait", vm="a", timeout_ms=20000)
        daemon.kill()
        daemon.start()
        lib.wait_for(lambda: events(daemon, type="vm-policy", reason="restart-given-up"),
                     what="the row of restarts goes on")


def watchdog_acts_on_an_emulator_that_shows_no_life():
    with fake() as daemon:
        with daemon.client() as client:
            pids = {}
            for action in ("none", "pause", "stop", "reset"):
                define(client, daemon, action, watchdog={"action": action, "timeout_ms": 1000})
                pids[action] = client.call("vm.start", vm=action)["pid"]
            define(client, daemon, "free")
            pids["free"] = client.call("vm.start", vm="free")["pid"]
        for pid in pids.values():
            os.kill(pid, signal.SIGSTOP)
        lib.wait_for(lambda: len(events(daemon, type="vm-policy", reason="watchdog")) == 4,
                     what="four watchdogs have acted")
        out = daemon.call("vm.wait", vm="stop", timeout_ms=20000)
        tap.check(out["exit"]["reason"] == "watchdog", f"{out}")
        lib.wait_for(lambda: daemon.call("vm.get", vm="reset").get("pid", pids["reset"])
                     != pids["reset"], what="another emulator")
        tap.check(started(daemon).count("stop") == 1, "'stop' was started again")
        for name in ("none", "pause", "free"):
            tap.check(lib.alive(pids[name]), f"'{name}' was ended")
            os.kill(pids[name], signal.SIGCONT)


def host_shutdown_ends_each_vm_as_it_says_and_those_that_come_after_first():
    with fake() as daemon:
        with daemon.client() as client:
            define(client, daemon, "db", append="button=20")
            define(client, daemon, "web", append="button=150", autostart={"after": ["db"]})
            define(client, daemon, "deaf", append="button=3000000",
                   host_shutdown={"timeout_ms": 200})
            define(client, daemon, "wedged", append="no-quit", host_shutdown={"timeout_ms": 100})
            define(client, daemon, "stays", host_shutdown={"mode": "leave"})
            define(client, daemon, "again", append="button=1",
                   restart={"mode": "always", "delay_ms": 1})
            for name in ("db", "web", "deaf", "wedged", "stays", "again"):
                pid = client.call("vm.start", vm=name)["pid"]
            pid = client.call("vm.get", vm="stays")["pid"]
            os.kill(client.call("vm.get", vm="wedged")["pid"], signal.SIGSTOP)
            number = client.send("host.shutdown", keep_daemon=True)
            error = client.fails("busy", "host.shutdown")
            tap.check("already" in error.message, error.message)
            out = client.answer(number)
            tap.check(out == {"stopped": ["again", "db", "web"], "forced": ["deaf", "wedged"],
                              "left": ["stays"]}, f"{out}")
            ends = [e["name"] for e in events(daemon, type="vm-state", state="stopped")]
            tap.check(ends.index("web") < ends.index("db"), f"order of ends {ends}")
            tap.check(started(daemon).count("again") == 1, "restarted during the shutdown")
            client.call("vm.start", vm="db")
            out = client.call("host.shutdown")
            tap.check(out["stopped"] == ["db"], f"{out}")
        tap.check(daemon.process.wait(60) == 0 and lib.alive(pid), "the daemon, or the VM left")
        daemon.start()
        tap.check(state(daemon, "stays") == "running", "not taken up again")


if __name__ == "__main__":
    sys.exit(tap.run_cases([
        vms_are_started_once_after_a_boot_in_order_of_after_priority_and_name,
        autostart_that_goes_in_a_circle_or_fails_does_not_hold_up_the_others,
        crashed_vm_is_started_again_with_growing_pauses_until_the_cap,
        restart_happens_after_a_failure_only_or_after_each_end_nobody_asked_for,
        shutdown_waits_as_long_as_it_was_told_and_then_ends_the_vm_if_forced,
        stop_and_kill_are_not_followed_by_a_restart_and_stop_cancels_one_that_is_due,
        restart_that_is_due_outlives_the_daemon,
        watchdog_acts_on_an_emulator_that_shows_no_life,
        host_shutdown_ends_each_vm_as_it_says_and_those_that_come_after_first,
    ]))
