/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server: listeners, sessions, requests and batches. Owns sessions and, until they are
 * answered, calls; a call outlives its session when the client goes first. One thread: the loop's.
 */
#include "api-schema/rpc/server.h"

#include "api-schema/json/json.h"
#include "api-schema/rpc/call.h"
#include "engine/base/fd.h"
#include "engine/base/list.h"
#include "engine/base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_CLIENTS = 512,
    OPEN_CALLS = 64, /* unanswered calls of one client above which it is not read */
    BATCH_MAX = 256, /* requests in a batch */
    ID_MAX = 128,    /* bytes of a string id */
    KEY_MAX = 128,   /* bytes of an idempotency key */
    ACCEPTS_A_TURN = 64,
};

static const int64_t accept_pause_ns = 100 * INT64_C(1000000);
static const int64_t complain_ns = 1000 * INT64_C(1000000);

struct slot;

struct listener {
    struct list node; /* rpc_server.listeners */
    struct rpc_server *server;
    struct loop_fd *watch;
    struct loop_timer *again; /* after descriptors ran out */
    int fd;
    enum api_role max;
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
};

/* A session and what the server keeps about it. */
struct slot {
    struct rpc_session session;
    struct list node; /* rpc_server.slots */
    struct rpc_server *server;
    struct list calls; /* unanswered */
    unsigned n_calls;
    bool held; /* too many calls: not read */
};

/* Replies of a batch are sent together when the last is there. */
struct batch {
    struct slot *slot; /* NULL: the client has gone */
    struct json_object *replies;
    unsigned open;
};

struct api_call {
    struct list node; /* slot.calls; alone once the client has gone */
    struct slot *slot;
    struct batch *batch;
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
};

/* Logs a complaint about a client, at most one a second: clients must not fill the log. */
static void complain(struct rpc_server *s, const char *what, const char *why)
{
    struct timespec t;
    int64_t now;

    clock_gettime(CLOCK_MONOTONIC, &t);
    now = t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
    if (s->warned_ns && now - s->warned_ns < complain_ns) {
        s->suppressed++;
        return;
    }
    if (s->suppressed) {
        log_warn("rpc", "%s: %s (and %u more such complaints)", what, why, s->suppressed);
    } else {
        log_warn("rpc", "%s: %s", what, why);
    }
    s->warned_ns = now;
    s->suppressed = 0;
}

/* --- sending ------------------------------------------------------------------------------ */

static struct json_object *new_message(void)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "jsonrpc", "2.0");
    return o;
}

static struct json_object *new_error_reply(struct json_object *id, const struct api_error *x)
{
    struct json_object *o = new_message();

    api_json_set(o, "id", json_object_get(id));
    api_json_set(o, "error", api_error_encode(x));
    return o;
}

static void batch_done(struct batch *b)
{
    if (--b->open > 0) {
        return;
    }
    if (b->slot && json_object_array_length(b->replies) > 0) {
        rpc_conn_send(b->slot->session.conn, b->replies);
    }
    json_object_put(b->replies);
    free(b);
}

/* Takes the reply: to the batch, or to the client. */
static void deliver(struct slot *s, struct batch *b, struct json_object *reply)
{
    if (b) {
        json_object_array_add(b->replies, reply);
        return;
    }
    if (s) {
        rpc_conn_send(s->session.conn, reply);
    }
    json_object_put(reply);
}

static void refuse(struct slot *s, struct batch *b, struct json_object *id, int code,
                   const char *object, const char *remedy, const char *fmt, ...)
    __attribute__((format(printf, 7, 8)));

static void refuse(struct slot *s, struct batch *b, struct json_object *id, int code,
                   const char *object, const char *remedy, const char *fmt, ...)
{
    struct api_error x = API_ERROR_INIT;
    va_list ap;

    va_start(ap, fmt);
    api_error_vset(&x, code, object, remedy, fmt, ap);
    va_end(ap);
    deliver(s, b, new_error_reply(id, &x));
}

/* --- calls -------------------------------------------------------------------------------- */

static void maybe_finish(struct slot *s)
{
    if (rpc_conn_half_closed(s->session.conn) && s->n_calls == 0) {
        rpc_conn_close(s->session.conn);
    }
}

static void call_free(struct api_call *c)
{
    api_release(c->method->in, c->in);
    free(c->in);
    json_object_put(c->id);
    json_object_put(c->params);
    json_object_put(c->key_holder);
    free(c);
}

/* The call has its answer: takes `reply` (NULL for a notification). */
static void call_end(struct api_call *c, struct json_object *reply)
{
    struct slot *s = c->slot;
    struct batch *b = c->batch;

    list_remove(&c->node);
    if (s) {
        s->n_calls--;
    }
    if (reply) {
        deliver(s, b, reply);
    }
    if (b) {
        batch_done(b);
    }
    call_free(c);
    if (!s) {
        return;
    }
    if (s->held && s->n_calls <= OPEN_CALLS / 2) {
        s->held = false;
        rpc_conn_release(s->session.conn);
    }
    maybe_finish(s);
}

void api_reply_json(struct api_call *c, struct json_object *take_result)
{
    struct json_object *reply = NULL;

    if (c->ops && c->ops->after) {
        c->ops->after(c->app, c, take_result, NULL);
    }
    if (c->id) {
        reply = new_message();
        api_json_set(reply, "id", json_object_get(c->id));
        api_json_set(reply, "result", json_object_get(take_result));
    }
    json_object_put(take_result);
    call_end(c, reply);
}

void api_reply(struct api_call *c, const void *out)
{
    api_reply_json(c, api_encode(c->method->out, out));
}

void api_reply_error(struct api_call *c, const struct api_error *x)
{
    if (c->ops && c->ops->after) {
        c->ops->after(c->app, c, NULL, x);
    }
    call_end(c, c->id ? new_error_reply(c->id, x) : NULL);
}

void api_fail(struct api_call *c, int code, const char *object, const char *remedy,
              const char *fmt, ...)
{
    struct api_error x = API_ERROR_INIT;
    va_list ap;

    va_start(ap, fmt);
    api_error_vset(&x, code, object, remedy, fmt, ap);
    va_end(ap);
    api_reply_error(c, &x);
}

void api_fail_err(struct api_call *c, int code, const char *object, const char *remedy,
                  const struct err *e)
{
    struct api_error x = API_ERROR_INIT;

    api_error_from(&x, code, object, remedy, e);
    api_reply_error(c, &x);
}

const struct api_method *api_call_method(const struct api_call *c)
{
    return c->method;
}

struct rpc_session *api_call_session(const struct api_call *c)
{
    return c->slot ? &c->slot->session : NULL;
}

const struct rpc_peer *api_call_peer(const struct api_call *c)
{
    return &c->peer;
}

enum api_role api_call_role(const struct api_call *c)
{
    return c->role;
}

void *api_call_app(const struct api_call *c)
{
    return c->app;
}

const char *api_call_key(const struct api_call *c)
{
    return c->key;
}

struct json_object *api_call_params(const struct api_call *c)
{
    return c->params;
}

bool api_call_is_notification(const struct api_call *c)
{
    return !c->id;
}

void api_call_set_data(struct api_call *c, void *data)
{
    c->data = data;
}

void *api_call_data(const struct api_call *c)
{
    return c->data;
}

void api_call_on_gone(struct api_call *c, void (*fn)(void *arg, struct api_call *c), void *arg)
{
    c->gone = fn;
    c->gone_arg = arg;
}

/* --- requests ----------------------------------------------------------------------------- */

static const struct api_handler *find_handler(const struct api_handler_table *t,
                                              const char *name)
{
    size_t low = 0, high = t->n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int way = strcmp(name, t->handlers[mid].method->name);
        if (way == 0) {
            return &t->handlers[mid];
        }
        if (way < 0) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    return NULL;
}

static const char *handler_name(const void *arg, size_t i)
{
    return ((const struct api_handler *)arg)[i].method->name;
}

static bool id_ok(const struct json_object *id)
{
    return json_object_is_type(id, json_type_int) ||
           (json_object_is_type(id, json_type_string) &&
            json_object_get_string_len(id) <= ID_MAX);
}

/* Checks the JSON-RPC form; fills in what it found. Refuses and returns false when it is wrong. */
static bool check_form(struct slot *s, struct batch *b, struct json_object *msg,
                       struct json_object **id, const char **method,
                       struct json_object **params)
{
    const char *version = api_json_get_str(msg, "jsonrpc"), *wrong = NULL;
    struct json_object *v;

    *id = NULL;
    *params = api_json_get(msg, "params");
    *method = api_json_get_str(msg, "method");
    if (json_object_object_get_ex(msg, "id", &v)) {
        if (id_ok(v)) {
            *id = v;
        } else {
            wrong = "'id' must be an integer or a string of at most 128 bytes";
        }
    }
    if (!version || strcmp(version, "2.0") != 0) {
        wrong = "'jsonrpc' must be \"2.0\"";
    } else if (!*method) {
        wrong = "'method' must be a string";
    } else if (json_object_is_type(*params, json_type_array)) {
        wrong = "'params' must be an object: parameters go by name";
    } else if (*params && !json_object_is_type(*params, json_type_object)) {
        wrong = "'params' must be an object";
    }
    json_object_object_foreach(msg, key, value)
    {
        (void)value;
        if (strcmp(key, "jsonrpc") && strcmp(key, "id") && strcmp(key, "method") &&
            strcmp(key, "params")) {
            wrong = "a request has the members jsonrpc, id, method and params only";
        }
    }
    if (wrong) {
        refuse(s, b, *id, API_E_INVALID_REQUEST, *method,
               "send {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"api.ping\",\"params\":{}}",
               "%s", wrong);
    }
    return !wrong;
}

/* Takes idempotency_key out of the parameters. False when it is malformed. */
static bool take_key(struct api_call *c)
{
    struct json_object *v;

    if (!c->method->mutating || !json_object_object_get_ex(c->params, "idempotency_key", &v)) {
        return true;
    }
    if (!json_object_is_type(v, json_type_string) || json_object_get_string_len(v) < 1 ||
        json_object_get_string_len(v) > KEY_MAX) {
        return false;
    }
    c->key_holder = json_object_get(v);
    c->key = json_object_get_string(v);
    json_object_object_del(c->params, "idempotency_key");
    return true;
}

static struct api_call *call_new(struct slot *s, struct batch *b, const struct api_method *m,
                                 struct json_object *id, struct json_object *params)
{
    struct api_call *c = xnew(struct api_call);

    c->slot = s;
    c->batch = b;
    c->ops = s->server->ops;
    c->app = s->server->arg;
    c->method = m;
    c->in = xalloc(m->in->size);
    c->id = json_object_get(id);
    c->params = params ? json_object_get(params) : json_object_new_object();
    c->peer = s->session.peer;
    c->role = s->session.role;
    list_append(&s->calls, &c->node);
    s->n_calls++;
    if (b) {
        b->open++;
    }
    return c;
}

static void run_call(struct api_call *c, const struct api_handler *h)
{
    struct api_error x = API_ERROR_INIT;

    if (!take_key(c)) {
        api_fail(c, API_E_INVALID_PARAMS, "idempotency_key", "make one up for each change",
                 "idempotency_key: expected a string of 1 to 128 bytes");
    } else if (api_decode(c->method->in, c->params, API_STRICT, "", c->in, &x) < 0) {
        api_reply_error(c, &x);
    } else if (!c->ops || !c->ops->before || !c->ops->before(c->app, c)) {
        h->fn(c, c->in);
    }
}

static void refuse_unknown(struct slot *s, struct batch *b, struct json_object *id,
                           const char *method)
{
    const struct api_handler_table *t = s->server->config.handlers;
    const char *near = api_nearest(method, handler_name, t->handlers, t->n);
    char help[128];

    if (near) {
        snprintf(help, sizeof(help), "did you mean '%s'?", near);
    } else {
        snprintf(help, sizeof(help), "api.schema lists all methods");
    }
    if (id) {
        refuse(s, b, id, API_E_METHOD_NOT_FOUND, method, help, "no method '%s'", method);
    }
}

static void handle_request(struct slot *s, struct batch *b, struct json_object *msg)
{
    const struct api_handler *h;
    const struct api_method *m;
    struct json_object *id, *params;
    const char *method;

    if (!json_object_is_type(msg, json_type_object)) {
        refuse(s, b, NULL, API_E_INVALID_REQUEST, NULL, NULL, "a request must be an object");
        return;
    }
    if (!check_form(s, b, msg, &id, &method, &params)) {
        return;
    }
    h = find_handler(s->server->config.handlers, method);
    if (!h) {
        refuse_unknown(s, b, id, method);
        return;
    }
    m = h->method;
    if (s->session.role < m->role) {
        if (id) {
            refuse(s, b, id, API_E_DENIED, method, "ask as a user with that role",
                   "%s needs role %s, this connection has %s", method, api_role_names[m->role],
                   api_role_names[s->session.role]);
        }
        return;
    }
    if (s->server->draining) {
        if (id) {
            refuse(s, b, id, API_E_CANCELLED, method, "try again when it is back",
                   "%s is ending", s->server->config.program);
        }
        return;
    }
    run_call(call_new(s, b, m, id, params), h);
}

static void handle_batch(struct slot *s, struct json_object *msg)
{
    size_t n = json_object_array_length(msg);
    struct batch *b;

    if (n == 0 || n > BATCH_MAX) {
        refuse(s, NULL, NULL, API_E_INVALID_REQUEST, NULL, NULL,
               "a batch has 1 to %d requests, not %zu", BATCH_MAX, n);
        return;
    }
    b = xnew(struct batch);
    b->slot = s;
    b->replies = json_object_new_array();
    b->open = 1; /* until all have begun */
    for (size_t i = 0; i < n; i++) {
        handle_request(s, b, json_object_array_get_idx(msg, i));
    }
    batch_done(b);
}

static void on_message(void *arg, struct rpc_conn *conn, struct json_object *msg)
{
    struct slot *s = arg;

    (void)conn;
    if (json_object_is_type(msg, json_type_array)) {
        handle_batch(s, msg);
    } else {
        handle_request(s, NULL, msg);
    }
    if (!s->held && s->n_calls > OPEN_CALLS) {
        s->held = true;
        rpc_conn_hold(s->session.conn);
    }
}

static void on_garbage(void *arg, struct rpc_conn *conn, const struct err *why)
{
    (void)conn;
    refuse(arg, NULL, NULL, API_E_PARSE_ERROR, NULL, "one JSON value a line, at most 1 MiB",
           "%s", why->msg);
}

/* --- sessions ----------------------------------------------------------------------------- */

static void slot_free(struct slot *s)
{
    struct rpc_server *server = s->server;

    list_for_each_safe (it, &s->calls) {
        struct api_call *c = list_entry(it, struct api_call, node);
        list_remove(&c->node);
        c->slot = NULL;
        if (c->batch) {
            c->batch->slot = NULL;
        }
    }
    rpc_conn_free(s->session.conn);
    list_remove(&s->node);
    server->n_slots--;
    free(s);
}

/* Calls in flight learn that nobody waits any more. They may be answered in there, and each
 * answer changes the list: begin anew after each. */
static void tell_gone(struct slot *s)
{
    bool again = true;

    while (again) {
        again = false;
        list_for_each (it, &s->calls) {
            struct api_call *c = list_entry(it, struct api_call, node);
            void (*gone)(void *, struct api_call *) = c->gone;
            if (gone) {
                c->gone = NULL;
                gone(c->gone_arg, c);
                again = true;
                break;
            }
        }
    }
}

static void slot_end(struct slot *s)
{
    struct rpc_server *server = s->server;

    tell_gone(s);
    if (server->ops && server->ops->closed) {
        server->ops->closed(server->arg, &s->session);
    }
    slot_free(s);
}

static void on_closed(void *arg, struct rpc_conn *conn, const struct err *why)
{
    struct slot *s = arg;

    (void)conn;
    if (why->code && why->code != -EPIPE) {
        char who[64];
        snprintf(who, sizeof(who), "client pid %d uid %u cut off", (int)s->session.peer.pid,
                 (unsigned)s->session.peer.uid);
        complain(s->server, who, why->msg);
    }
    slot_end(s);
}

static void on_half_closed(void *arg, struct rpc_conn *conn)
{
    (void)conn;
    maybe_finish(arg);
}

static const struct rpc_conn_ops conn_ops = {
    .message = on_message,
    .garbage = on_garbage,
    .half_closed = on_half_closed,
    .closed = on_closed,
};

/* One line to a client that is not let in. Its socket is fresh, so the line fits. */
static void turn_away(int fd, int code, const char *remedy, const char *text)
{
    struct api_error x = API_ERROR_INIT;
    AUTO_JSON reply = NULL;
    AUTO_BUF line = BUF_INIT;

    api_error_set(&x, code, NULL, remedy, "%s", text);
    reply = new_error_reply(NULL, &x);
    buf_printf(&line, "%s\n", api_json_text(reply));
    (void)!send(fd, line.data, line.len, MSG_NOSIGNAL | MSG_DONTWAIT);
}

int rpc_server_add(struct rpc_server *s, int owned_fd, enum api_role max, struct err *e)
{
    AUTO_FD fd = owned_fd;
    struct rpc_peer peer = { 0 };
    enum api_role role = max;
    struct slot *slot;
    struct rpc_conn *conn;

    (void)unix_peer(fd, &peer.pid, &peer.uid, &peer.gid, NULL);
    if (s->n_slots >= s->config.max_clients) {
        turn_away(fd, API_E_OVERLOAD, "try again later", "too many clients");
        return err_set(e, -EMFILE, "%u clients are connected, the limit", s->n_slots);
    }
    if (s->ops && s->ops->authorize) {
        role = s->ops->authorize(s->arg, &peer, max);
        role = role > max ? max : role;
    }
    if (role == API_ROLE_NONE) {
        turn_away(fd, API_E_DENIED, "ask the administrator for access",
                  "this user may not connect");
        return err_set(e, -EACCES, "user %u may not connect", (unsigned)peer.uid);
    }
    slot = xnew(struct slot);
    conn = rpc_conn_new(s->loop, take_fd(&fd), s->config.limits, &conn_ops, slot, e);
    if (!conn) {
        free(slot);
        return e && e->code ? e->code : -ENOMEM;
    }
    slot->server = s;
    slot->session = (struct rpc_session){ .conn = conn, .peer = peer, .role = role };
    list_init(&slot->calls);
    list_append(&s->slots, &slot->node);
    s->n_slots++;
    rpc_conn_send_text(conn, s->hello, strlen(s->hello));
    if (s->ops && s->ops->opened) {
        s->ops->opened(s->arg, &slot->session);
    }
    return 0;
}

/* --- listeners ---------------------------------------------------------------------------- */

static void on_again(void *arg)
{
    struct listener *l = arg;

    loop_fd_set(l->watch, LOOP_READ);
}

static void on_acceptable(void *arg, int fd, unsigned events)
{
    struct listener *l = arg;

    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        struct err e = ERR_INIT;
        int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (client >= 0) {
            if (rpc_server_add(l->server, client, l->max, &e) < 0) {
                complain(l->server, "client refused", e.msg);
            }
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            complain(l->server, "cannot accept a client", strerror(errno));
            loop_fd_set(l->watch, 0);
            loop_timer_arm(l->again, accept_pause_ns);
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return;
        }
    }
}

static void listener_free(struct listener *l)
{
    list_remove(&l->node);
    loop_fd_free(l->watch);
    loop_timer_free(l->again);
    close(l->fd);
    free(l);
}

int rpc_server_listen(struct rpc_server *s, int owned_fd, enum api_role max, struct err *e)
{
    AUTO_FD fd = owned_fd;
    struct listener *l;

    if (fd_set_nonblock(fd, true, e) < 0) {
        return e && e->code ? e->code : -EBADF;
    }
    l = xnew(struct listener);
    l->server = s;
    l->max = max;
    l->fd = take_fd(&fd);
    l->watch = loop_fd_new(s->loop, l->fd, LOOP_READ, on_acceptable, l);
    l->again = loop_timer_new(s->loop, on_again, l);
    list_append(&s->listeners, &l->node);
    return 0;
}

/* --- the server --------------------------------------------------------------------------- */

static char *make_hello(const char *program)
{
    AUTO_JSON o = new_message();
    struct json_object *params = json_object_new_object();

    api_json_set_str(o, "method", "hello");
    api_json_set_str(params, "program", program);
    api_json_set_str(params, "version", PACKAGE_VERSION);
    api_json_set_str(params, "schema", api_schema_hash);
    api_json_set(o, "params", params);
    return xstrdup(api_json_text(o));
}

struct rpc_server *rpc_server_new(struct loop *l, const struct rpc_server_config *config,
                                  const struct rpc_server_ops *ops, void *arg)
{
    struct rpc_server *s = xnew(struct rpc_server);

    s->loop = l;
    s->config = *config;
    s->config.max_clients = config->max_clients ? config->max_clients : MAX_CLIENTS;
    s->ops = ops;
    s->arg = arg;
    s->hello = make_hello(config->program);
    list_init(&s->listeners);
    list_init(&s->slots);
    return s;
}

static void stop_listening(struct rpc_server *s)
{
    list_for_each_safe (it, &s->listeners) {
        listener_free(list_entry(it, struct listener, node));
    }
}

void rpc_server_free(struct rpc_server *s)
{
    if (!s) {
        return;
    }
    stop_listening(s);
    while (!list_empty(&s->slots)) {
        slot_end(list_entry(s->slots.next, struct slot, node));
    }
    free(s->hello);
    free(s);
}

void rpc_server_drain(struct rpc_server *s)
{
    stop_listening(s);
    s->draining = true;
}

unsigned rpc_server_clients(const struct rpc_server *s)
{
    return s->n_slots;
}

void *rpc_server_arg(const struct rpc_server *s)
{
    return s->arg;
}

static struct json_object *new_notification(const char *method, struct json_object *params)
{
    struct json_object *o = new_message();

    api_json_set_str(o, "method", method);
    if (params) {
        api_json_set(o, "params", json_object_get(params));
    }
    return o;
}

int rpc_session_notify(struct rpc_session *s, const char *method, struct json_object *params)
{
    AUTO_JSON o = new_notification(method, params);

    return rpc_conn_send(s->conn, o);
}

void rpc_server_notify_all(struct rpc_server *s, const char *method, struct json_object *params)
{
    AUTO_JSON o = new_notification(method, params);
    const char *text = api_json_text(o);
    size_t len = strlen(text);

    list_for_each (it, &s->slots) {
        rpc_conn_send_text(list_entry(it, struct slot, node)->session.conn, text, len);
    }
}
