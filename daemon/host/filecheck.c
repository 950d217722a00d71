/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening files by policy, with errors that say what to mend. Owns nothing; any thread.
 */
#include "daemon/host/filecheck.h"

#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The first folder on the way that may not be entered, or that is missing; false: all fine. */
static bool bad_folder(const char *path, char *out, size_t size, struct stat *st, bool *missing)
{
    for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        if ((size_t)(slash - path) >= size) {
            return false;
        }
        memcpy(out, path, (size_t)(slash - path));
        out[slash - path] = 0;
        if (stat(out, st) < 0) {
            *missing = true;
            return errno == ENOENT;
        }
        if (faccessat(AT_FDCWD, out, X_OK, AT_EACCESS) < 0) {
            *missing = false;
            return true;
        }
    }
    return false;
}

static int explain_access(const char *what, const char *path, bool write, struct err *e)
{
    char folder[4096];
    struct stat st;
    bool missing = false;
    const char *verb = write ? "read and write" : "read";
    if (bad_folder(path, folder, sizeof(folder), &st, &missing)) {
        return err_set(
            e, -EACCES,
            "%s '%s' cannot be reached: uid %u may not enter folder '%s' (mode %04o, "
            "owner %u:%u); chmod o+x it or move the file",
            what, path, geteuid(), folder, st.st_mode & 07777, st.st_uid, st.st_gid);
    }
    if (stat(path, &st) == 0) {
        return err_set(
            e, -EACCES,
            "%s '%s' cannot be opened: uid %u may not %s it (mode %04o, owner %u:%u); "
            "change its mode or owner",
            what, path, geteuid(), verb, st.st_mode & 07777, st.st_uid, st.st_gid);
    }
    return err_set(e, -EACCES, "%s '%s' cannot be opened by uid %u: permission denied", what,
                   path, geteuid());
}

static int explain(const char *what, const char *path, bool write, int errnum, struct err *e)
{
    char folder[4096];
    struct stat st;
    bool missing = false;
    switch (errnum) {
    case ENOENT:
        if (bad_folder(path, folder, sizeof(folder), &st, &missing) && missing) {
            return err_set(e, -ENOENT, "%s '%s' does not exist: there is no folder '%s'", what,
                           path, folder);
        }
        return err_set(e, -ENOENT, "%s '%s' does not exist; check the path", what, path);
    case EACCES:
    case EPERM:
        return explain_access(what, path, write, e);
    case EROFS:
        return err_set(e, -EROFS,
                       "%s '%s' is on a read-only filesystem; add 'readonly' or move it", what,
                       path);
    case ETXTBSY:
        return err_set(e, -ETXTBSY, "%s '%s' is a program that runs now; it cannot be written",
                       what, path);
    default:
        return err_errno(e, errnum, "%s '%s' cannot be opened by uid %u", what, path,
                         geteuid());
    }
}

static int check_kind(const char *what, const char *path, enum file_kind kind,
                      const struct stat *st, struct err *e)
{
    if (S_ISDIR(st->st_mode)) {
        return err_set(e, -EISDIR, "%s '%s' is a folder, a file is needed", what, path);
    }
    if (kind == FILE_DISK && S_ISBLK(st->st_mode)) {
        return 0;
    }
    if (!S_ISREG(st->st_mode)) {
        return err_set(e, -EINVAL, "%s '%s' is not a regular file%s", what, path,
                       kind == FILE_DISK ? " or block device" : "");
    }
    if (kind == FILE_DATA && st->st_size == 0) {
        return err_set(e, -EINVAL, "%s '%s' is empty", what, path);
    }
    return 0;
}

int file_open_checked(const char *what, const char *path, enum file_kind kind, bool write,
                      struct err *e)
{
    if (path[0] != '/') {
        return err_set(e, -EINVAL, "%s '%s' must be an absolute path", what, path);
    }
    struct stat st;
    /* Looked at before it is opened: opening a device or FIFO can have effects of its own. */
    if (stat(path, &st) == 0) {
        int rc = check_kind(what, path, kind, &st, e);
        if (rc < 0) {
            return rc;
        }
    }
    int make = kind == FILE_NEW             ? O_CREAT | O_EXCL | O_NOFOLLOW
               : kind == FILE_MADE && write ? O_CREAT | O_NOFOLLOW
                                            : 0;
    AUTO_FD fd = open(path,
                      (write ? O_RDWR : O_RDONLY) | make | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
                      kind == FILE_NEW ? 0600 : 0640);
    if (fd < 0) {
        return explain(what, path, write, errno, e);
    }
    if (fstat(fd, &st) < 0) {
        return err_errno(e, errno, "%s '%s'", what, path);
    }
    int rc = check_kind(what, path, kind, &st, e);
    if (rc == 0) {
        rc = fd_set_nonblock(fd, false, e);
    }
    return rc < 0 ? rc : take_fd(&fd);
}

int file_check(const char *what, const char *path, enum file_kind kind, bool write, dev_t *dev,
               ino_t *ino, struct err *e)
{
    AUTO_FD fd = file_open_checked(what, path, kind, write, e);
    if (fd < 0) {
        return fd;
    }
    struct stat st;
    if (fstat(fd, &st) < 0) {
        return err_errno(e, errno, "%s '%s'", what, path);
    }
    if (dev) {
        *dev = S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev;
    }
    if (ino) {
        *ino = S_ISBLK(st.st_mode) ? 0 : st.st_ino;
    }
    return 0;
}
