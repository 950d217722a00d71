/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Generic receive offload, for what comes from libslirp (RFC 9293; virtio 1.2 §5.1.6.4). Pure functions, any thread.
 */
#include "network/coalesce.h"

#include "network/offload.h"

#include <string.h>

enum { ETH = 14, IP4 = 20, IP6 = 40, TCP = 20, PROTO_TCP = 6 };
enum { TCP_PSH = 8, TCP_ACK = 16 };
enum { SEQ = 4, ACK = 8, OFFSET = 12, FLAGS = 13, SUM = 16 }; /* in a TCP header */

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

/* Where the TCP header of a segment that may be joined lies; 0: it is none. */
static size_t find_tcp(const uint8_t *f, size_t len)
{
    const uint8_t *ip = f + ETH;
    size_t l4 = 0;

    if (len < ETH + IP4 + TCP) {
        return 0;
    }
    if (get16(f + 12) == 0x0800 && ip[0] == 0x45 && ip[9] == PROTO_TCP &&
        (get16(ip + 6) & 0xbfff) == 0 && get16(ip + 2) == len - ETH) {
        l4 = ETH + IP4;
    } else if (get16(f + 12) == 0x86dd && len >= ETH + IP6 + TCP && ip[0] >> 4 == 6 &&
               ip[6] == PROTO_TCP && get16(ip + 4) == len - ETH - IP6) {
        l4 = ETH + IP6;
    }
    return l4 && f[l4 + OFFSET] == TCP / 4 << 4 && (f[l4 + FLAGS] & ~TCP_PSH) == TCP_ACK &&
                   len > l4 + TCP
               ? l4
               : 0;
}

void net_large_begin(struct net_large *g, const uint8_t *frame, size_t len)
{
    *g = (struct net_large){ .hdr = { .flags = NET_HDR_DATA_VALID },
                             .l4 = find_tcp(frame, len) };
    if (g->l4) {
        g->payload = g->l4 + TCP;
        g->next = get32(frame + g->l4 + SEQ) + (uint32_t)(len - g->payload);
        g->hdr.gso_size = (uint16_t)(len - g->payload);
        g->open = !(frame[g->l4 + FLAGS] & TCP_PSH);
    }
}

bool net_large_fits(const struct net_large *g, const uint8_t *whole, size_t len,
                    const uint8_t *frame, size_t n)
{
    const uint8_t *a = whole + ETH, *b = frame + ETH;

    if (!g->open || find_tcp(frame, n) != g->l4 || n - g->payload > g->hdr.gso_size ||
        len - ETH + n - g->payload > 65535 || memcmp(whole, frame, ETH) != 0) {
        return false;
    }
    /* All that says whose it is and how it is to be treated, but lengths, the identification and checksums. */
    if (g->l4 == ETH + IP4
            ? a[1] != b[1] || a[6] != b[6] || a[8] != b[8] || memcmp(a + 12, b + 12, 8) != 0
            : memcmp(a, b, 4) != 0 || memcmp(a + 7, b + 7, 33) != 0) {
        return false;
    }
    a = whole + g->l4;
    b = frame + g->l4;
    return memcmp(a, b, 4) == 0 && get32(b + SEQ) == g->next &&
           memcmp(a + ACK, b + ACK, 4) == 0 && memcmp(a + 14, b + 14, 2) == 0;
}

void net_large_add(struct net_large *g, uint8_t *whole, size_t *len, const uint8_t *frame,
                   size_t n)
{
    uint8_t pushed = frame[g->l4 + FLAGS] & TCP_PSH;

    n -= g->payload;
    memcpy(whole + *len, frame + g->payload, n);
    *len += n;
    g->next += (uint32_t)n;
    g->open = !pushed && n == g->hdr.gso_size; /* only the last may be shorter */
    whole[g->l4 + FLAGS] |= pushed;
    g->hdr.gso_type = g->l4 == ETH + IP4 ? NET_GSO_TCPV4 : NET_GSO_TCPV6;
}

void net_large_end(struct net_large *g, uint8_t *whole, size_t len)
{
    uint8_t *ip = whole + ETH, pseudo[4] = { 0, PROTO_TCP };
    bool v6 = g->l4 == ETH + IP6;
    uint16_t sum;

    g->open = false;
    if (g->hdr.gso_type == NET_GSO_NONE) {
        g->hdr.gso_size = 0;
        return;
    }
    if (v6) {
        put16(ip + 4, (uint16_t)(len - ETH - IP6));
    } else {
        put16(ip + 2, (uint16_t)(len - ETH));
        put16(ip + 10, 0);
        sum = (uint16_t)~net_sum_fold(net_sum(ip, IP4, false, 0));
        memcpy(ip + 10, &sum, sizeof(sum));
    }
    put16(pseudo + 2, (uint16_t)(len - g->l4));
    sum = net_sum_fold(net_sum(ip + (v6 ? 8 : 12), v6 ? 32 : 8, false,
                               net_sum(pseudo, sizeof(pseudo), false, 0)));
    memcpy(whole + g->l4 + SUM, &sum, sizeof(sum));
    g->hdr.flags = NET_HDR_NEEDS_CSUM;
    g->hdr.hdr_len = (uint16_t)g->payload;
    g->hdr.csum_start = (uint16_t)g->l4;
    g->hdr.csum_offset = SUM;
}
