/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The second tier: samples, the thread that compiles, publishing and taking back of regions. See tier2.h.
 *
 * Locks: tier2.lock protects the queue; tcg_vm.lock everything that hangs from blocks. The first is never held while the
 * second is taken. The compiling thread touches first-tier blocks only under tcg_vm.lock and while no eviction has happened
 * since the job was made.
 */
#include "engine/tcg/instrument.h"
#include "engine/tcg/tier2.h"

#include "engine/base/buf.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/tcg/tier2_region.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define QUEUE 8
#define TICK_NS 2000000
#define SLOW_TICK_NS 10000000 /* when nothing new has become hot for a while */
#define QUIET_TICKS 250
#define MAX_NAPS 8
#define DOZE_NS 640000000
#define LONG_RUN_NS 2000000 /* a vCPU that runs so long at a stretch wakes the thread from a doze */
#define HOT 3                 /* samples */
#define MAX_REFUSALS 3
#define MIN_STAY_NS 40        /* on average, from one entry of a region to the next */
#define MAX_GAP_NS 20000000   /* between samples, to say anything */

/* How deep the thread sleeps. A guest that waits for something wakes many times a second for some 100 us: nothing to do in them. */
enum rest {
    AWAKE,
    DOZES,  /* looks now and then; told when a vCPU runs for long */
    SLEEPS, /* told when a vCPU runs at all */
};

struct tier2 {
    pthread_t thread;
    bool started, stop;
    _Atomic int rest;       /* enum rest */
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct t2_job *queue[QUEUE];
    unsigned n_queue, quiet, naps; /* ticks without a new job; ... that found no vCPU running */
    struct t2_work *work;
    /* tcg_vm.lock */
    uint64_t regions, bytes, given_up, late, killed, plain, nanoseconds;
    _Atomic uint64_t samples, samples_inside;
    _Atomic uint64_t memory; /* of work */
};

static uint64_t now(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- compiling ---- */

static struct t2_work *work_new(void)
{
    struct t2_work *w = xnew(struct t2_work);
    w->code = calloc(1, T2_CODE_AT + T2_CODE);
    w->block = calloc(1, offsetof(struct tcg_block, exits) + T2_PIECES * IR_MAX_EXITS * sizeof(struct tcg_exit));
    if (!w->code || !w->block) {
        free(w->code);
        free(w->block);
        free(w);
        return NULL;
    }
    return w;
}

static void work_free(struct t2_work *w)
{
    for (unsigned i = 0; w && i < T2_PIECES; i++) {
        free(w->ir[i]);
    }
    if (w) {
        free(w->code);
        free(w->block);
        free(w->host);
        free(w);
    }
}

static uint64_t work_memory(const struct t2_work *w)
{
    uint64_t n = malloc_usable_size((void *)(uintptr_t)w) + malloc_usable_size(w->code) + malloc_usable_size(w->host) +
                 malloc_usable_size(w->block);
    for (unsigned i = 0; i < T2_PIECES; i++) {
        n += malloc_usable_size(w->ir[i]);
    }
    return n;
}

static void log_ir(const struct t2_work *w)
{
    if (!log_traces('2')) {
        return;
    }
    for (unsigned i = 0; i < w->n; i++) {
        AUTO_BUF b = BUF_INIT;
        ir_print(w->ir[i], &b);
        log_trace('2', "piece %u%s\n%s", i, w->entry[i] ? ", entry" : "", b.data);
    }
}

/* Guest bytes to IR for all pieces. False when they are not what they were, or too much. */
static bool make_pieces(struct tcg_vm *t, const struct t2_job *job, struct t2_work *w)
{
    unsigned ops = 0;
    w->n = job->n;
    w->v = job->v;
    w->n_relocs = 0;
    w->floats_only = t->config.tier2 == TCG_TIER2_DEFAULT;
    w->plain = job->plain;
    for (unsigned i = 0; i < w->n; i++) {
        const struct t2_piece *p = &job->piece[i];
        uint64_t granules;
        if (!w->ir[i]) {
            w->ir[i] = xnew(struct ir);
        }
        struct tcg_trans tr = { .ir = w->ir[i],     .cpu = job->v->cpu, .code = job->code,
                                .page = job->page, .start = p->off,    .generic = true,
                                .variant_offset = t->guest->variant_offset };
        tcg_make_ir(t->guest, &tr, p->n_insns, &granules);
        if (w->ir[i]->overflow || tr.insns != p->n_insns || tr.straddles || tr.variant_used) {
            return false;
        }
        ir_optimise(w->ir[i], t->config.check);
        ops += w->ir[i]->n_ops;
        w->entry[i] = p->entry;
        w->weight[i] = p->weight;
    }
    for (unsigned i = 0; i < w->n; i++) {
        for (unsigned x = 0; x < w->ir[i]->n_exits; x++) {
            w->target[i][x] = (int8_t)t2_piece_at(job, &w->ir[i]->exits[x]);
        }
    }
    return ops <= T2_MAX_OPS;
}

/* The first tier's blocks stand as they did, so the bytes the job copied are what is there. */
static bool still_true(const struct tcg_vm *t, const struct t2_job *job)
{
    if (t->stats.evictions != job->evictions) {
        return false;
    }
    for (unsigned i = 0; i < job->n; i++) {
        if (atomic_load(&job->piece[i].block->invalid)) {
            return false;
        }
    }
    return true;
}

/* Lock held. False: it came too late, or there is no room just now. */
static bool publish(struct tcg_vm *t, const struct t2_job *job, struct t2_work *w)
{
    unsigned n_exits = w->block->n_exits;
    size_t room = w->code_size + cache_table_size(n_exits, true) + w->n_sites * 10ul + 64;
    if (tcg_observed(t) || !still_true(t, job) || !cache_reserve(t, room, false)) {
        return false;
    }
    struct tcg_block *b = cache_begin(t, n_exits, true);
    struct tcg_extra *extra = cache_extra(t, b);
    b->code = cache_fill_point(t);
    b->gpa = job->gpa | (uint64_t)job->piece[0].off;
    b->mode = job->mode | T2_MODE;
    tcg_host()->place(t, w, b);
    if (!cache_set_size(b, w->code_size) || !cache_sites(t, b, w->sites, w->n_sites)) {
        return false;
    }
    extra->entries = xnew_n(struct tcg_block *, job->n);
    extra->n_entries = job->n;
    uint64_t granules = 0;
    for (unsigned i = 0; i < job->n; i++) {
        granules |= cache_granules(t, job->piece[i].block);
        b->n_insns += job->piece[i].block->n_insns;
    }
    cache_set_granules(t, b, granules);
    cache_insert(t, b, cache_page_of(t, job->gpa), NULL);
    for (unsigned i = 0; i < job->n; i++) {
        struct tcg_block *one = job->piece[i].block;
        if (w->entry[i] && !one->tier2) {
            extra->entries[i] = one;
            one->tier2 = cache_ref(t, b);
            tcg_host()->redirect(t, one, b->code + w->entry_at[i]);
        }
    }
    if (t->perfmap) {
        perfmap_block(t, b, "region", b->gpa);
    }
    t->tier2->regions++;
    t->tier2->bytes += w->code_size;
    return true;
}

static void compile(struct tcg_vm *t, struct t2_job *job)
{
    struct tier2 *s = t->tier2;
    uint64_t t0 = now(CLOCK_THREAD_CPUTIME_ID);
    if (!s->work && !(s->work = work_new())) {
        free(job);
        return;
    }
    struct t2_work *w = s->work;
    bool ok = make_pieces(t, job, w) && tcg_host()->region(t, w);
    atomic_store(&s->memory, work_memory(w));
    if (ok) {
        log_ir(w);
    }
    pthread_mutex_lock(&t->lock);
    bool placed = ok && publish(t, job, w);
    s->given_up += !ok;
    s->late += ok && !placed;
    s->nanoseconds += now(CLOCK_THREAD_CPUTIME_ID) - t0;
    for (unsigned i = 0; i < job->n && t->stats.evictions == job->evictions; i++) {
        job->piece[i].block->asked = false;
        job->piece[i].block->refusals = ok ? 0 : MAX_REFUSALS;
    }
    pthread_mutex_unlock(&t->lock);
    log_trace('2', "region of %u pieces at %" PRIx64 "+%x: %s", job->n, job->gpa, (unsigned)job->piece[0].off,
              placed ? "entered" : ok ? "too late" : "given up");
    free(job);
}

/* ---- the thread ---- */

static void tick(struct tcg_vm *t)
{
    for (unsigned i = 0; i < t->n_vcpus; i++) {
        atomic_store_explicit(&t->vcpus[i]->sample, true, memory_order_relaxed);
        atomic_store(&t->vcpus[i]->exit_req, 1);
    }
}

static bool any_runs(struct tcg_vm *t)
{
    pthread_mutex_lock(&t->excl_lock);
    bool any = t->running != 0;
    pthread_mutex_unlock(&t->excl_lock);
    return any;
}

/* A moment from now. */
static struct timespec after(uint64_t ns)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    ns += (uint64_t)ts.tv_nsec;
    ts.tv_sec += (time_t)(ns / 1000000000u);
    ts.tv_nsec = (long)(ns % 1000000000u);
    return ts;
}

/* Until any vCPU runs, or there is work. Lock held. */
static void sleep_long(struct tcg_vm *t, struct tier2 *s)
{
    atomic_store(&s->rest, SLEEPS);
    if (!any_runs(t)) {
        pthread_cond_wait(&s->cond, &s->lock);
    }
    atomic_store(&s->rest, AWAKE);
}

/* Long after a look found a vCPU running: until a look does, one ran for long, or there is work. Lock held. */
static void doze(struct tcg_vm *t, struct tier2 *s)
{
    work_free(s->work);
    s->work = NULL;
    atomic_store(&s->memory, 0);
    while (!s->stop && s->n_queue == 0) {
        uint64_t runs = atomic_load(&t->n_runs);
        struct timespec ts = after(DOZE_NS);

        atomic_store(&s->rest, DOZES);
        if (pthread_cond_timedwait(&s->cond, &s->lock, &ts) == 0 || any_runs(t)) {
            break;
        }
        if (atomic_load(&t->n_runs) == runs) {
            sleep_long(t, s);
        }
    }
    atomic_store(&s->rest, AWAKE);
    s->naps = 0;
}

/* Waits for work, a tick or the end; lock held. Waking a vCPU shall not wake this thread each time, so it naps first, longer and
 * longer. */
static void wait_some(struct tcg_vm *t, struct tier2 *s)
{
    if (s->naps > MAX_NAPS) {
        doze(t, s);
        return;
    }
    struct timespec ts = after(s->quiet < QUIET_TICKS && s->naps == 0 ? TICK_NS
                                                                      : SLOW_TICK_NS << (s->naps / 2));
    if (pthread_cond_timedwait(&s->cond, &s->lock, &ts) == 0) {
        return;
    }
    if (any_runs(t)) {
        s->naps = 0;
        s->quiet++;
        tick(t);
    } else {
        s->naps++;
    }
}

static void *run(void *arg)
{
    struct tcg_vm *t = arg;
    struct tier2 *s = t->tier2;
    (void)setpriority(PRIO_PROCESS, 0, 5); /* this thread only; the guest goes first */
    pthread_mutex_lock(&s->lock);
    while (!s->stop && !any_runs(t)) {
        sleep_long(t, s);
    }
    if (!s->stop && t->vm->on_vcpu_thread) {
        t->vm->on_vcpu_thread(t->vm->on_vcpu_thread_arg, NULL);
    }
    while (!s->stop) {
        if (s->n_queue == 0) {
            wait_some(t, s);
            continue;
        }
        struct t2_job *job = s->queue[0];
        memmove(s->queue, s->queue + 1, --s->n_queue * sizeof(s->queue[0]));
        pthread_mutex_unlock(&s->lock);
        compile(t, job);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

void tier2_init(struct tcg_vm *t)
{
    bool able = t->config.backend == TCG_JIT && tcg_host() && tcg_host()->region;
    /* Not with an instruction clock, which counts by blocks. */
    if (t->config.tier2 == TCG_TIER2_OFF || t->config.icount || !able) {
        return;
    }
    struct tier2 *s = xnew(struct tier2);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->cond, &attr);
    pthread_condattr_destroy(&attr);
    t->tier2 = s;
    if (t->config.tier2 == TCG_TIER2_FORCE) {
        return; /* vCPUs compile themselves */
    }
    int rc = pthread_create(&s->thread, NULL, run, t);
    if (rc != 0) {
        log_info("tcg", "no thread for the second tier: %s", strerror(rc));
        tier2_done(t);
        return;
    }
    s->started = true;
}

void tier2_stop(struct tcg_vm *t)
{
    struct tier2 *s = t->tier2;
    if (!s || !s->started) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_broadcast(&s->cond);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    s->started = false;
}

void tier2_done(struct tcg_vm *t)
{
    struct tier2 *s = t->tier2;
    if (!s) {
        return;
    }
    tier2_stop(t);
    if (log_traces('2')) {
        AUTO_BUF b = BUF_INIT;
        tier2_stats(t, &b);
        log_trace('2', "%s", b.data);
    }
    for (unsigned i = 0; i < s->n_queue; i++) {
        free(s->queue[i]);
    }
    work_free(s->work);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->cond);
    free(s);
    t->tier2 = NULL;
}

static void wake(struct tier2 *s, int from)
{
    if (atomic_compare_exchange_strong(&s->rest, &from, AWAKE)) {
        pthread_mutex_lock(&s->lock);
        pthread_cond_signal(&s->cond);
        pthread_mutex_unlock(&s->lock);
    }
}

void tier2_runs(struct tcg_vcpu *v)
{
    struct tier2 *s = v->tcg->tier2;
    int rest = atomic_load(&s->rest);

    v->began_ns = rest != AWAKE ? now(CLOCK_MONOTONIC) : 0;
    if (rest == SLEEPS) {
        wake(s, SLEEPS);
    }
}

void tier2_runs_on(struct tcg_vcpu *v)
{
    if (v->began_ns && now(CLOCK_MONOTONIC) - v->began_ns > LONG_RUN_NS) {
        v->began_ns = 0;
        wake(v->tcg->tier2, DOZES);
    }
}

/* ---- asking ---- */

static void enqueue(struct tcg_vm *t, struct t2_job *job)
{
    struct tier2 *s = t->tier2;
    pthread_mutex_lock(&s->lock);
    bool room = s->n_queue < QUEUE;
    if (room) {
        s->queue[s->n_queue++] = job;
        s->quiet = 0;
        pthread_cond_signal(&s->cond);
    }
    pthread_mutex_unlock(&s->lock);
    if (!room) {
        pthread_mutex_lock(&t->lock);
        for (unsigned i = 0; i < job->n && t->stats.evictions == job->evictions; i++) {
            job->piece[i].block->asked = false;
        }
        pthread_mutex_unlock(&t->lock);
        free(job);
    }
}

static struct t2_job *ask(struct tcg_vcpu *v, struct tcg_block *b, bool forced)
{
    struct tcg_vm *t = v->tcg;
    pthread_mutex_lock(&t->lock);
    struct t2_job *job = NULL;
    if (!atomic_load(&b->invalid) && !b->tier2 && !b->asked && b->refusals < MAX_REFUSALS &&
        b->mode == v->mode_code) {
        job = t2_collect(v, b, forced);
        b->refusals += !job;
        for (unsigned i = 0; job && i < job->n; i++) {
            job->piece[i].block->asked = true;
        }
    }
    pthread_mutex_unlock(&t->lock);
    return job;
}

void tier2_force(struct tcg_vcpu *v, struct tcg_block *b)
{
    /* Half of them the second time, so that regions of one piece and of several come about. */
    struct t2_job *job = b->code / 16 & 1 && b->heat++ == 0 ? NULL : ask(v, b, true);
    if (job) {
        compile(v->tcg, job);
    }
}

/* The block that pc leads to, if it is known without a walk. */
static struct tcg_block *block_at(struct tcg_vcpu *v, uint64_t pc)
{
    const struct tcg_fetch *f = &v->space->fetch[(pc >> 12) % FTLB_SIZE];
    if (f->tag != (pc & ~4095ull)) {
        return NULL;
    }
    return cache_find(v->tcg, f->gpa | (pc & 4095), tcg_block_mode(v, f), tcg_variant_word(v));
}

/* A region that is entered all the time and left soon again costs more on its way in and out than it saves. */
static void weigh(struct tcg_vcpu *v, struct tcg_block *b)
{
    struct tcg_vm *t = v->tcg;
    struct tcg_extra *x = cache_extra(t, b);
    if (!x) {
        return;
    }
    uint64_t entered = __atomic_load_n(&x->entered, __ATOMIC_RELAXED), then = now(CLOCK_MONOTONIC);
    pthread_mutex_lock(&t->lock);
    uint64_t passed = then - x->sampled_at, times = entered - x->entered_then;
    bool drop = x->sampled_at && passed < MAX_GAP_NS && times > passed / MIN_STAY_NS;
    x->sampled_at = then;
    x->entered_then = entered;
    b->heat = drop ? b->heat + 1 : 0;
    for (unsigned i = 0; b->heat >= HOT && i < x->n_entries; i++) {
        if (x->entries[i]) {
            x->entries[i]->refusals = MAX_REFUSALS;
        }
    }
    drop = b->heat >= HOT;
    pthread_mutex_unlock(&t->lock);
    if (drop) {
        cache_drop(t, b);
    }
}

void tier2_sample(struct tcg_vcpu *v, struct tcg_exit *from)
{
    struct tier2 *s = v->tcg->tier2;
    atomic_store_explicit(&v->sample, false, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->samples, 1, memory_order_relaxed);
    struct tcg_block *b = from ? exit_block(from) : block_at(v, *tcg_pc(v));
    if (!b || tcg_observed(v->tcg)) {
        return;
    }
    if (b->mode & T2_MODE) {
        atomic_fetch_add_explicit(&s->samples_inside, 1, memory_order_relaxed);
        weigh(v, b);
        return;
    }
    if (b->tier2 || b->refusals >= MAX_REFUSALS || ++b->heat < HOT) {
        return;
    }
    b->heat = 0;
    struct t2_job *job = ask(v, b, false);
    if (job) {
        enqueue(v->tcg, job);
    }
}

void tier2_plain(struct tcg_vcpu *v)
{
    struct tcg_vm *t = v->tcg;
    pthread_mutex_lock(&t->lock);
    struct tcg_block *b = cache_by_host(t, v->host_ra);
    const struct tcg_extra *x = b && b->mode & T2_MODE ? cache_extra(t, b) : NULL;
    for (unsigned i = 0; x && i < x->n_entries; i++) {
        if (x->entries[i]) {
            x->entries[i]->plain = true;
        }
    }
    t->tier2->plain += x != NULL;
    pthread_mutex_unlock(&t->lock);
    if (x) {
        cache_drop(t, b);
    }
}

/* ---- blocks that go ---- */

void tier2_retired(struct tcg_vm *t, struct tcg_block *b)
{
    struct tcg_block *region = cache_at(t, b->tier2);
    struct tcg_extra *x = region ? cache_extra(t, region) : NULL;
    for (unsigned i = 0; x && i < x->n_entries; i++) {
        if (x->entries[i] == b) {
            x->entries[i] = NULL;
        }
    }
    b->tier2 = 0;
    if (!(b->mode & T2_MODE)) {
        return;
    }
    x = cache_extra(t, b);
    for (unsigned i = 0; i < x->n_entries; i++) {
        struct tcg_block *one = x->entries[i];
        if (one) {
            one->tier2 = 0;
            tcg_host()->redirect(t, one, 0);
        }
    }
    x->n_entries = 0;
    t->tier2->killed++;
    for (unsigned i = 0; i < t->n_vcpus; i++) {
        atomic_store(&t->vcpus[i]->exit_req, 1); /* who is inside leaves at its next poll */
    }
}

uint64_t tier2_memory(const struct tcg_vm *t)
{
    return t->tier2 ? sizeof(*t->tier2) + atomic_load(&t->tier2->memory) : 0;
}

void tier2_stats(struct tcg_vm *t, struct buf *out)
{
    const struct tier2 *s = t->tier2;
    if (s) {
        buf_printf(out,
                   "tier2_regions %" PRIu64 " regions compiled and entered\n"
                   "tier2_bytes %" PRIu64 " bytes of their host code\n"
                   "tier2_given_up %" PRIu64 " regions that could not be compiled\n"
                   "tier2_late %" PRIu64 " compiled for guest code that had changed, or without room\n"
                   "tier2_dropped %" PRIu64 " dropped again\n"
                   "tier2_plain %" PRIu64 " ... because addends were guessed wrong\n"
                   "tier2_ns %" PRIu64 " nanoseconds spent compiling them\n"
                   "tier2_samples %" PRIu64 " samples taken of what runs\n"
                   "tier2_samples_inside %" PRIu64 " ... that fell into a region\n",
                   s->regions, s->bytes, s->given_up, s->late, s->killed, s->plain, s->nanoseconds,
                   atomic_load(&s->samples), atomic_load(&s->samples_inside));
    }
}
