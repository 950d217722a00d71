/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS of disks on NBD servers: a process vmd-tls in a jail of its own for each connection, which has the keys; the emulator gets one end
 * of a socket pair. It ends with either side. vmd-spawn's one thread.
 */
#include "api-schema/net/nbdaddr.h"
#include "daemon/host/filecheck.h"
#include "daemon/run/cgroup.h"
#include "daemon/spawn/spawn.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FAR, NEAR, STATUS, CA, CERT, KEY, FDS };
static const char *const options[FDS] = { "far", "near", "status", "ca", "cert", "key" };

struct relay {
    const struct start *st;
    const struct nbd_addr *to;
    int fd[FDS], exe;
};

/* The certificates of the folder: that of the authority, and ours, which a server may not ask for. */
static int open_certificates(struct relay *r, struct err *e)
{
    static const struct {
        int at;
        const char *name;
    } files[] = { { CA, "ca-cert.pem" },
                  { CERT, "client-cert.pem" },
                  { KEY, "client-key.pem" } };
    for (unsigned i = 0; i < ARRAY_LEN(files); i++) {
        AUTO_FREE char *path = xasprintf("%s/%s", r->to->certificates, files[i].name);
        if (files[i].at != CA && access(path, F_OK) < 0 && errno == ENOENT) {
            continue;
        }
        int fd = file_open_checked("certificate", path, FILE_DATA, false, e);
        if (fd < 0) {
            return fd;
        }
        r->fd[files[i].at] = fd;
    }
    return (r->fd[CERT] < 0) == (r->fd[KEY] < 0)
               ? 0
               : err_set(e, -ENOENT,
                         "folder '%s' has one of client-cert.pem and client-key.pem",
                         r->to->certificates);
}

/* The clone's side. Never returns; what it writes to its status is why it failed. */
static void __attribute__((noreturn)) relay_main(const struct relay *r, int gate)
{
    struct err e = ERR_INIT;
    char *argv[FDS + 3] = { (char *)"vmd-tls" };
    char *envp[] = { (char *)"LANG=C.UTF-8", NULL };
    unsigned n = 1;
    sigset_t none;
    char go;
    if (read(gate, &go, 1) != 1) {
        _exit(126);
    }
    setsid();
    for (int sig = 1; sig < NSIG; sig++) {
        signal(sig, SIG_DFL);
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int i = 0; i < 3; i++) {
        dup2(null, i);
    }
    close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    for (int i = 0; i < FDS; i++) {
        if (r->fd[i] >= 0) {
            fd_set_cloexec(r->fd[i], false, NULL);
            argv[n++] = xasprintf("--%s-fd=%d", options[i], r->fd[i]);
        }
    }
    argv[n++] = xasprintf("--host=%s", nbd_addr_tls_host(r->to));
    if (jail_enter(r->st->sp, r->st->vm, &e) == 0) {
        syscall(SYS_execveat, r->exe, "", argv, envp, AT_EMPTY_PATH);
        err_errno(&e, errno, "cannot execute vmd-tls");
    }
    ssize_t w = write(r->fd[STATUS], e.msg, strlen(e.msg));
    _exit(w > 0 ? 126 : 127);
}

static int relay_start(struct relay *r, struct err *e)
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
    r->fd[STATUS] = status_w;
    struct clone_args args = { .flags = jail_clone_flags(r->st->sp), .exit_signal = SIGCHLD };
    pid_t pid = args.flags ? (pid_t)syscall(SYS_clone3, &args, sizeof(args)) : fork();
    if (pid == 0) {
        close(gate_w);
        close(status_r);
        relay_main(r, gate_r);
    }
    if (pid < 0) {
        return err_errno(e, errno, "cannot make a process for TLS");
    }
    close(take_fd(&status_w));
    int rc = jail_map_ids(r->st->sp, pid, r->st->vm, e);
    if (rc == 0 && r->st->cgroup) {
        rc = cgroup_join(r->st->cgroup, pid, e);
    }
    if (rc == 0 && write(gate_w, "g", 1) != 1) {
        rc = err_errno(e, errno, "the process for TLS is gone");
    }
    rc = rc == 0 ? net_ready(status_r, "vmd-tls", "TLS", e) : rc;
    if (rc < 0) {
        kill(pid, SIGKILL); /* and is reaped like all others */
    }
    return rc;
}

int tls_relay(const struct start *st, const struct nbd_addr *to, int take_far, struct err *e)
{
    AUTO_FD far = take_far, exe = -1, mine = -1, theirs = -1;
    struct relay r = { .st = st, .to = to, .fd = { -1, -1, -1, -1, -1, -1 } };
    AUTO_FREE char *net = net_path();
    char *slash = strrchr(net, '/');
    AUTO_FREE char *path = xasprintf("%.*s/vmd-tls", (int)(slash - net), net);
    const int room = 1 << 20;
    int pair[2];
    r.exe = exe = open(path, O_PATH | O_CLOEXEC);
    if (exe < 0) {
        return err_errno(e, errno, "cannot open '%s'", path);
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        return err_errno(e, errno, "cannot make a socket pair");
    }
    mine = pair[0];
    r.fd[NEAR] = theirs = pair[1];
    r.fd[FAR] = far;
    (void)setsockopt(mine, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    (void)setsockopt(theirs, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    int rc = open_certificates(&r, e);
    rc = rc == 0 ? relay_start(&r, e) : rc;
    for (int i = CA; i < FDS; i++) {
        if (r.fd[i] >= 0) {
            close(r.fd[i]);
        }
    }
    return rc < 0 ? rc : take_fd(&mine);
}
