# SPDX-License-Identifier: Apache-2.0
"""'vmctl top' in tmux: what a person sees, and what the keys do. The daemon is played."""
import os
import shutil
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib")]
import tap  # noqa: E402
from fake import VM, Server  # noqa: E402

VMCTL = os.path.join(os.path.abspath(os.environ.get("VMD_BUILDDIR", ".")), "vmctl")
HOST = {"hostname": "node7", "cpus": 8, "memory": 8 << 30, "memory_free": 3 << 30, "vms": 3, "vms_active": 2}


class Screen:
    """vmctl in a tmux of its own."""

    def __init__(self, server, *args, columns=110, lines=20):
        if not shutil.which("tmux"):
            raise tap.Skip("no tmux here: apt-get install tmux")
        self.folder = tempfile.TemporaryDirectory(prefix="vmd-top-")
        self.socket = os.path.join(self.folder.name, "tmux")
        command = " ".join([VMCTL, "-c", server.path, "top", *args]) + "; echo THE-END $?; sleep 1000"
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(lines), command)

    def tmux(self, *args):
        env = {k: v for k, v in os.environ.items() if k not in ("TMUX", "NO_COLOR", "VMCTL_CONNECT")}
        return subprocess.run(["tmux", "-S", self.socket, *args], capture_output=True, text=True, timeout=60,
                              check=True, env={**env, "LC_ALL": "C.UTF-8"}).stdout

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tmux("kill-server")
        self.folder.cleanup()

    def type(self, *keys):
        self.tmux("send-keys", *keys)

    def until(self, *parts, rows=None):
        """The screen, once it holds all parts (and, when given, its VMs stand in this order)."""
        end = time.monotonic() + 60
        while True:
            text = self.tmux("capture-pane", "-p")
            names = [line.split()[0] for line in text.splitlines()[3:] if line.strip() and " q " not in line
                     and not line.startswith("q quit")]
            if all(p in text for p in parts) and (rows is None or names[:len(rows)] == rows):
                return text
            tap.check(time.monotonic() < end, f"never {parts} {rows}:\n{text}")
            time.sleep(0.1)


class Host:
    """Three VMs: busy and calm run, old is stopped."""

    def __init__(self):
        self.cpu, self.states = 0, {"calm": "running", "busy": "running", "old": "stopped"}

    def vm(self, name):
        info = {**VM, "name": name, "uuid": "01234567-89ab-4cde-8f01-2345678900" + str(10 + list(self.states).index(name)),
                "state": self.states[name]}
        if self.states[name] != "stopped":
            info["stats"] = {"cpu_time_ns": self.cpu * (1 if name == "busy" else 0), "uptime_ns": 61 * 10**9,
                             "memory_rss": (64 if name == "busy" else 256) << 20, "age_ms": 0, "disks": []}
        return info

    def list(self, _params):
        self.cpu += 10**8
        return {"vms": [self.vm(n) for n in sorted(self.states)], "cursor": 1}

    def state(self, params, state):
        name = next(n for n in self.states if self.vm(n)["uuid"] == params["vm"])
        self.states[name] = state
        return self.vm(name)

    def answers(self):
        return {"vm.list": self.list, "host.info": HOST, "vm.pause": lambda p: self.state(p, "paused"),
                "vm.resume": lambda p: self.state(p, "running")}


def busiest_come_first_and_keys_work():
    host = Host()
    with Server(host.answers()) as s, Screen(s, "--interval", "200ms") as t:
        t.until("node7: 8 CPUs, 3 GiB free of 8 GiB, 2 of 3 VMs active", "1m01s", rows=["busy", "calm"])
        t.type("m")
        t.until("by memory", rows=["calm", "busy"])
        t.type("a")
        t.until(rows=["calm", "busy", "old"])
        t.type("n")
        t.until("by name", rows=["busy", "calm", "old"])
        t.type("Down")
        t.type("p")
        t.until("paused")
        tap.check(host.states["calm"] == "paused", str(host.states))
        t.type("r")
        t.until(rows=["busy", "calm", "old"])
        end = time.monotonic() + 60
        while host.states["calm"] != "running" and time.monotonic() < end:
            time.sleep(0.05)
        tap.check(host.states["calm"] == "running", str(host.states))
        t.type("q")
        t.until("THE-END 0")


def ends_by_count_and_by_ctrl_c():
    with Server(Host().answers()) as s, Screen(s, "--interval", "100ms", "--count", "2") as t:
        t.until("THE-END 0")
    with Server(Host().answers()) as s, Screen(s) as t:
        t.until("node7")
        t.type("C-c")
        t.until("THE-END 0")


def needs_a_terminal():
    with Server(Host().answers()) as s:
        done = subprocess.run([VMCTL, "-c", s.path, "top"], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                              timeout=60, check=False)
        tap.check(done.returncode == 2 and "top needs a terminal" in done.stderr, done.stderr)


if __name__ == "__main__":
    sys.exit(tap.run_cases([busiest_come_first_and_keys_work, ends_by_count_and_by_ctrl_c, needs_a_terminal]))
