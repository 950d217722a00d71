/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports on sockets. Stream sockets carry each frame behind its length as a 32-bit big-endian number, which is what
 * QEMU's `-netdev stream` and passt speak; datagram sockets carry a frame a packet (`-netdev dgram`). Between programs of
 * ours the frame stands behind a struct virtio_net_hdr_v1, so that offloads pass; such a header with NET_HDR_LINK and no frame
 * says that the link of who sends it is up (1 in gso_type) or down. The loop's thread.
 */
#ifndef VMD_NETWORK_STREAM_H
#define VMD_NETWORK_STREAM_H

#include "network/port.h"

/* Gives a socket that will be a port's a large buffer. Apart, since a confined process may not. */
void net_stream_widen(int sock);
/* Takes the descriptor, which is connected; it is made non-blocking. `vhdr`: frames carry their header. The peer's end
 * puts the link down and leaves the port there. */
struct net_port *net_stream_new(struct loop *l, int take_sock, const char *name, bool vhdr);
struct net_port *net_dgram_new(struct loop *l, int take_sock, const char *name, bool vhdr);
/* Calls fn once when the peer has gone. fn may close the port. */
void net_stream_on_end(struct net_port *p, void (*fn)(void *arg), void *arg);

#endif
