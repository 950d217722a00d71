# SPDX-License-Identifier: Apache-2.0
"""Two network namespaces joined by a veth pair, a daemon in the one, and tests in the other that reach it over TLS
alone. A test file needs no line for it: its daemon_lib.Daemon is the far one, whose client(), console() and qmp()
speak TLS. What is about the unix socket itself says so (tap.local)."""

import json
import os
import pathlib
import runpy
import subprocess
import sys

import daemon_lib
import qmp_lib
import remote_lib

ADDRESS, CLIENT_ADDRESS = "10.213.77.1", "10.213.77.2"
ENVIRONMENT = "VMD_REMOTE"  # the server's namespace, for those inside of the client's


def ip(*args):
    subprocess.run(["ip", *args], check=True, timeout=30, capture_output=True)


def within(namespace):
    """What goes before a command. Its network alone is another's: `ip netns exec` would hide /sys/fs/cgroup, too."""
    return ["nsenter", f"--net=/run/netns/{namespace}", "--"]


class Missing(Exception):
    """There can be no namespaces here; its text says why."""


class Pair:
    """Two namespaces of this process; `number` tells pairs of one process apart."""

    def __init__(self, number=0):
        self.server, self.client = (f"vmd-{end}-{os.getpid()}-{number}" for end in "sc")

    def __enter__(self):
        try:
            if os.geteuid() != 0:
                raise OSError("not root")
            for name in (self.server, self.client):
                ip("netns", "add", name)
                ip("-n", name, "link", "set", "lo", "up")
            ip("-n", self.server, "link", "add", "vmd0", "type", "veth", "peer", "name", "vmd1", "netns", self.client)
            for name, link, address in ((self.server, "vmd0", ADDRESS), (self.client, "vmd1", CLIENT_ADDRESS)):
                ip("-n", name, "addr", "add", address + "/24", "dev", link)
                ip("-n", name, "link", "set", link, "up")
            subprocess.run([*within(self.client), "true"], check=True, timeout=30, capture_output=True)
        except (OSError, subprocess.SubprocessError) as problem:
            self.__exit__()
            said = getattr(problem, "stderr", None) or b""
            raise Missing(f"network namespaces: {problem} {said.decode(errors='replace').strip()}") from problem
        return self

    def __exit__(self, *_):
        for name in (self.server, self.client):
            subprocess.run(["ip", "netns", "del", name], check=False, timeout=30, capture_output=True)

    def command(self, program, *args):
        """Runs a Python program on the client's side."""
        return [*within(self.client), sys.executable, "-B", str(program), *args]

    def environment(self):
        return {**os.environ, ENVIRONMENT: self.server}


class FarDaemon(remote_lib.RemoteDaemon):
    """In the server's namespace. An administrator's certificate is made once, by the unix socket; then client(), console()
    and qmp() are far."""

    ports = 20000

    def __init__(self, *options, **more):
        super().__init__(*options, host=ADDRESS, **more)
        FarDaemon.ports += 1
        self.port = FarDaemon.ports
        self.creds = None

    def command(self, *more):
        return [*within(os.environ[ENVIRONMENT]), *super().command(*more)]


class SuiteDaemon(FarDaemon):
    """Stands in for daemon_lib.Daemon in a test file that knows nothing of TLS."""

    def __init__(self, emulator=None, wrapper=(), folder=None):
        super().__init__(emulator=emulator, wrapper=wrapper, folder=folder)
        self.tls = os.path.join(self.dir, "tls")  # not in the folder of the store, whose files are counted
        self.ca = os.path.join(self.tls, "ca.pem")
        self.options = ["--tls-dir", self.tls]

    def start(self, wait=True, settle=True, **more):
        super().start(wait=wait, settle=False, **more)
        if wait and not self.creds:
            with daemon_lib.Client(self.sock) as client:
                client.call("cert.init", names=[self.host])
            self.creds = self.user("ann", "admin", "*")
        if wait and settle:
            self.wait_settled()

    def client(self, timeout=30.0):
        if not self.creds:
            return daemon_lib.Client(self.sock, timeout)
        return remote_lib.TlsClient(self, self.creds, timeout=timeout)

    def raw(self):
        client = self.client()
        return client.sock, client.sock.makefile("rwb")

    def console(self, vm):
        ticket = self.call("vm.console", vm=vm)["ticket"]
        client = remote_lib.TlsClient(self, self.creds, "stream")
        client.sock.sendall(json.dumps({"ticket": ticket}).encode() + b"\n")
        answer = client.read()
        if answer != {"ok": True}:
            raise AssertionError(f"console of {vm}: {answer}")
        return daemon_lib.Console(None, client.sock, client.data)

    def qmp(self, vm="a", **more):
        """The dialect on the daemon's own listener, where vmd-select names the VM."""
        client = self.client(**more)
        q = qmp_lib.Qmp(None, ready=False, sock=client.sock, data=client.data, greeting=client.hello)
        q.ask(qmp_lib.CAPABILITIES + "\n")  # the end of its first line tells a client's dialect
        q.execute("vmd-select", vm=vm)
        q.bound = False
        return q


def inside():
    """Is this the client's side?"""
    return ENVIRONMENT in os.environ


def run_suite(program):
    """Runs a test file of daemon_lib's here, over TLS."""
    daemon_lib.Daemon = SuiteDaemon
    runpy.run_path(str(pathlib.Path(__file__).parent / program), run_name="__main__")


def main(program, cases):
    """A test of its own two namespaces: makes them and runs itself inside."""
    import tap
    if inside():
        return tap.run_cases(cases)
    try:
        with Pair() as pair:
            return subprocess.call(pair.command(program, *sys.argv[1:]), env=pair.environment())
    except Missing as problem:
        print(f"1..0 # SKIP {problem}")
        return 0
