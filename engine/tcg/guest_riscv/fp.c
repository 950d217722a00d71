/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Helpers for the F and D instructions (Unprivileged 20191213, chapters 11 and 12): NaN boxing, and
 * accumulation of flags around the operations of engine/tcg/softfp. vCPU thread.
 */
#include "engine/tcg/guest_riscv/helper.h"
#include "engine/tcg/softfp/fp_host.h"

#define BOX 0xffffffff00000000ull
#define NAN_S 0x7fc00000u

/* A single in a 64-bit register is valid only with ones above it; anything else counts as NaN. */
static inline uint32_t unbox(uint64_t f)
{
    return f >= BOX ? (uint32_t)f : NAN_S;
}

static inline uint64_t box(uint32_t s)
{
    return BOX | s;
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

#define UNUSED_C (void)c
#define UNUSED_BC (void)b, (void)c

/* NAME(cpu, a, b, rm) = BOX_(FN(UNBOX(a), UNBOX(b), status)) */
#define BINARY(NAME, FN, UNBOX, BOX_)                                                          \
    uint64_t NAME(void *cpu, uint64_t a, uint64_t b, uint64_t rm)                              \
    {                                                                                          \
        struct sf_status s = begin(cpu, rm);                                                   \
        uint64_t r = BOX_(FN(UNBOX(a), UNBOX(b), &s));                                         \
        return end(cpu, &s, r);                                                                \
    }

#define SAME(v) (v)

BINARY(riscv_fadd_s, fph_f32_add, unbox, box)
BINARY(riscv_fsub_s, fph_f32_sub, unbox, box)
BINARY(riscv_fmul_s, fph_f32_mul, unbox, box)
BINARY(riscv_fdiv_s, fph_f32_div, unbox, box)
BINARY(riscv_fadd_d, fph_f64_add, SAME, SAME)
BINARY(riscv_fsub_d, fph_f64_sub, SAME, SAME)
BINARY(riscv_fmul_d, fph_f64_mul, SAME, SAME)
BINARY(riscv_fdiv_d, fph_f64_div, SAME, SAME)
/* No rounding mode: the third argument is whatever. */
BINARY(riscv_fmin_s, sf_f32_min, unbox, box)
BINARY(riscv_fmax_s, sf_f32_max, unbox, box)
BINARY(riscv_fmin_d, sf_f64_min, SAME, SAME)
BINARY(riscv_fmax_d, sf_f64_max, SAME, SAME)

/* NAME(cpu, a, rm) = TO(FN(FROM(a), status)) */
#define UNARY(NAME, FN, FROM, TO)                                                              \
    uint64_t NAME(void *cpu, uint64_t a, uint64_t rm, uint64_t c)                              \
    {                                                                                          \
        struct sf_status s = begin(cpu, rm);                                                   \
        uint64_t r = TO(FN(FROM(a), &s));                                                      \
        UNUSED_C;                                                                              \
        return end(cpu, &s, r);                                                                \
    }

#define INT32(v) ((int64_t)(int32_t)(v))
#define UINT32(v) ((uint64_t)(uint32_t)(v))
#define INT64(v) ((int64_t)(v))

UNARY(riscv_fsqrt_s, fph_f32_sqrt, unbox, box)
UNARY(riscv_fsqrt_d, fph_f64_sqrt, SAME, SAME)
UNARY(riscv_fcvt_w_s, fph_f32_to_i32, unbox, sext32)
UNARY(riscv_fcvt_wu_s, fph_f32_to_u32, unbox, sext32)
UNARY(riscv_fcvt_l_s, fph_f32_to_i64, unbox, (uint64_t))
UNARY(riscv_fcvt_lu_s, fph_f32_to_u64, unbox, SAME)
UNARY(riscv_fcvt_w_d, fph_f64_to_i32, SAME, sext32)
UNARY(riscv_fcvt_wu_d, fph_f64_to_u32, SAME, sext32)
UNARY(riscv_fcvt_l_d, fph_f64_to_i64, SAME, (uint64_t))
UNARY(riscv_fcvt_lu_d, fph_f64_to_u64, SAME, SAME)
UNARY(riscv_fcvt_s_w, fph_f32_from_i64, INT32, box)
UNARY(riscv_fcvt_s_wu, fph_f32_from_u64, UINT32, box)
UNARY(riscv_fcvt_s_l, fph_f32_from_i64, INT64, box)
UNARY(riscv_fcvt_s_lu, fph_f32_from_u64, SAME, box)
UNARY(riscv_fcvt_d_w, fph_f64_from_i64, INT32, SAME)
UNARY(riscv_fcvt_d_wu, fph_f64_from_u64, UINT32, SAME)
UNARY(riscv_fcvt_d_l, fph_f64_from_i64, INT64, SAME)
UNARY(riscv_fcvt_d_lu, fph_f64_from_u64, SAME, SAME)
UNARY(riscv_fcvt_s_d, fph_f64_to_f32, SAME, box)
UNARY(riscv_fcvt_d_s, fph_f32_to_f64, unbox, SAME)

/* feq is quiet, flt and fle signal. */
#define COMPARE(NAME, FN, UNBOX, SIGNALLING, TEST)                                             \
    uint64_t NAME(void *cpu, uint64_t a, uint64_t b, uint64_t c)                               \
    {                                                                                          \
        struct sf_status s = begin(cpu, SF_RNE);                                               \
        enum sf_order order = FN(UNBOX(a), UNBOX(b), SIGNALLING, &s);                          \
        UNUSED_C;                                                                              \
        return end(cpu, &s, TEST);                                                             \
    }

COMPARE(riscv_feq_s, sf_f32_cmp, unbox, false, order == SF_EQUAL)
COMPARE(riscv_flt_s, sf_f32_cmp, unbox, true, order == SF_LESS)
COMPARE(riscv_fle_s, sf_f32_cmp, unbox, true, order <= SF_EQUAL)
COMPARE(riscv_feq_d, sf_f64_cmp, SAME, false, order == SF_EQUAL)
COMPARE(riscv_flt_d, sf_f64_cmp, SAME, true, order == SF_LESS)
COMPARE(riscv_fle_d, sf_f64_cmp, SAME, true, order <= SF_EQUAL)

#define SIGN_S 0x80000000u

#define SIGN_INJECT(NAME, SIGN)                                                                \
    uint64_t NAME(void *cpu, uint64_t a, uint64_t b, uint64_t c)                               \
    {                                                                                          \
        uint32_t x = unbox(a), y = unbox(b);                                                   \
        (void)cpu;                                                                             \
        UNUSED_C;                                                                              \
        return box((x & ~SIGN_S) | ((SIGN)&SIGN_S));                                           \
    }

SIGN_INJECT(riscv_fsgnj_s, y)
SIGN_INJECT(riscv_fsgnjn_s, ~y)
SIGN_INJECT(riscv_fsgnjx_s, x ^ y)

uint64_t riscv_fclass_s(void *cpu, uint64_t a, uint64_t b, uint64_t c)
{
    (void)cpu;
    UNUSED_BC;
    return 1u << sf_f32_classify(unbox(a));
}

uint64_t riscv_fclass_d(void *cpu, uint64_t a, uint64_t b, uint64_t c)
{
    (void)cpu;
    UNUSED_BC;
    return 1u << sf_f64_classify(a);
}

/* ---- fused multiply-add: one function for each rounding mode ---- */

#define FMA(KIND, NEGATE, RM_NAME, RM)                                                         \
    static uint64_t KIND##_s_##RM_NAME(void *cpu, uint64_t a, uint64_t b, uint64_t c)          \
    {                                                                                          \
        struct sf_status s = begin(cpu, RM);                                                   \
        uint64_t r = box(fph_f32_fma(unbox(a), unbox(b), unbox(c), NEGATE, &s));               \
        return end(cpu, &s, r);                                                                \
    }                                                                                          \
    static uint64_t KIND##_d_##RM_NAME(void *cpu, uint64_t a, uint64_t b, uint64_t c)          \
    {                                                                                          \
        struct sf_status s = begin(cpu, RM);                                                   \
        uint64_t r = fph_f64_fma(a, b, c, NEGATE, &s);                                         \
        return end(cpu, &s, r);                                                                \
    }

#define FMA_ALL_MODES(KIND, NEGATE)                                                            \
    FMA(KIND, NEGATE, rne, SF_RNE)                                                             \
    FMA(KIND, NEGATE, rtz, SF_RTZ)                                                             \
    FMA(KIND, NEGATE, rdn, SF_RDN)                                                             \
    FMA(KIND, NEGATE, rup, SF_RUP)                                                             \
    FMA(KIND, NEGATE, rmm, SF_RMM)

FMA_ALL_MODES(fmadd, 0)
FMA_ALL_MODES(fmsub, SF_NEG_ADDEND)
FMA_ALL_MODES(fnmsub, SF_NEG_PRODUCT)
FMA_ALL_MODES(fnmadd, SF_NEG_PRODUCT | SF_NEG_ADDEND)

#define FMA_ROW(K)                                                                             \
    {                                                                                          \
        K##_rne, K##_rtz, K##_rdn, K##_rup, K##_rmm                                            \
    }

ir_helper riscv_fma_helper(bool is_double, unsigned kind, unsigned rm)
{
    static const ir_helper table[2][4][5] = {
        { FMA_ROW(fmadd_s), FMA_ROW(fmsub_s), FMA_ROW(fnmsub_s), FMA_ROW(fnmadd_s) },
        { FMA_ROW(fmadd_d), FMA_ROW(fmsub_d), FMA_ROW(fnmsub_d), FMA_ROW(fnmadd_d) },
    };
    return table[is_double][kind & 3][rm < 5 ? rm : 0];
}
