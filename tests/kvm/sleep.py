#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A guest of machine q35 sleeps in RAM (ACPI's S3) and SeaBIOS brings it back: by the clock's alarm, the power button, a client; and what a reset makes of it."""

import os
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import kvm_lib as lib  # noqa: E402
import emu_control as ec  # noqa: E402
import microvm  # noqa: E402
import q35  # noqa: E402
import tap  # noqa: E402

FOLDER = microvm.FOLDER


def disk():
    path = os.path.join(FOLDER.name, "sleeper.raw")
    command = [*(os.environ.get("VMD_CC") or "cc").split(), "-m32", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none",
               "-Wl,-Ttext=0x7c00", "-Wl,--oformat=binary", "-o", path, os.path.join(lib.HERE, "sleeper.S")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    tap.check(done.returncode == 0, f"{command}: {done.stderr}")
    os.truncate(path, 1 << 20)
    return path


class Sleeper:
    """With a client of its control socket and of its console, where its boot sector waits to be told how to sleep."""

    def __init__(self, cpus=1):
        q35.needs_seabios()
        path = disk()
        kvm = os.open("/dev/kvm", os.O_RDWR)
        try:
            self.emu = ec.Emu(config={**q35.config(cpus=cpus), "firmware": "default", "disks": [{"name": "disk", "file": path, "format": "raw", "bus": "virtio-pci"}]},
                              files={q35.SEABIOS: os.O_RDONLY, path: os.O_RDWR}, extra=("--kvm-fd", str(kvm)), descriptors=(kvm,))
        finally:
            os.close(kvm)

    def __enter__(self):
        self.emu.__enter__()
        self.client = ec.Client(self.emu)
        self.console = self.emu.connect(self.emu.console)
        ec.read_until(self.console, b"sleeper\n")
        return self

    def __exit__(self, *exc):
        return self.emu.__exit__(*exc)

    def event(self, *wanted):
        event = self.client.event()
        tap.check((event["type"], event["state"], event["reason"]) in wanted, f"{event}, not {wanted}")

    def sleep(self, key=b"n"):
        self.console.sendall(key)
        self.event(("state", "running", "suspended"))

    def says(self, text):
        """What it says of its wake, and that it ends."""
        self.event(("state", "running", "wakeup"))
        seen = ec.read_until(self.console, b" same\n")
        tap.check(seen.endswith(b"woken: wake" + text + b" same\n"), f"{seen[-200:]}")
        self.event(("state", "stopped", "guest-poweroff"))
        ec.check_end(self.emu)


def alarm_wakes_it():
    with Sleeper() as s:
        s.sleep(b"a")
        s.says(b" clock")


def power_button_wakes_it():
    with Sleeper(cpus=2) as s:
        tap.check("error" in s.client.call("emu.powerdown"), "nobody listens before it sleeps")
        s.sleep()
        s.client.ok("emu.powerdown")
        s.says(b" button")


def client_wakes_it():
    with Sleeper() as s:
        tap.check("does not sleep" in s.client.call("emu.wake")["error"]["message"], "woken while it is awake")
        s.sleep()
        s.client.ok("emu.pause")
        s.event(("state", "paused", "pause"))
        s.client.ok("emu.resume")
        s.event(("state", "running", "suspended"))
        tap.check(s.client.ok("emu.status")["reason"] == "suspended", "it sleeps on")
        s.client.ok("emu.wake")
        s.says(b"")


def reset_begins_anew():
    with Sleeper() as s:
        s.sleep()
        s.client.ok("emu.reset")
        s.event(("state", "running", "wakeup"))
        s.event(("reset", "running", "reset"))
        ec.read_until(s.console, b"sleeper\n")
        s.sleep()
        s.client.ok("emu.quit")
        ec.check_end(s.emu)


if __name__ == "__main__":
    sys.exit(tap.run_cases([alarm_wakes_it, power_button_wakes_it, client_wakes_it, reset_begins_anew]))
