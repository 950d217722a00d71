/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pools of kind logical: the logical volumes of an LVM volume group, by lvm's own program in a process of its own. What is not
 * whole yet, or not any more, has a tag of ours (vmd-new.made.TOKEN.NAME, vmd-gone.gone.TOKEN.NAME), by which a later life of the daemon
 * undoes it. Room comes from whoever had it before, so a volume is overwritten with zeroes before anybody sees it.
 * No state; threads of works.
 */
#include "daemon/storage/files.h"
#include "daemon/storage/lvm_report.h"
#include "daemon/storage/volume_work.h"
#include "daemon/storage/work.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCKS "/run/vmd-lvm"
#define MADE_TAG "vmd-new."
#define GONE_TAG "vmd-gone."
#define GONE_NAME "vmd-gone-"
enum { LVS_MAX = 100000, PIECE = 1 << 20, SECTOR = 512, SETTLE_TRIES = 100, SETTLE_US = 20000 };

static struct vop *op_of(struct work *w)
{
    return container_of(w, struct vop, w);
}

/* The path is /dev/GROUP (check_logical() in rpc_pool.c). */
static const char *group_of(const struct folder *f)
{
    const char *slash = strrchr(f->path, '/');
    return slash ? slash + 1 : f->path;
}

/* `lvm WORDS...`, up to NULL. */
static int lvm(const struct folder *f, const char *const *words, struct buf *out, struct err *e)
{
    AUTO_BUF said = BUF_INIT;
    int rc = works_lvm(f->works, words, out, &said, e);
    if (rc > 0) {
        buf_add_char(&said, 0);
        rc = lvm_complaint((char *)said.data, e);
    }
    return rc;
}

#define LVM(f, e, ...) lvm(f, (const char *const[]){ __VA_ARGS__, NULL }, NULL, e)

static char *member(const struct folder *f, const char *name)
{
    return xasprintf("%s/%s", group_of(f), name);
}

/* ---- what is there ---- */

struct lvs {
    struct lvm_lv *item;
    size_t n;
};

static void lvs_done(struct lvs *l)
{
    lvm_lvs_done(l->item, l->n);
}
#define AUTO_LVS __attribute__((cleanup(lvs_done))) struct lvs

static int list_all(const struct folder *f, struct lvs *out, struct err *e)
{
    const char *const words[] = { "lvs", "--reportformat", "json", "--units",
                                  "b",   "--nosuffix",     "-o",   LVM_LV_FIELDS,
                                  "--",  group_of(f),      NULL };
    AUTO_BUF text = BUF_INIT;
    int rc = lvm(f, words, &text, e);
    return rc < 0 ? rc
                  : lvm_read_lvs((const char *)text.data, text.len, LVS_MAX, &out->item,
                                 &out->n, e);
}

static int look_group(const struct folder *f, struct lvm_vg *out, struct err *e)
{
    const char *const words[] = { "vgs", "--reportformat", "json", "--units",
                                  "b",   "--nosuffix",     "-o",   LVM_VG_FIELDS,
                                  "--",  group_of(f),      NULL };
    AUTO_BUF text = BUF_INIT;
    int rc = lvm(f, words, &text, e);
    return rc < 0 ? rc : lvm_read_vg((const char *)text.data, text.len, out, e);
}

static const struct lvm_lv *find(const struct lvs *l, const char *name)
{
    for (size_t i = 0; i < l->n; i++) {
        if (strcmp(l->item[i].name, name) == 0) {
            return &l->item[i];
        }
    }
    return NULL;
}

static void lvm_room(const struct folder *f, int64_t *capacity, int64_t *available)
{
    struct err e = ERR_INIT;
    struct lvm_vg g;
    if (look_group(f, &g, &e) == 0) {
        *capacity = g.size;
        *available = g.free;
    }
}

/* ---- starting and stopping ---- */

/* Two daemons do not share a group, as they do not share a folder. */
static int take_group(struct folder *f, struct err *e)
{
    AUTO_FREE char *path = xasprintf(LOCKS "/%s", group_of(f));
    struct stat st;
    if (mkdir(LOCKS, 0700) < 0 && errno != EEXIST) {
        return err_errno(e, errno, "cannot make folder '" LOCKS "'");
    }
    if (lstat(LOCKS, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid()) {
        return err_set(e, -EACCES, "'" LOCKS "' is no folder of ours");
    }
    AUTO_FD fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return err_errno(e, errno, "cannot open '%s'", path);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        return err_set(e, -EBUSY, "volume group '%s' is in use by another vmd", group_of(f));
    }
    f->fd = take_fd(&fd);
    return 0;
}

/* Devices on which something is already are refused by lvm, which asks nobody and is told nothing. */
static int make_group(const struct folder *f, const struct folder_make *m, struct err *e)
{
    const char **words = xnew_n(const char *, m->n_devices + 4);
    size_t n = 0;
    words[n++] = "vgcreate";
    words[n++] = "--";
    words[n++] = group_of(f);
    for (size_t i = 0; i < m->n_devices; i++) {
        words[n++] = m->devices[i];
    }
    int rc = m->n_devices ? lvm(f, words, NULL, e)
                          : err_set(e, -ENOENT,
                                    "there is no volume group '%s', and the pool names no "
                                    "devices to make it of",
                                    group_of(f));
    free(words);
    if (rc == -EIO && str_starts(e->msg, "Aborted wiping")) {
        rc = err_set(
            e, -EEXIST,
            "a device of volume group '%s' has something on it (%s); 'wipefs --all' it if "
            "that may go",
            group_of(f), strstr(e->msg, "of ") ? strstr(e->msg, "of ") + 3 : "data");
    }
    return rc;
}

static int lvm_open(struct folder *f, const struct folder_make *m, struct err *e)
{
    struct lvm_vg g;
    int rc = take_group(f, e);
    rc = rc < 0 ? rc : look_group(f, &g, e);
    if (rc == -ENOENT && m->build) {
        rc = make_group(f, m, e);
    }
    return rc < 0 ? rc : LVM(f, e, "vgchange", "-ay", "--", group_of(f));
}

static int open_device(const struct folder *f, const char *name, int flags, int64_t *size,
                       struct err *e)
{
    AUTO_FREE char *path = xasprintf("%s/%s", f->path, name);
    struct stat st;
    uint64_t bytes = 0;
    AUTO_FD fd = open(path, flags | O_CLOEXEC | O_NONBLOCK);
    /* udev may make the node a moment after lvm has returned */
    for (int i = 0; fd < 0 && errno == ENOENT && i < SETTLE_TRIES; i++) {
        usleep(SETTLE_US);
        fd = open(path, flags | O_CLOEXEC | O_NONBLOCK);
    }
    if (fd < 0) {
        return err_errno(e, errno, "cannot open '%s'", path);
    }
    if (fstat(fd, &st) < 0 || !S_ISBLK(st.st_mode) || ioctl(fd, BLKGETSIZE64, &bytes) < 0 ||
        bytes > INT64_MAX) {
        return err_set(e, -EINVAL, "'%s' is no block device", path);
    }
    *size = (int64_t)bytes;
    return take_fd(&fd);
}

/* Whoever uses images as we do is told by name; anybody else that has the device open is one, too. */
static int is_free(const struct folder *f, const char *name, struct err *e)
{
    int64_t size;
    AUTO_LVS all = { .n = 0 };
    int fd = open_device(f, name, O_RDWR, &size, e);
    int rc = fd < 0 ? fd : file_lock_all(fd, f, name, e);
    if (fd >= 0) {
        close(fd); /* it would count */
    }
    rc = rc < 0 ? rc : list_all(f, &all, e);
    if (rc < 0) {
        return rc;
    }
    const struct lvm_lv *v = find(&all, name);
    if (!v) {
        return err_set(e, -ENOENT, "there is no logical volume '%s/%s'", f->path, name);
    }
    return v->open ? err_set(e, -EBUSY, "'%s/%s' is in use by another program", f->path, name)
                   : 0;
}

static int lvm_shut(struct folder *f, struct err *e)
{
    AUTO_LVS all = { .n = 0 };
    int rc = list_all(f, &all, e);
    for (size_t i = 0; rc == 0 && i < all.n; i++) {
        rc = all.item[i].open ? is_free(f, all.item[i].name, e) : 0;
    }
    return rc < 0 ? rc : LVM(f, e, "vgchange", "-an", "--", group_of(f));
}

/* ---- looking ---- */

static const struct known *find_known(const struct known *known, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(known[i].name, name) == 0) {
            return &known[i];
        }
    }
    return NULL;
}

/* WHAT.TOKEN.NAME of a tag: the name; NULL when it is of this life of the daemon, or none. */
static const char *tagged(const struct folder *f, const char *tag)
{
    const char *token = tag ? strchr(tag, '.') : NULL;
    const char *name = token ? strchr(token + 1, '.') : NULL;
    bool ours = name && strncmp(token + 1, f->token, strlen(f->token)) == 0;
    return name && !ours && str_is_name(name + 1) ? name + 1 : NULL;
}

static int remove_lv(const struct folder *f, const char *name, struct err *e)
{
    AUTO_FREE char *which = member(f, name);
    return LVM(f, e, "lvremove", "--force", "--", which);
}

/* Back to the name and without the tag. */
static int restore(const struct folder *f, const char *now, const char *name, const char *gone,
                   struct err *e)
{
    AUTO_FREE char *tag = xasprintf(GONE_TAG "%s", gone), *which = member(f, name);
    int rc = strcmp(now, name) != 0 ? LVM(f, e, "lvrename", "--", group_of(f), now, name) : 0;
    return rc < 0 ? rc : LVM(f, e, "lvchange", "--deltag", tag, "--", which);
}

/* What a former life of the daemon left. True: there was something. */
static bool undo(const struct folder *f, const struct lvm_lv *v, const struct known *known,
                 size_t n)
{
    const char *made = tagged(f, v->made), *gone = tagged(f, v->gone);
    struct err e = ERR_INIT;
    int rc = made                                 ? remove_lv(f, v->name, &e)
             : gone && find_known(known, n, gone) ? restore(f, v->name, gone, v->gone, &e)
             : gone                               ? remove_lv(f, v->name, &e)
                                                  : 0;
    if (rc < 0) {
        log_warn("daemon", "logical volume '%s/%s', which is left over: %s", f->path, v->name,
                 e.msg);
    }
    return made || gone;
}

/* False: it is no volume. */
static bool take(const struct folder *f, const struct lvm_lv *v, const struct known *known,
                 size_t n, struct found *out)
{
    const struct known *k = find_known(known, n, v->name);
    struct err e = ERR_INIT;
    *out = (struct found){ .known = k != NULL };
    if (v->made || v->gone || !v->plain || !str_is_name(v->name) ||
        !str_copy(out->name, sizeof(out->name), v->name)) {
        return false;
    }
    out->m = (struct measure){ .capacity = v->size, .allocation = v->size, .ino = v->id };
    str_copy(out->m.format, sizeof(out->m.format), "raw");
    if (k && k->making == v->id) { /* whole, but never acknowledged */
        out->undone = true;
        if (remove_lv(f, v->name, &e) < 0) {
            log_warn("daemon", "%s", e.msg);
        }
    } else if (k && k->making) {
        out->undone = true;
    }
    return true;
}

static int lvm_scan(const struct folder *f, const struct known *known, size_t n, bool measure,
                    struct found **out, size_t *n_out, struct err *e)
{
    AUTO_LVS before = { .n = 0 };
    AUTO_LVS all = { .n = 0 };
    int rc = list_all(f, &before, e);
    (void)measure;
    for (size_t i = 0; rc == 0 && i < before.n; i++) {
        (void)undo(f, &before.item[i], known, n);
    }
    rc = rc < 0 ? rc : list_all(f, &all, e);
    for (size_t i = 0; rc == 0 && i < all.n; i++) {
        struct found one;
        if (take(f, &all.item[i], known, n, &one)) {
            *out = xrealloc_n(*out, *n_out + 1, sizeof(one));
            (*out)[(*n_out)++] = one;
        }
    }
    return rc;
}

/* ---- bytes ---- */

static int zero(int fd, int64_t from, int64_t to, const char *name, struct err *e)
{
    uint64_t range[2];
    while (from < to) { /* in pieces, so that the daemon can end */
        int64_t n = to - from < INT64_C(1) << 30 ? to - from : INT64_C(1) << 30;
        range[0] = (uint64_t)from;
        range[1] = (uint64_t)n;
        if (ioctl(fd, BLKZEROOUT, range) < 0) {
            return err_errno(e, errno, "cannot overwrite '%s'", name);
        }
        from += n;
    }
    return fsync(fd) < 0 ? err_errno(e, errno, "cannot make '%s' durable", name) : 0;
}

static int zero_from(const struct vop *op, int64_t from, struct err *e)
{
    int64_t size;
    AUTO_FD fd = open_device(&op->f, op->name, O_RDWR, &size, e);
    return fd < 0 ? fd : zero(fd, from, size, op->name, e);
}

/* The source is as long, or shorter; what is zeroes there is so here already. */
static int copy_bytes(const struct vop *op, struct err *e)
{
    int64_t from_size, size;
    AUTO_FD from = open_device(&op->f, op->from, O_RDONLY, &from_size, e);
    AUTO_FD to = from < 0 ? from : open_device(&op->f, op->name, O_RDWR, &size, e);
    AUTO_FREE unsigned char *piece = xalloc(PIECE);
    if (to < 0) {
        return to;
    }
    for (int64_t at = 0; at < from_size;) {
        ssize_t n = pread(from, piece, PIECE, at);
        if (n <= 0) {
            return err_errno(e, n < 0 ? errno : EIO, "cannot read '%s'", op->from);
        }
        bool zeroes = piece[0] == 0 && memcmp(piece, piece + 1, (size_t)n - 1) == 0;
        if (!zeroes && pwrite(to, piece, (size_t)n, at) != n) {
            return err_errno(e, errno ? errno : EIO, "cannot write '%s'", op->name);
        }
        at += n;
    }
    return fsync(to) < 0 ? err_errno(e, errno, "cannot make '%s' durable", op->name) : 0;
}

/* ---- volumes ---- */

static int measure_lv(struct vop *op, struct err *e)
{
    AUTO_LVS all = { .n = 0 };
    int rc = list_all(&op->f, &all, e);
    const struct lvm_lv *v = rc < 0 ? NULL : find(&all, op->name);
    if (rc == 0 && !v) {
        rc = err_set(e, -ENOENT, "there is no logical volume '%s/%s'", op->f.path, op->name);
    }
    if (v) {
        op->m = (struct measure){ .capacity = v->size, .allocation = v->size, .ino = v->id };
    }
    return rc;
}

static int make_lv(struct vop *op, struct err *e)
{
    const char *tag = op->temp + 1; /* without the dot of a file */
    char size[32];
    snprintf(size, sizeof(size), "%" PRId64 "b", (op->capacity + SECTOR - 1) / SECTOR * SECTOR);
    int rc = LVM(&op->f, e, "lvcreate", "--yes", "--wipesignatures", "y", "--zero", "y",
                 "--addtag", tag, "--size", size, "--name", op->name, "--", group_of(&op->f));
    rc = rc < 0 ? rc : zero_from(op, 0, e);
    return rc < 0 ? rc : measure_lv(op, e);
}

static void run_make(struct work *w)
{
    w->failed = make_lv(op_of(w), &w->e) < 0;
}

static void run_copy(struct work *w)
{
    struct vop *op = op_of(w);
    w->failed = make_lv(op, &w->e) < 0 || copy_bytes(op, &w->e) < 0;
}

static void run_place(struct work *w)
{
    struct vop *op = op_of(w);
    AUTO_FREE char *which = member(&op->f, op->name);
    op->placed = true;
    w->failed = LVM(&op->f, &w->e, "lvchange", "--deltag", op->temp + 1, "--", which) < 0;
}

/* Only what is ours: by its tag, or by its identity once it has none. */
static void run_discard(struct work *w)
{
    struct vop *op = op_of(w);
    AUTO_LVS all = { .n = 0 };
    struct err e = ERR_INIT;
    const struct lvm_lv *v = list_all(&op->f, &all, &e) < 0 ? NULL : find(&all, op->name);
    if (v && ((v->made && strcmp(v->made, op->temp + 1 + strlen(MADE_TAG)) == 0) ||
              (op->placed && v->id == op->m.ino))) {
        (void)remove_lv(&op->f, op->name, &e);
    }
}

static void run_resize(struct work *w)
{
    struct vop *op = op_of(w);
    AUTO_FREE char *which = member(&op->f, op->name);
    char size[32];
    int64_t had;
    int rc = is_free(&op->f, op->name, &w->e);
    rc = rc < 0 ? rc : measure_lv(op, &w->e);
    had = op->m.capacity;
    snprintf(size, sizeof(size), "%" PRId64 "b", (op->capacity + SECTOR - 1) / SECTOR * SECTOR);
    rc = rc < 0 ? rc : LVM(&op->f, &w->e, "lvresize", "--force", "--size", size, "--", which);
    if (rc == -EIO && strstr(w->e.msg, "matches existing size")) {
        rc = 0; /* the extents that it has are as many as that takes */
    }
    rc = rc < 0 ? rc : zero_from(op, had, &w->e);
    rc = rc < 0 ? rc : measure_lv(op, &w->e);
    w->failed = rc < 0;
}

static void run_wipe(struct work *w)
{
    struct vop *op = op_of(w);
    int64_t size;
    int rc = is_free(&op->f, op->name, &w->e);
    AUTO_FD fd = rc < 0 ? rc : open_device(&op->f, op->name, O_RDWR, &size, &w->e);
    rc = fd < 0 ? fd : file_lock_all(fd, &op->f, op->name, &w->e);
    if (rc == 0 && file_fill(fd, size, op->random) < 0) {
        rc = err_errno(&w->e, errno, "cannot overwrite '%s/%s'", op->f.path, op->name);
    }
    rc = rc < 0 ? rc : measure_lv(op, &w->e);
    w->failed = rc < 0;
}

/* The name is free for another one at once. */
static void gone_name(const struct vop *op, char *out, size_t size)
{
    snprintf(out, size, GONE_NAME "%016" PRIx64, (uint64_t)op->m.ino);
}

static void run_hide(struct work *w)
{
    struct vop *op = op_of(w);
    AUTO_FREE char *which = member(&op->f, op->name);
    char name[64];
    int rc = is_free(&op->f, op->name, &w->e);
    rc = rc < 0 ? rc : measure_lv(op, &w->e);
    gone_name(op, name, sizeof(name));
    rc = rc < 0 ? rc : LVM(&op->f, &w->e, "lvchange", "--addtag", op->temp + 1, "--", which);
    if (rc == 0 && LVM(&op->f, &w->e, "lvrename", "--", group_of(&op->f), op->name, name) < 0) {
        struct err e = ERR_INIT;
        (void)LVM(&op->f, &e, "lvchange", "--deltag", op->temp + 1, "--", which);
        rc = -1;
    }
    w->failed = rc < 0;
}

static void run_unhide(struct work *w)
{
    struct vop *op = op_of(w);
    char name[64];
    gone_name(op, name, sizeof(name));
    w->failed = restore(&op->f, name, op->name, op->temp + 1 + strlen(GONE_TAG), &w->e) < 0;
}

static void run_forget(struct work *w)
{
    struct vop *op = op_of(w);
    char name[64];
    gone_name(op, name, sizeof(name));
    w->failed = remove_lv(&op->f, name, &w->e) < 0;
    if (w->failed) {
        log_warn("daemon", "what is left of volume '%s': %s", op->name, w->e.msg);
    }
}

static void run_read(struct work *w)
{
    struct vop *op = op_of(w);
    AUTO_FD fd = open_device(&op->f, op->name, O_RDONLY, &op->total, &w->e);
    ssize_t n = fd < 0 ? fd : pread(fd, op->data, op->len, op->at);
    if (fd >= 0 && n < 0) {
        err_errno(&w->e, errno, "cannot read '%s/%s'", op->f.path, op->name);
    }
    op->len = n < 0 ? 0 : (size_t)n;
    w->failed = n < 0;
}

/* Into its place, since a group seldom has room for the same again; what lies behind the last piece becomes zeroes. */
static int write_piece(struct vop *op, struct err *e)
{
    int64_t size, end = op->at + (int64_t)op->len;
    AUTO_FD fd = open_device(&op->f, op->name, O_RDWR, &size, e);
    int rc = fd < 0 ? fd : file_lock_all(fd, &op->f, op->name, e);
    if (rc < 0) {
        return rc;
    }
    if (end > size || end < op->at) {
        return err_set(e, -ENOSPC, "it has %lld bytes, and no room for more", (long long)size);
    }
    for (size_t done = 0; done < op->len;) {
        ssize_t n = pwrite(fd, op->data + done, op->len - done, op->at + (int64_t)done);
        if (n <= 0 && errno != EINTR) {
            return err_errno(e, errno, "cannot write '%s/%s'", op->f.path, op->name);
        }
        done += n > 0 ? (size_t)n : 0;
    }
    if (!op->last) {
        return 0;
    }
    int64_t edge = (end + SECTOR - 1) / SECTOR * SECTOR;
    AUTO_FREE char *zeroes = xalloc(SECTOR);
    memset(zeroes, 0, SECTOR);
    if (edge > end && pwrite(fd, zeroes, (size_t)(edge - end), end) != edge - end) {
        return err_errno(e, errno, "cannot write '%s/%s'", op->f.path, op->name);
    }
    rc = zero(fd, edge, size, op->name, e);
    return rc < 0 ? rc : measure_lv(op, e);
}

static void run_write(struct work *w)
{
    w->failed = write_piece(op_of(w), &w->e) < 0;
}

const struct pool_kind pool_kind_lvm = {
    .raw = true,
    .tells_all = true,
    .open = lvm_open,
    .shut = lvm_shut,
    .scan = lvm_scan,
    .room = lvm_room,
    .run_make = run_make,
    .run_place = run_place,
    .run_discard = run_discard,
    .run_copy = run_copy,
    .run_resize = run_resize,
    .run_wipe = run_wipe,
    .run_hide = run_hide,
    .run_unhide = run_unhide,
    .run_forget = run_forget,
    .run_read = run_read,
    .run_write = run_write,
};
