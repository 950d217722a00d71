/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fast Fourier transform, radix 2, in place, there and back. Compiled with REAL double or float.
 * Arguments: log2 of points, rounds.
 */
#include <math.h>

#include "tests/bench/guest/bench.h"

#ifndef REAL
#define REAL double
#endif

struct complex {
    REAL re;
    REAL im;
};

static struct complex *roots;
static size_t points;

static void reorder(struct complex *data)
{
    for (size_t i = 1, j = 0; i < points; i++) {
        size_t bit = points >> 1;

        for (; j & bit; bit >>= 1) {
            j ^= bit;
        }
        j ^= bit;
        if (i < j) {
            struct complex swap = data[i];

            data[i] = data[j];
            data[j] = swap;
        }
    }
}

static void transform(struct complex *data, REAL sign)
{
    reorder(data);
    for (size_t half = 1; half < points; half *= 2) {
        size_t stride = points / (half * 2);

        for (size_t base = 0; base < points; base += half * 2) {
            for (size_t k = 0; k < half; k++) {
                struct complex root = roots[k * stride];
                struct complex *a = &data[base + k];
                struct complex *b = a + half;
                REAL im = root.im * sign;
                REAL re = b->re * root.re - b->im * im;
                REAL ii = b->re * im + b->im * root.re;

                b->re = a->re - re;
                b->im = a->im - ii;
                a->re += re;
                a->im += ii;
            }
        }
    }
}

int main(int argc, char **argv)
{
    long rounds = bench_argument(argc, argv, 2, 1);
    struct complex *data;
    struct complex *original;
    uint64_t seed = 77;
    double worst = 0;
    double middle = 0;

    points = (size_t)1 << bench_argument(argc, argv, 1, 10);
    data = bench_alloc(points * sizeof *data);
    original = bench_alloc(points * sizeof *original);
    roots = bench_alloc(points / 2 * sizeof *roots);
    for (size_t i = 0; i < points / 2; i++) {
        double angle = 2 * 3.14159265358979323846 * (double)i / (double)points;

        roots[i] = (struct complex){ (REAL)cos(angle), (REAL)sin(angle) };
    }
    for (size_t i = 0; i < points; i++) {
        original[i].re = (REAL)((double)(bench_random(&seed) >> 40) / (1 << 24));
    }
    memcpy(data, original, points * sizeof *data);
    bench_begin();
    for (long round = 0; round < rounds; round++) {
        transform(data, -1);
        middle = (double)data[0].re;
        transform(data, 1);
        for (size_t i = 0; i < points; i++) {
            data[i].re /= (REAL)points;
            data[i].im /= (REAL)points;
        }
    }
    for (size_t i = 0; i < points; i++) {
        double error = fabs((double)(data[i].re - original[i].re));

        worst = error > worst ? error : worst;
    }
    if (!(worst < (sizeof(REAL) == 4 ? 1e-3 : 1e-9))) {
        bench_fail("the way back does not lead back");
    }
    bench_end(bench_mix_real(BENCH_FNV_SEED, middle, 3));
    return 0;
}
