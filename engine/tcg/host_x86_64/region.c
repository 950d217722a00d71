/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regions of the second tier on x86-64: which guest registers get host registers of their own inside the region, the code that goes in
 * and out, and the jumps between its pieces. What is inside a piece is generated as in the first tier, with other pins.
 *
 * Inside, a global is in one of nine general registers, in an xmm register, or in memory, the same at every op of the region. Globals pinned
 * in the first tier keep their register or live in memory. Runs on the thread that compiles.
 */
#include "engine/tcg/host_x86_64/target.h"

#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <stdlib.h>

#define FLAG_COST 32 /* of looking at MXCSR, by operations that look at their results instead */
#define MAX_JUMPS (T2_PIECES * IR_MAX_EXITS)

struct region {
    struct t2_work *w;
    const struct host_data *h;
    const struct tcg_guest *g;
    unsigned piece; /* being generated */
    bool fp;        /* floats live in xmm registers */
    bool live;      /* ... and MXCSR's flags are the guest's */
    uint32_t fp_ops, calls, flags; /* by weight: floating point that is inline here, calls of helpers, accesses to the flags */
    uint32_t weight[IR_MAX_GLOBALS];
    bool is_fp[IR_MAX_GLOBALS], written[IR_MAX_GLOBALS];
    int8_t pin[IR_MAX_GLOBALS], xpin[IR_MAX_GLOBALS];
    struct thunks th;
    uint32_t enter_at, leave_at;
    struct groups groups;
    uint32_t label[T2_PIECES];
    unsigned n_jumps;
    struct {
        uint32_t at;
        unsigned to;
    } jumps[MAX_JUMPS];
};

int region_target(const struct ra *r, unsigned exit)
{
    return r->region ? r->region->w->target[r->region->piece][exit] : -1;
}

void region_jump(struct ra *r, int cc, unsigned piece)
{
    struct region *g = r->region;
    if (cc < 0 && piece == g->piece + 1) {
        return; /* laid out behind this one */
    }
    if (g->n_jumps == MAX_JUMPS) {
        r->fail = true;
        return;
    }
    g->jumps[g->n_jumps].to = piece;
    g->jumps[g->n_jumps++].at = cc < 0 ? x_jmp(&r->a, r->a.at) : x_jcc(&r->a, (unsigned)cc, r->a.at);
}

void region_leave(struct ra *r)
{
    if (r->region) {
        x_call(&r->a, r->region->leave_at);
    }
}

/* ---- who gets a register ---- */

static void count(struct region *g, ir_ref ref, unsigned weight, bool is_fp)
{
    if (ref != IR_NONE && ir_kind(ref) == IR_GLOBAL) {
        g->weight[ir_index(ref)] += weight;
        g->is_fp[ir_index(ref)] |= is_fp;
    }
}

/* False when a piece has vector code, which has its own way with registers. */
static bool count_piece(struct region *g, const struct ir *ir, unsigned weight)
{
    bool ok = true;
    for (unsigned i = 0; i < ir->n_ops; i++) {
        const struct ir_op *op = &ir->ops[i];
        const ir_ref ref[] = { op->d, op->a, op->b, op->c, op->e };
        for (unsigned k = 0; k < ARRAY_LEN(ref); k++) {
            count(g, ref[k], weight, x86_fp_operand(op, k));
        }
        if (op->d != IR_NONE && ir_kind(op->d) == IR_GLOBAL) {
            g->written[ir_index(op->d)] = true;
        }
        g->flags += (op->op == IR_ldenv || op->op == IR_stenv) && op->imm == g->g->fp_flags ? weight : 0;
        if (op->op == IR_call) {
            bool inlined = op->aux >> IR_FP_SHIFT;
            g->fp_ops += x86_fp_inline(op) ? weight : 0;
            g->calls += inlined ? 0 : weight;
            ok &= !(op->aux & IR_CALL_VEC);
        }
        if (ir_op_info[op->op].flags & IRF_EXIT && ir->exits[op->imm].kind == IR_EXIT_INDIRECT) {
            count(g, ir->exits[op->imm].ref, weight, false);
        }
    }
    return ok;
}

/* The heaviest global of a kind without a register, or -1. */
static int heaviest(const struct region *g, bool is_fp)
{
    int best = -1;
    for (unsigned i = 0; i < g->g->n_globals; i++) {
        if (g->is_fp[i] == is_fp && g->pin[i] < 0 && g->xpin[i] < 0 && g->weight[i] &&
            (best < 0 || g->weight[i] > g->weight[best])) {
            best = (int)i;
        }
    }
    return best;
}

/* The lightest global that holds a general register. */
static int lightest(const struct region *g)
{
    int best = -1;
    for (unsigned i = 0; i < g->g->n_globals; i++) {
        if (g->pin[i] >= 0 && (best < 0 || g->weight[i] < g->weight[best])) {
            best = (int)i;
        }
    }
    return best;
}

static void assign(struct region *g)
{
    memcpy(g->pin, g->h->pin, sizeof(g->pin));
    memset(g->xpin, -1, sizeof(g->xpin));
    /* A call saves and loads all of them. */
    g->fp = g->fp_ops > 3 * g->calls;
    /* MXCSR is read only when all that was begun is done. */
    g->live = g->fp && g->fp_ops > FLAG_COST * g->flags;
    if (!g->fp) {
        memset(g->is_fp, 0, sizeof(g->is_fp));
    }
    for (int i, x = FIRST_XMM; x < 16 && (i = heaviest(g, true)) >= 0; x++) {
        g->xpin[i] = (int8_t)x;
        g->pin[i] = -1;
    }
    for (int in, out; (in = heaviest(g, false)) >= 0 && (out = lightest(g)) >= 0;) {
        if (g->weight[in] <= g->weight[out] + 1) {
            return;
        }
        g->pin[in] = g->pin[out];
        g->pin[out] = -1;
    }
}

/* ---- in and out ---- */

enum { MOV_LOAD = 0x8b | X_W, MOV_STORE = 0x89 | X_W };

static void move(struct ra *r, unsigned op, int reg, unsigned global)
{
    x_rm(&r->a, op, (unsigned)reg, ENV, (int32_t)r->region->g->globals[global].offset);
}

static void gen_enter(struct ra *r)
{
    const struct region *g = r->region;
    for (unsigned i = 0; i < g->g->n_globals; i++) {
        if (g->h->pin[i] >= 0 && g->pin[i] < 0) {
            move(r, MOV_STORE, g->h->pin[i], i);
        }
    }
    for (unsigned i = 0; i < g->g->n_globals; i++) {
        if (g->h->pin[i] < 0 && g->pin[i] >= 0) {
            move(r, MOV_LOAD, g->pin[i], i);
        }
        if (g->xpin[i] >= 0) {
            move(r, X_0F | X_F2 | 0x10, g->xpin[i], i);
        }
    }
    if (g->live) {
        x86_clear_flags(&r->a, g->h, RAX);
    }
    groups_forget(&r->a, g->groups.n_near, false);
    x_rm(&r->a, 0xc7, 0, ENV, ENV_OFF(in_region));
    x_32(&r->a, 1);
    x_8(&r->a, 0xc3);
}

static void gen_leave(struct ra *r)
{
    const struct region *g = r->region;
    for (unsigned i = 0; i < g->g->n_globals; i++) {
        if (g->h->pin[i] < 0 && g->pin[i] >= 0 && g->written[i]) {
            move(r, MOV_STORE, g->pin[i], i);
        }
        if (g->xpin[i] >= 0 && g->written[i]) {
            move(r, X_0F | X_F2 | 0x11, g->xpin[i], i);
        }
    }
    for (unsigned i = 0; i < g->g->n_globals; i++) {
        if (g->h->pin[i] >= 0 && g->pin[i] < 0) {
            move(r, MOV_LOAD, g->h->pin[i], i);
        }
    }
    if (g->live) {
        x86_take_flags(&r->a, g->g, g->h, RAX, RDX);
    }
    x_8(&r->a, 0xc3);
}

/* ---- the whole ---- */

static void gen_head(struct ra *r)
{
    struct region *g = r->region;
    for (unsigned i = 0; i < sizeof(x86_entry); i++) {
        x_8(&r->a, x86_entry[i]);
    }
    g->th = g->h->th;
    x86_call_thunks(&r->a, g->g, g->pin, g->xpin, g->live ? g->h : NULL, g->groups.n_near, &g->th);
    g->enter_at = r->a.at;
    gen_enter(r);
    g->leave_at = r->a.at;
    gen_leave(r);
    for (unsigned i = 0; i < g->w->n; i++) {
        if (g->w->entry[i]) {
            g->w->entry_at[i] = r->a.at - T2_CODE_AT;
            x_mov_imm(&r->a, RAX, UINT64_MAX >> 1); /* place() knows where the count is */
            g->w->entered_at[g->w->n_entered_at++] = r->a.at - 8;
            x_rm(&r->a, 0xff | X_W, 0, RAX, 0); /* inc: see tier2_sample() */
            x_call(&r->a, g->enter_at);
            g->piece = g->w->n; /* nothing is behind this */
            region_jump(r, -1, i);
        }
    }
}

static void gen_pieces(struct ra *r)
{
    struct region *g = r->region;
    for (unsigned i = 0; i < g->w->n && !r->fail && !r->a.full; i++) {
        r->ir = g->w->ir[i];
        g->piece = i;
        g->label[i] = r->a.at;
        groups_find(&g->groups, r->ir, i);
        gen_ops(r);
        r->exit_base += r->ir->n_exits;
    }
    g->piece = g->w->n;
    gen_stubs(r);
    for (unsigned i = 0; i < g->n_jumps && !r->a.full; i++) {
        uint32_t rel = g->label[g->jumps[i].to] - (g->jumps[i].at + 4);
        memcpy(r->a.base + g->jumps[i].at, &rel, 4);
    }
}

static void log_region(const struct t2_work *w)
{
    if (log_traces('h')) {
        log_trace('h', "region of %u bytes, %u pieces", w->code_size, w->n);
        for (uint32_t at = 0; at < w->code_size; at += 256) { /* lines have a limit */
            AUTO_BUF b = BUF_INIT;
            for (uint32_t i = at; i < at + 256 && i < w->code_size; i++) {
                buf_printf(&b, "%02x", w->code[T2_CODE_AT + i]);
            }
            log_trace('h', "region %5x: %s", at, b.data);
        }
    }
}

static void make_exits(struct t2_work *w)
{
    unsigned n = 0;
    for (unsigned i = 0; i < w->n; i++) {
        n += w->ir[i]->n_exits;
    }
    w->block->n_exits = (uint16_t)n;
    n = 0;
    for (unsigned i = 0; i < w->n; i++) {
        for (unsigned k = 0; k < w->ir[i]->n_exits; k++, n++) {
            w->block->exits[n] = (struct tcg_exit){ .off = (unsigned)w->ir[i]->exits[k].off & 4095, .which = (uint16_t)(n << 1) };
        }
    }
}

void region_exit(struct ra *r)
{
    struct t2_work *w = r->region->w;
    if (w->n_exit_at < T2_RELOCS) {
        w->exit_at[w->n_exit_at++] = r->a.at - 4;
    } else {
        r->fail = true;
    }
}

bool x86_region(struct tcg_vm *t, struct t2_work *w)
{
    struct host_data *h = t->host_data;
    if (!w->host && !(w->host = ra_new(T2_MAX_OPS))) {
        return false;
    }
    struct ra *r = w->host;
    struct region *g = xnew(struct region);
    bool ok = true;
    g->w = w;
    g->h = h;
    g->g = t->guest;
    for (unsigned i = 0; i < w->n; i++) {
        ok &= count_piece(g, w->ir[i], w->weight[i]);
    }
    groups_look(&g->groups, w);
    assign(g);
    if (!ok || (w->floats_only && !g->fp && !g->groups.chain)) {
        free(g);
        return false;
    }
    r->live_flags = g->live;
    r->groups = &g->groups;
    make_exits(w);
    w->block->code = T2_CODE_AT;
    w->n_exit_at = w->n_entered_at = 0;
    r->a = (struct asm_buf){ .base = w->code, .at = T2_CODE_AT, .end = T2_CODE_AT + T2_CODE,
                             .relocs = w->relocs, .max_relocs = T2_RELOCS };
    r->v = w->v;
    r->b = w->block;
    r->region = g;
    r->th = &g->th;
    r->pin = g->pin;
    r->xpin = g->xpin;
    r->exit_base = r->n_fixups = r->n_sites = 0;
    r->ir = w->ir[0];
    r->fail = false;
    vec_start(r, 0);
    gen_head(r);
    gen_pieces(r);
    ok = !r->fail && !r->a.full;
    w->n_relocs = r->a.n_relocs;
    w->code_size = r->a.at - T2_CODE_AT;
    if (ok) {
        w->n_sites = r->n_sites;
        w->sites = r->sites;
        log_region(w);
    }
    r->region = NULL;
    free(g);
    return ok;
}

void x86_place(struct tcg_vm *t, struct t2_work *w, struct tcg_block *b)
{
    uint32_t by = b->code - T2_CODE_AT;
    for (uint32_t i = 0; i < w->n_relocs; i++) {
        uint32_t rel;
        memcpy(&rel, w->code + w->relocs[i], 4);
        rel -= by; /* the target stays where it is */
        memcpy(w->code + w->relocs[i], &rel, 4);
    }
    for (uint32_t i = 0; i < w->n_exit_at; i++) {
        uint32_t n;
        memcpy(&n, w->code + w->exit_at[i], 4);
        n = cache_ref(t, &b->exits[n]);
        memcpy(w->code + w->exit_at[i], &n, 4);
    }
    const uint64_t *entered = &cache_extra(t, b)->entered;
    for (uint32_t i = 0; i < w->n_entered_at; i++) {
        memcpy(w->code + w->entered_at[i], &entered, 8);
    }
    memcpy(t->buf.rw + b->code, w->code + T2_CODE_AT, w->code_size);
    for (uint32_t i = 0; i < w->n_sites; i++) {
        w->sites[i].host += by;
    }
    for (uint32_t i = 0; i < b->n_exits; i++) {
        b->exits[i] = w->block->exits[i];
    }
}

void x86_redirect(struct tcg_vm *t, struct tcg_block *b, uint32_t to)
{
    uint8_t bytes[8];
    uint64_t word;
    memcpy(bytes, t->buf.rw + b->code, 8);
    if (to) {
        uint32_t rel = to - (b->code + 5);
        bytes[0] = 0xe9;
        memcpy(bytes + 1, &rel, 4);
    } else {
        memcpy(bytes, x86_entry, sizeof(x86_entry));
        if (b->lean) { /* it counts again */
            uint32_t rel = ((const struct host_data *)t->host_data)->th.warm - (b->code + 5);
            bytes[0] = 0xe8;
            memcpy(bytes + 1, &rel, 4);
        }
    }
    memcpy(&word, bytes, 8);
    __atomic_store_n((uint64_t *)(void *)(t->buf.rw + b->code), word, __ATOMIC_RELEASE);
}
