# SPDX-License-Identifier: Apache-2.0
"""Snapshots of a real guest: disks alone while its agent holds the file systems, so that what went before is whole without a journal's
replay; and memory, which goes on where it was. Debian's kernel, qemu-guest-agent and ext4, judged by e2fsck.

Needs the guest riscv64-agent (tests/guests/fetch)."""

import os
import re
import subprocess
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import guest_agent  # noqa: E402
import tap  # noqa: E402

LIMIT_MS = int(guest_agent.LIMIT * 1000)


class Machine(guest_agent.Machine):
    """With its disk as qcow2, an ext4 on it, and the agent."""

    def __init__(self):
        super().__init__(agent=True)
        self.call("vm.stop")
        self.disk = os.path.join(self.daemon.dir, "disk.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", self.disk, "32M"], check=True)
        self.call("vm.set", set={"disks": [{"file": self.disk, "format": "qcow2", "name": "data"}]})
        self.boot()

    def boot(self):
        self.console.close()
        self.call("vm.start")
        self.text = b""
        self.console = self.connect("vm.console", vm="a")
        self.expect("guest# ")
        self.run("stty -echo; PS1=; " + guest_agent.PORTS)

    def with_agent(self):
        self.run("/usr/sbin/mke2fs -q -t ext4 -F /dev/vda && mkdir -p /mnt && mount -t ext4 /dev/vda /mnt")
        self.run(guest_agent.AGENT)
        self.until("the agent listens", lambda: self.call("vm.get")["agent"])

    def job(self, method, state="done", **params):
        out = self.client.call("job.wait", job=self.call(method, **params)["job"], timeout_ms=LIMIT_MS)
        tap.check(out["state"] == state, f"{method} {params}: {out}")
        return out


def image_of(disk, tag, where):
    subprocess.run(["qemu-img", "convert", "-U", "-f", "qcow2", "-l", f"snapshot.name={tag}", "-O", "raw", disk, where], check=True)
    return where


def state_of_fs(image):
    """Does its journal wait to be replayed? (ext4: the feature needs_recovery)"""
    out = subprocess.run(["dumpe2fs", "-h", image], capture_output=True, text=True, check=True).stdout
    return "needs_recovery" in re.search(r"Filesystem features:(.*)", out).group(1)


def writers_are_held_for_the_instant_and_never_longer():
    with Machine() as m:
        m.with_agent()
        m.run("(i=0; while :; do i=$((i+1)); echo $i >/mnt/count.new && mv /mnt/count.new /mnt/count; done) & echo $! >/tmp/writer")
        raw = os.path.join(m.daemon.dir, "raw")
        for number in range(3):
            taken = m.job("snapshot.create", name=f"q{number}", memory="no", quiesce=True)["result"]
            tap.check(taken["quiesced"] and not m.call("agent.freeze_status")["frozen"], f"{taken}")
            was = m.run("cat /mnt/count")
            m.run(f"until test $(cat /mnt/count) -gt {int(was) + 2}; do sleep 0.1; done")  # it writes on
            image = image_of(m.disk, taken["tag"], raw)
            tap.check(not state_of_fs(image), "the journal is not empty: it was not frozen")
            done = subprocess.run(["/sbin/e2fsck", "-fn", image], capture_output=True, text=True, check=False)
            tap.check(done.returncode == 0, done.stdout + done.stderr)
        loud = m.job("snapshot.create", name="loud", memory="no")["result"]
        tap.check(state_of_fs(image_of(m.disk, loud["tag"], raw)), "without it there is nothing to tell the two apart")
        # What fails thaws, too: a name that an image has already is no reason to stay frozen.
        m.client.fails("exists", "snapshot.create", vm="a", name="q0", memory="no", quiesce=True)
        # An agent that hangs is waited for, and the guest is not left frozen behind it.
        m.run("kill $(cat /tmp/writer); echo q1 >/mnt/mark; sync")
        m.job("snapshot.revert", name="q2", start=True)
        m.console.close()
        m.text = b""
        m.console = m.connect("vm.console", vm="a")
        m.expect("guest# ")
        m.run("stty -echo; PS1=; mkdir -p /mnt && mount -t ext4 -o ro,noload /dev/vda /mnt && cat /mnt/count && ! test -e /mnt/mark")


def a_daemon_that_dies_between_leaves_no_guest_frozen():
    with Machine() as m:
        m.with_agent()
        for turn in range(5):
            m.client.send("snapshot.create", vm="a", name=f"s{turn}", memory="no", quiesce=True)
            time.sleep(0.02 + 0.06 * turn)
            m.daemon.kill()
            m.client.close()
            m.daemon.start()
            m.client = m.daemon.client(guest_agent.LIMIT)
            m.until("snapshots settle", lambda: all(s["state"] == "kept" for s in m.call("snapshot.list")["snapshots"]))
            m.until("the agent listens", lambda: m.call("vm.get").get("agent"))
            m.until("it is thawed", lambda: not m.call("agent.freeze_status")["frozen"])
            m.console.close()
            m.console = m.connect("vm.console", vm="a")
            m.run("echo x >/mnt/x; sync")
        with open(m.daemon.log, encoding="utf-8", errors="replace") as file:
            print(f"# {file.read().count('was making when vmd ended')} of 5 died between")


def memory_goes_on_where_it_was():
    with Machine() as m:
        m.with_agent()
        m.run("echo kept >/tmp/mark; echo kept >/mnt/mark; sync")
        m.job("snapshot.create", name="one")
        m.run("rm /tmp/mark /mnt/mark; sync; dd if=/dev/zero of=/mnt/full bs=64k; sync; true")
        m.job("snapshot.revert", name="one")
        m.console.close()
        m.text = b""
        m.console = m.connect("vm.console", vm="a")
        m.run("test $(cat /tmp/mark) = kept && test $(cat /mnt/mark) = kept && ! test -e /mnt/full && echo more >/mnt/more && sync")
        m.until("the agent listens", lambda: m.call("vm.get").get("agent"))
        tap.check(m.call("agent.command", execute="guest-ping")["result"] == {}, "the agent is another")


if __name__ == "__main__":
    sys.exit(tap.run_cases([writers_are_held_for_the_instant_and_never_longer, a_daemon_that_dies_between_leaves_no_guest_frozen,
                            memory_goes_on_where_it_was]))
