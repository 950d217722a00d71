/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lock files. No state.
 */
#include "daemon/host/lockfile.h"

#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int lockfile_take(const char *path, const char *what, struct err *e)
{
    char text[32];
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    AUTO_FD fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (fd < 0) {
        return err_errno(e, errno, "cannot open lock file '%s'", path);
    }
    if (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
        if (errno != EAGAIN && errno != EACCES) {
            return err_errno(e, errno, "cannot lock '%s'", path);
        }
        ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
        text[n > 0 ? n : 0] = 0;
        return err_set(
            e, -EBUSY,
            "%s is in use by another vmd (pid %d); end that one or choose another --dir", what,
            atoi(text));
    }
    int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)n, 0) != n) {
        /* The lock holds all the same; only the message of a second daemon will be poorer. */
        err_clear(e);
    }
    return take_fd(&fd);
}
