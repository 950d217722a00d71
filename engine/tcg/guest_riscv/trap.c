/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traps and privilege: delivery of exceptions and interrupts (Privileged 1.12 §3.1.6 to §3.1.9, §4.1), the returns
 * from them, and the translation mode that follows from privilege and mstatus. Runs on the vCPU's own thread.
 */
#include "engine/arch/riscv/vector.h"
#include "engine/base/buf.h"
#include "engine/tcg/guest_riscv/helper.h"
#include "engine/tcg/guest_riscv/sys.h"

/* Pointer masking of data accesses at this privilege (Smnpm, Ssnpm 1.0). Off where execute-only pages are readable. */
static uint32_t pointer_masking(const struct riscv_cpu *c, unsigned priv)
{
    bool by_s = priv == RISCV_U && RISCV_HAS(c->features, RISCV_EXT_S);
    uint64_t pmm = (by_s ? c->senvcfg : c->menvcfg) & MENVCFG_PMM;
    uint32_t code;

    if (priv == RISCV_M || !pmm || (c->mstatus & MSTATUS_MXR)) {
        return 0;
    }
    code = pmm == MENVCFG_PMM_7 ? RV_CODE_PM_7 : RV_CODE_PM_16;
    return code | (riscv_satp_tag(c) >> RV_ASID_BITS_RV64 ? RV_CODE_PM_SIGNED : 0u);
}

struct tcg_mode riscv_tcg_mode(void *cpu)
{
    const struct riscv_cpu *c = cpu;
    uint32_t data_priv = c->priv;
    uint32_t frm = c->frm < 5 ? c->frm : 5;
    struct tcg_mode m = { 0 };

    if (c->priv == RISCV_M && (c->mstatus & MSTATUS_MPRV)) {
        data_priv = (uint32_t)((c->mstatus & MSTATUS_MPP) >> 11);
    }
    m.code = c->priv | (c->xlen == 32 ? RV_CODE_RV32 : 0u);
    if (c->priv == RISCV_U) {
        m.code |= (c->mstatus & MSTATUS_FS ? 0u : RV_CODE_FS_OFF) | frm << RV_CODE_FRM_SHIFT;
        m.code |= c->mstatus & MSTATUS_VS ? 0u : RV_CODE_VS_OFF;
    } else {
        m.code |= RV_CODE_FP_ASK;
    }
    m.code |= pointer_masking(c, data_priv);
    m.code |= c->priv != RISCV_M && riscv_cbo_zero_ok(c) ? RV_CODE_CBZ : 0u;
    m.mmu = c->priv | data_priv << RV_MMU_DATA_SHIFT;
    if (data_priv != RISCV_M) {
        /* Nothing of this matters to an untranslated access. */
        m.mmu |= c->mstatus & MSTATUS_SUM ? RV_MMU_SUM : 0u;
        m.mmu |= c->mstatus & MSTATUS_MXR ? RV_MMU_MXR : 0u;
        m.asid = riscv_satp_tag(c);
        /* Global pages are shared between tables of one scheme only. */
        m.mmu |= (uint32_t)(c->xlen == 32 ? c->satp >> 31 & 1 : c->satp >> 60)
                 << RV_MMU_SCHEME_SHIFT;
        m.shared = data_priv == RISCV_S && !(c->mstatus & MSTATUS_SUM);
    }
    return m;
}

/* ---- delivery ---- */

struct trap {
    uint64_t cause; /* without the interrupt bit */
    bool interrupt;
    uint64_t tval;
};

static uint64_t trap_cause(const struct riscv_cpu *c, const struct trap *t)
{
    return t->cause | (t->interrupt ? 1ull << (c->xlen - 1) : 0);
}

static uint64_t vector(const struct riscv_cpu *c, uint64_t tvec, const struct trap *t)
{
    uint64_t base = tvec & ~3ull;

    if ((tvec & 1) && t->interrupt) {
        base += 4 * t->cause;
    }
    return c->xlen == 32 ? base & UINT32_MAX : base;
}

static void enter_s(struct riscv_cpu *c, const struct trap *t)
{
    uint64_t s = c->mstatus & ~(MSTATUS_SPIE | MSTATUS_SIE | MSTATUS_SPP);

    s |= c->mstatus & MSTATUS_SIE ? MSTATUS_SPIE : 0;
    s |= c->priv == RISCV_S ? MSTATUS_SPP : 0;
    c->mstatus = s;
    c->scause = trap_cause(c, t);
    c->sepc = c->pc;
    c->stval = t->tval;
    c->pc = vector(c, c->stvec, t);
    riscv_set_priv(c, RISCV_S);
}

static void enter_m(struct riscv_cpu *c, const struct trap *t)
{
    uint64_t s = c->mstatus & ~(MSTATUS_MPIE | MSTATUS_MIE | MSTATUS_MPP);

    s |= c->mstatus & MSTATUS_MIE ? MSTATUS_MPIE : 0;
    s |= (uint64_t)c->priv << 11;
    c->mstatus = s;
    c->mcause = trap_cause(c, t);
    c->mepc = c->pc;
    c->mtval = t->tval;
    c->pc = vector(c, c->mtvec, t);
    riscv_set_priv(c, RISCV_M);
}

static void trap(struct riscv_cpu *c, const struct trap *t)
{
    uint64_t delegated = t->interrupt ? c->mideleg : c->medeleg;

    if (c->priv != RISCV_M && (delegated >> t->cause & 1)) {
        enter_s(c, t);
    } else {
        enter_m(c, t);
    }
    c->res_addr = UINT64_MAX;
    if (c->vstart) { /* of a vector instruction that did not end */
        riscv_vkey_update(c);
    }
    tcg_mode_changed(c);
}

void riscv_tcg_exception(void *cpu, uint32_t cause, uint64_t tval)
{
    struct trap t = { .cause = cause & 63, .tval = tval };
    trap(cpu, &t);
}

uint64_t riscv_interrupts_ready(const struct riscv_cpu *c)
{
    uint64_t pending = riscv_mip(c) & c->mie;
    uint64_t machine = pending & ~c->mideleg;
    uint64_t supervisor = pending & c->mideleg;

    if (machine && (c->priv < RISCV_M || (c->mstatus & MSTATUS_MIE))) {
        return machine;
    }
    if (supervisor &&
        (c->priv < RISCV_S || (c->priv == RISCV_S && (c->mstatus & MSTATUS_SIE)))) {
        return supervisor;
    }
    return 0;
}

bool riscv_tcg_interrupt(void *cpu)
{
    static const uint8_t priority[] = { RISCV_IRQ_MEI, RISCV_IRQ_MSI, RISCV_IRQ_MTI,
                                        RISCV_IRQ_SEI, RISCV_IRQ_SSI, RISCV_IRQ_STI,
                                        RISCV_IRQ_LCOFI };
    struct riscv_cpu *c = cpu;
    uint64_t ready = riscv_interrupts_ready(c);

    for (unsigned i = 0; ready && i < sizeof(priority); i++) {
        if (ready >> priority[i] & 1) {
            struct trap t = { .cause = priority[i], .interrupt = true };
            trap(c, &t);
            return true;
        }
    }
    return false;
}

/* ---- returns ---- */

static void raise_illegal(struct riscv_cpu *c, uint64_t insn)
{
    tcg_raise(c, RISCV_CAUSE_ILLEGAL, insn);
}

/* The address in xepc as instructions may be aligned now. */
static uint64_t return_pc(const struct riscv_cpu *c, uint64_t epc)
{
    return RISCV_HAS(c->features, RISCV_EXT_C) ? epc & ~1ull : epc & ~3ull;
}

static void return_to(struct riscv_cpu *c, unsigned priv, uint64_t epc)
{
    if (priv != RISCV_M) {
        c->mstatus &= ~MSTATUS_MPRV;
    }
    riscv_set_priv(c, priv);
    c->pc = return_pc(c, epc);
    tcg_mode_changed(c);
    if (riscv_interrupts_ready(c)) {
        tcg_interrupt_check(c);
    }
}

uint64_t riscv_mret(void *cpu, uint64_t insn, uint64_t b, uint64_t d)
{
    struct riscv_cpu *c = cpu;
    unsigned priv = (unsigned)((c->mstatus & MSTATUS_MPP) >> 11);
    uint64_t s = c->mstatus & ~(MSTATUS_MIE | MSTATUS_MPP);

    (void)b;
    (void)d;
    if (c->priv != RISCV_M) {
        raise_illegal(c, insn);
    }
    s |= c->mstatus & MSTATUS_MPIE ? MSTATUS_MIE : 0;
    s |= RISCV_HAS(c->features, RISCV_EXT_U) ? 0 : MSTATUS_MPP;
    c->mstatus = s | MSTATUS_MPIE;
    return_to(c, priv, c->mepc);
    return 0;
}

uint64_t riscv_sret(void *cpu, uint64_t insn, uint64_t b, uint64_t d)
{
    struct riscv_cpu *c = cpu;
    uint64_t s = c->mstatus & ~(MSTATUS_SIE | MSTATUS_SPP);
    bool from_s = c->mstatus & MSTATUS_SPP;

    (void)b;
    (void)d;
    if (c->priv < RISCV_S || (c->priv == RISCV_S && (c->mstatus & MSTATUS_TSR)) ||
        !RISCV_HAS(c->features, RISCV_EXT_S)) {
        raise_illegal(c, insn);
    }
    s |= c->mstatus & MSTATUS_SPIE ? MSTATUS_SIE : 0;
    c->mstatus = s | MSTATUS_SPIE;
    return_to(c, from_s ? RISCV_S : RISCV_U, c->sepc);
    return 0;
}

/* ---- logs ---- */

void riscv_tcg_dump(void *cpu, struct buf *b)
{
    static const char *const names[32] = { "zero", "ra", "sp",  "gp",  "tp", "t0", "t1", "t2",
                                           "s0",   "s1", "a0",  "a1",  "a2", "a3", "a4", "a5",
                                           "a6",   "a7", "s2",  "s3",  "s4", "s5", "s6", "s7",
                                           "s8",   "s9", "s10", "s11", "t3", "t4", "t5", "t6" };
    const struct riscv_cpu *c = cpu;

    buf_printf(b, " pc %016llx priv %u mstatus %016llx satp %016llx\n",
               (unsigned long long)c->pc, c->priv, (unsigned long long)c->mstatus,
               (unsigned long long)c->satp);
    for (unsigned i = 0; i < 32; i++) {
        buf_printf(b, " %-4s %016llx%s", names[i], (unsigned long long)c->x[i],
                   i % 4 == 3 ? "\n" : "");
    }
    buf_printf(
        b, " mcause %llx mepc %016llx mtval %016llx scause %llx sepc %016llx stval %016llx\n",
        (unsigned long long)c->mcause, (unsigned long long)c->mepc,
        (unsigned long long)c->mtval, (unsigned long long)c->scause,
        (unsigned long long)c->sepc, (unsigned long long)c->stval);
}
