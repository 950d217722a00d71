/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints of domains: dirty bitmaps of their disks, in a row by their time. */
#include "daemon/libvirt/checkpoint.h"

#include "daemon/daemon.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/parts.h"
#include "daemon/libvirt/procs.h"
#include "daemon/registry.h"
#include "daemon/run/proc.h"
#include "daemon/xml/tree.h"
#include "engine/base/buf.h"
#include "engine/base/mem.h"

#include <stdio.h>
#include <string.h>

enum {
    /* virDomainCheckpointCreateFlags */
    REDEFINE = 1,
    /* virDomainCheckpointDeleteFlags */
    CHILDREN = 1,
    METADATA_ONLY = 2,
    CHILDREN_ONLY = 4,
    /* virDomainCheckpointXMLFlags */
    SIZE = 4,
    /* virDomainCheckpointListFlags; of children the first is "all below" */
    ROOTS = 1,
    LEAVES = 4,
    NO_LEAVES = 8,
};

static const char *point_name(const struct lv_call *c)
{
    return api_json_get_str(api_json_get(c->args, "snap"), "name");
}

static size_t count(struct json_object *result)
{
    return json_object_array_length(api_json_get(result, "checkpoints"));
}

static struct json_object *at(struct json_object *result, size_t i)
{
    return json_object_array_get_idx(api_json_get(result, "checkpoints"), i);
}

/* The place of a checkpoint in the answer of checkpoint.list; -1: the call has failed. */
static int place(struct lv_call *c, struct json_object *result, const char *name)
{
    for (size_t i = 0; name && i < count(result); i++) {
        if (strcmp(api_json_get_str(at(result, i), "name"), name) == 0) {
            return (int)i;
        }
    }
    lv_fail(c, LV_E_NO_CHECKPOINT, "no domain checkpoint with matching name '%s'",
            name ? name : "");
    return -1;
}

static void list_all(struct lv_call *c, void (*then)(struct lv_call *c, struct json_object *r))
{
    lv_ask(c, "domain", "checkpoint.list", lv_vm(c), then);
}

/* {name, dom} of a checkpoint of the call's domain; the caller's. */
static struct json_object *handle(const struct lv_call *c, const char *name)
{
    struct json_object *dom = api_json_get(c->args, "dom"), *o = lv_object("name", name);

    dom = dom ? dom : api_json_get(api_json_get(c->args, "snap"), "dom");
    api_json_set(o, "dom", json_object_get(dom));
    return o;
}

static void reply_point(struct lv_call *c, const char *name)
{
    struct json_object *o = json_object_new_object();

    api_json_set(o, "snap", handle(c, name));
    lv_reply(c, o);
}

/* --- making ----------------------------------------------------------------------------------------------- */

/* What a document says of one disk. False: the call has failed. */
static bool read_disk(struct lv_call *c, struct json_object *list, const struct vm *vm,
                      const struct xml_node *n)
{
    const char *kind = xml_get_attr(n, "checkpoint"), *bitmap = xml_get_attr(n, "bitmap"),
               *what = xml_get_attr(n, "name");
    struct json_object *o;
    char name[80];
    int disk = lv_disk(c, vm, what ? what : "");

    if (disk < 0) {
        return false;
    }
    if (kind && strcmp(kind, "no") == 0) {
        return true;
    }
    lv_disk_name(vm, disk, name, sizeof(name));
    o = lv_object("disk", name);
    if (bitmap) {
        api_json_set_str(o, "bitmap", bitmap);
    }
    json_object_array_add(list, o);
    return true;
}

/* The disks that a document names. False: the call has failed. */
static bool read_disks(struct lv_call *c, struct json_object *params,
                       const struct xml_node *disks)
{
    struct json_object *list = json_object_new_array();
    const struct vm *vm = lv_the_vm(c);

    api_json_set(params, "disks", list);
    for (size_t i = 0; i < disks->n_kids; i++) {
        if (disks->kids[i]->name && !read_disk(c, list, vm, disks->kids[i])) {
            return false;
        }
    }
    if (json_object_array_length(list) == 0) {
        lv_fail(c, LV_E_INVALID_ARG, "no disk is chosen for the checkpoint");
        return false;
    }
    return true;
}

struct json_object *lv_read_checkpoint(struct lv_call *c, const char *text)
{
    struct err e = ERR_INIT;
    AUTO(xml_node_free) struct xml_node *root = xml_read(text, strlen(text), &e);
    const struct xml_node *name, *words, *disks;
    struct json_object *params;
    char now[24];

    if (!root || !root->name || strcmp(root->name, "domaincheckpoint") != 0) {
        lv_fail(c, LV_E_XML, "%s", root ? "the document is no <domaincheckpoint>" : e.msg);
        return NULL;
    }
    name = xml_get_kid(root, "name");
    words = xml_get_kid(root, "description");
    disks = xml_get_kid(root, "disks");
    snprintf(now, sizeof(now), "%lld", (long long)(time_real_ns() / 1000000000));
    AUTO_FREE char *called = name ? xml_text(name) : xstrdup(now);
    AUTO_FREE char *said = words ? xml_text(words) : NULL;
    params = lv_vm(c);
    api_json_set_str(params, "name", called);
    if (said) {
        api_json_set_str(params, "description", said);
    }
    if (disks && !read_disks(c, params, disks)) {
        json_object_put(params);
        return NULL;
    }
    return params;
}

static void on_made(struct lv_call *c, struct json_object *checkpoint)
{
    reply_point(c, api_json_get_str(checkpoint, "name"));
}

void lv_do_checkpoint_create(struct lv_call *c)
{
    struct json_object *params;

    if (lv_int(c, "flags") & ~REDEFINE) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED,
                "checkpoints are made without the guest's agent (domfsfreeze does that)");
        return;
    }
    params = lv_read_checkpoint(c, lv_str(c, "xml_desc"));
    if (params) {
        api_json_set_bool(params, "adopt", lv_int(c, "flags") & REDEFINE);
        lv_ask(c, "domain", "checkpoint.create", params, on_made);
    }
}

/* --- finding ---------------------------------------------------------------------------------------------- */

/* Answers with those from `from` on, as flags choose; they are a row, of which the last has no child. */
static void reply_list(struct lv_call *c, struct json_object *result, size_t from, size_t to)
{
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();
    int64_t flags = lv_int(c, "flags");
    size_t n = count(result);

    for (size_t i = from; i < to && i < n; i++) {
        bool leaf = i + 1 == n;

        if (!(flags & (LEAVES | NO_LEAVES)) || flags & (leaf ? LEAVES : NO_LEAVES)) {
            json_object_array_add(list, handle(c, api_json_get_str(at(result, i), "name")));
        }
    }
    api_json_set_int(o, "ret", (int64_t)json_object_array_length(list));
    if (lv_int(c, "need_results")) {
        api_json_set(o, "checkpoints", list);
    } else {
        json_object_put(list);
    }
    lv_reply(c, o);
}

static void on_listed(struct lv_call *c, struct json_object *result)
{
    reply_list(c, result, 0, lv_int(c, "flags") & ROOTS ? 1 : count(result));
}

void lv_do_checkpoint_list(struct lv_call *c)
{
    list_all(c, on_listed);
}

static void on_children(struct lv_call *c, struct json_object *result)
{
    enum { DESCENDANTS = 1 };
    int i = place(c, result, point_name(c));

    if (i >= 0) {
        reply_list(c, result, (size_t)i + 1,
                   lv_int(c, "flags") & DESCENDANTS ? count(result) : (size_t)i + 2);
    }
}

void lv_do_checkpoint_children(struct lv_call *c)
{
    list_all(c, on_children);
}

static void on_named(struct lv_call *c, struct json_object *result)
{
    if (place(c, result, lv_str(c, "name")) >= 0) {
        reply_point(c, lv_str(c, "name"));
    }
}

void lv_do_checkpoint_by_name(struct lv_call *c)
{
    list_all(c, on_named);
}

static void on_parent(struct lv_call *c, struct json_object *result)
{
    int i = place(c, result, point_name(c));

    if (i == 0) {
        lv_fail(c, LV_E_NO_CHECKPOINT, "checkpoint '%s' does not have a parent", point_name(c));
    } else if (i > 0) {
        reply_point(c, api_json_get_str(at(result, (size_t)i), "parent"));
    }
}

void lv_do_checkpoint_parent(struct lv_call *c)
{
    list_all(c, on_parent);
}

/* --- telling ---------------------------------------------------------------------------------------------- */

/* The bytes that a bitmap tells; -1: it is not there. */
static int64_t dirty_bytes(struct json_object *bitmaps, const char *disk, const char *name)
{
    for (size_t i = 0; i < json_object_array_length(bitmaps); i++) {
        struct json_object *one = json_object_array_get_idx(bitmaps, i);

        if (strcmp(api_json_get_str(one, "disk"), disk) == 0 &&
            strcmp(api_json_get_str(one, "name"), name) == 0) {
            return api_json_get_int(one, "dirty", 0);
        }
    }
    return -1;
}

static void put_text(struct xml_node *parent, const char *name, const char *text)
{
    if (text) {
        xml_add_text(xml_node_new(parent, name), text);
    }
}

/* bitmaps NULL: without sizes. */
static void put_disks(struct xml_node *root, const struct vm *vm, struct json_object *point,
                      struct json_object *bitmaps)
{
    struct json_object *disks = api_json_get(point, "disks");
    struct xml_node *list = xml_node_new(root, "disks");
    char name[80], number[24];

    for (size_t i = 0; i < vm->config.n_disks; i++) {
        AUTO_FREE char *dev = lv_disk_dev(vm, (int)i);
        struct xml_node *n = xml_node_new(list, "disk");
        const char *bitmap = NULL;

        lv_disk_name(vm, (int)i, name, sizeof(name));
        for (size_t j = 0; j < json_object_array_length(disks); j++) {
            struct json_object *one = json_object_array_get_idx(disks, j);

            if (strcmp(api_json_get_str(one, "disk"), name) == 0) {
                bitmap = api_json_get_str(one, "bitmap");
            }
        }
        xml_set_attr(n, "name", dev);
        xml_set_attr(n, "checkpoint", bitmap ? "bitmap" : "no");
        if (bitmap) {
            int64_t bytes = bitmaps ? dirty_bytes(bitmaps, name, bitmap) : -1;

            xml_set_attr(n, "bitmap", bitmap);
            snprintf(number, sizeof(number), "%lld", (long long)bytes);
            if (bytes >= 0) {
                xml_set_attr(n, "size", number);
            }
        }
    }
}

static void reply_xml(struct lv_call *c, struct json_object *point, struct json_object *bitmaps)
{
    const struct vm *vm = lv_the_vm(c);
    AUTO(xml_node_free) struct xml_node *root = xml_node_new(NULL, "domaincheckpoint");
    AUTO_BUF text = BUF_INIT;
    char number[24];

    if (!vm) {
        lv_fail(c, LV_E_NO_DOMAIN, "the domain has gone");
        return;
    }
    put_text(root, "name", api_json_get_str(point, "name"));
    put_text(root, "description", api_json_get_str(point, "description"));
    if (api_json_get_str(point, "parent")) {
        put_text(xml_node_new(root, "parent"), "name", api_json_get_str(point, "parent"));
    }
    snprintf(number, sizeof(number), "%lld",
             (long long)(api_json_get_int(point, "created_ms", 0) / 1000));
    put_text(root, "creationTime", number);
    if (vm->config.n_disks) {
        put_disks(root, vm, point, bitmaps);
    }
    xml_write(&text, root, 0);
    lv_reply(c, lv_object("xml", text.data));
}

static void on_sizes(struct lv_call *c, struct json_object *result)
{
    reply_xml(c, c->kept, api_json_get(result, "bitmaps"));
}

static void on_xml(struct lv_call *c, struct json_object *result)
{
    int i = place(c, result, point_name(c));

    if (i >= 0 && lv_int(c, "flags") & SIZE) {
        c->kept = json_object_get(at(result, (size_t)i));
        lv_ask(c, "domain", "disk.bitmaps", lv_vm(c), on_sizes);
    } else if (i >= 0) {
        reply_xml(c, at(result, (size_t)i), NULL);
    }
}

void lv_do_checkpoint_xml(struct lv_call *c)
{
    list_all(c, on_xml);
}

/* --- deleting --------------------------------------------------------------------------------------------- */

static void delete_last(struct lv_call *c, struct json_object *done);

/* Those that go from its place on, the newest first: c->number is how many are left to go. */
static void on_doomed(struct lv_call *c, struct json_object *result)
{
    int64_t flags = lv_int(c, "flags");
    int i = place(c, result, point_name(c));
    struct json_object *names;

    if (i < 0) {
        return;
    }
    names = json_object_new_array();
    for (size_t j = (size_t)i; j < count(result); j++) {
        if (j == (size_t)i ? !(flags & CHILDREN_ONLY) : flags & (CHILDREN | CHILDREN_ONLY)) {
            json_object_array_add(
                names, json_object_get(json_object_object_get(at(result, j), "name")));
        }
    }
    c->number = (int64_t)json_object_array_length(names);
    c->kept = names;
    delete_last(c, NULL);
}

static void delete_last(struct lv_call *c, struct json_object *done)
{
    struct json_object *params;

    (void)done;
    if (c->number == 0) {
        lv_reply(c, NULL);
        return;
    }
    params = lv_vm(c);
    c->number--;
    json_object_object_add(
        params, "name", json_object_get(json_object_array_get_idx(c->kept, (size_t)c->number)));
    api_json_set_bool(params, "metadata", lv_int(c, "flags") & METADATA_ONLY);
    lv_ask(c, "checkpoint", "checkpoint.delete", params, delete_last);
}

void lv_do_checkpoint_delete(struct lv_call *c)
{
    list_all(c, on_doomed);
}
