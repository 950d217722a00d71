/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checksums and segmentation (RFC 1071, RFC 9293, virtio 1.2 §5.1.6). Pure functions, any thread.
 */
#include "network/offload.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

enum { ETH = 14, VLAN_TAG = 4, TCP_MIN = 20, UDP_HEADER = 8, MAX_HEADERS = 256 };
enum { TCP_FIN = 1, TCP_PSH = 8, TCP_CWR = 0x80 };
enum { PROTO_TCP = 6, PROTO_UDP = 17 };

uint32_t net_sum(const void *p, size_t n, bool odd, uint32_t start)
{
    const uint8_t *b = p;
    uint64_t sum = 0;

    /* Words as they lie in memory: the sum is the same in either byte order, but for its own bytes. */
    for (; n >= 32; n -= 32, b += 32) {
        uint32_t w[8];

        memcpy(w, b, sizeof(w));
        sum += (uint64_t)w[0] + w[1] + w[2] + w[3] + w[4] + w[5] + w[6] + w[7];
    }
    for (; n >= 2; n -= 2, b += 2) {
        uint16_t w;

        memcpy(&w, b, sizeof(w));
        sum += w;
    }
    if (n) {
        sum += htole16(*b);
    }
    while (sum >> 16) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    if (odd) {
        sum = (sum >> 8 | sum << 8) & 0xffff;
    }
    sum += start;
    return (uint32_t)((sum & 0xffffffff) + (sum >> 32));
}

uint16_t net_sum_fold(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    sum += sum >> 16;
    return (uint16_t)sum;
}

bool net_hdr_ok(const struct net_hdr *h, size_t len)
{
    uint8_t type = h->gso_type & ~NET_GSO_ECN;

    if (len < ETH || len > NET_MAX_FRAME) {
        return false;
    }
    if ((h->flags & NET_HDR_NEEDS_CSUM) &&
        (h->csum_start < ETH || (size_t)h->csum_start + h->csum_offset + 2 > len)) {
        return false;
    }
    if (type == NET_GSO_NONE) {
        return h->gso_type == 0;
    }
    if (type != NET_GSO_TCPV4 && type != NET_GSO_TCPV6 && type != NET_GSO_UDP_L4) {
        return false;
    }
    return (h->flags & NET_HDR_NEEDS_CSUM) && h->gso_size > 0;
}

unsigned net_hdr_needs(const struct net_hdr *h)
{
    unsigned needs = h->flags & NET_HDR_NEEDS_CSUM ? NET_OFF_CSUM : 0;

    switch (h->gso_type & ~NET_GSO_ECN) {
    case NET_GSO_TCPV4:
        needs |= NET_OFF_TSO4;
        break;
    case NET_GSO_TCPV6:
        needs |= NET_OFF_TSO6;
        break;
    case NET_GSO_UDP_L4:
        needs |= NET_OFF_USO;
        break;
    default:
        break;
    }
    return needs | (h->gso_type & NET_GSO_ECN ? NET_OFF_ECN : 0);
}

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

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

/* Stores a sum as it lies in memory. A UDP checksum of zero would say that there is none. */
static void put_sum(uint8_t *p, uint32_t sum)
{
    uint16_t v = (uint16_t)~net_sum_fold(sum);

    v = v ? v : 0xffff;
    memcpy(p, &v, sizeof(v));
}

/* Where the parts of a frame to be cut lie. */
struct cut {
    size_t ip, l4, payload; /* offsets */
    bool v6, tcp;
};

static int find_parts(const uint8_t *frame, size_t len, const struct net_hdr *h, struct cut *c)
{
    uint8_t type = h->gso_type & ~NET_GSO_ECN;
    uint16_t ethertype = get16(frame + 12);

    c->ip = ETH;
    for (int i = 0; i < 2 && (ethertype == 0x8100 || ethertype == 0x88a8); i++) {
        if (len < c->ip + VLAN_TAG) {
            return -EINVAL;
        }
        ethertype = get16(frame + c->ip + 2);
        c->ip += VLAN_TAG;
    }
    c->v6 = ethertype == 0x86dd;
    c->tcp = type != NET_GSO_UDP_L4;
    c->l4 = h->csum_start;
    if ((!c->v6 && ethertype != 0x0800) || (type == NET_GSO_TCPV4 && c->v6) ||
        (type == NET_GSO_TCPV6 && !c->v6) || c->l4 < c->ip + (c->v6 ? 40 : 20) ||
        c->l4 + (c->tcp ? TCP_MIN : UDP_HEADER) > len) {
        return -EINVAL;
    }
    if (!c->v6 && (frame[c->ip] >> 4 != 4 || c->l4 != c->ip + 4u * (frame[c->ip] & 15) ||
                   frame[c->ip + 9] != (c->tcp ? PROTO_TCP : PROTO_UDP))) {
        return -EINVAL;
    }
    c->payload = c->l4 + (c->tcp ? 4u * (frame[c->l4 + 12] >> 4) : UDP_HEADER);
    if (c->payload < c->l4 + (c->tcp ? TCP_MIN : UDP_HEADER) || c->payload > len ||
        c->payload > MAX_HEADERS) {
        return -EINVAL;
    }
    return 0;
}

/* The checksum over pseudo header, header and payload of one segment. */
static void l4_checksum(uint8_t *head, const struct cut *c, const uint8_t *payload, size_t n)
{
    size_t header = c->payload - c->l4;
    uint8_t *field = head + c->l4 + (c->tcp ? 16 : 6);
    uint8_t pseudo[4] = { 0, c->tcp ? PROTO_TCP : PROTO_UDP };
    uint32_t sum;

    put16(pseudo + 2, (uint16_t)(header + n));
    put16(field, 0);
    sum = net_sum(pseudo, sizeof(pseudo), false, 0);
    sum = net_sum(head + c->ip + (c->v6 ? 8 : 12), c->v6 ? 32 : 8, false, sum);
    sum = net_sum(head + c->l4, header, false, sum);
    put_sum(field, net_sum(payload, n, header & 1, sum));
}

static void ip_header(uint8_t *head, const struct cut *c, size_t n, uint16_t id)
{
    uint8_t *ip = head + c->ip;
    size_t total = c->payload - c->ip + n;

    if (c->v6) {
        put16(ip + 4, (uint16_t)(total - 40));
        return;
    }
    put16(ip + 2, (uint16_t)total);
    put16(ip + 4, id);
    put16(ip + 10, 0);
    put_sum(ip + 10, net_sum(ip, c->l4 - c->ip, false, 0));
}

int net_csum_fill(uint8_t *frame, size_t len, struct net_hdr *h)
{
    struct cut c;

    if (h->gso_type != NET_GSO_NONE) {
        /* As one large packet, whose lengths its sender may have left out. */
        int rc = find_parts(frame, len, h, &c);

        if (rc != 0 || len - c.ip > 65535 || !c.tcp) {
            return -EINVAL;
        }
        ip_header(frame, &c, len - c.payload, get16(frame + c.ip + 4));
        l4_checksum(frame, &c, frame + c.payload, len - c.payload);
    } else if (h->flags & NET_HDR_NEEDS_CSUM) {
        /* The field holds the sum of the pseudo header: part of what is summed. */
        put_sum(frame + h->csum_start + h->csum_offset,
                net_sum(frame + h->csum_start, len - h->csum_start, false, 0));
    }
    *h = (struct net_hdr){ .flags = NET_HDR_DATA_VALID };
    return 0;
}

int net_segment(uint8_t *frame, size_t len, const struct net_hdr *h,
                int (*fn)(void *arg, const struct net_frame *f), void *arg)
{
    uint8_t head[MAX_HEADERS];
    struct cut c;
    uint16_t id;
    uint32_t seq = 0;
    int rc = find_parts(frame, len, h, &c);

    if (rc != 0) {
        return rc;
    }
    memcpy(head, frame, c.payload);
    id = get16(frame + c.ip + 4);
    if (c.tcp) {
        seq = (uint32_t)get16(frame + c.l4 + 4) << 16 | get16(frame + c.l4 + 6);
    }
    for (size_t at = c.payload, k = 0; at < len && rc == 0; k++) {
        size_t n = len - at < h->gso_size ? len - at : h->gso_size;
        struct iovec iov[2] = { { head, c.payload }, { frame + at, n } };
        struct net_frame f = {
            .hdr = { .flags = NET_HDR_DATA_VALID }, .iov = iov, .n_iov = 2, .len = c.payload + n
        };

        ip_header(head, &c, n, (uint16_t)(id + k));
        if (c.tcp) {
            uint8_t flags = frame[c.l4 + 13];

            /* Congestion was answered once; the end is at the end. */
            flags &= k > 0 ? (uint8_t)~TCP_CWR : 0xff;
            flags &= at + n < len ? (uint8_t) ~(TCP_FIN | TCP_PSH) : 0xff;
            head[c.l4 + 13] = flags;
            put32(head + c.l4 + 4, seq + (uint32_t)(at - c.payload));
        } else {
            put16(head + c.l4 + 4, (uint16_t)(UDP_HEADER + n));
        }
        l4_checksum(head, &c, frame + at, n);
        rc = fn(arg, &f);
        at += n;
    }
    return rc;
}
