/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Physical memory protection (Privileged 1.12 §3.7): sixteen entries, granularity of four bytes. vCPU thread.
 */
#include "engine/tcg/guest_riscv/sys.h"

enum { PMP_OFF, PMP_TOR, PMP_NA4, PMP_NAPOT };

#define PAGE_MASK ((uint64_t)MEM_PAGE_SIZE - 1)

static unsigned pmp_mode(uint8_t cfg)
{
    return cfg >> 3 & 3;
}

/* First and last byte of entry i; false when it matches nothing. */
static bool pmp_region(const struct riscv_cpu *c, unsigned i, uint64_t *first, uint64_t *last)
{
    uint64_t addr = c->pmpaddr[i];
    uint64_t below = i ? c->pmpaddr[i - 1] : 0;
    uint64_t ones;

    switch (pmp_mode(c->pmpcfg[i])) {
    case PMP_TOR:
        if (below >= addr) {
            return false;
        }
        *first = below << 2;
        *last = (addr << 2) - 1;
        return true;
    case PMP_NA4:
        *first = addr << 2;
        *last = *first + 3;
        return true;
    case PMP_NAPOT:
        ones = addr ^ (addr + 1); /* the trailing ones and the zero above them */
        *first = (addr & ~ones) << 2;
        *last = (addr | ones) << 2 | 3;
        return true;
    default:
        return false;
    }
}

unsigned riscv_pmp_allows(const struct riscv_cpu *c, uint64_t gpa, unsigned priv, bool *whole)
{
    uint64_t page = gpa & ~PAGE_MASK;
    const unsigned all = TCG_PROT_R | TCG_PROT_W | TCG_PROT_X;

    for (unsigned i = 0; i < c->pmp_used; i++) {
        uint64_t first, last;
        if (!pmp_region(c, i, &first, &last) || last < page || first > page + PAGE_MASK) {
            continue;
        }
        if (first > page || last < page + PAGE_MASK) {
            *whole = false;
        }
        if (gpa < first || gpa > last) {
            continue;
        }
        uint8_t cfg = c->pmpcfg[i];
        if (priv == RISCV_M && !(cfg & RV_PMP_L)) {
            return all;
        }
        return (cfg & RV_PMP_R ? TCG_PROT_R : 0u) | (cfg & RV_PMP_W ? TCG_PROT_W : 0u) |
               (cfg & RV_PMP_X ? TCG_PROT_X : 0u);
    }
    return priv == RISCV_M ? all : 0;
}

static void pmp_changed(struct riscv_cpu *c)
{
    c->pmp_used = 0;
    for (unsigned i = 0; i < RISCV_PMP_COUNT; i++) {
        if (pmp_mode(c->pmpcfg[i]) != PMP_OFF) {
            c->pmp_used = (uint8_t)(i + 1);
        }
    }
    tcg_flush_all(c);
}

static unsigned entries_per_csr(const struct riscv_cpu *c)
{
    return c->xlen == 64 ? 8 : 4;
}

uint64_t riscv_pmpcfg_read(const struct riscv_cpu *c, unsigned n)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < entries_per_csr(c); i++) {
        unsigned entry = n * 4 + i;
        value |= (uint64_t)(entry < RISCV_PMP_COUNT ? c->pmpcfg[entry] : 0) << (8 * i);
    }
    return value;
}

void riscv_pmpcfg_write(struct riscv_cpu *c, unsigned n, uint64_t value)
{
    bool changed = false;

    for (unsigned i = 0; i < entries_per_csr(c); i++) {
        unsigned entry = n * 4 + i;
        uint8_t cfg = (uint8_t)(value >> (8 * i)) & 0x9f;
        if (entry >= RISCV_PMP_COUNT || (c->pmpcfg[entry] & RV_PMP_L)) {
            continue;
        }
        if ((cfg & (RV_PMP_R | RV_PMP_W)) == RV_PMP_W) {
            cfg &= (uint8_t)~RV_PMP_W; /* writable but not readable is reserved */
        }
        changed |= c->pmpcfg[entry] != cfg;
        c->pmpcfg[entry] = cfg;
    }
    if (changed) {
        pmp_changed(c);
    }
}

void riscv_pmpaddr_write(struct riscv_cpu *c, unsigned n, uint64_t value)
{
    bool locked = c->pmpcfg[n] & RV_PMP_L;

    if (n + 1 < RISCV_PMP_COUNT && (c->pmpcfg[n + 1] & RV_PMP_L) &&
        pmp_mode(c->pmpcfg[n + 1]) == PMP_TOR) {
        locked = true; /* the lower bound of a locked region */
    }
    value &= c->xlen == 64 ? (1ull << 54) - 1 : UINT32_MAX;
    if (!locked && c->pmpaddr[n] != value) {
        c->pmpaddr[n] = value;
        pmp_changed(c);
    }
}
