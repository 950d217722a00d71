/* SPDX-License-Identifier: Apache-2.0 */
/*
 * I/O threads: each has a ring of its own and does the reads and writes of registered files that it is given, beside the loop and beside
 * each other. Requests end as those of the pool's other threads do. All calls but lane_give() on the loop's thread.
 */
#ifndef VMD_STORAGE_LANE_H
#define VMD_STORAGE_LANE_H

#include "storage/block.h"

struct lane;

/* NULL, e untouched: the kernel has no ring for it. `options`: for thread_start. */
int lane_new(struct blk_pool *pool, const struct blk_pool_options *options, struct lane **out,
             struct err *e);
void lane_free(struct lane *l); /* nothing is in flight any more; NULL is fine */
/* The same slot in each ring of a pool: all are told of the same files in the same order. */
int lane_register(struct lane *l, int fd);
void lane_unregister(struct lane *l, int slot);
/* With the pool's mutex held. r->result is the slot. */
void lane_give_locked(struct lane *l, struct blk_req *r);
/* Takes back what was not begun; with the pool's mutex held. */
bool lane_take_back_locked(struct lane *l, struct blk_req *r);

/* --- of the pool, for lanes; its mutex is held --- */
void blk_pool_ring_done_locked(struct blk_pool *p, struct blk_req *r, int result);
void blk_pool_queue_locked(struct blk_pool *p, struct blk_req *r);

#endif
