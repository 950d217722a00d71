#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Looking into VMs: fields and memory of one that runs, is paused, was saved, and of snapshots; what differs between two of them.
Saved memory is compared byte by byte with what the VM had, through the ELF core of vm.dump."""

import base64
import json
import os
import random
import shutil
import struct
import subprocess
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402

VMCTL = os.path.join(lib.BUILD, "vmctl")
RAM = 0x80000000
TEXT = b"a text that stands here"


def vmctl(daemon, *words, status=0, raw=False):
    done = subprocess.run([VMCTL, "--dir", daemon.dir, *words], capture_output=True, timeout=120, check=False)
    tap.check(done.returncode == status, f"{words}: {done.returncode} {done.stdout[-300:]}{done.stderr}")
    return done.stdout if raw else done.stdout.decode()


def job(client, method, state="done", **params):
    out = client.call("job.wait", job=client.call(method, **params)["job"], timeout_ms=120000)
    tap.check(out["state"] == state, f"{method}: {out}")
    return out


def all_fields(client, **params):
    fields, after = {}, 0
    while after is not None:
        out = client.call("vm.inspect", vm="a", after=after, **params)
        fields.update({(f["part"], f["field"]): f["value"] for f in out["fields"]})
        after = out.get("next")
    return fields


def memory(client, address, size, **params):
    return base64.b64decode(client.call("vm.memory", vm="a", address=hex(address), size=size, **params)["data"])


def found(client, what, **params):
    places, address = [], "0"
    while address is not None:
        out = client.call("vm.memory_search", vm="a", bytes=base64.b64encode(what).decode(), address=address, **params)
        places += [int(place, 0) for place in out["found"]]
        address = out.get("next")
    return places


def loads(path):
    """(physical address, bytes) of each segment of an ELF core."""
    with open(path, "rb") as file:
        data = file.read()
    at, = struct.unpack_from("<Q", data, 32)
    size, n = struct.unpack_from("<HH", data, 54)
    for i in range(n):
        kind, _, offset, _, address, length = struct.unpack_from("<IIQQQQ", data, at + i * size)
        if kind == 1:
            yield address, data[offset:offset + length]


def begun(daemon, client, text=b"."):
    """A guest that writes to its console, with a text in memory at two places that no device knows."""
    path = os.path.join(daemon.dir, "disk.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "4M"], check=True)
    guest = daemon.guest(text=text)
    with open(guest, "ab") as file:
        file.write(b"\0" * (4096 - len(TEXT) // 2 - file.tell() % 4096) + TEXT)  # across two pages
    client.call("vm.define", config={**daemon.config("a", disks=[{"file": path, "format": "qcow2"}]), "firmware": guest})
    client.call("vm.start", vm="a", paused=True)


def every_source_tells_the_same():
    with lib.Daemon() as daemon, daemon.client() as client:
        begun(daemon, client)
        core = os.path.join(daemon.dir, "core")
        client.call("vm.resume", vm="a")
        tap.check(all_fields(client)[("machine", "n_vcpus")] == "0x1", "running: no vCPU")
        tap.check(len(found(client, TEXT)) == 1, "running: the text is not found")
        client.call("vm.pause", vm="a")
        paused, places = all_fields(client), found(client, TEXT)
        tap.check(paused[("vcpu0", "halted")] in ("true", "false") and ("cpu0", "pc") in paused, f"{sorted(paused)[:20]}")
        tap.check(any(part == "device:serial0" for part, _ in paused), f"{ {part for part, _ in paused} }")
        job(client, "vm.dump", vm="a", file=core)
        job(client, "snapshot.create", vm="a", name="one")
        sources = [{}, {"snapshot": "one"}]
        job(client, "vm.save", vm="a")
        for source in sources[1:] + sources[:1]:
            fields = all_fields(client, **source)
            tap.check(fields.keys() == paused.keys(), f"{source}: {fields.keys() ^ paused.keys()}")
            differ = {name for name in fields if fields[name] != paused[name] and name[0] not in ("machine",)}
            tap.check(not differ, f"{source}: {[(n, fields[n], paused[n]) for n in sorted(differ)[:8]]}")
            tap.check(found(client, TEXT, **source) == places, f"{source}: {places}")
            for address, data in loads(core):
                for at in [0, len(data) - 70] + [random.randrange(max(len(data) - 65536, 1)) for _ in range(8)]:
                    size = min(65536, len(data) - at)
                    tap.check(memory(client, address + at, size, **source) == data[at:at + size], f"{source}: memory at {address + at:#x}")
            one = all_fields(client, part="cpu0", **source)
            tap.check(one and all(part == "cpu0" for part, _ in one), f"{source}: a part")
        client.fails("invalid-params", "vm.memory", vm="a", address="0x80000000", size=8, vcpu=0)
        client.fails("file-error", "vm.memory", vm="a", address="0x1000000000000", size=8)
        client.fails("not-found", "vm.inspect", vm="a", snapshot="two")
        client.call("vm.start", vm="a", paused=True)
        tap.check(len(memory(client, RAM, 16, vcpu=0)) == 16, "a virtual address")
        client.fails("invalid-params", "vm.memory", vm="a", address="0x1000000000000", size=8)
        client.call("vm.stop", vm="a")
        client.fails("bad-state", "vm.inspect", vm="a")  # neither runs nor has a state


def snapshots_are_compared_by_field_and_page():
    with lib.Daemon() as daemon, daemon.client() as client:
        begun(daemon, client)
        for name in ("one", "same"):
            job(client, "snapshot.create", vm="a", name=name)
        out = client.call("snapshot.diff", vm="a", **{"from": "one", "to": "same"})
        tap.check(out["pages_changed"] == 0 and {f["part"] for f in out["fields"]} <= {"machine"}, f"{out}")
        client.call("vm.resume", vm="a")
        console = daemon.console("a")
        tap.check(console.read_some(), "the guest does not run")
        console.close()
        client.call("vm.pause", vm="a")
        job(client, "snapshot.create", vm="a", name="two")
        out = client.call("snapshot.diff", vm="a", **{"from": "one", "to": "two"})
        changed = {(f["part"], f["field"]): (f.get("from"), f.get("to")) for f in out["fields"]}
        old, new = (all_fields(client, snapshot=name) for name in ("one", "two"))
        tap.check(changed == {n: (old.get(n), new.get(n)) for n in old.keys() | new.keys() if old.get(n) != new.get(n)}, f"{changed}")
        tap.check(("cpu0", "pc") in changed and out["fields_changed"] == len(changed) and not out.get("truncated"), f"{out}")
        pages = {int(p["address"], 0) + 4096 * i for p in out["pages"] for i in range(p["pages"])}
        tap.check(out["pages_changed"] == len(pages), f"{out['pages']}")
        size, differ = client.call("vm.get", vm="a")["config"]["memory"], set()
        for at in range(0, size, 65536):
            one, two = (memory(client, RAM + at, 65536, snapshot=name) for name in ("one", "two"))
            differ |= {RAM + at + i for i in range(0, 65536, 4096) if one[i:i + 4096] != two[i:i + 4096]}
        tap.check(differ == pages, f"{differ ^ pages}")
        out = client.call("snapshot.diff", vm="a", limit=1, **{"from": "one", "to": "two"})
        tap.check(len(out["fields"]) == 1 and out["truncated"] and out["fields_changed"] == len(changed), f"{out}")
        client.fails("not-found", "snapshot.diff", vm="a", **{"from": "one", "to": "three"})


def damage_is_told_and_hurts_nobody():
    with lib.Daemon() as daemon, daemon.client() as client:
        begun(daemon, client)
        job(client, "snapshot.create", vm="a", name="one")
        where = [os.path.join(folder, "one") for folder, _, names in os.walk(daemon.dir) if "one" in names][0]
        with open(where, "rb") as file:
            whole = file.read()
        rng = random.Random(7)
        for turn in range(40):
            data = bytearray(whole)
            if turn % 2:
                del data[rng.randrange(len(data)):]
            else:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            with open(where, "wb") as file:
                file.write(data)
            for method, more in (("vm.inspect", {"snapshot": "one"}), ("snapshot.diff", {"from": "one", "to": "one"})):
                client.send(method, vm="a", **more)
                answer = client.read()
                bad = answer.get("error", {}).get("data", {}).get("error", "file-error")
                tap.check(bad == "file-error", f"turn {turn}: {answer}")
                tap.check(turn % 2 == 0 or "error" in answer, f"turn {turn}: a state that is cut off is taken for one")
        os.unlink(where)
        client.fails("file-error", "vm.inspect", vm="a", snapshot="one")
        tap.check(client.call("vm.get", vm="a")["state"] == "paused", "it ended")


def vmctl_shows_all_of_it():
    with lib.Daemon() as daemon, daemon.client() as client:
        begun(daemon, client)
        for name in ("one", "two"):
            job(client, "snapshot.create", vm="a", name=name)
        place, = found(client, TEXT)
        tap.check("cpu0" in vmctl(daemon, "inspect", "a"), "inspect")
        tap.check("device:" not in vmctl(daemon, "inspect", "a", "--part", "cpu0"), "inspect --part")
        fields = json.loads(vmctl(daemon, "--json", "snapshot", "show", "a", "one", "--state"))["fields"]
        tap.check({"part": "machine", "field": "n_vcpus", "value": "0x1"} in fields, f"{fields[:4]}")
        tap.check("kept" in vmctl(daemon, "snapshot", "show", "a", "one"), "snapshot show")
        for words in (("memory", "show", "a", hex(place), "32"), ("memory", "show", "a", hex(place), "32", "--snapshot", "one")):
            tap.check("|a text that stan|" in vmctl(daemon, *words), f"{words}")
        tap.check(vmctl(daemon, "--quiet", "memory", "show", "a", hex(place), str(len(TEXT)), raw=True) == TEXT, "bytes")
        tap.check(vmctl(daemon, "memory", "search", "a", TEXT.decode()).split() == [hex(place)], "search")
        tap.check(vmctl(daemon, "memory", "search", "a", "0x" + TEXT.hex(), "--snapshot", "two").split() == [hex(place)], "search by digits")
        vmctl(daemon, "memory", "search", "a", "0xabc", status=2)
        tap.check(vmctl(daemon, "snapshot", "diff", "a", "one", "two").endswith(" pages\n"), "diff")


CASES = [every_source_tells_the_same, snapshots_are_compared_by_field_and_page, damage_is_told_and_hurts_nobody, vmctl_shows_all_of_it]


def main():
    if not shutil.which("qemu-img"):
        print("1..0 # SKIP qemu-img is missing (qemu-utils)")
        return 0
    return tap.run_cases(CASES)


if __name__ == "__main__":
    sys.exit(main())
