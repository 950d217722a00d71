# SPDX-License-Identifier: Apache-2.0
"""Sixteen VMs of two daemons that are started at once on the same images, backing files included: an image that a running VM writes
is no other VM's. VMD_RACE_ROUNDS rounds; the opening itself is raced in tests/block/lock_race_test.c."""

import os
import shutil
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

TIMEOUT = 240.0
ROUNDS = int(os.environ.get("VMD_RACE_ROUNDS", "2"))
# What a VM with this image as its disk writes, and what it reads.
IMAGES = {"base": (), "left": ("base",), "right": ("base",), "alone": ()}


class Held:
    """Who holds what, from when a start was answered until before the stop is asked for."""

    def __init__(self):
        self.lock = threading.Lock()
        self.writers = {name: set() for name in IMAGES}
        self.readers = {name: set() for name in IMAGES}
        self.problems = []
        self.ran = {name: 0 for name in IMAGES}
        self.refused = 0

    def take(self, vm, image):
        with self.lock:
            self.ran[image] += 1
            self.writers[image].add(vm)
            for below in IMAGES[image]:
                self.readers[below].add(vm)
            for name in IMAGES:
                if len(self.writers[name]) > 1 or self.writers[name] and self.readers[name]:
                    self.problems.append(f"{name}: written by {self.writers[name]}, read by {self.readers[name]}")

    def leave(self, vm, image):
        with self.lock:
            self.writers[image].discard(vm)
            for below in IMAGES[image]:
                self.readers[below].discard(vm)


def make_images(where):
    for name, below in IMAGES.items():
        path = os.path.join(where, name)
        more = ["-b", os.path.join(where, below[0]), "-F", "qcow2"] if below else []
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *more, path, *([] if below else ["1M"])], check=True,
                       stdout=subprocess.DEVNULL, timeout=120)


def contend(daemon, vm, image, held, barrier):
    try:
        with daemon.client(TIMEOUT) as client:
            for _ in range(ROUNDS):
                barrier.wait(TIMEOUT)
                try:
                    client.call("vm.start", vm=vm)
                except lib.CallError as error:
                    with held.lock:
                        held.refused += 1
                        if "locked by" not in str(error) and "in use by VM" not in str(error):
                            held.problems.append(f"{vm}: {error}")
                    continue
                held.take(vm, image)
                held.leave(vm, image)
                client.call("vm.stop", vm=vm, force=True)
    except Exception as problem:  # pylint: disable=broad-except
        barrier.abort()
        with held.lock:
            held.problems.append(f"{vm}: {problem!r}")


def an_image_that_a_vm_writes_is_no_other_vms():
    with tempfile.TemporaryDirectory(prefix="vmd-race-") as where, lib.Daemon() as one, lib.Daemon() as two:
        os.chmod(where, 0o755)
        make_images(where)
        held, barrier, threads = Held(), threading.Barrier(16), []
        for number in range(16):
            daemon, image = (one, two)[number % 2], list(IMAGES)[number // 2 % 4]
            vm = f"vm{number}"
            daemon.call("vm.define", config=daemon.config(vm, disks=[{"file": os.path.join(where, image), "format": "qcow2"}]))
            threads.append(threading.Thread(target=contend, args=(daemon, vm, image, held, barrier)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(f"# ran: {held.ran}; refused: {held.refused}")
        tap.check(not held.problems, "\n".join(held.problems[:20]))
        tap.check(held.refused and sum(held.ran.values()), f"ran {held.ran}, refused {held.refused}")
        # An emulator that ends gives its locks up a moment after vmd has answered.
        for name in IMAGES:
            command = ["qemu-img", "check", "-q", os.path.join(where, name)]
            lib.wait_for(lambda command=command: subprocess.run(command, check=False, timeout=120,
                                                                stderr=subprocess.DEVNULL).returncode == 0,
                         what=f"nobody holds {name}, and it is whole")


if __name__ == "__main__":
    if not shutil.which("qemu-img"):
        print("skipped: qemu-img was not found (Debian: qemu-utils)")
        sys.exit(77)
    sys.exit(tap.run_cases([an_image_that_a_vm_writes_is_no_other_vms]))
