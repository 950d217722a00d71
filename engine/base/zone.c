/* SPDX-License-Identifier: Apache-2.0 */
/* See zone.h. */
#include "engine/base/zone.h"

#include <time.h>

int64_t zone_offset(void)
{
    time_t now = time(NULL);
    struct tm tm;

    return localtime_r(&now, &tm) ? tm.tm_gmtoff : 0;
}
