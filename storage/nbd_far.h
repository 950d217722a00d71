/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is the same of every way to somebody else's NBD export: requests cut to what the server takes, and what it tells of
 * extents. A driver's node begins with struct nbd_far; its ops put commands onto the wire and wait for
 * their ends. Any thread, several at once.
 */
#ifndef VMD_STORAGE_NBD_FAR_H
#define VMD_STORAGE_NBD_FAR_H

#include "storage/driver.h"

enum { NBD_PAYLOAD = 32 << 20, NBD_RANGE = 1 << 30 };

struct nbd_far;

/* From an offset on; `got`: the server said something. */
struct nbd_extent {
    uint64_t length;
    uint32_t flags; /* NBD_STATE_... */
    bool got;
};
/* More of what a server tells of one context: pairs of length and flags, in the host's order. */
void nbd_extent_add(struct nbd_extent *x, const uint32_t *pairs, size_t n);

/* All of them: 0 or a negative errno; offsets and lengths are whole blocks, and within bounds. */
struct nbd_far_ops {
    int (*transfer)(struct nbd_far *f, const struct blk_req *r); /* BLK_READ, BLK_WRITE */
    int (*range)(struct nbd_far *f, enum blk_op op, unsigned flags, uint64_t at,
                 uint64_t length); /* BLK_ZERO, BLK_DISCARD; any length */
    int (*flush)(struct nbd_far *f);
    int (*status)(struct nbd_far *f, uint64_t at, uint64_t length, struct nbd_extent *x);
};

struct nbd_far {
    struct blk_node node;
    const struct nbd_far_ops *ops;
    pthread_mutex_t edge; /* one write of less than a block at a time */
    bool can_flush, can_trim, can_zero, can_map;
    uint32_t block, most; /* smallest and largest request */
};

void nbd_far_init(struct nbd_far *f, const struct nbd_far_ops *ops);
void nbd_far_done(struct nbd_far *f);
/* What the server says of its smallest and largest request; 0: nothing. */
void nbd_far_limits(struct nbd_far *f, uint64_t least, uint64_t most);
/* As in struct blk_driver. */
int nbd_far_run(struct blk_node *n, struct blk_req *r);
int nbd_far_map(struct blk_node *n, uint64_t offset, struct blk_extent *out, struct err *e);

#endif
