/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Architectural state of a RISC-V hart (Unprivileged 20191213, Privileged 1.12): what every
 * engine fills. RV32 uses the same struct: x registers are kept sign-extended to 64 bits, pc
 * zero-extended, xlen says which. Belongs to the vCPU's thread; see engine/core/vcpu.h.
 */
#ifndef VMD_ARCH_RISCV_CPU_H
#define VMD_ARCH_RISCV_CPU_H

#include "engine/arch/riscv/features.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RISCV_TIMEBASE_HZ 10000000u /* rv-virt: 10 MHz */
#define RISCV_PMP_COUNT 16
#define RISCV_VLENB_MAX 128 /* VLEN of at most 1024 bits */

enum riscv_priv { RISCV_U = 0, RISCV_S = 1, RISCV_M = 3 };

/* Interrupt inputs (bits of vcpu->irq_level and of mip). */
enum {
    RISCV_IRQ_SSI = 1,
    RISCV_IRQ_MSI = 3,
    RISCV_IRQ_STI = 5,
    RISCV_IRQ_MTI = 7,
    RISCV_IRQ_SEI = 9,
    RISCV_IRQ_MEI = 11,
    RISCV_IRQ_LCOFI = 13 /* Sscofpmf: an event counter overflowed */
};

struct vtimer;
struct vcpu;
struct vm;

struct riscv_cpu {
    uint64_t x[32]; /* x[0] is always 0 */
    uint64_t f[32]; /* raw bits, NaN-boxed singles */
    /* vector register n is the vlenb bytes at v + n * vlenb: groups are contiguous */
    _Alignas(64) uint8_t v[32 * RISCV_VLENB_MAX];
    uint64_t pc;
    /* LR reservation: guest virtual address (UINT64_MAX: none) and value loaded */
    uint64_t res_addr, res_value;

    uint8_t fflags, frm;
    uint8_t priv; /* enum riscv_priv */
    uint8_t xlen; /* 32 or 64 */

    uint64_t mstatus; /* includes SXL/UXL; RV32 mstatush is bits 63:32 */
    uint64_t misa, medeleg, mideleg, mie, mtvec, mcounteren, mscratch, mepc, mcause, mtval;
    /* software-writable bits only (SSIP, and STIP when Sstc is off, SEIP's latch); inputs
     * come by vcpu->irq_level */
    uint64_t mip;
    uint64_t menvcfg, mcountinhibit;
    uint64_t stvec, scounteren, sscratch, sepc, scause, stval, satp, senvcfg, stimecmp;
    uint8_t pmpcfg[RISCV_PMP_COUNT];
    uint64_t pmpaddr[RISCV_PMP_COUNT];
    /* written counters: value minus virtual clock base */
    uint64_t cycle_offset, instret_offset;
    /* event counters (pmu.h), by number: 3 to 31 */
    uint64_t hpmevent[32], hpmcounter[32];
    uint64_t hpm_cycle_base, hpm_instret_base; /* when the active ones were up to date */
    uint64_t mstateen[4];                      /* Smstateen */
    uint64_t mseccfg;                          /* Zkr */
    uint64_t vstart, vl, vtype;                /* vill is bit 63 of vtype, of RV32 too */
    uint8_t vxrm, vxsat;

    /* Not architectural, not saved: set by cpu_init. */
    struct vcpu *vcpu;
    uint64_t hartid;
    struct riscv_features features;
    uint64_t decode[2]; /* the translator's: which instructions there are; 0: not worked out */
    uint64_t zeros[8];  /* always 0: what cbo.zero stores */
    uint32_t vkey;      /* summary of vtype, vl, vstart and mstatus.VS (vector.h) */
    uint16_t vlenb;   /* bytes of a vector register, 16 to RISCV_VLENB_MAX; 0 without vectors */
    uint8_t velen;    /* log2 of the bytes of the widest vector element: 2 or 3 */
    uint8_t pmp_used; /* number of the highest active entry + 1, derived */
    /* GiB of virtual space (va >> 30) where the translator cached parts of superpages; */
    uint8_t n_superpages;
    uint64_t superpages[8]; /* more than 8: anywhere */
    uint32_t hpm_active;    /* event counters that count in this privilege */
    bool hpm_by_mode;       /* ... and in another one others */
    struct vtimer *hpm_timer;
    _Atomic uint64_t hpm_overflow_at; /* what it was set to */
    struct vtimer *stimer;            /* stimecmp */
    /* what the timer compares with: stimecmp, UINT64_MAX while menvcfg.STCE is 0 */
    _Atomic uint64_t stimer_at;
    /* mtime minus virtual time, in ticks: what the guest made of mtime (the board's timer owns and
     * saves it) */
    _Atomic uint64_t time_offset;
};

/* satp, mstatus bits used by more than one room. */
#define MSTATUS_SIE (1ull << 1)
#define MSTATUS_MIE (1ull << 3)
#define MSTATUS_SPIE (1ull << 5)
#define MSTATUS_UBE (1ull << 6)
#define MSTATUS_MPIE (1ull << 7)
#define MSTATUS_SPP (1ull << 8)
#define MSTATUS_VS (3ull << 9)
#define MSTATUS_MPP (3ull << 11)
#define MSTATUS_FS (3ull << 13)
#define MSTATUS_XS (3ull << 15)
#define MSTATUS_MPRV (1ull << 17)
#define MSTATUS_SUM (1ull << 18)
#define MSTATUS_MXR (1ull << 19)
#define MSTATUS_TVM (1ull << 20)
#define MSTATUS_TW (1ull << 21)
#define MSTATUS_TSR (1ull << 22)

#define MENVCFG_FIOM (1ull << 0)
#define MENVCFG_CBIE (3ull << 4)   /* Zicbom, here and in senvcfg: cbo.inval */
#define MENVCFG_CBCFE (1ull << 6)  /* ... cbo.clean, cbo.flush */
#define MENVCFG_CBZE (1ull << 7)   /* Zicboz, here and in senvcfg: cbo.zero */
#define MENVCFG_PMM (3ull << 32)   /* Smnpm, Ssnpm: pointer masking of the next privilege */
#define MENVCFG_PMM_7 (2ull << 32) /* ... of 7 bits; 3: of 16 */
#define MENVCFG_PBMTE (1ull << 62) /* Svpbmt: entries have memory types */
#define MENVCFG_ADUE (1ull << 61)  /* Svadu: hardware updates of A and D */
#define MENVCFG_STCE (1ull << 63)  /* Sstc: stimecmp works */

struct arch_ops;
extern const struct arch_ops riscv64_arch, riscv32_arch;

/* Effective mip: software bits or inputs. While menvcfg.STCE is set STIP is the timer's
 * input alone, else the software bit alone. Owner thread, or holding vcpu->lock. */
uint64_t riscv_mip(const struct riscv_cpu *c);
/* The hart's `time`, which is the board's mtime, in timebase ticks. Any thread. */
uint64_t riscv_time(const struct vcpu *v);
/* mtime was written: from now on it is virtual time in ticks plus this, for every hart. Any thread. */
void riscv_time_set_offset(struct vm *vm, uint64_t ticks);
/* New stimecmp value or new menvcfg.STCE: arms the timer, updates STIP. Owner thread, or
 * main thread with the vCPU paused. */
void riscv_stimecmp_changed(struct riscv_cpu *c);

#endif
