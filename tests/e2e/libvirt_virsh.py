#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""libvirt's own virsh (Debian: libvirt-clients) drives vmd: each command's effect is looked at by JSON-RPC, and what others do is
told to it. Frames that lie, by hand."""

import json
import os
import pathlib
import random
import re
import select
import shutil
import socket
import struct
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(TOP / "tests/lib"), str(TOP / "tests/e2e")]

import tap  # noqa: E402
from daemon_lib import CallError, Daemon, wait_for  # noqa: E402

UUID = "11111111-2222-3333-4444-555555555555"
REMOTE, KEEPALIVE = 0x20008086, 0x6b656570
HEAD = struct.Struct(">7I")


class Host:
    """A daemon, and virsh connected to it."""

    def __init__(self, readonly=False):
        if not shutil.which("virsh"):
            raise tap.Skip("virsh (Debian: libvirt-clients)")
        self.d = Daemon()
        if readonly:
            self.d.options += ["--libvirt-ro", self.path("-ro")]

    def __enter__(self):
        self.d.start()
        return self

    def __exit__(self, *_):
        self.d.end()

    def path(self, end=""):
        return os.path.join(self.d.dir, "run", "libvirt-sock" + end)

    def uri(self, end=""):
        return f"qemu+unix:///system?socket={self.path(end)}"

    def run(self, *words, end="", check=True, **more):
        """What virsh prints."""
        done = subprocess.run(["virsh", "-q", "-c", self.uri(end), *words], capture_output=True, text=True, timeout=120,
                              check=False, **more)
        if check:
            tap.check(done.returncode == 0, f"virsh {words}: {done.stderr}")
        return done.stdout if check else done

    def fails(self, pattern, *words, **more):
        done = self.run(*words, check=False, **more)
        tap.check(done.returncode != 0 and re.search(pattern, done.stderr), f"virsh {words}: {done}")

    def file(self, name, text):
        path = os.path.join(self.d.dir, name)
        pathlib.Path(path).write_text(text, encoding="utf-8")
        return path

    def domain(self, name="a", uuid=UUID, memory=64):
        """XML of a VM that loops."""
        return self.file(name + ".xml", f"<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>{memory}"
                         f"</memory><vcpu>2</vcpu><os><type arch='riscv64' machine='virt'>hvm</type><loader type='rom'>"
                         f"{self.d.guest()}</loader></os></domain>")

    def vm(self, name="a"):
        return self.d.call("vm.get", vm=name)


def lives_of_a_domain_are_virshs_to_lead():
    with Host() as h:
        h.run("define", h.domain())
        tap.check(h.vm()["uuid"] == UUID, "not defined")
        h.run("define", h.domain(memory=96))
        tap.check(h.vm()["memory"] == 96 << 20, "a second definition did not replace the first")
        h.fails("already", "define", h.domain("b", uuid=UUID))
        h.run("autostart", "a")
        tap.check(re.search(r"Autostart:\s+enable", h.run("dominfo", "a")), "autostart")
        h.run("start", "a")
        tap.check(h.vm()["state"] == "running", "not started")
        tap.check(h.run("domstate", "a", "--reason").strip() == "running (booted)", "domstate")
        h.run("suspend", "a")
        tap.check(h.vm()["state"] == "paused" and h.run("domstate", "a").strip() == "paused", "not paused")
        h.run("resume", "a")
        tap.check(h.vm()["state"] == "running", "not resumed")
        number = h.run("domid", "a").strip()
        tap.check(h.run("domname", number).strip() == "a" and h.run("domuuid", "a").strip() == UUID, "lookups")
        tap.check(f"id='{number}'" in h.run("dumpxml", "a") and "id=" not in h.run("dumpxml", "a", "--inactive").split("\n")[0], "ids")
        tap.check(json.loads(h.run("qemu-monitor-command", "a", '{"execute":"query-status"}'))["return"]["running"], "QMP")
        h.run("reset", "a")
        h.run("destroy", "a")
        tap.check(h.vm()["state"] == "stopped" and "destroyed" in h.run("domstate", "a", "--reason"), "not ended")
        h.run("domrename", "a", "b")
        h.run("undefine", "b")
        h.fails("failed to get domain 'b'", "dominfo", "b")
        tap.check(h.d.call("vm.list")["vms"] == [], "not undefined")


def a_domain_of_no_definition_goes_when_it_ends():
    with Host() as h:
        h.run("create", h.domain(), "--paused")
        info = h.vm()
        tap.check(info["transient"] and info["state"] == "paused", str(info))
        h.run("destroy", "a")
        wait_for(lambda: not h.d.call("vm.list")["vms"], what="that it goes")


def definitions_come_and_go_while_a_domain_runs():
    with Host() as h:
        h.run("create", h.domain())
        h.run("define", h.domain())
        tap.check(not h.vm()["transient"], "defining what runs did not keep it")
        h.run("destroy", "a")
        h.run("start", "a")
        h.run("undefine", "a")
        tap.check(h.vm()["transient"] and h.vm()["state"] == "running", "it does not run on without a definition")
        h.run("destroy", "a")
        wait_for(lambda: not h.d.call("vm.list")["vms"], what="that it goes")


def devices_come_and_go_by_their_xml():
    with Host() as h:
        disk = os.path.join(h.d.dir, "d.raw")
        with open(disk, "wb") as file:
            file.truncate(1 << 20)
        h.run("define", h.domain())
        h.run("attach-disk", "a", disk, "vdb", "--config", "--subdriver", "raw", "--targetbus", "virtio")
        tap.check("vdb" in h.run("domblklist", "a"), "the disk is not there")
        h.run("detach-disk", "a", "vdb", "--config")
        tap.check("vdb" not in h.run("domblklist", "a"), "the disk is still there")
        h.d.call("vm.set", vm="a", set={"root_ports": 2})
        h.run("start", "a")
        h.run("attach-disk", "a", disk, "vdc", "--live", "--subdriver", "raw")
        wait_for(lambda: [d["name"] for d in h.d.call("vm.stats", vm="a")["vms"][0]["stats"]["disks"]] == ["vdc"], what="the disk")
        h.fails("not supported|unknown", "attach-device", "a", h.file("tpm.xml", "<tpm model='tpm-crb'><backend type='emulator'/></tpm>"))


def virt_install_makes_a_domain():
    if not shutil.which("virt-install"):
        raise tap.Skip("virt-install (Debian: virtinst)")
    with Host() as h:
        disk = os.path.join(h.d.dir, "d.raw")
        with open(disk, "wb") as file:
            file.truncate(1 << 20)
        done = subprocess.run(["virt-install", "--connect", h.uri(), "--name", "v", "--arch", "riscv64", "--machine", "virt", "--memory", "32",
                               "--disk", f"path={disk},format=raw", "--import", "--osinfo", "generic", "--graphics", "none",
                               "--noautoconsole", "--network", "none", "--boot", f"loader={h.d.guest()},loader.type=rom"],
                              capture_output=True, text=True, timeout=300, check=False)
        tap.check(done.returncode == 0, done.stderr + done.stdout)
        tap.check(h.vm("v")["state"] == "running" and not h.vm("v")["transient"], str(h.vm("v")))
        caps = h.file("caps.xml", h.run("domcapabilities", "--arch", "riscv64"))
        schema = subprocess.run(["virt-xml-validate", caps, "domaincaps"], capture_output=True, text=True, check=False)
        tap.check(schema.returncode == 0, schema.stderr)


def what_is_made_elsewhere_is_seen():
    with Host() as h:
        for name in ("x1", "x2"):
            h.d.call("vm.define", config=h.d.config(name))
        h.d.call("vm.start", vm="x2")
        tap.check(h.run("list", "--name").split() == ["x2"], "running ones")
        tap.check(h.run("list", "--all", "--name").split() == ["x2", "x1"], "all")
        tap.check(h.run("list", "--inactive", "--name").split() == ["x1"], "the others")
        stats = h.run("domstats", "x2")
        tap.check("vcpu.maximum=" in stats and "balloon.maximum=" in stats and "state.state=1" in stats, stats)
        tap.check(h.run("domstats", "--list-running").count("Domain:") == 1, "domstats filters")


def networks_pools_and_volumes():
    with Host() as h:
        net = h.file("n.xml", "<network><name>n1</name><forward mode='nat'/><ip address='192.168.77.1' prefix='24'><dhcp>"
                     "<range start='192.168.77.2' end='192.168.77.9'/></dhcp></ip></network>")
        h.run("net-define", net)
        tap.check(h.d.call("network.get", network="n1")["state"] == "inactive", "a network starts by itself")
        h.run("net-autostart", "n1")
        h.run("net-start", "n1")
        tap.check(re.search(r"n1\s+active\s+yes\s+yes", h.run("net-list")), "net-list")
        h.run("net-destroy", "n1")
        h.run("net-undefine", "n1")
        folder = os.path.join(h.d.dir, "pool")
        os.mkdir(folder)
        h.run("pool-define-as", "p1", "dir", "--target", folder)
        h.run("pool-build", "p1")
        h.run("pool-start", "p1")
        h.run("pool-autostart", "p1")
        h.run("vol-create-as", "p1", "v.qcow2", "64M", "--format", "qcow2")
        path = h.run("vol-path", "v.qcow2", "p1").strip()
        tap.check(path == os.path.join(folder, "v.qcow2") and h.run("vol-key", path).strip() == path, path)
        tap.check(h.run("vol-pool", path).strip() == "p1", "vol-pool")
        h.run("vol-resize", "v.qcow2", "96M", "p1")
        tap.check(h.d.call("volume.get", pool="p1", volume="v.qcow2")["capacity"] == 96 << 20, "vol-resize")
        h.run("vol-delete", "v.qcow2", "p1")
        h.run("pool-refresh", "p1")
        h.run("pool-destroy", "p1")
        h.run("pool-undefine", "p1")
        tap.check(h.d.call("pool.list")["pools"] == [] and h.d.call("network.list")["networks"] == [], "left behind")


def snapshots_of_a_stopped_domain():
    if not shutil.which("qemu-img"):
        raise tap.Skip("qemu-img (Debian: qemu-utils)")
    with Host() as h:
        disk = os.path.join(h.d.dir, "d.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "8M"], check=True)
        h.d.call("vm.define", config=h.d.config("a", disks=[{"file": disk, "format": "qcow2"}]))
        h.run("snapshot-create-as", "a", "s1", "the first")
        h.run("snapshot-create-as", "a", "s2")
        tap.check(h.run("snapshot-list", "a", "--name").split() == ["s1", "s2"], "snapshot-list")
        tap.check(h.run("snapshot-current", "a", "--name").strip() == "s2", "snapshot-current")
        tap.check(h.run("snapshot-parent", "a", "s2").strip() == "s1", "snapshot-parent")
        tap.check("the first" in h.run("snapshot-dumpxml", "a", "s1"), "snapshot-dumpxml")
        h.run("snapshot-revert", "a", "s1")
        h.run("snapshot-delete", "a", "s2")
        tap.check([s["name"] for s in h.d.call("snapshot.list", vm="a")["snapshots"]] == ["s1"], "snapshot-delete")
        h.fails("snapshot", "snapshot-info", "a", "s2")
        h.run("start", "a", "--paused")  # memory in a file, as libvirt has it
        memory = os.path.join(h.d.dir, "s3.mem")
        h.run("snapshot-create-as", "a", "s3", "--memspec", f"file={memory},snapshot=external", "--diskspec", "vda,snapshot=no", "--live")
        text = h.run("snapshot-dumpxml", "a", "s3")
        tap.check("snapshot='external'" in text and memory in text and os.path.getsize(memory) > 0, text)
        h.run("snapshot-revert", "a", "s3")
        tap.check(h.run("domstate", "a").strip() == "paused", "it is gone back to")
        h.run("snapshot-delete", "a", "s3")
        tap.check(not os.path.exists(memory), "the file is left")


def streams_carry_consoles_volumes_and_pictures():
    with Host() as h:
        folder = os.path.join(h.d.dir, "pool")
        os.mkdir(folder)
        h.run("pool-define-as", "p1", "dir", "--target", folder)
        h.run("pool-start", "p1")
        h.run("vol-create-as", "p1", "v", "3M", "--format", "raw")
        data = random.Random(1).randbytes(3 << 20)
        up, down = os.path.join(h.d.dir, "up"), os.path.join(h.d.dir, "down")
        pathlib.Path(up).write_bytes(data)
        h.run("vol-upload", "v", up, "--pool", "p1")
        tap.check(pathlib.Path(folder, "v").read_bytes() == data, "another volume came up")
        h.run("vol-download", "v", down, "--pool", "p1")
        tap.check(pathlib.Path(down).read_bytes() == data, "another volume came down")
        h.run("vol-download", "v", down, "--pool", "p1", "--offset", "1048577", "--length", "70000")
        tap.check(pathlib.Path(down).read_bytes() == data[1048577:1118577], "another part came down")
        h.fails("volume", "vol-download", "none", down, "--pool", "p1")
        h.d.call("vm.define", config=h.d.config("a", firmware=h.d.guest("talks", b"spoken "), display={}))
        h.run("start", "a")
        h.run("screenshot", "a", down)
        tap.check(pathlib.Path(down).read_bytes().startswith(b"\x89PNG"), "no picture")
        master, slave = os.openpty()
        console = subprocess.Popen(["virsh", "-c", h.uri(), "console", "a"], stdin=slave, stdout=slave, stderr=slave,
                                   start_new_session=True)
        os.close(slave)
        try:
            seen = b""
            while seen.count(b"spoken ") < 3:
                ready, _, _ = select.select([master], [], [], 60)
                tap.check(ready, f"virsh console prints {seen!r}")
                seen += os.read(master, 4096)
            os.write(master, b"\x1d")  # Ctrl-]
            while console.poll() is None:
                if select.select([master], [], [], 0.1)[0]:
                    try:
                        os.read(master, 4096)
                    except OSError:  # it has gone
                        break
            console.wait(60)
        finally:
            console.kill()
            console.wait()
            os.close(master)
        tap.check(console.returncode == 0, f"virsh console ends with {console.returncode}")


def events_are_told_in_order():
    with Host() as h:
        log = open(os.path.join(h.d.dir, "events"), "w", encoding="utf-8")
        watcher = subprocess.Popen(["stdbuf", "-oL", "virsh", "-c", h.uri(), "event", "--all", "--loop", "--timeout", "100"], stdout=log)
        try:
            def told():
                return re.findall(r"event '(\w+)' for domain '\w+'(?:: (.*))?", pathlib.Path(log.name).read_text(encoding="utf-8"))

            def life(name):
                h.d.call("vm.define", config=h.d.config(name))
                return name
            # virsh says nothing once it listens: a VM is made until it is told.
            names = iter(f"probe{i}" for i in range(100))
            wait_for(lambda: life(next(names)) and time.sleep(0.2) is None and told(), what="that virsh listens")
            life("a")
            for method in ("vm.start", "vm.pause", "vm.resume", "vm.reset"):
                h.d.call(method, vm="a")
            h.d.call("vm.stop", vm="a", force=True)
            h.d.call("vm.delete", vm="a")
            want = [("lifecycle", "Defined Added"), ("lifecycle", "Started Booted"), ("lifecycle", "Suspended Paused"),
                    ("lifecycle", "Resumed Unpaused"), ("reboot", ""), ("lifecycle", "Stopped Destroyed"),
                    ("lifecycle", "Undefined Removed")]
            wait_for(lambda: told()[-len(want):] == want, what=f"{want}, not {told()}")
        finally:
            watcher.terminate()
            watcher.wait()
            log.close()


def looking_only_changes_nothing():
    with Host(readonly=True) as h:
        h.d.call("vm.define", config=h.d.config("a"))
        tap.check("a" in h.run("list", "--all", end="-ro"), "not seen")
        h.fails("role|read only|denied", "start", "a", end="-ro")
        tap.check(h.vm()["state"] == "stopped", "started by who may only look")


def what_vmd_has_not_is_said():
    with Host() as h:
        h.fails("not supported", "nwfilter-list")
        h.fails("not supported by vmd", "secret-list")
        bad = h.file("bad.xml", "<domain type='qemu'><name>x</name><memory>65536</memory><os><type arch='riscv64'>hvm</type></os>"
                     "<bogus/></domain>")
        h.fails("line 1: ", "define", bad)
        schema = subprocess.run(["virt-xml-validate", h.file("cap.xml", h.run("capabilities")), "capability"], capture_output=True,
                                text=True, check=False)
        tap.check(schema.returncode == 0, schema.stderr)


# --- by hand ------------------------------------------------------------------------------------------

def connect(h):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(h.path())
    return s


def packet(procedure, payload=b"", program=REMOTE, version=1, kind=0, serial=1, status=0, length=None):
    return HEAD.pack(HEAD.size + len(payload) if length is None else length, program, version, procedure, kind, serial,
                     status) + payload


def answer(s):
    """(status, payload), None at the end."""
    def read(n):
        data = b""
        while len(data) < n:
            more = s.recv(n - len(data))
            if not more:
                return None
            data += more
        return data
    head = read(4)
    if head is None:
        return None
    rest = read(struct.unpack(">I", head)[0] - 4)
    return None if rest is None else (struct.unpack(">6I", rest[:24])[5], rest[24:])


def string(text):
    return struct.pack(">I", len(text)) + text + b"\0" * (-len(text) % 4)


def frames_that_lie_are_refused():
    opened = packet(1, struct.pack(">II", 0, 0))
    with Host() as h:
        for what, sent, expected in (
                ("shorter than a header", packet(66, length=8), None),
                ("of no length", packet(66, length=0), None),
                ("of four billion", packet(66, length=0xffffffff), None),
                ("another program", packet(66, program=0x20008088), 1),
                ("another version", packet(66, version=2), 1),
                ("a reply from a client", packet(66, kind=1), None),
                ("a type that is none", packet(66, kind=9), None),
                ("a call before it is open", packet(3), 1),
                ("a procedure that is none", packet(9999), 1),
                ("arguments that are cut off", opened + packet(23, struct.pack(">I", 100)), 1),
                ("arguments that go on", opened + packet(23, string(b"a") + b"more"), 1),
                ("a string of four billion", opened + packet(23, struct.pack(">I", 0xffffffff)), 1),
                ("a string that is no text", opened + packet(23, string(b"\xff\xfe")), 1),
                ("a string with a zero", opened + packet(23, string(b"a\0b")), 1),
                ("an array of four billion", opened + packet(344, struct.pack(">I", 0xffffffff)), 1),
                ("a parameter of no type", opened + packet(419, struct.pack(">I", 1) + string(b"f") + struct.pack(">I", 99)), 1),
                ("descriptors that do not come", opened + packet(309, kind=4), 1)):
            with connect(h) as s:
                s.sendall(sent)
                got = answer(s)
                if sent.startswith(opened):
                    tap.check(got == (0, b""), f"{what}: not opened, {got}")
                    got = answer(s)
                tap.check((got and got[0]) == expected, f"{what}: {got}")
        with connect(h) as s:
            s.sendall(packet(1, program=KEEPALIVE, kind=2, serial=0))
            tap.check(s.recv(100) == packet(2, program=KEEPALIVE, kind=2, serial=0), "no pong")
        tap.check(h.run("list").strip() == "", "the daemon serves no more")


def a_crowd_of_idle_clients_delays_nobody():
    with Host() as h:
        crowd = [connect(h) for _ in range(400)]
        for s in crowd[::2]:
            s.sendall(packet(66)[:10])
        tap.check(h.run("list").strip() == "", "virsh is delayed")
        for s in crowd:
            s.close()


CASES = (lives_of_a_domain_are_virshs_to_lead, a_domain_of_no_definition_goes_when_it_ends, definitions_come_and_go_while_a_domain_runs,
         devices_come_and_go_by_their_xml, virt_install_makes_a_domain, what_is_made_elsewhere_is_seen,
         networks_pools_and_volumes, snapshots_of_a_stopped_domain,
         streams_carry_consoles_volumes_and_pictures, events_are_told_in_order, looking_only_changes_nothing,
         what_vmd_has_not_is_said, frames_that_lie_are_refused, a_crowd_of_idle_clients_delays_nobody)

if __name__ == "__main__":
    try:
        sys.exit(tap.run_cases(CASES))
    except CallError as e:
        sys.exit(str(e))
