/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parallel flash, for boards.
 */
#ifndef VMD_DEVICES_BLOCK_PFLASH_H
#define VMD_DEVICES_BLOCK_PFLASH_H

struct device;
struct mem_region;

/* What the board maps for a realized bank: memory that code runs from when the bank is read-only
 * (writes do nothing), else registers and array as the chip shows them. */
struct mem_region *pflash_region(struct device *d);

#endif
