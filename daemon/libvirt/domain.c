/* SPDX-License-Identifier: Apache-2.0 */
/* Domains: finding them, what they are, their definitions. What makes them run is in lifecycle.c. */
#include "api-schema/json/codec.h"
#include "daemon/auth/access.h"
#include "daemon/daemon.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/jobs.h"
#include "daemon/libvirt/parts.h"
#include "daemon/libvirt/procs.h"
#include "daemon/libvirt/session.h"
#include "daemon/libvirt/xdr.h"
#include "daemon/registry.h"
#include "daemon/run/runfs.h"
#include "daemon/screen/vnc.h"
#include "daemon/spawn/proto.h"
#include "daemon/vm/snapshot.h"
#include "daemon/xml/xml.h"
#include "engine/base/str.h"

#include <string.h>

enum {
    /* virDomainState */
    RUNNING = 1,
    PAUSED = 3,
    SHUTDOWN = 4,
    SHUTOFF = 5,
    CRASHED = 6,
    /* virDomainXMLFlags */
    XML_INACTIVE = 2,
};

bool lv_active(enum api_vm_state state)
{
    return state != API_VM_STATE_STOPPED && state != API_VM_STATE_CRASHED;
}

bool lv_active_word(const char *state)
{
    return state && strcmp(state, "stopped") != 0 && strcmp(state, "crashed") != 0;
}

int64_t lv_id(const struct vm *vm)
{
    return lv_active(vm->state) ? vm->id : -1;
}

struct vm *lv_the_vm(const struct lv_call *c)
{
    AUTO_JSON ref = lv_vm(c);
    const char *uuid = api_json_get_str(ref, "vm");
    struct vm *vm = uuid ? vm_find(c->d, uuid, false) : NULL;

    return vm && c->q && access_peer_sees(c->d, &c->q->s->peer, vm->config.project) ? vm : NULL;
}

struct json_object *lv_domain(const struct vm *vm)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "name", vm->config.name);
    api_json_set_str(o, "uuid", vm->config.uuid);
    api_json_set_int(o, "id", lv_id(vm));
    return o;
}

struct json_object *lv_domain_of(struct vmd *d, struct json_object *info)
{
    const struct vm *vm = vm_find(d, api_json_get_str(info, "uuid"), false);
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "name", api_json_get_str(info, "name"));
    api_json_set_str(o, "uuid", api_json_get_str(info, "uuid"));
    api_json_set_int(o, "id", vm ? lv_id(vm) : -1);
    return o;
}

/* --- finding ------------------------------------------------------------------------------------- */

static void reply_domain(struct lv_call *c, struct json_object *info)
{
    struct json_object *o = json_object_new_object();

    api_json_set(o, "dom", lv_domain_of(c->d, info));
    lv_reply(c, o);
}

void lv_do_domain_by_name(struct lv_call *c)
{
    const char *name = lv_str(c, "name");

    if (uuid_ok(name)) { /* no name can be one */
        lv_fail(c, LV_E_NO_DOMAIN, "no domain with the name '%s'", name);
        return;
    }
    lv_ask(c, "domain", "vm.get", lv_object("vm", name), reply_domain);
}

void lv_do_domain_by_uuid(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.get", lv_object("vm", lv_str(c, "uuid")), reply_domain);
}

void lv_do_domain_by_id(struct lv_call *c)
{
    const struct vm *vm = vm_by_id(c->d, lv_int(c, "id"));

    if (!vm || vm->pending || !lv_active(vm->state)) {
        lv_fail(c, LV_E_NO_DOMAIN, "no domain with the id %lld", (long long)lv_int(c, "id"));
        return;
    }
    lv_ask(c, "domain", "vm.get", lv_object("vm", vm->config.uuid), reply_domain);
}

/* --- what it is ------------------------------------------------------------------------------------ */

/* Words of a reason for virDomainShutoffReason: */
static int shutoff_reason(struct json_object *info)
{
    static const struct {
        const char *reason;
        int number;
    } known[] = { { "guest-poweroff", 1 }, { "poweroff", 1 }, { "quit", 2 },
                  { "killed", 2 },         { "watchdog", 2 }, { "panic", 3 },
                  { "crashed", 3 },        { "migrated", 4 }, { "saved", 5 },
                  { "start-failed", 6 },   { "lost", 3 } };
    const char *reason = api_json_get_str(api_json_get(info, "exit"), "reason");

    for (unsigned i = 0; reason && i < ARRAY_LEN(known); i++) {
        if (strcmp(known[i].reason, reason) == 0) {
            return known[i].number;
        }
    }
    return 0;
}

/* virDomainState of VmInfo, and why. */
static int state_of(struct json_object *info, int *why)
{
    const char *state = api_json_get_str(info, "state");

    *why = 1; /* booted; by a user */
    if (strcmp(state, "paused") == 0) {
        return PAUSED;
    }
    if (strcmp(state, "stopping") == 0) {
        return SHUTDOWN;
    }
    if (strcmp(state, "crashed") == 0) {
        *why = 3;
        return SHUTOFF;
    }
    if (!lv_active_word(state)) {
        *why = shutoff_reason(info);
        return SHUTOFF;
    }
    return RUNNING;
}

static void on_state(struct lv_call *c, struct json_object *info)
{
    struct json_object *o = json_object_new_object();
    int why;

    api_json_set_int(o, "state", state_of(info, &why));
    api_json_set_int(o, "reason", why);
    lv_reply(c, o);
}

void lv_do_domain_state(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.get", lv_vm(c), on_state);
}

static void on_info(struct lv_call *c, struct json_object *result)
{
    struct json_object *info = json_object_array_get_idx(api_json_get(result, "vms"), 0);
    struct json_object *o = json_object_new_object(), *stats = api_json_get(info, "stats"),
                       *balloon = api_json_get(stats, "balloon");
    int64_t memory = api_json_get_int(info, "memory", 0);
    int why;

    api_json_set_int(o, "state", state_of(info, &why));
    api_json_set_int(o, "max_mem", memory / 1024);
    api_json_set_int(o, "memory", api_json_get_int(balloon, "actual", memory) / 1024);
    api_json_set_int(o, "nr_virt_cpu", api_json_get_int(info, "cpus", 1));
    api_json_set_int(o, "cpu_time", api_json_get_int(stats, "cpu_time_ns", 0));
    lv_reply(c, o);
}

void lv_do_domain_info(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.stats", lv_vm(c), on_info);
}

static void on_active(struct lv_call *c, struct json_object *info)
{
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "active", lv_active_word(api_json_get_str(info, "state")));
    lv_reply(c, o);
}

void lv_do_domain_is_active(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.get", lv_vm(c), on_active);
}

static void on_persistent(struct lv_call *c, struct json_object *info)
{
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "persistent", !api_json_get_bool(info, "transient", false));
    lv_reply(c, o);
}

void lv_do_domain_is_persistent(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.get", lv_vm(c), on_persistent);
}

static void on_updated(struct lv_call *c, struct json_object *info)
{
    const struct vm *vm = vm_find(c->d, api_json_get_str(info, "uuid"), false);
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "updated", vm && vm->restart_needed);
    lv_reply(c, o);
}

void lv_do_domain_is_updated(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.get", lv_vm(c), on_updated);
}

static void on_max_memory(struct lv_call *c, struct json_object *info)
{
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "memory", api_json_get_int(info, "memory", 0) / 1024);
    lv_reply(c, o);
}

void lv_do_domain_max_memory(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.get", lv_vm(c), on_max_memory);
}

static void on_vcpus(struct lv_call *c, struct json_object *info)
{
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "num", api_json_get_int(info, "cpus", 1));
    lv_reply(c, o);
}

void lv_do_domain_max_vcpus(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.get", lv_vm(c), on_vcpus);
}

static void on_os_type(struct lv_call *c, struct json_object *info)
{
    (void)info;
    lv_reply(c, lv_object("type", "hvm"));
}

void lv_do_domain_os_type(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.get", lv_vm(c), on_os_type);
}

static void on_control(struct lv_call *c, struct json_object *info)
{
    struct json_object *o = json_object_new_object();
    const char *state = api_json_get_str(info, "state");

    /* OK, or an error (3) in its monitor (1) */
    api_json_set_int(o, "state", strcmp(state, "unresponsive") == 0 ? 3 : 0);
    api_json_set_int(o, "details", strcmp(state, "unresponsive") == 0 ? 1 : 0);
    lv_reply(c, o);
}

void lv_do_domain_control(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.get", lv_vm(c), on_control);
}

/* --- definitions ------------------------------------------------------------------------------------- */

/* Copies what stands before `mark`, and the mark; *xml is what follows. False: there is none. */
static bool copy_behind(struct buf *out, const char **xml, const char *mark)
{
    const char *at = strstr(*xml, mark);

    if (at) {
        buf_add(out, *xml, (size_t)(at - *xml) + strlen(mark));
        *xml = at + strlen(mark);
    }
    return at != NULL;
}

/* Where the screen of one that runs is looked at: the port that was free, or vmd's socket. */
static void say_screen(const struct vm *vm, struct buf *out, const char **xml)
{
    const char *address = vnc_address(vm), *colon = address ? strrchr(address, ':') : NULL;
    AUTO_FREE char *path = runfs_path(&vm->d->opt, vm->id, VM_VNC);

    if (!vm->config.display || !copy_behind(out, xml, "<graphics type='vnc'")) {
        return;
    }
    if (colon && str_starts(*xml, " port='") && copy_behind(out, xml, " port='")) {
        buf_add_str(out, colon + 1);
        *xml += strcspn(*xml, "'");
    } else if (!vm->config.vnc) {
        buf_printf(out, " socket='%s'", path);
        if (copy_behind(out, xml, "<listen type='socket'")) {
            buf_printf(out, " socket='%s'", path);
        }
    }
}

static void on_xml(struct lv_call *c, struct json_object *result)
{
    static const char *const heads[] = { "<domain type='qemu'", "<domain type='kvm'" };
    const char *xml = api_json_get_str(result, "xml");
    const struct vm *vm = lv_the_vm(c);
    AUTO_BUF out = BUF_INIT;

    for (unsigned i = 0; i < ARRAY_LEN(heads) && vm && lv_active(vm->state); i++) {
        if (!(lv_int(c, "flags") & XML_INACTIVE) && str_starts(xml, heads[i])) {
            copy_behind(&out, &xml, heads[i]);
            buf_printf(&out, " id='%lld'", (long long)vm->id);
            say_screen(vm, &out, &xml);
            break;
        }
    }
    buf_add_str(&out, xml);
    lv_reply(c, lv_object("xml", out.data));
}

void lv_do_domain_xml(struct lv_call *c)
{
    lv_ask(c, "domain", "xml.get", lv_vm(c), on_xml);
}

static void on_changed(struct lv_call *c, struct json_object *result)
{
    (void)result;
    lv_ask(c, "domain", "vm.get", lv_object("vm", api_json_get_str(c->kept, "uuid")),
           reply_domain);
}

struct json_object *lv_patch(const struct vm *vm, struct json_object *definition)
{
    static const char *const fixed[] = { "name", "uuid", "arch", "machine", "project" };
    AUTO_JSON old = api_encode(&api_type_vm_config, &vm->config);
    struct json_object *set = json_object_new_object();

    json_object_object_foreach(old, key, was)
    {
        (void)was;
        json_object_object_add(set, key, NULL);
    }
    json_object_object_foreach(definition, name, value)
    {
        json_object_object_add(set, name, json_object_get(value));
    }
    for (unsigned i = 0; i < ARRAY_LEN(fixed); i++) {
        json_object_object_del(set, fixed[i]);
    }
    return set;
}

void lv_do_domain_define(struct lv_call *c)
{
    struct json_object *definition = lv_read_xml(c, &xml_domain, lv_str(c, "xml")), *params;
    const char *uuid = api_json_get_str(definition, "uuid"),
               *name = api_json_get_str(definition, "name");
    const struct vm *vm;

    if (!definition) {
        return;
    }
    c->kept = definition;
    vm = uuid ? vm_find(c->d, uuid, false) : NULL;
    if (!vm) {
        params = json_object_new_object();
        api_json_set(params, "config", json_object_get(definition));
        lv_ask(c, "domain", "vm.define", params, reply_domain);
        return;
    }
    if (name && strcmp(name, vm->config.name) != 0) {
        lv_fail(c, LV_E_OPERATION_FAILED, "domain '%s' is already defined with uuid %s",
                vm->config.name, uuid);
        return;
    }
    params = lv_object("vm", uuid);
    api_json_set(params, "set", lv_patch(vm, definition));
    api_json_set_bool(params, "transient", false);
    lv_ask(c, "domain", "vm.set", params, on_changed);
}

/* What a definition leaves behind when it goes, unless the flags say that it may go, too. NULL: nothing. */
static const char *left_behind(const struct vm *vm, int64_t flags)
{
    enum { MANAGED_SAVE = 1, SNAPSHOTS = 2 };

    if (vm->saved && !(flags & MANAGED_SAVE)) {
        return "it has a saved state: --managed-save removes it, too";
    }
    if (snapshots_any(vm) && !(flags & SNAPSHOTS)) {
        return "it has snapshots: --snapshots-metadata forgets them, too";
    }
    return NULL;
}

/* One that runs goes on without a definition, until it ends. */
void lv_do_domain_undefine(struct lv_call *c)
{
    const struct vm *vm = lv_the_vm(c);
    const char *kept = vm ? left_behind(vm, lv_int(c, "flags")) : NULL;
    struct json_object *params;

    if (kept) {
        lv_fail(c, LV_E_OPERATION_INVALID, "domain '%s' is not undefined: %s", vm->config.name,
                kept);
        return;
    }
    params = lv_vm(c);
    if (vm && lv_active(vm->state)) {
        api_json_set(params, "set", json_object_new_object());
        api_json_set_bool(params, "transient", true);
        lv_ask(c, "domain", "vm.set", params, lv_done);
    } else {
        api_json_set_bool(params, "force",
                          vm && (vm->saved || snapshots_any(vm))); /* the flags said so */
        lv_ask(c, "domain", "vm.delete", params, lv_done);
    }
}

static void on_renamed(struct lv_call *c, struct json_object *info)
{
    (void)info;
    lv_reply(c, NULL);
}

void lv_do_domain_rename(struct lv_call *c)
{
    struct json_object *params = lv_vm(c);

    api_json_set_str(params, "name", lv_str(c, "new_name") ? lv_str(c, "new_name") : "");
    lv_ask(c, "domain", "vm.rename", params, on_renamed);
}

static void on_config(struct lv_call *c, struct json_object *info)
{
    const struct vm *vm = vm_find(c->d, api_json_get_str(info, "uuid"), false);
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "autostart", vm && vm->config.autostart);
    lv_reply(c, o);
}

void lv_do_domain_autostart(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.get", lv_vm(c), on_config);
}

void lv_do_domain_set_autostart(struct lv_call *c)
{
    lv_change(c, "autostart", lv_int(c, "autostart") ? json_object_new_object() : NULL);
}

void lv_do_domain_set_memory(struct lv_call *c)
{
    enum { LIVE = 1, CONFIG = 2, MAXIMUM = 4 };
    int64_t flags = lv_int(c, "flags"), bytes = lv_bytes(lv_int(c, "memory"));
    const struct vm *vm = lv_the_vm(c);
    struct json_object *params;

    if ((flags & MAXIMUM) || !vm || (!lv_active(vm->state) && !(flags & LIVE)) ||
        (flags & CONFIG)) {
        lv_change(c, "memory", json_object_new_int64(bytes));
        return;
    }
    params = lv_vm(c);
    api_json_set_int(params, "memory", bytes);
    lv_ask(c, "domain", "vm.balloon", params, lv_done);
}
