/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What runs guest code: a vtable with two implementations, engine/tcg and engine/kvm. A
 * third is a folder and one line in the list of engine/emu.
 */
#ifndef VMD_CORE_ENGINE_H
#define VMD_CORE_ENGINE_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct buf;
struct irq_message;
struct mem_flat;
struct vcpu;
struct vm;

/* Why run() returned. */
enum vcpu_exit {
    VCPU_EXIT_KICK,  /* asked to (pause, request); call run again when it may go on */
    VCPU_EXIT_HALT,  /* waits for an interrupt (WFI): core sleeps until vcpu_has_work */
    VCPU_EXIT_DEBUG, /* breakpoint or single step done */
    VCPU_EXIT_ERROR  /* cannot go on; the error was logged, the VM stops as "crashed" */
};

struct engine_ops {
    const char *name;
    /* Engine state of a VM, kept in vm->engine_data. Main thread. */
    int (*vm_init)(struct vm *vm, struct err *e);
    void (*vm_done)(struct vm *vm);
    /* Allocates engine state of a vCPU and its architectural state vcpu->cpu. Main thread. */
    int (*vcpu_init)(struct vcpu *c, struct err *e);
    void (*vcpu_done)(struct vcpu *c);
    /* The flat view changed; vCPUs are paused or not started. */
    void (*mem_commit)(struct vm *vm, const struct mem_flat *flat);
    /* DMA wrote guest memory: drop translations of it. Any thread. */
    void (*mem_written)(struct vm *vm, uint64_t gpa, uint64_t n);
    /* Marks what the engine knows to be dirty and has not told yet in the ranges (mem_range_dirty); NULL where it marks at
     * once. Main thread, before the bitmap is taken or cleared; vCPUs may run. */
    void (*mem_dirty)(struct vm *vm);
    /* Forgets where else pages of memory are shown (mem_range_show); may be NULL. vCPUs paused or not started. */
    void (*mem_unshow)(struct vm *vm);
    /* On a new vCPU thread, before its sandbox closes; or NULL. */
    void (*vcpu_thread)(struct vcpu *c);
    /* Runs guest code until there is a reason to stop. Owner thread of the vCPU. */
    enum vcpu_exit (*run)(struct vcpu *c);
    /* Makes run() return soon. Any thread. Sticky: a kick that arrives before run() begins
     * makes the next run() return at once, so the engine clears its flag when run() returns
     * VCPU_EXIT_KICK, never when it begins. */
    void (*kick)(struct vcpu *c);
    /* Interrupt inputs (vcpu->irq_level) changed. Any thread. */
    void (*irq)(struct vcpu *c);
    /* After the architecture's reset or a state load wrote vcpu->cpu, and before it is read:
     * copies between it and the engine (no-ops where the engine works on it directly). Owner
     * thread, or main thread with vCPUs paused. */
    void (*regs_put)(struct vcpu *c);
    void (*regs_get)(struct vcpu *c);
    /* A message-signalled interrupt for local APICs that are the engine's; NULL: it has none. Any thread. */
    void (*msi)(struct vm *vm, uint64_t address, uint32_t data);
    /* What the level-triggered, unmasked pins of an I/O APIC send (others: address 0), so that an engine with local APICs tells vm->extint.eoi of
     * these vectors; NULL: it tells of all, or has none. Any thread. */
    void (*level_pins)(struct vm *vm, const struct irq_message *pin, unsigned n);
    /* The flat view of a space behind a window of the VM's own (a PCI host's) has changed: which bells (mem_bells) are between
     * `from` and `to`. `owner` names the space. May be NULL; bells of the VM's own space come by mem_commit. Any thread. */
    void (*bells)(struct vm *vm, const void *owner, const struct mem_flat *flat, uint64_t from,
                  uint64_t to);
    /* Debugging, all three or none (NULL). Main thread, vCPUs at the barrier.
     * Where a virtual address leads in this vCPU's current mode, without side effects. */
    bool (*debug_translate)(struct vcpu *c, uint64_t va, uint64_t *gpa);
    /* run() returns VCPU_EXIT_DEBUG before an instruction at one of these virtual addresses (of
     * any vCPU and mode), also when it is the first, but not when it was asked for a step.
     * Replaces the set before; n 0: none. The array is copied. 0 or negative. */
    int (*debug_breakpoints)(struct vm *vm, const uint64_t *va, unsigned n);
    /* On: run() returns VCPU_EXIT_DEBUG after one instruction or the trap it led to. */
    void (*debug_step)(struct vcpu *c, bool on);
    /* Counters for people: appends "name value meaning\n" lines, "cpu3.name" for one of a vCPU;
     * may be NULL. Main thread. */
    void (*stats)(struct vm *vm, struct buf *out);
};

#endif
