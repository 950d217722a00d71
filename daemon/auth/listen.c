/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listeners, connections and their bounds. Owns the context in use, the listening descriptors and each
 * connection's tunnel. Loop thread.
 */
#include "daemon/auth/listen.h"

#include "api-schema/json/error.h"
#include "api-schema/json/json.h"
#include "api-schema/rpc/server.h"
#include "api-schema/tls/tls.h"
#include "api-schema/tls/tunnel.h"
#include "daemon/auth/access.h"
#include "daemon/auth/stream.h"
#include "daemon/daemon.h"
#include "daemon/libvirt/libvirt.h"
#include "daemon/run/proc.h"
#include "daemon/web/web.h"
#include "engine/base/fd.h"
#include "engine/base/list.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HANDSHAKE_NS INT64_C(10000000000)
#define SWEEP_NS INT64_C(1000000000)
#define PAUSE_NS INT64_C(100000000)
#define ACCEPTS_A_TURN 8
#define PENDING_MAX 64 /* handshakes under way, all addresses */
#define TOLD_BURST 200 /* audit rows of refusals at once; then one a second */

struct door {
    struct doors *o;
    int fd;
    bool libvirt; /* what is spoken there, whatever ALPN says */
    struct loop_fd *watch;
    struct loop_timer *again; /* after descriptors ran out */
};
/* A connection. */
struct guest {
    struct list link; /* doors.guests, oldest first */
    struct doors *o;
    struct tunnel *tunnel;
    enum tls_proto proto;
    bool libvirt;
    bool inside;          /* the handshake is done */
    struct rpc_peer peer; /* user and cert once inside */
    char host[56];        /* address without its port */
    int64_t not_after;    /* seconds since 1970 */
};
struct doors {
    struct vmd *d;
    struct tls_ctx *ctx;
    struct tls_ctx *public; /* for who shows no certificate; NULL with ctx */
    struct door doors[2 * DOORS_LISTEN_MAX];
    unsigned n_doors;
    bool draining;
    struct list guests;
    unsigned n_guests, n_pending;
    int64_t refused;
    struct loop_timer *sweep;
    double credit; /* refusals that may still be told */
    int64_t credit_ns;
    unsigned untold;
};

/* ---- refusals ---- */

void doors_refuse(struct doors *o, const char *who, const char *method, const char *why)
{
    int64_t now = time_mono_ns();
    o->refused++;
    o->credit += (double)(now - o->credit_ns) / 1e9;
    o->credit = o->credit > TOLD_BURST ? TOLD_BURST : o->credit;
    o->credit_ns = now;
    if (o->credit < 1) {
        o->untold++;
        return;
    }
    o->credit -= 1;
    AUTO_FREE char *text = o->untold
                               ? xasprintf("refused: %s (and %u more refusals)", why, o->untold)
                               : xasprintf("refused: %s", why);
    o->untold = 0;
    log_warn("access", "%s %s %s", who, method, text);
    access_audit(o->d, who, method, "", text);
}

void doors_say_error(struct tunnel *t, int code, const char *text)
{
    AUTO_JSON o = json_object_new_object();
    struct json_object *x = json_object_new_object();
    api_json_set_int(x, "code", code);
    api_json_set_str(x, "error", api_code_name(code));
    api_json_set_str(x, "message", text);
    api_json_set(o, "error", x);
    AUTO_FREE char *line = xasprintf("%s\n", api_json_text(o));
    tunnel_say(t, line, strlen(line));
    tunnel_finish(t);
}

/* ---- a connection ---- */

static void guest_free(struct guest *g)
{
    g->o->n_guests--;
    g->o->n_pending -= !g->inside;
    list_remove(&g->link);
    tunnel_free(g->tunnel);
    free(g);
}

static void drop(struct guest *g, const char *why)
{
    char who[160];
    access_who(&g->peer, who, sizeof(who));
    log_info("access", "%s: connection ended: %s", who, why);
    access_audit(g->o->d, who, "tls.connect", "", why);
    guest_free(g);
}

/* The other end of a socket pair goes to the RPC server: to it this is a client like any. */
static void begin_rpc(struct guest *g)
{
    struct vmd *d = g->o->d;
    struct err e = ERR_INIT;
    char who[160];
    int pair[2];
    access_who(&g->peer, who, sizeof(who));
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        drop(g, "no descriptors are left");
        return;
    }
    if (g->libvirt) { /* its clients wait for this byte: the certificate was good */
        tunnel_say(g->tunnel, "\1", 1);
    }
    tunnel_attach(g->tunnel, pair[0]);
    if ((g->libvirt
             ? rpc_server_add_peer_as(d->server, pair[1], &g->peer, API_ROLE_ADMIN,
                                      &libvirt_dialect, d->libvirt, &e)
             : rpc_server_add_peer(d->server, pair[1], &g->peer, API_ROLE_ADMIN, &e)) < 0) {
        doors_refuse(g->o, who, "tls.connect", e.msg); /* told inside, then it ends by itself */
        return;
    }
    log_info("access", "%s connected", who);
    access_audit(d, who, "tls.connect", "", "ok");
}

static void on_ready(void *arg, struct tunnel *t)
{
    struct guest *g = arg;
    struct x509_st *cert = tls_peer_cert(tunnel_ssl(t));
    g->inside = true;
    g->o->n_pending--;
    g->proto = g->libvirt ? TLS_PROTO_RPC : tls_proto_of(tunnel_ssl(t));
    if (g->proto == TLS_PROTO_JOIN) {
        tunnel_read_line(t);
        return;
    }
    if (!cert || !tls_common_name(cert, g->peer.user, sizeof(g->peer.user))) {
        drop(g, "refused: it has no certificate"); /* the handshake let nobody through */
        return;
    }
    tls_fingerprint(cert, g->peer.cert);
    g->not_after = tls_not_after(cert);
    struct user *u = user_find(g->o->d, g->peer.user);
    if (!u) {
        drop(g, "refused: there is no such user");
        return;
    }
    g->peer.principal = RPC_REMOTE + u->id;
    if (g->proto == TLS_PROTO_STREAM) {
        tunnel_read_line(t);
    } else {
        begin_rpc(g);
    }
}

static void on_line(void *arg, struct tunnel *t, char *text, size_t n)
{
    struct guest *g = arg;
    if (g->proto == TLS_PROTO_JOIN) {
        doors_join(g->o->d, t, g->peer.address, text, n);
    } else {
        stream_begin(g->o->d, t, &g->peer, text, n);
    }
}

static void on_closed(void *arg, struct tunnel *t, const struct err *why)
{
    struct guest *g = arg;
    (void)t;
    if (!g->inside) {
        doors_refuse(g->o, g->peer.address, "tls.connect",
                     why->code ? why->msg : "it ended within the handshake");
    }
    guest_free(g);
}

static const struct tunnel_ops guest_ops = { .ready = on_ready,
                                             .line = on_line,
                                             .closed = on_closed };

/* ---- accepting ---- */

static void name_address(const struct sockaddr *sa, socklen_t n, struct guest *g)
{
    char host[NI_MAXHOST] = "?", port[NI_MAXSERV] = "0";
    (void)getnameinfo(sa, n, host, sizeof(host), port, sizeof(port),
                      NI_NUMERICHOST | NI_NUMERICSERV);
    str_copy(g->host, sizeof(g->host), str_starts(host, "::ffff:") ? host + 7 : host);
    snprintf(g->peer.address, sizeof(g->peer.address),
             strchr(g->host, ':') ? "[%s]:%s" : "%s:%s", g->host, port);
}

/* NULL: it may come in. */
static const char *too_many(struct doors *o, const char *host)
{
    unsigned same = 0;
    if (o->n_guests >= (unsigned)o->d->opt.tls_max) {
        return "too many connections";
    }
    list_for_each (n, &o->guests) {
        same += strcmp(list_entry(n, struct guest, link)->host, host) == 0;
    }
    return same >= (unsigned)o->d->opt.tls_max_peer ? "too many connections from this address"
                                                    : NULL;
}

/* Makes room for one more handshake: the oldest one has had its chance. */
static void make_room(struct doors *o)
{
    if (o->n_pending < PENDING_MAX) {
        return;
    }
    list_for_each_safe (n, &o->guests) {
        struct guest *g = list_entry(n, struct guest, link);
        if (!g->inside) {
            doors_refuse(o, g->peer.address, "tls.connect",
                         "its handshake gave way: too many are under way");
            guest_free(g);
            return;
        }
    }
}

static void set_tcp_options(int fd)
{
    int on = 1, idle = 60, every = 15, count = 4;
    unsigned timeout_ms = 60000;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof(every));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
}

static void receive(const struct door *k, int owned_fd, const struct sockaddr *sa, socklen_t n)
{
    AUTO_FD fd = owned_fd;
    struct guest *g = xnew(struct guest);
    struct doors *o = k->o;
    struct err e = ERR_INIT;
    g->o = o;
    g->libvirt = k->libvirt;
    g->peer.uid = (uid_t)-1;
    g->peer.gid = (gid_t)-1;
    g->peer.principal = -1;
    name_address(sa, n, g);
    const char *why = too_many(o, g->host);
    struct ssl_st *ssl = why ? NULL : tls_accept_new(o->ctx, fd, &e);
    if (!ssl) {
        doors_refuse(o, g->peer.address, "tls.connect", why ? why : e.msg);
        free(g);
        return;
    }
    make_room(o);
    set_tcp_options(fd);
    g->tunnel = tunnel_new(o->d->loop, take_fd(&fd), ssl, HANDSHAKE_NS, true, &guest_ops, g);
    list_append(&o->guests, &g->link);
    o->n_guests++;
    o->n_pending++;
}

static void on_acceptable(void *arg, int fd, unsigned events)
{
    struct door *k = arg;
    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        struct sockaddr_storage at;
        socklen_t n = sizeof(at);
        int client = accept4(fd, (struct sockaddr *)&at, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (client >= 0) {
            receive(k, client, (struct sockaddr *)&at, n);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            loop_fd_set(k->watch, 0);
            loop_timer_arm(k->again, PAUSE_NS);
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return;
        }
    }
}

static void on_again(void *arg)
{
    struct door *k = arg;
    loop_fd_set(k->watch, LOOP_READ);
}

/* ---- listening ---- */

static int listen_one(struct doors *o, const struct addrinfo *a, const char *text, bool libvirt,
                      struct err *e)
{
    int on = 1;
    AUTO_FD fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (o->n_doors == ARRAY_LEN(o->doors)) {
        return err_set(e, -ENOSPC, "more than %zu addresses to listen on", ARRAY_LEN(o->doors));
    }
    if (fd < 0) {
        return err_errno(e, errno, "cannot make a socket to listen on %s", text);
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (a->ai_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    }
    if (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, 512) < 0) {
        return err_errno(e, errno, "cannot listen on %s", text);
    }
    struct door *k = &o->doors[o->n_doors++];
    k->o = o;
    k->libvirt = libvirt;
    k->fd = take_fd(&fd);
    k->watch = loop_fd_new(o->d->loop, k->fd, LOOP_READ, on_acceptable, k);
    k->again = loop_timer_new(o->d->loop, on_again, k);
    return 0;
}

static int listen_on(struct doors *o, const char *text, bool libvirt, struct err *e)
{
    struct addrinfo want = { .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
    struct addrinfo *found = NULL;
    AUTO_FREE char *host = NULL;
    char port[16];
    int number, rc = tls_parse_address_at(text, libvirt ? LIBVIRT_TLS_PORT : TLS_PORT, &host,
                                          &number, e);
    if (rc < 0) {
        return rc;
    }
    snprintf(port, sizeof(port), "%d", number);
    rc = getaddrinfo(strcmp(host, "*") == 0 ? NULL : host, port, &want, &found);
    if (rc != 0) {
        return err_set(e, -ENOENT, "cannot listen on '%s': %s", text, gai_strerror(rc));
    }
    rc = 0;
    for (struct addrinfo *a = found; a && rc == 0; a = a->ai_next) {
        rc = listen_one(o, a, text, libvirt, e);
    }
    freeaddrinfo(found);
    return rc;
}

static void stop_listening(struct doors *o)
{
    while (o->n_doors > 0) {
        struct door *k = &o->doors[--o->n_doors];
        loop_fd_free(k->watch);
        loop_timer_free(k->again);
        close(k->fd);
    }
}

char *doors_address(const struct doors *o, unsigned i)
{
    struct sockaddr_storage at;
    socklen_t n = sizeof(at);
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (!o || i >= o->n_doors || getsockname(o->doors[i].fd, (struct sockaddr *)&at, &n) < 0 ||
        getnameinfo((struct sockaddr *)&at, n, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return NULL;
    }
    return xasprintf(strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

/* ---- certificates ---- */

char *doors_file(const struct vmd *d, const char *name)
{
    const struct vmd_options *o = &d->opt;
    const char *given = strcmp(name, "ca.pem") == 0       ? o->tls_ca
                        : strcmp(name, "server.pem") == 0 ? o->tls_cert
                        : strcmp(name, "server.key") == 0 ? o->tls_key
                                                          : o->tls_crl;
    if (!o->tls_builtin) {
        return given ? xstrdup(given) : NULL;
    }
    return strcmp(name, "crl.pem") == 0 ? NULL : xasprintf("%s/%s", o->tls_dir, name);
}

static struct tls_ctx *new_ctx(struct doors *o, struct err *e)
{
    AUTO_FREE char *ca = doors_file(o->d, "ca.pem"), *cert = doors_file(o->d, "server.pem");
    AUTO_FREE char *key = doors_file(o->d, "server.key"), *crl = doors_file(o->d, "crl.pem");
    struct tls_files f = { .ca = ca, .cert = cert, .key = key, .crl = crl };
    return tls_server_new(&f, access_judge, o->d, e);
}

static struct tls_ctx *new_public(struct doors *o, struct err *e)
{
    AUTO_FREE char *cert = doors_file(o->d, "server.pem"),
                   *key = doors_file(o->d, "server.key");
    struct tls_files f = { .cert = cert, .key = key };
    return tls_public_new(&f, e);
}

struct ssl_st *doors_accept_viewer(struct doors *o, int fd, struct err *e)
{
    if (!o->public) {
        err_set(e, -ENOENT, "the daemon has no certificate; 'vmctl host init-tls' makes one");
        return NULL;
    }
    return tls_accept_new(o->public, fd, e);
}

static int listen_all(struct doors *o, struct err *e)
{
    const struct vmd_options *k = &o->d->opt;
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < k->n_listen; i++) {
        rc = listen_on(o, k->listen[i], false, e);
    }
    if (rc == 0 && k->libvirt_tls) {
        rc = listen_on(o, k->libvirt_tls, true, e);
    }
    if (rc < 0) {
        stop_listening(o);
    }
    return rc;
}

static int load(struct doors *o, unsigned *dropped, struct err *e)
{
    const struct vmd_options *k = &o->d->opt;
    if (k->tls_builtin && !ca_there(k->tls_dir)) {
        if (k->n_listen || k->libvirt_tls) {
            log_warn("access",
                     "not listening for TLS yet: there is no certificate; 'vmctl host "
                     "init-tls' makes one");
        }
        return 0;
    }
    struct tls_ctx *fresh = new_ctx(o, e), *public = fresh ? new_public(o, e) : NULL;
    if (!public) {
        tls_ctx_free(fresh);
        return e->code;
    }
    tls_ctx_free(o->ctx);
    tls_ctx_free(o->public);
    o->ctx = fresh;
    o->public = public;
    int rc = o->n_doors == 0 && !o->draining ? listen_all(o, e) : 0;
    if (rc < 0) {
        return rc;
    }
    unsigned n = doors_recheck(o);
    if (dropped) {
        *dropped = n;
    }
    return 0;
}

int doors_load(struct doors *o, unsigned *dropped, struct err *e)
{
    int rc = load(o, dropped, e);
    return rc < 0 ? rc : web_load(o->d->web, e);
}

/* ---- who may stay ---- */

static const char *must_go(struct guest *g)
{
    struct vmd *d = g->o->d;
    struct x509_st *cert = tls_peer_cert(tunnel_ssl(g->tunnel));
    bool revoked = false;
    if (g->not_after <= (int64_t)time(NULL)) {
        return "its certificate expired while it was connected";
    }
    const char *why = cert ? access_judge(d, cert, &revoked) : "it has no certificate";
    return why ? why : tls_still_good(g->o->ctx, tunnel_ssl(g->tunnel));
}

static void fix_role(void *arg, struct rpc_session *s)
{
    struct vmd *d = arg;
    if (s->peer.user[0]) {
        enum api_role role = access_role_anywhere(d, &s->peer);
        s->role = role < s->most ? role : s->most;
    }
}

unsigned doors_recheck(struct doors *o)
{
    unsigned n = 0;
    if (!o) {
        return 0;
    }
    list_for_each_safe (it, &o->guests) {
        struct guest *g = list_entry(it, struct guest, link);
        const char *why = g->inside && g->peer.user[0] ? must_go(g) : NULL;
        if (why) {
            drop(g, why);
            n++;
        }
    }
    n += web_recheck(o->d->web);
    rpc_server_each(o->d->server, fix_role, o->d);
    return n;
}

/* Certificates expire by the clock on the wall, which may jump: so it is looked at, not waited for. */
static void on_sweep(void *arg)
{
    struct doors *o = arg;
    list_for_each_safe (it, &o->guests) {
        struct guest *g = list_entry(it, struct guest, link);
        if (g->inside && g->peer.user[0] && g->not_after <= (int64_t)time(NULL)) {
            drop(g, "its certificate expired while it was connected");
        }
    }
    loop_timer_arm(o->sweep, SWEEP_NS);
}

unsigned doors_count(const struct doors *o, const char *user, const char *cert)
{
    unsigned n = 0;
    if (!o) {
        return 0;
    }
    list_for_each (it, &o->guests) {
        const struct guest *g = list_entry(it, struct guest, link);
        n += g->inside && (!user || strcmp(g->peer.user, user) == 0) &&
             (!cert || strcmp(g->peer.cert, cert) == 0);
    }
    return n;
}

struct tunnel *doors_joining(const struct doors *o, const char *address)
{
    list_for_each (it, &o->guests) {
        const struct guest *g = list_entry(it, struct guest, link);
        if (g->inside && g->proto == TLS_PROTO_JOIN && strcmp(g->peer.address, address) == 0) {
            return g->tunnel;
        }
    }
    return NULL;
}

int64_t doors_refused(const struct doors *o)
{
    return o ? o->refused : 0;
}

/* ---- begin and end ---- */

struct doors *doors_new(struct vmd *d)
{
    struct doors *o = xnew(struct doors);
    o->d = d;
    o->credit = TOLD_BURST;
    o->credit_ns = time_mono_ns();
    list_init(&o->guests);
    o->sweep = loop_timer_new(d->loop, on_sweep, o);
    loop_timer_arm(o->sweep, SWEEP_NS);
    return o;
}

void doors_drain(struct doors *o)
{
    if (o) {
        o->draining = true;
        stop_listening(o);
    }
}

void doors_free(struct doors *o)
{
    if (!o) {
        return;
    }
    stop_listening(o);
    while (!list_empty(&o->guests)) {
        guest_free(list_entry(o->guests.next, struct guest, link));
    }
    loop_timer_free(o->sweep);
    tls_ctx_free(o->ctx);
    tls_ctx_free(o->public);
    free(o);
}
