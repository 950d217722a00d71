/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Killed emulators that wait in the kernel, and what goes a moment behind them: control groups and run folders. Owns their pidfds and
 * timers (struct vmd, list `lingering`). Loop thread.
 */
#include "daemon/run/linger.h"

#include "daemon/daemon.h"
#include "daemon/registry.h"
#include "daemon/run/runfs.h"
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/list.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

struct linger {
    struct list link;
    struct vmd *d;
    int64_t vm;
    int pidfd;   /* -1: a control group, or a run folder */
    bool folder; /* which of them */
    struct loop_fd *watch;
    struct loop_timer *again;
    unsigned tries;
};

#define AGAIN_NS INT64_C(50000000)
#define TRIES 1200 /* a minute of them */

/* State letter of /proc/PID/task/TID/stat, behind the name, which may hold anything; 0: gone. */
static char thread_state(const char *dir, const char *tid)
{
    AUTO_BUF b = BUF_INIT;
    AUTO_FREE char *path = xasprintf("%s/%s/stat", dir, tid);
    if (file_slurp(path, &b, 4096, NULL) < 0) {
        return 0;
    }
    buf_add_char(&b, 0);
    const char *behind = strrchr((const char *)b.data, ')');
    return behind && behind[1] == ' ' ? behind[2] : 0;
}

bool linger_stuck(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *dir = opendir(path);
    unsigned waiting = 0, others = 0;
    for (struct dirent *de; dir && (de = readdir(dir));) {
        char state = de->d_name[0] == '.' ? 0 : thread_state(path, de->d_name);
        waiting += state == 'D';
        others += state && !strchr("DZX", state);
    }
    if (dir) {
        closedir(dir);
    }
    return waiting > 0 && others == 0;
}

static void linger_free(struct linger *l)
{
    list_remove(&l->link);
    loop_fd_free(l->watch);
    loop_timer_free(l->again);
    fd_autoclose(&l->pidfd);
    free(l);
}

static void on_end(void *arg, int fd, unsigned events)
{
    struct linger *l = arg;
    struct vm *vm = vm_by_id(l->d, l->vm);
    (void)fd, (void)events;
    log_info("daemon", "the killed emulator of VM %lld, which waited for a disk, has ended",
             (long long)l->vm);
    if (!vm || !vm->run) {
        linger_folder(l->d, l->vm);
        linger_group(l->d, l->vm);
    }
    linger_free(l);
}

static bool remove_it(struct vmd *d, int64_t vm, bool folder)
{
    return folder ? runfs_clean(&d->opt, vm) : cgroup_remove(&d->cgroup, vm);
}

static void on_again(void *arg)
{
    struct linger *l = arg;
    struct vm *vm = vm_by_id(l->d, l->vm);
    if ((vm && vm->run) || l->tries++ == TRIES || remove_it(l->d, l->vm, l->folder)) {
        linger_free(l); /* gone, in use again, or given up */
    } else {
        loop_timer_arm(l->again, AGAIN_NS);
    }
}

static void remove_now_or_again(struct vmd *d, int64_t vm, bool folder)
{
    if (remove_it(d, vm, folder)) {
        return;
    }
    struct linger *l = xnew(struct linger);
    *l = (struct linger){ .d = d, .vm = vm, .pidfd = -1, .folder = folder };
    list_append(&d->lingering, &l->link);
    l->again = loop_timer_new(d->loop, on_again, l);
    loop_timer_arm(l->again, AGAIN_NS);
}

void linger_group(struct vmd *d, int64_t vm)
{
    remove_now_or_again(d, vm, false);
}

void linger_folder(struct vmd *d, int64_t vm)
{
    remove_now_or_again(d, vm, true);
}

void linger_watch(struct vmd *d, int64_t vm, int take_pidfd)
{
    struct linger *l = xnew(struct linger);
    *l = (struct linger){ .d = d, .vm = vm, .pidfd = take_pidfd };
    list_append(&d->lingering, &l->link);
    l->watch = loop_fd_new(d->loop, take_pidfd, LOOP_READ, on_end, l);
}

void lingers_free(struct vmd *d)
{
    list_for_each_safe (n, &d->lingering) {
        linger_free(list_entry(n, struct linger, link));
    }
}
