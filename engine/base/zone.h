/* SPDX-License-Identifier: Apache-2.0 */
/* The host's time zone. */
#ifndef VMD_ENGINE_BASE_ZONE_H
#define VMD_ENGINE_BASE_ZONE_H

#include <stdint.h>

/*
 * Seconds by which the host's local time is ahead of universal time now, summer time included; negative in the west. Reads the
 * time zone as tzset() left it, which log_init() calls. Any thread.
 */
int64_t zone_offset(void);

#endif
