/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One TLS connection on a loop: the handshake, then perhaps one line each way, then bytes copied
 * between TLS and a plain stream descriptor until both have ended. What is spoken inside, the
 * tunnel does not know: an RPC server or a console has the other end of the plain descriptor.
 *
 * Bounds: 16 KiB buffered each way, and nothing is read that cannot be passed on, so a slow side
 * slows the other; the handshake, the line and the farewell have deadlines. A side that ends only
 * its sending is half closed: the other way goes on.
 *
 * Belongs to one loop, used on its thread only. Callbacks run on it; `closed` never from within a
 * call of the owner.
 */
#ifndef VMD_API_TUNNEL_H
#define VMD_API_TUNNEL_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop;
struct ssl_st;
struct tunnel;

#define TUNNEL_LINE_MAX 16383

struct tunnel_ops {
    /* The handshake is done. Now tunnel_attach(), tunnel_read_line(), or tunnel_free(). */
    void (*ready)(void *arg, struct tunnel *t);
    /* The line asked for: without its newline, 0 behind it. */
    void (*line)(void *arg, struct tunnel *t, char *text, size_t n);
    /* Over: `why->code` is 0 when it ended orderly. Called once, last; free it there or later. Not
     * called by tunnel_free(). */
    void (*closed)(void *arg, struct tunnel *t, const struct err *why);
};

/* Takes the connected, non-blocking descriptor and the connection made for it (tls.h). `deadline_ns` is
 * for the handshake, and again for the line. `linger`: the farewell waits a while for the other side to
 * have read everything. */
struct tunnel *tunnel_new(struct loop *l, int owned_fd, struct ssl_st *take_ssl,
                          int64_t deadline_ns, bool linger, const struct tunnel_ops *ops,
                          void *arg);
/* Closes at once; no callback follows. NULL is fine; safe from within a callback. */
void tunnel_free(struct tunnel *t);

/* Waits for one line of at most TUNNEL_LINE_MAX bytes. */
void tunnel_read_line(struct tunnel *t);
/* Sends a text of at most 16 KiB before all else; once, before tunnel_attach() or _finish(). */
void tunnel_say(struct tunnel *t, const char *text, size_t n);
/* Copies from now on. Takes the descriptor (a stream socket), makes it non-blocking. */
void tunnel_attach(struct tunnel *t, int owned_fd);
/* Ends once what was said is sent. */
void tunnel_finish(struct tunnel *t);
/* Ends with a reason, as if the connection had failed with it. */
void tunnel_break(struct tunnel *t, const struct err *why);

struct ssl_st *tunnel_ssl(const struct tunnel *t);
uint64_t tunnel_bytes(const struct tunnel *t); /* passed, both ways */

#endif
