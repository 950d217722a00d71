/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Translate functions of the A extension. The contract of all of them is in trans.h. The IR's atomics are
 * sequentially consistent, so aq and rl need no more there.
 *
 * LR/SC is by value: LR notes address and value in the CPU state, SC is a compare-and-swap against that
 * value. A store of the same value by another hart in between goes unnoticed, which compilers' code cannot tell.
 */
#include "engine/tcg/guest_riscv/trans.h"

#include <stddef.h>

enum { MO_W = MO_32 | MO_SIGN | MO_ALIGN, MO_D = MO_64 | MO_ALIGN };

enum { RL = 1, AQ = 2 }; /* bits of the field aqrl */

static ir_ref address_of(struct tcg_trans *t, const struct riscv_amo *a)
{
    int32_t disp;

    return mem_addr(t, a->rs1, 0, &disp);
}

static bool amo(struct tcg_trans *t, const struct riscv_amo *a, enum ir_amo kind, unsigned mo)
{
    ir_ref v = ir_amo(t->ir, kind, address_of(t, a), get_x(t, a->rs2), mo);

    set_x(t, a->rd, v);
    return true;
}

static bool load_reserved(struct tcg_trans *t, const struct riscv_amo *a, unsigned mo)
{
    ir_ref address = address_of(t, a), v;

    if ((a->aqrl & RL) != 0) {
        ir_fence(t->ir, IR_FENCE_LL | IR_FENCE_SL);
    }
    v = ir_ld(t->ir, address, 0, mo);
    if ((a->aqrl & AQ) != 0) {
        ir_fence(t->ir, IR_FENCE_LL | IR_FENCE_LS);
    }
    ir_stenv(t->ir, offsetof(struct riscv_cpu, res_addr), MO_64, address);
    ir_stenv(t->ir, offsetof(struct riscv_cpu, res_value), MO_64, v);
    set_x(t, a->rd, v);
    return true;
}

bool trans_lr_w(struct tcg_trans *t, const struct riscv_amo *a)
{
    return load_reserved(t, a, MO_W);
}

bool trans_lr_d(struct tcg_trans *t, const struct riscv_amo *a)
{
    return load_reserved(t, a, MO_D);
}

static bool store_conditional(struct tcg_trans *t, const struct riscv_amo *a, ir_helper fn,
                              unsigned flags, unsigned w)
{
    ir_ref done = ir_call(t->ir, fn, flags, true, address_of(t, a), get_x(t, a->rs2), IR_NONE);

    ir_sc_hint(t->ir, w);
    set_x(t, a->rd, done);
    return true;
}

bool trans_sc_w(struct tcg_trans *t, const struct riscv_amo *a)
{
    return store_conditional(t, a, riscv_sc_w, riscv_sc_w_flags, 32);
}

bool trans_sc_d(struct tcg_trans *t, const struct riscv_amo *a)
{
    return store_conditional(t, a, riscv_sc_d, riscv_sc_d_flags, 64);
}

#define AMO(name, kind)                                                                        \
    bool trans_##name##_w(struct tcg_trans *t, const struct riscv_amo *a)                      \
    {                                                                                          \
        return amo(t, a, kind, MO_W);                                                          \
    }                                                                                          \
    bool trans_##name##_d(struct tcg_trans *t, const struct riscv_amo *a)                      \
    {                                                                                          \
        return amo(t, a, kind, MO_D);                                                          \
    }

AMO(amoswap, IR_AMO_SWAP)
AMO(amoadd, IR_AMO_ADD)
AMO(amoxor, IR_AMO_XOR)
AMO(amoand, IR_AMO_AND)
AMO(amoor, IR_AMO_OR)
AMO(amomin, IR_AMO_MIN)
AMO(amomax, IR_AMO_MAX)
AMO(amominu, IR_AMO_MINU)
AMO(amomaxu, IR_AMO_MAXU)
