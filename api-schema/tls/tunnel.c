/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pump between TLS and a plain descriptor. Owns both descriptors, the connection of openssl and
 * one timer, which serves one deadline after the other. One thread: that of the loop.
 */
#include "api-schema/tls/tunnel.h"

#include "api-schema/tls/tls.h"
#include "engine/base/fd.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SIZE = 16384, ROUNDS = 8 /* then other connections have their turn */ };

static const int64_t linger_ns = 2 * INT64_C(1000000000);
static const int64_t flush_ns = 10 * INT64_C(1000000000);

enum phase { HANDSHAKE, IDLE, LINE, PUMP, FAREWELL, OVER };

struct pipe {
    char data[SIZE];
    size_t at, len; /* data[at .. at+len) waits */
};

struct tunnel {
    struct loop *loop;
    SSL *ssl;
    int fd, plain;
    struct loop_fd *watch, *plain_watch;
    struct loop_timer *timer, *kick;
    const struct tunnel_ops *ops;
    void *arg;
    int64_t deadline_ns;
    enum phase phase;
    struct pipe in, out;        /* from TLS, to TLS */
    unsigned read_on, write_on; /* what openssl waits for to go on reading, writing */
    bool tls_eof, plain_eof;    /* that side sends no more */
    bool told_plain, told_tls;  /* and the other side knows */
    bool plain_dead;            /* takes nothing any more */
    bool linger, freed;
    unsigned busy;
    uint64_t bytes;
    struct err why;
};

static void pump(struct tunnel *t);

struct ssl_st *tunnel_ssl(const struct tunnel *t)
{
    return t->ssl;
}

uint64_t tunnel_bytes(const struct tunnel *t)
{
    return t->bytes;
}

static void destroy(struct tunnel *t)
{
    loop_fd_free(t->watch);
    loop_fd_free(t->plain_watch);
    loop_timer_free(t->timer);
    loop_timer_free(t->kick);
    t->watch = t->plain_watch = NULL;
    t->timer = t->kick = NULL;
    tls_ssl_free(t->ssl);
    t->ssl = NULL;
    close(t->fd);
    if (t->plain >= 0) {
        close(t->plain);
    }
    t->fd = t->plain = -1;
}

static void leave(struct tunnel *t)
{
    if (--t->busy == 0 && t->freed) {
        free(t);
    }
}

void tunnel_free(struct tunnel *t)
{
    if (!t || t->freed) {
        return;
    }
    t->freed = true;
    destroy(t);
    if (t->busy == 0) {
        free(t);
    }
}

/* Ends; the owner is told from the loop. */
static void over(struct tunnel *t, const struct err *why)
{
    if (t->phase == OVER) {
        return;
    }
    t->phase = OVER;
    if (why) {
        t->why = *why;
    }
    loop_fd_set(t->watch, 0);
    if (t->plain_watch) {
        loop_fd_set(t->plain_watch, 0);
    }
    loop_timer_disarm(t->timer);
    loop_timer_arm(t->kick, 0);
}

void tunnel_break(struct tunnel *t, const struct err *why)
{
    over(t, why);
}

/* --- reading and writing ------------------------------------------------------------------ */

/* After a call of openssl gave ret <= 0: false when the connection is over. */
static bool wait_or_end(struct tunnel *t, int ret, int errnum, unsigned *on)
{
    int kind = SSL_get_error(t->ssl, ret);
    struct err e = ERR_INIT;

    if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE) {
        *on = kind == SSL_ERROR_WANT_READ ? LOOP_READ : LOOP_WRITE;
        return true;
    }
    tls_why(t->ssl, ret, errnum, &e);
    over(t, &e);
    return false;
}

static bool tls_read(struct tunnel *t)
{
    int n;

    if (t->in.len > 0 && t->in.at > 0) {
        memmove(t->in.data, t->in.data + t->in.at, t->in.len);
    }
    t->in.at = 0;
    errno = 0;
    ERR_clear_error();
    n = SSL_read(t->ssl, t->in.data + t->in.len, (int)(SIZE - t->in.len));
    if (n > 0) {
        t->in.len += (size_t)n;
        t->bytes += (uint64_t)n;
        return true;
    }
    if (SSL_get_error(t->ssl, n) == SSL_ERROR_ZERO_RETURN) {
        t->tls_eof = true;
        return true;
    }
    wait_or_end(t, n, errno, &t->read_on);
    return false;
}

static bool tls_write(struct tunnel *t)
{
    int n;

    errno = 0;
    ERR_clear_error();
    n = SSL_write(t->ssl, t->out.data + t->out.at, (int)t->out.len);
    if (n > 0) {
        t->out.at += (size_t)n;
        t->out.len -= (size_t)n;
        t->bytes += (uint64_t)n;
        return true;
    }
    wait_or_end(t, n, errno, &t->write_on);
    return false;
}

static bool plain_read(struct tunnel *t)
{
    ssize_t n = recv(t->plain, t->out.data, SIZE, MSG_DONTWAIT);

    if (n > 0) {
        t->out.at = 0;
        t->out.len = (size_t)n;
        return true;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
    }
    t->plain_eof = true; /* also when it failed: there is no more */
    return true;
}

static bool plain_write(struct tunnel *t)
{
    ssize_t n = send(t->plain, t->in.data + t->in.at, t->in.len, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n > 0) {
        t->in.at += (size_t)n;
        t->in.len -= (size_t)n;
        return true;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
    }
    t->plain_dead = true;
    t->in.len = 0;
    return true;
}

/* --- phases ------------------------------------------------------------------------------- */

static void handshake(struct tunnel *t)
{
    int n;

    errno = 0;
    ERR_clear_error();
    n = SSL_do_handshake(t->ssl);
    if (n == 1) {
        t->phase = IDLE;
        loop_timer_disarm(t->timer);
        loop_fd_set(t->watch, 0);
        t->read_on = LOOP_READ;
        t->write_on = LOOP_WRITE;
        t->ops->ready(t->arg, t);
    } else if (wait_or_end(t, n, errno, &t->read_on)) {
        loop_fd_set(t->watch, t->read_on);
    }
}

static void got_line(struct tunnel *t, char *end)
{
    size_t n = (size_t)(end - t->in.data);
    AUTO_FREE char *text = xmemdup(t->in.data, n + 1); /* there may be zeros in it */

    text[n] = 0;
    t->in.len -= n + 1;
    t->in.at = n + 1;
    t->phase = IDLE;
    loop_timer_disarm(t->timer);
    loop_fd_set(t->watch, 0);
    if (n > 0 && text[n - 1] == '\r') {
        text[--n] = 0;
    }
    t->ops->line(t->arg, t, text, n);
}

static void read_line(struct tunnel *t)
{
    struct err e = ERR_INIT;

    while (t->phase == LINE) {
        char *end = memchr(t->in.data, '\n', t->in.len);

        if (end) {
            got_line(t, end);
            return;
        }
        if (t->in.len == SIZE) {
            err_set(&e, -EMSGSIZE, "its first line exceeds %d bytes", TUNNEL_LINE_MAX);
            over(t, &e);
        } else if (t->tls_eof) {
            err_set(&e, -EPIPE, "it ended before it said what it wants");
            over(t, &e);
        } else if (!tls_read(t)) {
            break;
        }
    }
    if (t->phase == LINE) {
        loop_fd_set(t->watch, t->read_on);
    }
}

/* Everything is said: close_notify, then, when asked to, wait until the other side closes. */
static void farewell(struct tunnel *t)
{
    char scrap[4096];
    ssize_t n;

    if (!t->told_tls && t->out.len > 0) {
        if (!tls_write(t)) {
            if (t->phase == FAREWELL) {
                loop_fd_set(t->watch, t->write_on);
            }
            return;
        }
        loop_timer_arm(t->kick, 0);
        return;
    }
    if (!t->told_tls) {
        t->told_tls = true;
        ERR_clear_error();
        (void)SSL_shutdown(t->ssl);
        if (!t->linger) {
            over(t, NULL);
            return;
        }
        shutdown(t->fd, SHUT_WR);
        loop_timer_arm(t->timer, linger_ns);
        loop_fd_set(t->watch, LOOP_READ);
    }
    n = recv(t->fd, scrap, sizeof(scrap), MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        over(t, NULL);
    }
}

static void begin_farewell(struct tunnel *t)
{
    t->phase = FAREWELL;
    if (t->plain_watch) {
        loop_fd_set(t->plain_watch, 0);
    }
    loop_timer_arm(t->timer, flush_ns);
    farewell(t);
}

/* One step each way; true when something moved. */
static bool step(struct tunnel *t)
{
    bool moved = false;

    if (t->in.len == 0 && !t->tls_eof && t->phase == PUMP) {
        moved |= tls_read(t);
    }
    if (t->in.len > 0 && !t->plain_dead) {
        moved |= plain_write(t);
    } else if (t->plain_dead) {
        t->in.len = 0;
    }
    if (t->tls_eof && t->in.len == 0 && !t->told_plain) {
        t->told_plain = true;
        shutdown(t->plain, SHUT_WR);
    }
    if (t->phase == PUMP && t->out.len == 0 && !t->plain_eof) {
        moved |= plain_read(t);
    }
    if (t->phase == PUMP && t->out.len > 0) {
        moved |= tls_write(t);
    }
    return moved;
}

static void pump(struct tunnel *t)
{
    unsigned tls = 0, plain = 0;
    bool moved = true;

    for (int i = 0; i < ROUNDS && moved && t->phase == PUMP; i++) {
        moved = step(t);
        if (t->phase == PUMP && t->plain_eof && t->out.len == 0) {
            begin_farewell(t);
        }
    }
    if (t->phase != PUMP) {
        return;
    }
    if (moved) {
        loop_timer_arm(t->kick, 0);
    }
    tls |= t->in.len == 0 && !t->tls_eof ? t->read_on : 0;
    tls |= t->out.len > 0 ? t->write_on : 0;
    plain |= t->out.len == 0 && !t->plain_eof ? LOOP_READ : 0;
    plain |= t->in.len > 0 ? LOOP_WRITE : 0;
    loop_fd_set(t->watch, tls);
    loop_fd_set(t->plain_watch, plain);
}

static void turn(struct tunnel *t)
{
    t->busy++;
    switch (t->phase) {
    case HANDSHAKE:
        handshake(t);
        break;
    case LINE:
        read_line(t);
        break;
    case PUMP:
        pump(t);
        break;
    case FAREWELL:
        farewell(t);
        break;
    default:
        break;
    }
    leave(t);
}

static void on_fd(void *arg, int fd, unsigned events)
{
    struct tunnel *t = arg;

    (void)fd;
    (void)events;
    t->read_on = t->phase == HANDSHAKE ? t->read_on : LOOP_READ;
    t->write_on = LOOP_WRITE;
    turn(t);
}

static void on_kick(void *arg)
{
    struct tunnel *t = arg;

    if (t->phase != OVER) {
        turn(t);
        return;
    }
    t->busy++;
    t->ops->closed(t->arg, t, &t->why);
    leave(t);
}

static void on_timer(void *arg)
{
    struct tunnel *t = arg;
    struct err e = ERR_INIT;

    if (t->phase == HANDSHAKE) {
        err_set(&e, -ETIMEDOUT, "the TLS handshake was not finished in time");
    } else if (t->phase == LINE) {
        err_set(&e, -ETIMEDOUT, "it did not say in time what it wants");
    }
    over(t, e.code ? &e : NULL);
}

struct tunnel *tunnel_new(struct loop *l, int owned_fd, struct ssl_st *take_ssl,
                          int64_t deadline_ns, bool linger, const struct tunnel_ops *ops,
                          void *arg)
{
    struct tunnel *t = xnew(struct tunnel);

    t->loop = l;
    t->fd = owned_fd;
    t->plain = -1;
    t->ssl = take_ssl;
    t->ops = ops;
    t->arg = arg;
    t->deadline_ns = deadline_ns;
    t->linger = linger;
    t->read_on = LOOP_READ;
    t->write_on = LOOP_WRITE;
    t->timer = loop_timer_new(l, on_timer, t);
    t->kick = loop_timer_new(l, on_kick, t);
    t->watch = loop_fd_new(l, t->fd, 0, on_fd, t);
    loop_timer_arm(t->timer, deadline_ns);
    loop_timer_arm(t->kick, 0);
    return t;
}

void tunnel_read_line(struct tunnel *t)
{
    t->phase = LINE;
    loop_timer_arm(t->timer, t->deadline_ns);
    loop_timer_arm(t->kick, 0);
}

void tunnel_say(struct tunnel *t, const char *text, size_t n)
{
    n = n > SIZE - t->out.len ? SIZE - t->out.len : n;
    memcpy(t->out.data + t->out.len, text, n);
    t->out.len += n;
}

void tunnel_attach(struct tunnel *t, int owned_fd)
{
    if (t->phase == OVER) {
        close(owned_fd);
        return;
    }
    fd_set_nonblock(owned_fd, true, NULL);
    t->plain = owned_fd;
    t->plain_watch = loop_fd_new(t->loop, owned_fd, 0, on_fd, t);
    t->phase = PUMP;
    loop_timer_arm(t->kick, 0);
}

void tunnel_finish(struct tunnel *t)
{
    if (t->phase != OVER) {
        t->busy++;
        begin_farewell(t);
        leave(t);
    }
}
