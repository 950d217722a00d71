/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading an input: see fuzz.h.
 */
#include "tests/fuzz/fuzz.h"

uint64_t fuzz_mix(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

void fuzz_in_init(struct fuzz_in *in, const uint8_t *data, size_t size)
{
    size_t i;

    in->p = data;
    in->end = data + size;
    in->state = size;
    for (i = 0; i < size; i++) {
        in->state = in->state * UINT64_C(0x100000001b3) ^ data[i];
    }
}

uint8_t fuzz_8(struct fuzz_in *in)
{
    return in->p < in->end ? *in->p++ : (uint8_t)fuzz_mix(&in->state);
}

uint64_t fuzz_64(struct fuzz_in *in)
{
    uint64_t value = 0;
    unsigned i;

    if (in->p == in->end) {
        return fuzz_mix(&in->state);
    }
    for (i = 0; i < 8; i++) {
        value = value << 8 | fuzz_8(in);
    }
    return value;
}

unsigned fuzz_below(struct fuzz_in *in, unsigned n)
{
    unsigned value = fuzz_8(in);

    if (n > 256) {
        value = value << 8 | fuzz_8(in);
    }
    return value % n;
}
