/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a link does to frames in one direction: bandwidth limits (average, peak, burst) and faults on purpose (loss, delay,
 * jitter, reordering, duplicates, corruption, a rate, a cut). Frames that wait are copies, at most IMPAIR_QUEUE bytes of them; more
 * are dropped, as by a switch. The loop's thread.
 */
#ifndef VMD_NETWORK_SERVER_IMPAIR_H
#define VMD_NETWORK_SERVER_IMPAIR_H

#include "engine/base/list.h"
#include "network/port.h"

#define IMPAIR_QUEUE (2u << 20)
#define IMPAIR_PPM 1000000u

struct impair_rules {
    unsigned loss, duplicate, reorder, corrupt; /* a million frames have so many */
    unsigned delay_us, jitter_us;
    uint64_t rate;                 /* bytes a second, 0: any */
    uint64_t average, peak, burst; /* the bandwidth that is the port's: bytes a second, bytes */
    bool cut;
};

struct impair {
    struct impair_rules rules;
    bool idle; /* the rules change nothing */
    struct loop_timer *timer;
    struct list waiting; /* by the time they are due */
    size_t queued;
    uint64_t seed;
    int64_t tat[3]; /* when the rate, the average and the peak were last used up */
    uint64_t dropped;
    void (*out)(void *arg, const struct net_frame *f);
    void (*flush)(void *arg); /* after frames that had waited */
    void *arg;
};

void impair_init(struct impair *im, struct loop *l, uint64_t seed,
                 void (*out)(void *arg, const struct net_frame *f), void (*flush)(void *arg),
                 void *arg);
void impair_done(struct impair *im); /* what waits is dropped */
void impair_set(struct impair *im, const struct impair_rules *r);
/* Passes it on, at once or later, or drops it. */
void impair_frame(struct impair *im, const struct net_frame *f);

#endif
