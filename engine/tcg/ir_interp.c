/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The IR interpreter: oracle for every host back end, and the portable back end. A block's IR is copied into the code buffer,
 * so that the same limit and eviction serve it. Runs on the vCPU's thread.
 */
#include "engine/tcg/internal.h"

#include "engine/base/mem.h"

#include <string.h>

struct code {
    uint32_t n_ops, n_exits;
    struct ir_op ops[];
    /* then struct ir_exit[n_exits], then uint64_t consts */
};

static size_t align8(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

size_t ir_interp_compile(struct tcg_vcpu *v, struct tcg_block *b, uint32_t at, size_t room)
{
    const struct ir *ir = v->ir;
    size_t ops = sizeof(struct code) + ir->n_ops * sizeof(ir->ops[0]);
    size_t exits = align8(ir->n_exits * sizeof(ir->exits[0]));
    size_t consts = ir->n_consts * sizeof(ir->consts[0]);
    size_t size = align8(ops) + exits + consts;
    if (size > room) {
        return 0;
    }
    uint8_t *p = v->tcg->buf.rw + at;
    struct code *c = (struct code *)(void *)p;
    c->n_ops = ir->n_ops;
    c->n_exits = ir->n_exits;
    memcpy(c->ops, ir->ops, ir->n_ops * sizeof(ir->ops[0]));
    memcpy(p + align8(ops), ir->exits, ir->n_exits * sizeof(ir->exits[0]));
    memcpy(p + align8(ops) + exits, ir->consts, consts);
    return cache_set_size(b, size) ? size : 0;
}

struct run {
    struct tcg_vcpu *v;
    const uint64_t *consts;
};

static uint64_t *global(struct run *r, ir_ref ref)
{
    return (uint64_t *)(void *)(r->v->cpu + r->v->tcg->guest->globals[ir_index(ref)].offset);
}

static uint64_t value(struct run *r, ir_ref ref)
{
    if (ref == IR_NONE) {
        return 0;
    }
    switch (ir_kind(ref)) {
    case IR_TEMP:
        return r->v->interp_temps[ir_index(ref)];
    case IR_GLOBAL:
        return *global(r, ref);
    default:
        return r->consts[ir_index(ref)];
    }
}

static void set(struct run *r, ir_ref ref, uint64_t val)
{
    if (ref == IR_NONE) {
        return;
    }
    if (ir_kind(ref) == IR_TEMP) {
        r->v->interp_temps[ir_index(ref)] = val;
    } else {
        *global(r, ref) = val;
    }
}

static uint64_t load_env(struct tcg_vcpu *v, const struct ir_op *op)
{
    const uint8_t *p = v->cpu + op->imm;
    uint64_t val = 0;
    switch (op->mo & MO_SIZE) {
    case MO_8:
        val = *p;
        return op->mo & MO_SIGN ? (uint64_t)(int8_t)val : val;
    case MO_16: {
        uint16_t x;
        memcpy(&x, p, 2);
        return op->mo & MO_SIGN ? (uint64_t)(int16_t)x : x;
    }
    case MO_32: {
        uint32_t x;
        memcpy(&x, p, 4);
        return op->mo & MO_SIGN ? (uint64_t)(int32_t)x : x;
    }
    default:
        memcpy(&val, p, 8);
        return val;
    }
}

static void store_env(struct tcg_vcpu *v, const struct ir_op *op, uint64_t val)
{
    memcpy(v->cpu + op->imm, &val, (size_t)1 << (op->mo & MO_SIZE)); /* little-endian hosts */
}

/* Ops that are neither pure nor exits. */
static void effect(struct run *r, const struct ir_op *op)
{
    struct tcg_vcpu *v = r->v;
    switch (op->op) {
    case IR_pcrel:
        set(r, op->d, v->pc_page + (uint64_t)op->imm);
        break;
    case IR_ldenv:
        set(r, op->d, load_env(v, op));
        break;
    case IR_stenv:
        store_env(v, op, value(r, op->a));
        break;
    case IR_ld:
        set(r, op->d, tlb_load(v->cpu, value(r, op->a) + (uint64_t)op->imm, op->mo));
        break;
    case IR_st:
        tlb_store(v->cpu, value(r, op->a) + (uint64_t)op->imm, value(r, op->b), op->mo);
        break;
    case IR_amo:
        set(r, op->d,
            tlb_amo(v->cpu, value(r, op->a), value(r, op->b), op->mo | (uint64_t)op->aux << 8));
        break;
    case IR_cas:
        set(r, op->d,
            tlb_cas(v->cpu, value(r, op->a), value(r, op->b), value(r, op->c), op->mo));
        break;
    case IR_fence:
        atomic_thread_fence(memory_order_seq_cst);
        break;
    case IR_call: {
        ir_helper fn = (ir_helper)(intptr_t)op->imm;
        uint64_t x = fn(v->cpu, value(r, op->a), value(r, op->b), value(r, op->c));
        set(r, op->d, x);
        break;
    }
    default: /* IR_insn */
        v->interp_insn = (int32_t)op->imm;
    }
}

static void pure(struct run *r, const struct ir_op *op)
{
    uint64_t a = value(r, op->a), b = value(r, op->b);
    if (op->op == IR_setcond) {
        set(r, op->d, ir_eval_cond((enum ir_cond)op->cond, op->w, a, b));
    } else if (op->op == IR_select) {
        bool yes = ir_eval_cond((enum ir_cond)op->cond, op->w, a, b);
        set(r, op->d, value(r, yes ? op->c : op->e));
    } else {
        set(r, op->d, ir_eval((enum ir_opcode)op->op, op->w, a, b));
    }
}

static bool taken(struct run *r, const struct ir_op *op)
{
    if (op->op == IR_count) {
        bool enough = r->v->budget >= op->aux;
        r->v->budget -= enough ? op->aux : 0;
        return !enough;
    }
    if (op->op == IR_poll) {
        return atomic_load_explicit(&r->v->exit_req, memory_order_relaxed) != 0;
    }
    return op->op == IR_exit ||
           ir_eval_cond((enum ir_cond)op->cond, op->w, value(r, op->a), value(r, op->b));
}

struct tcg_exit *ir_interp(struct tcg_vcpu *v, struct tcg_block *b)
{
    const uint8_t *p = v->tcg->buf.rx + b->code;
    const struct code *c = (const struct code *)(const void *)p;
    size_t ops = align8(sizeof(*c) + c->n_ops * sizeof(c->ops[0]));
    const struct ir_exit *exits = (const struct ir_exit *)(const void *)(p + ops);
    struct run r = { v, (const uint64_t *)(const void *)(p + ops + align8(c->n_exits * sizeof(exits[0]))) };
    v->host_ra = 0;
    v->interp_block = b;
    for (const struct ir_op *op = c->ops;; op++) {
        uint8_t flags = ir_op_info[op->op].flags;
        if (flags & IRF_EXIT) {
            if (!taken(&r, op)) {
                continue;
            }
            const struct ir_exit *x = &exits[op->imm];
            if (x->kind == IR_EXIT_INDIRECT) {
                *tcg_pc(v) = value(&r, x->ref);
            }
            if (ir_exit_named(x)) {
                return &b->exits[x->record];
            }
            if (x->kind == IR_EXIT_DIRECT) {
                *tcg_pc(v) = (v->pc_page + (uint64_t)(int64_t)x->off) & v->tcg->guest->pc_mask;
            }
            return NULL;
        }
        if (flags & IRF_SIDE || op->op == IR_pcrel || op->op == IR_ldenv) {
            effect(&r, op);
        } else {
            pure(&r, op);
        }
    }
}
