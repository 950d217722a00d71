# SPDX-License-Identifier: Apache-2.0
"""The clock on the wall jumps by ten years, forward and back: what lasts a while lasts as long as it should.

vmd runs with a library that moves its CLOCK_REALTIME (clock_shim.c); waits, pauses, deadlines, ages and
tokens must not notice, and events stay in order.
"""

import os
import shlex
import subprocess
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402

YEARS = 10 * 365 * 86400
MIB = lib.MIB


def shim(folder):
    """The library, made by the compiler of this build."""
    path = os.path.join(folder, "clock.so")
    compiler = shlex.split(os.environ.get("VMD_CC") or "cc")
    done = subprocess.run([*compiler, "-std=gnu11", "-O1", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", path,
                           os.path.join(HERE, "clock_shim.c"), "-ldl"],
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise tap.Skip(f"a compiler for the clock ({done.stderr.strip()[-200:]})")
    if lib.sanitized():
        raise tap.Skip("a build without sanitizers, which want to be loaded first")
    return path


class Clocked(lib.Daemon):
    """A daemon whose wall clock is set by jump()."""

    def __init__(self, emulator=lib.FAKE):
        super().__init__(emulator=emulator)
        try:
            library = shim(self.dir)
        except tap.Skip:
            self.end()
            raise
        self.clock = os.path.join(self.dir, "clock")
        self.jump(0)
        self.wrapper = ["env", f"LD_PRELOAD={library}", f"VMD_TEST_CLOCK={self.clock}"]

    def jump(self, seconds):
        """By so much away from the real time, from now on."""
        with open(self.clock + ".new", "w", encoding="ascii") as file:
            file.write(str(int(seconds * 1_000_000_000)))
        os.rename(self.clock + ".new", self.clock)


def both_ways(daemon, case):
    for seconds in (YEARS, -YEARS, 0):
        case(lambda seconds=seconds: daemon.jump(seconds))


def crashed_vm_waits_its_pause_and_no_longer():
    with Clocked() as daemon, daemon.client() as client:
        client.call("vm.define", config=daemon.config(
            "a", kernel=daemon.guest(), append="crash-after=20",
            restart={"mode": "on-failure", "delay_ms": 400, "max_delay_ms": 400, "limit": 0}))
        client.call("vm.start", vm="a")
        runs = [0]

        def crashes_and_comes_back(jump):
            def waits():
                vm = client.call("vm.get", vm="a")
                return vm["state"] == "crashed" and vm.get("restart_due_ms")
            lib.wait_for(waits, what="crashed, to be started again")
            jump()
            before = len(starts(client))
            lib.wait_for(lambda: len(starts(client)) > before, what="it is started again")
            runs[0] += 1
        both_ways(daemon, crashes_and_comes_back)
        tap.check(runs[0] == 3, "not all ways")


def starts(client):
    return [e for e in client.call("event.list", limit=1000)["events"]
            if e["type"] == "vm-state" and e["state"] == "starting"]


def waits_and_deadlines_end_when_their_time_is_over():
    with Clocked() as daemon, daemon.client() as client, daemon.client() as other:
        client.call("vm.define", config=daemon.config("a", kernel=daemon.guest()))
        client.call("vm.start", vm="a")

        def one(jump):
            wait = client.send("vm.wait", vm="a", timeout_ms=300)
            late = other.send("vm.wait", vm="a", timeout_ms=60000, deadline_ms=300)
            jump()
            for which, number in ((client, wait), (other, late)):
                try:
                    which.answer(number)
                    raise AssertionError("the VM has not ended")
                except lib.CallError as error:
                    tap.check(error.error == "timeout", f"{error}")
        both_ways(daemon, one)


def watchdog_ages_and_states_do_not_notice():
    with Clocked() as daemon, daemon.client() as client:
        client.call("vm.define", config=daemon.config("a", kernel=daemon.guest(),
                                                      watchdog={"timeout_ms": 3000, "action": "stop"}))
        pid = client.call("vm.start", vm="a")["pid"]

        def one(jump):
            jump()
            vm = client.call("vm.list", stats=True)["vms"][0]
            tap.check(vm["state"] == "running" and vm["pid"] == pid, f"{vm}")
            stats = lib.wait_for(lambda: client.call("vm.list", stats=True)["vms"][0].get("stats"),
                                 what="statistics")
            tap.check(0 <= stats["age_ms"] < 60000 and 0 <= stats["uptime_ns"] < 600e9, f"{stats}")
        both_ways(daemon, one)
        kinds = {e["type"] for e in client.call("event.list", limit=1000)["events"]}
        tap.check("watchdog" not in kinds and client.call("vm.get", vm="a")["pid"] == pid, f"{kinds}")


def events_stay_in_order_and_cursors_go_on():
    with Clocked() as daemon, daemon.client() as client:
        client.call("vm.define", config=daemon.config("a", kernel=daemon.guest()))
        names, years = ["a"], []

        def one(jump):
            jump()
            names.append(f"a{len(names)}")
            after = client.call("event.list", limit=1)["newest"]
            client.call("vm.rename", vm=names[-2], name=names[-1])
            page = client.call("event.list", after=after, limit=1000)["events"]
            tap.check([e["name"] for e in page] == [names[-1]], f"{page}")
            years.append(time.gmtime(page[0]["time_ms"] / 1000).tm_year)
        both_ways(daemon, one)
        now = time.gmtime().tm_year
        tap.check(years[0] - now in (9, 10) and now - years[1] in (9, 10, 11) and years[2] == now,
                  f"{years}: the clock is not moved")
        seqs = [e["seq"] for e in client.call("event.list", limit=1000)["events"]]
        tap.check(seqs == sorted(set(seqs)), f"{seqs}")


def vms_are_taken_up_again_whatever_the_clock_says():
    with Clocked(emulator=None) as daemon:
        with daemon.client() as client:
            client.call("vm.define", config=daemon.config("a"))
            pid = client.call("vm.start", vm="a")["pid"]
            key = {"vm": "a", "name": "b", "idempotency_key": "once"}
            client.call("vm.rename", **key)

        def one(jump):
            daemon.kill()
            jump()
            daemon.start()
            with daemon.client() as client:
                vm = client.call("vm.get", vm="b")
                tap.check(vm["state"] == "running" and vm["pid"] == pid, f"{vm}")
                tap.check(client.call("vm.rename", **key)["name"] == "b", "the key is forgotten")
        both_ways(daemon, one)
        tap.check(daemon.call("vm.stop", vm="b")["exit"]["reason"] == "quit", "cannot be stopped")


def tokens_gain_no_time_by_a_clock_that_is_set_back():
    with Clocked() as daemon:
        def state_of(number):
            return daemon.call("token.list")["tokens"][number]["state"]
        with daemon.client() as client:
            client.call("cert.init", names=["localhost"])
            client.call("token.create", minutes=10)
        tap.check(state_of(0) == "valid", "a new token")
        daemon.jump(YEARS)
        tap.check(state_of(0) == "expired", "ten years later")
        daemon.jump(0)
        daemon.kill()
        daemon.start()
        tap.check(state_of(0) == "valid", "within its time, by another daemon")
        daemon.jump(-YEARS)
        daemon.kill()
        daemon.start()
        tap.check(state_of(0) == "expired", "ten years too early, by another daemon")


if __name__ == "__main__":
    if not os.access(os.path.join(lib.BUILD, "vmd-emu"), os.X_OK):
        print("skipped: vmd-emu is not built")
        sys.exit(77)
    sys.exit(tap.run_cases([
        crashed_vm_waits_its_pause_and_no_longer,
        waits_and_deadlines_end_when_their_time_is_over,
        watchdog_ages_and_states_do_not_notice,
        events_stay_in_order_and_cursors_go_on,
        vms_are_taken_up_again_whatever_the_clock_says,
        tokens_gain_no_time_by_a_clock_that_is_set_back,
    ]))
