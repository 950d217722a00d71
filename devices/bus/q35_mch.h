/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the board asks of the Q35 host bridge.
 */
#ifndef VMD_DEVICES_BUS_Q35_MCH_H
#define VMD_DEVICES_BUS_Q35_MCH_H

#include <stdint.h>

struct device;

/* Where the guest has put config space (PCIEXBAR), and the bytes of it; 0: nowhere. Any thread. */
uint64_t q35_mch_ecam(struct device *d, uint64_t *size);

#endif
