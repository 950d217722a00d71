/* SPDX-License-Identifier: Apache-2.0 */
/* See guard.h. Owns nothing. */
#include "daemon/screen/guard.h"

#include "engine/base/str.h"

#include <string.h>

static int find(const struct guard *g, const char *host)
{
    for (int i = 0; i < GUARD_PLACES; i++) {
        if (g->places[i].host[0] && strcmp(g->places[i].host, host) == 0) {
            return i;
        }
    }
    return -1;
}

bool guard_open(const struct guard *g, const char *host, int64_t now_ns)
{
    int i = find(g, host);

    return i < 0 || now_ns >= g->places[i].until_ns;
}

void guard_wrong(struct guard *g, const char *host, int64_t now_ns)
{
    int i = find(g, host);

    if (i < 0) {
        i = 0;
        for (int k = 1; k < GUARD_PLACES && g->places[i].host[0]; k++) {
            if (!g->places[k].host[0] || g->places[k].last_ns < g->places[i].last_ns) {
                i = k;
            }
        }
        memset(&g->places[i], 0, sizeof(g->places[i]));
        str_copy(g->places[i].host, sizeof(g->places[i].host), host);
    }
    g->places[i].last_ns = now_ns;
    if (++g->places[i].wrong >= GUARD_FREE) {
        unsigned doubled = g->places[i].wrong - GUARD_FREE;
        int64_t s = doubled < 4 ? INT64_C(4) << doubled : GUARD_LONGEST_S;

        g->places[i].until_ns = now_ns + s * INT64_C(1000000000);
    }
}

void guard_right(struct guard *g, const char *host)
{
    int i = find(g, host);

    if (i >= 0) {
        g->places[i].host[0] = 0;
    }
}
