# SPDX-License-Identifier: Apache-2.0
"""Cards whose back end is a vhost-user one: DPDK's testpmd carries frames between two VMs with Debian's kernel, one card connecting to it and one
waiting for it; it dies and comes back; and back ends of ours that lie.

Needs the guest riscv64-net (tests/guests/fetch), and for the first dpdk-testpmd (packages dpdk-dev, librte-net-vhost23, librte-mempool-ring23).
"""

import array
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import guest  # noqa: E402
import guest_lan  # noqa: E402
import guest_net as net  # noqa: E402
import tap  # noqa: E402

LIMIT = guest_lan.LIMIT


class Testpmd:
    """Forwards all frames of one vhost-user port to the other; `ports` are (path, whether it connects)."""

    def __init__(self, folder, *ports):
        program = shutil.which("dpdk-testpmd")
        if not program:
            raise tap.Skip("dpdk-testpmd (packages dpdk-dev, librte-net-vhost23, librte-mempool-ring23)")
        command = [program, "-l", "0,1" if (os.cpu_count() or 1) > 1 else "0", "--no-huge", "-m", "256", "--no-pci", "--no-shconf", "--no-telemetry"]
        for i, (path, connects) in enumerate(ports):
            if not connects and os.path.exists(path):
                os.unlink(path)  # of one that was killed
            command += ["--vdev", f"net_vhost{i},iface={path},queues=2,client={int(connects)}"]
        command += ["--", "--total-num-mbufs=4096", "--forward-mode=io", "--auto-start", "--nb-cores=1", "--rxq=2", "--txq=2"]
        self.log = open(os.path.join(folder, "testpmd.log"), "a", encoding="utf-8")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self.log, stderr=self.log, cwd=folder)
        for path, connects in ports:
            lib.wait_for(lambda p=path, c=connects: c or os.path.exists(p) or self.process.poll() is not None, LIMIT, "testpmd's socket")
        if self.process.poll() is not None:
            with open(self.log.name, encoding="utf-8") as file:
                raise tap.Skip("a dpdk-testpmd that runs here: " + " ".join(file.read().split())[-200:])

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.kill()

    def kill(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)
        self.process.stdin.close()
        self.log.close()


def machine(daemon, name, files, nic, **more):
    return guest_lan.Machine(daemon, name, files, append="console=ttyS0 vmd.virtio vmd.run=shell",
                             nics=[{"type": "vhost-user", "bus": "virtio-pci", **nic}], **more)


def up(one, address):
    one.expect(r"guest# ")
    one.run(f"ip addr add {address}/24 dev eth0 && ip link set eth0 up")


def carrier(one, state):
    one.run(f"until [ $(cat /sys/class/net/eth0/carrier) = {state} ]; do sleep 0.2; done")


def moves(one, other, address, mib):
    """So many MiB from one to the other."""
    other.run("nc -l -p 39007 >/tmp/x & " + net.listens("tcp*", 39007))
    sums = one.run(f"dd if=/dev/urandom of=/tmp/y bs=64k count={16 * mib} 2>/dev/null; md5sum </tmp/y; nc {address} 39007 </tmp/y && rm /tmp/y")
    got = other.run("wait; md5sum </tmp/x; rm /tmp/x")
    tap.check(re.search("[0-9a-f]{32}", got).group(0) in sums, f"{got} is not {sums}")


def testpmd_carries_frames_between_vms_and_comes_back():
    files = guest.fetched("riscv64-net")
    with lib.Daemon() as daemon:
        paths = [os.path.join(daemon.dir, name) for name in ("s0", "s1")]
        ports = ((paths[0], False), (paths[1], True))
        with Testpmd(daemon.dir, *ports) as pmd:
            ann = machine(daemon, "ann", files, {"path": paths[0], "queues": 2}, cpus=2)
            bob = machine(daemon, "bob", files, {"path": paths[1], "server": True, "queues": 2})
            try:
                up(ann, "10.66.0.1")
                up(bob, "10.66.0.2")
                carrier(bob, 1)
                ann.reaches("10.66.0.2")
                moves(ann, bob, "10.66.0.2", 12)
                moves(bob, ann, "10.66.0.1", 12)
                shown = ann.run("ls -d /sys/class/net/eth0/queues/tx-*")
                tap.check("tx-1" in shown, shown)
                # The back end dies: no carrier, and a VM that runs on.
                pmd.kill()
                for one in (ann, bob):
                    carrier(one, 0)
                with Testpmd(daemon.dir, *ports):
                    for one in (ann, bob):
                        carrier(one, 1)
                    ann.reaches("10.66.0.2")
                    moves(bob, ann, "10.66.0.1", 4)
                    # A saved state has nothing of the back end: the VM goes on with the one that is there.
                    with daemon.client(LIMIT) as client:
                        job = client.call("job.wait", job=client.call("vm.save", vm="bob")["job"], timeout_ms=120000)
                        tap.check(job["state"] == "done", f"{job}")
                        bob.close()
                        client.call("vm.start", vm="bob")
                    bob.console = lib.Console(daemon.call("vm.console", vm="bob")["path"])
                    carrier(bob, 1)
                    bob.reaches("10.66.0.1")
                    moves(ann, bob, "10.66.0.2", 4)
            finally:
                ann.close()
                bob.close()
        for name in ("ann", "bob"):
            daemon.call("vm.stop", vm=name, force=True)
        lib.wait_for(lambda: not os.path.exists(paths[1]), LIMIT, "the end of the socket that the VM made")


class Liar:
    """A back end at a socket that listens, with a script: what it answers to each request, and what it does when its rings run."""

    FEATURES = 1 << 32 | 1 << 30 | 1 << 15
    ASKED = {1: FEATURES, 15: 1 << 3, 17: 1}  # GET_FEATURES, GET_PROTOCOL_FEATURES, GET_QUEUE_NUM

    def __init__(self, path, answer=None, then=None):
        self.path, self.answer, self.then = path, answer, then
        self.met = 0
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(path)
        self.server.listen(4)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.thread.join(LIMIT)
        os.unlink(self.path)

    def serve(self):
        while True:
            try:
                peer, _ = self.server.accept()
            except OSError:
                return
            with peer:
                self.met += 1
                try:
                    self.talk(peer)
                except OSError:
                    pass

    def talk(self, peer):
        passed, enabled = {}, 0
        while True:
            head, ancillary, _, _ = peer.recvmsg(12, 1024)
            if len(head) < 12:
                return
            request, flags, size = struct.unpack("<III", head)
            for _, _, data in ancillary:
                passed.setdefault(request, array.array("i", data)[0])
            peer.recv(size, socket.MSG_WAITALL) if size else b""
            asked = request in self.ASKED
            if self.answer and asked:
                bytes_out = self.answer(request)
                if bytes_out is None:
                    return
                peer.sendall(bytes_out)
            elif asked or flags & 8:
                peer.sendall(struct.pack("<IIIQ", request, 5, 8, self.ASKED.get(request, 0)))
            enabled += request == 18
            if enabled == 2 and self.then:
                self.then(passed)
                self.then = None


def back_ends_that_lie_are_hung_up_on():
    def answers(text):
        return lambda _request: text

    with lib.Daemon() as daemon:
        path = os.path.join(daemon.dir, "liar")
        daemon.call("vm.define", config=daemon.config("a", kernel=daemon.guest(), nics=[{"type": "vhost-user", "path": path}]))
        with daemon.client(LIMIT) as client:
            error = client.fails("file-error", "vm.start", vm="a")
            tap.check(path in error.message and "nic0" in error.message, f"{error}")
            for bad, said in ((struct.pack("<IIIQ", 1, 5, 1 << 30, 0), "does not speak vhost-user"), (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak"),
                              (struct.pack("<IIIQ", 1, 5, 8, 1), "lacks features"), (None, "ended or hung up")):
                liar = Liar(path, answers(bad))
                error = client.fails("start-failed", "vm.start", vm="a")
                tap.check(said in error.message, f"{bad}: {error}")
                liar.close()
            # Believed first; then it says that frames came that it had no buffers for. It is hung up on, and tried again.
            def overruns(passed):
                os.pwrite(passed[5], struct.pack("<H", 5000), 16 * 512 + 2048 + 2)
                os.write(passed[13], struct.pack("<Q", 1))

            liar = Liar(path, None, overruns)
            client.call("vm.start", vm="a")
            lib.wait_for(lambda: liar.met >= 2, LIMIT, "the second connection")
            tap.check(client.call("vm.get", vm="a")["state"] == "running", "the VM runs on")
            client.call("vm.stop", vm="a", force=True)
            liar.close()  # which waits for the end of the VM's connection


if __name__ == "__main__":
    guest.need("riscv64-net")
    sys.exit(tap.run_cases([
        testpmd_carries_frames_between_vms_and_comes_back,
        back_ends_that_lie_are_hung_up_on,
    ]))
