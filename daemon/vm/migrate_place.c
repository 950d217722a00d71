/* SPDX-License-Identifier: Apache-2.0 */
/* See migrate_place.h. */
#include "daemon/vm/migrate_place.h"

#include "api-schema/gen/methods.h"
#include "api-schema/tls/tls.h"
#include "daemon/auth/access.h"
#include "daemon/daemon.h"
#include "daemon/storage/pools.h"
#include "daemon/storage/work.h"
#include "daemon/vm/blockjobs.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MARK "user.vmd.made"

/* ---- the plan ---- */

static struct api_disk *find(struct api_vm_config *config, const char *name)
{
    for (size_t i = 0; i < config->n_disks; i++) {
        char given[32];

        snprintf(given, sizeof(given), "disk%zu", i);
        if (strcmp(config->disks[i].name ? config->disks[i].name : given, name) == 0) {
            return &config->disks[i];
        }
    }
    return NULL;
}

/* A volume that its pool does not have yet: the pool knows it from here on. */
static void plan_volume(struct vmd *d, const struct api_vm_config *config,
                        const struct api_disk *disk, struct place_disk *to)
{
    struct pool *pool = disk->pool && disk->volume ? pool_find(d, disk->pool) : NULL;
    struct volume *v;

    if (!pool || pool->pending || strcmp(pool->project, config->project) != 0 ||
        pool->state != API_POOL_STATE_ACTIVE || pool->folder.kind != &pool_kind_dir ||
        pool->n_volumes >= VOLUMES_MAX) {
        return; /* it has to be there, or it is told why not */
    }
    v = volume_find(pool, disk->volume);
    if (v && (!v->hidden || v->busy || v->making)) {
        return;
    }
    if (v) {
        volume_drop(v);
    }
    v = volume_new(pool, disk->volume, disk->format);
    v->capacity = to->size;
    v->backing = to->backing ? xstrdup(to->backing) : NULL;
    v->backing_format = to->backing_format ? xstrdup(to->backing_format) : NULL;
    v->busy = "received";
    to->pool = xstrdup(disk->pool);
    to->volume = xstrdup(disk->volume);
}

static struct volume *volume_of(struct place *p, const struct place_disk *disk)
{
    struct pool *pool = disk->pool ? pool_find(p->d, disk->pool) : NULL;

    return pool ? volume_find(pool, disk->volume) : NULL;
}

static int plan_one(struct vmd *d, const struct api_migrate_prepare_in *in,
                    const struct api_migrate_disk *from, struct place_disk *to,
                    struct api_error *x)
{
    struct api_disk *disk = find(in->config, from->name);
    const char *slash = disk && disk->file ? strrchr(disk->file, '/') : NULL;

    if (!disk || disk->readonly || disk->cdrom) {
        return api_error_set(x, API_E_INVALID_PARAMS, from->name, NULL,
                             "VM '%s' has no disk '%s' that it writes", in->config->name,
                             from->name);
    }
    if (disk->format != API_DISK_FORMAT_RAW && disk->format != API_DISK_FORMAT_QCOW2) {
        return api_error_set(x, API_E_UNSUPPORTED, from->name,
                             "convert it: 'vmctl image convert'",
                             "disk '%s' has the format %s; raw and qcow2 are copied",
                             from->name, api_disk_format_name(disk->format));
    }
    if (from->backing && disk->format != API_DISK_FORMAT_QCOW2) {
        return api_error_set(x, API_E_INVALID_PARAMS, from->name, NULL,
                             "disk '%s' is raw and stands on no other image", from->name);
    }
    if (from->backing && from->backing[0] != '/') {
        return api_error_set(x, API_E_INVALID_PARAMS, from->name, NULL,
                             "disk '%s' stands on '%s', which is no absolute path", from->name,
                             from->backing);
    }
    *to = (struct place_disk){ .name = xstrdup(from->name),
                               .size = from->size,
                               .used = from->used };
    to->backing = from->backing ? xstrdup(from->backing) : NULL;
    to->backing_format = from->backing_format ? xstrdup(from->backing_format) : NULL;
    if (in->disk_folder) {
        const char *base = slash ? slash + 1 : disk->volume ? disk->volume : from->name;
        AUTO_FREE char *file = xasprintf("%s/%s", in->disk_folder, base);

        disk_takes_file(disk, file, disk->format);
    }
    plan_volume(d, in->config, disk, to);
    return 0;
}

static void make_mark(struct place *p)
{
    unsigned char raw[16];

    if (getrandom(raw, sizeof(raw), 0) == (ssize_t)sizeof(raw)) {
        tls_hex(raw, sizeof(raw), p->mark);
    }
}

/* The file is one that we made. */
static bool is_marked(const char *file, const char *mark)
{
    char found[33] = "";
    struct stat st;
    bool ours = mark[0] &&
                lgetxattr(file, MARK, found, sizeof(found) - 1) == (ssize_t)strlen(mark) &&
                strcmp(found, mark) == 0;

    if (!ours && lstat(file, &st) == 0) {
        log_warn("daemon",
                 "'%s' stays: whether it was made for a VM that did not come is not known",
                 file);
    }
    return ours;
}

struct place *place_new(struct vmd *d, const struct api_migrate_prepare_in *in,
                        struct api_error *x)
{
    struct place *p = xnew(struct place);

    *p = (struct place){ .d = d, .disk = xnew_n(struct place_disk, in->n_disks + 1) };
    make_mark(p);
    if (in->disk_folder && in->disk_folder[0] != '/') {
        api_error_set(x, API_E_INVALID_PARAMS, "disk_folder", NULL, "'%s' is no absolute path",
                      in->disk_folder);
        place_free(p);
        return NULL;
    }
    for (size_t i = 0; i < in->n_disks; i++) {
        if (plan_one(d, in, &in->disks[i], &p->disk[i], x) != 0) {
            place_undo(p, NULL);
            place_free(p);
            return NULL;
        }
        p->n++;
    }
    return p;
}

struct place *place_of_files(struct vmd *d, char *const *files, size_t n, const char *mark)
{
    struct place *p = xnew(struct place);

    *p = (struct place){ .d = d, .disk = xnew_n(struct place_disk, n + 1), .n = n };
    for (size_t i = 0; i < n; i++) {
        p->disk[i] = (struct place_disk){ .file = xstrdup(files[i]),
                                          .made = is_marked(files[i], mark) };
    }
    return p;
}

static bool twice(const struct place *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(p->disk[i].file, p->disk[n].file) == 0) {
            return true;
        }
    }
    return false;
}

int place_settle(struct api_call *call, struct place *p, const struct api_vm_config *config,
                 bool reuse, struct api_error *x)
{
    for (size_t i = 0; i < p->n; i++) {
        struct place_disk *k = &p->disk[i];
        const struct api_disk *disk = find((struct api_vm_config *)(uintptr_t)config, k->name);

        if (!disk->file || disk->file[0] != '/') {
            return api_error_set(x, API_E_UNSUPPORTED, k->name, NULL,
                                 "disk '%s' is no file, and cannot be made here", k->name);
        }
        if (access_file(call, config->project, "disks", disk->file, x) < 0 ||
            (k->backing && access_file(call, config->project, "disks", k->backing, x) < 0)) {
            return -1;
        }
        k->file = xstrdup(disk->file);
        k->format = api_disk_format_name(disk->format);
        k->there = reuse || (disk->volume && !k->volume);
        if (twice(p, i)) {
            return api_error_set(x, API_E_EXISTS, k->file, "give them other names first",
                                 "two disks would be '%s'", k->file);
        }
    }
    return 0;
}

/* ---- on a thread ---- */

struct placing {
    struct work w;
    struct works *works;
    struct place *p;
    bool make;
    int code; /* of the API */
    char object[256];
    const char *remedy; /* static */
    void (*fn)(void *arg, const struct api_error *x);
    void *arg;
};

static char *folder_of(const char *file)
{
    const char *slash = strrchr(file, '/');

    return xasprintf("%.*s", slash == file ? 1 : (int)(slash - file), file);
}

static int refuse(struct placing *k, int code, const char *object, const char *remedy)
{
    k->code = code;
    k->remedy = remedy;
    str_copy(k->object, sizeof(k->object), object);
    return -1;
}

static int look_one(struct placing *k, struct place_disk *disk, struct err *e)
{
    struct stat st;
    bool there = lstat(disk->file, &st) == 0;

    if (there && !disk->there) {
        err_set(e, -EEXIST, "'%s' is there already", disk->file);
        return refuse(k, API_E_EXISTS, disk->file,
                      "remove it, or have it written over: --reuse-images");
    }
    if (there && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        err_set(e, -EINVAL, "'%s' is no image", disk->file);
        return refuse(k, API_E_FILE_ERROR, disk->file, NULL);
    }
    disk->there = there;
    if (disk->backing && stat(disk->backing, &st) != 0) {
        err_errno(e, errno, "disk '%s' stands on '%s', which is not here", disk->name,
                  disk->backing);
        return refuse(k, API_E_FILE_ERROR, disk->backing,
                      "bring it here first, or copy all: --copy-storage-all");
    }
    return 0;
}

/* What the images that lie in one file system will take, at least. */
static int look_room(struct placing *k, size_t first, struct err *e)
{
    AUTO_FREE char *dir = folder_of(k->p->disk[first].file);
    struct statvfs v, other;
    int64_t need = 0, room;

    if (statvfs(dir, &v) != 0) {
        err_errno(e, errno, "folder '%s'", dir);
        return refuse(k, API_E_FILE_ERROR, dir, "make it, or say another: --disk-folder");
    }
    for (size_t i = 0; i < k->p->n; i++) {
        const struct place_disk *disk = &k->p->disk[i];
        AUTO_FREE char *its = folder_of(disk->file);

        if (!disk->there && statvfs(its, &other) == 0 && other.f_fsid == v.f_fsid) {
            need += disk->used < disk->size ? disk->used : disk->size;
        }
    }
    room = (int64_t)v.f_bavail * (int64_t)v.f_frsize;
    if (need > room) {
        err_set(e, -ENOSPC, "the disks take %lld bytes, '%s' has room for %lld",
                (long long)need, dir, (long long)room);
        return refuse(k, API_E_HOST_LIMIT, dir, "make room, or say another: --disk-folder");
    }
    return 0;
}

/* The file is ours, and only then may it be written over or go: somebody may have made one meanwhile. */
static int claim(struct placing *k, struct place_disk *disk, struct err *e)
{
    AUTO_FD fd = open(disk->file, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd >= 0) {
        disk->made = true; /* also when only half of it is */
        (void)fsetxattr(fd, MARK, k->p->mark, strlen(k->p->mark),
                        0); /* else the next daemon lets it be */
        return 0;
    }
    if (errno == EEXIST) {
        err_set(e, -EEXIST, "'%s' is there already", disk->file);
        return refuse(k, API_E_EXISTS, disk->file,
                      "remove it, or have it written over: --reuse-images");
    }
    err_errno(e, errno, "cannot make '%s'", disk->file);
    return refuse(k, errno == ENOSPC ? API_E_HOST_LIMIT : API_E_FILE_ERROR, disk->file, NULL);
}

static int make_one(struct placing *k, struct place_disk *disk, struct err *e)
{
    AUTO_FREE char *dir = folder_of(disk->file);
    const char *args[16];
    char size[24];
    unsigned n = 0;
    int rc;

    snprintf(size, sizeof(size), "%lld", (long long)disk->size);
    args[n++] = "create";
    args[n++] = "-q";
    args[n++] = "-f";
    args[n++] = disk->format;
    if (disk->backing) {
        args[n++] = "-u";
        args[n++] = "-b";
        args[n++] = disk->backing;
        args[n++] = "-F";
        args[n++] = disk->backing_format ? disk->backing_format : "raw";
    }
    args[n++] = "--";
    args[n++] = disk->file;
    args[n++] = size;
    args[n] = NULL;
    if (claim(k, disk, e) != 0) {
        return -1;
    }
    rc = works_image(k->works, dir, args, NULL, e);
    if (rc != 0) {
        return refuse(k, rc == -ENOSPC ? API_E_HOST_LIMIT : API_E_FILE_ERROR, disk->file, NULL);
    }
    return 0;
}

static void run(struct work *w)
{
    struct placing *k = container_of(w, struct placing, w);
    int rc = 0;

    for (size_t i = 0; i < k->p->n && rc == 0 && !k->make; i++) {
        rc = look_one(k, &k->p->disk[i], &w->e);
    }
    for (size_t i = 0; i < k->p->n && rc == 0 && !k->make; i++) {
        rc = look_room(k, i, &w->e);
    }
    for (size_t i = 0; i < k->p->n && rc == 0 && k->make; i++) {
        rc = k->p->disk[i].there ? 0 : make_one(k, &k->p->disk[i], &w->e);
    }
    w->failed = rc != 0;
}

static void ended(struct work *w)
{
    struct placing *k = container_of(w, struct placing, w);
    struct api_error x = API_ERROR_INIT;

    k->p->at_work = false;
    if (k->p->dead) {
        place_free(k->p);
        free(k);
        return;
    }
    for (size_t i = 0; i < k->p->n && k->make && !w->failed; i++) {
        struct volume *v = volume_of(k->p, &k->p->disk[i]);
        if (v) {
            v->busy = NULL;
        }
    }
    if (w->failed) {
        api_error_set(&x, k->code ? k->code : API_E_OVERLOAD, k->object, k->remedy, "%s",
                      w->e.msg);
    }
    k->fn(k->arg, w->failed ? &x : NULL);
    free(k);
}

void place_work(struct place *p, bool make, void (*fn)(void *arg, const struct api_error *x),
                void *arg)
{
    struct placing *k;

    if (p->n == 0) {
        fn(arg, NULL);
        return;
    }
    k = xnew(struct placing);
    *k = (struct placing){
        .works = p->d->pools->works, .p = p, .make = make, .fn = fn, .arg = arg
    };
    k->w = (struct work){ .run = run, .ended = ended };
    if (!works_start(k->works, &k->w)) {
        struct api_error x = API_ERROR_INIT;

        api_error_set(&x, API_E_OVERLOAD, NULL, "try again", "too much work is under way");
        free(k);
        fn(arg, &x);
        return;
    }
    p->at_work = true;
}

/* ---- the end ---- */

/* Those that the pool did not know before. */
static void each_volume(struct place *p, void (*fn)(struct volume *v, struct change *c),
                        struct change *c)
{
    for (size_t i = 0; p && i < p->n; i++) {
        struct volume *v = volume_of(p, &p->disk[i]);

        if (v) {
            fn(v, c);
        }
    }
}

static void keep_volume(struct volume *v, struct change *c)
{
    volume_put(v, c);
    volume_event(v, "created", c);
}

static void drop_volume(struct volume *v, struct change *c)
{
    if (c) {
        volume_del(v, c);
    }
    volume_drop(v);
}

void place_keep(struct place *p, struct change *c)
{
    each_volume(p, keep_volume, c);
}

void place_undo(struct place *p, struct change *c)
{
    for (size_t i = 0; p && i < p->n; i++) {
        if (p->disk[i].made) {
            unlink(p->disk[i].file);
            p->disk[i].made = false;
        }
    }
    each_volume(p, drop_volume, c);
    for (size_t i = 0; p && i < p->n; i++) {
        free(take_ptr(p->disk[i].pool)); /* it is not known there any more */
        free(take_ptr(p->disk[i].volume));
    }
}

void place_free(struct place *p)
{
    if (!p || p->at_work) {
        if (p) {
            p->dead = true;
        }
        return;
    }
    for (size_t i = 0; i < p->n; i++) {
        free(p->disk[i].pool);
        free(p->disk[i].volume);
        free(p->disk[i].name);
        free(p->disk[i].file);
        free(p->disk[i].backing);
        free(p->disk[i].backing_format);
    }
    free(p->disk);
    free(p);
}
