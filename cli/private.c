/* SPDX-License-Identifier: Apache-2.0 */
/* Starts and ends a private daemon. Owns its process and its folder. One thread. */
#include "cli/private.h"

#include "api-schema/json/json.h"
#include "api-schema/rpc/client.h"
#include "engine/base/buf.h"
#include "engine/base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { START_TRIES = 500, STOP_TRIES = 1500, TRY_MS = 20 };

struct private_daemon {
    char *dir, *socket, *log;
    pid_t pid; /* 0: gone */
};

static void nap(void)
{
    struct timespec t = { .tv_nsec = TRY_MS * 1000000L };

    nanosleep(&t, NULL);
}

static char *find_vmd(void)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash;

    if (n > 0) {
        self[n] = 0;
        slash = strrchr(self, '/');
        if (slash) {
            *slash = 0;
            char *beside = xasprintf("%s/vmd", self);
            if (access(beside, X_OK) == 0) {
                return beside;
            }
            free(beside);
        }
    }
    return xstrdup(VMD_BINDIR "/vmd");
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    (void)remove(path);
    return 0;
}

static void destroy(struct private_daemon *d)
{
    if (d->dir) {
        nftw(d->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    }
    free(d->dir);
    free(d->socket);
    free(d->log);
    free(d);
}

/* In the child. */
static void become_vmd(const struct private_daemon *d, const char *vmd)
{
    int log = open(d->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    setsid(); /* Ctrl-C at our terminal is ours to handle */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (log >= 0) {
        dup2(log, 1);
        dup2(log, 2);
    }
    if (null >= 0) {
        dup2(null, 0);
    }
    execl(vmd, "vmd", "--dir", d->dir, (char *)NULL);
    dprintf(2, "cannot start %s: %s\n", vmd, strerror(errno));
    _exit(127);
}

static bool has_ended(struct private_daemon *d)
{
    int status;

    if (d->pid && waitpid(d->pid, &status, WNOHANG) == d->pid) {
        d->pid = 0;
    }
    return d->pid == 0;
}

static void set_last_words(struct private_daemon *d, struct err *e)
{
    AUTO_BUF b = BUF_INIT;
    char *line, *last = NULL, *rest;

    if (file_slurp(d->log, &b, 1 << 20, NULL) == 0 && b.len) {
        for (line = strtok_r(b.data, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
            last = line;
        }
    }
    err_set(e, -ECHILD, "the private daemon ended at once: %s",
            last ? last : "it said nothing");
}

static struct rpc_dial *await_greeting(struct private_daemon *d,
                                       const volatile sig_atomic_t *flag, struct err *e)
{
    for (int i = 0; i < START_TRIES; i++) {
        struct err why = ERR_INIT;
        struct rpc_dial *dial = rpc_dial_open(d->socket, 1000, &why);

        if (dial) {
            return dial;
        }
        if (*flag) {
            err_set(e, -EINTR, "interrupted");
            return NULL;
        }
        if (has_ended(d)) {
            set_last_words(d, e);
            return NULL;
        }
        nap();
    }
    err_set(e, -ETIMEDOUT, "the private daemon does not greet at %s", d->socket);
    return NULL;
}

static void end_process(struct private_daemon *d)
{
    for (int i = 0; !has_ended(d); i++) {
        if (i == STOP_TRIES / 2) {
            kill(d->pid, SIGTERM);
        } else if (i == STOP_TRIES) {
            kill(d->pid, SIGKILL);
        }
        nap();
    }
}

struct private_daemon *private_start(const volatile sig_atomic_t *flag, struct err *e)
{
    const char *tmp = getenv("TMPDIR");
    AUTO_FREE char *vmd = find_vmd();
    struct private_daemon *d = xnew(struct private_daemon);
    struct rpc_dial *dial;

    d->dir = xasprintf("%s/vmctl-XXXXXX",
                       tmp && tmp[0] == '/' && strlen(tmp) < 40 ? tmp : "/tmp");
    if (!mkdtemp(d->dir)) {
        err_errno(e, errno, "cannot make a folder %s", d->dir);
        free(take_ptr(d->dir));
        destroy(d);
        return NULL;
    }
    d->socket = xasprintf("%s/run/vmd.sock", d->dir);
    d->log = xasprintf("%s/vmd.log", d->dir);
    d->pid = fork();
    if (d->pid < 0) {
        err_errno(e, errno, "cannot start %s", vmd);
        d->pid = 0;
        destroy(d);
        return NULL;
    }
    if (d->pid == 0) {
        become_vmd(d, vmd);
    }
    dial = await_greeting(d, flag, e);
    if (!dial) {
        if (d->pid) {
            kill(d->pid, SIGTERM);
        }
        end_process(d);
        destroy(d);
        return NULL;
    }
    rpc_dial_close(dial);
    return d;
}

const char *private_dir(const struct private_daemon *d)
{
    return d->dir;
}

void private_stop(struct private_daemon *d)
{
    struct rpc_dial *dial = rpc_dial_open(d->socket, 5000, NULL);
    struct json_object *params = json_object_new_object();
    bool asked = false;

    api_json_set_bool(params, "stop_vms", true);
    if (dial) {
        asked = rpc_dial_call(dial, "host.shutdown-daemon", params, 10000, NULL, NULL) == 0;
        rpc_dial_close(dial);
    } else {
        json_object_put(params);
    }
    if (!asked && d->pid) {
        kill(d->pid, SIGTERM);
    }
    end_process(d);
    destroy(d);
}
