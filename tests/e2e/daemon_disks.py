# SPDX-License-Identifier: Apache-2.0
"""Disks of running VMs: snapshots inside images and by overlays, transactions over several disks, dirty bitmaps and incremental
backups, NBD exports by unix socket and TLS. Judged by qemu-img, qemu-io, nbdinfo and nbdcopy.

The emulator does it by emu.disk_actions, emu.disk_snapshots, emu.disk_snapshot_delete, emu.disk_bitmaps, emu.export_start, emu.export_add,
emu.export_remove, emu.export_stop and emu.exports of its control socket."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402

TIMEOUT = 240.0
MIB = 1 << 20


def run(*words, status=0):
    got = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    tap.check(got.returncode == status, f"{' '.join(words)}: {got.stdout}{got.stderr}")
    return got.stdout


def fill(path, *pieces):
    """(pattern, offset, length) by qemu-io: of an image's file, or of an NBD URI."""
    where = ["-f", "raw"] if "://" in path else ["-f", "qcow2"]
    run("qemu-io", *where, *[w for p in pieces for w in ("-c", f"write -q -P {p[0]} {p[1]} {p[2]}")], path)


def reads_as(path, fmt, *pieces):
    out = run("qemu-io", "-r", "-f", fmt, *[w for p in pieces for w in ("-c", f"read -P {p[0]} {p[1]} {p[2]}")], path)
    tap.check("Pattern verification failed" not in out, f"{path}: {out}")


def two_disks(daemon, client):
    paths = [os.path.join(daemon.dir, f"{n}.qcow2") for n in "ab"]
    for n, path in enumerate(paths):
        run("qemu-img", "create", "-q", "-f", "qcow2", path, "8M")
        fill(path, (n + 1, 0, MIB))
    client.call("vm.define", config=daemon.config("a", disks=[{"file": p, "format": "qcow2"} for p in paths]))
    client.call("vm.start", vm="a")
    return paths


def exported(client, **more):
    """URIs by which a client reads and writes both disks."""
    uri = client.call("disk.export_start", vm="a", **more)["uri"]
    for n in (0, 1):
        client.call("disk.export_add", vm="a", disk=f"disk{n}", name=f"d{n}", writable=True)
    return [uri.replace("///", f"///d{n}") if "///" in uri else uri + f"d{n}" for n in (0, 1)]


def stop(client):
    client.call("vm.stop", vm="a", force=False)


def job_done(client, job):
    ended = client.call("job.wait", job=job, timeout_ms=int(TIMEOUT * 1000))
    tap.check(ended["state"] == "done", f"{ended}")


def snapshots_inside_images_hold_one_instant():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        paths = two_disks(daemon, client)
        uris = exported(client)
        tap.check(client.call("disk.snapshot", vm="a", name="one")["disks"] == ["disk0", "disk1"], "not of both")
        for uri in uris:
            fill(uri, (9, 0, MIB))
        client.fails("exists", "disk.snapshot", vm="a", name="one", disks=["disk1"])
        client.fails("not-found", "disk.snapshot", vm="a", name="two", disks=["disk7"])
        client.call("disk.snapshot", vm="a", name="two", disks=["disk1"])
        seen = [(s["disk"], s["name"]) for s in client.call("disk.snapshots", vm="a")["snapshots"]]
        tap.check(seen == [("disk0", "one"), ("disk1", "one"), ("disk1", "two")], f"{seen}")
        client.call("disk.snapshot_delete", vm="a", name="two")
        client.fails("not-found", "disk.snapshot_delete", vm="a", name="two")
        stop(client)
        client.fails("bad-state", "disk.snapshot", vm="a", name="three")
        for n, path in enumerate(paths):
            run("qemu-img", "check", "-q", path)
            reads_as(path, "qcow2", (9, 0, MIB))
            run("qemu-img", "convert", "-l", "one", "-O", "raw", path, path + ".one")
            reads_as(path + ".one", "raw", (n + 1, 0, MIB))


def an_overlay_takes_over_and_is_committed_again():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        paths = two_disks(daemon, client)
        uris = exported(client)
        client.call("vm.define", config=daemon.config("reader", disks=[{"file": paths[0], "format": "qcow2", "readonly": True}]))
        client.call("vm.define", config=daemon.config("writer", disks=[{"file": paths[0], "format": "qcow2"}]))
        tap.check("in use by VM 'a'" in client.fails("busy", "vm.start", vm="reader").message, "reads what is written")
        client.call("disk.snapshot", vm="a", name="mon", external=True)
        # What is below is only read now, by others too; and still written by nobody, nor is the overlay.
        client.call("vm.start", vm="reader")
        client.call("vm.stop", vm="reader", force=True)
        client.fails("busy", "vm.start", vm="writer")
        client.call("vm.define", config=daemon.config("third", disks=[{"file": paths[0] + ".mon", "format": "qcow2"}]))
        client.fails("busy", "vm.start", vm="third")
        disks = client.call("vm.get", vm="a")["config"]["disks"]
        tap.check([d["file"] for d in disks] == [p + ".mon" for p in paths], f"{disks}")
        for uri in uris:
            fill(uri, (9, 65536, 65536))
            reads_as(uri, "raw", (9, 65536, 65536))
        reads_as(uris[0], "raw", (1, 0, 65536), (1, 131072, 65536))
        info = json.loads(run("qemu-img", "info", "-U", "--output=json", paths[0] + ".mon"))
        tap.check(info["backing-filename"] == paths[0] and info["backing-filename-format"] == "qcow2", f"{info}")
        stop(client)
        for n, path in enumerate(paths):
            run("qemu-img", "check", "-q", path)
            reads_as(path, "qcow2", (n + 1, 0, MIB))
            reads_as(path + ".mon", "qcow2", (n + 1, 0, 65536), (9, 65536, 65536))
        client.call("vm.start", vm="a")  # by its overlays
        job_done(client, client.call("disk.commit", vm="a", disk="disk0", base=paths[0], pivot=True)["job"])
        tap.check(client.call("vm.get", vm="a")["config"]["disks"][0]["file"] == paths[0], "it kept the overlay")
        # Its base is written again, and what was on top is not.
        tap.check("in use by VM 'a'" in client.fails("busy", "vm.start", vm="reader").message, "reads what is written again")
        stop(client)
        reads_as(paths[0], "qcow2", (1, 0, 65536), (9, 65536, 65536))


def on_disk(daemon, config, job, body):
    """What the store of a dead daemon says from now on of the VM, and of a job."""
    store = sqlite3.connect(os.path.join(daemon.dir, "lib", "vmd.db"))
    with store:
        store.execute("UPDATE vms SET config = ?", [json.dumps(config)])
        store.execute("UPDATE jobs SET active = 1, body = ? WHERE id = ?", [body, job])
    store.close()


def overlay_that_the_definition_lacks(daemon, paths):
    """As if the daemon was killed after the emulator's yes to an overlay of the first disk, and before the definition was durable."""
    with daemon.client(TIMEOUT) as client:
        before = client.call("vm.get", vm="a")["config"]
        client.call("disk.snapshot", vm="a", name="mon", disks=["disk0"], external=True)
        job = client.call("job.list")["jobs"][0]
        tap.check((job["kind"], job["state"]) == ("disk.transaction", "done"), f"{job}")
        overlay = {"disk": "disk0", "file": paths[0] + ".mon", "format": "qcow2", "reuse": False}
        tap.check(job["result"] == {"overlays": [overlay]}, f"{job}")
    daemon.kill()
    os.unlink(os.path.join(daemon.dir, "run", "vm", "1", "disks"))  # which images are written is told with the definition
    job["state"] = "running"
    del job["ended_ms"]
    on_disk(daemon, before, job["job"], json.dumps(job))
    return job["job"]


def the_definition_follows_an_emulator_that_outlived_the_daemon():
    with lib.Daemon() as daemon:
        with daemon.client(TIMEOUT) as client:
            paths = two_disks(daemon, client)
        job = overlay_that_the_definition_lacks(daemon, paths)
        daemon.start()
        with daemon.client(TIMEOUT) as client:
            job_done(client, job)
            tap.check([d["file"] for d in client.call("vm.get", vm="a")["config"]["disks"]] == [paths[0] + ".mon", paths[1]],
                      "the definition names what the VM does not stand on")
            client.call("vm.define", config=daemon.config("reader", disks=[{"file": paths[0], "format": "qcow2", "readonly": True}]))
            client.call("vm.define", config=daemon.config("third", disks=[{"file": paths[0] + ".mon", "format": "qcow2"}]))
            tap.check("in use by VM 'a'" in client.fails("busy", "vm.start", vm="third").message, "two may write the overlay")
            client.call("vm.start", vm="reader")  # what is below is only read
            client.call("vm.stop", vm="reader", force=True)
            stop(client)


def the_definition_follows_an_overlay_whose_emulator_died_with_the_daemon():
    with lib.Daemon() as daemon:
        with daemon.client(TIMEOUT) as client:
            paths = two_disks(daemon, client)
            uri = exported(client)[0]
        job = overlay_that_the_definition_lacks(daemon, paths)
        fill(uri, (9, 0, 65536))
        for pids in daemon.emulators().values():
            for pid in pids:
                lib.kill(pid)
        lib.wait_for(lambda: not daemon.emulators(), what="end of the emulator")
        daemon.start()
        with daemon.client(TIMEOUT) as client:
            job_done(client, job)
            tap.check(client.call("vm.get", vm="a")["config"]["disks"][0]["file"] == paths[0] + ".mon", "it lost the overlay")
            client.call("vm.start", vm="a")
            reads_as(exported(client)[0], "raw", (9, 0, 65536), (1, 65536, 65536))
            stop(client)


def a_killed_daemon_leaves_a_definition_that_is_right():
    """Killed wherever it is between asking and answering: afterwards emulator and definition name the same images."""
    with lib.Daemon() as daemon:
        with daemon.client(TIMEOUT) as client:
            paths = two_disks(daemon, client)
        for n in range(4):
            with daemon.client(TIMEOUT) as client:
                file = client.call("vm.get", vm="a")["config"]["disks"][0]["file"]
                client.send("disk.snapshot", vm="a", name=f"s{n}", disks=["disk0"], external=True)
                lib.wait_for(lambda f=f"{file}.s{n}": os.path.exists(f) and (n % 2 == 0 or os.stat(f).st_size > 0), what="overlay")
            daemon.kill()
            daemon.start()
            with daemon.client(TIMEOUT) as client:
                for job in client.call("job.list", active=True)["jobs"]:
                    client.call("job.wait", job=job["job"], timeout_ms=int(TIMEOUT * 1000))
                with lib.Client(os.path.join(daemon.dir, "run", "vm", "1", "control")) as emulator:
                    is_ = [b["file"] for b in emulator.call("emu.blocks")["blocks"]]
                says = [d["file"] for d in client.call("vm.get", vm="a")["config"]["disks"]]
                tap.check(is_ == says and says[1] == paths[1], f"{is_} and {says}")
        with daemon.client(TIMEOUT) as client:
            stop(client)


def a_transaction_happens_whole_or_not_at_all():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        paths = two_disks(daemon, client)
        out = [os.path.join(daemon.dir, f"out{n}") for n in (0, 1)]
        good = [{"act": "snapshot", "disk": "disk0", "name": "s"}, {"act": "bitmap-add", "disk": "disk1", "name": "b"},
                {"act": "overlay", "disk": "disk0", "file": out[0]}, {"act": "backup", "disk": "disk1", "file": out[1]}]
        bad = [{"act": "abort"}, {"act": "bitmap-clear", "disk": "disk1", "name": "none"},
               {"act": "snapshot", "disk": "disk9", "name": "s"}, {"act": "backup", "disk": "disk0", "file": out[0] + "x"}]
        for last, error in zip(bad, ("invalid-params", "not-found", "not-found", "busy")):
            client.fails(error, "disk.transaction", vm="a", actions=good + [last])
            tap.check(client.call("disk.bitmaps", vm="a")["bitmaps"] == [], f"a bitmap is left after {last}")
            tap.check(client.call("disk.snapshots", vm="a")["snapshots"] == [], f"a snapshot is left after {last}")
            tap.check(not any(os.path.exists(o) for o in out), f"files are left after {last}")
            tap.check(client.call("vm.get", vm="a")["config"]["disks"][0]["file"] == paths[0], "it has an overlay")
        client.fails("invalid-params", "disk.transaction", vm="a", actions=[{"act": "overlay", "disk": "disk0"}])
        for job in client.call("disk.transaction", vm="a", actions=good)["jobs"]:
            job_done(client, job)
        tap.check([b["name"] for b in client.call("disk.bitmaps", vm="a")["bitmaps"]] == ["b"], "no bitmap")
        tap.check(client.call("vm.get", vm="a")["config"]["disks"][0]["file"] == out[0], "no overlay")
        reads_as(out[1], "raw", (2, 0, MIB))
        stop(client)
        run("qemu-img", "check", "-q", out[0])


def backups_of_what_changed_are_of_one_instant():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        two_disks(daemon, client)
        uris = exported(client)
        out = [os.path.join(daemon.dir, f"copy{n}") for n in (0, 1)]

        def backup(**more):
            actions = [{"act": "backup", "disk": f"disk{n}", "file": out[n], **more} for n in (0, 1)]
            if "bitmap" not in more:
                actions += [{"act": "bitmap-add", "disk": f"disk{n}", "name": "daily", "persistent": n == 1} for n in (0, 1)]
            return client.call("disk.transaction", vm="a", actions=actions)["jobs"]
        for job in backup():
            job_done(client, job)
        for uri in uris:
            fill(uri, (7, 2 * MIB, 65536), (0, 0, 65536))
        seen = {b["disk"]: b["dirty"] for b in client.call("disk.bitmaps", vm="a")["bitmaps"]}
        tap.check(seen == {"disk0": 131072, "disk1": 131072}, f"{seen}")
        for job in backup(reuse=True, bitmap="daily"):
            job_done(client, job)
        for n in (0, 1):
            reads_as(out[n], "raw", (7, 2 * MIB, 65536), (0, 0, 65536), (n + 1, 65536, 65536), (0, 3 * MIB, MIB))
        seen = client.call("disk.bitmaps", vm="a")["bitmaps"]
        tap.check([(b["dirty"], b["persistent"]) for b in seen] == [(0, False), (0, True)], f"{seen}")
        client.call("disk.bitmap", vm="a", disk="disk0", act="bitmap-disable", name="daily")
        fill(uris[0], (8, 0, 65536))
        tap.check(client.call("disk.bitmaps", vm="a")["bitmaps"][0]["dirty"] == 0, "it records on")
        client.call("disk.bitmap", vm="a", disk="disk0", act="bitmap-add", name="other", granularity=65536)
        fill(uris[0], (8, MIB, 65536))
        client.call("disk.bitmap", vm="a", disk="disk0", act="bitmap-merge", name="daily", sources=["other"])
        tap.check(client.call("disk.bitmaps", vm="a")["bitmaps"][0]["dirty"] == 65536, "it was not merged")
        client.call("disk.bitmap", vm="a", disk="disk0", act="bitmap-clear", name="daily")
        client.call("disk.bitmap", vm="a", disk="disk0", act="bitmap-enable", name="daily")
        client.fails("exists", "disk.bitmap", vm="a", disk="disk0", act="bitmap-add", name="daily")
        client.call("disk.bitmap", vm="a", disk="disk0", act="bitmap-remove", name="other")
        client.fails("invalid-params", "disk.bitmap", vm="a", disk="disk0", act="snapshot", name="daily")
        seen = client.call("disk.bitmaps", vm="a")["bitmaps"]
        tap.check([(b["dirty"], b["recording"]) for b in seen] == [(0, True), (0, True)], f"{seen}")


def nbd_clients_read_what_changed():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        two_disks(daemon, client)
        client.fails("bad-state", "disk.export_add", vm="a", disk="disk0", name="x")
        uris = exported(client)
        client.fails("exists", "disk.export_start", vm="a")
        client.call("disk.bitmap", vm="a", disk="disk0", act="bitmap-add", name="b", granularity=65536)
        client.call("disk.export_add", vm="a", disk="disk0", name="inc", bitmap="b", description="what changed")
        client.fails("exists", "disk.export_add", vm="a", disk="disk0", name="inc")
        client.fails("not-found", "disk.export_add", vm="a", disk="disk0", name="y", bitmap="none")
        client.fails("busy", "disk.bitmap", vm="a", disk="disk0", act="bitmap-remove", name="b")
        fill(uris[0], (5, MIB, 65536))
        inc = uris[0].replace("///d0", "///inc")
        info = json.loads(run("nbdinfo", "--json", inc))["exports"][0]
        tap.check(info["export-size"] == 8 * MIB and info["is_read_only"] and info["description"] == "what changed", f"{info}")
        spans = json.loads(run("nbdinfo", "--json", "--map=qemu:dirty-bitmap:b", inc))
        dirty = [(s["offset"], s["length"]) for s in spans if s["type"] == 1]
        tap.check(dirty == [(MIB, 65536)], f"{spans}")
        copy = os.path.join(daemon.dir, "copy.raw")
        run("nbdcopy", uris[0], copy)
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", uris[0], copy)
        run("qemu-io", "-f", "raw", "-c", "write 0 512", inc, status=1)  # it is read-only
        seen = client.call("disk.exports", vm="a")
        tap.check([x["name"] for x in seen["exports"]] == ["d0", "d1", "inc"] and seen["serving"], f"{seen}")
        client.call("disk.export_remove", vm="a", name="inc")
        client.fails("not-found", "disk.export_remove", vm="a", name="inc")
        run("nbdinfo", inc, status=1)
        client.call("disk.export_stop", vm="a")
        run("nbdinfo", uris[0], status=1)
        tap.check(not client.call("disk.exports", vm="a")["serving"], "it serves")
        exported(client, socket=os.path.join(daemon.dir, "nbd.s"))
        stop(client)


def nbd_clients_come_by_tcp_and_tls():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        two_disks(daemon, client)
        client.fails("file-error", "disk.export_start", vm="a", host="0.0.0.0", port=0)  # without TLS
        uris = exported(client, host="127.0.0.1", port=0)
        tap.check("127.0.0.1" in uris[0], f"{uris}")
        fill(uris[0], (4, 0, 65536))
        client.call("disk.export_stop", vm="a")
        keys = os.path.join(daemon.dir, "keys")
        os.mkdir(keys)
        make_keys(keys)
        uris = exported(client, host="127.0.0.1", port=0, tls=keys)
        plain = uris[0].replace("nbds:", "nbd:")
        run("nbdinfo", plain, status=1)
        run("nbdinfo", uris[0] + "?tls-verify-peer=false", status=1)  # no certificate of its own
        run("nbdinfo", "--size", f"{uris[0].replace('127.0.0.1', 'localhost')}?tls-certificates={keys}")
        copy = os.path.join(daemon.dir, "copy.raw")
        run("nbdcopy", f"{uris[0].replace('127.0.0.1', 'localhost')}?tls-certificates={keys}", copy)
        reads_as(copy, "raw", (4, 0, 65536), (1, 65536, 65536))
        client.call("disk.export_stop", vm="a")
        client.fails("file-error", "disk.export_start", vm="a", tls=daemon.dir)
        stop(client)


def make_keys(folder):
    """An authority, a server of the name localhost, a client."""
    def openssl(*words):
        run("openssl", *words)
    ca, key = os.path.join(folder, "ca-cert.pem"), os.path.join(folder, "ca-key.pem")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", ca, "-days", "2", "-subj", "/CN=ca")
    for name in ("server", "client"):
        request = os.path.join(folder, f"{name}.csr")
        extra = os.path.join(folder, f"{name}.ext")
        with open(extra, "w", encoding="ascii") as f:
            f.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", os.path.join(folder, f"{name}-key.pem"), "-out", request,
                "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", key, "-CAcreateserial", "-days", "2", "-extfile", extra,
                "-out", os.path.join(folder, f"{name}-cert.pem"))


CASES = [snapshots_inside_images_hold_one_instant, an_overlay_takes_over_and_is_committed_again,
         the_definition_follows_an_emulator_that_outlived_the_daemon,
         the_definition_follows_an_overlay_whose_emulator_died_with_the_daemon, a_killed_daemon_leaves_a_definition_that_is_right,
         a_transaction_happens_whole_or_not_at_all, backups_of_what_changed_are_of_one_instant, nbd_clients_read_what_changed,
         nbd_clients_come_by_tcp_and_tls]

if __name__ == "__main__":
    for tool, package in (("qemu-img", "qemu-utils"), ("qemu-io", "qemu-utils"), ("nbdcopy", "libnbd-bin"), ("openssl", "openssl")):
        if not shutil.which(tool):
            print(f"skipped: {tool} was not found (Debian: {package})")
            sys.exit(77)
    sys.exit(tap.run_cases(CASES))
