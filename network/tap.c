/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A port on a tap interface: a frame a read and a write, with its virtio header. The loop's thread.
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

struct tap {
    struct net_port port;
    struct loop *loop;
    int fd;
    struct loop_fd *watch; /* NULL: the interface has vanished */
    unsigned events;
    bool blocked, full;
    size_t len; /* of the frame that the front end had no room for, with its header */
    uint8_t *in;
    struct loop_task again;
};

static struct tap *tap_of(struct net_port *p)
{
    return container_of(p, struct tap, port);
}

static void update_watch(struct tap *t)
{
    unsigned events = (t->blocked ? 0 : LOOP_READ) | (t->full ? LOOP_WRITE : 0);

    if (t->watch && events != t->events) {
        t->events = events;
        loop_fd_set(t->watch, events);
    }
}

static void vanished(struct tap *t, int why)
{
    log_warn("net", "%s: the tap interface has vanished: %s; the link is down", t->port.name,
             strerror(why));
    loop_fd_free(t->watch);
    t->watch = NULL;
    t->blocked = false;
    loop_task_cancel(&t->again);
    net_set_up(&t->port, false);
    if (t->full) {
        t->full = false;
        net_writable(&t->port); /* what it has is dropped then */
    }
}

static int tap_send(struct net_port *p, const struct net_frame *f)
{
    struct tap *t = tap_of(p);
    uint8_t head[NET_VHDR];
    struct iovec iov[NET_MAX_IOV + 1] = { { head, NET_VHDR } };
    ssize_t n;

    if (!t->watch) {
        return -ENETDOWN;
    }
    net_hdr_put(head, &f->hdr);
    memcpy(iov + 1, f->iov, f->n_iov * sizeof(f->iov[0]));
    do {
        n = writev(t->fd, iov, (int)f->n_iov + 1);
    } while (n < 0 && errno == EINTR);
    if (n >= 0) {
        return 0;
    }
    if (errno == EAGAIN) {
        t->full = true;
        update_watch(t);
        return -EAGAIN;
    }
    return -errno; /* EIO: the interface is down; that it vanished is seen when the loop reads */
}

/* False: the front end has no room for it. */
static bool deliver(struct tap *t)
{
    struct iovec iov = { t->in + NET_VHDR, t->len - NET_VHDR };
    struct net_frame f = { .iov = &iov, .n_iov = 1, .len = iov.iov_len };

    net_hdr_get(&f.hdr, t->in);
    return net_deliver(&t->port, &f) != -EAGAIN;
}

static void receive(struct tap *t)
{
    bool some = false;
    int why = 0;

    for (unsigned i = 0; i < BATCH && !t->blocked && t->watch; i++) {
        ssize_t n = read(t->fd, t->in, NET_VHDR + NET_MAX_FRAME);

        if (n < 0) {
            why = errno == EAGAIN || errno == EINTR ? 0 : errno;
            break;
        }
        if (n <= NET_VHDR) {
            continue;
        }
        t->len = (size_t)n;
        t->blocked = !deliver(t);
        some = some || !t->blocked;
    }
    if (some) {
        net_delivered(&t->port);
    }
    if (why) {
        vanished(t, why);
    }
    update_watch(t);
}

static void on_again(void *arg)
{
    struct tap *t = arg;

    if (t->blocked && t->watch && deliver(t)) {
        t->blocked = false;
        net_delivered(&t->port);
        receive(t);
    }
}

static void on_ready(void *arg, int fd, unsigned events)
{
    struct tap *t = arg;

    (void)fd;
    if (events & LOOP_WRITE) {
        t->full = false;
        update_watch(t);
        net_writable(&t->port);
    }
    if (events & LOOP_READ) {
        receive(t);
    }
}

static void tap_recv_ready(struct net_port *p)
{
    if (tap_of(p)->blocked) {
        loop_task_queue(tap_of(p)->loop, &tap_of(p)->again);
    }
}

static void tap_close(struct net_port *p)
{
    struct tap *t = tap_of(p);

    loop_task_cancel(&t->again);
    loop_fd_free(t->watch);
    close(t->fd);
    free(t->in);
    net_port_done(p);
    free(t);
}

static const struct net_port_ops tap_ops = {
    .kind = "tap",
    .send = tap_send,
    .recv_ready = tap_recv_ready,
    .close = tap_close,
};

struct net_port *net_tap_new(struct loop *l, int take_tap, const char *name)
{
    struct tap *t = xnew(struct tap);

    net_port_init(&t->port, &tap_ops, name,
                  NET_OFF_CSUM | NET_OFF_TSO4 | NET_OFF_TSO6 | NET_OFF_ECN);
    t->loop = l;
    t->fd = take_tap;
    t->in = xalloc(NET_VHDR + NET_MAX_FRAME);
    t->events = LOOP_READ;
    fd_set_nonblock(take_tap, true, NULL);
    loop_task_init(&t->again, on_again, t);
    t->watch = loop_fd_new(l, take_tap, LOOP_READ, on_ready, t);
    return &t->port;
}
