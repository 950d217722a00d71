/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector matrix product, double and single precision, four rows of the result at a time. The numbers
 * are small integers, so that the result is exact. Any VLEN. Arguments: side, rounds.
 */
#include "tests/bench/guest/bench.h"

void dgemm4(size_t side, const double *a, const double *b, double *c);
void sgemm4(size_t side, const float *a, const float *b, float *c);

/*
 * Four rows of c (side columns each) = four rows of a times b: a0 side, a1 a, a2 b, a3 c. Columns by
 * strips of vl; in a strip, k runs down b's rows.
 */
#define GEMM4(name, width, shift, load, store, flw, lmul)                                      \
    name ":\n"                                                                                 \
         "   slli a4, a0, " shift "\n"                                                         \
         "   mv a5, a0\n"                                                                      \
         "1: vsetvli t0, a5, " width ", " lmul ", ta, ma\n"                                    \
         "   vmv.v.i v0, 0\n"                                                                  \
         "   vmv.v.i v4, 0\n"                                                                  \
         "   vmv.v.i v8, 0\n"                                                                  \
         "   vmv.v.i v12, 0\n"                                                                 \
         "   mv t1, a1\n"                                                                      \
         "   mv t2, a2\n"                                                                      \
         "   mv t3, a0\n"                                                                      \
         "   add t4, a1, a4\n"                                                                 \
         "   add t5, t4, a4\n"                                                                 \
         "   add t6, t5, a4\n"                                                                 \
         "2: " load " v16, (t2)\n"                                                             \
         "   " flw " ft0, (t1)\n"                                                              \
         "   " flw " ft1, (t4)\n"                                                              \
         "   " flw " ft2, (t5)\n"                                                              \
         "   " flw " ft3, (t6)\n"                                                              \
         "   add t2, t2, a4\n"                                                                 \
         "   addi t1, t1, 1 << " shift "\n"                                                    \
         "   addi t4, t4, 1 << " shift "\n"                                                    \
         "   addi t5, t5, 1 << " shift "\n"                                                    \
         "   addi t6, t6, 1 << " shift "\n"                                                    \
         "   addi t3, t3, -1\n"                                                                \
         "   vfmacc.vf v0, ft0, v16\n"                                                         \
         "   vfmacc.vf v4, ft1, v16\n"                                                         \
         "   vfmacc.vf v8, ft2, v16\n"                                                         \
         "   vfmacc.vf v12, ft3, v16\n"                                                        \
         "   bnez t3, 2b\n"                                                                    \
         "   mv t1, a3\n"                                                                      \
         "   " store " v0, (t1)\n"                                                             \
         "   add t1, t1, a4\n"                                                                 \
         "   " store " v4, (t1)\n"                                                             \
         "   add t1, t1, a4\n"                                                                 \
         "   " store " v8, (t1)\n"                                                             \
         "   add t1, t1, a4\n"                                                                 \
         "   " store " v12, (t1)\n"                                                            \
         "   slli t1, t0, " shift "\n"                                                         \
         "   add a2, a2, t1\n"                                                                 \
         "   add a3, a3, t1\n"                                                                 \
         "   sub a5, a5, t0\n"                                                                 \
         "   bnez a5, 1b\n"                                                                    \
         "   ret\n"

__asm__(".option push\n.option arch, +v\n" GEMM4("dgemm4", "e64", "3", "vle64.v", "vse64.v",
                                                 "fld", "m4")
            GEMM4("sgemm4", "e32", "2", "vle32.v", "vse32.v", "flw", "m4") ".option pop\n");

int main(int argc, char **argv)
{
    size_t side = (size_t)bench_argument(argc, argv, 1, 16) / 4 * 4;
    long rounds = bench_argument(argc, argv, 2, 1);
    double *da = bench_alloc(side * side * sizeof *da);
    double *db = bench_alloc(side * side * sizeof *db);
    double *dc = bench_alloc(side * side * sizeof *dc);
    float *sa = bench_alloc(side * side * sizeof *sa);
    float *sb = bench_alloc(side * side * sizeof *sb);
    float *sc = bench_alloc(side * side * sizeof *sc);
    double sum = 0;

    for (size_t i = 0; i < side * side; i++) {
        da[i] = (double)(i * 7 % 11) - 5;
        db[i] = (double)(i * 5 % 13) - 6;
        sa[i] = (float)db[i];
        sb[i] = (float)da[i];
    }
    bench_begin();
    for (long round = 0; round < rounds; round++) {
        da[(size_t)round % (side * side)] += 1;
        for (size_t row = 0; row < side; row += 4) {
            dgemm4(side, da + row * side, db, dc + row * side);
            sgemm4(side, sa + row * side, sb, sc + row * side);
        }
        sum += dc[(size_t)round * 31 % (side * side)] +
               (double)sc[(size_t)round * 17 % (side * side)];
    }
    for (size_t i = 0; i < side; i += 3) {
        double want = 0;

        for (size_t k = 0; k < side; k++) {
            want += da[i * side + k] * db[k * side + side - 1 - i];
        }
        if (want != dc[i * side + side - 1 - i]) {
            bench_fail("a product is wrong");
        }
    }
    bench_end(bench_mix_real(BENCH_FNV_SEED, sum, 15));
    return 0;
}
