# SPDX-License-Identifier: Apache-2.0
"""Network cards against QEMU's, in turn in the same run: the same kernel and program (guest/net.c) under vmd's translator and
QEMU's, a virtio card on virtio-mmio in user mode and one on a tap interface. Rows are seconds of the guest's own clock for a number of bytes, datagrams
or round trips between the guest and a thread of this program. Everything runs in a network namespace of its own."""

import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading

import guest
import linux
from report import say
from rows import Row

MIB = 1 << 20
INSIDE = "VMD_BENCH_NETNS"
TAP = "vmdbench0"
PORT = 7100
PIECE = bytes(range(256)) * 4096
SIDES = (("user", 1, "10.0.2.15", "10.0.2.2"), ("tap", 2, "10.78.0.2", "10.78.0.1"))
WORK = (("receive", "TCP to the guest, 256 MiB", 256 * MIB), ("send", "TCP from the guest, 256 MiB", 256 * MIB),
        ("udp", "60,000 datagrams there and back", 60000), ("rtt", "6,000 round trips", 6000))
ROWS = [Row(f"{side}-{what}", f"{side}: {title}", "net", f"{card} {own} {peer} {PORT} {what} {count}")
        for side, card, own, peer in SIDES for what, title, count in WORK]


def serve(connection):
    """One row: its first line says what."""
    with connection, connection.makefile("rb", buffering=0) as reader:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        what, count = reader.readline().split()
        left = int(count)
        try:
            if what == b"receive":
                while left > 0:
                    left -= connection.send(PIECE[:left] if left < len(PIECE) else PIECE)
            elif what == b"send":
                while left > 0:
                    left -= len(connection.recv(MIB)) or left
                connection.sendall(struct.pack("<Q", int(count)))
            while True:  # rtt; and until the guest has gone
                data = connection.recv(64)
                if not data:
                    break
                if what == b"rtt":
                    connection.sendall(data)
        except OSError:
            pass


def accept(server):
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def echo(sock):
    while True:
        try:
            data, where = sock.recvfrom(2048)
            sock.sendto(data, where)
        except OSError:
            return


class NetBoot(linux.Boot):
    def __init__(self, rows, folder):
        super().__init__(rows, guest.fetched("riscv64-net"), False, rows[0].tools, None, folder)

    def config(self, emulator, cpus):
        config = super().config(emulator, cpus)
        config["append"] += " vmd.virtio"
        config["nics"] = [{"name": "user0", "mac": "52:54:00:00:00:01"},
                          {"name": "tap0", "type": "tap", "ifname": TAP, "mac": "52:54:00:00:00:02"}]
        return config


def enter():
    """Runs the bench again in a namespace where interfaces can be made."""
    if os.environ.get(INSIDE):
        return
    how = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--user", "--map-root-user"]
    if not shutil.which("ip") or subprocess.run([*how, "ip", "tuntap", "add", "dev", "probe0", "mode", "tap"],
                                                capture_output=True, check=False).returncode:
        raise guest.Unavailable("a network namespace with tap interfaces")
    os.environ[INSIDE] = "1"
    os.execvp(how[0], [*how, sys.executable, *sys.argv])


def interfaces():
    for words in (("link", "set", "lo", "up"), ("tuntap", "add", "dev", TAP, "mode", "tap", "vnet_hdr"),
                  ("addr", "add", "10.78.0.1/24", "dev", TAP), ("link", "set", TAP, "up")):
        subprocess.run(["ip", *words], check=True)


def bench(args):
    enter()
    interfaces()
    wanted = [row for row in ROWS if not args.rows or row.name in args.rows]
    emulators = [name for name in ["vmd", *args.peers] if name not in args.skip]
    names = {name: "vmd" if name == "vmd" else "QEMU " + guest.emulator_version(name) for name in emulators}
    samples = {row.name: {name: [] for name in emulators} for row in wanted}
    failures, table = [], []
    with tempfile.TemporaryDirectory(prefix="vmd-bench") as folder, socket.create_server(("0.0.0.0", PORT)) as server, \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", PORT))
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        threading.Thread(target=echo, args=(sock,), daemon=True).start()
        boot = NetBoot(wanted, folder)
        for run in range(args.runs):
            for emulator in emulators[run % len(emulators):] + emulators[:run % len(emulators)]:
                results, wrong = linux.run_boot(boot, emulator, args.cpus)
                for name, sample in results.items():
                    samples[name][emulator].append(sample)
                failures += [(emulator, f"{name}: {text}") for name, text in wrong.items()]
                say(f"run {run + 1} of {args.runs}, {emulator}: {linux.describe(results)}")
    for row in wanted:
        linux.agree(row, samples[row.name], failures)
        entry = linux.compare(row, samples[row.name], names, [name for name in args.peers if name in emulators])
        if entry:
            entry["group"] = row.name.split("-", maxsplit=1)[0]
            table.append(entry)
    return table, failures
