/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses of a domain's cards, as its guest's agent tells them or as DHCP servers of the networks that it is on have given them out. Loop thread.
 */
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/procs.h"
#include "daemon/registry.h"

#include <stdlib.h>
#include <string.h>

/* From the guest's agent. */
static void on_addresses(struct lv_call *c, struct json_object *result)
{
    struct json_object *from = api_json_get(result, "interfaces"),
                       *o = json_object_new_object(), *list = json_object_new_array();

    for (size_t i = 0; from && i < json_object_array_length(from); i++) {
        struct json_object *one = json_object_array_get_idx(from, i),
                           *to = json_object_new_object(), *addrs = json_object_new_array(),
                           *ips = api_json_get(one, "addresses");
        api_json_set_str(to, "name", api_json_get_str(one, "name"));
        if (api_json_get_str(one, "mac")) {
            api_json_set_str(to, "hwaddr", api_json_get_str(one, "mac"));
        }
        for (size_t k = 0; ips && k < json_object_array_length(ips); k++) {
            struct json_object *ip = json_object_array_get_idx(ips, k),
                               *a = json_object_new_object();
            const char *text = api_json_get_str(ip, "address");
            api_json_set_int(a, "type", text && strchr(text, ':') != NULL);
            api_json_set_str(a, "addr", text ? text : "");
            api_json_set_int(a, "prefix", api_json_get_int(ip, "prefix", 0));
            json_object_array_add(addrs, a);
        }
        api_json_set(to, "addrs", addrs);
        json_object_array_add(list, to);
    }
    api_json_set(o, "ifaces", list);
    lv_reply(c, o);
}

/* --- leases: c->kept has the networks that are asked, one by one (c->number), and what they said --------------- */

static void add_lease(struct lv_call *c, struct json_object *lease)
{
    const char *ip = api_json_get_str(lease, "ip"), *mac = api_json_get_str(lease, "mac");
    bool six = ip && strchr(ip, ':');
    struct json_object *to = lv_object("name", api_json_get_str(lease, "nic")),
                       *addrs = json_object_new_array(), *a = json_object_new_object();

    api_json_set_str(to, "hwaddr", mac ? mac : "");
    api_json_set_int(a, "type", six);
    api_json_set_str(a, "addr", ip ? ip : "");
    api_json_set_int(a, "prefix", six ? 64 : api_json_get_int(c->kept, "prefix", 24));
    json_object_array_add(addrs, a);
    api_json_set(to, "addrs", addrs);
    json_object_array_add(api_json_get(c->kept, "ifaces"), to);
}

static void ask_next(struct lv_call *c);

static void on_leases(struct lv_call *c, struct json_object *result)
{
    struct json_object *from = api_json_get(result, "leases");
    const char *name = api_json_get_str(c->kept, "vm");

    for (size_t i = 0; from && i < json_object_array_length(from); i++) {
        struct json_object *one = json_object_array_get_idx(from, i);
        const char *vm = api_json_get_str(one, "vm");

        if (vm && api_json_get_str(one, "nic") && strcmp(vm, name) == 0) {
            add_lease(c, one);
        }
    }
    c->number++;
    ask_next(c);
}

static struct json_object *network(const struct lv_call *c)
{
    struct json_object *list = api_json_get(c->kept, "networks");

    return lv_object(
        "network", json_object_get_string(json_object_array_get_idx(list, (size_t)c->number)));
}

/* Leases have no prefix: it is that of the gateway. */
static void on_network(struct lv_call *c, struct json_object *result)
{
    const char *address = api_json_get_str(result, "address"),
               *slash = address ? strchr(address, '/') : NULL;

    api_json_set_int(c->kept, "prefix", slash ? strtol(slash + 1, NULL, 10) : 24);
    lv_ask(c, "network", "network.leases", network(c), on_leases);
}

static void ask_next(struct lv_call *c)
{
    struct json_object *list = api_json_get(c->kept, "networks");

    if ((size_t)c->number < json_object_array_length(list)) {
        lv_ask(c, "network", "network.get", network(c), on_network);
    } else {
        struct json_object *o = json_object_new_object();

        api_json_set(o, "ifaces", json_object_get(api_json_get(c->kept, "ifaces")));
        lv_reply(c, o);
    }
}

/* Each network once. */
static struct json_object *networks_of(const struct vm *vm)
{
    struct json_object *list = json_object_new_array();

    for (size_t i = 0; vm && i < vm->config.n_nics; i++) {
        const struct api_nic *n = &vm->config.nics[i];
        bool known = n->type != API_NIC_TYPE_NETWORK || !n->network;

        for (size_t k = 0; k < json_object_array_length(list) && !known; k++) {
            known = strcmp(json_object_get_string(json_object_array_get_idx(list, k)),
                           n->network) == 0;
        }
        if (!known) {
            json_object_array_add(list, json_object_new_string(n->network));
        }
    }
    return list;
}

static void on_vm(struct lv_call *c, struct json_object *info)
{
    if (!lv_active_word(api_json_get_str(info, "state"))) {
        lv_fail(c, LV_E_OPERATION_INVALID, "domain '%s' is not running",
                api_json_get_str(info, "name"));
        return;
    }
    c->kept = lv_object("vm", api_json_get_str(info, "name"));
    api_json_set(c->kept, "networks", networks_of(lv_the_vm(c)));
    api_json_set(c->kept, "ifaces", json_object_new_array());
    c->number = 0;
    ask_next(c);
}

void lv_do_domain_addresses(struct lv_call *c)
{
    enum { LEASE, AGENT };

    switch (lv_int(c, "source")) {
    case LEASE:
        lv_ask(c, "domain", "vm.get", lv_vm(c), on_vm);
        break;
    case AGENT:
        lv_ask(c, "domain", "agent.interfaces", lv_vm(c), on_addresses);
        break;
    default:
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED,
                "addresses are told by the guest's agent (--source agent) or by DHCP servers "
                "of networks (--source lease)");
    }
}
