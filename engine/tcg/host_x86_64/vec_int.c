/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Elementwise integer operations, compares and memory of vector hints on x86-64. Pure emission.
 */
#include "engine/tcg/host_x86_64/vec.h"

#define B(op) VX(1, 1, 0, op)
#define Q(op) VX(1, 1, 1, op)
#define B38(op) VX(2, 1, 0, op)
#define Q38(op) VX(2, 1, 1, op)
#define NEW VX_NEW

/* d = a OP b, or b OP a with `swap`: one instruction a chunk; by element size, 0: none. */
struct simple {
    uint32_t code[4];
    bool swap;
    uint32_t feature;
};

static const struct simple simple[IR_N_VEC_OPS] = {
    [IR_VEC_add] = { { B(0xfc), B(0xfd), B(0xfe), Q(0xd4) }, false, 0 },
    [IR_VEC_sub] = { { B(0xf8), B(0xf9), B(0xfa), Q(0xfb) }, false, 0 },
    [IR_VEC_rsub] = { { B(0xf8), B(0xf9), B(0xfa), Q(0xfb) }, true, 0 },
    [IR_VEC_and] = { { B(0xdb), B(0xdb), B(0xdb), Q(0xdb) }, false, 0 },
    [IR_VEC_or] = { { B(0xeb), B(0xeb), B(0xeb), Q(0xeb) }, false, 0 },
    [IR_VEC_xor] = { { B(0xef), B(0xef), B(0xef), Q(0xef) }, false, 0 },
    [IR_VEC_andn] = { { B(0xdf), B(0xdf), B(0xdf), Q(0xdf) }, true, 0 },
    [IR_VEC_mins] = { { B38(0x38), B(0xea), B38(0x39), Q38(0x39) | NEW }, false, 0 },
    [IR_VEC_minu] = { { B(0xda), B38(0x3a), B38(0x3b), Q38(0x3b) | NEW }, false, 0 },
    [IR_VEC_maxs] = { { B38(0x3c), B(0xee), B38(0x3d), Q38(0x3d) | NEW }, false, 0 },
    [IR_VEC_maxu] = { { B(0xde), B38(0x3e), B38(0x3f), Q38(0x3f) | NEW }, false, 0 },
    [IR_VEC_mul] = { { 0, B(0xd5), B38(0x40), Q38(0x40) | NEW }, false, 0 },
    [IR_VEC_mulhs] = { { 0, B(0xe5), 0, 0 }, false, 0 },
    [IR_VEC_mulhu] = { { 0, B(0xe4), 0, 0 }, false, 0 },
};

/* d = OP(a) */
static const struct simple unary[IR_N_VEC_OPS] = {
    [IR_VEC_clz] = { { 0, 0, B38(0x44) | NEW, Q38(0x44) | NEW }, false, 0 },
};

/* Shifts: by a vector of counts; by an immediate (opcode, and the register field). */
static const uint32_t shift_var[5][4] = {
    [0] = { 0, Q38(0x12) | NEW, B38(0x47), Q38(0x47) },       /* left */
    [1] = { 0, Q38(0x10) | NEW, B38(0x45), Q38(0x45) },       /* right */
    [2] = { 0, Q38(0x11) | NEW, B38(0x46), Q38(0x46) | NEW }, /* right, signed */
    [3] = { 0, 0, B38(0x15) | NEW, Q38(0x15) | NEW },         /* rotate left */
    [4] = { 0, 0, B38(0x14) | NEW, Q38(0x14) | NEW },         /* rotate right */
};
static const uint32_t shift_imm[5][4] = {
    [0] = { B(0x71), B(0x71), B(0x72), Q(0x73) },
    [1] = { B(0x71), B(0x71), B(0x72), Q(0x73) },
    [2] = { B(0x71), B(0x71), B(0x72), Q(0x72) | NEW },
    [3] = { 0, 0, B(0x72) | NEW, Q(0x72) | NEW },
    [4] = { 0, 0, B(0x72) | NEW, Q(0x72) | NEW },
};
static const uint8_t shift_field[5] = { 6, 2, 4, 1, 0 };

uint32_t v_simple(unsigned op, unsigned sew)
{
    return simple[op].code[sew];
}

static bool has(const struct vec *x, uint32_t code)
{
    return code && (x->evex || !(code & NEW));
}

static int shift_kind(unsigned op)
{
    return op >= IR_VEC_shl && op <= IR_VEC_rotr ? (int)(op - IR_VEC_shl) : -1;
}

static unsigned operand_b(struct vec *x, unsigned splat, unsigned i)
{
    return x->h->flags & IR_VEC_SCALAR ? splat : v_get(x, x->h->b + i * x->chunk, x->chunk);
}

/* Takes a chunk's result: into place, and its registers may go. */
static void finish(struct vec *x, unsigned result, unsigned i, uint32_t keep)
{
    v_put_active(x, result, x->h->d + i * x->chunk, x->chunk, v_active(x, i, x->chunk));
    x->r->vs.busy = keep;
}

static bool simple_op(struct vec *x, const struct simple *s)
{
    const uint32_t code = s->code[x->h->sew];
    unsigned splat = x->h->flags & IR_VEC_SCALAR ? v_scalar(x) : 0;
    const uint32_t keep = x->r->vs.busy;
    for (unsigned i = 0; i < x->n_chunks; i++) {
        unsigned a = v_get(x, x->h->a + i * x->chunk, x->chunk), b = operand_b(x, splat, i),
                 d = v_new(x);
        v_op(x, code, x->chunk, d, s->swap ? b : a, s->swap ? a : b);
        finish(x, d, i, keep);
    }
    return true;
}

static bool unary_op(struct vec *x, uint32_t code)
{
    for (unsigned i = 0; i < x->n_chunks; i++) {
        unsigned a = v_get(x, x->h->a + i * x->chunk, x->chunk), d = v_new(x);
        v_op(x, code, x->chunk, d, 0, a);
        finish(x, d, i, 0);
    }
    return true;
}

/* Shifts by an immediate. Bytes: as halfwords, then the bits of the neighbour go. */
static void shift_const(struct vec *x, unsigned kind, unsigned count)
{
    unsigned sew = x->h->sew, mask = 0, sign = 0;
    if (sew == 0) {
        uint64_t byte = kind == 0 ? 0xffu & 0xffu << count : 0xffu >> count;
        mask = v_const(x, byte * 0x0101010101010101);
        if (kind == 2) {
            sign = v_const(x, (0x80u >> count) * 0x0101010101010101ull);
        }
    }
    const uint32_t keep = x->r->vs.busy;
    unsigned k = sew == 0 && kind == 2 ? 1 : kind;
    for (unsigned i = 0; i < x->n_chunks; i++) {
        unsigned a = v_get(x, x->h->a + i * x->chunk, x->chunk), d = v_new(x);
        v_op_imm(x, shift_imm[k][sew], x->chunk, shift_field[k], d, a, count);
        if (sew == 0) {
            v_op(x, B(0xdb), x->chunk, d, d, mask);
        }
        if (sew == 0 && kind == 2) { /* spread the sign: (d ^ s) - s */
            v_op(x, B(0xef), x->chunk, d, d, sign);
            v_op(x, B(0xf8), x->chunk, d, d, sign);
        }
        finish(x, d, i, keep);
    }
}

static bool shift_op(struct vec *x, unsigned kind)
{
    const unsigned sew = x->h->sew;
    uint64_t count;
    if (v_scalar_const(x, &count) && has(x, shift_imm[kind][sew])) {
        shift_const(x, kind, count & ((8u << sew) - 1));
        return true;
    }
    if (!has(x, shift_var[kind][sew])) {
        return false;
    }
    const uint64_t ones[] = { 0, 0x0001000100010001, 0x0000000100000001, 1 };
    unsigned mask = v_const(x, ((8u << sew) - 1) * ones[sew]);
    unsigned splat = 0;
    if (x->h->flags & IR_VEC_SCALAR) {
        splat = v_scalar(x);
        v_op(x, B(0xdb), x->evex ? 64 : 32, splat, splat, mask);
    }
    const uint32_t keep = x->r->vs.busy;
    for (unsigned i = 0; i < x->n_chunks; i++) {
        unsigned a = v_get(x, x->h->a + i * x->chunk, x->chunk), d = v_new(x),
                 count_reg = splat;
        if (!splat) {
            v_op(x, B(0xdb), x->chunk, d, v_get(x, x->h->b + i * x->chunk, x->chunk), mask);
            count_reg = d;
        }
        v_op(x, shift_var[kind][sew], x->chunk, d, a, count_reg);
        finish(x, d, i, keep);
    }
    return true;
}

/* ---- multiplication ---- */

/* Low bytes of products: even and odd ones as halfwords. Clobbers t. */
static void mul8(struct vec *x, unsigned d, unsigned a, unsigned b, unsigned low, unsigned t)
{
    v_op(x, B(0xdf), x->chunk, t, low, b);      /* odd bytes of b in place */
    v_op_imm(x, B(0x71), x->chunk, 2, d, a, 8); /* odd bytes of a as numbers */
    v_op(x, B(0xd5), x->chunk, d, d, t);
    v_op(x, B(0xd5), x->chunk, t, a, b);
    v_op(x, B(0xdb), x->chunk, t, t, low);
    v_op(x, B(0xeb), x->chunk, d, d, t);
}

/* d = low half of a * b; t is scratch for bytes. */
static void mul_low(struct vec *x, unsigned d, unsigned a, unsigned b, unsigned low, unsigned t)
{
    if (x->h->sew == 0) {
        mul8(x, d, a, b, low, t);
    } else {
        v_op(x, simple[IR_VEC_mul].code[x->h->sew], x->chunk, d, a, b);
    }
}

static bool multiply_add(struct vec *x)
{
    const struct ir_vec *h = x->h;
    if (h->sew && !has(x, simple[IR_VEC_mul].code[h->sew])) {
        return false;
    }
    unsigned splat = h->flags & IR_VEC_SCALAR ? v_scalar(x) : 0;
    unsigned low = h->sew == 0 ? v_const(x, 0x00ff00ff00ff00ff) : 0,
             t = h->sew == 0 ? v_new(x) : 0;
    const uint32_t keep = x->r->vs.busy;
    for (unsigned i = 0; i < x->n_chunks; i++) {
        unsigned a = v_get(x, h->a + i * x->chunk, x->chunk), b = operand_b(x, splat, i),
                 p = v_new(x);
        if (h->op == IR_VEC_mul) {
            mul_low(x, p, a, b, low, t);
            finish(x, p, i, keep);
            continue;
        }
        unsigned d = v_get(x, h->d + i * x->chunk, x->chunk);
        bool times_d = h->op == IR_VEC_madd || h->op == IR_VEC_nmsub;
        mul_low(x, p, times_d ? d : a, b, low, t);
        if (h->op == IR_VEC_macc || h->op == IR_VEC_madd) {
            v_op(x, simple[IR_VEC_add].code[h->sew], x->chunk, p, times_d ? a : d, p);
        } else {
            v_op(x, simple[IR_VEC_sub].code[h->sew], x->chunk, p, times_d ? a : d, p);
        }
        finish(x, p, i, keep);
    }
    return true;
}

/* High halves of 32-bit products: even and odd elements as 64-bit products. */
static bool mul_high32(struct vec *x)
{
    const struct ir_vec *h = x->h;
    const uint32_t mul = h->op == IR_VEC_mulhs ? B38(0x28) : B(0xf4);
    uint32_t wide = x->evex ? VX_W : 0; /* EVEX vpmul[u]dq has W1 */
    unsigned splat = h->flags & IR_VEC_SCALAR ? v_scalar(x) : 0;
    unsigned high = v_const(x, 0xffffffff00000000);
    const uint32_t keep = x->r->vs.busy;
    for (unsigned i = 0; i < x->n_chunks; i++) {
        unsigned a = v_get(x, h->a + i * x->chunk, x->chunk), b = operand_b(x, splat, i);
        unsigned d = v_new(x), t = v_new(x);
        v_op_imm(x, Q(0x73), x->chunk, 2, d, a, 32);
        v_op_imm(x, Q(0x73), x->chunk, 2, t, b, 32);
        v_op(x, mul | wide, x->chunk, d, d, t);
        v_op(x, B(0xdb), x->chunk, d, d, high);
        v_op(x, mul | wide, x->chunk, t, a, b);
        v_op_imm(x, Q(0x73), x->chunk, 2, t, t, 32);
        v_op(x, B(0xeb), x->chunk, d, d, t);
        finish(x, d, i, keep);
    }
    return true;
}

/* ---- moves, bytes and bits ---- */

static bool move(struct vec *x)
{
    const struct ir_vec *h = x->h;
    unsigned splat = h->flags & IR_VEC_SCALAR ? v_scalar(x) : 0;
    const uint32_t keep = x->r->vs.busy;
    for (unsigned i = 0; i < x->n_chunks; i++) {
        unsigned d = v_new(x);
        v_move(x, x->chunk, d, operand_b(x, splat, i));
        finish(x, d, i, keep);
    }
    return true;
}

/* d[i] = i: bytes from a table, extended, and the number of the chunk's first. */
static bool number(struct vec *x)
{
    static const uint8_t code[] = { 0, 0x30, 0x31, 0x32 };
    static const uint64_t ones[] = { 0x0101010101010101, 0x0001000100010001, 0x0000000100000001,
                                     1 };
    const struct ir_vec *h = x->h;
    unsigned elems = x->chunk / x->es;
    if (!x->evex) {
        return false;
    }
    for (unsigned i = 0; i < x->n_chunks; i++) {
        unsigned d = v_new(x);
        struct vx e = v_enc(x, h->sew ? B38(code[h->sew]) : VX(1, 2, 1, 0x6f), x->chunk);
        vx_rip(x->a, e, d, 0, x->r->th->vec_numbers, 0);
        if (i) {
            uint64_t first = i * elems & (h->sew ? UINT64_MAX : 0xff); /* a byte wraps: no carry */
            v_op(x, simple[IR_VEC_add].code[h->sew], x->chunk, d, d,
                 v_const(x, first * ones[h->sew]));
        }
        finish(x, d, i, 0);
    }
    return true;
}

static bool merge(struct vec *x)
{
    static const uint32_t blend[] = { B38(0x66), Q38(0x66), B38(0x64), Q38(0x64) };
    const struct ir_vec *h = x->h;
    if (!x->evex || h->flags & IR_VEC_MASKED) {
        return false;
    }
    unsigned splat = h->flags & IR_VEC_SCALAR ? v_scalar(x) : 0;
    const uint32_t keep = x->r->vs.busy;
    unsigned elems = x->chunk / x->es;
    for (unsigned i = 0; i < x->n_chunks; i++) {
        unsigned a = v_get(x, h->a + i * x->chunk, x->chunk), b = operand_b(x, splat, i),
                 d = v_new(x);
        vx_kmov_mem(x->a, elems < 8 ? 8 : elems, true, 3, ENV, (int32_t)(h->m + i * elems / 8));
        v_op_k(x, blend[h->sew], x->chunk, d, a, b, 3, false);
        finish(x, d, i, keep);
    }
    return true;
}

static bool extend(struct vec *x)
{
    static const uint8_t code[3][4] = { { 0, 0x30, 0x33, 0x35 },
                                        { 0, 0, 0x31, 0x34 },
                                        { 0, 0, 0, 0x32 } };
    const struct ir_vec *h = x->h;
    bool sign = h->op >= IR_VEC_sext2;
    unsigned by = h->op - (sign ? IR_VEC_sext2 : IR_VEC_zext2);
    unsigned op = code[by][h->sew], d[VEC_MAX_CHUNKS];
    if (!op || x->n_chunks > VEC_MAX_CHUNKS || x->chunk < 16) {
        return false;
    }
    for (unsigned i = 0; i < x->n_chunks;
         i++) { /* all before the first is stored: d may overlap the end of a */
        d[i] = v_new(x);
        vx_rm(x->a, v_enc(x, B38(op - (sign ? 16 : 0)), x->chunk), d[i], 0, ENV,
              (int32_t)(h->a + i * (x->chunk >> (by + 1))));
    }
    const uint32_t keep = x->r->vs.busy;
    for (unsigned i = 0; i < x->n_chunks; i++) {
        finish(x, d[i], i, keep);
    }
    return true;
}

/* Bytes of each element reversed: rotations, and a choice by mask. */
static void reverse_bytes(struct vec *x, unsigned d, unsigned s, unsigned mask, unsigned t)
{
    unsigned sew = x->h->sew;
    if (sew == 1) {
        v_op_imm(x, B(0x71), x->chunk, 6, t, s, 8);
        v_op_imm(x, B(0x71), x->chunk, 2, d, s, 8);
        v_op(x, B(0xeb), x->chunk, d, d, t);
        return;
    }
    if (sew == 3) {
        v_op_imm(x, Q(0x72), x->chunk, 1, d, s, 32); /* vprolq */
        s = d;
    }
    v_op_imm(x, B(0x72), x->chunk, 1, t, s, 8); /* vprold: bytes 0 and 2 are in place */
    v_op_imm(x, B(0x72), x->chunk, 0, d, s, 8); /* vprord: 1 and 3 */
    v_op_imm(x, VX(3, 1, 0, 0x25), x->chunk, d, mask, t, 0xb8); /* d = mask ? t : d */
}

static bool bytes_op(struct vec *x)
{
    const struct ir_vec *h = x->h;
    bool bits = h->op != IR_VEC_rev8, bytes = h->op != IR_VEC_brev8 && h->sew;
    if (!x->evex || (bits && !v_feature(x, HOST_GFNI))) {
        return false;
    }
    unsigned matrix = bits ? v_const(x, 0x8040201008040201) : 0;
    unsigned mask = bytes && h->sew > 1 ? v_const(x, 0x00ff00ff00ff00ff) : 0, t = v_new(x);
    const uint32_t keep = x->r->vs.busy;
    for (unsigned i = 0; i < x->n_chunks; i++) {
        unsigned a = v_get(x, h->a + i * x->chunk, x->chunk), d = v_new(x);
        if (bits) {
            v_op_imm(x, VX(3, 1, 1, 0xce), x->chunk, d, a, matrix, 0);
            a = d;
        }
        if (bytes) {
            unsigned s = v_new(x);
            v_move(x, x->chunk, s, a);
            reverse_bytes(x, d, s, mask, t);
        } else if (!bits) {
            v_move(x, x->chunk, d, a);
        }
        finish(x, d, i, keep);
    }
    return true;
}

static bool count_bits(struct vec *x)
{
    const struct ir_vec *h = x->h;
    const uint32_t pop = h->sew < 2 ? VX(2, 1, h->sew == 1, 0x54) : VX(2, 1, h->sew == 3, 0x55);
    if (!x->evex || !v_feature(x, h->sew < 2 ? HOST_BITALG : HOST_POPCNT)) {
        return false;
    }
    unsigned ones = 0;
    if (h->op == IR_VEC_ctz) {
        ones = v_const(x, UINT64_MAX);
    }
    const uint32_t keep = x->r->vs.busy;
    for (unsigned i = 0; i < x->n_chunks; i++) {
        unsigned a = v_get(x, h->a + i * x->chunk, x->chunk), d = v_new(x);
        if (h->op == IR_VEC_ctz) { /* ones below the lowest one: (a - 1) & ~a */
            v_op(x, simple[IR_VEC_add].code[h->sew], x->chunk, d, a, ones);
            v_op(x, Q(0xdf), x->chunk, d, a, d);
            a = d;
        }
        v_op(x, pop, x->chunk, d, 0, a);
        finish(x, d, i, keep);
    }
    return true;
}

/* Carry-less products of 64-bit elements: two products of 128 bits a lane, a half of each. */
static bool clmul(struct vec *x)
{
    const struct ir_vec *h = x->h;
    if (h->sew != 3 || x->chunk < 16 ||
        !v_feature(x, x->chunk > 16 ? HOST_VPCLMUL : HOST_PCLMUL)) {
        return false;
    }
    unsigned splat = h->flags & IR_VEC_SCALAR ? v_scalar(x) : 0;
    const uint32_t keep = x->r->vs.busy;
    for (unsigned i = 0; i < x->n_chunks; i++) {
        unsigned a = v_get(x, h->a + i * x->chunk, x->chunk), b = operand_b(x, splat, i);
        unsigned d = v_new(x), t = v_new(x);
        v_op_imm(x, VX(3, 1, 0, 0x44), x->chunk, d, a, b, 0x00);
        v_op_imm(x, VX(3, 1, 0, 0x44), x->chunk, t, a, b, 0x11);
        v_op(x, Q(h->op == IR_VEC_clmul ? 0x6c : 0x6d), x->chunk, d, d, t);
        finish(x, d, i, keep);
    }
    return true;
}

bool vec_int(struct vec *x)
{
    const struct ir_vec *h = x->h;
    const struct simple *s = &simple[h->op];
    int shift = shift_kind(h->op);
    if (shift >= 0) {
        return shift_op(x, (unsigned)shift);
    }
    switch (h->op) {
    case IR_VEC_mul:
    case IR_VEC_macc:
    case IR_VEC_nmsac:
    case IR_VEC_madd:
    case IR_VEC_nmsub:
        return multiply_add(x);
    case IR_VEC_mv:
        return move(x);
    case IR_VEC_id:
        return number(x);
    case IR_VEC_merge:
        return merge(x);
    case IR_VEC_brev8:
    case IR_VEC_rev8:
    case IR_VEC_brev:
        return bytes_op(x);
    case IR_VEC_ctz:
    case IR_VEC_cpop:
        return count_bits(x);
    case IR_VEC_clmul:
    case IR_VEC_clmulh:
        return clmul(x);
    default:
        break;
    }
    if (h->op >= IR_VEC_zext2 && h->op <= IR_VEC_sext8) {
        return extend(x);
    }
    if ((h->op == IR_VEC_mulhs || h->op == IR_VEC_mulhu) && h->sew == 2) {
        return mul_high32(x);
    }
    if (has(x, s->code[h->sew]) && v_feature(x, s->feature)) {
        return simple_op(x, s);
    }
    const struct simple *u = &unary[h->op];
    if (has(x, u->code[h->sew]) && v_feature(x, u->feature)) {
        return unary_op(x, u->code[h->sew]);
    }
    return false;
}

/* ---- compares: masks of the host are masks of the guest ---- */

bool vec_compare(struct vec *x)
{
    static const uint32_t code[2][4] = {
        { VX(3, 1, 0, 0x3f), VX(3, 1, 1, 0x3f), VX(3, 1, 0, 0x1f), VX(3, 1, 1, 0x1f) },
        { VX(3, 1, 0, 0x3e), VX(3, 1, 1, 0x3e), VX(3, 1, 0, 0x1e), VX(3, 1, 1, 0x1e) }
    };
    static const struct {
        uint8_t predicate;
        bool is_unsigned;
    } how[] = { { 0, false }, { 4, false }, { 1, false }, { 1, true },
                { 2, false }, { 2, true },  { 6, false }, { 6, true } };
    const struct ir_vec *h = x->h;
    if (!x->evex) {
        return false;
    }
    unsigned c = h->op - IR_VEC_cmpeq;
    unsigned splat = h->flags & IR_VEC_SCALAR ? v_scalar(x) : 0;
    const uint32_t keep = x->r->vs.busy;
    for (unsigned i = 0; i < x->n_chunks; i++) {
        unsigned a = v_get(x, h->a + i * x->chunk, x->chunk), b = operand_b(x, splat, i);
        unsigned k = v_active(x, i, x->chunk);
        v_op_k(x, code[how[c].is_unsigned][h->sew], x->chunk, 3, a, b, k, false);
        x_8(x->a, how[c].predicate);
        v_put_mask(x, 3, k, i);
        x->r->vs.busy = keep;
    }
    return true;
}

/* ---- guest memory ---- */

/* Leaves host minus guest address in the first scratch register. The page of the last byte is compared with the tag that the page
 * of the first selects: equal only if they are the same. */
static unsigned lookup(struct vec *x, unsigned base, bool write)
{
    unsigned t0 = v_gp(x, 0), t1 = v_gp(x, 1);
    x_rr(x->a, 0x8b, t0, base);
    x_rr(x->a, 0xc1, 5, t0);
    x_8(x->a, TLB_SHIFT);
    x_alu_imm(x->a, 4, 0, t0, TLB_MASK);
    x_rm(x->a, 0x8d | X_W, t1, base, (int32_t)x->total - 1);
    x_alu_imm(x->a, 4, X_W, t1, -4096);
    x_rmx(x->a, 0x3b | X_W, t1, SPACE, t0, 0, TLB_OFF(tag[write]));
    v_give_up(x, CC_NE);
    x_rmx(x->a, 0x8b | X_W, t0, SPACE, t0, 0, TLB_OFF(addend));
    return t0;
}

static uint32_t memory_code(const struct vec *x, unsigned bytes, bool store)
{
    static const uint32_t masked[] = { VX(1, 3, 0, 0x6f), VX(1, 3, 1, 0x6f), VX(1, 2, 0, 0x6f),
                                       VX(1, 2, 1, 0x6f) };
    if (x->active) {
        return masked[x->h->sew] + (store ? 0x10 : 0);
    }
    if (bytes == 8) {
        return store ? VX(1, 1, x->evex, 0xd6) : VX(1, 2, x->evex, 0x7e);
    }
    if (bytes == 4) {
        return store ? VX(1, 1, 0, 0x7e) : VX(1, 1, 0, 0x6e);
    }
    return VX(1, 2, x->evex, store ? 0x7f : 0x6f);
}

bool vec_memory(struct vec *x)
{
    const struct ir_vec *h = x->h;
    bool store = h->op == IR_VEC_store;
    if (x->chunk < 4 || (x->active && x->chunk < 16) ||
        x->r->v->tcg->guest->pc_mask != UINT64_MAX) {
        return false;
    }
    unsigned base = ra_use_reg(x->r, ir_vec_arg(h, x->op));
    /* v_active() needs the registers of the lookup: then its result is kept in another. */
    unsigned addend = h->flags & IR_VEC_VL ? ra_scratch(x->r) : v_gp(x, 0);
    x_rr(x->a, 0x8b | X_W, addend, lookup(x, base, store));
    for (unsigned i = 0; i < x->n_chunks; i++) {
        unsigned k = v_active(x, i, x->chunk);
        unsigned reg = store ? v_get(x, h->a + i * x->chunk, x->chunk)
                       : k   ? v_get(x, h->d + i * x->chunk, x->chunk)
                             : v_new(x);
        struct vx e = v_enc(x, memory_code(x, x->chunk, store), x->chunk);
        e.k = k;
        vx_rmx(x->a, e, reg, 0, addend, base, (int32_t)(i * x->chunk));
        if (!store) {
            v_put(x, reg, h->d + i * x->chunk, x->chunk);
        }
        x->r->vs.busy = 0;
    }
    return true;
}
