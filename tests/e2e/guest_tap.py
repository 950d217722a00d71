# SPDX-License-Identifier: Apache-2.0
"""Cards on interfaces of the host, in a network namespace of the test's own: a bridge with Debian's dnsmasq behind it, data both
ways, an interface that vanishes; and U-Boot, which loads kernel and initramfs by TFTP in user mode and over the bridge."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import guest  # noqa: E402
import guest_net as net  # noqa: E402
import tap  # noqa: E402

TIMEOUT = net.TIMEOUT
INSIDE = "VMD_TEST_NETNS"


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    tap.check(done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}")
    return done.stdout


def filters():
    """The kernel has bridges that filter VLANs."""
    if "answer" not in filters.__dict__:
        made = subprocess.run(["ip", "link", "add", "brt9", "type", "bridge", "vlan_filtering", "1"], capture_output=True,
                              check=False)
        filters.answer = made.returncode == 0
        if filters.answer:
            ip("link", "del", "brt9")
    return filters.answer


class Bridge:
    """A bridge 10.77.0.1 with DHCP, DNS and TFTP behind it."""

    def __init__(self, name, tftp=None, filtering=False):
        if not shutil.which("dnsmasq"):
            raise tap.Skip("dnsmasq (package dnsmasq-base)")
        self.name = name
        ip("link", "add", name, "type", "bridge", *(["vlan_filtering", "1"] if filtering else []))
        ip("addr", "add", "10.77.0.1/24", "dev", name)
        ip("link", "set", name, "up")
        command = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", f"--interface={name}", "--bind-interfaces",
                   "--except-interface=lo", "--dhcp-range=10.77.0.50,10.77.0.99,1h", "--leasefile-ro", "--no-resolv",
                   "--no-hosts", "--no-ping", "--pid-file=", "--user=root", "--group=root", "--port=0",
                   "--dhcp-option=option:dns-server,10.77.0.1"]
        if tftp:
            command += ["--enable-tftp", f"--tftp-root={tftp}", "--dhcp-boot=Image"]
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)
        self.log.close()
        ip("link", "del", self.name)


def address(machine):
    match = machine.expect(r"^NET ([^\r\n]+)\r?\n|NET-FAILED", TIMEOUT)
    tap.check(match.group(1) and match.group(1).startswith(b"eth0 10.77.0."), f"{match.group(0)}")
    return match.group(1).split()[1].split(b"/")[0].decode()


def bulk(machine, there, times):
    """So many MiB to the guest and back to a server behind the bridge."""
    data = net.PATTERN * times
    want = hashlib.md5(data).hexdigest()
    with socket.create_server(("10.77.0.1", 0)) as server:
        result = []
        thread = threading.Thread(target=net.receive_all, args=(server, result), daemon=True)
        thread.start()
        machine.send("nc -l -p 7000 >/tmp/x & " + net.listens("tcp*", 7000) + "; wait; md5sum </tmp/x\n")
        machine.expect(r"^LISTENS", TIMEOUT)
        with socket.create_connection((there, 7000), TIMEOUT) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(TIMEOUT)
            sock.recv(1)
        got = machine.expect(r"^([0-9a-f]{32})", TIMEOUT).group(1).decode()
        tap.check(got == want, f"to the guest: {got} is not {want}")
        net.command(machine, f"nc 10.77.0.1 {server.getsockname()[1]} </tmp/x")
        thread.join(TIMEOUT)
        tap.check(result == [want], f"from the guest: {result} is not {want}")


def a_guest_on_a_bridge_moves_data_both_ways_and_survives_its_interface():
    files = guest.fetched("riscv64-net")
    with Bridge("brt0") as bridge:
        nic = {"type": "bridge", "bridge": bridge.name, "ifname": "vmt0", "bus": "virtio-pci"}
        with guest.Guest(net.config(files, nics=[nic]), "vmd") as machine:
            there = address(machine)
            machine.expect(r"guest# ", TIMEOUT)
            tap.check("master brt0" in ip("link", "show", "vmt0"), "not in the bridge")
            bulk(machine, there, 16)
            # The kernel hands over segments that are larger than the MTU, and the guest takes them so.
            shown = net.command(machine, "cat /sys/class/net/eth0/carrier /sys/class/net/eth0/mtu")
            tap.check(shown.split()[-2:] == ["1", "1500"], shown)
            ip("link", "del", "vmt0")
            net.command(machine, "until [ $(cat /sys/class/net/eth0/carrier) = 0 ]; do sleep 0.1; done; echo GONE")
            net.command(machine, "ping -c 1 -W 1 10.77.0.1 && exit 1; true")
        tap.check("vanished" in machine.errors.decode(), machine.errors.decode()[-300:])


def the_spawner_opens_interfaces_for_jailed_emulators():
    with Bridge("brt1", filtering=filters()) as bridge, lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        ip("tuntap", "add", "dev", "vmt1", "mode", "tap")
        ip("link", "set", "vmt1", "up")
        nics = [{"type": "bridge", "bridge": bridge.name, "ifname": "vmt2", **({"vlan": 7} if filters() else {})}, {"type": "tap", "ifname": "vmt1"},
                {"type": "tap"}]
        made = daemon.config("a", kernel=daemon.guest(), nics=nics)
        client.call("vm.define", config=made)
        client.call("vm.start", vm="a")
        tap.check("master brt1" in ip("link", "show", "vmt2"), "not in the bridge")
        if filters():
            vlans = subprocess.run(["bridge", "vlan", "show", "dev", "vmt2"], capture_output=True, text=True, check=True)
            tap.check("7 PVID Egress Untagged" in vlans.stdout and " 1 " not in vlans.stdout, vlans.stdout)
        tap.check(" UP " in ip("link", "show", "vmt1").replace(",", " "), "the carrier of an interface that existed")
        client.call("vm.define", config=daemon.config("b", kernel=daemon.guest(), nics=[{"type": "tap", "ifname": "vmt1"}]))
        error = client.fails("busy", "vm.start", vm="b")
        tap.check("vmt1" in error.message and "in use" in error.message, f"{error}")
        client.call("vm.define", config=daemon.config("c", kernel=daemon.guest(), nics=[{"type": "bridge", "bridge": "nobr"}]))
        error = client.fails("start-failed", "vm.start", vm="c")
        tap.check("no bridge 'nobr'" in error.message, f"{error}")
        if not filters():
            nic = {"type": "bridge", "bridge": bridge.name, "vlan": 7}
            client.call("vm.define", config=daemon.config("d", kernel=daemon.guest(), nics=[nic]))
            error = client.fails("start-failed", "vm.start", vm="d")
            tap.check("VLAN 7" in error.message, f"{error}")
        client.call("vm.stop", vm="a", force=True)
        lib.wait_for(lambda: "vmt2" not in ip("link"), TIMEOUT, "the end of the made interface")
        tap.check("vmt1" in ip("link"), "the interface that existed is gone")
        ip("link", "del", "vmt1")


def cards_that_make_no_sense_are_refused():
    cases = [({"type": "bridge"}, "name the bridge"), ({"type": "tap", "bridge": "br0"}, "only a card of that type"),
             ({"ifname": "x"}, "only tap and bridge"), ({"type": "tap", "ifname": "a/b"}, "no name of an interface"),
             ({"type": "tap", "ifname": "a%d"}, "no name of an interface"), ({"type": "tap", "vlan": 3}, "only a card in a bridge")]
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        for nic, text in cases:
            error = client.fails("invalid-params", "vm.define", config=daemon.config("b", nics=[nic]))
            tap.check(text in error.message, f"{nic}: {error}")


def boot_script(machine, server, initrd):
    """At U-Boot's prompt: an address by DHCP, kernel and initramfs by TFTP, and boots them."""
    machine.expect(r"U-Boot 20\d\d", TIMEOUT)
    machine.send("\n")  # waits in the UART: the countdown is over when a busy host gets to see it
    machine.expect(r"Hit any key to stop autoboot", TIMEOUT)
    machine.send("\n")
    machine.expect(r"=> ", TIMEOUT)
    for words, answer in (("setenv autoload no; dhcp", r"DHCP client bound to address [0-9.]+"),
                          (f"tftpboot ${{kernel_addr_r}} {server}:Image", r"Bytes transferred = \d+"),
                          (f"tftpboot ${{ramdisk_addr_r}} {server}:initrd", rf"Bytes transferred = {initrd}")):
        machine.send(words + "\n")
        machine.expect(answer, TIMEOUT)
        machine.expect(r"=> ", TIMEOUT)
    machine.send("setenv bootargs console=ttyS0 vmd.run=poweroff\n")
    machine.expect(r"=> ", TIMEOUT)
    machine.send("booti ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${fdtcontroladdr}\n")
    machine.expect(r"^BOOT-OK", TIMEOUT)


def served(folder):
    files = guest.fetched("riscv64", "u-boot")
    shutil.copyfile(files["kernel"], os.path.join(folder, "Image"))
    shutil.copyfile(files["initrd"], os.path.join(folder, "initrd"))
    os.chmod(folder, 0o755)
    return files, os.path.getsize(files["initrd"])


def uboot_boots_linux_by_tftp_in_user_mode():
    with tempfile.TemporaryDirectory() as folder:
        files, size = served(folder)
        nic = {"tftp": folder, "bootfile": "Image"}
        with guest.Guest({"kernel": files["uboot_bin"], "memory": 512 << 20, "nics": [nic]}, "vmd") as machine:
            boot_script(machine, "10.0.2.2", size)


def uboot_boots_linux_by_tftp_over_a_bridge():
    with tempfile.TemporaryDirectory() as folder:
        files, size = served(folder)
        with Bridge("brt2", tftp=folder) as bridge:
            nic = {"type": "bridge", "bridge": bridge.name}
            with guest.Guest({"kernel": files["uboot_bin"], "memory": 512 << 20, "nics": [nic]}, "vmd") as machine:
                boot_script(machine, "10.77.0.1", size)


def enter_namespace(program=os.path.abspath(__file__)):
    """Runs the program again in a network namespace where it may do what it likes."""
    if os.environ.get(INSIDE):
        return
    how = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--user", "--map-root-user"]
    probe = subprocess.run([*how, "ip", "tuntap", "add", "dev", "probe0", "mode", "tap"], capture_output=True, text=True,
                           check=False)
    if probe.returncode != 0:
        print("skipped: a network namespace with tap interfaces: " + probe.stderr.strip()[-120:])
        sys.exit(77)
    os.environ[INSIDE] = "1"
    os.execvp(how[0], [*how, sys.executable, "-B", program, *sys.argv[1:]])


if __name__ == "__main__":
    guest.need("riscv64-net", "riscv64", "u-boot")
    enter_namespace()
    ip("link", "set", "lo", "up")
    sys.exit(tap.run_cases([
        a_guest_on_a_bridge_moves_data_both_ways_and_survives_its_interface,
        the_spawner_opens_interfaces_for_jailed_emulators,
        cards_that_make_no_sense_are_refused,
        uboot_boots_linux_by_tftp_in_user_mode,
        uboot_boots_linux_by_tftp_over_a_bridge,
    ]))
