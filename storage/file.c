/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Protocol driver "file": a regular file or block device, through the page cache or past it
 * (O_DIRECT). Owns the descriptor. file_run() is entered by any thread, several at once; the rest by
 * the loop.
 */
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "storage/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ZERO_CHUNK 65536
#define IOV_PART 256 /* pieces handed to the kernel at once */
#define ALIGN 4096   /* for O_DIRECT, whatever the device */
#define BOUNCE_MAX (1u << 20)

struct blk_file {
    struct blk_node node;
    const struct blk_tap *tap;
    int fd, slot;             /* slot: in the ring's table of files */
    bool unsafe;              /* flushes do nothing */
    bool regular;             /* grows by writing behind its end */
    bool direct;              /* O_DIRECT: offsets, lengths and memory are multiples of ALIGN */
    bool no_punch, no_zero;   /* the file system has not got these */
    _Atomic int flush_error;  /* first failure, for ever */
    _Atomic uint64_t flushed; /* node.changes when the last flush that went well began */
    pthread_mutex_t bounce; /* O_DIRECT: one unaligned write at a time reads, changes, writes */
};

static int file_size(int fd, const char *disk, const char *path, uint64_t *size, bool *regular,
                     struct err *e)
{
    struct stat st;

    if (fstat(fd, &st) != 0) {
        return err_errno(e, errno, "disk '%s': %s", disk, path);
    }
    *regular = S_ISREG(st.st_mode);
    if (*regular) {
        *size = (uint64_t)st.st_size;
        return 0;
    }
    if (S_ISBLK(st.st_mode)) {
        off_t end = lseek(fd, 0, SEEK_END); /* no ioctl: sandboxes let none through */

        if (end < 0) {
            return err_errno(e, errno, "disk '%s': size of %s", disk, path);
        }
        *size = (uint64_t)end;
        return 0;
    }
    return err_set(e, -EINVAL, "disk '%s': %s is neither a file nor a block device", disk,
                   path);
}

static int file_set_direct(struct blk_file *f, int fd, const struct blk_options *o,
                           struct err *e)
{
    int flags = fcntl(fd, F_GETFL);

    f->direct = flags >= 0 && (flags & O_DIRECT);
    if (!o->direct || f->direct) {
        return 0;
    }
    if (fcntl(fd, F_SETFL, flags | O_DIRECT) != 0) {
        return err_errno(e, errno, "disk '%s': %s cannot go past the page cache", o->name,
                         o->path);
    }
    f->direct = true;
    return 0;
}

static int file_open(struct blk_node *n, const struct blk_options *o, struct err *e)
{
    struct blk_file *f = (struct blk_file *)n;
    AUTO_FD opened = -1;
    int fd = o->fd, rc;

    f->fd = f->slot = -1;
    f->unsafe = o->unsafe;
    f->flushed = UINT64_MAX; /* others may have written: the first flush is never left out */
    f->tap = o->tap;
    pthread_mutex_init(&f->bounce, NULL);
    if (fd < 0) {
        fd = opened = open(o->path, (o->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0) {
            return err_errno(e, errno, "disk '%s': cannot open %s%s", o->name, o->path,
                             o->readonly ? "" : " for writing");
        }
    } else if (!o->readonly && (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR) {
        return err_set(e, -EACCES, "disk '%s': %s was given read-only; mark the disk read-only",
                       o->name, o->path);
    }
    rc = file_size(fd, o->name, o->path, &n->size, &f->regular, e);
    if (rc == 0) {
        rc = file_set_direct(f, fd, o, e);
    }
    if (rc == 0) {
        f->fd = fd;
        opened = -1;
        f->slot = n->pool ? blk_pool_register(n->pool, fd) : -1;
    }
    return rc;
}

static void file_release(struct blk_node *n)
{
    struct blk_file *f = (struct blk_file *)n;

    if (n->pool) {
        blk_pool_unregister(n->pool, f->slot);
    }
    f->slot = f->fd = -1;
}

void blk_file_release(struct blk_node *n)
{
    if (n->driver->release) {
        n->driver->release(n);
    }
}

int blk_file_fd(const struct blk_node *n)
{
    return blk_own_driver(n) == &blk_file_driver ? ((const struct blk_file *)n)->fd : -1;
}

void blk_file_will_read(struct blk_node *n, uint64_t offset, uint64_t length)
{
    struct blk_file *f = (struct blk_file *)n;

    /* a confined emulator, whose nodes have a pool, may not call this */
    if (blk_own_driver(n) == &blk_file_driver && !n->pool && !f->direct) {
        (void)posix_fadvise(f->fd, (off_t)offset, (off_t)length, POSIX_FADV_WILLNEED);
    }
}

bool blk_file_grows_zero(const struct blk_node *n)
{
    return blk_own_driver(n) == &blk_file_driver && ((const struct blk_file *)n)->regular;
}

uint64_t blk_file_length(struct blk_node *n)
{
    struct blk_file *f = (struct blk_file *)n;
    struct stat st;

    return blk_own_driver(n) == &blk_file_driver && f->regular && fstat(f->fd, &st) == 0
               ? (uint64_t)st.st_size
               : n->size;
}

static bool aligned(const struct blk_req *r)
{
    uint64_t all = r->at | r->length;

    for (unsigned i = 0; i < r->n_iov; i++) {
        all |= (uintptr_t)r->iov[i].iov_base | r->iov[i].iov_len;
    }
    return all % ALIGN == 0;
}

static void file_submit(struct blk_node *n, struct blk_req *r)
{
    struct blk_file *f = (struct blk_file *)n;

    if ((r->op == BLK_READ || r->op == BLK_WRITE) && f->slot >= 0 &&
        (!f->direct || aligned(r))) {
        blk_pool_submit_fd(n->pool, r, f->slot);
    } else {
        blk_pool_submit(n->pool, r);
    }
}

/* --- on any thread
 * --------------------------------------------------------------------------- */

static void iov_clear_from(const struct iovec *iov, unsigned n_iov, uint64_t skip)
{
    for (unsigned i = 0; i < n_iov; i++) {
        if (skip < iov[i].iov_len) {
            memset((char *)iov[i].iov_base + skip, 0, iov[i].iov_len - skip);
            skip = 0;
        } else {
            skip -= iov[i].iov_len;
        }
    }
}

/* Reads or writes the whole vector, going on after short transfers; a read beyond the end of
 * a file that shrank is an error, not zeroes. */
static int file_transfer(int fd, struct blk_req *r)
{
    uint64_t offset = r->at, moved = 0;
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
            if (r->op == BLK_WRITE || !(r->flags & BLK_PAST_END)) {
                return -EIO;
            }
            iov_clear_from(r->iov, r->n_iov, moved);
            return 0;
        }
        offset += (uint64_t)got;
        moved += (uint64_t)got;
        for (unsigned i = 0; i < count && (size_t)got >= part[i].iov_len; i++) {
            got -= (ssize_t)part[i].iov_len;
            first++;
            skip = 0;
        }
        skip += (size_t)got;
    }
    return 0;
}

/* O_DIRECT with what is not aligned: through memory that is. What stands around a written range is read
 * first, so such writes go one at a time. */
static int file_bounce_part(struct blk_file *f, const struct blk_req *r, uint64_t skip,
                            uint64_t length, char *mem)
{
    uint64_t from = (r->at + skip) / ALIGN * ALIGN, lead = r->at + skip - from;
    uint64_t span = (lead + length + ALIGN - 1) / ALIGN * ALIGN;
    struct iovec all = { .iov_base = mem, .iov_len = span };
    struct blk_req io = { .op = BLK_READ,
                          .flags = BLK_PAST_END,
                          .at = from,
                          .length = span,
                          .iov = &all,
                          .n_iov = 1 };
    AUTO_FREE struct iovec *part = xnew_n(struct iovec, r->n_iov);
    unsigned n = blk_iov_slice(r->iov, r->n_iov, skip, length, part);
    char *p = mem + lead;
    int rc = r->op == BLK_WRITE && lead == 0 && span == length ? 0 : file_transfer(f->fd, &io);

    for (unsigned i = 0; i < n && rc == 0; i++) {
        if (r->op == BLK_READ) {
            memcpy(part[i].iov_base, p, part[i].iov_len);
        } else {
            memcpy(p, part[i].iov_base, part[i].iov_len);
        }
        p += part[i].iov_len;
    }
    if (rc == 0 && r->op == BLK_WRITE) {
        io.op = BLK_WRITE;
        rc = file_transfer(f->fd, &io);
    }
    return rc;
}

static int file_bounce(struct blk_file *f, const struct blk_req *r)
{
    AUTO_FREE char *mem = xalloc_aligned(ALIGN, BOUNCE_MAX + 2 * ALIGN);
    int rc = 0;

    if (r->op == BLK_WRITE) {
        pthread_mutex_lock(&f->bounce);
    }
    for (uint64_t skip = 0; skip < r->length && rc == 0; skip += BOUNCE_MAX) {
        uint64_t length = r->length - skip < BOUNCE_MAX ? r->length - skip : BOUNCE_MAX;

        rc = file_bounce_part(f, r, skip, length, mem);
    }
    if (r->op == BLK_WRITE) {
        pthread_mutex_unlock(&f->bounce);
    }
    return rc;
}

static int file_flush(struct blk_file *f)
{
    uint64_t changes = atomic_load(&f->node.changes);
    int err = atomic_load(&f->flush_error);

    /* Nothing has changed since: what a flush is asked for twice is on the disk already. */
    if (err != 0 || atomic_load(&f->flushed) == changes) {
        return -err;
    }
    if (fdatasync(f->fd) == 0) {
        atomic_store(&f->flushed, changes);
    } else {
        err = errno;
        atomic_store(&f->flush_error, err);
        log_error("storage", "disk '%s': flush failed: %s; all later flushes fail",
                  f->node.name, strerror(err));
    }
    return -err;
}

static int file_write_zeroes(struct blk_file *f, uint64_t offset, uint64_t length)
{
    AUTO_FREE char *zeroes = xalloc_aligned(ALIGN, ZERO_CHUNK);
    int rc = 0;

    while (length > 0 && rc == 0) {
        struct iovec iov = { .iov_base = zeroes,
                             .iov_len = length < ZERO_CHUNK ? (size_t)length : ZERO_CHUNK };
        struct blk_req r = {
            .op = BLK_WRITE, .at = offset, .length = iov.iov_len, .iov = &iov, .n_iov = 1
        };

        rc = f->direct && !aligned(&r) ? file_bounce(f, &r) : file_transfer(f->fd, &r);
        offset += iov.iov_len;
        length -= iov.iov_len;
    }
    return rc;
}

static bool unsupported(int err)
{
    return err == EOPNOTSUPP || err == ENOSYS || err == ENOTTY || err == EINVAL ||
           err == ENODEV;
}

static int file_zero(struct blk_file *f, const struct blk_req *r)
{
    int mode = r->flags & BLK_UNMAP ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
                                    : FALLOC_FL_ZERO_RANGE;
    bool *missing = r->flags & BLK_UNMAP ? &f->no_punch : &f->no_zero;

    if (r->length == 0) {
        return 0;
    }
    if (!*missing) {
        if (fallocate(f->fd, mode, (off_t)r->at, (off_t)r->length) == 0) {
            return 0;
        }
        if (!unsupported(errno)) {
            return -errno;
        }
        *missing = true;
    }
    return file_write_zeroes(f, r->at, r->length);
}

static int file_discard(struct blk_file *f, const struct blk_req *r)
{
    if (r->length == 0 || f->no_punch ||
        fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)r->at,
                  (off_t)r->length) == 0) {
        return 0;
    }
    return unsupported(errno) ? 0 : -errno; /* a hint */
}

static int file_run(struct blk_node *n, struct blk_req *r)
{
    struct blk_file *f = (struct blk_file *)n;

    if (f->tap && r->op != BLK_READ) {
        f->tap->event(f->tap->arg, r);
    }
    switch (r->op) {
    case BLK_READ:
    case BLK_WRITE:
        return f->direct && !aligned(r) ? file_bounce(f, r) : file_transfer(f->fd, r);
    case BLK_FLUSH:
        return n->readonly || f->unsafe ? 0 : file_flush(f);
    case BLK_DISCARD:
        return file_discard(f, r);
    case BLK_ZERO:
        return file_zero(f, r);
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
        *out = (struct blk_extent){ .length = n->size - offset,
                                    .zero = true,
                                    .present = true,
                                    .has_host = true,
                                    .host = offset };
        return 0;
    }
    if (data < 0 && errno == EINVAL) { /* cannot tell: all data */
        *out = (struct blk_extent){ .length = n->size - offset,
                                    .data = true,
                                    .present = true,
                                    .has_host = true,
                                    .host = offset };
        return 0;
    }
    if (data < 0) {
        return err_errno(e, errno, "disk '%s': extent query", n->name);
    }
    if ((uint64_t)data > offset) {
        *out = (struct blk_extent){ .length = (uint64_t)data - offset,
                                    .zero = true,
                                    .present = true,
                                    .has_host = true,
                                    .host = offset };
        return 0;
    }
    hole = lseek(f->fd, (off_t)offset, SEEK_HOLE);
    if (hole < 0) {
        return err_errno(e, errno, "disk '%s': extent query", n->name);
    }
    *out = (struct blk_extent){ .length = (uint64_t)hole - offset,
                                .data = true,
                                .present = true,
                                .has_host = true,
                                .host = offset };
    return 0;
}

static int file_resize(struct blk_node *n, uint64_t size, struct err *e)
{
    struct blk_file *f = (struct blk_file *)n;

    if (!f->regular) {
        return err_set(e, -ENOTSUP, "disk '%s': %s is a device; its size is not ours to change",
                       n->name, n->path);
    }
    if (ftruncate(f->fd, (off_t)size) != 0) {
        return err_errno(e, errno, "disk '%s': cannot resize %s", n->name, n->path);
    }
    n->size = size;
    atomic_fetch_add(&n->changes, 1);
    return 0;
}

static int file_close(struct blk_node *n)
{
    struct blk_file *f = (struct blk_file *)n;

    if (n->pool) {
        blk_pool_unregister(n->pool, f->slot);
    }
    if (f->fd >= 0) {
        close(f->fd);
    }
    pthread_mutex_destroy(&f->bounce);
    return 0;
}

const struct blk_driver blk_file_driver = {
    .name = "file",
    .doc = "a regular file or a block device",
    .kind = BLK_PROTOCOL,
    .size = sizeof(struct blk_file),
    .open = file_open,
    .run = file_run,
    .submit = file_submit,
    .map = file_map,
    .resize = file_resize,
    .close = file_close,
    .release = file_release,
};
