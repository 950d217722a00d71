# SPDX-License-Identifier: Apache-2.0
"""The scalar instructions of RV32/RV64 GC, Zb*, Zk*, Zf* and the small extensions as a table, for tests.

Written from the specification (RISC-V Unprivileged ISA 20191213, Bit-manipulation 1.0), apart from
the .isa file that the translator is made of, so that one checks the other. Each row has the fixed
bits, the operands with their places in the word, and the kind of value every source reads, which
the case generator draws operands from.

A field is a list of (highest bit in the word, lowest bit in the word, lowest bit of the value).
"""

FIELDS = {
    "rd": [(11, 7, 0)], "rs1": [(19, 15, 0)], "rs2": [(24, 20, 0)], "rs3": [(31, 27, 0)],
    "rm": [(14, 12, 0)], "aqrl": [(26, 25, 0)],
    "i12": [(31, 20, 0)], "s12": [(31, 25, 5), (11, 7, 0)],
    "b12": [(31, 31, 12), (30, 25, 5), (11, 8, 1), (7, 7, 11)],
    "u20": [(31, 12, 0)], "j20": [(31, 31, 20), (30, 21, 1), (20, 20, 11), (19, 12, 12)],
    "sh6": [(25, 20, 0)], "sh5": [(24, 20, 0)],
    "csr": [(31, 20, 0)], "zimm": [(19, 15, 0)],
    "pred": [(27, 24, 0)], "succ": [(23, 20, 0)],
    # compressed: registers of all 32, of the popular eight, immediates by instruction
    "crd": [(11, 7, 0)], "crs2": [(6, 2, 0)],
    "crdp": [(4, 2, 0)], "crs2p": [(4, 2, 0)], "crs1p": [(9, 7, 0)],
    "ci6": [(12, 12, 5), (6, 2, 0)], "csh6": [(12, 12, 5), (6, 2, 0)], "csh5": [(6, 2, 0)],
    "clui": [(12, 12, 5), (6, 2, 0)],
    "c4spn": [(12, 11, 4), (10, 7, 6), (6, 6, 2), (5, 5, 3)],
    "c16sp": [(12, 12, 9), (6, 6, 4), (5, 5, 6), (4, 3, 7), (2, 2, 5)],
    "clw": [(12, 10, 3), (6, 6, 2), (5, 5, 6)], "cld": [(12, 10, 3), (6, 5, 6)],
    "clwsp": [(12, 12, 5), (6, 4, 2), (3, 2, 6)], "cldsp": [(12, 12, 5), (6, 5, 3), (4, 2, 6)],
    "cswsp": [(12, 9, 2), (8, 7, 6)], "csdsp": [(12, 10, 3), (9, 7, 6)],
    "cb": [(12, 12, 8), (11, 10, 3), (6, 5, 6), (4, 3, 1), (2, 2, 5)],
    "bs": [(31, 30, 0)], "rnum": [(23, 20, 0)], "fli": [(19, 15, 0)],
    "mopr": [(30, 30, 4), (27, 26, 2), (21, 20, 0)], "moprr": [(30, 30, 2), (27, 26, 0)],
    "erd": [(11, 7, 0)], "ers2": [(24, 20, 0)],
    "clb": [(6, 6, 0), (5, 5, 1)], "clh": [(5, 5, 1)], "cmop": [(10, 8, 0)],
    "cj": [(12, 12, 11), (11, 11, 4), (10, 9, 8), (8, 8, 10), (7, 7, 6), (6, 6, 7), (5, 3, 1),
           (2, 2, 5)],
}
# Immediates: (lowest value, highest value, step).
RANGES = {
    "i12": (-2048, 2047, 1), "s12": (-2048, 2047, 1), "b12": (-4096, 4094, 2),
    "u20": (-(1 << 19), (1 << 19) - 1, 1), "j20": (-(1 << 20), (1 << 20) - 2, 2),
    "sh6": (0, 63, 1), "sh5": (0, 31, 1), "zimm": (0, 31, 1), "aqrl": (0, 3, 1),
    "pred": (0, 15, 1), "succ": (0, 15, 1),
    "ci6": (-32, 31, 1), "csh6": (0, 63, 1), "csh5": (0, 31, 1), "clui": (-32, 31, 1),
    "c4spn": (4, 1020, 4), "c16sp": (-512, 496, 16),
    "clw": (0, 124, 4), "cld": (0, 248, 8), "clwsp": (0, 252, 4), "cldsp": (0, 504, 8),
    "bs": (0, 3, 1), "rnum": (0, 10, 1), "fli": (0, 31, 1), "mopr": (0, 31, 1), "moprr": (0, 7, 1),
    "clb": (0, 3, 1), "clh": (0, 2, 2), "cmop": (0, 7, 1),
    "cswsp": (0, 252, 4), "csdsp": (0, 504, 8), "cb": (-256, 254, 2), "cj": (-2048, 2046, 2),
}
NONZERO = {"c4spn", "c16sp", "clui"}
POPULAR = {"crdp", "crs2p", "crs1p"}
REGISTERS = {"rd", "rs1", "rs2", "rs3", "erd", "ers2", "crd", "crs2", "crdp", "crs2p", "crs1p"}
EVEN = {"erd", "ers2"}
TARGETS = {"b12", "j20", "cb", "cj"}


class Insn:
    """One instruction: fixed bits, operands in assembler order, what each register holds.

    `kinds` maps a register operand to x (integer), s, d (floating point), a (an address, for
    memory instructions), or =K for a destination of kind K. `size` is the bytes of its memory
    access, 0 for none; `group` is the set it is tested with.
    """

    def __init__(self, name, ext, match, operands, kinds, size=0, group="alu", xlens=(32, 64)):
        self.name = name
        self.ext = ext
        self.match = match
        self.operands = operands.split()
        self.kinds = dict(pair.split(":") for pair in kinds.split())
        self.size = size
        self.group = group
        self.xlens = xlens

    @property
    def length(self):
        return 4 if self.match & 3 == 3 else 2

    def encode(self, **values):
        """The word of the instruction; registers by number, immediates by value."""
        word = self.match
        for operand in self.operands:
            value = values[operand]
            if operand in POPULAR:
                if not 8 <= value <= 15:
                    raise ValueError(f"{self.name}: {operand} is x8 to x15, not x{value}")
                value -= 8
            elif operand in RANGES:
                low, high, step = RANGES[operand]
                if not low <= value <= high or value % step:
                    raise ValueError(f"{self.name}: {operand} {value} is out of its range")
            for high, low, shift in FIELDS[operand]:
                word |= (value >> shift & (1 << (high - low + 1)) - 1) << low
        return word


TABLE = {}


def add(name, ext, match, operands, kinds="", **rest):
    if name in TABLE:
        raise ValueError(f"{name} is in the table twice")
    TABLE[name] = Insn(name, ext, match, operands, kinds, **rest)


RV64 = {"xlens": (64,)}
RV32 = {"xlens": (32,)}


def base_integer():
    for name, f3, f7 in (("add", 0, 0), ("sub", 0, 0x20), ("sll", 1, 0), ("slt", 2, 0),
                         ("sltu", 3, 0), ("xor", 4, 0), ("srl", 5, 0), ("sra", 5, 0x20),
                         ("or", 6, 0), ("and", 7, 0)):
        add(name, "I", f7 << 25 | f3 << 12 | 0x33, "rd rs1 rs2", "rd:=x rs1:x rs2:x")
    for name, f3 in (("addi", 0), ("slti", 2), ("sltiu", 3), ("xori", 4), ("ori", 6),
                     ("andi", 7)):
        add(name, "I", f3 << 12 | 0x13, "rd rs1 i12", "rd:=x rs1:x")
    for name, f3, top in (("slli", 1, 0), ("srli", 5, 0), ("srai", 5, 0x400)):
        add(name, "I", top << 20 | f3 << 12 | 0x13, "rd rs1 sh6", "rd:=x rs1:x", **RV64)
        add(name + ".32", "I", top << 20 | f3 << 12 | 0x13, "rd rs1 sh5", "rd:=x rs1:x", **RV32)
    add("lui", "I", 0x37, "rd u20", "rd:=x")
    add("auipc", "I", 0x17, "rd u20", "rd:=x", group="pc")
    add("jal", "I", 0x6f, "rd j20", "rd:=x", group="jump")
    add("jalr", "I", 0x67, "rd rs1 i12", "rd:=x rs1:a", group="jalr")
    for name, f3 in (("beq", 0), ("bne", 1), ("blt", 4), ("bge", 5), ("bltu", 6), ("bgeu", 7)):
        add(name, "I", f3 << 12 | 0x63, "rs1 rs2 b12", "rs1:x rs2:x", group="branch")
    for name, f3, size in (("lb", 0, 1), ("lh", 1, 2), ("lw", 2, 4), ("lbu", 4, 1), ("lhu", 5, 2)):
        add(name, "I", f3 << 12 | 0x03, "rd i12 rs1", "rd:=x rs1:a", size=size, group="load")
    for name, f3, size in (("lwu", 6, 4), ("ld", 3, 8)):
        add(name, "I", f3 << 12 | 0x03, "rd i12 rs1", "rd:=x rs1:a", size=size, group="load",
            **RV64)
    for name, f3, size in (("sb", 0, 1), ("sh", 1, 2), ("sw", 2, 4)):
        add(name, "I", f3 << 12 | 0x23, "rs2 s12 rs1", "rs2:x rs1:a", size=size, group="store")
    add("sd", "I", 3 << 12 | 0x23, "rs2 s12 rs1", "rs2:x rs1:a", size=8, group="store", **RV64)
    for name, f3, f7 in (("addw", 0, 0), ("subw", 0, 0x20), ("sllw", 1, 0), ("srlw", 5, 0),
                         ("sraw", 5, 0x20)):
        add(name, "I", f7 << 25 | f3 << 12 | 0x3b, "rd rs1 rs2", "rd:=x rs1:x rs2:x", **RV64)
    add("addiw", "I", 0x1b, "rd rs1 i12", "rd:=x rs1:x", **RV64)
    for name, f3, f7 in (("slliw", 1, 0), ("srliw", 5, 0), ("sraiw", 5, 0x20)):
        add(name, "I", f7 << 25 | f3 << 12 | 0x1b, "rd rs1 sh5", "rd:=x rs1:x", **RV64)
    add("fence", "I", 0x0f, "pred succ rd rs1", "rd:- rs1:-", group="plain")
    add("ecall", "I", 0x73, "", group="trap")
    add("ebreak", "I", 0x100073, "", group="trap")
    add("fence.i", "Zifencei", 0x100f, "", group="plain")
    add("mret", "priv", 0x30200073, "", group="priv")
    add("sret", "priv", 0x10200073, "", group="priv")
    add("wfi", "priv", 0x10500073, "", group="priv")
    add("sfence.vma", "priv", 0x12000073, "rs1 rs2", "rs1:x rs2:x", group="priv")


def csr_and_multiply():
    for name, f3 in (("csrrw", 1), ("csrrs", 2), ("csrrc", 3)):
        add(name, "Zicsr", f3 << 12 | 0x73, "rd csr rs1", "rd:=x rs1:x", group="csr")
        add(name + "i", "Zicsr", (f3 | 4) << 12 | 0x73, "rd csr zimm", "rd:=x", group="csr")
    for f3, name in enumerate(("mul", "mulh", "mulhsu", "mulhu", "div", "divu", "rem", "remu")):
        add(name, "M", 1 << 25 | f3 << 12 | 0x33, "rd rs1 rs2", "rd:=x rs1:x rs2:x")
    for name, f3 in (("mulw", 0), ("divw", 4), ("divuw", 5), ("remw", 6), ("remuw", 7)):
        add(name, "M", 1 << 25 | f3 << 12 | 0x3b, "rd rs1 rs2", "rd:=x rs1:x rs2:x", **RV64)


def atomics():
    for suffix, f3, size, rest in (("w", 2, 4, {}), ("d", 3, 8, RV64)):
        low = f3 << 12 | 0x2f
        add("lr." + suffix, "A", 0x02 << 27 | low, "rd aqrl rs1", "rd:=x rs1:a", size=size,
            group="lr", **rest)
        add("sc." + suffix, "A", 0x03 << 27 | low, "rd aqrl rs2 rs1", "rd:=x rs2:x rs1:a",
            size=size, group="sc", **rest)
        for name, f5 in (("swap", 1), ("add", 0), ("xor", 4), ("and", 0xc), ("or", 8),
                         ("min", 0x10), ("max", 0x14), ("minu", 0x18), ("maxu", 0x1c)):
            add(f"amo{name}.{suffix}", "A", f5 << 27 | low, "rd aqrl rs2 rs1",
                "rd:=x rs2:x rs1:a", size=size, group="amo", **rest)


def floating_point():
    for kind, ext, fmt, width, size in (("s", "F", 0, 2, 4), ("d", "D", 1, 3, 8)):
        top = fmt << 25
        add(f"fl{'w' if kind == 's' else 'd'}", ext, width << 12 | 0x07, "rd i12 rs1",
            f"rd:={kind} rs1:a", size=size, group="load")
        add(f"fs{'w' if kind == 's' else 'd'}", ext, width << 12 | 0x27, "rs2 s12 rs1",
            f"rs2:{kind} rs1:a", size=size, group="store")
        for name, opcode in (("fmadd", 0x43), ("fmsub", 0x47), ("fnmsub", 0x4b),
                             ("fnmadd", 0x4f)):
            add(f"{name}.{kind}", ext, top | opcode, "rd rs1 rs2 rs3 rm",
                f"rd:={kind} rs1:{kind} rs2:{kind} rs3:{kind}", group="fma")
        two = f"rd:={kind} rs1:{kind} rs2:{kind}"
        for name, f5 in (("fadd", 0), ("fsub", 1), ("fmul", 2), ("fdiv", 3)):
            add(f"{name}.{kind}", ext, f5 << 27 | top | 0x53, "rd rs1 rs2 rm", two, group="fp")
        add(f"fsqrt.{kind}", ext, 0x0b << 27 | top | 0x53, "rd rs1 rm",
            f"rd:={kind} rs1:{kind}", group="fp")
        for name, f5, f3 in (("fsgnj", 4, 0), ("fsgnjn", 4, 1), ("fsgnjx", 4, 2), ("fmin", 5, 0),
                             ("fmax", 5, 1)):
            add(f"{name}.{kind}", ext, f5 << 27 | top | f3 << 12 | 0x53, "rd rs1 rs2", two,
                group="fp")
        for name, f3 in (("feq", 2), ("flt", 1), ("fle", 0)):
            add(f"{name}.{kind}", ext, 0x14 << 27 | top | f3 << 12 | 0x53, "rd rs1 rs2",
                f"rd:=x rs1:{kind} rs2:{kind}", group="fp")
        add(f"fclass.{kind}", ext, 0x1c << 27 | top | 1 << 12 | 0x53, "rd rs1",
            f"rd:=x rs1:{kind}", group="fp")
        for name, code, rest in (("w", 0, {}), ("wu", 1, {}), ("l", 2, RV64), ("lu", 3, RV64)):
            add(f"fcvt.{name}.{kind}", ext, 0x18 << 27 | top | code << 20 | 0x53, "rd rs1 rm",
                f"rd:=x rs1:{kind}", group="fp", **rest)
            add(f"fcvt.{kind}.{name}", ext, 0x1a << 27 | top | code << 20 | 0x53, "rd rs1 rm",
                f"rd:={kind} rs1:x", group="fp", **rest)
    add("fmv.x.w", "F", 0xe0000053, "rd rs1", "rd:=x rs1:s", group="fp")
    add("fmv.w.x", "F", 0xf0000053, "rd rs1", "rd:=s rs1:x", group="fp")
    add("fmv.x.d", "D", 0xe2000053, "rd rs1", "rd:=x rs1:d", group="fp", **RV64)
    add("fmv.d.x", "D", 0xf2000053, "rd rs1", "rd:=d rs1:x", group="fp", **RV64)
    add("fcvt.s.d", "D", 0x40100053, "rd rs1 rm", "rd:=s rs1:d", group="fp")
    add("fcvt.d.s", "D", 0x42000053, "rd rs1 rm", "rd:=d rs1:s", group="fp")


def bit_manipulation():
    two = "rd:=x rs1:x rs2:x"
    for name, ext, f7, f3 in (
            ("sh1add", "Zba", 0x10, 2), ("sh2add", "Zba", 0x10, 4), ("sh3add", "Zba", 0x10, 6),
            ("andn", "Zbb", 0x20, 7), ("orn", "Zbb", 0x20, 6), ("xnor", "Zbb", 0x20, 4),
            ("max", "Zbb", 5, 6), ("maxu", "Zbb", 5, 7), ("min", "Zbb", 5, 4),
            ("minu", "Zbb", 5, 5), ("rol", "Zbb", 0x30, 1), ("ror", "Zbb", 0x30, 5),
            ("bclr", "Zbs", 0x24, 1), ("bext", "Zbs", 0x24, 5), ("binv", "Zbs", 0x34, 1),
            ("bset", "Zbs", 0x14, 1)):
        add(name, ext, f7 << 25 | f3 << 12 | 0x33, "rd rs1 rs2", two)
    for name, ext, f7, f3 in (("add.uw", "Zba", 4, 0), ("sh1add.uw", "Zba", 0x10, 2),
                              ("sh2add.uw", "Zba", 0x10, 4), ("sh3add.uw", "Zba", 0x10, 6),
                              ("rolw", "Zbb", 0x30, 1), ("rorw", "Zbb", 0x30, 5)):
        add(name, ext, f7 << 25 | f3 << 12 | 0x3b, "rd rs1 rs2", two, **RV64)
    for name, ext, top, f3 in (("rori", "Zbb", 0x600, 5), ("bclri", "Zbs", 0x480, 1),
                               ("bexti", "Zbs", 0x480, 5), ("binvi", "Zbs", 0x680, 1),
                               ("bseti", "Zbs", 0x280, 1)):
        add(name, ext, top << 20 | f3 << 12 | 0x13, "rd rs1 sh6", "rd:=x rs1:x", **RV64)
        add(name + ".32", ext, top << 20 | f3 << 12 | 0x13, "rd rs1 sh5", "rd:=x rs1:x", **RV32)
    add("slli.uw", "Zba", 0x080 << 20 | 1 << 12 | 0x1b, "rd rs1 sh6", "rd:=x rs1:x", **RV64)
    add("roriw", "Zbb", 0x600 << 20 | 5 << 12 | 0x1b, "rd rs1 sh5", "rd:=x rs1:x", **RV64)
    for name, top in (("clz", 0x600), ("ctz", 0x601), ("cpop", 0x602)):
        add(name, "Zbb", top << 20 | 1 << 12 | 0x13, "rd rs1", "rd:=x rs1:x")
        add(name + "w", "Zbb", top << 20 | 1 << 12 | 0x1b, "rd rs1", "rd:=x rs1:x", **RV64)
    for name, top in (("sext.b", 0x604), ("sext.h", 0x605)):
        add(name, "Zbb", top << 20 | 1 << 12 | 0x13, "rd rs1", "rd:=x rs1:x")
    add("orc.b", "Zbb", 0x287 << 20 | 5 << 12 | 0x13, "rd rs1", "rd:=x rs1:x")
    add("rev8", "Zbb", 0x6b8 << 20 | 5 << 12 | 0x13, "rd rs1", "rd:=x rs1:x", **RV64)
    add("rev8.32", "Zbb", 0x698 << 20 | 5 << 12 | 0x13, "rd rs1", "rd:=x rs1:x", **RV32)
    add("zext.h", "Zbb", 0x080 << 20 | 4 << 12 | 0x3b, "rd rs1", "rd:=x rs1:x", **RV64)
    add("zext.h.32", "Zbb", 0x080 << 20 | 4 << 12 | 0x33, "rd rs1", "rd:=x rs1:x", **RV32)


def compressed():
    def c(name, quadrant, f3, low, operands, kinds="", **rest):
        add("c." + name, "C", f3 << 13 | low | quadrant, operands, kinds, **rest)
    c("addi4spn", 0, 0, 0, "crdp c4spn", "crdp:=x sp:x")
    c("fld", 0, 1, 0, "crdp cld crs1p", "crdp:=d crs1p:a", size=8, group="load")
    c("lw", 0, 2, 0, "crdp clw crs1p", "crdp:=x crs1p:a", size=4, group="load")
    c("ld", 0, 3, 0, "crdp cld crs1p", "crdp:=x crs1p:a", size=8, group="load", **RV64)
    c("flw", 0, 3, 0, "crdp clw crs1p", "crdp:=s crs1p:a", size=4, group="load", **RV32)
    c("fsd", 0, 5, 0, "crs2p cld crs1p", "crs2p:d crs1p:a", size=8, group="store")
    c("sw", 0, 6, 0, "crs2p clw crs1p", "crs2p:x crs1p:a", size=4, group="store")
    c("sd", 0, 7, 0, "crs2p cld crs1p", "crs2p:x crs1p:a", size=8, group="store", **RV64)
    c("fsw", 0, 7, 0, "crs2p clw crs1p", "crs2p:s crs1p:a", size=4, group="store", **RV32)
    c("nop", 1, 0, 0, "", group="plain")
    c("addi", 1, 0, 0, "crd ci6", "crd:+x")
    c("jal", 1, 1, 0, "cj", "ra:=x", group="jump", **RV32)
    c("addiw", 1, 1, 0, "crd ci6", "crd:+x", **RV64)
    c("li", 1, 2, 0, "crd ci6", "crd:=x")
    c("addi16sp", 1, 3, 2 << 7, "c16sp", "sp:+x")
    c("lui", 1, 3, 0, "crd clui", "crd:=x")
    c("srli", 1, 4, 0, "crs1p csh6", "crs1p:+x", **RV64)
    c("srai", 1, 4, 1 << 10, "crs1p csh6", "crs1p:+x", **RV64)
    c("srli.32", 1, 4, 0, "crs1p csh5", "crs1p:+x", **RV32)
    c("srai.32", 1, 4, 1 << 10, "crs1p csh5", "crs1p:+x", **RV32)
    c("andi", 1, 4, 2 << 10, "crs1p ci6", "crs1p:+x")
    for code, name in enumerate(("sub", "xor", "or", "and")):
        c(name, 1, 4, 3 << 10 | code << 5, "crs1p crs2p", "crs1p:+x crs2p:x")
    for code, name in enumerate(("subw", "addw")):
        c(name, 1, 4, 7 << 10 | code << 5, "crs1p crs2p", "crs1p:+x crs2p:x", **RV64)
    c("j", 1, 5, 0, "cj", group="jump")
    c("beqz", 1, 6, 0, "crs1p cb", "crs1p:x", group="branch")
    c("bnez", 1, 7, 0, "crs1p cb", "crs1p:x", group="branch")
    c("slli", 2, 0, 0, "crd csh6", "crd:+x", **RV64)
    c("slli.32", 2, 0, 0, "crd csh5", "crd:+x", **RV32)
    c("fldsp", 2, 1, 0, "crd cldsp", "crd:=d sp:a", size=8, group="load")
    c("lwsp", 2, 2, 0, "crd clwsp", "crd:=x sp:a", size=4, group="load")
    c("ldsp", 2, 3, 0, "crd cldsp", "crd:=x sp:a", size=8, group="load", **RV64)
    c("flwsp", 2, 3, 0, "crd clwsp", "crd:=s sp:a", size=4, group="load", **RV32)
    c("jr", 2, 4, 0, "crd", "crd:a", group="jalr")
    c("mv", 2, 4, 0, "crd crs2", "crd:=x crs2:x")
    c("ebreak", 2, 4, 1 << 12, "", group="trap")
    c("jalr", 2, 4, 1 << 12, "crd", "crd:a ra:=x", group="jalr")
    c("add", 2, 4, 1 << 12, "crd crs2", "crd:+x crs2:x")
    c("fsdsp", 2, 5, 0, "crs2 csdsp", "crs2:d sp:a", size=8, group="store")
    c("swsp", 2, 6, 0, "crs2 cswsp", "crs2:x sp:a", size=4, group="store")
    c("sdsp", 2, 7, 0, "crs2 csdsp", "crs2:x sp:a", size=8, group="store", **RV64)
    c("fswsp", 2, 7, 0, "crs2 cswsp", "crs2:s sp:a", size=4, group="store", **RV32)


def small_extensions():
    two = "rd:=x rs1:x rs2:x"
    add("czero.eqz", "Zicond", 7 << 25 | 5 << 12 | 0x33, "rd rs1 rs2", two)
    add("czero.nez", "Zicond", 7 << 25 | 7 << 12 | 0x33, "rd rs1 rs2", two)
    add("mop.r", "Zimop", 0x81c04073, "rd rs1 mopr", "rd:=x rs1:x")
    add("mop.rr", "Zimop", 0x82004073, "rd rs1 rs2 moprr", two)
    add("c.mop", "Zcmop", 0x6081, "cmop")
    for code, name in enumerate(("inval", "clean", "flush")):
        add("cbo." + name, "Zicbom", code << 20 | 2 << 12 | 0x0f, "rs1", "rs1:a", size=1, group="cbo")
    add("cbo.zero", "Zicboz", 4 << 20 | 2 << 12 | 0x0f, "rs1", "rs1:a", size=1, group="cbo")
    add("wrs.nto", "Zawrs", 0x00d00073, "", group="plain")
    add("wrs.sto", "Zawrs", 0x01d00073, "", group="plain")
    add("sinval.vma", "Svinval", 0x16000073, "rs1 rs2", "rs1:x rs2:x", group="priv")
    add("sfence.w.inval", "Svinval", 0x18000073, "", group="priv")
    add("sfence.inval.ir", "Svinval", 0x18100073, "", group="priv")
    amo = "rd aqrl rs2 rs1"
    kinds = "rd:+x rs2:x rs1:a"
    add("amocas.w", "Zacas", 5 << 27 | 2 << 12 | 0x2f, amo, kinds, size=4, group="amocas")
    add("amocas.d", "Zacas", 5 << 27 | 3 << 12 | 0x2f, amo, kinds, size=8, group="amocas", **RV64)
    even = "erd:+x ers2:x rs1:a"
    add("amocas.d.32", "Zacas", 5 << 27 | 3 << 12 | 0x2f, "erd aqrl ers2 rs1", even, size=8,
        group="amocas", **RV32)
    add("amocas.q", "Zacas", 5 << 27 | 4 << 12 | 0x2f, "erd aqrl ers2 rs1", even, size=16,
        group="amocas", **RV64)
    for f3, suffix in enumerate("bh"):
        low = f3 << 12 | 0x2f
        for name, f5 in (("swap", 1), ("add", 0), ("xor", 4), ("and", 0xc), ("or", 8),
                         ("min", 0x10), ("max", 0x14), ("minu", 0x18), ("maxu", 0x1c)):
            add(f"amo{name}.{suffix}", "Zabha", f5 << 27 | low, amo, "rd:=x rs2:x rs1:a",
                size=1 << f3, group="amo")
        add(f"amocas.{suffix}", "Zabha", 5 << 27 | low, amo, kinds, size=1 << f3, group="amocas")


def more_compressed():
    def c(name, match, operands, kinds, ext="Zcb", **rest):
        add("c." + name, ext, match, operands, kinds, **rest)
    c("lbu", 0x8000, "crdp clb crs1p", "crdp:=x crs1p:a", size=1, group="load")
    c("lhu", 0x8400, "crdp clh crs1p", "crdp:=x crs1p:a", size=2, group="load")
    c("lh", 0x8440, "crdp clh crs1p", "crdp:=x crs1p:a", size=2, group="load")
    c("sb", 0x8800, "crs2p clb crs1p", "crs2p:x crs1p:a", size=1, group="store")
    c("sh", 0x8c00, "crs2p clh crs1p", "crs2p:x crs1p:a", size=2, group="store")
    for code, name in enumerate(("zext.b", "sext.b", "zext.h", "sext.h", "zext.w", "not")):
        c(name, 0x9c61 | code << 2, "crs1p", "crs1p:+x", **(RV64 if name == "zext.w" else {}))
    c("mul", 0x9c41, "crs1p crs2p", "crs1p:+x crs2p:x")


def cryptography():
    two = "rd:=x rs1:x rs2:x"

    def r(name, ext, f7, f3, opcode=0x33, **rest):
        add(name, ext, f7 << 25 | f3 << 12 | opcode, "rd rs1 rs2", two, **rest)

    def r1(name, ext, imm, f3=1, **rest):
        add(name, ext, imm << 20 | f3 << 12 | 0x13, "rd rs1", "rd:=x rs1:x", **rest)

    def byte(name, ext, f5, **rest):
        add(name, ext, f5 << 25 | 0x33, "rd rs1 rs2 bs", two, **rest)
    r("clmul", "Zbc", 5, 1)
    r("clmulr", "Zbc", 5, 2)
    r("clmulh", "Zbc", 5, 3)
    r("pack", "Zbkb", 4, 4)
    r("packh", "Zbkb", 4, 7)
    r("packw", "Zbkb", 4, 4, 0x3b, **RV64)
    r1("brev8", "Zbkb", 0x687, 5)
    r1("zip", "Zbkb", 0x08f, 1, **RV32)
    r1("unzip", "Zbkb", 0x08f, 5, **RV32)
    r("xperm4", "Zbkx", 0x14, 2)
    r("xperm8", "Zbkx", 0x14, 4)
    for name, f7 in (("ds", 0x1d), ("dsm", 0x1f), ("es", 0x19), ("esm", 0x1b), ("ks2", 0x3f)):
        r("aes64" + name, "Zkn", f7, 0, **RV64)
    r1("aes64im", "Zkn", 0x300, **RV64)
    add("aes64ks1i", "Zkn", 0x310 << 20 | 1 << 12 | 0x13, "rd rs1 rnum", "rd:=x rs1:x", **RV64)
    for name, f5 in (("dsi", 0x15), ("dsmi", 0x17), ("esi", 0x11), ("esmi", 0x13)):
        byte("aes32" + name, "Zkn", f5, **RV32)
    for code, name in enumerate(("sum0", "sum1", "sig0", "sig1")):
        r1("sha256" + name, "Zkn", 0x100 + code)
        r1("sha512" + name, "Zkn", 0x104 + code, **RV64)
    for name, f7 in (("sum0r", 0x28), ("sum1r", 0x29), ("sig0l", 0x2a), ("sig1l", 0x2b),
                     ("sig0h", 0x2e), ("sig1h", 0x2f)):
        r("sha512" + name, "Zkn", f7, 0, **RV32)
    byte("sm4ed", "Zks", 0x18)
    byte("sm4ks", "Zks", 0x1a)
    r1("sm3p0", "Zks", 0x108)
    r1("sm3p1", "Zks", 0x109)


def half_precision():
    top = 2 << 25
    add("flh", "Zfh", 1 << 12 | 0x07, "rd i12 rs1", "rd:=h rs1:a", size=2, group="load")
    add("fsh", "Zfh", 1 << 12 | 0x27, "rs2 s12 rs1", "rs2:h rs1:a", size=2, group="store")
    for name, opcode in (("fmadd", 0x43), ("fmsub", 0x47), ("fnmsub", 0x4b), ("fnmadd", 0x4f)):
        add(name + ".h", "Zfh", top | opcode, "rd rs1 rs2 rs3 rm", "rd:=h rs1:h rs2:h rs3:h",
            group="fma")
    two = "rd:=h rs1:h rs2:h"
    for name, f5 in (("fadd", 0), ("fsub", 1), ("fmul", 2), ("fdiv", 3)):
        add(name + ".h", "Zfh", f5 << 27 | top | 0x53, "rd rs1 rs2 rm", two, group="fp")
    add("fsqrt.h", "Zfh", 0x0b << 27 | top | 0x53, "rd rs1 rm", "rd:=h rs1:h", group="fp")
    for name, f5, f3 in (("fsgnj", 4, 0), ("fsgnjn", 4, 1), ("fsgnjx", 4, 2), ("fmin", 5, 0),
                         ("fmax", 5, 1)):
        add(name + ".h", "Zfh", f5 << 27 | top | f3 << 12 | 0x53, "rd rs1 rs2", two, group="fp")
    for name, f3 in (("feq", 2), ("flt", 1), ("fle", 0)):
        add(name + ".h", "Zfh", 0x14 << 27 | top | f3 << 12 | 0x53, "rd rs1 rs2",
            "rd:=x rs1:h rs2:h", group="fp")
    add("fclass.h", "Zfh", 0x1c << 27 | top | 1 << 12 | 0x53, "rd rs1", "rd:=x rs1:h", group="fp")
    for name, code, rest in (("w", 0, {}), ("wu", 1, {}), ("l", 2, RV64), ("lu", 3, RV64)):
        add(f"fcvt.{name}.h", "Zfh", 0x18 << 27 | top | code << 20 | 0x53, "rd rs1 rm",
            "rd:=x rs1:h", group="fp", **rest)
        add(f"fcvt.h.{name}", "Zfh", 0x1a << 27 | top | code << 20 | 0x53, "rd rs1 rm",
            "rd:=h rs1:x", group="fp", **rest)
    add("fmv.x.h", "Zfh", 0xe4000053, "rd rs1", "rd:=x rs1:h", group="fp")
    add("fmv.h.x", "Zfh", 0xf4000053, "rd rs1", "rd:=h rs1:x", group="fp")
    for name, match, kinds in (("s.h", 0x40200053, "rd:=s rs1:h"), ("h.s", 0x44000053, "rd:=h rs1:s"),
                               ("d.h", 0x42200053, "rd:=d rs1:h"), ("h.d", 0x44100053, "rd:=h rs1:d")):
        add("fcvt." + name, "Zfh", match, "rd rs1 rm", kinds, group="fp")
    add("fcvt.bf16.s", "Zfbfmin", 0x44800053, "rd rs1 rm", "rd:=b rs1:s", group="fp")
    add("fcvt.s.bf16", "Zfbfmin", 0x40600053, "rd rs1 rm", "rd:=s rs1:b", group="fp")


def additional_floating_point():
    for kind, fmt in (("s", 0), ("d", 1), ("h", 2)):
        top = fmt << 25 | 0x53
        two = f"rd:={kind} rs1:{kind} rs2:{kind}"
        add("fli." + kind, "Zfa", 0xf0100000 | top, "rd fli", f"rd:={kind}", group="fp")
        add("fminm." + kind, "Zfa", 5 << 27 | 2 << 12 | top, "rd rs1 rs2", two, group="fp")
        add("fmaxm." + kind, "Zfa", 5 << 27 | 3 << 12 | top, "rd rs1 rs2", two, group="fp")
        for name, code in (("fround", 4), ("froundnx", 5)):
            add(f"{name}.{kind}", "Zfa", 8 << 27 | code << 20 | top, "rd rs1 rm",
                f"rd:={kind} rs1:{kind}", group="fp")
        for name, f3 in (("fleq", 4), ("fltq", 5)):
            add(f"{name}.{kind}", "Zfa", 0x14 << 27 | f3 << 12 | top, "rd rs1 rs2",
                f"rd:=x rs1:{kind} rs2:{kind}", group="fp")
    add("fcvtmod.w.d", "Zfa", 0xc2801053, "rd rs1", "rd:=x rs1:d", group="fp")
    add("fmvh.x.d", "Zfa", 0xe2100053, "rd rs1", "rd:=x rs1:d", group="fp", **RV32)
    add("fmvp.d.x", "Zfa", 0xb2000053, "rd rs1 rs2", "rd:=d rs1:x rs2:x", group="fp", **RV32)


base_integer()
csr_and_multiply()
atomics()
floating_point()
bit_manipulation()
compressed()
small_extensions()
more_compressed()
cryptography()
half_precision()
additional_floating_point()

# Not in QEMU 7.2: the reference of these is QEMU 10.
NEW = {"Zicond", "Zimop", "Zcmop", "Zicbom", "Zicboz", "Zawrs", "Svinval", "Zacas", "Zabha", "Zcb", "Zbc",
       "Zbkb", "Zbkx", "Zkn", "Zks", "Zfh", "Zfbfmin", "Zfa"}

# rd (crd) of these must not be x0: the encoding then means something else or is reserved.
RD_NOT_ZERO = {"c.addiw", "c.lwsp", "c.ldsp", "c.jr", "c.jalr"}
# Reserved or a hint with rd or rs2 of x0, or with rd of x2: another instruction.
RS2_NOT_ZERO = {"c.mv", "c.add"}


def instructions(xlen):
    return {name: insn for name, insn in TABLE.items() if xlen in insn.xlens}
