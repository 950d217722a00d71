/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared TLB checks in regions of the second tier: accesses off one base register within a piece, close to each other, are a
 * group; the base may advance by constants meanwhile. The first access looks whether all of the group's bytes lie in one page that may be read
 * (written, if there are stores) and remembers where the host has that page; the others only use it. Where that is not so
 * each access makes its own check, out of line.
 *
 * A group whose base stands still, moves by small steps or begins anew in the whole region remembers its page until the region is left,
 * so that the first access has a subtraction and a comparison in place of the TLB (tcg_vcpu.near_*).
 *
 * A group whose base was loaded in the region (the next element of a list) guesses its page's addend: as the last one. The TLB's tag and
 * addend are compared with that, exactly, each time, but the access waits for neither: its address is the base and the guess, and
 * the host predicts the comparison. alias.c sees to it that guesses are right where the guest's pages are scattered.
 *
 * What is remembered stays right: what changes translations ends the region or is C code, after which all is forgotten; what takes
 * pages away from other threads waits until no vCPU is inside translated code. No access is moved, merged or dropped, and none is
 * made earlier than the guest makes it.
 */
#include "engine/tcg/host_x86_64/target.h"

#include <stdlib.h>

enum { PP_66 = 1, PP_F3 = 2, VEX_L = 4 /* 256 bits */ };
#define MAX_SPAN 1024
#define MAX_OPEN 8
#define MAX_STEP 512 /* of a base whose page is worth remembering */

static bool groupable(const struct ir_op *op)
{
    return (op->op == IR_ld || op->op == IR_st) && !(op->mo & (MO_ALIGN | MO_AMO)) && ir_kind(op->a) != IR_CONST;
}

/* Nothing of before is known behind it. */
static bool is_barrier(const struct ir_op *op)
{
    if (op->op == IR_call) {
        return !(op->aux & (IR_CALL_PURE | IR_CALL_NO_GLOBALS)) && !(op->aux >> IR_FP_SHIFT);
    }
    return op->op == IR_amo || op->op == IR_cas || op->op == IR_fence;
}

/* The access itself, the page's addend in t0. */
static void access_value(struct ra *r, const struct fixup *f)
{
    if (f->kind == FIX_STORE) {
        gen_store_value(r, f);
    } else {
        gen_load_value(r, f);
    }
}

struct open {
    ir_ref base;
    int32_t moved; /* the base, since the first access */
    unsigned group;
};

/* The step of `base += step` */
static bool is_step(const struct ir *ir, const struct ir_op *op, int32_t *step)
{
    uint64_t v;
    if (op->op != IR_add || op->w != 64 || op->d != op->a || !ir_is_const(ir, op->b, &v) ||
        (int64_t)v > MAX_SPAN || (int64_t)v < -MAX_SPAN) {
        return false;
    }
    *step = (int32_t)v;
    return true;
}

/* Begins anew, at an address that another register holds: the next row, the first element. */
static bool is_restart(const struct ir *ir, const struct ir_op *op)
{
    uint64_t v;
    return op->op == IR_mov || op->op == IR_pcrel ||
           (op->op == IR_add && op->w == 64 && op->d != op->a && ir_is_const(ir, op->b, &v));
}

static void find_jumps(struct groups *g, const struct ir *ir)
{
    for (unsigned i = 0; i < ir->n_ops; i++) {
        const struct ir_op *op = &ir->ops[i];
        int32_t step;
        bool small = is_step(ir, op, &step) && abs(step) <= MAX_STEP;
        if (op->d != IR_NONE && ir_kind(op->d) == IR_GLOBAL && !small && !is_restart(ir, op)) {
            g->jumps[ir_index(op->d)] = true;
        }
        if (op->d != IR_NONE && ir_kind(op->d) == IR_GLOBAL && small) {
            g->steps[ir_index(op->d)] = true;
        }
    }
}

static bool extend(struct group *have, const struct open *o, const struct ir_op *op)
{
    int64_t lo = op->imm + o->moved, hi = lo + (1 << (op->mo & MO_SIZE));
    int64_t low = lo < have->lo ? lo : have->lo, high = hi > have->hi ? hi : have->hi;
    if (high - low > MAX_SPAN) {
        return false;
    }
    have->lo = (int32_t)low;
    have->hi = (int32_t)high;
    have->n++;
    have->write |= op->op == IR_st;
    return true;
}

static void join(struct groups *g, struct open *open, unsigned *n, const struct ir_op *op, unsigned i)
{
    for (unsigned k = 0; k < *n; k++) {
        if (open[k].base != op->a) {
            continue;
        }
        if (extend(&g->group[open[k].group], &open[k], op)) {
            g->of[i] = (uint16_t)(open[k].group + 1);
            return;
        }
        open[k] = open[--*n]; /* too far: a new one begins */
        break;
    }
    if (g->n == MAX_GROUPS || *n == MAX_OPEN) {
        return;
    }
    int32_t lo = (int32_t)op->imm, hi = lo + (1 << (op->mo & MO_SIZE));
    bool global = ir_kind(op->a) == IR_GLOBAL;
    bool guess = global && !g->plain && g->loaded[ir_index(op->a)] && !g->steps[ir_index(op->a)];
    bool near = global && !guess && !g->jumps[ir_index(op->a)];
    g->group[g->n] = (struct group){ .lo = lo, .hi = hi, .n = 1, .slot = -1, .write = op->op == IR_st,
                                     .near = near, .guess = guess };
    open[(*n)++] = (struct open){ op->a, 0, g->n };
    g->of[i] = (uint16_t)++g->n;
}

/* The base of a group changes behind this op. */
static void follow(const struct ir *ir, const struct ir_op *op, struct open *open, unsigned *n)
{
    for (unsigned k = 0; k < *n;) {
        int32_t step;
        if (op->d != open[k].base) {
            k++;
        } else if (is_step(ir, op, &step) && abs(open[k].moved + step) <= MAX_SPAN) {
            open[k++].moved += step;
        } else {
            open[k] = open[--*n];
        }
    }
}

static void find(struct groups *g, const struct ir *ir)
{
    struct open open[MAX_OPEN];
    unsigned n = 0;
    g->n = 0;
    memset(g->of, 0, ir->n_ops * sizeof(g->of[0]));
    for (unsigned i = 0; i < ir->n_ops; i++) {
        const struct ir_op *op = &ir->ops[i];
        if (groupable(op)) {
            join(g, open, &n, op, i);
        } else if (is_barrier(op)) {
            n = 0;
        }
        if (op->d != IR_NONE) {
            follow(ir, op, open, &n);
        }
    }
    for (unsigned i = 0; i < g->n; i++) {
        struct group *one = &g->group[i];
        one->near &= g->near < g->near_end;
        if (one->near) {
            one->slot = (int8_t)g->near++;
        }
    }
}

void groups_find(struct groups *g, const struct ir *ir, unsigned piece)
{
    g->guesses = 0;
    g->near = g->first_near[piece];
    g->near_end = g->near + g->count_near[piece];
    find(g, ir);
}

/* Does the op make one global from another by what an address survives? */
static bool passes_on(const struct ir *ir, const struct ir_op *op, bool load)
{
    uint64_t v;
    return op->d != IR_NONE && ir_kind(op->d) == IR_GLOBAL && op->a != IR_NONE && ir_kind(op->a) == IR_GLOBAL &&
           (op->op == IR_mov || (op->op == IR_add && op->w == 64 && ir_is_const(ir, op->b, &v)) ||
            (load && op->op == IR_ld && (op->mo & MO_SIZE) == MO_64));
}

/* All that has an address from one of `have`, in the whole region. */
static void spread(const struct t2_work *w, bool have[], bool load)
{
    for (bool more = true; more;) {
        more = false;
        for (unsigned i = 0; i < w->n; i++) {
            const struct ir *ir = w->ir[i];
            for (unsigned k = 0; k < ir->n_ops; k++) {
                const struct ir_op *op = &ir->ops[k];
                if (passes_on(ir, op, load) && have[ir_index(op->a)] && !have[ir_index(op->d)]) {
                    have[ir_index(op->d)] = more = true;
                }
            }
        }
    }
}

static bool loads_address(const struct ir_op *op)
{
    return op->op == IR_ld && (op->mo & MO_SIZE) == MO_64 && ir_kind(op->d) == IR_GLOBAL;
}

/* Does what this op loads come back to it as its base? */
static bool is_chain(const struct t2_work *w, const struct ir_op *op)
{
    bool have[IR_MAX_GLOBALS] = { false };
    if (!loads_address(op) || ir_kind(op->a) != IR_GLOBAL) {
        return false;
    }
    have[ir_index(op->d)] = true;
    spread(w, have, true);
    return have[ir_index(op->a)];
}

static void find_loaded(struct groups *g, const struct t2_work *w)
{
    int hottest = 0;
    for (unsigned i = 0; i < w->n; i++) {
        hottest = w->weight[i] > hottest ? w->weight[i] : hottest;
    }
    g->plain = w->plain;
    for (unsigned i = 0; i < w->n && !g->plain; i++) {
        for (unsigned k = 0; k < w->ir[i]->n_ops; k++) {
            const struct ir_op *op = &w->ir[i]->ops[k];
            if (loads_address(op)) {
                g->loaded[ir_index(op->d)] = true;
                g->chain = g->chain || (w->weight[i] == hottest && is_chain(w, op));
            }
        }
    }
    spread(w, g->loaded, false);
}

/* Hot pieces come first when slots are handed out. */
void groups_look(struct groups *g, const struct t2_work *w)
{
    find_loaded(g, w);
    for (unsigned i = 0; i < w->n; i++) {
        find_jumps(g, w->ir[i]);
    }
    for (int weight = UINT8_MAX; weight >= 0; weight--) {
        for (unsigned i = 0; i < w->n; i++) {
            if (w->weight[i] == weight) {
                g->near = g->first_near[i] = g->n_near;
                g->near_end = TCG_NEAR;
                find(g, w->ir[i]);
                g->n_near = g->near;
                g->count_near[i] = g->near - g->first_near[i];
            }
        }
    }
}

void groups_forget(struct asm_buf *a, unsigned n, bool addends)
{
    if (n == 0) {
        return;
    }
    _Static_assert(TCG_NEAR % 4 == 0, "stored by fours");
    x_vex(a, 1, PP_66, 0, 0xef, 0, 0, 0); /* vpxor */
    for (int32_t i = 0; i < (int32_t)n * 8; i += 32) {
        x_vex_m(a, 1, PP_F3 | VEX_L, 0, 0x7f, 0, 0, ENV, ENV_OFF(near_limit) + i); /* vmovdqu */
        if (addends) {
            x_vex_m(a, 1, PP_F3 | VEX_L, 0, 0x7f, 0, 0, ENV, ENV_OFF(near_addend) + i);
        }
    }
}

/* Is the whole group in the page that was remembered? Its addend to t0. */
static void lead_near(struct ra *r, const struct group *g, unsigned base, struct fixup *f)
{
    struct asm_buf *a = &r->a;
    int32_t at = 8 * g->slot;
    if (g->lo) {
        x_rm(a, 0x8d | X_W, f->t0, base, g->lo);
    } else {
        x_rr(a, 0x8b | X_W, f->t0, base);
    }
    x_rm(a, 0x2b | X_W, f->t0, ENV, ENV_OFF(near_page) + at);
    x_rm(a, 0x3b | X_W, f->t0, ENV, ENV_OFF(near_limit) + at);
    f->jump = x_jcc(a, CC_AE, a->at);
    x_rm(a, 0x8b | X_W, f->t0, ENV, f->slot);
}

/* The same out of line: remembers the page that the group is in. Falls through where it is in two, or not in the TLB. */
static void remember(struct ra *r, const struct group *g, const struct fixup *f)
{
    struct asm_buf *a = &r->a;
    int32_t at = 8 * g->slot, span = g->hi - g->lo;
    x_rm(a, 0xc7 | X_W, 0, ENV, f->slot);
    x_32(a, 0);
    uint32_t miss = gen_lookup_in(r, f->base, g->lo, MO_8, g->write, f->t0, f->t1);
    x_rm(a, 0x8d | X_W, f->t1, f->base, g->lo);
    x_alu_imm(a, 4, 0, f->t1, 4095);
    x_alu_imm(a, 7, 0, f->t1, 4096 - span);
    uint32_t two = x_jcc(a, CC_A, a->at);
    x_rm(a, 0x89 | X_W, f->t0, ENV, f->slot);
    x_rm(a, 0x8d | X_W, f->t1, f->base, g->lo);
    x_alu_imm(a, 4, X_W, f->t1, -4096);
    x_rm(a, 0x89 | X_W, f->t1, ENV, ENV_OFF(near_page) + at);
    x_rm(a, 0xc7 | X_W, 0, ENV, ENV_OFF(near_limit) + at);
    x_32(a, (uint32_t)(4097 - span));
    access_value(r, f);
    x_jmp(a, f->back);
    x_here(a, miss);
    x_here(a, two);
    x_rm(a, 0xc7 | X_W, 0, ENV, ENV_OFF(near_limit) + at);
    x_32(a, 0);
}

/* Is the whole group in one page? Leaves the page's addend in t0 and in the slot. */
static void lead(struct ra *r, const struct group *g, unsigned base, struct fixup *f)
{
    f->jump = gen_check(r, base, g->lo, g->hi - 1, 0, g->write, f->t0, f->t1);
    x_rm(&r->a, 0x89 | X_W, f->t0, ENV, f->slot);
}

/* The same with the addend guessed; f->t0 and f->t1 are exchanged. */
static void lead_guess(struct ra *r, const struct group *g, unsigned base, struct fixup *f)
{
    struct asm_buf *a = &r->a;
    uint8_t index = f->t0;
    f->jump = gen_check_tag(r, base, g->lo, g->hi - 1, 0, g->write, f->t0, f->t1);
    f->t0 = f->t1;
    f->t1 = index;
    x_rm(a, 0x8b | X_W, f->t0, ENV, f->slot);
    x_rmx(a, 0x3b | X_W, f->t0, SPACE, index, 0, TLB_OFF(addend));
    f->differs = x_jcc(a, CC_NE, a->at);
}

void group_differs(struct ra *r, const struct fixup *f, uint32_t *look)
{
    struct asm_buf *a = &r->a;
    x_here(a, f->differs);
    x_rmx(a, 0x8b | X_W, f->t0, SPACE, f->t1, 0, TLB_OFF(addend));
    x_rm(a, 0x89 | X_W, f->t0, ENV, f->slot);
    x_alu_mem_imm(a, 5, 0, ENV, ENV_OFF(guess_left), 1);
    *look = x_jcc(a, CC_L, a->at);
    access_value(r, f);
    x_jmp(a, f->back);
}

static int32_t slot_of(const struct group *g)
{
    return 8 * g->slot + (g->near ? ENV_OFF(near_addend) : g->guess ? ENV_OFF(guess) : ENV_OFF(spill));
}

bool group_lookup(struct ra *r, unsigned base, struct fixup *f, unsigned t0, unsigned t1)
{
    unsigned of = r->groups->of[r->i];
    struct group *g = of ? &r->groups->group[of - 1] : NULL;
    if (!g) {
        return false;
    }
    bool first = !g->begun;
    g->guess &= !first || r->groups->guesses < TCG_GUESSES;
    if (g->n < 2 && !g->near && !g->guess) {
        return false;
    }
    if (first && g->guess) {
        g->slot = (int8_t)r->groups->guesses++;
    } else if (first && !g->near) {
        if (r->slots == UINT64_MAX) {
            g->n = 0;
            return false;
        }
        g->slot = (int8_t)__builtin_ctzll(~r->slots);
        r->slots |= 1ull << g->slot; /* until the piece ends */
    }
    g->begun = true;
    f->group = first ? GROUP_FIRST : GROUP_OTHER;
    f->near = first && g->near;
    f->shared = *g;
    f->slot = slot_of(g);
    f->t0 = (uint8_t)t0;
    f->t1 = (uint8_t)t1;
    if (f->near) {
        lead_near(r, g, base, f);
    } else if (first && g->guess) {
        lead_guess(r, g, base, f);
    } else if (first) {
        lead(r, g, base, f);
    } else {
        x_rm(&r->a, 0x8b | X_W, t0, ENV, f->slot);
        x_rr(&r->a, 0x85 | X_W, t0, t0);
        f->jump = x_jcc(&r->a, CC_E, r->a.at);
    }
    return true;
}

uint32_t group_stub(struct ra *r, const struct fixup *f)
{
    if (f->near) {
        remember(r, &f->shared, f);
    } else if (f->group == GROUP_FIRST) {
        x_rm(&r->a, 0xc7 | X_W, 0, ENV, f->slot); /* nothing is remembered */
        x_32(&r->a, 0);
    }
    uint32_t miss = gen_lookup_in(r, f->base, f->disp, f->mo, f->kind == FIX_STORE, f->t0, f->t1);
    access_value(r, f);
    x_jmp(&r->a, f->back);
    return miss;
}
