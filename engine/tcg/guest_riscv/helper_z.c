/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Helpers of the small extensions that touch memory or wait: Zacas beyond double-words, Zicbom and Zicboz,
 * Zawrs. vCPU thread.
 */
#include "engine/core/vcpu.h"
#include "engine/core/vm.h"
#include "engine/tcg/guest_riscv/helper.h"
#include "engine/tcg/guest_riscv/sys.h"

#define UNUSED(x) (void)(x)

/* ---- 16 bytes ---- */

/* rd and rs2 name an even register and the next; x0 and the next read as 0 and stay 0. */
uint64_t riscv_amocas_q(void *cpu, uint64_t a, uint64_t b, uint64_t c3)
{
    struct riscv_cpu *c = cpu;
    unsigned rd = a >> 7 & 30, rs2 = a >> 20 & 30;
    uint64_t expect[2] = { c->x[rd], rd ? c->x[rd + 1] : 0 };
    uint64_t value[2] = { c->x[rs2], rs2 ? c->x[rs2 + 1] : 0 }, old[2];

    UNUSED(c3);
    tcg_cas16(cpu, b, expect, value, old);
    if (rd) {
        c->x[rd] = old[0];
        c->x[rd + 1] = old[1];
    }
    return 0;
}

/* ---- cache blocks (CMO 1.0.1 §2.5) ---- */

enum { CBO_INVAL, CBO_CLEAN, CBO_FLUSH, CBO_ZERO = 4 };

static bool cbo_ok(const struct riscv_cpu *c, unsigned what)
{
    uint64_t need = what == CBO_ZERO    ? MENVCFG_CBZE
                    : what == CBO_INVAL ? MENVCFG_CBIE
                                        : MENVCFG_CBCFE;

    if (c->priv == RISCV_M) {
        return true;
    }
    if (!(c->menvcfg & need)) {
        return false;
    }
    return c->priv == RISCV_S || !RISCV_HAS(c->features, RISCV_EXT_S) || (c->senvcfg & need);
}

bool riscv_cbo_zero_ok(const struct riscv_cpu *c)
{
    return cbo_ok(c, CBO_ZERO);
}

uint64_t riscv_cbo_allowed(void *cpu, uint64_t a, uint64_t b, uint64_t c3)
{
    UNUSED(b);
    UNUSED(c3);
    if (!cbo_ok(cpu, a >> 20 & 7)) {
        tcg_raise(cpu, RISCV_CAUSE_ILLEGAL, a);
    }
    return 0;
}

/* Where a load or a store is allowed, so is this; else it faults as a store does. */
uint64_t riscv_cbo(void *cpu, uint64_t a, uint64_t b, uint64_t c3)
{
    struct tcg_walk w = { .va = b, .access = TCG_READ, .mmu = riscv_tcg_mode(cpu).mmu };

    riscv_cbo_allowed(cpu, a, 0, 0);
    UNUSED(c3);
    if (riscv_tcg_walk(cpu, &w) != 0) {
        w.access = TCG_WRITE;
        w.va = b;
        if (riscv_tcg_walk(cpu, &w) != 0) {
            tcg_raise(cpu, w.cause, w.tval);
        }
    }
    return 0;
}

/* A block never crosses a page, so that the first store faults or none does. */
uint64_t riscv_cbo_zero(void *cpu, uint64_t a, uint64_t b, uint64_t c3)
{
    UNUSED(b);
    UNUSED(c3);
    for (unsigned at = 0; at < RISCV_CACHE_BLOCK; at += 8) {
        tcg_st(cpu, a + at, 0, MO_64);
    }
    return 0;
}

/* ---- waiting ---- */

/*
 * Zawrs. What a hart waits for is a store to its reservation set; we cannot be told of one, so the wait is a short one in
 * both forms: it gives its host CPU to other threads. Without a reservation there is nothing to wait for. wrs.nto
 * may wait for longer than mstatus.TW lets it, so that it is illegal then.
 */
uint64_t riscv_wrs(void *cpu, uint64_t a, uint64_t b, uint64_t c3)
{
    const struct riscv_cpu *c = cpu;
    bool timeout = a >> 24 & 1; /* wrs.sto */

    UNUSED(b);
    UNUSED(c3);
    if (c->res_addr == UINT64_MAX) {
        return 0;
    }
    if (!timeout && c->priv < RISCV_M && (c->mstatus & MSTATUS_TW)) {
        tcg_raise(cpu, RISCV_CAUSE_ILLEGAL, a);
    }
    return riscv_pause(cpu, 0, 0, 0);
}
