/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of the server, shared by server.c (listeners, sessions, requests) and call.c (calls and their
 * answers). One thread: the loop's.
 */
#ifndef VMD_RPC_SERVER_INT_H
#define VMD_RPC_SERVER_INT_H

#include "api-schema/json/json.h"
#include "api-schema/rpc/call.h"
#include "api-schema/rpc/server.h"
#include "engine/base/list.h"

#include <stddef.h>

enum {
    MAX_CLIENTS = 512,
    OPEN_CALLS = 256,      /* unanswered calls of one client above which it is not read */
    BATCH_MAX = 256,       /* requests in a batch */
    BATCH_BYTES = 8 << 20, /* of its replies */
    POOL_BYTES = 32 << 20, /* that wait at all clients together */
    ID_MAX = 128,          /* bytes of a string id */
    KEY_MAX = 128,         /* bytes of an idempotency key */
    DEADLINE_MAX_MS = 86400000,
    ACCEPTS_A_TURN = 64,
};

struct api_handler;
struct slot;

struct rpc_listener {
    struct list node; /* rpc_server.listeners */
    struct rpc_server *server;
    struct loop_fd *watch;
    struct loop_timer *again; /* after descriptors ran out */
    int fd;
    enum api_role max;
    const struct rpc_dialect *dialect; /* its clients speak this; NULL: JSON-RPC */
    void *dialect_arg;
    unsigned n_clients, max_clients; /* 0: the server's bound */
};

struct rpc_server {
    struct loop *loop;
    struct rpc_server_config config;
    const struct rpc_server_ops *ops;
    void *arg;
    struct list listeners, slots;
    unsigned n_slots;
    char *hello;
    bool draining;
    int64_t warned_ns;   /* when the last complaint about a client was logged */
    unsigned suppressed; /* complaints since */
    struct rpc_pool pool;
};

/* A session and what the server keeps about it. */
struct slot {
    struct rpc_session session;
    struct list node; /* rpc_server.slots */
    struct rpc_server *server;
    struct list calls; /* unanswered */
    struct batch *batch; /* that has not begun all of its requests */
    unsigned n_calls;
    bool held;                         /* too many calls: not read */
    bool spoken;                       /* the first message came: the language is settled */
    struct rpc_listener *listener;     /* that has a bound of its own; NULL: none, or gone */
    const struct rpc_dialect *dialect; /* NULL: JSON-RPC */
    void *other;                       /* the dialect's state */
};

/* Replies of a batch are sent together, in the order of the requests, when the last is there. */
struct batch {
    struct slot *slot;          /* NULL: the client has gone */
    struct json_object **reply; /* n, NULL: none (yet) */
    size_t n, now;              /* `now`: the request being looked at */
    unsigned open;
    size_t bytes;             /* of the replies */
    struct json_object *msg;  /* the requests */
    struct loop_timer *again; /* the rest of them, when others had their turn */
};

struct api_call {
    struct list node; /* slot.calls; alone once the client has gone */
    struct slot *slot;
    struct batch *batch;
    size_t at; /* place in the batch */
    struct rpc_server *server;
    const struct rpc_server_ops *ops;
    void *app;
    const struct api_method *method;
    void *in;
    struct json_object *id, *params; /* id NULL: a notification */
    const char *key;                 /* within key_holder */
    struct json_object *key_holder;
    struct rpc_peer peer;
    enum api_role role;
    void *data;
    void (*gone)(void *arg, struct api_call *c);
    void *gone_arg;
    struct loop_timer *deadline;
    bool running, over; /* its handler has not returned; it was answered meanwhile */
    rpc_local_fn *local; /* a call from within the process: gets the answer */
    void *local_arg;
};

struct json_object *rpc_new_message(void);
struct json_object *rpc_new_error(struct json_object *id, const struct api_error *x);
/* Takes the reply: to its place in the batch, or to the client. */
void rpc_deliver(struct slot *s, struct batch *b, size_t at, struct json_object *reply);
/* One part of the batch is done; sends it after the last. */
void rpc_batch_done(struct batch *b);
/* The client shut down its sending side: closes when all is answered. */
void rpc_maybe_finish(struct slot *s);

/* A call of the session's; `id` NULL: nobody waits for an answer. */
struct api_call *rpc_call_new(struct slot *s, struct batch *b, const struct api_method *m,
                              struct json_object *id, struct json_object *params);
/* Parameters are checked, then the handler runs. */
void rpc_call_run(struct api_call *c, const struct api_handler *h);
/* The handler of a method for this session; NULL after *x was set: no such method, role too low, ending. */
const struct api_handler *rpc_handler_for(struct slot *s, const char *method,
                                          struct api_error *x);

#endif
