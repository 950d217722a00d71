/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector y += a x, in single and in double precision, and the dot product of the results. The
 * numbers are small integers, so that every order of summing gives the same. Any VLEN. Arguments:
 * elements, rounds.
 */
#include "tests/bench/guest/bench.h"

void saxpy(size_t count, const float *x, float *y, float a);
void daxpy(size_t count, const double *x, double *y, double a);
double ddot(size_t count, const double *x, const double *y);

__asm__(".option push\n"
        ".option arch, +v\n"
        "saxpy:\n"
        "1: vsetvli t0, a0, e32, m8, ta, ma\n"
        "   vle32.v v0, (a1)\n"
        "   sub a0, a0, t0\n"
        "   slli t1, t0, 2\n"
        "   add a1, a1, t1\n"
        "   vle32.v v8, (a2)\n"
        "   vfmacc.vf v8, fa0, v0\n"
        "   vse32.v v8, (a2)\n"
        "   add a2, a2, t1\n"
        "   bnez a0, 1b\n"
        "   ret\n"
        "daxpy:\n"
        "1: vsetvli t0, a0, e64, m4, ta, ma\n"
        "   vle64.v v0, (a1)\n"
        "   sub a0, a0, t0\n"
        "   slli t1, t0, 3\n"
        "   add a1, a1, t1\n"
        "   vle64.v v8, (a2)\n"
        "   vfmacc.vf v8, fa0, v0\n"
        "   vse64.v v8, (a2)\n"
        "   add a2, a2, t1\n"
        "   bnez a0, 1b\n"
        "   ret\n"
        "ddot:\n"
        "   vsetvli t0, zero, e64, m4, ta, ma\n"
        "   vmv.v.i v16, 0\n"
        "1: vsetvli t0, a0, e64, m4, tu, ma\n"
        "   vle64.v v0, (a1)\n"
        "   vle64.v v8, (a2)\n"
        "   vfmacc.vv v16, v0, v8\n"
        "   slli t1, t0, 3\n"
        "   add a1, a1, t1\n"
        "   add a2, a2, t1\n"
        "   sub a0, a0, t0\n"
        "   bnez a0, 1b\n"
        "   vsetvli t0, zero, e64, m4, ta, ma\n"
        "   vmv.s.x v24, zero\n"
        "   vfredusum.vs v24, v16, v24\n"
        "   vfmv.f.s fa0, v24\n"
        "   ret\n"
        ".option pop\n");

int main(int argc, char **argv)
{
    size_t count = (size_t)bench_argument(argc, argv, 1, 100);
    long rounds = bench_argument(argc, argv, 2, 1);
    float *sx = bench_alloc(count * sizeof *sx);
    float *sy = bench_alloc(count * sizeof *sy);
    double *dx = bench_alloc(count * sizeof *dx);
    double *dy = bench_alloc(count * sizeof *dy);
    double sum = 0;

    for (size_t i = 0; i < count; i++) {
        sx[i] = (float)(i % 7);
        dx[i] = (double)(i % 5);
    }
    bench_begin();
    for (long round = 0; round < rounds; round++) {
        saxpy(count, sx, sy, round & 1 ? -2.0F : 3.0F);
        daxpy(count, dx, dy, round & 1 ? -4.0 : 5.0);
        sum += ddot(count, dx, dy);
    }
    for (size_t i = 0; i < count; i++) {
        double steps = (double)(rounds / 2);

        if (sy[i] != (float)(i % 7) * (float)(steps + (rounds & 1 ? 3 : 0)) ||
            dy[i] != (double)(i % 5) * (steps + (rounds & 1 ? 5 : 0))) {
            bench_fail("a sum is wrong");
        }
    }
    bench_end(bench_mix_real(BENCH_FNV_SEED, sum, 15));
    return 0;
}
