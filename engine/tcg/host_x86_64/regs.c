/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Register allocation of the x86-64 back end: one forward pass with the last use of each temp known.
 */
#include "engine/tcg/host_x86_64/target.h"

#include <assert.h>

/* rbx, r12 to r14 survive C calls; rdi and r8 to r11 do not. */
const uint8_t pin_regs[N_PINS] = { RBX, R12, R13, R14, RDI, R8, R9, R10, R11 };
const uint8_t scratch_regs[N_SCRATCH] = { RAX, RCX, RDX, RSI };

static int scratch_index(unsigned reg)
{
    for (int i = 0; i < N_SCRATCH; i++) {
        if (scratch_regs[i] == reg) {
            return i;
        }
    }
    return -1;
}

int32_t ra_global_off(const struct ra *r, unsigned g)
{
    return (int32_t)r->ir->globals[g].offset;
}

static int32_t slot_off(int slot)
{
    return ENV_OFF(spill) + 8 * slot;
}

static void note_use(struct ra *r, ir_ref ref, unsigned i)
{
    if (ref != IR_NONE && ir_kind(ref) == IR_TEMP) {
        r->last[ir_index(ref)] = (uint16_t)(i + 1);
    }
}

/* Which globals are floating-point values here, if there are registers for them. */
static void x_start(struct ra *r)
{
    const struct ir *ir = r->ir;
    memset(r->x_reg, -1, ir->n_globals);
    memset(r->x_held, -1, sizeof(r->x_held));
    memset(r->is_fp, 0, ir->n_globals);
    r->x_busy = 0;
    r->x_on = !r->region;
    for (unsigned i = 0; i < ir->n_ops && r->x_on; i++) {
        const struct ir_op *op = &ir->ops[i];
        const ir_ref ref[] = { op->d, op->a, op->b, op->c };
        r->x_on = op->op != IR_call || !(op->aux & IR_CALL_VEC);
        for (unsigned k = 0; k < 4 && op->op == IR_call; k++) {
            if (ref[k] != IR_NONE && ir_kind(ref[k]) == IR_GLOBAL && r->pin[ir_index(ref[k])] < 0) {
                r->is_fp[ir_index(ref[k])] |= x86_fp_operand(op, k);
            }
        }
    }
}

void ra_start(struct ra *r)
{
    const struct ir *ir = r->ir;
    memset(r->last, 0, ir->n_temps * sizeof(r->last[0]));
    memset(r->t_reg, -1, ir->n_temps);
    memset(r->t_slot, -1, ir->n_temps);
    memset(r->g_reg, -1, ir->n_globals);
    r->busy = 0;
    r->slots = 0;
    r->fail = false;
    memset(r->boxed, 0, sizeof(r->boxed));
    r->clock = 0;
    x_start(r);
    for (unsigned i = 0; i < N_SCRATCH; i++) {
        r->held[i] = IR_NONE;
    }
    for (unsigned i = 0; i < ir->n_ops; i++) {
        const struct ir_op *op = &ir->ops[i];
        note_use(r, op->a, i);
        note_use(r, op->b, i);
        note_use(r, op->c, i);
        note_use(r, op->e, i);
        if (ir_op_info[op->op].flags & IRF_EXIT && ir->exits[op->imm].kind == IR_EXIT_INDIRECT) {
            note_use(r, ir->exits[op->imm].ref, i);
        }
    }
}

void x_load(struct asm_buf *a, unsigned w, unsigned reg, struct opnd o)
{
    unsigned wide = w == 64 ? X_W : 0;
    if (o.place == IN_REG) {
        if (o.reg != reg || w == 32) {
            x_rr(a, 0x8b | wide, reg, o.reg);
        }
    } else if (o.place == IN_MEM) {
        x_rm(a, 0x8b | wide, reg, ENV, o.disp);
    } else if (o.place == IN_XMM) {
        x_rr(a, X_66 | X_0F | 0x7e | wide, o.reg, reg);
    } else {
        x_mov_imm(a, reg, w == 32 ? (uint32_t)o.imm : (uint64_t)(int64_t)o.imm);
    }
}

void x_alu(struct asm_buf *a, unsigned n, unsigned w, unsigned reg, struct opnd o)
{
    unsigned wide = w == 64 ? X_W : 0;
    if (o.place == IN_REG) {
        x_rr(a, (n << 3 | 3) | wide, reg, o.reg);
    } else if (o.place == IN_MEM) {
        x_rm(a, (n << 3 | 3) | wide, reg, ENV, o.disp);
    } else {
        x_alu_imm(a, n, wide, reg, o.imm);
    }
}

bool ra_dies(const struct ra *r, ir_ref ref)
{
    return ir_kind(ref) == IR_TEMP && r->last[ir_index(ref)] <= r->i + 1;
}

static void spill_temp(struct ra *r, unsigned t)
{
    if (r->t_slot[t] >= 0) {
        return; /* temps never change: the slot is still right */
    }
    if (r->slots == UINT64_MAX) {
        r->fail = true;
        return;
    }
    int slot = __builtin_ctzll(~r->slots);
    r->slots |= 1ull << slot;
    r->t_slot[t] = (int8_t)slot;
    x_rm(&r->a, 0x89 | X_W, scratch_regs[r->t_reg[t]], ENV, slot_off(slot));
}

struct opnd ra_home(const struct ra *r, unsigned n)
{
    if (r->pin[n] >= 0) {
        return (struct opnd){ .place = IN_REG, .reg = (uint8_t)r->pin[n] };
    }
    if (r->xpin[n] >= 0) {
        return (struct opnd){ .place = IN_XMM, .reg = (uint8_t)r->xpin[n] };
    }
    return (struct opnd){ .place = IN_MEM, .disp = ra_global_off(r, n) };
}

bool ra_keep(struct ra *r, ir_ref ref, struct opnd *o)
{
    unsigned n = ir_index(ref);
    if (ref == IR_NONE) {
        *o = (struct opnd){ .place = IS_IMM };
        return true;
    }
    switch (ir_kind(ref)) {
    case IR_CONST:
        *o = (struct opnd){ .place = IS_IMM, .imm = (int32_t)r->ir->consts[n] };
        return (uint64_t)(int64_t)o->imm == r->ir->consts[n];
    case IR_GLOBAL:
        *o = ra_home(r, n);
        return true;
    default:
        if (r->t_reg[n] >= 0) {
            spill_temp(r, n);
        }
        *o = (struct opnd){ .place = IN_MEM, .disp = slot_off(r->t_slot[n]) };
        return true;
    }
}

/* Forgets what a scratch register holds, keeping it elsewhere if it matters. */
static void vacate(struct ra *r, unsigned s)
{
    ir_ref h = r->held[s];
    if (h == IR_NONE) {
        return;
    }
    if (ir_kind(h) == IR_TEMP) {
        if (r->last[ir_index(h)] > r->i) {
            spill_temp(r, ir_index(h));
        }
        r->t_reg[ir_index(h)] = -1;
    } else {
        r->g_reg[ir_index(h)] = -1;
    }
    r->held[s] = IR_NONE;
}

static unsigned pick(struct ra *r)
{
    int best = -1;
    unsigned best_cost = ~0u;
    for (unsigned s = 0; s < N_SCRATCH; s++) {
        if (r->busy >> s & 1) {
            continue;
        }
        /* Free ones first, then cached globals, then temps; the longest unused among equals. */
        unsigned class = r->held[s] == IR_NONE ? 0 : ir_kind(r->held[s]) == IR_GLOBAL ? 1 : 2;
        unsigned cost = class << 24 | (r->age[s] & 0xffffff);
        if (cost < best_cost) {
            best_cost = cost;
            best = (int)s;
        }
    }
    if (best < 0) {
        r->fail = true; /* an op that needs more than four: a bug the tests would show; the block is cut */
        return 0;
    }
    vacate(r, (unsigned)best);
    r->busy |= (uint8_t)(1u << best);
    r->age[best] = ++r->clock;
    return (unsigned)best;
}

unsigned ra_scratch(struct ra *r)
{
    return scratch_regs[pick(r)];
}

void ra_take(struct ra *r, unsigned reg)
{
    int at = scratch_index(reg);
    assert(at >= 0); /* callers name scratch registers only */
    unsigned s = (unsigned)at;
    ir_ref h = r->held[s];
    r->busy |= (uint8_t)(1u << s);
    if (h != IR_NONE && ir_kind(h) == IR_TEMP && r->last[ir_index(h)] > r->i) {
        for (unsigned o = 0; o < N_SCRATCH; o++) {
            if (r->held[o] == IR_NONE && !(r->busy >> o & 1)) { /* move rather than spill */
                x_rr(&r->a, 0x8b | X_W, scratch_regs[o], reg);
                r->held[o] = h;
                r->t_reg[ir_index(h)] = (int8_t)o;
                r->held[s] = IR_NONE;
                return;
            }
        }
    }
    vacate(r, s);
}

static struct opnd in_reg(unsigned reg)
{
    return (struct opnd){ .place = IN_REG, .reg = (uint8_t)reg };
}

static struct opnd in_scratch(struct ra *r, int s)
{
    r->busy |= (uint8_t)(1u << s);
    r->age[s] = ++r->clock;
    return in_reg(scratch_regs[s]);
}

struct opnd ra_use(struct ra *r, ir_ref ref, unsigned w)
{
    unsigned n = ir_index(ref);
    if (ir_kind(ref) == IR_CONST) {
        int64_t v = (int64_t)r->ir->consts[n];
        if (w == 32 || (v >= INT32_MIN && v <= INT32_MAX)) {
            return (struct opnd){ .place = IS_IMM, .imm = (int32_t)v };
        }
        return in_reg(ra_use_reg(r, ref));
    }
    if (ir_kind(ref) == IR_GLOBAL) {
        if (r->pin[n] >= 0) {
            return in_reg((unsigned)r->pin[n]);
        }
        if (r->g_reg[n] >= 0) {
            return in_scratch(r, r->g_reg[n]);
        }
        return r->xpin[n] >= 0 ? in_reg(ra_use_reg(r, ref)) : ra_home(r, n);
    }
    return r->t_reg[n] >= 0 ? in_scratch(r, r->t_reg[n])
                            : (struct opnd){ .place = IN_MEM, .disp = slot_off(r->t_slot[n]) };
}

unsigned ra_use_reg(struct ra *r, ir_ref ref)
{
    unsigned n = ir_index(ref);
    if (ir_kind(ref) == IR_CONST) {
        unsigned reg = ra_scratch(r);
        x_mov_imm(&r->a, reg, r->ir->consts[n]);
        return reg;
    }
    bool copy = ir_kind(ref) == IR_GLOBAL && r->xpin[n] >= 0 && r->g_reg[n] < 0;
    struct opnd o = copy ? ra_home(r, n) : ra_use(r, ref, 64);
    if (o.place == IN_REG) {
        return o.reg;
    }
    unsigned s = pick(r);
    x_load(&r->a, 64, scratch_regs[s], o);
    r->held[s] = ref;
    if (ir_kind(ref) == IR_GLOBAL) {
        r->g_reg[n] = (int8_t)s;
    } else {
        r->t_reg[n] = (int8_t)s;
    }
    return scratch_regs[s];
}

unsigned ra_dest(struct ra *r, ir_ref d)
{
    if (d != IR_NONE && ir_kind(d) == IR_GLOBAL && r->pin[ir_index(d)] >= 0) {
        return (unsigned)r->pin[ir_index(d)];
    }
    return ra_scratch(r);
}

unsigned ra_dest_reuse(struct ra *r, ir_ref d, ir_ref a, struct opnd oa)
{
    bool pinned = ir_kind(d) == IR_GLOBAL && r->pin[ir_index(d)] >= 0;
    if (!pinned && oa.place == IN_REG && ir_kind(a) == IR_TEMP && ra_dies(r, a)) {
        return oa.reg;
    }
    return ra_dest(r, d);
}

/* ---- fixed registers of compact code ---- */

static void forget(struct ra *r, unsigned s)
{
    ir_ref h = r->held[s];
    if (h != IR_NONE) {
        *(ir_kind(h) == IR_TEMP ? &r->t_reg[ir_index(h)] : &r->g_reg[ir_index(h)]) = -1;
        r->held[s] = IR_NONE;
    }
}

void ra_clobber(struct ra *r, unsigned reg)
{
    unsigned s = (unsigned)scratch_index(reg);
    ir_ref h = r->held[s];
    if (h != IR_NONE && (ir_kind(h) == IR_GLOBAL || r->last[ir_index(h)] <= r->i + 1)) {
        r->busy |= (uint8_t)(1u << s);
        forget(r, s);
    } else {
        ra_take(r, reg);
    }
}

void ra_address(struct ra *r, ir_ref ref, int32_t disp)
{
    unsigned s = (unsigned)scratch_index(RSI);
    if (r->held[s] != ref) {
        ra_take(r, RSI);
    }
    unsigned base = ra_use_reg(r, ref);
    if (base == RSI && ir_kind(ref) == IR_TEMP && (!ra_dies(r, ref) || r->ir->ops[r->i].b == ref)) {
        ra_take(r, RSI); /* moves it */
        base = ra_use_reg(r, ref);
    }
    if (disp) {
        x_rm(&r->a, 0x8d | X_W, RSI, base, disp);
    } else if (base != RSI) {
        x_rr(&r->a, 0x8b | X_W, RSI, base);
    }
    forget(r, s);
    r->busy |= (uint8_t)(1u << s);
}

void ra_value(struct ra *r, unsigned reg, ir_ref ref, unsigned w)
{
    unsigned s = (unsigned)scratch_index(reg);
    if (r->held[s] == ref && ref != IR_NONE) {
        r->busy |= (uint8_t)(1u << s);
        return;
    }
    ra_clobber(r, reg);
    if (ir_kind(ref) == IR_CONST) {
        uint64_t v = r->ir->consts[ir_index(ref)];
        if (v == 0) {
            x_rr(&r->a, 0x33, reg, reg);
        } else {
            x_mov_imm(&r->a, reg, w == 64 ? v : (uint32_t)v);
        }
    } else {
        x_load(&r->a, w, reg, ra_use(r, ref, w));
    }
}

/* ---- globals cached in xmm registers ---- */

static void x_forget_one(struct ra *r, unsigned n)
{
    if (r->x_reg[n] >= 0) {
        r->x_held[r->x_reg[n]] = -1;
        r->x_reg[n] = -1;
    }
}

static unsigned x_claim(struct ra *r, unsigned n)
{
    int best = -1;
    if (r->x_reg[n] >= 0) {
        best = r->x_reg[n];
    }
    for (int x = FIRST_XMM; x < 16 && r->x_reg[n] < 0; x++) { /* a free one, else the longest unused */
        if (r->x_busy >> x & 1) {
            continue;
        }
        if (best < 0 || (r->x_held[x] < 0 && r->x_held[best] >= 0) ||
            ((r->x_held[x] < 0) == (r->x_held[best] < 0) && r->x_age[x] < r->x_age[best])) {
            best = x;
        }
    }
    if (r->x_held[best] >= 0) {
        r->x_reg[r->x_held[best]] = -1;
    }
    r->x_held[best] = (int16_t)n;
    r->x_reg[n] = (int8_t)best;
    r->x_busy |= (uint16_t)(1u << best);
    r->x_age[best] = ++r->clock;
    return (unsigned)best;
}

unsigned ra_x_use(struct ra *r, unsigned n)
{
    bool there = r->x_reg[n] >= 0;
    unsigned x = x_claim(r, n);
    if (!there) {
        x_rm(&r->a, X_0F | X_F2 | 0x10, x, ENV, ra_global_off(r, n));
    }
    return x;
}

unsigned ra_x_dest(struct ra *r, unsigned n)
{
    return x_claim(r, n);
}

bool ra_x_live(const struct ra *r)
{
    for (unsigned x = FIRST_XMM; x < 16; x++) {
        if (r->x_held[x] >= 0) {
            return true;
        }
    }
    return false;
}

void ra_x_forget(struct ra *r)
{
    memset(r->x_reg, -1, r->ir->n_globals);
    memset(r->x_held, -1, sizeof(r->x_held));
}

void ra_done(struct ra *r, ir_ref d, unsigned reg)
{
    if (d == IR_NONE) {
        return;
    }
    unsigned n = ir_index(d);
    int s = scratch_index(reg);
    if (ir_kind(d) == IR_GLOBAL) {
        if (r->pin[n] >= 0) {
            if ((unsigned)r->pin[n] != reg) {
                x_rr(&r->a, 0x8b | X_W, (unsigned)r->pin[n], reg);
            }
            return;
        }
        r->boxed[n / 64] &= ~(1ull << n % 64);
        x_forget_one(r, n);
        if (r->xpin[n] >= 0) {
            x_rr(&r->a, X_66 | X_0F | 0x6e | X_W, (unsigned)r->xpin[n], reg);
        } else {
            x_rm(&r->a, 0x89 | X_W, reg, ENV, ra_global_off(r, n));
        }
        if (r->g_reg[n] >= 0 && r->g_reg[n] != s) {
            r->held[r->g_reg[n]] = IR_NONE;
        }
    }
    if (s < 0) { /* a value that stayed in another global's pin */
        r->fail |= ir_kind(d) == IR_TEMP;
        if (ir_kind(d) == IR_GLOBAL) {
            r->g_reg[n] = -1;
        }
        return;
    }
    if (r->held[s] != IR_NONE && r->held[s] != d) { /* reused from a dying temp */
        if (ir_kind(r->held[s]) == IR_TEMP) {
            r->t_reg[ir_index(r->held[s])] = -1;
        } else {
            r->g_reg[ir_index(r->held[s])] = -1;
        }
    }
    r->held[s] = d;
    r->age[s] = ++r->clock;
    if (ir_kind(d) == IR_GLOBAL) {
        r->g_reg[n] = (int8_t)s;
    } else {
        r->t_reg[n] = (int8_t)s;
    }
}

void ra_done_xmm(struct ra *r, unsigned n, bool is_boxed)
{
    if (r->g_reg[n] >= 0) {
        r->held[r->g_reg[n]] = IR_NONE;
        r->g_reg[n] = -1;
    }
    r->boxed[n / 64] &= ~(1ull << n % 64);
    r->boxed[n / 64] |= (uint64_t)is_boxed << n % 64;
    if (r->xpin[n] < 0) { /* movsd */
        x_rm(&r->a, X_0F | X_F2 | 0x11, (unsigned)r->x_reg[n], ENV, ra_global_off(r, n));
    }
}

static void free_temp(struct ra *r, ir_ref ref)
{
    if (ref == IR_NONE || ir_kind(ref) != IR_TEMP || r->last[ir_index(ref)] > r->i + 1) {
        return;
    }
    unsigned t = ir_index(ref);
    if (r->t_slot[t] >= 0) {
        r->slots &= ~(1ull << r->t_slot[t]);
        r->t_slot[t] = -1;
    }
    if (r->t_reg[t] >= 0) {
        r->held[r->t_reg[t]] = IR_NONE;
        r->t_reg[t] = -1;
    }
}

void ra_op_end(struct ra *r)
{
    const struct ir_op *op = &r->ir->ops[r->i];
    free_temp(r, op->a);
    free_temp(r, op->b);
    free_temp(r, op->c);
    free_temp(r, op->e);
    free_temp(r, op->d);
    r->busy = 0;
    r->x_busy = 0;
}

void ra_spill_all(struct ra *r)
{
    for (unsigned s = 0; s < N_SCRATCH; s++) {
        vacate(r, s);
    }
}

uint8_t ra_live_mask(struct ra *r)
{
    uint8_t m = 0;
    for (unsigned s = 0; s < N_SCRATCH; s++) {
        ir_ref h = r->held[s];
        if (h != IR_NONE && (ir_kind(h) == IR_GLOBAL || r->last[ir_index(h)] > r->i + 1)) {
            m |= (uint8_t)(1u << s);
        }
    }
    return m;
}
