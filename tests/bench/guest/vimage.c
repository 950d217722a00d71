/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector image work on bytes: blending with widening multiplies and a narrowing shift, a threshold by
 * mask and merge, an exclusive or with a key and a count of set pixels; checked with scalar code. Any
 * VLEN. Arguments: pixels, rounds.
 */
#include "tests/bench/guest/bench.h"

uint64_t filter(size_t count, const uint8_t *a, const uint8_t *b, uint8_t *out, unsigned weight,
                unsigned key);

__asm__(".option push\n"
        ".option arch, +v\n"
        "filter:\n"
        "   li a6, 0\n"
        "   li t2, 256\n"
        "   sub t2, t2, a4\n"
        "   li t3, 200\n"
        "1: vsetvli t0, a0, e8, m2, ta, ma\n"
        "   vle8.v v4, (a1)\n"
        "   vle8.v v8, (a2)\n"
        "   vwmulu.vx v12, v4, a4\n"
        "   vwmaccu.vx v12, t2, v8\n"
        "   vnsrl.wi v16, v12, 8\n"
        "   vmsgtu.vx v0, v16, t3\n"
        "   vcpop.m t1, v0\n"
        "   add a6, a6, t1\n"
        "   vmerge.vim v16, v16, -1, v0\n"
        "   vxor.vx v16, v16, a5\n"
        "   vse8.v v16, (a3)\n"
        "   add a1, a1, t0\n"
        "   add a2, a2, t0\n"
        "   add a3, a3, t0\n"
        "   sub a0, a0, t0\n"
        "   bnez a0, 1b\n"
        "   mv a0, a6\n"
        "   ret\n"
        ".option pop\n");

static uint8_t scalar(uint8_t a, uint8_t b, unsigned weight, unsigned key)
{
    uint8_t value = (uint8_t)((a * weight + b * (256 - weight)) >> 8);

    return (uint8_t)((value > 200 ? 255 : value) ^ key);
}

int main(int argc, char **argv)
{
    size_t count = (size_t)bench_argument(argc, argv, 1, 1000);
    long rounds = bench_argument(argc, argv, 2, 1);
    uint8_t *a = bench_alloc(count);
    uint8_t *b = bench_alloc(count);
    uint8_t *out = bench_alloc(count);
    uint64_t seed = 11;
    uint64_t sum = 0;

    for (size_t i = 0; i < count; i++) {
        a[i] = (uint8_t)bench_random(&seed);
        b[i] = (uint8_t)(bench_random(&seed) >> 9);
    }
    bench_begin();
    for (long round = 0; round < rounds; round++) {
        sum += filter(count, a, b, out, (unsigned)(round * 37 % 200 + 20),
                      (unsigned)(round & 255));
    }
    rounds--;
    for (size_t i = 0; i < count; i++) {
        if (out[i] != scalar(a[i], b[i], (unsigned)(rounds * 37 % 200 + 20), rounds & 255)) {
            bench_fail("a pixel is wrong");
        }
    }
    bench_end(bench_hash(bench_mix(BENCH_FNV_SEED, sum), out, count < 4096 ? count : 4096));
    return 0;
}
