# SPDX-License-Identifier: Apache-2.0
"""Vectors under a real kernel: it finds them in the device tree, offers them to programs and keeps the
registers of each over context switches (EMULATOR=qemu10: under QEMU, to test the test)."""

import os
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in ("bench", "guests", "lib"):
    sys.path.insert(0, os.path.join(HERE, "..", folder))
import build  # noqa: E402
import guest  # noqa: E402
import newc  # noqa: E402
import tap  # noqa: E402


def run(vlen, cpus):
    """Boots with the program in the initramfs; returns the console."""
    files = guest.fetched("riscv64")
    source = os.path.join(HERE, "vector_switch.c")
    program = build.made([build.compiler(), *build.FLAGS], source, [source])
    archive = newc.Newc()
    for name in ("bench", "bench/rows"):
        archive.folder(name)
    archive.file("bench/vector_switch", build.contents(program), 0o755)
    archive.file("bench/rows/vector", b"exec /bench/vector_switch\n", 0o755)
    with tempfile.NamedTemporaryFile(suffix=".cpio") as initrd:
        first = build.contents(files["initrd"])
        initrd.write(first + b"\0" * (-len(first) % 512) + archive.bytes())
        initrd.flush()
        config = {"arch": "riscv64", "cpus": cpus, "memory": 512 << 20, "kernel": files["kernel"],
                  "initrd": initrd.name, "append": "console=ttyS0 vmd.run=row:vector"}
        arguments = []
        if os.environ.get("EMULATOR", "vmd") == "vmd":
            config["cpu"] = f"max,vlen={vlen}"
        else:
            arguments = ["-cpu", f"max,vlen={vlen}"]
        with guest.Guest(config, None, arguments) as vm:
            vm.expect(r"^BOOT-OK\r", 240)
            vm.expect(r"^VECTOR-SWITCH .*\r", 240)
            vm.wait(240)
            return vm.text()


def check(vlen, cpus):
    text = run(vlen, cpus)
    tap.check("VECTOR-SWITCH ok" in text, text[-1500:])
    extensions = next((line for line in text.splitlines() if "ISA extensions" in line), "")
    letters = extensions.split()[-1] if extensions else ""
    tap.check("v" in letters, f"the kernel says: {extensions}")


def processes_keep_their_vector_registers():
    check(256, 1)


def processes_keep_their_vector_registers_on_two_vcpus():
    check(128, 2)


if __name__ == "__main__":
    sys.exit(tap.run_cases((processes_keep_their_vector_registers,
                            processes_keep_their_vector_registers_on_two_vcpus),
                           missing=(guest.Unavailable,)))
