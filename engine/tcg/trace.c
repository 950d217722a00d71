/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traces of blocks, exceptions, interrupts and device accesses: a ring a vCPU, written by its thread and read by the main thread. A
 * full ring drops what comes, and counts it: the guest never waits, and memory never grows.
 */
#include "engine/tcg/instrument.h"

#include "engine/base/mem.h"
#include "engine/core/clock.h"

#include <stdlib.h>

#define RING 16384u    /* records, a power of two; of many vCPUs each has less */
#define ALL (1u << 20) /* records in all rings together: 40 MiB */

struct ring {
    _Atomic uint64_t head, tail; /* records ever written; ever read */
    _Atomic uint64_t dropped;
    struct trace_record record[]; /* tcg_trace.size */
};

/* The filter changes only in an exclusive section. */
struct tcg_trace {
    struct trace_filter filter;
    unsigned n;
    unsigned size; /* of each ring */
    struct ring *ring[];
};

static struct trace_record *slot(struct tcg_vcpu *v, uint64_t pc)
{
    const struct trace_filter *f = &v->tcg->trace->filter;
    unsigned index = v->vcpu->index;
    if (pc < f->from || pc > f->to || index >= v->tcg->trace->n ||
        (f->vcpu >= 0 && (unsigned)f->vcpu != index)) {
        return NULL;
    }
    struct ring *r = v->tcg->trace->ring[index];
    uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    if (head - atomic_load_explicit(&r->tail, memory_order_acquire) >= v->tcg->trace->size) {
        atomic_store_explicit(&r->dropped,
                              atomic_load_explicit(&r->dropped, memory_order_relaxed) + 1,
                              memory_order_relaxed);
        return NULL;
    }
    struct trace_record *x = &r->record[head % v->tcg->trace->size];
    *x = (struct trace_record){ .time = clock_now(v->tcg->vm->clock),
                                .pc = pc,
                                .vcpu = (uint16_t)index };
    return x;
}

static void publish(struct tcg_vcpu *v)
{
    struct ring *r = v->tcg->trace->ring[v->vcpu->index];
    atomic_store_explicit(&r->head, atomic_load_explicit(&r->head, memory_order_relaxed) + 1,
                          memory_order_release);
}

bool trace_wants(const struct tcg_vm *t, uint64_t pc)
{
    const struct trace_filter *f = &t->trace->filter;
    return f->blocks && pc >= f->from && pc <= f->to;
}

void trace_block(struct tcg_vcpu *v, const struct tcg_note *n)
{
    uint64_t pc = (v->pc_page + (n->gpa & 4095)) & v->tcg->guest->pc_mask;
    struct trace_record *x = v->tcg->trace ? slot(v, pc) : NULL;
    if (x) {
        x->kind = TRACE_BLOCK;
        x->a = n->gpa;
        x->b = n->mode;
        x->code = n->n_insns;
        publish(v);
    }
}

void trace_exception(struct tcg_vcpu *v, uint32_t cause, uint64_t tval)
{
    struct trace_record *x = v->tcg->trace->filter.exceptions ? slot(v, *tcg_pc(v)) : NULL;
    if (x) {
        x->kind = TRACE_EXCEPTION;
        x->code = cause;
        x->a = tval;
        publish(v);
    }
}

void trace_interrupt(struct tcg_vcpu *v, uint64_t pc)
{
    struct trace_record *x = v->tcg->trace->filter.interrupts ? slot(v, pc) : NULL;
    if (x) {
        x->kind = TRACE_INTERRUPT;
        x->a = *tcg_pc(v);
        publish(v);
    }
}

void trace_mmio(struct tcg_vcpu *v, bool write, uint64_t gpa, unsigned size, uint64_t value)
{
    struct trace_record *x = v->tcg->trace->filter.mmio ? slot(v, tcg_here(v)) : NULL;
    if (x) {
        x->kind = write ? TRACE_WRITE : TRACE_READ;
        x->size = (uint8_t)size;
        x->a = gpa;
        x->b = size < 8 ? value & ((1ull << 8 * size) - 1) : value;
        publish(v);
    }
}

/* ---- on, off, out ---- */

struct change {
    struct tcg_vm *t;
    struct tcg_trace *to;
};

static void change(void *arg)
{
    struct change *c = arg;
    struct tcg_trace *old = c->t->trace;
    c->t->trace = c->to;
    c->to = old;
}

static void free_trace(struct tcg_trace *t)
{
    for (unsigned i = 0; t && i < t->n; i++) {
        free(t->ring[i]);
    }
    free(t);
}

void tcg_trace_start(struct vm *vm, const struct trace_filter *f)
{
    struct tcg_vm *t = vm->engine_data;
    struct tcg_trace *x = xalloc(sizeof(*x) + t->n_vcpus * sizeof(x->ring[0]));
    x->filter = *f;
    x->n = t->n_vcpus;
    x->size = RING;
    while (x->size * x->n > ALL) {
        x->size /= 2;
    }
    for (unsigned i = 0; i < x->n; i++) {
        x->ring[i] = xalloc(sizeof(struct ring) + x->size * sizeof(struct trace_record));
    }
    struct change c = { t, x };
    instrument_change(t, change, &c);
    free_trace(c.to);
}

void tcg_trace_stop(struct vm *vm)
{
    struct tcg_vm *t = vm->engine_data;
    struct change c = { t, NULL };
    if (t->trace) {
        instrument_change(t, change, &c);
        free_trace(c.to);
    }
}

bool tcg_trace_on(const struct vm *vm)
{
    const struct tcg_vm *t = vm->engine_data;
    return t->trace != NULL;
}

size_t tcg_trace_read(struct vm *vm, struct trace_record *out, size_t max, uint64_t *dropped)
{
    const struct tcg_vm *t = vm->engine_data;
    size_t n = 0;
    *dropped = 0;
    for (unsigned i = 0; t->trace && i < t->trace->n; i++) {
        struct ring *r = t->trace->ring[i];
        uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
        uint64_t head = atomic_load_explicit(&r->head, memory_order_acquire);
        size_t share = (max - n) / (t->trace->n - i); /* nobody starves */
        for (size_t k = 0; k < share && tail != head; k++) {
            out[n++] = r->record[tail++ % t->trace->size];
        }
        atomic_store_explicit(&r->tail, tail, memory_order_release);
        *dropped += atomic_load_explicit(&r->dropped, memory_order_relaxed);
    }
    return n;
}

void trace_done(struct tcg_vm *t)
{
    free_trace(t->trace);
    t->trace = NULL;
}
