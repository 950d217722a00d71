/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A TLS connection with a thread that drives its tunnel. `lock` protects ended and why; the loop and the
 * tunnel belong to the thread once it runs.
 */
#include "api-schema/tls/link.h"

#include "api-schema/tls/tunnel.h"
#include "engine/base/fd.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct tls_link {
    struct loop *loop;
    struct tls_ctx *ctx;
    struct tunnel *tunnel;
    pthread_t thread;
    int plain, inner; /* the caller's end, the tunnel's until attached */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool running, ready, ended;
    struct err why;
};

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

/* --- TCP ---------------------------------------------------------------------------------- */

static int connect_one(const struct addrinfo *a, int64_t deadline, int *error)
{
    AUTO_FD fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct pollfd p = { .events = POLLOUT };
    socklen_t n = sizeof(*error);
    int64_t left = deadline - now_ms();

    if (fd < 0 || (connect(fd, a->ai_addr, a->ai_addrlen) < 0 && errno != EINPROGRESS)) {
        *error = errno;
        return -1;
    }
    p.fd = fd;
    if (left <= 0 || poll(&p, 1, (int)left) == 0) {
        *error = ETIMEDOUT;
        return -1;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, error, &n) < 0 || *error) {
        return -1;
    }
    return take_fd(&fd);
}

static void set_tcp_options(int fd)
{
    int on = 1, idle = 60, every = 15, count = 4;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof(every));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

static int connect_tcp(const struct tls_target *to, int64_t deadline, struct err *e)
{
    struct addrinfo want = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
    struct addrinfo *found = NULL;
    char port[16];
    int error = 0, fd = -1, rc;

    snprintf(port, sizeof(port), "%d", to->port);
    rc = getaddrinfo(to->host, port, &want, &found);
    if (rc != 0) {
        return err_set(e, -ENOENT, "'%s' has no address: %s", to->host, gai_strerror(rc));
    }
    for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
        fd = connect_one(a, deadline, &error);
    }
    freeaddrinfo(found);
    if (fd < 0) {
        return err_errno(e, error, "cannot connect to %s port %d", to->host, to->port);
    }
    set_tcp_options(fd);
    return fd;
}

/* --- the thread --------------------------------------------------------------------------- */

static void mark(struct tls_link *k, bool ended, const struct err *why)
{
    pthread_mutex_lock(&k->lock);
    k->ready = true;
    if (ended && !k->ended) {
        k->ended = true;
        k->why = why ? *why : (struct err)ERR_INIT;
    }
    pthread_cond_broadcast(&k->changed);
    pthread_mutex_unlock(&k->lock);
}

static void on_ready(void *arg, struct tunnel *t)
{
    struct tls_link *k = arg;

    tunnel_attach(t, take_fd(&k->inner));
    mark(k, false, NULL);
}

static void on_closed(void *arg, struct tunnel *t, const struct err *why)
{
    struct tls_link *k = arg;

    mark(k, true, why);
    k->tunnel = NULL;
    tunnel_free(t);
    loop_quit(k->loop);
}

static const struct tunnel_ops ops = { .ready = on_ready, .closed = on_closed };

static void *run(void *arg)
{
    struct tls_link *k = arg;

    (void)loop_run(k->loop, NULL);
    mark(k, true, NULL);
    return NULL;
}

/* Signals are for the thread that the program knows of. */
static int start_thread(struct tls_link *k, struct err *e)
{
    sigset_t all, old;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = pthread_create(&k->thread, NULL, run, k);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0) {
        return err_errno(e, rc, "cannot start a thread");
    }
    k->running = true;
    return 0;
}

/* --- opening and closing ------------------------------------------------------------------ */

static void until(struct timespec *t, int64_t ms)
{
    clock_gettime(CLOCK_MONOTONIC, t);
    t->tv_sec += ms / 1000;
    t->tv_nsec += ms % 1000 * 1000000;
    if (t->tv_nsec >= 1000000000) {
        t->tv_sec++;
        t->tv_nsec -= 1000000000;
    }
}

static int begin(struct tls_link *k, const struct tls_target *to, enum tls_proto proto,
                 int64_t deadline, struct err *e)
{
    AUTO_FD fd = -1;
    struct ssl_st *ssl;
    int pair[2], rc;

    k->ctx = tls_client_new(&to->files, e);
    k->loop = k->ctx ? loop_new(e) : NULL;
    if (!k->loop) {
        return -1;
    }
    fd = connect_tcp(to, deadline, e);
    if (fd < 0) {
        return -1;
    }
    ssl = tls_connect_new(k->ctx, fd, to->name ? to->name : to->host, proto, to->ca_pin, e);
    if (!ssl) {
        return -1;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        tls_ssl_free(ssl);
        return err_errno(e, errno, "cannot make a socket pair");
    }
    k->plain = pair[0];
    k->inner = pair[1];
    rc = (int)(deadline - now_ms());
    k->tunnel = tunnel_new(k->loop, take_fd(&fd), ssl, (rc > 1 ? rc : 1) * INT64_C(1000000),
                           false, &ops, k);
    return start_thread(k, e);
}

struct tls_link *tls_link_open(const struct tls_target *to, enum tls_proto proto,
                               int timeout_ms, struct err *e)
{
    struct tls_link *k = xnew(struct tls_link);
    pthread_condattr_t attr;

    k->plain = k->inner = -1;
    pthread_mutex_init(&k->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&k->changed, &attr);
    pthread_condattr_destroy(&attr);
    if (begin(k, to, proto, now_ms() + timeout_ms, e) < 0) {
        tls_link_close(k);
        return NULL;
    }
    pthread_mutex_lock(&k->lock);
    while (!k->ready) {
        pthread_cond_wait(&k->changed, &k->lock);
    }
    pthread_mutex_unlock(&k->lock);
    if (k->ended) {
        err_set(e, k->why.code ? k->why.code : -EPIPE, "%s port %d: %s", to->host, to->port,
                k->why.code ? k->why.msg : "the connection was closed");
        tls_link_close(k);
        return NULL;
    }
    return k;
}

int tls_link_take_fd(struct tls_link *k)
{
    return take_fd(&k->plain);
}

int tls_link_why(struct tls_link *k, int wait_ms, struct err *e)
{
    struct timespec end;
    int rc = 0;

    until(&end, wait_ms);
    pthread_mutex_lock(&k->lock);
    while (!k->ended && rc == 0) {
        rc = pthread_cond_timedwait(&k->changed, &k->lock, &end);
    }
    rc = k->ended ? 0 : -EAGAIN;
    if (rc == 0) {
        *e = k->why;
    }
    pthread_mutex_unlock(&k->lock);
    return rc;
}

static void stop(void *arg)
{
    struct tls_link *k = arg;

    if (k->inner >= 0) {
        loop_quit(k->loop); /* the handshake is not done: nothing to say good-bye to */
    }
}

void tls_link_close(struct tls_link *k)
{
    if (!k) {
        return;
    }
    if (k->plain >= 0) {
        close(k->plain);
    }
    if (k->running) {
        loop_post(k->loop, stop, k);
        pthread_join(k->thread, NULL);
    }
    tunnel_free(k->tunnel);
    if (k->inner >= 0) {
        close(k->inner);
    }
    loop_free(k->loop);
    tls_ctx_free(k->ctx);
    pthread_cond_destroy(&k->changed);
    pthread_mutex_destroy(&k->lock);
    free(k);
}
