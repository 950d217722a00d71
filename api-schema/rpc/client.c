/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The asynchronous caller. Owns its connection and the table of open calls, each with its own
 * deadline. One thread: that of the loop.
 */
#include "api-schema/rpc/client.h"

#include "api-schema/json/json.h"
#include "engine/base/fd.h"
#include "engine/base/list.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct call {
    struct list node; /* rpc_client.calls, oldest first */
    struct rpc_client *client;
    uint64_t id;
    char *method;
    rpc_done_fn *fn;
    void *arg;
    struct loop_timer *deadline; /* NULL: none */
    int64_t after_ns;
    bool unsent; /* fails by itself: on_fail() */
};

struct rpc_client {
    struct loop *loop;
    struct rpc_conn *conn; /* NULL once ended */
    const struct rpc_client_ops *ops;
    void *arg;
    char *name;
    struct list calls;
    uint64_t last_id;
    struct rpc_peer peer;
    struct loop_timer *fail; /* fails calls made after the end */
    unsigned busy;
    bool freed;
};

static void leave(struct rpc_client *c)
{
    if (--c->busy == 0 && c->freed) {
        free(c);
    }
}

static void call_free(struct call *k)
{
    list_remove(&k->node);
    loop_timer_free(k->deadline);
    free(k->method);
    free(k);
}

/* Answers a call; the callback may free the client. */
static void finish(struct call *k, struct json_object *result, const struct api_error *x)
{
    rpc_done_fn *fn = k->fn;
    void *arg = k->arg;

    call_free(k);
    fn(arg, result, x);
}

static void on_deadline(void *arg)
{
    struct call *k = arg;
    struct rpc_client *c = k->client;
    struct api_error x = API_ERROR_INIT;

    api_error_set(&x, API_E_TIMEOUT, c->name, NULL,
                  "%s did not answer %s within %" PRId64 " ms", c->name, k->method,
                  k->after_ns / 1000000);
    c->busy++;
    finish(k, NULL, &x);
    leave(c);
}

/* Fails every open call. Stops when the client was freed meanwhile. */
static void fail_all(struct rpc_client *c, const char *why)
{
    while (!c->freed && !list_empty(&c->calls)) {
        struct call *k = list_entry(c->calls.next, struct call, node);
        struct api_error x = API_ERROR_INIT;

        api_error_set(&x, API_E_INTERNAL_ERROR, c->name, NULL,
                      "no answer to %s: the connection to %s ended%s%s", k->method, c->name,
                      why[0] ? ": " : "", why);
        finish(k, NULL, &x);
    }
}

/* The first call that could not be sent; NULL: none (any more). */
static struct call *find_unsent(struct rpc_client *c)
{
    list_for_each (it, &c->calls) {
        struct call *k = list_entry(it, struct call, node);
        if (k->unsent) {
            return k;
        }
    }
    return NULL;
}

static void on_fail(void *arg)
{
    struct rpc_client *c = arg;

    struct call *k;

    c->busy++;
    if (!c->conn) {
        fail_all(c, "");
    }
    while (!c->freed && (k = find_unsent(c))) {
        struct api_error x = API_ERROR_INIT;
        api_error_set(&x, API_E_BUSY, c->name, "call again",
                      "%s: %s has not taken another descriptor yet", k->method, c->name);
        finish(k, NULL, &x);
    }
    leave(c);
}

static struct call *find_call(struct rpc_client *c, uint64_t id)
{
    list_for_each (it, &c->calls) {
        struct call *k = list_entry(it, struct call, node);
        if (k->id == id) {
            return k;
        }
    }
    return NULL;
}

static void on_reply(struct rpc_client *c, struct json_object *msg)
{
    int64_t id = api_json_get_int(msg, "id", 0);
    struct call *k = id > 0 ? find_call(c, (uint64_t)id) : NULL;
    struct json_object *error = api_json_get(msg, "error");
    struct api_error x = API_ERROR_INIT;

    if (!k) {
        return; /* late, cancelled, or nobody's */
    }
    if (error) {
        api_error_decode(&x, error);
        finish(k, NULL, &x);
    } else {
        finish(k, api_json_get(msg, "result"), NULL);
    }
}

static void on_end(struct rpc_client *c, const struct err *why)
{
    struct rpc_conn *conn = c->conn;

    c->conn = NULL;
    rpc_conn_free(conn);
    c->busy++;
    fail_all(c, why->msg);
    if (!c->freed && c->ops && c->ops->closed) {
        c->ops->closed(c->arg, why);
    }
    leave(c);
}

static void on_message(void *arg, struct rpc_conn *conn, struct json_object *msg)
{
    struct rpc_client *c = arg;
    const char *method = api_json_get_str(msg, "method");
    struct json_object *error = api_json_get(msg, "error");

    (void)conn;
    c->busy++;
    if (method) {
        if (c->ops && c->ops->notify) {
            c->ops->notify(c->arg, method, api_json_get(msg, "params"));
        }
    } else if (error && !api_json_get(msg, "id")) {
        /* The server turns us away, or could not read a request: nothing more will come of it. */
        struct err e = ERR_INIT;
        err_set(&e, -ECONNREFUSED, "%s", api_json_get_str(error, "message") ?: "refused");
        on_end(c, &e);
    } else {
        on_reply(c, msg);
    }
    leave(c);
}

static void on_garbage(void *arg, struct rpc_conn *conn, const struct err *why)
{
    struct err e = ERR_INIT;

    (void)conn;
    err_set(&e, -EPROTO, "it sent what is no reply: %s", why->msg);
    on_end(arg, &e);
}

static void on_closed(void *arg, struct rpc_conn *conn, const struct err *why)
{
    (void)conn;
    on_end(arg, why);
}

static const struct rpc_conn_ops conn_ops = {
    .message = on_message,
    .garbage = on_garbage,
    .closed = on_closed,
};

struct rpc_client *rpc_client_new(struct loop *l, int owned_fd, const char *name,
                                  const struct rpc_client_ops *ops, void *arg, struct err *e)
{
    struct rpc_client *c = xnew(struct rpc_client);

    rpc_ignore_sigpipe();
    c->conn = rpc_conn_new(l, owned_fd, &rpc_limits_client, &conn_ops, c, e);
    if (!c->conn) {
        free(c);
        return NULL;
    }
    c->loop = l;
    c->ops = ops;
    c->arg = arg;
    c->name = xstrdup(name);
    c->peer = *rpc_conn_peer(c->conn);
    c->fail = loop_timer_new(l, on_fail, c);
    list_init(&c->calls);
    return c;
}

struct rpc_client *rpc_client_connect(struct loop *l, const char *path, const char *name,
                                      const struct rpc_client_ops *ops, void *arg,
                                      struct err *e)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    AUTO_FD fd = -1;

    if (strlen(path) >= sizeof(a.sun_path)) {
        err_set(e, -ENAMETOOLONG, "socket path '%s' is longer than %zu bytes", path,
                sizeof(a.sun_path) - 1);
        return NULL;
    }
    memcpy(a.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        err_errno(e, errno, "cannot make a socket");
        return NULL;
    }
    if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        err_errno(e, errno, "cannot connect to %s at %s", name, path);
        return NULL;
    }
    return rpc_client_new(l, take_fd(&fd), name, ops, arg, e);
}

void rpc_client_free(struct rpc_client *c)
{
    if (!c) {
        return;
    }
    list_for_each_safe (it, &c->calls) {
        call_free(list_entry(it, struct call, node));
    }
    rpc_conn_free(c->conn);
    c->conn = NULL;
    loop_timer_free(c->fail);
    c->fail = NULL;
    free(c->name);
    c->name = NULL;
    c->ops = NULL;
    c->freed = true;
    if (c->busy == 0) {
        free(c);
    }
}

uint64_t rpc_client_call_fd(struct rpc_client *c, const char *method,
                            struct json_object *take_params, int owned_fd, int64_t deadline_ns,
                            rpc_done_fn *fn, void *arg)
{
    AUTO_FD fd = owned_fd;
    AUTO_JSON msg = json_object_new_object();
    struct call *k = xnew(struct call);

    k->client = c;
    k->id = ++c->last_id;
    k->method = xstrdup(method);
    k->fn = fn;
    k->arg = arg;
    k->after_ns = deadline_ns;
    list_append(&c->calls, &k->node);
    api_json_set_str(msg, "jsonrpc", "2.0");
    api_json_set_int(msg, "id", (int64_t)k->id);
    api_json_set_str(msg, "method", method);
    if (take_params) {
        api_json_set(msg, "params", take_params);
    }
    int rc = !c->conn ? -ENOTCONN
             : fd < 0 ? rpc_conn_send(c->conn, msg)
                      : rpc_conn_send_fd(c->conn, msg, take_fd(&fd));
    if (rc < 0) {
        k->unsent = rc == -ENOTCONN ||
                    rc == -EBUSY; /* else the connection tells of its end itself */
        if (k->unsent) {
            loop_timer_arm(c->fail, 0);
        }
        return k->id;
    }
    if (deadline_ns > 0) {
        k->deadline = loop_timer_new(c->loop, on_deadline, k);
        loop_timer_arm(k->deadline, deadline_ns);
    }
    return k->id;
}

uint64_t rpc_client_call(struct rpc_client *c, const char *method,
                         struct json_object *take_params, int64_t deadline_ns, rpc_done_fn *fn,
                         void *arg)
{
    return rpc_client_call_fd(c, method, take_params, -1, deadline_ns, fn, arg);
}

void rpc_client_cancel(struct rpc_client *c, uint64_t call)
{
    struct call *k = find_call(c, call);

    if (k) {
        call_free(k);
    }
}

const struct rpc_peer *rpc_client_peer(const struct rpc_client *c)
{
    return &c->peer;
}

bool rpc_client_is_open(const struct rpc_client *c)
{
    return c->conn != NULL;
}
