/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The calling side of JSON-RPC: asynchronous on a loop (daemon to emulator), and blocking (vmctl).
 */
#ifndef VMD_RPC_CLIENT_H
#define VMD_RPC_CLIENT_H

#include "api-schema/json/error.h"
#include "api-schema/rpc/conn.h"

#include <signal.h>
#include <stdint.h>

struct json_object;

/*
 * Asynchronous. Belongs to one loop, used on its thread only; callbacks run on it, never from
 * within rpc_client_call().
 */
struct rpc_client;

struct rpc_client_ops {
    /* A notification of the server ("hello" is the first); params borrowed, NULL when absent. */
    void (*notify)(void *arg, const char *method, struct json_object *params);
    /* The connection ended. All open calls were failed before with API_E_INTERNAL_ERROR. Called once;
     * the client must still be freed, and may be from here. */
    void (*closed)(void *arg, const struct err *why);
};

/* Takes the connected descriptor (closed also on failure). `name` for messages ("emulator of VM
 * 'db1'"), copied. */
struct rpc_client *rpc_client_new(struct loop *l, int owned_fd, const char *name,
                                  const struct rpc_client_ops *ops, void *arg, struct err *e);
/* Connects without blocking. A unix socket whose queue is full is -EAGAIN. */
struct rpc_client *rpc_client_connect(struct loop *l, const char *path, const char *name,
                                      const struct rpc_client_ops *ops, void *arg,
                                      struct err *e);
/* No callback follows, open calls are forgotten; NULL is fine; safe from within a callback. */
void rpc_client_free(struct rpc_client *c);

/* `result` (borrowed) on success with `x` NULL; or NULL result with the error. */
typedef void rpc_done_fn(void *arg, struct json_object *result, const struct api_error *x);

/* Sends a request; params (may be NULL) are taken. fn is called exactly once unless the call
 * is cancelled or the client freed: with the reply, API_E_TIMEOUT after deadline_ns (0: none)
 * from now, or an error when the connection ended. Returns the number of the call, never 0. */
uint64_t rpc_client_call(struct rpc_client *c, const char *method,
                         struct json_object *take_params, int64_t deadline_ns, rpc_done_fn *fn,
                         void *arg);
/* The same with a descriptor (taken) that the server's handler gets by rpc_conn_passed_fd(). Only on a plain unix socket. */
uint64_t rpc_client_call_fd(struct rpc_client *c, const char *method,
                            struct json_object *take_params, int owned_fd, int64_t deadline_ns,
                            rpc_done_fn *fn, void *arg);
/* Forgets a call: fn will not be called; a late reply is dropped. */
void rpc_client_cancel(struct rpc_client *c, uint64_t call);
const struct rpc_peer *rpc_client_peer(const struct rpc_client *c);
bool rpc_client_is_open(const struct rpc_client *c);

/*
 * Blocking, for a program that does one thing at a time. One thread.
 */
struct rpc_dial;

/* Connects to unix socket `path`, waits for the greeting. timeout_ms < 0: for ever. NULL on failure:
 * e->code is -ENOENT or -ECONNREFUSED when nobody listens there. */
struct rpc_dial *rpc_dial_open(const char *path, int timeout_ms, struct err *e);
/* The same over a connected descriptor (taken). `where` names the server in errors. */
struct rpc_dial *rpc_dial_open_fd(int owned_fd, const char *where, int timeout_ms,
                                  struct err *e);
void rpc_dial_close(struct rpc_dial *d); /* NULL is fine */
/* Parameters of the greeting, borrowed. */
struct json_object *rpc_dial_hello(const struct rpc_dial *d);
/* Calls and waits. params (may be NULL) are taken. 0 and *result (the caller's), or -1 and *x.
 * Notifications that arrive meanwhile are kept (1,024 at most) for rpc_dial_next(). */
int rpc_dial_call(struct rpc_dial *d, const char *method, struct json_object *take_params,
                  int timeout_ms, struct json_object **result, struct api_error *x);
/* While *flag (a signal handler sets it) is not 0, waiting calls return API_E_CANCELLED. NULL: no
 * flag. Borrowed. */
void rpc_dial_watch(struct rpc_dial *d, const volatile sig_atomic_t *flag);
/* Next notification; 1 with *method and *params (the caller's: free(), json_object_put()), 0 when
 * the time passed, -1 when the connection ended. */
int rpc_dial_next(struct rpc_dial *d, int timeout_ms, char **method,
                  struct json_object **params, struct api_error *x);
/* For waiting on the dial together with other descriptors: the loop that drives it, and the
 * asynchronous client to call with. Notifications still go to rpc_dial_next(). */
struct loop *rpc_dial_loop(struct rpc_dial *d);
struct rpc_client *rpc_dial_client(struct rpc_dial *d);

#endif
