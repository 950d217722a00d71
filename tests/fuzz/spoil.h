/* SPDX-License-Identifier: Apache-2.0 */
/* A machine's state with other bytes in it and sums that are right, for fuzz targets. Included by one target each. */
#ifndef VMD_TESTS_FUZZ_SPOIL_H
#define VMD_TESTS_FUZZ_SPOIL_H

#include "tests/fuzz/fuzz.h"

#include <zlib.h>

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Changes bytes of one part in a few: its object lies behind two texts and a length, its sum behind it. */
static unsigned spoil(uint8_t *p, size_t n, struct fuzz_in *in)
{
    unsigned changed = 0;

    for (size_t at = 0; at < n && p[at] != 0;) {
        at += 1u + p[at];
        at += 1u + p[at];
        uint32_t len = get32(p + at), sum;
        uint8_t *object = p + at + 4;

        if (fuzz_rarely(in, 4)) {
            for (unsigned i = 1 + fuzz_below(in, 4); i > 0; i--) {
                uint32_t where = (fuzz_below(in, 65536) << 8 | fuzz_8(in)) % len;

                object[where] = fuzz_rarely(in, 2) ? fuzz_8(in)
                                                   : object[where] ^ 1 << fuzz_below(in, 8);
            }
            sum = (uint32_t)crc32_z(0, p + at, len + 4);
            for (unsigned i = 0; i < 4; i++) {
                object[len + i] = (uint8_t)(sum >> 8 * i);
            }
            changed++;
        }
        at += 8u + len;
    }
    return changed;
}

#endif
