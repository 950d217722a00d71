# SPDX-License-Identifier: Apache-2.0
"""Disks that are exports of NBD servers (qemu-nbd, nbdkit, our own): what a Linux guest writes is what the server's file holds; a server that is killed
pauses the VM, and the guest notices nothing once another serves; a daemon that is killed meanwhile changes nothing.

guest_nbd.py [CASE...]; connections made anew go through emu.disk_reconnect of the emulator."""

import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import guest  # noqa: E402
import guest_disks  # noqa: E402
import tap  # noqa: E402

TIMEOUT = float(os.environ.get("VMD_NBD_TIMEOUT", "240"))  # of each single wait
MIB = 1 << 20


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def blank(path, size=16 * MIB):
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A program that serves an export, at the same place each time it is started. {} in its words is the socket's path."""

    def __init__(self, place, *words):
        self.place, self.words, self.process = place, words, None
        self.start()

    def start(self):
        if isinstance(self.place, str) and os.path.exists(self.place):
            os.unlink(self.place)
        self.process = subprocess.Popen([w.format(self.place) for w in self.words], stderr=subprocess.PIPE)
        end = time.monotonic() + TIMEOUT
        while not self.answers():
            if self.process.poll() is not None:
                raise AssertionError(f"{self.words[0]}: {self.process.stderr.read()[-400:]!r}")
            tap.check(time.monotonic() < end, f"{self.words[0]} does not serve")
            time.sleep(0.02)

    def answers(self):
        local = isinstance(self.place, str)
        try:
            with socket.socket(socket.AF_UNIX if local else socket.AF_INET) as s:
                s.settimeout(20)
                s.connect(self.place if local else ("127.0.0.1", self.place))
                return s.recv(8) == b"NBDMAGIC"
        except OSError:
            return False

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)
        self.process.stderr.close()


def qemu_nbd(place, image, *more):
    where = ["-k", "{}"] if isinstance(place, str) else ["-b", "127.0.0.1", "-p", "{}"]
    return Server(place, "qemu-nbd", "-t", "-e", "0", "-f", "raw", "--cache=writeback", "--discard=unmap", *where, *more,
                  image)


class Machine:
    """A daemon with one Linux guest at a shell prompt."""

    def __init__(self, disks, name="riscv64-disk", **more):
        self.disks, self.more, self.data = disks, more, b""
        self.files = guest_disks.fetched(name)
        self.daemon = lib.Daemon()

    def __enter__(self):
        self.daemon.start()
        try:
            self.client = self.daemon.client(TIMEOUT)
            self.client.call("vm.define", config=self.daemon.config(
                "a", memory=256 << 20, kernel=self.files["kernel"], initrd=self.files["initrd"], firmware="default",
                append="console=ttyS0 vmd.virtio vmd.run=shell", tcg={"cache_size": 64 * lib.MIB}, disks=self.disks,
                **self.more))
            self.client.call("event.subscribe", types=["vm-io-error"])
            self.client.call("vm.start", vm="a")
            self.console = self.daemon.console("a")
            self.expect(rb"guest# ")
        except BaseException:
            self.daemon.end()
            raise
        return self

    def __exit__(self, *_):
        self.client.close()
        self.daemon.end()

    def expect(self, pattern):
        end = time.monotonic() + TIMEOUT
        while True:
            found = re.search(pattern, self.data, re.M)
            if found:
                self.data = self.data[found.end():]
                return found
            tap.check(time.monotonic() < end, f"no {pattern} in {self.data[-600:]!r}; {self.vm()}; {self.daemon.tail()[-600:]}")
            if self.console.ready(1):
                self.data += self.console.read_some()

    def type(self, command):
        """Begins a command; its exit status is what `status` then gives. The echo of the line does not look like it."""
        self.data = b""
        self.console.sock.sendall(command.encode() + b"; echo do''ne=$?\n")

    def status(self):
        return int(self.expect(rb"^done=(\d+)").group(1))

    def run(self, command):
        self.type(command)
        return self.status()

    def sum(self, disk):
        """What the guest reads, past its own cache."""
        self.type(f"echo 3 >/proc/sys/vm/drop_caches; sha256sum /dev/{disk}")
        seen = self.expect(rb"^([0-9a-f]{64})  /dev/").group(1).decode()
        tap.check(self.status() == 0, "sha256sum")
        return seen

    def vm(self):
        return self.client.call("vm.get", vm="a")

    def is_in(self, state, reason=None):
        def there():
            vm = self.vm()
            return vm["state"] == state and reason in (None, vm.get("reason"))
        lib.wait_for(there, TIMEOUT, f"the VM is {state}")


WRITES = ("dd if=/dev/urandom of=/dev/{0} bs=64k seek=3 count=40 2>/dev/null && "
          "dd if=/dev/urandom of=/dev/{0} bs=512 seek=1000 count=9 conv=notrunc 2>/dev/null && "
          "dd if=/dev/urandom of=/dev/{0} bs=1M seek=4 count=6 2>/dev/null && "
          "dd if=/dev/zero of=/dev/{0} bs=64k seek=100 count=8 2>/dev/null && sync")


def what_the_guest_writes_is_what_the_servers_files_hold():
    with tempfile.TemporaryDirectory() as folder:
        def at(name):
            return os.path.join(folder, name)
        port = free_port()
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", at("c.qcow2"), "16M"], check=True)
        os.truncate(at("c.qcow2"), 24 * MIB)  # a server's export does not grow
        servers = [qemu_nbd(at("a.sock"), blank(at("a.raw"))), qemu_nbd(port, blank(at("b.raw")), "-x", "b/1 ü"),
                   qemu_nbd(at("c.sock"), at("c.qcow2"))]
        more = []
        if shutil.which("nbdkit"):
            more = [Server(at("d.sock"), "nbdkit", "-f", "-U", "{}", "--filter=blocksize-policy", "file", blank(at("d.raw")),
                           "blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=65536",
                           "blocksize-error-policy=error")]
        disks = [{"name": "vda", "file": f"nbd+unix:///?socket={at('a.sock')}"},
                 {"name": "vdb", "file": f"nbd://127.0.0.1:{port}/b/1%20%C3%BC"},
                 {"name": "vdc", "file": f"nbd+unix:///?socket={at('c.sock')}", "format": "qcow2"}]
        if more:
            disks.append({"name": "vdd", "file": f"nbd+unix:///?socket={at('d.sock')}"})
        try:
            with Machine(disks) as m:
                seen = {}
                for disk in disks:
                    name = disk["name"]
                    tap.check(m.run(WRITES.format(name)) == 0, f"{name}: writes")
                    seen[name] = m.sum(name)
                m.client.call("vm.stop", vm="a")
            for name, path in (("vda", "a.raw"), ("vdb", "b.raw"), ("vdd", "d.raw")):
                if name in seen:
                    tap.check(digest(at(path)) == seen[name], f"{path} holds something else than the guest read")
            for server in servers + more:
                server.kill()
            servers = more = []
            subprocess.run(["qemu-img", "check", "-q", at("c.qcow2")], check=True, timeout=120)
            subprocess.run(["qemu-img", "convert", "-O", "raw", at("c.qcow2"), at("c.raw")], check=True, timeout=120)
            tap.check(digest(at("c.raw")) == seen["vdc"], "c.qcow2 holds something else than the guest read")
        finally:
            for server in servers + more:
                server.kill()


def a_killed_server_pauses_the_vm_until_another_serves():
    """Six times, with the daemon killed in between as well: the guest's loop sees no error, and the file is what it read."""
    with tempfile.TemporaryDirectory() as folder:
        path, sock = blank(os.path.join(folder, "a.raw"), 8 * MIB), os.path.join(folder, "s")
        server = qemu_nbd(sock, path)
        try:
            with Machine([{"name": "vda", "file": f"nbd+unix:///?socket={sock}"}]) as m:
                tap.check(m.run("((i=0; while [ ! -f /tmp/stop ]; do dd if=/dev/urandom of=/dev/vda bs=20k "
                                "seek=$((i++ % 300)) count=3 conv=fsync,notrunc 2>/dev/null || break; echo $i >/tmp/n; done; "
                                "[ -f /tmp/stop ]; echo $? >/tmp/how) &)") == 0, "the loop")
                for turn in range(6):
                    m.client.events.clear()
                    server.kill()
                    m.is_in("paused", "io-error")
                    if turn == 0:
                        lib.wait_for(lambda: m.vm() and m.client.events, TIMEOUT, "the loss is told")
                        event = m.client.events[0]
                        tap.check("connection to the NBD server is lost" in event["detail"]["error"] and
                                  event["reason"] == "stop", f"{event}")
                    if turn % 3 == 2:
                        m.daemon.kill()
                        m.daemon.start()
                        m.client.close()
                        m.client = m.daemon.client(TIMEOUT)
                        m.client.call("event.subscribe", types=["vm-io-error"])
                    if turn == 1:  # by hand, before there is a server: it pauses again
                        m.client.call("vm.resume", vm="a")
                        m.is_in("paused", "io-error")
                    server.start()
                    m.is_in("running")
                    tap.check(m.run("n=$(cat /tmp/n); while [ $(cat /tmp/n) = $n ]; do sleep 0.1; done") == 0, "it goes on")
                tap.check(m.run("touch /tmp/stop; while [ ! -f /tmp/how ]; do sleep 0.1; done; sync; "
                                "[ $(cat /tmp/how) = 0 ]") == 0, "the guest saw an error")
                seen = m.sum("vda")
                m.client.call("vm.stop", vm="a")
            tap.check(digest(path) == seen, "the file holds something else than the guest read")
        finally:
            server.kill()


def by_policy_report_the_guest_sees_errors_until_another_serves():
    with tempfile.TemporaryDirectory() as folder:
        path, sock = blank(os.path.join(folder, "a.raw"), 8 * MIB), os.path.join(folder, "s")
        server = qemu_nbd(sock, path)
        try:
            with Machine([{"name": "vda", "file": f"nbd+unix:///?socket={sock}", "werror": "report",
                           "rerror": "report"}]) as m:
                write = "dd if=/dev/urandom of=/dev/vda bs=4k count=1 oflag=direct 2>/dev/null"
                tap.check(m.run(write) == 0, "a write")
                server.kill()
                tap.check(m.run(write) != 0 and m.vm()["state"] == "running", "an error is told")
                blank(path, 4 * MIB)
                server.start()  # smaller: it is not taken
                tap.check(m.run("sleep 4; " + write) != 0, "an export of another size is refused")
                server.kill()
                blank(path, 8 * MIB)
                server.start()
                tap.check(m.run(f"until {write}; do sleep 0.5; done") == 0, "it is there again")
        finally:
            server.kill()


def disks_come_and_go_while_the_vm_runs():
    with tempfile.TemporaryDirectory() as folder:
        path, sock = blank(os.path.join(folder, "a.raw"), 8 * MIB), os.path.join(folder, "s")
        server = qemu_nbd(sock, path)
        try:
            with Machine([], "riscv64-storage", root_ports=2) as m:
                m.client.call("vm.attach", vm="a", disk={"name": "far", "file": f"nbd+unix:///?socket={sock}",
                                                         "bus": "virtio-pci"})
                tap.check(m.run("echo 1 >/sys/bus/pci/rescan; until [ -b /dev/vda ]; do sleep 0.1; done; " + WRITES.format("vda").replace("1M", "64k")) == 0,
                          "writes")
                seen = m.sum("vda")
                server.kill()
                m.type("dd if=/dev/vda of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null")
                m.is_in("paused", "io-error")
                server.start()
                tap.check(m.status() == 0, "it goes on")
                tap.check(m.run("echo 1 >/sys/bus/pci/devices/0000:01:00.0/remove") == 0, "the driver lets go")
                m.client.call("vm.detach", vm="a", disk="far")
            tap.check(digest(path) == seen, "the file holds something else than the guest read")
        finally:
            server.kill()


def make_pki(folder, names="DNS:localhost,IP:127.0.0.1"):
    """An authority, and a certificate of it for a server and for a client, as qemu-nbd and vmd name them."""
    os.makedirs(folder)

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=120)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *key, "-subj", f"/CN=ca of {os.path.basename(folder)}", "-days", "2", "-keyout", "ca-key.pem", "-out", "ca-cert.pem")
    for who, use in (("server", "serverAuth"), ("client", "clientAuth")):
        openssl("req", *key, "-subj", f"/CN={who}", "-keyout", f"{who}-key.pem", "-out", "req.pem")
        with open(os.path.join(folder, "ext"), "w", encoding="utf-8") as file:
            file.write(f"subjectAltName={names}\nextendedKeyUsage={use}\nbasicConstraints=CA:FALSE\n")
        openssl("x509", "-req", "-in", "req.pem", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2",
                "-extfile", "ext", "-out", f"{who}-cert.pem")
    return folder


def tls_goes_through_a_process_that_has_the_keys():
    """A guest's disks over TLS by qemu-nbd, which asks for our certificate, and by our own server; each killed once."""
    if not shutil.which("openssl"):
        tap.skip("openssl")
    with tempfile.TemporaryDirectory() as folder:
        pki, port = make_pki(os.path.join(folder, "pki")), free_port()
        a, b, sock = (os.path.join(folder, name) for name in ("a.raw", "b.raw", "s"))
        servers = [qemu_nbd(port, blank(a), "--object", f"tls-creds-x509,id=t,endpoint=server,dir={pki},verify-peer=yes", "--tls-creds", "t"),
                   Server(sock, os.path.join(lib.BUILD, "vmctl"), "image", "nbd-serve", "-t", "-e", "0", "-k", "{}", "-f", "raw", "--tls-creds", pki,
                          "--tls-verify-peer", blank(b))]
        disks = [{"name": "vda", "file": f"nbds://127.0.0.1:{port}/?tls-certificates={pki}"},
                 {"name": "vdb", "file": f"nbds+unix:///?socket={sock}&tls-certificates={pki}"}]
        try:
            with Machine(disks) as m:
                seen = {}
                for turn in range(2):
                    for name in ("vda", "vdb"):
                        tap.check(m.run(WRITES.format(name)) == 0, f"{name}: writes")
                        seen[name] = m.sum(name)
                    if turn == 0:
                        for server in servers:
                            server.kill()
                        m.type("dd if=/dev/vda of=/dev/null bs=4k count=1 iflag=direct && dd if=/dev/vdb of=/dev/null bs=4k count=1 iflag=direct")
                        m.is_in("paused", "io-error")
                        for server in servers:
                            server.start()
                        tap.check(m.status() == 0, "it goes on")
                m.client.call("vm.stop", vm="a")
            tap.check((digest(a), digest(b)) == (seen["vda"], seen["vdb"]), "a file holds something else than the guest read")
        finally:
            for server in servers:
                server.kill()


def tls_with_the_wrong_server_is_refused_by_name():
    if not shutil.which("openssl"):
        tap.skip("openssl")
    with lib.Daemon() as daemon:
        good, other, far = (make_pki(os.path.join(daemon.dir, name), names) for name, names in
                            (("good", "DNS:localhost,IP:127.0.0.1"), ("other", "DNS:localhost,IP:127.0.0.1"), ("far", "DNS:far.example")))
        path, port = blank(os.path.join(daemon.dir, "a.raw")), free_port()

        def start(uri):
            with daemon.client(TIMEOUT) as client:
                client.call("vm.define", config=daemon.config("a", kernel=daemon.guest(), firmware="none", disks=[{"name": "d", "file": uri}]))
                try:
                    client.call("vm.start", vm="a")
                    client.call("vm.stop", vm="a", force=True)
                    return "started"
                except lib.CallError as error:
                    return str(error)
                finally:
                    client.call("vm.delete", vm="a")

        def served(pki, *more):
            return qemu_nbd(port, path, "--object", f"tls-creds-x509,id=t,endpoint=server,dir={pki},verify-peer=yes", "--tls-creds", "t", *more)
        uri = f"nbds://127.0.0.1:{port}/?tls-certificates="
        for pki, words in ((good, "started"), (other, "certificate of '127.0.0.1' is refused: unable to get local issuer"),
                           (os.path.join(daemon.dir, "none"), "ca-cert.pem' does not exist")):
            server = served(good)
            try:
                tap.check(words in (said := start(uri + pki)), f"{pki}: {said}")
            finally:
                server.kill()
        server = served(far)
        try:
            tap.check("certificate of '127.0.0.1' is refused: IP address mismatch" in (said := start(uri + far)), said)
            tap.check((said := start(uri + far + "&tls-hostname=far.example")) == "started", said)
            os.unlink(os.path.join(far, "client-cert.pem"))
            tap.check("has one of" in (said := start(uri + far + "&tls-hostname=far.example")), said)
            os.unlink(os.path.join(far, "client-key.pem"))
            tap.check("start" in (said := start(uri + far + "&tls-hostname=far.example")) and said != "started", f"without a certificate of ours: {said}")
            tap.check("wants TLS" in (said := start(f"nbd://127.0.0.1:{port}/")), said)
        finally:
            server.kill()
        server = qemu_nbd(port, path)
        try:
            tap.check("the server has no TLS" in (said := start(uri + good)), said)
        finally:
            server.kill()
        with socket.socket() as listener:  # takes connections and says nothing
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen(4)
            tap.check("says nothing" in (said := start(uri + good)), said)
        with daemon.client() as client:
            client.fails("invalid-params", "vm.define", config=daemon.config("b", disks=[{"file": "nbds://a/b"}]))
            client.call("vm.define", config=daemon.config("c", disks=[{"file": uri + good}]))
        lib.wait_for(lambda: not relays(), 30, "no process of TLS is left")


def relays():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read()
            with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                state = file.read().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if words.startswith(b"vmd-tls\0") and state != "Z":
            found.append(pid)
    return found


def what_cannot_be_is_refused_with_its_reason():
    with lib.Daemon() as daemon:
        path, sock = blank(os.path.join(daemon.dir, "a.raw")), os.path.join(daemon.dir, "s")
        port = free_port()

        def start(file, **more):
            with daemon.client(TIMEOUT) as client:
                client.call("vm.define", config=daemon.config("a", kernel=daemon.guest(), firmware="none",
                                                              disks=[{"name": "d", "file": file, **more}]))
                try:
                    client.call("vm.start", vm="a")
                    client.call("vm.stop", vm="a", force=True)
                    return "started"
                except lib.CallError as error:
                    return str(error)
                finally:
                    client.call("vm.delete", vm="a")
        good = f"nbd+unix:///?socket={sock}"
        for file, text in (("nbds://a/b", "TLS"), ("nbd://", "no host"), ("nbd://a:0/x", "no port"), ("nbd+unix:///x", "absolute path"),
                           ("nbd+unix:///x?socket=rel", "absolute path"), ("nbd+unix:///%zz?socket=/a", "bad '%'"),
                           ("nbd://h/x?tls=1", "after '?'")):
            try:
                daemon.call("vm.define", config=daemon.config("b", kernel=daemon.guest(), firmware="none",
                                                              disks=[{"file": file}]))
                tap.check(False, f"{file} is taken")
            except lib.CallError as error:
                tap.check(text in str(error), f"{file}: {error}")
        tap.check("cannot connect to the NBD server" in (said := start(good)), said)
        tap.check("cannot connect to the NBD server" in (said := start(f"nbd://127.0.0.1:{port}/x")), said)
        server = qemu_nbd(sock, path, "-x", "here")
        try:
            tap.check("no export 'there'" in (said := start(f"nbd+unix:///there?socket={sock}")), said)
            tap.check((said := start(f"nbd+unix:///here?socket={sock}")) == "started", said)
        finally:
            server.kill()
        server = qemu_nbd(sock, path, "-r")
        try:
            tap.check("read-only" in (said := start(good)), said)
            tap.check((said := start(good, readonly=True)) == "started", said)
        finally:
            server.kill()
        listener = socket.socket(socket.AF_UNIX)
        os.unlink(sock)
        listener.bind(sock)
        listener.listen(16)
        tap.check("the server says nothing" in (said := start(good)), said)
        listener.close()


CASES = (what_the_guest_writes_is_what_the_servers_files_hold, tls_goes_through_a_process_that_has_the_keys,
         tls_with_the_wrong_server_is_refused_by_name, a_killed_server_pauses_the_vm_until_another_serves,
         by_policy_report_the_guest_sees_errors_until_another_serves, disks_come_and_go_while_the_vm_runs,
         what_cannot_be_is_refused_with_its_reason)


def main():
    try:
        guest.fetched("riscv64-disk")
        guest.emulator_path("vmd")
        if not shutil.which("qemu-nbd"):
            raise guest.Unavailable("qemu-nbd (package qemu-utils)")
        if not os.path.exists(guest.OPENSBI):
            raise guest.Unavailable(f"{guest.OPENSBI} (package opensbi)")
    except guest.Unavailable as problem:
        print(f"skipped: {problem}")
        sys.exit(77)
    sys.exit(tap.run_cases(CASES))


if __name__ == "__main__":
    main()
