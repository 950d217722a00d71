/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector memcpy() and strlen() (by fault-only-first loads), over short and long buffers. Any VLEN.
 * Arguments: KiB of the long buffer, rounds.
 */
#include "tests/bench/guest/bench.h"

void *vector_copy(void *to, const void *from, size_t size);
size_t vector_length(const char *text);

__asm__(".option push\n"
        ".option arch, +v\n"
        "vector_copy:\n"
        "   mv a3, a0\n"
        "1: vsetvli t0, a2, e8, m8, ta, ma\n"
        "   vle8.v v0, (a1)\n"
        "   add a1, a1, t0\n"
        "   sub a2, a2, t0\n"
        "   vse8.v v0, (a3)\n"
        "   add a3, a3, t0\n"
        "   bnez a2, 1b\n"
        "   ret\n"
        "vector_length:\n"
        "   mv a3, a0\n"
        "1: vsetvli a1, x0, e8, m8, ta, ma\n"
        "   vle8ff.v v8, (a3)\n"
        "   csrr a1, vl\n"
        "   vmseq.vi v0, v8, 0\n"
        "   vfirst.m a2, v0\n"
        "   add a3, a3, a1\n"
        "   bltz a2, 1b\n"
        "   add a0, a0, a1\n"
        "   add a3, a3, a2\n"
        "   sub a0, a3, a0\n"
        "   ret\n"
        ".option pop\n");

int main(int argc, char **argv)
{
    size_t size = (size_t)bench_argument(argc, argv, 1, 4) << 10;
    long rounds = bench_argument(argc, argv, 2, 1);
    char *from = bench_alloc(size + 64);
    char *to = bench_alloc(size + 64);
    uint64_t seed = 3;
    uint64_t sum = 0;

    for (size_t i = 0; i < size; i++) {
        from[i] = (char)('a' + bench_random(&seed) % 26);
    }
    bench_begin();
    for (long round = 0; round < rounds; round++) {
        size_t offset = (size_t)round % 32;

        vector_copy(to + offset, from, size - offset);
        to[size] = '\0';
        sum += vector_length(to + offset);
        for (size_t at = 0; at + 128 < size; at += 512) {
            size_t length = at % 101 + 3;

            vector_copy(to + at, from + at + 1, length);
            to[at + length] = '\0';
            sum += vector_length(to + at);
        }
        from[(size_t)round * 61 % size] ^= 1;
    }
    bench_end(bench_hash(bench_mix(BENCH_FNV_SEED, sum), to, 4096));
    return 0;
}
