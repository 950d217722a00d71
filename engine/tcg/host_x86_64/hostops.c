/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See engine/tcg/hostops.h: PCLMULQDQ, AES-NI and CMPXCHG16B where this is an x86-64 host that has them.
 */
#include "engine/tcg/hostops.h"

#ifdef __x86_64__

#include <immintrin.h>

__attribute__((target("pclmul,sse4.1"))) static void clmul(uint64_t a, uint64_t b,
                                                           uint64_t *high, uint64_t *low)
{
    __m128i r = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)a),
                                     _mm_cvtsi64_si128((long long)b), 0);
    *low = (uint64_t)_mm_cvtsi128_si64(r);
    *high = (uint64_t)_mm_extract_epi64(r, 1);
}

bool host_clmul(uint64_t a, uint64_t b, uint64_t *high, uint64_t *low)
{
    if (!__builtin_cpu_supports("pclmul") || !__builtin_cpu_supports("sse4.1")) {
        return false;
    }
    clmul(a, b, high, low);
    return true;
}

__attribute__((target("aes"))) static void aes(enum host_aes kind, uint64_t s[2])
{
    __m128i zero = _mm_setzero_si128(), v = _mm_loadu_si128((const __m128i *)(const void *)s);
    switch (kind) {
    case HOST_AES_ENC:
        v = _mm_aesenc_si128(v, zero);
        break;
    case HOST_AES_ENC_LAST:
        v = _mm_aesenclast_si128(v, zero);
        break;
    case HOST_AES_DEC:
        v = _mm_aesdec_si128(v, zero);
        break;
    case HOST_AES_DEC_LAST:
        v = _mm_aesdeclast_si128(v, zero);
        break;
    case HOST_AES_MIX_BACK:
        v = _mm_aesimc_si128(v);
        break;
    }
    _mm_storeu_si128((__m128i *)(void *)s, v);
}

bool host_aes(enum host_aes kind, uint64_t s[2])
{
    if (!__builtin_cpu_supports("aes")) {
        return false;
    }
    aes(kind, s);
    return true;
}

bool host_cas16(void *p, const uint64_t expect[2], const uint64_t value[2], uint64_t old[2])
{
    bool same;
    old[0] = expect[0];
    old[1] = expect[1];
    __asm__ volatile("lock cmpxchg16b %1"
                     : "=@ccz"(same), "+m"(*(unsigned __int128 *)p), "+a"(old[0]), "+d"(old[1])
                     : "b"(value[0]), "c"(value[1])
                     : "memory");
    return same;
}

#else

bool host_clmul(uint64_t a, uint64_t b, uint64_t *high, uint64_t *low)
{
    (void)a;
    (void)b;
    (void)high;
    (void)low;
    return false;
}

bool host_aes(enum host_aes kind, uint64_t s[2])
{
    (void)kind;
    (void)s;
    return false;
}

bool host_cas16(void *p, const uint64_t expect[2], const uint64_t value[2], uint64_t old[2])
{
    unsigned __int128 want = (unsigned __int128)expect[1] << 64 | expect[0];
    unsigned __int128 next = (unsigned __int128)value[1] << 64 | value[0];
    bool same = __atomic_compare_exchange_n((unsigned __int128 *)p, &want, next, false,
                                            __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    old[0] = (uint64_t)want;
    old[1] = (uint64_t)(want >> 64);
    return same;
}

#endif
