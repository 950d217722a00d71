/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A port on a connected datagram socket: a frame a packet. What the peer has no room for waits on our side, a little. The
 * loop's thread.
 */
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "network/stream.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BATCH 64 /* packets before other work of the loop gets its turn */

struct dgram {
    struct net_port port;
    struct loop *loop;
    int fd;
    struct loop_fd *watch;
    unsigned events;
    bool vhdr, blocked, full;
    size_t len;  /* of the packet that the front end had no room for */
    uint8_t *in; /* one packet */
    struct loop_task again;
};

static struct dgram *dgram_of(struct net_port *p)
{
    return container_of(p, struct dgram, port);
}

static void update_watch(struct dgram *d)
{
    unsigned events = (d->blocked ? 0 : LOOP_READ) | (d->full ? LOOP_WRITE : 0);

    if (events != d->events) {
        d->events = events;
        loop_fd_set(d->watch, events);
    }
}

static int dgram_send(struct net_port *p, const struct net_frame *f)
{
    struct dgram *d = dgram_of(p);
    uint8_t head[NET_VHDR];
    struct iovec iov[NET_MAX_IOV + 1] = { { head, NET_VHDR } };
    ssize_t n;

    net_hdr_put(head, &f->hdr);
    memcpy(iov + 1, f->iov, f->n_iov * sizeof(f->iov[0]));
    do {
        n = writev(d->fd, d->vhdr ? iov : iov + 1, (int)f->n_iov + d->vhdr);
    } while (n < 0 && errno == EINTR);
    if (n >= 0) {
        return 0;
    }
    if (errno != EAGAIN && errno != ENOBUFS) {
        return -errno; /* nobody is there: as with a cable */
    }
    d->full = true;
    update_watch(d);
    return -EAGAIN;
}

/* False: the front end has no room for it. */
static bool deliver(struct dgram *d)
{
    size_t header = d->vhdr ? NET_VHDR : 0;
    struct iovec iov = { d->in + header, d->len - header };
    struct net_frame f = { .iov = &iov, .n_iov = 1, .len = iov.iov_len };

    if (d->len < header) {
        return true;
    }
    if (d->vhdr) {
        net_hdr_get(&f.hdr, d->in);
    }
    return net_deliver(&d->port, &f) != -EAGAIN;
}

static void receive(struct dgram *d)
{
    bool some = false;

    for (unsigned i = 0; i < BATCH && !d->blocked; i++) {
        ssize_t n = recv(d->fd, d->in, NET_VHDR + NET_MAX_FRAME, MSG_DONTWAIT);

        if (n < 0) {
            break; /* nothing, or an error that a packet of ours caused */
        }
        d->len = (size_t)n;
        d->blocked = !deliver(d);
        some = some || !d->blocked;
    }
    if (some) {
        net_delivered(&d->port);
    }
    update_watch(d);
}

static void on_again(void *arg)
{
    struct dgram *d = arg;

    if (d->blocked && deliver(d)) {
        d->blocked = false;
        net_delivered(&d->port);
        receive(d);
    }
}

static void on_ready(void *arg, int fd, unsigned events)
{
    struct dgram *d = arg;

    (void)fd;
    if (events & LOOP_WRITE) {
        d->full = false;
        update_watch(d);
        net_writable(&d->port);
    }
    if (events & LOOP_READ) {
        receive(d);
    }
}

static void dgram_recv_ready(struct net_port *p)
{
    if (dgram_of(p)->blocked) {
        loop_task_queue(dgram_of(p)->loop, &dgram_of(p)->again);
    }
}

static void dgram_close(struct net_port *p)
{
    struct dgram *d = dgram_of(p);

    loop_task_cancel(&d->again);
    loop_fd_free(d->watch);
    close(d->fd);
    free(d->in);
    net_port_done(p);
    free(d);
}

static const struct net_port_ops dgram_ops = {
    .kind = "dgram",
    .send = dgram_send,
    .recv_ready = dgram_recv_ready,
    .close = dgram_close,
};

struct net_port *net_dgram_new(struct loop *l, int take_sock, const char *name, bool vhdr)
{
    struct dgram *d = xnew(struct dgram);

    net_port_init(&d->port, &dgram_ops, name, vhdr ? NET_OFF_ALL : 0);
    d->loop = l;
    d->fd = take_sock;
    d->vhdr = vhdr;
    d->in = xalloc(NET_VHDR + NET_MAX_FRAME);
    d->events = LOOP_READ;
    fd_set_nonblock(take_sock, true, NULL);
    loop_task_init(&d->again, on_again, d);
    d->watch = loop_fd_new(l, take_sock, LOOP_READ, on_ready, d);
    return &d->port;
}
