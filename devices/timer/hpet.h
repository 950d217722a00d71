/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wiring of the HPET, for boards.
 */
#ifndef VMD_DEVICES_TIMER_HPET_H
#define VMD_DEVICES_TIMER_HPET_H

#include "engine/core/irq.h"

struct device;

/* Where the interval timer's (0) and the clock's (1) interrupts go in: out by irq[0] and irq[1], unless the guest has set the HPET in their place. */
struct irq_line hpet_legacy_input(struct device *d, unsigned which);
/* Where timers' interrupts go that are routed to a pin of the I/O APIC: a line for each of its 24 pins. */
void hpet_set_pin(struct device *d, unsigned pin, struct irq_line line);

#endif
