/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks that move with their VM. Each has a connection of its own: at the destination a server of NBD writes what comes over
 * it to the disk of the emulator that waits, at the source a mirror (storage/job.h) copies the disk there and follows what the
 * guest writes. When the guest stands still the mirrors end, with all flushed at the other side, before the machine's state
 * goes. Neither side makes a socket or has a key. Main thread.
 */
#include "engine/emu/state/migrate.h"

#include "api-schema/gen/methods.h"
#include "api-schema/rpc/call.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "storage/block.h"
#include "storage/disk.h"
#include "storage/image.h"
#include "storage/job.h"
#include "storage/nbd.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FINE 4096u /* of tracking what the guest writes, up to this size of its disk: */
#define FINE_MOST (UINT64_C(64) << 30)
#define LAG_MOST (INT64_C(4) << 20) /* what may be left of all disks when the guest is paused */

/* ---- what there is ---- */

static bool moves(const struct blk_node *disk)
{
    const char *format = blk_driver_name(blk_disk_image((struct blk_node *)(uintptr_t)disk));

    return strcmp(format, "raw") == 0 || strcmp(format, "qcow2") == 0;
}

static void tell_disk(struct emu *m, struct blk_node *disk, struct api_emu_migrate_disk *out,
                      struct blk_image_info *info)
{
    struct blk_node *image = blk_disk_image(disk);
    struct err e = ERR_INIT;

    *out = (struct api_emu_migrate_disk){ .name = (char *)(uintptr_t)blk_name(disk),
                                          .size = (int64_t)blk_size(disk) };
    if (blk_child(image, BLK_BACKING)) {
        out->backing = (char *)(uintptr_t)blk_path(blk_child(image, BLK_BACKING));
        out->backing_format = (char *)(uintptr_t)blk_driver_name(blk_child(image, BLK_BACKING));
    }
    for (struct blk_node *n = image; n; n = blk_child(n, BLK_BACKING)) {
        struct blk_image_info below;

        if (!blk_child(n, BLK_FILE)) {
            out->used_all += (int64_t)blk_size(n);
        } else if (n == image && blk_info(n, info, &e) == 0) {
            out->used_all = out->used = (int64_t)info->disk_size;
        } else if (n != image && blk_info(n, &below, &e) == 0) {
            out->used_all += (int64_t)below.disk_size;
            blk_info_done(&below);
        }
    }
    if (!moves(disk) || info->encrypted) {
        out->stays = (char *)(uintptr_t)(info->encrypted ? "it is encrypted"
                                                         : "its format is not raw or qcow2");
    } else if (blk_job_of(m->jobs, disk)) {
        out->stays = (char *)(uintptr_t) "a job works on it";
    } else if (export_busy(m, disk)) {
        out->stays = (char *)(uintptr_t) "NBD clients use it";
    }
}

void api_handle_emu_migrate_disks(struct api_call *call, struct api_emu_migrate_disks_in *in)
{
    struct emu *m = control_emu(call);
    AUTO_FREE struct api_emu_migrate_disk *list = xnew_n(struct api_emu_migrate_disk,
                                                         m->n_disks + 1);
    AUTO_FREE struct blk_image_info *info = xnew_n(struct blk_image_info, m->n_disks + 1);

    (void)in;
    if (m->migrate && !migrate_at_work(m) && !migrate_holds(m)) {
        migrate_disks_drop(m->migrate); /* what a daemon before began */
    }
    memset(info, 0, (m->n_disks + 1) * sizeof(*info));
    for (unsigned i = 0; i < m->n_disks; i++) {
        tell_disk(m, m->disk[i], &list[i], &info[i]);
    }
    api_reply_emu_migrate_disks(
        call, &(struct api_emu_migrate_disks_out){ .disks = list, .n_disks = m->n_disks });
    for (unsigned i = 0; i < m->n_disks; i++) {
        blk_info_done(&info[i]);
    }
}

/* ---- the source ---- */

static void on_changed(void *arg, struct blk_job *j)
{
    struct migrate_disk *d = arg;
    struct emu_migrate *g = d->g;
    struct blk_job_info i;

    g->alive_ns = migrate_now_ns();
    blk_job_get(j, &i);
    if (i.state != BLK_JOB_ENDED || !d->job) {
        return;
    }
    d->ended = true;
    if (i.error != 0 && g->e.code == 0) {
        err_set(&g->e, i.error, "disk '%s': %s", d->name,
                i.message[0] ? i.message : strerror(-i.error));
    }
    if (i.error != 0) {
        d->failed = true;
    }
    loop_timer_arm(g->disk_timer, 0); /* a job may not be freed from here */
}

/* Frees what has ended; one that failed takes the migration with it. */
void migrate_disks_timer(struct emu_migrate *g)
{
    bool failed = false;

    for (unsigned i = 0; i < g->n_disks; i++) {
        struct migrate_disk *d = &g->disk[i];

        failed |= d->failed;
        if (d->ended && d->job) {
            blk_job_free(take_ptr(d->job));
            fd_autoclose(&d->fd);
        }
    }
    if (g->dropping) {
        migrate_disks_drop(g);
    } else if (failed && g->state == API_EMU_MIGRATE_STATE_SENDING) {
        migrate_out_fail(g);
    } else if (g->last && migrate_disks_ended(g)) {
        migrate_out_kick(g);
    }
}

/* The mirrors are not needed any more; their connections break, so that none waits for a host that does not answer. */
void migrate_disks_drop(struct emu_migrate *g)
{
    bool all = true;

    g->dropping = true;
    for (unsigned i = 0; i < g->n_disks; i++) {
        struct migrate_disk *d = &g->disk[i];

        if (d->fd >= 0) {
            shutdown(d->fd, SHUT_RDWR);
            fd_autoclose(&d->fd);
        }
        if (d->job && !d->ended) {
            blk_job_cancel(d->job, true);
        }
        if (d->job && d->ended) {
            blk_job_free(take_ptr(d->job));
        }
        all &= d->job == NULL;
    }
    if (all) {
        g->n_disks = 0;
        g->dropping = false;
    }
}

static int mirror(struct emu_migrate *g, struct blk_node *disk, int take,
                  const struct api_emu_migrate_disk_out_in *in, struct err *e)
{
    struct emu *m = g->m;
    AUTO_FD fd = take;
    AUTO_FREE char *id = xasprintf("migrate/%s", blk_name(disk));
    struct migrate_disk *d = &g->disk[g->n_disks];
    struct blk_options o = { .name = id,
                             .driver = "raw",
                             .path = "the other host",
                             .protocol = &blk_nbd_wire_driver,
                             .export = blk_name(disk),
                             .fd = fd };
    struct blk_job_options jo = { .id = id,
                                  .kind = BLK_JOB_MIRROR,
                                  .disk = disk,
                                  .sync = in->top ? BLK_SYNC_TOP : BLK_SYNC_FULL,
                                  .speed = (uint64_t)in->speed,
                                  .on_target_error = BLK_JOB_REPORT,
                                  .keen = true,
                                  .granularity = blk_size(disk) <= FINE_MOST ? FINE : 0,
                                  .changed = on_changed,
                                  .arg = d };
    unsigned which;
    int rc;

    *d = (struct migrate_disk){ .g = g, .fd = fcntl(fd, F_DUPFD_CLOEXEC, 3) };
    str_copy(d->name, sizeof(d->name), blk_name(disk));
    rc = d->fd < 0 ? err_errno(e, errno, "a descriptor") : blk_open(m->pool, &o, &jo.target, e);
    if (rc == 0) {
        fd = -1;
        if (blk_size(jo.target) != blk_size(disk)) {
            rc = err_set(e, -EINVAL, "disk '%s' has %llu bytes, the image there %llu", d->name,
                         (unsigned long long)blk_size(disk),
                         (unsigned long long)blk_size(jo.target));
        }
        rc = rc ? rc : blk_jobs_start(m->jobs, &jo, 1, &d->job, &which, e);
        if (rc != 0) {
            blk_close(jo.target);
        }
    }
    if (rc != 0) {
        d->job = NULL;
        fd_autoclose(&d->fd);
        return rc;
    }
    g->n_disks++;
    return 0;
}

void api_handle_emu_migrate_disk_out(struct api_call *call,
                                     struct api_emu_migrate_disk_out_in *in)
{
    AUTO_FD fd = control_passed_fd(call);
    struct emu *m = control_emu(call);
    struct emu_migrate *g = migrate_of_vm(m);
    struct blk_node *disk = disks_find(m, in->disk);
    struct err e = ERR_INIT;

    if (!disk) {
        api_fail(call, API_E_NOT_FOUND, in->disk, NULL, "there is no disk '%s'", in->disk);
    } else if (fd < 0) {
        api_fail(call, API_E_INVALID_PARAMS, "fd", "pass the descriptor of a stream socket",
                 "no stream came with the call");
    } else if (migrate_at_work(m) || g->state == API_EMU_MIGRATE_STATE_SENT || g->dropping ||
               g->n_disks == STREAM_LANES) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, NULL, "it is being migrated already");
    } else {
        g->e = (struct err)ERR_INIT;
        if (mirror(g, disk, take_fd(&fd), in, &e) != 0) {
            api_fail(call, jobs_error_code(e.code), in->disk, NULL, "%s", e.msg);
        } else {
            api_reply_emu_migrate_disk_out(call);
        }
    }
}

void migrate_disks_get(const struct emu_migrate *g, struct migrate_disks *out)
{
    *out = (struct migrate_disks){ .ready = true };
    for (unsigned i = 0; i < g->n_disks; i++) {
        const struct migrate_disk *d = &g->disk[i];
        struct blk_job_info info;

        out->failed |= d->failed;
        if (!d->job) {
            continue;
        }
        blk_job_get(d->job, &info);
        out->flushing |= info.flushing;
        out->total += info.total;
        out->left += info.total - info.done;
        if (info.rate > 0) {
            out->lag_ns += (uint64_t)((double)(info.total - info.done) * 1e9 /
                                      (double)info.rate);
        }
        out->ready &= info.state == BLK_JOB_READY || info.state == BLK_JOB_ENDED;
    }
}

bool migrate_disks_go(const struct emu_migrate *g, unsigned n)
{
    struct migrate_disks d;

    migrate_disks_get(g, &d);
    return g->n_disks == n && !g->dropping && d.ready && !d.failed;
}

bool migrate_disks_close_by(const struct emu_migrate *g, uint64_t *lag_ns)
{
    struct migrate_disks d;

    migrate_disks_get(g, &d);
    *lag_ns = d.lag_ns;
    return d.ready && d.left <= LAG_MOST;
}

/* The guest stands still and nothing of it is under way: the mirrors end. True: they have, with all of it at the other side. */
bool migrate_disks_ended(struct emu_migrate *g)
{
    bool all = true;

    for (unsigned i = 0; i < g->n_disks; i++) {
        struct migrate_disk *d = &g->disk[i];

        if (d->job && !d->ended && !d->ending) {
            d->ending = true;
            blk_job_end_still(d->job);
        }
        all &= d->ended && !d->failed;
    }
    return all;
}

void migrate_disks_set_speed(struct emu_migrate *g, uint64_t speed)
{
    for (unsigned i = 0; i < g->n_disks; i++) {
        struct migrate_disk *d = &g->disk[i];

        if (d->job && !d->ended && !d->ending) {
            blk_job_set_speed(d->job, speed);
        }
    }
}

/* ---- the destination ---- */

static int serve(struct emu_migrate *g, struct blk_node *disk, int take, struct err *e)
{
    const struct nbd_server_options so = { .max_clients = STREAM_LANES };
    const struct nbd_export_options xo = {
        .name = blk_name(disk), .node = disk, .writable = true, .owned = true
    };
    AUTO_FD fd = take;
    int rc;

    if (!g->server) {
        g->server = nbd_server_new(g->m->loop, g->m->workers, &so);
    }
    rc = nbd_export_add(g->server, &xo, e);
    if (rc == 0) {
        nbd_server_connect(g->server, take_fd(&fd));
    }
    return rc;
}

void api_handle_emu_migrate_disk_in(struct api_call *call,
                                    struct api_emu_migrate_disk_in_in *in)
{
    AUTO_FD fd = control_passed_fd(call);
    struct emu *m = control_emu(call);
    struct emu_migrate *g = migrate_of_vm(m);
    struct blk_node *disk = disks_find(m, in->disk);
    struct err e = ERR_INIT;

    if (m->vm->state != VM_PAUSED || strcmp(m->reason, "start") != 0 || m->unfit ||
        g->state != API_EMU_MIGRATE_STATE_NONE) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, NULL,
                 "only a VM that was started paused can take another's disks in");
    } else if (!disk) {
        api_fail(call, API_E_NOT_FOUND, in->disk, NULL, "there is no disk '%s'", in->disk);
    } else if (fd < 0) {
        api_fail(call, API_E_INVALID_PARAMS, "fd", "pass the descriptor of a stream socket",
                 "no stream came with the call");
    } else if (serve(g, disk, take_fd(&fd), &e) != 0) {
        api_fail(call, jobs_error_code(e.code), in->disk, NULL, "%s", e.msg);
    } else {
        api_reply_emu_migrate_disk_in(call);
    }
}

/* Nobody else writes to the disks from here on. True: nothing of that is under way either. */
bool migrate_disks_closed(struct emu_migrate *g)
{
    if (g->server) {
        nbd_server_stop(g->server);
        if (nbd_server_uses(g->server, NULL)) {
            return false;
        }
        nbd_server_free(take_ptr(g->server));
    }
    return true;
}

void migrate_disks_stop(struct emu *m)
{
    struct emu_migrate *g = m->migrate;

    if (!g) {
        return;
    }
    for (unsigned i = 0; i < g->n_disks; i++) {
        struct migrate_disk *d = &g->disk[i];

        if (d->fd >= 0) {
            shutdown(d->fd, SHUT_RDWR);
            fd_autoclose(&d->fd);
        }
        d->job = NULL; /* blk_jobs_free() ends and frees it */
    }
    g->n_disks = 0;
    loop_timer_disarm(g->disk_timer);
    nbd_server_free(take_ptr(g->server));
}
