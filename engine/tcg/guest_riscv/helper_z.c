/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Helpers of the small extensions that touch memory or wait: Zacas and Zabha beyond words and double-words, Zicbom and
 * Zicboz, Zawrs. vCPU thread.
 */
#include "engine/core/vcpu.h"
#include "engine/core/vm.h"
#include "engine/tcg/guest_riscv/helper.h"
#include "engine/tcg/guest_riscv/sys.h"

#define UNUSED(x) (void)(x)

/* ---- bytes and half-words: a compare-and-swap of the word around them ---- */

enum { BYTE, HALF };

struct small {
    uint64_t word; /* address of the word around */
    unsigned shift, mo;
    uint64_t mask;
};

static uint64_t extend(const struct small *s, uint64_t v)
{
    return s->mo == MO_8 ? (uint64_t)(int64_t)(int8_t)v : (uint64_t)(int64_t)(int16_t)v;
}

/* Faults as the access itself would, then finds the word. */
static struct small small_at(void *cpu, uint64_t va, unsigned size)
{
    struct small s = { .word = va & ~3ull,
                       .shift = (unsigned)(va & 3) * 8,
                       .mo = size == HALF ? MO_16 : MO_8,
                       .mask = size == HALF ? 0xffff : 0xff };

    tcg_ld(cpu, va, s.mo | MO_ALIGN | MO_AMO);
    return s;
}

static uint64_t combine(const struct small *s, enum ir_amo kind, uint64_t old, uint64_t v)
{
    int64_t a = (int64_t)extend(s, old), b = (int64_t)extend(s, v);

    switch (kind) {
    case IR_AMO_ADD:
        return old + v;
    case IR_AMO_AND:
        return old & v;
    case IR_AMO_OR:
        return old | v;
    case IR_AMO_XOR:
        return old ^ v;
    case IR_AMO_MIN:
        return a < b ? old : v;
    case IR_AMO_MAX:
        return a > b ? old : v;
    case IR_AMO_MINU:
        return (old & s->mask) < (v & s->mask) ? old : v;
    case IR_AMO_MAXU:
        return (old & s->mask) > (v & s->mask) ? old : v;
    default: /* IR_AMO_SWAP */
        return v;
    }
}

/* Puts v in place of the small value of the word `whole`; true when nobody came between. */
static bool try_swap(void *cpu, const struct small *s, uint64_t whole, uint64_t v)
{
    uint64_t next = (whole & ~(s->mask << s->shift)) | (v & s->mask) << s->shift;

    return tcg_cas(cpu, s->word, whole, next, MO_32 | MO_ALIGN) == whole;
}

uint64_t riscv_amo_small(void *cpu, uint64_t a, uint64_t b, uint64_t c)
{
    struct small s = small_at(cpu, a, c & 1);
    uint64_t whole;

    do {
        whole = tcg_ld(cpu, s.word, MO_32);
    } while (!try_swap(cpu, &s, whole, combine(&s, (enum ir_amo)(c >> 1), whole >> s.shift, b)));
    return extend(&s, whole >> s.shift);
}

static uint64_t small_cas(void *cpu, uint64_t va, uint64_t expect, uint64_t v, unsigned size)
{
    struct small s = small_at(cpu, va, size);
    uint64_t whole;

    do {
        whole = tcg_ld(cpu, s.word, MO_32);
        if ((whole >> s.shift & s.mask) != (expect & s.mask)) {
            break;
        }
    } while (!try_swap(cpu, &s, whole, v));
    return extend(&s, whole >> s.shift);
}

uint64_t riscv_cas_b(void *cpu, uint64_t a, uint64_t b, uint64_t c)
{
    return small_cas(cpu, a, b, c, BYTE);
}

uint64_t riscv_cas_h(void *cpu, uint64_t a, uint64_t b, uint64_t c)
{
    return small_cas(cpu, a, b, c, HALF);
}

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
