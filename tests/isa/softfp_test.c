/* SPDX-License-Identifier: Apache-2.0 */
/*
 * softfp against the host's floating-point unit and, where that has no such operation (ties away
 * from zero, binary16), against methods that share nothing with softfp; fp_host against softfp.
 *
 * Operands are random with many corners. VMD_TEST_COUNT sets how many a property tries. The
 * host reference needs an IEEE unit that detects tininess after rounding and an 80-bit long
 * double, so it runs on x86-64 only; elsewhere those cases are skipped.
 */
#include "engine/tcg/softfp/fp_host.h"
#include "engine/tcg/softfp/softfp.h"
#include "tests/lib/testing.h"

#include <fenv.h>
#include <math.h>

static uint64_t rng;
static long tries;

static uint64_t rnd(void)
{
    return test_random(&rng);
}

static void setup(void)
{
    const char *count = getenv("VMD_TEST_COUNT");
    rng = test_seed();
    tries = count ? strtol(count, NULL, 0) : 40000;
}

/* A random pattern of a format: any bits, special values, neighbours of powers of two, few set
 * bits, and exponents close to a common one, so that sums cancel and ties happen. */
static uint64_t operand(int exp_bits, int frac_bits)
{
    uint64_t frac_mask = (1ULL << frac_bits) - 1;
    int exp_max = (1 << exp_bits) - 1;
    uint64_t sign = (rnd() & 1) << (exp_bits + frac_bits);
    uint64_t exp = rnd() % (uint64_t)(exp_max + 1);
    uint64_t frac = rnd() & frac_mask;

    switch (rnd() % 8) {
    case 0:
        exp = (uint64_t[]){ 0, 0, 1, 2, (uint64_t)exp_max - 1, (uint64_t)exp_max }[rnd() % 6];
        frac = (uint64_t[]){
            0, 1, 2, frac_mask, frac_mask - 1, (frac_mask >> 1) + 1, frac_mask >> 1, frac
        }[rnd() % 8];
        break;
    case 1:
        frac = (1ULL << (rnd() % (unsigned)frac_bits)) & frac_mask;
        break;
    case 2:
        frac = (0 - (1ULL << (rnd() % (unsigned)frac_bits))) & frac_mask;
        break;
    case 3:
    case 4:
        exp = (uint64_t)(exp_max / 2) + rnd() % 5 - 2;
        break;
    case 5:
        exp = (uint64_t)(exp_max / 2) + rnd() % 5 - 2;
        frac &= ~(frac_mask >> (rnd() % 8 + 2));
        break;
    case 6:
        exp = rnd() % 4;
        break;
    default:
        break;
    }
    return sign | exp << frac_bits | frac;
}

static uint32_t operand32(void)
{
    return (uint32_t)operand(8, 23);
}

static uint64_t operand64(void)
{
    return operand(11, 52);
}

static uint16_t operand16(void)
{
    return (uint16_t)operand(5, 10);
}

#define NAN16 0x7e00u
#define NAN32 0x7fc00000u
#define NAN64 0x7ff8000000000000u

static uint32_t canon32(float v)
{
    return v != v ? NAN32 : fph_f32_bits(v);
}

static uint64_t canon64(double v)
{
    return v != v ? NAN64 : fph_f64_bits(v);
}

#define SAME(what, a, b, c, rm, got, got_flags, want, want_flags)                              \
    ck_assert_msg((got) == (want) && (got_flags) == (want_flags),                              \
                  "%s(%#llx, %#llx, %#llx) rm %d: got %#llx flags %#x, want %#llx flags %#x",  \
                  what, (unsigned long long)(a), (unsigned long long)(b),                      \
                  (unsigned long long)(c), (int)(rm), (unsigned long long)(got),               \
                  (unsigned)(got_flags), (unsigned long long)(want), (unsigned)(want_flags))

enum { OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_SQRT, OP_FMA, OP_COUNT };
static const char *const op_names[] = { "add", "sub", "mul", "div", "sqrt", "fma" };

#define APPLY(PREFIX, T, U)                                                                    \
    static U apply_##PREFIX##_##T(int op, U a, U b, U c, unsigned negate, struct sf_status *s) \
    {                                                                                          \
        switch (op) {                                                                          \
        case OP_ADD:                                                                           \
            return PREFIX##_##T##_add(a, b, s);                                                \
        case OP_SUB:                                                                           \
            return PREFIX##_##T##_sub(a, b, s);                                                \
        case OP_MUL:                                                                           \
            return PREFIX##_##T##_mul(a, b, s);                                                \
        case OP_DIV:                                                                           \
            return PREFIX##_##T##_div(a, b, s);                                                \
        case OP_SQRT:                                                                          \
            return PREFIX##_##T##_sqrt(a, s);                                                  \
        default:                                                                               \
            return PREFIX##_##T##_fma(a, b, c, negate, s);                                     \
        }                                                                                      \
    }

APPLY(sf, f16, uint16_t)
APPLY(sf, f32, uint32_t)
APPLY(sf, f64, uint64_t)
APPLY(fph, f32, uint32_t)
APPLY(fph, f64, uint64_t)

#if defined(__x86_64__)

static const int host_rm[] = { FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD };

static void host_begin(int rm)
{
    fesetround(host_rm[rm]);
    feclearexcept(FE_ALL_EXCEPT);
}

static unsigned host_end(void)
{
    int raised = fetestexcept(FE_ALL_EXCEPT);
    fesetround(FE_TONEAREST);
    return (raised & FE_INEXACT ? SF_NX : 0u) | (raised & FE_UNDERFLOW ? SF_UF : 0u) |
           (raised & FE_OVERFLOW ? SF_OF : 0u) | (raised & FE_DIVBYZERO ? SF_DZ : 0u) |
           (raised & FE_INVALID ? SF_NV : 0u);
}

/* One operation of the host in type R; volatile keeps the compiler from doing it elsewhere. */
#define HOST_OP(NAME, R, SQRT, FMA)                                                            \
    static R NAME(int op, R x, R y, R z, int rm, unsigned *flags)                              \
    {                                                                                          \
        volatile R a = x, b = y, c = z, r;                                                     \
        host_begin(rm);                                                                        \
        switch (op) {                                                                          \
        case OP_ADD:                                                                           \
            r = a + b;                                                                         \
            break;                                                                             \
        case OP_SUB:                                                                           \
            r = a - b;                                                                         \
            break;                                                                             \
        case OP_MUL:                                                                           \
            r = a * b;                                                                         \
            break;                                                                             \
        case OP_DIV:                                                                           \
            r = a / b;                                                                         \
            break;                                                                             \
        case OP_SQRT:                                                                          \
            r = SQRT(a);                                                                       \
            break;                                                                             \
        default:                                                                               \
            r = FMA(a, b, c);                                                                  \
            break;                                                                             \
        }                                                                                      \
        *flags = host_end();                                                                   \
        if (op == OP_FMA && ((isinf(x) && y == 0) || (x == 0 && isinf(y)))) {                  \
            *flags |= SF_NV; /* RISC-V raises it for a quiet NaN addend too */                 \
        }                                                                                      \
        return r;                                                                              \
    }

HOST_OP(host32, float, sqrtf, fmaf)
HOST_OP(host64, double, sqrt, fma)
HOST_OP(host80, long double, sqrtl, fmal)

/* Ties away from zero, from the host's other modes: it differs from ties to even only where the
 * exact result, which 80 bits then hold, is the midpoint of the two neighbours. */
#define HOST_RMM(NAME, HOST, R, TOWARD_INF)                                                    \
    static R NAME(int op, R x, R y, R z, unsigned *flags)                                      \
    {                                                                                          \
        unsigned inexact, unused;                                                              \
        R nearest = HOST(op, x, y, z, SF_RNE, flags);                                          \
        R below = HOST(op, x, y, z, SF_RTZ, &unused);                                          \
        R above = TOWARD_INF(below, nearest < 0 || below < 0 ? -INFINITY : INFINITY);          \
        if (!(*flags & SF_NX) || isinf(above) || isnan(nearest)) {                             \
            return nearest;                                                                    \
        }                                                                                      \
        if (below == 0) {                                                                      \
            R up = HOST(op, x, y, z, SF_RUP, &unused);                                         \
            above = up == 0 ? -TOWARD_INF(0, INFINITY) : up;                                   \
        }                                                                                      \
        long double exact = host80(op, x, y, z, SF_RNE, &inexact);                             \
        bool tie = !(inexact & SF_NX) && exact == ((long double)below + above) / 2;            \
        return tie ? above : nearest;                                                          \
    }

HOST_RMM(host32_rmm, host32, float, nextafterf)
HOST_RMM(host64_rmm, host64, double, nextafter)

START_TEST(binary32_arithmetic_equals_the_host)
{
    int op = _i;
    for (long i = 0; i < tries; i++) {
        uint32_t a = operand32(), b = operand32(), c = operand32();
        int rm = (int)(rnd() % 5);
        struct sf_status s = { .rm = (uint8_t)rm };
        unsigned flags;
        float x = fph_f32(a), y = fph_f32(b), z = fph_f32(c);
        uint32_t got = apply_sf_f32(op, a, b, c, 0, &s);
        uint32_t want = canon32(rm == SF_RMM ? host32_rmm(op, x, y, z, &flags)
                                             : host32(op, x, y, z, rm, &flags));
        SAME(op_names[op], a, b, c, rm, got, s.flags, want, flags);
    }
}
END_TEST

START_TEST(binary64_arithmetic_equals_the_host)
{
    int op = _i;
    for (long i = 0; i < tries; i++) {
        uint64_t a = operand64(), b = operand64(), c = operand64();
        int rm = (int)(rnd() % 5);
        struct sf_status s = { .rm = (uint8_t)rm };
        unsigned flags;
        double x = fph_f64(a), y = fph_f64(b), z = fph_f64(c);
        uint64_t got = apply_sf_f64(op, a, b, c, 0, &s);
        uint64_t want = canon64(rm == SF_RMM ? host64_rmm(op, x, y, z, &flags)
                                             : host64(op, x, y, z, rm, &flags));
        SAME(op_names[op], a, b, c, rm, got, s.flags, want, flags);
    }
}
END_TEST

/* ---- binary16: computed in binary64 to odd, then rounded by floor() ---- */

static double from16(uint16_t a)
{
    int exp = a >> 10 & 31;
    double v = exp == 31  ? (a & 1023 ? NAN : INFINITY)
               : exp == 0 ? ldexp(a & 1023, -24)
                          : ldexp(1024 + (a & 1023), exp - 25);
    return a & 0x8000 ? -v : v;
}

/* An odd last bit where RTZ lost something: rounds to any shorter format as the exact value. */
static double to_odd(double v, unsigned flags)
{
    uint64_t bits = fph_f64_bits(v);
    return flags & SF_NX ? fph_f64(bits | 1) : v;
}

static double round_positive(double v, int rm, bool negative)
{
    double whole = floor(v), rest = v - whole;
    bool up = rm == SF_RNE   ? rest > 0.5 || (rest == 0.5 && fmod(whole, 2) != 0)
              : rm == SF_RMM ? rest >= 0.5
              : rm == SF_RDN ? negative && rest > 0
              : rm == SF_RUP ? !negative && rest > 0
                             : false;
    return whole + up;
}

static uint16_t round16(double v, int rm, unsigned *flags)
{
    uint16_t sign = signbit(v) ? 0x8000 : 0;
    if (isnan(v)) {
        return NAN16;
    }
    v = fabs(v);
    if (isinf(v) || v == 0) {
        return sign | (v == 0 ? 0 : 0x7c00);
    }
    int unbounded = ilogb(v) - 10;
    int exp = unbounded < -24 ? -24 : unbounded;
    double scaled = ldexp(v, -exp);
    double result = round_positive(scaled, rm, sign);
    if (ldexp(result, exp) > 65504) {
        bool inf = rm == SF_RNE || rm == SF_RMM || rm == (sign ? SF_RDN : SF_RUP);
        *flags |= SF_OF | SF_NX;
        return sign | (inf ? 0x7c00 : 0x7bff);
    }
    if (result != scaled) {
        double tiny = ldexp(round_positive(ldexp(v, -unbounded), rm, sign), unbounded);
        *flags |= tiny < 0x1p-14 ? SF_NX | SF_UF : SF_NX;
    }
    if (result < 1024) {
        return sign | (uint16_t)result;
    }
    return sign | (uint16_t)(((exp + 25) << 10) + (int)result - 1024);
}

static bool signalling16(uint16_t a)
{
    return (a & 0x7fff) > 0x7c00 && !(a & 0x200);
}

START_TEST(binary16_arithmetic_equals_exact_arithmetic)
{
    int op = _i;
    for (long i = 0; i < tries; i++) {
        uint16_t a = operand16(), b = operand16(), c = operand16();
        int rm = (int)(rnd() % 5);
        struct sf_status s = { .rm = (uint8_t)rm };
        unsigned flags;
        double odd = host64(op, from16(a), from16(b), from16(c), SF_RTZ, &flags);
        odd = to_odd(odd, flags);
        flags &= (unsigned)~SF_NX;
        if (odd == 0 && rm == SF_RDN) {
            unsigned unused; /* the sign of an exact zero sum */
            odd = host64(op, from16(a), from16(b), from16(c), SF_RDN, &unused);
        }
        if (signalling16(a) || (op != OP_SQRT && signalling16(b)) ||
            (op == OP_FMA && signalling16(c))) {
            flags |= SF_NV;
        }
        uint16_t want = round16(odd, rm, &flags);
        uint16_t got = apply_sf_f16(op, a, b, c, 0, &s);
        SAME(op_names[op], a, b, c, rm, got, s.flags, want, flags);
    }
}
END_TEST

START_TEST(narrowing_conversions_equal_the_host)
{
    for (long i = 0; i < tries; i++) {
        uint64_t a = operand64();
        int rm = (int)(rnd() % 4);
        struct sf_status s = { .rm = (uint8_t)rm };
        volatile double x = fph_f64(a);
        if (rnd() & 1) { /* in binary32's range, with its ties */
            a = fph_f64_bits(fph_f32(operand32())) | (rnd() & 3) << 28;
            x = fph_f64(a);
        }
        host_begin(rm);
        volatile float y = (float)x;
        unsigned flags = host_end();
        uint32_t got = sf_f64_to_f32(a, &s);
        SAME("f64_to_f32", a, 0, 0, rm, got, s.flags, canon32(y), flags);
    }
}
END_TEST

START_TEST(conversions_to_binary16_equal_exact_arithmetic)
{
    for (long i = 0; i < tries; i++) {
        uint32_t a = operand32();
        int rm = (int)(rnd() % 5);
        if (rnd() & 1) {
            a = fph_f32_bits((float)from16(operand16())) | (uint32_t)(rnd() & 3) << 12;
        }
        struct sf_status s32 = { .rm = (uint8_t)rm }, s64 = s32;
        float x = fph_f32(a);
        unsigned flags = isnan(x) && !(a & 0x400000) ? SF_NV : 0;
        uint16_t want = round16(x, rm, &flags);
        uint16_t got = sf_f32_to_f16(a, &s32);
        SAME("f32_to_f16", a, 0, 0, rm, got, s32.flags, want, flags);
        if (!isnan(x)) {
            got = sf_f64_to_f16(fph_f64_bits(x), &s64);
            SAME("f64_to_f16", a, 0, 0, rm, got, s64.flags, want, flags);
        }
    }
}
END_TEST

/* ---- integers ---- */

static double rint_in(double x, int rm)
{
    if (rm == SF_RMM) {
        return round(x);
    }
    /* Called, never expanded inline: the compiler's expansion assumes round to nearest. */
    double (*volatile call)(double) = rint;
    host_begin(rm);
    double r = call(x);
    host_end();
    return r;
}

struct int_case {
    const char *name;
    double low, high; /* the bounds; high is exclusive */
    uint64_t low_bits, high_bits;
};

static const struct int_case int_cases[] = {
    { "i32", -0x1p31, 0x1p31, 0xffffffff80000000u, 0x7fffffff },
    { "u32", 0, 0x1p32, 0, 0xffffffff },
    { "i64", -0x1p63, 0x1p63, 0x8000000000000000u, 0x7fffffffffffffff },
    { "u64", 0, 0x1p64, 0, 0xffffffffffffffff },
};

static uint64_t sf_to_int(int kind, bool is64, bool host, uint64_t a, struct sf_status *s)
{
    uint32_t a32 = (uint32_t)a;
    switch (kind | (is64 ? 4 : 0) | (host ? 8 : 0)) {
    case 0:
        return (uint64_t)(int64_t)sf_f32_to_i32(a32, s);
    case 1:
        return sf_f32_to_u32(a32, s);
    case 2:
        return (uint64_t)sf_f32_to_i64(a32, s);
    case 3:
        return sf_f32_to_u64(a32, s);
    case 4:
        return (uint64_t)(int64_t)sf_f64_to_i32(a, s);
    case 5:
        return sf_f64_to_u32(a, s);
    case 6:
        return (uint64_t)sf_f64_to_i64(a, s);
    case 7:
        return sf_f64_to_u64(a, s);
    case 8:
        return (uint64_t)(int64_t)fph_f32_to_i32(a32, s);
    case 9:
        return fph_f32_to_u32(a32, s);
    case 10:
        return (uint64_t)fph_f32_to_i64(a32, s);
    case 11:
        return fph_f32_to_u64(a32, s);
    case 12:
        return (uint64_t)(int64_t)fph_f64_to_i32(a, s);
    case 13:
        return fph_f64_to_u32(a, s);
    case 14:
        return (uint64_t)fph_f64_to_i64(a, s);
    default:
        return fph_f64_to_u64(a, s);
    }
}

static uint64_t int_sized_operand(bool is64)
{
    /* Exponents around the integers, or any. */
    if (rnd() & 1) {
        return is64 ? operand64() : operand32();
    }
    uint64_t exp = rnd() % 70, sign = rnd() & 1;
    uint64_t frac = rnd() & (rnd() & 1 ? ~0ULL : ~0ULL << (rnd() % 64));
    if (is64) {
        return sign << 63 | (1020 + exp) << 52 | frac >> 12;
    }
    return sign << 31 | (124 + exp) << 23 | (uint32_t)frac >> 9;
}

START_TEST(conversions_to_integers_equal_the_host)
{
    const struct int_case *k = &int_cases[_i];
    for (long i = 0; i < tries; i++) {
        bool is64 = rnd() & 1;
        uint64_t a = int_sized_operand(is64);
        int rm = (int)(rnd() % 5);
        double x = is64 ? fph_f64(a) : (double)fph_f32((uint32_t)a);
        double r = rint_in(x, rm);
        unsigned flags = r != x ? SF_NX : 0;
        uint64_t want;
        if (isnan(x) || r >= k->high) {
            want = k->high_bits;
            flags = SF_NV;
        } else if (r < k->low) {
            want = k->low_bits;
            flags = SF_NV;
        } else {
            want = r < 0 ? (uint64_t)(int64_t)r : (uint64_t)r;
        }
        for (int host = 0; host < 2; host++) {
            struct sf_status s = { .rm = (uint8_t)rm };
            uint64_t got = sf_to_int(_i, is64, host, a, &s);
            SAME(k->name, a, is64, host, rm, got, s.flags, want, flags);
        }
    }
}
END_TEST

START_TEST(conversions_from_integers_equal_the_host)
{
    for (long i = 0; i < tries; i++) {
        uint64_t v = rnd() >> (rnd() % 64);
        int rm = (int)(rnd() % 4);
        bool is_signed = rnd() & 1;
        v ^= rnd() & 1 ? 0 : ~0ULL;
        volatile long double exact = is_signed ? (long double)(int64_t)v : (long double)v;
        for (int host = 0; host < 2; host++) {
            struct sf_status s = { .rm = (uint8_t)rm }, t = s;
            host_begin(rm);
            volatile double wide = (double)exact;
            unsigned flags = host_end();
            uint64_t got = host ? (is_signed ? fph_f64_from_i64((int64_t)v, &s)
                                             : fph_f64_from_u64(v, &s))
                                : (is_signed ? sf_f64_from_i64((int64_t)v, &s)
                                             : sf_f64_from_u64(v, &s));
            SAME("f64 from", v, is_signed, host, rm, got, s.flags, fph_f64_bits(wide), flags);
            host_begin(rm);
            volatile float narrow = (float)exact;
            flags = host_end();
            uint32_t got32 = host ? (is_signed ? fph_f32_from_i64((int64_t)v, &t)
                                               : fph_f32_from_u64(v, &t))
                                  : (is_signed ? sf_f32_from_i64((int64_t)v, &t)
                                               : sf_f32_from_u64(v, &t));
            SAME("f32 from", v, is_signed, host, rm, got32, t.flags, fph_f32_bits(narrow),
                 flags);
        }
    }
}
END_TEST

START_TEST(rounding_to_integral_equals_the_host)
{
    for (long i = 0; i < tries; i++) {
        uint64_t a = int_sized_operand(true);
        int rm = (int)(rnd() % 5);
        bool exact = rnd() & 1;
        struct sf_status s = { .rm = (uint8_t)rm };
        double x = fph_f64(a), r = rint_in(x, rm);
        unsigned flags = isnan(x) ? (a >> 51 & 1 ? 0 : SF_NV) : r != x && exact ? SF_NX : 0;
        uint64_t got = sf_f64_round_int(a, exact, &s);
        SAME("round_int", a, exact, 0, rm, got, s.flags, canon64(r), flags);
    }
}
END_TEST

START_TEST(comparisons_equal_the_host)
{
    for (long i = 0; i < tries; i++) {
        uint64_t a = operand64(), b = rnd() % 4 ? operand64() : a ^ (rnd() & 1) << 63;
        bool signalling = rnd() & 1;
        struct sf_status s = { 0 };
        double x = fph_f64(a), y = fph_f64(b);
        feclearexcept(FE_ALL_EXCEPT);
        if (signalling) {
            __asm__ volatile("comisd %1, %0" : : "x"(x), "x"(y) : "cc");
        } else {
            __asm__ volatile("ucomisd %1, %0" : : "x"(x), "x"(y) : "cc");
        }
        unsigned flags = host_end();
        enum sf_order want = isunordered(x, y) ? SF_UNORDERED
                             : x == y          ? SF_EQUAL
                             : x < y           ? SF_LESS
                                               : SF_GREATER;
        enum sf_order got = sf_f64_cmp(a, b, signalling, &s);
        SAME("cmp", a, b, signalling, 0, (unsigned)got, s.flags, (unsigned)want, flags);
    }
}
END_TEST

#endif /* __x86_64__ */

/* ---- the layer over the host's arithmetic ---- */

START_TEST(fast_binary32_equals_softfp)
{
    int op = _i;
    for (long i = 0; i < tries * 3; i++) {
        uint32_t a = operand32(), b = operand32(), c = operand32();
        unsigned negate = op == OP_FMA ? rnd() & 3 : 0;
        struct sf_status s = { .rm = rnd() % 8 ? 0 : (uint8_t)(rnd() % 5),
                               .flags = rnd() % 3 ? 0 : SF_NX };
        struct sf_status t = s;
        uint32_t got = apply_fph_f32(op, a, b, c, negate, &s);
        uint32_t want = apply_sf_f32(op, a, b, c, negate, &t);
        SAME(op_names[op], a, b, c, s.rm, got, s.flags, want, t.flags);
    }
}
END_TEST

START_TEST(fast_binary64_equals_softfp)
{
    int op = _i;
    for (long i = 0; i < tries * 3; i++) {
        uint64_t a = operand64(), b = operand64(), c = operand64();
        unsigned negate = op == OP_FMA ? rnd() & 3 : 0;
        struct sf_status s = { .rm = rnd() % 8 ? 0 : (uint8_t)(rnd() % 5),
                               .flags = rnd() % 3 ? 0 : SF_NX };
        if (op == OP_FMA && rnd() % 4 == 0) { /* cancellation */
            struct sf_status unused = { 0 };
            c = sf_f64_mul(a, b, &unused) ^ 1ULL << 63 ^ rnd() % 3;
        }
        struct sf_status t = s;
        uint64_t got = apply_fph_f64(op, a, b, c, negate, &s);
        uint64_t want = apply_sf_f64(op, a, b, c, negate, &t);
        SAME(op_names[op], a, b, c, s.rm, got, s.flags, want, t.flags);
    }
}
END_TEST

START_TEST(fast_conversions_equal_softfp)
{
    for (long i = 0; i < tries * 3; i++) {
        uint64_t a = rnd() & 1 ? operand64() : fph_f64_bits(fph_f32(operand32()));
        struct sf_status s = { .rm = (uint8_t)(rnd() % 5), .flags = rnd() & SF_NX }, t = s;
        uint32_t got = fph_f64_to_f32(a, &s), want = sf_f64_to_f32(a, &t);
        SAME("f64_to_f32", a, 0, 0, s.rm, got, s.flags, want, t.flags);
        uint32_t b = operand32();
        uint64_t got64 = fph_f32_to_f64(b, &s), want64 = sf_f32_to_f64(b, &t);
        SAME("f32_to_f64", b, 0, 0, s.rm, got64, s.flags, want64, t.flags);
    }
}
END_TEST

/* ---- what no reference above covers ---- */

START_TEST(binary16_survives_widening_and_narrowing)
{
    for (uint32_t a = 0; a < 0x10000; a++) {
        struct sf_status s = { 0 };
        bool nan = (a & 0x7fff) > 0x7c00;
        uint32_t single = sf_f16_to_f32((uint16_t)a, &s);
        uint64_t twice = sf_f16_to_f64((uint16_t)a, &s);
        ck_assert_uint_eq(s.flags, nan && !(a & 0x200) ? SF_NV : 0);
        ck_assert_uint_eq(sf_f32_to_f16(single, &s), nan ? NAN16 : a);
        ck_assert_uint_eq(sf_f64_to_f16(twice, &s), nan ? NAN16 : a);
    }
}
END_TEST

START_TEST(minimum_and_maximum_treat_nan_and_zero_by_the_standard)
{
    static const uint32_t one = 0x3f800000, two = 0x40000000, minus_zero = 0x80000000;
    static const uint32_t quiet = 0x7fc01234, signalling = 0x7f801234;
    struct sf_status s = { 0 };

    ck_assert_uint_eq(sf_f32_min(one, two, &s), one);
    ck_assert_uint_eq(sf_f32_max(one, two, &s), two);
    ck_assert_uint_eq(sf_f32_min(0, minus_zero, &s), minus_zero);
    ck_assert_uint_eq(sf_f32_max(minus_zero, 0, &s), 0);
    ck_assert_uint_eq(sf_f32_max(quiet, one, &s), one);
    ck_assert_uint_eq(sf_f32_min(quiet, quiet, &s), NAN32);
    ck_assert_uint_eq(sf_f32_minimum(one, quiet, &s), NAN32);
    ck_assert_uint_eq(s.flags, 0);
    ck_assert_uint_eq(sf_f32_min(one, signalling, &s), one);
    ck_assert_uint_eq(s.flags, SF_NV);
}
END_TEST

START_TEST(classify_names_each_class)
{
    static const uint64_t values[] = {
        0xfff0000000000000,
        0xbff0000000000000,
        0x8000000000000001,
        0x8000000000000000,
        0,
        0x000fffffffffffff,
        0x0010000000000000,
        0x7ff0000000000000,
        0x7ff0000000000001,
        0x7ff8000000000000,
    };
    for (unsigned i = 0; i < 10; i++) {
        ck_assert_uint_eq(sf_f64_classify(values[i]), i);
    }
}
END_TEST

START_TEST(nan_rules_choose_the_operand)
{
    static const uint32_t quiet = 0x7fc00001, signalling = 0xff800002;
    struct sf_status s = { .nan_rule = SF_NAN_FIRST };

    ck_assert_uint_eq(sf_f32_add(quiet, signalling, &s), quiet);
    ck_assert_uint_eq(sf_f32_sub(signalling, quiet, &s), signalling | 0x400000);
    ck_assert_uint_eq(s.flags, SF_NV);
    s.nan_rule = SF_NAN_SNAN_FIRST;
    ck_assert_uint_eq(sf_f32_mul(quiet, signalling, &s), signalling | 0x400000);
    s.nan_negative = true;
    ck_assert_uint_eq(sf_f32_mul(0x7f800000, 0, &s), 0xffc00000);
    ck_assert_uint_eq(sf_f32_to_f64(quiet, &s), 0x7ff8000020000000);
}
END_TEST

START_TEST(integer_rules_choose_what_does_not_fit)
{
    struct sf_status s = { .int_rule = SF_INT_SATURATE_NAN_ZERO };

    ck_assert_int_eq(sf_f64_to_i32(NAN64, &s), 0);
    ck_assert_int_eq(sf_f64_to_i32(0xfff0000000000000, &s), INT32_MIN);
    s.int_rule = SF_INT_INDEFINITE;
    ck_assert_int_eq(sf_f64_to_i64(0x7ff0000000000000, &s), INT64_MIN);
    ck_assert_uint_eq(sf_f64_to_u32(0xfff0000000000000, &s), UINT32_MAX);
}
END_TEST

START_TEST(tininess_before_rounding_underflows_just_below_the_smallest_normal)
{
    struct sf_status after = { 0 }, before = { .tiny_before = true };

    /* (1 - 2^-24) * 2^-126 needs no more than 24 bits: tiny either way. */
    ck_assert_uint_eq(sf_f32_mul(0x3f7fffff, 0x00800000, &before), 0x00800000);
    ck_assert_uint_eq(before.flags, SF_NX | SF_UF);
    ck_assert_uint_eq(sf_f32_mul(0x3f7fffff, 0x00800000, &after), 0x00800000);
    ck_assert_uint_eq(after.flags, SF_NX | SF_UF);
    /* (1 - 2^-23) * (1 + 2^-23) * 2^-126 rounds up to 2^-126 with 24 bits too. */
    after.flags = before.flags = 0;
    ck_assert_uint_eq(sf_f32_mul(0x3f7ffffe, 0x00800001, &before), 0x00800000);
    ck_assert_uint_eq(before.flags, SF_NX | SF_UF);
    ck_assert_uint_eq(sf_f32_mul(0x3f7ffffe, 0x00800001, &after), 0x00800000);
    ck_assert_uint_eq(after.flags, SF_NX);
}
END_TEST

START_TEST(round_to_odd_keeps_a_sticky_last_bit)
{
    struct sf_status s = { .rm = SF_ODD };

    ck_assert_uint_eq(sf_f64_to_f32(0x3ff0000000000001, &s), 0x3f800001);
    ck_assert_uint_eq(sf_f64_to_f32(0x3ff0000030000000, &s), 0x3f800001);
    ck_assert_uint_eq(s.flags, SF_NX);
    ck_assert_uint_eq(sf_f64_to_f32(0x7fe0000000000000, &s), 0x7f7fffff);
}
END_TEST

static Suite *suite_softfp(void)
{
    Suite *suite = suite_create("softfp");
    TCase *random = tcase_create("random");
    TCase *scripted = tcase_create("scripted");

    tcase_add_checked_fixture(random, setup, NULL);
    tcase_set_timeout(random, 600);
#if defined(__x86_64__)
    tcase_add_loop_test(random, binary32_arithmetic_equals_the_host, 0, OP_COUNT);
    tcase_add_loop_test(random, binary64_arithmetic_equals_the_host, 0, OP_COUNT);
    tcase_add_loop_test(random, binary16_arithmetic_equals_exact_arithmetic, 0, OP_COUNT);
    tcase_add_test(random, narrowing_conversions_equal_the_host);
    tcase_add_test(random, conversions_to_binary16_equal_exact_arithmetic);
    tcase_add_loop_test(random, conversions_to_integers_equal_the_host, 0, 4);
    tcase_add_test(random, conversions_from_integers_equal_the_host);
    tcase_add_test(random, rounding_to_integral_equals_the_host);
    tcase_add_test(random, comparisons_equal_the_host);
#endif
    tcase_add_loop_test(random, fast_binary32_equals_softfp, 0, OP_COUNT);
    tcase_add_loop_test(random, fast_binary64_equals_softfp, 0, OP_COUNT);
    tcase_add_test(random, fast_conversions_equal_softfp);
    suite_add_tcase(suite, random);

    tcase_add_test(scripted, binary16_survives_widening_and_narrowing);
    tcase_add_test(scripted, minimum_and_maximum_treat_nan_and_zero_by_the_standard);
    tcase_add_test(scripted, classify_names_each_class);
    tcase_add_test(scripted, nan_rules_choose_the_operand);
    tcase_add_test(scripted, integer_rules_choose_what_does_not_fit);
    tcase_add_test(scripted,
                   tininess_before_rounding_underflows_just_below_the_smallest_normal);
    tcase_add_test(scripted, round_to_odd_keeps_a_sticky_last_bit);
    suite_add_tcase(suite, scripted);
    return suite;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_softfp, NULL);
}
