/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block jobs of a running VM (storage/job.h) by the control socket: begun with files that were passed before, looked at, told
 * what to do. One that has ended stays to be seen until it is dismissed. Main thread.
 */
#include "storage/job.h"

#include "api-schema/gen/methods.h"
#include "api-schema/rpc/call.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/emu/emu.h"
#include "storage/bitmap.h"
#include "storage/disk.h"
#include "storage/image.h"
#include "storage/work.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int jobs_start(struct emu *m, struct err *e)
{
    const struct workers_options wo = { .threads = 2,
                                        .thread_start = confine_io_thread,
                                        .arg = m };
    int rc = workers_new(m->loop, &wo, &m->workers, e);

    if (rc == 0) {
        m->jobs = blk_jobs_new(m->loop, m->workers);
    }
    return rc;
}

void jobs_stop(struct emu *m)
{
    blk_jobs_free(m->jobs);
    m->jobs = NULL;
}

void jobs_done(struct emu *m)
{
    jobs_stop(m);
    workers_free(m->workers);
    m->workers = NULL;
}

int jobs_error_code(int rc)
{
    return rc == -EBUSY     ? API_E_BUSY
           : rc == -EEXIST  ? API_E_EXISTS
           : rc == -ENOENT  ? API_E_NOT_FOUND
           : rc == -EINVAL  ? API_E_INVALID_PARAMS
           : rc == -ENOTSUP ? API_E_UNSUPPORTED
                            : API_E_FILE_ERROR;
}

/* --- beginning --- */

int jobs_open_image(struct emu *m, const char *name, const char *path, const char *format,
                    struct blk_create *make, bool no_backing, struct blk_node **out,
                    struct err *e)
{
    struct emu_file *given = given_file(m, path);
    struct emu_chain chain = { .n = 0 };
    struct blk_options o = {
        .name = name, .driver = format, .path = path, .fd = -1, .no_backing = no_backing
    };
    int rc = 0;

    if (!given) {
        return err_set(e, -ENOENT, "the file %s was not passed", path);
    }
    if (make) {
        make->path = path;
        make->driver = format;
        make->given = true;
        make->fd = fcntl(given->fd, F_DUPFD_CLOEXEC, 3);
        rc = make->fd < 0 ? err_errno(e, errno, "%s", path) : blk_create(make, e);
    }
    if (rc == 0) {
        rc = chain_prepare(m, &chain, &o, e);
    }
    if (rc == 0) {
        rc = blk_open(m->pool, &o, out, e);
        chain_done(&chain, rc);
    }
    return rc;
}

static int open_target(struct emu *m, const struct api_emu_job_start_in *in,
                       const struct blk_node *disk, struct blk_node **out, struct err *e)
{
    AUTO_FREE char *name = xasprintf("%s/target", in->id);
    struct blk_create c = { .size = blk_size(disk) };

    return jobs_open_image(m, name, in->target, in->format, in->create ? &c : NULL, false, out,
                           e);
}

/* The image of the disk's chain that lies at a path. */
static struct blk_node *find_image(struct blk_node *disk, const char *path)
{
    struct blk_node *n = blk_disk_image(disk);

    while (n && strcmp(blk_path(n), path)) {
        n = blk_child(n, BLK_BACKING);
    }
    return n;
}

static int chain_options(struct emu *m, const struct api_emu_job_start_in *in,
                         struct blk_job_options *o, struct err *e)
{
    struct emu_file *given = in->base ? given_file(m, in->base) : NULL;
    int rc;

    o->base = in->base ? find_image(o->disk, in->base) : NULL;
    if (in->base && !o->base) {
        return err_set(e, -ENOENT, "disk '%s' has no image %s", blk_name(o->disk), in->base);
    }
    if (o->kind == BLK_JOB_STREAM) {
        o->backing_name = in->base;
        o->backing_format = o->base ? blk_driver_name(o->base) : NULL;
        return 0;
    }
    if (!o->base) {
        return err_set(e, -EINVAL, "disk '%s': a commit needs an image to write to",
                       blk_name(o->disk));
    }
    if (blk_readonly(o->base)) {
        rc = given ? blk_reopen_base(o->disk, o->base, given->fd, e)
                   : err_set(e, -ENOENT, "the file %s was not passed", in->base);
        if (rc != 0) {
            return rc;
        }
        given->fd = -1;
        o->base = find_image(o->disk, in->base);
    }
    o->top = in->top ? find_image(o->disk, in->top) : NULL;
    if (o->top == blk_disk_image(o->disk)) {
        o->top = NULL;
    }
    o->backing_name = in->base;
    o->backing_format = blk_driver_name(o->base);
    return in->top && !find_image(o->disk, in->top)
               ? err_set(e, -ENOENT, "disk '%s' has no image %s", blk_name(o->disk), in->top)
               : 0;
}

/* --- what is left in writing when a disk gets another image --- */

struct record {
    int fd;
};

static int on_swapping(void *arg, const struct blk_node *to, struct err *e)
{
    const struct record *r = arg;
    const char *format = blk_driver_name(to);
    ssize_t n = (ssize_t)strlen(format);

    if (fd_pwrite(r->fd, format, (size_t)n, 0) == n && fdatasync(r->fd) == 0) {
        return 0;
    }
    n = errno;
    (void)fd_pwrite(r->fd, "", 1, 0); /* no format */
    return err_errno(e, (int)n, "the record that the disk has another image");
}

static void record_free(struct record *r)
{
    if (r) {
        fd_autoclose(&r->fd);
        free(r);
    }
}

static void on_changed(void *arg, struct blk_job *j)
{
    struct blk_job_info i;

    blk_job_get(j, &i);
    if (i.state == BLK_JOB_ENDED) {
        record_free(arg);
    }
}

static int take_record(struct emu *m, const char *path, struct blk_job_options *o,
                       struct err *e)
{
    struct emu_file *given = given_file(m, path);
    struct record *r;

    if (!given) {
        return err_set(e, -ENOENT, "the file %s was not passed", path);
    }
    r = xnew(struct record);
    r->fd = take_fd(&given->fd);
    o->arg = r;
    o->changed = on_changed;
    o->swapping = on_swapping;
    return 0;
}

static int job_options(struct emu *m, const struct api_emu_job_start_in *in,
                       struct blk_job_options *o, struct err *e)
{
    static const enum blk_job_kind kinds[] = { [API_BLOCK_JOB_KIND_MIRROR] = BLK_JOB_MIRROR,
                                               [API_BLOCK_JOB_KIND_BACKUP] = BLK_JOB_BACKUP,
                                               [API_BLOCK_JOB_KIND_STREAM] = BLK_JOB_STREAM,
                                               [API_BLOCK_JOB_KIND_COMMIT] = BLK_JOB_COMMIT };
    static const enum blk_job_sync syncs[] = { [API_BLOCK_SYNC_FULL] = BLK_SYNC_FULL,
                                               [API_BLOCK_SYNC_TOP] = BLK_SYNC_TOP,
                                               [API_BLOCK_SYNC_NONE] = BLK_SYNC_NONE };
    int rc = 0;

    o->id = in->id;
    o->kind = kinds[in->kind];
    o->sync = syncs[in->sync];
    o->speed = (uint64_t)in->speed;
    o->finish = in->finish;
    o->on_target_error = BLK_JOB_ENOSPC;
    o->disk = disks_find(m, in->disk);
    if (!o->disk) {
        return err_set(e, -ENOENT, "there is no disk '%s'", in->disk);
    }
    if (blk_job_of(m->jobs, o->disk)) {
        return err_set(e, -EBUSY, "disk '%s' has a job already", in->disk);
    }
    if (o->kind != BLK_JOB_BACKUP && export_uses_bitmap(m, in->disk, NULL)) {
        return err_set(e, -EBUSY, "disk '%s' has a bitmap that NBD clients are told of",
                       in->disk);
    }
    if (in->bitmap) {
        o->sync = BLK_SYNC_BITMAP;
        rc = disks_find_bitmap(o->disk, in->bitmap, &o->bitmap, e);
    }
    if (rc != 0) {
        return rc;
    }
    if (o->kind == BLK_JOB_STREAM || o->kind == BLK_JOB_COMMIT) {
        return chain_options(m, in, o, e);
    }
    if (!in->target || !in->format) {
        return err_set(e, -EINVAL, "a copy needs a target and its format");
    }
    return open_target(m, in, o->disk, &o->target, e);
}

bool jobs_swaps(const struct emu *m, const struct blk_node *disk)
{
    struct blk_job *j = m->jobs ? blk_job_of(m->jobs, disk) : NULL;
    struct blk_job_info i = { .kind = BLK_JOB_BACKUP };

    if (j) {
        blk_job_get(j, &i);
    }
    return i.kind != BLK_JOB_BACKUP;
}

unsigned jobs_count(const struct emu *m)
{
    unsigned n = 0;

    for (struct blk_job *j = blk_job_each(m->jobs, NULL); j; j = blk_job_each(m->jobs, j)) {
        n++;
    }
    return n;
}

void api_handle_emu_job_start(struct api_call *call, struct api_emu_job_start_in *in)
{
    struct emu *m = control_emu(call);
    struct blk_job_options o = { .id = NULL };
    struct blk_job *j;
    struct err e = ERR_INIT;
    unsigned which;
    int rc;

    if (!m->jobs) {
        api_fail(call, API_E_NOT_FOUND, in->disk, NULL, "the VM has no disks");
        return;
    }
    if (jobs_count(m) >= JOBS_MAX) {
        api_fail(call, API_E_HOST_LIMIT, in->disk, NULL, "%d jobs are there already", JOBS_MAX);
        return;
    }
    rc = in->record ? take_record(m, in->record, &o, &e) : 0;
    rc = rc ? rc : job_options(m, in, &o, &e);
    if (rc == 0) {
        rc = blk_jobs_start(m->jobs, &o, 1, &j, &which, &e);
        if (rc != 0 && o.target) {
            blk_close(o.target);
        }
    }
    if (rc != 0) {
        record_free(o.arg);
        api_fail(call, jobs_error_code(rc), in->disk, NULL, "%s", e.msg);
        return;
    }
    api_reply_emu_job_start(call);
}

/* --- looking and telling --- */

void api_handle_emu_jobs(struct api_call *call, struct api_emu_jobs_in *in)
{
    static const enum api_block_job_state states[] = {
        [BLK_JOB_RUNNING] = API_BLOCK_JOB_STATE_RUNNING,
        [BLK_JOB_PAUSED] = API_BLOCK_JOB_STATE_PAUSED,
        [BLK_JOB_READY] = API_BLOCK_JOB_STATE_READY,
        [BLK_JOB_STANDBY] = API_BLOCK_JOB_STATE_STANDBY,
        [BLK_JOB_ENDING] = API_BLOCK_JOB_STATE_ENDING,
        [BLK_JOB_ENDED] = API_BLOCK_JOB_STATE_ENDED,
    };
    static const enum api_block_job_kind kinds[] = {
        [BLK_JOB_MIRROR] = API_BLOCK_JOB_KIND_MIRROR,
        [BLK_JOB_BACKUP] = API_BLOCK_JOB_KIND_BACKUP,
        [BLK_JOB_STREAM] = API_BLOCK_JOB_KIND_STREAM,
        [BLK_JOB_COMMIT] = API_BLOCK_JOB_KIND_COMMIT,
    };
    struct emu *m = control_emu(call);
    struct api_block_job list[JOBS_MAX];
    struct blk_job_info info[JOBS_MAX];
    unsigned n = 0;

    (void)in;
    for (struct blk_job *j = m->jobs ? blk_job_each(m->jobs, NULL) : NULL; j && n < JOBS_MAX;
         j = blk_job_each(m->jobs, j)) {
        struct blk_job_info *i = &info[n];

        blk_job_get(j, i);
        list[n] = (struct api_block_job){
            .id = (char *)i->id,
            .kind = kinds[i->kind],
            .disk = (char *)blk_name(i->disk),
            .state = states[i->state],
            .done = (int64_t)i->done,
            .total = (int64_t)i->total,
            .speed = (int64_t)i->speed,
            .paused = i->paused,
            .swapped = i->swapped,
            .cancelled = i->error == -ECANCELED,
            .error = i->error || i->io_error
                         ? (i->message[0] ? i->message
                                          : strerror(i->io_error < 0 ? -i->io_error : 0))
                         : NULL
        };
        list[n].file = (char *)blk_path(blk_disk_image(i->disk));
        list[n].format = (char *)blk_driver_name(blk_disk_image(i->disk));
        n++;
    }
    api_reply_emu_jobs(call, &(struct api_emu_jobs_out){ .jobs = list, .n_jobs = n });
}

void api_handle_emu_job_set(struct api_call *call, struct api_emu_job_set_in *in)
{
    struct emu *m = control_emu(call);
    struct blk_job *j = m->jobs ? blk_job_find(m->jobs, in->id) : NULL;
    struct blk_job_info i;
    struct err e = ERR_INIT;
    int rc = 0;

    if (!j) {
        api_fail(call, API_E_NOT_FOUND, in->id, NULL, "there is no job '%s'", in->id);
        return;
    }
    blk_job_get(j, &i);
    if (in->has_speed) {
        blk_job_set_speed(j, (uint64_t)in->speed);
    }
    if (in->has_act && (in->act == API_BLOCK_JOB_ACT_DISMISS) != (i.state == BLK_JOB_ENDED)) {
        api_fail(call, API_E_BAD_STATE, in->id, NULL, "job '%s' has %s", in->id,
                 i.state == BLK_JOB_ENDED ? "ended" : "not ended");
        return;
    }
    if (in->has_act) {
        switch (in->act) {
        case API_BLOCK_JOB_ACT_PAUSE:
            blk_job_pause(j);
            break;
        case API_BLOCK_JOB_ACT_RESUME:
            rc = blk_job_resume(j, &e);
            break;
        case API_BLOCK_JOB_ACT_COMPLETE:
            rc = blk_job_complete(j, &e);
            break;
        case API_BLOCK_JOB_ACT_CANCEL:
        case API_BLOCK_JOB_ACT_FINISH:
            blk_job_cancel(j, in->act == API_BLOCK_JOB_ACT_CANCEL);
            break;
        case API_BLOCK_JOB_ACT_DISMISS:
            blk_job_free(j);
            break;
        }
    }
    if (rc != 0) {
        api_fail(call, API_E_BAD_STATE, in->id, NULL, "%s", e.msg);
        return;
    }
    api_reply_emu_job_set(call);
}
