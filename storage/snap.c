/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots of disks that are in use. What can fail comes first, while everything can still be taken back: flushes, room in
 * the tables of the images. Only then overlays take their places, which cannot fail. Loop thread.
 */
#include "storage/snap.h"

#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "storage/disk.h"
#include "storage/driver.h"
#include "storage/job.h"

#include <errno.h>
#include <string.h>

static bool has_snapshot(struct blk_node *image, const char *name)
{
    struct blk_image_info i = { 0 };
    bool found = false;

    if (blk_info(image, &i, NULL) == 0) {
        for (size_t k = 0; k < i.n_snapshots; k++) {
            found |= strcmp(i.snapshot[k].name, name) == 0;
        }
        blk_info_done(&i);
    }
    return found;
}

static int check_overlay(struct blk_jobs *jobs, const struct blk_snap *s, struct err *e)
{
    const char *name = blk_name(s->disk);

    if (jobs && blk_job_of(jobs, s->disk)) {
        return err_set(e, -EBUSY, "disk '%s' has a job at work", name);
    }
    if (blk_readonly(s->overlay)) {
        return err_set(e, -EROFS, "disk '%s': %s is read-only", name, blk_path(s->overlay));
    }
    if (blk_child(s->overlay, BLK_BACKING)) {
        return err_set(e, -EINVAL, "disk '%s': %s stands on another image", name,
                       blk_path(s->overlay));
    }
    if (!s->overlay->driver->image || !s->overlay->driver->image->set_backing) {
        return err_set(e, -ENOTSUP, "disk '%s': an image of format %s cannot stand on another",
                       name, blk_driver_name(s->overlay));
    }
    if (blk_size(s->overlay) != blk_size(s->disk)) {
        return err_set(e, -EINVAL, "disk '%s' has %llu bytes, %s has %llu", name,
                       (unsigned long long)blk_size(s->disk), blk_path(s->overlay),
                       (unsigned long long)blk_size(s->overlay));
    }
    return 0;
}

static int check(struct blk_jobs *jobs, const struct blk_snap *s, unsigned at, struct err *e)
{
    struct blk_node *image = blk_disk_image(s[at].disk);
    const char *name = blk_name(s[at].disk);

    for (unsigned i = 0; i < at; i++) {
        bool both = s[i].overlay && s[at].overlay;
        bool same = !s[i].overlay && !s[at].overlay && strcmp(s[i].name, s[at].name) == 0;

        if (s[i].disk == s[at].disk && (both || same)) {
            return err_set(e, -EINVAL, "disk '%s' is named twice", name);
        }
    }
    if (blk_readonly(image)) {
        return err_set(e, -EROFS, "disk '%s' is read-only", name);
    }
    if (s[at].overlay) {
        return check_overlay(jobs, &s[at], e);
    }
    if (!image->driver->image || !image->driver->image->snapshot) {
        return err_set(e, -ENOTSUP,
                       "disk '%s': an image of format %s keeps no snapshots; take one by an "
                       "overlay",
                       name, blk_driver_name(image));
    }
    if (has_snapshot(image, s[at].name)) {
        return err_set(e, -EEXIST, "disk '%s' has a snapshot '%s' already", name, s[at].name);
    }
    return 0;
}

static int flush(struct blk_node *disk, struct err *e)
{
    int rc = blk_flush(blk_disk_image(disk));

    return rc == 0 ? 0 : err_errno(e, -rc, "disk '%s': flush", blk_name(disk));
}

/* The first n of them. */
static void take_back(const struct blk_snap *s, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct err e = ERR_INIT;

        if (!s[i].overlay &&
            blk_snapshot(blk_disk_image(s[i].disk), BLK_SNAP_DELETE, s[i].name, &e) != 0) {
            log_error("storage", "%s: snapshot '%s' stays behind", e.msg, s[i].name);
        }
    }
}

/* Its user is the overlay from now on, for reading. */
static void put_over(struct blk_node *disk, struct blk_node *overlay)
{
    struct blk_node *was = blk_disk_swap(disk, overlay);
    struct err e = ERR_INIT;
    int rc = blk_seal(was, &e);

    if (rc != 0) { /* its data are on the disk; what is told of it in its head may not be */
        log_error("storage", "%s", e.msg);
    }
    blk_unclaim(was->owner);
    was->owner = NULL;
    blk_set_kid(overlay, BLK_BACKING, was);
    if (blk_claims_renew(overlay, &e) != 0) { /* less than before: nobody can refuse it */
        log_error("storage", "%s", e.msg);
    }
}

int blk_snap_prepare(struct blk_jobs *jobs, const struct blk_snap *s, unsigned n,
                     unsigned *which, struct err *e)
{
    unsigned made = 0;
    int rc = 0;

    for (unsigned i = 0; i < n && rc == 0; i++) {
        *which = i;
        rc = check(jobs, s, i, e);
    }
    if (rc != 0) {
        return rc;
    }
    for (unsigned i = 0; i < n; i++) {
        blk_drain_begin(s[i].disk);
    }
    for (unsigned i = 0; i < n && rc == 0; i++) {
        *which = i;
        rc = flush(s[i].disk, e);
    }
    while (made < n && rc == 0) {
        *which = made;
        rc = s[made].overlay
                 ? 0
                 : blk_snapshot(blk_disk_image(s[made].disk), BLK_SNAP_CREATE, s[made].name, e);
        made += rc == 0;
    }
    if (rc != 0) {
        take_back(s, made);
        for (unsigned i = 0; i < n; i++) {
            blk_drain_end(s[i].disk);
        }
    }
    return rc;
}

void blk_snap_finish(const struct blk_snap *s, unsigned n, bool keep)
{
    if (!keep) {
        take_back(s, n);
    }
    for (unsigned i = 0; i < n; i++) {
        if (keep && s[i].overlay) {
            blk_disk_change(s[i].disk, true);
            put_over(s[i].disk, s[i].overlay);
            blk_disk_change(s[i].disk, false);
        }
    }
    for (unsigned i = 0; i < n; i++) {
        blk_drain_end(s[i].disk);
    }
}

int blk_snap_all(struct blk_jobs *jobs, const struct blk_snap *s, unsigned n, unsigned *which,
                 struct err *e)
{
    int rc = blk_snap_prepare(jobs, s, n, which, e);

    if (rc == 0) {
        blk_snap_finish(s, n, true);
    }
    return rc;
}

int blk_snap_delete(struct blk_node *const *disk, unsigned n, const char *name, unsigned *found,
                    struct err *e)
{
    int rc = 0;

    *found = 0;
    for (unsigned i = 0; i < n && rc == 0; i++) {
        struct blk_node *image = blk_disk_image(disk[i]);

        if (!blk_readonly(image) && has_snapshot(image, name)) {
            ++*found;
            blk_drain_begin(disk[i]);
            rc = blk_snapshot(image, BLK_SNAP_DELETE, name, e);
            blk_drain_end(disk[i]);
        }
    }
    return rc;
}
