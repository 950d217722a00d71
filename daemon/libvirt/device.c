/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices that come and go by their XML: read as the only device of a domain. A disk is found again by its target, a card by its
 * MAC address, of which the name of one is made that has none.
 */
#include "daemon/daemon.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/jobs.h"
#include "daemon/libvirt/procs.h"
#include "daemon/registry.h"
#include "daemon/xml/xml.h"

#include <stdio.h>
#include <string.h>

enum { LIVE = 1, CONFIG = 2 };

static const struct {
    const char *list, *member; /* of the definition; of vm.attach */
} kinds[] = {
    { "disks", "disk" }, { "nics", "nic" }, { "channels", "channel" }, { "shares", "share" }
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
               "<domain type='qemu'><name>x</name><memory>65536</memory><os><type "
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
                "disks, network cards, channels and shared folders come and go, one at a time");
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
    if (find_name(c, device, name, sizeof(name))) {
        params = where(c);
        api_json_set_str(params, kinds[kind].member, name);
        api_json_set_int(params, "timeout_ms", 0); /* the event tells when it has gone */
        lv_ask(c, "domain", "vm.detach", params, lv_done);
    }
    json_object_put(device);
}
