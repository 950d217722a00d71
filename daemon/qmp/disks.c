/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP commands about disks of a running VM at one instant (snapshots, overlays, dirty bitmaps, transactions) and about NBD exports:
 * what disk.transaction and disk.export_* do, in QEMU's words. Loop thread.
 */
#include "api-schema/qmp/qmp.h"
#include "api-schema/rpc/call.h"
#include "daemon/qmp/cmd.h"
#include "daemon/qmp/session.h"
#include "engine/base/mem.h"

#include <stdlib.h>
#include <string.h>

/* By an argument; NULL after the command was answered. */
static const char *disk_of(struct qmp_cmd *c, const char *arg)
{
    const struct api_disk *disk = qmp_disk(c, qmp_arg(c, arg));

    if (!disk) {
        qmp_error(c, "GenericError", "Cannot find device='%s' nor node-name='%s'",
                  qmp_arg(c, arg), qmp_arg(c, arg));
    }
    return disk ? disk->name : NULL;
}

/* --- actions: each makes a DiskAction of its arguments; NULL after the command was answered ------------------------- */

static void copy_str(struct qmp_cmd *c, const char *arg, struct json_object *to, const char *as)
{
    if (qmp_arg(c, arg)) {
        api_json_set_str(to, as, qmp_arg(c, arg));
    }
}

static struct json_object *action_on(const char *act, const char *disk)
{
    struct json_object *a;

    if (!disk) {
        return NULL;
    }
    a = json_object_new_object();
    api_json_set_str(a, "act", act);
    api_json_set_str(a, "disk", disk);
    return a;
}

static struct json_object *bitmap_add(struct qmp_cmd *c, const char *act)
{
    struct json_object *a = action_on(act, disk_of(c, "node"));

    if (a) {
        copy_str(c, "name", a, "name");
        api_json_set_bool(a, "persistent", api_json_get_bool(c->args, "persistent", false));
        api_json_set_bool(a, "disabled", api_json_get_bool(c->args, "disabled", false));
        if (api_json_get(c->args, "granularity")) {
            api_json_set_int(a, "granularity", api_json_get_int(c->args, "granularity", 0));
        }
    }
    return a;
}

static struct json_object *bitmap_act(struct qmp_cmd *c, const char *act)
{
    struct json_object *a = action_on(act, disk_of(c, "node"));

    if (a) {
        copy_str(c, "name", a, "name");
    }
    return a;
}

/* A source of a merge: a name, or {"node", "name"} of the same disk. */
static const char *merge_source(struct qmp_cmd *c, struct json_object *from, const char *disk)
{
    const char *node = api_json_get_str(from, "node");
    const struct api_disk *d = node ? qmp_disk(c, node) : NULL;

    if (json_object_is_type(from, json_type_string)) {
        return json_object_get_string(from);
    }
    return d && strcmp(d->name, disk) == 0 ? api_json_get_str(from, "name") : NULL;
}

static struct json_object *bitmap_merge(struct qmp_cmd *c, const char *act)
{
    const char *disk = disk_of(c, "node");
    struct json_object *a = action_on(act, disk), *from = api_json_get(c->args, "bitmaps");
    struct json_object *sources = json_object_new_array();

    for (size_t i = 0; a && i < json_object_array_length(from); i++) {
        const char *name = merge_source(c, json_object_array_get_idx(from, i), disk);

        if (!name) {
            json_object_put(a);
            json_object_put(sources);
            qmp_error(c, "GenericError", "bitmaps[%zu] is no bitmap of disk '%s'", i, disk);
            return NULL;
        }
        json_object_array_add(sources, json_object_new_string(name));
    }
    if (!a) {
        json_object_put(sources);
        return NULL;
    }
    copy_str(c, "target", a, "name");
    api_json_set(a, "sources", sources);
    return a;
}

static struct json_object *overlay_sync(struct qmp_cmd *c, const char *act)
{
    const char *mode = qmp_arg(c, "mode"), *node = qmp_arg(c, "node-name");
    struct json_object *a;

    if (!qmp_arg(c, "device") == !node) {
        qmp_error(c, "GenericError", "one of device and node-name is needed, not both");
        return NULL;
    }
    a = action_on(act, disk_of(c, node ? "node-name" : "device"));
    if (a) {
        copy_str(c, "snapshot-file", a, "file");
        copy_str(c, "format", a, "image_format");
        api_json_set_bool(a, "reuse", mode && strcmp(mode, "existing") == 0);
    }
    return a;
}

/* On top of the disk comes an image that blockdev-add named. */
static struct json_object *overlay_node(struct qmp_cmd *c, const char *act)
{
    struct json_object *a = action_on(act, disk_of(c, "node"));
    const struct qmp_node *n = a ? qmp_node_free(c, qmp_arg(c, "overlay")) : NULL;

    if (!n) {
        json_object_put(a);
        return NULL;
    }
    api_json_set_str(a, "file", n->file);
    api_json_set_str(a, "image_format", n->format);
    api_json_set_bool(a, "reuse", true);
    return a;
}

static struct json_object *snapshot(struct qmp_cmd *c, const char *act)
{
    struct json_object *a = action_on(act, disk_of(c, "device"));

    if (a) {
        copy_str(c, "name", a, "name");
    }
    return a;
}

static struct json_object *as_action(struct json_object *params, const char *act)
{
    if (params) {
        json_object_object_del(params, "vm");
        api_json_set_str(params, "act", act);
    }
    return params;
}

static struct json_object *backup(struct qmp_cmd *c, const char *act)
{
    return as_action(qmp_copy_params(c, false), act);
}

static struct json_object *backup_node(struct qmp_cmd *c, const char *act)
{
    return as_action(qmp_copy_params(c, true), act);
}

/* The command's name is that of the action, too. */
static const struct {
    const char *name, *act;
    struct json_object *(*make)(struct qmp_cmd *c, const char *act);
} actions[] = {
    { "block-dirty-bitmap-add", "bitmap-add", bitmap_add },
    { "block-dirty-bitmap-remove", "bitmap-remove", bitmap_act },
    { "block-dirty-bitmap-clear", "bitmap-clear", bitmap_act },
    { "block-dirty-bitmap-enable", "bitmap-enable", bitmap_act },
    { "block-dirty-bitmap-disable", "bitmap-disable", bitmap_act },
    { "block-dirty-bitmap-merge", "bitmap-merge", bitmap_merge },
    { "blockdev-snapshot-sync", "overlay", overlay_sync },
    { "blockdev-snapshot-internal-sync", "snapshot", snapshot },
    { "drive-backup", "backup", backup },
    { "blockdev-snapshot", "overlay", overlay_node },
    { "blockdev-backup", "backup", backup_node },
};

static struct json_object *make_action(struct qmp_cmd *c, const char *name)
{
    for (unsigned i = 0; i < ARRAY_LEN(actions); i++) {
        if (strcmp(actions[i].name, name) == 0) {
            return actions[i].make(c, actions[i].act);
        }
    }
    qmp_error(c, "GenericError", "'%s' is no action", name);
    return NULL;
}

static void act(struct qmp_cmd *c, struct json_object *take_list)
{
    struct json_object *p = qmp_vm_param(c);

    api_json_set(p, "actions", take_list);
    api_call_nested(c->call, "disk.transaction", p, qmp_on_done, c);
}

static void one_action(struct qmp_cmd *c, const char *name)
{
    struct json_object *a = make_action(c, name), *list;

    if (a) {
        list = json_object_new_array();
        json_object_array_add(list, a);
        act(c, list);
    }
}

#define ACTION(fn, name)                                                                       \
    void qmp_do_##fn(struct qmp_cmd *c)                                                        \
    {                                                                                          \
        one_action(c, name);                                                                   \
    }

ACTION(block_dirty_bitmap_add, "block-dirty-bitmap-add")
ACTION(block_dirty_bitmap_remove, "block-dirty-bitmap-remove")
ACTION(block_dirty_bitmap_clear, "block-dirty-bitmap-clear")
ACTION(block_dirty_bitmap_enable, "block-dirty-bitmap-enable")
ACTION(block_dirty_bitmap_disable, "block-dirty-bitmap-disable")
ACTION(block_dirty_bitmap_merge, "block-dirty-bitmap-merge")
ACTION(blockdev_snapshot, "blockdev-snapshot")
ACTION(blockdev_snapshot_sync, "blockdev-snapshot-sync")
ACTION(blockdev_snapshot_internal_sync, "blockdev-snapshot-internal-sync")

/* --- transactions --------------------------------------------------------------------------------------------------- */

/* The arguments of an action are those of the command of its name. NULL after the command was answered. */
static struct json_object *transaction_action(struct qmp_cmd *c, struct json_object *from)
{
    const char *type = api_json_get_str(from, "type");
    struct json_object *data = api_json_get(from, "data"), *whole = c->args, *a;
    char desc[QMP_DESC_MAX];

    if (data && !json_object_is_type(data, json_type_object)) {
        qmp_error(c, "GenericError",
                  "Invalid parameter type for 'actions.data', expected: object");
        return NULL;
    }
    if (!qmp_check(qmp_find(type), data, desc)) {
        qmp_error(c, "GenericError", "%s: %s", type, desc);
        return NULL;
    }
    c->args = data;
    a = make_action(c, type);
    c->args = whole;
    return a;
}

void qmp_do_transaction(struct qmp_cmd *c)
{
    struct json_object *from = api_json_get(c->args, "actions");
    struct json_object *list = json_object_new_array();
    const char *mode = api_json_get_str(api_json_get(c->args, "properties"), "completion-mode");
    bool aborts = false;

    if (mode && strcmp(mode, "individual") != 0) {
        json_object_put(list);
        qmp_error(c, "GenericError", "'completion-mode' is individual, always");
        return;
    }
    for (size_t i = 0; i < json_object_array_length(from); i++) {
        struct json_object *one = json_object_array_get_idx(from, i), *a;

        if (strcmp(api_json_get_str(one, "type"), "abort") == 0) {
            aborts = true;
            continue;
        }
        a = transaction_action(c, one);
        if (!a) {
            json_object_put(list);
            return;
        }
        json_object_array_add(list, a);
    }
    if (aborts || json_object_array_length(list) == 0) {
        json_object_put(list);
        if (aborts) {
            qmp_error(c, "GenericError", "Transaction aborted using Abort action");
        } else {
            qmp_return_nothing(c);
        }
        return;
    }
    act(c, list);
}

/* --- snapshots inside images -------------------------------------------------------------------------------------------- */

static bool same(const char *wanted, const char *is)
{
    return !wanted || (is && strcmp(wanted, is) == 0);
}

static void on_snapshot_gone(void *arg, struct json_object *result, const struct api_error *x)
{
    struct qmp_cmd *c = arg;

    (void)result;
    if (x) {
        qmp_error(c, "GenericError", "%s", x->message);
    } else {
        qmp_return(c, take_ptr(c->kept));
    }
}

static struct json_object *snapshot_info(struct json_object *from)
{
    static const char *const none[] = { "vm-clock-nsec", "vm-clock-sec", "date-nsec",
                                        "vm-state-size" };
    struct json_object *o = json_object_new_object();

    for (unsigned i = 0; i < ARRAY_LEN(none); i++) {
        api_json_set_int(o, none[i], 0);
    }
    api_json_set_str(o, "id", api_json_get_str(from, "id"));
    api_json_set_str(o, "name", api_json_get_str(from, "name"));
    api_json_set_int(o, "date-sec", api_json_get_int(from, "date", 0));
    return o;
}

static void on_snapshots(void *arg, struct json_object *result, const struct api_error *x)
{
    struct qmp_cmd *c = arg;
    struct json_object *list = api_json_get(result, "snapshots"), *p;
    const struct api_disk *disk = x ? NULL : qmp_disk(c, qmp_arg(c, "device"));

    for (size_t i = 0; disk && i < json_object_array_length(list); i++) {
        struct json_object *o = json_object_array_get_idx(list, i);

        if (same(disk->name, api_json_get_str(o, "disk")) &&
            same(qmp_arg(c, "name"), api_json_get_str(o, "name")) &&
            same(qmp_arg(c, "id"), api_json_get_str(o, "id"))) {
            p = qmp_vm_param(c);
            api_json_set_str(p, "disk", disk->name);
            api_json_set_str(p, "name", api_json_get_str(o, "name"));
            c->kept = snapshot_info(o);
            api_call_nested(c->call, "disk.snapshot_delete", p, on_snapshot_gone, c);
            return;
        }
    }
    qmp_error(c, "GenericError", "%s",
              x ? x->message : "Snapshot with that id and name does not exist on the device");
}

void qmp_do_blockdev_snapshot_delete_internal_sync(struct qmp_cmd *c)
{
    if (!qmp_arg(c, "id") && !qmp_arg(c, "name")) {
        qmp_error(c, "GenericError", "Name or id must be provided");
    } else if (disk_of(c, "device")) {
        api_call_nested(c->call, "disk.snapshots", qmp_vm_param(c), on_snapshots, c);
    }
}

/* --- NBD ------------------------------------------------------------------------------------------------------------------- */

/* False after the command was answered. */
static bool address(struct qmp_cmd *c, struct json_object *p)
{
    struct json_object *addr = api_json_get(c->args, "addr"), *data;
    const char *type = api_json_get_str(addr, "type"), *host, *port, *path;
    char *end = NULL;
    long n;

    data = api_json_get(addr, "data");
    path = api_json_get_str(data, "path");
    host = api_json_get_str(data, "host");
    port = api_json_get_str(data, "port");
    if (strcmp(type, "unix") == 0 && path) {
        api_json_set_str(p, "socket", path);
        return true;
    }
    n = port ? strtol(port, &end, 10) : -1;
    if (strcmp(type, "inet") == 0 && host && port && *port && !*end && n >= 0 && n <= 65535) {
        api_json_set_str(p, "host", host);
        api_json_set_int(p, "port", n);
        return true;
    }
    qmp_error(c, "GenericError",
              "Parameter 'addr' expects unix with a path, or inet with a host and a number as "
              "port");
    return false;
}

void qmp_do_nbd_server_start(struct qmp_cmd *c)
{
    struct json_object *p;
    int64_t clients = api_json_get_int(c->args, "max-connections", 0);

    if (qmp_arg(c, "tls-creds")) {
        qmp_error(c, "GenericError", "No TLS credentials with id '%s'",
                  qmp_arg(c, "tls-creds"));
        return;
    }
    p = qmp_vm_param(c);
    if (!address(c, p)) {
        json_object_put(p);
        return;
    }
    api_json_set_int(p, "clients", clients < 0 || clients > 1000 ? 1000 : clients);
    api_call_nested(c->call, "disk.export_start", p, qmp_on_done, c);
}

void qmp_do_nbd_server_stop(struct qmp_cmd *c)
{
    api_call_nested(c->call, "disk.export_stop", qmp_vm_param(c), qmp_on_done, c);
}

/* From what both commands have; NULL after the command was answered. */
static struct json_object *export_params(struct qmp_cmd *c, const char *disk)
{
    struct json_object *p;

    if (!disk) {
        return NULL;
    }
    p = qmp_vm_param(c);
    api_json_set_str(p, "disk", disk);
    api_json_set_str(p, "name", qmp_arg(c, "name") ? qmp_arg(c, "name") : disk);
    copy_str(c, "description", p, "description");
    api_json_set_bool(p, "writable", api_json_get_bool(c->args, "writable", false));
    return p;
}

void qmp_do_nbd_server_add(struct qmp_cmd *c)
{
    struct json_object *p = export_params(c, disk_of(c, "device"));

    if (p) {
        copy_str(c, "bitmap", p, "bitmap");
        api_call_nested(c->call, "disk.export_add", p, qmp_on_done, c);
    }
}

void qmp_do_block_export_add(struct qmp_cmd *c)
{
    struct json_object *bitmaps = api_json_get(c->args, "bitmaps"), *p;
    size_t n = bitmaps ? json_object_array_length(bitmaps) : 0;
    const char *disk = disk_of(c, "node-name"), *bitmap = NULL;

    if (!disk) {
        return;
    }
    if (n == 1) {
        bitmap = merge_source(c, json_object_array_get_idx(bitmaps, 0), disk);
    }
    if (n > 1 || (n == 1 && !bitmap)) {
        qmp_error(c, "GenericError", "an export tells of one bitmap, of its own node");
        return;
    }
    if (api_json_get_bool(c->args, "allocation-depth", false)) {
        qmp_error(c, "GenericError", "'allocation-depth' is not supported");
        return;
    }
    p = export_params(c, disk);
    copy_str(c, "id", p, "id");
    if (bitmap) {
        api_json_set_str(p, "bitmap", bitmap);
    }
    api_call_nested(c->call, "disk.export_add", p, qmp_on_done, c);
}

static void export_remove(struct qmp_cmd *c, const char *name)
{
    const char *mode = qmp_arg(c, "mode");
    struct json_object *p = qmp_vm_param(c);

    api_json_set_str(p, "name", name);
    api_json_set_bool(p, "safe", !mode || strcmp(mode, "safe") == 0);
    api_call_nested(c->call, "disk.export_remove", p, qmp_on_done, c);
}

void qmp_do_nbd_server_remove(struct qmp_cmd *c)
{
    export_remove(c, qmp_arg(c, "name"));
}

/* Exports that came by the API have no id but their name. */
static const char *id_of(struct json_object *export)
{
    const char *id = api_json_get_str(export, "id");

    return id ? id : api_json_get_str(export, "name");
}

static void with_exports(void *arg, struct json_object *result, const struct api_error *x)
{
    struct qmp_cmd *c = arg;
    struct json_object *list = api_json_get(result, "exports");

    for (size_t i = 0; !x && i < json_object_array_length(list); i++) {
        struct json_object *o = json_object_array_get_idx(list, i);

        if (same(qmp_arg(c, "id"), id_of(o))) {
            export_remove(c, api_json_get_str(o, "name"));
            return;
        }
    }
    if (x) {
        qmp_error(c, "GenericError", "%s", x->message);
    } else {
        qmp_error(c, "GenericError", "Export '%s' is not found", qmp_arg(c, "id"));
    }
}

void qmp_do_block_export_del(struct qmp_cmd *c)
{
    api_call_nested(c->call, "disk.exports", qmp_vm_param(c), with_exports, c);
}

static void list_exports(void *arg, struct json_object *result, const struct api_error *x)
{
    struct qmp_cmd *c = arg;
    struct json_object *list = api_json_get(result, "exports"), *out;

    if (x) {
        qmp_error(c, "GenericError", "%s", x->message);
        return;
    }
    out = json_object_new_array();
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *from = json_object_array_get_idx(list, i);
        struct json_object *o = json_object_new_object();

        api_json_set_str(o, "node-name", api_json_get_str(from, "disk"));
        api_json_set_bool(o, "shutting-down", false);
        api_json_set_str(o, "type", "nbd");
        api_json_set_str(o, "id", id_of(from));
        json_object_array_add(out, o);
    }
    qmp_return(c, out);
}

void qmp_do_query_block_exports(struct qmp_cmd *c)
{
    api_call_nested(c->call, "disk.exports", qmp_vm_param(c), list_exports, c);
}
