#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tools made for libvirt, as their packages have them, drive vmd: virt-clone (virtinst), a program with the Go client
(golang-github-digitalocean-go-libvirt-dev), prometheus-libvirt-exporter (probed for: its package starts a service)."""

import os
import pathlib
import shutil
import subprocess
import sys
import urllib.request

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(TOP / "tests/lib"), str(TOP / "tests/e2e")]

import tap  # noqa: E402
from daemon_lib import CallError, wait_for  # noqa: E402
from libvirt_virsh import Host  # noqa: E402
from remote_lib import free_port  # noqa: E402

GO_PATH = "/usr/share/gocode"


def virt_clone_clones():
    if not shutil.which("virt-clone"):
        raise tap.Skip("virt-clone (Debian: virtinst)")
    with Host() as h:
        folder = os.path.join(h.d.dir, "images")
        os.mkdir(folder)
        one, two = os.path.join(folder, "one.raw"), os.path.join(folder, "two.raw")
        pathlib.Path(one).write_bytes(b"what is on it" + bytes(1 << 20))
        h.d.call("vm.define", config=h.d.config("a", disks=[{"file": one}], nics=[{"type": "user", "mac": "52:54:00:00:00:01"}]))
        done = subprocess.run(["virt-clone", "--connect", h.uri(), "-o", "a", "-n", "b", "--file", two], capture_output=True, text=True,
                              timeout=300, check=False)
        tap.check(done.returncode == 0, done.stderr + done.stdout)
        configs = {v["name"]: v["config"] for v in h.d.call("vm.list", config=True)["vms"]}
        tap.check(sorted(configs) == ["a", "b"] and configs["b"]["disks"][0]["file"] == two, str(configs))
        tap.check(configs["b"]["nics"][0]["mac"] != configs["a"]["nics"][0]["mac"], "both have one address")
        tap.check(configs["b"]["firmware"] == configs["a"]["firmware"] and configs["b"]["tcg"] == configs["a"]["tcg"], str(configs))
        tap.check(pathlib.Path(two).read_bytes().startswith(b"what is on it"), "another disk")
        h.run("start", "b")
        tap.check(h.vm("b")["state"] == "running", "the clone does not start")


def a_program_in_go_lists_and_starts():
    if not shutil.which("go") or not os.path.isdir(GO_PATH + "/src/github.com/digitalocean/go-libvirt"):
        raise tap.Skip("go and golang-github-digitalocean-go-libvirt-dev")
    with Host() as h:
        program = os.path.join(h.d.dir, "program")
        environment = {**os.environ, "GOPATH": GO_PATH, "GO111MODULE": "off", "GOCACHE": os.path.expanduser("~/.cache/vmd/go"),
                       "GOFLAGS": ""}
        built = subprocess.run(["go", "build", "-o", program, str(TOP / "tests/e2e/libvirt_go/main.go")], env=environment,
                               capture_output=True, text=True, timeout=800, check=False)
        tap.check(built.returncode == 0, built.stderr)
        for name in ("a", "b"):
            h.d.call("vm.define", config=h.d.config(name))
        done = subprocess.run([program, h.path(), "b"], capture_output=True, text=True, timeout=120, check=False)
        tap.check(done.returncode == 0 and done.stdout.split() == ["a", "b", "running"], str(done))
        tap.check(h.vm("b")["state"] == "running" and h.vm("a")["state"] == "stopped", "not started")


def an_exporter_tells_prometheus():
    if not shutil.which("prometheus-libvirt-exporter"):
        raise tap.Skip("prometheus-libvirt-exporter")
    with Host() as h:
        disk = os.path.join(h.d.dir, "d.raw")
        with open(disk, "wb") as file:
            file.truncate(1 << 20)
        h.d.call("vm.define", config=h.d.config("a", disks=[{"file": disk, "name": "vda"}]))
        h.d.call("vm.start", vm="a")
        where = f"127.0.0.1:{free_port()}"
        with subprocess.Popen(["prometheus-libvirt-exporter", "--libvirt.uri", h.uri(), "--web.listen-address", where],
                              stderr=subprocess.DEVNULL) as exporter:
            try:
                def told():
                    try:
                        with urllib.request.urlopen(f"http://{where}/metrics", timeout=60) as page:
                            return page.read().decode()
                    except OSError:
                        return ""
                text = wait_for(told, 60, "its page")
            finally:
                exporter.kill()
        for part in ("libvirt_up 1", "libvirt_domains_number 1", 'libvirt_domain_info_maximum_memory_bytes{domain="a"',
                     'target_device="vda"'):
            tap.check(part in text, f"{part} is not told: {text[-2000:]}")


CASES = (virt_clone_clones, a_program_in_go_lists_and_starts, an_exporter_tells_prometheus)

if __name__ == "__main__":
    try:
        sys.exit(tap.run_cases(CASES))
    except CallError as e:
        sys.exit(str(e))
