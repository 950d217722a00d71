/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Passes over one block of IR, each one function named in one list. The first tier runs these; they are linear.
 * No pass moves, merges or drops a memory access, a fence, a call with effects or an exit.
 */
#include "engine/tcg/ir_pass.h"

#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <stdlib.h>
#include <string.h>

/* Calls f for every operand slot an op reads. Exits of kind indirect read their ref too. */
static void each_use(struct ir *ir, struct ir_op *op, void (*f)(void *arg, ir_ref *r), void *arg)
{
    if (op->a != IR_NONE) {
        f(arg, &op->a);
    }
    if (op->b != IR_NONE) {
        f(arg, &op->b);
    }
    if (op->c != IR_NONE) {
        f(arg, &op->c);
    }
    if (op->e != IR_NONE) {
        f(arg, &op->e);
    }
    if (ir_op_info[op->op].flags & IRF_EXIT) {
        struct ir_exit *x = &ir->exits[op->imm];
        if (x->kind == IR_EXIT_INDIRECT) {
            f(arg, &x->ref);
        }
    }
}

static bool removable(const struct ir_op *op)
{
    if (op->op == IR_call) {
        return op->aux & IR_CALL_PURE;
    }
    return !(ir_op_info[op->op].flags & IRF_SIDE);
}

struct live {
    bool temp[IR_MAX_TEMPS];
    bool global[IR_MAX_GLOBALS];
};

static void mark_live(void *arg, ir_ref *r)
{
    struct live *l = arg;
    if (ir_kind(*r) == IR_TEMP) {
        l->temp[ir_index(*r)] = true;
    } else if (ir_kind(*r) == IR_GLOBAL) {
        l->global[ir_index(*r)] = true;
    }
}

/* Drops pure ops whose result nobody reads, global writes that are overwritten unseen included. */
static void drop_dead(struct ir *ir)
{
    struct live l;
    memset(l.temp, 0, ir->n_temps * sizeof(l.temp[0]));
    memset(l.global, true, ir->n_globals * sizeof(l.global[0]));
    unsigned keep = ir->n_ops; /* ops are compacted toward the end, then moved down */
    for (unsigned i = ir->n_ops; i-- > 0;) {
        struct ir_op *op = &ir->ops[i];
        if (op->d != IR_NONE) {
            bool *d = ir_kind(op->d) == IR_TEMP ? &l.temp[ir_index(op->d)]
                                                : &l.global[ir_index(op->d)];
            if (!*d && removable(op)) {
                continue;
            }
            if (!*d && op->op == IR_call && ir_kind(op->d) == IR_TEMP) {
                op->d = IR_NONE;
            }
            *d = false;
        }
        if (ir_observes_globals(op)) {
            memset(l.global, true, ir->n_globals * sizeof(l.global[0]));
        }
        each_use(ir, op, mark_live, &l);
        if (--keep != i) {
            ir->ops[keep] = *op;
        }
    }
    if (keep) {
        memmove(ir->ops, ir->ops + keep, (ir->n_ops - keep) * sizeof(ir->ops[0]));
        ir->n_ops -= keep;
    }
}

struct count {
    uint16_t uses[IR_MAX_TEMPS];
};

static void count_use(void *arg, ir_ref *r)
{
    struct count *c = arg;
    if (ir_kind(*r) == IR_TEMP) {
        c->uses[ir_index(*r)]++;
    }
}

struct touch {
    ir_ref global;
    bool hit;
};

static void touches(void *arg, ir_ref *r)
{
    struct touch *t = arg;
    t->hit |= *r == t->global;
}

/* May the write of global g at `to` happen at `from` already? */
static bool can_hoist(struct ir *ir, unsigned from, unsigned to, ir_ref g)
{
    struct touch t = { g, false };
    if (from + 8 < to) {
        return false; /* linear time; neighbours are what pays */
    }
    for (unsigned i = from + 1; i < to; i++) {
        struct ir_op *op = &ir->ops[i];
        if (ir_observes_globals(op) || op->d == g) {
            return false;
        }
        each_use(ir, op, touches, &t);
        if (t.hit) {
            return false;
        }
    }
    return true;
}

/* t = a op b; g = t  becomes  g = a op b, when t has no other reader. */
static void forward_destination(struct ir *ir)
{
    struct count c;
    uint16_t def[IR_MAX_TEMPS];
    memset(c.uses, 0, ir->n_temps * sizeof(c.uses[0]));
    for (unsigned i = 0; i < ir->n_ops; i++) {
        each_use(ir, &ir->ops[i], count_use, &c);
        ir_ref d = ir->ops[i].d;
        if (d != IR_NONE && ir_kind(d) == IR_TEMP) {
            def[ir_index(d)] = (uint16_t)i;
        }
    }
    for (unsigned i = 0; i < ir->n_ops; i++) {
        struct ir_op *op = &ir->ops[i];
        if (op->op == IR_mov && ir_kind(op->d) == IR_GLOBAL && ir_kind(op->a) == IR_TEMP &&
            c.uses[ir_index(op->a)] == 1 && can_hoist(ir, def[ir_index(op->a)], i, op->d)) {
            ir->ops[def[ir_index(op->a)]].d = op->d;
            ir_pass_remove(op);
        }
    }
    ir_pass_compact(ir);
}

static const struct {
    const char *name;
    void (*run)(struct ir *ir);
} passes[] = {
    { "ir_fuse", ir_fuse },
    { "drop_dead", drop_dead },
    { "forward_destination", forward_destination },
    { "ir_narrow", ir_narrow },
};

static void check_or_die(const struct ir *ir, const char *after)
{
    char why[128];
    if (!ir_check(ir, why, sizeof(why))) {
        log_error("tcg", "IR check after %s: %s", after, why);
        abort(); /* our own bug, never a guest's */
    }
}

void ir_optimise(struct ir *ir, bool check)
{
#ifdef VMD_DEBUG
    check = true;
#endif
    if (check) {
        check_or_die(ir, "translation");
    }
    for (unsigned i = 0; i < ARRAY_LEN(passes); i++) {
        passes[i].run(ir);
        if (check) {
            check_or_die(ir, passes[i].name);
        }
    }
}
