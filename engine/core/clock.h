/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtual time: nanoseconds since the VM first ran; stands still while the VM is paused.
 * Timers fire on the VM's main loop (unless the clock is driven, see clock_drive()). Reading is lock-free from any thread (sequence-locked
 * offset).
 */
#ifndef VMD_CORE_CLOCK_H
#define VMD_CORE_CLOCK_H

#include "engine/base/loop.h"

#include <stdbool.h>
#include <stdint.h>

struct clock;
struct vtimer;

struct clock *clock_new(struct loop *loop,
                        struct err *e); /* stopped at 0; NULL: no descriptors */
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

/* Virtual time no longer follows the host's: it is what clock_advance() makes it, and timers fire only inside clock_run_due(), on
 * its caller's thread, so their functions must be ready for that. armed(arg), any thread: a timer now is the
 * earliest. The time of day becomes a fixed date plus virtual time. Main thread, before anything runs. */
void clock_drive(struct clock *c, void (*armed)(void *arg), void *arg);
bool clock_driven(const struct clock *c);
/* The three below: the driver's thread, while clock_running(). */
void clock_advance(struct clock *c, uint64_t ns);
void clock_run_due(struct clock *c);
uint64_t clock_next_deadline(
    const struct clock *c);            /* UINT64_MAX: no timer is armed; any thread */
#define CLOCK_DRIVEN_EPOCH 1735689600u /* the date: 2025-01-01 00:00 UTC, seconds since 1970 */

/* fn runs on the main loop when the deadline has passed, never with the clock stopped. */
struct vtimer *vtimer_new(struct clock *c, void (*fn)(void *arg), void *arg);
void vtimer_free(struct vtimer *t); /* main thread */
/* Arms for an absolute virtual time; re-arming replaces. UINT64_MAX disarms. Any thread,
 * never blocks; a deadline in the past fires soon. */
void vtimer_arm(struct vtimer *t, uint64_t deadline_ns);
void vtimer_disarm(struct vtimer *t);
/* A vCPU halts, perhaps for long: the main loop is not woken for a deadline that has moved. Of its thread. */
void clock_tidy(struct clock *c);
uint64_t vtimer_deadline(const struct vtimer *t); /* UINT64_MAX when disarmed */

#endif
