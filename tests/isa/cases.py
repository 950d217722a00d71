# SPDX-License-Identifier: Apache-2.0
"""Draws cases: one instruction with chosen operands, or a random sequence of many.

Operands come from pools of corner cases (extremes, single bits, NaNs with and without payload,
properly and improperly boxed, denormals, infinities, values around the limits of the integer
conversions) mixed with random bits. Everything is a function of the random generator passed in.
"""

import image
import insns

U64 = (1 << 64) - 1

SINGLE = [0x00000000, 0x80000000, 0x3f800000, 0xbf800000, 0x3fc00000, 0x40000000, 0x00000001,
          0x80000001, 0x007fffff, 0x00800000, 0x807fffff, 0x7f7fffff, 0xff7fffff, 0x7f800000,
          0xff800000, 0x7fc00000, 0xffc00000, 0x7f800001, 0xff800001, 0x7fc12345, 0x7fa00000,
          0x4effffff, 0x4f000000, 0xcf000000, 0xcf000001, 0x4f7fffff, 0x4f800000, 0x5effffff,
          0x5f000000, 0xdf000000, 0xdf000001, 0x5f7fffff, 0x5f800000, 0x3f000000, 0xbf000000,
          0x3effffff, 0x3f7fffff, 0x3f800001, 0x4b000001, 0x4b7fffff, 0x33800000, 0x34000000,
          0x40490fdb, 0x3eaaaaab, 0xc0200000, 0x40600000, 0x1f800000, 0x5f400000, 0x20000000]
DOUBLE = [0, 1 << 63, 0x3ff0000000000000, 0xbff0000000000000, 0x3ff8000000000000,
          0x4000000000000000, 1, 1 << 63 | 1, 0x000fffffffffffff, 0x0010000000000000,
          0x800fffffffffffff, 0x7fefffffffffffff, 0xffefffffffffffff, 0x7ff0000000000000,
          0xfff0000000000000, 0x7ff8000000000000, 0xfff8000000000000, 0x7ff0000000000001,
          0xfff0000000000001, 0x7ff8000012345678, 0x7ff4000000000000, 0x41dfffffffc00000,
          0x41dfffffffe00000, 0x41e0000000000000, 0xc1e0000000000000, 0xc1e0000000200000,
          0xc1e0000000100000, 0x41efffffffe00000, 0x41effffffff00000, 0x41f0000000000000,
          0x43dfffffffffffff, 0x43e0000000000000, 0xc3e0000000000000, 0xc3e0000000000001,
          0x43efffffffffffff, 0x43f0000000000000, 0x3fe0000000000000, 0xbfe0000000000000,
          0x3fdfffffffffffff, 0x3fefffffffffffff, 0x3ff0000000000001, 0x4330000000000001,
          0x3ca0000000000000, 0x3cb0000000000000, 0x400921fb54442d18, 0x3fd5555555555555,
          0xc004000000000000, 0x400c000000000000, 0x47efffffe0000000, 0x47efffffefffffff,
          0x47effffff0000000, 0x36a0000000000000, 0x3690000000000000, 0x3690000000000001,
          0x380fffffffffffff, 0x3810000000000000, 0x380fffffe0000000, 0x20000fffffffffff,
          0x1ff0000000000000, 0x5fe8000000000000]
ROUNDING = (0, 1, 2, 3, 4)
DYNAMIC = 7


def int_pool(xlen):
    mask = (1 << xlen) - 1
    pool = [0, 1, 2, 3, mask, mask - 1, 1 << xlen - 1, (1 << xlen - 1) - 1, (1 << xlen - 1) + 1,
            0x7fffffff, 0x80000000, 0xffffffff, 0xfffffffe, 0x8000, 0xff, 0x80, 0x7f, 31, 32, 33,
            63, 64, 65, 0x5555555555555555, 0xaaaaaaaaaaaaaaaa, 0x0123456789abcdef,
            0x00ff00ff00ff00ff, 0xffffffff80000000, 0xffffffff7fffffff, 0x100000000, 0x1ffffffff]
    return sorted({value & mask for value in pool})


def integer(rng, xlen):
    kind = rng.randrange(8)
    mask = (1 << xlen) - 1
    if kind < 4:
        return rng.choice(int_pool(xlen))
    if kind == 4:
        return 1 << rng.randrange(xlen)
    if kind == 5:
        return mask ^ (1 << rng.randrange(xlen)) - 1
    return rng.getrandbits(xlen) >> rng.randrange(xlen) & mask


def single_bits(rng):
    kind = rng.randrange(8)
    if kind < 5:
        return rng.choice(SINGLE)
    if kind == 5:
        return rng.getrandbits(32)
    # A moderate exponent, so that sums cancel and products round.
    return rng.getrandbits(1) << 31 | rng.randrange(110, 145) << 23 | rng.getrandbits(23)


def single(rng):
    """A single in an f register: boxed, or now and then not."""
    kind = rng.randrange(12)
    if kind == 0:
        return rng.choice((0, 0x7fffffff, 0xfffffffe, rng.getrandbits(32))) << 32 | single_bits(rng)
    return 0xffffffff << 32 | single_bits(rng)


def double(rng):
    kind = rng.randrange(8)
    if kind < 5:
        return rng.choice(DOUBLE)
    if kind == 5:
        return rng.getrandbits(64)
    return rng.getrandbits(1) << 63 | rng.randrange(1000, 1050) << 52 | rng.getrandbits(52)


HALF = [0, 0x8000, 0x3c00, 0xbc00, 0x3e00, 0x4000, 1, 0x8001, 0x3ff, 0x400, 0x83ff, 0x7bff, 0xfbff, 0x7c00,
        0xfc00, 0x7e00, 0xfe00, 0x7c01, 0xfc01, 0x7e12, 0x7d00, 0x3800, 0xb800, 0x37ff, 0x3bff, 0x3c01,
        0x6401, 0x67ff, 0x1000, 0x1400, 0x4248, 0x3555, 0x77ff, 0x7800, 0xf800, 0xf801, 0x5bff, 0x5c00]
BF16 = [0, 0x8000, 0x3f80, 0xbf80, 1, 0x8001, 0x7f, 0x80, 0x7f7f, 0xff7f, 0x7f80, 0xff80, 0x7fc0, 0xffc0,
        0x7f81, 0xff81, 0x7fc5, 0x4049, 0x3f81]


def half(rng, pool, exponents, fraction):
    """A half or a BF16 in an f register: boxed, or now and then not."""
    kind = rng.randrange(8)
    if kind < 5:
        bits = rng.choice(pool)
    elif kind == 5:
        bits = rng.getrandbits(16)
    else:
        bits = rng.getrandbits(1) << 15 | rng.randrange(*exponents) << fraction | rng.getrandbits(fraction)
    if rng.randrange(12) == 0:
        return rng.choice((0, (1 << 48) - 2, rng.getrandbits(48))) << 16 | bits
    return (1 << 48) - 1 << 16 | bits


def operand_value(rng, kind, xlen):
    if kind == "x":
        return integer(rng, xlen)
    if kind == "h":
        return half(rng, HALF, (9, 22), 10)
    if kind == "b":
        return half(rng, BF16, (110, 145), 7)
    return single(rng) if kind == "s" else double(rng)


def immediate(rng, operand, low_nonzero=False):
    low, high, step = insns.RANGES[operand]
    while True:
        kind = rng.randrange(4)
        if kind == 0:
            value = rng.choice((low, high, 0 if low <= 0 <= high else low))
        elif kind == 1 and low <= step <= high:
            value = rng.choice((step, -step if low <= -step else step))
        else:
            value = rng.randrange(low // step, high // step + 1) * step
        if value or not (low_nonzero or operand in insns.NONZERO):
            return value


def register(rng, operand, zero=True):
    if operand in insns.POPULAR:
        return rng.randrange(8, 16)
    if zero and rng.randrange(12) == 0:
        return 0
    if operand in insns.EVEN:
        return rng.randrange(2, 32, 2)
    return rng.randrange(1, 32)


# Implied register operands of compressed instructions.
IMPLIED = {"sp": 2, "ra": 1}


def draw_operands(rng, insn):
    """Numbers for all operands; registers collide now and then, as programs' do."""
    values = {}
    for operand in insn.operands:
        if operand in insns.REGISTERS:
            values[operand] = register(rng, operand)
            if rng.randrange(6) == 0 and values:
                same = rng.choice(list(values))
                if operand in insns.EVEN and values[same] % 2:
                    continue
                if same in insns.REGISTERS and (operand in insns.POPULAR) <= (
                        8 <= values[same] <= 15):
                    values[operand] = values[same]
        elif operand == "rm":
            values[operand] = rng.choice(ROUNDING + (DYNAMIC,))
        elif operand == "csr":
            values[operand] = 0
        else:
            values[operand] = immediate(rng, operand)
    fix_reserved(rng, insn, values)
    return values


def fix_reserved(rng, insn, values):
    """Moves operands off the encodings that mean another instruction."""
    name = insn.name
    if name in insns.RD_NOT_ZERO or (name in insns.RS2_NOT_ZERO and not values["crd"]):
        values["crd"] = values["crd"] or rng.randrange(1, 32)
    if name in insns.RS2_NOT_ZERO:
        values["crs2"] = values["crs2"] or rng.randrange(1, 32)
    if name == "c.lui":
        while values["crd"] in (0, 2):
            values["crd"] = rng.randrange(1, 32)
    if name in ("c.addi", "c.slli", "c.slli.32", "c.li") and not values["crd"]:
        values["crd"] = rng.randrange(1, 32)


def sources(insn, values):
    """(register, kind) for all that the instruction reads."""
    for operand, kind in insn.kinds.items():
        if kind.startswith("="):
            continue
        number = IMPLIED[operand] if operand in IMPLIED else values[operand]
        yield number, kind.lstrip("+")


def draw_state(rng, insn, values, xlen):
    state = {}
    for number, kind in sources(insn, values):
        if kind in ("s", "d", "h", "b"):
            state[image.F0 + number] = operand_value(rng, kind, xlen)
        elif kind == "x" and number:
            state[number] = integer(rng, xlen)
    if insn.ext in ("F", "D", "Zfh", "Zfbfmin", "Zfa"):
        draw_fcsr(rng, values, state)
    return state


def draw_fcsr(rng, values, state):
    frm = rng.choice(ROUNDING) if values.get("rm", DYNAMIC) == DYNAMIC else 0
    flags = rng.choice((0, 0, 0, 31, rng.getrandbits(5)))
    if frm or flags:
        state[image.FCSR] = frm << 5 | flags


def word_bytes(insn, values):
    return insn.encode(**values).to_bytes(insn.length, "little")


def nop_slide(count):
    return image.EBREAK * count


def plain_case(rng, insn, xlen):
    values = draw_operands(rng, insn)
    state = draw_state(rng, insn, values, xlen)
    return image.Case(word_bytes(insn, values), state=state)


def address_offset(operands):
    for operand in operands:
        if operand in ("i12", "s12", "clw", "cld", "clwsp", "cldsp", "cswsp", "csdsp",
                       "clb", "clh"):
            return operand
    return None


def memory_case(rng, insn, xlen):
    """A load, store or atomic in the window: mostly aligned, at its page boundary, or nowhere."""
    values = draw_operands(rng, insn)
    base = [number for number, kind in sources(insn, values) if kind == "a"][0]
    base_operand = [name for name, kind in insn.kinds.items() if kind == "a"][0]
    if base == 0 and base_operand not in IMPLIED:
        values[base_operand] = base = rng.randrange(8, 16)
    state = draw_state(rng, insn, values, xlen)
    where = rng.randrange(10)
    if where < 5 or insn.group in ("lr", "sc", "amo", "amocas", "cbo") and where < 8:
        offset = rng.randrange(0, image.WINDOW_SIZE - 8, insn.size)
    elif where < 7:
        offset = rng.randrange(0, image.WINDOW_SIZE - 8)
    elif where < 9:
        offset = 128 - rng.randrange(0, 8)
    else:
        offset = None if insn.group != "cbo" else 70
    operand = address_offset(insn.operands)
    displacement = values[operand] if operand else 0
    # Address 8 is behind no device: an access fault, of the right kind.
    target = image.WINDOW + offset if offset is not None else 8
    state[base] = target - displacement & (1 << xlen) - 1
    code = word_bytes(insn, values)
    if insn.group == "amocas" and offset is not None and rng.randrange(2):
        expect_memory(insn, values, offset, state, xlen)
    if insn.group == "sc":
        code = sc_code(rng, insn, values, base, offset is None or offset % insn.size)
    return image.Case(code, state=state)


def expect_memory(insn, values, offset, state, xlen):
    """The compared registers hold what memory does, extended in an odd way where only a part counts."""
    window = b"".join(image.base_state(xlen)[image.MEM + slot].to_bytes(8, "little")
                      for slot in range(image.MEM_SLOTS))
    value = int.from_bytes(window[offset:offset + insn.size], "little")
    first = values.get("rd", values.get("erd"))
    for number in (first, first + 1) if "erd" in values else (first,):
        if number and number != values["rs1"]:
            state[number] = value & (1 << xlen) - 1
        value >>= xlen


def sc_code(rng, insn, values, base, faults):
    """Mostly a load-reserved of the same address and size first; else the sc must fail.

    Whether an sc that fails anyway still checks its address is open, so where the address is
    bad the load-reserved comes first and traps.
    """
    load = insns.TABLE["lr.w" if insn.size == 4 else "lr.d"]
    free = [number for number in range(1, 32)
            if number not in (values["rd"], values["rs1"], values["rs2"])]
    code = b""
    if faults or rng.randrange(6):
        code = word_bytes(load, {"rd": rng.choice(free), "aqrl": 0, "rs1": base})
    return code + word_bytes(insn, values)


def branch_case(rng, insn, xlen):
    """A branch or jump among ebreaks, or far away into zeros: mepc tells where it went."""
    values = draw_operands(rng, insn)
    state = draw_state(rng, insn, values, xlen)
    operand = [name for name in insn.operands if name in insns.TARGETS][0]
    low, high, _step = insns.RANGES[operand]
    before, after = 8, 8
    if rng.randrange(4) == 0 and high > 1000:
        far = [value for value in (low, high, low + 2, high - 2, rng.randrange(low, high, 2))
               if abs(value) >= 1500]
        values[operand] = rng.choice(far)
        return far_case(insn, values, state, values[operand])
    # Within the slide; targets at 2 modulo 4 land inside an ebreak, and trap there.
    values[operand] = rng.choice([v for v in range(-4 * before, 4 * after, 2) if v])
    if rng.randrange(2) and len(list(sources(insn, values))) == 2:
        numbers = [number for number, _kind in sources(insn, values)]
        if all(numbers):
            state[numbers[1]] = state[numbers[0]]
    code = word_bytes(insn, values)
    pad = b"" if len(code) == 4 else insns.TABLE["c.nop"].encode().to_bytes(2, "little")
    body = nop_slide(before) + code + pad + nop_slide(after)
    return image.Case(body, entry=4 * before, end=4 * before + 4, state=state)


def far_case(insn, values, state, distance):
    """A jump to zeros of its own, where an illegal instruction tells that it arrived."""
    code = word_bytes(insn, values)
    start = max(0, -distance) + 16
    body = bytearray(start + max(0, distance) + 32)
    body[start:start + len(code)] = code
    body[start + len(code):start + len(code) + 4] = image.EBREAK
    return image.Case(body, entry=start, end=start + len(code), state=state)


def jalr_case(rng, insn, xlen):
    """An indirect jump: the register is set from the pc by an auipc of the case itself."""
    values = draw_operands(rng, insn)
    base = [number for number, kind in sources(insn, values) if kind == "a"][0]
    if base == 0:
        name = [key for key, kind in insn.kinds.items() if kind == "a"][0]
        values[name] = base = rng.randrange(5, 16)
    slide, delta = 8, rng.choice((8, 12, 16, 20, 10, 14, 17, 21))
    displacement = values.get("i12", 0)
    auipc = word_bytes(insns.TABLE["auipc"], {"rd": base, "u20": 0})
    # base = pc of auipc + step; two addi reach any displacement.
    step = delta + 12 - displacement
    first = max(-2048, min(2047, step))
    addi = insns.TABLE["addi"]
    code = auipc + word_bytes(addi, {"rd": base, "rs1": base, "i12": first})
    code += word_bytes(addi, {"rd": base, "rs1": base, "i12": step - first})
    at = len(code)
    code += word_bytes(insn, values)
    if insn.length == 2:
        code += insns.TABLE["c.nop"].encode().to_bytes(2, "little")
    return image.Case(code + nop_slide(slide), end=at + 4)


CSR_PLAIN = (0x001, 0x002, 0x003, 0x140)


def csr_case(rng, insn, _xlen):
    """fflags, frm, fcsr and sscratch, each read back; and a CSR that does not exist."""
    values = draw_operands(rng, insn)
    values["csr"] = rng.choice(CSR_PLAIN + (0x5c0,) if rng.randrange(8) == 0 else CSR_PLAIN)
    state = {}
    if "rs1" in values and values["rs1"]:
        state[values["rs1"]] = rng.choice((0, 31, 0xff, 0xe0, rng.getrandbits(8)))
    state[image.FCSR] = rng.choice(ROUNDING) << 5 | rng.getrandbits(5)
    code = b""
    if values["csr"] == 0x140:
        # sscratch keeps its value from case to case: give it one first.
        code = word_bytes(insns.TABLE["csrrwi"], {"rd": 0, "csr": 0x140, "zimm": 21})
    code += word_bytes(insn, values)
    back = rng.randrange(1, 32)
    code += word_bytes(insns.TABLE["csrrs"], {"rd": back, "csr": values["csr"], "rs1": 0})
    return image.Case(code, state=state)


def mode_case(rng, insn, xlen):
    """Traps and privileged instructions in each mode."""
    values = draw_operands(rng, insn)
    state = draw_state(rng, insn, values, xlen)
    # QEMU 10 lets U-mode execute the two fences of Svinval, which the specification forbids (trans_test.c).
    mode = rng.choice("MS" if insn.name in ("sfence.w.inval", "sfence.inval.ir") else "MSU")
    if insn.name in ("mret", "sret") and mode != "U":
        if insn.name == "mret" and mode == "M" or insn.name == "sret":
            return return_case(insn, xlen, mode, rng)
    if insn.name == "wfi":
        # Nothing would wake it: only where it is illegal, in U-mode and in S-mode under TW.
        state[image.MSTATUS] = mstatus(xlen, mode) if mode == "U" else mstatus(xlen, "S") | 1 << 21
        return image.Case(word_bytes(insn, values), state=state)
    state[image.MSTATUS] = mstatus(xlen, mode)
    return image.Case(word_bytes(insn, values), state=state)


def mstatus(xlen, mode):
    return image.MSTATUS_DEFAULT[xlen] & ~0x1800 | image.MPP[mode] << 11


def return_case(insn, xlen, mode, rng):
    """mret or sret to the code behind it, into a random lower mode."""
    auipc = word_bytes(insns.TABLE["auipc"], {"rd": 5, "u20": 0})
    epc = 0x341 if insn.name == "mret" else 0x141
    target = 24 if insn.name == "mret" else 20
    code = auipc + word_bytes(insns.TABLE["addi"], {"rd": 5, "rs1": 5, "i12": target})
    code += word_bytes(insns.TABLE["csrrw"], {"rd": 0, "csr": epc, "rs1": 5})
    state = {image.MSTATUS: mstatus(xlen, mode)}
    if insn.name == "mret":
        state[6] = 0x1800
        state[7] = image.MPP[rng.choice("MSU")] << 11
        code += word_bytes(insns.TABLE["csrrc"], {"rd": 0, "csr": 0x300, "rs1": 6})
        code += word_bytes(insns.TABLE["csrrs"], {"rd": 0, "csr": 0x300, "rs1": 7})
    else:
        state[6] = rng.choice((0, 0x100))
        code += word_bytes(insns.TABLE["csrrs"], {"rd": 0, "csr": 0x100, "rs1": 6})
    code += word_bytes(insn, {})
    assert len(code) == target
    ecall = word_bytes(insns.TABLE["ecall"], {})
    return image.Case(code + ecall, state=state)


GROUPS = {
    "alu": plain_case, "fp": plain_case, "fma": plain_case, "plain": plain_case,
    "pc": plain_case, "load": memory_case, "store": memory_case, "lr": memory_case,
    "sc": memory_case, "amo": memory_case, "branch": branch_case, "jump": branch_case,
    "amocas": memory_case, "cbo": memory_case, "jalr": jalr_case, "csr": csr_case, "trap": mode_case, "priv": mode_case,
}
COUNTS = {"alu": 36, "fp": 100, "fma": 120, "plain": 6, "pc": 20, "load": 40, "store": 40,
          "lr": 24, "sc": 32, "amo": 40, "amocas": 60, "cbo": 16, "branch": 48, "jump": 24, "jalr": 24, "csr": 40,
          "trap": 9, "priv": 12}


def instruction_case(rng, insn, xlen):
    return GROUPS[insn.group](rng, insn, xlen)
