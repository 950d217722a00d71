/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers about the ports of networks: leases, counters, captures, VLANs, bandwidth, filters, faults. Each asks the network's process. Owns
 * struct asking, one for each call under way. Loop thread.
 */
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "api-schema/rpc/call.h"
#include "daemon/auth/access.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/network/networks.h"
#include "daemon/registry.h"
#include "daemon/storage/pools.h"
#include "daemon/storage/work.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GATEWAY "gateway"

struct asking {
    struct work w; /* making the file of a capture */
    struct api_call *call;
    struct vmd *d;
    char network[64];
    char *object; /* for the audit */
    struct json_object *params;
    char *file;
    int fd;
};

static struct asking *asking_new(struct api_call *call, const struct network *n,
                                 const char *object)
{
    struct asking *k = xnew(struct asking);

    k->call = call;
    k->d = call_daemon(call);
    k->object = xstrdup(object);
    k->fd = -1;
    snprintf(k->network, sizeof(k->network), "%s", n->config.name);
    return k;
}

static void asking_free(struct asking *k)
{
    json_object_put(k->params);
    free(k->object);
    free(k->file);
    free(k);
}

static void fail(struct asking *k, const struct api_error *x)
{
    bool known = x->code == API_E_NOT_FOUND || x->code == API_E_BUSY ||
                 x->code == API_E_INVALID_PARAMS;

    api_fail(k->call, known ? x->code : API_E_UNRESPONSIVE, k->object, NULL, "network '%s': %s",
             k->network, x->message);
    asking_free(k);
}

/* fn gets k. */
static void ask(struct asking *k, struct network *n, const char *method, int owned_fd,
                rpc_done_fn *fn)
{
    if (!network_ask(n, method, json_object_get(k->params), owned_fd, fn, k)) {
        api_fail(k->call, n->pid ? API_E_UNRESPONSIVE : API_E_UNSUPPORTED, k->network,
                 n->pid ? "call again" : "look at the bridge by the host's own tools",
                 n->pid ? "network '%s' does not answer"
                        : "network '%s' is a bridge of the host",
                 k->network);
        asking_free(k);
    }
}

/* ---- which port ---- */

/* "17/nic0" of the process to the VM and its card. */
static struct vm *port_vm(struct vmd *d, const char *port, const char **nic)
{
    char *end;
    long long id = port ? strtoll(port, &end, 10) : 0;

    if (!port || *end != '/') {
        *nic = NULL;
        return NULL;
    }
    *nic = end + 1;
    return vm_by_id(d, id);
}

static char *port_name(const struct vm *vm, const char *nic)
{
    return xasprintf("%lld/%s", (long long)vm->id, nic);
}

/* The network that a running VM's card is on; NULL after the call was answered. */
static struct network *network_of(struct api_call *call, const struct vm *vm, const char *nic)
{
    const struct api_nic *found = NULL;

    for (size_t i = 0; i < vm->config.n_nics; i++) {
        found = strcmp(vm->config.nics[i].name, nic) == 0 ? &vm->config.nics[i] : found;
    }
    if (!found || found->type != API_NIC_TYPE_NETWORK) {
        api_fail(call, API_E_NOT_FOUND, nic, "'vmctl show' tells what cards it has",
                 "VM '%s' has no card '%s' on a network", vm->config.name, nic);
        return NULL;
    }
    if (!vm->run) {
        api_fail(call, API_E_BAD_STATE, vm->config.name, "start it", "VM '%s' does not run",
                 vm->config.name);
        return NULL;
    }
    return call_network(call, found->network, API_ROLE_NONE, true);
}

/* ---- leases, ports ---- */

/* The card of a running VM on the network that has the address. */
static void name_card(struct vmd *d, const char *mac, struct json_object *ports,
                      struct api_network_lease *out)
{
    size_t count = json_object_is_type(ports, json_type_array) ? json_object_array_length(ports)
                                                               : 0;

    for (size_t i = 0; i < count; i++) {
        struct json_object *p = json_object_array_get_idx(ports, i);
        const char *its = api_json_get_str(p, "mac"), *nic;
        struct vm *vm = port_vm(d, api_json_get_str(p, "port"), &nic);

        if (vm && its && strcmp(its, mac) == 0) {
            out->vm = vm->config.name;
            out->nic = (char *)nic;
        }
    }
}

static void on_leases(void *arg, struct json_object *result, const struct api_error *x)
{
    struct asking *k = arg;
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();
    struct json_object *leases = x ? NULL : api_json_get(result, "leases");

    if (x) {
        json_object_put(o);
        json_object_put(list);
        fail(k, x);
        return;
    }
    for (size_t i = 0; leases && i < json_object_array_length(leases); i++) {
        struct json_object *l = json_object_array_get_idx(leases, i);
        struct api_network_lease out = { .mac = (char *)api_json_get_str(l, "mac"),
                                         .ip = (char *)api_json_get_str(l, "ip"),
                                         .name = (char *)api_json_get_str(l, "name"),
                                         .seconds = api_json_get_int(l, "seconds", 0) };

        if (out.mac && out.ip) {
            name_card(k->d, out.mac, api_json_get(result, "ports"), &out);
            json_object_array_add(list, api_encode(&api_type_network_lease, &out));
        }
    }
    api_json_set(o, "leases", list);
    api_reply_json(k->call, o);
    asking_free(k);
}

void api_handle_network_leases(struct api_call *call, struct api_network_leases_in *in)
{
    struct network *n = call_network(call, in->network, API_ROLE_VIEWER, true);

    if (n) {
        ask(asking_new(call, n, n->config.name), n, "status", -1, on_leases);
    }
}

static struct json_object *port_json(struct vmd *d, struct json_object *p)
{
    const char *port = api_json_get_str(p, "port"), *nic;
    struct vm *vm = port_vm(d, port, &nic);
    struct json_object *to = api_json_get(p, "to_vm"), *from = api_json_get(p, "from_vm");
    struct api_network_port out = { .vm = vm ? vm->config.name : NULL,
                                    .nic = (char *)(vm ? nic : GATEWAY),
                                    .mac = (char *)api_json_get_str(p, "mac"),
                                    .vlan = api_json_get_int(p, "vlan", 0),
                                    .trunk = api_json_get_bool(p, "trunk", false),
                                    .in_frames = api_json_get_int(to, "frames", 0),
                                    .in_bytes = api_json_get_int(to, "bytes", 0),
                                    .in_dropped = api_json_get_int(to, "dropped", 0),
                                    .out_frames = api_json_get_int(from, "frames", 0),
                                    .out_bytes = api_json_get_int(from, "bytes", 0),
                                    .out_dropped = api_json_get_int(from, "dropped", 0),
                                    .filtered = api_json_get_int(p, "filtered", 0),
                                    .lost = api_json_get_int(p, "lost", 0),
                                    .faulty = api_json_get_bool(p, "faulty", false),
                                    .captured = api_json_get_int(p, "captured", 0),
                                    .has_captured = api_json_get(p, "captured") != NULL };

    return api_encode(&api_type_network_port, &out);
}

static void on_ports(void *arg, struct json_object *result, const struct api_error *x)
{
    struct asking *k = arg;
    struct json_object *ports = x ? NULL : api_json_get(result, "ports"), *o, *list;

    if (x) {
        fail(k, x);
        return;
    }
    o = json_object_new_object();
    list = json_object_new_array();
    for (size_t i = 0; ports && i < json_object_array_length(ports); i++) {
        json_object_array_add(list, port_json(k->d, json_object_array_get_idx(ports, i)));
    }
    api_json_set(o, "ports", list);
    api_json_set_int(o, "learned", api_json_get_int(result, "learned", 0));
    api_reply_json(k->call, o);
    asking_free(k);
}

void api_handle_network_ports(struct api_call *call, struct api_network_ports_in *in)
{
    struct network *n = call_network(call, in->network, API_ROLE_VIEWER, true);

    if (n) {
        ask(asking_new(call, n, n->config.name), n, "status", -1, on_ports);
    }
}

/* ---- changes of a port ---- */

/* What the process said is the answer. */
static void on_changed(void *arg, struct json_object *result, const struct api_error *x)
{
    struct asking *k = arg;

    if (x) {
        fail(k, x);
        return;
    }
    call_finish(k->d, k->call, k->object, json_object_get(result));
    asking_free(k);
}

void api_handle_network_port(struct api_call *call, struct api_network_port_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    struct network *n = vm ? network_of(call, vm, in->nic) : NULL;
    struct json_object *limits;
    struct asking *k;

    if (!n) {
        return;
    }
    k = asking_new(call, n, vm->config.name);
    k->params = json_object_new_object();
    AUTO_FREE char *port = port_name(vm, in->nic);
    api_json_set_str(k->params, "port", port);
    if (in->has_vlan) {
        api_json_set_int(k->params, "vlan", in->vlan);
    }
    if (in->has_trunk) {
        api_json_set_bool(k->params, "trunk", in->trunk);
    }
    limits = json_object_new_object();
    if (in->inbound) {
        api_json_set(limits, "to_vm", api_encode(&api_type_nic_bandwidth, in->inbound));
    }
    if (in->outbound) {
        api_json_set(limits, "from_vm", api_encode(&api_type_nic_bandwidth, in->outbound));
    }
    api_json_set(k->params, "limits", limits);
    if (in->filter) {
        api_json_set(k->params, "filter", api_encode(&api_type_nic_filter, in->filter));
    }
    ask(k, n, "port", -1, on_changed);
}

/* ---- captures ---- */

/* A thread: the file may lie where making one takes its time. */
static void make_file(struct work *w)
{
    struct asking *k = container_of(w, struct asking, w);

    k->fd = open(k->file, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (k->fd < 0) {
        w->failed = true;
        err_errno(&w->e, errno, "cannot make '%s'", k->file);
    }
}

static void on_captured(void *arg, struct json_object *result, const struct api_error *x)
{
    struct asking *k = arg;
    struct api_network_capture_out out = { .file = k->file };

    (void)result;
    if (x) {
        unlink(k->file); /* we made it */
        fail(k, x);
        return;
    }
    call_finish(k->d, k->call, k->object, api_encode(&api_type_network_capture_out, &out));
    asking_free(k);
}

static void on_file(struct work *w)
{
    struct asking *k = container_of(w, struct asking, w);
    struct network *n = network_find(k->d, k->network);
    int fd = k->fd;

    k->fd = -1;
    if (w->failed) {
        api_fail(k->call,
                 w->e.code == -EEXIST      ? API_E_EXISTS
                 : w->e.code == -ESHUTDOWN ? API_E_CANCELLED
                                           : API_E_FILE_ERROR,
                 k->file, "name another file", "%s", w->e.msg);
        asking_free(k);
    } else if (!n || n->pid == 0) {
        close(fd);
        unlink(k->file);
        api_fail(k->call, API_E_BAD_STATE, k->network, "start it: 'vmctl network start'",
                 "network '%s' is not active", k->network);
        asking_free(k);
    } else {
        ask(k, n, "capture", fd, on_captured);
    }
}

void api_handle_network_capture(struct api_call *call, struct api_network_capture_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    struct network *n = vm ? network_of(call, vm, in->nic) : NULL;
    struct api_error x = API_ERROR_INIT;
    struct asking *k;

    if (!n) {
        return;
    }
    if (access_file(call, vm->config.project, "file", in->file, &x) < 0) {
        api_reply_error(call, &x);
        return;
    }
    k = asking_new(call, n, vm->config.name);
    AUTO_FREE char *port = port_name(vm, in->nic);
    k->file = xstrdup(in->file);
    k->params = json_object_new_object();
    api_json_set_str(k->params, "port", port);
    api_json_set_int(k->params, "snaplen", in->snaplen);
    api_json_set_int(k->params, "limit", in->limit);
    k->w.run = make_file;
    k->w.ended = on_file;
    if (!works_start(k->d->pools->works, &k->w)) {
        api_fail(call, API_E_BUSY, vm->config.name, "call again later",
                 "too much work on files is under way");
        asking_free(k);
    }
}

void api_handle_network_capture_stop(struct api_call *call,
                                     struct api_network_capture_stop_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    struct network *n = vm ? network_of(call, vm, in->nic) : NULL;
    struct asking *k;

    if (!n) {
        return;
    }
    k = asking_new(call, n, vm->config.name);
    AUTO_FREE char *port = port_name(vm, in->nic);
    k->params = json_object_new_object();
    api_json_set_str(k->params, "port", port);
    ask(k, n, "capture_stop", -1, on_changed);
}

/* ---- faults ---- */

/* Names of ports begin so: all of them, those of a VM, one card's. NULL after the call was answered. */
static char *prefix_of(struct api_call *call, const struct network *n, const char *ref,
                       const char *nic)
{
    struct vm *vm = ref ? call_vm(call, ref) : NULL;
    bool on = !nic;

    if (!ref) {
        return nic ? (api_fail(call, API_E_INVALID_PARAMS, "nic", "name its VM, too",
                               "a card without its VM"),
                      NULL)
                   : xstrdup("");
    }
    if (!vm) {
        return NULL;
    }
    for (size_t at = 0; network_card(n, vm, &at); at++) {
        on = on || strcmp(vm->config.nics[at].name, nic) == 0;
    }
    if (!on || strcmp(vm->config.project, n->project) != 0) {
        api_fail(call, API_E_NOT_FOUND, nic ? nic : ref,
                 "'vmctl network ports' lists the cards",
                 "VM '%s' has no such card on network '%s'", ref, n->config.name);
        return NULL;
    }
    return port_name(vm, nic ? nic : "");
}

static void put_faults(struct api_call *call, struct network *n, const char *prefix,
                       const struct api_net_faults *f, enum api_nic_direction way)
{
    struct asking *k = asking_new(call, n, n->config.name);
    struct json_object *both = json_object_new_object();

    if (way != API_NIC_DIRECTION_OUT) {
        api_json_set(both, "to_vm", api_encode(&api_type_net_faults, f));
    }
    if (way != API_NIC_DIRECTION_IN) {
        api_json_set(both, "from_vm", api_encode(&api_type_net_faults, f));
    }
    k->params = json_object_new_object();
    api_json_set_str(k->params, "prefix", prefix);
    api_json_set(k->params, "faults", both);
    ask(k, n, "faults", -1, on_changed);
}

void api_handle_fault_network(struct api_call *call, struct api_fault_network_in *in)
{
    struct network *n = call_network(call, in->network, API_ROLE_OPERATOR, true);
    AUTO_FREE char *prefix = n ? prefix_of(call, n, in->vm, in->nic) : NULL;
    struct api_net_faults f = { .loss = in->loss,
                                .duplicate = in->duplicate,
                                .reorder = in->reorder,
                                .corrupt = in->corrupt,
                                .delay_us = in->delay_us,
                                .jitter_us = in->jitter_us,
                                .rate = in->rate,
                                .cut = in->cut };

    if (prefix) {
        put_faults(call, n, prefix, &f, in->direction);
    }
}

void api_handle_fault_network_heal(struct api_call *call, struct api_fault_network_heal_in *in)
{
    struct network *n = call_network(call, in->network, API_ROLE_OPERATOR, true);
    AUTO_FREE char *prefix = n ? prefix_of(call, n, in->vm, in->nic) : NULL;
    struct api_net_faults none = { 0 };

    if (prefix) {
        put_faults(call, n, prefix, &none, API_NIC_DIRECTION_INOUT);
    }
}

static bool has_faults(struct json_object *f)
{
    static const char *const numbers[] = { "loss",     "duplicate", "reorder", "corrupt",
                                           "delay_us", "jitter_us", "rate" };
    bool has = api_json_get_bool(f, "cut", false);

    for (unsigned i = 0; i < ARRAY_LEN(numbers); i++) {
        has = has || api_json_get_int(f, numbers[i], 0) > 0;
    }
    return has;
}

static void add_faults(struct json_object *list, struct json_object *faults, const char *vm,
                       const char *nic)
{
    static const char *const ways[][2] = { { "to_vm", "in" }, { "from_vm", "out" } };

    for (unsigned i = 0; i < ARRAY_LEN(ways); i++) {
        struct json_object *f = api_json_get(faults, ways[i][0]), *o;

        if (!f || !has_faults(f)) {
            continue;
        }
        o = json_object_new_object();
        json_object_object_foreach(f, key, value)
        {
            api_json_set(o, key, json_object_get(value));
        }
        api_json_set_str(o, "direction", ways[i][1]);
        if (vm) {
            api_json_set_str(o, "vm", vm);
            api_json_set_str(o, "nic", nic);
        }
        json_object_array_add(list, o);
    }
}

static void on_faults(void *arg, struct json_object *result, const struct api_error *x)
{
    struct asking *k = arg;
    struct json_object *ports = x ? NULL : api_json_get(result, "ports"), *o, *list;

    if (x) {
        fail(k, x);
        return;
    }
    o = json_object_new_object();
    list = json_object_new_array();
    if (api_json_get(result, "faults")) {
        add_faults(list, api_json_get(result, "faults"), NULL, NULL);
    }
    for (size_t i = 0; ports && i < json_object_array_length(ports); i++) {
        struct json_object *p = json_object_array_get_idx(ports, i);
        const char *nic;
        struct vm *vm = port_vm(k->d, api_json_get_str(p, "port"), &nic);

        if (vm && api_json_get(p, "faults")) {
            add_faults(list, api_json_get(p, "faults"), vm->config.name, nic);
        }
    }
    api_json_set(o, "faults", list);
    api_reply_json(k->call, o);
    asking_free(k);
}

void api_handle_fault_network_list(struct api_call *call, struct api_fault_network_list_in *in)
{
    struct network *n = call_network(call, in->network, API_ROLE_VIEWER, true);

    if (n) {
        ask(asking_new(call, n, n->config.name), n, "status", -1, on_faults);
    }
}
