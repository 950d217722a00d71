#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""QMP's device_add with what its devices stand on (blockdev-add, netdev_add, chardev-add, object-add) and their opposites, in
QEMU's words. The guest has no drivers: what it does not use goes at once. Real drivers are in guest_plug.py. Entropy devices come by
emu.attach_rng, memory by emu.attach_memory, whoever asks for them."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(TOP / "tests/lib"), str(TOP / "tests/e2e")]

import guest_nbd  # noqa: E402
import tap  # noqa: E402
from qmp_commands import MIB, Vm, wait_for  # noqa: E402


def image(v, name, size=MIB):
    path = os.path.join(v.d.dir, name)
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def do(q, command, **arguments):
    """With names as they are: execute() makes '-' of '_'."""
    return q.ask(json.dumps({"execute": command, "arguments": arguments}))


def ok(q, command, **arguments):
    reply = do(q, command, **arguments)
    assert "return" in reply, (command, arguments, reply)
    return reply["return"]


def no(q, command, kind="GenericError", **arguments):
    reply = do(q, command, **arguments)
    assert reply.get("error", {}).get("class") == kind, (command, arguments, reply)
    return reply["error"]["desc"]


def node(q, name, file, **more):
    ok(q, "blockdev-add", **{"driver": "raw", "node-name": name, "file": {"driver": "file", "filename": file}, **more})


def gone(q, name):
    ok(q, "device_del", id=name)
    event = q.event("DEVICE_DELETED")["data"]
    assert event == {"device": name, "path": "/machine/peripheral/" + name}, event


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def emulator_has(v, path):
    pid = next(iter(v.d.emulators().values()))[0]
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            pass
    return path in found


def disks_come_by_their_nodes():
    with Vm(root_ports=4) as v, v.qmp() as q:
        one, two = image(v, "one.img"), image(v, "two.img", 2 * MIB)
        node(q, "n1", one)
        node(q, "n2", two, **{"read-only": True})
        ok(q, "object-add", **{"qom-type": "iothread", "id": "io1"})
        io, = q.execute("query-iothreads")
        assert io["id"] == "io1" and io["thread-id"] > 0, io
        ok(q, "device_add", driver="virtio-blk-pci", id="d1", drive="n1", serial="SER1", iothread="io1", bus="rp0", addr="0x0",
           **{"num-queues": "2", "write-cache": "on", "werror": "stop", "disable-legacy": "on", "bootindex": 1})
        ok(q, "device_add", driver="nvme", id="d2", drive="n2", serial="SER2")
        blocks = {b["qdev"]: b for b in q.execute("query-block")}
        assert set(blocks) == {"disk0", "d1", "d2"}, blocks
        for name, on, file, size, readonly in (("d1", "n1", one, MIB, False), ("d2", "n2", two, 2 * MIB, True)):
            b = blocks[name]["inserted"]
            assert (b["node-name"], b["file"], b["image"]["virtual-size"], b["ro"]) == (on, file, size, readonly), b
        assert {n["node-name"] for n in q.execute("query-named-block-nodes")} == {"disk0", "n1", "n2"}
        assert {s["qdev"] for s in q.execute("query-blockstats")} >= {"disk0"}
        assert emulator_has(v, one) and emulator_has(v, two)
        props = {p["name"] for p in q.execute("qom-list", path="/machine/peripheral")}
        assert len([p for p in props if p.startswith("plugged")]) >= 2, props
        # What is in use stays, and is taken once.
        assert "in use" in no(q, "blockdev-del", **{"node-name": "n1"})
        assert "in use" in no(q, "object-del", id="io1")
        assert "in use" in no(q, "device_add", driver="virtio-blk-pci", id="d3", drive="n1")
        assert no(q, "device_add", driver="virtio-blk-pci", id="d1", drive="n2") == "Duplicate device ID 'd1'"
        ok(q, "block_resize", **{"node-name": "n1", "size": 3 * MIB})
        assert os.path.getsize(one) == 3 * MIB
        gone(q, "d1")
        gone(q, "d2")
        assert not emulator_has(v, one) and not emulator_has(v, two)
        assert {b["qdev"] for b in q.execute("query-block")} == {"disk0"}
        for name in ("n1", "n2"):
            ok(q, "blockdev-del", **{"node-name": name})
        ok(q, "object-del", id="io1")
        assert q.execute("query-iothreads") == []
        assert no(q, "device_del", "DeviceNotFound", id="d1") == "Device 'd1' not found"


def far(name, server, **more):
    return {"driver": "nbd", "node-name": name, "server": server, **more}


def exports_of_servers_are_nodes():
    """Of qemu-nbd by a unix socket and by TLS, of nbdkit below qcow2: attached, listed, gone."""
    if not all(shutil.which(p) for p in ("qemu-nbd", "openssl", "qemu-img")):
        tap.skip("qemu-nbd, qemu-img (package qemu-utils) and openssl")
    with Vm(root_ports=4) as v, v.qmp() as q:
        def at(name):
            return os.path.join(v.d.dir, name)
        pki, port = guest_nbd.make_pki(at("pki")), free_port()
        image(v, "a.raw")
        image(v, "b.raw", 2 * MIB)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", at("c.qcow2"), "5M"], check=True)
        os.truncate(at("c.qcow2"), 8 * MIB)
        servers = [guest_nbd.qemu_nbd(at("a.s"), at("a.raw"), "-x", "one"), guest_nbd.qemu_nbd(at("c.s"), at("c.qcow2")),
                   guest_nbd.qemu_nbd(port, at("b.raw"), "--object", f"tls-creds-x509,id=t,endpoint=server,dir={pki},verify-peer=yes", "--tls-creds", "t")]
        unix, inet = {"type": "unix", "path": at("a.s")}, {"type": "inet", "host": "127.0.0.1", "port": str(port)}
        try:
            for bad, words in ((far("n", None), "server"), (far("n", {"type": "inet", "host": "h"}), "inet"), (far("n", {"type": "fd", "str": "x"}), "str"),
                               (far("n", {"type": "unix", "path": "rel"}), "absolute"), (far("n", {**inet, "keep-alive": True}), "keep-alive"),
                               (far("n", inet, **{"tls-creds": "t0"}), "No TLS credentials"), (far("n", inet, **{"tls-hostname": "x"}), "tls-creds"),
                               (far("n", {**inet, "port": "70000"}), "no port")):
                said = no(q, "blockdev-add", **{k: x for k, x in bad.items() if x is not None})
                assert words in said, (bad, said)
            assert "endpoint" in no(q, "object-add", **{"qom-type": "tls-creds-x509", "id": "t0", "dir": pki, "endpoint": "server"})
            ok(q, "object-add", **{"qom-type": "tls-creds-x509", "id": "t0", "dir": pki, "endpoint": "client", "verify-peer": True})
            ok(q, "blockdev-add", **far("p1", unix, export="one"))
            ok(q, "blockdev-add", **{"driver": "raw", "node-name": "n1", "file": "p1"})
            ok(q, "blockdev-add", **far("n2", inet, **{"tls-creds": "t0"}))
            ok(q, "blockdev-add", **{"driver": "qcow2", "node-name": "n3",
                                     "file": {"driver": "nbd", "server": {"type": "unix", "path": at("c.s")}}})
            ok(q, "blockdev-add", **far("n4", unix, export="none"))
            assert "NBD export" in no(q, "blockdev-backup", device="disk0", target="n1", sync="full")
            for number in (1, 2, 3):
                ok(q, "device_add", driver="virtio-blk-pci", id=f"d{number}", drive=f"n{number}")
            assert "no export 'none'" in no(q, "device_add", driver="virtio-blk-pci", id="d4", drive="n4")
            nodes = {n["node-name"]: n for n in q.execute("query-named-block-nodes")}
            assert {n: nodes[n]["image"]["virtual-size"] for n in ("n1", "n2", "n3")} == {"n1": MIB, "n2": 2 * MIB, "n3": 5 * MIB}, nodes
            assert nodes["n1"]["file"] == f"nbd+unix:///one?socket={at('a.s')}" and nodes["n2"]["file"].startswith("nbds://127.0.0.1"), nodes
            assert "in use" in no(q, "blockdev-del", **{"node-name": "n2"})
            for number in (1, 2, 3):
                gone(q, f"d{number}")
                ok(q, "blockdev-del", **{"node-name": f"n{number}"})
            assert {b["qdev"] for b in q.execute("query-block")} == {"disk0"}
            ok(q, "object-del", id="t0")
            wait_for(lambda: not guest_nbd.relays(), 60, "no process of TLS is left")
        finally:
            for server in servers:
                server.kill()


def cards_come_by_their_back_ends():
    with Vm(root_ports=4) as v, v.qmp() as q:
        path = os.path.join(v.d.dir, "lan.sock")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            ok(q, "netdev_add", type="stream", id="n0", server=False, addr={"type": "unix", "path": path})
            ok(q, "netdev_add", type="user", id="n1", net="10.9.0.0/24", hostfwd=[{"str": f"tcp:127.0.0.1:{free_port()}-:22"}],
               restrict=True, hostname="guest", dnssearch=[{"str": "example.org"}])
            assert no(q, "netdev_add", type="user", id="n1") == "Duplicate ID 'n1'"
            ok(q, "device_add", driver="virtio-net-pci", id="c0", netdev="n0", mac="52:54:00:aa:bb:cc", mq="on", vectors=4,
               romfile="")
            peer, _ = listener.accept()
            with peer:
                ok(q, "device_add", driver="virtio-net-pci", id="c1", netdev="n1", host_mtu=1400)
                helpers = [p for p in os.listdir("/proc") if p.isdigit() and is_helper(p, v)]
                assert helpers, "a card in user mode has its process"
                filters = {f["name"]: f["main-mac"] for f in q.execute("query-rx-filter")}
                assert filters["c0"] == "52:54:00:aa:bb:cc" and set(filters) == {"c0", "c1"}, filters
                ok(q, "set_link", name="n0", up=False)  # QEMU takes the name of either
                ok(q, "set_link", name="c0", up=True)
                assert "in use" in no(q, "netdev_del", id="n0")
                assert "in use" in no(q, "device_add", driver="virtio-net-pci", netdev="n0")
                gone(q, "c0")
                assert peer.recv(1) == b"", "the card's socket is closed"
                gone(q, "c1")
        for name in ("n0", "n1"):
            ok(q, "netdev_del", id=name)
        assert no(q, "netdev_del", "DeviceNotFound", id="n0") == "Device 'n0' not found"
        assert q.execute("query-rx-filter") == []
        wait_for(lambda: not any(is_helper(p, v) for p in helpers), what="the helper of a card that is gone has ended")


def is_helper(pid, v):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
        return words[0].endswith(b"vmd-net") and any(b"10.9.0" in w for w in words)
    except OSError:
        return False


def ports_and_entropy_come():
    with Vm(root_ports=4) as v, v.qmp() as q:
        path = os.path.join(v.d.dir, "port.sock")
        backend = {"type": "socket", "data": {"server": True, "wait": False, "addr": {"type": "unix", "data": {"path": path}}}}
        assert ok(q, "chardev-add", id="ch0", backend=backend) == {}
        assert "already exists" in no(q, "chardev-add", id="ch0", backend=backend)
        ok(q, "chardev-add", id="ch1", backend={"type": "null", "data": {}})
        ok(q, "device_add", driver="virtserialport", id="p0", chardev="ch0", name="org.example.0", nr=1)
        ok(q, "device_add", driver="virtconsole", id="p1", chardev="ch1")
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(path)
            wait_for(lambda: v.d.call("vm.channel", vm="a", channel="org.example.0")["connected"], what="a client is there")
            labels = {c["label"]: c for c in q.execute("query-chardev")}
            assert labels["ch0"]["filename"] == f"unix:{path},server=on" and labels["ch0"]["frontend-open"], labels
            assert no(q, "chardev-remove", id="ch0") == "Chardev 'ch0' is busy"
            gone(q, "p0")
            assert s.recv(1) == b"" and not os.path.lexists(path), "its client is let go of, its socket is no more"
        gone(q, "p1")
        ok(q, "chardev-remove", id="ch0")
        ok(q, "chardev-remove", id="ch1")
        assert no(q, "chardev-remove", id="ch0") == "Chardev 'ch0' not found"
        ok(q, "object-add", **{"qom-type": "rng-random", "id": "r0", "filename": "/dev/urandom"})
        ok(q, "device_add", driver="virtio-rng-pci", id="rng1", rng="r0")
        assert "in use" in no(q, "object-del", id="r0")
        assert any(d["id"]["device"] == 0x1044 for b in q.execute("query-pci") for d in flat(b["devices"]))
        gone(q, "rng1")
        ok(q, "object-del", id="r0")
        assert no(q, "object-del", id="r0") == "object 'r0' not found"


def mem(q, name, size, **more):
    ok(q, "object-add", **{"qom-type": "memory-backend-ram", "id": "m" + name, "size": size})
    return {"driver": "virtio-mem-pci", "id": name, "memdev": "m" + name, **more}


def memory_comes_where_there_is_room():
    with Vm(root_ports=8, memory=64 * MIB, memory_max=320 * MIB) as v, v.qmp() as q:
        assert q.execute("query-memory-devices") == []
        assert "'size'" in no(q, "object-add", **{"qom-type": "memory-backend-memfd", "id": "x"})
        first = mem(q, "one", 128 * MIB, **{"requested-size": 64 * MIB, "node": 0})
        ok(q, "device_add", **first)
        assert "in use" in no(q, "object-del", id="mone")
        assert "busy memdev" in no(q, "device_add", **{**first, "id": "two"})
        data = q.execute("query-memory-devices")[0]["data"]
        assert (data["id"], data["requested-size"], data["size"], data["max-size"]) == ("one", 64 * MIB, 0, 128 * MIB), data
        assert data["memaddr"] % (1 << 30) == 0, data
        # What is asked for, and what is too much, is told.
        assert "is to have 64" in no(q, "device_del", id="one")
        assert "leaves 128 MiB" in no(q, "device_add", **mem(q, "big", 192 * MIB))
        assert "multiple" in no(q, "device_add", **{**mem(q, "odd", 32 * MIB), "requested-size": 5 * MIB})
        # Places and addresses are used again, whichever goes first.
        ok(q, "device_add", **mem(q, "two", 64 * MIB))
        ok(q, "device_add", **mem(q, "three", 64 * MIB))
        at = {d["data"]["id"]: d["data"]["memaddr"] for d in q.execute("query-memory-devices")}
        assert sorted(at.values())[1] - sorted(at.values())[0] == 1 << 30, at
        gone(q, "two")
        ok(q, "device_add", **mem(q, "four", 64 * MIB))
        assert next(d["data"]["memaddr"] for d in q.execute("query-memory-devices") if d["data"]["id"] == "four") == at["two"]
        ok(q, "qom-set", path="/machine/peripheral/one", property="requested-size", value=0)
        gone(q, "one")
        gone(q, "three")
        gone(q, "four")
        for name in ("one", "two", "three", "four", "big", "odd"):
            ok(q, "object-del", id="m" + name)
        assert q.execute("query-memory-devices") == []
        # Without a name the first free one, beside what others are called.
        for name in ("memory0", "memory1"):
            made = v.d.call("vm.attach", vm="a", live=True, memory_device={"size": 2 * MIB})
            assert made["name"] == name and made["kind"] == "memory", made
    with Vm(root_ports=1) as v, v.qmp() as q:
        assert "leaves 0 MiB" in no(q, "device_add", **mem(q, "none", 2 * MIB))


def flat(devices):
    for d in devices:
        yield d
        yield from flat(d.get("pci_bridge", {}).get("devices", []))


REFUSED = [
    ("device_add", {"driver": "e1000", "id": "x"}, "'e1000' is not a valid device model name"),
    ("device_add", {"driver": "virtio-blk-pci", "id": "x"}, "drive property not set"),
    ("device_add", {"driver": "virtio-blk-pci", "drive": "nope"}, "can't find value 'nope'"),
    ("device_add", {"driver": "virtio-blk-pci", "drive": "disk0"}, "in use"),
    ("device_add", {"driver": "virtio-blk-pci", "drive": "n", "netdev": "x"}, "Property 'virtio-blk-pci.netdev' not found"),
    ("device_add", {"driver": "virtio-blk-pci", "drive": "n", "num-queues": "two"}, "is a number"),
    ("device_add", {"driver": "virtio-blk-pci", "drive": "n", "share-rw": True}, "can only be off"),
    ("device_add", {"driver": "virtio-blk-pci", "drive": "n", "iothread": "nope"}, "can't find value 'nope'"),
    ("device_add", {"driver": "virtio-blk-pci", "drive": "n", "werror": "explode"}, "werror"),
    ("device_add", {"driver": "virtio-blk-pci", "drive": "n", "id": "1x"}, "expects an identifier"),
    ("device_add", {"driver": "virtio-net-pci", "id": "x"}, "'netdev' property is not set"),
    ("device_add", {"driver": "virtio-net-pci", "netdev": "nope"}, "can't find value 'nope'"),
    ("device_add", {"driver": "virtio-net-pci", "netdev": "u", "romfile": "x.rom"}, "can only be empty"),
    ("device_add", {"driver": "virtio-net-pci", "netdev": "u", "mac": "zz"}, "mac"),
    ("device_add", {"driver": "virtserialport", "chardev": "nope"}, "can't find value 'nope'"),
    ("device_add", {"driver": "virtio-rng-pci", "rng": "nope"}, "can't find value 'nope'"),
    ("netdev_add", {"type": "vde", "id": "x"}, "user, tap, bridge, stream and dgram are"),
    ("netdev_add", {"type": "user", "id": "x", "ifname": "t"}, "Parameter 'ifname' is unexpected"),
    ("netdev_add", {"type": "user", "id": "x", "hostfwd": ["tcp::1-:2"]}, "hostfwd[0]"),
    ("netdev_add", {"type": "user", "id": "x", "guestfwd": [{"str": "tcp:10.0.2.9:1-cmd:cat"}]}, "tcp:ADDRESS:PORT"),
    ("netdev_add", {"type": "tap", "id": "x", "script": "/etc/qemu-ifup"}, "runs no script"),
    ("netdev_add", {"type": "tap", "id": "x", "vhost": True}, "false or absent"),
    ("netdev_add", {"type": "stream", "id": "x", "addr": {"type": "inet", "host": "h", "port": "1"}}, "unix"),
    ("netdev_add", {"type": "user", "id": "x y"}, "expects an identifier"),
    ("chardev-add", {"id": "x", "backend": {"type": "pty", "data": {}}}, "socket and null are"),
    ("chardev-add", {"id": "x", "backend": {"type": "socket", "data": {}}}, "an absolute path"),
    ("object-add", {"qom-type": "fsdev-local", "id": "x", "path": "x"}, "an absolute path"),
    ("object-add", {"qom-type": "fsdev-local", "id": "x", "path": "/x", "security_model": "none"}, "mapped-xattr"),
    ("device_add", {"driver": "virtio-9p-pci", "id": "x", "fsdev": "no"}, "'mount_tag' property is not set"),
    ("device_add", {"driver": "vhost-user-fs-pci", "id": "x", "tag": "t", "chardev": "no"}, "can't find value 'no'"),
    ("chardev-add", {"id": "x", "backend": {"type": "socket", "data": {"addr": {
        "type": "unix", "data": {"path": "/"}}}}}, "/"),
    ("object-add", {"qom-type": "memory-backend-file", "id": "x", "size": 1 << 20}, "memory-backend-ram and -memfd are"),
    ("object-add", {"qom-type": "throttle-group", "id": "x"}, "block_set_io_throttle"),
    ("object-add", {"qom-type": "rng-random", "id": "x", "filename": "/etc/passwd"}, "/dev/urandom"),
    ("object-add", {"qom-type": "secret", "id": "x"}, "Must provide 'data'"),
    ("object-add", {"qom-type": "secret", "id": "x", "data": "%%%", "format": "base64"}, "is not valid"),
    ("object-add", {"qom-type": "iothread", "id": "x", "data": "x"}, "Property 'iothread.data' not found"),
]


def what_makes_no_sense_is_refused_and_leaves_nothing():
    with Vm(root_ports=2) as v, v.qmp() as q:
        node(q, "n", image(v, "n.img"))
        ok(q, "netdev_add", type="user", id="u")
        ok(q, "object-add", **{"qom-type": "secret", "id": "s", "data": "aGVsbG8=", "format": "base64"})
        for command, arguments, text in REFUSED:
            desc = no(q, command, **arguments)
            assert text in desc, (command, arguments, desc)
        # Nothing of that holds a name, a node or a slot.
        ok(q, "netdev_del", id="u")
        for i in range(2):
            node(q, f"m{i}", image(v, f"m{i}.img"))
            ok(q, "device_add", driver="virtio-blk-pci", id=f"x{i}", drive=f"m{i}")
        desc = no(q, "device_add", driver="virtio-blk-pci", id="y", drive="n")
        assert "slot is taken" in desc, desc
        ok(q, "blockdev-del", **{"node-name": "n"})
        gone(q, "x0")
        # An image that is not there: the name is free again.
        ok(q, "blockdev-add", **{"driver": "qcow2", "node-name": "q", "file": {"driver": "file", "filename": v.d.dir + "/no.qcow2"}})
        assert "no.qcow2" in no(q, "device_add", driver="virtio-blk-pci", id="z", drive="q")
        ok(q, "blockdev-del", **{"node-name": "q"})
        ok(q, "blockdev-del", **{"node-name": "m0"})
        gone(q, "x1")
        # A reset and an end leave nothing either.
        node(q, "last", image(v, "last.img"))
        ok(q, "device_add", driver="virtio-blk-pci", drive="last")
        q.execute("system_reset")
        assert "qmp0" in {b["qdev"] for b in q.execute("query-block")}


if __name__ == "__main__":
    sys.exit(tap.run_cases([disks_come_by_their_nodes, exports_of_servers_are_nodes, cards_come_by_their_back_ends, ports_and_entropy_come,
                            memory_comes_where_there_is_room, what_makes_no_sense_is_refused_and_leaves_nothing]))
