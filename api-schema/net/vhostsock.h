/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections to the vhost-user back end of a network card, for vmd-net, which is confined and can make none: a small process connects to the
 * socket, or waits there for who connects, and hands over what it has. Started by vmd-spawn, or an emulator that is run by hand.
 */
#ifndef VMD_API_NET_VHOSTSOCK_H
#define VMD_API_NET_VHOSTSOCK_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <sys/types.h>

/* Returns the descriptor by which connections come, or a negative code: each is a packet of one byte with the descriptor, one for each byte
 * that is sent there. Where it does not listen, the first is there already. The process ends when that descriptor is closed. `pid` is its
 * number, whose end the caller waits for. Any thread of a process that has no other. */
int vhost_sock_start(const char *path, bool listens, pid_t *pid, struct err *e);

#endif
