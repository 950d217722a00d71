/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments of TCP that follow each other, made one large one: a receiver that takes those (NET_OFF_TSO4, NET_OFF_TSO6) is
 * called once for many, and still learns from the header how large the segments were, which decides when it
 * acknowledges. Pure functions, any thread. Frames are plain ones, with every checksum filled in.
 */
#ifndef VMD_NETWORK_COALESCE_H
#define VMD_NETWORK_COALESCE_H

#include "network/port.h"

/* What is known of a frame that others may be added to. */
struct net_large {
    struct net_hdr hdr; /* of the whole, as it is now */
    size_t l4, payload; /* offsets */
    uint32_t next;      /* the sequence number that continues it */
    bool open;          /* a segment may be added */
};

/* Looks at the first segment: anything but whole, unfragmented TCP without options is not `open`. */
void net_large_begin(struct net_large *g, const uint8_t *frame, size_t len);
/* Whether the frame continues `whole`, which has *len bytes. */
bool net_large_fits(const struct net_large *g, const uint8_t *whole, size_t len,
                    const uint8_t *frame, size_t n);
/* Adds a frame that fits to `whole`, which has room for NET_MAX_FRAME. */
void net_large_add(struct net_large *g, uint8_t *whole, size_t *len, const uint8_t *frame,
                   size_t n);
/* Makes the headers of what was added to those of one large segment. Nothing is added after. */
void net_large_end(struct net_large *g, uint8_t *whole, size_t len);

#endif
