# SPDX-License-Identifier: Apache-2.0
"""Bare-metal programs that run many small cases and report what each did over the UART.

One image holds a runtime and a list of cases. For every case the runtime fills a state block from
the base state and the case's own values, loads all registers from it, enters the case by mret, and
gets control back by a trap: the case's end is an ebreak, and anything else that traps is a result
too. It then sends what differs from the block (or, in digest mode, one hash of everything). The
image powers the machine off at its end. It needs an ns16550a at 0x10000000, a syscon at 0x100000 and
RAM at 0x80000000, and so runs unmodified under any emulator of that board.

State block, in slots of 8 bytes (an x slot of RV32 has 4 bytes and 4 of padding):

    0..31   x0 to x31 (x0 unused)         65  mcause    68  mstatus
    32..63  f0 to f31                     66  mepc      69  satp
    64      fcsr                          67  mtval     70  entry address
                                                      72..103  memory window, 256 bytes

The input block holds the expected outcome of a case that runs to its end (mcause 3, mepc at the
ebreak), so that a plain case reports its results only.
"""

import struct

import insns

RAM = 0x80000000
UART = 0x10000000
SYSCON = 0x100000
MTIMECMP, MTIME = 0x2004000, 0x200bff8
SLOTS = 104
F0, FCSR, MCAUSE, MEPC, MTVAL, MSTATUS, SATP, ENTRY, MEM = 32, 64, 65, 66, 67, 68, 69, 70, 72
MEM_SLOTS = 32
END_OF_CASE = 0xff

# The window lies across a page boundary, so that its middle is a page-crossing access.
WINDOW = RAM + 0x11000 - 128
WINDOW_SIZE = 8 * MEM_SLOTS
BLOCKS = RAM + 0x12000          # input, output, base, variables
RECORDS = RAM + 0x20000
CODE_ALIGN = 0x1000
CODE_GAP = 0x10000              # zeros before the code

MSTATUS_DEFAULT = {64: 0x8000000a00007800, 32: 0x80007800}
MPP = {"M": 3, "S": 1, "U": 0}
BREAKPOINT = 3

# Registers of the base state: no two alike, no address, recognizable in a report.
BASE_X = [0] + [0x5a5a0000c3c30000 | n << 32 | n * 0x101 for n in range(1, 32)]
BASE_F = [0x3ff0000000000000 | n << 44 | n for n in range(32)]


def base_state(xlen):
    """The values of a state block before a case's own."""
    mask = (1 << xlen) - 1
    state = [value & mask for value in BASE_X] + list(BASE_F) + [0] * (SLOTS - 64)
    state[MCAUSE] = BREAKPOINT
    state[MSTATUS] = MSTATUS_DEFAULT[xlen]
    for index in range(MEM_SLOTS):
        state[MEM + index] = 0x8182838485868788 + 0x0807060504030201 * index & (1 << 64) - 1
    return state


class Case:
    """Code, where to enter it and where it ends, and values that differ from the base state."""

    def __init__(self, code, entry=0, end=None, state=None, name=""):
        self.code = bytes(code)
        self.entry = entry
        self.end = len(self.code) if end is None else end
        self.state = dict(state or {})
        self.name = name

    def image_bytes(self):
        """The code with an ebreak after it, and two more for what skips it."""
        return self.code + EBREAK * 3


EBREAK = insns.TABLE["ebreak"].encode().to_bytes(4, "little")

REGISTERS = {name: number for number, name in enumerate(
    "zero ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 "
    "t3 t4 t5 t6".split())}
CSRS = {"fflags": 1, "frm": 2, "fcsr": 3, "mstatus": 0x300, "mtvec": 0x305, "mcounteren": 0x306,
        "mscratch": 0x340, "mepc": 0x341, "mcause": 0x342, "mtval": 0x343, "pmpcfg0": 0x3a0,
        "pmpaddr0": 0x3b0, "satp": 0x180, "medeleg": 0x302, "mideleg": 0x303, "mie": 0x304,
        "menvcfg": 0x30a, "scounteren": 0x106}


class Asm:
    """A small assembler over the instruction table, with labels for branches and jumps."""

    def __init__(self, base, xlen):
        self.base = base
        self.xlen = xlen
        self.words = []
        self.labels = {}
        self.fixups = []

    def label(self, name):
        self.labels[name] = 4 * len(self.words)

    def op(self, name, *operands):
        """op("addi", "a0", "a1", 4): operands in the table's order; a label for a target."""
        insn = insns.TABLE[name]
        values = {}
        for operand, value in zip(insn.operands, operands, strict=True):
            if operand in insns.REGISTERS and isinstance(value, str):
                value = REGISTERS[value]
            elif operand == "csr":
                value = CSRS[value]
            elif operand in insns.TARGETS and isinstance(value, str):
                self.fixups.append((len(self.words), insn, operand, values, value))
                value = 0
            values[operand] = value
        self.words.append(insn.encode(**values))

    def load(self, rd, offset, base):
        self.op("ld" if self.xlen == 64 else "lw", rd, offset, base)

    def store(self, source, offset, base):
        self.op("sd" if self.xlen == 64 else "sw", source, offset, base)

    def const(self, rd, value):
        """A constant of up to 32 bits, zero-extended for addresses from 2 GiB up."""
        high = (value + 0x800) >> 12 & 0xfffff
        low = (value & 0xfff ^ 0x800) - 0x800
        self.op("lui", rd, (high ^ 0x80000) - 0x80000)
        self.op("addi", rd, rd, low)
        if self.xlen == 64 and value >= 1 << 31:
            self.op("slli", rd, rd, 32)
            self.op("srli", rd, rd, 32)

    def bytes(self):
        for at, insn, operand, values, label in self.fixups:
            values[operand] = self.labels[label] - 4 * at
            self.words[at] = insn.encode(**values)
        return b"".join(word.to_bytes(4, "little") for word in self.words)


def copy_words(asm, label, source, target, count):
    """Copies `count` words of XLEN bits; clobbers t0 to t3."""
    step = asm.xlen // 8
    asm.const("t0", source)
    asm.const("t1", target)
    asm.const("t2", count)
    asm.label(label)
    asm.load("t3", 0, "t0")
    asm.store("t3", 0, "t1")
    asm.op("addi", "t0", "t0", step)
    asm.op("addi", "t1", "t1", step)
    asm.op("addi", "t2", "t2", -1)
    asm.op("bne", "t2", "zero", label)


# Blocks behind BLOCKS.
IN, OUT, BASE, VARS = (BLOCKS + offset for offset in (0, 0x400, 0x800, 0xc00))
VAR_RECORD = 0


def runtime(xlen, digest, ticks=0):
    """The machine code that goes through the records.

    With ticks, a timer interrupt comes that often (in units of 100 ns) and must leave no trace.
    """
    asm = Asm(RAM, xlen)
    words = SLOTS * 64 // xlen
    setup(asm, ticks)
    asm.label("next")
    asm.load("s1", 0, "s0")
    asm.op("blt", "s1", "zero", "done")
    copy_words(asm, "copy_base", BASE, IN, words)
    apply_record(asm)
    copy_words(asm, "copy_window", IN + 8 * MEM, WINDOW, WINDOW_SIZE * 8 // xlen)
    enter_case(asm)
    asm.label("trap")
    asm.op("csrrw", "t6", "mscratch", "t6")
    if ticks:
        timer_interrupt(asm, ticks)
    leave_case(asm)
    copy_words(asm, "copy_back", WINDOW, OUT + 8 * MEM, WINDOW_SIZE * 8 // xlen)
    if digest:
        send_digest(asm, words)
    else:
        send_difference(asm, words)
    asm.const("t0", VARS)
    asm.load("s0", VAR_RECORD, "t0")
    asm.op("jal", "zero", "next")
    asm.label("done")
    asm.const("t0", SYSCON)
    asm.const("t1", 0x5555)
    asm.op("sw", "t1", 0, "t0")
    asm.label("spin")
    asm.op("jal", "zero", "spin")
    send_word(asm)
    return asm.bytes()


def timer_interrupt(asm, ticks):
    """Takes the interrupt, sets the next one and goes back; falls through for exceptions."""
    asm.store("t5", 8 * REGISTERS["t5"], "t6")
    asm.op("csrrs", "t5", "mcause", "zero")
    asm.op("bge", "t5", "zero", "exception")
    asm.store("t4", 8 * REGISTERS["t4"], "t6")
    asm.const("t5", MTIME)
    asm.op("lw", "t4", 0, "t5")
    asm.op("addi", "t4", "t4", ticks)
    asm.const("t5", MTIMECMP)
    asm.op("sw", "t4", 0, "t5")
    asm.load("t4", 8 * REGISTERS["t4"], "t6")
    asm.load("t5", 8 * REGISTERS["t5"], "t6")
    asm.op("csrrw", "t6", "mscratch", "t6")
    asm.op("mret")
    asm.label("exception")
    asm.load("t5", 8 * REGISTERS["t5"], "t6")


def setup(asm, ticks):
    asm.op("addi", "t0", "zero", 0x80 if ticks else 0)
    asm.op("csrrw", "zero", "mie", "t0")
    if ticks:
        # Runs of an image end long before the low word of the time wraps.
        asm.const("t0", MTIMECMP)
        asm.op("sw", "zero", 4, "t0")
        asm.op("sw", "zero", 0, "t0")
    asm.op("csrrw", "zero", "mideleg", "zero")
    asm.op("jal", "t1", "after_vector")
    asm.op("jal", "zero", "trap")
    asm.label("after_vector")
    asm.op("csrrw", "zero", "mtvec", "t1")
    asm.op("addi", "t0", "zero", -1)
    asm.op("csrrw", "zero", "pmpaddr0", "t0")
    asm.op("addi", "t0", "zero", 0x1f)
    asm.op("csrrw", "zero", "pmpcfg0", "t0")
    asm.op("addi", "t0", "zero", -1)
    asm.op("csrrw", "zero", "mcounteren", "t0")
    asm.op("csrrw", "zero", "scounteren", "t0")
    asm.const("s0", RECORDS)


def apply_record(asm):
    """Record: count, then (byte offset into the block, value) pairs of XLEN-bit words."""
    step = asm.xlen // 8
    asm.op("addi", "s0", "s0", step)
    asm.const("t0", IN)
    asm.op("jal", "zero", "override_test")
    asm.label("override")
    asm.load("t1", 0, "s0")
    asm.load("t2", step, "s0")
    asm.op("add", "t1", "t1", "t0")
    asm.store("t2", 0, "t1")
    asm.op("addi", "s0", "s0", 2 * step)
    asm.op("addi", "s1", "s1", -1)
    asm.label("override_test")
    asm.op("bne", "s1", "zero", "override")
    asm.const("t0", VARS)
    asm.store("s0", VAR_RECORD, "t0")


def enter_case(asm):
    asm.op("csrrw", "zero", "medeleg", "zero")
    asm.const("t6", OUT)
    asm.op("csrrw", "zero", "mscratch", "t6")
    # A store-conditional drops a reservation that an earlier case left behind.
    asm.op("addi", "t0", "t6", 8 * MEM)
    asm.op("sc.w", "zero", 0, "zero", "t0")
    asm.const("t6", IN)
    asm.const("t1", 0x6000)
    asm.op("csrrs", "zero", "mstatus", "t1")
    asm.op("lw", "t0", 8 * FCSR, "t6")
    asm.op("csrrw", "zero", "fcsr", "t0")
    for number in range(32):
        asm.op("fld", number, 8 * (F0 + number), "t6")
    asm.load("t0", 8 * SATP, "t6")
    asm.op("csrrw", "zero", "satp", "t0")
    asm.op("sfence.vma", "zero", "zero")
    asm.load("t0", 8 * ENTRY, "t6")
    asm.op("csrrw", "zero", "mepc", "t0")
    asm.load("t0", 8 * MSTATUS, "t6")
    asm.op("csrrw", "zero", "mstatus", "t0")
    for number in range(1, 32):
        asm.load(number, 8 * number, "t6")
    asm.op("mret")


def leave_case(asm):
    """Saves everything into OUT, where t6 points; all registers are free afterwards."""
    for number in range(1, 31):
        asm.store(number, 8 * number, "t6")
    asm.op("csrrs", "t0", "mscratch", "zero")
    asm.store("t0", 8 * 31, "t6")
    asm.op("csrrs", "t0", "mstatus", "zero")
    asm.store("t0", 8 * MSTATUS, "t6")
    asm.const("t1", 0x6000)
    asm.op("csrrs", "zero", "mstatus", "t1")
    for number in range(32):
        asm.op("fsd", number, 8 * (F0 + number), "t6")
    asm.op("csrrs", "t0", "fcsr", "zero")
    asm.op("sw", "t0", 8 * FCSR, "t6")
    for slot, name in ((MCAUSE, "mcause"), (MEPC, "mepc"), (MTVAL, "mtval"), (SATP, "satp")):
        asm.op("csrrs", "t0", name, "zero")
        asm.store("t0", 8 * slot, "t6")
    # The architecture lets a breakpoint report its address or zero: take either.
    asm.op("csrrs", "t0", "mcause", "zero")
    asm.op("addi", "t1", "zero", BREAKPOINT)
    asm.op("bne", "t0", "t1", "not_breakpoint")
    asm.store("zero", 8 * MTVAL, "t6")
    asm.label("not_breakpoint")
    asm.const("t0", IN)
    asm.load("t1", 8 * ENTRY, "t0")
    asm.store("t1", 8 * ENTRY, "t6")


def send_difference(asm, words):
    """Sends, for each word of OUT unlike IN's: its index, its value; then END_OF_CASE."""
    step = asm.xlen // 8
    asm.const("s1", IN)
    asm.const("s2", OUT)
    asm.op("addi", "s3", "zero", 0)
    asm.const("s4", words)
    asm.const("s5", UART)
    asm.label("diff")
    asm.load("t0", 0, "s1")
    asm.load("s6", 0, "s2")
    asm.op("beq", "t0", "s6", "same")
    asm.op("addi", "a0", "s3", 0)
    asm.op("addi", "a1", "zero", 1)
    asm.op("jal", "ra", "send")
    asm.op("addi", "a0", "s6", 0)
    asm.op("addi", "a1", "zero", step)
    asm.op("jal", "ra", "send")
    asm.label("same")
    asm.op("addi", "s1", "s1", step)
    asm.op("addi", "s2", "s2", step)
    asm.op("addi", "s3", "s3", 1)
    asm.op("bne", "s3", "s4", "diff")
    asm.op("addi", "a0", "zero", END_OF_CASE)
    asm.op("addi", "a1", "zero", 1)
    asm.op("jal", "ra", "send")


def send_digest(asm, words):
    """Sends one hash word of OUT: h = (h ^ word) * odd, h ^= h >> (XLEN / 2 - 3)."""
    step = asm.xlen // 8
    shift = "sh6" if asm.xlen == 64 else "sh5"
    srli = "srli" if shift == "sh6" else "srli.32"
    asm.const("s2", OUT)
    asm.const("s4", words)
    asm.const("s5", UART)
    asm.const("s6", 0x1b873593)
    asm.const("t1", 0x5bd1e995)
    asm.label("hash")
    asm.load("t0", 0, "s2")
    asm.op("xor", "s6", "s6", "t0")
    asm.op("mul", "s6", "s6", "t1")
    asm.op(srli, "t0", "s6", asm.xlen // 2 - 3)
    asm.op("xor", "s6", "s6", "t0")
    asm.op("addi", "s2", "s2", step)
    asm.op("addi", "s4", "s4", -1)
    asm.op("bne", "s4", "zero", "hash")
    asm.op("addi", "a0", "s6", 0)
    asm.op("addi", "a1", "zero", step)
    asm.op("jal", "ra", "send")


def send_word(asm):
    """send: a1 low bytes of a0 to the UART at s5, each when the transmitter is free."""
    asm.label("send")
    asm.op("lbu", "t0", 5, "s5")
    asm.op("andi", "t0", "t0", 0x20)
    asm.op("beq", "t0", "zero", "send")
    asm.op("sb", "a0", 0, "s5")
    asm.op("srli" if asm.xlen == 64 else "srli.32", "a0", "a0", 8)
    asm.op("addi", "a1", "a1", -1)
    asm.op("bne", "a1", "zero", "send")
    asm.op("jalr", "zero", "ra", 0)


def slot_words(slot, value, xlen):
    """(byte offset, word) pairs of one slot."""
    if xlen == 64:
        return [(8 * slot, value & (1 << 64) - 1)]
    words = [(8 * slot, value & 0xffffffff)]
    if F0 <= slot < FCSR or slot >= MEM:
        words.append((8 * slot + 4, value >> 32 & 0xffffffff))
    return words


class Image:
    """A bootable image of cases; `addresses` has where the code of each stands."""

    def __init__(self, cases, xlen, digest=False, ticks=0):
        self.cases = list(cases)
        self.xlen = xlen
        self.digest = digest
        self.ticks = ticks
        record_size = sum(self._record_size(case) for case in self.cases) + 64
        self.code = RECORDS + record_size + CODE_GAP
        self.code += -self.code % CODE_ALIGN
        self.addresses = []
        at = self.code
        for case in self.cases:
            self.addresses.append(at)
            at += len(case.image_bytes())
            at += -at % 8
        self.end = at

    def _record_size(self, case):
        words = sum(len(slot_words(slot, 0, self.xlen)) for slot in case.state) + 4
        return (1 + 2 * words) * self.xlen // 8

    def _record(self, case, address):
        state = {MEPC: address + case.end, ENTRY: address + case.entry, **case.state}
        pairs = [pair for slot, value in sorted(state.items())
                 for pair in slot_words(slot, value, self.xlen)]
        flat = [len(pairs)] + [word for pair in pairs for word in pair]
        return struct.pack(f"<{len(flat)}{'Q' if self.xlen == 64 else 'I'}", *flat)

    def bytes(self):
        code = runtime(self.xlen, self.digest, self.ticks)
        if len(code) > WINDOW - RAM:
            raise ValueError("the runtime grew into the window")
        image = bytearray(self.end - RAM)
        image[:len(code)] = code
        base = base_state(self.xlen)
        at = BASE - RAM
        for slot, value in enumerate(base):
            image[at + 8 * slot:at + 8 * slot + 8] = struct.pack("<Q", value)
        at = RECORDS - RAM
        for case, address in zip(self.cases, self.addresses):
            record = self._record(case, address)
            image[at:at + len(record)] = record
            at += len(record)
            where = address - RAM
            body = case.image_bytes()
            image[where:where + len(body)] = body
        image[at:at + self.xlen // 8] = b"\xff" * (self.xlen // 8)
        return bytes(image)

    def parse(self, data):
        """What the UART sent, as one result a case: {slot: value}, or the digest.

        Stops with fewer results when the stream ends early, raises ValueError when it is not
        one of ours.
        """
        step = self.xlen // 8
        if self.digest:
            whole = len(data) // step
            results = [int.from_bytes(data[step * n:step * n + step], "little")
                       for n in range(min(whole, len(self.cases)))]
            if len(data) > step * len(self.cases):
                raise ValueError("more results than cases")
            return results
        results = []
        at = 0
        for _case in self.cases:
            words = {}
            while at < len(data) and data[at] != END_OF_CASE:
                index = data[at]
                if index >= SLOTS * 8 // step or (words and index <= max(words)):
                    raise ValueError(f"word {index} out of order at byte {at}")
                if at + 1 + step > len(data):
                    return results
                words[index] = int.from_bytes(data[at + 1:at + 1 + step], "little")
                at += 1 + step
            if at >= len(data):
                return results
            at += 1
            results.append(words)
        if at != len(data):
            raise ValueError(f"{len(data) - at} bytes after the last case")
        return [self._slots(words, number) for number, words in enumerate(results)]

    def _slots(self, words, number):
        """Joins RV32's halves of 64-bit slots, filling in halves that did not change."""
        if self.xlen == 64:
            return words
        slots = {}
        for index in words:
            slot = index // 2
            base = self.cases[number].state.get(slot, base_state(32)[slot])
            low = words.get(2 * slot, base & 0xffffffff)
            high = words.get(2 * slot + 1, base >> 32)
            slots[slot] = low | high << 32
        return slots


def slot_name(slot):
    if slot < F0:
        return f"x{slot}"
    if slot < FCSR:
        return f"f{slot - F0}"
    if slot >= MEM:
        return f"m{8 * (slot - MEM)}"
    return {FCSR: "fcsr", MCAUSE: "mcause", MEPC: "mepc", MTVAL: "mtval", MSTATUS: "mstatus",
            SATP: "satp", ENTRY: "entry"}[slot]


def slot_number(name):
    if name[0] == "x":
        return int(name[1:])
    if name[0] == "f" and name[1:].isdigit():
        return F0 + int(name[1:])
    if name[0] == "m" and name[1:].isdigit():
        return MEM + int(name[1:]) // 8
    return {"fcsr": FCSR, "mcause": MCAUSE, "mepc": MEPC, "mtval": MTVAL, "mstatus": MSTATUS,
            "satp": SATP}[name]
