/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process of a named network: vmd-net in a jail, with two sockets that listen in a folder which only the daemon's user reaches. It is
 * nobody's child to watch but by its pidfd: it outlives the spawner and the daemon. vmd-spawn's one thread.
 */
#include "api-schema/json/json.h"
#include "daemon/spawn/spawn.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define BACKLOG 256
#define LOCK_MS 5000
/* User ids beside those of VMs, where root starts it. */
#define NET_IDS INT64_C(0x0e000000)

struct net_start {
    struct spawner *sp;
    const char *key, *name, *config, *cookie, *tftp; /* borrowed from the request */
    bool isolated;
    char dir[4096];
    int dir_fd, lock_fd, ports_fd, control_fd, log_fd;
};

static bool key_ok(const char *s)
{
    return s && strlen(s) == NET_KEY_LEN && strspn(s, "0123456789abcdef") == NET_KEY_LEN;
}

static int64_t jail_number(const char *key)
{
    uint64_t h = 1469598103934665603u;

    for (; *key; key++) {
        h = (h ^ (uint8_t)*key) * 1099511628211u;
    }
    return NET_IDS + (int64_t)(h % 0x00ffffffu);
}

static int bind_at(struct net_start *s, const char *name, int *out, struct err *e)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    AUTO_FD fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    mode_t old;
    int rc;

    if (snprintf(at.sun_path, sizeof(at.sun_path), "%s/%s", s->dir, name) >=
        (int)sizeof(at.sun_path)) {
        return err_set(e, -ENAMETOOLONG,
                       "socket '%s/%s' has too long a name (107 bytes at most); choose a "
                       "shorter --dir",
                       s->dir, name);
    }
    if (fd < 0) {
        return err_errno(e, errno, "cannot make a socket");
    }
    if (unlinkat(s->dir_fd, name, 0) < 0 && errno != ENOENT) {
        return err_errno(e, errno, "cannot remove stale '%s'", at.sun_path);
    }
    old = umask(0177);
    rc = bind(fd, (struct sockaddr *)&at, sizeof(at));
    umask(old);
    if (rc < 0 || listen(fd, BACKLOG) < 0) {
        return err_errno(e, errno, "cannot bind '%s'", at.sun_path);
    }
    *out = take_fd(&fd);
    return 0;
}

/* The lock is held by the process, as its descriptor lives on in it: no second one. */
static int take_lock(struct net_start *s, struct err *e)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    s->lock_fd = openat(s->dir_fd, VM_LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->lock_fd < 0) {
        return err_errno(e, errno, "cannot open '%s/%s'", s->dir, VM_LOCK);
    }
    for (unsigned ms = 0; fcntl(s->lock_fd, F_OFD_SETLK, &lock) < 0; ms++) {
        if ((errno == EAGAIN || errno == EACCES) && ms < LOCK_MS) {
            usleep(1000); /* the one before it is just ending */
            continue;
        }
        return err_set(e, errno == EAGAIN || errno == EACCES ? -EBUSY : -errno,
                       "network '%s' has a process already: '%s/%s' is locked", s->name, s->dir,
                       VM_LOCK);
    }
    return 0;
}

static int prepare(struct net_start *s, struct err *e)
{
    int rc;

    if (snprintf(s->dir, sizeof(s->dir), "%s/../%s", s->sp->run, SPAWN_NET_DIR) < 0 ||
        (mkdir(s->dir, 0700) < 0 && errno != EEXIST)) {
        return err_errno(e, errno, "cannot make folder '%s'", s->dir);
    }
    /* Without the detour, which the names of sockets have no room for. */
    snprintf(s->dir, sizeof(s->dir), "%.*s/%s/%s",
             (int)(strlen(s->sp->run) - strlen("/" SPAWN_VM_DIR)), s->sp->run, SPAWN_NET_DIR,
             s->key);
    if (mkdir(s->dir, 0700) < 0 && errno != EEXIST) {
        return err_errno(e, errno, "cannot make run folder '%s'", s->dir);
    }
    s->dir_fd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (s->dir_fd < 0) {
        return err_errno(e, errno, "cannot open run folder '%s'", s->dir);
    }
    rc = take_lock(s, e);
    if (rc == 0) {
        unlinkat(s->dir_fd, VM_PROCESS, 0);
        s->log_fd = openat(s->dir_fd, NET_LOG,
                           O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW,
                           0640);
        rc = s->log_fd < 0 ? err_errno(e, errno, "cannot make log '%s/%s'", s->dir, NET_LOG)
                           : 0;
    }
    rc = rc < 0 ? rc : bind_at(s, NET_PORTS, &s->ports_fd, e);
    return rc < 0 ? rc : bind_at(s, VM_CONTROL, &s->control_fd, e);
}

/* The clone's side. Never returns; what it writes to `status` is why it failed. */
static void __attribute__((noreturn))
child_main(const struct net_start *s, int exe, int gate, int status)
{
    struct err e = ERR_INIT;
    struct jail_net extra = { .tftp = s->tftp, .tftp_at = NET_JAIL_TFTP };
    const int kept[] = { s->ports_fd, s->control_fd, s->lock_fd, status };
    char go;
    sigset_t none;

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
    dup2(null, 0);
    dup2(s->log_fd, 1);
    dup2(s->log_fd, 2);
    close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    for (unsigned i = 0; i < ARRAY_LEN(kept); i++) {
        fd_set_cloexec(kept[i], false, NULL);
    }
    char *argv[] = { (char *)"vmd-net",
                     xasprintf("--network=%s", s->config),
                     xasprintf("--ports-fd=%d", s->ports_fd),
                     xasprintf("--control-fd=%d", s->control_fd),
                     xasprintf("--status-fd=%d", status),
                     NULL };
    char *envp[] = { (char *)"LANG=C.UTF-8", NULL };
    if (jail_enter_net(s->sp, jail_number(s->key), &extra, &e) == 0) {
        syscall(SYS_execveat, exe, "", argv, envp, AT_EMPTY_PATH);
        err_errno(&e, errno, "cannot execute vmd-net");
    }
    ssize_t n = write(status, e.msg, strlen(e.msg));
    _exit(n > 0 ? 126 : 127);
}

static int write_record(const struct net_start *s, pid_t pid, uint64_t start, struct err *e)
{
    AUTO_FREE char *path = xasprintf("%s/%s", s->dir, VM_PROCESS);
    AUTO_FREE char *text = xasprintf(
        "{\"cookie\":\"%s\",\"boot_id\":\"%s\",\"pid\":%d,\"start_time\":%llu}\n", s->cookie,
        s->sp->boot_id, (int)pid, (unsigned long long)start);

    return file_replace(path, text, strlen(text), 0640, e);
}

static int run(struct net_start *s, struct net_started *out, struct err *e)
{
    AUTO_FREE char *path = net_path();
    AUTO_FD exe = open(path, O_PATH | O_CLOEXEC), pidfd = -1;
    int gate[2], status[2], rc;

    if (exe < 0) {
        return err_errno(e, errno, "network '%s': cannot open '%s'", s->name, path);
    }
    if (pipe2(gate, O_CLOEXEC) < 0) {
        return err_errno(e, errno, "cannot make a pipe");
    }
    AUTO_FD gate_r = gate[0], gate_w = gate[1];
    if (pipe2(status, O_CLOEXEC) < 0) {
        return err_errno(e, errno, "cannot make a pipe");
    }
    AUTO_FD status_r = status[0], status_w = status[1];
    pid_t pid = net_clone(s->sp, s->isolated);
    if (pid == 0) {
        close(gate_w);
        close(status_r);
        child_main(s, exe, gate_r, status_w);
    }
    if (pid < 0) {
        return err_errno(e, errno, "cannot make a process for network '%s'", s->name);
    }
    close(take_fd(&status_w));
    rc = jail_map_ids(s->sp, pid, jail_number(s->key), e);
    rc = rc < 0 ? rc : proc_start_time(pid, &out->start_time, e);
    rc = rc < 0 ? rc : write_record(s, pid, out->start_time, e);
    if (rc == 0) {
        pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        rc = pidfd < 0 ? err_errno(e, errno, "the process of network '%s'", s->name) : 0;
    }
    if (rc == 0 && write(gate_w, "g", 1) != 1) {
        rc = err_errno(e, errno, "the process of network '%s' is gone", s->name);
    }
    rc = rc < 0 ? rc : net_ready(status_r, "vmd-net", s->name, e);
    if (rc < 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        unlinkat(s->dir_fd, VM_PROCESS, 0);
        return rc;
    }
    out->pid = pid;
    out->pidfd = take_fd(&pidfd);
    return 0;
}

int network_start(struct spawner *sp, const struct json_object *req, struct net_started *out,
                  struct err *e)
{
    struct net_start s = { .sp = sp,
                           .key = api_json_get_str(req, "key"),
                           .name = api_json_get_str(req, "name"),
                           .config = api_json_get_str(req, "config"),
                           .cookie = api_json_get_str(req, "cookie"),
                           .tftp = api_json_get_str(req, "tftp"),
                           .isolated = api_json_get_bool(req, "isolated", false),
                           .dir_fd = -1,
                           .lock_fd = -1,
                           .ports_fd = -1,
                           .control_fd = -1,
                           .log_fd = -1 };
    int *fds[] = { &s.dir_fd, &s.lock_fd, &s.ports_fd, &s.control_fd, &s.log_fd };
    int rc;

    if (!key_ok(s.key) || !s.name || !s.config || !s.cookie) {
        return err_set(e, -EPROTO, "vmd-spawn cannot understand the request");
    }
    rc = prepare(&s, e);
    rc = rc < 0 ? rc : run(&s, out, e);
    for (unsigned i = 0; i < ARRAY_LEN(fds); i++) {
        fd_autoclose(fds[i]);
    }
    return rc;
}
