/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Translate functions of the vector instructions. The contract of all of them is in trans.h.
 *
 * Everything is a call of one of three helpers, which look at vtype when they run. Where the block is a variant for known vtype, vl
 * and VS (riscv_cpu.vkey, see tcg_variant()), legality is decided here, and a hint says what the call computes.
 */
#include "engine/arch/riscv/vector.h"
#include "engine/tcg/guest_riscv/trans.h"
#include "engine/tcg/guest_riscv/vec.h"
#include "engine/tcg/guest_riscv/vec_mem.h"

#include <stddef.h>

#define STATE(member) ((uint32_t)offsetof(struct riscv_cpu, member))

static ir_ref num(struct tcg_trans *t, uint64_t v)
{
    return ir_const(t->ir, v);
}

/* ---- VS and vkey ------------------------------------------------------------------------- */

/* Vectors must be on: false (return it) when they are known to be off; emits a check where only the running code
 * can tell. For instructions that ask for no variant. */
static bool vector_on(struct tcg_trans *t)
{
    bool known = t->variant_known && t->variant != TCG_VARIANT_UNKNOWN;

    if ((t->code & RV_CODE_VS_OFF) != 0 || (known && !(t->variant & RISCV_VKEY_VS))) {
        return trans_illegal(t);
    }
    if ((t->code & RV_CODE_FP_ASK) != 0 && !known && (t->guest & RISCV_T_VS_ASKED) == 0) {
        t->guest |= RISCV_T_VS_ASKED;
        ir_call(t->ir, riscv_v_ask, riscv_v_ask_flags, false, num(t, insn_bits(t)), IR_NONE,
                IR_NONE);
    }
    return true;
}

static void mark_vs_dirty(struct tcg_trans *t)
{
    if ((t->guest & RISCV_T_VS_DIRTY) == 0) {
        t->guest |= RISCV_T_VS_DIRTY;
        ir_stenv(t->ir, STATE(mstatus), MO_64,
                 ir_bin(t->ir, IR_or, 64, ir_ldenv(t->ir, STATE(mstatus), MO_64),
                        num(t, MSTATUS_VS)));
    }
}

/* What is known of the vector state at this instruction: a vkey with VS on, or TCG_VARIANT_UNKNOWN. False
 * when vectors are off. `writes`: VS becomes dirty. */
static bool state_known(struct tcg_trans *t, bool writes, uint32_t *key)
{
    if ((t->code & RV_CODE_VS_OFF) != 0) {
        return trans_illegal(t);
    }
    *key = tcg_variant(t);
    if (*key == TCG_VARIANT_UNKNOWN) {
        return true;
    }
    if ((*key & RISCV_VKEY_VS) == 0) {
        return trans_illegal(t);
    }
    if (writes && (*key & RISCV_VKEY_VS) != RISCV_VKEY_VS_DIRTY) {
        *key |= RISCV_VKEY_VS_DIRTY;
        mark_vs_dirty(t);
        ir_stenv(t->ir, STATE(vkey), MO_32, num(t, *key));
        tcg_variant_set(t, *key);
    }
    return true;
}

/* vtype as the CPU state holds it. */
static uint64_t vtype_of(uint32_t key)
{
    return key & RISCV_VKEY_VILL ? RISCV_VTYPE_VILL : key & RISCV_VKEY_VTYPE;
}

/* ---- vsetvli, vsetivli, vsetvl ----------------------------------------------------------- */

/* vtype and vl = min(avl, VLMAX) with nothing but VS to ask about. avl IR_NONE: VLMAX. `old` is the vkey before. */
static bool set_inline(struct tcg_trans *t, uint64_t vtype, ir_ref avl, unsigned rd)
{
    const struct riscv_cpu *c = cpu_of(t);
    bool ok = riscv_vtype_ok(c, vtype);
    uint64_t type = ok ? vtype & RISCV_VKEY_VTYPE : RISCV_VTYPE_VILL;
    uint64_t max = riscv_vlmax(type, c->vlenb), constant = UINT64_MAX;
    uint32_t part = riscv_vkey(type, false, false, MSTATUS_VS), full = part | RISCV_VKEY_FULL;
    bool known = avl == IR_NONE || ir_is_const(t->ir, avl, &constant) || !ok;
    ir_ref vl;

    mark_vs_dirty(t);
    ir_stenv(t->ir, STATE(vtype), MO_64, num(t, type));
    ir_stenv(t->ir, STATE(vstart), MO_64, num(t, 0));
    if (known) {
        uint32_t key = !ok ? part : constant >= max ? full : part | riscv_vkey_vl(constant);

        vl = num(t, constant < max ? constant : max);
        ir_stenv(t->ir, STATE(vl), MO_64, vl);
        ir_stenv(t->ir, STATE(vkey), MO_32, num(t, key));
        set_x(t, rd, vl);
        tcg_variant_set(t, key);
        return true;
    }
    avl = ir_copy(t->ir, avl);
    vl = ir_select(t->ir, IR_LTU, 64, avl, num(t, max), avl, num(t, max));
    ir_stenv(t->ir, STATE(vl), MO_64, vl);
    /* A short vl that happens to be a power of two need not be told apart: it is but one of many. */
    ir_stenv(t->ir, STATE(vkey), MO_32,
             ir_select(t->ir, IR_LTU, 64, avl, num(t, max), num(t, part), num(t, full)));
    set_x(t, rd, vl);
    /* The block goes on for full registers; the rest of a loop is another variant. */
    tcg_branch(t, IR_LTU, 64, avl, num(t, max), t->next_off);
    tcg_variant_set(t, full);
    return true;
}

static ir_ref avl_of(struct tcg_trans *t, unsigned rs1)
{
    ir_ref x = get_x(t, rs1);

    return is_rv32(t) ? ir_un(t->ir, IR_zext32, 64, x) : x;
}

bool trans_vsetvli(struct tcg_trans *t, const struct riscv_vset *a)
{
    const struct riscv_cpu *c = cpu_of(t);
    uint64_t vtype = (uint64_t)a->imm;
    bool known = t->variant_known && t->variant != TCG_VARIANT_UNKNOWN;

    if (!vector_on(t)) {
        return false;
    }
    if (a->rs1 != 0) {
        return set_inline(t, vtype, avl_of(t, a->rs1), a->rd);
    }
    if (a->rd != 0) {
        return set_inline(t, vtype, IR_NONE, a->rd);
    }
    /* vl stays. */
    if (known && (t->variant & RISCV_VKEY_FULL) && riscv_vtype_ok(c, vtype) &&
        riscv_vlmax(vtype, c->vlenb) <= riscv_vlmax(vtype_of(t->variant), c->vlenb)) {
        return set_inline(t, vtype, IR_NONE, 0);
    }
    return set_inline(t, vtype, ir_ldenv(t->ir, STATE(vl), MO_64), 0);
}

bool trans_vsetivli(struct tcg_trans *t, const struct riscv_vset *a)
{
    return vector_on(t) && set_inline(t, (uint64_t)a->imm, num(t, a->rs1), a->rd);
}

bool trans_vsetvl(struct tcg_trans *t, const struct riscv_r *a)
{
    ir_ref avl, vl, vtype = get_x(t, a->rs2);
    uint64_t constant;

    if (!vector_on(t)) {
        return false;
    }
    if (ir_is_const(t->ir, vtype, &constant) && a->rs1 != 0) {
        return set_inline(t, constant, avl_of(t, a->rs1), a->rd);
    }
    avl = a->rs1 != 0  ? avl_of(t, a->rs1)
          : a->rd != 0 ? num(t, UINT64_MAX)
                       : ir_ldenv(t->ir, STATE(vl), MO_64);
    vl = ir_call(t->ir, riscv_v_set, riscv_v_set_flags, true, vtype, avl, IR_NONE);
    set_x(t, a->rd, vl);
    /* What follows is a variant of its own. */
    return tcg_stop(t, t->next_off);
}

/* ---- arithmetic -------------------------------------------------------------------------- */

/* The operand that is no vector: an x or f register, or an immediate. */
static ir_ref scalar_of(struct tcg_trans *t, const struct v_op *op, uint32_t insn)
{
    unsigned n = v_vs1(insn);

    if ((insn & 0x7f) == V_CRYPTO) {
        return num(t, n);
    }
    switch (v_funct3(insn)) {
    case V_IVX:
    case V_MVX:
        return get_x(t, n);
    case V_FVF:
        return get_f(t, n);
    case V_IVI:
        return num(t, v_immediate(op, insn));
    default:
        return num(t, 0);
    }
}

/* Emits the call; insn may carry RISCV_V_CHECKED. */
static void call_arith(struct tcg_trans *t, const struct v_op *op, uint64_t a, uint32_t key)
{
    uint32_t insn = (uint32_t)a;
    bool to_x = op->flags & V_TO_X, to_f = op->flags & V_TO_F;
    ir_ref result = ir_call(t->ir, riscv_v_arith, riscv_v_arith_flags, to_x || to_f, num(t, a),
                            scalar_of(t, op, insn), num(t, (uintptr_t)op));

    riscv_v_hint(t, op, insn, key);
    if (to_x) {
        set_xl(t, v_vd(insn), result);
    }
    if (to_f) {
        set_f(t, v_vd(insn), result);
    }
}

bool trans_vadd_vv(struct tcg_trans *t, const struct riscv_v *operands)
{
    uint32_t insn = insn_bits(t), key;
    const struct v_op *op = v_op_of(insn);
    uint64_t a = insn;
    bool result_x = op->flags & (V_TO_X | V_TO_F);

    (void)operands;
    if (!state_known(t, !result_x, &key)) {
        return false;
    }
    if (op->flags & V_F) {
        if (!fp_on(t)) {
            return false;
        }
        mark_fs_dirty(t);
    }
    if (key != TCG_VARIANT_UNKNOWN) {
        if (!v_legal(cpu_of(t), op, insn, vtype_of(key))) {
            return trans_illegal(t);
        }
        a |= RISCV_V_CHECKED;
    }
    call_arith(t, op, a, key);
    if (key & RISCV_VKEY_VSTART) {
        tcg_variant_set(t, TCG_VARIANT_UNKNOWN);
    }
    return true;
}

/* ---- loads and stores -------------------------------------------------------------------- */

bool trans_vle8_v(struct tcg_trans *t, const struct riscv_v *operands)
{
    uint32_t insn = insn_bits(t), key;
    bool store = v_is_store(insn);
    uint32_t tags = t->code & (RV_CODE_PM_7 | RV_CODE_PM_16 | RV_CODE_PM_SIGNED);
    uint64_t a = insn | (uint64_t)tags << RISCV_V_PM_SHIFT;
    ir_ref base, stride;

    (void)operands;
    if (!state_known(t, !store, &key)) {
        return false;
    }
    if (key != TCG_VARIANT_UNKNOWN) {
        if (!v_mem_legal(cpu_of(t), insn, vtype_of(key))) {
            return trans_illegal(t);
        }
        a |= RISCV_V_CHECKED;
    }
    base = mask_pointer(t, get_x(t, v_vs1(insn)));
    base = is_rv32(t) ? ir_un(t->ir, IR_zext32, 64, base) : base;
    stride = v_mop(insn) == 2 ? get_x(t, v_vs2(insn)) : num(t, 0);
    if (store) {
        ir_call(t->ir, riscv_v_store, riscv_v_store_flags, false, num(t, a), base, stride);
    } else {
        ir_call(t->ir, riscv_v_load, riscv_v_load_flags, false, num(t, a), base, stride);
    }
    riscv_v_memory_hint(t, insn, key);
    if (key & RISCV_VKEY_VSTART || (v_is_first_fault(insn) && key == TCG_VARIANT_UNKNOWN)) {
        /* vl may have become smaller: what follows asks again. */
        return tcg_stop(t, t->next_off);
    }
    if (v_is_first_fault(insn)) { /* mostly it has not */
        tcg_branch(t, IR_NE, 32, ir_ldenv(t->ir, STATE(vkey), MO_32), num(t, key), t->next_off);
    }
    return true;
}
