/* SPDX-License-Identifier: Apache-2.0 */
/* The upper half of both NBD clients. `edge` keeps writes of parts of a block apart. */
#include "storage/nbd_far.h"

#include "engine/base/mem.h"
#include "storage/nbd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- transfers --- */

/* For servers that take whole blocks only: through memory that holds them. */
static int transfer_edges(struct nbd_far *f, const struct blk_req *r)
{
    uint64_t from = r->at / f->block * f->block, lead_n = r->at - from;
    uint64_t span = (lead_n + r->length + f->block - 1) / f->block * f->block;
    AUTO_FREE char *mem = try_alloc_n(1, span);
    struct iovec iov = { .iov_base = mem, .iov_len = span };
    struct blk_req io = { .op = BLK_READ, .at = from, .length = span, .iov = &iov, .n_iov = 1 };
    char *p = mem + lead_n;
    int rc;

    if (!mem) {
        return -ENOMEM;
    }
    if (from + span > f->node.size) {
        return -EIO;
    }
    rc = f->ops->transfer(f, &io);
    for (unsigned i = 0; i < r->n_iov && rc == 0; i++) {
        if (r->op == BLK_READ) {
            memcpy(r->iov[i].iov_base, p, r->iov[i].iov_len);
        } else {
            memcpy(p, r->iov[i].iov_base, r->iov[i].iov_len);
        }
        p += r->iov[i].iov_len;
    }
    io.op = BLK_WRITE;
    return rc != 0 || r->op == BLK_READ ? rc : f->ops->transfer(f, &io);
}

static bool whole_blocks(const struct nbd_far *f, const struct blk_req *r)
{
    uint64_t all = r->at | r->length;

    for (unsigned i = 0; i < r->n_iov; i++) {
        all |= r->iov[i].iov_len;
    }
    return all % f->block == 0;
}

static int any_transfer(struct nbd_far *f, const struct blk_req *r)
{
    int rc;

    if (r->length == 0) {
        return 0;
    }
    if (whole_blocks(f, r)) {
        return f->ops->transfer(f, r);
    }
    pthread_mutex_lock(&f->edge);
    rc = transfer_edges(f, r);
    pthread_mutex_unlock(&f->edge);
    return rc;
}

/* What lies behind the export's end reads as zeroes. */
static int read_past_end(struct nbd_far *f, const struct blk_req *r)
{
    uint64_t have = r->at < f->node.size ? f->node.size - r->at : 0;
    AUTO_FREE struct iovec *in = xnew_n(struct iovec, r->n_iov + 1);
    AUTO_FREE struct iovec *out = xnew_n(struct iovec, r->n_iov + 1);
    struct blk_req io = *r;
    unsigned n = blk_iov_slice(r->iov, r->n_iov, have, r->length - have, out);

    for (unsigned i = 0; i < n; i++) {
        memset(out[i].iov_base, 0, out[i].iov_len);
    }
    io.length = have;
    io.iov = in;
    io.n_iov = blk_iov_slice(r->iov, r->n_iov, 0, have, in);
    return any_transfer(f, &io);
}

/* --- ranges --- */

static int write_zeroes(struct nbd_far *f, uint64_t at, uint64_t length)
{
    uint64_t size = length < 1 << 20 ? length : 1 << 20;
    AUTO_FREE char *zeroes = xalloc(size);
    int rc = 0;

    while (length > 0 && rc == 0) {
        uint64_t n = length < size ? length : size;
        struct iovec iov = { .iov_base = zeroes, .iov_len = n };
        struct blk_req io = { .op = BLK_WRITE, .at = at, .length = n, .iov = &iov, .n_iov = 1 };

        rc = any_transfer(f, &io);
        at += n;
        length -= n;
    }
    return rc;
}

static int range(struct nbd_far *f, const struct blk_req *r)
{
    bool zero = r->op == BLK_ZERO;
    uint64_t at = r->at, left = r->length;

    if (left == 0 || (!zero && !f->can_trim)) {
        return 0;
    }
    if (!zero) { /* only whole blocks: it is a hint */
        at = (at + f->block - 1) / f->block * f->block;
        left = r->at + r->length > at ? (r->at + r->length - at) / f->block * f->block : 0;
    } else if (!f->can_zero || (at | left) % f->block) {
        return write_zeroes(f, at, left);
    }
    return left == 0 ? 0 : f->ops->range(f, r->op, r->flags, at, left);
}

int nbd_far_run(struct blk_node *n, struct blk_req *r)
{
    struct nbd_far *f = (struct nbd_far *)n;

    if (r->op == BLK_FLUSH) {
        return f->can_flush ? f->ops->flush(f) : 0;
    }
    if (r->flags & BLK_COMPRESS) {
        return -ENOTSUP;
    }
    if (r->at > n->size || r->length > n->size - r->at) {
        return r->op == BLK_READ && r->flags & BLK_PAST_END ? read_past_end(f, r)
               : r->op == BLK_READ                          ? -EIO
                                                            : -ENOSPC;
    }
    return r->op == BLK_READ || r->op == BLK_WRITE ? any_transfer(f, r) : range(f, r);
}

/* --- extents --- */

void nbd_extent_add(struct nbd_extent *x, const uint32_t *pairs, size_t n)
{
    if (n == 0 || x->got) {
        return;
    }
    x->got = true;
    x->flags = pairs[1];
    for (size_t i = 0; i < n && pairs[2 * i + 1] == x->flags; i++) {
        x->length += pairs[2 * i];
    }
}

int nbd_far_map(struct blk_node *n, uint64_t offset, struct blk_extent *out, struct err *e)
{
    struct nbd_far *f = (struct nbd_far *)n;
    uint64_t from = offset / f->block * f->block, left = n->size - from;
    struct nbd_extent x = { 0 };
    int rc;

    *out = (struct blk_extent){ .length = n->size - offset, .data = true, .present = true };
    if (!f->can_map) {
        return 0;
    }
    left = left < NBD_RANGE ? left : NBD_RANGE / f->block * f->block;
    rc = f->ops->status(f, from, left, &x);
    if (rc != 0) {
        return err_errno(e, -rc, "disk '%s': extent query", n->name);
    }
    x.length = x.length < n->size - from ? x.length : n->size - from;
    if (x.got && x.length > offset - from) {
        out->length = x.length - (offset - from);
        out->data = !(x.flags & NBD_STATE_HOLE) || !(x.flags & NBD_STATE_ZERO);
        out->zero = x.flags & NBD_STATE_ZERO;
    }
    return 0;
}

/* --- life --- */

void nbd_far_init(struct nbd_far *f, const struct nbd_far_ops *ops)
{
    f->ops = ops;
    pthread_mutex_init(&f->edge, NULL);
}

void nbd_far_done(struct nbd_far *f)
{
    pthread_mutex_destroy(&f->edge);
}

void nbd_far_limits(struct nbd_far *f, uint64_t least, uint64_t most)
{
    f->block = least > 0 && least <= 65536 && (least & (least - 1)) == 0 ? (uint32_t)least : 1;
    f->most = most > 0 && most < NBD_PAYLOAD ? (uint32_t)most / f->block * f->block
                                             : NBD_PAYLOAD;
    if (f->most == 0) {
        f->most = f->block;
    }
}
