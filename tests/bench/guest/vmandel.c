/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector Mandelbrot set in double precision: a line of points at a time, those that left masked off.
 * The checksum is the count of those inside in steps. Any VLEN. Arguments: side,
 * limit.
 */
#include "tests/bench/guest/bench.h"

/* How many of count points from x on, a step apart, stay within the limit of iterations. */
uint64_t line(size_t count, long limit, double x, double step, double y);

__asm__(".option push\n"
        ".option arch, +v\n"
        "line:\n"
        "   li a6, 0\n"
        "   li a7, 0\n"
        "   li t4, 4\n"
        "   fcvt.d.w ft4, t4\n"
        "1: vsetvli t0, a0, e64, m2, ta, mu\n"
        "   vid.v v2\n"
        "   vadd.vx v2, v2, a7\n"
        "   vfcvt.f.x.v v2, v2\n"
        "   vfmul.vf v2, v2, fa1\n"
        "   vfadd.vf v2, v2, fa0\n" /* x of each point */
        "   vmv.v.i v4, 0\n"        /* re */
        "   vmv.v.i v6, 0\n"        /* im */
        "   vmset.m v0\n"
        "   mv t1, a1\n"
        "2: vfmul.vv v8, v4, v4\n"
        "   vfmul.vv v10, v6, v6\n"
        "   vfadd.vv v12, v8, v10\n"
        "   vmfle.vf v14, v12, ft4, v0.t\n"
        "   vmand.mm v0, v14, v0\n"
        "   vfirst.m t2, v0\n"
        "   bltz t2, 3f\n"
        "   vfadd.vv v12, v4, v4\n"
        "   vfmul.vv v6, v12, v6, v0.t\n"
        "   vfadd.vf v6, v6, fa2, v0.t\n"
        "   vfsub.vv v8, v8, v10\n"
        "   vfadd.vv v4, v8, v2, v0.t\n"
        "   addi t1, t1, -1\n"
        "   bnez t1, 2b\n"
        "3: vcpop.m t2, v0\n"
        "   add a6, a6, t2\n"
        "   add a7, a7, t0\n"
        "   sub a0, a0, t0\n"
        "   bnez a0, 1b\n"
        "   mv a0, a6\n"
        "   ret\n"
        ".option pop\n");

int main(int argc, char **argv)
{
    long side = bench_argument(argc, argv, 1, 32);
    long limit = bench_argument(argc, argv, 2, 100);
    double step = 2.5 / (double)side;
    uint64_t inside = 0;

    bench_begin();
    for (long i = 0; i < side; i++) {
        inside += line((size_t)side, limit, -2.0, step, (double)i * step - 1.25);
    }
    bench_end((inside + 32) / 64);
    return 0;
}
