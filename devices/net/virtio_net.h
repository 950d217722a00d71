/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a virtio network card shows to the emulator beside its registers. Main loop, no lock held.
 */
#ifndef VMD_DEVICES_NET_VIRTIO_NET_H
#define VMD_DEVICES_NET_VIRTIO_NET_H

#include <stdbool.h>
#include <stdint.h>

struct device;
struct net_port;

#define VNET_MAC_TABLE 64
#define VNET_MAX_PAIRS 8

/* What went through a pair of queues since the device was made. */
struct vnet_pair {
    uint64_t rx_frames, rx_bytes, tx_frames, tx_bytes;
};

/* What the card lets in, and how it is doing. */
struct vnet_view {
    uint8_t mac[6], perm_mac[6];
    bool link; /* as the guest is told */
    bool promisc, allmulti, alluni, nomulti, nouni, nobcast;
    bool uni_overflow,
        multi_overflow; /* the driver gave more addresses than there is room for */
    bool vlan_filter;   /* the driver uses it */
    unsigned n_uni, n_multi;
    uint8_t table[VNET_MAC_TABLE][6]; /* unicast first */
    uint64_t vlans[64];               /* a bit a VLAN */
    unsigned pairs;                   /* queue pairs in use */
    struct vnet_pair pair[VNET_MAX_PAIRS];
    struct net_port *port;
};

void virtio_net_view(struct device *d, struct vnet_view *out);
/* Plugs the cable in or pulls it; the guest is told. */
void virtio_net_set_link(struct device *d, bool up);
/* Another port in the place of the one there is, which is closed. Takes it; NULL: the cable leads nowhere. */
void virtio_net_set_port(struct device *d, struct net_port *take_port);
/* Asks the guest to make itself known to switches (after it has moved). */
void virtio_net_announce(struct device *d);
/* "52:54:00:12:34:56" to bytes; false: not that, or a group's or nobody's address. */
bool virtio_net_mac(const char *text, uint8_t mac[6]);

#endif
