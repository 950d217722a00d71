/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Raw byte streams for clients that cannot open the daemon's unix sockets: a call answers with a
 * ticket, and a second TLS connection of the same user (ALPN vmd-stream/1) presents it within half a
 * minute, once, as its first line {"ticket": "..."}; the answer is {"ok": true} and from then on the
 * bytes of the stream.
 * Loop thread.
 */
#ifndef VMD_DAEMON_AUTH_STREAM_H
#define VMD_DAEMON_AUTH_STREAM_H

#include "api-schema/rpc/conn.h"

#include <stdbool.h>
#include <stddef.h>

struct stream_ticket;
struct tunnel;
struct vmd;

/* A ticket to the unix socket at `path`, for this caller; the caller's. NULL on the unix socket (where
 * `path` can be opened) and when there are too many. */
char *stream_ticket(struct vmd *d, const struct rpc_peer *p, const char *path,
                    const char *what);
/* Uses up a ticket; false when it is not one of this user's for this socket. */
bool stream_spend(struct vmd *d, const char *secret, const char *user, const char *path);
/* Uses up the ticket; false when it is not one of this user's. */
bool stream_take(struct vmd *d, const char *secret, const char *user,
                 struct stream_ticket *out);
void stream_begin(struct vmd *d, struct tunnel *t, const struct rpc_peer *p, const char *line,
                  size_t n);

#endif
