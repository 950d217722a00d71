# SPDX-License-Identifier: Apache-2.0
"""Disks that fail: what the guest sees of it by each policy, that nothing is lost where the VM is paused, and each kind of
fault on purpose. Images are judged by qemu-img.

daemon_faults.py [CASE...]; VMD_FAULT_WRITES=2000: so many writes of the workload fail, each once (200 otherwise), by turns
with ENOSPC and EIO; VMD_FAULT_FIRST=1: EIO is the first.
"""

import os
import re
import shutil
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

TIMEOUT = 100.0  # of each single wait
WRITES = int(os.environ.get("VMD_FAULT_WRITES", "200"))
FIRST = int(os.environ.get("VMD_FAULT_FIRST", "0"))


def qemu_img(*words):
    return subprocess.run(["qemu-img", *words], check=True, capture_output=True, text=True, timeout=120).stdout


class Machine:
    """A daemon with one Linux guest at a shell prompt."""

    def __init__(self, make):
        self.daemon = lib.Daemon()
        self.make = make
        self.data = b""

    def __enter__(self):
        self.daemon.start()
        try:
            self.client = self.daemon.client(TIMEOUT)
            files = guest.fetched("riscv64-disk")
            self.client.call("vm.define", config=self.daemon.config(
                "a", memory=256 << 20, kernel=files["kernel"], initrd=files["initrd"], firmware="default",
                append="console=ttyS0 vmd.virtio vmd.run=shell", tcg={"cache_size": 64 * lib.MIB},
                disks=self.make(self.daemon.dir)))
            self.client.call("event.subscribe", types=["vm-io-error"])
            self.client.call("vm.start", vm="a")
            self.console = self.daemon.console("a")
            self.expect(rb"guest# ")
        except BaseException:
            self.daemon.end()
            raise
        return self

    def __exit__(self, *_):
        self.client.close()
        self.daemon.end()

    def reconnect(self):
        self.client.close()
        self.client = self.daemon.client(TIMEOUT)
        self.client.call("event.subscribe", types=["vm-io-error"])

    def path(self, name):
        return os.path.join(self.daemon.dir, name)

    def expect(self, pattern):
        end = time.monotonic() + TIMEOUT
        while True:
            found = re.search(pattern, self.data, re.M)
            if found:
                self.data = self.data[found.end():]
                return found
            tap.check(time.monotonic() < end, f"no {pattern} in {self.data[-600:]!r}")
            if self.console.ready(1):
                self.data += self.console.read_some()

    def type(self, command):
        """Begins a command; its exit status is what `status` then gives. The echo of the line does not look like it."""
        self.data = b""
        self.console.sock.sendall(command.encode() + b"; echo do''ne=$?\n")

    def status(self):
        return int(self.expect(rb"^done=(\d+)").group(1))

    def run(self, command):
        self.type(command)
        return self.status()

    def vm(self):
        return self.client.call("vm.get", vm="a")

    def fault(self, disk="vda", **more):
        return self.client.call("fault.add", vm="a", disk=disk, **more)["id"]

    def paused(self):
        end = time.monotonic() + TIMEOUT
        while (vm := self.vm())["state"] != "paused":
            tap.check(time.monotonic() < end, f"not paused: {vm}; {self.faults()}; {self.client.events}; "
                      f"{self.data[-600:]!r}")
            time.sleep(0.005)
        tap.check(vm["reason"] == "io-error", f"{vm}")

    def event(self):
        """The next event of a disk's error."""
        lib.wait_for(lambda: self.vm() and self.client.events, TIMEOUT, "an error of a disk is told")
        return self.client.events.pop(0)

    def faults(self):
        return self.client.call("fault.list", vm="a")["faults"]

    def clean(self):
        self.client.call("fault.remove", vm="a")
        self.client.call("vm.get", vm="a")
        self.client.events.clear()


def three_disks(folder):
    def at(name):
        return os.path.join(folder, name)
    with open(at("base.raw"), "wb") as file:
        file.truncate(32 << 20)
    qemu_img("create", "-q", "-f", "qcow2", "-b", at("base.raw"), "-F", "raw", "-o", "cluster_size=4k", at("a.qcow2"))
    for name in ("b.raw", "c.raw"):
        with open(at(name), "wb") as file:
            file.truncate(4 << 20)
    return [{"name": "vda", "file": at("a.qcow2"), "format": "qcow2", "werror": "stop", "rerror": "stop"},
            {"name": "vdb", "file": at("b.raw")},
            {"name": "vdc", "file": at("c.raw"), "werror": "ignore", "rerror": "ignore"}]


def each_write_fails_once_and_the_guest_sees_no_error(m):
    """Below qcow2, so that its tables fail as well; by turns with ENOSPC and EIO."""
    tap.check(m.run("(i=0; while [ ! -f /tmp/stop ]; do dd if=/dev/urandom of=/dev/vda bs=5120 count=12 "
                    "seek=$((i++ % 40 * 97)) conv=fsync 2>/dev/null || break; done; [ -f /tmp/stop ]; "
                    "echo $? >/tmp/result) & true") == 0, "begun")
    for n in range(WRITES):
        m.fault(op="write", error=("ENOSPC", "EIO")[(n + FIRST) % 2], count=1)
        m.paused()
        event = m.event()
        tap.check((event["reason"], event["detail"]["disk"], event["detail"]["nospace"]) ==
                  ("stop", "vda", (n + FIRST) % 2 == 0), f"{event}")
        tap.check(m.faults()[-1]["hits"] == 1, "not hit")
        m.clean()
        m.client.call("vm.resume", vm="a")
    tap.check(m.run("touch /tmp/stop; wait; [ $(cat /tmp/result) = 0 ]") == 0, "the guest saw an error")
    tap.check(m.run("! dmesg | grep -i 'error.*vda'") == 0, f"the guest saw an error: {m.data[-600:]!r}")
    tap.check(m.run("echo 3 >/proc/sys/vm/drop_caches; sync; sha256sum /dev/vda >/tmp/sum; cat /tmp/sum") == 0, "sum")


def what_is_kept_survives_the_daemon(m):
    m.fault(op="write", error="EIO", count=3)
    m.type("dd if=/dev/urandom of=/dev/vda bs=64k count=8 oflag=direct 2>/dev/null")
    m.paused()
    m.daemon.kill()
    m.daemon.start()
    m.reconnect()
    m.paused()
    m.client.call("vm.resume", vm="a")
    for _ in range(2):
        tap.check(m.event()["reason"] == "stop", "reason")
        m.paused()
        m.client.call("vm.resume", vm="a")
    tap.check(m.status() == 0, "the guest saw an error")
    m.clean()


def reads_are_kept_too(m):
    tap.check(m.run("echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda bs=4k count=64 iflag=direct 2>/dev/null "
                    "| sha256sum >/tmp/a") == 0, "before")
    m.fault(op="read", error="EIO", count=1, layer="format")
    m.type("dd if=/dev/vda bs=4k count=64 iflag=direct 2>/dev/null | sha256sum >/tmp/b; cmp /tmp/a /tmp/b")
    m.paused()
    tap.check(m.event()["detail"]["operation"] == "read", "operation")
    m.clean()
    m.client.call("vm.resume", vm="a")
    tap.check(m.status() == 0, "read something else")


def policies_report_and_ignore(m):
    m.fault("vdb", op="write", error="EIO", count=1)
    tap.check(m.run("dd if=/dev/zero of=/dev/vdb bs=4k count=1 oflag=direct 2>/dev/null") != 0, "not reported")
    event = m.event()
    tap.check((event["reason"], event["detail"]["error"]) == ("report", os.strerror(5)), f"{event}")
    m.clean()
    # Without a word in the definition no space pauses the VM.
    m.fault("vdb", op="write", error="ENOSPC", count=1)
    m.type("dd if=/dev/zero of=/dev/vdb bs=4k count=1 oflag=direct 2>/dev/null")
    m.paused()
    m.client.call("vm.resume", vm="a")
    tap.check(m.status() == 0, "reported")
    m.clean()
    m.fault("vdc", op="write", error="ENOSPC")
    tap.check(m.run("dd if=/dev/urandom of=/dev/vdc bs=4k count=1 oflag=direct 2>/dev/null") == 0, "not ignored")
    tap.check(m.event()["reason"] == "ignore", "reason")
    m.clean()
    with open(m.path("c.raw"), "rb") as file:
        tap.check(file.read(4096) == bytes(4096), "it was written")


def tear_shorten_and_delay_do_what_they_say(m):
    fill = "dd if=/dev/zero bs=4k count=1 2>/dev/null | tr '\\0' {} >/tmp/f; dd if=/tmp/f of=/dev/vdb bs=4k seek={} " \
        "oflag=direct 2>/dev/null"
    tap.check(m.run(fill.format("A", 8)) == 0, "fill")
    m.fault("vdb", op="write", action="tear", bytes=1024, count=1)
    tap.check(m.run(fill.format("B", 8)) != 0, "a torn write ended well")
    m.clean()
    m.fault("vdb", op="write", action="shorten", count=1)
    tap.check(m.run(fill.format("C", 9)) == 0, "a short write was told")
    m.clean()
    with open(m.path("b.raw"), "rb") as file:
        file.seek(8 << 12)
        data = file.read(8192)
    tap.check(data == b"B" * 1024 + b"A" * 3072 + b"C" * 2048 + bytes(2048), "other bytes")
    m.fault("vdb", op="read", action="shorten", bytes=512, count=1, offset=8 << 12, length=4096)
    tap.check(m.run("dd if=/dev/vdb bs=4k skip=8 count=1 iflag=direct 2>/dev/null | tr -d 'AB\\n' | wc -c | "
                    "grep -q ^3584") == 0, "a short read")
    m.clean()
    slow = m.fault("vdb", op="read", action="delay", delay_ms=300, count=1)
    tap.check(m.run("dd if=/dev/vdb of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null") == 0, "delayed")
    found = {f["id"]: f for f in m.faults()}
    tap.check(found[slow]["hits"] == 1, f"{found}")
    m.client.call("fault.remove", vm="a", id=slow)
    m.client.fails("not-found", "fault.remove", vm="a", id=slow)
    m.client.fails("not-found", "fault.add", vm="a", disk="none")
    m.client.fails("invalid-params", "fault.add", vm="a", disk="vda", action="delay", delay_ms=10001)
    m.clean()


def qmp_tells_of_it_as_libvirt_expects(m):
    with m.daemon.qmp() as qmp:
        m.fault(op="write", error="ENOSPC", count=1)
        m.type("dd if=/dev/urandom of=/dev/vda bs=4k count=1 oflag=direct 2>/dev/null")
        told = qmp.event("BLOCK_IO_ERROR")["data"]
        tap.check((told["device"], told["operation"], told["action"], told["nospace"]) ==
                  ("vda", "write", "stop", True), f"{told}")
        qmp.event("STOP")
        tap.check(qmp.execute("query-status")["status"] == "io-error", "status")
        qmp.execute("cont")
        qmp.event("RESUME")
    tap.check(m.status() == 0, "the guest saw an error")
    m.clean()


def reset_drops_what_is_kept(m):
    m.fault(op="write", error="EIO", count=1)
    m.type("dd if=/dev/urandom of=/dev/vda bs=4k count=1 oflag=direct 2>/dev/null")
    m.paused()
    m.clean()
    m.client.call("vm.reset", vm="a")
    if m.vm()["state"] == "paused":
        m.client.call("vm.resume", vm="a")
    m.data = b""
    m.expect(rb"BOOT-OK")
    m.expect(rb"guest# ")
    tap.check(m.run("dd if=/dev/urandom of=/dev/vda bs=4k count=4 oflag=direct 2>/dev/null; "
                    "sync; sha256sum /dev/vda >/tmp/sum; cat /tmp/sum") == 0, "after a reset")


def image_is_sound_and_holds_what_the_guest_wrote(m):
    tap.check(m.run("sync; echo 3 >/proc/sys/vm/drop_caches; sha256sum /dev/vda") == 0, "sum")
    m.type("sha256sum /dev/vda")
    seen = m.expect(rb"^([0-9a-f]{64})  /dev/vda").group(1)
    m.client.call("vm.stop", vm="a")
    qemu_img("check", "-q", m.path("a.qcow2"))
    qemu_img("convert", "-O", "raw", m.path("a.qcow2"), m.path("flat"))
    found = subprocess.run(["sha256sum", m.path("flat")], check=True, capture_output=True, timeout=60).stdout[:64]
    tap.check(found == seen, "qemu-img reads something else than the guest wrote")


def a_full_filesystem_pauses_the_vm_until_there_is_room():
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "vmd-test", folder], capture_output=True,
                              timeout=30, check=False)
        if done.returncode:
            raise tap.Skip("a small filesystem: " + done.stderr.decode().strip())
        try:
            path = os.path.join(folder, "a.qcow2")
            qemu_img("create", "-q", "-f", "qcow2", path, "16M")
            with Machine(lambda _: [{"name": "vda", "file": path, "format": "qcow2"}]) as m:
                m.type("dd if=/dev/urandom of=/dev/vda bs=64k count=128 conv=fsync 2>/dev/null")
                m.paused()
                tap.check(m.event()["detail"]["nospace"], "for another reason")
                subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True, timeout=30)
                m.client.call("vm.resume", vm="a")
                tap.check(m.status() == 0, "the guest saw an error")
                m.client.call("vm.stop", vm="a")
            qemu_img("check", "-q", path)
        finally:
            subprocess.run(["umount", "-l", folder], check=False, timeout=30)


CASES = (each_write_fails_once_and_the_guest_sees_no_error, what_is_kept_survives_the_daemon, reads_are_kept_too,
         policies_report_and_ignore, tear_shorten_and_delay_do_what_they_say, qmp_tells_of_it_as_libvirt_expects,
         reset_drops_what_is_kept, image_is_sound_and_holds_what_the_guest_wrote)


def main():
    try:
        guest.fetched("riscv64-disk")
        guest.emulator_path("vmd")
        if not shutil.which("qemu-img"):
            raise guest.Unavailable("qemu-img (package qemu-utils)")
        if not os.path.exists(guest.OPENSBI):
            raise guest.Unavailable(f"{guest.OPENSBI} (package opensbi)")
    except guest.Unavailable as problem:
        print(f"skipped: {problem}")
        sys.exit(77)
    with Machine(three_disks) as machine:
        def bound(case):
            def run():
                case(machine)
            run.__name__ = case.__name__
            return run
        sys.exit(tap.run_cases([bound(case) for case in CASES] +
                               [a_full_filesystem_pauses_the_vm_until_there_is_room]))


if __name__ == "__main__":
    main()
