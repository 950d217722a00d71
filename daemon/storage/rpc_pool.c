/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of pool.*. Loop thread.
 */
#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "api-schema/net/nbdaddr.h"
#include "daemon/auth/access.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/registry.h"
#include "daemon/store/store.h"
#include "daemon/storage/pools.h"
#include "daemon/xml/xml.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <string.h>

enum { GROUP_MAX = 100 };

/* A call about a pool that waits for its folder or for the store. */
struct waiting {
    struct api_call *call;
    struct pool *p;
    struct api_pool_config config; /* the former one, or the one to be */
    char *project;
    bool flag;
};

static void waiting_free(struct waiting *k)
{
    api_release(&api_type_pool_config, &k->config);
    free(k->project);
    free(k);
}

/* The VM whose definition names the pool; NULL: none does. */
static struct vm *user_of(const struct pool *p)
{
    size_t n;
    struct vm **list = vm_list_all(p->d, &n), *found = NULL;
    for (size_t i = 0; i < n && !found; i++) {
        for (size_t k = 0; k < list[i]->config.n_disks && !found; k++) {
            const char *pool = list[i]->config.disks[k].pool;
            found = pool && strcmp(pool, p->config.name) == 0 ? list[i] : NULL;
        }
    }
    free(list);
    return found;
}

/* ---- define, undefine ---- */

static int only_of(struct api_error *x, const char *member, const char *kind)
{
    return api_error_set(x, API_E_INVALID_PARAMS, member, "leave it out",
                         "'%s' belongs to storage pools of kind %s", member, kind);
}

static int check_nbd(const struct api_pool_config *c, struct api_error *x)
{
    struct err e = ERR_INIT;
    AUTO_FREE char *where = pool_where(c, &e);
    struct nbd_addr a;
    if (c->path || c->n_devices || c->host || c->dir || c->source_name || c->format ||
        c->has_mode || c->has_owner || c->has_group) {
        return api_error_set(x, API_E_INVALID_PARAMS, "config", "give type and uri alone",
                             "storage pool '%s' of kind nbd has an address and nothing else",
                             c->name);
    }
    if (where && nbd_addr_parse(c->uri, &a, &e) == 0 && a.tls) {
        return api_error_set(x, API_E_UNSUPPORTED, "config.uri",
                             "name the exports by 'file' in the definitions of VMs, or use nbd",
                             "storage pool '%s': servers that want TLS are not listed",
                             c->name);
    }
    if (!where || nbd_addr_parse(c->uri, &a, &e) < 0 || a.export[0]) {
        return api_error_set(x, API_E_INVALID_PARAMS, "config.uri",
                             "nbd://HOST[:PORT] or nbd+unix:///?socket=PATH", "%s",
                             !c->uri ? "a storage pool of kind nbd needs the server's address"
                             : where ? "the address of a pool names no export"
                                     : e.msg);
    }
    return 0;
}

/* path stands where fill_logical() has put it. */
static int check_logical(const struct api_pool_config *c, struct api_error *x)
{
    const char *group = c->source_name;
    if (!str_is_name(group) || strlen(group) > GROUP_MAX) {
        return api_error_set(x, API_E_INVALID_PARAMS, "config.source_name",
                             "a letter or digit, then letters, digits and . _ + -",
                             "'%s' is no name of a volume group", group);
    }
    if (strncmp(c->path, "/dev/", 5) != 0 || strcmp(c->path + 5, group) != 0) {
        return api_error_set(x, API_E_INVALID_PARAMS, "config.path", "leave it out",
                             "the volumes of volume group '%s' are in /dev/%s, not in '%s'",
                             group, group, c->path);
    }
    if (c->format && strcmp(c->format, "lvm2") != 0 && strcmp(c->format, "auto") != 0) {
        return api_error_set(x, API_E_UNSUPPORTED, "config.format", "use lvm2, or leave it out",
                             "volume groups of format '%s' are not supported", c->format);
    }
    if (c->uri || c->host || c->dir || c->has_mode || c->has_owner || c->has_group) {
        return api_error_set(x, API_E_INVALID_PARAMS, "config",
                             "give type, source_name and devices alone",
                             "storage pool '%s' of kind logical is a volume group and nothing "
                             "else",
                             c->name);
    }
    for (size_t i = 0; i < c->n_devices; i++) {
        if (strncmp(c->devices[i].path, "/dev/", 5) != 0 ||
            strstr(c->devices[i].path, "/../")) {
            return api_error_set(x, API_E_INVALID_PARAMS, "config.devices", "name them in /dev",
                                 "'%s' is no device", c->devices[i].path);
        }
    }
    return 0;
}

/* The group is named as the pool when it is not named, as libvirt has it; its volumes are where lvm puts them. */
static void fill_logical(struct api_pool_config *c)
{
    if (c->type != API_POOL_TYPE_LOGICAL) {
        return;
    }
    if (!c->source_name) {
        c->source_name = xstrdup(c->name);
    }
    if (!c->path) {
        c->path = xasprintf("/dev/%s", c->source_name);
    }
}

static int check_folder(const struct api_pool_config *c, struct api_error *x)
{
    size_t n = c->path ? strlen(c->path) : 0;
    if (c->uri) {
        return only_of(x, "uri", "nbd");
    }
    if (c->n_devices || c->host || c->dir || c->source_name) {
        return api_error_set(x, API_E_UNSUPPORTED, "config.devices",
                             "mount it, and define the pool with its path alone",
                             "vmd mounts nothing for storage pool '%s'", c->name);
    }
    if (n < 2 || c->path[n - 1] == '/' || strstr(c->path, "//") || strstr(c->path, "/./") ||
        strstr(c->path, "/../")) {
        return api_error_set(x, API_E_INVALID_PARAMS, "config.path",
                             "an absolute path, without . and .. and a slash at its end",
                             "'%s' is no folder for storage pool '%s'", c->path ? c->path : "",
                             c->name);
    }
    return 0;
}

static int check_config(const struct api_pool_config *c, struct api_error *x)
{
    if (!str_is_name(c->name)) {
        return api_error_set(x, API_E_INVALID_PARAMS, "config.name",
                             "a letter or digit, then letters, digits and . _ + -",
                             "'%s' is no name of a storage pool", c->name);
    }
    if (!pool_kind_of(c->type)) {
        return api_error_set(x, API_E_UNSUPPORTED, "config.type",
                             "mount or make it by its own tools, and define a pool of kind dir",
                             "storage pools of kind %s are not supported",
                             api_pool_type_name(c->type));
    }
    if (c->label) {
        return api_error_set(x, API_E_UNSUPPORTED, "config.label", "leave it out",
                             "security labels are not supported");
    }
    return c->type == API_POOL_TYPE_NBD       ? check_nbd(c, x)
           : c->type == API_POOL_TYPE_LOGICAL ? check_logical(c, x)
                                              : check_folder(c, x);
}
/* The pool to be replaced in *old (NULL: it is new). */
static int check_define(struct vmd *d, const struct api_pool_config *c, struct pool **old,
                        struct api_error *x)
{
    *old = pool_find(d, c->name);
    if (check_config(c, x) < 0) {
        return -1;
    }
    if (*old && ((*old)->state != API_POOL_STATE_INACTIVE || (*old)->pending)) {
        return api_error_set(x, API_E_BAD_STATE, c->name, "stop it: 'vmctl pool stop'",
                             "storage pool '%s' is active", c->name);
    }
    if (*old && c->uuid && strcmp(c->uuid, (*old)->config.uuid) != 0) {
        return api_error_set(x, API_E_EXISTS, c->name, "choose another name",
                             "a storage pool '%s' has the UUID %s", c->name,
                             (*old)->config.uuid);
    }
    AUTO_FREE char *where = pool_where(c, NULL);
    struct vm *vm = *old && strcmp(where, (*old)->where) != 0 ? user_of(*old) : NULL;
    if (vm) {
        return api_error_set(x, API_E_BUSY, c->name, "take its disks from the VM first",
                             "VM '%s' has disks in storage pool '%s'", vm->config.name,
                             c->name);
    }
    list_for_each (n, &d->pools->all) {
        struct pool *p = list_entry(n, struct pool, link);
        bool same = strcmp(p->where, where) == 0 ||
                    (c->uuid && strcmp(p->config.uuid, c->uuid) == 0);
        if (p != *old && same) {
            return api_error_set(x, API_E_EXISTS, p->config.name, "use that pool",
                                 "storage pool '%s' has this place or UUID", p->config.name);
        }
    }
    return !*old && d->pools->n >= POOLS_MAX
               ? api_error_set(x, API_E_OVERLOAD, c->name, "undefine some",
                               "there are %d storage pools, more are not possible", POOLS_MAX)
               : 0;
}

static void defined(void *arg, const struct err *e)
{
    struct waiting *k = arg;
    struct pool *p = k->p;
    if (e && k->flag) {
        pool_drop(p);
    } else if (e) { /* as it was */
        struct api_pool_config new = p->config;
        char *project = p->project;
        p->config = k->config;
        p->project = k->project;
        pool_settle(p);
        k->config = new;
        k->project = project;
    } else {
        p->pending = false;
    }
    waiting_free(k);
}

void api_handle_pool_define(struct api_call *call, struct api_pool_define_in *in)
{
    struct vmd *d = call_daemon(call);
    struct api_error x = API_ERROR_INIT;
    struct pool *old;
    fill_logical(in->config);
    if (check_define(d, in->config, &old, &x) < 0) {
        api_reply_error(call, &x);
        return;
    }
    struct waiting *k = xnew(struct waiting);
    if (!in->config->uuid) {
        in->config->uuid = old ? xstrdup(old->config.uuid) : xalloc(37);
        if (!old) {
            uuid_make(in->config->uuid);
        }
    }
    k->flag = old == NULL;
    if (old) {
        k->config = old->config;
        k->project = old->project;
        old->config = *in->config;
        old->project = xstrdup(in->project);
        memset(in->config, 0, sizeof(*in->config));
        pool_settle(old);
    }
    k->p = old ? old : pool_new(d, in->config, in->project);
    k->p->pending = k->flag;
    k->p->autostart = in->autostart;
    struct change *c = change_new(d);
    pool_put(k->p, false, c);
    pool_event(k->p, "defined", c);
    call_commit(d, call, c, k->p->config.name, pool_info(k->p, true), defined, k);
}

static void undefined(void *arg, const struct err *e)
{
    struct pool *p = arg;
    p->pending = false;
    if (!e) {
        pool_drop(p);
    }
}

void api_handle_pool_undefine(struct api_call *call, struct api_pool_undefine_in *in)
{
    struct vmd *d = call_daemon(call);
    struct pool *p = call_pool(call, in->pool, API_ROLE_ADMIN, false, NULL, NULL);
    struct vm *vm = p ? user_of(p) : NULL;
    if (!p) {
        return;
    }
    if (p->state != API_POOL_STATE_INACTIVE) {
        api_fail(call, API_E_BAD_STATE, p->config.name, "stop it: 'vmctl pool stop'",
                 "storage pool '%s' is active", p->config.name);
        return;
    }
    if (vm) {
        api_fail(call, API_E_BUSY, p->config.name, "take its disks from the VM first",
                 "VM '%s' has disks in storage pool '%s'", vm->config.name, p->config.name);
        return;
    }
    struct change *c = change_new(d);
    store_tx_object_del(change_tx(c), "pool", "", p->config.name);
    list_for_each (n, &p->volumes) {
        volume_del(list_entry(n, struct volume, link), c);
    }
    pool_event(p, "undefined", c);
    p->pending = true;
    struct api_pool_undefine_out out = { .name = p->config.name };
    call_commit(d, call, c, p->config.name, api_encode(&api_type_pool_undefine_out, &out),
                undefined, p);
}

/* ---- looking ---- */

void api_handle_pool_list(struct api_call *call, struct api_pool_list_in *in)
{
    struct vmd *d = call_daemon(call);
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();
    (void)in;
    list_for_each (n, &d->pools->all) {
        struct pool *p = list_entry(n, struct pool, link);
        if (!p->pending && access_sees(call, p->project)) {
            json_object_array_add(list, pool_info(p, false));
        }
    }
    api_json_set(o, "pools", list);
    api_reply_json(call, o);
}

void api_handle_pool_get(struct api_call *call, struct api_pool_get_in *in)
{
    struct pool *p = call_pool(call, in->pool, API_ROLE_VIEWER, false, NULL, NULL);
    if (p) {
        api_reply_json(call, pool_info(p, true));
    }
}

void api_handle_pool_xml(struct api_call *call, struct api_pool_xml_in *in)
{
    struct pool *p = call_pool(call, in->pool, API_ROLE_VIEWER, false, NULL, NULL);
    if (p && p->config.type == API_POOL_TYPE_NBD) {
        api_fail(call, API_E_UNSUPPORTED, p->config.name, "'vmctl pool show' shows it as JSON",
                 "libvirt's XML knows no storage pools of kind nbd, as '%s' is",
                 p->config.name);
    } else if (p) {
        AUTO_JSON o = api_encode(&api_type_pool_config, &p->config);
        AUTO_FREE char *text = xml_print(&xml_pool, o);
        api_reply_pool_xml(call, &(struct api_pool_xml_out){ .xml = text });
    }
}

/* ---- start, stop, refresh ---- */

static void fail_folder(struct api_call *call, struct pool *p, const struct err *e)
{
    int code = e->code == -EBUSY       ? API_E_BUSY
               : e->code == -ESHUTDOWN ? API_E_CANCELLED
                                       : API_E_FILE_ERROR;
    api_fail(call, code, p->config.name,
             e->code == -ENOENT  ? "make it, or start the pool with --build"
             : e->code == -EBUSY ? "stop what uses it first"
                                 : "see what the pool stands for",
             "storage pool '%s': %s", p->config.name, e->msg);
}

static void overloaded(struct api_call *call, struct pool *p)
{
    api_fail(call, API_E_OVERLOAD, p->config.name, "call again later",
             "too much work on storage pools is under way");
}

static void kept(void *arg, const struct err *e)
{
    struct pool *p = arg;
    if (e) {
        pool_close(p);
    }
}

static void opened(void *arg, const struct err *e)
{
    struct waiting *k = arg;
    struct pool *p = k->p;
    if (e) {
        fail_folder(k->call, p, e);
    } else {
        struct change *c = change_new(p->d);
        pool_put(p, true, c);
        pool_event(p, "started", c);
        call_commit(p->d, k->call, c, p->config.name, pool_info(p, false), kept, p);
    }
    waiting_free(k);
}

static void again_start(struct api_call *call, void *in)
{
    api_handle_pool_start(call, in);
}

void api_handle_pool_start(struct api_call *call, struct api_pool_start_in *in)
{
    struct pool *p = call_pool(call, in->pool, API_ROLE_OWNER, false, again_start, in);
    if (!p) {
        return;
    }
    if (p->state != API_POOL_STATE_INACTIVE) {
        api_fail(call, API_E_BAD_STATE, p->config.name, NULL, "storage pool '%s' is active",
                 p->config.name);
        return;
    }
    struct waiting *k = xnew(struct waiting);
    *k = (struct waiting){ .call = call, .p = p };
    if (!pool_open(p, in->build, opened, k)) {
        waiting_free(k);
        overloaded(call, p);
    }
}

/* It was opened, which makes its folder, and is not wanted open. */
static void built(void *arg, const struct err *e)
{
    struct waiting *k = arg;
    struct pool *p = k->p;
    if (e) {
        fail_folder(k->call, p, e);
    } else {
        pool_close(p);
        call_finish(p->d, k->call, p->config.name, pool_info(p, false));
    }
    waiting_free(k);
}

static void again_build(struct api_call *call, void *in)
{
    api_handle_pool_build(call, in);
}

void api_handle_pool_build(struct api_call *call, struct api_pool_build_in *in)
{
    struct pool *p = call_pool(call, in->pool, API_ROLE_OWNER, false, again_build, in);
    if (!p) {
        return;
    }
    if (p->state != API_POOL_STATE_INACTIVE) {
        api_fail(call, API_E_BAD_STATE, p->config.name, NULL,
                 "storage pool '%s' is active: it is there", p->config.name);
        return;
    }
    if (p->folder.kind->readonly) {
        api_fail(call, API_E_UNSUPPORTED, p->config.name, p->folder.kind->remedy,
                 "storage pool '%s': %s", p->config.name, p->folder.kind->readonly);
        return;
    }
    struct waiting *k = xnew(struct waiting);
    *k = (struct waiting){ .call = call, .p = p };
    if (!pool_open(p, true, built, k)) {
        waiting_free(k);
        overloaded(call, p);
    }
}

static void stopped(void *arg, const struct err *e)
{
    struct pool *p = arg;
    p->busy = NULL;
    if (!e) {
        pool_close(p);
    }
}

static void commit_stop(struct api_call *call, struct pool *p)
{
    struct change *c = change_new(p->d);
    p->busy = "stopped";
    pool_put(p, false, c);
    pool_event(p, "stopped", c);
    enum api_pool_state was = p->state;
    p->state = API_POOL_STATE_INACTIVE;
    struct json_object *info = pool_info(p, false);
    p->state = was;
    call_commit(p->d, call, c, p->config.name, info, stopped, p);
}

static void shut(void *arg, const struct err *e)
{
    struct waiting *k = arg;
    if (e) {
        fail_folder(k->call, k->p, e);
    } else {
        commit_stop(k->call, k->p);
    }
    waiting_free(k);
}

static bool is_busy(struct api_call *call, const struct pool *p)
{
    const char *what = p->busy, *name = p->config.name;
    list_for_each (n, &p->volumes) {
        struct volume *v = list_entry(n, struct volume, link);
        if (!what && v->busy) {
            what = v->busy;
            name = v->name;
        }
    }
    if (what) {
        api_fail(call, API_E_BUSY, name, "call again when that has ended",
                 "'%s' is just being %s", name, what);
    }
    return what != NULL;
}

static void again_stop(struct api_call *call, void *in)
{
    api_handle_pool_stop(call, in);
}

void api_handle_pool_stop(struct api_call *call, struct api_pool_stop_in *in)
{
    struct pool *p = call_pool(call, in->pool, API_ROLE_OWNER, true, again_stop, in);
    if (!p || is_busy(call, p)) {
        return;
    }
    if (!p->folder.kind->shut) {
        commit_stop(call, p);
        return;
    }
    struct waiting *k = xnew(struct waiting);
    *k = (struct waiting){ .call = call, .p = p };
    if (!pool_shut(p, shut, k)) {
        waiting_free(k);
        overloaded(call, p);
    }
}

static void looked(void *arg, const struct err *e)
{
    struct waiting *k = arg;
    struct pool *p = k->p;
    if (e) {
        fail_folder(k->call, p, e);
    } else {
        struct change *c = change_new(p->d);
        pool_event(p, "refreshed", c);
        call_commit(p->d, k->call, c, p->config.name, pool_info(p, false), NULL, NULL);
    }
    waiting_free(k);
}

static void again_refresh(struct api_call *call, void *in)
{
    api_handle_pool_refresh(call, in);
}

void api_handle_pool_refresh(struct api_call *call, struct api_pool_refresh_in *in)
{
    struct pool *p = call_pool(call, in->pool, API_ROLE_OPERATOR, true, again_refresh, in);
    if (!p) {
        return;
    }
    if (p->busy) {
        api_fail(call, API_E_BUSY, p->config.name, "call again when that has ended",
                 "storage pool '%s' is just being %s", p->config.name, p->busy);
        return;
    }
    struct waiting *k = xnew(struct waiting);
    *k = (struct waiting){ .call = call, .p = p };
    if (!pool_look(p, looked, k)) {
        waiting_free(k);
        overloaded(call, p);
    }
}

static void was_set(void *arg, const struct err *e)
{
    struct pool *p = arg;
    if (e) {
        p->autostart = !p->autostart;
    }
}

void api_handle_pool_set(struct api_call *call, struct api_pool_set_in *in)
{
    struct pool *p = call_pool(call, in->pool, API_ROLE_OWNER, false, NULL, NULL);
    bool on = in->autostart == API_SWITCH_ON;
    if (!p) {
        return;
    }
    struct change *c = change_new(p->d);
    bool changed = p->autostart != on;
    p->autostart = on;
    pool_put(p, p->state != API_POOL_STATE_INACTIVE, c);
    pool_event(p, "changed", c);
    call_commit(p->d, call, c, p->config.name, pool_info(p, false), changed ? was_set : NULL,
                p);
}
