/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filters of a port, as libvirt's nwfilter: no spoofed addresses, and rows that accept or drop. Pure functions, any thread.
 */
#ifndef VMD_NETWORK_SERVER_FILTER_H
#define VMD_NETWORK_SERVER_FILTER_H

#include "network/port.h"

#define FILTER_ROWS 64

enum filter_proto { FP_ALL, FP_ARP, FP_IPV4, FP_IPV6, FP_TCP, FP_UDP, FP_ICMP, FP_PROTOS };
extern const char *const filter_protos[FP_PROTOS];

struct filter_row {
    bool drop, from_vm, to_vm;
    enum filter_proto proto;
    uint32_t src, src_mask, dst, dst_mask; /* IPv4 */
    uint16_t src_port, dst_port;           /* 0: any */
};

struct filter {
    bool mac, ip;    /* frames from the VM must have its address */
    uint8_t card[6]; /* that address */
    uint32_t leased; /* what DHCP gave it, which holds when there are no others; 0: nothing */
    uint32_t addresses; /* how many of the next there are */
    uint32_t address[8];
    unsigned n_rows;
    struct filter_row row[FILTER_ROWS]; /* the first that fits decides */
};

/* What the switch and the filter want to know of a frame. Numbers in host byte order; absent ones are 0. */
struct frame_info {
    uint8_t dst[6], src[6];
    bool tagged, multicast;
    uint16_t vid, type; /* behind the tag */
    unsigned l3;        /* where the network header begins */
    uint8_t proto;      /* of IPv4 */
    uint32_t ip_src, ip_dst;
    uint16_t port_src, port_dst;
    bool fragment;      /* not the first */
    uint8_t arp_mac[6]; /* sender */
    uint16_t arp_op;
};

/* False: too short to be a frame. */
bool frame_look(const struct net_frame *f, struct frame_info *out);
bool filter_passes(const struct filter *c, const struct frame_info *i, bool from_vm);

#endif
