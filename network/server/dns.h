/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DNS server of a named network (RFC 1035): names of its VMs and back. What it does not know is for somebody else to answer. Pure
 * but for the tables of DHCP; any thread that owns these.
 */
#ifndef VMD_NETWORK_SERVER_DNS_H
#define VMD_NETWORK_SERVER_DNS_H

#include "network/server/dhcp.h"

#define DNS_MAX 512

/* A query (the payload of UDP): the bytes of the answer in out[DNS_MAX]; 0: it is no query that can be answered; *ours is false
 * when the name is none of the network's, and the answer says that there is no such name. */
size_t dns_answer(const struct dhcp *d, const struct gateway_options *o, const uint8_t *in,
                  size_t n, uint8_t *out, bool *ours);

#endif
