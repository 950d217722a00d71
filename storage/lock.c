/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Image locks: an open-file-description lock over the image, shared by readers, exclusive to
 * one writer. It ends with the last copy of the descriptor, however the process dies.
 *
 * OFD locks do not tell who holds them, so each holder also keeps a classic lock on one byte
 * far behind any data, which F_GETLK answers with the pid. That one is information only.
 */
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "storage/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOCK_SPAN (1ll << 62)      /* bytes [0, LOCK_SPAN): the lock */
#define MARK_BYTE (LOCK_SPAN + 64) /* the holder's mark */

/* What /proc says the process is: vmd-emu names itself "vm:NAME". */
static void holder_name(pid_t pid, char *out, size_t size)
{
    AUTO_BUF b = BUF_INIT;
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
    if (file_slurp(path, &b, 64, NULL) != 0 || b.len == 0) {
        snprintf(out, size, "a process");
        return;
    }
    b.data[strcspn(b.data, "\n")] = 0;
    if (strncmp(b.data, "vm:", 3) == 0) {
        snprintf(out, size, "VM '%s'", b.data + 3);
    } else {
        snprintf(out, size, "%s", b.data);
    }
}

static int lock_busy(int fd, const char *disk, struct err *e)
{
    struct flock mark = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = MARK_BYTE, .l_len = 1
    };
    char who[64];

    if (fcntl(fd, F_GETLK, &mark) != 0 || mark.l_type == F_UNLCK || mark.l_pid <= 0) {
        return err_set(e, -EBUSY, "disk '%s' is locked by another program; stop it first",
                       disk);
    }
    holder_name(mark.l_pid, who, sizeof(who));
    return err_set(e, -EBUSY, "disk '%s' is locked by %s (pid %d)", disk, who, (int)mark.l_pid);
}

int blk_lock(int fd, bool readonly, const char *disk, struct err *e)
{
    struct flock lock = { .l_type = readonly ? F_RDLCK : F_WRLCK,
                          .l_whence = SEEK_SET,
                          .l_len = LOCK_SPAN };
    struct flock mark = {
        .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = MARK_BYTE, .l_len = 1
    };

    if (fcntl(fd, F_OFD_SETLK, &lock) != 0) {
        if (errno == EAGAIN || errno == EACCES) {
            return lock_busy(fd, disk, e);
        }
        log_warn("storage", "disk '%s': its file system has no locks (%s)", disk,
                 strerror(errno));
        return 0;
    }
    (void)fcntl(fd, F_SETLK, &mark); /* information only */
    return 0;
}
