/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A line stream on a socket. What is sent is written at the end of the loop's turn, so that a call costs one receive
 * and one send and the answers of a turn go together; the loop is asked about writing only when the socket is full.
 * Owns the descriptor, its buffers and four timers:
 *   kick   runs what must not run inside a caller's call: reading on after a pause, the end
 *   line   a line that was begun must become whole
 *   watch  while reading is off, notices a peer that has gone
 *   stall  output that waits must move
 * One thread: that of the loop.
 */
#include "api-schema/rpc/conn.h"

#include "api-schema/json/json.h"
#include "api-schema/json/split.h"
#include "api-schema/json/text.h"
#include "engine/base/fd.h"

#include <errno.h>
#include <event2/buffer.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    LINES_A_TURN = 32, /* then other connections have theirs */
    FDS_A_MESSAGE = 16,
    READ_SIZE = 65536,
    POOL_FAIR = 65536, /* bytes that a connection may always hold */
};

static const int64_t watch_ns = 500 * INT64_C(1000000);

const struct rpc_limits rpc_limits_default = {
    .line_max = API_JSON_MAX_SIZE,
    .out_pause = 256 * 1024,
    .out_max = 8 * 1024 * 1024,
    .stall_ns = 10 * INT64_C(1000000000),
    .line_ns = 30 * INT64_C(1000000000),
};

const struct rpc_limits rpc_limits_client = {
    .line_max = 64 * 1024 * 1024,
    .out_pause = 256 * 1024,
    .out_max = 8 * 1024 * 1024,
    .stall_ns = 10 * INT64_C(1000000000),
    .line_ns = 30 * INT64_C(1000000000),
};

struct rpc_conn {
    struct loop *loop;
    int fd;                /* -1 once the owner let go */
    struct loop_fd *ready; /* NULL then, as are the buffers */
    struct evbuffer *in, *out;
    struct loop_task flush; /* writes what a turn's callbacks queued */
    struct loop_timer *kick, *line, *watch, *stall;
    struct rpc_limits limits;
    const struct rpc_conn_ops *ops; /* NULL once freed or told */
    void *arg;
    struct rpc_peer peer;
    struct err why;      /* of the end */
    struct list in_pool; /* limits.pool->conns */
    size_t counted;      /* of its bytes, in the pool */
    size_t scanned;      /* bytes at the front of the input known to hold no end of a message */
    struct api_split split; /* of a stream: where its scanning stands */
    int passed;             /* last descriptor that came, or -1 */
    int given; /* one that goes out with the byte after the next `given_at`; -1: none */
    size_t given_at;
    unsigned holds; /* rpc_conn_hold() */
    unsigned busy;  /* callbacks on the stack: the struct must stay */
    bool takes_fds; /* descriptors that the peer passes are kept */
    bool reading;   /* input is waited for */
    bool blocked;   /* output is left that the socket does not take now; `stall` is armed */
    bool watching;  /* `watch` is armed */
    bool line_runs; /* `line` is armed */
    bool eof;       /* the peer sends no more */
    bool told_eof;  /* and the owner knows */
    bool closing;   /* ends once the output is written */
    bool dead;      /* ends at the next kick */
    bool freed;     /* the owner let go */
    bool stream;    /* values follow one another without framing */
    const struct rpc_framing *framing; /* messages are frames; NULL: they are not */
};

static void update_reading(struct rpc_conn *c);
static void flush(void *arg);

size_t rpc_conn_queued(const struct rpc_conn *c)
{
    return c->out ? evbuffer_get_length(c->out) : 0;
}

/* The pool learns what this one holds now. */
static void count(struct rpc_conn *c)
{
    struct rpc_pool *p = c->limits.pool;
    size_t now = c->in ? evbuffer_get_length(c->in) + evbuffer_get_length(c->out) : 0;

    if (p) {
        p->used += now - c->counted;
        c->counted = now;
    }
}

static void destroy(struct rpc_conn *c)
{
    loop_task_cancel(&c->flush);
    loop_timer_free(c->kick);
    loop_timer_free(c->line);
    loop_timer_free(c->watch);
    loop_timer_free(c->stall);
    c->kick = c->line = c->watch = c->stall = NULL;
    loop_fd_free(c->ready);
    c->ready = NULL;
    evbuffer_free(c->in);
    evbuffer_free(c->out);
    c->in = c->out = NULL;
    count(c);
    list_remove(&c->in_pool);
    fd_autoclose(&c->fd);
    fd_autoclose(&c->passed);
    fd_autoclose(&c->given);
}

static void leave(struct rpc_conn *c)
{
    if (--c->busy == 0 && c->freed) {
        free(c);
    }
}

void rpc_conn_free(struct rpc_conn *c)
{
    if (!c) {
        return;
    }
    c->ops = NULL;
    c->freed = true;
    destroy(c);
    if (c->busy == 0) {
        free(c);
    }
}

/* The connection ends; the owner is told from the loop. */
static void die(struct rpc_conn *c, const struct err *why)
{
    if (c->dead || !c->ready) {
        return;
    }
    c->dead = true;
    if (why) {
        c->why = *why;
    }
    c->reading = c->blocked = false;
    loop_fd_set(c->ready, 0);
    loop_timer_disarm(c->line);
    loop_timer_disarm(c->watch);
    loop_timer_disarm(c->stall);
    loop_timer_arm(c->kick, 0);
}

static void die_because(struct rpc_conn *c, int code, const char *text)
{
    struct err e = ERR_INIT;

    err_set(&e, code, "%s", text);
    die(c, &e);
}

/* Both directions are gone. Only unix sockets tell without reading. */
static bool peer_hung_up(struct rpc_conn *c)
{
    struct pollfd p = { .fd = rpc_conn_fd(c) };

    return poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR | POLLNVAL);
}

/* The pool is too full: those that hold the most go, and what they held at once. */
static void relieve(struct rpc_pool *p)
{
    while (p && p->used > p->max) {
        struct rpc_conn *most = NULL;

        list_for_each (it, &p->conns) {
            struct rpc_conn *c = list_entry(it, struct rpc_conn, in_pool);
            most = !most || c->counted > most->counted ? c : most;
        }
        if (!most || most->counted <= POOL_FAIR) {
            return;
        }
        die_because(most, -ENOBUFS,
                    "all clients together wait with too much, this one with the most");
        evbuffer_drain(most->in, evbuffer_get_length(most->in));
        evbuffer_drain(most->out, evbuffer_get_length(most->out));
        count(most);
    }
}

static void tell_message(struct rpc_conn *c, const char *line, size_t n)
{
    struct err e = ERR_INIT;
    AUTO_JSON msg = NULL;

    if (n > 0 && line[n - 1] == '\r') {
        n--;
    }
    if (n == 0) {
        return; /* an empty line is no message and no mistake */
    }
    if (api_json_parse_max(line, n, c->limits.line_max, 0, &msg, &e) < 0) {
        c->ops->garbage(c->arg, c, &e);
    } else {
        c->ops->message(c->arg, c, msg);
    }
}

static void stop_line_timer(struct rpc_conn *c)
{
    if (c->line_runs) {
        loop_timer_disarm(c->line);
        c->line_runs = false;
    }
}

/* Takes `n` bytes of line and `skip` of newline off the input. */
static void take_line(struct rpc_conn *c, size_t n, size_t skip)
{
    AUTO_FREE char *line = xalloc(n + 1);

    evbuffer_remove(c->in, line, n);
    evbuffer_drain(c->in, skip);
    c->scanned = 0;
    stop_line_timer(c);
    if (c->framing) {
        c->ops->frame(c->arg, c, (unsigned char *)line, n);
    } else {
        tell_message(c, line, n);
    }
}

static void line_too_long(struct rpc_conn *c)
{
    struct err e = ERR_INIT;

    evbuffer_drain(c->in, evbuffer_get_length(c->in));
    c->scanned = 0;
    c->eof = c->told_eof = true; /* what follows cannot be told apart any more */
    if (c->framing) {
        err_set(&e, -EMSGSIZE, "no length of a message, at most %zu bytes", c->limits.line_max);
    } else {
        err_set(&e, -EMSGSIZE, "a line exceeds %zu bytes", c->limits.line_max);
    }
    c->ops->garbage(c->arg, c, &e);
    if (!c->freed) {
        rpc_conn_close(c);
    }
}

/* White space between values is no message that was begun, and does not count towards the next. */
static void drop_space(struct rpc_conn *c)
{
    struct evbuffer_iovec piece;

    while (!c->split.started && evbuffer_peek(c->in, 1, NULL, &piece, 1) >= 1) {
        const char *p = piece.iov_base;
        size_t n = 0;
        while (n < piece.iov_len && p[n] && strchr(" \t\r\n", p[n])) {
            n++;
        }
        if (n == 0) {
            break;
        }
        evbuffer_drain(c->in, n);
        c->scanned = 0;
    }
}

/* Length of the first value of a stream, -1 when there is no whole one. */
static ssize_t find_value(struct rpc_conn *c)
{
    size_t have;

    drop_space(c);
    have = evbuffer_get_length(c->in);
    while (c->scanned < have) {
        struct evbuffer_ptr from;
        struct evbuffer_iovec piece;
        bool done;

        if (evbuffer_ptr_set(c->in, &from, c->scanned, EVBUFFER_PTR_SET) < 0 ||
            evbuffer_peek(c->in, -1, &from, &piece, 1) < 1) {
            return -1;
        }
        c->scanned += api_split_feed(&c->split, piece.iov_base, piece.iov_len, &done);
        if (done) {
            return (ssize_t)c->scanned;
        }
    }
    return -1;
}

/* Length of the first frame, -1 when it is not whole. */
static ssize_t find_frame(struct rpc_conn *c)
{
    unsigned char head[RPC_HEAD_MAX];
    size_t have = evbuffer_get_length(c->in), known = have < sizeof(head) ? have : sizeof(head);
    int64_t n;

    c->scanned = have;
    if (have < c->framing->head) {
        return -1;
    }
    evbuffer_copyout(c->in, head, known);
    n = c->framing->size(head, known);
    if (n == 0 && known < sizeof(head)) {
        return -1;
    }
    if (n < (int64_t)c->framing->head || n > (int64_t)c->limits.line_max) {
        return (ssize_t)c->limits.line_max + 1;
    }
    return (uint64_t)n <= have ? (ssize_t)n : -1;
}

/* Length of the first message, -1 when there is no whole one. Each byte is looked at once. */
static ssize_t find_message(struct rpc_conn *c)
{
    struct evbuffer_ptr from, found;

    if (c->framing) {
        return find_frame(c);
    }
    if (c->stream) {
        return find_value(c);
    }
    if (evbuffer_ptr_set(c->in, &from, c->scanned, EVBUFFER_PTR_SET) < 0) {
        return -1;
    }
    found = evbuffer_search_eol(c->in, &from, NULL, EVBUFFER_EOL_LF);
    if (found.pos < 0) {
        c->scanned = evbuffer_get_length(c->in);
    }
    return found.pos;
}

static bool may_process(const struct rpc_conn *c)
{
    return !c->freed && !c->dead && !c->closing && c->holds == 0 &&
           rpc_conn_queued(c) <= c->limits.out_pause;
}

static void tell_half_closed(struct rpc_conn *c)
{
    c->told_eof = true;
    if (peer_hung_up(c)) {
        die(c, NULL);
    } else if (c->ops->half_closed) {
        c->ops->half_closed(c->arg, c);
    } else {
        rpc_conn_close(c);
    }
}

/* Hands out the lines that are here, as far as back pressure lets. */
static void process(struct rpc_conn *c)
{
    c->busy++;
    for (unsigned turn = 0; may_process(c); turn++) {
        ssize_t n;

        if (turn == LINES_A_TURN) {
            loop_timer_arm(c->kick, 0);
            break;
        }
        n = find_message(c);
        if (n > (ssize_t)c->limits.line_max || (n < 0 && c->scanned > c->limits.line_max)) {
            line_too_long(c);
        } else if (n >= 0) {
            take_line(c, (size_t)n, c->stream || c->framing ? 0 : 1);
        } else if (c->eof && c->framing) {
            evbuffer_drain(c->in, evbuffer_get_length(c->in)); /* cut off by the peer itself */
            c->scanned = 0;
            break;
        } else if (c->eof && c->scanned > 0) {
            c->split = (struct api_split){ 0 };
            take_line(c, c->scanned, 0);
        } else {
            break;
        }
    }
    if (!c->freed && !c->dead && c->eof && !c->told_eof && evbuffer_get_length(c->in) == 0) {
        tell_half_closed(c);
    }
    if (!c->freed && rpc_conn_queued(c) > c->limits.out_pause) {
        flush(c); /* one large answer is no reason to stop reading */
    }
    if (!c->freed) {
        count(c);
        relieve(c->limits.pool);
        update_reading(c);
    }
    leave(c);
}

static void set_events(struct rpc_conn *c)
{
    loop_fd_set(c->ready, (c->reading ? LOOP_READ : 0) | (c->blocked ? LOOP_WRITE : 0));
}

/* Turns reading and the timers that go with it on or off. */
static void update_reading(struct rpc_conn *c)
{
    bool want;

    if (c->dead) {
        return;
    }
    want = may_process(c) && !c->eof && evbuffer_get_length(c->in) <= c->limits.line_max;
    if (want && c->watching) {
        loop_timer_disarm(c->watch);
    } else if (!want && !c->watching) {
        loop_timer_arm(c->watch, watch_ns);
    }
    c->watching = !want;
    if (want && c->scanned > 0) {
        if (!c->line_runs) {
            loop_timer_arm(c->line, c->limits.line_ns);
        }
        c->line_runs = true;
    } else {
        stop_line_timer(c);
    }
    c->reading = want;
    set_events(c);
}

/* send(2), with the descriptor that goes along with the first byte of its line. */
static ssize_t give(struct rpc_conn *c, void *from, size_t size)
{
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = { 0 };
    struct iovec iov = { .iov_base = from, .iov_len = size };
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
    ssize_t n;

    if (c->given >= 0 && c->given_at > 0) {
        iov.iov_len = size < c->given_at ? size : c->given_at;
    } else if (c->given >= 0) {
        m.msg_control = &control;
        m.msg_controllen = sizeof(control);
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(h), &c->given, sizeof(int));
    }
    n = sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0 && m.msg_control) {
        close(take_fd(&c->given));
    } else if (n > 0 && c->given >= 0) {
        c->given_at -= (size_t)n;
    }
    return n;
}

/* What the socket took in one go; -1 when it takes no more, or failed (the connection is dead then). */
static ssize_t send_some(struct rpc_conn *c)
{
    struct evbuffer_iovec piece;
    ssize_t sent;

    evbuffer_peek(c->out, -1, NULL, &piece, 1);
    do {
        sent = c->given >= 0
                   ? give(c, piece.iov_base, piece.iov_len)
                   : send(c->fd, piece.iov_base, piece.iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0 && (errno == EPIPE || errno == ECONNRESET)) {
        die_because(c, -EPIPE, "the peer has gone");
    } else if (sent < 0 && errno != EAGAIN) {
        struct err e = ERR_INIT;
        err_errno(&e, errno, "connection failed");
        die(c, &e);
    }
    return sent;
}

/* Writes as much as the socket takes; the rest when it takes more. Calls nobody back. */
static void flush(void *arg)
{
    struct rpc_conn *c = arg;
    bool progress = false, was = c->blocked;
    ssize_t sent;

    while (!c->dead && rpc_conn_queued(c) > 0 && (sent = send_some(c)) >= 0) {
        evbuffer_drain(c->out, (size_t)sent);
        progress = true;
    }
    count(c);
    if (c->dead) {
        return;
    }
    c->blocked = rpc_conn_queued(c) > 0;
    if (c->blocked && (progress || !was)) {
        loop_timer_arm(c->stall, c->limits.stall_ns);
    } else if (was && !c->blocked) {
        loop_timer_disarm(c->stall);
    }
    set_events(c);
    if (c->closing && !c->blocked) {
        die(c, NULL);
    } else if (!c->reading && may_process(c)) {
        loop_timer_arm(c->kick, 0);
    }
}

static void on_stall(void *arg)
{
    die_because(arg, -ETIMEDOUT, "the peer does not read what it is sent");
}

static void on_kick(void *arg)
{
    struct rpc_conn *c = arg;

    if (!c->dead) {
        process(c);
        return;
    }
    const struct rpc_conn_ops *ops = c->ops;
    c->ops = NULL;
    if (ops) {
        c->busy++;
        ops->closed(c->arg, c, &c->why);
        leave(c);
    }
}

static void on_line_late(void *arg)
{
    die_because(arg, -ETIMEDOUT, "the peer began a line and did not end it");
}

static void on_watch(void *arg)
{
    struct rpc_conn *c = arg;

    if (peer_hung_up(c)) {
        die(c, NULL);
    } else if (!c->reading) {
        loop_timer_arm(c->watch, watch_ns);
    }
}

void rpc_ignore_sigpipe(void)
{
    struct sigaction now;

    if (sigaction(SIGPIPE, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) &&
        now.sa_handler == SIG_DFL) {
        signal(SIGPIPE, SIG_IGN);
    }
}

static void on_ready(void *arg, int fd, unsigned events);

struct rpc_conn *rpc_conn_new(struct loop *l, int owned_fd, const struct rpc_limits *limits,
                              const struct rpc_conn_ops *ops, void *arg, struct err *e)
{
    AUTO_FD fd = owned_fd;
    struct rpc_conn *c;
    struct evbuffer *in, *out;

    if (fd_set_nonblock(fd, true, e) < 0) {
        return NULL;
    }
    in = evbuffer_new();
    out = in ? evbuffer_new() : NULL;
    if (!out) {
        if (in) {
            evbuffer_free(in);
        }
        err_set(e, -ENOMEM, "no memory for a connection");
        return NULL;
    }
    c = xnew(struct rpc_conn);
    c->loop = l;
    c->in = in;
    c->out = out;
    c->limits = limits ? *limits : rpc_limits_default;
    c->ops = ops;
    c->arg = arg;
    c->passed = c->given = -1;
    c->reading = true;
    (void)unix_peer(fd, &c->peer.pid, &c->peer.uid, &c->peer.gid, NULL);
    c->fd = take_fd(&fd);
    c->kick = loop_timer_new(l, on_kick, c);
    c->line = loop_timer_new(l, on_line_late, c);
    c->watch = loop_timer_new(l, on_watch, c);
    c->stall = loop_timer_new(l, on_stall, c);
    loop_task_init(&c->flush, flush, c);
    list_init(&c->in_pool);
    if (c->limits.pool) {
        list_append(&c->limits.pool->conns, &c->in_pool);
    }
    c->ready = loop_fd_new(l, c->fd, LOOP_READ, on_ready, c);
    return c;
}

void rpc_conn_stream(struct rpc_conn *c)
{
    c->stream = true;
    c->scanned = 0;
}

void rpc_conn_frames(struct rpc_conn *c, const struct rpc_framing *framing)
{
    c->framing = framing;
    c->limits.line_max = framing->max;
    c->scanned = 0;
}

/* --- descriptors that the peer passes ------------------------------------------------------- */

/* Keeps the first of those that came, in place of the one before; the rest is closed. */
static void take_descriptors(struct rpc_conn *c, struct msghdr *m)
{
    for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
        size_t n = 0;

        if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS) {
            n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        }
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(int));
            if (i == 0) {
                fd_autoclose(&c->passed);
                c->passed = fd;
            } else {
                close(fd);
            }
        }
    }
}

/* recv(2), with the descriptors that come along. */
static ssize_t receive(struct rpc_conn *c, char *to, size_t size)
{
    union {
        char space[CMSG_SPACE(FDS_A_MESSAGE * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = { .iov_base = to, .iov_len = size };
    struct msghdr m = { .msg_iov = &iov,
                        .msg_iovlen = 1,
                        .msg_control = &control,
                        .msg_controllen = sizeof(control) };
    ssize_t n;

    if (!c->takes_fds) {
        return recv(c->fd, to, size, MSG_DONTWAIT);
    }
    n = recvmsg(c->fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n >= 0) {
        take_descriptors(c, &m);
    }
    return n;
}

static void on_readable(struct rpc_conn *c)
{
    char bytes[READ_SIZE];
    ssize_t n = receive(c, bytes, sizeof(bytes));

    if (n < 0) {
        if (errno == EPIPE || errno == ECONNRESET) {
            die_because(c, -EPIPE, "the peer has gone");
        } else if (errno != EAGAIN && errno != EINTR) {
            struct err e = ERR_INIT;
            err_errno(&e, errno, "connection failed");
            die(c, &e);
        }
        return;
    }
    if (n == 0) {
        c->eof = true;
    } else if (evbuffer_add(c->in, bytes, (size_t)n) < 0) {
        die_because(c, -ENOMEM, "no memory for what the peer sent");
        return;
    }
    process(c);
}

static void on_ready(void *arg, int fd, unsigned events)
{
    struct rpc_conn *c = arg;

    (void)fd;
    if (events & LOOP_WRITE) {
        flush(c);
    }
    if (events & LOOP_READ && c->reading) {
        on_readable(c);
    }
}

void rpc_conn_take_fds(struct rpc_conn *c)
{
    c->takes_fds = true;
}

int rpc_conn_passed_fd(struct rpc_conn *c)
{
    return take_fd(&c->passed);
}

static int queue(struct rpc_conn *c, const void *data, size_t len, const char *end)
{
    size_t n_end = strlen(end);

    if (c->dead || c->closing || !c->ready) {
        return -EPIPE;
    }
    if (rpc_conn_queued(c) > c->limits.out_max) {
        flush(c);
    }
    if (rpc_conn_queued(c) > c->limits.out_max) {
        die_because(c, -ENOBUFS, "the peer reads too slowly");
        return -ENOBUFS;
    }
    if (evbuffer_expand(c->out, len + n_end) < 0) {
        die_because(c, -ENOMEM, "no memory for what the peer must be sent");
        return -ENOBUFS;
    }
    evbuffer_add(c->out, data, len);
    evbuffer_add(c->out, end, n_end);
    loop_task_queue(c->loop, &c->flush);
    count(c);
    if (c->limits.pool && c->limits.pool->used > c->limits.pool->max) {
        flush(c);
        relieve(c->limits.pool);
        if (c->dead) {
            return -ENOBUFS;
        }
    }
    if (c->busy == 0) {
        update_reading(c);
    }
    return 0;
}

int rpc_conn_send_text(struct rpc_conn *c, const char *text, size_t len)
{
    return queue(c, text, len, "\n");
}

int rpc_conn_send_bytes(struct rpc_conn *c, const void *data, size_t len)
{
    return queue(c, data, len, "");
}

int rpc_conn_send(struct rpc_conn *c, struct json_object *msg)
{
    const char *text = api_json_raw_text(msg);

    text = text ? text : api_json_text(msg);
    return text ? rpc_conn_send_text(c, text, strlen(text)) : -ENOMEM;
}

int rpc_conn_send_bytes_fd(struct rpc_conn *c, const void *data, size_t len, int owned_fd)
{
    AUTO_FD fd = owned_fd;
    size_t before = rpc_conn_queued(c);
    int rc;

    if (c->given >= 0 || before > c->limits.out_pause) {
        return -EBUSY;
    }
    rc = rpc_conn_send_bytes(c, data, len); /* which only queues */
    if (rc == 0) {
        c->given = take_fd(&fd);
        c->given_at = before + len - 1;
    }
    return rc;
}

int rpc_conn_send_fd(struct rpc_conn *c, struct json_object *msg, int owned_fd)
{
    AUTO_FD fd = owned_fd;
    size_t before = rpc_conn_queued(c);
    int rc;

    if (c->given >= 0 || before > c->limits.out_pause) {
        return -EBUSY;
    }
    rc = rpc_conn_send(c, msg); /* which only queues */
    if (rc == 0) {
        c->given = take_fd(&fd);
        c->given_at = before;
    }
    return rc;
}

void rpc_conn_close(struct rpc_conn *c)
{
    if (c->dead || c->closing || !c->ready) {
        return;
    }
    c->closing = true;
    update_reading(c);
    if (rpc_conn_queued(c) == 0) {
        die(c, NULL);
    }
}

void rpc_conn_hold(struct rpc_conn *c)
{
    c->holds++;
    if (c->busy == 0 && c->ready) {
        update_reading(c);
    }
}

void rpc_conn_release(struct rpc_conn *c)
{
    if (--c->holds == 0 && c->ready && !c->dead) {
        loop_timer_arm(c->kick, 0);
    }
}

bool rpc_conn_half_closed(const struct rpc_conn *c)
{
    return c->eof;
}

const struct rpc_peer *rpc_conn_peer(const struct rpc_conn *c)
{
    return &c->peer;
}

int rpc_conn_fd(const struct rpc_conn *c)
{
    return c->fd;
}

struct loop *rpc_conn_loop(const struct rpc_conn *c)
{
    return c->loop;
}
