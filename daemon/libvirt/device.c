/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices that come and go by their XML: read as the only device of a domain. A disk is found again by its target, a card by its
 * MAC address, of which the name of one is made that has none.
 */
#include "daemon/daemon.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/jobs.h"
#include "daemon/libvirt/parts.h"
#include "daemon/libvirt/procs.h"
#include "daemon/registry.h"
#include "daemon/xml/xml.h"

#include <stdio.h>
#include <string.h>

enum { LIVE = 1, CONFIG = 2, FORCE = 4, DETACH_MS = 5000 /* as libvirt waits */ };

static const struct {
    const char *list, *member; /* of the definition; of vm.attach */
} kinds[] = {
    { "disks", "disk" },
    { "nics", "nic" },
    { "channels", "channel" },
    { "shares", "share" },
    { "memory_devices", "memory_device" },
};

/* nic-525400112233: what a card without a name is called. */
static void name_card(const char *mac, char *name, size_t size)
{
    size_t at = (size_t)snprintf(name, size, "nic-");

    for (; *mac && at + 1 < size; mac++) {
        if (*mac != ':') {
            name[at++] = (char)(*mac | 0x20);
        }
    }
    name[at] = 0;
}

/* The device of the call's XML and which of `kinds` it is; the caller's. NULL: the call has failed. */
static struct json_object *read_device(struct lv_call *c, unsigned *kind)
{
    struct json_object *definition, *list, *device = NULL;
    AUTO_BUF text = BUF_INIT;

    buf_printf(&text,
               "<domain type='qemu'><name>x</name><memory unit='TiB'>16</memory><os><type "
               "arch='riscv64'>hvm</type>"
               "</os><devices>%s</devices></domain>",
               lv_str(c, "xml"));
    definition = lv_read_xml(c, &xml_domain, text.data);
    if (!definition) {
        return NULL;
    }
    for (unsigned i = 0; i < ARRAY_LEN(kinds) && !device; i++) {
        list = api_json_get(definition, kinds[i].list);
        if (list && json_object_array_length(list) == 1) {
            *kind = i;
            device = json_object_get(json_object_array_get_idx(list, 0));
        }
    }
    json_object_put(definition);
    if (!device) {
        lv_fail(c, LV_E_CONFIG_UNSUPPORTED,
                "disks, network cards, channels, shared folders and memory come and go, one at "
                "a time");
    }
    return device;
}

static struct json_object *where(const struct lv_call *c)
{
    struct json_object *params = lv_vm(c);
    int64_t flags = lv_int(c, "flags");

    api_json_set_bool(params, "live", flags & LIVE);
    api_json_set_bool(params, "config", flags & CONFIG);
    return params;
}

void lv_do_domain_attach(struct lv_call *c)
{
    unsigned kind;
    struct json_object *device = read_device(c, &kind), *params;
    const char *bus = api_json_get_str(device, "bus"), *mac = api_json_get_str(device, "mac");
    char name[64];

    if (!device) {
        return;
    }
    if (bus && strcmp(bus, "virtio-mmio") == 0) {
        json_object_object_del(device,
                               "bus"); /* as the board has them; what comes goes to PCI */
    }
    if (mac && !api_json_get_str(device, "name")) {
        name_card(mac, name, sizeof(name));
        api_json_set_str(device, "name", name);
    }
    params = where(c);
    api_json_set(params, kinds[kind].member, device);
    lv_ask(c, "domain", "vm.attach", params, lv_done);
}

/* The domain's memory device of that size: XML has no names for them. False: the call has failed. */
static bool find_memory(struct lv_call *c, struct json_object *device, char *name, size_t size)
{
    const struct vm *vm = lv_the_vm(c);
    int64_t bytes = api_json_get_int(device, "size", 0);
    unsigned found = 0;

    for (size_t i = 0; vm && i < vm->config.n_memory_devices; i++) {
        const struct api_memory_device *m = &vm->config.memory_devices[i];

        if (m->size == bytes && found++ == 0) {
            snprintf(name, size, "%s", m->name ? m->name : "");
            if (!m->name) {
                snprintf(name, size, "memory%zu", i);
            }
        }
    }
    if (found != 1) {
        lv_fail(
            c, LV_E_DEVICE_MISSING,
            "the domain has %s memory device of %lld KiB; 'vmctl memory resize' takes names",
            found ? "more than one" : "no", (long long)(bytes / 1024));
    }
    return found == 1;
}

/* The name by which a device is detached; false: the call has failed. */
static bool find_name(struct lv_call *c, struct json_object *device, char *name, size_t size)
{
    const char *mac = api_json_get_str(device, "mac"), *its = api_json_get_str(device, "name");
    const struct vm *vm = lv_the_vm(c);

    its = its ? its : api_json_get_str(device, "tag");
    if (!its && !mac) {
        lv_fail(c, LV_E_INVALID_ARG, "a network card is found by its MAC address");
        return false;
    }
    if (its) {
        snprintf(name, size, "%s", its);
        return true;
    }
    name_card(mac, name, size);
    for (size_t i = 0; vm && i < vm->config.n_nics; i++) {
        const struct api_nic *n = &vm->config.nics[i];
        if (n->mac && n->name && strcasecmp(n->mac, mac) == 0) {
            snprintf(name, size, "%s", n->name);
        }
    }
    return true;
}

void lv_do_domain_detach(struct lv_call *c)
{
    unsigned kind;
    struct json_object *device = read_device(c, &kind), *params;
    char name[64];

    if (!device) {
        return;
    }
    if (strcmp(kinds[kind].member, "memory_device") == 0
            ? find_memory(c, device, name, sizeof(name))
            : find_name(c, device, name, sizeof(name))) {
        params = where(c);
        api_json_set_str(params, kinds[kind].member, name);
        api_json_set_int(params, "timeout_ms", DETACH_MS);
        c->late = true; /* an event tells when the guest has let go of it */
        lv_ask(c, "domain", "vm.detach", params, lv_done);
    }
    json_object_put(device);
}

/* --- by the name that events have for it ----------------------------------------------------------------- */

static void detach_named(struct lv_call *c, const char *member)
{
    struct json_object *params = where(c);

    api_json_set_str(params, member, lv_str(c, "alias"));
    api_json_set_int(params, "timeout_ms", DETACH_MS);
    c->late = true; /* an event tells when the guest has let go of it */
    lv_ask(c, "domain", "vm.detach", params, lv_done);
}

static bool has_name(struct json_object *list, const char *alias)
{
    const char *name;

    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        struct json_object *device = json_object_array_get_idx(list, i);

        name = api_json_get_str(device, "name");
        name = name ? name : api_json_get_str(device, "tag");
        if (name && strcmp(name, alias) == 0) {
            return true;
        }
    }
    return false;
}

/* What was attached live alone is not in the definition; figures of what runs have it. */
static void then_figures(struct lv_call *c, struct json_object *result)
{
    struct json_object *vms = api_json_get(result, "vms"), *stats;

    stats = vms && json_object_array_length(vms) == 1
                ? api_json_get(json_object_array_get_idx(vms, 0), "stats")
                : NULL;
    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
        if (has_name(api_json_get(stats, kinds[i].list), lv_str(c, "alias"))) {
            detach_named(c, kinds[i].member);
            return;
        }
    }
    lv_fail(c, LV_E_DEVICE_MISSING, "the domain has no device '%s'", lv_str(c, "alias"));
}

void lv_do_domain_detach_alias(struct lv_call *c)
{
    const struct vm *vm = lv_the_vm(c);
    AUTO_JSON config = NULL;

    if (!vm) {
        lv_fail(c, LV_E_NO_DOMAIN, "the domain has gone");
        return;
    }
    config = lv_config(vm);
    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
        if (has_name(api_json_get(config, kinds[i].list), lv_str(c, "alias"))) {
            detach_named(c, kinds[i].member);
            return;
        }
    }
    lv_ask(c, "domain", "vm.stats", lv_vm(c), then_figures);
}

/* --- changed in place ------------------------------------------------------------------------------- */

static void then_defined(struct lv_call *c, struct json_object *result)
{
    (void)result;
    if (c->kept) {
        static const char *const lists[] = { "disks", "nics", "memory_devices" };

        lv_change(c, lists[c->number], json_object_get(c->kept));
    } else {
        lv_reply(c, NULL);
    }
}

/* The card's bandwidth, once its cable is as it should be. */
static void then_port(struct lv_call *c, struct json_object *result)
{
    AUTO_JSON args = json_object_get(api_json_get(c->args, "port"));

    (void)result;
    if (args) {
        lv_ask(c, "domain", "network.port", json_object_get(args), then_defined);
    } else {
        then_defined(c, NULL);
    }
}

/* Members of `device` over those of `was`; of those in `gone`, what it has not goes. */
static void overlay(struct json_object *was, struct json_object *device,
                    const char *const *gone)
{
    static const char *const kept[] = { "name", "mac", "bus", "hotplug", NULL };

    for (unsigned i = 0; gone[i]; i++) {
        json_object_object_del(was, gone[i]);
    }
    json_object_object_foreach(device, key, value)
    {
        bool own = false;
        for (unsigned i = 0; kept[i]; i++) {
            own |= strcmp(kept[i], key) == 0;
        }
        if (!own) {
            api_json_set(was, key, json_object_get(value));
        }
    }
}

static void update_nic(struct lv_call *c, const struct vm *vm, struct json_object *device,
                       bool live, bool config)
{
    static const char *const gone[] = { "link", "inbound", "outbound", NULL };
    int at = lv_nic(c, vm, api_json_get_str(device, "mac"));
    struct json_object *params, *port, *way;
    char name[80];

    if (at < 0) {
        return;
    }
    lv_nic_name(vm, at, name, sizeof(name));
    if (config) {
        AUTO_JSON definition = lv_config(vm);
        c->kept = json_object_get(api_json_get(definition, "nics"));
        c->number = 1;
        overlay(json_object_array_get_idx(c->kept, (size_t)at), device, gone);
    }
    if (!live) {
        then_defined(c, NULL);
        return;
    }
    port = lv_vm(c);
    api_json_set_str(port, "nic", name);
    for (unsigned i = 1; i < 3; i++) {
        way = api_json_get(device, gone[i]);
        if (way) {
            api_json_set(port, gone[i], json_object_get(way));
        }
    }
    if (json_object_object_length(port) > 2) {
        api_json_set(c->args, "port", port);
    } else {
        json_object_put(port);
    }
    params = lv_vm(c);
    api_json_set_str(params, "nic", name);
    api_json_set_str(params, "link", api_json_get_bool(device, "link", true) ? "up" : "down");
    lv_ask(c, "domain", "vm.set_link", params, then_port);
}

static bool same_file(const struct api_disk *was, struct json_object *device)
{
    const char *file = api_json_get_str(device, "file");

    const char *volume = api_json_get_str(device, "volume"),
               *pool = api_json_get_str(device, "pool");

    if (volume) {
        return was->volume && was->pool && pool && strcmp(was->volume, volume) == 0 &&
               strcmp(was->pool, pool) == 0;
    }
    return was->file && file ? strcmp(was->file, file) == 0 : was->file == NULL && !file;
}

/* The limits, when the rest is as it should be. */
static void then_limits(struct lv_call *c, struct json_object *result)
{
    AUTO_JSON params = json_object_get(api_json_get(c->args, "limits"));

    (void)result;
    lv_ask(c, "domain", "disk.throttle", json_object_get(params), then_defined);
}

/* Another medium, or none, in a drive of the running domain. */
static void update_medium(struct lv_call *c, const char *disk, struct json_object *device)
{
    static const char *const members[] = { "file", "pool", "volume" };
    struct json_object *params = lv_vm(c);
    bool comes = false;

    api_json_set_str(params, "disk", disk);
    api_json_set_bool(params, "force", lv_int(c, "flags") & FORCE);
    for (unsigned i = 0; i < ARRAY_LEN(members); i++) {
        const char *text = api_json_get_str(device, members[i]);

        if (text) {
            api_json_set_str(params, members[i], text);
            comes = true;
        }
    }
    if (comes && api_json_get_str(device, "format")) {
        api_json_set_str(params, "image_format", api_json_get_str(device, "format"));
    }
    lv_ask(c, "domain", comes ? "disk.insert" : "disk.eject", params, then_limits);
}

static void update_disk(struct lv_call *c, const struct vm *vm, struct json_object *device,
                        bool live, bool config)
{
    static const char *const gone[] = { "file", "format", "pool", "volume", "throttle", NULL };
    const char *what = api_json_get_str(device, "name");
    int at = lv_disk(c, vm, what ? what : api_json_get_str(device, "file"));
    struct json_object *params, *limits;
    char name[80];

    if (at < 0) {
        return;
    }
    if (live && !same_file(&vm->config.disks[at], device) && !vm->config.disks[at].cdrom &&
        !vm->config.disks[at].removable) {
        lv_fail(c, LV_E_OPERATION_UNSUPPORTED,
                "a disk's image is another from the next start on: --config");
        return;
    }
    if (live) { /* what it was when its XML was read, and no wish */
        json_object_object_del(device, "tray_open");
    }
    if (config) {
        AUTO_JSON definition = lv_config(vm);
        c->kept = json_object_get(api_json_get(definition, "disks"));
        overlay(json_object_array_get_idx(c->kept, (size_t)at), device, gone);
    }
    if (!live) {
        then_defined(c, NULL);
        return;
    }
    lv_disk_name(vm, at, name, sizeof(name));
    limits = api_json_get(device, "throttle");
    params = lv_vm(c);
    api_json_set_str(params, "disk", name);
    api_json_set(params, "throttle",
                 limits ? json_object_get(limits) : json_object_new_object());
    if (same_file(&vm->config.disks[at], device)) {
        lv_ask(c, "domain", "disk.throttle", params, then_defined);
        return;
    }
    api_json_set(c->args, "limits", params);
    update_medium(c, name, device);
}

/* Another size is asked for. */
static void update_memory(struct lv_call *c, const struct vm *vm, struct json_object *device,
                          bool live, bool config)
{
    static const char *const gone[] = { "requested", NULL };
    struct json_object *params;
    char name[80];

    if (!find_memory(c, device, name, sizeof(name))) {
        return;
    }
    if (config) {
        AUTO_JSON definition = lv_config(vm);
        struct json_object *list = api_json_get(definition, "memory_devices");

        for (size_t i = 0; i < json_object_array_length(list); i++) {
            struct json_object *one = json_object_array_get_idx(list, i);

            if (api_json_get_int(one, "size", 0) == api_json_get_int(device, "size", 0)) {
                overlay(one, device, gone);
            }
        }
        c->kept = json_object_get(list);
        c->number = 2;
    }
    if (!live) {
        then_defined(c, NULL);
        return;
    }
    params = lv_vm(c);
    api_json_set_str(params, "name", name);
    api_json_set_int(params, "requested", api_json_get_int(device, "requested", 0));
    lv_ask(c, "domain", "vm.memory_resize", params, then_defined);
}

void lv_do_domain_update(struct lv_call *c)
{
    const struct vm *vm = lv_the_vm(c);
    AUTO_JSON device = NULL;
    unsigned kind;
    bool live, config;

    if (!lv_where(c, vm, &live, &config)) {
        return;
    }
    device = read_device(c, &kind);
    if (!device) {
        return;
    }
    c->number = 0;
    if (strcmp(kinds[kind].member, "nic") == 0) {
        update_nic(c, vm, device, live, config);
    } else if (strcmp(kinds[kind].member, "disk") == 0) {
        update_disk(c, vm, device, live, config);
    } else if (strcmp(kinds[kind].member, "memory_device") == 0) {
        update_memory(c, vm, device, live, config);
    } else {
        lv_fail(c, LV_E_OPERATION_UNSUPPORTED,
                "disks, network cards and memory are changed in place, others "
                "are detached and attached");
    }
}
