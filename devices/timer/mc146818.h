/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes of a PC's CMOS memory that its firmware reads, for boards.
 */
#ifndef VMD_DEVICES_TIMER_MC146818_H
#define VMD_DEVICES_TIMER_MC146818_H

#include <stdint.h>

struct device;

/* Byte `at` (14 to 127) after every reset. Main thread, before the VM runs. */
void mc146818_set(struct device *d, unsigned at, uint8_t value);

#endif
