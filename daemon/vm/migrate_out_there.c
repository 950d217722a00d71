/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a migration's source says of the definition there and of limits: migrate.set, what migrate.start takes, what
 * migrate.prepare is told, and what stays here of a VM that has gone. Part of struct migrate_out. Loop thread.
 */
#include "daemon/vm/migrate_out.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/registry.h"
#include "daemon/run/supervise.h"
#include "daemon/vm/migrate.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <string.h>

#define SET_NS INT64_C(10000000000)

/* ---- the definition there ---- */

/* What the guest does not see of a VM. Words are the given ones, even when there are none; the rest stays when nothing is given. */
static const char *const words[] = { "name", "title", "description", "metadata", NULL };
static const char *const policies[] = { "vnc",    "autostart",     "restart", "watchdog",
                                        "limits", "host_shutdown", NULL };
/* Of disks; and of cards what the guest does see. */
static const char *const of_disks[] = { "file", "pool", "volume", "cache", "throttle", NULL };
static const char *const seen_of_nics[] = { "name",   "bus",     "mac",  "mtu",
                                            "queues", "hotplug", "link", NULL };
/* The machine. */
static const char *const fixed[] = { "uuid",    "arch",       "machine", "engine", "cpu",
                                     "cpus",    "memory",     "project", "iommu",  "balloon",
                                     "display", "root_ports", "rng",     NULL };
/* Devices, which have to be as many. */
static const char *const lists[] = { "disks", "nics", "channels",       "shares",
                                     "flash", "usb",  "memory_devices", NULL };

/* The members of `from` into `to`; gone: what `from` has not goes. */
static void take_members(struct json_object *to, struct json_object *from,
                         const char *const *names, bool gone)
{
    for (; *names; names++) {
        struct json_object *value = api_json_get(from, *names);

        if (value) {
            api_json_set(to, *names, json_object_get(value));
        } else if (gone) {
            json_object_object_del(to, *names);
        }
    }
}

static size_t length(struct json_object *o, const char *name)
{
    struct json_object *list = api_json_get(o, name);

    return list && json_object_is_type(list, json_type_array) ? json_object_array_length(list)
                                                              : 0;
}

/* The first member in which the machines differ; NULL: none. */
static const char *difference(struct json_object *now, struct json_object *given)
{
    for (const char *const *name = fixed; *name; name++) {
        if (!json_object_equal(api_json_get(now, *name), api_json_get(given, *name))) {
            return *name;
        }
    }
    for (const char *const *name = lists; *name; name++) {
        if (length(now, *name) != length(given, *name)) {
            return *name;
        }
    }
    return NULL;
}

static void take_devices(struct json_object *now, struct json_object *given)
{
    struct json_object *disks = api_json_get(now, "disks"), *nics = api_json_get(now, "nics");

    for (size_t i = 0; i < length(now, "disks"); i++) {
        take_members(json_object_array_get_idx(disks, i),
                     json_object_array_get_idx(api_json_get(given, "disks"), i), of_disks,
                     true);
    }
    for (size_t i = 0; i < length(now, "nics"); i++) {
        struct json_object *nic = json_object_array_get_idx(api_json_get(given, "nics"), i);

        take_members(nic, json_object_array_get_idx(nics, i), seen_of_nics, true);
        json_object_array_put_idx(nics, i, json_object_get(nic));
    }
}

bool migrate_out_there(const struct vm *vm, const struct api_vm_config *given,
                       struct json_object **there, struct api_error *x)
{
    AUTO_JSON now = NULL;
    AUTO_JSON other = NULL;
    const char *member;

    if (!given) {
        return true;
    }
    now = api_encode(&api_type_vm_config, &vm->config);
    other = api_encode(&api_type_vm_config, given);
    if (!given->uuid) {
        api_json_set_str(other, "uuid", vm->config.uuid);
    }
    member = difference(now, other);
    if (member) {
        api_error_set(x, API_E_INVALID_PARAMS, "there", "leave it as it is",
                      "VM '%s' cannot have another '%s' there: the guest would see it",
                      vm->config.name, member);
        return false;
    }
    take_members(now, other, words, true);
    take_members(now, other, policies, false);
    take_devices(now, other);
    *there = take_ptr(now);
    return true;
}

/* ---- migrate.start ---- */

void migrate_out_take(struct migrate_out *k, const struct vm *vm,
                      const struct api_migrate_start_in *in)
{
    k->in = *in;
    k->in.vm = k->in.to = k->in.disk_folder = NULL;
    k->in.migrate_disks = NULL;
    k->in.there = NULL;
    if (!in->has_bandwidth) {
        k->in.bandwidth = vm->move_bandwidth;
    }
    if (!in->has_downtime_ms) {
        k->in.downtime_ms = vm->move_downtime_ms ? vm->move_downtime_ms : MIGRATE_DOWNTIME_MS;
    }
    k->keep = in->keep && !vm->transient;
}

void migrate_out_tell(const struct migrate_out *k, const struct vm *vm,
                      struct json_object *prepare)
{
    api_json_set(prepare, "config",
                 k->there ? json_object_get(k->there)
                          : api_encode(&api_type_vm_config, &vm->config));
    api_json_set_int(prepare, "streams", k->in.streams);
    api_json_set_str(prepare, "version", PACKAGE_VERSION);
    api_json_set_bool(prepare, "paused", k->paused || k->in.pause);
    api_json_set_bool(prepare, "transient",
                      k->in.has_transient ? k->in.transient : vm->transient);
    api_json_set_bool(prepare, "check", k->in.check);
}

/* ---- what stays here ---- */

void migrate_out_keep(struct vm *vm, struct change *c)
{
    if (vm->config.autostart) {
        api_release(&api_type_autostart, vm->config.autostart);
        free(take_ptr(vm->config.autostart));
        vm_event(vm, c, API_EVENT_TYPE_VM_CHANGED, "migrated", NULL);
    }
    vm_put(vm, c);
}

/* ---- migrate.set ---- */

static void on_set(void *arg, struct json_object *result, const struct api_error *x)
{
    const struct vm *vm = arg; /* lives as long as its connection */

    (void)result;
    if (x) {
        log_warn("daemon", "VM '%s' keeps the limits of its migration: %s", vm->config.name,
                 x->message);
    }
}

static bool is_copying(const struct vm *vm)
{
    list_for_each (it, &vm->d->migrate_outs) {
        const struct migrate_out *k = list_entry(it, struct migrate_out, link);

        if (k->vm == vm->id && (k->step == FOLLOW || k->step == COPY)) {
            return true;
        }
    }
    return false;
}

void api_handle_migrate_set(struct api_call *call, struct api_migrate_set_in *in)
{
    struct vm *vm = call_vm(call, in->vm);

    if (!vm) {
        return;
    }
    vm->move_bandwidth = in->has_bandwidth ? in->bandwidth : vm->move_bandwidth;
    vm->move_downtime_ms = in->has_downtime_ms ? in->downtime_ms : vm->move_downtime_ms;
    list_for_each (it, &vm->d->migrate_outs) { /* those that have not told the emulator yet */
        struct migrate_out *k = list_entry(it, struct migrate_out, link);

        if (k->vm == vm->id) {
            k->in.bandwidth = in->has_bandwidth ? in->bandwidth : k->in.bandwidth;
            k->in.downtime_ms = in->has_downtime_ms ? in->downtime_ms : k->in.downtime_ms;
        }
    }
    if (is_copying(vm) && vm->run) {
        struct json_object *o = json_object_new_object();

        if (in->has_bandwidth) {
            api_json_set_int(o, "bandwidth", in->bandwidth);
        }
        if (in->has_downtime_ms) {
            api_json_set_int(o, "downtime_ms", in->downtime_ms);
        }
        run_call_with(vm->run, "emu.migrate_set", o, SET_NS, on_set, vm);
    }
    call_finish(vm->d, call, vm->config.name, json_object_new_object());
}
