# SPDX-License-Identifier: Apache-2.0
"""Devices that join a guest to its host, driven by Debian's kernel and its own drivers, through the daemon, vmctl and QMP: the memory
balloon.

Needs the guest riscv64-agent (tests/guests/fetch), used when it is in the cache, fetched when VMD_TEST_AGENT=1.
"""

import json
import os
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import guest_agent  # noqa: E402
import tap  # noqa: E402

MIB = 1 << 20
USE = "dd if=/dev/urandom of=/tmp/fill bs=1M count=220 2>/dev/null && sha256sum /tmp/fill >/tmp/sum"


class Machine(guest_agent.Machine):
    def __init__(self, options=(), **config):
        super().__init__(options, **config)
        self.run("mount -t tmpfs -o size=90% tmpfs /tmp")

    def stats(self):
        return self.call("vm.stats")["vms"][0]["stats"]

    def balloon(self):
        return self.stats()["balloon"]

    def rss(self):
        return self.stats()["memory_rss"]

    def qmp(self, command, **arguments):
        return self.call("vm.qmp", execute=command, **({"arguments": arguments} if arguments else {}))


def balloon_returns_memory_to_the_host():
    with Machine(balloon={"free_page_reporting": False, "period": 1}) as machine:
        machine.run("dmesg | grep -i balloon; true")
        machine.until("no driver", lambda: machine.balloon().get("driver") and machine.balloon().get("available"))
        machine.run(USE + " && rm /tmp/fill")
        before = machine.rss()
        answer = json.loads(machine.vmctl("balloon", "a", "256M", "--json"))
        tap.check((answer["target"], answer["memory"]) == (256 * MIB, 512 * MIB), str(answer))
        machine.until("not inflated", lambda: machine.balloon()["actual"] == 256 * MIB)
        machine.until(f"{before} bytes became {machine.rss()}", lambda: machine.rss() < before - 200 * MIB)
        given = machine.balloon()["given_back"]
        tap.check(given == 256 * MIB, str(given))
        total = int(machine.run("grep MemTotal /proc/meminfo").split()[1]) << 10
        tap.check(total < 256 * MIB, f"{total} bytes of guest")
        print(f"# host memory fell from {before >> 20} to {machine.rss() >> 20} MiB")
        tap.check(machine.qmp("query-balloon")["result"] == {"actual": 256 * MIB}, "query-balloon")
        machine.qmp("balloon", value=512 * MIB)
        machine.until("not deflated", lambda: machine.balloon()["actual"] == 512 * MIB)
        machine.run(USE + " && sha256sum -c /tmp/sum")
        seen = machine.balloon()
        tap.check(seen["total"] > 400 * MIB and seen["free"] < seen["total"], str(seen))
        tap.check(machine.call("vm.balloon")["target"] == 512 * MIB, "vm.balloon")
        machine.client.fails("invalid-params", "vm.balloon", vm="a", memory=513 * MIB)
        events = [e for e in machine.client.call("event.list")["events"] if e["type"] == "vm-balloon"]
        tap.check(events and events[-1]["detail"] == {"actual": 512 * MIB}, str(events[-3:]))


def freed_memory_goes_back_by_itself():
    with Machine(balloon={"period": 1}) as machine:
        machine.run(USE)
        full = machine.rss()
        machine.run("rm /tmp/fill")
        machine.until("nothing reported", lambda: machine.rss() < full - 150 * MIB)
        print(f"# host memory fell from {full >> 20} to {machine.rss() >> 20} MiB, {machine.balloon()['reported'] >> 20} MiB reported")
        machine.run(USE + " && sha256sum -c /tmp/sum")
        tap.check(machine.balloon()["actual"] == 512 * MIB, str(machine.balloon()))


def automatic_mode_follows_the_host():
    """Thresholds are chosen so that this host is short, then has plenty."""
    for low, high, least, most in ((100, 100, 128 * MIB, 240 * MIB), (1, 2, 512 * MIB, 512 * MIB)):
        with Machine(options=["--balloon-low", str(low), "--balloon-high", str(high)],
                     balloon={"mode": "auto", "minimum": 128 * MIB, "period": 1, "memory": 256 * MIB}) as machine:
            machine.until(f"no target from {least} to {most}", lambda: least <= machine.balloon()["target"] <= most)


if __name__ == "__main__":
    sys.exit(tap.run_cases([balloon_returns_memory_to_the_host, freed_memory_goes_back_by_itself,
                            automatic_mode_follows_the_host]))
