#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A Debian with cloud-init becomes what its seed says, and a GiB goes through its network card unharmed.

    make cloud-check        (many minutes; makes the disk first unless the cache has it: tests/guests/rootfs --cloud)

vmctl makes a VM of the disk with user data, a host name and a public key. The host logs in by ssh, through a port forward
of user-mode networking; cloud-init says what it has done; the guest agent tells the address that `vmctl list` shows; apt in
the guest fetches MIB megabytes (1,024) from a server on the host's loopback and compares their SHA-256, and they come back by ssh.
Prints TAP.
"""

import hashlib
import http.server
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
for folder in (".", "../lib", "../e2e"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import guest  # noqa: E402
from guest_net import free_port  # noqa: E402

MIB = int(os.environ.get("MIB", "1024"))
PATIENCE = 3000.0
USER_DATA = """#cloud-config
users:
  - name: ann
    gecos: made by cloud-init
    shell: /bin/bash
    sudo: "ALL=(ALL) NOPASSWD:ALL"
    lock_passwd: true
    ssh_authorized_keys: ["%s"]
write_files:
  - path: /etc/vmd-cloud
    content: "written by cloud-init\\n"
runcmd: [[sh, -c, "echo ran >/run/vmd-cloud"]]
"""


def rootfs():
    run = subprocess.run([sys.executable, "-B", os.path.join(HERE, "rootfs"), "--cloud"], check=False,
                         stdout=subprocess.PIPE, text=True)
    if run.returncode != 0:
        raise guest.Unavailable("the disk with cloud-init could not be made (see above)")
    return dict(line.split("=", 1) for line in run.stdout.splitlines())


class Stream:
    """MIB megabytes that nobody can guess and everybody can repeat."""

    def __init__(self):
        self.block = random.Random(7).randbytes(1 << 20)
        self.length = MIB << 20
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        self.sum = digest.hexdigest()

    def pieces(self):
        for number in range(MIB):
            yield number.to_bytes(8, "big") + self.block[8:]


def served(stream):
    """A server on the host's loopback."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):  # pylint: disable=invalid-name
            self.send_response(200)
            self.send_header("Content-Length", str(stream.length))
            self.end_headers()
            for piece in stream.pieces():
                self.wfile.write(piece)

        def log_message(self, *_args):  # pylint: disable=arguments-differ
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Ssh:
    """What the host says to the guest."""

    def __init__(self, folder, port):
        self.words = ["ssh", "-i", os.path.join(folder, "key"), "-p", str(port), "-o", "StrictHostKeyChecking=no",
                      "-o", f"UserKnownHostsFile={folder}/known", "-o", "BatchMode=yes", "-o", "ConnectTimeout=60",
                      "-o", "LogLevel=ERROR", "ann@127.0.0.1"]

    def run(self, command, good=(0,)):
        done = subprocess.run([*self.words, command], check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=PATIENCE)
        if done.returncode not in good:
            raise guest.GuestError(f"{command}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def wait(self, alive):
        end = time.monotonic() + PATIENCE
        while subprocess.run([*self.words, "true"], check=False, stdin=subprocess.DEVNULL, capture_output=True).returncode:
            alive()
            if time.monotonic() > end:
                raise guest.GuestError("nobody could log in")
            time.sleep(2.0)

    def pull(self, command):
        """SHA-256 and length of what a command of the guest prints."""
        digest, length = hashlib.sha256(), 0
        with subprocess.Popen([*self.words, command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            while piece := process.stdout.read(1 << 20):
                digest.update(piece)
                length += len(piece)
        return digest.hexdigest(), length


def expect(what, wanted, got):
    if wanted != got:
        raise guest.GuestError(f"{what}: {got!r}, not {wanted!r}")


def identity(ssh, done):
    status = ssh.run("cloud-init status --wait --long", good=(0, 2))  # 2: done, with warnings
    if not re.search(r"^status: done", status, re.M):
        raise guest.GuestError(status + "\n" + ssh.run("sudo tail -n 40 /var/log/cloud-init.log"))
    expect("where the seed was", True, "DataSourceNoCloud" in status)
    expect("the host name", "web", ssh.run("hostname"))
    expect("the user", "ann:made by cloud-init:/bin/bash", ssh.run("getent passwd ann | cut -d: -f1,5,7"))
    expect("a file of write_files", "written by cloud-init", ssh.run("cat /etc/vmd-cloud"))
    expect("a command of runcmd", "ran", ssh.run("cat /run/vmd-cloud"))
    done("cloud-init set user, key and host name, wrote a file and ran a command; ssh works through a port forward")


def traffic(ssh, done):
    stream = Stream()
    server = served(stream)
    try:
        url = f"http://10.0.2.2:{server.server_address[1]}/pool/file"
        ssh.run(f"cd /var/tmp && /usr/lib/apt/apt-helper download-file {url} file SHA256:{stream.sum}")
        expect("its length", str(stream.length), ssh.run("stat -c %s /var/tmp/file"))
    finally:
        server.shutdown()
        server.server_close()
    done(f"apt in the guest fetches {MIB} MiB from the host's loopback, and its own sum is right")
    expect("what came back", (stream.sum, stream.length), ssh.pull("cat /var/tmp/file"))
    done(f"{MIB} MiB come back by ssh through the port forward unharmed")


def agent(daemon, done):
    def addresses():
        run = subprocess.run([os.path.join(lib.BUILD, "vmctl"), "--dir", daemon.dir, "list", "--json"], check=True,
                             stdout=subprocess.PIPE, text=True)
        shown = json.loads(run.stdout)
        return "10.0.2.15" in json.dumps(shown)

    lib.wait_for(addresses, 600.0, "the guest agent tells an address")
    done("the guest agent of the image tells the address that vmctl list shows")


def check(files, done):
    for program in ("ssh", "ssh-keygen"):
        if not shutil.which(program):
            raise guest.Unavailable(f"{program} (package openssh-client)")
    with tempfile.TemporaryDirectory(dir=os.path.dirname(files["disk"])) as folder, lib.Daemon() as daemon:
        disk, port = os.path.join(folder, "disk"), free_port()
        subprocess.run(["cp", "--sparse=always", files["disk"], disk], check=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", os.path.join(folder, "key")], check=True)
        with open(os.path.join(folder, "key.pub"), encoding="ascii") as file:
            key = file.read().strip()
        with open(os.path.join(folder, "user-data"), "w", encoding="ascii") as file:
            file.write(USER_DATA % key)
        vmctl = [os.path.join(lib.BUILD, "vmctl"), "--dir", daemon.dir]
        subprocess.run([*vmctl, "create", "web", "--memory", "1G", "--cpus", "2", "--kernel", files["kernel"], "--initrd", files["initrd"],
                        "--append", files["append"], "--disk", f"{disk},format=raw,name=root", "--rng", "--agent",
                        "--nic", f"user,forward=tcp:127.0.0.1:{port}-:22",
                        "--cloud-init", f"{folder}/user-data,hostname=web,ssh_keys={folder}/key.pub"], check=True, stdout=subprocess.DEVNULL)

        def alive():
            state = daemon.call("vm.get", vm="web")["state"]
            if state != "running":
                raise guest.GuestError(f"the VM is {state}")

        ssh = Ssh(folder, port)
        ssh.wait(alive)
        identity(ssh, done)
        agent(daemon, done)
        traffic(ssh, done)
        daemon.call("vm.shutdown", vm="web")
        lib.wait_for(lambda: daemon.call("vm.get", vm="web")["state"] == "stopped", 600.0, "it shuts down")
        done("it shuts down when asked")


def main():
    count = 0

    def done(name):
        nonlocal count
        count += 1
        print(f"ok {count} - {name}", flush=True)

    try:
        check(rootfs(), done)
    except guest.Unavailable as missing:
        print(f"skipped: {missing}")
        return 77
    except (guest.GuestError, lib.CallError, AssertionError, subprocess.SubprocessError) as problem:
        print(f"not ok {count + 1} - {problem}")
        return 1
    print(f"1..{count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
