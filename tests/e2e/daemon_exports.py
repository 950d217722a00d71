# SPDX-License-Identifier: Apache-2.0
"""Storage pools of kind nbd: the exports of nbdkit, qemu-nbd, our own server and hostile ones are volumes to look at and to run VMs on.

    daemon_exports.py [CASE...]"""

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402

MIB = lib.MIB
VMCTL = os.path.join(lib.BUILD, "vmctl")


class Bench:
    """A folder for servers, a daemon, and the servers' ends."""

    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix="vmd-exports-")
        self.servers = []
        self.daemon = lib.Daemon()
        self.daemon.start()
        return self

    def __exit__(self, *_):
        for s in self.servers:
            self.end(s)
        self.daemon.end()
        shutil.rmtree(self.dir)

    def end(self, server):
        server.kill()
        server.wait()

    def serve(self, name, *words):
        """@ in the words is the socket's path. The address and the process."""
        if not shutil.which(words[0]):
            tap.skip(words[0])
        path = os.path.join(self.dir, name)
        process = subprocess.Popen([w.replace("@", path) for w in words], stdout=subprocess.DEVNULL)
        self.servers.append(process)

        def answers():
            tap.check(process.poll() is None, f"{words} has ended")
            try:
                with socket.socket(socket.AF_UNIX) as s:
                    s.connect(path)
                    return s.recv(8) == b"NBDMAGIC"
            except OSError:
                return False
        lib.wait_for(answers, 60, f"{words[0]} answers")
        return f"nbd+unix:///?socket={path}", process

    def call(self, method, **params):
        return self.daemon.call(method, **params)

    def fails(self, code, method, **params):
        with self.daemon.client() as client:
            return client.fails(code, method, **params)

    def pool(self, uri, name="far"):
        self.call("pool.define", config={"name": name, "type": "nbd", "uri": uri})
        return self.call("pool.start", pool=name)

    def volumes(self, name="far"):
        return {v["name"]: v for v in self.call("volume.list", pool=name)["volumes"]}


def file_of(folder, name, size):
    with open(os.path.join(folder, name), "wb") as file:
        file.truncate(size)


def exports_are_volumes():
    with Bench() as b:
        files = os.path.join(b.dir, "files")
        os.mkdir(files)
        for name, size in (("one", MIB), ("two.raw", 3 * MIB), ("no name", MIB), (".hidden", MIB)):
            file_of(files, name, size)
        uri, _ = b.serve("nbdkit", "nbdkit", "-f", "-U", "@", "file", f"dir={files}")
        info = b.pool(uri)
        tap.check((info["state"], info["type"], info["path"], info["volumes"]) == ("active", "nbd", uri, 2), f"{info}")
        seen = b.volumes()
        tap.check({n: (v["capacity"], v["format"]) for n, v in seen.items()} == {"one": (MIB, "raw"), "two.raw": (3 * MIB, "raw")}, f"{seen}")
        got = json.loads(subprocess.run(["nbdinfo", "--json", seen["two.raw"]["path"]], capture_output=True, check=True).stdout)
        tap.check(got["exports"][0]["export-size"] == 3 * MIB, f"another export: {got}")
        file_of(files, "three", 2 * MIB)
        file_of(files, "two.raw", 5 * MIB)
        os.unlink(os.path.join(files, "one"))
        tap.check(sorted(b.volumes()) == ["one", "two.raw"], "looked without being asked")
        b.call("pool.refresh", pool="far")
        tap.check({n: v["capacity"] for n, v in b.volumes().items()} == {"two.raw": 5 * MIB, "three": 2 * MIB}, f"{b.volumes()}")
        b.fails("not-found", "volume.get", pool="far", volume="one")
        b.daemon.kill()
        b.daemon.start()
        tap.check(sorted(b.volumes()) == ["three", "two.raw"], "forgotten")
        events = [(e["name"], e["reason"]) for e in b.call("event.list", types=["volume"])["events"]]
        tap.check(("far/three", "found") in events and ("far/one", "lost") in events, f"{events}")
        b.call("pool.stop", pool="far")
        b.call("pool.undefine", pool="far")


def exports_without_a_name_are_the_default_volume():
    with Bench() as b:
        disk = os.path.join(b.dir, "disk.qcow2")
        subprocess.run([VMCTL, "image", "create", "-q", "-f", "qcow2", disk, "7M"], check=True)
        for name, words in (("qemu", ("qemu-nbd", "-t", "-e", "9", "-k", "@", "-f", "qcow2", disk)),
                            ("ours", (VMCTL, "image", "nbd-serve", "-t", "-e", "9", "-k", "@", "-f", "qcow2", disk))):
            uri, process = b.serve(name, *words)
            b.pool(uri, name)
            seen = b.volumes(name)
            tap.check([(v["name"], v["capacity"], v["path"]) for v in seen.values()] == [("default", 7 * MIB, uri)], f"{seen}")
            b.end(process)
            error = b.fails("file-error", "pool.refresh", pool=name)
            tap.check(b.dir in error.message, f"names no server: {error}")
            tap.check("default" in b.volumes(name), "lost without an answer")
            b.call("pool.stop", pool=name)


def what_only_the_server_does_is_refused_by_name():
    with Bench() as b:
        uri, _ = b.serve("k", "nbdkit", "-f", "-U", "@", "--exportname=x", "memory", "4M")
        b.pool(uri)
        name = next(iter(b.volumes()))
        for method, more in (("volume.create", {"config": {"name": "new", "capacity": MIB}}), ("volume.delete", {"volume": name}),
                             ("volume.resize", {"volume": name, "capacity": 8 * MIB}), ("volume.wipe", {"volume": name}),
                             ("volume.clone", {"volume": name, "name": "copy"}), ("volume.read", {"volume": name}),
                             ("volume.write", {"volume": name, "offset": 0, "data": ""})):
            error = b.fails("unsupported", method, pool="far", **more)
            tap.check("'far'" in error.message and "server" in error.message and error.remedy, f"{method}: {error}")
        tap.check("nbd" in b.fails("unsupported", "pool.xml", pool="far").message, "XML")
        b.call("pool.stop", pool="far")
        b.fails("unsupported", "pool.build", pool="far")
        b.call("pool.start", pool="far")
        tap.check("<volume" in b.call("volume.xml", pool="far", volume=name)["xml"], "no XML of a volume")
        for config, code in (({}, "invalid-params"), ({"uri": "http://x"}, "invalid-params"), ({"uri": uri, "path": "/tmp/x"}, "invalid-params"),
                             ({"uri": "nbd://host/export"}, "invalid-params"), ({"uri": "nbds://host?tls-certificates=/etc/pki"}, "unsupported"), ({"uri": uri}, "exists")):
            tap.check(b.fails(code, "pool.define", config={"name": "q", "type": "nbd", **config}).remedy, f"{config}")
        b.fails("invalid-params", "pool.define", config={"name": "q", "path": "/srv/q", "uri": uri})


def vms_run_on_exports_by_pool_and_volume():
    with Bench() as b:
        d = b.daemon
        uri, server = b.serve("k", "nbdkit", "-f", "-U", "@", "memory", "4M")
        b.pool(uri)
        b.call("vm.define", config=d.config("a", disks=[{"pool": "far", "volume": "default"}]))
        disk = b.call("vm.get", vm="a")["config"]["disks"][0]
        tap.check((disk["file"], disk["format"]) == (uri, "raw"), f"{disk}")
        b.call("vm.start", vm="a")
        tap.check(b.call("vm.get", vm="a")["state"] == "running", "does not run")
        b.call("pool.stop", pool="far")
        b.fails("busy", "pool.undefine", pool="far")
        b.call("vm.stop", vm="a", force=True)
        tap.check("not active" in b.fails("bad-state", "vm.start", vm="a").message, "started without its pool")
        b.call("pool.start", pool="far")
        b.end(server)
        tap.check("cannot connect" in b.fails("start-failed", "vm.start", vm="a").message, "started without its server")
        b.call("vm.delete", vm="a")


def negotiate(conn, exports):
    """A server that lists what it is told to, whatever it is."""
    conn.sendall(b"NBDMAGIC" + b"IHAVEOPT" + struct.pack(">H", 3))
    conn.recv(4)
    while True:
        head = b""
        while len(head) < 16:
            piece = conn.recv(16 - len(head))
            if not piece:
                return
            head += piece
        _, option, length = struct.unpack(">QII", head)
        while length:
            length -= len(conn.recv(length))

        def reply(kind, data=b"", option=option):
            conn.sendall(struct.pack(">QIII", 0x3e889045565a9, option, kind, len(data)) + data)
        if option == 3:
            for name in exports:
                reply(2, struct.pack(">I", len(name)) + name)
            reply(1)
        elif option == 6:
            reply(3, struct.pack(">HQH", 0, 1 << 62, 1))
            reply(1)
        else:
            reply(0x80000001)
            if option == 2:
                return


def hostile_servers_harm_nothing():
    with Bench() as b:
        for name, exports, check in (
                ("names", [b"ok", b"../../etc/passwd", b"a/b", b"x" * 3000, b"\xff\xfe", b"\x1b[2J", b"", b"default"], ["default", "ok"]),
                ("twice", [b"same", b"same"], ["same"]),
                ("many", [b"e%d" % i for i in range(12000)], None)):
            path = os.path.join(b.dir, name)
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(path)
                listener.listen(8)

                def serve(listener=listener, exports=exports):
                    try:
                        while True:
                            conn, _ = listener.accept()
                            with conn:
                                negotiate(conn, exports)
                    except OSError:
                        pass
                thread = threading.Thread(target=serve, daemon=True)
                thread.start()
                info = b.pool(f"nbd+unix:///?socket={path}", name)
                seen = sorted(b.volumes(name))
                tap.check(seen == check if check else len(seen) == info["volumes"] == 10000, f"{name}: {seen[:20]} {info}")
                listener.shutdown(socket.SHUT_RDWR)
        path = os.path.join(b.dir, "garbage")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(8)
            b.call("pool.define", config={"name": "g", "type": "nbd", "uri": f"nbd+unix:///?socket={path}"})

            def garbage():
                conn, _ = listener.accept()
                with conn:
                    conn.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            thread = threading.Thread(target=garbage, daemon=True)
            thread.start()
            b.fails("file-error", "pool.start", pool="g")
            tap.check(b.call("pool.get", pool="g")["state"] == "inactive", "active")


CASES = [exports_are_volumes, exports_without_a_name_are_the_default_volume, what_only_the_server_does_is_refused_by_name,
         vms_run_on_exports_by_pool_and_volume, hostile_servers_harm_nothing]

if __name__ == "__main__":
    sys.exit(tap.run_cases(CASES))
