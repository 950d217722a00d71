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
from xml.etree import ElementTree

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402

SCHEMA = "/usr/share/libvirt/schemas/domainsnapshot.rng"
VMCTL = os.path.join(lib.BUILD, "vmctl")
SEED = int(os.environ.get("VMD_TEST_SEED", random.randrange(1 << 30)))
KILLS = 8


def run(*words, also=0, errors=False):
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    tap.check(done.returncode in (0, also), f"{words}: {done.stdout}{done.stderr}")
    return done.stdout + (done.stderr if errors else "")


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
    if name is not None:
        params["name"] = name
    out = client.call("job.wait", job=client.call(method, vm=vm, **params)["job"], timeout_ms=120000)
    tap.check(out["state"] == state, f"{method} {name}: {out}")
    return out


def tree(client):
    return {s["name"]: (s.get("parent"), s.get("current", False)) for s in client.call("snapshot.list", vm="a")["snapshots"]}


def files(daemon):
    return sorted(name for folder, _, found in os.walk(os.path.join(daemon.dir, "lib")) if folder.endswith("/snapshots")
                  for name in found)


def mem_files(daemon):
    """Of memory that is kept outside of the daemon's folders."""
    return sorted(n for n in os.listdir(daemon.dir) if ".mem" in n)


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


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0x10]))


def devices_that_came_or_went_meanwhile_are_named():
    with lib.Daemon() as daemon, daemon.client() as client:
        paths = [os.path.join(daemon.dir, f"disk{i}.qcow2") for i in range(2)]
        for path in paths:
            run("qemu-img", "create", "-q", "-f", "qcow2", path, "4M")
        disk = {"format": "qcow2", "bus": "virtio-pci"}
        client.call("vm.define", config=daemon.config("a", root_ports=3, rng=False, disks=[
            {"file": paths[0], "name": "own", "hotplug": True, **disk}]))
        client.call("vm.start", vm="a")
        job(client, "snapshot.create", "before")

        def refused(word):
            out = job(client, "snapshot.create", "no", "failed")
            tap.check(word in out["error"]["message"] and list(tree(client)) == ["before"], f"{out}")
            out = client.call("job.wait", job=client.call("vm.save", vm="a")["job"], timeout_ms=60000)
            tap.check(out["state"] == "failed" and word in out["error"]["message"], f"{out}")
            tap.check([len(names(p)) for p in paths] == [1, 0], "something is left")
        client.call("vm.attach", vm="a", disk={"file": paths[1], "name": "late", **disk})
        refused("disk 'late'")
        client.call("vm.detach", vm="a", disk="late")
        client.call("vm.attach", vm="a", nic={"name": "card", "type": "none", "bus": "virtio-pci"})
        refused("network card 'card'")
        client.call("vm.detach", vm="a", nic="card")
        job(client, "snapshot.create", "between")
        job(client, "snapshot.revert", "between")
        job(client, "snapshot.delete", "between")
        client.call("vm.detach", vm="a", disk="own", live=True)
        out = job(client, "snapshot.create", "no", "failed")
        tap.check("'own'" in out["error"]["message"], f"{out}")
        job(client, "snapshot.revert", "before")
        job(client, "snapshot.create", "after")


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
        rng = random.Random(SEED)
        print(f"# seed {SEED}")
        for at in (0, 8, size - 1, size - 40, size - 64, *(rng.randrange(size) for _ in range(24))):  # header, seal, index, all between
            flip(where, at)
            out = job(client, "snapshot.revert", "one", "failed")
            vm = client.call("vm.get", vm="a")
            tap.check((vm["state"], vm["pid"]) == ("paused", pid) and "one'" in str(out["error"]), f"byte {at}: {vm} {out}")
            flip(where, at)
        # What only a start finds out comes when the VM is gone already: it stays between the two.
        os.rename(daemon.guest(), daemon.guest() + ".away")
        job(client, "snapshot.revert", "one", "failed")
        client.call("vm.wait", vm="a", states=["stopped", "crashed"], timeout_ms=60000)
        error = client.fails("bad-state", "vm.start", vm="a")
        tap.check("snapshot 'one'" in str(error), f"{error}")
        error = client.fails("bad-state", "snapshot.create", vm="a", name="two")
        tap.check("'one'" in str(error), f"{error}")
        os.rename(os.path.join(daemon.dir, "loop.bin.away"), os.path.join(daemon.dir, "loop.bin"))
        job(client, "snapshot.revert", "one")
        client.call("vm.stop", vm="a")
        client.fails("bad-state", "snapshot.create", vm="a", name="two", memory="internal")
        raw = os.path.join(daemon.dir, "raw")
        with open(raw, "wb") as file:
            file.truncate(1 << 20)
        client.call("vm.set", vm="a", set={"disks": [{"file": paths[0], "format": "qcow2"}, {"file": raw, "name": "plain"}]})
        client.call("vm.start", vm="a", paused=True)
        out = job(client, "snapshot.create", "two", "failed")
        tap.check("plain" in str(out["error"]), f"{out}")
        tap.check(list(tree(client)) == ["one"] and files(daemon) == ["one"] and len(names(paths[0])) == 1, f"{tree(client)}")
        tap.check(client.call("vm.get", vm="a")["state"] == "paused", "it did not survive the refusal")


def stop(client):
    if client.call("vm.get", vm="a")["state"] != "stopped":
        client.call("vm.stop", vm="a")


def snapshots_of_stopped_vms_and_of_disks_alone():
    with lib.Daemon() as daemon, daemon.client() as client:
        paths = begun(daemon, client)
        client.call("vm.stop", vm="a")
        fill(paths, 1)
        off = job(client, "snapshot.create", "off")["result"]
        tap.check(off["stopped"] and not off["memory"] and client.call("vm.get", vm="a")["state"] == "stopped", f"{off}")
        stopped_and_filled(client, paths, 2)
        pid = client.call("vm.get", vm="a")["pid"]
        disks = job(client, "snapshot.create", "disks", memory="no")["result"]
        tap.check(not disks["memory"] and not disks.get("stopped") and [d["name"] for d in disks["disks"]] == ["disk0", "disk1"], f"{disks}")
        tap.check(client.call("vm.get", vm="a")["pid"] == pid, "another emulator")
        one = job(client, "snapshot.create", "one", memory="no", disks=[{"name": "vdb", "snapshot": "no"}])["result"]
        tap.check(one["disks"][1] == {"name": "disk1", "snapshot": "no"}, f"{one}")
        tap.check([len(names(p)) for p in paths] == [3, 2] and files(daemon) == [], f"{files(daemon)}")
        stopped_and_filled(client, paths, 3)
        job(client, "snapshot.revert", "one")  # of one that runs: it is left stopped, and the other disk as it was
        tap.check(client.call("vm.get", vm="a")["state"] == "stopped", "it runs")
        tap.check(holds(paths[0], 2) and holds(paths[1], 3), "other disks")
        client.call("vm.start", vm="a")
        lib.kill(client.call("vm.get", vm="a")["pid"])
        client.call("vm.wait", vm="a", states=["crashed"], timeout_ms=60000)
        job(client, "snapshot.revert", "off")
        tap.check(client.call("vm.get", vm="a")["state"] == "stopped", "it is what it was before")
        tap.check(all(holds(p, 1) for p in paths), "other disks")
        client.call("vm.set", vm="a", set={"cpus": 2})
        job(client, "snapshot.revert", "disks", start=True)
        vm = client.call("vm.get", vm="a")
        tap.check(vm["state"] == "running" and vm["config"].get("cpus", 1) == 1, f"{vm}")
        console = daemon.console("a")
        tap.check(console.read_some(), "the guest does not run")
        console.close()
        job(client, "snapshot.revert", "disks")
        tap.check(all(holds(p, 2) for p in paths), "other disks")
        tap.check(tree(client) == {"off": (None, False), "disks": ("off", True), "one": ("disks", False)}, f"{tree(client)}")
        job(client, "snapshot.delete", "disks")
        client.call("vm.start", vm="a", paused=True)
        job(client, "snapshot.delete", "one")
        job(client, "snapshot.delete", "off")
        tap.check([names(p) for p in paths] == [[], []], "something is left")
        made = job(client, "snapshot.create", None)["result"]["name"]
        tap.check(made.isdigit() and made in tree(client), made)


def disks_that_cannot_be_in_it_are_named():
    with lib.Daemon() as daemon, daemon.client() as client:
        paths = begun(daemon, client)
        raw = os.path.join(daemon.dir, "raw")
        with open(raw, "wb") as file:
            file.truncate(1 << 20)

        def refused(code, word, **params):
            error = client.fails(code, "snapshot.create", vm="a", name="s", **params)
            tap.check(word in str(error), f"{params}: {error}")
        no = {"snapshot": "no"}
        refused("unsupported", "disk1", disks=[{"name": "disk1", **no}])
        refused("not-found", "'vdc'", disks=[{"name": "vdc", **no}])
        refused("invalid-params", "twice", memory="no", disks=[{"name": "vda"}, {"name": paths[0]}])
        refused("bad-state", "no disk", memory="no", disks=[{"name": "vda", **no}, {"name": "vdb", **no}])
        refused("invalid-params", "quiesce", quiesce=True)
        refused("bad-state", "paused", memory="no", quiesce=True)
        client.call("vm.resume", vm="a")
        refused("bad-state", "no agent", memory="no", quiesce=True)
        client.call("job.wait", job=client.call("vm.save", vm="a")["job"], timeout_ms=60000)
        refused("bad-state", "saved state")
        client.call("vm.start", vm="a", fresh=True)
        client.call("vm.stop", vm="a")
        refused("bad-state", "stopped", memory="internal")
        refused("bad-state", "stopped", quiesce=True)
        client.call("vm.set", vm="a", set={"disks": [{"file": paths[0], "format": "qcow2"}, {"file": raw, "name": "plain"},
                                                     {"file": paths[1], "format": "qcow2", "readonly": True}]})
        refused("unsupported", "plain")
        refused("unsupported", "read-only", disks=[{"name": "plain", **no}, {"name": paths[1]}])
        job(client, "snapshot.create", "s", disks=[{"name": "plain", **no}])
        tap.check([len(names(p)) for p in paths] == [1, 0], "other images")
        os.rename(paths[0], paths[0] + ".away")  # a disk that is gone: found before anything is given up
        client.call("vm.set", vm="a", set={"disks": []})
        client.call("vm.start", vm="a")
        pid = client.call("vm.get", vm="a")["pid"]
        out = job(client, "snapshot.revert", "s", "failed")
        tap.check(paths[0] in str(out["error"]) and client.call("vm.get", vm="a")["pid"] == pid, f"{out}")
        run("qemu-img", "create", "-q", "-f", "qcow2", paths[0], "4M")
        out = job(client, "snapshot.revert", "s", "failed")
        tap.check("has no snapshot" in str(out["error"]) and client.call("vm.get", vm="a")["pid"] == pid, f"{out}")
        os.rename(paths[0] + ".away", paths[0])
        job(client, "snapshot.revert", "s")
        tap.check(len(client.call("vm.get", vm="a")["config"]["disks"]) == 3, "another definition")


def memory_alone_leaves_the_disks_to_themselves():
    with lib.Daemon() as daemon, daemon.client() as client:
        raw, disk = os.path.join(daemon.dir, "raw"), os.path.join(daemon.dir, "disk.qcow2")
        run("qemu-img", "create", "-q", "-f", "raw", raw, "4M")
        run("qemu-img", "create", "-q", "-f", "qcow2", disk, "4M")
        client.call("vm.define", config=daemon.config("a", disks=[{"file": disk, "format": "qcow2"}, {"file": raw, "format": "raw"}]))
        stopped_and_filled(client, [disk], 1)
        before = registers(daemon)
        out = job(client, "snapshot.create", "whole", "failed")
        tap.check("disk1" in out["error"]["message"], f"{out}")  # a raw one cannot be in it, but need not
        held = job(client, "snapshot.create", "one", memory_only=True)["result"]
        tap.check(all(d["snapshot"] == "no" for d in held["disks"]) and held["memory"] and files(daemon) == ["one"] and not names(disk), f"{held}")
        file = os.path.join(daemon.dir, "two.mem")
        held = job(client, "snapshot.create", "two", memory="external", memory_file=file, disks=[{"name": n, "snapshot": "no"} for n in ("vda", "disk1")])["result"]
        tap.check(held["memory_file"] == file and mem_files(daemon) == ["two.mem"] and os.path.getsize(file) == held["bytes"], f"{held}")
        tap.check(os.stat(file).st_mode & 0o777 == 0o600 and files(daemon) == ["one"], f"{files(daemon)}")
        tap.check(tree(client) == {"one": (None, False), "two": ("one", True)}, f"{tree(client)}")
        text = run(VMCTL, "--dir", daemon.dir, "snapshot", "show", "a", "two", "--xml")
        root = ElementTree.fromstring(text)
        tap.check(root.find("memory").attrib == {"snapshot": "external", "file": file} and
                  [d.get("snapshot") for d in root.iterfind("disks/disk")] == ["no", "no"], text)
        if os.path.exists(SCHEMA):
            with open(os.path.join(daemon.dir, "s.xml"), "w", encoding="utf-8") as out:
                out.write(text)
            run("virt-xml-validate", out.name, "domainsnapshot")
        stopped_and_filled(client, [disk], 2)
        client.call("vm.resume", vm="a")
        console = daemon.console("a")
        tap.check(console.read_some(), "the guest does not run")
        console.close()
        for name in ("one", "two"):
            job(client, "snapshot.revert", name)
            tap.check(registers(daemon) == before, f"{name}: other registers")
        tap.check(run(VMCTL, "--dir", daemon.dir, "snapshot", "diff", "a", "one", "two").count("page") <= 1, "they differ")
        client.call("vm.stop", vm="a")
        tap.check(holds(disk, 2), "the disk went back")
        # In an archive, and back from there: with the daemon then.
        archive = os.path.join(daemon.dir, "two.snap")
        job(client, "snapshot.export", "two", file=archive)
        job(client, "snapshot.delete", "two")
        tap.check(not mem_files(daemon), f"{mem_files(daemon)}")
        held = job(client, "snapshot.import", None, file=archive)["result"]
        tap.check("memory_file" not in held and files(daemon) == ["one", "two"], f"{held}")
        job(client, "snapshot.revert", "two")
        tap.check(registers(daemon) == before, "other registers")
        client.call("vm.stop", vm="a")
        tap.check(holds(disk, 2), "the disk went back")


def a_file_of_memory_is_the_snapshots_own():
    with lib.Daemon() as daemon, daemon.client() as client:
        begun(daemon, client)
        file = os.path.join(daemon.dir, "one.mem")
        with open(file, "w", encoding="ascii") as out:
            out.write("precious")
        for where in (file, os.path.join(daemon.dir, "none", "x.mem"), "/proc/x.mem"):
            out = job(client, "snapshot.create", "one", "failed", memory_file=where)
            tap.check(where in out["error"]["message"], f"{out}")
        with open(file, encoding="ascii") as there:
            tap.check(there.read() == "precious" and tree(client) == {} and mem_files(daemon) == ["one.mem"], f"{mem_files(daemon)}")
        os.unlink(file)
        fails = [("invalid-params", {"memory": "external"}), ("invalid-params", {"memory": "internal", "memory_file": file}),
                 ("invalid-params", {"memory": "no", "memory_file": file}), ("invalid-params", {"memory": "no", "memory_only": True}),
                 ("invalid-params", {"memory_file": "one.mem"}), ("invalid-params", {"memory_only": True, "disks": [{"name": "vda"}]})]
        for error, params in fails:
            client.fails(error, "snapshot.create", vm="a", name="one", **params)
        job(client, "snapshot.create", "one", memory_file=file)  # its disks are in it
        client.fails("exists", "snapshot.create", vm="a", name="two", memory_file=file)
        with open(file, "r+b") as state:
            good = state.read()
            state.seek(len(good) // 2)
            state.write(bytes([good[len(good) // 2] ^ 1]))
        out = job(client, "snapshot.revert", "one", "failed")
        tap.check(file in out["error"]["message"], f"{out}")
        with open(file, "wb") as state:
            state.write(good)
        job(client, "snapshot.revert", "one")
        os.rename(file, file + ".away")
        with open(file, "w", encoding="ascii") as out:
            out.write("somebody else's")
        job(client, "snapshot.delete", "one")
        with open(file, encoding="ascii") as there:
            tap.check(there.read() == "somebody else's", "it went with the snapshot")
        os.unlink(file)
        job(client, "snapshot.create", "one", memory_file=file)
        client.call("vm.delete", vm="a", force=True)
        tap.check(mem_files(daemon) == ["one.mem.away"], f"{mem_files(daemon)}")


def a_disk_that_fills_up_leaves_nothing_half():
    """The file of memory gets some of its bytes, and no more of them have room."""
    with lib.Daemon() as daemon, daemon.client() as client:
        paths = begun(daemon, client, paused=False)
        job(client, "snapshot.create", "one")
        folder = next(f for f, _, found in os.walk(os.path.join(daemon.dir, "lib")) if f.endswith("/snapshots"))
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "vmd-test", folder], capture_output=True, text=True, timeout=30,
                              check=False)
        if done.returncode:
            raise tap.Skip(f"the right to mount a file system: {done.stderr.strip()}")
        try:
            with open(os.path.join(folder, "filler"), "wb") as file:
                file.write(bytes((1 << 20) - 4096))
            out = job(client, "snapshot.create", "two", "failed")
            tap.check(out["error"]["error"] == "file-error" and "No space left" in out["error"]["message"], f"{out}")
            tap.check(os.listdir(folder) == ["filler"], f"{os.listdir(folder)}")
            tap.check(client.call("vm.get", vm="a")["state"] == "running" and list(tree(client)) == ["one"], f"{tree(client)}")
            tap.check(all(len(names(p)) == 1 for p in paths), f"{[names(p) for p in paths]}")
            os.unlink(os.path.join(folder, "filler"))
            job(client, "snapshot.create", "two")
            tap.check(os.listdir(folder) == ["two"], f"{os.listdir(folder)}")
            console = daemon.console("a")
            tap.check(console.read_some(), "the guest does not run")
            console.close()
            job(client, "snapshot.delete", "two")
        finally:
            subprocess.run(["umount", "-l", folder], check=True, timeout=30)
        job(client, "snapshot.revert", "one")


def as_libvirts_xml_and_from_it():
    with lib.Daemon() as daemon, daemon.client() as client:
        begun(daemon, client)
        cli = [VMCTL, "--dir", daemon.dir, "snapshot"]

        def judged(name):
            text = run(*cli, "show", "a", name, "--xml")
            path = os.path.join(daemon.dir, name + ".xml")
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            if os.path.exists(SCHEMA):
                run("virt-xml-validate", path, "domainsnapshot")
            else:
                print("# libvirt's schema is missing (libvirt-clients)")
            return path, ElementTree.fromstring(text)

        def create(document, *words, status=0):
            path = os.path.join(daemon.dir, "in.xml")
            with open(path, "w", encoding="utf-8") as file:
                file.write(document)
            return run(*cli, "create", "a", *words, "--xml", path, also=status, errors=True)
        job(client, "snapshot.create", "first")
        create("<domainsnapshot><name>second</name><description>all &lt;is&gt; well</description><memory snapshot='no'/>\n"
               "<disks><disk name='vda' snapshot='internal'/><disk name='vdb' snapshot='no'/></disks></domainsnapshot>")
        path, root = judged("second")
        tap.check([root.findtext(p) for p in ("name", "description", "state", "parent/name", "domain/name")]
                  == ["second", "all <is> well", "disk-snapshot", "first", "a"], open(path, encoding="utf-8").read())
        tap.check([(d.get("name"), d.get("snapshot")) for d in root.iter("disk") if d.get("name")]
                  == [("vda", "internal"), ("vdb", "no")] and root.find("memory").get("snapshot") == "no", "disks")
        tap.check([t.get("dev") for t in root.iterfind("domain/devices/disk/target")] == ["vda", "vdb"], "targets")
        _, root = judged("first")
        tap.check(root.findtext("state") == "paused" and root.find("memory").get("snapshot") == "internal"
                  and root.find("parent") is None and int(root.findtext("creationTime")) > 1700000000, "first")
        # What one says of itself makes another, under what the command line says.
        with open(path, encoding="utf-8") as file:
            out = create(file.read(), "third", "--description", "mine")
        tap.check("creationTime" in out and "left out" in out, out)
        client.call("vm.stop", vm="a")
        client.call("vm.start", vm="a")
        job(client, "snapshot.create", "fourth")
        client.call("vm.stop", vm="a")
        create("<domainsnapshot/>", "fifth")
        tap.check([judged(n)[1].findtext("state") for n in ("third", "fourth", "fifth")] == ["disk-snapshot", "running", "shutoff"], "states")
        third = client.call("snapshot.get", vm="a", name="third")
        tap.check(third["description"] == "mine" and third["disks"][1]["snapshot"] == "no", f"{third}")
        # What cannot be is refused by line and element, and nothing is taken.
        before = tree(client)
        for document, words in (("<domainsnapshot>\n<memory snapshot='odd' file='/m'/></domainsnapshot>", "in.xml:2: <memory snapshot='odd'>"),
                                ("<domainsnapshot>\n\n<cookie/></domainsnapshot>", "in.xml:3: <cookie>"),
                                ("<domain type='qemu'/>", "in.xml:1: <domain"), ("<domainsnapshot>", "in.xml:1: ")):
            out = create(document, "bad", status=2)
            tap.check(words in out, f"{document}: {out}")
        out = create("<domainsnapshot><disks><disk name='vdz' snapshot='no'/></disks></domainsnapshot>", "bad", status=4)
        tap.check("'vdz'" in out and tree(client) == before, out)
        client.fails("not-found", "snapshot.xml", vm="a", name="none")


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
                params = {}
                if act == "snapshot.create":  # with memory; disks alone; of a stopped VM; with memory in a file of its own
                    kind = rng.randrange(4)
                    if kind == 1:
                        params["memory"] = "no"
                    elif kind == 2:
                        client.call("vm.stop", vm="a")
                    elif kind == 3:
                        params["memory_file"] = os.path.join(daemon.dir, name + ".mem")
                elif act == "snapshot.revert" and rng.random() < 0.5:
                    params["start"] = True
                pid = client.call("vm.get", vm="a").get("pid")
                client.send(act, vm="a", name=name, **params)
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
                found = [s for s in client.call("snapshot.list", vm="a")["snapshots"] if s.get("memory", True)]
                whole = sorted(s["name"] for s in found if "memory_file" not in s)
                tap.check(files(daemon) == whole, f"turn {turn} {act}: {files(daemon)}, {whole}")
                apart = sorted(os.path.basename(s["memory_file"]) for s in found if "memory_file" in s)
                tap.check(mem_files(daemon) == apart, f"turn {turn} {act}: {mem_files(daemon)}, {apart}")
                for path in paths:
                    inside = {n.split(".")[0] for n in names(path)}
                    tap.check(inside == kept, f"turn {turn} {act}: {inside}, {kept}")
                for name in kept:
                    job(client, "snapshot.revert", name)
                    stop(client)
                    tap.check(all(holds(p, int(name[1:])) for p in paths), f"turn {turn} {act}: {name}")
                client.call("vm.start", vm="a", paused=True)
        with daemon.client() as client:
            stop(client)
        for path in paths:  # who is killed may leave clusters that nothing names (3), and nothing worse
            run("qemu-img", "check", "-q", path, also=3)


CASES = [memory_and_disks_go_back_together, a_running_vm_runs_on_and_runs_again, memory_alone_leaves_the_disks_to_themselves,
         a_file_of_memory_is_the_snapshots_own, a_disk_that_fills_up_leaves_nothing_half,
         any_node_of_the_tree_goes, devices_that_came_or_went_meanwhile_are_named, what_cannot_be_is_refused_and_nothing_changes, snapshots_of_stopped_vms_and_of_disks_alone,
         disks_that_cannot_be_in_it_are_named, as_libvirts_xml_and_from_it, vmctl_does_all_of_it, whoever_dies_each_snapshot_is_whole_or_gone]


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
