/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The instruction clock: virtual time is the number of guest instructions executed, times 2^shift ns, plus what was skipped while every
 * vCPU waited. Nothing of the host's time or scheduling reaches the guest, so two runs are the same.
 *
 * Translated code takes each segment (a run of instructions left only at its end) off a budget when it begins, and leaves when
 * the budget does not suffice; what is left of the budget is run by blocks of one instruction. The budget ends where the next timer is
 * due, so timers fire between two instructions, exactly. Instructions that read the clock or reach a device run alone too
 * (tcg_io_begin), at a time that is exact.
 *
 * One vCPU at a time runs, whoever has the turn; it goes round by instruction count and when its owner waits. icount->lock protects
 * the turn; the clock and the counts belong to whoever has it.
 */
#include "engine/tcg/internal.h"

#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/core/clock.h"
#include "engine/core/replay.h"

#include <stdlib.h>

#define SLICE 50000 /* instructions of a turn, when there is more than one vCPU */
#define GRANT_MAX                                                                              \
    50000 /* between two looks at requests: there are no polls in translated code */

struct tcg_count {
    int16_t off;   /* of an instruction, page-relative */
    uint16_t left; /* instructions of its segment from it on */
};

struct icount {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    unsigned turn; /* index in tcg_vm.vcpus */
    unsigned shift;
    _Atomic uint64_t executed; /* by all vCPUs */
    struct tcg_count *scratch; /* of the block being translated; tcg_vm.lock */
};

/* ---- translation: where segments begin and how long they are ---- */

static void close_segment(struct tcg_trans *t, unsigned end)
{
    struct tcg_count *c = t->tcg->icount->scratch;
    if (t->segment_op < t->ir->n_ops) {
        t->ir->ops[t->segment_op].aux = (uint16_t)(end - t->segment_first);
    }
    for (unsigned i = t->segment_first; i < end; i++) {
        c[i].left = (uint16_t)(end - i);
    }
}

static void open_segment(struct tcg_trans *t)
{
    t->segment_first = t->insns - 1;
    t->segment_op = t->ir->n_ops;
    t->segment_ends = false;
    ir_count(t->ir, ir_exit_new(t->ir, IR_EXIT_DIRECT, t->off, IR_NONE, IR_HINT_NONE));
}

void icount_insn(struct tcg_trans *t)
{
    t->tcg->icount->scratch[t->insns - 1].off = (int16_t)t->off;
    t->insn_op = t->ir->n_ops;
    if (t->insns == 1) {
        open_segment(t);
    } else if (t->segment_ends) {
        close_segment(t, t->insns - 1);
        open_segment(t);
    }
}

void icount_restart(struct tcg_trans *t)
{
    close_segment(t, t->insns - 1);
    open_segment(t);
    t->insn_op = t->ir->n_ops;
}

void icount_insn_end(struct tcg_trans *t)
{
    for (unsigned i = t->insn_op; i < t->ir->n_ops; i++) {
        t->segment_ends |= t->ir->ops[i].op == IR_brcond;
    }
}

void icount_end(struct tcg_trans *t)
{
    close_segment(t, t->insns);
}

struct tcg_count *icount_table(const struct tcg_trans *t)
{
    return xmemdup(t->tcg->icount->scratch, t->insns * sizeof(struct tcg_count));
}

/* ---- counting ---- */

/* What the vCPU executed since the last time is accounted for, and the clock says it. */
static void sync(struct tcg_vcpu *v)
{
    struct icount *ic = v->tcg->icount;
    uint64_t n = (uint64_t)(v->granted - v->budget);
    v->granted = v->budget;
    v->retired += n;
    atomic_store_explicit(&ic->executed,
                          atomic_load_explicit(&ic->executed, memory_order_relaxed) + n,
                          memory_order_relaxed);
    clock_advance(v->tcg->vm->clock, n << ic->shift);
}

/* Nothing may run before the dispatcher has looked. */
void icount_stop(struct tcg_vcpu *v)
{
    v->granted -= v->budget;
    v->budget = 0;
}

/* An instruction did not happen: it and what follows in its segment go back to the budget. */
void icount_refund(struct tcg_vcpu *v)
{
    int32_t insn = v->interp_insn;
    const struct tcg_block *b = v->interp_block;
    if (v->tcg->config.backend == TCG_JIT) {
        pthread_mutex_lock(&v->tcg->lock);
        b = cache_by_host(v->tcg, v->host_ra);
        pthread_mutex_unlock(&v->tcg->lock);
        if (!b || !cache_site(v->tcg, v->host_ra, &insn)) {
            return;
        }
    }
    const struct tcg_count *counts = cache_extra(v->tcg, b)->counts;
    for (unsigned i = 0; i < b->n_insns; i++) {
        if (counts[i].off == insn) {
            v->budget += counts[i].left;
            return;
        }
    }
}

uint64_t icount_executed(const struct tcg_vm *t)
{
    return atomic_load_explicit(&t->icount->executed, memory_order_relaxed);
}

uint64_t tcg_retired(void *cpu)
{
    return tcg_of(cpu)->retired; /* accounted for right before the instruction */
}

bool tcg_counts(void *cpu)
{
    return tcg_of(cpu)->tcg->icount != NULL;
}

void tcg_io_begin(void *cpu)
{
    struct tcg_vcpu *v = tcg_of(cpu);
    if (v->tcg->icount && v->in_code && !v->io_ok) {
        tcg_io_retry(v);
    }
}

/* ---- turns ---- */

/* Waits for the vCPU's turn. False: somebody wants it out. */
bool icount_take_turn(struct tcg_vcpu *v)
{
    struct icount *ic = v->tcg->icount;
    bool mine;
    pthread_mutex_lock(&ic->lock);
    while (v->tcg->vcpus[ic->turn] != v && !atomic_load(&v->kicked)) {
        pthread_cond_wait(&ic->cond, &ic->lock);
    }
    mine = v->tcg->vcpus[ic->turn] == v;
    pthread_mutex_unlock(&ic->lock);
    return mine;
}

static bool runnable(struct tcg_vcpu *v)
{
    return !v->waiting || v->tcg->vm->arch->cpu_has_work(v->vcpu);
}

/* The turn goes to the next that can run, v itself being the last choice. False: there is none. */
static bool pass_turn(struct tcg_vcpu *v)
{
    struct tcg_vm *t = v->tcg;
    struct icount *ic = t->icount;
    for (unsigned i = 1; i <= t->n_vcpus; i++) {
        unsigned next = (ic->turn + i) % t->n_vcpus;
        if (runnable(t->vcpus[next])) {
            if (t->vcpus[next] != v) {
                pthread_mutex_lock(&ic->lock);
                ic->turn = next;
                pthread_cond_broadcast(&ic->cond);
                pthread_mutex_unlock(&ic->lock);
            }
            return true;
        }
    }
    return false;
}

bool icount_skip(struct tcg_vcpu *v)
{
    struct clock *c = v->tcg->vm->clock;
    uint64_t now = clock_now(c), at = clock_next_deadline(c);
    if (at == UINT64_MAX) {
        return false;
    }
    clock_advance(c, at > now ? at - now : 0);
    clock_run_due(c);
    return true;
}

static bool wanted_out(void *arg)
{
    struct tcg_vcpu *v = arg;
    return atomic_load(&v->kicked) || atomic_load(&v->tcg->excl_asked);
}

static struct replay_place place(const struct tcg_vcpu *v)
{
    uint64_t traps = 0;
    for (unsigned i = 0; i < v->tcg->n_vcpus; i++) {
        traps += v->tcg->vcpus[i]->n_exception + v->tcg->vcpus[i]->n_interrupt;
    }
    return (struct replay_place){ .count = icount_executed(v->tcg),
                                  .now = clock_now(v->tcg->vm->clock),
                                  .turn = v->tcg->icount->turn,
                                  .traps = (uint32_t)traps };
}

/* The same with a tape: what comes from outside stands on it, or time goes by as it does there. */
static void all_wait_with_tape(struct tcg_vcpu *v)
{
    struct vm *vm = v->tcg->vm;
    struct replay_place at = place(v);
    uint64_t to = replay_wait(vm, &at, clock_next_deadline(vm->clock), wanted_out, v);
    clock_advance(vm->clock, to - at.now);
}

/* Every vCPU waits, v has the turn: time goes to the next timer at once; without one, something from outside must come. */
static void all_wait(struct tcg_vcpu *v)
{
    struct tcg_vm *t = v->tcg;
    struct icount *ic = t->icount;
    if (t->vm->replay) {
        all_wait_with_tape(v);
        return;
    }
    if (icount_skip(v)) {
        return;
    }
    pthread_mutex_lock(&ic->lock);
    while (!atomic_load(&v->kicked) && !atomic_load(&v->exit_req) &&
           clock_next_deadline(t->vm->clock) == UINT64_MAX) {
        pthread_cond_wait(&ic->cond, &ic->lock);
    }
    pthread_mutex_unlock(&ic->lock);
}

void icount_wake(struct tcg_vm *t)
{
    pthread_mutex_lock(&t->icount->lock);
    if (t->n_vcpus &&
        t->icount->turn < t->n_vcpus) { /* whoever waits for the outside has the turn */
        atomic_store(&t->vcpus[t->icount->turn]->exit_req, 1);
    }
    pthread_cond_broadcast(&t->icount->cond);
    pthread_mutex_unlock(&t->icount->lock);
}

static void timer_armed(void *arg)
{
    icount_wake(arg);
}

/* ---- the run loop's part ---- */

/* The vCPU has the turn: serves timers, then gives a budget. False when it is another's turn now. */
static bool grant(struct tcg_vcpu *v, uint64_t limit)
{
    struct tcg_vm *t = v->tcg;
    uint64_t now = clock_now(t->vm->clock), at = clock_next_deadline(t->vm->clock);
    if (v->slice <= 0 && t->n_vcpus > 1) {
        v->slice = SLICE;
        pass_turn(v);
        return false;
    }
    int64_t n = t->n_vcpus > 1 && v->slice < GRANT_MAX ? v->slice : GRANT_MAX;
    if (at != UINT64_MAX) {
        uint64_t until = (at - now + (1ull << t->icount->shift) - 1) >> t->icount->shift;
        n = until < (uint64_t)n ? (int64_t)until : n;
    }
    if (limit < (uint64_t)n) {
        n = (int64_t)limit;
        if (n == 0) {
            replay_lost(t->vm);
            return false;
        }
    }
    v->one_by_one = n < (int64_t)t->config.max_insns || v->io_next;
    v->granted = v->budget = v->one_by_one ? 1 : n;
    return true;
}

enum icount_next icount_next(struct tcg_vcpu *v)
{
    struct tcg_vm *t = v->tcg;
    int64_t before = v->granted;
    sync(v);
    v->slice -= before - v->granted;
    if (atomic_load(&v->kicked)) {
        if (t->vm->replay) {
            struct replay_place at = place(v);
            replay_at(t->vm, &at);
        }
        return ICOUNT_OUT;
    }
    if (clock_next_deadline(t->vm->clock) <= clock_now(t->vm->clock)) {
        clock_run_due(t->vm->clock);
        return ICOUNT_AGAIN;
    }
    uint64_t limit = UINT64_MAX;
    if (t->vm->replay) {
        struct replay_place at = place(v);
        enum replay_next what = replay_boundary(t->vm, &at, &limit, wanted_out, v);
        if (what != REPLAY_GO) {
            return what == REPLAY_OUT && atomic_load(&v->kicked) ? ICOUNT_OUT : ICOUNT_AGAIN;
        }
    }
    if (v->waiting) {
        if (runnable(v)) {
            v->waiting = false;
            atomic_store(&v->exit_req, 1);
        } else {
            if (!pass_turn(v)) {
                all_wait(v);
            }
            return ICOUNT_TURN;
        }
    }
    return grant(v, limit) ? ICOUNT_RUN : ICOUNT_TURN;
}

void icount_one(struct tcg_vcpu *v)
{
    v->granted = v->budget = 1;
}

void icount_leave(struct tcg_vcpu *v, bool unused)
{
    if (unused) {
        v->granted = v->budget = 0;
    } else {
        int64_t before = v->granted;
        sync(v);
        v->slice -= before - v->granted;
    }
    v->granted = v->budget = 0;
    struct replay_place at = place(v);
    replay_at(v->tcg->vm, &at);
}

void icount_free_run(struct tcg_vcpu *v)
{
    sync(v);
    v->granted = v->budget = INT64_MAX / 2;
    v->io_ok = true;
    clock_run_due(v->tcg->vm->clock);
}

/* ---- life ---- */

void icount_init(struct tcg_vm *t)
{
    struct icount *ic = xnew(struct icount);
    pthread_mutex_init(&ic->lock, NULL);
    pthread_cond_init(&ic->cond, NULL);
    ic->shift = t->config.icount_shift;
    ic->scratch = xnew_n(struct tcg_count, t->config.max_insns + 1);
    t->icount = ic;
    clock_drive(t->vm->clock, timer_armed, t);
}

void icount_done(struct tcg_vm *t)
{
    if (t->icount) {
        pthread_cond_destroy(&t->icount->cond);
        pthread_mutex_destroy(&t->icount->lock);
        free(t->icount->scratch);
        free(t->icount);
        t->icount = NULL;
    }
}
