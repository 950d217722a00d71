/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DiskThrottle as limits: one table. Owns nothing; any thread.
 */
#include "api-schema/disk/limits.h"

#include "api-schema/gen/types.h"

#include <stddef.h>
#include <string.h>

const struct disk_limit_words disk_limit_words[LIMIT_KINDS] = {
    [LIMIT_BYTES] = { "bps", "bps_max", "bps_max_length" },
    [LIMIT_READ_BYTES] = { "bps_rd", "bps_rd_max", "bps_rd_max_length" },
    [LIMIT_WRITE_BYTES] = { "bps_wr", "bps_wr_max", "bps_wr_max_length" },
    [LIMIT_OPS] = { "iops", "iops_max", "iops_max_length" },
    [LIMIT_READ_OPS] = { "iops_rd", "iops_rd_max", "iops_rd_max_length" },
    [LIMIT_WRITE_OPS] = { "iops_wr", "iops_wr_max", "iops_wr_max_length" },
};

#define AT(member)                                                                             \
    {                                                                                          \
        offsetof(struct api_disk_throttle, member##_sec),                                      \
            offsetof(struct api_disk_throttle, member##_sec_max),                              \
            offsetof(struct api_disk_throttle, member##_sec_max_length)                        \
    }
static const struct {
    size_t rate, burst, length; /* int64_t */
} at[LIMIT_KINDS] = {
    [LIMIT_BYTES] = AT(total_bytes),       [LIMIT_READ_BYTES] = AT(read_bytes),
    [LIMIT_WRITE_BYTES] = AT(write_bytes), [LIMIT_OPS] = AT(total_iops),
    [LIMIT_READ_OPS] = AT(read_iops),      [LIMIT_WRITE_OPS] = AT(write_iops),
};

static uint64_t get(const struct api_disk_throttle *t, size_t offset)
{
    int64_t v;

    memcpy(&v, (const char *)t + offset, sizeof(v));
    return v > 0 ? (uint64_t)v : 0;
}

static void put(struct api_disk_throttle *t, size_t offset, uint64_t v)
{
    int64_t n = (int64_t)v;

    memcpy((char *)t + offset, &n, sizeof(n));
}

void disk_limits(const struct api_disk_throttle *t, struct limits *out)
{
    *out = (struct limits){ .op_size = t ? (uint64_t)t->size_iops_sec : 0 };
    for (unsigned i = 0; t && i < LIMIT_KINDS; i++) {
        out->at[i] = (struct limit){ .rate = get(t, at[i].rate),
                                     .burst = get(t, at[i].burst),
                                     .length = get(t, at[i].length) };
    }
}

void disk_limit_put(struct api_disk_throttle *t, unsigned i, const struct limit *l)
{
    put(t, at[i].rate, l->rate);
    put(t, at[i].burst, l->burst);
    put(t, at[i].length, l->length);
}
