# SPDX-License-Identifier: Apache-2.0
"""Block jobs by the daemon: copies, backups, pulls and commits of disks of running VMs, compared by qemu-img; jobs go
on when the daemon is killed."""

import os
import shutil
import signal
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


def qemu_img(*words, status=0):
    got = subprocess.run(["qemu-img", *words], capture_output=True, text=True, timeout=120, check=False)
    tap.check(got.returncode == status, f"qemu-img {' '.join(words)}: {got.stdout}{got.stderr}")
    return got.stdout


def image(path, size, backing=None, pieces=()):
    """A qcow2 image with random pieces, (offset, length)."""
    more = ["-b", backing, "-F", "qcow2"] if backing else []
    qemu_img("create", "-q", "-f", "qcow2", *more, path, str(size))
    for at, length in pieces:
        with open(path + ".piece", "wb") as f:
            f.write(os.urandom(length))
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", f"write -q -s {path}.piece {at} {length}", path], check=True,
                       timeout=120, stdout=subprocess.DEVNULL)
        os.unlink(path + ".piece")


def flat(path):
    qemu_img("convert", "-O", "raw", path, path + ".flat")
    return path + ".flat"


def chain(daemon):
    """Three images; their paths from the lowest to the disk's, and what they read as."""
    paths = [os.path.join(daemon.dir, f"{n}.qcow2") for n in ("base", "mid", "top")]
    image(paths[0], 16 * MIB, None, ((0, MIB), (5 * MIB, 2 * MIB)))
    image(paths[1], 16 * MIB, paths[0], ((MIB // 2, MIB), (9 * MIB, 65536)))
    image(paths[2], 16 * MIB, paths[1], ((MIB, 65536), (12 * MIB, MIB)))
    return paths, flat(paths[2])


def running(daemon, client, path):
    client.call("vm.define", config=daemon.config("a", disks=[{"file": path, "format": "qcow2"}]))
    client.call("vm.start", vm="a")


def wait(client, job, state=None):
    """Until the job has ended, or is in that state."""
    if state is None:
        return client.call("job.wait", job=job, timeout_ms=int(TIMEOUT * 1000))

    def there():
        seen = client.call("job.get", job=job)
        tap.check(seen["state"] in ("running", "queued"), f"it ended: {seen}")
        return seen["result"].get("state") == state
    lib.wait_for(there, TIMEOUT, f"a job that is {state}")
    return None


def done(client, job):
    ended = wait(client, job)
    tap.check(ended["state"] == "done", f"{ended}")


def same(daemon, client, want, path):
    client.call("vm.stop", vm="a", force=False)
    qemu_img("check", "-q", path)
    qemu_img("compare", "-f", "raw", "-F", "qcow2", want, path)


def disk_of(client):
    return client.call("vm.get", vm="a")["config"]["disks"][0]


def a_mirror_takes_the_disks_place():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        paths, want = chain(daemon)
        copy = os.path.join(daemon.dir, "copy.qcow2")
        running(daemon, client, paths[2])
        job = client.call("disk.mirror", vm="a", disk="disk0", file=copy, image_format="qcow2")["job"]
        wait(client, job, "ready")
        client.fails("bad-state", "disk.job", vm="a", disk="disk0", act="dismiss")
        client.call("disk.job", vm="a", disk="disk0", act="complete")
        done(client, job)
        tap.check(disk_of(client)["file"] == copy, f"{disk_of(client)}")
        client.fails("not-found", "disk.job", vm="a", disk="disk0", act="pause")
        same(daemon, client, want, copy)
        client.call("vm.start", vm="a")  # from its new image


def a_backup_is_what_the_disk_reads_as():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        paths, want = chain(daemon)
        copy = os.path.join(daemon.dir, "copy.raw")
        running(daemon, client, paths[2])
        done(client, client.call("disk.backup", vm="a", disk="disk0", file=copy)["job"])
        qemu_img("compare", "-f", "raw", "-F", "raw", want, copy)
        again = wait(client, client.call("disk.backup", vm="a", disk="disk0", file=copy)["job"])
        tap.check(again["state"] == "failed" and again["error"]["error"] == "exists", f"{again}")
        done(client, client.call("disk.backup", vm="a", disk="disk0", file=copy, reuse=True)["job"])
        small = os.path.join(daemon.dir, "small.raw")
        with open(small, "wb") as f:
            f.truncate(MIB)
        bad = wait(client, client.call("disk.backup", vm="a", disk="disk0", file=small, reuse=True)["job"])
        tap.check("smaller" in bad["error"]["message"], f"{bad}")
        same(daemon, client, want, paths[2])


def a_pull_makes_the_disk_stand_alone():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        paths, want = chain(daemon)
        running(daemon, client, paths[2])
        done(client, client.call("disk.stream", vm="a", disk="disk0")["job"])
        client.call("vm.stop", vm="a", force=False)
        os.unlink(paths[0])
        os.unlink(paths[1])
        tap.check("backing file" not in qemu_img("info", paths[2]), "it still names a backing file")
        qemu_img("compare", "-f", "raw", "-F", "qcow2", want, paths[2])


def is_written_by_a(daemon, client, path):
    """And by nobody else, nor read."""
    client.call("vm.define", config=daemon.config("other", disks=[{"file": path, "format": "qcow2", "readonly": True}]))
    tap.check("in use by VM 'a'" in client.fails("busy", "vm.start", vm="other").message, "another VM read what is written")
    client.call("vm.delete", vm="other")


def a_copy_that_a_disk_goes_on_with_is_its_own():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        paths, want = chain(daemon)
        copy = os.path.join(daemon.dir, "copy.qcow2")
        running(daemon, client, paths[2])
        done(client, client.call("disk.mirror", vm="a", disk="disk0", file=copy, image_format="qcow2", pivot=True)["job"])
        is_written_by_a(daemon, client, copy)
        # What it stood on may be read by others.
        client.call("vm.define", config=daemon.config("reader", disks=[{"file": paths[2], "format": "qcow2", "readonly": True}]))
        client.call("vm.start", vm="reader")
        client.call("vm.stop", vm="reader", force=True)
        same(daemon, client, want, copy)


def a_commit_goes_on_with_the_base():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        paths, want = chain(daemon)
        running(daemon, client, paths[2])
        done(client, client.call("disk.commit", vm="a", disk="disk0", base=paths[1], pivot=True)["job"])
        tap.check(disk_of(client)["file"] == paths[1], f"{disk_of(client)}")
        is_written_by_a(daemon, client, paths[1])
        os.unlink(paths[2])
        same(daemon, client, want, paths[1])


def a_commit_below_the_disk_shortens_the_chain():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        paths, want = chain(daemon)
        running(daemon, client, paths[2])
        done(client, client.call("disk.commit", vm="a", disk="disk0", base=paths[0], top=paths[1])["job"])
        client.call("vm.stop", vm="a", force=False)
        os.unlink(paths[1])
        qemu_img("check", "-q", paths[2])
        qemu_img("compare", "-f", "raw", "-F", "qcow2", want, paths[2])


def a_job_goes_on_when_the_daemon_is_killed():
    with lib.Daemon() as daemon:
        paths, want = chain(daemon)
        copy = os.path.join(daemon.dir, "copy.qcow2")
        with daemon.client(TIMEOUT) as client:
            running(daemon, client, paths[2])
            job = client.call("disk.mirror", vm="a", disk="disk0", file=copy, image_format="qcow2", pivot=True,
                              speed=64 * 1024)["job"]
            wait(client, job, "running")
            client.call("disk.job", vm="a", disk="disk0", act="pause")
            wait(client, job, "paused")
        daemon.kill()
        daemon.start()
        with daemon.client(TIMEOUT) as client:
            wait(client, job, "paused")
            client.call("disk.job", vm="a", disk="disk0", act="resume", speed=0)
            done(client, job)
            tap.check(disk_of(client)["file"] == copy, f"{disk_of(client)}")
            is_written_by_a(daemon, client, copy)
            job = client.call("disk.mirror", vm="a", disk="disk0", file=copy + "2", speed=4096)["job"]
            wait(client, job, "running")
            client.call("job.cancel", job=job)
            tap.check(wait(client, job)["state"] == "cancelled", "it was not cancelled")
            same(daemon, client, want, copy)


def control(daemon):
    return lib.Client(os.path.join(daemon.dir, "run", "vm", "1", "control"))


def paused_mirror(daemon, client, paths):
    """A mirror that would give the disk another image, but waits; its job and that image."""
    copy = os.path.join(daemon.dir, "copy.qcow2")
    running(daemon, client, paths[2])
    job = client.call("disk.mirror", vm="a", disk="disk0", file=copy, image_format="qcow2", pivot=True, speed=64 * 1024)["job"]
    wait(client, job, "running")
    client.call("disk.job", vm="a", disk="disk0", act="pause")
    wait(client, job, "paused")
    return job, copy


def swap(daemon, job):
    """Goes on behind the daemon's back, until the disk has its other image."""
    with control(daemon) as emulator:
        emulator.call("emu.job_set", id=f"job-{job}", act="resume", speed=0)

        def over():
            one = [j for j in emulator.call("emu.jobs")["jobs"] if j["id"] == f"job-{job}"]
            return not one or one[0].get("swapped")
        lib.wait_for(over, TIMEOUT, "the other image")


def records(daemon):
    return os.listdir(os.path.join(daemon.dir, "lib", "swaps"))


def settled(daemon, job, copy):
    """What a daemon tells that came after all: the definition names the new image, and nothing is left of the job."""
    with daemon.client(TIMEOUT) as client:
        done(client, job)
        tap.check(disk_of(client) == {**disk_of(client), "file": copy, "format": "qcow2"}, f"{disk_of(client)}")
        lib.wait_for(lambda: not records(daemon), what="end of the record")


def a_daemon_killed_before_the_definition_is_durable_has_it_follow_later():
    with lib.Daemon() as daemon:
        paths, want = chain(daemon)
        with daemon.client(TIMEOUT) as client:
            job, copy = paused_mirror(daemon, client, paths)
        store = sqlite3.connect(os.path.join(daemon.dir, "lib", "vmd.db"), isolation_level=None)
        store.execute("BEGIN IMMEDIATE")  # the daemon's commits wait now
        try:
            swap(daemon, job)
            with daemon.client(TIMEOUT) as client:  # it looks five times a second
                lib.wait_for(lambda: client.call("job.get", job=job)["state"] == "done", TIMEOUT, "news of the job")
            daemon.kill()
        finally:
            store.execute("ROLLBACK")
            store.close()
        daemon.start()
        settled(daemon, job, copy)
        with control(daemon) as emulator:
            lib.wait_for(lambda: not emulator.call("emu.jobs")["jobs"], what="end of the emulator's job")
        with daemon.client(TIMEOUT) as client:
            same(daemon, client, want, copy)


def a_definition_follows_although_emulator_and_daemon_died():
    with lib.Daemon() as daemon:
        paths, want = chain(daemon)
        with daemon.client(TIMEOUT) as client:
            job, copy = paused_mirror(daemon, client, paths)
        os.kill(daemon.process.pid, signal.SIGSTOP)
        swap(daemon, job)
        daemon.kill()
        kill_emulators(daemon)
        daemon.start()
        settled(daemon, job, copy)
        with daemon.client(TIMEOUT) as client:
            client.call("vm.start", vm="a")
            same(daemon, client, want, copy)


def kill_emulators(daemon):
    for pids in daemon.emulators().values():
        for pid in pids:
            lib.kill(pid)
    lib.wait_for(lambda: not daemon.emulators(), what="end of the emulator")


def a_definition_follows_although_the_emulator_died_untold():
    with lib.Daemon() as daemon:
        paths, _ = chain(daemon)
        with daemon.client(TIMEOUT) as client:
            job, copy = paused_mirror(daemon, client, paths)
            os.kill(daemon.process.pid, signal.SIGSTOP)
            swap(daemon, job)
            for pids in daemon.emulators().values():
                for pid in pids:
                    lib.kill(pid)
            os.kill(daemon.process.pid, signal.SIGCONT)
            settled(daemon, job, copy)


def an_emulator_that_died_before_the_swap_leaves_the_definition():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        paths, _ = chain(daemon)
        job, _ = paused_mirror(daemon, client, paths)
        tap.check(records(daemon) == [f"job-{job}"], f"{records(daemon)}")
        kill_emulators(daemon)
        ended = wait(client, job)
        tap.check(ended["error"]["error"] == "bad-state", f"{ended}")
        tap.check(disk_of(client)["file"] == paths[2], f"{disk_of(client)}")
        lib.wait_for(lambda: not records(daemon), what="end of the record")


def a_job_that_nobody_follows_is_dropped():
    with lib.Daemon() as daemon:
        paths, _ = chain(daemon)
        with daemon.client(TIMEOUT) as client:
            running(daemon, client, paths[2])
        with control(daemon) as emulator:
            emulator.call("emu.job_start", id="job-77777", kind="stream", disk="disk0")
            lib.wait_for(lambda: emulator.call("emu.jobs")["jobs"][0]["state"] == "ended", TIMEOUT, "end of a job")
        daemon.kill()
        daemon.start()
        with control(daemon) as emulator:
            lib.wait_for(lambda: not emulator.call("emu.jobs")["jobs"], TIMEOUT, "nothing left")


def an_emulator_that_names_another_image_is_not_believed():
    with lib.Daemon(emulator=lib.FAKE) as daemon, daemon.client(TIMEOUT) as client:
        path, copy = (os.path.join(daemon.dir, n) for n in ("a.raw", "copy.raw"))
        with open(path, "wb") as f:
            f.truncate(MIB)
        client.call("vm.define", config=daemon.config("a", kernel=daemon.guest(), append="forges=/etc/passwd",
                                                    disks=[{"file": path, "format": "raw"}]))
        client.call("vm.start", vm="a")
        wait(client, client.call("disk.mirror", vm="a", disk="disk0", file=copy, image_format="raw", pivot=True)["job"])
        tap.check(disk_of(client)["file"] == path, f"{disk_of(client)}")


def an_emulator_refuses_jobs_that_make_no_sense():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        paths, want = chain(daemon)
        running(daemon, client, paths[2])
        with lib.Client(os.path.join(daemon.dir, "run", "vm", "1", "control")) as emulator:
            tap.check(emulator.call("emu.jobs")["jobs"] == [], "it has jobs")
            emulator.fails("not-found", "emu.job_set", id="x", act="pause")
            emulator.fails("not-found", "emu.job_start", id="x", kind="stream", disk="nodisk")
            emulator.fails("not-found", "emu.job_start", id="x", kind="stream", disk="disk0", base="/no/image")
            emulator.fails("invalid-params", "emu.job_start", id="x", kind="mirror", disk="disk0")
            emulator.fails("not-found", "emu.job_start", id="x", kind="mirror", disk="disk0", target="/not/given",
                           format="raw")
            emulator.fails("not-found", "emu.disk_throttle", disk="nodisk")
            emulator.fails("invalid-params", "emu.disk_throttle", disk="disk0",
                           throttle={"total_iops_sec": 5, "read_iops_sec": 5})
            emulator.call("emu.disk_throttle", disk="disk0", throttle={"total_iops_sec": 5, "group_name": "g"})
            seen = emulator.call("emu.blocks")["blocks"][0]["throttle"]
            tap.check(seen["total_iops_sec"] == 5 and seen["group_name"] == "g", f"{seen}")
            tap.check(emulator.call("emu.jobs")["jobs"] == [], "it has jobs")
        same(daemon, client, want, paths[2])


def an_emulator_without_a_disk_of_that_name_says_so():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        paths, want = chain(daemon)
        running(daemon, client, paths[2])
        with lib.Client(os.path.join(daemon.dir, "run", "vm", "1", "control")) as emulator:
            action = {"act": "bitmap-add", "disk": "nodisk", "name": "b"}
            emulator.fails("not-found", "emu.disk_actions", actions=[action])
            tap.check(emulator.call("emu.disk_bitmaps")["bitmaps"] == [], "it has bitmaps")
            tap.check(emulator.call("emu.disk_snapshots")["snapshots"] == [], "it has snapshots")
            emulator.fails("not-found", "emu.disk_snapshot_delete", name="s")
            tap.check(emulator.call("emu.exports") == {"serving": False, "exports": []}, "it exports something")
            emulator.fails("bad-state", "emu.export_add", disk="disk0", name="e")
            emulator.fails("bad-state", "emu.export_remove", name="e")
            emulator.fails("invalid-params", "emu.export_start")
            emulator.call("emu.export_stop")
        same(daemon, client, want, paths[2])


def until(q, name):
    """Events up to that one, with their names and states, none twice."""
    out = []
    while True:
        for event in q.events:
            tap.check(event["data"].get("id", event["data"].get("device")) in ("b", "m", "disk0"), f"{event}")
            out.append(event["data"]["status"] if event["event"] == "JOB_STATUS_CHANGE" else event["event"])
            if event["event"] == name or event["event"] == "JOB_STATUS_CHANGE" and event["data"]["status"] == name:
                q.events.clear()
                return out
        q.events.clear()
        q.events.append(q.read())


@tap.local("a VM's own QMP socket")
def qmp_begins_and_ends_block_jobs_as_qemu_does():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        paths, want = chain(daemon)
        copy = os.path.join(daemon.dir, "copy.qcow2")
        running(daemon, client, paths[2])
        with daemon.qmp("a", timeout=TIMEOUT) as q:
            q.execute("drive-backup", job_id="b", device="disk0", target=copy + ".raw", sync="full", format="raw")
            order = until(q, "null")
            tap.check(order[-5:] == ["waiting", "pending", "BLOCK_JOB_COMPLETED", "concluded", "null"], f"{order}")
            qemu_img("compare", "-f", "raw", "-F", "raw", want, copy + ".raw")
            q.execute("drive-backup", device="disk0", target=copy + ".raw", sync="full", format="raw")
            order = until(q, "null")  # the file is there
            tap.check(order[-4:] == ["aborting", "BLOCK_JOB_COMPLETED", "concluded", "null"], f"{order}")
            q.execute("drive-mirror", job_id="m", device="disk0", target=copy, sync="full", format="qcow2", speed=4096)
            q.fails("GenericError", "drive-mirror", job_id="m", device="disk0", target=copy, sync="full")
            until(q, "running")
            job, = q.execute("query-block-jobs")
            tap.check((job["device"], job["type"], job["ready"]) == ("m", "mirror", False), f"{job}")
            tap.check(q.execute("query-jobs")[0]["id"] == "m", "it is not listed")
            q.execute("block-job-pause", device="m")
            until(q, "paused")
            q.execute("job-resume", id="m")
            until(q, "running")
            q.execute("block-job-set-speed", device="m", speed=0)
            order = until(q, "BLOCK_JOB_READY")
            tap.check(order[-2:] == ["ready", "BLOCK_JOB_READY"], f"{order}")
            q.execute("block-job-complete", device="m")
            order = until(q, "null")
            tap.check(order[-5:] == ["waiting", "pending", "BLOCK_JOB_COMPLETED", "concluded", "null"], f"{order}")
            tap.check(q.execute("query-block")[0]["inserted"]["file"] == copy, "it goes on with the old image")
            q.execute("drive-mirror", device="disk0", target=copy + "2", sync="full", speed=4096)
            until(q, "running")
            q.execute("block-job-cancel", device="disk0", force=True)
            order = until(q, "null")
            tap.check(order[-4:] == ["aborting", "BLOCK_JOB_CANCELLED", "concluded", "null"], f"{order}")
            tap.check(q.execute("query-block-jobs") == [], "a job is left")
        same(daemon, client, want, copy)


CASES = [qmp_begins_and_ends_block_jobs_as_qemu_does, an_emulator_refuses_jobs_that_make_no_sense,
         an_emulator_without_a_disk_of_that_name_says_so, a_mirror_takes_the_disks_place,
         a_backup_is_what_the_disk_reads_as, a_pull_makes_the_disk_stand_alone,
         a_copy_that_a_disk_goes_on_with_is_its_own, a_commit_goes_on_with_the_base, a_commit_below_the_disk_shortens_the_chain,
         a_job_goes_on_when_the_daemon_is_killed,
         a_daemon_killed_before_the_definition_is_durable_has_it_follow_later,
         a_definition_follows_although_emulator_and_daemon_died, a_definition_follows_although_the_emulator_died_untold,
         an_emulator_that_died_before_the_swap_leaves_the_definition, a_job_that_nobody_follows_is_dropped,
         an_emulator_that_names_another_image_is_not_believed]

if __name__ == "__main__":
    if not shutil.which("qemu-img"):
        print("skipped: qemu-img was not found (Debian: qemu-utils)")
        sys.exit(77)
    sys.exit(tap.run_cases(CASES))
