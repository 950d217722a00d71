/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control groups of VMs (Documentation/admin-guide/cgroup-v2). The controllers are switched on
 * only when the first VM with limits is started: before, vmd's own group stays as the service manager made
 * it. Since a group with controllers for its children holds no process itself, vmd goes into a leaf
 * first. Owns nothing beyond struct cgroup.
 */
#include "daemon/run/cgroup.h"

#include "api-schema/gen/types.h"
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOUNT "/sys/fs/cgroup"
#define PERIOD_US 100000
#define REMOVE_TRIES 5 /* of a millisecond each, when something lingers in the group */
#define STR_(x) #x
#define STR(x) STR_(x)

static int put(const char *dir, const char *name, const char *text, struct err *e)
{
    AUTO_FREE char *path = xasprintf("%s/%s", dir, name);
    AUTO_FD fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    size_t n = strlen(text);
    if (fd < 0 || write(fd, text, n) != (ssize_t)n) {
        return err_errno(e, errno ? errno : EIO, "control group: cannot write '%s' to %s", text,
                         path);
    }
    return 0;
}

static int own_group(char *out, size_t size, struct err *e)
{
    AUTO_BUF b = BUF_INIT;
    if (access(MOUNT "/cgroup.controllers", F_OK) < 0) {
        return err_set(e, -ENOTSUP, "this host has no control groups of version 2 at " MOUNT);
    }
    int rc = file_slurp("/proc/self/cgroup", &b, 65536, e);
    if (rc < 0) {
        return rc;
    }
    buf_add_char(&b, 0);
    const char *at = strstr((const char *)b.data, "0::/");
    if (!at) {
        return err_set(e, -ENOTSUP, "vmd is in no control group of version 2");
    }
    at += 3;
    snprintf(out, size, MOUNT "%.*s", (int)strcspn(at, "\n"), strncmp(at, "/\n", 2) ? at : "");
    /* A vmd that was started by hand in a leaf of an older one goes on from its parent. */
    char *leaf = strrchr(out, '/');
    if (leaf && strcmp(leaf, "/vmd-daemon") == 0) {
        *leaf = 0;
    }
    return 0;
}

void cgroup_probe(struct cgroup *g, const char *setting)
{
    struct err e = ERR_INIT;
    *g = (struct cgroup){ .usable = false };
    if (setting && strcmp(setting, "off") == 0) {
        str_copy(g->why, sizeof(g->why), "switched off by 'cgroup = off'");
        return;
    }
    if (setting && strcmp(setting, "auto") != 0) {
        str_copy(g->root, sizeof(g->root), setting);
    } else if (own_group(g->root, sizeof(g->root), &e) < 0) {
        str_copy(g->why, sizeof(g->why), e.msg);
        return;
    }
    g->usable = access(g->root, W_OK) == 0;
    if (!g->usable) {
        snprintf(g->why, sizeof(g->why), "%.180s is not delegated to vmd: %s", g->root,
                 strerror(errno));
    }
}

const char *cgroup_text(const struct cgroup *g)
{
    return g->usable ? g->root : g->why;
}

static char *vm_dir(const struct cgroup *g, int64_t vm)
{
    return xasprintf("%s/vm-%lld", g->root, (long long)vm);
}

static int get_ready(struct cgroup *g, struct err *e)
{
    static const char *const controllers[] = { "+cpu", "+memory", "+io", "+pids" };
    AUTO_FREE char *leaf = xasprintf("%s/vmd-daemon", g->root);
    char pid[32];
    if (g->ready) {
        return 0;
    }
    if (mkdir(leaf, 0755) < 0 && errno != EEXIST) {
        return err_errno(e, errno, "control group: cannot make '%s'", leaf);
    }
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    int rc = put(leaf, "cgroup.procs", pid, e);
    for (unsigned i = 0; rc == 0 && i < ARRAY_LEN(controllers); i++) {
        put(g->root, "cgroup.subtree_control", controllers[i],
            NULL); /* its limit will say so */
    }
    g->ready = rc == 0;
    return rc;
}

struct limit {
    const char *file, *none;
    bool has;
    char text[64];
};

/* `reset`: those that are not set go back to none; where the controller is missing they are none. */
static int put_limits(const char *dir, const struct api_limits *l, bool reset, struct err *e)
{
    struct limit all[] = {
        { .file = "cpu.max", .none = "max", .has = l->has_cpu_percent },
        { .file = "cpu.weight", .none = "100", .has = l->has_cpu_weight },
        { .file = "memory.max", .none = "max", .has = l->has_memory_max },
        { .file = "io.weight", .none = "100", .has = l->has_io_weight },
        { .file = "pids.max", .none = "max", .has = l->has_pids_max },
    };
    const int64_t value[] = { l->cpu_percent * (PERIOD_US / 100), l->cpu_weight, l->memory_max,
                              l->io_weight, l->pids_max };
    for (unsigned i = 0; i < ARRAY_LEN(all); i++) {
        snprintf(all[i].text, sizeof(all[i].text), i == 0 ? "%lld " STR(PERIOD_US) : "%lld",
                 (long long)value[i]);
        int rc = all[i].has ? put(dir, all[i].file, all[i].text, e) : 0;
        if (rc < 0) {
            return rc;
        }
        if (!all[i].has && reset) {
            put(dir, all[i].file, all[i].none, NULL);
        }
    }
    return 0;
}

int cgroup_make(struct cgroup *g, int64_t vm, const struct api_limits *l, char **dir,
                struct err *e)
{
    if (!g->usable) {
        return err_set(e, -ENOTSUP, "%s", g->why);
    }
    AUTO_FREE char *path = vm_dir(g, vm);
    int rc = get_ready(g, e);
    if (rc == 0 && mkdir(path, 0755) < 0 && errno != EEXIST) {
        rc = err_errno(e, errno, "control group: cannot make '%s'", path);
    }
    if (rc == 0) {
        rc = put_limits(path, l, false, e);
    }
    if (rc < 0) {
        rmdir(path);
        return rc;
    }
    *dir = take_ptr(path);
    return 0;
}

int cgroup_limit(const struct cgroup *g, int64_t vm, const struct api_limits *l, struct err *e)
{
    AUTO_FREE char *path = vm_dir(g, vm);
    return g->usable && access(path, F_OK) == 0 ? put_limits(path, l, true, e) : 0;
}

bool cgroup_kill(const struct cgroup *g, int64_t vm)
{
    AUTO_FREE char *path = vm_dir(g, vm);
    AUTO_FREE char *file = xasprintf("%s/cgroup.kill", path);
    return g->usable && access(file, F_OK) == 0 && put(path, "cgroup.kill", "1", NULL) == 0;
}

bool cgroup_remove(const struct cgroup *g, int64_t vm)
{
    AUTO_FREE char *path = vm_dir(g, vm);
    /* The emulator has ended. What else is in its group must not outlive it, and dies within moments. */
    for (unsigned i = 0; g->usable && i < REMOVE_TRIES; i++) {
        if (rmdir(path) == 0 || errno != EBUSY || !cgroup_kill(g, vm)) {
            return true;
        }
        usleep(1000);
    }
    return !g->usable;
}

int cgroup_join(const char *dir, pid_t pid, struct err *e)
{
    char text[32];
    snprintf(text, sizeof(text), "%d", (int)pid);
    return put(dir, "cgroup.procs", text, e);
}
