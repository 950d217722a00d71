/* SPDX-License-Identifier: Apache-2.0 */
/* Networks in memory and as rows, and what VMs want of them. See networks.h. */
#include "daemon/network/networks.h"

#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "api-schema/net/nicargs.h"
#include "api-schema/rpc/call.h"
#include "daemon/auth/access.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/registry.h"
#include "daemon/run/proc.h"
#include "daemon/spawn/proto.h"
#include "daemon/store/store.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct networks *networks_new(struct vmd *d)
{
    struct networks *s = xnew(struct networks);

    s->d = d;
    list_init(&s->all);
    return s;
}

void networks_end(struct vmd *d)
{
    struct err e = ERR_INIT;

    if (!d->networks) {
        return;
    }
    d->networks->ending = true;
    err_set(&e, -ESHUTDOWN, "vmd is shutting down");
    list_for_each (it, &d->networks->all) {
        struct network *n = list_entry(it, struct network, link);
        network_done_fn *done = n->done;

        n->done = NULL;
        if (done) {
            done(n->done_arg, &e);
        }
        network_fail_asks(n);
        if (d->end_stop_vms &&
            n->pid) { /* and nothing is left; the next daemon starts it again */
            network_end_process(n);
        }
    }
}

void networks_free(struct networks *s)
{
    if (!s) {
        return;
    }
    while (!list_empty(&s->all)) {
        network_drop(list_entry(s->all.next, struct network, link));
    }
    free(s);
}

struct network *network_find(struct vmd *d, const char *ref)
{
    list_for_each (it, &d->networks->all) {
        struct network *n = list_entry(it, struct network, link);

        if (strcmp(n->config.name, ref) == 0 || strcmp(n->config.uuid, ref) == 0) {
            return n;
        }
    }
    return NULL;
}

static void make_key(struct network *n)
{
    size_t k = 0;

    for (const char *c = n->config.uuid; *c && k < NET_KEY_LEN; c++) {
        if (*c != '-') {
            n->key[k++] = *c;
        }
    }
}

struct network *network_new(struct vmd *d, struct api_net_config *take_config,
                            const char *project)
{
    struct networks *s = d->networks;
    struct network *n = xnew(struct network);
    struct list *at = s->all.next;

    n->d = d;
    n->config = *take_config;
    memset(take_config, 0, sizeof(*take_config));
    n->project = xstrdup(project);
    n->pidfd = -1;
    make_key(n);
    list_init(&n->patches);
    list_init(&n->asks);
    while (at != &s->all &&
           strcmp(list_entry(at, struct network, link)->config.name, n->config.name) < 0) {
        at = at->next;
    }
    list_append(at, &n->link); /* before `at` */
    s->n++;
    return n;
}

void network_drop(struct network *n)
{
    network_unpatch(n);
    network_fail_asks(n);
    loop_fd_free(n->watch);
    loop_timer_free(n->again);
    if (n->pidfd >= 0) {
        close(n->pidfd);
    }
    list_remove(&n->link);
    n->d->networks->n--;
    api_release(&api_type_net_config, &n->config);
    free(n->project);
    free(n);
}

void network_put(const struct network *n, bool wanted, struct change *c)
{
    AUTO_JSON o = json_object_new_object();

    api_json_set(o, "config", api_encode(&api_type_net_config, &n->config));
    api_json_set_str(o, "project", n->project);
    api_json_set_bool(o, "autostart", n->autostart);
    api_json_set_str(o, "boot", wanted ? n->d->boot_id : "");
    store_tx_object_put(change_tx(c), &(struct store_object){ .kind = "network",
                                                              .scope = "",
                                                              .name = n->config.name,
                                                              .body = api_json_text(o),
                                                              .changed_ns = time_real_ns() });
}

void network_event(const struct network *n, const char *reason, struct change *c)
{
    AUTO_JSON detail = json_object_new_object();

    api_json_set_str(detail, "project", n->project);
    api_json_set_str(detail, "uuid", n->config.uuid);
    change_event(c, &(struct api_event){ .type = API_EVENT_TYPE_NETWORK,
                                         .name = n->config.name,
                                         .reason = (char *)reason,
                                         .detail = detail });
}

static int64_t count_cards(struct network *n)
{
    size_t count;
    struct vm **list = vm_list(n->d, &count);
    int64_t cards = 0;

    for (size_t i = 0; i < count; i++) {
        for (size_t at = 0; list[i]->run && network_card(n, list[i], &at); at++) {
            cards++;
        }
    }
    free(list);
    return cards;
}

struct json_object *network_info(struct network *n, bool config)
{
    const struct api_net_ip *ip = network_ip(&n->config, false);
    AUTO_FREE char *address = ip ? xasprintf("%s/%lld", ip->address, (long long)ip->prefix)
                                 : NULL;
    struct api_network_info out = { .name = n->config.name,
                                    .uuid = n->config.uuid,
                                    .project = n->project,
                                    .state = n->state,
                                    .autostart = n->autostart,
                                    .forward = n->config.forward,
                                    .address = address,
                                    .bridge = n->config.forward == API_NET_FORWARD_BRIDGE
                                                  ? n->config.bridge
                                                  : NULL,
                                    .pid = n->pid,
                                    .has_pid = n->pid > 0,
                                    .deaths = n->deaths,
                                    .cards = count_cards(n),
                                    .restart_needed = n->stale,
                                    .config = config ? &n->config : NULL };

    return api_encode(&api_type_network_info, &out);
}

char *network_path(const struct network *n, const char *name)
{
    return xasprintf("%s/%s/%s/%s", n->d->opt.run, SPAWN_NET_DIR, n->key, name);
}

void networks_load(struct vmd *d, const struct store_object *row)
{
    AUTO_JSON o = NULL;
    struct err e = ERR_INIT;
    struct api_error x = API_ERROR_INIT;
    struct api_net_config config;
    const char *project, *boot;
    struct network *n;

    if (api_json_parse(row->body, strlen(row->body), &o, &e) < 0 ||
        api_decode(&api_type_net_config, api_json_get(o, "config"), API_LENIENT, "config",
                   &config, &x) < 0) {
        log_error("daemon", "network '%s' left out: %s", row->name, e.code ? e.msg : x.message);
        return;
    }
    if (!config.uuid) {
        log_error("daemon", "network '%s' left out: it has no UUID", row->name);
        api_release(&api_type_net_config, &config);
        return;
    }
    project = api_json_get_str(o, "project");
    boot = api_json_get_str(o, "boot");
    n = network_new(d, &config, project ? project : "default");
    n->autostart = api_json_get_bool(o, "autostart", false);
    n->wanted = (boot && strcmp(boot, d->boot_id) == 0) || n->autostart;
}

void networks_begin(struct vmd *d)
{
    list_for_each (it, &d->networks->all) {
        network_adopt(list_entry(it, struct network, link));
    }
}

struct network *call_network(struct api_call *call, const char *ref, enum api_role role,
                             bool active)
{
    struct network *n = network_find(call_daemon(call), ref);

    if (!n || n->pending || access_role_of(call, n->project) == API_ROLE_NONE) {
        api_fail(call, API_E_NOT_FOUND, ref,
                 "'vmctl network list' shows the networks there are",
                 "there is no network '%s'", ref);
        return NULL;
    }
    if (access_role_of(call, n->project) < role) {
        api_fail(call, API_E_DENIED, n->project,
                 "ask an administrator: 'vmctl user set' gives roles",
                 "%s needs role %s in project %s", api_call_method(call)->name,
                 api_role_names[role], n->project);
        return NULL;
    }
    if (active && n->state != API_NETWORK_STATE_ACTIVE) {
        api_fail(call, API_E_BAD_STATE, n->config.name, "start it: 'vmctl network start'",
                 "network '%s' is not active", n->config.name);
        return NULL;
    }
    return n;
}

/* ---- VMs ---- */

bool network_card(const struct network *n, const struct vm *vm, size_t *at)
{
    for (; *at < vm->config.n_nics; (*at)++) {
        const struct api_nic *nic = &vm->config.nics[*at];

        if (nic->type == API_NIC_TYPE_NETWORK && nic->network &&
            strcmp(nic->network, n->config.name) == 0) {
            return true;
        }
    }
    return false;
}

const struct api_net_port_group *network_group(const struct network *n, const char *name)
{
    for (size_t i = 0; i < n->config.n_portgroups; i++) {
        const struct api_net_port_group *g = &n->config.portgroups[i];

        if (name ? strcmp(g->name, name) == 0 : g->has_is_default && g->is_default) {
            return g;
        }
    }
    return NULL;
}

static struct network *nic_network(struct vmd *d, const struct api_vm_config *c,
                                   const struct api_nic *nic, struct api_error *x)
{
    struct network *n = nic->network ? network_find(d, nic->network) : NULL;

    if (!n || n->pending || strcmp(n->project, c->project) != 0) {
        api_error_set(x, API_E_NOT_FOUND, nic->network ? nic->network : "network",
                      "'vmctl network list' shows the networks there are",
                      "there is no network '%s' for project '%s'",
                      nic->network ? nic->network : "", c->project);
        return NULL;
    }
    return n;
}

int networks_check(struct vmd *d, const struct api_vm_config *c, struct api_error *x)
{
    for (size_t i = 0; i < c->n_nics; i++) {
        const struct api_nic *nic = &c->nics[i];
        struct network *n;

        if (nic->type != API_NIC_TYPE_NETWORK) {
            continue;
        }
        n = nic_network(d, c, nic, x);
        if (!n) {
            return -1;
        }
        if (nic->portgroup && !network_group(n, nic->portgroup)) {
            return api_error_set(
                x, API_E_NOT_FOUND, nic->portgroup, "'vmctl network show' has its port groups",
                "network '%s' has no port group '%s'", nic->network, nic->portgroup);
        }
        if (n->config.forward == API_NET_FORWARD_BRIDGE &&
            (nic->inbound || nic->outbound || nic->filter || nic->trunk)) {
            return api_error_set(x, API_E_UNSUPPORTED, "config.nics",
                                 "use a network of another mode",
                                 "network '%s' is a bridge of the host, where cards have no "
                                 "bandwidth, filter or trunk",
                                 nic->network);
        }
    }
    return 0;
}

int networks_ready(struct vmd *d, const struct api_vm_config *c, struct api_error *x)
{
    for (size_t i = 0; i < c->n_nics; i++) {
        struct network *n;

        if (c->nics[i].type != API_NIC_TYPE_NETWORK) {
            continue;
        }
        n = nic_network(d, c, &c->nics[i], x);
        if (!n) {
            return -1;
        }
        /* One that is being started is ready before the VM is: vmd-spawn does one thing at a time. */
        if (n->state == API_NETWORK_STATE_INACTIVE) {
            return api_error_set(
                x, API_E_BAD_STATE, n->config.name, "start it: 'vmctl network start'",
                "network '%s' of VM '%s' is not active", n->config.name, c->name);
        }
    }
    return 0;
}

void networks_resolve(struct vmd *d, struct json_object *config)
{
    struct json_object *nics = api_json_get(config, "nics");
    size_t count = json_object_is_type(nics, json_type_array) ? json_object_array_length(nics)
                                                              : 0;

    for (size_t i = 0; i < count; i++) {
        struct json_object *nic = json_object_array_get_idx(nics, i);
        const char *name = api_json_get_str(nic, "network");
        struct network *n = name ? network_find(d, name) : NULL;

        if (n && n->config.forward == API_NET_FORWARD_BRIDGE) {
            json_object_object_del(nic, "network");
            json_object_object_del(nic, "portgroup");
            api_json_set_str(nic, "type", "bridge");
            api_json_set_str(nic, "bridge", n->config.bridge);
        }
    }
}

static struct json_object *limits_of(const struct api_nic_bandwidth *to_vm,
                                     const struct api_nic_bandwidth *from_vm)
{
    struct json_object *o = json_object_new_object();

    if (to_vm) {
        api_json_set(o, "to_vm", api_encode(&api_type_nic_bandwidth, to_vm));
    }
    if (from_vm) {
        api_json_set(o, "from_vm", api_encode(&api_type_nic_bandwidth, from_vm));
    }
    return o;
}

/* The first frame of the port: who it is, and what holds for it. */
static struct json_object *hello(struct network *n, const struct vm *vm,
                                 const struct api_nic *nic, const char *mac)
{
    static const struct api_net_port_group none;
    const struct api_net_port_group *g = network_group(n, nic->portgroup);
    struct json_object *o = json_object_new_object();
    AUTO_FREE char *port = xasprintf("%lld/%s", (long long)vm->id, nic->name);
    const struct api_nic_filter *filter;

    g = g ? g : &none;
    filter = nic->filter ? nic->filter : g->filter;
    api_json_set_str(o, "port", port);
    api_json_set_str(o, "host", vm->config.name);
    api_json_set_str(o, "mac", mac);
    api_json_set_int(o, "vlan", nic->has_vlan ? nic->vlan : g->vlan);
    api_json_set_bool(o, "trunk", nic->has_trunk ? nic->trunk : g->trunk);
    api_json_set(o, "limits",
                 limits_of(nic->inbound ? nic->inbound : g->inbound,
                           nic->outbound ? nic->outbound : g->outbound));
    if (filter) {
        api_json_set(o, "filter", api_encode(&api_type_nic_filter, filter));
    }
    return o;
}

struct json_object *network_request(struct vmd *d, const struct vm *vm,
                                    const struct api_nic *nic, const char *mac)
{
    struct network *n = nic->network ? network_find(d, nic->network) : NULL;
    struct json_object *o = json_object_new_object();
    AUTO_FREE char *path = NULL;
    AUTO_JSON first = NULL;

    api_json_set_str(o, "name", nic->name);
    if (n && n->config.forward == API_NET_FORWARD_BRIDGE) {
        const struct api_net_port_group *g = network_group(n, nic->portgroup);

        api_json_set_bool(o, "tap", true);
        api_json_set_str(o, "bridge", n->config.bridge);
        api_json_set_int(o, "mtu",
                         nic->has_mtu        ? nic->mtu
                         : n->config.has_mtu ? n->config.mtu
                                             : 0);
        api_json_set_int(o, "vlan", nic->has_vlan ? nic->vlan : g ? g->vlan : 0);
        return o;
    }
    path = n ? network_path(n, NET_PORTS) : xstrdup("/nonexistent");
    api_json_set_str(o, "path", path);
    if (n) {
        first = hello(n, vm, nic, mac);
        api_json_set_str(o, "hello", api_json_text(first));
    }
    return o;
}
