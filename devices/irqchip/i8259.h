/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inputs of a PC's two interrupt controllers, for boards.
 */
#ifndef VMD_DEVICES_IRQCHIP_I8259_H
#define VMD_DEVICES_IRQCHIP_I8259_H

#include "engine/core/irq.h"

struct device;

#define I8259_PINS 16
#define I8259_SHARERS 8 /* wires to one pin */

/* A wire to a pin (0 to 15, of which 2 is the second chip's) of a realized i8259 device; wires to one pin have numbers of their own, below I8259_SHARERS, and the pin is asserted
 * while any of them is. */
struct irq_line i8259_input(struct device *d, unsigned pin, unsigned wire);
/* A processor takes the interrupt: its vector, -1 when none asks any more. For vm->extint.ack, on a vCPU's thread, no lock held. */
int i8259_ack(struct device *d);

#endif
