/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block nodes: what a disk device reads and writes. Protocol nodes ("file") reach storage,
 * format nodes ("raw") stand on a child node; every node has a name.
 *
 * A node belongs to one loop and is opened, asked and closed on its thread. Requests are
 * submitted there too; their completions run there. blk_wait_idle() alone may be called from
 * any thread.
 *
 * Flush is honest: it covers every write that completed before it was submitted, and once a
 * flush has failed all later ones fail too, since the kernel may have dropped the data it could
 * not write.
 */
#ifndef VMD_STORAGE_BLOCK_H
#define VMD_STORAGE_BLOCK_H

#include "engine/base/err.h"
#include "engine/base/list.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#define BLK_SECTOR 512

struct blk_node;
struct blk_pool;
struct loop;

enum blk_op {
    BLK_READ,
    BLK_WRITE,
    BLK_FLUSH,   /* no range */
    BLK_DISCARD, /* a hint: contents become undefined or zero */
    BLK_ZERO     /* reads as zeroes afterwards; BLK_UNMAP allows a hole */
};
enum { BLK_UNMAP = 1 };

/* Memory of the submitter, as the pages that iov points to; both stay untouched by it until
 * done() runs. */
struct blk_req {
    enum blk_op op;
    unsigned flags;
    uint64_t offset, length; /* bytes; for reads and writes length is the sum of iov */
    const struct iovec *iov;
    unsigned n_iov;
    /* On the node's loop: 0 or a negative errno. May submit again or free the request. */
    void (*done)(struct blk_req *r, int result);
    void *arg;

    /* The node's, while it is submitted. */
    struct list link;
    struct blk_node *node;
    int result;
};

struct blk_extent {
    uint64_t length; /* from the asked offset on, of the same kind */
    bool data;       /* false: a hole, reads as zeroes */
};

struct blk_options {
    const char *name;   /* of the disk, for messages and the graph */
    const char *driver; /* format driver: "raw" */
    const char *path;   /* names the image in messages; opened when fd is -1 */
    int fd;             /* already open, or -1; taken by blk_open when it succeeds */
    bool readonly;
};

/* Opens the format node for an image with its protocol node below, takes the image lock
 * (-EBUSY names the holder). */
int blk_open(struct blk_pool *pool, const struct blk_options *o, struct blk_node **out,
             struct err *e);
/* Waits for what is in flight and closes; completions that are still queued are dropped.
 * NULL is fine. */
void blk_close(struct blk_node *n);

const char *blk_name(const struct blk_node *n);
uint64_t blk_size(const struct blk_node *n); /* bytes */
bool blk_readonly(const struct blk_node *n);

/* Never blocks. Requests out of range, or writes to a read-only node, complete with -EINVAL
 * or -EROFS. */
void blk_submit(struct blk_node *n, struct blk_req *r);
/* What lies at `offset` < blk_size. May block for metadata. */
int blk_map(struct blk_node *n, uint64_t offset, struct blk_extent *out, struct err *e);
/* Returns when no submitted request touches its memory or the image any more; their
 * completions still come. */
void blk_wait_idle(struct blk_node *n);

/* Requests that completed since the node was opened. Any thread. */
struct blk_counters {
    uint64_t reads, read_bytes, writes, written_bytes, flushes, errors;
};
void blk_count(const struct blk_node *n, struct blk_counters *out);

/* Threads that do blocking I/O for the nodes of one loop. */
struct blk_pool_options {
    unsigned threads; /* 0: 4 */
    void (*thread_start)(
        void *arg); /* on each new thread, before it does anything; may be NULL (sandbox) */
    void *arg;
};
int blk_pool_new(struct loop *loop, const struct blk_pool_options *o, struct blk_pool **out,
                 struct err *e);
void blk_pool_free(struct blk_pool *p); /* after its nodes; NULL is fine */

#endif
