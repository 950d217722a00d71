/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gateway of a named network: a port with an address of its own that answers ARP and ping, gives out addresses by DHCP (RFC 2131,
 * 2132), knows the names of the VMs by DNS (RFC 1035), and leads through a NAT of libslirp to the world, where the network is not isolated. The
 * loop's thread. Requests come from guests: every field is checked, tables are bounded.
 */
#ifndef VMD_NETWORK_SERVER_GATEWAY_H
#define VMD_NETWORK_SERVER_GATEWAY_H

#include "network/port.h"

#define GATEWAY_HOSTS 4096

/* A host with an address of its own, or a name of an address. Texts may be empty. */
struct gateway_host {
    uint8_t mac[6]; /* zero: any */
    uint32_t ip;    /* 0: any */
    char name[64];
};

struct gateway_options {
    const char *name, *domain, *tftp, *bootfile; /* all but the name may be NULL */
    uint32_t address, mask;                      /* host byte order, as all here */
    uint32_t first, last;                        /* that DHCP gives; 0: no DHCP */
    const char *address6, *net6; /* of the gateway, and "A::/N"; NULL: no IPv6 */
    uint8_t mac[6]; /* of an isolated network's gateway; zero: made from the address */
    unsigned mtu;   /* that DHCP tells; 0: none */
    bool nat, dns;
    struct gateway_host *hosts;
    size_t n_hosts;
};

struct gateway_lease {
    uint8_t mac[6];
    uint32_t ip;
    char name[64];
    int64_t ends_ns; /* monotonic */
};

/* Borrows the hosts and texts. NULL: e says why. */
struct net_port *gateway_new(struct loop *l, const struct gateway_options *o, struct err *e);
/* The VM with that address is called so, whatever it says itself; an empty name forgets it. */
void gateway_name(struct net_port *gateway, const uint8_t mac[6], const char *name);
/* In place of those it was made with; borrowed as they are. */
void gateway_set_hosts(struct net_port *gateway, struct gateway_host *hosts, size_t n);
/* fn hears of each address that DHCP gives a card, in the midst of a frame. */
void gateway_on_lease(struct net_port *gateway,
                      void (*fn)(void *arg, const uint8_t mac[6], uint32_t ip), void *arg);
size_t gateway_leases(struct net_port *gateway, const struct gateway_lease **out);

#endif
