/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits on what a disk's user does: bytes and requests a second, of reads, of writes or of both together, with bursts, for
 * one disk or for a group of disks that share them.
 *
 * Reads, writes and zeroes count as bytes and as requests, a discard as a request that writes, a flush as nothing.
 * Requests of a disk in one direction keep their order; the disks of a group take turns, and so do reads and writes.
 */
#ifndef VMD_STORAGE_THROTTLE_H
#define VMD_STORAGE_THROTTLE_H

#include "engine/base/err.h"
#include "engine/base/limits.h"

#include <stdbool.h>
#include <stdint.h>

struct blk_node;
struct blk_pool;

/* From now on, for what blk_submit() brings to this node. `group` NULL: the node's own limits; else those of all nodes of
 * the pool that name it, which get these. No limits at all: what waits goes, and a node leaves its group. Loop thread. */
int blk_throttle_set(struct blk_node *n, const char *group, const struct limits *l,
                     struct err *e);
/* False: it has none. *group is NULL or lives until the next blk_throttle_set(). Loop thread. */
bool blk_throttle_get(const struct blk_node *n, struct limits *out, const char **group);
/* Requests that wait. Loop thread. */
unsigned blk_throttle_waiting(const struct blk_node *n);
/* With a clock of the pool's user: lets go what may by now, and says how long until there will be more; -1: nothing
 * waits. Loop thread. */
int64_t blk_throttle_poll(struct blk_pool *p);

#endif
