#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Clients of QMP that nobody here wrote drive a VM: go-qemu (Debian's golang-github-digitalocean-go-qemu-dev with
golang-go) and ganeti's monitor (its package's library, found in VMD_GANETI or where the package puts it). Ganeti's
is large and probed for; go-qemu is among the packages of the check."""

import glob
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(TOP / "tests/lib"), str(TOP / "tests/e2e")]

import tap  # noqa: E402
from qmp_commands import Vm  # noqa: E402

GO_PATH = "/usr/share/gocode"
GANETI = """
import sys
import time
from ganeti.hypervisor.hv_kvm import monitor
def again():  # its methods that are decorated connect by themselves
    return monitor.QmpConnection(sys.argv[1])
with again() as q:
    print("version", q.version[:2], q.package.split()[0])
    print("status", q.Execute("query-status")["status"])
    again().StopGuestEmulation()
    print("status", q.Execute("query-status")["status"])
    again().ContinueGuestEmulation()
    print("disk", q.Execute("query-block")[0]["inserted"]["image"]["virtual-size"])
    print("cpus", len(q.Execute("query-cpus-fast")))
    print("has", q.HasCommand("system_powerdown") if hasattr(q, "HasCommand") else "system_powerdown" in q.supported_commands)
    for command in ("system_powerdown", "migrate-incoming"):
        try:
            q.Execute(command)
            print(command, "done")
        except Exception as error:
            print(command, type(error).__name__)
    again().CheckNicHotAddSupport()
    q.Execute("blockdev-add", {"driver": "raw", "node-name": "n", "file": {"driver": "file", "filename": sys.argv[2]}})
    q.Execute("netdev_add", {"type": "user", "id": "nic-1"})
    for arguments in ({"driver": "virtio-blk-pci", "id": "disk-1", "drive": "n", "bus": "pci.0", "addr": "0x5"},
                      {"driver": "virtio-net-pci", "id": "nic-1", "netdev": "nic-1", "mac": "aa:00:00:6b:2f:01"}):
        q.Execute("device_add", arguments)
    print("has disk", again().HasDevice("disk-1"))
    again().HotDelDisk("disk-1")
    again().HotDelNic("nic-1")
    for _ in range(600):
        if not again().HasDevice("disk-1"):
            break
        time.sleep(0.1)
    print("has disk", again().HasDevice("disk-1"))
    q.Execute("system_reset")
    q.Execute("quit")
"""


def lines_of(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def more(v):
    """Another image, for a disk that comes."""
    path = os.path.join(v.d.dir, "more.img")
    with open(path, "wb") as file:
        file.truncate(1 << 20)
    return path


def go_qemu_drives_a_vm():
    if not shutil.which("go") or not os.path.isdir(GO_PATH + "/src/github.com/digitalocean/go-qemu"):
        raise tap.Skip("go and golang-github-digitalocean-go-qemu-dev")
    with tempfile.TemporaryDirectory() as where, Vm(root_ports=1) as v:
        environment = {**os.environ, "GOPATH": GO_PATH, "GO111MODULE": "off", "GOCACHE": os.path.expanduser("~/.cache/vmd/go"),
                       "GOFLAGS": ""}
        program = os.path.join(where, "drive")
        built = subprocess.run(["go", "build", "-o", program, str(TOP / "tests/e2e/qmp_go/main.go")], env=environment,
                               capture_output=True, text=True, check=False)
        assert built.returncode == 0, built.stderr
        got = lines_of(subprocess.run([program, v.path(), more(v)], capture_output=True, text=True, timeout=120, check=False))
        want = ["version 7.2.0", "status StatusRunning", "event STOP true", "status StatusPaused", "event RESUME true",
                "event RESET true", "disk disk0 1048576", "statistics 1", "commands true"]
        assert got[:len(want)] == want, got
        assert got[-6:] == ["jobs 0", "disks 2", "event DEVICE_DELETED true", "disks 1", "powerdown refused true",
                            "event SHUTDOWN true"], got


def ganeti_library():
    given = os.environ.get("VMD_GANETI")
    found = [given] if given else sorted(glob.glob("/usr/share/ganeti/*/"))
    return next((f for f in found if os.path.isdir(os.path.join(f, "ganeti/hypervisor"))), None)


def ganeti_monitor_drives_a_vm():
    library = ganeti_library()
    python = "/usr/bin/python3"
    probe = [python, "-c", "import ganeti.hypervisor.hv_kvm.monitor"]
    environment = {**os.environ, "PYTHONPATH": library or "", "PYTHONDONTWRITEBYTECODE": "1"}
    if not library or subprocess.run(probe, env=environment, capture_output=True, check=False).returncode:
        raise tap.Skip("ganeti's library")
    with Vm(root_ports=2) as v:
        got = lines_of(subprocess.run([python, "-c", GANETI, v.path(), more(v)], env=environment, capture_output=True, text=True,
                                      timeout=120, check=False))
        assert got[:6] == ["version (7, 2) vmd", "status running", "status paused", "disk 1048576", "cpus 2",
                           "has True"], got
        assert got[6].startswith("system_powerdown ") and got[7] == "migrate-incoming QmpCommandNotSupported", got
        assert got[8:] == ["has disk True", "has disk False"], got


if __name__ == "__main__":
    sys.exit(tap.run_cases([go_qemu_drives_a_vm, ganeti_monitor_drives_a_vm]))
