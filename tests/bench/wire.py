# SPDX-License-Identifier: Apache-2.0
"""libvirt's protocol: the same calls of libvirt's own client (libvirt.so.0, virsh) to vmd and to libvirtd, in turn in one run. Rows
and the other side are those of control.py."""

import os
import signal
import sys
import time

import control
import daemon_lib as lib
import libvirt_peer


def uri(daemon):
    return f"qemu+unix:///system?socket={daemon.dir}/run/libvirt-sock"


def xml(name, firmware):
    return (f"<domain type='qemu'><name>{name}</name><memory unit='MiB'>16</memory><vcpu>1</vcpu><os>"
            f"<type arch='riscv64' machine='virt'>hvm</type><loader type='rom'>{firmware}</loader></os></domain>")


def connect(daemon, client, timeout=30):
    end = time.monotonic() + timeout
    while True:
        try:
            return libvirt_peer.Connection(client, uri(daemon))
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.001)


def ours_running(client, add):
    with lib.Daemon() as daemon:
        conn = connect(daemon, client)
        control.load_rows("libvirt", uri(daemon), add)
        loop, wait = daemon.guest(), control.idle(daemon)
        conn.define(xml("first", loop))
        conn.start("first")
        log = daemon.call("vm.console", vm="first")["log"]
        add("destroy", control.timed(conn.destroy, "first")[0])
        conn.undefine("first")
        number = int(os.path.basename(os.path.dirname(log))) + 1
        log = os.path.join(os.path.dirname(os.path.dirname(log)), str(number), os.path.basename(log))
        add("first", control.first_byte(log, lambda: (conn.define(xml("first", loop)), conn.start("first"))))
        for number in range(15):
            conn.define(xml(f"run{number}", wait))
            conn.start(f"run{number}")
        add("stats16", control.often(conn.stats))
        pid = daemon.call("vm.get", vm="run0")["pid"]
        os.kill(pid, signal.SIGSTOP)
        add("stats-wedged", control.often(conn.stats))
        os.kill(pid, signal.SIGCONT)
        add("client", control.process_ms(["virsh", "-c", uri(daemon), "list", "--all", "--name"]))
        conn.close()


def ours(add):
    client = libvirt_peer.load()
    ours_running(client, add)
    with lib.Daemon() as daemon:
        conn, wait = connect(daemon, client), control.idle(daemon)
        texts = [xml(f"vm{number}", wait) for number in range(control.DEFINED)]
        add("define1000", control.timed(lambda: [conn.define(text) for text in texts])[0])
        add("list1000", control.often(conn.list))
        add("stats1000", control.often(conn.stats))
        conn.close()
        daemon.kill()
        start = time.perf_counter()
        daemon.start(wait=False)
        tally = 0
        while tally != control.DEFINED:
            conn = connect(daemon, client)
            tally = conn.list()
            conn.close()
        add("restart1000", (time.perf_counter() - start) * 1000.0)


def bench(args):
    """Rows of the result file, and what failed."""
    wedged = []

    def run(add):
        ours(lambda name, value: wedged.append(value) if name == "stats-wedged" else add(name, value))
    rows = [row for row in control.PEER_ROWS if not row.endswith("-test") and (not args.rows or row in args.rows)]
    table, failures = control.bench_peer(args, rows, run)
    table.append({"name": "stats-wedged", "title": "statistics of 16, one emulator stopped", "unit": "ms",
                  "ours": round(sorted(wedged)[len(wedged) // 2], 2), "limit": 10.0,
                  "spread": round((max(wedged) - min(wedged)) / min(wedged), 3)})
    if table[-1]["ours"] > 10.0:
        failures.append(("stats-wedged", f"{table[-1]['ours']} ms, the limit is 10"))
    return table, failures


if __name__ == "__main__":
    sys.exit("this is a set of tests/bench/run: libvirt")
