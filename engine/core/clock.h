/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtual time: nanoseconds since the VM first ran; stands still while the VM is paused.
 * Timers fire on the VM's main loop. Reading is lock-free from any thread (sequence-locked
 * offset).
 */
#ifndef VMD_CORE_CLOCK_H
#define VMD_CORE_CLOCK_H

#include "engine/base/loop.h"

#include <stdbool.h>
#include <stdint.h>

struct clock;
struct vtimer;

struct clock *clock_new(struct loop *loop); /* stopped at 0 */
void clock_free(struct clock *c);
uint64_t clock_now(const struct clock *c); /* ns, any thread */
void clock_start(struct clock *c);         /* main thread */
void clock_stop(struct clock *c);
void clock_set(struct clock *c, uint64_t ns); /* while stopped: restore */
bool clock_running(const struct clock *c);    /* any thread */
/* Sets what is added to the host's time of day. Main thread. */
void clock_set_wall_offset(struct clock *c, int64_t ns);
int64_t clock_wall_offset(const struct clock *c);
/* Wall-clock time of day in ns since 1970 (host's, plus the VM's offset), for RTCs. Any
 * thread. */
uint64_t clock_wall(const struct clock *c);

/* fn runs on the main loop when the deadline has passed, never with the clock stopped. */
struct vtimer *vtimer_new(struct clock *c, void (*fn)(void *arg), void *arg);
void vtimer_free(struct vtimer *t); /* main thread */
/* Arms for an absolute virtual time; re-arming replaces. UINT64_MAX disarms. Any thread,
 * never blocks; a deadline in the past fires soon. */
void vtimer_arm(struct vtimer *t, uint64_t deadline_ns);
void vtimer_disarm(struct vtimer *t);
uint64_t vtimer_deadline(const struct vtimer *t); /* UINT64_MAX when disarmed */

#endif
