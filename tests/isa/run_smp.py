# SPDX-License-Identifier: Apache-2.0
"""Several vCPUs at once: atomics lose no update, fences order what they promise.

A bare-metal program runs the same steps on every hart and prints what memory holds at the end; what
it must be is arithmetic. EMULATOR=qemu runs it under QEMU.
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
DATA = image.RAM + 0x10000
WORDS = ("add_d", "lr_sc_d", "add_w", "lr_sc_w", "locked", "max", "or", "stale", "both",
         "lock", "done", "x", "y", "flag", "payload", "turn", "barrier")
AT = {name: DATA + 64 * number for number, name in enumerate(WORDS)}
RESULTS = WORDS[:9]


class Program(image.Asm):
    """Code for all harts; s0 is the hart, s1 the rounds left, s2 the number of harts."""

    def __init__(self, harts, rounds, pairs):
        super().__init__(image.RAM, 64)
        self.harts = harts
        self.rounds = rounds
        self.pairs = pairs
        self.number = 0

    def name(self, text):
        self.number += 1
        return f"{text}{self.number}"

    def at(self, rd, word):
        self.const(rd, AT[word])

    def csr_read(self, rd, number):
        self.words.append(image.insns.TABLE["csrrs"].encode(
            rd=image.REGISTERS[rd], csr=number, rs1=0))

    def load_store_conditional(self, word, suffix):
        again = self.name("again")
        self.at("t0", word)
        self.label(again)
        self.op("lr." + suffix, "t1", 2, "t0")
        self.op("addi", "t1", "t1", 1)
        self.op("sc." + suffix, "t2", 1, "t1", "t0")
        self.op("bne", "t2", "zero", again)

    def locked_increment(self):
        again = self.name("spin")
        self.at("t0", "lock")
        self.op("addi", "t1", "zero", 1)
        self.label(again)
        self.op("amoswap.w", "t2", 2, "t1", "t0")
        self.op("bne", "t2", "zero", again)
        self.at("t3", "locked")
        self.op("ld", "t4", 0, "t3")
        self.op("addi", "t4", "t4", 1)
        self.op("sd", "t4", 0, "t3")
        self.op("amoswap.w", "zero", 1, "zero", "t0")

    def counters(self):
        """Every hart, `rounds` times."""
        self.const("s1", self.rounds)
        self.label("round")
        self.op("addi", "t1", "zero", 1)
        self.at("t0", "add_d")
        self.op("amoadd.d", "zero", 0, "t1", "t0")
        self.at("t0", "add_w")
        self.op("amoadd.w", "zero", 3, "t1", "t0")
        self.load_store_conditional("lr_sc_d", "d")
        self.load_store_conditional("lr_sc_w", "w")
        self.locked_increment()
        # max of round * harts + hart; or of a bit per hart and round.
        self.op("mul", "t1", "s1", "s2")
        self.op("add", "t1", "t1", "s0")
        self.at("t0", "max")
        self.op("amomaxu.d", "zero", 0, "t1", "t0")
        self.op("andi", "t1", "s1", 15)
        self.op("slli", "t2", "s0", 4)
        self.op("add", "t1", "t1", "t2")
        self.op("addi", "t2", "zero", 1)
        self.op("sll", "t2", "t2", "t1")
        self.at("t0", "or")
        self.op("amoor.d", "zero", 0, "t2", "t0")
        self.op("addi", "s1", "s1", -1)
        self.op("bne", "s1", "zero", "round")

    def wait_all(self):
        """A barrier of the first two harts, by a counter that only grows (s4 its goal)."""
        again = self.name("barrier")
        self.at("t0", "barrier")
        self.op("addi", "t1", "zero", 1)
        self.op("addi", "s4", "s4", 2)
        self.op("amoadd.d", "zero", 3, "t1", "t0")
        self.label(again)
        self.op("ld", "t1", 0, "t0")
        self.op("blt", "t1", "s4", again)

    def pairs_of_two(self):
        """Store buffering with a full fence (never both old), message passing (never stale)."""
        self.op("addi", "s4", "zero", 0)
        self.op("addi", "t0", "zero", 2)
        self.op("bge", "s0", "t0", "no_pair")
        self.const("s1", self.pairs)
        self.at("s5", "x")
        self.at("s6", "y")
        self.op("beq", "s0", "zero", "pair")
        self.at("s5", "y")
        self.at("s6", "x")
        self.label("pair")
        self.wait_all()
        self.op("sd", "s1", 0, "s5")
        self.op("fence", 3, 3, "zero", "zero")
        self.op("ld", "s7", 0, "s6")
        self.at("t0", "turn")
        self.op("slli", "t1", "s0", 3)
        self.op("add", "t0", "t0", "t1")
        self.op("sd", "s7", 0, "t0")
        self.wait_all()
        self.op("bne", "s0", "zero", "receive")
        self.judge_and_send()
        self.op("jal", "zero", "paired")
        self.label("receive")
        self.receive()
        self.label("paired")
        self.op("addi", "s1", "s1", -1)
        self.op("bne", "s1", "zero", "pair")
        self.label("no_pair")

    def judge_and_send(self):
        """Hart 0: were both loads old? Then data, fence, flag."""
        self.at("t0", "turn")
        self.op("ld", "t1", 0, "t0")
        self.op("ld", "t2", 8, "t0")
        self.op("beq", "t1", "s1", "fine")
        self.op("beq", "t2", "s1", "fine")
        self.at("t0", "both")
        self.op("addi", "t1", "zero", 1)
        self.op("amoadd.d", "zero", 0, "t1", "t0")
        self.label("fine")
        self.at("t0", "payload")
        self.op("sd", "s1", 0, "t0")
        self.op("fence", 1, 1, "zero", "zero")
        self.at("t0", "flag")
        self.op("sd", "s1", 0, "t0")

    def receive(self):
        self.at("t0", "flag")
        self.label("poll")
        self.op("ld", "t1", 0, "t0")
        self.op("bne", "t1", "s1", "poll")
        self.op("fence", 2, 2, "zero", "zero")
        self.at("t0", "payload")
        self.op("ld", "t1", 0, "t0")
        self.op("beq", "t1", "s1", "fresh")
        self.at("t0", "stale")
        self.op("addi", "t1", "zero", 1)
        self.op("amoadd.d", "zero", 0, "t1", "t0")
        self.label("fresh")

    def report(self):
        """Hart 0 waits for all, sends the result words in binary, powers off."""
        self.at("t0", "done")
        self.op("addi", "t1", "zero", 1)
        self.op("amoadd.d", "zero", 3, "t1", "t0")
        self.label("halt")
        self.op("bne", "s0", "zero", "halt")
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
        self.csr_read("s0", 0xf14)
        self.op("addi", "s2", "zero", self.harts)
        self.counters()
        self.pairs_of_two()
        self.report()
        return self.bytes()


def run(harts, rounds, pairs, backend):
    """{word: value} that a run left."""
    emulator = os.environ.get("EMULATOR", "vmd")
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(Program(harts, rounds, pairs).build())
        file.flush()
        config = {"arch": "riscv64", "cpus": harts, "memory": 32 << 20, "firmware": file.name}
        if emulator == "vmd":
            config["tcg"] = {"backend": backend}
        with guest.Guest(config, emulator) as vm:
            status = vm.wait(240.0)
            data = bytes(vm.output)
    taplib.check(status == 0, f"exit status {status}")
    taplib.check(len(data) == 8 * len(RESULTS), f"{len(data)} bytes of results")
    return {word: int.from_bytes(data[8 * n:8 * n + 8], "little")
            for n, word in enumerate(RESULTS)}


def compare(found, harts, rounds):
    total = harts * rounds
    bits = 0
    for hart in range(harts):
        for value in range(1, rounds + 1):
            bits |= 1 << hart * 16 + (value & 15)
    expected = {"add_d": total, "lr_sc_d": total, "add_w": total, "lr_sc_w": total,
                "locked": total, "max": rounds * harts + harts - 1, "or": bits, "stale": 0,
                "both": 0}
    wrong = [f"{word} is {found[word]:#x}, not {value:#x}"
             for word, value in expected.items() if found[word] != value]
    taplib.check(not wrong, "; ".join(wrong))


def four_harts_lose_no_update_and_fences_hold():
    compare(run(4, 20000, 3000, "jit"), 4, 20000)


def two_harts_lose_no_update_and_fences_hold():
    compare(run(2, 50000, 20000, "jit"), 2, 50000)


def four_harts_lose_no_update_in_the_interpreter():
    if os.environ.get("EMULATOR", "vmd") != "vmd":
        raise taplib.Skip("the interpreter is vmd-emu's")
    compare(run(4, 3000, 500, "interp"), 4, 3000)


CASES = (two_harts_lose_no_update_and_fences_hold, four_harts_lose_no_update_and_fences_hold,
         four_harts_lose_no_update_in_the_interpreter)

if __name__ == "__main__":
    sys.exit(taplib.run_cases(CASES, missing=(guest.Unavailable,)))
