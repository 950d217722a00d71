/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Software floating point: IEEE 754-2019 binary16, binary32 and binary64 in integer arithmetic.
 *
 * Every operation is a pure function of raw bit patterns and a `struct sf_status`, which says
 * how to round and what a guest architecture prefers where the standard leaves a choice, and
 * collects the exceptions raised. There is no trap, no global state and no dependence on the
 * host's floating point: results are the same on every host. Any thread may call anything; a
 * status belongs to its caller.
 *
 * fp_host.h puts a layer on top that uses the host's own arithmetic where that is provably the same.
 */
#ifndef VMD_TCG_SOFTFP_H
#define VMD_TCG_SOFTFP_H

#include <stdbool.h>
#include <stdint.h>

/* Rounding directions; the first five have the numbers of RISC-V's frm. */
enum sf_round {
    SF_RNE = 0, /* to nearest, ties to even */
    SF_RTZ = 1, /* toward zero */
    SF_RDN = 2, /* toward minus infinity */
    SF_RUP = 3, /* toward plus infinity */
    SF_RMM = 4, /* to nearest, ties away from zero */
    SF_ODD = 5, /* von Neumann: an inexact result gets an odd last bit */
};

/* Exceptions, sticky in sf_status.flags; the bits of RISC-V's fflags. */
enum sf_flag {
    SF_NX = 1,  /* inexact */
    SF_UF = 2,  /* underflow: tiny and inexact */
    SF_OF = 4,  /* overflow */
    SF_DZ = 8,  /* division of a finite number by zero */
    SF_NV = 16, /* invalid operation */
};

/* What an operation with a NaN operand returns. */
enum sf_nan_rule {
    SF_NAN_DEFAULT = 0, /* always the default NaN (RISC-V) */
    SF_NAN_FIRST,       /* the first NaN operand, made quiet (x86 SSE) */
    SF_NAN_SNAN_FIRST,  /* the first signalling one, else the first quiet one (Arm) */
};

/* What a conversion to an integer returns for what does not fit (NV is raised in each). */
enum sf_int_rule {
    SF_INT_SATURATE_NAN_MAX = 0, /* nearest bound; NaN counts as plus infinity (RISC-V) */
    SF_INT_SATURATE_NAN_ZERO,    /* nearest bound; NaN gives 0 (Arm) */
    SF_INT_INDEFINITE,           /* the top bit alone; all ones for unsigned (x86) */
};

/* All zeroes is RISC-V with round to nearest even and no flag raised. */
struct sf_status {
    uint8_t rm;        /* enum sf_round */
    uint8_t flags;     /* enum sf_flag, only ever added to */
    uint8_t nan_rule;  /* enum sf_nan_rule */
    uint8_t int_rule;  /* enum sf_int_rule */
    bool tiny_before;  /* underflow looks at the result before rounding (Arm); else after */
    bool nan_negative; /* the default NaN has its sign set (x86) */
};

/* Outcome of a comparison. */
enum sf_order { SF_LESS = -1, SF_EQUAL = 0, SF_GREATER = 1, SF_UNORDERED = 2 };

/* Number classes in the bit order of RISC-V's fclass. */
enum sf_class {
    SF_CLASS_NEG_INF,
    SF_CLASS_NEG_NORMAL,
    SF_CLASS_NEG_SUBNORMAL,
    SF_CLASS_NEG_ZERO,
    SF_CLASS_POS_ZERO,
    SF_CLASS_POS_SUBNORMAL,
    SF_CLASS_POS_NORMAL,
    SF_CLASS_POS_INF,
    SF_CLASS_SNAN,
    SF_CLASS_QNAN,
};

/* Signs of the operands of a fused multiply-add, or of its result, to invert. */
enum sf_fma_negate { SF_NEG_PRODUCT = 1, SF_NEG_ADDEND = 2 };

/*
 * The operations of one format: T its name, U the unsigned integer that holds it.
 *
 * - fma: a * b + c with one rounding; `negate` is a set of sf_fma_negate. Infinity times zero
 *   raises NV even when c is a quiet NaN.
 * - cmp: sets NV for any NaN when `signalling`, else for signalling NaNs only.
 * - min, max: minimumNumber and maximumNumber of IEEE 754-2019: a NaN loses against a number,
 *   -0 is below +0. minimum, maximum: a NaN wins.
 * - round_int: to an integral value in the format; raises NX only when `exact`.
 * - to_i32 and the like: round by s->rm, s->int_rule decides what does not fit.
 */
#define SF_DECLARE_FORMAT(T, U)                                                                \
    U sf_##T##_add(U a, U b, struct sf_status *s);                                             \
    U sf_##T##_sub(U a, U b, struct sf_status *s);                                             \
    U sf_##T##_mul(U a, U b, struct sf_status *s);                                             \
    U sf_##T##_div(U a, U b, struct sf_status *s);                                             \
    U sf_##T##_sqrt(U a, struct sf_status *s);                                                 \
    U sf_##T##_fma(U a, U b, U c, unsigned negate, struct sf_status *s);                       \
    enum sf_order sf_##T##_cmp(U a, U b, bool signalling, struct sf_status *s);                \
    U sf_##T##_min(U a, U b, struct sf_status *s);                                             \
    U sf_##T##_max(U a, U b, struct sf_status *s);                                             \
    U sf_##T##_minimum(U a, U b, struct sf_status *s);                                         \
    U sf_##T##_maximum(U a, U b, struct sf_status *s);                                         \
    enum sf_class sf_##T##_classify(U a);                                                      \
    U sf_##T##_round_int(U a, bool exact, struct sf_status *s);                                \
    int32_t sf_##T##_to_i32(U a, struct sf_status *s);                                         \
    uint32_t sf_##T##_to_u32(U a, struct sf_status *s);                                        \
    int64_t sf_##T##_to_i64(U a, struct sf_status *s);                                         \
    uint64_t sf_##T##_to_u64(U a, struct sf_status *s);                                        \
    U sf_##T##_from_i64(int64_t v, struct sf_status *s);                                       \
    U sf_##T##_from_u64(uint64_t v, struct sf_status *s)

SF_DECLARE_FORMAT(f16, uint16_t);
SF_DECLARE_FORMAT(f32, uint32_t);
SF_DECLARE_FORMAT(f64, uint64_t);

/* Conversions between formats. A signalling NaN raises NV; payloads follow s->nan_rule. */
uint32_t sf_f16_to_f32(uint16_t a, struct sf_status *s);
uint64_t sf_f16_to_f64(uint16_t a, struct sf_status *s);
uint16_t sf_f32_to_f16(uint32_t a, struct sf_status *s);
uint64_t sf_f32_to_f64(uint32_t a, struct sf_status *s);
uint16_t sf_f64_to_f16(uint64_t a, struct sf_status *s);
uint32_t sf_f64_to_f32(uint64_t a, struct sf_status *s);
/* bfloat16: the upper half of a binary32. */
uint32_t sf_bf16_to_f32(uint16_t a, struct sf_status *s);
uint16_t sf_f32_to_bf16(uint32_t a, struct sf_status *s);

#endif
