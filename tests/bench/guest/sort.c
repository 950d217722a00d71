/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sorting: the C library's qsort() with a comparison by pointer, a quicksort of our own and a radix
 * sort. Arguments: elements, rounds.
 */
#include "tests/bench/guest/bench.h"

struct record {
    uint32_t key;
    uint32_t value;
};

static int by_key(const void *a, const void *b)
{
    const struct record *x = a;
    const struct record *y = b;

    return x->key < y->key   ? -1
           : x->key > y->key ? 1
                             : (x->value > y->value) - (x->value < y->value);
}

static void quick(uint32_t *low, uint32_t *high)
{
    while (high - low > 12) {
        uint32_t pivot = low[(high - low) / 2];
        uint32_t *a = low;
        uint32_t *b = high;

        while (a <= b) {
            while (*a < pivot) {
                a++;
            }
            while (*b > pivot) {
                b--;
            }
            if (a <= b) {
                uint32_t swap = *a;

                *a++ = *b;
                *b-- = swap;
            }
        }
        if (b - low < high - a) {
            quick(low, b);
            low = a;
        } else {
            quick(a, high);
            high = b;
        }
    }
    for (uint32_t *a = low + 1; a <= high; a++) {
        uint32_t value = *a;
        uint32_t *b = a;

        for (; b > low && b[-1] > value; b--) {
            *b = b[-1];
        }
        *b = value;
    }
}

static void radix(uint64_t *from, uint64_t *to, size_t count)
{
    for (int shift = 0; shift < 64; shift += 8) {
        size_t starts[257] = { 0 };

        for (size_t i = 0; i < count; i++) {
            starts[(from[i] >> shift & 255) + 1]++;
        }
        for (int i = 0; i < 256; i++) {
            starts[i + 1] += starts[i];
        }
        for (size_t i = 0; i < count; i++) {
            to[starts[from[i] >> shift & 255]++] = from[i];
        }
        uint64_t *swap = from;

        from = to;
        to = swap;
    }
}

int main(int argc, char **argv)
{
    size_t count = (size_t)bench_argument(argc, argv, 1, 1000);
    long rounds = bench_argument(argc, argv, 2, 1);
    struct record *records = bench_alloc(count * sizeof *records);
    uint32_t *words = bench_alloc(count * sizeof *words);
    uint64_t *longs = bench_alloc(count * sizeof *longs);
    uint64_t *scratch = bench_alloc(count * sizeof *scratch);
    uint64_t seed = 99;
    uint64_t hash = BENCH_FNV_SEED;

    bench_begin();
    for (long round = 0; round < rounds; round++) {
        for (size_t i = 0; i < count; i++) {
            uint64_t value = bench_random(&seed);

            records[i] = (struct record){ (uint32_t)(value >> 40), (uint32_t)i };
            words[i] = (uint32_t)value;
            longs[i] = value;
        }
        qsort(records, count, sizeof *records, by_key);
        quick(words, words + count - 1);
        radix(longs, scratch, count);
        for (size_t i = 1; i < count; i++) {
            if (words[i - 1] > words[i] || longs[i - 1] > longs[i] ||
                by_key(&records[i - 1], &records[i]) > 0) {
                bench_fail("not in order");
            }
        }
        hash = bench_mix(hash, words[count / 3] ^ longs[count / 2] ^ records[count / 4].value);
    }
    bench_end(hash);
    return 0;
}
