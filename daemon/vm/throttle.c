/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk.throttle: limits of a disk, at its emulator and in the definition. Owns struct limiting, one for each call at work. Loop
 * thread.
 */
#include "api-schema/disk/limits.h"
#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/ops.h"
#include "daemon/registry.h"
#include "daemon/run/supervise.h"
#include "engine/base/mem.h"

#include <string.h>

#define ASK_NS INT64_C(20000000000)

struct limiting {
    struct op *op;
    struct api_vm_config config;
};

static void limiting_free(struct limiting *k)
{
    api_release(&api_type_vm_config, &k->config);
    free(k);
}

static void on_durable(void *arg, const struct err *e)
{
    struct limiting *k = arg;
    struct op *op = k->op;

    if (!e) {
        struct api_vm_config was = op->vm->config;
        op->vm->config = k->config;
        k->config = was;
    }
    limiting_free(k);
    op->call = NULL;
    op_end(op);
}

static void keep(struct limiting *k)
{
    struct op *op = k->op;
    struct vm *vm = op->vm;
    struct change *c = change_new(vm->d);
    AUTO_JSON detail = json_object_new_object();

    api_json_set_str(detail, "throttle", ((struct api_disk_throttle_in *)op->in)->disk);
    vm_put_as(vm, &k->config, c);
    vm_event(vm, c, API_EVENT_TYPE_VM_CHANGED, NULL, detail);
    call_commit(vm->d, op->call, c, vm->config.name, json_object_new_object(), on_durable, k);
}

static void on_end(void *arg, struct vm *vm, bool gone)
{
    struct limiting *k = arg;
    struct op *op = k->op;

    op->held = false;
    (void)gone;
    limiting_free(k);
    op_failf(op, API_E_BAD_STATE, "call again", "VM '%s' ended meanwhile", vm->config.name);
}

static void on_told(void *arg, struct json_object *result, const struct api_error *x)
{
    struct limiting *k = arg;
    struct op *op = k->op;

    (void)result;
    run_on_end_cancel(op->vm->run, k);
    if (!x) {
        keep(k);
        return;
    }
    limiting_free(k);
    op_fail(op, x);
}

static void tell(struct limiting *k, const struct api_disk_throttle_in *in)
{
    struct op *op = k->op;
    struct vm *vm = op->vm;
    struct json_object *p = json_object_new_object();

    api_json_set_str(p, "disk", in->disk);
    api_json_set(p, "throttle", api_encode(&api_type_disk_throttle, in->throttle));
    run_on_end(vm->run, on_end, k);
    if (!run_call_with(vm->run, "emu.disk_throttle", p, ASK_NS, on_told, k)) {
        run_on_end_cancel(vm->run, k);
        limiting_free(k);
        op_failf(op, API_E_UNRESPONSIVE, "'vmctl stop --force' ends it whatever it does",
                 "the emulator of VM '%s' does not answer", vm->config.name);
    }
}

static void put_limits(struct api_disk *disk, const struct api_disk_throttle *t, bool none)
{
    if (disk->throttle) {
        api_release(&api_type_disk_throttle, disk->throttle);
        free(disk->throttle);
        disk->throttle = NULL;
    }
    if (!none) {
        disk->throttle = xalloc(sizeof(*t));
        api_copy(&api_type_disk_throttle, t, disk->throttle);
    }
}

/* False: there is no such disk. Others of its group have its limits, too. */
static bool change_config(struct api_vm_config *c, const struct api_disk_throttle_in *in,
                          const struct limits *l)
{
    const char *group = in->throttle->group_name;
    bool found = false, none = limits_none(l);

    for (size_t i = 0; i < c->n_disks; i++) {
        struct api_disk *k = &c->disks[i];
        const char *its = k->throttle ? k->throttle->group_name : NULL;

        if (strcmp(k->name, in->disk) == 0) {
            put_limits(k, in->throttle, none);
            found = true;
        } else if (!none && group && its && strcmp(its, group) == 0) {
            put_limits(k, in->throttle, false);
        }
    }
    return found;
}

static void throttle_begin(struct op *op)
{
    const struct api_disk_throttle_in *in = op->in;
    struct vm *vm = op->vm;
    struct limiting *k;
    struct err e = ERR_INIT;
    struct limits l;

    disk_limits(in->throttle, &l);
    if (limits_check(&l, &e) != 0) {
        op_failf(op, API_E_INVALID_PARAMS, NULL, "disk '%s' of VM '%s': %s", in->disk,
                 vm->config.name, e.msg);
        return;
    }
    k = xnew(struct limiting);
    k->op = op;
    api_copy(&api_type_vm_config, &vm->config, &k->config);
    if (!change_config(&k->config, in, &l)) {
        limiting_free(k);
        op_failf(op, API_E_NOT_FOUND, "see 'vmctl show' for the names of disks",
                 "VM '%s' has no disk '%s'", vm->config.name, in->disk);
    } else if (vm->run && !run_has_ended(vm->run)) {
        tell(k, in);
    } else {
        keep(k);
    }
}

void api_handle_disk_throttle(struct api_call *call, struct api_disk_throttle_in *in)
{
    struct vm *vm = call_vm(call, in->vm);

    if (vm) {
        op_queue(vm, call, NULL, in, throttle_begin, false);
    }
}
