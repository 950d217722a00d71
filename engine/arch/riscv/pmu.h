/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event counters of a hart (Zihpm, Sscofpmf 1.0): mhpmcounter3 to 31, their events, overflow and its interrupt.
 *
 * Counters are brought up to date when somebody looks or something changes, never while code runs: sync first, change what is to
 * change, then update. The owner thread, or the main thread with the vCPU paused.
 */
#ifndef VMD_ARCH_RISCV_PMU_H
#define VMD_ARCH_RISCV_PMU_H

#include <stdbool.h>
#include <stdint.h>

struct riscv_cpu;

/* Event numbers: those of the SBI's general hardware events. */
enum { RISCV_EVENT_CYCLES = 1, RISCV_EVENT_INSTRET = 2 };

/* mhpmevent */
#define HPMEVENT_OF (1ull << 63)   /* the counter overflowed; no interrupt until cleared */
#define HPMEVENT_MINH (1ull << 62) /* does not count in machine mode */
#define HPMEVENT_SINH (1ull << 61)
#define HPMEVENT_UINH (1ull << 60)
#define HPMEVENT_SELECT 0xffull

/* Counters that exist: bits of mcountinhibit, mcounteren and scountovf. */
#define RISCV_HPM_MASK 0xfffffff8u

void riscv_pmu_init(struct riscv_cpu *c);
void riscv_pmu_done(struct riscv_cpu *c);
/* Adds what was counted since the last sync or update; `retired` is the number of retired instructions, or the virtual
 * time in ns where they are not counted. Overflows raise LCOFI. */
void riscv_pmu_sync(struct riscv_cpu *c, uint64_t retired);
/* Privilege, events, counters or mcountinhibit changed: counts from now by the new rules. */
void riscv_pmu_update(struct riscv_cpu *c, uint64_t retired);
/* After a state was loaded. */
void riscv_pmu_loaded(struct riscv_cpu *c);
/* LCOFIP of mip, written by software. */
void riscv_pmu_pending(struct riscv_cpu *c, bool pending);

#endif
