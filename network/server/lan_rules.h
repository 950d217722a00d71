/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules of ports and options of gateways, from JSON. Pure functions, any thread.
 */
#ifndef VMD_NETWORK_SERVER_LAN_RULES_H
#define VMD_NETWORK_SERVER_LAN_RULES_H

#include "network/server/gateway.h"
#include "network/server/switch.h"

struct json_object;

bool lan_mac(const char *text, uint8_t out[6]); /* NULL is no address */
uint32_t lan_ip(const char *text);              /* 0: none */
/* Members that are absent leave the rules as they are. */
int lan_port_rules(struct switch_port *p, const struct json_object *o, struct err *e);
/* The faults of a port both ways, as port takes them. */
struct json_object *lan_faults(const struct switch_port *p);
bool lan_has_faults(const struct switch_port *p);
/* o's "hosts"; the list is the caller's to free. */
int lan_hosts(const struct json_object *o, struct gateway_host **out, size_t *count,
              struct err *e);
/* The texts stay o's; hosts is the caller's to free. */
int lan_gateway(const struct json_object *o, struct gateway_options *out, struct err *e);

#endif
