/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of domains, networks and pools, by the flags that tools filter with. */
#include "daemon/auth/access.h"
#include "daemon/daemon.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/procs.h"
#include "daemon/libvirt/session.h"
#include "daemon/libvirt/xdr.h"
#include "daemon/registry.h"
#include "daemon/vm/checkpoint.h"
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

static bool state_passes(int64_t flags, enum api_vm_state state)
{
    int64_t is = state == API_VM_STATE_RUNNING  ? RUNNING
                 : state == API_VM_STATE_PAUSED ? PAUSED
                 : !lv_active(state)            ? SHUTOFF
                                                : OTHER;

    return !(flags & STATES) || (flags & is);
}

static bool domain_passes(const struct vm *vm, int64_t flags)
{
    return passes(flags, ACTIVE, INACTIVE, lv_active(vm->state)) &&
           passes(flags, TRANSIENT, PERSISTENT, vm->transient) &&
           passes(flags, SAVED, NOT_SAVED, vm->saved) &&
           passes(flags, AUTOSTART, NO_AUTOSTART, vm->config.autostart != NULL) &&
           passes(flags, HAS_SNAPSHOT, NO_SNAPSHOT, snapshots_any(vm)) &&
           passes(flags, HAS_CHECKPOINT, NO_CHECKPOINT, checkpoints_any(vm)) &&
           state_passes(flags, vm->state);
}

struct vm **lv_domains(struct lv_call *c, int64_t flags, size_t *n)
{
    struct vm **list = vm_list(c->d, n);
    size_t kept = 0;

    for (size_t i = 0; i < *n; i++) {
        if (access_peer_sees(c->d, &c->q->s->peer, list[i]->config.project) &&
            domain_passes(list[i], flags)) {
            list[kept++] = list[i];
        }
    }
    *n = kept;
    return list;
}

void lv_put_domain(struct buf *out, const struct vm *vm)
{
    lv_put_text(out, vm->config.name);
    lv_put_uuid(out, vm->config.uuid);
    lv_put_word(out, (uint32_t)lv_id(vm));
}

void lv_do_list_domains(struct lv_call *c)
{
    size_t n;
    struct vm **list = lv_domains(c, lv_int(c, "flags"), &n);
    AUTO_BUF out = BUF_INIT;

    lv_put_word(&out, lv_int(c, "need_results") ? (uint32_t)n : 0);
    for (size_t i = 0; i < n && lv_int(c, "need_results"); i++) {
        lv_put_domain(&out, list[i]);
    }
    lv_put_word(&out, (uint32_t)n);
    free(list);
    lv_reply_raw(c, &out);
}

/* The old calls: so many at most. */
void lv_do_list_domain_ids(struct lv_call *c)
{
    size_t n;
    struct vm **list = lv_domains(c, ACTIVE, &n);
    AUTO_BUF out = BUF_INIT;

    n = (int64_t)n < lv_int(c, "maxids") ? n : (size_t)lv_int(c, "maxids");
    lv_put_word(&out, (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        lv_put_word(&out, (uint32_t)list[i]->id);
    }
    free(list);
    lv_reply_raw(c, &out);
}

void lv_do_list_defined_domains(struct lv_call *c)
{
    size_t n;
    struct vm **list = lv_domains(c, INACTIVE, &n);
    AUTO_BUF out = BUF_INIT;

    n = (int64_t)n < lv_int(c, "maxnames") ? n : (size_t)lv_int(c, "maxnames");
    lv_put_word(&out, (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        lv_put_text(&out, list[i]->config.name);
    }
    free(list);
    lv_reply_raw(c, &out);
}

static void reply_count(struct lv_call *c, int64_t flags)
{
    struct json_object *o = json_object_new_object();
    size_t n;

    free(lv_domains(c, flags, &n));
    api_json_set_int(o, "num", (int64_t)n);
    lv_reply(c, o);
}

void lv_do_num_of_domains(struct lv_call *c)
{
    reply_count(c, ACTIVE);
}

void lv_do_num_of_defined_domains(struct lv_call *c)
{
    reply_count(c, INACTIVE);
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
