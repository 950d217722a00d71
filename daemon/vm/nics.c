/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network cards of definitions: names, checks, and what vmd-spawn is asked for. Owns nothing. Loop thread.
 */
#include "daemon/vm/nics.h"

#include "api-schema/gen/errors.h"
#include "api-schema/json/json.h"
#include "api-schema/net/nicargs.h"
#include "daemon/network/networks.h"
#include "daemon/registry.h"
#include "engine/base/mem.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static int bad(struct api_error *x, size_t i, const char *vm, const struct err *e)
{
    AUTO_FREE char *member = xasprintf("config.nics[%zu]", i);
    return api_error_set(x, API_E_INVALID_PARAMS, member, "see 'vmctl help create'",
                         "network card %zu of VM '%s': %s", i, vm, e->msg);
}

/* As nic_mac_made(), or of the address that was given; UINT32_MAX: it does not begin as those do. */
static uint32_t mac_tail(const struct api_vm_config *c, size_t i)
{
    unsigned b[3];

    if (!c->nics[i].mac) {
        return nic_mac_made(c, i);
    }
    return sscanf(c->nics[i].mac, "52:54:00:%2x:%2x:%2x", &b[0], &b[1], &b[2]) == 3
               ? b[0] | b[1] << 8 | b[2] << 16
               : UINT32_MAX;
}

static bool has_mac(const struct api_vm_config *c, const uint32_t *tail, size_t n)
{
    for (size_t i = 0; i < c->n_nics; i++) {
        uint32_t theirs = mac_tail(c, i);

        for (size_t k = 0; k < n; k++) {
            if (tail[k] == theirs) {
                return true;
            }
        }
    }
    return false;
}

bool nics_mac_taken(struct vmd *d, const struct api_vm_config *c)
{
    AUTO_FREE uint32_t *tail = xnew_n(uint32_t, c->n_nics + 1);
    size_t n = 0, n_vms;
    bool taken = false;

    for (size_t i = 0; i < c->n_nics; i++) {
        if (!c->nics[i].mac) {
            tail[n++] = nic_mac_made(c, i);
        }
    }
    if (n == 0) {
        return false;
    }
    AUTO_FREE struct vm **list = vm_list_all(d, &n_vms);
    for (size_t i = 0; i < n_vms && !taken; i++) {
        taken = has_mac(&list[i]->config, tail, n);
    }
    return taken;
}

int nics_check(struct api_vm_config *c, struct api_error *x)
{
    for (size_t i = 0; i < c->n_nics; i++) {
        struct api_nic *n = &c->nics[i];
        struct err e = ERR_INIT;
        if (!n->name || !n->name[0]) {
            free(n->name);
            n->name = xasprintf("nic%zu", i);
        }
        for (size_t k = 0; k < i; k++) {
            if (strcmp(n->name, c->nics[k].name) == 0) {
                err_set(&e, -1, "card %zu is named '%s', too; give each a name of its own", k,
                        n->name);
                return bad(x, i, c->name, &e);
            }
        }
        if (nic_check(n, &e) < 0) {
            return bad(x, i, c->name, &e);
        }
    }
    return 0;
}

struct json_object *nics_request_one(struct vmd *d, const struct vm *vm,
                                     const struct api_nic *n)
{
    struct json_object *list = json_object_new_array(), *o = json_object_new_object();

    api_json_set_str(o, "name", n->name);
    if (n->type == API_NIC_TYPE_NETWORK) {
        json_object_put(o);
        o = network_request(d, vm, n, n->mac);
    } else if (n->type == API_NIC_TYPE_USER || n->type == API_NIC_TYPE_VHOST_USER) {
        struct json_object *args = json_object_new_array();
        char **texts = nic_args(n);
        for (size_t k = 0; texts[k]; k++) {
            json_object_array_add(args, json_object_new_string(texts[k]));
        }
        nic_args_free(texts);
        api_json_set(o, "args", args);
        if (n->tftp) {
            api_json_set_str(o, "tftp", n->tftp);
        }
        if (n->type == API_NIC_TYPE_VHOST_USER) {
            api_json_set_str(o, "vhost", n->path);
            api_json_set_bool(o, "listens", n->server);
        }
    } else if (n->type == API_NIC_TYPE_TAP || n->type == API_NIC_TYPE_BRIDGE) {
        struct tap_wish w = nic_tap(n);
        api_json_set_bool(o, "tap", true);
        if (w.ifname) {
            api_json_set_str(o, "ifname", w.ifname);
        }
        if (w.bridge) {
            api_json_set_str(o, "bridge", w.bridge);
        }
        api_json_set_int(o, "mtu", w.mtu);
        api_json_set_int(o, "vlan", w.vlan);
        api_json_set_int(o, "queues", w.queues);
    } else {
        api_json_set_str(o, "path", n->path);
        api_json_set_bool(o, "dgram", n->type == API_NIC_TYPE_DGRAM);
    }
    json_object_array_add(list, o);
    return list;
}

struct json_object *nics_request(const struct vm *vm)
{
    const struct api_vm_config *c = &vm->config;
    struct json_object *list = json_object_new_array();

    for (size_t i = 0; i < c->n_nics; i++) {
        struct api_nic nic = c->nics[i]; /* borrows */
        char mac[18];

        if (nic.type == API_NIC_TYPE_NONE) {
            continue;
        }
        nic_mac(c, i, mac);
        nic.mac = mac;
        AUTO_JSON one = nics_request_one(vm->d, vm, &nic);
        json_object_array_add(list, json_object_get(json_object_array_get_idx(one, 0)));
    }
    return list;
}
