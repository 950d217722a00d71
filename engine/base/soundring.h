/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that an emulator and its vmd-sound share: a ring of samples each way, of one writer and one reader, so that a
 * sound server that is slow or gone holds no guest up. Neither end trusts the other: what it reads of a ring's counters
 * is bounded before it is used, and the worst that the other can do is noise. Any thread of an end, one at a time.
 */
#ifndef VMD_BASE_SOUNDRING_H
#define VMD_BASE_SOUNDRING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SOUND_RING_BYTES (256u << 10) /* a power of two */

struct sound_ring {
    /* Bytes since the start: written by the writer, taken by the reader. */
    _Alignas(64) _Atomic uint64_t written;
    _Alignas(64) _Atomic uint64_t taken;
    /* vmd-sound moves nothing and has to be told (a byte on the socket) when this side has begun. */
    _Alignas(64) _Atomic bool asleep;
    _Alignas(64) _Atomic uint64_t turns; /* of the emulator's side: that it lives */
    _Alignas(64) uint8_t bytes[SOUND_RING_BYTES];
};

struct sound_rings {
    struct sound_ring play, record;
};

/* What can be read; never more than the ring has. */
static inline size_t sound_ring_filled(struct sound_ring *r)
{
    uint64_t n = atomic_load_explicit(&r->written, memory_order_acquire) -
                 atomic_load_explicit(&r->taken, memory_order_acquire);
    return n > SOUND_RING_BYTES ? 0 : (size_t)n;
}

static inline size_t sound_ring_room(struct sound_ring *r)
{
    return SOUND_RING_BYTES - sound_ring_filled(r);
}

/* Of n bytes, or of none where they have no room; false: none. The writer. */
static inline bool sound_ring_put(struct sound_ring *r, const void *p, size_t n)
{
    uint64_t at = atomic_load_explicit(&r->written, memory_order_relaxed);
    size_t first = SOUND_RING_BYTES - at % SOUND_RING_BYTES;

    if (n > sound_ring_room(r)) {
        return false;
    }
    first = first < n ? first : n;
    memcpy(r->bytes + at % SOUND_RING_BYTES, p, first);
    memcpy(r->bytes, (const uint8_t *)p + first, n - first);
    atomic_store_explicit(&r->written, at + n, memory_order_release);
    return true;
}

/* At most n bytes; how many. p NULL: they are passed over. The reader. */
static inline size_t sound_ring_get(struct sound_ring *r, void *p, size_t n)
{
    uint64_t at = atomic_load_explicit(&r->taken, memory_order_relaxed);
    size_t have = sound_ring_filled(r), first = SOUND_RING_BYTES - at % SOUND_RING_BYTES;

    n = n < have ? n : have;
    first = first < n ? first : n;
    if (p) {
        memcpy(p, r->bytes + at % SOUND_RING_BYTES, first);
        memcpy((uint8_t *)p + first, r->bytes, n - first);
    }
    atomic_store_explicit(&r->taken, at + n, memory_order_release);
    return n;
}

#endif
