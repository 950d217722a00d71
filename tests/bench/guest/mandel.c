/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mandelbrot set, counted by iterations. The points are binary fractions, and a handful of points
 * whose count depends on rounding may differ from host to host: the checksum is the count of those
 * inside, in steps. Compiled with REAL double or float. Arguments: side, limit.
 */
#include "tests/bench/guest/bench.h"

#ifndef REAL
#define REAL double
#endif

static long point(REAL x, REAL y, long limit)
{
    REAL re = 0;
    REAL im = 0;
    long count = 0;

    while (count < limit) {
        REAL re2 = re * re;
        REAL im2 = im * im;

        if (re2 + im2 > (REAL)4) {
            break;
        }
        im = (REAL)2 * re * im + y;
        re = re2 - im2 + x;
        count++;
    }
    return count;
}

int main(int argc, char **argv)
{
    long side = bench_argument(argc, argv, 1, 32);
    long limit = bench_argument(argc, argv, 2, 100);
    uint64_t inside = 0;

    bench_begin();
    for (long i = 0; i < side; i++) {
        for (long j = 0; j < side; j++) {
            REAL x = (REAL)j * (REAL)2.5 / (REAL)side - (REAL)2;
            REAL y = (REAL)i * (REAL)2.5 / (REAL)side - (REAL)1.25;

            inside += point(x, y, limit) == limit;
        }
    }
    bench_end((inside + 32) / 64);
    return 0;
}
