#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Snapshots of whole VMs: memory and disks go back together, any node of the tree goes, whoever dies meanwhile. Disks are written and
judged by qemu-io and qemu-img.

    daemon_snapshots.py [--seed N --count N]     a campaign of kills"""

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402

VMCTL = os.path.join(lib.BUILD, "vmctl")
SEED = int(os.environ.get("VMD_TEST_SEED", random.randrange(1 << 30)))
KILLS = 8


def run(*words, also=0):
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    tap.check(done.returncode in (0, also), f"{words}: {done.stdout}{done.stderr}")
    return done.stdout


def begun(daemon, client, paused=True, n_disks=2):
    """VM a with disks, started."""
    paths = [os.path.join(daemon.dir, f"disk{i}.qcow2") for i in range(n_disks)]
    for path in paths:
        run("qemu-img", "create", "-q", "-f", "qcow2", path, "4M")
    client.call("vm.define", config=daemon.config("a", disks=[{"file": p, "format": "qcow2"} for p in paths]))
    client.call("vm.start", vm="a", paused=paused)
    return paths


def fill(paths, pattern):
    for path in paths:
        run("qemu-io", "-f", "qcow2", "-c", f"write -q -P {pattern} 0 1M", path)


def holds(path, pattern, snapshot=None):
    where = ["-r", "-f", "qcow2"] + (["-l", f"snapshot.name={snapshot}"] if snapshot else [])
    return "failed" not in run("qemu-io", *where, "-c", f"read -P {pattern} 0 1M", path)


def names(path):
    """Snapshots inside an image."""
    return re.findall(r"^\d+\s+(\S+)", run("qemu-img", "snapshot", "-U", "-l", path), re.M)


def job(client, method, name, state="done", vm="a", **params):
    out = client.call("job.wait", job=client.call(method, vm=vm, name=name, **params)["job"], timeout_ms=120000)
    tap.check(out["state"] == state, f"{method} {name}: {out}")
    return out


def tree(client):
    return {s["name"]: (s.get("parent"), s.get("current", False)) for s in client.call("snapshot.list", vm="a")["snapshots"]}


def files(daemon):
    return sorted(name for folder, _, found in os.walk(os.path.join(daemon.dir, "lib")) if folder.endswith("/snapshots")
                  for name in found)


def stopped_and_filled(client, paths, pattern):
    """The disks get other bytes, and the VM stands still before its first instruction."""
    if client.call("vm.get", vm="a")["state"] != "stopped":
        client.call("vm.stop", vm="a")
    fill(paths, pattern)
    client.call("vm.start", vm="a", paused=True)


def registers(daemon):
    with daemon.qmp() as q:
        return q.execute("human-monitor-command", command_line="info registers")


def memory_and_disks_go_back_together():
    with lib.Daemon() as daemon, daemon.client() as client:
        paths = begun(daemon, client, paused=False)
        console = daemon.console("a")
        tap.check(console.read_some(), "the guest does not run")
        console.close()
        stopped_and_filled(client, paths, 1)
        client.call("vm.resume", vm="a")
        console = daemon.console("a")
        tap.check(console.read_some(), "the guest does not run")
        console.close()
        client.call("vm.pause", vm="a")
        before = registers(daemon)
        taken = job(client, "snapshot.create", "one", description="all is well")["result"]
        tap.check(taken["state"] == "kept" and taken["current"] and not taken.get("running", False), f"{taken}")
        tap.check(registers(daemon) == before and client.call("vm.get", vm="a")["state"] == "paused", "it is another now")
        tap.check(files(daemon) == ["one"] and all(names(p) == [taken["tag"]] for p in paths), f"{files(daemon)}")
        for number in range(2):
            stopped_and_filled(client, paths, 2 + number)
            job(client, "snapshot.revert", "one")
            vm = client.call("vm.get", vm="a")
            tap.check(vm["state"] == "paused" and registers(daemon) == before, f"{vm}")
            client.call("vm.stop", vm="a")
            tap.check(all(holds(p, 1) for p in paths), "the disks are not what they were")
        job(client, "snapshot.revert", "one")  # of a VM that does not run
        tap.check(registers(daemon) == before, "other registers")
        client.call("vm.stop", vm="a")
        for path in paths:
            run("qemu-img", "check", "-q", path)


def a_running_vm_runs_on_and_runs_again():
    with lib.Daemon() as daemon, daemon.client() as client:
        begun(daemon, client, paused=False)
        taken = job(client, "snapshot.create", "one")["result"]
        tap.check(taken["running"] and client.call("vm.get", vm="a")["state"] == "running", f"{taken}")
        client.call("vm.set", vm="a", set={"memory": 64 << 20, "cpus": 2})
        for state in ("running", "paused", "stopped"):
            if state == "paused":
                client.call("vm.pause", vm="a")
            elif state == "stopped":
                client.call("vm.stop", vm="a")
            job(client, "snapshot.revert", "one")
            vm = client.call("vm.get", vm="a")
            tap.check(vm["state"] == "running" and vm["config"].get("cpus", 1) == 1, f"after {state}: {vm}")
            console = daemon.console("a")
            tap.check(console.read_some(), "the guest does not run")
            console.close()


def any_node_of_the_tree_goes():
    with lib.Daemon() as daemon, daemon.client() as client:
        paths = begun(daemon, client)
        for number, name in enumerate(("a", "b", "c")):
            stopped_and_filled(client, paths, number + 1)
            job(client, "snapshot.create", name)
        job(client, "snapshot.revert", "a")
        stopped_and_filled(client, paths, 9)
        job(client, "snapshot.create", "d")
        tap.check(tree(client) == {"a": (None, False), "b": ("a", False), "c": ("b", False), "d": ("a", True)}, f"{tree(client)}")
        error = client.fails("exists", "snapshot.create", vm="a", name="d")
        tap.check("'d'" in str(error), f"{error}")
        client.fails("not-found", "snapshot.revert", vm="a", name="e")
        client.fails("not-found", "snapshot.delete", vm="a", name="e")
        client.fails("not-found", "snapshot.get", vm="a", name="e")
        job(client, "snapshot.delete", "a")  # of a VM that has its disks open
        tap.check(tree(client) == {"b": (None, False), "c": ("b", False), "d": (None, True)}, f"{tree(client)}")
        client.call("vm.stop", vm="a")
        job(client, "snapshot.delete", "b")  # of one that has not
        tap.check(tree(client) == {"c": (None, False), "d": (None, True)}, f"{tree(client)}")
        tap.check(files(daemon) == ["c", "d"] and all(len(names(p)) == 2 for p in paths), f"{files(daemon)}")
        for name, pattern in (("c", 3), ("d", 9)):
            job(client, "snapshot.revert", name)
            client.call("vm.stop", vm="a")
            tap.check(all(holds(p, pattern) for p in paths), f"{name}: other disks")
        client.fails("bad-state", "vm.delete", vm="a")
        client.call("vm.delete", vm="a", force=True)
        tap.check(files(daemon) == [], f"{files(daemon)}")


def what_cannot_be_is_refused_and_nothing_changes():
    with lib.Daemon() as daemon, daemon.client() as client:
        paths = begun(daemon, client)
        job(client, "snapshot.create", "one")
        where = [os.path.join(folder, "one") for folder, _, found in os.walk(daemon.dir) if "one" in found][0]
        pid = client.call("vm.get", vm="a")["pid"]
        size = os.path.getsize(where)
        os.rename(where, where + ".away")
        for size_now in (None, 0, size - 1):  # a file that is gone, empty, cut
            if size_now is not None:
                shutil.copy(where + ".away", where)
                os.truncate(where, size_now)
            out = job(client, "snapshot.revert", "one", "failed")
            tap.check(out["error"]["data"]["error"] == "file-error" if "data" in out["error"] else True, f"{out}")
            vm = client.call("vm.get", vm="a")
            tap.check((vm["state"], vm["pid"]) == ("paused", pid), f"{vm}")
        os.rename(where + ".away", where)
        with open(where, "r+b") as file:  # its seal: found out when the VM is gone already
            file.seek(-1, os.SEEK_END)
            last = file.read(1)
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last[0] ^ 1]))
        job(client, "snapshot.revert", "one", "failed")
        client.call("vm.wait", vm="a", states=["stopped", "crashed"], timeout_ms=60000)
        error = client.fails("bad-state", "vm.start", vm="a")
        tap.check("snapshot 'one'" in str(error), f"{error}")
        with open(where, "r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(last)
        job(client, "snapshot.revert", "one")
        client.call("vm.stop", vm="a")
        client.fails("bad-state", "snapshot.create", vm="a", name="two")
        raw = os.path.join(daemon.dir, "raw")
        with open(raw, "wb") as file:
            file.truncate(1 << 20)
        client.call("vm.set", vm="a", set={"disks": [{"file": paths[0], "format": "qcow2"}, {"file": raw, "name": "plain"}]})
        client.call("vm.start", vm="a", paused=True)
        out = job(client, "snapshot.create", "two", "failed")
        tap.check("plain" in str(out["error"]), f"{out}")
        tap.check(list(tree(client)) == ["one"] and files(daemon) == ["one"] and len(names(paths[0])) == 1, f"{tree(client)}")
        tap.check(client.call("vm.get", vm="a")["state"] == "paused", "it did not survive the refusal")


def vmctl_does_all_of_it():
    with lib.Daemon() as daemon, daemon.client() as client:
        begun(daemon, client, n_disks=1)
        for words, shows in ((("create", "a", "one", "--description", "all is well"), ""), (("ls", "a"), "one"),
                             (("show", "a", "one"), "all is well"), (("revert", "a", "one"), ""), (("rm", "a", "one"), "")):
            out = run(VMCTL, "--dir", daemon.dir, "snapshot", *words)
            tap.check(shows in out, f"{words}: {out}")
        tap.check(tree(client) == {} and files(daemon) == [], f"{tree(client)}")


def whoever_dies_each_snapshot_is_whole_or_gone(seed=SEED, count=KILLS):
    """vmd or the emulator is killed at a random moment of taking, going back to and deleting snapshots. Disks hold the name's number."""
    print(f"# seed {seed}")
    rng = random.Random(seed)
    with lib.Daemon() as daemon:
        with daemon.client() as client:
            paths = begun(daemon, client)
            stopped_and_filled(client, paths, 1)
            job(client, "snapshot.create", "s1")
        number, kept = 1, {"s1"}
        for turn in range(count):
            act = ("snapshot.create", "snapshot.revert", "snapshot.delete")[turn % 3]
            with daemon.client() as client:
                if act == "snapshot.create":
                    number += 1
                    client.call("job.wait", job=client.call("snapshot.revert", vm="a", name="s1")["job"], timeout_ms=60000)
                    stopped_and_filled(client, paths, number)
                name = f"s{number}" if act == "snapshot.create" else sorted(kept)[-1]
                if act == "snapshot.delete" and name == "s1":
                    continue
                pid = client.call("vm.get", vm="a").get("pid")
                client.send(act, vm="a", name=name)
                time.sleep(rng.random() * 0.12)
                if pid and rng.random() < 0.4:
                    try:
                        os.kill(pid, 9)
                    except ProcessLookupError:
                        pass
                daemon.kill()
            daemon.start()
            with daemon.client() as client:
                lib.wait_for(lambda c=client: all(s["state"] == "kept" for s in c.call("snapshot.list", vm="a")["snapshots"]),
                             60, "snapshots settle")
                kept = set(tree(client))
                tap.check("s1" in kept, f"{kept}")
                tap.check(files(daemon) == sorted(kept), f"turn {turn} {act}: {files(daemon)}, {kept}")
                for path in paths:
                    inside = {n.split(".")[0] for n in names(path)}
                    tap.check(inside == kept, f"turn {turn} {act}: {inside}, {kept}")
                for name in kept:
                    job(client, "snapshot.revert", name)
                    client.call("vm.stop", vm="a")
                    tap.check(all(holds(p, int(name[1:])) for p in paths), f"turn {turn} {act}: {name}")
                client.call("vm.start", vm="a", paused=True)
        with daemon.client() as client:
            client.call("vm.stop", vm="a")
        for path in paths:  # who is killed may leave clusters that nothing names (3), and nothing worse
            run("qemu-img", "check", "-q", path, also=3)


CASES = [memory_and_disks_go_back_together, a_running_vm_runs_on_and_runs_again, any_node_of_the_tree_goes,
         what_cannot_be_is_refused_and_nothing_changes, vmctl_does_all_of_it, whoever_dies_each_snapshot_is_whole_or_gone]


def main():
    if len(sys.argv) > 1 and sys.argv[1].startswith("-"):
        parser = argparse.ArgumentParser()
        parser.add_argument("--seed", type=int, default=SEED)
        parser.add_argument("--count", type=int, default=300)
        options = parser.parse_args()
        whoever_dies_each_snapshot_is_whole_or_gone(options.seed, options.count)
        return 0
    if not shutil.which("qemu-io"):
        print("1..0 # SKIP qemu-io is missing (qemu-utils)")
        return 0
    return tap.run_cases(CASES)


if __name__ == "__main__":
    sys.exit(main())
