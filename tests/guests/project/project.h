/* SPDX-License-Identifier: Apache-2.0 */
/* What the modules of the report share: each prints a few lines that do not depend on the machine. */
#ifndef PROJECT_H
#define PROJECT_H

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* xorshift: the same numbers everywhere. */
static inline uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

void report_bigint(void);
void report_bits(void);
void report_expr(void);
void report_fft(void);
void report_hash(void);
void report_lzss(void);
void report_matrix(void);
void report_regex(void);
void report_sha256(void);
void report_sort(void);
void report_text(void);

#endif
