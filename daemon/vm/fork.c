/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handler of vm.fork. Owns struct fork, from the call until every copy runs or is no more. The source's turn is held until it runs on its
 * overlays and its definition says so; the copies have turns of their own. Loop thread, but for run_*(), which threads of
 * daemon/storage/work.h run.
 */
#include "daemon/vm/fork.h"

#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/jobs.h"
#include "daemon/ops.h"
#include "daemon/registry.h"
#include "daemon/run/supervise.h"
#include "daemon/storage/pools.h"
#include "daemon/vm/blockjobs.h"
#include "daemon/vm/disk_intent.h"
#include "daemon/waits.h"
#include "engine/base/base64.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define ASK_NS INT64_C(20000000000)

static struct vm *source_of(const struct fork *k)
{
    return vm_by_id(k->d, k->vm);
}

static void free_parts(struct fork *k)
{
    for (size_t i = 0; i < k->n_disks; i++) {
        fd_autoclose(&k->disk[i].fd);
        free(k->disk[i].name);
        free(k->disk[i].file);
        free(k->disk[i].over);
    }
    for (size_t i = 0; i < k->n_copies; i++) {
        for (size_t j = 0; k->copy[i].over && j < k->n_disks; j++) {
            free(k->copy[i].over[j]);
        }
        free(k->copy[i].over);
    }
    free(k->disk);
    free(k->copy);
    free(k);
}

/* Who still waits for an emulator's answer knows k. */
static void fork_free(struct fork *k)
{
    if (!k->gone) {
        OPENSSL_cleanse(k->key, sizeof(k->key));
        fd_autoclose(&k->memory);
        fd_autoclose(&k->state);
        list_remove(&k->link);
        k->gone = true;
    }
    if (k->asked == 0) {
        free_parts(k);
    }
}

/* An answer is here: may k be looked at? */
bool fork_answered(struct fork *k)
{
    k->asked--;
    if (k->gone) {
        fork_free(k);
        return false;
    }
    return !k->dead;
}

bool fork_asked(struct fork *k, bool was_asked)
{
    k->asked += was_asked;
    return was_asked;
}

void fork_set_why(struct fork *k, int code, const char *remedy, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    if (!k->x.code) {
        api_error_vset(&k->x, code, NULL, remedy, fmt, ap);
    }
    va_end(ap);
}

/* ---- the end ---- */

/* Copies that nobody has seen yet. */
void fork_drop_pending(struct fork *k)
{
    for (size_t i = 0; i < k->n_copies; i++) {
        struct vm *vm = k->copy[i].vm ? vm_by_id(k->d, k->copy[i].vm) : NULL;

        if (vm && vm->pending) {
            vm_free(vm);
        }
    }
}

static void give_turn_back(struct fork *k)
{
    struct vm *vm = source_of(k);

    if (k->watching && vm && vm->run) {
        run_on_end_cancel(vm->run, k);
    }
    k->watching = false;
    if (k->op) {
        k->op->job = NULL;
        op_end(take_ptr(k->op));
    }
}

static struct json_object *result_of(const struct fork *k)
{
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();

    for (size_t i = 0; i < k->n_copies; i++) {
        struct vm *vm = vm_by_id(k->d, k->copy[i].vm);

        if (vm) {
            json_object_array_add(list, json_object_new_string(vm->config.name));
        }
    }
    api_json_set(o, "copies", list);
    api_json_set_int(o, "memory", k->bytes);
    api_json_set_int(o, "pause_us", k->pause_us);
    return o;
}

/* The job ends, as k->x says. */
void fork_finish(struct fork *k)
{
    struct job *job = job_find(k->d, k->job);
    struct change *c = change_new(k->d);

    if (k->x.code) {
        log_warn("daemon", "fork: %s", k->x.message);
    }
    change_must_tell(c);
    if (job) {
        json_object_put(take_ptr(job->info.result));
        job_end(k->d, job, c, k->x.code ? &k->x : NULL, k->x.code ? NULL : result_of(k));
        wait_job_end(k->d, k->job, c);
    } else {
        change_commit(c, NULL, NULL);
    }
    give_turn_back(k);
    fork_free(k);
}

static void ignore(void *arg, struct json_object *result, const struct api_error *x)
{
    (void)arg;
    (void)result;
    (void)x;
}

/* The source goes on as it was; nothing stays of the fork. */
static void fail(struct fork *k)
{
    struct vm *vm = source_of(k);

    for (size_t i = 0; i < k->n_disks; i++) {
        struct fork_disk *disk = &k->disk[i];

        if (disk->made) {
            unlink(disk->over);
        }
        if (disk->passed && vm && vm->run && !run_has_ended(vm->run)) {
            struct json_object *o = json_object_new_object();

            api_json_set_str(o, "path", disk->over);
            (void)run_call_with(vm->run, "emu.file_drop", o, ASK_NS, ignore, NULL);
        }
    }
    if (k->intent) {
        struct change *c = change_new(k->d);

        disk_intent_end(k->d, k->intent, c, &k->x);
        wait_job_end(k->d, k->intent, c);
    }
    fork_drop_pending(k);
    fork_finish(k);
}

/* ---- threads ---- */

static void on_worked(struct work *w)
{
    struct fork *k = container_of(w, struct fork, w);

    k->working = false;
    if (k->dead) {
        return;
    }
    if (k->w.e.code) {
        fork_set_why(k, k->w.e.code == -EEXIST ? API_E_EXISTS : API_E_FILE_ERROR,
                     "see that there is room, and that vmd may write there", "%s", k->w.e.msg);
    }
    k->then(k);
}

void fork_work(struct fork *k, void (*run)(struct work *w), void (*then)(struct fork *k))
{
    k->w = (struct work){ .run = run, .ended = on_worked, .e = ERR_INIT };
    list_init(&k->w.link);
    k->then = then;
    k->working = works_start(k->d->pools->works, &k->w);
    if (!k->working) {
        fork_set_why(k, API_E_HOST_LIMIT, "try again later",
                     "too much is being done with files already");
        then(k);
    }
}

static int new_memory(const char *name, int64_t size, struct err *e)
{
    AUTO_FD fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0 || (size && (ftruncate(fd, size) != 0 ||
                            fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0))) {
        return err_errno(e, errno, "there is no file of memory to be had");
    }
    return take_fd(&fd);
}

/* The overlays of the source, empty, and what its state goes to. */
static void run_prepare(struct work *w)
{
    struct fork *k = container_of(w, struct fork, w);
    struct stat was, now;

    for (size_t i = 0; i < k->n_disks && !w->e.code; i++) {
        struct fork_disk *disk = &k->disk[i];

        disk->fd = open(disk->over, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_CREAT | O_EXCL, 0600);
        disk->made = disk->fd >= 0;
        if (!disk->made) {
            err_errno(&w->e, errno, "cannot make '%s'", disk->over);
        } else if (stat(disk->file, &was) != 0 || fstat(disk->fd, &now) != 0) {
            err_errno(&w->e, errno, "cannot look at '%s'", disk->file);
        } else {
            disk->was = run_disk_of(&was, false);
            disk->now = run_disk_of(&now, true);
        }
    }
    if (!w->e.code) {
        k->memory = new_memory("vmd-fork", k->bytes, &w->e);
        k->state = new_memory("vmd-state", 0, &w->e);
    }
    if (!w->e.code && getrandom(k->key, sizeof(k->key), 0) != (ssize_t)sizeof(k->key)) {
        err_errno(&w->e, errno, "there are no random numbers");
    }
}

/* ---- the source ---- */

static void source_durable(void *arg, const struct err *e)
{
    struct fork *k = arg;

    if (k->dead) {
        return;
    }
    give_turn_back(k);
    if (e) {
        fork_set_why(k, API_E_STORE_ERROR, NULL, "%s", e->msg);
    }
    if (k->x.code) {
        fork_drop_pending(k);
        fork_finish(k);
    } else {
        fork_copies_begin(k);
    }
}

/* It stands on its overlays. */
static void forked(struct fork *k)
{
    struct vm *vm = source_of(k);
    struct change *c = change_new(k->d);

    for (size_t i = 0; i < k->n_disks; i++) {
        if (vm->run) {
            run_disk_covered(vm->run, &k->disk[i].was, &k->disk[i].now);
        }
        for (size_t j = 0; j < vm->config.n_disks; j++) {
            if (strcmp(vm->config.disks[j].name, k->disk[i].name) == 0) {
                disk_takes_file(&vm->config.disks[j], k->disk[i].over, API_DISK_FORMAT_QCOW2);
            }
        }
    }
    if (k->n_disks) {
        vm_put(vm, c);
        vm_event(vm, c, API_EVENT_TYPE_VM_CHANGED, NULL, NULL);
    }
    if (k->intent) {
        disk_intent_end(k->d, k->intent, c, NULL);
    }
    change_commit(c, source_durable, k);
    if (k->intent) {
        wait_job_end(k->d, k->intent, change_new(k->d)); /* durable after that */
    }
}

/* It may have done it, or do it yet: overlays and what names them stay until the emulator tells. */
static void leave_open(struct fork *k)
{
    struct job *job = k->intent ? job_find(k->d, k->intent) : NULL;

    for (size_t i = 0; i < k->n_disks; i++) {
        k->disk[i].made = k->disk[i].passed = false;
    }
    k->intent = 0;
    if (job) {
        (void)disk_intent_follow(k->d, job);
    }
}

static void on_saved(struct fork *k, struct json_object *result, const struct api_error *x)
{
    const char *failed = x ? NULL : api_json_get_str(result, "failed");

    if (x && (x->code == API_E_INTERNAL_ERROR || x->code == API_E_TIMEOUT)) {
        leave_open(k);
    }
    if (x) {
        fork_set_why(k, x->code == API_E_INTERNAL_ERROR ? API_E_UNRESPONSIVE : x->code,
                     x->remedy[0] ? x->remedy : NULL, "the VM's state cannot be taken: %s",
                     x->message);
        fail(k);
        return;
    }
    if (failed) {
        fork_set_why(k, API_E_FILE_ERROR, "see that the host has memory", "%s", failed);
    }
    k->pause_us = api_json_get_int(result, "pause_us", 0);
    forked(k);
}

static void tell(struct fork *k, struct json_object *result, const struct api_error *x)
{
    void (*reply)(struct fork *, struct json_object *,
                  const struct api_error *) = take_ptr(k->reply);

    if (reply) {
        reply(k, result, x);
    }
}

static void on_reply(void *arg, struct json_object *result, const struct api_error *x)
{
    struct fork *k = arg;

    if (fork_answered(k)) {
        tell(k, result, x);
    }
}

static void on_source_end(void *arg, struct vm *vm, bool gone)
{
    struct fork *k = arg;
    struct api_error x = API_ERROR_INIT;

    k->watching = false;
    if (gone) {
        k->op = NULL;
    }
    if (k->reply && !k->dead) {
        api_error_set(&x, API_E_BAD_STATE, vm->config.name, NULL, "it ended meanwhile");
        tell(k, NULL, &x);
    }
}

static void ask(struct fork *k, const char *method, struct json_object *take_params,
                int owned_fd, int64_t deadline_ns,
                void (*reply)(struct fork *, struct json_object *, const struct api_error *))
{
    struct vm *vm = source_of(k);
    struct api_error x = API_ERROR_INIT;

    k->reply = reply;
    if (!vm || !vm->run || run_has_ended(vm->run)) {
        json_object_put(take_params);
        fd_autoclose(&owned_fd);
    } else if (fork_asked(k, run_call_fd(vm->run, method, take_params, owned_fd, deadline_ns,
                                         on_reply, k))) {
        return;
    }
    k->reply = NULL;
    api_error_set(&x, API_E_UNRESPONSIVE, NULL, "'vmctl stop --force' ends it whatever it does",
                  "its emulator does not answer");
    reply(k, NULL, &x);
}

static void save(struct fork *k, struct json_object *result, const struct api_error *x)
{
    struct json_object *o, *list;
    AUTO_BUF key = BUF_INIT;

    (void)result;
    if (x) {
        fork_set_why(k, x->code, x->remedy[0] ? x->remedy : NULL, "%s", x->message);
        fail(k);
        return;
    }
    o = json_object_new_object();
    list = json_object_new_array();
    for (size_t i = 0; i < k->n_disks; i++) {
        const struct api_disk_action a = { .act = API_DISK_ACTION_KIND_OVERLAY,
                                           .disk = k->disk[i].name,
                                           .file = k->disk[i].over };

        json_object_array_add(list, api_encode(&api_type_disk_action, &a));
    }
    base64_add(&key, k->key, sizeof(k->key));
    api_json_set_str(o, "key", key.data);
    OPENSSL_cleanse(key.data, key.len);
    api_json_set(o, "actions", list);
    api_json_set_bool(o, "live", true);
    api_json_set_bool(o, "memory_apart", true);
    ask(k, "emu.save", o, fcntl(k->state, F_DUPFD_CLOEXEC, 3), 0, on_saved);
}

static void pass_next(struct fork *k, struct json_object *result, const struct api_error *x)
{
    struct json_object *o = json_object_new_object();
    struct fork_disk *disk = &k->disk[k->at];

    (void)result;
    if (x) {
        json_object_put(o);
        fork_set_why(k, x->code, x->remedy[0] ? x->remedy : NULL, "%s", x->message);
        fail(k);
    } else if (k->at == k->n_disks) {
        ask(k, "emu.fork_memory", o, fcntl(k->memory, F_DUPFD_CLOEXEC, 3), ASK_NS, save);
    } else {
        k->at++;
        disk->passed = true;
        api_json_set_str(o, "path", disk->over);
        ask(k, "emu.file_add", o, take_fd(&disk->fd), ASK_NS, pass_next);
    }
}

static void prepared(struct fork *k)
{
    if (!k->x.code && k->n_disks == 0 && !source_of(k)) {
        fork_set_why(k, API_E_BAD_STATE, NULL, "the VM is no more");
    }
    if (k->x.code) {
        fail(k);
    } else {
        pass_next(k, NULL, NULL);
    }
}

static void intent_durable(void *arg, const struct err *e)
{
    struct fork *k = arg;

    if (k->dead) {
        return;
    }
    if (e) {
        if (job_find(k->d, k->intent)) {
            job_forget(k->d, job_find(k->d, k->intent));
        }
        k->intent = 0;
        fork_set_why(k, API_E_STORE_ERROR, NULL, "%s", e->msg);
        fail(k);
    } else {
        fork_work(k, run_prepare, prepared);
    }
}

/* The source's turn has come. */
static void fork_begin(struct op *op)
{
    struct fork *k = op->in;
    struct change *c = change_new(k->d);
    struct json_object *list;

    op->in = NULL;
    k->op = op;
    job_progress(op->job, c, 0);
    if (op->job->cancel) {
        fork_set_why(k, API_E_CANCELLED, NULL, "the job was cancelled");
    } else {
        (void)fork_may(op->vm, &k->x);
    }
    if (k->x.code) {
        change_commit(c, NULL, NULL);
        fail(k);
        return;
    }
    k->watching = true;
    run_on_end(op->vm->run, on_source_end, k);
    if (k->n_disks == 0) {
        change_commit(c, NULL, NULL);
        fork_work(k, run_prepare, prepared);
        return;
    }
    list = json_object_new_array();
    for (size_t i = 0; i < k->n_disks; i++) {
        const struct api_disk_action a = { .disk = k->disk[i].name, .file = k->disk[i].over };

        json_object_array_add(list, disk_intent_of(&a));
    }
    k->intent = disk_intent_begin(op->vm, c, list, op->job->owner);
    change_commit(c, intent_durable, k);
}

/* ---- the call ---- */

static void accepted(void *arg, const struct err *e)
{
    struct fork *k = arg;
    struct job *job = job_find(k->d, k->job);
    struct vm *vm = source_of(k);

    if (k->dead) {
        return;
    }
    if (e || !job || !vm) {
        if (job) {
            job_forget(k->d, job);
        }
        fork_drop_pending(k);
        fork_free(k);
        return;
    }
    op_queue(vm, NULL, job, k, fork_begin, false);
}

void api_handle_vm_fork(struct api_call *call, struct api_vm_fork_in *in)
{
    struct vmd *d = call_daemon(call);
    struct vm *vm = call_vm(call, in->vm);
    struct api_error x = API_ERROR_INIT;
    struct api_vm_fork_out out;
    struct change *c;
    struct fork *k;

    if (!vm || !call_owns(call, vm)) {
        return;
    }
    if (jobs_active(d) >= 256) {
        api_fail(call, API_E_OVERLOAD, vm->config.name, "wait until some have ended",
                 "256 jobs are at work already");
        return;
    }
    k = xnew(struct fork);
    *k = (struct fork){ .d = d, .vm = vm->id, .memory = -1, .state = -1 };
    k->x = (struct api_error)API_ERROR_INIT;
    k->bytes = vm->config.memory;
    k->paused = in->paused;
    list_append(&d->forks, &k->link);
    if (!fork_may(vm, &x) || !fork_plan(k, call, vm, in, &x)) {
        fork_drop_pending(k);
        fork_free(k);
        api_reply_error(call, &x);
        return;
    }
    c = change_new(d);
    k->job = job_new(d, c, "vm.fork", vm->config.uuid, vm->config.name, in->count, "copies",
                     api_call_peer(call)->principal, NULL)
                 ->info.job;
    out = (struct api_vm_fork_out){ .job = k->job, .name = vm->config.name };
    call_commit(d, call, c, vm->config.name, api_encode(&api_type_vm_fork_out, &out), accepted,
                k);
}

/* ---- the daemon's end ---- */

void forks_end(struct vmd *d)
{
    list_for_each (it, &d->forks) {
        list_entry(it, struct fork, link)->dead = true;
    }
}

void forks_free(struct vmd *d)
{
    while (!list_empty(&d->forks)) {
        fork_free(list_entry(d->forks.next, struct fork, link));
    }
}
