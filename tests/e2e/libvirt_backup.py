#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Backups of a VM whose guest writes all the time (disk_guest.c), read by NBD or copied to files: each holds one instant, also what is read
late, and what changed since a checkpoint completes the backup before. virtnbdbackup and virsh drive them, and our own calls. Who dies
meanwhile loses nothing: daemon, emulator, client; nor does a full file hurt the VM."""

import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(TOP / "tests/lib"), str(TOP / "tests/e2e")]

import tap  # noqa: E402
from daemon_lib import CallError, wait_for  # noqa: E402
from libvirt_virsh import Host  # noqa: E402

CC = "riscv64-linux-gnu-gcc"
MIB = 1 << 20
SIZE, STEP, BLOCK = 16 * MIB, 65536, 4096
FACTOR = 0x9E3779B97F4A7C15


def tool(*words, check=True):
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    if check:
        tap.check(done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-3000:]}")
    return done


def need(*commands):
    packages = {CC: "gcc-riscv64-linux-gnu", "qemu-img": "qemu-utils", "nbdcopy": "libnbd-bin", "virtnbdbackup": "virtnbdbackup"}
    for command in commands:
        if not shutil.which(command):
            raise tap.Skip(f"{command} (Debian: {packages[command]})")


class Writer(Host):
    """A VM 'a' whose guest writes the first half of its disk vda, pass by pass; vdb is another of which nothing changes."""

    def __init__(self):
        need(CC, "qemu-img", "nbdcopy")
        super().__init__()

    def __enter__(self):
        super().__enter__()
        try:
            self.run_guest()
        except BaseException:
            self.__exit__()
            raise
        return self

    def run_guest(self):
        firmware = self.file_at("writer.bin")
        elf = self.file_at("writer.elf")
        tool(CC, "-march=rv64gc", "-mabi=lp64d", "-mcmodel=medany", "-O2", "-ffreestanding", "-nostdlib", "-static", "-no-pie", "-fno-pic",
             "-Wl,--build-id=none,--no-relax,-Ttext=0x80000000,-e,_start", "-o", elf, str(TOP / "tests/e2e/disk_guest.c"))
        tool("riscv64-linux-gnu-objcopy", "-O", "binary", elf, firmware)
        tool("qemu-img", "create", "-q", "-f", "qcow2", self.file_at("a.qcow2"), str(SIZE))
        config = self.d.config("a", disks=[{"name": "vda", "file": self.file_at("a.qcow2"), "format": "qcow2"}])
        config["firmware"] = firmware
        self.d.call("vm.define", config=config)
        self.d.call("vm.start", vm="a")
        self.passes(2)

    def file_at(self, name):
        return os.path.join(self.d.dir, name)

    def written(self):
        return self.d.call("vm.stats", vm="a")["vms"][0]["stats"]["disks"][0]["written_bytes"]

    def passes(self, n):
        """The guest writes on, all of its half n times."""
        start, one = self.written(), SIZE // 2 // STEP * BLOCK
        wait_for(lambda: self.written() >= start + n * one, 300, "the guest writes")

    def begin(self, **more):
        return self.d.call("backup.begin", vm="a", **more)

    def refused(self, code, method, **params):
        with self.d.client() as client:
            return client.fails(code, method, **params)

    def fetch(self, name="all.raw", export="vda"):
        """What a client reads."""
        path = self.file_at(name)
        if os.path.exists(path):
            os.unlink(path)
        tool("nbdcopy", self.d.call("backup.get", vm="a")["uri"].replace("/?", f"/{export}?"), path)
        return path

    def dirty(self, name, export="vda"):
        """[(offset, length)] that a bitmap's context tells."""
        uri = self.d.call("backup.get", vm="a")["uri"].replace("/?", f"/{export}?")
        rows = [row.split() for row in tool("nbdinfo", f"--map=qemu:dirty-bitmap:{name}", uri).stdout.splitlines()]
        return [(int(row[0]), int(row[1])) for row in rows if row[2] == "1"]

    def end(self, begun=True):
        self.d.call("backup.end", vm="a")
        tap.check(not [f for f in os.listdir(self.d.dir) if "backup-" in f], "a file is left")
        self.refused("not-found", "backup.get", vm="a")
        if begun:
            self.passes(1)


def flat(path):
    """The bytes of a qcow2 image."""
    tool("qemu-img", "convert", "-O", "raw", path, path + ".flat")
    try:
        return pathlib.Path(path + ".flat").read_bytes()
    finally:
        os.unlink(path + ".flat")


def instant(data):
    """The guest's pass and place at the instant that is held: blocks of pass p, then from one place on those of pass p - 1."""
    passes = []
    for at in range(0, SIZE // 2, STEP):
        words = struct.unpack(f"<{BLOCK // 8}Q", data[at:at + BLOCK])
        p = (words[0] - at * FACTOR) % (1 << 64)
        tap.check(all(w == ((at + i * 8) * FACTOR + p) % (1 << 64) for i, w in enumerate(words)), f"the block at {at} is torn")
        passes.append(p)
    tap.check(passes == sorted(passes, reverse=True) and passes[0] - passes[-1] <= 1, f"no instant: {passes}")
    return passes[0], passes.index(passes[-1]) if passes[0] != passes[-1] else 0


def clients_read_one_instant_while_the_guest_writes():
    with Writer() as v:
        told = v.begin(checkpoint="one")
        tap.check(told["mode"] == "pull" and told["disks"][0]["export"] == "vda", str(told))
        v.passes(2)
        first = pathlib.Path(v.fetch()).read_bytes()
        v.passes(2)
        tap.check(pathlib.Path(v.fetch()).read_bytes() == first, "what is read later differs")
        instant(first)
        tap.check(first[SIZE // 2:] == bytes(SIZE // 2), "the half that is empty")
        v.refused("busy", "backup.begin", vm="a")
        uri = v.d.call("backup.get", vm="a")["uri"].replace("/?", "/vda?")
        done = tool("qemu-io", "-f", "raw", "-c", "write 0 4k", uri, check=False)
        tap.check(done.returncode != 0, "a client has written")
        tap.check(v.d.call("disk.exports", vm="a")["exports"][0]["backup"], "an export of a backup is told as one")
        v.end()


def what_changed_completes_the_backup_before():
    with Writer() as v:
        v.begin(checkpoint="one")
        data = bytearray(pathlib.Path(v.fetch()).read_bytes())
        v.end()
        for name, since in (("two", "one"), ("three", "two")):
            v.begin(checkpoint=name, incremental=since)
            v.passes(1)
            ranges = v.dirty(since)
            tap.check(sum(n for _, n in ranges) == SIZE // 2, f"dirty: {ranges}")
            tap.check(v.refused("busy", "checkpoint.delete", vm="a", name=since), "its bitmap is in use")
            whole = pathlib.Path(v.fetch()).read_bytes()
            v.passes(1)
            tap.check(v.dirty(since) == ranges, "the bitmap goes on recording for clients")
            for at, n in ranges:
                data[at:at + n] = whole[at:at + n]
            tap.check(bytes(data) == whole, "full and incremental together")
            instant(whole)
            v.end()
        v.d.call("vm.pause", vm="a")
        v.begin(checkpoint="four", disks=[{"disk": "vda", "export": "x"}])
        v.end(False)
        v.begin(incremental="four", disks=[{"disk": "vda", "export": "x", "bitmap": "b"}])
        tap.check(v.dirty("b", "x") == [], "nothing has changed")
        v.end(False)
        v.d.call("vm.resume", vm="a")
        for name in ("one", "two", "three", "four"):
            v.d.call("checkpoint.delete", vm="a", name=name)
        tap.check(v.d.call("disk.bitmaps", vm="a")["bitmaps"] == [], "bitmaps")


def over(v):
    return not v.d.call("job.list", active=True)["jobs"]


def files_get_what_changed():
    with Writer() as v:
        v.begin(mode="push", checkpoint="one", disks=[{"disk": "vda", "file": v.file_at("full")}])
        wait_for(lambda: over(v), 300, "the copy")
        instant(flat(v.file_at("full")))
        v.passes(1)
        v.d.call("vm.pause", vm="a")
        v.begin(mode="push", incremental="one", disks=[{"disk": "vda", "file": v.file_at("inc")}])
        wait_for(lambda: over(v), 300, "the copy")
        v.begin()
        whole = pathlib.Path(v.fetch()).read_bytes()
        v.end(False)
        tool("qemu-img", "rebase", "-u", "-F", "qcow2", "-b", v.file_at("full"), v.file_at("inc"))
        tap.check(flat(v.file_at("inc")) == whole, "full and incremental together")
        v.d.call("vm.resume", vm="a")
        v.begin(mode="push", speed=4096, disks=[{"disk": "vda", "file": v.file_at("slow")}])
        tap.check(v.d.call("backup.get", vm="a")["mode"] == "push", "it is told")
        v.d.call("backup.end", vm="a")
        tap.check(over(v), "it goes on")
        v.passes(1)


def virtnbdbackup_backs_up_and_restores():
    need("virtnbdbackup")
    with Writer() as v:
        out, restored = v.file_at("backup"), v.file_at("restored")
        uri = v.uri().replace("qemu+", "vmd+")  # of "qemu+" it wants a password

        def back_up(level):
            tool("virtnbdbackup", "-U", uri, "-d", "a", "-l", level, "-o", out, "-S", v.d.dir, "-f", v.file_at("nbd.sock"), "-n")

        def restore(*more):
            shutil.rmtree(restored, ignore_errors=True)
            tool("virtnbdrestore", "-U", uri, "-a", "restore", "-i", out, "-o", restored, "-n", "-f", v.file_at("restore.sock"), *more)
            return flat(os.path.join(restored, "a.qcow2"))

        back_up("full")
        instant(restore())
        v.passes(1)
        back_up("inc")
        instant(restore())
        v.passes(1)
        v.run("suspend", "a")
        back_up("inc")
        v.begin()
        now = pathlib.Path(v.fetch()).read_bytes()
        v.end(False)
        tap.check(restore() == now, "the bytes of the last incremental backup")
        tap.check(len(v.d.call("checkpoint.list", vm="a")["checkpoints"]) == 3, "checkpoints")
        v.run("resume", "a")
        shutil.rmtree(out)
        back_up("full")  # begins anew: its checkpoints go
        tap.check(len(v.d.call("checkpoint.list", vm="a")["checkpoints"]) == 1, "checkpoints")
        v.passes(1)
        instant(restore())


def virsh_pulls():
    with Writer() as v:
        sock = v.file_at("pull.sock")
        xml = v.file("b.xml", f"<domainbackup mode='pull'><server transport='unix' socket='{sock}'/><disks><disk name='vda' type='file'>"
                              f"<scratch file='{v.file_at('scratch')}'/></disk></disks></domainbackup>")
        point = v.file("c.xml", "<domaincheckpoint><name>c1</name></domaincheckpoint>")
        v.run("backup-begin", "a", xml, point)
        told = v.run("backup-dumpxml", "a")
        schema = tool("virt-xml-validate", v.file("t.xml", told), "domainbackup", check=False)
        tap.check(schema.returncode == 0, schema.stderr + told)
        for part in (f"socket='{sock}'", f"<scratch file='{v.file_at('scratch')}'/>", "exportname='vda'", "backupmode='full'"):
            tap.check(part in told, f"{part} is not in {told}")
        instant(pathlib.Path(v.fetch()).read_bytes())
        v.fails("under way", "backup-begin", "a", xml)
        v.run("domjobabort", "a")
        tap.check(not os.path.exists(sock) and not os.path.exists(v.file_at("scratch")), "files are left")
        v.fails("no backup", "backup-dumpxml", "a")
        tcp = ("<domainbackup mode='pull'><incremental>c1</incremental><server name='127.0.0.1' port='0'/>"
               "<disks><disk name='vda' exportbitmap='what'/></disks></domainbackup>")
        v.passes(1)
        v.run("backup-begin", "a", v.file("b2.xml", tcp))
        told = v.run("backup-dumpxml", "a")
        schema = tool("virt-xml-validate", v.file("t.xml", told), "domainbackup", check=False)
        tap.check(schema.returncode == 0, schema.stderr + told)
        uri = v.d.call("backup.get", vm="a")["uri"]
        rows = tool("nbdinfo", "--map=qemu:dirty-bitmap:what", uri + "vda").stdout.split()
        tap.check(rows[:3] == ["0", str(SIZE // 2), "1"], str(rows))
        v.run("domjobabort", "a")
        for wrong, words in ((tcp.replace("c1", "none"), "no checkpoint"), (tcp.replace("127.0.0.1", "0.0.0.0"), "TLS"),
                             (tcp.replace("name='vda'", "name='vdx'"), "no disk"), (tcp.replace("'pull'", "'x'"), "mode"),
                             (tcp.replace("<disk name", "<disk backupmode='full' name"), "since the same checkpoint")):
            v.fails(words, "backup-begin", "a", v.file("w.xml", wrong))
        v.fails("already", "backup-begin", "a", v.file("b2.xml", tcp), point)  # a checkpoint of that name
        tap.check(over(v) and not v.d.call("disk.exports", vm="a")["serving"], "something is left of it")
        v.passes(1)


def who_dies_loses_nothing():
    with Writer() as v:
        v.begin(checkpoint="one", disks=[{"disk": "vda", "file": v.file_at("scratch")}])
        first = pathlib.Path(v.fetch()).read_bytes()
        v.d.kill()
        v.d.start()
        tap.check(v.d.call("backup.get", vm="a")["checkpoint"] == "one", "the backup is known")
        v.passes(1)
        tap.check(pathlib.Path(v.fetch()).read_bytes() == first, "the same instant")
        client = subprocess.Popen(["nbdcopy", v.d.call("backup.get", vm="a")["uri"].replace("/?", "/vda?"), v.file_at("half")])
        client.kill()
        client.wait()
        for pids in v.d.emulators().values():
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: v.d.call("vm.get", vm="a")["state"] in ("crashed", "stopped"), 60, "the emulator has ended")
        wait_for(lambda: not os.path.exists(v.file_at("scratch")), 60, "its file goes")
        v.refused("not-found", "backup.get", vm="a")
        v.d.call("vm.start", vm="a")
        v.passes(2)  # it begins anew, and reads right what it writes
        v.refused("not-found", "backup.begin", vm="a", incremental="one")  # the image was not closed: nobody knows what changed
        tap.check(not v.d.call("disk.exports", vm="a")["serving"], "a server is left")
        v.d.call("checkpoint.delete", vm="a", name="one")
        v.begin(checkpoint="two")
        v.d.kill()
        for pids in v.d.emulators().values():
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        v.d.start()  # both at once
        wait_for(lambda: not [f for f in os.listdir(v.d.dir) if "backup-" in f], 60, "its file goes")
        v.refused("not-found", "backup.get", vm="a")
        wait_for(lambda: tool("qemu-img", "check", "-q", v.file_at("a.qcow2"), check=False).returncode == 0, 60, "the image is whole and free")


def a_full_file_ends_the_backup_alone():
    small = os.path.join("/dev/shm", f"vmd-scratch-{os.getpid()}")
    with Writer() as v:
        # A raw file as large as the disk whose writes fail behind 1 MiB is made by the limit of a file system in a file.
        if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
            raise tap.Skip("a file system of our own (root, e2fsprogs)")
        folder, disk = v.file_at("small"), small
        os.mkdir(folder)
        try:
            with open(disk, "wb") as f:
                f.truncate(3 * MIB)
            tool("mkfs.ext4", "-q", "-F", "-O", "^has_journal", disk)
            if tool("mount", "-o", "loop", disk, folder, check=False).returncode != 0:
                raise tap.Skip("mount -o loop is refused here")
            try:
                v.begin(disks=[{"disk": "vda", "file": os.path.join(folder, "scratch")}])
                v.passes(2)
                wait_for(lambda: over(v), 300, "the backup ends by itself")
                tap.check([j["state"] for j in v.d.call("job.list")["jobs"]] == ["failed"], "its job has failed")
                wait_for(lambda: not os.path.exists(os.path.join(folder, "scratch")), 60, "its file goes")
                v.refused("not-found", "backup.get", vm="a")
                tap.check(v.d.call("vm.get", vm="a")["state"] == "running", "the VM")
                v.passes(2)
                v.begin()
                instant(pathlib.Path(v.fetch()).read_bytes())
                v.end()
            finally:
                tool("umount", "-l", folder)
        finally:
            if os.path.exists(disk):
                os.unlink(disk)


def what_cannot_be_is_refused():
    with Writer() as v:
        for code, more in (("not-found", {"incremental": "none"}), ("not-found", {"disks": [{"disk": "none"}]}),
                           ("invalid-params", {"mode": "push", "socket": v.file_at("s")}),
                           ("invalid-params", {"socket": v.file_at("s"), "host": "127.0.0.1"}),
                           ("exists", {"disks": [{"disk": "vda", "file": v.file_at("a.qcow2")}]}),
                           ("busy", {"disks": [{"disk": "vda"}, {"disk": "vda", "file": v.file_at("two")}]}),
                           ("file-error", {"tls": v.file_at("no-keys")}),
                           ("exists", {"checkpoint": "c", "checkpoint_disks": [{"disk": "vda"}, {"disk": "vda"}]})):
            v.refused(code, "backup.begin", vm="a", **more)
            tap.check(over(v) and not v.d.call("disk.exports", vm="a")["serving"], f"something is left of {more}")
        tap.check(v.d.call("disk.bitmaps", vm="a")["bitmaps"] == [], "a bitmap is left")
        tap.check(pathlib.Path(v.file_at("a.qcow2")).exists(), "the disk")
        v.refused("not-found", "backup.end", vm="a")
        v.d.call("disk.export_start", vm="a")
        v.refused("not-found", "disk.export_add", vm="a", disk="vda", name="x", backup=True)
        v.refused("exists", "backup.begin", vm="a")  # somebody serves already
        v.d.call("disk.export_stop", vm="a")
        v.begin(mode="push", disks=[{"disk": "vda", "file": v.file_at("copy")}])
        wait_for(lambda: over(v), 300, "the copy")
        v.passes(1)


CASES = (clients_read_one_instant_while_the_guest_writes, what_changed_completes_the_backup_before, files_get_what_changed,
         virtnbdbackup_backs_up_and_restores, virsh_pulls, who_dies_loses_nothing, a_full_file_ends_the_backup_alone,
         what_cannot_be_is_refused)

if __name__ == "__main__":
    try:
        sys.exit(tap.run_cases(CASES))
    except CallError as e:
        sys.exit(str(e))
