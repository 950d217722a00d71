/* SPDX-License-Identifier: Apache-2.0 */
/* A connection of a browser: requests one after the other, then perhaps a websocket. Loop thread. */
#ifndef VMD_DAEMON_WEB_CONN_H
#define VMD_DAEMON_WEB_CONN_H

#include "api-schema/rpc/conn.h"
#include "daemon/web/session.h"
#include "daemon/web/web.h"
#include "daemon/web/websocket.h"
#include "engine/base/list.h"

struct ssl_st;
struct tls_ctx;
struct tunnel;

struct web_door {
    struct web *w;
    int fd;
    struct loop_fd *watch;
};

enum { WEB_DOORS = 8 };

struct web {
    struct vmd *d;
    struct tls_ctx *ctx;
    struct web_door doors[WEB_DOORS];
    unsigned n_doors;
    bool draining;
    struct list conns; /* struct web_conn, oldest first */
    unsigned n_conns;
    uint64_t next;
    struct loop_timer *sweep, *again;
    struct web_sessions sessions;
};

struct web_conn {
    struct list link;
    struct web *w;
    uint64_t id;
    struct tunnel *tunnel;
    struct rpc_peer peer; /* address; the user once a websocket is open */
    int fd;               /* the plain end of the tunnel; -1 until the handshake is done */
    struct loop_fd *watch;
    struct loop_timer *timer; /* of a request, or of its answer */
    struct buf in, out;
    size_t sent;
    bool waiting;     /* for a transaction */
    bool last;        /* ends when `out` is sent */
    uint64_t session; /* number; 0: none */
    int back;         /* the other side of a websocket; -1: none is open */
    struct loop_fd *back_watch;
    struct buf to_back;
    struct ws_in ws;
};

/* Takes both. */
struct web_conn *web_conn_new(struct web *w, int owned_fd, struct ssl_st *take_ssl,
                              const char *address);
void web_conn_free(struct web_conn *c);

#endif
