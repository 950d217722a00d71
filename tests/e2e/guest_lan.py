# SPDX-License-Identifier: Apache-2.0
"""Three VMs with Debian's kernel on a named network of the daemon: addresses by DHCP, names by DNS, a network that dies under them, links cut
and healed, VLANs, and a capture that tshark finds well-formed.

Needs the guest riscv64-net (tests/guests/fetch).
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import guest  # noqa: E402
import guest_net  # noqa: E402
import tap  # noqa: E402

LIMIT = 300.0  # of patience, nothing is measured
NAMES = ("ann", "bob", "cat")


class Machine:
    """A VM of the daemon with a shell on its console."""

    def __init__(self, daemon, name, files, **more):
        self.name, self.text = name, b""
        config = {"name": name, "kernel": files["kernel"], "initrd": files["initrd"], "memory": 128 << 20, "rng": True,
                  "append": "console=ttyS0 vmd.virtio vmd.run=net,shell", "tcg": {"cache_size": 32 << 20},
                  "nics": [{"type": "network", "network": "lan", "bus": "virtio-pci"}], **more}
        daemon.call("vm.define", config=config)
        daemon.call("vm.start", vm=name)
        self.console = lib.Console(daemon.call("vm.console", vm=name)["path"])

    def expect(self, pattern, timeout=LIMIT):
        regex = re.compile(pattern.encode(), re.MULTILINE)
        end = time.monotonic() + timeout
        while True:
            match = regex.search(self.text)
            if match:
                self.text = self.text[match.end():]
                return match
            if not self.console.ready(max(0.1, end - time.monotonic())):
                raise AssertionError(f"{self.name}: no {pattern!r}; the console ends with\n"
                                     + self.text[-1500:].decode(errors="replace"))
            data = self.console.read_some()
            tap.check(data, f"{self.name}: the console ended")
            self.text += data

    def booted(self):
        match = self.expect(r"^NET ([^\r\n]+)\r?\n|NET-FAILED")
        tap.check(match.group(1), f"{self.name} got no address: {match.group(0)}")
        self.expect(r"guest# ")
        self.address = match.group(1).split()[1].split(b"/")[0].decode()
        return match.group(1).decode()

    def run(self, text, good=True):
        self.console.sock.sendall((text + "; echo STATUS=$?=\n").encode())
        match = self.expect(r"((?:.|\n)*?)^STATUS=(\d+)=\r?$")
        output = match.group(1).decode(errors="replace")
        tap.check(not good or match.group(2) == b"0", f"{self.name}: {text}: status {match.group(2).decode()}\n{output}")
        return output

    def reaches(self, whom):
        """Until it does; a link that was just healed may lose the first."""
        self.run(f"n=0; until ping -c 1 -W 2 {whom} >/dev/null 2>&1; do n=$((n+1)); [ $n -lt 60 ] || break; done; [ $n -lt 60 ]")

    def misses(self, whom):
        self.run(f"ping -c 2 -W 1 {whom} >/dev/null 2>&1; [ $? = 1 ]")

    def close(self):
        self.console.close()


def three_vms_find_each_other_by_name_and_faults_part_them():
    files = guest.fetched("riscv64-net")
    with lib.Daemon() as daemon:
        daemon.call("network.create", config={"name": "lan", "domain": "lan.test"}, subnet="10.61.0.0/24")
        machines = ann, bob, cat = [Machine(daemon, name, files) for name in NAMES]
        try:
            for machine in machines:
                said = machine.booted()
                tap.check(said.startswith("eth0 10.61.0.") and said.split()[3] == "10.61.0.1", f"{machine.name}: {said}")
            leases = {k["vm"]: k["ip"] for k in daemon.call("network.leases", network="lan")["leases"]}
            tap.check(leases == {m.name: m.address for m in machines}, f"{leases}")
            if shutil.which("virsh"):
                shown = subprocess.run(["virsh", "-q", "-c", f"qemu+unix:///system?socket={daemon.dir}/run/libvirt-sock", "domifaddr", "ann"],
                                       capture_output=True, text=True, timeout=120, check=False)
                tap.check(shown.stdout.split()[::2] == ["nic0", "ipv4"] and shown.stdout.split()[-1] == ann.address + "/24", f"{shown}")
            capture = os.path.join(daemon.dir, "ann.pcap")
            daemon.call("network.capture", vm="ann", nic="nic0", file=capture)
            tap.check(bob.address in ann.run("nslookup bob.lan.test 2>&1 || true"), "bob's name")
            ann.reaches("bob.lan.test")
            bob.reaches("cat")
            cat.reaches("ann")
            bob.run("nc -l -p 39007 >/tmp/x & " + guest_net.listens("tcp*", 39007))
            sums = ann.run("dd if=/dev/urandom of=/tmp/y bs=64k count=64 2>/dev/null; md5sum </tmp/y; nc bob 39007 </tmp/y")
            got = bob.run("wait; md5sum </tmp/x")
            tap.check(re.search("[0-9a-f]{32}", got).group(0) in sums, f"{got} is not {sums}")
            frames = daemon.call("network.capture_stop", vm="ann", nic="nic0")["frames"]
            well_formed(capture, frames, bob)
            # Cut, and healed.
            daemon.call("fault.network", network="lan", vm="bob", cut=True)
            ann.misses(bob.address)
            ann.reaches(cat.address)
            daemon.call("fault.network_heal", network="lan", vm="bob")
            ann.reaches("bob")
            # VLANs.
            daemon.call("network.port", vm="ann", nic="nic0", vlan=20)
            daemon.call("network.port", vm="bob", nic="nic0", vlan=20)
            ann.reaches(bob.address)
            cat.misses(ann.address)
            daemon.call("network.port", vm="cat", nic="nic0", vlan=20)
            cat.reaches(ann.address)
            # The switch dies; VMs keep their addresses, and find each other when it is there again, in no VLAN.
            os.kill(daemon.call("network.get", network="lan")["pid"], signal.SIGKILL)
            lib.wait_for(lambda: len(ports(daemon)) == 4, 60, "the cards are connected again")
            ann.reaches(bob.address)
            cat.reaches(ann.address)
        finally:
            for machine in machines:
                machine.close()


def ports(daemon):
    try:
        return daemon.call("network.ports", network="lan")["ports"]
    except lib.CallError as error:
        tap.check(error.error in ("bad-state", "unresponsive"), f"{error}")
        return []


def well_formed(capture, frames, bob):
    if not shutil.which("tshark"):
        print("# skipped: tshark (package tshark)")
        return
    done = subprocess.run(["tshark", "-r", capture, "-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-T", "fields",
                           "-e", "ip.dst", "-e", "dns.qry.name", "-e", "_ws.malformed", "-e", "ip.checksum.status", "-e",
                           "udp.checksum.status"], capture_output=True, text=True, check=False, timeout=LIMIT)
    tap.check(done.returncode == 0, done.stderr)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    tap.check(len(rows) == frames and frames > 20, f"{frames} frames, {len(rows)} read")
    tap.check(any(bob.address in row[0] for row in rows) and any("bob" in row[1] for row in rows), "what was said to bob")
    wrong = [row for row in rows if row[2] or "0" in row[3] or "0" in row[4]]
    tap.check(not wrong, f"malformed: {wrong[:5]}")


if __name__ == "__main__":
    guest.need("riscv64-net")
    sys.exit(tap.run_cases([three_vms_find_each_other_by_name_and_faults_part_them], (guest.Unavailable,)))
