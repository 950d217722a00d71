#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""States that earlier builds have saved of q35 and microvm under KVM (tests/emu/golden) load into this one: a bare guest on microvm goes on; of
q35, which waits in its firmware, the devices are what they were. Memory of q35 is no part of its file: SeaBIOS would be in it. Both were
saved by the build of 2026-11-23 with the CPU x86-64-v1, which every host has.

    state_golden_pc.py --write MACHINE FILE     a state of this build, for a golden of its own when a format or a device comes"""

import json
import lzma
import os
import struct
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../emu"):
    sys.path.insert(0, os.path.join(HERE, folder))
import kvm_lib  # noqa: E402
import q35  # noqa: E402
import state  # noqa: E402
from emu_lib import Client, Emu, check_end, read_until, tap  # noqa: E402

GOLDEN = os.path.join(HERE, "..", "emu", "golden")
MIB = 1 << 20
# Never changed: what it says is in the states.
COMMON = {"arch": "x86_64", "engine": "kvm", "cpu": "x86-64-v1", "memory": 64 * MIB, "firmware": None, "rng": True}
CONFIGS = {"microvm": {**COMMON, "machine": "microvm", "cpus": 2, "append": "echo"},
           "q35": {**COMMON, "machine": "q35", "cpus": 2, "root_ports": 1,
                   "nics": [{"name": "nic", "type": "none", "bus": "virtio-pci"}], "usb": [{"type": "keyboard"}, {"type": "tablet"}]}}
DISKS = {"microvm": [("disk", {"bus": "virtio-mmio"})],
         "q35": [("sata", {"bus": "sata"}), ("pci", {"bus": "virtio-pci"}), ("nvme", {"bus": "nvme"}), ("scsi", {"bus": "scsi"})]}
SAID = {"microvm": b"ready\n", "q35": b"second sector of golden.raw"}


class Machine:
    def __init__(self, machine, paused=False):
        why = kvm_lib.missing()
        if why or (machine == "q35" and not os.path.exists(q35.SEABIOS)):
            raise tap.Skip(why or f"{q35.SEABIOS} (seabios)")
        self.folder = tempfile.TemporaryDirectory()
        config, files, disks = dict(CONFIGS[machine]), {}, []
        for name, more in DISKS[machine]:
            if machine == "q35":
                path = q35.boot_disk("golden.raw" if name == "sata" else name, self.folder.name)
            else:
                path = kvm_lib.make_disk(self.folder.name, name)
            files[path] = os.O_RDWR
            disks.append({"name": name, "file": path, "format": "raw", **more})
        if machine == "microvm":
            config["kernel"] = kvm_lib.build_guest(self.folder.name)
            files[config["kernel"]] = os.O_RDONLY
        else:
            files[q35.SEABIOS] = os.O_RDONLY
        with open("/dev/kvm", "r+b", buffering=0) as kvm:
            self.emu = Emu(config={**config, "disks": disks}, files=files, paused=paused, extra=("--kvm-fd", str(kvm.fileno())),
                           descriptors=(kvm.fileno(),))

    def __enter__(self):
        return self.emu.__enter__()

    def __exit__(self, *what):
        self.emu.__exit__(*what)
        self.folder.cleanup()


def fields(client):
    """{(part, field): value} of all of the machine's state."""
    out, after = {}, 0
    while after is not None:
        answer = client.ok("emu.state", after=after)
        out.update({(f["part"], f["field"]): f["value"] for f in answer["fields"]})
        after = answer.get("next")
    return out


def without_memory(data):
    """The same in format 1 (state.format_1), whose seals can be made here, with no section of memory."""
    out, index = bytearray(data[:64]), b""
    for (kind, region, page), (where, size, digest) in state.entries(data).items():
        if kind != state.MEMORY:
            index += struct.pack("<IIQQQ32s", kind, region, page, len(out), size, digest)
            out += data[where:where + size]
    end = bytearray(data[-64:])
    struct.pack_into("<QQ", end, 16, len(out), len(index))
    return state.format_1(bytes(out + index + end))


def write(machine, path):
    with Machine(machine) as emu:
        console, c = emu.connect(emu.console), Client(emu)
        read_until(console, SAID[machine])
        data, answer = state.save(c)
        tap.check("result" in answer, f"{answer}")
        said = {f"{part}/{field}": value for (part, field), value in fields(c).items()}
        c.ok("emu.quit")
        check_end(emu)
    if machine == "q35":
        data = without_memory(data)
    with lzma.open(path, "wb", preset=9) as file:
        file.write(struct.pack("<Q", len(data)) + data + json.dumps(said).encode())


def golden(machine):
    """The state, and the fields that were in it."""
    with lzma.open(os.path.join(GOLDEN, f"{machine}.golden.xz"), "rb") as file:
        whole = file.read()
    size = struct.unpack_from("<Q", whole)[0]
    return whole[8:8 + size], json.loads(whole[8 + size:])


def is_taken(client, data):
    answer = state.load(client, data)
    if "error" in answer and "CPU" in answer["error"]["message"]:
        raise tap.Skip("the host's processor: " + answer["error"]["message"])
    tap.check("result" in answer, f"{answer}")


def same(machine, client, said):
    """But for what passes by itself, and what is of this host."""
    now = {f"{part}/{field}": value for (part, field), value in fields(client).items()}
    lost = sorted(name for name in said if name not in now)
    other = sorted(name for name in said if name in now and now[name] != said[name])
    print(f"# {machine}: {len(said)} fields, {len(now)} now, other: {other[:8]}")
    tap.check(not lost, f"{lost[:20]}")
    tap.check(len(other) <= 8, f"{[(n, said[n][:60], now[n][:60]) for n in other[:20]]}")


def a_bare_guest_on_microvm_goes_on():
    data, said = golden("microvm")
    with Machine("microvm", paused=True) as emu:
        console, c = emu.connect(emu.console), Client(emu)
        is_taken(c, data)
        same("microvm", c, said)
        c.ok("emu.resume")
        state.echo(console, b"b")
        console.sendall(b"q")
        check_end(emu)


def devices_of_q35_are_what_they_were():
    data, said = golden("q35")
    with Machine("q35", paused=True) as emu:
        c = Client(emu)
        is_taken(c, data)
        same("q35", c, said)
        c.ok("emu.quit")
        check_end(emu)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write(*sys.argv[2:4])
        sys.exit(0)
    sys.exit(tap.run_cases([a_bare_guest_on_microvm_goes_on, devices_of_q35_are_what_they_were]))
