/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue of operations of each VM. Owns struct op. Loop thread.
 */
#include "daemon/ops.h"

#include "api-schema/json/json.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/jobs.h"
#include "daemon/registry.h"
#include "daemon/run/supervise.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <stdarg.h>
#include <stdio.h>

#define OPS_WAITING 32

void op_queue(struct vm *vm, struct api_call *call, struct job *job, void *in,
              void (*begin)(struct op *op), bool flag)
{
    unsigned waiting = 0;
    list_for_each (n, &vm->ops) {
        waiting++;
    }
    if (waiting >= OPS_WAITING && call) {
        api_fail(call, API_E_BUSY, vm->config.name, "call again later",
                 "%u calls wait for VM '%s' already", waiting, vm->config.name);
        return;
    }
    if (vm->moving && call) {
        api_fail(call, API_E_BAD_STATE, vm->config.name,
                 "look at it: 'vmctl migrate list'; 'vmctl cancel JOB' calls it off",
                 "VM '%s' %s", vm->config.name, vm->moving);
        return;
    }
    struct op *op = xnew(struct op);
    list_init(&op->link);
    op->vm = vm;
    op->call = call;
    op->job = job;
    op->in = in;
    op->begin = begin;
    op->flag = flag;
    if (vm->op) {
        list_append(&vm->ops, &op->link);
        return;
    }
    vm->op = op;
    begin(op);
}

bool op_queue_job(struct vmd *d, struct vm *vm, int64_t id, const struct err *e, void *in,
                  void (*begin)(struct op *op))
{
    struct job *job = job_find(d, id);
    if (!e && job && vm) {
        op_queue(vm, NULL, job, in, begin, false);
        return true;
    }
    if (job) {
        job_forget(d, job);
    }
    return false;
}

static void op_free(struct op *op)
{
    if (op->held && op->vm->run) {
        run_on_end_cancel(op->vm->run, op);
    }
    loop_timer_free(op->timer);
    free(op->own);
    free(op);
}

struct next {
    struct vmd *d;
    int64_t vm;
};

static void next_op(void *arg)
{
    struct next *n = arg;
    struct vm *vm = vm_by_id(n->d, n->vm);
    free(n);
    if (!vm || vm->op || list_empty(&vm->ops)) {
        return;
    }
    struct op *op = list_entry(vm->ops.next, struct op, link);
    list_remove(&op->link);
    vm->op = op;
    op->begin(op);
}

void op_end(struct op *op)
{
    struct vm *vm = op->vm;
    vm->op = NULL;
    op_free(op);
    if (!list_empty(&vm->ops)) {
        struct next *n = xnew(struct next);
        *n = (struct next){ .d = vm->d, .vm = vm->id };
        loop_post(vm->d->loop, next_op, n);
    }
}

void ops_drop(struct vm *vm, int code, const char *why)
{
    struct op *now = vm->op;
    vm->op = NULL;
    if (now) {
        list_insert(&vm->ops, &now->link);
    }
    while (!list_empty(&vm->ops)) {
        struct op *op = list_entry(vm->ops.next, struct op, link);
        list_remove(&op->link);
        void (*after)(struct vm * vm, const struct api_error *x) = op->after;
        if (op->call) {
            api_fail(op->call, code, vm->config.name, NULL, "%s", why);
        }
        op_free(op);
        if (after) {
            struct api_error x = API_ERROR_INIT;
            api_error_set(&x, code, vm->config.name, NULL, "%s", why);
            after(vm, &x);
        }
    }
}

void op_reply_info(struct op *op)
{
    struct vm *vm = op->vm;
    if (op->call) {
        call_finish(vm->d, op->call, vm->config.name, vm_info_raw(vm, false, false));
    }
    op_end(op);
}

void op_fail(struct op *op, const struct api_error *x)
{
    if (op->call) {
        api_reply_error(op->call, x);
    }
    op_end(op);
}

void op_failf(struct op *op, int code, const char *remedy, const char *fmt, ...)
{
    struct api_error x = API_ERROR_INIT;
    va_list ap;
    va_start(ap, fmt);
    api_error_vset(&x, code, op->vm->config.name, remedy, fmt, ap);
    va_end(ap);
    op_fail(op, &x);
}
