#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Snapshots by QMP's jobs (snapshot-save, snapshot-load, snapshot-delete) and by the human monitor's commands: the statuses that QEMU
documents, errors that the job tells, clients that stay while the VM goes back. Disks are judged by qemu-io and qemu-img."""

import os
import shutil
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import daemon_snapshots as snaps  # noqa: E402
import tap  # noqa: E402

PATIENCE = 240.0
WELL = ["created", "running", "waiting", "pending", "concluded"]
BADLY = ["created", "running", "aborting", "concluded"]


def hmp(q, line):
    return q.execute("human-monitor-command", command_line=line)


def told(q, job):
    """Its statuses until it has ended; other events in between."""
    seen, others = [], []
    while not seen or seen[-1] != "concluded":
        while not q.events:
            q.events.append(q.read())
        event = q.events.pop(0)
        if event.get("event") == "JOB_STATUS_CHANGE" and event["data"]["id"] == job:
            seen.append(event["data"]["status"])
        else:
            others.append(event["event"])
    return seen, others


def dismissed(q, job):
    """The job as it is listed; then it goes."""
    info = [j for j in q.execute("query-jobs") if j["id"] == job]
    tap.check(len(info) == 1 and info[0]["status"] == "concluded", f"{info}")
    q.execute("job-dismiss", id=job)
    tap.check(q.event("JOB_STATUS_CHANGE")["data"] == {"status": "null", "id": job}, "not told")
    tap.check(all(j["id"] != job for j in q.execute("query-jobs")), "it is still there")
    return info[0]


def well(q, command, job, **arguments):
    q.execute(command, job_id=job, **arguments)
    seen, others = told(q, job)
    info = dismissed(q, job)
    tap.check(seen == WELL and "error" not in info and info["type"] == command, f"{seen} {info}")
    tap.check(info["current-progress"] == info["total-progress"] > 0, f"{info}")
    return others


def badly(q, words, command, job="bad", **arguments):
    q.execute(command, job_id=job, **arguments)
    seen, _ = told(q, job)
    info = dismissed(q, job)
    tap.check(seen == BADLY and words in info["error"], f"{seen} {info}")


DISKS = {"vmstate": "disk0", "devices": ["disk0", "disk1"]}


def jobs_save_load_and_delete():
    with lib.Daemon() as daemon, daemon.client() as client:
        paths = snaps.begun(daemon, client)
        snaps.stopped_and_filled(client, paths, 1)
        with daemon.qmp(timeout=PATIENCE) as q, daemon.qmp(timeout=PATIENCE) as other:
            client.call("vm.resume", vm="a")
            others = well(q, "snapshot-save", "save0", tag="one", **DISKS)
            tap.check(all(e in ("STOP", "RESUME") for e in others), f"{others}")
            taken = snaps.tree(client)
            tap.check(taken == {"one": (None, True)} and all(len(snaps.names(p)) == 1 for p in paths), f"{taken}")
            q.events.clear()
            others = well(q, "snapshot-load", "load0", tag="one", **DISKS)
            tap.check(others == ["STOP", "RESUME"], f"{others}")
            tap.check(q.execute("query-status")["status"] == "running", "it stands still")
            while other.event("JOB_STATUS_CHANGE")["data"] != {"status": "null", "id": "load0"}:
                pass  # who listens stays connected, too
            tap.check(other.execute("query-status")["running"] and hmp(other, "info status") == "VM status: running\r\n", "another VM")
            with daemon.qmp(timeout=PATIENCE) as late:  # the socket is there again
                tap.check(late.execute("query-status")["running"], "late")
            console = daemon.console("a")
            tap.check(console.read_some(), "the guest does not run")
            console.close()
            well(q, "snapshot-delete", "delete0", tag="one", devices=["disk0", "disk1"])
            tap.check(snaps.tree(client) == {} and not any(snaps.names(p) for p in paths), f"{snaps.tree(client)}")
        client.call("vm.stop", vm="a")
        tap.check(all(snaps.holds(p, 1) for p in paths), "the disks hold something else")


def what_is_wrong_is_told_by_the_job():
    with lib.Daemon() as daemon, daemon.client() as client:
        snaps.begun(daemon, client)
        with daemon.qmp(timeout=PATIENCE) as q:
            badly(q, "No block device node 'nope'", "snapshot-save", tag="one", vmstate="nope", devices=["disk0", "disk1"])
            badly(q, "No block device node 'nope'", "snapshot-save", tag="one", vmstate="disk0", devices=["disk0", "nope"])
            badly(q, "disk1", "snapshot-save", tag="one", vmstate="disk0", devices=["disk0"])
            badly(q, "no snapshot 'one'", "snapshot-load", tag="one", **DISKS)
            badly(q, "no snapshot 'one'", "snapshot-delete", tag="one", devices=["disk0"])
            badly(q, "name", "snapshot-save", tag="a/b", **DISKS)
            well(q, "snapshot-save", "s", tag="one", **DISKS)
            badly(q, "one", "snapshot-save", tag="one", **DISKS)
            tap.check(list(snaps.tree(client)) == ["one"], f"{snaps.tree(client)}")
            # Names of jobs, and what can be asked of one.
            q.execute("snapshot-delete", job_id="same", tag="none", devices=[])
            told(q, "same")
            why = q.fails("GenericError", "snapshot-save", job_id="same", tag="two", **DISKS)
            tap.check("already in use" in why, why)
            why = q.fails("GenericError", "drive-backup", job_id="same", device="disk0", target="/x", sync="full")
            tap.check("same" in why, why)
            for command in ("job-cancel", "job-pause", "job-resume", "job-complete", "job-finalize"):
                why = q.fails("GenericError", command, id="same")
                tap.check("concluded" in why, why)
            dismissed(q, "same")
            tap.check("not found" in q.fails("GenericError", "job-dismiss", id="same"), "there is none")
            q.fails("GenericError", "snapshot-save", job_id="", tag="two", **DISKS)
            for number in range(64):
                q.execute("snapshot-delete", job_id=f"j{number}", tag="none", devices=[])
            tap.check("dismiss" in q.fails("GenericError", "snapshot-delete", job_id="more", tag="none", devices=[]), "65 jobs")


def the_human_monitor_saves_and_goes_back():
    with lib.Daemon() as daemon, daemon.client() as client:
        paths = snaps.begun(daemon, client)
        snaps.stopped_and_filled(client, paths, 1)
        with daemon.qmp(timeout=PATIENCE) as q:
            tap.check("no snapshot" in hmp(q, "info snapshots"), "there is one")
            before = hmp(q, "info registers")
            tap.check(hmp(q, "savevm one") == "", "savevm")
            text = hmp(q, "info snapshots")
            tap.check("one" in text and "MiB" in text, text)
            first = client.call("snapshot.get", vm="a", name="one")["tag"]
            tap.check(hmp(q, "savevm one") == "" and client.call("snapshot.get", vm="a", name="one")["tag"] != first, "it was not replaced")
            client.call("vm.resume", vm="a")
            console = daemon.console("a")
            tap.check(console.read_some(), "the guest does not run")
            console.close()
            tap.check(hmp(q, "loadvm one") == "", "loadvm")
            tap.check(hmp(q, "info registers") == before, "other registers")
            tap.check(not q.execute("query-status")["running"], f"{q.execute('query-status')}")
            tap.check(hmp(q, "loadvm none").startswith("Error: "), "there is none")
            tap.check(hmp(q, "loadvm").startswith("loadvm: "), "of no name")
            tap.check(hmp(q, "savevm") == "" and len(snaps.tree(client)) == 2, f"{snaps.tree(client)}")
            tap.check(hmp(q, "delvm one") == "" and hmp(q, "delvm one").startswith("Error: "), "delvm")


@tap.local("a session by TLS is not bound to the VM's socket, and stays")
def clients_are_sent_away_when_it_does_not_come_back():
    with lib.Daemon() as daemon, daemon.client() as client:
        paths = snaps.begun(daemon, client)
        with daemon.qmp(timeout=PATIENCE) as q:
            well(q, "snapshot-save", "s", tag="one", **DISKS)
            file = [os.path.join(f, "one") for f, _, found in os.walk(os.path.join(daemon.dir, "lib")) if f.endswith("/snapshots")][0]
            with open(file, "r+b") as state:
                state.seek(-9, os.SEEK_END)
                byte = state.read(1)
                state.seek(-9, os.SEEK_END)
                state.write(bytes([byte[0] ^ 1]))
            badly(q, file, "snapshot-load", tag="one", **DISKS)  # nothing has changed
            tap.check(q.execute("query-status")["status"] in ("paused", "prelaunch"), "it has ended")
            with open(file, "r+b") as state:
                state.seek(-9, os.SEEK_END)
                state.write(byte)
            os.rename(daemon.guest(), daemon.guest() + ".away")  # what it boots from is missing
            try:
                q.execute("snapshot-load", job_id="l", tag="one", **DISKS)
                try:
                    while True:
                        q.read()
                except EOFError:
                    pass
            finally:
                os.rename(daemon.guest() + ".away", daemon.guest())
        tap.check(client.call("vm.get", vm="a")["state"] == "stopped", "it runs")
        snaps.job(client, "snapshot.revert", "one")
        with daemon.qmp(timeout=PATIENCE) as q:
            tap.check(q.execute("query-jobs") == [], "jobs of before")
        del paths


CASES = [jobs_save_load_and_delete, what_is_wrong_is_told_by_the_job, the_human_monitor_saves_and_goes_back,
         clients_are_sent_away_when_it_does_not_come_back]

if __name__ == "__main__":
    if not shutil.which("qemu-io"):
        print("1..0 # SKIP qemu-io is missing (qemu-utils)")
        sys.exit(0)
    sys.exit(tap.run_cases(CASES))
