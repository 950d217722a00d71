/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The canonical number that all arithmetic works on, and the way in and out of a format.
 *
 * An operation is: unpack the operands, compute on `struct sf_num` to at least two bits more
 * than any format has, with everything below folded into a sticky last bit ("jamming"), then
 * sf_pack() rounds once. The significand has 128 bits, so that formats up to binary128 fit:
 * a new format is one `struct sf_format` (and, for x87, an explicit integer bit on the way
 * in and out). Internal to softfp; static inline so that the format's constants fold.
 */
#ifndef VMD_TCG_SF_NUM_H
#define VMD_TCG_SF_NUM_H

#include "engine/tcg/softfp/softfp.h"

typedef unsigned __int128 sf_u128;

struct sf_format {
    int exp_bits;
    int frac_bits; /* without the implied integer bit */
};

static const struct sf_format sf_f16 = { 5, 10 };
static const struct sf_format sf_bf16 = { 8, 7 };
static const struct sf_format sf_f32 = { 8, 23 };
static const struct sf_format sf_f64 = { 11, 52 };

enum sf_kind { SF_KIND_ZERO, SF_KIND_FINITE, SF_KIND_INF, SF_KIND_QNAN, SF_KIND_SNAN };

/*
 * FINITE: the value is sig * 2^(exp - 127), with bit 127 of sig set.
 * NaN: sig holds the fraction at its top, quiet bit at 126, so that payloads keep their most
 * significant bits from format to format.
 */
struct sf_num {
    enum sf_kind kind;
    bool sign;
    int exp;
    sf_u128 sig;
};

static inline int sf_clz128(sf_u128 v)
{
    uint64_t high = (uint64_t)(v >> 64);
    return high ? __builtin_clzll(high) : 64 + __builtin_clzll((uint64_t)v);
}

/* v >> n for any n >= 0; the lost bits are or-ed into the last one. */
static inline sf_u128 sf_shift_jam(sf_u128 v, int n)
{
    if (n <= 0) {
        return v;
    }
    if (n >= 128) {
        return v != 0;
    }
    return (v >> n) | ((v << (128 - n)) != 0);
}

/* Moves the leading bit to 127; a zero significand makes the number a zero. */
static inline void sf_normalise(struct sf_num *n)
{
    if (n->sig == 0) {
        n->kind = SF_KIND_ZERO;
        return;
    }
    int shift = sf_clz128(n->sig);
    n->sig <<= shift;
    n->exp -= shift;
}

static inline int sf_bias(const struct sf_format *f)
{
    return (1 << (f->exp_bits - 1)) - 1;
}

static inline struct sf_num sf_unpack(const struct sf_format *f, uint64_t bits)
{
    int exp_max = (1 << f->exp_bits) - 1;
    int exp = (int)(bits >> f->frac_bits) & exp_max;
    uint64_t frac = bits & ((1ULL << f->frac_bits) - 1);
    struct sf_num n = {
        .kind = SF_KIND_FINITE,
        .sign = (bits >> (f->exp_bits + f->frac_bits)) & 1,
        .exp = exp - sf_bias(f),
        .sig = (sf_u128)frac << (127 - f->frac_bits),
    };

    if (exp == exp_max) {
        if (frac == 0) {
            n.kind = SF_KIND_INF;
        } else {
            n.kind = (n.sig >> 126) & 1 ? SF_KIND_QNAN : SF_KIND_SNAN;
        }
    } else if (exp == 0) {
        n.exp++;
        sf_normalise(&n);
    } else {
        n.sig |= (sf_u128)1 << 127;
    }
    return n;
}

static inline bool sf_is_nan(const struct sf_num *n)
{
    return n->kind >= SF_KIND_QNAN;
}

static inline struct sf_num sf_default_nan(const struct sf_status *s)
{
    struct sf_num n = { .kind = SF_KIND_QNAN,
                        .sign = s->nan_negative,
                        .sig = (sf_u128)1 << 126 };
    return n;
}

static inline struct sf_num sf_invalid(struct sf_status *s)
{
    s->flags |= SF_NV;
    return sf_default_nan(s);
}

/* The result for operands of which one or more is a NaN; raises NV for a signalling one. */
struct sf_num sf_pick_nan(const struct sf_num *n, int count, struct sf_status *s);

/* Whether rounding increases the magnitude: `odd` the last kept bit, `half` the first lost
 * one, `sticky` all others. */
static inline bool sf_round_up(unsigned rm, bool sign, bool odd, bool half, bool sticky)
{
    switch (rm) {
    case SF_RNE:
        return half && (sticky || odd);
    case SF_RMM:
        return half;
    case SF_RDN:
        return sign && (half || sticky);
    case SF_RUP:
        return !sign && (half || sticky);
    case SF_ODD:
        return !odd && (half || sticky);
    default:
        return false;
    }
}

static inline uint64_t sf_join(const struct sf_format *f, bool sign, int biased, uint64_t frac)
{
    return (uint64_t)sign << (f->exp_bits + f->frac_bits) | (uint64_t)biased << f->frac_bits |
           frac;
}

static inline uint64_t sf_pack_overflow(const struct sf_format *f, bool sign,
                                        struct sf_status *s)
{
    bool to_inf = s->rm == SF_RNE || s->rm == SF_RMM || s->rm == (sign ? SF_RDN : SF_RUP);
    int exp_max = (1 << f->exp_bits) - 1;

    s->flags |= SF_OF | SF_NX;
    if (to_inf) {
        return sf_join(f, sign, exp_max, 0);
    }
    return sf_join(f, sign, exp_max - 1, (1ULL << f->frac_bits) - 1);
}

/* Rounds `sig` to its top `keep` bits and returns those, as a number that may reach 2^keep. */
static inline uint64_t sf_round_sig(sf_u128 sig, int keep, bool sign, unsigned rm,
                                    bool *inexact)
{
    uint64_t kept = (uint64_t)(sig >> (128 - keep));
    sf_u128 rest = sig << keep;
    bool half = rest >> 127;
    bool sticky = (rest << 1) != 0;

    *inexact = rest != 0;
    return kept + sf_round_up(rm, sign, kept & 1, half, sticky);
}

static inline uint64_t sf_pack_finite(const struct sf_format *f, struct sf_num n,
                                      struct sf_status *s)
{
    int keep = f->frac_bits + 1;
    int exp_min = 1 - sf_bias(f);
    bool tiny = false;
    bool inexact;

    if (n.exp < exp_min) {
        tiny = true;
        if (n.exp == exp_min - 1 && !s->tiny_before) {
            /* As if the exponent had no bound: not tiny when rounding reaches 2^exp_min. */
            tiny = sf_round_sig(n.sig, keep, n.sign, s->rm, &inexact) >> keep == 0;
        }
        n.sig = sf_shift_jam(n.sig, exp_min - n.exp);
        n.exp = exp_min;
    }
    uint64_t kept = sf_round_sig(n.sig, keep, n.sign, s->rm, &inexact);
    /* A carry out of the kept bits leaves them zero: one more in the exponent. */
    n.exp += (int)(kept >> keep);
    if (n.exp > sf_bias(f)) {
        return sf_pack_overflow(f, n.sign, s);
    }
    if (inexact) {
        s->flags |= tiny ? SF_UF | SF_NX : SF_NX;
    }
    uint64_t frac = kept & ((1ULL << f->frac_bits) - 1);
    bool normal = kept >> f->frac_bits != 0;
    return sf_join(f, n.sign, normal ? n.exp + sf_bias(f) : 0, frac);
}

/* Rounds by s->rm into the format and raises OF, UF and NX as that demands. */
static inline uint64_t sf_pack(const struct sf_format *f, struct sf_num n, struct sf_status *s)
{
    int exp_max = (1 << f->exp_bits) - 1;
    uint64_t frac;

    switch (n.kind) {
    case SF_KIND_FINITE:
        return sf_pack_finite(f, n, s);
    case SF_KIND_ZERO:
        return sf_join(f, n.sign, 0, 0);
    case SF_KIND_INF:
        return sf_join(f, n.sign, exp_max, 0);
    default:
        frac = (uint64_t)(n.sig >> (127 - f->frac_bits)) & ((1ULL << f->frac_bits) - 1);
        return sf_join(f, n.sign, exp_max, frac);
    }
}

#endif
