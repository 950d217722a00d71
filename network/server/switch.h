/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A learning switch (IEEE 802.1Q): ports in VLANs, addresses learned a VLAN, unknown ones flooded. A port is in one VLAN, whose frames
 * are untagged there (0: the network's own), or a trunk, which has all VLANs tagged and its own untagged. Each port has filters, limits and
 * faults both ways, and may be captured.
 *
 * A port that does not take frames loses them: it holds up nobody else. The loop's thread.
 */
#ifndef VMD_NETWORK_SERVER_SWITCH_H
#define VMD_NETWORK_SERVER_SWITCH_H

#include "network/server/filter.h"
#include "network/server/impair.h"

#define SWITCH_PORTS 256
#define SWITCH_ADDRESSES 4096 /* that are learned */
#define SWITCH_AGE_NS INT64_C(300000000000)

struct net_switch;
struct pcap;

struct switch_port {
    struct net_switch *sw;
    struct net_port *port;
    char *name;
    unsigned index;
    unsigned vlan; /* 0 to 4094 */
    bool trunk;
    struct filter filter;
    struct impair from_vm, to_vm;
    uint64_t filtered, lost; /* frames that rules refused, and that the port had no room for */
    struct pcap *pcap;
    bool pending; /* frames were sent to it since the last flush */
    void *user;   /* of whoever added it */
};

struct net_switch *switch_new(struct loop *l, const char *name);
void switch_free(struct net_switch *s); /* closes the ports */
/* Takes the port. NULL: there are SWITCH_PORTS already, and it is closed. */
struct switch_port *switch_add(struct net_switch *s, struct net_port *take_port,
                               const char *name);
void switch_remove(struct switch_port *p); /* closes it */
struct switch_port *switch_find(struct net_switch *s, const char *name);
/* Another VLAN: what was learned on the port is forgotten. */
void switch_set_vlan(struct switch_port *p, unsigned vlan, bool trunk);
/* The i-th port, NULL: that place is free. */
struct switch_port *switch_at(struct net_switch *s, unsigned i);
unsigned switch_learned(const struct net_switch *s);

#endif
