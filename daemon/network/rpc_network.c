/* SPDX-License-Identifier: Apache-2.0 */
/* Handlers of network.*, but for ports and faults (rpc_port.c). Loop thread. */
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "api-schema/rpc/call.h"
#include "daemon/auth/access.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/network/networks.h"
#include "daemon/registry.h"
#include "daemon/run/proc.h"
#include "daemon/store/store.h"
#include "daemon/xml/xml.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <string.h>

/* A call about a network that waits for its process or for the store. */
struct waiting {
    struct api_call *call;
    struct network *n;
    struct api_net_config config; /* the former one */
    char *project;
    bool is_new, autostart;
};

static void waiting_free(struct waiting *k)
{
    api_release(&api_type_net_config, &k->config);
    free(k->project);
    free(k);
}

/* The VM whose definition names the network; NULL: none does. */
static struct vm *user_of(const struct network *n)
{
    size_t count;
    struct vm **list = vm_list_all(n->d, &count), *found = NULL;

    for (size_t i = 0; i < count && !found; i++) {
        size_t at = 0;

        found = network_card(n, list[i], &at) ? list[i] : NULL;
    }
    free(list);
    return found;
}

/* ---- define, create, update, undefine ---- */

/* The network to be replaced in *old (NULL: it is new). */
static int check_define(struct vmd *d, const struct api_net_config *c, struct network **old,
                        struct api_error *x)
{
    *old = network_find(d, c->name);
    if (*old &&
        ((*old)->state != API_NETWORK_STATE_INACTIVE || (*old)->pending || (*old)->busy)) {
        return api_error_set(x, API_E_BAD_STATE, c->name,
                             "stop it ('vmctl network stop'), or use 'vmctl network update'",
                             "network '%s' is active", c->name);
    }
    if (*old && c->uuid && strcmp(c->uuid, (*old)->config.uuid) != 0) {
        return api_error_set(x, API_E_EXISTS, c->name, "choose another name",
                             "a network '%s' has the UUID %s", c->name, (*old)->config.uuid);
    }
    list_for_each (it, &d->networks->all) {
        struct network *n = list_entry(it, struct network, link);

        /* The first half of it names a folder. */
        if (n != *old && c->uuid && strncmp(n->config.uuid, c->uuid, 18) == 0) {
            return api_error_set(x, API_E_EXISTS, n->config.name, "give it another UUID",
                                 "network '%s' has this UUID", n->config.name);
        }
    }
    return !*old && d->networks->n >= NETWORKS_MAX
               ? api_error_set(x, API_E_OVERLOAD, c->name, "remove some",
                               "there are %d networks, more are not possible", NETWORKS_MAX)
               : 0;
}

static void swap_config(struct network *n, struct waiting *k)
{
    struct api_net_config config = n->config;
    char *project = n->project;
    bool autostart = n->autostart;

    n->config = k->config;
    n->project = k->project;
    n->autostart = k->autostart;
    k->config = config;
    k->project = project;
    k->autostart = autostart;
}

/* The definition in memory, as new as the call wants it; k knows how to undo that. */
static struct waiting *put_in(struct api_call *call, struct network *old,
                              struct api_net_config *take_config, const char *project,
                              bool autostart)
{
    struct vmd *d = call_daemon(call);
    struct waiting *k = xnew(struct waiting);

    if (!take_config->uuid) {
        take_config->uuid = old ? xstrdup(old->config.uuid) : xalloc(37);
        if (!old) {
            uuid_make(take_config->uuid);
        }
    }
    k->call = call;
    k->is_new = old == NULL;
    if (old) {
        k->config = *take_config;
        k->project = xstrdup(project);
        k->autostart = autostart;
        memset(take_config, 0, sizeof(*take_config));
        swap_config(old, k);
        k->n = old;
    } else {
        k->n = network_new(d, take_config, project);
        k->n->autostart = autostart;
        k->n->pending = true;
    }
    return k;
}

static void take_back(struct waiting *k)
{
    if (k->is_new) {
        network_drop(k->n);
    } else {
        swap_config(k->n, k);
    }
}

static void defined(void *arg, const struct err *e)
{
    struct waiting *k = arg;

    if (e) {
        take_back(k);
    } else {
        k->n->pending = false;
    }
    waiting_free(k);
}

void api_handle_network_define(struct api_call *call, struct api_network_define_in *in)
{
    struct vmd *d = call_daemon(call);
    struct api_error x = API_ERROR_INIT;
    struct network *old;
    struct waiting *k;
    struct change *c;

    if (network_check(in->config, in->subnet, &x) < 0 ||
        check_define(d, in->config, &old, &x) < 0) {
        api_reply_error(call, &x);
        return;
    }
    k = put_in(call, old, in->config, in->project, in->autostart);
    c = change_new(d);
    network_put(k->n, false, c);
    network_event(k->n, "defined", c);
    call_commit(d, call, c, k->n->config.name, network_info(k->n, true), defined, k);
}

static void fail_start(struct api_call *call, const struct network *n, const struct err *e)
{
    api_fail(call, e->code == -ESHUTDOWN ? API_E_CANCELLED : API_E_START_FAILED, n->config.name,
             e->code == -ESHUTDOWN ? "call again once vmd is back" : NULL, "network '%s': %s",
             n->config.name, e->msg);
}

static void created(void *arg, const struct err *e)
{
    struct waiting *k = arg;

    if (e) {
        k->n->wanted = false;
        network_end_process(k->n);
        take_back(k);
    } else {
        k->n->pending = false;
    }
    waiting_free(k);
}

static void create_started(void *arg, const struct err *e)
{
    struct waiting *k = arg;
    struct change *c;

    if (e) {
        fail_start(k->call, k->n, e);
        take_back(k);
        waiting_free(k);
        return;
    }
    k->n->wanted = true;
    c = change_new(k->n->d);
    network_put(k->n, true, c);
    network_event(k->n, "defined", c);
    network_event(k->n, "started", c);
    call_commit(k->n->d, k->call, c, k->n->config.name, network_info(k->n, true), created, k);
}

void api_handle_network_create(struct api_call *call, struct api_network_create_in *in)
{
    struct vmd *d = call_daemon(call);
    struct api_error x = API_ERROR_INIT;
    struct network *old;

    if (network_find(d, in->config->name)) {
        api_fail(call, API_E_EXISTS, in->config->name,
                 "start it: 'vmctl network start', or remove it first",
                 "there is a network '%s'", in->config->name);
        return;
    }
    if (network_check(in->config, in->subnet, &x) < 0 ||
        check_define(d, in->config, &old, &x) < 0) {
        api_reply_error(call, &x);
        return;
    }
    struct waiting *k = put_in(call, NULL, in->config, in->project, in->autostart);
    network_start_process(k->n, create_started, k);
}

static void on_hosts(void *arg, struct json_object *result, const struct api_error *x)
{
    struct network *n = arg;

    (void)result;
    n->stale = n->stale || x != NULL;
}

/* Does more than hosts and port groups differ? */
static bool differs(const struct network *n, const struct api_net_config *was)
{
    struct network former = *n;
    AUTO_JSON a = network_process_config(n);
    AUTO_JSON b = NULL;

    former.config = *was;
    b = network_process_config(&former);
    json_object_object_del(a, "hosts");
    json_object_object_del(b, "hosts");
    return !json_object_equal(a, b);
}

static void updated(void *arg, const struct err *e)
{
    struct waiting *k = arg;
    struct network *n = k->n;

    if (e) {
        take_back(k);
    } else if (n->pid) {
        struct json_object *in = json_object_new_object();

        api_json_set(in, "hosts", network_hosts(&n->config));
        network_ask(n, "hosts", in, -1, on_hosts, n);
    }
    waiting_free(k);
}

void api_handle_network_update(struct api_call *call, struct api_network_update_in *in)
{
    struct vmd *d = call_daemon(call);
    struct api_error x = API_ERROR_INIT;
    struct network *n = call_network(call, in->network, API_ROLE_ADMIN, false);
    struct waiting *k;
    struct change *c;

    if (!n) {
        return;
    }
    if (network_check(in->config, NULL, &x) < 0) {
        api_reply_error(call, &x);
        return;
    }
    if (strcmp(in->config->name, n->config.name) != 0 ||
        (in->config->uuid && strcmp(in->config->uuid, n->config.uuid) != 0) ||
        (n->state != API_NETWORK_STATE_INACTIVE &&
         (in->config->forward == API_NET_FORWARD_BRIDGE) !=
             (n->config.forward == API_NET_FORWARD_BRIDGE))) {
        api_fail(
            call, API_E_BAD_STATE, n->config.name, "define another network",
            "network '%s': its name and UUID stay, and an active one is a bridge or is not",
            n->config.name);
        return;
    }
    if (n->busy) {
        api_fail(call, API_E_BUSY, n->config.name, "call again",
                 "network '%s' is just being %s", n->config.name, n->busy);
        return;
    }
    k = put_in(call, n, in->config, n->project, n->autostart);
    n->stale = n->stale || (n->pid && differs(n, &k->config));
    c = change_new(d);
    network_put(n, n->wanted, c);
    network_event(n, "changed", c);
    call_commit(d, call, c, n->config.name, network_info(n, true), updated, k);
}

static void undefined(void *arg, const struct err *e)
{
    struct network *n = arg;

    n->pending = false;
    if (!e) {
        network_drop(n);
    }
}

void api_handle_network_undefine(struct api_call *call, struct api_network_undefine_in *in)
{
    struct vmd *d = call_daemon(call);
    struct network *n = call_network(call, in->network, API_ROLE_ADMIN, false);
    struct vm *vm = n ? user_of(n) : NULL;
    struct change *c;

    if (!n) {
        return;
    }
    if (n->state != API_NETWORK_STATE_INACTIVE || n->busy) {
        api_fail(call, API_E_BAD_STATE, n->config.name, "stop it: 'vmctl network stop'",
                 "network '%s' is active", n->config.name);
        return;
    }
    if (vm) {
        api_fail(call, API_E_BUSY, n->config.name, "take its cards from the VM first",
                 "VM '%s' has cards on network '%s'", vm->config.name, n->config.name);
        return;
    }
    c = change_new(d);
    store_tx_object_del(change_tx(c), "network", "", n->config.name);
    network_event(n, "undefined", c);
    n->pending = true;
    struct api_network_undefine_out out = { .name = n->config.name };
    call_commit(d, call, c, n->config.name, api_encode(&api_type_network_undefine_out, &out),
                undefined, n);
}

/* ---- looking ---- */

void api_handle_network_list(struct api_call *call, struct api_network_list_in *in)
{
    struct vmd *d = call_daemon(call);
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();

    (void)in;
    list_for_each (it, &d->networks->all) {
        struct network *n = list_entry(it, struct network, link);

        if (!n->pending && access_sees(call, n->project)) {
            json_object_array_add(list, network_info(n, false));
        }
    }
    api_json_set(o, "networks", list);
    api_reply_json(call, o);
}

void api_handle_network_get(struct api_call *call, struct api_network_get_in *in)
{
    struct network *n = call_network(call, in->network, API_ROLE_VIEWER, false);

    if (n) {
        api_reply_json(call, network_info(n, true));
    }
}

void api_handle_network_xml(struct api_call *call, struct api_network_xml_in *in)
{
    struct network *n = call_network(call, in->network, API_ROLE_VIEWER, false);

    if (n) {
        AUTO_JSON o = api_encode(&api_type_net_config, &n->config);
        AUTO_FREE char *text = xml_print(&xml_network, o);

        api_reply_network_xml(call, &(struct api_network_xml_out){ .xml = text });
    }
}

/* ---- start, stop ---- */

static void kept(void *arg, const struct err *e)
{
    struct network *n = arg;

    n->pending = false;
    if (e) {
        n->wanted = false;
        network_end_process(n);
    }
}

static void started(void *arg, const struct err *e)
{
    struct waiting *k = arg;
    struct network *n = k->n;

    if (e) {
        fail_start(k->call, n, e);
    } else {
        struct change *c = change_new(n->d);

        n->wanted = true;
        network_put(n, true, c);
        network_event(n, "started", c);
        call_commit(n->d, k->call, c, n->config.name, network_info(n, false), kept, n);
    }
    waiting_free(k);
}

void api_handle_network_start(struct api_call *call, struct api_network_start_in *in)
{
    struct network *n = call_network(call, in->network, API_ROLE_OWNER, false);
    struct waiting *k;

    if (!n) {
        return;
    }
    if (n->state != API_NETWORK_STATE_INACTIVE || n->busy) {
        api_fail(call, API_E_BAD_STATE, n->config.name, NULL, "network '%s' is %s",
                 n->config.name, n->busy ? "just being started or stopped" : "active");
        return;
    }
    k = xnew(struct waiting);
    *k = (struct waiting){ .call = call, .n = n };
    network_start_process(n, started, k);
}

static void stopped(void *arg, const struct err *e)
{
    struct network *n = arg;

    n->busy = NULL;
    if (!e) {
        network_end_process(n);
    } else {
        n->wanted = true;
    }
}

void api_handle_network_stop(struct api_call *call, struct api_network_stop_in *in)
{
    struct network *n = call_network(call, in->network, API_ROLE_OWNER, false);
    enum api_network_state was;
    struct json_object *info;
    struct change *c;

    if (!n) {
        return;
    }
    if (n->state == API_NETWORK_STATE_INACTIVE || n->busy) {
        api_fail(call, API_E_BAD_STATE, n->config.name,
                 n->busy ? "call again when that has ended" : NULL, "network '%s' is %s",
                 n->config.name, n->busy ? "just being started or stopped" : "not active");
        return;
    }
    c = change_new(n->d);
    n->busy = "stopped";
    n->wanted = false; /* a death from now on is what was asked for */
    network_put(n, false, c);
    network_event(n, "stopped", c);
    was = n->state;
    n->state = API_NETWORK_STATE_INACTIVE;
    info = network_info(n, false);
    json_object_object_del(info, "pid");
    n->state = was;
    call_commit(n->d, call, c, n->config.name, info, stopped, n);
}

static void was_set(void *arg, const struct err *e)
{
    struct network *n = arg;

    if (e) {
        n->autostart = !n->autostart;
    }
}

void api_handle_network_set(struct api_call *call, struct api_network_set_in *in)
{
    struct network *n = call_network(call, in->network, API_ROLE_OWNER, false);
    bool on = in->autostart == API_SWITCH_ON, changed;
    struct change *c;

    if (!n) {
        return;
    }
    c = change_new(n->d);
    changed = n->autostart != on;
    n->autostart = on;
    network_put(n, n->wanted, c);
    network_event(n, "changed", c);
    call_commit(n->d, call, c, n->config.name, network_info(n, false), changed ? was_set : NULL,
                n);
}
