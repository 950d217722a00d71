/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of volume.*. A call that changes a volume marks it busy, has a thread do the work and then commits; what failed
 * is undone by a thread, too. Owns struct vop. Loop thread.
 */
#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "api-schema/rpc/call.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/registry.h"
#include "daemon/storage/pools.h"
#include "daemon/storage/volume_work.h"
#include "daemon/xml/xml.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CHUNK 524288

/* ---- ops ---- */

static struct vop *vop_new(struct api_call *call, struct pool *p, struct volume *v,
                           const char *name)
{
    struct vop *op = xnew(struct vop);
    op->call = call;
    op->p = p;
    op->v = v;
    op->f = p->folder;
    op->f.path = xstrdup(p->where); /* the pool may be gone before the last of the work is */
    op->f.fd = fcntl(p->folder.fd, F_DUPFD_CLOEXEC, 3);
    op->format = v ? api_disk_format_name(v->format) : "raw";
    str_copy(op->name, sizeof(op->name), name);
    op->mode = op->owner = op->group = op->reserve = -1;
    return op;
}

static void vop_free(struct vop *op)
{
    measure_done(&op->m);
    for (unsigned i = 0; i < op->n_args; i++) {
        free(op->args[i]);
    }
    if (op->f.fd >= 0) {
        close(op->f.fd);
    }
    free((char *)op->f.path);
    free(op->temp);
    free(op->data);
    free(op);
}

static void vop_arg(struct vop *op, const char *text)
{
    op->args[op->n_args++] = xstrdup(text); /* room: VOP_ARGS */
}

static void fail(struct vop *op)
{
    const struct err *e = &op->w.e;
    int code = e->code == -ENOENT                         ? API_E_NOT_FOUND
               : e->code == -EEXIST                       ? API_E_EXISTS
               : e->code == -EBUSY                        ? API_E_BUSY
               : e->code == -ESPIPE                       ? API_E_BAD_STATE
               : e->code == -ESHUTDOWN                    ? API_E_CANCELLED
               : e->code == -ENOSPC || e->code == -EDQUOT ? API_E_HOST_LIMIT
                                                          : API_E_FILE_ERROR;
    const char *remedy = e->code == -EBUSY    ? "stop what uses it first"
                         : e->code == -EEXIST ? "'vmctl pool refresh' takes up files that "
                                                "are there; or choose another name"
                         : e->code == -ESPIPE ? "begin again at 0"
                         : code == API_E_HOST_LIMIT ? "free space on the pool's filesystem"
                                                    : "see the pool's folder";
    api_fail(op->call, code, op->name, remedy, "volume '%s': %s", op->name, e->msg);
}

/* Begins the work; answers the call when there is too much under way. */
static bool begin(struct vop *op, void (*run)(struct work *w), void (*ended)(struct work *w),
                  const char *busy)
{
    op->w.run = run;
    op->w.ended = ended;
    op->w.failed = false;
    if (works_start(op->p->d->pools->works, &op->w)) {
        if (op->v && busy) {
            op->v->busy = busy;
        }
        return true;
    }
    api_fail(op->call, API_E_OVERLOAD, op->name, "call again later",
             "too much work on storage pools is under way");
    return false;
}

/* Work that nobody waits for: undoing, cleaning. Without a thread for it, the next look at the pool does it. */
static void cleaned(struct work *w)
{
    vop_free(container_of(w, struct vop, w));
}

static void clean(struct vop *op, void (*run)(struct work *w))
{
    op->call = NULL;
    op->v = NULL;
    op->w.run = run;
    op->w.ended = cleaned;
    if (!works_start(op->p->d->pools->works, &op->w)) {
        vop_free(op);
    }
}

/* Are volumes of this pool there as they are? Answers the call then. */
static bool is_readonly(struct api_call *call, const struct pool *p)
{
    const struct pool_kind *kind = p->folder.kind;
    if (kind->readonly) {
        api_fail(call, API_E_UNSUPPORTED, p->config.name, kind->remedy, "storage pool '%s': %s",
                 p->config.name, kind->readonly);
    }
    return kind->readonly != NULL;
}

/* The volume of a call that nothing else is done with; NULL after the call was answered. change: it is to become another. */
static struct volume *call_volume(struct api_call *call, struct pool *p, const char *name,
                                  bool change)
{
    struct volume *v = volume_find(p, name);
    if (!v || v->hidden) {
        api_fail(call, API_E_NOT_FOUND, name, "'vmctl volume list' shows the volumes there are",
                 "there is no volume '%s' in storage pool '%s'", name, p->config.name);
        return NULL;
    }
    if (v->busy) {
        api_fail(call, API_E_BUSY, name, "call again when that has ended",
                 "volume '%s' is just being %s", name, v->busy);
        return NULL;
    }
    if (change && is_readonly(call, p)) {
        return NULL;
    }
    struct volume *user = change ? volume_user(v) : NULL;
    if (user) {
        api_fail(call, API_E_BUSY, name, "delete that one first, or 'vmctl image rebase' it",
                 "volume '%s' stands on volume '%s'", user->name, name);
        return NULL;
    }
    return v;
}

/* ---- making ---- */

static void made_failed(struct vop *op, bool row)
{
    struct volume *v = op->v;
    struct pool *p = op->p;
    if (row) {
        struct change *c = change_new(p->d);
        volume_del(v, c);
        change_commit(c, NULL, NULL);
    }
    volume_drop(v);
    clean(op, op->f.kind->run_discard);
}

static void acknowledged(void *arg, const struct err *e)
{
    struct vop *op = arg;
    struct volume *v = op->v;
    if (e) {
        v->making =
            op->m.ino; /* what the store says; the next life of the daemon removes both */
        op->placed = true;
        made_failed(op, true);
        return;
    }
    v->hidden = false;
    v->busy = NULL;
    vop_free(op);
}

static void placed(struct work *w)
{
    struct vop *op = container_of(w, struct vop, w);
    struct volume *v = op->v;
    if (w->failed) {
        fail(op);
        made_failed(op, true);
        return;
    }
    struct change *c = change_new(op->p->d);
    v->making = 0;
    volume_put(v, c);
    volume_event(v, "created", c);
    AUTO_FREE char *object = xasprintf("%s/%s", op->p->config.name, v->name);
    call_commit(op->p->d, op->call, c, object, volume_json(v), acknowledged, op);
}

static void announced(void *arg, const struct err *e)
{
    struct vop *op = arg;
    if (e) {
        op->w.e = *e;
        api_fail(op->call, API_E_STORE_ERROR, op->p->d->opt.store,
                 "mend the disk under the store", "nothing was changed: %s", e->msg);
        made_failed(op, false);
    } else if (!begin(op, op->f.kind->run_place, placed, NULL)) {
        made_failed(op, true);
    }
}

static void made(struct work *w)
{
    struct vop *op = container_of(w, struct vop, w);
    struct volume *v = op->v;
    if (w->failed) {
        fail(op);
        made_failed(op, false);
        return;
    }
    v->making = op->m.ino;
    volume_take(v, &op->m);
    struct change *c = change_new(op->p->d);
    volume_put(v, c);
    change_commit(c, announced, op);
}

/* A place for a new volume; NULL after the call was answered. */
static struct volume *new_volume(struct api_call *call, struct pool *p, const char *name,
                                 enum api_disk_format format)
{
    struct volume *old = volume_find(p, name);
    if (!str_is_name(name)) {
        api_fail(call, API_E_INVALID_PARAMS, "config.name",
                 "a letter or digit, then letters, digits and . _ + -",
                 "'%s' is no name of a volume", name);
        return NULL;
    }
    if (old && (!old->hidden || old->busy || old->making)) {
        api_fail(call, API_E_EXISTS, name, "choose another name",
                 "there is a volume '%s' in storage pool '%s'", name, p->config.name);
        return NULL;
    }
    if (old) {
        volume_drop(old); /* its file is gone; its row is overwritten */
    }
    if (p->n_volumes >= VOLUMES_MAX) {
        api_fail(call, API_E_OVERLOAD, name, "delete some",
                 "there are %d volumes in storage pool '%s', more are not possible",
                 VOLUMES_MAX, p->config.name);
        return NULL;
    }
    struct volume *v = volume_new(p, name, format);
    v->hidden = true;
    return v;
}

/* Starts to make op->v out of the arguments so far. */
static void make(struct vop *op, void (*run)(struct work *w))
{
    op->temp = file_temp(&op->f, op->name, "made");
    if (!begin(op, run, made, "made")) {
        volume_drop(op->v);
        vop_free(op);
    }
}

static int refuse(struct api_error *x, const char *member, const char *remedy, const char *text)
{
    return api_error_set(x, API_E_INVALID_PARAMS, member, remedy, "%s", text);
}

/* Options that name files would reach out of the pool. */
static int check_options(const struct api_volume_create_in *in, struct api_error *x)
{
    static const char *const files[] = { "data_file", "backing", "encrypt", "key" };
    for (size_t i = 0; i < in->n_options; i++) {
        const char *o = in->options[i];
        size_t n = strcspn(o, "=");
        bool bad = o[n] != '=' || strchr(o, ',') || strchr(o, '/') || o[0] == '-';
        for (size_t k = 0; k < ARRAY_LEN(files); k++) {
            bad |= strncmp(o, files[k], strlen(files[k])) == 0;
        }
        if (bad) {
            return api_error_set(x, API_E_INVALID_PARAMS, "options",
                                 "options are KEY=VALUE, and none that names a file",
                                 "option '%s' is not possible for a volume", o);
        }
    }
    return 0;
}

static int check_create(const struct pool *p, const struct api_volume_create_in *in,
                        struct volume **base, struct api_error *x)
{
    const struct api_volume_config *c = in->config;
    const char *format = c->format ? c->format : "raw", *name = in->backing_volume;
    size_t n = strlen(p->where);
    *base = NULL;
    if (p->folder.kind->raw && (strcmp(format, "raw") != 0 || name || c->backing)) {
        return api_error_set(
            x, API_E_UNSUPPORTED, "config.format", "use raw, or a pool of kind dir",
            "volumes of storage pool '%s' are raw and stand on no other", p->config.name);
    }
    if (p->folder.kind->raw && c->has_allocation && c->has_capacity &&
        c->allocation < c->capacity) {
        return api_error_set(x, API_E_UNSUPPORTED, "config.allocation", "leave it out",
                             "volumes of storage pool '%s' get all their room at once",
                             p->config.name);
    }
    if (p->folder.kind->raw && (c->has_mode || c->has_owner || c->has_group)) {
        return api_error_set(
            x, API_E_UNSUPPORTED, "config.mode", "leave it out",
            "volumes of storage pool '%s' are block devices, whose access udev "
            "rules",
            p->config.name);
    }
    if (p->folder.kind->raw && (in->n_options || c->compat || c->has_cluster)) {
        return api_error_set(x, API_E_UNSUPPORTED, "options", "leave them out",
                             "raw volumes have no options");
    }
    if (strcmp(format, "raw") != 0 && strcmp(format, "qcow2") != 0) {
        return api_error_set(x, API_E_UNSUPPORTED, "config.format", "use raw or qcow2",
                             "volumes of format '%s' are not supported", format);
    }
    if (c->label) {
        return refuse(x, "config.label", "leave it out", "security labels are not supported");
    }
    if (c->path && (strncmp(c->path, p->where, n) != 0 || c->path[n] != '/' ||
                    strcmp(c->path + n + 1, c->name) != 0)) {
        return refuse(x, "config.path", "leave it out",
                      "the file of a volume is the one of its name in the pool's folder");
    }
    if (c->backing) {
        name = strncmp(c->backing, p->where, n) == 0 && c->backing[n] == '/'
                   ? c->backing + n + 1
                   : "/";
    }
    *base = name ? volume_find((struct pool *)p, name) : NULL;
    if (name && (!*base || (*base)->hidden || (*base)->busy)) {
        return api_error_set(x, API_E_NOT_FOUND, in->backing_volume ? name : c->backing,
                             "it must be a volume of the same pool",
                             "there is no volume '%s' in storage pool '%s' to stand on",
                             in->backing_volume ? name : c->backing, p->config.name);
    }
    if (*base && strcmp(format, "qcow2") != 0) {
        return refuse(x, "config.format", "use qcow2",
                      "a raw volume cannot stand on another one");
    }
    if (!*base && (!c->has_capacity || c->capacity <= 0)) {
        return refuse(x, "config.capacity", "say how large it is to be",
                      "a volume without a backing volume needs a capacity");
    }
    return check_options(in, x);
}

static void create_args(struct vop *op, const struct api_volume_create_in *in,
                        const struct volume *base)
{
    const struct api_volume_config *c = in->config;
    char text[64];
    vop_arg(op, "create");
    vop_arg(op, "-q");
    vop_arg(op, "-f");
    vop_arg(op, op->format);
    if (base) {
        vop_arg(op, "-b");
        vop_arg(op, base->name);
        vop_arg(op, "-F");
        vop_arg(op, api_disk_format_name(base->format));
    }
    if (c->compat) {
        snprintf(text, sizeof(text), "compat=%s", c->compat);
        vop_arg(op, "-o");
        vop_arg(op, text);
    }
    if (c->has_cluster) {
        snprintf(text, sizeof(text), "cluster_size=%" PRId64, c->cluster);
        vop_arg(op, "-o");
        vop_arg(op, text);
    }
    if (c->lazy_refcounts) {
        vop_arg(op, "-o");
        vop_arg(op, "lazy_refcounts=on");
    }
    for (size_t i = 0; i < in->n_options; i++) {
        AUTO_FREE char *one = xasprintf("-o%s", in->options[i]);
        vop_arg(op, one);
    }
    if (c->has_capacity) {
        snprintf(op->size, sizeof(op->size), "%" PRId64, c->capacity);
    }
}

static void again_create(struct api_call *call, void *in)
{
    api_handle_volume_create(call, in);
}

void api_handle_volume_create(struct api_call *call, struct api_volume_create_in *in)
{
    struct api_error x = API_ERROR_INIT;
    const struct api_volume_config *c = in->config;
    struct volume *base, *v;
    struct pool *p = call_pool(call, in->pool, API_ROLE_OPERATOR, true, again_create, in);
    if (!p || is_readonly(call, p)) {
        return;
    }
    if (check_create(p, in, &base, &x) < 0) {
        api_reply_error(call, &x);
        return;
    }
    bool qcow2 = c->format && strcmp(c->format, "qcow2") == 0;
    v = new_volume(call, p, c->name, qcow2 ? API_DISK_FORMAT_QCOW2 : API_DISK_FORMAT_RAW);
    if (!v) {
        return;
    }
    struct vop *op = vop_new(call, p, v, c->name);
    op->mode = c->has_mode ? c->mode : -1;
    op->owner = c->has_owner ? c->owner : -1;
    op->group = c->has_group ? c->group : -1;
    if (!qcow2) {
        op->reserve = c->has_allocation && c->allocation < c->capacity ? c->allocation
                                                                       : c->capacity;
    }
    op->capacity = c->has_capacity ? c->capacity : 0;
    create_args(op, in, base);
    make(op, op->f.kind->run_make);
}

static void again_clone(struct api_call *call, void *in)
{
    api_handle_volume_clone(call, in);
}

void api_handle_volume_clone(struct api_call *call, struct api_volume_clone_in *in)
{
    struct pool *p = call_pool(call, in->pool, API_ROLE_OPERATOR, true, again_clone, in);
    struct volume *from = p ? call_volume(call, p, in->volume, false) : NULL;
    if (!from || is_readonly(call, p)) {
        return;
    }
    if (p->folder.kind->raw && in->has_format && in->format != API_DISK_FORMAT_RAW) {
        api_fail(call, API_E_UNSUPPORTED, "format", "use raw, or a pool of kind dir",
                 "volumes of storage pool '%s' are raw", p->config.name);
        return;
    }
    struct volume *v = new_volume(call, p, in->name,
                                  in->has_format ? in->format : from->format);
    if (!v) {
        return;
    }
    struct vop *op = vop_new(call, p, v, in->name);
    AUTO_FREE char *path = volume_path(from);
    const char *const args[] = {
        "convert", "-q", "-f", api_disk_format_name(from->format), "-O", op->format, path
    };
    for (size_t i = 0; i < ARRAY_LEN(args); i++) {
        vop_arg(op, args[i]);
    }
    str_copy(op->from, sizeof(op->from), from->name);
    op->capacity = from->capacity;
    make(op, op->f.kind->run_copy);
}

/* ---- changing ---- */

static void changed(void *arg, const struct err *e)
{
    struct vop *op = arg;
    (void)e; /* the file is what it is; the next look at the pool says so */
    op->v->busy = NULL;
    vop_free(op);
}

/* Work that ends with the volume as op->m says, and an event. */
static void measured(struct work *w)
{
    struct vop *op = container_of(w, struct vop, w);
    struct volume *v = op->v;
    if (w->failed) {
        fail(op);
        v->busy = NULL;
        vop_free(op);
        return;
    }
    volume_take(v, &op->m);
    struct change *c = change_new(op->p->d);
    volume_put(v, c);
    volume_event(v, v->busy, c);
    AUTO_FREE char *object = xasprintf("%s/%s", op->p->config.name, v->name);
    struct json_object *reply = volume_json(v);
    if (op->data) { /* a piece of an upload, the last */
        json_object_put(reply);
        reply = json_object_new_object();
        api_json_set_int(reply, "offset", op->at + (int64_t)op->len);
    }
    call_commit(op->p->d, op->call, c, object, reply, changed, op);
}

static void again_resize(struct api_call *call, void *in)
{
    api_handle_volume_resize(call, in);
}

void api_handle_volume_resize(struct api_call *call, struct api_volume_resize_in *in)
{
    struct pool *p = call_pool(call, in->pool, API_ROLE_OPERATOR, true, again_resize, in);
    struct volume *v = p ? call_volume(call, p, in->volume, true) : NULL;
    if (!v) {
        return;
    }
    if (in->capacity < v->capacity && !in->shrink) {
        api_fail(call, API_E_INVALID_PARAMS, "shrink", "say shrink to cut off what lies behind",
                 "volume '%s' has %lld bytes, more than %lld", v->name, (long long)v->capacity,
                 (long long)in->capacity);
        return;
    }
    struct vop *op = vop_new(call, p, v, v->name);
    const char *const args[] = { "resize", "-q", "-f", op->format };
    for (size_t i = 0; i < ARRAY_LEN(args); i++) {
        vop_arg(op, args[i]);
    }
    if (in->shrink) {
        vop_arg(op, "--shrink");
    }
    op->capacity = in->capacity;
    snprintf(op->size, sizeof(op->size), "%" PRId64, in->capacity);
    if (!begin(op, op->f.kind->run_resize, measured, "resized")) {
        vop_free(op);
    }
}

static void again_wipe(struct api_call *call, void *in)
{
    api_handle_volume_wipe(call, in);
}

void api_handle_volume_wipe(struct api_call *call, struct api_volume_wipe_in *in)
{
    struct pool *p = call_pool(call, in->pool, API_ROLE_OWNER, true, again_wipe, in);
    struct volume *v = p ? call_volume(call, p, in->volume, true) : NULL;
    if (!v) {
        return;
    }
    struct vop *op = vop_new(call, p, v, v->name);
    op->random = in->algorithm == API_WIPE_ALGORITHM_RANDOM;
    op->temp = file_temp(&op->f, v->name, "wiped");
    snprintf(op->size, sizeof(op->size), "%" PRId64, v->capacity);
    if (!begin(op, op->f.kind->run_wipe, measured, "wiped")) {
        vop_free(op);
    }
}

/* ---- deleting ---- */

/* The VM whose definition names the file; NULL: none does. */
static struct vm *vm_of(struct vmd *d, const char *path)
{
    size_t n;
    struct vm **list = vm_list_all(d, &n), *found = NULL;
    for (size_t i = 0; i < n && !found; i++) {
        const struct api_vm_config *c = &list[i]->config;
        bool uses = (c->kernel && strcmp(c->kernel, path) == 0) ||
                    (c->initrd && strcmp(c->initrd, path) == 0) ||
                    (c->firmware && strcmp(c->firmware, path) == 0);
        for (size_t k = 0; k < c->n_disks; k++) {
            uses |= c->disks[k].file && strcmp(c->disks[k].file, path) == 0;
        }
        for (size_t k = 0; k < c->n_flash; k++) {
            uses |= strcmp(c->flash[k].file, path) == 0;
        }
        found = uses ? list[i] : NULL;
    }
    free(list);
    return found;
}

static void deleted(void *arg, const struct err *e)
{
    struct vop *op = arg;
    struct volume *v = op->v;
    if (e) {
        v->busy = NULL;
        clean(op, op->f.kind->run_unhide);
        return;
    }
    volume_drop(v);
    clean(op, op->f.kind->run_forget);
}

static void hidden(struct work *w)
{
    struct vop *op = container_of(w, struct vop, w);
    struct volume *v = op->v;
    if (w->failed) {
        fail(op);
        v->busy = NULL;
        vop_free(op);
        return;
    }
    struct change *c = change_new(op->p->d);
    volume_del(v, c);
    volume_event(v, "deleted", c);
    AUTO_FREE char *object = xasprintf("%s/%s", op->p->config.name, v->name);
    struct api_volume_delete_out out = { .name = v->name };
    call_commit(op->p->d, op->call, c, object, api_encode(&api_type_volume_delete_out, &out),
                deleted, op);
}

static void again_delete(struct api_call *call, void *in)
{
    api_handle_volume_delete(call, in);
}

void api_handle_volume_delete(struct api_call *call, struct api_volume_delete_in *in)
{
    struct pool *p = call_pool(call, in->pool, API_ROLE_OWNER, true, again_delete, in);
    struct volume *v = p ? call_volume(call, p, in->volume, true) : NULL;
    AUTO_FREE char *path = v ? volume_path(v) : NULL;
    struct vm *vm = v ? vm_of(p->d, path) : NULL;
    if (vm) {
        api_fail(call, API_E_BUSY, v->name, "delete the VM first, or take the disk from it",
                 "VM '%s' uses volume '%s'", vm->config.name, v->name);
        return;
    }
    if (!v) {
        return;
    }
    struct vop *op = vop_new(call, p, v, v->name);
    op->temp = file_temp(&op->f, v->name, "gone");
    if (!begin(op, op->f.kind->run_hide, hidden, "deleted")) {
        vop_free(op);
    }
}

/* ---- looking ---- */

static int volume_order(const void *a, const void *b)
{
    return strcmp((*(struct volume *const *)a)->name, (*(struct volume *const *)b)->name);
}

static void again_list(struct api_call *call, void *in)
{
    api_handle_volume_list(call, in);
}

void api_handle_volume_list(struct api_call *call, struct api_volume_list_in *in)
{
    struct pool *p = call_pool(call, in->pool, API_ROLE_VIEWER, false, again_list, in);
    size_t n = 0;
    if (!p) {
        return;
    }
    AUTO_FREE struct volume **all = xalloc((p->n_volumes + 1) * sizeof(*all));
    list_for_each (it, &p->volumes) {
        struct volume *v = list_entry(it, struct volume, link);
        if (!v->hidden) {
            all[n++] = v;
        }
    }
    if (n) {
        qsort(all, n, sizeof(*all), volume_order);
    }
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();
    for (size_t i = 0; i < n; i++) {
        json_object_array_add(list, volume_json(all[i]));
    }
    api_json_set(o, "volumes", list);
    api_reply_json(call, o);
}

/* Also of one that is being changed. */
static struct volume *look_at(struct api_call *call, struct pool *p, const char *name)
{
    struct volume *v = volume_find(p, name);
    return v && !v->hidden ? v : call_volume(call, p, name, false);
}

static void again_get(struct api_call *call, void *in)
{
    api_handle_volume_get(call, in);
}

void api_handle_volume_get(struct api_call *call, struct api_volume_get_in *in)
{
    struct pool *p = call_pool(call, in->pool, API_ROLE_VIEWER, false, again_get, in);
    struct volume *v = p ? look_at(call, p, in->volume) : NULL;
    if (v) {
        api_reply_json(call, volume_json(v));
    }
}

static void again_xml(struct api_call *call, void *in)
{
    api_handle_volume_xml(call, in);
}

void api_handle_volume_xml(struct api_call *call, struct api_volume_xml_in *in)
{
    struct pool *p = call_pool(call, in->pool, API_ROLE_VIEWER, false, again_xml, in);
    struct volume *v = p ? look_at(call, p, in->volume) : NULL;
    if (v) {
        AUTO_JSON o = volume_definition(v);
        AUTO_FREE char *text = xml_print(&xml_volume, o);
        api_reply_volume_xml(call, &(struct api_volume_xml_out){ .xml = text });
    }
}

/* ---- bytes ---- */

static void was_read(struct work *w)
{
    struct vop *op = container_of(w, struct vop, w);
    if (w->failed) {
        fail(op);
    } else {
        AUTO_FREE char *text = xalloc(op->len / 3 * 4 + 8);
        EVP_EncodeBlock((unsigned char *)text, op->data, (int)op->len);
        api_reply_volume_read(op->call,
                              &(struct api_volume_read_out){ .data = text, .size = op->total });
    }
    vop_free(op);
}

static void again_read(struct api_call *call, void *in)
{
    api_handle_volume_read(call, in);
}

void api_handle_volume_read(struct api_call *call, struct api_volume_read_in *in)
{
    struct pool *p = call_pool(call, in->pool, API_ROLE_OPERATOR, true, again_read, in);
    struct volume *v = p ? call_volume(call, p, in->volume, false) : NULL;
    if (!v || (!p->folder.kind->run_read && is_readonly(call, p))) {
        return;
    }
    struct vop *op = vop_new(call, p, NULL, v->name);
    op->at = in->offset;
    op->len = (size_t)in->length;
    op->data = xalloc(op->len);
    if (!begin(op, op->f.kind->run_read, was_read, NULL)) {
        vop_free(op);
    }
}

static void appended(struct work *w)
{
    struct vop *op = container_of(w, struct vop, w);
    op->v->busy = NULL;
    if (w->failed) {
        fail(op);
    } else {
        api_reply_volume_write(
            op->call, &(struct api_volume_write_out){ .offset = op->at + (int64_t)op->len });
    }
    vop_free(op);
}

static void again_write(struct api_call *call, void *in)
{
    api_handle_volume_write(call, in);
}

void api_handle_volume_write(struct api_call *call, struct api_volume_write_in *in)
{
    struct pool *p = call_pool(call, in->pool, API_ROLE_OPERATOR, true, again_write, in);
    struct volume *v = p ? call_volume(call, p, in->volume, true) : NULL;
    if (!v) {
        return; /* answered, and `in` has gone with the call */
    }
    size_t n = strlen(in->data);
    struct vop *op = vop_new(call, p, v, v->name);
    op->data = xalloc(n / 4 * 3 + 4);
    int len = n % 4 == 0 ? EVP_DecodeBlock(op->data, (const unsigned char *)in->data, (int)n)
                         : -1;
    len -= len > 0 && n && in->data[n - 1] == '=';
    len -= len > 0 && n > 1 && in->data[n - 2] == '=';
    if (len < 0 || len > CHUNK) {
        api_fail(call, API_E_INVALID_PARAMS, "data", NULL,
                 len < 0 ? "data: no base64" : "data: too much for one piece");
        vop_free(op);
        return;
    }
    op->len = (size_t)len;
    op->at = in->offset;
    op->last = in->last;
    op->total = v->format == API_DISK_FORMAT_RAW ? v->capacity : 0;
    op->temp = file_temp(&op->f, v->name, "sent");
    if (!begin(op, op->f.kind->run_write, in->last ? measured : appended, "written")) {
        vop_free(op);
    }
}
