/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Protocol driver "nbd": somebody else's export, by libnbd. One connection with many requests under way: each
 * thread puts its commands onto the wire and waits; one of those that wait looks after the socket for all.
 * `mutex` protects the handle, which no call enters without it, and `leader`.
 */
#include "engine/base/mem.h"
#include "storage/nbd.h"
#include "storage/nbd_far.h"

#include <errno.h>
#include <libnbd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { LEADER_MS = 1000 };

struct blk_nbd {
    struct nbd_far far;
    struct nbd_handle *h;
    pthread_mutex_t mutex;
    pthread_cond_t turn; /* a reply came, or nobody leads any more */
    bool leader;
    int wake; /* eventfd: there is something to send */
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

static int transfer(struct nbd_far *far, const struct blk_req *r)
{
    struct blk_nbd *b = (struct blk_nbd *)far;
    struct flight f = { 0 };
    uint64_t at = r->at;
    int rc;

    pthread_mutex_lock(&b->mutex);
    for (unsigned i = 0; i < r->n_iov && f.error == 0; i++) {
        char *p = r->iov[i].iov_base;
        size_t left = r->iov[i].iov_len;

        while (left > 0 && f.error == 0) {
            size_t n = left < far->most ? left : far->most;
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

/* --- ranges --- */

static int range(struct nbd_far *far, enum blk_op op, unsigned flags, uint64_t at,
                 uint64_t left)
{
    struct blk_nbd *b = (struct blk_nbd *)far;
    struct flight f = { 0 };
    int rc;

    pthread_mutex_lock(&b->mutex);
    while (left > 0 && f.error == 0) {
        uint64_t n = left < NBD_RANGE ? left : NBD_RANGE;
        nbd_completion_callback c = completion(&f);
        int64_t cookie = op == BLK_ZERO
                             ? nbd_aio_zero(b->h, n, at, c,
                                            flags & BLK_UNMAP ? 0 : LIBNBD_CMD_FLAG_NO_HOLE)
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

static int flush(struct nbd_far *far)
{
    struct blk_nbd *b = (struct blk_nbd *)far;
    struct flight f = { 0 };
    int rc;

    pthread_mutex_lock(&b->mutex);
    if (nbd_aio_flush(b->h, completion(&f), 0) < 0) {
        not_sent(&f);
    }
    rc = land(b, &f);
    pthread_mutex_unlock(&b->mutex);
    return rc;
}

/* --- extents --- */

static int on_extent(void *arg, const char *context, uint64_t offset, uint32_t *entries,
                     size_t n, int *error)
{
    (void)offset;
    (void)error;
    if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0) {
        nbd_extent_add(arg, entries, n / 2);
    }
    return 0;
}

static int status(struct nbd_far *far, uint64_t at, uint64_t length, struct nbd_extent *x)
{
    struct blk_nbd *b = (struct blk_nbd *)far;
    struct flight f = { 0 };
    int rc;

    pthread_mutex_lock(&b->mutex);
    if (nbd_aio_block_status(b->h, length, at,
                             (nbd_extent_callback){ .callback = on_extent, .user_data = x },
                             completion(&f), 0) < 0) {
        not_sent(&f);
    }
    rc = land(b, &f);
    pthread_mutex_unlock(&b->mutex);
    return rc;
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
    b->far.node.size = (uint64_t)size;
    nbd_far_limits(&b->far, least > 0 ? (uint64_t)least : 0, most > 0 ? (uint64_t)most : 0);
    b->far.can_flush = nbd_can_flush(b->h) == 1;
    b->far.can_trim = nbd_can_trim(b->h) == 1;
    b->far.can_zero = nbd_can_zero(b->h) == 1;
    b->far.can_map = nbd_can_meta_context(b->h, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
    if (!o->readonly && nbd_is_read_only(b->h) == 1) {
        return err_set(e, -EROFS, "disk '%s': %s is exported read-only", o->name, o->path);
    }
    return 0;
}

static const struct nbd_far_ops ops = {
    .transfer = transfer, .range = range, .flush = flush, .status = status
};

static int nbd_open(struct blk_node *n, const struct blk_options *o, struct err *e)
{
    struct blk_nbd *b = (struct blk_nbd *)n;

    b->wake = -1;
    nbd_far_init(&b->far, &ops);
    pthread_mutex_init(&b->mutex, NULL);
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
    nbd_far_done(&b->far);
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
    .run = nbd_far_run,
    .map = nbd_far_map,
    .close = nbd_close_node,
};
