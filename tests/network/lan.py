# SPDX-License-Identifier: Apache-2.0
"""A named network, the process vmd-net by itself: this program is the VMs at its ports and the daemon at its control socket. Learning,
VLANs, DHCP and DNS, filters, faults, limits, a capture that tshark reads, and members that lie."""

import json
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../lib"))
import tap  # noqa: E402

BUILD = os.environ.get("VMD_BUILDDIR") or os.getcwd()
TIMEOUT = 120.0
ALL = b"\xff" * 6
CONFIG = {"name": "lan", "address": "10.44.0.1", "prefix": 24, "first": "10.44.0.100", "last": "10.44.0.199", "domain": "lan.test",
          "hosts": [{"mac": "52:54:00:00:00:09", "ip": "10.44.0.9", "name": "nine"}]}


def mac(n):
    return bytes([0x52, 0x54, 0, 0, 0, n])


def ip(text):
    return socket.inet_aton(text)


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def ipv4(src, dst, proto, payload):
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 0, 0, 64, proto, 0, ip(src), ip(dst))
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def udp(src, dst, sport, dport, payload):
    return ipv4(src, dst, 17, struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload)


def frame(dst, src, payload, kind=0x0800):
    return dst + src + struct.pack(">H", kind) + payload


class Member:
    """A VM at a port."""

    def __init__(self, net, number, **more):
        self.number = number
        self.mac = mac(number)
        self.name = f"vm{number}/nic0"
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(net.ports)
        self.sock.settimeout(TIMEOUT)
        hello = {"port": self.name, "host": f"vm{number}", "mac": ":".join(f"{b:02x}" for b in self.mac), **more}
        text = json.dumps(hello).encode()
        self.sock.sendall(struct.pack(">I", len(text)) + text)
        self.address = None

    def send(self, data, header=bytes(12)):
        self.sock.sendall(struct.pack(">I", len(data) + 12) + header + data)

    def _exact(self, size):
        data = b""
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            tap.check(more, f"{self.name}: the port was closed")
            data += more
        return data

    def receive(self):
        return self._exact(struct.unpack(">I", self._exact(4))[0])[12:]

    def until(self, wanted):
        """Frames up to the one that is wanted."""
        seen = []
        while True:
            seen.append(self.receive())
            if wanted(seen[-1]):
                return seen

    def say(self, to, text):
        self.send(frame(to, self.mac, text, 0x88b5))

    def gets(self, text):
        """What came before that text, and it."""
        return [f[14:] for f in self.until(lambda f: f[12:14] == b"\x88\xb5" and f[14:] == text)]

    def dhcp(self, kind, *options):
        body = struct.pack(">BBBBIHH16x", 1, 1, 6, 0, self.number, 0, 0x8000) + self.mac + bytes(10 + 192)
        body += b"\x63\x82\x53\x63" + bytes([53, 1, kind]) + b"".join(options) + b"\xff"
        self.send(frame(ALL, self.mac, udp("0.0.0.0", "255.255.255.255", 68, 67, body)))
        mine = struct.pack(">I", self.number)  # answers that are broadcast are heard by all
        answer = self.until(lambda f: f[12:14] == b"\x08\0" and f[23] == 17 and f[36:38] == b"\0\x44" and f[46:50] == mine)[-1]
        given, at, found = answer[42:], 240, {}
        while given[at] != 255:
            found[given[at]] = given[at + 2:at + 2 + given[at + 1]]
            at += 2 + given[at + 1]
        return socket.inet_ntoa(given[16:20]), found

    def get_address(self):
        offered, options = self.dhcp(1)
        tap.check(options[53] == b"\x02", f"{options}")
        self.address, options = self.dhcp(3, b"\x32\x04" + ip(offered), b"\x36\x04" + options[54])
        tap.check(options[53] == b"\x05" and self.address == offered, f"{options}")
        return options

    def ask(self, name, kind=1):
        query = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0)
        query += b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0" + struct.pack(">HH", kind, 1)
        self.send(frame(ALL, self.mac, udp(self.address, "10.44.0.1", 4000, 53, query)))
        answer = self.until(lambda f: f[12:14] == b"\x08\x00" and f[23] == 17 and f[34:36] == b"\0\x35")[-1][42:]
        count = struct.unpack(">H", answer[6:8])[0]
        data = answer[len(query) + 12:]
        return answer[3] & 15, data if count else None

    def close(self):
        self.sock.close()


class Network:
    def __init__(self, config=None):
        self.folder = tempfile.TemporaryDirectory()
        self.ports, control = (os.path.join(self.folder.name, name) for name in ("port", "control"))
        socks = []
        for path in (self.ports, control):
            socks.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            socks[-1].bind(path)
            socks[-1].listen(16)
        fds = [sock.fileno() for sock in socks]
        self.process = subprocess.Popen([os.path.join(BUILD, "vmd-net"), "--network", json.dumps(config or CONFIG),
                                         f"--ports-fd={fds[0]}", f"--control-fd={fds[1]}"], pass_fds=fds)
        for sock in socks:
            sock.close()
        self.control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.control.connect(control)
        self.control.settimeout(TIMEOUT)
        self.lines = self.control.makefile("rb")
        self.members = []

    def __enter__(self):
        return self

    def __exit__(self, kind, *_exc):
        for member in self.members:
            member.close()
        if self.process.poll() is None and kind is None:
            self.call("quit")
            tap.check(self.process.wait(TIMEOUT) == 0, f"vmd-net ended with {self.process.returncode}")
        self.process.kill()
        self.process.wait(TIMEOUT)
        self.lines.close()
        self.control.close()
        self.folder.cleanup()

    def call(self, method, fd=None, fails=None, **params):
        line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n"
        socket.send_fds(self.control, [line], [] if fd is None else [fd])
        answer = json.loads(self.lines.readline())
        if fails:
            tap.check(fails in answer["error"]["message"], f"{answer}")
            return None
        tap.check("result" in answer, f"{method}: {answer}")
        return answer["result"]

    def member(self, number, **more):
        self.members.append(Member(self, number, **more))
        return self.members[-1]

    def set(self, member, **what):
        self.call("port", port=member.name, **what)

    def trio(self, **more):
        made = [self.member(n, **more) for n in (1, 2, 3)]
        while len(self.call("status")["ports"]) < 4:  # with the gateway
            time.sleep(0.01)
        return made


def addresses_are_learned_and_unknown_ones_flooded():
    with Network() as net:
        a, b, c = net.trio()
        a.say(b.mac, b"where")  # nobody knows: to all
        b.gets(b"where")
        c.gets(b"where")
        b.say(a.mac, b"here")
        a.gets(b"here")
        a.say(b.mac, b"for b alone")
        a.say(ALL, b"for all")
        tap.check(b.gets(b"for all") == [b"for b alone", b"for all"], "b")
        tap.check(c.gets(b"for all") == [b"for all"], "c heard what was for b")
        # A port that comes back under its name takes the place of the old one.
        again = net.member(1)
        again.say(ALL, b"moved")
        b.gets(b"moved")
        tap.check(len(net.call("status")["ports"]) == 4, f"{net.call('status')}")


def vlans_separate_and_trunks_carry_them():
    with Network() as net:
        a, b, c = net.trio()
        net.set(a, vlan=10)
        net.set(b, vlan=20)
        net.set(c, trunk=True)
        a.say(ALL, b"ten")
        tap.check(c.receive()[12:18] == b"\x81\0\0\x0a\x88\xb5", "the trunk's frame has no tag of VLAN 10")
        b.say(ALL, b"twenty")
        tap.check(c.receive()[12:18] == b"\x81\0\0\x14\x88\xb5", "nor one of VLAN 20")
        c.send(ALL + c.mac + b"\x81\0\0\x0a\x88\xb5to ten")
        tap.check(a.gets(b"to ten") == [b"to ten"], "a heard another VLAN")
        # A VM that tags its frames itself gets nowhere; the next one shows that it was dropped.
        a.send(ALL + a.mac + b"\x81\0\0\x14\x88\xb5forged")
        net.set(a, vlan=20)
        a.say(ALL, b"now twenty")
        tap.check(b.gets(b"now twenty") == [b"now twenty"], "b heard VLAN 10 or what was forged")
        # Places of checksums move with the tag.
        head = struct.pack("<BBHHHH2x", 1, 0, 0, 0, 14 + 20, 6)
        c.send(ALL + c.mac + b"\x81\0\0\x14\x08\0" + udp("10.44.0.9", "10.44.0.8", 1, 2, b"sum me"),
               struct.pack("<BBHHHH2x", 1, 0, 0, 0, 18 + 20, 6))
        b.sock.settimeout(TIMEOUT)
        size = struct.unpack(">I", b._exact(4))[0]
        got = b._exact(size)
        tap.check(got[:12] == head and got[24:26] == b"\x08\0", f"{got!r}")


def dhcp_gives_addresses_and_dns_knows_the_names():
    with Network() as net:
        a, b, c = net.trio()
        for member in (a, b, c):
            options = member.get_address()
            tap.check(options[1] == ip("255.255.255.0") and options[6] == ip("10.44.0.1") and options[15] == b"lan.test"
                      and 3 not in options, f"{options}")  # isolated: no router
            tap.check(options[12] == b"vm%d" % member.number, f"{options}")
        tap.check(len({a.address, b.address, c.address}) == 3, "an address twice")
        for name in ("vm2", "VM2", "vm2.lan.test"):
            tap.check(a.ask(name) == (0, ip(b.address)), f"{name}: {a.ask(name)}")
        tap.check(a.ask("nine") == (0, ip("10.44.0.9")), "a host of the definition")
        tap.check(a.ask("gateway.lan.test") == (0, ip("10.44.0.1")), "the gateway")
        back = ".".join(reversed(b.address.split("."))) + ".in-addr.arpa"
        tap.check(a.ask(back, 12) == (0, b"\3vm2\3lan\4test\0"), f"{a.ask(back, 12)}")
        tap.check(a.ask("nobody.lan.test") == (3, None) and a.ask("example.org") == (3, None), "names that are not")
        tap.check(a.ask("vm2", 28) == (0, None), "a name without an address of IPv6")
        # The same card gets the same again; a host of the definition its own; a name of another VM is not taken.
        before = a.address
        a.get_address()
        tap.check(a.address == before, "another address")
        nine = net.member(9)
        tap.check(nine.dhcp(1)[0] == "10.44.0.9", "the reserved address")
        thief = Member(net, 40)
        net.members.append(thief)
        offered, options = thief.dhcp(1, b"\x0c\x03vm2")
        tap.check(options.get(12) == b"vm40", f"{options}")
        tap.check(thief.dhcp(3, b"\x32\x04" + ip("10.44.0.9"))[1][53] == b"\x06", "another's address was granted")
        leases = {lease["name"]: lease["ip"] for lease in net.call("status")["leases"]}
        tap.check(leases["vm1"] == a.address and leases["vm3"] == c.address, f"{leases}")
        # The gateway answers ARP and ping.
        a.send(frame(ALL, a.mac, struct.pack(">HHBBH6s4s6s4s", 1, 0x800, 6, 4, 1, a.mac, ip(a.address), bytes(6),
                                             ip("10.44.0.1")), 0x806))
        reply = a.until(lambda f: f[12:14] == b"\x08\x06" and f[20:22] == b"\0\2")[-1]
        echo = struct.pack(">BBHHH", 8, 0, 0, 1, 1) + b"ping"
        echo = echo[:2] + struct.pack(">H", checksum(echo)) + echo[4:]
        a.send(frame(reply[22:28], a.mac, ipv4(a.address, "10.44.0.1", 1, echo)))
        pong = a.until(lambda f: f[12:14] == b"\x08\0" and f[23] == 1)[-1][34:]
        tap.check(pong[0] == 0 and pong[8:] == b"ping" and checksum(pong) == 0, f"{pong!r}")


def filters_drop_what_is_spoofed_or_denied():
    with Network() as net:
        a, b, _ = net.trio()
        net.set(a, filter={"no_mac_spoofing": True, "no_ip_spoofing": True, "addresses": ["10.44.0.50"],
                           "rules": [{"action": "accept", "direction": "out", "protocol": "tcp", "port": 443},
                                     {"action": "drop", "direction": "out", "protocol": "tcp",
                                      "destination": "10.44.0.0/16"},
                                     {"action": "drop", "direction": "in", "protocol": "udp", "source_port": 53}]})
        tcp = struct.pack(">HHIIBBHHH", 1, 80, 0, 0, 0x50, 2, 0, 0, 0)
        a.send(frame(b.mac, mac(77), ipv4("10.44.0.50", b.address or "10.44.0.60", 6, tcp)))
        a.send(frame(b.mac, a.mac, ipv4("10.44.0.51", "10.44.0.60", 17, bytes(8))))
        a.send(frame(b.mac, a.mac, ipv4("10.44.0.50", "10.44.0.60", 6, tcp)))
        a.send(frame(b.mac, a.mac, struct.pack(">HHBBH6s4s6s4s", 1, 0x800, 6, 4, 2, mac(77), ip("10.44.0.50"), bytes(6),
                                               bytes(4)), 0x806))
        secure = struct.pack(">HH", 1, 443) + tcp[4:]
        a.send(frame(b.mac, a.mac, ipv4("10.44.0.50", "10.44.0.60", 6, secure)))
        first = b.receive()
        tap.check(first[34:38] == secure[:4], f"a frame that is denied came: {first!r}")
        b.send(frame(a.mac, b.mac, udp("10.44.0.60", "10.44.0.50", 53, 9, b"no")))
        b.send(frame(a.mac, b.mac, udp("10.44.0.60", "10.44.0.50", 54, 9, b"yes")))
        tap.check(a.receive()[34:36] == b"\0\x36", "a datagram that is denied came")
        ports = {port["port"]: port for port in net.call("status")["ports"]}
        tap.check(ports[a.name]["filtered"] == 5, f"{ports[a.name]}")
        net.call("port", port=a.name, filter={"rules": [{"protocol": "smoke"}]}, fails="protocol")
        net.call("port", port="nobody", vlan=1, fails="no port 'nobody'")


def faults_lose_change_and_delay_and_are_healed():
    with Network() as net:
        a, b, c = net.trio()
        net.set(b, faults={"to_vm": {"cut": True}, "from_vm": {"cut": True}})
        a.say(ALL, b"one")
        b.say(ALL, b"from the dead")
        a.say(ALL, b"two")
        tap.check(c.gets(b"two") == [b"one", b"two"], "a port that is cut was heard")
        net.set(b, faults={"to_vm": {}, "from_vm": {}})
        a.say(ALL, b"healed")
        tap.check(b.gets(b"healed") == [b"healed"], "frames of the cut came later")
        net.set(b, faults={"to_vm": {"loss": 1000000}})
        a.say(ALL, b"lost")
        c.gets(b"lost")
        net.set(b, faults={"to_vm": {"loss": 300000}})
        for _ in range(500):
            a.say(b.mac, b"some")
        net_end = b"end"
        a.say(c.mac, net_end)
        c.gets(net_end)
        net.set(b, faults={"to_vm": {"corrupt": 1000000}})
        a.say(b.mac, b"intact" * 10)
        got = b.until(lambda f: len(f) > 60)
        tap.check(250 < len(got) < 450, f"{len(got)} of 500 with a loss of 30%")
        changed = int.from_bytes(got[-1][14:], "big") ^ int.from_bytes(b"intact" * 10, "big")
        tap.check(bin(changed).count("1") == 1 or got[-1][12:14] == b"\x88\xb5", f"{got[-1]!r}")
        tap.check(bin(changed).count("1") == 1, f"{bin(changed).count('1')} bits changed")
        net.set(b, faults={"to_vm": {"delay_us": 300000}})
        start = time.monotonic()
        a.say(b.mac, b"late")
        b.gets(b"late")
        tap.check(time.monotonic() - start >= 0.3, "it was not delayed")
        net.set(b, faults={"to_vm": {"duplicate": 1000000}})
        a.say(b.mac, b"twice")
        b.gets(b"twice")
        b.gets(b"twice")
        net.set(b, faults={"to_vm": {"delay_us": 200000, "reorder": 500000}})
        for n in range(40):
            a.say(b.mac, b"%d" % n)
        order = [int(b.receive()[14:]) for _ in range(40)]
        tap.check(sorted(order) == list(range(40)) and order != list(range(40)), f"{order}")


def limits_hold_and_bursts_pass():
    with Network() as net:
        a, b, _ = net.trio()
        net.set(a, limits={"from_vm": {"average": 1 << 20, "burst": 64 << 10}})
        start = time.monotonic()
        for n in range(400):
            a.say(b.mac, b"%04d" % n + bytes(1000))
        for n in range(400):
            tap.check(b.receive()[14:18] == b"%04d" % n, "out of order, or lost")
        taken = time.monotonic() - start
        tap.check(taken >= (400 * 1018 - (64 << 10)) / (1 << 20) * 0.98, f"{taken} s")


def captures_are_read_by_tshark():
    if not shutil.which("tshark"):
        raise tap.Skip("tshark")
    with Network() as net, tempfile.NamedTemporaryFile(suffix=".pcap") as file:
        a, b, _ = net.trio()
        net.call("capture", fd=os.open(file.name, os.O_WRONLY), port=a.name)
        net.call("capture", fd=os.open("/dev/null", os.O_WRONLY), port=a.name, fails="already")
        a.get_address()
        b.get_address()
        a.ask("vm2")
        # A checksum that is not filled in yet, as guests send them: the capture has it whole.
        pseudo = ~checksum(ip(a.address) + ip(b.address) + struct.pack(">HH", 17, 16)) & 0xffff
        plain = ipv4(a.address, b.address, 17, struct.pack(">HHHH", 5, 7, 16, pseudo) + b"checksum")
        a.send(frame(b.mac, a.mac, plain), struct.pack("<BBHHHH2x", 1, 0, 0, 0, 34, 6))
        b.until(lambda f: f[12:14] == b"\x08\0" and f[36:38] == b"\0\7")
        frames = net.call("capture_stop", port=a.name)["frames"]
        a.say(ALL, b"after the end")
        b.gets(b"after the end")
        shown = subprocess.run(["tshark", "-r", file.name, "-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-T",
                                "fields", "-e", "frame.protocols", "-e", "dhcp.option.dhcp", "-e", "dns.qry.name", "-e",
                                "_ws.malformed", "-e", "udp.checksum.status", "-e", "ip.checksum.status"],
                               capture_output=True, text=True, check=False, timeout=TIMEOUT)
        tap.check(shown.returncode == 0, shown.stderr)
        rows = [line.split("\t") for line in shown.stdout.splitlines()]
        tap.check(len(rows) == frames and frames >= 7, f"{frames} frames, {shown.stdout}")
        tap.check([row[1] for row in rows if row[1]][:4] == ["1", "2", "3", "5"], shown.stdout)
        tap.check(sum(row[2] == "vm2" for row in rows) == 2, shown.stdout)
        tap.check(not any(row[3] for row in rows) and not any("0" in row[4] or "0" in row[5] for row in rows), shown.stdout)


def members_that_lie_reach_nobody():
    rng = random.Random(int(os.environ.get("VMD_TEST_SEED", "7")))
    with Network() as net:
        a, b, c = net.trio()
        for hello in (b"", b"\xff\xff\xff\xff", struct.pack(">I", 5) + b"hello", struct.pack(">I", 2) + b"{}",
                      struct.pack(">I", 18) + b'{"port":"gateway"}', struct.pack(">I", 0)):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.connect(net.ports)
                sock.sendall(hello)
        for n in range(2000):
            data = bytearray(rng.randbytes(rng.choice((0, 1, 13, 14, 17, 18, 33, 34, 42, 60, 300, 1600))))
            if n % 2 and len(data) >= 14:
                data[:6] = rng.choice((ALL, bytes(b.mac), b"\x52\x55\x0a\x2c\0\x01"))
                data[12:14] = rng.choice((b"\x08\0", b"\x08\x06", b"\x81\0", b"\x86\xdd"))
                data[14:15] = b"\x45"
                data[23:24] = rng.choice((b"\x11", b"\1", b"\6"))
                data[30:34] = ip("10.44.0.1")
                data[36:38] = rng.choice((b"\0\x43", b"\0\x35"))
                data = data[:1600]
            a.send(bytes(data), rng.randbytes(12) if n % 3 == 0 else bytes(12))
        a.say(ALL, b"still here")
        c.gets(b"still here")
        b.sock.sendall(b"\xff\xff\xff\xffgarbage")  # its connection ends, nobody else's
        b.sock.settimeout(60)
        try:
            while b.sock.recv(1 << 20):
                pass  # what was sent to everybody before
        except ConnectionResetError:
            pass
        while len(net.call("status")["ports"]) != 3:
            time.sleep(0.01)
        for method, params in (("port", {}), ("nonsense", {"port": a.name}), ("capture", {"port": a.name})):
            answer = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n"
            net.control.sendall(answer)
            tap.check("error" in json.loads(net.lines.readline()), method)
        a.get_address()


if __name__ == "__main__":
    sys.exit(tap.run_cases([
        addresses_are_learned_and_unknown_ones_flooded,
        vlans_separate_and_trunks_carry_them,
        dhcp_gives_addresses_and_dns_knows_the_names,
        filters_drop_what_is_spoofed_or_denied,
        faults_lose_change_and_delay_and_are_healed,
        limits_hold_and_bursts_pass,
        captures_are_read_by_tshark,
        members_that_lie_reach_nobody,
    ]))
