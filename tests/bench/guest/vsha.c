/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 and SHA-512 by vector instructions (Zvknhb, Zvkb); begins with the examples "abc" of FIPS
 * 180-4. Any VLEN. Arguments: KiB, rounds.
 */
#include "tests/bench/guest/bench.h"
#include "tests/bench/guest/vcrypto.h"

/* a0 blocks, a1 data, a2 state as {f, e, b, a} {h, g, d, c}, a3 round constants. */
void sha256_blocks(size_t blocks, const void *data, uint32_t *state, const uint32_t *constants);
void sha512_blocks(size_t blocks, const void *data, uint64_t *state, const uint64_t *constants);

/*
 * Four rounds: msg holds W[3..0], v14 gets constant + W. v22 is {f, e, b, a}, v24 {h, g, d, c}; each
 * instruction makes two rounds and its destination the new {f, e, b, a}.
 */
__asm__(".macro quad msg, load\n"
        "   \\load v14, (t1)\n"
        "   add t1, t1, t2\n"
        "   vadd.vv v14, v14, v\\msg\n"
        "   vsha2cl_vv 24, 22, 14\n"
        "   vsha2ch_vv 22, 24, 14\n"
        ".endm\n"
        /* w0 becomes W[19..16]: needs W[11..9] with W[4] in the lowest place, and W[15..12]. */
        ".macro schedule w0, w1, w2, w3\n"
        "   vmerge.vvm v16, v\\w2, v\\w1, v0\n"
        "   vsha2ms_vv \\w0, 16, \\w3\n"
        ".endm\n"
        ".macro sixteen load\n"
        "   quad 2, \\load\n"
        "   schedule 2, 4, 6, 8\n"
        "   quad 4, \\load\n"
        "   schedule 4, 6, 8, 2\n"
        "   quad 6, \\load\n"
        "   schedule 6, 8, 2, 4\n"
        "   quad 8, \\load\n"
        "   schedule 8, 2, 4, 6\n"
        ".endm\n"
        ".macro compress name, count, width, lmul, load, store, step, again\n"
        "\\name:\n"
        "   vsetivli zero, 4, \\width, \\lmul, ta, ma\n"
        "   li t2, \\step\n"
        "   vmv.v.i v0, 1\n"
        "   \\load v22, (a2)\n"
        "   add t0, a2, t2\n"
        "   \\load v24, (t0)\n"
        "1: mv t1, a3\n"
        "   vmv.v.v v26, v22\n"
        "   vmv.v.v v28, v24\n"
        "   \\load v2, (a1)\n"
        "   add a1, a1, t2\n"
        "   \\load v4, (a1)\n"
        "   add a1, a1, t2\n"
        "   \\load v6, (a1)\n"
        "   add a1, a1, t2\n"
        "   \\load v8, (a1)\n"
        "   add a1, a1, t2\n"
        "   vrev8_v 2, 2\n"
        "   vrev8_v 4, 4\n"
        "   vrev8_v 6, 6\n"
        "   vrev8_v 8, 8\n"
        "   .rept \\again\n"
        "   sixteen \\load\n"
        "   .endr\n"
        "   quad 2, \\load\n"
        "   quad 4, \\load\n"
        "   quad 6, \\load\n"
        "   quad 8, \\load\n"
        "   vadd.vv v22, v22, v26\n"
        "   vadd.vv v24, v24, v28\n"
        "   addi a0, a0, -1\n"
        "   bnez a0, 1b\n"
        "   \\store v22, (a2)\n"
        "   \\store v24, (t0)\n"
        "   ret\n"
        ".endm\n"
        ".option push\n"
        ".option arch, +v\n"
        "   compress sha256_blocks, 16, e32, m1, vle32.v, vse32.v, 16, 3\n"
        "   compress sha512_blocks, 20, e64, m2, vle64.v, vse64.v, 32, 4\n"
        ".option pop\n");

/* The first 64 bits of the fractional part of a root of n: square (2) or cube (3). */
static uint64_t root_fraction(uint64_t n, int degree)
{
    unsigned __int128 low = 0;
    unsigned __int128 high = (unsigned __int128)1
                             << 68; /* roots up to 16, 64 bits behind the point */

    while (high - low > 1) {
        unsigned __int128 middle = (low + high) / 2;
        /* middle to the degree against n << 64 * degree, in limbs of 32 bits */
        uint64_t power[8] = { 1 };
        int greater = 0;

        for (int i = 0; i < degree; i++) {
            uint64_t next[8] = { 0 };

            for (int limb = 0; limb < 3; limb++) {
                uint64_t digit = (uint32_t)(middle >> (32 * limb));
                uint64_t carry = 0;

                for (int j = 0; j + limb < 8; j++) {
                    unsigned __int128 sum = (unsigned __int128)power[j] * digit +
                                            next[j + limb] + carry;

                    next[j + limb] = (uint32_t)sum;
                    carry = (uint64_t)(sum >> 32);
                }
            }
            memcpy(power, next, sizeof power);
        }
        greater = power[2 * degree] + (power[2 * degree + 1] << 32) >= n;
        if (greater) {
            high = middle;
        } else {
            low = middle;
        }
    }
    return (uint64_t)low;
}

static int next_prime(int n)
{
    for (n++;; n++) {
        int divisor = 2;

        while (divisor * divisor <= n && n % divisor) {
            divisor++;
        }
        if (divisor * divisor > n) {
            return n;
        }
    }
}

/* abcdefgh to {f, e, b, a} {h, g, d, c} */
static const int places[8] = { 5, 4, 1, 0, 7, 6, 3, 2 };

static uint32_t constants32[64];
static uint64_t constants64[80];
static uint32_t state32[8] __attribute__((aligned(16)));
static uint64_t state64[8] __attribute__((aligned(16)));

static void reset(void)
{
    int prime = 1;
    uint64_t start[8];

    for (int i = 0; i < 80; i++) {
        prime = next_prime(prime);
        constants64[i] = root_fraction((uint64_t)prime, 3);
        if (i < 64) {
            constants32[i] = (uint32_t)(constants64[i] >> 32);
        }
        if (i < 8) {
            start[i] = root_fraction((uint64_t)prime, 2);
        }
    }
    for (int i = 0; i < 8; i++) {
        state64[i] = start[places[i]];
        state32[i] = (uint32_t)(start[places[i]] >> 32);
    }
}

static void examples(void)
{
    static uint8_t block[128] __attribute__((aligned(16))) = { 'a', 'b', 'c', 0x80 };

    block[63] = 24;
    sha256_blocks(1, block, state32, constants32);
    block[63] = 0;
    block[127] = 24;
    sha512_blocks(1, block, state64, constants64);
    if (state32[3] != 0xba7816bf || state32[4] != 0xf20015ad) {
        bench_fail("the example of SHA-256");
    }
    if (state64[3] != 0xddaf35a193617aba || state64[4] != 0x2a9ac94fa54ca49f) {
        bench_fail("the example of SHA-512");
    }
}

int main(int argc, char **argv)
{
    size_t size = (size_t)bench_argument(argc, argv, 1, 4) << 10;
    long rounds = bench_argument(argc, argv, 2, 1);
    uint8_t *data = bench_alloc(size);
    uint64_t seed = 8;

    for (size_t i = 0; i < size; i++) {
        data[i] = (uint8_t)bench_random(&seed);
    }
    reset();
    bench_begin();
    examples();
    for (long round = 0; round < rounds; round++) {
        sha256_blocks(size / 64, data, state32, constants32);
        sha512_blocks(size / 128, data, state64, constants64);
    }
    bench_end(bench_hash(bench_hash(BENCH_FNV_SEED, state32, 32), state64, 64));
    return 0;
}
