/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plain definition of the cipher and hash operations of ir_vec.def (kind A), for vec_hints_test.c: a group of four words.
 */
#include "tests/isa/vec_hints_crypto.h"

#include "engine/tcg/ir.h"

#include <stdbool.h>
#include <string.h>

/* ---- AES and SHA-256, from FIPS 197 and FIPS 180-4 ---- */

static uint8_t gf_mul(uint8_t a, uint8_t b)
{
    uint8_t p = 0;
    for (; b; b >>= 1) {
        p ^= b & 1 ? a : 0;
        a = (uint8_t)(a << 1 ^ (a & 0x80 ? 0x1b : 0));
    }
    return p;
}

static uint8_t sbox(uint8_t v)
{
    uint8_t inv = 0, x;
    for (unsigned i = 1; i < 256 && v; i++) {
        if (gf_mul(v, (uint8_t)i) == 1) {
            inv = (uint8_t)i;
        }
    }
    x = inv;
    for (unsigned i = 1; i < 5; i++) {
        x ^= (uint8_t)(inv << i | inv >> (8 - i));
    }
    return x ^ 0x63;
}

static uint8_t inv_sbox(uint8_t v)
{
    for (unsigned i = 0; i < 256; i++) {
        if (sbox((uint8_t)i) == v) {
            return (uint8_t)i;
        }
    }
    return 0;
}

static void sub_shift(uint8_t *s, bool inverse)
{
    static uint8_t box[2][256];
    static bool made;
    uint8_t t[16];
    for (unsigned i = 0; i < 256 && !made; i++) {
        box[0][i] = sbox((uint8_t)i);
        box[1][i] = inv_sbox((uint8_t)i);
    }
    made = true;
    for (unsigned i = 0; i < 16; i++) {
        unsigned row = i % 4, col = i / 4,
                 from = inverse ? (col + 4 - row) % 4 : (col + row) % 4;
        t[i] = box[inverse][s[from * 4 + row]];
    }
    memcpy(s, t, 16);
}

static void mix(uint8_t *s, bool inverse)
{
    static const uint8_t k[2][4] = { { 2, 3, 1, 1 }, { 14, 11, 13, 9 } };
    uint8_t t[16];
    for (unsigned i = 0; i < 16; i++) {
        t[i] = 0;
        for (unsigned j = 0; j < 4; j++) {
            t[i] ^= gf_mul(s[i / 4 * 4 + j], k[inverse][(j + 4 - i % 4) % 4]);
        }
    }
    memcpy(s, t, 16);
}

static uint32_t ror(uint32_t v, unsigned n)
{
    return v >> n | v << (32 - n);
}

static void sha_rounds(uint32_t *d, const uint32_t *a, uint32_t w0, uint32_t w1)
{
    uint32_t s[8] = { a[3], a[2], d[3], d[2], a[1], a[0], d[1], d[0] }, w[2] = { w0, w1 };
    for (unsigned i = 0; i < 2; i++) {
        uint32_t t1 = s[7] + (ror(s[4], 6) ^ ror(s[4], 11) ^ ror(s[4], 25)) +
                      ((s[4] & s[5]) ^ (~s[4] & s[6])) + w[i];
        uint32_t t2 = (ror(s[0], 2) ^ ror(s[0], 13) ^ ror(s[0], 22)) +
                      ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof(s[0]));
        s[0] = t1 + t2;
        s[4] += t1;
    }
    d[3] = s[0];
    d[2] = s[1];
    d[1] = s[4];
    d[0] = s[5];
}

static uint32_t sigma(uint32_t v, unsigned a, unsigned b, unsigned c)
{
    return ror(v, a) ^ ror(v, b) ^ v >> c;
}

/* SP 800-38D 6.3: the leftmost bit of a block is bit 0, the highest one of its first byte. */
static void gcm_multiply(uint8_t *x, const uint8_t *y)
{
    uint8_t z[16] = { 0 }, v[16];
    memcpy(v, y, 16);
    for (unsigned i = 0; i < 128; i++) {
        bool low = v[15] & 1;
        for (unsigned j = 0; j < 16 && x[i / 8] >> (7 - i % 8) & 1; j++) {
            z[j] ^= v[j];
        }
        for (unsigned j = 16; j-- > 0;) {
            v[j] = (uint8_t)(v[j] >> 1 | (j ? v[j - 1] << 7 : 0));
        }
        v[0] ^= low ? 0xe1 : 0;
    }
    memcpy(x, z, 16);
}

void vec_hints_group(unsigned op, uint32_t *d, const uint32_t *a, const uint32_t *b)
{
    uint32_t w[4];
    uint8_t *bytes = (uint8_t *)d;
    switch (op) {
    case IR_VEC_aesenc:
    case IR_VEC_aesenclast:
        sub_shift(bytes, false);
        if (op == IR_VEC_aesenc) {
            mix(bytes, false);
        }
        break;
    case IR_VEC_aesdec:
    case IR_VEC_aesdeclast:
        sub_shift(bytes, true);
        break;
    case IR_VEC_ghsh:
        for (unsigned i = 0; i < 4; i++) {
            d[i] ^= b[i];
        }
        gcm_multiply(bytes, (const uint8_t *)a);
        break;
    case IR_VEC_gmul:
        gcm_multiply(bytes, (const uint8_t *)a);
        break;
    case IR_VEC_sha2ch:
        sha_rounds(d, a, b[2], b[3]);
        break;
    case IR_VEC_sha2cl:
        sha_rounds(d, a, b[0], b[1]);
        break;
    case IR_VEC_sha2ms: /* d: W0 to W3; a: W4, W9, W10, W11; b: W12 to W15 */
        w[0] = d[0] + sigma(d[1], 7, 18, 3) + a[1] + sigma(b[2], 17, 19, 10);
        w[1] = d[1] + sigma(d[2], 7, 18, 3) + a[2] + sigma(b[3], 17, 19, 10);
        w[2] = d[2] + sigma(d[3], 7, 18, 3) + a[3] + sigma(w[0], 17, 19, 10);
        w[3] = d[3] + sigma(a[0], 7, 18, 3) + b[0] + sigma(w[1], 17, 19, 10);
        memcpy(d, w, 16);
        break;
    default:
        break;
    }
    for (unsigned i = 0; i < 4 && op <= IR_VEC_aesz; i++) {
        d[i] ^= a[i];
    }
    if (op == IR_VEC_aesdec) {
        mix(bytes, true);
    }
}
