/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The timers of one event loop: a heap and one timerfd that wakes the loop. The timerfd is set anew only for a deadline
 * before the one it has; after a timer that was disarmed or moved ahead it wakes the loop for nothing, once. To set
 * a clock anew at each turn costs more than a turn where clocks are the hypervisor's (ADR 0049). Thread of the loop.
 */
#ifndef VMD_BASE_TIMERS_H
#define VMD_BASE_TIMERS_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TIMERS_NEVER UINT64_MAX

struct loop_timer;

struct timers {
    int fd;             /* readable (edge) when `set` has come */
    uint64_t set;       /* ns of CLOCK_MONOTONIC that fd wakes at, TIMERS_NEVER: it doesn't */
    uint64_t next_turn; /* number of the next timer that is armed */
    struct loop_timer **heap;
    size_t n, room;
};

int timers_init(struct timers *ts,
                struct err *e);     /* 0, or a negative code without a descriptor */
void timers_end(struct timers *ts); /* all its timers are freed before */

struct loop_timer *timers_new(struct timers *ts, void (*fn)(void *arg), void *arg);

/* True: one is due. False: the timerfd is set for the first one. */
bool timers_due(struct timers *ts);
/* Calls what is due, earliest first, but nothing that is armed meanwhile. Returns how many. */
size_t timers_run(struct timers *ts);
void timers_woke(struct timers *ts); /* fd has become readable */

#endif
