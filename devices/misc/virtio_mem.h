/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that a guest plugs and unplugs in blocks, from the host's side: how much it is asked to have, how much it has. Main thread.
 */
#ifndef VMD_DEVICES_MISC_VIRTIO_MEM_H
#define VMD_DEVICES_MISC_VIRTIO_MEM_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct device;

#define VIRTIO_MEM_BLOCK (2ull << 20) /* the smallest block, a huge page of the host */
#define VIRTIO_MEM_BLOCKS 4096        /* of one device */
#define VIRTIO_MEM_ALIGN                                                                       \
    (1ull << 30) /* of where it lies; a multiple of what kernels plug at once */

struct vmem_view {
    uint64_t addr, size, block; /* where it lies, the most it can be, its unit */
    uint64_t requested;         /* bytes that the guest is asked to have */
    uint64_t plugged;           /* bytes that it has */
    bool driver;                /* a driver of the guest is at work */
};

/* Is told, on the main loop, when `plugged` has another value. The device's lock is held. */
struct virtio_mem_watch {
    void (*changed)(void *arg, struct device *d);
    void *arg;
};

/* The block of a device of that size when nobody says. */
uint64_t virtio_mem_block(uint64_t size);
/* Do these fit each other? The error names what does not, not the device. */
int virtio_mem_check(uint64_t size, uint64_t block, uint64_t requested, struct err *e);
void virtio_mem_view(struct device *d, struct vmem_view *out);
/* Asks the guest to have so many bytes, also a second time. -EINVAL: more than the device has, or not whole blocks. */
int virtio_mem_request(struct device *d, uint64_t bytes, struct err *e);
/* The device is to go: from here on the guest can plug nothing. -EBUSY: it has some of it, or is asked to. */
int virtio_mem_leave(struct device *d, struct err *e);
void virtio_mem_stay(struct device *d); /* it is not to go after all */

#endif
