/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversions between formats and integers, rounding to integral values, comparison, minimum
 * and maximum, classification. Pure functions: any thread.
 */
#include "engine/tcg/softfp/sf_num.h"

/* ---- between formats ---- */

static inline uint64_t convert(const struct sf_format *to, struct sf_num n, struct sf_status *s)
{
    return sf_pack(to, sf_is_nan(&n) ? sf_pick_nan(&n, 1, s) : n, s);
}

#define SF_CONVERT(FROM, UF, TO, UT)                                                           \
    UT sf_##FROM##_to_##TO(UF a, struct sf_status *s)                                          \
    {                                                                                          \
        return (UT)convert(&sf_##TO, sf_unpack(&sf_##FROM, a), s);                             \
    }

SF_CONVERT(f16, uint16_t, f32, uint32_t)
SF_CONVERT(f16, uint16_t, f64, uint64_t)
SF_CONVERT(f32, uint32_t, f16, uint16_t)
SF_CONVERT(f32, uint32_t, f64, uint64_t)
SF_CONVERT(f64, uint64_t, f16, uint16_t)
SF_CONVERT(f64, uint64_t, f32, uint32_t)
SF_CONVERT(bf16, uint16_t, f32, uint32_t)
SF_CONVERT(f32, uint32_t, bf16, uint16_t)

/* ---- integers ---- */

static inline struct sf_num from_integer(uint64_t magnitude, bool sign)
{
    struct sf_num n = {
        .kind = SF_KIND_FINITE, .sign = sign, .exp = 63, .sig = (sf_u128)magnitude << 64
    };
    sf_normalise(&n);
    return n;
}

/* The magnitude of a finite number as an integer, rounded; at least 2^65 - 1 for anything
 * too large for that. */
static inline sf_u128 round_magnitude(const struct sf_num *n, unsigned rm, bool *inexact)
{
    *inexact = false;
    if (n->exp >= 127) {
        return ~(sf_u128)0;
    }
    if (n->exp < -1) {
        *inexact = true;
        return sf_round_up(rm, n->sign, false, false, true);
    }
    /* Integer bits are the top exp + 1; none when exp is -1. */
    int fraction_bits = 127 - n->exp;
    sf_u128 whole = fraction_bits == 128 ? 0 : n->sig >> fraction_bits;
    sf_u128 rest = n->sig << (128 - fraction_bits);
    *inexact = rest != 0;
    return whole + sf_round_up(rm, n->sign, whole & 1, rest >> 127, rest << 1 != 0);
}

/* The integer that stands for what does not fit into `bits` bits. */
static inline uint64_t unfit_integer(const struct sf_num *n, int bits, bool is_signed,
                                     struct sf_status *s)
{
    uint64_t top = 1ULL << (bits - 1);
    uint64_t all = top | (top - 1);
    bool negative = n->sign;

    s->flags |= SF_NV;
    if (s->int_rule == SF_INT_INDEFINITE) {
        return is_signed ? top : all;
    }
    if (sf_is_nan(n)) {
        if (s->int_rule == SF_INT_SATURATE_NAN_ZERO) {
            return 0;
        }
        negative = false;
    }
    if (is_signed) {
        return negative ? top : top - 1;
    }
    return negative ? 0 : all;
}

/* Two's complement in the low `bits` bits of the result. */
static inline uint64_t to_integer(struct sf_num n, int bits, bool is_signed,
                                  struct sf_status *s)
{
    sf_u128 limit = (sf_u128)1 << (is_signed ? bits - 1 : bits);
    sf_u128 magnitude;
    bool inexact;

    if (n.kind == SF_KIND_ZERO) {
        return 0;
    }
    if (n.kind != SF_KIND_FINITE) {
        return unfit_integer(&n, bits, is_signed, s);
    }
    magnitude = round_magnitude(&n, s->rm, &inexact);
    if (n.sign) {
        limit = is_signed ? limit + 1 : 1;
    }
    if (magnitude >= limit) {
        return unfit_integer(&n, bits, is_signed, s);
    }
    if (inexact) {
        s->flags |= SF_NX;
    }
    return n.sign ? 0 - (uint64_t)magnitude : (uint64_t)magnitude;
}

/* ---- rounding to an integral value ---- */

static inline struct sf_num round_integral(struct sf_num n, bool exact, struct sf_status *s)
{
    bool inexact;

    if (sf_is_nan(&n)) {
        return sf_pick_nan(&n, 1, s);
    }
    if (n.kind != SF_KIND_FINITE || n.exp >= 126) {
        return n;
    }
    sf_u128 magnitude = round_magnitude(&n, s->rm, &inexact);
    if (inexact && exact) {
        s->flags |= SF_NX;
    }
    n.sig = magnitude;
    n.exp = 127;
    sf_normalise(&n);
    return n;
}

/* ---- comparison ---- */

/* Orders two bit patterns of `width` bits that are no NaN, -0 below +0. */
static inline bool below_total(uint64_t a, uint64_t b, int width)
{
    uint64_t top = 1ULL << (width - 1);
    bool a_negative = a & top;
    bool b_negative = b & top;

    if (a_negative != b_negative) {
        return a_negative;
    }
    return a_negative ? b < a : a < b;
}

static inline int width_of(const struct sf_format *f)
{
    return 1 + f->exp_bits + f->frac_bits;
}

enum { NOT_NAN, QUIET_NAN, SIGNALLING_NAN };

static inline int nan_kind(const struct sf_format *f, uint64_t bits)
{
    uint64_t magnitude = bits & ((1ULL << (width_of(f) - 1)) - 1);
    uint64_t infinity = ((1ULL << f->exp_bits) - 1) << f->frac_bits;
    if (magnitude <= infinity) {
        return NOT_NAN;
    }
    return magnitude >> (f->frac_bits - 1) & 1 ? QUIET_NAN : SIGNALLING_NAN;
}

static inline enum sf_order compare(const struct sf_format *f, uint64_t a, uint64_t b,
                                    bool signalling, struct sf_status *s)
{
    int width = width_of(f);
    int nan_a = nan_kind(f, a);
    int nan_b = nan_kind(f, b);

    if (nan_a || nan_b) {
        if (signalling || nan_a == SIGNALLING_NAN || nan_b == SIGNALLING_NAN) {
            s->flags |= SF_NV;
        }
        return SF_UNORDERED;
    }
    bool both_zero = (a | b) << (65 - width) == 0;
    if (a == b || both_zero) {
        return SF_EQUAL;
    }
    return below_total(a, b, width) ? SF_LESS : SF_GREATER;
}

/* The smaller operand, or the larger; `nan_wins` picks the standard's minimum over its
 * minimumNumber. */
static inline uint64_t select_bound(const struct sf_format *f, uint64_t a, uint64_t b,
                                    bool larger, bool nan_wins, struct sf_status *s)
{
    int nan_a = nan_kind(f, a);
    int nan_b = nan_kind(f, b);

    if (nan_a || nan_b) {
        if (nan_wins || (nan_a && nan_b)) {
            struct sf_num n[] = { sf_unpack(f, a), sf_unpack(f, b) };
            return sf_pack(f, sf_pick_nan(n, 2, s), s);
        }
        if (nan_a == SIGNALLING_NAN || nan_b == SIGNALLING_NAN) {
            s->flags |= SF_NV;
        }
        return nan_a ? b : a;
    }
    return below_total(a, b, width_of(f)) != larger ? a : b;
}

static inline enum sf_class classify(const struct sf_format *f, uint64_t bits)
{
    struct sf_num n = sf_unpack(f, bits);

    switch (n.kind) {
    case SF_KIND_ZERO:
        return n.sign ? SF_CLASS_NEG_ZERO : SF_CLASS_POS_ZERO;
    case SF_KIND_INF:
        return n.sign ? SF_CLASS_NEG_INF : SF_CLASS_POS_INF;
    case SF_KIND_QNAN:
        return SF_CLASS_QNAN;
    case SF_KIND_SNAN:
        return SF_CLASS_SNAN;
    case SF_KIND_FINITE:
        break;
    }
    if (n.exp < 1 - sf_bias(f)) {
        return n.sign ? SF_CLASS_NEG_SUBNORMAL : SF_CLASS_POS_SUBNORMAL;
    }
    return n.sign ? SF_CLASS_NEG_NORMAL : SF_CLASS_POS_NORMAL;
}

#define SF_OTHERS(T, U)                                                                        \
    enum sf_order sf_##T##_cmp(U a, U b, bool signalling, struct sf_status *s)                 \
    {                                                                                          \
        return compare(&sf_##T, a, b, signalling, s);                                          \
    }                                                                                          \
    U sf_##T##_min(U a, U b, struct sf_status *s)                                              \
    {                                                                                          \
        return (U)select_bound(&sf_##T, a, b, false, false, s);                                \
    }                                                                                          \
    U sf_##T##_max(U a, U b, struct sf_status *s)                                              \
    {                                                                                          \
        return (U)select_bound(&sf_##T, a, b, true, false, s);                                 \
    }                                                                                          \
    U sf_##T##_minimum(U a, U b, struct sf_status *s)                                          \
    {                                                                                          \
        return (U)select_bound(&sf_##T, a, b, false, true, s);                                 \
    }                                                                                          \
    U sf_##T##_maximum(U a, U b, struct sf_status *s)                                          \
    {                                                                                          \
        return (U)select_bound(&sf_##T, a, b, true, true, s);                                  \
    }                                                                                          \
    enum sf_class sf_##T##_classify(U a)                                                       \
    {                                                                                          \
        return classify(&sf_##T, a);                                                           \
    }                                                                                          \
    U sf_##T##_round_int(U a, bool exact, struct sf_status *s)                                 \
    {                                                                                          \
        return (U)sf_pack(&sf_##T, round_integral(sf_unpack(&sf_##T, a), exact, s), s);        \
    }                                                                                          \
    int32_t sf_##T##_to_i32(U a, struct sf_status *s)                                          \
    {                                                                                          \
        return (int32_t)to_integer(sf_unpack(&sf_##T, a), 32, true, s);                        \
    }                                                                                          \
    uint32_t sf_##T##_to_u32(U a, struct sf_status *s)                                         \
    {                                                                                          \
        return (uint32_t)to_integer(sf_unpack(&sf_##T, a), 32, false, s);                      \
    }                                                                                          \
    int64_t sf_##T##_to_i64(U a, struct sf_status *s)                                          \
    {                                                                                          \
        return (int64_t)to_integer(sf_unpack(&sf_##T, a), 64, true, s);                        \
    }                                                                                          \
    uint64_t sf_##T##_to_u64(U a, struct sf_status *s)                                         \
    {                                                                                          \
        return to_integer(sf_unpack(&sf_##T, a), 64, false, s);                                \
    }                                                                                          \
    U sf_##T##_from_i64(int64_t v, struct sf_status *s)                                        \
    {                                                                                          \
        uint64_t magnitude = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;                            \
        return (U)sf_pack(&sf_##T, from_integer(magnitude, v < 0), s);                         \
    }                                                                                          \
    U sf_##T##_from_u64(uint64_t v, struct sf_status *s)                                       \
    {                                                                                          \
        return (U)sf_pack(&sf_##T, from_integer(v, false), s);                                 \
    }

SF_OTHERS(f16, uint16_t)
SF_OTHERS(f32, uint32_t)
SF_OTHERS(f64, uint64_t)
