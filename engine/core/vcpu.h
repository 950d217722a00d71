/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual CPU: one host thread that calls the engine's run(), sleeps in WFI, and stops at
 * the pause barrier.
 */
#ifndef VMD_CORE_VCPU_H
#define VMD_CORE_VCPU_H

#include "engine/core/engine.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct vm;

#define VCPU_WAKES 4

/* `lock` protects the flags below it; irq_level is atomic; cpu and engine_data belong to the
 * vCPU's thread while it runs, to the main thread while it is paused. */
struct vcpu {
    struct vm *vm;
    unsigned index; /* 0 .. vm->n_vcpus - 1; hart id on riscv */
    /* architectural state (engine/arch/X/cpu.h), storage owned by the engine */
    void *cpu;
    void *engine_data;
    /* interrupt inputs driven by irqchips and timers, by architecture-defined bit */
    _Atomic uint64_t irq_level;

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;       /* any change of the flags */
    bool started;              /* the thread exists; main thread */
    bool stop;                 /* the thread shall end */
    bool pause_wanted, paused; /* the barrier's question and its answer */
    /* asked for a power-off or reset, or its engine failed: runs nothing till it is served */
    bool parked;
    bool held;       /* the debugger lets others run, not this one */
    bool debug_stop; /* left run() for the debugger; read at the barrier */
    bool halted;     /* in WFI */
    bool kicked;     /* leave WFI once, without work */
    uint64_t halts;  /* statistics */
    /* whom this vCPU's thread wakes when it leaves the device it is in; its thread alone */
    bool in_device;
    unsigned n_wakes;
    struct vcpu *wakes[VCPU_WAKES];
};

/* Any thread: sets or clears input n, tells the engine, wakes a halted vCPU. */
void vcpu_irq_set(struct vcpu *c, unsigned n, bool level);
/* Any thread: run() returns soon and a halted vCPU wakes. */
void vcpu_kick(struct vcpu *c);
/* Any thread: has_work may have changed without an input having changed (a control register
 * of another hart's). */
void vcpu_wake(struct vcpu *c);

/* For bus.c, around an access under a device's lock: wakes by vcpu_irq_set() wait for the end, since who is woken runs at once in place of
 * the waker, and meets the lock that it holds. */
void vcpu_device_begin(void);
void vcpu_device_end(void);

/* For vm.c only; main thread. */
struct vcpu *vcpu_new(struct vm *vm, unsigned index);
void vcpu_free(struct vcpu *c);
int vcpu_thread_start(struct vcpu *c, struct err *e); /* begins paused */
void vcpu_thread_stop(struct vcpu *c);                /* ends and joins it */
void vcpu_pause_ask(struct vcpu *c);
void vcpu_pause_wait(struct vcpu *c);
void vcpu_unpause(struct vcpu *c);
void vcpu_cleared(struct vcpu *c); /* reset: no longer halted or parked */
void vcpu_set_halted(struct vcpu *c, bool on); /* a state was loaded; at the barrier */
/* Main thread, at the barrier: a held vCPU runs nothing when the VM runs again. */
void vcpu_hold(struct vcpu *c, bool on);
/* Owner thread: runs no more guest code after the access it is in, till vcpu_cleared() or
 * the end. */
void vcpu_park(struct vcpu *c);
void vcpu_unpark(struct vcpu *c); /* main thread, at the barrier: its request was served */
/* The vCPU running on this thread, or NULL. */
struct vcpu *vcpu_current(void);

#endif
