/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Servers of shared folders: virtiofsd of the host's distribution, which the emulator speaks vhost-user to, or vmd-share, which
 * serves 9P; or the socket of a server that somebody else runs. Runs in the monitor, whose children those processes are, or for a VM
 * that runs in vmd-spawn; they end with their socket.
 */
#include "api-schema/json/json.h"
#include "daemon/run/cgroup.h"
#include "daemon/spawn/spawn.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* Where virtiofsd finds the folder, in a mount namespace of its own. */
#define FOLDER_AT "/tmp"

/* Debian's packages: virtiofsd of Debian 13, qemu-system-common of Debian 12. */
static const struct virtiofsd {
    const char *path, *shared; /* the option of the folder */
    const char *more[6];
} virtiofsds[] = {
    { "/usr/libexec/virtiofsd",
      "--shared-dir=" FOLDER_AT,
      { "--xattr", "--sandbox=namespace" } },
    { "/usr/lib/qemu/virtiofsd",
      "source=" FOLDER_AT,
      { "-f", "-o", "xattr,sandbox=namespace", "-o" } },
};

struct server {
    const struct start *st;
    struct spawn_share *share;
    const struct virtiofsd *fs; /* NULL: vmd-share */
    int exe, folder, sock;
    bool apart;
    int gate, status;
};

int shares_read(struct start *st, const struct json_object *list, struct err *e)
{
    size_t n = list && json_object_is_type(list, json_type_array)
                   ? json_object_array_length(list)
                   : 0;
    if (n > SPAWN_SHARES_MAX) {
        return err_set(e, -E2BIG, "VM '%s' has %zu shared folders, at most %d are possible",
                       st->name, n, SPAWN_SHARES_MAX);
    }
    for (size_t i = 0; i < n; i++) {
        struct json_object *o = json_object_array_get_idx(list, i);
        struct spawn_share *s = &st->shares[st->n_shares++];
        const char *driver = api_json_get_str(o, "driver");
        *s = (struct spawn_share){ .tag = api_json_get_str(o, "tag"),
                                   .path = api_json_get_str(o, "path"),
                                   .socket = api_json_get_str(o, "socket"),
                                   .nine = driver && strcmp(driver, "9p") == 0,
                                   .readonly = api_json_get_bool(o, "readonly", false),
                                   .mapped = api_json_get_bool(o, "mapped", true),
                                   .fd = -1 };
        if (!s->tag || (!s->path && !s->socket)) {
            return err_set(e, -EPROTO, "a shared folder of VM '%s' is incomplete", st->name);
        }
    }
    return 0;
}

/* ---- the server's side of the clone ---- */

static void server_stdio(const struct server *v)
{
    sigset_t none;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    setsid();
    for (int sig = 1; sig < NSIG; sig++) {
        signal(sig, SIG_DFL);
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    dup2(null, 0);
    dup2(v->st->emu_log_fd, 1);
    dup2(v->st->emu_log_fd, 2);
    close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
}

/* A mount can only be made of a descriptor of the same mount namespace: the folder is opened once more, and must be the one that was
 * looked at. */
static int same_folder(const struct server *v, struct err *e)
{
    struct stat was, is;
    AUTO_FD fd = open(v->share->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &is) < 0 || fstat(v->folder, &was) < 0) {
        return err_errno(e, errno, "cannot open the folder '%s'", v->share->path);
    }
    return is.st_dev == was.st_dev && is.st_ino == was.st_ino
               ? take_fd(&fd)
               : err_set(e, -EBUSY, "the folder '%s' became another one meanwhile",
                         v->share->path);
}

/* It builds its own sandbox, and needs its rights until then; it gets a mount of the folder. */
static int enter_virtiofsd(const struct server *v, struct err *e)
{
    struct mount_attr attr = { .attr_set = MOUNT_ATTR_NODEV |
                                           (v->share->readonly ? MOUNT_ATTR_RDONLY : 0) };
    if (unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS) < 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        return err_errno(e, errno, "cannot make a mount namespace");
    }
    AUTO_FD folder = same_folder(v, e);
    AUTO_FREE char *from = xasprintf("/proc/self/fd/%d", folder);
    if (folder < 0) {
        return folder;
    }
    if (mount(from, FOLDER_AT, NULL, MS_BIND | MS_REC, NULL) < 0 ||
        mount_setattr(AT_FDCWD, FOLDER_AT, AT_RECURSIVE, &attr, sizeof(attr)) < 0) {
        return err_errno(e, errno, "cannot make a mount of the folder");
    }
    return 0;
}

static char **virtiofsd_argv(const struct server *v)
{
    char **argv = xnew_n(char *, 12);
    unsigned n = 0;
    argv[n++] = xstrdup("virtiofsd");
    argv[n++] = xasprintf("--fd=%d", v->sock);
    for (unsigned i = 0; v->fs->more[i]; i++) {
        argv[n++] = xstrdup(v->fs->more[i]);
    }
    argv[n++] = xstrdup(v->fs->shared);
    fd_set_cloexec(v->sock, false, NULL);
    return argv;
}

static char **share_argv(const struct server *v, int tree, int proc)
{
    char **argv = xnew_n(char *, 12);
    unsigned n = 0;
    argv[n++] = xstrdup("vmd-share");
    argv[n++] = xasprintf("--socket-fd=%d", v->sock);
    argv[n++] = xasprintf("--root-fd=%d", tree);
    argv[n++] = xasprintf("--proc-fd=%d", proc);
    argv[n++] = xasprintf("--status-fd=%d", v->status);
    if (v->share->readonly) {
        argv[n++] = xstrdup("--readonly");
    }
    if (v->share->mapped) {
        argv[n++] = xstrdup("--mapped");
    }
    fd_set_cloexec(v->sock, false, NULL);
    fd_set_cloexec(tree, false, NULL);
    fd_set_cloexec(proc, false, NULL);
    fd_set_cloexec(v->status, false, NULL);
    return argv;
}

/* Never returns; what it writes to `status` is why it failed. */
static void __attribute__((noreturn)) server_main(const struct server *v)
{
    struct err e = ERR_INIT;
    char *envp[] = { (char *)"LANG=C.UTF-8", (char *)"PATH=/usr/bin:/bin", NULL };
    char **argv = NULL;
    char go;
    int tree = -1, proc, rc;
    if (read(v->gate, &go, 1) != 1) {
        _exit(126);
    }
    server_stdio(v);
    if (v->fs) {
        rc = enter_virtiofsd(v, &e);
        argv = rc == 0 ? virtiofsd_argv(v) : NULL;
    } else {
        proc = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
        rc = proc < 0 ? err_errno(&e, errno, "/proc/self/fd") : same_folder(v, &e);
        int folder = rc;
        rc = rc < 0 ? rc : jail_enter_share(v->st->sp, folder, v->share->readonly, &tree, &e);
        argv = rc == 0 ? share_argv(v, tree, proc) : NULL;
    }
    if (!v->apart) { /* after the last change of ids, which would clear it */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    }
    if (rc == 0) {
        syscall(SYS_execveat, v->exe, "", argv, envp, AT_EMPTY_PATH);
        err_errno(&e, errno, "cannot execute its server");
    }
    ssize_t n = write(v->status, e.msg, strlen(e.msg));
    _exit(n > 0 ? 126 : 127);
}

/* ---- starting ---- */

static pid_t server_clone(const struct server *v)
{
    struct clone_args args = { .flags = v->fs ? 0 : jail_share_flags(v->st->sp),
                               .exit_signal = SIGCHLD };
    return args.flags ? (pid_t)syscall(SYS_clone3, &args, sizeof(args)) : fork();
}

static int server_start(struct server *v, struct err *e)
{
    int gate[2], status[2];
    if (pipe2(gate, O_CLOEXEC) < 0) {
        return err_errno(e, errno, "cannot make a pipe");
    }
    AUTO_FD gate_r = gate[0], gate_w = gate[1];
    if (pipe2(status, O_CLOEXEC) < 0) {
        return err_errno(e, errno, "cannot make a pipe");
    }
    AUTO_FD status_r = status[0], status_w = status[1];
    v->gate = gate_r;
    v->status = status_w;
    pid_t pid = server_clone(v);
    if (pid == 0) {
        close(gate_w);
        close(status_r);
        server_main(v);
    }
    if (pid < 0) {
        return err_errno(e, errno, "cannot make a process for its server");
    }
    close(take_fd(&status_w));
    int rc = v->fs ? 0 : jail_share_ids(v->st->sp, pid, e);
    if (rc == 0 && v->st->cgroup) {
        rc = cgroup_join(v->st->cgroup, pid, e);
    }
    if (rc == 0 && write(gate_w, "g", 1) != 1) {
        rc = err_errno(e, errno, "its server is gone");
    }
    rc = rc == 0 ? net_executed(status_r, "its server", v->share->tag, e) : rc;
    if (rc < 0) {
        kill(pid,
             SIGKILL); /* and nobody waits: whoever starts VMs has no children to wait for */
    }
    return rc;
}

/* Both ends of a connection to a socket that listens, which is what virtiofsd wants to be given. */
static int listening_pair(const struct server *v, int *theirs, int *mine, struct err *e)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    char name[VM_CHANNEL_LEN + 1];
    AUTO_FD fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    mode_t old;
    int rc;
    vm_channel_socket(name, v->share->tag);
    if (snprintf(at.sun_path, sizeof(at.sun_path), "%s/%lld/s%s", v->st->sp->run,
                 (long long)v->st->vm, name + 1) >= (int)sizeof(at.sun_path)) {
        return err_set(e, -ENAMETOOLONG,
                       "the run folder '%s' has too long a name; choose a shorter --dir",
                       v->st->sp->run);
    }
    unlink(at.sun_path);
    old = umask(0177);
    rc = fd < 0 ? -1 : bind(fd, (const struct sockaddr *)&at, sizeof(at));
    umask(old);
    if (rc < 0 || listen(fd, 1) < 0) {
        return err_errno(e, errno, "cannot bind '%s'", at.sun_path);
    }
    *mine = unix_connect(at.sun_path, e);
    unlink(at.sun_path);
    *theirs = *mine < 0 ? -1 : take_fd(&fd);
    return *mine < 0 ? *mine : 0;
}

static int find_virtiofsd(struct server *v, struct err *e)
{
    if (geteuid() != 0) {
        return err_set(e, -EPERM,
                       "virtiofsd needs root: use driver 9p, or run virtiofsd yourself and "
                       "name its socket");
    }
    for (unsigned i = 0; i < ARRAY_LEN(virtiofsds); i++) {
        v->exe = open(virtiofsds[i].path, O_PATH | O_CLOEXEC);
        if (v->exe >= 0) {
            v->fs = &virtiofsds[i];
            return 0;
        }
    }
    return err_set(e, -ENOENT,
                   "there is no virtiofsd: install the package virtiofsd (in Debian 12 "
                   "qemu-system-common), or use driver 9p");
}

static int find_share(struct server *v, struct err *e)
{
    AUTO_FREE char *net = net_path();
    char *slash = strrchr(net, '/');
    AUTO_FREE char *path = xasprintf("%.*s/vmd-share", (int)(slash - net), net);
    v->exe = open(path, O_PATH | O_CLOEXEC);
    return v->exe < 0 ? err_errno(e, errno, "cannot open '%s'", path) : 0;
}

/* By policy: an absolute path, to a folder that who runs vmd may enter. */
static int open_folder(const char *path, struct err *e)
{
    int fd = path[0] == '/' ? open(path, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
    if (path[0] != '/') {
        return err_set(e, -EINVAL, "the path '%s' is not absolute", path);
    }
    if (fd >= 0 && faccessat(fd, ".", R_OK | X_OK, AT_EACCESS) < 0) {
        close(fd);
        fd = -1;
    }
    return fd < 0 ? err_errno(e, errno, "cannot open the folder '%s' as uid %d", path,
                              (int)geteuid())
                  : fd;
}

static int start_one(struct start *st, struct spawn_share *s, bool apart, struct err *e)
{
    struct server v = { .st = st, .share = s, .apart = apart, .exe = -1, .sock = -1 };
    AUTO_FD mine = -1, theirs = -1, exe = -1, folder = -1;
    int pair[2], rc;
    if (s->socket) {
        s->fd = unix_connect(s->socket, e);
        return s->fd < 0 ? s->fd : 0;
    }
    folder = v.folder = open_folder(s->path, e);
    if (folder < 0) {
        return folder;
    }
    rc = s->nine ? find_share(&v, e) : find_virtiofsd(&v, e);
    exe = v.exe;
    if (rc == 0 && s->nine) {
        rc = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0
                 ? err_errno(e, errno, "cannot make a socket pair")
                 : 0;
        mine = rc == 0 ? pair[0] : -1;
        theirs = rc == 0 ? pair[1] : -1;
    } else if (rc == 0) {
        rc = listening_pair(&v, &theirs, &mine, e);
    }
    v.sock = theirs;
    rc = rc == 0 ? server_start(&v, e) : rc;
    s->fd = rc == 0 ? take_fd(&mine) : -1;
    return rc;
}

int shares_start(struct start *st, bool apart, struct err *e)
{
    for (unsigned i = 0; i < st->n_shares; i++) {
        int rc = start_one(st, &st->shares[i], apart, e);
        if (rc < 0) {
            err_prefix(e, "shared folder '%s'", st->shares[i].tag);
            return rc;
        }
    }
    return 0;
}
