/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A port on a tap interface: a frame a read and a write, with its virtio header, on any of its queues. All of them stay attached, those
 * that the guest's driver does not use, too (ADR 0044). The loop's thread.
 */
#include "network/tap.h"

#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define BATCH 64 /* frames before other work of the loop gets its turn */

/* A queue of the interface, with a descriptor of its own. */
struct tap_queue {
    struct tap *tap;
    int fd;
    struct loop_fd *watch; /* NULL: the interface has vanished */
    unsigned events;
    bool blocked, full;
    size_t len;  /* of the frame that the front end had no room for, with its header */
    uint8_t *in; /* all have one buffer, but for a queue whose frame waits in it */
};

struct tap {
    struct net_port port;
    struct loop *loop;
    struct loop_task again;
    uint8_t *spare; /* NULL: taken by a queue */
    unsigned n;
    struct tap_queue queue[NET_TAP_QUEUES];
};

static struct tap *tap_of(struct net_port *p)
{
    return container_of(p, struct tap, port);
}

static void update_watch(struct tap_queue *q)
{
    unsigned events = (q->blocked ? 0 : LOOP_READ) | (q->full ? LOOP_WRITE : 0);

    if (q->watch && events != q->events) {
        q->events = events;
        loop_fd_set(q->watch, events);
    }
}

static void vanished(struct tap *t, int why)
{
    bool full = false;

    log_warn("net", "%s: the tap interface has vanished: %s; the link is down", t->port.name,
             strerror(why));
    loop_task_cancel(&t->again);
    for (unsigned i = 0; i < t->n; i++) {
        struct tap_queue *q = &t->queue[i];

        loop_fd_free(q->watch);
        q->watch = NULL;
        full = full || q->full;
        q->blocked = q->full = false;
    }
    net_set_up(&t->port, false);
    if (full) {
        net_writable(&t->port); /* what it has is dropped then */
    }
}

static int tap_send(struct net_port *p, const struct net_frame *f)
{
    struct tap *t = tap_of(p);
    struct tap_queue *q = &t->queue[f->queue % t->n];
    uint8_t head[NET_VHDR];
    struct iovec iov[NET_MAX_IOV + 1] = { { head, NET_VHDR } };
    ssize_t n;

    if (!q->watch) {
        return -ENETDOWN;
    }
    net_hdr_put(head, &f->hdr);
    memcpy(iov + 1, f->iov, f->n_iov * sizeof(f->iov[0]));
    do {
        n = writev(q->fd, iov, (int)f->n_iov + 1);
    } while (n < 0 && errno == EINTR);
    if (n >= 0) {
        return 0;
    }
    if (errno == EAGAIN) {
        q->full = true;
        update_watch(q);
        return -EAGAIN;
    }
    return -errno; /* EIO: the interface is down; that it vanished is seen when the loop reads */
}

/* False: the front end has no room for it. */
static bool deliver(struct tap_queue *q)
{
    struct iovec iov = { q->in + NET_VHDR, q->len - NET_VHDR };
    struct net_frame f = {
        .iov = &iov, .n_iov = 1, .queue = (unsigned)(q - q->tap->queue), .len = iov.iov_len
    };

    net_hdr_get(&f.hdr, q->in);
    return net_deliver(&q->tap->port, &f) != -EAGAIN;
}

/* The buffer goes to a queue for as long as it has a frame in it. */
static void take_buffer(struct tap_queue *q)
{
    if (!q->in) {
        q->in = q->tap->spare ? q->tap->spare : xalloc(NET_VHDR + NET_MAX_FRAME);
        q->tap->spare = NULL;
    }
}

static void give_buffer(struct tap_queue *q)
{
    if (!q->tap->spare) {
        q->tap->spare = q->in;
    } else {
        free(q->in);
    }
    q->in = NULL;
}

static void receive(struct tap_queue *q)
{
    struct tap *t = q->tap;
    bool some = false;
    int why = 0;

    take_buffer(q);
    for (unsigned i = 0; i < BATCH && !q->blocked && q->watch; i++) {
        ssize_t n = read(q->fd, q->in, NET_VHDR + NET_MAX_FRAME);

        if (n < 0) {
            why = errno == EAGAIN || errno == EINTR ? 0 : errno;
            break;
        }
        if (n <= NET_VHDR) {
            continue;
        }
        q->len = (size_t)n;
        q->blocked = !deliver(q);
        some = some || !q->blocked;
    }
    if (!q->blocked) {
        give_buffer(q);
    }
    if (some) {
        net_delivered(&t->port);
    }
    if (why) {
        vanished(t, why);
    }
    update_watch(q);
}

static void on_again(void *arg)
{
    struct tap *t = arg;

    for (unsigned i = 0; i < t->n; i++) {
        struct tap_queue *q = &t->queue[i];

        if (q->blocked && q->watch && deliver(q)) {
            q->blocked = false;
            net_delivered(&t->port);
            receive(q);
        }
    }
}

static void on_ready(void *arg, int fd, unsigned events)
{
    struct tap_queue *q = arg;

    (void)fd;
    if (events & LOOP_WRITE) {
        q->full = false;
        update_watch(q);
        net_writable(&q->tap->port);
    }
    if ((events & LOOP_READ) && q->watch) {
        receive(q);
    }
}

static void tap_recv_ready(struct net_port *p)
{
    struct tap *t = tap_of(p);

    for (unsigned i = 0; i < t->n; i++) {
        if (t->queue[i].blocked) {
            loop_task_queue(t->loop, &t->again);
        }
    }
}

static void tap_close(struct net_port *p)
{
    struct tap *t = tap_of(p);

    loop_task_cancel(&t->again);
    for (unsigned i = 0; i < t->n; i++) {
        loop_fd_free(t->queue[i].watch);
        close(t->queue[i].fd);
        free(t->queue[i].in);
    }
    free(t->spare);
    net_port_done(p);
    free(t);
}

static const struct net_port_ops tap_ops = {
    .kind = "tap",
    .send = tap_send,
    .recv_ready = tap_recv_ready,
    .close = tap_close,
};

struct net_port *net_tap_new(struct loop *l, const int *take_taps, unsigned n, const char *name)
{
    struct tap *t = xnew(struct tap);

    net_port_init(&t->port, &tap_ops, name,
                  NET_OFF_CSUM | NET_OFF_TSO4 | NET_OFF_TSO6 | NET_OFF_ECN);
    t->port.queues = n;
    t->loop = l;
    t->n = n;
    loop_task_init(&t->again, on_again, t);
    for (unsigned i = 0; i < n; i++) {
        struct tap_queue *q = &t->queue[i];

        *q = (struct tap_queue){ .tap = t, .fd = take_taps[i], .events = LOOP_READ };
        fd_set_nonblock(q->fd, true, NULL);
        q->watch = loop_fd_new(l, q->fd, LOOP_READ, on_ready, q);
    }
    return &t->port;
}
