# SPDX-License-Identifier: Apache-2.0
"""Media of drives under Debian's kernel: discs come, change and go at virtio-scsi and AHCI, by JSON-RPC, QMP, vmctl and virsh; trays are
opened and closed by the guest (util-linux's eject) and from outside, locked ones are asked for and forced. What the guest reads is compared
each time, and what everybody is told.

Needs the guests riscv64-storage and riscv64-eject (tests/guests/fetch), used when they are in the cache, fetched when VMD_TEST_STORAGE=1.
"""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import guest_disks  # noqa: E402
import guest_shell  # noqa: E402
import newc  # noqa: E402
import tap  # noqa: E402

LIMIT = 600.0  # of patience, nothing is measured
MIB = 1 << 20
LIBRARIES = "usr/lib/riscv64-linux-gnu"
NEEDED = ("libmount.so.1", "libblkid.so.1", "libselinux.so.1", "libpcre2-8.so.0", "libc.so.6", "ld-linux-riscv64-lp64d.so.1")
DRIVES = ("scsi", "sata")


def initrd(folder):
    """The guest's archive, and behind it one with eject and what it is linked with."""
    have, tree = guest_disks.fetched("riscv64-storage"), guest_disks.fetched("riscv64-eject")["eject"]
    archive, seen = newc.Newc(), set()
    for name in ("usr/bin/eject", *(f"{LIBRARIES}/{n}" for n in NEEDED)):
        parts = name.split("/")
        for n in range(1, len(parts)):
            if "/".join(parts[:n]) not in seen:
                seen.add("/".join(parts[:n]))
                archive.folder("/".join(parts[:n]))
        with open(os.path.realpath(os.path.join(tree, name)), "rb") as file:
            archive.file(name, file.read(), 0o755)
    path = os.path.join(folder, "initrd")
    with open(have["initrd"], "rb") as file:
        first = file.read()
    with open(path, "wb") as file:
        file.write(first + b"\0" * (-len(first) % 512) + archive.bytes())
    return have["kernel"], path


def disc(folder, name, size):
    """A file system with one file in it, and how it begins."""
    tree, path = os.path.join(folder, name + ".d"), os.path.join(folder, name + ".img")
    os.makedirs(tree)
    with open(os.path.join(tree, "name"), "w", encoding="ascii") as file:
        file.write(name + "\n")
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext2", "-b", "4096", "-d", tree, path, f"{size >> 10}k"], check=True, capture_output=True)
    with open(path, "rb") as file:
        return path, size, hashlib.sha256(file.read(MIB)).hexdigest()


class Machine(guest_shell.Shell):
    limit = LIMIT
    between = "\n"

    def __init__(self):
        self.daemon = lib.Daemon()
        self.daemon.__enter__()
        self.client = self.daemon.client(LIMIT)
        kernel, archive = initrd(self.daemon.dir)
        self.discs = {n: disc(self.daemon.dir, n, s * MIB) for n, s in (("one", 4), ("two", 8), ("three", 6))}
        self.client.call("vm.define", config={
            "name": "a", "kernel": kernel, "initrd": archive, "memory": 512 << 20, "append": "console=ttyS0 vmd.virtio vmd.run=shell",
            "disks": [{"file": self.discs["one"][0], "name": "scsi", "bus": "scsi", "cdrom": True},
                      {"name": "sata", "bus": "sata", "cdrom": True}]})
        self.client.call("vm.start", vm="a")
        self.console = socket.socket(socket.AF_UNIX)
        self.console.connect(self.client.call("vm.console", vm="a")["path"])
        self.expect("guest# ")
        self.run("stty -echo; PS1= PS2=")
        self.run("for n in ld-linux-riscv64-lp64d.so.1; do mkdir -p /lib; ln -sf /usr/lib/riscv64-linux-gnu/$n /lib/$n; done; "
                 "export LD_LIBRARY_PATH=/usr/lib/riscv64-linux-gnu; mkdir -p /mnt; "
                 "echo 0 >/proc/sys/dev/cdrom/autoclose")  # who opens a drive to look at it does not close it
        self.qmp = self.daemon.qmp("a", timeout=LIMIT)
        text = self.run("for b in /sys/block/sr*; do echo ${b##*/} $(readlink -f $b/device); done")
        self.dev = {"sata" if "/ata" in line else "scsi": line.split()[0] for line in text.replace("\r", "").split("\n") if line.startswith("sr")}
        tap.check(set(self.dev) == set(DRIVES), f"drives: {text}")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.qmp.close()
        self.console.close()
        self.client.close()
        self.daemon.__exit__(*exc)

    def execute(self, command, **arguments):
        reply = self.qmp.execute(command, **arguments)
        return reply

    def vmctl(self, *words):
        done = subprocess.run([os.path.join(lib.BUILD, "vmctl"), "--dir", self.daemon.dir, *words], capture_output=True, text=True,
                              timeout=LIMIT, check=False)
        tap.check(done.returncode == 0, f"vmctl {words}: {done.returncode} {done.stderr}")
        return done.stdout

    def virsh(self, *words):
        done = subprocess.run(["virsh", "-q", "-c", f"qemu+unix:///system?socket={self.daemon.dir}/run/libvirt-sock", *words],
                              capture_output=True, text=True, timeout=LIMIT, check=False)
        tap.check(done.returncode == 0, f"virsh {words}: {done.stderr}")
        return done.stdout

    # --- what everybody sees ---

    def block(self, drive):
        return next(b for b in self.execute("query-block") if b["device"] == drive)

    def moved(self, drive, *states):
        """The next events of that drive."""
        for open_ in states:
            event = self.qmp.event("DEVICE_TRAY_MOVED")["data"]
            tap.check((event["device"], event["tray-open"]) == (drive, open_), f"{event}, not {drive} {open_}")
        tap.check(self.block(drive)["tray_open"] == states[-1], f"{drive}: {self.block(drive)}")

    def shows(self, drive, name):
        """The guest reads that disc from its begin and from its end; None: it has none. The host says the same."""
        dev, b = self.dev[drive], self.block(drive)
        defined = next(d for d in self.client.call("vm.get", vm="a")["config"]["disks"] if d["name"] == drive)
        if name is None:
            tap.check("NONE" in self.run(f"dd if=/dev/{dev} of=/dev/null bs=2048 count=1 2>/dev/null && echo SOME || echo NONE"), f"{drive}: a disc")
            tap.check("inserted" not in b and "file" not in defined, f"{b} {defined}")
            return
        path, size, digest = self.discs[name]
        shown = self.run(f"dd if=/dev/{dev} bs=64k count=16 2>/dev/null | sha256sum; echo SIZE=$(cat /sys/block/{dev}/size)=; "
                         f"dd if=/dev/{dev} of=/dev/null bs=2048 skip={size // 2048 - 1} 2>&1 | head -1")
        tap.check(digest in shown and f"SIZE={size // 512}=" in shown and "1+0" in shown, f"{drive}, not {name}: {shown}")
        tap.check(b["inserted"]["image"]["filename"] == path == defined["file"], f"{b} {defined}")

    def refused(self, method, **params):
        try:
            self.client.call(method, **params)
        except lib.CallError as error:
            return error
        tap.check(False, f"{method} {params} is refused")
        return None


def by_json(m, drive, name):
    if name:
        m.client.call("disk.insert", vm="a", disk=drive, file=m.discs[name][0])
    else:
        m.client.call("disk.eject", vm="a", disk=drive)


def by_qmp(m, drive, name):
    if name:
        m.execute("blockdev-change-medium", device=drive, filename=m.discs[name][0], format="raw")
    else:
        m.execute("eject", device=drive)


def by_vmctl(m, drive, name):
    m.vmctl(*(("insert", "a", drive, m.discs[name][0]) if name else ("eject", "a", drive)))


def discs_come_change_and_go_by_each_way():
    done = 0
    with Machine() as m:
        m.shows("scsi", "one")
        m.shows("sata", None)
        tap.check(not m.block("sata")["tray_open"], "it is closed at the start")
        m.client.call("disk.eject", vm="a", disk="scsi")
        m.moved("scsi", True)
        for drive in DRIVES:
            tray = drive == "scsi"
            for way in (by_json, by_qmp, by_vmctl):
                way(m, drive, "two")
                m.moved(drive, *((False,) if tray else (True, False)))
                m.shows(drive, "two")
                way(m, drive, "three")  # in its place
                m.moved(drive, True, False)
                m.shows(drive, "three")
                way(m, drive, None)
                m.moved(drive, True)
                m.shows(drive, None)
                tray = True
                done += 3
        # In QEMU's single steps, with a node of its own.
        m.execute("blockdev-add", **{"driver": "raw", "node-name": "disc", "file": {"driver": "file", "filename": m.discs["one"][0]}})
        m.execute("blockdev-insert-medium", id=m.block("sata")["qdev"], **{"node-name": "disc"})
        tap.check(m.block("sata")["tray_open"] and m.block("sata")["inserted"], "it lies in the open tray")
        m.execute("blockdev-close-tray", device="sata")
        m.moved("sata", False)
        m.shows("sata", "one")
        error = m.qmp.fails("GenericError", "blockdev-remove-medium", device="sata")
        tap.check("not open" in error, str(error))
        m.execute("blockdev-open-tray", device="sata")
        m.moved("sata", True)
        m.execute("blockdev-remove-medium", device="sata")
        m.shows("sata", None)
        # What is no drive, no disc, and no file.
        tap.check(m.refused("disk.insert", vm="a", disk="none", file=m.discs["one"][0]).error == "not-found", "no disk")
        tap.check(m.refused("disk.insert", vm="a", disk="sata", file="/nowhere.iso").error == "file-error", "no file")
        tap.check(m.refused("disk.insert", vm="a", disk="sata").error == "invalid-params", "nothing")
        empty = os.path.join(m.daemon.dir, "empty.img")
        with open(empty, "wb"):
            pass
        tap.check("empty" in m.refused("disk.insert", vm="a", disk="sata", file=empty).message, "an empty file")
        m.shows("sata", None)
        print(f"# {done} changes by JSON-RPC, QMP and vmctl, each read by the guest", flush=True)


def the_guest_moves_its_tray():
    with Machine() as m:
        for drive in DRIVES:
            dev = m.dev[drive]
            if drive == "sata":
                by_json(m, drive, "two")
                m.moved(drive, True, False)
            name = "one" if drive == "scsi" else "two"
            for _ in range(3):
                m.run(f"eject /dev/{dev}")
                m.moved(drive, True)
                tap.check("inserted" in m.block(drive), "the disc lies in the open tray")
                tap.check("tray='open'" in m.client.call("xml.get", vm="a")["xml"], "the XML tells")
                tap.check("NONE" in m.run(f"dd if=/dev/{dev} of=/dev/null bs=2048 count=1 2>/dev/null && echo SOME || echo NONE"), "it cannot be read")
                m.run(f"eject -t /dev/{dev}")
                m.moved(drive, False)
                tap.check("tray='open'" not in m.client.call("xml.get", vm="a")["xml"], "the XML tells")
                m.shows(drive, name)
            m.vmctl("tray", "a", drive, "open")
            m.moved(drive, True)
            m.run(f"eject -t /dev/{dev}")
            m.moved(drive, False)
            m.shows(drive, name)
        reasons = [e["reason"] for e in m.client.call("event.list", types=["vm-tray"])["events"]]
        tap.check(reasons.count("opened") == reasons.count("closed") == 9, str(reasons))


def asked(m, sg):
    """What GET EVENT STATUS NOTIFICATION tells of the medium: the event."""
    text = m.run(f"sg_raw -r 8 /dev/{sg} 4a 01 00 00 10 00 00 00 08 00 2>&1")
    row = next(line for line in text.split("\n") if line.strip().startswith("00"))
    return int(row.split()[5], 16) & 15


def a_locked_tray_is_asked_for_and_forced():
    with Machine() as m:
        by_json(m, "sata", "two")
        m.moved("sata", True, False)
        for drive, name in (("scsi", "one"), ("sata", "two")):
            dev = m.dev[drive]
            sg = m.run(f"ls /sys/block/{dev}/device/scsi_generic").strip().split()[-1]
            m.shows(drive, name)
            m.run(f"mount -o ro -t ext2 /dev/{dev} /mnt")
            tap.check(m.block(drive)["locked"], "what is mounted is locked")
            asked(m, sg)
            error = m.refused("disk.eject", vm="a", disk=drive, timeout_ms=1)
            tap.check(error.error == "busy" and "locked" in error.message and not m.block(drive)["tray_open"], str(error))
            tap.check(asked(m, sg) == 1, "the guest is asked to eject")
            tap.check(asked(m, sg) == 0, "once")
            error = m.qmp.fails("GenericError", "eject", device=drive)
            tap.check("locked" in error, str(error))
            m.execute("blockdev-open-tray", device=drive)  # asks, which is no error
            tap.check(asked(m, sg) == 1 and not m.block(drive)["tray_open"], "asked again")
            # It lets go while somebody waits.
            result = []
            client = m.daemon.client(LIMIT)
            waits = threading.Thread(target=lambda c=client, d=drive, r=result: r.append(
                c.call("disk.insert", vm="a", disk=d, file=m.discs["three"][0], timeout_ms=15000)))
            waits.start()
            m.run(f"until sg_raw -r 8 /dev/{sg} 4a 01 00 00 10 00 00 00 08 00 2>&1 | grep -q '^ *00 .* .1 '; do sleep 0.05; done; "
                  f"umount /mnt; eject /dev/{dev}")
            waits.join(LIMIT)
            client.close()
            tap.check(result == [{}], f"waiting: {result}")
            m.moved(drive, True, False)
            m.shows(drive, "three")
            # By force.
            m.run(f"mount -o ro -t ext2 /dev/{dev} /mnt")
            m.vmctl("eject", "a", drive, "--force")
            m.moved(drive, True)
            tap.check("FAILS" in m.run("echo 3 >/proc/sys/vm/drop_caches; cat /mnt/name 2>/dev/null || echo FAILS"), "it is gone")
            m.run("umount /mnt")
            m.shows(drive, None)


def emulator_call(sock, answers, method, *fds, **params):
    """A call by the emulator's own socket, past the daemon's turns. Trays that move are told in between."""
    socket.send_fds(sock, [json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n"], fds)
    return next(a for a in map(json.loads, answers) if a.get("id") == 1)


def what_began_while_a_tray_was_waited_for_keeps_its_medium():
    with Machine() as m:
        dev = m.dev["scsi"]
        m.run(f"mount -o ro -t ext2 /dev/{dev} /mnt")
        paths = [os.path.join(root, n) for root, _, names in os.walk(os.path.join(m.daemon.dir, "run", "vm")) for n in names if n.startswith("control")]
        with contextlib.ExitStack() as open_:
            waiter, other = (open_.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
            for sock in (waiter, other):
                sock.settimeout(LIMIT)
                sock.connect(paths[0])
            files = [open_.enter_context(sock.makefile("r", encoding="utf-8")) for sock in (waiter, other)]
            for file in files:
                file.readline()
            target = open_.enter_context(open(os.path.join(m.daemon.dir, "copy.img"), "w+b"))
            target.truncate(m.discs["one"][1])
            waiter.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "emu.disk_medium",
                                       "params": {"disk": "scsi", "wait_ms": 15000}}).encode() + b"\n")
            answer = emulator_call(other, files[1], "emu.file_add", target.fileno(), path=target.name)
            tap.check("result" in answer, f"{answer}")
            answer = emulator_call(other, files[1], "emu.job_start", id="slow", kind="backup", disk="scsi", target=target.name,
                                   format="raw", speed=1)
            tap.check("result" in answer, f"{answer}")
            m.run(f"umount /mnt; eject /dev/{dev}")
            answer = next(a for a in map(json.loads, files[0]) if a.get("id") == 1)
            tap.check(answer.get("error", {}).get("data", {}).get("error") == "busy" and "block job" in answer["error"]["message"], f"{answer}")
            tap.check("inserted" in m.block("scsi"), "the disc is gone from under the job")


def drives_are_what_the_definition_says_next_time():
    with Machine() as m:
        m.run("eject /dev/" + m.dev["scsi"])
        m.moved("scsi", True)
        m.daemon.terminate()
        m.daemon.start()  # the emulator runs on
        m.client.close()
        m.client = m.daemon.client(LIMIT)
        lib.wait_for(lambda: m.client.call("vm.get", vm="a")["state"] == "running", LIMIT, "taken up")
        tap.check("tray='open'" in m.client.call("xml.get", vm="a")["xml"], "the new daemon knows")
        m.qmp.close()
        m.qmp = m.daemon.qmp("a", timeout=LIMIT)
        m.client.call("disk.insert", vm="a", disk="sata", file=m.discs["two"][0], config=True)
        tap.check("inserted" not in m.block("sata"), "only the definition has it")
        m.client.call("vm.stop", vm="a", force=True)
        m.client.call("disk.eject", vm="a", disk="scsi")
        disks = {d["name"]: d.get("file") for d in m.client.call("vm.get", vm="a")["config"]["disks"]}
        tap.check(disks == {"scsi": None, "sata": m.discs["two"][0]}, str(disks))
        tap.check(m.refused("disk.tray", vm="a", disk="scsi", tray="open").error == "bad-state", "it does not run")


def virsh_changes_media():
    if not shutil.which("virsh"):
        raise tap.Skip("virsh (Debian: libvirt-clients)")
    with Machine() as m:
        with subprocess.Popen(["virsh", "-q", "-c", f"qemu+unix:///system?socket={m.daemon.dir}/run/libvirt-sock", "event", "a", "--event",
                               "tray-change", "--loop", "--timeout", str(int(LIMIT))], stdout=subprocess.PIPE, text=True) as told:
            lib.wait_for(lambda: "tray-change" in m.virsh("event", "--list"), LIMIT, "virsh")
            target = next(w[0] for w in (line.split() for line in m.virsh("domblklist", "a").split("\n")) if w and m.discs["one"][0] in w)
            m.virsh("change-media", "a", target, "--eject")
            m.moved("scsi", True)
            m.shows("scsi", None)
            m.virsh("change-media", "a", target, m.discs["two"][0], "--insert")
            m.moved("scsi", False)
            m.shows("scsi", "two")
            m.virsh("change-media", "a", target, m.discs["three"][0], "--update", "--live")
            m.moved("scsi", True, False)
            m.shows("scsi", "three")
            m.run(f"mount -o ro -t ext2 /dev/{m.dev['scsi']} /mnt")
            m.virsh("change-media", "a", target, "--eject", "--force")
            m.moved("scsi", True)
            m.run("umount /mnt")
            m.shows("scsi", None)
            told.terminate()
            text = told.communicate(timeout=LIMIT)[0]
        tap.check(text.count("opened") + text.count("open") >= 1 and "tray-change" in text, text)
        with open(os.path.join(m.daemon.dir, "b.xml"), "w", encoding="utf-8") as file:
            file.write(m.client.call("xml.get", vm="a")["xml"])
        again = m.client.call("xml.get", vm="a")["xml"]
        tap.check("tray='open'" in again and again.count("<source ") == 0, again)


if __name__ == "__main__":
    sys.exit(tap.run_cases([discs_come_change_and_go_by_each_way, the_guest_moves_its_tray, a_locked_tray_is_asked_for_and_forced,
                            what_began_while_a_tray_was_waited_for_keeps_its_medium, drives_are_what_the_definition_says_next_time, virsh_changes_media]))
