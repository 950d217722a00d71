/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtual time and its timers. Owns struct clock and struct vtimer.
 *
 * Time is (virtual base, host base): a sequence lock lets any thread read the pair without
 * waiting. Timers hang in a list sorted by deadline under c->lock. A timerfd wakes the main
 * loop for the earliest. It is set anew only when a deadline comes before the one it is set for
 * (by a vCPU itself; other threads, which may not, post to the loop), so a guest that moves
 * its deadline ahead at each tick costs nothing; or by a vCPU that halts for long (clock_tidy()).
 */
#include "engine/core/clock.h"
#include "engine/base/list.h"
#include "engine/base/err.h"
#include "engine/base/mem.h"
#include "engine/core/vcpu.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NEVER UINT64_MAX
/* To set a timerfd costs some 10 us where clocks are a hypervisor's, to wake the loop for nothing more: vCPUs that halt more often leave it. */
#define TIDY_EVERY_NS 5000000u

struct clock {
    struct loop *loop;
    int timer; /* timerfd; readable until it is set again */
    struct loop_fd *watch;
    _Atomic unsigned refs; /* the owner and each post under way */

    /* odd: being written; the three below are written by the main thread */
    _Atomic uint32_t seq;
    _Atomic bool running;
    _Atomic uint64_t virtual_base, host_base;
    _Atomic int64_t wall_offset;

    pthread_mutex_t lock; /* the rest, and every vtimer's node and deadline */
    struct list armed;    /* sorted by deadline */
    struct list due;      /* expired, their functions are about to be called */
    /* virtual time for which the timerfd is set, NEVER: not set; written under lock */
    _Atomic uint64_t programmed;
    _Atomic uint64_t tidied; /* host time of the last clock_tidy() that did something */
    bool posted;             /* a post that will look again is under way */
    bool dead;               /* clock_free() was called */

    bool driven;           /* constant once anything runs */
    _Atomic uint64_t next; /* driven: deadline of the first armed timer */
    void (*armed_fn)(void *arg);
    void *armed_arg;
};

struct vtimer {
    struct clock *clock;
    struct list node;          /* in armed or due; alone: disarmed */
    _Atomic uint64_t deadline; /* written under clock->lock */
    void (*fn)(void *arg);
    void *arg;
};

static uint64_t host_ns(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- time ---- */

uint64_t clock_now(const struct clock *cc)
{
    struct clock *c = (struct clock *)cc;
    for (;;) {
        uint32_t seq = atomic_load_explicit(&c->seq, memory_order_acquire);
        /* Acquire and release on the data itself do a fence's work, and the thread sanitizer
         * understands them. */
        bool running = atomic_load_explicit(&c->running, memory_order_acquire);
        uint64_t base = atomic_load_explicit(&c->virtual_base, memory_order_acquire);
        uint64_t host = atomic_load_explicit(&c->host_base, memory_order_acquire);
        uint64_t now = running && !c->driven ? base + (host_ns(CLOCK_MONOTONIC) - host) : base;
        if (!(seq & 1) && atomic_load_explicit(&c->seq, memory_order_relaxed) == seq) {
            return now;
        }
    }
}

bool clock_running(const struct clock *c)
{
    return atomic_load_explicit(&((struct clock *)c)->running, memory_order_acquire);
}

/* From here on the clock runs or stands at *to, or at the time it is now (NULL). That is read
 * only after the sequence is odd (a full barrier): a reader that still finishes has seen an
 * earlier time, and no later one can run behind what it saw. Main thread. */
static void set_time(struct clock *c, bool running, const uint64_t *to)
{
    uint32_t seq = atomic_load_explicit(&c->seq, memory_order_relaxed);
    atomic_store(&c->seq, seq + 1);
    uint64_t host = host_ns(CLOCK_MONOTONIC);
    uint64_t base = to ? *to : atomic_load_explicit(&c->virtual_base, memory_order_relaxed);
    if (!to && clock_running(c) && !c->driven) {
        base += host - atomic_load_explicit(&c->host_base, memory_order_relaxed);
    }
    atomic_store_explicit(&c->running, running, memory_order_release);
    atomic_store_explicit(&c->virtual_base, base, memory_order_release);
    atomic_store_explicit(&c->host_base, host, memory_order_release);
    atomic_store_explicit(&c->seq, seq + 2, memory_order_release);
}

uint64_t clock_wall(const struct clock *c)
{
    uint64_t now = c->driven ? CLOCK_DRIVEN_EPOCH * UINT64_C(1000000000) + clock_now(c)
                             : host_ns(CLOCK_REALTIME);
    return now + (uint64_t)clock_wall_offset(c);
}

void clock_set_wall_offset(struct clock *c, int64_t ns)
{
    atomic_store(&c->wall_offset, ns);
}

int64_t clock_wall_offset(const struct clock *c)
{
    return atomic_load(&((struct clock *)c)->wall_offset);
}

/* ---- timers ---- */

/* Sets the timerfd for the earliest deadline. The main thread or a vCPU's, c->lock held. */
static void program_locked(struct clock *c)
{
    uint64_t first = list_empty(&c->armed)
                         ? NEVER
                         : atomic_load(
                               &list_entry(c->armed.next, struct vtimer, node)->deadline);
    struct itimerspec at = { 0 };

    atomic_store(&c->next, first);
    if (c->driven) {
        return;
    }
    if (!clock_running(c)) {
        first = NEVER;
    }
    atomic_store_explicit(&c->programmed, first, memory_order_relaxed);
    if (first != NEVER) {
        uint64_t now = clock_now(c), after = first > now ? first - now : 0;
        after = after > INT64_MAX / 2 ? INT64_MAX / 2 : after;
        after += host_ns(CLOCK_MONOTONIC);
        at.it_value = (struct timespec){ .tv_sec = (time_t)(after / 1000000000u),
                                         .tv_nsec = (long)(after % 1000000000u) };
    }
    timerfd_settime(c->timer, TFD_TIMER_ABSTIME, &at, NULL);
}

/* The clock's thread: calls what is due, then sets the loop's timer anew. A function that arms for
 * the past again waits for the next round, so that other events of the loop get their turn. */
void clock_run_due(struct clock *c)
{
    pthread_mutex_lock(&c->lock);
    uint64_t now = clock_now(c);
    while (clock_running(c) && !list_empty(&c->armed)) {
        struct vtimer *t = list_entry(c->armed.next, struct vtimer, node);
        if (atomic_load(&t->deadline) > now) {
            break;
        }
        list_remove(&t->node);
        list_append(&c->due, &t->node);
    }
    while (clock_running(c) && !list_empty(&c->due)) {
        struct vtimer *t = list_entry(c->due.next, struct vtimer, node);
        list_remove(&t->node);
        atomic_store(&t->deadline, NEVER);
        void (*fn)(void *arg) = t->fn;
        void *arg = t->arg;
        pthread_mutex_unlock(&c->lock);
        fn(arg); /* may free or re-arm any timer, or stop the clock */
        pthread_mutex_lock(&c->lock);
    }
    program_locked(c);
    pthread_mutex_unlock(&c->lock);
}

static void unref(struct clock *c)
{
    if (atomic_fetch_sub(&c->refs, 1) == 1) {
        pthread_mutex_destroy(&c->lock);
        free(c);
    }
}

static void on_post(void *arg)
{
    struct clock *c = arg;
    pthread_mutex_lock(&c->lock);
    c->posted = false;
    if (!c->dead) {
        program_locked(c);
    }
    pthread_mutex_unlock(&c->lock);
    unref(c);
}

static void on_timer(void *arg, int fd, unsigned events)
{
    (void)fd;
    (void)events;
    clock_run_due(arg);
}

struct clock *clock_new(struct loop *loop, struct err *e)
{
    struct clock *c = xnew(struct clock);
    c->loop = loop;
    c->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    c->watch = c->timer >= 0 ? loop_fd_new(loop, c->timer, LOOP_READ, on_timer, c) : NULL;
    if (!c->watch) {
        (void)err_errno(e, errno, "virtual time: cannot make a timerfd");
        if (c->timer >= 0) {
            close(c->timer);
        }
        free(c);
        return NULL;
    }
    atomic_init(&c->refs, 1);
    pthread_mutex_init(&c->lock, NULL);
    list_init(&c->armed);
    list_init(&c->due);
    c->programmed = NEVER;
    return c;
}

void clock_free(struct clock *c)
{
    if (!c) {
        return;
    }
    pthread_mutex_lock(&c->lock);
    c->dead = true;
    pthread_mutex_unlock(&c->lock);
    loop_fd_free(c->watch);
    close(c->timer);
    unref(c);
}

void clock_drive(struct clock *c, void (*armed)(void *arg), void *arg)
{
    c->armed_fn = armed;
    c->armed_arg = arg;
    c->driven = true;
    atomic_store(&c->next, NEVER);
}

bool clock_driven(const struct clock *c)
{
    return c->driven;
}

/* One 64-bit word changes: readers need no more than its atomicity. */
void clock_advance(struct clock *c, uint64_t ns)
{
    atomic_fetch_add_explicit(&c->virtual_base, ns, memory_order_release);
}

uint64_t clock_next_deadline(const struct clock *c)
{
    return atomic_load(&((struct clock *)c)->next);
}

void clock_start(struct clock *c)
{
    if (clock_running(c)) {
        return;
    }
    pthread_mutex_lock(&c->lock);
    set_time(c, true, NULL);
    program_locked(c);
    pthread_mutex_unlock(&c->lock);
}

/* Inserts by deadline. c->lock held, t alone. */
static void insert_locked(struct clock *c, struct vtimer *t, uint64_t deadline)
{
    struct list *after = c->armed.prev; /* most deadlines are later than all others */
    while (after != &c->armed &&
           atomic_load(&list_entry(after, struct vtimer, node)->deadline) > deadline) {
        after = after->prev;
    }
    list_insert(after, &t->node);
}

void clock_stop(struct clock *c)
{
    if (!clock_running(c)) {
        return;
    }
    pthread_mutex_lock(&c->lock);
    set_time(c, false, NULL);
    while (!list_empty(&c->due)) { /* stopped from within a timer's function */
        struct vtimer *t = list_entry(c->due.prev, struct vtimer, node);
        list_remove(&t->node);
        insert_locked(c, t, atomic_load(&t->deadline));
    }
    program_locked(c);
    pthread_mutex_unlock(&c->lock);
}

void clock_set(struct clock *c, uint64_t ns)
{
    pthread_mutex_lock(&c->lock);
    set_time(c, clock_running(c), &ns);
    program_locked(c);
    pthread_mutex_unlock(&c->lock);
}

struct vtimer *vtimer_new(struct clock *c, void (*fn)(void *arg), void *arg)
{
    struct vtimer *t = xnew(struct vtimer);
    t->clock = c;
    list_init(&t->node);
    atomic_init(&t->deadline, NEVER);
    t->fn = fn;
    t->arg = arg;
    return t;
}

void vtimer_free(struct vtimer *t)
{
    if (!t) {
        return;
    }
    vtimer_disarm(t);
    free(t);
}

void vtimer_arm(struct vtimer *t, uint64_t deadline_ns)
{
    struct clock *c = t->clock;
    bool post = false, tell = false;
    pthread_mutex_lock(&c->lock);
    list_remove(&t->node);
    atomic_store(&t->deadline, deadline_ns);
    if (deadline_ns != NEVER) {
        insert_locked(c, t, deadline_ns);
        if (c->driven) {
            tell = deadline_ns < atomic_load(&c->next);
        } else if (deadline_ns < atomic_load(&c->programmed) && clock_running(c)) {
            if (vcpu_current() || loop_in_thread(c->loop)) {
                program_locked(c);
            } else if (!c->posted) {
                c->posted = post = true;
                atomic_fetch_add(&c->refs, 1);
            }
        }
    }
    if (c->driven) {
        program_locked(c);
    }
    pthread_mutex_unlock(&c->lock);
    if (tell) {
        c->armed_fn(c->armed_arg);
    }
    if (post) {
        loop_post(c->loop, on_post, c);
    }
}

void clock_tidy(struct clock *c)
{
    uint64_t set = atomic_load_explicit(&c->programmed, memory_order_relaxed), now;

    if (set == NEVER || c->driven) {
        return;
    }
    now = host_ns(CLOCK_MONOTONIC);
    if (now - atomic_load_explicit(&c->tidied, memory_order_relaxed) < TIDY_EVERY_NS) {
        return;
    }
    pthread_mutex_lock(&c->lock);
    if (clock_running(c) && set == atomic_load(&c->programmed) && set > clock_now(c) &&
        (list_empty(&c->armed) ||
         atomic_load(&list_entry(c->armed.next, struct vtimer, node)->deadline) > set)) {
        atomic_store(&c->tidied, now);
        program_locked(c);
    }
    pthread_mutex_unlock(&c->lock);
}

void vtimer_disarm(struct vtimer *t)
{
    vtimer_arm(t, NEVER);
}

uint64_t vtimer_deadline(const struct vtimer *t)
{
    return atomic_load(&((struct vtimer *)t)->deadline);
}
