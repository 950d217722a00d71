# SPDX-License-Identifier: Apache-2.0
"""Named networks in the daemon: what calls do and refuse, that processes outlive the daemon and are replaced when they die, and that
the cards of VMs are ports of them (the emulator is asked for emu.nic_connect, emu.nic_link, emu.nic_filter). This program is also a VM at such a port: DHCP, names, faults, VLANs. XML is judged by
virt-xml-validate."""

import json
import os
import shutil
import signal
import subprocess
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../network"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import lan  # noqa: E402
import tap  # noqa: E402

ADDRESS = "10.44.0.0/24"  # as lan.Member has it


class Ports:
    """What lan.Member needs: where to connect."""

    def __init__(self, daemon, name="lan"):
        uuid = daemon.call("network.get", network=name)["uuid"]
        self.ports = os.path.join(daemon.dir, "run", "net", uuid.replace("-", "")[:16], "ports")


def ports(daemon, name="lan"):
    return {f"{p.get('vm', '')}/{p['nic']}": p for p in daemon.call("network.ports", network=name)["ports"]}


def wait_ports(daemon, wanted, name="lan"):
    def there():
        try:
            return set(ports(daemon, name)) == {"/gateway", *wanted}
        except lib.CallError as error:
            if error.error in ("bad-state", "unresponsive"):
                return False
            raise
    lib.wait_for(there, 60, f"ports {wanted}")


def members(daemon, *numbers, **more):
    made = [lan.Member(Ports(daemon), n, **more) for n in numbers]
    lib.wait_for(lambda: len(daemon.call("network.ports", network="lan")["ports"]) == 1 + len(made), 60, "the members")
    return made


def create(daemon, name="lan", subnet=ADDRESS, **config):
    return daemon.call("network.create", config={"name": name, **config}, subnet=subnet)


def reasons(daemon, name="lan"):
    events = daemon.call("event.list", types=["network"], limit=1000)["events"]
    return [e["reason"] for e in events if e["name"] == name]


def networks_have_states_that_last():
    with lib.Daemon() as daemon, daemon.client() as client:
        made = create(daemon, domain="lan.test")
        tap.check(made["state"] == "active" and made["address"] == "10.44.0.1/24", f"{made}")
        tap.check(daemon.networks() == [made["pid"]], f"{daemon.networks()}")
        client.fails("exists", "network.create", config={"name": "lan"})
        client.fails("bad-state", "network.define", config={"name": "lan"})
        client.fails("bad-state", "network.undefine", network="lan")
        client.fails("bad-state", "network.start", network="lan")
        client.fails("exists", "network.define", config={"name": "other", "uuid": made["uuid"]})
        client.fails("not-found", "network.get", network="none")
        client.call("network.define", config={"name": "quiet"})
        client.fails("bad-state", "network.ports", network="quiet")
        daemon.kill()
        daemon.start()
        lib.wait_for(lambda: daemon.call("network.get", network="lan")["state"] == "active", 60, "it is active again")
        again = daemon.call("network.get", network=made["uuid"])
        tap.check(again["pid"] == made["pid"] and again["deaths"] == 0, f"{again} is not {made}")
        tap.check(daemon.call("network.get", network="quiet")["state"] == "inactive", "active by itself")
        daemon.call("network.set", network="lan")
        stopped = daemon.call("network.stop", network="lan")
        tap.check(stopped["state"] == "inactive" and stopped["autostart"] and "pid" not in stopped, f"{stopped}")
        lib.wait_for(lambda: not daemon.networks(), 60, "its process has ended")
        daemon.call("network.start", network="lan")
        daemon.call("network.stop", network="lan")
        daemon.call("network.undefine", network="lan")
        daemon.call("network.undefine", network="quiet")
        tap.check(daemon.call("network.list")["networks"] == [], "not forgotten")
        tap.check(reasons(daemon) == ["defined", "started", "changed", "stopped", "started", "stopped", "undefined"],
                  f"{reasons(daemon)}")


def what_dies_is_replaced_and_gets_its_cards_back():
    with lib.Daemon() as daemon, daemon.client() as client:
        create(daemon)
        for name in ("a", "b"):
            client.call("vm.define", config=daemon.config(name, nics=[{"type": "network", "network": "lan"}]))
            client.call("vm.start", vm=name)
        wait_ports(daemon, {"a/nic0", "b/nic0"})
        for _ in range(3):
            before = daemon.call("network.get", network="lan")
            os.kill(before["pid"], signal.SIGKILL)
            wait_ports(daemon, {"a/nic0", "b/nic0"})
            now = daemon.call("network.get", network="lan")
            tap.check(now["pid"] != before["pid"] and now["cards"] == 2, f"{now}")
        tap.check(reasons(daemon).count("died") == 3, f"{reasons(daemon)}")
        # Both at once: the next daemon finds it dead, and VMs that run on.
        pid = daemon.call("network.get", network="lan")["pid"]
        daemon.kill()
        os.kill(pid, signal.SIGKILL)
        daemon.start()
        wait_ports(daemon, {"a/nic0", "b/nic0"})
        tap.check(len(daemon.networks()) == 1, f"{daemon.networks()}")
        # Stopped and started: the cards see the cable pulled, and are connected again.
        daemon.call("network.stop", network="lan")
        lib.wait_for(lambda: not daemon.call("vm.nic_filter", vm="a")["nics"][0]["link"], 60, "no carrier")
        daemon.call("network.start", network="lan")
        wait_ports(daemon, {"a/nic0", "b/nic0"})
        lib.wait_for(lambda: daemon.call("vm.nic_filter", vm="a")["nics"][0]["link"], 60, "carrier")


def cards_are_ports_with_vlans_and_limits():
    with lib.Daemon() as daemon, daemon.client() as client:
        client.fails("not-found", "vm.define", config=daemon.config("a", nics=[{"type": "network", "network": "lan"}]))
        groups = [{"name": "ten", "vlan": 10}, {"name": "rest", "vlan": 20, "is_default": True}]
        client.call("network.define", config={"name": "lan", "portgroups": groups})
        for nic in ({"type": "network"}, {"type": "user", "network": "lan"}, {"type": "none", "filter": {}}):
            client.fails("invalid-params", "vm.define", config=daemon.config("a", nics=[nic]))
        client.fails("not-found", "vm.define",
                     config=daemon.config("a", nics=[{"type": "network", "network": "lan", "portgroup": "no"}]))
        nics = [{"type": "network", "network": "lan"}, {"type": "network", "network": "lan", "portgroup": "ten"},
                {"type": "network", "network": "lan", "vlan": 30, "inbound": {"average": 1 << 20}}]
        client.call("vm.define", config=daemon.config("a", nics=nics, root_ports=4))
        error = client.fails("bad-state", "vm.start", vm="a")
        tap.check("network start" in str(error.remedy), f"{error.remedy}")
        client.call("network.start", network="lan")
        client.call("vm.start", vm="a")
        lib.wait_for(lambda: set(ports(daemon)) == {"a/nic0", "a/nic1", "a/nic2"}, 60, "the cards")  # no address: no gateway
        tap.check([ports(daemon)[f"a/nic{i}"]["vlan"] for i in range(3)] == [20, 10, 30], f"{ports(daemon)}")
        tap.check(ports(daemon)["a/nic2"]["faulty"], "no limit")
        client.call("network.port", vm="a", nic="nic0", vlan=0, outbound={"average": 1000})
        tap.check(ports(daemon)["a/nic0"]["vlan"] == 0 and ports(daemon)["a/nic0"]["faulty"], f"{ports(daemon)}")
        client.fails("not-found", "network.port", vm="a", nic="none", vlan=1)
        # The cable, for the guest; and what comes while it runs.
        client.call("vm.set_link", vm="a", nic="nic1", link="down")
        tap.check([n["link"] for n in client.call("vm.nic_filter", vm="a")["nics"]] == [True, False, True], "links")
        qmp = daemon.qmp()
        shown = qmp.execute("query-rx-filter")
        tap.check([n["name"] for n in shown] == ["nic0", "nic1", "nic2"] and shown[0]["main-mac"], f"{shown}")
        qmp.execute("set_link", name="nic1", up=True)
        qmp.close()
        tap.check(client.call("vm.nic_filter", vm="a", nic="nic1")["nics"][0]["link"], "set_link")
        client.fails("not-found", "vm.set_link", vm="a", nic="none", link="up")
        for nic in ({"name": "late", "type": "network", "network": "lan"}, {"name": "nat", "type": "user"}):
            client.call("vm.attach", vm="a", nic=nic, live=True)
        wait = set(ports(daemon))
        tap.check("a/late" in wait, f"{wait}")
        tap.check([n["link"] for n in client.call("vm.nic_filter", vm="a")["nics"]][-2:] == [True, True], "the late ones")
        for name in ("late", "nat"):
            client.call("vm.detach", vm="a", nic=name, live=True, timeout_ms=60000)
        lib.wait_for(lambda: "a/late" not in ports(daemon), 60, "its port goes with it")
        def counted():
            stats = client.call("vm.stats", vm="a")["vms"][0].get("stats", {})
            return [n["name"] for n in stats.get("nics", [])] == ["nic0", "nic1", "nic2"]
        lib.wait_for(counted, 60, "counters of cards")
        client.call("vm.stop", vm="a", force=True)
        lib.wait_for(lambda: ports(daemon) == {}, 60, "ports go with the VM")
        client.call("network.stop", network="lan")
        client.fails("busy", "network.undefine", network="lan")


def names_faults_and_captures():
    with lib.Daemon() as daemon, daemon.client() as client:
        host = {"mac": "52:54:00:00:00:09", "ip": "10.44.0.9", "name": "nine"}
        ip = {"address": "10.44.0.1/24", "dhcp": [{"start": "10.44.0.100", "end": "10.44.0.199"}], "hosts": [host]}
        daemon.call("network.create", config={"name": "lan", "domain": "lan.test", "ips": [ip]})
        a, b = members(daemon, 1, 2)
        for member in (a, b):
            member.get_address()
        tap.check(a.ask("vm2.lan.test") == (0, lan.ip(b.address)) and a.ask("nine") == (0, lan.ip("10.44.0.9")), "names")
        leases = client.call("network.leases", network="lan")["leases"]
        tap.check({k["name"]: k["ip"] for k in leases} == {"vm1": a.address, "vm2": b.address}, f"{leases}")
        # Cut, for all, also those that come; healed.
        done = client.call("fault.network", network="lan", cut=True, direction="in")
        tap.check(done["ports"] == 2, f"{done}")
        a.say(lan.ALL, b"lost")
        c = lan.Member(Ports(daemon), 3)
        lib.wait_for(lambda: len(client.call("network.ports", network="lan")["ports"]) == 4, 60, "the third")
        listed = client.call("fault.network_list", network="lan")["faults"]
        tap.check([(f.get("vm"), f["direction"], f["cut"]) for f in listed] == [(None, "in", True)], f"{listed}")
        a.say(lan.ALL, b"lost, too")
        lib.wait_for(lambda: sum(p["lost"] for p in client.call("network.ports", network="lan")["ports"]) >= 3, 60, "loss")
        tap.check(client.call("fault.network_heal", network="lan")["ports"] == 3, "healed")
        a.say(lan.ALL, b"there")
        heard = b.gets(b"there"), c.gets(b"there")  # b hears what a asked all, too
        tap.check(not any(b"lost" in text for text in heard[0] + heard[1]), f"{heard}")
        tap.check(client.call("fault.network_list", network="lan")["faults"] == [], "faults are left")
        client.fails("invalid-params", "fault.network", network="lan", nic="nic0", cut=True)
        client.fails("not-found", "fault.network", network="lan", vm="none", cut=True)
        # A definition that changes under way.
        host["name"] = "nein"
        client.call("network.update", network="lan", config={"name": "lan", "domain": "lan.test", "ips": [ip]})
        lib.wait_for(lambda: a.ask("nein") == (0, lan.ip("10.44.0.9")), 60, "the new name")
        tap.check(a.ask("nine")[0] == 3, "the former name")
        tap.check(not client.call("network.get", network="lan")["restart_needed"], "a start is needed for a name")
        client.call("network.update", network="lan", config={"name": "lan", "domain": "else.test", "ips": [ip]})
        tap.check(client.call("network.get", network="lan")["restart_needed"], "no start is needed for a domain")
        # Whose address DHCP gave it, and no other.
        client.call("vm.define", config=daemon.config("v", nics=[{"type": "network", "network": "lan"}]))
        client.call("vm.start", vm="v")
        lib.wait_for(lambda: "v/nic0" in ports(daemon), 60, "the VM's port")
        file = os.path.join(daemon.dir, "v.pcap")
        client.call("network.capture", vm="v", nic="nic0", file=file)
        client.fails("exists", "network.capture", vm="v", nic="nic0", file=file)
        client.fails("busy", "network.capture", vm="v", nic="nic0", file=file + "2")
        tap.check(not os.path.exists(file + "2"), "a file of nobody's")
        a.say(lan.ALL, b"captured")
        b.gets(b"captured")
        frames = client.call("network.capture_stop", vm="v", nic="nic0")["frames"]
        with open(file, "rb") as pcap:
            data = pcap.read()
        tap.check(data[:4] == b"\x4d\x3c\xb2\xa1" and b"captured" in data and frames >= 1, f"{frames} frames, {data!r}")
        for member in (a, b, c):
            member.close()


def definitions_that_cannot_be_are_refused():
    v6 = {"address": "fd00:44::1/64"}
    v4 = {"address": "10.44.0.1/24"}
    bad = [("invalid-params", {"forward": "nat"}, "none of its own"), ("unsupported", {"forward": "route"}, "routed"),
           ("unsupported", {"forward": "bridge"}, "names the bridge"), ("unsupported", {"ips": [v6]}, "IPv6 alone"),
           ("invalid-params", {"ips": [{"address": "10.44.0.1"}]}, "no prefix"),
           ("invalid-params", {"ips": [{"address": "10.44.0.0/24"}]}, "no address of a gateway"),
           ("invalid-params", {"ips": [{"address": "10.44.0.1/33"}]}, "no address of a gateway"),
           ("invalid-params", {"ips": [{**v4, "dhcp": [{"start": "10.45.0.2", "end": "10.45.0.3"}]}]}, "range"),
           ("invalid-params", {"ips": [{**v4, "hosts": [{"mac": "x", "ip": "10.44.0.2"}]}]}, "no address of a card"),
           ("invalid-params", {"ips": [{**v4, "hosts": [{"mac": "52:54:00:00:00:01", "ip": "10.9.0.2"}]}]}, "network's hosts"),
           ("unsupported", {"ips": [v4, {"address": "10.45.0.1/24"}]}, "one IPv4"),
           ("invalid-params", {"portgroups": [{"name": "x"}, {"name": "x"}]}, "named 'x'"),
           ("invalid-params", {"portgroups": [{"name": "x", "is_default": True}, {"name": "y", "is_default": True}]}, "default"),
           ("invalid-params", {"name": "a b"}, "no name")]
    with lib.Daemon() as daemon, daemon.client() as client:
        for code, config, text in bad:
            error = client.fails(code, "network.define", config={"name": "n", **config})
            tap.check(text in error.message, f"{config}: {error.message}")
        client.fails("invalid-params", "network.define", config={"name": "n"}, subnet="10.44.0.0")
        tap.check(client.call("network.list")["networks"] == [], "something was kept")
        client.call("network.define", config={"name": "br", "forward": "bridge", "bridge": "vmd-no-such"})
        error = client.fails("start-failed", "network.start", network="br")
        tap.check("vmd-no-such" in error.message, f"{error}")
        client.call("network.create", config={"name": "six", "forward": "nat", "ips": [v4, v6]})
        tap.check(client.call("network.get", network="six")["state"] == "active", "IPv6")


def a_helper_that_ends_at_once_does_not_serve():
    """vmd in a folder with a vmd-net that only ends: the end of its pipe is no sign that it serves."""
    with lib.Daemon() as daemon:
        bin_dir = os.path.join(daemon.dir, "bin")
        os.mkdir(bin_dir)
        for name in os.listdir(lib.BUILD):
            path = os.path.join(lib.BUILD, name)
            if name.startswith("vmd") and os.path.isfile(path) and os.access(path, os.X_OK):
                shutil.copy(path, bin_dir)
        shutil.copy(shutil.which("true"), os.path.join(bin_dir, "vmd-net"))
        daemon.terminate()
        daemon.binary = os.path.join(bin_dir, "vmd")
        daemon.start()
        daemon.call("vm.define", config=daemon.config("v", nics=[{"type": "user"}]))
        for what, does in (("a network", lambda: create(daemon)), ("a VM", lambda: daemon.call("vm.start", vm="v"))):
            try:
                does()
                tap.check(False, f"{what} started")
            except lib.CallError as error:
                tap.check("vmd-net ended before it served" in error.message, f"{what}: {error.message}")


def xml_and_vmctl_say_the_same():
    with lib.Daemon() as daemon:
        def vmctl(*words, ok=True):
            done = subprocess.run([os.path.join(lib.BUILD, "vmctl"), "-c", daemon.sock, *words], capture_output=True, text=True,
                                  timeout=120, check=False)
            tap.check(not ok or done.returncode == 0, f"vmctl {words}: {done.stderr}")
            return done.stdout
        file = os.path.join(daemon.dir, "net.xml")
        with open(file, "w", encoding="utf-8") as out:
            out.write("""<network><name>web</name><forward mode='nat'/><domain name='web.test'/>
              <portgroup name='ten' default='yes'><vlan><tag id='10'/></vlan>
              <bandwidth><inbound average='1000' peak='5000' burst='1024'/></bandwidth></portgroup>
              <ip address='10.21.0.1' netmask='255.255.255.0'><dhcp><range start='10.21.0.2' end='10.21.0.99'/>
              <host mac='52:54:00:00:00:09' name='nine' ip='10.21.0.9'/></dhcp></ip></network>""")
        vmctl("network", "define", "-f", file)
        vmctl("network", "start", "web")
        vmctl("network", "create", "lan", "--subnet", ADDRESS, "--domain", "lan.test", "--autostart")
        shown = vmctl("network", "xml", "web")
        with open(file, "w", encoding="utf-8") as out:
            out.write(shown)
        if shutil.which("virt-xml-validate"):
            done = subprocess.run(["virt-xml-validate", file, "network"], capture_output=True, text=True, check=False, timeout=120)
            tap.check(done.returncode == 0, f"{shown}\n{done.stderr}")
        tap.check(daemon.call("network.xml", network="web")["xml"] == shown, "network.xml")
        before = daemon.call("network.get", network="web")["config"]
        vmctl("network", "stop", "web")
        vmctl("network", "define", "-f", file)
        after = daemon.call("network.get", network="web")["config"]
        tap.check(before == after, f"{before}\n{after}")
        tap.check(vmctl("network", "list", "--quiet").split() == ["lan", "web"], "list")
        vmctl("fault", "network", "lan", "--loss", "10000", "--delay", "40000")
        listed = json.loads(vmctl("fault", "network-list", "lan", "--json"))["faults"]
        tap.check(len(listed) == 2 and listed[0]["delay_us"] == 40000, f"{listed}")
        vmctl("fault", "heal", "lan")
        for words in (("network", "ports", "lan"), ("network", "leases", "lan"), ("network", "show", "lan")):
            vmctl(*words)
        vmctl("network", "stop", "lan")
        vmctl("network", "rm", "lan", "web")


if __name__ == "__main__":
    sys.exit(tap.run_cases([networks_have_states_that_last, what_dies_is_replaced_and_gets_its_cards_back,
              cards_are_ports_with_vlans_and_limits, names_faults_and_captures, definitions_that_cannot_be_are_refused,
              a_helper_that_ends_at_once_does_not_serve, xml_and_vmctl_say_the_same]))
