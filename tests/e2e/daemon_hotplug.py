# SPDX-License-Identifier: Apache-2.0
"""Disks and network cards that come and go through the daemon: calls, vmctl, QMP, definitions, files, restarts.

The guest is a small program without drivers: what it does not use goes at once. Real drivers are in guest_hotplug.py.
"""

import json
import os
import socket
import subprocess
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402

MIB = 1 << 20


def image(daemon, name, size=MIB):
    path = os.path.join(daemon.dir, name)
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def running(daemon, client, slots=2, **more):
    client.call("vm.define", config=daemon.config("a", root_ports=slots, **more))
    client.call("vm.start", vm="a")


def devices(client):
    """{name: attached, detached or refused}, the last event of each."""
    events = client.call("event.list", types=["vm-device"])["events"]
    return {e["detail"]["name"]: e["reason"] for e in events}


def names(client, kind="disks"):
    return [d["name"] for d in client.call("vm.get", vm="a")["config"][kind]]


def descriptors(daemon):
    """Open files of the emulator below the daemon's folder."""
    pid = next(iter(daemon.emulators().values()))[0]
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            pass
    return [path for path in found if path.endswith(".img")]


def a_disk_comes_and_goes_without_a_trace():
    with lib.Daemon() as daemon, daemon.client(60) as client:
        path = image(daemon, "one.img")
        running(daemon, client)
        for bus in ("virtio-pci", "nvme"):
            out = client.call("vm.attach", vm="a", disk={"file": path, "bus": bus, "name": "data"})
            tap.check(out == {"kind": "disk", "name": "data", "live": True, "config": False}, str(out))
            tap.check(descriptors(daemon) == [path], "the emulator has the file")
            error = client.fails("exists", "vm.attach", vm="a", disk={"file": image(daemon, "x.img"), "name": "data"})
            tap.check("already" in error.message, str(error))
            out = client.call("vm.detach", vm="a", disk="data")
            tap.check(out == {"kind": "disk", "name": "data"}, str(out))
            tap.check(descriptors(daemon) == [], f"nothing is open: {descriptors(daemon)}")
            tap.check(devices(client)["data"] == "detached", "told")
        tap.check(names(client) == [], "the definition is as it was")
        tap.check("no disk 'data'" in client.fails("not-found", "vm.detach", vm="a", disk="data").message, "gone")


def slots_and_names_are_given_until_there_are_none():
    with lib.Daemon() as daemon, daemon.client(60) as client:
        running(daemon, client, disks=[{"file": image(daemon, "root.img"), "bus": "virtio-pci"}])
        first, second = (client.call("vm.attach", vm="a", disk={"file": image(daemon, f"{n}.img")})["name"]
                         for n in range(2))
        tap.check((first, second) == ("disk1", "disk2"), f"{first} {second}")
        error = client.fails("host-limit", "vm.attach", vm="a", disk={"file": image(daemon, "no.img")})
        tap.check("slot is taken" in error.message, str(error))
        tap.check("no hot-plug slot" in client.fails("unsupported", "vm.detach", vm="a", disk="disk0").message, "root bus")
        client.call("vm.detach", vm="a", disk=first)
        client.call("vm.attach", vm="a", disk={"file": image(daemon, "no.img")})
        tap.check(len(descriptors(daemon)) == 3, str(descriptors(daemon)))


def definitions_keep_what_they_are_told_to():
    with lib.Daemon() as daemon, daemon.client(60) as client:
        one, two = image(daemon, "one.img"), image(daemon, "two.img")
        client.call("vm.define", config=daemon.config("a", root_ports=2))
        out = client.call("vm.attach", vm="a", disk={"file": one, "name": "one"})
        tap.check(out["config"] and not out["live"], str(out))
        tap.check("does not run" in client.fails("bad-state", "vm.attach", vm="a", live=True,
                                                 disk={"file": two}).message, "not live")
        client.call("vm.start", vm="a")
        client.call("vm.attach", vm="a", live=True, config=True, disk={"file": two, "name": "two", "bus": "nvme"})
        tap.check(names(client) == ["one", "two"], str(names(client)))
        daemon.kill()
        daemon.start()
        with daemon.client(60) as again:
            again.call("vm.detach", vm="a", disk="one")  # after the start, and by a daemon that did not start it
            tap.check(names(again) == ["one", "two"], "the definition has it still")
            again.call("vm.stop", vm="a", force=True)
            again.call("vm.start", vm="a")
            tap.check(sorted(descriptors(daemon)) == sorted([one, two]), str(descriptors(daemon)))
            again.call("vm.detach", vm="a", live=True, config=True, disk="two")
            again.call("vm.detach", vm="a", config=True, disk="one")
            tap.check(names(again) == [], str(names(again)))
            again.fails("not-found", "vm.detach", vm="a", config=True, disk="one")


def cards_come_and_go():
    with lib.Daemon() as daemon, daemon.client(60) as client, socket.socket(socket.AF_UNIX) as peer:
        path = os.path.join(daemon.dir, "peer.sock")
        peer.bind(path)
        os.chmod(path, 0o777)
        peer.listen()
        running(daemon, client)
        out = client.call("vm.attach", vm="a", nic={"type": "stream", "path": path})
        tap.check(out["name"] == "nic0" and out["kind"] == "nic", str(out))
        with peer.accept()[0] as end:
            client.call("vm.detach", vm="a", nic="nic0")
            end.settimeout(60)
            tap.check(end.recv(1) == b"", "the card's end is closed")
        client.call("vm.attach", vm="a", nic={"type": "none", "name": "dark"})
        client.call("vm.detach", vm="a", nic="dark")
        client.call("vm.attach", vm="a", nic={"type": "user", "name": "nat"})
        client.call("vm.detach", vm="a", nic="nat")
        error = client.fails("not-found", "vm.attach", vm="a", nic={"type": "network", "network": "none"})
        tap.check("no network 'none'" in error.message, f"{error}")


def what_makes_no_sense_is_refused():
    with lib.Daemon() as daemon, daemon.client(60) as client:
        running(daemon, client)
        path = image(daemon, "one.img")
        client.fails("invalid-params", "vm.attach", vm="a")
        client.fails("invalid-params", "vm.attach", vm="a", disk={"file": path}, nic={"type": "none"})
        client.fails("invalid-params", "vm.detach", vm="a")
        client.fails("not-found", "vm.attach", vm="nobody", disk={"file": path})
        client.fails("unsupported", "vm.attach", vm="a", disk={"file": path, "bus": "virtio-mmio"})
        client.fails("file-error", "vm.attach", vm="a", disk={"file": os.path.join(daemon.dir, "missing.img")})
        client.fails("invalid-params", "vm.attach", vm="a", disk={"file": path, "format": "qcow2"})
        client.call("vm.attach", vm="a", disk={"file": path, "name": "good"})  # nothing of it is in the way
        client.call("vm.detach", vm="a", disk="good")
        tap.check(descriptors(daemon) == [], str(descriptors(daemon)))


def entropy_devices_come_and_go():
    with lib.Daemon() as daemon, daemon.client(60) as client:
        running(daemon, client)
        base = [os.path.join(lib.BUILD, "vmctl"), "--dir", daemon.dir]
        out = client.call("vm.attach", vm="a", rng="more")
        tap.check(out == {"kind": "rng", "name": "more", "live": True, "config": False}, str(out))
        client.fails("exists", "vm.attach", vm="a", rng="more")
        client.fails("unsupported", "vm.attach", vm="a", rng="other", config=True)
        client.fails("invalid-params", "vm.attach", vm="a", rng="x", channel={"name": "x"})
        for words in (["attach", "--rng", "second", "a"], ["detach", "--rng", "second", "a"], ["detach", "--rng", "more", "a"]):
            run = subprocess.run([*base, *words], capture_output=True, text=True, timeout=60, check=False)
            tap.check(run.returncode == 0, run.stdout + run.stderr)
        tap.check(devices(client) == {"more": "detached", "second": "detached"}, str(devices(client)))
        client.fails("not-found", "vm.detach", vm="a", rng="more")


def vmctl_and_qmp_do_the_same():
    with lib.Daemon() as daemon, daemon.client(60) as client:
        path = image(daemon, "one.img")
        running(daemon, client)
        base = [os.path.join(lib.BUILD, "vmctl"), "--dir", daemon.dir]
        run = subprocess.run([*base, "--json", "attach", "--disk", f"{path},name=data", "a"], capture_output=True,
                             text=True, timeout=60, check=False)
        tap.check(run.returncode == 0 and json.loads(run.stdout)["name"] == "data", run.stdout + run.stderr)
        run = subprocess.run([*base, "detach", "--disk", "data", "--timeout", "20s", "a"], capture_output=True, text=True,
                             timeout=60, check=False)
        tap.check(run.returncode == 0 and descriptors(daemon) == [], run.stdout + run.stderr)
        client.call("vm.attach", vm="a", config=True, live=True, disk={"file": path, "name": "data"})
        with daemon.qmp() as qmp:
            qmp.execute("device_del", id="data")
            event = qmp.event("DEVICE_DELETED")
            tap.check(event["data"] == {"device": "data", "path": "/machine/peripheral/data"}, str(event))
        tap.check(descriptors(daemon) == [], str(descriptors(daemon)))


if __name__ == "__main__":
    sys.exit(tap.run_cases([
        a_disk_comes_and_goes_without_a_trace,
        slots_and_names_are_given_until_there_are_none,
        definitions_keep_what_they_are_told_to,
        cards_come_and_go,
        what_makes_no_sense_is_refused,
        entropy_devices_come_and_go,
        vmctl_and_qmp_do_the_same,
    ]))
