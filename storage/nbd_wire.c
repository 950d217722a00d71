/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Protocol driver "nbd" over a descriptor that somebody else has connected: for the emulator, which makes no socket and is linked
 * with little (doc/proto.md of the NetworkBlockDevice project). Owns the descriptor. Many requests are under way; each
 * thread sends its own and waits, and one of those that wait (the leader) reads replies for all, so that neither the loop nor a thread of our
 * own is needed. `sending` is held while a request goes out, `mutex` protects the rest; nobody takes `sending` under `mutex`.
 *
 * A connection that breaks stays broken: what is under way and what comes fails with -ENOTCONN at once, until
 * blk_nbd_reconnect(). The descriptor is closed by the loop's thread alone, while nobody sends and nobody leads.
 */
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "storage/nbd.h"
#include "storage/nbd_far.h"
#include "storage/nbd_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_MS INT64_C(1000000)
#define SILENCE_NS (60000 * NS_PER_MS) /* a server that owes an answer so long is gone */
#define SLICE_MS 200                   /* how long a thread waits without looking around */
enum {
    SCATTER = 128 << 10,
    IOV_PART = 64,
    CHUNK_HEAD = 16,
    STATUS_PAIRS = 64,
    ERROR_MOST = 4096
};

/* One command under way; lives on its thread's stack. */
struct flight {
    struct list link;
    uint64_t cookie, at, length; /* of what a read gets */
    uint64_t had;                /* bytes of it that came */
    const struct iovec *iov;
    unsigned n_iov;
    uint16_t command;
    struct nbd_extent *extent;
    int error;
    bool done;
};

struct blk_wire {
    struct nbd_far far;
    int fd;
    char *export;
    bool unsafe;
    pthread_mutex_t sending;
    pthread_mutex_t mutex;
    pthread_cond_t turn; /* an answer came, or nobody leads any more */
    struct list flights;
    bool leader;
    _Atomic bool lost;
    uint64_t cookie;
    int64_t heard; /* when the last answer came, or the first command after silence went out */
    bool structured;
    uint32_t context; /* of base:allocation, when far.can_map */
    void (*on_lost)(void *arg);
    void *arg;
    char *scratch; /* the leader's */
};

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* --- numbers --- */

static void put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
    put16(p, (uint16_t)(v >> 16));
    put16(p + 2, (uint16_t)v);
}

static void put64(uint8_t *p, uint64_t v)
{
    put32(p, (uint32_t)(v >> 32));
    put32(p + 4, (uint32_t)v);
}

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static uint64_t get64(const uint8_t *p)
{
    return (uint64_t)get32(p) << 32 | get32(p + 4);
}

/* --- the socket --- */

/* Ends the wait when `until` has passed or *given_up is set (NULL: never). */
struct patience {
    int64_t until;
    _Atomic bool *given_up;
    char *scratch; /* SCATTER bytes; of who receives */
};

static int wait_for(int fd, short what, const struct patience *p)
{
    for (;;) {
        struct pollfd w = { .fd = fd, .events = what };
        int n = poll(&w, 1, SLICE_MS);

        if (p->given_up && *p->given_up) {
            return -ENOTCONN;
        }
        if (n > 0) {
            return 0;
        }
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        if (now_ns() > p->until) {
            return -ETIMEDOUT;
        }
    }
}

/* Bytes `skip` on of a vector, at most IOV_PART pieces. */
static unsigned slice(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t length,
                      struct iovec *out)
{
    unsigned k = 0;

    for (unsigned i = 0; i < n && k < IOV_PART && length > 0; i++) {
        uint64_t len = iov[i].iov_len;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        len = len - skip < length ? len - skip : length;
        out[k++] = (struct iovec){ .iov_base = (char *)iov[i].iov_base + skip, .iov_len = len };
        length -= len;
        skip = 0;
    }
    return k;
}

static int send_all(int fd, const struct iovec *iov, unsigned n, struct patience *p)
{
    uint64_t left = 0, done = 0;
    struct iovec part[IOV_PART];

    for (unsigned i = 0; i < n; i++) {
        left += iov[i].iov_len;
    }
    while (left > 0) {
        unsigned k = slice(iov, n, done, left, part);
        ssize_t put = writev(fd, part, (int)k);
        int rc = 0;

        if (put > 0) {
            done += (uint64_t)put;
            left -= (uint64_t)put;
            p->until = now_ns() + SILENCE_NS;
        } else if (put < 0 && errno != EAGAIN && errno != EINTR) {
            return -errno;
        } else {
            rc = wait_for(fd, POLLOUT, p);
        }
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* What is there now, at most n bytes: how many, or a negative errno; waits for the first. recvfrom() and no recvmsg(): nobody hands
 * us descriptors. */
static ssize_t receive_some(int fd, void *out, size_t n, struct patience *p)
{
    for (;;) {
        ssize_t got = recvfrom(fd, out, n, MSG_DONTWAIT, NULL, NULL);
        int rc;

        if (got > 0) {
            p->until = now_ns() + SILENCE_NS;
            return got;
        }
        if (got == 0) {
            return -ECONNRESET;
        }
        if (errno != EAGAIN && errno != EINTR) {
            return -errno;
        }
        rc = wait_for(fd, POLLIN, p);
        if (rc != 0) {
            return rc;
        }
    }
}

static int receive_bytes(int fd, void *out, size_t n, struct patience *p)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = receive_some(fd, (char *)out + done, n - done, p);

        if (got < 0) {
            return (int)got;
        }
        done += (size_t)got;
    }
    return 0;
}

/* Into pages: a large one is filled in place, many small ones by way of memory that holds them. */
static int receive(int fd, const struct iovec *iov, unsigned n, uint64_t skip, uint64_t left,
                   struct patience *p)
{
    struct iovec part[IOV_PART];

    while (left > 0) {
        unsigned k = slice(iov, n, skip, left < SCATTER ? left : SCATTER, part);
        bool direct = k == 1 || part[0].iov_len >= SCATTER / 2;
        uint64_t room = 0;
        ssize_t got;

        for (unsigned i = 0; i < k; i++) {
            room += part[i].iov_len;
        }
        got = receive_some(fd, direct ? part[0].iov_base : p->scratch,
                           direct ? part[0].iov_len : room, p);
        if (got < 0) {
            return (int)got;
        }
        skip += (uint64_t)got;
        left -= (uint64_t)got;
        for (size_t i = 0, done = 0; !direct && done < (size_t)got; i++) {
            size_t m = part[i].iov_len < (size_t)got - done ? part[i].iov_len
                                                            : (size_t)got - done;

            memcpy(part[i].iov_base, p->scratch + done, m);
            done += m;
        }
    }
    return 0;
}

static int discard(int fd, uint64_t n, struct patience *p)
{
    uint8_t sink[512];
    int rc = 0;

    while (n > 0 && rc == 0) {
        size_t part = n < sizeof(sink) ? (size_t)n : sizeof(sink);

        rc = receive_bytes(fd, sink, part, p);
        n -= part;
    }
    return rc;
}

/* --- answers --- */

/* An error that the server tells; the protocol has its own numbers, which are those of Linux. */
static int error_of(uint32_t number)
{
    switch (number) {
    case EPERM:
        return -EACCES;
    case ENOMEM:
        return -ENOMEM;
    case ENOSPC:
        return -ENOSPC;
    case ESHUTDOWN:
        return -ENOTCONN;
    default:
        return -EIO;
    }
}

static struct flight *flight_find(struct blk_wire *w, uint64_t cookie)
{
    struct flight *found = NULL;

    pthread_mutex_lock(&w->mutex);
    list_for_each (it, &w->flights) {
        struct flight *f = list_entry(it, struct flight, link);

        if (f->cookie == cookie && !f->done) {
            found = f;
        }
    }
    pthread_mutex_unlock(&w->mutex);
    return found;
}

static void flight_end(struct blk_wire *w, struct flight *f)
{
    pthread_mutex_lock(&w->mutex);
    if (f->error == 0 && f->command == NBD_CMD_READ && f->had != f->length) {
        f->error = -EIO; /* it left something out */
    }
    f->done = true;
    pthread_mutex_unlock(&w->mutex);
}

static int simple_reply(struct blk_wire *w, struct patience *p)
{
    uint8_t h[12];
    int rc = receive_bytes(w->fd, h, sizeof(h), p);
    struct flight *f = rc == 0 ? flight_find(w, get64(h + 4)) : NULL;

    if (rc != 0) {
        return rc;
    }
    if (!f || (w->structured && f->command == NBD_CMD_READ)) {
        return -EPROTO;
    }
    f->error = get32(h) ? error_of(get32(h)) : 0;
    if (f->error == 0 && f->command == NBD_CMD_READ) {
        rc = receive(w->fd, f->iov, f->n_iov, 0, f->length, p);
        f->had = f->length;
    }
    if (rc == 0) {
        flight_end(w, f);
    }
    return rc;
}

static int chunk_data(struct blk_wire *w, struct flight *f, uint32_t length, struct patience *p)
{
    uint8_t h[8];
    int rc = length < 9 ? -EPROTO : receive_bytes(w->fd, h, 8, p);
    uint64_t at = rc == 0 ? get64(h) - f->at : 0, n = length - 8;

    if (rc == 0 && (f->command != NBD_CMD_READ || at > f->length || n > f->length - at)) {
        rc = -EPROTO;
    }
    if (rc == 0) {
        rc = receive(w->fd, f->iov, f->n_iov, at, n, p);
        f->had += n;
    }
    return rc;
}

static int chunk_hole(struct blk_wire *w, struct flight *f, uint32_t length, struct patience *p)
{
    uint8_t h[12];
    int rc = length != 12 ? -EPROTO : receive_bytes(w->fd, h, 12, p);
    uint64_t at = rc == 0 ? get64(h) - f->at : 0, n = rc == 0 ? get32(h + 8) : 0;

    if (rc == 0 &&
        (f->command != NBD_CMD_READ || n == 0 || at > f->length || n > f->length - at)) {
        rc = -EPROTO;
    }
    for (uint64_t left = n; rc == 0 && left > 0;) {
        struct iovec part[IOV_PART];
        unsigned k = slice(f->iov, f->n_iov, at + n - left, left, part);

        for (unsigned i = 0; i < k; i++) {
            memset(part[i].iov_base, 0, part[i].iov_len);
            left -= part[i].iov_len;
        }
    }
    f->had += rc == 0 ? n : 0;
    return rc;
}

static int chunk_status(struct blk_wire *w, struct flight *f, uint32_t length,
                        struct patience *p)
{
    uint8_t h[4 + 8 * STATUS_PAIRS];
    uint32_t pair[2 * STATUS_PAIRS];
    size_t n = length < sizeof(h) ? length : sizeof(h);
    int rc = length < 12 || length % 8 != 4 || length > NBD_PAYLOAD
                 ? -EPROTO
                 : receive_bytes(w->fd, h, n, p);

    if (rc == 0 && (f->command != NBD_CMD_STATUS || get32(h) != w->context)) {
        rc = -EPROTO;
    }
    if (rc == 0) {
        for (size_t i = 0; i < (n - 4) / 4; i++) {
            pair[i] = get32(h + 4 + 4 * i);
        }
        nbd_extent_add(f->extent, pair, (n - 4) / 8);
        rc = discard(w->fd, length - n, p);
    }
    return rc;
}

static int chunk_error(struct blk_wire *w, struct flight *f, uint32_t length,
                       struct patience *p)
{
    uint8_t h[6];
    int rc = length < 6 || length > ERROR_MOST + 14 ? -EPROTO : receive_bytes(w->fd, h, 6, p);

    if (rc == 0) {
        if (f->error == 0) {
            f->error = error_of(get32(h));
        }
        rc = discard(w->fd, length - 6, p);
    }
    return rc;
}

static int structured_reply(struct blk_wire *w, struct patience *p)
{
    uint8_t h[CHUNK_HEAD];
    int rc = receive_bytes(w->fd, h, sizeof(h), p);
    struct flight *f = rc == 0 ? flight_find(w, get64(h + 4)) : NULL;
    uint16_t type = get16(h + 2);
    uint32_t length = get32(h + 12);

    if (rc != 0) {
        return rc;
    }
    if (!f || !w->structured) {
        return -EPROTO;
    }
    if (type == NBD_CHUNK_DATA) {
        rc = chunk_data(w, f, length, p);
    } else if (type == NBD_CHUNK_HOLE) {
        rc = chunk_hole(w, f, length, p);
    } else if (type == NBD_CHUNK_STATUS) {
        rc = chunk_status(w, f, length, p);
    } else if (type & 0x8000) {
        rc = chunk_error(w, f, length, p);
    } else {
        rc = type == NBD_CHUNK_NONE && length == 0 ? 0 : -EPROTO;
    }
    if (rc == 0 && get16(h) & NBD_CHUNK_DONE) {
        flight_end(w, f);
    }
    return rc;
}

/* One answer, or part of one: 1; 0 when none came for a moment. */
static int read_reply(struct blk_wire *w)
{
    struct patience p = { .until = now_ns() + SILENCE_NS,
                          .given_up = &w->lost,
                          .scratch = w->scratch };
    struct pollfd at = { .fd = w->fd, .events = POLLIN };
    uint8_t magic[4];
    int n = poll(&at, 1, SLICE_MS), rc;

    if (n <= 0) {
        return n < 0 && errno != EINTR ? -errno : 0;
    }
    rc = receive_bytes(w->fd, magic, 4, &p);
    if (rc != 0) {
        return rc;
    }
    rc = get32(magic) == NBD_SIMPLE_MAGIC       ? simple_reply(w, &p)
         : get32(magic) == NBD_STRUCTURED_MAGIC ? structured_reply(w, &p)
                                                : -EPROTO;
    return rc ? rc : 1;
}

/* Mutex held. */
static void lose(struct blk_wire *w)
{
    if (!w->lost) {
        w->lost = true;
        if (w->on_lost) {
            w->on_lost(w->arg);
        }
    }
    pthread_cond_broadcast(&w->turn);
}

/* --- commands --- */

/* Mutex held, but not while waiting. */
static void lead(struct blk_wire *w)
{
    int rc;

    w->leader = true;
    pthread_mutex_unlock(&w->mutex);
    rc = read_reply(w);
    pthread_mutex_lock(&w->mutex);
    w->leader = false;
    w->heard = rc > 0 ? now_ns() : w->heard;
    if (rc < 0 || now_ns() - w->heard > SILENCE_NS) {
        lose(w);
    }
    pthread_cond_broadcast(&w->turn);
}

static int land(struct blk_wire *w, struct flight *f)
{
    pthread_mutex_lock(&w->mutex);
    while (!f->done) {
        if (w->leader) { /* it may be writing into our memory, even when all is lost */
            pthread_cond_wait(&w->turn, &w->mutex);
        } else if (w->lost) {
            f->error = -ENOTCONN;
            f->done = true;
        } else {
            lead(w);
        }
    }
    if (f->error == -ENOTCONN) { /* the server is about to end */
        lose(w);
    }
    list_remove(&f->link);
    pthread_cond_broadcast(&w->turn); /* somebody else may have to lead */
    pthread_mutex_unlock(&w->mutex);
    return f->error;
}

static int command(struct blk_wire *w, struct flight *f, uint16_t flags, uint64_t at,
                   uint32_t length, const struct iovec *payload, unsigned n_payload)
{
    uint8_t h[28];
    AUTO_FREE struct iovec *iov = xnew_n(struct iovec, n_payload + 1);
    struct patience p = { .given_up = &w->lost };
    int rc = -ENOTCONN;

    pthread_mutex_lock(&w->sending);
    pthread_mutex_lock(&w->mutex);
    if (!w->lost) {
        rc = 0;
        if (list_empty(&w->flights)) {
            w->heard = now_ns();
        }
        f->cookie = ++w->cookie;
        f->at = at;
        list_append(&w->flights, &f->link);
    }
    pthread_mutex_unlock(&w->mutex);
    if (rc == 0) {
        put32(h, NBD_REQUEST_MAGIC);
        put16(h + 4, flags);
        put16(h + 6, f->command);
        put64(h + 8, f->cookie);
        put64(h + 16, at);
        put32(h + 24, length);
        iov[0] = (struct iovec){ .iov_base = h, .iov_len = sizeof(h) };
        for (unsigned i = 0; i < n_payload; i++) {
            iov[i + 1] = payload[i];
        }
        p.until = now_ns() + SILENCE_NS;
        if (send_all(w->fd, iov, n_payload + 1, &p) != 0) {
            pthread_mutex_lock(&w->mutex);
            lose(w);
            pthread_mutex_unlock(&w->mutex);
        }
    }
    pthread_mutex_unlock(&w->sending);
    return rc != 0 ? rc : land(w, f);
}

static int transfer(struct nbd_far *far, const struct blk_req *r)
{
    struct blk_wire *w = (struct blk_wire *)far;
    AUTO_FREE struct iovec *part = xnew_n(struct iovec, r->n_iov);
    int rc = 0;

    for (uint64_t done = 0; done < r->length && rc == 0;) {
        uint64_t n = r->length - done < far->most ? r->length - done : far->most;
        unsigned k = blk_iov_slice(r->iov, r->n_iov, done, n, part);
        struct flight f = { .command = r->op == BLK_READ ? NBD_CMD_READ : NBD_CMD_WRITE,
                            .iov = part,
                            .n_iov = k,
                            .length = n };

        rc = r->op == BLK_READ ? command(w, &f, 0, r->at + done, (uint32_t)n, NULL, 0)
                               : command(w, &f, 0, r->at + done, (uint32_t)n, part, k);
        done += n;
    }
    return rc;
}

static int range(struct nbd_far *far, enum blk_op op, unsigned flags, uint64_t at,
                 uint64_t left)
{
    int rc = 0;

    while (left > 0 && rc == 0) {
        uint64_t n = left < NBD_RANGE ? left : NBD_RANGE / far->block * far->block;
        struct flight f = { .command = op == BLK_ZERO ? NBD_CMD_ZEROES : NBD_CMD_TRIM };

        rc = command((struct blk_wire *)far, &f,
                     op == BLK_ZERO && !(flags & BLK_UNMAP) ? NBD_FLAG_NO_HOLE : 0, at,
                     (uint32_t)n, NULL, 0);
        at += n;
        left -= n;
    }
    return rc;
}

static int flush(struct nbd_far *far)
{
    struct blk_wire *w = (struct blk_wire *)far;
    struct flight f = { .command = NBD_CMD_FLUSH };

    return w->unsafe ? 0 : command(w, &f, 0, 0, 0, NULL, 0);
}

static int status(struct nbd_far *far, uint64_t at, uint64_t length, struct nbd_extent *x)
{
    struct flight f = { .command = NBD_CMD_STATUS, .extent = x };

    return command((struct blk_wire *)far, &f, 0, at, (uint32_t)length, NULL, 0);
}

static const struct nbd_far_ops ops = {
    .transfer = transfer, .range = range, .flush = flush, .status = status
};

/* --- life --- */

/* What the greeting gave becomes the node's. The first time, or while nobody sends and nobody leads. */
static void take_session(struct blk_wire *w, const struct nbd_hello *h, int fd)
{
    w->fd = fd;
    w->structured = h->structured;
    w->context = h->context;
    w->far.can_flush = h->flags & NBD_SEND_FLUSH;
    w->far.can_trim = h->flags & NBD_SEND_TRIM;
    w->far.can_zero = h->flags & NBD_SEND_ZEROES;
    w->far.can_map = h->has_context;
    nbd_far_limits(&w->far, h->least, h->most);
}

static int wire_open(struct blk_node *n, const struct blk_options *o, struct err *e)
{
    struct blk_wire *w = (struct blk_wire *)n;
    struct nbd_hello h = { 0 };
    int rc;

    nbd_far_init(&w->far, &ops);
    w->fd = -1;
    w->unsafe = o->unsafe;
    w->export = xstrdup(o->export ? o->export : "");
    pthread_mutex_init(&w->sending, NULL);
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->turn, NULL);
    list_init(&w->flights);
    w->scratch = xalloc(SCATTER);
    if (o->fd < 0) {
        return err_set(e, -EBADF, "disk '%s': %s is not connected", o->name, o->path);
    }
    rc = nbd_hello(o->fd, w->export, &h, e);
    if (rc != 0) {
        err_prefix(e, "disk '%s': %s", o->name, o->path);
        return rc;
    }
    if (h.flags & NBD_READ_ONLY && !o->readonly) {
        return err_set(e, -EROFS,
                       "disk '%s': %s is exported read-only; make the disk read-only, or the "
                       "export writable",
                       o->name, o->path);
    }
    n->size = h.size;
    take_session(w, &h, o->fd);
    return 0;
}

static struct blk_wire *wire_of(struct blk_node *n)
{
    struct blk_node *file = n && n->driver->kind != BLK_PROTOCOL ? blk_child(n, BLK_FILE) : n;

    return file && blk_own_driver(file) == &blk_nbd_wire_driver ? (struct blk_wire *)file
                                                                : NULL;
}

static void wire_release(struct blk_node *n)
{
    ((struct blk_wire *)n)->fd = -1;
}

bool blk_nbd_is_lost(struct blk_node *n)
{
    struct blk_wire *w = wire_of(n);

    return w && w->lost;
}

bool blk_nbd_on_lost(struct blk_node *n, void (*fn)(void *arg), void *arg)
{
    struct blk_wire *w = wire_of(n);

    if (w) {
        w->on_lost = fn;
        w->arg = arg;
    }
    return w != NULL;
}

int blk_nbd_reconnect(struct blk_node *n, int take, struct err *e)
{
    struct blk_wire *w = wire_of(n);
    struct nbd_hello h = { 0 };
    AUTO_FD fd = take;
    int rc = w ? nbd_hello(fd, w->export, &h, e)
               : err_set(e, -ENOTSUP, "disk '%s' is no disk of an NBD server", blk_name(n));

    if (rc == 0 && h.size != w->far.node.size) {
        rc = err_set(e, -EINVAL, "the export has %llu bytes now and had %llu",
                     (unsigned long long)h.size, (unsigned long long)w->far.node.size);
    }
    if (rc == 0 && h.flags & NBD_READ_ONLY && !w->far.node.readonly) {
        rc = err_set(e, -EROFS, "the export is read-only now");
    }
    if (rc != 0) {
        return rc;
    }
    w->lost = true; /* also when nobody has noticed yet */
    pthread_mutex_lock(&w->sending);
    pthread_mutex_lock(&w->mutex);
    while (!list_empty(&w->flights)) {
        pthread_cond_broadcast(&w->turn);
        pthread_cond_wait(&w->turn, &w->mutex);
    }
    fd_autoclose(&w->fd);
    take_session(w, &h, take_fd(&fd));
    w->lost = false;
    pthread_mutex_unlock(&w->mutex);
    pthread_mutex_unlock(&w->sending);
    return 0;
}

static int wire_close(struct blk_node *n)
{
    struct blk_wire *w = (struct blk_wire *)n;
    uint8_t h[28] = { 0 };

    if (w->fd >= 0 && !w->lost) {
        const struct iovec iov = { .iov_base = h, .iov_len = sizeof(h) };

        put32(h, NBD_REQUEST_MAGIC);
        put16(h + 6, NBD_CMD_DISC);
        (void)!writev(w->fd, &iov, 1);
    }
    fd_autoclose(&w->fd);
    free(w->export);
    free(w->scratch);
    pthread_cond_destroy(&w->turn);
    pthread_mutex_destroy(&w->mutex);
    pthread_mutex_destroy(&w->sending);
    nbd_far_done(&w->far);
    return 0;
}

const struct blk_driver blk_nbd_wire_driver = {
    .name = "nbd",
    .doc = "an export of an NBD server, over a connection that was given",
    .kind = BLK_PROTOCOL,
    .size = sizeof(struct blk_wire),
    .open = wire_open,
    .run = nbd_far_run,
    .map = nbd_far_map,
    .close = wire_close,
    .release = wire_release,
};
