/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots, overlays, dirty bitmaps and backups of a running VM's disks: several of them at one instant, all or none. Images are
 * opened first; then the disks stand still, what can be undone is done, and what cannot fail comes last. Main thread.
 */
#include "api-schema/json/json.h"
#include "api-schema/rpc/call.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/emu/emu.h"
#include "storage/bitmap.h"
#include "storage/disk.h"
#include "storage/image.h"
#include "storage/job.h"
#include "storage/snap.h"

#include <errno.h>
#include <string.h>

#define ACTIONS_MAX 64
#define BITMAPS_MAX 1024
#define SNAPSHOTS_MAX 4096

struct action {
    const struct api_disk_action *in;
    struct blk_node *disk;
    struct blk_node *opened;      /* overlay or target, until it is taken */
    struct blk_dirty *d, *before; /* a bitmap, and what it held */
    bool added, was_enabled, done;
};

struct actions {
    struct emu *m;
    struct action a[ACTIONS_MAX];
    unsigned n;
    struct blk_snap snap[ACTIONS_MAX];
    struct blk_job_options job[ACTIONS_MAX];
    struct action *of_job[ACTIONS_MAX];
    unsigned n_snaps, n_jobs;
};

/* --- bitmaps --- */

int disks_find_bitmap(struct blk_node *disk, const char *name, struct blk_dirty **out,
                      struct err *e)
{
    if (blk_dirty_find(disk, name, out, NULL) == 0) {
        return 0;
    }
    return blk_dirty_find(blk_disk_image(disk), name, out, e);
}

static int add_bitmap(struct action *a, struct err *e)
{
    const struct blk_dirty_options o = { .name = a->in->name,
                                         .granularity = a->in->has_granularity
                                                            ? (uint32_t)a->in->granularity
                                                            : 0,
                                         .disabled = a->in->disabled,
                                         .persistent = a->in->persistent };
    struct blk_node *n = a->in->persistent ? blk_disk_image(a->disk) : a->disk;
    int rc;

    if (a->in->persistent && blk_readonly(n)) {
        return err_set(e, -EROFS, "disk '%s' is read-only", blk_name(a->disk));
    }
    if (disks_find_bitmap(a->disk, a->in->name, &a->d, NULL) == 0) {
        return err_set(e, -EEXIST, "disk '%s' has a bitmap '%s' already", blk_name(a->disk),
                       a->in->name);
    }
    rc = blk_dirty_new(n, &o, &a->d, e);
    a->added = rc == 0;
    return rc;
}

/* What d holds, in a bitmap without a name. */
static int copy_bits(struct action *a, struct err *e)
{
    struct blk_dirty_info i;
    int rc;

    blk_dirty_get(a->d, &i);
    const struct blk_dirty_options o = { .granularity = i.granularity, .disabled = true };
    rc = blk_dirty_new(a->disk, &o, &a->before, e);
    return rc == 0 ? blk_dirty_merge(a->before, a->d, e) : rc;
}

static int merge(struct action *a, struct err *e)
{
    int rc = 0;

    if (a->in->n_sources == 0) {
        return err_set(e, -EINVAL, "bitmap '%s': merging needs sources", a->in->name);
    }
    for (size_t i = 0; i < a->in->n_sources && rc == 0; i++) {
        struct blk_dirty *from;

        rc = disks_find_bitmap(a->disk, a->in->sources[i], &from, e);
        rc = rc != 0 ? rc : blk_dirty_merge(a->d, from, e);
    }
    return rc;
}

static int change_bitmap(struct emu *m, struct action *a, struct err *e)
{
    struct blk_dirty_info i;
    int rc;

    if (a->in->act == API_DISK_ACTION_KIND_BITMAP_ADD) {
        return add_bitmap(a, e);
    }
    rc = disks_find_bitmap(a->disk, a->in->name, &a->d, e);
    if (rc != 0) {
        return rc;
    }
    blk_dirty_get(a->d, &i);
    if (i.frozen || export_uses_bitmap(m, blk_name(a->disk), a->in->name)) {
        return err_set(e, -EBUSY, "bitmap '%s' of disk '%s' is in use by %s", a->in->name,
                       blk_name(a->disk), i.frozen ? "a backup" : "an NBD export");
    }
    if (a->in->act == API_DISK_ACTION_KIND_BITMAP_REMOVE) {
        return 0; /* when nothing else can fail */
    }
    a->was_enabled = i.enabled;
    rc = copy_bits(a, e);
    if (rc != 0) {
        return rc;
    }
    a->done = true;
    switch (a->in->act) {
    case API_DISK_ACTION_KIND_BITMAP_CLEAR:
        return blk_dirty_clear(a->d, e);
    case API_DISK_ACTION_KIND_BITMAP_MERGE:
        return merge(a, e);
    default:
        return blk_dirty_enable(a->d, a->in->act == API_DISK_ACTION_KIND_BITMAP_ENABLE, e);
    }
}

static void bitmap_end(struct action *a, bool keep)
{
    struct err e = ERR_INIT;
    int rc = 0;

    if (a->done && !keep) {
        rc = blk_dirty_enable(a->d, a->was_enabled, &e);
        rc = rc != 0 ? rc : blk_dirty_clear(a->d, &e);
        rc = rc != 0 ? rc : blk_dirty_merge(a->d, a->before, &e);
    }
    if (rc == 0 && (a->added && !keep)) {
        rc = blk_dirty_free(a->d, &e);
    }
    if (rc == 0 && keep && a->in->act == API_DISK_ACTION_KIND_BITMAP_REMOVE) {
        rc = blk_dirty_free(a->d, &e);
    }
    if (rc != 0) {
        log_error("emu", "%s", e.msg);
    }
    (void)blk_dirty_free(a->before, NULL);
}

static bool is_bitmap(const struct action *a)
{
    return a->in->act >= API_DISK_ACTION_KIND_BITMAP_ADD &&
           a->in->act <= API_DISK_ACTION_KIND_BITMAP_MERGE;
}

/* --- images --- */

static int open_overlay(struct emu *m, struct action *a, struct err *e)
{
    struct blk_node *image = blk_disk_image(a->disk);
    const struct blk_option option[] = { { "backing_file", blk_path(image) },
                                         { "backing_fmt", blk_driver_name(image) } };
    struct blk_create make = { .size = blk_size(a->disk), .option = option, .n_options = 2 };
    const char *format = a->in->has_image_format
                             ? api_enum_name(&api_type_disk_format, (int)a->in->image_format)
                             : "qcow2";

    return jobs_open_image(m, blk_name(a->disk), a->in->file, format,
                           a->in->reuse ? NULL : &make, true, &a->opened, e);
}

static int open_target(struct emu *m, struct action *a, struct err *e)
{
    AUTO_FREE char *name = xasprintf("%s/target", a->in->id);
    struct blk_create make = { .size = blk_size(a->disk) };
    const char *format = a->in->has_image_format
                             ? api_enum_name(&api_type_disk_format, (int)a->in->image_format)
                             : "raw";

    return jobs_open_image(m, name, a->in->file, format, a->in->reuse ? NULL : &make, false,
                           &a->opened, e);
}

static int find(struct actions *t, struct action *a, struct err *e)
{
    bool file = a->in->act == API_DISK_ACTION_KIND_OVERLAY ||
                a->in->act == API_DISK_ACTION_KIND_BACKUP;
    bool backup = a->in->act == API_DISK_ACTION_KIND_BACKUP;

    if (a->in->act == API_DISK_ACTION_KIND_ABORT) {
        return err_set(e, -EINVAL, "Transaction aborted using Abort action");
    }
    a->disk = a->in->disk ? disks_find(t->m, a->in->disk) : NULL;
    if (!a->disk) {
        return err_set(e, -ENOENT, "there is no disk '%s'", a->in->disk ? a->in->disk : "");
    }
    if ((file && !a->in->file) || (backup && !a->in->id) || (!file && !a->in->name)) {
        return err_set(e, -EINVAL, "disk '%s': %s needs a %s", a->in->disk,
                       api_enum_name(&api_type_disk_action_kind, (int)a->in->act),
                       file ? "file" : "name");
    }
    for (struct action *b = t->a; b < a && file; b++) {
        if (b->disk == a->disk && (b->in->act == API_DISK_ACTION_KIND_OVERLAY ||
                                   b->in->act == API_DISK_ACTION_KIND_BACKUP)) {
            return err_set(e, -EBUSY,
                           "disk '%s' cannot get two of overlays and backups at once",
                           a->in->disk);
        }
    }
    if (backup && blk_job_of(t->m->jobs, a->disk)) {
        return err_set(e, -EBUSY, "disk '%s' has a job already", a->in->disk);
    }
    if (!file) {
        return 0;
    }
    return backup ? open_target(t->m, a, e) : open_overlay(t->m, a, e);
}

/* --- all of them --- */

static void on_serving(void *arg, struct blk_job *j)
{
    struct blk_job_info i;

    blk_job_get(j, &i);
    if (i.state == BLK_JOB_ENDED) {
        export_drop_view(arg, i.disk);
    }
}

static int backup_options(struct actions *t, struct action *a, struct err *e)
{
    static const enum blk_job_sync syncs[] = { [API_BLOCK_SYNC_FULL] = BLK_SYNC_FULL,
                                               [API_BLOCK_SYNC_TOP] = BLK_SYNC_TOP,
                                               [API_BLOCK_SYNC_NONE] = BLK_SYNC_NONE };
    struct blk_job_options *o = &t->job[t->n_jobs];
    int rc = 0;

    *o = (struct blk_job_options){ .id = a->in->id,
                                   .kind = BLK_JOB_BACKUP,
                                   .disk = a->disk,
                                   .target = a->opened,
                                   .sync = syncs[a->in->sync],
                                   .speed = (uint64_t)a->in->speed,
                                   .on_target_error = BLK_JOB_ENOSPC,
                                   .serve = a->in->serve,
                                   .bitmap_mode = a->in->keep ? BLK_BITMAP_NEVER
                                                              : BLK_BITMAP_ON_SUCCESS };
    if (a->in->serve) {
        o->changed = on_serving;
        o->arg = t->m;
    }
    if (a->in->bitmap) {
        o->sync = a->in->serve ? BLK_SYNC_NONE : BLK_SYNC_BITMAP;
        rc = disks_find_bitmap(a->disk, a->in->bitmap, &o->bitmap, e);
    }
    t->of_job[t->n_jobs] = a;
    t->n_jobs += rc == 0;
    return rc;
}

/* Bitmaps, in the order in which they are named; and what snapshots and backups need. */
static int prepare(struct actions *t, struct err *e)
{
    int rc = 0;

    for (unsigned i = 0; i < t->n && rc == 0; i++) {
        struct action *a = &t->a[i];

        if (is_bitmap(a)) {
            rc = change_bitmap(t->m, a, e);
        } else if (a->in->act == API_DISK_ACTION_KIND_BACKUP) {
            rc = backup_options(t, a, e);
        } else {
            t->snap[t->n_snaps++] = (struct blk_snap){ .disk = a->disk,
                                                       .name = a->in->name,
                                                       .overlay = a->opened };
        }
    }
    return rc;
}

static int do_all(struct actions *t, struct err *e)
{
    struct blk_job *job[ACTIONS_MAX];
    unsigned which;
    int rc = prepare(t, e);

    if (rc == 0) {
        rc = blk_snap_prepare(t->m->jobs, t->snap, t->n_snaps, &which, e);
    }
    if (rc == 0 && t->n_jobs) {
        rc = jobs_count(t->m) + t->n_jobs > JOBS_MAX
                 ? err_set(e, -EBUSY, "%d jobs are there already", JOBS_MAX)
                 : blk_jobs_start(t->m->jobs, t->job, t->n_jobs, job, &which, e);
        if (rc != 0) {
            blk_snap_finish(t->snap, t->n_snaps, false);
        }
    }
    if (rc == 0) {
        blk_snap_finish(t->snap, t->n_snaps, true);
        for (unsigned i = 0; i < t->n; i++) {
            t->a[i].opened = NULL; /* taken */
        }
    }
    for (unsigned i = t->n; i > 0; i--) {
        if (is_bitmap(&t->a[i - 1])) {
            bitmap_end(&t->a[i - 1], rc == 0);
        }
    }
    return rc;
}

static int run_actions(struct actions *t, struct err *e)
{
    int rc = 0;

    for (unsigned i = 0; i < t->n && rc == 0; i++) {
        rc = find(t, &t->a[i], e);
    }
    if (rc == 0) {
        for (unsigned i = 0; i < t->n; i++) {
            blk_drain_begin(t->a[i].disk);
        }
        rc = do_all(t, e);
        for (unsigned i = 0; i < t->n; i++) {
            blk_drain_end(t->a[i].disk);
        }
    }
    for (unsigned i = 0; i < t->n; i++) {
        blk_close(t->a[i].opened);
    }
    return rc;
}

int disks_act(struct emu *m, const struct api_disk_action *actions, size_t n, struct err *e)
{
    AUTO_FREE struct actions *t = xnew(struct actions);

    if (n > ACTIONS_MAX) {
        return err_set(e, -EINVAL, "at most %d actions go together", ACTIONS_MAX);
    }
    t->m = m;
    t->n = (unsigned)n;
    for (unsigned i = 0; i < t->n; i++) {
        t->a[i].in = &actions[i];
    }
    return run_actions(t, e);
}

void api_handle_emu_disk_actions(struct api_call *call, struct api_emu_disk_actions_in *in)
{
    struct emu *m = control_emu(call);
    struct err e = ERR_INIT;
    int rc;

    if (state_at_work(m)) {
        api_fail(call, API_E_BUSY, m->vm->name, "wait until that is done",
                 "the machine's state is being saved or loaded");
        return;
    }
    rc = disks_act(m, in->actions, in->n_actions, &e);
    if (rc != 0) {
        api_fail(call, jobs_error_code(rc), m->vm->name, NULL, "%s", e.msg);
        return;
    }
    api_reply_emu_disk_actions(call);
}

/* --- for whole machines --- */

int disks_snapshot(struct emu *m, const char *name, struct err *e)
{
    struct blk_snap s[BOARD_MAX_DISKS];
    unsigned n = 0, which;

    for (unsigned i = 0; i < m->n_disks; i++) {
        if (!blk_readonly(m->disk[i])) {
            s[n++] = (struct blk_snap){ .disk = m->disk[i], .name = name };
        }
    }
    return blk_snap_all(m->jobs, s, n, &which, e);
}

int disks_snapshot_delete(struct emu *m, const char *name, struct err *e)
{
    unsigned found;

    return blk_snap_delete(m->disk, m->n_disks, name, &found, e);
}

/* --- looking --- */

static size_t list_bitmaps(struct blk_node *disk, struct blk_node *n,
                           struct api_disk_bitmap *out, size_t room)
{
    size_t count = 0;

    for (struct blk_dirty *d = blk_dirty_each(n, NULL); d && count < room;
         d = blk_dirty_each(n, d)) {
        struct blk_dirty_info i;

        blk_dirty_get(d, &i);
        if (i.name) {
            out[count++] = (struct api_disk_bitmap){ .disk = (char *)blk_name(disk),
                                                     .name = (char *)i.name,
                                                     .granularity = i.granularity,
                                                     .dirty = (int64_t)i.dirty,
                                                     .recording = i.enabled,
                                                     .persistent = i.persistent,
                                                     .busy = i.frozen,
                                                     .inconsistent = i.inconsistent };
        }
    }
    return count;
}

void api_handle_emu_disk_bitmaps(struct api_call *call, struct api_emu_disk_bitmaps_in *in)
{
    struct emu *m = control_emu(call);
    AUTO_FREE struct api_disk_bitmap *list = xnew_n(struct api_disk_bitmap, BITMAPS_MAX);
    size_t n = 0;

    (void)in;
    for (unsigned i = 0; i < m->n_disks; i++) {
        struct blk_node *image = blk_disk_image(m->disk[i]);

        n += list_bitmaps(m->disk[i], m->disk[i], list + n, BITMAPS_MAX - n);
        if (image != m->disk[i]) {
            n += list_bitmaps(m->disk[i], image, list + n, BITMAPS_MAX - n);
        }
    }
    api_reply_emu_disk_bitmaps(
        call, &(struct api_emu_disk_bitmaps_out){ .bitmaps = list, .n_bitmaps = n });
}

static int list_snapshots(struct blk_node *disk, struct json_object *list, struct err *e)
{
    struct blk_image_info i = { 0 };
    int rc = blk_info(blk_disk_image(disk), &i, e);

    for (size_t k = 0; rc == 0 && k < i.n_snapshots; k++) {
        const struct blk_snapshot *s = &i.snapshot[k];
        struct api_disk_snapshot out = { .disk = (char *)blk_name(disk),
                                         .id = s->id,
                                         .name = s->name,
                                         .size = (int64_t)s->size,
                                         .date = s->date_sec };

        if (json_object_array_length(list) < SNAPSHOTS_MAX) {
            json_object_array_add(list, api_encode(&api_type_disk_snapshot, &out));
        }
    }
    if (rc == 0) {
        blk_info_done(&i);
    }
    return rc;
}

void api_handle_emu_disk_snapshots(struct api_call *call, struct api_emu_disk_snapshots_in *in)
{
    struct emu *m = control_emu(call);
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();
    struct err e = ERR_INIT;
    int rc = 0;

    (void)in;
    api_json_set(o, "snapshots", list);
    for (unsigned i = 0; i < m->n_disks && rc == 0; i++) {
        rc = list_snapshots(m->disk[i], list, &e);
    }
    if (rc != 0) {
        json_object_put(o);
        api_fail(call, API_E_FILE_ERROR, m->vm->name, NULL, "%s", e.msg);
        return;
    }
    api_reply_json(call, o);
}

void api_handle_emu_disk_snapshot_delete(struct api_call *call,
                                         struct api_emu_disk_snapshot_delete_in *in)
{
    struct emu *m = control_emu(call);
    struct blk_node *one = in->disk ? disks_find(m, in->disk) : NULL;
    unsigned found = 0;
    struct err e = ERR_INIT;
    int rc = 0;

    if (!in->disk || one) {
        rc = blk_snap_delete(one ? &one : m->disk, one ? 1 : m->n_disks, in->name, &found, &e);
    }
    if (rc != 0) {
        api_fail(call, jobs_error_code(rc), in->name, NULL, "%s", e.msg);
    } else if (found == 0) {
        api_fail(call, API_E_NOT_FOUND, in->name, "'vmctl disk snapshots' lists them",
                 "no such disk of VM '%s' has a snapshot '%s'", m->vm->name, in->name);
    } else {
        api_reply_emu_disk_snapshot_delete(call);
    }
}
