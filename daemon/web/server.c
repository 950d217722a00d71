/* SPDX-License-Identifier: Apache-2.0 */
/* The listener of the web console, its certificate, and who has to go. Owns the context, the listening descriptors, the
 * sessions and the connections. Loop thread. */
#include "daemon/web/web.h"

#include "api-schema/tls/tls.h"
#include "daemon/auth/ca.h"
#include "daemon/auth/listen.h"
#include "daemon/daemon.h"
#include "daemon/web/conn.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNS_MAX 128
#define ACCEPTS_A_TURN 8
#define SWEEP_NS INT64_C(1000000000)
#define PAUSE_NS INT64_C(100000000)

/* Room for one more: whoever is connected longest without a websocket has had its chance. */
static bool make_room(struct web *w)
{
    if (w->n_conns < CONNS_MAX) {
        return true;
    }
    list_for_each_safe (n, &w->conns) {
        struct web_conn *c = list_entry(n, struct web_conn, link);
        if (c->back < 0) {
            doors_refuse(w->d->doors, c->peer.address, "web.connect",
                         "it gave way: too many are connected");
            web_conn_free(c);
            return true;
        }
    }
    return false;
}

static void name_address(const struct sockaddr *sa, socklen_t n, char *out, size_t size)
{
    char host[NI_MAXHOST] = "?", port[NI_MAXSERV] = "0";
    (void)getnameinfo(sa, n, host, sizeof(host), port, sizeof(port),
                      NI_NUMERICHOST | NI_NUMERICSERV);
    host[45] = 0; /* the longest address */
    snprintf(out, size, strchr(host, ':') ? "[%.45s]:%.5s" : "%.45s:%.5s", host, port);
}

static void receive(struct web *w, int owned_fd, const struct sockaddr *sa, socklen_t n)
{
    AUTO_FD fd = owned_fd;
    struct err e = ERR_INIT;
    char address[64];
    int on = 1;
    unsigned timeout_ms = 60000;
    name_address(sa, n, address, sizeof(address));
    struct ssl_st *ssl = make_room(w) ? tls_accept_new(w->ctx, fd, &e) : NULL;
    if (!ssl) {
        doors_refuse(w->d->doors, address, "web.connect",
                     e.code ? e.msg : "too many connections");
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
    web_conn_new(w, take_fd(&fd), ssl, address);
}

static void on_acceptable(void *arg, int fd, unsigned events)
{
    struct web_door *k = arg;
    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        struct sockaddr_storage at;
        socklen_t n = sizeof(at);
        int client = accept4(fd, (struct sockaddr *)&at, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (client >= 0) {
            receive(k->w, client, (struct sockaddr *)&at, n);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            loop_fd_set(k->watch, 0);
            loop_timer_arm(k->w->again, PAUSE_NS);
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return;
        }
    }
}

/* Descriptors had run out. */
static void on_again(void *arg)
{
    struct web *w = arg;
    for (unsigned i = 0; i < w->n_doors; i++) {
        loop_fd_set(w->doors[i].watch, LOOP_READ);
    }
}

/* ---- listening ---- */

static int listen_one(struct web *w, const struct addrinfo *a, struct err *e)
{
    int on = 1;
    AUTO_FD fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return err_errno(e, errno, "cannot make a socket for the web console");
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (a->ai_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    }
    if (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, 128) < 0) {
        return err_errno(e, errno, "cannot serve the web console on %s", w->d->opt.web);
    }
    struct web_door *k = &w->doors[w->n_doors++];
    k->w = w;
    k->fd = take_fd(&fd);
    k->watch = loop_fd_new(w->d->loop, k->fd, LOOP_READ, on_acceptable, k);
    return 0;
}

static void stop_listening(struct web *w)
{
    while (w->n_doors > 0) {
        struct web_door *k = &w->doors[--w->n_doors];
        loop_fd_free(k->watch);
        close(k->fd);
    }
}

static int listen_all(struct web *w, struct err *e)
{
    struct addrinfo want = { .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
    struct addrinfo *found = NULL;
    AUTO_FREE char *host = NULL;
    char port[16];
    int number, rc = tls_parse_address_at(w->d->opt.web, WEB_PORT, &host, &number, e);
    if (rc < 0) {
        return rc;
    }
    snprintf(port, sizeof(port), "%d", number);
    rc = getaddrinfo(strcmp(host, "*") == 0 ? NULL : host, port, &want, &found);
    if (rc != 0) {
        return err_set(e, -ENOENT, "cannot serve the web console on '%s': %s", w->d->opt.web,
                       gai_strerror(rc));
    }
    for (struct addrinfo *a = found; a && rc == 0 && w->n_doors < WEB_DOORS; a = a->ai_next) {
        rc = listen_one(w, a, e);
    }
    freeaddrinfo(found);
    if (rc < 0) {
        stop_listening(w);
    } else {
        log_info("access", "the web console is at https://%s", w->d->opt.web);
    }
    return rc;
}

int web_load(struct web *w, struct err *e)
{
    if (!w) {
        return 0;
    }
    if (w->d->opt.tls_builtin && !ca_there(w->d->opt.tls_dir)) {
        log_warn(
            "access",
            "no web console yet: there is no certificate; 'vmctl host init-tls' makes one");
        return 0;
    }
    AUTO_FREE char *cert = doors_file(w->d, "server.pem"),
                   *key = doors_file(w->d, "server.key");
    struct tls_files f = { .cert = cert, .key = key };
    struct tls_ctx *fresh = tls_web_new(&f, e);
    if (!fresh) {
        return e->code;
    }
    tls_ctx_free(w->ctx);
    w->ctx = fresh;
    return w->n_doors == 0 && !w->draining ? listen_all(w, e) : 0;
}

/* ---- who may stay ---- */

unsigned web_recheck(struct web *w)
{
    unsigned n = 0;
    if (!w) {
        return 0;
    }
    for (unsigned i = 0; i < WEB_SESSIONS; i++) {
        struct web_session *k = &w->sessions.all[i];
        if (k->secret[0] && !web_session_good(&w->sessions, k)) {
            memset(k, 0, sizeof(*k));
            n++;
        }
    }
    list_for_each_safe (it, &w->conns) {
        struct web_conn *c = list_entry(it, struct web_conn, link);
        if (c->back >= 0 && !web_session_of(&w->sessions, c->session)) {
            web_conn_free(c);
        }
    }
    return n;
}

static void on_sweep(void *arg)
{
    struct web *w = arg;
    web_recheck(w);
    loop_timer_arm(w->sweep, SWEEP_NS);
}

/* ---- begin and end ---- */

struct web *web_new(struct vmd *d)
{
    struct web *w = xnew(struct web);
    w->d = w->sessions.d = d;
    list_init(&w->conns);
    w->sweep = loop_timer_new(d->loop, on_sweep, w);
    w->again = loop_timer_new(d->loop, on_again, w);
    loop_timer_arm(w->sweep, SWEEP_NS);
    return w;
}

void web_drain(struct web *w)
{
    if (w) {
        w->draining = true;
        stop_listening(w);
    }
}

void web_free(struct web *w)
{
    if (!w) {
        return;
    }
    stop_listening(w);
    while (!list_empty(&w->conns)) {
        web_conn_free(list_entry(w->conns.next, struct web_conn, link));
    }
    loop_timer_free(w->sweep);
    loop_timer_free(w->again);
    tls_ctx_free(w->ctx);
    OPENSSL_cleanse(&w->sessions, sizeof(w->sessions));
    free(w);
}
