/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See fp_z.h: NaN boxing, and accumulation of flags around the operations of engine/tcg/softfp.
 */
#include "engine/tcg/guest_riscv/fp_z.h"
#include "engine/tcg/softfp/fp_host.h"

#define BOX_S 0xffffffff00000000ull
#define BOX_H 0xffffffffffff0000ull
#define NAN_S 0x7fc00000u
#define NAN_H 0x7e00u
#define NAN_BF 0x7fc0u
#define NAN_D 0x7ff8000000000000ull

static inline uint32_t unbox_s(uint64_t f)
{
    return f >= BOX_S ? (uint32_t)f : NAN_S;
}

static inline uint64_t box_s(uint32_t s)
{
    return BOX_S | s;
}

static inline uint16_t unbox_h(uint64_t f)
{
    return (uint16_t)(f >= BOX_H ? f & 0xffff : NAN_H);
}

static inline uint64_t box_h(uint16_t h)
{
    return BOX_H | h;
}

static inline uint16_t unbox_bf(uint64_t f)
{
    return (uint16_t)(f >= BOX_H ? f & 0xffff : NAN_BF);
}

static inline struct sf_status begin(const struct riscv_cpu *c, uint64_t rm)
{
    struct sf_status s = { .rm = (uint8_t)rm, .flags = c->fflags };
    return s;
}

static inline uint64_t end(struct riscv_cpu *c, const struct sf_status *s, uint64_t result)
{
    c->fflags = s->flags;
    return result;
}

static inline uint64_t sext32(uint64_t v)
{
    return (uint64_t)(int64_t)(int32_t)v;
}

#define SAME(v) (v)
#define INT32(v) ((int64_t)(int32_t)(v))
#define UINT32(v) ((uint64_t)(uint32_t)(v))
#define INT64(v) ((int64_t)(v))

/* NAME(cpu, a, b, rm) = TO(FN(FROM(a), FROM(b), status)) */
#define BINARY(NAME, FN, FROM, TO)                                                             \
    uint64_t riscv_##NAME(void *cpu, uint64_t a, uint64_t b, uint64_t rm)                      \
    {                                                                                          \
        struct sf_status s = begin(cpu, rm);                                                   \
        uint64_t r = TO(FN(FROM(a), FROM(b), &s));                                             \
        return end(cpu, &s, r);                                                                \
    }

/* NAME(cpu, a, rm) = TO(FN(FROM(a), status)) */
#define UNARY(NAME, FN, FROM, TO)                                                              \
    uint64_t riscv_##NAME(void *cpu, uint64_t a, uint64_t rm, uint64_t c)                      \
    {                                                                                          \
        struct sf_status s = begin(cpu, rm);                                                   \
        uint64_t r = TO(FN(FROM(a), &s));                                                      \
        (void)c;                                                                               \
        return end(cpu, &s, r);                                                                \
    }

#define COMPARE(NAME, FN, FROM, SIGNALLING, TEST)                                              \
    uint64_t riscv_##NAME(void *cpu, uint64_t a, uint64_t b, uint64_t c)                       \
    {                                                                                          \
        struct sf_status s = begin(cpu, SF_RNE);                                               \
        enum sf_order order = FN(FROM(a), FROM(b), SIGNALLING, &s);                            \
        (void)c;                                                                               \
        return end(cpu, &s, TEST);                                                             \
    }

BINARY(fadd_h, sf_f16_add, unbox_h, box_h)
BINARY(fsub_h, sf_f16_sub, unbox_h, box_h)
BINARY(fmul_h, sf_f16_mul, unbox_h, box_h)
BINARY(fdiv_h, sf_f16_div, unbox_h, box_h)
BINARY(fmin_h, sf_f16_min, unbox_h, box_h)
BINARY(fmax_h, sf_f16_max, unbox_h, box_h)
UNARY(fsqrt_h, sf_f16_sqrt, unbox_h, box_h)
UNARY(fcvt_w_h, sf_f16_to_i32, unbox_h, sext32)
UNARY(fcvt_wu_h, sf_f16_to_u32, unbox_h, sext32)
UNARY(fcvt_l_h, sf_f16_to_i64, unbox_h, (uint64_t))
UNARY(fcvt_lu_h, sf_f16_to_u64, unbox_h, SAME)
UNARY(fcvt_h_w, sf_f16_from_i64, INT32, box_h)
UNARY(fcvt_h_wu, sf_f16_from_u64, UINT32, box_h)
UNARY(fcvt_h_l, sf_f16_from_i64, INT64, box_h)
UNARY(fcvt_h_lu, sf_f16_from_u64, SAME, box_h)
UNARY(fcvt_s_h, sf_f16_to_f32, unbox_h, box_s)
UNARY(fcvt_h_s, sf_f32_to_f16, unbox_s, box_h)
UNARY(fcvt_d_h, sf_f16_to_f64, unbox_h, SAME)
UNARY(fcvt_h_d, sf_f64_to_f16, SAME, box_h)
UNARY(fcvt_bf16_s, sf_f32_to_bf16, unbox_s, box_h)
UNARY(fcvt_s_bf16, sf_bf16_to_f32, unbox_bf, box_s)

COMPARE(feq_h, sf_f16_cmp, unbox_h, false, order == SF_EQUAL)
COMPARE(flt_h, sf_f16_cmp, unbox_h, true, order == SF_LESS)
COMPARE(fle_h, sf_f16_cmp, unbox_h, true, order <= SF_EQUAL)

uint64_t riscv_fclass_h(void *cpu, uint64_t a, uint64_t b, uint64_t c)
{
    (void)cpu;
    (void)b;
    (void)c;
    return 1u << sf_f16_classify(unbox_h(a));
}

/* ---- Zfa, the same for three formats ---- */

#define ADDITIONAL(L, T, FROM, TO)                                                             \
    BINARY(fminm_##L, sf_##T##_minimum, FROM, TO)                                              \
    BINARY(fmaxm_##L, sf_##T##_maximum, FROM, TO)                                              \
    COMPARE(fleq_##L, sf_##T##_cmp, FROM, false, order <= SF_EQUAL)                            \
    COMPARE(fltq_##L, sf_##T##_cmp, FROM, false, order == SF_LESS)                             \
    uint64_t riscv_fround_##L(void *cpu, uint64_t a, uint64_t rm, uint64_t c)                  \
    {                                                                                          \
        struct sf_status s = begin(cpu, rm);                                                   \
        uint64_t r = TO(sf_##T##_round_int(FROM(a), false, &s));                               \
        (void)c;                                                                               \
        return end(cpu, &s, r);                                                                \
    }                                                                                          \
    uint64_t riscv_froundnx_##L(void *cpu, uint64_t a, uint64_t rm, uint64_t c)                \
    {                                                                                          \
        struct sf_status s = begin(cpu, rm);                                                   \
        uint64_t r = TO(sf_##T##_round_int(FROM(a), true, &s));                                \
        (void)c;                                                                               \
        return end(cpu, &s, r);                                                                \
    }

ADDITIONAL(h, f16, unbox_h, box_h)
ADDITIONAL(s, f32, unbox_s, box_s)
ADDITIONAL(d, f64, SAME, SAME)

/* The integer part modulo 2^32; the flags are those of fcvt.w.d. */
uint64_t riscv_fcvtmod_w_d(void *cpu, uint64_t a, uint64_t b, uint64_t c)
{
    struct sf_status s = begin(cpu, SF_RTZ);
    int exponent = (int)(a >> 52 & 0x7ff) - 1023;
    uint64_t significand = (a & ((1ull << 52) - 1)) | 1ull << 52, v = 0;

    (void)b;
    (void)c;
    sf_f64_to_i32(a, &s);
    if (exponent >= 0 && exponent < 52) {
        v = significand >> (52 - exponent);
    } else if (exponent >= 52 && exponent < 52 + 32) {
        v = significand << (exponent - 52);
    }
    return end(cpu, &s, sext32(a >> 63 ? 0 - v : v));
}

uint64_t riscv_fli(unsigned n, unsigned format)
{
    static const double values[30] = { -1.0,   0,      0x1p-16, 0x1p-15, 0x1p-8, 0x1p-7,
                                       0x1p-4, 0x1p-3, 0.25,    .3125,   0.375,  0.4375,
                                       0.5,    0.625,  0.75,    0.875,   1.0,    1.25,
                                       1.5,    1.75,   2.0,     2.5,     3.0,    4.0,
                                       8.0,    16.0,   128.0,   256.0,   0x1p15, 0x1p16 };
    static const uint64_t smallest[] = { 0x00800000, 0x0010000000000000, 0x0400 };
    static const uint64_t infinity[] = { 0x7f800000, 0x7ff0000000000000, 0x7c00 };
    static const uint64_t nan[] = { NAN_S, NAN_D, NAN_H };
    static const uint64_t box[] = { BOX_S, 0, BOX_H };
    struct sf_status s = { .rm = SF_RNE };
    uint64_t bits;

    if (n == 1) {
        bits = smallest[format];
    } else if (n >= 30) {
        bits = n == 30 ? infinity[format] : nan[format];
    } else {
        bits = fph_f64_bits(values[n]);
        bits = format == 0   ? sf_f64_to_f32(bits, &s)
               : format == 2 ? sf_f64_to_f16(bits, &s)
                             : bits;
    }
    return bits | box[format];
}

/* ---- fused multiply-add: one function for each rounding mode ---- */

#define FMA(KIND, NEGATE, RM)                                                                  \
    static uint64_t KIND##_##RM(void *cpu, uint64_t a, uint64_t b, uint64_t c)                 \
    {                                                                                          \
        struct sf_status s = begin(cpu, RM);                                                   \
        uint64_t r = box_h(sf_f16_fma(unbox_h(a), unbox_h(b), unbox_h(c), NEGATE, &s));        \
        return end(cpu, &s, r);                                                                \
    }

#define FMA_ALL_MODES(KIND, NEGATE)                                                            \
    FMA(KIND, NEGATE, SF_RNE)                                                                  \
    FMA(KIND, NEGATE, SF_RTZ)                                                                  \
    FMA(KIND, NEGATE, SF_RDN)                                                                  \
    FMA(KIND, NEGATE, SF_RUP)                                                                  \
    FMA(KIND, NEGATE, SF_RMM)

FMA_ALL_MODES(fmadd_h, 0)
FMA_ALL_MODES(fmsub_h, SF_NEG_ADDEND)
FMA_ALL_MODES(fnmsub_h, SF_NEG_PRODUCT)
FMA_ALL_MODES(fnmadd_h, SF_NEG_PRODUCT | SF_NEG_ADDEND)

#define FMA_ROW(K)                                                                             \
    {                                                                                          \
        K##_SF_RNE, K##_SF_RTZ, K##_SF_RDN, K##_SF_RUP, K##_SF_RMM                             \
    }

ir_helper riscv_fma_h_helper(unsigned kind, unsigned rm)
{
    static const ir_helper table[4][5] = { FMA_ROW(fmadd_h), FMA_ROW(fmsub_h),
                                           FMA_ROW(fnmsub_h), FMA_ROW(fnmadd_h) };
    return table[kind & 3][rm < 5 ? rm : 0];
}
