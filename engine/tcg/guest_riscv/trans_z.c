/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Translate functions of the small extensions: Zicond, Zimop, Zcmop, Zicbom, Zicboz, Zawrs, Svinval, and what of Zcb
 * is no instruction of another one. The contract of all of them is in trans.h.
 */
#include "engine/arch/riscv/features.h"
#include "engine/tcg/guest_riscv/trans.h"

/* ---- Zicond ------------------------------------------------------------------------------ */

static bool zero_if(struct tcg_trans *t, const struct riscv_r *a, enum ir_cond cond)
{
    ir_ref zero = ir_const(t->ir, 0);

    set_x(t, a->rd, ir_select(t->ir, cond, 64, get_x(t, a->rs2), zero, zero, get_x(t, a->rs1)));
    return true;
}

bool trans_czero_eqz(struct tcg_trans *t, const struct riscv_r *a)
{
    return zero_if(t, a, IR_EQ);
}

bool trans_czero_nez(struct tcg_trans *t, const struct riscv_r *a)
{
    return zero_if(t, a, IR_NE);
}

/* ---- Zimop, Zcmop, Zcb ------------------------------------------------------------------- */

bool trans_mop_r(struct tcg_trans *t, const struct riscv_mopr *a)
{
    set_x(t, a->rd, ir_const(t->ir, 0));
    return true;
}

bool trans_mop_rr(struct tcg_trans *t, const struct riscv_moprr *a)
{
    set_x(t, a->rd, ir_const(t->ir, 0));
    return true;
}

bool trans_c_mop(struct tcg_trans *t, const struct riscv_cmop *a)
{
    (void)t;
    (void)a;
    return true;
}

bool trans_c_not(struct tcg_trans *t, const struct riscv_r1 *a)
{
    set_x(t, a->rd, ir_bin(t->ir, IR_xor, 64, get_x(t, a->rs1), ir_const(t->ir, UINT64_MAX)));
    return true;
}

/* ---- cache blocks ------------------------------------------------------------------------ */

static ir_ref block_address(struct tcg_trans *t, const struct riscv_cbo *a)
{
    int32_t disp;

    return mem_addr(t, a->rs1, 0, &disp);
}

/* There is no cache to be seen: what is left is who may, and where. */
static bool manage(struct tcg_trans *t, const struct riscv_cbo *a)
{
    ir_call(t->ir, riscv_cbo, riscv_cbo_flags, false, ir_const(t->ir, insn_bits(t)),
            block_address(t, a), IR_NONE);
    return true;
}

bool trans_cbo_inval(struct tcg_trans *t, const struct riscv_cbo *a)
{
    return manage(t, a);
}

bool trans_cbo_clean(struct tcg_trans *t, const struct riscv_cbo *a)
{
    return manage(t, a);
}

bool trans_cbo_flush(struct tcg_trans *t, const struct riscv_cbo *a)
{
    return manage(t, a);
}

/* To a host with vectors this is a store of zeros. */
bool trans_cbo_zero(struct tcg_trans *t, const struct riscv_cbo *a)
{
    const struct ir_vec store = { .op = IR_VEC_store,
                                  .sew = 3,
                                  .n = RISCV_CACHE_BLOCK / 8,
                                  .a = offsetof(struct riscv_cpu, zeros) };
    ir_ref block;

    if (priv(t) != RISCV_M && (t->code & RV_CODE_CBZ) == 0) {
        ir_call(t->ir, riscv_cbo_allowed, riscv_cbo_allowed_flags, false,
                ir_const(t->ir, insn_bits(t)), IR_NONE, IR_NONE);
    }
    block = ir_bin(t->ir, IR_and, 64, block_address(t, a),
                   ir_const(t->ir, ~(uint64_t)(RISCV_CACHE_BLOCK - 1)));
    ir_call(t->ir, riscv_cbo_zero, riscv_cbo_zero_flags, false, block, IR_NONE, IR_NONE);
    ir_vec_hint(t->ir, &store);
    return true;
}

/* ---- waiting, fences --------------------------------------------------------------------- */

static bool wait(struct tcg_trans *t)
{
    ir_call(t->ir, riscv_wrs, riscv_wrs_flags, false, ir_const(t->ir, insn_bits(t)), IR_NONE,
            IR_NONE);
    return true;
}

bool trans_wrs_nto(struct tcg_trans *t, const struct riscv_none *a)
{
    (void)a;
    return wait(t);
}

bool trans_wrs_sto(struct tcg_trans *t, const struct riscv_none *a)
{
    (void)a;
    return wait(t);
}

/* Invalidations take effect at once (sinval.vma is sfence.vma): nothing is left to order. */
static bool invalidation_fence(struct tcg_trans *t)
{
    return priv(t) == RISCV_U ? trans_illegal(t) : true;
}

bool trans_sfence_w_inval(struct tcg_trans *t, const struct riscv_none *a)
{
    (void)a;
    return invalidation_fence(t);
}

bool trans_sfence_inval_ir(struct tcg_trans *t, const struct riscv_none *a)
{
    (void)a;
    return invalidation_fence(t);
}
