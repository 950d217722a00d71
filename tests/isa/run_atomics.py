# SPDX-License-Identifier: Apache-2.0
"""Every atomic instruction under contention: four harts, all on the same few words, exact results.

Each hart runs the same rounds; what memory and the sums of what the harts got must be at the end is
arithmetic. Words and doublewords overlap, neighbours in the same doubleword change by plain stores,
and LR/SC meets AMOs on one counter. EMULATOR=qemu runs it under QEMU.
"""

import os
import sys
import tempfile

sys.dont_write_bytecode = True
import image  # noqa: E402
import runner  # noqa: E402

sys.path.insert(0, os.path.join(runner.HERE, "..", "lib"))
import tap as taplib  # noqa: E402

guest = runner.guest
HARTS = 4
DATA = image.RAM + 0x100000
NAMES = ("add_d", "add_w", "mixed", "halves", "swapped", "swap_in", "swap_out", "xor", "bits",
         "bits_d", "own_bit_wrong", "max", "maxu_w", "min", "minu_w", "beside", "beside_wrong",
         "pair_wrong", "no_reservation", "lr_sc_w", "cas", "cas_w", "done")
AT = {name: DATA + 64 * number for number, name in enumerate(NAMES)}
RESULTS = NAMES[:-1]


class Program(image.Asm):
    """s0 is the hart, s1 the rounds left, s2 the number of harts, s3 its bit, s4 swaps got."""

    def __init__(self, rounds, cas):
        super().__init__(image.RAM, 64)
        self.rounds = rounds
        self.cas = cas
        self.number = 0

    def name(self, text):
        self.number += 1
        return f"{text}{self.number}"

    def at(self, rd, word, offset=0):
        self.const(rd, AT[word] + offset)

    def amo(self, name, word, source, rd="zero", order=0, offset=0):
        self.at("t0", word, offset)
        self.op(name, rd, order, source, "t0")

    def wrong(self, word):
        self.at("t5", word)
        self.op("addi", "t6", "zero", 1)
        self.op("amoadd.d", "zero", 0, "t6", "t5")

    def adds(self):
        self.op("addi", "t1", "zero", 1)
        self.amo("amoadd.d", "add_d", "t1")
        self.amo("amoadd.w", "add_w", "t1", order=3)
        # One counter by three means.
        self.amo("amoadd.d", "mixed", "t1", rd="t3", order=2)
        again = self.name("again")
        self.at("t0", "mixed")
        self.label(again)
        self.op("lr.d", "t2", 2, "t0")
        self.op("addi", "t2", "t2", 1)
        self.op("sc.d", "t3", 1, "t2", "t0")
        self.op("bne", "t3", "zero", again)
        again = self.name("again")
        self.at("t0", "lr_sc_w")
        self.label(again)
        self.op("lr.w", "t2", 0, "t0")
        self.op("addi", "t2", "t2", 3)
        self.op("sc.w", "t3", 0, "t2", "t0")
        self.op("bne", "t3", "zero", again)
        # The halves of a doubleword, by words; now and then by the doubleword.
        self.op("andi", "t2", "s0", 1)
        self.op("slli", "t2", "t2", 2)
        self.at("t0", "halves")
        self.op("add", "t0", "t0", "t2")
        self.op("amoadd.w", "zero", 0, "t1", "t0")
        self.op("slli", "t2", "t1", 32)
        self.op("add", "t2", "t2", "t1")
        self.amo("amoadd.d", "halves", "t2")

    def swaps(self):
        """What went in and what came out, added up, differ by what is still there."""
        self.op("slli", "t1", "s1", 3)
        self.op("add", "t1", "t1", "s0")
        self.amo("amoadd.d", "swap_in", "t1")
        self.amo("amoswap.d", "swapped", "t1", rd="t2", order=3)
        self.amo("amoadd.d", "swap_out", "t2")

    def logic(self):
        """A bit a hart, set and cleared; nobody else touches it."""
        self.op("slli", "t1", "s1", 2)
        self.op("add", "t1", "t1", "s0")
        self.amo("amoxor.d", "xor", "t1", rd="t2")
        for word, width in (("bits", "w"), ("bits_d", "d")):
            self.amo("amoor." + width, word, "s3", rd="t2")
            self.expect_bit("t2", False)
            self.op("xori", "t1", "s3", -1)
            self.amo("amoand." + width, word, "t1", rd="t2", order=1)
            self.expect_bit("t2", True)

    def expect_bit(self, register, is_set):
        fine = self.name("bit")
        self.op("and", register, register, "s3")
        self.op("bne" if is_set else "beq", register, "zero", fine)
        self.wrong("own_bit_wrong")
        self.label(fine)

    def extremes(self):
        self.op("mul", "t1", "s1", "s2")
        self.op("add", "t1", "t1", "s0")
        self.amo("amomax.d", "max", "t1", rd="t2")
        self.amo("amomaxu.w", "maxu_w", "t1")
        self.op("sub", "t1", "zero", "t1")
        self.amo("amomin.d", "min", "t1", rd="t3", order=3)
        self.amo("amominu.w", "minu_w", "t1")

    def neighbours(self):
        """LR/SC on the low word, while each hart stores plainly into a byte of the high one."""
        again, fine = self.name("again"), self.name("fine")
        self.at("t0", "beside")
        self.op("add", "t4", "t0", "s0")
        self.op("sb", "s1", 4, "t4")
        self.label(again)
        self.op("lr.d", "t1", 0, "t0")
        self.op("addi", "t1", "t1", 1)
        self.op("sc.d", "t2", 0, "t1", "t0")
        self.op("bne", "t2", "zero", again)
        self.op("lbu", "t2", 4, "t4")
        self.op("andi", "t3", "s1", 0xff)
        self.op("beq", "t2", "t3", fine)
        self.wrong("beside_wrong")
        self.label(fine)

    def conditions(self):
        """SC fails without a reservation, after another SC, and for another address."""
        fine, second = self.name("fine"), self.name("second")
        self.at("t0", "no_reservation")
        self.op("lr.d", "t1", 0, "t0")
        self.op("addi", "t4", "t0", 8)
        self.op("sc.d", "t2", 0, "s0", "t4")
        self.op("sc.d", "t3", 0, "s0", "t0")
        self.op("and", "t2", "t2", "t3")
        self.op("bne", "t2", "zero", second)
        self.wrong("pair_wrong")
        self.label(second)
        self.op("sc.w", "t2", 0, "s0", "t0")
        self.op("bne", "t2", "zero", fine)
        self.wrong("pair_wrong")
        self.label(fine)

    def compare_and_swap(self):
        if not self.cas:
            return
        for word, width, load in (("cas", "d", "ld"), ("cas_w", "w", "lw")):
            again = self.name("again")
            self.at("t0", word)
            self.op(load, "t1", 0, "t0")
            self.label(again)
            self.op("addi", "t2", "t1", 1)
            self.op("addi", "t3", "t1", 0)
            self.op("amocas." + width, "t1", 3, "t2", "t0")
            self.op("bne", "t1", "t3", again)

    def report(self):
        self.amo("amoadd.d", "done", "t1", order=3)
        self.label("halt")
        self.op("bne", "s0", "zero", "halt")
        self.at("t0", "done")
        self.label("others")
        self.op("ld", "t1", 0, "t0")
        self.op("bne", "t1", "s2", "others")
        self.const("s5", image.UART)
        for word in RESULTS:
            self.at("t0", word)
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
        self.words.append(image.insns.TABLE["csrrs"].encode(
            rd=image.REGISTERS["s0"], csr=0xf14, rs1=0))
        self.op("addi", "s2", "zero", HARTS)
        self.op("addi", "t0", "zero", 1)
        self.op("sll", "s3", "t0", "s0")
        self.const("s1", self.rounds)
        self.label("round")
        for part in (self.adds, self.swaps, self.logic, self.extremes, self.neighbours,
                     self.conditions, self.compare_and_swap):
            part()
        self.op("addi", "s1", "s1", -1)
        self.op("beq", "s1", "zero", "over")
        self.op("jal", "zero", "round")
        self.label("over")
        self.op("addi", "t1", "zero", 1)
        self.report()
        return self.bytes()


def expected(rounds, cas):
    """What the words hold at the end; None: not checked alone."""
    total = HARTS * rounds
    xor = 0
    for value in range(1, rounds + 1):
        for hart in range(HARTS):
            xor ^= value * 4 + hart
    low = rounds * HARTS + HARTS - 1
    half = total + total // 2
    beside = total
    for hart in range(HARTS):
        beside += 1 << 32 + 8 * hart            # the last round stores 1
    return {"add_d": total, "add_w": total, "mixed": 2 * total, "halves": half << 32 | half,
            "xor": xor, "bits": 0, "bits_d": 0, "own_bit_wrong": 0, "max": low, "maxu_w": low,
            "min": -low & (1 << 64) - 1, "minu_w": 0, "beside": beside, "beside_wrong": 0,
            "pair_wrong": 0, "no_reservation": 0, "lr_sc_w": 3 * total,
            "cas": total if cas else 0, "cas_w": total if cas else 0}


def run(rounds, backend="jit", cache=0):
    emulator = os.environ.get("EMULATOR", "vmd")
    cas = "amocas.d" in image.insns.TABLE and emulator != "qemu"
    with tempfile.NamedTemporaryFile(prefix="vmd-atomics-", suffix=".bin") as file:
        file.write(Program(rounds, cas).build())
        file.flush()
        config = {"arch": "riscv64", "cpus": HARTS, "memory": 32 << 20, "firmware": file.name}
        if emulator == "vmd":
            config["tcg"] = {"backend": backend}
            if cache:
                config["tcg"]["cache_size"] = cache << 20
        with guest.Guest(config, emulator) as vm:
            status = vm.wait(240.0)
            data = bytes(vm.output)
    taplib.check(status == 0, f"exit status {status}")
    taplib.check(len(data) == 8 * len(RESULTS), f"{len(data)} bytes of results")
    found = {word: int.from_bytes(data[8 * n:8 * n + 8], "little")
             for n, word in enumerate(RESULTS)}
    wrong = [f"{word} is {found[word]:#x}, not {value:#x}"
             for word, value in expected(rounds, cas).items() if found[word] != value]
    if found["swap_in"] != found["swap_out"] + found["swapped"]:
        wrong.append("a swap was lost or came twice")
    taplib.check(not wrong, "; ".join(wrong))


def atomics_of_four_harts_are_exact():
    run(30000)


def atomics_of_four_harts_are_exact_in_the_interpreter():
    if os.environ.get("EMULATOR", "vmd") != "vmd":
        raise taplib.Skip("the interpreter is vmd-emu's")
    run(2000, "interp")


if __name__ == "__main__":
    sys.exit(taplib.run_cases((atomics_of_four_harts_are_exact,
                               atomics_of_four_harts_are_exact_in_the_interpreter),
                              missing=(guest.Unavailable,)))
