# SPDX-License-Identifier: Apache-2.0
"""Cards with several queues on taps and bridges, in a network namespace of the test's own: Debian's kernel with two vCPUs sets their number
with ethtool and moves data on each, before and after a saved state; hotplug by QMP; interfaces of one queue, in use, and vanished.

Needs the guests riscv64-net and riscv64-ethtool (tests/guests/fetch).
"""

import hashlib
import os
import socket
import sys
import threading

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import guest  # noqa: E402
import guest_lan  # noqa: E402
import guest_net as net  # noqa: E402
import guest_tap  # noqa: E402
import newc  # noqa: E402
import tap  # noqa: E402
from guest_tap import ip  # noqa: E402

LIMIT = 300.0  # of patience, nothing is measured
MIB = 1 << 20
LIBRARIES = "usr/lib/riscv64-linux-gnu"
HOST, GUEST = "10.78.0.1", "10.78.0.2"


def initrd(folder):
    """The guest's archive, and behind it one with ethtool and what it is linked with."""
    tree = guest.fetched("riscv64-ethtool")["ethtool"]
    archive, seen = newc.Newc(), set()
    for name in ("usr/sbin/ethtool", *(f"{LIBRARIES}/{n}" for n in ("libmnl.so.0", "libc.so.6", "libm.so.6", "ld-linux-riscv64-lp64d.so.1"))):
        parts = name.split("/")
        for n in range(1, len(parts)):
            if "/".join(parts[:n]) not in seen:
                seen.add("/".join(parts[:n]))
                archive.folder("/".join(parts[:n]))
        with open(os.path.realpath(os.path.join(tree, name)), "rb") as file:
            archive.file(name, file.read(), 0o755)
    path = os.path.join(folder, "initrd")
    with open(guest.fetched("riscv64-net")["initrd"], "rb") as file:
        first = file.read()
    with open(path, "wb") as file:
        file.write(first + b"\0" * (-len(first) % 512) + archive.bytes())
    return path


class Bridge:
    def __init__(self, name):
        self.name = name
        ip("link", "add", name, "type", "bridge")
        ip("addr", "add", f"{HOST}/24", "dev", name)
        ip("link", "set", name, "up")

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        ip("link", "del", self.name)


class Machine(guest_lan.Machine):
    def __init__(self, daemon, nics, **more):
        files = dict(guest.fetched("riscv64-net"), initrd=initrd(daemon.dir))
        self.daemon = daemon
        super().__init__(daemon, "ann", files, append="console=ttyS0 vmd.virtio vmd.run=shell", cpus=2, nics=nics, **more)
        self.expect(r"guest# ")
        self.run("mkdir -p /lib; ln -sf /usr/lib/riscv64-linux-gnu/ld-linux-riscv64-lp64d.so.1 /lib/; "
                 "export LD_LIBRARY_PATH=/usr/lib/riscv64-linux-gnu")

    def up(self, link="eth0"):
        self.run(f"until ip link show {link} >/dev/null 2>&1; do sleep 0.2; done; ip addr add {GUEST}/24 dev {link} && ip link set {link} up")
        self.reaches(HOST)

    def counts(self):
        return self.daemon.call("vm.nic_filter", vm=self.name)["nics"][-1]["queues"]

    def moves(self, cpu, mib):
        """A stream of the vCPU's process, so many MiB in and then out again; what the queues' counters gained."""
        before = self.counts()
        data = os.urandom(MIB) * mib
        with socket.create_server((HOST, 0)) as server:
            result = []
            thread = threading.Thread(target=echo, args=(server, data, result), daemon=True)
            thread.start()
            port = server.getsockname()[1]
            text = self.run(f"taskset {1 << cpu} nc {HOST} {port} >/tmp/x </dev/null && md5sum </tmp/x && taskset {1 << cpu} nc {HOST} {port} </tmp/x; rm /tmp/x")
            thread.join(LIMIT)
        want = hashlib.md5(data).hexdigest()
        tap.check(want in text, f"to the guest: {text} is not {want}")
        tap.check(result == [want], f"from the guest: {result} is not {want}")
        return [{k: now[k] - was[k] for k in now} for now, was in zip(self.counts(), before)]


def echo(server, data, result):
    with server.accept()[0] as out:
        out.sendall(data)
    net.receive_all(server, result)


def attached(link, queues):
    shown = ip("-d", "link", "show", link)
    tap.check(f"multi_queue numqueues {queues} numdisabled 0" in shown, shown)


def each_vcpu_moves_data_on_its_queue(one, mib):
    """Linux may go on with a stream in an interrupt's wake, on whatever vCPU that came to: then another is tried."""
    for cpu in (0, 1):
        for _ in range(8):
            gained = one.moves(cpu, mib)
            tap.check(len(gained) == 2, f"{gained}")
            if all(gained[cpu][way] > mib * MIB // 4 for way in ("rx_bytes", "tx_bytes")):
                break
        else:
            raise AssertionError(f"vCPU {cpu}: {gained}")


def linux_moves_data_on_the_queues_it_has_chosen():
    with Bridge("brq0") as bridge, lib.Daemon() as daemon:
        one = Machine(daemon, [{"type": "bridge", "bridge": bridge.name, "ifname": "vmq0", "bus": "virtio-pci", "queues": 2}])
        attached("vmq0", 2)
        one.up()
        one.run("ethtool -L eth0 combined 2")
        shown = one.run("ethtool -l eth0")
        tap.check(shown.count("Combined:") == 2 and shown.split()[-1] == "2", shown)
        each_vcpu_moves_data_on_its_queue(one, 6)
        # The guest's own counters of each queue: how often it rang.
        shown = one.run("ethtool -S eth0")
        kicks = dict(line.strip().split(": ") for line in shown.splitlines() if "_kicks: " in line)
        tap.check(all(int(kicks[f"tx{n}_kicks"]) > 50 and int(kicks[f"rx{n}_kicks"]) > 0 for n in (0, 1)), shown)
        # One is enough: what the kernel has for the other queue comes by the one that is left.
        one.run("ethtool -L eth0 combined 1")
        for cpu in (0, 1):
            gained = one.moves(cpu, 2)
            tap.check(len(gained) == 1 and gained[0]["rx_bytes"] > 3 * MIB // 2, f"{gained}")
        one.run("ethtool -L eth0 combined 2")
        each_vcpu_moves_data_on_its_queue(one, 2)
        with daemon.client(LIMIT) as client:
            job = client.call("job.wait", job=client.call("vm.save", vm="ann")["job"], timeout_ms=240000)
            tap.check(job["state"] == "done", f"{job}")
            lib.wait_for(lambda: "vmq0" not in ip("link"), LIMIT, "the end of the made interface")
            one.close()
            client.call("vm.start", vm="ann")
        one.console = lib.Console(daemon.call("vm.console", vm="ann")["path"])
        one.reaches(HOST)
        each_vcpu_moves_data_on_its_queue(one, 2)
        ip("link", "del", "vmq0")
        one.run("until [ $(cat /sys/class/net/eth0/carrier) = 0 ]; do sleep 0.1; done")
        one.close()


def qmp_plugs_cards_with_queues():
    with Bridge("brq1") as bridge, lib.Daemon() as daemon:
        one = Machine(daemon, [], root_ports=2)
        with daemon.qmp("ann", timeout=LIMIT) as q:
            q.execute("netdev_add", type="tap", id="n0", ifname="vmq1", script="no", downscript="no", queues=2)
            q.execute("device_add", driver="virtio-net-pci", id="c0", netdev="n0", mq=True, vectors=6)
            ip("link", "set", "vmq1", "master", bridge.name)
            attached("vmq1", 2)
            one.run("echo 1 >/sys/bus/pci/rescan")  # Debian's kernel for riscv64 has no pciehp
            one.up()
            one.run("ethtool -L eth0 combined 2")
            each_vcpu_moves_data_on_its_queue(one, 2)
            # Nothing of it is left with the emulator: a card that is to have one queue has one.
            q.execute("netdev_add", type="tap", id="n1", ifname="vmq4", script="no", downscript="no")
            q.execute("device_add", driver="virtio-net-pci", id="c1", netdev="n1")
            opened = tun_names(daemon.call("vm.get", vm="ann")["pid"])
            tap.check(sorted(opened) == ["vmq1", "vmq1", "vmq4"], f"{opened}")
        one.close()


def interfaces_of_one_queue_and_those_in_use():
    with lib.Daemon() as daemon, daemon.client(LIMIT) as client:
        for name, how in (("vmq2", []), ("vmq3", ["multi_queue"])):
            ip("tuntap", "add", "dev", name, "mode", "tap", *how)
            ip("link", "set", name, "up")
        for vm, name, queues, has in (("a", "vmq2", 2, 1), ("b", "vmq3", 1, 1), ("c", "vmq3", 3, 3)):
            client.call("vm.define", config=daemon.config(vm, kernel=daemon.guest(), nics=[{"type": "tap", "ifname": name, "queues": queues}]))
            client.call("vm.start", vm=vm)
            opened = [o for o in tun_names(client.call("vm.get", vm=vm)["pid"]) if o == name]
            tap.check(len(opened) == has, f"{vm}: {opened}")
            for more in (1, 2):
                client.call("vm.define", config=daemon.config("z", kernel=daemon.guest(), nics=[{"type": "tap", "ifname": name, "queues": more}]))
                error = client.fails("busy", "vm.start", vm="z")
                tap.check("in use" in error.message and name in error.message, f"{error}")
                client.call("vm.delete", vm="z")
            client.call("vm.stop", vm=vm, force=True)
            lib.wait_for(lambda: client.call("vm.get", vm=vm)["state"] == "stopped", LIMIT, "its end")
        for name in ("vmq2", "vmq3"):
            ip("link", "del", name)


def tun_names(pid):
    """The interfaces that a process has open, once a queue."""
    found = []
    for number in os.listdir(f"/proc/{pid}/fdinfo"):
        try:
            with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as file:
                found += [line.split()[1] for line in file if line.startswith("iff:")]
        except OSError:
            pass
    return found


if __name__ == "__main__":
    guest.need("riscv64-net", "riscv64-ethtool")
    guest_tap.enter_namespace(os.path.abspath(__file__))
    ip("link", "set", "lo", "up")
    sys.exit(tap.run_cases([
        linux_moves_data_on_the_queues_it_has_chosen,
        qmp_plugs_cards_with_queues,
        interfaces_of_one_queue_and_those_in_use,
    ]))
