/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions of browsers: who logged in by a token, until when. Loop thread. */
#ifndef VMD_DAEMON_WEB_SESSION_H
#define VMD_DAEMON_WEB_SESSION_H

#include "daemon/run/proc.h"
#include "engine/base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define WEB_SESSIONS 64
#define WEB_SESSION_NS (8 * INT64_C(3600000000000))

struct vmd;

struct web_session {
    char secret[COOKIE_LEN + 1]; /* "": free */
    char user[64];
    int64_t user_id;  /* a user of the same name made later is another */
    int64_t until_ns; /* CLOCK_MONOTONIC */
    uint64_t number;  /* of all that ever were; tells one from the next in its place */
};
struct web_sessions {
    struct vmd *d;
    struct web_session all[WEB_SESSIONS];
    uint64_t next;
};

/* The session with this secret that is good now; NULL: none. */
struct web_session *web_session_find(struct web_sessions *s, const char *secret);
struct web_session *web_session_of(struct web_sessions *s,
                                   uint64_t number); /* NULL: it ended */
bool web_session_good(struct web_sessions *s, const struct web_session *k);
/* Exchanges a token for a session, once that is durable. `done` gets it, or why not (also before this returns). */
typedef void web_login_fn(void *arg, uint64_t conn, const struct web_session *k,
                          const char *why);
void web_login(struct web_sessions *s, const char *token, const char *address, uint64_t conn,
               web_login_fn *done, void *arg);

#endif
