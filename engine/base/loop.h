/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Event loop: one libevent base, run by one thread. Each object belongs to one loop, and
 * loop_post() is the only door between threads. vCPU threads run no loop.
 */
#ifndef VMD_BASE_LOOP_H
#define VMD_BASE_LOOP_H

#include "engine/base/err.h"
#include "engine/base/list.h"

#include <stdbool.h>
#include <stdint.h>

struct loop;
struct loop_fd;
struct loop_timer;
struct loop_signal;

struct loop *loop_new(struct err *e); /* NULL on failure */
void loop_free(struct loop *l);       /* after loop_run returned; NULL is fine; runs no pending post */
/* Runs until loop_quit(). Owner thread. Returns 0, or a negative code when the backend failed. */
int loop_run(struct loop *l, struct err *e);
/* Handles what is ready now, waiting at most timeout_ns (0: not at all, -1: until something). */
int loop_run_once(struct loop *l, int64_t timeout_ns, struct err *e);
void loop_quit(struct loop *l); /* any thread */
bool loop_in_thread(const struct loop *l);

/* Runs fn(arg) on the loop's thread, in order of posting. Any thread; never blocks for long. */
void loop_post(struct loop *l, void (*fn)(void *arg), void *arg);

/* Work for the end of a turn: when the callbacks of this turn have run, before the loop waits again, so that what
 * many of them want done is done once. Queued again while it waits, it still runs once. The struct is its user's and
 * stays where it is until it has run or is cancelled. Owner thread. */
struct loop_task {
    struct list link; /* alone while not queued */
    void (*fn)(void *arg);
    void *arg;
};
void loop_task_init(struct loop_task *t, void (*fn)(void *arg), void *arg);
void loop_task_queue(struct loop *l, struct loop_task *t);
void loop_task_cancel(struct loop_task *t);

enum { LOOP_READ = 1, LOOP_WRITE = 2 };
/* Level-triggered readiness. The descriptor stays the caller's. Owner thread, all of these.
 * A descriptor that cannot be polled (a file, /dev/null) is ready every turn. Freeing a watcher,
 * timer or signal inside its own callback is fine; all are freed before their loop. */
struct loop_fd *loop_fd_new(struct loop *l, int fd, unsigned events,
                            void (*fn)(void *arg, int fd, unsigned events), void *arg);
void loop_fd_set(struct loop_fd *w, unsigned events);
void loop_fd_free(struct loop_fd *w);

/* One-shot timers on CLOCK_MONOTONIC; re-armed by the callback if wanted. Owner thread. */
struct loop_timer *loop_timer_new(struct loop *l, void (*fn)(void *arg), void *arg);
void loop_timer_arm(struct loop_timer *t, int64_t after_ns);
void loop_timer_disarm(struct loop_timer *t);
void loop_timer_free(struct loop_timer *t);

struct loop_signal *loop_signal_new(struct loop *l, int signo, void (*fn)(void *arg, int signo),
                                    void *arg);
void loop_signal_free(struct loop_signal *s);

#endif
