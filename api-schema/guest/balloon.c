/* SPDX-License-Identifier: Apache-2.0 */
/* See balloon.h. */
#include "api-schema/guest/balloon.h"

#include "api-schema/gen/types.h"
#include "engine/base/statspage.h"

#include <stddef.h>

/* The API's numbers are signed; a liar's figures stay within. */
static int64_t num(uint64_t v)
{
    return v > INT64_MAX ? INT64_MAX : (int64_t)v;
}

/* Where the guest's figures go, in the order of their tags. */
#define PLACE(m)                                                                               \
    {                                                                                          \
        offsetof(struct api_balloon_stats, m), offsetof(struct api_balloon_stats, has_##m)     \
    }
static const struct {
    size_t value, has;
} places[STATS_MAX_BALLOON] = {
    PLACE(swap_in),           PLACE(swap_out), PLACE(major_faults),
    PLACE(minor_faults),      PLACE(free),     PLACE(total),
    PLACE(available),         PLACE(caches),   PLACE(huge_pages_taken),
    PLACE(huge_pages_failed),
};

bool balloon_stats(const struct stats_balloon *s, int64_t now_ns, struct api_balloon_stats *out)
{
    *out = (struct api_balloon_stats){ .memory = num(s->memory),
                                       .target = num(s->target),
                                       .actual = num(s->actual),
                                       .driver = s->driver != 0,
                                       .given_back = num(s->given_back),
                                       .reported = num(s->reported) };
    if (s->memory == 0) {
        return false;
    }
    if (s->updated_ns > 0) {
        out->has_age_ms = true;
        out->age_ms = num(s->updated_ns) < now_ns ? (now_ns - num(s->updated_ns)) / 1000000 : 0;
    }
    for (unsigned i = 0; i < STATS_MAX_BALLOON; i++) {
        if (s->updated_ns > 0 && s->stat[i] != STATS_NOT_COUNTED) {
            *(int64_t *)((char *)out + places[i].value) = num(s->stat[i]);
            *(bool *)((char *)out + places[i].has) = true;
        }
    }
    return true;
}
