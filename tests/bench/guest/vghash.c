/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GHASH, the authentication of AES-GCM, by vector instructions (Zvkg); begins with test case 2 of the
 * GCM specification. Arguments: KiB, rounds.
 */
#include "tests/bench/guest/bench.h"
#include "tests/bench/guest/vcrypto.h"

/* state = ghash(state, key, blocks of data) */
void ghash(size_t blocks, const void *data, const void *key, void *state);

__asm__(".option push\n"
        ".option arch, +v\n"
        "ghash:\n"
        "   vsetivli zero, 4, e32, m1, ta, ma\n"
        "   vle32.v v1, (a2)\n"
        "   vle32.v v2, (a3)\n"
        "1: vle32.v v3, (a1)\n"
        "   addi a1, a1, 16\n"
        "   addi a0, a0, -1\n"
        "   vghsh_vv 2, 1, 3\n"
        "   bnez a0, 1b\n"
        "   vse32.v v2, (a3)\n"
        "   ret\n"
        ".option pop\n");

int main(int argc, char **argv)
{
    static const uint8_t key[16]
        __attribute__((aligned(8))) = { 0x66, 0xe9, 0x4b, 0xd4, 0xef, 0x8a, 0x2c, 0x3b,
                                        0x88, 0x4c, 0xfa, 0x59, 0xca, 0x34, 0x2b, 0x2e };
    static const uint8_t example[32]
        __attribute__((aligned(8))) = { 0x03, 0x88, 0xda, 0xce, 0x60, 0xb6, 0xa3, 0x92,
                                        0xf3, 0x28, 0xc2, 0xb9, 0x71, 0xb2, 0xfe, 0x78,
                                        0,    0,    0,    0,    0,    0,    0,    0,
                                        0,    0,    0,    0,    0,    0,    0,    0x80 };
    static const uint8_t want[16] = { 0xf3, 0x8c, 0xbb, 0x1a, 0xd6, 0x92, 0x23, 0xdc,
                                      0xc3, 0x45, 0x7a, 0xe5, 0xb6, 0xb0, 0xf8, 0x85 };
    size_t size = (size_t)bench_argument(argc, argv, 1, 4) << 10;
    long rounds = bench_argument(argc, argv, 2, 1);
    uint8_t state[16] __attribute__((aligned(8))) = { 0 };
    uint8_t *data = bench_alloc(size);
    uint64_t seed = 21;

    for (size_t i = 0; i < size; i++) {
        data[i] = (uint8_t)bench_random(&seed);
    }
    bench_begin();
    ghash(2, example, key, state);
    if (memcmp(state, want, 16) != 0) {
        bench_fail("test case 2 of GCM");
    }
    for (long round = 0; round < rounds; round++) {
        ghash(size / 16, data, key, state);
    }
    bench_end(bench_hash(BENCH_FNV_SEED, state, 16));
    return 0;
}
