# SPDX-License-Identifier: Apache-2.0
"""Forks of a real guest: Debian's kernel goes on in each copy, on a file system of its own, and seeds its random numbers anew, told by the
generation id; so does one that is restored from a snapshot.

Needs the guest riscv64-agent (tests/guests/fetch)."""

import os
import subprocess
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import guest_agent  # noqa: E402
import tap  # noqa: E402

LIMIT_MS = int(guest_agent.LIMIT * 1000)
RESEEDED = "n=0; until dmesg | grep -q 'due to virtual machine fork'; do n=$((n+1)); test $n -lt 600 || break; sleep 0.1; done; "


def enter(m, name):
    """The shell of another VM."""
    m.console.close()
    m.text = b""
    m.console = m.connect("vm.console", vm=name)
    m.turn = getattr(m, "turn", 0) + 1
    m.send(f"echo begin=$(({m.turn} + 1000))=\n")  # whatever the console still had of before
    m.expect(f"begin={m.turn + 1000}=")


def job(m, method, **params):
    out = m.client.call("job.wait", job=m.call(method, **params)["job"], timeout_ms=LIMIT_MS)
    tap.check(out["state"] == "done", f"{method}: {out}")
    return out


def copies_go_on_and_no_random_number_comes_twice():
    with guest_agent.Machine(nics=[{"type": "user"}]) as m:
        m.run("dmesg -n 1; /usr/sbin/mke2fs -q -t ext4 -F /dev/vda && mkdir -p /mnt && mount -t ext4 /dev/vda /mnt && echo source >/mnt/who; echo kept >/tmp/mark")
        tap.check("virtual machine fork" not in m.run("dmesg"), "it was told of a fork that was none")
        names = job(m, "vm.fork", count=3)["result"]["copies"]
        numbers, macs = [], []
        for name in names:
            enter(m, name)
            tap.check(m.run("cat /tmp/mark /mnt/who").split() == ["kept", "source"], f"{name}: {m.text}")
            tap.check("due to virtual machine fork" in m.run(RESEEDED + "dmesg | grep 'virtual machine fork'"), f"{name} was not told")
            numbers.append(m.run("od -An -tx1 -N32 /dev/urandom").strip())
            m.run(f"echo {name} >/mnt/who; sync")
            macs.append(m.run("cat /sys/class/net/*/address"))
        enter(m, "a")
        numbers.append(m.run("od -An -tx1 -N32 /dev/urandom").strip())
        found = m.run("cat /mnt/who; dmesg | grep -c 'virtual machine fork'; true").split()
        tap.check(found == ["source", "0"], f"the source is another: {found}")
        tap.check(len(set(numbers)) == len(numbers) == 4, f"a number came twice: {numbers}")
        for name in names:  # each wrote to its own
            enter(m, name)
            tap.check(m.run("cat /mnt/who").strip() == name, name)
            m.run("umount /mnt")
            disk = m.client.call("vm.get", vm=name)["config"]["disks"][0]["file"]
            m.client.call("vm.stop", vm=name)
            out = subprocess.run(["qemu-img", "check", "-q", disk], capture_output=True, text=True, check=False)
            tap.check(out.returncode == 0, f"{disk}: {out}")


def who_is_restored_is_told():
    with guest_agent.Machine(disks=[]) as m:
        m.run("dmesg -n 1")
        job(m, "snapshot.create", name="one")
        job(m, "snapshot.revert", name="one")
        enter(m, "a")
        tap.check("due to virtual machine fork" in m.run(RESEEDED + "dmesg | grep 'virtual machine fork'"), "it was not told")


if __name__ == "__main__":
    sys.exit(tap.run_cases([copies_go_on_and_no_random_number_comes_twice, who_is_restored_is_told]))
