# SPDX-License-Identifier: Apache-2.0
"""States that earlier builds have saved (tests/emu/golden, by format; packed) load into this one, and the guest goes on. The machine has a device of
every kind of rv-virt that keeps a state by itself. rv-virt-2 was saved by the build of 2026-11-23, and is read with the seals of format 1, too
(state.format_1), of which no build had left a file. What an earlier build wrote is the one test input that nobody can write by hand.

    state_golden.py --write FILE     a state of this build, for a golden of its own when a format or a device comes"""

import lzma
import os
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import state  # noqa: E402
from emu_lib import Client, Emu, check_end, ready, tap  # noqa: E402

GOLDEN = os.path.join(HERE, "golden")
MIB = 1 << 20
# Never changed: what it says is in the states.
DISKS = [("virtio", {"bus": "virtio-mmio"}), ("pci", {"bus": "virtio-pci"}), ("nvme", {"bus": "nvme"}), ("scsi", {"bus": "scsi"}),
         ("sata", {"bus": "sata"}), ("stick", {"bus": "usb"}), ("cd", {"bus": "sata", "cdrom": True, "readonly": True})]
CONFIG = {"cpus": 2, "memory": 64 * MIB, "rng": True, "balloon": {"memory": 64 * MIB}, "root_ports": 1,
          "memory_devices": [{"size": 8 * MIB, "requested": 0}], "display": {"device": "virtio", "width": 640, "height": 480},
          "nics": [{"name": "mmio", "type": "none"}, {"name": "pci", "type": "none", "bus": "virtio-pci"}],
          "usb": [{"type": "hub"}, {"type": "keyboard"}, {"type": "tablet"}]}


class Machine:
    def __init__(self, paused=False):
        self.files = []
        disks = []
        for name, more in DISKS:
            file = tempfile.NamedTemporaryFile()
            file.truncate(MIB)
            self.files.append(file)
            disks.append({"name": name, "file": file.name, **more})
        modes = {d["file"]: os.O_RDONLY if d.get("readonly") else os.O_RDWR for d in disks}
        self.emu = Emu(config={**CONFIG, "disks": disks}, files=modes, paused=paused)

    def __enter__(self):
        return self.emu.__enter__()

    def __exit__(self, *what):
        self.emu.__exit__(*what)
        for file in self.files:
            file.close()


def parts(client):
    """Names of what the machine's state is of."""
    out, after = set(), 0
    while after is not None:
        answer = client.ok("emu.state", after=after)
        out |= {f["part"] for f in answer["fields"]}
        after = answer.get("next")
    return out


def write(path):
    with Machine() as emu:
        console, c = ready(emu)
        state.echo(console, b"a")
        data, _ = state.save(c)
        console.sendall(b"q")
        c.ok("emu.quit")
        check_end(emu)
    with lzma.open(path, "wb", preset=9) as file:
        file.write(data)


def goes_on(name, data):
    with Machine(paused=True) as emu:
        console, c = emu.connect(emu.console), Client(emu)
        answer = state.load(c, data)
        tap.check("result" in answer, f"not loaded: {answer}")
        names = parts(c)
        print(f"# {name}: {len(data)} bytes, {len(names)} parts")
        tap.check(len(names) > 20, f"{sorted(names)}")
        c.ok("emu.resume")
        state.echo(console, b"b")
        console.sendall(b"q")
        check_end(emu)


def each_state_of_an_earlier_build_goes_on():
    names = sorted(n for n in os.listdir(GOLDEN) if n.endswith(".state.xz"))
    tap.check(names, "there is no state of an earlier build")
    for name in names:
        with lzma.open(os.path.join(GOLDEN, name), "rb") as file:
            data = file.read()
        goes_on(name, data)
        if name.endswith("-2.state.xz"):
            goes_on(name + " in format 1", state.format_1(data))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write(sys.argv[2])
        sys.exit(0)
    sys.exit(tap.run_cases([each_state_of_an_earlier_build_goes_on]))
