/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block jobs: long work on a VM's disk while its guest goes on writing.
 *
 *   mirror  copies the disk to a target and follows what the guest writes; then the VM goes on with the target, or
 *           the target stays behind as a copy
 *   backup  copies the disk as it was when the job began: what the guest is about to overwrite is copied first.
 *           With a bitmap only what changed since
 *   stream  brings into the image what its backing images hold
 *   commit  writes what images of the chain hold into one below them, which then takes their place
 *
 * A job is driven by the loop and works on threads of storage/work.h, a slice at a time. Everything here belongs to the
 * loop's thread, except where it says otherwise.
 */
#ifndef VMD_STORAGE_JOB_H
#define VMD_STORAGE_JOB_H

#include "engine/base/err.h"
#include "engine/base/list.h"
#include "storage/block.h"

struct blk_dirty;
struct blk_job;
struct workers;

enum blk_job_kind { BLK_JOB_MIRROR, BLK_JOB_BACKUP, BLK_JOB_STREAM, BLK_JOB_COMMIT };
enum blk_job_state {
    BLK_JOB_RUNNING,
    BLK_JOB_PAUSED,
    BLK_JOB_READY,   /* a mirror that has caught up */
    BLK_JOB_STANDBY, /* the same, paused */
    BLK_JOB_ENDING,  /* asked to complete or to stop */
    BLK_JOB_ENDED    /* `error` says how; blk_job_free() */
};
enum blk_job_sync {
    BLK_SYNC_FULL,
    BLK_SYNC_TOP,  /* only what the topmost image holds */
    BLK_SYNC_NONE, /* only what is written from now on (mirror), or overwritten (backup) */
    BLK_SYNC_BITMAP
};
enum blk_job_error { BLK_JOB_REPORT, BLK_JOB_IGNORE, BLK_JOB_STOP, BLK_JOB_ENOSPC };
enum blk_bitmap_mode { BLK_BITMAP_ON_SUCCESS, BLK_BITMAP_NEVER, BLK_BITMAP_ALWAYS };

struct blk_jobs; /* those of a VM */

struct blk_job_options {
    const char *id;
    enum blk_job_kind kind;
    struct blk_node *disk; /* a filter of disk.h; borrowed */
    struct blk_node
        *target; /* mirror, backup: writable, at least as large; taken when the job begins */
    enum blk_job_sync sync;
    struct blk_dirty *bitmap; /* of the disk or of its image */
    /* backup, BLK_SYNC_NONE: others read the disk as it was (blk_job_view()), and it goes on until it is cancelled. A bitmap
     * stands still meanwhile, and tells what it told at that moment. */
    bool serve;
    enum blk_bitmap_mode bitmap_mode;
    uint64_t speed;       /* bytes a second; 0: as fast as it goes */
    uint32_t granularity; /* of a mirror's tracking, or a backup's pieces; 0: chosen */
    enum blk_job_error on_source_error, on_target_error;
    bool finish; /* mirror: without blk_job_complete(), as soon as it has caught up */
    /* mirror: it is to end soon, and its end in no time. Once it has caught up it looks often, and has the target written
     * back. */
    bool keen;
    /* stream: the image below which nothing is copied, or NULL for all. commit: the image that is written into (must be
     * writable), and the topmost whose contents go there; top NULL: the disk's own. */
    struct blk_node *base, *top;
    const char *backing_name,
        *backing_format; /* what the image that loses its backing file says then;
                                                * NULL: nothing */
    /* Told after each change of state and, while it runs, of progress. It may not free the job. */
    void (*changed)(void *arg, struct blk_job *j);
    /* Told with all requests held and all data in the new image, right before the disk stands on that. Not 0: it keeps its own. */
    int (*swapping)(void *arg, const struct blk_node *to, struct err *e);
    void *arg;
};

struct blk_jobs *blk_jobs_new(struct loop *loop, struct workers *w);
/* Stops all; runs the loop until they have ended. NULL is fine. */
void blk_jobs_free(struct blk_jobs *js);
/* All or none, at one moment of all disks. -EBUSY: a disk has a job; -EEXIST: the id is taken. On failure targets stay
 * the caller's, and *which is the one it is about. */
int blk_jobs_start(struct blk_jobs *js, const struct blk_job_options *o, unsigned n,
                   struct blk_job **out, unsigned *which, struct err *e);
/* Before a commit: an image below the disk's becomes writable, through `fd` (taken when that goes well) or by its path. The
 * node is another one afterwards. Loop thread. */
int blk_reopen_base(struct blk_node *disk, struct blk_node *base, int fd, struct err *e);
struct blk_job *blk_job_find(struct blk_jobs *js, const char *id);
struct blk_job *blk_job_of(struct blk_jobs *js,
                           const struct blk_node *disk);                 /* that works; NULL */
struct blk_job *blk_job_each(struct blk_jobs *js, struct blk_job *last); /* NULL: the first */
void blk_job_free(struct blk_job *j); /* one that has ended */

void blk_job_pause(struct blk_job *j);
int blk_job_resume(struct blk_job *j, struct err *e);
void blk_job_set_speed(struct blk_job *j, uint64_t speed);
/* Of a mirror that is ready: without `force` the target is a whole copy at the end, and this is no failure. */
void blk_job_cancel(struct blk_job *j, bool force);
/* The same, without `force`, for a disk that nobody writes to until the job has ended: a worker copies the rest and has it written
 * back, and the loop waits for nobody. blk_job_cancel() with `force` still ends it. */
void blk_job_end_still(struct blk_job *j);
/* A mirror or a commit of the disk's own image: the VM goes on with the target. -EBUSY: not ready yet. */
int blk_job_complete(struct blk_job *j, struct err *e);

struct blk_job_info {
    const char *id;
    enum blk_job_kind kind;
    enum blk_job_state state;
    struct blk_node *disk;
    uint64_t done, total, speed;
    uint64_t
        rate;    /* keen: bytes a second that it copies when there is something; 0: not known */
    bool paused; /* by somebody, or by an error */
    int io_error;      /* why it paused by itself; 0 */
    bool source_error; /* of reading */
    bool flushing;     /* keen: the target is writing back */
    bool swapped;      /* the disk has another image now */
    bool cancelled;
    int error; /* ended: 0, -ECANCELED, ... */
    char message[200];
};
void blk_job_get(const struct blk_job *j, struct blk_job_info *out);
void *blk_job_arg(const struct blk_job *j);

/* A backup that serves: the disk as it was when the job began, to be read. Borrowed until the job has ended, the caller's to
 * close then (when nothing is in flight); reads fail with -EIO from the job's end on. Loop thread. */
int blk_job_view(struct blk_job *j, struct blk_node **out, struct err *e);
/* The name of the disk whose view that is; NULL: it is no view. */
const char *blk_view_disk(const struct blk_node *n);
bool blk_view_over(const struct blk_node *n);              /* its job has ended */
struct blk_dirty *blk_job_bitmap(const struct blk_job *j); /* NULL: it has none */

#endif
