/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots of domains. */
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/jobs.h"
#include "daemon/libvirt/parts.h"
#include "daemon/libvirt/procs.h"

#include <string.h>

static const char *snap_name(const struct lv_call *c)
{
    return api_json_get_str(api_json_get(c->args, "snap"), "name");
}

static struct json_object *which(const struct lv_call *c)
{
    struct json_object *params = lv_vm(c);

    api_json_set_str(params, "name", snap_name(c));
    return params;
}

/* {name, dom} of a snapshot of the call's domain; the caller's. */
static struct json_object *handle(const struct lv_call *c, const char *name)
{
    struct json_object *dom = api_json_get(c->args, "dom"), *o = lv_object("name", name);

    if (!dom) {
        dom = api_json_get(api_json_get(c->args, "snap"), "dom");
    }
    api_json_set(o, "dom", json_object_get(dom));
    return o;
}

static void reply_snapshot(struct lv_call *c, const char *name)
{
    struct json_object *o = json_object_new_object();

    api_json_set(o, "snap", handle(c, name));
    lv_reply(c, o);
}

/* --- taking ----------------------------------------------------------------------------------------- */

enum {
    /* virDomainSnapshotCreateFlags */
    REDEFINE = 1,
    HALT = 8,
    DISK_ONLY = 16,
    REUSE_EXTERNAL = 32,
    QUIESCE = 64,
    /* virDomainSnapshotDeleteFlags */
    CHILDREN = 1,
    METADATA_ONLY = 2,
    CHILDREN_ONLY = 4,
    /* virDomainSnapshotRevertFlags */
    REVERT_RUNNING = 1,
};

static void on_made(struct lv_call *c, struct json_object *job)
{
    reply_snapshot(c, api_json_get_str(api_json_get(job, "result"), "name"));
}

static void on_begun(struct lv_call *c, struct json_object *result)
{
    lv_wait(c, result, on_made);
}

void lv_do_snapshot_create(struct lv_call *c)
{
    static const char *const taken[] = { "name", "description", "memory", "memory_file",
                                         "disks" };
    struct json_object *config, *params, *v;
    int64_t flags = lv_int(c, "flags");

    if (flags & (REDEFINE | HALT | REUSE_EXTERNAL)) {
        lv_fail(
            c, LV_E_ARGUMENT_UNSUPPORTED,
            "snapshots are not redefined, do not halt their domain and lie inside its images");
        return;
    }
    config = lv_read_xml(c, &xml_snapshot, lv_str(c, "xml_desc"));
    if (!config) {
        return;
    }
    params = lv_vm(c);
    for (unsigned i = 0; i < ARRAY_LEN(taken); i++) {
        v = api_json_get(config, taken[i]);
        if (v) {
            api_json_set(params, taken[i], json_object_get(v));
        }
    }
    json_object_put(config);
    if (flags & DISK_ONLY) {
        api_json_set_str(params, "memory", "no");
    }
    api_json_set_bool(params, "quiesce", flags & QUIESCE);
    lv_ask(c, "domain", "snapshot.create", params, on_begun);
}

/* --- finding ---------------------------------------------------------------------------------------- */

static void on_listed(struct lv_call *c, struct json_object *result)
{
    struct json_object *from = api_json_get(result, "snapshots"), *o = json_object_new_object(),
                       *list = json_object_new_array();

    for (size_t i = 0; i < json_object_array_length(from); i++) {
        json_object_array_add(
            list, handle(c, api_json_get_str(json_object_array_get_idx(from, i), "name")));
    }
    api_json_set_int(o, "ret", (int64_t)json_object_array_length(list));
    if (lv_int(c, "need_results")) {
        api_json_set(o, "snapshots", list);
    } else {
        json_object_put(list);
    }
    lv_reply(c, o);
}

void lv_do_snapshot_list(struct lv_call *c)
{
    lv_ask(c, "domain", "snapshot.list", lv_vm(c), on_listed);
}

static void on_count(struct lv_call *c, struct json_object *result)
{
    lv_reply_int(c, "num",
                 (int64_t)json_object_array_length(api_json_get(result, "snapshots")));
}

void lv_do_snapshot_num(struct lv_call *c)
{
    lv_ask(c, "domain", "snapshot.list", lv_vm(c), on_count);
}

static void on_found(struct lv_call *c, struct json_object *snapshot)
{
    reply_snapshot(c, api_json_get_str(snapshot, "name"));
}

void lv_do_snapshot_by_name(struct lv_call *c)
{
    struct json_object *params = lv_vm(c);

    api_json_set_str(params, "name", lv_str(c, "name"));
    lv_ask(c, "snapshot", "snapshot.get", params, on_found);
}

static const char *current_of(struct json_object *result)
{
    struct json_object *list = api_json_get(result, "snapshots");

    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *one = json_object_array_get_idx(list, i);
        if (api_json_get_bool(one, "current", false)) {
            return api_json_get_str(one, "name");
        }
    }
    return NULL;
}

static void on_has_current(struct lv_call *c, struct json_object *result)
{
    lv_reply_int(c, "result", current_of(result) != NULL);
}

void lv_do_snapshot_has_current(struct lv_call *c)
{
    lv_ask(c, "domain", "snapshot.list", lv_vm(c), on_has_current);
}

static void on_current(struct lv_call *c, struct json_object *result)
{
    const char *name = current_of(result);

    if (name) {
        reply_snapshot(c, name);
    } else {
        lv_fail(c, LV_E_NO_SNAPSHOT, "the domain does not have a current snapshot");
    }
}

void lv_do_snapshot_current(struct lv_call *c)
{
    lv_ask(c, "domain", "snapshot.list", lv_vm(c), on_current);
}

static void on_parent(struct lv_call *c, struct json_object *snapshot)
{
    const char *name = api_json_get_str(snapshot, "parent");

    if (name) {
        reply_snapshot(c, name);
    } else {
        lv_fail(c, LV_E_NO_SNAPSHOT, "snapshot '%s' does not have a parent", snap_name(c));
    }
}

void lv_do_snapshot_parent(struct lv_call *c)
{
    lv_ask(c, "snapshot", "snapshot.get", which(c), on_parent);
}

static void on_is_current(struct lv_call *c, struct json_object *snapshot)
{
    lv_reply_int(c, "current", api_json_get_bool(snapshot, "current", false));
}

void lv_do_snapshot_is_current(struct lv_call *c)
{
    lv_ask(c, "snapshot", "snapshot.get", which(c), on_is_current);
}

static void on_metadata(struct lv_call *c, struct json_object *snapshot)
{
    (void)snapshot;
    lv_reply_int(c, "metadata", 1);
}

void lv_do_snapshot_metadata(struct lv_call *c)
{
    lv_ask(c, "snapshot", "snapshot.get", which(c), on_metadata);
}

void lv_do_snapshot_xml(struct lv_call *c)
{
    lv_ask(c, "snapshot", "snapshot.xml", which(c), lv_reply_xml);
}

/* Of the children of the call's snapshot: all below it with DESCENDANTS. */
static bool is_below(struct json_object *list, struct json_object *one, const char *name,
                     bool deep)
{
    const char *parent = api_json_get_str(one, "parent");

    for (size_t steps = 0; parent && steps <= json_object_array_length(list); steps++) {
        if (strcmp(parent, name) == 0) {
            return true;
        }
        const char *next = NULL;
        for (size_t i = 0; deep && i < json_object_array_length(list); i++) {
            struct json_object *other = json_object_array_get_idx(list, i);
            if (strcmp(api_json_get_str(other, "name"), parent) == 0) {
                next = api_json_get_str(other, "parent");
            }
        }
        parent = next;
    }
    return false;
}

static void on_children(struct lv_call *c, struct json_object *result)
{
    enum { DESCENDANTS = 1 };
    struct json_object *from = api_json_get(result, "snapshots"), *o = json_object_new_object(),
                       *list = json_object_new_array();

    for (size_t i = 0; i < json_object_array_length(from); i++) {
        struct json_object *one = json_object_array_get_idx(from, i);
        if (is_below(from, one, snap_name(c), lv_int(c, "flags") & DESCENDANTS)) {
            json_object_array_add(list, handle(c, api_json_get_str(one, "name")));
        }
    }
    api_json_set_int(o, "num", (int64_t)json_object_array_length(list));
    api_json_set_int(o, "ret", (int64_t)json_object_array_length(list));
    if (lv_int(c, "need_results")) {
        api_json_set(o, "snapshots", list);
    } else {
        json_object_put(list);
    }
    lv_reply(c, o);
}

void lv_do_snapshot_children(struct lv_call *c)
{
    lv_ask(c, "domain", "snapshot.list", lv_vm(c), on_children);
}

/* --- going back, deleting ------------------------------------------------------------------------------ */

static void on_job(struct lv_call *c, struct json_object *result)
{
    lv_wait(c, result, lv_done);
}

void lv_do_snapshot_revert(struct lv_call *c)
{
    struct json_object *params = which(c);

    if (lv_int(c, "flags") & REVERT_RUNNING) {
        api_json_set_bool(params, "start", true);
    }
    lv_ask(c, "snapshot", "snapshot.revert", params, on_job);
}

void lv_do_snapshot_delete(struct lv_call *c)
{
    if (lv_int(c, "flags") & (CHILDREN | METADATA_ONLY | CHILDREN_ONLY)) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED,
                "one snapshot is deleted at a time, with its data");
        return;
    }
    lv_ask(c, "snapshot", "snapshot.delete", which(c), on_job);
}
