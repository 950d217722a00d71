/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector cryptography: Zvkned, Zvknha, Zvknhb, Zvkg, Zvksed, Zvksh (Cryptography Extensions Volume II 1.0, chapter 3).
 * They work on groups of four or eight elements; a kernel does one group. vCPU thread.
 */
#include "engine/tcg/guest_riscv/helper.h"
#include "engine/tcg/guest_riscv/sbox.h"
#include "engine/tcg/guest_riscv/vec.h"
#include "engine/tcg/guest_riscv/vec_kernels.h"
#include "engine/tcg/hostops.h"

#include <string.h>

/* op->param: log2 of the elements of a group, and whether vs2 gives all of them its first group. The kernel's n is the
 * immediate. */
uint64_t v_run_group(struct v_args *v)
{
    unsigned log2 = v->op->param & 15;
    size_t n = (size_t)1 << log2, bytes = n << v->sew;
    bool apart = v->op->shape.flags & (V_APART | V_APART2);
    v_kernel kernel = v->op->k[v->sew];
    struct v_ctx x;

    x.c = v->c; /* all that these kernels may look at */
    if (((v->vl | v->vstart) & (n - 1)) || riscv_vlmax(v->c->vtype, v->c->vlenb) < n) {
        tcg_raise(v->c, RISCV_CAUSE_ILLEGAL, v->insn);
    }
    for (size_t i = v->vstart; i < v->vl; i += n) {
        size_t at = i << v->sew;
        const uint8_t *a = v->op->param & V_GROUP0 ? v->s2 : v->s2 + at;
        _Alignas(16) uint8_t key[64];
        if (!apart) { /* vd may be the same group */
            memcpy(key, a, bytes);
            a = key;
        }
        kernel(v->d + at, a, v->s1 + at, v_vs1(v->insn), &x);
    }
    return 0;
}

#define V_UNUSED __attribute__((unused))
#define GROUP_KERNEL(NAME)                                                                     \
    static void NAME(void *d_, const void *a_, V_UNUSED const void *b_, V_UNUSED size_t n,     \
                     V_UNUSED struct v_ctx *x)

/* ---- AES ---- */

static uint8_t times2(uint8_t v)
{
    return (uint8_t)(v << 1 ^ (v & 0x80 ? 0x1b : 0));
}

/* Row r of column c is byte 4 * c + r; row r moves r columns to the left, or back to the right. */
static void sub_shift(uint8_t out[16], const uint8_t in[16], const uint8_t sbox[256], int step)
{
    for (int c = 0; c < 4; c++) {
        for (int r = 0; r < 4; r++) {
            out[4 * c + r] = sbox[in[4 * ((c + step * r) & 3) + r]];
        }
    }
}

static void mix_columns(uint8_t s[16])
{
    for (unsigned c = 0; c < 16; c += 4) {
        uint8_t all = s[c] ^ s[c + 1] ^ s[c + 2] ^ s[c + 3], first = s[c];
        for (unsigned r = 0; r < 4; r++) {
            uint8_t next = r < 3 ? s[c + r + 1] : first;
            s[c + r] = s[c + r] ^ all ^ times2(s[c + r] ^ next);
        }
    }
}

/* The inverse is the same after this. */
static void unmix_columns(uint8_t s[16])
{
    for (unsigned c = 0; c < 16; c += 4) {
        uint8_t even = times2(times2(s[c] ^ s[c + 2])),
                odd = times2(times2(s[c + 1] ^ s[c + 3]));
        s[c] ^= even;
        s[c + 2] ^= even;
        s[c + 1] ^= odd;
        s[c + 3] ^= odd;
    }
    mix_columns(s);
}

static void add_key(uint8_t s[16], const uint8_t key[16])
{
    for (unsigned i = 0; i < 16; i++) {
        s[i] ^= key[i];
    }
}

enum aes { AES_EM, AES_EF, AES_DM, AES_DF, AES_Z };
static void aes(uint8_t *d, const uint8_t *key, enum aes how)
{
    bool decrypt = how == AES_DM || how == AES_DF;
    uint8_t s[16];

    if (how == AES_Z) {
        add_key(d, key);
        return;
    }
    sub_shift(s, d, decrypt ? riscv_aes_inv_sbox : riscv_aes_sbox, decrypt ? -1 : 1);
    if (how == AES_EM) {
        mix_columns(s);
    }
    add_key(s, key);
    if (how == AES_DM) {
        unmix_columns(s);
    }
    memcpy(d, s, 16);
}

#define AES(NAME, HOW)                                                                         \
    GROUP_KERNEL(NAME##_32)                                                                    \
    {                                                                                          \
        aes(d_, a_, HOW);                                                                      \
    }                                                                                          \
    const v_kernel NAME[4] = { NULL, NULL, NAME##_32, NULL };
AES(vk_aesem, AES_EM)
AES(vk_aesef, AES_EF)
AES(vk_aesdm, AES_DM)
AES(vk_aesdf, AES_DF)
AES(vk_aesz, AES_Z)

static uint32_t sub_word(uint32_t v, const uint8_t sbox[256])
{
    return sbox[v & 255] | (uint32_t)sbox[v >> 8 & 255] << 8 |
           (uint32_t)sbox[v >> 16 & 255] << 16 | (uint32_t)sbox[v >> 24] << 24;
}

static uint32_t rol(uint32_t v, unsigned n)
{
    return v << (n & 31) | v >> (-n & 31);
}

static const uint8_t aes_rcon[10] = { 1, 2, 4, 8, 16, 32, 64, 128, 0x1b, 0x36 };

GROUP_KERNEL(aeskf1_32)
{
    v_u32 *d = d_;
    const v_u32 *key = a_;
    unsigned round = n & 15;

    round ^= round == 0 || round > 10 ? 8 : 0;
    d[0] = key[0] ^ sub_word(rol(key[3], 24), riscv_aes_sbox) ^ aes_rcon[round - 1];
    for (unsigned i = 1; i < 4; i++) {
        d[i] = key[i] ^ d[i - 1];
    }
}
const v_kernel vk_aeskf1[4] = { NULL, NULL, aeskf1_32, NULL };

GROUP_KERNEL(aeskf2_32)
{
    v_u32 *d = d_;
    const v_u32 *key = a_;
    unsigned round = n & 15;

    round ^= round < 2 || round > 14 ? 8 : 0;
    if (round & 1) {
        d[0] ^= sub_word(key[3], riscv_aes_sbox);
    } else {
        d[0] ^= sub_word(rol(key[3], 24), riscv_aes_sbox) ^ aes_rcon[(round >> 1) - 1];
    }
    for (unsigned i = 1; i < 4; i++) {
        d[i] ^= d[i - 1];
    }
}
const v_kernel vk_aeskf2[4] = { NULL, NULL, aeskf2_32, NULL };

/* ---- SHA-2 ---- */

#define ROR(v, n) ((v) >> (n) | (v) << (8 * sizeof(v) - (n)))
#define CHOOSE(a, b, c) (((a) & (b)) ^ (~(a) & (c)))
#define MAJORITY(a, b, c) (((a) & (b)) ^ ((a) & (c)) ^ ((b) & (c)))

/* The four sums of SHA-256 (T 32) and SHA-512 (T 64). */
#define BIG0_32(v) (ROR(v, 2) ^ ROR(v, 13) ^ ROR(v, 22))
#define BIG1_32(v) (ROR(v, 6) ^ ROR(v, 11) ^ ROR(v, 25))
#define SMALL0_32(v) (ROR(v, 7) ^ ROR(v, 18) ^ (v) >> 3)
#define SMALL1_32(v) (ROR(v, 17) ^ ROR(v, 19) ^ (v) >> 10)
#define BIG0_64(v) (ROR(v, 28) ^ ROR(v, 34) ^ ROR(v, 39))
#define BIG1_64(v) (ROR(v, 14) ^ ROR(v, 18) ^ ROR(v, 41))
#define SMALL0_64(v) (ROR(v, 1) ^ ROR(v, 8) ^ (v) >> 7)
#define SMALL1_64(v) (ROR(v, 19) ^ ROR(v, 61) ^ (v) >> 6)

#define SHA2(B)                                                                                \
    GROUP_KERNEL(sha2ms_##B)                                                                   \
    {                                                                                          \
        v_u##B *d = d_;                                                                        \
        const v_u##B *a = a_, *b = b_;                                                         \
        v_u##B w[20] = { d[0], d[1], d[2], d[3], a[0], 0,    0,    0,                          \
                         0,    a[1], a[2], a[3], b[0], b[1], b[2], b[3] };                     \
        for (unsigned i = 16; i < 20; i++) {                                                   \
            w[i] = SMALL1_##B(w[i - 2]) + w[i - 7] + SMALL0_##B(w[i - 15]) + w[i - 16];        \
        }                                                                                      \
        memcpy(d, w + 16, 4 * sizeof(*d));                                                     \
    }                                                                                          \
    static void sha2_rounds_##B(v_u##B *v, const v_u##B *s2, const v_u##B *w)                  \
    {                                                                                          \
        v_u##B a = s2[3], b = s2[2], c = v[3], d = v[2], e = s2[1], f = s2[0], g = v[1],       \
               h = v[0];                                                                       \
        for (unsigned i = 0; i < 2; i++) {                                                     \
            v_u##B t1 = h + BIG1_##B(e) + CHOOSE(e, f, g) + w[i];                              \
            v_u##B t2 = BIG0_##B(a) + MAJORITY(a, b, c);                                       \
            h = g;                                                                             \
            g = f;                                                                             \
            f = e;                                                                             \
            e = d + t1;                                                                        \
            d = c;                                                                             \
            c = b;                                                                             \
            b = a;                                                                             \
            a = t1 + t2;                                                                       \
        }                                                                                      \
        v[3] = a;                                                                              \
        v[2] = b;                                                                              \
        v[1] = e;                                                                              \
        v[0] = f;                                                                              \
    }                                                                                          \
    GROUP_KERNEL(sha2cl_##B)                                                                   \
    {                                                                                          \
        sha2_rounds_##B(d_, a_, b_);                                                           \
    }                                                                                          \
    GROUP_KERNEL(sha2ch_##B)                                                                   \
    {                                                                                          \
        sha2_rounds_##B(d_, a_, (const v_u##B *)b_ + 2);                                       \
    }
SHA2(32)
SHA2(64)
const v_kernel vk_sha2ms[4] = { NULL, NULL, sha2ms_32, sha2ms_64 };
const v_kernel vk_sha2cl[4] = { NULL, NULL, sha2cl_32, sha2cl_64 };
const v_kernel vk_sha2ch[4] = { NULL, NULL, sha2ch_32, sha2ch_64 };

/* ---- GHASH: the field of GCM, whose polynomials have their bits reversed in each byte ---- */

static uint64_t brev8(uint64_t v)
{
    v = (v >> 1 & 0x5555555555555555) | (v & 0x5555555555555555) << 1;
    v = (v >> 2 & 0x3333333333333333) | (v & 0x3333333333333333) << 2;
    return (v >> 4 & 0x0f0f0f0f0f0f0f0f) | (v & 0x0f0f0f0f0f0f0f0f) << 4;
}

/* By the host's carry-less product: the four words of the product, then x^128 = x^7 + x^2 + x + 1 twice. */
static bool multiply_words(uint64_t z[2], const uint64_t s[2], const uint64_t h[2])
{
    uint64_t p[4], high[2], low[2];

    if (!host_clmul(s[0], h[0], &p[1], &p[0])) {
        return false;
    }
    host_clmul(s[1], h[1], &p[3], &p[2]);
    host_clmul(s[0], h[1], &high[0], &low[0]);
    host_clmul(s[1], h[0], &high[1], &low[1]);
    p[1] ^= low[0] ^ low[1];
    p[2] ^= high[0] ^ high[1];
    host_clmul(p[3], 0x87, &high[0], &low[0]);
    host_clmul(p[2] ^ high[0], 0x87, &high[1], &low[1]);
    z[0] = p[0] ^ low[1];
    z[1] = p[1] ^ low[0] ^ high[1];
    return true;
}

static void multiply(v_u64 *d, const v_u64 y[2], const v_u64 h_in[2])
{
    uint64_t s[2] = { brev8(y[0]), brev8(y[1]) }, h[2] = { brev8(h_in[0]), brev8(h_in[1]) },
             z[2];

    if (!multiply_words(z, s, h)) {
        unsigned __int128 power = (unsigned __int128)h[1] << 64 | h[0], sum = 0;
        for (unsigned i = 0; i < 128; i++) {
            sum ^= s[i / 64] >> i % 64 & 1 ? power : 0;
            power = power << 1 ^ (power >> 127 ? 0x87 : 0);
        }
        z[0] = (uint64_t)sum;
        z[1] = (uint64_t)(sum >> 64);
    }
    d[0] = brev8(z[0]);
    d[1] = brev8(z[1]);
}

GROUP_KERNEL(ghsh_32)
{
    const v_u64 *d = d_, *b = b_;
    v_u64 y[2] = { d[0] ^ b[0], d[1] ^ b[1] };

    multiply(d_, y, a_);
}
GROUP_KERNEL(gmul_32)
{
    multiply(d_, d_, a_);
}
const v_kernel vk_ghsh[4] = { NULL, NULL, ghsh_32, NULL };
const v_kernel vk_gmul[4] = { NULL, NULL, gmul_32, NULL };

/* ---- SM4 ---- */

static uint32_t sm4_constant(unsigned i)
{
    uint32_t v = 0;

    for (unsigned k = 0; k < 4; k++) {
        v = v << 8 | ((4 * i + k) * 7 & 255);
    }
    return v;
}

GROUP_KERNEL(sm4k_32)
{
    uint32_t k[8];

    memcpy(k, a_, 16);
    for (unsigned i = 0; i < 4; i++) {
        uint32_t s = sub_word(k[i + 1] ^ k[i + 2] ^ k[i + 3] ^ sm4_constant(4 * (n & 7) + i),
                              riscv_sm4_sbox);
        k[i + 4] = k[i] ^ s ^ rol(s, 13) ^ rol(s, 23);
    }
    memcpy(d_, k + 4, 16);
}
GROUP_KERNEL(sm4r_32)
{
    const v_u32 *key = a_;
    uint32_t v[8];

    memcpy(v, d_, 16);
    for (unsigned i = 0; i < 4; i++) {
        uint32_t s = sub_word(v[i + 1] ^ v[i + 2] ^ v[i + 3] ^ key[i], riscv_sm4_sbox);
        v[i + 4] = v[i] ^ s ^ rol(s, 2) ^ rol(s, 10) ^ rol(s, 18) ^ rol(s, 24);
    }
    memcpy(d_, v + 4, 16);
}
const v_kernel vk_sm4k[4] = { NULL, NULL, sm4k_32, NULL };
const v_kernel vk_sm4r[4] = { NULL, NULL, sm4r_32, NULL };

/* ---- SM3: words are big-endian, groups have eight ---- */

static void reversed(uint32_t out[8], const v_u32 *in)
{
    for (unsigned i = 0; i < 8; i++) {
        out[i] = __builtin_bswap32(in[i]);
    }
}

GROUP_KERNEL(sm3me_32)
{
    uint32_t w[24], out[8];

    reversed(w, b_);
    reversed(w + 8, a_);
    for (unsigned i = 16; i < 24; i++) {
        uint32_t v = w[i - 16] ^ w[i - 9] ^ rol(w[i - 3], 15);
        w[i] = v ^ rol(v, 15) ^ rol(v, 23) ^ rol(w[i - 13], 7) ^ w[i - 6];
    }
    reversed(out, w + 16);
    memcpy(d_, out, 32);
}

/* Round j of the compression; s is A to H. */
static void sm3_round(uint32_t s[8], unsigned j, uint32_t w, uint32_t w4)
{
    uint32_t t = j < 16 ? 0x79cc4519 : 0x7a879d8a;
    uint32_t ss1 = rol(rol(s[0], 12) + s[4] + rol(t, j), 7), ss2 = ss1 ^ rol(s[0], 12);
    uint32_t ff = j < 16 ? s[0] ^ s[1] ^ s[2] : MAJORITY(s[0], s[1], s[2]);
    uint32_t gg = j < 16 ? s[4] ^ s[5] ^ s[6] : CHOOSE(s[4], s[5], s[6]);
    uint32_t tt1 = ff + s[3] + ss2 + (w ^ w4), tt2 = gg + s[7] + ss1 + w;

    s[3] = s[2];
    s[2] = rol(s[1], 9);
    s[1] = s[0];
    s[0] = tt1;
    s[7] = s[6];
    s[6] = rol(s[5], 19);
    s[5] = s[4];
    s[4] = tt2 ^ rol(tt2, 9) ^ rol(tt2, 17);
}

GROUP_KERNEL(sm3c_32)
{
    uint32_t s[8], w[8], out[8];
    unsigned j = 2 * (n & 31);

    reversed(s, d_);
    reversed(w, a_);
    sm3_round(s, j, w[0], w[4]);
    sm3_round(s, j + 1, w[1], w[5]);
    reversed(out, s);
    memcpy(d_, out, 32);
}
const v_kernel vk_sm3me[4] = { NULL, NULL, sm3me_32, NULL };
const v_kernel vk_sm3c[4] = { NULL, NULL, sm3c_32, NULL };
