/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupt wires and messages. A line is a value: where it leads and its number there. A
 * device calls irq_set() with a level; the irqchip's callback takes the irqchip's own lock.
 */
#ifndef VMD_CORE_IRQ_H
#define VMD_CORE_IRQ_H

#include <stdbool.h>
#include <stdint.h>

struct irq_line {
    void (*set)(void *opaque, unsigned n, bool level); /* NULL: not connected */
    void *opaque;
    unsigned n;
};

/* Any thread. Repeating the same level is harmless. */
static inline void irq_set(const struct irq_line *l, bool level)
{
    if (l->set) {
        l->set(l->opaque, l->n, level);
    }
}
static inline void irq_pulse(const struct irq_line *l)
{
    irq_set(l, true);
    irq_set(l, false);
}

/* Message-signalled interrupts: the board's handler (PLIC has none; IMSIC and the APIC do).
 * Any thread. */
struct irq_msi {
    void (*send)(void *opaque, uint64_t address, uint32_t data);
    void *opaque;
};

/* One of those. */
struct irq_message {
    uint64_t address;
    uint32_t data;
};

struct vcpu;
/* A line that leads to an interrupt input of a vCPU (for riscv n is the bit in mip). */
struct irq_line irq_to_vcpu(struct vcpu *c, unsigned n);

#endif
