/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints: rows of the store, one for each, and handlers of checkpoint.create, .list and .delete. Their bitmaps are made and removed by
 * disk.transaction on behalf of the caller. Owns the list vmd.checkpoints, oldest first. Loop thread.
 */
#include "daemon/vm/checkpoint.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/registry.h"
#include "daemon/run/proc.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <string.h>

enum { CHECKPOINTS_MAX = 1000 }; /* of a VM: as many as checkpoint.list tells */

struct checkpoint {
    struct list link; /* vmd.checkpoints */
    char *vm;         /* UUID */
    struct api_checkpoint info;
};

static void checkpoint_free(struct checkpoint *k)
{
    list_remove(&k->link);
    api_release(&api_type_checkpoint, &k->info);
    free(k->vm);
    free(k);
}

static bool is_of(const struct checkpoint *k, const struct vm *vm)
{
    return strcmp(k->vm, vm->config.uuid) == 0;
}

static struct checkpoint *find(const struct vm *vm, const char *name)
{
    list_for_each (it, &vm->d->checkpoints) {
        struct checkpoint *k = list_entry(it, struct checkpoint, link);

        if (is_of(k, vm) && strcmp(k->info.name, name) == 0) {
            return k;
        }
    }
    return NULL;
}

bool checkpoints_any(const struct vm *vm)
{
    list_for_each (it, &vm->d->checkpoints) {
        if (is_of(list_entry(it, struct checkpoint, link), vm)) {
            return true;
        }
    }
    return false;
}

/* Where it belongs by its time: rows come by name. */
static void insert(struct vmd *d, struct checkpoint *k)
{
    struct list *before = d->checkpoints.next;

    while (before != &d->checkpoints &&
           list_entry(before, struct checkpoint, link)->info.created_ms <= k->info.created_ms) {
        before = before->next;
    }
    list_append(before, &k->link); /* in front of it */
}

void checkpoints_load(struct vmd *d, const struct store_object *row)
{
    AUTO_JSON o = NULL;
    struct err e = ERR_INIT;
    struct api_error x = API_ERROR_INIT;
    struct checkpoint *k = xnew(struct checkpoint);

    if (api_json_parse(row->body, strlen(row->body), &o, &e) < 0 ||
        api_decode(&api_type_checkpoint, o, API_LENIENT, "", &k->info, &x) < 0) {
        log_error("daemon", "checkpoint '%s' of VM %s left out: %s", row->name, row->scope,
                  e.code ? e.msg : x.message);
        free(k);
        return;
    }
    k->vm = xstrdup(row->scope);
    insert(d, k);
}

void checkpoints_clear(const struct vm *vm, struct change *c)
{
    list_for_each (it, &vm->d->checkpoints) {
        struct checkpoint *k = list_entry(it, struct checkpoint, link);

        if (is_of(k, vm)) {
            store_tx_object_del(change_tx(c), CHECKPOINT_KIND, k->vm, k->info.name);
        }
    }
}

void checkpoints_gone(const struct vm *vm)
{
    list_for_each_safe (it, &vm->d->checkpoints) {
        struct checkpoint *k = list_entry(it, struct checkpoint, link);

        if (is_of(k, vm)) {
            checkpoint_free(k);
        }
    }
}

void checkpoints_free(struct vmd *d)
{
    list_for_each_safe (it, &d->checkpoints) {
        checkpoint_free(list_entry(it, struct checkpoint, link));
    }
}

/* ---- looking ---- */

const struct api_checkpoint *checkpoint_find(const struct vm *vm, const char *name)
{
    const struct checkpoint *k = find(vm, name);

    return k ? &k->info : NULL;
}

const char *checkpoint_bitmap(const struct api_checkpoint *p, const char *disk)
{
    for (size_t i = 0; i < p->n_disks; i++) {
        if (strcmp(p->disks[i].disk, disk) == 0) {
            return p->disks[i].bitmap;
        }
    }
    return NULL;
}

/* The newest but for `of`, and not newer than that. */
static const char *parent_of(const struct vm *vm, const struct checkpoint *of)
{
    const char *name = NULL;

    list_for_each (it, &vm->d->checkpoints) {
        const struct checkpoint *k = list_entry(it, struct checkpoint, link);

        if (k == of) {
            break;
        }
        name = is_of(k, vm) ? k->info.name : name;
    }
    return name;
}

static struct json_object *tell(const struct vm *vm, const struct checkpoint *k)
{
    struct json_object *o = api_encode(&api_type_checkpoint, &k->info);
    const char *parent = parent_of(vm, k);

    if (parent) {
        api_json_set_str(o, "parent", parent);
    }
    return o;
}

/* ---- making ---- */

static struct json_object *disk_of(const char *disk, const char *bitmap)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "disk", disk);
    api_json_set_str(o, "bitmap", bitmap);
    return o;
}

/* The disks that it is of, with their bitmaps. */
static struct json_object *disks_of(const struct vm *vm,
                                    const struct api_checkpoint_create_in *in)
{
    struct json_object *list = json_object_new_array();

    for (size_t i = 0; i < in->n_disks; i++) {
        const struct api_checkpoint_disk *k = &in->disks[i];

        json_object_array_add(list, disk_of(k->disk, k->bitmap ? k->bitmap : in->name));
    }
    for (size_t i = 0; i < vm->config.n_disks && in->n_disks == 0; i++) {
        const struct api_disk *disk = &vm->config.disks[i];

        if (!disk->readonly && !disk->cdrom && disk->format == API_DISK_FORMAT_QCOW2) {
            json_object_array_add(list, disk_of(disk->name, in->name));
        }
    }
    return list;
}

static bool may_add(const struct vm *vm, const struct api_checkpoint_create_in *in,
                    struct api_error *x)
{
    unsigned n = 0;

    list_for_each (it, &vm->d->checkpoints) {
        n += is_of(list_entry(it, struct checkpoint, link), vm);
    }
    if (find(vm, in->name) && !in->adopt) {
        api_error_set(x, API_E_EXISTS, in->name, "choose another name",
                      "VM '%s' has a checkpoint '%s' already", vm->config.name, in->name);
    } else if (n >= CHECKPOINTS_MAX) {
        api_error_set(x, API_E_HOST_LIMIT, in->name, "delete some: 'vmctl checkpoint rm'",
                      "VM '%s' has %u checkpoints already", vm->config.name, n);
    } else {
        return true;
    }
    return false;
}

/* Now; later than its others, whatever the clock says, since their times are their order. */
static int64_t next_time(const struct vm *vm)
{
    int64_t now = time_real_ns() / 1000000;

    list_for_each (it, &vm->d->checkpoints) {
        const struct checkpoint *k = list_entry(it, struct checkpoint, link);

        if (is_of(k, vm) && k->info.created_ms >= now) {
            now = k->info.created_ms + 1;
        }
    }
    return now;
}

struct json_object *checkpoint_plan(const struct vm *vm,
                                    const struct api_checkpoint_create_in *in,
                                    struct json_object *actions, struct api_error *x)
{
    struct json_object *o, *disks;

    if (!may_add(vm, in, x)) {
        return NULL;
    }
    disks = disks_of(vm, in);
    if (json_object_array_length(disks) == 0) {
        json_object_put(disks);
        api_error_set(x, API_E_UNSUPPORTED, vm->config.name, "name the disks",
                      "VM '%s' has no disk whose format keeps bitmaps (qcow2)",
                      vm->config.name);
        return NULL;
    }
    for (size_t i = 0; i < json_object_array_length(disks); i++) {
        struct json_object *one = json_object_array_get_idx(disks, i),
                           *a = json_object_new_object();

        api_json_set_str(a, "act", "bitmap-add");
        api_json_set_str(a, "disk", api_json_get_str(one, "disk"));
        api_json_set_str(a, "name", api_json_get_str(one, "bitmap"));
        api_json_set_bool(a, "persistent", true);
        json_object_array_add(actions, a);
    }
    o = json_object_new_object();
    api_json_set_str(o, "name", in->name);
    if (in->description) {
        api_json_set_str(o, "description", in->description);
    }
    api_json_set_int(o, "created_ms", next_time(vm));
    api_json_set(o, "disks", disks);
    return o;
}

bool checkpoint_keep(struct vm *vm, struct json_object *checkpoint, struct change *c)
{
    struct checkpoint *k, *old = find(vm, api_json_get_str(checkpoint, "name"));
    struct api_error x = API_ERROR_INIT;

    if (old) {
        return false;
    }
    k = xnew(struct checkpoint);
    if (api_decode(&api_type_checkpoint, checkpoint, API_LENIENT, "", &k->info, &x) < 0) {
        log_error("daemon", "checkpoint: %s", x.message); /* cannot be: we made it */
        free(k);
        return false;
    }
    k->vm = xstrdup(vm->config.uuid);
    insert(vm->d, k);
    store_tx_object_put(change_tx(c), &(struct store_object){ .kind = CHECKPOINT_KIND,
                                                              .scope = k->vm,
                                                              .name = k->info.name,
                                                              .body = api_json_text(checkpoint),
                                                              .changed_ns = time_real_ns() });
    return true;
}

/* ---- checkpoint.create ---- */

struct making {
    struct api_call *call;
    struct vmd *d;
    int64_t vm;
    struct json_object *checkpoint;
};

static void making_free(struct making *g)
{
    json_object_put(g->checkpoint);
    free(g);
}

/* The store did not keep it: nobody knows of it then. Its bitmaps are listed by disk.bitmaps. */
static void on_kept(void *arg, const struct err *e)
{
    struct making *g = arg;
    struct vm *vm = vm_by_id(g->d, g->vm);
    struct checkpoint *k = vm ? find(vm, api_json_get_str(g->checkpoint, "name")) : NULL;

    if (e && k) {
        checkpoint_free(k);
    }
    making_free(g);
}

static void keep(struct making *g, struct vm *vm)
{
    struct change *c = change_new(g->d);
    const char *name = api_json_get_str(g->checkpoint, "name");

    if (!checkpoint_keep(vm, g->checkpoint, c)) {
        change_drop(c);
        api_fail(g->call, API_E_EXISTS, name, "choose another name",
                 "VM '%s' has a checkpoint '%s' already", vm->config.name, name);
        making_free(g);
        return;
    }
    call_commit(g->d, g->call, c, vm->config.name, tell(vm, find(vm, name)), on_kept, g);
}

static void on_recording(void *arg, struct json_object *result, const struct api_error *x)
{
    struct making *g = arg;
    struct vm *vm = vm_by_id(g->d, g->vm);

    (void)result;
    if (x) {
        api_reply_error(g->call, x);
        making_free(g);
    } else if (!vm) {
        api_fail(g->call, API_E_NOT_FOUND, "vm", NULL, "the VM was deleted meanwhile");
        making_free(g);
    } else {
        keep(g, vm);
    }
}

static void begin(struct making *g, struct vm *vm, struct json_object *take_actions)
{
    struct json_object *params = json_object_new_object();

    api_json_set_str(params, "vm", vm->config.uuid);
    api_json_set(params, "actions", take_actions);
    api_call_nested(g->call, "disk.transaction", params, on_recording, g);
}

/* One that is known gets another description; its time and bitmaps stay. */
static void describe(struct making *g, struct vm *vm, struct checkpoint *k)
{
    struct change *c = change_new(g->d);
    const char *words = api_json_get_str(g->checkpoint, "description");
    AUTO_JSON o = NULL;

    free(k->info.description);
    k->info.description = words ? xstrdup(words) : NULL;
    o = api_encode(&api_type_checkpoint, &k->info);
    store_tx_object_put(change_tx(c), &(struct store_object){ .kind = CHECKPOINT_KIND,
                                                              .scope = k->vm,
                                                              .name = k->info.name,
                                                              .body = api_json_text(o),
                                                              .changed_ns = time_real_ns() });
    call_commit(g->d, g->call, c, vm->config.name, tell(vm, k), NULL, NULL);
    making_free(g);
}

void api_handle_checkpoint_create(struct api_call *call, struct api_checkpoint_create_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    struct api_error x = API_ERROR_INIT;
    struct json_object *actions, *o;
    struct making *g;

    if (!vm) {
        return;
    }
    actions = json_object_new_array();
    o = checkpoint_plan(vm, in, actions, &x);
    if (!o) {
        json_object_put(actions);
        api_reply_error(call, &x);
        return;
    }
    g = xnew(struct making);
    *g = (struct making){ .call = call, .d = vm->d, .vm = vm->id, .checkpoint = o };
    if (!in->adopt) {
        begin(g, vm, actions);
        return;
    }
    json_object_put(actions);
    if (find(vm, in->name)) {
        describe(g, vm, find(vm, in->name));
    } else {
        keep(g, vm);
    }
}

/* ---- checkpoint.list ---- */

void api_handle_checkpoint_list(struct api_call *call, struct api_checkpoint_list_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    struct json_object *o, *list;

    if (!vm) {
        return;
    }
    o = json_object_new_object();
    list = json_object_new_array();
    list_for_each (it, &vm->d->checkpoints) {
        const struct checkpoint *k = list_entry(it, struct checkpoint, link);

        if (is_of(k, vm)) {
            json_object_array_add(list, tell(vm, k));
        }
    }
    api_json_set(o, "checkpoints", list);
    api_reply_json(call, o);
}

/* ---- checkpoint.delete ---- */

struct deleting {
    struct api_call *call;
    struct vmd *d;
    int64_t vm;
    char *name;
};

static void forget(struct api_call *call, struct vm *vm, const char *name)
{
    struct checkpoint *k = find(vm, name);
    struct change *c;

    if (!k) {
        api_fail(call, API_E_NOT_FOUND, name, "'vmctl checkpoint list' shows them",
                 "VM '%s' has no checkpoint '%s'", vm->config.name, name);
        return;
    }
    c = change_new(vm->d);
    store_tx_object_del(change_tx(c), CHECKPOINT_KIND, k->vm, k->info.name);
    checkpoint_free(k);
    call_commit(vm->d, call, c, vm->config.name, json_object_new_object(), NULL, NULL);
}

/* The VM and the checkpoint of what is being deleted; false: g has ended. */
static bool still(struct deleting *g, const struct api_error *x, struct vm **vm)
{
    *vm = vm_by_id(g->d, g->vm);
    if (!x && *vm && find(*vm, g->name)) {
        return true;
    }
    if (x) {
        api_reply_error(g->call, x);
    } else {
        api_fail(g->call, API_E_NOT_FOUND, g->name, NULL, "checkpoint '%s' has gone", g->name);
    }
    free(g->name);
    free(g);
    return false;
}

static void on_removed(void *arg, struct json_object *result, const struct api_error *x)
{
    struct deleting *g = arg;
    struct vm *vm;

    (void)result;
    if (still(g, x, &vm)) {
        forget(g->call, vm, g->name);
        free(g->name);
        free(g);
    }
}

static bool is_there(struct json_object *bitmaps, const char *disk, const char *name)
{
    for (size_t i = 0; i < json_object_array_length(bitmaps); i++) {
        struct json_object *one = json_object_array_get_idx(bitmaps, i);

        if (strcmp(api_json_get_str(one, "disk"), disk) == 0 &&
            strcmp(api_json_get_str(one, "name"), name) == 0) {
            return true;
        }
    }
    return false;
}

/* Those of its bitmaps that are there: an image may have been changed while the VM did not run. */
static void on_bitmaps(void *arg, struct json_object *result, const struct api_error *x)
{
    struct deleting *g = arg;
    struct vm *vm;
    const struct api_checkpoint *p;
    struct json_object *params, *actions;

    if (!still(g, x, &vm)) {
        return;
    }
    p = checkpoint_find(vm, g->name);
    actions = json_object_new_array();
    for (size_t i = 0; i < p->n_disks; i++) {
        struct json_object *a;

        if (is_there(api_json_get(result, "bitmaps"), p->disks[i].disk, p->disks[i].bitmap)) {
            a = json_object_new_object();
            api_json_set_str(a, "act", "bitmap-remove");
            api_json_set_str(a, "disk", p->disks[i].disk);
            api_json_set_str(a, "name", p->disks[i].bitmap);
            json_object_array_add(actions, a);
        }
    }
    if (json_object_array_length(actions) == 0) {
        json_object_put(actions);
        on_removed(g, NULL, NULL);
        return;
    }
    params = json_object_new_object();
    api_json_set_str(params, "vm", vm->config.uuid);
    api_json_set(params, "actions", actions);
    api_call_nested(g->call, "disk.transaction", params, on_removed, g);
}

void api_handle_checkpoint_delete(struct api_call *call, struct api_checkpoint_delete_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    struct json_object *params;
    struct deleting *g;

    if (!vm) {
        return;
    }
    if (in->metadata || !find(vm, in->name)) {
        forget(call, vm, in->name);
        return;
    }
    g = xnew(struct deleting);
    *g = (struct deleting){ .call = call, .d = vm->d, .vm = vm->id, .name = xstrdup(in->name) };
    params = json_object_new_object();
    api_json_set_str(params, "vm", vm->config.uuid);
    api_call_nested(call, "disk.bitmaps", params, on_bitmaps, g);
}
