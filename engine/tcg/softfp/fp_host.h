/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fast way through floating point: the host's own arithmetic where its result and flags are
 * provably those of softfp.h, softfp otherwise.
 *
 * The host computes to nearest even; only its result is used, never its flags. A finite result
 * of finite operands above the smallest normal number can raise nothing but inexact. When NX is
 * set already (it is sticky, and nearly always set) nothing more is to be known. When it is not,
 * error-free transformations give the exact rounding error with a few more operations of the
 * host: the result is exact when that is zero. Zeroes, subnormals, infinities, NaNs, and bounds
 * where a transformation itself could underflow, go to softfp.
 *
 * Callers run with the host's default floating-point environment (round to nearest, exceptions
 * masked, no flush to zero), and this is compiled without contraction or value-changing
 * optimisation (-ffp-contract=off). Where the host evaluates in excess precision, all is softfp.
 * Any thread.
 */
#ifndef VMD_TCG_FP_HOST_H
#define VMD_TCG_FP_HOST_H

#include "engine/tcg/softfp/softfp.h"

#include <float.h>
#include <math.h>
#include <string.h>

#if FLT_EVAL_METHOD == 0 && FLT_MANT_DIG == 24 && DBL_MANT_DIG == 53
#define FPH_USABLE 1
#else
#define FPH_USABLE 0
#endif

/* Products and quotients at least this large have rounding errors that are normal numbers. */
#define FPH_F64_SAFE 0x1p-900
/* Sums of operands up to this large do not overflow on the way to their rounding errors. */
#define FPH_F64_LARGE 0x1p1000

static inline double fph_f64(uint64_t bits)
{
    double v;
    memcpy(&v, &bits, sizeof(v));
    return v;
}

static inline uint64_t fph_f64_bits(double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof(bits));
    return bits;
}

static inline float fph_f32(uint32_t bits)
{
    float v;
    memcpy(&v, &bits, sizeof(v));
    return v;
}

static inline uint32_t fph_f32_bits(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof(bits));
    return bits;
}

static inline bool fph_nearest(const struct sf_status *s)
{
    return FPH_USABLE && s->rm == SF_RNE;
}

static inline void fph_inexact_if(bool inexact, struct sf_status *s)
{
    s->flags |= inexact ? SF_NX : 0;
}

/* ---- binary64 ---- */

/* The rounding error of sum = x + y, exactly (Knuth's TwoSum). x is far from overflow. */
static inline double fph_sum_error(double x, double y, double sum)
{
    double y1 = sum - x;
    return (x - (sum - y1)) + (y - y1);
}

/* A finite sum is exact or inexact; it cannot underflow inexactly. */
static inline uint64_t fph_f64_add(uint64_t a, uint64_t b, struct sf_status *s)
{
    double x = fph_f64(a), y = fph_f64(b), r = x + y;

    if (!fph_nearest(s) || !(fabs(r) <= DBL_MAX)) {
        return sf_f64_add(a, b, s);
    }
    if (!(s->flags & SF_NX)) {
        if (fabs(x) > FPH_F64_LARGE) {
            return sf_f64_add(a, b, s);
        }
        fph_inexact_if(fph_sum_error(x, y, r) != 0, s);
    }
    return fph_f64_bits(r);
}

static inline uint64_t fph_f64_sub(uint64_t a, uint64_t b, struct sf_status *s)
{
    double x = fph_f64(a), y = fph_f64(b), r = x - y;

    if (!fph_nearest(s) || !(fabs(r) <= DBL_MAX)) {
        return sf_f64_sub(a, b, s);
    }
    if (!(s->flags & SF_NX)) {
        if (fabs(x) > FPH_F64_LARGE) {
            return sf_f64_sub(a, b, s);
        }
        fph_inexact_if(fph_sum_error(x, -y, r) != 0, s);
    }
    return fph_f64_bits(r);
}

static inline uint64_t fph_f64_mul(uint64_t a, uint64_t b, struct sf_status *s)
{
    double x = fph_f64(a), y = fph_f64(b), r = x * y;

    if (!fph_nearest(s) || !(fabs(r) <= DBL_MAX && fabs(r) > FPH_F64_SAFE)) {
        return sf_f64_mul(a, b, s);
    }
    if (!(s->flags & SF_NX)) {
        fph_inexact_if(fma(x, y, -r) != 0, s);
    }
    return fph_f64_bits(r);
}

static inline uint64_t fph_f64_div(uint64_t a, uint64_t b, struct sf_status *s)
{
    double x = fph_f64(a), y = fph_f64(b), r = x / y;

    if (!fph_nearest(s) || !(fabs(r) <= DBL_MAX && fabs(r) > FPH_F64_SAFE) ||
        fabs(x) < FPH_F64_SAFE) {
        return sf_f64_div(a, b, s);
    }
    if (!(s->flags & SF_NX)) {
        fph_inexact_if(fma(r, y, -x) != 0, s);
    }
    return fph_f64_bits(r);
}

static inline uint64_t fph_f64_sqrt(uint64_t a, struct sf_status *s)
{
    double x = fph_f64(a);

    if (!fph_nearest(s) || !(x <= DBL_MAX && x > FPH_F64_SAFE)) {
        return sf_f64_sqrt(a, s);
    }
    double r = sqrt(x);
    if (!(s->flags & SF_NX)) {
        fph_inexact_if(fma(r, r, -x) != 0, s);
    }
    return fph_f64_bits(r);
}

/* Whether r, the rounded x * y + z, is exact. The error of a fused multiply-add is a sum of two
 * numbers (Boldo and Muller, "Some functions computable with a fused-mac", 2005). */
static inline bool fph_f64_fma_exact(double x, double y, double z, double r, double product)
{
    double low = fma(x, y, -product);
    double a = z + low;
    double a_error = fph_sum_error(z, low, a);
    double b = product + a;
    double b_error = fph_sum_error(product, a, b);

    return ((b - r) + b_error) + a_error == 0;
}

static inline uint64_t fph_f64_fma(uint64_t a, uint64_t b, uint64_t c, unsigned negate,
                                   struct sf_status *s)
{
    if (fph_nearest(s)) {
        double x = fph_f64(a), y = fph_f64(b), z = fph_f64(c);
        x = negate & SF_NEG_PRODUCT ? -x : x;
        z = negate & SF_NEG_ADDEND ? -z : z;
        double product = x * y;
        double r = fma(x, y, z);
        if (fabs(r) <= FPH_F64_LARGE && fabs(r) > FPH_F64_SAFE) {
            if (s->flags & SF_NX) {
                return fph_f64_bits(r);
            }
            if (fabs(product) <= FPH_F64_LARGE && fabs(product) > FPH_F64_SAFE) {
                fph_inexact_if(!fph_f64_fma_exact(x, y, z, r, product), s);
                return fph_f64_bits(r);
            }
        }
    }
    return sf_f64_fma(a, b, c, negate, s);
}

/* ---- binary32: products are exact in binary64 ---- */

static inline bool fph_f32_normal(float r)
{
    return fabsf(r) <= FLT_MAX && fabsf(r) > FLT_MIN;
}

static inline uint32_t fph_f32_add(uint32_t a, uint32_t b, struct sf_status *s)
{
    float x = fph_f32(a), y = fph_f32(b), r = x + y;

    if (!fph_nearest(s) || !(fabsf(r) <= FLT_MAX)) {
        return sf_f32_add(a, b, s);
    }
    if (!(s->flags & SF_NX)) {
        double sum = (double)x + y;
        fph_inexact_if(sum != r || fph_sum_error(x, y, sum) != 0, s);
    }
    return fph_f32_bits(r);
}

static inline uint32_t fph_f32_sub(uint32_t a, uint32_t b, struct sf_status *s)
{
    float x = fph_f32(a), y = fph_f32(b), r = x - y;

    if (!fph_nearest(s) || !(fabsf(r) <= FLT_MAX)) {
        return sf_f32_sub(a, b, s);
    }
    if (!(s->flags & SF_NX)) {
        double sum = (double)x - y;
        fph_inexact_if(sum != r || fph_sum_error(x, -y, sum) != 0, s);
    }
    return fph_f32_bits(r);
}

static inline uint32_t fph_f32_mul(uint32_t a, uint32_t b, struct sf_status *s)
{
    float x = fph_f32(a), y = fph_f32(b), r = x * y;

    if (!fph_nearest(s) || !fph_f32_normal(r)) {
        return sf_f32_mul(a, b, s);
    }
    fph_inexact_if((double)x * y != r, s);
    return fph_f32_bits(r);
}

static inline uint32_t fph_f32_div(uint32_t a, uint32_t b, struct sf_status *s)
{
    float x = fph_f32(a), y = fph_f32(b), r = x / y;

    if (!fph_nearest(s) || !fph_f32_normal(r)) {
        return sf_f32_div(a, b, s);
    }
    fph_inexact_if((double)r * y != x, s);
    return fph_f32_bits(r);
}

static inline uint32_t fph_f32_sqrt(uint32_t a, struct sf_status *s)
{
    float x = fph_f32(a);

    if (!fph_nearest(s) || !(x <= FLT_MAX && x > 0)) {
        return sf_f32_sqrt(a, s);
    }
    float r = sqrtf(x);
    fph_inexact_if((double)r * r != x, s);
    return fph_f32_bits(r);
}

static inline uint32_t fph_f32_fma(uint32_t a, uint32_t b, uint32_t c, unsigned negate,
                                   struct sf_status *s)
{
    if (fph_nearest(s)) {
        float x = fph_f32(a), y = fph_f32(b), z = fph_f32(c);
        x = negate & SF_NEG_PRODUCT ? -x : x;
        z = negate & SF_NEG_ADDEND ? -z : z;
        float r = fmaf(x, y, z);
        if (fph_f32_normal(r)) {
            double product = (double)x * y;
            double sum = product + z;
            fph_inexact_if(sum != r || fph_sum_error(product, z, sum) != 0, s);
            return fph_f32_bits(r);
        }
    }
    return sf_f32_fma(a, b, c, negate, s);
}

/* ---- conversions ---- */

static inline uint32_t fph_f64_to_f32(uint64_t a, struct sf_status *s)
{
    double x = fph_f64(a);
    float r = (float)x;

    if (!fph_nearest(s) || !fph_f32_normal(r)) {
        return sf_f64_to_f32(a, s);
    }
    fph_inexact_if(x != r, s);
    return fph_f32_bits(r);
}

static inline uint64_t fph_f32_to_f64(uint32_t a, struct sf_status *s)
{
    float x = fph_f32(a);
    return FPH_USABLE && x == x ? fph_f64_bits(x) : sf_f32_to_f64(a, s);
}

/* Rounds |x| < 2^63 to an integer by s->rm: the fraction left by truncation is exact. Returns
 * false, with no flag raised, when x is out of that range or a NaN. */
static inline bool fph_round_i64(double x, int64_t *out, struct sf_status *s)
{
    if (!FPH_USABLE || !(fabs(x) < 0x1p63)) {
        return false;
    }
    int64_t whole = (int64_t)x;
    double rest = x - (double)whole;
    int away = x < 0 ? -1 : 1;
    int adjust = 0;

    switch (s->rm) {
    case SF_RNE:
        adjust = fabs(rest) > 0.5 || (fabs(rest) == 0.5 && (whole & 1)) ? away : 0;
        break;
    case SF_RTZ:
        break;
    case SF_RDN:
        adjust = rest < 0 ? -1 : 0;
        break;
    case SF_RUP:
        adjust = rest > 0 ? 1 : 0;
        break;
    case SF_RMM:
        adjust = fabs(rest) >= 0.5 ? away : 0;
        break;
    default:
        return false;
    }
    *out = whole + adjust;
    return true;
}

#define FPH_TO_INTEGER(T, U, LOAD)                                                             \
    static inline int32_t fph_##T##_to_i32(U a, struct sf_status *s)                           \
    {                                                                                          \
        double x = LOAD(a);                                                                    \
        int64_t v;                                                                             \
        if (!fph_round_i64(x, &v, s) || v != (int32_t)v) {                                     \
            return sf_##T##_to_i32(a, s);                                                      \
        }                                                                                      \
        fph_inexact_if((double)v != x, s);                                                     \
        return (int32_t)v;                                                                     \
    }                                                                                          \
    static inline uint32_t fph_##T##_to_u32(U a, struct sf_status *s)                          \
    {                                                                                          \
        double x = LOAD(a);                                                                    \
        int64_t v;                                                                             \
        if (!fph_round_i64(x, &v, s) || v != (int64_t)(uint32_t)v) {                           \
            return sf_##T##_to_u32(a, s);                                                      \
        }                                                                                      \
        fph_inexact_if((double)v != x, s);                                                     \
        return (uint32_t)v;                                                                    \
    }                                                                                          \
    static inline int64_t fph_##T##_to_i64(U a, struct sf_status *s)                           \
    {                                                                                          \
        double x = LOAD(a);                                                                    \
        int64_t v;                                                                             \
        if (!fph_round_i64(x, &v, s)) {                                                        \
            return sf_##T##_to_i64(a, s);                                                      \
        }                                                                                      \
        fph_inexact_if((double)v != x, s);                                                     \
        return v;                                                                              \
    }                                                                                          \
    static inline uint64_t fph_##T##_to_u64(U a, struct sf_status *s)                          \
    {                                                                                          \
        double x = LOAD(a);                                                                    \
        int64_t v;                                                                             \
        if (!fph_round_i64(x, &v, s) || v < 0) {                                               \
            return sf_##T##_to_u64(a, s);                                                      \
        }                                                                                      \
        fph_inexact_if((double)v != x, s);                                                     \
        return (uint64_t)v;                                                                    \
    }

FPH_TO_INTEGER(f32, uint32_t, fph_f32)
FPH_TO_INTEGER(f64, uint64_t, fph_f64)

static inline uint64_t fph_f64_from_i64(int64_t v, struct sf_status *s)
{
    if (FPH_USABLE && v >= -(1LL << 53) && v <= 1LL << 53) {
        return fph_f64_bits((double)v);
    }
    return sf_f64_from_i64(v, s);
}

static inline uint64_t fph_f64_from_u64(uint64_t v, struct sf_status *s)
{
    return v <= 1ULL << 53 ? fph_f64_from_i64((int64_t)v, s) : sf_f64_from_u64(v, s);
}

static inline uint32_t fph_f32_from_i64(int64_t v, struct sf_status *s)
{
    if (fph_nearest(s) && v >= -(1LL << 53) && v <= 1LL << 53) {
        float r = (float)v;
        fph_inexact_if((double)r != (double)v, s);
        return fph_f32_bits(r);
    }
    return sf_f32_from_i64(v, s);
}

static inline uint32_t fph_f32_from_u64(uint64_t v, struct sf_status *s)
{
    return v <= 1ULL << 53 ? fph_f32_from_i64((int64_t)v, s) : sf_f32_from_u64(v, s);
}

#endif
