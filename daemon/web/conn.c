/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One browser's connection. The tunnel has the TLS side; this has the other end of a socket pair and speaks HTTP or frames of a
 * websocket there. Owns both, and what a websocket is connected to. Loop thread; the browser is never waited for, and nothing is
 * read from one side while too much waits for the other.
 */
#include "daemon/web/conn.h"

#include "api-schema/rpc/server.h"
#include "api-schema/tls/tunnel.h"
#include "daemon/auth/access.h"
#include "daemon/auth/listen.h"
#include "daemon/auth/stream.h"
#include "daemon/daemon.h"
#include "daemon/web/files.h"
#include "daemon/web/http.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HANDSHAKE_NS INT64_C(10000000000)
#define REQUEST_NS INT64_C(20000000000) /* a whole request, and as much for taking its answer */
#define WAITS_MAX 65536 /* bytes that wait for one side before the other is read on */
#define READ_SIZE 16384
#define SOCKETS_MAX 16 /* websockets of one session */

static void update(struct web_conn *c);

void web_conn_free(struct web_conn *c)
{
    list_remove(&c->link);
    c->w->n_conns--;
    loop_fd_free(c->watch);
    loop_fd_free(c->back_watch);
    loop_timer_free(c->timer);
    if (c->fd >= 0) {
        close(c->fd);
    }
    if (c->back >= 0) {
        close(c->back);
    }
    tunnel_free(c->tunnel);
    buf_done(&c->in);
    buf_done(&c->out);
    buf_done(&c->to_back);
    free(c);
}

/* Nothing more is said: the tunnel sends what it has, and tells when all is over. */
static void hang_up(struct web_conn *c)
{
    loop_fd_free(c->watch);
    loop_fd_free(c->back_watch);
    loop_timer_disarm(c->timer);
    c->watch = c->back_watch = NULL;
    close(c->fd);
    c->fd = -1;
    if (c->back >= 0) {
        close(c->back);
        c->back = -1;
    }
}

static void on_time(void *arg)
{
    web_conn_free(arg);
}

/* ---- answers ---- */

static void answer(struct web_conn *c, int status, const char *type, const char *fields,
                   const void *body, size_t n)
{
    http_answer(&c->out, status, type, fields, body, n, c->last);
    loop_timer_arm(c->timer, REQUEST_NS);
}

static void answer_text(struct web_conn *c, int status, const char *text)
{
    AUTO_FREE char *line = xasprintf("%s\n", text);
    answer(c, status, "text/plain; charset=utf-8", NULL, line, strlen(line));
}

static struct web_conn *by_id(struct web *w, uint64_t id)
{
    list_for_each (n, &w->conns) {
        struct web_conn *c = list_entry(n, struct web_conn, link);
        if (c->id == id) {
            return c;
        }
    }
    return NULL;
}

static void logged_in(void *arg, uint64_t id, const struct web_session *k, const char *why)
{
    struct web_conn *c = by_id(arg, id);
    if (!c || c->fd < 0) {
        return; /* it has gone; the session is nobody's and ends by its time */
    }
    c->waiting = false;
    if (k) {
        AUTO_FREE char *cookie = xasprintf("Set-Cookie: " HTTP_COOKIE
                                           "=%s; Path=/; Secure; HttpOnly; SameSite=Strict\r\n",
                                           k->secret);
        answer(c, 200, "text/plain; charset=utf-8", cookie, "ok\n", 3);
    } else {
        answer_text(c, 403, why);
    }
    update(c);
}

/* ---- websockets ---- */

static unsigned sockets_of(struct web *w, uint64_t session)
{
    unsigned n = 0;
    list_for_each (it, &w->conns) {
        const struct web_conn *c = list_entry(it, struct web_conn, link);
        n += c->back >= 0 && c->session == session;
    }
    return n;
}

/* The daemon's own RPC server: to it this is a client like any. */
static int open_rpc(struct web_conn *c, struct err *e)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        return err_errno(e, errno, "no descriptors are left");
    }
    AUTO_FD mine = pair[0];
    int rc = rpc_server_add_peer(c->w->d->server, pair[1], &c->peer, API_ROLE_ADMIN, e);
    return rc < 0 ? rc : take_fd(&mine);
}

static int open_stream(struct web_conn *c, const char *query, struct err *e)
{
    struct stream_ticket k;
    char who[160];
    access_who(&c->peer, who, sizeof(who));
    if (!str_starts(query, "ticket=") || !stream_take(c->w->d, query + 7, c->peer.user, &k)) {
        doors_refuse(c->w->d->doors, who, "web.stream", "no such ticket");
        return err_set(e, -EACCES,
                       "no such ticket: it was used, is too old, or is another user's");
    }
    int fd = unix_connect_now(k.path, e);
    if (fd >= 0) {
        access_audit(c->w->d, who, "web.stream", k.what, "ok");
    }
    return fd;
}

static void on_back(void *arg, int fd, unsigned events);

static void begin_socket(struct web_conn *c, const struct http_request *r,
                         const struct web_session *k)
{
    struct err e = ERR_INIT;
    char accept[WS_ACCEPT_MAX];
    struct user *u = user_find(c->w->d, k->user);
    bool rpc = strcmp(r->path, "/rpc") == 0;
    if (!u || (!rpc && strcmp(r->path, "/stream") != 0)) {
        answer_text(c, 404, "no websocket is here");
        return;
    }
    if (sockets_of(c->w, k->number) >= SOCKETS_MAX) {
        answer_text(c, 503, "too many consoles are open; close one");
        return;
    }
    str_copy(c->peer.user, sizeof(c->peer.user), k->user);
    c->peer.principal = RPC_REMOTE + u->id;
    AUTO_FD back = rpc ? open_rpc(c, &e) : open_stream(c, r->query, &e);
    if (back < 0 || fd_set_nonblock(back, true, &e) < 0) {
        answer_text(c, 403, e.msg);
        return;
    }
    c->session = k->number;
    c->back = take_fd(&back);
    c->back_watch = loop_fd_new(c->w->d->loop, c->back, LOOP_READ, on_back, c);
    ws_accept(r->key, accept);
    buf_printf(&c->out,
               "HTTP/1.1 101 %s\r\nUpgrade: websocket\r\nConnection: "
               "Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
               http_status_text(101), accept);
    loop_timer_disarm(c->timer);
}

static void end_socket(struct web_conn *c, unsigned code)
{
    if (!c->last) {
        c->last = true;
        ws_farewell(&c->out, code);
        loop_timer_arm(c->timer, REQUEST_NS);
    }
}

static void feed_socket(struct web_conn *c)
{
    if (c->last) {
        c->in.len = 0;
        return;
    }
    if (ws_feed(&c->ws, (const unsigned char *)c->in.data, c->in.len, &c->to_back, &c->out) !=
        0) {
        c->last = true; /* its farewell waits */
        loop_timer_arm(c->timer, REQUEST_NS);
    }
    c->in.len = 0;
}

static void on_back(void *arg, int fd, unsigned events)
{
    struct web_conn *c = arg;
    char data[READ_SIZE];
    if (events & LOOP_WRITE) {
        ssize_t n = send(fd, c->to_back.data, c->to_back.len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0) {
            buf_consume(&c->to_back, (size_t)n);
        } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
            end_socket(c, WS_GOING_AWAY);
        }
    }
    if ((events & LOOP_READ) && !c->last) {
        ssize_t n = recv(fd, data, sizeof(data), MSG_DONTWAIT);
        if (n > 0) {
            ws_frame(&c->out, WS_BINARY, data, (size_t)n);
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            end_socket(c, WS_NORMAL);
        }
    }
    update(c);
}

/* ---- requests ---- */

static bool same_origin(const struct http_request *r)
{
    return str_starts(r->origin, "https://") && strcmp(r->origin + 8, r->host) == 0;
}

static void post(struct web_conn *c, const struct http_request *r, struct web_session *k)
{
    if (!same_origin(r)) {
        answer_text(c, 403, "another site's page has nothing to ask here");
    } else if (strcmp(r->path, "/login") == 0) {
        c->waiting = true;
        web_login(&c->w->sessions, r->bearer, c->peer.address, c->id, logged_in, c->w);
    } else if (strcmp(r->path, "/logout") == 0 && k) {
        access_audit(c->w->d, c->peer.address, "web.logout", k->user, "ok");
        memset(k, 0, sizeof(*k));
        answer(c, 204, "text/plain",
               "Set-Cookie: " HTTP_COOKIE "=; Path=/; Secure; HttpOnly; Max-Age=0\r\n", "", 0);
        web_recheck(c->w);
    } else {
        answer_text(c, k ? 404 : 401, k ? "nothing is here" : "log in first");
    }
}

static void get(struct web_conn *c, const struct http_request *r, struct web_session *k)
{
    AUTO_BUF body = BUF_INIT;
    const char *type = NULL, *page = web_page(r->path, &type);
    if (page) {
        answer(c, 200, type, NULL, page, strlen(page));
    } else if (!k) {
        answer_text(c, 401, "log in first");
    } else if (r->websocket) {
        if (same_origin(r)) {
            begin_socket(c, r, k);
        } else {
            answer_text(c, 403, "another site's page has nothing to ask here");
        }
    } else if (strcmp(r->path, "/session") == 0) {
        answer_text(c, 200, k->user);
    } else if (web_file(c->w->d->opt.web_modules, r->path, &body, &type) == 0) {
        answer(c, 200, type, NULL, body.data, body.len);
    } else {
        answer_text(c, 404, "nothing is here");
    }
}

/* A request, when a whole head is there. */
static void serve(struct web_conn *c)
{
    struct http_request r;
    int n = http_parse(c->in.data ? c->in.data : "", c->in.len, &r);
    if (n == 0) {
        return;
    }
    if (n < 0) {
        c->last = true;
        c->in.len = 0;
        answer_text(c, -n, http_status_text(-n));
        return;
    }
    buf_consume(&c->in, (size_t)n);
    c->last = r.close;
    struct web_session *k = web_session_find(&c->w->sessions, r.session);
    if (r.post) {
        post(c, &r, k);
    } else {
        get(c, &r, k);
    }
    if (c->back >= 0) {
        feed_socket(c); /* what came along with the request */
    }
}

static void on_plain(void *arg, int fd, unsigned events)
{
    struct web_conn *c = arg;
    char data[READ_SIZE];
    if (events & LOOP_WRITE) {
        ssize_t n = send(fd, c->out.data + c->sent, c->out.len - c->sent,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        c->sent += n > 0 ? (size_t)n : 0;
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            hang_up(c);
            return;
        }
    }
    if (events & LOOP_READ) {
        ssize_t n = recv(fd, data, sizeof(data), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            hang_up(c);
            return;
        }
        if (n > 0) {
            buf_add(&c->in, data, (size_t)n);
            if (c->back >= 0) {
                feed_socket(c);
            }
        }
    }
    update(c);
}

/* What to wait for now. Requests are served one after the other, each when the answer before has gone. */
static void update(struct web_conn *c)
{
    unsigned want = 0, back = 0;
    if (c->sent == c->out.len && c->out.len > 0) {
        c->out.len = c->sent = 0;
        if (c->last) {
            hang_up(c);
            return;
        }
    }
    if (c->back < 0 && c->out.len == 0 && !c->waiting && c->in.len > 0) {
        serve(c);
    }
    size_t waits = c->out.len - c->sent;
    want |= waits ? LOOP_WRITE : 0;
    if (c->back < 0) {
        want |= waits || c->waiting || c->last ? 0 : LOOP_READ;
    } else {
        want |= waits < WAITS_MAX && c->to_back.len < WAITS_MAX && !c->last ? LOOP_READ : 0;
        back |= c->to_back.len ? LOOP_WRITE : 0;
        back |= waits < WAITS_MAX && !c->last ? LOOP_READ : 0;
        loop_fd_set(c->back_watch, c->last ? 0 : back);
    }
    loop_fd_set(c->watch, want);
}

/* ---- the tunnel ---- */

static void on_ready(void *arg, struct tunnel *t)
{
    struct web_conn *c = arg;
    struct vmd *d = c->w->d;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        web_conn_free(c);
        return;
    }
    c->fd = pair[1];
    c->watch = loop_fd_new(d->loop, c->fd, LOOP_READ, on_plain, c);
    loop_timer_arm(c->timer, REQUEST_NS);
    tunnel_attach(t, pair[0]);
}

static void on_line(void *arg, struct tunnel *t, char *text, size_t n)
{
    (void)arg;
    (void)t;
    (void)text;
    (void)n;
}

static void on_closed(void *arg, struct tunnel *t, const struct err *why)
{
    struct web_conn *c = arg;
    (void)t;
    if (c->fd < 0 && why->code) {
        log_info("access", "%s: web console: %s", c->peer.address, why->msg);
    }
    web_conn_free(c);
}

static const struct tunnel_ops ops = { .ready = on_ready,
                                       .line = on_line,
                                       .closed = on_closed };

struct web_conn *web_conn_new(struct web *w, int owned_fd, struct ssl_st *take_ssl,
                              const char *address)
{
    struct web_conn *c = xnew(struct web_conn);
    c->w = w;
    c->id = ++w->next;
    c->fd = c->back = -1;
    c->peer.uid = (uid_t)-1;
    c->peer.gid = (gid_t)-1;
    c->peer.principal = -1;
    str_copy(c->peer.address, sizeof(c->peer.address), address);
    c->timer = loop_timer_new(w->d->loop, on_time, c);
    list_append(&w->conns, &c->link);
    w->n_conns++;
    c->tunnel = tunnel_new(w->d->loop, owned_fd, take_ssl, HANDSHAKE_NS, true, &ops, c);
    return c;
}
