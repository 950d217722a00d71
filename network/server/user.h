/* SPDX-License-Identifier: Apache-2.0 */
/*
 * User-mode networking: a port that leads into a NAT of libslirp, which speaks DHCP, DNS, TFTP and IPv6 router
 * advertisement to the guest and opens ordinary sockets towards the world. Lives in vmd-net only: the emulator makes no
 * sockets. The loop's thread.
 */
#ifndef VMD_NETWORK_SERVER_USER_H
#define VMD_NETWORK_SERVER_USER_H

#include "network/port.h"

#define USER_FORWARDS_MAX 64

/* Texts; NULL and zero are defaults. */
struct user_options {
    const char *name;
    const char *net, *host, *dns, *dhcp_start; /* 10.0.2.0/24 and addresses in it */
    const char *net6, *host6, *dns6;           /* fd00:2::/64 */
    bool no_ipv4, no_ipv6, restricted;
    const char *hostname, *domain, *search[16];
    unsigned n_search;
    const char *tftp, *tftp_name, *bootfile;
    const char
        *forward[USER_FORWARDS_MAX]; /* "tcp:[ADDRESS]:PORT-[ADDRESS]:PORT", host then guest */
    unsigned n_forward;
    const char *
        guest_forward[USER_FORWARDS_MAX]; /* "tcp:ADDRESS:PORT-ADDRESS:PORT", guest then host */
    unsigned n_guest_forward;
    unsigned mtu;
};

/* NULL: e says why, naming the address or forward. */
struct net_port *user_new(struct loop *l, const struct user_options *o, struct err *e);

#endif
