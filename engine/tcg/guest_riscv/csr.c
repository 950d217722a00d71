/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control and status registers: one table, read by access checks, by masks and hooks.
 *
 * Each row describes a register as a 64-bit quantity. On RV32 a window of it is seen: the low half, or the
 * high half where the row says so (the ...h registers). Hooks therefore know no xlen unless the layout differs.
 * Runs on the vCPU's own thread.
 */
#include "engine/arch/riscv/vector.h"
#include "engine/arch/riscv/pmu.h"
#include "engine/core/clock.h"
#include "engine/core/vcpu.h"
#include "engine/core/vm.h"
#include "engine/tcg/guest_riscv/helper.h"
#include "engine/tcg/guest_riscv/sys.h"

#include <sys/random.h>

enum {
    CSR_PLAIN = 1, /* writing changes nothing that translated code relies on */
    CSR_HIGH = 2,  /* RV32 only: the upper half of the register */
};

struct csr {
    const char *name, *doc;
    uint8_t xlens; /* RISCV_RV32 | RISCV_RV64 */
    uint8_t flags;
    uint16_t field; /* offset of the 64-bit field in the CPU state, 0 for none */
    uint64_t mask;  /* writable bits of the field when there is no write hook */
    bool (*allowed)(const struct riscv_cpu *c, unsigned n); /* beyond privilege; NULL: always */
    uint64_t (*read)(const struct riscv_cpu *c, unsigned n);
    /* value is the whole new register; only the bits in `mask` were written by the guest. */
    void (*write)(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask);
};

static bool has(const struct riscv_cpu *c, enum riscv_feature ext)
{
    return RISCV_HAS(c->features, ext);
}

/* ---- who may ---- */

static bool has_s(const struct riscv_cpu *c, unsigned n)
{
    (void)n;
    return has(c, RISCV_EXT_S);
}

static bool has_u(const struct riscv_cpu *c, unsigned n)
{
    (void)n;
    return has(c, RISCV_EXT_U);
}

static bool fp_on(const struct riscv_cpu *c, unsigned n)
{
    (void)n;
    return has(c, RISCV_EXT_F) && (c->mstatus & MSTATUS_FS);
}

static bool vector_on(const struct riscv_cpu *c, unsigned n)
{
    (void)n;
    return has(c, RISCV_EXT_ZVE32X) && (c->mstatus & MSTATUS_VS);
}

static bool satp_ok(const struct riscv_cpu *c, unsigned n)
{
    (void)n;
    return has(c, RISCV_EXT_S) && !(c->priv == RISCV_S && (c->mstatus & MSTATUS_TVM));
}

/* cycle, time, instret, hpmcounterN and their high halves (§3.1.11). */
static bool counter_enabled(const struct riscv_cpu *c, unsigned n)
{
    uint64_t bit = 1ull << (n & 31);

    if (c->priv < RISCV_M && !(c->mcounteren & bit)) {
        return false;
    }
    return c->priv != RISCV_U || !has(c, RISCV_EXT_S) || (c->scounteren & bit);
}

static bool counter_ok(const struct riscv_cpu *c, unsigned n)
{
    return has(c, RISCV_EXT_ZICNTR) && counter_enabled(c, n);
}

static bool hpmcounter_ok(const struct riscv_cpu *c, unsigned n)
{
    return has(c, RISCV_EXT_ZIHPM) && counter_enabled(c, n);
}

static bool scountovf_ok(const struct riscv_cpu *c, unsigned n)
{
    return has(c, RISCV_EXT_SSCOFPMF) && has_s(c, n);
}

static bool stimecmp_ok(const struct riscv_cpu *c, unsigned n)
{
    (void)n;
    if (!has(c, RISCV_EXT_SSTC) || !has(c, RISCV_EXT_S)) {
        return false;
    }
    return c->priv == RISCV_M || ((c->mcounteren & 2) && (c->menvcfg & MENVCFG_STCE));
}

static bool pmpcfg_ok(const struct riscv_cpu *c, unsigned n)
{
    return c->xlen == 32 || !(n & 1);
}

/* ---- mstatus and sstatus (§3.1.6, §4.1.1) ---- */

#define SSTATUS_WRITABLE                                                                       \
    (MSTATUS_SIE | MSTATUS_SPIE | MSTATUS_SPP | MSTATUS_VS | MSTATUS_FS | MSTATUS_SUM |         \
     MSTATUS_MXR)
#define MSTATUS_WRITABLE                                                                       \
    (SSTATUS_WRITABLE | MSTATUS_MIE | MSTATUS_MPIE | MSTATUS_MPP | MSTATUS_MPRV |              \
     MSTATUS_TVM | MSTATUS_TW | MSTATUS_TSR)
#define MSTATUS_UXL_64 (2ull << 32)
#define MSTATUS_SXL_64 (2ull << 34)

static uint64_t mstatus_writable(const struct riscv_cpu *c)
{
    uint64_t mask = MSTATUS_WRITABLE;

    if (!has(c, RISCV_EXT_S)) {
        mask &= ~(SSTATUS_WRITABLE | MSTATUS_TVM | MSTATUS_TSR);
        mask |= MSTATUS_FS | MSTATUS_VS;
    }
    if (!has(c, RISCV_EXT_U)) {
        mask &= ~(MSTATUS_MPRV | MSTATUS_MPP | MSTATUS_TW);
    }
    if (!has(c, RISCV_EXT_F)) {
        mask &= ~MSTATUS_FS;
    }
    if (!has(c, RISCV_EXT_ZVE32X)) {
        mask &= ~MSTATUS_VS;
    }
    return mask;
}

static uint64_t mstatus_read(const struct riscv_cpu *c, unsigned n)
{
    uint64_t v = c->mstatus & MSTATUS_WRITABLE;
    bool dirty = (v & MSTATUS_FS) == MSTATUS_FS || (v & MSTATUS_VS) == MSTATUS_VS;

    (void)n;
    if (c->xlen == 32) {
        return v | (uint64_t)dirty << 31;
    }
    if (has(c, RISCV_EXT_U)) {
        v |= MSTATUS_UXL_64;
    }
    if (has(c, RISCV_EXT_S)) {
        v |= MSTATUS_SXL_64;
    }
    return v | (uint64_t)dirty << 63;
}

static uint64_t sstatus_read(const struct riscv_cpu *c, unsigned n)
{
    uint64_t sd = c->xlen == 32 ? 1ull << 31 : 1ull << 63;
    return mstatus_read(c, n) & (SSTATUS_WRITABLE | MSTATUS_UXL_64 | sd);
}

static void mstatus_change(struct riscv_cpu *c, uint64_t value, uint64_t mask)
{
    uint64_t old = c->mstatus;

    if ((value & MSTATUS_MPP) == 2ull << 11 ||
        ((value & MSTATUS_MPP) == 1ull << 11 && !has(c, RISCV_EXT_S))) {
        mask &= ~MSTATUS_MPP;
    }
    mask &= mstatus_writable(c);
    c->mstatus = (old & ~mask) | (value & mask);

    uint64_t changed = old ^ c->mstatus;
    if ((changed & (MSTATUS_MPRV | MSTATUS_SUM | MSTATUS_MXR)) ||
        ((changed & MSTATUS_MPP) && (c->mstatus & MSTATUS_MPRV)) ||
        !(old & MSTATUS_FS) != !(c->mstatus & MSTATUS_FS) ||
        !(old & MSTATUS_VS) != !(c->mstatus & MSTATUS_VS)) {
        tcg_mode_changed(c);
    }
    if (changed & MSTATUS_VS) {
        riscv_vkey_update(c);
    }
    if (changed & c->mstatus & (MSTATUS_SIE | MSTATUS_MIE)) {
        tcg_interrupt_check(c);
    }
}

static void mstatus_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    (void)n;
    mstatus_change(c, value, mask);
}

static void sstatus_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    (void)n;
    mstatus_change(c, value, mask & SSTATUS_WRITABLE);
}

/* ---- floating point ---- */

static uint64_t fcsr_read(const struct riscv_cpu *c, unsigned n)
{
    switch (n) {
    case 1:
        return c->fflags & 31;
    case 2:
        return c->frm & 7;
    default:
        return (c->frm & 7u) << 5 | (c->fflags & 31);
    }
}

static void fcsr_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    uint8_t frm = c->frm;

    (void)mask;
    if (n != 2) {
        c->fflags = value & 31;
    }
    if (n != 1) {
        c->frm = (n == 2 ? value : value >> 5) & 7;
    }
    c->mstatus |= MSTATUS_FS;
    if (c->frm != frm) {
        tcg_mode_changed(c);
    }
}

/* ---- vectors (V 1.0, section 3) ---- */

static uint64_t vector_read(const struct riscv_cpu *c, unsigned n)
{
    switch (n) {
    case 0x008:
        return c->vstart;
    case 0x009:
        return c->vxsat;
    case 0x00a:
        return c->vxrm;
    case 0x00f:
        return c->vxsat | c->vxrm << 1;
    case 0xc20:
        return c->vl;
    case 0xc21:
        return c->vtype & RISCV_VTYPE_VILL ? 1ull << (c->xlen - 1) : c->vtype;
    default: /* 0xc22 */
        return c->vlenb;
    }
}

static void vector_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    (void)mask;
    c->mstatus |= MSTATUS_VS;
    switch (n) {
    case 0x008: /* as many bits as the largest VLMAX needs */
        c->vstart = value & (8u * c->vlenb - 1);
        break;
    case 0x009:
        c->vxsat = value & 1;
        break;
    case 0x00a:
        c->vxrm = value & 3;
        break;
    default: /* vcsr */
        c->vxsat = value & 1;
        c->vxrm = value >> 1 & 3;
    }
    riscv_vkey_update(c);
}

/* Bits of the counters that this hart has: cycle, time, instret and the event counters. */
static uint64_t counters_there(const struct riscv_cpu *c)
{
    return 7 | (has(c, RISCV_EXT_ZIHPM) ? RISCV_HPM_MASK : 0);
}

static void counteren_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    uint64_t *field = n >> 8 == 3 ? &c->mcounteren : &c->scounteren;

    mask &= counters_there(c);
    *field = (*field & ~mask) | (value & mask);
}

/* ---- counters: cycle and instret run at 1 GHz of virtual time ---- */

static uint64_t counter_base(const struct riscv_cpu *c, unsigned n)
{
    bool inhibited = c->mcountinhibit >> (n & 31) & 1;
    if (!inhibited && (n & 31) == 2 && tcg_counts((void *)(uintptr_t)c)) {
        return tcg_retired((void *)(uintptr_t)c);
    }
    return inhibited ? 0 : clock_now(c->vcpu->vm->clock);
}

bool riscv_csr_uses_clock(unsigned n)
{
    bool counter = n >= 0xb00 && n <= 0xc9f && (n & 0x7f) <= 0x1f;
    bool event = (n >= 0x323 && n <= 0x33f) || (n >= 0x723 && n <= 0x73f) || n == 0xda0;
    return counter || event || n == 0x14d || n == 0x15d || n == 0x320 || n == 0x30a ||
           n == 0x31a;
}

static uint64_t counter_read(const struct riscv_cpu *c, unsigned n)
{
    uint64_t offset = (n & 31) == 0 ? c->cycle_offset : c->instret_offset;
    return counter_base(c, n) + offset;
}

static void counter_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    uint64_t *offset = (n & 31) == 0 ? &c->cycle_offset : &c->instret_offset;

    (void)mask;
    *offset = value - counter_base(c, n);
    if (n == 0xb02 || n == 0xb82) {
        /* Written instead of incremented (Zicsr 1.1): the write itself does not count. */
        *offset -= tcg_counts(c) && !(c->mcountinhibit & 4);
    }
}

static uint64_t time_read(const struct riscv_cpu *c, unsigned n)
{
    (void)n;
    return riscv_time(c->vcpu);
}

static uint64_t zero_read(const struct riscv_cpu *c, unsigned n)
{
    (void)c;
    (void)n;
    return 0;
}

static void ignore_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    (void)c;
    (void)n;
    (void)value;
    (void)mask;
}

static void mcountinhibit_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    uint64_t cycle = counter_read(c, 0), instret = counter_read(c, 2);

    (void)n;
    (void)mask;
    riscv_hpm_sync(c);
    c->mcountinhibit = value & counters_there(c) & ~2ull;
    counter_write(c, 0, cycle, 0);
    counter_write(c, 2, instret, 0);
    riscv_hpm_update(c);
}

/* ---- event counters (arch/riscv/pmu.h) ---- */

static uint64_t retired(const struct riscv_cpu *c)
{
    void *cpu = (void *)(uintptr_t)c;
    return tcg_counts(cpu) ? tcg_retired(cpu) : clock_now(c->vcpu->vm->clock);
}

void riscv_hpm_sync(struct riscv_cpu *c)
{
    if (c->hpm_active) {
        riscv_pmu_sync(c, retired(c));
    }
}

void riscv_hpm_update(struct riscv_cpu *c)
{
    riscv_pmu_update(c, retired(c));
}

/* Reading brings the counters up to date, which is no change of what they are. */
static struct riscv_cpu *synced(const struct riscv_cpu *c)
{
    struct riscv_cpu *own = (struct riscv_cpu *)(uintptr_t)c;
    riscv_hpm_sync(own);
    return own;
}

static uint64_t hpmcounter_read(const struct riscv_cpu *c, unsigned n)
{
    return synced(c)->hpmcounter[n & 31];
}

static void hpmcounter_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    (void)mask;
    if (has(c, RISCV_EXT_ZIHPM)) {
        riscv_hpm_sync(c);
        c->hpmcounter[n & 31] = value;
        riscv_hpm_update(c);
    }
}

static uint64_t hpmevent_read(const struct riscv_cpu *c, unsigned n)
{
    return synced(c)->hpmevent[n & 31];
}

/* Other events than ours read back as none. */
static void hpmevent_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    uint64_t filter = HPMEVENT_OF | HPMEVENT_MINH | (has(c, RISCV_EXT_S) ? HPMEVENT_SINH : 0) |
                      (has(c, RISCV_EXT_U) ? HPMEVENT_UINH : 0);
    uint64_t event = value & ~(0xffull << 56);

    (void)mask;
    if (!has(c, RISCV_EXT_ZIHPM)) {
        return;
    }
    riscv_hpm_sync(c);
    event = event == RISCV_EVENT_CYCLES || event == RISCV_EVENT_INSTRET ? event : 0;
    c->hpmevent[n & 31] = event | (has(c, RISCV_EXT_SSCOFPMF) ? value & filter : 0);
    riscv_hpm_update(c);
}

static bool has_overflow(const struct riscv_cpu *c, unsigned n)
{
    (void)n;
    return has(c, RISCV_EXT_SSCOFPMF);
}

/* The overflow bits of all counters; a supervisor sees those that it may read. */
static uint64_t scountovf_read(const struct riscv_cpu *c, unsigned n)
{
    const struct riscv_cpu *own = synced(c);
    uint64_t v = 0;

    (void)n;
    for (unsigned i = 3; i < 32; i++) {
        v |= (own->hpmevent[i] >> 63) << i;
    }
    return c->priv == RISCV_M ? v : v & c->mcounteren;
}

/* ---- interrupts ---- */

static uint64_t mip_read(const struct riscv_cpu *c, unsigned n)
{
    (void)n;
    return riscv_mip(c) & (riscv_irq_s(c) | RV_IRQ_M);
}

/* SEIP's written value is a latch of its own, or-ed with the interrupt controller's line. */
static void mip_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    (void)n;
    mask &= riscv_irq_s(c);
    if (c->menvcfg & MENVCFG_STCE) {
        mask &= ~(1ull << RISCV_IRQ_STI);
    }
    if (mask & RV_IRQ_LCOFI) {
        riscv_hpm_sync(c);
        riscv_pmu_pending(c, value & RV_IRQ_LCOFI);
        riscv_hpm_update(c);
        mask &= ~RV_IRQ_LCOFI;
    }
    c->mip = (c->mip & ~mask) | (value & mask);
    tcg_interrupt_check(c);
}

static uint64_t sip_read(const struct riscv_cpu *c, unsigned n)
{
    return mip_read(c, n) & c->mideleg;
}

static void sip_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    mip_write(c, n, value, mask & c->mideleg & (1ull << RISCV_IRQ_SSI | RV_IRQ_LCOFI));
}

static void mie_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    (void)n;
    mask &= RV_IRQ_M | riscv_irq_s(c);
    c->mie = (c->mie & ~mask) | (value & mask);
    tcg_interrupt_check(c);
}

static uint64_t sie_read(const struct riscv_cpu *c, unsigned n)
{
    (void)n;
    return c->mie & c->mideleg;
}

static void sie_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    mie_write(c, n, value, mask & c->mideleg);
}

static void mideleg_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    (void)n;
    (void)mask;
    c->mideleg = value & riscv_irq_s(c);
    tcg_interrupt_check(c);
}

/* Every synchronous exception but the environment call from M (§3.1.8). */
#define MEDELEG_WRITABLE 0xb3ffull

static void stimecmp_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    (void)n;
    (void)mask;
    c->stimecmp = value;
    riscv_stimecmp_changed(c);
    tcg_interrupt_check(c);
}

/* ---- trap registers ---- */

/* Base and mode; the reserved modes are not taken over. */
static void tvec_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    (void)mask;
    if (value & 2) {
        return;
    }
    if (n >> 8 == 3) {
        c->mtvec = value;
    } else {
        c->stvec = value;
    }
}

static uint64_t epc_mask(const struct riscv_cpu *c)
{
    return has(c, RISCV_EXT_C) ? ~1ull : ~3ull;
}

static void epc_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    (void)mask;
    value &= epc_mask(c);
    if (n >> 8 == 3) {
        c->mepc = value;
    } else {
        c->sepc = value;
    }
}

/* ---- configuration ---- */

static uint64_t misa_read(const struct riscv_cpu *c, unsigned n)
{
    (void)n;
    return riscv_misa(&c->features, c->xlen);
}

static uint64_t mhartid_read(const struct riscv_cpu *c, unsigned n)
{
    (void)n;
    return c->hartid;
}

/* What both envcfg registers have; the reserved CBIE is not taken over. */
static uint64_t envcfg_writable(const struct riscv_cpu *c, uint64_t value)
{
    uint64_t cbie = (value & MENVCFG_CBIE) == 2ull << 4 ? 0 : MENVCFG_CBIE;

    return MENVCFG_FIOM | (has(c, RISCV_EXT_ZICBOM) ? cbie | MENVCFG_CBCFE : 0) |
           (has(c, RISCV_EXT_ZICBOZ) ? MENVCFG_CBZE : 0);
}

/* Pointer masking of the next privilege; the reserved PMM is not taken over. */
static uint64_t pmm_writable(const struct riscv_cpu *c, enum riscv_feature ext, uint64_t value)
{
    return has(c, ext) && (value & MENVCFG_PMM) != 1ull << 32 ? MENVCFG_PMM : 0;
}

static void senvcfg_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    uint64_t old = c->senvcfg;

    (void)n;
    mask &= envcfg_writable(c, value) | pmm_writable(c, RISCV_EXT_SSNPM, value);
    c->senvcfg = (old & ~mask) | (value & mask);
    if ((old ^ c->senvcfg) & (MENVCFG_PMM | MENVCFG_CBZE)) {
        tcg_mode_changed(c);
    }
}

static void menvcfg_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    uint64_t old = c->menvcfg;

    (void)n;
    mask &= envcfg_writable(c, value) | (has(c, RISCV_EXT_SSTC) ? MENVCFG_STCE : 0) |
            (has(c, RISCV_EXT_SVADU) ? MENVCFG_ADUE : 0) |
            (has(c, RISCV_EXT_SVPBMT) ? MENVCFG_PBMTE : 0) |
            pmm_writable(c, RISCV_EXT_SMNPM, value);
    c->menvcfg = (old & ~mask) | (value & mask);
    if ((old ^ c->menvcfg) & (MENVCFG_PMM | MENVCFG_CBZE)) {
        tcg_mode_changed(c);
    }
    if ((old ^ c->menvcfg) & MENVCFG_STCE) {
        riscv_stimecmp_changed(c);
        tcg_interrupt_check(c);
    }
}

/* ---- Smstateen: who may use senvcfg; nothing else that we have is under it ---- */

#define STATEEN_ENVCFG (1ull << 62)
#define STATEEN_SE (1ull << 63)

static bool has_stateen(const struct riscv_cpu *c, unsigned n)
{
    (void)n;
    return has(c, RISCV_EXT_SMSTATEEN);
}

static uint64_t mstateen_read(const struct riscv_cpu *c, unsigned n)
{
    return c->mstateen[n & 3];
}

static void mstateen_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    mask &= STATEEN_SE | ((n & 3) == 0 ? STATEEN_ENVCFG : 0);
    c->mstateen[n & 3] = (c->mstateen[n & 3] & ~mask) | (value & mask);
}

/* All of sstateen reads as zero. */
static bool sstateen_ok(const struct riscv_cpu *c, unsigned n)
{
    return has_stateen(c, n) && has_s(c, n) &&
           (c->priv == RISCV_M || (c->mstateen[n & 3] & STATEEN_SE));
}

static bool senvcfg_ok(const struct riscv_cpu *c, unsigned n)
{
    return has_s(c, n) && (c->priv == RISCV_M || !has_stateen(c, n) ||
                           (c->mstateen[0] & STATEEN_ENVCFG));
}

/* ---- Zkr: the entropy source ---- */

#define MSECCFG_USEED (1ull << 8)
#define MSECCFG_SSEED (1ull << 9)
#define SEED_ES16 (2ull << 30)
#define SEED_BIST 0ull

static bool has_zkr(const struct riscv_cpu *c, unsigned n)
{
    (void)n;
    return has(c, RISCV_EXT_ZKR);
}

static bool seed_ok(const struct riscv_cpu *c, unsigned n)
{
    uint64_t need = c->priv == RISCV_U ? MSECCFG_USEED : MSECCFG_SSEED;
    return has_zkr(c, n) && (c->priv == RISCV_M || (c->mseccfg & need));
}

/* 16 bits of the host's entropy; "not now" should it have none. */
static uint64_t seed_read(const struct riscv_cpu *c, unsigned n)
{
    uint16_t v;

    (void)c;
    (void)n;
    return getrandom(&v, sizeof(v), GRND_NONBLOCK) == sizeof(v) ? SEED_ES16 | v : SEED_BIST;
}

static void mseccfg_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    (void)n;
    mask &= (has(c, RISCV_EXT_U) ? MSECCFG_USEED : 0) | (has(c, RISCV_EXT_S) ? MSECCFG_SSEED : 0);
    c->mseccfg = (c->mseccfg & ~mask) | (value & mask);
}

/* A mode that is not there makes the whole write void (§4.1.11). Old translations stay usable under their ASID: the
 * guest must sfence.vma. */
static void satp_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    (void)n;
    (void)mask;
    if (!riscv_satp_mode_ok(c, (unsigned)(c->xlen == 64 ? value >> 60 : value >> 31))) {
        return;
    }
    if (value != c->satp) {
        c->satp = value;
        tcg_mode_changed(c);
    }
}

static uint64_t pmpcfg_read(const struct riscv_cpu *c, unsigned n)
{
    return riscv_pmpcfg_read(c, n - 0x3a0);
}

static void pmpcfg_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    (void)mask;
    riscv_pmpcfg_write(c, n - 0x3a0, value);
}

static uint64_t pmpaddr_read(const struct riscv_cpu *c, unsigned n)
{
    return c->pmpaddr[n - 0x3b0];
}

static void pmpaddr_write(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask)
{
    (void)mask;
    riscv_pmpaddr_write(c, n - 0x3b0, value);
}

/* ---- the table ---- */

#define ALL ~0ull
#define F(member) offsetof(struct riscv_cpu, member)
#define ANY (RISCV_RV32 | RISCV_RV64)
#define RV32 RISCV_RV32
#define PLAIN CSR_PLAIN
#define HIGH CSR_HIGH

/* X(first, last, name, xlens, flags, field, mask, allowed, read, write, doc) */
#define CSR_TABLE(X)                                                                           \
    X(0x001, 0x003, fcsr, ANY, 0, 0, 0, fp_on, fcsr_read, fcsr_write,                          \
      "fflags, frm and both: accrued exceptions and rounding mode")                            \
    X(0x008, 0x008, vstart, ANY, 0, 0, 0, vector_on, vector_read, vector_write,                \
      "first element that a vector instruction executes")                                      \
    X(0x009, 0x00a, vxsat_vxrm, ANY, 0, 0, 0, vector_on, vector_read, vector_write,            \
      "fixed-point saturation flag, rounding mode")                                            \
    X(0x00f, 0x00f, vcsr, ANY, 0, 0, 0, vector_on, vector_read, vector_write,                  \
      "vxsat and vxrm")                                                                        \
    X(0x100, 0x100, sstatus, ANY, 0, 0, 0, has_s, sstatus_read, sstatus_write,                 \
      "supervisor's view of mstatus")                                                          \
    X(0x104, 0x104, sie, ANY, 0, 0, 0, has_s, sie_read, sie_write,                             \
      "enabled interrupts among those delegated")                                              \
    X(0x105, 0x105, stvec, ANY, PLAIN, F(stvec), ALL, has_s, NULL, tvec_write,                 \
      "supervisor trap vector and its mode")                                                   \
    X(0x106, 0x106, scounteren, ANY, PLAIN, F(scounteren), 0, has_s, NULL, counteren_write,    \
      "counters that user mode may read")                                                      \
    X(0x10a, 0x10a, senvcfg, ANY, 0, F(senvcfg), 0, senvcfg_ok, NULL, senvcfg_write,       \
      "user mode's environment: fences of I/O imply memory, cache blocks, pointer masking")    \
    X(0x10c, 0x10f, sstateen, ANY, PLAIN, 0, 0, sstateen_ok, zero_read, ignore_write,          \
      "extension state that user mode may use: all there is (Smstateen)")                      \
    X(0x140, 0x140, sscratch, ANY, PLAIN, F(sscratch), ALL, has_s, NULL, NULL,                 \
      "scratch of the supervisor's trap handler")                                              \
    X(0x141, 0x141, sepc, ANY, PLAIN, F(sepc), ALL, has_s, NULL, epc_write,                    \
      "pc of the last supervisor trap")                                                        \
    X(0x142, 0x142, scause, ANY, PLAIN, F(scause), ALL, has_s, NULL, NULL,                     \
      "cause of the last supervisor trap")                                                     \
    X(0x143, 0x143, stval, ANY, PLAIN, F(stval), ALL, has_s, NULL, NULL,                       \
      "address or instruction of the last supervisor trap")                                    \
    X(0x144, 0x144, sip, ANY, 0, 0, 0, has_s, sip_read, sip_write,                             \
      "pending interrupts among those delegated")                                              \
    X(0x14d, 0x14d, stimecmp, ANY, PLAIN, F(stimecmp), ALL, stimecmp_ok, NULL, stimecmp_write, \
      "the supervisor timer fires when time reaches it (Sstc)")                                \
    X(0x15d, 0x15d, stimecmph, RV32, PLAIN | HIGH, F(stimecmp), ALL, stimecmp_ok, NULL,        \
      stimecmp_write, "upper half of stimecmp")                                                \
    X(0x180, 0x180, satp, ANY, 0, F(satp), ALL, satp_ok, NULL, satp_write,                     \
      "address translation: scheme, ASID, root page table")                                    \
    X(0x300, 0x300, mstatus, ANY, 0, 0, 0, NULL, mstatus_read, mstatus_write,                  \
      "privilege stack, interrupt enables, memory privilege, extension state")                 \
    X(0x301, 0x301, misa, ANY, PLAIN, 0, 0, NULL, misa_read, ignore_write,                     \
      "base width and extensions, fixed")                                                      \
    X(0x302, 0x302, medeleg, ANY, PLAIN, F(medeleg), MEDELEG_WRITABLE, has_s, NULL, NULL,      \
      "exceptions delegated to the supervisor")                                                \
    X(0x303, 0x303, mideleg, ANY, 0, F(mideleg), RV_IRQ_S, has_s, NULL, mideleg_write,         \
      "interrupts delegated to the supervisor")                                                \
    X(0x304, 0x304, mie, ANY, 0, F(mie), 0, NULL, NULL, mie_write, "enabled interrupts")       \
    X(0x305, 0x305, mtvec, ANY, PLAIN, F(mtvec), ALL, NULL, NULL, tvec_write,                  \
      "machine trap vector and its mode")                                                      \
    X(0x306, 0x306, mcounteren, ANY, PLAIN, F(mcounteren), 0, has_u, NULL, counteren_write,    \
      "counters that lower privileges may read")                                               \
    X(0x30a, 0x30a, menvcfg, ANY, 0, F(menvcfg), 0, has_u, NULL, menvcfg_write,                \
      "environment of lower privileges: FIOM, CBIE, CBCFE, CBZE, PMM, PBMTE, ADUE, STCE")                                    \
    X(0x30c, 0x30f, mstateen, ANY, PLAIN, 0, 0, has_stateen, mstateen_read, mstateen_write,    \
      "extension state that lower privileges may use: SE0, ENVCFG (Smstateen)")                \
    X(0x31c, 0x31f, mstateenh, RV32, PLAIN | HIGH, 0, 0, has_stateen, mstateen_read,           \
      mstateen_write, "upper halves of mstateen")                                              \
    X(0x310, 0x310, mstatush, RV32, HIGH, 0, 0, NULL, zero_read, ignore_write,                 \
      "byte orders: little-endian, fixed")                                                     \
    X(0x31a, 0x31a, menvcfgh, RV32, HIGH, F(menvcfg), 0, has_u, NULL, menvcfg_write,           \
      "upper half of menvcfg")                                                                 \
    X(0x320, 0x320, mcountinhibit, ANY, PLAIN, F(mcountinhibit), 0, NULL, NULL,                \
      mcountinhibit_write, "stops cycle or instret")                                           \
    X(0x323, 0x33f, mhpmevent, ANY, 0, 0, 0, NULL, hpmevent_read, hpmevent_write,              \
      "event selectors: 0 none, 1 cycles, 2 instructions; overflow and filter (Sscofpmf)")     \
    X(0x723, 0x73f, mhpmeventh, RV32, HIGH, 0, 0, has_overflow, hpmevent_read, hpmevent_write, \
      "upper halves of the event selectors")                                                   \
    X(0x747, 0x747, mseccfg, ANY, PLAIN, F(mseccfg), 0, has_zkr, NULL, mseccfg_write,          \
      "machine security: SSEED, USEED")                                                        \
    X(0x757, 0x757, mseccfgh, RV32, PLAIN | HIGH, F(mseccfg), 0, has_zkr, NULL, mseccfg_write, \
      "upper half of mseccfg")                                                                 \
    X(0x015, 0x015, seed, ANY, PLAIN, 0, 0, seed_ok, seed_read, ignore_write,                  \
      "entropy source; must be written to be read (Zkr)")                                      \
    X(0x340, 0x340, mscratch, ANY, PLAIN, F(mscratch), ALL, NULL, NULL, NULL,                  \
      "scratch of the machine's trap handler")                                                 \
    X(0x341, 0x341, mepc, ANY, PLAIN, F(mepc), ALL, NULL, NULL, epc_write,                     \
      "pc of the last machine trap")                                                           \
    X(0x342, 0x342, mcause, ANY, PLAIN, F(mcause), ALL, NULL, NULL, NULL,                      \
      "cause of the last machine trap")                                                        \
    X(0x343, 0x343, mtval, ANY, PLAIN, F(mtval), ALL, NULL, NULL, NULL,                        \
      "address or instruction of the last machine trap")                                       \
    X(0x344, 0x344, mip, ANY, 0, 0, 0, NULL, mip_read, mip_write, "pending interrupts")        \
    X(0x3a0, 0x3a3, pmpcfg, ANY, 0, 0, 0, pmpcfg_ok, pmpcfg_read, pmpcfg_write,                \
      "permissions and matching of the memory protection regions")                             \
    X(0x3b0, 0x3bf, pmpaddr, ANY, 0, 0, 0, NULL, pmpaddr_read, pmpaddr_write,                  \
      "addresses of the memory protection regions")                                            \
    X(0x7a0, 0x7a0, tselect, ANY, PLAIN, 0, 0, NULL, zero_read, ignore_write,                  \
      "debug triggers: none, which software finds by reading back")                            \
    X(0x7a1, 0x7a3, tdata, ANY, PLAIN, 0, 0, NULL, zero_read, ignore_write,                    \
      "the selected trigger: type 0, there is none")                                           \
    X(0xb00, 0xb00, mcycle, ANY, PLAIN, 0, 0, NULL, counter_read, counter_write,               \
      "cycles: nanoseconds of virtual time")                                                   \
    X(0xb02, 0xb02, minstret, ANY, PLAIN, 0, 0, NULL, counter_read, counter_write,             \
      "instructions retired, estimated as one a cycle")                                        \
    X(0xb03, 0xb1f, mhpmcounter, ANY, 0, 0, 0, NULL, hpmcounter_read, hpmcounter_write,        \
      "event counters")                                                                        \
    X(0xb80, 0xb80, mcycleh, RV32, PLAIN | HIGH, 0, 0, NULL, counter_read, counter_write,      \
      "upper half of mcycle")                                                                  \
    X(0xb82, 0xb82, minstreth, RV32, PLAIN | HIGH, 0, 0, NULL, counter_read, counter_write,    \
      "upper half of minstret")                                                                \
    X(0xb83, 0xb9f, mhpmcounterh, RV32, HIGH, 0, 0, NULL, hpmcounter_read, hpmcounter_write,   \
      "upper halves of the event counters")                                                    \
    X(0xc00, 0xc00, cycle, ANY, 0, 0, 0, counter_ok, counter_read, NULL, "mcycle, readable")   \
    X(0xc01, 0xc01, time, ANY, 0, 0, 0, counter_ok, time_read, NULL,                           \
      "wall clock of the machine, in ticks of the timebase")                                   \
    X(0xc02, 0xc02, instret, ANY, 0, 0, 0, counter_ok, counter_read, NULL,                     \
      "minstret, readable")                                                                    \
    X(0xc03, 0xc1f, hpmcounter, ANY, 0, 0, 0, hpmcounter_ok, hpmcounter_read, NULL,            \
      "event counters, readable")                                                              \
    X(0xc20, 0xc22, vl_vtype_vlenb, ANY, 0, 0, 0, vector_on, vector_read, NULL,                \
      "vector length, type, and bytes of a vector register")                                   \
    X(0xc80, 0xc80, cycleh, RV32, HIGH, 0, 0, counter_ok, counter_read, NULL,                  \
      "upper half of cycle")                                                                   \
    X(0xc81, 0xc81, timeh, RV32, HIGH, 0, 0, counter_ok, time_read, NULL,                      \
      "upper half of time")                                                                    \
    X(0xc82, 0xc82, instreth, RV32, HIGH, 0, 0, counter_ok, counter_read, NULL,                \
      "upper half of instret")                                                                 \
    X(0xc83, 0xc9f, hpmcounterh, RV32, HIGH, 0, 0, hpmcounter_ok, hpmcounter_read, NULL,       \
      "upper halves of the event counters")                                                    \
    X(0xda0, 0xda0, scountovf, ANY, 0, 0, 0, scountovf_ok, scountovf_read, NULL,               \
      "which event counters overflowed (Sscofpmf)")                                            \
    X(0xf11, 0xf13, mvendorid, ANY, 0, 0, 0, NULL, zero_read, NULL,                            \
      "vendor, architecture and implementation: not stated")                                   \
    X(0xf14, 0xf14, mhartid, ANY, 0, 0, 0, NULL, mhartid_read, NULL, "number of this hart")    \
    X(0xf15, 0xf15, mconfigptr, ANY, 0, 0, 0, NULL, zero_read, NULL,                           \
      "configuration data structure: none")

enum csr_row {
    ROW_NONE,
#define CSR_ENUM(first, last, name, ...) ROW_##name,
    CSR_TABLE(CSR_ENUM)
#undef CSR_ENUM
        ROW_COUNT
};

static const struct csr csr_rows[ROW_COUNT] = {
#define CSR_ROW(first, last, name_, xlens_, flags_, field_, mask_, allowed_, read_, write_,    \
                doc_)                                                                          \
    [ROW_##name_] = { .name = #name_,                                                          \
                      .doc = doc_,                                                             \
                      .xlens = xlens_,                                                         \
                      .flags = flags_,                                                         \
                      .field = field_,                                                         \
                      .mask = mask_,                                                           \
                      .allowed = allowed_,                                                     \
                      .read = read_,                                                           \
                      .write = write_ },
    CSR_TABLE(CSR_ROW)
#undef CSR_ROW
};

static const uint8_t csr_index[4096] = {
#define CSR_INDEX(first, last, name, ...) [first... last] = ROW_##name,
    CSR_TABLE(CSR_INDEX)
#undef CSR_INDEX
};

/* The row of a register that this hart has and its privilege may access, or NULL. */
static const struct csr *csr_find(const struct riscv_cpu *c, unsigned n)
{
    const struct csr *row = &csr_rows[csr_index[n & 0xfff]];

    if (!row->name || c->priv < (n >> 8 & 3) ||
        !(row->xlens & (c->xlen == 64 ? RISCV_RV64 : RISCV_RV32))) {
        return NULL;
    }
    return row->allowed && !row->allowed(c, n) ? NULL : row;
}

static uint64_t *csr_field(struct riscv_cpu *c, const struct csr *row)
{
    return (uint64_t *)(void *)((uint8_t *)c + row->field);
}

static uint64_t csr_whole(struct riscv_cpu *c, const struct csr *row, unsigned n)
{
    return row->read ? row->read(c, n) : *csr_field(c, row);
}

/* What an x register gets of the whole register. */
static uint64_t csr_window(const struct riscv_cpu *c, const struct csr *row, uint64_t whole)
{
    if (c->xlen == 64) {
        return whole;
    }
    return (uint64_t)(int64_t)(int32_t)(whole >> (row->flags & CSR_HIGH ? 32 : 0));
}

enum { CSR_SEED = 0x015 };

bool riscv_csr_get(struct riscv_cpu *c, unsigned n, uint64_t *value)
{
    const struct csr *row = csr_find(c, n);

    if (!row || n == CSR_SEED) { /* seed: reading alone is illegal */
        return false;
    }
    *value = csr_window(c, row, csr_whole(c, row, n));
    return true;
}

bool riscv_csr_put(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask,
                   uint64_t *old)
{
    const struct csr *row = csr_find(c, n);

    if (!row || n >> 10 == 3) {
        return false;
    }
    uint64_t whole = csr_whole(c, row, n);
    if (old) {
        *old = csr_window(c, row, whole);
    }
    if (c->xlen == 32) {
        unsigned shift = row->flags & CSR_HIGH ? 32 : 0;
        value = (value & UINT32_MAX) << shift;
        mask = (mask & UINT32_MAX) << shift;
    }
    value = (whole & ~mask) | (value & mask);
    if (row->write) {
        row->write(c, n, value, mask);
    } else {
        *csr_field(c, row) = (whole & ~row->mask) | (value & row->mask);
    }
    return true;
}

bool riscv_csr_is_plain(unsigned csr)
{
    return csr_rows[csr_index[csr & 0xfff]].flags & CSR_PLAIN;
}
