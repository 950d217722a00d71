#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""QMP of a running VM: every command of the table, events and their order, several clients, restarts of the daemon; and the
same script under QEMU, whose replies must have the same shapes."""

import json
import os
import pathlib
import signal
import socket
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(TOP / "tests/lib"), str(TOP / "tests/e2e")]

import daemon_lib  # noqa: E402
import qmp_lib  # noqa: E402
import tap  # noqa: E402
from daemon_lib import MIB, Client, Daemon, wait_for  # noqa: E402
from qmp_lib import CAPABILITIES, Qemu, Qmp  # noqa: E402

UUID = "11111111-2222-3333-4444-555555555555"
TABLE = json.loads((TOP / "api-schema/qmp/qmp.json").read_text(encoding="utf-8"))


class Vm:
    """A daemon with one VM of two vCPUs and a disk, running."""

    def __init__(self, paused=False, **more):
        self.paused, self.more = paused, more

    def __enter__(self):
        self.d = Daemon()
        self.d.start()
        try:
            self.disk = os.path.join(self.d.dir, "disk.raw")
            with open(self.disk, "wb") as file:
                file.truncate(MIB)
            self.create("a", uuid=UUID, cpus=2, disks=[{"file": self.disk}], **self.more)
        except BaseException:
            self.d.end()
            raise
        return self

    def create(self, name, **more):
        with self.d.client() as c:
            c.call("vm.define", config=self.d.config(name, **more))
            c.call("vm.start", vm=name, paused=self.paused)

    def __exit__(self, *_):
        self.d.end()

    def path(self, name="a"):
        return self.d.call("vm.get", vm=name)["qmp"]

    def qmp(self, name="a", **more):
        return self.d.qmp(name, **more)


@tap.local("a VM's own socket, whose greeting and out-of-band execution the shared listener lacks")
def greeting_and_negotiation():
    with Vm() as v, v.qmp(ready=False) as q:
        version = q.greeting["QMP"]["version"]
        assert version["qemu"] == {"major": 7, "minor": 2, "micro": 0} and version["package"].startswith("vmd ")
        assert q.greeting["QMP"]["capabilities"] == ["oob"]
        desc = q.fails("CommandNotFound", "query-status")
        assert desc == "Expecting capabilities negotiation with 'qmp_capabilities'", desc
        assert q.execute("qmp_capabilities") == {}
        desc = q.fails("CommandNotFound", "qmp_capabilities")
        assert desc == "Capabilities negotiation is already complete, command ignored", desc
        assert q.ask('{"exec-oob":"query-yank"}')["error"]["desc"] == "QMP input member 'exec-oob' is unexpected"
    with Vm() as v, v.qmp(ready=False) as q:
        q.execute("qmp_capabilities", enable=["oob"])
        assert q.ask('{"exec-oob":"query-yank","id":7}') == {"return": [], "id": 7}
        error = q.ask('{"exec-oob":"query-status"}')["error"]
        assert error == {"class": "GenericError", "desc": "The command query-status does not support OOB"}, error


@tap.local("begins before the negotiation on a VM's own socket")
def commands_come_in_any_packaging():
    with Vm() as v, v.qmp(ready=False) as q:
        q.send(CAPABILITIES + '{"execute":"query-name","id":1} {"execute":\n"query-name",\n\n"id":[2,{"a":null}]}')
        assert q.answer() == {"return": {}}
        assert q.answer() == {"return": {"name": "a"}, "id": 1}
        assert q.answer() == {"return": {"name": "a"}, "id": [2, {"a": None}]}
        for byte in b'{"execute":"query-name","id":"bytes"}':
            q.send(bytes([byte]))
        assert q.answer()["id"] == "bytes"
        q.send('{"execute":"query-name"}\r\n' * 200)
        for _ in range(200):
            assert q.answer() == {"return": {"name": "a"}}
        q.send('{"execute":"query-name","id":"last"}')
        q.sock.shutdown(socket.SHUT_WR)
        assert q.answer()["id"] == "last"


def runs_and_tells_in_the_order_of_qemu():
    with Vm(paused=True) as v, v.qmp() as q:
        assert q.execute("query-status") == {"status": "prelaunch", "singlestep": False, "running": False}
        q.order.clear()
        q.execute("cont")
        q.execute("cont")
        assert q.execute("query-status")["status"] == "running"
        q.execute("stop")
        q.execute("stop")
        assert q.execute("query-status") == {"status": "paused", "singlestep": False, "running": False}
        q.execute("cont")
        assert q.order == ["RESUME", "return", "return", "return", "STOP", "return", "return", "return", "RESUME",
                           "return"], q.order
        before = time.time()
        q.execute("system_reset")
        event = q.event("RESET")
        assert event["data"] == {"guest": False, "reason": "host-qmp-system-reset"}, event
        at = event["timestamp"]
        assert set(at) == {"seconds", "microseconds"} and abs(at["seconds"] - before) < 60 and at["microseconds"] < 10**6
        assert q.order[-2:] == ["return", "RESET"], q.order
        q.execute("quit")
        assert q.event("SHUTDOWN")["data"] == {"guest": False, "reason": "host-qmp-quit"}
        assert q.order[-2:] == ["return", "SHUTDOWN"], q.order
        try:
            assert not q.bound or not q.read(), "the socket outlived the VM"
        except EOFError:
            pass
        wait_for(lambda: v.d.call("vm.get", vm="a")["state"] == "stopped", what="the VM has ended")
        assert "qmp" not in v.d.call("vm.get", vm="a")


def guest_that_powers_off_is_told_as_such():
    with Vm() as v:
        v.d.call("vm.define", config=v.d.config("off", firmware=v.d.guest("off")))
        v.d.call("vm.start", vm="off", paused=True)
        with v.qmp("off") as q:
            q.execute("cont")
            assert q.event("SHUTDOWN")["data"] == {"guest": True, "reason": "guest-shutdown"}
            assert "RESUME" in q.order and q.order.index("RESUME") < q.order.index("SHUTDOWN"), q.order


def actions_make_a_reset_an_end_and_keep_a_vm_that_powers_off():
    reset_required = "Resetting the Virtual Machine is required"
    with Vm() as v:
        for name in ("off", "again"):
            v.d.call("vm.define", config=v.d.config(name, firmware=v.d.guest(name)))
            v.d.call("vm.start", vm=name, paused=True)
        with v.qmp("off") as q:
            q.execute("set-action", shutdown="pause", reboot="reset", panic="none", watchdog="none")
            for _ in range(2):
                q.execute("cont")
                assert q.event("SHUTDOWN")["data"] == {"guest": True, "reason": "guest-shutdown"}
                q.event("STOP")
                assert q.order[-2:] == ["SHUTDOWN", "STOP"], q.order
                assert q.execute("query-status") == {"status": "shutdown", "singlestep": False, "running": False}
                assert q.fails("GenericError", "cont") == reset_required
                q.execute("stop")
                q.execute("system_reset")
                assert q.event("RESET")["data"]["guest"] is False
                assert q.execute("query-status")["status"] == "prelaunch"
            desc = q.fails("GenericError", "set-action", shutdown="poweroff", watchdog="debug")
            assert desc == "Action 'debug' of 'watchdog' is not supported", desc
            assert "no watchdog" in q.fails("GenericError", "set-action", shutdown="poweroff", watchdog="pause")
            q.execute("cont")
            q.event("STOP")  # the refused command has changed nothing
            if q.bound:
                v.d.kill()
                v.d.start()
        with v.qmp("off") as q:
            wait_for(lambda: q.execute("query-status")["status"] == "shutdown", what="it is kept")
            assert q.fails("GenericError", "cont") == reset_required
            error = v.d.client().fails("bad-state", "vm.resume", vm="off")
            assert "has powered off" in error.message and "vmctl reset" in error.remedy, error
            q.execute("quit")
            told = q.event("SHUTDOWN")["data"]
            if told["guest"]:  # the daemon that took the VM up again tells once more how it stands
                told = q.event("SHUTDOWN")["data"]
            assert told == {"guest": False, "reason": "host-qmp-quit"}, told
        with v.qmp("again") as q:
            q.execute("set-action", reboot="shutdown")
            q.execute("cont")
            assert q.event("SHUTDOWN")["data"] == {"guest": True, "reason": "guest-reset"}
        wait_for(lambda: v.d.call("vm.get", vm="again")["state"] == "stopped", what="its end")
        assert v.d.call("vm.get", vm="again")["exit"]["reason"] == "reset"
        with v.qmp() as q:
            q.execute("set-action", reboot="shutdown")
            q.execute("system_reset")
            assert q.event("SHUTDOWN")["data"] == {"guest": False, "reason": "host-qmp-system-reset"}
        wait_for(lambda: v.d.call("vm.get", vm="a")["state"] == "stopped", what="its end")
        exit = v.d.call("vm.get", vm="a")["exit"]
        assert exit["reason"] == "host-reset" and exit["status"] == 0, exit


def what_the_api_does_is_told_here_and_the_other_way_round():
    with Vm() as v, v.qmp() as one, v.qmp() as two, v.d.client() as c:
        c.call("event.subscribe")
        c.call("vm.pause", vm="a")
        for q in (one, two):
            assert "data" not in q.event("STOP")
        one.execute("cont")
        two.event("RESUME")
        c.call("vm.reset", vm="a")
        for q in (one, two):
            assert q.event("RESET")["data"]["guest"] is False
        c.call("api.ping")
        told = [(e["type"], e.get("state")) for e in c.events]
        assert told == [("vm-state", "paused"), ("vm-state", "running"), ("vm-reset", None)], told
        one.execute("stop")
        assert v.d.call("vm.get", vm="a")["state"] == "paused"
        emulator = v.d.call("vm.get", vm="a")["pid"]
        os.kill(emulator, signal.SIGKILL)
        for q in (one, two):
            assert q.event("SHUTDOWN")["data"] == {"guest": False, "reason": "host-error"}


def tells_what_a_vm_is():
    with Vm() as v, v.qmp() as q:
        info = v.d.call("vm.get", vm="a")
        assert q.execute("query-uuid") == {"UUID": UUID}
        assert q.execute("query-name") == {"name": "a"}
        assert q.execute("query-memory-size-summary") == {"base-memory": 16 * MIB}
        assert q.execute("query-kvm")["enabled"] is False
        assert q.execute("query-target") == {"arch": "riscv64"}
        assert q.execute("query-version")["qemu"]["major"] == 7
        cpus = q.execute("query-cpus-fast")
        tasks = {int(t) for t in os.listdir(f"/proc/{info['pid']}/task")}
        assert [c["cpu-index"] for c in cpus] == [0, 1] and {c["thread-id"] for c in cpus} <= tasks, (cpus, tasks)
        block, = q.execute("query-block")
        assert block["device"] == "disk0" and block["inserted"]["image"]["virtual-size"] == MIB, block
        assert block["inserted"]["file"] == v.disk
        q.execute("block_resize", device="disk0", size=2 * MIB)
        block, = q.execute("query-block")
        assert block["inserted"]["image"]["virtual-size"] == 2 * MIB == os.path.getsize(v.disk), block
        assert v.d.call("vm.disk_resize", vm="a", disk="disk0", size=3 * MIB) == {"size": 3 * MIB}
        assert "may use them all" in q.fails("GenericError", "block_resize", node_name="disk0", size=MIB)
        q.fails("DeviceNotFound", "block_resize", device="nope", size=4 * MIB)
        limits(v, q)
        assert q.execute("query-named-block-nodes")[0]["node-name"] == "disk0"
        assert q.execute("query-blockstats")[0]["stats"]["rd_operations"] == 0
        assert {c["label"] for c in q.execute("query-chardev")} == {"compat_monitor0", "serial0"}
        assert [d["name"] for d in q.execute("query-cpu-definitions")] == ["max", "rv64"]
        assert q.execute("query-pci")[0]["devices"][0]["qdev_id"]
        assert q.execute("query-rx-filter") == []  # it has no card
        assert q.fails("GenericError", "qom-set", path="/machine", property="type", value=1).endswith("is not writable")
        assert "no console" in q.fails("GenericError", "screendump", filename="/tmp/x")
        assert q.execute("query-iothreads") == q.execute("query-jobs") == q.execute("query-block-jobs") == []
        stats, = q.execute("query-stats", target="vm", providers=[{"provider": "vmd", "names": ["cpu-time"]}])
        assert [s["name"] for s in stats["stats"]] == ["cpu-time"] and stats["stats"][0]["value"] > 0, stats
        assert [s["qom-path"] for s in q.execute("query-stats", target="vcpu", vcpus=["/machine/cpu[1]"])] == ["/machine/cpu[1]"]
        assert {s["target"] for s in q.execute("query-stats-schemas")} == {"vm", "vcpu"}
        assert q.execute("qom-get", path="/machine/peripheral/disk0", property="serial") == "disk0"
        assert q.execute("qom-get", path="/machine", property="firmware") == info_config(v)["firmware"]
        state = [p["name"] for p in q.execute("qom-list", path="/machine/peripheral/serial0")]
        assert "state.lcr" in state, state
        assert q.execute("qom-get", path="/machine/peripheral/serial0", property="state.lcr").startswith("0x")
        names = [p["name"] for p in q.execute("device-list-properties", typename="virtio-blk")]
        assert "serial" in names
        assert q.fails("DeviceNotFound", "device-list-properties", typename="nope")
        assert q.fails("DeviceNotFound", "device_del", id="nope") == "Device 'nope' not found"
        assert "no hot-plug slot" in q.fails("GenericError", "device_del", id="disk0")
        assert "does not listen to its power button" in q.fails("GenericError", "system_powerdown")


def limits(v, q):
    """By QMP until the VM ends; by disk.throttle in the definition, too."""
    def seen():
        got = q.execute("query-block")[0]["inserted"]
        return {k: got[k] for k in got if k.startswith(("bps", "iops")) and got[k] or k == "group"}

    q.ask(json.dumps({"execute": "block_set_io_throttle", "arguments": NONE | {
        "id": "disk0", "bps_rd": 1000, "bps_rd_max": 5000, "bps_rd_max_length": 3, "iops": 9, "group": "g"}}))
    assert seen() == {"bps_rd": 1000, "bps_rd_max": 5000, "bps_rd_max_length": 3, "iops": 9, "group": "g"}, seen()
    assert "throttle" not in info_config(v)["disks"][0]
    v.d.call("disk.throttle", vm="a", disk="disk0", throttle={"total_bytes_sec": 1 << 20, "size_iops_sec": 4096,
                                                             "write_iops_sec": 50, "write_iops_sec_max": 70})
    assert seen() == {"bps": 1 << 20, "iops_wr": 50, "iops_wr_max": 70, "iops_wr_max_length": 1, "iops_size": 4096,
                      "group": "disk0"}, seen()
    assert info_config(v)["disks"][0]["throttle"]["write_iops_sec_max"] == 70
    with v.d.client() as c:
        c.fails("not-found", "disk.throttle", vm="a", disk="nope")
        c.fails("invalid-params", "disk.throttle", vm="a", disk="disk0", throttle={"read_iops_sec_max": 5})
        c.fails("invalid-params", "vm.set", vm="a", set={"disks": [{"file": v.disk, "throttle": {
            "total_bytes_sec": 5, "read_bytes_sec": 5}}]})
    q.ask(json.dumps({"execute": "block_set_io_throttle", "arguments": NONE | {"device": "disk0"}}))
    assert seen() == {}, seen()
    v.d.call("disk.throttle", vm="a", disk="disk0")
    assert "throttle" not in info_config(v)["disks"][0]


def info_config(v):
    return v.d.call("vm.get", vm="a")["config"]


def human_monitor_answers_in_text():
    def hmp(line, **more):
        return q.execute("human-monitor-command", command_line=line, **more)

    with Vm() as v, v.qmp() as q:
        assert hmp("info status") == "VM status: running\r\n"
        assert hmp("info name") == "a\r\n" and hmp("info uuid") == UUID + "\r\n"
        assert hmp("nope") == "unknown command: 'nope'\r\n"
        assert hmp("xp /4xw 0x1000") == "0000000000001000: 0x00000297 0x02828613 0xf1402573 0x0202b583\r\n"
        assert hmp("x /2xb 0x1000") == "0000000000001000: 0x97 0x02\r\n"
        assert "there is no memory at 0x0" in q.fails("GenericError", "human-monitor-command", command_line="xp /1xw 0")
        assert "usage" in hmp("xp /zz 5") and "4096" in hmp("xp /99999xg 0x80000000")
        assert "CPU#1\r\n" in hmp("info registers", cpu_index=1) and "pc = 0x" in hmp("info registers")
        assert hmp("info cpus").count("thread_id=") == 2
        assert "virtual" not in hmp("info block") and "disk0 (disk0)" in hmp("info block")
        assert 'dev: ns16550a, id "serial0"' in hmp("info qtree") and "info status" in hmp("help")
        assert v.d.call("vm.qmp", vm="a", execute="query-name") == {"result": {"name": "a"}}
        error = v.d.call("vm.qmp", vm="a", execute="stop", arguments={"x": 1})["error"]
        assert error == {"class": "GenericError", "desc": "Parameter 'x' is unexpected"}, error


def schema_is_that_of_the_table():
    with Vm() as v, v.qmp() as q:
        schema = {e["name"]: e for e in q.execute("query-qmp-schema")}
        commands = {n for n, e in schema.items() if e["meta-type"] == "command"}
        assert commands == set(TABLE["commands"]), commands ^ set(TABLE["commands"])
        assert {n for n, e in schema.items() if e["meta-type"] == "event"} == set(TABLE["events"])
        listed = {c["name"] for c in q.execute("query-commands")}
        assert listed == commands - ({"vmd-select"} if q.bound else set())
        for e in schema.values():
            for key in ("arg-type", "ret-type", "element-type"):
                assert key not in e or e[key] in schema, e
            for m in e.get("members", []):
                assert "type" not in m or m["type"] in schema, e
        for names in TABLE["missing"].values():
            for name in names["commands"]:
                assert q.fails("CommandNotFound", name) == f"The command {name} has not been found"


@tap.local("descriptors are passed by unix sockets only")
def descriptors_are_taken_and_closed():
    with Vm() as v, v.qmp() as q:
        daemon = f"/proc/{v.d.process.pid}/fd"
        before = len(os.listdir(daemon))
        with open("/dev/null", "rb") as null:
            assert q.ask('{"execute":"getfd","arguments":{"fdname":"one"}}', [null.fileno()]) == {"return": {}}
            assert q.ask('{"execute":"getfd","arguments":{"fdname":"one"}}', [null.fileno()] * 3) == {"return": {}}
            assert len(os.listdir(daemon)) == before + 1
            assert q.fails("GenericError", "getfd", fdname="two") == "No file descriptor supplied via SCM_RIGHTS"
            for i in range(40):
                q.ask(json.dumps({"execute": "getfd", "arguments": {"fdname": f"n{i}"}}), [null.fileno()])
            assert len(os.listdir(daemon)) == before + 32
        assert q.execute("closefd", fdname="one") == {}
        assert q.fails("GenericError", "closefd", fdname="one") == "File descriptor named 'one' not found"
        q.close()
        wait_for(lambda: len(os.listdir(daemon)) < before, what="descriptors of a client that left are closed")


@tap.local("the unix socket; remotely each QMP session does this")
def vmd_sock_speaks_both():
    with Vm() as v:
        v.create("b")
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.connect(v.d.sock)
        q = Qmp.__new__(Qmp)
        q.sock, q.data, q.events, q.order = s, b"", [], []
        hello = json.loads(s.makefile("rb").readline())
        assert hello["method"] == "hello" and hello["QMP"]["capabilities"] == [] and hello["params"]["schema"]
        assert q.ask(CAPABILITIES + "\n") == {"return": {}}
        assert "No VM is selected" in q.fails("GenericError", "query-status")
        assert q.fails("DeviceNotFound", "vmd-select", vm="nope")
        q.execute("vmd-select", vm="b")
        q.send('{"execute":\n"query-name"}{"execute":"stop"}')
        assert q.answer() == {"return": {"name": "b"}} and q.answer() == {"return": {}}
        assert [e["event"] for e in q.events] == ["STOP"]
        q.execute("vmd-select", vm=UUID)
        assert q.execute("query-name") == {"name": "a"} and q.execute("query-status")["running"]
        assert q.ask('{"jsonrpc":"2.0","id":1,"method":"api.ping"}')["error"]["class"] == "GenericError"
        s.close()


def wedged_emulator_delays_nobody():
    with Vm() as v:
        v.create("b")
        with v.qmp() as stuck, v.qmp("b") as well:
            pid = v.d.call("vm.get", vm="a")["pid"]
            os.kill(pid, signal.SIGSTOP)
            try:
                stuck.send('{"execute":"query-block"}{"execute":"query-name"}')
                assert well.execute("query-block") == [] and well.execute("query-status")["running"]
                assert len(v.qmp().execute("query-cpus-fast")) == 2  # no emulator is asked
                reply = stuck.answer()
                assert reply["error"]["desc"] == "the emulator of VM 'a' does not answer", reply
                assert stuck.answer() == {"return": {"name": "a"}}
            finally:
                os.kill(pid, signal.SIGCONT)


def emulator_that_answers_nonsense_does_no_harm():
    with Daemon(emulator=daemon_lib.FAKE) as d, d.client() as c:
        c.call("vm.define", config={"name": "a", "kernel": d.guest(), "firmware": "none"})
        c.call("vm.start", vm="a")
        with d.qmp() as q:
            assert q.execute("query-block") == [] and q.execute("query-named-block-nodes") == []
            for line in ("info registers", "info qtree"):
                q.execute("human-monitor-command", command_line=line)
            assert q.fails("GenericError", "human-monitor-command", command_line="xp 0") == "the emulator answered wrongly"
            for path in ("/machine/peripheral", "/machine/peripheral/x"):
                q.execute("qom-list", path=path)
            assert q.fails("DeviceNotFound", "qom-get", path="/machine/peripheral/x", property="y")
            assert q.execute("device-list-properties", typename="x") == []
            assert q.execute("query-name") == {"name": "a"}


@tap.local("the files of the sockets")
def sockets_come_back_with_the_daemon():
    with Vm() as v:
        q = v.qmp()
        path = v.path()
        v.d.kill()
        try:
            q.read()
            raise AssertionError("the daemon is gone, the connection is not")
        except EOFError:
            q.close()
        v.d.start()
        assert v.path() == path
        with v.qmp() as again:
            assert again.execute("query-status")["status"] == "running"
            again.execute("stop")
            assert again.events[0]["event"] == "STOP"
        v.d.terminate()
        assert not os.path.exists(path)
        v.d.start()
        with v.qmp() as again:
            assert again.execute("query-status")["status"] == "paused"
            again.execute("quit")
            again.event("SHUTDOWN")
        wait_for(lambda: not os.path.exists(path), what="the socket is gone with the VM")


@tap.local("the files of the sockets")
def sockets_of_many_come_back_unasked():
    with Daemon(emulator=daemon_lib.FAKE) as d:
        names = [f"m{number}" for number in range(12)]
        for name in names:
            d.call("vm.define", config={"name": name, "kernel": d.guest(), "firmware": "none"})
            d.call("vm.start", vm=name)
        d.kill()
        d.start()
        with d.qmp(names[-1]) as q:  # asked for by name: at once
            assert q.execute("query-name") == {"name": names[-1]}
        wait_for(lambda: all("qmp" in vm for vm in d.call("vm.list")["vms"]), what="every VM has its socket")
        for vm in d.call("vm.list")["vms"]:
            with qmp_lib.Qmp(vm["qmp"]) as q:
                assert q.execute("query-name") == {"name": vm["name"]}


@tap.local("the bound of a VM's own socket; --tls-max bounds the listener")
def clients_are_bounded():
    with Vm() as v:
        many = [v.qmp() for _ in range(16)]
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.connect(v.path())
        assert b"too many clients" in s.recv(4096)
        s.close()
        many.pop().close()
        wait_for(lambda: not refused(v), what="a place that became free is given again")
        assert v.d.call("api.ping") == {}  # the daemon's own clients are counted apart
        for q in many:
            q.close()


def refused(v):
    try:
        v.qmp().close()
        return False
    except KeyError:
        return True


# --- against QEMU ---------------------------------------------------------------------------------

NONE = {k: 0 for k in ("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr")}
SCRIPT = [
    ("query-status", {}), ("query-name", {}), ("query-uuid", {}), ("query-kvm", {}), ("query-version", {}),
    ("query-machines", {}), ("query-current-machine", {}), ("query-target", {}), ("query-cpus-fast", {}),
    ("query-block", {}), ("query-blockstats", {}), ("query-named-block-nodes", {}), ("query-chardev", {}),
    ("query-iothreads", {}), ("query-memory-size-summary", {}), ("query-memory-devices", {}), ("query-jobs", {}),
    ("query-block-jobs", {}), ("query-migrate", {}), ("query-vnc", {}), ("query-fdsets", {}),
    ("query-replay", {}), ("replay-break", {"icount": 1}), ("replay-seek", {"icount": 1}),
    ("replay-break", {"icount": "x"}), ("replay-delete-break", {}), ("query-hotpluggable-cpus", {}), ("query-balloon", {}), ("balloon", {"value": 1}), ("system_wakeup", {}),
    ("inject-nmi", {}), ("job-cancel", {"id": "x"}), ("job-dismiss", {"id": "x"}), ("job-complete", {"id": "x"}),
    ("job-finalize", {"id": "x"}), ("block-job-cancel", {"device": "x"}), ("transaction", {"actions": []}),
    ("transaction", {"actions": [{"type": "abort", "data": {}}]}), ("set_link", {"name": "x", "up": True}),
    ("device_del", {"id": "x"}), ("closefd", {"fdname": "x"}), ("getfd", {"fdname": "x"}),
    ("qom-list", {"path": "/"}), ("qom-list", {"path": "/machine"}), ("qom-list", {"path": "/nope"}),
    ("qom-list", {}), ("qom-get", {"path": "/nope", "property": "x"}), ("qom-get", {"path": 1, "property": "x"}),
    ("device-list-properties", {"typename": "nope"}), ("set-action", {"reboot": "reset"}),
    ("set-action", {"reboot": "nope"}), ("set-action", {"shutdown": "poweroff"}), ("nope", {}), ("stop", {"a": 1}),
    ("query-stats", {}), ("query-stats", {"target": "nope"}), ("qom-list", {"path": "/", "more": []}),
    ("human-monitor-command", {"command-line": "info status"}), ("human-monitor-command", {"command-line": "nope"}),
    ("human-monitor-command", {"command-line": "info name"}), ("human-monitor-command", {"command-line": "info uuid"}),
    ("human-monitor-command", {"command-line": "xp /4xw 0x1000"}), ("cont", {}), ("query-status", {}), ("cont", {}),
    ("stop", {}), ("query-status", {}), ("stop", {}), ("cont", {}), ("set-action", {"panic": "nope"}),
    ("set-action", {"panic": "pause"}), ("query-dump", {}), ("query-dump-guest-memory-capability", {}), ("dump-guest-memory", {"paging": False, "protocol": "fd:x"}),
    ("dump-guest-memory", {"paging": False, "protocol": "x"}), ("dump-guest-memory", {"protocol": "file:/x"}),
    ("dump-guest-memory", {"paging": False, "protocol": "file:/nowhere/x", "begin": 1}),
    ("dump-guest-memory", {"paging": False, "protocol": "file:/nowhere/x", "format": "nope"}),
    ("block_set_io_throttle", NONE | {"device": "x"}), ("block_set_io_throttle", NONE | {"device": "disk0", "bps": -1}),
    ("block_set_io_throttle", NONE | {"device": "disk0", "bps": 1, "bps_rd": 1}),
    ("block_set_io_throttle", NONE | {"device": "disk0", "iops_max": 5}),
    ("block_set_io_throttle", NONE | {"device": "disk0", "iops": 5, "iops_max": 4}),
    ("block_set_io_throttle", NONE | {"device": "disk0", "iops": 5, "iops_max_length": 4}),
    ("block_set_io_throttle", NONE | {"device": "disk0", "bps": 5, "iops_size": 4}),
    ("block_set_io_throttle", NONE | {"device": "disk0", "bps": 9, "bps_max": 10, "iops_rd": 7, "iops_wr": 8, "iops_size": 512}),
    ("query-block", {}), ("block_set_io_throttle", NONE | {"device": "disk0"}), ("query-block", {}),
    ("block-job-pause", {"device": "x"}), ("block-job-resume", {"device": "x"}), ("block-job-complete", {"device": "x"}),
    ("block-job-set-speed", {"device": "x", "speed": 1}), ("job-pause", {"id": "x"}), ("job-resume", {"id": "x"}),
    ("drive-mirror", {"device": "x", "target": "/nowhere/x", "sync": "full"}),
    ("drive-mirror", {"device": "disk0", "target": "/nowhere/x", "sync": "nope"}),
    ("drive-mirror", {"device": "disk0", "sync": "full"}), ("drive-backup", {"device": "disk0", "sync": "full"}),
    ("drive-backup", {"device": "x", "target": "/nowhere/x", "sync": "full"}), ("block-stream", {}),
    ("drive-backup", {"device": "disk0", "target": "/nowhere/x", "sync": "incremental"}),
    ("block-stream", {"device": "x"}),
    ("block-commit", {"device": "x", "base": "/nowhere/x"}), ("query-block-jobs", {}), ("query-jobs", {}),
    ("block-dirty-bitmap-add", {"node": "x", "name": "b"}), ("block-dirty-bitmap-add", {"node": "disk0"}),
    ("block-dirty-bitmap-add", {"node": "disk0", "name": "b"}), ("block-dirty-bitmap-add", {"node": "disk0", "name": "b"}),
    ("query-named-block-nodes", {}), ("block-dirty-bitmap-disable", {"node": "disk0", "name": "b"}),
    ("block-dirty-bitmap-clear", {"node": "disk0", "name": "x"}), ("block-dirty-bitmap-merge", {"node": "disk0", "target": "b"}),
    ("block-dirty-bitmap-remove", {"node": "disk0", "name": "b"}), ("block-dirty-bitmap-remove", {"node": "disk0", "name": "b"}),
    ("blockdev-snapshot-sync", {"device": "x", "snapshot-file": "/nowhere/x"}), ("blockdev-snapshot-sync", {"device": "disk0"}),
    ("blockdev-snapshot-internal-sync", {"device": "x", "name": "s"}), ("query-block-exports", {}),
    ("blockdev-snapshot-delete-internal-sync", {"device": "x", "name": "s"}), ("nbd-server-add", {"device": "disk0"}),
    ("nbd-server-start", {"addr": {"type": "nope"}}), ("nbd-server-start", {}), ("block-export-del", {"id": "x"}),
    ("nbd-server-remove", {"name": "x"}),
    ("blockdev-add", {"driver": "file", "filename": "/nowhere/x"}), ("blockdev-add", {"driver": "file", "node-name": "disk0", "filename": "/x"}),
    ("blockdev-add", {"driver": "qcow2", "node-name": "n"}), ("blockdev-add", {"driver": "qcow2", "node-name": "n", "file": "none"}),
    ("blockdev-del", {"node-name": "x"}), ("blockdev-snapshot", {"node": "x", "overlay": "y"}), ("blockdev-snapshot", {"node": "disk0"}),
    ("blockdev-mirror", {"device": "disk0", "target": "x", "sync": "full"}), ("blockdev-mirror", {"device": "disk0", "sync": "full"}),
    ("blockdev-backup", {"device": "disk0", "target": "x", "sync": "full"}), ("blockdev-backup", {"device": "disk0", "target": "x"}),
    ("query-migrate-capabilities", {}), ("migrate_cancel", {}), ("migrate-set-capabilities", {}),
    ("migrate-set-capabilities", {"capabilities": [{"capability": "nope", "state": True}]}),
    ("migrate-set-capabilities", {"capabilities": [{"capability": "xbzrle", "state": True}]}),
    ("migrate-set-parameters", {"downtime-limit": "x"}), ("migrate-set-parameters", {"downtime-limit": 100}),
    ("migrate", {}), ("migrate", {"uri": "nope"}), ("query-migrate-capabilities", {}),
]
# Errors of the form of a message, word by word.
FORMS = [
    '{"execute":5}', '{"execute":null}', '{"foo":1}', "[]", "1", '"x"', "{}", '{"execute":"stop","arguments":[]}',
    '{"execute":"stop","arguments":1}', '{"execute":"query-name","control":1}', '{"id":1}', '{"arguments":{}}',
    '{"exec-oob":"query-name"}', '{"execute":"query-name","id":null}', '{"execute":"query-name","id":{"a":[1]}}',
    '{"execute":"qmp_capabilities"}', '{"execute":"qom-list","arguments":{"path":null}}',
    '{"execute":"qom-list","arguments":{"path":["/"]}}', '{"execute":"set_link","arguments":{"name":"x","up":1}}',
    '{"execute":"set_link","arguments":{"name":"x","up":"on"}}', '{"execute":"transaction","arguments":{"actions":1}}',
    '{"execute":"balloon","arguments":{"value":"1"}}', '{"execute":"balloon","arguments":{"value":true}}',
]
# What QEMU has beside the members that always are there, or has by its own board.
EXTRA = {"actual-size", "parent", "driver-specific", "alias", "is-default", "default-cpu-type", "default-ram-id"}


def shape(value):
    """Types and member names; a list has the shape of its first element."""
    if isinstance(value, dict):
        return {k: shape(v) for k, v in sorted(value.items()) if k not in EXTRA}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def replies(q):
    out = []
    for command, arguments in SCRIPT:
        message = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        q.events.clear()
        reply = q.ask(json.dumps(message))
        out.append((command, arguments, reply, [e["event"] for e in q.events]))
    for text in FORMS:
        out.append((text, None, q.ask(text + "\n"), []))
    return out


def order_of_end(q):
    """Answers and events of a reset and of the end, as they come."""
    q.order.clear()
    q.execute("system_reset")
    q.event("RESET")
    q.execute("quit")
    q.event("SHUTDOWN")
    return sorted(q.order)


# Whose errors say it in words of our own.
OWN_WORDS = {"replay-break", "replay-delete-break", "replay-seek", "migrate", "blockdev-add", "blockdev-del", "blockdev-snapshot", "blockdev-mirror", "blockdev-backup",
             "migrate-set-capabilities", "migrate-set-parameters", "block-dirty-bitmap-add", "block-dirty-bitmap-clear", "block-dirty-bitmap-remove", "blockdev-snapshot-sync",
             "blockdev-snapshot-internal-sync", "blockdev-snapshot-delete-internal-sync", "nbd-server-add", "nbd-server-remove",
             "block-export-del", "nbd-server-start", "block_set_io_throttle", "drive-mirror", "drive-backup", "block-stream", "block-commit"}
EXACT = {"qom-list": False, "query-version": False, "query-uuid": True, "query-name": True, "query-status": True}


def replies_have_the_shapes_of_qemu():
    if not Qemu.there():
        raise tap.Skip(Qemu.program)
    with Vm(paused=True) as v, Qemu(v.d.guest(), v.disk, "a", UUID) as real:
        with v.qmp() as ours, Qmp(real.path) as theirs:
            assert not ours.bound or shape(ours.greeting) == shape(theirs.greeting)
            wrong = []
            for mine, other in zip(replies(ours), replies(theirs)):
                what = f"{mine[0]} {mine[1]}"
                same = shape(mine[2]) == shape(other[2])
                if "error" in other[2] and same:
                    same = mine[2] == other[2] or mine[0] in OWN_WORDS and mine[2]["error"]["class"] == other[2]["error"]["class"]
                if isinstance(other[2].get("return"), str) or EXACT.get(mine[0]):
                    same = mine[2] == other[2]
                if mine[3] != other[3]:
                    same = False
                if not same:
                    wrong.append(f"{what}\n  ours   {mine[2]} {mine[3]}\n  theirs {other[2]} {other[3]}")
            assert not wrong, "\n".join(wrong)
            mine, other = order_of_end(ours), order_of_end(theirs)
            assert mine == other, (mine, other)


def every_command_of_the_table_is_executed():
    here = pathlib.Path(__file__)
    text = "".join(here.with_name(f"{name}.py").read_text(encoding="utf-8")
                   for name in ("qmp_commands", "qmp_disks", "qmp_migrate", "qmp_plug", "qmp_screen", "qmp_snapshots", "guest_media"))
    missing = [c for c in TABLE["commands"] if f'"{c}"' not in text]
    assert not missing, missing


CASES = [greeting_and_negotiation, commands_come_in_any_packaging, runs_and_tells_in_the_order_of_qemu,
         guest_that_powers_off_is_told_as_such,
         actions_make_a_reset_an_end_and_keep_a_vm_that_powers_off, what_the_api_does_is_told_here_and_the_other_way_round,
         tells_what_a_vm_is, human_monitor_answers_in_text, schema_is_that_of_the_table,
         descriptors_are_taken_and_closed, vmd_sock_speaks_both, wedged_emulator_delays_nobody,
         emulator_that_answers_nonsense_does_no_harm, sockets_come_back_with_the_daemon,
         sockets_of_many_come_back_unasked, clients_are_bounded, replies_have_the_shapes_of_qemu,
         every_command_of_the_table_is_executed]

if __name__ == "__main__":
    wanted = sys.argv[1:]
    sys.exit(tap.run_cases([c for c in CASES if not wanted or c.__name__ in wanted]))
