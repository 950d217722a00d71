/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The meeting of a vCPU and the main thread between two instructions, and what is done there. Owns struct replay. `lock` protects
 * what is marked so; everything else belongs to the main thread.
 */
#include "engine/core/replay.h"

#include "engine/base/buf.h"
#include "engine/base/hash.h"
#include "engine/base/list.h"
#include "engine/base/mem.h"
#include "engine/core/device.h"
#include "engine/core/state.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define MARK_EVERY 50000000 /* instructions */
#define NEVER UINT64_MAX

struct source {
    char *name;
    replay_apply apply;
    void *arg;
};

struct deferred {
    struct list link;
    void (*fn)(void *arg);
    void *arg;
};

struct input {
    struct list link;
    uint32_t source;
    size_t n;
    uint8_t p[];
};

struct replay {
    struct vm *vm;
    const struct replay_tape *tape;
    void *tape_arg;
    bool play;
    struct source *sources;
    unsigned n_sources;
    bool failed;  /* diverged: nothing is played any more */
    bool ended;   /* END was met */
    bool stopped; /* the recording is over */
    uint64_t last_mark;
    struct replay_record seen; /* what peek() said last, for the vCPUs; lock */

    pthread_mutex_t lock;
    pthread_cond_t cond;    /* anything below has changed */
    struct list deferred;   /* lock */
    struct list tasks;      /* struct loop_task.link; lock */
    struct list inbox;      /* lock */
    bool has_next;          /* `seen` is valid; lock */
    bool open;              /* a vCPU waits at `at`; lock */
    bool serving;           /* and the main thread is at it; lock */
    bool posted;            /* lock */
    bool lost;              /* the machine went past what was recorded; lock */
    bool later;             /* a source has said -EAGAIN; lock */
    unsigned holds;         /* lock */
    uint64_t until;         /* lock */
    struct replay_place at; /* lock; while `open` and at the barrier the main thread reads it */
    uint64_t stream;        /* lock */
};

static void serve(void *arg);
static void see_next(struct replay *r);

/* --- life --- */

void replay_new(struct vm *vm, bool play, const struct replay_tape *tape, void *arg)
{
    struct replay *r = xnew(struct replay);
    pthread_condattr_t attr;

    r->vm = vm;
    r->play = play;
    r->tape = tape;
    r->tape_arg = arg;
    r->until = NEVER;
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->cond, &attr);
    pthread_condattr_destroy(&attr);
    list_init(&r->deferred);
    list_init(&r->tasks);
    list_init(&r->inbox);
    vm->replay = r;
}

static void drop_inbox(struct replay *r)
{
    while (!list_empty(&r->inbox)) {
        struct input *in = list_entry(r->inbox.next, struct input, link);

        list_remove(&in->link);
        free(in);
    }
}

void replay_ready(struct vm *vm)
{
    if (vm->replay && vm->replay->play) {
        see_next(vm->replay);
    }
}

void replay_free(struct vm *vm)
{
    struct replay *r = vm->replay;

    if (!r) {
        return;
    }
    drop_inbox(r);
    while (!list_empty(&r->deferred)) {
        struct deferred *d = list_entry(r->deferred.next, struct deferred, link);

        list_remove(&d->link);
        free(d);
    }
    for (unsigned i = 0; i < r->n_sources; i++) {
        free(r->sources[i].name);
    }
    free(r->sources);
    pthread_cond_destroy(&r->cond);
    pthread_mutex_destroy(&r->lock);
    free(r);
    vm->replay = NULL;
}

bool replay_plays(const struct vm *vm)
{
    return vm->replay && vm->replay->play;
}

bool replay_records(const struct vm *vm)
{
    return vm->replay && !vm->replay->play;
}

uint32_t replay_source(struct vm *vm, const char *name, replay_apply apply, void *arg)
{
    struct replay *r = vm->replay;

    r->sources = xrealloc_n(r->sources, r->n_sources + 1, sizeof(r->sources[0]));
    r->sources[r->n_sources] = (struct source){ xstrdup(name), apply, arg };
    return r->n_sources++;
}

unsigned replay_sources(const struct vm *vm)
{
    return vm->replay->n_sources;
}

const char *replay_source_name(const struct vm *vm, uint32_t source)
{
    return source < vm->replay->n_sources ? vm->replay->sources[source].name : "?";
}

/* --- the vCPU is told --- */

/* Lock held: the main thread is to look. */
static void ask_locked(struct replay *r)
{
    if (r->open && !r->posted) {
        r->posted = true;
        loop_post(r->vm->loop, serve, r);
    }
}

/* A vCPU that runs, or waits for nothing but the outside, looks soon. */
static void nudge(struct replay *r)
{
    pthread_mutex_lock(&r->lock);
    ask_locked(r);
    pthread_cond_broadcast(&r->cond);
    pthread_mutex_unlock(&r->lock);
    if (r->vm->n_vcpus > 0) {
        r->vm->engine->irq(r->vm->vcpus[0]);
    }
}

void replay_wake(struct vm *vm)
{
    pthread_mutex_lock(&vm->replay->lock);
    pthread_cond_broadcast(&vm->replay->cond);
    pthread_mutex_unlock(&vm->replay->lock);
}

void vm_post(struct vm *vm, void (*fn)(void *arg), void *arg)
{
    struct replay *r = vm->replay;
    struct deferred *d;

    if (!r) {
        loop_post(vm->loop, fn, arg);
        return;
    }
    d = xnew(struct deferred);
    d->fn = fn;
    d->arg = arg;
    pthread_mutex_lock(&r->lock);
    list_append(&r->deferred, &d->link);
    pthread_mutex_unlock(&r->lock);
}

void vm_task(struct vm *vm, struct loop_task *t)
{
    struct replay *r = vm->replay;

    if (!r) {
        loop_task_queue(vm->loop, t);
        return;
    }
    pthread_mutex_lock(&r->lock);
    if (list_empty(&t->link)) {
        list_append(&r->tasks, &t->link);
    }
    pthread_mutex_unlock(&r->lock);
}

void replay_hold(struct vm *vm, bool on)
{
    struct replay *r = vm->replay;

    pthread_mutex_lock(&r->lock);
    r->holds += on ? 1 : -1u;
    pthread_cond_broadcast(&r->cond);
    pthread_mutex_unlock(&r->lock);
}

void replay_until(struct vm *vm, uint64_t count)
{
    struct replay *r = vm->replay;

    pthread_mutex_lock(&r->lock);
    r->until = count;
    pthread_mutex_unlock(&r->lock);
    nudge(r);
}

void replay_poke(struct vm *vm)
{
    struct replay *r = vm->replay;

    pthread_mutex_lock(&r->lock);
    r->later = false;
    ask_locked(r);
    pthread_mutex_unlock(&r->lock);
}

/* --- digests --- */

void replay_stream(struct vm *vm, const void *p, size_t n)
{
    struct replay *r = vm->replay;

    pthread_mutex_lock(&r->lock);
    r->stream = hash_bytes(p, n, r->stream);
    pthread_mutex_unlock(&r->lock);
}

uint64_t replay_check(struct vm *vm)
{
    AUTO_BUF b = BUF_INIT;
    uint64_t h;

    for (unsigned i = 0; i < vm->n_vcpus; i++) {
        if (vm->engine->regs_get) {
            vm->engine->regs_get(vm->vcpus[i]);
        }
        st_save(vm->arch->state, vm->vcpus[i]->cpu, &b);
    }
    pthread_mutex_lock(&vm->replay->lock);
    h = hash_bytes(b.data, b.len, vm->replay->stream);
    pthread_mutex_unlock(&vm->replay->lock);
    return h;
}

struct replay_place replay_place(const struct vm *vm)
{
    return vm->replay->at;
}

uint64_t replay_count(struct vm *vm)
{
    uint64_t n;

    pthread_mutex_lock(&vm->replay->lock);
    n = vm->replay->at.count;
    pthread_mutex_unlock(&vm->replay->lock);
    return n;
}

/* --- divergence --- */

static void diverge(struct replay *r, struct err *e)
{
    if (!r->failed) {
        r->failed = true;
        err_prefix(e, "at instruction %" PRIu64, r->at.count);
        replay_hold(r->vm, true); /* until it is freed */
        r->tape->diverged(r->tape_arg, e);
    }
}

static const char *kind_name(enum replay_kind k)
{
    static const char *const names[REPLAY_KINDS] = {
        [REPLAY_INPUT] = "an input of",           [REPLAY_DATA] = "random bytes for",
        [REPLAY_OUTPUT] = "an output of",         [REPLAY_MARK] = "a mark, source",
        [REPLAY_SAVED] = "a saved state, source", [REPLAY_END] = "its end, source"
    };

    return (unsigned)k < REPLAY_KINDS && names[k] ? names[k] : "?";
}

static bool same_place(const struct replay_place *a, const struct replay_place *b)
{
    return a->count == b->count && a->now == b->now && a->turn == b->turn &&
           a->traps == b->traps;
}

static void see_next(struct replay *r)
{
    const struct replay_record *next = r->failed ? NULL : r->tape->peek(r->tape_arg);

    pthread_mutex_lock(&r->lock);
    r->has_next = next != NULL;
    if (next) {
        r->seen = *next;
    }
    pthread_mutex_unlock(&r->lock);
}

static void took(struct replay *r)
{
    r->tape->take(r->tape_arg);
    see_next(r);
}

/* The record that must be next while something is done; NULL: it is another, and that was told. */
static const struct replay_record *expect(struct replay *r, enum replay_kind kind,
                                          uint32_t source, size_t n)
{
    const struct replay_record *next = r->failed ? NULL : r->tape->peek(r->tape_arg);
    struct err e = ERR_INIT;

    if (r->failed) {
        return NULL;
    }
    if (next && next->kind == kind && next->source == source && next->n == n &&
        same_place(&next->at, &r->at)) {
        return next;
    }
    if (next) {
        err_set(&e, -EILSEQ,
                "there is %s '%s' (%zu bytes); the recording has %s '%s' (%zu bytes) at "
                "instruction %" PRIu64 " next",
                kind_name(kind), replay_source_name(r->vm, source), n, kind_name(next->kind),
                replay_source_name(r->vm, next->source), next->n, next->at.count);
    } else {
        err_set(&e, -EILSEQ, "there is %s '%s'; the recording ends before it", kind_name(kind),
                replay_source_name(r->vm, source));
    }
    diverge(r, &e);
    return NULL;
}

static void put(struct replay *r, struct replay_record *rec)
{
    rec->at = r->at;
    if (!r->stopped) {
        r->tape->put(r->tape_arg, rec);
    }
}

/* --- what is done between two instructions --- */

void replay_output(struct vm *vm, uint32_t source, const void *p, size_t n)
{
    struct replay *r = vm->replay;
    uint64_t d[2] = { n, hash_bytes(p, n, source) };
    uint8_t bytes[16];

    for (unsigned i = 0; i < 16; i++) {
        bytes[i] = (uint8_t)(d[i / 8] >> i % 8 * 8);
    }
    if (!r->play) {
        struct replay_record rec = {
            .kind = REPLAY_OUTPUT, .source = source, .p = bytes, .n = 16
        };

        put(r, &rec);
        return;
    }
    const struct replay_record *next = expect(r, REPLAY_OUTPUT, source, 16);
    if (!next) {
        return;
    }
    if (memcmp(next->p, bytes, 16) != 0) {
        struct err e = ERR_INIT;

        err_set(&e, -EILSEQ, "'%s' sends %zu bytes other than it sent when it was recorded",
                replay_source_name(vm, source), n);
        diverge(r, &e);
        return;
    }
    took(r);
}

void vm_random(struct vm *vm, uint32_t source, void *p, size_t n)
{
    struct replay *r = vm->replay;
    size_t have = 0;

    if (r && r->play) {
        const struct replay_record *next = expect(r, REPLAY_DATA, source, n);

        memset(p, 0, n);
        if (next) {
            memcpy(p, next->p, n);
            took(r);
        }
        return;
    }
    while (have < n) {
        ssize_t got = getrandom((uint8_t *)p + have, n - have, 0);

        have += got > 0 ? (size_t)got : 0;
    }
    if (r) {
        struct replay_record rec = { .kind = REPLAY_DATA, .source = source, .p = p, .n = n };

        put(r, &rec);
    }
}

/* What devices put off, and what that puts off, too. */
static void run_deferred(struct replay *r)
{
    pthread_mutex_lock(&r->lock);
    for (;;) {
        void (*fn)(void *arg);
        void *arg;

        if (!list_empty(&r->deferred)) {
            struct deferred *d = list_entry(r->deferred.next, struct deferred, link);

            list_remove(&d->link);
            fn = d->fn;
            arg = d->arg;
            free(d);
        } else if (!list_empty(&r->tasks)) {
            struct loop_task *t = list_entry(r->tasks.next, struct loop_task, link);

            list_remove(&t->link);
            fn = t->fn;
            arg = t->arg;
        } else {
            break;
        }
        pthread_mutex_unlock(&r->lock);
        fn(arg);
        pthread_mutex_lock(&r->lock);
    }
    pthread_mutex_unlock(&r->lock);
}

static int apply(struct replay *r, uint32_t source, const uint8_t *p, size_t n)
{
    struct err e = ERR_INIT;
    int rc;

    if (source >= r->n_sources || !r->sources[source].apply) {
        rc = err_set(&e, -EBADMSG,
                     "the recording has an input of source %u, which the machine has not",
                     source);
    } else {
        rc = r->sources[source].apply(r->sources[source].arg, p, n, &e);
        if (rc == -EAGAIN) {
            return rc;
        }
        if (rc != 0) {
            err_prefix(&e, "'%s'", r->sources[source].name);
        }
    }
    if (rc != 0) {
        diverge(r, &e);
    }
    return rc;
}

static void record_inputs(struct replay *r)
{
    for (;;) {
        struct input *in = NULL;

        pthread_mutex_lock(&r->lock);
        if (!list_empty(&r->inbox)) {
            in = list_entry(r->inbox.next, struct input, link);
            list_remove(&in->link);
        }
        pthread_mutex_unlock(&r->lock);
        if (!in) {
            break;
        }
        struct replay_record rec = { .kind = REPLAY_INPUT,
                                     .source = in->source,
                                     .check = replay_check(r->vm),
                                     .p = in->p,
                                     .n = in->n };
        r->last_mark = r->at.count;
        put(r, &rec);
        (void)apply(r, in->source, in->p, in->n);
        free(in);
        run_deferred(r);
    }
    if (r->at.count - r->last_mark >= MARK_EVERY) {
        struct replay_record rec = { .kind = REPLAY_MARK, .check = replay_check(r->vm) };

        r->last_mark = r->at.count;
        put(r, &rec);
    }
}

static void resume_devices(struct vm *vm)
{
    list_for_each (it, &vm->devices) {
        struct device *d = list_entry(it, struct device, node);

        if (d->cls->resumed) {
            d->cls->resumed(d);
        }
    }
}

/* One record that is due here. False: no more for now. */
static bool play_record(struct replay *r, const struct replay_record *next)
{
    struct err e = ERR_INIT;

    if (next->kind == REPLAY_OUTPUT || next->kind == REPLAY_DATA) {
        err_set(&e, -EILSEQ, "the recording has %s '%s' here, the machine has none",
                kind_name(next->kind), replay_source_name(r->vm, next->source));
        diverge(r, &e);
        return false;
    }
    if (next->check != replay_check(r->vm)) {
        err_set(&e, -EILSEQ,
                "the vCPUs or their output are not what they were when %s '%s' was recorded",
                kind_name(next->kind), replay_source_name(r->vm, next->source));
        diverge(r, &e);
        return false;
    }
    if (next->kind == REPLAY_INPUT && apply(r, next->source, next->p, next->n) != 0) {
        pthread_mutex_lock(&r->lock);
        r->later = !r->failed;
        pthread_mutex_unlock(&r->lock);
        return false;
    }
    if (next->kind == REPLAY_END) {
        r->ended = true;
        return false;
    }
    if (next->kind == REPLAY_SAVED) {
        resume_devices(r->vm);
    }
    took(r);
    run_deferred(r);
    return true;
}

static void play_inputs(struct replay *r)
{
    const struct replay_record *next;
    bool lost;

    while (!r->failed && !r->ended && (next = r->tape->peek(r->tape_arg)) &&
           same_place(&next->at, &r->at)) {
        if (!play_record(r, next)) {
            return;
        }
    }
    r->ended |= !r->failed && !r->tape->peek(r->tape_arg); /* of one that was cut off */
    pthread_mutex_lock(&r->lock);
    lost = r->lost && !r->failed;
    pthread_mutex_unlock(&r->lock);
    if (lost) {
        struct err e = ERR_INIT;

        next = r->tape->peek(r->tape_arg);
        if (next) {
            err_set(&e, -EILSEQ,
                    "the machine went past what the recording has next: %s '%s' at instruction "
                    "%" PRIu64 ", time %" PRIu64 " ns, vCPU %u; it is at %" PRIu64
                    " ns, vCPU %u",
                    kind_name(next->kind), replay_source_name(r->vm, next->source),
                    next->at.count, next->at.now, next->at.turn, r->at.now, r->at.turn);
            diverge(r, &e);
        }
    }
}

/* Main thread. The machine is held between two instructions, until it is paused. */
static void arrive(struct replay *r, bool end)
{
    replay_hold(r->vm, true);
    pthread_mutex_lock(&r->lock);
    r->open = false;
    if (!end) {
        r->until = NEVER;
    }
    pthread_mutex_unlock(&r->lock);
    r->tape->arrived(r->tape_arg, end);
    replay_hold(r->vm, false);
}

static void serve(void *arg)
{
    struct replay *r = arg;
    bool open, reached;

    pthread_mutex_lock(&r->lock);
    r->posted = false;
    open = r->open && !r->serving;
    r->serving = open;
    pthread_mutex_unlock(&r->lock);
    if (!open) {
        return;
    }
    run_deferred(r);
    if (r->play) {
        play_inputs(r);
    } else {
        record_inputs(r);
    }
    pthread_mutex_lock(&r->lock);
    r->serving = false;
    reached = r->at.count >= r->until;
    if (!r->later && !r->ended && !reached) {
        r->open = false;
    }
    pthread_cond_broadcast(&r->cond);
    pthread_mutex_unlock(&r->lock);
    if (r->failed || r->ended || (reached && !r->later)) {
        arrive(r, r->failed || r->ended);
    }
}

/* --- inputs --- */

void replay_input(struct vm *vm, uint32_t source, const void *p, size_t n)
{
    struct replay *r = vm->replay;
    struct input *in = xalloc(sizeof(*in) + n);

    in->source = source;
    in->n = n;
    if (n > 0) {
        memcpy(in->p, p, n);
    }
    pthread_mutex_lock(&r->lock);
    list_append(&r->inbox, &in->link);
    pthread_mutex_unlock(&r->lock);
    nudge(r);
}

void replay_saved(struct vm *vm)
{
    struct replay *r = vm->replay;

    if (r && !r->play) {
        struct replay_record rec = { .kind = REPLAY_SAVED, .check = replay_check(vm) };

        put(r, &rec);
    }
}

void replay_stop(struct vm *vm, const void *p, size_t n)
{
    struct replay *r = vm->replay;

    if (r && !r->play && !r->stopped) {
        struct replay_record rec = {
            .kind = REPLAY_END, .check = replay_check(vm), .p = p, .n = n
        };

        put(r, &rec);
        r->stopped = true;
    }
}

/* --- the vCPU's side --- */

/* Lock held. */
static bool due_locked(struct replay *r)
{
    const struct replay_place *at = &r->at;

    if (!list_empty(&r->deferred) || !list_empty(&r->tasks) || at->count >= r->until ||
        r->lost) {
        return true;
    }
    if (!r->play) {
        return !list_empty(&r->inbox) || at->count - r->last_mark >= MARK_EVERY;
    }
    return r->ended || !r->has_next || same_place(&r->seen.at, at);
}

/* Lock held: traps to be taken before what comes next. */
static int32_t traps_left(const struct replay *r)
{
    return (int32_t)(r->seen.at.traps - r->at.traps);
}

/* Lock held: is what comes next not reachable from here any more? */
static bool passed_locked(const struct replay *r)
{
    const struct replay_place *at = &r->at, *next = &r->seen.at;

    return r->play && r->has_next &&
           (at->count > next->count ||
            (at->count == next->count && (at->now > next->now || traps_left(r) < 0)));
}

static uint64_t limit_locked(const struct replay *r)
{
    uint64_t n = r->until == NEVER ? NEVER : r->until - r->at.count, left;

    if (r->play && r->has_next) {
        left = r->seen.at.count - r->at.count;
        /* One that raises is begun and not executed. */
        left = left == 0 && traps_left(r) > 0 ? 1 : left;
        n = left < n ? left : n;
    }
    return n;
}

void replay_at(struct vm *vm, const struct replay_place *at)
{
    pthread_mutex_lock(&vm->replay->lock);
    vm->replay->at = *at;
    pthread_mutex_unlock(&vm->replay->lock);
}

enum replay_next replay_boundary(struct vm *vm, const struct replay_place *at, uint64_t *limit,
                                 bool (*wanted_out)(void *arg), void *arg)
{
    struct replay *r = vm->replay;
    enum replay_next what = REPLAY_GO;

    pthread_mutex_lock(&r->lock);
    r->at = *at;
    r->lost |= passed_locked(r);
    while (r->serving || r->holds || due_locked(r)) {
        what = REPLAY_AGAIN;
        if (!r->serving && due_locked(r)) {
            r->open = true;
            if (!r->later) {
                ask_locked(r);
            }
        }
        if (!r->serving && wanted_out(arg)) {
            what = REPLAY_OUT;
            break;
        }
        pthread_cond_wait(&r->cond, &r->lock);
    }
    r->open = false;
    *limit = limit_locked(r);
    pthread_mutex_unlock(&r->lock);
    return what;
}

void replay_lost(struct vm *vm)
{
    pthread_mutex_lock(&vm->replay->lock);
    vm->replay->lost = true;
    pthread_mutex_unlock(&vm->replay->lock);
}

static uint64_t host_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Lock held. While it is recorded time goes by as it does outside, so that answers from there come in time. */
static uint64_t sleep_locked(struct replay *r, uint64_t now, uint64_t deadline,
                             bool (*wanted_out)(void *arg), void *arg)
{
    uint64_t began = host_now(), left = deadline - now, gone = 0;
    uint64_t until = left < NEVER / 4 ? began + left : NEVER;
    struct timespec ts = { .tv_sec = (time_t)(until / 1000000000u),
                           .tv_nsec = (long)(until % 1000000000u) };

    while (gone < left && !r->holds && !due_locked(r) && !wanted_out(arg)) {
        if (until == NEVER) {
            pthread_cond_wait(&r->cond, &r->lock);
        } else {
            pthread_cond_timedwait(&r->cond, &r->lock, &ts);
        }
        gone = host_now() - began;
    }
    return gone < left ? now + gone : deadline;
}

uint64_t replay_wait(struct vm *vm, const struct replay_place *at, uint64_t deadline,
                     bool (*wanted_out)(void *arg), void *arg)
{
    struct replay *r = vm->replay;
    uint64_t to = deadline;

    pthread_mutex_lock(&r->lock);
    r->at = *at;
    if (!r->play) {
        to = sleep_locked(r, at->now, deadline, wanted_out, arg);
    } else if (r->has_next && r->seen.at.count == at->count && r->seen.at.now >= at->now &&
               r->seen.at.now <= deadline) {
        to = r->seen.at.now;
        r->lost |= to == at->now && r->seen.at.turn != at->turn;
    } else if (deadline == NEVER) {
        r->lost = true;
        to = at->now;
    }
    pthread_mutex_unlock(&r->lock);
    return to;
}
