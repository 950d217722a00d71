/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A JSON-RPC 2.0 server: listeners, clients, batches, dispatch to generated handlers.
 *
 * The daemon serves `api_handlers_vmd`, the emulator's control socket `api_handlers_emu` (both
 * generated; linking one demands every api_handle_*() of it). Each accepted client is sent the greeting
 * {"jsonrpc":"2.0","method":"hello","params":{program, version, schema}} first.
 *
 * A request is checked (JSON-RPC form, method, role, parameters) before its handler runs; the
 * handler gets a struct api_call (call.h) and answers then or later. Requests of one client begin in
 * the order they came and may end in any. A client with more than 256 unanswered calls is not read
 * until some are answered. At the cap of clients a new one is told `overload` and closed.
 *
 * Belongs to one loop, used on its thread only.
 */
#ifndef VMD_RPC_SERVER_H
#define VMD_RPC_SERVER_H

#include "api-schema/gen/methods.h"
#include "api-schema/rpc/conn.h"

#include <stdbool.h>

struct api_call;
struct api_error;
struct json_object;
struct rpc_client_slot;
struct rpc_listener;
struct rpc_server;

/* One connected client, as the application sees it. */
struct rpc_session {
    struct rpc_conn *conn;
    struct rpc_peer peer;
    enum api_role role;
    enum api_role most; /* the role never rises above it: the listener's, or what the client wished */
    void *data; /* the application's, e.g. its subscriptions; freed by ops->closed */
};

struct rpc_server_ops {
    /* Role of a new client; may lower or refuse (API_ROLE_NONE: told `denied`, closed).
     * NULL: the listener's role. `max` is what the listener grants at most. */
    enum api_role (*authorize)(void *arg, const struct rpc_peer *peer, enum api_role max);
    void (*opened)(void *arg, struct rpc_session *s); /* may be NULL */
    /* The session is gone after this returns; calls still open live on and their replies are
     * dropped. May be NULL. */
    void (*closed)(void *arg, struct rpc_session *s);
    /* Before a handler runs, parameters decoded: true when it answered (or will answer) the call
     * itself, e.g. the remembered reply to an idempotency key. May be NULL. */
    bool (*before)(void *arg, struct api_call *call);
    /* When a call was answered, before the reply is sent: `result` (borrowed) or `error`. For
     * the audit and the memory of idempotency keys. May be NULL. */
    void (*after)(void *arg, struct api_call *call, struct json_object *result,
                  const struct api_error *error);
    /* A request of a session whose role does not suffice was refused. May be NULL. */
    void (*denied)(void *arg, struct rpc_session *s, const struct api_method *method);
};

/* Another language on the same sockets, with sessions, roles and bounds as they are: its messages are JSON values
 * that follow one another without framing, or frames of its own. */
struct rpc_dialect {
    const struct rpc_framing *framing;                               /* NULL: JSON */
    void (*frame)(void *state, const unsigned char *data, size_t n); /* then; borrowed */
    /* Does the first message of a client (of a listener without a dialect) begin it? */
    bool (*claims)(struct json_object *first);
    /* The client speaks it from now on; returns its state. */
    void *(*begin)(void *arg, struct rpc_session *s);
    void (*message)(void *state, struct json_object *msg); /* borrowed */
    void (*garbage)(void *state, const struct err *why);   /* as in conn.h */
    /* Owes the client nothing. When that becomes true later, call rpc_session_idle(). */
    bool (*idle)(void *state);
    void (*end)(void *state); /* the session ends */
};

struct rpc_server_config {
    const char *program;               /* "vmd" */
    const char *qmp;                   /* JSON of the greeting's member QMP; NULL: none */
    const struct rpc_dialect *dialect; /* what clients may go over to; NULL: none */
    void *dialect_arg;
    const struct api_handler_table *handlers;
    unsigned max_clients;            /* 0: 512 */
    const struct rpc_limits *limits; /* NULL: default */
    int send_buffer; /* bytes that the kernel keeps for a client (SO_SNDBUF), so that a long list goes in one piece; 0: its default */
};

/* `ops` may be NULL; `config` is copied (its pointers borrowed for the server's life). */
struct rpc_server *rpc_server_new(struct loop *l, const struct rpc_server_config *config,
                                  const struct rpc_server_ops *ops, void *arg);
/* Closes listeners and clients (ops->closed is called for each); NULL is fine. Open calls live on
 * until answered. */
void rpc_server_free(struct rpc_server *s);

/* Accepts from a unix socket that already listens (taken, closed by the server). Clients from it
 * have at most role `max`. */
int rpc_server_listen(struct rpc_server *s, int owned_fd, enum api_role max, struct err *e);
/* The same for a dialect; its clients are bounded on their own (max_clients 0: with the others). */
struct rpc_listener *rpc_server_listen_as(struct rpc_server *s, int owned_fd, enum api_role max,
                                          const struct rpc_dialect *dialect, void *arg,
                                          unsigned max_clients, struct err *e);
/* Before rpc_server_free() and rpc_server_drain(), which free all. Clients stay. NULL is fine. */
void rpc_listener_free(struct rpc_listener *l);
/* Adds an already connected client (tests, socket pairs). */
int rpc_server_add(struct rpc_server *s, int owned_fd, enum api_role max, struct err *e);
/* The same for a client that a transport has authenticated: `peer` (copied) is who it is, whatever
 * the credentials of the descriptor say. */
int rpc_server_add_peer(struct rpc_server *s, int owned_fd, const struct rpc_peer *peer,
                        enum api_role max, struct err *e);
/* And who speaks the dialect from the start. */
int rpc_server_add_peer_as(struct rpc_server *s, int owned_fd, const struct rpc_peer *peer,
                           enum api_role max, const struct rpc_dialect *dialect, void *arg,
                           struct err *e);
/* Calls fn for each session; it may change the role. */
void rpc_server_each(struct rpc_server *s, void (*fn)(void *arg, struct rpc_session *s),
                     void *arg);
/* No new clients and no new requests from now on; what is open is still answered. */
void rpc_server_drain(struct rpc_server *s);

unsigned rpc_server_clients(const struct rpc_server *s);
void *rpc_server_arg(const struct rpc_server *s);
/* Sends a notification to one client or to all; params stays the caller's. */
int rpc_session_notify(struct rpc_session *s, const char *method, struct json_object *params);
void rpc_server_notify_all(struct rpc_server *s, const char *method,
                           struct json_object *params);

/* Calls a method as this session, with its role and everything that a call of its own would pass through.
 * fn(arg, result, error) once, perhaps before this returns; exactly one of the two is not NULL (borrowed). The
 * session may be gone by then. Parameters are taken; NULL: none. */
typedef void rpc_local_fn(void *arg, struct json_object *result, const struct api_error *error);
void rpc_session_call(struct rpc_session *s, const char *method,
                      struct json_object *take_params, rpc_local_fn *fn, void *arg);
/* A dialect owes the client nothing any more. */
void rpc_session_idle(struct rpc_session *s);

#endif
