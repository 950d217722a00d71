# SPDX-License-Identifier: Apache-2.0
"""Runs images of cases under vmd-emu or QEMU, and tells one outcome from another."""

import os
import sys
import tempfile

import image

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "guests"))
import guest  # noqa: E402

# The reference without what our CPU does not have: a hypervisor extension changes CSRs.
QEMU_CPU = {("qemu", 64): "rv64,h=false", ("qemu", 32): "rv32,h=false",
            ("qemu10", 64): "max,h=false,v=false",
            ("qemu10", 32): "max,h=false,v=false"}
# Without what the older reference has off: vectors change mstatus.
VMD_CPU = "max,zve32x=off"
TIMEOUT = float(os.environ.get("VMD_ISA_TIMEOUT", "120"))


class Ended(Exception):
    """An emulator did not reach the end of an image: the text says how it ended."""

    def __init__(self, text, results):
        super().__init__(text)
        self.results = results


def run(emulator, built, backend="jit", timeout=TIMEOUT, cache=0, cpu=None):
    """Runs an Image; returns its results.

    emulator is vmd, qemu or qemu10; backend and cache (the code cache's bytes) are vmd's; cpu is
    the model in the emulator's own words.
    """
    with tempfile.NamedTemporaryFile(prefix="vmd-isa-", suffix=".bin") as file:
        file.write(built.bytes())
        file.flush()
        config = {"arch": f"riscv{built.xlen}", "memory": 128 << 20, "firmware": file.name}
        arguments = []
        if emulator == "vmd":
            config["tcg"] = {"backend": backend}
            if cache:
                config["tcg"]["cache_size"] = cache
            config["cpu"] = cpu or VMD_CPU
        else:
            arguments = ["-cpu", cpu or QEMU_CPU[emulator, built.xlen]]
        with guest.Guest(config, emulator, arguments) as vm:
            try:
                status = vm.wait(timeout)
            except guest.GuestError as problem:
                raise Ended(str(problem).splitlines()[0], partial(built, vm)) from None
            if status != 0:
                text = vm.errors.decode(errors="replace").strip()[-300:]
                raise Ended(f"exit status {status}: {text}", partial(built, vm))
            results = built.parse(bytes(vm.output))
    if len(results) != len(built.cases):
        raise Ended(f"{len(results)} results of {len(built.cases)} cases", results)
    return results


def partial(built, vm):
    try:
        return built.parse(bytes(vm.output))
    except ValueError:
        return []


def available(emulator, xlen=64):
    """Raises guest.Unavailable with what is missing."""
    guest.emulator_path(emulator, f"riscv{xlen}")
