/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IEEE 754 operations in regions of the second tier.
 *
 * Inside a region with floating point MXCSR's sticky flags belong to the guest: cleared on entry, merged into the guest's field
 * where the region is left, where C code is called and where the guest looks. The host raises what IEEE 754 says, with tininess
 * after rounding; so a result is taken as it is, unless it is a NaN: its bits, and one flag of fused multiplication,
 * are the guest's own business, and the helper computes it again.
 */
#include "engine/tcg/host_x86_64/target.h"

#include "engine/base/mem.h"

enum { XMM0, XMM1, XMM2 };
enum { PP_NONE = 0, PP_66 = 1, PP_F3 = 2, PP_F2 = 3 };

struct fp {
    struct ra *r;
    struct fixup *f;
    const struct ir_op *op;
    bool is_double;
    unsigned n_jumps;
    unsigned t, d; /* scratch; the general register of the result. Taken before the first jump out of line. */
};

static void give_up(struct fp *x, unsigned cc)
{
    x->f->fp_jump[x->n_jumps++] = x_jcc(&x->r->a, cc, x->r->a.at);
}

/* The whole 64 bits in an xmm register: where the value lives, or a copy in `xmm`. */
static unsigned operand(struct fp *x, unsigned xmm, struct opnd o)
{
    if (o.place == IN_XMM) {
        return o.reg;
    }
    if (o.place == IN_MEM) {
        x_rm(&x->r->a, X_0F | X_F2 | 0x10, xmm, ENV, o.disp);
    } else if (o.place == IS_IMM && o.imm == 0) {
        x_rr(&x->r->a, X_0F | 0x57, xmm, xmm);
    } else {
        x_rr(&x->r->a, X_66 | X_0F | 0x6e | X_W, xmm, o.reg);
    }
    return xmm;
}

/* A single must have ones above it. */
static void check_box(struct fp *x, ir_ref ref, struct opnd o)
{
    struct ra *r = x->r;
    if (x->is_double ||
        (ir_kind(ref) == IR_GLOBAL && r->boxed[ir_index(ref) / 64] >> ir_index(ref) % 64 & 1)) {
        return;
    }
    if (o.place == IN_MEM) {
        x_alu_mem_imm(&r->a, 7, 0, ENV, o.disp + 4, -1);
    } else {
        x_load(&r->a, 64, x->t, o);
        x_rr(&r->a, 0xc1 | X_W, 7, x->t);
        x_8(&r->a, 32);
        x_alu_imm(&r->a, 7, 0, x->t, -1);
    }
    give_up(x, CC_NE);
}

static unsigned pp(const struct fp *x)
{
    return x->is_double ? PP_F2 : PP_F3;
}

/* xmm0 = the result, with the box of its first operand. */
static void arithmetic(struct fp *x, enum ir_fp kind, const struct opnd *o)
{
    static const uint8_t code[] = { [IR_FP_ADD] = 0x58, [IR_FP_SUB] = 0x5c, [IR_FP_MUL] = 0x59,
                                    [IR_FP_DIV] = 0x5e, [IR_FP_SQRT] = 0x51 };
    struct asm_buf *a = &x->r->a;
    check_box(x, x->op->a, o[0]);
    unsigned one = operand(x, XMM0, o[0]);
    if (kind == IR_FP_SQRT) {
        x_vex(a, 1, pp(x), 0, code[kind], XMM0, one, one);
        return;
    }
    check_box(x, x->op->b, o[1]);
    if (o[1].place == IN_MEM) {
        x_vex_m(a, 1, pp(x), 0, code[kind], XMM0, one, ENV, o[1].disp);
    } else {
        x_vex(a, 1, pp(x), 0, code[kind], XMM0, one, operand(x, XMM1, o[1]));
    }
}

/* xmm0 = +-(a * b) +- c by the 231 forms. */
static void fused(struct fp *x, enum ir_fp kind, const struct opnd *o)
{
    static const uint8_t code[] = { [IR_FP_MADD - IR_FP_MADD] = 0xb9, [IR_FP_MSUB - IR_FP_MADD] = 0xbb,
                                    [IR_FP_NMSUB - IR_FP_MADD] = 0xbd, [IR_FP_NMADD - IR_FP_MADD] = 0xbf };
    const ir_ref ref[] = { x->op->a, x->op->b, x->op->c };
    for (unsigned i = 0; i < 3; i++) {
        check_box(x, ref[i], o[i]);
    }
    unsigned one = operand(x, XMM1, o[0]), two = operand(x, XMM2, o[1]);
    unsigned three = operand(x, XMM0, o[2]);
    if (three != XMM0) {
        x_rr(&x->r->a, X_0F | 0x28, XMM0, three);
    }
    x_vex(&x->r->a, 2, PP_66, x->is_double, code[kind - IR_FP_MADD], XMM0, one, two);
}

/* Result in a general register: no flag unless an operand is a NaN. */
static void compare(struct fp *x, enum ir_fp kind, const struct opnd *o)
{
    struct asm_buf *a = &x->r->a;
    check_box(x, x->op->a, o[0]);
    check_box(x, x->op->b, o[1]);
    unsigned one = operand(x, XMM0, o[0]), two = operand(x, XMM1, o[1]);
    /* b > a and b >= a read the flags that NaN does not fake. */
    x_rr(a, X_0F | 0x2e | (x->is_double ? X_66 : 0), kind == IR_FP_EQ ? one : two,
         kind == IR_FP_EQ ? two : one);
    give_up(x, CC_P);
    unsigned cc = kind == IR_FP_EQ ? CC_E : kind == IR_FP_LT ? CC_A : CC_AE;
    x_rr(a, X_0F | 0x90u | cc | X_BYTE_RM, 0, x->d);
    x_rr(a, X_0F | 0xb6 | X_BYTE_RM, x->d, x->d);
}

static void from_i32(struct fp *x, const struct opnd *o)
{
    struct asm_buf *a = &x->r->a;
    x_rr(a, X_0F | 0x57, XMM0, XMM0); /* xorps: no false dependence */
    if (o[0].place == IN_MEM) {
        x_rm(a, X_F2 | X_0F | 0x2a, XMM0, ENV, o[0].disp);
    } else {
        unsigned from = o[0].reg;
        if (o[0].place == IN_XMM) {
            from = x->t;
            x_load(a, 64, from, o[0]);
        }
        x_rr(a, X_F2 | X_0F | 0x2a, XMM0, from);
    }
}

static bool may_be_in_gpr(const struct fp *x)
{
    return x->op->aux >> IR_FP_SHIFT == IR_FP_EQ || x->op->aux >> IR_FP_SHIFT == IR_FP_LT ||
           x->op->aux >> IR_FP_SHIFT == IR_FP_LE || !ra_in_xmm(x->r, x->op->d);
}

/* xmm0 goes where the result belongs; the slow path comes back behind this. */
static void deliver(struct fp *x, bool may_be_nan)
{
    struct ra *r = x->r;
    ir_ref d = x->op->d;
    if (may_be_nan) {
        x_rr(&r->a, X_0F | 0x2e | (x->is_double ? X_66 : 0), XMM0, XMM0);
        give_up(x, CC_P);
    }
    if (!may_be_in_gpr(x)) {
        unsigned to = (unsigned)r->xpin[ir_index(d)];
        x_rr(&r->a, X_0F | 0x28, to, XMM0);
        x->f->dest = (uint8_t)to;
        x->f->dest_xmm = true;
    } else {
        x->f->dest = (uint8_t)x->d;
        x_rr(&r->a, X_66 | X_0F | 0x7e | X_W, XMM0, x->f->dest);
    }
    x->f->back = r->a.at;
    x->f->live = ra_live_mask(r);
    if (x->f->dest_xmm) {
        ra_done_xmm(r, ir_index(d), !x->is_double);
    } else {
        ra_done(r, d, x->f->dest);
    }
}

bool gen_region_fp(struct ra *r, const struct ir_op *op)
{
    enum ir_fp kind = (enum ir_fp)(op->aux >> IR_FP_SHIFT);
    struct opnd o[3];
    if (op->d == IR_NONE || kind > IR_FP_FROM_I32) {
        return false;
    }
    bool inputs = ra_keep(r, op->a, &o[0]) && ra_keep(r, op->b, &o[1]) && ra_keep(r, op->c, &o[2]);
    unsigned n = kind == IR_FP_SQRT || kind == IR_FP_FROM_I32        ? 1
                 : kind >= IR_FP_MADD && kind <= IR_FP_NMADD ? 3
                                                             : 2;
    for (unsigned i = 0; i < n; i++) { /* zero is the constant that there is; a single would need its box */
        inputs &= o[i].place != IS_IMM || (o[i].imm == 0 && op->w == 64 && kind != IR_FP_FROM_I32);
    }
    if (!inputs) {
        return false;
    }
    struct fp x = { .r = r, .f = new_fixup(r, FIX_FP), .op = op, .is_double = op->w == 64 };
    memcpy(x.f->fp_arg, o, sizeof(o));
    x.f->fp_fn = (uint64_t)op->imm;
    if (!x.is_double || kind == IR_FP_FROM_I32) {
        x.t = ra_scratch(r);
    }
    if (may_be_in_gpr(&x)) {
        x.d = ra_in_xmm(r, op->d) ? ra_scratch(r) : ra_dest(r, op->d);
    }
    if (kind >= IR_FP_EQ && kind <= IR_FP_LE) {
        compare(&x, kind, o);
        x.f->back = r->a.at;
        x.f->dest = (uint8_t)x.d;
        x.f->live = ra_live_mask(r);
        ra_done(r, op->d, x.d);
    } else if (kind == IR_FP_FROM_I32) {
        from_i32(&x, o);
        x.is_double = true;
        deliver(&x, false);
    } else {
        if (n == 3) {
            fused(&x, kind, o);
        } else {
            arithmetic(&x, kind, o);
        }
        deliver(&x, true);
    }
    return true;
}

void gen_fp_sync(struct ra *r, uint32_t offset, unsigned size)
{
    const struct tcg_guest *g = r->v->tcg->guest;
    const struct host_data *h = r->v->tcg->host_data;
    if (!r->live_flags || offset > g->fp_flags || offset + size <= g->fp_flags) {
        return;
    }
    uint8_t busy = r->busy;
    unsigned r1 = ra_scratch(r), r2 = ra_scratch(r);
    x86_take_flags(&r->a, g, h, r1, r2);
    x86_clear_flags(&r->a, h, r1);
    r->busy = busy;
}
