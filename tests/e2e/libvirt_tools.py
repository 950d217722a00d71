#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tools made for libvirt, as their packages have them, drive vmd: virt-clone (virtinst), a program with the Go client
(golang-github-digitalocean-go-libvirt-dev)."""

import os
import pathlib
import shutil
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(TOP / "tests/lib"), str(TOP / "tests/e2e")]

import tap  # noqa: E402
from daemon_lib import CallError  # noqa: E402
from libvirt_virsh import Host  # noqa: E402

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


CASES = (virt_clone_clones, a_program_in_go_lists_and_starts)

if __name__ == "__main__":
    try:
        sys.exit(tap.run_cases(CASES))
    except CallError as e:
        sys.exit(str(e))
