/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The other end of each network card: a process vmd-net in a jail of its own, which has the host's network and little
 * else, a socket that somebody listens at, or a tap interface. The emulator gets one end of a socket pair, or the connected socket, or the tap. Runs in the
 * monitor, whose children those processes are; they end with it at the latest.
 */
#include "api-schema/net/vhostsock.h"
#include "daemon/run/cgroup.h"
#include "daemon/spawn/spawn.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define READY_MS 10000
#define STATUS_TEXT 400

/* Beside us. */
char *net_path(void)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash;
    self[n > 0 ? n : 0] = 0;
    slash = strrchr(self, '/');
    if (!slash) {
        return xstrdup(VMD_PKGLIBEXECDIR "/vmd-net");
    }
    *slash = 0;
    return xasprintf("%s/vmd-net", self);
}

static char **net_argv(const struct spawn_nic *nic, bool jailed, int sock, int status,
                       int connect)
{
    char **argv = xnew_n(char *, nic->n_args + 8);
    unsigned n = 0;
    argv[n++] = xstrdup("vmd-net");
    for (unsigned i = 0; i < nic->n_args; i++) {
        bool tftp = str_starts(nic->args[i], "--tftp=");
        argv[n++] = xstrdup(tftp && jailed ? "--tftp=" NET_JAIL_TFTP : nic->args[i]);
    }
    argv[n++] = xasprintf("--socket-fd=%d", sock);
    argv[n++] = xasprintf("--status-fd=%d", status);
    if (connect >= 0) {
        argv[n++] = xasprintf("--connect-fd=%d", connect);
        fd_set_cloexec(connect, false, NULL);
    }
    fd_set_cloexec(sock, false, NULL);
    fd_set_cloexec(status, false, NULL);
    return argv;
}

/* The clone's side. Never returns; what it writes to `status` is why it failed. */
static void __attribute__((noreturn))
net_main(const struct start *st, const struct spawn_nic *nic, int exe, const char *path,
         int gate, int sock, int status, int connect, bool apart)
{
    struct err e = ERR_INIT;
    struct jail_net extra = { .tftp = nic->tftp, .tftp_at = NET_JAIL_TFTP };
    char go;
    if (read(gate, &go, 1) != 1) {
        _exit(126);
    }
    setsid();
    for (int sig = 1; sig < NSIG; sig++) {
        signal(sig, SIG_DFL);
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, 0);
    dup2(st->emu_log_fd, 1);
    dup2(st->emu_log_fd, 2);
    close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    char **argv = net_argv(nic, jail_has_root(st->sp), sock, status, connect);
    char *envp[] = { (char *)"LANG=C.UTF-8", NULL };
    if (jail_enter_net(st->sp, st->vm, &extra, &e) == 0) {
        if (!apart) { /* after the last change of ids, which would clear it */
            prctl(PR_SET_PDEATHSIG, SIGKILL);
        }
        syscall(SYS_execveat, exe, "", argv, envp, AT_EMPTY_PATH);
        err_errno(&e, errno, "cannot execute '%s'", path);
    }
    ssize_t n = write(status, e.msg, strlen(e.msg));
    _exit(n > 0 ? 126 : 127);
}

/* All that it says until it closes its end; a program that serves may have said nothing. */
static int status_read(int fd, const char *program, const char *name, char text[STATUS_TEXT],
                       struct err *e)
{
    size_t got = 0;
    ssize_t n = 1;
    while (n != 0 && got < STATUS_TEXT - 1) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        int rc = poll(&p, 1, READY_MS);
        if (rc == 0) {
            return err_set(e, -ETIMEDOUT, "'%s': %s was not ready after %d s", name, program,
                           READY_MS / 1000);
        }
        n = rc < 0 ? -1 : read(fd, text + got, STATUS_TEXT - 1 - got);
        if (n < 0 && errno != EINTR) {
            return err_errno(e, errno, "'%s'", name);
        }
        got += n > 0 ? (size_t)n : 0;
    }
    text[got] = 0;
    return 0;
}

int net_ready(int fd, const char *program, const char *name, struct err *e)
{
    char text[STATUS_TEXT];
    int rc = status_read(fd, program, name, text, e);
    if (rc < 0 || strcmp(text, "+") == 0) {
        return rc;
    }
    return text[0] ? err_set(e, -ENETUNREACH, "%s", text) /* a start that failed, no bad file */
                   : err_set(e, -ENETUNREACH, "'%s': %s ended before it served", name, program);
}

int net_executed(int fd, const char *program, const char *name, struct err *e)
{
    char text[STATUS_TEXT];
    int rc = status_read(fd, program, name, text, e);
    return rc < 0 || !text[0] ? rc : err_set(e, -ENETUNREACH, "%s", text);
}

pid_t net_clone(const struct spawner *sp, bool isolated)
{
    /* The host's network is what it is for. */
    struct clone_args args = { .flags = jail_clone_flags(sp) &
                                        ~(isolated ? 0 : (uint64_t)CLONE_NEWNET),
                               .exit_signal = SIGCHLD };
    return args.flags ? (pid_t)syscall(SYS_clone3, &args, sizeof(args)) : fork();
}

static int let_go(const struct start *st, pid_t pid, int gate, struct err *e)
{
    int rc = jail_map_ids(st->sp, pid, st->vm, e);
    if (rc == 0 && st->cgroup) {
        rc = cgroup_join(st->cgroup, pid, e);
    }
    if (rc == 0 && write(gate, "g", 1) != 1) {
        rc = err_errno(e, errno, "the process of the network card is gone");
    }
    return rc;
}

/* By which vmd-net gets connections to its back end; -1 and 0: it has none. */
static int start_connector(const struct start *st, const struct spawn_nic *nic, int *fd,
                           struct err *e)
{
    pid_t pid;
    int rc = nic->vhost ? vhost_sock_start(nic->vhost, nic->listens, &pid, e) : -1;
    if (!nic->vhost) {
        return 0;
    }
    if (rc < 0) {
        err_prefix(e, "network card '%s'", nic->name);
        return rc;
    }
    *fd = rc;
    return st->cgroup ? cgroup_join(st->cgroup, pid, e) : 0;
}

static int start_net(const struct start *st, struct spawn_nic *nic, bool apart, struct err *e)
{
    AUTO_FREE char *path = net_path();
    AUTO_FD exe = open(path, O_PATH | O_CLOEXEC);
    int pair[2], gate[2], status[2];
    if (exe < 0) {
        return err_errno(e, errno, "network card '%s': cannot open '%s'", nic->name, path);
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        return err_errno(e, errno, "cannot make a socket pair");
    }
    AUTO_FD mine = pair[0], theirs = pair[1];
    if (pipe2(gate, O_CLOEXEC) < 0) {
        return err_errno(e, errno, "cannot make a pipe");
    }
    AUTO_FD gate_r = gate[0], gate_w = gate[1];
    if (pipe2(status, O_CLOEXEC) < 0) {
        return err_errno(e, errno, "cannot make a pipe");
    }
    AUTO_FD status_r = status[0], status_w = status[1], connect = -1;
    int rc = start_connector(st, nic, &connect, e);
    if (rc < 0) {
        return rc;
    }
    /* Connections come to it: then it needs no network. */
    pid_t pid = net_clone(st->sp, nic->vhost != NULL);
    if (pid == 0) {
        close(gate_w);
        close(status_r);
        net_main(st, nic, exe, path, gate_r, theirs, status_w, connect, apart);
    }
    if (pid < 0) {
        return err_errno(e, errno, "cannot make a process for network card '%s'", nic->name);
    }
    close(take_fd(&status_w));
    close(take_fd(&theirs));
    rc = let_go(st, pid, gate_w, e);
    if (rc == 0) {
        rc = net_ready(status_r, "vmd-net", nic->name, e);
    }
    if (rc < 0) {
        kill(pid, SIGKILL); /* and nobody waits: we are about to end */
        return rc;
    }
    nic->fds[0] = take_fd(&mine);
    nic->n_fds = 1;
    return 0;
}

static int connect_dgram(const char *path, struct err *e)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    sa_family_t any = AF_UNIX;
    AUTO_FD fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || !str_copy(to.sun_path, sizeof(to.sun_path), path)) {
        return err_set(e, -ENAMETOOLONG, "socket '%s' has too long a name (107 bytes at most)",
                       path);
    }
    /* A name of the kernel's choice, so that the peer can answer. */
    if (bind(fd, (const struct sockaddr *)&any, sizeof(any)) < 0 ||
        connect(fd, (const struct sockaddr *)&to, sizeof(to)) < 0) {
        return err_errno(e, errno, "cannot connect to socket '%s'", path);
    }
    return take_fd(&fd);
}

/* A port of a named network: the first frame says whose it is. */
static int connect_network(const struct spawn_nic *nic, struct err *e)
{
    AUTO_FD fd = unix_connect(nic->path, e);
    uint32_t n = (uint32_t)strlen(nic->hello), length = htonl(n);
    int rc = fd < 0 ? fd : fd_write_all(fd, &length, 4, nic->path, e);

    rc = rc < 0 ? rc : fd_write_all(fd, nic->hello, n, nic->path, e);
    return rc < 0 ? rc : take_fd(&fd);
}

static int connect_nic(struct spawn_nic *nic, struct err *e)
{
    int rc;

    if (nic->is_tap) {
        rc = tap_open(&nic->tap, nic->fds, e);
        nic->n_fds = rc < 0 ? 0 : (unsigned)rc;
        return rc;
    }
    rc = nic->dgram   ? connect_dgram(nic->path, e)
         : nic->hello ? connect_network(nic, e)
                      : unix_connect(nic->path, e);
    nic->fds[0] = rc;
    nic->n_fds = rc >= 0;
    return rc;
}

int nics_start(struct start *st, bool apart, struct err *e)
{
    for (unsigned i = 0; i < st->n_nics; i++) {
        struct spawn_nic *nic = &st->nics[i];
        int rc = 0;
        if (!nic->path && !nic->is_tap) {
            rc = start_net(st, nic, apart, e);
        } else {
            rc = connect_nic(nic, e);
            if (rc < 0) {
                err_prefix(e, "network card '%s'", nic->name);
            }
        }
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}
