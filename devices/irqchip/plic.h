/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PLIC's inputs, for boards.
 */
#ifndef VMD_DEVICES_IRQCHIP_PLIC_H
#define VMD_DEVICES_IRQCHIP_PLIC_H

#include "engine/core/irq.h"

struct device;

#define PLIC_SOURCES 96 /* numbers 1 .. 96; 0 means none */

/* The line that drives source n (1 .. PLIC_SOURCES) of a realized plic device. */
struct irq_line plic_input(struct device *plic, unsigned n);

#endif
