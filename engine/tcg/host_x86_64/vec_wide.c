/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector hints on x86-64 whose result is wider or narrower than an operand, reductions, and logic of masks. Pure
 * emission.
 */
#include "engine/tcg/host_x86_64/vec.h"

#define B(op) VX(1, 1, 0, op)
#define Q(op) VX(1, 1, 1, op)
#define B38(op) VX(2, 1, 0, op)
#define Q38(op) VX(2, 1, 1, op)

/* vpmovzx to twice the width, by the narrow size; vpmovsx is 0x10 below. */
static const uint8_t zero_extend[] = { 0x30, 0x33, 0x35 };

enum combine { ADD, SUB, MUL, MUL_ADD, SHIFT };
struct wide {
    uint8_t how;
    bool sign_a, sign_b, wide_a;
};
static const struct wide wide[IR_N_VEC_OPS] = {
    [IR_VEC_wadds] = { ADD, true, true, false },
    [IR_VEC_waddu] = { ADD, false, false, false },
    [IR_VEC_wsubs] = { SUB, true, true, false },
    [IR_VEC_wsubu] = { SUB, false, false, false },
    [IR_VEC_wadds_w] = { ADD, true, true, true },
    [IR_VEC_waddu_w] = { ADD, false, false, true },
    [IR_VEC_wsubs_w] = { SUB, true, true, true },
    [IR_VEC_wsubu_w] = { SUB, false, false, true },
    [IR_VEC_wmuls] = { MUL, true, true, false },
    [IR_VEC_wmulu] = { MUL, false, false, false },
    [IR_VEC_wmulsu] = { MUL, true, false, false },
    [IR_VEC_wmaccs] = { MUL_ADD, true, true, false },
    [IR_VEC_wmaccu] = { MUL_ADD, false, false, false },
    [IR_VEC_wmaccsu] = { MUL_ADD, false, true, false },
    [IR_VEC_wmaccus] = { MUL_ADD, true, false, false },
    [IR_VEC_wshl] = { SHIFT, false, false, false },
};

/* A chunk of `bytes` wide bytes, extended from half as many at off. */
static void load_extended(struct vec *x, unsigned reg, uint32_t off, unsigned bytes, bool sign)
{
    uint32_t code = B38(zero_extend[x->h->sew] - (sign ? 0x10u : 0));
    vx_rm(x->a, v_enc(x, code, bytes), reg, 0, ENV, (int32_t)off);
}

/* The scalar, extended, in all wide elements. */
static unsigned scalar_extended(struct vec *x, bool sign)
{
    static const unsigned zext[] = { X_0F | 0xb6 | X_BYTE_RM, X_0F | 0xb7, 0x8b };
    static const unsigned sext[] = { X_0F | 0xbe | X_W, X_0F | 0xbf | X_W, 0x63 | X_W };
    struct opnd o;
    ir_ref ref = ir_vec_arg(x->h, x->op);
    unsigned gp = v_gp(x, 0), reg = v_new(x);
    uint64_t v;
    if (ir_is_const(x->r->ir, ref, &v)) {
        x_mov_imm(x->a, gp, v);
        o = (struct opnd){ .place = IN_REG, .reg = (uint8_t)gp };
    } else {
        o = ra_use(x->r, ref, 64);
    }
    if (o.place == IN_MEM) {
        x_rm(x->a, (sign ? sext : zext)[x->h->sew] & ~X_BYTE_RM, gp, ENV, o.disp);
    } else {
        x_rr(x->a, (sign ? sext : zext)[x->h->sew] | (x->h->sew == 0 ? X_BYTE_RM : 0), gp,
             o.reg);
    }
    v_splat_gp(x, x->h->sew + 1, reg, gp);
    return reg;
}

static uint32_t wide_multiply(const struct vec *x, const struct wide *w)
{
    if (x->h->sew < 2) {
        return v_simple(IR_VEC_mul, x->h->sew + 1);
    }
    if (w->sign_a != w->sign_b) {
        return x->evex ? Q38(0x40) : 0; /* vpmullq */
    }
    return (w->sign_a ? B38(0x28) : B(0xf4)) | (x->evex ? VX_W : 0);
}

static void shift_wide(struct vec *x, bool left, bool sign, unsigned bytes, unsigned d,
                       unsigned a, unsigned count)
{
    static const uint32_t code[3][3] = { { Q38(0x12), B38(0x47), Q38(0x47) },
                                         { Q38(0x10), B38(0x45), Q38(0x45) },
                                         { Q38(0x11), B38(0x46), Q38(0x46) } };
    v_op(x, code[left ? 0 : sign ? 2 : 1][x->h->sew], bytes, d, a, count);
}

/* Shift counts, splat to wide elements and cut to their width. */
static unsigned wide_count(struct vec *x, unsigned mask)
{
    unsigned reg = scalar_extended(x, false);
    v_op(x, B(0xdb), x->evex ? 64 : 32, reg, reg, mask);
    return reg;
}

static unsigned count_mask(struct vec *x)
{
    static const uint64_t ones[] = { 0x0001000100010001, 0x0000000100000001, 1 };
    return v_const(x, ((16u << x->h->sew) - 1) * ones[x->h->sew]);
}

static bool widen(struct vec *x)
{
    const struct ir_vec *h = x->h;
    const struct wide *w = &wide[h->op];
    const bool scalar = h->flags & IR_VEC_SCALAR;
    unsigned total = 2 * x->total, max = x->evex ? 64 : 32, bytes = total < max ? total : max,
             n = total / bytes;
    if (h->sew == 3 || bytes < 16 || n > VEC_MAX_CHUNKS || (w->how == SHIFT && !x->evex) ||
        (w->how >= MUL && w->how != SHIFT && !wide_multiply(x, w))) {
        return false;
    }
    unsigned mask = w->how == SHIFT ? count_mask(x) : 0, d[VEC_MAX_CHUNKS], sew = h->sew + 1;
    unsigned splat = !scalar           ? 0
                     : w->how == SHIFT ? wide_count(x, mask)
                                       : scalar_extended(x, w->sign_b);
    unsigned t = scalar ? 0 : v_new(x);
    for (unsigned i = 0; i < n; i++) {
        unsigned b = splat, a;
        d[i] = v_new(x);
        if (!scalar) {
            b = t;
            load_extended(x, b, h->b + i * bytes / 2, bytes, w->sign_b);
        }
        if (w->wide_a) {
            a = v_get(x, h->a + i * bytes, bytes);
        } else {
            a = d[i];
            load_extended(x, a, h->a + i * bytes / 2, bytes, w->sign_a);
        }
        if (w->how == SHIFT) {
            if (!scalar) {
                v_op(x, B(0xdb), bytes, b, b, mask);
            }
            shift_wide(x, true, false, bytes, d[i], a, b);
        } else {
            uint32_t code = w->how == ADD   ? v_simple(IR_VEC_add, sew)
                            : w->how == SUB ? v_simple(IR_VEC_sub, sew)
                                            : wide_multiply(x, w);
            v_op(x, code, bytes, d[i], a, b);
        }
        if (w->how == MUL_ADD) {
            a = v_get(x, h->d + i * bytes, bytes);
            v_op(x, v_simple(IR_VEC_add, sew), bytes, d[i], d[i], a);
        }
        if (a != d[i]) {
            v_done(x, a);
        }
    }
    x->es *= 2;
    for (unsigned i = 0; i < n; i++) {
        v_put_active(x, d[i], h->d + i * bytes, bytes, v_active(x, i, bytes));
        v_done(x, d[i]);
    }
    return true;
}

static bool narrow(struct vec *x)
{
    static const uint8_t truncate[] = { 0x30, 0x33, 0x35 };
    const struct ir_vec *h = x->h;
    unsigned total = 2 * x->total, bytes = total < 64 ? total : 64;
    if (!x->evex || h->sew == 3 || x->total < 4 || total / bytes > 16) {
        return false;
    }
    const bool scalar = h->flags & IR_VEC_SCALAR, sign = h->op == IR_VEC_nsar;
    unsigned mask = count_mask(x), count = scalar ? wide_count(x, mask) : v_new(x);
    const uint32_t keep = x->r->vs.busy;
    for (unsigned i = 0; i < total / bytes; i++) {
        unsigned a = v_get(x, h->a + i * bytes, bytes), d = v_new(x);
        if (!scalar) {
            load_extended(x, count, h->b + i * bytes / 2, bytes, false);
            v_op(x, B(0xdb), bytes, count, count, mask);
        }
        shift_wide(x, false, sign, bytes, d, a, count);
        v_op(x, VX(2, 2, 0, truncate[h->sew]), bytes, d, 0,
             d); /* the register field is the source */
        v_put_active(x, d, h->d + i * bytes / 2, bytes / 2, v_active(x, i, bytes / 2));
        x->r->vs.busy = keep;
    }
    return true;
}

bool vec_widen(struct vec *x)
{
    unsigned op = x->h->op;
    if (op == IR_VEC_nshr || op == IR_VEC_nsar) {
        return narrow(x);
    }
    if (op == IR_VEC_fncvt_f_f) {
        return vec_fp_narrow(x);
    }
    return op >= IR_VEC_fwcvt_f_f ? vec_fp_widen(x) : widen(x);
}

/* ---- reductions ---- */

/* What an element that does not count is taken for. */
static uint64_t neutral(unsigned op, unsigned sew)
{
    static const uint64_t ones[] = { 0x0101010101010101, 0x0001000100010001, 0x0000000100000001,
                                     1 };
    uint64_t top = 1ull << ((8u << sew) - 1);
    switch (op) {
    case IR_VEC_and:
    case IR_VEC_minu:
        return UINT64_MAX;
    case IR_VEC_mins:
        return (top - 1) * ones[sew];
    case IR_VEC_maxs:
        return top * ones[sew];
    default:
        return 0;
    }
}

/* Halves a register's contents onto its lower half until one element is left. */
static void fold(struct vec *x, uint32_t code, unsigned bytes, unsigned es, unsigned d,
                 unsigned t)
{
    if (bytes == 64) {
        v_op_imm(x, VX(3, 1, 1, 0x3b), 64, d, 0, t, 1); /* source in the register field */
        v_op(x, code, 32, d, d, t);
    }
    if (bytes >= 32) {
        v_op_imm(x, VX(3, 1, 0, 0x39), 32, d, 0, t, 1);
        v_op(x, code, 16, d, d, t);
    }
    if (bytes >= 16 && es <= 8) {
        v_op_imm(x, B(0x70), 16, t, 0, d, 0x4e);
        v_op(x, code, 16, d, d, t);
    }
    if (bytes >= 8 && es <= 4) {
        v_op_imm(x, B(0x70), 16, t, 0, d, 0xb1);
        v_op(x, code, 16, d, d, t);
    }
    if (es <= 2) {
        v_op_imm(x, B(0x72), 16, 2, t, d, 16);
        v_op(x, code, 16, d, d, t);
    }
    if (es == 1) {
        v_op_imm(x, B(0x71), 16, 2, t, d, 8);
        v_op(x, code, 16, d, d, t);
    }
}

static void load_element(struct vec *x, unsigned reg, uint32_t off, unsigned es)
{
    if (es >= 4) {
        v_load(x, reg, off, es);
    } else {
        x_rm(x->a, X_0F | (es == 2 ? 0xb7 : 0xb6), v_gp(x, 0), ENV, (int32_t)off);
        v_op(x, B(0x6e), 16, reg, 0, v_gp(x, 0));
    }
}

static void store_element(struct vec *x, unsigned reg, uint32_t off, unsigned es)
{
    if (es >= 4) {
        v_store(x, reg, off, es);
    } else {
        v_op(x, B(0x7e), 16, reg, 0, v_gp(x, 0));
        x_rm(x->a, es == 2 ? 0x89 | X_66 : 0x88 | X_BYTE_REG, v_gp(x, 0), ENV, (int32_t)off);
    }
    v_wrote(x, off, es);
}

bool vec_reduce(struct vec *x)
{
    static const uint8_t plain[] = { IR_VEC_add,  IR_VEC_and,  IR_VEC_or,   IR_VEC_xor,
                                     IR_VEC_mins, IR_VEC_minu, IR_VEC_maxs, IR_VEC_maxu };
    static const uint32_t blend[] = { VX(1, 3, 0, 0x6f), VX(1, 3, 1, 0x6f), VX(1, 2, 0, 0x6f),
                                      VX(1, 2, 1, 0x6f) };
    const struct ir_vec *h = x->h;
    bool widening = h->op >= IR_VEC_wredsums;
    unsigned op = widening ? IR_VEC_add : plain[h->op - IR_VEC_redsum], sew = h->sew + widening,
             es = 1u << sew;
    unsigned total = x->total << widening, max = x->evex ? 64 : 32,
             bytes = total < max ? total : max;
    if (sew > 3 || total < (widening ? 16 : 8) || (x->active && widening)) {
        return false;
    }
    uint32_t code = v_simple(op, sew);
    if (code & VX_NEW && !x->evex) {
        return false;
    }
    (void)v_gp(x, 0);
    if (h->flags & IR_VEC_VL) { /* nothing is written when vl is 0 */
        x_alu_mem_imm(x->a, 7, 0, ENV, (int32_t)x->r->v->tcg->guest->vl_offset, 0);
        v_give_up(x, CC_E);
    }
    unsigned acc = v_new(x), t = v_new(x), none = x->active ? v_const(x, neutral(op, sew)) : 0;
    for (unsigned i = 0; i < total / bytes; i++) {
        unsigned a = t;
        if (widening) {
            load_extended(x, t, h->a + i * bytes / 2, bytes, h->op == IR_VEC_wredsums);
        } else {
            a = v_get(x, h->a + i * bytes, bytes);
        }
        unsigned k = v_active(x, i, bytes);
        if (k) {
            v_move(x, bytes, t, none);
            v_op_k(x, blend[sew], bytes, t, 0, a, k, false);
            if (a != t) {
                v_done(x, a);
            }
            a = t;
        }
        if (i == 0) {
            v_move(x, bytes, acc, a);
        } else {
            v_op(x, code, bytes, acc, acc, a);
        }
        if (a != t) {
            v_done(x, a);
        }
    }
    fold(x, code, bytes, es, acc, t);
    load_element(x, t, h->b, es);
    v_op(x, code, 16, acc, acc, t);
    store_element(x, acc, h->d, es);
    return true;
}

/* ---- masks as bits ---- */

static void load_bits(struct vec *x, unsigned gp, uint32_t off, unsigned bits)
{
    static const unsigned code[] = { X_0F | 0xb6, X_0F | 0xb7, 0x8b, 0x8b | X_W };
    x_rm(x->a,
         code[bits <= 8    ? 0
              : bits == 16 ? 1
              : bits == 32 ? 2
                           : 3],
         gp, ENV, (int32_t)off);
}

static void store_bits(struct vec *x, unsigned gp, uint32_t off, unsigned bits)
{
    static const unsigned code[] = { 0x88 | X_BYTE_REG, 0x89 | X_66, 0x89, 0x89 | X_W };
    x_rm(x->a,
         code[bits <= 8    ? 0
              : bits == 16 ? 1
              : bits == 32 ? 2
                           : 3],
         gp, ENV, (int32_t)off);
    v_wrote(x, off, bits <= 8 ? 1 : bits / 8);
}

static void logic(struct asm_buf *a, unsigned op, unsigned d, unsigned s)
{
    bool not_s = op == IR_VEC_mandn || op == IR_VEC_morn;
    bool not_d = op == IR_VEC_mnand || op == IR_VEC_mnor || op == IR_VEC_mxnor;
    if (not_s) {
        x_rr(a, 0xf7 | X_W, 2, s);
    }
    bool is_and = op == IR_VEC_mand || op == IR_VEC_mnand || op == IR_VEC_mandn;
    bool is_xor = op == IR_VEC_mxor || op == IR_VEC_mxnor;
    x_rr(a, (is_and ? 0x23 : is_xor ? 0x33 : 0x0b) | X_W, d, s);
    if (not_d) {
        x_rr(a, 0xf7 | X_W, 2, d);
    }
}

/* gp keeps its bits below vl, or below n where that is less than a byte. t is scratch. */
static void cut_bits(struct vec *x, unsigned gp, unsigned t)
{
    if (x->h->flags & IR_VEC_VL) {
        x_rm(x->a, 0x8b, t, ENV, (int32_t)x->r->v->tcg->guest->vl_offset);
        x_vex(x->a, 2, 0, 1, 0xf5, gp, t, gp); /* bzhi */
    } else if (x->h->n < 8) {
        x_alu_imm(x->a, 4, 0, gp, (int32_t)((1u << x->h->n) - 1));
    }
}

static bool mask_logic(struct vec *x)
{
    const struct ir_vec *h = x->h;
    unsigned n = h->n, d = v_gp(x, 0), s = v_gp(x, 1);
    bool part = h->flags & IR_VEC_VL || n < 8;
    load_bits(x, d, h->a, n);
    load_bits(x, s, h->b, n);
    logic(x->a, h->op, d, s);
    if (part) { /* the others stay: d = old ^ ((old ^ d) & ones) */
        unsigned old = ra_scratch(x->r);
        load_bits(x, old, h->d, n);
        x_rr(x->a, 0x33 | X_W, d, old);
        cut_bits(x, d, s);
        x_rr(x->a, 0x33 | X_W, d, old);
    }
    store_bits(x, d, h->d, n);
    return true;
}

bool vec_mask(struct vec *x)
{
    const struct ir_vec *h = x->h;
    if (h->n > 64) {
        return false;
    }
    if (h->op != IR_VEC_cpopm && h->op != IR_VEC_firstm) {
        return mask_logic(x);
    }
    unsigned d = v_gp(x, 0), t = v_gp(x, 1);
    load_bits(x, d, h->a, h->n);
    if (h->flags & IR_VEC_MASKED) {
        load_bits(x, t, h->m, h->n);
        x_rr(x->a, 0x23 | X_W, d, t);
    }
    cut_bits(x, d, t);
    if (h->op == IR_VEC_cpopm) {
        x_rr(x->a, X_F3 | X_0F | 0xb8 | X_W, d, d);
    } else {
        x_mov_imm(x->a, t, UINT64_MAX);
        x_rr(x->a, X_F3 | X_0F | 0xbc | X_W, d, d); /* tzcnt: carry when there is none */
        x_rr(x->a, X_0F | 0x42 | X_W, d, t);
    }
    return true;
}
