/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Translate functions of A, Zacas and Zabha. The contract of all of them is in trans.h. The IR's atomics are
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

/* ---- Zacas ------------------------------------------------------------------------------- */

static bool compare_swap(struct tcg_trans *t, const struct riscv_amo *a, unsigned mo)
{
    set_x(t, a->rd, ir_cas(t->ir, address_of(t, a), get_x(t, a->rd), get_x(t, a->rs2), mo));
    return true;
}

bool trans_amocas_w(struct tcg_trans *t, const struct riscv_amo *a)
{
    return compare_swap(t, a, MO_W);
}

/* Two words in an even register and the next; x0 and the next are 0. */
static ir_ref get_pair(struct tcg_trans *t, unsigned n)
{
    ir_ref high = ir_bin(t->ir, IR_shl, 64, get_x(t, n ? n + 1 : 0), ir_const(t->ir, 32));

    return ir_bin(t->ir, IR_or, 64, ir_un(t->ir, IR_zext32, 64, get_x(t, n)), high);
}

bool trans_amocas_d(struct tcg_trans *t, const struct riscv_amo *a)
{
    ir_ref old;

    if (!is_rv32(t)) {
        return compare_swap(t, a, MO_D);
    }
    old = ir_cas(t->ir, address_of(t, a), get_pair(t, a->rd), get_pair(t, a->rs2), MO_D);
    if (a->rd != 0) {
        set_x32(t, a->rd, old);
        set_x(t, a->rd + 1u, ir_bin(t->ir, IR_sar, 64, old, ir_const(t->ir, 32)));
    }
    return true;
}

/* Four registers are more than a call takes: the helper finds them by the instruction's bits. */
bool trans_amocas_q(struct tcg_trans *t, const struct riscv_amo *a)
{
    ir_call(t->ir, riscv_amocas_q, riscv_amocas_q_flags, false, ir_const(t->ir, insn_bits(t)),
            address_of(t, a), IR_NONE);
    return true;
}

/* ---- Zabha ------------------------------------------------------------------------------- */

enum { MO_B = MO_8 | MO_SIGN | MO_ALIGN, MO_H = MO_16 | MO_SIGN | MO_ALIGN };

#define SMALL(name, kind)                                                                      \
    bool trans_##name##_b(struct tcg_trans *t, const struct riscv_amo *a)                      \
    {                                                                                          \
        return amo(t, a, kind, MO_B);                                                          \
    }                                                                                          \
    bool trans_##name##_h(struct tcg_trans *t, const struct riscv_amo *a)                      \
    {                                                                                          \
        return amo(t, a, kind, MO_H);                                                          \
    }

SMALL(amoswap, IR_AMO_SWAP)
SMALL(amoadd, IR_AMO_ADD)
SMALL(amoxor, IR_AMO_XOR)
SMALL(amoand, IR_AMO_AND)
SMALL(amoor, IR_AMO_OR)
SMALL(amomin, IR_AMO_MIN)
SMALL(amomax, IR_AMO_MAX)
SMALL(amominu, IR_AMO_MINU)
SMALL(amomaxu, IR_AMO_MAXU)

bool trans_amocas_b(struct tcg_trans *t, const struct riscv_amo *a)
{
    return compare_swap(t, a, MO_B);
}

bool trans_amocas_h(struct tcg_trans *t, const struct riscv_amo *a)
{
    return compare_swap(t, a, MO_H);
}
