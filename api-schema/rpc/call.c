/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls: how they come to be, what handlers may ask of them, how they are answered. A call outlives
 * its session when the client goes first, and its caller's patience when that ends first. One thread:
 * the loop's.
 */
#include "api-schema/json/text.h"
#include "api-schema/rpc/server_int.h"
#include "engine/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* --- sending ------------------------------------------------------------------------------ */

struct json_object *rpc_new_message(void)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "jsonrpc", "2.0");
    return o;
}

struct json_object *rpc_new_error(struct json_object *id, const struct api_error *x)
{
    struct json_object *o = rpc_new_message();

    api_json_set(o, "id", json_object_get(id));
    api_json_set(o, "error", api_error_encode(x));
    return o;
}

void rpc_batch_done(struct batch *b)
{
    struct json_object *all;

    if (--b->open > 0) {
        return;
    }
    all = json_object_new_array();
    for (size_t i = 0; i < b->n; i++) {
        if (b->reply[i]) {
            json_object_array_add(all, b->reply[i]);
        }
    }
    if (b->slot && json_object_array_length(all) > 0) {
        rpc_conn_send(b->slot->session.conn, all);
    }
    json_object_put(all);
    json_object_put(b->msg);
    loop_timer_free(b->again);
    free(b->reply);
    free(b);
}

/* Replies of a batch are kept as text, and not more of it than a connection may queue. */
static void batch_put(struct batch *b, size_t at, struct json_object *take_reply)
{
    const char *text = api_json_raw_text(take_reply);

    text = text ? text : api_json_text(take_reply);
    b->bytes += strlen(text);
    if (b->bytes > BATCH_BYTES) {
        struct api_error x = API_ERROR_INIT;
        struct json_object *msg = json_object_array_get_idx(b->msg, at);
        api_error_set(&x, API_E_OVERLOAD, NULL, "ask in several batches",
                      "the replies of this batch exceed %d bytes", BATCH_BYTES);
        json_object_put(take_reply);
        take_reply = rpc_new_error(api_json_get(msg, "id"), &x);
    }
    json_object_put(b->reply[at]);
    b->reply[at] = take_reply;
}

void rpc_deliver(struct slot *s, struct batch *b, size_t at, struct json_object *reply)
{
    if (b) {
        batch_put(b, at, reply);
        return;
    }
    if (s) {
        rpc_conn_send(s->session.conn, reply);
    }
    json_object_put(reply);
}

/* --- calls -------------------------------------------------------------------------------- */

void rpc_maybe_finish(struct slot *s)
{
    if (rpc_conn_half_closed(s->session.conn) && s->n_calls == 0 && !s->batch &&
        (!s->dialect || s->dialect->idle(s->other))) {
        rpc_conn_close(s->session.conn);
    }
}

/* What a handler was given stays until it has returned, whatever it answered before. */
static void call_free(struct api_call *c)
{
    if (c->running) {
        c->over = true;
        return;
    }
    api_release(c->method->in, c->in);
    free(c->in);
    json_object_put(c->id);
    json_object_put(c->params);
    json_object_put(c->key_holder);
    loop_timer_free(c->deadline);
    free(c);
}

/* Gives the caller its answer (`reply` taken, NULL for a notification); the client and the call part. */
static void call_part(struct api_call *c, struct json_object *reply)
{
    struct slot *s = c->slot;
    struct batch *b = c->batch;

    list_remove(&c->node);
    c->slot = NULL;
    c->batch = NULL;
    if (s) {
        s->n_calls--;
    }
    if (reply) {
        rpc_deliver(s, b, c->at, reply);
    }
    if (b) {
        rpc_batch_done(b);
    }
    if (!s) {
        return;
    }
    if (s->held && s->n_calls <= OPEN_CALLS / 2) {
        s->held = false;
        rpc_conn_release(s->session.conn);
    }
    rpc_maybe_finish(s);
}

static void add_value(struct buf *to, struct json_object *v)
{
    const char *text = v ? api_json_raw_text(v) : "null";

    buf_add_str(to, text ? text : api_json_text(v));
}

/* The answer as text, which is all that is wanted of it. */
static struct json_object *new_answer(struct json_object *id, struct json_object *result)
{
    AUTO_BUF text = BUF_INIT;

    buf_add_str(&text, "{\"jsonrpc\":\"2.0\",\"id\":");
    buf_add_str(&text, api_json_text(id));
    buf_add_str(&text, ",\"result\":");
    add_value(&text, result);
    buf_add_char(&text, '}');
    return api_json_raw(&text);
}

/* The call has its answer, one of the two. */
static void call_end(struct api_call *c, struct json_object *result, const struct api_error *x)
{
    struct json_object *reply = NULL;

    if (c->local) {
        AUTO_JSON tree = result ? api_json_tree(result) : NULL;
        c->local(c->local_arg, tree, x);
    } else if (c->id && x) {
        reply = rpc_new_error(c->id, x);
    } else if (c->id) {
        reply = new_answer(c->id, result);
    }
    call_part(c, reply);
    call_free(c);
}

/* The caller's patience is over. What was begun goes on, its end is still told to ops->after. */
static void on_deadline(void *arg)
{
    struct api_call *c = arg;
    struct api_error x = API_ERROR_INIT;
    void (*gone)(void *, struct api_call *) = c->gone;
    rpc_local_fn *local = c->local;

    api_error_set(&x, API_E_TIMEOUT, c->method->name,
                  "what was begun goes on: look at its state, or repeat the call with the same "
                  "idempotency_key",
                  "%s has not ended before its deadline", c->method->name);
    if (local) {
        c->local = NULL;
        local(c->local_arg, NULL, &x);
    }
    call_part(c, c->id ? rpc_new_error(c->id, &x) : NULL);
    json_object_put(c->id);
    c->id = NULL;
    c->gone = NULL;
    if (gone) {
        gone(c->gone_arg, c); /* may answer, which frees it */
    }
}

void api_reply_json(struct api_call *c, struct json_object *take_result)
{
    if (c->ops && c->ops->after) {
        c->ops->after(c->app, c, take_result, NULL);
    }
    call_end(c, take_result, NULL);
    json_object_put(take_result);
}

void api_reply(struct api_call *c, const void *out)
{
    api_reply_json(c, api_encode_raw(c->method->out, out));
}

void api_reply_error(struct api_call *c, const struct api_error *x)
{
    if (c->ops && c->ops->after) {
        c->ops->after(c->app, c, NULL, x);
    }
    call_end(c, NULL, x);
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
    return !c->id && !c->local;
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

/* --- from a request to a handler --------------------------------------------------------- */

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

/* Takes deadline_ms out of the parameters, which every method has. False when it is malformed. */
static bool take_deadline(struct api_call *c)
{
    struct json_object *v;
    int64_t ms;

    if (!json_object_object_get_ex(c->params, "deadline_ms", &v)) {
        return true;
    }
    ms = json_object_is_type(v, json_type_int) ? json_object_get_int64(v) : 0;
    if (ms < 1 || ms > DEADLINE_MAX_MS) {
        return false;
    }
    c->deadline = loop_timer_new(c->server->loop, on_deadline, c);
    loop_timer_arm(c->deadline, ms * INT64_C(1000000));
    json_object_object_del(c->params, "deadline_ms");
    return true;
}

/* A call that belongs to no session (yet). */
static struct api_call *call_alloc(struct rpc_server *server, const struct api_method *m,
                                   struct json_object *params, const struct rpc_peer *peer,
                                   enum api_role role)
{
    struct api_call *c = xnew(struct api_call);

    list_init(&c->node);
    c->server = server;
    c->ops = server->ops;
    c->app = server->arg;
    c->method = m;
    c->in = xalloc(m->in->size);
    c->params = params ? json_object_get(params) : json_object_new_object();
    c->peer = *peer;
    c->role = role;
    return c;
}

struct api_call *rpc_call_new(struct slot *s, struct batch *b, const struct api_method *m,
                              struct json_object *id, struct json_object *params)
{
    struct api_call *c = call_alloc(s->server, m, params, &s->session.peer, s->session.role);

    c->slot = s;
    c->batch = b;
    c->id = json_object_get(id);
    list_append(&s->calls, &c->node);
    s->n_calls++;
    if (b) {
        c->at = b->now;
        b->open++;
    }
    return c;
}

void rpc_call_run(struct api_call *c, const struct api_handler *h)
{
    struct api_error x = API_ERROR_INIT;

    if (!take_key(c)) {
        api_fail(c, API_E_INVALID_PARAMS, "idempotency_key", "make one up for each change",
                 "idempotency_key: expected a string of 1 to 128 bytes");
    } else if (!take_deadline(c)) {
        api_fail(c, API_E_INVALID_PARAMS, "deadline_ms", NULL,
                 "deadline_ms: expected milliseconds from 1 to %d", DEADLINE_MAX_MS);
    } else if (api_decode(c->method->in, c->params, API_STRICT, "", c->in, &x) < 0) {
        api_reply_error(c, &x);
    } else if (!c->ops || !c->ops->before || !c->ops->before(c->app, c)) {
        c->running = true;
        h->fn(c, c->in);
        c->running = false;
        if (c->over) {
            call_free(c);
        }
    }
}

static void unknown_method(const struct api_handler_table *t, const char *method,
                           struct api_error *x)
{
    const char *near = api_nearest(method, handler_name, t->handlers, t->n);
    char help[128];

    if (near) {
        snprintf(help, sizeof(help), "did you mean '%s'?", near);
    } else {
        snprintf(help, sizeof(help), "api.schema lists all methods");
    }
    api_error_set(x, API_E_METHOD_NOT_FOUND, method, help, "no method '%s'", method);
}

const struct api_handler *rpc_handler_for(struct slot *s, const char *method,
                                          struct api_error *x)
{
    const struct api_handler *h = find_handler(s->server->config.handlers, method);

    if (!h) {
        unknown_method(s->server->config.handlers, method, x);
    } else if (s->session.role < h->method->role) {
        if (s->server->ops && s->server->ops->denied) {
            s->server->ops->denied(s->server->arg, &s->session, h->method);
        }
        api_error_set(x, API_E_DENIED, method, "ask as a user with that role",
                      "%s needs role %s, this connection has %s", method,
                      api_role_names[h->method->role], api_role_names[s->session.role]);
        h = NULL;
    } else if (s->server->draining) {
        api_error_set(x, API_E_CANCELLED, method, "try again when it is back", "%s is ending",
                      s->server->config.program);
        h = NULL;
    }
    return h;
}

void api_call_nested(struct api_call *parent, const char *method,
                     struct json_object *take_params, rpc_local_fn *fn, void *arg)
{
    const struct api_handler_table *t = parent->server->config.handlers;
    const struct api_handler *h = find_handler(t, method);
    struct api_error x = API_ERROR_INIT;
    struct api_call *c;

    if (!h) {
        unknown_method(t, method, &x);
    } else if (parent->role < h->method->role) {
        api_error_set(&x, API_E_DENIED, method, "ask as a user with that role",
                      "%s needs role %s, this connection has %s", method,
                      api_role_names[h->method->role], api_role_names[parent->role]);
    } else {
        c = call_alloc(parent->server, h->method, take_params, &parent->peer, parent->role);
        c->local = fn;
        c->local_arg = arg;
        json_object_put(take_params);
        rpc_call_run(c, h);
        return;
    }
    json_object_put(take_params);
    fn(arg, NULL, &x);
}

void rpc_session_call(struct rpc_session *session, const char *method,
                      struct json_object *take_params, rpc_local_fn *fn, void *arg)
{
    struct slot *s = list_entry(session, struct slot, session);
    struct api_error x = API_ERROR_INIT;
    const struct api_handler *h = rpc_handler_for(s, method, &x);
    struct api_call *c;

    if (!h) {
        json_object_put(take_params);
        fn(arg, NULL, &x);
        return;
    }
    c = call_alloc(s->server, h->method, take_params, &session->peer, session->role);
    json_object_put(take_params);
    c->local = fn;
    c->local_arg = arg;
    rpc_call_run(c, h);
}
