/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Translate functions of the F and D extensions. The contract of all of them is in trans.h. Loads,
 * stores, moves and sign injection are inline on the raw bits; arithmetic is in helpers (fp.c).
 *
 * Singles are NaN-boxed: a register whose upper half is not all ones reads as the canonical NaN.
 */
#include "engine/tcg/guest_riscv/trans.h"

#include <stddef.h>

#define BOX UINT64_C(0xffffffff00000000)
#define BOXED_NAN UINT64_C(0xffffffff7fc00000)
#define SIGN_S UINT64_C(0x80000000)
#define SIGN_D UINT64_C(0x8000000000000000)

static ir_ref num(struct tcg_trans *t, uint64_t v)
{
    return ir_const(t->ir, v);
}

static ir_ref op2(struct tcg_trans *t, enum ir_opcode op, ir_ref a, ir_ref b)
{
    return ir_bin(t->ir, op, 64, a, b);
}

/* Called by code that must ask: raises an illegal instruction with bits `insn` when frm is reserved. */
static uint64_t ask_frm(void *cpu, uint64_t insn, uint64_t b, uint64_t c)
{
    const struct riscv_cpu *hart = cpu;

    return hart->frm <= 4 ? 0 : riscv_illegal(cpu, insn, b, c);
}

bool fp_rounding(struct tcg_trans *t, unsigned rm, ir_ref *mode)
{
    if (!fp_on(t)) {
        return false;
    }
    if (rm == 7 && (t->code & RV_CODE_FP_ASK) != 0) {
        if ((t->guest & RISCV_T_FRM_ASKED) == 0) {
            t->guest |= RISCV_T_FRM_ASKED;
            ir_call(t->ir, ask_frm, IR_CALL_READS, false, num(t, insn_bits(t)), IR_NONE,
                    IR_NONE);
        }
        *mode = ir_ldenv(t->ir, offsetof(struct riscv_cpu, frm), MO_8);
        return true;
    }
    if (rm == 7) {
        rm = (t->code & RV_CODE_FRM) >> RV_CODE_FRM_SHIFT;
    }
    if (rm > 4) {
        return trans_illegal(t);
    }
    *mode = num(t, rm);
    return true;
}

/* ---- loads, stores, moves ---------------------------------------------------------------- */

static bool load(struct tcg_trans *t, const struct riscv_i *a, unsigned mo)
{
    int32_t disp;
    ir_ref address, v;

    if (!fp_on(t)) {
        return false;
    }
    address = mem_addr(t, a->rs1, a->imm, &disp);
    v = ir_ld(t->ir, address, disp, mo == MO_32 ? MO_32 | MO_ONES : mo);
    set_f(t, a->rd, v);
    return true;
}

static bool store(struct tcg_trans *t, const struct riscv_s *a, unsigned mo)
{
    int32_t disp;
    ir_ref address;

    if (!fp_on(t)) {
        return false;
    }
    address = mem_addr(t, a->rs1, a->imm, &disp);
    ir_st(t->ir, address, disp, get_f(t, a->rs2), mo);
    return true;
}

bool trans_flw(struct tcg_trans *t, const struct riscv_i *a)
{
    return load(t, a, MO_32);
}

bool trans_fld(struct tcg_trans *t, const struct riscv_i *a)
{
    return load(t, a, MO_64);
}

bool trans_fsw(struct tcg_trans *t, const struct riscv_s *a)
{
    return store(t, a, MO_32);
}

bool trans_fsd(struct tcg_trans *t, const struct riscv_s *a)
{
    return store(t, a, MO_64);
}

bool trans_fmv_x_w(struct tcg_trans *t, const struct riscv_r1 *a)
{
    if (!fp_on(t)) {
        return false;
    }
    set_x32(t, a->rd, get_f(t, a->rs1));
    return true;
}

bool trans_fmv_x_d(struct tcg_trans *t, const struct riscv_r1 *a)
{
    if (!fp_on(t)) {
        return false;
    }
    set_x(t, a->rd, get_f(t, a->rs1));
    return true;
}

bool trans_fmv_w_x(struct tcg_trans *t, const struct riscv_r1 *a)
{
    if (!fp_on(t)) {
        return false;
    }
    set_f(t, a->rd, op2(t, IR_or, get_x(t, a->rs1), num(t, BOX)));
    return true;
}

bool trans_fmv_d_x(struct tcg_trans *t, const struct riscv_r1 *a)
{
    if (!fp_on(t)) {
        return false;
    }
    set_f(t, a->rd, get_x(t, a->rs1));
    return true;
}

/* ---- sign injection ---------------------------------------------------------------------- */

enum sign { SIGN_COPY, SIGN_NEGATE, SIGN_XOR };

/* Register n as a boxed single: the canonical NaN when it is not one. */
static ir_ref get_single(struct tcg_trans *t, unsigned n)
{
    ir_ref v = get_f(t, n), box = num(t, BOX);

    return ir_select(t->ir, IR_GEU, 64, v, box, v, num(t, BOXED_NAN));
}

static bool inject(struct tcg_trans *t, const struct riscv_r *a, enum sign how, bool single)
{
    uint64_t bit = single ? SIGN_S : SIGN_D;
    ir_ref one, two, sign;

    if (!fp_on(t)) {
        return false;
    }
    if (single && a->rs1 == a->rs2) { /* fmv, fneg, fabs */
        static const enum ir_fp kinds[] = { IR_FP_COPY, IR_FP_NEG, IR_FP_ABS };
        static const ir_helper helpers[] = { riscv_fsgnj_s, riscv_fsgnjn_s, riscv_fsgnjx_s };

        one = ir_call(t->ir, helpers[how], riscv_fsgnj_s_flags, true, get_f(t, a->rs1),
                      get_f(t, a->rs1), IR_NONE);
        ir_fp_hint(t->ir, kinds[how], 32, false);
        set_f(t, a->rd, one);
        return true;
    }
    one = single ? get_single(t, a->rs1) : get_f(t, a->rs1);
    if (a->rs1 == a->rs2) {
        static const enum ir_opcode ops[] = { IR_mov, IR_xor, IR_andc };

        set_f(t, a->rd, how == SIGN_COPY ? one : op2(t, ops[how], one, num(t, bit)));
        return true;
    }
    two = single ? get_single(t, a->rs2) : get_f(t, a->rs2);
    sign = op2(t, IR_and, two, num(t, bit));
    if (how == SIGN_XOR) {
        set_f(t, a->rd, op2(t, IR_xor, one, sign));
        return true;
    }
    if (how == SIGN_NEGATE) {
        sign = op2(t, IR_xor, sign, num(t, bit));
    }
    set_f(t, a->rd, op2(t, IR_or, op2(t, IR_and, one, num(t, ~bit)), sign));
    return true;
}

bool trans_fsgnj_s(struct tcg_trans *t, const struct riscv_r *a)
{
    return inject(t, a, SIGN_COPY, true);
}

bool trans_fsgnjn_s(struct tcg_trans *t, const struct riscv_r *a)
{
    return inject(t, a, SIGN_NEGATE, true);
}

bool trans_fsgnjx_s(struct tcg_trans *t, const struct riscv_r *a)
{
    return inject(t, a, SIGN_XOR, true);
}

bool trans_fsgnj_d(struct tcg_trans *t, const struct riscv_r *a)
{
    return inject(t, a, SIGN_COPY, false);
}

bool trans_fsgnjn_d(struct tcg_trans *t, const struct riscv_r *a)
{
    return inject(t, a, SIGN_NEGATE, false);
}

bool trans_fsgnjx_d(struct tcg_trans *t, const struct riscv_r *a)
{
    return inject(t, a, SIGN_XOR, false);
}

/* ---- arithmetic by helpers --------------------------------------------------------------- */

/* What a helper does with the CPU state; every one but fclass may raise fflags. */
#define CALL(t, name, a, b, c) ir_call((t)->ir, name, name##_flags, true, a, b, c)

/* Tells the host what a helper computes, where the rounding mode is known to be nearest even or only the running code can tell. */
static ir_ref hinted(struct tcg_trans *t, ir_ref result, ir_ref rm, enum ir_fp kind, unsigned w)
{
    uint64_t mode;

    bool known = ir_is_const(t->ir, rm, &mode);

    if (!known || mode == 0) {
        ir_fp_hint(t->ir, kind, w, !known);
    }
    return result;
}

/* The same of a conversion to an integer; toward zero is what programs ask for. */
static ir_ref hinted_int(struct tcg_trans *t, ir_ref result, ir_ref rm, enum ir_fp trunc,
                         enum ir_fp rint, unsigned w)
{
    uint64_t mode;

    if (trunc != IR_FP_NONE && ir_is_const(t->ir, rm, &mode) && mode == 1) {
        ir_fp_hint(t->ir, trunc, w, false);
        return result;
    }
    return rint != IR_FP_NONE ? hinted(t, result, rm, rint, w) : result;
}

/* fd = OP(fs1, fs2, rm) */
#define BINARY(name, kind, w)                                                                  \
    bool trans_##name(struct tcg_trans *t, const struct riscv_fr *a)                           \
    {                                                                                          \
        ir_ref rm;                                                                             \
        if (!fp_rounding(t, a->rm, &rm)) {                                                        \
            return false;                                                                      \
        }                                                                                      \
        set_f(t, a->rd,                                                                        \
              hinted(t, CALL(t, riscv_##name, get_f(t, a->rs1), get_f(t, a->rs2), rm), rm,     \
                     kind, w));                                                                \
        return true;                                                                           \
    }

/* fd = OP(fs1, rm) */
#define UNARY(name, kind, w)                                                                   \
    bool trans_##name(struct tcg_trans *t, const struct riscv_fr *a)                           \
    {                                                                                          \
        ir_ref rm;                                                                             \
        if (!fp_rounding(t, a->rm, &rm)) {                                                        \
            return false;                                                                      \
        }                                                                                      \
        set_f(t, a->rd,                                                                        \
              hinted(t, CALL(t, riscv_##name, get_f(t, a->rs1), rm, IR_NONE), rm, kind, w));   \
        return true;                                                                           \
    }

/* rd = OP(fs1, rm) */
#define TO_INT(name, trunc, rint, w)                                                          \
    bool trans_##name(struct tcg_trans *t, const struct riscv_fr *a)                           \
    {                                                                                          \
        ir_ref rm;                                                                             \
        if (!fp_rounding(t, a->rm, &rm)) {                                                        \
            return false;                                                                      \
        }                                                                                      \
        mark_fs_dirty(t);                                                                      \
        set_x(t, a->rd,                                                                        \
              hinted_int(t, CALL(t, riscv_##name, get_f(t, a->rs1), rm, IR_NONE), rm, trunc,   \
                         rint, w));                                                            \
        return true;                                                                           \
    }

/* fd = OP(rs1, rm) */
#define FROM_INT(name, kind, w)                                                                \
    bool trans_##name(struct tcg_trans *t, const struct riscv_fr *a)                           \
    {                                                                                          \
        ir_ref rm;                                                                             \
        if (!fp_rounding(t, a->rm, &rm)) {                                                        \
            return false;                                                                      \
        }                                                                                      \
        set_f(t, a->rd,                                                                        \
              hinted(t, CALL(t, riscv_##name, get_x(t, a->rs1), rm, IR_NONE), rm, kind, w));   \
        return true;                                                                           \
    }

/* fd = OP(fs1, fs2) */
#define CHOOSE(name, kind, w)                                                                 \
    bool trans_##name(struct tcg_trans *t, const struct riscv_r *a)                            \
    {                                                                                          \
        if (!fp_on(t)) {                                                                       \
            return false;                                                                      \
        }                                                                                      \
        set_f(t, a->rd,                                                                        \
              hinted(t, CALL(t, riscv_##name, get_f(t, a->rs1), get_f(t, a->rs2), IR_NONE),    \
                     num(t, 0), kind, w));                                                     \
        return true;                                                                           \
    }

/* rd = OP(fs1, fs2) */
#define COMPARE(name, kind, w)                                                                 \
    bool trans_##name(struct tcg_trans *t, const struct riscv_r *a)                            \
    {                                                                                          \
        if (!fp_on(t)) {                                                                       \
            return false;                                                                      \
        }                                                                                      \
        mark_fs_dirty(t);                                                                      \
        set_x(t, a->rd,                                                                        \
              hinted(t, CALL(t, riscv_##name, get_f(t, a->rs1), get_f(t, a->rs2), IR_NONE),    \
                     num(t, 0), kind, w));                                                     \
        return true;                                                                           \
    }

/* rd = OP(fs1), no flags */
#define CLASSIFY(name)                                                                         \
    bool trans_##name(struct tcg_trans *t, const struct riscv_r1 *a)                           \
    {                                                                                          \
        if (!fp_on(t)) {                                                                       \
            return false;                                                                      \
        }                                                                                      \
        set_x(t, a->rd, CALL(t, riscv_##name, get_f(t, a->rs1), IR_NONE, IR_NONE));            \
        return true;                                                                           \
    }

BINARY(fadd_s, IR_FP_ADD, 32)
BINARY(fsub_s, IR_FP_SUB, 32)
BINARY(fmul_s, IR_FP_MUL, 32)
BINARY(fdiv_s, IR_FP_DIV, 32)
UNARY(fsqrt_s, IR_FP_SQRT, 32)
CHOOSE(fmin_s, IR_FP_MIN, 32)
CHOOSE(fmax_s, IR_FP_MAX, 32)
COMPARE(feq_s, IR_FP_EQ, 32)
COMPARE(flt_s, IR_FP_LT, 32)
COMPARE(fle_s, IR_FP_LE, 32)
CLASSIFY(fclass_s)
TO_INT(fcvt_w_s, IR_FP_TRUNC_I32, IR_FP_RINT_I32, 32)
TO_INT(fcvt_wu_s, IR_FP_NONE, IR_FP_NONE, 32)
TO_INT(fcvt_l_s, IR_FP_TRUNC_I64, IR_FP_RINT_I64, 32)
TO_INT(fcvt_lu_s, IR_FP_NONE, IR_FP_NONE, 32)
FROM_INT(fcvt_s_w, IR_FP_FROM_I32, 32)
FROM_INT(fcvt_s_wu, IR_FP_FROM_U32, 32)
FROM_INT(fcvt_s_l, IR_FP_FROM_I64, 32)
FROM_INT(fcvt_s_lu, IR_FP_FROM_U64, 32)

BINARY(fadd_d, IR_FP_ADD, 64)
BINARY(fsub_d, IR_FP_SUB, 64)
BINARY(fmul_d, IR_FP_MUL, 64)
BINARY(fdiv_d, IR_FP_DIV, 64)
UNARY(fsqrt_d, IR_FP_SQRT, 64)
CHOOSE(fmin_d, IR_FP_MIN, 64)
CHOOSE(fmax_d, IR_FP_MAX, 64)
COMPARE(feq_d, IR_FP_EQ, 64)
COMPARE(flt_d, IR_FP_LT, 64)
COMPARE(fle_d, IR_FP_LE, 64)
CLASSIFY(fclass_d)
TO_INT(fcvt_w_d, IR_FP_TRUNC_I32, IR_FP_RINT_I32, 64)
TO_INT(fcvt_wu_d, IR_FP_NONE, IR_FP_NONE, 64)
TO_INT(fcvt_l_d, IR_FP_TRUNC_I64, IR_FP_RINT_I64, 64)
TO_INT(fcvt_lu_d, IR_FP_NONE, IR_FP_NONE, 64)
FROM_INT(fcvt_d_w, IR_FP_FROM_I32, 64)
FROM_INT(fcvt_d_wu, IR_FP_FROM_U32, 64)
FROM_INT(fcvt_d_l, IR_FP_FROM_I64, 64)
FROM_INT(fcvt_d_lu, IR_FP_FROM_U64, 64)
UNARY(fcvt_s_d, IR_FP_NARROW, 32)
UNARY(fcvt_d_s, IR_FP_WIDEN, 64)

/* The fused multiply-adds with the rounding mode of frm, valid by then: one function a kind and width. */
#define FUSED_DYNAMIC(name, is_double, kind)                                                   \
    static uint64_t name(void *cpu, uint64_t a, uint64_t b, uint64_t c)                        \
    {                                                                                          \
        const struct riscv_cpu *hart = cpu;                                                    \
        return riscv_fma_helper(is_double, kind, hart->frm)(cpu, a, b, c);                     \
    }

FUSED_DYNAMIC(fmadd_s, false, 0)
FUSED_DYNAMIC(fmsub_s, false, 1)
FUSED_DYNAMIC(fnmsub_s, false, 2)
FUSED_DYNAMIC(fnmadd_s, false, 3)
FUSED_DYNAMIC(fmadd_d, true, 0)
FUSED_DYNAMIC(fmsub_d, true, 1)
FUSED_DYNAMIC(fnmsub_d, true, 2)
FUSED_DYNAMIC(fnmadd_d, true, 3)

static bool fused(struct tcg_trans *t, const struct riscv_fr4 *a, bool is_double, unsigned kind)
{
    static const ir_helper dynamic[2][4] = {
        { fmadd_s, fmsub_s, fnmsub_s, fnmadd_s },
        { fmadd_d, fmsub_d, fnmsub_d, fnmadd_d },
    };
    static const enum ir_fp hints[] = { IR_FP_MADD, IR_FP_MSUB, IR_FP_NMSUB, IR_FP_NMADD };
    ir_helper helper = dynamic[is_double][kind];
    ir_ref rm;
    uint64_t mode;

    if (!fp_rounding(t, a->rm, &rm)) {
        return false;
    }
    if (ir_is_const(t->ir, rm, &mode)) {
        helper = riscv_fma_helper(is_double, kind, (unsigned)mode);
    }
    set_f(t, a->rd,
          hinted(t,
                 ir_call(t->ir, helper, IR_CALL_NO_GLOBALS, true, get_f(t, a->rs1),
                         get_f(t, a->rs2), get_f(t, a->rs3)),
                 rm, hints[kind], is_double ? 64 : 32));
    return true;
}

bool trans_fmadd_s(struct tcg_trans *t, const struct riscv_fr4 *a)
{
    return fused(t, a, false, 0);
}

bool trans_fmsub_s(struct tcg_trans *t, const struct riscv_fr4 *a)
{
    return fused(t, a, false, 1);
}

bool trans_fnmsub_s(struct tcg_trans *t, const struct riscv_fr4 *a)
{
    return fused(t, a, false, 2);
}

bool trans_fnmadd_s(struct tcg_trans *t, const struct riscv_fr4 *a)
{
    return fused(t, a, false, 3);
}

bool trans_fmadd_d(struct tcg_trans *t, const struct riscv_fr4 *a)
{
    return fused(t, a, true, 0);
}

bool trans_fmsub_d(struct tcg_trans *t, const struct riscv_fr4 *a)
{
    return fused(t, a, true, 1);
}

bool trans_fnmsub_d(struct tcg_trans *t, const struct riscv_fr4 *a)
{
    return fused(t, a, true, 2);
}

bool trans_fnmadd_d(struct tcg_trans *t, const struct riscv_fr4 *a)
{
    return fused(t, a, true, 3);
}
