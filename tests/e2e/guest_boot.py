# SPDX-License-Identifier: Apache-2.0
"""Boots real firmware and Linux under vmd-emu (EMULATOR=qemu: under QEMU, to test the test)."""

import gzip
import os
import re
import sys
import tempfile
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in ("guests", "lib"):
    sys.path.insert(0, os.path.join(HERE, "..", folder))
import guest  # noqa: E402
import tap  # noqa: E402

MIB = 1 << 20


def linux(run, cpus=1, memory=512 * MIB, target="riscv64", append="", **more):
    """A VmConfig of the test kernel doing what `run` asks for."""
    files = guest.fetched(target)
    return {"arch": "riscv64", "cpus": cpus, "memory": memory, "kernel": files["kernel"],
            "initrd": files["initrd"], "append": f"console=ttyS0 {append} vmd.run={run}", **more}


def boot(config, *patterns, timeout=240.0):
    """Boots to BOOT-OK, sees the patterns in order, then the power-off; returns the console."""
    with guest.Guest(config) as vm:
        vm.expect(r"^BOOT-OK\r", timeout)
        matches = [vm.expect(pattern, timeout) for pattern in patterns]
        status = vm.wait(timeout)
        tap.check(status == 0, f"exit status {status} after power-off: {vm.errors[-500:]!r}")
        return vm.text(), matches


def linux_boots_with_one_vcpu():
    text, _ = boot(linux("cpus"), r"^Linux .* riscv64 GNU/Linux", r"^CPUS 1\r")
    tap.check("OpenSBI v" in text, "no OpenSBI banner before the kernel")


def linux_boots_with_four_vcpus():
    text, _ = boot(linux("cpus,bench:fork", cpus=4), r"^CPUS 4\r", r"^BENCH fork \S+ 300")
    tap.check(re.search(r"HART Count\s*: 4", text), "OpenSBI did not count four harts")


def linux_boots_on_the_cpu_of_a_profile():
    """rva23s64 has Svade and no Svadu: the kernel sets accessed and dirty bits on page faults."""
    boot(linux("cpus", cpu="rva23s64"), r"^CPUS 1\r")


def linux_boots_in_128_mib():
    boot(linux("poweroff", memory=128 * MIB))


def linux_boots_in_2_gib():
    boot(linux("poweroff", memory=2048 * MIB))


def linux_boots_from_a_compressed_image():
    if os.environ.get("EMULATOR", "vmd") != "vmd":
        raise tap.Skip("QEMU 7.2 takes no compressed Image for riscv")
    config = linux("poweroff")
    with tempfile.NamedTemporaryFile(suffix=".gz") as file:
        with open(config["kernel"], "rb") as kernel:
            file.write(gzip.compress(kernel.read(), 1))
        file.flush()
        boot({**config, "kernel": file.name})


def guest_results_are_right():
    """The programs of the bench, for their output and not their time."""
    boot(linux("bench:sha256,bench:gzip"), r"^BENCH sha256 \S+ 3b6a07d0d404fab4",
         r"^BENCH gzip \S+ 36")


def reset_boots_again_in_the_same_process():
    with guest.Guest(linux("reboot")) as vm:
        vm.expect(r"^BOOT-OK\r", 240)
        vm.expect(r"OpenSBI v", 240)
        vm.expect(r"^BOOT-OK\r", 240)


def guest_clock_keeps_host_time():
    """Ten seconds of the guest are ten seconds of the host, within what scheduling explains."""
    with guest.Guest(linux("ticks:11")) as vm:
        vm.expect(r"^TICK 1\r", 240)
        began = time.monotonic()
        vm.expect(r"^TICK 11\r", 60)
        took = time.monotonic() - began
        tap.check(9.0 < took < 30.0, f"ten ticks took {took:.1f} s")


def clock_starts_where_the_definition_says():
    """A year on; the local time of a zone east of Greenwich. A minute is for the boot on a busy host."""
    if os.environ.get("EMULATOR", "vmd") != "vmd":
        raise tap.Skip("QEMU has options of its own for that")
    zone = os.environ.get("TZ")
    os.environ["TZ"] = "XST-5:30"
    try:
        for clock, ahead in (({"offset": 31536000}, 31536000), ({"base": "localtime"}, 19800),
                             ({"base": "localtime", "offset": -3600}, 16200)):
            said = re.search(r"setting system clock to \S+ UTC \((\d+)\)", boot(linux("poweroff", clock=clock))[0])
            behind = time.time() + ahead - int(said.group(1))
            tap.check(-2 < behind < 240, f"{clock}: {behind} s behind")
    finally:
        os.environ.pop("TZ")
        if zone is not None:
            os.environ["TZ"] = zone


def virtio_rng_gives_bytes():
    _, (first, second) = boot(linux("rng,rng", append="vmd.virtio", rng=True),
                              r"^RNG ([0-9a-f]{32})\r", r"^RNG ([0-9a-f]{32})\r")
    tap.check(first.group(1) != second.group(1), "the same bytes twice")


def with_disk(run, readonly, *patterns):
    with tempfile.NamedTemporaryFile(suffix=".raw") as file:
        file.write(b"first line of the disk\n")
        file.truncate(3 * MIB)
        disk = {"name": "root", "file": file.name, "format": "raw", "readonly": readonly}
        boot(linux(run, target="riscv64-disk", append="vmd.virtio", disks=[disk]), *patterns)
        file.seek(3 * MIB - 512)
        return file.read(64)


def virtio_blk_reads_and_writes_a_raw_file():
    tail = with_disk("disk,diskwrite:persist", False, r"^DISK 6144 first line of the disk",
                     r"^DISKWRITE persist")
    tap.check(tail.startswith(b"persist "), f"the file ends in {tail!r}")


def virtio_blk_refuses_writes_to_a_readonly_disk():
    tail = with_disk("disk,diskwrite:persist", True, r"^DISK 6144 first line of the disk")
    tap.check(tail == bytes(64), f"the file ends in {tail!r}")


def uboot_reaches_its_prompt_under_opensbi():
    path = guest.fetched("u-boot")["uboot_bin"]
    config = {"arch": "riscv64", "cpus": 1, "memory": 256 * MIB, "kernel": path}
    with guest.Guest(config) as vm:
        vm.expect(r"OpenSBI v", 60)
        vm.expect(r"U-Boot 20\d\d", 60)
        vm.expect(r"Hit any key", 60)
        vm.send("\r")
        vm.expect(r"^=> ", 60)
        vm.send("setexpr x 0x1234 + 1; printenv x\r")
        vm.expect(r"^x=1235", 60)


def opensbi_alone_runs_in_machine_mode():
    """fw_jump started as firmware, with nothing behind it."""
    path = guest.fetched("opensbi")["opensbi_jump"]
    with guest.Guest({"arch": "riscv64", "memory": 128 * MIB, "firmware": path}) as vm:
        vm.expect(r"OpenSBI v\d", 60)
        vm.expect(r"Boot HART MEDELEG\s*: 0x", 60)


CASES = (
    linux_boots_with_one_vcpu, linux_boots_with_four_vcpus,
    linux_boots_on_the_cpu_of_a_profile, linux_boots_in_128_mib,
    linux_boots_in_2_gib, linux_boots_from_a_compressed_image, guest_results_are_right,
    reset_boots_again_in_the_same_process, guest_clock_keeps_host_time, clock_starts_where_the_definition_says,
    virtio_rng_gives_bytes, virtio_blk_reads_and_writes_a_raw_file,
    virtio_blk_refuses_writes_to_a_readonly_disk, uboot_reaches_its_prompt_under_opensbi, opensbi_alone_runs_in_machine_mode,
)

if __name__ == "__main__":
    sys.exit(tap.run_cases(CASES, missing=(guest.Unavailable,)))
