/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rows of the vector arithmetic instructions, by encoding: opcode group, funct6, and for unary ones the vs1
 * field (V 1.0, section 19). Constant data, any thread.
 */
#include "engine/tcg/guest_riscv/vec.h"
#include "engine/tcg/ir.h"

#include "engine/tcg/guest_riscv/vec_kernels.h"

#define S_VVV { 0, 0, 0, 0 }
#define S_CMP { V_MASK, 0, 0, 0 }

#define EACH(kernel, hint_, flags_)                                                            \
    {                                                                                          \
        .run = v_run_each, .k = kernel, .shape = S_VVV, .flags = (flags_), .hint = hint_       \
    }
#define COMPARE(kernel, hint_, flags_)                                                         \
    {                                                                                          \
        .run = v_run_compare, .k = kernel, .shape = S_CMP, .flags = (flags_), .hint = hint_    \
    }
#define H(name) (IR_VEC_##name + 1)

/* OPIVV, OPIVX, OPIVI */
static const struct v_op iop[64] = {
    [0x00] = EACH(vk_add, H(add), 0),
    [0x02] = EACH(vk_sub, H(sub), 0),
    [0x03] = EACH(vk_rsub, H(rsub), 0),
    [0x04] = EACH(vk_minu, H(minu), 0),
    [0x05] = EACH(vk_min, H(mins), 0),
    [0x06] = EACH(vk_maxu, H(maxu), 0),
    [0x07] = EACH(vk_max, H(maxs), 0),
    [0x09] = EACH(vk_and, H(and), 0),
    [0x0a] = EACH(vk_or, H(or), 0),
    [0x0b] = EACH(vk_xor, H(xor), 0),
    [0x10] = EACH(vk_adc, 0, V_CARRY),
    [0x11] = COMPARE(vk_madc, 0, V_CARRY),
    [0x12] = EACH(vk_sbc, 0, V_CARRY),
    [0x13] = COMPARE(vk_msbc, 0, V_CARRY),
    [0x17] = EACH(vk_merge, H(merge), V_CARRY),
    [0x18] = COMPARE(vk_seq, H(cmpeq), 0),
    [0x19] = COMPARE(vk_sne, H(cmpne), 0),
    [0x1a] = COMPARE(vk_sltu, H(cmpltu), 0),
    [0x1b] = COMPARE(vk_slt, H(cmplt), 0),
    [0x1c] = COMPARE(vk_sleu, H(cmpleu), 0),
    [0x1d] = COMPARE(vk_sle, H(cmple), 0),
    [0x1e] = COMPARE(vk_sgtu, H(cmpgtu), 0),
    [0x1f] = COMPARE(vk_sgt, H(cmpgt), 0),
    [0x25] = EACH(vk_sll, H(shl), V_UIMM),
    [0x28] = EACH(vk_srl, H(shr), V_UIMM),
    [0x29] = EACH(vk_sra, H(sar), V_UIMM),
};

/* OPMVV, OPMVX */
static const struct v_op mop[64] = {
    [0x20] = EACH(vk_divu, 0, 0),          [0x21] = EACH(vk_div, 0, 0),
    [0x22] = EACH(vk_remu, 0, 0),          [0x23] = EACH(vk_rem, 0, 0),
    [0x24] = EACH(vk_mulhu, H(mulhu), 0),  [0x25] = EACH(vk_mul, H(mul), 0),
    [0x26] = EACH(vk_mulhsu, H(mulhsu), 0), [0x27] = EACH(vk_mulh, H(mulhs), 0),
    [0x29] = EACH(vk_madd, H(madd), 0),    [0x2b] = EACH(vk_nmsub, H(nmsub), 0),
    [0x2d] = EACH(vk_macc, H(macc), 0),    [0x2f] = EACH(vk_nmsac, H(nmsac), 0),
};

static const struct v_op none = { .sews = 0 };

const struct v_op *v_op_of(uint32_t insn)
{
    unsigned f6 = insn >> 26;
    const struct v_op *op = &none;

    switch (v_funct3(insn)) {
    case V_IVV:
    case V_IVX:
    case V_IVI:
        op = &iop[f6];
        break;
    case V_MVV:
    case V_MVX:
        op = &mop[f6];
        break;
    }
    return op->run ? op : &none;
}
