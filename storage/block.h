/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block graph: what disk devices, jobs, exports and `vmctl image` read and write. Protocol nodes
 * ("file") reach storage, format nodes ("raw", "qcow2") stand on a file node and perhaps on a backing
 * node and a data node. Every node has a name.
 *
 * Two ways in. blk_submit() never blocks: it belongs to the loop of the node's pool, completions
 * run there. blk_run(), blk_pread() and their like do the same work at once in the caller's thread:
 * any thread, several at a time; tools that have no loop open nodes without a pool and use only these.
 * Opening, closing, claims, drain and resizing belong to the loop's thread (tools: one thread at a
 * time). blk_wait_idle() alone may be called from any thread.
 *
 * Flush is honest: it covers every write that completed before it was submitted, and once a
 * flush has failed all later ones fail too, since the kernel may have dropped the data it could
 * not write.
 *
 * Devices use blk_submit, blk_size, blk_readonly, blk_wait_idle and blk_close as ever. New in the graph: options
 * `direct`, `backing`, `data`, `follow`; claims (permissions), drain, blk_cancel, the
 * synchronous calls, BLK_COMPRESS, more members of struct blk_extent.
 */
#ifndef VMD_STORAGE_BLOCK_H
#define VMD_STORAGE_BLOCK_H

#include "engine/base/err.h"
#include "engine/base/list.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#define BLK_SECTOR 512
#define BLK_MAX_DEPTH 200 /* images in a backing chain */

struct blk_claim;
struct blk_driver;
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
enum {
    BLK_UNMAP = 1,
    BLK_COMPRESS =
        2,           /* a write of exactly one cluster (or of what the disk's end leaves of it):
                       * stored compressed where the format can; -ENOTSUP where not */
    BLK_FLUSHED = 8, /* the node's: a durable change is made, its flush is under way */
    BLK_PAST_END =
        4, /* a read may end behind the node's end, which reads as zeroes (drivers) */
    BLK_UNHOOKED = 1024, /* not for the hook of the node */
    BLK_REPORT = 256,    /* its error is told, whatever the policy of the node */
    BLK_UNLIMITED =
        512 /* not the guest's: the limits of the node (throttle.h) are not for it */
};

/* Memory of the submitter, as the pages that iov points to; both stay untouched by it until
 * done() runs. */
struct blk_req {
    enum blk_op op;
    unsigned flags;
    uint64_t offset, length; /* bytes; for reads and writes length is the sum of iov */
    const struct iovec *iov;
    unsigned n_iov;
    unsigned
        queue; /* of the guest's that it came from: where to share work between I/O threads */
    /* On the node's loop: 0 or a negative errno. May submit again or free the request. */
    void (*done)(struct blk_req *r, int result);
    void *arg;

    /* The node's, while it is submitted. */
    struct list link;
    struct blk_node *node;         /* where it was submitted */
    struct blk_node *via;          /* which node's driver executes it now */
    struct blk_node *from;         /* which node forwarded it there; NULL: none */
    const struct blk_node *passed; /* which node's faults it has passed */
    uint64_t at;                   /* the offset there */
    int result, ticket;
};

/* Stands before a node for whoever submits (recordings): what is submitted goes there, and is the hook's to complete. It may
 * submit requests of its own with BLK_UNHOOKED. */
struct blk_hook {
    void (*submit)(struct blk_hook *h,
                   struct blk_req *r); /* loop thread; never completes at once */
    void (*abandon)(
        struct blk_hook
            *h); /* see blk_abandon(): no memory of a submitter is touched from now on */
};
void blk_set_hook(struct blk_node *n,
                  struct blk_hook *h); /* borrowed; before anything is submitted */

struct blk_extent {
    uint64_t length; /* from the asked offset on, of the same kind */
    bool data;       /* false: a hole, reads as zeroes */
    bool zero;       /* known to read as zeroes, whether or not space is allocated */
    bool present;    /* some image of the chain says what is here; false: nobody wrote it */
    bool compressed;
    bool has_host; /* `host` is where the bytes lie in the image's (or data) file, one to one */
    uint64_t host;
    unsigned depth; /* 0: the image itself, 1: its backing image, ... */
};

/* Sees every change that a protocol node is about to make to its file, in the order in which they are made by
 * one thread: for tests that replay them. */
struct blk_tap {
    void (*event)(void *arg,
                  const struct blk_req *r); /* writes, zeroes, discards, flushes: r->at */
    void *arg;
};

/* What opens an encrypted image. */
struct blk_cipher;
extern const struct blk_cipher blk_luks; /* needs openssl */
struct blk_secret {
    const struct blk_cipher *by; /* &blk_luks */
    const void *data;            /* the passphrase, all bytes of it */
    size_t n;
};

struct blk_options {
    const char *name;   /* of the disk, for messages and the graph */
    const char *driver; /* format driver: "raw", "qcow2", ... */
    const char *path;   /* names the image in messages; opened when fd is -1 */
    const struct blk_driver
        *protocol; /* reaches it (nbd.h); NULL: the path is a file's. Images that this one
                                        * names are always files */
    uint64_t start, length; /* of the protocol "window" (window.h) */
    const char *export;     /* of an NBD server, when the protocol is blk_nbd_wire_driver */
    int fd;                 /* already open, or -1; taken by blk_open when it succeeds */
    bool readonly;
    bool direct;    /* O_DIRECT: past the host's page cache */
    bool durable;   /* a write, zeroes or a discard is on the disk when it completes */
    bool unsafe;    /* flushes do nothing: for new images, whose loss in a crash is no loss */
    bool unlocked;  /* takes no image lock and so may read while another writes (info) */
    bool for_check; /* opens what is marked dirty or corrupt, repairs nothing by itself */
    bool
        follow; /* opens the backing and data files that the image names, by path; without it an
                     * image that needs one and was given none is refused */
    bool no_backing; /* leaves the backing file closed: what is not allocated reads as zeroes */
    const struct blk_tap *tap; /* NULL: nobody looks; of the image's own file alone */
    const struct blk_options *backing,
        *data;                       /* these instead of what the image names; borrowed */
    const struct blk_secret *secret; /* of it and of all images below; NULL: none. Borrowed */
    unsigned depth;                  /* of the chain above */
};

/* Opens the format node for an image with all nodes below it, claims what its user needs (read,
 * and when writable write and resize) and takes the image locks (-EBUSY names the holder).
 * pool NULL: only synchronous calls. */
int blk_open(struct blk_pool *pool, const struct blk_options *o, struct blk_node **out,
             struct err *e);
/* Waits for what is in flight, writes back metadata and closes; completions that are still queued
 * are dropped. NULL is fine. blk_close_flush() says whether all that reached the disk. */
void blk_close(struct blk_node *n);
int blk_close_flush(struct blk_node *n, struct err *e);

const char *blk_name(const struct blk_node *n);
const char *blk_path(const struct blk_node *n); /* of the image */
const char *blk_driver_name(const struct blk_node *n);
uint64_t blk_size(const struct blk_node *n); /* bytes */
bool blk_readonly(const struct blk_node *n);
/* What a node stands on; NULL when there is none. */
enum blk_role { BLK_FILE, BLK_BACKING, BLK_DATA, BLK_ROLES };
struct blk_node *blk_child(const struct blk_node *n, enum blk_role role);
/* The node of that name among those of the pool: "disk0", "disk0/file", "disk0/backing/file". */
struct blk_node *blk_find(struct blk_pool *pool, const char *name);

/* Never blocks. Requests out of range, or writes to a read-only node, complete with -EINVAL
 * or -EROFS. Not on the submitter's stack: completions come later. */
void blk_submit(struct blk_node *n, struct blk_req *r);
/* Takes back a request that no thread and no kernel has begun: true, and it completes with
 * -ECANCELED. Loop thread. */
bool blk_cancel(struct blk_req *r);
/* What lies at `offset` < blk_size, through the whole chain. May block for metadata. */
int blk_map(struct blk_node *n, uint64_t offset, struct blk_extent *out, struct err *e);
/* The same of this image alone: present is false where its backing image would answer. */
int blk_map_layer(struct blk_node *n, uint64_t offset, struct blk_extent *out, struct err *e);
/* Returns when no submitted request touches its memory or the image any more; their
 * completions still come. */
void blk_wait_idle(struct blk_node *n);
/* After begin nothing is in flight and what is submitted waits until end. Nests. Loop thread. */
void blk_drain_begin(struct blk_node *n);
void blk_drain_end(struct blk_node *n);

/* --- what becomes of requests that fail --- */
/* Of requests that blk_submit() brought, when neither their range nor the node's being read-only nor a cancellation is the
 * reason. ENOSPC: stop when there is no space (or quota), or no connection to an NBD server, else report. */
enum blk_on_error { BLK_ON_REPORT, BLK_ON_IGNORE, BLK_ON_STOP, BLK_ON_ENOSPC };
struct blk_policy {
    enum blk_on_error read, write; /* write: all that is no read */
    /* On the loop, before the request goes on: `did` is REPORT, IGNORE (it completes as done) or STOP (it is kept until
     * blk_retry()). It may not touch the node; it posts what it wants done. May be NULL. */
    void (*failed)(void *arg, struct blk_node *n, enum blk_op op, int error,
                   enum blk_on_error did);
    void *arg;
};
void blk_set_policy(struct blk_node *n, const struct blk_policy *p); /* copied */
unsigned blk_kept(const struct blk_node *n);                         /* requests */
/* What was kept is submitted again, in the order in which it failed. */
void blk_retry(struct blk_node *n);
/* For a reset of the device: what was kept completes with its error, what failed already is not kept, what limits held
 * back completes with -ECANCELED, and nothing touches the submitter's memory any more. Any thread, while nobody
 * submits. */
void blk_abandon(struct blk_node *n);
/* The same before a snapshot: what limits held back is done. Loop thread. */
void blk_settle(struct blk_node *n);

/* --- at once, in the caller's thread: 0 or a negative errno --- */
int blk_run(struct blk_node *n, struct blk_req *r); /* done and arg are not used */
int blk_pread(struct blk_node *n, uint64_t offset, void *p, size_t length);
int blk_pwrite(struct blk_node *n, uint64_t offset, const void *p, size_t length);
int blk_zero(struct blk_node *n, uint64_t offset, uint64_t length, unsigned flags);
int blk_discard(struct blk_node *n, uint64_t offset, uint64_t length);
int blk_flush(struct blk_node *n);
/* Grows or shrinks; what is new reads as zeroes. */
int blk_resize(struct blk_node *n, uint64_t size, struct err *e);

/* --- permissions --- */
/* Who uses a node, what for, and what he lets others do meanwhile. Claims of all users of a node,
 * and of the nodes that stand on it, must fit each other, and the image locks on its file follow their
 * sum, so that other processes keep to it too. */
enum { BLK_PERM_READ = 1, BLK_PERM_WRITE = 2, BLK_PERM_RESIZE = 4 };
/* -EBUSY names the user that is in the way. `who` is copied. */
int blk_claim(struct blk_node *n, const char *who, unsigned need, unsigned share,
              struct blk_claim **out, struct err *e);
void blk_unclaim(struct blk_claim *c); /* before its node is closed; NULL is fine */

/* Requests that completed since the node was opened. Any thread. */
struct blk_counters {
    uint64_t reads, read_bytes, writes, written_bytes, flushes, errors;
};
void blk_count(const struct blk_node *n, struct blk_counters *out);
/* Something that was submitted is under way. Any thread; it may have changed by the time that it is told. */
bool blk_busy(const struct blk_node *n);

/* Asynchronous I/O for the nodes of one loop: an io_uring where the kernel gives one, and threads
 * for what blocks. */
#define BLK_IO_THREADS_MAX 16
struct blk_pool_options {
    unsigned threads; /* for what blocks; 0: 4 */
    /* Threads with a ring each, for reads and writes that only move data, at most BLK_IO_THREADS_MAX; 0: the loop's thread has the ring. */
    unsigned io_threads;
    void (*thread_start)(
        void *arg); /* on each new thread, before it does anything; may be NULL (sandbox) */
    void *arg;
    bool no_uring; /* threads only */
    int64_t (*clock)(
        void); /* ns, for limits, without timers: see blk_throttle_poll(); NULL: the host's */
};
int blk_pool_new(struct loop *loop, const struct blk_pool_options *o, struct blk_pool **out,
                 struct err *e);
/* From now on the loop's thread may open no file (sandbox): who holds a lock is not looked up in /proc. NULL is fine. */
void blk_pool_confine(struct blk_pool *p);
/* How many there are: fewer than asked for where the kernel has no rings. NULL is fine. */
unsigned blk_pool_io_threads(const struct blk_pool *p);
/* Requests of this node go to I/O thread `which` (from 1), whatever their queue; 0: as their queue says, the first of them to that after
 * `first` others, so that disks of one queue are shared out too. Before anything is submitted. */
void blk_set_io_thread(struct blk_node *n, unsigned which, unsigned first);
void blk_pool_free(struct blk_pool *p); /* after its nodes; NULL is fine */

#endif
