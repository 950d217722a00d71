#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""QMP's commands about snapshots, dirty bitmaps, transactions and NBD exports of a running VM's disks, judged by qemu-img, qemu-io
and nbdinfo; and the errors that QEMU gives."""

import json
import os
import shutil
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402
from daemon_disks import MIB, fill, reads_as, run, stop, two_disks  # noqa: E402


def unix(path):
    return {"type": "unix", "data": {"path": path}}


def served(daemon, q):
    """Both disks by NBD, writable; URIs."""
    path = os.path.join(daemon.dir, "nbd.s")
    q.execute("nbd-server-start", addr=unix(path))
    for disk in ("disk0", "disk1"):
        q.execute("nbd-server-add", device=disk, writable=True)
    return [f"nbd+unix:///{disk}?socket={path}" for disk in ("disk0", "disk1")]


def nodes(q):
    return {n["node-name"]: n for n in q.execute("query-named-block-nodes")}


def files(client):
    return [d["file"] for d in client.call("vm.get", vm="a")["config"]["disks"]]


def snapshots_and_overlays():
    with lib.Daemon() as daemon, daemon.client(240) as client:
        paths = two_disks(daemon, client)
        with daemon.qmp(timeout=240) as q:
            uris = served(daemon, q)
            q.execute("blockdev-snapshot-internal-sync", device="disk0", name="one")
            q.fails("GenericError", "blockdev-snapshot-internal-sync", device="disk0", name="one")
            q.fails("GenericError", "blockdev-snapshot-internal-sync", device="nope", name="one")
            over = [p + ".over" for p in paths]
            q.execute("blockdev-snapshot-sync", **{"device": "disk0", "snapshot-file": over[0], "format": "qcow2"})
            q.fails("GenericError", "blockdev-snapshot-sync", **{"node-name": "disk1", "snapshot-file": over[0]})
            q.fails("GenericError", "blockdev-snapshot-sync", **{"snapshot-file": over[1]})
            run("qemu-img", "create", "-q", "-f", "qcow2", "-b", paths[1], "-F", "qcow2", over[1])
            q.execute("blockdev-snapshot-sync", **{"node-name": "disk1", "snapshot-file": over[1], "mode": "existing"})
            tap.check(files(client) == over, f"{files(client)}")
            tap.check(nodes(q)["disk0"]["file"] == over[0], "the node has another file")
            for uri in uris:
                fill(uri, (9, 65536, 65536))
        stop(client)
        client.call("vm.start", vm="a")
        for n, path in enumerate(paths):
            reads_as(path, "qcow2", (n + 1, 0, MIB))
        stop(client)
        for n, path in enumerate(over):
            run("qemu-img", "check", "-q", path)
            reads_as(path, "qcow2", (n + 1, 0, 65536), (9, 65536, 65536))
        # One inside an image goes again.
        client.call("vm.delete", vm="a")
        client.call("vm.define", config=daemon.config("a", disks=[{"file": paths[0], "format": "qcow2"}]))
        client.call("vm.start", vm="a")
        with daemon.qmp(timeout=240) as q:
            info = q.execute("blockdev-snapshot-delete-internal-sync", device="disk0", name="one")
            tap.check(info["name"] == "one" and info["date-sec"] > 0 and len(info) == 7, f"{info}")
            q.fails("GenericError", "blockdev-snapshot-delete-internal-sync", device="disk0", name="one")
            q.fails("GenericError", "blockdev-snapshot-delete-internal-sync", device="disk0")
            q.fails("GenericError", "blockdev-snapshot-delete-internal-sync", device="x", name="one")
        stop(client)
        tap.check("one" not in run("qemu-img", "snapshot", "-l", paths[0]), "it is still there")


def bitmaps_tell_what_changed():
    with lib.Daemon() as daemon, daemon.client(240) as client:
        two_disks(daemon, client)
        with daemon.qmp(timeout=240) as q:
            uris = served(daemon, q)
            tap.check("dirty-bitmaps" not in nodes(q)["disk0"], "there is a bitmap")
            q.execute("block-dirty-bitmap-add", node="disk0", name="b", granularity=65536, persistent=True)
            q.execute("block-dirty-bitmap-add", node="disk0", name="later", granularity=65536, disabled=True)
            for bad in ({"node": "disk0", "name": "b"}, {"node": "x", "name": "c"}, {"node": "disk0", "name": "c", "granularity": 3},
                        {"node": "disk0", "name": ""}):
                q.fails("GenericError", "block-dirty-bitmap-add", **bad)
            fill(uris[0], (5, MIB, 65536))
            seen = {b["name"]: b for b in nodes(q)["disk0"]["dirty-bitmaps"]}
            tap.check(seen["b"] == {"name": "b", "count": 65536, "granularity": 65536, "recording": True, "busy": False,
                                    "persistent": True} and not seen["later"]["recording"], f"{seen}")
            q.execute("block-dirty-bitmap-disable", node="disk0", name="b")
            q.execute("block-dirty-bitmap-enable", node="disk0", name="later")
            fill(uris[0], (6, 2 * MIB, 65536))
            q.execute("block-dirty-bitmap-merge", node="disk0", target="b", bitmaps=["later", {"node": "disk0", "name": "later"}])
            q.fails("GenericError", "block-dirty-bitmap-merge", node="disk0", target="b", bitmaps=[{"node": "disk1", "name": "later"}])
            q.fails("GenericError", "block-dirty-bitmap-merge", node="disk0", target="b", bitmaps=[5])
            seen = {b["name"]: b["count"] for b in q.execute("query-block")[0]["inserted"]["dirty-bitmaps"]}
            tap.check(seen == {"b": 131072, "later": 65536}, f"{seen}")
            q.execute("block-dirty-bitmap-clear", node="disk0", name="later")
            q.execute("block-dirty-bitmap-remove", node="disk0", name="b")
            q.fails("GenericError", "block-dirty-bitmap-remove", node="disk0", name="b")
            seen = [(b["name"], b["count"]) for b in nodes(q)["disk0"]["dirty-bitmaps"]]
            tap.check(seen == [("later", 0)], f"{seen}")


def transactions_happen_whole_or_not_at_all():
    with lib.Daemon() as daemon, daemon.client(240) as client:
        paths = two_disks(daemon, client)
        copy, over = os.path.join(daemon.dir, "copy"), os.path.join(daemon.dir, "over")

        def good(job):
            return [{"type": "block-dirty-bitmap-add", "data": {"node": "disk0", "name": "b"}},
                    {"type": "drive-backup", "data": {"job-id": job, "device": "disk0", "target": copy, "sync": "full", "format": "raw"}},
                    {"type": "blockdev-snapshot-sync", "data": {"device": "disk1", "snapshot-file": over}},
                    {"type": "blockdev-snapshot-internal-sync", "data": {"device": "disk0", "name": "s"}}]
        bad = [({"type": "abort", "data": {}}, "Abort"), ({"type": "block-dirty-bitmap-clear", "data": {"node": "disk0", "name": "no"}}, "no"),
               ({"type": "blockdev-snapshot-sync", "data": {"device": "disk7", "snapshot-file": over}}, "disk7"),
               ({"type": "block-dirty-bitmap-add", "data": {"node": "disk0"}}, "name"),
               ({"type": "block-dirty-bitmap-add", "data": 5}, "object"), ({"type": "block-dirty-bitmap-add"}, "data")]
        with daemon.qmp(timeout=240) as q:
            for last, text in bad:
                desc = q.fails("GenericError", "transaction", actions=good("bad") + [last])
                tap.check(text in desc, f"{last}: {desc}")
                tap.check("dirty-bitmaps" not in nodes(q)["disk0"] and files(client) == paths and not os.path.exists(copy), f"{last}")
            q.fails("GenericError", "transaction", actions=good("bad"), properties={"completion-mode": "grouped"})
            q.execute("transaction", actions=good("j"), properties={"completion-mode": "individual"})
            done = q.event("BLOCK_JOB_COMPLETED")["data"]
            while done["device"] == "bad":  # begun with others, and ended with them
                done = q.event("BLOCK_JOB_COMPLETED")["data"]
            tap.check((done["device"], done["type"]) == ("j", "backup") and "error" not in done, f"{done}")
            tap.check(files(client) == [paths[0], over], f"{files(client)}")
            reads_as(copy, "raw", (1, 0, MIB))
        stop(client)
        run("qemu-img", "check", "-q", over)
        tap.check(" s " in run("qemu-img", "snapshot", "-l", paths[0]), "no snapshot")


def exports_by_both_families_of_commands():
    with lib.Daemon() as daemon, daemon.client(240) as client:
        two_disks(daemon, client)
        with daemon.qmp(timeout=240) as q:
            tap.check(q.execute("query-block-exports") == [], "there are exports")
            q.fails("GenericError", "nbd-server-add", device="disk0")
            path = os.path.join(daemon.dir, "nbd.s")
            for addr in ({"type": "unix", "data": {}}, {"type": "inet", "data": {"host": "127.0.0.1", "port": "x"}},
                         {"type": "fd", "data": {"str": "x"}}, {"type": "unix", "data": 1}):
                q.fails("GenericError", "nbd-server-start", addr=addr)
            q.fails("GenericError", "nbd-server-start", **{"addr": unix(path), "tls-creds": "tls0"})
            uris = served(daemon, q)
            q.fails("GenericError", "nbd-server-start", addr=unix(path + "2"))
            q.fails("GenericError", "nbd-server-add", device="disk0")
            q.fails("GenericError", "nbd-server-add", device="nope")
            q.execute("block-dirty-bitmap-add", node="disk0", name="b", granularity=65536)
            fill(uris[0], (5, MIB, 65536))
            inc = {"type": "nbd", "id": "backup", "node-name": "disk0", "name": "inc", "description": "what changed"}
            q.execute("block-export-add", **inc, bitmaps=["b"])
            q.fails("GenericError", "block-export-add", **{**inc, "name": "other"})
            q.fails("GenericError", "block-export-add", **{**inc, "id": "other"})
            for bad in ({"bitmaps": ["b", "b"]}, {"bitmaps": [{"node": "disk1", "name": "b"}]}, {"allocation-depth": True}, {"node-name": "x"}):
                q.fails("GenericError", "block-export-add", **{**inc, "id": "y", "name": "y", **bad})
            seen = {x["id"]: (x["node-name"], x["type"]) for x in q.execute("query-block-exports")}
            tap.check(seen == {"disk0": ("disk0", "nbd"), "disk1": ("disk1", "nbd"), "backup": ("disk0", "nbd")}, f"{seen}")
            uri = f"nbd+unix:///inc?socket={path}"
            info = json.loads(run("nbdinfo", "--json", uri))["exports"][0]
            tap.check(info["export-size"] == 8 * MIB and info["is_read_only"] and info["description"] == "what changed", f"{info}")
            spans = json.loads(run("nbdinfo", "--json", "--map=qemu:dirty-bitmap:b", uri))
            tap.check([(s["offset"], s["length"]) for s in spans if s["type"] == 1] == [(MIB, 65536)], f"{spans}")
            q.fails("GenericError", "block-export-del", id="inc")
            q.execute("block-export-del", id="backup")
            q.execute("nbd-server-remove", name="disk1", mode="hard")
            q.fails("GenericError", "nbd-server-remove", name="disk1")
            tap.check([x["id"] for x in q.execute("query-block-exports")] == ["disk0"], "others are left")
            q.execute("nbd-server-stop")
            run("nbdinfo", uris[0], status=1)
            q.execute("nbd-server-start", addr={"type": "inet", "data": {"host": "127.0.0.1", "port": "0"}})
        daemon.kill()
        daemon.start()
        with daemon.qmp(timeout=240) as q:  # ids are the emulator's
            q.execute("block-export-add", type="nbd", id="x", **{"node-name": "disk1"})
        daemon.kill()
        daemon.start()
        with daemon.qmp(timeout=240) as q:
            tap.check([(x["id"], x["node-name"]) for x in q.execute("query-block-exports")] == [("x", "disk1")], "forgotten")
            q.execute("block-export-del", id="x")


def fail_all(q, command, *bad):
    for arguments, text in bad:
        desc = q.fails("GenericError", command, **arguments)
        tap.check(text in desc, f"{command} {arguments}: {desc}")


def images_are_named_first_and_then_taken():
    """As libvirt does it: a node of the file, one of the format, then the command."""
    with lib.Daemon() as daemon, daemon.client(240) as client:
        paths = two_disks(daemon, client)
        over, copy, mirror = (os.path.join(daemon.dir, n) for n in ("over", "copy", "mirror"))
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", paths[0], "-F", "qcow2", over)
        run("qemu-img", "create", "-q", "-f", "raw", copy, "8M")
        run("qemu-img", "create", "-q", "-f", "qcow2", mirror, "8M")
        with daemon.qmp(timeout=240) as q:
            fail_all(q, "blockdev-add", ({"driver": "file", "filename": copy}, "node-name"), ({"driver": "file", "node-name": "x"}, "filename"),
                     ({"driver": "file", "node-name": "x", "filename": "rel"}, "absolute"), ({"driver": "qcow2", "node-name": "x"}, "file"),
                     ({"driver": "qcow2", "node-name": "x", "file": "none"}, "none"), ({"driver": "nbd", "node-name": "x"}, "server"), ({"driver": "rbd", "node-name": "x"}, "rbd"),
                     ({"driver": "qcow2", "node-name": "x", "file": {"driver": "nbd"}}, "file.server"), ({"driver": "qcow2", "node-name": "x", "file": {"driver": "ssh"}}, "driver"),
                     ({"driver": "file", "node-name": "disk0", "filename": copy}, "Duplicate"),
                     ({"driver": "file", "node-name": "x", "filename": copy, "backing": "disk0"}, "backing"))
            q.execute("blockdev-add", **{"driver": "file", "node-name": "s", "filename": over, "auto-read-only": True, "discard": "unmap"})
            q.execute("blockdev-add", **{"driver": "qcow2", "node-name": "f", "file": "s", "backing": None, "cache": {"direct": False}})
            q.execute("blockdev-add", **{"driver": "raw", "node-name": "c", "file": {"driver": "file", "filename": copy}})
            q.execute("blockdev-add", **{"driver": "qcow2", "node-name": "m", "file": {"driver": "file", "filename": mirror}})
            q.execute("blockdev-add", **{"driver": "file", "node-name": "ro", "filename": copy, "read-only": True})
            fail_all(q, "blockdev-add", ({"driver": "file", "node-name": "f", "filename": copy}, "Duplicate"),
                     ({"driver": "qcow2", "node-name": "x", "file": "f"}, "'f'"))
            fail_all(q, "blockdev-snapshot", ({"node": "disk0", "overlay": "disk1"}, "disk1"), ({"node": "disk0", "overlay": "no"}, "no"),
                     ({"node": "no", "overlay": "f"}, "no"), ({"node": "disk0", "overlay": "ro"}, "read-only"))
            q.execute("transaction", actions=[
                {"type": "blockdev-snapshot", "data": {"node": "disk0", "overlay": "f"}},
                {"type": "blockdev-backup", "data": {"job-id": "b", "device": "disk1", "target": "c", "sync": "full"}}])
            done = q.event("BLOCK_JOB_COMPLETED")["data"]
            tap.check(done["device"] == "b" and "error" not in done, f"{done}")
            tap.check(files(client) == [over, paths[1]], f"{files(client)}")
            reads_as(copy, "raw", (2, 0, MIB))
            # The node is the disk from here on, by both names.
            fail_all(q, "blockdev-del", ({"node-name": "f"}, "disk0"), ({"node-name": "no"}, "no"), ({"node-name": "disk0"}, "disk0"))
            q.execute("block-dirty-bitmap-add", node="f", name="b")
            tap.check([b["name"] for b in nodes(q)["disk0"]["dirty-bitmaps"]] == ["b"], "of another disk")
            fail_all(q, "blockdev-mirror", ({"device": "disk1", "target": "m", "sync": "full", "replaces": "no"}, "replaces"),
                     ({"device": "disk1", "target": "ro", "sync": "full"}, "read-only"), ({"device": "disk1", "target": "f", "sync": "full"}, "disk0"))
            fail_all(q, "blockdev-backup", ({"device": "disk1", "target": "none", "sync": "full"}, "none"),
                     ({"device": "disk1", "target": "m", "sync": "bitmap"}, "bitmap"))
            q.execute("blockdev-mirror", **{"job-id": "m1", "device": "disk1", "target": "m", "sync": "full", "auto-finalize": True})
            q.event("BLOCK_JOB_READY")
            q.execute("block-job-complete", device="m1")
            q.event("BLOCK_JOB_COMPLETED")
            lib.wait_for(lambda: files(client) == [over, mirror], 60, "the definition names the mirror")
            q.fails("GenericError", "blockdev-del", **{"node-name": "m"})
            for name in ("c", "ro"):
                q.execute("blockdev-del", **{"node-name": name})
            q.fails("GenericError", "blockdev-del", **{"node-name": "c"})
            for number in range(62):
                q.execute("blockdev-add", **{"driver": "file", "node-name": f"n{number}", "filename": copy}) if number < 61 else \
                    q.fails("GenericError", "blockdev-add", **{"driver": "file", "node-name": "more", "filename": copy})
        stop(client)
        for path in (over, mirror):
            run("qemu-img", "check", "-q", path)
        reads_as(mirror, "qcow2", (2, 0, MIB))
        reads_as(over, "qcow2", (1, 0, MIB))


CASES = [images_are_named_first_and_then_taken, snapshots_and_overlays, bitmaps_tell_what_changed, transactions_happen_whole_or_not_at_all, exports_by_both_families_of_commands]

if __name__ == "__main__":
    for tool, package in (("qemu-img", "qemu-utils"), ("qemu-io", "qemu-utils"), ("nbdinfo", "libnbd-bin")):
        if not shutil.which(tool):
            print(f"skipped: {tool} was not found (Debian: {package})")
            sys.exit(77)
    sys.exit(tap.run_cases(CASES))
