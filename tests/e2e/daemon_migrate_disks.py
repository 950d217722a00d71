#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Live migration with local disks: a guest writes its disk and reads it back while disk and memory move; images of both sides
are compared with what the guest says. Campaign: --seed N --from N --count N faults at random points."""

import argparse
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import daemon_migrate as memory  # noqa: E402
import migrate_lib  # noqa: E402
import tap  # noqa: E402

MIB = 1 << 20
CC = "riscv64-linux-gnu-gcc"


def image(path, form, size, backing=None):
    more = ["-b", backing, "-F", "qcow2"] if backing else []
    subprocess.run([os.path.join(lib.BUILD, "vmctl"), "image", "create", "-q", "-f", form, *more, path, str(size)], check=True,
                   timeout=60)


def convert(source, target, form):
    subprocess.run([os.path.join(lib.BUILD, "vmctl"), "image", "convert", "-q", "-O", form, source, target], check=True, timeout=60)


def filled(path, form, size):
    """An image with data where the guest does not write, in three quarters; what it holds there."""
    data = b"".join(bytes(4096) + os.urandom(61440) for _ in range(size // 4 * 3 // 65536))
    with open(path + ".raw", "wb") as file:
        file.write(data)
        file.truncate(size)
    convert(path + ".raw", path, form)
    os.unlink(path + ".raw")
    return data


def has(path, data, size):
    """The guest's blocks aside, it holds what it was made with, and zeroes."""
    convert(path, path + ".raw", "raw")
    with open(path + ".raw", "rb") as file:
        now = file.read()
    os.unlink(path + ".raw")
    tap.check(len(now) == size, f"{len(now)} bytes")
    for at in range(0, size, 65536):
        want = data[at + 4096:at + 65536] or bytes(61440)
        tap.check(now[at + 4096:at + 65536] == want, f"other data at {at}")


class Pair(migrate_lib.Pair):
    """Each daemon has a folder for images, and one that both see."""

    def __init__(self, apart=False):
        """apart: the second daemon sees another folder at the path of the one that both see."""
        super().__init__()
        self.shared = tempfile.mkdtemp(prefix="vmd-shared-")
        self.own = tempfile.mkdtemp(prefix="vmd-shared-")
        for one in self.both:
            one.options += ["--image-dir", self.shared]
        if apart:
            self.both[1].wrapper = ["unshare", "-m", "sh", "-c", 'mount --bind "$1" "$2" && shift 2 && exec "$@"', "sh", self.own, self.shared]

    def __exit__(self, *what):
        super().__exit__(*what)
        shutil.rmtree(self.shared)
        shutil.rmtree(self.own)

    def __enter__(self):
        super().__enter__()
        for one in self.both:
            os.mkdir(self.folder(one))
        return self

    @staticmethod
    def folder(daemon):
        return os.path.join(daemon.dir, "disks")

    def path(self, daemon, name="a.img"):
        return os.path.join(self.folder(daemon), name)

    def firmware(self):
        """The guest of disk_guest.c, as a file that both can read."""
        path = os.path.join(self.both[0].dir, "disk_guest.bin")
        if not os.path.exists(path):
            if not shutil.which(CC):
                raise tap.Skip(f"{CC} was not found (Debian: gcc-riscv64-linux-gnu)")
            with tempfile.TemporaryDirectory() as work:
                elf = os.path.join(work, "guest.elf")
                subprocess.run([CC, "-march=rv64gc", "-mabi=lp64d", "-mcmodel=medany", "-O2", "-ffreestanding", "-nostdlib",
                                "-static", "-no-pie", "-fno-pic", "-Wl,--build-id=none,--no-relax,-Ttext=0x80000000,-e,_start",
                                "-o", elf, os.path.join(HERE, "disk_guest.c")], check=True, timeout=120, capture_output=True)
                subprocess.run(["riscv64-linux-gnu-objcopy", "-O", "binary", elf, path], check=True, timeout=60)
        return path

    def define_disk(self, form="qcow2", size=8 * MIB, files=None, **more):
        here = self.both[0]
        files = files or [self.path(here)]
        for file in files:
            if not os.path.exists(file):
                image(file, form, size)
        config = here.config("a", disks=[{"name": f"vd{chr(97 + i)}", "file": file, "format": form} for i, file in enumerate(files)],
                             **more)
        config["firmware"] = self.firmware()
        config["memory"] = 16 * MIB
        with here.client() as client:
            client.call("vm.define", config=config)
            client.call("vm.start", vm="a")

    def move(self, here, there, **more):
        more = {"copy_storage_all": True, "disk_folder": self.folder(there), **more}
        return self.migrate(here, there, **{key: value for key, value in more.items() if value is not None})

    def files(self):
        return [sorted(os.listdir(self.folder(one))) for one in self.both]


def done(job, pair):
    tap.check(job["state"] == "done", f"{job}\n{pair.both[0].tail()}\n{pair.both[1].tail()}")


def a_disk_goes_with_its_vm():
    for form in ("qcow2", "raw"):
        with Pair() as pair:
            here, there = pair.both
            data = filled(pair.path(here), form, 8 * MIB)
            pair.define_disk(form)
            for number in range(4):
                pair.watch(here, passes=2)
                job = pair.move(here, there, streams=1 + number % 2)
                done(job, pair)
                config = there.call("vm.get", vm="a")["config"]
                tap.check(config["disks"][0]["file"] == pair.path(there), f"{config['disks']}")
                tap.check(job["total"] >= 16 * MIB and job["done"] == job["total"], f"{job}")
                pair.watch(there, passes=2)
                os.unlink(pair.path(here))  # nothing there needs it
                here, there = there, here
            pair.watch(here, passes=2)
            here.call("vm.stop", vm="a", force=True)
            has(pair.path(here), data, 8 * MIB)


def fails(pair, code, text, here=None, there=None, **more):
    """Nothing of it is left, and the guest goes on."""
    here, there = here or pair.both[0], there or pair.both[1]
    before = pair.files()
    for check in (True, False):
        job = pair.move(here, there, check=check, **more)
        tap.check(job["state"] == "failed" and job["error"]["error"] == code and text in job["error"]["message"],
                  f"{code}, {text}, check {check}: {job}")
    tap.check(pair.states() == ["running", None] and pair.files() == before, f"{pair.states()} {pair.files()}")


def what_would_fail_is_told_first():
    with Pair() as pair:
        here, there = pair.both
        pair.define_disk(files=[pair.path(here), pair.path(here, "b.img")])
        with here.client() as client:
            for more in ({"copy_storage_all": True, "copy_storage_inc": True}, {"disk_folder": "/x"}, {"migrate_disks": ["vda"]}):
                client.fails("invalid-params", "migrate.start", vm="a", to=pair.url(there), **more)
        job = pair.migrate(here, there)
        tap.check(job["state"] == "failed" and "'vda'" in job["error"]["message"], f"{job}")
        fails(pair, "unsupported", "'vdb'", migrate_disks=["vda"])
        fails(pair, "unsupported", "'vda'", migrate_disks=["vdx"])
        fails(pair, "not-found", "named", migrate_disks=["vda", "vdb", "vdx"])
        fails(pair, "exists", "is there already", disk_folder=None)  # both hosts see the same files
        fails(pair, "file-error", "nowhere", disk_folder=pair.folder(there) + "/nowhere")
        fails(pair, "invalid-params", "absolute", disk_folder="here")
        with open(pair.path(there, "b.img"), "wb") as file:
            file.write(b"precious")
        fails(pair, "exists", "b.img")
        with open(pair.path(there, "b.img"), "rb") as file:
            tap.check(file.read() == b"precious", "it was written over")
        os.unlink(pair.path(there, "b.img"))
        os.mkdir(pair.path(here, "more"))
        tap.check(pair.move(here, there, check=True)["state"] == "done", "it would go")
        tap.check(pair.files()[1] == [], f"{pair.files()}")
        # Images that are there: of another size refused, of the same one written over.
        for name in ("a.img", "b.img"):
            image(pair.path(there, name), "qcow2", 4 * MIB)
        job = pair.move(here, there, reuse_images=True)
        tap.check(job["state"] == "failed" and "8388608" in job["error"]["message"] and "4194304" in job["error"]["message"], f"{job}")
        lib.wait_for(lambda: pair.states() == ["running", None], 60, "it stays where it was")
        tap.check(pair.files()[1] == ["a.img", "b.img"], f"{pair.files()}")
        for name in ("a.img", "b.img"):
            image(pair.path(there, name), "qcow2", 8 * MIB)
        pair.watch(here)
        done(pair.move(here, there, reuse_images=True), pair)
        pair.watch(there)


def too_little_room_is_told_first():
    if os.geteuid() != 0:
        raise tap.Skip("root, to mount a small file system")
    with Pair() as pair:
        here, there = pair.both
        pair.define_disk("raw")
        with open(pair.path(here), "r+b") as file:
            file.seek(6 * MIB)
            file.write(os.urandom(2 * MIB - 65536 * 2))  # not where the guest writes, but for some blocks
        small = os.path.join(there.dir, "small")
        os.mkdir(small)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], check=False, capture_output=True).returncode:
            raise tap.Skip("no right to mount")
        try:
            fails(pair, "host-limit", "has room for", disk_folder=small)
            tap.check(os.listdir(small) == [], "something is left")
        finally:
            subprocess.run(["umount", small], check=True)


def images_below_stay_where_they_are():
    with Pair() as pair:
        here, there = pair.both
        base = os.path.join(pair.shared, "base.qcow2")
        image(base, "qcow2", 8 * MIB)
        image(pair.path(here), "qcow2", 8 * MIB, base)
        pair.define_disk()
        pair.watch(here)
        os.rename(base, base + ".away")
        job = pair.move(here, there, copy_storage_all=False, copy_storage_inc=True)
        tap.check(job["state"] == "failed" and "base.qcow2" in job["error"]["message"] and pair.files()[1] == [], f"{job}")
        with open(base + ".away", "rb") as file:
            tap.check(len(file.read()) > 0, "it is read alone")
        os.rename(base + ".away", base)
        done(pair.move(here, there, copy_storage_all=False, copy_storage_inc=True), pair)
        pair.watch(there)
        with open(pair.path(there), "rb") as file:
            tap.check(base.encode() in file.read(4096), "it stands on nothing")
        os.unlink(pair.path(here))
        done(pair.move(there, here), pair)  # and whole
        pair.watch(here)
        with open(pair.path(here), "rb") as file:
            tap.check(base.encode() not in file.read(4096), "it stands on an image")


def volumes_go_into_the_pool_of_the_same_name():
    with Pair() as pair:
        for one in pair.both:
            one.call("pool.define", config={"name": "fast", "path": pair.folder(one)})
            one.call("pool.start", pool="fast")
        here, there = pair.both
        here.call("volume.create", pool="fast", config={"name": "a.img", "capacity": 8 * MIB, "format": "qcow2"})
        config = here.config("a", disks=[{"name": "vda", "pool": "fast", "volume": "a.img"}])
        config.update(firmware=pair.firmware(), memory=16 * MIB)
        here.call("vm.define", config=config)
        here.call("vm.start", vm="a")

        def volumes(one):
            return [v["name"] for v in one.call("volume.list", pool="fast")["volumes"]]
        fails(pair, "file-error", "nowhere", disk_folder=pair.folder(there) + "/nowhere")
        tap.check(volumes(there) == [], f"{volumes(there)}")
        tap.check(pair.move(here, there, check=True, disk_folder=None)["state"] == "done", "it would go")
        tap.check(volumes(there) == [] and pair.files()[1] == [], f"{volumes(there)}")
        job = pair.move(here, there, wait=False, disk_folder=None, bandwidth=1 << 20)
        lib.wait_for(lambda: here.call("job.get", job=job).get("done", 0) > 0, 60, "progress")
        here.call("job.cancel", job=job)
        lib.wait_for(lambda: pair.states() == ["running", None] and pair.files()[1] == [], 60, "it stays where it was")
        tap.check(volumes(there) == [], f"{volumes(there)}")
        for number in range(3):  # made there, and then written over
            done(pair.move(here, there, disk_folder=None), pair)
            disk = there.call("vm.get", vm="a")["config"]["disks"][0]
            tap.check((disk["pool"], disk["volume"], disk["file"]) == ("fast", "a.img", pair.path(there)), f"{number}: {disk}")
            tap.check(volumes(there) == ["a.img"], f"{volumes(there)}")
            there.kill()
            there.start()
            tap.check(volumes(there) == ["a.img"], f"{volumes(there)}")
            pair.watch(there)
            here, there = there, here


def hosts_apart_have_the_same_paths():
    """As QEMU's and libvirt's users do it: the destination has a file system of its own."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        raise tap.Skip("root, for a mount namespace")
    with Pair(apart=True) as pair:
        here, there = pair.both
        file = os.path.join(pair.shared, "a.img")
        data = filled(file, "qcow2", 8 * MIB)
        pair.define_disk("qcow2", files=[file])
        done(pair.move(here, there, disk_folder=None), pair)
        pair.watch(there)
        has(os.path.join(pair.shared, "a.img"), data, 8 * MIB)  # as it was when it went
        with there.qmp() as q:
            q.execute("migrate", uri=pair.url(here), blk=True)
        lib.wait_for(lambda: pair.states() == ["running", None], 100, f"that it runs there: {pair.states()}")
        pair.watch(here)
        if shutil.which("virsh"):
            url = f"qemu+unix:///system?socket={here.dir}/run/libvirt-sock"
            subprocess.run(["virsh", "-q", "-c", url, "migrate", "a", pair.url(there), "--p2p", "--live", "--persistent",
                            "--undefinesource", "--copy-storage-all", "--migrate-disks", "vda"], check=True, timeout=100)
            lib.wait_for(lambda: pair.states() == [None, "running"], 100, f"that it runs there: {pair.states()}")
            pair.watch(there)
            here, there = there, here
        here.call("vm.stop", vm="a", force=True)
        has(os.path.join(pair.shared if here is pair.both[0] else pair.own, "a.img"), data, 8 * MIB)


def copying(here):
    return [m for m in here.call("migrate.list")["migrations"] if m["state"] == "copying"]


def one_that_is_cancelled_leaves_nothing():
    with Pair() as pair:
        here, there = pair.both
        pair.define_disk("raw")
        job = pair.move(here, there, wait=False, bandwidth=1 << 20)
        lib.wait_for(lambda: here.call("job.get", job=job).get("done", 0) > 0, 60, "progress")
        tap.check(copying(here) and pair.files()[1] == ["a.img"], f"{pair.files()}")
        tap.check(here.call("job.get", job=job)["total"] > 16 * MIB, "disks are not told")
        here.call("job.cancel", job=job)
        tap.check(here.call("job.wait", job=job, timeout_ms=60000)["state"] == "cancelled", "cancelled")
        lib.wait_for(lambda: pair.states() == ["running", None] and pair.files()[1] == [], 60, "it stays where it was")
        pair.watch(here)
        done(pair.move(here, there), pair)
        pair.watch(there)


def a_host_that_does_not_answer_holds_nobody_up():
    """The other emulator stands still while the disk goes: the guest here goes on, and the migration can be called off."""
    with Pair() as pair:
        here, there = pair.both
        pair.define_disk("raw")
        for bandwidth in (1 << 20, 0):
            job = pair.move(here, there, wait=False, bandwidth=bandwidth)
            lib.wait_for(lambda: there.emulators(), 60, "an emulator there")
            if bandwidth:
                lib.wait_for(lambda: here.call("job.get", job=job).get("done", 0) > 0, 60, "progress")
            stopped = [pid for pids in there.emulators().values() for pid in pids]
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            if pair.states()[0] is None:  # it was faster
                for pid in stopped:
                    os.kill(pid, signal.SIGCONT)
                here, there = there, here
                continue
            here.call("job.cancel", job=job)
            ended = here.call("job.wait", job=job, timeout_ms=60000)
            tap.check(ended["state"] in ("cancelled", "failed"), f"{ended}")
            pair.watch(here)
            for pid in stopped:
                try:
                    os.kill(pid, signal.SIGCONT)
                except ProcessLookupError:
                    pass  # it was ended
            owner = memory.settle(pair)
            tap.check(owner is here and os.listdir(pair.folder(there)) == [], f"{pair.files()}")
        done(pair.move(here, there), pair)
        pair.watch(there)


def a_file_that_came_meanwhile_is_not_touched():
    """Between the look at the folder and the images somebody makes a file of that name."""
    with Pair() as pair:
        here, there = pair.both
        pair.define_disk()
        store = memory.locked(there)
        try:
            job = pair.move(here, there, wait=False)
            lib.wait_for(lambda: there.call("migrate.list")["migrations"], 60, "it is being prepared")
            time.sleep(1)  # the look is over, what comes next waits for the store
            with open(pair.path(there), "wb") as file:
                file.write(b"precious")
        finally:
            store.execute("ROLLBACK")
            store.close()
        ended = here.call("job.wait", job=job, timeout_ms=60000)
        tap.check(ended["state"] == "failed" and ended["error"]["error"] == "exists" and "a.img" in ended["error"]["message"], f"{ended}")
        lib.wait_for(lambda: pair.states() == ["running", None], 60, "it stays where it was")
        with open(pair.path(there), "rb") as file:
            tap.check(file.read() == b"precious", "it was written over")
        os.unlink(pair.path(there))
        done(pair.move(here, there), pair)
        tap.check(os.stat(pair.path(there)).st_mode & 0o777 == 0o600, "others may read it")
        pair.watch(there)


def a_file_in_place_of_ours_outlives_a_restart():
    """The destination dies while disks come, and somebody puts a file where one of its images was: the next daemon takes away its own."""
    with Pair() as pair:
        here, there = pair.both
        pair.define_disk("raw", files=[pair.path(here), pair.path(here, "b.img")])
        job = pair.move(here, there, wait=False, bandwidth=1 << 20)
        lib.wait_for(lambda: here.call("job.get", job=job).get("done", 0) > 0, 60, "progress")
        there.kill()
        tap.check(pair.files()[1] == ["a.img", "b.img"], f"{pair.files()}")
        os.unlink(pair.path(there, "b.img"))
        with open(pair.path(there, "b.img"), "wb") as file:
            file.write(b"precious")
        there.start()
        tap.check(memory.settle(pair) is here, "it stays where it was")
        lib.wait_for(lambda: pair.files()[1] == ["b.img"], 60, "its own image goes")
        with open(pair.path(there, "b.img"), "rb") as file:
            tap.check(file.read() == b"precious", "it is another one")
        pair.watch(here)


def plans_that_cannot_be_leave_nothing():
    """What a source says of its disks is believed as far as it can be."""
    with lib.Daemon() as daemon, daemon.client() as client:
        folder = os.path.join(daemon.dir, "disks")
        os.mkdir(folder)
        path = os.path.join(folder, "a.img")
        image(os.path.join(daemon.dir, "ro.img"), "raw", MIB)
        version = client.hello["params"]["version"]

        def prepare(code, text, disks, form="qcow2", streams=1, file=path, **more):
            config = daemon.config("a", uuid="6ad7e7a4-5e4b-4dd6-b4d7-5f2ccf0e0e0a",
                                   disks=[{"name": "vda", "file": file, "format": form},
                                          {"name": "ro", "file": os.path.join(daemon.dir, "ro.img"), "readonly": True}])
            error = client.fails(code, "migrate.prepare", config=config, streams=streams, version=version, disks=disks, **more)
            tap.check(text in error.message, f"{error}, not {text}")
            lib.wait_for(lambda: not client.call("migrate.list")["migrations"], 30, "it is forgotten")
            tap.check(not client.call("vm.list")["vms"] and os.listdir(folder) == [], f"{disks}: {os.listdir(folder)}")
        disk = {"name": "vda", "size": MIB}
        prepare("invalid-params", "'vdx'", [{**disk, "name": "vdx"}])
        prepare("invalid-params", "'ro'", [{**disk, "name": "ro"}])
        prepare("exists", "two disks", [disk, disk])
        prepare("invalid-params", "absolute", [{**disk, "backing": "../base"}])
        prepare("invalid-params", "no other image", [{**disk, "backing": "/base"}], form="raw")
        prepare("file-error", "not here", [{**disk, "backing": folder + "/base", "backing_format": "raw"}])
        prepare("file-error", "", [{**disk, "backing": os.path.join(daemon.dir, "ro.img"), "backing_format": "nonsense"}])
        prepare("file-error", "too large", [{**disk, "size": 1 << 62}], form="raw")
        prepare("invalid-params", "size", [{**disk, "size": -1}])
        prepare("unsupported", "connections", [disk], streams=16)
        prepare("unsupported", "no file", [disk], file="nbd://127.0.0.1:1/x")
        prepare("file-error", "", [disk], file="/proc/self/a.img")
        prepare("invalid-params", "absolute", [disk], disk_folder="x")


def refused(emulator, code, method, said=b"", **params):
    """With a stream whose other end says this."""
    ours, number = emulator.pass_one(method, **params)
    with ours:
        try:
            ours.sendall(said)
            ours.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused already
        try:
            emulator.client.answer(number)
        except lib.CallError as error:
            tap.check(error.error in code.split(), f"{method} {params}: {error}")
            return error.message
    raise AssertionError(f"{method} {params}: taken")


def emulators_take_no_nonsense():
    with lib.Daemon() as daemon, daemon.client() as client:
        path = os.path.join(daemon.dir, "a.img")
        image(path, "raw", MIB)
        client.call("vm.define", config=daemon.config("a", disks=[{"name": "vda", "file": path}]))
        client.call("vm.start", vm="a")
        emulator = memory.Emulator(daemon, "a")
        disks = emulator.client.call("emu.migrate_disks")["disks"]
        tap.check([(d["name"], d["size"]) for d in disks] == [("vda", MIB)] and "stays" not in disks[0], f"{disks}")
        refused(emulator, "not-found", "emu.migrate_disk_out", disk="vdx")
        refused(emulator, "bad-state", "emu.migrate_disk_in", disk="vda")
        for said in (b"", b"NBDMAGIC", os.urandom(18), b"NBDMAGICIHAVEOPT\0\3" + os.urandom(400)):
            refused(emulator, "file-error invalid-params unsupported", "emu.migrate_disk_out", said, disk="vda")
        emulator.client.fails("invalid-params", "emu.migrate_disk_out", disk="vda")
        emulator.client.fails("file-error", "emu.migrate_out", streams=1, disks=1)
        tap.check(emulator.client.call("emu.jobs")["jobs"] == [], "a mirror is left")
        client.call("vm.stop", vm="a", force=True)
        client.call("vm.start", vm="a", paused=True)
        emulator = memory.Emulator(daemon, "a")
        refused(emulator, "not-found", "emu.migrate_disk_in", disk="vdx")
        emulator.client.fails("invalid-params", "emu.migrate_disk_in", disk="vda")
        ours, number = emulator.pass_one("emu.migrate_disk_in", disk="vda")
        emulator.client.answer(number)
        refused(emulator, "exists", "emu.migrate_disk_in", disk="vda")
        with ours:
            tap.check(ours.recv(8) == b"NBDMAGIC", "no NBD server")
            ours.sendall(os.urandom(4096))
            ours.settimeout(60)
            while ours.recv(65536):
                pass
        client.call("vm.stop", vm="a", force=True)


def fault(pair, here, there, rng, number):
    """One of the four dies at a random moment of a migration with a disk."""
    what = rng.choice(["source", "destination", "source-emulator", "destination-emulator"])
    delay = rng.random() * rng.choice([0.6, 0.2])
    pair.move(here, there, wait=False, streams=rng.randrange(1, 4))
    time.sleep(delay)
    if what in ("source", "destination"):
        one = here if what == "source" else there
        one.kill()
        time.sleep(rng.random() * 0.1)
        runs = [s for s in pair.states() if s == "running"]
        tap.check(len(runs) < 2, f"two run: {runs}")
        one.start()
    else:
        one = here if what == "source-emulator" else there
        for pids in one.emulators().values():
            for pid in pids:
                lib.kill(pid)
                lib.wait_for(lambda: not lib.alive(pid), 20, "it is dead")
    owner = memory.settle(pair)
    other = there if owner is here else here
    state = owner.call("vm.get", vm="a")["state"]
    end = f"{what} {'moved' if owner is there else 'stayed'} {state}"
    if "emulator" not in what:
        tap.check(state == "running", f"{number}: {end}: nobody's emulator died\n{here.tail()}\n{there.tail()}")
    if what == "destination-emulator" and owner is here:
        tap.check(state == "running", f"{number}: {end}: the source did not die")
    if owner is here:
        lib.wait_for(lambda: not os.listdir(pair.folder(there)), 30, "what was made there is gone")
    tap.check(os.listdir(pair.folder(owner)) == ["a.img"], f"{number}: {end}: {pair.files()}")
    if state == "running":
        pair.watch(owner, passes=2)
    else:
        owner.call("vm.start", vm="a")
    for name in os.listdir(pair.folder(other)):
        os.unlink(os.path.join(pair.folder(other), name))
    return owner, end


def campaign(seed, first, count):
    ends = {}
    with Pair() as pair:
        pair.define_disk()
        here, there = pair.both
        for number in range(first, first + count):
            rng = random.Random(f"{seed}:{number}")
            try:
                owner, end = fault(pair, here, there, rng, number)
            except BaseException:
                print(f"# fault {number} of seed {seed}, source {here.dir}\n{pair.both[0].tail()}\n{pair.both[1].tail()}")
                raise
            ends[end] = ends.get(end, 0) + 1
            if owner is there:
                here, there = there, here
    print(f"# seed {seed}, {count} faults: {ends}")


def whoever_dies_one_has_it_with_its_disk():
    seed = int(os.environ.get("VMD_TEST_SEED", random.randrange(1 << 30)))
    print(f"# seed {seed}")
    campaign(seed, 0, 10)


CASES = [a_disk_goes_with_its_vm, what_would_fail_is_told_first, too_little_room_is_told_first, images_below_stay_where_they_are,
         volumes_go_into_the_pool_of_the_same_name, hosts_apart_have_the_same_paths,
         one_that_is_cancelled_leaves_nothing, a_host_that_does_not_answer_holds_nobody_up,
         a_file_that_came_meanwhile_is_not_touched, a_file_in_place_of_ours_outlives_a_restart,
         emulators_take_no_nonsense, plans_that_cannot_be_leave_nothing, whoever_dies_one_has_it_with_its_disk]

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("case", nargs="*")
    args = parser.parse_args()
    if args.count:
        campaign(args.seed if args.seed is not None else random.randrange(1 << 30), args.first, args.count)
        sys.exit(0)
    sys.exit(tap.run_cases(CASES))
