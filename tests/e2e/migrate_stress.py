# SPDX-License-Identifier: Apache-2.0
"""R8: a guest of 256 MiB that dirties memory at 100 MiB/s with disk and network busy, and checks all of it, goes to and fro between two
daemons in two network namespaces, joined by a link of 1 Gbit/s, over mutual TLS. --trips N of them; --faults N: one of the processes dies, or the
link, at a random moment. The checked-in run makes a few of both. Figures are printed, and judged by whoever reads them.

Needs root, tc, riscv64-linux-gnu-gcc and the guest riscv64-agent (tests/guests/fetch)."""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import daemon_migrate as memory  # noqa: E402
import daemon_migrate_disks as disks  # noqa: E402
import far_lib  # noqa: E402
import guest_agent  # noqa: E402
import migrate_lib  # noqa: E402
import newc  # noqa: E402
import remote_lib  # noqa: E402
import tap  # noqa: E402

MIB = 1 << 20
ECHO = """import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 7007))
while True:
    data, who = s.recvfrom(65536)
    s.sendto(data, who)
"""


class Pair(disks.Pair):
    """Each daemon in a namespace of its own."""

    def __init__(self, rate="1gbit"):
        if os.geteuid() != 0 or not shutil.which("tc"):
            raise tap.Skip("root and tc, for a link of 1 Gbit/s")
        super().__init__()
        self.net, self.rate, self.echoes = far_lib.Pair(), rate, []
        for one in self.both:
            one.end()
        try:
            self.net.__enter__()
        except far_lib.Missing as why:
            raise tap.Skip(str(why)) from None
        ends = ((self.net.server, far_lib.ADDRESS), (self.net.client, far_lib.CLIENT_ADDRESS))
        self.both = [remote_lib.RemoteDaemon("--image-dir", self.shared, host=address, wrapper=far_lib.within(name))
                     for name, address in ends]
        for (name, _), link in zip(ends, ("vmd0", "vmd1")):
            far = far_lib.within(name)
            subprocess.run([*far, "tc", "qdisc", "add", "dev", link, "root", "tbf", "rate", rate, "burst", "256kb", "latency", "20ms"],
                           check=True, timeout=30)
            self.echoes.append(subprocess.Popen([*far, sys.executable, "-c", ECHO]))

    def __exit__(self, *what):
        super().__exit__(*what)
        for echo in self.echoes:
            echo.kill()
            echo.wait()
        self.net.__exit__()

    @staticmethod
    def url(daemon):
        return f"vmd+tls://{daemon.host}:{daemon.port}"

    def cut(self, on):
        """Nothing comes through, and nobody is told."""
        far_lib.ip("-n", self.net.server, "link", "set", "vmd0", "down" if on else "up")


def archive(work):
    """The program, for the initramfs."""
    if not shutil.which(disks.CC):
        raise tap.Skip(f"{disks.CC} was not found (Debian: gcc-riscv64-linux-gnu)")
    program = os.path.join(work, "stress")
    subprocess.run([disks.CC, "-O2", "-static", "-o", program, os.path.join(HERE, "migrate_stress.c")], check=True, timeout=200)
    out = newc.Newc()
    with open(program, "rb") as file:
        out.file("stress", file.read(), 0o755)
    return out.bytes()


class Machine(guest_agent.Machine):
    """Its VM is on one of two daemons."""

    def __init__(self, pair, mib=64, rate=100, **more):
        self.pair, self.turn = pair, 0
        super().__init__(memory=256 * MIB, cpus=2, nics=[{"name": "net", "type": "user"}], **more)
        self.run("ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up; route add default gw 10.0.2.2")
        self.run(f"/stress {mib} {rate} /dev/vda 10.0.2.2 7007 </dev/null >/dev/null 2>&1")

    def start_daemon(self, options):
        return self.pair.both[0]

    def initrd(self, path):
        with tempfile.TemporaryDirectory() as work:
            more = archive(work)
        new = os.path.join(self.pair.shared, "initrd")
        with open(path, "rb") as one, open(new, "wb") as two:
            two.write(one.read())
            two.write(bytes(-two.tell() % 4) + more)
        return new

    def __exit__(self, *exc):
        self.console.close()
        self.client.close()

    def at(self, there):
        """The console, where it is now."""
        self.console.close()
        self.client.close()
        self.client = there.client(guest_agent.LIMIT)
        self.text = b""
        self.console = self.connect("vm.console", vm="a")
        self.turn += 1
        self.send(f"\necho begin=$(({self.turn} + 100000))=\n")  # whatever the console still had of before
        self.expect(f"begin={self.turn + 100000}=")

    def counts(self):
        """What each has done; none of it wrong."""
        found = {}
        for line in self.run("cat /tmp/memory /tmp/disk /tmp/net 2>/dev/null; true").split("\n"):
            words = line.split()
            if len(words) == 3 and words[0] in ("memory", "disk", "net"):
                found[words[0]] = int(words[1])
                tap.check(int(words[2]) == 0, f"the guest found what it did not write: {line}")
        return found

    def goes_on(self):
        """Each of the three, and rightly."""
        before = self.counts()
        end = time.monotonic() + guest_agent.LIMIT
        while True:
            now = self.counts()
            before = {**now, **before}
            if all(now.get(name, 0) > before.get(name, 0) > 0 for name in ("memory", "disk", "net")):
                return now
            tap.check(time.monotonic() < end, f"it stands still: {before} {now}")


def move(pair, here, there, **more):
    for name in os.listdir(pair.folder(there)):
        os.unlink(os.path.join(pair.folder(there), name))
    return pair.move(here, there, **more)


def percentile(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * part))]


def trips(count):
    guest_agent.files()
    downs = []
    with Pair() as pair, Machine(pair) as m:
        here, there = pair.both
        first = m.goes_on()
        begin = time.monotonic()
        for number in range(count):
            job = move(pair, here, there, streams=2)
            disks.done(job, pair)
            said = job["result"]
            downs.append(said["downtime_ns"] / 1e6)
            print(f"# trip {number}: {downs[-1]:.1f} ms, {said['bytes'] >> 20} MiB, {said['rounds']} rounds, load {os.getloadavg()[0]:.1f}", flush=True)
            here, there = there, here
            m.at(here)
            m.counts()
        last = m.goes_on()
        took = time.monotonic() - begin
    print(f"# {count} trips in {took:.0f} s, downtime ms: p50 {percentile(downs, 0.5):.1f}, p90 {percentile(downs, 0.9):.1f}, "
          f"p99 {percentile(downs, 0.99):.1f}, max {max(downs):.1f}; the guest did { {k: last[k] - first[k] for k in last} }")


def stall(pid, seconds):
    """It stands still for a while, if it is still there."""
    def send(number):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
    send(signal.SIGSTOP)
    threading.Timer(seconds, send, (signal.SIGCONT,)).start()


def fault(pair, here, there, rng):
    """One of the processes dies, or the link for a while, at a random moment; who has it then."""
    what = rng.choice(["source", "destination", "source-emulator", "destination-emulator", "link", "link", "stall"])
    job = move(pair, here, there, wait=False, streams=rng.randrange(1, 4))
    late = rng.random() < 0.6  # near the handover
    if late:
        with here.client() as client:
            while client.call("job.get", job=job)["state"] in ("queued", "running"):
                seen = [x["state"] for x in client.call("migrate.list")["migrations"]]
                if seen and seen[0] not in ("preparing", "copying"):
                    break
                if client.call("job.get", job=job).get("done", 0) >= 300 * MIB:
                    break
                time.sleep(0.005)
        time.sleep(rng.random() * 0.2)
    else:
        time.sleep(rng.random() * 4)
    if what in ("source", "destination"):
        one = here if what == "source" else there
        one.kill()
        time.sleep(rng.random() * 0.3)
        tap.check(pair.states().count("running") < 2, "two run")
        one.start()
    elif what == "link":
        pair.cut(True)
        threading.Timer(rng.random() * 4, pair.cut, (False,)).start()
    elif what == "stall":
        pids = [pid for one in pair.both for pids in one.emulators().values() for pid in pids]
        stall(rng.choice(pids), rng.random() * 3)
    else:
        one = here if what == "source-emulator" else there
        for pids in one.emulators().values():
            for pid in pids:
                lib.kill(pid)
                lib.wait_for(lambda pid=pid: not lib.alive(pid), 60, "it is dead")
    owner = memory.settle(pair, timeout=150.0)
    state = owner.call("vm.get", vm="a")["state"]
    if "emulator" not in what:
        tap.check(state == "running", f"{what}: {state}: nobody's emulator died")
    return owner, f"{what} {'moved' if owner is there else 'stayed'} {state}"


def faults(seed, first, count):
    guest_agent.files()
    ends, number = {}, first
    while number < first + count:
        with Pair() as pair, Machine(pair) as m:
            here, there = pair.both
            while number < first + count:
                rng = random.Random(f"{seed}:{number}")
                number += 1
                try:
                    owner, end = fault(pair, here, there, rng)
                    ends[end] = ends.get(end, 0) + 1
                    print(f"# {seed}:{number - 1}: {end}", flush=True)
                    if "crashed" in end:
                        break  # another guest
                    m.at(owner)
                    m.goes_on()
                except BaseException:
                    print(f"# fault {number - 1} of seed {seed}, source {here.dir}\n{here.tail()}\n{there.tail()}")
                    raise
                here, there = owner, there if owner is here else here
    print(f"# seed {seed}, {count} faults from {first}: {ends}")


def it_goes_to_and_fro_under_load():
    trips(2)


def whoever_dies_one_has_it():
    seed = int(os.environ.get("VMD_TEST_SEED", random.randrange(1 << 30)))
    print(f"# seed {seed}")
    faults(seed, 0, 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--faults", type=int, default=0)
    parser.add_argument("--trips", type=int, default=0)
    parser.add_argument("case", nargs="*")
    args = parser.parse_args()
    if args.trips:
        trips(args.trips)
    if args.faults:
        faults(args.seed, args.first, args.faults)
    if not args.trips and not args.faults:
        sys.exit(tap.run_cases([it_goes_to_and_fro_under_load, whoever_dies_one_has_it]))
