/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside block jobs: job.c drives them on the loop, job_copy.c moves data on workers, job_chain.c changes
 * the graph when a job ends. Fields say who may touch them.
 */
#ifndef VMD_STORAGE_JOB_INT_H
#define VMD_STORAGE_JOB_INT_H

#include "engine/base/loop.h"
#include "storage/disk.h"
#include "storage/driver.h"
#include "storage/job.h"
#include "storage/work.h"

#include <pthread.h>

#define JOB_PIECE (1u << 20)        /* bytes copied at once */
#define JOB_SLICE (16u << 20)       /* until the loop is told */
#define JOB_LAST_STRETCH (4u << 20) /* what may be copied while the guest's requests wait */
#define JOB_CATCH_UP 20             /* slices after which that is done whatever is left */
#define JOB_PARTS 4                 /* workers of a keen mirror */

/* One of the workers that copy for a mirror, each another piece. */
struct blk_job_part {
    struct blk_job *job;
    struct work work;
    void *memory;   /* JOB_PIECE */
    uint64_t at, n; /* the piece under way; under blk_job.pick; n 0: none */
    uint64_t moved;
    int rc;
    bool source_error, nothing_left;
};

struct blk_jobs {
    struct loop *loop;
    struct workers *workers;
    struct list all;
};

struct blk_job {
    struct list link;
    struct blk_jobs *jobs;
    struct blk_job_options o; /* texts owned */
    /* loop */
    enum blk_job_state state;
    bool begun, user_paused, error_paused, completing, cancelling, force, was_ready, swapped;
    bool still;        /* nobody writes to the disk until it has ended */
    bool slicing;      /* work is queued or runs */
    bool ending;       /* `error` is known; the last work of others is waited for */
    unsigned urgents;  /* pieces of work for waiting guests that were not told yet */
    unsigned catch_up; /* slices since completion was asked for */
    int io_error, error;
    char message[200];
    struct loop_timer *timer;
    int64_t resume_ns; /* with a speed: when the next slice may begin */
    struct blk_claim *claim;
    struct blk_node *view; /* job_view.c's; NULL: none was asked for */
    bool froze;            /* its bitmap stands still */
    /* one slice; the worker's while slicing */
    struct work work;
    uint64_t budget, moved;
    int rc;
    bool source_error, nothing_left;
    bool flushing;  /* loop: keen: the target is writing back */
    bool unwritten; /* keen: the target has not written back all of it */
    uint64_t rate;  /* keen: bytes a second of the last slice that says something */
    struct blk_job_part part[JOB_PARTS]; /* a mirror's; others use the first one's memory */
    unsigned n_parts, parts_left;        /* left: loop */
    int64_t slice_ns;                    /* when the slice began */
    pthread_mutex_t pick; /* a mirror's cursor and rounds, and what its parts are at */
    uint64_t cursor, scanned;
    unsigned rounds; /* how often a mirror has been through the disk */
    bool scanning;   /* which parts a mirror copies is not known yet */
    struct blk_dirty *dirty;
    /* any thread */
    _Atomic bool halt;
    _Atomic uint64_t done, total;
    /* backup and stream: under the guard's lock */
    struct blk_guard guard;
    uint64_t *todo, *busy;
    uint64_t n_bits, n_todo, n_busy, lock_at, lock_n;
    uint64_t size; /* backup: of the disk, when it began */
    unsigned shift;
    bool guarded, guard_off, urgent_runs;
    int urgent_rc;
};

/* --- job_copy.c: on a worker --- */
/* One piece. 0 and *moved (0: nothing to do at the moment), or a negative errno. */
int job_step(struct blk_job *j, uint64_t *moved);
/* The same of a mirror's part. */
int job_step_part(struct blk_job_part *p, uint64_t *moved);
/* Makes ready what the steps need; the disk is drained. */
int job_prepare(struct blk_job *j, struct err *e);
void job_unprepare(struct blk_job *j);
/* What a mirror still has to copy. */
uint64_t job_left(const struct blk_job *j);

/* A backup: that piece still lies in the image alone. With the guard's lock held. */
bool job_todo(const struct blk_job *j, uint64_t piece);

/* --- job.c: on the loop --- */
void job_urgent_done(struct blk_job *j);
void job_view_left(struct blk_job *j); /* the last reader of a view that is over */

/* --- job_view.c: on the loop --- */
/* Nobody enters the view any more. False: somebody is in it, and job_view_left() comes. */
bool job_view_close(struct blk_job *j);
void job_view_drop(struct blk_job *j); /* it knows the job no more */

/* --- job_chain.c: on the loop, with the disk drained --- */
bool job_has_image(const struct blk_node *disk,
                   const struct blk_node *n); /* in the disk's chain */
struct blk_node *job_above(struct blk_node *disk, const struct blk_node *n);
int job_finish_chain(struct blk_job *j, struct err *e);
/* What lies at an offset according to images from `from` to above `base` alone. Any thread. */
int job_map_until(struct blk_node *from, const struct blk_node *base, uint64_t offset,
                  struct blk_extent *out);

#endif
