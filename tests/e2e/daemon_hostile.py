# SPDX-License-Identifier: Apache-2.0
"""Hostile clients against one daemon: connections beyond the cap, lines that never end, deep and wide JSON, readers
that do not read. Its memory stays bounded and another client is served all the while.

    daemon_hostile.py [--seed N] [--from N] [--count N]     attempts FROM to FROM + COUNT - 1 of a seed; 1,000 by default

The attack runs in a process of its own, so that the other client's times are the daemon's. How long calls took is
printed; the bench has the row with the limit.
"""

import argparse
import os
import random
import socket
import sys
import threading
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402

MEMORY_MAX = 128 << 20
CALL = b'{"jsonrpc":"2.0","id":1,"method":"%s","params":%s}\n'
BOMBS = (
    b"[" * 1000000 + b"\n",
    b'{"a":' * 200000 + b"\n",
    b"[" * 33 + b"]" * 33 + b"\n",
    CALL % (b"api.ping", b'{"a":[' + b"[]," * 330000 + b"0]}"),
    CALL % (b"api.ping", b'{"a":[' + b"{}," * 330000 + b"0]}"),
    CALL % (b"api.ping", b'{"a":[' + b"0," * 500000 + b"0]}"),
    CALL % (b"api.ping", b'{"a":"' + b"\\u0001" * 170000 + b'"}'),
    b"[" + b",".join([CALL[:-1] % (b"vm.list", b"{}")] * 256) + b"]\n",
    b"x" * 1100000,
    b"\xff" * 100000 + b"\n",
    b"\n" * 1000000,
)


class Attack:
    """Holds what it opened. Acts are drawn by the number of the attempt alone."""

    def __init__(self, path, seed):
        self.path, self.seed, self.held = path, seed, []
        self.tally = {"held": 0, "turned away": 0, "cut off": 0, "bombs": 0}

    def open(self):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(60)
        try:
            sock.connect(self.path)
            greeting = sock.recv(4096)
        except OSError:
            greeting = b""
        if b'"hello"' in greeting:
            sock.settimeout(0)
            return sock
        self.tally["turned away"] += 1
        sock.close()
        return None

    def push(self, sock, data):
        """As much as the daemon takes now; False when it has cut us off."""
        try:
            while data:
                data = data[sock.send(data):]
        except BlockingIOError:
            return True
        except OSError:
            self.tally["cut off"] += 1
            return False
        return True

    def act(self, sock, draw):
        kind = draw.randrange(8)
        if kind == 0:
            self.tally["bombs"] += 1
            return self.push(sock, draw.choice(BOMBS))
        if kind == 1:  # a long line that does not end
            return self.push(sock, b'{"jsonrpc":"2.0","id":"' + b"y" * draw.randrange(1000000))
        if kind == 2:  # asks much and reads nothing
            return self.push(sock, CALL % (b"vm.list", b'{"config":true}') * 64)
        if kind == 3:
            return self.push(sock, CALL % (b"event.list", b'{"limit":1000}') * 16)
        return self.push(sock, b'{"jsonrpc"')

    def drip(self, draw):
        """One byte more of some of the lines that were begun."""
        for sock in draw.sample(self.held, min(8, len(self.held))):
            if not self.push(sock, b"z"):
                self.held.remove(sock)
                sock.close()

    def attempt(self, number):
        draw = random.Random(f"{self.seed} {number}")
        sock = self.open()
        if sock and self.act(sock, draw):
            self.tally["held"] += 1
            self.held.append(sock)
        elif sock:
            sock.close()
        self.drip(draw)
        if not sock and draw.randrange(40) == 0:  # others of ours take their place
            for old in self.held[::2]:
                old.close()
            self.held = self.held[1::2]


def attack(path, seed, first, count):
    """In a process of its own; its number, to be waited for."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            a = Attack(path, seed)
            for number in range(first, first + count):
                a.attempt(number)
            print(f"# {count} attempts: {a.tally}", flush=True)
            status = 0
        finally:
            os._exit(status)
    return pid


def peak(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))


def campaign(seed, first, count, defined=200):
    """(times of the other client's calls in ms, sorted; the daemon's peak memory in bytes)"""
    calls = (("api.ping", {}), ("vm.list", {}), ("vm.get", {"vm": "vm7"}), ("vm.stats", {}),
             ("vm.set", {"vm": "vm9", "set": {"cpus": 1}}), ("event.list", {"limit": 10}))
    times = []
    with lib.Daemon() as daemon, daemon.client(60) as client:
        for number in range(defined):
            client.call("vm.define", config=daemon.config(f"vm{number}"))
        pid = attack(daemon.sock, seed, first, count)
        ended = []
        waiter = threading.Thread(target=lambda: ended.append(os.waitpid(pid, 0)[1]))
        waiter.start()
        while waiter.is_alive() or not times:
            for method, params in calls:
                start = time.perf_counter()
                client.call(method, **params)
                times.append((time.perf_counter() - start) * 1000)
            time.sleep(0.005)
        waiter.join()
        tap.check(ended == [0], f"the attack ended with {ended}")
        most = peak(daemon.process.pid)

        def served():
            try:
                return len(daemon.call("vm.list")["vms"]) == defined
            except (lib.Gone, lib.CallError):  # the last of the attack are about to be noticed
                return False
        lib.wait_for(served, what="a new client is served and everything is there")
    return sorted(times), most


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=int(os.environ.get("VMD_TEST_SEED") or 1))
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    args = parser.parse_args()
    sys.argv[1:] = []
    print(f"# seed {args.seed}", flush=True)

    def hostile_clients_are_bounded_and_others_are_served():
        times, most = campaign(args.seed, args.first, args.count)
        print(f"# {len(times)} calls of another client: p50 {times[len(times) // 2]:.1f} ms, "
              f"p99 {times[len(times) * 99 // 100]:.1f} ms, slowest {times[-1]:.1f} ms; daemon's peak {most >> 20} MiB")
        tap.check(lib.sanitized() or most < MEMORY_MAX, f"the daemon took {most >> 20} MiB")
    return tap.run_cases([hostile_clients_are_bounded_and_others_are_served])


if __name__ == "__main__":
    sys.exit(main())
