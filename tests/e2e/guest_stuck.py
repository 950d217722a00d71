# SPDX-License-Identifier: Apache-2.0
"""A VM whose disk lies on a filesystem that has stopped: it hangs nobody else, and a forced stop ends it.

    guest_stuck.py [--count N]     VMs, one after the other's end (2)
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import guest  # noqa: E402
import tap  # noqa: E402

TIMEOUT = 240.0


class Filesystem:
    """fuse_disk.py on a folder of its own."""

    def __init__(self, size=1 << 20, *more):
        self.dir = tempfile.mkdtemp(prefix="vmd-fuse-", dir="/tmp")
        os.chmod(self.dir, 0o755)
        self.disk = os.path.join(self.dir, "disk")
        self.process = subprocess.Popen([sys.executable, "-B", os.path.join(HERE, "fuse_disk.py"), self.dir,
                                         str(size), *more], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline().strip()
        if line != "ready":
            self.end()
            raise tap.Skip(f"a filesystem in user space ({line or 'no /dev/fuse'})")

    def stop(self):
        self.process.send_signal(signal.SIGSTOP)

    def end(self):
        self.process.kill()  # what waits for it gets an error now
        self.process.wait()
        self.process.stdout.close()
        subprocess.run(["umount", "-l", self.dir], stderr=subprocess.DEVNULL, check=False)
        os.rmdir(self.dir)


def zombies(*parents):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] == "Z" and int(fields[1]) in parents:
            found.append(int(pid))
    return found



def wait_stuck(daemon, client, name):
    """Until the guest's reads stand still."""
    last = [None, 0.0]

    def still():
        listed = [vm for vm in client.call("vm.list", stats=True)["vms"] if vm["name"] == name][0]
        reads = sum(disk["reads"] for disk in listed["stats"]["disks"])
        if reads != last[0]:
            last[:] = [reads, time.monotonic()]
        return time.monotonic() - last[1] > 0.5
    lib.wait_for(still, TIMEOUT, "the guest's reads stand still")


def forced_stops(count):
    """Milliseconds that each took."""
    files = guest.fetched("riscv64-disk")
    took = []
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        client.call("vm.define", config=daemon.config("other"))
        client.call("vm.start", vm="other")
        for number in range(count):
            system = Filesystem()
            try:
                client.call("vm.define", config=daemon.config(
                    "a", memory=256 * lib.MIB, firmware="default", kernel=files["kernel"],
                    initrd=files["initrd"], append="console=ttyS0 vmd.virtio vmd.run=diskloop",
                    tcg={"cache_size": 64 * lib.MIB}, disks=[{"name": "disk0", "file": system.disk}]))
                pid = client.call("vm.start", vm="a")["pid"]
                log = client.call("vm.console", vm="a")["log"]
                lib.wait_for(lambda log=log: b"DISKLOOP" in open(log, "rb").read(), TIMEOUT, "the guest reads")
                system.stop()
                wait_stuck(daemon, client, "a")
                other = client.call("vm.pause", vm="other")["state"], client.call("vm.resume", vm="other")["state"]
                tap.check(other == ("paused", "running"), f"the other VM is {other}")
                begin = time.monotonic()
                out = client.call("vm.stop", vm="a", force=True)
                took.append((time.monotonic() - begin) * 1000)
                tap.check(out["state"] == "stopped" and out["exit"]["reason"] == "killed", f"{out}")
                waited = os.path.exists(f"/proc/{pid}")
                if waited:  # in the kernel, for the disk: said so, and its lock stays taken
                    tap.check("waits for a disk" in out["exit"]["message"], f"{out['exit']}")
            finally:
                system.end()
            lib.wait_for(lambda: not os.path.exists(f"/proc/{pid}"), what=f"process {pid} is gone")
            lib.wait_for(lambda: not zombies(daemon.process.pid, daemon.helper() or 0), what="no zombie")
            lib.wait_for(lambda: len(os.listdir(os.path.join(daemon.dir, "run", "vm"))) == 1, what="one run folder")
            client.call("vm.delete", vm="a")
            print(f"# {'after' if waited else 'before'} its request was taken: {took[-1]:.1f} ms")
        tap.check(client.call("vm.get", vm="other")["state"] == "running", "the other VM ended")
    return took


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1)
    args = parser.parse_args()
    sys.argv[1:] = []
    try:
        guest.fetched("riscv64-disk")
        guest.emulator_path("vmd")
        if not os.path.exists(guest.OPENSBI):
            raise guest.Unavailable(f"{guest.OPENSBI} (package opensbi)")
        if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
            raise guest.Unavailable("root and /dev/fuse")
    except guest.Unavailable as problem:
        print(f"skipped: {problem}")
        return 77

    def forced_stop_ends_a_vm_whose_disk_has_stopped():
        took = forced_stops(args.count)
        print(f"# forced stops took {' '.join(f'{ms:.1f}' for ms in sorted(took))} ms")
    return tap.run_cases([forced_stop_ends_a_vm_whose_disk_has_stopped])


if __name__ == "__main__":
    sys.exit(main())
