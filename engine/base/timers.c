/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Timers of an event loop. Owns struct loop_timer and the loop's timerfd.
 */
#include "engine/base/timers.h"

#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NS UINT64_C(1000000000)
#define DISARMED SIZE_MAX

struct loop_timer {
    struct timers *timers;
    uint64_t deadline; /* CLOCK_MONOTONIC, ns */
    uint64_t turn;     /* among those of one deadline, the first armed comes first */
    size_t at;         /* in the heap, or DISARMED */
    void (*fn)(void *arg);
    void *arg;
};

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
}

int timers_init(struct timers *ts, struct err *e)
{
    *ts = (struct timers){ .set = TIMERS_NEVER };
    ts->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    return ts->fd >= 0 ? 0 : err_errno(e, errno, "event loop: cannot make a timerfd");
}

void timers_end(struct timers *ts)
{
    if (ts->fd >= 0) {
        close(ts->fd);
    }
    free(take_ptr(ts->heap));
    ts->fd = -1;
}

/* ---- the heap ---- */

static bool before(const struct loop_timer *a, const struct loop_timer *b)
{
    return a->deadline != b->deadline ? a->deadline < b->deadline : a->turn < b->turn;
}

static void put(struct timers *ts, size_t at, struct loop_timer *t)
{
    ts->heap[at] = t;
    t->at = at;
}

/* Finds the place of t, for which the place `at` is free. */
static void sift(struct timers *ts, size_t at, struct loop_timer *t)
{
    while (at > 0 && before(t, ts->heap[(at - 1) / 2])) {
        put(ts, at, ts->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (size_t child = 2 * at + 1; child < ts->n; child = 2 * at + 1) {
        if (child + 1 < ts->n && before(ts->heap[child + 1], ts->heap[child])) {
            child++;
        }
        if (!before(ts->heap[child], t)) {
            break;
        }
        put(ts, at, ts->heap[child]);
        at = child;
    }
    put(ts, at, t);
}

static void take(struct timers *ts, struct loop_timer *t)
{
    struct loop_timer *last = ts->heap[--ts->n];

    if (last != t) {
        sift(ts, t->at, last);
    }
    t->at = DISARMED;
}

/* ---- one timer ---- */

struct loop_timer *timers_new(struct timers *ts, void (*fn)(void *arg), void *arg)
{
    struct loop_timer *t = xnew(struct loop_timer);

    *t = (struct loop_timer){ .timers = ts, .at = DISARMED, .fn = fn, .arg = arg };
    return t;
}

void loop_timer_arm(struct loop_timer *t, int64_t after_ns)
{
    struct timers *ts = t->timers;
    uint64_t now = now_ns(), after = after_ns > 0 ? (uint64_t)after_ns : 0;

    t->deadline = now + after;
    t->turn = ts->next_turn++;
    if (t->at == DISARMED) {
        if (ts->n == ts->room) {
            ts->room = ts->room ? 2 * ts->room : 8;
            ts->heap = xrealloc_n(ts->heap, ts->room, sizeof(struct loop_timer *));
        }
        t->at = ts->n++;
    }
    sift(ts, t->at, t);
}

void loop_timer_disarm(struct loop_timer *t)
{
    if (t->at != DISARMED) {
        take(t->timers, t);
    }
}

void loop_timer_free(struct loop_timer *t)
{
    if (t) {
        loop_timer_disarm(t);
        free(t);
    }
}

/* ---- all of them ---- */

bool timers_due(struct timers *ts)
{
    uint64_t first = ts->n > 0 ? ts->heap[0]->deadline : TIMERS_NEVER;
    struct itimerspec at = { .it_value = { .tv_sec = (time_t)(first / NS),
                                           .tv_nsec = (long)(first % NS) } };

    if (first == TIMERS_NEVER) {
        return false;
    }
    if (first <= now_ns()) {
        return true;
    }
    if (first < ts->set) {
        ts->set = first;
        timerfd_settime(ts->fd, TFD_TIMER_ABSTIME, &at, NULL);
    }
    return false;
}

void timers_woke(struct timers *ts)
{
    ts->set = TIMERS_NEVER;
}

size_t timers_run(struct timers *ts)
{
    uint64_t end = ts->next_turn, now;
    size_t n = 0;

    if (ts->n == 0) {
        return 0;
    }
    for (now = now_ns(); ts->n > 0; n++) {
        struct loop_timer *t = ts->heap[0];

        if (t->deadline > now || t->turn >= end) {
            break;
        }
        take(ts, t);
        t->fn(t->arg); /* may free it */
    }
    return n;
}
