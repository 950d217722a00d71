/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server: listeners, sessions, requests and batches. Owns sessions and, until they are
 * answered, calls; a call outlives its session when the client goes first. One thread: the loop's.
 */
#include "api-schema/rpc/server.h"

#include "api-schema/json/json.h"
#include "api-schema/rpc/call.h"
#include "api-schema/rpc/server_int.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const int64_t accept_pause_ns = 100 * INT64_C(1000000);
static const int64_t batch_turn_ns = 2 * INT64_C(1000000);
static const int64_t complain_ns = 1000 * INT64_C(1000000);

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* Logs a complaint about a client, at most one a second: clients must not fill the log. */
static void complain(struct rpc_server *s, const char *what, const char *why)
{
    int64_t now = now_ns();

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
    rpc_deliver(s, b, b ? b->now : 0, rpc_new_error(id, &x));
}

/* --- requests ----------------------------------------------------------------------------- */

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

static void handle_request(struct slot *s, struct batch *b, struct json_object *msg)
{
    struct api_error x = API_ERROR_INIT;
    const struct api_handler *h;
    struct json_object *id, *params;
    const char *method;

    if (!json_object_is_type(msg, json_type_object)) {
        refuse(s, b, NULL, API_E_INVALID_REQUEST, NULL, NULL, "a request must be an object");
        return;
    }
    if (!check_form(s, b, msg, &id, &method, &params)) {
        return;
    }
    h = rpc_handler_for(s, method, &x);
    if (h) {
        rpc_call_run(rpc_call_new(s, b, h->method, id, params), h);
    } else if (id) {
        rpc_deliver(s, b, b ? b->now : 0, rpc_new_error(id, &x));
    }
}

/* Begins requests of a batch for as long as others should wait; then they have their turn. */
static void batch_go_on(void *arg)
{
    struct batch *b = arg;
    struct slot *s = b->slot;
    int64_t end = now_ns() + batch_turn_ns;

    while (b->now < b->n) {
        handle_request(s, b, json_object_array_get_idx(b->msg, b->now));
        b->now++;
        if (b->now < b->n && now_ns() > end) {
            if (!b->again) {
                b->again = loop_timer_new(s->server->loop, batch_go_on, b);
                s->batch = b;
                rpc_conn_hold(s->session.conn);
            }
            loop_timer_arm(b->again, 0);
            return;
        }
    }
    if (s->batch) {
        s->batch = NULL;
        rpc_conn_release(s->session.conn);
    }
    rpc_batch_done(b);
    rpc_maybe_finish(s);
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
    b->msg = json_object_get(msg);
    b->reply = xnew_n(struct json_object *, n);
    b->n = n;
    b->open = 1; /* until all have begun */
    batch_go_on(b);
}

/* --- another language ------------------------------------------------------------------------ */

static void speak(struct slot *s, const struct rpc_dialect *dialect, void *arg)
{
    s->dialect = dialect;
    s->spoken = true;
    if (dialect->framing) {
        rpc_conn_frames(s->session.conn, dialect->framing);
    } else {
        rpc_conn_stream(s->session.conn);
    }
    s->other = dialect->begin(arg, &s->session);
}

/* The first message settles which language a client speaks. */
static bool settle(struct slot *s, struct json_object *msg)
{
    const struct rpc_server_config *config = &s->server->config;

    if (!s->spoken && config->dialect && config->dialect->claims(msg)) {
        speak(s, config->dialect, config->dialect_arg);
    }
    s->spoken = true;
    return s->dialect != NULL;
}

static void on_message(void *arg, struct rpc_conn *conn, struct json_object *msg)
{
    struct slot *s = arg;

    (void)conn;
    if (settle(s, msg)) {
        s->dialect->message(s->other, msg);
        return;
    }
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
    struct slot *s = arg;

    (void)conn;
    if (s->dialect) {
        s->dialect->garbage(s->other, why);
        return;
    }
    refuse(s, NULL, NULL, API_E_PARSE_ERROR, NULL, "one JSON value a line, at most 1 MiB", "%s",
           why->msg);
}

static void on_frame(void *arg, struct rpc_conn *conn, const unsigned char *data, size_t n)
{
    struct slot *s = arg;

    (void)conn;
    s->dialect->frame(s->other, data, n);
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
    if (s->batch) { /* its other requests are not begun */
        s->batch->slot = NULL;
        loop_timer_free(s->batch->again);
        s->batch->again = NULL;
        rpc_batch_done(s->batch);
    }
    rpc_conn_free(s->session.conn);
    list_remove(&s->node);
    if (s->listener) {
        s->listener->n_clients--;
    } else {
        server->n_slots--;
    }
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
    if (s->dialect) {
        s->dialect->end(s->other);
    }
    if (server->ops && server->ops->closed) {
        server->ops->closed(server->arg, &s->session);
    }
    slot_free(s);
}

static void peer_text(const struct rpc_peer *p, char *out, size_t size)
{
    if (p->user[0]) {
        snprintf(out, size, "client %s at %s cut off", p->user, p->address);
    } else {
        snprintf(out, size, "client pid %d uid %u cut off", (int)p->pid, (unsigned)p->uid);
    }
}

static void on_closed(void *arg, struct rpc_conn *conn, const struct err *why)
{
    struct slot *s = arg;

    (void)conn;
    if (why->code && why->code != -EPIPE) {
        char who[160];
        peer_text(&s->session.peer, who, sizeof(who));
        complain(s->server, who, why->msg);
    }
    slot_end(s);
}

static void on_half_closed(void *arg, struct rpc_conn *conn)
{
    (void)conn;
    rpc_maybe_finish(arg);
}

static const struct rpc_conn_ops conn_ops = {
    .message = on_message,
    .garbage = on_garbage,
    .frame = on_frame,
    .half_closed = on_half_closed,
    .closed = on_closed,
};

/* One line to a client that is not let in. Its socket is fresh, so the line fits. */
static void turn_away(int fd, const struct rpc_listener *from, int code, const char *remedy,
                      const char *text)
{
    struct api_error x = API_ERROR_INIT;
    AUTO_JSON reply = NULL;
    AUTO_BUF line = BUF_INIT;

    if (from && from->dialect && from->dialect->framing) {
        return; /* no JSON is understood there: the end says it */
    }
    api_error_set(&x, code, NULL, remedy, "%s", text);
    reply = rpc_new_error(NULL, &x);
    buf_printf(&line, "%s\n", api_json_text(reply));
    (void)!send(fd, line.data, line.len, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static bool full(const struct rpc_server *s, const struct rpc_listener *l)
{
    return l && l->max_clients ? l->n_clients >= l->max_clients
                               : s->n_slots >= s->config.max_clients;
}

static void welcome(struct slot *slot, struct rpc_listener *from)
{
    struct rpc_server *s = slot->server;

    if (from && from->dialect) {
        rpc_conn_take_fds(slot->session.conn);
        speak(slot, from->dialect, from->dialect_arg);
    } else {
        rpc_conn_send_text(slot->session.conn, s->hello, strlen(s->hello));
    }
    if (s->ops && s->ops->opened) {
        s->ops->opened(s->arg, &slot->session);
    }
}

/* Who the kernel says is at the other end of a unix socket; nobody when it does not. */
static struct rpc_peer peer_of(int fd)
{
    struct rpc_peer peer = { .uid = (uid_t)-1 };

    (void)unix_peer(fd, &peer.pid, &peer.uid, &peer.gid, NULL);
    peer.principal = peer.uid;
    return peer;
}

/* `from` NULL: of no listener. */
static int add_client(struct rpc_server *s, int owned_fd, struct rpc_listener *from,
                      const struct rpc_peer *who, enum api_role max, struct err *e)
{
    AUTO_FD fd = owned_fd;
    struct rpc_peer peer = *who;
    enum api_role role = max;
    struct rpc_limits limits;
    struct slot *slot;
    struct rpc_conn *conn;

    if (full(s, from)) {
        turn_away(fd, from, API_E_OVERLOAD, "try again later", "too many clients");
        return err_set(e, -EMFILE, "%u clients are connected, the limit",
                       from && from->max_clients ? from->n_clients : s->n_slots);
    }
    if (s->ops && s->ops->authorize) {
        role = s->ops->authorize(s->arg, &peer, max);
        role = role > max ? max : role;
    }
    if (role == API_ROLE_NONE) {
        turn_away(fd, from, API_E_DENIED, "ask the administrator for access",
                  "this user may not connect");
        return peer.user[0]
                   ? err_set(e, -EACCES, "user '%s' may not connect", peer.user)
                   : err_set(e, -EACCES, "user %u may not connect", (unsigned)peer.uid);
    }
    slot = xnew(struct slot);
    if (s->config.send_buffer) { /* the kernel may give less */
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &s->config.send_buffer, sizeof(int));
    }
    limits = s->config.limits ? *s->config.limits : rpc_limits_default;
    limits.pool = &s->pool;
    conn = rpc_conn_new(s->loop, take_fd(&fd), &limits, &conn_ops, slot, e);
    if (!conn) {
        free(slot);
        return e && e->code ? e->code : -ENOMEM;
    }
    slot->server = s;
    slot->session = (struct rpc_session){
        .conn = conn, .peer = peer, .role = role, .most = max
    };
    slot->listener = from && from->max_clients ? from : NULL;
    list_init(&slot->calls);
    list_append(&s->slots, &slot->node);
    *(slot->listener ? &from->n_clients : &s->n_slots) += 1;
    welcome(slot, from);
    return 0;
}

int rpc_server_add(struct rpc_server *s, int owned_fd, enum api_role max, struct err *e)
{
    struct rpc_peer peer = peer_of(owned_fd);

    return add_client(s, owned_fd, NULL, &peer, max, e);
}

int rpc_server_add_peer(struct rpc_server *s, int owned_fd, const struct rpc_peer *peer,
                        enum api_role max, struct err *e)
{
    return add_client(s, owned_fd, NULL, peer, max, e);
}

int rpc_server_add_peer_as(struct rpc_server *s, int owned_fd, const struct rpc_peer *peer,
                           enum api_role max, const struct rpc_dialect *dialect, void *arg,
                           struct err *e)
{
    struct rpc_listener as = { .dialect = dialect, .dialect_arg = arg };

    return add_client(s, owned_fd, &as, peer, max, e);
}

/* --- listeners ---------------------------------------------------------------------------- */

static void on_again(void *arg)
{
    struct rpc_listener *l = arg;

    loop_fd_set(l->watch, LOOP_READ);
}

static void on_acceptable(void *arg, int fd, unsigned events)
{
    struct rpc_listener *l = arg;

    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        struct err e = ERR_INIT;
        int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (client >= 0) {
            struct rpc_peer peer = peer_of(client);
            if (add_client(l->server, client, l, &peer, l->max, &e) < 0) {
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

/* Its clients stay; they count as the server's from now on. */
void rpc_listener_free(struct rpc_listener *l)
{
    if (!l) {
        return;
    }
    list_for_each (it, &l->server->slots) {
        struct slot *slot = list_entry(it, struct slot, node);
        if (slot->listener == l) {
            slot->listener = NULL;
            l->server->n_slots++;
        }
    }
    list_remove(&l->node);
    loop_fd_free(l->watch);
    loop_timer_free(l->again);
    close(l->fd);
    free(l);
}

struct rpc_listener *rpc_server_listen_as(struct rpc_server *s, int owned_fd, enum api_role max,
                                          const struct rpc_dialect *dialect, void *arg,
                                          unsigned max_clients, struct err *e)
{
    AUTO_FD fd = owned_fd;
    struct rpc_listener *l;

    if (fd_set_nonblock(fd, true, e) < 0) {
        return NULL;
    }
    l = xnew(struct rpc_listener);
    l->server = s;
    l->max = max;
    l->dialect = dialect;
    l->dialect_arg = arg;
    l->max_clients = max_clients;
    l->fd = take_fd(&fd);
    l->watch = loop_fd_new(s->loop, l->fd, LOOP_READ, on_acceptable, l);
    l->again = loop_timer_new(s->loop, on_again, l);
    list_append(&s->listeners, &l->node);
    return l;
}

int rpc_server_listen(struct rpc_server *s, int owned_fd, enum api_role max, struct err *e)
{
    struct err why = ERR_INIT;

    if (!rpc_server_listen_as(s, owned_fd, max, NULL, NULL, 0, &why)) {
        return err_set(e, why.code, "%s", why.msg);
    }
    return 0;
}

/* --- the server --------------------------------------------------------------------------- */

static char *make_hello(const struct rpc_server_config *config)
{
    AUTO_JSON o = rpc_new_message();
    struct json_object *params = json_object_new_object();

    api_json_set_str(o, "method", "hello");
    api_json_set_str(params, "program", config->program);
    api_json_set_str(params, "version", PACKAGE_VERSION);
    api_json_set_str(params, "schema", api_schema_hash);
    api_json_set(o, "params", params);
    if (config->qmp) {
        api_json_set(o, "QMP", json_tokener_parse(config->qmp));
    }
    return xstrdup(api_json_text(o));
}

struct rpc_server *rpc_server_new(struct loop *l, const struct rpc_server_config *config,
                                  const struct rpc_server_ops *ops, void *arg)
{
    struct rpc_server *s = xnew(struct rpc_server);

    rpc_ignore_sigpipe();
    s->loop = l;
    s->config = *config;
    s->config.max_clients = config->max_clients ? config->max_clients : MAX_CLIENTS;
    s->ops = ops;
    s->arg = arg;
    s->hello = make_hello(config);
    list_init(&s->listeners);
    list_init(&s->slots);
    list_init(&s->pool.conns);
    s->pool.max = POOL_BYTES;
    return s;
}

static void stop_listening(struct rpc_server *s)
{
    list_for_each_safe (it, &s->listeners) {
        rpc_listener_free(list_entry(it, struct rpc_listener, node));
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

void rpc_session_idle(struct rpc_session *session)
{
    rpc_maybe_finish(list_entry(session, struct slot, session));
}

void rpc_server_drain(struct rpc_server *s)
{
    stop_listening(s);
    s->draining = true;
}

void rpc_server_each(struct rpc_server *s, void (*fn)(void *arg, struct rpc_session *s),
                     void *arg)
{
    list_for_each (it, &s->slots) {
        fn(arg, &list_entry(it, struct slot, node)->session);
    }
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
    struct json_object *o = rpc_new_message();

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
