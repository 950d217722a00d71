/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels of the vector integer instructions whose operands and result are all SEW wide (V 1.0, sections 11.1 to 11.11,
 * 11.13, 11.15, 11.16). Pure loops; the drivers are in helper_v.c.
 */
#include "engine/tcg/guest_riscv/vec.h"

V_KERNELS_BEGIN

/* p and q are elements of vs2 and of the other operand, r of vd. */
#define KERNEL(NAME, T, EXPR)                                                                  \
    static void NAME(void *d_, const void *a_, const void *b_, size_t n, struct v_ctx *x)      \
    {                                                                                          \
        v_##T *d = d_;                                                                         \
        const v_##T *a = a_, *b = b_;                                                          \
        (void)x;                                                                               \
        V_LOOP for (size_t i = 0; i < n; i++)                                                  \
        {                                                                                      \
            v_##T p = a[i], q = b[i], r = d[i];                                                \
            (void)p, (void)q, (void)r;                                                         \
            d[i] = (v_##T)(EXPR);                                                              \
        }                                                                                      \
    }

#define TABLE(NAME, S, EXPR)                                                                   \
    KERNEL(NAME##_8, S##8, EXPR)                                                               \
    KERNEL(NAME##_16, S##16, EXPR)                                                             \
    KERNEL(NAME##_32, S##32, EXPR)                                                             \
    KERNEL(NAME##_64, S##64, EXPR)                                                             \
    const v_kernel NAME[4] = { NAME##_8, NAME##_16, NAME##_32, NAME##_64 };

#define BITS (8 * sizeof(p))

TABLE(vk_add, u, p + q)
TABLE(vk_sub, u, p - q)
TABLE(vk_rsub, u, q - p)
TABLE(vk_and, u, p &q)
TABLE(vk_or, u, p | q)
TABLE(vk_xor, u, p ^ q)
TABLE(vk_minu, u, p < q ? p : q)
TABLE(vk_min, s, p < q ? p : q)
TABLE(vk_maxu, u, p > q ? p : q)
TABLE(vk_max, s, p > q ? p : q)
TABLE(vk_sll, u, p << (q & (BITS - 1)))
TABLE(vk_srl, u, p >> (q & (BITS - 1)))
TABLE(vk_sra, s, p >> (q & (int)(BITS - 1)))

/* Products of 16 bits are computed as unsigned: int would overflow. */
TABLE(vk_mul, u, 1u * p * q)
TABLE(vk_macc, u, r + 1u * p * q)
TABLE(vk_nmsac, u, r - 1u * p * q)
TABLE(vk_madd, u, p + 1u * r * q)
TABLE(vk_nmsub, u, p - 1u * r * q)

TABLE(vk_divu, u, q ? p / q : (p | ~p))
TABLE(vk_remu, u, q ? p % q : p)
/* The quotient of the smallest number and -1 is that number; dividing wide avoids the trap. */
#define DIVIDE(OP, ZERO, MINUS_ONE) (q == 0 ? (ZERO) : q == -1 ? (MINUS_ONE) : p OP q)
TABLE(vk_div, s, DIVIDE(/, -1, (int64_t)(0 - (uint64_t)p)))
TABLE(vk_rem, s, DIVIDE(%, p, 0))

/* High halves of products. */
typedef __int128 v_s128;
typedef unsigned __int128 v_u128;
#define HIGH(NAME, T, U)                                                                       \
    KERNEL(NAME##_8, T##8, p *(v_##U##8)q >> 8)                                                \
    KERNEL(NAME##_16, T##16, (v_##T##32)p *(v_##U##16)q >> 16)                                 \
    KERNEL(NAME##_32, T##32, (v_##T##64)p *(v_##U##32)q >> 32)                                 \
    KERNEL(NAME##_64, T##64, (v_##T##128)p *(v_##U##64)q >> 64)                                \
    const v_kernel NAME[4] = { NAME##_8, NAME##_16, NAME##_32, NAME##_64 };
HIGH(vk_mulhu, u, u)
HIGH(vk_mulh, s, s)
HIGH(vk_mulhsu, s, u)

/* ---- with carry; x->carry is NULL or a byte for each element ---- */

#define CARRY_KERNEL(NAME, T, U, EXPR)                                                         \
    static void NAME(void *d_, const void *a_, const void *b_, size_t n, struct v_ctx *x)      \
    {                                                                                          \
        v_##U *d = d_;                                                                         \
        const v_##T *a = a_, *b = b_;                                                          \
        const uint8_t *carry = x->carry;                                                       \
        for (size_t i = 0; i < n; i++) {                                                       \
            v_##T p = a[i], q = b[i];                                                          \
            bool c = carry && carry[i];                                                        \
            d[i] = (v_##U)(EXPR);                                                              \
        }                                                                                      \
    }
#define CARRY_TABLE(NAME, EXPR)                                                                \
    CARRY_KERNEL(NAME##_8, u8, u8, EXPR)                                                       \
    CARRY_KERNEL(NAME##_16, u16, u16, EXPR)                                                    \
    CARRY_KERNEL(NAME##_32, u32, u32, EXPR)                                                    \
    CARRY_KERNEL(NAME##_64, u64, u64, EXPR)                                                    \
    const v_kernel NAME[4] = { NAME##_8, NAME##_16, NAME##_32, NAME##_64 };
/* The result is one byte, 0 or 1. */
#define CARRY_OUT_TABLE(NAME, EXPR)                                                            \
    CARRY_KERNEL(NAME##_8, u8, u8, EXPR)                                                       \
    CARRY_KERNEL(NAME##_16, u16, u8, EXPR)                                                     \
    CARRY_KERNEL(NAME##_32, u32, u8, EXPR)                                                     \
    CARRY_KERNEL(NAME##_64, u64, u8, EXPR)                                                     \
    const v_kernel NAME[4] = { NAME##_8, NAME##_16, NAME##_32, NAME##_64 };

CARRY_TABLE(vk_adc, p + q + c)
CARRY_TABLE(vk_sbc, p - q - c)
#define OUT(OP)                                                                                \
    ((int)__builtin_##OP##_overflow(p, q, &p) | (int)__builtin_##OP##_overflow(p, c, &p))
CARRY_OUT_TABLE(vk_madc, OUT(add))
CARRY_OUT_TABLE(vk_msbc, OUT(sub))
/* vmerge; without a mask vmv.v */
CARRY_TABLE(vk_merge, !carry || c ? q : p)

const v_kernel vk_fmerge[4] = { NULL, vk_merge_16, vk_merge_32, vk_merge_64 };

/* ---- comparisons: the result is one byte, 0 or 1 ---- */

#define COMPARE_KERNEL(NAME, T, EXPR)                                                          \
    static void NAME(void *d_, const void *a_, const void *b_, size_t n, struct v_ctx *x)      \
    {                                                                                          \
        uint8_t *d = d_;                                                                       \
        const v_##T *a = a_, *b = b_;                                                          \
        (void)x;                                                                               \
        V_LOOP for (size_t i = 0; i < n; i++)                                                  \
        {                                                                                      \
            v_##T p = a[i], q = b[i];                                                          \
            d[i] = (EXPR);                                                                     \
        }                                                                                      \
    }
#define COMPARE(NAME, S, EXPR)                                                                 \
    COMPARE_KERNEL(NAME##_8, S##8, EXPR)                                                       \
    COMPARE_KERNEL(NAME##_16, S##16, EXPR)                                                     \
    COMPARE_KERNEL(NAME##_32, S##32, EXPR)                                                     \
    COMPARE_KERNEL(NAME##_64, S##64, EXPR)                                                     \
    const v_kernel NAME[4] = { NAME##_8, NAME##_16, NAME##_32, NAME##_64 };

COMPARE(vk_seq, u, p == q)
COMPARE(vk_sne, u, p != q)
COMPARE(vk_sltu, u, p < q)
COMPARE(vk_slt, s, p < q)
COMPARE(vk_sleu, u, p <= q)
COMPARE(vk_sle, s, p <= q)
COMPARE(vk_sgtu, u, p > q)
COMPARE(vk_sgt, s, p > q)

V_KERNELS_END
