# SPDX-License-Identifier: Apache-2.0
"""Runs a guest under vmd-emu or QEMU from one configuration, and talks to its console.

The configuration is the VmConfig of api-schema, as vmd-emu takes it; QEMU's command line is
derived from it, so that both start the same machine. Tests choose the emulator by name:

    EMULATOR=vmd    $VMD_BUILDDIR/vmd-emu (or $VMD_EMU)
    EMULATOR=qemu   qemu-system-riscv64 of the machine, the reference
    EMULATOR=qemu10 QEMU 10 as `tests/guests/fetch qemu10` unpacked it

Processes are ended by the id that started them, and never outlive their `with` block.
"""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
OPENSBI = "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin"
UBOOT = "/usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin"
BACKLOG_MAX = 64 << 20


class GuestError(Exception):
    """The guest or its emulator did not do what was expected; holds the end of its output."""


class Unavailable(Exception):
    """Something that the machine lacks; its text completes `skipped: `."""


def builddir():
    return os.environ.get("VMD_BUILDDIR") or os.getcwd()


def fetched(*targets):
    """The files of guests as {key: path}, fetched now unless they are there."""
    run = subprocess.run([sys.executable, "-B", os.path.join(HERE, "fetch"), *targets],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if run.returncode != 0:
        lines = run.stderr.strip().splitlines() or ["no message"]
        raise Unavailable(f"guest {' '.join(targets)} ({lines[-1]})")
    return dict(line.split("=", 1) for line in run.stdout.splitlines())


def need(*targets):
    """Ends the test as skipped, with what is missing, unless these guests and what boots them under vmd-emu are there."""
    try:
        fetched(*targets)
        emulator_path("vmd")
        if not os.path.exists(OPENSBI):
            raise Unavailable(f"{OPENSBI} (package opensbi)")
    except Unavailable as problem:
        print(f"skipped: {problem}")
        sys.exit(77)


def emulator_path(emulator, arch="riscv64"):
    """The program of an emulator, or Unavailable."""
    if emulator == "vmd":
        path = os.environ.get("VMD_EMU") or os.path.join(builddir(), "vmd-emu")
        if not os.access(path, os.X_OK):
            raise Unavailable(f"{path} (build it, or name it in VMD_EMU)")
        return path
    if emulator == "qemu":
        path = shutil.which("qemu-system-" + arch)
        if path is None:
            raise Unavailable(f"qemu-system-{arch} (package qemu-system-misc)")
        return path
    if emulator == "qemu10":
        return fetched("qemu10")["qemu10"].replace("riscv64", arch)
    raise ValueError(f"EMULATOR={emulator}: vmd, qemu and qemu10 are known")


def emulator_version(emulator):
    out = subprocess.run([emulator_path(emulator), "--version"], stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL, text=True, check=False).stdout
    match = re.search(r"\d+\.\d+(\.\d+)?\S*", out)
    return match.group(0) if match else "unknown version"


def qemu_command(emulator, config):
    """QEMU's command line for a VmConfig."""
    command = [emulator_path(emulator, config.get("arch", "riscv64"))]
    if emulator == "qemu10":
        command += ["-L", fetched("qemu10")["qemu10_data"]]
    firmware = config.get("firmware", "default")
    if firmware == "default":
        firmware = OPENSBI if "kernel" in config else "none"
    command += ["-accel", "tcg", "-machine", "virt", "-display", "none", "-serial", "stdio",
                "-monitor", "none", "-nodefaults",
                "-global", "virtio-mmio.force-legacy=false",
                "-m", f"{config.get('memory', 512 << 20) >> 20}M",
                "-smp", str(config.get("cpus", 1)), "-bios", firmware]
    for key in ("cpu", "kernel", "initrd", "append"):
        if key in config:
            command += ["-" + key, config[key]]
    for disk in config.get("disks", []):
        readonly = ",readonly=on" if disk.get("readonly") else ""
        command += ["-drive", f"if=none,id={disk['name']},file={disk['file']},"
                    f"format={disk.get('format', 'raw')}{readonly}",
                    "-device", f"virtio-blk-device,drive={disk['name']}"]
    for nic in config.get("nics", []):
        name = nic.get("name", "nic0")
        forward = "".join(f",hostfwd={text}" for text in nic.get("forward", []))
        device = "virtio-net-pci" if nic.get("bus") == "virtio-pci" else "virtio-net-device"
        mac = f",mac={nic['mac']}" if "mac" in nic else ""
        backend = f"stream,id={name},addr.type=unix,addr.path={nic['path']}" \
            if nic.get("type") == "stream" else f"user,id={name}{forward}"
        if nic.get("type") == "tap":
            backend = f"tap,id={name},ifname={nic['ifname']},script=no,downscript=no"
        command += ["-netdev", backend, "-device", f"{device},netdev={name}{mac}"]
    if config.get("rng"):
        command += ["-device", "virtio-rng-device"]
    return command


class Guest:
    """One running machine with its console on pipes. Use it as a context manager."""

    def __init__(self, config, emulator=None, arguments=()):
        self.emulator = emulator or os.environ.get("EMULATOR", "vmd")
        self.output = bytearray()
        self.errors = b""
        self._at = 0
        self._config = None
        self._stderr = tempfile.TemporaryFile()
        if self.emulator == "vmd":
            self._config = tempfile.NamedTemporaryFile("w", suffix=".json", delete=False)
            json.dump({"name": "test", **config}, self._config)
            self._config.close()
            command = [emulator_path("vmd"), "--config", self._config.name,
                       "--console", "stdio", *arguments]
        else:
            command = qemu_command(self.emulator, config) + list(arguments)
        self.started = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self._stderr, bufsize=0)
        os.set_blocking(self.process.stdout.fileno(), False)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.close()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._collect_errors()
        for stream in (self.process.stdin, self.process.stdout, self._stderr):
            try:
                stream.close()
            except OSError:
                pass
        if self._config is not None and os.path.exists(self._config.name):
            os.unlink(self._config.name)

    def _collect_errors(self):
        if not self._stderr.closed:
            self._stderr.seek(0)
            self.errors = self._stderr.read(1 << 20)

    def text(self):
        return self.output.decode("utf-8", "replace")

    def _fail(self, what):
        self._collect_errors()
        tail = self.text()[-1500:]
        errors = self.errors.decode("utf-8", "replace")[-1500:]
        raise GuestError(f"{what}\n--- console ends with\n{tail}\n--- stderr ends with\n{errors}")

    def _read(self, deadline):
        """Takes what the console has, waiting up to the deadline. False at its end."""
        left = max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select([self.process.stdout], [], [], left)
        if not ready:
            return True
        data = self.process.stdout.read(1 << 16)
        if data == b"":
            return False
        self.output += data or b""
        if len(self.output) > BACKLOG_MAX:
            self._fail(f"the console gave more than {BACKLOG_MAX >> 20} MiB")
        return True

    def expect(self, pattern, timeout=120.0):
        """Waits for a regular expression (text) on the console; returns its match.

        What a match consumed is not matched again.
        """
        regex = re.compile(pattern.encode(), re.MULTILINE)
        deadline = time.monotonic() + timeout
        while True:
            match = regex.search(self.output, self._at)
            if match:
                self._at = match.end()
                return match
            if time.monotonic() >= deadline:
                self._fail(f"no {pattern!r} within {timeout:.0f} s")
            if not self._read(deadline):
                if regex.search(self.output, self._at) is None:
                    self._fail(f"the console ended before {pattern!r}")

    def send(self, data):
        self.process.stdin.write(data if isinstance(data, bytes) else data.encode())

    def wait(self, timeout=60.0):
        """Waits for the process to end by itself; returns its exit status."""
        deadline = time.monotonic() + timeout
        while self._read(deadline):
            if time.monotonic() >= deadline:
                self._fail(f"still running after {timeout:.0f} s")
        try:
            status = self.process.wait(max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._fail(f"its console closed, yet it runs on after {timeout:.0f} s")
        self._collect_errors()
        if status < 0:
            self._fail(f"killed by {signal.Signals(-status).name}")
        return status

    def cpu_seconds(self):
        """User and system time of all its threads so far."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
