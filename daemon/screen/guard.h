/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slows down who guesses passwords: an address whose guesses were wrong GUARD_FREE times is not asked any more for four seconds, then for
 * eight, up to GUARD_LONGEST_S. 32 addresses are remembered; a new one takes the place of the one not heard of for the longest.
 * A pure function of what it is told: the clock is the caller's.
 */
#ifndef VMD_DAEMON_SCREEN_GUARD_H
#define VMD_DAEMON_SCREEN_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#define GUARD_FREE 3
#define GUARD_LONGEST_S 64
#define GUARD_PLACES 32

struct guard {
    struct {
        char host[56]; /* "": free */
        unsigned wrong;
        int64_t until_ns, last_ns;
    } places[GUARD_PLACES];
};

/* May this address try? */
bool guard_open(const struct guard *g, const char *host, int64_t now_ns);
void guard_wrong(struct guard *g, const char *host, int64_t now_ns);
void guard_right(struct guard *g, const char *host);

#endif
