# SPDX-License-Identifier: Apache-2.0
"""Draws cases for control and status registers and for traps that are delegated to S-mode.

Who may read and write each register in each mode; which legal values stick; what S-mode sees of a
trap. Illegal values are left out: the architecture leaves open what a WARL field makes of them. A
register is written, read back and restored at once, so that the runtime of image.py never runs with
it changed; those that count, name the implementation or depend on time are only touched.
"""

import cases
import image
import insns

GROUP = "registers"
MODES = "USM"
ANY = (0, 1 << 63, 0x5555555555555554, 0xaaaaaaaaaaaaaaaa, 0x123456789abcdef0)
ADDRESS = (0, 0x80000000, 0x5555555555555554, 0x123456789abcdef0)
# The fields of mstatus that every hart of ours has, by bits: SUM MXR MPRV TVM TW TSR MPP SPP ...
STATUS = (0, 0x7e0000, 0x6000, 0x4000, 0x1800, 0x800, 0x100, 0x88, 0x22, 0x7e79aa, 0x540120)
SSTATUS = (0, 0xc0000, 0x6000, 0x2000, 0x100, 0x22, 0xc6122)

# name: (number, lowest mode, legal values to write), and "32" for RV32 only.
REGISTERS = {
    "fflags": (0x001, "U", (0, 31, 21, 10)), "frm": (0x002, "U", (0, 1, 4, 2)),
    "fcsr": (0x003, "U", (0, 0x9f, 0x35, 0x6a)),
    "cycle": (0xc00, "U", ()), "time": (0xc01, "U", ()), "instret": (0xc02, "U", ()),
    "cycleh.32": (0xc80, "U", ()), "timeh.32": (0xc81, "U", ()), "instreth.32": (0xc82, "U", ()),
    "sstatus": (0x100, "S", SSTATUS), "sie": (0x104, "S", ()), "stvec": (0x105, "S", ADDRESS),
    "scounteren": (0x106, "S", (0, 7, 5)), "senvcfg": (0x10a, "S", (0, 1)),
    "sscratch": (0x140, "S", ANY), "sepc": (0x141, "S", ADDRESS), "scause": (0x142, "S", (0, 5)),
    "stval": (0x143, "S", ANY), "sip": (0x144, "S", ()), "satp": (0x180, "S", "satp"),
    "mvendorid": (0xf11, "M", ()), "marchid": (0xf12, "M", ()), "mimpid": (0xf13, "M", ()),
    "mhartid": (0xf14, "M", ()), "mconfigptr": (0xf15, "M", ()), "mstatus": (0x300, "M", STATUS),
    "misa": (0x301, "M", ()), "medeleg": (0x302, "M", (0, 0xb3ff, 0x8001, 0x1155)),
    "mideleg": (0x303, "M", (0, 0x222, 0x20)), "mie": (0x304, "M", (0, 0xaaa, 0x88, 0x222)),
    "mtvec": (0x305, "M", ADDRESS), "mcounteren": (0x306, "M", (0, 7, 2)),
    "menvcfg": (0x30a, "M", (0, 1)), "menvcfgh.32": (0x31a, "M", (0, 1 << 31)),
    "mstatush.32": (0x310, "M", (0,)), "mcountinhibit": (0x320, "M", (0, 5)),
    "mscratch": (0x340, "M", ANY), "mepc": (0x341, "M", ADDRESS), "mcause": (0x342, "M", (0, 7)),
    "mtval": (0x343, "M", ANY), "mip": (0x344, "M", ()),
    "pmpcfg0": (0x3a0, "M", (0, 0x1f, 0x190b0f1b, 0x080c1d09)), "pmpcfg2": (0x3a2, "M", (0, 0x1f)),
    "pmpaddr1": (0x3b1, "M", (0, 0x20000fff, 0x123456)),
    "pmpaddr15": (0x3bf, "M", (0, 0x2aaaaaaa)), "mcycle": (0xb00, "M", ()),
    "minstret": (0xb02, "M", ()), "absent-u": (0x0c0, None, ()), "absent-s": (0x1c0, None, ()),
    "absent-m": (0x7c0, None, ()), "absent-ro": (0xfc0, None, ()),
}


def op(name, rd, number, rs1):
    return cases.word_bytes(insns.TABLE[name], {"rd": rd, "csr": number, "rs1": rs1})


def addi(rd, rs1, value):
    return cases.word_bytes(insns.TABLE["addi"], {"rd": rd, "rs1": rs1, "i12": value})


def write_case(number, value, xlen):
    """x7 = what stuck of x6; the old value goes back."""
    code = op("csrrw", 5, number, 6) + op("csrrs", 7, number, 0) + op("csrrw", 0, number, 5)
    code += addi(5, 0, 0)
    return image.Case(code, state={6: value & (1 << xlen) - 1})


def legal(name, values, xlen):
    if values == "satp":
        if xlen == 32:
            return (0, 1 << 31 | 0x80123, 1 << 31 | 0x1ff << 22 | 0x3fffff)
        return [mode << 60 | 0xffff << 44 | 0x80123 for mode in (8, 9, 10)] + [0]
    if xlen == 64 and name in ("mstatus", "sstatus"):
        return [value | (0xa00000000 if name == "mstatus" else 0x200000000) for value in values]
    return values


def touch_case(number, mode, xlen, write):
    """A read (or an attempted write) whose value is dropped: only the permission shows."""
    code = op("csrrs", 0, number, 0) if not write else op("csrrw", 0, number, 0)
    return image.Case(code, state={image.MSTATUS: cases.mstatus(xlen, mode)})


def delegated_case(xlen, cause, trap, state=()):
    """U-mode traps into an S-mode handler, which reports by x10 to x13 and ecalls to M-mode."""
    # The handler's address is a multiple of 4 behind traps of 2 bytes too.
    trap += b"\1\0" * (len(trap) % 4 // 2)
    epc = 36
    code = cases.word_bytes(insns.TABLE["auipc"], {"rd": 5, "u20": 0})
    enter = [addi(6, 5, epc), op("csrrw", 0, 0x341, 6), addi(6, 5, epc + len(trap)),
             op("csrrw", 0, 0x105, 6), op("csrrw", 0, 0x302, 7), op("csrrc", 0, 0x300, 8),
             op("csrrs", 0, 0x300, 9), cases.word_bytes(insns.TABLE["mret"], {})]
    code += b"".join(enter)
    assert len(code) == epc
    handler = [op("csrrs", rd, number, 0)
               for rd, number in ((10, 0x142), (11, 0x141), (12, 0x143), (13, 0x100))]
    ecall = cases.word_bytes(insns.TABLE["ecall"], {})
    values = {7: 1 << cause, 8: 0x1800, 9: 0x80, **dict(state)}
    return image.Case(code + trap + b"".join(handler) + ecall, state=values)


def delegated(xlen):
    word = {name: cases.word_bytes(insns.TABLE[name], values) for name, values in (
        ("ecall", {}), ("lw", {"rd": 14, "rs1": 15, "i12": 4}),
        ("sw", {"rs2": 14, "rs1": 15, "s12": 4}), ("sret", {}),
        ("csrrw", {"rd": 0, "csr": 0x340, "rs1": 0}), ("lr.w", {"rd": 14, "rs1": 15, "aqrl": 0}))}
    out = [delegated_case(xlen, 8, word["ecall"]), delegated_case(xlen, 2, word["csrrw"]),
           delegated_case(xlen, 2, word["sret"]), delegated_case(xlen, 2, b"\0\0\0\0"),
           delegated_case(xlen, 5, word["lw"], {15: 8}),
           delegated_case(xlen, 7, word["sw"], {15: 8}),
           delegated_case(xlen, 4, word["lr.w"], {15: image.WINDOW + 1})]
    # Not delegated: M-mode takes it, with MPP of U-mode.
    out += [delegated_case(xlen, 9, word["ecall"]), delegated_case(xlen, 13, word["lw"], {15: 8})]
    return out


def draw(xlen):
    """[(name, Case)] of all registers of a word length, and of delegation."""
    out = [("delegation", case) for case in delegated(xlen)]
    for label, (number, lowest, values) in REGISTERS.items():
        name, _, only = label.partition(".")
        if only and xlen == 64:
            continue
        for mode in MODES:
            out.append((name, touch_case(number, mode, xlen, False)))
            too_low = lowest and MODES.index(mode) < MODES.index(lowest)
            if number >> 10 == 3 or too_low:
                out.append((name, touch_case(number, mode, xlen, True)))
        out += [(name, write_case(number, value, xlen)) for value in legal(name, values, xlen)]
    return out
