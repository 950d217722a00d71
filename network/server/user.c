/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libslirp as a port. Its sockets are watched by the loop; once a turn, when all that is ready is known, libslirp is told
 * and says what it waits for next. What it sends waits until the turn's end, where segments that follow each other have
 * become one. The loop's thread.
 */
#include "network/server/user.h"

#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "network/coalesce.h"
#include "network/server/guestfwd.h"
#include "network/server/user_parse.h"

#include <errno.h>
#include <slirp/libslirp.h>
#include <string.h>
#include <time.h>

#define WAITING_MAX                                                                            \
    (4u                                                                                        \
     << 20) /* bytes for the guest that wait; beyond it frames are dropped, and TCP slows down */
#define MS INT64_C(1000000)

struct watch {
    struct loop_fd *w;
    unsigned events, ready; /* LOOP_... */
    unsigned round;         /* of pollfds_fill, that asked for it last */
};

struct waiting {
    struct list link;
    struct net_large large;
    size_t len;
    bool roomy; /* for NET_MAX_FRAME */
    uint8_t bytes[];
};

struct user {
    struct net_port port;
    struct loop *loop;
    Slirp *slirp;
    struct watch *watch; /* by descriptor */
    size_t n_watch;
    unsigned round;
    struct loop_task turn;
    struct loop_timer *timer;
    bool turning; /* what libslirp sends is delivered before the turn's end */
    bool blocked, some;
    struct list waiting; /* struct waiting */
    size_t waiting_bytes;
    struct guestfwd *guestfwds;
};

struct user_timer {
    struct user *u;
    SlirpTimerId id;
    void *cb_opaque;
    struct loop_timer *timer;
};

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 * MS + t.tv_nsec;
}

static void queue_turn(struct user *u)
{
    loop_task_queue(u->loop, &u->turn);
}

/* --- frames from libslirp --- */

static struct waiting *waiting_new(size_t room)
{
    struct waiting *w = xalloc(sizeof(*w) + room);

    w->roomy = room == NET_MAX_FRAME;
    w->len = 0;
    return w;
}

/* The last that waits, with room for more. */
static struct waiting *widen(struct waiting *w)
{
    struct waiting *wide;

    if (w->roomy) {
        return w;
    }
    wide = waiting_new(NET_MAX_FRAME);
    wide->large = w->large;
    wide->len = w->len;
    memcpy(wide->bytes, w->bytes, w->len);
    list_insert(&w->link, &wide->link);
    list_remove(&w->link);
    free(w);
    return wide;
}

static ssize_t on_send(const void *bytes, size_t len, void *opaque)
{
    struct user *u = opaque;
    struct waiting *w;

    if (len > NET_MAX_FRAME || u->waiting_bytes + len > WAITING_MAX) {
        u->port.rx.dropped++;
        return (ssize_t)len;
    }
    w = list_empty(&u->waiting) ? NULL : list_entry(u->waiting.prev, struct waiting, link);
    if (w && net_large_fits(&w->large, w->bytes, w->len, bytes, len)) {
        size_t before = w->len;

        w = widen(w);
        net_large_add(&w->large, w->bytes, &w->len, bytes, len);
        u->waiting_bytes += w->len - before;
    } else {
        w = waiting_new(len);
        w->len = len;
        memcpy(w->bytes, bytes, len);
        net_large_begin(&w->large, bytes, len);
        list_append(&u->waiting, &w->link);
        u->waiting_bytes += len;
    }
    if (!u->turning) {
        queue_turn(u);
    }
    return (ssize_t)len;
}

static void deliver_waiting(struct user *u)
{
    u->blocked = false;
    while (!list_empty(&u->waiting) && !u->blocked) {
        struct waiting *w = list_entry(u->waiting.next, struct waiting, link);
        struct iovec iov = { w->bytes, w->len };
        struct net_frame f = { .iov = &iov, .n_iov = 1, .len = w->len };

        net_large_end(&w->large, w->bytes, w->len);
        f.hdr = w->large.hdr;
        u->blocked = net_deliver(&u->port, &f) == -EAGAIN;
        if (!u->blocked) {
            u->some = true;
            list_remove(&w->link);
            u->waiting_bytes -= w->len;
            free(w);
        }
    }
}

/* --- sockets and timers of libslirp --- */

static void on_fd(void *arg, int fd, unsigned events)
{
    struct user *u = arg;

    u->watch[fd].ready |= events;
    queue_turn(u);
}

static void drop_watch(struct user *u, int fd)
{
    if (fd >= 0 && (size_t)fd < u->n_watch) {
        loop_fd_free(u->watch[fd].w);
        u->watch[fd] = (struct watch){ .w = NULL };
    }
}

static int on_add_poll(int fd, int events, void *opaque)
{
    struct user *u = opaque;
    unsigned want = (events & (SLIRP_POLL_IN | SLIRP_POLL_HUP | SLIRP_POLL_PRI) ? LOOP_READ
                                                                                : 0) |
                    (events & SLIRP_POLL_OUT ? LOOP_WRITE : 0);
    struct watch *w;

    if ((size_t)fd >= u->n_watch) {
        size_t n = (size_t)fd + 64;

        u->watch = xrealloc_n(u->watch, n, sizeof(u->watch[0]));
        memset(u->watch + u->n_watch, 0, (n - u->n_watch) * sizeof(u->watch[0]));
        u->n_watch = n;
    }
    w = &u->watch[fd];
    w->round = u->round;
    if (!w->w) {
        w->w = loop_fd_new(u->loop, fd, want, on_fd, u);
    } else if (w->events != want) {
        loop_fd_set(w->w, want);
    }
    w->events = want;
    return fd;
}

static int on_revents(int fd, void *opaque)
{
    struct user *u = opaque;
    unsigned ready = (size_t)fd < u->n_watch ? u->watch[fd].ready : 0;

    return (ready & LOOP_READ ? SLIRP_POLL_IN : 0) | (ready & LOOP_WRITE ? SLIRP_POLL_OUT : 0);
}

static void on_register(int fd, void *opaque)
{
    drop_watch(opaque, fd); /* of a socket of the same number that was closed before */
}

static void on_unregister(int fd, void *opaque)
{
    drop_watch(opaque, fd);
}

static void on_notify(void *opaque)
{
    queue_turn(opaque);
}

static void on_user_timer(void *arg)
{
    struct user_timer *t = arg;

    slirp_handle_timer(t->u->slirp, t->id, t->cb_opaque);
    queue_turn(t->u);
}

static void *on_timer_new(SlirpTimerId id, void *cb_opaque, void *opaque)
{
    struct user_timer *t = xnew(struct user_timer);

    t->u = opaque;
    t->id = id;
    t->cb_opaque = cb_opaque;
    t->timer = loop_timer_new(t->u->loop, on_user_timer, t);
    return t;
}

static void on_timer_free(void *timer, void *opaque)
{
    struct user_timer *t = timer;

    (void)opaque;
    if (t) {
        loop_timer_free(t->timer);
        free(t);
    }
}

static void on_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
    int64_t left = expire_ms * MS - now_ns();

    (void)opaque;
    loop_timer_arm(((struct user_timer *)timer)->timer, left > 0 ? left : 0);
}

static int64_t on_clock(void *opaque)
{
    (void)opaque;
    return now_ns();
}

static void on_guest_error(const char *msg, void *opaque)
{
    struct user *u = opaque;

    log_trace('n', "%s: %s", u->port.name, msg);
}

static const SlirpCb callbacks = {
    .send_packet = on_send,
    .guest_error = on_guest_error,
    .clock_get_ns = on_clock,
    .timer_free = on_timer_free,
    .timer_mod = on_timer_mod,
    .register_poll_fd = on_register,
    .unregister_poll_fd = on_unregister,
    .notify = on_notify,
    .timer_new_opaque = on_timer_new,
};

/* --- a turn --- */

static void wait_anew(struct user *u)
{
    uint32_t timeout = UINT32_MAX;

    u->round++;
    slirp_pollfds_fill(u->slirp, &timeout, on_add_poll, u);
    for (size_t fd = 0; fd < u->n_watch; fd++) {
        struct watch *w = &u->watch[fd];

        w->ready = 0;
        if (w->w && w->round != u->round) {
            drop_watch(u, (int)fd);
        }
    }
    if (timeout != UINT32_MAX) {
        loop_timer_arm(u->timer, (int64_t)timeout * MS);
    } else {
        loop_timer_disarm(u->timer);
    }
}

static void on_turn(void *arg)
{
    struct user *u = arg;

    u->turning = true;
    slirp_pollfds_poll(u->slirp, 0, on_revents, u);
    guestfwd_run(u->guestfwds);
    u->turning = false;
    deliver_waiting(u);
    if (u->some) {
        u->some = false;
        net_delivered(&u->port);
    }
    wait_anew(u);
}

static void on_timeout(void *arg)
{
    queue_turn(arg);
}

/* --- the port --- */

/* Whole segments are welcome: libslirp ends TCP itself and takes them as they are, given a checksum. */
static int user_send(struct net_port *p, const struct net_frame *f)
{
    struct user *u = container_of(p, struct user, port);
    uint8_t *joined = NULL;

    if (f->n_iov > 1) {
        joined = xalloc(f->len);
        net_frame_get(f, 0, joined, f->len);
    }
    slirp_input(u->slirp, joined ? joined : f->iov[0].iov_base, (int)f->len);
    free(joined);
    queue_turn(u);
    return 0;
}

static void user_recv_ready(struct net_port *p)
{
    struct user *u = container_of(p, struct user, port);

    if (!list_empty(&u->waiting)) {
        queue_turn(u);
    }
}

static void user_close(struct net_port *p)
{
    struct user *u = container_of(p, struct user, port);

    loop_task_cancel(&u->turn);
    net_attach(p, NULL, NULL);
    guestfwd_free(u->guestfwds);
    u->guestfwds = NULL;
    if (u->slirp) {
        slirp_cleanup(u->slirp);
    }
    loop_task_cancel(&u->turn);
    loop_timer_free(u->timer);
    for (size_t fd = 0; fd < u->n_watch; fd++) {
        loop_fd_free(u->watch[fd].w);
    }
    while (!list_empty(&u->waiting)) {
        struct waiting *w = list_entry(u->waiting.next, struct waiting, link);

        list_remove(&w->link);
        free(w);
    }
    free(u->watch);
    net_port_done(p);
    free(u);
}

static const struct net_port_ops user_ops = {
    .kind = "user",
    .send = user_send,
    .recv_ready = user_recv_ready,
    .close = user_close,
};

static int add_forwards(struct user *u, const struct user_options *o, struct err *e)
{
    int rc = 0;

    for (unsigned i = 0; i < o->n_forward && rc == 0; i++) {
        struct user_forward f;

        rc = user_parse_forward(o->forward[i], true, &f, e);
        if (rc != 0) {
            err_prefix(e, "network card '%s': forward '%s'", o->name, o->forward[i]);
        }
        if (rc == 0 && slirp_add_hostxfwd(u->slirp, (struct sockaddr *)&f.from, f.from_len,
                                          (struct sockaddr *)&f.to, f.to_len,
                                          f.udp ? SLIRP_HOSTFWD_UDP : 0) < 0) {
            rc = err_errno(e, errno, "network card '%s': cannot listen for the forward '%s'",
                           o->name, o->forward[i]);
        }
    }
    for (unsigned i = 0; i < o->n_guest_forward && rc == 0; i++) {
        struct user_forward f;

        rc = user_parse_forward(o->guest_forward[i], false, &f, e);
        if (rc == 0) {
            rc = guestfwd_add(&u->guestfwds, u->loop, u->slirp, &f, e);
        }
        if (rc != 0) {
            err_prefix(e, "network card '%s': guest forward '%s'", o->name,
                       o->guest_forward[i]);
        }
    }
    return rc;
}

struct net_port *user_new(struct loop *l, const struct user_options *o, struct err *e)
{
    SlirpConfig cfg = { .version = 4 };
    const char *search[17] = { NULL };
    struct user *u;

    memcpy(search, o->search, o->n_search * sizeof(search[0]));
    if (user_parse_config(o, &cfg, e) != 0) {
        return NULL;
    }
    cfg.vdnssearch = o->n_search ? search : NULL;
    u = xnew(struct user);
    net_port_init(&u->port, &user_ops, o->name, NET_OFF_TSO4 | NET_OFF_TSO6 | NET_OFF_ECN);
    u->loop = l;
    list_init(&u->waiting);
    loop_task_init(&u->turn, on_turn, u);
    u->timer = loop_timer_new(l, on_timeout, u);
    u->slirp = slirp_new(&cfg, &callbacks, u);
    if (!u->slirp) {
        err_set(e, -EINVAL, "network card '%s': libslirp refuses the addresses", o->name);
        user_close(&u->port);
        return NULL;
    }
    if (add_forwards(u, o, e) != 0) {
        user_close(&u->port);
        return NULL;
    }
    queue_turn(u);
    return &u->port;
}
