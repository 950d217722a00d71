/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Helpers of carry-less multiplication, crossbar permutation and the block ciphers (Zbc, Zbkx, Zknd, Zkne, Zksed;
 * Cryptography Extensions volume I, 1.0.1): pure functions, by the host's instructions where it has them. Any thread.
 */
#include "engine/tcg/guest_riscv/helper.h"
#include "engine/tcg/guest_riscv/sbox.h"
#include "engine/tcg/hostops.h"

#define UNUSED(x) (void)(x)

static uint64_t sext32(uint64_t v)
{
    return (uint64_t)(int64_t)(int32_t)v;
}

static uint32_t rotl32(uint32_t v, unsigned n)
{
    return n & 31 ? v << (n & 31) | v >> (32 - (n & 31)) : v;
}

/* ---- carry-less multiplication ---- */

static unsigned __int128 multiply(uint64_t a, uint64_t b)
{
    uint64_t high = 0, low = 0;

    if (!host_clmul(a, b, &high, &low)) {
        for (unsigned i = 0; i < 64; i++) {
            uint64_t mask = 0 - (b >> i & 1);
            low ^= mask & a << i;
            high ^= i ? mask & a >> (64 - i) : 0;
        }
    }
    return (unsigned __int128)high << 64 | low;
}

#define CLMUL(NAME, FROM, SHIFT)                                                               \
    uint64_t NAME(void *cpu, uint64_t a, uint64_t b, uint64_t c)                               \
    {                                                                                          \
        UNUSED(cpu);                                                                           \
        UNUSED(c);                                                                             \
        return (uint64_t)(multiply(FROM(a), FROM(b)) >> (SHIFT));                              \
    }

CLMUL(riscv_clmul, (uint64_t), 0)
CLMUL(riscv_clmulh, (uint64_t), 64)
CLMUL(riscv_clmulr, (uint64_t), 63)
CLMUL(riscv_clmulh_32, (uint32_t), 32)
CLMUL(riscv_clmulr_32, (uint32_t), 31)

/* ---- crossbar permutation ---- */

/* Each of the groups of n bits in w bits: the group of a whose number is in b. */
static uint64_t permute(uint64_t a, uint64_t b, unsigned n, unsigned w)
{
    uint64_t mask = (1u << n) - 1, r = 0;

    for (unsigned i = 0; i < w; i += n) {
        uint64_t from = (b >> i & mask) * n;
        r |= from < w ? (a >> from & mask) << i : 0;
    }
    return r;
}

#define XPERM(NAME, N, W)                                                                      \
    uint64_t NAME(void *cpu, uint64_t a, uint64_t b, uint64_t c)                               \
    {                                                                                          \
        UNUSED(cpu);                                                                           \
        UNUSED(c);                                                                             \
        return permute(a, b, N, W);                                                            \
    }

XPERM(riscv_xperm4, 4, 64)
XPERM(riscv_xperm8, 8, 64)
XPERM(riscv_xperm4_32, 4, 32)
XPERM(riscv_xperm8_32, 8, 32)

/* ---- AES on two registers ---- */

/* Doubling in GF(2^8) of each byte. */
static uint32_t xtime(uint32_t v)
{
    uint32_t top = v >> 7 & 0x01010101;
    return (v & 0x7f7f7f7f) << 1 ^ top * 0x1b;
}

static uint32_t mix_column(uint32_t v)
{
    uint32_t two = xtime(v);
    return two ^ rotl32(v ^ two, 24) ^ rotl32(v, 16) ^ rotl32(v, 8);
}

/* The inverse: a polynomial product with {0e, 09, 0d, 0b}. */
static uint32_t unmix_column(uint32_t v)
{
    uint32_t two = xtime(v), four = xtime(two), eight = xtime(four);
    uint32_t nine = eight ^ v;
    return (eight ^ four ^ two) ^ rotl32(nine ^ two, 24) ^ rotl32(nine ^ four, 16) ^
           rotl32(nine, 8);
}

static uint64_t columns(uint64_t v, uint32_t (*column)(uint32_t))
{
    return (uint64_t)column((uint32_t)(v >> 32)) << 32 | column((uint32_t)v);
}

/* Columns 0 and 1 after the rows were shifted (back) and the bytes substituted. */
static uint64_t shift_and_substitute(const uint64_t s[2], const uint8_t *box, bool back)
{
    uint64_t r = 0;

    for (unsigned i = 0; i < 8; i++) {
        unsigned row = i & 3, column = i >> 2;
        unsigned from = ((back ? column - row : column + row) & 3) * 4 + row;
        r |= (uint64_t)box[s[from >> 3] >> 8 * (from & 7) & 0xff] << 8 * i;
    }
    return r;
}

static uint64_t encrypt(uint64_t a, uint64_t b, bool mix)
{
    uint64_t s[2] = { a, b };

    if (host_aes(mix ? HOST_AES_ENC : HOST_AES_ENC_LAST, s)) {
        return s[0];
    }
    uint64_t r = shift_and_substitute(s, riscv_aes_sbox, false);
    return mix ? columns(r, mix_column) : r;
}

static uint64_t decrypt(uint64_t a, uint64_t b, bool mix)
{
    uint64_t s[2] = { a, b };

    if (host_aes(mix ? HOST_AES_DEC : HOST_AES_DEC_LAST, s)) {
        return s[0];
    }
    uint64_t r = shift_and_substitute(s, riscv_aes_inv_sbox, true);
    return mix ? columns(r, unmix_column) : r;
}

uint64_t riscv_aes64es(void *cpu, uint64_t a, uint64_t b, uint64_t c)
{
    UNUSED(cpu);
    UNUSED(c);
    return encrypt(a, b, false);
}

uint64_t riscv_aes64esm(void *cpu, uint64_t a, uint64_t b, uint64_t c)
{
    UNUSED(cpu);
    UNUSED(c);
    return encrypt(a, b, true);
}

uint64_t riscv_aes64ds(void *cpu, uint64_t a, uint64_t b, uint64_t c)
{
    UNUSED(cpu);
    UNUSED(c);
    return decrypt(a, b, false);
}

uint64_t riscv_aes64dsm(void *cpu, uint64_t a, uint64_t b, uint64_t c)
{
    UNUSED(cpu);
    UNUSED(c);
    return decrypt(a, b, true);
}

uint64_t riscv_aes64im(void *cpu, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t s[2] = { a, 0 };

    UNUSED(cpu);
    UNUSED(b);
    UNUSED(c);
    return host_aes(HOST_AES_MIX_BACK, s) ? s[0] : columns(a, unmix_column);
}

static uint32_t substitute(uint32_t v, const uint8_t *box)
{
    return (uint32_t)box[v >> 24] << 24 | (uint32_t)box[v >> 16 & 0xff] << 16 |
           (uint32_t)box[v >> 8 & 0xff] << 8 | box[v & 0xff];
}

/* Round 10 is the middle word of AES-256: neither rotated nor added to. */
uint64_t riscv_aes64ks1i(void *cpu, uint64_t a, uint64_t b, uint64_t c)
{
    static const uint8_t round_constant[16] = { 0x01, 0x02, 0x04, 0x08, 0x10,
                                                0x20, 0x40, 0x80, 0x1b, 0x36 };
    uint32_t v = (uint32_t)(a >> 32);

    UNUSED(cpu);
    UNUSED(c);
    v = substitute(b == 10 ? v : rotl32(v, 24), riscv_aes_sbox) ^ round_constant[b & 15];
    return (uint64_t)v << 32 | v;
}

/* ---- one byte at a time: RV32's AES, and SM4 ---- */

enum { AES32ESI = 0x11, AES32ESMI = 0x13, AES32DSI = 0x15, AES32DSMI = 0x17, SM4ED = 0x18 };

/* One byte through the substitution and the linear part, in its place as byte 0. */
static uint32_t byte_round(unsigned kind, uint8_t in)
{
    uint32_t x;

    switch (kind) {
    case AES32ESI:
        return riscv_aes_sbox[in];
    case AES32ESMI:
        return mix_column(riscv_aes_sbox[in]);
    case AES32DSI:
        return riscv_aes_inv_sbox[in];
    case AES32DSMI:
        return unmix_column(riscv_aes_inv_sbox[in]);
    case SM4ED: /* rotations of a word whose bytes are the other way round */
        x = riscv_sm4_sbox[in];
        return x ^ x << 8 ^ x << 2 ^ x << 18 ^ (x & 0x3f) << 26 ^ (x & 0xc0) << 10;
    default: /* sm4ks */
        x = riscv_sm4_sbox[in];
        return x ^ (x & 0x07) << 29 ^ (x & 0xfe) << 7 ^ (x & 1) << 23 ^ (x & 0xf8) << 13;
    }
}

uint64_t riscv_aes32(void *cpu, uint64_t a, uint64_t b, uint64_t insn)
{
    unsigned byte = insn >> 30 & 3;
    uint32_t r = byte_round(insn >> 25 & 0x1f, b >> 8 * byte & 0xff);

    UNUSED(cpu);
    return sext32((uint32_t)a ^ rotl32(r, 8 * byte));
}
