/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Translate functions of half precision, BF16 and the additional floating point: Zfhmin, Zfh, Zfbfmin, Zfa. The contract
 * of all of them is in trans.h. Loads, stores, moves and sign injection are inline, arithmetic is in helpers (fp_z.c).
 *
 * Halves are NaN-boxed: a register whose upper 48 bits are not all ones reads as the canonical NaN.
 */
#include "engine/tcg/guest_riscv/fp_z.h"
#include "engine/tcg/guest_riscv/trans.h"

#define BOX_H UINT64_C(0xffffffffffff0000)
#define BOXED_NAN (BOX_H | 0x7e00)
#define SIGN_H UINT64_C(0x8000)

static ir_ref num(struct tcg_trans *t, uint64_t v)
{
    return ir_const(t->ir, v);
}

static ir_ref op2(struct tcg_trans *t, enum ir_opcode op, ir_ref a, ir_ref b)
{
    return ir_bin(t->ir, op, 64, a, b);
}

static ir_ref call(struct tcg_trans *t, ir_helper fn, ir_ref a, ir_ref b, ir_ref c)
{
    return ir_call(t->ir, fn, IR_CALL_NO_GLOBALS, true, a, b, c);
}

/* ---- loads, stores, moves ---------------------------------------------------------------- */

bool trans_flh(struct tcg_trans *t, const struct riscv_i *a)
{
    int32_t disp;
    ir_ref address;

    if (!fp_on(t)) {
        return false;
    }
    address = mem_addr(t, a->rs1, a->imm, &disp);
    set_f(t, a->rd, op2(t, IR_or, ir_ld(t->ir, address, disp, MO_16), num(t, BOX_H)));
    return true;
}

bool trans_fsh(struct tcg_trans *t, const struct riscv_s *a)
{
    int32_t disp;
    ir_ref address;

    if (!fp_on(t)) {
        return false;
    }
    address = mem_addr(t, a->rs1, a->imm, &disp);
    ir_st(t->ir, address, disp, get_f(t, a->rs2), MO_16);
    return true;
}

bool trans_fmv_x_h(struct tcg_trans *t, const struct riscv_r1 *a)
{
    if (!fp_on(t)) {
        return false;
    }
    set_x(t, a->rd, ir_un(t->ir, IR_sext16, 64, get_f(t, a->rs1)));
    return true;
}

bool trans_fmv_h_x(struct tcg_trans *t, const struct riscv_r1 *a)
{
    if (!fp_on(t)) {
        return false;
    }
    set_f(t, a->rd, op2(t, IR_or, get_x(t, a->rs1), num(t, BOX_H)));
    return true;
}

bool trans_fmvh_x_d(struct tcg_trans *t, const struct riscv_r1 *a)
{
    if (!fp_on(t)) {
        return false;
    }
    set_x(t, a->rd, op2(t, IR_sar, get_f(t, a->rs1), num(t, 32)));
    return true;
}

bool trans_fmvp_d_x(struct tcg_trans *t, const struct riscv_r *a)
{
    if (!fp_on(t)) {
        return false;
    }
    set_f(t, a->rd,
          op2(t, IR_or, ir_un(t->ir, IR_zext32, 64, get_x(t, a->rs1)),
              op2(t, IR_shl, get_x(t, a->rs2), num(t, 32))));
    return true;
}

static bool load_constant(struct tcg_trans *t, const struct riscv_fli *a, unsigned format)
{
    if (!fp_on(t)) {
        return false;
    }
    set_f(t, a->rd, num(t, riscv_fli(a->n, format)));
    return true;
}

bool trans_fli_s(struct tcg_trans *t, const struct riscv_fli *a)
{
    return load_constant(t, a, 0);
}

bool trans_fli_d(struct tcg_trans *t, const struct riscv_fli *a)
{
    return load_constant(t, a, 1);
}

bool trans_fli_h(struct tcg_trans *t, const struct riscv_fli *a)
{
    return load_constant(t, a, 2);
}

/* ---- sign injection ---------------------------------------------------------------------- */

enum sign { SIGN_COPY, SIGN_NEGATE, SIGN_XOR };

static ir_ref get_half(struct tcg_trans *t, unsigned n)
{
    ir_ref v = get_f(t, n), box = num(t, BOX_H);

    return ir_select(t->ir, IR_GEU, 64, v, box, v, num(t, BOXED_NAN));
}

static bool inject(struct tcg_trans *t, const struct riscv_r *a, enum sign how)
{
    ir_ref one, sign;

    if (!fp_on(t)) {
        return false;
    }
    one = get_half(t, a->rs1);
    sign = op2(t, IR_and, get_half(t, a->rs2), num(t, SIGN_H));
    if (how == SIGN_XOR) {
        set_f(t, a->rd, op2(t, IR_xor, one, sign));
        return true;
    }
    if (how == SIGN_NEGATE) {
        sign = op2(t, IR_xor, sign, num(t, SIGN_H));
    }
    set_f(t, a->rd, op2(t, IR_or, op2(t, IR_and, one, num(t, ~SIGN_H)), sign));
    return true;
}

bool trans_fsgnj_h(struct tcg_trans *t, const struct riscv_r *a)
{
    return inject(t, a, SIGN_COPY);
}

bool trans_fsgnjn_h(struct tcg_trans *t, const struct riscv_r *a)
{
    return inject(t, a, SIGN_NEGATE);
}

bool trans_fsgnjx_h(struct tcg_trans *t, const struct riscv_r *a)
{
    return inject(t, a, SIGN_XOR);
}

/* ---- arithmetic by helpers --------------------------------------------------------------- */

enum { FROM_X = 1, TO_X = 2 }; /* the operand, the result is an x register */

/* rd = FN(rs1, rs2, rm) */
static bool binary(struct tcg_trans *t, const struct riscv_fr *a, ir_helper fn)
{
    ir_ref rm;

    if (!fp_rounding(t, a->rm, &rm)) {
        return false;
    }
    set_f(t, a->rd, call(t, fn, get_f(t, a->rs1), get_f(t, a->rs2), rm));
    return true;
}

/* rd = FN(rs1, rm) */
static bool unary(struct tcg_trans *t, const struct riscv_fr *a, ir_helper fn, unsigned where)
{
    ir_ref rm, v;

    if (!fp_rounding(t, a->rm, &rm)) {
        return false;
    }
    mark_fs_dirty(t);
    v = where & FROM_X ? get_x(t, a->rs1) : get_f(t, a->rs1);
    v = call(t, fn, v, rm, IR_NONE);
    if (where & TO_X) {
        set_x(t, a->rd, v);
    } else {
        set_f(t, a->rd, v);
    }
    return true;
}

/* rd = FN(rs1, rs2), without a rounding mode */
static bool choose(struct tcg_trans *t, const struct riscv_r *a, ir_helper fn, unsigned where)
{
    ir_ref v;

    if (!fp_on(t)) {
        return false;
    }
    mark_fs_dirty(t);
    v = call(t, fn, get_f(t, a->rs1), get_f(t, a->rs2), IR_NONE);
    if (where & TO_X) {
        set_x(t, a->rd, v);
    } else {
        set_f(t, a->rd, v);
    }
    return true;
}

#define BINARY(name)                                                                           \
    bool trans_##name(struct tcg_trans *t, const struct riscv_fr *a)                           \
    {                                                                                          \
        return binary(t, a, riscv_##name);                                                     \
    }
#define UNARY(name, where)                                                                     \
    bool trans_##name(struct tcg_trans *t, const struct riscv_fr *a)                           \
    {                                                                                          \
        return unary(t, a, riscv_##name, where);                                               \
    }
#define CHOOSE(name, where)                                                                    \
    bool trans_##name(struct tcg_trans *t, const struct riscv_r *a)                            \
    {                                                                                          \
        return choose(t, a, riscv_##name, where);                                              \
    }

BINARY(fadd_h)
BINARY(fsub_h)
BINARY(fmul_h)
BINARY(fdiv_h)
UNARY(fsqrt_h, 0)
CHOOSE(fmin_h, 0)
CHOOSE(fmax_h, 0)
CHOOSE(feq_h, TO_X)
CHOOSE(flt_h, TO_X)
CHOOSE(fle_h, TO_X)
UNARY(fcvt_w_h, TO_X)
UNARY(fcvt_wu_h, TO_X)
UNARY(fcvt_l_h, TO_X)
UNARY(fcvt_lu_h, TO_X)
UNARY(fcvt_h_w, FROM_X)
UNARY(fcvt_h_wu, FROM_X)
UNARY(fcvt_h_l, FROM_X)
UNARY(fcvt_h_lu, FROM_X)
UNARY(fcvt_s_h, 0)
UNARY(fcvt_h_s, 0)
UNARY(fcvt_d_h, 0)
UNARY(fcvt_h_d, 0)
UNARY(fcvt_bf16_s, 0)
UNARY(fcvt_s_bf16, 0)

#define ADDITIONAL(L)                                                                          \
    CHOOSE(fminm_##L, 0)                                                                       \
    CHOOSE(fmaxm_##L, 0)                                                                       \
    CHOOSE(fleq_##L, TO_X)                                                                     \
    CHOOSE(fltq_##L, TO_X)                                                                     \
    UNARY(fround_##L, 0)                                                                       \
    UNARY(froundnx_##L, 0)

ADDITIONAL(h)
ADDITIONAL(s)
ADDITIONAL(d)
UNARY(fcvtmod_w_d, TO_X)

bool trans_fclass_h(struct tcg_trans *t, const struct riscv_r1 *a)
{
    if (!fp_on(t)) {
        return false;
    }
    set_x(
        t, a->rd,
        ir_call(t->ir, riscv_fclass_h, IR_CALL_PURE, true, get_f(t, a->rs1), IR_NONE, IR_NONE));
    return true;
}

/* The fused multiply-adds take three operands: the rounding mode chooses the function, or frm when it runs. */
#define FUSED(name, kind)                                                                      \
    static uint64_t name##_dynamic(void *cpu, uint64_t a, uint64_t b, uint64_t c)              \
    {                                                                                          \
        const struct riscv_cpu *hart = cpu;                                                    \
        return riscv_fma_h_helper(kind, hart->frm)(cpu, a, b, c);                              \
    }                                                                                          \
    bool trans_##name(struct tcg_trans *t, const struct riscv_fr4 *a)                          \
    {                                                                                          \
        ir_ref rm;                                                                             \
        uint64_t mode;                                                                         \
        if (!fp_rounding(t, a->rm, &rm)) {                                                     \
            return false;                                                                      \
        }                                                                                      \
        set_f(t, a->rd,                                                                        \
              call(t,                                                                          \
                   ir_is_const(t->ir, rm, &mode) ? riscv_fma_h_helper(kind, (unsigned)mode)    \
                                                 : name##_dynamic,                             \
                   get_f(t, a->rs1), get_f(t, a->rs2), get_f(t, a->rs3)));                     \
        return true;                                                                           \
    }

FUSED(fmadd_h, 0)
FUSED(fmsub_h, 1)
FUSED(fnmsub_h, 2)
FUSED(fnmadd_h, 3)
