/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Format driver "raw": the image is the disk. Owns nothing beside its child. Loop thread.
 */
#include "storage/driver.h"

#include <errno.h>

struct blk_raw {
    struct blk_node node;
};

static int raw_open(struct blk_node *n, const struct blk_options *o, struct err *e)
{
    n->size = n->child->size;
    if (n->size % BLK_SECTOR) {
        return err_set(e, -EINVAL,
                       "disk '%s': size of %s, %llu bytes, is not a multiple of %d; extend it "
                       "with truncate",
                       o->name, o->path, (unsigned long long)n->size, BLK_SECTOR);
    }
    return 0;
}

static void raw_submit(struct blk_node *n, struct blk_req *r)
{
    blk_submit(n->child, r);
}

static int raw_map(struct blk_node *n, uint64_t offset, struct blk_extent *out, struct err *e)
{
    return blk_map(n->child, offset, out, e);
}

static void raw_wait_idle(struct blk_node *n)
{
    blk_wait_idle(n->child);
}

static void raw_close(struct blk_node *n)
{
    (void)n;
}

const struct blk_driver blk_raw_driver = {
    .name = "raw",
    .size = sizeof(struct blk_raw),
    .open = raw_open,
    .submit = raw_submit,
    .map = raw_map,
    .wait_idle = raw_wait_idle,
    .close = raw_close,
};
