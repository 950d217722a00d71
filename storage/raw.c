/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Format driver "raw": the image is the disk. Owns nothing beside its file node. Any thread.
 */
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "storage/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct blk_raw {
    struct blk_node node;
};

static int raw_open(struct blk_node *n, const struct blk_options *o, struct err *e)
{
    n->size = n->kid[BLK_FILE]->size;
    if (n->size % BLK_SECTOR && !o->readonly) {
        return err_set(e, -EINVAL,
                       "disk '%s': size of %s, %llu bytes, is not a multiple of %d; extend it "
                       "with truncate",
                       o->name, o->path, (unsigned long long)n->size, BLK_SECTOR);
    }
    if (n->size % BLK_SECTOR) { /* the last sector is filled up with zeroes */
        n->size += BLK_SECTOR - n->size % BLK_SECTOR;
    }
    return 0;
}

static int raw_run(struct blk_node *n, struct blk_req *r)
{
    if (r->flags & BLK_COMPRESS) {
        return -ENOTSUP;
    }
    r->via = n->kid[BLK_FILE];
    if (n->readonly) {
        r->flags |= BLK_PAST_END;
    }
    return r->via->driver->run(r->via, r);
}

static void raw_submit(struct blk_node *n, struct blk_req *r)
{
    blk_forward(NULL, n->kid[BLK_FILE], r, r->at);
}

static int raw_map(struct blk_node *n, uint64_t offset, struct blk_extent *out, struct err *e)
{
    struct blk_node *f = n->kid[BLK_FILE];

    if (offset >= f->size) {
        *out = (struct blk_extent){ .length = n->size - offset, .zero = true, .present = true };
        return 0;
    }
    return f->driver->map(f, offset, out, e);
}

static int raw_resize(struct blk_node *n, uint64_t size, struct err *e)
{
    struct blk_node *f = n->kid[BLK_FILE];
    int rc = blk_own_driver(f)->resize
                 ? f->driver->resize(f, size, e)
                 : err_set(e, -ENOTSUP,
                           "disk '%s': %s cannot change its size; change that of the export",
                           n->name, n->path);

    if (rc == 0) {
        n->size = size;
    }
    return rc;
}

static int raw_preallocate(struct blk_node *n, uint64_t from, enum blk_prealloc mode,
                           struct err *e)
{
    if (mode == BLK_PRE_METADATA || blk_file_fd(n->kid[BLK_FILE]) < 0) {
        return err_set(
            e, -ENOTSUP,
            "disk '%s': preallocation of a raw image is off, falloc or full, and of a "
            "file",
            n->name);
    }
    return blk_preallocate(blk_file_fd(n->kid[BLK_FILE]), from, n->size - from,
                           mode == BLK_PRE_FULL, n->path, e);
}

static int raw_create(const struct blk_create *c, struct err *e)
{
    static const char *const keys[] = { "preallocation", NULL };
    const char *pre = blk_create_option(c, "preallocation");
    AUTO_FD fd = -1;
    int rc = blk_create_known(c, keys, e);

    if (rc != 0) {
        return rc;
    }
    if (pre && strcmp(pre, "off") && strcmp(pre, "falloc") && strcmp(pre, "full")) {
        return err_set(e, -EINVAL,
                       "preallocation of a raw image is off, falloc or full, not '%s'", pre);
    }
    rc = blk_create_image_file(c, &fd, e);
    if (rc == 0 && ftruncate(fd, (off_t)c->size) != 0) {
        rc = err_errno(e, errno, "cannot make %s as large as %llu bytes", c->path,
                       (unsigned long long)c->size);
    }
    if (rc == 0 && pre && strcmp(pre, "off") && c->size > 0) {
        rc = blk_preallocate(fd, 0, c->size, strcmp(pre, "full") == 0, c->path, e);
    }
    return rc;
}

static int raw_close(struct blk_node *n)
{
    (void)n;
    return 0;
}

static const struct blk_image_ops raw_image = { .preallocate = raw_preallocate };

const struct blk_driver blk_raw_driver = {
    .name = "raw",
    .doc = "the file is the disk, byte for byte",
    .kind = BLK_FORMAT,
    .size = sizeof(struct blk_raw),
    .open = raw_open,
    .run = raw_run,
    .submit = raw_submit,
    .map = raw_map,
    .resize = raw_resize,
    .create = raw_create,
    .image = &raw_image,
    .close = raw_close,
};
