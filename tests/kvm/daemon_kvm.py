#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""VMs with the engine kvm under the daemon, beside translated ones: vmctl's verbs, XML, checks, the sandbox of their threads."""

import base64
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import kvm_lib  # noqa: E402
import daemon_lib as lib  # noqa: E402
import migrate_lib  # noqa: E402
import q35  # noqa: E402
import tap  # noqa: E402

FOLDER = tempfile.TemporaryDirectory(prefix="vmd-kvm-")
VMCTL = os.path.join(lib.BUILD, "vmctl")


def needs_kvm():
    why = kvm_lib.missing()
    if why:
        raise tap.Skip(why)
    return kvm_lib.build_guest(FOLDER.name)


def vmctl(daemon, *words, status=0):
    done = subprocess.run([VMCTL, "--dir", daemon.dir, *words], capture_output=True, text=True, timeout=120, check=False)
    tap.check(done.returncode == status, f"{words}: {done.returncode} {done.stdout[-300:]}{done.stderr}")
    return done.stdout + done.stderr


def said(console, what):
    text = b""
    while what not in text:
        tap.check(console.ready(60), f"no {what} behind {text}")
        text += console.read_some(60)
    return text


def runs_beside_a_translated_machine():
    guest = needs_kvm()
    with lib.Daemon() as daemon, daemon.client() as client:
        disk = kvm_lib.make_disk(daemon.dir)
        client.call("vm.create", config=daemon.config("rv"))
        vmctl(daemon, "create", "pc", "--arch", "x86_64", "--machine", "microvm", "--engine", "kvm", "--kernel", guest,
              "--append", "echo", "--memory", "64M", "--cpus", "2", "--disk", f"{disk},format=raw")
        tap.check(client.call("vm.get", vm="pc")["state"] == "running", "it runs")
        listed = vmctl(daemon, "list")
        tap.check("pc" in listed and "rv" in listed and listed.count("running") == 2, listed)
        console = daemon.console("pc")
        text = said(console, b"ready\n")
        tap.check(b"disk: " + kvm_lib.DISK_TEXT in text, text)
        console.sock.sendall(b"typed")
        said(console, b"typed")
        lines = client.call("vm.get", vm="pc")
        tap.check(lines["config"]["engine"] == "kvm", lines)
        counters = client.call("vm.engine", vm="pc")
        exits = {c["name"]: c["value"] for c in counters["vcpus"][0]["counters"]}
        tap.check(exits["port-exits"] > 100 and exits["mmio-exits"] > 20, exits)
        vmctl(daemon, "pause", "pc")
        vmctl(daemon, "resume", "pc")
        client.call("vm.reset", vm="pc")
        said(console, b"ready\n")
        console.sock.sendall(b"q")
        said(console, b"bye\n")
        lib.wait_for(lambda: client.call("vm.get", vm="pc")["state"] == "stopped", 60, "its power-off")
        vmctl(daemon, "start", "pc")
        vmctl(daemon, "stop", "pc", "--force")
        tap.check(client.call("vm.get", vm="pc")["state"] == "stopped", "it was stopped")
        tap.check(client.call("vm.get", vm="rv")["state"] == "running", "the other goes on")


def its_threads_are_confined():
    guest = needs_kvm()
    with lib.Daemon() as daemon, daemon.client() as client:
        client.call("vm.define", config=kvm_lib.config(guest, "count", cpus=3))
        client.call("vm.start", vm="pc")
        said(daemon.console("pc"), b"ready\n")
        pid = client.call("vm.get", vm="pc")["pid"]
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/status", encoding="ascii") as file:
                status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
            if not lib.sanitized():
                tap.check(status["Seccomp"] == "2", f"thread {status['Name']}: {status['Seccomp']}")
                tap.check(int(status["SigCgt"], 16) & 0x7fffffff == 0, f"no handlers: {status['SigCgt']}")
        client.call("vm.stop", vm="pc", force=True)


def libvirts_xml_says_kvm():
    guest = needs_kvm()
    xml = (f"<domain type='kvm'><name>px</name><memory unit='MiB'>64</memory><vcpu>2</vcpu><os><type arch='x86_64' machine='microvm'>hvm</type>"
           f"<kernel>{guest}</kernel><cmdline>echo</cmdline></os><cpu mode='host-passthrough'/></domain>")
    with lib.Daemon() as daemon, daemon.client() as client:
        client.call("xml.define", xml=xml)
        config = client.call("vm.get", vm="px")["config"]
        tap.check((config["arch"], config["machine"], config["engine"], config["cpu"], config["cpus"]) ==
                  ("x86_64", "microvm", "kvm", "host", 2), config)
        client.call("vm.start", vm="px")
        said(daemon.console("px"), b"ready\n")
        back = client.call("xml.get", vm="px")["xml"]
        tap.check("type='kvm'" in back.replace('"', "'") and "machine='microvm'" in back.replace('"', "'") and
                  "host-passthrough" in back, back)


def libvirts_versions_of_q35_are_q35():
    needs_kvm()
    if not os.path.exists(q35.SEABIOS):
        raise tap.Skip("SeaBIOS (seabios)")
    with lib.Daemon() as daemon, daemon.client() as client:
        disk = q35.boot_disk("xml.raw", daemon.dir)
        client.call("xml.define", xml=(f"<domain type='kvm'><name>px</name><memory unit='MiB'>64</memory><vcpu>2</vcpu><os>"
                                       f"<type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os><cpu mode='host-passthrough'/><devices><disk type='file'>"
                                       f"<source file='{disk}'/><target dev='vda' bus='virtio'/></disk></devices></domain>"))
        tap.check(client.call("vm.get", vm="px")["config"]["machine"] == "q35", "the version is the machine")
        client.call("vm.start", vm="px")
        said(daemon.console("px"), b"second sector of xml.raw")
        tap.check("machine='q35'" in client.call("xml.get", vm="px")["xml"].replace('"', "'"), "and is told as such")


def job(client, method, **params):
    out = client.call("job.wait", job=client.call(method, **params)["job"], timeout_ms=120000)
    tap.check(out["state"] == "done", f"{method}: {out}")


def watch(daemon, passes=3):
    """The guest goes on, and finds what it wrote."""
    console = daemon.console("pc")
    console.drain()
    text = b""
    while text.count(b".") < passes:
        tap.check(console.ready(60), f"it stands behind {text}")
        text += console.read_some(60)
    tap.check(b"E" not in text and b"FAILED" not in text, text)
    console.close()


def states_go_on_where_they_were():
    guest = needs_kvm()
    if not shutil.which("qemu-img"):
        raise tap.Skip("qemu-img (qemu-utils)")
    with lib.Daemon() as daemon, daemon.client() as client:
        disk = os.path.join(daemon.dir, "disk.qcow2")
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", kvm_lib.make_disk(daemon.dir), disk], check=True, timeout=120)
        client.call("vm.define", config=kvm_lib.config(guest, "count", cpus=2, disks=[{"file": disk, "format": "qcow2"}]))
        client.call("vm.start", vm="pc")
        said(daemon.console("pc"), b"ready\n")
        passes = kvm_lib.symbols(guest)["passes"]
        def now():
            data = client.call("vm.memory", vm="pc", address=hex(passes), size=4)["data"]
            return int.from_bytes(base64.b64decode(data), "little")
        watch(daemon)
        job(client, "snapshot.create", vm="pc", name="one")  # memory is kept while it runs
        then = now()
        watch(daemon)
        for _ in range(3):
            job(client, "vm.save", vm="pc")
            before = now() if client.call("vm.get", vm="pc")["state"] == "running" else None
            client.call("vm.start", vm="pc")
            tap.check(before is None and now() >= then, "it did not begin anew")
            watch(daemon)
        fields = {(f["part"], f["field"]): f["value"] for f in client.call("vm.inspect", vm="pc")["fields"]}
        tap.check(int(fields["cpu0", "rip"], 0) >= 0x200000, fields["cpu0", "rip"])
        last = now()
        job(client, "snapshot.revert", vm="pc", name="one")
        watch(daemon, 1)
        tap.check(now() < last, "it went back")


def it_migrates_to_and_fro():
    guest = needs_kvm()
    with migrate_lib.Pair() as pair:
        here, there = pair.both
        path = os.path.join(here.dir, "pvh")
        shutil.copy(guest, path)
        here.call("vm.define", config=kvm_lib.config(path, "count", cpus=2))
        here.call("vm.start", vm="pc")
        said(here.console("pc"), b"ready\n")
        for _ in range(3):
            watch(here)
            done = pair.migrate(here, there, name="pc")
            tap.check(done["state"] == "done", f"{done}\n{here.tail()}\n{there.tail()}")
            here, there = there, here
        watch(here)


def compile_again(tables):
    """Disassembled and compiled by iasl without a word; the text of the DSDT."""
    if not shutil.which("iasl"):
        raise tap.Skip("iasl (acpica-tools)")
    with tempfile.TemporaryDirectory() as folder:
        for name, data in tables.items():
            path = os.path.join(folder, name.lower())
            with open(path + ".aml", "wb") as file:
                file.write(data)
            for command in (["iasl", "-d", path + ".aml"], ["iasl", "-we", path + ".dsl"]):
                done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
                told = done.stdout + done.stderr
                tap.check(done.returncode == 0 and not re.search(r"\b[1-9]\d* (Error|Warning)|^(Error|Warning)", told, re.M),
                          f"{name}: {told}")
        with open(os.path.join(folder, "dsdt.dsl"), encoding="utf-8") as file:
            return file.read()


def a_pcs_tables_are_clean():
    """Those of machine q35, which SeaBIOS has put into memory."""
    needs_kvm()
    if not os.path.exists("/usr/share/seabios/bios-256k.bin"):
        raise tap.Skip("SeaBIOS (seabios)")
    with lib.Daemon() as daemon, daemon.client() as client:
        client.call("vm.define", config={"name": "pc", "arch": "x86_64", "machine": "q35", "engine": "kvm", "memory": 5 << 30, "cpus": 3,
                                         "rng": False})
        client.call("vm.start", vm="pc")
        said(daemon.console("pc"), b"Press ESC")
        def read(at, size):
            return base64.b64decode(client.call("vm.memory", vm="pc", address=hex(at), size=size)["data"])
        low = read(0xf0000, 65536)
        at = low.index(b"RSD PTR ")
        pointer = low[at:at + 36]
        tap.check(sum(pointer[:20]) % 256 == 0 and sum(pointer) % 256 == 0, pointer)
        def table(where):
            one = read(where, int.from_bytes(read(where, 8)[4:8], "little"))
            tap.check(one[:4] == b"FACS" or sum(one) % 256 == 0, f"sum of {one[:4]}")
            return one
        xsdt, rsdt = table(int.from_bytes(pointer[24:32], "little")), table(int.from_bytes(pointer[16:20], "little"))
        places = [int.from_bytes(xsdt[i:i + 8], "little") for i in range(36, len(xsdt), 8)]
        tap.check(places == [int.from_bytes(rsdt[i:i + 4], "little") for i in range(36, len(rsdt), 4)], "both lists say the same")
        tables = {one[:4].decode(): one for one in map(table, places)}
        fadt = tables["FACP"]
        tables["DSDT"] = table(int.from_bytes(fadt[140:148], "little"))
        tables["FACS"] = table(int.from_bytes(fadt[36:40], "little"))
    tap.check(set(tables) == {"FACP", "FACS", "APIC", "DSDT", "MCFG", "HPET"}, str(set(tables)))
    tap.check(tables["MCFG"][44:52] == (0xb0000000).to_bytes(8, "little"), "where SeaBIOS has put config space")
    text = compile_again(tables)
    for want in ("Device (PCI0)", "PNP0A08", "Device (COM1)", "VM_Gen_Counter", "Method (_OSC", "_S5", "C002", "QEMU0002"):
        tap.check(want in text, f"{want}: {text}")


def a_pc_goes_on_from_a_saved_state():
    """Chip set and memory map of machine q35: a boot sector waits for a key while the machine is saved and started again."""
    needs_kvm()
    if not os.path.exists(q35.SEABIOS):
        raise tap.Skip("SeaBIOS (seabios)")
    with lib.Daemon() as daemon, daemon.client() as client:
        disk = q35.boot_disk("saved.raw", daemon.dir)
        client.call("vm.define", config={"name": "pc", "arch": "x86_64", "machine": "q35", "engine": "kvm", "memory": 64 << 20, "cpus": 2,
                                         "rng": False, "root_ports": 1, "disks": [{"file": disk, "format": "raw", "bus": "sata"}]})
        client.call("vm.start", vm="pc")
        said(daemon.console("pc"), b"second sector of saved.raw")
        for _ in range(3):
            job(client, "vm.save", vm="pc")
            client.call("vm.start", vm="pc")
        console = daemon.console("pc")
        console.drain()
        console.sock.sendall(b"r")  # the whole firmware, from what was restored
        said(console, b"second sector of saved.raw")
        console.sock.sendall(b"o")
        end = said(console, b"bye")
        tap.check(b"no sector" not in end, end)


def a_pc_s_screen_is_in_its_saved_state():
    """SeaBIOS's text on the VGA, by screenshots, with the sandbox on; under a second save and start as well."""
    needs_kvm()
    if not os.path.exists(q35.SEABIOS) or not os.path.exists("/usr/share/seabios/vgabios-stdvga.bin"):
        raise tap.Skip("SeaBIOS and its VGA ROM (seabios)")
    with lib.Daemon() as daemon, daemon.client() as client:
        disk = q35.boot_disk("screen.raw", daemon.dir)
        client.call("vm.define", config={"name": "pc", "arch": "x86_64", "machine": "q35", "engine": "kvm", "memory": 64 << 20, "rng": False,
                                         "display": {"device": "vga", "input": False}, "disks": [{"file": disk, "format": "raw", "bus": "sata"}]})
        client.call("vm.start", vm="pc")
        said(daemon.console("pc"), b"second sector of screen.raw")

        def picture():
            path = os.path.join(daemon.dir, "shot.ppm")
            vmctl(daemon, "screenshot", "pc", path)
            with open(path, "rb") as file:
                data = file.read()
            os.unlink(path)
            return data

        was = picture()
        lit = sum(was[i] > 64 for i in range(15, len(was), 3))
        tap.check(was.startswith(b"P6\n720 400\n255\n") and lit > 1000, f"{was[:15]}, {lit} points that shine")
        for _ in range(2):
            job(client, "vm.save", vm="pc")
            client.call("vm.start", vm="pc")
            now = picture()
            other = sum(a != b for a, b in zip(was, now))
            tap.check(len(was) == len(now) and other <= 2 * 9 * 16 * 3, f"{other} bytes are others: more than a cursor")


def acpi_tables_are_clean():
    """What a kernel finds, disassembled and compiled again."""
    guest = needs_kvm()
    with lib.Daemon() as daemon, daemon.client() as client:
        client.call("vm.define", config=kvm_lib.config(guest, "count", cpus=3, disks=[{"file": kvm_lib.make_disk(daemon.dir), "format": "raw"}]))
        client.call("vm.start", vm="pc")
        said(daemon.console("pc"), b"ready\n")
        memory = base64.b64decode(client.call("vm.memory", vm="pc", address="0xe0000", size=16384)["data"])
    tap.check(memory[:8] == b"RSD PTR " and sum(memory[:20]) % 256 == 0 and sum(memory[:36]) % 256 == 0, memory[:36])
    def table(at):
        one = memory[at - 0xe0000:]
        one = one[:int.from_bytes(one[4:8], "little")]
        tap.check(sum(one) % 256 == 0, f"sum of {one[:4]}")
        return one
    xsdt = table(int.from_bytes(memory[24:32], "little"))
    tables = {one[:4].decode(): one for one in (table(int.from_bytes(xsdt[i:i + 8], "little")) for i in range(36, len(xsdt), 8))}
    tables["DSDT"] = table(int.from_bytes(tables["FACP"][140:148], "little"))
    tap.check(set(tables) == {"FACP", "APIC", "DSDT"}, str(set(tables)))
    text = compile_again(tables)
    for want in ("Device (COM1)", "Device (VR00)", "Device (VR01)", "Device (VR23)", "LNRO0005", "0xFEB17000", "_S5"):
        tap.check(want in text, f"{want}: {text}")


def what_the_host_lacks_is_named():
    with lib.Daemon() as daemon, daemon.client() as client:
        info = client.call("host.info")
        archs = {a["arch"]: a for a in client.call("host.capabilities")["archs"]}
        good = kvm_lib.config(daemon.guest(), "off")
        for change, object_ in (({"engine": "tcg"}, "config.engine"), ({"machine": "rv-virt"}, "config.machine"),
                                ({"arch": "riscv64"}, "config.machine"), ({"cpu": "rv64"}, "config.cpu")):
            error = client.fails("invalid-params", "vm.define", config={**good, **change})
            tap.check(error.object == object_ and error.remedy, f"{change}: {error.object} {error.message} / {error.remedy}")
        client.call("vm.define", config=good)
        if not info["kvm"]:
            tap.check("x86_64" not in archs and info["kvm_problem"], info)
            error = client.fails("host-limit", "vm.start", vm="pc")
            tap.check("/dev/kvm" in error.message + error.remedy or "architecture" in error.message, error.message)
            return
        tap.check(archs["x86_64"]["engines"] == ["kvm"] and archs["x86_64"]["machines"] == ["microvm", "q35"] and "host" in archs["x86_64"]["cpus"],
                  archs["x86_64"])
        error = client.fails("start-failed", "vm.start", vm="pc")
        tap.check("neither a bzImage nor an ELF program" in error.message, error.message)
        tap.check("kvm_problem" not in info, info)


def a_missing_device_is_named():
    """As a daemon of a host without it sees it: in a mount namespace where nothing is at that place."""
    needs_kvm()
    hide = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /dev/shm && mkdir -p /dev/shm/e && mount --bind /dev/null /dev/kvm && exec \"$@\"", "-"]
    probe = subprocess.run([*hide, "true"], capture_output=True, text=True, timeout=60, check=False)
    if probe.returncode != 0:
        raise tap.Skip(f"mounts in a namespace of one's own: {probe.stderr.strip()}")
    with lib.Daemon(wrapper=hide) as daemon, daemon.client() as client:
        client.call("vm.define", config=kvm_lib.config(needs_kvm(), "off"))
        error = client.fails("start-failed", "vm.start", vm="pc")
        tap.check("engine kvm: /dev/kvm has interface -1" in error.message, error.message)


if __name__ == "__main__":
    sys.exit(tap.run_cases([
        runs_beside_a_translated_machine,
        its_threads_are_confined,
        libvirts_xml_says_kvm,
        states_go_on_where_they_were,
        it_migrates_to_and_fro,
        acpi_tables_are_clean,
        a_pcs_tables_are_clean,
        a_pc_goes_on_from_a_saved_state,
        a_pc_s_screen_is_in_its_saved_state,
        libvirts_versions_of_q35_are_q35,
        what_the_host_lacks_is_named,
        a_missing_device_is_named,
    ]))
