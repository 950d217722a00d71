/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IEEE 754 operations inline on x86-64, exactly and with exact flags. Whatever is not clear takes the guest's helper out of line, from
 * the same operands.
 *
 * In the first tier MXCSR holds nothing: the host computes in its default mode (nearest even, no flush to zero) and its flags are
 * ignored. A result is taken only where no guest flag can change: "inexact" is sticky and set already, and the result's
 * exponent shows that nothing else happened: not infinite or NaN, and, where an operation can underflow, above the smallest
 * normal exponent. Sums and square roots cannot underflow inexactly, so zero and tiny results are fine there.
 *
 * Inside a region with floating point MXCSR's sticky flags belong to the guest: cleared on entry, merged into the guest's field
 * where the region is left, where C code is called and where the guest looks. The host raises what IEEE 754 says, with tininess
 * after rounding; so a result is taken as it is, unless it is a NaN: its bits, and one flag of fused multiplication,
 * are the guest's own business.
 *
 * Values: in a region a global has an xmm register of its own (ra.xpin); in the first tier xmm registers cache globals that
 * live in memory (ra.x_reg), written through.
 */
#include "engine/tcg/host_x86_64/target.h"

enum { XMM0, XMM1, XMM2 };
enum { PP_NONE = 0, PP_66 = 1, PP_F3 = 2, PP_F2 = 3 };

enum { TO_INT = 1 /* the result is an integer */, FROM_INT = 2, ROUNDS = 4, TINY = 8 /* may underflow */,
       NO_NAN = 16 /* no NaN comes of it, or the operation looks itself */ };
static const struct shape {
    uint8_t n, flags;
} shapes[IR_SC] = {
    [IR_FP_ADD] = { 2, ROUNDS },
    [IR_FP_SUB] = { 2, ROUNDS },
    [IR_FP_MUL] = { 2, ROUNDS | TINY },
    [IR_FP_DIV] = { 2, ROUNDS | TINY },
    [IR_FP_SQRT] = { 1, ROUNDS },
    [IR_FP_MADD] = { 3, ROUNDS | TINY },
    [IR_FP_MSUB] = { 3, ROUNDS | TINY },
    [IR_FP_NMSUB] = { 3, ROUNDS | TINY },
    [IR_FP_NMADD] = { 3, ROUNDS | TINY },
    [IR_FP_EQ] = { 2, TO_INT | NO_NAN },
    [IR_FP_LT] = { 2, TO_INT | NO_NAN },
    [IR_FP_LE] = { 2, TO_INT | NO_NAN },
    [IR_FP_MIN] = { 2, NO_NAN },
    [IR_FP_MAX] = { 2, NO_NAN },
    [IR_FP_COPY] = { 1, NO_NAN },
    [IR_FP_NEG] = { 1, NO_NAN },
    [IR_FP_ABS] = { 1, NO_NAN },
    [IR_FP_TRUNC_I32] = { 1, TO_INT | ROUNDS | NO_NAN },
    [IR_FP_TRUNC_I64] = { 1, TO_INT | ROUNDS | NO_NAN },
    [IR_FP_RINT_I32] = { 1, TO_INT | ROUNDS | NO_NAN },
    [IR_FP_RINT_I64] = { 1, TO_INT | ROUNDS | NO_NAN },
    [IR_FP_FROM_I32] = { 1, FROM_INT | NO_NAN },
    [IR_FP_FROM_U32] = { 1, FROM_INT | NO_NAN },
    [IR_FP_FROM_I64] = { 1, FROM_INT | ROUNDS | NO_NAN },
    [IR_FP_FROM_U64] = { 1, FROM_INT | ROUNDS | NO_NAN },
    [IR_FP_WIDEN] = { 1, 0 },
    [IR_FP_NARROW] = { 1, ROUNDS | TINY },
};

struct fp {
    struct ra *r;
    struct fixup *f;
    const struct ir_op *op;
    enum ir_fp kind;
    struct shape s;
    bool live, from_double, to_double; /* MXCSR is the guest's; formats of operands and result */
    unsigned n_jumps;
    struct opnd o[3];
    unsigned x[3]; /* xmm registers of the operands */
    unsigned t, d; /* scratch; general register of the result. Taken before the first jump out of line. */
    int to;        /* xmm register of the result, or -1 */
    unsigned in;   /* xmm register where it is computed */
};

bool x86_fp_inline(const struct ir_op *op)
{
    unsigned kind = op->aux >> IR_FP_SHIFT;
    return op->op == IR_call && kind < IR_SC && shapes[kind].n;
}

bool x86_fp_operand(const struct ir_op *op, unsigned which)
{
    if (!x86_fp_inline(op)) {
        return false;
    }
    struct shape s = shapes[op->aux >> IR_FP_SHIFT];
    return which == 0 ? !(s.flags & TO_INT) : !(s.flags & FROM_INT) && which <= s.n;
}

static void give_up(struct fp *x, unsigned cc)
{
    x->f->fp_jump[x->n_jumps++] = x_jcc(&x->r->a, cc, x->r->a.at);
}

/* The whole 64 bits of operand i in an xmm register: where the value lives, or a copy in `xmm`. */
static unsigned fetch(struct fp *x, ir_ref ref, struct opnd o, unsigned xmm)
{
    struct ra *r = x->r;
    if (o.place == IN_XMM) {
        return o.reg;
    }
    if (o.place == IN_MEM) {
        if (r->x_on && ir_kind(ref) == IR_GLOBAL) {
            return ra_x_use(r, ir_index(ref));
        }
        x_rm(&r->a, X_0F | X_F2 | 0x10, xmm, ENV, o.disp);
    } else if (o.place == IS_CONST && r->ir->consts[o.imm] == 0) {
        x_rr(&r->a, X_0F | 0x57, xmm, xmm);
    } else if (o.place == IS_CONST) {
        x_mov_imm(&r->a, x->t, r->ir->consts[o.imm]);
        x_rr(&r->a, X_66 | X_0F | 0x6e | X_W, xmm, x->t);
    } else {
        x_rr(&r->a, X_66 | X_0F | 0x6e | X_W, xmm, o.reg);
    }
    return xmm;
}

static bool is_boxed(const struct ra *r, ir_ref ref)
{
    if (ir_kind(ref) == IR_CONST) {
        return r->ir->consts[ir_index(ref)] >= 0xffffffff00000000u;
    }
    return ir_kind(ref) == IR_GLOBAL && r->boxed[ir_index(ref) / 64] >> ir_index(ref) % 64 & 1;
}

/* A single must have ones above it. */
static void check_box(struct fp *x, ir_ref ref, unsigned i)
{
    struct asm_buf *a = &x->r->a;
    if (is_boxed(x->r, ref)) {
        return;
    }
    if (x->o[i].place == IN_MEM) {
        x_alu_mem_imm(a, 7, 0, ENV, x->o[i].disp + 4, -1);
    } else {
        x_vex(a, 3, PP_66, 0, 0x16, x->x[i], 0, x->t); /* vpextrd */
        x_8(a, 1);
        x_alu_imm(a, 7, 0, x->t, -1);
    }
    give_up(x, CC_NE);
}

static void check_mode(struct fp *x)
{
    const struct tcg_guest *g = x->r->v->tcg->guest;
    if (x->op->mo) {
        x_rm(&x->r->a, 0x80, 7, ENV, (int32_t)g->fp_round); /* cmp byte [], 0 */
        x_8(&x->r->a, 0);
        give_up(x, CC_NE);
    }
    if (!x->live && x->s.flags & ROUNDS) {
        x_rm(&x->r->a, 0xf6, 0, ENV, (int32_t)g->fp_flags); /* test byte [], imm8 */
        x_8(&x->r->a, g->fp_inexact);
        give_up(x, CC_E);
    }
}

static unsigned pp(const struct fp *x)
{
    return x->from_double ? PP_F2 : PP_F3;
}

/* A two- or one-operand instruction keeps the first operand's box. */
static void arithmetic(struct fp *x)
{
    static const uint8_t code[] = { [IR_FP_ADD] = 0x58, [IR_FP_SUB] = 0x5c, [IR_FP_MUL] = 0x59,
                                    [IR_FP_DIV] = 0x5e, [IR_FP_SQRT] = 0x51 };
    x_vex(&x->r->a, 1, pp(x), 0, code[x->kind], x->in, x->x[0], x->x[x->kind == IR_FP_SQRT ? 0 : 1]);
}

/* +-(a * b) +- c by the 231 form (c is overwritten) or the 213 form (a or b is). */
static void fused(struct fp *x)
{
    static const uint8_t code[] = { [IR_FP_MADD - IR_FP_MADD] = 0xb9, [IR_FP_MSUB - IR_FP_MADD] = 0xbb,
                                    [IR_FP_NMSUB - IR_FP_MADD] = 0xbd, [IR_FP_NMADD - IR_FP_MADD] = 0xbf };
    struct asm_buf *a = &x->r->a;
    unsigned op = code[x->kind - IR_FP_MADD];
    if (x->in != x->x[2] && (x->in == x->x[0] || x->in == x->x[1])) {
        x_vex(a, 2, PP_66, x->from_double, op - 0x10, x->in, x->x[x->in == x->x[0] ? 1 : 0], x->x[2]);
        return;
    }
    if (x->in != x->x[2]) {
        x_rr(a, X_0F | 0x28, x->in, x->x[2]);
    }
    x_vex(a, 2, PP_66, x->from_double, op, x->in, x->x[0], x->x[1]);
}

static void compare_flags(struct fp *x, unsigned one, unsigned two)
{
    x_rr(&x->r->a, X_0F | 0x2e | (x->from_double ? X_66 : 0), one, two); /* ucomis: no flag but for a signalling NaN */
    give_up(x, CC_P);
}

static void compare(struct fp *x)
{
    struct asm_buf *a = &x->r->a;
    bool eq = x->kind == IR_FP_EQ;
    compare_flags(x, x->x[eq ? 0 : 1], x->x[eq ? 1 : 0]); /* b > a and b >= a read the flags that NaN does not fake */
    x_rr(a, X_0F | 0x90u | (eq ? CC_E : x->kind == IR_FP_LT ? CC_A : CC_AE) | X_BYTE_RM, 0, x->d);
    x_rr(a, X_0F | 0xb6 | X_BYTE_RM, x->d, x->d);
}

/* The host's gives the second operand where both are equal: joined in both orders they are right for zeroes. */
static void choose(struct fp *x)
{
    struct asm_buf *a = &x->r->a;
    bool min = x->kind == IR_FP_MIN;
    compare_flags(x, x->x[0], x->x[1]);
    x_vex(a, 1, pp(x), 0, min ? 0x5d : 0x5f, XMM2, x->x[0], x->x[1]);
    x_vex(a, 1, pp(x), 0, min ? 0x5d : 0x5f, XMM1, x->x[1], x->x[0]);
    x_vex(a, 1, PP_NONE, 0, min ? 0x56 : 0x54, x->in, XMM2, XMM1);
}

static void mask_to(struct ra *r, unsigned xmm, unsigned t, uint64_t mask)
{
    x_mov_imm(&r->a, t, mask);
    x_rr(&r->a, X_66 | X_0F | 0x6e | X_W, xmm, t);
}

static void sign(struct fp *x)
{
    struct asm_buf *a = &x->r->a;
    if (x->kind == IR_FP_COPY) {
        if (x->in != x->x[0]) {
            x_rr(a, X_0F | 0x28, x->in, x->x[0]);
        }
        return;
    }
    mask_to(x->r, XMM1, x->t, x->from_double ? 1ull << 63 : 1ull << 31);
    x_vex(a, 1, PP_NONE, 0, x->kind == IR_FP_NEG ? 0x57 : 0x55, x->in, XMM1, x->x[0]);
}

/* The host's result for what does not fit is its smallest integer. */
static void to_int(struct fp *x)
{
    struct asm_buf *a = &x->r->a;
    bool wide = x->kind == IR_FP_TRUNC_I64 || x->kind == IR_FP_RINT_I64;
    bool trunc = x->kind == IR_FP_TRUNC_I32 || x->kind == IR_FP_TRUNC_I64;
    x_rr(a, (x->from_double ? X_F2 : X_F3) | X_0F | (trunc ? 0x2c : 0x2d) | (wide ? X_W : 0), x->t, x->x[0]);
    x_alu_imm(a, 7, wide ? X_W : 0, x->t, 1);
    give_up(x, CC_O);
    x_rr(a, (wide ? 0x8b : 0x63) | X_W, x->d, x->t);
}

static void from_int(struct fp *x)
{
    struct asm_buf *a = &x->r->a;
    unsigned wide = x->kind == IR_FP_FROM_I32 ? 0 : X_W;
    unsigned cvt = (x->to_double ? X_F2 : X_F3) | X_0F | 0x2a | wide;
    bool direct = (x->kind == IR_FP_FROM_I32 || x->kind == IR_FP_FROM_I64) && x->o[0].place == IN_REG;
    unsigned from = direct ? x->o[0].reg : x->t;
    if (!direct) {
        x_load(a, wide && x->kind != IR_FP_FROM_U32 ? 64 : 32, from, x->o[0]);
    }
    if (x->kind == IR_FP_FROM_U64) {
        x_rr(a, 0x85 | X_W, from, from);
        give_up(x, CC_S);
    }
    x_rr(a, x->to_double ? X_0F | 0x57 : X_66 | X_0F | 0x76, x->in, x->in); /* no false dependence; or the box */
    x_rr(a, cvt, x->in, from);
}

static void resize(struct fp *x)
{
    struct asm_buf *a = &x->r->a;
    unsigned above = x->x[0];
    if (!x->to_double) {
        above = XMM1;
        x_rr(a, X_66 | X_0F | 0x76, above, above);
    }
    x_vex(a, 1, pp(x), 0, 0x5a, x->in, above, x->x[0]);
}

/* Gives up unless the exponent is in [low, largest finite]. */
static void check_window(struct fp *x)
{
    struct asm_buf *a = &x->r->a;
    unsigned wide = x->to_double ? X_W : 0, low = x->s.flags & TINY ? 2 : 0;
    x_rr(a, X_66 | X_0F | 0x7e | wide, x->in, x->t);
    x_rr(a, 0x03 | wide, x->t, x->t); /* the sign goes */
    x_rr(a, 0xc1 | wide, 5, x->t);
    x_8(a, x->to_double ? 53 : 24);
    if (low) {
        x_alu_imm(a, 5, 0, x->t, (int32_t)low);
    }
    x_alu_imm(a, 7, 0, x->t, (int32_t)((x->to_double ? 2046u : 254u) - low));
    give_up(x, CC_A);
}

static void compute(struct fp *x)
{
    if (x->s.flags & FROM_INT) {
        from_int(x);
    } else if (x->kind <= IR_FP_SQRT) {
        arithmetic(x);
    } else if (x->kind <= IR_FP_NMADD) {
        fused(x);
    } else if (x->kind <= IR_FP_LE) {
        compare(x);
    } else if (x->kind <= IR_FP_MAX) {
        choose(x);
    } else if (x->kind <= IR_FP_ABS) {
        sign(x);
    } else if (x->s.flags & TO_INT) {
        to_int(x);
    } else {
        resize(x);
    }
    if (x->s.flags & NO_NAN) {
        return;
    }
    if (x->live || !(x->s.flags & ROUNDS)) {
        x_rr(&x->r->a, X_0F | 0x2e | (x->to_double ? X_66 : 0), x->in, x->in);
        give_up(x, CC_P);
    } else {
        check_window(x);
    }
}

/* Where the result goes. The helper still needs operands that live in xmm registers only. */
static void place_result(struct fp *x)
{
    struct ra *r = x->r;
    ir_ref d = x->op->d;
    x->to = -1;
    x->in = XMM0;
    if (x->s.flags & TO_INT) {
        return;
    }
    if (ra_in_xmm(r, d)) {
        x->to = r->xpin[ir_index(d)];
    } else if (r->x_on && ir_kind(d) == IR_GLOBAL && r->pin[ir_index(d)] < 0) {
        x->to = (int)ra_x_dest(r, ir_index(d));
    }
    if (x->to < 0) {
        return;
    }
    bool needed = false;
    for (unsigned i = 0; i < 3; i++) {
        needed |= x->o[i].place == IN_XMM && x->o[i].reg == x->to;
    }
    x->in = needed ? XMM0 : (unsigned)x->to;
}

/* The result goes where it belongs; the helper's way comes back behind this. */
static void deliver(struct fp *x)
{
    struct ra *r = x->r;
    struct fixup *f = x->f;
    ir_ref d = x->op->d;
    if (x->to >= 0) {
        if (x->in != (unsigned)x->to) {
            x_rr(&r->a, X_0F | 0x28, (unsigned)x->to, x->in);
        }
        f->dest = (uint8_t)x->to;
        f->dest_xmm = true;
    } else {
        if (!(x->s.flags & TO_INT)) {
            x_rr(&r->a, X_66 | X_0F | 0x7e | X_W, x->in, x->d);
        }
        f->dest = (uint8_t)x->d;
    }
    f->back = r->a.at;
    f->live = ra_live_mask(r);
    f->keep_x = ra_x_live(r);
    if (x->to >= 0) {
        ra_done_xmm(r, ir_index(d), !x->to_double);
    } else {
        ra_done(r, d, x->d);
    }
}

static bool start(struct fp *x)
{
    struct ra *r = x->r;
    const ir_ref ref[] = { x->op->a, x->op->b, x->op->c };
    x->from_double = x->kind == IR_FP_NARROW || (x->kind != IR_FP_WIDEN && x->op->w == 64);
    x->to_double = x->op->w == 64;
    for (unsigned i = 0; i < 3; i++) {
        if (ref[i] != IR_NONE && ir_kind(ref[i]) == IR_CONST) {
            x->o[i] = (struct opnd){ .place = IS_CONST, .imm = (int32_t)ir_index(ref[i]) };
        } else if (!ra_keep(r, ref[i], &x->o[i])) {
            return false;
        }
        if (i < x->s.n && x->o[i].place == IS_CONST && (x->s.flags & FROM_INT || (!x->from_double && !is_boxed(r, ref[i])))) {
            return false;
        }
    }
    return true;
}

bool gen_fp(struct ra *r, const struct ir_op *op)
{
    struct fp x = { .r = r, .op = op, .kind = (enum ir_fp)(op->aux >> IR_FP_SHIFT), .live = r->live_flags };
    if (op->d == IR_NONE || !x86_fp_inline(op)) {
        return false;
    }
    const ir_ref ref[] = { op->a, op->b, op->c };
    x.s = shapes[x.kind];
    if ((x.kind == IR_FP_FROM_I32 || x.kind == IR_FP_FROM_U32) && op->w == 32) {
        x.s.flags |= ROUNDS;
    }
    if (!start(&x)) {
        return false;
    }
    x.f = new_fixup(r, FIX_FP);
    memcpy(x.f->fp_arg, x.o, sizeof(x.o));
    x.f->fp_fn = (uint64_t)op->imm;
    x.t = ra_scratch(r);
    for (unsigned i = 0; i < x.s.n && !(x.s.flags & FROM_INT); i++) {
        x.x[i] = fetch(&x, ref[i], x.o[i], XMM0 + i);
    }
    place_result(&x);
    if (x.to < 0) {
        x.d = ra_in_xmm(r, op->d) ? ra_scratch(r) : ra_dest(r, op->d);
    }
    check_mode(&x);
    for (unsigned i = 0; i < x.s.n && !x.from_double && !(x.s.flags & FROM_INT); i++) {
        check_box(&x, ref[i], i);
    }
    compute(&x);
    deliver(&x);
    return true;
}

/* Does this value live, or shall it, in an xmm register? */
static bool is_float(const struct ra *r, ir_ref ref)
{
    return ref != IR_NONE && ir_kind(ref) == IR_GLOBAL &&
           (ra_in_xmm(r, ref) || (r->x_on && r->is_fp[ir_index(ref)]));
}

static unsigned float_reg(struct ra *r, ir_ref ref)
{
    return ra_in_xmm(r, ref) ? (unsigned)r->xpin[ir_index(ref)] : ra_x_use(r, ir_index(ref));
}

bool gen_xmm_logic(struct ra *r, const struct ir_op *op)
{
    static const uint8_t code[IR_N_OPS] = { [IR_and] = 0x54, [IR_andc] = 0x55, [IR_or] = 0x56, [IR_xor] = 0x57 };
    bool move = op->op == IR_mov;
    uint64_t mask;
    if (op->w != 64 || (!move && !code[op->op]) || !is_float(r, op->d)) {
        return false;
    }
    if (move && ir_is_const(r->ir, op->a, &mask)) {
        unsigned t = ra_scratch(r), g = ir_index(op->d);
        mask_to(r, ra_in_xmm(r, op->d) ? (unsigned)r->xpin[g] : ra_x_dest(r, g), t, mask);
        ra_done_xmm(r, g, mask >> 32 == UINT32_MAX);
        return true;
    }
    if (!is_float(r, op->a)) {
        return false;
    }
    unsigned one = float_reg(r, op->a), two = 0;
    if (!move && ir_is_const(r->ir, op->b, &mask)) {
        mask_to(r, XMM1, ra_scratch(r), mask);
        two = XMM1;
    } else if (!move) {
        if (!is_float(r, op->b)) {
            return false;
        }
        two = float_reg(r, op->b);
    }
    unsigned n = ir_index(op->d), to = ra_in_xmm(r, op->d) ? (unsigned)r->xpin[n] : ra_x_dest(r, n);
    if (move) {
        x_rr(&r->a, X_0F | 0x28, to, one);
    } else { /* vandnps: not the first, and the second */
        x_vex(&r->a, 1, PP_NONE, 0, code[op->op], to, two, one);
    }
    ra_done_xmm(r, n, move && is_boxed(r, op->a));
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
        if (f->fp_arg[i].place == IS_CONST) {
            x_mov_imm(&r->a, arg_regs[i], r->ir->consts[f->fp_arg[i].imm]);
        } else {
            x_load(&r->a, 64, arg_regs[i], f->fp_arg[i]);
        }
    }
    x_mov_imm(&r->a, RAX, f->fp_fn);
    x_call(&r->a, f->keep_x ? r->th->clean_x : r->th->clean);
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

static bool holds_flags(const struct ra *r, uint32_t offset, unsigned size)
{
    uint32_t flags = r->v->tcg->guest->fp_flags;
    return r->live_flags && offset <= flags && offset + size > flags;
}

/* What stays in MXCSR and is merged again later does not matter. */
void gen_fp_read(struct ra *r, uint32_t offset, unsigned size)
{
    if (holds_flags(r, offset, size)) {
        uint8_t busy = r->busy;
        unsigned r1 = ra_scratch(r), r2 = ra_scratch(r);
        x86_take_flags(&r->a, r->v->tcg->guest, r->v->tcg->host_data, r1, r2);
        r->busy = busy;
    }
}

/* MXCSR is cleared only if it has flags that the new ones lack, because that is slow and programs mostly write what they read. */
void gen_fp_write(struct ra *r, uint32_t offset, unsigned size, struct opnd value)
{
    const struct host_data *h = r->v->tcg->host_data;
    struct asm_buf *a = &r->a;
    if (!holds_flags(r, offset, size)) {
        return;
    }
    uint8_t busy = r->busy;
    unsigned r1 = ra_scratch(r), r2 = ra_scratch(r);
    if (size != 1) {
        x86_take_flags(a, r->v->tcg->guest, h, r1, r2);
        x86_clear_flags(a, h, r1);
        r->busy = busy;
        return;
    }
    x_rm(a, X_0F | 0xae, 3, ENV, ENV_OFF(mxcsr)); /* stmxcsr */
    x_rm(a, 0x8b, r1, ENV, ENV_OFF(mxcsr));
    x_alu_imm(a, 4, 0, r1, 0x3f);
    x_mov_imm(a, r2, (uint64_t)(uintptr_t)h->flags_of);
    x_rmx(a, X_0F | 0xb6, r1, r1, r2, 0, 0);
    x_load(a, 32, r2, value);
    x_rr(a, 0xf7, 2, r2); /* not */
    x_rr(a, 0x85, r1, r2);
    uint32_t same = x_jcc(a, CC_E, a->at);
    x86_clear_flags(a, h, r1);
    x_here(a, same);
    r->busy = busy;
}
