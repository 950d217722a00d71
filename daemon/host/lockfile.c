/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lock files. No state.
 */
#include "daemon/host/lockfile.h"

#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { TRIES = 250 };
#define AGAIN_NS 20000000L

/* Who has it, as it has written; 0: nobody knows. */
static pid_t holder(int fd)
{
    char text[32];
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

    text[n > 0 ? n : 0] = 0;
    return (pid_t)atoi(text);
}

/*
 * A process that was killed while it started another lives on in that one, with its lock, until that one is what it is to become: of a
 * holder that is no more the lock comes before long.
 */
static int take_lock(int fd)
{
    const struct timespec pause = { .tv_nsec = AGAIN_NS };
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    int rc;

    for (int i = 0; (rc = fcntl(fd, F_OFD_SETLK, &lock)) < 0 && i < TRIES; i++) {
        pid_t pid = holder(fd);

        if ((errno != EAGAIN && errno != EACCES) || pid <= 0 || kill(pid, 0) == 0 ||
            errno != ESRCH) {
            break;
        }
        (void)nanosleep(&pause, NULL);
    }
    return rc < 0 ? fcntl(fd, F_OFD_SETLK, &lock) : rc;
}

int lockfile_take(const char *path, const char *what, struct err *e)
{
    char text[32];
    AUTO_FD fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (fd < 0) {
        return err_errno(e, errno, "cannot open lock file '%s'", path);
    }
    if (take_lock(fd) < 0) {
        if (errno != EAGAIN && errno != EACCES) {
            return err_errno(e, errno, "cannot lock '%s'", path);
        }
        return err_set(
            e, -EBUSY,
            "%s is in use by another vmd (pid %d); end that one or choose another --dir", what,
            (int)holder(fd));
    }
    int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)n, 0) != n) {
        /* The lock holds all the same; only the message of a second daemon will be poorer. */
        err_clear(e);
    }
    return take_fd(&fd);
}
