/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The filter node between a VM's device and its image: jobs change what is below it while the device keeps it, and
 * look at guest writes before they happen. Without a job it passes requests on and costs a call.
 */
#ifndef VMD_STORAGE_DISK_H
#define VMD_STORAGE_DISK_H

#include "storage/block.h"

/* Puts the filter over an image that blk_open() gave; it has its name and closes it. Loop thread. */
struct blk_node *blk_disk_new(struct blk_pool *pool, struct blk_node *take_image);
/* What a drive without a medium stands on, in the place of an image: nothing can be read, the size is 0. Loop thread. */
struct blk_node *blk_nothing_new(struct blk_pool *pool, const char *name);
/* Of an image, or of the filter over one. */
bool blk_is_nothing(const struct blk_node *n);
/* The image below; n itself when it is no such filter. */
struct blk_node *blk_disk_image(struct blk_node *n);
/* Another image from now on; the former one is the caller's. Drained, loop thread. */
struct blk_node *blk_disk_swap(struct blk_node *disk, struct blk_node *take_image);

/* Around any change of the images below: nobody asks where data lie meanwhile (blk_map() of the filter, any thread). Waits for
 * who does. Drained, loop thread. */
void blk_disk_change(struct blk_node *disk, bool begin);

/* Sees writes, zeroes and discards. A request that must wait is kept until blk_guard_recheck() finds that no guard
 * asks for it any more. Guards are added while the disk is drained, so that each sees all that is in flight. */
struct blk_guard {
    struct list link;
    /* With the disk's lock held, any thread, nothing that blocks. */
    bool (*must_wait)(struct blk_guard *g, uint64_t offset, uint64_t length);
    /* A request is kept because of this guard: somebody must see to it, without the loop. As must_wait. */
    void (*kept)(struct blk_guard *g, uint64_t offset, uint64_t length);
};
void blk_guard_add(struct blk_node *disk, struct blk_guard *g);
void blk_guard_remove(struct blk_node *disk, struct blk_guard *g);
/* Any thread but with no lock held. */
void blk_guard_recheck(struct blk_node *disk);
/* Any thread but the loop's: returns when no write that touches the range is in flight. New ones must be kept off by a guard. */
void blk_guard_settle(struct blk_node *disk, uint64_t offset, uint64_t length);
/* The lock that must_wait() is called with, for what it looks at. */
void blk_guard_lock(struct blk_node *disk);
void blk_guard_unlock(struct blk_node *disk);
/* The first kept request for which fits() holds; false: none. With the lock held. */
bool blk_guard_find(struct blk_node *disk, struct blk_guard *g,
                    bool (*fits)(struct blk_guard *g, uint64_t offset, uint64_t length),
                    uint64_t *offset, uint64_t *length);

#endif
