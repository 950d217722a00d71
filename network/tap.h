/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A port on a tap interface of the host. Whoever opened it (vmd-spawn, or the emulator before it confined itself) has set it up
 * (api-schema/net/tapdev.h): frames stand behind a struct virtio_net_hdr_v1, and the kernel hands over unfinished checksums and
 * large TCP segments, as it takes them. The loop's thread.
 */
#ifndef VMD_NETWORK_TAP_H
#define VMD_NETWORK_TAP_H

#include "network/port.h"

#define NET_TAP_QUEUES 8

/*
 * Takes the descriptors, one a queue, at most NET_TAP_QUEUES. The kernel gives a flow's frames by the queue that it was last sent on. An interface that vanishes
 * puts the link down and leaves the port there.
 */
struct net_port *net_tap_new(struct loop *l, const int *take_taps, unsigned n,
                             const char *name);

#endif
