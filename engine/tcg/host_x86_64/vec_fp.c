/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Floating point of vector hints on x86-64, with exact results and flags (ADR 0011). Needs AVX-512. Pure emission.
 *
 * Fast: the guest's "inexact" is set already and the result shows that nothing else happened (as fp.c does for scalars). Otherwise,
 * out of line, the operation is done again with the host's flags cleared before and read after, and these become the guest's. A
 * NaN as result, or as operand of a comparison, goes to the helper. The CPU state is written last, so that every way starts from
 * the same operands.
 */
#include "engine/tcg/host_x86_64/vec.h"

enum form { NONE, TWO, ONE, FMA, SIGN, RANGE };
enum check {
    ANY,    /* only inexact can happen */
    FINITE, /* not infinite or NaN: sums cannot underflow inexactly */
    NORMAL, /* and above the smallest normal exponent */
    NUMBER, /* exact unless NaN */
    INTEGER /* not the integer that stands for "cannot be" */
};

struct fp_op {
    uint8_t form, code, check;
    bool swap;
    uint8_t imm;
};

static const struct fp_op ops[IR_N_VEC_OPS] = {
    [IR_VEC_fadd] = { TWO, 0x58, FINITE, false, 0 },
    [IR_VEC_fsub] = { TWO, 0x5c, FINITE, false, 0 },
    [IR_VEC_frsub] = { TWO, 0x5c, FINITE, true, 0 },
    [IR_VEC_fmul] = { TWO, 0x59, NORMAL, false, 0 },
    [IR_VEC_fdiv] = { TWO, 0x5e, NORMAL, false, 0 },
    [IR_VEC_frdiv] = { TWO, 0x5e, NORMAL, true, 0 },
    [IR_VEC_fsqrt] = { ONE, 0x51, FINITE, false, 0 },
    [IR_VEC_fmin] = { RANGE, 0x50, NUMBER, false, 4 },
    [IR_VEC_fmax] = { RANGE, 0x50, NUMBER, false, 5 },
    [IR_VEC_fsgnj] = { SIGN, 0, NUMBER, false, 0xd8 },
    [IR_VEC_fsgnjn] = { SIGN, 0, NUMBER, false, 0x72 },
    [IR_VEC_fsgnjx] = { SIGN, 0, NUMBER, false, 0x78 },
    [IR_VEC_fmacc] = { FMA, 0xb8, NORMAL, false, 0 },
    [IR_VEC_fnmacc] = { FMA, 0xbe, NORMAL, false, 0 },
    [IR_VEC_fmsac] = { FMA, 0xba, NORMAL, false, 0 },
    [IR_VEC_fnmsac] = { FMA, 0xbc, NORMAL, false, 0 },
    [IR_VEC_fmadd] = { FMA, 0xa8, NORMAL, true, 0 },
    [IR_VEC_fnmadd] = { FMA, 0xae, NORMAL, true, 0 },
    [IR_VEC_fmsub] = { FMA, 0xaa, NORMAL, true, 0 },
    [IR_VEC_fnmsub] = { FMA, 0xac, NORMAL, true, 0 },
    [IR_VEC_fcvt_f_s] = { ONE, 0, ANY, false, 0 },
    [IR_VEC_fcvt_f_u] = { ONE, 0, ANY, false, 0 },
    [IR_VEC_fcvt_s_f] = { ONE, 0, INTEGER, false, 0 },
    [IR_VEC_fcvt_u_f] = { ONE, 0, INTEGER, false, 0 },
    [IR_VEC_fcvt_s_f_rtz] = { ONE, 0, INTEGER, false, 0 },
    [IR_VEC_fcvt_u_f_rtz] = { ONE, 0, INTEGER, false, 0 },
};

/* Conversions, by operation from fcvt_f_s on; singles and doubles. */
static const uint32_t convert[][2] = {
    { VX(1, 0, 0, 0x5b), VX(1, 2, 1, 0xe6) }, { VX(1, 3, 0, 0x7a), VX(1, 2, 1, 0x7a) },
    { VX(1, 1, 0, 0x5b), VX(1, 1, 1, 0x7b) }, { VX(1, 0, 0, 0x79), VX(1, 1, 1, 0x79) },
    { VX(1, 2, 0, 0x5b), VX(1, 1, 1, 0x7a) }, { VX(1, 0, 0, 0x78), VX(1, 1, 1, 0x78) },
};

static bool is_double(const struct vec *x)
{
    return x->es == 8;
}

static uint32_t packed(const struct vec *x, unsigned opcode)
{
    return is_double(x) ? VX(1, 1, 1, opcode) : VX(1, 0, 0, opcode);
}

static uint32_t integer(const struct vec *x, unsigned single, unsigned wide)
{
    return is_double(x) ? VX(1, 1, 1, wide) : VX(1, 1, 0, single);
}

/* Constants near the thunks (thunks.c), read as a broadcast element. */
static int32_t constant(const struct vec *x, enum vec_const c)
{
    return (int32_t)x->r->th->vec_consts + 16 * (int32_t)c + (is_double(x) ? 8 : 0);
}

static void op_const(struct vec *x, uint32_t code, unsigned bytes, unsigned d, unsigned s,
                     enum vec_const c, unsigned k, int imm)
{
    struct vx e = v_enc(x, code, bytes);
    e.k = k;
    e.spread = true;
    vx_rip(x->a, e, d, s, (uint32_t)constant(x, c), imm >= 0);
    if (imm >= 0) {
        x_8(x->a, (unsigned)imm);
    }
}

/* One chunk: d = op(a, b), fused ones also of d. */
static void compute(struct vec *x, unsigned bytes, unsigned d, unsigned a, unsigned b,
                    unsigned k)
{
    const struct fp_op *o = &ops[x->h->op];
    bool zero = k && o->form != FMA;
    switch (o->form) {
    case TWO:
        v_op_k(x, packed(x, o->code), bytes, d, o->swap ? b : a, o->swap ? a : b, k, zero);
        break;
    case ONE:
        v_op_k(x,
               o->code ? packed(x, o->code) : convert[x->h->op - IR_VEC_fcvt_f_s][is_double(x)],
               bytes, d, 0, a, k, zero);
        break;
    case FMA: /* the 231 form has the addend in d; the 213 form a factor: d = b * d + a */
        v_op_k(x, VX(2, 1, is_double(x), o->code), bytes, d, o->swap ? b : a, o->swap ? a : b,
               k, false);
        break;
    case RANGE:
        v_op_k(x, VX(3, 1, is_double(x), o->code), bytes, d, a, b, k, zero);
        x_8(x->a, o->imm);
        break;
    default: /* SIGN */
        v_move(x, bytes, d, a);
        op_const(x, VX(3, 1, is_double(x), 0x25), bytes, d, b, VEC_SIGN, 0, o->imm);
    }
}

static void jump_again(struct vec *x, unsigned cc)
{
    x->slow->again_jump[x->slow->n_again++] = x_jcc(x->a, cc, x->a->at);
}

static void fp_class(struct vec *x, unsigned bytes, unsigned k_to, unsigned reg, unsigned k,
                     unsigned classes)
{
    v_op_k(x, VX(3, 1, is_double(x), 0x66), bytes, k_to, 0, reg, k, false);
    x_8(x->a, classes);
}

/* Leaves where active elements of d need more than this. t is scratch. */
static void verify(struct vec *x, enum check c, unsigned bytes, unsigned d, unsigned t,
                   unsigned k)
{
    switch (c) {
    case ANY:
        return;
    case FINITE:
        fp_class(x, bytes, 3, d, k, 0x99);
        break;
    case NUMBER:
        fp_class(x, bytes, 3, d, k, 0x81);
        break;
    case NORMAL: /* twice the bits, less the bound: too large below it, and for infinite or NaN */
        v_op(x, integer(x, 0xfe, 0xd4), bytes, t, d, d);
        op_const(x, integer(x, 0xfa, 0xfb), bytes, t, t, VEC_LOW, 0, -1);
        op_const(x, VX(3, 1, is_double(x), 0x1e), bytes, 3, t, VEC_SPAN, k, 6);
        break;
    default: /* INTEGER */
        op_const(x, VX(3, 1, is_double(x), 0x1f), bytes, 3, d,
                 x->h->op == IR_VEC_fcvt_s_f || x->h->op == IR_VEC_fcvt_s_f_rtz ? VEC_SIGN
                                                                                : VEC_ONES,
                 k, 0);
    }
    vx_kortest(x->a, 3, 3);
    if (c == INTEGER || c == NUMBER) {
        v_give_up(x, CC_NE);
    } else {
        jump_again(x, CC_NE);
    }
}

/* A scalar single that is not boxed is a NaN. */
static void check_box(struct vec *x)
{
    ir_ref ref = ir_vec_arg(x->h, x->op);
    uint64_t v;
    if (x->h->sew == 3 || ir_is_const(x->r->ir, ref, &v)) {
        return; /* a constant comes boxed or not at all: v_boxed() */
    }
    struct opnd o = ra_use(x->r, ref, 64);
    if (o.place == IN_MEM) {
        x_alu_mem_imm(x->a, 7, 0, ENV, o.disp + 4, -1);
    } else {
        unsigned t = v_gp(x, 0);
        x_rr(x->a, 0x8b | X_W, t, o.reg);
        x_rr(x->a, 0xc1 | X_W, 7, t);
        x_8(x->a, 32);
        x_alu_imm(x->a, 7, 0, t, -1);
    }
    v_give_up(x, CC_NE);
}

static bool boxed(const struct vec *x)
{
    uint64_t v;
    return x->h->sew == 3 || !v_scalar_const(x, &v) || v >> 32 == 0xffffffff;
}

static void check_inexact_is_set(struct vec *x)
{
    const struct tcg_guest *g = x->r->v->tcg->guest;
    x_rm(x->a, 0xf6, 0, ENV, (int32_t)g->fp_flags); /* test byte [], imm8 */
    x_8(x->a, g->fp_inexact);
    jump_again(x, CC_E);
}

/* Jumps to the helper when an active operand is a NaN. */
static void check_ordered(struct vec *x, unsigned bytes, unsigned a, unsigned b, unsigned k)
{
    v_op_k(x, packed(x, 0xc2), bytes, 3, a, b, k, false);
    x_8(x->a, 3);
    vx_kortest(x->a, 3, 3);
    v_give_up(x, CC_NE);
}

static unsigned operand_b(struct vec *x, unsigned splat, unsigned i)
{
    return x->h->flags & IR_VEC_SCALAR ? splat : v_get(x, x->h->b + i * x->chunk, x->chunk);
}

static bool arithmetic(struct vec *x, const struct fp_op *o)
{
    const struct ir_vec *h = x->h;
    const bool scalar = h->flags & IR_VEC_SCALAR, flags = o->check != NUMBER;
    unsigned d[VEC_MAX_CHUNKS];
    (void)v_gp(x, 0);
    if (scalar && o->form != ONE) {
        check_box(x);
    }
    if (flags) {
        x->slow->again = true;
        check_inexact_is_set(x);
    }
    unsigned splat = scalar && o->form != ONE ? v_scalar(x) : 0,
             t = o->check == NORMAL ? v_new(x) : 0;
    for (unsigned i = 0; i < x->n_chunks; i++) {
        unsigned k = v_active(x, i, x->chunk);
        unsigned a = v_get(x, h->a + i * x->chunk, x->chunk),
                 b = o->form == ONE ? a : operand_b(x, splat, i);
        d[i] = o->form == FMA ? v_copy(x, h->d + i * x->chunk, x->chunk) : v_new(x);
        if (o->form == RANGE) {
            check_ordered(x, x->chunk, a, b, k);
        }
        compute(x, x->chunk, d[i], a, b, 0);
        if (o->form != SIGN && o->form != RANGE) {
            verify(x, (enum check)o->check, x->chunk, d[i], t, k);
        }
        uint32_t keep = 1u << splat | (t ? 1u << t : 0);
        for (unsigned j = 0; j <= i; j++) {
            keep |= 1u << d[j];
        }
        x->r->vs.busy = keep;
    }
    for (unsigned i = 0; i < x->n_chunks; i++) {
        v_put_active(x, d[i], h->d + i * x->chunk, x->chunk, v_active(x, i, x->chunk));
        v_done(x, d[i]);
    }
    if (x->slow->again) {
        x->slow->x = *x;
        x->slow->hint = *h;
    }
    return true;
}

/* ---- again, with the host's flags ---- */

/* The scalar operand in all elements of register reg, from where the helper's arguments are kept. */
static void splat_again(struct vec *x, struct vec_slow *s, unsigned reg, unsigned gp)
{
    unsigned i = s->hint.arg;
    if (s->is_const >> i & 1) {
        x_mov_imm(x->a, gp, s->value[i]);
    } else {
        x_load(x->a, 64, gp, s->arg[i]);
    }
    v_splat_gp(x, s->hint.sew, reg, gp);
}

static void merge_flags(struct vec *x, unsigned gp)
{
    const struct tcg_guest *g = x->r->v->tcg->guest;
    const struct {
        uint8_t host, guest;
    } map[] = { { 1, g->fp_invalid },
                { 4, g->fp_divzero },
                { 8, g->fp_overflow },
                { 16, g->fp_underflow },
                { 32, g->fp_inexact } };
    x_rm(x->a, 0x8b, gp, ENV, ENV_OFF(arg) + 8);
    for (unsigned i = 0; i < sizeof(map) / sizeof(map[0]); i++) {
        x_rr(x->a, 0xf6 | X_BYTE_RM, 0, gp);
        x_8(x->a, map[i].host);
        uint32_t skip = x_jcc(x->a, CC_E, x->a->at);
        x_rm(x->a, 0x80, 1, ENV, (int32_t)g->fp_flags); /* or byte [], imm8 */
        x_8(x->a, map[i].guest);
        x_here(x->a, skip);
    }
}

/* Everything from memory, with fixed registers: 16 and 17 operands, 18 scratch, results from 20. */
void vec_fp_again(struct ra *r, struct vec_slow *s)
{
    enum { A = 16, SPLAT, T, D = 20 };
    struct vec *x = &s->x;
    const struct ir_vec *h = x->h = &s->hint;
    const struct fp_op *o = &ops[h->op];
    x->r = r;
    x->a = &r->a;
    x->gp[0] = RAX; /* saved by the caller of this, as all scratch registers that live */
    x->gp[1] = RCX;
    x_rm(x->a, 0xc7, 0, ENV, ENV_OFF(arg) + 8);
    x_32(x->a, 0x1f80);
    x_rm(x->a, X_0F | 0xae, 2, ENV,
         ENV_OFF(arg) + 8); /* ldmxcsr: masked, nearest even, no flag */
    if (h->flags & IR_VEC_SCALAR && o->form != ONE) {
        splat_again(x, s, SPLAT, RAX);
    }
    for (unsigned i = 0; i < x->n_chunks; i++) {
        unsigned k = v_active(x, i, x->chunk);
        v_load(x, A, h->a + i * x->chunk, x->chunk);
        if (!(h->flags & IR_VEC_SCALAR) && o->form != ONE) {
            v_load(x, SPLAT, h->b + i * x->chunk, x->chunk);
        }
        if (o->form == FMA) {
            v_load(x, D + i, h->d + i * x->chunk, x->chunk);
        }
        compute(x, x->chunk, D + i, A, SPLAT, k);
        if (o->check != INTEGER && o->check != ANY) {
            fp_class(x, x->chunk, 3, D + i, k, 0x81);
            vx_kortest(x->a, 3, 3);
            v_give_up(x, CC_NE);
        } else if (o->check == INTEGER) {
            verify(x, INTEGER, x->chunk, D + i, T, k);
        }
    }
    x_rm(x->a, X_0F | 0xae, 3, ENV, ENV_OFF(arg) + 8); /* stmxcsr */
    merge_flags(x, RAX);
    for (unsigned i = 0; i < x->n_chunks; i++) {
        struct vx e = v_enc(x, is_double(x) ? VX(1, 2, 1, 0x7f) : VX(1, 2, 0, 0x7f), x->chunk);
        e.k = v_active(x, i, x->chunk);
        vx_rm(x->a, e, D + i, 0, ENV, (int32_t)(h->d + i * x->chunk));
    }
}

/* ---- comparisons ---- */

static bool compare(struct vec *x)
{
    static const uint8_t predicate[] = { 0, 4, 1, 2, 14, 13 };
    const struct ir_vec *h = x->h;
    if (x->n_chunks > 4) {
        return false;
    }
    (void)v_gp(x, 0);
    if (h->flags & IR_VEC_SCALAR) {
        check_box(x);
    }
    unsigned splat = h->flags & IR_VEC_SCALAR ? v_scalar(x) : 0;
    for (unsigned i = 0; i < x->n_chunks; i++) {
        unsigned k = v_active(x, i, x->chunk);
        unsigned a = v_get(x, h->a + i * x->chunk, x->chunk), b = operand_b(x, splat, i);
        check_ordered(x, x->chunk, a, b, k);
        v_op_k(x, packed(x, 0xc2), x->chunk, 4 + i, a, b, k, false);
        x_8(x->a, predicate[h->op - IR_VEC_fcmpeq]);
        x->r->vs.busy = 1u << splat;
    }
    for (unsigned i = 0; i < x->n_chunks; i++) {
        v_put_mask(x, 4 + i, v_active(x, i, x->chunk), i);
    }
    return true;
}

/* ---- sums in order ---- */

static bool ordered_sum(struct vec *x)
{
    const struct ir_vec *h = x->h;
    if (x->active || h->n > 64 || h->op > IR_VEC_fredusum) {
        return false;
    }
    (void)v_gp(x, 0);
    const struct tcg_guest *g = x->r->v->tcg->guest;
    x_rm(x->a, 0xf6, 0, ENV, (int32_t)g->fp_flags);
    x_8(x->a, g->fp_inexact);
    v_give_up(x, CC_E);
    unsigned acc = v_new(x);
    v_load(x, acc, h->b, x->es);
    for (unsigned i = 0; i < h->n; i++) {
        uint32_t code = is_double(x) ? VX(1, 3, 1, 0x58) : VX(1, 2, 0, 0x58);
        vx_rm(x->a, v_enc(x, code, 16), acc, acc, ENV, (int32_t)(h->a + i * x->es));
    }
    fp_class(x, 16, 3, acc, 0, 0x99);
    vx_kortest(x->a, 3, 3);
    v_give_up(x, CC_NE);
    v_store(x, acc, h->d, x->es);
    v_wrote(x, h->d, x->es);
    return true;
}

bool vec_fp(struct vec *x)
{
    const struct ir_vec *h = x->h;
    const struct fp_op *o = &ops[h->op];
    if (!x->evex || h->sew < 2 || x->chunk < 16 || x->n_chunks > VEC_MAX_CHUNKS || !boxed(x)) {
        return false;
    }
    if (h->op >= IR_VEC_fredosum && h->op <= IR_VEC_fredmax) {
        return ordered_sum(x);
    }
    if (h->op >= IR_VEC_fcmpeq && h->op <= IR_VEC_fcmpge) {
        return compare(x);
    }
    return o->form != NONE && arithmetic(x, o);
}

/* ---- single to double and back ---- */

static void load_double(struct vec *x, unsigned reg, uint32_t off, unsigned bytes, unsigned op)
{
    const uint32_t code = op == IR_VEC_fwcvt_f_s   ? VX(1, 2, 0, 0xe6)
                          : op == IR_VEC_fwcvt_f_u ? VX(1, 2, 0, 0x7a)
                                                   : VX(1, 0, 0, 0x5a);
    vx_rm(x->a, v_enc(x, code, bytes), reg, 0, ENV, (int32_t)off);
}

/* d = d OP b; multiply-adds are of the product and the wide operand at off. */
static void combine_doubles(struct vec *x, unsigned bytes, unsigned d, unsigned b, uint32_t off)
{
    static const uint8_t fma[] = { 0xa8, 0xae, 0xaa,
                                   0xac }; /* 213: d = +-(b * d) +- the third */
    unsigned op = x->h->op;
    if (op <= IR_VEC_fwmul) {
        v_op(x,
             VX(1, 1, 1,
                op == IR_VEC_fwadd   ? 0x58
                : op == IR_VEC_fwsub ? 0x5c
                                     : 0x59),
             bytes, d, d, b);
        return;
    }
    unsigned c = v_get(x, off, bytes);
    v_op(x, VX(2, 1, 1, fma[op - IR_VEC_fwmacc]), bytes, d, b, c);
    v_done(x, c);
}

/* To the helper unless nothing but "inexact" can have happened: of a product or a conversion, which are exact, only NaN. */
static void check_doubles(struct vec *x, unsigned bytes, unsigned d, unsigned t, unsigned k)
{
    unsigned op = x->h->op;
    if (op > IR_VEC_fwmul) {
        v_op(x, integer(x, 0xfe, 0xd4), bytes, t, d, d);
        op_const(x, integer(x, 0xfa, 0xfb), bytes, t, t, VEC_LOW, 0, -1);
        op_const(x, VX(3, 1, 1, 0x1e), bytes, 3, t, VEC_SPAN, k, 6);
    } else {
        fp_class(x, bytes, 3, d, k, op == IR_VEC_fwadd || op == IR_VEC_fwsub ? 0x99 : 0x81);
    }
    vx_kortest(x->a, 3, 3);
    v_give_up(x, CC_NE);
}

/* fwcvt, and products of singles as doubles, which are exact: only a NaN needs more. */
bool vec_fp_widen(struct vec *x)
{
    const struct ir_vec *h = x->h;
    unsigned total = 2 * x->total, bytes = total < 64 ? total : 64, n = total / bytes,
             d[VEC_MAX_CHUNKS];
    bool product = h->op >= IR_VEC_fwadd, inexact = product && h->op != IR_VEC_fwmul;
    if (!x->evex || h->sew != 2 || bytes < 16 || n > VEC_MAX_CHUNKS || !boxed(x)) {
        return false;
    }
    (void)v_gp(x, 0);
    if (inexact) {
        const struct tcg_guest *g = x->r->v->tcg->guest;
        x_rm(x->a, 0xf6, 0, ENV, (int32_t)g->fp_flags);
        x_8(x->a, g->fp_inexact);
        v_give_up(x, CC_E);
    }
    bool scalar = product && h->flags & IR_VEC_SCALAR;
    if (scalar) {
        check_box(x);
    }
    unsigned b = 0;
    if (scalar) {
        b = v_scalar(x);
        v_op(x, VX(1, 0, 0, 0x5a), 64, b, 0, b);
    } else if (product) {
        b = v_new(x);
    }
    x->es = 8;
    unsigned t = v_new(x);
    for (unsigned i = 0; i < n; i++) {
        unsigned k = v_active(x, i, bytes);
        d[i] = v_new(x);
        load_double(x, d[i], h->a + i * bytes / 2, bytes, h->op);
        if (product && !scalar) {
            load_double(x, b, h->b + i * bytes / 2, bytes, h->op);
        }
        if (product) {
            combine_doubles(x, bytes, d[i], b, h->d + i * bytes);
        }
        if (product || h->op == IR_VEC_fwcvt_f_f) {
            check_doubles(x, bytes, d[i], t, k);
        }
    }
    for (unsigned i = 0; i < n; i++) {
        v_put_active(x, d[i], h->d + i * bytes, bytes, v_active(x, i, bytes));
        v_done(x, d[i]);
    }
    return true;
}

bool vec_fp_narrow(struct vec *x)
{
    const struct ir_vec *h = x->h;
    unsigned total = 2 * x->total, bytes = total < 64 ? total : 64, n = total / bytes,
             d[VEC_MAX_CHUNKS];
    const struct tcg_guest *g = x->r->v->tcg->guest;
    if (!x->evex || h->sew != 2 || bytes < 32 || n > VEC_MAX_CHUNKS) {
        return false;
    }
    (void)v_gp(x, 0);
    x_rm(x->a, 0xf6, 0, ENV, (int32_t)g->fp_flags);
    x_8(x->a, g->fp_inexact);
    v_give_up(x, CC_E);
    unsigned t = v_new(x);
    for (unsigned i = 0; i < n; i++) {
        unsigned k = v_active(x, i, bytes / 2), a = v_get(x, h->a + i * bytes, bytes);
        d[i] = v_new(x);
        v_op(x, VX(1, 1, 1, 0x5a), bytes, d[i], 0, a);
        v_done(x, a);
        v_op(x, integer(x, 0xfe, 0xd4), bytes / 2, t, d[i], d[i]);
        op_const(x, integer(x, 0xfa, 0xfb), bytes / 2, t, t, VEC_LOW, 0, -1);
        op_const(x, VX(3, 1, 0, 0x1e), bytes / 2, 3, t, VEC_SPAN, k, 6);
        vx_kortest(x->a, 3, 3);
        v_give_up(x, CC_NE);
    }
    for (unsigned i = 0; i < n; i++) {
        v_put_active(x, d[i], h->d + i * bytes / 2, bytes / 2, v_active(x, i, bytes / 2));
        v_done(x, d[i]);
    }
    return true;
}
