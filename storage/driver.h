/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the storage room: what a block driver is, nodes, the pool's work items. How to add a
 * driver: docs/guide/storage.md.
 */
#ifndef VMD_STORAGE_DRIVER_H
#define VMD_STORAGE_DRIVER_H

#include "storage/bitmap.h"
#include "storage/block.h"
#include "storage/image.h"

#include <pthread.h>
#include <stdatomic.h>

enum blk_kind { BLK_PROTOCOL, BLK_FORMAT, BLK_FILTER };

struct blk_driver {
    const char *name, *doc;
    const char *alias; /* how qemu-img calls it, when differently */
    enum blk_kind kind;
    size_t size; /* of the node, which begins with struct blk_node */
    /* How sure the driver is that an image which begins so is its own: 0 no, 100 certain. */
    int (*probe)(const uint8_t *head, size_t n, uint64_t file_size);
    /* Sets n->size; n->kid[BLK_FILE] is open already for formats. Half-open nodes are closed. */
    int (*open)(struct blk_node *n, const struct blk_options *o, struct err *e);
    /* Executes r at r->at, blocking. Any thread, several at once. The request lies within the
     * node and is allowed. */
    int (*run)(struct blk_node *n, struct blk_req *r);
    /* Never blocks. NULL: a thread of the pool calls run(). Loop thread. */
    void (*submit)(struct blk_node *n, struct blk_req *r);
    /* A request that this node forwarded is through, or (a filter) one that was submitted to it; may be NULL. Any
     * thread; never blocks. */
    void (*settled)(struct blk_node *n, struct blk_req *r);
    /* This layer only; blocking, any thread. */
    int (*map)(struct blk_node *n, uint64_t offset, struct blk_extent *out, struct err *e);
    /* May be NULL from here on: then not possible. Nothing is in flight. */
    int (*resize)(struct blk_node *n, uint64_t size, struct err *e);
    int (*create)(const struct blk_create *c, struct err *e);
    const struct blk_image_ops *image; /* what only images of this format can do */
    int (*close)(
        struct blk_node *n); /* accepts half-open nodes; 0 or what could not be written */
    void (*release)(struct blk_node *n); /* gives up the descriptor that it was given, without
                                            closing it; of protocols */
};

struct blk_node {
    const struct blk_driver *driver;
    struct blk_pool *pool; /* NULL: synchronous only */
    struct blk_node *kid[BLK_ROLES];
    struct blk_claim *hold[BLK_ROLES]; /* this node's claims on its kids */
    struct blk_claim *owner;           /* of the top node: the user's claim */
    char *name, *path;
    uint64_t size;
    struct blk_hook *hook;        /* NULL: none */
    unsigned io_thread, io_first; /* see blk_set_io_thread() */
    bool readonly;
    bool durable;                        /* see struct blk_options */
    struct blk_dirty_set *_Atomic dirty; /* bitmaps (bitmap.h); NULL: there never was one */
    struct list in_pool;                 /* of top nodes */
    struct blk_faults *faults;           /* faulty.c; NULL: never had any */
    struct blk_policy *policy;           /* gate.c; NULL: errors are told */
    struct list kept;                    /* requests that failed and wait for blk_retry() */
    unsigned n_kept;
    struct list claims;                 /* struct blk_claim.link */
    struct blk_member *_Atomic limited; /* throttle.c; NULL: never had limits */
    unsigned drained;
    struct list held;           /* requests that wait for the end of the drain */
    _Atomic uint64_t changes;   /* requests that changed it and are through */
    _Atomic unsigned in_flight; /* submitted, and memory or image still in use */
    struct {
        _Atomic uint64_t reads, read_bytes, writes, written_bytes, flushes, errors;
    } count;
};

struct blk_claim {
    struct blk_node *node;
    struct list link;
    char *who;
    unsigned need, share;
};

/* --- drivers (graph.c lists them) --- */
extern const struct blk_driver blk_file_driver, blk_raw_driver, blk_qcow2_driver,
    blk_luks_driver, blk_vdi_driver, blk_vhd_driver, blk_vhdx_driver, blk_vmdk_driver;
const struct blk_driver *blk_driver_find(const char *name);

/* --- gate.c; loop thread --- */
/* r failed, and its node has a policy: true when that says what becomes of it: *did. It is kept when that is STOP; r->result
 * may have changed. The pool's mutex is held. */
bool blk_gate_judge(struct blk_req *r, enum blk_on_error *did);
void blk_gate_tell(struct blk_node *n, enum blk_op op, int error, enum blk_on_error did);
bool blk_gate_cancel(struct blk_req *r);
void blk_gate_done(struct blk_node *n);

/* --- throttle.c --- */
/* A request of a node that has n->limited, which waits from now on: true. Loop thread. */
bool blk_throttle_keep(struct blk_node *n, struct blk_req *r);
void blk_throttle_undrained(struct blk_node *n); /* its drain has ended */
/* What waits goes now, and is made up for later; nothing when called by another thread than the loop's. */
void blk_throttle_release(struct blk_node *n);
/* What waits (NULL: all of it) completes with -ECANCELED; false: there was nothing. Any thread. */
bool blk_throttle_cancel(struct blk_node *n, const struct blk_req *which);
void blk_throttle_done(struct blk_node *n); /* nothing is in flight */
/* A request that passed limits and drains; block.c. */
void blk_start(struct blk_node *n, struct blk_req *r);
void blk_faults_done(struct blk_node *n); /* faulty.c; nothing is in flight */
/* Whose memory the node's is, also when faults are put over it; faulty.c. Any thread. */
const struct blk_driver *blk_own_driver(const struct blk_node *n);

/* --- graph.c, for format drivers --- */
/* A node and all below it, without a claim of a user. */
int blk_open_graph(struct blk_pool *pool, const struct blk_options *o, struct blk_node **out,
                   struct err *e);
int blk_open_file(struct blk_pool *pool, const struct blk_options *o, struct blk_node **out,
                  struct err *e);
/* A node that is not open yet. */
struct blk_node *blk_node_new(const struct blk_driver *d, struct blk_pool *pool,
                              const struct blk_options *o);
/* Takes a kid away, which is the caller's from now on. Drained. */
struct blk_node *blk_take_kid(struct blk_node *n, enum blk_role role);
/* The locks follow the claims again, after a kid was changed. */
int blk_claims_renew(struct blk_node *n, struct err *e);
/* The claim that blk_open() makes, for a node that has become a disk's image. */
int blk_own(struct blk_node *n, struct err *e);
/* Makes the backing image of `parent` writable: through `fd` (taken when that goes well), or by its path when that is -1. Drained. */
int blk_reopen_backing(struct blk_node *parent, int fd, struct err *e);
/* Puts a kid under n, which owns it from now on. */
void blk_set_kid(struct blk_node *n, enum blk_role role, struct blk_node *take_kid);
/* A path that an image names, seen from the folder of that image; the caller's. */
char *blk_relative(const char *image, const char *named);

/* --- image.c, for format drivers --- */
/* A new, empty file that nobody else uses, held against others while it is open. */
int blk_create_file(const char *path, int *fd, struct err *e);
/* The same for the image that c describes: its path, or the descriptor that was given. */
int blk_create_image_file(const struct blk_create *c, int *fd, struct err *e);
/* Space for a range: reserved, or (write) written with zeroes. */
int blk_preallocate(int fd, uint64_t offset, uint64_t length, bool write, const char *path,
                    struct err *e);

/* Must a flush of its node follow r, which went well, before it completes? */
bool blk_must_flush(const struct blk_req *r);
/* The driver of r->via is done with r: before anybody hears of it. Any thread. */
void blk_changed(const struct blk_req *r);
/* A request of node n is through. Any thread. */
void blk_account(struct blk_node *n, const struct blk_req *r, int result);

/* --- for format drivers: their own reads and writes of a kid, any thread. Writes may extend it;
 * reads behind its end give zeroes. --- */
int blk_kid_read(struct blk_node *kid, uint64_t offset, void *p, size_t length);
int blk_kid_write(struct blk_node *kid, uint64_t offset, const void *p, size_t length);
int blk_kid_run(struct blk_node *kid, enum blk_op op, unsigned flags, uint64_t offset,
                uint64_t length, const struct iovec *iov, unsigned n_iov);
/* Passes r down to the kid, at that offset there; `from` (NULL: nobody) hears when it is through. Never
 * blocks. Loop thread. */
void blk_forward(struct blk_node *from, struct blk_node *kid, struct blk_req *r, uint64_t at);
/* Copies `length` bytes from `skip` on of a vector as pieces of `out` (room for n_iov); how many. */
unsigned blk_iov_slice(const struct iovec *iov, unsigned n_iov, uint64_t skip, uint64_t length,
                       struct iovec *out);

/* --- pool.c --- */
/* r->via->driver->run() on a pool thread, then r->done on the loop. Loop thread. */
void blk_pool_submit(struct blk_pool *p, struct blk_req *r);
/* A read or write of a registered descriptor by io_uring, or as above where it cannot. Loop thread. */
void blk_pool_submit_fd(struct blk_pool *p, struct blk_req *r, int slot);
/* A slot of the ring's table of files, -1 when there is no ring. */
int blk_pool_register(struct blk_pool *p, int fd);
void blk_pool_unregister(struct blk_pool *p, int slot);
/* What was kept (gate.c) is guarded by the same mutex as what is on its way. Any thread. */
void blk_pool_lock(struct blk_pool *p);
void blk_pool_unlock(struct blk_pool *p);
/* Completions of node n that were not delivered yet tell their errors, whatever its policy. */
void blk_pool_report_locked(struct blk_pool *p, struct blk_node *n);
/* A request that had settled before goes to its submitter. */
void blk_pool_return_locked(struct blk_pool *p, struct blk_req *r, int result);
bool blk_pool_cancel(struct blk_pool *p, struct blk_req *r);
/* Any thread: returns when node n has no request in flight. */
void blk_pool_wait_idle(struct blk_pool *p, struct blk_node *n);
/* Loop thread: forgets completions of node n that were not delivered yet. */
void blk_pool_forget(struct blk_pool *p, struct blk_node *n);
/* Completes without work (errors), still from the loop and never from within blk_submit.
 * Loop thread. */
void blk_pool_complete(struct blk_pool *p, struct blk_req *r, int result);
void blk_pool_add(struct blk_pool *p, struct blk_node *n); /* a top node */
struct blk_node *blk_pool_top(struct blk_pool *p, const char *name, size_t len);
void blk_pool_wake(struct blk_pool *p); /* any thread: see who is idle now */

/* A protocol node gives up its descriptor without closing it. */
void blk_file_release(struct blk_node *n);
/* New bytes behind the end of the file read as zeroes (a regular file). */
bool blk_file_grows_zero(const struct blk_node *n);
int blk_file_fd(const struct blk_node *n);
/* A hint that this will be read soon; tools only. */
void blk_file_will_read(struct blk_node *n, uint64_t offset, uint64_t length);
uint64_t blk_file_length(struct blk_node *n);     /* as it is now */
bool blk_pool_confined(const struct blk_pool *p); /* NULL: no */
struct list *blk_pool_groups(struct blk_pool *p); /* throttle.c's; loop thread */
struct loop *blk_pool_loop(const struct blk_pool *p);
int64_t blk_pool_now(const struct blk_pool *p); /* ns */
bool blk_pool_has_clock(const struct blk_pool *p);
/* Locks on an open file description after the claims on its node. -EBUSY names the holder (which opens a file in /proc)
 * where `look` allows that. */
int blk_lock(int fd, unsigned need, unsigned share, const char *disk, bool look, struct err *e);

#endif
