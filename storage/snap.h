/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots of disks that are in use: all of those named at one instant, or none. Either inside the images, or by images
 * that are put on top of them. Loop thread, a moment during which the disks' requests wait.
 */
#ifndef VMD_STORAGE_SNAP_H
#define VMD_STORAGE_SNAP_H

#include "engine/base/err.h"
#include "storage/block.h"

struct blk_jobs;

struct blk_snap {
    struct blk_node *disk; /* a filter of disk.h; borrowed */
    const char *name;      /* a snapshot of that name inside the image, or */
    /* a writable image that was opened without its backing image, as large as the disk and with nothing in it. It is taken
     * when all went well: the disk goes on with it, and what was the disk's image stands below, read-only from then on. */
    struct blk_node *overlay;
};

/* *which is the one that an error is about. -EEXIST: the name is taken; -EROFS; -ENOTSUP; -EBUSY: a job is at work on a
 * disk that is to get an overlay (jobs may be NULL). Written data of all disks are on stable storage before. */
int blk_snap_all(struct blk_jobs *jobs, const struct blk_snap *s, unsigned n, unsigned *which,
                 struct err *e);
/* The same in two steps, for what has to happen at that instant too: in between the disks are drained. finish() cannot
 * fail; keep false: as if nothing had been (overlays stay the caller's). */
int blk_snap_prepare(struct blk_jobs *jobs, const struct blk_snap *s, unsigned n,
                     unsigned *which, struct err *e);
void blk_snap_finish(const struct blk_snap *s, unsigned n, bool keep);
/* Removes snapshots inside images by name, as far as that goes: each disk that has none of the name is skipped, *found is how
 * many had one. */
int blk_snap_delete(struct blk_node *const *disk, unsigned n, const char *name, unsigned *found,
                    struct err *e);

#endif
