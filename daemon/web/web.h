/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The web console: an HTTP server over TLS for browsers, off unless configured. A join token is exchanged for a session, kept
 * by the browser as a cookie; with it come the static files of noVNC and xterm.js, where the host has them, and two websockets:
 *
 *   GET /rpc               JSON-RPC, as on the unix socket, with the roles of the session's user
 *   GET /stream?ticket=T   the bytes of a console or screen that a call of the same user answered with a ticket for
 *
 * Whoever has no session gets the page to log in and nothing else. Bounds: connections in all (the oldest without a session gives
 * way), for each session, bytes and seconds of a request, bytes buffered each way; files of at most 2 MiB. Sessions end
 * after eight hours, with their user, and with the daemon.
 * Loop thread.
 */
#ifndef VMD_DAEMON_WEB_WEB_H
#define VMD_DAEMON_WEB_WEB_H

#include "engine/base/buf.h"
#include "engine/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct vmd;
struct web;

struct web *web_new(struct vmd *d);
void web_free(struct web *w); /* NULL is fine, of all of these */
/* Reads the daemon's certificate and begins to listen, or goes on with a new one. No certificate yet: a warning, and 0. */
int web_load(struct web *w, struct err *e);
void web_drain(struct web *w); /* no new connections */
/* Ends sessions whose user has gone. How many. */
unsigned web_recheck(struct web *w);

#endif
