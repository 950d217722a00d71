/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the system half of the RISC-V guest (csr, trap, mmu, pmp, helper) shares among its files. All on the vCPU's
 * own thread.
 */
#ifndef VMD_TCG_GUEST_RISCV_SYS_H
#define VMD_TCG_GUEST_RISCV_SYS_H

#include "engine/arch/riscv/cpu.h"
#include "engine/arch/riscv/features.h"
#include "engine/tcg/guest.h"

/* tcg_mode.mmu: privileges of fetches and of data (they differ under mstatus.MPRV), SUM and MXR. */
enum {
    RV_MMU_FETCH_PRIV = 3 << 0,
    RV_MMU_DATA_SHIFT = 2,
    RV_MMU_DATA_PRIV = 3 << RV_MMU_DATA_SHIFT,
    RV_MMU_SUM = 1 << 4,
    RV_MMU_MXR = 1 << 5,
    RV_MMU_SCHEME_SHIFT = 8, /* satp.MODE, where data accesses are translated */
};

#define RV_IRQ_S ((1ull << RISCV_IRQ_SSI) | (1ull << RISCV_IRQ_STI) | (1ull << RISCV_IRQ_SEI))
#define RV_IRQ_M ((1ull << RISCV_IRQ_MSI) | (1ull << RISCV_IRQ_MTI) | (1ull << RISCV_IRQ_MEI))

#define RV_IRQ_LCOFI (1ull << RISCV_IRQ_LCOFI)

/* Interrupts of the supervisor that this hart has. */
static inline uint64_t riscv_irq_s(const struct riscv_cpu *c)
{
    return !RISCV_HAS(c->features, RISCV_EXT_S)          ? 0
           : RISCV_HAS(c->features, RISCV_EXT_SSCOFPMF) ? RV_IRQ_S | RV_IRQ_LCOFI
                                                         : RV_IRQ_S;
}

/* Event counters: riscv_pmu_sync() and riscv_pmu_update() with this engine's count of instructions. csr.c */
void riscv_hpm_sync(struct riscv_cpu *c);
void riscv_hpm_update(struct riscv_cpu *c);
/* The privilege becomes `priv`, seen by counters that do not count in every mode. */
static inline void riscv_set_priv(struct riscv_cpu *c, unsigned priv)
{
    if (c->hpm_by_mode && priv != c->priv) {
        riscv_hpm_sync(c);
        c->priv = (uint8_t)priv;
        riscv_hpm_update(c);
    }
    c->priv = (uint8_t)priv;
}

/* Address translation scheme and ASID as in satp, in the low bits: the tag of a translation. 0 when
 * nothing is translated. */
static inline uint64_t riscv_satp_tag(const struct riscv_cpu *c)
{
    return c->xlen == 64 ? c->satp >> 44 : c->satp >> 22;
}
enum { RV_ASID_BITS_RV64 = 16, RV_ASID_BITS_RV32 = 9 };
#define RV_SATP_PPN_RV64 ((1ull << 44) - 1)
#define RV_SATP_PPN_RV32 ((1ull << 22) - 1)

/* satp.MODE values. */
enum {
    RV_SATP_BARE = 0,
    RV_SATP_SV32 = 1,
    RV_SATP_SV39 = 8,
    RV_SATP_SV48 = 9,
    RV_SATP_SV57 = 10
};
bool riscv_satp_mode_ok(const struct riscv_cpu *c, unsigned mode); /* mmu.c */

/* Physical memory protection (Privileged 1.12 §3.7). pmp.c */
enum { RV_PMP_R = 1, RV_PMP_W = 2, RV_PMP_X = 4, RV_PMP_A = 3 << 3, RV_PMP_L = 1 << 7 };
/* What privilege `priv` may do at the four bytes at gpa: TCG_PROT_* bits. *whole is cleared when
 * that does not hold for the whole 4 KiB page around it. */
unsigned riscv_pmp_allows(const struct riscv_cpu *c, uint64_t gpa, unsigned priv, bool *whole);
/* CSR access; n is the CSR's offset from pmpcfg0 or pmpaddr0. Locked fields stay as they are. A change
 * drops cached translations. */
uint64_t riscv_pmpcfg_read(const struct riscv_cpu *c, unsigned n);
void riscv_pmpcfg_write(struct riscv_cpu *c, unsigned n, uint64_t value);
void riscv_pmpaddr_write(struct riscv_cpu *c, unsigned n, uint64_t value);

/* Superpages are cached 4 KiB at a time; sfence.vma of an address in one must drop all of it. These
 * note where superpages were used and answer whether `va` may lie in one. mmu.c */
bool riscv_superpage_near(const struct riscv_cpu *c, uint64_t va);
void riscv_superpage_forget(struct riscv_cpu *c);

/* CSR access as an instruction does it, after the privilege check. False: no such access; nothing
 * changed. csr.c */
bool riscv_csr_get(struct riscv_cpu *c, unsigned n, uint64_t *value);
/* Replaces the bits in `mask`; old may be NULL (not read). */
bool riscv_csr_put(struct riscv_cpu *c, unsigned n, uint64_t value, uint64_t mask,
                   uint64_t *old);

/* Interrupts that would be taken now, or 0. trap.c */
uint64_t riscv_interrupts_ready(const struct riscv_cpu *c);
/* May the current privilege (below M) use cbo.zero? */
bool riscv_cbo_zero_ok(const struct riscv_cpu *c);

#endif
