/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Confinement of vmd-net from within; the jail around it is the spawner's.
 */
#ifndef VMD_NETWORK_SERVER_CONFINE_H
#define VMD_NETWORK_SERVER_CONFINE_H

#include "engine/base/err.h"

/* No new privileges, no dumps, and a list of system calls: sockets of the Internet and reading of files, nothing else. */
int confine_net(struct err *e);

#endif
