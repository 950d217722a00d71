/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD server's requests: reads, writes, flushes, trims, zeroes by blk_submit(), several under way at a time and
 * answered as they end; extents by a worker, since tables may have to be read for them. Loop thread, but for status_run().
 */
#include "engine/base/mem.h"
#include "storage/bitmap.h"
#include "storage/nbd_server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    EXTENTS = 4096, /* told at once, for each context */
    /* what fails is the client's to hear of, and no guest has to stop for it; its limits are not ours */
    IO_FLAGS = BLK_REPORT | BLK_UNLIMITED
};

static uint32_t wire_error(int result)
{
    switch (-result) {
    case 0:
    case EPERM:
    case ENOMEM:
    case EINVAL:
    case ENOSPC:
    case EOVERFLOW:
        return (uint32_t)-result;
    case EROFS:
        return EPERM;
    case ENOTSUP:
        return 95;
    case ESHUTDOWN:
        return 108;
    default:
        return EIO;
    }
}

/* --- replies --- */

static size_t chunk_head(uint8_t *p, const struct nbd_request *r, uint16_t flags, uint16_t type,
                         uint32_t length)
{
    put32(p, NBD_STRUCTURED_MAGIC);
    put16(p + 4, flags);
    put16(p + 6, type);
    put64(p + 8, r->cookie);
    put32(p + 16, length);
    return 20;
}

static size_t simple_head(uint8_t *p, const struct nbd_request *r, int result)
{
    put32(p, NBD_SIMPLE_MAGIC);
    put32(p + 4, wire_error(result));
    put64(p + 8, r->cookie);
    return 16;
}

/* An error, or success without data. r is freed. */
static void answer(struct nbd_request *r, int result)
{
    struct nbd_client *c = r->client;
    uint8_t p[256];
    size_t n;

    if (!c->structured || (result == 0 && r->type != NBD_CMD_READ)) {
        n = simple_head(p, r, result);
    } else if (result == 0) {
        n = chunk_head(p, r, NBD_CHUNK_DONE, NBD_CHUNK_NONE, 0);
    } else {
        const char *text = strerror(-result);
        size_t len = strlen(text) < 200 ? strlen(text) : 200;

        n = chunk_head(p, r, NBD_CHUNK_DONE, NBD_CHUNK_ERROR, (uint32_t)(6 + len));
        put32(p + n, wire_error(result));
        put16(p + n + 4, (uint16_t)len);
        memcpy(p + n + 6, text, len);
        n += 6 + len;
    }
    nbd_send(c, p, n, NULL, 0, r);
}

static bool all_zero(const uint8_t *p, size_t n)
{
    return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

static void answer_read(struct nbd_request *r)
{
    struct nbd_client *c = r->client;
    uint8_t p[40];
    size_t n;

    if (!c->structured) {
        n = simple_head(p, r, 0);
        nbd_send(c, p, n, r->data, r->length, r);
        return;
    }
    if (all_zero(r->data, r->length)) { /* saves what it would take on the wire */
        n = chunk_head(p, r, NBD_CHUNK_DONE, NBD_CHUNK_HOLE, 12);
        put64(p + n, r->offset);
        put32(p + n + 8, r->length);
        nbd_send(c, p, n + 12, NULL, 0, r);
        return;
    }
    n = chunk_head(p, r, NBD_CHUNK_DONE, NBD_CHUNK_DATA, 8 + r->length);
    put64(p + n, r->offset);
    nbd_send(c, p, n + 8, r->data, r->length, r);
}

/* --- input and output --- */

static void on_io(struct blk_req *io, int result)
{
    struct nbd_request *r = io->arg;
    struct nbd_client *c = r->client;

    if (result == 0 && r->flags & NBD_FLAG_FUA && r->type != NBD_CMD_READ && !r->flushing) {
        r->flushing = true;
        r->io = (struct blk_req){ .op = BLK_FLUSH, .flags = IO_FLAGS, .done = on_io, .arg = r };
        blk_submit(r->export->node, &r->io);
        return;
    }
    if (result == 0 && r->type == NBD_CMD_READ) {
        answer_read(r);
    } else {
        answer(r, result);
    }
    nbd_settled(c);
}

static void begin_io(struct nbd_request *r)
{
    static const enum blk_op ops[] = {
        [NBD_CMD_READ] = BLK_READ,    [NBD_CMD_WRITE] = BLK_WRITE, [NBD_CMD_FLUSH] = BLK_FLUSH,
        [NBD_CMD_TRIM] = BLK_DISCARD, [NBD_CMD_ZEROES] = BLK_ZERO,
    };

    r->io = (struct blk_req){ .op = ops[r->type], .flags = IO_FLAGS, .done = on_io, .arg = r };
    if (r->type != NBD_CMD_FLUSH) {
        r->io.offset = r->offset;
        r->io.length = r->length;
    }
    if (r->type == NBD_CMD_TRIM ||
        (r->type == NBD_CMD_ZEROES && !(r->flags & NBD_FLAG_NO_HOLE))) {
        r->io.flags |= BLK_UNMAP;
    }
    if (r->data) {
        r->iov = (struct iovec){ .iov_base = r->data, .iov_len = r->length };
        r->io.iov = &r->iov;
        r->io.n_iov = 1;
    }
    r->client->in_flight++;
    blk_submit(r->export->node, &r->io);
}

void nbd_write_filled(struct nbd_client *c)
{
    struct nbd_request *r = c->filling;

    c->filling = NULL;
    begin_io(r);
}

/* --- extents --- */

struct extents {
    uint8_t *p; /* of pairs of length and flags */
    unsigned n;
};

/* Joins it to the one before where that says the same. False: no room. */
static bool extent_add(struct extents *x, uint64_t length, uint32_t flags, unsigned most)
{
    uint8_t *last = x->p + 8 * (x->n - 1);

    if (x->n > 0 && get32(last + 4) == flags && get32(last) + length <= UINT32_MAX) {
        put32(last, (uint32_t)(get32(last) + length));
        return true;
    }
    if (x->n >= most) {
        return false;
    }
    put32(x->p + 8 * x->n, (uint32_t)length);
    put32(x->p + 8 * x->n + 4, flags);
    x->n++;
    return true;
}

static int map_extents(struct nbd_request *r, enum nbd_context k, struct extents *x,
                       unsigned most)
{
    uint64_t at = r->offset, end = r->offset + r->length;

    while (at < end) {
        struct blk_extent b;
        uint32_t flags;
        uint64_t length;
        int rc = blk_map(r->export->node, at, &b, NULL);

        if (rc != 0) {
            return rc;
        }
        if (b.length == 0) {
            return -EIO;
        }
        length = b.length < end - at ? b.length : end - at;
        flags = k == NBD_CTX_DEPTH
                    ? (b.present ? b.depth + 1 : 0)
                    : (b.data ? 0 : NBD_STATE_HOLE) | (b.zero ? NBD_STATE_ZERO : 0);
        if (!extent_add(x, length, flags, most)) {
            break;
        }
        at += length;
    }
    return 0;
}

static int bitmap_extents(struct nbd_request *r, struct extents *x, unsigned most)
{
    uint64_t at = r->offset, end = r->offset + r->length, from, length;

    while (at < end) {
        bool more = blk_dirty_next(r->export->bitmap, at, end - at, &from, &length);

        if (!more || from >= end) {
            (void)extent_add(x, end - at, 0, most);
            break;
        }
        length = from + length < end ? length : end - from;
        if (from < at) { /* it begins before what was asked */
            length -= at - from;
            from = at;
        }
        if ((from > at && !extent_add(x, from - at, 0, most)) ||
            !extent_add(x, length, 1, most)) {
            break;
        }
        at = from + length;
    }
    return 0;
}

/* On a worker: a chunk for each context that was chosen. */
static void status_run(struct work *w)
{
    struct nbd_request *r = container_of(w, struct nbd_request, work);
    unsigned most = r->flags & NBD_FLAG_ONE ? 1 : EXTENTS, left = r->client->contexts;
    AUTO_FREE uint8_t *room = xalloc(EXTENTS * 8);

    for (unsigned k = 0; k < NBD_CONTEXTS && r->result == 0; k++) {
        struct extents x = { .p = room };
        uint8_t head[24];

        if (!(left & 1u << k)) {
            continue;
        }
        left &= ~(1u << k);
        r->result = k == NBD_CTX_BITMAP ? bitmap_extents(r, &x, most)
                                        : map_extents(r, k, &x, most);
        if (r->result == 0) {
            chunk_head(head, r, left ? 0 : NBD_CHUNK_DONE, NBD_CHUNK_STATUS, 4 + 8 * x.n);
            put32(head + 20, k + 1);
            buf_add(&r->chunks, head, 24);
            buf_add(&r->chunks, x.p, 8 * x.n);
        }
    }
}

static void status_done(struct work *w)
{
    struct nbd_request *r = container_of(w, struct nbd_request, work);
    struct nbd_client *c = r->client;

    if (r->result == 0) {
        nbd_send(c, r->chunks.data, 0, r->chunks.data, r->chunks.len, r);
    } else {
        answer(r, r->result);
    }
    nbd_settled(c);
}

/* --- requests --- */

static bool in_range(const struct nbd_request *r)
{
    uint64_t size = blk_size(r->export->node);

    return r->offset <= size && r->length <= size - r->offset;
}

static int check(const struct nbd_request *r)
{
    unsigned known = NBD_FLAG_FUA;

    switch (r->type) {
    case NBD_CMD_READ:
        known |= NBD_FLAG_DF;
        break;
    case NBD_CMD_ZEROES:
        known |= NBD_FLAG_NO_HOLE;
        break;
    case NBD_CMD_STATUS:
        known |= NBD_FLAG_ONE;
        break;
    case NBD_CMD_FLUSH:
        return r->flags & ~NBD_FLAG_FUA || r->offset || r->length ? -EINVAL : 0;
    case NBD_CMD_WRITE:
    case NBD_CMD_TRIM:
    case NBD_CMD_CACHE:
        break;
    default:
        return -EINVAL;
    }
    if (r->flags & ~known || r->length == 0) {
        return -EINVAL;
    }
    if (r->type == NBD_CMD_WRITE || r->type == NBD_CMD_ZEROES || r->type == NBD_CMD_TRIM) {
        if (!r->export->writable) {
            return -EPERM;
        }
        if (!in_range(r)) {
            return -ENOSPC;
        }
    }
    if ((r->type == NBD_CMD_READ || r->type == NBD_CMD_WRITE) && r->length > NBD_REQUEST_MAX) {
        return -EOVERFLOW;
    }
    if (r->type == NBD_CMD_STATUS && !r->client->contexts) {
        return -EINVAL;
    }
    return in_range(r) ? 0 : -EINVAL;
}

static void begin(struct nbd_request *r)
{
    struct nbd_client *c = r->client;

    if (r->type == NBD_CMD_READ || r->type == NBD_CMD_WRITE) {
        r->data = malloc(r->length);
        if (!r->data) {
            if (r->type == NBD_CMD_WRITE) {
                c->drop = r->length;
                c->state = NBD_ST_DROP;
            }
            answer(r, -ENOMEM);
            return;
        }
        r->charged = r->length;
        c->bytes += r->charged;
    }
    switch (r->type) {
    case NBD_CMD_WRITE:
        c->filling = r;
        c->filled = 0;
        c->state = NBD_ST_PAYLOAD;
        break;
    case NBD_CMD_CACHE: /* a hint; the host reads ahead by itself */
        answer(r, 0);
        break;
    case NBD_CMD_STATUS:
        r->work = (struct work){ .run = status_run, .done = status_done };
        c->in_flight++;
        workers_queue(nbd_workers(c), &r->work);
        break;
    default:
        begin_io(r);
    }
}

void nbd_request(struct nbd_client *c, const uint8_t *head)
{
    struct nbd_request *r;
    int rc;

    if (get32(head) != NBD_REQUEST_MAGIC) {
        nbd_end(c, true);
        return;
    }
    if (get16(head + 6) == NBD_CMD_DISC) {
        nbd_end(c, false);
        return;
    }
    r = xnew(struct nbd_request);
    r->client = c;
    r->export = c->export;
    r->flags = get16(head + 4);
    r->type = get16(head + 6);
    r->cookie = get64(head + 8);
    r->offset = get64(head + 16);
    r->length = get32(head + 24);
    rc = check(r);
    if (rc == 0) {
        begin(r);
        return;
    }
    if (r->type == NBD_CMD_WRITE && r->length) {
        c->drop = r->length;
        c->state = NBD_ST_DROP;
    }
    answer(r, rc);
}
