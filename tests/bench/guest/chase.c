/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pointer chasing: one cycle through all nodes of a pool, in random order, each node a line of its
 * own. Arguments: KiB of pool, million steps.
 */
#include "tests/bench/guest/bench.h"

struct node {
    struct node *next;
    uint64_t value;
    uint64_t pad[6];
};

int main(int argc, char **argv)
{
    size_t count = ((size_t)bench_argument(argc, argv, 1, 64) << 10) / sizeof(struct node);
    long steps = bench_argument(argc, argv, 2, 1) * 1000000;
    struct node *pool = bench_alloc(count * sizeof *pool);
    uint32_t *order = bench_alloc(count * sizeof *order);
    struct node *at = pool;
    uint64_t seed = 5;
    uint64_t sum = 0;

    for (size_t i = 0; i < count; i++) {
        order[i] = (uint32_t)i;
    }
    for (size_t i = count - 1; i > 0; i--) {
        size_t j = bench_random(&seed) % i;
        uint32_t swap = order[i];

        order[i] = order[j];
        order[j] = swap;
    }
    for (size_t i = 0; i < count; i++) {
        pool[order[i]].next = &pool[order[(i + 1) % count]];
        pool[order[i]].value = i;
    }
    bench_begin();
    for (long i = 0; i < steps; i++) {
        sum += at->value;
        at = at->next;
    }
    bench_end(sum);
    return 0;
}
