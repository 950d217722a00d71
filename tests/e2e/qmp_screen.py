#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""QMP of a VM with a screen, a keyboard, a tablet and PCI buses: pictures, keys, VNC clients and query-pci, and the same
under QEMU, whose replies must have the same shapes."""

import json
import os
import pathlib
import socket
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(TOP / "tests/lib"), str(TOP / "tests/e2e")]

import tap  # noqa: E402
from daemon_lib import wait_for  # noqa: E402
from qmp_commands import UUID, Vm, shape  # noqa: E402
from qmp_lib import Qemu, Qmp  # noqa: E402

WIDTH, HEIGHT = 640, 400
SCREEN = {"device": "virtio", "width": WIDTH, "height": HEIGHT}
QCODE = {"type": "qcode", "data": "ret"}


def key(data, down=True):
    return {"type": "key", "data": {"key": data, "down": down}}


def pictures_are_written_to_new_or_empty_files():
    with Vm(display=SCREEN) as v, v.qmp() as q:
        size = len(f"P6\n{WIDTH} {HEIGHT}\n255\n") + WIDTH * HEIGHT * 3
        where = os.path.join(v.d.dir, "shot")
        assert q.execute("screendump", filename=where) == {}
        assert os.path.getsize(where) == size
        with open(where, "rb") as file:
            assert file.read(3) == b"P6\n"
        desc = q.fails("GenericError", "screendump", filename=where)
        assert "it is there already" in desc and os.path.getsize(where) == size, desc
        empty = os.path.join(v.d.dir, "empty")
        open(empty, "wb").close()
        q.execute("screendump", filename=empty, format="png")
        with open(empty, "rb") as file:
            assert file.read(8) == b"\x89PNG\r\n\x1a\n"
        os.symlink(empty + "2", os.path.join(v.d.dir, "link"))
        for bad in ("/nowhere/x", os.path.join(v.d.dir, "link"), v.d.dir):
            assert "failed to open file" in q.fails("GenericError", "screendump", filename=bad), bad
        assert "absolute path" in q.fails("GenericError", "screendump", filename="x")
        assert q.fails("DeviceNotFound", "screendump", filename=where + "3", device="x") == "Device 'x' not found"
        q.fails("GenericError", "screendump", filename=where + "3", head=1)
        assert not os.path.exists(where + "3")


def keys_and_pointers_are_taken():
    with Vm(display=SCREEN) as v, v.qmp() as q:
        q.execute("send-key", keys=[{"type": "qcode", "data": "ctrl"}, QCODE], hold_time=1)
        q.execute("send-key", keys=[{"type": "number", "data": 28}, {"type": "number", "data": 0x80 | 0x48}])
        desc = q.fails("GenericError", "send-key", keys=[{"type": "qcode", "data": "no-such-key"}])
        assert "no-such-key" in desc, desc
        assert "#999" in q.fails("GenericError", "send-key", keys=[{"type": "number", "data": 999}])
        q.fails("GenericError", "send-key", keys=[{"type": "number", "data": "ret"}])
        q.fails("GenericError", "send-key", keys=[QCODE] * 17)
        q.execute("input-send-event", events=[
            key(QCODE), key(QCODE, False), {"type": "abs", "data": {"axis": "x", "value": 0x7fff}},
            {"type": "abs", "data": {"axis": "y", "value": 0}}, {"type": "btn", "data": {"button": "left", "down": True}},
            {"type": "btn", "data": {"button": "left", "down": False}},
            {"type": "btn", "data": {"button": "wheel-up", "down": True}}])
        for bad in ({"type": "abs", "data": {"axis": "z", "value": 1}}, {"type": "abs", "data": {"axis": "x", "value": 0x8000}},
                    {"type": "btn", "data": {"button": "none", "down": True}}, {"type": "btn", "data": 1},
                    {"type": "rel", "data": {"axis": "x", "value": 1}}, key({"type": "qcode", "data": "nope"})):
            q.fails("GenericError", "input-send-event", events=[bad])
        q.fails("GenericError", "input-send-event", events=[key(QCODE)] * 65)


def without_a_screen_there_is_nothing():
    with Vm() as v, v.qmp() as q:
        assert q.execute("query-vnc") == {"enabled": False}
        assert "no console" in q.fails("GenericError", "screendump", filename="/tmp/x")
        assert "no screen" in q.fails("GenericError", "send-key", keys=[QCODE])
        assert "no screen" in q.fails("GenericError", "input-send-event", events=[key(QCODE)])
        for command, args in (("set_password", {"protocol": "vnc", "password": "x"}), ("change-vnc-password", {"password": "x"}),
                              ("expire_password", {"protocol": "vnc", "time": "now"})):
            assert "not served" in q.fails("GenericError", command, **args), command
        assert q.execute("query-vnc")["enabled"] is False


class Viewer:
    """A VNC client up to where it has seen the screen."""

    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.s.settimeout(60)
        self.s.connect(path)
        self.read(12)
        self.s.sendall(b"RFB 003.008\n")
        self.read(self.read(1)[0])
        self.s.sendall(b"\1")
        assert self.read(4) == bytes(4)
        self.s.sendall(b"\1")
        self.read(24)

    def read(self, n):
        data = b""
        while len(data) < n:
            piece = self.s.recv(n - len(data))
            assert piece, "the server has closed the connection"
            data += piece
        return data


def seen_by_vnc(q, path):
    """What QMP tells of a client that comes and goes."""
    out = [q.execute("query-vnc")]
    viewer = Viewer(path)
    events = [q.event("VNC_CONNECTED"), q.event("VNC_INITIALIZED")]
    out.append(q.execute("query-vnc"))
    viewer.s.close()
    events.append(q.event("VNC_DISCONNECTED"))
    for e in events:
        del e["timestamp"]
    wait_for(lambda: not q.execute("query-vnc")["clients"], what="nobody looks any more")
    return out + events


@tap.local("the VNC socket itself, to which a ticket leads over TLS")
def vnc_clients_are_told():
    with Vm(display=SCREEN) as v, v.qmp() as q:
        path = v.d.call("vm.vnc", vm="a")["path"]
        before, now, connected, _, _ = seen_by_vnc(q, path)
        assert before == {"enabled": True, "auth": "none", "family": "unix", "service": "", "host": path, "clients": []}
        assert len(now["clients"]) == 1, now
        assert connected["data"]["server"]["host"] == path, connected


MORE = ["-device", "virtio-gpu-pci", "-device", "virtio-keyboard-pci", "-device", "virtio-tablet-pci",
        "-device", "pcie-root-port,id=rp0,chassis=1", "-device", "virtio-rng-pci,bus=rp0,id=below"]


def names(value):
    """The members that objects of each depth have at most."""
    if isinstance(value, dict):
        return {k: names(v) for k, v in value.items()}
    if isinstance(value, list):
        out = {}
        for one in value:
            merge(out, names(one))
        return [out]
    return type(value).__name__


def merge(into, more):
    for k, v in (more.items() if isinstance(more, dict) else ()):
        if isinstance(v, dict):
            merge(into.setdefault(k, {}), v)
        elif isinstance(v, list):
            merge(into.setdefault(k, [{}])[0], v[0])
        else:
            into[k] = v


def functions(bus):
    """Vendor, device, class and place of all, bridges first."""
    for d in bus["devices"] if isinstance(bus, dict) else bus:
        yield d
        if "pci_bridge" in d:
            yield from functions(d["pci_bridge"].get("devices", []))


@tap.local("the VNC socket itself, to which a ticket leads over TLS")
def replies_have_the_shapes_of_qemu():
    if not Qemu.there():
        raise tap.Skip(Qemu.program)
    with Vm(paused=True, display=SCREEN, root_ports=2) as v:
        vnc = os.path.join(v.d.dir, "qemu.vnc")
        with Qemu(v.d.guest(), v.disk, "a", UUID, *MORE, "-vnc", f"unix:{vnc}") as real, v.qmp() as ours, Qmp(real.path) as theirs:
            mine = seen_by_vnc(ours, v.d.call("vm.vnc", vm="a")["path"])
            other = seen_by_vnc(theirs, vnc)
            for a, b in zip(mine, other):
                assert shape(a) == shape(b), f"\n{a}\n{b}"
            for command, arguments in [
                    ("send-key", {"keys": [QCODE]}), ("send-key", {"keys": []}), ("send-key", {}), ("send-key", {"keys": [{"type": "x"}]}),
                    ("input-send-event", {"events": [key(QCODE)]}), ("input-send-event", {}), ("cont", {}),
                    ("input-send-event", {"events": [key(QCODE), key(QCODE, False)]}),
                    ("input-send-event", {"events": [{"type": "abs", "data": {"axis": "x", "value": 5}}]}),
                    ("screendump", {}), ("screendump", {"filename": os.path.join(v.d.dir, "a.ppm")}),
                    ("screendump", {"filename": "/nowhere/x"}), ("screendump", {"filename": "x", "format": "jpeg"})]:
                a, b = [q.ask(json.dumps({"execute": command, "arguments": arguments})) for q in (ours, theirs)]
                if os.path.exists(os.path.join(v.d.dir, "a.ppm")):
                    os.unlink(os.path.join(v.d.dir, "a.ppm"))
                assert shape(a) == shape(b) and a.get("error", {}).get("class") == b.get("error", {}).get("class"), \
                    f"{command} {arguments}\n{a}\n{b}"
            a, b = [q.execute("query-pci") for q in (ours, theirs)]
            assert len(a) == len(b) == 1 and names(a) == names(b), f"\n{names(a)}\n{names(b)}"
            kinds = [{(d["id"]["vendor"], d["id"]["device"]): d["class_info"] for d in functions(x[0])} for x in (a, b)]
            both = set(kinds[0]) & set(kinds[1])
            assert len(both) >= 4, kinds
            assert all(kinds[0][k] == kinds[1][k] for k in both), f"\n{kinds[0]}\n{kinds[1]}"


def pci_tree_is_that_of_the_guest():
    with Vm(root_ports=2, panic=True) as v, v.qmp() as q:
        (root,) = q.execute("query-pci")
        assert root["bus"] == 0 and root["devices"][0]["class_info"] == {"class": 0x600, "desc": "Host bridge"}
        ports = [d["pci_bridge"] for d in root["devices"] if "pci_bridge" in d]
        assert len(ports) == 2, ports
        assert all(p.get("devices", []) == [] for p in ports)
        panic = [d for d in root["devices"] if (d["id"]["vendor"], d["id"]["device"]) == (0x1b36, 0x11)]
        assert len(panic) == 1 and panic[0]["regions"][0]["type"] == "memory", root["devices"]
        places = [(d["slot"], d["function"]) for d in root["devices"]]
        assert len(set(places)) == len(places), places


CASES = [pictures_are_written_to_new_or_empty_files, keys_and_pointers_are_taken, without_a_screen_there_is_nothing,
         vnc_clients_are_told, pci_tree_is_that_of_the_guest, replies_have_the_shapes_of_qemu]

if __name__ == "__main__":
    wanted = sys.argv[1:]
    sys.exit(tap.run_cases([c for c in CASES if not wanted or c.__name__ in wanted]))
