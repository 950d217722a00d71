/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Format driver "luks": a LUKS volume in a file, all of whose sectors are encrypted. Owns the open volume. Any thread.
 */
#include "storage/luks.h"

#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct luks_image {
    struct blk_node node;
    const struct blk_cipher *by;
    struct luks *luks;
    uint64_t payload;
};

int luks_refuse(const char *who, struct err *e)
{
    return err_set(e, -EACCES, "%s is encrypted; give its secret as a file (--secret FILE)",
                   who);
}

static int luks_image_probe(const uint8_t *head, size_t n, uint64_t file_size)
{
    (void)file_size;
    return n >= 8 && memcmp(head, "LUKS\xba\xbe", 6) == 0 && head[6] == 0 ? 100 : 0;
}

/* Its size is no secret. */
static int describe_locked(struct luks_image *l)
{
    struct blk_node *f = l->node.kid[BLK_FILE];
    uint32_t sectors = 0;
    int rc = blk_kid_read(f, 104, &sectors, 4);

    l->payload = (uint64_t)be32toh(sectors) * BLK_SECTOR;
    l->node.size = l->payload < f->size ? (f->size - l->payload) / BLK_SECTOR * BLK_SECTOR : 0;
    return rc;
}

static int luks_image_open(struct blk_node *n, const struct blk_options *o, struct err *e)
{
    struct luks_image *l = (struct luks_image *)n;
    struct blk_node *f = n->kid[BLK_FILE];
    AUTO_FREE char *who = xasprintf("disk '%s': %s", o->name, o->path ? o->path : "");
    int rc;

    if (!o->secret) {
        return o->for_check && o->readonly ? describe_locked(l) : luks_refuse(who, e);
    }
    l->by = o->secret->by;
    rc = l->by->open(f, 0, f->size, o->secret, who, &l->luks, e);
    if (rc != 0) {
        return rc;
    }
    l->payload = l->by->payload(l->luks);
    if (l->payload > f->size || (f->size - l->payload) % BLK_SECTOR) {
        return err_set(e, -EINVAL, "%s: its LUKS payload lies behind its end, or is cut off",
                       who);
    }
    n->size = f->size - l->payload;
    return 0;
}

static int luks_image_run(struct blk_node *n, struct blk_req *r)
{
    struct luks_image *l = (struct luks_image *)n;
    struct blk_node *f = n->kid[BLK_FILE];
    uint64_t at = l->payload + r->at, sector = r->at / BLK_SECTOR;
    AUTO_FREE uint8_t *zero = NULL;
    int rc = 0;

    if (!l->luks) {
        return -EACCES;
    }
    switch (r->op) {
    case BLK_READ:
        return l->by->read(l->luks, f, at, sector, r->length, r->iov, r->n_iov);
    case BLK_WRITE:
        return r->flags & BLK_COMPRESS
                   ? -ENOTSUP
                   : l->by->write(l->luks, f, at, sector, r->length, r->iov, r->n_iov);
    case BLK_FLUSH:
        return blk_kid_run(f, BLK_FLUSH, 0, 0, 0, NULL, 0);
    case BLK_DISCARD:
        return 0; /* holes in the file would tell what is unused */
    case BLK_ZERO:
        zero = xalloc(65536);
        for (uint64_t done = 0; done < r->length && rc == 0; done += 65536) {
            uint64_t part = r->length - done < 65536 ? r->length - done : 65536;
            struct iovec iov = { .iov_base = zero, .iov_len = part };

            rc = l->by->write(l->luks, f, at + done, sector + done / BLK_SECTOR, part, &iov, 1);
        }
        return rc;
    }
    return -EINVAL;
}

static int luks_image_map(struct blk_node *n, uint64_t offset, struct blk_extent *out,
                          struct err *e)
{
    (void)e;
    *out = (struct blk_extent){ .length = n->size - offset, .data = true, .present = true };
    return 0;
}

static int luks_image_resize(struct blk_node *n, uint64_t size, struct err *e)
{
    struct luks_image *l = (struct luks_image *)n;
    struct blk_node *f = n->kid[BLK_FILE];
    uint64_t was = n->size;
    int rc = f->driver->resize(f, l->payload + size, e);

    if (rc == 0) {
        n->size = size;
        rc = size > was ? blk_zero(n, was, size - was, 0) : 0;
        rc = rc ? err_errno(e, -rc, "disk '%s': cannot grow", n->name) : 0;
    }
    return rc;
}

static int luks_image_create(const struct blk_create *c, struct err *e)
{
    static const char *const keys[] = { "key-file",       "cipher-alg",
                                        "cipher-mode",    "ivgen-alg",
                                        "ivgen-hash-alg", "hash-alg",
                                        "iter-time",      NULL };
    AUTO_FREE uint8_t *head = NULL;
    AUTO_FD fd = -1;
    const size_t n = LUKS_HEADER_BYTES;
    int rc = blk_create_known(c, keys, e);

    if (rc == 0 && !c->secret) {
        rc = err_set(e, -EINVAL,
                     "a luks image needs a secret: -o key-file=FILE or --secret FILE");
    }
    rc = rc ? rc : c->secret->by->create(c, "", &head, e);
    rc = rc ? rc : blk_create_image_file(c, &fd, e);
    if (rc == 0 &&
        (ftruncate(fd, (off_t)(n + c->size)) != 0 || fd_pwrite(fd, head, n, 0) != (ssize_t)n)) {
        rc = err_errno(e, errno, "cannot write %s", c->path);
    }
    return rc;
}

static int luks_image_info(struct blk_node *n, struct blk_image_info *out, struct err *e)
{
    const struct luks_image *l = (const struct luks_image *)n;

    (void)e;
    out->encrypted = true;
    out->variant = l->luks ? xstrdup(l->by->text(l->luks)) : NULL;
    return 0;
}

static int luks_image_close(struct blk_node *n)
{
    struct luks_image *l = (struct luks_image *)n;

    if (l->by) {
        l->by->close(l->luks);
    }
    return 0;
}

static const struct blk_image_ops luks_image = { .info = luks_image_info };

const struct blk_driver blk_luks_driver = {
    .name = "luks",
    .doc = "a LUKS volume",
    .kind = BLK_FORMAT,
    .size = sizeof(struct luks_image),
    .probe = luks_image_probe,
    .open = luks_image_open,
    .run = luks_image_run,
    .map = luks_image_map,
    .resize = luks_image_resize,
    .create = luks_image_create,
    .image = &luks_image,
    .close = luks_image_close,
};
