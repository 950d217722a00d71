# SPDX-License-Identifier: Apache-2.0
"""The bare PVH guest (pvh.S), for the tests of machine microvm."""

import fcntl
import os
import subprocess
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in ("device", "e2e", "lib", "guests"):
    sys.path.insert(0, os.path.join(HERE, "..", folder))
import tap  # noqa: E402

BUILD = os.environ.get("VMD_BUILDDIR") or os.getcwd()
KVM_GET_API_VERSION = 0xae00
DISK_TEXT = b"hello from the disk"


def missing():
    """Why no guest can run by KVM here; None: it can."""
    if os.uname().machine != "x86_64":
        return "these guests are x86-64's, and this host is not"
    try:
        with open("/dev/kvm", "r+b", buffering=0) as file:
            version = fcntl.ioctl(file, KVM_GET_API_VERSION)
    except OSError as problem:
        return f"/dev/kvm: {problem.strerror}"
    return None if version == 12 else f"/dev/kvm has interface {version}"


def build_guest(folder):
    """Compiles pvh.S; its path."""
    path = os.path.join(folder, "pvh")
    command = [*(os.environ.get("VMD_CC") or "cc").split(), "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none",
               "-Wl,-z,noseparate-code", "-Wl,-Ttext=0x200000", "-o", path, os.path.join(HERE, "pvh.S")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    tap.check(done.returncode == 0, f"{command}: {done.stderr}")
    return path


def symbols(path):
    done = subprocess.run(["nm", path], capture_output=True, text=True, timeout=60, check=True)
    return {line.split()[2]: int(line.split()[0], 16) for line in done.stdout.splitlines()}


def make_disk(folder, name="disk.raw"):
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.write(DISK_TEXT + b"\n")
        file.truncate(1 << 20)
    return path


def config(kernel, append, **more):
    return {"name": "pc", "arch": "x86_64", "machine": "microvm", "engine": "kvm", "memory": 64 << 20, "kernel": kernel,
            "append": append, **more}
