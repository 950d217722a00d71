# SPDX-License-Identifier: Apache-2.0
"""Channels and the QEMU guest agent: Debian's kernel with its own virtio_console driver and Debian's qemu-guest-agent, driven through
the daemon and vmctl.

Needs the guest riscv64-agent (tests/guests/fetch), used when it is in the cache, fetched when VMD_TEST_AGENT=1.
"""

import base64
import hashlib
import os
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
import guest_shell  # noqa: E402
import tap  # noqa: E402

LIMIT = 200.0  # of patience, nothing is measured
# What udev would do.
PORTS = ("ports() { rm -rf /dev/virtio-ports; mkdir -p /dev/virtio-ports; for p in /sys/class/virtio-ports/*; do "
         "[ ! -e $p/name ] || ln -s ../${p##*/} /dev/virtio-ports/$(cat $p/name); done; }; "
         "till() { until ports; \"$@\"; do sleep 0.1; done; }; ports")
AGENT = "mkdir -p /var/run /run /var/log; qemu-ga -d -m virtio-serial -p /dev/virtio-ports/org.qemu.guest_agent.0"


def files():
    root = os.environ.get("VMD_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME")
                                                       or os.path.expanduser("~/.cache"), "vmd")
    if not os.path.exists(os.path.join(root, "guests", "riscv64-agent", "manifest.json")) \
            and os.environ.get("VMD_TEST_AGENT") != "1":
        raise tap.Skip("guest riscv64-agent is not in the cache (tests/guests/fetch riscv64-agent)")
    try:
        return guest.fetched("riscv64-agent")
    except guest.Unavailable as why:
        raise tap.Skip(str(why)) from None


class Machine(guest_shell.Shell):
    """A daemon with one VM, whose console has a shell."""

    between = "\n"

    def __init__(self, options=(), **config):
        have = files()
        self.daemon = self.start_daemon(options)
        have["initrd"] = self.initrd(have["initrd"])
        self.client = self.daemon.client(LIMIT)
        disk = os.path.join(self.daemon.dir, "disk.img")
        with open(disk, "wb") as file:
            file.truncate(32 << 20)
        self.client.call("vm.define", config={
            "name": "a", "kernel": have["kernel"], "initrd": have["initrd"], "memory": 512 << 20,
            "append": "console=ttyS0 vmd.virtio vmd.run=shell", "disks": [{"file": disk, "name": "data"}], **config})
        self.client.call("vm.start", vm="a")
        self.console = self.connect("vm.console", vm="a")
        self.expect("guest# ")
        self.run("stty -echo; PS1=; " + PORTS)

    def start_daemon(self, options):
        daemon = lib.Daemon(options=options)
        daemon.__enter__()
        return daemon

    def initrd(self, path):
        """What it boots with, made of that file."""
        return path

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.console.close()
        self.client.close()
        self.daemon.__exit__(*exc)

    def connect(self, method, **params):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.client.call(method, **params)["path"])
        sock.settimeout(LIMIT)
        return sock

    def channel(self, name):
        return self.connect("vm.channel", vm="a", channel=name)

    def call(self, method, **params):
        return self.client.call(method, vm="a", **params)

    def vmctl(self, *words, stdin=b"", status=0):
        done = subprocess.run([os.path.join(lib.BUILD, "vmctl"), "--dir", self.daemon.dir, *words], input=stdin,
                              capture_output=True, timeout=LIMIT, check=False)
        tap.check(done.returncode == status, f"vmctl {words}: {done.returncode} {done.stderr.decode()}")
        return done.stdout

    def until(self, what, check):
        end = time.monotonic() + LIMIT
        while not check():
            tap.check(time.monotonic() < end, what)
            time.sleep(0.05)


def read(sock, n):
    data = b""
    while len(data) < n:
        piece = sock.recv(n - len(data))
        tap.check(piece, f"the channel ended after {len(data)} bytes")
        data += piece
    return data


def channels_carry_bytes_both_ways_at_once():
    with Machine(channels=[{"name": "one"}, {"name": "two.b"}, {"name": "term", "console": True}]) as m:
        names = m.run("ls /dev/virtio-ports").split()
        tap.check("one" in names and "two.b" in names, str(names))
        tap.check(not m.call("vm.channel", channel="one")["open"], "nobody has opened it")
        size = 4 << 20
        payload = {name: os.urandom(1) * 7 + os.urandom(size - 7) for name in ("one", "two.b")}
        socks = {name: m.channel(name) for name in payload}
        # Each port is echoed by a program of its own; both are busy together, while the console and the terminal work.
        m.run("touch /tmp/one /tmp/two.b; for p in one two.b; do (cat </dev/virtio-ports/$p >/tmp/$p & "
              f"while [ $(stat -c %s /tmp/$p) -lt {size} ]; do sleep 0.1; done; kill $!; wait $!; "
              "cat /tmp/$p >/dev/virtio-ports/$p) & done")
        term = m.channel("term")
        m.run("(stty -echo raw; while read -r l; do echo \"got $l\"; done) <>/dev/hvc0 >&0 & until stty -F /dev/hvc0 | grep -q -- "
              "-echo; do sleep 0.1; done")
        got = {}

        def turn(name):
            socks[name].sendall(payload[name])
            got[name] = read(socks[name], size)

        threads = [threading.Thread(target=turn, args=(name,)) for name in payload]
        for t in threads:
            t.start()
        term.sendall(b"hello\n")
        tap.check(b"got hello" in read(term, 10), "the terminal answers meanwhile")
        for t in threads:
            t.join(LIMIT)
        for name, data in payload.items():
            tap.check(hashlib.sha256(got.get(name, b"")).digest() == hashlib.sha256(data).digest(), f"{name} is intact")
        # The guest is told of the size of a terminal, and that a client has come or gone.
        m.call("vm.channel", channel="term", columns=101, rows=37)
        # Kernels do not agree on the order of its two numbers: 6.12 has it one way, the specification the other.
        m.until("size", lambda: sorted(m.run("stty -F /dev/hvc0 size").split()) == ["101", "37"])
        other = m.channel("one")
        tap.check(other.recv(1) == b"", "a second client is turned away")
        socks["one"].close()

        def gone():
            m.run("true <>/dev/virtio-ports/one || true")
            return not m.call("vm.channel", channel="one")["connected"]
        m.until("gone", gone)
        with m.channel("one") as again:
            m.run("echo again >/dev/virtio-ports/one")
            tap.check(read(again, 6) == b"again\n", "and the next one is served")


def channels_come_and_go():
    with Machine(root_ports=1) as m:
        out = m.vmctl("attach", "--channel", "late", "a").decode()
        tap.check("late" in out, out)
        m.run("echo 1 >/sys/bus/pci/rescan; till test -e /dev/virtio-ports/late")
        with m.channel("late") as sock:
            m.run("(echo from-guest; cat) <>/dev/virtio-ports/late >&0 & sleep 0.2; echo")
            sock.sendall(b"ping\n")
            text = read(sock, len("from-guest\nping\n"))
            tap.check(text == b"from-guest\nping\n", str(text))
            m.call("vm.attach", channel={"name": "more"})
            m.run("till test -e /dev/virtio-ports/more")
            m.client.fails("exists", "vm.attach", vm="a", channel={"name": "more"})
            m.call("vm.detach", channel="late")
            tap.check(sock.recv(1) == b"", "its client is let go of")
        m.run("till test ! -e /dev/virtio-ports/late; test -e /dev/virtio-ports/more")
        m.client.fails("not-found", "vm.channel", vm="a", channel="late")
        m.client.fails("not-found", "vm.detach", vm="a", channel="late")
        m.call("vm.attach", channel={"name": "late"})
        m.run("till test -e /dev/virtio-ports/late")


def the_agent_does_what_it_is_asked():
    with Machine(agent=True, nics=[{"name": "lan", "type": "user", "bus": "virtio-pci"}]) as m:
        error = m.client.fails("bad-state", "agent.info", vm="a")
        tap.check("does not listen" in error.message, str(error))
        error = m.vmctl("shutdown", "--method", "agent", "a", status=5)
        m.run("/usr/sbin/mke2fs -q -t ext4 -F /dev/vda && mkdir -p /mnt && mount -t ext4 /dev/vda /mnt")
        m.run("ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0")
        m.run(AGENT)
        m.until("the agent listens", lambda: m.call("vm.get")["agent"])
        info = m.call("agent.info")
        tap.check(info["version"][0].isdigit() and "guest-exec" in info["commands"], str(info))
        m.until("addresses", lambda: "10.0.2.15" in m.call("vm.get")["addresses"])
        cards = {i["name"]: [a["address"] for a in i["addresses"]] for i in m.call("agent.interfaces")["interfaces"]}
        tap.check("10.0.2.15" in cards["eth0"], str(cards))
        tap.check(b"10.0.2.15" in m.vmctl("list") and b"10.0.2.15" in m.vmctl("agent", "interfaces", "a"), "vmctl shows them")
        # Programs
        out = m.call("agent.exec", path="/bin/busybox", args=["sh", "-c", "cat; echo out; echo err >&2; exit 7"],
                     input=base64.b64encode(b"in\n").decode())
        tap.check((out["status"], base64.b64decode(out["output"]), base64.b64decode(out["errors"]))
                  == (7, b"in\nout\n", b"err\n"), str(out))
        tap.check(m.vmctl("agent", "exec", "a", "--", "/bin/busybox", "uname", "-m") == b"riscv64\n", "vmctl agent exec")
        m.vmctl("agent", "exec", "a", "--", "/bin/busybox", "false", status=1)
        out = m.call("agent.exec", path="/bin/busybox", args=["sleep", "600"], timeout_ms=8000)
        tap.check(not out["exited"], "runs on")
        m.run(f"kill -9 {out['pid']}")
        # The agent hears of it from its kernel, when it gets to run.
        m.until("the agent has heard of its end", lambda: out.update(m.call("agent.exec_status", pid=out["pid"])) or out["exited"])
        tap.check(out["signal"] == 9, str(out))
        error = m.client.fails("guest-error", "agent.exec", vm="a", path="/no/such")
        tap.check("refuses" in error.message, str(error))
        m.client.fails("unsupported", "agent.command", vm="a", execute="guest-no-such-thing")
        tap.check(m.call("agent.command", execute="guest-ping")["result"] == {}, "ping")
        # Files of more than a piece
        data = os.urandom(600000)
        m.vmctl("agent", "write", "a", "-", "/mnt/blob", stdin=data)
        tap.check(hashlib.md5(data).hexdigest() in m.run("md5sum /mnt/blob"), "it is there")
        tap.check(m.vmctl("agent", "read", "a", "/mnt/blob") == data, "and comes back")
        m.client.fails("guest-error", "agent.file_read", vm="a", path="/no/such")
        m.client.fails("guest-error", "agent.file_write", vm="a", path="/no/such", data="aGVsbG8=")
        # Frozen file systems hold their writers
        tap.check(m.call("agent.freeze")["count"] == 1 and m.call("agent.freeze_status")["frozen"], "frozen")
        m.run("(echo written >/mnt/later; sync; echo done >/tmp/later) & sleep 1; ! test -e /tmp/later")
        tap.check(m.call("agent.thaw")["count"] == 1 and not m.call("agent.freeze_status")["frozen"], "thawed")
        m.run("until test -e /tmp/later; do sleep 0.1; done; cat /mnt/later")
        # An agent that hangs costs its caller the time that was given, and the next one nothing.
        m.run("kill -STOP $(pidof qemu-ga)")
        m.client.fails("timeout", "agent.info", vm="a", timeout_ms=300)
        m.run("kill -CONT $(pidof qemu-ga)")
        tap.check(m.call("agent.info", timeout_ms=100000)["version"] == info["version"], "it is itself again")
        # One that ends is told.
        m.run("kill $(pidof qemu-ga)")
        m.until("it is gone", lambda: not m.call("vm.get")["agent"])
        m.client.fails("bad-state", "agent.info", vm="a")
        m.run("sleep 1; " + AGENT)
        m.until("back", lambda: m.call("vm.get")["agent"])
        # What is no agent costs nobody but its caller anything, whatever it says.
        m.run("kill $(pidof qemu-ga)")
        m.until("it is gone", lambda: not m.call("vm.get")["agent"])
        m.run("(head -c 300000 /dev/zero; echo; yes '' | head -c 300000; sleep 600) <>/dev/virtio-ports/org.qemu.guest_agent.0 >&0 & "
              "echo $! >/tmp/pid")
        m.until("a program is there", lambda: m.call("vm.get")["agent"])
        m.client.fails("timeout", "agent.info", vm="a", timeout_ms=2000)
        m.run("kill $(cat /tmp/pid); killall sleep; true")
        m.until("it is gone", lambda: not m.call("vm.get")["agent"])
        m.run("sleep 1; " + AGENT)
        m.until("back", lambda: m.call("vm.get")["agent"])
        tap.check(m.call("agent.info", timeout_ms=100000)["version"] == info["version"], "the agent is understood")
        # An event is listed when it is durable, which vm.get does not wait for.
        def events():
            return [e["reason"] for e in m.client.call("event.list", types=["vm-channel"])["events"]]
        m.until("its events", lambda: events() == ["opened", "closed"] * 3 + ["opened"])
        # Power off: busybox has no init to ask, its applet stands in.
        m.run("printf '#!/bin/sh\\nexec /bin/busybox poweroff -f\\n' >/sbin/shutdown; chmod 755 /sbin/shutdown")
        m.call("vm.shutdown", timeout_ms=int(LIMIT * 1000))
        tap.check(m.call("vm.get")["state"] == "stopped", "it has powered off")


if __name__ == "__main__":
    sys.exit(tap.run_cases([channels_carry_bytes_both_ways_at_once, channels_come_and_go, the_agent_does_what_it_is_asked]))
