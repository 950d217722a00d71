# SPDX-License-Identifier: Apache-2.0
"""User-mode networking under Debian's kernel: DHCP, forwards, bulk data both ways with its checksum, and the
process that has the sockets: confined, and gone with its VM."""

import hashlib
import os
import shutil
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
import tap  # noqa: E402

TIMEOUT = 240.0
PATTERN = bytes(range(251)) * 4096  # about a MiB, that no power of two divides
MIB = (PATTERN + PATTERN)[:1 << 20]


# Waits, in the guest, for a port that somebody listens at.
def listens(where, port):
    return f"until grep -q ':{port:04X} ' /proc/net/{where}; do sleep 0.1; done; echo LISTENS"


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def command(machine, text, timeout=TIMEOUT):
    """Runs a command in the guest's shell; its output, or an error when its status is not 0."""
    machine.send(text + "; echo STATUS=$?=\n")
    match = machine.expect(r"((?:.|\n)*?)^STATUS=(\d+)=\r?$", timeout)
    output = match.group(1).decode("utf-8", "replace")
    tap.check(match.group(2) == b"0", f"{text}: status {match.group(2).decode()}\n{output}")
    return output


def receive_all(server, result):
    connection, _ = server.accept()
    digest = hashlib.md5()
    with connection:
        while True:
            try:
                data = connection.recv(1 << 20)
            except ConnectionResetError:
                break
            if not data:
                break
            digest.update(data)
    result.append(digest.hexdigest())


def bulk(machine, host, times):
    """So many MiB from the host through the forward into the guest and back to a server on the host."""
    data = PATTERN * times
    want = hashlib.md5(data).hexdigest()
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = []
        thread = threading.Thread(target=receive_all, args=(server, result), daemon=True)
        thread.start()
        machine.send("nc -l -p 7000 >/tmp/x & " + listens("tcp*", 7000) + "; wait; md5sum </tmp/x\n")
        machine.expect(r"^LISTENS", TIMEOUT)
        with socket.create_connection(("127.0.0.1", host), TIMEOUT) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(TIMEOUT)
            sock.recv(1)
        got = machine.expect(r"^([0-9a-f]{32})", TIMEOUT).group(1).decode()
        tap.check(got == want, f"to the guest: {got} is not {want}")
        command(machine, f"nc 10.0.2.2 {server.getsockname()[1]} </tmp/x")
        thread.join(TIMEOUT)
        tap.check(result == [want], f"from the guest: {result} is not {want}")


def config(files, **more):
    return {"kernel": files["kernel"], "initrd": files["initrd"], "memory": 256 << 20, "rng": True,
            "append": "console=ttyS0 vmd.virtio vmd.run=net,shell",
            "tcg": {"cache_size": 64 << 20}, **more}


def rom_image(kind, blocks, device, last):
    """An image of an expansion ROM for a device of virtio's vendor; those of BIOS add up to 0."""
    data = bytearray((i * 7 + kind) & 255 for i in range(blocks * 512))
    data[0:2] = b"\x55\xaa"
    data[0x18:0x1a] = (0x40).to_bytes(2, "little")
    data[0x40:0x58] = (b"PCIR" + (0x1af4).to_bytes(2, "little") + device.to_bytes(2, "little") + bytes(2) + b"\x18\0\0\0\0\x02"
                       + blocks.to_bytes(2, "little") + bytes(2) + bytes([kind, 0x80 if last else 0]) + bytes(2))
    if kind == 0:
        data[6] = 0
        data[6] = -sum(data) & 255
    return bytes(data)


def linux_reads_the_rom_of_a_card():
    """What Linux finds behind the ROM BAR is the file, its images marked as the card's own."""
    files = guest.fetched("riscv64-net")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "two.rom")
        with open(path, "wb") as file:
            file.write(rom_image(0, 9, 0x1000, False) + rom_image(3, 4, 0x1000, True))
        want = rom_image(0, 9, 0x1041, False) + rom_image(3, 4, 0x1041, True)
        for more in ({}, {"hotplug": True}):
            with guest.Guest(config(files, root_ports=len(more), nics=[{"bus": "virtio-pci", "rom": path, **more}]), "vmd") as machine:
                machine.expect(r"guest# ", TIMEOUT)
                command(machine, "cd $(dirname $(ls /sys/bus/pci/devices/*/rom)); echo 1 >rom; cat rom >/tmp/rom; echo 0 >rom; test -s /tmp/rom")
                text = command(machine, "md5sum </tmp/rom; wc -c </tmp/rom")
                tap.check(hashlib.md5(want).hexdigest() in text and str(len(want)) in text, f"{len(want)}: {text}")


def is_taken(port):
    """Somebody on the host listens there by UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def guest_gets_its_address_and_moves_data_both_ways():
    files = guest.fetched("riscv64-net")
    tcp, udp = free_port(), free_port(socket.SOCK_DGRAM)
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "hello"), "wb") as file:
            file.write(PATTERN)
        # On PCI, with a MTU that the guest's segments have to be cut for.
        nic = {"bus": "virtio-pci", "mtu": 1500, "mac": "52:54:00:aa:bb:cc", "net": "10.0.2.0/24",
               "hostname": "tiny", "domain": "example.org", "tftp": folder, "bootfile": "hello",
               "forward": [f"tcp::{tcp}-:7000", f"udp:127.0.0.1:{udp}-10.0.2.15:7001"]}
        with guest.Guest(config(files, nics=[nic]), "vmd") as machine:
            match = machine.expect(r"^NET ([^\r\n]+)\r?\n|NET-FAILED", TIMEOUT)
            tap.check(match.group(1) == b"eth0 10.0.2.15/24 10.0.2.2 10.0.2.3 hello", f"{match.group(0)}")
            machine.expect(r"guest# ", TIMEOUT)
            shown = command(machine, "ip addr show eth0; hostname; cat /etc/resolv.conf")
            for text in ("mtu 1500", "52:54:00:aa:bb:cc", "tiny", "search example.org"):
                tap.check(text in shown, f"{text} is not in {shown}")
            command(machine, "ping -c 2 -W 5 10.0.2.2")
            command(machine, "for i in $(seq 60); do ping6 -c 1 -W 1 fd00:2::2 >/dev/null 2>&1 && break; sleep 1; done; "
                    "ping6 -c 2 -W 10 fd00:2::2")
            sums = command(machine, "cd /tmp && tftp -g -r hello 10.0.2.2 && md5sum hello")
            tap.check(hashlib.md5(PATTERN).hexdigest() in sums, f"by TFTP: {sums}")
            bulk(machine, tcp, 16)
            tap.check(is_taken(udp), "the forward of UDP")


def answer(server, result):
    """A line for a line. The end of what a guest sends does not pass a guest forward, so it is not waited for."""
    connection, _ = server.accept()
    with connection:
        result.append(connection.recv(6, socket.MSG_WAITALL))
        if result[-1]:
            connection.sendall(b"welcome\n")


def talks_to(machine, server, where):
    """The guest and a server on the host, at that address and port of the guest's network, hear each other; False: nobody came."""
    result = []
    thread = threading.Thread(target=answer, args=(server, result), daemon=True)
    thread.start()
    machine.send(f"echo hello | timeout 20 nc -w 10 {where} | grep -q welcome; echo STATUS=$?=\n")
    good = machine.expect(r"^STATUS=(\d+)=\r?$", TIMEOUT).group(1) == b"0"
    if not good:
        with socket.socket(server.family) as nobody:  # for the thread, which waits
            nobody.connect(server.getsockname())
    thread.join(TIMEOUT)
    tap.check(result == [b"hello\n" if good else b""], f"{where}: {result}")
    return good


def a_restricted_guest_reaches_what_is_forwarded_and_nothing_else():
    files = guest.fetched("riscv64-net")
    tcp = free_port()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("::1", 0), family=socket.AF_INET6) as six:
        port, port6 = server.getsockname()[1], six.getsockname()[1]
        forward = f"tcp:10.0.2.100:80-127.0.0.1:{port}"
        with guest.Guest(config(files, nics=[{"guest_forward": [forward]}]), "vmd") as machine:
            machine.expect(r"guest# ", TIMEOUT)
            command(machine, "for i in $(seq 60); do ping6 -c 1 -W 1 fd00:2::2 >/dev/null 2>&1 && break; sleep 1; done")
            for to, where in ((server, f"10.0.2.2 {port}"), (server, "10.0.2.100 80"), (six, f"fd00:2::2 {port6}")):
                tap.check(talks_to(machine, to, where), f"{where} is not reached")
        nic = {"restricted": True, "forward": [f"tcp::{tcp}-:7000"], "guest_forward": [forward]}
        with guest.Guest(config(files, nics=[nic]), "vmd") as machine:
            machine.expect(r"guest# ", TIMEOUT)
            for to, where in ((server, f"10.0.2.2 {port}"), (six, f"fd00:2::2 {port6}")):
                tap.check(not talks_to(machine, to, where), f"{where} is reached")
            tap.check(talks_to(machine, server, "10.0.2.100 80"), "what is forwarded from the guest")
            machine.send("echo inside | nc -l -p 7000 & " + listens("tcp*", 7000) + "\n")
            machine.expect(r"^LISTENS", TIMEOUT)
            with socket.create_connection(("127.0.0.1", tcp), TIMEOUT) as sock:
                tap.check(sock.recv(7, socket.MSG_WAITALL) == b"inside\n", "what is forwarded to the guest")


def helpers(pid):
    """The processes vmd-net among the children of a VM's monitor."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    stat = file.read()
            except OSError:
                continue
            comm = stat[stat.index("(") + 1:stat.rindex(")")]
            fields = stat.rsplit(")", 1)[1].split()
            if comm == "vmd-net" and int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(name))
    return found


def parent(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return int(file.read().rsplit(")", 1)[1].split()[1])


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)


def sockets_are_in_a_confined_process_that_ends_with_its_vm():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        port = free_port()
        nic = {"forward": [f"tcp:127.0.0.1:{port}-:22"]}
        made = daemon.config("a", kernel=daemon.guest(), nics=[nic, {"type": "none"}])
        client.call("vm.define", config=made)
        with socket.create_server(("127.0.0.1", port)):
            error = client.fails("start-failed", "vm.start", vm="a")
            tap.check("cannot listen" in error.message and str(port) in error.message, f"{error}")
        client.call("vm.start", vm="a")
        emulator = client.call("vm.get", vm="a")["pid"]
        net = helpers(parent(emulator))
        tap.check(len(net) == 1, f"processes vmd-net: {net}")
        status = status_of(net[0])
        tap.check(status["CapEff"].strip() == "0000000000000000", status["CapEff"])
        tap.check(status["NoNewPrivs"] == "1", status["NoNewPrivs"])
        tap.check(lib.sanitized() or status["Seccomp"] == "2", status["Seccomp"])
        socket.create_connection(("127.0.0.1", port), 30).close()
        tap.check(client.call("vm.get", vm="a")["config"]["nics"][0]["name"] == "nic0", "no name")
        # Its death is the network's, not the VM's.
        os.kill(net[0], 9)
        lib.wait_for(lambda: not helpers(parent(emulator)), TIMEOUT, "the end of vmd-net")
        tap.check(client.call("vm.get", vm="a")["state"] == "running", "the VM ended, too")
        client.call("vm.stop", vm="a", force=True)
        client.call("vm.start", vm="a")
        emulator = client.call("vm.get", vm="a")["pid"]
        net = helpers(parent(emulator))
        os.kill(emulator, 9)
        lib.wait_for(lambda: not lib.alive(net[0]), TIMEOUT, "the end of vmd-net with its VM")


def cards_that_make_no_sense_are_refused():
    cases = [({"mac": "ff:ff:ff:ff:ff:ff"}, "no address of a card"),
             ({"type": "stream"}, "name the socket"),
             ({"type": "none", "forward": ["tcp::1-:1"]}, "only a card of type user"),
             ({"path": "/x"}, "only stream, dgram and vhost-user")]
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        for nic, text in cases:
            error = client.fails("invalid-params", "vm.define", config=daemon.config("b", nics=[nic]))
            tap.check(text in error.message, f"{nic}: {error}")
        two = [{"name": "x"}, {"name": "x"}]
        client.fails("invalid-params", "vm.define", config=daemon.config("b", nics=two))
        for nic, text in (({"net": "10.0.2.0/33"}, "prefix"), ({"dns": "10.0.3.3"}, "not in the network"),
                          ({"forward": ["tcp:22-23"]}, "forward"), ({"forward": ["tcp:x:1-:2"]}, "IP address"),
                          ({"guest_forward": ["udp:10.0.2.9:1-127.0.0.1:2"]}, "guest"),
                          ({"ipv4": False, "ipv6": False}, "neither")):
            client.call("vm.define", config=daemon.config("b", kernel=daemon.guest(), nics=[nic]))
            error = client.fails("start-failed", "vm.start", vm="b")
            tap.check(text in error.message and "nic0" in error.message, f"{nic}: {error}")
            client.call("vm.delete", vm="b")


def through_passt(machine):
    """8 MiB to a server of the host: whether they came whole, and what came."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = []
        thread = threading.Thread(target=receive_all, args=(server, result), daemon=True)
        thread.start()
        sums = command(machine, "dd if=/dev/urandom of=/tmp/x bs=1M count=8 2>/dev/null; md5sum /tmp/x; "
                       f"nc 10.9.0.1 {server.getsockname()[1]} </tmp/x || echo broken off")
        thread.join(TIMEOUT)
        return bool(result) and result[0] in sums, result, sums[-60:]


def passt_serves_a_guest_by_stream():
    if not shutil.which("passt"):
        raise tap.Skip("passt")
    files = guest.fetched("riscv64-net")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "passt.sock")
        os.chmod(folder, 0o777)
        process = subprocess.Popen(["passt", "-f", "-1", "-q", "-s", path, "-a", "10.9.0.5", "-n", "24", "-g",
                                    "10.9.0.1", "-4"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            lib.wait_for(lambda: os.path.exists(path) or process.poll() is not None, 20, "passt")
            if process.poll() is not None:
                raise tap.Skip("passt does not run here: " + process.stderr.read().decode()[-80:])
            nic = {"type": "stream", "path": path}
            with guest.Guest(config(files, nics=[nic]), "vmd") as machine:
                match = machine.expect(r"^NET ([^\r\n]+)\r?\n|NET-FAILED", TIMEOUT)
                tap.check(match.group(1) and match.group(1).startswith(b"eth0 10.9.0.5/24 10.9.0.1"), f"{match.group(0)}")
                machine.expect(r"guest# ", TIMEOUT)
                # Debian 12's passt resets a connection now and then (one in twenty on a busy host): three attempts.
                said = []
                while len(said) < 3 and not (said and said[-1][0]):
                    said.append(through_passt(machine))
                    print(f"# {said[-1]}")
                tap.check(said[-1][0], f"{said}")
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(30)
            process.stderr.close()


def give(server, mib, result):
    """That many MiB from the host to whoever connects."""
    connection, _ = server.accept()
    digest = hashlib.md5()
    with connection:
        for _ in range(mib):
            connection.sendall(MIB)
            digest.update(MIB)
    result.append(digest.hexdigest())


def a_stream_through_the_guest_arrives_whole():
    """From a server on the host's loopback to the guest, which counts and sends it to another; make soak: 1 GiB."""
    files = guest.fetched("riscv64-net")
    mib = int(os.environ["VMD_NET_MIB"])
    with guest.Guest(config(files, nics=[{}]), "vmd") as machine, socket.create_server(("127.0.0.1", 0)) as source, \
            socket.create_server(("127.0.0.1", 0)) as sink:
        machine.expect(r"guest# ", TIMEOUT)
        gave, got = [], []
        threads = [threading.Thread(target=give, args=(source, mib, gave), daemon=True),
                   threading.Thread(target=receive_all, args=(sink, got), daemon=True)]
        for thread in threads:
            thread.start()
        ports = [server.getsockname()[1] for server in (source, sink)]
        counted = command(machine, f"mkfifo /tmp/f; nc 10.0.2.2 {ports[1]} </tmp/f & "
                          f"nc 10.0.2.2 {ports[0]} </dev/null | tee /tmp/f | md5sum; wait", 60.0 + 4.0 * mib)
        for thread in threads:
            thread.join(TIMEOUT)
        tap.check(gave and gave == got and gave[0] in counted, f"{gave} went, the guest had {counted}, {got} came back")
        print(f"# {mib} MiB both ways, MD5 {gave[0]}")


if __name__ == "__main__":
    guest.need("riscv64-net")
    sys.exit(tap.run_cases([
        guest_gets_its_address_and_moves_data_both_ways,
        linux_reads_the_rom_of_a_card,
        a_restricted_guest_reaches_what_is_forwarded_and_nothing_else,
        sockets_are_in_a_confined_process_that_ends_with_its_vm,
        cards_that_make_no_sense_are_refused,
        passt_serves_a_guest_by_stream,
    ] if not os.environ.get("VMD_NET_MIB") else [a_stream_through_the_guest_arrives_whole]))
