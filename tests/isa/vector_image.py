# SPDX-License-Identifier: Apache-2.0
"""Bare-metal programs that run many short sequences of vector instructions and report on each.

Like image.py, but for vectors: every case has its own vtype, vl, vstart and rounding modes, x and f
operands, and the 32 vector registers come from a pool of data. It runs in machine or user mode and
ends by an ecall or any other trap. Reported is a hash over all vector registers, x10 to x15, f10 to
f12, the vector CSRs, fflags, mcause, mtval and a window of memory; or, to look closer, all of that.
RV64; needs the same board as image.py.
"""

import struct

import image

POOL = image.RAM + 0x200000     # what registers are filled from
POOL_SIZE = 0x10000
WINDOW = image.RAM + 0x180000   # what loads and stores reach
WINDOW_SIZE = 0x1000
PRISTINE = image.RAM + 0x220000  # what the window holds before each case
OUT = image.RAM + 0x228000
RECORDS = image.RAM + 0x240000
USED = 0x200                    # bytes of the window that are compared
VSTART, VXSAT, VXRM, VCSR, VL, VTYPE = 0x008, 0x009, 0x00a, 0x00f, 0xc20, 0xc21

# A record: words of 8 bytes.
FIELDS = ("entry", "mstatus", "vtype", "avl", "vstart", "vcsr", "fcsr", "pool",
          "x10", "x11", "x12", "x13", "x14", "x15", "f10", "f11", "f12")
# What OUT holds behind the vector registers (1024 bits each at most).
OUT_NAMES = ("x10", "x11", "x12", "x13", "x14", "x15", "f10", "f11", "f12", "vl", "vtype", "vstart",
             "vcsr", "fcsr", "mcause", "mtval")
SCALARS = 32 * 128
ECALL = 0x73


class VectorCase:
    """Instruction words, and the values of FIELDS but `entry`."""

    def __init__(self, words, **values):
        self.words = words
        self.values = values


def csr(asm, rd, number, rs1, write=True):
    """csrrw or csrrs."""
    a, b = image.REGISTERS[rd], image.REGISTERS[rs1]
    asm.words.append(number << 20 | b << 15 | (1 if write else 2) << 12 | a << 7 | 0x73)


def word(asm, bits):
    asm.words.append(bits)


def whole(asm, store, vd, base):
    """vl8re8.v or vs8r.v"""
    word(asm, 7 << 29 | 1 << 25 | 8 << 20 | image.REGISTERS[base] << 15 | vd << 7 |
         (0x27 if store else 0x07))


def field(name):
    return 8 * FIELDS.index(name)


def enter(asm):
    """Everything as the record at s0 says; then the case."""
    asm.const("t1", 0x6600)
    asm.op("csrrs", "zero", "mstatus", "t1")
    # The window.
    asm.const("t0", PRISTINE)
    asm.const("t1", WINDOW)
    asm.const("t2", WINDOW_SIZE // 8)
    asm.label("refill")
    asm.load("t3", 0, "t0")
    asm.store("t3", 0, "t1")
    asm.op("addi", "t0", "t0", 8)
    asm.op("addi", "t1", "t1", 8)
    asm.op("addi", "t2", "t2", -1)
    asm.op("bne", "t2", "zero", "refill")
    csr(asm, "zero", VSTART, "zero")
    asm.load("t0", field("pool"), "s0")
    for vd in (0, 8, 16, 24):
        whole(asm, False, vd, "t0")
        asm.op("addi", "t0", "t0", 1024)
    for name, number in (("vcsr", VCSR), ("fcsr", 3)):
        asm.load("t0", field(name), "s0")
        csr(asm, "zero", number, "t0")
    asm.load("t0", field("vtype"), "s0")
    asm.load("t1", field("avl"), "s0")
    word(asm, 0x40 << 25 | image.REGISTERS["t0"] << 20 | image.REGISTERS["t1"] << 15 | 7 << 12 |
         0x57)
    asm.load("t0", field("vstart"), "s0")
    csr(asm, "zero", VSTART, "t0")
    asm.load("t0", field("entry"), "s0")
    asm.op("csrrw", "zero", "mepc", "t0")
    asm.load("t0", field("mstatus"), "s0")
    asm.op("csrrw", "zero", "mstatus", "t0")
    for number in range(10, 16):
        asm.load(number, field(f"x{number}"), "s0")
    for number in (10, 11, 12):
        asm.op("fld", number, field(f"f{number}"), "s0")
    asm.op("mret")


def leave(asm):
    """Everything into OUT."""
    asm.op("csrrw", "t6", "mscratch", "t6")
    for name in OUT_NAMES[:6]:
        asm.store(int(name[1:]), scalar_at(name), "t6")
    asm.const("t1", 0x6600)
    asm.op("csrrs", "zero", "mstatus", "t1")
    for name in OUT_NAMES[6:9]:
        asm.op("fsd", int(name[1:]), scalar_at(name), "t6")
    for name, number in (("vl", VL), ("vtype", VTYPE), ("vstart", VSTART), ("vcsr", VCSR),
                         ("fcsr", 3), ("mcause", 0x342), ("mtval", 0x343)):
        csr(asm, "t0", number, "zero", False)
        if name == "mtval":
            # Which part of a misaligned element faulted is the implementation's choice.
            asm.op("andi", "t0", "t0", -8)
        asm.store("t0", scalar_at(name), "t6")
    csr(asm, "zero", VSTART, "zero")
    asm.const("t0", OUT)
    for vd in (0, 8, 16, 24):
        whole(asm, True, vd, "t0")
        asm.op("addi", "t0", "t0", 1024)


def scalar_at(name):
    """Offset from OUT + SCALARS, where t6 points."""
    return 8 * OUT_NAMES.index(name)


def hash_words(asm, label, at, count):
    """s2 = hash of s2 and the words."""
    asm.const("t0", at)
    asm.const("t1", count)
    asm.label(label)
    asm.load("t2", 0, "t0")
    asm.op("xor", "s2", "s2", "t2")
    asm.op("mul", "s2", "s2", "s3")
    asm.op("srli", "t2", "s2", 29)
    asm.op("xor", "s2", "s2", "t2")
    asm.op("addi", "t0", "t0", 8)
    asm.op("addi", "t1", "t1", -1)
    asm.op("bne", "t1", "zero", label)


def send_words(asm, label, at, count):
    asm.const("s4", at)
    asm.const("s6", count)
    asm.label(label)
    asm.load("a0", 0, "s4")
    asm.op("addi", "a1", "zero", 8)
    asm.op("jal", "ra", "send")
    asm.op("addi", "s4", "s4", 8)
    asm.op("addi", "s6", "s6", -1)
    asm.op("bne", "s6", "zero", label)


def runtime(vlenb, full):
    asm = image.Asm(image.RAM, 64)
    image.setup(asm, 0)
    asm.const("s5", image.UART)
    asm.const("s3", 0x9e3779b1)
    asm.const("s0", RECORDS)
    asm.label("next")
    asm.load("s1", 0, "s0")
    asm.op("beq", "s1", "zero", "done")
    asm.const("t6", OUT + SCALARS)
    asm.op("csrrw", "zero", "mscratch", "t6")
    enter(asm)
    asm.label("trap")
    leave(asm)
    registers = 32 * vlenb // 8
    if full:
        for part in range(4):
            send_words(asm, f"registers{part}", OUT + 1024 * part, registers // 4)
        send_words(asm, "scalars", OUT + SCALARS, len(OUT_NAMES))
        send_words(asm, "window", WINDOW, USED // 8)
    else:
        asm.op("addi", "s2", "zero", 0)
        for part in range(4):
            hash_words(asm, f"registers{part}", OUT + 1024 * part, registers // 4)
        hash_words(asm, "scalars", OUT + SCALARS, len(OUT_NAMES))
        hash_words(asm, "window", WINDOW, USED // 8)
        asm.op("addi", "a0", "s2", 0)
        asm.op("addi", "a1", "zero", 8)
        asm.op("jal", "ra", "send")
    asm.op("addi", "s0", "s0", 8 * len(FIELDS))
    asm.op("jal", "zero", "next")
    asm.label("done")
    asm.const("t0", image.SYSCON)
    asm.const("t1", 0x5555)
    asm.op("sw", "t1", 0, "t0")
    asm.label("spin")
    asm.op("jal", "zero", "spin")
    image.send_word(asm)
    return asm.bytes()


class VectorImage:
    """What runner.run() wants of an image."""

    xlen = 64

    def __init__(self, cases, pool, window, vlenb, full=False):
        self.cases, self.pool, self.window = cases, pool, window
        self.vlenb, self.full = vlenb, full
        at = RECORDS + 8 * (len(FIELDS) * len(cases) + 1)
        self.entries = []
        for case in cases:
            self.entries.append(at)
            at += 4 * len(case.words) + 4
        self.end = at

    def bytes(self):
        data = bytearray(self.end - image.RAM)

        def put(at, content):
            data[at - image.RAM:at - image.RAM + len(content)] = content

        code = runtime(self.vlenb, self.full)
        put(image.RAM, code)
        put(POOL, self.pool)
        put(WINDOW, self.window)
        put(PRISTINE, self.window)
        at = RECORDS
        for case, entry in zip(self.cases, self.entries):
            values = {**case.values, "entry": entry, "pool": POOL + case.values["pool"]}
            put(at, struct.pack(f"<{len(FIELDS)}Q", *(values[name] & (1 << 64) - 1
                                                      for name in FIELDS)))
            at += 8 * len(FIELDS)
            put(entry, b"".join(bits.to_bytes(4, "little") for bits in case.words + [ECALL]))
        return bytes(data)

    def size(self):
        """Bytes that a case sends."""
        return 32 * self.vlenb + 8 * len(OUT_NAMES) + USED if self.full else 8

    def parse(self, data):
        size = self.size()
        return [data[at:at + size] for at in range(0, len(data) - size + 1, size)]

    def describe(self, result):
        """A full result as {name: text}."""
        values = {}
        for number in range(32):
            part = result[number * self.vlenb:(number + 1) * self.vlenb]
            values[f"v{number}"] = part[::-1].hex()
        at = 32 * self.vlenb
        for name in OUT_NAMES:
            values[name] = f"{int.from_bytes(result[at:at + 8], 'little'):x}"
            at += 8
        for offset in range(0, USED, 32):
            values[f"mem+{offset:x}"] = result[at + offset:at + offset + 32].hex()
        return values
