/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DiskThrottle of the API as limits (engine/base/limits.h), and QMP's words for its members. Pure.
 */
#ifndef VMD_API_DISK_LIMITS_H
#define VMD_API_DISK_LIMITS_H

#include "engine/base/limits.h"

struct api_disk_throttle;

/* NULL: no limits. */
void disk_limits(const struct api_disk_throttle *t, struct limits *out);
/* Limits i < LIMIT_KINDS, as block_set_io_throttle and query-block call them: "bps", "bps_max", "bps_max_length". */
struct disk_limit_words {
    const char *rate, *burst, *length;
};
extern const struct disk_limit_words disk_limit_words[LIMIT_KINDS];
/* Puts numbers into the members of *t that limit i is. */
void disk_limit_put(struct api_disk_throttle *t, unsigned i, const struct limit *l);

#endif
