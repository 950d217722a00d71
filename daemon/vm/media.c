/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of disk.insert, disk.eject and disk.tray: media of drives, and what daemons remember of trays. A change is an operation
 * of its VM: the file is passed to the emulator, which asks the guest where it has to; then the definition names the medium. Owns
 * struct medium, one for each at work. Loop thread.
 */
#include "daemon/vm/media.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "api-schema/rpc/call.h"
#include "daemon/auth/access.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/ops.h"
#include "daemon/registry.h"
#include "daemon/run/give.h"
#include "daemon/run/run.h"
#include "daemon/run/supervise.h"
#include "daemon/storage/pools.h"
#include "daemon/vm/preflight.h"
#include "daemon/vm/reconnect.h"
#include "daemon/vm/relay.h"
#include "engine/base/mem.h"

#include <string.h>

#define ASK_NS INT64_C(20000000000) /* a guest is waited for less long */

struct medium {
    struct vmd *d;
    int64_t vm;
    struct op *op;
    const char *disk; /* of the call */
    size_t at;        /* of the disk in `made` */
    bool known;       /* the definition has the disk; else it came while the VM ran */
    bool force, stays_open, later; /* later: a VM that runs keeps what it has */
    int64_t wait_ms;
    struct api_vm_config made; /* the definition with the medium, or without one */
};

static void medium_free(struct medium *k)
{
    api_release(&api_type_vm_config, &k->made);
    free(k);
}

/* The operation, unless it went with its VM. */
static struct op *op_of(const struct medium *k)
{
    struct vm *vm = vm_by_id(k->d, k->vm);

    return vm && vm->op == k->op ? k->op : NULL;
}

static void fail(struct medium *k, const struct api_error *x)
{
    struct op *op = op_of(k);

    medium_free(k);
    if (op) {
        op_fail(op, x);
    }
}

static struct api_disk *drive(struct medium *k)
{
    return &k->made.disks[k->at];
}

static bool runs(const struct vm *vm)
{
    return vm->run && !run_has_ended(vm->run) &&
           (vm->state == API_VM_STATE_RUNNING || vm->state == API_VM_STATE_PAUSED ||
            vm->state == API_VM_STATE_STOPPING);
}

/* ---- the definition ---- */

static void on_durable(void *arg, const struct err *e)
{
    struct medium *k = arg;
    struct op *op = op_of(k);

    if (!e && op && k->known) {
        struct api_vm_config was = op->vm->config;

        op->vm->config = k->made;
        k->made = was;
        op->vm->restart_needed = op->vm->restart_needed || k->later;
    }
    medium_free(k);
    if (op) {
        op->call = NULL; /* answered right after this */
        op_end(op);
    }
}

static void keep(struct medium *k)
{
    struct vm *vm = k->op->vm;
    struct change *c = change_new(k->d);
    AUTO_JSON detail = json_object_new_object();

    if (k->known) {
        api_json_set_str(detail, "medium", k->disk);
        vm_put_as(vm, &k->made, c);
        vm_event(vm, c, API_EVENT_TYPE_VM_CHANGED, NULL, detail);
    }
    call_commit(k->d, k->op->call, c, vm->config.name, json_object_new_object(), on_durable, k);
}

/* ---- the emulator ---- */

static void on_end(void *arg, struct vm *vm, bool gone)
{
    struct medium *k = arg;
    struct api_error x = API_ERROR_INIT;

    (void)gone;
    api_error_set(&x, API_E_BAD_STATE, k->disk, "call again", "VM '%s' ended meanwhile",
                  vm->config.name);
    fail(k, &x);
}

static void on_dropped(void *arg, struct json_object *result, const struct api_error *x)
{
    (void)arg;
    (void)result;
    (void)x;
}

static void drop_file(struct medium *k)
{
    struct json_object *in = json_object_new_object();

    api_json_set_str(in, "path", drive(k)->file);
    run_call_with(k->op->vm->run, "emu.file_drop", in, ASK_NS, on_dropped, NULL);
}

static void on_changed(void *arg, struct json_object *result, const struct api_error *x)
{
    struct medium *k = arg;
    struct api_error of_vm = API_ERROR_INIT;

    (void)result;
    run_on_end_cancel(k->op->vm->run, k);
    if (!x) {
        if (drive(k)->file) {
            reconnect_learn(k->op->vm->run, drive(k));
        }
        keep(k);
        return;
    }
    if (drive(k)->file) {
        drop_file(k);
    }
    api_error_set(&of_vm, x->code == API_E_TIMEOUT ? API_E_UNRESPONSIVE : x->code, k->disk,
                  x->remedy[0] ? x->remedy : NULL, "VM '%s': %s", k->op->vm->config.name,
                  x->message);
    fail(k, &of_vm);
}

static void ask(struct medium *k)
{
    struct json_object *in = json_object_new_object();
    struct run *run = k->op->vm->run;

    api_json_set_str(in, "disk", k->disk);
    if (drive(k)->file) {
        api_json_set_str(in, "file", drive(k)->file);
        api_json_set_str(in, "image_format", api_disk_format_name(drive(k)->format));
    }
    api_json_set_bool(in, "tray_open", k->stays_open);
    api_json_set_bool(in, "force", k->force);
    api_json_set_int(in, "wait_ms", k->wait_ms);
    run_on_end(run, on_end, k);
    if (!run_call_with(run, "emu.disk_medium", in, ASK_NS, on_changed, k)) {
        struct api_error x = API_ERROR_INIT;

        run_on_end_cancel(run, k);
        api_error_set(&x, API_E_UNRESPONSIVE, k->op->vm->config.name,
                      "'vmctl stop --force' ends it whatever it does",
                      "the emulator of VM '%s' does not answer", k->op->vm->config.name);
        fail(k, &x);
    }
}

static void on_given(void *arg, const struct api_error *x)
{
    struct medium *k = arg;
    struct api_error ended = API_ERROR_INIT;

    if (x) {
        fail(k, x);
    } else if (!op_of(k) || !runs(k->op->vm)) {
        api_error_set(&ended, API_E_BAD_STATE, k->disk, "call again", "the VM ended meanwhile");
        fail(k, &ended);
    } else {
        ask(k);
    }
}

static void go_live(struct medium *k)
{
    const struct api_disk *disk = drive(k);
    struct json_object *list;

    if (!disk->file) {
        ask(k);
        return;
    }
    list = json_object_new_array();
    json_object_array_add(list,
                          give_file("medium", disk->file, api_disk_format_name(disk->format),
                                    !disk->readonly && !disk->cdrom));
    give_files(k->op->vm->run, list, on_given, k);
}

/* ---- what is wanted ---- */

/* The disk in the copy of the definition; one that came while the VM runs gets a place there. False: fails. */
static bool find_drive(struct medium *k, bool live, struct api_error *x)
{
    struct api_vm_config *c = &k->made;

    for (k->at = 0; k->at < c->n_disks; k->at++) {
        if (strcmp(drive(k)->name, k->disk) == 0) {
            k->known = true;
            return drive(k)->cdrom || drive(k)->removable ||
                   api_error_set(x, API_E_UNSUPPORTED, k->disk,
                                 "CD-ROM drives have one, and disks with 'removable'",
                                 "disk '%s' of VM '%s' has no medium that comes out", k->disk,
                                 c->name) == 0;
        }
    }
    if (!live) {
        api_error_set(x, API_E_NOT_FOUND, k->disk, "see 'vmctl show' for the names of disks",
                      "VM '%s' has no disk '%s'", c->name, k->disk);
        return false;
    }
    c->disks = xrealloc_n(c->disks, c->n_disks + 1, sizeof(c->disks[0]));
    c->disks[c->n_disks++] = (struct api_disk){ .name = xstrdup(k->disk),
                                                .cdrom = true,
                                                .has_cdrom = true };
    return true;
}

static void put_medium(struct api_disk *to, const struct api_disk_insert_in *in)
{
    free(take_ptr(to->file));
    free(take_ptr(to->pool));
    free(take_ptr(to->volume));
    to->format = API_DISK_FORMAT_RAW;
    if (in) {
        to->file = in->file ? xstrdup(in->file) : NULL;
        to->pool = in->pool ? xstrdup(in->pool) : NULL;
        to->volume = in->volume ? xstrdup(in->volume) : NULL;
        to->format = in->image_format;
        to->tray_open = to->has_tray_open = false;
    }
}

/* in: NULL takes the medium out. */
static void change(struct op *op, const char *disk, const struct api_disk_insert_in *in,
                   bool force, int64_t wait_ms, bool config)
{
    struct vm *vm = op->vm;
    struct medium *k = xnew(struct medium);
    struct api_error x = API_ERROR_INIT;
    bool live = runs(vm) && !config;
    bool ok;

    *k = (struct medium){
        .d = vm->d, .vm = vm->id, .op = op, .disk = disk, .force = force, .wait_ms = wait_ms
    };
    api_copy(&api_type_vm_config, &vm->config, &k->made);
    ok = find_drive(k, live, &x);
    if (ok) {
        put_medium(drive(k), in);
        k->stays_open = in && in->tray == API_TRAY_STATE_OPEN;
        ok = (k->known ? preflight_change(vm->d, &k->made, &x)
                       : pools_resolve(vm->d, &k->made, &x)) == 0 &&
             access_config(op->call, &k->made, API_ROLE_OPERATOR, &x) == 0;
    }
    if (!ok) {
        fail(k, &x);
    } else if (live) {
        go_live(k);
    } else {
        k->later = vm->run != NULL;
        keep(k);
    }
}

static void insert_begin(struct op *op)
{
    const struct api_disk_insert_in *in = op->in;

    if (!in->file == !in->volume || !in->pool != !in->volume) {
        op_failf(op, API_E_INVALID_PARAMS, "give file, or pool and volume",
                 "a medium is one file or one volume");
        return;
    }
    change(op, in->disk, in, in->force, in->timeout_ms, in->config);
}

static void eject_begin(struct op *op)
{
    const struct api_disk_eject_in *in = op->in;

    change(op, in->disk, NULL, in->force, in->timeout_ms, in->config);
}

void api_handle_disk_insert(struct api_call *call, struct api_disk_insert_in *in)
{
    struct vm *vm = call_vm(call, in->vm);

    if (vm) {
        op_queue(vm, call, NULL, in, insert_begin, false);
    }
}

void api_handle_disk_eject(struct api_call *call, struct api_disk_eject_in *in)
{
    struct vm *vm = call_vm(call, in->vm);

    if (vm) {
        op_queue(vm, call, NULL, in, eject_begin, false);
    }
}

void api_handle_disk_tray(struct api_call *call, struct api_disk_tray_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    struct json_object *o;

    if (vm) {
        o = json_object_new_object();
        api_json_set_str(o, "disk", in->disk);
        api_json_set_bool(o, "open", in->tray == API_TRAY_STATE_OPEN);
        api_json_set_bool(o, "force", in->force);
        api_json_set_int(o, "wait_ms", in->timeout_ms);
        relay_call(call, vm, "emu.disk_tray", o);
    }
}

/* ---- trays ---- */

static bool remember(struct run *run, const char *disk, bool open)
{
    for (size_t i = 0; i < run->n_trays; i++) {
        if (strcmp(run->trays[i], disk) == 0) {
            if (!open) {
                free(run->trays[i]);
                run->trays[i] = run->trays[--run->n_trays];
            }
            return !open;
        }
    }
    if (!open || run->n_trays >= TRAYS_MAX) {
        return false;
    }
    run->trays = xrealloc_n(run->trays, run->n_trays + 1, sizeof(run->trays[0]));
    run->trays[run->n_trays++] = xstrdup(disk);
    return true;
}

bool media_told(struct run *run, const char *disk, bool open)
{
    return remember(run, disk, open);
}

void media_learn(struct run *run, char **names, size_t n)
{
    media_forget(run);
    for (size_t i = 0; i < n; i++) {
        if (strlen(names[i]) < 64) {
            remember(run, names[i], true);
        }
    }
}

void media_forget(struct run *run)
{
    while (run->n_trays > 0) {
        free(run->trays[--run->n_trays]);
    }
    free(take_ptr(run->trays));
}

bool media_tray_open(const struct vm *vm, const char *disk)
{
    for (size_t i = 0; vm->run && i < vm->run->n_trays; i++) {
        if (strcmp(vm->run->trays[i], disk) == 0) {
            return true;
        }
    }
    return false;
}
