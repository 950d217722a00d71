/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch. The loop's thread.
 */
#include "network/server/switch.h"

#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "network/server/pcap.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define BUCKETS 1024
#define MOVES 8 /* places of an address that are looked at */

struct address {
    uint8_t mac[6];
    uint16_t vlan;
    uint16_t port; /* and one; 0: the place is free */
    int64_t seen;
};

struct net_switch {
    struct loop *loop;
    char *name;
    struct switch_port *port[SWITCH_PORTS];
    struct address table[SWITCH_ADDRESSES];
    struct loop_task flush;
    int64_t now; /* of the current batch; read once a turn */
};

/* --- addresses --- */

static int64_t clock_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static struct address *place(struct net_switch *s, const uint8_t mac[6], unsigned vlan,
                             unsigned i)
{
    uint32_t h = 2166136261u;

    for (unsigned k = 0; k < 6; k++) {
        h = (h ^ mac[k]) * 16777619u;
    }
    h = (h ^ vlan) * 16777619u;
    return &s->table[((h ^ h >> 15) + i) % SWITCH_ADDRESSES];
}

static bool same(const struct address *a, const uint8_t mac[6], unsigned vlan)
{
    return a->port && a->vlan == vlan && memcmp(a->mac, mac, 6) == 0;
}

/* Known ones move; new ones take a free place or the one that was quiet for longest: a VM that sends under many addresses
 * drives out some, whose frames are flooded then. */
static void learn(struct net_switch *s, const uint8_t mac[6], unsigned vlan, unsigned port)
{
    struct address *best = NULL;

    for (unsigned i = 0; i < MOVES; i++) {
        struct address *a = place(s, mac, vlan, i);

        if (same(a, mac, vlan)) {
            best = a;
            break;
        }
        if (!best || (best->port && (!a->port || a->seen < best->seen))) {
            best = a;
        }
    }
    memcpy(best->mac, mac, 6);
    best->vlan = (uint16_t)vlan;
    best->port = (uint16_t)(port + 1);
    best->seen = s->now;
}

static struct switch_port *lookup(struct net_switch *s, const uint8_t mac[6], unsigned vlan)
{
    for (unsigned i = 0; i < MOVES; i++) {
        struct address *a = place(s, mac, vlan, i);

        if (same(a, mac, vlan)) {
            return s->now - a->seen < SWITCH_AGE_NS ? s->port[a->port - 1] : NULL;
        }
    }
    return NULL;
}

static void forget(struct net_switch *s, unsigned port)
{
    for (unsigned i = 0; i < SWITCH_ADDRESSES; i++) {
        if (s->table[i].port == port + 1) {
            s->table[i].port = 0;
        }
    }
}

unsigned switch_learned(const struct net_switch *s)
{
    unsigned n = 0;

    for (unsigned i = 0; i < SWITCH_ADDRESSES; i++) {
        n += s->table[i].port != 0;
    }
    return n;
}

/* --- frames --- */

/* The pieces from `skip` on behind what the caller put first; false: too many. */
static bool rest(const struct net_frame *f, size_t skip, struct iovec *iov, unsigned *n)
{
    for (unsigned i = 0; i < f->n_iov; i++) {
        if (skip >= f->iov[i].iov_len) {
            skip -= f->iov[i].iov_len;
            continue;
        }
        if (*n == NET_MAX_IOV) {
            return false;
        }
        iov[(*n)++] = (struct iovec){ (uint8_t *)f->iov[i].iov_base + skip,
                                      f->iov[i].iov_len - skip };
        skip = 0;
    }
    return true;
}

/* With a tag for that VLAN, or without any: places behind it move by four. */
static void retagged(struct net_frame *f, bool tagged, unsigned vlan, bool want,
                     uint8_t head[18], struct iovec *iov)
{
    struct net_frame g = *f;
    unsigned n = 1;
    int shift = want ? 4 : -4;

    if (tagged == want) {
        return;
    }
    net_frame_get(f, 0, head, 12);
    if (want) {
        memcpy(head + 12, (const uint8_t[]){ 0x81, 0, (uint8_t)(vlan >> 8), (uint8_t)vlan }, 4);
    }
    iov[0] = (struct iovec){ head, want ? 16 : 12 };
    if (!rest(f, tagged ? 16 : 12, iov, &n)) {
        f->len = 0;
        return;
    }
    g.iov = iov;
    g.n_iov = n;
    g.len = (size_t)((ssize_t)f->len + shift);
    if (g.hdr.flags & NET_HDR_NEEDS_CSUM) {
        g.hdr.csum_start = (uint16_t)(g.hdr.csum_start + shift);
    }
    if (g.hdr.hdr_len) {
        g.hdr.hdr_len = (uint16_t)(g.hdr.hdr_len + shift);
    }
    *f = g;
}

static void to_port(struct switch_port *p, const struct net_frame *f,
                    const struct frame_info *i)
{
    if (!filter_passes(&p->filter, i, false)) {
        p->filtered++;
        return;
    }
    impair_frame(&p->to_vm, f);
}

static void one_port(struct switch_port *p, const struct net_frame *f,
                     const struct frame_info *i, unsigned vlan)
{
    struct iovec iov[NET_MAX_IOV];
    uint8_t head[18];
    struct net_frame g = *f;

    retagged(&g, i->tagged, vlan, p->trunk && vlan != p->vlan, head, iov);
    if (g.len > 0) {
        to_port(p, &g, i);
    }
}

static bool member(const struct switch_port *p, unsigned vlan)
{
    return p->trunk || p->vlan == vlan;
}

static void forward(void *arg, const struct net_frame *f)
{
    struct switch_port *from = arg, *to;
    struct net_switch *s = from->sw;
    struct frame_info i;
    unsigned vlan = from->vlan;

    if (!frame_look(f, &i) || !filter_passes(&from->filter, &i, true)) {
        from->filtered++;
        return;
    }
    if (i.tagged && i.vid != 0) {
        if (!from->trunk) {
            from->filtered++; /* a VM says in which VLAN it is: no */
            return;
        }
        vlan = i.vid;
    }
    if (!s->now) {
        s->now = clock_ns();
    }
    if (!(i.src[0] & 1)) {
        learn(s, i.src, vlan, from->index);
    }
    to = i.multicast ? NULL : lookup(s, i.dst, vlan);
    if (to) {
        if (to != from && member(to, vlan)) {
            one_port(to, f, &i, vlan);
        }
        return;
    }
    for (unsigned k = 0; k < SWITCH_PORTS; k++) {
        if (s->port[k] && s->port[k] != from && member(s->port[k], vlan)) {
            one_port(s->port[k], f, &i, vlan);
        }
    }
}

/* What came through the faults and limits towards the port. */
static void deliver(void *arg, const struct net_frame *f)
{
    struct switch_port *p = arg;

    if (p->pcap) {
        pcap_frame(p->pcap, f);
    }
    if (net_send(p->port, f) != 0) {
        p->lost++;
        return;
    }
    if (!p->pending) {
        p->pending = true;
        loop_task_queue(p->sw->loop, &p->sw->flush);
    }
}

static void on_flush(void *arg)
{
    struct net_switch *s = arg;

    s->now = 0;
    for (unsigned i = 0; i < SWITCH_PORTS; i++) {
        if (s->port[i] && s->port[i]->pending) {
            s->port[i]->pending = false;
            net_flush(s->port[i]->port);
        }
    }
}

static void nothing(void *arg)
{
    (void)arg;
}

/* --- ports --- */

static int on_receive(void *arg, const struct net_frame *f)
{
    struct switch_port *p = arg;

    if (p->pcap) {
        pcap_frame(p->pcap, f);
    }
    impair_frame(&p->from_vm, f);
    return 0;
}

static void on_received(void *arg)
{
    struct switch_port *p = arg;

    loop_task_queue(p->sw->loop, &p->sw->flush);
}

static const struct net_front_ops port_front = { .receive = on_receive,
                                                 .received = on_received };

struct net_switch *switch_new(struct loop *l, const char *name)
{
    struct net_switch *s = xnew(struct net_switch);

    s->loop = l;
    s->name = xstrdup(name);
    loop_task_init(&s->flush, on_flush, s);
    return s;
}

struct switch_port *switch_add(struct net_switch *s, struct net_port *take_port,
                               const char *name)
{
    struct switch_port *p;
    unsigned i = 0;

    while (i < SWITCH_PORTS && s->port[i]) {
        i++;
    }
    if (i == SWITCH_PORTS) {
        net_close(take_port);
        return NULL;
    }
    p = xnew(struct switch_port);
    p->sw = s;
    p->port = take_port;
    p->name = xstrdup(name);
    p->index = i;
    impair_init(&p->from_vm, s->loop, 0x9e3779b9u + i, forward, nothing, p);
    impair_init(&p->to_vm, s->loop, 0x7f4a7c15u + i, deliver, nothing, p);
    s->port[i] = p;
    net_attach(take_port, &port_front, p);
    net_set_offloads(take_port, NET_OFF_ALL);
    return p;
}

void switch_remove(struct switch_port *p)
{
    struct net_switch *s = p->sw;

    forget(s, p->index);
    s->port[p->index] = NULL;
    impair_done(&p->from_vm);
    impair_done(&p->to_vm);
    pcap_free(p->pcap);
    net_close(p->port);
    free(p->name);
    free(p);
}

struct switch_port *switch_find(struct net_switch *s, const char *name)
{
    for (unsigned i = 0; i < SWITCH_PORTS; i++) {
        if (s->port[i] && strcmp(s->port[i]->name, name) == 0) {
            return s->port[i];
        }
    }
    return NULL;
}

struct switch_port *switch_at(struct net_switch *s, unsigned i)
{
    return i < SWITCH_PORTS ? s->port[i] : NULL;
}

void switch_set_vlan(struct switch_port *p, unsigned vlan, bool trunk)
{
    if (p->vlan != vlan || p->trunk != trunk) {
        forget(p->sw, p->index);
    }
    p->vlan = vlan;
    p->trunk = trunk;
}

void switch_free(struct net_switch *s)
{
    if (!s) {
        return;
    }
    loop_task_cancel(&s->flush);
    for (unsigned i = 0; i < SWITCH_PORTS; i++) {
        if (s->port[i]) {
            switch_remove(s->port[i]);
        }
    }
    free(s->name);
    free(s);
}
