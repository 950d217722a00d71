/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests: the checks that each passes, tracking of what is in flight, drain, and the calls that do
 * the work at once. Loop thread, except where block.h says otherwise.
 */
#include "storage/block.h"

#include "engine/base/mem.h"
#include "storage/driver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *blk_name(const struct blk_node *n)
{
    return n->name;
}

const char *blk_path(const struct blk_node *n)
{
    return n->path;
}

const char *blk_driver_name(const struct blk_node *n)
{
    return n->driver->name;
}

uint64_t blk_size(const struct blk_node *n)
{
    return n->size;
}

bool blk_readonly(const struct blk_node *n)
{
    return n->readonly;
}

struct blk_node *blk_child(const struct blk_node *n, enum blk_role role)
{
    return n->kid[role];
}

static int blk_check_req(const struct blk_node *n, const struct blk_req *r)
{
    if (r->op != BLK_READ && r->op != BLK_FLUSH && n->readonly) {
        return -EROFS;
    }
    if (r->op == BLK_FLUSH) {
        return 0;
    }
    return r->offset <= n->size && r->length <= n->size - r->offset ? 0 : -EINVAL;
}

void blk_start(struct blk_node *n, struct blk_req *r)
{
    int rc = blk_check_req(n, r);

    atomic_fetch_add(&n->in_flight, 1);
    if (rc != 0) {
        blk_pool_complete(n->pool, r, rc);
    } else if (n->driver->submit) {
        n->driver->submit(n, r);
    } else {
        blk_pool_submit(n->pool, r);
    }
}

void blk_set_hook(struct blk_node *n, struct blk_hook *h)
{
    n->hook = h;
}

void blk_set_io_thread(struct blk_node *n, unsigned which, unsigned first)
{
    n->io_thread = which;
    n->io_first = first;
}

void blk_submit(struct blk_node *n, struct blk_req *r)
{
    if (n->hook && !(r->flags & BLK_UNHOOKED)) {
        n->hook->submit(n->hook, r);
        return;
    }
    r->node = r->via = n;
    r->from = NULL;
    r->at = r->offset;
    r->flags &= ~(unsigned)BLK_FLUSHED;
    r->passed = NULL;
    if (n->drained) {
        list_append(&n->held, &r->link);
    } else if (!n->limited || !blk_throttle_keep(n, r)) {
        blk_start(n, r);
    }
}

bool blk_cancel(struct blk_req *r)
{
    struct blk_node *n = r->node;

    if (blk_gate_cancel(r) || blk_throttle_cancel(n, r)) {
        return true;
    }
    list_for_each (it, &n->held) {
        if (it == &r->link) {
            list_remove(it);
            atomic_fetch_add(&n->in_flight, 1);
            blk_pool_complete(n->pool, r, -ECANCELED);
            return true;
        }
    }
    return blk_pool_cancel(n->pool, r);
}

void blk_forward(struct blk_node *from, struct blk_node *kid, struct blk_req *r, uint64_t at)
{
    r->from = from;
    r->via = kid;
    r->at = at;
    if (kid->driver->submit) {
        kid->driver->submit(kid, r);
    } else {
        blk_pool_submit(kid->pool, r);
    }
}

void blk_wait_idle(struct blk_node *n)
{
    if (n->pool) {
        blk_throttle_release(n);
        blk_pool_wait_idle(n->pool, n);
    }
}

/* What limits hold back is not in flight, and waits on. */
void blk_drain_begin(struct blk_node *n)
{
    if (n->drained++ == 0 && n->pool) {
        blk_pool_wait_idle(n->pool, n);
    }
}

void blk_drain_end(struct blk_node *n)
{
    if (--n->drained == 0) {
        while (!list_empty(&n->held)) {
            struct blk_req *r = list_entry(n->held.next, struct blk_req, link);

            list_remove(&r->link);
            if (!n->limited || !blk_throttle_keep(n, r)) {
                blk_start(n, r);
            }
        }
        blk_throttle_undrained(n);
    }
}

/* --- extents --- */

int blk_map_layer(struct blk_node *n, uint64_t offset, struct blk_extent *out, struct err *e)
{
    struct blk_extent x = { .present = true };
    int rc;

    if (offset >= n->size) {
        return err_set(e, -EINVAL, "disk '%s': offset beyond its end", n->name);
    }
    rc = n->driver->map(n, offset, &x, e);
    if (rc == 0) {
        x.length = x.length < n->size - offset ? x.length : n->size - offset;
        *out = x;
    }
    return rc;
}

int blk_map(struct blk_node *n, uint64_t offset, struct blk_extent *out, struct err *e)
{
    struct blk_extent x;
    uint64_t left = UINT64_MAX;
    int rc = blk_map_layer(n, offset, &x, e);

    for (unsigned depth = 0; rc == 0; depth++) {
        struct blk_node *under = n->kid[BLK_BACKING];

        left = x.length = x.length < left ? x.length : left;
        x.depth = depth;
        if (x.present || !under || offset >= under->size) {
            break;
        }
        n = under;
        rc = blk_map_layer(n, offset, &x, e);
    }
    if (rc != 0) {
        return rc;
    }
    if (!x.present) {
        x.data = false;
        x.zero = true;
    }
    *out = x;
    return 0;
}

/* --- at once --- */

static void sync_settle(struct blk_node *n)
{
    if (atomic_fetch_sub(&n->in_flight, 1) == 1 && n->pool) {
        blk_pool_wake(n->pool);
    }
}

int blk_run(struct blk_node *n, struct blk_req *r)
{
    int rc = blk_check_req(n, r);

    if (rc != 0) {
        return rc;
    }
    r->node = r->via = n;
    r->passed = NULL;
    r->from = NULL;
    r->at = r->offset;
    atomic_fetch_add(&n->in_flight, 1);
    rc = n->driver->run(n, r);
    blk_changed(r);
    if (rc == 0 && blk_must_flush(r)) {
        rc = n->driver->run(n, &(struct blk_req){ .op = BLK_FLUSH, .node = n, .via = n });
    }
    blk_account(n, r, rc);
    sync_settle(n);
    return rc;
}

static int run_simple(struct blk_node *n, enum blk_op op, unsigned flags, uint64_t offset,
                      void *p, uint64_t length)
{
    struct iovec iov = { .iov_base = p, .iov_len = length };
    struct blk_req r = { .op = op,
                         .flags = flags,
                         .offset = offset,
                         .length = length,
                         .iov = &iov,
                         .n_iov = p ? 1 : 0 };

    return blk_run(n, &r);
}

int blk_pread(struct blk_node *n, uint64_t offset, void *p, size_t length)
{
    return length ? run_simple(n, BLK_READ, 0, offset, p, length) : 0;
}

int blk_pwrite(struct blk_node *n, uint64_t offset, const void *p, size_t length)
{
    return length ? run_simple(n, BLK_WRITE, 0, offset, (void *)p, length) : 0;
}

int blk_zero(struct blk_node *n, uint64_t offset, uint64_t length, unsigned flags)
{
    return run_simple(n, BLK_ZERO, flags, offset, NULL, length);
}

int blk_discard(struct blk_node *n, uint64_t offset, uint64_t length)
{
    return run_simple(n, BLK_DISCARD, BLK_UNMAP, offset, NULL, length);
}

int blk_flush(struct blk_node *n)
{
    return run_simple(n, BLK_FLUSH, 0, 0, NULL, 0);
}

int blk_kid_run(struct blk_node *kid, enum blk_op op, unsigned flags, uint64_t offset,
                uint64_t length, const struct iovec *iov, unsigned n_iov)
{
    struct blk_req r = { .op = op,
                         .flags = flags | (op == BLK_READ ? BLK_PAST_END : 0),
                         .offset = offset,
                         .length = length,
                         .iov = iov,
                         .n_iov = n_iov,
                         .node = kid,
                         .via = kid,
                         .at = offset };
    int rc = kid->driver->run(kid, &r);

    blk_changed(&r);
    blk_account(kid, &r, rc);
    return rc;
}

int blk_kid_read(struct blk_node *kid, uint64_t offset, void *p, size_t length)
{
    struct iovec iov = { .iov_base = p, .iov_len = length };

    return blk_kid_run(kid, BLK_READ, 0, offset, length, &iov, 1);
}

int blk_kid_write(struct blk_node *kid, uint64_t offset, const void *p, size_t length)
{
    struct iovec iov = { .iov_base = (void *)p, .iov_len = length };

    return blk_kid_run(kid, BLK_WRITE, 0, offset, length, &iov, 1);
}

unsigned blk_iov_slice(const struct iovec *iov, unsigned n_iov, uint64_t skip, uint64_t length,
                       struct iovec *out)
{
    unsigned n = 0;

    for (unsigned i = 0; i < n_iov && length > 0; i++) {
        uint64_t part = iov[i].iov_len;

        if (skip >= part) {
            skip -= part;
            continue;
        }
        part = part - skip < length ? part - skip : length;
        out[n++] = (struct iovec){ .iov_base = (char *)iov[i].iov_base + skip,
                                   .iov_len = part };
        length -= part;
        skip = 0;
    }
    return n;
}

int blk_resize(struct blk_node *n, uint64_t size, struct err *e)
{
    int rc;

    if (n->readonly) {
        return err_set(e, -EROFS, "disk '%s' is read-only", n->name);
    }
    if (!n->driver->resize || size % BLK_SECTOR) {
        return err_set(e, n->driver->resize ? -EINVAL : -ENOTSUP,
                       n->driver->resize ? "disk '%s': a size is a multiple of 512 bytes"
                                         : "disk '%s': its format cannot be resized",
                       n->name);
    }
    blk_drain_begin(n);
    rc = n->driver->resize(n, size, e);
    if (rc == 0) {
        blk_dirty_resized(n, size);
    }
    blk_drain_end(n);
    return rc;
}

/* --- counters --- */

bool blk_must_flush(const struct blk_req *r)
{
    return r->node->durable && r->op != BLK_READ && r->op != BLK_FLUSH;
}

void blk_changed(const struct blk_req *r)
{
    if (r->op != BLK_READ && r->op != BLK_FLUSH) {
        atomic_fetch_add(&r->via->changes, 1);
    }
}

void blk_account(struct blk_node *n, const struct blk_req *r, int result)
{
    const struct blk_node *image = n->driver->kind == BLK_FILTER ? n->kid[BLK_FILE] : NULL;

    if (n->dirty && result != -ECANCELED) {
        blk_dirty_mark(n, r);
    }
    if (image && image->dirty && result != -ECANCELED) { /* those that the image keeps */
        blk_dirty_mark(n->kid[BLK_FILE], r);
    }
    if (result != 0) {
        n->count.errors++;
    } else if (r->op == BLK_READ) {
        n->count.reads++;
        n->count.read_bytes += r->length;
    } else if (r->op == BLK_FLUSH) {
        n->count.flushes++;
    } else {
        n->count.writes++;
        n->count.written_bytes += r->op == BLK_WRITE ? r->length : 0;
    }
}

bool blk_busy(const struct blk_node *n)
{
    return atomic_load(&n->in_flight) > 0;
}

void blk_count(const struct blk_node *n, struct blk_counters *out)
{
    *out = (struct blk_counters){
        .reads = n->count.reads,
        .read_bytes = n->count.read_bytes,
        .writes = n->count.writes,
        .written_bytes = n->count.written_bytes,
        .flushes = n->count.flushes,
        .errors = n->count.errors,
    };
}
