/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared TLB checks in regions of the second tier: accesses off the same base register within a piece, close to each other, are a group.
 * The first one looks whether all of the group's bytes lie in one page that may be read (or written) and remembers where the host has
 * that page; the others only use it. Where that is not so each access makes its own check, out of line.
 *
 * The remembered place stays right within a piece: what changes translations ends the piece, and what takes pages away from
 * other threads waits until no vCPU is inside translated code or a helper. No access is moved, merged or dropped, and none is made
 * earlier than the guest makes it.
 */
#include "engine/tcg/host_x86_64/target.h"

#define MAX_SPAN 1024
#define MAX_OPEN 8

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

struct open {
    ir_ref base;
    bool write;
    unsigned group;
};

static void join(struct groups *g, struct open *open, unsigned *n, const struct ir_op *op, unsigned i)
{
    int32_t lo = (int32_t)op->imm, hi = lo + (1 << (op->mo & MO_SIZE));
    for (unsigned k = 0; k < *n; k++) {
        struct group *have = &g->group[open[k].group];
        if (open[k].base != op->a || open[k].write != (op->op == IR_st)) {
            continue;
        }
        int32_t low = lo < have->lo ? lo : have->lo, high = hi > have->hi ? hi : have->hi;
        if ((int64_t)high - low <= MAX_SPAN) {
            have->lo = low;
            have->hi = high;
            have->n++;
            g->of[i] = (uint16_t)(open[k].group + 1);
            return;
        }
        open[k] = open[--*n]; /* too far: a new one begins */
        break;
    }
    if (g->n == MAX_GROUPS || *n == MAX_OPEN) {
        return;
    }
    g->group[g->n] = (struct group){ .lo = lo, .hi = hi, .n = 1, .slot = -1 };
    open[(*n)++] = (struct open){ op->a, op->op == IR_st, g->n };
    g->of[i] = (uint16_t)++g->n;
}

void groups_find(struct groups *g, const struct ir *ir)
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
        for (unsigned k = 0; k < n;) { /* the base changes behind this op */
            if (op->d == open[k].base) {
                open[k] = open[--n];
            } else {
                k++;
            }
        }
    }
}

/* Is the whole group in one page? Leaves the page's addend in t0 and in the slot. */
static void lead(struct ra *r, const struct group *g, unsigned base, bool write, struct fixup *f)
{
    struct asm_buf *a = &r->a;
    int32_t tags = SPACE_OFF(tag) + (write ? (int32_t)sizeof(((struct tcg_space *)0)->tag[0]) : 0);
    x_rm(a, 0x8d | X_W, f->t0, base, g->lo);
    x_rr(a, 0x8b | X_W, f->t1, f->t0);
    x_rr(a, 0xc1, 5, f->t0);
    x_8(a, 12);
    x_alu_imm(a, 4, 0, f->t0, TLB_SIZE - 1);
    x_alu_imm(a, 4, X_W, f->t1, -4096);
    x_rmx(a, 0x3b | X_W, f->t1, SPACE, f->t0, 3, tags);
    f->jump = x_jcc(a, CC_NE, a->at);
    x_rm(a, 0x8d | X_W, f->t1, base, g->hi - 1);
    x_alu_imm(a, 4, X_W, f->t1, -4096);
    x_rmx(a, 0x3b | X_W, f->t1, SPACE, f->t0, 3, tags);
    f->fp_jump[0] = x_jcc(a, CC_NE, a->at);
    x_rmx(a, 0x8b | X_W, f->t0, SPACE, f->t0, 3, SPACE_OFF(addend));
    x_rm(a, 0x89 | X_W, f->t0, ENV, f->slot);
}

bool group_lookup(struct ra *r, unsigned base, bool write, struct fixup *f, unsigned t0, unsigned t1)
{
    struct group *g = r->groups->of[r->i] ? &r->groups->group[r->groups->of[r->i] - 1] : NULL;
    if (!g || g->n < 2) {
        return false;
    }
    bool first = g->slot < 0;
    if (first) {
        if (r->slots == UINT64_MAX) {
            g->n = 0;
            return false;
        }
        g->slot = (int8_t)__builtin_ctzll(~r->slots);
        r->slots |= 1ull << g->slot; /* until the piece ends */
    }
    f->group = first ? GROUP_FIRST : GROUP_OTHER;
    f->slot = ENV_OFF(spill) + 8 * g->slot;
    f->t0 = (uint8_t)t0;
    f->t1 = (uint8_t)t1;
    if (first) {
        lead(r, g, base, write, f);
    } else {
        x_rm(&r->a, 0x8b | X_W, t0, ENV, f->slot);
        x_rr(&r->a, 0x85 | X_W, t0, t0);
        f->jump = x_jcc(&r->a, CC_E, r->a.at);
    }
    return true;
}

uint32_t group_stub(struct ra *r, const struct fixup *f)
{
    bool write = f->kind == FIX_STORE;
    if (f->group == GROUP_FIRST) {
        x_here(&r->a, f->fp_jump[0]);
        x_rm(&r->a, 0xc7 | X_W, 0, ENV, f->slot); /* nothing is remembered */
        x_32(&r->a, 0);
    }
    uint32_t miss = gen_lookup_in(r, f->base, f->disp, f->mo, write, f->t0, f->t1);
    if (write) {
        gen_store_value(r, f);
    } else {
        gen_load_value(r, f);
    }
    x_jmp(&r->a, f->back);
    return miss;
}
