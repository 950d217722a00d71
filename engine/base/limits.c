/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leaky buckets. Owns nothing; any thread.
 */
#include "engine/base/limits.h"

#include <errno.h>

static double seconds_of_burst(const struct limit *l)
{
    return l->length ? (double)l->length : 1;
}

double limit_size(const struct limit *l)
{
    return l->burst ? (double)l->burst * seconds_of_burst(l) : (double)l->rate / 10;
}

static double leaked(double level, uint64_t rate, int64_t ns)
{
    level -= (double)rate * ((double)ns / 1e9);
    return level > 0 ? level : 0;
}

void bucket_leak(struct bucket *b, int64_t ns)
{
    b->level = leaked(b->level, b->limit.rate, ns);
    b->burst_level = leaked(b->burst_level, b->limit.burst, ns);
}

/* Until so much has leaked at that rate; a nanosecond more, so that rounding never lets it wait for 0. */
static int64_t time_for(double units, double rate)
{
    double ns = units > 0 ? units / rate * 1e9 + 1 : 0;

    return ns < 1e18 ? (int64_t)ns : INT64_C(1000000000000000000);
}

int64_t bucket_wait(const struct bucket *b)
{
    const struct limit *l = &b->limit;
    int64_t wait, burst;

    if (l->rate == 0) {
        return 0;
    }
    wait = time_for(b->level - limit_size(l), (double)l->rate);
    if (l->length <= 1) {
        return wait;
    }
    burst = time_for(b->burst_level - (double)l->burst / 10, (double)l->burst);
    return burst > wait ? burst : wait;
}

void bucket_fill(struct bucket *b, double units)
{
    if (b->limit.rate) {
        b->level += units;
    }
    if (b->limit.length > 1) {
        b->burst_level += units;
    }
}

/* --- limits --- */

bool limits_none(const struct limits *l)
{
    for (unsigned i = 0; i < LIMIT_KINDS; i++) {
        if (l->at[i].rate) {
            return false;
        }
    }
    return true;
}

static int check_one(const struct limit *l, struct err *e)
{
    if (l->rate > LIMIT_MAX || l->burst > LIMIT_MAX) {
        return err_set(e, -EINVAL, "a limit is at most %llu a second",
                       (unsigned long long)LIMIT_MAX);
    }
    if (l->burst && l->rate == 0) {
        return err_set(e, -EINVAL, "a burst needs the limit that it goes beyond");
    }
    if (l->burst && l->burst < l->rate) {
        return err_set(e, -EINVAL, "a burst cannot be slower than its limit");
    }
    if (l->length > 1 && l->burst == 0) {
        return err_set(e, -EINVAL, "the length of a burst needs the burst's rate");
    }
    if (l->burst && l->length > LIMIT_MAX / l->burst) {
        return err_set(e, -EINVAL, "a burst at that rate cannot last so long");
    }
    return 0;
}

int limits_check(const struct limits *l, struct err *e)
{
    bool ops = false;

    for (unsigned i = 0; i < LIMIT_KINDS; i += 3) {
        const struct limit *both = &l->at[i];
        bool total = both[0].rate || both[0].burst;
        bool single = both[1].rate || both[2].rate || both[1].burst || both[2].burst;

        if (total && single) {
            return err_set(
                e, -EINVAL,
                "a limit of reads and writes together excludes one of reads or of writes");
        }
        ops = i == LIMIT_OPS && (total || single);
    }
    for (unsigned i = 0; i < LIMIT_KINDS; i++) {
        int rc = check_one(&l->at[i], e);

        if (rc != 0) {
            return rc;
        }
    }
    if (l->op_size && !ops) {
        return err_set(e, -EINVAL, "the size of a request needs a limit of requests");
    }
    return 0;
}
