/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of snapshot.create, snapshot.revert and snapshot.delete, and what the last daemon left of them. Owns struct wish, what a
 * call asked until the VM's turn comes. Loop thread.
 */
#include "daemon/vm/snapshot_work.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/auth/access.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/jobs.h"
#include "daemon/ops.h"
#include "daemon/registry.h"
#include "daemon/run/proc.h"
#include "daemon/run/supervise.h"
#include "daemon/storage/work.h"
#include "daemon/vm/policy.h"
#include "daemon/vm/preflight.h"
#include "daemon/vm/save.h"
#include "daemon/waits.h"
#include "daemon/screen/vnc.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <string.h>

#define ASK_NS INT64_C(10000000000)
#define QUIT_NS INT64_C(10000000000)

/* ---- create ---- */

static void give_up(struct work_on *k, const struct err *e, const struct api_error *x)
{
    if (x) {
        work_set_why(k, x->code == API_E_INTERNAL_ERROR ? API_E_UNRESPONSIVE : x->code,
                     x->remedy[0] ? x->remedy : NULL, "%s", x->message);
    } else {
        work_set_why(k, API_E_FILE_ERROR,
                     "see that vmd's folder can be written, with room in it", "%s", e->msg);
    }
    work_drop(k);
}

void work_kept(struct work_on *k)
{
    struct change *c = change_new(k->d);

    k->s->info.state = API_SNAPSHOT_STATE_KEPT;
    work_make_current(k, k->s, c);
    work_tell(k, c, "created");
    work_finish(k, c, k->s);
}

static void synced(struct work_on *k)
{
    if (k->w.e.code) {
        if (k->w.e.code == -EEXIST) { /* what has its name is another's */
            k->s->info.bytes = 0;
        }
        give_up(k, &k->w.e, NULL);
    } else {
        work_kept(k);
    }
}

static void length_durable(void *arg, const struct err *e)
{
    struct work_on *k = arg;

    if (k->dead) {
        return;
    }
    if (e) {
        give_up(k, e, NULL);
    } else {
        work_start(k, work_run_sync, synced);
    }
}

static void on_saved(struct work_on *k, struct json_object *result, const struct api_error *x)
{
    struct job *job = job_find(k->d, k->job);

    if (job) {
        job->on_cancel = NULL;
    }
    if (x) {
        give_up(k, NULL, x);
        return;
    }
    k->s->info.bytes = api_json_get_int(result, "bytes", 0);
    k->s->info.pause_us = api_json_get_int(result, "pause_us", 0);
    if (k->s->info.memory_file) { /* by its length it is known again */
        struct change *c = change_new(k->d);

        snapshot_put(k->s, c);
        change_commit(c, length_durable, k);
    } else {
        work_start(k, work_run_sync, synced);
    }
}

static void ignore(void *arg, struct json_object *result, const struct api_error *x)
{
    (void)arg;
    (void)result;
    (void)x;
}

static void on_cancel(void *arg)
{
    struct work_on *k = arg;
    struct vm *vm = work_vm(k);

    if (vm && vm->run) {
        run_call(vm->run, "emu.state_cancel", ASK_NS, ignore, NULL);
    }
}

static void made(struct work_on *k)
{
    struct job *job = job_find(k->d, k->job);
    struct json_object *o;

    if (k->w.e.code) {
        give_up(k, &k->w.e, NULL);
        return;
    }
    if (job) {
        job->on_cancel = on_cancel;
        job->arg = k;
    }
    o = work_key(k);
    api_json_set_bool(o, k->s->info.running ? "live" : "resume", k->s->info.running);
    if (snapshot_has_disks(k->s)) {
        api_json_set_str(o, "snapshot", k->s->info.tag);
    }
    work_ask(k, "emu.save", o, true, 0, on_saved);
}

static void create_durable(void *arg, const struct err *e)
{
    struct work_on *k = arg;
    struct vm *vm = work_vm(k);

    if (k->dead) {
        return;
    }
    if (e) {
        struct snapshot *s = k->s;

        work_set_why(k, API_E_STORE_ERROR, NULL, "%s", e->msg);
        work_finish(k, change_new(k->d), NULL);
        snapshot_free(s);
    } else if (k->s->info.stopped) {
        work_take_disks(k);
    } else if (!vm->run) {
        work_set_why(k, API_E_BAD_STATE, NULL, "VM '%s' ended meanwhile", vm->config.name);
        work_drop(k);
    } else {
        work_watch(k);
        if (k->s->info.memory) {
            work_start(k, work_run_make, made);
        } else {
            work_take_disks(k);
        }
    }
}

/* Ends a job that never got so far as to have a snapshot. */
void wish_refuse(struct op *op, const struct api_error *x)
{
    struct vmd *d = op->vm->d;
    int64_t job = op->job ? op->job->info.job : 0;
    struct change *c = change_new(d);

    if (job) {
        job_end(d, op->job, c, x, NULL);
        wait_job_end(d, job, c);
    } else {
        change_drop(c);
    }
    op->job = NULL;
    op_end(op);
}

void wish_free(struct wish *wish)
{
    free(wish->name);
    free(wish->file);
    api_release(&api_type_snapshot_create_in, &wish->create);
    free(wish);
}

bool wish_called_off(const struct op *op, struct api_error *x)
{
    if (op->job && op->job->cancel) {
        api_error_set(x, API_E_CANCELLED, op->vm->config.name, NULL, "the job was cancelled");
        return true;
    }
    return false;
}

void wish_progress(struct op *op)
{
    if (op->job) {
        struct change *c = change_new(op->vm->d);

        job_progress(op->job, c, 0);
        change_commit(c, NULL, NULL);
    }
}

static void create_begin(struct op *op)
{
    struct wish *wish = op->in;
    struct api_error x = API_ERROR_INIT;
    struct work_on *k;
    struct change *c;

    op->in = NULL;
    if (wish_called_off(op, &x) || !snapshot_may_create(op->vm, &wish->create, &x)) {
        wish_refuse(op, &x);
    } else {
        wish_progress(op);
        k = work_new(op, snapshot_new(op->vm, &wish->create));
        c = change_new(k->d);
        snapshot_put(k->s, c);
        change_commit(c, create_durable, k);
    }
    wish_free(wish);
}

/* ---- delete ---- */

static void delete_durable(void *arg, const struct err *e)
{
    struct work_on *k = arg;

    if (k->dead) {
        return;
    }
    if (e) {
        k->s->info.state = API_SNAPSHOT_STATE_KEPT;
        work_set_why(k, API_E_STORE_ERROR, NULL, "%s", e->msg);
        work_finish(k, change_new(k->d), NULL);
        return;
    }
    if (work_vm(k)->run) {
        work_watch(k);
    }
    work_drop(k);
}

/* The snapshot of the wish, or NULL after the job was ended. */
static struct snapshot *wanted(struct op *op)
{
    struct wish *wish = op->in;
    struct api_error x = API_ERROR_INIT;
    struct snapshot *s = snapshot_find(op->vm->d, op->vm->config.uuid, wish->name);

    op->in = NULL;
    if (!s) {
        api_error_set(&x, API_E_NOT_FOUND, wish->name,
                      "'vmctl snapshot list' shows what there is",
                      "VM '%s' has no snapshot '%s'", op->vm->config.name, wish->name);
    } else if (op->job) {
        s->start = wish->start;
    }
    wish_free(wish);
    if (wish_called_off(op, &x) || !s) {
        wish_refuse(op, &x);
        return NULL;
    }
    wish_progress(op);
    return s;
}

static void delete_begin(struct op *op)
{
    struct snapshot *s = wanted(op);
    struct work_on *k;
    struct change *c;

    if (!s) {
        return;
    }
    k = work_new(op, s);
    c = change_new(k->d);
    if (!snapshot_is_import(s)) { /* one that was broken off is undone as what it is */
        s->info.state = API_SNAPSHOT_STATE_DELETING;
    }
    snapshot_put(s, c);
    change_commit(c, delete_durable, k);
}

/* ---- revert ---- */

/* After the point from which it has to be carried on: it stays `reverting`. */
static void revert_failed(struct work_on *k, int code, const char *words)
{
    struct vm *vm = work_vm(k);

    work_set_why(k, code,
                 "go back again, to this one or to another; or delete it, and start the VM",
                 "VM '%s' has not gone back to snapshot '%s': %s", vm->config.name,
                 k->s->info.name, words);
    if (vm->run && !run_has_ended(vm->run)) {
        run_kill(vm->run);
    }
    work_finish(k, change_new(k->d), NULL);
}

static void reverted(struct work_on *k)
{
    struct change *c = change_new(k->d);

    k->s->info.state = API_SNAPSHOT_STATE_KEPT;
    k->s->start = false;
    work_make_current(k, k->s, c);
    vm_put(work_vm(k), c);
    vm_event(work_vm(k), c, API_EVENT_TYPE_VM_CHANGED, NULL, NULL);
    if (!work_vm(k)->run) { /* also when its last run had crashed */
        vm_set_state(work_vm(k), API_VM_STATE_STOPPED, "reverted", c);
    }
    work_tell(k, c, "reverted");
    work_finish(k, c, k->s);
}

static void on_resumed(struct work_on *k, struct json_object *result, const struct api_error *x)
{
    (void)result;
    if (x) {
        revert_failed(k, API_E_UNRESPONSIVE, x->message);
    } else {
        reverted(k);
    }
}

static void on_loaded(struct work_on *k, struct json_object *result, const struct api_error *x)
{
    (void)result;
    if (x) {
        revert_failed(k, x->code == API_E_INTERNAL_ERROR ? API_E_UNRESPONSIVE : x->code,
                      x->message);
    } else if (k->s->info.running || k->s->start) {
        work_ask(k, "emu.resume", NULL, false, ASK_NS, on_resumed);
    } else {
        reverted(k);
    }
}

static void on_started(void *arg, const struct api_error *x)
{
    struct work_on *k = arg;
    struct json_object *o;

    if (k->dead) {
        return;
    }
    if (x) {
        revert_failed(k, x->code, x->message);
        return;
    }
    work_watch(k);
    o = work_key(k);
    api_json_set_bool(o, "lazy", true);
    work_ask(k, "emu.load", o, true, 0, on_loaded);
}

/* The disks are what they were, which is all there is; that the VM does not start then is another matter. */
static void on_booted(void *arg, const struct api_error *x)
{
    struct work_on *k = arg;

    if (k->dead) {
        return;
    }
    if (x) {
        work_set_why(k, x->code, x->remedy[0] ? x->remedy : NULL,
                     "VM '%s' has gone back to snapshot '%s', and does not start: %s",
                     work_vm(k)->config.name, k->s->info.name, x->message);
    }
    reverted(k);
}

static void on_preflight(void *arg, const struct api_error *x, const struct run_disks *disks)
{
    struct work_on *k = arg;

    if (k->dead) {
        return;
    }
    if (!k->s->info.memory) {
        if (x) {
            on_booted(k, x);
        } else {
            run_start(work_vm(k), false, disks, on_booted, k);
        }
    } else if (x) {
        revert_failed(k, x->code, x->message);
    } else {
        run_start(work_vm(k), true, disks, on_started, k);
    }
}

/* The VM is defined as it was then, but for its name. */
static bool take_definition(struct work_on *k)
{
    struct vm *vm = work_vm(k);
    struct api_vm_config config;
    char *name;

    if (!snapshot_config(k->s, &config)) {
        return false;
    }
    name = config.name;
    config.name = vm->config.name;
    vm->config.name = name;
    api_release(&api_type_vm_config, &vm->config);
    vm->config = config;
    vm->restart_needed = false;
    policy_changed(vm);
    vnc_changed(vm);
    return true;
}

static void applied(struct work_on *k)
{
    struct vm *vm = work_vm(k);
    struct err e = ERR_INIT;

    if (k->w.e.code) {
        revert_failed(k, API_E_FILE_ERROR, k->w.e.msg);
    } else if (save_drop(vm, &e) < 0) {
        revert_failed(k, API_E_FILE_ERROR, e.msg);
    } else if (!take_definition(k)) {
        revert_failed(k, API_E_INTERNAL_ERROR, "its definition is unreadable");
    } else if (!k->s->info.memory && !k->s->start) {
        reverted(k);
    } else {
        preflight_start(vm, on_preflight, k);
    }
}

static void apply(struct work_on *k)
{
    work_start(k, work_run_apply, applied);
}

static void too_slow(struct work_on *k)
{
    struct vm *vm = work_vm(k);

    if (vm->run) {
        run_kill(vm->run); /* its end goes on */
    }
}

static void quitting(void *arg, struct json_object *result, const struct api_error *x)
{
    (void)arg;
    (void)result;
    (void)x; /* its end tells */
}

/* What it does is of no interest any more. */
static void end_vm(struct work_on *k)
{
    struct vm *vm = work_vm(k);

    if (!vm->run) {
        apply(k);
        return;
    }
    k->then = apply;
    k->waits_end = true;
    work_watch(k);
    run_expect_end(vm->run, "quit");
    if (run_is_mute(vm->run) || !run_call(vm->run, "emu.quit", QUIT_NS, quitting, NULL)) {
        run_kill(vm->run);
    }
    work_later(k, QUIT_NS, too_slow);
}

static void revert_durable(void *arg, const struct err *e)
{
    struct work_on *k = arg;

    if (k->dead) {
        return;
    }
    if (e) {
        k->s->info.state = API_SNAPSHOT_STATE_KEPT;
        work_set_why(k, API_E_STORE_ERROR, NULL, "%s", e->msg);
        work_finish(k, change_new(k->d), NULL);
    } else {
        end_vm(k);
    }
}

/* All of it is there. From here on it is carried on whatever happens. */
static void opened(struct work_on *k)
{
    struct change *c;

    if (k->w.e.code) {
        work_set_why(k, API_E_FILE_ERROR, "nothing has changed; go back to another one", "%s",
                     k->w.e.msg);
        work_finish(k, change_new(k->d), NULL);
        return;
    }
    c = change_new(k->d);
    list_for_each (it, &k->d->snapshots) {
        struct snapshot *s = list_entry(it, struct snapshot, link);

        if (s != k->s && s->info.state == API_SNAPSHOT_STATE_REVERTING &&
            strcmp(s->vm, k->uuid) == 0) { /* another is wanted now */
            s->info.state = API_SNAPSHOT_STATE_KEPT;
            snapshot_put(s, c);
        }
    }
    k->s->info.state = API_SNAPSHOT_STATE_REVERTING;
    snapshot_put(k->s, c);
    change_commit(c, revert_durable, k);
}

static void revert_begin(struct op *op)
{
    struct snapshot *s = wanted(op);
    const struct snapshot *doubt = snapshot_in_doubt(op->vm);
    struct work_on *k;

    if (!s) {
        return;
    }
    k = work_new(op, s);
    if (s->info.state != API_SNAPSHOT_STATE_KEPT &&
        s->info.state != API_SNAPSHOT_STATE_REVERTING) {
        work_set_why(k, API_E_BAD_STATE, "take another", "snapshot '%s' is not whole: %s",
                     s->info.name, api_snapshot_state_name(s->info.state));
        work_finish(k, change_new(k->d), NULL);
    } else if (doubt && snapshot_is_import(doubt)) {
        work_set_why(k, API_E_BAD_STATE, "delete that one first",
                     "the import of snapshot '%s' was broken off, and is not undone",
                     doubt->info.name);
        work_finish(k, change_new(k->d), NULL);
    } else if (policy_is_shutting(k->d)) {
        work_set_why(k, API_E_BAD_STATE, "go back when the host is",
                     "the host is being shut down");
        work_finish(k, change_new(k->d), NULL);
    } else if (!work_find_images(k)) {
        work_finish(k, change_new(k->d), NULL);
    } else {
        work_start(k, work_run_open, opened);
    }
}

/* ---- calls ---- */

static void accepted(void *arg, const struct err *e)
{
    struct wish *wish = arg;

    if (!op_queue_job(wish->d, vm_by_id(wish->d, wish->vm), wish->job, e, wish, wish->begin)) {
        wish_free(wish);
    }
}

/* The wish is filled but for the job, and taken. */
void wish_begin_job(struct api_call *call, struct vm *vm, const char *kind,
                    struct wish *take_wish)
{
    struct vmd *d = vm->d;
    struct change *c;
    struct job *job;
    struct api_snapshot_create_out out;

    if (jobs_active(d) >= 256) {
        wish_free(take_wish);
        api_fail(call, API_E_OVERLOAD, vm->config.name, "wait until some have ended",
                 "256 jobs are at work already");
        return;
    }
    c = change_new(d);
    job = job_new(d, c, kind, vm->config.uuid, vm->config.name, 0, "bytes",
                  api_call_peer(call)->principal, NULL);
    take_wish->job = job->info.job;
    out = (struct api_snapshot_create_out){ .job = job->info.job, .name = vm->config.name };
    call_commit(d, call, c, vm->config.name, api_encode(&api_type_snapshot_create_out, &out),
                accepted, take_wish);
}

struct wish *wish_new(struct vm *vm, const char *name, void (*begin)(struct op *op))
{
    struct wish *wish = xnew(struct wish);

    wish->d = vm->d;
    wish->vm = vm->id;
    wish->name = name ? xstrdup(name) : NULL;
    wish->begin = begin;
    return wish;
}

/* One that no snapshot of the VM has: the time. */
static char *made_name(const struct vm *vm)
{
    int64_t t = time_real_ns() / 1000000000;
    char *name = xasprintf("%lld", (long long)t);

    while (snapshot_find(vm->d, vm->config.uuid, name)) {
        free(name);
        name = xasprintf("%lld", (long long)++t);
    }
    return name;
}

void api_handle_snapshot_create(struct api_call *call, struct api_snapshot_create_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    struct api_error x = API_ERROR_INIT;

    if (vm && !in->name) {
        in->name = made_name(vm);
    }
    if (vm && ((in->memory_file && access_file(call, vm->config.project, "memory_file",
                                               in->memory_file, &x) < 0) ||
               !snapshot_may_create(vm, in, &x))) {
        api_reply_error(call, &x);
    } else if (vm) {
        struct wish *wish = wish_new(vm, in->name, create_begin);

        api_copy(&api_type_snapshot_create_in, in, &wish->create);
        wish_begin_job(call, vm, "snapshot.create", wish);
    }
}

bool snapshot_is_there(struct api_call *call, const struct vm *vm, const char *name)
{
    if (!snapshot_find(vm->d, vm->config.uuid, name)) {
        api_fail(call, API_E_NOT_FOUND, name, "'vmctl snapshot list' shows what there is",
                 "VM '%s' has no snapshot '%s'", vm->config.name, name);
        return false;
    }
    return true;
}

void api_handle_snapshot_revert(struct api_call *call, struct api_snapshot_revert_in *in)
{
    struct vm *vm = call_vm(call, in->vm);

    if (vm && snapshot_is_there(call, vm, in->name)) {
        struct wish *wish = wish_new(vm, in->name, revert_begin);

        wish->start = in->start;
        wish_begin_job(call, vm, "snapshot.revert", wish);
    }
}

void api_handle_snapshot_delete(struct api_call *call, struct api_snapshot_delete_in *in)
{
    struct vm *vm = call_vm(call, in->vm);

    if (vm && snapshot_is_there(call, vm, in->name)) {
        wish_begin_job(call, vm, "snapshot.delete", wish_new(vm, in->name, delete_begin));
    }
}

/* ---- what the last daemon left, and the end of this one ---- */

static void undo_begin(struct op *op)
{
    struct wish *wish = op->in;
    struct snapshot *s = snapshot_find(op->vm->d, op->vm->config.uuid, wish->name);
    struct work_on *k;

    op->in = NULL;
    wish_free(wish);
    if (!s) {
        op_end(op);
        return;
    }
    k = work_new(op, s);
    if (op->vm->run) {
        work_watch(k);
    }
    if (s->info.quiesced && s->info.state == API_SNAPSHOT_STATE_MAKING) {
        work_free_guest(k);
    } else {
        work_drop(k);
    }
}

void snapshots_begin(struct vmd *d)
{
    list_for_each_safe (it, &d->snapshots) {
        struct snapshot *s = list_entry(it, struct snapshot, link);
        struct vm *vm = vm_find(d, s->vm, true);
        struct wish *wish;

        if (!vm) {
            struct change *c = change_new(d);

            snapshot_del(s, c);
            change_commit(c, NULL, NULL);
            snapshot_free(s);
        } else if (s->info.state != API_SNAPSHOT_STATE_KEPT) {
            log_warn("daemon", "VM '%s': snapshot '%s' was %s when vmd ended; it is %s",
                     vm->config.name, s->info.name, api_snapshot_state_name(s->info.state),
                     s->info.state == API_SNAPSHOT_STATE_REVERTING ? "gone back to"
                                                                   : "deleted");
            wish = wish_new(vm, s->info.name,
                            s->info.state == API_SNAPSHOT_STATE_REVERTING ? revert_begin
                                                                          : undo_begin);
            op_queue(vm, NULL, NULL, wish, wish->begin, false);
        }
    }
}

void snapshots_end(struct vmd *d)
{
    list_for_each (it, &d->snapshot_work) {
        list_entry(it, struct work_on, link)->dead = true;
    }
}

void snapshots_free(struct vmd *d)
{
    while (!list_empty(&d->snapshot_work)) {
        struct work_on *k = list_entry(d->snapshot_work.next, struct work_on, link);

        k->orphan = k->asks_agent;
        if (k->orphan) {
            list_remove(&k->link);
            list_init(&k->link);
        } else {
            work_free(k);
        }
    }
    while (!list_empty(&d->snapshots)) {
        snapshot_free(list_entry(d->snapshots.next, struct snapshot, link));
    }
}
