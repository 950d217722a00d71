/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Translate functions of the M extension. The contract of all of them is in trans.h. The IR's division is
 * defined for a divisor of 0 and for overflow as RISC-V wants it.
 */
#include "engine/tcg/guest_riscv/trans.h"

/* rd = rs1 OP rs2 in w bits; 32-bit results are sign-extended. */
static bool binary(struct tcg_trans *t, enum ir_opcode op, unsigned w, const struct riscv_r *a)
{
    ir_ref v = ir_bin(t->ir, op, w, get_x(t, a->rs1), get_x(t, a->rs2));

    if (w == 32) {
        set_x32(t, a->rd, v);
    } else {
        set_x(t, a->rd, v);
    }
    return true;
}

bool trans_mul(struct tcg_trans *t, const struct riscv_r *a)
{
    return binary(t, IR_mul, xlen(t), a);
}

bool trans_mulh(struct tcg_trans *t, const struct riscv_r *a)
{
    return binary(t, IR_mulhs, xlen(t), a);
}

bool trans_mulhu(struct tcg_trans *t, const struct riscv_r *a)
{
    return binary(t, IR_mulhu, xlen(t), a);
}

bool trans_mulhsu(struct tcg_trans *t, const struct riscv_r *a)
{
    unsigned w = xlen(t);
    ir_ref one = get_x(t, a->rs1), two = get_x(t, a->rs2);
    ir_ref high = ir_bin(t->ir, IR_mulhu, w, one, two);
    ir_ref sign = ir_bin(t->ir, IR_sar, 64, one, ir_const(t->ir, 63));

    /* A negative rs1 was taken for 2^w more than it is. */
    set_xl(t, a->rd, ir_bin(t->ir, IR_sub, 64, high, ir_bin(t->ir, IR_and, 64, sign, two)));
    return true;
}

bool trans_div(struct tcg_trans *t, const struct riscv_r *a)
{
    return binary(t, IR_divs, xlen(t), a);
}

bool trans_divu(struct tcg_trans *t, const struct riscv_r *a)
{
    return binary(t, IR_divu, xlen(t), a);
}

bool trans_rem(struct tcg_trans *t, const struct riscv_r *a)
{
    return binary(t, IR_rems, xlen(t), a);
}

bool trans_remu(struct tcg_trans *t, const struct riscv_r *a)
{
    return binary(t, IR_remu, xlen(t), a);
}

bool trans_mulw(struct tcg_trans *t, const struct riscv_r *a)
{
    return binary(t, IR_mul, 32, a);
}

bool trans_divw(struct tcg_trans *t, const struct riscv_r *a)
{
    return binary(t, IR_divs, 32, a);
}

bool trans_divuw(struct tcg_trans *t, const struct riscv_r *a)
{
    return binary(t, IR_divu, 32, a);
}

bool trans_remw(struct tcg_trans *t, const struct riscv_r *a)
{
    return binary(t, IR_rems, 32, a);
}

bool trans_remuw(struct tcg_trans *t, const struct riscv_r *a)
{
    return binary(t, IR_remu, 32, a);
}
