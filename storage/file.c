/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Protocol driver "file": a regular file or block device through the thread pool. Owns the
 * descriptor and the image lock on it. blk_file_run() is entered by pool threads, several at
 * once; everything else by the loop.
 */
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "storage/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define ZERO_CHUNK 65536
#define IOV_PART 256 /* pieces handed to the kernel at once */

struct blk_file {
    struct blk_node node;
    int fd;
    _Atomic int flush_error; /* first failure, for ever */
};

static int file_size(int fd, const char *disk, const char *path, uint64_t *size, struct err *e)
{
    struct stat st;

    if (fstat(fd, &st) != 0) {
        return err_errno(e, errno, "disk '%s': %s", disk, path);
    }
    if (S_ISREG(st.st_mode)) {
        *size = (uint64_t)st.st_size;
        return 0;
    }
    if (S_ISBLK(st.st_mode)) {
        return ioctl(fd, BLKGETSIZE64, size) == 0
                   ? 0
                   : err_errno(e, errno, "disk '%s': size of %s", disk, path);
    }
    return err_set(e, -EINVAL, "disk '%s': %s is neither a file nor a block device", disk,
                   path);
}

static int file_open(struct blk_node *n, const struct blk_options *o, struct err *e)
{
    struct blk_file *f = (struct blk_file *)n;
    AUTO_FD opened = -1;
    int fd = o->fd, rc;

    f->fd = -1;
    if (fd < 0) {
        fd = opened = open(o->path, (o->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
        if (fd < 0) {
            return err_errno(e, errno, "disk '%s': cannot open %s%s", o->name, o->path,
                             o->readonly ? "" : " for writing");
        }
    } else if (!o->readonly && (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR) {
        return err_set(e, -EACCES, "disk '%s': %s was given read-only; mark the disk read-only",
                       o->name, o->path);
    }
    rc = file_size(fd, o->name, o->path, &n->size, e);
    if (rc == 0) {
        rc = blk_lock(fd, o->readonly, o->name, e);
    }
    if (rc == 0) {
        f->fd = fd;
        opened = -1;
    }
    return rc;
}

void blk_file_release(struct blk_node *n)
{
    ((struct blk_file *)n)->fd = -1;
}

static void file_submit(struct blk_node *n, struct blk_req *r)
{
    blk_pool_submit(n->pool, n, r);
}

/* --- on pool threads
 * ------------------------------------------------------------------------- */

/* Reads or writes the whole vector, going on after short transfers; a read beyond the end of
 * a file that shrank is an error, not zeroes. */
static int file_transfer(int fd, struct blk_req *r)
{
    uint64_t offset = r->offset;
    unsigned first = 0;
    size_t skip = 0;

    while (r->length > 0 && first < r->n_iov) {
        struct iovec part[IOV_PART];
        unsigned count = r->n_iov - first < IOV_PART ? r->n_iov - first : IOV_PART;
        ssize_t got;

        memcpy(part, r->iov + first, count * sizeof(part[0]));
        part[0].iov_base = (char *)part[0].iov_base + skip;
        part[0].iov_len -= skip;
        got = r->op == BLK_READ ? preadv(fd, part, (int)count, (off_t)offset)
                                : pwritev(fd, part, (int)count, (off_t)offset);
        if (got < 0) {
            if (errno == EINTR) {
                continue;
            }
            return -errno;
        }
        if (got == 0) {
            return -EIO;
        }
        offset += (uint64_t)got;
        for (unsigned i = 0; i < count && (size_t)got >= part[i].iov_len; i++) {
            got -= (ssize_t)part[i].iov_len;
            first++;
            skip = 0;
        }
        skip += (size_t)got;
    }
    return 0;
}

static int file_flush(struct blk_file *f)
{
    int err = atomic_load(&f->flush_error);

    if (err == 0 && fdatasync(f->fd) != 0) {
        err = errno;
        atomic_store(&f->flush_error, err);
        log_error("storage", "disk '%s': flush failed: %s; all later flushes fail",
                  f->node.name, strerror(err));
    }
    return -err;
}

static int file_write_zeroes(int fd, uint64_t offset, uint64_t length)
{
    AUTO_FREE char *zeroes = xalloc(ZERO_CHUNK);

    while (length > 0) {
        size_t part = length < ZERO_CHUNK ? (size_t)length : ZERO_CHUNK;
        ssize_t n = pwrite(fd, zeroes, part, (off_t)offset);

        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        if (n > 0) {
            offset += (uint64_t)n;
            length -= (uint64_t)n;
        }
    }
    return 0;
}

static bool unsupported(int err)
{
    return err == EOPNOTSUPP || err == ENOSYS || err == ENOTTY || err == EINVAL ||
           err == ENODEV;
}

static int file_zero(int fd, const struct blk_req *r)
{
    int mode = FALLOC_FL_KEEP_SIZE;

    mode |= r->flags & BLK_UNMAP ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    if (r->length == 0 || fallocate(fd, mode, (off_t)r->offset, (off_t)r->length) == 0) {
        return 0;
    }
    return unsupported(errno) ? file_write_zeroes(fd, r->offset, r->length) : -errno;
}

static int file_discard(int fd, const struct blk_req *r)
{
    if (r->length == 0 || fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                    (off_t)r->offset, (off_t)r->length) == 0) {
        return 0;
    }
    return unsupported(errno) ? 0 : -errno; /* a hint */
}

int blk_file_run(struct blk_node *n, struct blk_req *r)
{
    struct blk_file *f = (struct blk_file *)n;

    switch (r->op) {
    case BLK_READ:
    case BLK_WRITE:
        return file_transfer(f->fd, r);
    case BLK_FLUSH:
        return n->readonly ? 0 : file_flush(f);
    case BLK_DISCARD:
        return file_discard(f->fd, r);
    case BLK_ZERO:
        return file_zero(f->fd, r);
    }
    return -EINVAL;
}

/* --- on the loop
 * ----------------------------------------------------------------------------- */

static int file_map(struct blk_node *n, uint64_t offset, struct blk_extent *out, struct err *e)
{
    struct blk_file *f = (struct blk_file *)n;
    off_t data = lseek(f->fd, (off_t)offset, SEEK_DATA), hole;

    if (data < 0 && errno == ENXIO) {
        *out = (struct blk_extent){ .length = n->size - offset, .data = false };
        return 0;
    }
    if (data < 0 && errno == EINVAL) { /* cannot tell: all data */
        *out = (struct blk_extent){ .length = n->size - offset, .data = true };
        return 0;
    }
    if (data < 0) {
        return err_errno(e, errno, "disk '%s': extent query", n->name);
    }
    if ((uint64_t)data > offset) {
        *out = (struct blk_extent){ .length = (uint64_t)data - offset, .data = false };
        return 0;
    }
    hole = lseek(f->fd, (off_t)offset, SEEK_HOLE);
    if (hole < 0) {
        return err_errno(e, errno, "disk '%s': extent query", n->name);
    }
    *out = (struct blk_extent){ .length = (uint64_t)hole - offset, .data = true };
    return 0;
}

static void file_wait_idle(struct blk_node *n)
{
    blk_pool_wait_idle(n->pool, n);
}

static void file_close(struct blk_node *n)
{
    struct blk_file *f = (struct blk_file *)n;

    blk_pool_wait_idle(n->pool, n);
    blk_pool_forget(n->pool, n);
    if (f->fd >= 0) {
        close(f->fd);
    }
}

const struct blk_driver blk_file_driver = {
    .name = "file",
    .size = sizeof(struct blk_file),
    .open = file_open,
    .submit = file_submit,
    .map = file_map,
    .wait_idle = file_wait_idle,
    .close = file_close,
};
