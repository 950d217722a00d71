/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two ports back to back: what comes out of one goes into the other, and waits where that has no room. The loop's thread.
 */
#ifndef VMD_NETWORK_SERVER_JOIN_H
#define VMD_NETWORK_SERVER_JOIN_H

struct net_join;
struct net_port;

/* Takes both ports. Offloads pass as far as the other side takes them. */
struct net_join *net_join_new(struct net_port *take_a, struct net_port *take_b);
void net_join_free(struct net_join *j); /* closes both */

#endif
