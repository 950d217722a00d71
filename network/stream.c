/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A port on a connected stream socket. Small frames are gathered and written together at the end of a batch; large ones are
 * written from where they lie. Reads take as much as there is. The loop's thread.
 *
 * The peer is not trusted: a length outside bounds ends the connection.
 */
#include "network/stream.h"

#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_SIZE (256u << 10)
#define QUEUE_MAX                                                                              \
    (512u << 10)    /* bytes that wait for the socket before the front end is told to */
#define DIRECT 4096 /* frames from this size on are not copied when that can be avoided */
#define LENGTH 4
#define NET_HDR_LINK 0x80 /* in flags: stream.h */

struct stream {
    struct net_port port;
    struct loop *loop;
    int fd;
    struct loop_fd *watch;
    unsigned events;
    bool vhdr;
    bool blocked;   /* the front end has no room for the frame at in[at] */
    bool full;      /* the front end was told to wait */
    bool waiting;   /* for the socket to take more */
    uint8_t *in;    /* READ_SIZE + a frame */
    size_t at, len; /* what of it is not yet delivered */
    struct buf out;
    size_t out_at; /* bytes of it that are written */
    struct loop_task again;
    void (*ended)(void *arg);
    void *ended_arg;
};

#define IN_SIZE (READ_SIZE + LENGTH + NET_VHDR + NET_MAX_FRAME)

static struct stream *stream_of(struct net_port *p)
{
    return container_of(p, struct stream, port);
}

static void update_watch(struct stream *s)
{
    unsigned events = (s->blocked ? 0 : LOOP_READ) | (s->waiting ? LOOP_WRITE : 0);

    if (s->watch && events != s->events) {
        s->events = events;
        loop_fd_set(s->watch, events);
    }
}

static void end(struct stream *s, const char *why)
{
    if (!s->watch) {
        return;
    }
    log_info("net", "%s: the connection has ended: %s", s->port.name, why);
    loop_fd_free(s->watch);
    s->watch = NULL;
    loop_task_cancel(&s->again);
    buf_done(&s->out);
    s->out_at = 0;
    s->waiting = false;
    net_set_up(&s->port, false);
    if (s->full) {
        s->full = false;
        net_writable(&s->port); /* what it has is dropped then */
    }
    if (s->ended) {
        s->ended(s->ended_arg);
    }
}

/* --- sending --- */

static size_t pending(const struct stream *s)
{
    return s->out.len - s->out_at;
}

/* After `n` bytes of what was pending went out. */
static void took(struct stream *s, size_t n)
{
    s->out_at += n;
    if (s->out_at == s->out.len) {
        s->out.len = s->out_at = 0;
    } else if (s->out_at > QUEUE_MAX) {
        buf_consume(&s->out, s->out_at);
        s->out_at = 0;
    }
}

static void stream_flush(struct net_port *p)
{
    struct stream *s = stream_of(p);

    while (s->watch && pending(s) > 0) {
        ssize_t n = send(s->fd, s->out.data + s->out_at, pending(s),
                         MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            /* Another error is seen when the loop reads. */
            s->waiting = errno == EAGAIN || errno == ENOBUFS;
            if (!s->waiting) {
                s->out.len = s->out_at = 0;
            }
            break;
        }
        took(s, (size_t)n);
        s->waiting = pending(s) > 0;
    }
    s->waiting = s->waiting && pending(s) > 0;
    update_watch(s);
}

static void add_rest(struct stream *s, const struct iovec *iov, unsigned n_iov, size_t skip)
{
    for (unsigned i = 0; i < n_iov; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        buf_add(&s->out, (const uint8_t *)iov[i].iov_base + skip, iov[i].iov_len - skip);
        skip = 0;
    }
}

/* What is pending and the frame with one call; what does not go out is pending then. */
static void write_now(struct stream *s, const struct iovec *head, const struct net_frame *f)
{
    struct iovec iov[NET_MAX_IOV + 2];
    size_t before = pending(s), sent;
    ssize_t n;

    iov[0] = (struct iovec){ s->out.data + s->out_at, before };
    iov[1] = *head;
    memcpy(iov + 2, f->iov, f->n_iov * sizeof(f->iov[0]));
    if (before == 0) {
        iov[0].iov_base = head->iov_base; /* no null pointer, though of no length */
    }
    n = writev(s->fd, iov, (int)f->n_iov + 2);
    sent = n > 0 ? (size_t)n : 0;
    took(s, sent < before ? sent : before);
    sent -= sent < before ? sent : before;
    if (sent < head->iov_len + f->len) {
        add_rest(s, iov + 1, f->n_iov + 1, sent);
        s->waiting = true;
        update_watch(s);
    }
}

static void stream_tell_link(struct net_port *p, bool up)
{
    struct stream *s = stream_of(p);
    const struct net_hdr h = { .flags = NET_HDR_LINK, .gso_type = up };
    uint8_t bytes[LENGTH + NET_VHDR] = { 0, 0, 0, NET_VHDR };

    if (s->vhdr && s->watch && pending(s) <= 2 * QUEUE_MAX) {
        net_hdr_put(bytes + LENGTH, &h);
        buf_add(&s->out, bytes, sizeof(bytes));
        stream_flush(p);
    }
}

static int stream_send(struct net_port *p, const struct net_frame *f)
{
    struct stream *s = stream_of(p);
    uint8_t bytes[LENGTH + NET_VHDR];
    struct iovec head = { bytes, LENGTH + (s->vhdr ? NET_VHDR : 0) };
    uint32_t length = htonl((uint32_t)(f->len + (s->vhdr ? NET_VHDR : 0)));

    if (!s->watch) {
        return -ENETDOWN;
    }
    if (pending(s) > QUEUE_MAX) {
        s->full = s->waiting = true;
        update_watch(s);
        return -EAGAIN;
    }
    memcpy(bytes, &length, LENGTH);
    if (s->vhdr) {
        net_hdr_put(bytes + LENGTH, &f->hdr);
    }
    if (f->len >= DIRECT && !s->waiting) {
        write_now(s, &head, f);
        return 0;
    }
    buf_add(&s->out, head.iov_base, head.iov_len);
    add_rest(s, f->iov, f->n_iov, 0);
    return 0;
}

/* --- receiving --- */

/* 1: a frame was delivered or dropped, 0: none is whole, -EAGAIN, or another error. */
static int one_frame(struct stream *s)
{
    size_t left = s->len - s->at, header = s->vhdr ? NET_VHDR : 0;
    struct net_frame f = { .n_iov = 1 };
    struct iovec iov;
    uint32_t length;
    int rc;

    if (left < LENGTH) {
        return 0;
    }
    memcpy(&length, s->in + s->at, LENGTH);
    length = ntohl(length);
    if (length < header || length > NET_MAX_FRAME + header) {
        return -EPROTO;
    }
    if (left < LENGTH + length) {
        return 0;
    }
    if (s->vhdr) {
        net_hdr_get(&f.hdr, s->in + s->at + LENGTH);
    }
    if (s->vhdr && length == header && (f.hdr.flags & NET_HDR_LINK)) {
        s->at += LENGTH + length;
        net_set_up(&s->port, f.hdr.gso_type & 1);
        return 1;
    }
    iov = (struct iovec){ s->in + s->at + LENGTH + header, length - header };
    f.iov = &iov;
    f.len = iov.iov_len;
    rc = net_deliver(&s->port, &f);
    if (rc == -EAGAIN) {
        return rc;
    }
    s->at += LENGTH + length;
    return 1;
}

static void deliver_all(struct stream *s)
{
    bool some = false;
    int rc;

    while ((rc = one_frame(s)) == 1) {
        some = true;
    }
    if (some) {
        net_delivered(&s->port);
    }
    s->blocked = rc == -EAGAIN;
    if (s->at > 0 && !s->blocked) {
        memmove(s->in, s->in + s->at, s->len - s->at);
        s->len -= s->at;
        s->at = 0;
    }
    update_watch(s);
    if (rc == -EPROTO) {
        end(s, "the peer sent a frame of an impossible length");
    }
}

static void on_again(void *arg)
{
    struct stream *s = arg;

    if (s->blocked && s->watch) {
        deliver_all(s);
    }
}

static void on_ready(void *arg, int fd, unsigned events)
{
    struct stream *s = arg;
    ssize_t n;

    if (events & LOOP_WRITE) {
        stream_flush(&s->port);
        if (s->full && pending(s) < QUEUE_MAX / 2) {
            s->full = false;
            net_writable(&s->port);
        }
    }
    if (!(events & LOOP_READ) || s->blocked) {
        return;
    }
    n = recv(fd, s->in + s->len, IN_SIZE - s->len, MSG_DONTWAIT);
    if (n > 0) {
        s->len += (size_t)n;
        deliver_all(s);
    } else if (n == 0) {
        end(s, "the peer closed it");
    } else if (errno != EAGAIN && errno != EINTR) {
        end(s, strerror(errno));
    }
}

static void stream_recv_ready(struct net_port *p)
{
    struct stream *s = stream_of(p);

    if (s->blocked && s->watch) {
        loop_task_queue(s->loop, &s->again);
    }
}

static void stream_close(struct net_port *p)
{
    struct stream *s = stream_of(p);

    loop_task_cancel(&s->again);
    loop_fd_free(s->watch);
    close(s->fd);
    buf_done(&s->out);
    free(s->in);
    net_port_done(p);
    free(s);
}

static const struct net_port_ops stream_ops = {
    .kind = "stream",
    .send = stream_send,
    .flush = stream_flush,
    .recv_ready = stream_recv_ready,
    .tell_link = stream_tell_link,
    .close = stream_close,
};

void net_stream_widen(int sock)
{
    int size = 1 << 20;

    /* A frame of 64 KiB should not have to wait for its second half; smaller than wished is fine. */
    (void)setsockopt(sock, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

struct net_port *net_stream_new(struct loop *l, int take_sock, const char *name, bool vhdr)
{
    struct stream *s = xnew(struct stream);

    net_port_init(&s->port, &stream_ops, name, vhdr ? NET_OFF_ALL : 0);
    s->loop = l;
    s->fd = take_sock;
    s->vhdr = vhdr;
    s->in = xalloc(IN_SIZE);
    s->events = LOOP_READ;
    fd_set_nonblock(take_sock, true, NULL);
    loop_task_init(&s->again, on_again, s);
    s->watch = loop_fd_new(l, take_sock, LOOP_READ, on_ready, s);
    return &s->port;
}

void net_stream_on_end(struct net_port *p, void (*fn)(void *arg), void *arg)
{
    struct stream *s = stream_of(p);

    s->ended = fn;
    s->ended_arg = arg;
}
