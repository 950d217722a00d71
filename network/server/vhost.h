/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A port whose back end is a vhost-user one, of a switch like Open vSwitch or DPDK: the front end, in vmd-net (ADR 0039). The back end
 * gets a window of memory with rings and copies of frames, never the guest's. While none is there the link is down; who makes connections is
 * asked for another then. The loop's thread.
 */
#ifndef VMD_NETWORK_SERVER_VHOST_H
#define VMD_NETWORK_SERVER_VHOST_H

#include "network/port.h"

#define VHOST_PAIRS_MAX 8

struct vhost_options {
    const char *name;
    unsigned pairs; /* of queues, at most; those that the back end has are used */
    int connect_fd; /* by which connections come (api-schema/net/vhostsock.h); taken */
    bool listens;   /* the first one comes when it comes; else it is there, and waited for */
};

/* Makes what is needed of the host: before the process confines itself. NULL: e says why. */
struct net_port *vhost_port_new(struct loop *l, const struct vhost_options *o, struct err *e);
/* For tests and fuzzers, which write there as back ends do: the window, its size, the bell that rings when there is something. */
uint8_t *vhost_port_window(struct net_port *p, size_t *size, int *call_fd);
/* Where in the window ring `i` has its descriptors, available and used ring. */
void vhost_port_ring(unsigned i, size_t at[3]);
#define VHOST_PORT_RING 512 /* entries of each */

#endif
