/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the graph changes when a block job has done its work: the disk gets another image, or a chain becomes
 * shorter. Loop thread, the disk drained, unless it says otherwise.
 */
#include "engine/base/log.h"
#include "storage/job_int.h"

#include <errno.h>

int job_map_until(struct blk_node *from, const struct blk_node *base, uint64_t offset,
                  struct blk_extent *out)
{
    uint64_t left = from->size - offset;

    for (struct blk_node *n = from; n && n != base; n = n->kid[BLK_BACKING]) {
        int rc;

        if (offset >= n->size) { /* what is behind its end reads as zeroes through it */
            *out = (struct blk_extent){ .length = left, .zero = true, .present = true };
            return 0;
        }
        rc = blk_map_layer(n, offset, out, NULL);
        if (rc != 0) {
            return rc;
        }
        if (out->length == 0) {
            return -EIO;
        }
        left = out->length = out->length < left ? out->length : left;
        if (out->present) {
            return 0;
        }
    }
    *out = (struct blk_extent){ .length = left };
    return 0;
}

bool job_has_image(const struct blk_node *disk, const struct blk_node *n)
{
    const struct blk_node *at = disk->kid[BLK_FILE];

    while (at && at != n) {
        at = at->kid[BLK_BACKING];
    }
    return at != NULL;
}

struct blk_node *job_above(struct blk_node *disk, const struct blk_node *n)
{
    struct blk_node *at = blk_disk_image(disk);

    while (at && at->kid[BLK_BACKING] != n) {
        at = at->kid[BLK_BACKING];
    }
    return at;
}

int blk_reopen_base(struct blk_node *disk, struct blk_node *base, int fd, struct err *e)
{
    struct blk_node *parent = base ? job_above(disk, base) : NULL;
    int rc;

    if (!parent) {
        return err_set(e, -EINVAL, "disk '%s' has no such image below its own", disk->name);
    }
    blk_drain_begin(disk);
    blk_disk_change(disk, true);
    rc = blk_reopen_backing(parent, fd, e);
    blk_disk_change(disk, false);
    blk_drain_end(disk);
    return rc;
}

/* `image` stands on `base` (NULL: on nothing) from now on; what was between is closed. */
static int shorten(struct blk_job *j, struct blk_node *image, struct blk_node *base,
                   struct err *e)
{
    struct blk_node *gone = image->kid[BLK_BACKING];
    int rc = blk_set_backing(image, j->o.backing_name, j->o.backing_format, e);

    if (rc != 0 || gone == base) {
        return rc;
    }
    if (base) {
        struct blk_node *parent = job_above(j->o.disk, base);

        (void)blk_take_kid(parent, BLK_BACKING);
    }
    (void)blk_take_kid(image, BLK_BACKING);
    if (base) {
        blk_set_kid(image, BLK_BACKING, base);
    }
    rc = blk_claims_renew(image, e);
    blk_close(gone);
    return rc;
}

/* The disk's image goes, and another takes its place. */
static int swap(struct blk_job *j, struct blk_node *to, bool below, struct err *e)
{
    struct blk_node *was;
    int rc = 0;

    if (below) {
        (void)blk_take_kid(job_above(j->o.disk, to), BLK_BACKING);
        blk_unclaim(j->claim);
        j->claim = NULL;
        rc = blk_own(to, e);
    }
    was = blk_disk_swap(j->o.disk, to);
    j->swapped = true;
    blk_close(was);
    return rc;
}

static int announce(struct blk_job *j, const struct blk_node *to, struct err *e)
{
    return j->o.swapping ? j->o.swapping(j->o.arg, to, e) : 0;
}

static int change_chain(struct blk_job *j, struct err *e)
{
    int rc;

    switch (j->o.kind) {
    case BLK_JOB_MIRROR:
        rc = j->completing ? announce(j, j->o.target, e) : 0;
        return j->completing && rc == 0 ? swap(j, take_ptr(j->o.target), false, e) : rc;
    case BLK_JOB_STREAM:
        return shorten(j, blk_disk_image(j->o.disk), j->o.base, e);
    case BLK_JOB_COMMIT:
        if (!j->o.top) {
            rc = announce(j, j->o.base, e);
            return rc == 0 ? swap(j, j->o.base, true, e) : rc;
        }
        return shorten(j, job_above(j->o.disk, j->o.top), j->o.base, e);
    default:
        return 0;
    }
}

int job_finish_chain(struct blk_job *j, struct err *e)
{
    int rc;

    blk_disk_change(j->o.disk, true);
    rc = change_chain(j, e);
    blk_disk_change(j->o.disk, false);
    return rc;
}
