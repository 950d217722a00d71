/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP sockets of VMs, and events of the journal as QMP tells them. Owns struct qmp and struct qmp_vm. Loop thread.
 */
#include "daemon/qmp/qmp.h"

#include "api-schema/json/json.h"
#include "api-schema/rpc/conn.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/qmp/cmd.h"
#include "daemon/qmp/plug.h"
#include "daemon/qmp/session.h"
#include "daemon/registry.h"
#include "daemon/run/proc.h"
#include "daemon/run/runfs.h"
#include "daemon/run/supervise.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <string.h>
#include <unistd.h>

#define MAKE_AT_ONCE 4 /* sockets a turn */
#define MAKE_EVERY_NS INT64_C(500000)
#define MAKE_FIRST_NS INT64_C(5000000)

/* --- events ------------------------------------------------------------------------------------------ */

static void tell(struct qmp *q, const struct vm *vm, const struct api_event *from,
                 const char *name, struct json_object *take_data)
{
    AUTO_JSON event = json_object_new_object();
    struct json_object *at = json_object_new_object();

    api_json_set_int(at, "seconds", from->time_ms / 1000);
    api_json_set_int(at, "microseconds", from->time_ms % 1000 * 1000);
    api_json_set(event, "timestamp", at);
    api_json_set_str(event, "event", name);
    if (take_data) {
        api_json_set(event, "data", take_data);
    }
    list_for_each (it, &q->sessions) {
        qmp_session_event(list_entry(it, struct qmp_session, link), vm->id, event);
    }
}

void qmp_tell(const struct vm *vm, const char *name, struct json_object *take_data)
{
    const struct api_event now = { .time_ms = time_real_ns() / 1000000 };

    tell(vm->d->qmp, vm, &now, name, take_data);
}

static struct json_object *cause(bool guest, const char *reason)
{
    struct json_object *o = json_object_new_object();

    api_json_set_bool(o, "guest", guest);
    api_json_set_str(o, "reason", reason);
    return o;
}

/* Why a VM ends, by the words of the journal. */
static struct json_object *shutdown_cause(const char *reason)
{
    static const struct {
        const char *reason;
        bool guest;
        const char *cause;
    } causes[] = {
        { "poweroff", true, "guest-shutdown" },
        { "guest-poweroff", true, "guest-shutdown" },
        { "fail", true, "guest-panic" },
        { "panic", true, "guest-panic" },
        { "guest-fail", true, "guest-panic" },
        { "quit", false, "host-qmp-quit" },
        { "killed", false, "host-signal" },
        { "guest-reset", true, "guest-reset" },
        { "reset", true, "guest-reset" },
        { "host-reset", false, "host-qmp-system-reset" },
    };

    for (unsigned i = 0; reason && i < ARRAY_LEN(causes); i++) {
        if (strcmp(causes[i].reason, reason) == 0) {
            return cause(causes[i].guest, causes[i].cause);
        }
    }
    return cause(false, "host-error");
}

static void tell_shutdown(struct qmp *q, struct vm *vm, const struct api_event *e)
{
    if (!vm->qmp->shutdown_told) {
        vm->qmp->shutdown_told = true;
        tell(q, vm, e, "SHUTDOWN", shutdown_cause(e->reason));
    }
}

struct job_event {
    struct qmp *q;
    const struct vm *vm;
    const struct api_event *from;
};

static void tell_job(void *arg, const char *event, struct json_object *take_data)
{
    const struct job_event *j = arg;

    tell(j->q, j->vm, j->from, event, take_data);
}

static void on_state(struct qmp *q, struct vm *vm, const struct api_event *e)
{
    bool ran = vm->qmp->runs;
    struct job_event j = { q, vm, e };
    bool moved = e->reason && strcmp(e->reason, "migrated") == 0;

    if (vm->qmp->loads && e->state != API_VM_STATE_RUNNING) { /* it comes back */
        vm->qmp->runs = false;
        if (ran) {
            tell(q, vm, e, "STOP", NULL);
        }
        return;
    }
    switch (e->state) {
    case API_VM_STATE_RUNNING:
        vm->qmp->runs = true;
        if (!ran) {
            tell(q, vm, e, "RESUME", NULL);
        } else if (e->reason && strcmp(e->reason, "suspended") == 0) {
            tell(q, vm, e, "SUSPEND", NULL);
        } else if (e->reason && strcmp(e->reason, "wakeup") == 0) {
            tell(q, vm, e, "WAKEUP", NULL);
        }
        break;
    case API_VM_STATE_PAUSED:
        vm->qmp->runs = false;
        if (run_is_kept(e->state, e->reason)) { /* the VM may shut down again, or end */
            tell(q, vm, e, "SHUTDOWN", shutdown_cause(e->reason));
        }
        if (ran) {
            tell(q, vm, e, "STOP", NULL);
        }
        qmp_migration_event(vm, NULL, false, tell_job, &j);
        break;
    case API_VM_STATE_STOPPING:
        if (e->reason && strcmp(e->reason, "asked to power off") == 0) {
            tell(q, vm, e, "POWERDOWN", NULL);
        } else if (!qmp_migration_leaves(vm)) {
            tell_shutdown(q, vm, e);
        }
        break;
    case API_VM_STATE_STOPPED:
    case API_VM_STATE_CRASHED:
        if (moved) { /* nobody shut it down: it runs elsewhere */
            qmp_migration_event(vm, NULL, true, tell_job, &j);
        } else {
            tell_shutdown(q, vm, e);
        }
        break;
    default:
        break;
    }
}

/* What comes of a panic, as QMP says it. */
static struct json_object *panic_action(const char *what)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "action",
                     strcmp(what, "pause") == 0  ? "pause"
                     : strcmp(what, "none") == 0 ? "run"
                                                 : "poweroff");
    return o;
}

static void on_job(struct qmp *q, struct vm *vm, const struct api_event *e)
{
    const struct api_job *job = e->job;
    bool over = job && job->state != API_JOB_STATE_QUEUED &&
                job->state != API_JOB_STATE_RUNNING;

    if (over && strcmp(job->kind, "vm.dump") == 0) {
        tell(q, vm, e, "DUMP_COMPLETED", qmp_dump_completed(vm, job));
    } else if (job) {
        struct job_event j = { q, vm, e };
        qmp_blockjob_event(q->d, job, tell_job, &j);
        qmp_migration_event(vm, job, false, tell_job, &j);
        qmp_snapshot_event(vm, job);
    }
}

static void on_io_error(struct qmp *q, struct vm *vm, const struct api_event *e)
{
    struct json_object *o = json_object_new_object();
    const char *disk = api_json_get_str(e->detail, "disk"), *op, *error;

    op = api_json_get_str(e->detail, "operation");
    error = api_json_get_str(e->detail, "error");
    for (size_t i = 0; disk && i < vm->config.n_disks; i++) {
        if (strcmp(vm->config.disks[i].name, disk) == 0) {
            AUTO_FREE char *path = xasprintf("/machine/peripheral/disk%zu", i);
            api_json_set_str(o, "qom-path", path);
        }
    }
    api_json_set_str(o, "device", disk ? disk : "");
    api_json_set_str(o, "node-name", disk ? disk : "");
    api_json_set_str(o, "operation", op ? op : "write");
    api_json_set_str(o, "action", e->reason);
    api_json_set_bool(o, "nospace", api_json_get_bool(e->detail, "nospace", false));
    api_json_set_str(o, "reason", error ? error : "");
    tell(q, vm, e, "BLOCK_IO_ERROR", o);
}

static void on_device(struct qmp *q, struct vm *vm, const struct api_event *e)
{
    bool refused = e->reason && strcmp(e->reason, "refused") == 0;
    const char *name = api_json_get_str(e->detail, "name");
    struct qmp_plugged *p = qmp_plugged_named(vm, api_json_get_str(e->detail, "kind"), name);

    if (!name || (!refused && strcmp(e->reason, "detached") != 0)) {
        return;
    }
    AUTO_FREE char *path = xasprintf("/machine/peripheral/%s", p ? p->id : name);
    struct json_object *o = json_object_new_object();
    api_json_set_str(o, "device", p ? p->id : name);
    api_json_set_str(o, "path", path);
    tell(q, vm, e, refused ? "DEVICE_UNPLUG_GUEST_ERROR" : "DEVICE_DELETED", o);
    if (p && !refused) {
        qmp_plugged_gone(vm, p);
    }
}

static void on_vnc(struct qmp *q, struct vm *vm, const struct api_event *e)
{
    tell(q, vm, e,
         strcmp(e->reason, "connected") == 0     ? "VNC_CONNECTED"
         : strcmp(e->reason, "initialized") == 0 ? "VNC_INITIALIZED"
                                                 : "VNC_DISCONNECTED",
         qmp_vnc_event(vm));
}

static void on_channel(struct qmp *q, struct vm *vm, const struct api_event *e)
{
    const char *name = api_json_get_str(e->detail, "name");

    if (name && e->reason) {
        const struct qmp_plugged *p = qmp_plugged_named(vm, "channel", name);
        struct json_object *o = json_object_new_object();
        api_json_set_bool(o, "open", strcmp(e->reason, "opened") == 0);
        api_json_set_str(o, "id", p ? p->id : name);
        tell(q, vm, e, "VSERPORT_CHANGE", o);
    }
}

static void on_tray(struct qmp *q, struct vm *vm, const struct api_event *e)
{
    const char *name = api_json_get_str(e->detail, "name");
    const struct qmp_plugged *p = name ? qmp_plugged_named(vm, "disk", name) : NULL;
    struct json_object *o = json_object_new_object();
    char device[24] = "";

    for (size_t i = 0; name && i < vm->config.n_disks; i++) {
        if (strcmp(vm->config.disks[i].name, name) == 0) {
            qmp_disk_device((unsigned)i, device);
        }
    }
    api_json_set_str(o, "device", name ? name : "");
    api_json_set_str(o, "id", p ? p->id : device[0] ? device : name ? name : "");
    api_json_set_bool(o, "tray-open", e->reason && strcmp(e->reason, "opened") == 0);
    tell(q, vm, e, "DEVICE_TRAY_MOVED", o);
}

static void on_event(void *arg, const struct api_event *e)
{
    struct qmp *q = arg;
    struct vm *vm = e->vm ? vm_find(q->d, e->vm, true) : NULL;

    if (!vm || !vm->qmp) {
        return;
    }
    if (e->type == API_EVENT_TYPE_VM_STATE) {
        on_state(q, vm, e);
    } else if (e->type == API_EVENT_TYPE_JOB) {
        on_job(q, vm, e);
    } else if (e->type == API_EVENT_TYPE_VM_PANIC) {
        tell(q, vm, e, "GUEST_PANICKED", panic_action(e->reason));
    } else if (e->type == API_EVENT_TYPE_VM_IO_ERROR) {
        on_io_error(q, vm, e);
    } else if (e->type == API_EVENT_TYPE_VM_VNC) {
        on_vnc(q, vm, e);
    } else if (e->type == API_EVENT_TYPE_VM_DEVICE) {
        on_device(q, vm, e);
    } else if (e->type == API_EVENT_TYPE_VM_WATCHDOG) {
        struct json_object *o = json_object_new_object();
        api_json_set_str(o, "action", e->reason);
        tell(q, vm, e, "WATCHDOG", o);
    } else if (e->type == API_EVENT_TYPE_VM_BALLOON) {
        struct json_object *o = json_object_new_object();
        api_json_set_int(o, "actual", api_json_get_int(e->detail, "actual", 0));
        tell(q, vm, e, "BALLOON_CHANGE", o);
    } else if (e->type == API_EVENT_TYPE_VM_MEMORY) {
        const char *name = api_json_get_str(e->detail, "name");
        struct json_object *o = json_object_new_object();
        AUTO_FREE char *path = xasprintf("/machine/peripheral/%s", name ? name : "");
        api_json_set_str(o, "id", name ? name : "");
        api_json_set_int(o, "size", api_json_get_int(e->detail, "plugged", 0));
        api_json_set_str(o, "qom-path", path);
        tell(q, vm, e, "MEMORY_DEVICE_SIZE_CHANGE", o);
    } else if (e->type == API_EVENT_TYPE_VM_TRAY) {
        on_tray(q, vm, e);
    } else if (e->type == API_EVENT_TYPE_VM_CHANNEL) {
        on_channel(q, vm, e);
    } else if (e->type == API_EVENT_TYPE_VM_RESET) {
        bool guest = e->reason && strcmp(e->reason, "guest-reset") == 0;
        tell(q, vm, e, "RESET", cause(guest, guest ? "guest-reset" : "host-qmp-system-reset"));
    }
}

/* --- sockets ------------------------------------------------------------------------------------------- */

static void on_make(void *arg);

struct qmp *qmp_new(struct vmd *d)
{
    struct qmp *q = xnew(struct qmp);

    q->d = d;
    list_init(&q->sessions);
    list_init(&q->later);
    q->make = loop_timer_new(d->loop, on_make, q);
    q->heard = (struct event_listener){ .fn = on_event, .arg = q };
    events_listen(d->events, &q->heard);
    return q;
}

static void close_listener(struct vm *vm)
{
    if (vm->qmp->listener) {
        rpc_listener_free(vm->qmp->listener);
        vm->qmp->listener = NULL;
        unlink(vm->qmp->path);
    }
}

static void vm_done(struct vm *vm)
{
    list_remove(&vm->qmp->later);
    close_listener(vm);
    qmp_snapshots_free(vm->qmp);
    qmp_plugged_free(vm->qmp);
    qmp_backs_free(vm->qmp);
    qmp_nodes_free(vm->qmp);
    free(vm->qmp->path);
    free(vm->qmp);
    vm->qmp = NULL;
}

void qmp_free(struct qmp *q)
{
    size_t n = 0;
    struct vm **list = q && q->d->vms ? vm_list(q->d, &n) : NULL;

    for (size_t i = 0; i < n; i++) {
        if (list[i]->qmp) { /* runs on without a daemon */
            vm_done(list[i]);
        }
    }
    free(list);
    if (q) {
        list_remove(&q->heard.link);
        loop_timer_free(q->make);
        free(q);
    }
}

void qmp_drain(struct vmd *d)
{
    size_t n = 0;
    struct vm **list = d->vms && d->qmp ? vm_list(d, &n) : NULL;

    for (size_t i = 0; i < n; i++) {
        if (list[i]->qmp) {
            close_listener(list[i]);
        }
    }
    free(list);
}

static bool prepare(struct vm *vm)
{
    struct vmd *d = vm->d;

    if (!d->qmp || !d->server) {
        return false;
    }
    if (!vm->qmp) {
        vm->qmp = xnew(struct qmp_vm);
        vm->qmp->runs = vm->state == API_VM_STATE_RUNNING;
        vm->qmp->path = runfs_path(&d->opt, vm->id, VM_QMP);
        vm->qmp->vm = vm;
        qmp_migration_init(&vm->qmp->migration);
        list_init(&vm->qmp->nodes);
        list_init(&vm->qmp->backs);
        list_init(&vm->qmp->plugged);
        list_init(&vm->qmp->later);
        list_init(&vm->qmp->snapjobs);
    }
    return true;
}

void qmp_vm_up(struct vm *vm)
{
    struct vmd *d = vm->d;
    struct err e = ERR_INIT;
    int fd;

    if (!prepare(vm) || vm->qmp->listener || d->ending) {
        return;
    }
    list_remove(&vm->qmp->later);
    fd = unix_listen(vm->qmp->path, 0660, QMP_CLIENTS, &e);
    if (fd >= 0) {
        vm->qmp->listener = rpc_server_listen_as(d->server, fd, API_ROLE_ADMIN, &qmp_vm_dialect,
                                                 vm, QMP_CLIENTS, &e);
    }
    if (!vm->qmp->listener) {
        log_warn("daemon", "VM '%s' has no QMP socket: %s", vm->config.name, e.msg);
    }
}

/* A turn of the loop makes few, so that calls are answered in between. */
static void on_make(void *arg)
{
    struct qmp *q = arg;

    for (unsigned i = 0; i < MAKE_AT_ONCE && !list_empty(&q->later); i++) {
        struct qmp_vm *v = list_entry(q->later.next, struct qmp_vm, later);
        list_remove(&v->later);
        qmp_vm_up(v->vm);
    }
    if (!list_empty(&q->later)) {
        loop_timer_arm(q->make, MAKE_EVERY_NS);
    }
}

void qmp_begin(struct qmp *q)
{
    q->begun = true;
    loop_timer_arm(q->make, MAKE_FIRST_NS);
}

void qmp_vm_up_later(struct vm *vm)
{
    if (!prepare(vm) || vm->qmp->listener || !list_empty(&vm->qmp->later)) {
        return;
    }
    bool first = list_empty(&vm->d->qmp->later);
    list_append(&vm->d->qmp->later, &vm->qmp->later);
    if (first && vm->d->qmp->begun) {
        loop_timer_arm(vm->d->qmp->make, MAKE_FIRST_NS);
    }
}

void qmp_vm_up_now(struct vm *vm)
{
    if (vm->qmp && !list_empty(&vm->qmp->later)) {
        qmp_vm_up(vm);
    }
}

void qmp_vm_gone(struct vm *vm)
{
    if (!vm->qmp) {
        return;
    }
    if (vm->qmp->loads && !vm->d->ending) { /* they hear of it again */
        close_listener(vm);
        qmp_plugged_free(vm->qmp);
        return;
    }
    list_for_each (it, &vm->d->qmp->sessions) {
        struct qmp_session *q = list_entry(it, struct qmp_session, link);
        if (q->bound && q->vm == vm->id) {
            q->vm = 0;
            rpc_conn_close(q->s->conn);
        }
    }
    vm_done(vm);
}

char *qmp_vm_path(const struct vm *vm)
{
    return vm->qmp && vm->qmp->listener ? vm->qmp->path : NULL;
}
