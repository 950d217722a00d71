/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory as a device reaches it: straight, or through what stands between the two and translates its addresses (an IOMMU). A device uses
 * these calls for every address that its driver gave it, and mem.h's with the guest-physical ones that come out.
 */
#ifndef VMD_CORE_DMA_H
#define VMD_CORE_DMA_H

#include "engine/core/device.h"

/* Of struct device. NULL there: the device's addresses are the guest's physical ones. */
struct dma_port {
    /* Where the bytes from `at` on lie: *gpa, and *n (at least 1 on entry) is cut to those that lie in one piece there. -EFAULT: the device may not
     * reach (or write) the first of them, which has been told to the guest. Any thread, also with the device's lock held. */
    int (*translate)(void *arg, uint64_t at, bool write, uint64_t *gpa, uint64_t *n);
    void *arg;
};

/* As mem_dma_read() and mem_dma_write(). Any thread. */
int dma_read(const struct device *d, uint64_t at, void *out, size_t n);
int dma_write(const struct device *d, uint64_t at, const void *in, size_t n);
/* The first piece of [at, at + *n) that is one in guest RAM: its host address, *gpa (for mem_written() after a write) and *n, cut. NULL: it
 * is not in RAM, or out of reach. Any thread. */
void *dma_piece(const struct device *d, uint64_t at, uint64_t *n, bool write, uint64_t *gpa);
/* The same for all n bytes, NULL when they are several pieces. */
void *dma_map(const struct device *d, uint64_t at, uint64_t n, bool write, uint64_t *gpa);

#endif
