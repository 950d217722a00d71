/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dense linear equations: LU factorisation with partial pivoting by columns, and substitution. The
 * checksum says whether the solution (all ones) came out. Compiled with REAL double or float.
 * Arguments: unknowns, rounds.
 */
#include <math.h>

#include "tests/bench/guest/bench.h"

#ifndef REAL
#define REAL double
#endif

static int size;
static REAL *matrix; /* column major */
static REAL *right;

static void fill(void)
{
    uint64_t seed = 1325;

    memset(right, 0, (size_t)size * sizeof *right);
    for (int j = 0; j < size; j++) {
        for (int i = 0; i < size; i++) {
            REAL value = (REAL)((double)(bench_random(&seed) >> 40) / (1 << 24) - 0.5);

            matrix[j * size + i] = value;
            right[i] += value;
        }
    }
}

__attribute__((noinline)) static void axpy(int count, REAL factor, const REAL *from, REAL *to)
{
    for (int i = 0; i < count; i++) {
        to[i] += factor * from[i];
    }
}

static void factor(int *pivots)
{
    for (int k = 0; k < size; k++) {
        REAL *column = matrix + k * size;
        int pivot = k;
        REAL scale;

        for (int i = k + 1; i < size; i++) {
            pivot = fabs((double)column[i]) > fabs((double)column[pivot]) ? i : pivot;
        }
        pivots[k] = pivot;
        scale = column[pivot];
        column[pivot] = column[k];
        column[k] = scale;
        for (int i = k + 1; i < size; i++) {
            column[i] /= -scale;
        }
        for (int j = k + 1; j < size; j++) {
            REAL *other = matrix + j * size;
            REAL top = other[pivot];

            other[pivot] = other[k];
            other[k] = top;
            axpy(size - k - 1, top, column + k + 1, other + k + 1);
        }
    }
}

static void solve(const int *pivots)
{
    for (int k = 0; k < size; k++) {
        REAL top = right[pivots[k]];

        right[pivots[k]] = right[k];
        right[k] = top;
        axpy(size - k - 1, top, matrix + k * size + k + 1, right + k + 1);
    }
    for (int k = size - 1; k >= 0; k--) {
        right[k] /= matrix[k * size + k];
        axpy(k, -right[k], matrix + k * size, right);
    }
}

int main(int argc, char **argv)
{
    long rounds;
    int *pivots;
    double worst = 0;

    size = (int)bench_argument(argc, argv, 1, 50);
    rounds = bench_argument(argc, argv, 2, 1);
    matrix = bench_alloc((size_t)size * (size_t)size * sizeof *matrix);
    right = bench_alloc((size_t)size * sizeof *right);
    pivots = bench_alloc((size_t)size * sizeof *pivots);
    bench_begin();
    for (long round = 0; round < rounds; round++) {
        fill();
        factor(pivots);
        solve(pivots);
        for (int i = 0; i < size; i++) {
            double error = fabs((double)right[i] - 1.0);

            worst = error > worst ? error : worst;
        }
    }
    if (!(worst < (sizeof(REAL) == 4 ? 0.02 : 1e-9))) {
        bench_fail("the solution is wrong");
    }
    bench_end(bench_mix(BENCH_FNV_SEED, (uint64_t)(size * rounds)));
    return 0;
}
