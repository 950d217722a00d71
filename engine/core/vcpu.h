/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual CPU: one host thread that calls the engine's run(), sleeps in WFI, and stops at the pause barrier.
 */
#ifndef VMD_CORE_VCPU_H
#define VMD_CORE_VCPU_H

#include "engine/core/engine.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct vm;

/* `lock` protects the flags below it; irq_level is atomic; cpu and engine_data belong to the vCPU's thread while it
 * runs, to the main thread while it is paused. */
struct vcpu {
    struct vm *vm;
    unsigned index;             /* 0 .. vm->n_vcpus - 1; hart id on riscv */
    void *cpu;                  /* architectural state (engine/arch/X/cpu.h), storage owned by the engine */
    void *engine_data;
    _Atomic uint64_t irq_level; /* interrupt inputs driven by irqchips and timers, by architecture-defined bit */

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;        /* paused -> run, halted -> work, stop */
    bool started, stop, pause_wanted, paused, halted;
    uint64_t halts;             /* statistics */
};

/* Any thread: sets or clears input n, tells the engine, wakes a halted vCPU. */
void vcpu_irq_set(struct vcpu *c, unsigned n, bool level);
/* Any thread: run() returns soon and a halted vCPU wakes. */
void vcpu_kick(struct vcpu *c);
/* The vCPU running on this thread, or NULL. */
struct vcpu *vcpu_current(void);

#endif
