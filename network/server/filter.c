/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks at frames and decides by rows. Nothing in a frame is trusted. Pure functions, any thread.
 */
#include "network/server/filter.h"

#include <string.h>

const char *const filter_protos[FP_PROTOS] = { "all", "arp", "ipv4", "ipv6",
                                               "tcp", "udp", "icmp" };

enum { ETH_ARP = 0x0806, ETH_IPV4 = 0x0800, ETH_IPV6 = 0x86dd, ETH_VLAN = 0x8100 };

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void look_ipv4(const uint8_t *h, size_t n, struct frame_info *out)
{
    const uint8_t *ip = h + out->l3;
    size_t left = n - out->l3, header;

    if (left < 20 || ip[0] >> 4 != 4) {
        return;
    }
    header = (size_t)(ip[0] & 15) * 4;
    out->proto = ip[9];
    out->ip_src = get32(ip + 12);
    out->ip_dst = get32(ip + 16);
    out->fragment = (get16(ip + 6) & 0x1fff) != 0;
    if ((out->proto == 6 || out->proto == 17) && !out->fragment && header >= 20 &&
        left >= header + 4) {
        out->port_src = get16(ip + header);
        out->port_dst = get16(ip + header + 2);
    }
}

bool frame_look(const struct net_frame *f, struct frame_info *out)
{
    uint8_t h[18 + 60 + 4];
    size_t n = net_frame_get(f, 0, h, sizeof(h));

    *out = (struct frame_info){ .l3 = 14 };
    if (n < 14) {
        return false;
    }
    memcpy(out->dst, h, 6);
    memcpy(out->src, h + 6, 6);
    out->multicast = h[0] & 1;
    out->type = get16(h + 12);
    if (out->type == ETH_VLAN) {
        if (n < 18) {
            return false;
        }
        out->tagged = true;
        out->vid = get16(h + 14) & 0xfff;
        out->type = get16(h + 16);
        out->l3 = 18;
    }
    if (out->type == ETH_IPV4) {
        look_ipv4(h, n, out);
    } else if (out->type == ETH_ARP && n >= out->l3 + 28) {
        out->arp_op = get16(h + out->l3 + 6);
        memcpy(out->arp_mac, h + out->l3 + 8, 6);
        out->ip_src = get32(h + out->l3 + 14);
        out->ip_dst = get32(h + out->l3 + 24);
    }
    return true;
}

static bool proto_fits(enum filter_proto p, const struct frame_info *i)
{
    switch (p) {
    case FP_ARP:
        return i->type == ETH_ARP;
    case FP_IPV4:
        return i->type == ETH_IPV4;
    case FP_IPV6:
        return i->type == ETH_IPV6;
    case FP_TCP:
        return i->type == ETH_IPV4 && i->proto == 6;
    case FP_UDP:
        return i->type == ETH_IPV4 && i->proto == 17;
    case FP_ICMP:
        return i->type == ETH_IPV4 && i->proto == 1;
    default:
        return true;
    }
}

static bool row_fits(const struct filter_row *r, const struct frame_info *i, bool from_vm)
{
    return (from_vm ? r->from_vm : r->to_vm) && proto_fits(r->proto, i) &&
           (i->ip_src & r->src_mask) == r->src && (i->ip_dst & r->dst_mask) == r->dst &&
           (!r->src_port || r->src_port == i->port_src) &&
           (!r->dst_port || r->dst_port == i->port_dst);
}

/* DHCP asks from no address; any other must be one of the VM's. */
static bool own_address(const struct filter *c, const struct frame_info *i)
{
    if (i->type != ETH_IPV4 && i->type != ETH_ARP) {
        return true;
    }
    if (i->ip_src == 0) {
        return i->type == ETH_ARP || (i->proto == 17 && i->port_dst == 67);
    }
    if (c->addresses == 0) {
        return c->leased == i->ip_src;
    }
    for (unsigned k = 0; k < c->addresses; k++) {
        if (c->address[k] == i->ip_src) {
            return true;
        }
    }
    return false;
}

bool filter_passes(const struct filter *c, const struct frame_info *i, bool from_vm)
{
    if (from_vm && c->mac &&
        (memcmp(i->src, c->card, 6) != 0 ||
         (i->type == ETH_ARP && memcmp(i->arp_mac, c->card, 6) != 0))) {
        return false;
    }
    if (from_vm && c->ip && !own_address(c, i)) {
        return false;
    }
    for (unsigned k = 0; k < c->n_rows; k++) {
        if (row_fits(&c->row[k], i, from_vm)) {
            return !c->row[k].drop;
        }
    }
    return true;
}
