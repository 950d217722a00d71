/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Protocol driver "nbd": somebody else's export, by libnbd. One connection with many requests under way: each
 * thread puts its commands onto the wire and waits; one of those that wait looks after the socket for all.
 * `mutex` protects the handle, which no call enters without it, and `leader`.
 */
#include "engine/base/mem.h"
#include "storage/driver.h"
#include "storage/nbd.h"

#include <errno.h>
#include <libnbd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { MAX_PAYLOAD = 32 << 20, MAX_RANGE = 1 << 30, LEADER_MS = 1000 };

struct blk_nbd {
    struct blk_node node;
    struct nbd_handle *h;
    pthread_mutex_t mutex;
    pthread_cond_t turn;  /* a reply came, or nobody leads any more */
    pthread_mutex_t edge; /* one write of less than a block at a time */
    bool leader;
    int wake; /* eventfd: there is something to send */
    bool can_flush, can_trim, can_zero, can_map;
    uint32_t block, most; /* smallest and largest request */
};

/* Commands of one request: how many are under way, and the first error. */
struct flight {
    unsigned left;
    int error;
};

static int on_complete(void *arg, int *error)
{
    struct flight *f = arg;

    f->left--;
    if (*error && f->error == 0) {
        f->error = -*error;
    }
    return 1; /* forget it */
}

static nbd_completion_callback completion(struct flight *f)
{
    f->left++;
    return (nbd_completion_callback){ .callback = on_complete, .user_data = f };
}

/* A command did not get onto the wire. libnbd calls no completion for it. */
static void not_sent(struct flight *f)
{
    int why = nbd_get_errno();

    f->left--;
    if (f->error == 0) {
        f->error = why ? -why : -EIO;
    }
}

/* Waits at the socket once, for everybody. Mutex held, but not while waiting. */
static void lead(struct blk_nbd *b)
{
    unsigned dir = nbd_aio_get_direction(b->h);
    struct pollfd p[2] = {
        { .fd = nbd_aio_get_fd(b->h),
          .events = (short)((dir & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                            (dir & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0)) },
        { .fd = b->wake, .events = POLLIN },
    };
    uint64_t n;

    b->leader = true;
    pthread_mutex_unlock(&b->mutex);
    (void)poll(p, 2, LEADER_MS);
    if (p[1].revents & POLLIN) {
        (void)!read(b->wake, &n, sizeof(n));
    }
    pthread_mutex_lock(&b->mutex);
    b->leader = false;
    dir = nbd_aio_get_direction(b->h);
    if (p[0].revents & (POLLIN | POLLHUP | POLLERR) && dir & LIBNBD_AIO_DIRECTION_READ) {
        (void)nbd_aio_notify_read(b->h);
    } else if (p[0].revents & (POLLOUT | POLLHUP | POLLERR) &&
               dir & LIBNBD_AIO_DIRECTION_WRITE) {
        (void)nbd_aio_notify_write(b->h);
    }
    pthread_cond_broadcast(&b->turn);
}

/* Mutex held. Returns the error of the flight. */
static int land(struct blk_nbd *b, struct flight *f)
{
    const uint64_t one = 1;

    if (f->left && b->leader && nbd_aio_get_direction(b->h) & LIBNBD_AIO_DIRECTION_WRITE) {
        (void)!write(b->wake, &one, sizeof(one));
    }
    while (f->left) {
        if (b->leader) {
            pthread_cond_wait(&b->turn, &b->mutex);
        } else {
            lead(b);
        }
    }
    pthread_cond_broadcast(&b->turn); /* somebody else may have to lead */
    return f->error;
}

/* --- transfers --- */

static int transfer(struct blk_nbd *b, const struct blk_req *r)
{
    struct flight f = { 0 };
    uint64_t at = r->at;
    int rc;

    pthread_mutex_lock(&b->mutex);
    for (unsigned i = 0; i < r->n_iov && f.error == 0; i++) {
        char *p = r->iov[i].iov_base;
        size_t left = r->iov[i].iov_len;

        while (left > 0 && f.error == 0) {
            size_t n = left < b->most ? left : b->most;
            nbd_completion_callback c = completion(&f);
            int64_t cookie = r->op == BLK_READ ? nbd_aio_pread(b->h, p, n, at, c, 0)
                                               : nbd_aio_pwrite(b->h, p, n, at, c, 0);

            if (cookie < 0) {
                not_sent(&f);
            }
            at += n;
            p += n;
            left -= n;
        }
    }
    rc = land(b, &f);
    pthread_mutex_unlock(&b->mutex);
    return rc;
}

/* For servers that take whole blocks only: through memory that holds them. */
static int transfer_edges(struct blk_nbd *b, const struct blk_req *r)
{
    uint64_t from = r->at / b->block * b->block, lead_n = r->at - from;
    uint64_t span = (lead_n + r->length + b->block - 1) / b->block * b->block;
    AUTO_FREE char *mem = try_alloc_n(1, span);
    struct iovec iov = { .iov_base = mem, .iov_len = span };
    struct blk_req io = { .op = BLK_READ, .at = from, .length = span, .iov = &iov, .n_iov = 1 };
    char *p = mem + lead_n;
    int rc;

    if (!mem) {
        return -ENOMEM;
    }
    if (from + span > b->node.size) {
        return -EIO;
    }
    rc = transfer(b, &io);
    for (unsigned i = 0; i < r->n_iov && rc == 0; i++) {
        if (r->op == BLK_READ) {
            memcpy(r->iov[i].iov_base, p, r->iov[i].iov_len);
        } else {
            memcpy(p, r->iov[i].iov_base, r->iov[i].iov_len);
        }
        p += r->iov[i].iov_len;
    }
    io.op = BLK_WRITE;
    return rc != 0 || r->op == BLK_READ ? rc : transfer(b, &io);
}

static bool whole_blocks(const struct blk_nbd *b, const struct blk_req *r)
{
    uint64_t all = r->at | r->length;

    for (unsigned i = 0; i < r->n_iov; i++) {
        all |= r->iov[i].iov_len;
    }
    return all % b->block == 0;
}

static int any_transfer(struct blk_nbd *b, const struct blk_req *r)
{
    int rc;

    if (r->length == 0) {
        return 0;
    }
    if (whole_blocks(b, r)) {
        return transfer(b, r);
    }
    pthread_mutex_lock(&b->edge);
    rc = transfer_edges(b, r);
    pthread_mutex_unlock(&b->edge);
    return rc;
}

/* What lies behind the export's end reads as zeroes. */
static int read_past_end(struct blk_nbd *b, const struct blk_req *r)
{
    uint64_t have = r->at < b->node.size ? b->node.size - r->at : 0;
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
    return any_transfer(b, &io);
}

/* --- ranges --- */

static int write_zeroes(struct blk_nbd *b, uint64_t at, uint64_t length)
{
    uint64_t size = length < 1 << 20 ? length : 1 << 20;
    AUTO_FREE char *zeroes = xalloc(size);
    int rc = 0;

    while (length > 0 && rc == 0) {
        uint64_t n = length < size ? length : size;
        struct iovec iov = { .iov_base = zeroes, .iov_len = n };
        struct blk_req io = { .op = BLK_WRITE, .at = at, .length = n, .iov = &iov, .n_iov = 1 };

        rc = any_transfer(b, &io);
        at += n;
        length -= n;
    }
    return rc;
}

static int range(struct blk_nbd *b, const struct blk_req *r)
{
    bool zero = r->op == BLK_ZERO;
    uint64_t at = r->at, left = r->length;
    struct flight f = { 0 };
    int rc;

    if (left == 0 || (!zero && !b->can_trim)) {
        return 0;
    }
    if (!zero) { /* only whole blocks: it is a hint */
        at = (at + b->block - 1) / b->block * b->block;
        left = r->at + r->length > at ? (r->at + r->length - at) / b->block * b->block : 0;
    } else if (!b->can_zero || (at | left) % b->block) {
        return write_zeroes(b, at, left);
    }
    pthread_mutex_lock(&b->mutex);
    while (left > 0 && f.error == 0) {
        uint64_t n = left < MAX_RANGE ? left : MAX_RANGE;
        nbd_completion_callback c = completion(&f);
        int64_t cookie = zero ? nbd_aio_zero(b->h, n, at, c,
                                             r->flags & BLK_UNMAP ? 0 : LIBNBD_CMD_FLAG_NO_HOLE)
                              : nbd_aio_trim(b->h, n, at, c, 0);

        if (cookie < 0) {
            not_sent(&f);
        }
        at += n;
        left -= n;
    }
    rc = land(b, &f);
    pthread_mutex_unlock(&b->mutex);
    return rc;
}

static int flush(struct blk_nbd *b)
{
    struct flight f = { 0 };
    int rc;

    if (!b->can_flush) {
        return 0;
    }
    pthread_mutex_lock(&b->mutex);
    if (nbd_aio_flush(b->h, completion(&f), 0) < 0) {
        not_sent(&f);
    }
    rc = land(b, &f);
    pthread_mutex_unlock(&b->mutex);
    return rc;
}

static int nbd_run(struct blk_node *n, struct blk_req *r)
{
    struct blk_nbd *b = (struct blk_nbd *)n;

    if (r->op == BLK_FLUSH) {
        return flush(b);
    }
    if (r->flags & BLK_COMPRESS) {
        return -ENOTSUP;
    }
    if (r->at > n->size || r->length > n->size - r->at) {
        return r->op == BLK_READ && r->flags & BLK_PAST_END ? read_past_end(b, r)
               : r->op == BLK_READ                          ? -EIO
                                                            : -ENOSPC;
    }
    return r->op == BLK_READ || r->op == BLK_WRITE ? any_transfer(b, r) : range(b, r);
}

/* --- extents --- */

struct extent {
    uint64_t length;
    uint32_t flags;
    bool got;
};

static int on_extent(void *arg, const char *context, uint64_t offset, uint32_t *entries,
                     size_t n, int *error)
{
    struct extent *x = arg;

    (void)offset;
    (void)error;
    if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0 && n >= 2 && !x->got) {
        x->got = true;
        x->flags = entries[1];
        for (size_t i = 0; i + 1 < n && entries[i + 1] == x->flags; i += 2) {
            x->length += entries[i];
        }
    }
    return 0;
}

static int nbd_map(struct blk_node *n, uint64_t offset, struct blk_extent *out, struct err *e)
{
    struct blk_nbd *b = (struct blk_nbd *)n;
    uint64_t from = offset / b->block * b->block, left = n->size - from;
    struct extent x = { 0 };
    struct flight f = { 0 };
    int rc;

    *out = (struct blk_extent){ .length = n->size - offset, .data = true, .present = true };
    if (!b->can_map) {
        return 0;
    }
    left = left < MAX_RANGE ? left : MAX_RANGE / b->block * b->block;
    pthread_mutex_lock(&b->mutex);
    if (nbd_aio_block_status(b->h, left, from,
                             (nbd_extent_callback){ .callback = on_extent, .user_data = &x },
                             completion(&f), 0) < 0) {
        not_sent(&f);
    }
    rc = land(b, &f);
    pthread_mutex_unlock(&b->mutex);
    if (rc != 0) {
        return err_errno(e, -rc, "disk '%s': extent query", n->name);
    }
    if (x.got && x.length > offset - from) {
        out->length = x.length - (offset - from);
        out->data = !(x.flags & LIBNBD_STATE_HOLE) || !(x.flags & LIBNBD_STATE_ZERO);
        out->zero = x.flags & LIBNBD_STATE_ZERO;
    }
    return 0;
}

/* --- life --- */

static int nbd_error(struct err *e, const struct blk_options *o)
{
    int why = nbd_get_errno();

    return err_set(e, why ? -why : -EIO, "disk '%s': %s: %s", o->name, o->path,
                   nbd_get_error());
}

static int read_limits(struct blk_nbd *b, const struct blk_options *o, struct err *e)
{
    int64_t size = nbd_get_size(b->h), least = nbd_get_block_size(b->h, LIBNBD_SIZE_MINIMUM),
            most = nbd_get_block_size(b->h, LIBNBD_SIZE_MAXIMUM);

    if (size < 0) {
        return nbd_error(e, o);
    }
    b->node.size = (uint64_t)size;
    b->block = least > 0 && least <= 65536 && (least & (least - 1)) == 0 ? (uint32_t)least : 1;
    b->most = most > 0 && most < MAX_PAYLOAD ? (uint32_t)most / b->block * b->block
                                             : MAX_PAYLOAD;
    if (b->most == 0) {
        b->most = b->block;
    }
    b->can_flush = nbd_can_flush(b->h) == 1;
    b->can_trim = nbd_can_trim(b->h) == 1;
    b->can_zero = nbd_can_zero(b->h) == 1;
    b->can_map = nbd_can_meta_context(b->h, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
    if (!o->readonly && nbd_is_read_only(b->h) == 1) {
        return err_set(e, -EROFS, "disk '%s': %s is exported read-only", o->name, o->path);
    }
    return 0;
}

static int nbd_open(struct blk_node *n, const struct blk_options *o, struct err *e)
{
    struct blk_nbd *b = (struct blk_nbd *)n;

    b->wake = -1;
    pthread_mutex_init(&b->mutex, NULL);
    pthread_mutex_init(&b->edge, NULL);
    pthread_cond_init(&b->turn, NULL);
    b->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (b->wake < 0) {
        return err_errno(e, errno, "disk '%s': cannot make an eventfd", o->name);
    }
    b->h = nbd_create();
    if (!b->h || nbd_add_meta_context(b->h, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 ||
        nbd_set_uri_allow_local_file(b->h, true) < 0) {
        return nbd_error(e, o);
    }
    if (o->fd >= 0 ? nbd_connect_socket(b->h, o->fd) < 0 : nbd_connect_uri(b->h, o->path) < 0) {
        return nbd_error(e, o);
    }
    return read_limits(b, o, e);
}

static int nbd_close_node(struct blk_node *n)
{
    struct blk_nbd *b = (struct blk_nbd *)n;

    if (b->h && nbd_aio_is_ready(b->h) > 0) {
        (void)nbd_shutdown(b->h, 0);
    }
    nbd_close(b->h);
    if (b->wake >= 0) {
        close(b->wake);
    }
    pthread_cond_destroy(&b->turn);
    pthread_mutex_destroy(&b->edge);
    pthread_mutex_destroy(&b->mutex);
    return 0;
}

bool nbd_is_uri(const char *path)
{
    static const char *const schemes[] = { "nbd://", "nbds://", "nbd+unix://", "nbds+unix://" };

    for (unsigned i = 0; i < ARRAY_LEN(schemes); i++) {
        if (strncmp(path, schemes[i], strlen(schemes[i])) == 0) {
            return true;
        }
    }
    return false;
}

const struct blk_driver blk_nbd_driver = {
    .name = "nbd",
    .doc = "an export of an NBD server",
    .kind = BLK_PROTOCOL,
    .size = sizeof(struct blk_nbd),
    .open = nbd_open,
    .run = nbd_run,
    .map = nbd_map,
    .close = nbd_close_node,
};
