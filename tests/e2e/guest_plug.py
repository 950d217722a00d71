# SPDX-License-Identifier: Apache-2.0
"""Everything that comes and goes while Debian's kernel runs, under I/O load: disks (virtio-pci, nvme, units of a SCSI adapter), network cards (user, stream),
channels, terminals, entropy devices, shared folders and memory, by JSON-RPC, by QMP and by vmctl.

    guest_plug.py [--seed N] [--from N] [--count N] [CASE...]    operations FROM to FROM + COUNT - 1 of a seed; 100 by default,
    fewer on a host with much else to do

After every operation the guest's own view (sysfs), the emulator's and what was asked for are compared. Operations are drawn in
rounds of 50 that begin and end with nothing plugged, so that number I of a seed is always the same. At the end nothing is left:
descriptors, processes, sockets, memory.

Debian's kernel for riscv64 has no driver of hot-plug slots: the guest looks again, or lets go, by sysfs.
Needs the guests riscv64-storage and riscv64-agent (tests/guests/fetch), used when they are in the cache, fetched when
VMD_TEST_STORAGE=1 and VMD_TEST_AGENT=1. Memory takes the module virtio_mem, as guest_memory.py does, and is left out without it.
"""

import argparse
import collections
import gzip
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import guest  # noqa: E402
import guest_agent  # noqa: E402
import guest_disks  # noqa: E402
import guest_memory  # noqa: E402
import guest_shell  # noqa: E402
import newc  # noqa: E402
import tap  # noqa: E402

LIMIT = 600.0  # of patience, nothing is measured
MIB = 1 << 20
ROUND = 50
NOISE = 512 << 10  # bytes that a process may have more at one moment than at another, whatever came and went
EMULATOR, DAEMON = 128, 2048  # bytes that may stay of an operation; the daemon's journal keeps what it tells
SLOTS = 8
KINDS = ["virtio-pci", "nvme", "scsi", "user", "stream", "channel", "console", "rng", "9p", "memory"]
MEMORY, PLUGGED = 256 * MIB, 128 * MIB  # of a memory device: its size, and what the guest is asked to have
DISKS, CARDS, PORTS = ("virtio-pci", "nvme", "scsi"), ("user", "stream"), ("channel", "console")
DRIVERS = {"virtio-pci": "virtio-blk-pci", "nvme": "nvme", "scsi": "scsi-hd"}
UNSLOTTED = PORTS + ("scsi",)  # they join a device that is there
ROUTES = ("json", "qmp", "vmctl")
# What the guest has in its slots and ports, a line each.
INVENTORY = r"""serial() { cat $1/serial 2>/dev/null || cat $1/device/serial 2>/dev/null || tail -c +5 $1/device/vpd_pg80; }
inventory() {
for d in /sys/bus/pci/devices/0000:0[1-9]:* /sys/bus/pci/devices/0000:[1-9]*; do [ -e $d ] || continue
  b=; [ ! -e $d/driver ] || b=bound; echo "pci ${d##*/} $(cat $d/device) $b"; done
for b in /sys/block/vd* /sys/block/nvme* /sys/block/sd*; do [ -e $b/size ] || continue
  s=$(serial $b); echo "disk ${b##*/} $(cat $b/size) $s"; done
for n in /sys/class/net/e*; do [ ! -e $n/address ] || echo "nic ${n##*/} $(cat $n/address)"; done
for p in /sys/class/virtio-ports/*; do [ ! -e $p/dev ] || echo "port ${p##*/} $(cat $p/name 2>/dev/null || echo console)"; done
for t in /sys/bus/virtio/drivers/9pnet_virtio/*/mount_tag; do [ ! -e $t ] || echo "share 9p $(tr -d '\0' <$t)"; done
while read -r k v u; do [ $k = MemTotal: ] && echo "memory $v"; done </proc/meminfo
echo END; }"""
BLOCKS = "ls -d /sys/devices/system/memory/memory* | wc -l"
LOAD = ("(n=0; dd if=/dev/urandom of=/tmp/load bs=64k count=32 2>/dev/null; while dd if=/tmp/load of=/dev/vda bs=64k seek=$((n % 4 * 32)) "
        "oflag=direct 2>/dev/null && dd if=/dev/vda bs=64k skip=$((n % 4 * 32)) count=32 iflag=direct 2>/dev/null | cmp -s - /tmp/load; "
        "do n=$((n + 1)); echo $n >/tmp/loads; done; echo bad >/tmp/loads) &")


MODULES = ("crc32c_generic", "virtio_mmio", "virtio_rng", "virtio_blk", "nvme_auth", "nvme_core", "nvme", "scsi_common", "scsi_mod", "virtio_scsi", "sd_mod", "failover", "net_failover",
           "virtio_net", "netfs", "9pnet", "9pnet_virtio", "9p")


def memory_module():
    """None: there is no memory that could come."""
    try:
        return guest_memory.module()
    except tap.Skip as reason:
        print(f"# memory is left out: {reason}", flush=True)
        return None


def initrd(folder):
    """The plain guest's archive, and behind it one with the modules: the kernel takes one after the other."""
    module = memory_module()
    if not module and "memory" in KINDS:
        KINDS.remove("memory")
    have = [os.path.dirname(files["initrd"]) for files in (guest_disks.fetched("riscv64-storage"), guest_agent.files())]
    plain = guest.fetched("riscv64")
    archive = newc.Newc()
    archive.file("modules/order", "\n".join([*MODULES, *(["virtio_mem"] if module else [])]).encode() + b"\n")
    if module:
        with open(module, "rb") as file:
            archive.file("modules/virtio_mem.ko", file.read())
    for name in MODULES:
        path = next(p for p in (os.path.join(h, "modules", name + ".ko") for h in have) if os.path.exists(p))
        with open(path, "rb") as file:
            archive.file(f"modules/{name}.ko", file.read())
    path = os.path.join(folder, "initrd")
    with open(plain["initrd"], "rb") as file:
        first = file.read()
    with open(path, "wb") as file:
        file.write(first + b"\0" * (-len(first) % 4) + gzip.compress(archive.bytes(), 6, mtime=0))
    return plain["kernel"], path


class Machine(guest_shell.Shell):
    limit = LIMIT
    between = "\n"

    def __init__(self, **more):
        self.daemon = lib.Daemon()
        self.daemon.__enter__()
        self.client = self.daemon.client(LIMIT)
        kernel, archive = initrd(self.daemon.dir)
        self.client.call("vm.define", config={
            "name": "a", "kernel": kernel, "initrd": archive, "memory": 512 << 20, "memory_max": 2048 << 20, "root_ports": SLOTS, "cpus": 2,
            "append": "console=ttyS0 vmd.virtio vmd.run=shell", "channels": [{"name": "first"}],
            "disks": [{"file": self.image("root", 8 * MIB), "name": "root"}, {"file": self.image("scsi"), "name": "scsi", "bus": "scsi"}], **more})
        self.client.call("vm.start", vm="a")
        self.console = socket.socket(socket.AF_UNIX)
        self.console.connect(self.client.call("vm.console", vm="a")["path"])
        self.expect("guest# ")
        self.run("stty -echo; PS1= PS2=")
        self.run("dmesg -n 1; echo online_movable >/sys/devices/system/memory/auto_online_blocks")
        self.run(INVENTORY)
        self.qmp = self.daemon.qmp("a", timeout=LIMIT)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.qmp.close()
        self.console.close()
        self.client.close()
        self.daemon.__exit__(*exc)

    def image(self, name, size=4 * MIB):
        path = os.path.join(self.daemon.dir, name + ".img")
        with open(path, "wb") as file:
            file.truncate(size)
        return path

    def execute(self, command, **arguments):
        reply = self.qmp.ask(json.dumps({"execute": command, "arguments": arguments}))
        tap.check("return" in reply, f"{command} {arguments}: {reply}")
        return reply["return"]

    def vmctl(self, *words):
        done = subprocess.run([os.path.join(lib.BUILD, "vmctl"), "--dir", self.daemon.dir, *words], capture_output=True, text=True,
                              timeout=LIMIT, check=False)
        tap.check(done.returncode == 0, f"vmctl {words}: {done.returncode} {done.stderr}")
        return done.stdout

    def emulator(self):
        return next(iter(self.daemon.emulators().values()))[0]


class Peer:
    """Somebody listens at a stream card's socket, and looks when it is closed."""

    def __init__(self, path):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(64)
        self.open = 0
        self.lock = threading.Lock()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            sock, _ = self.listener.accept()
            with self.lock:
                self.open += 1
            threading.Thread(target=self.read, args=(sock,), daemon=True).start()

    def read(self, sock):
        with sock:
            while sock.recv(65536):
                pass
        with self.lock:
            self.open -= 1


class Plugs:
    """What is plugged now: {name: {"kind", "route", "pci"}}."""

    def __init__(self, machine):
        self.m = machine
        self.now, self.done = {}, collections.Counter()
        self.number = 0
        self.lan = os.path.join(machine.daemon.dir, "lan.sock")
        self.peer = Peer(self.lan)
        self.folder = os.path.join(machine.daemon.dir, "shared")
        os.mkdir(self.folder)
        with open(os.path.join(self.folder, "hello"), "w", encoding="ascii") as file:
            file.write("hello guest\n")
        self.files = [machine.image(f"plug{i}") for i in range(SLOTS + 4)]
        self.blocks = int(machine.run(BLOCKS))
        self.base = None
        self.base = self.guest_view()  # with what is there from the start

    # --- views ---

    def guest_view(self):
        """{(kind, what)}, and {slot address: device}."""
        text = self.m.run("inventory")
        seen, slots = collections.Counter(), {}
        for line in text.replace("\r", "").split("\n"):
            words = line.split()
            if not words or words[0] == "END":
                continue
            if words[0] == "pci":
                slots[words[1]] = (words[2], words[3:] == ["bound"])
            elif words[0] == "disk":
                seen["disk", words[3], int(words[2]) * 512] += 1
            elif words[0] == "memory":
                seen["memory", "MiB"] = int(words[1]) >> 10
            elif len(words) > 2:  # one that is just coming has no tag yet
                seen[words[0], words[2]] += 1
        if self.base:
            seen.subtract(self.base[0])
            seen = +seen
        return seen, slots

    def wanted(self):
        seen = collections.Counter()
        for name, p in self.now.items():
            if p["kind"] in DISKS:
                seen["disk", name, 4 * MIB] += 1
            elif p["kind"] in CARDS:
                seen["nic", p["mac"]] += 1
            elif p["kind"] == "channel":
                seen["port", name] += 1
            elif p["kind"] == "console":
                seen["port", "console"] += 1
            elif p["kind"] == "9p":
                seen["share", name] += 1
            elif p["kind"] == "memory":
                seen["memory", "MiB"] += PLUGGED // MIB
        return seen

    def in_slots(self):
        return {p["pci"] for p in self.now.values() if p["pci"]}

    def settled(self, slots):
        """Waits until the guest sees what was asked for, in that many slots."""
        end = time.monotonic() + LIMIT
        while True:
            seen, got = self.guest_view()
            if seen == self.wanted() and len(got) == slots and all(bound for _, bound in got.values()):
                return got
            tap.check(time.monotonic() < end, f"guest: {seen} in {got}; asked for: {self.wanted()} in {slots} slots")
            time.sleep(0.05)

    def compare(self):
        """The emulator's view, by QMP."""
        blocks = {b["device"] for b in self.m.execute("query-block")}
        mine = {name for name, p in self.now.items() if p["kind"] in DISKS}
        tap.check(blocks == mine | {"root", "scsi"}, f"host: {blocks}, asked for {mine}")
        cards = {c["name"] for c in self.m.execute("query-rx-filter")}
        mine = {name for name, p in self.now.items() if p["kind"] in CARDS}
        tap.check(cards == mine, f"host: {cards}, asked for {mine}")
        behind = [d for bus in self.m.execute("query-pci") for d in bus["devices"] if "pci_bridge" in d]
        behind = sum(len(d["pci_bridge"].get("devices", [])) for d in behind)
        tap.check(behind == len(self.in_slots()), f"host: {behind} slots in use, not {self.in_slots()}")
        devices = {d["data"]["id"] for d in self.m.execute("query-memory-devices")}
        mine = {name for name, p in self.now.items() if p["kind"] == "memory"}
        tap.check(devices == mine, f"host: {devices}, asked for {mine}")
        lib.wait_for(lambda: self.peer.open == sum(p["kind"] == "stream" for p in self.now.values()), LIMIT, "sockets of cards")

    # --- operations ---

    def params(self, name, kind):
        if kind in DISKS:
            file = next(f for f in self.files if f not in {p.get("file") for p in self.now.values()})
            return {"disk": {"file": file, "name": name, "bus": kind}}, {"file": file}
        if kind in CARDS:
            mac = "52:54:00:%02x:%02x:%02x" % (self.number >> 16 & 255, self.number >> 8 & 255, self.number & 255)
            nic = {"name": name, "type": kind, "mac": mac, "bus": "virtio-pci"}
            return {"nic": nic if kind == "user" else {**nic, "path": self.lan}}, {"mac": mac}
        if kind in PORTS:
            return {"channel": {"name": name, **({"console": True} if kind == "console" else {})}}, {}
        if kind == "9p":
            return {"share": {"path": self.folder, "tag": name, "driver": "9p"}}, {}
        if kind == "memory":
            return {"memory_device": {"size": MEMORY, "requested": PLUGGED, "name": name}}, {}
        return {"rng": name}, {}

    def by_qmp(self, name, kind, what):
        m = self.m
        if kind in DISKS:
            m.execute("blockdev-add", **{"driver": "raw", "node-name": "n" + name, "file": {
                "driver": "file", "filename": what["disk"]["file"]}})
            m.execute("device_add", driver=DRIVERS[kind], id=name, drive="n" + name)
        elif kind in CARDS:
            more = {} if kind == "user" else {"addr": {"type": "unix", "path": self.lan}, "server": False}
            m.execute("netdev_add", type=kind, id="n" + name, **more)
            m.execute("device_add", driver="virtio-net-pci", id=name, netdev="n" + name, mac=what["nic"]["mac"])
        elif kind in PORTS:
            m.execute("chardev-add", id="c" + name, backend={"type": "null", "data": {}})
            m.execute("device_add", driver="virtserialport" if kind == "channel" else "virtconsole", id=name, chardev="c" + name)
        elif kind == "9p":
            m.execute("object-add", **{"qom-type": "fsdev-local", "id": "f" + name, "path": self.folder, "security_model": "mapped-xattr"})
            m.execute("device_add", driver="virtio-9p-pci", id=name, fsdev="f" + name, mount_tag=name)
        elif kind == "memory":
            m.execute("object-add", **{"qom-type": "memory-backend-ram", "id": "m" + name, "size": MEMORY})
            m.execute("device_add", **{"driver": "virtio-mem-pci", "id": name, "memdev": "m" + name, "requested-size": PLUGGED})
        else:
            m.execute("object-add", **{"qom-type": "rng-random", "id": "r" + name})
            m.execute("device_add", driver="virtio-rng-pci", id=name, rng="r" + name)

    def attach(self, kind, route):
        self.number += 1
        name = f"p{self.number}"
        what, known = self.params(name, kind)
        if route == "json":
            self.m.client.call("vm.attach", vm="a", live=True, **what)
        elif route == "qmp":
            self.by_qmp(name, kind, what)
        else:
            (option, value), = what.items()
            words = value if option == "rng" else ",".join(
                f"{k}={str(v).lower()}" if not (option == "channel" and k == "name") else v for k, v in value.items())
            self.m.vmctl("attach", "--live", "--" + option.replace("_", "-"), words, "a")
        self.now[name] = {"kind": kind, "route": route, "pci": None, **known}
        before = self.in_slots()
        slotted = kind not in UNSLOTTED
        if slotted:
            self.m.run("echo 1 >/sys/bus/pci/rescan")
        slots = self.settled(len(before) + slotted)
        if slotted:
            self.now[name]["pci"], = set(slots) - before
        if kind in DISKS:
            self.m.run(f"for b in /sys/block/*; do case $(serial $b 2>/dev/null) in {name}*) d=/dev/${{b##*/}};; esac; done; "
                       "dd if=/tmp/load of=$d bs=64k count=4 oflag=direct 2>/dev/null && "
                       "dd if=$d bs=64k count=4 iflag=direct 2>/dev/null | cmp -n 262144 - /tmp/load && "
                       "{ (while dd if=$d of=/dev/null bs=64k count=16 iflag=direct 2>/dev/null; do :; done) & } 2>/dev/null")
        if kind == "9p":
            tap.check("hello guest" in self.m.run(f"mkdir -p /mnt && mount -t 9p -o trans=virtio,version=9p2000.L {name} /mnt && cat /mnt/hello; "
                                                  "umount /mnt"), "what the host wrote")
        self.done["attach", kind, route] += 1

    def option(self, kind):
        return "disk" if kind in DISKS else "nic" if kind in CARDS else "channel" if kind in PORTS else "share" if kind == "9p" else \
            "memory_device" if kind == "memory" else "rng"

    def keep(self, name):
        """Nobody can be asked for what the guest's driver uses: a clear refusal, and it stays."""
        try:
            self.m.client.call("vm.detach", vm="a", live=True, **{self.option(self.now[name]["kind"]): name})
        except lib.CallError as error:
            if self.now[name]["kind"] == "memory":
                tap.check(error.error == "busy" and "has 128 MiB of it" in error.message, str(error))
            else:
                tap.check(error.error == "unsupported" and "in use" in error.message, str(error))
        else:
            tap.check(False, f"{name} went while the guest used it")
        self.settled(len(self.in_slots()))
        self.done["refused", self.now[name]["kind"], "json"] += 1

    def detach(self, name, route):
        p = self.now[name]
        kind = p["kind"]
        if kind == "memory":
            self.give_back(name, route)
        if p["pci"]:
            self.m.run(f"echo 1 >/sys/bus/pci/devices/{p['pci']}/remove")
        if route == "json":
            self.m.client.call("vm.detach", vm="a", live=True, timeout_ms=int(LIMIT * 1000), **{self.option(kind): name})
        elif route == "vmctl":
            self.m.vmctl("detach", "--live", "--" + self.option(kind).replace("_", "-"), name, "--timeout", f"{int(LIMIT)}s", "a")
        else:
            self.m.execute("device_del", id=name)
            event = self.m.qmp.event("DEVICE_DELETED")
            while event["data"]["device"] != name:
                event = self.m.qmp.event("DEVICE_DELETED")
        del self.now[name]
        if p["route"] == "qmp":
            self.forget(name, kind)
        self.settled(len(self.in_slots()))
        self.done["detach", kind, route] += 1

    def give_back(self, name, route):
        """The guest plugs out what it has of it; for what was in use just then it is asked again."""
        if route == "qmp":
            self.m.execute("qom-set", **{"path": "/machine/peripheral/" + name, "property": "requested-size", "value": 0})
        elif route == "vmctl":
            self.m.vmctl("memory", "resize", "a", "0", "--device", name)
        else:
            self.m.client.call("vm.memory_resize", vm="a", name=name, requested=0)

        def left():
            time.sleep(0.1)
            return next(d["plugged"] for d in self.m.client.call("vm.memory_resize", vm="a", name=name, requested=0)["devices"] if d["name"] == name)
        lib.wait_for(lambda: left() == 0, LIMIT, f"'{name}' is given back")
        # Linux forgets the block a moment later, and a driver that leaves before keeps the addresses for good.
        others = sum(p["kind"] == "memory" for n, p in self.now.items() if n != name)
        self.m.run(f"until [ $({BLOCKS}) = {self.blocks + others} ]; do sleep 0.05; done")

    def forget(self, name, kind):
        """The back end, which is free when QMP's clients were told that its device is gone."""
        command, arguments = ("blockdev-del", {"node-name": "n" + name}) if kind in DISKS else \
            ("netdev_del", {"id": "n" + name}) if kind in CARDS else \
            ("chardev-remove", {"id": "c" + name}) if kind in PORTS else ("object-del", {"id": {"9p": "f", "memory": "m"}.get(kind, "r") + name})
        self.m.execute(command, **arguments)

    def one(self, rnd):
        slots = len(self.in_slots())
        held = collections.Counter("port" if p["kind"] in PORTS else p["kind"] for p in self.now.values())
        kinds = [k for k in KINDS if (held["port"] < 4 if k in PORTS else held["scsi"] < 4 if k == "scsi" else
                                      slots < SLOTS and (k != "memory" or held["memory"] < 4))]
        route = rnd.choice(ROUTES)
        draw = rnd.random()
        slotted = sorted(n for n, p in self.now.items() if p["pci"])
        if slotted and draw < 0.06:
            self.keep(rnd.choice(slotted))
        elif kinds and (not self.now or draw < 0.53):
            self.attach(rnd.choice(kinds), route)
        else:
            self.detach(rnd.choice(sorted(self.now)), route)
        self.compare()

    def empty(self):
        for name in sorted(self.now):
            self.detach(name, "json")
        self.compare()


# --- what is left ---

def descriptors(pid):
    """By what they lead to; numbers of sockets and pipes differ each time."""
    found = collections.Counter()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[re.sub(r"\[\d+\]|:\d+|vmd-e2e-[^/]*", "", os.readlink(f"/proc/{pid}/fd/{fd}"))] += 1
        except OSError:
            pass
    return found


def private(pid):
    """Bytes of anonymous memory: what the guest and translated code have is in memfds."""
    total = anonymous = 0
    with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as file:
        for line in file:
            words = line.split()
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                anonymous = len(words) < 6 or words[5].startswith("[")
            elif words[0] == "Private_Dirty:" and anonymous:
                total += int(words[1]) * 1024
    return total


def family(pid):
    """A process and all below it, by name."""
    below = collections.defaultdict(list)
    names = {}
    for p in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{p}/stat", encoding="ascii", errors="replace") as file:
                head, tail = file.read().rsplit(")", 1)
        except OSError:
            continue
        names[int(p)] = head.split("(", 1)[1]
        below[int(tail.split()[1])].append(int(p))
    found, waiting = collections.Counter(), [pid]
    while waiting:
        p = waiting.pop()
        found[names.get(p, "?")] += 1
        waiting += below[p]
    return found


class Traces:
    def __init__(self, machine):
        self.emulator, self.daemon = machine.emulator(), machine.daemon.process.pid
        self.helper = machine.daemon.helper()
        self.run = os.path.join(machine.daemon.dir, "run")
        self.client = machine.client

    def look(self):
        pids = [self.emulator, self.daemon, self.helper]
        files = sorted(re.sub(r"\d+", "#", os.path.join(f, n)) for f, _, names in os.walk(self.run) for n in names)
        return ([descriptors(p) for p in pids], family(self.daemon), collections.Counter(files)), [private(p) for p in pids[:2]]

    def translator(self):
        """Bytes of the emulator that hang on what code the guest has run: tables of the code cache, which have their limit, and what the compilers work in."""
        rows = {row["name"]: row["value"] for row in self.client.call("vm.engine", vm="a")["counters"]}
        return rows["cache_bytes"] - rows["region_bytes"] + rows["scratch_bytes"]

    def least(self):
        """Of the emulator without its translator and of the daemon, at the quietest of some moments: what is in flight is no growth."""
        def moment():
            own, daemon = self.look()[1]
            return own - self.translator(), daemon
        seen = [moment() for _ in range(10) if not time.sleep(0.1)]
        return [min(s[i] for s in seen) for i in range(2)]

    def same(self, before):
        """Ends of processes are seen a little later."""
        lib.wait_for(lambda: self.look()[0] == before[0], 120, "what is left is what there was")


def begun():
    m = Machine()
    plugs = Plugs(m)
    m.run(LOAD)
    m.run("until [ -s /tmp/loads ]; do sleep 0.1; done")
    return m, plugs


def each_kind(plugs, routes):
    """One at a time: what the guest says of it, that it is kept while it is used, and that another can come in its place."""
    for kind in KINDS:
        for route in routes:
            plugs.attach(kind, route)
            plugs.compare()
            name, = plugs.now
            if kind not in UNSLOTTED:
                plugs.keep(name)
            plugs.detach(name, route)
            plugs.compare()
    tap.check(all(plugs.done["attach", k, r] == plugs.done["detach", k, r] == 1 for k in KINDS for r in routes), str(plugs.done))
    print("# each of " + ", ".join(KINDS) + " once by each of " + ", ".join(routes), flush=True)


def somebody_elses_server(m, plugs):
    """vhost-user-fs-pci at the socket of a virtiofsd that we run."""
    program = next((p for p in ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd") if os.path.exists(p)), None)
    if not program or os.geteuid() != 0:
        print("# vhost-user-fs-pci was left out: there is no virtiofsd, or we are not root", flush=True)
        return
    path = os.path.join(m.daemon.dir, "fs.sock")
    words = ["--shared-dir", plugs.folder] if "libexec" in program else ["-o", "source=" + plugs.folder, "-f"]
    with subprocess.Popen([program, "--socket-path=" + path, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            lib.wait_for(lambda: os.path.exists(path), LIMIT, "virtiofsd")
            m.execute("chardev-add", id="cfs", backend={"type": "socket", "data": {"server": False, "addr": {"type": "unix", "data": {"path": path}}}})
            tap.check("client" in m.qmp.fails("GenericError", "device_add", driver="virtserialport", id="no", chardev="cfs"), "no port")
            m.execute("device_add", driver="vhost-user-fs-pci", id="fs", chardev="cfs", tag="theirs")
            m.run("echo 1 >/sys/bus/pci/rescan; mkdir -p /mnt")
            shown = m.run("until mount -t virtiofs theirs /mnt 2>/dev/null; do sleep 0.1; done; cat /mnt/hello; echo from guest >/mnt/back; umount /mnt")
            with open(os.path.join(plugs.folder, "back"), encoding="ascii") as file:
                tap.check("hello guest" in shown and file.read() == "from guest\n", shown)
            slot, = plugs.guest_view()[1]
            m.run(f"echo 1 >/sys/bus/pci/devices/{slot}/remove")
            m.execute("device_del", id="fs")
            while m.qmp.event("DEVICE_DELETED")["data"]["device"] != "fs":
                pass  # of those that went by other ways
            m.execute("chardev-remove", id="cfs")
        finally:
            server.terminate()


def operations(m, plugs, seed, first, count, patience=None):
    """All kinds, three ways, the views compared each time, nothing left. What memory grows by is looked at from the end of the first round on:
    what is made once is made then."""
    plugs.done.clear()
    traces = Traces(m)
    loads = int(m.run("cat /tmp/loads"))
    before = traces.look()
    done, warm = 0, None
    end = time.monotonic() + patience if patience else None
    while done < count and (not end or time.monotonic() < end):
        rnd = random.Random(f"{seed}-{(first + done) // ROUND}")
        for _ in range(min(ROUND, count - done)):
            plugs.one(rnd)
            done += 1
            if end and time.monotonic() > end:
                break  # a busy host: the campaign has the rest
        plugs.empty()
        warm = warm or (done, traces.least())
    traces.same(before)
    grown = [b - a for a, b in zip(warm[1], traces.least())]
    more = m.run("cat /tmp/loads").strip()
    tap.check(more.isdigit() and int(more) > loads, f"the load goes on: {loads}, then {more}")
    for what in ("attach", "detach", "refused"):
        rows = {k: n for k, n in sorted(plugs.done.items()) if k[0] == what}
        print(f"# {what}: {sum(rows.values())}: " + ", ".join(f"{kind} by {route} {n}" for (_, kind, route), n in rows.items()), flush=True)
    measured = done - warm[0]
    print(f"# seed {seed}: operations {first} to {first + done - 1}, {int(more) - loads} turns of load; private memory in the last {measured}: "
          f"of the emulator {grown[0] // 1024:+} KiB, of the daemon {grown[1] // 1024:+} KiB"
          + (f"; {grown[0] * 1000 // measured // 1024:+} and {grown[1] * 1000 // measured // 1024:+} KiB a thousand" if measured > 100 else ""), flush=True)
    tap.check(lib.sanitized() or (grown[0] < NOISE + EMULATOR * measured and grown[1] < NOISE + DAEMON * measured), f"memory: {grown}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=int(os.environ.get("VMD_TEST_SEED") or 1))
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--count", type=int, default=0)
    given, rest = parser.parse_known_args()
    sys.argv[1:] = rest

    def each_kind_each_way_and_then_at_random():
        m, plugs = begun()
        with m:
            each_kind(plugs, ROUTES)
            somebody_elses_server(m, plugs)
            operations(m, plugs, given.seed, 0, 100, 240)

    def devices_come_and_go_at_random():
        m, plugs = begun()
        with m:
            each_kind(plugs, ROUTES[:1])  # what is made once is made
            operations(m, plugs, given.seed, given.first // ROUND * ROUND, given.count)
    return tap.run_cases([devices_come_and_go_at_random] if given.count else [each_kind_each_way_and_then_at_random])


if __name__ == "__main__":
    sys.exit(main())
