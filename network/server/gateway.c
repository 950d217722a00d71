/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gateway's port: what is for it is answered here, the rest goes through the NAT. Answers wait for the end of the loop's turn, since
 * a port gives nothing while it is given something. The loop's thread.
 */
#include "network/server/gateway.h"

#include "engine/base/list.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "network/offload.h"
#include "network/server/dhcp.h"
#include "network/server/dns.h"
#include "network/server/filter.h"
#include "network/server/user.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define ANSWERS 64 /* that wait; a guest that asks for more in a turn loses them */
#define SMALL 2048 /* largest request that is looked at */

struct answer {
    struct list link;
    size_t len;
    uint8_t bytes[];
};
struct gateway {
    struct net_port port;
    struct loop *loop;
    struct gateway_options o;
    struct dhcp *dhcp;
    struct net_port *nat; /* NULL: isolated */
    uint8_t mac[6];
    uint32_t resolver; /* of the NAT */
    struct list answers;
    unsigned n_answers;
    struct loop_task again;
    void (*on_lease)(void *arg, const uint8_t mac[6], uint32_t ip);
    void *on_lease_arg;
};

static struct gateway *gateway_of(struct net_port *p)
{
    return container_of(p, struct gateway, port);
}

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

/* --- answers --- */

static uint8_t *answer_new(struct gateway *g, size_t len)
{
    struct answer *a;

    if (g->n_answers == ANSWERS) {
        return NULL;
    }
    a = xalloc(sizeof(*a) + len);
    a->len = len;
    list_append(&g->answers, &a->link);
    g->n_answers++;
    loop_task_queue(g->loop, &g->again);
    return a->bytes;
}

static void on_again(void *arg)
{
    struct gateway *g = arg;

    while (!list_empty(&g->answers)) {
        struct answer *a = list_entry(g->answers.next, struct answer, link);
        struct iovec iov = { a->bytes, a->len };
        struct net_frame f = { .iov = &iov, .n_iov = 1, .len = a->len };

        list_remove(&a->link);
        g->n_answers--;
        net_deliver(&g->port, &f);
        free(a);
    }
    net_delivered(&g->port);
}

/* The checksum of n bytes, at `at` of them; sums are in the order of the bytes themselves. */
static void sum_at(uint8_t *p, size_t n, size_t at)
{
    uint16_t sum;

    put16(p + at, 0);
    sum = (uint16_t)~net_sum_fold(net_sum(p, n, false, 0));
    memcpy(p + at, &sum, sizeof(sum));
}

static void sum_header(uint8_t *ip)
{
    sum_at(ip, (size_t)(ip[0] & 15) * 4, 10);
}

/* A datagram from the gateway. */
static void say(struct gateway *g, const uint8_t to[6], uint32_t ip, unsigned from_port,
                unsigned to_port, const uint8_t *payload, size_t n)
{
    uint8_t *f = answer_new(g, 14 + 20 + 8 + n), *h;

    if (!f) {
        return;
    }
    memcpy(f, to, 6);
    memcpy(f + 6, g->mac, 6);
    put16(f + 12, 0x0800);
    h = f + 14;
    memset(h, 0, 28);
    h[0] = 0x45;
    put16(h + 2, (unsigned)(28 + n));
    h[8] = 64;
    h[9] = 17;
    put32(h + 12, g->o.address);
    put32(h + 16, ip);
    sum_header(h);
    put16(h + 20, from_port);
    put16(h + 22, to_port);
    put16(h + 24, (unsigned)(8 + n)); /* and no checksum, which IPv4 allows */
    memcpy(h + 28, payload, n);
}

/* --- requests --- */

static void to_nat(struct gateway *g, const struct net_frame *f)
{
    if (g->nat) {
        net_send(g->nat, f);
    }
}

static void on_arp(struct gateway *g, const struct net_frame *f, const struct frame_info *i)
{
    uint8_t *a;

    if (g->o.nat && (i->arp_op != 1 || i->ip_dst == g->o.address)) {
        to_nat(g, f); /* which learns who asks, and answers */
        return;
    }
    if (i->arp_op != 1 || i->ip_dst != g->o.address || !(a = answer_new(g, 60))) {
        return;
    }
    memset(a, 0, 60);
    memcpy(a, i->src, 6);
    memcpy(a + 6, g->mac, 6);
    memcpy(a + 12, (const uint8_t[]){ 8, 6, 0, 1, 8, 0, 6, 4, 0, 2 }, 10);
    memcpy(a + 22, g->mac, 6);
    put32(a + 28, g->o.address);
    memcpy(a + 32, i->arp_mac, 6);
    put32(a + 38, i->ip_src);
}

/* An echo request, in an isolated network. */
static void on_icmp(struct gateway *g, const uint8_t *f, size_t n, const struct frame_info *i)
{
    size_t header = (size_t)(f[14] & 15) * 4, total = (size_t)f[16] << 8 | f[17];
    uint8_t *a, *icmp;

    if (header < 20 || total < header + 8 || 14 + total > n || i->fragment ||
        f[14 + header] != 8 || !(a = answer_new(g, 14 + total))) {
        return;
    }
    memcpy(a, f, 14 + total);
    memcpy(a, i->src, 6);
    memcpy(a + 6, g->mac, 6);
    put32(a + 26, i->ip_dst);
    put32(a + 30, i->ip_src);
    sum_header(a + 14);
    icmp = a + 14 + header;
    icmp[0] = 0;
    sum_at(icmp, total - header, 2);
}

/* The payload of a datagram in the frame; 0 bytes: it is not whole. */
static const uint8_t *payload_of(const uint8_t *f, size_t n, size_t *len)
{
    size_t at = 14 + (size_t)(f[14] & 15) * 4, size;

    *len = 0;
    if (n < at + 8) {
        return NULL;
    }
    size = (size_t)f[at + 4] << 8 | f[at + 5];
    if (size < 8 || at + size > n) {
        return NULL;
    }
    *len = size - 8;
    return f + at + 8;
}

static void on_dhcp(struct gateway *g, const uint8_t *f, size_t n, const struct frame_info *i)
{
    static const uint8_t all[6] = { 255, 255, 255, 255, 255, 255 };
    uint8_t out[DHCP_MAX];
    size_t len, got;
    const uint8_t *p = payload_of(f, n, &len);

    got = p ? dhcp_answer(g->dhcp, p, len, now_ns(), out) : 0;
    if (got == 0) {
        return;
    }
    if (out[242] == 5 && get32(out + 16) != 0 &&
        g->on_lease) { /* the type, which stands first: ACK */
        g->on_lease(g->on_lease_arg, out + 28, get32(out + 16));
    }
    if (get32(out + 12) != 0) { /* it has that address already */
        say(g, i->src, get32(out + 12), 67, 68, out, got);
    } else {
        say(g, out[10] & 0x80 ? all : i->src, 0xffffffff, 67, 68, out, got);
    }
}

/* With the resolver of the NAT as its receiver; the other way round its sender becomes the gateway. */
static void rewrite(struct gateway *g, uint8_t *f, size_t n, bool to_resolver)
{
    size_t at = 14 + (size_t)(f[14] & 15) * 4;

    put32(f + (to_resolver ? 30 : 26), to_resolver ? g->resolver : g->o.address);
    sum_header(f + 14);
    if (n >= at + 8) {
        put16(f + at + 6, 0);
    }
}

static void on_dns(struct gateway *g, uint8_t *f, size_t n, const struct frame_info *i)
{
    uint8_t out[DNS_MAX];
    size_t len, got;
    bool ours;
    const uint8_t *p = payload_of(f, n, &len);

    got = p ? dns_answer(g->dhcp, &g->o, p, len, out, &ours) : 0;
    if (got > 0 && (ours || !g->o.nat)) {
        say(g, i->src, i->ip_src, 53, i->port_src, out, got);
    } else if (p && g->o.nat) {
        struct iovec iov = { f, n };
        struct net_frame plain = { .iov = &iov, .n_iov = 1, .len = n };

        rewrite(g, f, n, true);
        to_nat(g, &plain);
    }
}

static int gateway_send(struct net_port *p, const struct net_frame *f)
{
    struct gateway *g = gateway_of(p);
    struct frame_info i;
    uint8_t b[SMALL];
    size_t n = f->len < SMALL ? f->len : SMALL;
    bool mine;

    if (!frame_look(f, &i) || i.tagged) {
        return 0;
    }
    if (i.type == 0x0806) {
        on_arp(g, f, &i);
        return 0;
    }
    if (i.type == 0x86dd && g->o.address6) {
        to_nat(g, f); /* router and neighbour discovery, and the world where it leads there */
        return 0;
    }
    if (i.type != 0x0800 || f->len < 34) {
        return 0;
    }
    mine = i.ip_dst == g->o.address;
    if (i.proto == 17 && i.port_dst == 67 && (mine || i.ip_dst == 0xffffffff)) {
        net_frame_get(f, 0, b, n);
        on_dhcp(g, b, n, &i);
    } else if (mine && g->o.dns && i.proto == 17 && i.port_dst == 53) {
        net_frame_get(f, 0, b, n);
        on_dns(g, b, n, &i);
    } else if (g->o.nat) {
        to_nat(g, f);
    } else if (mine && i.proto == 1) {
        net_frame_get(f, 0, b, n);
        on_icmp(g, b, n, &i);
    }
    return 0;
}

/* --- from the NAT --- */

static int nat_receive(void *arg, const struct net_frame *f)
{
    struct gateway *g = arg;
    struct frame_info i;

    if (frame_look(f, &i) && i.type == 0x0800 && i.proto == 17 && i.ip_src == g->resolver &&
        f->len < SMALL && !(f->hdr.flags & NET_HDR_NEEDS_CSUM)) {
        uint8_t b[SMALL];
        struct iovec iov = { b, f->len };
        struct net_frame out = { .iov = &iov, .n_iov = 1, .len = f->len };

        net_frame_get(f, 0, b, f->len);
        rewrite(g, b, f->len, false);
        return net_deliver(&g->port, &out);
    }
    return net_deliver(&g->port, f);
}

static void nat_received(void *arg)
{
    net_delivered(&((struct gateway *)arg)->port);
}

static const struct net_front_ops nat_front = { .receive = nat_receive,
                                                .received = nat_received };

/* --- the port --- */

static void gateway_recv_ready(struct net_port *p)
{
    if (gateway_of(p)->nat) {
        net_recv_ready(gateway_of(p)->nat);
    }
}

static void gateway_close(struct net_port *p)
{
    struct gateway *g = gateway_of(p);

    loop_task_cancel(&g->again);
    while (!list_empty(&g->answers)) {
        struct answer *a = list_entry(g->answers.next, struct answer, link);

        list_remove(&a->link);
        free(a);
    }
    net_close(g->nat);
    dhcp_free(g->dhcp);
    net_port_done(p);
    free(g);
}

static const struct net_port_ops gateway_ops = { .kind = "gateway",
                                                 .send = gateway_send,
                                                 .recv_ready = gateway_recv_ready,
                                                 .close = gateway_close };

static char *dotted(uint32_t ip)
{
    return xasprintf("%u.%u.%u.%u", ip >> 24, ip >> 16 & 255, ip >> 8 & 255, ip & 255);
}

/* libslirp has a resolver in the network: the last address that a host may have, which then is nobody else's. */
static struct net_port *nat_new(struct gateway *g, struct err *e)
{
    uint32_t net = g->o.address & g->o.mask, spare;
    AUTO_FREE char *base = dotted(net), *host = dotted(g->o.address), *dns = NULL,
                   *guest = NULL;
    AUTO_FREE char *range = xasprintf("%s/%d", base, __builtin_popcount(g->o.mask));

    g->resolver = (net | ~g->o.mask) - 1;
    g->resolver -= g->resolver == g->o.address;
    spare = g->resolver - 1 -
            (g->resolver - 1 == g->o.address); /* of its own DHCP, which is never asked */
    dns = dotted(g->resolver);
    guest = dotted(spare);
    return user_new(g->loop,
                    &(struct user_options){ .name = g->o.name,
                                            .net = range,
                                            .host = host,
                                            .dns = dns,
                                            .dhcp_start = guest,
                                            .no_ipv6 = !g->o.address6,
                                            .net6 = g->o.net6,
                                            .host6 = g->o.address6,
                                            .restricted = !g->o.nat,
                                            .tftp = g->o.tftp,
                                            .mtu = g->o.mtu },
                    e);
}

struct net_port *gateway_new(struct loop *l, const struct gateway_options *o, struct err *e)
{
    static const uint8_t none[6];
    struct gateway *g = xnew(struct gateway);

    net_port_init(&g->port, &gateway_ops, "gateway", NET_OFF_TSO4 | NET_OFF_TSO6 | NET_OFF_ECN);
    g->loop = l;
    g->o = *o;
    list_init(&g->answers);
    loop_task_init(&g->again, on_again, g);
    g->dhcp = dhcp_new(&g->o);
    /* As libslirp has it for its host. */
    g->mac[0] = 0x52;
    g->mac[1] = 0x55;
    put32(g->mac + 2, o->address);
    if (!o->nat && !o->address6 && memcmp(o->mac, none, 6) != 0) {
        memcpy(g->mac, o->mac, 6);
    }
    if (o->nat || o->address6) {
        g->nat = nat_new(g, e);
        if (!g->nat) {
            gateway_close(&g->port);
            return NULL;
        }
        net_attach(g->nat, &nat_front, g);
        net_set_offloads(g->nat, NET_OFF_ALL);
    }
    return &g->port;
}

void gateway_name(struct net_port *gateway, const uint8_t mac[6], const char *name)
{
    dhcp_name(gateway_of(gateway)->dhcp, mac, name);
}

void gateway_set_hosts(struct net_port *gateway, struct gateway_host *hosts, size_t n)
{
    struct gateway *g = gateway_of(gateway);

    g->o.hosts = hosts;
    g->o.n_hosts = n;
}

void gateway_on_lease(struct net_port *gateway,
                      void (*fn)(void *arg, const uint8_t mac[6], uint32_t ip), void *arg)
{
    gateway_of(gateway)->on_lease = fn;
    gateway_of(gateway)->on_lease_arg = arg;
}

size_t gateway_leases(struct net_port *gateway, const struct gateway_lease **out)
{
    return dhcp_leases(gateway_of(gateway)->dhcp, out);
}
