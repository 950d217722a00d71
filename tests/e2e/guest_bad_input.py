# SPDX-License-Identifier: Apache-2.0
"""Bad configurations, files and guests: each gives a clear error or a guest-visible fault.

Whatever a guest does, the emulator neither dies of a signal nor hangs: it is still there and ends
when asked to. Random guests print their seed; VMD_TEST_SEED sets it.
"""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in ("guests", "lib", "isa"):
    sys.path.insert(0, os.path.join(HERE, "..", folder))
import cases  # noqa: E402
import guest  # noqa: E402
import image  # noqa: E402
import insns  # noqa: E402
import tap  # noqa: E402

MIB = 1 << 20
SEED = int(os.environ.get("VMD_TEST_SEED", time.time()))
KIND = os.environ.get("EMULATOR", "vmd")


def refused(config, *words, text=None, timeout=30.0):
    """The emulator ends with status 1 and one message that has all the words."""
    if KIND != "vmd":
        raise tap.Skip("the messages are vmd-emu's")
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(json.dumps({"name": "bad", **config}) if text is None else text)
        file.flush()
        try:
            run = subprocess.run(
                [guest.emulator_path("vmd"), "--config", file.name, "--console", "stdio"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise AssertionError("accepted: it ran on") from None
    errors = run.stderr.decode(errors="replace")
    tap.check(run.returncode == 1, f"exit status {run.returncode}, stderr {errors[-500:]!r}")
    tap.check(errors.strip() and len(errors) < 4000, f"message is {errors[:500]!r}")
    for word in words:
        tap.check(word.lower() in errors.lower(), f"no {word!r} in {errors[-500:]!r}")


def file_with(data, suffix=".bin"):
    file = tempfile.NamedTemporaryFile(suffix=suffix)
    file.write(data)
    file.flush()
    return file


def missing_kernel_names_the_file():
    refused({"kernel": "/nonexistent/kernel"}, "/nonexistent/kernel")


def missing_initrd_names_the_file():
    refused({"kernel": guest.fetched("riscv64")["kernel"], "initrd": "/nonexistent/initrd"},
            "/nonexistent/initrd")


def missing_firmware_names_the_file():
    refused({"firmware": "/nonexistent/firmware"}, "/nonexistent/firmware")


def missing_disk_names_the_file():
    refused({"kernel": guest.fetched("riscv64")["kernel"],
             "disks": [{"name": "d", "file": "/nonexistent/disk", "format": "raw"}]},
            "/nonexistent/disk")


def kernel_that_is_a_folder_is_refused():
    refused({"kernel": "/tmp"}, "/tmp")


def empty_kernel_is_refused():
    with file_with(b"") as file:
        refused({"kernel": file.name}, file.name)


def truncated_image_is_refused():
    with open(guest.fetched("riscv64")["kernel"], "rb") as kernel:
        data = kernel.read()
    for size in (64, 100, 4096, len(data) // 2, len(data) - 1):
        with file_with(data[:size]) as file:
            refused({"kernel": file.name}, file.name)


def truncated_compressed_image_is_refused():
    with open(guest.fetched("riscv64")["kernel"], "rb") as kernel:
        data = gzip.compress(kernel.read(4 * MIB), 1)
    with file_with(data[:len(data) // 2]) as file:
        refused({"kernel": file.name}, file.name)


def compression_bomb_is_refused():
    with file_with(gzip.compress(bytes(1 << 29), 1)) as file:
        refused({"kernel": file.name, "memory": 128 * MIB}, file.name)


def elf_of_another_architecture_is_refused():
    refused({"kernel": "/bin/true"}, "/bin/true")
    refused({"firmware": "/bin/true"}, "/bin/true")


def elf_with_damaged_headers_is_refused():
    path = guest.fetched("u-boot")["uboot"]
    with open(path, "rb") as file:
        good = file.read()
    rng = random.Random(SEED)
    for size in (20, 63, 100, 4000):
        with file_with(good[:size]) as file:
            refused({"firmware": file.name}, file.name)
    # Program headers that point outside the file.
    broken = bytearray(good)
    broken[32:40] = rng.getrandbits(64).to_bytes(8, "little")
    with file_with(broken) as file:
        refused({"firmware": file.name}, file.name)


def initrd_beyond_memory_is_refused():
    kernel = guest.fetched("riscv64")["kernel"]
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(256 * MIB)
        refused({"kernel": kernel, "initrd": file.name, "memory": 128 * MIB}, file.name)


def impossible_sizes_are_refused():
    kernel = guest.fetched("riscv64")["kernel"]
    for change in ({"memory": 0}, {"memory": -1}, {"memory": 1 << 62}, {"memory": 1 << 50},
                   {"cpus": 0}, {"cpus": -1}, {"cpus": 100000}, {"memory": 4097}):
        refused({"kernel": kernel, **change}, list(change)[0].rstrip("s"))


def malformed_configurations_are_refused():
    for text in ("", "{", "[]", "null", "\0", '{"name":1}', '{"name":"x","cpus":"two"}',
                 '{"name":"x","nonsense":1}', "[" * 100000, '{"name":"x","arch":"vax"}',
                 '{"name":"x","machine":"toaster"}', '{"name":"x","engine":"steam"}',
                 '{"name":"x","tcg":{"backend":"guess"}}', '{"name":"x","tcg":{"cache_size":1}}',
                 '{"name":"x","disks":[{}]}', '{"name":"x","disks":{}}'):
        refused({}, text=text)


def missing_configuration_is_refused():
    if KIND != "vmd":
        raise tap.Skip("the messages are vmd-emu's")
    for arguments in (["--config", "/nonexistent"], ["--config"], [], ["--nonsense"]):
        run = subprocess.run([guest.emulator_path("vmd"), *arguments], capture_output=True,
                             stdin=subprocess.DEVNULL, timeout=30, check=False)
        tap.check(run.returncode == 1, f"{arguments}: exit status {run.returncode}")
        tap.check(run.stderr.strip(), f"{arguments}: no message")


def survives(program, seconds, cpus=1, **more):
    """Runs a bare-metal program: it may end, reset or loop, but only as a guest may.

    Returns the console's bytes.
    """
    with file_with(program) as file:
        config = {"memory": 64 * MIB, "firmware": file.name, "cpus": cpus, **more}
        with guest.Guest(config) as vm:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline and vm.process.poll() is None:
                if not vm._read(min(deadline, time.monotonic() + 0.2)):
                    break
            status = vm.process.poll()
            if status is None:
                vm.process.send_signal(signal.SIGTERM)
                try:
                    status = vm.process.wait(20)
                except subprocess.TimeoutExpired:
                    raise AssertionError("still there 20 s after SIGTERM") from None
                tap.check(status in (0, -signal.SIGTERM), f"exit status {status} after SIGTERM")
            vm._collect_errors()
            tap.check(status in (0, -signal.SIGTERM),
                      f"exit status {status}: {vm.errors[-800:].decode(errors='replace')}")
            return bytes(vm.output)


def asm(xlen=64):
    return image.Asm(image.RAM, xlen)


def jump(asm_, target):
    asm_.const("t0", target)
    asm_.op("jalr", "zero", "t0", 0)
    return asm_.bytes()


def guest_that_jumps_nowhere_does_no_harm():
    for target in (0, 0x1000000, 0x7ffffff0, 0xdeadbeec, 0x10000000, 0x100000):
        survives(jump(asm(), target), 1.0)


def guest_that_traps_at_its_vector_for_ever_does_no_harm():
    program = asm()
    program.op("csrrw", "zero", "mtvec", "zero")
    program.op("ecall")
    survives(program.bytes(), 2.0, cpus=2)


def guest_whose_vector_is_an_illegal_instruction_does_no_harm():
    program = asm()
    program.op("jal", "t0", "over")
    program.words += [0, 0]
    program.label("over")
    program.op("csrrw", "zero", "mtvec", "t0")
    program.op("ecall")
    survives(program.bytes(), 2.0)


def guest_of_zeros_does_no_harm():
    survives(bytes(4096), 1.0)
    survives(b"\xff" * 4096, 1.0)


def guest_of_random_bytes_does_no_harm():
    rng = random.Random(SEED)
    for number in range(12):
        data = bytearray(rng.randbytes(65536))
        if number % 2:
            # Valid instructions in random order go further than random bits.
            table = list(insns.instructions(64).values())
            data = bytearray()
            while len(data) < 60000:
                insn = rng.choice(table)
                data += cases.word_bytes(insn, cases.draw_operands(rng, insn))
        survives(bytes(data), 0.7, cpus=1 + number % 3)


# Address, size: everything the board has, and some of what it has not.
DEVICES = (
    (0x100000, 0x1000), (0x101000, 0x1000), (0x2000000, 0x10000), (0x2004000, 0x20),
    (0xc000000, 0x3000), (0xc200000, 0x4000), (0x10000000, 0x100), (0x10001000, 0x200),
    (0x10002000, 0x200), (0x10003000, 0x200), (0x10004000, 0x200), (0x10005000, 0x200),
    (0x10006000, 0x200), (0x10007000, 0x200), (0x10008000, 0x200), (0x10100000, 0x18),
    (0x20000000, 0x100), (0x22000000, 0x100), (0x30000000, 0x100), (0x40000000, 0x100),
    (0x1000, 0x100), (0x3000, 0x100),
)


def device_fuzzer(seed, count):
    """A program that reads and writes device registers at random, then says so and ends.

    s0: xorshift state, s1: accesses left. Values are random, small, or addresses of RAM. Traps skip
    the access. Powering off by accident needs one value of 2^32 at one address.
    """
    program = asm()
    program.op("jal", "t1", "start")
    program.label("trap")
    program.op("csrrs", "t0", "mepc", "zero")
    program.op("addi", "t0", "t0", 4)
    program.op("csrrw", "zero", "mepc", "t0")
    program.op("mret")
    program.label("start")
    program.op("csrrw", "zero", "mtvec", "t1")
    program.const("s0", seed & 0x7fffffff | 1)
    program.const("s1", count)
    program.label("loop")
    program.op("jal", "ra", "random")
    draw_address(program)
    draw_value(program)
    draw_access(program)
    program.op("addi", "s1", "s1", -1)
    program.op("bne", "s1", "zero", "loop")
    finish(program)
    program.label("random")
    for name, by in (("slli", 13), ("srli", 7), ("slli", 17)):
        program.op(name, "t0", "s0", by)
        program.op("xor", "s0", "s0", "t0")
    program.op("jalr", "zero", "ra", 0)
    code = program.bytes()
    # Behind the code: the table of windows, 16 bytes each.
    table = b"".join(base.to_bytes(8, "little") + size.to_bytes(8, "little")
                     for base, size in DEVICES)
    return code + bytes(TABLE_AT - len(code)) + table


TABLE_AT = 0x800


def draw_address(program):
    """s2: an address in a random window, mostly aligned to 4."""
    program.op("srli", "t1", "s0", 20)
    program.op("addi", "t2", "zero", len(DEVICES))
    program.op("remu", "t1", "t1", "t2")
    program.op("slli", "t1", "t1", 4)
    program.const("t2", image.RAM + TABLE_AT)
    program.op("add", "t1", "t1", "t2")
    program.op("ld", "s2", 0, "t1")
    program.op("ld", "t1", 8, "t1")
    program.op("jal", "ra", "random")
    program.op("srli", "t2", "s0", 9)
    program.op("remu", "t2", "t2", "t1")
    program.op("andi", "t1", "s0", 7)
    program.op("beq", "t1", "zero", "unaligned")
    program.op("andi", "t2", "t2", -4)
    program.label("unaligned")
    program.op("add", "s2", "s2", "t2")


def draw_value(program):
    """s3: a small number, random bits, or an address of RAM beyond the program."""
    program.op("jal", "ra", "random")
    program.op("addi", "s3", "s0", 0)
    program.op("srli", "t1", "s0", 33)
    program.op("andi", "t1", "t1", 3)
    program.op("beq", "t1", "zero", "have_value")
    program.op("andi", "s3", "s3", 15)
    program.op("addi", "t2", "zero", 1)
    program.op("beq", "t1", "t2", "have_value")
    program.const("t2", image.RAM + 16 * MIB)
    program.const("t3", 0xfff000)
    program.op("and", "s3", "s0", "t3")
    program.op("add", "s3", "s3", "t2")
    program.label("have_value")


def draw_access(program):
    """One of eight loads and stores of s3 at s2."""
    program.op("jal", "ra", "random")
    program.op("srli", "t1", "s0", 13)
    program.op("andi", "t1", "t1", 7)
    choices = (("lb", "t3", 0, "s2"), ("lhu", "t3", 0, "s2"), ("lw", "t3", 0, "s2"),
               ("ld", "t3", 0, "s2"), ("sb", "s3", 0, "s2"), ("sw", "s3", 0, "s2"),
               ("sw", "s3", 0, "s2"), ("sd", "s3", 0, "s2"))
    for number, operands in enumerate(choices):
        program.op("addi", "t2", "zero", number)
        program.op("bne", "t1", "t2", f"not_{number}")
        program.op(*operands)
        program.label(f"not_{number}")


def finish(program):
    """Resets the UART, prints FUZZ-DONE, powers off."""
    program.const("s5", image.UART)
    for offset, value in ((3, 3), (1, 0), (4, 0), (2, 7), (3, 3)):
        program.op("addi", "t0", "zero", value)
        program.op("sb", "t0", offset, "s5")
    for letter in b"\nFUZZ-DONE\n":
        program.op("addi", "t0", "zero", letter)
        program.op("sb", "t0", 0, "s5")
    program.const("t0", image.SYSCON)
    program.const("t1", 0x5555)
    program.op("sw", "t1", 0, "t0")
    program.label("end")
    program.op("jal", "zero", "end")


def guest_that_writes_every_device_register_at_random_does_no_harm():
    done = 0
    with tempfile.NamedTemporaryFile() as disk:
        disk.truncate(MIB)
        for number in range(6):
            # A virtio device told to use the program's own pages may overwrite it: then the
            # guest is lost, and only the emulator's health counts.
            output = survives(device_fuzzer(SEED + number, 200000), 20.0, rng=True,
                              disks=[{"name": "d", "file": disk.name, "format": "raw"}])
            done += b"FUZZ-DONE" in output
    tap.check(done >= 1, "no run came to its end")


CASES = (
    missing_kernel_names_the_file, missing_initrd_names_the_file,
    missing_firmware_names_the_file, missing_disk_names_the_file,
    kernel_that_is_a_folder_is_refused, empty_kernel_is_refused, truncated_image_is_refused,
    truncated_compressed_image_is_refused, compression_bomb_is_refused,
    elf_of_another_architecture_is_refused, elf_with_damaged_headers_is_refused,
    initrd_beyond_memory_is_refused, impossible_sizes_are_refused,
    malformed_configurations_are_refused, missing_configuration_is_refused,
    guest_that_jumps_nowhere_does_no_harm,
    guest_that_traps_at_its_vector_for_ever_does_no_harm,
    guest_whose_vector_is_an_illegal_instruction_does_no_harm, guest_of_zeros_does_no_harm,
    guest_of_random_bytes_does_no_harm,
    guest_that_writes_every_device_register_at_random_does_no_harm,
)

if __name__ == "__main__":
    print(f"# seed {SEED}")
    sys.exit(tap.run_cases(CASES, missing=(guest.Unavailable,)))
