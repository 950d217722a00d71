/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What network cards do for their drivers, in software: filling in Internet checksums and cutting large
 * TCP and UDP segments. Pure functions, any thread. Frames come from guests and peers: nothing in them is trusted.
 */
#ifndef VMD_NETWORK_OFFLOAD_H
#define VMD_NETWORK_OFFLOAD_H

#include "network/port.h"

/* The one's complement sum of the bytes, not inverted; `odd`: they begin at an odd place of the whole. */
uint32_t net_sum(const void *p, size_t n, bool odd, uint32_t sum);
uint16_t net_sum_fold(uint32_t sum);

/* Whether the header's fields fit the frame of `len` bytes (virtio 1.2 §5.1.6.2). */
bool net_hdr_ok(const struct net_hdr *h, size_t len);
/* The NET_OFF_... that a receiver has to take to get the frame as it is. */
unsigned net_hdr_needs(const struct net_hdr *h);

/* Fills in the checksum that h asks for, in place, and makes h that of a plain frame. A large TCP segment stays one, with
 * one checksum. The header was checked. -EINVAL: the frame is not what its header says, or larger than a packet can be. */
int net_csum_fill(uint8_t *frame, size_t len, struct net_hdr *h);

/* Cuts a frame (contiguous, checked) into segments of h->gso_size, each with its checksums, and gives them to fn in
 * order until that returns non-zero, which is passed on. -EINVAL: not what its header says. */
int net_segment(uint8_t *frame, size_t len, const struct net_hdr *h,
                int (*fn)(void *arg, const struct net_frame *f), void *arg);

#endif
