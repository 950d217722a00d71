/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Event loop on libevent. Owns the event base, the queue of posted calls and the eventfd that
 * wakes the loop. One thread runs it; only loop_post(), loop_quit() and loop_in_thread() are
 * open to others (post_lock protects the queue, `quit` and `owner` are atomic).
 */
#include "engine/base/loop.h"

#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct post {
    struct post *next;
    void (*fn)(void *arg);
    void *arg;
};

struct loop {
    struct event_base *base;
    struct event *wake;  /* wake_fd became readable */
    struct event *limit; /* ends loop_run_once's wait */
    int wake_fd;
    atomic_bool quit;
    _Atomic(pthread_t) owner; /* its maker, then whoever runs it */
    pthread_mutex_t post_lock;
    struct post *posts, **posts_tail; /* post_lock */
    struct list tasks;                /* struct loop_task, for the end of this turn */
};

static void wake(struct loop *l)
{
    uint64_t one = 1;
    ssize_t done;
    do { /* EAGAIN: the counter is full, so the loop is about to wake anyway */
        done = write(l->wake_fd, &one, sizeof(one));
    } while (done < 0 && errno == EINTR);
}

/* Runs the calls posted so far; those that they post wait for the next turn. */
static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct loop *l = arg;
    uint64_t count;
    if (read(fd, &count, sizeof(count)) < 0) {
        /* nothing there: a spurious wake */
    }
    pthread_mutex_lock(&l->post_lock);
    struct post *p = l->posts;
    l->posts = NULL;
    l->posts_tail = &l->posts;
    pthread_mutex_unlock(&l->post_lock);
    while (p) {
        struct post *next = p->next;
        p->fn(p->arg);
        free(p);
        p = next;
    }
}

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
}

/* libevent's own words. It warns where add() below knows what to do, hence only for debugging. */
static void on_libevent_log(int severity, const char *text)
{
    log_write(severity == EVENT_LOG_ERR ? LOG_ERROR : LOG_DEBUG, "loop", "%s", text);
}

/* libevent ends the process when it cannot make its signal sockets: see first whether the
 * descriptors that a base takes (epoll, timerfd, a socket pair) can be had. */
static bool have_descriptors(int fd)
{
    int spare[4];
    size_t n = 0;
    while (n < ARRAY_LEN(spare) && (spare[n] = fcntl(fd, F_DUPFD_CLOEXEC, 0)) >= 0) {
        n++;
    }
    bool enough = n == ARRAY_LEN(spare);
    while (n > 0) {
        close(spare[--n]);
    }
    return enough;
}

/* Microsecond timers on CLOCK_MONOTONIC (a timerfd beside epoll) and no cached time: guest
 * timers hang on these, and a callback may run long. No locks: loop_post() is the only door. */
static struct event_base *new_base(void)
{
    struct event_config *cfg = event_config_new();
    if (!cfg) {
        return NULL;
    }
    event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK);
    event_config_set_flag(cfg, EVENT_BASE_FLAG_PRECISE_TIMER);
    event_config_set_flag(cfg, EVENT_BASE_FLAG_NO_CACHE_TIME);
    struct event_base *base = event_base_new_with_config(cfg);
    event_config_free(cfg);
    return base;
}

struct loop *loop_new(struct err *e)
{
    struct loop *l = xnew(struct loop);
    l->posts_tail = &l->posts;
    list_init(&l->tasks);
    pthread_mutex_init(&l->post_lock, NULL);
    atomic_init(&l->owner, pthread_self());
    l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->wake_fd < 0) {
        err_errno(e, errno, "event loop: cannot make an eventfd");
        loop_free(l);
        return NULL;
    }
    event_set_log_callback(on_libevent_log);
    if (!have_descriptors(l->wake_fd)) {
        err_set(e, -EMFILE, "event loop: no descriptors are left; raise the limit (ulimit -n)");
        loop_free(l);
        return NULL;
    }
    l->base = new_base();
    if (l->base) {
        l->wake = event_new(l->base, l->wake_fd, EV_READ | EV_PERSIST, on_wake, l);
        l->limit = evtimer_new(l->base, on_limit, l);
    }
    if (!l->wake || !l->limit || event_add(l->wake, NULL) < 0) {
        err_set(e, -EIO, "event loop: libevent cannot make an event base");
        loop_free(l);
        return NULL;
    }
    return l;
}

void loop_free(struct loop *l)
{
    if (!l) {
        return;
    }
    if (l->wake) {
        event_free(l->wake);
    }
    if (l->limit) {
        event_free(l->limit);
    }
    if (l->base) {
        event_base_free(l->base);
    }
    if (l->wake_fd >= 0) {
        close(l->wake_fd);
    }
    while (l->posts) {
        struct post *p = l->posts;
        l->posts = p->next;
        free(p);
    }
    pthread_mutex_destroy(&l->post_lock);
    free(l);
}

void loop_task_init(struct loop_task *t, void (*fn)(void *arg), void *arg)
{
    list_init(&t->link);
    t->fn = fn;
    t->arg = arg;
}

void loop_task_queue(struct loop *l, struct loop_task *t)
{
    if (list_empty(&t->link)) {
        list_append(&l->tasks, &t->link);
    }
}

void loop_task_cancel(struct loop_task *t)
{
    list_remove(&t->link);
}

static void run_tasks(struct loop *l)
{
    while (!list_empty(&l->tasks)) {
        struct loop_task *t = list_entry(l->tasks.next, struct loop_task, link);
        list_remove(&t->link);
        t->fn(t->arg);
    }
}

/* Tasks may have been queued before the loop ran: with them something was handled, and nothing is waited for. */
static int turn(struct loop *l, int flags, struct err *e)
{
    if (!list_empty(&l->tasks)) {
        run_tasks(l);
        flags |= EVLOOP_NONBLOCK;
    }
    if (event_base_loop(l->base, flags) < 0) {
        return err_set(e, -EIO, "event loop: libevent's backend failed");
    }
    run_tasks(l);
    return 0;
}

int loop_run(struct loop *l, struct err *e)
{
    atomic_store(&l->owner, pthread_self());
    int rc = 0;
    while (!rc && !atomic_load(&l->quit)) {
        rc = turn(l, EVLOOP_ONCE, e);
    }
    atomic_store(&l->quit, false);
    return rc;
}

/* Rounds up: a timer never fires early. */
static struct timeval to_timeval(int64_t ns)
{
    int64_t us = ns <= 0 ? 0 : ns / 1000 + (ns % 1000 != 0);
    return (struct timeval){ .tv_sec = us / 1000000, .tv_usec = us % 1000000 };
}

int loop_run_once(struct loop *l, int64_t timeout_ns, struct err *e)
{
    atomic_store(&l->owner, pthread_self());
    if (timeout_ns == 0) {
        return turn(l, EVLOOP_ONCE | EVLOOP_NONBLOCK, e);
    }
    if (timeout_ns > 0) {
        struct timeval tv = to_timeval(timeout_ns);
        event_add(l->limit, &tv);
    }
    int rc = turn(l, EVLOOP_ONCE, e);
    event_del(l->limit);
    return rc;
}

void loop_quit(struct loop *l)
{
    atomic_store(&l->quit, true);
    wake(l);
}

bool loop_in_thread(const struct loop *l)
{
    return pthread_equal(atomic_load(&l->owner), pthread_self());
}

void loop_post(struct loop *l, void (*fn)(void *arg), void *arg)
{
    struct post *p = xnew(struct post);
    p->fn = fn;
    p->arg = arg;
    pthread_mutex_lock(&l->post_lock);
    bool first = l->posts == NULL;
    *l->posts_tail = p;
    l->posts_tail = &p->next;
    pthread_mutex_unlock(&l->post_lock);
    if (first) {
        wake(l);
    }
}

/* --- descriptors ---------------------------------------------------------------------------- */

struct loop_fd {
    struct loop *loop;
    struct event *ev;
    int fd;
    unsigned events;
    bool always; /* epoll refuses files and /dev/null, which are always ready: see add() */
    void (*fn)(void *arg, int fd, unsigned events);
    void *arg;
};

static void add(struct loop_fd *w);

/* The last thing done here is the call: the callback may free the watcher. */
static void on_fd(evutil_socket_t fd, short what, void *arg)
{
    struct loop_fd *w = arg;
    (void)fd;
    unsigned events = (what & EV_READ ? LOOP_READ : 0) | (what & EV_WRITE ? LOOP_WRITE : 0);
    if (w->always) {
        events = w->events;
        add(w);
    }
    w->fn(w->arg, w->fd, events);
}

/* Starts watching. A descriptor that cannot be polled becomes a timer of zero. */
static void add(struct loop_fd *w)
{
    if (!w->always) {
        short what = (short)((w->events & LOOP_READ ? EV_READ : 0) |
                             (w->events & LOOP_WRITE ? EV_WRITE : 0) | EV_PERSIST);
        event_assign(w->ev, w->loop->base, w->fd, what, on_fd, w);
        if (event_add(w->ev, NULL) == 0) {
            return;
        }
        w->always = true;
        evtimer_assign(w->ev, w->loop->base, on_fd, w);
    }
    struct timeval now = { 0, 0 };
    event_add(w->ev, &now);
}

struct loop_fd *loop_fd_new(struct loop *l, int fd, unsigned events,
                            void (*fn)(void *arg, int fd, unsigned events), void *arg)
{
    struct loop_fd *w = xnew(struct loop_fd);
    w->loop = l;
    w->fd = fd;
    w->fn = fn;
    w->arg = arg;
    w->ev = xalloc(event_get_struct_event_size());
    evtimer_assign(w->ev, l->base, on_fd, w);
    loop_fd_set(w, events);
    return w;
}

void loop_fd_set(struct loop_fd *w, unsigned events)
{
    if (w->events == events) {
        return;
    }
    w->events = events;
    event_del(w->ev);
    if (events) {
        add(w);
    }
}

void loop_fd_free(struct loop_fd *w)
{
    if (w) {
        event_del(w->ev);
        free(w->ev);
        free(w);
    }
}

/* --- timers and signals --------------------------------------------------------------------- */

struct loop_timer {
    struct event *ev;
    void (*fn)(void *arg);
    void *arg;
};

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct loop_timer *t = arg;
    t->fn(t->arg);
}

struct loop_timer *loop_timer_new(struct loop *l, void (*fn)(void *arg), void *arg)
{
    struct loop_timer *t = xnew(struct loop_timer);
    t->fn = fn;
    t->arg = arg;
    t->ev = xalloc(event_get_struct_event_size());
    evtimer_assign(t->ev, l->base, on_timer, t);
    return t;
}

void loop_timer_arm(struct loop_timer *t, int64_t after_ns)
{
    struct timeval tv = to_timeval(after_ns);
    event_add(t->ev, &tv); /* replaces the time when already armed */
}

void loop_timer_disarm(struct loop_timer *t)
{
    event_del(t->ev);
}

void loop_timer_free(struct loop_timer *t)
{
    if (t) {
        event_del(t->ev);
        free(t->ev);
        free(t);
    }
}

struct loop_signal {
    struct event *ev;
    void (*fn)(void *arg, int signo);
    void *arg;
};

static void on_signal(evutil_socket_t signo, short what, void *arg)
{
    (void)what;
    struct loop_signal *s = arg;
    s->fn(s->arg, signo);
}

struct loop_signal *loop_signal_new(struct loop *l, int signo, void (*fn)(void *arg, int signo),
                                    void *arg)
{
    struct loop_signal *s = xnew(struct loop_signal);
    s->fn = fn;
    s->arg = arg;
    s->ev = xalloc(event_get_struct_event_size());
    evsignal_assign(s->ev, l->base, signo, on_signal, s);
    event_add(s->ev, NULL);
    return s;
}

void loop_signal_free(struct loop_signal *s)
{
    if (s) {
        event_del(s->ev);
        free(s->ev);
        free(s);
    }
}
