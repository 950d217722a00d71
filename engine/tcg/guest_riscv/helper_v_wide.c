/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels of the vector instructions whose result is wider or narrower than a source (V 1.0, sections 11.2, 11.3, 11.7,
 * 11.12, 11.14), and of the fixed-point ones (section 12). Tables are by SEW. Pure loops; drivers in helper_v.c.
 */
#include "engine/tcg/guest_riscv/vec.h"
#include "engine/tcg/guest_riscv/vec_kernels.h"

V_KERNELS_BEGIN

/* p and q are elements of vs2 and of the other operand, r of vd, each of its own type. */
#define MIXED(NAME, TD, TA, TB, EXPR)                                                          \
    static void NAME(void *d_, const void *a_, const void *b_, size_t n, struct v_ctx *x)      \
    {                                                                                          \
        TD *d = d_;                                                                            \
        const TA *a = a_;                                                                      \
        const TB *b = b_;                                                                      \
        (void)x;                                                                               \
        V_LOOP for (size_t i = 0; i < n; i++)                                                  \
        {                                                                                      \
            TA p = a[i];                                                                       \
            TB q = b[i];                                                                       \
            TD r = d[i];                                                                       \
            (void)p, (void)q, (void)r;                                                         \
            d[i] = (TD)(EXPR);                                                                 \
        }                                                                                      \
    }

/* ---- wider results ---- */

/* W is the wide type, A and B the kinds (v_s or v_u) of the operands. */
#define WIDEN(NAME, D, A, B, EXPR)                                                             \
    MIXED(NAME##_8, D##16, A##8, B##8, WIDE_##EXPR(D##16))                                     \
    MIXED(NAME##_16, D##32, A##16, B##16, WIDE_##EXPR(D##32))                                  \
    MIXED(NAME##_32, D##64, A##32, B##32, WIDE_##EXPR(D##64))                                  \
    const v_kernel NAME[4] = { NAME##_8, NAME##_16, NAME##_32, NULL };
/* ... and vs2 is wide already. */
#define WIDEN_W(NAME, D, B, EXPR)                                                              \
    MIXED(NAME##_8, D##16, D##16, B##8, WIDE_##EXPR(D##16))                                    \
    MIXED(NAME##_16, D##32, D##32, B##16, WIDE_##EXPR(D##32))                                  \
    MIXED(NAME##_32, D##64, D##64, B##32, WIDE_##EXPR(D##64))                                  \
    const v_kernel NAME[4] = { NAME##_8, NAME##_16, NAME##_32, NULL };
#define WIDE_ADD(T) ((uint64_t)(T)p + (uint64_t)(T)q)
#define WIDE_SUB(T) ((uint64_t)(T)p - (uint64_t)(T)q)
#define WIDE_MUL(T) ((T)p * (T)q)
#define WIDE_MACC(T) ((uint64_t)r + (uint64_t)((T)p * (T)q))
#define WIDE_SLL(T) ((T)p << (q & (8 * sizeof(T) - 1)))

WIDEN(vk_waddu, v_u, v_u, v_u, ADD)
WIDEN(vk_wadd, v_s, v_s, v_s, ADD)
WIDEN(vk_wsubu, v_u, v_u, v_u, SUB)
WIDEN(vk_wsub, v_s, v_s, v_s, SUB)
WIDEN_W(vk_waddu_w, v_u, v_u, ADD)
WIDEN_W(vk_wadd_w, v_s, v_s, ADD)
WIDEN_W(vk_wsubu_w, v_u, v_u, SUB)
WIDEN_W(vk_wsub_w, v_s, v_s, SUB)
WIDEN(vk_wmulu, v_u, v_u, v_u, MUL)
WIDEN(vk_wmul, v_s, v_s, v_s, MUL)
WIDEN(vk_wmulsu, v_s, v_s, v_u, MUL)
WIDEN(vk_wmaccu, v_u, v_u, v_u, MACC)
WIDEN(vk_wmacc, v_s, v_s, v_s, MACC)
/* Of multiply-add, "su" has a signed scalar or vs1 and an unsigned vs2. */
WIDEN(vk_wmaccsu, v_s, v_u, v_s, MACC)
WIDEN(vk_wmaccus, v_s, v_s, v_u, MACC)
WIDEN(vk_wsll, v_u, v_u, v_u, SLL)

/* ---- sources of a half, a quarter, an eighth ---- */

MIXED(zext2_16, v_u16, v_u8, v_u16, p)
MIXED(zext2_32, v_u32, v_u16, v_u32, p)
MIXED(zext2_64, v_u64, v_u32, v_u64, p)
MIXED(zext4_32, v_u32, v_u8, v_u32, p)
MIXED(zext4_64, v_u64, v_u16, v_u64, p)
MIXED(zext8_64, v_u64, v_u8, v_u64, p)
MIXED(sext2_16, v_s16, v_s8, v_u16, p)
MIXED(sext2_32, v_s32, v_s16, v_u32, p)
MIXED(sext2_64, v_s64, v_s32, v_u64, p)
MIXED(sext4_32, v_s32, v_s8, v_u32, p)
MIXED(sext4_64, v_s64, v_s16, v_u64, p)
MIXED(sext8_64, v_s64, v_s8, v_u64, p)
const v_kernel vk_zext2[4] = { NULL, zext2_16, zext2_32, zext2_64 };
const v_kernel vk_zext4[4] = { NULL, NULL, zext4_32, zext4_64 };
const v_kernel vk_zext8[4] = { NULL, NULL, NULL, zext8_64 };
const v_kernel vk_sext2[4] = { NULL, sext2_16, sext2_32, sext2_64 };
const v_kernel vk_sext4[4] = { NULL, NULL, sext4_32, sext4_64 };
const v_kernel vk_sext8[4] = { NULL, NULL, NULL, sext8_64 };

/* ---- narrow results ---- */

#define NARROW(NAME, T, EXPR)                                                                  \
    MIXED(NAME##_8, v_u8, T##16, v_u8, EXPR(16))                                               \
    MIXED(NAME##_16, v_u16, T##32, v_u16, EXPR(32))                                            \
    MIXED(NAME##_32, v_u32, T##64, v_u32, EXPR(64))                                            \
    const v_kernel NAME[4] = { NAME##_8, NAME##_16, NAME##_32, NULL };
#define NARROW_SHIFT(BITS) (p >> (q & (BITS - 1)))
NARROW(vk_nsrl, v_u, NARROW_SHIFT)
NARROW(vk_nsra, v_s, NARROW_SHIFT)

V_KERNELS_END

/* ---- fixed point ---- */

/* What rounding by vxrm adds to v >> shift (section 3.8). */
static inline unsigned round_up(unsigned vxrm, unsigned __int128 v, unsigned shift)
{
    if (shift == 0) {
        return 0;
    }
    unsigned half = v >> (shift - 1) & 1, odd = v >> shift & 1;
    bool rest = (v & (((unsigned __int128)1 << (shift - 1)) - 1)) != 0;

    switch (vxrm) {
    case 0: /* to nearest, up */
        return half;
    case 1: /* to nearest, even */
        return half & (rest | odd);
    case 2: /* down */
        return 0;
    default: /* to odd */
        return !odd && (half || rest);
    }
}

#define EACH(NAME, TD, TA, TB, BODY)                                                           \
    static void NAME(void *d_, const void *a_, const void *b_, size_t n, struct v_ctx *x)      \
    {                                                                                          \
        TD *d = d_;                                                                            \
        const TA *a = a_;                                                                      \
        const TB *b = b_;                                                                      \
        (void)x;                                                                               \
        for (size_t i = 0; i < n; i++) {                                                       \
            TA p = a[i];                                                                       \
            TB q = b[i];                                                                       \
            TD r;                                                                              \
            BODY;                                                                              \
            d[i] = r;                                                                          \
        }                                                                                      \
    }
#define FIXED(NAME, S, BODY)                                                                   \
    EACH(NAME##_8, S##8, S##8, S##8, BODY)                                                     \
    EACH(NAME##_16, S##16, S##16, S##16, BODY)                                                 \
    EACH(NAME##_32, S##32, S##32, S##32, BODY)                                                 \
    EACH(NAME##_64, S##64, S##64, S##64, BODY)                                                 \
    const v_kernel NAME[4] = { NAME##_8, NAME##_16, NAME##_32, NAME##_64 };

#define BITS_OF(T) (8 * sizeof(T))
#define S_MAX(T) ((T)(((uint64_t)1 << (BITS_OF(T) - 1)) - 1))
#define S_MIN(T) ((T)(-S_MAX(T) - 1))
/* r = OP(p, q), or a bound. */
#define SATURATE_U(OP, BOUND)                                                                  \
    if (__builtin_##OP##_overflow(p, q, &r)) {                                                 \
        r = (__typeof__(r))(BOUND);                                                            \
        x->sat = 1;                                                                            \
    }
#define SATURATE_S(OP)                                                                         \
    if (__builtin_##OP##_overflow(p, q, &r)) {                                                 \
        r = p < 0 ? S_MIN(__typeof__(r)) : S_MAX(__typeof__(r));                               \
        x->sat = 1;                                                                            \
    }
FIXED(vk_saddu, v_u, SATURATE_U(add, -1))
FIXED(vk_ssubu, v_u, SATURATE_U(sub, 0))
FIXED(vk_sadd, v_s, SATURATE_S(add))
FIXED(vk_ssub, v_s, SATURATE_S(sub))

#define AVERAGE(OP)                                                                            \
    __int128 sum = (__int128)p OP q;                                                           \
    r = (__typeof__(r))((sum >> 1) + round_up(x->vxrm, (unsigned __int128)sum, 1))
FIXED(vk_aaddu, v_u, AVERAGE(+))
FIXED(vk_aadd, v_s, AVERAGE(+))
FIXED(vk_asubu, v_u, AVERAGE(-))
FIXED(vk_asub, v_s, AVERAGE(-))

/* The product of two fractions; only -1 * -1 does not fit. */
#define FRACTION                                                                               \
    __int128 product = (__int128)p * q;                                                        \
    unsigned shift = BITS_OF(r) - 1;                                                           \
    product = (product >> shift) + round_up(x->vxrm, (unsigned __int128)product, shift);       \
    r = (__typeof__(r))product;                                                                \
    if (r != product) {                                                                        \
        r = S_MAX(__typeof__(r));                                                              \
        x->sat = 1;                                                                            \
    }
FIXED(vk_smul, v_s, FRACTION)

#define SCALE                                                                                  \
    unsigned shift = (unsigned)q & (BITS_OF(r) - 1);                                           \
    r = (__typeof__(r))((p >> shift) + (__typeof__(r))round_up(                                \
                                           x->vxrm, (unsigned __int128)(__int128)p, shift))
FIXED(vk_ssrl, v_u, SCALE)
FIXED(vk_ssra, v_s, SCALE)

/* A wide element scaled, rounded and put between MIN and MAX of the narrow type. */
#define CLIP(BITS, MIN, MAX)                                                                   \
    unsigned shift = (unsigned)q & (BITS - 1);                                                 \
    __int128 v = (__int128)(p >> shift) +                                                      \
                 round_up(x->vxrm, (unsigned __int128)(__int128)p, shift);                     \
    if (v > (MAX) || v < (MIN)) {                                                              \
        v = v < (MIN) ? (MIN) : (MAX);                                                         \
        x->sat = 1;                                                                            \
    }                                                                                          \
    r = (__typeof__(r))v

EACH(nclipu_8, v_u8, v_u16, v_u8, CLIP(16, 0, UINT8_MAX))
EACH(nclipu_16, v_u16, v_u32, v_u16, CLIP(32, 0, UINT16_MAX))
EACH(nclipu_32, v_u32, v_u64, v_u32, CLIP(64, 0, UINT32_MAX))
EACH(nclip_8, v_s8, v_s16, v_u8, CLIP(16, INT8_MIN, INT8_MAX))
EACH(nclip_16, v_s16, v_s32, v_u16, CLIP(32, INT16_MIN, INT16_MAX))
EACH(nclip_32, v_s32, v_s64, v_u32, CLIP(64, INT32_MIN, INT32_MAX))
const v_kernel vk_nclipu[4] = { nclipu_8, nclipu_16, nclipu_32, NULL };
const v_kernel vk_nclip[4] = { nclip_8, nclip_16, nclip_32, NULL };
