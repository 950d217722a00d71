/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What gives files their names, and takes them away. With the mapped model a symbolic link is a file that holds its target, and a device
 * an empty file, as QEMU's "mapped-xattr" has them: nothing on the host follows or opens them. One thread.
 */
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "storage/share/p9.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <stdio.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Gives what was made its owner and kind, or takes it away; its number goes out. */
static int finish(struct p9 *s, struct p9_fid *dir, const char *name, uint32_t gid,
                  uint32_t mode, uint64_t rdev, struct p9_out *out)
{
    AUTO_FD fd = p9_lookup(dir->path, name);
    struct p9_stat st;
    int rc = fd < 0 ? fd : p9_made(s, fd, dir->uid, gid, mode, rdev);

    rc = rc == 0 ? p9_stat(s, fd, &st) : rc;
    if (rc < 0) {
        unlinkat(dir->path, name, S_ISDIR(mode) ? AT_REMOVEDIR : 0);
        return rc;
    }
    p9_put_qid(out, &st);
    return 0;
}

static int bad_place(const struct p9_in *in, const struct p9_fid *dir, const char *name)
{
    return in->bad ? -EINVAL : !dir || dir->xname ? -EBADF : !p9_name_ok(name) ? -EINVAL : 0;
}

static int make_file(struct p9_fid *dir, const char *name, const char *text)
{
    AUTO_FD fd = openat(dir->path, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                        0600);
    size_t n = strlen(text);

    if (fd < 0) {
        return -errno;
    }
    if (write(fd, text, n) != (ssize_t)n) {
        unlinkat(dir->path, name, 0);
        return -ENOSPC;
    }
    return 0;
}

int p9_symlink(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    char name[P9_NAME_MAX + 1], target[PATH_MAX];
    struct p9_fid *dir = p9_find(s, p9_get32(in));
    uint32_t gid;
    int rc;

    p9_get_str(in, name, P9_NAME_MAX);
    p9_get_str(in, target, PATH_MAX - 1);
    gid = p9_get32(in);
    rc = bad_place(in, dir, name);
    if (rc == 0 && s->mapped) {
        rc = make_file(dir, name, target);
    } else if (rc == 0 && symlinkat(target, dir->path, name) < 0) {
        rc = -errno;
    }
    return rc < 0 ? rc : finish(s, dir, name, gid, S_IFLNK | 0777, 0, out);
}

int p9_readlink(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    char target[PATH_MAX];
    struct p9_fid *f = p9_find(s, p9_get32(in));
    struct p9_stat st;
    struct stat real;
    AUTO_FD fd = -1;
    ssize_t n;
    int rc;

    if (in->bad || !f) {
        return -EBADF;
    }
    rc = p9_stat(s, f->path, &st);
    if (rc < 0 || fstat(f->path, &real) < 0 || !S_ISLNK(st.st.st_mode)) {
        return rc < 0 ? rc : -EINVAL;
    }
    if (S_ISLNK(real.st_mode)) {
        n = readlinkat(f->path, "", target, sizeof(target) - 1);
    } else {
        fd = open(p9_proc(f->path).name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        n = fd < 0 ? -1 : pread(fd, target, sizeof(target) - 1, 0);
    }
    if (n < 0) {
        return -errno;
    }
    target[n] = 0;
    p9_put_str(out, target);
    return 0;
}

int p9_mknod(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    char name[P9_NAME_MAX + 1];
    struct p9_fid *dir = p9_find(s, p9_get32(in));
    uint32_t mode, major_, minor_, gid;
    dev_t rdev;
    int rc;

    p9_get_str(in, name, P9_NAME_MAX);
    mode = p9_get32(in);
    major_ = p9_get32(in);
    minor_ = p9_get32(in);
    gid = p9_get32(in);
    rc = bad_place(in, dir, name);
    if (rc == 0 && (S_ISDIR(mode) || S_ISLNK(mode))) {
        rc = -EINVAL;
    }
    mode |= (mode & S_IFMT) ? 0 : S_IFREG;
    rdev = S_ISCHR(mode) || S_ISBLK(mode) ? makedev(major_, minor_) : 0;
    if (rc == 0 && s->mapped) {
        rc = make_file(dir, name, "");
    } else if (rc == 0 && mknodat(dir->path, name, mode & (S_IFMT | 0777), rdev) < 0) {
        rc = -errno;
    }
    return rc < 0 ? rc : finish(s, dir, name, gid, mode, rdev, out);
}

int p9_mkdir(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    char name[P9_NAME_MAX + 1];
    struct p9_fid *dir = p9_find(s, p9_get32(in));
    uint32_t mode, gid;
    int rc;

    p9_get_str(in, name, P9_NAME_MAX);
    mode = p9_get32(in);
    gid = p9_get32(in);
    rc = bad_place(in, dir, name);
    if (rc == 0 && mkdirat(dir->path, name, s->mapped ? 0700 : mode & 0777) < 0) {
        rc = -errno;
    }
    return rc < 0 ? rc : finish(s, dir, name, gid, S_IFDIR | (mode & 07777), 0, out);
}

int p9_link(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    char name[P9_NAME_MAX + 1];
    struct p9_fid *dir = p9_find(s, p9_get32(in)), *f = p9_find(s, p9_get32(in));
    int rc;

    (void)out;
    p9_get_str(in, name, P9_NAME_MAX);
    rc = bad_place(in, dir, name);
    if (rc == 0 && (!f || f->xname)) {
        rc = -EBADF;
    }
    if (rc == 0 &&
        linkat(AT_FDCWD, p9_proc(f->path).name, dir->path, name, AT_SYMLINK_FOLLOW) < 0) {
        rc = -errno;
    }
    return rc;
}

int p9_renameat(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    char from[P9_NAME_MAX + 1], to[P9_NAME_MAX + 1];
    struct p9_fid *old = p9_find(s, p9_get32(in)), *dir;
    int rc;

    (void)out;
    p9_get_str(in, from, P9_NAME_MAX);
    dir = p9_find(s, p9_get32(in));
    p9_get_str(in, to, P9_NAME_MAX);
    rc = bad_place(in, old, from);
    rc = rc == 0 ? bad_place(in, dir, to) : rc;
    return rc == 0 && renameat(old->path, from, dir->path, to) < 0 ? -errno : rc;
}

int p9_unlinkat(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    char name[P9_NAME_MAX + 1];
    struct p9_fid *dir = p9_find(s, p9_get32(in));
    uint32_t flags;
    int rc;

    (void)out;
    p9_get_str(in, name, P9_NAME_MAX);
    flags = p9_get32(in);
    rc = bad_place(in, dir, name);
    return rc == 0 && unlinkat(dir->path, name, flags & AT_REMOVEDIR) < 0 ? -errno : rc;
}
