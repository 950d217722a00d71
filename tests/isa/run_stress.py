# SPDX-License-Identifier: Apache-2.0
"""Several vCPUs, their page tables and code changing all the time.

Bare-metal programs in supervisor mode. Hart 0 is the master: in each generation it builds new pages,
or new instructions, makes them current, asks the others for the fence by a software interrupt
(served in machine mode) and, when all have answered, spoils what was current before. The others
(workers) load, store and call there without a pause. Whatever they meet must belong to the
generation that they answered last or to the one after it; what was given up must stay as it was
spoiled. So a stale TLB entry, a stale jump or a stale block shows as a wrong number.

VMD_TEST_COUNT sets the generations. EMULATOR=qemu runs the programs under QEMU.
"""

import os
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import image  # noqa: E402
import runner  # noqa: E402

sys.path.insert(0, os.path.join(runner.HERE, "..", "lib"))
import tap as taplib  # noqa: E402

guest = runner.guest

HARTS = 4
MSIP = 0x2000000
TABLES = image.RAM + 0x400000       # root, middle, leaves
FRAMES = image.RAM + 0x500000       # four frames of four pages, taken in turn
SAVE = image.RAM + 0x600000         # 256 bytes a hart, for the trap handler
WORDS = image.RAM + 0x610000        # the words below, a line each
VA = 0x40000000
NAMES = ("request", "errors_load", "errors_store", "errors_cross", "errors_call",
         "errors_straddle", "errors_patch", "errors_patch_straddle", "errors_kept", "errors_many",
         "stop", "done", "trap", "turns")
AT = {name: WORDS + 64 * number for number, name in enumerate(NAMES)}
ACK = WORDS + 0x1000                # a line a hart
ERRORS = [name for name in NAMES if name.startswith("errors_")]
RETURN = 0x8082                     # c.jr ra
FULL = 0xcf                         # V R W X A D
FRESH = 0x0f                        # V R W X: accessed and dirty bits are set by the walk
SPOILT = 0x7ff00000


def addi_a0(imm):
    return (imm & 0xfff) << 20 | 10 << 7 | 0x13


class Program(image.Asm):
    """s0 is the hart; s2 the generation; s7 the one that a worker answered, its word at s8.

    `known` are the labels of a first pass, since addresses of code are constants.
    """

    def __init__(self, generations, fence, remap, functions, known=None):
        super().__init__(image.RAM, 64)
        self.known = known or {}
        self.generations = generations
        self.fence = fence
        self.remap = remap
        self.functions = functions
        self.number = 0

    def name(self, text):
        self.number += 1
        return f"{text}{self.number}"

    def csr(self, name, rd, number, source):
        self.words.append(image.insns.TABLE[name].encode(
            rd=image.REGISTERS[rd], csr=number, rs1=image.REGISTERS[source]))

    def pause(self):
        self.words.append(0x0100000f)

    def at(self, rd, word):
        self.const(rd, AT[word])

    def address(self, rd, label):
        self.const(rd, image.RAM + self.known.get(label, 0))

    def count_error(self, word):
        self.at("t5", word)
        self.op("addi", "t6", "zero", 1)
        self.op("amoadd.d", "zero", 0, "t6", "t5")

    # ---- machine mode ----

    def start(self):
        self.csr("csrrs", "s0", 0xf14, "zero")
        self.op("slli", "t0", "s0", 8)
        self.const("t1", SAVE)
        self.op("add", "t0", "t0", "t1")
        self.csr("csrrw", "zero", 0x340, "t0")
        self.op("jal", "t1", "after_vector")
        self.op("jal", "zero", "trap_handler")
        self.label("after_vector")
        self.csr("csrrw", "zero", 0x305, "t1")
        self.op("addi", "t0", "zero", -1)
        self.csr("csrrw", "zero", 0x3b0, "t0")
        self.op("addi", "t0", "zero", 0x1f)
        self.csr("csrrw", "zero", 0x3a0, "t0")
        self.op("addi", "t0", "zero", 8)
        self.csr("csrrw", "zero", 0x304, "t0")
        self.const("t0", TABLES >> 12)
        for value, shift in ((8, 60), (5 if self.fence == "asid" else 0, 44)):
            self.op("addi", "t1", "zero", value)
            self.op("slli", "t1", "t1", shift)
            self.op("or", "t0", "t0", "t1")
        self.csr("csrrw", "zero", 0x180, "t0")
        self.op("sfence.vma", "zero", "zero")
        self.const("t0", 0x1880)
        self.csr("csrrc", "zero", 0x300, "t0")
        self.const("t0", 0x880)
        self.csr("csrrs", "zero", 0x300, "t0")
        self.op("jal", "t0", "after_start")
        self.op("jal", "zero", "supervisor")
        self.label("after_start")
        self.csr("csrrw", "zero", 0x341, "t0")
        self.op("mret")

    def fences(self):
        """The address fence that this program tries, of all the pages; t0 and t1 are free."""
        if self.fence == "all":
            self.op("sfence.vma", "zero", "zero")
        elif self.fence == "asid":
            self.op("addi", "t0", "zero", 5)
            self.op("sfence.vma", "zero", "t0")
        else:
            self.const("t0", VA)
            self.const("t1", 0x1000)
            for _ in range(4):
                self.op("sfence.vma", "t0", "zero")
                self.op("add", "t0", "t0", "t1")

    def trap_handler(self):
        self.label("trap_handler")
        self.csr("csrrw", "t6", 0x340, "t6")
        for offset, register in ((0, "t0"), (8, "t1")):
            self.op("sd", register, offset, "t6")
        self.csr("csrrs", "t0", 0x342, "zero")
        self.op("bge", "t0", "zero", "fatal")
        self.csr("csrrs", "t1", 0xf14, "zero")
        self.op("slli", "t1", "t1", 2)
        self.const("t0", MSIP)
        self.op("add", "t0", "t0", "t1")
        self.op("sw", "zero", 0, "t0")
        self.op("fence", 15, 15, "zero", "zero")
        self.at("t0", "request")
        self.op("ld", "t0", 0, "t0")
        self.op("sd", "t0", 16, "t6")
        if self.remap:
            self.fences()
        self.op("fence.i")
        self.op("fence", 3, 3, "zero", "zero")
        self.csr("csrrs", "t1", 0xf14, "zero")
        self.op("slli", "t1", "t1", 6)
        self.const("t0", ACK)
        self.op("add", "t0", "t0", "t1")
        self.op("ld", "t1", 16, "t6")
        self.op("sd", "t1", 0, "t0")
        for offset, register in ((0, "t0"), (8, "t1")):
            self.op("ld", register, offset, "t6")
        self.csr("csrrw", "t6", 0x340, "t6")
        self.op("mret")
        self.label("fatal")
        self.at("t1", "trap")
        self.op("sd", "t0", 0, "t1")
        for offset, number in ((8, 0x341), (16, 0x343), (24, 0xf14)):
            self.csr("csrrs", "t0", number, "zero")
            self.op("sd", "t0", offset, "t1")
        self.op("jal", "zero", "report")

    # ---- the master ----

    def send_interrupts(self):
        """Asks the others for generation s2 and waits until all have answered."""
        self.at("t0", "request")
        self.op("fence", 3, 1, "zero", "zero")
        self.op("sd", "s2", 0, "t0")
        self.op("fence", 3, 15, "zero", "zero")
        self.const("t0", MSIP)
        self.op("addi", "t1", "zero", 1)
        for hart in range(1, HARTS):
            self.op("sw", "t1", 4 * hart, "t0")
        self.const("t0", ACK)
        for hart in range(1, HARTS):
            again, out = self.name("unanswered"), self.name("answered")
            self.label(again)
            self.op("ld", "t1", 64 * hart, "t0")
            self.op("beq", "t1", "s2", out)
            self.pause()
            self.op("jal", "zero", again)
            self.label(out)
        self.op("fence", 2, 3, "zero", "zero")

    def frame(self, rd, back):
        """The address of the frame of generation s2 - back; clobbers t0."""
        self.op("addi", rd, "s2", -back)
        self.op("andi", rd, rd, 3)
        self.op("slli", rd, rd, 14)
        self.const("t0", FRAMES)
        self.op("add", rd, rd, "t0")

    def instruction(self, rd, value):
        """addi a0, zero, low eleven bits of `value`."""
        self.op("andi", rd, value, 0x7ff)
        self.op("slli", rd, rd, 20)
        self.op("addi", rd, rd, 0x513)

    def far(self, rd, base, offset):
        self.const("t0", offset)
        self.op("add", rd, base, "t0")

    def build_frame(self):
        """Page 0: a word, a word a hart, a function, half an instruction; 2 and 3: a word across."""
        self.frame("s5", 0)
        for hart in range(HARTS + 1):
            self.op("sd", "s2", 64 * hart, "s5")
        self.instruction("t1", "s2")
        self.op("sw", "t1", 0x400, "s5")
        self.const("t2", RETURN)
        self.op("sw", "t2", 0x404, "s5")
        self.far("s6", "s5", 0x1000)
        self.op("sh", "t1", -2, "s6")
        self.op("srli", "t1", "t1", 16)
        self.op("sh", "t1", 0, "s6")
        self.op("sh", "t2", 2, "s6")
        self.far("s6", "s5", 0x3000)
        self.op("sw", "s2", -4, "s6")
        self.op("sw", "s2", 0, "s6")
        self.op("fence", 1, 1, "zero", "zero")

    def map_frame(self):
        """Leaf entries of the four pages; on odd generations without accessed and dirty bits."""
        self.op("srli", "t1", "s5", 2)
        self.op("andi", "t2", "s2", 1)
        self.op("addi", "t3", "zero", FULL)
        odd = self.name("odd")
        self.op("beq", "t2", "zero", odd)
        self.op("addi", "t3", "zero", FRESH)
        self.label(odd)
        self.op("or", "t1", "t1", "t3")
        self.const("t0", TABLES + 0x2000)
        for page in range(4):
            self.op("sd", "t1", 8 * page, "t0")
            self.op("addi", "t1", "t1", 0x400)
        self.op("fence", 3, 3, "zero", "zero")
        self.fences()
        self.op("fence.i")

    def spoil(self):
        """The frame before: words that nobody may see, instructions that nobody may run."""
        self.frame("s5", 1)
        self.const("t1", SPOILT)
        for offset in [64 * hart for hart in range(HARTS + 1)] + [0x400]:
            self.op("sw", "t1", offset, "s5")
            self.op("sw", "zero", offset + 4, "s5")
        self.far("s6", "s5", 0x1000)
        self.op("sw", "zero", 0, "s6")
        self.far("s6", "s5", 0x3000)
        self.op("sw", "t1", -4, "s6")
        self.op("sw", "t1", 0, "s6")
        fresh = self.name("fresh")
        self.op("addi", "t0", "zero", 4)
        self.op("blt", "s2", "t0", fresh)
        self.frame("s5", 2)
        self.const("t1", SPOILT)
        for hart in range(HARTS + 1):
            fine = self.name("kept")
            self.op("lw", "t2", 64 * hart, "s5")
            self.op("beq", "t1", "t2", fine)
            self.count_error("errors_kept")
            self.label(fine)
        self.label(fresh)

    def patch(self):
        """New instructions where workers, and hart 0 itself, run the old ones."""
        self.instruction("t1", "s2")
        self.address("t0", "patched")
        self.op("sw", "t1", 0, "t0")
        self.address("t0", "straddling")
        self.op("srli", "t1", "t1", 16)
        self.op("sh", "t1", 2, "t0")
        self.op("fence.i")

    def own_call(self):
        """Hart 0 has run fence.i: it sees what it wrote, no later."""
        for function, word in (("patched", "errors_patch"),
                               ("straddling", "errors_patch_straddle")):
            fine = self.name("own")
            self.op("jal", "ra", function)
            self.op("andi", "t1", "s2", 0x7ff)
            self.op("beq", "a0", "t1", fine)
            self.count_error(word)
            self.label(fine)

    def master(self):
        self.op("addi", "s2", "zero", 1)
        self.const("s3", self.generations)
        self.label("generation")
        if self.remap:
            self.build_frame()
            self.map_frame()
        else:
            self.patch()
            self.own_call()
        self.send_interrupts()
        if self.remap:
            self.spoil()
        self.op("addi", "s2", "s2", 1)
        self.op("bge", "s3", "s2", "generation")
        self.at("t0", "stop")
        self.op("addi", "t1", "zero", 1)
        self.op("sd", "t1", 0, "t0")
        self.at("t0", "done")
        self.op("addi", "t2", "zero", HARTS - 1)
        self.label("wait_done")
        self.pause()
        self.op("ld", "t1", 0, "t0")
        self.op("bne", "t1", "t2", "wait_done")
        self.op("jal", "zero", "report")

    # ---- workers ----

    def expect_now(self, register, word, bits=64):
        """Between the generation answered before (s7) and the one after that answered now."""
        fine = self.name("fine")
        self.op("ld", "t2", 0, "s8")
        self.op("sub", "t1", register, "s7")
        self.op("sub", "t3", "t2", "s7")
        self.op("addi", "t3", "t3", 1)
        if bits < 64:
            self.op("slli", "t1", "t1", 64 - bits)
            self.op("srli", "t1", "t1", 64 - bits)
        self.op("bgeu", "t3", "t1", fine)
        self.count_error(word)
        self.label(fine)
        self.op("addi", "s7", "t2", 0)

    def call(self, address):
        self.const("t0", address)
        self.op("jalr", "ra", "t0", 0)

    def worker_checks(self):
        if self.remap:
            self.const("s9", VA)
            self.op("ld", "a0", 0, "s9")
            self.expect_now("a0", "errors_load")
            self.op("slli", "t0", "s0", 6)
            self.op("add", "t3", "s9", "t0")
            self.op("sd", "s7", 0, "t3")
            self.op("ld", "a0", 0, "t3")
            self.expect_now("a0", "errors_store")
            self.const("t0", VA + 0x2ffc)
            self.op("ld", "a0", 0, "t0")
            self.op("srli", "a1", "a0", 32)
            self.op("addi", "s9", "s7", 0)
            self.expect_now("a0", "errors_cross", bits=32)
            self.op("addi", "s7", "s9", 0)
            self.expect_now("a1", "errors_cross", bits=32)
            self.call(VA + 0x400)
            self.expect_now("a0", "errors_call", bits=11)
            self.call(VA + 0xffe)
            self.expect_now("a0", "errors_straddle", bits=11)
        else:
            self.op("jal", "ra", "patched")
            self.expect_now("a0", "errors_patch", bits=11)
            self.op("jal", "ra", "straddling")
            self.expect_now("a0", "errors_patch_straddle", bits=11)

    def many(self):
        """Calls one of many functions, each of which must give its number added to what it got."""
        if not self.functions:
            return
        fine = self.name("many")
        self.op("mul", "s10", "s10", "s11")
        self.op("addi", "s10", "s10", 11)
        self.op("srli", "a0", "s10", 33)
        self.const("t1", self.functions - 1)
        self.op("and", "a0", "a0", "t1")
        self.op("addi", "s4", "a0", 0)
        self.op("slli", "a0", "a0", 9)
        self.address("t0", "many_functions")
        self.op("add", "t0", "t0", "a0")
        self.op("addi", "a0", "s10", 0)
        self.op("jalr", "ra", "t0", 0)
        self.op("sub", "a0", "a0", "s10")
        self.op("beq", "a0", "s4", fine)
        self.count_error("errors_many")
        self.label(fine)

    def functions_text(self):
        """Each 512 bytes: steps, the number, and the steps undone."""
        for number in range(self.functions):
            begin = len(self.words)
            steps = [((number * 37 + step * 101) % 2047 + 1, step + number & 1)
                     for step in range(56)]
            for value, add in steps:
                self.op("addi" if add else "xori", "a0", "a0", value)
            for value, add in reversed(steps):
                self.op("addi" if add else "xori", "a0", "a0", -value if add else value)
            self.const("t1", number)
            self.op("add", "a0", "a0", "t1")
            self.op("jalr", "zero", "ra", 0)
            while len(self.words) < begin + 128:
                self.op("addi", "zero", "zero", 0)

    def worker(self):
        self.const("s8", ACK)
        self.op("slli", "t0", "s0", 6)
        self.op("add", "s8", "s8", "t0")
        self.op("addi", "s10", "s0", 7)
        self.const("s11", 0x5851f42d)
        self.label("first")
        self.op("ld", "s7", 0, "s8")
        self.pause()
        self.op("beq", "s7", "zero", "first")
        self.label("turn")
        self.op("ld", "s7", 0, "s8")
        self.worker_checks()
        self.many()
        self.at("t0", "turns")
        self.op("addi", "t1", "zero", 1)
        self.op("amoadd.d", "t1", 0, "t1", "t0")
        # Now and then the host's CPU goes to another hart, so that generations pass quickly.
        self.op("andi", "t1", "t1", 63)
        self.op("bne", "t1", "zero", "busy")
        self.pause()
        self.label("busy")
        self.at("t0", "stop")
        self.op("ld", "t1", 0, "t0")
        self.op("beq", "t1", "zero", "turn")
        self.at("t0", "done")
        self.op("addi", "t1", "zero", 1)
        self.op("amoadd.d", "zero", 3, "t1", "t0")
        self.label("parked")
        self.pause()
        self.op("jal", "zero", "parked")

    def report(self):
        """Sends the words of ERRORS, turns, and the trap that ended it all, if any."""
        self.label("report")
        self.const("s5", image.UART)
        for address in [AT[word] for word in ERRORS + ["turns"]] + [
                AT["trap"] + 8 * n for n in range(4)]:
            self.const("t0", address)
            self.op("ld", "a0", 0, "t0")
            self.op("addi", "a1", "zero", 8)
            self.op("jal", "ra", "send")
        self.const("t0", image.SYSCON)
        self.const("t1", 0x5555)
        self.op("sw", "t1", 0, "t0")
        self.label("end")
        self.op("jal", "zero", "end")
        image.send_word(self)

    def build(self):
        self.start()
        self.trap_handler()
        self.label("supervisor")
        self.op("bne", "s0", "zero", "others")
        self.op("jal", "zero", "master")
        self.label("others")
        self.op("jal", "zero", "worker")
        self.label("master")
        self.master()
        self.report()
        self.label("worker")
        self.worker()
        # The function that changes shares its page with the worker's loop.
        self.label("patched")
        self.words += [addi_a0(0), RETURN]
        # The one that lies across a page's end: half of its first instruction on each.
        while 4 * len(self.words) % 0x1000 != 0xffc:
            self.op("addi", "zero", "zero", 0)
        self.labels["straddling"] = 4 * len(self.words) + 2
        self.words += [1 | (addi_a0(0) & 0xffff) << 16, addi_a0(0) >> 16 | RETURN << 16]
        while 4 * len(self.words) % 512:
            self.op("addi", "zero", "zero", 0)
        self.label("many_functions")
        self.functions_text()
        return self.bytes()


def tables():
    """Sv39: devices and RAM as gigapages where they are, and a leaf table for VA."""
    pages = bytearray(0x3000)

    def put(table, index, value):
        at = 0x1000 * table + 8 * index
        pages[at:at + 8] = value.to_bytes(8, "little")

    put(0, 0, FULL)
    put(0, VA >> 30, TABLES + 0x1000 >> 2 | 1)
    put(0, image.RAM >> 30, image.RAM >> 2 | FULL)
    put(1, 0, TABLES + 0x2000 >> 2 | 1)
    return bytes(pages)


def binary(*arguments):
    first = Program(*arguments)
    first.build()
    code = Program(*arguments, first.labels).build()
    room = TABLES - image.RAM
    taplib.check(len(code) <= room, f"the program has {len(code)} bytes")
    return code + bytes(room - len(code)) + tables()


def look_at_maps(pid, seen):
    """Mappings of the emulator, while it runs: none is writable and executable."""
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
        for line in file:
            mode = line.split()[1]
            if "w" in mode and "x" in mode:
                raise AssertionError(f"writable and executable: {line.strip()}")
            if "vmd-code" in line:
                seen.add(mode)


def wait_looking(vm, seen):
    deadline = time.monotonic() + 600.0
    while vm.process.poll() is None and time.monotonic() < deadline:
        try:
            look_at_maps(vm.process.pid, seen)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            pass        # it has just ended, or is not ours to look at
        time.sleep(0.01)
    return vm.wait(60.0)


def run(generations, fence="all", remap=True, functions=0, cache=0, backend="jit", seen=None):
    emulator = os.environ.get("EMULATOR", "vmd")
    generations = int(os.environ.get("VMD_TEST_COUNT", generations))
    names = ERRORS + ["turns", "trap", "mepc", "mtval", "hart"]
    with tempfile.NamedTemporaryFile(prefix="vmd-stress-", suffix=".bin") as file:
        file.write(binary(generations, fence, remap, functions))
        file.flush()
        config = {"arch": "riscv64", "cpus": HARTS, "memory": 32 << 20, "firmware": file.name}
        if emulator == "vmd":
            config["tcg"] = {"backend": backend}
            if cache:
                config["tcg"]["cache_size"] = cache << 20
        with guest.Guest(config, emulator) as vm:
            status = vm.wait(600.0) if seen is None else wait_looking(vm, seen)
            data = bytes(vm.output)
    taplib.check(status == 0, f"exit status {status}")
    taplib.check(len(data) == 8 * len(names), f"{len(data)} bytes of results")
    found = {name: int.from_bytes(data[8 * n:8 * n + 8], "little")
             for n, name in enumerate(names)}
    print("# " + ", ".join(f"{name} {value:#x}" for name, value in found.items() if value),
          flush=True)
    wrong = [f"{name}: {value}" for name, value in found.items()
             if value and name in ERRORS]
    if found["trap"]:
        wrong.append(f"trap {found['trap']} at {found['mepc']:#x} of {found['mtval']:#x}, "
                     f"hart {found['hart']}")
    taplib.check(not wrong, "; ".join(wrong))
    taplib.check(found["turns"] > 0, "no worker came to run")


def remapped_pages_are_never_seen_stale():
    run(400)


def remapped_pages_are_never_seen_stale_by_address():
    run(400, "address")


def remapped_pages_are_never_seen_stale_by_address_space():
    run(400, "asid")


def remapped_pages_are_never_seen_stale_in_a_small_code_cache():
    run(200, functions=4096, cache=1)


def patched_code_is_never_run_stale():
    run(800, remap=False)


def patched_code_is_never_run_stale_in_a_small_code_cache():
    run(300, remap=False, functions=4096, cache=1)


def no_page_is_ever_writable_and_executable():
    if os.environ.get("EMULATOR", "vmd") != "vmd":
        raise taplib.Skip("about vmd-emu's pages")
    seen = set()
    run(300, remap=False, functions=4096, cache=1, seen=seen)
    if not seen:
        raise taplib.Skip("/proc/PID/maps of the emulator")
    modes = {mode[:3] for mode in seen}
    taplib.check(modes == {"rw-", "r-x"}, f"the code cache is mapped {sorted(modes)}")


def remapped_and_patched_in_the_interpreter():
    if os.environ.get("EMULATOR", "vmd") != "vmd":
        raise taplib.Skip("the interpreter is vmd-emu's")
    run(60, backend="interp")
    run(60, remap=False, backend="interp")


CASES = (remapped_pages_are_never_seen_stale, remapped_pages_are_never_seen_stale_by_address,
         remapped_pages_are_never_seen_stale_by_address_space,
         remapped_pages_are_never_seen_stale_in_a_small_code_cache,
         patched_code_is_never_run_stale, patched_code_is_never_run_stale_in_a_small_code_cache,
         no_page_is_ever_writable_and_executable,
         remapped_and_patched_in_the_interpreter)

if __name__ == "__main__":
    sys.exit(taplib.run_cases(CASES, missing=(guest.Unavailable,)))
