/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IEEE 754 operations inline on x86-64, exactly and with exact flags.
 *
 * The host computes in its default mode (nearest even, no flush to zero) and its own flags are ignored. A result is taken only
 * where no guest flag can change: "inexact" is sticky and set already, and the result's exponent shows that nothing else happened: not
 * infinite or NaN, and, where an operation can underflow, above the smallest normal exponent. Sums and square roots cannot
 * underflow inexactly, so zero and tiny results are fine there. Everything else calls the guest's helper out of line.
 */
#include "engine/tcg/host_x86_64/target.h"

enum { XMM0, XMM1, XMM2 };

struct fp {
    struct ra *r;
    struct fixup *f;
    const struct ir_op *op;
    bool is_double;
    unsigned n_jumps;
    unsigned d, t; /* scratch registers, taken before the first jump: behind it the helper's way would miss a spill */
};

static void give_up(struct fp *x, unsigned cc)
{
    x->f->fp_jump[x->n_jumps++] = x_jcc(&x->r->a, cc, x->r->a.at);
}

static unsigned scalar(const struct fp *x)
{
    return X_0F | (x->is_double ? X_F2 : X_F3);
}

static void load_xmm(struct fp *x, unsigned xmm, struct opnd o)
{
    if (o.place == IN_MEM) {
        x_rm(&x->r->a, scalar(x) | 0x10, xmm, ENV, o.disp);
    } else { /* movq xmm, r64 */
        x_rr(&x->r->a, X_66 | X_0F | 0x6e | X_W, xmm, o.reg);
    }
}

/* A single must have ones above it. */
static void check_box(struct fp *x, struct opnd o)
{
    struct asm_buf *a = &x->r->a;
    if (x->is_double) {
        return;
    }
    if (o.place == IN_MEM) {
        x_alu_mem_imm(a, 7, 0, ENV, o.disp + 4, -1);
    } else {
        unsigned t = x->t;
        x_rr(a, 0x8b | X_W, t, o.reg);
        x_rr(a, 0xc1 | X_W, 7, t);
        x_8(a, 32);
        x_alu_imm(a, 7, 0, t, -1);
    }
    give_up(x, CC_NE);
}

static void check_inexact_is_set(struct fp *x)
{
    const struct tcg_guest *g = x->r->v->tcg->guest;
    x_rm(&x->r->a, 0xf6, 0, ENV, (int32_t)g->fp_flags); /* test byte [], imm8 */
    x_8(&x->r->a, g->fp_inexact);
    give_up(x, CC_E);
}

/* xmm to a register if its exponent is in [low, largest finite]; else gives up. */
static unsigned take_result(struct fp *x, unsigned xmm, unsigned low)
{
    struct asm_buf *a = &x->r->a;
    unsigned d = x->d, t = x->t, wide = x->is_double ? X_W : 0;
    x_rr(a, X_66 | X_0F | 0x7e | wide, xmm, d);
    x_rr(a, 0x8b | wide, t, d);
    x_rr(a, 0x03 | wide, t, t); /* the sign goes */
    x_rr(a, 0xc1 | wide, 5, t);
    x_8(a, x->is_double ? 53 : 24);
    if (low) {
        x_alu_imm(a, 5, 0, t, (int32_t)low);
    }
    x_alu_imm(a, 7, 0, t, (int32_t)((x->is_double ? 2046u : 254u) - low));
    give_up(x, CC_A);
    if (!x->is_double) {
        x_mov_imm(a, t, 0xffffffff00000000u);
        x_rr(a, 0x0b | X_W, d, t);
    }
    return d;
}

static void two_operands(struct fp *x, unsigned opcode, unsigned xmm, struct opnd b)
{
    if (b.place == IN_MEM) {
        x_rm(&x->r->a, scalar(x) | opcode, xmm, ENV, b.disp);
    } else {
        load_xmm(x, XMM1, b);
        x_rr(&x->r->a, scalar(x) | opcode, xmm, XMM1);
    }
}

static unsigned arithmetic(struct fp *x, enum ir_fp kind, const struct opnd *o)
{
    static const uint8_t code[] = { [IR_FP_ADD] = 0x58, [IR_FP_SUB] = 0x5c, [IR_FP_MUL] = 0x59,
                                    [IR_FP_DIV] = 0x5e, [IR_FP_SQRT] = 0x51 };
    check_box(x, o[0]);
    if (kind == IR_FP_SQRT) {
        two_operands(x, 0x51, XMM0, o[0]);
    } else {
        check_box(x, o[1]);
        load_xmm(x, XMM0, o[0]);
        two_operands(x, code[kind], XMM0, o[1]);
    }
    return take_result(x, XMM0, kind == IR_FP_MUL || kind == IR_FP_DIV ? 2 : 0);
}

static unsigned fused(struct fp *x, enum ir_fp kind, const struct opnd *o)
{
    /* The 231 forms: xmm2 = +-(xmm0 * xmm1) +- xmm2. */
    static const uint8_t code[] = { [IR_FP_MADD - IR_FP_MADD] = 0xb9, [IR_FP_MSUB - IR_FP_MADD] = 0xbb,
                                    [IR_FP_NMSUB - IR_FP_MADD] = 0xbd, [IR_FP_NMADD - IR_FP_MADD] = 0xbf };
    for (unsigned i = 0; i < 3; i++) {
        check_box(x, o[i]);
        load_xmm(x, XMM0 + i, o[i]);
    }
    x_vex(&x->r->a, 2, 1, x->is_double, code[kind - IR_FP_MADD], XMM2, XMM0, XMM1);
    return take_result(x, XMM2, 2);
}

/* No flag unless an operand is a NaN. */
static unsigned compare(struct fp *x, enum ir_fp kind, const struct opnd *o)
{
    struct asm_buf *a = &x->r->a;
    check_box(x, o[0]);
    check_box(x, o[1]);
    /* b > a and b >= a read the flags that NaN does not fake. */
    load_xmm(x, XMM0, o[kind == IR_FP_EQ ? 0 : 1]);
    load_xmm(x, XMM1, o[kind == IR_FP_EQ ? 1 : 0]);
    x_rr(a, X_0F | 0x2e | (x->is_double ? X_66 : 0), XMM0, XMM1);
    give_up(x, CC_P);
    unsigned d = x->d;
    unsigned cc = kind == IR_FP_EQ ? CC_E : kind == IR_FP_LT ? CC_A : CC_AE;
    x_rr(a, X_0F | 0x90u | cc | X_BYTE_RM, 0, d);
    x_rr(a, X_0F | 0xb6 | X_BYTE_RM, d, d);
    return d;
}

static unsigned from_i32(struct fp *x, const struct opnd *o)
{
    struct asm_buf *a = &x->r->a;
    unsigned d = x->d;
    x_rr(a, X_0F | 0x57, XMM0, XMM0); /* xorps: no false dependence */
    if (o[0].place == IN_MEM) {
        x_rm(a, X_F2 | X_0F | 0x2a, XMM0, ENV, o[0].disp);
    } else {
        x_rr(a, X_F2 | X_0F | 0x2a, XMM0, o[0].reg);
    }
    x_rr(a, X_66 | X_0F | 0x7e | X_W, XMM0, d);
    return d;
}

bool gen_fp(struct ra *r, const struct ir_op *op)
{
    enum ir_fp kind = (enum ir_fp)(op->aux >> IR_FP_SHIFT);
    struct opnd o[3];
    bool exact = kind >= IR_FP_EQ;
    bool inputs = ra_keep(r, op->a, &o[0]) && ra_keep(r, op->b, &o[1]) && ra_keep(r, op->c, &o[2]);
    unsigned n = kind == IR_FP_SQRT || kind == IR_FP_FROM_I32 ? 1 : kind >= IR_FP_MADD && kind <= IR_FP_NMADD ? 3 : 2;
    for (unsigned i = 0; i < n; i++) {
        inputs &= o[i].place != IS_IMM;
    }
    if (!inputs || op->d == IR_NONE) {
        return false;
    }
    struct fp x = { .r = r, .f = new_fixup(r, FIX_FP), .op = op, .is_double = op->w == 64,
                    .d = ra_scratch(r), .t = ra_scratch(r) };
    memcpy(x.f->fp_arg, o, sizeof(o));
    x.f->fp_fn = (uint64_t)op->imm;
    if (!exact) {
        check_inexact_is_set(&x);
    }
    unsigned d = kind == IR_FP_FROM_I32 ? from_i32(&x, o)
                 : exact                ? compare(&x, kind, o)
                 : n == 3               ? fused(&x, kind, o)
                                        : arithmetic(&x, kind, o);
    x.f->back = r->a.at;
    x.f->dest = (uint8_t)d;
    x.f->live = ra_live_mask(r);
    ra_done(r, op->d, d);
    return true;
}

void gen_fp_stub(struct ra *r, const struct fixup *f)
{
    static const uint8_t arg_regs[] = { RSI, RDX, RCX };
    uint8_t live = f->live;
    if (f->fp_jump[0] == 0) {
        return; /* nothing gives up */
    }
    for (unsigned i = 0; i < 6 && f->fp_jump[i]; i++) {
        x_here(&r->a, f->fp_jump[i]);
    }
    for (unsigned s = 0; s < N_SCRATCH; s++) {
        if (!f->dest_xmm && scratch_regs[s] == f->dest) {
            live &= (uint8_t)~(1u << s);
        }
    }
    save_live(r, live);
    for (unsigned i = 0; i < 3; i++) {
        x_load(&r->a, 64, arg_regs[i], f->fp_arg[i]);
    }
    x_mov_imm(&r->a, RAX, f->fp_fn);
    x_call(&r->a, r->th->clean);
    r->insn = f->insn;
    gen_site(r);
    if (f->dest_xmm) {
        x_rr(&r->a, X_66 | X_0F | 0x6e | X_W, f->dest, RAX);
    } else if (f->dest != RAX) {
        x_rr(&r->a, 0x8b | X_W, f->dest, RAX);
    }
    restore_live(r, live);
    vec_reload(r, f->snapshot);
    x_jmp(&r->a, f->back);
}
