/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting calls. Owns struct wait, which hangs in the list of what it waits for. Loop thread.
 */
#include "daemon/waits.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/rpc/call.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/jobs.h"
#include "daemon/registry.h"
#include "daemon/run/supervise.h"
#include "engine/base/list.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <stdlib.h>

struct wait {
    struct list link;
    struct api_call *call;
    struct vm *vm; /* or */
    struct job *job;
    unsigned states; /* mask */
    struct loop_timer *timer;
};

/* Out of its list; the call is about to be answered. */
static struct api_call *wait_free(struct wait *w)
{
    struct api_call *call = w->call;
    api_call_on_gone(call, NULL, NULL);
    list_remove(&w->link);
    loop_timer_free(w->timer);
    free(w);
    return call;
}

static void on_gone(void *arg, struct api_call *call)
{
    struct wait *w = arg;
    (void)call;
    api_fail(wait_free(w), API_E_CANCELLED, NULL, NULL, "the client has gone");
}

static void on_timeout(void *arg)
{
    struct wait *w = arg;
    if (w->vm) {
        struct vm *vm = w->vm;
        api_fail(wait_free(w), API_E_TIMEOUT, vm->config.name,
                 "wait longer, or look: 'vmctl show'", "VM '%s' is still %s", vm->config.name,
                 api_vm_state_name(vm->state));
    } else {
        struct job *job = w->job;
        api_fail(wait_free(w), API_E_TIMEOUT, "job", "wait longer", "job %lld is still %s",
                 (long long)job->info.job, api_job_state_name(job->info.state));
    }
}

static struct wait *wait_new(struct vmd *d, struct api_call *call, struct list *in,
                             int64_t timeout_ms)
{
    struct wait *w = xnew(struct wait);
    w->call = call;
    list_append(in, &w->link);
    api_call_on_gone(call, on_gone, w);
    if (timeout_ms >= 0) {
        w->timer = loop_timer_new(d->loop, on_timeout, w);
        loop_timer_arm(w->timer, timeout_ms * 1000000);
    }
    return w;
}

static void reply_vm(struct api_call *call, struct vm *vm, bool deleted)
{
    struct api_vm_wait_out out = { .state = vm->state,
                                   .reason = vm->reason,
                                   .deleted = deleted,
                                   .exit = vm->run ? NULL : vm->exit };
    api_reply_vm_wait(call, &out);
}

/* With a run at its end the state is not durable yet: vm_wake comes again when it is. */
static bool settled(const struct vm *vm)
{
    return !vm->run || !run_has_ended(vm->run);
}

void wait_vm(struct api_call *call, struct vm *vm, const enum api_vm_state *states, size_t n,
             int64_t timeout_ms)
{
    unsigned mask = 0;
    for (size_t i = 0; i < n; i++) {
        mask |= 1u << states[i];
    }
    if (settled(vm) && (mask & (1u << vm->state))) {
        reply_vm(call, vm, false);
        return;
    }
    struct wait *w = wait_new(vm->d, call, &vm->waiters, timeout_ms);
    w->vm = vm;
    w->states = mask;
}

void vm_wake(struct vm *vm, bool deleted)
{
    list_for_each_safe (n, &vm->waiters) {
        struct wait *w = list_entry(n, struct wait, link);
        if (deleted || (settled(vm) && (w->states & (1u << vm->state)))) {
            reply_vm(wait_free(w), vm, deleted);
        }
    }
}

void wait_job(struct api_call *call, struct job *job, int64_t timeout_ms)
{
    if (!job_active(job)) {
        api_reply(call, &job->info);
        return;
    }
    struct wait *w = wait_new(call_daemon(call), call, &job->waiters, timeout_ms);
    w->job = job;
}

static void job_ended(struct job *job)
{
    while (!list_empty(&job->waiters)) {
        struct wait *w = list_entry(job->waiters.next, struct wait, link);
        api_reply(wait_free(w), &job->info);
    }
}

struct job_end {
    struct vmd *d;
    int64_t job;
};

void wait_job_answer(struct vmd *d, int64_t number)
{
    struct job *job = job_find(d, number);

    if (job) {
        job_ended(job);
    }
}

static void on_job_durable(void *arg, const struct err *e)
{
    struct job_end *n = arg;

    (void)e; /* it was told even so */
    wait_job_answer(n->d, n->job);
    free(n);
}

void wait_job_end(struct vmd *d, int64_t job, struct change *c)
{
    struct job_end *n = xnew(struct job_end);
    *n = (struct job_end){ .d = d, .job = job };
    change_must_tell(c);
    change_commit(c, on_job_durable, n);
}

static void end_list(struct list *l)
{
    while (!list_empty(l)) {
        struct wait *w = list_entry(l->next, struct wait, link);
        api_fail(wait_free(w), API_E_CANCELLED, NULL, "call again once vmd is back",
                 "vmd is shutting down");
    }
}

static void end_job(void *arg, struct job *job)
{
    (void)arg;
    end_list(&job->waiters);
}

void waits_end(struct vmd *d)
{
    size_t n;
    struct vm **list = vm_list(d, &n);
    for (size_t i = 0; i < n; i++) {
        end_list(&list[i]->waiters);
    }
    free(list);
    jobs_each(d, end_job, NULL);
}
