/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The copies of a fork: overlays, definitions, starts, and what becomes of those that cannot be made. Each has a turn of its own (ops.h); at
 * most AT_ONCE start at a time. Loop thread, but for run_spread(), which a thread of daemon/storage/work.h runs.
 */
#include "daemon/vm/fork.h"

#include "api-schema/json/json.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/jobs.h"
#include "daemon/ops.h"
#include "daemon/registry.h"
#include "daemon/run/runfs.h"
#include "daemon/run/supervise.h"
#include "daemon/storage/pools.h"
#include "daemon/vm/policy.h"
#include "daemon/vm/preflight.h"
#include "engine/base/base64.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <string.h>
#include <unistd.h>

#define ASK_NS INT64_C(20000000000)
#define LOAD_NS INT64_C(120000000000)
#define AT_ONCE 8 /* copies that start */

/* ---- files ---- */

static int copy_file(int from, const char *to, struct err *e)
{
    AUTO_FD fd = open(to, O_WRONLY | O_NOFOLLOW | O_CLOEXEC | O_CREAT | O_EXCL, 0600);
    char bytes[65536];
    off_t at = 0;
    ssize_t n;

    if (fd < 0) {
        return err_errno(e, errno, "cannot make '%s'", to);
    }
    while ((n = pread(from, bytes, sizeof(bytes), at)) > 0) {
        if (pwrite(fd, bytes, (size_t)n, at) != n) {
            return err_errno(e, errno ? errno : ENOSPC, "cannot write '%s'", to);
        }
        at += n;
    }
    return n == 0 ? 0 : err_errno(e, errno, "cannot read an empty overlay");
}

/* An empty overlay is made once, by the process that knows images, and copied as bytes. */
static int spread(struct fork *k, size_t number, struct err *e)
{
    const struct fork_disk *disk = &k->disk[number];
    const char *slash = strrchr(disk->file, '/');
    AUTO_FREE char *dir = xasprintf("%.*s", slash == disk->file ? 1 : (int)(slash - disk->file),
                                    disk->file);
    AUTO_FREE char *first = xasprintf("%s.copy", disk->over);
    const char *const args[] = {
        "create", "-f", "qcow2", "-b", disk->file, "-F", api_disk_format_name(disk->format),
        first,    NULL
    };
    int rc = works_image(k->d->pools->works, dir, args, NULL, e);
    AUTO_FD from = rc == 0 ? open(first, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;

    if (rc == 0 && from < 0) {
        rc = err_errno(e, errno, "cannot read '%s'", first);
    }
    for (size_t i = 0; i < k->n_copies && rc == 0; i++) {
        rc = copy_file(from, k->copy[i].over[number], e);
        k->copy[i].n_made += rc == 0;
    }
    unlink(first);
    return rc;
}

/* Nobody writes to the memory any more, and each copy has its overlays. */
static void run_spread(struct work *w)
{
    struct fork *k = container_of(w, struct fork, w);

    if (fcntl(k->memory, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL) != 0) {
        err_errno(&w->e, errno, "the memory cannot be sealed");
    }
    for (size_t i = 0; i < k->n_disks && !w->e.code; i++) {
        spread(k, i, &w->e);
    }
}

/* ---- copies ---- */

static void next_copies(struct fork *k);

/* What the next daemon takes away, should this one end now. */
static void tell_making(struct fork *k, struct job *job)
{
    struct json_object *list = json_object_new_array();

    for (size_t i = 0; i < k->n_copies; i++) {
        const struct vm *vm = k->copy[i].over_now ? NULL : vm_by_id(k->d, k->copy[i].vm);

        if (vm) {
            json_object_array_add(list, json_object_new_string(vm->config.uuid));
        }
    }
    json_object_put(job->info.result);
    job->info.result = json_object_new_object();
    api_json_set(job->info.result, "making", list);
}

static void copy_over(struct fork_copy *copy)
{
    struct fork *k = copy->k;
    struct op *op = take_ptr(copy->op);
    struct job *job = job_find(k->d, k->job);

    copy->over_now = true;
    if (op) {
        op_end(op);
    }
    k->starting--;
    k->left--;
    if (job) {
        struct change *c = change_new(k->d);

        tell_making(k, job);
        job_progress(job, c, (int64_t)(k->n_copies - k->left));
        change_commit(c, NULL, NULL);
    }
    next_copies(k);
}

static void on_deleted(void *arg, const struct err *e)
{
    struct fork_copy *copy = arg;
    struct vm *vm = vm_by_id(copy->k->d, copy->vm);

    if (copy->k->dead) {
        return;
    }
    for (size_t i = 0; i < copy->n_made; i++) {
        unlink(copy->over[i]);
    }
    if (!e && vm) {
        ops_drop(vm, API_E_NOT_FOUND, "the copy could not be made");
        copy->op = NULL; /* it went with that */
        vm_wake(vm, true);
        runfs_clean_lib(&copy->k->d->opt, vm->id);
        vm_free(vm);
    }
    copy_over(copy);
}

/* A copy that could not be made goes again. */
static void delete_copy(struct fork_copy *copy)
{
    struct fork *k = copy->k;
    struct vm *vm = vm_by_id(k->d, copy->vm);
    struct change *c;

    if (!vm) {
        copy_over(copy);
        return;
    }
    c = change_new(k->d);
    store_tx_vm_del(change_tx(c), vm->id);
    policy_clear(vm, c);
    vm_event(vm, c, API_EVENT_TYPE_VM_DELETED, NULL, NULL);
    change_commit(c, on_deleted, copy);
}

static void copy_ended(void *arg, struct vm *vm, bool gone)
{
    struct fork_copy *copy = arg;

    (void)vm;
    if (gone) {
        copy->op = NULL;
    }
    if (!copy->k->dead) {
        delete_copy(copy);
    }
}

static void copy_failed(struct fork_copy *copy, const struct api_error *x)
{
    struct vm *vm = vm_by_id(copy->k->d, copy->vm);

    fork_set_why(copy->k, x->code, x->remedy[0] ? x->remedy : NULL, "copy '%s': %s",
                 vm ? vm->config.name : "?", x->message);
    if (vm && vm->run && !run_has_ended(vm->run)) {
        run_on_end_cancel(vm->run, copy);
        run_on_end(vm->run, copy_ended, copy);
        run_kill(vm->run);
    } else {
        delete_copy(copy);
    }
}

static void ask_failed(struct fork_copy *copy)
{
    struct api_error x = API_ERROR_INIT;

    api_error_set(&x, API_E_UNRESPONSIVE, NULL, NULL, "its emulator does not answer");
    copy_failed(copy, &x);
}

static void copy_died(void *arg, struct vm *vm, bool gone)
{
    struct fork_copy *copy = arg;
    struct api_error x = API_ERROR_INIT;

    (void)gone;
    api_error_set(&x, API_E_BAD_STATE, NULL, NULL, "it ended: %s",
                  vm->reason ? vm->reason : "stopped");
    fork_set_why(copy->k, x.code, NULL, "copy '%s': %s", vm->config.name, x.message);
    copy_ended(copy, vm, gone);
}

static void on_loaded(void *arg, struct json_object *result, const struct api_error *x)
{
    struct fork_copy *copy = arg;
    struct vm *vm = fork_answered(copy->k) ? vm_by_id(copy->k->d, copy->vm) : NULL;

    (void)result;
    if (!vm || copy->over_now || !vm->run || run_has_ended(vm->run)) {
        return; /* its end tells */
    }
    if (x) {
        copy_failed(copy, x);
        return;
    }
    run_on_end_cancel(vm->run, copy);
    copy_over(copy);
}

static void on_given(void *arg, struct json_object *result, const struct api_error *x)
{
    struct fork_copy *copy = arg;
    struct fork *k = copy->k;
    struct vm *vm = fork_answered(k) ? vm_by_id(k->d, copy->vm) : NULL;
    struct json_object *o;
    AUTO_BUF key = BUF_INIT;

    (void)result;
    if (!vm || copy->over_now || !vm->run || run_has_ended(vm->run)) {
        return; /* its end tells */
    }
    if (x) {
        copy_failed(copy, x);
        return;
    }
    o = json_object_new_object();
    base64_add(&key, k->key, sizeof(k->key));
    api_json_set_str(o, "key", key.data);
    OPENSSL_cleanse(key.data, key.len);
    api_json_set_bool(o, "memory_apart", true);
    api_json_set_bool(o, "resume", !k->paused);
    if (!fork_asked(k, run_call_fd(vm->run, "emu.load", o, fcntl(k->state, F_DUPFD_CLOEXEC, 3),
                                   LOAD_NS, on_loaded, copy))) {
        ask_failed(copy);
    }
}

static void on_started(void *arg, const struct api_error *x)
{
    struct fork_copy *copy = arg;
    struct fork *k = copy->k;
    struct vm *vm = k->dead ? NULL : vm_by_id(k->d, copy->vm);

    if (k->dead) {
        return;
    }
    if (x || !vm || !vm->run) {
        struct api_error none = API_ERROR_INIT;

        api_error_set(&none, API_E_BAD_STATE, NULL, NULL, "it ended");
        copy_failed(copy, x ? x : &none);
        return;
    }
    run_on_end(vm->run, copy_died, copy);
    if (!fork_asked(k, run_call_fd(vm->run, "emu.fork_memory", json_object_new_object(),
                                   fcntl(k->memory, F_DUPFD_CLOEXEC, 3), ASK_NS, on_given,
                                   copy))) {
        ask_failed(copy);
    }
}

static void on_preflight(void *arg, const struct api_error *x, const struct run_disks *disks)
{
    struct fork_copy *copy = arg;
    struct vm *vm = copy->k->dead ? NULL : vm_by_id(copy->k->d, copy->vm);

    if (!vm) {
        return;
    }
    if (x) {
        copy_failed(copy, x);
    } else {
        run_start(vm, true, disks, on_started, copy);
    }
}

static void copy_begin(struct op *op)
{
    struct fork_copy *copy = op->in;

    op->in = NULL;
    copy->op = op;
    preflight_start(op->vm, on_preflight, copy);
}

static void next_copies(struct fork *k)
{
    const struct job *job = job_find(k->d, k->job);

    if (job && job->cancel) {
        fork_set_why(k, API_E_CANCELLED, NULL, "the job was cancelled");
    }
    if (k->left == 0) {
        fork_finish(k);
        return;
    }
    while (k->next < k->n_copies && k->starting < AT_ONCE) {
        struct fork_copy *copy = &k->copy[k->next++];

        k->starting++;
        if (k->x.code) {
            delete_copy(copy);
            return; /* which comes back here */
        }
        op_queue(vm_by_id(k->d, copy->vm), NULL, NULL, copy, copy_begin, false);
    }
}

static void copies_durable(void *arg, const struct err *e)
{
    struct fork *k = arg;

    if (k->dead) {
        return;
    }
    if (e) {
        fork_set_why(k, API_E_STORE_ERROR, NULL, "%s", e->msg);
        fork_drop_pending(k);
        fork_finish(k);
        return;
    }
    for (size_t i = 0; i < k->n_copies; i++) {
        vm_by_id(k->d, k->copy[i].vm)->pending = false;
    }
    k->left = k->n_copies;
    next_copies(k);
}

static void spread_out(struct fork *k)
{
    struct job *job = job_find(k->d, k->job);
    struct change *c;

    if (k->x.code) {
        for (size_t i = 0; i < k->n_copies; i++) {
            for (size_t j = 0; j < k->copy[i].n_made; j++) {
                unlink(k->copy[i].over[j]);
            }
        }
        fork_drop_pending(k);
        fork_finish(k);
        return;
    }
    c = change_new(k->d);
    for (size_t i = 0; i < k->n_copies; i++) {
        struct vm *vm = vm_by_id(k->d, k->copy[i].vm);

        vm_put(vm, c);
        vm_event(vm, c, API_EVENT_TYPE_VM_DEFINED, NULL, NULL);
    }
    if (job) {
        tell_making(k, job);
        job_progress(job, c, 0);
    }
    change_commit(c, copies_durable, k);
}

void fork_copies_begin(struct fork *k)
{
    fork_work(k, run_spread, spread_out);
}

/* ---- what the last daemon left ---- */

struct leftover {
    struct vmd *d;
    int64_t vm;
};

static void leftover_deleted(void *arg, const struct err *e)
{
    struct leftover *l = arg;
    struct vm *vm = vm_by_id(l->d, l->vm);

    if (vm && !e) {
        for (size_t i = 0; i < vm->config.n_disks; i++) {
            if (fork_is_written(&vm->config.disks[i]) && vm->config.disks[i].file) {
                unlink(vm->config.disks[i].file); /* an overlay that the fork made */
            }
        }
        ops_drop(vm, API_E_NOT_FOUND, "vmd ended before the copy was made");
        vm_wake(vm, true);
        runfs_clean_lib(&l->d->opt, vm->id);
        vm_free(vm);
    }
    free(l);
}

static void leftover_ended(void *arg, struct vm *vm, bool gone)
{
    struct leftover *l = arg;
    struct change *c;

    if (gone) {
        free(l);
        return;
    }
    log_warn("daemon", "VM '%s' is deleted: vmd ended before the copy was made",
             vm->config.name);
    c = change_new(l->d);
    store_tx_vm_del(change_tx(c), vm->id);
    policy_clear(vm, c);
    vm_event(vm, c, API_EVENT_TYPE_VM_DELETED, NULL, NULL);
    change_commit(c, leftover_deleted, l);
}

void forks_clean(struct vmd *d, const struct job *job)
{
    struct json_object *list = job->info.kind && strcmp(job->info.kind, "vm.fork") == 0 &&
                                       job->info.result
                                   ? api_json_get(job->info.result, "making")
                                   : NULL;
    size_t n = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;

    for (size_t i = 0; i < n; i++) {
        const char *uuid = json_object_get_string(json_object_array_get_idx(list, i));
        struct vm *vm = uuid ? vm_find(d, uuid, false) : NULL;
        struct leftover *l;

        if (!vm) {
            continue;
        }
        l = xnew(struct leftover);
        *l = (struct leftover){ .d = d, .vm = vm->id };
        if (vm->run && !run_has_ended(vm->run)) {
            run_on_end(vm->run, leftover_ended, l);
            run_kill(vm->run);
        } else {
            leftover_ended(l, vm, false);
        }
    }
}
