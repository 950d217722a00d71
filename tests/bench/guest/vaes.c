/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AES-128 in counter mode by vector instructions (Zvkned, Zvkb), several blocks a register group;
 * begins with a vector of NIST SP 800-38A, F.5.1. Any VLEN. Arguments: KiB, rounds.
 */
#include "tests/bench/guest/bench.h"
#include "tests/bench/guest/vcrypto.h"

/*
 * Exclusive-ors `words` words (a multiple of 4) of data with the key stream. a0 words, a1 data, a2
 * round keys (11 of 16 bytes), a3 counter block (16 bytes, its last word counts, big endian).
 * v8: counters, with the last word of each block in the host's order; v0: mask of those words.
 */
void ctr(size_t words, void *data, const void *keys, const void *counter);

__asm__(".option push\n"
        ".option arch, +v\n"
        "ctr:\n"
        "   vsetivli zero, 4, e32, m1, ta, ma\n"
        "   vle32.v v16, (a3)\n"
        "   vle32.v v17, (a2)\n"
        "   addi a2, a2, 16\n"
        "   vle32.v v18, (a2)\n"
        "   addi a2, a2, 16\n"
        "   vle32.v v19, (a2)\n"
        "   addi a2, a2, 16\n"
        "   vle32.v v20, (a2)\n"
        "   addi a2, a2, 16\n"
        "   vle32.v v21, (a2)\n"
        "   addi a2, a2, 16\n"
        "   vle32.v v22, (a2)\n"
        "   addi a2, a2, 16\n"
        "   vle32.v v23, (a2)\n"
        "   addi a2, a2, 16\n"
        "   vle32.v v24, (a2)\n"
        "   addi a2, a2, 16\n"
        "   vle32.v v25, (a2)\n"
        "   addi a2, a2, 16\n"
        "   vle32.v v26, (a2)\n"
        "   addi a2, a2, 16\n"
        "   vle32.v v27, (a2)\n"
        "   addi a2, a2, 16\n"
        "   vsetvli t0, zero, e32, m4, ta, ma\n"
        "   vmv.v.i v4, 0\n"
        "   vaesz_vs 4, 16\n" /* the counter block in each group of four words */
        "   vid.v v28\n"
        "   vand.vi v12, v28, 3\n"
        "   vmseq.vi v0, v12, 3\n"
        "   vsrl.vi v28, v28, 2\n" /* number of the block */
        "   vrev8_v 12, 4\n"
        "   vadd.vv v12, v12, v28\n"
        "   vmerge.vvm v8, v4, v12, v0\n"
        "1: vsetvli t0, a0, e32, m4, ta, mu\n"
        "   vmv.v.v v4, v8\n"
        "   vrev8_v 28, 8\n"
        "   vmerge.vvm v4, v4, v28, v0\n"
        "   vaesz_vs 4, 17\n"
        "   vaesem_vs 4, 18\n"
        "   vaesem_vs 4, 19\n"
        "   vaesem_vs 4, 20\n"
        "   vaesem_vs 4, 21\n"
        "   vaesem_vs 4, 22\n"
        "   vaesem_vs 4, 23\n"
        "   vaesem_vs 4, 24\n"
        "   vaesem_vs 4, 25\n"
        "   vaesem_vs 4, 26\n"
        "   vaesef_vs 4, 27\n"
        "   vle32.v v12, (a1)\n"
        "   vxor.vv v12, v12, v4\n"
        "   vse32.v v12, (a1)\n"
        "   srli t1, t0, 2\n"
        "   vadd.vx v8, v8, t1, v0.t\n"
        "   slli t1, t0, 2\n"
        "   add a1, a1, t1\n"
        "   sub a0, a0, t0\n"
        "   bnez a0, 1b\n"
        "   ret\n"
        ".option pop\n");

static uint8_t double_in_field(uint8_t value)
{
    return (uint8_t)(value << 1 ^ (value & 0x80 ? 0x1b : 0));
}

/* The S-box by its definition: inverse in the field, then the affine map. */
static uint8_t substitute(uint8_t value)
{
    uint8_t power = 1;
    uint8_t out;

    /* value to the 254th, by squaring: 254 = 11111110 in binary. */
    for (int bit = 7; bit >= 0; bit--) {
        uint8_t factors[2] = { power, value };

        for (int step = 0; step < (254 >> bit & 1 ? 2 : 1); step++) {
            uint8_t product = 0;
            uint8_t a = power;
            uint8_t b = factors[step];

            for (; b; b >>= 1, a = double_in_field(a)) {
                product ^= b & 1 ? a : 0;
            }
            power = product;
        }
    }
    out = power;
    for (int i = 1; i < 5; i++) {
        out ^= (uint8_t)(power << i | power >> (8 - i));
    }
    return out ^ 0x63;
}

static void expand(const uint8_t *key, uint8_t *keys)
{
    uint8_t constant = 1;

    memcpy(keys, key, 16);
    for (int i = 16; i < 176; i += 4) {
        uint8_t word[4];

        memcpy(word, keys + i - 4, 4);
        if (i % 16 == 0) {
            uint8_t first = word[0];

            word[0] = substitute(word[1]) ^ constant;
            word[1] = substitute(word[2]);
            word[2] = substitute(word[3]);
            word[3] = substitute(first);
            constant = double_in_field(constant);
        }
        for (int j = 0; j < 4; j++) {
            keys[i + j] = keys[i + j - 16] ^ word[j];
        }
    }
}

int main(int argc, char **argv)
{
    static const uint8_t key[16] = { 0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6,
                                     0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf, 0x4f, 0x3c };
    static const uint8_t text[16] = { 0x6b, 0xc1, 0xbe, 0xe2, 0x2e, 0x40, 0x9f, 0x96,
                                      0xe9, 0x3d, 0x7e, 0x11, 0x73, 0x93, 0x17, 0x2a };
    static const uint8_t want[16] = { 0x87, 0x4d, 0x61, 0x91, 0xb6, 0x20, 0xe3, 0x26,
                                      0x1b, 0xef, 0x68, 0x64, 0x99, 0x0d, 0xb6, 0xce };
    size_t size = (size_t)bench_argument(argc, argv, 1, 4) << 10;
    long rounds = bench_argument(argc, argv, 2, 1);
    uint8_t *data = bench_alloc(size);
    uint8_t counter[16] __attribute__((aligned(8)));
    uint8_t keys[176] __attribute__((aligned(8)));

    for (int i = 0; i < 16; i++) {
        counter[i] = (uint8_t)(0xf0 + i);
    }
    expand(key, keys);
    memcpy(data, text, 16);
    bench_begin();
    for (long round = 0; round < rounds; round++) {
        ctr(size / 4, data, keys, counter);
        if (round == 0 && memcmp(data, want, 16) != 0) {
            bench_fail("the example of SP 800-38A");
        }
        counter[0]++;
    }
    bench_end(bench_hash(bench_hash(BENCH_FNV_SEED, data, 4096), data + size - 64, 64));
    return 0;
}
