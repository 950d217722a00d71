/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: requests of a guest to a virtio disk, in split and packed rings (devices.h).
 */
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "fuzz_virtio_blk";

#include "tests/fuzz/devices.h"

#define RING (RV_RAM + 0x30000)
#define DATA (RV_RAM + 0x34000)
enum { DESCRIPTORS = 16 };

struct part {
    uint64_t at;
    uint32_t length;
    bool in; /* the device writes it */
};

/* Reset, features with or without packed rings, queue 0 of 16 descriptors. */
static void queue_setup(struct fuzz_in *in, bool packed)
{
    uint64_t at = RV_VIRTIO;

    set(at + 0x70, 0, 4);
    set(at + 0x70, 3, 4);
    set(at + 0x14, 0, 4);
    set(at + 0x24, 0, 4);
    set(at + 0x20, get(at + 0x10, 4), 4);
    set(at + 0x24, 1, 4);
    set(at + 0x20, packed ? 5 : 1, 4); /* VERSION_1, RING_PACKED */
    set(at + 0x70, 11, 4);
    set(at + 0x30, fuzz_rarely(in, 16) ? fuzz_8(in) : 0, 4);
    set(at + 0x38, DESCRIPTORS, 4);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t to = fuzz_rarely(in, 16) ? somewhere(in) : RING + 0x400 * i;

        set(at + 0x80 + 0x10 * i, to & UINT32_MAX, 4);
        set(at + 0x84 + 0x10 * i, to >> 32, 4);
    }
    set(at + 0x44, 1, 4);
    set(at + 0x70, 15, 4);
}

/* Header, data in some pieces, status; what a spoiled one looks like is up to the input. */
static unsigned request(struct fuzz_in *in, struct part *p, unsigned room)
{
    static const uint8_t types[] = { 0, 1, 4, 8, 11, 13, 14, 0, 1 };
    unsigned type = fuzz_rarely(in, 12) ? fuzz_8(in) : types[fuzz_below(in, 9)], n = 0;
    unsigned pieces = fuzz_below(in, room - 2);

    poke(DATA, type, 4);
    poke(DATA + 4, fuzz_rarely(in, 4) ? fuzz_64(in) : 0, 4);
    poke(DATA + 8, fuzz_rarely(in, 8) ? fuzz_64(in) : fuzz_below(in, 2048), 8);
    p[n++] = (struct part){ DATA, fuzz_rarely(in, 8) ? fuzz_8(in) : 16, false };
    for (unsigned i = 0; i < pieces; i++) {
        uint32_t length = fuzz_rarely(in, 12) ? (uint32_t)fuzz_64(in)
                                              : 512u * fuzz_below(in, 9);

        if (type == 11 || type == 13 || type == 14) { /* ranges */
            length = 16u * fuzz_below(in, 5);
            poke(DATA + 0x100 + 0x40 * i, fuzz_rarely(in, 6) ? fuzz_64(in) : fuzz_8(in), 8);
            poke(DATA + 0x108 + 0x40 * i, fuzz_rarely(in, 6) ? fuzz_64(in) : fuzz_8(in), 8);
        }
        p[n++] = (struct part){ fuzz_rarely(in, 8) ? somewhere(in) : DATA + 0x100 + 0x40 * i,
                                length,
                                fuzz_rarely(in, 10) ? fuzz_8(in) & 1 : type == 0 || type == 8 };
    }
    p[n++] = (struct part){ DATA + 0x80, 1, !fuzz_rarely(in, 16) };
    return n;
}

static void split(struct fuzz_in *in, const struct part *p, unsigned n, bool indirect)
{
    uint64_t table = indirect ? DATA + 0x1000 : RING;

    for (unsigned i = 0; i < n; i++) {
        poke(table + 16 * i, p[i].at, 8);
        poke(table + 16 * i + 8, p[i].length, 4);
        poke(table + 16 * i + 12, (i + 1 < n) | p[i].in << 1, 2);
        poke(table + 16 * i + 14, fuzz_rarely(in, 32) ? fuzz_8(in) : i + 1, 2);
    }
    if (indirect) {
        poke(RING, table, 8);
        poke(RING + 8, fuzz_rarely(in, 16) ? (uint32_t)fuzz_64(in) : 16 * n, 4);
        poke(RING + 12, fuzz_rarely(in, 16) ? fuzz_8(in) : 4, 2);
    }
    poke(RING + 0x404, fuzz_rarely(in, 32) ? fuzz_8(in) : 0, 2);
    poke(RING + 0x402, fuzz_rarely(in, 32) ? fuzz_64(in) : 1, 2);
}

static void packed(struct fuzz_in *in, const struct part *p, unsigned n, bool indirect)
{
    uint64_t table = indirect ? DATA + 0x1000 : RING;

    for (unsigned i = n; i-- > 0;) { /* the first becomes available last */
        poke(table + 16 * i, p[i].at, 8);
        poke(table + 16 * i + 8, p[i].length, 4);
        poke(table + 16 * i + 12, fuzz_rarely(in, 32) ? fuzz_8(in) : i, 2);
        poke(table + 16 * i + 14, (i + 1 < n && !indirect) | p[i].in << 1 | 0x80, 2);
    }
    if (indirect) {
        poke(RING, table, 8);
        poke(RING + 8, fuzz_rarely(in, 16) ? (uint32_t)fuzz_64(in) : 16 * n, 4);
        poke(RING + 12, 0, 2);
        poke(RING + 14, fuzz_rarely(in, 16) ? fuzz_64(in) : 0x84, 2);
    }
}

static void blk(struct fuzz_in *in)
{
    struct part p[DESCRIPTORS];
    bool pack = fuzz_rarely(in, 2), indirect = fuzz_rarely(in, 2);
    unsigned n;

    queue_setup(in, pack);
    n = request(in, p, DESCRIPTORS);
    (pack ? packed : split)(in, p, n, indirect);
    set(RV_VIRTIO + 0x50, 0, 4);
    loop_run_once(loop, 0, NULL);
}

void fuzz_act(struct fuzz_in *in)
{
    switch (fuzz_below(in, 8)) {
    case 0:
        set(RV_VIRTIO + fuzz_below(in, 0x130), fuzz_64(in), 1u << fuzz_below(in, 4));
        break;
    case 1:
        get(RV_VIRTIO + fuzz_below(in, 0x130), 4);
        break;
    case 2:
        poke(somewhere(in), fuzz_64(in), 8);
        break;
    default:
        blk(in);
        break;
    }
}
