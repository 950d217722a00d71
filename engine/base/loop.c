/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Event loop on libevent. Owns the event base, the queue of posted calls and the eventfd that
 * wakes the loop. One thread runs it; only loop_post(), loop_quit() and loop_in_thread() are
 * open to others (post_lock protects the queue, `quit` and `owner` are atomic).
 */
#include "engine/base/loop.h"

#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/timers.h"

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
    struct event *wake;    /* wake_fd became readable */
    struct event *expired; /* the timers' descriptor did */
    struct timers timers;
    struct loop_timer *limit; /* ends loop_run_once's wait */
    uint64_t handled;         /* callbacks that ran */
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
    l->handled++;
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

static void on_limit(void *arg)
{
    (void)arg; /* counted as handled: what it is for */
}

/* Timers are called at the end of a turn, whatever woke the loop. */
static void on_expired(evutil_socket_t fd, short what, void *arg)
{
    struct loop *l = arg;
    (void)fd;
    (void)what;
    timers_woke(&l->timers);
}

/* libevent's own words. It warns where add() below knows what to do, hence only for debugging. */
static void on_libevent_log(int severity, const char *text)
{
    log_write(severity == EVENT_LOG_ERR ? LOG_ERROR : LOG_DEBUG, "loop", "%s", text);
}

/* libevent ends the process when it cannot make its signal sockets: see first whether the
 * descriptors that a base takes (epoll, a socket pair) can be had. */
static bool have_descriptors(int fd)
{
    int spare[3];
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

/* No locks: loop_post() is the only door. Timers are not libevent's, but for those of descriptors that cannot be polled. */
static struct event_base *new_base(void)
{
    struct event_config *cfg = event_config_new();
    if (!cfg) {
        return NULL;
    }
    event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK);
    struct event_base *base = event_base_new_with_config(cfg);
    event_config_free(cfg);
    return base;
}

/* False: libevent refuses one of the loop's own descriptors. */
static bool watch_own(struct loop *l)
{
    l->wake = event_new(l->base, l->wake_fd, EV_READ | EV_PERSIST, on_wake, l);
    l->expired = event_new(l->base, l->timers.fd, EV_READ | EV_PERSIST | EV_ET, on_expired, l);
    return l->wake && l->expired && event_add(l->wake, NULL) == 0 &&
           event_add(l->expired, NULL) == 0;
}

struct loop *loop_new(struct err *e)
{
    struct loop *l = xnew(struct loop);
    l->posts_tail = &l->posts;
    list_init(&l->tasks);
    pthread_mutex_init(&l->post_lock, NULL);
    atomic_init(&l->owner, pthread_self());
    l->timers.fd = -1;
    l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->wake_fd < 0) {
        err_errno(e, errno, "event loop: cannot make an eventfd");
        loop_free(l);
        return NULL;
    }
    if (timers_init(&l->timers, e) < 0) {
        loop_free(l);
        return NULL;
    }
    l->limit = loop_timer_new(l, on_limit, NULL);
    event_set_log_callback(on_libevent_log);
    if (!have_descriptors(l->wake_fd)) {
        err_set(e, -EMFILE, "event loop: no descriptors are left; raise the limit (ulimit -n)");
        loop_free(l);
        return NULL;
    }
    l->base = new_base();
    if (!l->base || !watch_own(l)) {
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
    if (l->expired) {
        event_free(l->expired);
    }
    if (l->base) {
        event_base_free(l->base);
    }
    loop_timer_free(l->limit);
    timers_end(&l->timers);
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

/* Tasks may have been queued, or timers come due, before the loop ran: then nothing is waited for. */
static int turn(struct loop *l, int flags, struct err *e)
{
    if (!list_empty(&l->tasks)) {
        run_tasks(l);
        l->handled++;
        flags |= EVLOOP_NONBLOCK;
    }
    if (timers_due(&l->timers)) {
        flags |= EVLOOP_NONBLOCK;
    }
    if (event_base_loop(l->base, flags) < 0) {
        return err_set(e, -EIO, "event loop: libevent's backend failed");
    }
    l->handled += timers_run(&l->timers);
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

int loop_run_once(struct loop *l, int64_t timeout_ns, struct err *e)
{
    uint64_t before = l->handled;
    int rc;

    atomic_store(&l->owner, pthread_self());
    if (timeout_ns == 0) {
        return turn(l, EVLOOP_ONCE | EVLOOP_NONBLOCK, e);
    }
    if (timeout_ns > 0) {
        loop_timer_arm(l->limit, timeout_ns);
    }
    do { /* the clock of a timer that was disarmed wakes the loop, and is nothing */
        rc = turn(l, EVLOOP_ONCE, e);
    } while (rc == 0 && l->handled == before);
    loop_timer_disarm(l->limit);
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
    w->loop->handled++;
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

struct loop_timer *loop_timer_new(struct loop *l, void (*fn)(void *arg), void *arg)
{
    return timers_new(&l->timers, fn, arg);
}

struct loop_signal {
    struct loop *loop;
    struct event *ev;
    void (*fn)(void *arg, int signo);
    void *arg;
};

static void on_signal(evutil_socket_t signo, short what, void *arg)
{
    (void)what;
    struct loop_signal *s = arg;
    s->loop->handled++;
    s->fn(s->arg, signo);
}

struct loop_signal *loop_signal_new(struct loop *l, int signo, void (*fn)(void *arg, int signo),
                                    void *arg)
{
    struct loop_signal *s = xnew(struct loop_signal);
    s->loop = l;
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
