/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spectral norm of an infinite matrix by the power method: divisions and conversions of integers.
 * Arguments: side, rounds.
 */
#include <math.h>

#include "tests/bench/guest/bench.h"

static int side;

static double element(int i, int j)
{
    return 1.0 / (double)((i + j) * (i + j + 1) / 2 + i + 1);
}

static void times(const double *v, double *out, int transposed)
{
    for (int i = 0; i < side; i++) {
        double sum = 0;

        for (int j = 0; j < side; j++) {
            sum += (transposed ? element(j, i) : element(i, j)) * v[j];
        }
        out[i] = sum;
    }
}

int main(int argc, char **argv)
{
    long rounds = bench_argument(argc, argv, 2, 1);
    double *u;
    double *v;
    double *w;
    double uv = 0;
    double vv = 0;

    side = (int)bench_argument(argc, argv, 1, 50);
    u = bench_alloc((size_t)side * sizeof *u);
    v = bench_alloc((size_t)side * sizeof *v);
    w = bench_alloc((size_t)side * sizeof *w);
    for (int i = 0; i < side; i++) {
        u[i] = 1;
    }
    bench_begin();
    for (long round = 0; round < rounds; round++) {
        times(u, w, 0);
        times(w, v, 1);
        times(v, w, 0);
        times(w, u, 1);
    }
    for (int i = 0; i < side; i++) {
        uv += u[i] * v[i];
        vv += v[i] * v[i];
    }
    bench_end(bench_mix_real(BENCH_FNV_SEED, sqrt(uv / vv), 7));
    return 0;
}
