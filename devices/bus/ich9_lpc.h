/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wiring and power button of the ICH9's LPC bridge, for boards.
 */
#ifndef VMD_DEVICES_BUS_ICH9_LPC_H
#define VMD_DEVICES_BUS_ICH9_LPC_H

#include "engine/base/err.h"
#include "engine/core/irq.h"

struct device;

#define ICH9_PIRQS 8

/* Interrupt wire A to H (0 to 7) of PCI: to pin 16 + n of the I/O APIC, and to the pin of the i8259 that the guest has chosen. Inner to every device lock and the PCI host's. */
struct irq_line ich9_pirq(struct device *lpc, unsigned n);
/* Where wire n leads at the I/O APIC, and all of them at pin `pin` of the i8259. Before the VM runs. */
void ich9_set_apic(struct device *lpc, unsigned n, struct irq_line line);
void ich9_set_pic(struct device *lpc, unsigned pin, struct irq_line line);

/* Presses the power button: the guest gets an SCI, or wakes when it sleeps. -ENODEV: it does not listen. Main thread. */
int ich9_power_button(struct device *lpc, struct err *e);
/* The clock's interrupt: wakes a guest that sleeps and wants it. Any thread, with any lock. */
void ich9_clock(struct device *lpc);
/* Bit n of general-purpose event 0 becomes set, and an SCI when the guest has enabled it. Any thread, with any lock. */
void ich9_event(struct device *lpc, unsigned n);

#endif
