#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""virsh over qemu+tls: who has a good certificate has the role of its user, everyone else is refused."""

import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(TOP / "tests/lib"), str(TOP / "tests/e2e")]

import tap  # noqa: E402
from daemon_lib import CallError, wait_for  # noqa: E402
from remote_lib import Forge, RemoteDaemon, free_port  # noqa: E402


class TlsHost:
    """A daemon that speaks libvirt's protocol by TLS, and virsh with certificates."""

    def __init__(self):
        if not shutil.which("virsh"):
            raise tap.Skip("virsh (Debian: libvirt-clients)")
        self.port = free_port()
        self.d = RemoteDaemon("--libvirt-tls", f"127.0.0.1:{self.port}")

    def __enter__(self):
        self.d.__enter__()
        self.d.init()
        return self

    def __exit__(self, *_):
        self.d.__exit__()

    def folder(self, name, creds):
        """What virsh looks for: the authority, and a certificate with its key."""
        path = os.path.join(self.d.dir, "pki-" + name)
        os.makedirs(path)
        shutil.copy(self.d.ca, os.path.join(path, "cacert.pem"))
        if creds:
            shutil.copy(creds.cert, os.path.join(path, "clientcert.pem"))
            shutil.copy(creds.key, os.path.join(path, "clientkey.pem"))
        return path

    def uri(self, folder):
        return f"qemu+tls://127.0.0.1:{self.port}/system?pkipath={folder}"

    def virsh(self, folder, *words):
        return subprocess.run(["virsh", "-q", "-c", self.uri(folder), *words], capture_output=True, text=True, timeout=120, check=False)

    def works(self, folder, *words):
        done = self.virsh(folder, *words)
        tap.check(done.returncode == 0, f"virsh {words}: {done.stderr}")
        return done.stdout

    def fails(self, pattern, folder, *words):
        done = self.virsh(folder, *words)
        if done.returncode == -signal.SIGPIPE:  # it wrote to a connection that was closed already
            return
        tap.check(done.returncode != 0 and re.search(pattern, done.stderr), f"virsh {words}: {done}")


def a_certificate_gives_its_users_role():
    with TlsHost() as h:
        boss = h.folder("boss", h.d.user("boss", "admin", "*"))
        looker = h.folder("looker", h.d.user("looker", "viewer"))
        other = h.folder("other", h.d.user("other", "owner", "elsewhere"))
        h.d.call("vm.define", config=h.d.config("a"))
        tap.check(h.works(boss, "list", "--all", "--name").split() == ["a"], "not listed")
        h.works(boss, "start", "a")
        tap.check(h.d.call("vm.get", vm="a")["state"] == "running", "not started")
        tap.check(h.works(looker, "list", "--name").split() == ["a"], "not listed")
        h.fails("role|denied|needs", looker, "destroy", "a")
        tap.check(h.works(other, "list", "--all", "--name").split() == [], "another project's VM is seen")
        h.fails("domain|role|needs", other, "destroy", "a")
        tap.check(h.d.call("vm.get", vm="a")["state"] == "running", "ended by who may not")
        tap.check(any("boss" in e["who"] for e in h.d.audit("vm.start")), "not in the audit trail")


def nobody_else_comes_in():
    with TlsHost() as h:
        pki = Forge(h.d)
        good = h.d.user("ann", "admin", "*")
        h.fails("certificate|handshake|TLS|terminated|Input/output", h.folder("none", None), "list")
        h.fails("certificate|handshake|TLS|Input/output|end of file", h.folder("own", pki.make("own", issuer="self")), "list")
        h.fails("certificate|handshake|TLS|Input/output|end of file", h.folder("unknown", pki.make("unknown", "/CN=nobody")), "list")
        ann = h.folder("ann", good)
        h.works(ann, "list")
        # One who is there when the certificate is revoked is gone at once.
        log = open(os.path.join(h.d.dir, "events"), "w", encoding="utf-8")
        watcher = subprocess.Popen(["virsh", "-c", h.uri(ann), "event", "--all", "--loop"], stdout=log, stderr=log)
        try:
            wait_for(lambda: h.d.call("user.list")["users"][0].get("connections", 1) and watcher.poll() is None, 60, "the watcher")
            time.sleep(0.5)
            serial = h.d.call("cert.list")["certs"][-1]["serial"]
            h.d.call("cert.revoke", serial=serial)
            tap.check(watcher.wait(60) != 0, "virsh ends well")
        finally:
            watcher.kill()
            watcher.wait()
            log.close()
        h.fails("certificate|handshake|TLS|Input/output|end of file", ann, "list")
        h.d.audited("revoked")
        # No certificate is asked for by name alone: plain text and old TLS end at the door.
        with socket.create_connection(("127.0.0.1", h.port), 30) as s:
            s.sendall(b"\0\0\0\x1c" + b"\x20\0\x80\x86" + bytes(20))
            try:
                tap.check(s.recv(100)[:1] in (b"", b"\x15"), "it talks without TLS")  # an alert, or the end
            except ConnectionResetError:
                pass
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(h.d.ca)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        try:
            with socket.create_connection(("127.0.0.1", h.port), 30) as s:
                context.wrap_socket(s, server_hostname="127.0.0.1")
            raise AssertionError("TLS 1.2 comes in")
        except OSError:
            pass


CASES = (a_certificate_gives_its_users_role, nobody_else_comes_in)

if __name__ == "__main__":
    try:
        sys.exit(tap.run_cases(CASES))
    except CallError as e:
        sys.exit(str(e))
