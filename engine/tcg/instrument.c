/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adds calls to the IR of blocks somebody looks at: traces, coverage, plugins. One pass before the optimiser, so the tiers and back
 * ends know nothing of it.
 */
#include "engine/tcg/instrument.h"

#include "engine/base/mem.h"

#include <stdlib.h>

/* ---- what translated code calls ---- */

static uint64_t call_trace(void *cpu, uint64_t note, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    trace_block(tcg_of(cpu), (const struct tcg_note *)(uintptr_t)note);
    return 0;
}

static uint64_t call_cover(void *cpu, uint64_t note, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    cover_block(tcg_of(cpu), (const struct tcg_note *)(uintptr_t)note);
    return 0;
}

static uint64_t call_run(void *cpu, uint64_t call, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    plugin_call_run(tcg_of(cpu), (const struct note_call *)(uintptr_t)call);
    return 0;
}

static uint64_t call_memory(void *cpu, uint64_t call, uint64_t va, uint64_t what)
{
    struct tcg_vcpu *v = tcg_of(cpu);
    plugin_call_memory(v, (const struct note_call *)(uintptr_t)call,
                       va & v->tcg->guest->pc_mask, (unsigned)what);
    return 0;
}

/* A helper accessed memory: which instruction, which calls? */
void instrument_access(struct tcg_vcpu *v, uint64_t va, unsigned what)
{
    const struct tcg_block *b = v->interp_block;
    int32_t off = v->interp_insn;
    if (!v->in_code) {
        return;
    }
    if (v->tcg->config.backend == TCG_JIT) {
        pthread_mutex_lock(&v->tcg->lock);
        b = cache_by_host(v->tcg, v->host_ra);
        pthread_mutex_unlock(&v->tcg->lock);
        if (!b || !cache_site(v->tcg, v->host_ra, &off)) {
            return;
        }
    }
    const struct tcg_note *n = b->extra ? cache_extra(v->tcg, b)->note : NULL;
    for (unsigned i = 0; n && i < n->memory.n; i++) {
        if (n->off[n->memory.call[i].insn] == off) {
            plugin_call_memory(v, &n->memory.call[i], va & v->tcg->guest->pc_mask, what);
        }
    }
}

/* ---- the pass ---- */

struct pass {
    struct ir *ir;
    struct tcg_note *n;
    unsigned insn; /* index + 1 of the one whose ops are being copied */
};

static void put(struct pass *p, const struct ir_op *op)
{
    if (p->ir->n_ops >= IR_MAX_OPS - 1) {
        p->ir->overflow = true;
        return;
    }
    p->ir->ops[p->ir->n_ops++] = *op;
}

static void put_call(struct pass *p, ir_helper fn, const void *arg, ir_ref b, ir_ref c)
{
    ir_call(p->ir, fn, IR_CALL_NO_GLOBALS, false, ir_const(p->ir, (uint64_t)(uintptr_t)arg), b,
            c);
}

static void put_calls(struct pass *p, const struct note_calls *list, unsigned insn)
{
    for (unsigned i = 0; i < list->n; i++) {
        if (list->call[i].insn == insn) {
            put_call(p, call_run, &list->call[i], IR_NONE, IR_NONE);
        }
    }
}

static void put_start(struct pass *p)
{
    if (p->n->trace) {
        put_call(p, call_trace, p->n, IR_NONE, IR_NONE);
    }
    if (p->n->cover) {
        put_call(p, call_cover, p->n, IR_NONE, IR_NONE);
    }
    put_calls(p, &p->n->run, 0);
    put_calls(p, &p->n->insn, 0);
}

/* The access and then, when it did not fault, the calls. */
static void put_access(struct pass *p, const struct ir_op *op)
{
    unsigned what = 1u << (op->mo & MO_SIZE);
    bool wanted = false;
    for (unsigned i = 0; i < p->n->memory.n; i++) {
        wanted |= p->n->memory.call[i].insn == p->insn - 1;
    }
    if (!wanted) {
        put(p, op);
        return;
    }
    what |= op->op == IR_ld   ? ACCESS_LOAD
            : op->op == IR_st ? ACCESS_STORE
                              : ACCESS_LOAD | ACCESS_STORE;
    ir_ref va = op->imm && (op->op == IR_ld || op->op == IR_st) ? ir_addi(p->ir, op->a, op->imm)
                                                                : ir_copy(p->ir, op->a);
    put(p, op);
    for (unsigned i = 0; i < p->n->memory.n; i++) {
        if (p->n->memory.call[i].insn == p->insn - 1) {
            put_call(p, call_memory, &p->n->memory.call[i], va, ir_const(p->ir, what));
        }
    }
}

/* Does this op leave, if it does, before the instruction at `insn` has happened? */
static bool before_insn(const struct ir *ir, const struct ir_op *op, int64_t insn)
{
    const struct ir_exit *x = &ir->exits[op->imm];
    return op->op == IR_count || (op->op == IR_brcond && x->hint == IR_HINT_GUARD) ||
           (op->op == IR_poll && x->kind == IR_EXIT_DIRECT && x->off == insn);
}

/* Where the calls of a block's start go: behind what leaves before anything has run. */
static unsigned start_at(const struct ir *ir)
{
    unsigned at = 1;
    for (unsigned i = 1; i < ir->n_ops && ir->ops[i].op != IR_insn; i++) {
        const struct ir_op *op = &ir->ops[i];
        if (ir_op_info[op->op].flags & IRF_EXIT && before_insn(ir, op, ir->ops[0].imm)) {
            at = i + 1;
        }
    }
    return at;
}

static void rewrite(struct pass *p)
{
    unsigned n = p->ir->n_ops, start = start_at(p->ir);
    struct ir_op *old = xmemdup(p->ir->ops, n * sizeof(*old));
    p->ir->n_ops = 0;
    for (unsigned i = 0; i < n && !p->ir->overflow; i++) {
        const struct ir_op *op = &old[i];
        if (i == start) {
            put_start(p);
        }
        if (op->op == IR_insn) {
            put(p, op);
            p->insn++;
            while (p->insn > 1 && i + 1 < n && ir_op_info[old[i + 1].op].flags & IRF_EXIT &&
                   before_insn(p->ir, &old[i + 1], op->imm)) {
                put(p, &old[++i]);
            }
            if (p->insn > 1) {
                put_calls(p, &p->n->insn, p->insn - 1);
            }
        } else if (op->op == IR_ld || op->op == IR_st || op->op == IR_amo || op->op == IR_cas) {
            put_access(p, op);
        } else {
            put(p, op);
        }
    }
    free(old);
}

/* With memory calls, helpers that a back end would do inline must run: they report what they access. */
static void drop_hints(struct ir *ir)
{
    for (unsigned i = 0; i < ir->n_ops; i++) {
        struct ir_op *op = &ir->ops[i];
        if (op->op == IR_call && op->aux & IR_CALL_VEC) {
            op->aux &= (uint16_t)~IR_CALL_VEC;
            op->mo = 0;
        } else if (op->op == IR_call && op->aux >> IR_FP_SHIFT == IR_SC) {
            op->aux &= (1u << IR_FP_SHIFT) - 1;
        }
    }
}

struct tcg_note *instrument(struct tcg_vcpu *v, struct tcg_trans *t, uint64_t pc, uint64_t gpa)
{
    struct tcg_vm *vm = v->tcg;
    bool trace = vm->trace && trace_wants(vm, pc), plugins = plugin_calls(vm);
    if (!trace && !vm->coverage && !plugins) {
        return NULL;
    }
    struct tcg_note *n = xnew(struct tcg_note);
    *n = (struct tcg_note){ .va = pc,
                            .gpa = gpa,
                            .mode = t->code,
                            .n_insns = t->insns,
                            .trace = trace,
                            .cover = vm->coverage != NULL };
    if (plugins) {
        plugin_block(v, t, n);
    }
    if (n->memory.n) {
        drop_hints(t->ir);
    }
    if (trace || n->cover || n->run.n || n->insn.n || n->memory.n) {
        rewrite(&(struct pass){ .ir = t->ir, .n = n });
    }
    return n;
}

void instrument_free(struct tcg_note *n)
{
    if (n) {
        free(n->off);
        free(n->run.call);
        free(n->insn.call);
        free(n->memory.call);
        free(n);
    }
}

void instrument_change(struct tcg_vm *t, void (*change)(void *arg), void *arg)
{
    tcg_exclusive_begin_outside(t);
    cache_flush_all(t);
    for (unsigned i = 0; i < t->n_vcpus; i++) {
        tlb_flush_vcpu(t->vcpus[i]);
    }
    change(arg);
    tcg_exclusive_end_outside(t);
}
