/* SPDX-License-Identifier: Apache-2.0 */
/* What threads do for volumes that are files: pools of the kinds dir and fs. See files.h. No state of its own. */
#include "daemon/storage/volume_work.h"

#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <string.h>

static struct vop *op_of(struct work *w)
{
    return container_of(w, struct vop, w);
}

static char *path_of(const struct vop *op, const char *name)
{
    return xasprintf("%s/%s", op->f.path, name);
}

/* Messages tell the name that the volume has, or is to have. */
static void end(struct vop *op, int rc)
{
    char *at = rc < 0 && op->temp ? strstr(op->w.e.msg, op->temp) : NULL;
    size_t long_name = op->temp ? strlen(op->temp) : 0, name = strlen(op->name);
    for (; at && name < long_name; at = strstr(at, op->temp)) {
        memcpy(at, op->name, name);
        memmove(at + name, at + long_name, strlen(at + long_name) + 1);
    }
    op->w.failed = rc < 0;
}

/* The arguments, the file and the size. */
static int run_image(struct vop *op, const char *name, struct err *e)
{
    const char *args[VOP_ARGS + 4];
    AUTO_FREE char *path = path_of(op, name);
    unsigned n = op->n_args;
    memcpy(args, op->args, n * sizeof(*args));
    args[n++] = "--";
    args[n++] = path;
    if (op->size[0]) {
        args[n++] = op->size;
    }
    args[n] = NULL;
    return works_image(op->f.works, op->f.path, args, NULL, e);
}

static void run_make(struct work *w)
{
    struct vop *op = op_of(w);
    const struct folder *f = &op->f;
    int rc = run_image(op, op->temp, &w->e);
    if (rc == 0 && op->reserve > 0) {
        rc = file_reserve(f, op->temp, op->reserve, &w->e);
    }
    if (rc == 0 && (op->mode >= 0 || op->owner >= 0 || op->group >= 0)) {
        rc = file_attributes(f, op->temp, op->mode, op->owner, op->group, &w->e);
    }
    if (rc == 0) {
        rc = file_sync(f, op->temp, &w->e);
    }
    if (rc == 0) {
        rc = file_measure(f, op->temp, op->format, &op->m, &w->e);
    }
    end(op, rc);
}

static void run_place(struct work *w)
{
    struct vop *op = op_of(w);
    int rc = file_name(&op->f, op->temp, op->name, false, &w->e);
    op->placed = rc == 0 || (rc < 0 && rc != -EEXIST);
    w->failed = rc < 0;
}

/* Whatever is left of one that was not acknowledged: by its number, since the name may be another's. */
static void run_discard(struct work *w)
{
    struct vop *op = op_of(w);
    struct measure m = { .capacity = 0 };
    struct err e = ERR_INIT;
    (void)file_remove(&op->f, op->temp, &e);
    if (op->placed && file_measure(&op->f, op->name, "raw", &m, &e) == 0 &&
        m.ino == op->m.ino) {
        (void)file_remove(&op->f, op->name, &e);
    }
    measure_done(&m);
}

static void run_resize(struct work *w)
{
    struct vop *op = op_of(w);
    int rc = file_free(&op->f, op->name, &w->e);
    if (rc == 0) {
        rc = run_image(op, op->name, &w->e);
    }
    if (rc == 0) {
        rc = file_sync(&op->f, op->name, &w->e);
    }
    if (rc == 0) {
        rc = file_measure(&op->f, op->name, op->format, &op->m, &w->e);
    }
    w->failed = rc < 0;
}

/* An image is not empty when it is all zeroes: an empty one takes its place, then the old one is overwritten. */
static int wipe_image(struct vop *op, struct err *e)
{
    AUTO_FREE char *path = path_of(op, op->temp);
    const char *const args[] = { "create", "-q", "-f", op->format, "--", path, op->size, NULL };
    int rc = file_free(&op->f, op->name, e);
    if (rc == 0) {
        rc = works_image(op->f.works, op->f.path, args, NULL, e);
    }
    if (rc == 0) {
        rc = file_sync(&op->f, op->temp, e);
    }
    if (rc == 0) {
        rc = file_name(&op->f, op->temp, op->name, true, e);
    }
    if (rc == 0) {
        rc = file_wipe(&op->f, op->temp, op->random, e);
    }
    (void)file_remove(&op->f, op->temp, NULL);
    return rc;
}

static void run_wipe(struct work *w)
{
    struct vop *op = op_of(w);
    int rc = strcmp(op->format, "raw") == 0 ? file_wipe(&op->f, op->name, op->random, &w->e)
                                            : wipe_image(op, &w->e);
    if (rc == 0) {
        rc = file_measure(&op->f, op->name, op->format, &op->m, &w->e);
    }
    w->failed = rc < 0;
}

static void run_hide(struct work *w)
{
    struct vop *op = op_of(w);
    int rc = file_free(&op->f, op->name, &w->e);
    if (rc == 0) {
        (void)file_remove(&op->f, op->temp, NULL); /* of an earlier volume of that name */
        rc = file_name(&op->f, op->name, op->temp, false, &w->e);
    }
    w->failed = rc < 0;
}

static void run_unhide(struct work *w)
{
    struct vop *op = op_of(w);
    w->failed = file_name(&op->f, op->temp, op->name, false, &w->e) < 0;
}

static void run_forget(struct work *w)
{
    struct vop *op = op_of(w);
    w->failed = file_remove(&op->f, op->temp, &w->e) < 0;
}

static void run_read(struct work *w)
{
    struct vop *op = op_of(w);
    w->failed = file_read(&op->f, op->name, op->at, op->data, &op->len, &op->total, &w->e) < 0;
}

static void run_write(struct work *w)
{
    struct vop *op = op_of(w);
    const struct folder *f = &op->f;
    int rc = file_append(f, op->temp, op->at, op->data, op->len, &w->e);
    if (rc < 0 || !op->last) {
        w->failed = rc < 0;
        return;
    }
    rc = file_free(f, op->name, &w->e);
    if (rc == 0 && op->total > 0) {
        rc = file_extend(f, op->temp, op->total, &w->e);
    }
    if (rc == 0) {
        rc = file_sync(f, op->temp, &w->e);
    }
    if (rc == 0) {
        rc = file_measure(f, op->temp, op->format, &op->m, &w->e);
    }
    if (rc == 0) {
        rc = file_name(f, op->temp, op->name, true, &w->e);
    }
    (void)file_remove(f, op->temp, NULL);
    end(op, rc);
}

const struct pool_kind pool_kind_dir = {
    .open = folder_open,
    .scan = folder_scan,
    .room = folder_room,
    .run_make = run_make,
    .run_place = run_place,
    .run_discard = run_discard,
    .run_copy = run_make,
    .run_resize = run_resize,
    .run_wipe = run_wipe,
    .run_hide = run_hide,
    .run_unhide = run_unhide,
    .run_forget = run_forget,
    .run_read = run_read,
    .run_write = run_write,
};
