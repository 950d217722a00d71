/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A line stream on a bufferevent. Owns the descriptor, its buffers and three timers:
 *   kick   runs what must not run inside a caller's call: reading on after a pause, the end
 *   line   a line that was begun must become whole
 *   watch  while reading is off, notices a peer that has gone (libevent would not)
 * One thread: that of the loop.
 */
#include "api-schema/rpc/conn.h"

#include "api-schema/json/json.h"
#include "api-schema/json/split.h"
#include "engine/base/fd.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    LINES_A_TURN = 32, /* then other connections have theirs */
    FDS_A_MESSAGE = 16,
    READ_SIZE = 16384, /* of a connection that takes descriptors */
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
    struct bufferevent *bev;
    struct loop_timer *kick, *line, *watch;
    struct rpc_limits limits;
    const struct rpc_conn_ops *ops; /* NULL once freed or told */
    void *arg;
    struct rpc_peer peer;
    struct err why; /* of the end */
    size_t scanned; /* bytes at the front of the input known to hold no end of a message */
    struct api_split split; /* of a stream: where its scanning stands */
    struct loop_fd *reader; /* reads instead of libevent, to see descriptors; NULL: none */
    int passed;             /* last descriptor that came, or -1 */
    unsigned holds;         /* rpc_conn_hold() */
    unsigned busy;          /* callbacks on the stack: the struct must stay */
    bool reading;           /* EV_READ is on */
    bool watching;          /* `watch` is armed */
    bool line_runs;         /* `line` is armed */
    bool eof;               /* the peer sends no more */
    bool told_eof;          /* and the owner knows */
    bool closing;           /* ends once the output is written */
    bool dead;              /* ends at the next kick */
    bool freed;             /* the owner let go */
    bool stream;            /* values follow one another without framing */
};

static void update_reading(struct rpc_conn *c);

static struct evbuffer *input(struct rpc_conn *c)
{
    return bufferevent_get_input(c->bev);
}

size_t rpc_conn_queued(const struct rpc_conn *c)
{
    return c->bev ? evbuffer_get_length(bufferevent_get_output(c->bev)) : 0;
}

static void destroy(struct rpc_conn *c)
{
    if (c->bev) {
        bufferevent_free(c->bev);
        c->bev = NULL;
    }
    loop_timer_free(c->kick);
    loop_timer_free(c->line);
    loop_timer_free(c->watch);
    c->kick = c->line = c->watch = NULL;
    loop_fd_free(c->reader);
    c->reader = NULL;
    fd_autoclose(&c->passed);
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
    if (c->dead || !c->bev) {
        return;
    }
    c->dead = true;
    if (why) {
        c->why = *why;
    }
    bufferevent_disable(c->bev, EV_READ | EV_WRITE);
    if (c->reader) {
        loop_fd_set(c->reader, 0);
    }
    c->reading = false;
    loop_timer_disarm(c->line);
    loop_timer_disarm(c->watch);
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

/* Takes `n` bytes of line and `skip` of newline off the input. */
static void take_line(struct rpc_conn *c, size_t n, size_t skip)
{
    AUTO_FREE char *line = xalloc(n + 1);

    evbuffer_remove(input(c), line, n);
    evbuffer_drain(input(c), skip);
    c->scanned = 0;
    loop_timer_disarm(c->line);
    c->line_runs = false;
    tell_message(c, line, n);
}

static void line_too_long(struct rpc_conn *c)
{
    struct err e = ERR_INIT;

    evbuffer_drain(input(c), evbuffer_get_length(input(c)));
    c->scanned = 0;
    c->eof = c->told_eof = true; /* what follows cannot be told apart any more */
    err_set(&e, -EMSGSIZE, "a line exceeds %zu bytes", c->limits.line_max);
    c->ops->garbage(c->arg, c, &e);
    if (!c->freed) {
        rpc_conn_close(c);
    }
}

/* White space between values is no message that was begun. */
static void drop_space(struct rpc_conn *c)
{
    if (!c->split.started && c->scanned > 0) {
        evbuffer_drain(input(c), c->scanned);
        c->scanned = 0;
    }
}

/* Length of the first value of a stream, -1 when there is no whole one. */
static ssize_t find_value(struct rpc_conn *c)
{
    size_t have = evbuffer_get_length(input(c));

    while (c->scanned < have) {
        struct evbuffer_ptr from;
        struct evbuffer_iovec piece;
        bool done;

        if (evbuffer_ptr_set(input(c), &from, c->scanned, EVBUFFER_PTR_SET) < 0 ||
            evbuffer_peek(input(c), -1, &from, &piece, 1) < 1) {
            return -1;
        }
        c->scanned += api_split_feed(&c->split, piece.iov_base, piece.iov_len, &done);
        if (done) {
            return (ssize_t)c->scanned;
        }
    }
    drop_space(c);
    return -1;
}

/* Length of the first message, -1 when there is no whole one. Each byte is looked at once. */
static ssize_t find_message(struct rpc_conn *c)
{
    struct evbuffer_ptr from, found;

    if (c->stream) {
        return find_value(c);
    }
    if (evbuffer_ptr_set(input(c), &from, c->scanned, EVBUFFER_PTR_SET) < 0) {
        return -1;
    }
    found = evbuffer_search_eol(input(c), &from, NULL, EVBUFFER_EOL_LF);
    if (found.pos < 0) {
        c->scanned = evbuffer_get_length(input(c));
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
            take_line(c, (size_t)n, c->stream ? 0 : 1);
        } else if (c->eof && c->scanned > 0) {
            c->split = (struct api_split){ 0 };
            take_line(c, c->scanned, 0);
        } else {
            break;
        }
    }
    if (!c->freed && !c->dead && c->eof && !c->told_eof && evbuffer_get_length(input(c)) == 0) {
        tell_half_closed(c);
    }
    if (!c->freed) {
        update_reading(c);
    }
    leave(c);
}

/* Turns reading and the timers that go with it on or off. */
static void update_reading(struct rpc_conn *c)
{
    bool want;

    if (c->dead) {
        return;
    }
    want = may_process(c) && !c->eof &&
           !(c->reader && evbuffer_get_length(input(c)) > c->limits.line_max);
    if (c->reader && want != c->reading) {
        loop_fd_set(c->reader, want ? LOOP_READ : 0);
    } else if (want && !c->reading) {
        bufferevent_enable(c->bev, EV_READ);
    } else if (!want && c->reading) {
        bufferevent_disable(c->bev, EV_READ);
    }
    if (want) {
        loop_timer_disarm(c->watch);
    } else if (!c->watching) {
        loop_timer_arm(c->watch, watch_ns);
    }
    c->watching = !want;
    if (!want || c->scanned == 0) {
        loop_timer_disarm(c->line);
        c->line_runs = false;
    } else if (!c->line_runs) {
        loop_timer_arm(c->line, c->limits.line_ns);
        c->line_runs = true;
    }
    c->reading = want;
}

static void on_read(struct bufferevent *bev, void *arg)
{
    (void)bev;
    process(arg);
}

static void on_written(struct bufferevent *bev, void *arg)
{
    struct rpc_conn *c = arg;

    (void)bev;
    if (c->closing && rpc_conn_queued(c) == 0) {
        die(c, NULL);
    } else if (!c->reading && may_process(c)) {
        process(c);
    }
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct rpc_conn *c = arg;
    int errnum = EVUTIL_SOCKET_ERROR();

    (void)bev;
    if (what & BEV_EVENT_TIMEOUT) {
        die_because(c, -ETIMEDOUT, "the peer does not read what it is sent");
    } else if (what & BEV_EVENT_ERROR) {
        struct err e = ERR_INIT;
        if (errnum == EPIPE || errnum == ECONNRESET) {
            err_set(&e, -EPIPE, "the peer has gone");
        } else {
            err_errno(&e, errnum ? errnum : EIO, "connection failed");
        }
        die(c, &e);
    } else if (what & BEV_EVENT_EOF) {
        c->eof = true;
        process(c);
    }
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

static struct timeval to_timeval(int64_t ns)
{
    return (struct timeval){ .tv_sec = ns / 1000000000, .tv_usec = ns % 1000000000 / 1000 };
}

/* libevent writes with writev(2), so a peer that has gone would end the process. */
static void ignore_sigpipe(void)
{
    struct sigaction now;

    if (sigaction(SIGPIPE, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) &&
        now.sa_handler == SIG_DFL) {
        signal(SIGPIPE, SIG_IGN);
    }
}

struct rpc_conn *rpc_conn_new(struct loop *l, int owned_fd, const struct rpc_limits *limits,
                              const struct rpc_conn_ops *ops, void *arg, struct err *e)
{
    AUTO_FD fd = owned_fd;
    struct rpc_conn *c;
    struct timeval stall;
    struct bufferevent *bev;

    if (fd_set_nonblock(fd, true, e) < 0) {
        return NULL;
    }
    bev = bufferevent_socket_new(loop_base(l), fd, BEV_OPT_CLOSE_ON_FREE);
    if (!bev) {
        err_set(e, -ENOMEM, "no memory for a connection");
        return NULL;
    }
    c = xnew(struct rpc_conn);
    ignore_sigpipe();
    c->loop = l;
    c->bev = bev;
    c->limits = limits ? *limits : rpc_limits_default;
    c->ops = ops;
    c->arg = arg;
    c->passed = -1;
    (void)unix_peer(fd, &c->peer.pid, &c->peer.uid, &c->peer.gid, NULL);
    (void)take_fd(&fd);
    c->kick = loop_timer_new(l, on_kick, c);
    c->line = loop_timer_new(l, on_line_late, c);
    c->watch = loop_timer_new(l, on_watch, c);
    stall = to_timeval(c->limits.stall_ns);
    bufferevent_setcb(bev, on_read, on_written, on_event, c);
    bufferevent_setwatermark(bev, EV_READ, 0, c->limits.line_max + 2);
    bufferevent_setwatermark(bev, EV_WRITE, c->limits.out_pause / 2, 0);
    bufferevent_set_timeouts(bev, NULL, &stall);
    bufferevent_enable(bev, EV_READ | EV_WRITE);
    c->reading = true;
    return c;
}

void rpc_conn_stream(struct rpc_conn *c)
{
    c->stream = true;
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

static void on_readable(void *arg, int fd, unsigned events)
{
    struct rpc_conn *c = arg;
    char bytes[READ_SIZE];
    union {
        char space[CMSG_SPACE(FDS_A_MESSAGE * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = { .iov_base = bytes, .iov_len = sizeof(bytes) };
    struct msghdr m = { .msg_iov = &iov,
                        .msg_iovlen = 1,
                        .msg_control = &control,
                        .msg_controllen = sizeof(control) };
    ssize_t n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

    (void)events;
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            die_because(c, -EPIPE, "the peer has gone");
        }
        return;
    }
    take_descriptors(c, &m);
    if (n == 0) {
        c->eof = true;
    } else if (evbuffer_add(input(c), bytes, (size_t)n) < 0) {
        die_because(c, -ENOMEM, "no memory for what the peer sent");
        return;
    }
    process(c);
}

void rpc_conn_take_fds(struct rpc_conn *c)
{
    if (c->reader || c->dead || !c->bev) {
        return;
    }
    bufferevent_disable(c->bev, EV_READ);
    evbuffer_unfreeze(input(c), 0);
    c->reader = loop_fd_new(c->loop, rpc_conn_fd(c), c->reading ? LOOP_READ : 0, on_readable,
                            c);
}

int rpc_conn_passed_fd(struct rpc_conn *c)
{
    return take_fd(&c->passed);
}

int rpc_conn_send_text(struct rpc_conn *c, const char *text, size_t len)
{
    struct evbuffer *out;

    if (c->dead || c->closing || !c->bev) {
        return -EPIPE;
    }
    out = bufferevent_get_output(c->bev);
    if (evbuffer_get_length(out) > c->limits.out_max) {
        die_because(c, -ENOBUFS, "the peer reads too slowly");
        return -ENOBUFS;
    }
    if (evbuffer_expand(out, len + 1) < 0) {
        die_because(c, -ENOMEM, "no memory for what the peer must be sent");
        return -ENOBUFS;
    }
    evbuffer_add(out, text, len);
    evbuffer_add(out, "\n", 1);
    if (c->busy == 0) {
        update_reading(c);
    }
    return 0;
}

int rpc_conn_send(struct rpc_conn *c, struct json_object *msg)
{
    size_t len;
    const char *text = json_object_to_json_string_length(
        msg, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &len);

    return text ? rpc_conn_send_text(c, text, len) : -ENOMEM;
}

void rpc_conn_close(struct rpc_conn *c)
{
    if (c->dead || c->closing || !c->bev) {
        return;
    }
    c->closing = true;
    bufferevent_setwatermark(c->bev, EV_WRITE, 0, 0);
    update_reading(c);
    if (rpc_conn_queued(c) == 0) {
        die(c, NULL);
    }
}

void rpc_conn_hold(struct rpc_conn *c)
{
    c->holds++;
    if (c->busy == 0 && c->bev) {
        update_reading(c);
    }
}

void rpc_conn_release(struct rpc_conn *c)
{
    if (--c->holds == 0 && c->bev && !c->dead) {
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
    return c->bev ? bufferevent_getfd(c->bev) : -1;
}

struct loop *rpc_conn_loop(const struct rpc_conn *c)
{
    return c->loop;
}
