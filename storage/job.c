/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block jobs: what drives them. Between slices the loop looks at what people asked for, at errors and at the speed.
 * Loop thread.
 */
#include "storage/job.h"

#include "engine/base/mem.h"
#include "storage/bitmap.h"
#include "storage/job_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SECOND 1000000000ll
#define SPEED_NS (SECOND / 10) /* how long a slice may last that has a speed */
#define KEEN_NS (SECOND / 100)
#define KEEN_SAYS 65536 /* bytes moved that say how fast it goes */

static void pump(struct blk_job *j);

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * SECOND + t.tv_nsec;
}

static void tell(struct blk_job *j)
{
    if (j->begun && j->o.changed) {
        j->o.changed(j->o.arg, j);
    }
}

static void set_state(struct blk_job *j, enum blk_job_state state)
{
    if (j->state != state) {
        j->state = state;
        tell(j);
    }
}

static bool swaps(const struct blk_job *j)
{
    return j->o.kind == BLK_JOB_MIRROR || (j->o.kind == BLK_JOB_COMMIT && !j->o.top);
}

/* --- the end --- */

static void bitmap_end(struct blk_job *j)
{
    if (j->froze) {
        j->froze = false;
        blk_dirty_thaw(j->o.bitmap,
                       j->o.bitmap_mode == BLK_BITMAP_ALWAYS ||
                           (j->o.bitmap_mode == BLK_BITMAP_ON_SUCCESS && j->error == 0));
    }
}

/* Nobody works on it any more. */
static void end_now(struct blk_job *j)
{
    job_view_drop(j);
    bitmap_end(j);
    job_unprepare(j);
    blk_unclaim(j->claim);
    j->claim = NULL;
    if (j->o.target) {
        struct err e = ERR_INIT;

        if (blk_close_flush(take_ptr(j->o.target), &e) != 0 && j->error == 0) {
            j->error = e.code;
            snprintf(j->message, sizeof(j->message), "%.*s", (int)sizeof(j->message) - 1,
                     e.msg);
        }
    }
    if (j->error == 0) {
        j->total = j->done;
    }
    loop_timer_disarm(j->timer);
    set_state(j, BLK_JOB_ENDED);
}

static void end_when_alone(struct blk_job *j)
{
    if (job_view_close(j) && j->urgents == 0) {
        end_now(j);
    }
}

static void end(struct blk_job *j, int error, const char *why)
{
    if (j->ending) {
        return;
    }
    if (error != 0 && !j->message[0]) {
        snprintf(j->message, sizeof(j->message), "%s%s%s", why ? why : "", why ? ": " : "",
                 strerror(-error));
    }
    j->error = error;
    j->ending = true;
    if (j->guarded) { /* the guest waits for nothing any more */
        blk_guard_lock(j->o.disk);
        j->guard_off = true;
        blk_guard_unlock(j->o.disk);
        blk_guard_recheck(j->o.disk);
    }
    end_when_alone(j);
}

void job_view_left(struct blk_job *j)
{
    if (j->ending) {
        end_when_alone(j);
    }
}

void job_urgent_done(struct blk_job *j)
{
    j->urgents--;
    if (j->ending) {
        end_when_alone(j);
    } else if (j->urgent_rc != 0 && !j->slicing) {
        end(j, j->urgent_rc, "copying what the guest overwrites");
    } else {
        pump(j);
    }
}

/* All that is left, while the guest's requests wait; then the graph changes. */
static void finish_drained(struct blk_job *j)
{
    struct blk_node *disk = j->o.disk;
    struct err e = ERR_INIT;
    uint64_t moved = 1;
    int rc = 0;

    blk_drain_begin(disk);
    j->halt = false;
    while (swaps(j) && rc == 0 && moved > 0) {
        rc = job_step(j, &moved);
    }
    if (rc == 0 && j->o.target) {
        rc = blk_flush(j->o.target);
    }
    if (rc == 0 && j->o.kind == BLK_JOB_COMMIT) {
        rc = blk_flush(j->o.base);
    }
    if (rc == 0 && j->o.kind == BLK_JOB_STREAM) {
        rc = blk_flush(blk_disk_image(disk));
    }
    if (rc == 0) {
        job_unprepare(j); /* its bitmap goes before the disk changes */
        rc = job_finish_chain(j, &e);
    }
    end(j, rc, e.msg[0] ? e.msg : NULL);
    blk_drain_end(disk);
}

static void on_flushed(struct work *w)
{
    struct blk_job *j = container_of(w, struct blk_job, work);

    j->slicing = false;
    if (j->rc != 0) {
        end(j, j->rc, "writing the target back");
    } else {
        finish_drained(j);
    }
}

/* What was written may take long to reach the disk: most of that is done before the guest has to wait. */
static void flush_run(struct work *w)
{
    struct blk_job *j = container_of(w, struct blk_job, work);

    j->rc = j->o.target                   ? blk_flush(j->o.target)
            : j->o.kind == BLK_JOB_COMMIT ? blk_flush(j->o.base)
                                          : blk_flush(blk_disk_image(j->o.disk));
}

static void finish(struct blk_job *j)
{
    j->slicing = true;
    j->work = (struct work){ .run = flush_run, .done = on_flushed };
    workers_queue(j->jobs->workers, &j->work);
}

/* --- slices --- */

static void slice_run(struct work *w)
{
    struct blk_job *j = container_of(w, struct blk_job, work);

    j->moved = 0;
    j->nothing_left = false;
    j->rc = 0;
    while (j->rc == 0 && j->moved < j->budget && !j->halt) {
        uint64_t moved;

        j->rc = job_step(j, &moved);
        j->moved += moved;
        if (j->rc == 0 && moved == 0) {
            j->nothing_left = true;
            break;
        }
    }
}

/* What becomes of an error of a slice. */
static void on_error(struct blk_job *j)
{
    enum blk_job_error policy = j->source_error ? j->o.on_source_error : j->o.on_target_error;

    if (policy == BLK_JOB_ENOSPC) {
        policy = j->rc == -ENOSPC ? BLK_JOB_STOP : BLK_JOB_REPORT;
    }
    if (policy == BLK_JOB_REPORT) {
        end(j, j->rc, j->source_error ? "reading the disk" : "writing the target");
        return;
    }
    j->io_error = j->rc;
    if (policy == BLK_JOB_STOP) {
        j->error_paused = true;
        set_state(j, j->was_ready ? BLK_JOB_STANDBY : BLK_JOB_PAUSED);
        tell(j);
        return;
    }
    loop_timer_arm(j->timer, SPEED_NS); /* ignored: once more, a little later */
}

/* Whether the job has done all it can. */
static bool done_now(struct blk_job *j)
{
    bool all;

    if (!j->nothing_left || j->o.serve) {
        return false;
    }
    if (j->o.kind != BLK_JOB_BACKUP) {
        return true;
    }
    blk_guard_lock(j->o.disk);
    all = j->n_todo == 0;
    blk_guard_unlock(j->o.disk);
    return all;
}

/* So little is left that the guest need not notice when it waits for that. */
static void look_ready(struct blk_job *j)
{
    if (swaps(j) && !j->was_ready && !j->scanning && j->rounds > 0 &&
        job_left(j) <= JOB_LAST_STRETCH) {
        j->was_ready = true;
        j->completing |= j->o.finish;
        if (!j->user_paused) {
            set_state(j, j->completing ? BLK_JOB_ENDING : BLK_JOB_READY);
        }
    }
}

static void on_caught_up(struct blk_job *j)
{
    if (!swaps(j)) {
        finish(j);
        return;
    }
    if (j->completing || j->cancelling) {
        finish(j);
    } else {
        /* looks again what the guest has written */
        loop_timer_arm(j->timer, j->o.keen ? KEEN_NS : SPEED_NS);
    }
}

static void sliced(struct blk_job *j)
{
    j->slicing = false;
    if (j->o.speed) {
        j->resume_ns = now_ns() + (int64_t)((double)j->moved / (double)j->o.speed * SECOND);
    }
    if (j->urgent_rc != 0) {
        end(j, j->urgent_rc, "copying what the guest overwrites");
        return;
    }
    if (j->rc != 0 && !(j->cancelling && j->force)) {
        on_error(j);
        return;
    }
    if (j->moved > 0) {
        tell(j);
    }
    look_ready(j);
    if (j->still) {
        pump(j);
        return;
    }
    if (j->rc == 0 && !(j->cancelling && (j->force || !j->was_ready)) && done_now(j)) {
        on_caught_up(j);
        return;
    }
    if (j->nothing_left && j->rc == 0 && !j->cancelling && j->o.serve) {
        return; /* the guest's writes are what it works for, without the loop */
    }
    if (j->nothing_left && j->rc == 0 && !j->cancelling) {
        loop_timer_arm(j->timer,
                       SPEED_NS / 10); /* a backup whose last parts somebody else copies, or
                                                  * that only follows */
        return;
    }
    if ((j->completing || (j->cancelling && j->was_ready && !j->force)) &&
        (job_left(j) <= JOB_LAST_STRETCH || ++j->catch_up > JOB_CATCH_UP)) {
        finish(j);
        return;
    }
    pump(j);
}

static void on_slice(struct work *w)
{
    sliced(container_of(w, struct blk_job, work));
}

/* --- slices of a keen mirror: several workers copy, then one has the target written back --- */

static void keen_over(struct blk_job *j)
{
    if (!j->still) {
        sliced(j);
        return;
    }
    j->slicing = false;
    if (j->force) {
        end(j, -ECANCELED, NULL);
    } else if (j->rc == 0 && (j->halt || !j->nothing_left)) {
        pump(j); /* it was begun for a guest that ran, or somebody wants another thing of it */
    } else {
        end(j, j->rc, j->source_error ? "reading the disk" : "writing the target");
    }
}

static void on_keen_flushed(struct work *w)
{
    struct blk_job *j = container_of(w, struct blk_job, work);

    j->flushing = false;
    keen_over(j);
}

static void keen_flush(struct work *w)
{
    struct blk_job *j = container_of(w, struct blk_job, work);

    j->source_error = false;
    j->rc = blk_flush(j->o.target);
    j->unwritten = j->rc != 0;
}

static void on_part(struct work *w)
{
    struct blk_job_part *p = container_of(w, struct blk_job_part, work);
    struct blk_job *j = p->job;
    int64_t took;

    if (p->rc != 0 && j->rc == 0) {
        j->rc = p->rc;
        j->source_error = p->source_error;
    }
    j->moved += p->moved;
    j->nothing_left &= p->nothing_left;
    if (--j->parts_left > 0) {
        return;
    }
    took = now_ns() - j->slice_ns;
    if (j->moved >= KEEN_SAYS) {
        j->rate = (uint64_t)((double)j->moved / (double)(took > 0 ? took : 1) * SECOND) + 1;
    }
    j->unwritten |= j->moved > 0;
    if (j->rc != 0 || !j->nothing_left || !j->unwritten || j->halt) {
        keen_over(j);
        return;
    }
    j->flushing = true;
    j->work = (struct work){ .run = keen_flush, .done = on_keen_flushed };
    workers_queue(j->jobs->workers, &j->work);
}

static void part_run(struct work *w)
{
    struct blk_job_part *p = container_of(w, struct blk_job_part, work);
    struct blk_job *j = p->job;
    uint64_t moved = 1;

    while (p->rc == 0 && moved > 0 && !j->halt && p->moved < j->budget) {
        p->rc = job_step_part(p, &moved);
        p->moved += moved;
    }
    p->nothing_left = p->rc == 0 && moved == 0;
}

static void keen_slice(struct blk_job *j)
{
    j->halt = false;
    j->slicing = j->nothing_left = true;
    j->moved = 0;
    j->rc = 0;
    j->budget = (j->o.speed ? j->o.speed / 10 : JOB_SLICE) / j->n_parts + 1;
    j->parts_left = j->n_parts;
    j->slice_ns = now_ns();
    for (unsigned i = 0; i < j->n_parts; i++) {
        struct blk_job_part *p = &j->part[i];

        p->moved = 0;
        p->rc = 0;
        p->source_error = p->nothing_left = false;
        p->work = (struct work){ .run = part_run, .done = on_part };
        workers_queue(j->jobs->workers, &p->work);
    }
}

static void pump(struct blk_job *j)
{
    int64_t wait;

    if (j->slicing || j->ending) {
        return;
    }
    if (j->cancelling && (j->force || !j->was_ready)) {
        end(j, -ECANCELED, NULL);
        return;
    }
    if (j->still) {
        keen_slice(j);
        return;
    }
    if (j->user_paused || j->error_paused) {
        return;
    }
    wait = j->o.speed ? j->resume_ns - now_ns() : 0;
    if (wait > 0) {
        loop_timer_arm(j->timer, wait < SECOND ? wait : SECOND);
        return;
    }
    if (j->o.keen) {
        keen_slice(j);
        return;
    }
    j->halt = false;
    j->slicing = true;
    j->budget = j->o.speed ? j->o.speed / 10 + 1 : JOB_SLICE;
    j->work = (struct work){ .run = slice_run, .done = on_slice };
    workers_queue(j->jobs->workers, &j->work);
}

static void on_timer(void *arg)
{
    pump(arg);
}

/* --- what people ask for --- */

static enum blk_job_state awake(const struct blk_job *j)
{
    return j->was_ready ? BLK_JOB_READY : BLK_JOB_RUNNING;
}

void blk_job_pause(struct blk_job *j)
{
    if (j->state == BLK_JOB_ENDED) {
        return;
    }
    j->user_paused = true;
    j->halt = true;
    set_state(j, j->was_ready ? BLK_JOB_STANDBY : BLK_JOB_PAUSED);
}

int blk_job_resume(struct blk_job *j, struct err *e)
{
    if (!j->user_paused && !j->error_paused) {
        return err_set(e, -EINVAL, "job '%s' is not paused", j->o.id);
    }
    j->user_paused = j->error_paused = false;
    j->io_error = 0;
    set_state(j, awake(j));
    pump(j);
    return 0;
}

void blk_job_set_speed(struct blk_job *j, uint64_t speed)
{
    j->o.speed = speed;
    j->resume_ns = 0;
    j->halt = true; /* the slice under way was made for another speed */
    if (!j->slicing) {
        pump(j);
    }
}

void blk_job_cancel(struct blk_job *j, bool force)
{
    if (j->state == BLK_JOB_ENDED) {
        return;
    }
    j->cancelling = true;
    j->force |= force || !j->was_ready;
    j->halt |= j->force;
    if (!j->force) {
        j->completing = false;
    }
    j->user_paused = j->error_paused = false;
    set_state(j, BLK_JOB_ENDING);
    pump(j);
}

void blk_job_end_still(struct blk_job *j)
{
    if (j->state == BLK_JOB_ENDED) {
        return;
    }
    j->cancelling = j->still = true;
    j->force |= !j->was_ready;
    j->halt = true; /* the slice under way was made for a guest that runs */
    j->completing = j->user_paused = j->error_paused = false;
    j->o.speed = 0;
    set_state(j, BLK_JOB_ENDING);
    pump(j);
}

int blk_job_complete(struct blk_job *j, struct err *e)
{
    if (!swaps(j)) {
        return err_set(e, -EINVAL, "job '%s' ends by itself: it is no mirror", j->o.id);
    }
    if (!j->was_ready || j->cancelling || j->state == BLK_JOB_ENDED) {
        return err_set(e, -EBUSY, "job '%s' is not ready to complete", j->o.id);
    }
    j->completing = true;
    j->user_paused = j->error_paused = false;
    set_state(j, BLK_JOB_ENDING);
    pump(j);
    return 0;
}

void blk_job_get(const struct blk_job *j, struct blk_job_info *out)
{
    *out = (struct blk_job_info){ .id = j->o.id,
                                  .kind = j->o.kind,
                                  .state = j->state,
                                  .disk = j->o.disk,
                                  .done = j->done,
                                  .total = j->total,
                                  .rate = j->rate,
                                  .flushing = j->flushing,
                                  .speed = j->o.speed,
                                  .paused = j->user_paused || j->error_paused,
                                  .io_error = j->io_error,
                                  .source_error = j->source_error,
                                  .swapped = j->swapped,
                                  .cancelled = j->cancelling,
                                  .error = j->error };
    memcpy(out->message, j->message, sizeof(out->message));
}

struct blk_dirty *blk_job_bitmap(const struct blk_job *j)
{
    return j->o.bitmap;
}

void *blk_job_arg(const struct blk_job *j)
{
    return j->o.arg;
}

/* --- beginning --- */

static int check_chain(const struct blk_job_options *o, struct err *e)
{
    struct blk_node *image = blk_disk_image(o->disk);

    if (o->kind == BLK_JOB_STREAM) {
        if (o->base && (o->base == image || !job_has_image(o->disk, o->base))) {
            return err_set(e, -EINVAL, "disk '%s' has no such image below it", o->disk->name);
        }
        if (!image->driver->image || !image->driver->image->set_backing) {
            return err_set(e, -ENOTSUP, "disk '%s': format %s has no backing images",
                           o->disk->name, image->driver->name);
        }
        return image->readonly ? err_set(e, -EROFS, "disk '%s' is read-only", o->disk->name)
                               : 0;
    }
    if (!o->base || o->base == image || !job_has_image(o->disk, o->base) ||
        (o->top && (o->top == image || !job_has_image(o->disk, o->top)))) {
        return err_set(e, -EINVAL, "disk '%s' has no such images", o->disk->name);
    }
    for (const struct blk_node *n = o->base; o->top && n; n = n->kid[BLK_BACKING]) {
        if (n == o->top) {
            return err_set(e, -EINVAL, "disk '%s': '%s' is not below '%s'", o->disk->name,
                           o->base->path, o->top->path);
        }
    }
    if (o->base->readonly) {
        return err_set(e, -EROFS, "disk '%s': %s is not open for writing", o->disk->name,
                       o->base->path);
    }
    if (o->top && job_above(o->disk, o->top)->readonly) {
        return err_set(e, -EROFS, "disk '%s': %s is not open for writing", o->disk->name,
                       job_above(o->disk, o->top)->path);
    }
    return 0;
}

static int check(struct blk_jobs *js, const struct blk_job_options *o, struct err *e)
{
    struct blk_job *other = blk_job_of(js, o->disk);

    if (blk_job_find(js, o->id)) {
        return err_set(e, -EEXIST, "there is a job '%s' already", o->id);
    }
    if (other) {
        return err_set(e, -EBUSY, "disk '%s' is in use by job '%s'", o->disk->name,
                       other->o.id);
    }
    if (o->granularity && (o->granularity & (o->granularity - 1) || o->granularity < 512 ||
                           o->granularity > 64 << 20)) {
        return err_set(e, -EINVAL, "a granularity is a power of two from 512 to 64 MiB");
    }
    if (o->kind == BLK_JOB_STREAM || o->kind == BLK_JOB_COMMIT) {
        return check_chain(o, e);
    }
    if (o->serve && (o->kind != BLK_JOB_BACKUP || o->sync != BLK_SYNC_NONE)) {
        return err_set(e, -EINVAL, "a backup that serves copies nothing by itself (sync none)");
    }
    if (o->sync == BLK_SYNC_BITMAP && !o->bitmap) {
        return err_set(e, -EINVAL, "an incremental copy needs a bitmap");
    }
    if (o->target->readonly) {
        return err_set(e, -EROFS, "target %s is read-only", o->target->path);
    }
    if (o->target->size < o->disk->size) {
        return err_set(e, -EINVAL, "target %s is smaller than disk '%s': %llu and %llu bytes",
                       o->target->path, o->disk->name, (unsigned long long)o->target->size,
                       (unsigned long long)o->disk->size);
    }
    return 0;
}

static struct blk_job *job_new(struct blk_jobs *js, const struct blk_job_options *o)
{
    struct blk_job *j = xnew(struct blk_job);

    j->jobs = js;
    j->o = *o;
    j->o.id = xstrdup(o->id);
    j->o.backing_name = o->backing_name ? xstrdup(o->backing_name) : NULL;
    j->o.backing_format = o->backing_format ? xstrdup(o->backing_format) : NULL;
    j->timer = loop_timer_new(js->loop, on_timer, j);
    pthread_mutex_init(&j->pick, NULL);
    list_append(&js->all, &j->link);
    return j;
}

void blk_job_free(struct blk_job *j)
{
    job_unprepare(j);
    loop_timer_free(j->timer);
    list_remove(&j->link);
    pthread_mutex_destroy(&j->pick);
    free((char *)j->o.id);
    free((char *)j->o.backing_name);
    free((char *)j->o.backing_format);
    free(j);
}

/* Whoever writes into an image of a chain says so. */
static int claim_base(struct blk_job *j, struct err *e)
{
    struct blk_node *base = j->o.base;
    int rc = 0;

    if (j->o.kind != BLK_JOB_COMMIT) {
        return 0;
    }
    rc = blk_claim(base, "a commit job", BLK_PERM_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE,
                   BLK_PERM_READ, &j->claim, e);
    if (rc == 0 && base->size < j->o.disk->size && base->driver->resize) {
        rc = base->driver->resize(base, (j->o.top ? j->o.top : j->o.disk)->size, e);
    }
    return rc;
}

int blk_jobs_start(struct blk_jobs *js, const struct blk_job_options *o, unsigned n,
                   struct blk_job **out, unsigned *which, struct err *e)
{
    unsigned made = 0, i;
    int rc = 0;

    for (i = 0; i < n; i++) {
        blk_drain_begin(o[i].disk);
    }
    for (i = 0; i < n && rc == 0; i++) {
        *which = i;
        rc = check(js, &o[i], e);
        if (rc == 0) {
            out[made++] = job_new(js, &o[i]);
            rc = claim_base(out[i], e);
            rc = rc ? rc : job_prepare(out[i], e);
        }
    }
    for (i = 0; i < made && rc != 0; i++) {
        bitmap_end(out[i]);
        blk_unclaim(out[i]->claim);
        blk_job_free(out[i]);
    }
    for (i = 0; i < n; i++) {
        blk_drain_end(o[i].disk);
    }
    for (i = 0; i < n && rc == 0; i++) {
        out[i]->begun = true;
        pump(out[i]);
    }
    return rc;
}

struct blk_job *blk_job_find(struct blk_jobs *js, const char *id)
{
    list_for_each (it, &js->all) {
        struct blk_job *j = list_entry(it, struct blk_job, link);

        if (strcmp(j->o.id, id) == 0) {
            return j;
        }
    }
    return NULL;
}

struct blk_job *blk_job_of(struct blk_jobs *js, const struct blk_node *disk)
{
    list_for_each (it, &js->all) {
        struct blk_job *j = list_entry(it, struct blk_job, link);

        if (j->o.disk == disk && j->state != BLK_JOB_ENDED) {
            return j;
        }
    }
    return NULL;
}

struct blk_job *blk_job_each(struct blk_jobs *js, struct blk_job *last)
{
    struct list *next = last ? last->link.next : js->all.next;

    return next == &js->all ? NULL : list_entry(next, struct blk_job, link);
}

struct blk_jobs *blk_jobs_new(struct loop *loop, struct workers *w)
{
    struct blk_jobs *js = xnew(struct blk_jobs);

    js->loop = loop;
    js->workers = w;
    list_init(&js->all);
    return js;
}

void blk_jobs_free(struct blk_jobs *js)
{
    if (!js) {
        return;
    }
    while (!list_empty(&js->all)) {
        struct blk_job *j = list_entry(js->all.next, struct blk_job, link);

        blk_job_cancel(j, true);
        while (j->state != BLK_JOB_ENDED && loop_run_once(js->loop, -1, NULL) == 0) {
            /* a slice ends */
        }
        blk_job_free(j);
    }
    free(js);
}
