# SPDX-License-Identifier: Apache-2.0
"""Memory that comes and goes while a guest runs (virtio-mem): Linux's own driver in Debian's kernel, through vmctl, JSON-RPC and QMP,
across a reset, saved and loaded, and moved.

Needs the guest riscv64-agent (tests/guests/fetch) and the module virtio_mem, which Debian's kernel for riscv64 leaves out
(CONFIG_VIRTIO_MEM): tests/guests/module builds it from Debian's source of that kernel; used when it is in the cache, built when
VMD_TEST_MEMORY=1.
"""

import json
import os
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import guest_agent  # noqa: E402
import migrate_lib  # noqa: E402
import newc  # noqa: E402
import tap  # noqa: E402

MIB = 1 << 20
FILL = "dd if=/dev/urandom of=/tmp/fill bs=1M count={} 2>/dev/null && sha256sum /tmp/fill >/tmp/sum"


def module():
    root = os.environ.get("VMD_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME")
                                                       or os.path.expanduser("~/.cache"), "vmd")
    with open(guest_agent.files()["kernel"], "rb"), \
            open(os.path.join(root, "guests", "riscv64", "release"), encoding="utf-8") as file:
        path = os.path.join(root, "guests", "riscv64-modules", file.read().strip(), "virtio_mem.ko")
    if not os.path.exists(path) and os.environ.get("VMD_TEST_MEMORY") == "1":
        subprocess.run([os.path.join(HERE, "../guests/module"), "virtio_mem"], check=True)
    if not os.path.exists(path):
        raise tap.Skip("Debian's kernel for riscv64 has no CONFIG_VIRTIO_MEM, and the module is not in the cache "
                       "(tests/guests/module virtio_mem)")
    return path


class Machine(guest_agent.Machine):
    """A guest with 512 MiB of its own, and 1 GiB that may come; what comes is used at once, and can go again."""

    def __init__(self, requested=0, **config):
        self.module = module()
        super().__init__(memory_devices=[{"size": 1024 * MIB, "requested": requested}], root_ports=1, **config)
        self.ready()

    def ready(self):
        self.run("dmesg -n 1; echo online_movable >/sys/devices/system/memory/auto_online_blocks; insmod /modules/virtio_mem.ko")
        self.run("mount -t tmpfs -o size=1200M tmpfs /tmp")

    def initrd(self, path):
        archive = newc.Newc()
        with open(self.module, "rb") as file:
            archive.file("modules/virtio_mem.ko", file.read())
        with open(path, "rb") as file:
            first = file.read()
        made = os.path.join(self.daemon.dir, "initrd")
        with open(made, "wb") as file:
            file.write(first + b"\0" * (-len(first) % 512) + archive.bytes())
        return made

    def device(self):
        return self.call("vm.memory_resize")["devices"][0]

    def has(self, mib):
        self.until(f"{self.device()} is not {mib} MiB", lambda: self.device()["plugged"] == mib * MIB)

    def events(self):
        return [e["detail"] for e in self.client.call("event.list")["events"] if e["type"] == "vm-memory"]

    def total(self):
        return int(self.run("grep MemTotal /proc/meminfo").split()[1]) >> 10

    def rss(self):
        return self.call("vm.stats")["vms"][0]["stats"]["memory_rss"] >> 20

    def qmp(self, command, **arguments):
        return self.call("vm.qmp", execute=command, **({"arguments": arguments} if arguments else {}))


def memory_comes_and_goes():
    with Machine() as m:
        first = m.total()
        seen = json.loads(m.vmctl("memory", "resize", "a", "768M", "--json"))["devices"][0]
        tap.check((seen["requested"], seen["size"], seen["block"]) == (768 * MIB, 1024 * MIB, 2 * MIB), str(seen))
        m.has(768)
        tap.check(m.device()["driver"] and m.total() - first == 768, f"{first} became {m.total()} MiB")
        m.run(FILL.format(600) + " && sha256sum -c /tmp/sum")
        full = m.rss()
        info = m.qmp("query-memory-devices")["result"]
        tap.check(info[0]["type"] == "virtio-mem" and info[0]["data"]["size"] == 768 * MIB, str(info))
        tap.check(m.qmp("query-memory-size-summary")["result"]["plugged-memory"] == 768 * MIB, "summary")
        m.run("rm /tmp/fill")
        m.qmp("qom-set", path="/machine/peripheral/memory0", property="requested-size", value=0)
        m.has(0)
        tap.check(m.total() == first, f"{first} became {m.total()} MiB")
        m.until(f"the host still has {m.rss()} of {full} MiB", lambda: m.rss() < full - 350)
        print(f"# host memory fell from {full} to {m.rss()} MiB")
        m.client.fails("invalid-params", "vm.memory_resize", vm="a", requested=1026 * MIB)
        m.client.fails("invalid-params", "vm.memory_resize", vm="a", requested=3 * MIB)
        m.client.fails("not-found", "vm.memory_resize", vm="a", requested=2 * MIB, name="memory7")
        tap.check("error" in m.qmp("qom-set", path="/machine/peripheral/memory0", property="max-size", value=0), "fixed")
        m.until(f"{m.events()}", lambda: m.events()[-1] == {"name": "memory0", "plugged": 0})
        tap.check({"name": "memory0", "plugged": 768 * MIB} in m.events(), str(m.events()))


def what_is_not_plugged_is_nowhere():
    with Machine() as m:
        m.call("vm.memory_resize", requested=128 * MIB)
        m.has(128)
        at = int(m.device()["address"], 16)
        # A hole and a block, side by side, as the host's own view of memory has them.
        tap.check("data" in m.call("vm.memory", address=hex(at), size=8), "plugged")
        m.client.fails("invalid-params", "vm.memory", vm="a", address=hex(at + 512 * MIB), size=8)


def virsh_asks_for_memory():
    if not shutil.which("virsh"):
        raise tap.Skip("virsh (package libvirt-clients)")
    with Machine(memory_max=4096 * MIB) as m:
        def virsh(*words, fails=None):
            done = subprocess.run(["virsh", "-q", "-c", f"qemu+unix:///system?socket={m.daemon.dir}/run/libvirt-sock", *words],
                                  capture_output=True, text=True, timeout=120, check=False)
            tap.check((done.returncode != 0 and fails in done.stderr) if fails else done.returncode == 0, f"{words}: {done}")
            return done.stdout
        virsh("update-memory-device", "a", "--requested-size", "256M", "--live", "--config")
        m.has(256)
        tap.check("<requested unit='KiB'>262144</requested>" in virsh("dumpxml", "a", "--inactive"), "the definition")
        tap.check(m.call("vm.get")["config"]["memory_devices"][0]["requested"] == 256 * MIB, "by the API")
        other = os.path.join(m.daemon.dir, "memory.xml")
        with open(other, "w", encoding="utf-8") as file:
            file.write("<memory model='virtio-mem'><target><size unit='MiB'>512</size><node>0</node><block unit='MiB'>2</block>"
                       "<requested unit='MiB'>64</requested></target></memory>")
        virsh("attach-device", "a", other, "--live", "--config")
        m.run("echo 1 >/sys/bus/pci/rescan")
        m.until("the second device has what was asked for", lambda: [d["plugged"] for d in m.call("vm.memory_resize")["devices"]] == [256 * MIB, 64 * MIB])
        m.call("vm.memory_resize", requested=0, name="memory1")
        m.until("it has nothing", lambda: m.call("vm.memory_resize")["devices"][1]["plugged"] == 0)
        m.run("for d in /sys/bus/virtio/drivers/virtio_mem/virtio*; do last=$(readlink -f $d); done; echo 1 >$last/../remove")
        virsh("detach-device", "a", other, "--live", "--config")
        m.until("it has gone", lambda: len(m.call("vm.memory_resize")["devices"]) == 1)
        virsh("detach-device", "a", other, "--live", fails="no memory device of 524288 KiB")


def a_saved_machine_has_what_it_had():
    with Machine(requested=256 * MIB) as m:
        m.has(256)
        m.run(FILL.format(400))
        before = m.device()
        m.console.close()
        m.vmctl("save", "a")
        m.vmctl("start", "a")
        m.console = m.connect("vm.console", vm="a")
        m.run("sha256sum -c /tmp/sum")
        tap.check(m.device() == before, f"{m.device()}")
        m.call("vm.memory_resize", requested=512 * MIB)
        m.has(512)
        m.run("sha256sum -c /tmp/sum && rm /tmp/fill")
        m.call("vm.memory_resize", requested=0)
        m.has(0)
        m.call("vm.memory_resize", requested=128 * MIB)
        m.has(128)
        m.call("vm.reset")  # a guest that starts anew has its own memory alone
        m.expect("guest# ")
        tap.check(m.device()["plugged"] == 0 and m.device()["requested"] == 128 * MIB, str(m.device()))
        m.run("stty -echo; PS1=")
        m.ready()
        m.has(128)


class Moved(Machine):
    """The same with two daemons, of which the VM may have either."""

    def __init__(self, pair):
        self.pair = pair
        super().__init__(requested=256 * MIB, disks=[])

    def start_daemon(self, options):
        return self.pair.both[0]

    def take(self, daemon):
        self.console.close()
        self.client.close()
        self.daemon = daemon
        self.client = daemon.client(guest_agent.LIMIT)
        self.console = self.connect("vm.console", vm="a")

    def __exit__(self, *exc):
        self.console.close()
        self.client.close()


def a_machine_is_moved_while_memory_comes():
    with migrate_lib.Pair() as pair, Moved(pair) as m:
        here, there = pair.both
        m.has(256)
        m.run(FILL.format(300))
        job = pair.migrate(here, there, wait=False)
        m.call("vm.memory_resize", requested=768 * MIB)  # before, while or after memory goes out
        with here.client(guest_agent.LIMIT) as client:
            done = client.call("job.wait", job=job, timeout_ms=190000)
        tap.check(done["state"] == "done", str(done))
        m.take(there)
        m.run("sha256sum -c /tmp/sum")
        asked = m.device()["requested"] // MIB
        tap.check(asked in (256, 768), str(m.device()))
        m.call("vm.memory_resize", requested=768 * MIB)
        m.has(768)
        m.run(FILL.format(700) + " && sha256sum -c /tmp/sum && rm /tmp/fill")
        m.call("vm.memory_resize", requested=0)
        m.has(0)


class Copied(Machine):
    """Which of the two is driven; the copy's name is made of the source's."""

    name = "a"

    def call(self, method, **params):
        return self.client.call(method, vm=self.name, **params)


def a_copy_goes_on_with_what_its_source_has():
    with Copied(requested=256 * MIB) as m:
        m.has(256)
        m.run(FILL.format(300))
        m.vmctl("fork", "a")
        m.console.close()
        m.name = "a-1"
        m.console = m.connect("vm.console", vm="a-1")
        m.run("sha256sum -c /tmp/sum")
        m.call("vm.memory_resize", requested=512 * MIB)
        m.has(512)
        m.run("sha256sum -c /tmp/sum && rm /tmp/fill")
        m.call("vm.memory_resize", requested=0)
        m.has(0)
        m.name = "a"
        tap.check(m.device()["plugged"] == 256 * MIB, f"the source: {m.device()}")


if __name__ == "__main__":
    sys.exit(tap.run_cases([memory_comes_and_goes, virsh_asks_for_memory, what_is_not_plugged_is_nowhere, a_saved_machine_has_what_it_had,
                            a_machine_is_moved_while_memory_comes,
                            a_copy_goes_on_with_what_its_source_has]))
