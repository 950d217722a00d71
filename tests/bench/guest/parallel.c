/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Independent work on several threads (a mix of integer work, memory and branches), no sharing but
 * the end. Also built for the host, to see what two native processes gain over one. Arguments:
 * threads, rounds of each thread.
 */
#include <pthread.h>

#include "tests/bench/guest/bench.h"

#define THREADS_MAX 16
#define TABLE 4096

static long rounds;

static void *work(void *argument)
{
    uint32_t *table = bench_alloc(TABLE * sizeof *table);
    uint64_t seed = (uint64_t)(intptr_t)argument + 1;
    uint64_t sum = 0;

    for (uint32_t i = 0; i < TABLE; i++) {
        table[i] = (uint32_t)bench_random(&seed);
    }
    for (long round = 0; round < rounds; round++) {
        for (uint32_t i = 0; i < TABLE; i++) {
            uint32_t value = table[(table[i] + (uint32_t)round) % TABLE];

            if (value & 1) {
                sum += value >> 3;
            } else {
                sum ^= (uint64_t)value << 7;
            }
            table[i] = value * 1664525u + 1013904223u;
        }
    }
    return (void *)(uintptr_t)sum;
}

int main(int argc, char **argv)
{
    int count = (int)bench_argument(argc, argv, 1, 1);
    pthread_t threads[THREADS_MAX];
    uint64_t hash = BENCH_FNV_SEED;

    rounds = bench_argument(argc, argv, 2, 1);
    if (count < 1 || count > THREADS_MAX) {
        bench_fail("threads");
    }
    bench_begin();
    for (int i = 0; i < count; i++) {
        pthread_create(&threads[i], NULL, work, (void *)(intptr_t)i);
    }
    for (int i = 0; i < count; i++) {
        void *sum;

        pthread_join(threads[i], &sum);
        hash = bench_mix(hash, (uintptr_t)sum);
    }
    bench_end(hash);
    return 0;
}
