/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector hints on x86-64 that move elements (slides, gathers, compression), and those of ciphers and hashes. Pure
 * emission.
 */
#include "engine/tcg/host_x86_64/vec.h"

#define B(op) VX(1, 1, 0, op)
#define Q(op) VX(1, 1, 1, op)
#define B38(op) VX(2, 1, 0, op)

/* ---- slides: chunks are loaded from memory at the distance ---- */

/* The scalar, low element of it, to the CPU state at off. */
static void store_scalar(struct vec *x, uint32_t off)
{
    static const unsigned code[] = { 0x88 | X_BYTE_REG, 0x89 | X_66, 0x89, 0x89 | X_W };
    unsigned gp = ra_use_reg(x->r, ir_vec_arg(x->h, x->op));
    x_rm(x->a, code[x->h->sew], gp, ENV, (int32_t)off);
    v_wrote(x, off, x->es);
}

/* Mask register 1 or 3: elements from `low` on (up), or those below `low`. */
static void mask_from(struct vec *x, unsigned k, unsigned elems, unsigned low, bool up)
{
    uint64_t all = elems == 64 ? UINT64_MAX : (1ull << elems) - 1;
    uint64_t below = low >= 64 ? UINT64_MAX : (1ull << low) - 1;
    x_mov_imm(x->a, v_gp(x, 0), up ? all & ~below : all & below);
    vx_kmov(x->a, 64, true, k, v_gp(x, 0));
}

/* d[i] = a[i + by], zeros (of elements behind a) where `zeros`. */
static void slide_down(struct vec *x, unsigned by, bool zeros)
{
    static const uint32_t moves[] = { VX(1, 3, 0, 0x6f), VX(1, 3, 1, 0x6f), VX(1, 2, 0, 0x6f),
                                      VX(1, 2, 1, 0x6f) };
    const struct ir_vec *h = x->h;
    unsigned t[VEC_MAX_CHUNKS], elems = x->chunk / x->es;
    for (unsigned i = 0; i < x->n_chunks; i++) {
        unsigned first = i * elems + by;
        t[i] = v_new(x);
        v_load(x, t[i], h->a + first * x->es, x->chunk);
        if (zeros && first + elems > h->n) {
            mask_from(x, 3, elems, first < h->n ? h->n - first : 0, false);
            v_op_k(x, moves[h->sew], x->chunk, t[i], 0, t[i], 3, true);
        }
    }
    for (unsigned i = 0; i < x->n_chunks; i++) {
        v_put_active(x, t[i], h->d + i * x->chunk, x->chunk, v_active(x, i, x->chunk));
        v_done(x, t[i]);
    }
}

/* d[i] = a[i - by] for i >= by. */
static void slide_up(struct vec *x, unsigned by)
{
    const struct ir_vec *h = x->h;
    unsigned elems = x->chunk / x->es;
    for (unsigned i = 0; i < x->n_chunks; i++) { /* d and a never overlap */
        unsigned t, k = 0;
        if ((i + 1) * elems <= by) {
            continue;
        }
        t = v_new(x);
        v_load(x, t, h->a + i * x->chunk - by * x->es, x->chunk);
        if (by > i * elems) {
            mask_from(x, 1, elems, by - i * elems, true);
            k = 1;
        }
        v_put_active(x, t, h->d + i * x->chunk, x->chunk, k);
        x->r->vs.busy = 0;
    }
}

static bool slide(struct vec *x)
{
    const struct ir_vec *h = x->h;
    uint64_t by = 1;
    bool one = h->op == IR_VEC_slide1up || h->op == IR_VEC_slide1down;
    bool up = h->op == IR_VEC_slide1up || h->op == IR_VEC_slideup;
    if (!x->evex || x->chunk < 16 || x->n_chunks > VEC_MAX_CHUNKS ||
        (x->active && (one || up)) || (!one && (!v_scalar_const(x, &by) || by >= h->n))) {
        return false;
    }
    uint64_t far = by * x->es;
    /* What is loaded beyond the group lies within the CPU state. */
    if (up ? h->a < far : h->a + x->total + far > x->r->v->vcpu->vm->arch->cpu_size) {
        return false;
    }
    if (up) {
        slide_up(x, (unsigned)by);
    } else {
        slide_down(x, (unsigned)by, !one);
    }
    if (one) {
        store_scalar(x, up ? h->d : h->d + x->total - x->es);
    }
    return true;
}

/* ---- gathers and compression of a group in one register ---- */

static bool gather(struct vec *x)
{
    static const uint32_t permute[] = { VX(2, 1, 0, 0x8d), VX(2, 1, 1, 0x8d), VX(2, 1, 0, 0x36),
                                        VX(2, 1, 1, 0x36) };
    static const uint32_t below[] = { VX(3, 1, 0, 0x3e), VX(3, 1, 1, 0x3e), VX(3, 1, 0, 0x1e),
                                      VX(3, 1, 1, 0x1e) };
    static const uint64_t ones[] = { 0x0101010101010101, 0x0001000100010001, 0x0000000100000001,
                                     1 };
    const struct ir_vec *h = x->h;
    if (!x->evex || x->n_chunks != 1 || x->chunk < 16 || h->flags & IR_VEC_SCALAR ||
        (h->sew == 0 && !v_feature(x, HOST_VBMI))) {
        return false;
    }
    unsigned bytes = h->sew >= 2 && x->chunk < 32 ? 32
                                                  : x->chunk; /* there is none of 16 bytes */
    unsigned a = v_get(x, h->a, x->chunk), b = v_get(x, h->b, x->chunk),
             n = v_const(x, h->n * ones[h->sew]), d = v_new(x);
    if (h->sew == 0 && h->n > 255) {
        return false;
    }
    v_op_k(x, below[h->sew], bytes, 3, b, n, 0, false);
    x_8(x->a, 1);
    v_op_k(x, permute[h->sew], bytes, d, b, a, 3, true);
    v_put_active(x, d, h->d, x->chunk, v_active(x, 0, x->chunk));
    return true;
}

static bool compress(struct vec *x)
{
    static const uint32_t code[] = { VX(2, 1, 0, 0x63), VX(2, 1, 1, 0x63), VX(2, 1, 0, 0x8b),
                                     VX(2, 1, 1, 0x8b) };
    const struct ir_vec *h = x->h;
    unsigned elems = x->chunk / x->es;
    if (!x->evex || x->n_chunks != 1 || x->chunk < 16 || x->active ||
        (h->sew < 2 && !v_feature(x, HOST_VBMI2))) {
        return false;
    }
    unsigned a = v_get(x, h->a, x->chunk), d = v_copy(x, h->d, x->chunk);
    vx_kmov_mem(x->a, elems < 8 ? 8 : elems, true, 3, ENV, (int32_t)h->b);
    v_op_k(x, code[h->sew], x->chunk, a, 0, d, 3,
           false); /* the source is in the register field */
    v_put(x, d, h->d, x->chunk);
    return true;
}

bool vec_permute(struct vec *x)
{
    switch (x->h->op) {
    case IR_VEC_gather:
        return gather(x);
    case IR_VEC_compress:
        return compress(x);
    case IR_VEC_gather16:
        return false;
    default:
        return slide(x);
    }
}

/* ---- ciphers and hashes ---- */

/* Chunk i of the second operand, or its first group in all places. */
static unsigned key(struct vec *x, unsigned i)
{
    const struct ir_vec *h = x->h;
    if (!(h->flags & IR_VEC_GROUP0)) {
        return v_get(x, h->a + i * x->chunk, x->chunk);
    }
    if (x->chunk == 16) {
        return v_get(x, h->a, 16);
    }
    unsigned reg = v_new(x);
    vx_rm(x->a, v_enc(x, B38(0x5a), x->chunk), reg, 0, ENV,
          (int32_t)h->a); /* vbroadcasti128, vbroadcasti32x4 */
    return reg;
}

static bool aes(struct vec *x)
{
    const struct ir_vec *h = x->h;
    if (!v_feature(x, x->chunk > 16 || x->evex ? HOST_AES | HOST_VAES : HOST_AES)) {
        return false;
    }
    unsigned group0 = h->flags & IR_VEC_GROUP0 ? key(x, 0) : 0, zero = 0;
    if (h->op == IR_VEC_aesdec) {
        zero = v_new(x);
        v_zero(x, zero);
    }
    const uint32_t keep = x->r->vs.busy;
    for (unsigned i = 0; i < x->n_chunks; i++) {
        unsigned k = group0 ? group0 : key(x, i), s = v_get(x, h->d + i * x->chunk, x->chunk),
                 d = v_new(x);
        switch (h->op) {
        case IR_VEC_aesenc:
            v_op(x, B38(0xdc), x->chunk, d, s, k);
            break;
        case IR_VEC_aesenclast:
            v_op(x, B38(0xdd), x->chunk, d, s, k);
            break;
        case IR_VEC_aesdeclast:
            v_op(x, B38(0xdf), x->chunk, d, s, k);
            break;
        case IR_VEC_aesz:
            v_op(x, B(0xef), x->chunk, d, s, k);
            break;
        default: /* aesdec: the host adds the key behind InvMixColumns; that alone is a last round and a full one with no key */
            v_op(x, B38(0xdf), x->chunk, d, s, k);
            v_op(x, B38(0xdd), x->chunk, d, d, zero);
            v_op(x, B38(0xde), x->chunk, d, d, zero);
        }
        v_put(x, d, h->d + i * x->chunk, x->chunk);
        x->r->vs.busy = keep;
    }
    return true;
}

/* SHA-NI has legacy encodings only: registers 0 to 2. */
static void legacy(struct vec *x, unsigned op, unsigned reg, unsigned rm)
{
    x_rr(x->a, X_0F38 | op, reg, rm);
}

static void legacy_load(struct vec *x, unsigned reg, uint32_t off)
{
    x_rm(x->a, X_F3 | X_0F | 0x6f, reg, ENV, (int32_t)off);
}

static bool sha256(struct vec *x)
{
    const struct ir_vec *h = x->h;
    if (h->sew != 2 || !v_feature(x, HOST_SHA)) {
        return false;
    }
    for (unsigned i = 0; i < x->total; i += 16) {
        if (h->op == IR_VEC_sha2ms) {
            legacy_load(x, 0, h->d + i);
            legacy_load(x, 1, h->a + i);
            legacy_load(x, 2, h->b + i);
            legacy(x, 0xcc, 0, 1); /* sha256msg1: sigma 0 */
            x_rr(x->a, X_66 | X_0F | 0x6f, 3, 2);
            x_8(x->a, 0x66); /* palignr xmm3, xmm1, 4: words 9 to 12 */
            x_8(x->a, 0x0f);
            x_8(x->a, 0x3a);
            x_8(x->a, 0x0f);
            x_8(x->a, 0xc0 | 3 << 3 | 1);
            x_8(x->a, 4);
            x_rr(x->a, X_66 | X_0F | 0xfe, 0, 3);
            legacy(x, 0xcd, 0, 2); /* sha256msg2: sigma 1 */
            x_rm(x->a, X_F3 | X_0F | 0x7f, 0, ENV, (int32_t)(h->d + i));
        } else { /* sha256rnds2 takes two words from register 0 */
            legacy_load(x, 1, h->d + i);
            legacy_load(x, 2, h->a + i);
            x_rm(x->a, X_F3 | X_0F | 0x7e, 0, ENV,
                 (int32_t)(h->b + i + (h->op == IR_VEC_sha2ch ? 8 : 0)));
            legacy(x, 0xcb, 1, 2);
            x_rm(x->a, X_F3 | X_0F | 0x7f, 1, ENV, (int32_t)(h->d + i));
        }
    }
    v_wrote(x, h->d, x->total);
    return true;
}

/* ---- SHA-512: the host has no instructions for it, but this is far less than the helper's general way ---- */

static uint64_t ror(uint64_t v, unsigned n)
{
    return v >> n | v << (64 - n);
}

static void sha512_schedule(uint64_t *d, const uint64_t *a, const uint64_t *b)
{
    uint64_t w[4];
    const uint64_t first[4] = { d[1], d[2], d[3], a[0] },
                   middle[4] = { a[1], a[2], a[3], b[0] };
    for (unsigned i = 0; i < 4; i++) {
        uint64_t s = first[i], e = i < 2 ? b[2 + i] : w[i - 2];
        w[i] = d[i] + (ror(s, 1) ^ ror(s, 8) ^ s >> 7) + middle[i] +
               (ror(e, 19) ^ ror(e, 61) ^ e >> 6);
    }
    memcpy(d, w, sizeof(w));
}

static void sha512_rounds(uint64_t *v, const uint64_t *s, const uint64_t *w)
{
    uint64_t a = s[3], b = s[2], c = v[3], d = v[2], e = s[1], f = s[0], g = v[1], h = v[0];
    for (unsigned i = 0; i < 2; i++) {
        uint64_t t1 = h + (ror(e, 14) ^ ror(e, 18) ^ ror(e, 41)) + (g ^ (e & (f ^ g))) + w[i];
        uint64_t t2 = (ror(a, 28) ^ ror(a, 34) ^ ror(a, 39)) + ((a & b) | (c & (a | b)));
        h = g;
        g = f;
        f = e;
        e = d + t1;
        d = c;
        c = b;
        b = a;
        a = t1 + t2;
    }
    v[3] = a;
    v[2] = b;
    v[1] = e;
    v[0] = f;
}

/* Offsets of d and a; of b, with the number of elements in bits 20 and up and the operation in bits 32 and up. */
static uint64_t sha512_call(void *cpu, uint64_t d_off, uint64_t a_off, uint64_t more)
{
    uint8_t *base = cpu;
    unsigned op = (unsigned)(more >> 32);
    for (unsigned i = 0; i < (more >> 20 & 0xfff) * 8; i += 32) {
        uint64_t d[4], a[4], b[4];
        memcpy(d, base + d_off + i, 32);
        memcpy(a, base + a_off + i, 32);
        memcpy(b, base + (more & 0xfffff) + i, 32);
        if (op == IR_VEC_sha2ms) {
            sha512_schedule(d, a, b);
        } else {
            sha512_rounds(d, a, op == IR_VEC_sha2ch ? b + 2 : b);
        }
        memcpy(base + d_off + i, d, 32);
    }
    return 0;
}

static bool sha512(struct vec *x)
{
    const struct ir_vec *h = x->h;
    struct ra *r = x->r;
    ra_spill_all(r);
    x_mov_imm(x->a, RSI, h->d);
    x_mov_imm(x->a, RDX, h->a);
    x_mov_imm(x->a, RCX, h->b | (uint64_t)h->n << 20 | (uint64_t)h->op << 32);
    x_mov_imm(x->a, RAX, (uint64_t)(uintptr_t)sha512_call);
    x_call(x->a, r->th->clean);
    r->sites[r->n_sites++] = (struct tcg_site){ x->a->at, r->insn };
    vec_drop(r);
    return true;
}

/* Carry-less product of lanes, reduced by x^128 + x^7 + x^2 + x + 1. GCM has the bits of each byte the other way round. */
static bool ghash(struct vec *x)
{
    const struct ir_vec *h = x->h;
    const uint32_t clmul = VX(3, 1, 0, 0x44), reflect = VX(3, 1, 1, 0xce), xor = Q(0xef);
    if (!x->evex || h->sew != 2 || !v_feature(x, HOST_GFNI | HOST_VPCLMUL)) {
        return false;
    }
    unsigned matrix = v_const(x, 0x8040201008040201), poly = v_const(x, 0x87), n = x->chunk;
    const uint32_t keep = x->r->vs.busy;
    for (unsigned i = 0; i < x->n_chunks; i++) {
        unsigned s = v_get(x, h->d + i * n, n), k = v_get(x, h->a + i * n, n);
        unsigned a = v_new(x), b = v_new(x), lo = v_new(x), hi = v_new(x), t = v_new(x);
        v_move(x, n, a, s);
        if (h->op == IR_VEC_ghsh) {
            v_op(x, xor, n, a, s, v_get(x, h->b + i * n, n));
        }
        v_op_imm(x, reflect, n, a, a, matrix, 0);
        v_op_imm(x, reflect, n, b, k, matrix, 0);
        v_op_imm(x, clmul, n, lo, a, b, 0x00);
        v_op_imm(x, clmul, n, hi, a, b, 0x11);
        v_op_imm(x, clmul, n, t, a, b, 0x01);
        v_op_imm(x, clmul, n, a, a, b, 0x10);
        v_op(x, xor, n, t, t, a);
        for (unsigned fold = 0; fold < 2;
             fold++) { /* what overlaps both halves; then the upper half's upper part */
            v_op_imm(x, B(0x73), n, 7, a, t, 8);
            v_op_imm(x, B(0x73), n, 3, b, t, 8);
            v_op(x, xor, n, lo, lo, a);
            v_op(x, xor, n, hi, hi, b);
            v_op_imm(x, clmul, n, t, hi, poly, fold ? 0x00 : 0x01);
        }
        v_op(x, xor, n, lo, lo, t);
        v_op_imm(x, reflect, n, lo, lo, matrix, 0);
        v_put(x, lo, h->d + i * n, n);
        x->r->vs.busy = keep;
    }
    return true;
}

bool vec_crypto(struct vec *x)
{
    const struct ir_vec *h = x->h;
    if (x->active || x->chunk < 16) {
        return false;
    }
    if (h->op >= IR_VEC_sha2ms && h->op <= IR_VEC_sha2cl) {
        return h->sew == 3 ? sha512(x) : sha256(x);
    }
    if (h->op == IR_VEC_ghsh || h->op == IR_VEC_gmul) {
        return ghash(x);
    }
    return h->op >= IR_VEC_aesenc && h->op <= IR_VEC_aesz && h->sew == 2 && aes(x);
}
