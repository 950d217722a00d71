/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The I/O APIC's pins, for boards.
 */
#ifndef VMD_DEVICES_IRQCHIP_IOAPIC_H
#define VMD_DEVICES_IRQCHIP_IOAPIC_H

#include "engine/core/irq.h"

struct device;

#define IOAPIC_PINS 24
#define IOAPIC_SHARERS 32 /* wires to one pin */

/* A wire to a pin (0 .. IOAPIC_PINS - 1) of a realized ioapic device. Wires to the same pin have numbers (0 .. IOAPIC_SHARERS - 1) of their own; the pin is
 * asserted while any of them is. */
struct irq_line ioapic_input(struct device *ioapic, unsigned pin, unsigned wire);

/* A level-triggered vector was served: vm->extint.eoi, with the device as opaque. */
void ioapic_eoi(void *ioapic, unsigned vector);

#endif
