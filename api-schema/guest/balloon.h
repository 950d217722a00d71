/* SPDX-License-Identifier: Apache-2.0 */
/* Figures of a memory balloon (engine/base/statspage.h) as the API has them. Pure. */
#ifndef VMD_API_GUEST_BALLOON_H
#define VMD_API_GUEST_BALLOON_H

#include <stdbool.h>
#include <stdint.h>

struct api_balloon_stats;
struct stats_balloon;

/* now_ns: CLOCK_BOOTTIME. False: there is no balloon, *out is empty. */
bool balloon_stats(const struct stats_balloon *s, int64_t now_ns,
                   struct api_balloon_stats *out);

#endif
