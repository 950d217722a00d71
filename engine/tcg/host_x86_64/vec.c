/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frame of vector code on x86-64: host features, the cache of chunks of the CPU state in host registers, masks,
 * the way to the helper out of line. The operations are in the other vec_*.c files.
 */
#include "engine/tcg/host_x86_64/vec.h"

#include <cpuid.h>

/* Registers: 16 to 31 with AVX-512, which legacy SSE code elsewhere does not see; else 4 to 15 (fp.c uses 0 to 2). */
static unsigned first_reg(const struct ra *r)
{
    return r->vs.features & HOST_AVX512 ? 16 : 4;
}

static unsigned last_reg(const struct ra *r)
{
    return r->vs.features & HOST_AVX512 ? 31 : 15;
}

uint32_t x86_features(void)
{
    unsigned a, b, c, d, c1, lo, hi;
    uint32_t f = 0;
    if (!__get_cpuid(1, &a, &b, &c1, &d) || !(c1 >> 27 & 1) ||
        !__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        return 0;
    }
    __asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    if ((lo & 6) != 6 || !(b >> 5 & 1)) {
        return 0;
    }
    f |= HOST_AVX2;
    f |= c1 >> 25 & 1 ? HOST_AES : 0;
    f |= c1 >> 1 & 1 ? HOST_PCLMUL : 0;
    f |= b >> 29 & 1 ? HOST_SHA : 0;
    const uint32_t base = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 |
                          1u << 31; /* F DQ CD BW VL */
    if ((lo & 0xe6) == 0xe6 && (b & base) == base) {
        f |= HOST_AVX512;
        f |= c >> 1 & 1 ? HOST_VBMI : 0;
        f |= c >> 6 & 1 ? HOST_VBMI2 : 0;
        f |= c >> 8 & 1 ? HOST_GFNI : 0;
        f |= c >> 9 & 1 ? HOST_VAES : 0;
        f |= c >> 10 & 1 ? HOST_VPCLMUL : 0;
        f |= c >> 12 & 1 ? HOST_BITALG : 0;
        f |= c >> 14 & 1 ? HOST_POPCNT : 0;
    }
    return f;
}

/* ---- the cache ---- */

void vec_start(struct ra *r, uint32_t features)
{
    memset(r->vs.chunk, 0, sizeof(r->vs.chunk));
    r->vs.features = features;
    r->vs.busy = 0;
    r->vs.n_slow = r->vs.n_pool = 0;
    r->vs.snapshot = (struct vec_snapshot){ 0, 0 };
    r->vs.changed = false;
    r->vs.used = false;
}

void vec_drop(struct ra *r)
{
    memset(r->vs.chunk, 0, sizeof(r->vs.chunk));
    r->vs.changed = true;
}

static bool overlap(const struct vec_chunk *c, int32_t off, unsigned bytes)
{
    return c->bytes && off < c->off + c->bytes && c->off < off + (int32_t)bytes;
}

void vec_wrote(struct ra *r, int32_t off, unsigned bytes)
{
    for (unsigned i = 0; i < 32; i++) {
        if (overlap(&r->vs.chunk[i], off, bytes)) {
            r->vs.chunk[i].bytes = 0;
            r->vs.changed = true;
        }
    }
}

struct vec_snapshot vec_snapshot(struct ra *r)
{
    struct vec_state *s = &r->vs;
    if (!s->changed) {
        return s->snapshot;
    }
    s->changed = false;
    s->snapshot = (struct vec_snapshot){ (uint16_t)s->n_pool, 0 };
    for (unsigned i = 0; i < 32; i++) {
        if (!s->chunk[i].bytes) {
            continue;
        }
        if (s->n_pool == VEC_POOL) {
            vec_drop(r);
            s->changed = false;
            s->n_pool = s->snapshot.first;
            s->snapshot.n = 0;
            break;
        }
        s->pool[s->n_pool] = s->chunk[i];
        s->pool[s->n_pool++].reg = (uint8_t)i;
        s->snapshot.n++;
    }
    return s->snapshot;
}

static struct vx encode(uint32_t features, uint32_t code, unsigned bytes)
{
    return (
        struct vx){ .code = code & ~VX_NEW, .evex = features & HOST_AVX512, .bytes = bytes };
}

/* Moves a chunk between a register and memory at base + disp. */
static void transfer(struct asm_buf *a, uint32_t features, bool store, unsigned bytes,
                     unsigned reg, int32_t disp)
{
    const bool evex = features & HOST_AVX512;
    uint32_t code = store ? VX(1, 2, evex, 0x7f) : VX(1, 2, evex, 0x6f);
    if (bytes == 8) {
        code = store ? VX(1, 1, evex, 0xd6) : VX(1, 2, evex, 0x7e);
    } else if (bytes == 4) {
        code = store ? VX(1, 1, 0, 0x7e) : VX(1, 1, 0, 0x6e);
    }
    vx_rm(a, encode(features, code, bytes), reg, 0, ENV, disp);
}

void vec_reload(struct ra *r, struct vec_snapshot s)
{
    for (unsigned i = 0; i < s.n; i++) {
        const struct vec_chunk *c = &r->vs.pool[s.first + i];
        transfer(&r->a, r->vs.features, false, c->bytes, c->reg, c->off);
    }
}

static unsigned pick(struct vec *x)
{
    struct vec_state *s = &x->r->vs;
    int best = -1;
    for (unsigned i = first_reg(x->r); i <= last_reg(x->r); i++) {
        if (s->busy >> i & 1) {
            continue;
        }
        if (!s->chunk[i].bytes) {
            best = (int)i;
            break;
        }
        if (best < 0 || s->chunk[i].age < s->chunk[best].age) {
            best = (int)i;
        }
    }
    if (best < 0) {
        x->r->fail = true; /* our own bug; the block is cut */
        return first_reg(x->r);
    }
    s->changed |= s->chunk[best].bytes != 0;
    s->chunk[best].bytes = 0;
    s->busy |= 1u << best;
    return (unsigned)best;
}

unsigned v_new(struct vec *x)
{
    return pick(x);
}

void v_done(struct vec *x, unsigned reg)
{
    x->r->vs.busy &= ~(1u << reg);
}

void v_load(struct vec *x, unsigned reg, uint32_t off, unsigned bytes)
{
    transfer(x->a, x->r->vs.features, false, bytes, reg, (int32_t)off);
}

void v_store(struct vec *x, unsigned reg, uint32_t off, unsigned bytes)
{
    transfer(x->a, x->r->vs.features, true, bytes, reg, (int32_t)off);
}

unsigned v_get(struct vec *x, uint32_t off, unsigned bytes)
{
    struct vec_state *s = &x->r->vs;
    for (unsigned i = 0; i < 32; i++) {
        if (s->chunk[i].bytes >= bytes && s->chunk[i].off == (int32_t)off) {
            s->busy |= 1u << i;
            s->chunk[i].age = ++s->clock;
            return i;
        }
    }
    unsigned reg = pick(x);
    v_load(x, reg, off, bytes);
    s->chunk[reg] = (struct vec_chunk){ .off = (int32_t)off,
                                        .bytes = (uint8_t)bytes,
                                        .age = ++s->clock };
    s->changed = true;
    return reg;
}

unsigned v_copy(struct vec *x, uint32_t off, unsigned bytes)
{
    unsigned from = v_get(x, off, bytes), reg = pick(x);
    v_move(x, bytes, reg, from);
    return reg;
}

void v_wrote(struct vec *x, uint32_t off, unsigned bytes)
{
    vec_wrote(x->r, (int32_t)off, bytes);
}

void v_put(struct vec *x, unsigned reg, uint32_t off, unsigned bytes)
{
    struct vec_state *s = &x->r->vs;
    v_store(x, reg, off, bytes);
    v_wrote(x, off, bytes);
    s->chunk[reg] = (struct vec_chunk){ .off = (int32_t)off,
                                        .bytes = (uint8_t)bytes,
                                        .age = ++s->clock };
    s->changed = true;
}

unsigned v_gp(struct vec *x, unsigned n)
{
    if (x->gp[n] < 0) {
        x->gp[n] = (int)ra_scratch(x->r);
    }
    return (unsigned)x->gp[n];
}

/* ---- emission ---- */

struct vx v_enc(const struct vec *x, uint32_t code, unsigned bytes)
{
    return encode(x->r->vs.features, code, bytes);
}

void v_op(struct vec *x, uint32_t code, unsigned bytes, unsigned d, unsigned s1, unsigned s2)
{
    vx_rr(x->a, v_enc(x, code, bytes), d, s1, s2);
}

void v_op_imm(struct vec *x, uint32_t code, unsigned bytes, unsigned d, unsigned s1,
              unsigned s2, unsigned imm)
{
    v_op(x, code, bytes, d, s1, s2);
    x_8(x->a, imm);
}

void v_op_k(struct vec *x, uint32_t code, unsigned bytes, unsigned d, unsigned s1, unsigned s2,
            unsigned k, bool zero)
{
    struct vx e = v_enc(x, code, bytes);
    e.k = k;
    e.zero = zero;
    vx_rr(x->a, e, d, s1, s2);
}

void v_move(struct vec *x, unsigned bytes, unsigned d, unsigned s)
{
    if (d != s) {
        v_op(x, VX(1, 2, x->evex, 0x6f), bytes, d, 0, s);
    }
}

void v_zero(struct vec *x, unsigned d)
{
    v_op(x, VX(1, 1, 0, 0xef), x->evex ? 64 : 32, d, d, d);
}

void v_splat_gp(struct vec *x, unsigned sew, unsigned d, unsigned gp)
{
    static const uint32_t to[] = { VX(2, 1, 0, 0x7a), VX(2, 1, 0, 0x7b), VX(2, 1, 0, 0x7c),
                                   VX(2, 1, 1, 0x7c) };
    static const uint32_t old[] = { VX(2, 1, 0, 0x78), VX(2, 1, 0, 0x79), VX(2, 1, 0, 0x58),
                                    VX(2, 1, 0, 0x59) };
    if (x->evex) {
        v_op(x, to[sew], 64, d, 0, gp);
    } else {
        v_op(x, VX(1, 1, 1, 0x6e), 16, d, 0, gp);
        v_op(x, old[sew], 32, d, 0, d);
    }
}

unsigned v_const(struct vec *x, uint64_t pattern)
{
    unsigned reg = v_new(x);
    if (pattern == 0) {
        v_zero(x, reg);
    } else {
        x_mov_imm(x->a, v_gp(x, 0), pattern);
        v_splat_gp(x, 3, reg, v_gp(x, 0));
    }
    return reg;
}

bool v_scalar_const(const struct vec *x, uint64_t *v)
{
    return x->h->flags & IR_VEC_SCALAR && ir_is_const(x->r->ir, ir_vec_arg(x->h, x->op), v);
}

unsigned v_scalar(struct vec *x)
{
    ir_ref ref = ir_vec_arg(x->h, x->op);
    uint64_t v;
    unsigned reg, sew = x->h->sew;
    if (ir_is_const(x->r->ir, ref, &v)) {
        const uint64_t ones[] = { 0x0101010101010101, 0x0001000100010001, 0x0000000100000001,
                                  1 };
        return v_const(x, (sew == 3 ? v : v & ((1ull << (8 << sew)) - 1)) * ones[sew]);
    }
    struct opnd o = ra_use(x->r, ref, 64);
    reg = v_new(x);
    if (o.place == IN_MEM) { /* vpbroadcast from memory */
        static const uint32_t mem[] = { VX(2, 1, 0, 0x78), VX(2, 1, 0, 0x79), VX(2, 1, 0, 0x58),
                                        VX(2, 1, 0, 0x59) };
        uint32_t code = mem[sew] | (sew == 3 && x->evex ? VX_W : 0);
        vx_rm(x->a, v_enc(x, code, x->evex ? 64 : 32), reg, 0, ENV, o.disp);
    } else {
        v_splat_gp(x, sew, reg, o.reg);
    }
    return reg;
}

bool v_feature(const struct vec *x, uint32_t features)
{
    return (x->r->vs.features & features) == features;
}

/* ---- active elements ---- */

unsigned v_active(struct vec *x, unsigned i, unsigned chunk)
{
    if (!x->active) {
        return 0;
    }
    const struct ir_vec *h = x->h;
    unsigned elems = chunk / x->es, before = i * elems;
    if (h->flags & IR_VEC_MASKED) {
        vx_kmov_mem(x->a, elems < 8 ? 8 : elems, true, 1, ENV, (int32_t)(h->m + before / 8));
    }
    if (h->flags & IR_VEC_VL) {
        unsigned vl = v_gp(x, 0), t = v_gp(x, 1), to = h->flags & IR_VEC_MASKED ? 2 : 1;
        x_rm(x->a, 0x8b, vl, ENV, (int32_t)x->r->v->tcg->guest->vl_offset);
        if (before) {
            x_mov_imm(x->a, t, 0);
            x_alu_imm(x->a, 5, 0, vl, (int32_t)before);
            x_rr(x->a, X_0F | 0x42, vl, t); /* cmovb */
        }
        if (h->n - before > 255) { /* bzhi looks at 8 bits */
            x_mov_imm(x->a, t, 64);
            x_rr(x->a, 0x3b, vl, t);
            x_rr(x->a, X_0F | 0x47, vl, t); /* cmova */
        }
        x_mov_imm(x->a, t, UINT64_MAX);
        x_vex(x->a, 2, 0, 1, 0xf5, vl, vl, t); /* bzhi vl, t, vl */
        vx_kmov(x->a, 64, true, to, vl);
        if (to == 2) {
            vx_klogic(x->a, 0x41, 1, 1, 2);
        }
    }
    return 1;
}

void v_put_active(struct vec *x, unsigned result, uint32_t off, unsigned bytes, unsigned k)
{
    static const uint32_t blend[] = { VX(1, 3, 0, 0x6f), VX(1, 3, 1, 0x6f), VX(1, 2, 0, 0x6f),
                                      VX(1, 2, 1, 0x6f) };
    if (k) {
        unsigned old = v_get(x, off, bytes);
        v_op_k(x, blend[__builtin_ctz(x->es)], bytes, old, 0, result, k, false);
        result = old;
    }
    v_put(x, result, off, bytes);
}

void v_put_mask(struct vec *x, unsigned from, unsigned k, unsigned i)
{
    unsigned elems = x->chunk / x->es, bits = elems < 8 ? 8 : elems;
    int32_t at = (int32_t)(x->h->d + i * elems / 8);
    if (elems < 8) { /* part of a byte */
        x_mov_imm(x->a, v_gp(x, 0), (1u << elems) - 1);
        vx_kmov(x->a, 64, true, k ? 2 : 1, v_gp(x, 0));
        if (k) {
            vx_klogic(x->a, 0x41, 1, 1, 2);
        }
        vx_klogic(x->a, 0x41, from, from, 1);
        k = 1;
    }
    if (k) {
        vx_kmov_mem(x->a, bits, true, 2, ENV, at);
        vx_klogic(x->a, 0x42, 2, 1, 2);
        vx_klogic(x->a, 0x45, from, from, 2);
    }
    vx_kmov_mem(x->a, bits, false, from, ENV, at);
    v_wrote(x, (uint32_t)at, bits / 8);
}

/* ---- the way out of line ---- */

static void keep_args(struct ra *r, struct vec_slow *s)
{
    const ir_ref args[3] = { s->op->a, s->op->b, s->op->c };
    for (unsigned i = 0; i < 3; i++) {
        if (args[i] != IR_NONE && ir_is_const(r->ir, args[i], &s->value[i])) {
            s->is_const |= (uint8_t)(1u << i);
        } else {
            (void)ra_keep(r, args[i], &s->arg[i]); /* fails for constants only */
        }
    }
}

void v_give_up(struct vec *x, unsigned cc)
{
    x->slow->jump[x->slow->n_jumps++] = x_jcc(x->a, cc, x->a->at);
}

/* Floating point once more, with the host's flags; falls to the helper by further jumps, with live registers saved. */
static void again(struct ra *r, const struct fixup *f, struct vec_slow *s, uint8_t live)
{
    for (unsigned i = 0; i < s->n_again; i++) {
        x_here(&r->a, s->again_jump[i]);
    }
    save_live(r, live);
    vec_fp_again(r, s);
    restore_live(r, live);
    vec_reload(r, f->snapshot);
    x_jmp(&r->a, f->back);
}

void gen_vec_stub(struct ra *r, const struct fixup *f)
{
    static const uint8_t arg_regs[] = { RSI, RDX, RCX };
    struct vec_slow *s = &r->vs.slow[f->vec];
    uint8_t live = f->live;
    for (unsigned i = 0; i < N_SCRATCH; i++) {
        if (!f->dest_none && scratch_regs[i] == f->dest) {
            live &= (uint8_t) ~(1u << i);
        }
    }
    const unsigned inline_jumps = s->n_jumps;
    if (s->again) {
        again(r, f, s, live);
    }
    if (s->n_jumps == 0) {
        return;
    }
    for (unsigned i = 0; i < inline_jumps; i++) {
        x_here(&r->a, s->jump[i]);
    }
    save_live(r, live);
    for (unsigned i = inline_jumps; i < s->n_jumps; i++) {
        x_here(&r->a, s->jump[i]); /* from above, where they are saved */
    }
    for (unsigned i = 0; i < 3; i++) {
        if (s->is_const >> i & 1) {
            x_mov_imm(&r->a, arg_regs[i], s->value[i]);
        } else {
            x_load(&r->a, 64, arg_regs[i], s->arg[i]);
        }
    }
    x_mov_imm(&r->a, RAX, (uint64_t)s->op->imm);
    x_call(&r->a,
           s->op->aux & (IR_CALL_PURE | IR_CALL_NO_GLOBALS) ? r->th->clean : r->th->reads);
    r->sites[r->n_sites++] = (struct tcg_site){ r->a.at, f->insn };
    if (!f->dest_none && f->dest != RAX) {
        x_rr(&r->a, 0x8b | X_W, f->dest, RAX);
    }
    restore_live(r, live);
    vec_reload(r, f->snapshot);
    x_jmp(&r->a, f->back);
}

/* ---- one hint ---- */

static bool (*const family[256])(struct vec *x) = {
    ['E'] = vec_int,    ['C'] = vec_compare, ['L'] = vec_mask,   ['X'] = vec_mask,
    ['W'] = vec_widen,  ['N'] = vec_widen,   ['R'] = vec_reduce, ['P'] = vec_permute,
    ['M'] = vec_memory, ['F'] = vec_fp,      ['G'] = vec_fp,     ['H'] = vec_fp,
    ['A'] = vec_crypto,
};

bool gen_vec(struct ra *r, const struct ir_op *op)
{
    const struct ir_vec *h = ir_vec_of(r->ir, op);
    const uint32_t features = r->vs.features;
    if (!(features & HOST_AVX2) ||
        !(op->aux & (IR_CALL_PURE | IR_CALL_NO_GLOBALS | IR_CALL_READS)) ||
        r->vs.n_slow == IR_MAX_VECS) {
        return false;
    }
    struct vec_slow *s = &r->vs.slow[r->vs.n_slow];
    memset(s, 0, sizeof(*s));
    s->op = op;
    struct vec x = { .r = r,
                     .a = &r->a,
                     .op = op,
                     .h = h,
                     .es = 1u << h->sew,
                     .total = (unsigned)h->n << h->sew,
                     .evex = features & HOST_AVX512,
                     .gp = { -1, -1 },
                     .slow = s,
                     .active = h->flags & (IR_VEC_MASKED | IR_VEC_VL) };
    unsigned max = x.evex ? 64 : 32;
    x.chunk = x.total < max ? x.total : max;
    x.n_chunks = x.total / x.chunk;
    const char kind = ir_vec_info[h->op].kind;
    bool bits = kind == 'L' || kind == 'X';
    if ((x.active && !x.evex && !bits) || x.n_chunks > 16 || (x.total < 4 && !bits)) {
        return false; /* nothing shorter than 4 bytes moves between memory and a register */
    }
    keep_args(r, s);
    if (h->flags &
        IR_VEC_VL) { /* no register is taken from somebody behind the first jump out of line */
        v_gp(&x, 0);
        v_gp(&x, 1);
    }
    unsigned before = r->n_fixups;
    struct fixup *f = new_fixup(r, FIX_VEC);
    if (!family[(uint8_t)kind](&x)) {
        r->n_fixups = before;
        r->vs.busy = 0;
        return false;
    }
    r->vs.busy = 0;
    r->vs.used = true;
    f->vec = (uint16_t)r->vs.n_slow++;
    f->back = r->a.at;
    f->live = ra_live_mask(r);
    f->dest_none = op->d == IR_NONE;
    f->snapshot = vec_snapshot(r);
    if (op->d != IR_NONE) {
        f->dest = (uint8_t)v_gp(&x, 0);
        ra_done(r, op->d, f->dest);
    }
    return true;
}
