/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DHCP server of a named network (RFC 2131, options of RFC 2132): which address a card has, and the answer to a request. The loop's
 * thread; no sockets.
 */
#ifndef VMD_NETWORK_SERVER_DHCP_H
#define VMD_NETWORK_SERVER_DHCP_H

#include "network/server/gateway.h"

#include <stdbool.h>

#define DHCP_LEASE_S 3600
#define DHCP_MAX 1400 /* bytes of an answer */

struct dhcp;

/* Borrows the options. */
struct dhcp *dhcp_new(const struct gateway_options *o);
void dhcp_free(struct dhcp *d);
/* A request (the payload of UDP) from a card: the bytes of the answer in out[DHCP_MAX], 0: none. */
size_t dhcp_answer(struct dhcp *d, const uint8_t *in, size_t n, int64_t now_ns, uint8_t *out);
/* As in gateway.h. */
void dhcp_name(struct dhcp *d, const uint8_t mac[6], const char *name);
size_t dhcp_leases(struct dhcp *d, const struct gateway_lease **out);
/* The address of a name (without the network's domain), 0: nobody's; the name of an address, NULL: none. */
uint32_t dhcp_find(const struct dhcp *d, const char *name);
const char *dhcp_name_of(const struct dhcp *d, uint32_t ip);

#endif
