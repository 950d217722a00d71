# SPDX-License-Identifier: Apache-2.0
"""Snapshots in files of their own: exported from VMs that run, imported after they were deleted and into other daemons' VMs; hostile files
are refused by name; whoever dies meanwhile, the snapshot and what the disks hold are whole. Disks are judged by qemu-io and qemu-img.

    daemon_archives.py [--seed N --count N]     a campaign of kills"""

import argparse
import hashlib
import io
import json
import os
import random
import shutil
import sys
import tarfile
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import daemon_snapshots as snaps  # noqa: E402
import tap  # noqa: E402

SEED = snaps.SEED
KILLS = 6


def job(client, method, name, state="done", **params):
    return snaps.job(client, method, name, state, **params)


def refused(client, word, file, **params):
    out = client.call("job.wait", job=client.call("snapshot.import", vm="a", file=file, **params)["job"], timeout_ms=120000)
    tap.check(out["state"] == "failed" and word in out["error"]["message"], f"{word}: {out}")
    return out


def imported(client, file, name=None, **params):
    return job(client, "snapshot.import", name, file=file, **params)["result"]


def taken(daemon, client, pattern=1):
    """VM a, paused before its first instruction, with a snapshot "one" of it and of its disks, which hold the pattern."""
    paths = snaps.begun(daemon, client)
    snaps.stopped_and_filled(client, paths, pattern)
    job(client, "snapshot.create", "one")
    return paths


def clean(daemon, paths, names):
    """Nothing is in images and folders but these snapshots."""
    tap.check(snaps.files(daemon) == sorted(names), f"{snaps.files(daemon)}")
    for path in paths:
        inside = sorted(n.split(".")[0] for n in snaps.names(path))
        tap.check(inside == sorted(names) and not any(n.endswith(".back") for n in snaps.names(path)), f"{snaps.names(path)}")
    stray = [n for n in os.listdir(daemon.dir) if n.endswith(".part")]
    tap.check(not stray, f"{stray}")


def rewritten(path, to, change=None, drop=(), add=()):
    """The archive with its files as a function makes them."""
    with tarfile.open(path) as old, tarfile.open(to, "w", format=tarfile.USTAR_FORMAT) as new:
        for m in old.getmembers():
            data = old.extractfile(m).read()
            if m.name in drop:
                continue
            if change:
                data = change(m.name, data)
            m.size = len(data)
            new.addfile(m, io.BytesIO(data))
        for name, data in add:
            m = tarfile.TarInfo(name)
            m.size = len(data)
            new.addfile(m, io.BytesIO(data))
    return to


def what_was_deleted_comes_back():
    with lib.Daemon() as daemon, daemon.client() as client:
        paths = taken(daemon, client)
        registers = snaps.registers(daemon)
        for number, name in enumerate(("two", "three")):
            snaps.stopped_and_filled(client, paths, number + 2)
            job(client, "snapshot.create", name)
        before = snaps.tree(client)
        file = os.path.join(daemon.dir, "two.snap")
        job(client, "snapshot.export", "two", file=file)  # the VM has its disks open
        tap.check(os.stat(file).st_mode & 0o777 == 0o600 and snaps.tree(client) == before, f"{os.stat(file)}")
        with tarfile.open(file) as tar:
            members = tar.getnames()
            said = json.load(tar.extractfile("snapshot.json"))
        tap.check(members == ["disk0.qcow2", "disk1.qcow2", "state", "snapshot.json", "seal"] and said["children"] == ["three"], f"{members}")
        out = job(client, "snapshot.export", "two", "failed", file=file)
        tap.check("is there already" in out["error"]["message"], f"{out}")
        job(client, "snapshot.delete", "two")
        tap.check(snaps.tree(client)["three"][0] == "one", f"{snaps.tree(client)}")
        client.fails("bad-state", "snapshot.import", vm="a", file=file)  # it runs
        client.call("vm.stop", vm="a")
        snaps.fill(paths, 9)
        got = imported(client, file)
        tap.check(got["imported"] and got["state"] == "kept" and not got.get("current"), f"{got}")
        tap.check({n: p for n, (p, _) in snaps.tree(client).items()} == {n: p for n, (p, _) in before.items()}, f"{snaps.tree(client)}")
        tap.check(all(snaps.holds(p, 9) for p in paths), "the disks are not what they were before")
        clean(daemon, paths, ["one", "two", "three"])
        job(client, "snapshot.revert", "two")
        tap.check(snaps.registers(daemon) == registers, "other registers")
        client.call("vm.stop", vm="a")
        tap.check(all(snaps.holds(p, 2) for p in paths), "other disks")
        for name, pattern in (("three", 3), ("one", 1)):
            job(client, "snapshot.revert", name)
            client.call("vm.stop", vm="a")
            tap.check(all(snaps.holds(p, pattern) for p in paths), f"{name}: other disks")
        job(client, "snapshot.delete", "two")
        clean(daemon, paths, ["one", "three"])
        for path in paths:
            snaps.run("qemu-img", "check", "-q", path)


def another_host_takes_what_it_is_told_to():
    with lib.Daemon() as daemon, lib.Daemon() as other:
        file = os.path.join(daemon.dir, "one.snap")
        with daemon.client() as client:
            taken(daemon, client)
            registers = snaps.registers(daemon)
            job(client, "snapshot.export", "one", file=file)
        with other.client() as client:
            paths = snaps.begun(other, client)
            client.call("vm.stop", vm="a")
            snaps.fill(paths, 5)
            disks = client.call("vm.get", vm="a")["config"]["disks"]  # who moves the data, the guest does not see
            client.call("vm.set", vm="a", set={"io_threads": 2, "disks": [{**disk, "io_thread": 2} for disk in disks]})
            refused(client, "its seal is not this host's", file)
            got = imported(client, file, "theirs", foreign=True)
            tap.check(got["name"] == "theirs" and got.get("parent") is None, f"{got}")
            job(client, "snapshot.revert", "theirs")
            tap.check(snaps.registers(other) == registers, "other registers")
            vm = client.call("vm.get", vm="a")
            tap.check([d["file"] for d in vm["config"]["disks"]] == paths, f"{vm}")
            client.call("vm.stop", vm="a")
            tap.check(all(snaps.holds(p, 1) for p in paths), "other disks")
            # A VM of another shape is named by what differs, and nothing is made.
            client.call("vm.set", vm="a", set={"cpus": 2})
            refused(client, "'cpus'", file, name="x", foreign=True)
            client.call("vm.set", vm="a", set={"cpus": 1, "memory": 64 << 20})
            refused(client, "'memory'", file, name="x", foreign=True)
            big = os.path.join(other.dir, "big.qcow2")
            snaps.run("qemu-img", "create", "-q", "-f", "qcow2", big, "8M")
            memory = vm["config"]["memory"]
            disks = vm["config"]["disks"]
            client.call("vm.set", vm="a", set={"memory": memory, "disks": disks[:1]})
            refused(client, "does not have the disks", file, name="x", foreign=True)
            client.call("vm.set", vm="a", set={"disks": [disks[0], {**disks[1], "file": big}]})
            refused(client, "disk of", file, name="x", foreign=True)  # the second disk: the first is as it was
            clean(other, paths[:1], ["theirs"])
            tap.check(snaps.names(big) == [] and snaps.holds(paths[0], 1), f"{snaps.names(big)}")
            refused(client, "already", file, name="theirs", foreign=True)


def disks_alone_too():
    with lib.Daemon() as daemon, daemon.client() as client:
        paths = snaps.begun(daemon, client)
        client.call("vm.stop", vm="a")
        snaps.fill(paths, 1)
        job(client, "snapshot.create", "off", disks=[{"name": "disk1", "snapshot": "no"}])
        file = os.path.join(daemon.dir, "off.snap")
        job(client, "snapshot.export", "off", file=file)
        job(client, "snapshot.delete", "off")
        snaps.fill(paths, 2)
        client.call("vm.set", vm="a", set={"cpus": 2})  # of no importance to disks
        got = imported(client, file)
        tap.check(not got["memory"] and got["stopped"] and snaps.files(daemon) == [], f"{got}")
        job(client, "snapshot.revert", "off")
        tap.check(snaps.holds(paths[0], 1) and snaps.holds(paths[1], 2), "other disks")


def hostile_files_are_refused_by_name():
    with lib.Daemon() as daemon, daemon.client() as client:
        paths = taken(daemon, client)
        good, bad = (os.path.join(daemon.dir, n) for n in ("good.snap", "bad.snap"))
        job(client, "snapshot.export", "one", file=good)
        job(client, "snapshot.delete", "one")
        client.call("vm.stop", vm="a")

        def edit(**members):
            def change(name, data):
                if name != "snapshot.json":
                    return data
                o = json.loads(data)
                for key, value in members.items():
                    at = o
                    *path, last = key.split("__")
                    for step in path:
                        at = at[int(step) if step.isdigit() else step]
                    at[last] = value
                return json.dumps(o).encode()
            return change

        def flipped(member):
            return lambda name, data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:] if name == member else data

        cases = [("disk0.qcow2 is damaged", dict(change=flipped("disk0.qcow2"))), ("state is damaged", dict(change=flipped("state"))),
                 ("its seal is not", dict(change=edit(name="evil"))),
                 ("its seal is not", dict(change=flipped("seal"))), ("seal is missing", dict(drop=("seal",))),
                 ("snapshot.json is missing", dict(drop=("snapshot.json",))), ("disk1.qcow2 is missing", dict(drop=("disk1.qcow2",))),
                 ("more than it says", dict(add=(("../../etc/cron.d/x", b"* * * * *"),))), ("twice in it", dict(add=(("state", b"x"),))),
                 ("snapshot.json has more than", dict(change=lambda n, d: d + b" " * (2 << 20) if n == "snapshot.json" else d))]
        told = [("name", edit(name="../../up")), ("name", edit(name="a/b")), ("version", edit(version=2)), ("parts", edit(parts__0__bytes=-1)),
                ("no such member", edit(more=1)), ("is damaged", edit(parts__0__bytes=1 << 60)), ("missing", edit(parts__0__member="../x")),
                ("'memory'", edit(config__memory=1 << 44)), ("nothing of disk 'disk0'", edit(parts__0__disk="vdz")),
                ("its state is", edit(snapshot__memory=False)), ("seal does not match", edit(key="A" * 43 + "=")),
                ("its key is none", edit(key="!" * 44))]
        for word, how in cases:
            refused(client, word, rewritten(good, bad, **how))
            clean(daemon, paths, [])
        for word, change in told:  # who seals what he has changed, or says that he is foreign
            refused(client, word, rewritten(good, bad, change=change), foreign=True)
            clean(daemon, paths, [])
        # A disk that names a file of the host as its backing file.
        evil = os.path.join(daemon.dir, "evil.qcow2")
        snaps.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", daemon.guest(), evil, "4M")
        with open(evil, "rb") as f:
            data = f.read()

        def backing(name, was):
            return data if name == "disk0.qcow2" else was
        rewritten(good, bad, change=backing)
        out = edit(parts__0__bytes=len(data), parts__0__sha256=hashlib.sha256(data).hexdigest())
        refused(client, "disk0.qcow2", rewritten(bad, bad + "2", change=out), foreign=True)
        clean(daemon, paths, [])
        # Files that are none.
        size = os.path.getsize(good)
        with open(bad, "wb") as f:
            f.write(b"\0" * 4096)
        refused(client, "bad.snap'", bad)
        rng = random.Random(SEED)
        print(f"# seed {SEED}")
        for cut in (0, 511, *(rng.randrange(size) for _ in range(8))):
            shutil.copy(good, bad)
            os.truncate(bad, cut)
            out = refused(client, "bad.snap'", bad)
        for _ in range(24):
            shutil.copy(good, bad)
            at = rng.randrange(size)
            snaps.flip(bad, at)
            out = client.call("job.wait", job=client.call("snapshot.import", vm="a", file=bad)["job"], timeout_ms=120000)
            if out["state"] == "done":  # padding, or a time nobody reads
                job(client, "snapshot.revert", "one")
                client.call("vm.stop", vm="a")
                tap.check(all(snaps.holds(p, 1) for p in paths), f"byte {at}")
                job(client, "snapshot.delete", "one")
            clean(daemon, paths, [])
        refused(client, "no regular file", daemon.dir)
        refused(client, "cannot read", os.path.join(daemon.dir, "none"))
        imported(client, good)


def vmctl_does_both():
    with lib.Daemon() as daemon, daemon.client() as client:
        taken(daemon, client)
        file = os.path.join(daemon.dir, "x.snap")

        def vmctl(*words):
            return snaps.run(snaps.VMCTL, "--dir", daemon.dir, *words)
        vmctl("snapshot", "export", "a", "one", "--to", file)
        vmctl("stop", "a")
        vmctl("snapshot", "import", "a", file, "--name", "again")
        tap.check("again" in vmctl("snapshot", "ls", "a") and "disk0.qcow2" in vmctl("image", "member", file), "not there")
        disk = os.path.join(daemon.dir, "copy.qcow2")
        snaps.run("qemu-img", "create", "-q", "-f", "qcow2", disk, "4M")
        vmctl("image", "member", "--put", "disk0.qcow2", "--snapshot", "s", file, disk)
        tap.check(snaps.names(disk) == ["s"] and snaps.holds(disk, 0), f"{snaps.names(disk)}")
        snaps.run("qemu-img", "snapshot", "-a", "s", disk)
        tap.check(snaps.holds(disk, 1), "it holds something else")


def a_folder_that_takes_no_file_is_named():
    with lib.Daemon() as daemon, daemon.client() as client:
        paths = taken(daemon, client)
        out = job(client, "snapshot.export", "one", "failed", file="/dev/full/x")
        tap.check("/dev/full" in out["error"]["message"], f"{out}")
        out = job(client, "snapshot.export", "one", "failed", file=os.path.join(daemon.dir, "no", "x"))
        tap.check("/no" in out["error"]["message"], f"{out}")
        clean(daemon, paths, ["one"])


def whoever_dies_nothing_is_half(seed=SEED, count=KILLS):
    """vmd is killed at a random moment of export and import."""
    print(f"# seed {seed}")
    rng = random.Random(seed)
    with lib.Daemon() as daemon:
        good = os.path.join(daemon.dir, "good.snap")
        with daemon.client() as client:
            paths = taken(daemon, client)
            job(client, "snapshot.export", "one", file=good)
            client.call("vm.stop", vm="a")
            snaps.fill(paths, 7)
            began = time.monotonic()
            imported(client, good, "two")
            took = time.monotonic() - began
            job(client, "snapshot.delete", "two")
        seen = set()
        for turn in range(count):
            file = os.path.join(daemon.dir, "new.snap")
            with daemon.client() as client:
                if turn % 3 == 2:
                    client.send("snapshot.export", vm="a", name="one", file=file)
                else:
                    client.send("snapshot.import", vm="a", name="two", file=good)
                time.sleep(rng.random() * took * 1.5)
                daemon.kill()
            daemon.start()
            with daemon.client() as client:
                lib.wait_for(lambda c=client: all(s["state"] == "kept" for s in c.call("snapshot.list", vm="a")["snapshots"]),
                             60, "snapshots settle")
                names = sorted(snaps.tree(client))
                seen.add(len(names))
                clean(daemon, paths, names)
                tap.check(all(snaps.holds(p, 7) for p in paths), f"turn {turn}: the disks hold something else")
                if os.path.exists(file):
                    imported(client, file, "three")
                    job(client, "snapshot.delete", "three")
                    os.unlink(file)
                if "two" in names:
                    job(client, "snapshot.revert", "two")
                    client.call("vm.stop", vm="a")
                    tap.check(all(snaps.holds(p, 1) for p in paths), f"turn {turn}: other disks")
                    job(client, "snapshot.delete", "two")
                    snaps.fill(paths, 7)
                client.call("vm.start", vm="a", paused=True)
                client.call("vm.stop", vm="a")
        print(f"# numbers of snapshots found after a kill: {sorted(seen)}")
        for path in paths:  # who is killed may leave clusters that nothing names (3), and nothing worse
            snaps.run("qemu-img", "check", "-q", path, also=3)


CASES = [what_was_deleted_comes_back, another_host_takes_what_it_is_told_to, disks_alone_too, hostile_files_are_refused_by_name,
         vmctl_does_both, a_folder_that_takes_no_file_is_named, whoever_dies_nothing_is_half]


def main():
    if len(sys.argv) > 1 and sys.argv[1].startswith("-"):
        parser = argparse.ArgumentParser()
        parser.add_argument("--seed", type=int, default=SEED)
        parser.add_argument("--count", type=int, default=200)
        options = parser.parse_args()
        whoever_dies_nothing_is_half(options.seed, options.count)
        return 0
    if not shutil.which("qemu-io"):
        print("1..0 # SKIP qemu-io is missing (qemu-utils)")
        return 0
    return tap.run_cases(CASES)


if __name__ == "__main__":
    sys.exit(main())
