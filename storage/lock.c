/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Image locks: open-file-description locks on single bytes of the image, as QEMU 2.10 and later place
 * them, so that either program keeps off what the other uses. Byte 100 + i is read-locked by who
 * needs permission i, byte 200 + i by who does not let others have it; i is 0 for consistent
 * reading, 1 for writing, 3 for resizing. First all bytes are locked, then the opposite ones are
 * looked at, so two that race may both be refused, but never both be let in. Locks end with the
 * last copy of the descriptor, however the process dies.
 *
 * OFD locks do not tell who holds them, so each holder also keeps a classic lock on one byte
 * far behind any data, which F_GETLK answers with the pid. That one is information only. Who leaves no such
 * mark is looked for in /proc.
 */
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "storage/driver.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MARK_BYTE ((1ll << 62) + 64) /* the holder's mark */
enum { NEED_BASE = 100, KEEP_BASE = 200, TRIES = 4, TRY_NS = 2000000 };
/* About 1.5 s; for emulators, whose own dead predecessor it often is, 5 s. */
enum { GHOST_TRIES = 250, GHOST_TRIES_EMU = 900 };
static const struct {
    unsigned perm;
    int bit;
} lock_bits[] = { { BLK_PERM_READ, 0 }, { BLK_PERM_WRITE, 1 }, { BLK_PERM_RESIZE, 3 } };

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

/* The process that left its mark; 0: none. */
static pid_t lock_holder(int fd)
{
    struct flock mark = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = MARK_BYTE, .l_len = 1
    };

    return fcntl(fd, F_GETLK, &mark) != 0 || mark.l_type == F_UNLCK ? 0 : mark.l_pid;
}

/* Does the process have our file open under this number, with such a lock? */
static bool fd_locks(const char *pid, const char *number, int fd, const struct stat *ours)
{
    AUTO_BUF b = BUF_INIT;
    char path[64];
    struct stat st;

    if (strtol(pid, NULL, 10) == getpid() && strtol(number, NULL, 10) == fd) {
        return false;
    }
    snprintf(path, sizeof(path), "/proc/%.10s/fd/%.10s", pid, number);
    if (stat(path, &st) != 0 || st.st_dev != ours->st_dev || st.st_ino != ours->st_ino) {
        return false;
    }
    snprintf(path, sizeof(path), "/proc/%.10s/fdinfo/%.10s", pid, number);
    return file_slurp(path, &b, 4096, NULL) == 0 && b.data && strstr(b.data, "OFDLCK");
}

static bool process_locks(const char *pid, int fd, const struct stat *ours)
{
    struct dirent *d;
    bool found = false;
    char path[64];
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%.10s/fd", pid);
    dir = opendir(path);
    while (dir && !found && (d = readdir(dir))) {
        found = d->d_name[0] != '.' && fd_locks(pid, d->d_name, fd, ours);
    }
    if (dir) {
        closedir(dir);
    }
    return found;
}

/* A program that leaves no mark, as QEMU: the first process that we may look at with such a lock; 0: none. */
static pid_t lock_found(int fd)
{
    struct stat ours;
    struct dirent *d;
    pid_t pid = 0;
    DIR *proc = fstat(fd, &ours) == 0 ? opendir("/proc") : NULL;

    while (proc && pid == 0 && (d = readdir(proc))) {
        if (d->d_name[0] >= '1' && d->d_name[0] <= '9' && process_locks(d->d_name, fd, &ours)) {
            pid = (pid_t)strtol(d->d_name, NULL, 10);
        }
    }
    if (proc) {
        closedir(proc);
    }
    return pid;
}

static int lock_busy(int fd, const char *disk, bool look, struct err *e)
{
    pid_t pid = look ? lock_holder(fd) : 0;
    char who[64];

    pid = look && pid <= 0 ? lock_found(fd) : pid;
    if (pid <= 0) {
        return err_set(e, -EBUSY, "disk '%s' is locked by another program; stop it first",
                       disk);
    }
    holder_name(pid, who, sizeof(who));
    return err_set(e, -EBUSY, "disk '%s' is locked by %s (pid %d)", disk, who, (int)pid);
}

/* 0, 1 when somebody else is in the way, or a negative errno. */
static int byte_lock(int fd, int type, off_t at)
{
    struct flock l = { .l_type = (short)type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1 };

    if (fcntl(fd, F_OFD_SETLK, &l) == 0) {
        return 0;
    }
    return errno == EAGAIN || errno == EACCES ? 1 : -errno;
}

static bool byte_taken(int fd, off_t at)
{
    struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1 };

    return fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}

/* Takes (or, at the end, gives back) the bytes of what is needed and kept. */
static int lock_bytes(int fd, unsigned need, unsigned share, bool release)
{
    for (unsigned i = 0; i < sizeof(lock_bits) / sizeof(lock_bits[0]); i++) {
        bool want[2] = { need & lock_bits[i].perm, !(share & lock_bits[i].perm) };

        for (int k = 0; k < 2; k++) {
            int rc;

            if (want[k] == release) {
                continue;
            }
            rc = byte_lock(fd, release ? F_UNLCK : F_RDLCK,
                           (k ? KEEP_BASE : NEED_BASE) + lock_bits[i].bit);
            if (rc != 0) {
                return rc;
            }
        }
    }
    return 0;
}

static bool lock_conflicts(int fd, unsigned need, unsigned share)
{
    for (unsigned i = 0; i < sizeof(lock_bits) / sizeof(lock_bits[0]); i++) {
        if ((need & lock_bits[i].perm && byte_taken(fd, KEEP_BASE + lock_bits[i].bit)) ||
            (!(share & lock_bits[i].perm) && byte_taken(fd, NEED_BASE + lock_bits[i].bit))) {
            return true;
        }
    }
    return false;
}

/* Sleeps on a condition that nobody signals: sandboxes allow that and no other sleep. */
static void lock_nap(int try)
{
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t never = PTHREAD_COND_INITIALIZER;
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_nsec += TRY_NS +
                 (t.tv_nsec ^ (long)((uintptr_t)&t >> 4)) % TRY_NS * (try < TRIES ? try : 1);
    t.tv_sec += t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    pthread_mutex_lock(&mutex);
    (void)pthread_cond_clockwait(&never, &mutex, CLOCK_MONOTONIC, &t);
    pthread_mutex_unlock(&mutex);
}

int blk_lock(int fd, unsigned need, unsigned share, const char *disk, bool look, struct err *e)
{
    struct flock mark = {
        .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = MARK_BYTE, .l_len = 1
    };
    const unsigned all = BLK_PERM_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE;
    const int tries = look ? GHOST_TRIES : GHOST_TRIES_EMU;

    for (int try = 1;; try++) {
        int rc = lock_bytes(fd, need, share, false);

        if (rc < 0) {
            log_warn("storage", "disk '%s': its file system has no locks (%s)", disk,
                     strerror(-rc));
            return 0;
        }
        if (rc == 0 && !lock_conflicts(fd, need, share)) {
            break;
        }
        /* The ring of a process that died holds its files a moment longer than the process lived. */
        if (try == tries || (try >= TRIES && lock_holder(fd))) {
            (void)lock_bytes(fd, 0, all, true);
            return lock_busy(fd, disk, look, e);
        }
        (void)lock_bytes(fd, 0, all, true);
        lock_nap(try); /* two that came at once may both have seen the other */
    }
    (void)lock_bytes(fd, need, share, true);
    (void)fcntl(fd, F_SETLK, &mark); /* information only */
    return 0;
}
