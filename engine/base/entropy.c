/* SPDX-License-Identifier: Apache-2.0 */
/* Randomness by how often each value occurs. Pure functions. */
#include "engine/base/entropy.h"

#define SAMPLES 16384u

bool looks_random(const uint8_t *p, size_t n)
{
    uint32_t seen[256] = { 0 };
    uint64_t squares = 0, total = 0;
    /* Odd where it is large, so that it is not one field of a structure over and over that is seen. */
    size_t step = n / SAMPLES < 5 ? 4 : n / SAMPLES | 1;

    if (n < SAMPLES) {
        return false; /* too few to tell */
    }
    for (size_t i = 0; i < n; i += step) {
        seen[p[i]]++;
        total++;
    }
    for (unsigned i = 0; i < 256; i++) {
        squares += (uint64_t)seen[i] * seen[i];
    }
    /* their sum is total^2 / 256 at least; chance adds about `total` */
    return squares * 256 < total * total + 4 * 256 * total;
}
