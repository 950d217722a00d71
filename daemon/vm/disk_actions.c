/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of disk.transaction, disk.snapshot and disk.bitmap. Each is an operation of its VM: rows of the backups' jobs and of overlays are made
 * durable, files are opened by a thread and passed to the emulator, which does all at one instant or nothing; then the
 * definition names the overlays, and the call is answered. Owns struct dact, one for each at work. Loop thread, but for open_main().
 */
#include "daemon/vm/disk_actions.h"

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
#include "daemon/run/supervise.h"
#include "daemon/vm/blockjobs.h"
#include "daemon/vm/disk_intent.h"
#include "daemon/waits.h"
#include "engine/base/fd.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ASK_NS INT64_C(20000000000)
#define ACTIONS_MAX 64

struct part {
    struct api_disk_action a; /* owned */
    int fd;                   /* of its file; -1: none, or passed on */
    bool made, passed;
    int64_t job; /* 0: none */
    char *below; /* overlay: the file that it comes to stand on, when it is one */
    bool covers; /* was and now are known */
    struct run_disk was, now;
};

struct dact {
    struct list link; /* vmd.dacts */
    struct vmd *d;
    int64_t vm;
    struct op *op;
    int64_t intent; /* job that names the overlays; 0: there are none */
    struct part *part;
    size_t n, at;
    bool waits, working, lists_disks;
    pthread_t thread;
    struct err e; /* of the thread */
    struct api_error x;
};

static struct dact *dact_new(struct op *op, size_t n)
{
    struct dact *k = xnew(struct dact);

    *k = (struct dact){ .d = op->vm->d, .vm = op->vm->id, .op = op, .n = n };
    k->e = (struct err)ERR_INIT;
    k->x = (struct api_error)API_ERROR_INIT;
    k->part = xnew_n(struct part, n + 1);
    for (size_t i = 0; i < n; i++) {
        k->part[i].fd = -1;
    }
    list_append(&k->d->dacts, &k->link);
    return k;
}

static void dact_free(struct dact *k)
{
    for (size_t i = 0; i < k->n; i++) {
        fd_autoclose(&k->part[i].fd);
        free(k->part[i].below);
        api_release(&api_type_disk_action, &k->part[i].a);
    }
    list_remove(&k->link);
    free(k->part);
    free(k);
}

/* NULL: the operation went with its VM. */
static struct vm *vm_of(const struct dact *k)
{
    struct vm *vm = vm_by_id(k->d, k->vm);

    return vm && vm->op == k->op ? vm : NULL;
}

/* ---- the end ---- */

static void ignore(void *arg, struct json_object *result, const struct api_error *x)
{
    (void)arg;
    (void)result;
    (void)x;
}

/* Nothing stays of it: files that we made, what the emulator was passed, jobs. k->x says why. */
static void fail(struct dact *k)
{
    struct vm *vm = vm_of(k);

    for (size_t i = 0; i < k->n; i++) {
        struct part *p = &k->part[i];

        if (p->made) {
            unlink(p->a.file);
        }
        if (p->passed && vm && vm->run && !run_has_ended(vm->run)) {
            struct json_object *o = json_object_new_object();

            api_json_set_str(o, "path", p->a.file);
            (void)run_call_with(vm->run, "emu.file_drop", o, ASK_NS, ignore, NULL);
        }
        if (p->job) {
            blockjob_planned(k->d, p->job, &k->x, false);
        }
    }
    if (k->intent) {
        struct change *c = change_new(k->d);

        disk_intent_end(k->d, k->intent, c, &k->x);
        wait_job_end(k->d, k->intent, c);
    }
    if (vm) {
        op_fail(k->op, &k->x);
    }
    dact_free(k);
}

static void failf(struct dact *k, int code, const char *remedy, const char *object,
                  const char *text)
{
    api_error_set(&k->x, code, object, remedy, "%s", text);
    fail(k);
}

/* The VM goes on with its overlays, and so does its definition. */
static void redefine(struct dact *k, struct vm *vm, struct change *c)
{
    bool any = false;

    for (size_t i = 0; i < k->n; i++) {
        const struct api_disk_action *a = &k->part[i].a;

        for (size_t j = 0; j < vm->config.n_disks && a->act == API_DISK_ACTION_KIND_OVERLAY;
             j++) {
            struct api_disk *disk = &vm->config.disks[j];

            if (strcmp(disk->name, a->disk) == 0) {
                if (k->part[i].covers && vm->run) {
                    run_disk_covered(vm->run, &k->part[i].was, &k->part[i].now);
                }
                disk_takes_file(disk, a->file,
                                a->has_image_format ? a->image_format : API_DISK_FORMAT_QCOW2);
                any = true;
            }
        }
    }
    if (any) {
        vm_put(vm, c);
        vm_event(vm, c, API_EVENT_TYPE_VM_CHANGED, NULL, NULL);
    }
}

static void on_durable(void *arg, const struct err *e)
{
    struct dact *k = arg;
    struct op *op = vm_of(k) ? k->op : NULL;

    (void)e;
    dact_free(k);
    if (op) {
        op->call = NULL; /* answered right after this */
        op_end(op);
    }
}

static void done(struct dact *k)
{
    struct vmd *d = k->d;
    struct vm *vm = vm_of(k);
    struct change *c = change_new(d);
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();
    int64_t intent;

    for (size_t i = 0; i < k->n; i++) {
        struct part *p = &k->part[i];

        p->made = false;
        if (k->lists_disks) {
            json_object_array_add(list, json_object_new_string(p->a.disk));
        } else if (p->job) {
            json_object_array_add(list, json_object_new_int64(p->job));
        }
        if (p->job) {
            blockjob_planned(k->d, p->job, NULL, false);
        }
    }
    redefine(k, vm, c);
    if (k->intent) {
        disk_intent_end(k->d, k->intent, c, NULL);
    }
    api_json_set(o, k->lists_disks ? "disks" : "jobs", list);
    intent = k->intent;
    call_commit(k->d, k->op->call, c, vm->config.name, o, on_durable, k);
    if (intent) {
        wait_job_end(d, intent, change_new(d)); /* durable after that */
    }
}

/* ---- asking ---- */

static void vm_ended(void *arg, struct vm *vm, bool gone)
{
    struct dact *k = arg;

    (void)gone;
    k->waits = false;
    api_error_set(&k->x, API_E_BAD_STATE, vm->config.name, NULL, "VM '%s' ended meanwhile",
                  vm->config.name);
    fail(k);
}

static void pass_next(struct dact *k);

static bool answered(struct dact *k, const struct api_error *x)
{
    run_on_end_cancel(k->op->vm->run, k);
    k->waits = false;
    if (x) {
        k->x = *x;
        k->x.code = x->code == API_E_INTERNAL_ERROR || x->code == API_E_TIMEOUT
                        ? API_E_UNRESPONSIVE
                        : x->code;
        fail(k);
    }
    return x == NULL;
}

static void on_passed(void *arg, struct json_object *result, const struct api_error *x)
{
    struct dact *k = arg;

    (void)result;
    if (answered(k, x)) {
        k->part[k->at++].passed = true;
        pass_next(k);
    }
}

/* It may be done, or be done yet: overlays and what names them stay until the emulator tells. */
static void leave_open(struct dact *k)
{
    struct job *job = k->intent ? job_find(k->d, k->intent) : NULL;

    for (size_t i = 0; i < k->n; i++) {
        k->part[i].made = k->part[i].passed = false;
    }
    k->intent = 0;
    if (job) {
        (void)disk_intent_follow(k->d, job);
    }
}

static void on_acted(void *arg, struct json_object *result, const struct api_error *x)
{
    struct dact *k = arg;

    (void)result;
    if (x && (x->code == API_E_INTERNAL_ERROR || x->code == API_E_TIMEOUT)) {
        leave_open(k);
    }
    if (answered(k, x)) {
        done(k);
    }
}

static void ask(struct dact *k, const char *method, struct json_object *take_params,
                int owned_fd, rpc_done_fn *fn)
{
    struct vm *vm = vm_of(k);
    struct run *run = vm ? vm->run : NULL;

    if (!run || run_has_ended(run)) {
        json_object_put(take_params);
        fd_autoclose(&owned_fd);
        failf(k, API_E_BAD_STATE, NULL, "vm", "the VM ended meanwhile");
        return;
    }
    k->waits = true;
    run_on_end(run, vm_ended, k);
    if (!(owned_fd >= 0 ? run_call_fd(run, method, take_params, owned_fd, ASK_NS, fn, k)
                        : run_call_with(run, method, take_params, ASK_NS, fn, k))) {
        run_on_end_cancel(run, k);
        k->waits = false;
        failf(k, API_E_UNRESPONSIVE, "'vmctl stop --force' ends it whatever it does",
              vm->config.name, "the emulator does not answer");
    }
}

static void act(struct dact *k)
{
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();

    for (size_t i = 0; i < k->n; i++) {
        struct json_object *a = api_encode(&api_type_disk_action, &k->part[i].a);

        if (k->part[i].job) {
            AUTO_FREE char *id = xasprintf("job-%lld", (long long)k->part[i].job);

            api_json_set_str(a, "id", id);
        }
        json_object_array_add(list, a);
    }
    api_json_set(o, "actions", list);
    ask(k, "emu.disk_actions", o, -1, on_acted);
}

static void pass_next(struct dact *k)
{
    struct json_object *o;

    while (k->at < k->n && k->part[k->at].fd < 0) {
        k->at++;
    }
    if (k->at == k->n) {
        act(k);
        return;
    }
    o = json_object_new_object();
    api_json_set_str(o, "path", k->part[k->at].a.file);
    ask(k, "emu.file_add", o, take_fd(&k->part[k->at].fd), on_passed);
}

/* ---- files ---- */

static void on_opened(void *arg)
{
    struct dact *k = arg;

    pthread_join(k->thread, NULL);
    k->working = false;
    if (k->e.code) {
        failf(k, k->e.code == -EEXIST ? API_E_EXISTS : API_E_FILE_ERROR,
              k->e.code == -EEXIST ? "choose another name, or use it (reuse)"
                                   : "choose a file that vmd may write",
              "file", k->e.msg);
        return;
    }
    if (!vm_of(k)) {
        fail(k);
        return;
    }
    pass_next(k);
}

/* Nothing here may hold up the loop. */
static void *open_main(void *arg)
{
    struct dact *k = arg;
    struct stat st, below;

    for (size_t i = 0; i < k->n && !k->e.code; i++) {
        struct part *p = &k->part[i];

        if (!p->a.file) {
            continue;
        }
        p->fd = open(p->a.file,
                     O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK |
                         (p->a.reuse ? 0 : O_CREAT | O_EXCL),
                     0600);
        p->made = !p->a.reuse && p->fd >= 0;
        if (p->fd < 0 || fstat(p->fd, &st) != 0) {
            err_errno(&k->e, errno, "cannot open '%s'", p->a.file);
        } else if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
            err_set(&k->e, -EINVAL, "'%s' is neither a file nor a block device", p->a.file);
        } else if (p->below && stat(p->below, &below) == 0) {
            p->covers = true;
            p->was = run_disk_of(&below, false);
            p->now = run_disk_of(&st, true);
        }
    }
    loop_post(k->d->loop, on_opened, k);
    return NULL;
}

static void name_below(struct dact *k, struct part *p)
{
    const struct api_vm_config *c = &k->op->vm->config;

    for (size_t i = 0; i < c->n_disks && p->a.act == API_DISK_ACTION_KIND_OVERLAY; i++) {
        const char *file = c->disks[i].file;

        if (!p->below && strcmp(c->disks[i].name, p->a.disk) == 0 && file && file[0] == '/') {
            p->below = xstrdup(file);
        }
    }
}

static void open_all(struct dact *k)
{
    bool any = false;
    int rc;

    for (size_t i = 0; i < k->n; i++) {
        any |= k->part[i].a.file != NULL;
        name_below(k, &k->part[i]);
    }
    if (!any) {
        pass_next(k);
        return;
    }
    rc = pthread_create(&k->thread, NULL, open_main, k);
    if (rc != 0) {
        failf(k, API_E_HOST_LIMIT, NULL, "host", "cannot start a thread");
        return;
    }
    k->working = true;
}

static void jobs_durable(void *arg, const struct err *e)
{
    struct dact *k = arg;

    for (size_t i = 0; i < k->n && e; i++) {
        if (k->part[i].job) {
            blockjob_planned(k->d, k->part[i].job, NULL, true);
            k->part[i].job = 0;
        }
    }
    if (e && k->intent && job_find(k->d, k->intent)) {
        job_forget(k->d, job_find(k->d, k->intent));
        k->intent = 0;
    }
    if (e) {
        failf(k, API_E_STORE_ERROR, NULL, "store", e->msg);
    } else if (!vm_of(k)) {
        fail(k);
    } else {
        open_all(k);
    }
}

static bool is_file_action(const struct api_disk_action *a)
{
    return a->act == API_DISK_ACTION_KIND_OVERLAY || a->act == API_DISK_ACTION_KIND_BACKUP;
}

/* May this be done? False: k->x says why not. */
static bool may(struct dact *k)
{
    struct vm *vm = k->op->vm;

    if (!vm_is_live(vm)) {
        api_error_set(&k->x, API_E_BAD_STATE, vm->config.name, "start it first: 'vmctl start'",
                      "VM '%s' is %s", vm->config.name, api_vm_state_name(vm->state));
        return false;
    }
    for (size_t i = 0; i < k->n; i++) {
        const struct api_disk_action *a = &k->part[i].a;

        if (is_file_action(a) != (a->file != NULL) ||
            (a->act != API_DISK_ACTION_KIND_ABORT && !a->disk)) {
            api_error_set(
                &k->x, API_E_INVALID_PARAMS, "actions", NULL,
                "%s: a file is for overlays and backups, and all but abort have a disk",
                api_enum_name(&api_type_disk_action_kind, (int)a->act));
            return false;
        }
        if (a->file &&
            access_file(k->op->call, vm->config.project, "file", a->file, &k->x) < 0) {
            return false;
        }
    }
    if (blockjobs_full(k->d)) {
        api_error_set(&k->x, API_E_OVERLOAD, vm->config.name, "wait until some have ended",
                      "too many jobs are at work already");
        return false;
    }
    return true;
}

static void begin(struct dact *k)
{
    int64_t owner = api_call_peer(k->op->call)->principal;
    struct json_object *overlays = NULL;
    struct change *c = NULL;

    if (!may(k)) {
        fail(k);
        return;
    }
    for (size_t i = 0; i < k->n; i++) {
        struct part *p = &k->part[i];

        if (p->a.act == API_DISK_ACTION_KIND_BACKUP) {
            c = c ? c : change_new(k->d);
            p->job = blockjob_plan(k->op->vm, c, p->a.disk, p->a.file, p->a.id, owner);
        } else if (p->a.act == API_DISK_ACTION_KIND_OVERLAY) {
            c = c ? c : change_new(k->d);
            overlays = overlays ? overlays : json_object_new_array();
            json_object_array_add(overlays, disk_intent_of(&p->a));
        }
    }
    if (overlays) {
        k->intent = disk_intent_begin(k->op->vm, c, overlays, owner);
    }
    if (c) {
        change_commit(c, jobs_durable, k);
    } else {
        open_all(k);
    }
}

/* ---- disk.transaction ---- */

static void transaction_begin(struct op *op)
{
    const struct api_disk_transaction_in *in = op->in;
    struct dact *k = dact_new(op, in->n_actions);

    for (size_t i = 0; i < k->n; i++) {
        api_copy(&api_type_disk_action, &in->actions[i], &k->part[i].a);
    }
    begin(k);
}

void api_handle_disk_transaction(struct api_call *call, struct api_disk_transaction_in *in)
{
    struct vm *vm = call_vm(call, in->vm);

    if (vm) {
        op_queue(vm, call, NULL, in, transaction_begin, false);
    }
}

/* ---- disk.bitmap ---- */

static void bitmap_begin(struct op *op)
{
    struct api_disk_bitmap_in *in = op->in;
    const struct api_disk_action a = { .act = in->act,
                                       .disk = in->disk,
                                       .name = in->name,
                                       .granularity = in->granularity,
                                       .has_granularity = in->has_granularity,
                                       .persistent = in->persistent,
                                       .disabled = in->disabled,
                                       .sources = in->sources,
                                       .n_sources = in->n_sources };
    struct dact *k;

    if (in->act < API_DISK_ACTION_KIND_BITMAP_ADD ||
        in->act > API_DISK_ACTION_KIND_BITMAP_MERGE) {
        op_failf(op, API_E_INVALID_PARAMS, "bitmap-add and its like",
                 "'%s' is nothing for a bitmap",
                 api_enum_name(&api_type_disk_action_kind, (int)in->act));
        return;
    }
    k = dact_new(op, 1);
    api_copy(&api_type_disk_action, &a, &k->part[0].a);
    begin(k);
}

void api_handle_disk_bitmap(struct api_call *call, struct api_disk_bitmap_in *in)
{
    struct vm *vm = call_vm(call, in->vm);

    if (vm) {
        op_queue(vm, call, NULL, in, bitmap_begin, false);
    }
}

/* ---- disk.snapshot ---- */

static bool wanted(const struct api_disk_snapshot_in *in, const struct api_disk *disk)
{
    for (size_t i = 0; i < in->n_disks; i++) {
        if (strcmp(in->disks[i], disk->name) == 0) {
            return true;
        }
    }
    return in->n_disks == 0 && !disk->readonly && !disk->cdrom;
}

static const struct api_disk *find_disk(const struct vm *vm, const char *name)
{
    for (size_t i = 0; i < vm->config.n_disks; i++) {
        if (strcmp(vm->config.disks[i].name, name) == 0) {
            return &vm->config.disks[i];
        }
    }
    return NULL;
}

static void snapshot_begin(struct op *op)
{
    const struct api_disk_snapshot_in *in = op->in;
    const struct api_vm_config *config = &op->vm->config;
    struct dact *k;

    for (size_t i = 0; i < in->n_disks; i++) {
        if (!find_disk(op->vm, in->disks[i])) {
            op_failf(op, API_E_NOT_FOUND, "see 'vmctl show' for the names of disks",
                     "VM '%s' has no disk '%s'", config->name, in->disks[i]);
            return;
        }
    }
    for (size_t i = 0; i < config->n_disks && in->external; i++) {
        if (wanted(in, &config->disks[i]) && !config->disks[i].file) {
            op_failf(op, API_E_UNSUPPORTED, "name its file: disk.transaction",
                     "disk '%s' is volume '%s' of a pool", config->disks[i].name,
                     config->disks[i].volume ? config->disks[i].volume : "?");
            return;
        }
    }
    k = dact_new(op, config->n_disks);
    k->n = 0;
    k->lists_disks = true;
    for (size_t i = 0; i < config->n_disks; i++) {
        const struct api_disk *disk = &config->disks[i];
        struct api_disk_action *a = &k->part[k->n].a;

        if (wanted(in, disk)) {
            a->act = in->external ? API_DISK_ACTION_KIND_OVERLAY
                                  : API_DISK_ACTION_KIND_SNAPSHOT;
            a->disk = xstrdup(disk->name);
            a->name = xstrdup(in->name);
            a->file = in->external ? xasprintf("%s.%s", disk->file, in->name) : NULL;
            k->n++;
        }
    }
    if (k->n == 0) {
        failf(k, API_E_BAD_STATE, NULL, config->name, "the VM has no disk that is writable");
        return;
    }
    begin(k);
}

void api_handle_disk_snapshot(struct api_call *call, struct api_disk_snapshot_in *in)
{
    struct vm *vm = call_vm(call, in->vm);

    if (vm) {
        op_queue(vm, call, NULL, in, snapshot_begin, false);
    }
}

void disk_actions_end(struct vmd *d)
{
    while (!list_empty(&d->dacts)) {
        struct dact *k = list_entry(d->dacts.next, struct dact, link);

        if (k->working) {
            pthread_join(k->thread, NULL);
        }
        dact_free(k);
    }
    disk_intents_end(d);
}
