/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of vm.*: definitions and looking. Loop thread.
 */
#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "api-schema/json/text.h"
#include "daemon/auth/access.h"
#include "daemon/auth/stream.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/jobs.h"
#include "daemon/ops.h"
#include "daemon/vm/checkpoint.h"
#include "daemon/vm/policy.h"
#include "daemon/vm/preflight.h"
#include "daemon/vm/schedule.h"
#include "daemon/vm/snapshot.h"
#include "daemon/qmp/qmp.h"
#include "daemon/registry.h"
#include "daemon/run/proc.h"
#include "daemon/run/runfs.h"
#include "daemon/spawn/proto.h"
#include "daemon/run/supervise.h"
#include "daemon/vm/supply.h"
#include "daemon/vm/vmdefine.h"
#include "daemon/vm/vmops.h"
#include "daemon/screen/vnc.h"
#include "engine/base/buf.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <string.h>
#include <unistd.h>

#define VMS_MAX 20000

/* ---- define ---- */

static void defined(void *arg, const struct err *e)
{
    struct vm *vm = arg;
    vm->pending = false;
    if (e) {
        vm_free(vm);
    }
}

/* Checks what does not need the files, and a new pending VM; NULL after x was set. Takes from
 * config. */
static struct vm *make_vm(struct vmd *d, struct api_call *call, struct api_vm_config *config,
                          bool transient, struct api_error *x)
{
    if (vm_count(d) >= VMS_MAX) {
        api_error_set(x, API_E_OVERLOAD, config->name, "delete VMs that are not needed",
                      "%d VMs are defined, more are not possible", VMS_MAX);
        return NULL;
    }
    if (preflight_define(d, config, x) < 0 ||
        access_config(call, config, API_ROLE_OPERATOR, x) < 0 ||
        supply_quota(d, config, NULL, x) < 0) {
        return NULL;
    }
    return vm_new(d, config, api_call_peer(call)->principal, transient);
}

static int take_profiles(struct api_call *call, char **names, size_t n,
                         struct api_vm_config *config, struct api_error *x)
{
    return n == 0 ? 0
                  : supply_apply(call_daemon(call), names, n,
                                 api_json_get(api_call_params(call), "config"), config, x);
}

static struct change *define_change(struct vm *vm)
{
    struct change *c = change_new(vm->d);
    vm_put(vm, c);
    vm_event(vm, c, API_EVENT_TYPE_VM_DEFINED, NULL, NULL);
    return c;
}

void vm_define(struct api_call *call, struct api_vm_config *config)
{
    struct vmd *d = call_daemon(call);
    struct api_error x = API_ERROR_INIT;
    struct vm *vm = make_vm(d, call, config, false, &x);
    if (!vm) {
        api_reply_error(call, &x);
        return;
    }
    call_commit(d, call, define_change(vm), vm->config.name, vm_info_raw(vm, true, false),
                defined, vm);
}

void api_handle_vm_define(struct api_call *call, struct api_vm_define_in *in)
{
    struct api_error x = API_ERROR_INIT;
    if (take_profiles(call, in->profiles, in->n_profiles, in->config, &x) < 0) {
        api_reply_error(call, &x);
        return;
    }
    vm_define(call, in->config);
}

/* ---- create: define and start, as a job ---- */

struct create {
    struct api_call *call;
    struct vm *vm;
    struct job *job;
    bool paused;
};

static void create_accepted(void *arg, const struct err *e)
{
    struct create *k = arg;
    struct vmd *d = k->vm->d;
    k->vm->pending = false;
    if (e) {
        job_forget(d, k->job);
        vm_free(k->vm);
    } else {
        op_queue(k->vm, NULL, k->job, NULL, vmop_start, k->paused);
    }
    free(k);
}

/* The files are there: define it, take the job on. */
static void create_checked(void *arg, const struct api_error *x, const struct run_disks *disks)
{
    struct create *k = arg;
    struct vm *vm = k->vm;
    struct vmd *d = vm->d;
    struct api_call *call = k->call;
    (void)disks; /* looked at again by the start itself */
    if (x) {
        vm_free(vm);
        free(k);
        api_reply_error(call, x);
        return;
    }
    struct change *c = define_change(vm);
    k->job = job_new(d, c, "vm.create", vm->config.uuid, vm->config.name, 2, "steps",
                     api_call_peer(call)->principal, NULL);
    struct api_vm_create_out out = { .job = k->job->info.job,
                                     .name = vm->config.name,
                                     .uuid = vm->config.uuid };
    call_commit(d, call, c, vm->config.name, api_encode(&api_type_vm_create_out, &out),
                create_accepted, k);
}

void api_handle_vm_create(struct api_call *call, struct api_vm_create_in *in)
{
    struct vmd *d = call_daemon(call);
    struct api_error x = API_ERROR_INIT;
    if (jobs_active(d) >= 256) {
        api_fail(call, API_E_OVERLOAD, in->config->name, "wait until some have ended",
                 "256 jobs are at work already");
        return;
    }
    struct vm *vm = take_profiles(call, in->profiles, in->n_profiles, in->config, &x) < 0
                        ? NULL
                        : make_vm(d, call, in->config, in->transient, &x);
    if (!vm) {
        api_reply_error(call, &x);
        return;
    }
    struct create *k = xnew(struct create);
    *k = (struct create){ .call = call, .vm = vm, .paused = in->paused };
    preflight_start(vm, create_checked, k);
}
/* ---- looking ---- */

static bool lists(struct api_call *call, const struct api_vm_list_in *in, const struct vm *vm)
{
    bool wanted = in->n_states == 0;
    for (size_t k = 0; k < in->n_states && !wanted; k++) {
        wanted = in->states[k] == vm->state;
    }
    return wanted && access_sees(call, vm->config.project);
}

/* One more of a list of VmInfo that was begun with '['. */
static void list_add(struct buf *to, struct vm *vm, bool config, bool stats)
{
    if (to->data[to->len - 1] != '[') {
        buf_add_char(to, ',');
    }
    vm_info_write(vm, config, stats, to);
}

void api_handle_vm_list(struct api_call *call, struct api_vm_list_in *in)
{
    struct vmd *d = call_daemon(call);
    AUTO_BUF text = BUF_INIT;
    size_t n;
    struct vm **list = vm_list(d, &n);
    buf_reserve(&text, n * 256);
    buf_add_str(&text, "{\"vms\":[");
    for (size_t i = 0; i < n; i++) {
        if (lists(call, in, list[i])) {
            list_add(&text, list[i], in->config, in->stats);
        }
    }
    free(list);
    buf_printf(&text, "],\"cursor\":%lld}", (long long)events_newest(d->events));
    api_reply_json(call, api_json_raw(&text));
}

void api_handle_vm_get(struct api_call *call, struct api_vm_get_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    if (vm) {
        qmp_vm_up_now(vm); /* a path that is told can be connected to */
        api_reply_json(call, vm_info_raw(vm, true, true));
    }
}

void api_handle_vm_stats(struct api_call *call, struct api_vm_stats_in *in)
{
    struct vmd *d = call_daemon(call);
    struct vm *one = in->vm ? call_vm(call, in->vm) : NULL;
    AUTO_BUF text = BUF_INIT;
    if (in->vm && !one) {
        return;
    }
    buf_add_str(&text, "{\"vms\":[");
    if (one) {
        list_add(&text, one, false, true);
    } else {
        size_t n;
        struct vm **list = vm_list(d, &n);
        for (size_t i = 0; i < n; i++) {
            if (list[i]->run && access_sees(call, list[i]->config.project)) {
                list_add(&text, list[i], false, true);
            }
        }
        free(list);
    }
    buf_add_str(&text, "]}");
    api_reply_json(call, api_json_raw(&text));
}

void api_handle_vm_console(struct api_call *call, struct api_vm_console_in *in)
{
    struct vmd *d = call_daemon(call);
    struct vm *vm = call_vm(call, in->vm);
    if (!vm) {
        return;
    }
    if (!vm->run || run_pid(vm->run) == 0 || vm->state == API_VM_STATE_STARTING) {
        api_fail(call, API_E_BAD_STATE, vm->config.name, "start it first: 'vmctl start'",
                 "VM '%s' is %s, its console is there while it runs", vm->config.name,
                 api_vm_state_name(vm->state));
        return;
    }
    AUTO_FREE char *path = runfs_path(&d->opt, vm->id, VM_CONSOLE);
    AUTO_FREE char *log = runfs_log(&d->opt, vm->id);
    AUTO_FREE char *ticket = stream_ticket(d, api_call_peer(call), path, vm->config.name);
    api_reply_vm_console(
        call, &(struct api_vm_console_out){ .path = path, .log = log, .ticket = ticket });
}

void api_handle_vm_vnc(struct api_call *call, struct api_vm_vnc_in *in)
{
    struct vmd *d = call_daemon(call);
    struct vm *vm = call_vm(call, in->vm);
    if (!vm) {
        return;
    }
    if (!vm->run || run_pid(vm->run) == 0 || vm->state == API_VM_STATE_STARTING) {
        api_fail(call, API_E_BAD_STATE, vm->config.name, "start it first: 'vmctl start'",
                 "VM '%s' is %s, its screen is there while it runs", vm->config.name,
                 api_vm_state_name(vm->state));
        return;
    }
    AUTO_FREE char *path = runfs_path(&d->opt, vm->id, VM_VNC);
    if (access(path, F_OK) != 0) {
        api_fail(call, API_E_UNSUPPORTED, vm->config.name,
                 "give it one: 'vmctl set VM --display virtio', then start it anew",
                 "VM '%s' has no screen", vm->config.name);
        return;
    }
    AUTO_FREE char *ticket = stream_ticket(d, api_call_peer(call), path, vm->config.name);
    struct api_vm_vnc_out out = { .path = path,
                                  .ticket = ticket,
                                  .address = (char *)vnc_address(vm),
                                  .problem = (char *)vnc_problem(vm) };
    if (vm->config.vnc) {
        out.has_security = out.has_password = true;
        out.security = vm->config.vnc->security;
        out.password = vnc_has_password(vm);
    }
    api_reply_vm_vnc(call, &out);
}

void api_handle_vm_set_vnc_password(struct api_call *call,
                                    struct api_vm_set_vnc_password_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    struct api_vm_set_vnc_password_out out = { 0 };
    if (!vm) {
        return;
    }
    if (in->password) {
        vnc_set_password(vm, in->password);
    }
    if (in->password || in->has_valid) {
        vnc_set_expiry(vm, in->has_valid ? time_mono_ns() + in->valid * INT64_C(1000000000)
                                         : VNC_FOREVER);
    }
    if (in->disconnect) {
        out.disconnected = vnc_disconnect(vm);
    }
    call_finish(call_daemon(call), call, vm->config.name,
                api_encode(&api_type_vm_set_vnc_password_out, &out));
}

/* ---- changing a definition ---- */

static void delete_begin(struct op *op);

struct deletion {
    struct vm *vm;
    struct vmd *d;
    struct op *op;
};

static void deleted(void *arg, const struct err *e)
{
    struct deletion *k = arg;
    struct vm *vm = k->vm;
    k->op->call = NULL; /* answered by call_commit right after this */
    if (e) {
        op_end(k->op);
    } else {
        ops_drop(vm, API_E_NOT_FOUND, "the VM was deleted");
        vm_wake(vm, true);
        snapshots_drop_files(vm);
        checkpoints_gone(vm);
        runfs_clean_lib(&k->d->opt, vm->id);
        vm_free(vm);
    }
    free(k);
}

static void delete_commit(struct op *op)
{
    struct vm *vm = op->vm;
    struct vmd *d = vm->d;
    struct change *c = change_new(d);
    struct deletion *k = xnew(struct deletion);
    *k = (struct deletion){ .vm = vm, .d = d, .op = op };
    struct api_vm_delete_out out = { .name = vm->config.name, .uuid = vm->config.uuid };
    store_tx_vm_del(change_tx(c), vm->id);
    policy_clear(vm, c);
    snapshots_drop_rows(vm, c);
    schedules_clear(vm, c);
    checkpoints_clear(vm, c);
    vm_event(vm, c, API_EVENT_TYPE_VM_DELETED, NULL, NULL);
    call_commit(d, op->call, c, vm->config.name, api_encode(&api_type_vm_delete_out, &out),
                deleted, k);
}

static void delete_after_end(void *arg, struct vm *vm, bool gone)
{
    struct op *op = arg;
    op->held = false;
    if (gone) {
        struct api_vm_delete_out out = { .name = vm->config.name, .uuid = vm->config.uuid };
        call_finish(vm->d, op->call, vm->config.name,
                    api_encode(&api_type_vm_delete_out, &out));
        op->call = NULL;
        return; /* the op goes with the VM */
    }
    delete_begin(op);
}

static void delete_begin(struct op *op)
{
    struct vm *vm = op->vm;
    if (vm->saved && !op->flag) {
        op_failf(op, API_E_BAD_STATE,
                 "start it, forget its state ('vmctl start --fresh'), or use --force",
                 "VM '%s' has a saved state, which would be lost", vm->config.name);
    } else if (snapshots_any(vm) && !op->flag) {
        op_failf(op, API_E_BAD_STATE, "delete them ('vmctl snapshot delete'), or use --force",
                 "VM '%s' has snapshots, which would be lost", vm->config.name);
    } else if (!vm->run) {
        delete_commit(op);
    } else if (!op->flag) {
        op_failf(op, API_E_BAD_STATE, "stop it first, or use --force", "VM '%s' is %s",
                 vm->config.name, api_vm_state_name(vm->state));
    } else {
        op->held = true;
        run_on_end(vm->run, delete_after_end, op);
        run_kill(vm->run);
    }
}

void api_handle_vm_delete(struct api_call *call, struct api_vm_delete_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    if (vm && call_owns(call, vm)) {
        op_queue(vm, call, NULL, in, delete_begin, in->force);
    }
}

/* A new definition on its way to the store. */
struct redefine {
    struct op *op;
    struct api_vm_config config;
    char *old_name; /* rename */
    bool was_transient;
};

/* Limits hold at once; the rest of a definition waits for the next start. */
static void limits_changed(struct vm *vm)
{
    static const struct api_limits none;
    struct err e = ERR_INIT;
    const struct api_limits *l = vm->config.limits ? vm->config.limits : &none;
    if (vm->run && cgroup_limit(&vm->d->cgroup, vm->id, l, &e) < 0) {
        log_error("daemon", "VM '%s': %s", vm->config.name, e.msg);
    }
}

static void redefined(void *arg, const struct err *e)
{
    struct redefine *k = arg;
    struct op *op = k->op;
    struct vm *vm = op->vm;
    if (!e) {
        struct api_vm_config was = vm->config;
        vm->config = k->config;
        k->config = was;
        if (k->old_name) {
            vm_name_drop(vm, k->old_name);
        } else {
            vm->restart_needed = vm->run != NULL;
            policy_changed(vm);
            vnc_changed(vm);
            limits_changed(vm);
        }
    } else if (k->old_name) {
        vm_name_drop(vm, k->config.name);
    } else {
        vm->transient = k->was_transient;
    }
    api_release(&api_type_vm_config, &k->config);
    free(k->old_name);
    free(k);
    op->call = NULL;
    op_end(op);
}

/* May it go with its end from now on? */
static bool may_be_transient(const struct vm *vm, struct api_error *x)
{
    if (!vm->run || run_has_ended(vm->run) || vm->saved || snapshots_any(vm)) {
        api_error_set(x, API_E_BAD_STATE, vm->config.name, "delete it: 'vmctl rm'",
                      "VM '%s' %s: its definition cannot go with its end", vm->config.name,
                      snapshots_any(vm) ? "has snapshots"
                      : vm->saved       ? "has a saved state"
                                        : "does not run");
        return false;
    }
    return true;
}

static void set_begin(struct op *op)
{
    struct vm *vm = op->vm;
    struct vmd *d = vm->d;
    struct api_vm_set_in *in = op->in;
    struct api_error x = API_ERROR_INIT;
    struct redefine *k = xnew(struct redefine);
    k->op = op;
    api_copy(&api_type_vm_config, &vm->config, &k->config);
    if (api_patch(&api_type_vm_config, &k->config, in->set, &x) < 0 ||
        preflight_change(vm->d, &k->config, &x) < 0 ||
        access_config(op->call, &k->config, API_ROLE_OPERATOR, &x) < 0 ||
        supply_quota(vm->d, &k->config, vm, &x) < 0 ||
        (in->has_transient && in->transient && !vm->transient && !may_be_transient(vm, &x))) {
        api_release(&api_type_vm_config, &k->config);
        free(k);
        op_fail(op, &x);
        return;
    }
    struct change *c = change_new(d);
    k->was_transient = vm->transient;
    vm->transient = in->has_transient ? in->transient : vm->transient;
    vm_put_as(vm, &k->config, c);
    vm_event(vm, c, API_EVENT_TYPE_VM_CHANGED, NULL, in->set);
    struct api_vm_set_out out = { .config = &k->config, .restart_needed = vm->run != NULL };
    call_commit(d, op->call, c, vm->config.name, api_encode(&api_type_vm_set_out, &out),
                redefined, k);
}

void api_handle_vm_set(struct api_call *call, struct api_vm_set_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    if (vm && in->has_transient && in->transient && !call_owns(call, vm)) {
        return; /* answered: it comes to a deletion */
    }
    if (vm) {
        op_queue(vm, call, NULL, in, set_begin, false);
    }
}

static void rename_begin(struct op *op)
{
    struct vm *vm = op->vm;
    struct vmd *d = vm->d;
    struct api_vm_rename_in *in = op->in;
    struct vm *taken = vm_find(d, in->name, true);
    if (taken) {
        struct api_error x = API_ERROR_INIT;
        api_error_set(&x, API_E_EXISTS, in->name, "choose another name",
                      "a VM named '%s' exists already (uuid %s)", in->name, taken->config.uuid);
        op_fail(op, &x);
        return;
    }
    struct redefine *k = xnew(struct redefine);
    k->op = op;
    k->old_name = xstrdup(vm->config.name);
    api_copy(&api_type_vm_config, &vm->config, &k->config);
    free(k->config.name);
    k->config.name = xstrdup(in->name);
    vm_name_add(vm, in->name);
    struct change *c = change_new(d);
    vm_put_as(vm, &k->config, c);
    AUTO_JSON detail = json_object_new_object();
    api_json_set_str(detail, "old_name", k->old_name);
    change_event(c, &(struct api_event){ .type = API_EVENT_TYPE_VM_RENAMED,
                                         .vm = vm->config.uuid,
                                         .name = in->name,
                                         .detail = detail });
    struct json_object *info = vm_info(vm, false, false);
    api_json_set_str(info, "name", in->name);
    call_commit(d, op->call, c, in->name, info, redefined, k);
}

void api_handle_vm_rename(struct api_call *call, struct api_vm_rename_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    if (vm && call_owns(call, vm)) {
        op_queue(vm, call, NULL, in, rename_begin, false);
    }
}
