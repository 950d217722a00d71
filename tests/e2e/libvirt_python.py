#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""libvirt's Python module (Debian: python3-libvirt), its event loop too, against vmd: what virsh hides."""

import os
import pathlib
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import uuid
from xml.etree import ElementTree

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(TOP / "tests/lib"), str(TOP / "tests/e2e")]

import tap  # noqa: E402
from daemon_lib import CallError, wait_for  # noqa: E402
from libvirt_virsh import Host, answer, connect, packet, string  # noqa: E402
from remote_lib import free_port  # noqa: E402

try:
    import libvirt
except ImportError:
    libvirt = None
    DEBIANS = "/usr/bin/python3"  # its modules are not those of another Python that comes first
    if os.path.exists(DEBIANS) and not os.path.samefile(sys.executable, DEBIANS):
        os.execv(DEBIANS, [DEBIANS, *sys.argv])

LIFE = ("defined", "undefined", "started", "suspended", "resumed", "stopped", "shutdown", "pmsuspended", "crashed")


class Ear:
    """A connection, and what it is told."""

    def __init__(self, h):
        self.conn = libvirt.open(h.uri())
        self.told = []

        def life(_conn, dom, event, _detail, _arg):
            self.told.append((dom.name(), LIFE[event], dom.ID()))

        def object_life(_conn, one, event, _detail, kind):
            self.told.append((kind, one.name(), one.UUIDString(), event))
        self.conn.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, life, None)
        self.conn.networkEventRegisterAny(None, libvirt.VIR_NETWORK_EVENT_ID_LIFECYCLE, object_life, "network")
        self.conn.storagePoolEventRegisterAny(None, libvirt.VIR_STORAGE_POOL_EVENT_ID_LIFECYCLE, object_life, "pool")

    def until(self, *wanted):
        wait_for(lambda: len(self.told) >= len(wanted), timeout=60, what=f"{wanted}")
        tap.check(self.told == list(wanted), f"{wanted}, not {self.told}")
        self.told.clear()


def begin():
    if not libvirt:
        raise tap.Skip("python3-libvirt")
    libvirt.registerErrorHandler(lambda *_: None, None)
    libvirt.virEventRegisterDefaultImpl()

    def loop():
        while True:
            libvirt.virEventRunDefaultImpl()
    threading.Thread(target=loop, daemon=True).start()


def refused(code, call, *args):
    try:
        call(*args)
    except libvirt.libvirtError as e:
        tap.check(e.get_error_code() == code, f"error {e.get_error_code()}, not {code}: {e}")
        return str(e)
    raise AssertionError(f"{call} succeeded")


def every_event_of_a_life_is_told_once():
    begin()
    with Host() as h:
        ear = Ear(h)
        dom = ear.conn.defineXML(pathlib.Path(h.domain()).read_text(encoding="utf-8"))
        ear.until(("a", "defined", -1))
        dom.create()
        number = dom.ID()
        ear.until(("a", "started", number))
        dom.suspend()
        dom.resume()
        ear.until(("a", "suspended", number), ("a", "resumed", number))
        dom.destroy()
        ear.until(("a", "stopped", -1))  # whatever its emulator still does
        tap.check(dom.ID() == -1 and not dom.isActive(), "it has a number still")
        dom.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        ear.until(("a", "started", number), ("a", "suspended", number))
        dom.destroy()
        dom.undefine()
        ear.until(("a", "stopped", -1), ("a", "undefined", -1))
        ear.conn.close()


def a_daemon_that_comes_back_tells_no_start():
    begin()
    with Host() as h:
        for name in ("runs", "rests"):
            h.d.call("vm.define", config=h.d.config(name))
            h.d.call("vm.start", vm=name)
        h.d.call("vm.pause", vm="rests")
        pid = h.vm("runs")["pid"]
        os.kill(pid, signal.SIGSTOP)  # it is taken up when somebody listens already
        h.d.kill()
        h.d.start(settle=False)
        ear = Ear(h)
        os.kill(pid, signal.SIGCONT)
        h.d.wait_settled()
        dom = ear.conn.lookupByName("runs")
        dom.suspend()
        ear.until(("runs", "suspended", dom.ID()))
        dom.resume()
        ear.until(("runs", "resumed", dom.ID()))
        rests = ear.conn.lookupByName("rests")
        rests.resume()
        wait_for(lambda: ear.told, what="that it goes on")
        tap.check(ear.told == [("rests", "resumed", rests.ID())], str(ear.told))
        ear.conn.close()


def networks_and_pools_are_told_by_uuid():
    begin()
    with Host() as h:
        ear = Ear(h)
        net = ear.conn.networkDefineXML("<network><name>n1</name><ip address='192.168.77.1' prefix='24'/></network>")
        its = net.UUIDString()
        tap.check(its != "00000000-0000-0000-0000-000000000000", "no UUID")
        net.undefine()
        ear.until(("network", "n1", its, 0), ("network", "n1", its, 1))
        folder = os.path.join(h.d.dir, "deep")
        pool = ear.conn.storagePoolDefineXML(f"<pool type='dir'><name>p1</name><target><path>{folder}</path></target></pool>")
        its = pool.UUIDString()
        pool.build()
        tap.check(os.path.isdir(folder) and not pool.isActive(), "no folder was built, or it was started")
        refused(libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, pool.build, libvirt.VIR_STORAGE_POOL_BUILD_OVERWRITE)
        pool.create()
        refused(libvirt.VIR_ERR_OPERATION_INVALID, pool.build)
        pool.destroy()
        pool.undefine()
        ear.until(("pool", "p1", its, 0), ("pool", "p1", its, 2), ("pool", "p1", its, 3), ("pool", "p1", its, 1))
        ear.conn.close()


def what_would_be_lost_is_not_undefined():
    begin()
    with Host() as h:
        conn = libvirt.open(h.uri())
        disk = os.path.join(h.d.dir, "d.qcow2")
        subprocess.run([os.path.join(os.environ["VMD_BUILDDIR"], "vmctl"), "image", "create", "-f", "qcow2", disk, "8M"], check=True,
                       capture_output=True)
        h.d.call("vm.define", config=h.d.config("a", disks=[{"file": disk, "format": "qcow2"}]))
        dom = conn.lookupByName("a")
        h.run("snapshot-create-as", "a", "s1")
        refused(libvirt.VIR_ERR_OPERATION_INVALID, dom.undefine)
        refused(libvirt.VIR_ERR_OPERATION_INVALID, dom.undefineFlags, libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)
        tap.check(len(h.d.call("snapshot.list", vm="a")["snapshots"]) == 1, "the snapshot is gone")
        dom.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)
        tap.check(not h.d.call("vm.list")["vms"], "it is still there")
        h.d.call("vm.define", config=h.d.config("a"))
        h.d.call("vm.start", vm="a")
        dom = conn.lookupByName("a")
        dom.managedSave()
        refused(libvirt.VIR_ERR_OPERATION_INVALID, dom.undefine)
        refused(libvirt.VIR_ERR_OPERATION_INVALID, dom.undefineFlags, libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)
        tap.check(h.vm()["saved"], "the state is gone")
        dom.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)
        tap.check(not h.d.call("vm.list")["vms"], "it is still there")
        conn.close()


def a_guest_is_asked_to_reboot_or_nothing_is_done():
    begin()
    with Host() as h:
        h.d.call("vm.define", config=h.d.config("a"))
        h.d.call("vm.start", vm="a")
        before = h.d.call("event.list", after=0, limit=1000)["events"]
        h.fails("virsh reset", "reboot", "a")
        h.fails("agent", "reboot", "a", "--mode", "acpi")
        after = h.d.call("event.list", after=0, limit=1000)["events"]
        tap.check([e["type"] for e in after].count("vm-reset") == [e["type"] for e in before].count("vm-reset"), "it was reset")
        try:
            h.d.call("vm.reboot", vm="a")
        except CallError as e:
            tap.check("no guest agent listens" in str(e), str(e))
        h.run("reset", "a")


def who_wants_to_look_cannot_change():
    begin()
    with Host() as h:
        h.d.call("vm.define", config=h.d.config("a"))
        conn = libvirt.openReadOnly(h.uri())
        tap.check(conn.lookupByName("a").isActive() == 0, "cannot look")
        conn.close()
        # The library refuses by itself what changes something; by hand it comes as far as the daemon.
        domain = string(b"a") + uuid.UUID(h.vm()["uuid"]).bytes + struct.pack(">i", -1)
        for flags, status in ((1, 1), (0, 0)):
            with connect(h) as s:
                for sent in (packet(1, struct.pack(">II", 0, flags)), packet(9, domain)):
                    s.sendall(sent)
                    got = answer(s)
                tap.check(got and got[0] == status, f"flags {flags}: {got}")
                tap.check(h.vm()["state"] == ("stopped" if flags else "running"), "another state")


def uploads_share_one_bound():
    begin()
    with Host() as h:
        conn = libvirt.open(h.uri())
        folder = os.path.join(h.d.dir, "pool")
        os.mkdir(folder)
        pool = conn.storagePoolDefineXML(f"<pool type='dir'><name>p1</name><target><path>{folder}</path></target></pool>")
        pool.create()
        data = random.Random(7).randbytes(3 << 20)
        streams = []
        for i in range(16):
            vol = pool.createXML(f"<volume><name>v{i}</name><capacity>{len(data)}</capacity></volume>")
            st = conn.newStream()
            vol.upload(st, 0, len(data) if i % 2 else 0)
            streams.append(st)
        more = conn.newStream()
        refused(libvirt.VIR_ERR_OPERATION_FAILED, pool.storageVolLookupByName("v0").upload, more, 0, 0)
        for at in range(0, len(data), 256 << 10):
            for st in streams:
                piece, sent = data[at:at + (256 << 10)], 0
                while sent < len(piece):
                    sent += st.send(piece[sent:])
        for st in streams:
            st.finish()
        for i in range(16):
            tap.check(pathlib.Path(folder, f"v{i}").read_bytes() == data, f"another volume {i} came up")
        st = conn.newStream()
        refused(libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, pool.storageVolLookupByName("v0").upload, st, 512, 0)
        st = conn.newStream()
        pool.storageVolLookupByName("v0").upload(st, 0, 4)
        st.send(b"12345678")
        refused(libvirt.VIR_ERR_OPERATION_FAILED, st.finish)
        tap.check(pathlib.Path(folder, "v0").read_bytes() == data, "too much was taken")
        conn.close()


def senseless_arguments_are_refused():
    begin()
    with Host() as h:
        conn = libvirt.open(h.uri())
        disk = os.path.join(h.d.dir, "d.raw")
        pathlib.Path(disk).write_bytes(bytes(1 << 20))
        h.d.call("vm.define", config=h.d.config("a", disks=[{"file": disk, "name": "vda"}], nics=[{"mac": "52:54:00:00:00:01"}]))
        h.d.call("vm.start", vm="a")
        dom, most = conn.lookupByName("a"), (1 << 63) - 1
        before = h.d.call("vm.list", config=True)["vms"]
        for call, *args in ((dom.setMaxMemory, most), (dom.setMemoryFlags, most, 2), (dom.blockResize, "vda", most),
                            (dom.blockRebase, "none", disk + "2", 0, libvirt.VIR_DOMAIN_BLOCK_REBASE_COPY),
                            (dom.blockRebase, "none", disk + "2", 0, 1 << 20), (dom.blockCopy, "vda", "<disk/>"), (dom.blockCopy, "vda", "<d"),
                            (dom.blockPull, "none"), (dom.blockCommit, "vda", None, None), (dom.blockJobAbort, "none"),
                            (dom.setBlockIoTune, "none", {"total_bytes_sec": 1}), (dom.setBlockIoTune, "vda", {"nothing": 1}),
                            (dom.setBlockIoTune, "vda", {"total_bytes_sec": (1 << 64) - 1}),
                            (dom.setInterfaceParameters, "52:54:00:00:00:01", {"inbound.average": (1 << 32) - 1}, 1),
                            (dom.setInterfaceParameters, "none", {"inbound.average": 1}),
                            (dom.setSchedulerParameters, {"global_quota": most, "global_period": 0}),
                            (dom.setSchedulerParameters, {"cpu_shares": (1 << 64) - 1}), (dom.setMemoryParameters, {"hard_limit": 1}),
                            (dom.setTime, {"seconds": most, "nseconds": 0}), (dom.setGuestVcpus, "4-2", 1), (dom.setGuestVcpus, "", 1),
                            (dom.sendKey, 0, 0, [99999], 1, 0), (dom.sendKey, 77, 0, [1], 1, 0), (dom.setVcpusFlags, 70000, 2),
                            (dom.setMetadata, 2, "<x", "k", "urn:k"), (dom.setMetadata, 2, "<x/>", "k k", "urn:k"),
                            (dom.setMetadata, 2, "<y:x xmlns:y='urn:other'/>", "k", "urn:k"), (dom.setMetadata, 9, "x", None, None),
                            (dom.updateDeviceFlags, "<disk", 0), (dom.updateDeviceFlags, "<interface type='user'/>", 0),
                            (dom.migrateToURI3, "vmd+tls://", {}, 27), (conn.getCPUModelNames, "none"), (conn.getFreePages, [3], 0, 1)):
            try:
                call(*args)
            except (libvirt.libvirtError, OverflowError, LookupError):  # by vmd, or by the module
                continue
            raise AssertionError(f"{call.__name__}{args} succeeded")
        tap.check(h.d.call("vm.list", config=True)["vms"] == before, "something was changed")
        conn.close()


SCREENS = (("<graphics type='vnc' port='-1'/>", None), ("<graphics type='vnc' autoport='yes' listen='127.0.0.1'/>", "127.0.0.1"),
           ("<graphics type='vnc'><listen type='address'/></graphics>", "127.0.0.1"),
           ("<graphics type='vnc' port='{port}' autoport='no' listen='localhost'/>", "127.0.0.1:{port}"),
           ("<graphics type='vnc' port='{port}'><listen type='address' address='::1'/></graphics>", "[::1]:{port}"))


def screens_are_where_the_document_says():
    """And the document of one that runs says where that is; it can be given back as it is."""
    begin()
    with Host() as h:
        conn = libvirt.open(h.uri())
        text = pathlib.Path(h.domain()).read_text(encoding="utf-8")
        for graphics, listen in SCREENS:
            port = free_port()
            dom = conn.defineXML(text.replace("</domain>", f"<devices>{graphics.format(port=port)}</devices></domain>"))
            config = h.d.call("vm.list", config=True)["vms"][0]["config"]
            wanted = {"listen": listen.format(port=port), "security": "none"} if listen else None
            tap.check(config.get("vnc") == wanted and "display" in config, f"{graphics}: {config}")
            dom.create()
            tree = ElementTree.fromstring(dom.XMLDesc()).find("devices/graphics")
            vnc = h.d.call("vm.vnc", vm="a")
            if listen:
                tap.check(vnc["address"].endswith(":" + tree.get("port")) and tree.get("port") != "-1", f"{tree.attrib}, {vnc}")
            else:
                tap.check(tree.get("socket") == vnc["path"] == tree.find("listen").get("socket"), f"{tree.attrib}, {vnc}")
            conn.defineXML(dom.XMLDesc())
            tap.check(h.d.call("vm.list", config=True)["vms"][0]["config"] == config, "the document says something else")
            for _ in range(3):  # descriptors between answers
                with socket.socket(fileno=dom.openGraphicsFD(0, libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)) as viewer:
                    tap.check(viewer.recv(12) == b"RFB 003.008\n" and dom.isActive() and conn.numOfDomains() == 1, "no screen")
            refused(libvirt.VIR_ERR_INVALID_ARG, dom.openGraphicsFD, 1)
            dom.destroy()
            refused(libvirt.VIR_ERR_OPERATION_INVALID, dom.openGraphicsFD, 0)
        for graphics in ("<graphics type='spice'/>", "<graphics type='vnc' port='0'/>", "<graphics type='vnc' port='99999'/>",
                         "<graphics type='vnc'><listen type='network' network='n'/></graphics>"):
            try:
                conn.defineXML(text.replace("</domain>", f"<devices>{graphics}</devices></domain>"))
            except libvirt.libvirtError as e:
                tap.check("line 1: <graphics" in str(e), str(e))
            else:
                raise AssertionError(f"{graphics} was taken")
        conn.close()


CASES = (screens_are_where_the_document_says, every_event_of_a_life_is_told_once, a_daemon_that_comes_back_tells_no_start, networks_and_pools_are_told_by_uuid,
         what_would_be_lost_is_not_undefined, a_guest_is_asked_to_reboot_or_nothing_is_done, who_wants_to_look_cannot_change,
         uploads_share_one_bound, senseless_arguments_are_refused)

if __name__ == "__main__":
    try:
        sys.exit(tap.run_cases(CASES))
    except CallError as e:
        sys.exit(str(e))
