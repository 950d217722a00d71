/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The door for TLS: listeners, handshakes, caps, and who is inside. Nothing listens unless a
 * listener was configured and there are certificates.
 *
 * Bounds: connections in all, for each address, and handshakes under way, each with a deadline; at
 * the cap of handshakes the oldest gives way, so that one who only connects cannot shut the door for
 * others. A connection lives no longer than its certificate, and no longer than its user.
 *
 * What is spoken inside a connection is told by ALPN and belongs to others: the RPC server,
 * streams that a ticket opens (stream.h), joining (join.c).
 * Loop thread.
 */
#ifndef VMD_DAEMON_AUTH_LISTEN_H
#define VMD_DAEMON_AUTH_LISTEN_H

#include "api-schema/rpc/conn.h"
#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct doors;
struct ssl_st;
struct tunnel;
struct vmd;

#define DOORS_LISTEN_MAX 8

struct doors *doors_new(struct vmd *d);
void doors_free(struct doors *o);
/* Reads the certificates and begins to listen, or goes on with new ones; 0 too when nothing is
 * configured. On failure what was before stays. *dropped (may be NULL) counts connections that
 * were ended because their certificate is no longer good. */
int doors_load(struct doors *o, unsigned *dropped, struct err *e);
void doors_drain(struct doors *o); /* no new ones */

/* Ends connections of users and certificates that are no longer good; corrects roles. */
unsigned doors_recheck(struct doors *o);
unsigned doors_count(const struct doors *o, const char *user, const char *cert); /* NULL: any */
int64_t doors_refused(const struct doors *o);
/* "0.0.0.0:16515"; the caller frees. NULL beyond the last. */
char *doors_address(const struct doors *o, unsigned i);
/* The file that is in use: of the options or of the built-in authority; the caller's. */
char *doors_file(const struct vmd *d, const char *name);

/* What serves a connection once its first line is there; they tunnel_say() and attach or finish. */
void doors_join(struct vmd *d, struct tunnel *t, const char *address, const char *line,
                size_t n);
/* The tunnel of the client at this address that still waits for its certificate; NULL: it has gone. */
struct tunnel *doors_joining(const struct doors *o, const char *address);
/* Tells the client of a line protocol that it is refused, and ends. */
void doors_say_error(struct tunnel *t, int code, const char *text);
/* TLS for one who shows no certificate, with the daemon's own; the descriptor stays the caller's. NULL: there is none. */
struct ssl_st *doors_accept_viewer(struct doors *o, int fd, struct err *e);
/* Audits a refused connection; bounded in rate. */
void doors_refuse(struct doors *o, const char *who, const char *method, const char *why);

#endif
