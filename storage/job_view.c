/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a backup that serves shows: the disk as it was when the job began, as a node that can be read. What the guest has overwritten
 * since is in the target, everything else still in the disk's image; which of both is looked up before a read of the image and again
 * after it, since the guest may have come by meanwhile. So no reader holds up the guest. Readers are on any thread; the job ends on
 * the loop, and not before the last of them has left it.
 */
#include "engine/base/mem.h"
#include "storage/job_int.h"

#include <errno.h>
#include <string.h>

enum { RUN_MAX = 4096 }; /* pieces looked through at once */

struct blk_view {
    struct blk_node node; /* first */
    char *disk;           /* its name */
    struct loop *loop;
    pthread_mutex_t mutex; /* protects what follows */
    struct blk_job *job;   /* NULL: it has ended. Changed by the loop */
    unsigned readers;
    bool over;   /* nobody enters any more */
    bool leaves; /* the loop is to hear that the last reader has left */
};

static struct blk_view *view_of(struct blk_node *n)
{
    return container_of(n, struct blk_view, node);
}

/* --- in and out --- */

static struct blk_job *enter(struct blk_view *v)
{
    struct blk_job *j;

    pthread_mutex_lock(&v->mutex);
    j = v->over ? NULL : v->job;
    v->readers += j != NULL;
    pthread_mutex_unlock(&v->mutex);
    return j;
}

static void on_left(void *arg)
{
    struct blk_view *v = arg;

    pthread_mutex_lock(&v->mutex);
    v->leaves = false;
    pthread_mutex_unlock(&v->mutex);
    if (v->job) {
        job_view_left(v->job);
    }
}

static void leave(struct blk_view *v)
{
    bool tell;

    pthread_mutex_lock(&v->mutex);
    v->readers--;
    tell = v->over && v->readers == 0;
    v->leaves |= tell;
    pthread_mutex_unlock(&v->mutex);
    if (tell) {
        loop_post(v->loop, on_left, v);
    }
}

bool job_view_close(struct blk_job *j)
{
    struct blk_view *v = j->view ? view_of(j->view) : NULL;
    bool idle = true;

    if (v) {
        pthread_mutex_lock(&v->mutex);
        v->over = true;
        idle = v->readers == 0 && !v->leaves;
        pthread_mutex_unlock(&v->mutex);
    }
    return idle;
}

void job_view_drop(struct blk_job *j)
{
    if (j->view) {
        view_of(j->view)->job = NULL;
        j->view = NULL;
    }
}

/* --- what lies where --- */

/* Bytes from `at` on, at most `most`, that are all in the image (*below) or all in the target. 0: the job has failed. */
static uint64_t run_at(struct blk_job *j, uint64_t at, uint64_t most, bool *below)
{
    uint64_t first = at >> j->shift, i = first, end;

    blk_guard_lock(j->o.disk);
    if (j->guard_off || first >= j->n_bits) {
        blk_guard_unlock(j->o.disk);
        return 0;
    }
    *below = job_todo(j, first);
    do {
        i++;
    } while (i < j->n_bits && i < first + RUN_MAX && job_todo(j, i) == *below);
    blk_guard_unlock(j->o.disk);
    end = (i << j->shift) - at;
    return end < most ? end : most;
}

/* All of it has been in the image until now. */
static bool still_below(struct blk_job *j, uint64_t at, uint64_t length)
{
    bool all;

    blk_guard_lock(j->o.disk);
    all = !j->guard_off;
    for (uint64_t i = at >> j->shift; all && i <= (at + length - 1) >> j->shift; i++) {
        all = job_todo(j, i);
    }
    blk_guard_unlock(j->o.disk);
    return all;
}

static int read_part(struct blk_job *j, const struct blk_req *r, struct iovec *iov,
                     uint64_t skip, uint64_t *n)
{
    uint64_t at = r->at + skip;
    struct blk_req part = { .op = BLK_READ, .flags = r->flags, .offset = at, .iov = iov };
    bool below;
    int rc;

    do {
        *n = run_at(j, at, r->length - skip, &below);
        if (*n == 0) {
            return -EIO;
        }
        part.length = *n;
        part.n_iov = blk_iov_slice(r->iov, r->n_iov, skip, *n, iov);
        rc = blk_run(below ? blk_disk_image(j->o.disk) : j->o.target, &part);
    } while (rc == 0 && below && !still_below(j, at, *n));
    return rc;
}

static int view_run(struct blk_node *n, struct blk_req *r)
{
    struct blk_view *v = view_of(n);
    struct blk_job *j;
    uint64_t got;
    int rc = 0;

    if (r->op != BLK_READ) {
        return r->op == BLK_FLUSH ? 0 : -EROFS;
    }
    j = enter(v);
    if (!j) {
        return -EIO;
    }
    AUTO_FREE struct iovec *iov = xnew_n(struct iovec, r->n_iov + 1);
    for (uint64_t at = 0; at < r->length && rc == 0; at += got) {
        rc = read_part(j, r, iov, at, &got);
    }
    leave(v);
    return rc;
}

static int map_part(struct blk_job *j, uint64_t at, struct blk_extent *out, struct err *e)
{
    bool below;
    uint64_t n;
    int rc;

    do {
        n = run_at(j, at, j->view->size - at, &below);
        if (n == 0) {
            return err_set(e, -EIO, "disk '%s': the backup has failed", j->o.disk->name);
        }
        rc = blk_map(below ? blk_disk_image(j->o.disk) : j->o.target, at, out, e);
        out->length = out->length < n ? out->length : n;
    } while (rc == 0 && below && out->length && !still_below(j, at, out->length));
    out->present = true; /* the view has nothing below it */
    return rc;
}

static int view_map(struct blk_node *n, uint64_t offset, struct blk_extent *out, struct err *e)
{
    struct blk_view *v = view_of(n);
    struct blk_job *j = enter(v);
    int rc;

    if (!j) {
        return err_set(e, -EIO, "disk '%s': its backup is over", v->disk);
    }
    rc = map_part(j, offset, out, e);
    leave(v);
    return rc;
}

static int view_close(struct blk_node *n)
{
    struct blk_view *v = view_of(n);

    pthread_mutex_destroy(&v->mutex);
    free(v->disk);
    return 0;
}

static const struct blk_driver view_driver = {
    .name = "view",
    .doc = "a disk as it was when its backup began",
    .kind = BLK_FILTER,
    .size = sizeof(struct blk_view),
    .run = view_run,
    .map = view_map,
    .close = view_close,
};

int blk_job_view(struct blk_job *j, struct blk_node **out, struct err *e)
{
    struct blk_view *v;

    if (!j->o.serve || j->ending) {
        return err_set(e, -EINVAL, "job '%s' is no backup that serves", j->o.id);
    }
    if (!j->view) {
        AUTO_FREE char *name = xasprintf("%s-view", j->o.id);
        const struct blk_options o = { .name = name, .path = "", .readonly = true };

        j->view = blk_node_new(&view_driver, j->o.disk->pool, &o);
        j->view->size = j->size;
        v = view_of(j->view);
        v->disk = xstrdup(j->o.disk->name);
        v->loop = j->jobs->loop;
        v->job = j;
        pthread_mutex_init(&v->mutex, NULL);
        if (j->o.disk->pool) {
            blk_pool_add(j->o.disk->pool, j->view);
        }
    }
    *out = j->view;
    return 0;
}

const char *blk_view_disk(const struct blk_node *n)
{
    return n->driver == &view_driver ? container_of(n, const struct blk_view, node)->disk
                                     : NULL;
}

bool blk_view_over(const struct blk_node *n)
{
    return n->driver == &view_driver && !container_of(n, const struct blk_view, node)->job;
}
