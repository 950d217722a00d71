#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Forks of running VMs: copies run on from one instant, share memory, and have disks, addresses and ports of their own; what cannot be
copied is refused by name, and nothing stays of a fork that failed.

    daemon_fork.py --count N     so many copies, which all differ"""

import base64
import json
import os
import subprocess
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402

CLONES, BATCH = 60, 20


def run(*args):
    subprocess.run(args, check=True)


def job(client, state="done", **params):
    out = client.call("job.wait", job=client.call("vm.fork", **params)["job"], timeout_ms=300000)
    tap.check(out["state"] == state, f"{params}: {out}")
    return out


def private_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        lines = {line.split(":")[0]: int(line.split()[1]) for line in file if ":" in line and line.endswith("kB\n")}
    return lines["Private_Clean"] + lines["Private_Dirty"]


def vmctl(daemon, *args):
    return subprocess.run([os.path.join(lib.BUILD, "vmctl"), "--dir", daemon.dir, *args], capture_output=True, text=True, check=False)


def qemu_io(path, command):
    return subprocess.run(["qemu-io", "-r", "-U", "-f", "qcow2", "-c", command, path], capture_output=True, text=True, check=True).stdout


def backing(path):
    out = subprocess.run(["qemu-img", "info", "-U", "--output=json", path], capture_output=True, text=True, check=True).stdout
    return json.loads(out).get("backing-filename")


def begun(daemon, client, **more):
    path = os.path.join(daemon.dir, "root.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", path, "8M")
    run("qemu-io", "-f", "qcow2", "-c", "write -q -P 7 0 1M", path)
    client.call("vm.define", config=daemon.config("a", disks=[{"file": path, "name": "root", "format": "qcow2"}], **more))
    client.call("vm.start", vm="a")
    return path


def copies_run_on_overlays_of_their_own():
    with lib.Daemon() as daemon, daemon.client(timeout=300) as client:
        path = begun(daemon, client, nics=[{"type": "user", "forward": ["tcp::2222-:22", "tcp::8080-:80"]}])
        pid = client.call("vm.get", vm="a")["pid"]
        done = job(client, vm="a", count=3, ports=[{"from": 2222, "to": 23456}])
        tap.check(done["result"]["copies"] == ["a-1", "a-2", "a-3"], f"{done}")
        source = client.call("vm.get", vm="a")
        tap.check((source["state"], source["pid"]) == ("running", pid), f"{source}")
        over = source["config"]["disks"][0]["file"]
        tap.check(over.startswith(path + ".fork-") and backing(over) == path, f"{source}")
        seen = [source]
        for number in range(1, 4):
            vm = client.call("vm.get", vm=f"a-{number}")
            tap.check(vm["state"] == "running" and vm["config"]["disks"][0]["file"] == f"{path}.a-{number}", f"{vm}")
            tap.check(backing(f"{path}.a-{number}") == path, "another backing file")
            tap.check(vm["config"]["nics"][0]["forward"] == [f"tcp::{23455 + number}-:22"], f"{vm}")
            tap.check("Pattern" not in qemu_io(f"{path}.a-{number}", "read -P 7 0 1M"), "other contents")
            seen.append(vm)
        for what in ("uuid", "pid"):
            tap.check(len({vm[what] for vm in seen}) == 4, f"{what}: {seen}")
        # The next fork, of the source and of a copy; each stands on what its own source stood on.
        job(client, vm="a", count=1, prefix="b")
        tap.check(backing(f"{path}.b-1") == over and backing(client.call("vm.get", vm="a")["config"]["disks"][0]["file"]) == over, "b")
        job(client, vm="a-2", count=2)
        tap.check(backing(f"{path}.a-2.a-2-1") == f"{path}.a-2", "a copy's copy")
        # Copies live by themselves.
        client.call("vm.stop", vm="a")
        client.call("vm.stop", vm="a-2")
        for name in ("a-1", "a-3", "b-1", "a-2-1", "a-2-2"):
            tap.check(client.call("vm.get", vm=name)["state"] == "running", name)
        client.call("vm.start", vm="a-2")
        # All that is left is known after a restart of vmd.
        daemon.kill()
        daemon.start()
        with daemon.client() as other:
            states = {vm["name"]: vm["state"] for vm in other.call("vm.list")["vms"]}
        tap.check(states == {"a": "stopped", **{n: "running" for n in ("a-1", "a-2", "a-3", "b-1", "a-2-1", "a-2-2")}}, f"{states}")


def paused_ones_and_their_state():
    with lib.Daemon() as daemon, daemon.client(timeout=300) as client:
        client.call("vm.define", config=daemon.config("a"))
        client.call("vm.start", vm="a")
        client.call("vm.pause", vm="a")
        job(client, vm="a", count=2, paused=True)
        tap.check([client.call("vm.get", vm=n)["state"] for n in ("a", "a-1", "a-2")] == ["paused"] * 3, "they run")
        client.call("vm.resume", vm="a-1")
        tap.check(client.call("vm.get", vm="a-1")["state"] == "running", "it does not run")
        # A copy is saved, goes on from there, and has snapshots, as any VM.
        for name in ("a-1", "a-2"):
            out = client.call("job.wait", job=client.call("vm.save", vm=name)["job"], timeout_ms=60000)
            tap.check(out["state"] == "done", f"{out}")
            client.call("vm.start", vm=name)
        tap.check(client.call("vm.get", vm="a-1")["state"] == "running", "it does not run")


def what_cannot_be_copied_is_named():
    with lib.Daemon() as daemon, daemon.client(timeout=300) as client:
        path = begun(daemon, client)
        files = sorted(os.listdir(daemon.dir))
        pid = client.call("vm.get", vm="a")["pid"]

        def same():
            vm = client.call("vm.get", vm="a")
            tap.check((vm["state"], vm["pid"], vm["config"]["disks"][0]["file"]) == ("running", pid, path), f"{vm}")
            tap.check(sorted(os.listdir(daemon.dir)) == files, f"{set(os.listdir(daemon.dir)) - set(files)}")
        client.call("vm.define", config=daemon.config("a-2"))
        error = client.fails("exists", "vm.fork", vm="a", count=3)
        tap.check("'a-2'" in str(error), f"{error}")
        tap.check({v["name"] for v in client.call("vm.list")["vms"]} == {"a", "a-2"}, "something is left")
        client.fails("bad-state", "vm.fork", vm="a-2")
        client.call("vm.delete", vm="a-2")
        same()
        # The last overlay is there already: those before it go again, and the source stands on its own by then.
        with open(path + ".c-3", "w", encoding="ascii"):
            pass
        done = job(client, "failed", vm="a", count=3, prefix="c")
        tap.check(".c-3" in done["error"]["message"], f"{done}")
        tap.check([f for f in os.listdir(daemon.dir) if ".c-" in f] == ["root.qcow2.c-3"], f"{os.listdir(daemon.dir)}")
        tap.check({v["name"] for v in client.call("vm.list")["vms"]} == {"a"}, "something is left")
        tap.check(client.call("vm.get", vm="a")["state"] == "running", "it does not run")
        os.unlink(path + ".c-3")
        job(client, vm="a", count=3, prefix="c")
        out = client.call("job.wait", job=client.call("snapshot.create", vm="c-1", name="one")["job"], timeout_ms=60000)
        tap.check(out["state"] == "done", f"{out}")
        error = client.fails("unsupported", "vm.fork", vm="c-1")
        tap.check("snapshots" in str(error), f"{error}")


def an_emulator_that_dies_ends_its_copy_alone():
    with lib.Daemon() as daemon, daemon.client(timeout=300) as client:
        begun(daemon, client)
        job(client, vm="a", count=4)
        lib.kill(client.call("vm.get", vm="a-2")["pid"])
        client.call("vm.wait", vm="a-2", states=["crashed"], timeout_ms=60000)
        for name in ("a", "a-1", "a-3", "a-4"):
            tap.check(client.call("vm.get", vm=name)["state"] == "running", name)
        lib.kill(client.call("vm.get", vm="a")["pid"])
        client.call("vm.wait", vm="a", states=["crashed"], timeout_ms=60000)
        client.call("vm.start", vm="a")
        client.call("vm.start", vm="a-2")


def vmctl_forks():
    with lib.Daemon() as daemon, daemon.client(timeout=300) as client:
        begun(daemon, client, nics=[{"type": "user", "forward": ["tcp:127.0.0.1:2222-:22"]}])
        out = vmctl(daemon, "fork", "a", "--count", "2", "--prefix", "t", "--port", "2222,to=24001", "--disk", "root,file=" + daemon.dir + "/over-{name}-{n}.qcow2")
        tap.check(out.returncode == 0, f"{out}")
        for number in (1, 2):
            vm = client.call("vm.get", vm=f"t-{number}")
            tap.check(vm["config"]["disks"][0]["file"] == f"{daemon.dir}/over-t-{number}-{number}.qcow2", f"{vm}")
            tap.check(vm["config"]["nics"][0]["forward"] == [f"tcp:127.0.0.1:{24000 + number}-:22"], f"{vm}")
        out = vmctl(daemon, "fork", "a", "--prefix", "t", "--count", "1")
        tap.check(out.returncode != 0 and "t-1" in out.stderr, f"{out}")


def whoever_dies_a_copy_runs_or_is_no_more():
    for turn in range(6):
        with lib.Daemon() as daemon:
            with daemon.client(timeout=300) as client:
                path = begun(daemon, client)
                pid = client.call("vm.get", vm="a")["pid"]
                number = client.call("vm.fork", vm="a", count=24)["job"]
                time.sleep((0.0, 0.02, 0.06, 0.12, 0.18, 0.3)[turn])
                daemon.kill()
            daemon.start()
            with daemon.client(timeout=300) as client:
                ended = client.call("job.wait", job=number, timeout_ms=60000)

                def settled():
                    vms = {v["name"]: v for v in client.call("vm.list", config=True)["vms"]}
                    return vms if all(v["state"] in ("running", "stopped") for v in vms.values()) and vms["a"].get("pid") == pid else None
                lib.wait_for(settled, 60, "VMs settle")

                def clean():
                    vms = settled()
                    return vms and all(v["state"] == "running" and os.path.exists(v["config"]["disks"][0]["file"]) for v in vms.values())
                lib.wait_for(clean, 60, f"copies run or are gone ({ended})")
                vms = settled()
                print(f"# {len(vms) - 1} of 24 copies ran; the job is {ended['state']}")
                source = client.call("vm.get", vm="a")["config"]["disks"][0]["file"]
                lib.wait_for(lambda: backing(source) in (None, path), 10, "the source's disk")
                client.call("vm.pause", vm="a")
                client.call("vm.resume", vm="a")


GENID = 0x1000A000
WORDS = 0x80100000  # where the guest below writes: a count, and the generation id


def teller():
    """A guest that copies its generation id to memory and adds one to a count, a hundred times a second of its clock; it sleeps between."""
    def lui(rd, imm, opcode=0x37):
        return imm << 12 | rd << 7 | opcode

    def imm(rd, rs, value, kind, opcode):
        return (value & 0xFFF) << 20 | rs << 15 | kind << 12 | rd << 7 | opcode

    def store(rs2, rs1, kind, at=0):
        return rs2 << 20 | rs1 << 15 | kind << 12 | at << 7 | 0x23
    begin = [lui(5, 0x100, 0x17), lui(9, GENID >> 12), lui(7, 0x2004), lui(28, 0x200C), lui(31, 0x18),  # the words, the id, mtimecmp, mtime, 10 ms
             imm(30, 0, 0x80, 0, 0x13), 0x304 << 20 | 30 << 15 | 1 << 12 | 0x73]  # the timer's interrupt ends wfi
    loop = [imm(29, 28, -8, 3, 0x03), 31 << 20 | 29 << 15 | 29 << 7 | 0x33, store(29, 7, 3), 0x10500073]
    for word in range(4):
        loop += [imm(6, 9, 4 * word, 2, 0x03), store(6, 5, 2, 4 + 4 * word)]
    loop += [imm(6, 5, 0, 2, 0x03), imm(6, 6, 1, 0, 0x13), store(6, 5, 2)]
    back = -4 * len(loop)
    jump = ((back >> 20) & 1) << 31 | ((back >> 1) & 0x3FF) << 21 | ((back >> 11) & 1) << 20 | ((back >> 12) & 0xFF) << 12 | 0x6F
    return b"".join(word.to_bytes(4, "little") for word in [*begin, *loop, jump])


def macs(config):
    """Of cards that the definition gives none: made from the UUID (api-schema/net/nicargs.c)."""
    out = []
    for i, nic in enumerate(config["nics"]):
        h = 2166136261
        for byte in [*config["uuid"].encode(), i]:
            h = (h ^ byte) * 16777619 & 0xFFFFFFFF
        h ^= h >> 15
        out.append(nic.get("mac") or "52:54:00:%02x:%02x:%02x" % (h & 255, h >> 8 & 255, h >> 16 & 255))
    return out


def words(client, vm):
    """(count, generation id)"""
    data = base64.b64decode(client.call("vm.memory", vm=vm, address=hex(WORDS), size=20)["data"])
    return int.from_bytes(data[:4], "little"), data[4:]


def told(client, vm, after):
    """The generation id that its guest has read since the count."""
    return lib.wait_for(lambda: (lambda w: w[1] if 2 <= (w[0] - after) % 2**32 < 2**31 else None)(words(client, vm)), 120, f"the guest of {vm} runs on")


def every_copy_is_somebody_else(count=CLONES):
    """R7: of so many copies none has the UUID, the address, the generation id or the disk of another, and all share memory."""
    with lib.Daemon() as daemon, daemon.client(timeout=300) as client:
        guest = os.path.join(daemon.dir, "teller.bin")
        with open(guest, "wb") as file:
            file.write(teller())
        path = os.path.join(daemon.dir, "root.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", path, "8M")
        client.call("vm.define", config=daemon.config("a", firmware=guest, memory=64 * lib.MIB, nics=[{"type": "user", "mac": f"52:54:00:00:00:0{n}"} for n in range(2)],
                                                      tcg={"cache_size": 4 * lib.MIB}, disks=[{"file": path, "name": "root", "format": "qcow2"}]))
        client.call("vm.start", vm="a")
        lib.wait_for(lambda: words(client, "a")[0] > 2, 60, "the guest runs")
        seen = {"uuid": [], "generation": [], "disk": []}
        addresses, made = [], 0

        def look(vm, generation):
            seen["uuid"].append(vm["uuid"])
            addresses.append(macs(vm["config"]))
            seen["disk"].append(vm["config"]["disks"][0]["file"])
            seen["generation"].append(generation)
        look(client.call("vm.get", vm="a"), told(client, "a", words(client, "a")[0]))
        own = seen["disk"].pop()  # it goes on with an overlay, another with each fork
        while made < count:
            names = job(client, vm="a", count=min(BATCH, count - made), prefix=f"c{made}")["result"]["copies"]
            before = words(client, "a")[0]
            for name in names:
                vm = client.call("vm.get", vm=name)
                look(vm, told(client, name, before))
                tap.check(private_kib(vm["pid"]) < 32 << 10, f"{name} has {private_kib(vm['pid'])} KiB of its own")
            made += len(names)
            now = [mac for of_one in [addresses[0], *addresses[-len(names):]] for mac in of_one]  # of VMs that are there
            tap.check(len(set(now)) == len(now) == 2 * len(names) + 2, f"an address came twice: {now}")
            for name in names:
                client.call("vm.stop", vm=name, force=True)
                client.call("vm.delete", vm=name)
                os.unlink(seen["disk"][made - len(names) + names.index(name)])
        for what, all_of_it in seen.items():
            twice = len(all_of_it) - len(set(all_of_it))
            tap.check(twice == 0 and len(all_of_it) >= count, f"{what}: {twice} of {len(all_of_it)} came twice")
        tap.check(own not in seen["disk"] and told(client, "a", words(client, "a")[0]) == seen["generation"][0], "the source is another now")
        print(f"# {made} copies")


CASES = [every_copy_is_somebody_else, copies_run_on_overlays_of_their_own, paused_ones_and_their_state, what_cannot_be_copied_is_named,
         an_emulator_that_dies_ends_its_copy_alone, vmctl_forks, whoever_dies_a_copy_runs_or_is_no_more]

if __name__ == "__main__":
    if sys.argv[1:2] == ["--count"]:
        every_copy_is_somebody_else(int(sys.argv[2]))
        sys.exit(0)
    sys.exit(tap.run_cases(CASES))
