/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The conversation of a vhost-user front end (specification "Vhost-user Protocol", §Message Specification): who is there,
 * what it can do, the memory that it gets, the rings. Once for each back end, with a deadline; any thread, which waits.
 */
#ifndef VMD_NETWORK_VHOST_TALK_H
#define VMD_NETWORK_VHOST_TALK_H

#include "engine/base/err.h"

#include <stdint.h>

/* Where the window is in the "guest physical" addresses of the back end, and in our "user" ones: any that is not 0. */
#define VHOST_GPA UINT64_C(0x100000000)
#define VHOST_F_PROTOCOL (1ull << 30)
#define VHOST_F_VERSION_1 (1ull << 32)

struct vhost_plan_ring {
    uint64_t desc_at, avail_at, used_at; /* in the window */
    unsigned size;                       /* entries */
    int kick, call;                      /* eventfds */
};

struct vhost_plan {
    int sock; /* connected */
    const char *name;
    uint64_t need,
        wish; /* features without which there is nothing, and those that serve; VERSION_1 is needed anyway */
    int window_fd;
    uint64_t window_size;
    const struct vhost_plan_ring *ring;
    unsigned n_rings,
        least_rings; /* in: those there are, those without which there is nothing; out: those that run */
    unsigned
        unit; /* rings that the device counts as one of its queues: two of a network card */
    uint64_t features; /* out: what was agreed upon */
};

/* From SET_OWNER to rings that run. All that is read of the back end is checked. */
int vhost_talk(struct vhost_plan *p, int64_t patience_ns, struct err *e);

#endif
