/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addition, multiplication, division, square root and fused multiply-add on canonical numbers,
 * and their instances for each format. Pure functions: any thread.
 *
 * Each computes enough bits of the exact result, the last of them sticky, for sf_pack() to
 * round once. The bounds are written for 113-bit significands (binary128), the widest that
 * the canonical form is meant for: those end at bit 15 of 128.
 */
#include "engine/tcg/softfp/sf_num.h"

struct sf_num sf_pick_nan(const struct sf_num *n, int count, struct sf_status *s)
{
    const struct sf_num *quiet = 0;
    const struct sf_num *signalling = 0;
    const struct sf_num *first = 0;

    for (int i = 0; i < count; i++) {
        if (!sf_is_nan(&n[i])) {
            continue;
        }
        first = first ? first : &n[i];
        if (n[i].kind == SF_KIND_SNAN) {
            signalling = signalling ? signalling : &n[i];
        } else {
            quiet = quiet ? quiet : &n[i];
        }
    }
    if (signalling) {
        s->flags |= SF_NV;
    }
    if (s->nan_rule == SF_NAN_DEFAULT || !first) {
        return sf_default_nan(s);
    }
    if (s->nan_rule == SF_NAN_SNAN_FIRST) {
        first = signalling ? signalling : quiet;
    }
    struct sf_num result = *first;
    result.kind = SF_KIND_QNAN;
    result.sig |= (sf_u128)1 << 126;
    return result;
}

/* Sum of two finite, non-zero numbers. */
static inline struct sf_num add_finite(struct sf_num a, struct sf_num b, struct sf_status *s)
{
    if (a.exp < b.exp || (a.exp == b.exp && a.sig < b.sig)) {
        struct sf_num t = a;
        a = b;
        b = t;
    }
    /* Two bits of room above for the carry; 13 below keep jamming harmless. */
    int distance = a.exp - b.exp;
    a.sig >>= 2;
    b.sig = sf_shift_jam(b.sig, 2 + distance);
    a.exp += 2;
    if (a.sign == b.sign) {
        a.sig += b.sig;
    } else {
        a.sig -= b.sig;
        if (a.sig == 0) {
            a.sign = s->rm == SF_RDN;
        }
    }
    sf_normalise(&a);
    return a;
}

static inline struct sf_num add(struct sf_num a, struct sf_num b, struct sf_status *s)
{
    if (sf_is_nan(&a) || sf_is_nan(&b)) {
        return sf_pick_nan((struct sf_num[]){ a, b }, 2, s);
    }
    if (a.kind == SF_KIND_FINITE && b.kind == SF_KIND_FINITE) {
        return add_finite(a, b, s);
    }
    if (a.kind == SF_KIND_INF) {
        return b.kind == SF_KIND_INF && a.sign != b.sign ? sf_invalid(s) : a;
    }
    if (b.kind == SF_KIND_INF || a.kind == SF_KIND_ZERO) {
        if (b.kind == SF_KIND_ZERO && a.sign != b.sign) {
            b.sign = s->rm == SF_RDN;
        }
        return b;
    }
    return a;
}

struct u256 {
    sf_u128 high;
    sf_u128 low;
};

static inline struct u256 mul_wide(sf_u128 a, sf_u128 b)
{
    uint64_t ah = (uint64_t)(a >> 64), al = (uint64_t)a;
    uint64_t bh = (uint64_t)(b >> 64), bl = (uint64_t)b;
    sf_u128 hh = (sf_u128)ah * bh, hl = (sf_u128)ah * bl;
    sf_u128 lh = (sf_u128)al * bh, ll = (sf_u128)al * bl;
    sf_u128 middle = (ll >> 64) + (uint64_t)hl + (uint64_t)lh;
    struct u256 r = {
        .high = hh + (hl >> 64) + (lh >> 64) + (middle >> 64),
        .low = middle << 64 | (uint64_t)ll,
    };
    return r;
}

static inline struct sf_num mul(struct sf_num a, struct sf_num b, struct sf_status *s)
{
    if (sf_is_nan(&a) || sf_is_nan(&b)) {
        return sf_pick_nan((struct sf_num[]){ a, b }, 2, s);
    }
    a.sign ^= b.sign;
    if (a.kind == SF_KIND_FINITE && b.kind == SF_KIND_FINITE) {
        struct u256 product = mul_wide(a.sig, b.sig);
        a.sig = product.high | (product.low != 0);
        a.exp += b.exp + 1;
        sf_normalise(&a);
        return a;
    }
    /* Kinds are ordered: zero, finite, infinite. */
    enum sf_kind low = a.kind < b.kind ? a.kind : b.kind;
    enum sf_kind high = a.kind < b.kind ? b.kind : a.kind;
    if (low == SF_KIND_ZERO && high == SF_KIND_INF) {
        return sf_invalid(s);
    }
    a.kind = high == SF_KIND_INF ? high : low;
    return a;
}

/* Quotient of finite numbers to `bits` bits and a sticky one, one bit a step. */
static inline struct sf_num div_finite(struct sf_num a, struct sf_num b, int bits)
{
    sf_u128 rest = a.sig >> 1;
    sf_u128 divisor = b.sig >> 1;
    sf_u128 quotient = 0;

    for (int i = 0; i < bits; i++) {
        bool one = rest >= divisor;
        rest = (rest - (one ? divisor : 0)) << 1;
        quotient = quotient << 1 | one;
    }
    a.sig = quotient << (128 - bits) | (rest != 0);
    a.exp -= b.exp;
    sf_normalise(&a);
    return a;
}

static inline struct sf_num divide(struct sf_num a, struct sf_num b, int bits,
                                   struct sf_status *s)
{
    if (sf_is_nan(&a) || sf_is_nan(&b)) {
        return sf_pick_nan((struct sf_num[]){ a, b }, 2, s);
    }
    a.sign ^= b.sign;
    if (a.kind == SF_KIND_FINITE && b.kind == SF_KIND_FINITE) {
        return div_finite(a, b, bits);
    }
    if (a.kind == b.kind) {
        return sf_invalid(s);
    }
    if (b.kind == SF_KIND_ZERO && a.kind == SF_KIND_FINITE) {
        s->flags |= SF_DZ;
    }
    if (a.kind == SF_KIND_ZERO || b.kind == SF_KIND_INF) {
        a.kind = SF_KIND_ZERO;
    } else {
        a.kind = SF_KIND_INF;
    }
    return a;
}

/* Square root to `bits` bits and a sticky one: digit by digit in fixed point with the binary
 * point above bit 124, where the radicand, in [1, 4), and every remainder fit. */
static inline struct sf_num square_root(struct sf_num a, int bits, struct sf_status *s)
{
    if (sf_is_nan(&a)) {
        return sf_pick_nan(&a, 1, s);
    }
    if (a.kind == SF_KIND_ZERO) {
        return a;
    }
    if (a.sign) {
        return sf_invalid(s);
    }
    if (a.kind == SF_KIND_INF) {
        return a;
    }
    bool odd = a.exp & 1;
    sf_u128 rest = a.sig >> (odd ? 2 : 3);
    sf_u128 twice_root = 0;
    sf_u128 root = 0;
    sf_u128 digit = (sf_u128)1 << 124;

    for (int i = 0; i < bits; i++) {
        sf_u128 trial = twice_root + digit;
        if (trial <= rest) {
            rest -= trial;
            twice_root = trial + digit;
            root += digit;
        }
        rest <<= 1;
        digit >>= 1;
    }
    a.sig = root << 3 | (rest != 0);
    a.exp = (a.exp - odd) / 2;
    return a;
}

static inline struct u256 shift_jam_wide(struct u256 v, int n)
{
    if (n >= 128) {
        v.low = sf_shift_jam(v.high, n - 128) | (v.low != 0);
        v.high = 0;
    } else if (n > 0) {
        bool lost = v.low << (128 - n) != 0;
        v.low = v.low >> n | v.high << (128 - n) | lost;
        v.high >>= n;
    }
    return v;
}

static inline bool below_wide(struct u256 a, struct u256 b)
{
    return a.high < b.high || (a.high == b.high && a.low < b.low);
}

/* product * 2^(exp - 255) + c, all non-zero. The sum has 256 bits: a product of two 113-bit
 * significands loses none of its 226 in the two places of room. */
static inline struct sf_num fma_finite(struct u256 product, int exp, bool sign, struct sf_num c,
                                       struct sf_status *s)
{
    struct u256 big = product;
    struct u256 small = { .high = c.sig };
    int distance = exp - c.exp;
    struct sf_num r = { .kind = SF_KIND_FINITE, .sign = sign, .exp = exp + 2 };
    bool subtract = sign != c.sign;

    if (distance < 0) {
        distance = -distance;
        r.sign = c.sign;
        r.exp = c.exp + 2;
        big = small;
        small = product;
    }
    big = shift_jam_wide(big, 2);
    small = shift_jam_wide(small, 2 + distance);
    if (subtract && below_wide(big, small)) {
        struct u256 t = big;
        big = small;
        small = t;
        r.sign = !r.sign;
    }
    sf_u128 low = subtract ? big.low - small.low : big.low + small.low;
    bool carry = subtract ? big.low < small.low : low < big.low;
    sf_u128 high = subtract ? big.high - small.high - carry : big.high + small.high + carry;

    if (high == 0) {
        r.exp -= 128;
        r.sig = low;
        if (low == 0) {
            r.sign = s->rm == SF_RDN;
        }
        sf_normalise(&r);
        return r;
    }
    int shift = sf_clz128(high);
    r.exp -= shift;
    r.sig = shift ? high << shift | low >> (128 - shift) : high;
    r.sig |= low << shift != 0;
    return r;
}

static inline struct sf_num fma_num(struct sf_num a, struct sf_num b, struct sf_num c,
                                    struct sf_status *s)
{
    bool inf_times_zero = (a.kind == SF_KIND_INF && b.kind == SF_KIND_ZERO) ||
                          (a.kind == SF_KIND_ZERO && b.kind == SF_KIND_INF);

    if (inf_times_zero) {
        s->flags |= SF_NV;
    }
    if (sf_is_nan(&a) || sf_is_nan(&b) || sf_is_nan(&c)) {
        return sf_pick_nan((struct sf_num[]){ a, b, c }, 3, s);
    }
    if (inf_times_zero) {
        return sf_default_nan(s);
    }
    if (a.kind != SF_KIND_FINITE || b.kind != SF_KIND_FINITE || c.kind != SF_KIND_FINITE) {
        if (a.kind == SF_KIND_FINITE && b.kind == SF_KIND_FINITE && c.kind == SF_KIND_ZERO) {
            return mul(a, b, s);
        }
        if (c.kind == SF_KIND_FINITE && (a.kind == SF_KIND_ZERO || b.kind == SF_KIND_ZERO)) {
            return c;
        }
        return add(mul(a, b, s), c, s);
    }
    struct u256 product = mul_wide(a.sig, b.sig);
    return fma_finite(product, a.exp + b.exp + 1, a.sign != b.sign, c, s);
}

#define SF_ARITH(T, U)                                                                         \
    U sf_##T##_add(U a, U b, struct sf_status *s)                                              \
    {                                                                                          \
        return (U)sf_pack(&sf_##T, add(sf_unpack(&sf_##T, a), sf_unpack(&sf_##T, b), s), s);   \
    }                                                                                          \
    U sf_##T##_sub(U a, U b, struct sf_status *s)                                              \
    {                                                                                          \
        struct sf_num nb = sf_unpack(&sf_##T, b);                                              \
        nb.sign ^= !sf_is_nan(&nb);                                                            \
        return (U)sf_pack(&sf_##T, add(sf_unpack(&sf_##T, a), nb, s), s);                      \
    }                                                                                          \
    U sf_##T##_mul(U a, U b, struct sf_status *s)                                              \
    {                                                                                          \
        return (U)sf_pack(&sf_##T, mul(sf_unpack(&sf_##T, a), sf_unpack(&sf_##T, b), s), s);   \
    }                                                                                          \
    U sf_##T##_div(U a, U b, struct sf_status *s)                                              \
    {                                                                                          \
        struct sf_num na = sf_unpack(&sf_##T, a), nb = sf_unpack(&sf_##T, b);                  \
        return (U)sf_pack(&sf_##T, divide(na, nb, sf_##T.frac_bits + 4, s), s);                \
    }                                                                                          \
    U sf_##T##_sqrt(U a, struct sf_status *s)                                                  \
    {                                                                                          \
        struct sf_num na = sf_unpack(&sf_##T, a);                                              \
        return (U)sf_pack(&sf_##T, square_root(na, sf_##T.frac_bits + 4, s), s);               \
    }                                                                                          \
    U sf_##T##_fma(U a, U b, U c, unsigned negate, struct sf_status *s)                        \
    {                                                                                          \
        struct sf_num na = sf_unpack(&sf_##T, a);                                              \
        struct sf_num nc = sf_unpack(&sf_##T, c);                                              \
        na.sign ^= (negate & SF_NEG_PRODUCT) && !sf_is_nan(&na);                               \
        nc.sign ^= (negate & SF_NEG_ADDEND) && !sf_is_nan(&nc);                                \
        return (U)sf_pack(&sf_##T, fma_num(na, sf_unpack(&sf_##T, b), nc, s), s);              \
    }

SF_ARITH(f16, uint16_t)
SF_ARITH(f32, uint32_t)
SF_ARITH(f64, uint64_t)
