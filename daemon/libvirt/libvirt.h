/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The libvirt dialect of the daemon: unmodified virsh, virt-manager, Nova and what else speaks libvirt's remote
 * protocol drive vmd by it. A procedure is answered by calls of the JSON-RPC methods on behalf of its session, so that roles,
 * audit, events and their order are one; events come from the journal as it is published.
 *
 * A new procedure is a line in procedures.h and its function in the file of its kind (domain.c, network.c, ...).
 * Loop thread.
 */
#ifndef VMD_DAEMON_LIBVIRT_LIBVIRT_H
#define VMD_DAEMON_LIBVIRT_LIBVIRT_H

#include "api-schema/rpc/server.h"

enum { LIBVIRT_CLIENTS = 512, LIBVIRT_TLS_PORT = 16514 };

struct libvirt;
struct vmd;

/* After the journal exists. */
struct libvirt *libvirt_new(struct vmd *d);
/* After the server. NULL is fine. */
void libvirt_free(struct libvirt *l);
/* For listeners; its argument is struct libvirt. */
extern const struct rpc_dialect libvirt_dialect;

#endif
