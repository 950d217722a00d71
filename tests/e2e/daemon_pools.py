# SPDX-License-Identifier: Apache-2.0
"""Storage pools and volumes: what calls do, what is refused, who may, and that a daemon killed at any moment leaves whole
volumes or none. Images are judged by qemu-img, XML by virt-xml-validate.

    daemon_pools.py [--seed N] [--from N] [--count N] [CASE...]      count: kills
"""

import argparse
import base64
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402

BUILD = lib.BUILD
MIB = lib.MIB
ARGS = None


def qemu_img(*words):
    if not shutil.which("qemu-img"):
        tap.skip("qemu-img (package qemu-utils)")
    done = subprocess.run(["qemu-img", *words], capture_output=True, text=True, timeout=120, check=False)
    tap.check(done.returncode == 0, f"qemu-img {words}: {done.stderr}")
    return done.stdout


class Pool:
    """A daemon with one active pool."""

    def __init__(self):
        self.daemon = lib.Daemon()

    def __enter__(self):
        self.daemon.start()
        try:
            self.dir = os.path.join(self.daemon.dir, "pool")
            self.call("pool.define", config={"name": "p", "path": self.dir})
            self.call("pool.start", pool="p", build=True)
        except BaseException:
            self.daemon.end()
            raise
        return self

    def __exit__(self, *_):
        self.daemon.end()

    def call(self, method, **params):
        return self.daemon.call(method, **params)

    def fails(self, code, method, **params):
        with self.daemon.client() as client:
            return client.fails(code, method, **params)

    def make(self, name, fmt="qcow2", size=8 * MIB, **more):
        return self.call("volume.create", pool="p", config={"name": name, "format": fmt, "capacity": size}, **more)

    def names(self):
        return [v["name"] for v in self.call("volume.list", pool="p")["volumes"]]

    def path(self, name):
        return os.path.join(self.dir, name)

    def hidden(self):
        return [n for n in os.listdir(self.dir) if n.startswith(".")]

    def wait_clean(self):
        """A file that was deleted goes a moment after the call was answered."""
        lib.wait_for(lambda: not self.hidden(), 20, "nothing hidden is left")

    def send(self, name, data, piece=300000):
        for at in range(0, max(len(data), 1), piece):
            part = data[at:at + piece]
            self.call("volume.write", pool="p", volume=name, offset=at, data=base64.b64encode(part).decode(),
                      last=at + len(part) == len(data))

    def fetch(self, name):
        out = b""
        while True:
            got = base64.b64decode(self.call("volume.read", pool="p", volume=name, offset=len(out))["data"])
            if not got:
                return out
            out += got


def pools_have_states_that_last():
    with Pool() as p:
        info = p.call("pool.get", pool="p")
        tap.check(info["state"] == "active" and info["capacity"] > info["available"] > 0, f"{info}")
        p.fails("bad-state", "pool.define", config={"name": "p", "path": p.dir})
        p.fails("bad-state", "pool.undefine", pool="p")
        p.fails("exists", "pool.define", config={"name": "q", "path": p.dir})
        p.fails("bad-state", "pool.start", pool="p")
        p.make("a")
        p.daemon.kill()
        p.daemon.start()
        tap.check(p.names() == ["a"], "lost")
        tap.check(p.call("pool.get", pool=info["uuid"])["state"] == "active", "not active again")
        tap.check(p.call("pool.stop", pool="p")["state"] == "inactive", "not stopped")
        p.fails("bad-state", "volume.create", pool="p", config={"name": "b", "capacity": MIB})
        p.daemon.kill()
        p.daemon.start()
        tap.check(p.call("pool.list")["pools"][0]["state"] == "inactive", "active by itself")
        tap.check(p.call("pool.set", pool="p", autostart="on")["autostart"], "not set")
        p.daemon.terminate()
        p.daemon.start()
        tap.check(p.names() == ["a"], "lost")
        p.call("pool.stop", pool="p")
        p.call("pool.undefine", pool="p")
        tap.check(not p.call("pool.list")["pools"] and os.path.exists(p.path("a")), "not forgotten, or files gone")
        p.call("pool.define", config={"name": "p", "path": p.dir})
        p.call("pool.start", pool="p")
        tap.check(p.call("volume.get", pool="p", volume="a")["format"] == "qcow2", "not taken up again")


def what_a_pool_cannot_be_is_refused_by_name():
    with Pool() as p:
        for config, code in (({"type": "logical", "source_name": "../vg0", "path": None}, "invalid-params"),
                             ({"type": "logical", "source_name": "vg0"}, "invalid-params"),
                             ({"type": "logical", "format": "zfs", "path": None}, "unsupported"),
                             ({"type": "logical", "host": "h", "path": None}, "invalid-params"),
                             ({"type": "logical", "devices": [{"path": "/tmp/x"}], "path": None}, "invalid-params"),
                             ({"type": "netfs", "host": "h", "dir": "/x"}, "unsupported"),
                             ({"type": "fs", "devices": [{"path": "/dev/sda1"}]}, "unsupported"),
                             ({"label": "x"}, "unsupported"), ({"path": "/tmp/../etc"}, "invalid-params"),
                             ({"path": "/"}, "invalid-params")):
            config = {"name": "q", "path": "/tmp/vmd-no-such", **config}
            error = p.fails(code, "pool.define", config={k: v for k, v in config.items() if v is not None})
            tap.check(error.remedy, f"no remedy: {error}")
        p.call("pool.define", config={"name": "q", "path": "/tmp/vmd-no-such/q", "type": "fs"})
        tap.check("No such file" in p.fails("file-error", "pool.start", pool="q").message, "what is missing")
        with lib.Daemon() as other:
            other.call("pool.define", config={"name": "theirs", "path": p.dir})
            with other.client() as client:
                tap.check("in use by another vmd" in client.fails("busy", "pool.start", pool="theirs").message, "both")


def volumes_are_made_as_asked():
    with Pool() as p:
        p.make("q", options=["cluster_size=4k", "lazy_refcounts=on"])
        p.call("volume.create", pool="p", config={"name": "old", "format": "qcow2", "capacity": MIB, "compat": "0.10",
                                                  "cluster": 65536, "mode": 0o600})
        p.make("r", "raw", 5 * MIB)
        p.call("volume.create", pool="p", config={"name": "s", "capacity": 5 * MIB, "allocation": 0})
        over = p.call("volume.create", pool="p", config={"name": "over", "format": "qcow2"}, backing_volume="q")
        tap.check(over["capacity"] == 8 * MIB and over["backing"] == "q", f"{over}")
        info = json.loads(qemu_img("info", "--output=json", p.path("q")))
        data = info["format-specific"]["data"]
        tap.check((info["format"], info["virtual-size"], info["cluster-size"], data["lazy-refcounts"]) ==
                  ("qcow2", 8 * MIB, 4096, True), f"{info}")
        info = json.loads(qemu_img("info", "--output=json", p.path("old")))
        tap.check(info["format-specific"]["data"]["compat"] == "0.10", f"{info}")
        tap.check(os.stat(p.path("old")).st_mode & 0o777 == 0o600, "mode")
        tap.check(p.call("volume.get", pool="p", volume="r")["allocation"] >= 5 * MIB, "no room reserved")
        tap.check(p.call("volume.get", pool="p", volume="s")["allocation"] < MIB, "room reserved")
        qemu_img("check", p.path("over"))
        p.call("volume.clone", pool="p", volume="over", name="flat")
        tap.check("backing" not in p.call("volume.get", pool="p", volume="flat"), "stands on another")
        qemu_img("compare", p.path("flat"), p.path("over"))
        tap.check(p.call("volume.clone", pool="p", volume="q", name="raw", format="raw")["format"] == "raw", "format")
        tap.check(p.call("volume.resize", pool="p", volume="over", capacity=16 * MIB)["capacity"] == 16 * MIB, "size")
        p.fails("invalid-params", "volume.resize", pool="p", volume="over", capacity=MIB)
        p.call("volume.resize", pool="p", volume="r", capacity=MIB, shrink=True)
        tap.check(os.stat(p.path("r")).st_size == MIB, "not shrunk")
        for method, more in (("volume.delete", {}), ("volume.wipe", {}), ("volume.resize", {"capacity": 32 * MIB})):
            tap.check("stands on" in p.fails("busy", method, pool="p", volume="q", **more).message, method)
        p.call("volume.delete", pool="p", volume="over")
        p.call("volume.delete", pool="p", volume="q")
        tap.check(p.names() == ["flat", "old", "r", "raw", "s"], f"{p.names()}")
        p.wait_clean()
        tap.check(sorted(os.listdir(p.dir)) == p.names(), "files and volumes differ")


def bad_volumes_are_refused_and_leave_nothing():
    with Pool() as p:
        p.make("a")
        os.symlink("/etc/passwd", p.path("link"))
        for code, config, more in (
                ("exists", {"name": "a", "capacity": MIB}, {}), ("exists", {"name": "link", "capacity": MIB}, {}),
                ("invalid-params", {"name": "../x", "capacity": MIB}, {}),
                ("invalid-params", {"name": ".x", "capacity": MIB}, {}), ("invalid-params", {"name": "x"}, {}),
                ("unsupported", {"name": "x", "format": "vmdk", "capacity": MIB}, {}),
                ("invalid-params", {"name": "x", "path": "/etc/x", "capacity": MIB}, {}),
                ("not-found", {"name": "x", "format": "qcow2", "backing": "/etc/passwd"}, {}),
                ("not-found", {"name": "x", "format": "qcow2"}, {"backing_volume": "link"}),
                ("invalid-params", {"name": "x", "capacity": MIB}, {"backing_volume": "a"}),
                ("invalid-params", {"name": "x", "format": "qcow2", "capacity": MIB}, {"options": ["data_file=y"]}),
                ("invalid-params", {"name": "x", "format": "qcow2", "capacity": MIB},
                 {"options": ["encrypt.key-file=/etc/passwd"]}),
                ("invalid-params", {"name": "x", "format": "qcow2", "capacity": MIB}, {"options": ["a=b,backing_file=c"]}),
                ("file-error", {"name": "x", "format": "qcow2", "capacity": MIB}, {"options": ["cluster_size=3"]})):
            error = p.fails(code, "volume.create", pool="p", config=config, **more)
            tap.check(".vmd-" not in error.message, f"tells of unfinished files: {error}")
        p.fails("not-found", "volume.get", pool="p", volume="link")
        p.fails("not-found", "volume.list", pool="nope")
        p.call("pool.refresh", pool="p")
        p.wait_clean()
        tap.check(p.names() == ["a"], f"{p.names()}")
        tap.check(sorted(os.listdir(p.dir)) == ["a", "link"], f"{os.listdir(p.dir)}")


def bytes_arrive_whole_or_not_at_all():
    with Pool() as p:
        data = random.Random(5).randbytes(1000000)
        p.make("r", "raw", 2 * MIB)
        p.send("r", data)
        got = p.fetch("r")
        tap.check(got[:len(data)] == data and got[len(data):] == bytes(2 * MIB - len(data)), "other bytes")
        p.call("volume.write", pool="p", volume="r", offset=0, data=base64.b64encode(b"half").decode())
        tap.check(p.fetch("r") == got, "half an upload is seen")
        p.fails("bad-state", "volume.write", pool="p", volume="r", offset=99, data="aaaa", last=True)
        p.fails("invalid-params", "volume.write", pool="p", volume="r", offset=4, data="***")
        p.daemon.kill()
        p.daemon.start()
        tap.check(p.fetch("r") == got and p.names() == ["r"], "changed by half an upload")
        tap.check(not p.hidden(), f"left: {p.hidden()}")
        p.make("q")
        with open(p.path("q"), "rb") as file:
            good = file.read()
        p.fails("file-error", "volume.write", pool="p", volume="q", offset=0, last=True,
                data=base64.b64encode(b"QFI\xfb" + bytes(600)).decode())
        tap.check(p.fetch("q") == good and not p.hidden(), "a broken image took its place")
        source = os.path.join(p.daemon.dir, "source.qcow2")
        qemu_img("create", "-q", "-f", "qcow2", source, "3M")
        with open(source, "rb") as file:
            p.send("q", file.read())
        tap.check(p.call("volume.get", pool="p", volume="q")["capacity"] == 3 * MIB, "not looked at")


def wiped_volumes_are_empty():
    with Pool() as p:
        p.make("r", "raw", MIB)
        p.send("r", b"secret" * 1000)
        for algorithm in ("zero", "random"):
            p.call("volume.wipe", pool="p", volume="r", algorithm=algorithm)
            tap.check(p.fetch("r") == bytes(MIB), algorithm)
        p.make("q")
        subprocess.run([os.path.join(BUILD, "vmctl"), "image", "bench", "-w", "-c", "100", "-f", "qcow2", p.path("q")],
                       check=True, capture_output=True, timeout=60)
        p.call("volume.wipe", pool="p", volume="q")
        info = json.loads(qemu_img("map", "--output=json", p.path("q")))
        tap.check(all(not part["data"] for part in info) and not p.hidden(), f"{info} {p.hidden()}")


def files_that_somebody_put_there_are_taken_up():
    with Pool() as p:
        qemu_img("create", "-q", "-f", "qcow2", p.path("mine.qcow2"), "3M")
        with open(p.path("mine.raw"), "wb") as file:
            file.truncate(MIB)
        with open(p.path("bad.qcow2"), "wb") as file:
            file.write(b"QFI\xfb" + b"\xff" * 2000)
        os.mkfifo(p.path("pipe"))
        os.mkdir(p.path("folder"))
        tap.check(not p.names(), "taken up without a look")
        p.call("pool.refresh", pool="p")
        tap.check([(v["name"], v["format"], v["capacity"]) for v in p.call("volume.list", pool="p")["volumes"]] ==
                  [("mine.qcow2", "qcow2", 3 * MIB), ("mine.raw", "raw", MIB)], f"{p.names()}")
        # A guest that writes a header into its raw disk does not make a qcow2 image of it.
        shutil.copy(p.path("mine.qcow2"), p.path("mine.raw"))
        os.unlink(p.path("mine.qcow2"))
        for _ in range(2):
            p.call("pool.refresh", pool="p")
            p.call("pool.stop", pool="p")
            p.call("pool.start", pool="p")
        tap.check([v["format"] for v in p.call("volume.list", pool="p")["volumes"]] == ["raw"], "guessed again")
        events = [(e["name"], e["reason"]) for e in p.call("event.list", types=["volume"])["events"]]
        tap.check(("p/mine.raw", "found") in events and ("p/mine.qcow2", "lost") in events, f"{events}")


def vms_use_volumes_by_name():
    with Pool() as p:
        d = p.daemon
        p.make("disk")
        config = d.config("a", disks=[{"pool": "p", "volume": "disk"}])
        got = p.call("vm.define", config=config)["config"]["disks"][0]
        tap.check((got["file"], got["format"]) == (p.path("disk"), "qcow2"), f"{got}")
        for disk in ({"pool": "p"}, {"volume": "disk"}, {}):
            p.fails("invalid-params", "vm.define", config=d.config("b", disks=[disk]))
        for disk in ({"pool": "p", "volume": "x"}, {"pool": "x", "volume": "disk"}):
            p.fails("not-found", "vm.define", config=d.config("b", disks=[disk]))
        p.fails("not-found", "vm.define", config=d.config("b", project="web", disks=[{"pool": "p", "volume": "disk"}]))
        p.fails("busy", "volume.delete", pool="p", volume="disk")
        p.call("vm.start", vm="a")
        for method, more in (("volume.resize", {"capacity": 32 * MIB}), ("volume.wipe", {}),
                             ("volume.write", {"offset": 0, "data": "", "last": True})):
            p.fails("busy", method, pool="p", volume="disk", **more)
        p.call("vm.stop", vm="a", force=True)
        p.call("pool.stop", pool="p")
        tap.check("not active" in p.fails("bad-state", "vm.start", vm="a").message, "started without its pool")
        p.fails("busy", "pool.undefine", pool="p")
        p.call("pool.start", pool="p")
        p.call("volume.resize", pool="p", volume="disk", capacity=32 * MIB)
        p.call("vm.start", vm="a")
        p.call("vm.delete", vm="a", force=True)
        p.call("volume.delete", pool="p", volume="disk")


def libvirt_reads_our_xml_and_we_its():
    with Pool() as p:
        if not shutil.which("virt-xml-validate"):
            tap.skip("virt-xml-validate (package libvirt-clients)")
        p.make("base")
        p.call("volume.create", pool="p", config={"name": "over", "format": "qcow2"}, backing_volume="base")
        texts = {"storagepool": p.call("pool.xml", pool="p")["xml"],
                 "storagevol": p.call("volume.xml", pool="p", volume="over")["xml"]}
        for schema, text in texts.items():
            path = os.path.join(p.daemon.dir, schema + ".xml")
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            done = subprocess.run(["virt-xml-validate", path, schema], capture_output=True, text=True, timeout=60,
                                  check=False)
            tap.check(done.returncode == 0, f"{done.stdout}{done.stderr}\n{text}")
            p.call("xml.check", xml=text)

        def vmctl(*words):
            done = subprocess.run([os.path.join(BUILD, "vmctl"), "--dir", p.daemon.dir, *words], capture_output=True,
                                  text=True, timeout=60, check=False)
            tap.check(done.returncode == 0, f"{words}: {done.stderr}")
            return done.stdout
        p.call("volume.delete", pool="p", volume="over")
        vmctl("vol-create", "p", "-f", os.path.join(p.daemon.dir, "storagevol.xml"))
        tap.check(p.call("volume.get", pool="p", volume="over")["backing"] == "base", "backing file lost")
        vmctl("vol-create-as", "p", "named", "4M", "--image-format", "qcow2", "-o", "cluster_size=4k")
        tap.check("named" in vmctl("vol-list", "p") and "<volume" in vmctl("vol-dumpxml", "p", "named"), "no volume")
        source = os.path.join(p.daemon.dir, "source")
        with open(source, "wb") as file:
            file.write(random.Random(7).randbytes(MIB))
        vmctl("vol-create-as", "p", "r", "1M")
        vmctl("vol-upload", "p", "r", source)
        vmctl("vol-download", "p", "r", source + ".back")
        with open(source, "rb") as one, open(source + ".back", "rb") as two:
            tap.check(one.read() == two.read(), "other bytes")
        vmctl("vol-delete", "p", "r")
        vmctl("pool-destroy", "p")
        vmctl("pool-undefine", "p")
        vmctl("pool-define", "-f", os.path.join(p.daemon.dir, "storagepool.xml"))
        vmctl("pool-start", "p")
        tap.check(p.names() == ["base", "named", "over"], f"{p.names()}")


class Oracle:
    """What was acknowledged, and what may be: names to whether they must be there (None: either)."""

    def __init__(self):
        self.there, self.doubt = set(), {}

    def check(self, p):
        names = set(p.names())
        for name, states in self.doubt.items():
            tap.check((name in names) in states, f"{name}: there {name in names}, not in {states}")
        sure, must = names - set(self.doubt), self.there - set(self.doubt)
        tap.check(sure == must, f"lost {must - sure}, too many {sure - must}")
        self.there = names
        self.doubt = {}


def act(p, rng, oracle, serial):
    """One call that may be cut off."""
    quiet = sorted(oracle.there - set(oracle.doubt))
    kind = rng.choice(("create", "create", "clone", "delete", "delete", "resize", "wipe", "write"))
    name = f"v{serial}"
    if kind == "create" or not quiet:
        target, after = name, True
        call = ("volume.create", {"config": {"name": name, "format": rng.choice(("raw", "qcow2")), "capacity": MIB,
                                             "allocation": 0}})
    elif kind == "clone":
        target, after, call = name, True, ("volume.clone", {"volume": rng.choice(quiet), "name": name})
    else:
        target = rng.choice(quiet)
        after = kind != "delete"
        call = {"delete": ("volume.delete", {}), "wipe": ("volume.wipe", {}),
                "resize": ("volume.resize", {"capacity": rng.randrange(2, 9) * MIB, "shrink": True}),
                "write": ("volume.write", {"offset": 0, "data": base64.b64encode(bytes(512)).decode()})}[kind]
        call[1]["volume"] = target
    before = target in oracle.there
    oracle.doubt[target] = {before, after}
    try:
        p.call(call[0], pool="p", **call[1])
    except lib.CallError as error:
        tap.check(error.error in ("cancelled", "busy"), f"{call}: {error}")
        return
    except (lib.Gone, OSError):
        return
    del oracle.doubt[target]
    (oracle.there.add if after else oracle.there.discard)(target)


def killed_at_any_moment_volumes_are_whole_or_not_there():
    oracle = Oracle()
    with Pool() as p:
        for n in range(ARGS.first, ARGS.first + ARGS.count):
            rng = random.Random(f"{ARGS.seed} {n}")
            killer = threading.Timer(rng.random() * 0.12, p.daemon.kill)
            killer.start()
            for k in range(100):
                act(p, rng, oracle, f"{n}-{k}")
                if not killer.is_alive():
                    break
            killer.join()
            p.daemon.start()
            oracle.check(p)
            p.call("pool.refresh", pool="p")
            tap.check(set(p.names()) == oracle.there, f"seed {ARGS.seed}, {n}: found what was not acknowledged")
            p.wait_clean()
            tap.check(set(os.listdir(p.dir)) == oracle.there, f"seed {ARGS.seed}, {n}: {os.listdir(p.dir)}")
        for v in p.call("volume.list", pool="p")["volumes"]:
            if v["format"] == "qcow2":
                qemu_img("check", v["path"])


CASES = [pools_have_states_that_last, what_a_pool_cannot_be_is_refused_by_name, volumes_are_made_as_asked,
         bad_volumes_are_refused_and_leave_nothing, bytes_arrive_whole_or_not_at_all, wiped_volumes_are_empty,
         files_that_somebody_put_there_are_taken_up, vms_use_volumes_by_name, libvirt_reads_our_xml_and_we_its,
         killed_at_any_moment_volumes_are_whole_or_not_there]


def main():
    global ARGS
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=int(os.environ.get("VMD_TEST_SEED", "1")))
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--count", type=int, default=15)
    parser.add_argument("case", nargs="*")
    ARGS = parser.parse_args()
    print(f"# seed {ARGS.seed}")
    sys.argv[1:] = ARGS.case
    sys.exit(tap.run_cases(CASES))


if __name__ == "__main__":
    main()
