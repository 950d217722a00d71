/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The monitor: a tiny process for each VM, between vmd-spawn and the emulator. It belongs to
 * neither daemon nor spawner, waits for the emulator, and leaves a record of how it ended, so that
 * whichever daemon is there learns it, SIGKILL included. Forked from the single-threaded spawner.
 *
 * Order of a start: the monitor clones the emulator's process, which waits at a gate; the monitor
 * writes the file `process`, opens the gate, sees the exec succeed or fail, reports, closes what
 * it does not need, waits.
 */
#include "api-schema/json/json.h"
#include "daemon/run/cgroup.h"
#include "daemon/spawn/spawn.h"
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define REPORT_TIMEOUT_MS 15000

/* Monitor to spawner, one packet, with the emulator's pidfd when code is 0. */
struct report {
    int code; /* 0 or a negative errno */
    pid_t pid;
    uint64_t start_time, mon_start;
    char msg[440];
};

/* ---- the emulator's side of the clone ---- */

static void add_fd_arg(char **argv, unsigned *n, const char *option, int fd)
{
    if (fd >= 0) {
        fd_set_cloexec(fd, false, NULL);
        argv[(*n)++] = xstrdup(option);
        argv[(*n)++] = xasprintf("%d", fd);
    }
}

/* What the images of a disk name, from the top down. */
static unsigned add_images(char **argv, unsigned n, const struct start *st, unsigned file)
{
    for (unsigned i = 0; i < st->n_images; i++) {
        const struct spawn_image *m = &st->images[i];
        if (m->file == file) {
            fd_set_cloexec(m->fd, false, NULL);
            argv[n++] = xstrdup(m->data ? "--data" : "--backing");
            argv[n++] = m->data ? xasprintf("%s=%d", m->path, m->fd)
                                : xasprintf("%s:%s=%d", m->format, m->path, m->fd);
        }
    }
    return n;
}

static unsigned add_tape(char **argv, unsigned n, const struct start *st,
                         const struct spawn_file *f)
{
    bool record = f->tape == TAPE_RECORD;
    add_fd_arg(argv, &n, record ? "--record-fd" : "--replay-fd", f->fd);
    if (record && st->scratch) {
        argv[n++] = xstrdup("--record-scratch");
    }
    if (!record && st->replay_to >= 0) {
        argv[n++] = xstrdup("--replay-to");
        argv[n++] = xasprintf("%lld", (long long)st->replay_to);
    }
    return n;
}

static char **build_argv(const struct start *st)
{
    char **argv = xnew_n(char *, 44 + 2 * (SPAWN_CHANNELS_MAX + SPAWN_SHARES_MAX +
                                           SPAWN_NICS_MAX * TAP_MAX_QUEUES + SPAWN_FILES_MAX +
                                           SPAWN_IMAGES_MAX));
    unsigned n = 0;
    argv[n++] = xstrdup(st->sp->emulator);
    add_fd_arg(argv, &n, "--config-fd", st->config_fd);
    add_fd_arg(argv, &n, "--control-fd", st->control_fd);
    add_fd_arg(argv, &n, "--console-fd", st->console_fd);
    add_fd_arg(argv, &n, "--console-log-fd", st->console_log_fd);
    add_fd_arg(argv, &n, "--vnc-fd", st->vnc_fd);
    add_fd_arg(argv, &n, "--stats-fd", st->stats_fd);
    add_fd_arg(argv, &n, "--lock-fd", st->lock_fd);
    add_fd_arg(argv, &n, "--uffd-fd", st->uffd_fd);
    add_fd_arg(argv, &n, "--kvm-fd", st->kvm_fd);
    add_fd_arg(argv, &n, "--vsock-fd", st->vsock_fd);
    add_fd_arg(argv, &n, "--vsock-call-fd", st->vsock_call_fd);
    add_fd_arg(argv, &n, "--sound-fd", st->sound_fd);
    add_fd_arg(argv, &n, "--sound-ring-fd", st->sound_ring_fd);
    for (unsigned i = 0; i < st->n_files; i++) {
        if (st->files[i].tape) {
            n = add_tape(argv, n, st, &st->files[i]);
            continue;
        }
        fd_set_cloexec(st->files[i].fd, false, NULL);
        argv[n++] = xstrdup("--file");
        argv[n++] = xasprintf("%s=%d", st->files[i].key, st->files[i].fd);
        n = add_images(argv, n, st, i);
    }
    for (unsigned i = 0; i < st->n_nics; i++) {
        for (unsigned k = 0; k < st->nics[i].n_fds; k++) {
            fd_set_cloexec(st->nics[i].fds[k], false, NULL);
            argv[n++] = xstrdup("--nic");
            argv[n++] = xasprintf("%s=%d", st->nics[i].name, st->nics[i].fds[k]);
        }
    }
    for (unsigned i = 0; i < st->n_channels; i++) {
        fd_set_cloexec(st->channels[i].fd, false, NULL);
        argv[n++] = xstrdup("--channel");
        argv[n++] = xasprintf("%s=%d", st->channels[i].name, st->channels[i].fd);
    }
    for (unsigned i = 0; i < st->n_shares; i++) {
        fd_set_cloexec(st->shares[i].fd, false, NULL);
        argv[n++] = xstrdup("--share");
        argv[n++] = xasprintf("%s=%d", st->shares[i].tag, st->shares[i].fd);
    }
    if (st->paused) {
        argv[n++] = xstrdup("--paused");
    }
    return argv;
}

static void emulator_stdio(const struct start *st)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    dup2(null, 0);
    dup2(st->emu_log_fd, 1);
    dup2(st->emu_log_fd, 2);
}

/* Never returns. Texts written to `status` are failures; a successful exec closes it. */
static void __attribute__((noreturn)) emulator_main(struct start *st, int gate, int status)
{
    struct err e = ERR_INIT;
    char go;
    if (read(gate, &go, 1) != 1) {
        _exit(126); /* the monitor died before it could write down who we are */
    }
    setsid();
    for (int sig = 1; sig < NSIG; sig++) {
        signal(sig, SIG_DFL);
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    emulator_stdio(st);
    close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    char **argv = build_argv(st);
    AUTO_FREE char *cookie = xasprintf("VMD_COOKIE=%s", st->cookie);
    char *envp[] = { (char *)"PATH=/usr/bin:/bin", (char *)"LANG=C.UTF-8", cookie, NULL };
    if (jail_enter(st->sp, st->vm, &e) == 0) {
        /* By descriptor: the path may not exist in the jail. A script needs the path. */
        syscall(SYS_execveat, st->sp->emulator_fd, "", argv, envp, AT_EMPTY_PATH);
        if (errno == ENOENT) {
            execve(st->sp->emulator, argv, envp);
        }
        err_errno(&e, errno, "cannot execute '%s'", st->sp->emulator);
    }
    ssize_t n = write(status, e.msg, strlen(e.msg));
    _exit(n > 0 ? 126 : 127);
}

/* ---- the monitor ---- */

static pid_t clone_emulator(const struct start *st, int *pidfd, struct err *e)
{
    uint64_t flags = jail_clone_flags(st->sp);
    pid_t pid;
    if (flags) {
        struct clone_args args = {
            .flags = flags | CLONE_PIDFD,
            .pidfd = (uint64_t)(uintptr_t)pidfd,
            .exit_signal = SIGCHLD,
        };
        pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
    } else {
        pid = fork();
        if (pid > 0) {
            *pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        }
    }
    return pid < 0 ? err_errno(e, errno, "cannot make a process for the emulator") : pid;
}

/* Atomically replaces `name` in the folder; durable: it is also there after the host went down. */
static int folder_write(int dir_fd, const char *name, const char *text, bool durable,
                        struct err *e)
{
    char tmp[64];
    snprintf(tmp, sizeof(tmp), ".%s.tmp", name);
    AUTO_FD fd = openat(dir_fd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
                        0640);
    if (fd < 0) {
        return err_errno(e, errno, "cannot write run file '%s'", name);
    }
    int rc = fd_write_all(fd, text, strlen(text), name, e);
    if (rc == 0 && ((durable && fsync(fd) < 0) || renameat(dir_fd, tmp, dir_fd, name) < 0)) {
        rc = err_errno(e, errno, "cannot write run file '%s'", name);
    }
    if (rc < 0) {
        unlinkat(dir_fd, tmp, 0);
    }
    return rc;
}

static int write_process(const struct start *st, const struct report *r, struct err *e)
{
    AUTO_JSON disks = files_disks(st, false);
    AUTO_FREE char *text = xasprintf(
        "{\"cookie\":\"%s\",\"boot_id\":\"%s\",\"pid\":%d,\"start_time\":%llu,\"mon_pid\":%d,"
        "\"mon_start\":%llu,\"disks\":%s}\n",
        st->cookie, st->sp->boot_id, (int)r->pid, (unsigned long long)r->start_time,
        (int)getpid(), (unsigned long long)r->mon_start, api_json_text(disks));
    /* Of use while this process lives, which it does not after the host went down: no sync,
     * for which a start would wait. */
    return folder_write(st->dir_fd, VM_PROCESS, text, false, e);
}

static void write_exit(int dir_fd, const char *cookie, pid_t pid, int wstatus,
                       const struct rusage *use)
{
    int status = WIFEXITED(wstatus) ? WEXITSTATUS(wstatus) : -1;
    int sig = WIFSIGNALED(wstatus) ? WTERMSIG(wstatus) : 0;
    long long cpu = (use->ru_utime.tv_sec + use->ru_stime.tv_sec) * 1000000000LL +
                    (use->ru_utime.tv_usec + use->ru_stime.tv_usec) * 1000LL;
    AUTO_FREE char *text = xasprintf(
        "{\"cookie\":\"%s\",\"pid\":%d,\"status\":%d,\"signal\":%d,\"ended_ns\":%lld,"
        "\"cpu_ns\":%lld}\n",
        cookie, (int)pid, status, sig, (long long)time_real_ns(), cpu);
    folder_write(dir_fd, VM_EXIT, text, true, NULL);
}

/* Waits for the exec: the pipe closes on success, carries a text on failure. */
static int read_exec(int fd, struct err *e)
{
    char text[400];
    size_t got = 0;
    ssize_t n;
    while (got < sizeof(text) - 1 && ((n = read(fd, text + got, sizeof(text) - 1 - got)) > 0 ||
                                      (n < 0 && errno == EINTR))) {
        got += n > 0 ? (size_t)n : 0;
    }
    text[got] = 0;
    return got ? err_set(e, -ENOEXEC, "%s", text) : 0;
}

/* By it the emulator asks for connections to sockets of the run folder, which it cannot make. */
static int make_calls(struct start *st, int *calls, struct err *e)
{
    int pair[2];

    if (!st->vsock) {
        return 0;
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        return err_errno(e, errno, "cannot make a socket pair");
    }
    *calls = pair[0];
    st->vsock_call_fd = pair[1];
    return 0;
}

static int launch(struct start *st, struct report *r, int *pidfd, struct err *e)
{
    int gate[2], status[2];
    int nics = nics_start(st, false, e);
    nics = nics < 0 ? nics : shares_start(st, false, e);
    nics = nics < 0 ? nics : sound_start(st, e);
    if (nics < 0) {
        return nics;
    }
    if (pipe2(gate, O_CLOEXEC) < 0) {
        return err_errno(e, errno, "cannot make a pipe");
    }
    AUTO_FD gate_r = gate[0], gate_w = gate[1];
    if (pipe2(status, O_CLOEXEC) < 0) {
        return err_errno(e, errno, "cannot make a pipe");
    }
    AUTO_FD status_r = status[0];
    AUTO_FD status_w = status[1];
    r->pid = clone_emulator(st, pidfd, e);
    if (r->pid == 0) {
        close(gate_w);
        close(status_r);
        emulator_main(st, gate_r, status_w);
    }
    if (r->pid < 0) {
        return r->pid;
    }
    close(take_fd(&status_w));
    int rc = jail_map_ids(st->sp, r->pid, st->vm, e);
    if (rc == 0) {
        rc = proc_start_time(r->pid, &r->start_time, e);
    }
    if (rc == 0) {
        rc = proc_start_time(getpid(), &r->mon_start, e);
    }
    if (rc == 0) {
        rc = write_process(st, r, e);
    }
    if (rc == 0 && st->cgroup) {
        rc = cgroup_join(st->cgroup, r->pid, e);
    }
    if (rc == 0 && write(gate_w, "g", 1) != 1) {
        rc = err_errno(e, errno, "the emulator's process is gone");
    }
    if (rc == 0) {
        rc = read_exec(status_r, e);
    }
    if (rc < 0) {
        kill(r->pid, SIGKILL);
        while (waitpid(r->pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    return rc;
}

static void monitor_signals(void)
{
    static const int ignored[] = { SIGHUP,  SIGINT,  SIGQUIT, SIGTERM, SIGPIPE,
                                   SIGUSR1, SIGUSR2, SIGTSTP, SIGTTIN, SIGTTOU };
    for (unsigned i = 0; i < ARRAY_LEN(ignored); i++) {
        signal(ignored[i], SIG_IGN);
    }
    signal(SIGCHLD, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* What the monitor keeps, by number, beside 0-2 as /dev/null. */
enum {
    KEEP_STATS = MONITOR_STATS_FD,
    KEEP_DIR,
    KEEP_PROCESS, /* of the emulator, while there are calls */
    KEEP_CALLS,
    KEEP_END
};

static void monitor_close(const struct start *st, int pidfd, int calls)
{
    const int from[] = { st->stats_fd, st->dir_fd, pidfd, calls };
    int copy[ARRAY_LEN(from)];

    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd < 3; fd++) {
        dup2(null, fd);
    }
    for (unsigned i = 0; i < ARRAY_LEN(from); i++) {
        copy[i] = from[i] >= 0 ? fcntl(from[i], F_DUPFD_CLOEXEC, 10) : -1;
    }
    for (unsigned i = 0; i < ARRAY_LEN(from); i++) {
        close(KEEP_STATS + (int)i);
        if (copy[i] >= 0) {
            dup3(copy[i], KEEP_STATS + (int)i, O_CLOEXEC);
        }
    }
    close_range(calls >= 0 ? KEEP_END : KEEP_PROCESS, ~0U, 0);
}

/* Connects the emulator to what it asks for, until it has ended. */
static void serve_calls(void)
{
    struct pollfd p[] = { { .fd = KEEP_PROCESS, .events = POLLIN },
                          { .fd = KEEP_CALLS, .events = POLLIN } };

    while (!(p[0].revents & (POLLIN | POLLNVAL))) {
        if (poll(p, ARRAY_LEN(p), -1) < 0 && errno != EINTR) {
            return;
        }
        if (p[1].revents && !vsock_serve(KEEP_CALLS, KEEP_DIR)) {
            p[1].fd = -1;
        }
    }
}

/* An emulator that refused to begin has written nothing. */
static void drop_empty_recording(const struct start *st)
{
    struct stat s;
    for (unsigned i = 0; i < st->n_files; i++) {
        const struct spawn_file *f = &st->files[i];
        if (f->is_new && lstat(f->path, &s) == 0 && S_ISREG(s.st_mode) && s.st_size == 0) {
            unlink(f->path);
        }
    }
}

static void __attribute__((noreturn)) monitor_main(struct start *st, int to)
{
    struct report r = { 0 };
    struct err e = ERR_INIT;
    int pidfd = -1, calls = -1;
    char cookie[COOKIE_LEN + 1];
    str_copy(cookie, sizeof(cookie), st->cookie);
    setsid();
    monitor_signals();
    prctl(PR_SET_NAME, "vmd-monitor");
    r.code = make_calls(st, &calls, &e);
    if (r.code == 0) {
        r.code = launch(st, &r, &pidfd, &e);
    }
    str_copy(r.msg, sizeof(r.msg), e.msg);
    fd_send(to, &r, sizeof(r), &pidfd, r.code == 0 ? 1 : 0, NULL);
    if (r.code < 0) {
        _exit(1);
    }
    monitor_close(st, pidfd, calls);
    if (calls >= 0) {
        serve_calls();
    }
    int wstatus = 0;
    struct rusage use = { 0 };
    pid_t ended;
    do { /* those of network cards may end before it, which the emulator sees */
        ended = wait4(-1, &wstatus, 0, &use);
    } while (ended != r.pid && (ended > 0 || errno == EINTR));
    drop_empty_recording(st);
    write_exit(KEEP_DIR, cookie, r.pid, wstatus, &use);
    _exit(0);
}

static int read_report(int from, struct report *r, int *pidfd, struct err *e)
{
    struct pollfd p = { .fd = from, .events = POLLIN };
    int n;
    do {
        n = poll(&p, 1, REPORT_TIMEOUT_MS);
    } while (n < 0 && errno == EINTR);
    if (n == 0) {
        return err_set(e, -ETIMEDOUT, "the emulator's process was not ready after %d s",
                       REPORT_TIMEOUT_MS / 1000);
    }
    unsigned nfds = 1;
    ssize_t got = fd_recv(from, r, sizeof(*r), pidfd, &nfds, e);
    if (got < 0) {
        return (int)got;
    }
    if ((size_t)got != sizeof(*r)) {
        return err_set(e, -EPIPE, "the monitor of the VM ended before the emulator ran");
    }
    r->msg[sizeof(r->msg) - 1] = 0;
    if (r->code < 0) {
        return err_set(e, r->code, "%s", r->msg);
    }
    return nfds == 1 ? 0 : err_set(e, -EPROTO, "the monitor sent no process descriptor");
}

int monitor_start(struct start *st, struct started *out, struct err *e)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        return err_errno(e, errno, "cannot make a socket pair");
    }
    AUTO_FD mine = pair[0], theirs = pair[1];
    pid_t mon = fork();
    if (mon < 0) {
        return err_errno(e, errno, "cannot make a process for the monitor");
    }
    if (mon == 0) {
        close(mine);
        monitor_main(st, theirs);
    }
    close(take_fd(&theirs));
    AUTO_FD mon_pidfd = (int)syscall(SYS_pidfd_open, mon,
                                     0); /* ours, not reaped yet: it exists */
    AUTO_FD pidfd = -1;
    struct report r = { 0 };
    int rc = read_report(mine, &r, &pidfd, e);
    if (rc == 0 && mon_pidfd < 0) {
        rc = err_set(e, -EMFILE, "cannot open a descriptor for the monitor");
    }
    AUTO_FD stats = rc == 0 ? fcntl(st->stats_fd, F_DUPFD_CLOEXEC, 3) : -1;
    if (rc == 0 && stats < 0) {
        rc = err_errno(e, errno, "statistics page");
    }
    if (rc < 0) {
        /* The whole start is undone, whatever stage it hung at. */
        if (r.pid > 0 && pidfd >= 0) {
            syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        }
        kill(mon, SIGKILL);
        return rc;
    }
    *out = (struct started){ .pid = r.pid,
                             .mon_pid = mon,
                             .start_time = r.start_time,
                             .mon_start = r.mon_start,
                             .fds = { take_fd(&pidfd), take_fd(&mon_pidfd), take_fd(&stats) } };
    return 0;
}
