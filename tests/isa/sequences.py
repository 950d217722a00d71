# SPDX-License-Identifier: Apache-2.0
"""Draws random sequences: whole little programs with loops, calls, memory and traps.

A sequence is a list of pieces of machine code, so that a failing one can be shrunk by replacing
pieces with nops of the same size. What is left out, because the reference is wrong or the
architecture leaves it open, stands in EXCLUDED with the reason.
"""

import random

import cases
import image
import insns

EXCLUDED = {
    "ctzw": "QEMU 7.2 is wrong (deviations.py)",
    "wfi": "would wait for ever", "mret": "leaves the sandbox", "sret": "leaves the sandbox",
    "sfence.vma": "drawn by itself", "ecall": "drawn as an end", "ebreak": "drawn as an end",
    "c.ebreak": "drawn as an end", "fence": "drawn by itself", "auipc": "drawn by itself",
}
EXCLUDED_NEW = {
    "fcvt.s.bf16": "QEMU 10 is wrong (deviations.py)",
    "amocas.q": "needs twice the alignment that the pointers have",
}
# Registers with a fixed role: window bases, loop counter, code addresses, link register.
BASES = (2, 8, 9)
COUNTER, CODE, LINK = 3, 4, 1
FIXED = {0, LINK, 2, COUNTER, CODE, 8, 9}

# Page tables for S and U: one gigapage (or megapages) of RAM, and a few pages at 1 GiB.
TABLES = image.RAM + 0x13000
ALIAS = 0x40000000
V, R, W, X, U, G, A, D = (1 << bit for bit in range(8))


def page_tables(xlen):
    """(bytes at TABLES, {(mode name, user): satp value})."""
    pages = bytearray(0x1000 * 12)
    entry = xlen // 8

    def put(table, index, value):
        at = table * 0x1000 + index * entry
        pages[at:at + entry] = value.to_bytes(entry, "little")

    def pointer(table):
        return (TABLES + table * 0x1000) >> 12 << 10 | V

    satp = {}
    for user in (0, 1):
        bit = U if user else 0
        full = V | R | W | X | A | D | bit
        first = 6 * user
        leaves(put, first, bit)
        if xlen == 32:
            root = first + 1
            for index in range(32):
                put(root, 0x200 + index, (image.RAM + (index << 22)) >> 12 << 10 | full)
            put(root, ALIAS >> 22, pointer(first))
            satp["Sv32", user] = 1 << 31 | (TABLES >> 12) + root
            continue
        put(first + 1, 0, pointer(first))
        root = first + 2
        put(root, image.RAM >> 30, image.RAM >> 12 << 10 | full)
        put(root, ALIAS >> 30, pointer(first + 1))
        satp["Sv39", user] = 8 << 60 | (TABLES >> 12) + root
        for level, name in ((1, "Sv48"), (2, "Sv57")):
            put(root + level, 0, pointer(root + level - 1))
            satp[name, user] = (8 + level) << 60 | (TABLES >> 12) + root + level
    return bytes(pages), satp


def leaves(put, table, bit):
    """Pages at ALIAS: the window's two, nothing, read-only, two to be marked, odd ones."""
    low, high = (image.WINDOW >> 12) << 10, (image.WINDOW >> 12) + 1 << 10
    both = V | R | W | A | D | bit
    for index, value in enumerate((
            low | both, high | both, 0, low | V | R | A | bit, high | V | R | W | bit,
            low | V | X | A | bit, high | both ^ U, low | V | W | A | D | bit,
            high | V | R | W | A | bit, low | both | X)):
        put(table, index, value)


class Sequence:
    """Pieces of code and a state; case() makes it runnable."""

    def __init__(self, pieces, state, seed):
        self.pieces = pieces
        self.state = state
        self.seed = seed

    def case(self):
        return image.Case(b"".join(self.pieces), state=self.state, name=self.seed)

    def without(self, index):
        """The same with one piece replaced by nops."""
        nop = insns.TABLE["c.nop"].encode().to_bytes(2, "little")
        pieces = list(self.pieces)
        pieces[index] = nop * (len(pieces[index]) // 2)
        return Sequence(pieces, self.state, self.seed)

    def is_nop(self, index):
        return self.pieces[index] == b"\1\0" * (len(self.pieces[index]) // 2)


class Drawer:
    """Draws one sequence."""

    def __init__(self, rng, xlen, paging, reservations, new=False):
        self.rng = rng
        self.reservations = reservations
        self.new = new
        self.xlen = xlen
        self.paging = paging
        self.translated = False
        table = insns.instructions(xlen)
        self.table = table
        self.groups = {}
        for name, insn in table.items():
            wanted = new and name not in EXCLUDED_NEW or insn.ext not in insns.NEW
            if name not in EXCLUDED and wanted:
                self.groups.setdefault(insn.group, []).append(insn)
        self.pieces = []

    def word(self, name, **values):
        insn = self.table[name]
        return insn.encode(**values).to_bytes(insn.length, "little")

    def free(self, zero=True):
        """A register that a sequence may overwrite."""
        while True:
            number = self.rng.randrange(32)
            if number not in FIXED or zero and number == 0 and self.rng.randrange(4) == 0:
                return number

    def fix(self, insn, values):
        """Keeps destinations off the registers that have a role."""
        for operand, kind in insn.kinds.items():
            writes = kind.startswith(("=x", "+x"))
            if not writes:
                continue
            if operand in insns.EVEN:
                values[operand] = self.rng.choice((10, 12, 14, 18, 20, 22))
                continue
            if operand in cases.IMPLIED:
                return False
            if values[operand] in FIXED:
                values[operand] = (self.rng.randrange(10, 16) if operand in insns.POPULAR
                                   else self.free(zero=False))
        return True

    def plain(self, group):
        while True:
            insn = self.rng.choice(self.groups[group])
            values = cases.draw_operands(self.rng, insn)
            if not self.fix(insn, values):
                continue
            cases.fix_reserved(self.rng, insn, values)
            if self.fix(insn, values):
                return cases.word_bytes(insn, values)

    def memory(self):
        """A load, store or atomic that stays in the window (or in its pages, with paging)."""
        while True:
            insn = self.rng.choice(self.groups[self.rng.choice(
                ("load", "load", "store", "store", "amo") + (("amocas",) if self.new else ()))])
            values = cases.draw_operands(self.rng, insn)
            if not self.fix(insn, values):
                continue
            cases.fix_reserved(self.rng, insn, values)
            base = [name for name, kind in insn.kinds.items() if kind == "a"][0]
            if base not in cases.IMPLIED:
                values[base] = self.rng.choice((8, 9))
            if insn.group in ("amo", "amocas"):
                values[base] = 8
            operand = cases.address_offset(insn.operands)
            if operand:
                low, high, step = insns.RANGES[operand]
                low, high = max(low, -64), min(high, 112)
                values[operand] = self.rng.randrange(-(-low // step), high // step + 1) * step
            return cases.word_bytes(insn, values)

    def reserved(self):
        size = self.rng.choice(("w", "d") if self.xlen == 64 else ("w",))
        return (self.word("lr." + size, rd=self.free(), aqrl=self.rng.randrange(4), rs1=8)
                + self.word("sc." + size, rd=self.free(), aqrl=self.rng.randrange(4),
                            rs2=self.rng.randrange(32), rs1=8))

    def csr(self):
        number = self.rng.choice((1, 1, 2, 3, 3))
        name = self.rng.choice(("csrrwi", "csrrsi", "csrrci"))
        zimm = self.rng.randrange(5) if number == 2 and self.rng.randrange(30) else \
            self.rng.randrange(32)
        return self.word(name, rd=self.free(), csr=number, zimm=zimm)

    def simple(self):
        kind = self.rng.randrange(100)
        if kind < 45:
            return self.plain("alu")
        if kind < 65:
            return self.memory()
        if kind < 80:
            return self.plain("fp")
        if kind < 85:
            return self.plain("fma")
        if kind < 88 and self.reservations:
            return self.reserved()
        if kind < 91:
            return self.csr()
        if kind < 93:
            return self.word("auipc", rd=self.free(), u20=self.rng.randrange(-99, 99))
        if kind < 94:
            return self.word("fence", rd=0, rs1=0, pred=15, succ=self.rng.randrange(16))
        if kind < 95:
            return self.word("fence.i")
        return self.plain("alu")

    def branch_over(self, depth):
        """A conditional branch over a few pieces."""
        body = self.body(self.rng.randrange(1, 4), depth + 1)
        size = sum(map(len, body))
        insn = self.rng.choice(self.groups["branch"])
        values = cases.draw_operands(self.rng, insn)
        operand = [name for name in insn.operands if name in insns.TARGETS][0]
        values[operand] = size + insn.length
        if values[operand] > insns.RANGES[operand][1]:
            return body
        return [cases.word_bytes(insn, values)] + body

    def jump_over(self, depth):
        body = self.body(self.rng.randrange(1, 3), depth + 1)
        size = sum(map(len, body))
        if self.rng.randrange(2):
            return [self.word("jal", rd=self.free(), j20=size + 4)] + body
        jump = self.word("auipc", rd=CODE, u20=0) + self.word(
            "jalr", rd=self.free(), rs1=CODE, i12=size + 8)
        return [jump] + body

    def loop(self, depth):
        count = self.rng.choice((2, 3, 5, 17, 60))
        body = self.body(self.rng.randrange(1, 6), depth + 1)
        size = sum(map(len, body)) + 4
        start = self.word("addi", rd=COUNTER, rs1=0, i12=count)
        back = (self.word("addi", rd=COUNTER, rs1=COUNTER, i12=-1)
                + self.word("bne", rs1=COUNTER, rs2=0, b12=-size))
        return [start] + body + [back]

    def call(self, depth):
        """A call of a function that stands behind a jump, and its return."""
        function = self.body(self.rng.randrange(1, 4), depth + 1) + [
            self.rng.choice((self.word("jalr", rd=0, rs1=LINK, i12=0),
                             self.word("c.jr", crd=LINK)))]
        size = sum(map(len, function))
        jump = self.word("jal", rd=0, j20=size + 4)
        call = self.word("jal", rd=LINK, j20=-size)
        return [jump] + function + [call]

    def patch(self):
        """Stores a new instruction over one further on, then fence.i."""
        new = int.from_bytes(self.word("addi", rd=self.free(), rs1=self.free(),
                                       i12=self.rng.randrange(-2048, 2048)), "little")
        target = self.free(zero=False)
        low = (new & 0xfff ^ 0x800) - 0x800
        high = (new - low >> 12) & 0xfffff
        code = self.word("lui", rd=target, u20=(high ^ 0x80000) - 0x80000)
        code += self.word("addi", rd=target, rs1=target, i12=low)
        code += self.word("auipc", rd=CODE, u20=0)
        code += self.word("sw", rs2=target, s12=12, rs1=CODE)
        code += self.word("fence.i")
        old = self.word("addi", rd=self.free(), rs1=self.free(), i12=1)
        return [code + old]

    def body(self, count, depth):
        pieces = []
        for _ in range(count):
            kind = self.rng.randrange(100)
            if depth < 3 and kind < 12:
                pieces += self.branch_over(depth)
            elif depth < 3 and kind < 17:
                pieces += self.jump_over(depth)
            elif depth == 0 and kind < 25:
                pieces += self.loop(depth)
            elif depth == 0 and kind < 31:
                pieces += self.call(depth)
            elif depth < 2 and kind < 33:
                pieces += self.patch()
            else:
                pieces.append(self.simple())
        return pieces

    def ending(self):
        """Mostly nothing (the case's ebreak); else a trap of some kind."""
        kind = self.rng.randrange(40)
        if kind == 0:
            return [self.word("ecall")]
        if kind == 1:
            return [self.rng.choice((b"\0\0", b"\xff\xff\xff\xff", b"\x0b\0\0\0"))]
        if kind == 2:
            return [self.word("lui", rd=5, u20=self.rng.choice((0, 1, 0x1f)))
                    + self.word(self.rng.choice(("lw", "lbu")), rd=6, i12=4, rs1=5)]
        if kind == 3:
            return [self.word("lui", rd=5, u20=self.rng.choice((0, 1, 0x1f)))
                    + self.word("sw", rs2=6, s12=4, rs1=5)]
        if kind == 4:
            # Without paging, ALIAS is a bus window of the reference's board.
            page = self.rng.choice((0, 0x1f) if not self.translated else
                                   (0, 0x1f, 0x40000, 0x40002, 0x40005, 0x40006))
            return [self.word("lui", rd=5, u20=page) + self.word("jalr", rd=6, rs1=5, i12=0x100)]
        return []

    def state(self, satp):
        state = {}
        for number in range(1, 32):
            state[number] = cases.integer(self.rng, self.xlen)
        for number in range(32):
            state[image.F0 + number] = (cases.single(self.rng) if self.rng.randrange(2)
                                        else cases.double(self.rng))
            if self.new and self.rng.randrange(3) == 0:
                state[image.F0 + number] = cases.operand_value(self.rng, "h", self.xlen)
        state[image.FCSR] = self.rng.choice(cases.ROUNDING) << 5 | self.rng.choice((0, 31))
        mode = self.rng.choice("MSU")
        window = image.WINDOW
        # MPIE, so that M-mode runs with interrupts on where an image has any.
        status = cases.mstatus(self.xlen, mode) | 0x80
        if self.paging and mode != "M":
            key = self.rng.choice([key for key in satp if key[1] == (mode == "U")])
            state[image.SATP] = satp[key]
            self.translated = True
            window = ALIAS + 0x1000 - 128
            status |= self.rng.choice((0, 1 << 18, 1 << 19, 3 << 18))
        state[image.MSTATUS] = status
        state[8] = window + self.rng.randrange(64, 144, 8)
        state[9] = window + self.rng.randrange(64, 144)
        state[2] = window + self.rng.randrange(0, 128, 8)
        if self.paging and mode != "M" and self.rng.randrange(4) == 0:
            # Another of the odd pages, or across its edge.
            page = ALIAS + 0x1000 * self.rng.randrange(12)
            state[9] = page + self.rng.choice((0x200, 0xf80, 0xffc, 0x1000 - 7))
        return state


def draw(seed, index, xlen, paging, satp, reservations=True, new=False):
    """Sequence number `index` of a seed; `new`: also of what only QEMU 10 knows.

    An interrupt between a load-reserved and its store-conditional may take the reservation: with
    interrupts there are none.
    """
    rng = random.Random(f"{seed}:{xlen}:{index}")
    drawer = Drawer(rng, xlen, paging, reservations, new)
    state = drawer.state(satp)
    pieces = drawer.body(rng.choice((3, 8, 15, 25)), 0) + drawer.ending()
    return Sequence(pieces, state, f"{seed}:{xlen}:{index}")
