#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Domains move between two daemons as libvirt's clients have it done: virsh (Debian: libvirt-clients) and libvirt's Python module, each the
client of both daemons or of the source alone. Never two owners, whoever leads."""

import os
import pathlib
import subprocess
import sys
import threading

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(TOP / "tests/lib"), str(TOP / "tests/e2e")]

import tap  # noqa: E402
import daemon_migrate_disks as disks  # noqa: E402
import migrate_lib  # noqa: E402
from daemon_lib import CallError, wait_for  # noqa: E402
from libvirt_virsh import Host  # noqa: E402
from remote_lib import free_port  # noqa: E402

try:
    import libvirt
except ImportError:
    libvirt = None
    DEBIANS = "/usr/bin/python3"  # its modules are not those of another Python that comes first
    if os.path.exists(DEBIANS) and not os.path.samefile(sys.executable, DEBIANS):
        os.execv(DEBIANS, [DEBIANS, *sys.argv])


def same(got, wanted):
    tap.check(got == wanted, f"{got!r}, not {wanted!r}")


class Pair(disks.Pair):
    """Two daemons, and virsh at each of them."""

    def __enter__(self):
        super().__enter__()
        self.at = []
        for daemon in self.both:
            host = Host.__new__(Host)
            host.d = daemon
            self.at.append(host)
        self.here, self.there = self.at
        return self

    def moves(self, *words):
        """To the other daemon by virsh as the client of both."""
        return self.here.run("migrate", "a", self.there.uri(), "--live", *words)

    def refused(self, pattern, *words):
        self.here.fails(pattern, "migrate", "a", self.there.uri(), "--live", *words)
        same(self.states(), ["running", None])

    def info(self, side, name="a"):
        return self.at[side].vm(name)


def virsh_leads():
    with Pair() as pair:
        pair.define(pages=64)
        pair.moves("--persistent", "--undefinesource")
        same(pair.states(), [None, "running"])
        tap.check(not pair.info(1)["transient"], "its definition goes with its end")
        pair.watch(pair.both[1])
        pair.there.run("migrate", "a", pair.here.uri(), "--live", "--persistent", "--undefinesource", "--suspend")
        same(pair.states(), ["paused", None])
        pair.here.run("resume", "a")
        pair.watch(pair.both[0])


def a_definition_stays_or_comes_as_virsh_says():
    with Pair() as pair:
        pair.define(pages=64, autostart={"enabled": "on"}, restart={"mode": "always"})
        pair.moves()
        same(pair.states(), ["stopped", "running"])
        tap.check(pair.info(1)["transient"] and not pair.info(0)["transient"], "who keeps it?")
        same(pair.here.run("domstate", "a", "--reason").strip(), "shut off (migrated)")
        tap.check("disable" in pair.here.run("dominfo", "a"), "it would start here by itself")
        pair.there.run("destroy", "a")
        wait_for(lambda: pair.states() == ["stopped", None], what="that it goes there")
        pair.both[0].kill()
        pair.both[0].start()
        same(pair.states(), ["stopped", None])
        pair.here.run("start", "a")
        pair.moves("--persistent")
        same(pair.states(), ["stopped", "running"])
        tap.check(not pair.info(1)["transient"], "its definition goes with its end")
        pair.watch(pair.both[1])
        pair.there.fails("already", "migrate", "a", pair.here.uri(), "--live")
        same(pair.states(), ["stopped", "running"])
        pair.here.run("undefine", "a")
        pair.there.run("migrate", "a", pair.here.uri(), "--live", "--undefinesource", "--persistent", "--dname", "b")
        same([pair.states("a"), pair.states("b")], [[None, None], ["running", None]])


def what_is_refused_there_never_stops_the_guest():
    with Pair() as pair:
        pair.define(pages=64)
        here, there = pair.both
        there.call("vm.define", config=there.config("a"))
        since = pair.info(0)["since_ms"]
        pair.here.fails("already", "migrate", "a", pair.there.uri(), "--live")
        there.call("vm.delete", vm="a")
        pair.refused("unknown scheme|another daemon", "--migrateuri", "rdma://127.0.0.1")
        pair.refused("no certificate", "--migrateuri", "vmd+tls://127.0.0.1:1")
        pair.refused("not supported", "--postcopy")
        pair.refused("see it|cannot have another", "--xml", pair.here.file("other.xml", pair.here.run("dumpxml", "a", "--migratable").replace(
            ">1</vcpu>", ">2</vcpu>")))
        pair.refused("not all of the named disks", "--copy-storage-all", "--migrate-disks", "vdx")
        same(pair.info(0)["since_ms"], since)  # it was never paused
        pair.watch(here)


def a_missing_network_is_told_before_anything_moves():
    with Pair() as pair:
        pair.both[0].call("network.define", config={"name": "lan"})
        pair.both[0].call("network.start", network="lan")
        pair.define(pages=64, nics=[{"type": "network", "network": "lan"}])
        pair.refused("lan")
        pair.both[1].call("network.define", config={"name": "other"})
        pair.both[1].call("network.start", network="other")
        xml = pair.here.file("there.xml", pair.here.run("dumpxml", "a", "--migratable").replace("network='lan'", "network='other'"))
        pair.moves("--undefinesource", "--persistent", "--xml", xml)
        same(pair.states(), [None, "running"])
        tap.check("network='other'" in pair.there.run("dumpxml", "a"), "its card is elsewhere")
        pair.watch(pair.both[1])


def disks_come_along():
    with Pair(apart=True) as pair:
        here, there = pair.both
        path = os.path.join(pair.shared, "d.qcow2")
        pair.define_disk("qcow2", files=[path])
        pair.refused("is written, and does not move")
        pair.moves("--copy-storage-all", "--undefinesource", "--persistent")
        same(pair.states(), [None, "running"])
        tap.check(os.path.exists(os.path.join(pair.own, "d.qcow2")), "no disk is there")
        console = there.console("a")
        try:
            tap.check(console.read_some(60), "the guest is silent there")
        finally:
            console.close()
        del here


def limits_hold_and_a_job_is_called_off():
    with Pair() as pair:
        pair.guest(8192, stride=8)  # all of its words differ: what is sent takes its time
        pair.define(pages=8192, memory=64)
        v = pair.here
        same(v.run("migrate-getmaxdowntime", "a").strip(), "30")
        v.run("migrate-setmaxdowntime", "a", "100")
        same(v.run("migrate-getmaxdowntime", "a").strip(), "100")
        tap.check(int(v.run("migrate-getspeed", "a")) > 1 << 20, "a limit")
        v.run("migrate-setspeed", "a", "1")
        same(v.run("migrate-getspeed", "a").strip(), "1")
        with subprocess.Popen(["virsh", "-q", "-c", v.uri(), "migrate", "a", pair.there.uri(), "--live", "--undefinesource", "--persistent"],
                              stderr=subprocess.PIPE, text=True) as virsh:
            wait_for(lambda: "Data remaining" in v.run("domjobinfo", "a"), 60, "its figures")
            info = v.run("domjobinfo", "a")
            tap.check(all(part in info for part in ("Data remaining", "Memory total", "Outgoing migration")), info)
            same(virsh.poll(), None)
            v.run("domjobabort", "a")
            tap.check("cancelled" in virsh.communicate(timeout=120)[1] and virsh.returncode != 0, "it was not told")
        wait_for(lambda: pair.states() == ["running", None], 60, "that it is here alone")
        pair.watch(pair.both[0], passes=1)
        with subprocess.Popen(["virsh", "-q", "-c", v.uri(), "migrate", "a", pair.there.uri(), "--live", "--undefinesource", "--persistent"],
                              stderr=subprocess.PIPE, text=True) as virsh:
            wait_for(lambda: [m["state"] for m in pair.both[0].call("migrate.list")["migrations"]] == ["copying"], 60, "that it copies")
            v.run("migrate-setspeed", "a", "0")  # and now it goes
            v.run("migrate-setmaxdowntime", "a", "2000")
            err = virsh.communicate(timeout=300)[1]
            tap.check(virsh.returncode == 0, err)
        same(pair.states(), [None, "running"])
        pair.watch(pair.both[1], passes=1)


def a_client_that_dies_leaves_one_owner():
    """Killed at any point: the daemons finish what they began, or it never began."""
    with Pair() as pair:
        pair.define(pages=64)
        at = [0]
        for delay in (0.01, 0.05, 0.2, 1):
            here, there = pair.at[at[0]], pair.at[1 - at[0]]
            with subprocess.Popen(["virsh", "-q", "-c", here.uri(), "migrate", "a", there.uri(), "--live", "--undefinesource", "--persistent"],
                                  stderr=subprocess.DEVNULL) as virsh:
                timer = threading.Timer(delay, virsh.kill)
                timer.start()
                virsh.wait()
                timer.cancel()
            wait_for(lambda: not any(one.call("migrate.list")["migrations"] for one in pair.both), 60, "that it is over")
            states = pair.states()
            tap.check(sorted(states, key=str) == [None, "running"], f"after {delay} s: {states}")
            at[0] = states.index("running")
            pair.watch(pair.both[at[0]], passes=1)


def by_tls_and_peer_to_peer():
    with Pair() as pair:
        here, there = pair.both
        port = free_port()
        there.options += ["--libvirt-tls", f"127.0.0.1:{port}"]
        there.terminate()
        there.start()
        creds = there.user("boss", "admin", "*")
        folder = os.path.join(there.dir, "pki-boss")
        os.makedirs(folder)
        for name, file in (("cacert.pem", there.ca), ("clientcert.pem", creds.cert), ("clientkey.pem", creds.key)):
            pathlib.Path(folder, name).write_bytes(pathlib.Path(file).read_bytes())
        pair.define(pages=64)
        uri = f"qemu+tls://127.0.0.1:{port}/system?pkipath={folder}"
        pair.here.run("migrate", "a", uri, "--live", "--undefinesource", "--persistent")
        same(pair.states(), [None, "running"])
        pair.there.run("migrate", "a", pair.url(here), "--live", "--p2p", "--tunnelled", "--undefinesource", "--persistent", "--tls")
        same(pair.states(), ["running", None])
        pair.here.run("migrate", "a", "qemu+tls://127.0.0.1/system", pair.url(there), "--live", "--p2p", "--undefinesource")
        same(pair.states(), [None, "running"])
        tap.check(pair.info(1)["transient"], "its definition came, too")
        pair.watch(there)


def pythons_calls_move_it():
    if not libvirt:
        raise tap.Skip("python3-libvirt")
    libvirt.registerErrorHandler(lambda *_: None, None)
    flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE | libvirt.VIR_MIGRATE_PERSIST_DEST
    with Pair() as pair:
        pair.define(pages=64)
        conns = [libvirt.open(one.uri()) for one in pair.at]
        xml = conns[0].lookupByName("a").XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE)
        p2p = flags | libvirt.VIR_MIGRATE_PEER2PEER

        def url(side):
            return pair.url(pair.both[side])
        ways = (lambda dom, to: dom.migrate(conns[to], flags, None, None, 0),
                lambda dom, to: dom.migrate2(conns[to], xml, flags, None, None, 100),
                lambda dom, to: dom.migrate3(conns[to], {libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: 100}, flags),
                lambda dom, to: dom.migrateToURI(url(to), p2p, None, 0),
                lambda dom, to: dom.migrateToURI2(url(to), None, xml, p2p, None, 0),
                lambda dom, to: dom.migrateToURI3(url(to), {libvirt.VIR_MIGRATE_PARAM_DEST_XML: xml}, p2p))
        for i, way in enumerate(ways):
            dom = conns[i % 2].lookupByName("a")
            got = way(dom, 1 - i % 2)
            if i < 3:
                same((got.name(), got.isActive()), ("a", 1))
            wait_for(lambda: pair.states()[i % 2] is None and pair.states()[1 - i % 2] == "running", 60,  # pylint: disable=cell-var-from-loop
                     f"that way {i} moved it: {pair.states()}")
        pair.watch(pair.both[0])
        for conn in conns:
            conn.close()


CASES = (virsh_leads, a_definition_stays_or_comes_as_virsh_says, what_is_refused_there_never_stops_the_guest,
         a_missing_network_is_told_before_anything_moves, disks_come_along, limits_hold_and_a_job_is_called_off,
         a_client_that_dies_leaves_one_owner, by_tls_and_peer_to_peer, pythons_calls_move_it)

if __name__ == "__main__":
    try:
        sys.exit(tap.run_cases(CASES))
    except CallError as e:
        sys.exit(str(e))
