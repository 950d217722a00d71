/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compression: LZ77 with hash chains over generated text, then the way back. Arguments: KiB of text,
 * rounds.
 */
#include "tests/bench/guest/bench.h"

#define HASH_BITS 14
#define WINDOW 32768
#define CHAIN 24
#define MATCH_MAX 258

static int32_t heads[1 << HASH_BITS];
static int32_t *previous;

static unsigned hash3(const uint8_t *at)
{
    uint32_t value = at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16;

    return (value * 2654435761u) >> (32 - HASH_BITS);
}

/* Words of skewed frequency, so that there is something to find. */
static void make_text(uint8_t *text, size_t size)
{
    uint64_t seed = 7;
    size_t at = 0;

    while (at < size) {
        uint64_t value = bench_random(&seed);
        unsigned word = (unsigned)(value % 64) * (unsigned)((value >> 8) % 64);
        unsigned length = 2 + word % 9;

        for (unsigned i = 0; i < length && at < size; i++) {
            text[at++] = (uint8_t)('a' + (word * (i + 3) + i) % 26);
        }
        if (at < size) {
            text[at++] = (value >> 20) % 12 ? ' ' : '\n';
        }
    }
}

static size_t match_length(const uint8_t *a, const uint8_t *b, size_t limit)
{
    size_t length = 0;

    while (length < limit && a[length] == b[length]) {
        length++;
    }
    return length;
}

static size_t best_match(const uint8_t *text, size_t at, size_t size, size_t *distance)
{
    size_t limit = size - at < MATCH_MAX ? size - at : MATCH_MAX;
    int32_t candidate = heads[hash3(text + at)];
    size_t best = 0;

    for (int depth = 0; depth < CHAIN && candidate >= 0; depth++) {
        size_t length;

        if (at - (size_t)candidate > WINDOW) {
            break;
        }
        length = match_length(text + candidate, text + at, limit);
        if (length > best) {
            best = length;
            *distance = at - (size_t)candidate;
        }
        candidate = previous[candidate];
    }
    return best;
}

static void insert(const uint8_t *text, size_t at)
{
    unsigned slot = hash3(text + at);

    previous[at] = heads[slot];
    heads[slot] = (int32_t)at;
}

/* Tokens: 0 byte, or length-2 (1..256 in two bytes) with a distance of two bytes. */
static size_t compress(const uint8_t *text, size_t size, uint8_t *out)
{
    size_t at = 0;
    size_t used = 0;

    memset(heads, 0xff, sizeof heads);
    while (at < size) {
        size_t distance = 0;
        size_t length = at + 3 <= size ? best_match(text, at, size, &distance) : 0;
        size_t end;

        if (length < 4) {
            length = 1;
            out[used++] = 0;
            out[used++] = text[at];
        } else {
            out[used++] = 1;
            out[used++] = (uint8_t)(length - 3);
            out[used++] = (uint8_t)(distance - 1);
            out[used++] = (uint8_t)((distance - 1) >> 8);
        }
        for (end = at + length; at < end; at++) {
            if (at + 3 <= size) {
                insert(text, at);
            }
        }
    }
    return used;
}

static size_t expand(const uint8_t *in, size_t size, uint8_t *out)
{
    size_t made = 0;

    for (size_t at = 0; at < size;) {
        if (in[at] == 0) {
            out[made++] = in[at + 1];
            at += 2;
        } else {
            size_t length = (size_t)in[at + 1] + 3;
            size_t distance = (in[at + 2] | (size_t)in[at + 3] << 8) + 1;

            for (size_t i = 0; i < length; i++, made++) {
                out[made] = out[made - distance];
            }
            at += 4;
        }
    }
    return made;
}

int main(int argc, char **argv)
{
    size_t size = (size_t)bench_argument(argc, argv, 1, 64) << 10;
    long rounds = bench_argument(argc, argv, 2, 1);
    uint8_t *text = bench_alloc(size);
    uint8_t *packed = bench_alloc(size * 2 + 16);
    uint8_t *back = bench_alloc(size);
    uint64_t hash = BENCH_FNV_SEED;

    previous = bench_alloc(size * sizeof *previous);
    make_text(text, size);
    bench_begin();
    for (long i = 0; i < rounds; i++) {
        size_t used = compress(text, size, packed);

        if (expand(packed, used, back) != size || memcmp(back, text, size) != 0) {
            bench_fail("what came back differs");
        }
        hash = bench_mix(hash, used);
        text[(size_t)i * 97 % size] ^= 1;
    }
    hash = bench_hash(hash, packed, 4096);
    bench_end(hash);
    return 0;
}
