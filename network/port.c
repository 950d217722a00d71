/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports, the part that all have: offloads that one side lacks, counters, link state. The loop's thread.
 */
#include "network/port.h"

#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "network/offload.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

void net_attach(struct net_port *p, const struct net_front_ops *ops, void *arg)
{
    p->front = ops;
    p->front_arg = arg;
}

void net_port_init(struct net_port *p, const struct net_port_ops *ops, const char *name,
                   unsigned takes)
{
    p->ops = ops;
    p->name = xstrdup(name);
    p->takes = takes;
    p->up = true;
}

void net_port_done(struct net_port *p)
{
    free(p->name);
    p->name = NULL;
}

size_t net_frame_get(const struct net_frame *f, size_t at, void *out, size_t n)
{
    size_t done = 0;

    for (unsigned i = 0; i < f->n_iov && done < n; i++) {
        size_t part = f->iov[i].iov_len;

        if (at >= part) {
            at -= part;
            continue;
        }
        part -= at;
        part = part < n - done ? part : n - done;
        memcpy((uint8_t *)out + done, (const uint8_t *)f->iov[i].iov_base + at, part);
        done += part;
        at = 0;
    }
    return done;
}

unsigned net_frame_flow(const struct net_frame *f)
{
    uint8_t h[14 + 40 + 4];
    size_t n = net_frame_get(f, 0, h, sizeof(h)), from, words;
    uint32_t sum = 0;

    if (n < 14 + 20) {
        return 0;
    }
    if (h[12] == 0x08 && h[13] == 0x00) {
        from = 26,
        words =
            6; /* addresses and ports; options would shift the latter, which is only a worse hash */
    } else if (h[12] == 0x86 && h[13] == 0xdd && n == sizeof(h)) {
        from = 22, words = 18;
    } else {
        return 0;
    }
    for (size_t i = 0; i < words && from + 2 * i + 2 <= n; i++) {
        sum += (uint32_t)h[from + 2 * i] << 8 | h[from + 2 * i + 1];
    }
    return (sum ^ sum >> 8) % NET_FLOWS;
}

void net_hdr_put(uint8_t out[NET_VHDR], const struct net_hdr *h)
{
    uint16_t w[4] = { htole16(h->hdr_len), htole16(h->gso_size), htole16(h->csum_start),
                      htole16(h->csum_offset) };

    out[0] = h->flags;
    out[1] = h->gso_type;
    memcpy(out + 2, w, sizeof(w));
    out[10] = out[11] = 0;
}

void net_hdr_get(struct net_hdr *h, const uint8_t in[NET_VHDR])
{
    uint16_t w[4];

    memcpy(w, in + 2, sizeof(w));
    *h = (struct net_hdr){ .flags = in[0],
                           .gso_type = in[1],
                           .hdr_len = le16toh(w[0]),
                           .gso_size = le16toh(w[1]),
                           .csum_start = le16toh(w[2]),
                           .csum_offset = le16toh(w[3]) };
}

/* --- what one side lacks --- */

/* Where the pieces of a frame that is made plain go. */
struct plain {
    struct net_port *p;
    int (*fn)(struct net_port *p, const struct net_frame *f);
    unsigned queue;
    bool some; /* one is out already: the rest is dropped rather than sent twice */
};

static int one_piece(void *arg, const struct net_frame *f)
{
    struct plain *s = arg;
    struct net_frame piece = *f;
    int rc;

    piece.queue = s->queue;
    rc = s->fn(s->p, &piece);

    s->some = s->some || rc == 0;
    return rc;
}

/* Does in software what the taker of `fn` lacks. */
static int make_plain(struct net_port *p, const struct net_frame *f, unsigned takes,
                      int (*fn)(struct net_port *p, const struct net_frame *f))
{
    unsigned lacks = net_hdr_needs(&f->hdr) & ~takes;
    struct plain s = { .p = p, .fn = fn, .queue = f->queue };
    struct net_hdr h = f->hdr;
    AUTO_FREE uint8_t *copy = NULL;
    int rc;

    if (!lacks) {
        return fn(p, f);
    }
    copy = xalloc(f->len);
    net_frame_get(f, 0, copy, f->len);
    if ((lacks & ~NET_OFF_CSUM) || net_csum_fill(copy, f->len, &h) != 0) {
        rc = net_segment(copy, f->len, &h, one_piece, &s);
        return s.some ? 0 : rc;
    }
    struct iovec iov = { copy, f->len };
    struct net_frame plain = {
        .hdr = h, .iov = &iov, .n_iov = 1, .queue = f->queue, .len = f->len
    };
    return fn(p, &plain);
}

static int send_down(struct net_port *p, const struct net_frame *f)
{
    return p->ops->send(p, f);
}

int net_send(struct net_port *p, const struct net_frame *f)
{
    int rc = -EINVAL;

    if (f->n_iov <= NET_MAX_IOV && net_hdr_ok(&f->hdr, f->len)) {
        rc = make_plain(p, f, p->takes, send_down);
    }
    if (rc == 0) {
        p->tx.frames++;
        p->tx.bytes += f->len;
    } else if (rc != -EAGAIN) {
        p->tx.dropped++;
        p->tx.errors += rc == -EINVAL;
        log_trace('n', "%s: a frame of %zu bytes is dropped: %s", p->name, f->len,
                  strerror(-rc));
    }
    return rc;
}

void net_flush(struct net_port *p)
{
    if (p->ops->flush) {
        p->ops->flush(p);
    }
}

void net_tell_link(struct net_port *p, bool up)
{
    if (p->ops->tell_link) {
        p->ops->tell_link(p, up);
    }
}

void net_recv_ready(struct net_port *p)
{
    p->ops->recv_ready(p);
}

void net_set_offloads(struct net_port *p, unsigned takes)
{
    p->gives = takes;
    if (p->ops->set_offloads) {
        p->ops->set_offloads(p, takes);
    }
}

void net_close(struct net_port *p)
{
    if (p) {
        p->ops->close(p);
    }
}

static int hand_up(struct net_port *p, const struct net_frame *f)
{
    return p->front->receive(p->front_arg, f);
}

int net_deliver(struct net_port *p, const struct net_frame *f)
{
    int rc;

    if (!p->front || !net_hdr_ok(&f->hdr, f->len)) {
        p->rx.dropped++;
        p->rx.errors += p->front != NULL;
        log_trace('n', "%s: a frame of %zu bytes that came is dropped", p->name, f->len);
        return 0;
    }
    rc = make_plain(p, f, p->gives, hand_up);
    if (rc == 0) {
        p->rx.frames++;
        p->rx.bytes += f->len;
    } else if (rc != -EAGAIN) {
        p->rx.dropped++;
        p->rx.errors++;
        rc = 0;
    }
    return rc;
}

void net_delivered(struct net_port *p)
{
    if (p->front && p->front->received) {
        p->front->received(p->front_arg);
    }
}

void net_writable(struct net_port *p)
{
    if (p->front && p->front->writable) {
        p->front->writable(p->front_arg);
    }
}

void net_set_up(struct net_port *p, bool up)
{
    if (p->up != up) {
        p->up = up;
        if (p->front && p->front->link) {
            p->front->link(p->front_arg, up);
        }
    }
}
