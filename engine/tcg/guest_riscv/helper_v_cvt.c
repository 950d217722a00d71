/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels of vector floating-point conversions and estimates (V 1.0, sections 13.9, 13.10, 13.17 to 13.19). Tables are by
 * SEW. vCPU thread.
 */
#include "engine/tcg/guest_riscv/vec.h"
#include "engine/tcg/guest_riscv/vec_kernels.h"
#include "engine/tcg/softfp/fp_host.h"

#define KERNEL(NAME, TD, TA, EXPR)                                                             \
    static void NAME(void *d_, const void *a_, const void *b_, size_t n, struct v_ctx *x)      \
    {                                                                                          \
        TD *d = d_;                                                                            \
        const TA *a = a_;                                                                      \
        struct sf_status *s = &x->fp;                                                          \
        (void)b_;                                                                              \
        for (size_t i = 0; i < n; i++) {                                                       \
            TA p = a[i];                                                                       \
            d[i] = (TD)(EXPR);                                                                 \
        }                                                                                      \
    }
/* ... with a rounding mode of its own */
#define KERNEL_RM(NAME, TD, TA, RM, EXPR)                                                      \
    static void NAME(void *d_, const void *a_, const void *b_, size_t n, struct v_ctx *x)      \
    {                                                                                          \
        TD *d = d_;                                                                            \
        const TA *a = a_;                                                                      \
        struct sf_status own = x->fp, *s = &own;                                               \
        (void)b_;                                                                              \
        own.rm = RM;                                                                           \
        for (size_t i = 0; i < n; i++) {                                                       \
            TA p = a[i];                                                                       \
            d[i] = (TD)(EXPR);                                                                 \
        }                                                                                      \
        x->fp.flags = own.flags;                                                               \
    }

/* ---- to integers of fewer bits than softfp knows ---- */

static int64_t clamp_s(int64_t v, const struct sf_status *got, int64_t min, int64_t max,
                       struct sf_status *s)
{
    if (v < min || v > max) {
        s->flags |= SF_NV;
        return v < min ? min : max;
    }
    s->flags |= got->flags;
    return v;
}

#define TO_SMALL(NAME, FORMAT, TV, BITS)                                                       \
    static inline int64_t NAME##_to_i##BITS(TV v, struct sf_status *s)                         \
    {                                                                                          \
        struct sf_status got = { .rm = s->rm };                                                \
        int32_t r = FORMAT##_to_i32(v, &got);                                                  \
        return clamp_s(r, &got, INT##BITS##_MIN, INT##BITS##_MAX, s);                          \
    }                                                                                          \
    static inline int64_t NAME##_to_u##BITS(TV v, struct sf_status *s)                         \
    {                                                                                          \
        struct sf_status got = { .rm = s->rm };                                                \
        int32_t r = FORMAT##_to_i32(v, &got);                                                  \
        return clamp_s(r, &got, 0, UINT##BITS##_MAX, s);                                       \
    }
TO_SMALL(f16, sf_f16, uint16_t, 8)
TO_SMALL(f16, sf_f16, uint16_t, 16)
TO_SMALL(f32, fph_f32, uint32_t, 16)

#define TO_INT_TABLE(NAME, K16, K32, K64)                                                      \
    KERNEL(NAME##_16, v_u16, v_u16, K16(p, s))                                                 \
    KERNEL(NAME##_32, v_u32, v_u32, K32(p, s))                                                 \
    KERNEL(NAME##_64, v_u64, v_u64, K64(p, s))                                                 \
    KERNEL_RM(NAME##_rtz_16, v_u16, v_u16, SF_RTZ, K16(p, s))                                  \
    KERNEL_RM(NAME##_rtz_32, v_u32, v_u32, SF_RTZ, K32(p, s))                                  \
    KERNEL_RM(NAME##_rtz_64, v_u64, v_u64, SF_RTZ, K64(p, s))                                  \
    const v_kernel NAME[4] = { NULL, NAME##_16, NAME##_32, NAME##_64 };                        \
    const v_kernel NAME##_rtz[4] = { NULL, NAME##_rtz_16, NAME##_rtz_32, NAME##_rtz_64 };
TO_INT_TABLE(vk_fcvt_xu, f16_to_u16, fph_f32_to_u32, fph_f64_to_u64)
TO_INT_TABLE(vk_fcvt_x, f16_to_i16, fph_f32_to_i32, fph_f64_to_i64)

#define WIDE_INT_TABLE(NAME, K16, K32)                                                         \
    KERNEL(NAME##_16, v_u32, v_u16, K16(p, s))                                                 \
    KERNEL(NAME##_32, v_u64, v_u32, K32(p, s))                                                 \
    KERNEL_RM(NAME##_rtz_16, v_u32, v_u16, SF_RTZ, K16(p, s))                                  \
    KERNEL_RM(NAME##_rtz_32, v_u64, v_u32, SF_RTZ, K32(p, s))                                  \
    const v_kernel NAME[4] = { NULL, NAME##_16, NAME##_32, NULL };                             \
    const v_kernel NAME##_rtz[4] = { NULL, NAME##_rtz_16, NAME##_rtz_32, NULL };
WIDE_INT_TABLE(vk_fwcvt_xu, sf_f16_to_u32, fph_f32_to_u64)
WIDE_INT_TABLE(vk_fwcvt_x, sf_f16_to_i32, fph_f32_to_i64)

#define NARROW_INT_TABLE(NAME, K8, K16, K32)                                                   \
    KERNEL(NAME##_8, v_u8, v_u16, K8(p, s))                                                    \
    KERNEL(NAME##_16, v_u16, v_u32, K16(p, s))                                                 \
    KERNEL(NAME##_32, v_u32, v_u64, K32(p, s))                                                 \
    KERNEL_RM(NAME##_rtz_8, v_u8, v_u16, SF_RTZ, K8(p, s))                                     \
    KERNEL_RM(NAME##_rtz_16, v_u16, v_u32, SF_RTZ, K16(p, s))                                  \
    KERNEL_RM(NAME##_rtz_32, v_u32, v_u64, SF_RTZ, K32(p, s))                                  \
    const v_kernel NAME[4] = { NAME##_8, NAME##_16, NAME##_32, NULL };                         \
    const v_kernel NAME##_rtz[4] = { NAME##_rtz_8, NAME##_rtz_16, NAME##_rtz_32, NULL };
NARROW_INT_TABLE(vk_fncvt_xu, f16_to_u8, f32_to_u16, fph_f64_to_u32)
NARROW_INT_TABLE(vk_fncvt_x, f16_to_i8, f32_to_i16, fph_f64_to_i32)

/* ---- from integers ---- */

KERNEL(cvt_f_xu_16, v_u16, v_u16, sf_f16_from_u64(p, s))
KERNEL(cvt_f_xu_32, v_u32, v_u32, fph_f32_from_u64(p, s))
KERNEL(cvt_f_xu_64, v_u64, v_u64, fph_f64_from_u64(p, s))
KERNEL(cvt_f_x_16, v_u16, v_s16, sf_f16_from_i64(p, s))
KERNEL(cvt_f_x_32, v_u32, v_s32, fph_f32_from_i64(p, s))
KERNEL(cvt_f_x_64, v_u64, v_s64, fph_f64_from_i64(p, s))
const v_kernel vk_fcvt_f_xu[4] = { NULL, cvt_f_xu_16, cvt_f_xu_32, cvt_f_xu_64 };
const v_kernel vk_fcvt_f_x[4] = { NULL, cvt_f_x_16, cvt_f_x_32, cvt_f_x_64 };

KERNEL(wcvt_f_xu_8, v_u16, v_u8, sf_f16_from_u64(p, s))
KERNEL(wcvt_f_xu_16, v_u32, v_u16, fph_f32_from_u64(p, s))
KERNEL(wcvt_f_xu_32, v_u64, v_u32, fph_f64_from_u64(p, s))
KERNEL(wcvt_f_x_8, v_u16, v_s8, sf_f16_from_i64(p, s))
KERNEL(wcvt_f_x_16, v_u32, v_s16, fph_f32_from_i64(p, s))
KERNEL(wcvt_f_x_32, v_u64, v_s32, fph_f64_from_i64(p, s))
const v_kernel vk_fwcvt_f_xu[4] = { wcvt_f_xu_8, wcvt_f_xu_16, wcvt_f_xu_32, NULL };
const v_kernel vk_fwcvt_f_x[4] = { wcvt_f_x_8, wcvt_f_x_16, wcvt_f_x_32, NULL };

KERNEL(ncvt_f_xu_16, v_u16, v_u32, sf_f16_from_u64(p, s))
KERNEL(ncvt_f_xu_32, v_u32, v_u64, fph_f32_from_u64(p, s))
KERNEL(ncvt_f_x_16, v_u16, v_s32, sf_f16_from_i64(p, s))
KERNEL(ncvt_f_x_32, v_u32, v_s64, fph_f32_from_i64(p, s))
const v_kernel vk_fncvt_f_xu[4] = { NULL, ncvt_f_xu_16, ncvt_f_xu_32, NULL };
const v_kernel vk_fncvt_f_x[4] = { NULL, ncvt_f_x_16, ncvt_f_x_32, NULL };

/* ---- between formats ---- */

KERNEL(wcvt_f_f_16, v_u32, v_u16, sf_f16_to_f32(p, s))
KERNEL(wcvt_f_f_32, v_u64, v_u32, fph_f32_to_f64(p, s))
KERNEL(ncvt_f_f_16, v_u16, v_u32, sf_f32_to_f16(p, s))
KERNEL(ncvt_f_f_32, v_u32, v_u64, fph_f64_to_f32(p, s))
KERNEL_RM(ncvt_rod_16, v_u16, v_u32, SF_ODD, sf_f32_to_f16(p, s))
KERNEL_RM(ncvt_rod_32, v_u32, v_u64, SF_ODD, sf_f64_to_f32(p, s))
const v_kernel vk_fwcvt_f_f[4] = { NULL, wcvt_f_f_16, wcvt_f_f_32, NULL };
const v_kernel vk_fncvt_f_f[4] = { NULL, ncvt_f_f_16, ncvt_f_f_32, NULL };
const v_kernel vk_fncvt_rod[4] = { NULL, ncvt_rod_16, ncvt_rod_32, NULL };

/* ---- estimates of seven bits (sections 13.9 and 13.10) ---- */

struct format {
    unsigned fraction, exponent; /* bits */
};

/* Upper seven bits of the fraction of 2 / x, by those of x. */
static const uint8_t reciprocal[128] = {
    127, 125, 123, 121, 119, 117, 116, 114, 112, 110, 109, 107, 105, 104, 102, 100, 99, 97, 96,
    94,  93,  91,  90,  88,  87,  85,  84,  83,  81,  80,  79,  77,  76,  75,  74,  72, 71, 70,
    69,  68,  66,  65,  64,  63,  62,  61,  60,  59,  58,  57,  56,  55,  54,  53,  52, 51, 50,
    49,  48,  47,  46,  45,  44,  43,  42,  41,  40,  40,  39,  38,  37,  36,  35,  35, 34, 33,
    32,  31,  31,  30,  29,  28,  28,  27,  26,  25,  25,  24,  23,  23,  22,  21,  21, 20, 19,
    19,  18,  17,  17,  16,  15,  15,  14,  14,  13,  12,  12,  11,  11,  10,  9,   9,  8,  8,
    7,   7,   6,   5,   5,   4,   4,   3,   3,   2,   2,   1,   1,   0,
};
/* ... of 2 / sqrt(x), by the lowest bit of the exponent and the upper six bits of the fraction. */
static const uint8_t reciprocal_root[128] = {
    52,  51,  50,  48,  47,  46, 44, 43,  42,  41,  40,  39,  38,  36,  35,  34,  33,  32,  31,
    30,  30,  29,  28,  27,  26, 25, 24,  23,  23,  22,  21,  20,  19,  19,  18,  17,  16,  16,
    15,  14,  14,  13,  12,  12, 11, 10,  10,  9,   9,   8,   7,   7,   6,   6,   5,   4,   4,
    3,   3,   2,   2,   1,   1,  0,  127, 125, 123, 121, 119, 118, 116, 114, 113, 111, 109, 108,
    106, 105, 103, 102, 100, 99, 97, 96,  95,  93,  92,  91,  90,  88,  87,  86,  85,  84,  83,
    82,  80,  79,  78,  77,  76, 75, 74,  73,  72,  71,  70,  70,  69,  68,  67,  66,  65,  64,
    63,  63,  62,  61,  60,  59, 59, 58,  57,  56,  56,  55,  54,  53,
};

/* A finite number other than 0 with its fraction made normal: the exponent may be 0 or less. */
static int normalise(uint64_t v, struct format f, uint64_t *fraction)
{
    uint64_t mask = ((uint64_t)1 << f.fraction) - 1;
    int exponent = (int)(v >> f.fraction & (((uint64_t)1 << f.exponent) - 1));

    *fraction = v & mask;
    if (exponent == 0) {
        unsigned zeros = (unsigned)__builtin_clzll(*fraction) - (64 - f.fraction);
        *fraction = *fraction << (zeros + 1) & mask;
        exponent = -(int)zeros;
    }
    return exponent;
}

static uint64_t infinity(struct format f)
{
    return (((uint64_t)1 << f.exponent) - 1) << f.fraction;
}

static uint64_t nan_of(struct format f)
{
    return infinity(f) | (uint64_t)1 << (f.fraction - 1);
}

static uint64_t rsqrt7(uint64_t v, struct format f, enum sf_class class, struct sf_status *s)
{
    uint64_t sign = v & (uint64_t)1 << (f.fraction + f.exponent), fraction;
    int bias = (1 << (f.exponent - 1)) - 1;

    switch (class) {
    case SF_CLASS_QNAN:
        return nan_of(f);
    case SF_CLASS_SNAN:
    case SF_CLASS_NEG_INF:
    case SF_CLASS_NEG_NORMAL:
    case SF_CLASS_NEG_SUBNORMAL:
        s->flags |= SF_NV;
        return nan_of(f);
    case SF_CLASS_NEG_ZERO:
    case SF_CLASS_POS_ZERO:
        s->flags |= SF_DZ;
        return sign | infinity(f);
    case SF_CLASS_POS_INF:
        return 0;
    default:
        break;
    }
    int exponent = normalise(v, f, &fraction);
    unsigned index = ((unsigned)exponent & 1) << 6 | (unsigned)(fraction >> (f.fraction - 6));
    uint64_t out = (uint64_t)((3 * bias - 1 - exponent) / 2);
    return out << f.fraction | (uint64_t)reciprocal_root[index] << (f.fraction - 7);
}

static uint64_t rec7(uint64_t v, struct format f, enum sf_class class, struct sf_status *s)
{
    uint64_t sign = v & (uint64_t)1 << (f.fraction + f.exponent), fraction;
    int bias = (1 << (f.exponent - 1)) - 1;

    switch (class) {
    case SF_CLASS_SNAN:
        s->flags |= SF_NV;
        return nan_of(f);
    case SF_CLASS_QNAN:
        return nan_of(f);
    case SF_CLASS_NEG_ZERO:
    case SF_CLASS_POS_ZERO:
        s->flags |= SF_DZ;
        return sign | infinity(f);
    case SF_CLASS_NEG_INF:
    case SF_CLASS_POS_INF:
        return sign;
    default:
        break;
    }
    int exponent = normalise(v, f, &fraction);
    if (exponent < -1) { /* too large a result */
        bool finite = s->rm == SF_RTZ || s->rm == (sign ? SF_RUP : SF_RDN);
        s->flags |= SF_OF | SF_NX;
        return sign | (infinity(f) - finite);
    }
    int out = 2 * bias - 1 - exponent;
    fraction = (uint64_t)reciprocal[fraction >> (f.fraction - 7)] << (f.fraction - 7);
    if (out <= 0) { /* subnormal: 0 or -1 */
        fraction = (fraction | (uint64_t)1 << f.fraction) >> (1 - out);
        out = 0;
    }
    return sign | (uint64_t)out << f.fraction | fraction;
}

static const struct format f16 = { 10, 5 }, f32 = { 23, 8 }, f64 = { 52, 11 };

#define ESTIMATE(NAME, FN)                                                                     \
    KERNEL(NAME##_16, v_u16, v_u16, FN(p, f16, sf_f16_classify(p), s))                         \
    KERNEL(NAME##_32, v_u32, v_u32, FN(p, f32, sf_f32_classify(p), s))                         \
    KERNEL(NAME##_64, v_u64, v_u64, FN(p, f64, sf_f64_classify(p), s))                         \
    const v_kernel NAME[4] = { NULL, NAME##_16, NAME##_32, NAME##_64 };
ESTIMATE(vk_frsqrt7, rsqrt7)
ESTIMATE(vk_frec7, rec7)
