/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels of vector floating point (V 1.0, sections 13 and 14.3; Zvfh): arithmetic, comparisons, reductions. Results and
 * flags come from engine/tcg/softfp and its fast way through the host. Tables are by SEW. vCPU thread.
 */
#include "engine/tcg/guest_riscv/vec.h"
#include "engine/tcg/guest_riscv/vec_kernels.h"
#include "engine/tcg/softfp/fp_host.h"

/* p and q are elements of vs2 and of the other operand, r of vd; s collects flags. */
#define KERNEL(NAME, TD, TA, TB, EXPR)                                                         \
    static void NAME(void *d_, const void *a_, const void *b_, size_t n, struct v_ctx *x)      \
    {                                                                                          \
        TD *d = d_;                                                                            \
        const TA *a = a_;                                                                      \
        const TB *b = b_;                                                                      \
        struct sf_status *s = &x->fp;                                                          \
        (void)s;                                                                               \
        for (size_t i = 0; i < n; i++) {                                                       \
            TA p = a[i];                                                                       \
            TB q = b[i];                                                                       \
            TD r = d[i];                                                                       \
            (void)p, (void)q, (void)r;                                                         \
            d[i] = (TD)(EXPR);                                                                 \
        }                                                                                      \
    }
#define TABLE(NAME) const v_kernel NAME[4] = { NULL, NAME##_16, NAME##_32, NAME##_64 };

/* EXPR is of a format's name and prefixes: softfp for binary16, the host where it can for the others. */
#define FLOAT(NAME, EXPR)                                                                      \
    KERNEL(NAME##_16, v_u16, v_u16, v_u16, EXPR(sf_f16))                                       \
    KERNEL(NAME##_32, v_u32, v_u32, v_u32, EXPR(fph_f32))                                      \
    KERNEL(NAME##_64, v_u64, v_u64, v_u64, EXPR(fph_f64))                                      \
    TABLE(NAME)
/* The same for what has no fast way. */
#define SOFT(NAME, EXPR)                                                                       \
    KERNEL(NAME##_16, v_u16, v_u16, v_u16, EXPR(sf_f16))                                       \
    KERNEL(NAME##_32, v_u32, v_u32, v_u32, EXPR(sf_f32))                                       \
    KERNEL(NAME##_64, v_u64, v_u64, v_u64, EXPR(sf_f64))                                       \
    TABLE(NAME)

#define ADD(T) T##_add(p, q, s)
#define SUB(T) T##_sub(p, q, s)
#define RSUB(T) T##_sub(q, p, s)
#define MUL(T) T##_mul(p, q, s)
#define DIV(T) T##_div(p, q, s)
#define RDIV(T) T##_div(q, p, s)
#define SQRT(T) T##_sqrt(p, s)
#define MIN(T) T##_min(p, q, s)
#define MAX(T) T##_max(p, q, s)
#define CLASS(T) (1u << T##_classify(p))
FLOAT(vk_fadd, ADD)
FLOAT(vk_fsub, SUB)
FLOAT(vk_frsub, RSUB)
FLOAT(vk_fmul, MUL)
FLOAT(vk_fdiv, DIV)
FLOAT(vk_frdiv, RDIV)
FLOAT(vk_fsqrt, SQRT)
SOFT(vk_fmin, MIN)
SOFT(vk_fmax, MAX)
SOFT(vk_fclass, CLASS)

/* Multiply-add into vd: products with vs2, then products with vd. */
#define MACC(T) T##_fma(p, q, r, 0, s)
#define NMACC(T) T##_fma(p, q, r, SF_NEG_PRODUCT | SF_NEG_ADDEND, s)
#define MSAC(T) T##_fma(p, q, r, SF_NEG_ADDEND, s)
#define NMSAC(T) T##_fma(p, q, r, SF_NEG_PRODUCT, s)
#define MADD(T) T##_fma(r, q, p, 0, s)
#define NMADD(T) T##_fma(r, q, p, SF_NEG_PRODUCT | SF_NEG_ADDEND, s)
#define MSUB(T) T##_fma(r, q, p, SF_NEG_ADDEND, s)
#define NMSUB(T) T##_fma(r, q, p, SF_NEG_PRODUCT, s)
FLOAT(vk_fmacc, MACC)
FLOAT(vk_fnmacc, NMACC)
FLOAT(vk_fmsac, MSAC)
FLOAT(vk_fnmsac, NMSAC)
FLOAT(vk_fmadd, MADD)
FLOAT(vk_fnmadd, NMADD)
FLOAT(vk_fmsub, MSUB)
FLOAT(vk_fnmsub, NMSUB)

/* ---- signs ---- */

V_KERNELS_BEGIN

#define SIGN_OF(T) ((T)1 << (8 * sizeof(T) - 1))
#define SIGNS(NAME, SIGN)                                                                      \
    KERNEL(NAME##_16, v_u16, v_u16, v_u16, (p & ~SIGN_OF(v_u16)) | ((SIGN)&SIGN_OF(v_u16)))    \
    KERNEL(NAME##_32, v_u32, v_u32, v_u32, (p & ~SIGN_OF(v_u32)) | ((SIGN)&SIGN_OF(v_u32)))    \
    KERNEL(NAME##_64, v_u64, v_u64, v_u64, (p & ~SIGN_OF(v_u64)) | ((SIGN)&SIGN_OF(v_u64)))    \
    TABLE(NAME)
SIGNS(vk_fsgnj, q)
SIGNS(vk_fsgnjn, ~q)
SIGNS(vk_fsgnjx, p ^ q)

V_KERNELS_END

/* ---- comparisons: a byte an element ---- */

#define COMPARE(NAME, SIGNALLING, TEST)                                                        \
    KERNEL(NAME##_16, v_u8, v_u16, v_u16, TEST(sf_f16_cmp(p, q, SIGNALLING, s)))               \
    KERNEL(NAME##_32, v_u8, v_u32, v_u32, TEST(sf_f32_cmp(p, q, SIGNALLING, s)))               \
    KERNEL(NAME##_64, v_u8, v_u64, v_u64, TEST(sf_f64_cmp(p, q, SIGNALLING, s)))               \
    TABLE(NAME)
static inline bool less_equal(enum sf_order o)
{
    return o == SF_LESS || o == SF_EQUAL;
}
static inline bool greater_equal(enum sf_order o)
{
    return o == SF_GREATER || o == SF_EQUAL;
}
#define IS_EQUAL(ORDER) ((ORDER) == SF_EQUAL)
#define IS_OTHER(ORDER) ((ORDER) != SF_EQUAL)
#define IS_LESS(ORDER) ((ORDER) == SF_LESS)
#define IS_GREATER(ORDER) ((ORDER) == SF_GREATER)
COMPARE(vk_feq, false, IS_EQUAL)
COMPARE(vk_fne, false, IS_OTHER)
COMPARE(vk_flt, true, IS_LESS)
COMPARE(vk_fle, true, less_equal)
COMPARE(vk_fgt, true, IS_GREATER)
COMPARE(vk_fge, true, greater_equal)

/* ---- wider results: operands are converted first, which is exact ---- */

static inline uint32_t wide_16(uint16_t v, struct sf_status *s)
{
    return sf_f16_to_f32(v, s);
}
static inline uint64_t wide_32(uint32_t v, struct sf_status *s)
{
    return fph_f32_to_f64(v, s);
}
#define WIDE_TABLE(NAME) const v_kernel NAME[4] = { NULL, NAME##_16, NAME##_32, NULL };
#define WIDEN(NAME, OP)                                                                        \
    KERNEL(NAME##_16, v_u32, v_u16, v_u16, fph_f32_##OP(wide_16(p, s), wide_16(q, s), s))      \
    KERNEL(NAME##_32, v_u64, v_u32, v_u32, fph_f64_##OP(wide_32(p, s), wide_32(q, s), s))      \
    WIDE_TABLE(NAME)
#define WIDEN_W(NAME, OP)                                                                      \
    KERNEL(NAME##_16, v_u32, v_u32, v_u16, fph_f32_##OP(p, wide_16(q, s), s))                  \
    KERNEL(NAME##_32, v_u64, v_u64, v_u32, fph_f64_##OP(p, wide_32(q, s), s))                  \
    WIDE_TABLE(NAME)
#define WIDEN_FMA(NAME, NEGATE)                                                                \
    KERNEL(NAME##_16, v_u32, v_u16, v_u16,                                                     \
           fph_f32_fma(wide_16(p, s), wide_16(q, s), r, NEGATE, s))                            \
    KERNEL(NAME##_32, v_u64, v_u32, v_u32,                                                     \
           fph_f64_fma(wide_32(p, s), wide_32(q, s), r, NEGATE, s))                            \
    WIDE_TABLE(NAME)
WIDEN(vk_fwadd, add)
WIDEN(vk_fwsub, sub)
WIDEN(vk_fwmul, mul)
WIDEN_W(vk_fwadd_w, add)
WIDEN_W(vk_fwsub_w, sub)
WIDEN_FMA(vk_fwmacc, 0)
WIDEN_FMA(vk_fwnmacc, SF_NEG_PRODUCT | SF_NEG_ADDEND)
WIDEN_FMA(vk_fwmsac, SF_NEG_ADDEND)
WIDEN_FMA(vk_fwnmsac, SF_NEG_PRODUCT)

/* ---- reductions: d is the accumulator, a the elements (v_run_reduce) ---- */

#define REDUCE_ONE(NAME, TD, TA, EXPR)                                                         \
    static void NAME(void *d_, const void *a_, const void *b, size_t n, struct v_ctx *x)       \
    {                                                                                          \
        const TA *a = a_;                                                                      \
        TD r = *(TD *)d_;                                                                      \
        struct sf_status *s = &x->fp;                                                          \
        (void)b;                                                                               \
        for (size_t i = 0; i < n; i++) {                                                       \
            TA p = a[i];                                                                       \
            r = EXPR;                                                                          \
        }                                                                                      \
        *(TD *)d_ = r;                                                                         \
    }
#define REDUCE(NAME, T, OP)                                                                    \
    REDUCE_ONE(NAME##_16, v_u16, v_u16, sf_f16_##OP(r, p, s))                                  \
    REDUCE_ONE(NAME##_32, v_u32, v_u32, T##_f32_##OP(r, p, s))                                 \
    REDUCE_ONE(NAME##_64, v_u64, v_u64, T##_f64_##OP(r, p, s))                                 \
    TABLE(NAME)
REDUCE(vk_fredsum, fph, add)
REDUCE(vk_fredmin, sf, min)
REDUCE(vk_fredmax, sf, max)
REDUCE_ONE(vk_fwredsum_16, v_u32, v_u16, fph_f32_add(r, wide_16(p, s), s))
REDUCE_ONE(vk_fwredsum_32, v_u64, v_u32, fph_f64_add(r, wide_32(p, s), s))
WIDE_TABLE(vk_fwredsum)

/* ---- bfloat16: the upper half of a binary32 ---- */

static uint32_t from_bf16(uint16_t v, struct sf_status *s)
{
    uint32_t wide = (uint32_t)v << 16;

    if ((wide & 0x7fffffff) > 0x7f800000) {
        s->flags |= wide & 0x00400000 ? 0 : SF_NV;
        return 0x7fc00000;
    }
    return wide;
}

static bool rounds_away(uint32_t v, unsigned rm)
{
    uint32_t rest = v & 0xffff;
    bool odd = v >> 16 & 1, negative = v >> 31;

    switch (rm) {
    case SF_RNE:
        return rest > 0x8000 || (rest == 0x8000 && odd);
    case SF_RDN:
        return negative && rest;
    case SF_RUP:
        return !negative && rest;
    case SF_RMM:
        return rest >= 0x8000;
    default:
        return false;
    }
}

static uint16_t to_bf16(uint32_t v, struct sf_status *s)
{
    uint32_t magnitude = v & 0x7fffffff, out = v >> 16;

    if (magnitude > 0x7f800000) {
        s->flags |= v & 0x00400000 ? 0 : SF_NV;
        return 0x7fc0;
    }
    if ((v & 0xffff) == 0) {
        return (uint16_t)out;
    }
    s->flags |= SF_NX;
    out += rounds_away(v, s->rm);
    if ((out & 0x7fff) == 0x7f80) {
        s->flags |= SF_OF;
    }
    /* Tiny after rounding with an exponent of no bound: up to the last 7-bit step below the smallest normal. */
    if (magnitude < 0x00800000) {
        uint32_t sign = v & 0x80000000;
        bool normal = magnitude > 0x007f8000 && magnitude >= 0x007fc000 &&
                      rounds_away(sign | ((magnitude << 1) & 0xffff) | 0x10000, s->rm);
        s->flags |= normal ? 0 : SF_UF;
    }
    return (uint16_t)out;
}

KERNEL(wcvtbf16, v_u32, v_u16, v_u16, from_bf16(p, s))
KERNEL(ncvtbf16, v_u16, v_u32, v_u16, to_bf16(p, s))
KERNEL(wmaccbf16, v_u32, v_u16, v_u16, fph_f32_fma(from_bf16(p, s), from_bf16(q, s), r, 0, s))
const v_kernel vk_fwcvtbf16[4] = { NULL, wcvtbf16, NULL, NULL };
const v_kernel vk_fncvtbf16[4] = { NULL, ncvtbf16, NULL, NULL };
const v_kernel vk_fwmaccbf16[4] = { NULL, wmaccbf16, NULL, NULL };
