/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contents of files and folders, and locks. One thread.
 */
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "storage/share/p9.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Flags of 9P2000.L that we have a use for; their numbers are Linux' on most of its architectures. */
enum {
    L_ACCMODE = 3,
    L_EXCL = 0200,
    L_TRUNC = 01000,
    L_APPEND = 02000,
    L_DSYNC = 010000,
    L_SYNC = 04000000
};

static int host_flags(const struct p9 *s, uint32_t flags)
{
    int mode = (int)(flags & L_ACCMODE);

    if (s->readonly && (mode != O_RDONLY || (flags & L_TRUNC))) {
        return -EROFS;
    }
    return (mode == 3 ? O_RDWR : mode) | (flags & L_TRUNC ? O_TRUNC : 0) |
           (flags & L_APPEND ? O_APPEND : 0) | (flags & L_DSYNC ? O_DSYNC : 0) |
           (flags & L_SYNC ? O_SYNC : 0) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
}

/* Opens a file or folder that was looked up. Others are the guest's own affair: their numbers are all it needs. */
static int open_found(struct p9_fid *f, int flags)
{
    struct stat st;
    int fd;

    if (fstat(f->path, &st) < 0) {
        return -errno;
    }
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
        return -EOPNOTSUPP;
    }
    fd = open(p9_proc(f->path).name, flags | (S_ISDIR(st.st_mode) ? O_DIRECTORY : 0));
    return fd < 0 ? -errno : fd;
}

static int opened(struct p9 *s, struct p9_fid *f, struct p9_out *out)
{
    struct p9_stat st;
    int rc = p9_stat(s, f->path, &st);

    p9_put_qid(out, &st);
    p9_put32(out, 0); /* as much at once as fits into a message */
    return rc;
}

int p9_lopen(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    struct p9_fid *f = p9_find(s, p9_get32(in));
    uint32_t flags = p9_get32(in);
    int how, fd;

    if (in->bad || !f || f->xname || f->io >= 0) {
        return -EBADF;
    }
    how = host_flags(s, flags);
    fd = how < 0 ? how : open_found(f, how);
    if (fd < 0) {
        return fd;
    }
    f->io = fd;
    return opened(s, f, out);
}

/* The fid becomes the file that was made, or found. */
static int become(struct p9_fid *f, int take_path, int take_io)
{
    close(f->path);
    f->path = take_path;
    f->io = take_io;
    return 0;
}

/* One that is there already: as if it had been walked to and opened. */
static int open_there(struct p9_fid *f, const char *name, int how)
{
    struct p9_fid there = { .path = p9_lookup(f->path, name) };
    int fd = there.path < 0 ? there.path : open_found(&there, how);

    if (fd < 0) {
        fd_autoclose(&there.path);
        return fd;
    }
    return become(f, there.path, fd);
}

int p9_lcreate(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    char name[P9_NAME_MAX + 1];
    struct p9_fid *f = p9_find(s, p9_get32(in));
    uint32_t flags, mode, gid;
    int how, rc;

    p9_get_str(in, name, P9_NAME_MAX);
    flags = p9_get32(in);
    mode = p9_get32(in);
    gid = p9_get32(in);
    if (in->bad || !f || f->xname || f->io >= 0 || !p9_name_ok(name)) {
        return -EINVAL;
    }
    how = host_flags(s, flags);
    if (how < 0) {
        return how;
    }
    AUTO_FD fd = openat(f->path, name, how | O_CREAT | O_EXCL | O_NOFOLLOW,
                        s->mapped ? 0600 : mode & 0777);
    if (fd < 0 && errno == EEXIST && !(flags & L_EXCL)) {
        rc = open_there(f, name, how);
        return rc < 0 ? rc : opened(s, f, out);
    }
    if (fd < 0) {
        return -errno;
    }
    /* By the descriptor: the name may be another file's already. */
    AUTO_FD path = open(p9_proc(fd).name, O_PATH | O_CLOEXEC);
    rc = path < 0 ? -errno : p9_made(s, path, f->uid, gid, S_IFREG | (mode & 07777), 0);
    if (rc < 0) {
        unlinkat(f->path, name, 0);
        return rc;
    }
    become(f, take_fd(&path), take_fd(&fd));
    return opened(s, f, out);
}

/* --- bytes --- */

static size_t room(const struct p9 *s, const struct p9_out *out, uint32_t count)
{
    size_t left = s->msize - out->n;

    return count < left ? count : left;
}

int p9_read(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    struct p9_fid *f = p9_find(s, p9_get32(in));
    uint64_t at = p9_get64(in);
    uint32_t count = p9_get32(in);
    struct p9_out length = *out;
    ssize_t n = 0;

    if (in->bad || !f || (f->io < 0 && !f->xname) || f->xwrite) {
        return -EBADF;
    }
    out->n += 4;
    count = (uint32_t)room(s, out, count);
    if (f->xname) {
        n = at < f->xsize ? (ssize_t)(f->xsize - at < count ? f->xsize - at : count) : 0;
        memcpy(out->p + out->n, f->xvalue + (n ? at : 0), (size_t)n);
    } else {
        n = at > INT64_MAX ? 0 : pread(f->io, out->p + out->n, count, (off_t)at);
    }
    if (n < 0) {
        return -errno;
    }
    p9_put32(&length, (uint32_t)n);
    out->n += (size_t)n;
    return 0;
}

static int write_xattr(struct p9_fid *f, uint64_t at, const uint8_t *p, uint32_t n)
{
    if (!f->xwrite || at > f->xsize || n > f->xsize - at) {
        return f->xwrite ? -ENOSPC : -EBADF;
    }
    memcpy(f->xvalue + at, p, n);
    return 0;
}

int p9_write(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    struct p9_fid *f = p9_find(s, p9_get32(in));
    uint64_t at = p9_get64(in);
    uint32_t count = p9_get32(in);
    ssize_t n = count;

    if (in->bad || !f || count > in->n || at > INT64_MAX) {
        return !f ? -EBADF : -EINVAL;
    }
    if (f->xname) {
        int rc = write_xattr(f, at, in->p, count);

        if (rc < 0) {
            return rc;
        }
    } else {
        n = f->io < 0 ? (errno = EBADF, -1) : pwrite(f->io, in->p, count, (off_t)at);
    }
    if (n < 0) {
        return -errno;
    }
    p9_put32(out, (uint32_t)n);
    return 0;
}

int p9_fsync(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    struct p9_fid *f = p9_find(s, p9_get32(in));
    bool data = in->n >= 4 && p9_get32(in);

    (void)out;
    if (in->bad || !f || f->io < 0) {
        return -EBADF;
    }
    return (data ? fdatasync(f->io) : fsync(f->io)) < 0 ? -errno : 0;
}

/* --- folders --- */

struct entry64 {
    uint64_t ino;
    int64_t next;
    uint16_t length;
    uint8_t type;
    char name[];
};

/* What a listing tells of an entry: its number and kind; the guest asks for more when it wants to know. */
static bool put_entry(const struct p9 *s, struct p9_out *out, const struct entry64 *d,
                      size_t limit)
{
    struct p9_stat st = { .qid_type = d->type == DT_DIR   ? 0x80
                                      : d->type == DT_LNK ? 0x02
                                                          : 0,
                          .qid_path = d->ino };
    size_t name = strlen(d->name);

    if (out->n + 13 + 8 + 1 + 2 + name > limit) {
        return false;
    }
    p9_put_qid(out, &st);
    p9_put64(out, (uint64_t)d->next);
    p9_put8(out, s->mapped && d->type == DT_REG ? DT_UNKNOWN
                                                : d->type); /* it may be mapped to another */
    p9_put_str(out, d->name);
    return true;
}

int p9_readdir(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    struct p9_fid *f = p9_find(s, p9_get32(in));
    uint64_t at = p9_get64(in);
    uint32_t count = p9_get32(in);
    struct p9_out length = *out;
    size_t begin, limit;
    union {
        char bytes[16384];
        uint64_t align;
    } list;
    bool more = true;

    if (in->bad || !f || f->io < 0 || f->xname) {
        return -EBADF;
    }
    if (lseek(f->io, (off_t)at, SEEK_SET) < 0) {
        return -errno;
    }
    out->n += 4;
    begin = out->n;
    limit = begin + room(s, out, count);
    while (more) {
        long n = syscall(SYS_getdents64, f->io, list.bytes, sizeof(list.bytes));

        if (n < 0) {
            return -errno;
        }
        more = n > 0;
        for (long k = 0; k < n && more;) {
            const struct entry64 *d = (const struct entry64 *)(const void *)(list.bytes + k);

            k += d->length;
            more = put_entry(s, out, d, limit);
        }
    }
    p9_put32(&length, (uint32_t)(out->n - begin));
    return 0;
}

/* --- locks: those of the host, so that guest and host see each other's; the guest's own it keeps apart itself --- */

enum { LOCK_SUCCESS = 0, LOCK_BLOCKED = 1, LOCK_ERROR = 2 };
enum { L_RDLCK = 0, L_WRLCK = 1, L_UNLCK = 2 };

static bool get_lock(struct p9_in *in, bool flags, struct flock *l)
{
    uint8_t type = p9_get8(in);

    if (flags) {
        (void)p9_get32(in); /* waiting is the client's */
    }
    *l = (struct flock){ .l_type = type == L_RDLCK   ? F_RDLCK
                                   : type == L_WRLCK ? F_WRLCK
                                                     : F_UNLCK,
                         .l_whence = SEEK_SET };
    l->l_start = (off_t)p9_get64(in);
    l->l_len = (off_t)p9_get64(in);
    return type <= L_UNLCK && l->l_start >= 0 && l->l_len >= 0;
}

/* A descriptor that may be locked that way: one for writing, where flock(2) of the guest is content with one for reading. */
static int lock_fd(struct p9 *s, struct p9_fid *f, short type)
{
    int mode = fcntl(f->io, F_GETFL) & O_ACCMODE;

    if (mode == O_RDWR || type == F_UNLCK || (type == F_RDLCK && mode == O_RDONLY) ||
        (type == F_WRLCK && mode == O_WRONLY)) {
        return f->io;
    }
    if (f->lock < 0 && !s->readonly) {
        f->lock = open(p9_proc(f->path).name, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    }
    return f->lock;
}

int p9_lock(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    struct p9_fid *f = p9_find(s, p9_get32(in));
    struct flock l;
    bool ok = get_lock(in, true, &l);
    int fd;

    if (in->bad || !f || f->io < 0 || !ok) {
        return in->bad || !ok ? -EINVAL : -EBADF;
    }
    fd = lock_fd(s, f, l.l_type);
    if (l.l_type == F_UNLCK && f->lock >= 0) {
        (void)fcntl(f->lock, F_OFD_SETLK, &l);
    }
    if (fd >= 0 && fcntl(fd, F_OFD_SETLK, &l) < 0) {
        p9_put8(out, errno == EAGAIN || errno == EACCES ? LOCK_BLOCKED : LOCK_ERROR);
    } else {
        p9_put8(out, LOCK_SUCCESS);
    }
    return 0;
}

int p9_getlock(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    char client[P9_NAME_MAX + 1];
    struct p9_fid *f = p9_find(s, p9_get32(in));
    struct flock l;
    bool ok = get_lock(in, false, &l);
    uint32_t pid = p9_get32(in);

    p9_get_str(in, client, P9_NAME_MAX);
    if (in->bad || !f || f->io < 0 || !ok) {
        return in->bad || !ok ? -EINVAL : -EBADF;
    }
    if (fcntl(f->io, F_OFD_GETLK, &l) < 0) {
        return -errno;
    }
    p9_put8(out, l.l_type == F_RDLCK ? L_RDLCK : l.l_type == F_WRLCK ? L_WRLCK : L_UNLCK);
    p9_put64(out, (uint64_t)l.l_start);
    p9_put64(out, (uint64_t)l.l_len);
    p9_put32(out, l.l_type == F_UNLCK ? pid : 0);
    p9_put_str(out, client);
    return 0;
}
