/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels of vector bit manipulation: Zvkb, Zvbb and Zvbc (Cryptography Extensions Volume II 1.0, chapter 3). Tables are by SEW.
 * Pure loops; drivers in helper_v.c.
 */
#include "engine/tcg/guest_riscv/vec.h"
#include "engine/tcg/guest_riscv/vec_kernels.h"

V_KERNELS_BEGIN

/* p and q are elements of vs2 and of the other operand; BITS the width. */
#define KERNEL(NAME, T, EXPR)                                                                  \
    static void NAME(void *d_, const void *a_, const void *b_, size_t n, struct v_ctx *x)      \
    {                                                                                          \
        T *d = d_;                                                                             \
        const T *a = a_, *b = b_;                                                              \
        (void)x;                                                                               \
        V_LOOP for (size_t i = 0; i < n; i++)                                                  \
        {                                                                                      \
            T p = a[i], q = b[i];                                                              \
            (void)p, (void)q;                                                                  \
            d[i] = (T)(EXPR);                                                                  \
        }                                                                                      \
    }
#define BITS ((unsigned)(8 * sizeof(p)))
#define TABLE(NAME, EXPR)                                                                      \
    KERNEL(NAME##_8, v_u8, EXPR(8))                                                            \
    KERNEL(NAME##_16, v_u16, EXPR(16))                                                         \
    KERNEL(NAME##_32, v_u32, EXPR(32))                                                         \
    KERNEL(NAME##_64, v_u64, EXPR(64))                                                         \
    const v_kernel NAME[4] = { NAME##_8, NAME##_16, NAME##_32, NAME##_64 };

#define ANDN(N) (p & ~q)
#define ROL(N) (p << (q & (N - 1)) | p >> ((N - (q & (N - 1))) & (N - 1)))
#define ROR(N) (p >> (q & (N - 1)) | p << ((N - (q & (N - 1))) & (N - 1)))
TABLE(vk_andn, ANDN)
TABLE(vk_rol, ROL)
TABLE(vk_ror, ROR)

static inline uint64_t brev8(uint64_t v)
{
    v = (v >> 1 & 0x5555555555555555) | (v & 0x5555555555555555) << 1;
    v = (v >> 2 & 0x3333333333333333) | (v & 0x3333333333333333) << 2;
    return (v >> 4 & 0x0f0f0f0f0f0f0f0f) | (v & 0x0f0f0f0f0f0f0f0f) << 4;
}
#define BREV8(N) brev8(p)
#define REV8(N) (__builtin_bswap64(p) >> (64 - N))
#define BREV(N) (__builtin_bswap64(brev8(p)) >> (64 - N))
TABLE(vk_brev8, BREV8)
TABLE(vk_rev8, REV8)
TABLE(vk_brev, BREV)

/* The bit set beyond the element bounds the count. */
#define CLZ(N)                                                                                 \
    __builtin_clzll(N == 64 ? p | !p                                                           \
                            : ((uint64_t)p << (64 - N % 64)) | (uint64_t)1 << (63 - N % 64))
#define CTZ(N) __builtin_ctzll(N == 64 ? p : p | (uint64_t)1 << N % 64)
#define CPOP(N) __builtin_popcountll(p)
KERNEL(clz_8, v_u8, CLZ(8))
KERNEL(clz_16, v_u16, CLZ(16))
KERNEL(clz_32, v_u32, CLZ(32))
KERNEL(clz_64, v_u64, p ? __builtin_clzll(p) : 64)
KERNEL(ctz_8, v_u8, CTZ(8))
KERNEL(ctz_16, v_u16, CTZ(16))
KERNEL(ctz_32, v_u32, CTZ(32))
KERNEL(ctz_64, v_u64, p ? __builtin_ctzll(p) : 64)
const v_kernel vk_clz[4] = { clz_8, clz_16, clz_32, clz_64 };
const v_kernel vk_ctz[4] = { ctz_8, ctz_16, ctz_32, ctz_64 };
TABLE(vk_cpop, CPOP)

V_KERNELS_END

/* Carry-less product: low and high half. */
static unsigned __int128 clmul(uint64_t p, uint64_t q)
{
    unsigned __int128 r = 0;

    for (unsigned i = 0; i < 64; i++) {
        r ^= (unsigned __int128)(p & (0 - (q >> i & 1))) << i;
    }
    return r;
}
#define PRODUCT(NAME, SHIFT)                                                                   \
    static void NAME(void *d_, const void *a_, const void *b_, size_t n, struct v_ctx *x)      \
    {                                                                                          \
        v_u64 *d = d_;                                                                         \
        const v_u64 *a = a_, *b = b_;                                                          \
        (void)x;                                                                               \
        for (size_t i = 0; i < n; i++) {                                                       \
            d[i] = (v_u64)(clmul(a[i], b[i]) >> (SHIFT));                                      \
        }                                                                                      \
    }
PRODUCT(clmul_64, 0)
PRODUCT(clmulh_64, 64)
const v_kernel vk_clmul[4] = { NULL, NULL, NULL, clmul_64 };
const v_kernel vk_clmulh[4] = { NULL, NULL, NULL, clmulh_64 };
