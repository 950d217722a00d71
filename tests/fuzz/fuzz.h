/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fuzz target: one input to what an outsider can reach. A target is a file that defines the functions below; it is
 * linked with driver.c (corpus and random inputs, no special compiler) or with clang's -fsanitize=fuzzer. One thread
 * calls; a finding is an abort, a sanitizer's report, or an input that takes longer than FUZZ_INPUT_SECONDS.
 */
#ifndef VMD_TESTS_FUZZ_FUZZ_H
#define VMD_TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define FUZZ_INPUT_MAX 4096
#define FUZZ_INPUT_SECONDS 60

/* What the target gives. */
extern const char fuzz_name[];
void fuzz_setup(void);                           /* once, before the first input */
void fuzz_one(const uint8_t *data, size_t size); /* size is at most FUZZ_INPUT_MAX */
void fuzz_finish(void); /* frees everything, so that leaks show; may print "# ..." lines */

/* A finding: says what and aborts, which the driver turns into a saved input. */
#define FUZZ_FAIL(...)                                                                         \
    do {                                                                                       \
        fprintf(stderr, "%s: ", fuzz_name);                                                    \
        fprintf(stderr, __VA_ARGS__);                                                          \
        fputc('\n', stderr);                                                                   \
        abort();                                                                               \
    } while (0)

/* An input read from its front; behind its end come numbers that follow from all of it, so that a short one still is a
 * whole case. */
struct fuzz_in {
    const uint8_t *p, *end;
    uint64_t state;
};
void fuzz_in_init(struct fuzz_in *in, const uint8_t *data, size_t size);
uint8_t fuzz_8(struct fuzz_in *in);
uint64_t fuzz_64(struct fuzz_in *in);
/* 0 to n - 1; n is at most 65,536. */
unsigned fuzz_below(struct fuzz_in *in, unsigned n);
/* True one time in n. */
static inline bool fuzz_rarely(struct fuzz_in *in, unsigned n)
{
    return fuzz_below(in, n) == n - 1;
}
/* Splitmix64: the next number of a sequence. */
uint64_t fuzz_mix(uint64_t *state);

#endif
