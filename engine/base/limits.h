/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits a second on bytes and requests, of reads, of writes or of both together, and the buckets that keep them. Pure: the
 * user brings the time.
 *
 * Each limit is a leaky bucket. A request goes while the bucket is not over its size, and then fills it by its bytes (or by
 * one), so that none is too large to go; the bucket leaks at the rate of the limit. Without a burst it holds a tenth of a
 * second of the rate; with one, `length` seconds of the burst's rate, and then a second bucket of a tenth of a second leaks
 * at that rate. Over any time t no more than rate * t + size + one request therefore goes.
 */
#ifndef VMD_BASE_LIMITS_H
#define VMD_BASE_LIMITS_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum limit_kind {
    LIMIT_BYTES, /* of reads and writes together */
    LIMIT_READ_BYTES,
    LIMIT_WRITE_BYTES,
    LIMIT_OPS,
    LIMIT_READ_OPS,
    LIMIT_WRITE_OPS,
    LIMIT_KINDS
};

#define LIMIT_MAX UINT64_C(1000000000000000)

struct limits {
    struct limit {
        uint64_t rate;  /* a second; 0: no limit */
        uint64_t burst; /* a second; 0: none */
        uint64_t
            length; /* seconds that a burst may last, for a guest that did nothing before; 0: 1 */
    } at[LIMIT_KINDS];
    uint64_t
        op_size; /* bytes that count as one request: a larger one counts as several; 0: any is one */
};

/* Times are in ns of any one clock. */
struct bucket {
    struct limit limit;
    double level, burst_level;
};
void bucket_leak(struct bucket *b, int64_t ns);
/* How long until a request may go; 0: now. */
int64_t bucket_wait(const struct bucket *b);
void bucket_fill(struct bucket *b, double units);

/* -EINVAL with a sentence: what cannot be asked for together. */
int limits_check(const struct limits *l, struct err *e);
bool limits_none(const struct limits *l);
double limit_size(const struct limit *l); /* of its bucket */

#endif
