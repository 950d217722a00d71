/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translating engine: the run loop of a vCPU, exceptions that unwind out of translated code, exclusive sections,
 * and struct engine_ops.
 */
#include "engine/tcg/instrument.h"
#include "engine/tcg/tier2.h"

#include "engine/base/buf.h"
#include "engine/base/log.h"
#include "engine/core/replay.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

const struct tcg_host_ops *tcg_host(void)
{
#ifdef __x86_64__
    return tcg_host_x86_64.supported() ? &tcg_host_x86_64 : NULL;
#else
    return NULL;
#endif
}

struct vcpu *tcg_vcpu_of(void *cpu)
{
    return tcg_of(cpu)->vcpu;
}

/* ---- exclusive sections: one thread runs, no vCPU is inside translated code or a helper ---- */

/* Waits until nobody is or wants to be alone, and counts the vCPU in. excl_lock held. */
static void count_in(struct tcg_vcpu *v)
{
    struct tcg_vm *t = v->tcg;
    while (t->excl_active || t->excl_pending) {
        pthread_cond_wait(&t->excl_cond, &t->excl_lock);
    }
    t->running++;
    v->counted = true;
    v->passed = t->passing; /* it was out: tcg_quiesce() need not wait for it, and did not ask it */
}

static void count_out(struct tcg_vcpu *v)
{
    struct tcg_vm *t = v->tcg;
    t->running--;
    v->counted = false;
    if (atomic_load(&t->excl_asked)) {
        pthread_cond_broadcast(&t->excl_cond);
    }
}

static void run_begin(struct tcg_vcpu *v)
{
    struct tcg_vm *t = v->tcg;
    pthread_mutex_lock(&t->excl_lock);
    count_in(v);
    atomic_fetch_add_explicit(&t->n_runs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&t->excl_lock);
    if (t->tier2) {
        tier2_runs(v);
    }
}

static void run_end(struct tcg_vcpu *v)
{
    struct tcg_vm *t = v->tcg;
    pthread_mutex_lock(&t->excl_lock);
    count_out(v);
    pthread_mutex_unlock(&t->excl_lock);
}

/* Somebody asked: lets those who want to be alone, and tells those who wait for this vCPU to pass here. */
static void stand_aside(struct tcg_vcpu *v)
{
    struct tcg_vm *t = v->tcg;
    pthread_mutex_lock(&t->excl_lock);
    if (v->passed != t->passing) {
        v->passed = t->passing;
        pthread_cond_broadcast(&t->excl_cond);
    }
    if (t->excl_active || t->excl_pending) {
        count_out(v);
        count_in(v);
    }
    pthread_mutex_unlock(&t->excl_lock);
}

void tcg_exclusive_begin(struct tcg_vcpu *self)
{
    struct tcg_vcpu *v = self;
    struct tcg_vm *t = v->tcg;
    v->n_exclusive++;
    pthread_mutex_lock(&t->excl_lock);
    t->excl_pending++;
    atomic_fetch_add(&t->excl_asked, 1);
    count_out(v); /* stand aside for another that came first */
    for (unsigned i = 0; i < t->n_vcpus; i++) {
        if (t->vcpus[i] != v) {
            atomic_store(&t->vcpus[i]->exit_req, 1);
        }
    }
    while (t->excl_active || t->running) {
        pthread_cond_wait(&t->excl_cond, &t->excl_lock);
    }
    t->excl_pending--;
    t->excl_active = true;
    t->running++;
    v->counted = true;
    v->passed = t->passing; /* as in count_in() */
    pthread_mutex_unlock(&t->excl_lock);
}

void tcg_exclusive_end(struct tcg_vcpu *self)
{
    struct tcg_vm *t = self->tcg;
    pthread_mutex_lock(&t->excl_lock);
    t->excl_active = false;
    atomic_fetch_sub(&t->excl_asked, 1);
    pthread_cond_broadcast(&t->excl_cond);
    pthread_mutex_unlock(&t->excl_lock);
}

void tcg_exclusive_begin_outside(struct tcg_vm *t)
{
    pthread_mutex_lock(&t->excl_lock);
    t->excl_pending++;
    atomic_fetch_add(&t->excl_asked, 1);
    for (unsigned i = 0; i < t->n_vcpus; i++) {
        atomic_store(&t->vcpus[i]->exit_req, 1);
    }
    if (t->icount) {
        icount_wake(t);
    }
    if (t->vm->replay) {
        replay_wake(t->vm);
    }
    while (t->excl_active || t->running) {
        pthread_cond_wait(&t->excl_cond, &t->excl_lock);
    }
    t->excl_pending--;
    t->excl_active = true;
    pthread_mutex_unlock(&t->excl_lock);
}

void tcg_exclusive_end_outside(struct tcg_vm *t)
{
    pthread_mutex_lock(&t->excl_lock);
    t->excl_active = false;
    atomic_fetch_sub(&t->excl_asked, 1);
    pthread_cond_broadcast(&t->excl_cond);
    pthread_mutex_unlock(&t->excl_lock);
}

void tcg_quiesce(struct tcg_vcpu *self, uint32_t mask)
{
    struct tcg_vm *t = self->tcg;
    pthread_mutex_lock(&t->excl_lock);
    uint64_t mine = ++t->passing;
    atomic_fetch_add(&t->excl_asked, 1);
    count_out(self); /* nobody has to wait for one that waits */
    for (unsigned i = 0; i < t->n_vcpus; i++) {
        if (t->vcpus[i]->counted && mask >> t->vcpus[i]->vcpu->index % 32 & 1) {
            atomic_store(&t->vcpus[i]->exit_req, 1);
        }
    }
    for (unsigned i = 0; i < t->n_vcpus; i++) {
        const struct tcg_vcpu *v = t->vcpus[i];
        while (v->counted && v->passed < mine && mask >> v->vcpu->index % 32 & 1) {
            pthread_cond_wait(&t->excl_cond, &t->excl_lock);
        }
    }
    atomic_fetch_sub(&t->excl_asked, 1);
    count_in(self);
    pthread_mutex_unlock(&t->excl_lock);
}

/* ---- leaving translated code ---- */

/* The pc of the instruction whose helper is running. */
uint64_t tcg_here(struct tcg_vcpu *v)
{
    int32_t off = v->interp_insn;
    if (!v->in_code) {
        return *tcg_pc(v); /* raised by the dispatcher: the pc is right already */
    }
    if (v->tcg->config.backend == TCG_JIT && !cache_site(v->tcg, v->host_ra, &off)) {
        log_error("tcg", "no instruction is known for host address 0x%" PRIx64, v->host_ra);
        abort(); /* our own bug: a site was not recorded */
    }
    return (v->pc_page + (uint64_t)(int64_t)off) & v->tcg->guest->pc_mask;
}

static void restore_pc(struct tcg_vcpu *v)
{
    *tcg_pc(v) = tcg_here(v);
}

void tcg_raise(void *cpu, uint32_t cause, uint64_t tval)
{
    struct tcg_vcpu *v = tcg_of(cpu);
    restore_pc(v);
    if (v->tcg->icount && v->in_code) {
        icount_refund(v);
    }
    v->cause = cause;
    v->tval = tval;
    v->unwind_why = UNWIND_RAISE;
    siglongjmp(v->unwind, 1);
}

/* The instruction is begun again, alone. */
void tcg_io_retry(struct tcg_vcpu *v)
{
    restore_pc(v);
    icount_refund(v);
    v->io_next = true;
    v->unwind_why = UNWIND_IO;
    siglongjmp(v->unwind, 1);
}

void tcg_halt(void *cpu)
{
    struct tcg_vcpu *v = tcg_of(cpu);
    v->unwind_why = UNWIND_HALT;
    siglongjmp(v->unwind, 1);
}

void tcg_mode_changed(void *cpu)
{
    struct tcg_vcpu *v = tcg_of(cpu);
    struct tcg_mode m = v->tcg->guest->mode(cpu);
    v->mode_code = m.code;
    v->space = space_select(v, m);
}

void tcg_interrupt_check(void *cpu)
{
    struct tcg_vcpu *v = tcg_of(cpu);
    atomic_store_explicit(&v->exit_req, 1, memory_order_relaxed);
    if (v->tcg->icount) {
        icount_stop(v); /* there are no polls */
    }
}

bool tcg_debug_translate(void *cpu, uint64_t va, uint64_t *gpa)
{
    struct tcg_vcpu *v = tcg_of(cpu);
    struct tcg_mode m = v->tcg->guest->mode(cpu);
    struct tcg_walk w = { .va = va, .access = TCG_READ, .mmu = m.mmu, .probe = true };
    if (v->tcg->guest->walk(cpu, &w)) {
        return false;
    }
    *gpa = w.gpa;
    return true;
}

/* ---- the dispatcher ---- */

static void deliver(struct tcg_vcpu *v, uint32_t cause, uint64_t tval)
{
    v->n_exception++;
    log_trace('e', "cpu%u exception %" PRIu32 " tval %" PRIx64 " pc %" PRIx64, v->vcpu->index,
              cause, tval, *tcg_pc(v));
    if (v->tcg->trace) {
        trace_exception(v, cause, tval);
    }
    if (v->tcg->plugins) {
        plugin_trap(v, *tcg_pc(v), cause, false);
    }
    v->tcg->guest->exception(v->cpu, cause, tval);
    tcg_mode_changed(v->cpu);
}

void tcg_deliver(void *cpu, uint32_t cause, uint64_t tval)
{
    deliver(tcg_of(cpu), cause, tval);
}

/* slow: set when that page's translation may not be remembered. */
static bool page2_matches(struct tcg_vcpu *v, const struct tcg_block *b, uint64_t pc, bool *slow)
{
    struct tcg_fetch uncached;
    uint32_t cause;
    uint64_t tval, va2 = ((pc | 4095) + 1) & v->tcg->guest->pc_mask;
    const struct tcg_fetch *f = tlb_fetch(v, va2, &uncached, &cause, &tval);
    *slow |= f && f->tag & TLB_SLOW;
    return f && f->gpa == cache_extra(v->tcg, b)->gpa_page2;
}

/* The block for pc, from the cache or newly made. NULL when fetching faults: the exception has been delivered. */
static struct tcg_block *find_block(struct tcg_vcpu *v, uint64_t pc, bool *cacheable)
{
    struct tcg_fetch uncached;
    uint32_t cause = 0;
    uint64_t tval = pc;
    v->n_lookup++;
    const struct tcg_fetch *f = tlb_fetch(v, pc, &uncached, &cause, &tval);
    if (!f) {
        deliver(v, cause, tval);
        return NULL;
    }
    uint32_t mode = tcg_block_mode(v, f);
    struct tcg_block *b = cache_find(v->tcg, f->gpa | (pc & 4095), mode, tcg_variant_word(v));
    bool slow = false;
    if (b && b->straddles && !page2_matches(v, b, pc, &slow)) {
        /* Mapped differently behind the page's end: this version goes, the page it was made from stays right. */
        cache_invalidate(v->tcg, b->gpa, 1);
        b = NULL;
        f = tlb_fetch(v, pc, &uncached, &cause, &tval);
    }
    if (b && b->generic && cache_count_variants(v->tcg, b->gpa, mode) < TCG_VARIANTS) {
        cache_drop(v->tcg, b); /* others of its address are gone: there is room for special ones again */
        b = NULL;
    }
    *cacheable = f && !(f->tag & TLB_SLOW);
    if (b) {
        cache_used(v, b);
    } else {
        b = f ? tcg_translate(v, pc, f) : NULL;
        if (!b) {
            deliver(v, f ? v->cause : cause, f ? v->tval : tval);
            return NULL;
        }
    }
    /* A flush of either page drops what is remembered of it; of its variants another may have another second page. */
    *cacheable &= !b->straddles || (!b->uses_variant && page2_matches(v, b, pc, &slow) && !slow);
    return b;
}

static const void *code_of(struct tcg_vcpu *v, struct tcg_block *b)
{
    return v->tcg->config.backend == TCG_JIT ? (const void *)(v->tcg->buf.rx + b->code) : b;
}

static struct tcg_exit *enter(struct tcg_vcpu *v, const void *code)
{
    struct tcg_exit *x;
    v->in_code = true;
    atomic_store_explicit(&v->in_region, 0, memory_order_release);
    v->n_enter++;
    x = v->tcg->config.backend == TCG_JIT
            ? tcg_host()->enter(v, code)
            : ir_interp(v, (struct tcg_block *)(uintptr_t)code);
    v->in_code = false;
    v->n_left_direct += x && x != TCG_EXIT_STALE;
    v->n_left_lookup += !x;
    return x;
}

/* An invalidated block was entered: forget where it was remembered, and let it lead to its successor. */
static void stale_entry(struct tcg_vcpu *v)
{
    struct tcg_vm *t = v->tcg;
    v->n_left_stale++;
    pthread_mutex_lock(&t->lock);
    struct tcg_block *old = cache_by_host(t, v->host_ra);
    pthread_mutex_unlock(&t->lock);
    v->full = old->lean && !atomic_load(&old->invalid);
    if (v->full) { /* not stale at all: worth better code */
        v->warm[tcg_warm_index(v->host_ra)] = atomic_load(&t->warm_from);
        t->stats.promoted++;
        cache_drop(t, old);
    }
    uint64_t evictions = t->stats.evictions;
    uint64_t pc = v->pc_page + (old->gpa & 4095);
    *tcg_pc(v) = pc;
    space_forget(v, v->space, pc);
    bool cacheable;
    struct tcg_block *b = find_block(v, pc, &cacheable);
    v->full = false;
    if (b && cacheable && !b->straddles && evictions == t->stats.evictions && b->gpa == old->gpa &&
        b->mode == old->mode) {
        b = cache_next_variant(t, old->gpa, old->mode, old);
        if (b) {
            cache_forward(t, old, b);
        }
    }
}

/* What the exit `from` may be linked to, now that b is the block that runs next: jumps lead to the oldest variant, a failing guard at the
 * start of a variant to the next younger one. NULL: to nothing. */
static struct tcg_block *link_target(const struct tcg_vcpu *v, const struct tcg_exit *from, uint64_t pc,
                                     struct tcg_block *b)
{
    const struct tcg_block *s = exit_block(from);
    /* pc_page of the target must equal that of the exit, and links stay in a physical page: eviction looks for them there. */
    if (!from->stub || b->straddles || exit_linked(from) || (pc & ~4095ull) != v->pc_page || b->mode != (s->mode & ~T2_MODE) || (b->gpa ^ s->gpa) >= 4096 || (b->gpa & ~4095ull) != (s->gpa & ~4095ull)) {
        return NULL;
    }
    if (!b->uses_variant) {
        return b;
    }
    return cache_next_variant(v->tcg, b->gpa, b->mode, from->guard && b->gpa == s->gpa ? s : NULL);
}

/* Runs one stretch of translated code. `from` is the direct exit that led here, or NULL; returns the next one. */
static struct tcg_exit *step(struct tcg_vcpu *v, struct tcg_exit *from)
{
    struct tcg_vm *t = v->tcg;
    uint64_t pc = *tcg_pc(v);
    const struct tcg_jump *j = jc_find(v->space, pc);
    const void *code = j ? j->code : jump2_find(v, pc);
    if (!code || (t->config.backend == TCG_INTERP && ((const struct tcg_block *)code)->invalid) ||
        (from && (from->stub || from->guard))) {
        uint64_t evictions = t->stats.evictions;
        bool cacheable = false;
        struct tcg_block *b = find_block(v, pc, &cacheable);
        if (!b) {
            return NULL;
        }
        code = code_of(v, b);
        struct tcg_block *first = !cacheable        ? NULL
                                  : b->uses_variant ? cache_next_variant(t, b->gpa, b->mode, NULL)
                                                    : b;
        if (first) {
            space_remember(v, pc, code_of(v, first));
            struct tcg_block *to = from && evictions == t->stats.evictions ? link_target(v, from, pc, b) : NULL;
            if (to) {
                cache_link(t, from, to);
            }
            if (t->config.tier2 == TCG_TIER2_FORCE && t->tier2) {
                tier2_force(v, first);
            }
        }
    } else {
        if (!j) {
            jc_insert(v->space, pc, code);
            v->n_jump2_hit++;
        }
        v->n_jump_hit++;
    }
    v->pc_page = pc & ~4095ull;
    struct tcg_exit *x = enter(v, code);
    if (x == TCG_EXIT_STALE) {
        stale_entry(v);
        return NULL;
    }
    if (x) {
        *tcg_pc(v) = (v->pc_page + (uint64_t)(int64_t)x->off) & t->guest->pc_mask;
    }
    return x;
}

/* ---- debugging: while it goes on nothing is linked or remembered, so every block is entered here ---- */

static __attribute__((noinline)) bool debugging(const struct tcg_vm *t)
{
    for (unsigned i = 0; i < t->n_vcpus; i++) {
        if (t->vcpus[i]->single) {
            return true;
        }
    }
    return t->n_breakpoints > 0;
}

static bool breakpoint_in(const struct tcg_vm *t, uint64_t va, uint64_t mask)
{
    for (unsigned i = 0; i < t->n_breakpoints; i++) {
        if ((t->breakpoints[i] & mask) == (va & mask)) {
            return true;
        }
    }
    return false;
}

/* As step(), by single instructions where a breakpoint is in the page: blocks do not leave theirs. True: the
 * debugger's turn. */
static bool debug_step(struct tcg_vcpu *v)
{
    struct tcg_vm *t = v->tcg;
    uint64_t pc = *tcg_pc(v);
    bool cacheable;
    if (!v->single && breakpoint_in(t, pc, UINT64_MAX)) {
        return true;
    }
    v->one_insn = v->single || breakpoint_in(t, pc, ~4095ull);
    struct tcg_block *b = find_block(v, pc, &cacheable);
    v->one_insn = false;
    if (!b) {
        return v->single; /* the fetch's exception was delivered: that was the step */
    }
    v->pc_page = pc & ~4095ull;
    struct tcg_exit *x = enter(v, code_of(v, b));
    if (x == TCG_EXIT_STALE) {
        return false; /* invalidated meanwhile: look again */
    }
    if (x) {
        *tcg_pc(v) = (v->pc_page + (uint64_t)(int64_t)x->off) & t->guest->pc_mask;
    }
    bool asked_out = atomic_load(&v->exit_req) && *tcg_pc(v) == pc; /* before its first effect */
    return v->single && !asked_out;
}

/* Before anything is debugged: what leads past the dispatcher goes. */
static void debug_begin(struct tcg_vm *t)
{
    if (atomic_exchange(&t->remembered, false)) {
        cache_flush_all(t);
        for (unsigned i = 0; i < t->n_vcpus; i++) {
            tlb_flush_vcpu(t->vcpus[i]);
        }
    }
}

static int tcg_debug_breakpoints(struct vm *vm, const uint64_t *va, unsigned n)
{
    struct tcg_vm *t = vm->engine_data;
    free(t->breakpoints);
    t->breakpoints = n ? xmemdup(va, n * sizeof(*va)) : NULL;
    t->n_breakpoints = n;
    if (n) {
        debug_begin(t);
    }
    return 0;
}

static void tcg_debug_step(struct vcpu *c, bool on)
{
    struct tcg_vcpu *v = c->engine_data;
    v->single = on;
    if (on) {
        debug_begin(v->tcg);
    }
}

static bool tcg_debug_lookup(struct vcpu *c, uint64_t va, uint64_t *gpa)
{
    return tcg_debug_translate(c->cpu, va, gpa);
}

static bool serve_requests(struct tcg_vcpu *v)
{
    struct tcg_vm *t = v->tcg;
    atomic_store(&v->exit_req, 0);
    if (atomic_load(&t->excl_asked)) {
        stand_aside(v);
    }
    if (v->alias.reset) {
        alias_reset(v);
    }
    if (atomic_exchange(&v->kicked, false)) {
        v->n_kick++;
        return true;
    }
    uint64_t pc = *tcg_pc(v);
    if (t->guest->interrupt(v->cpu)) {
        v->n_interrupt++;
        if (t->trace) {
            trace_interrupt(v, pc);
        }
        if (t->plugins) {
            plugin_trap(v, pc, 0, true);
        }
        log_trace('e', "cpu%u interrupt, pc %" PRIx64, v->vcpu->index, *tcg_pc(v));
        tcg_mode_changed(v->cpu);
    }
    return false;
}

/* ---- under an instruction clock ---- */

/* Whether the block that was left at its entry is this one. */
static bool entered_by(struct tcg_vcpu *v, const struct tcg_block *b)
{
    pthread_mutex_lock(&v->tcg->lock);
    bool is = cache_by_host(v->tcg, v->host_ra) == b;
    pthread_mutex_unlock(&v->tcg->lock);
    return is;
}

/* One instruction by itself, with an exact clock. */
static void run_one(struct tcg_vcpu *v)
{
    bool cacheable;
    uint64_t pc = *tcg_pc(v);
    v->one_insn = true;
    struct tcg_block *b = find_block(v, pc, &cacheable);
    v->one_insn = false;
    v->io_next = false;
    if (!b) {
        return; /* the fetch's exception was delivered */
    }
    v->pc_page = pc & ~4095ull;
    v->io_ok = true;
    struct tcg_exit *x = enter(v, code_of(v, b));
    v->io_ok = false;
    if (x == TCG_EXIT_STALE) {
        if (!entered_by(v, b)) { /* it was a jump: that has happened, though its target is to be looked up again */
            stale_entry(v);
        }
    } else if (x) {
        *tcg_pc(v) = (v->pc_page + (uint64_t)(int64_t)x->off) & v->tcg->guest->pc_mask;
    }
}

/* What an unwinding out of translated code was for. */
static void icount_unwound(struct tcg_vcpu *v)
{
    v->in_code = v->io_ok = false;
    if (v->unwind_why == UNWIND_HALT) {
        v->n_left_halt++;
        v->waiting = true;
    } else if (v->unwind_why == UNWIND_RAISE) {
        v->n_left_raise++;
        deliver(v, v->cause, v->tval);
    }
}

/* As debug_step(), within a budget: with a tape every instruction counts. True: the debugger's turn. */
static bool icount_debug_step(struct tcg_vcpu *v)
{
    const struct tcg_vm *t = v->tcg;
    uint64_t pc = *tcg_pc(v);
    if (!v->single && breakpoint_in(t, pc, UINT64_MAX)) {
        icount_leave(v, true);
        return true;
    }
    if (v->single || v->one_by_one || breakpoint_in(t, pc, ~4095ull)) {
        icount_one(v);
        run_one(v);
    } else {
        bool cacheable;
        struct tcg_block *b = find_block(v, pc, &cacheable);
        v->pc_page = pc & ~4095ull;
        struct tcg_exit *x = b ? enter(v, code_of(v, b)) : NULL;
        if (x && x != TCG_EXIT_STALE) {
            *tcg_pc(v) = (v->pc_page + (uint64_t)(int64_t)x->off) & t->guest->pc_mask;
        }
    }
    if (v->single) {
        icount_leave(v, false);
    }
    return v->single;
}

static enum vcpu_exit icount_run(struct tcg_vcpu *v)
{
    struct tcg_exit *volatile from = NULL;
    const bool debug = debugging(v->tcg);
    v->io_ok = false; /* a debugger may have let it run freely */
    /* An interrupt that was to be looked at when somebody wanted the vCPU out is looked at before the next instruction. */
    atomic_store(&v->exit_req, 1);
    while (icount_take_turn(v)) {
        enum icount_next next = ICOUNT_AGAIN;
        run_begin(v);
        if (!debug) {
            atomic_store(&v->tcg->remembered, true);
        }
        tcg_mode_changed(v->cpu);
        if (sigsetjmp(v->unwind, 0)) {
            icount_unwound(v);
            from = NULL;
            if (v->single && v->unwind_why != UNWIND_IO) {
                icount_leave(v, false);
                run_end(v);
                return VCPU_EXIT_DEBUG;
            }
        }
        while ((next = icount_next(v)) <= ICOUNT_AGAIN) {
            if (atomic_load_explicit(&v->exit_req, memory_order_relaxed)) {
                from = NULL;
                if (serve_requests(v)) {
                    next = ICOUNT_OUT;
                    break;
                }
            } else if (next == ICOUNT_RUN && debug) {
                if (icount_debug_step(v)) {
                    run_end(v);
                    return VCPU_EXIT_DEBUG;
                }
            } else if (next == ICOUNT_RUN && v->one_by_one) {
                run_one(v);
                from = NULL;
            } else if (next == ICOUNT_RUN) {
                from = step(v, from);
            }
        }
        from = NULL;
        run_end(v);
        if (next == ICOUNT_OUT) {
            break;
        }
    }
    atomic_store(&v->kicked, false);
    return VCPU_EXIT_KICK;
}

static enum vcpu_exit tcg_run(struct vcpu *c)
{
    struct tcg_vcpu *v = c->engine_data;
    struct tcg_exit *volatile from = NULL;
    if (v->tcg->plugins && !v->announced) {
        v->announced = true;
        plugin_vcpu(v);
    }
    if (v->tcg->icount && (!debugging(v->tcg) || c->vm->replay)) {
        return icount_run(v);
    }
    run_begin(v);
    const bool debug = debugging(v->tcg);
    if (!debug) {
        atomic_store(&v->tcg->remembered, true);
    }
    tcg_mode_changed(v->cpu);
    atomic_store(&v->exit_req, 1); /* look at interrupts first */
    if (sigsetjmp(v->unwind, 0)) {
        v->in_code = false;
        from = NULL;
        if (v->unwind_why == UNWIND_HALT) {
            v->n_left_halt++;
            if (v->tcg->icount && !v->single && icount_skip(v)) {
                goto go_on; /* time goes by only while somebody runs */
            }
            run_end(v);
            return v->single ? VCPU_EXIT_DEBUG : VCPU_EXIT_HALT; /* a step does not wait */
        }
        v->n_left_raise++;
        deliver(v, v->cause, v->tval);
        if (v->single) {
            run_end(v);
            return VCPU_EXIT_DEBUG;
        }
    }
go_on:
    for (;;) {
        if (atomic_load_explicit(&v->exit_req, memory_order_relaxed)) {
            if (v->tcg->tier2 && !debug && atomic_load_explicit(&v->sample, memory_order_relaxed)) {
                tier2_sample(v, from);
            }
            if (v->began_ns) {
                tier2_runs_on(v);
            }
            from = NULL;
            if (serve_requests(v)) {
                break;
            }
        }
        if (!debug) {
            from = step(v, from);
        } else {
            if (v->tcg->icount) {
                icount_free_run(v);
            }
            if (debug_step(v)) {
                run_end(v);
                return VCPU_EXIT_DEBUG;
            }
        }
    }
    run_end(v);
    return VCPU_EXIT_KICK;
}

/* ---- engine_ops ---- */

/* The hash table in it is read at random: huge pages. */
static struct tcg_vm *vm_alloc(void)
{
    struct tcg_vm *t = mem_map_huge(sizeof(*t));
    return t ? t : xnew(struct tcg_vm); /* aborts */
}

static int tcg_vm_init(struct vm *vm, struct err *e)
{
    const struct tcg_guest *g = tcg_guest_find(vm->arch->name);
    if (!g) {
        return err_set(e, -ENOTSUP, "engine tcg does not translate architecture '%s'",
                       vm->arch->name);
    }
    struct tcg_vm *t = vm_alloc();
    t->vm = vm;
    t->guest = g;
    if (vm->engine_config) {
        t->config = *(const struct tcg_config *)vm->engine_config;
    }
    if (t->config.cache_size == 0) {
        t->config.cache_size = 64u << 20;
    }
    t->config.cache_size = (t->config.cache_size + 0xffff) & ~(size_t)0xffff;
    if (t->config.max_insns == 0) {
        t->config.max_insns = 64;
    }
    if (t->config.warm == 0) {
        t->config.warm = 1024;
    }
    t->config.warm = t->config.warm < UINT16_MAX ? t->config.warm : UINT16_MAX;
    int rc = 0;
    if (t->config.cache_size < 1u << 20 || t->config.cache_size > 1u << 30) {
        rc = err_set(e, -EINVAL, "tcg cache_size %zu is outside 1 MiB to 1 GiB", t->config.cache_size);
    } else if (t->config.backend == TCG_JIT && !tcg_host()) {
        rc = err_set(e, -ENOTSUP, "engine tcg has no back end for this host; use backend 'interp'");
    } else {
        rc = cache_init(t, e);
    }
    if (rc < 0) {
        mem_unmap_huge(t, sizeof(*t));
        return rc;
    }
    if (t->config.icount) {
        icount_init(t);
    }
    pthread_mutex_init(&t->excl_lock, NULL);
    pthread_cond_init(&t->excl_cond, NULL);
    tier2_init(t);
    vm->engine_data = t;
    return 0;
}

static void tcg_vm_done(struct vm *vm)
{
    struct tcg_vm *t = vm->engine_data;
    if (t) {
        tier2_done(t);
        cache_done(t);
        icount_done(t);
        trace_done(t);
        coverage_done(t);
        plugins_done(t);
        perfmap_done(t);
        pthread_mutex_destroy(&t->excl_lock);
        pthread_cond_destroy(&t->excl_cond);
        free(t->vcpus);
        free(t->breakpoints);
        mem_unmap_huge(t, sizeof(*t));
        vm->engine_data = NULL;
    }
}

static int tcg_vcpu_init(struct vcpu *c, struct err *e)
{
    struct tcg_vm *t = c->vm->engine_data;
    struct tcg_vcpu *v = xalloc_aligned(64, sizeof(struct tcg_vcpu) + c->vm->arch->cpu_size);
    v->vcpu = c;
    v->tcg = t;
    int rc = tlb_init(v, e);
    if (rc < 0) {
        free(v);
        return rc;
    }
    cache_warm_make(v);
    v->ir = xnew(struct ir);
    v->interp_temps = xnew_n(uint64_t, IR_MAX_TEMPS);
    c->engine_data = v;
    c->cpu = v->cpu;
    t->vcpus = xrealloc_n(t->vcpus, t->n_vcpus + 1, sizeof(t->vcpus[0]));
    t->vcpus[t->n_vcpus++] = v;
    cache_share(t);
    return 0;
}

static void tcg_vcpu_done(struct vcpu *c)
{
    struct tcg_vcpu *v = c->engine_data;
    if (!v) {
        return;
    }
    struct tcg_vm *t = v->tcg;
    tier2_stop(t);
    for (unsigned i = 0; i < t->n_vcpus; i++) {
        if (t->vcpus[i] == v) {
            t->vcpus[i] = t->vcpus[--t->n_vcpus];
        }
    }
    alias_reset(v);
    tlb_free(v);
    free(v->warm);
    free(v->ir);
    free(v->interp_temps);
    free(v->host_scratch);
    free(v);
    c->engine_data = NULL;
    c->cpu = NULL;
}

static void tcg_mem_commit(struct vm *vm, const struct mem_flat *flat)
{
    struct tcg_vm *t = vm->engine_data;
    (void)flat;
    if (!t) {
        return;
    }
    cache_flush_all(t);
    for (unsigned i = 0; i < t->n_vcpus; i++) {
        alias_reset(t->vcpus[i]);
    }
    cache_pages_reset(t);
}

static void tcg_mem_unshow(struct vm *vm)
{
    struct tcg_vm *t = vm->engine_data;
    for (unsigned i = 0; t && i < t->n_vcpus; i++) {
        alias_reset(t->vcpus[i]);
    }
}

static void tcg_mem_written(struct vm *vm, uint64_t gpa, uint64_t n)
{
    struct tcg_vm *t = vm->engine_data;
    if (t && t->pages.group) {
        cache_invalidate(t, gpa, n);
    }
}

static void tcg_kick(struct vcpu *c)
{
    struct tcg_vcpu *v = c->engine_data;
    atomic_store(&v->kicked, true);
    atomic_store(&v->exit_req, 1);
    if (v->tcg->icount) {
        icount_wake(v->tcg);
    }
    if (v->tcg->vm->replay) {
        replay_wake(v->tcg->vm);
    }
}

static void tcg_irq(struct vcpu *c)
{
    struct tcg_vcpu *v = c->engine_data;
    atomic_store(&v->exit_req, 1);
    if (v->tcg->icount) {
        icount_wake(v->tcg);
    }
}

/* State was written from outside (reset, load): nothing cached of the old one may serve. */
static void tcg_regs_put(struct vcpu *c)
{
    struct tcg_vcpu *v = c->engine_data;
    v->waiting = v->io_next = false;
    tlb_flush_vcpu(v);
}

static void tcg_regs_get(struct vcpu *c)
{
    (void)c; /* the state is always in place while the vCPU is out of translated code */
}

const struct engine_ops tcg_engine_ops = {
    .name = "tcg",
    .vm_init = tcg_vm_init,
    .vm_done = tcg_vm_done,
    .vcpu_init = tcg_vcpu_init,
    .vcpu_done = tcg_vcpu_done,
    .mem_commit = tcg_mem_commit,
    .mem_written = tcg_mem_written,
    .mem_unshow = tcg_mem_unshow,
    .run = tcg_run,
    .kick = tcg_kick,
    .irq = tcg_irq,
    .regs_put = tcg_regs_put,
    .regs_get = tcg_regs_get,
    .debug_translate = tcg_debug_lookup,
    .debug_breakpoints = tcg_debug_breakpoints,
    .debug_step = tcg_debug_step,
    .stats = tcg_stats,
};
