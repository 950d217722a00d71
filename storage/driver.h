/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the storage room: block drivers, nodes, and the thread pool's work items.
 */
#ifndef VMD_STORAGE_DRIVER_H
#define VMD_STORAGE_DRIVER_H

#include "storage/block.h"

struct blk_driver {
    const char *name;
    size_t size; /* of the node, which begins with struct blk_node */
    /* Fills in size; n->child is set for format drivers. */
    int (*open)(struct blk_node *n, const struct blk_options *o, struct err *e);
    /* The request lies within the node and is allowed. Never blocks. */
    void (*submit)(struct blk_node *n, struct blk_req *r);
    int (*map)(struct blk_node *n, uint64_t offset, struct blk_extent *out, struct err *e);
    void (*wait_idle)(struct blk_node *n);
    void (*close)(
        struct blk_node *n); /* accepts half-open nodes; the child is closed by the caller */
};

struct blk_node {
    const struct blk_driver *driver;
    struct blk_pool *pool;
    struct blk_node *child;
    char *name;
    uint64_t size;
    bool readonly;
    struct {
        _Atomic uint64_t reads, read_bytes, writes, written_bytes, flushes, errors;
    } count; /* of the protocol node; see blk_account */
};

/* A request of a protocol node is through. Any thread. */
void blk_account(struct blk_node *n, const struct blk_req *r, int result);

extern const struct blk_driver blk_file_driver, blk_raw_driver;

/* Runs blk_file_run on a pool thread, then r->done on the loop. Loop thread. */
void blk_pool_submit(struct blk_pool *p, struct blk_node *n, struct blk_req *r);
/* Any thread: returns when node n has no request in the pool's hands. */
void blk_pool_wait_idle(struct blk_pool *p, struct blk_node *n);
/* Loop thread: forgets completions of node n that were not delivered yet. */
void blk_pool_forget(struct blk_pool *p, struct blk_node *n);
/* Completes without work (errors), still from the loop and never from within blk_submit.
 * Loop thread. */
void blk_pool_complete(struct blk_pool *p, struct blk_node *n, struct blk_req *r, int result);

/* Blocking execution of a request on a file node; pool threads. */
int blk_file_run(struct blk_node *n, struct blk_req *r);

/* A file node gives up its descriptor without closing it. */
void blk_file_release(struct blk_node *n);

/* Image lock on an open file description: shared for readers, exclusive for a writer. -EBUSY
 * names the holder. */
int blk_lock(int fd, bool readonly, const char *disk, struct err *e);

#endif
