/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the back end is told about a vector instruction (struct ir_vec), from its row and from what the block knows of
 * vtype and vl. Runs on the thread that translates.
 */
#include "engine/arch/riscv/vector.h"
#include "engine/tcg/guest_riscv/trans.h"
#include "engine/tcg/guest_riscv/vec.h"
#include "engine/tcg/guest_riscv/vec_mem.h"

#include <stddef.h>

static uint32_t reg_offset(const struct tcg_trans *t, unsigned n)
{
    return (uint32_t)(offsetof(struct riscv_cpu, v) + (size_t)n * cpu_of(t)->vlenb);
}

/* Rounding is to nearest even, as far as the block knows. */
static bool nearest_even(const struct tcg_trans *t)
{
    return (t->code & (RV_CODE_FP_ASK | RV_CODE_FRM | RV_CODE_FS_OFF)) == 0;
}

/* The active elements under vkey: their number in the hint, or with IR_VEC_VL its bound. False: nothing can be said. */
static bool elements(const struct tcg_trans *t, uint32_t key, struct ir_vec *h)
{
    uint64_t max;

    if (key == TCG_VARIANT_UNKNOWN || key & (RISCV_VKEY_VILL | RISCV_VKEY_VSTART)) {
        return false;
    }
    max = riscv_vlmax(key & RISCV_VKEY_VTYPE, cpu_of(t)->vlenb);
    if ((key & RISCV_VKEY_FULL) == 0) {
        unsigned known = (key & RISCV_VKEY_VL) >> RISCV_VKEY_VL_SHIFT;

        if (known != 0) {
            max = UINT64_C(1) << (known - 1);
        } else {
            h->flags |= IR_VEC_VL;
        }
    }
    h->n = (uint16_t)max;
    return max != 0;
}

static bool is_float(const struct ir_vec *h)
{
    return ir_vec_info[h->op].name[0] == 'f' && h->op != IR_VEC_firstm;
}

/* Whole groups, so that the call is legal. */
static bool groups(const struct v_op *op, struct ir_vec *h)
{
    if (op->param & V_GROUP0) {
        h->flags |= IR_VEC_GROUP0;
    }
    return (h->flags & IR_VEC_VL) == 0 && h->n % (1u << (op->param & 15)) == 0;
}

void riscv_v_hint(struct tcg_trans *t, const struct v_op *op, uint32_t insn, uint32_t key)
{
    unsigned f3 = v_funct3(insn);
    bool vector = f3 == V_IVV || f3 == V_FVV || f3 == V_MVV;
    struct ir_vec h = { .arg = 1 };

    if (op->hint == 0 || !elements(t, key, &h)) {
        return;
    }
    h.op = (uint8_t)(op->hint - 1);
    h.sew = (uint8_t)riscv_vsew(key & RISCV_VKEY_VTYPE);
    if (ir_vec_info[h.op].kind == 'P' && (key & RISCV_VKEY_FULL) == 0) {
        /* Gathers and slides look at elements up to VLMAX, whatever vl is. */
        h.flags |= IR_VEC_VL;
        h.n = (uint16_t)riscv_vlmax(key & RISCV_VKEY_VTYPE, cpu_of(t)->vlenb);
    }
    if (is_float(&h) && !nearest_even(t)) {
        return;
    }
    if (f3 == V_FVF && !is_float(&h) && h.sew < 3) {
        return; /* the scalar's NaN box is to be looked at */
    }
    if (ir_vec_info[h.op].kind == 'A' && !groups(op, &h)) {
        return;
    }
    if (h.op == IR_VEC_merge && v_vm(insn)) {
        h.op = IR_VEC_mv;
    } else if (!v_vm(insn) && (op->flags & V_CARRY) == 0) {
        h.flags |= IR_VEC_MASKED;
    }
    if (!vector) {
        h.flags |= IR_VEC_SCALAR;
    }
    if (ir_vec_info[h.op].kind == 'L' || ir_vec_info[h.op].kind == 'X') {
        h.sew = 0;
    }
    h.d = reg_offset(t, v_vd(insn));
    h.a = reg_offset(t, v_vs2(insn));
    h.b = reg_offset(t, v_vs1(insn));
    h.m = reg_offset(t, 0);
    ir_vec_hint(t->ir, &h);
}

void riscv_v_memory_hint(struct tcg_trans *t, uint32_t insn, uint32_t key)
{
    static const uint8_t width[8] = { 0, 0, 0, 0, 0, 1, 2, 3 };
    struct ir_vec h = { .arg = 1, .op = v_is_store(insn) ? IR_VEC_store : IR_VEC_load };

    /* A fault-only-first load differs only where an element faults: there the helper runs. */
    if (v_mop(insn) != 0 || v_is_mask(insn)) {
        return;
    }
    h.sew = width[v_funct3(insn)];
    if (v_is_whole(insn)) { /* whatever vl is */
        if (key == TCG_VARIANT_UNKNOWN || (key & RISCV_VKEY_VSTART) != 0) {
            return;
        }
        h.n = (uint16_t)(v_nf(insn) * cpu_of(t)->vlenb >> h.sew);
    } else if (v_nf(insn) != 1 || !elements(t, key, &h)) {
        return;
    } else if (!v_vm(insn)) {
        h.flags |= IR_VEC_MASKED;
    }
    h.d = h.a = reg_offset(t, v_vd(insn));
    h.m = reg_offset(t, 0);
    ir_vec_hint(t->ir, &h);
}
