/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of domains, networks and pools, by the flags that tools filter with. */
#include "daemon/daemon.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/procs.h"
#include "daemon/registry.h"
#include "daemon/vm/snapshot.h"

#include <string.h>

/* A pair of flags: what passes only with one, what only with the other; both or none lets all pass. */
static bool passes(int64_t flags, int64_t yes, int64_t no, bool is)
{
    return !(flags & (yes | no)) || (flags & (is ? yes : no));
}

/* --- domains ---------------------------------------------------------------------------------------- */

enum {
    ACTIVE = 1,
    INACTIVE = 2,
    PERSISTENT = 4,
    TRANSIENT = 8,
    RUNNING = 16,
    PAUSED = 32,
    SHUTOFF = 64,
    OTHER = 128,
    SAVED = 256,
    NOT_SAVED = 512,
    AUTOSTART = 1024,
    NO_AUTOSTART = 2048,
    HAS_SNAPSHOT = 4096,
    NO_SNAPSHOT = 8192,
    HAS_CHECKPOINT = 16384,
    NO_CHECKPOINT = 32768,
    STATES = RUNNING | PAUSED | SHUTOFF | OTHER,
};

static bool state_passes(int64_t flags, const char *state)
{
    int64_t is = strcmp(state, "running") == 0  ? RUNNING
                 : strcmp(state, "paused") == 0 ? PAUSED
                 : !lv_active(state)            ? SHUTOFF
                                                : OTHER;

    return !(flags & STATES) || (flags & is);
}

static bool domain_passes(struct vmd *d, struct json_object *info, int64_t flags)
{
    const char *state = api_json_get_str(info, "state");
    const struct vm *vm = vm_find(d, api_json_get_str(info, "uuid"), false);

    return passes(flags, ACTIVE, INACTIVE, lv_active(state)) &&
           passes(flags, TRANSIENT, PERSISTENT, api_json_get_bool(info, "transient", false)) &&
           passes(flags, SAVED, NOT_SAVED, api_json_get_bool(info, "saved", false)) &&
           passes(flags, AUTOSTART, NO_AUTOSTART, vm && vm->config.autostart) &&
           passes(flags, HAS_SNAPSHOT, NO_SNAPSHOT, vm && snapshots_any(vm)) &&
           passes(flags, HAS_CHECKPOINT, NO_CHECKPOINT, false) && state_passes(flags, state);
}

static struct json_object *filtered(struct lv_call *c, struct json_object *result,
                                    int64_t flags)
{
    struct json_object *vms = api_json_get(result, "vms"), *out = json_object_new_array();

    for (size_t i = 0; i < json_object_array_length(vms); i++) {
        struct json_object *info = json_object_array_get_idx(vms, i);
        if (domain_passes(c->d, info, flags)) {
            json_object_array_add(out, lv_domain_of(c->d, info));
        }
    }
    return out;
}

static void on_domains(struct lv_call *c, struct json_object *result)
{
    struct json_object *o = json_object_new_object(),
                       *list = filtered(c, result, lv_int(c, "flags"));

    api_json_set_int(o, "ret", (int64_t)json_object_array_length(list));
    if (lv_int(c, "need_results")) {
        api_json_set(o, "domains", list);
    } else {
        json_object_put(list);
    }
    lv_reply(c, o);
}

void lv_do_list_domains(struct lv_call *c)
{
    lv_ask(c, NULL, "vm.list", NULL, on_domains);
}

/* The old calls: a member of each, at most so many. */
static struct json_object *column(struct json_object *take_list, const char *member,
                                  int64_t max)
{
    struct json_object *out = json_object_new_array();

    for (size_t i = 0; i < json_object_array_length(take_list) && (int64_t)i < max; i++) {
        struct json_object *one = json_object_array_get_idx(take_list, i);
        json_object_array_add(out, json_object_get(api_json_get(one, member)));
    }
    json_object_put(take_list);
    return out;
}

static void on_ids(struct lv_call *c, struct json_object *result)
{
    struct json_object *o = json_object_new_object();

    api_json_set(o, "ids", column(filtered(c, result, ACTIVE), "id", lv_int(c, "maxids")));
    lv_reply(c, o);
}

void lv_do_list_domain_ids(struct lv_call *c)
{
    lv_ask(c, NULL, "vm.list", NULL, on_ids);
}

static void on_names(struct lv_call *c, struct json_object *result)
{
    struct json_object *o = json_object_new_object();

    api_json_set(o, "names",
                 column(filtered(c, result, INACTIVE), "name", lv_int(c, "maxnames")));
    lv_reply(c, o);
}

void lv_do_list_defined_domains(struct lv_call *c)
{
    lv_ask(c, NULL, "vm.list", NULL, on_names);
}

static void reply_count(struct lv_call *c, struct json_object *take_list)
{
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "num", (int64_t)json_object_array_length(take_list));
    json_object_put(take_list);
    lv_reply(c, o);
}

static void on_count(struct lv_call *c, struct json_object *result)
{
    reply_count(c, filtered(c, result, ACTIVE));
}

static void on_count_defined(struct lv_call *c, struct json_object *result)
{
    reply_count(c, filtered(c, result, INACTIVE));
}

void lv_do_num_of_domains(struct lv_call *c)
{
    lv_ask(c, NULL, "vm.list", NULL, on_count);
}

void lv_do_num_of_defined_domains(struct lv_call *c)
{
    lv_ask(c, NULL, "vm.list", NULL, on_count_defined);
}

/* --- networks, pools ------------------------------------------------------------------------------------ */

/* Both have the same flags for these. */
enum { OFF = 1, ON = 2, KEPT = 4, PASSING = 8, STARTS = 16, STARTS_NOT = 32 };

static void reply_objects(struct lv_call *c, struct json_object *from, const char *member)
{
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();
    int64_t flags = lv_int(c, "flags");

    for (size_t i = 0; from && i < json_object_array_length(from); i++) {
        struct json_object *info = json_object_array_get_idx(from, i), *one;
        bool active = strcmp(api_json_get_str(info, "state"), "active") == 0;
        if (!passes(flags, ON, OFF, active) || !passes(flags, PASSING, KEPT, false) ||
            !passes(flags, STARTS, STARTS_NOT, api_json_get_bool(info, "autostart", false))) {
            continue;
        }
        one = lv_object("name", api_json_get_str(info, "name"));
        api_json_set_str(one, "uuid", api_json_get_str(info, "uuid"));
        json_object_array_add(list, one);
    }
    api_json_set_int(o, "ret", (int64_t)json_object_array_length(list));
    if (lv_int(c, "need_results")) {
        api_json_set(o, member, list);
    } else {
        json_object_put(list);
    }
    lv_reply(c, o);
}

static void on_networks(struct lv_call *c, struct json_object *result)
{
    reply_objects(c, api_json_get(result, "networks"), "nets");
}

void lv_do_list_networks(struct lv_call *c)
{
    lv_ask(c, NULL, "network.list", NULL, on_networks);
}

static void on_pools(struct lv_call *c, struct json_object *result)
{
    reply_objects(c, api_json_get(result, "pools"), "pools");
}

void lv_do_list_pools(struct lv_call *c)
{
    lv_ask(c, NULL, "pool.list", NULL, on_pools);
}
