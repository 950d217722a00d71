# SPDX-License-Identifier: Apache-2.0
"""Where the reference, QEMU 7.2, is known to differ from the specification.

Each entry has a name, the text of what differs and why we follow the specification, and a function
that returns the result the specification asks for. Nothing else is ever corrected: a difference that
is not listed here is a failure.
"""

import image
import insns

AMO_CAUSES = {4: 6, 5: 7, 13: 15}


def amo_fault(insn, case, result):
    """An AMO's fault has the store/AMO cause (Privileged 1.12, table 3.6)."""
    cause = result.get(image.MCAUSE)
    if insn.group not in ("amo", "amocas") or cause not in AMO_CAUSES:
        return None
    return {**result, image.MCAUSE: AMO_CAUSES[cause]}


def ctzw_zero(insn, case, result):
    """ctzw counts in the low word only (Bit-manipulation 1.0): 32 when that is zero."""
    if insn.name != "ctzw":
        return None
    word = int.from_bytes(case.code[:4], "little")
    rd, rs1 = word >> 7 & 31, word >> 15 & 31
    value = case.state.get(rs1, image.base_state(64)[rs1]) if rs1 else 0
    if value & 0xffffffff or rd == 0 or result.get(rd) == 32:
        return None
    return {**result, rd: 32}


def unboxed_bf16(insn, case, result):
    """A register that holds no BF16 reads as the canonical NaN of BF16 (Zfbfmin 1.0)."""
    if insn.name != "fcvt.s.bf16":
        return None
    word = int.from_bytes(case.code[:4], "little")
    rd, rs1 = word >> 7 & 31, word >> 15 & 31
    value = case.state.get(image.F0 + rs1, image.base_state(64)[image.F0 + rs1])
    if value >> 16 == (1 << 48) - 1:
        return None
    return {**result, image.F0 + rd: 0xffffffff7fc00000}


LIST = (
    ("amo-fault", "QEMU 7.2 reports a misaligned AMO, and an AMO outside memory, with the causes of "
     "a load (4, 5) instead of those of a store/AMO (6, 7). QEMU 10 has 7, and still 4.",
     amo_fault),
    ("ctzw-zero", "QEMU 7.2 counts into the upper word when the low word is zero. QEMU 10 gives 32.",
     ctzw_zero),
    ("unboxed-bf16", "QEMU 10 takes the canonical NaN of binary16 for a BF16 that is not boxed.",
     unboxed_bf16),
)


def correct(name, case, result):
    """(the result that the specification asks for, the deviation's name or None)."""
    insn = insns.TABLE.get(name)
    if insn is None:
        return result, None
    for label, _text, function in LIST:
        changed = function(insn, case, result)
        if changed is not None and changed != result:
            return changed, label
    return result, None
