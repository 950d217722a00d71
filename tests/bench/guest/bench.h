/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every workload of the bench shares: its clock, its lines on the console and its checksum.
 *
 * A workload prepares its data, calls bench_begin(), works, and calls bench_end() with a checksum of
 * what it computed. The harness reads both lines, compares the checksum with the one of the row's
 * line in rows.py, and the seconds with the host's clock. Sizes come from the command line, so that
 * `make check` runs the same programs for a moment only.
 *
 * Threads: begin and end belong to the main thread.
 */
#ifndef BENCH_GUEST_BENCH_H
#define BENCH_GUEST_BENCH_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BENCH_FNV_SEED 0xcbf29ce484222325u

static struct timespec bench_start;

static inline const char *bench_row(void)
{
    const char *row = getenv("BENCH_ROW");

    return row ? row : "row";
}

static inline void bench_begin(void)
{
    printf("BENCH-BEGIN %s\n", bench_row());
    fflush(stdout);
    clock_gettime(CLOCK_MONOTONIC, &bench_start);
}

static inline void bench_end(uint64_t checksum)
{
    struct timespec end;
    double seconds;

    clock_gettime(CLOCK_MONOTONIC, &end);
    seconds = (double)(end.tv_sec - bench_start.tv_sec) +
              1e-9 * (double)(end.tv_nsec - bench_start.tv_nsec);
    printf("BENCH %s %.4f %016llx\n", bench_row(), seconds, (unsigned long long)checksum);
    fflush(stdout);
}

static inline void bench_fail(const char *what)
{
    printf("BENCH-FAIL %s %s\n", bench_row(), what);
    fflush(stdout);
    exit(1);
}

/* FNV-1a over bytes. */
static inline uint64_t bench_hash(uint64_t hash, const void *data, size_t size)
{
    const unsigned char *bytes = data;

    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    }
    return hash;
}

static inline uint64_t bench_mix(uint64_t hash, uint64_t value)
{
    return bench_hash(hash, &value, sizeof value);
}

/* A real result, rounded so that fused and separate multiply-adds agree. */
static inline uint64_t bench_mix_real(uint64_t hash, double value, int digits)
{
    char text[64];
    int length = snprintf(text, sizeof text, "%.*g", digits, value);

    return bench_hash(hash, text, (size_t)length);
}

/* xorshift64*: the same numbers everywhere. */
static inline uint64_t bench_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1du;
}

static inline long bench_argument(int argc, char **argv, int index, long otherwise)
{
    return index < argc ? strtol(argv[index], NULL, 10) : otherwise;
}

static inline void *bench_alloc(size_t size)
{
    void *memory = aligned_alloc(64, (size + 63) / 64 * 64);

    if (!memory) {
        bench_fail("memory");
    }
    memset(memory, 0, size);
    return memory;
}

#endif
