/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tap interfaces of the host, for whoever opens them: vmd-spawn, or an emulator that is run by hand. Needs CAP_NET_ADMIN,
 * or an interface that was made for the user (`ip tuntap add`). Any thread; blocks as long as the kernel does.
 */
#ifndef VMD_API_NET_TAPDEV_H
#define VMD_API_NET_TAPDEV_H

#include "engine/base/err.h"

/* What of a card says how. Texts may be NULL. */
struct tap_wish {
    const char *
        ifname; /* an interface that exists, or the name of one that is made; NULL: the kernel's choice */
    const char *bridge; /* the bridge that it joins; NULL: it is left where it is */
    unsigned mtu;       /* 0: as it is */
    unsigned vlan;      /* of the bridge: the port's, untagged; 0: as the bridge has it */
    unsigned queues;    /* at most TAP_MAX_QUEUES; 0: one */
};

#define TAP_MAX_QUEUES 8

/*
 * One descriptor a queue, with virtio headers of 12 bytes and all offloads on; all are attached. How many there are, or a negative
 * code: an interface that exists and was not made for several has one, whatever is wished. One that was made goes with the last.
 */
int tap_open(const struct tap_wish *w, int fds[TAP_MAX_QUEUES], struct err *e);

#endif
