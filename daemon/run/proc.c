/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of processes and small facts of the kernel. No state; any thread.
 */
#include "daemon/run/proc.h"

#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int proc_start_time(pid_t pid, uint64_t *ticks, struct err *e)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    AUTO_BUF text = BUF_INIT;
    struct err why = ERR_INIT;
    int rc = file_slurp(path, &text, 4096, &why);
    if (rc == -ENOENT || rc == -ESRCH) {
        return err_set(e, -ESRCH, "process %d is gone", (int)pid);
    }
    if (rc < 0) {
        return err_set(e, rc, "%s", why.msg);
    }
    /* The name (field 2) may hold spaces and parentheses; field 3 follows the last one. */
    char *p = text.data ? strrchr(text.data, ')') : NULL;
    char state = p && p[1] ? p[2] : 0;
    for (int field = 3; p && field <= 22; field++) {
        p = strchr(p + 1, ' ');
    }
    if (!p) {
        return err_set(e, -EPROTO, "%s cannot be understood", path);
    }
    if (state == 'Z' || state == 'X') {
        return err_set(e, -ESRCH, "process %d has ended", (int)pid);
    }
    *ticks = strtoull(p + 1, NULL, 10);
    return 0;
}

int64_t proc_memory_rss(pid_t pid)
{
    char path[64], text[128] = { 0 };
    long long total, resident;

    snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
    AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0 ||
        sscanf(text, "%lld %lld", &total, &resident) != 2) {
        return 0;
    }
    return resident * sysconf(_SC_PAGESIZE);
}

int64_t proc_uptime_ns(uint64_t start_ticks)
{
    struct timespec now;
    long hz = sysconf(_SC_CLK_TCK);
    clock_gettime(CLOCK_BOOTTIME, &now);
    int64_t at = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    int64_t then = (int64_t)(start_ticks / (uint64_t)hz) * 1000000000;
    return at > then ? at - then : 0;
}

int proc_boot_id(char out[37], struct err *e)
{
    AUTO_BUF text = BUF_INIT;
    int rc = file_slurp("/proc/sys/kernel/random/boot_id", &text, 256, e);
    if (rc < 0) {
        return rc;
    }
    if (text.len < 36) {
        return err_set(e, -EPROTO, "/proc/sys/kernel/random/boot_id cannot be understood");
    }
    memcpy(out, text.data, 36);
    out[36] = 0;
    return 0;
}

int proc_pidfd(pid_t pid, uint64_t start_time, struct err *e)
{
    if (pid <= 0) {
        return err_set(e, -ESRCH, "no process");
    }
    AUTO_FD fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0) {
        return err_errno(e, errno, "process %d", (int)pid);
    }
    /* With the pidfd held the number cannot be given away: what we read now is about it. */
    uint64_t ticks;
    int rc = proc_start_time(pid, &ticks, e);
    if (rc < 0) {
        return rc;
    }
    if (ticks != start_time) {
        return err_set(e, -ESRCH, "process %d is another one by now", (int)pid);
    }
    return take_fd(&fd);
}

int proc_signal(int pidfd, pid_t pid, uint64_t start_time, int signo, struct err *e)
{
    uint64_t ticks;
    if (syscall(SYS_pidfd_send_signal, pidfd, signo, NULL, 0) == 0) {
        return 0;
    }
    if (errno != ENOSYS) {
        return err_errno(e, errno, "cannot signal process %d", (int)pid);
    }
    int rc = proc_start_time(pid, &ticks, e);
    if (rc < 0 || ticks != start_time) {
        return rc < 0 ? rc : err_set(e, -ESRCH, "process %d is another one by now", (int)pid);
    }
    return kill(pid, signo) < 0 ? err_errno(e, errno, "cannot signal process %d", (int)pid) : 0;
}

void cookie_make(char out[COOKIE_LEN + 1])
{
    unsigned char raw[COOKIE_LEN / 2];
    size_t got = 0;
    while (got < sizeof(raw)) {
        ssize_t n = getrandom(raw + got, sizeof(raw) - got, 0);
        if (n > 0) {
            got += (size_t)n;
        } else if (n < 0 && errno != EINTR) {
            abort(); /* a kernel without getrandom: nothing can be promised */
        }
    }
    for (unsigned i = 0; i < sizeof(raw); i++) {
        snprintf(out + 2 * i, 3, "%02x", raw[i]);
    }
}

static int64_t now(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t time_real_ns(void)
{
    return now(CLOCK_REALTIME);
}

int64_t time_mono_ns(void)
{
    return now(CLOCK_MONOTONIC);
}
