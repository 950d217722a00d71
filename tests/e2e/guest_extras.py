# SPDX-License-Identifier: Apache-2.0
"""Devices that join a guest to its host, driven by Debian's kernel and its own drivers, through the daemon, vmctl and QMP: the memory
balloon, sockets, random numbers, a
watchdog.

Needs the guest riscv64-agent (tests/guests/fetch), used when it is in the cache, fetched when VMD_TEST_AGENT=1.
"""

import json
import os
import re
import socket
import sys
import time
import zlib

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests", "../bench"):
    sys.path.insert(0, os.path.join(HERE, folder))
import build  # noqa: E402
import guest_agent  # noqa: E402
import newc  # noqa: E402
import tap  # noqa: E402

MIB = 1 << 20
USE = "dd if=/dev/urandom of=/tmp/fill bs=1M count=220 2>/dev/null && sha256sum /tmp/fill >/tmp/sum"


class Machine(guest_agent.Machine):
    def __init__(self, options=(), program=None, **config):
        self.program = program
        super().__init__(options, **config)
        self.run("mount -t tmpfs -o size=90% tmpfs /tmp")

    def initrd(self, path):
        """With a program of ours in /bin."""
        if not self.program:
            return path
        source = os.path.join(HERE, self.program + "_guest.c")
        archive = newc.Newc()
        archive.file("bin/" + self.program, build.contents(build.made([build.compiler(), *build.FLAGS], source, [source])),
                     0o755)
        first, made = build.contents(path), os.path.join(self.daemon.dir, "initrd")
        with open(made, "wb") as file:
            file.write(first + b"\0" * (-len(first) % 512) + archive.bytes())
        return made

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


def random_numbers_pass_rngtest():
    """Of good ones, too, some 8 of 10,000 blocks fail the tests of FIPS 140-2."""
    with Machine() as machine:
        said = machine.run("cat /sys/class/misc/hw_random/rng_current; rngtest -c 1000 </dev/hwrng 2>&1; true")
        counts = [int(n) for n in re.findall(r"FIPS 140-2 (?:successes|failures): (\d+)", said)]
        print(f"# rngtest: {counts} blocks passed and failed")
        tap.check("virtio_rng" in said and len(counts) == 2 and sum(counts) == 1000 and counts[1] < 10, said)


SIZE = 100 * MIB


def vsock_call(machine, port):
    """A stream to who listens at a port of the guest, with what it was answered first."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(guest_agent.LIMIT)
    sock.connect(machine.call("vm.vsock")["path"])
    sock.sendall(f"CONNECT {port}\n".encode())
    line = b""
    while not line.endswith(b"\n"):
        piece = sock.recv(1)
        if not piece:
            break
        line += piece
    return sock, line


def vsock_carries_100_mib_each_way():
    with Machine(program="vsock", vsock={"cid": 42}) as machine:
        where = machine.call("vm.vsock")
        tap.check(where["cid"] == 42 and where["listen"] == where["path"] + "_", str(where))
        tap.check(vsock_call(machine, 999)[1] == b"", "nobody listens there")
        machine.run("vsock listen 1234 >/tmp/log & until grep -q LISTENING /tmp/log; do sleep 0.1; done")
        sock, line = vsock_call(machine, 1234)
        tap.check(line.startswith(b"OK "), f"{line}")
        block, crc, begun = os.urandom(MIB), 0, time.monotonic()
        for i in range(SIZE // MIB):
            piece = i.to_bytes(4, "little") + block[4:]
            sock.sendall(piece)
            crc = zlib.crc32(piece, crc)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while not answer.endswith(b"\n"):
            answer += sock.recv(64) or b"(end)\n"
        tap.check(answer == b"%d %08x\n" % (SIZE, crc), f"{answer}")
        print(f"# to the guest: {SIZE / MIB / (time.monotonic() - begun):.0f} MiB/s")
        sock.close()
        machine.run("wait; vsock refused 77")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(where["listen"] + "77")
            listener.listen(1)
            listener.settimeout(guest_agent.LIMIT)
            machine.run(f"vsock send 77 {SIZE // MIB} >/tmp/sent &")
            stream = listener.accept()[0]
            stream.settimeout(guest_agent.LIMIT)
            total, crc, begun = 0, 0, time.monotonic()
            while True:
                piece = stream.recv(1 << 20)
                if not piece:
                    break
                if total == 0:
                    time.sleep(1)  # a slow reader: credit holds the guest up, nothing is lost
                total += len(piece)
                crc = zlib.crc32(piece, crc)
            print(f"# from the guest: {total / MIB / (time.monotonic() - begun):.0f} MiB/s")
            stream.sendall(b"ok\n")
            said = machine.run("wait; cat /tmp/sent")
            tap.check(f"SENT {SIZE} {crc:08x}" in said and total == SIZE, f"{said} {total} {crc:08x}")


# What a driver does: units of some milliseconds, both stages, enabled; nobody feeds it.
WATCHDOG = ("for d in /sys/bus/pci/devices/*; do [ $(cat $d/device) != 0x25ab ] || D=$d; done; echo 1 >$D/enable; "
            "A=$(head -n 1 $D/resource | cut -d' ' -f1); "
            "w() { devmem $((A + 12)) 16 0x80; devmem $((A + 12)) 16 0x86; devmem $((A + $1)) 32 $2; }; w 0 500; w 4 500; ")


def watchdog_that_is_not_fed_is_told_and_acted_upon():
    """Debian's kernel for riscv64 is driven by hand: the registers are those of its driver for other architectures."""
    with Machine(guest_watchdog={"action": "reset"}) as machine:
        tap.check(machine.qmp("set-action", watchdog="pause")["result"] == {}, "in place of the definition's")
        machine.run(WATCHDOG)
        machine.console.sendall(b"printf '\\2' | dd of=$D/config bs=1 seek=104 conv=notrunc 2>/dev/null\n")
        machine.until("not paused", lambda: machine.call("vm.get")["state"] == "paused")
        told = lambda: [e["reason"] for e in machine.client.call("event.list")["events"] if e["type"] == "vm-watchdog"]  # noqa: E731
        machine.until("it is told", told)  # events are in the list when they are in the store
        tap.check(told() == ["pause"], str(told()))


def clock_starts_at_local_time():
    """The emulator's sandbox has no time zone, so the daemon's counts."""
    os.environ["TZ"] = "XST-5:30"
    try:
        with Machine(clock={"base": "localtime", "offset": -600}) as machine:
            behind = time.time() + 19200 - int(machine.run("cat /sys/class/rtc/rtc0/since_epoch"))
            tap.check(-2 < behind < 240, f"{behind} s behind")
    finally:
        del os.environ["TZ"]


if __name__ == "__main__":
    sys.exit(tap.run_cases([balloon_returns_memory_to_the_host, freed_memory_goes_back_by_itself,
                            automatic_mode_follows_the_host, vsock_carries_100_mib_each_way, random_numbers_pass_rngtest,
                            watchdog_that_is_not_fed_is_told_and_acted_upon, clock_starts_at_local_time]))
