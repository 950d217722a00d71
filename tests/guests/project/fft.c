/* SPDX-License-Identifier: Apache-2.0 */
/* A number-theoretic transform, exact on every machine, and fast convolution with it. */
#include "project.h"

#define PRIME 998244353u
#define ROOT 3u
#define POINTS 1024u

static uint32_t power(uint64_t base, uint32_t exponent)
{
    uint64_t result = 1;
    for (; exponent; exponent >>= 1) {
        if (exponent & 1) {
            result = result * base % PRIME;
        }
        base = base * base % PRIME;
    }
    return (uint32_t)result;
}

static void transform(uint32_t *v, unsigned n, bool inverse)
{
    for (unsigned i = 1, j = 0; i < n; i++) {
        unsigned bit = n >> 1;
        for (; j & bit; bit >>= 1) {
            j ^= bit;
        }
        j ^= bit;
        if (i < j) {
            uint32_t swap = v[i];
            v[i] = v[j];
            v[j] = swap;
        }
    }
    for (unsigned length = 2; length <= n; length *= 2) {
        uint32_t step = power(ROOT, (PRIME - 1) / length);
        if (inverse) {
            step = power(step, PRIME - 2);
        }
        for (unsigned start = 0; start < n; start += length) {
            uint64_t w = 1;
            for (unsigned k = 0; k < length / 2; k++) {
                uint32_t a = v[start + k];
                uint32_t b = (uint32_t)(v[start + k + length / 2] * w % PRIME);
                v[start + k] = a + b < PRIME ? a + b : a + b - PRIME;
                v[start + k + length / 2] = a >= b ? a - b : a + PRIME - b;
                w = w * step % PRIME;
            }
        }
    }
    if (inverse) {
        uint32_t scale = power(n, PRIME - 2);
        for (unsigned i = 0; i < n; i++) {
            v[i] = (uint32_t)((uint64_t)v[i] * scale % PRIME);
        }
    }
}

void report_fft(void)
{
    static uint32_t a[POINTS], b[POINTS], direct[POINTS];
    uint64_t seed = 42;
    for (unsigned i = 0; i < POINTS / 2; i++) {
        a[i] = (uint32_t)(next_random(&seed) % 1000);
        b[i] = (uint32_t)(next_random(&seed) % 1000);
    }
    for (unsigned i = 0; i < POINTS / 2; i++) {
        for (unsigned j = 0; j < POINTS / 2; j++) {
            direct[i + j] = (direct[i + j] + a[i] * b[j]) % PRIME;
        }
    }
    transform(a, POINTS, false);
    transform(b, POINTS, false);
    for (unsigned i = 0; i < POINTS; i++) {
        a[i] = (uint32_t)((uint64_t)a[i] * b[i] % PRIME);
    }
    transform(a, POINTS, true);
    unsigned wrong = 0;
    uint64_t sum = 0;
    for (unsigned i = 0; i < POINTS; i++) {
        wrong += a[i] != direct[i];
        sum = sum * 131 + a[i];
    }
    printf("wrong %u sum %016" PRIx64 "\n", wrong, sum);
}
