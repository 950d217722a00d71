# SPDX-License-Identifier: Apache-2.0
"""Snapshots at set times, of disks of real emulators: taken, pruned, and neither lost nor doubled when vmd dies or the clock
jumps. Images are judged by qemu-img.

    daemon_schedule.py [CASE...]
"""

import json
import os
import subprocess
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_clock  # noqa: E402
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402

MIB = lib.MIB
TIMEOUT = 120.0
DAY = 86400_000


def in_image(path):
    """Names of the snapshots that qemu-img sees."""
    done = subprocess.run(["qemu-img", "info", "-U", "--output=json", path], capture_output=True, text=True, check=True)
    return [s["name"] for s in json.loads(done.stdout).get("snapshots", [])]


def make(daemon, client, start=True, **more):
    path = os.path.join(daemon.dir, "d0.qcow2")
    if not os.path.exists(path):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "4M"], check=True)
    client.call("vm.define", config=daemon.config("a", disks=[{"file": path, "format": "qcow2"}], **more))
    if start:
        client.call("vm.start", vm="a")
    return path


def schedules(daemon):
    return {s["name"]: s for s in daemon.call("schedule.list", vm="a")["schedules"]}


def until(daemon, name, what, condition):
    return lib.wait_for(lambda: (lambda s: s if condition(s) else None)(schedules(daemon)[name]), TIMEOUT, what)


def at_rest(daemon, path, name="s"):
    """Between two snapshots: those in the image are those that are told."""
    def same():
        told = schedules(daemon)[name].get("snapshots", [])
        return told == in_image(path) and told == schedules(daemon)[name].get("snapshots", [])
    lib.wait_for(same, TIMEOUT, f"what is told is what is there: {schedules(daemon)[name]}, {in_image(path)}")


def the_newest_are_kept():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        path = make(daemon, client)
        made = client.call("schedule.set", vm="a", name="s", every_ms=1000, keep=2)
        tap.check(made["every_ms"] == 1000 and "last" not in made, f"{made}")
        first = until(daemon, "s", "a first one", lambda s: s.get("snapshots"))["snapshots"][0]
        now = until(daemon, "s", "the first has gone", lambda s: first not in s["snapshots"] and len(s["snapshots"]) == 2)
        tap.check(now["last"] == "taken" and all(n.startswith("s-2") and n.endswith("Z") for n in now["snapshots"]), f"{now}")
        client.call("schedule.set", vm="a", name="s", every_ms=DAY, keep=2)
        at_rest(daemon, path)
        client.call("schedule.set", vm="a", name="other", every_ms=DAY, keep=1)
        tap.check(sorted(schedules(daemon)) == ["other", "s"], "two schedules")
        client.call("schedule.delete", vm="a", name="s")
        client.fails("not-found", "schedule.delete", vm="a", name="s")
        tap.check(len(in_image(path)) == 2, "its snapshots stay")
        client.call("vm.stop", vm="a")
        subprocess.run(["qemu-img", "check", "-q", path], check=True)


def what_cannot_be_is_refused():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        raw = os.path.join(daemon.dir, "raw")
        with open(raw, "wb") as file:
            file.truncate(MIB)
        client.call("vm.define", config=daemon.config("r", disks=[{"file": raw, "format": "raw"}]))
        error = client.fails("unsupported", "schedule.set", vm="r", name="s", every_ms=1000)
        tap.check("disk0" in str(error), str(error))
        make(daemon, client, start=False)
        client.fails("not-found", "schedule.set", vm="a", name="s", every_ms=1000, disks=["nope"])
        client.fails("not-found", "schedule.set", vm="b", name="s", every_ms=1000)
        client.fails("invalid-params", "schedule.set", vm="a", name="s", every_ms=10)
        for n in range(16):
            client.call("schedule.set", vm="a", name=f"s{n}", every_ms=DAY)
        client.fails("overload", "schedule.set", vm="a", name="more", every_ms=DAY)
        client.call("schedule.set", vm="a", name="s3", every_ms=2 * DAY)  # one that is there


def what_does_not_run_is_left_out():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        path = make(daemon, client, start=False)
        client.call("schedule.set", vm="a", name="s", every_ms=1000, keep=3)
        until(daemon, "s", "it was due", lambda s: s.get("last") == "skipped")
        tap.check(in_image(path) == [], "nothing was taken")
        client.call("vm.start", vm="a")
        until(daemon, "s", "taken", lambda s: s["last"] == "taken")
        client.call("vm.stop", vm="a")
        client.call("vm.delete", vm="a")
        make(daemon, client, start=False)
        tap.check(schedules(daemon) == {}, "a new VM of that name has none")


def none_is_lost_or_doubled_when_vmd_dies():
    with lib.Daemon() as daemon:
        with daemon.client(TIMEOUT) as client:
            path = make(daemon, client)
            client.call("schedule.set", vm="a", name="s", every_ms=1000, keep=2)
        for n in range(3):
            before = schedules(daemon)["s"].get("snapshots", [])
            until(daemon, "s", "another one", lambda s: s.get("snapshots", [])[-1:] != before[-1:])
            time.sleep(n * 0.008)
            daemon.kill()
            daemon.start()
        daemon.call("schedule.set", vm="a", name="s", every_ms=DAY, keep=2)
        daemon.call("schedule.set", vm="a", name="s", every_ms=1000, keep=2)
        seen = schedules(daemon)["s"].get("snapshots", [])
        until(daemon, "s", "two more", lambda s: len(s["snapshots"]) == 2 and not set(seen) & set(s["snapshots"]))
        daemon.call("schedule.set", vm="a", name="s", every_ms=DAY, keep=2)
        at_rest(daemon, path)
        daemon.call("vm.stop", vm="a")
        subprocess.run(["qemu-img", "check", "-q", path], check=True)


def the_clock_jumps():
    with daemon_clock.Clocked(emulator=None) as daemon:
        daemon.start()
        with daemon.client(TIMEOUT) as client:
            path = make(daemon, client)
            client.call("schedule.set", vm="a", name="s", every_ms=DAY, keep=5)
            client.call("schedule.set", vm="a", name="tick", every_ms=1000, keep=3)  # so that the jump is seen at once
            until(daemon, "tick", "one", lambda s: s.get("last") == "taken")
            daemon.jump(daemon_clock.YEARS)
            until(daemon, "s", "one after ten years", lambda s: s.get("last") == "taken")
            told = schedules(daemon)["s"]
            tap.check(len(told["snapshots"]) == 1, f"one, not 3650: {told}")
            tap.check(0 < told["next_ms"] - time.time() * 1000 - daemon_clock.YEARS * 1000 <= DAY, f"{told}")
            daemon.jump(0)
            until(daemon, "s", "due within a day again", lambda s: s["next_ms"] <= time.time() * 1000 + DAY)
            was = schedules(daemon)["tick"]["snapshots"]
            until(daemon, "tick", "it goes on", lambda s: s["snapshots"][-1:] != was[-1:])
            client.call("schedule.delete", vm="a", name="tick")
            tap.check(schedules(daemon)["s"]["snapshots"][0] in in_image(path), "it is there")


def vmctl_sets_and_lists():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        make(daemon, client, start=False)
        vmctl = [os.path.join(lib.BUILD, "vmctl"), "--dir", daemon.dir]
        for words in (["set", "a", "daily", "--every", "24h", "--keep", "30", "--only", "disk0"], ["list", "a"], ["rm", "a", "daily"]):
            done = subprocess.run([*vmctl, "schedule", *words], capture_output=True, text=True, check=False)
            tap.check(done.returncode == 0, done.stderr)
            if words[0] == "list":
                tap.check("daily" in done.stdout and "30" in done.stdout, done.stdout)
        tap.check(schedules(daemon) == {}, "it is gone")


CASES = [the_newest_are_kept, what_cannot_be_is_refused, what_does_not_run_is_left_out, none_is_lost_or_doubled_when_vmd_dies,
         the_clock_jumps, vmctl_sets_and_lists]

if __name__ == "__main__":
    sys.exit(tap.run_cases(CASES))
