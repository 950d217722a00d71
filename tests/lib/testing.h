/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every libcheck program shares: running its suites, and the seed of random tests.
 * A test program is main() { return test_main(argc, argv, suite_a, suite_b, NULL); }.
 * Owns nothing; one thread.
 */
#ifndef VMD_TESTS_TESTING_H
#define VMD_TESTS_TESTING_H

#include <check.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The seed of this run: --seed N or VMD_TEST_SEED, else from the clock; printed once so that
 * a failure can be run again. Never 0. */
static inline uint64_t test_seed(void)
{
    const char *s = getenv("VMD_TEST_SEED");
    uint64_t seed;
    if (s && *s) {
        seed = strtoull(s, NULL, 0);
    } else {
        struct timespec ts;
        clock_gettime(CLOCK_REALTIME, &ts);
        seed = ((uint64_t)ts.tv_sec * 1000003u) ^ (uint64_t)ts.tv_nsec;
    }
    seed = seed ? seed : 1;
    printf("# seed %llu (again with --seed %llu)\n", (unsigned long long)seed,
           (unsigned long long)seed);
    fflush(stdout);
    return seed;
}

/* How many I/O threads pools of disks have: VMD_TEST_IO_THREADS (tests/block/io_threads.py), else none. */
static inline unsigned test_io_threads(void)
{
    const char *s = getenv("VMD_TEST_IO_THREADS");

    return s ? (unsigned)strtoul(s, NULL, 10) : 0;
}

/* xorshift64*: enough for tests; *state is never 0. */
static inline uint64_t test_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * UINT64_C(2685821657736338717);
}

/* Runs the suites that the functions (ended by NULL) make. Takes --seed N and --no-fork (for a
 * debugger). Returns the exit status of the program. */
static inline int test_main(int argc, char **argv, ...)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            setenv("VMD_TEST_SEED", argv[++i], 1);
        } else if (strcmp(argv[i], "--no-fork") == 0) {
            setenv("CK_FORK", "no", 1);
        } else {
            fprintf(stderr, "usage: %s [--seed N] [--no-fork]\n", argv[0]);
            return 2;
        }
    }
    SRunner *runner = srunner_create(NULL);
    Suite *(*make)(void);
    va_list ap;
    va_start(ap, argv);
    while ((make = va_arg(ap, Suite * (*)(void)))) {
        srunner_add_suite(runner, make());
    }
    va_end(ap);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}

#endif
