/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attributes of files. With the mapped model the guest's owner, mode and device are kept in the extended attributes
 * user.virtfs.uid, .gid, .mode (32 bits, little-endian) and .rdev (64 bits), the names and forms of QEMU's "mapped-xattr", so that a folder can be
 * used by either. One thread.
 */
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "storage/share/p9.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MAPPED "user.virtfs."

/* --- the mapped model --- */

static bool read_mapped(int path, const char *name, void *value, size_t n)
{
    return getxattr(p9_proc(path).name, name, value, n) == (ssize_t)n;
}

static int write_mapped(int path, const char *name, const void *value, size_t n)
{
    return setxattr(p9_proc(path).name, name, value, n, 0) < 0 ? -errno : 0;
}

static int write_mapped32(int path, const char *name, uint32_t value)
{
    uint32_t le = htole32(value);

    return write_mapped(path, name, &le, sizeof(le));
}

static void apply_mapped(int path, struct stat *st)
{
    uint32_t v;
    uint64_t rdev;

    if (!S_ISREG(st->st_mode) && !S_ISDIR(st->st_mode)) {
        return; /* what the host made */
    }
    if (read_mapped(path, MAPPED "uid", &v, sizeof(v))) {
        st->st_uid = le32toh(v);
    }
    if (read_mapped(path, MAPPED "gid", &v, sizeof(v))) {
        st->st_gid = le32toh(v);
    }
    if (read_mapped(path, MAPPED "mode", &v, sizeof(v))) {
        uint32_t mode = le32toh(v);
        /* A folder stays one, and nothing else becomes one, whatever the attribute says. */
        bool folder = S_ISDIR(st->st_mode);

        if (folder == S_ISDIR(mode)) {
            st->st_mode = mode;
        }
    }
    if (read_mapped(path, MAPPED "rdev", &rdev, sizeof(rdev))) {
        st->st_rdev = le64toh(rdev);
    }
}

int p9_stat(const struct p9 *s, int path, struct p9_stat *out)
{
    struct stat *st = &out->st;

    if (fstatat(path, "", st, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0) {
        return -errno;
    }
    if (s->mapped) {
        apply_mapped(path, st);
    }
    out->qid_type = S_ISDIR(st->st_mode) ? 0x80 : S_ISLNK(st->st_mode) ? 0x02 : 0;
    out->qid_version = (uint32_t)st->st_mtim.tv_sec ^ (uint32_t)((uint64_t)st->st_size << 8);
    out->qid_path = st->st_ino;
    if (st->st_dev != s->root_dev) { /* a file system within: its numbers are not ours */
        out->qid_path ^= (uint64_t)st->st_dev * UINT64_C(0x9e3779b97f4a7c15);
    }
    return 0;
}

void p9_put_qid(struct p9_out *out, const struct p9_stat *st)
{
    p9_put8(out, st->qid_type);
    p9_put32(out, st->qid_version);
    p9_put64(out, st->qid_path);
}

int p9_chmod(const struct p9 *s, int path, uint32_t mode)
{
    struct p9_stat st;
    int rc;

    if (!s->mapped) {
        return fchmodat(AT_FDCWD, p9_proc(path).name, mode & 07777, 0) < 0 ? -errno : 0;
    }
    rc = p9_stat(s, path, &st);
    return rc < 0
               ? rc
               : write_mapped32(path, MAPPED "mode", (st.st.st_mode & S_IFMT) | (mode & 07777));
}

int p9_chown(const struct p9 *s, int path, uint32_t uid, uint32_t gid)
{
    int rc = 0;

    if (!s->mapped) {
        rc = fchownat(path, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
        /* An ordinary user's server keeps files its user's; there is nobody else. */
        return rc == -EPERM && geteuid() != 0 ? 0 : rc == -EINVAL && geteuid() != 0 ? 0 : rc;
    }
    if (uid != UINT32_MAX) {
        rc = write_mapped32(path, MAPPED "uid", uid);
    }
    return rc == 0 && gid != UINT32_MAX ? write_mapped32(path, MAPPED "gid", gid) : rc;
}

int p9_made(const struct p9 *s, int fd, uint32_t uid, uint32_t gid, uint32_t mode,
            uint64_t rdev)
{
    uint64_t le = htole64(rdev);
    int rc = p9_chown(s, fd, uid, gid);

    if (rc == 0 && s->mapped) {
        rc = write_mapped32(fd, MAPPED "mode", mode);
    } else if (rc == 0 && !S_ISLNK(mode)) {
        rc = p9_chmod(s, fd, mode); /* which a change of owner may have reduced */
    }
    return rc == 0 && s->mapped && rdev ? write_mapped(fd, MAPPED "rdev", &le, sizeof(le)) : rc;
}

/* --- requests --- */

#define GETATTR_BASIC UINT64_C(0x7ff)

int p9_getattr(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    struct p9_fid *f = p9_find(s, p9_get32(in));
    struct p9_stat st;
    int rc;

    (void)p9_get64(in); /* what it wants to know: it gets all */
    if (in->bad || !f) {
        return -EBADF;
    }
    rc = p9_stat(s, f->path, &st);
    if (rc < 0) {
        return rc;
    }
    p9_put64(out, GETATTR_BASIC);
    p9_put_qid(out, &st);
    p9_put32(out, st.st.st_mode);
    p9_put32(out, st.st.st_uid);
    p9_put32(out, st.st.st_gid);
    p9_put64(out, st.st.st_nlink);
    p9_put64(out, st.st.st_rdev);
    p9_put64(out, (uint64_t)st.st.st_size);
    p9_put64(out, (uint64_t)st.st.st_blksize);
    p9_put64(out, (uint64_t)st.st.st_blocks);
    p9_put64(out, (uint64_t)st.st.st_atim.tv_sec);
    p9_put64(out, (uint64_t)st.st.st_atim.tv_nsec);
    p9_put64(out, (uint64_t)st.st.st_mtim.tv_sec);
    p9_put64(out, (uint64_t)st.st.st_mtim.tv_nsec);
    p9_put64(out, (uint64_t)st.st.st_ctim.tv_sec);
    p9_put64(out, (uint64_t)st.st.st_ctim.tv_nsec);
    for (unsigned i = 0; i < 4; i++) {
        p9_put64(out, 0); /* birth, generation, version: not known */
    }
    return 0;
}

enum {
    SET_MODE = 1,
    SET_UID = 2,
    SET_GID = 4,
    SET_SIZE = 8,
    SET_ATIME = 0x10,
    SET_MTIME = 0x20,
    SET_ATIME_TO = 0x80,
    SET_MTIME_TO = 0x100
};

static int set_size(struct p9_fid *f, uint64_t size)
{
    AUTO_FD fd = -1;

    if (f->io >= 0 && ftruncate(f->io, (off_t)size) == 0) {
        return 0;
    }
    fd = open(p9_proc(f->path).name, O_WRONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    return fd < 0 || ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
}

static bool set_time(struct timespec *t, uint32_t valid, uint32_t any, uint32_t to,
                     uint64_t sec, uint64_t nsec)
{
    t->tv_sec = (time_t)sec;
    t->tv_nsec = !(valid & any) ? UTIME_OMIT : !(valid & to) ? UTIME_NOW : (long)nsec;
    return !(valid & to) || nsec < 1000000000;
}

int p9_setattr(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    struct p9_fid *f = p9_find(s, p9_get32(in));
    uint32_t valid = p9_get32(in), mode = p9_get32(in), uid = p9_get32(in), gid = p9_get32(in);
    uint64_t size = p9_get64(in), t[4];
    struct timespec times[2];
    struct p9_stat st;
    int rc;

    (void)out;
    for (unsigned i = 0; i < 4; i++) {
        t[i] = p9_get64(in);
    }
    if (in->bad || !f || f->xname) {
        return -EBADF;
    }
    if (!set_time(&times[0], valid, SET_ATIME, SET_ATIME_TO, t[0], t[1]) ||
        !set_time(&times[1], valid, SET_MTIME, SET_MTIME_TO, t[2], t[3])) {
        return -EINVAL;
    }
    rc = p9_stat(s, f->path, &st);
    if (rc == 0 && (valid & SET_SIZE)) {
        rc = !S_ISREG(st.st.st_mode) ? -EINVAL : size > INT64_MAX ? -EFBIG : set_size(f, size);
    }
    if (rc == 0 && (valid & (SET_UID | SET_GID))) {
        rc = p9_chown(s, f->path, valid & SET_UID ? uid : UINT32_MAX,
                      valid & SET_GID ? gid : UINT32_MAX);
    }
    if (rc == 0 && (valid & SET_MODE)) {
        rc = p9_chmod(s, f->path, mode);
    }
    if (rc == 0 && (valid & (SET_ATIME | SET_MTIME)) &&
        utimensat(AT_FDCWD, p9_proc(f->path).name, times, 0) < 0) {
        rc = -errno;
    }
    return rc;
}

int p9_statfs(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    struct p9_fid *f = p9_find(s, p9_get32(in));
    struct statfs st;

    if (in->bad || !f) {
        return -EBADF;
    }
    if (fstatfs(f->path, &st) < 0) {
        return -errno;
    }
    p9_put32(out, 0x01021997); /* of 9P */
    p9_put32(out, (uint32_t)st.f_bsize);
    p9_put64(out, st.f_blocks);
    p9_put64(out, st.f_bfree);
    p9_put64(out, st.f_bavail);
    p9_put64(out, st.f_files);
    p9_put64(out, st.f_ffree);
    p9_put64(out, (uint64_t)s->root_dev);
    p9_put32(out, P9_NAME_MAX);
    return 0;
}

/* --- extended attributes --- */

bool p9_xattr_seen(const struct p9 *s, const char *name)
{
    if (str_starts(name, MAPPED)) {
        return false;
    }
    return str_starts(name, "user.") || (!s->mapped && (str_starts(name, "security.") ||
                                                        str_starts(name, "system.posix_acl_")));
}

/* Leaves in a list of names those that are seen. */
static size_t filter(const struct p9 *s, char *list, size_t n)
{
    size_t kept = 0;

    for (size_t at = 0; at < n;) {
        size_t len = strnlen(list + at, n - at) + 1;

        if (at + len <= n && p9_xattr_seen(s, list + at)) {
            memmove(list + kept, list + at, len);
            kept += len;
        }
        at += len;
    }
    return kept;
}

int p9_xattrwalk(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    char name[P9_NAME_MAX + 1];
    struct p9_fid *f = p9_find(s, p9_get32(in)), *made;
    uint32_t id = p9_get32(in);
    AUTO_FREE uint8_t *value = xalloc(P9_XATTR_MAX + 1);
    ssize_t n;
    int fd, rc;

    p9_get_str(in, name, P9_NAME_MAX);
    if (in->bad || !f || f->xname || p9_find(s, id)) {
        return -EBADF;
    }
    if (name[0] && !p9_xattr_seen(s, name)) {
        return -EOPNOTSUPP;
    }
    n = name[0] ? getxattr(p9_proc(f->path).name, name, value, P9_XATTR_MAX)
                : listxattr(p9_proc(f->path).name, (char *)value, P9_XATTR_MAX);
    if (n < 0) {
        return -errno;
    }
    if (!name[0]) {
        n = (ssize_t)filter(s, (char *)value, (size_t)n);
    }
    fd = fcntl(f->path, F_DUPFD_CLOEXEC, 3);
    rc = fd < 0 ? -errno : p9_fid_new(s, id, f->uid, fd, &made);
    if (rc < 0) {
        return rc;
    }
    made->xname = xstrdup(name);
    made->xvalue = xmemdup(value, (size_t)n + 1);
    made->xsize = (size_t)n;
    p9_put64(out, (uint64_t)n);
    return 0;
}

int p9_xattrcreate(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    char name[P9_NAME_MAX + 1];
    struct p9_fid *f = p9_find(s, p9_get32(in));
    uint64_t size;
    uint32_t flags;

    (void)out;
    p9_get_str(in, name, P9_NAME_MAX);
    size = p9_get64(in);
    flags = p9_get32(in);
    if (in->bad || !f || f->xname || f->io >= 0) {
        return -EBADF;
    }
    if (!p9_xattr_seen(s, name)) {
        return -EOPNOTSUPP;
    }
    if (size > P9_XATTR_MAX || (flags & ~(uint32_t)(XATTR_CREATE | XATTR_REPLACE))) {
        return size > P9_XATTR_MAX ? -E2BIG : -EINVAL;
    }
    f->xname = xstrdup(name);
    f->xvalue = xalloc((size_t)size + 1);
    f->xsize = (size_t)size;
    f->xwrite = true;
    f->xflags = (int)flags;
    return 0;
}

/* Linux has no other request to take one away than a value of no bytes. */
int p9_xattr_flush(struct p9 *s, struct p9_fid *f)
{
    struct p9_proc at = p9_proc(f->path);
    int rc;

    (void)s;
    if (!f->xwrite) {
        return 0;
    }
    rc = f->xsize ? setxattr(at.name, f->xname, f->xvalue, f->xsize, f->xflags)
                  : removexattr(at.name, f->xname);
    return rc < 0 ? -errno : 0;
}
