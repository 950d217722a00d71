/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process vmd-sound of a VM whose sound goes to a sound server of the host. Runs in the monitor, whose child it is; it ends with its
 * socket. Where vmd is root's, it is a user of no rights: the one whose PipeWire it is, or nobody, in the group of sound devices.
 */
#include "api-schema/json/json.h"
#include "daemon/run/cgroup.h"
#include "daemon/spawn/spawn.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/soundring.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define NOBODY 65534

struct process {
    const struct start *st;
    const char *path;
    uid_t uid; /* where root starts it */
    gid_t gid;
    int exe, sock, ring, status;
};

int sound_read(struct start *st, const struct json_object *o, struct err *e)
{
    struct spawn_sound *s = &st->sound;

    if (!o) {
        return 0;
    }
    *s = (struct spawn_sound){ .backend = api_json_get_str(o, "backend"),
                               .server = api_json_get_str(o, "server"),
                               .device = api_json_get_str(o, "device"),
                               .rate = (int)api_json_get_int(o, "rate", 0),
                               .channels = (int)api_json_get_int(o, "channels", 0),
                               .sample = (int)api_json_get_int(o, "sample", 0) };
    return s->backend ? 0 : err_set(e, -EPROTO, "the sound of VM '%s' is incomplete", st->name);
}

/* ---- the child ---- */

static int drop_rights(const struct process *p, struct err *e)
{
    if (geteuid() != 0) {
        return 0;
    }
    (void)unshare(CLONE_NEWNET); /* sockets by path are all that it needs */
    if (setgroups(1, &p->gid) < 0 || setresgid(p->gid, p->gid, p->gid) < 0 ||
        setresuid(p->uid, p->uid, p->uid) < 0) {
        return err_errno(e, errno, "vmd-sound cannot become user %u", (unsigned)p->uid);
    }
    return 0;
}

/* What libraries look for: where the user's own settings are. */
static char **environment(void)
{
    static const char *const names[] = { "HOME", "XDG_RUNTIME_DIR", "ALSA_CONFIG_PATH" };
    char **envp = xnew_n(char *, 2 + sizeof(names) / sizeof(names[0]));
    unsigned n = 0;

    envp[n++] = xstrdup("LANG=C.UTF-8");
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *value = getenv(names[i]);

        if (value) {
            envp[n++] = xasprintf("%s=%s", names[i], value);
        }
    }
    return envp;
}

static char **arguments(const struct process *p)
{
    const struct spawn_sound *s = &p->st->sound;
    char **argv = xnew_n(char *, 14);
    unsigned n = 0;

    argv[n++] = xstrdup("vmd-sound");
    argv[n++] = xasprintf("--socket-fd=%d", p->sock);
    argv[n++] = xasprintf("--ring-fd=%d", p->ring);
    argv[n++] = xasprintf("--status-fd=%d", p->status);
    argv[n++] = xasprintf("--backend=%s", s->backend);
    argv[n++] = xasprintf("--name=%s", p->st->name);
    argv[n++] = xasprintf("--rate=%d", s->rate);
    argv[n++] = xasprintf("--channels=%d", s->channels);
    argv[n++] = xasprintf("--sample=%d", s->sample);
    if (s->server) {
        argv[n++] = xasprintf("--server=%s", s->server);
    }
    if (s->device) {
        argv[n++] = xasprintf("--device=%s", s->device);
    }
    fd_set_cloexec(p->sock, false, NULL);
    fd_set_cloexec(p->ring, false, NULL);
    fd_set_cloexec(p->status, false, NULL);
    return argv;
}

/* Never returns; what it writes to `status` is why it failed. */
static void __attribute__((noreturn)) process_main(const struct process *p)
{
    struct err e = ERR_INIT;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    sigset_t none;

    setsid();
    for (int sig = 1; sig < NSIG; sig++) {
        signal(sig, SIG_DFL);
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    dup2(null, 0);
    dup2(p->st->emu_log_fd, 1);
    dup2(p->st->emu_log_fd, 2);
    close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    char **argv = arguments(p), **envp = environment();
    if (drop_rights(p, &e) == 0) {
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* behind the change of ids, which would clear it */
        fexecve(p->exe, argv, envp);
        err_errno(&e, errno, "cannot execute '%s'", p->path);
    }
    ssize_t n = write(p->status, e.msg, strlen(e.msg));
    _exit(n > 0 ? 126 : 127);
}

/* ---- starting ---- */

/* Whose rights it has. */
static int find_user(struct process *p, struct err *e)
{
    const struct spawn_sound *s = &p->st->sound;
    struct stat st;
    const struct group *audio;

    if (geteuid() != 0) {
        return 0;
    }
    if (strcmp(s->backend, "alsa") == 0) {
        audio = getgrnam("audio");
        p->uid = NOBODY;
        p->gid = audio ? audio->gr_gid : NOBODY;
        return 0;
    }
    if (!s->server) {
        return err_set(e, -ENETUNREACH, /* a start that failed, no bad file */
                       "audio: name the socket of PipeWire in 'server': it is a user's, "
                       "/run/user/UID/pipewire-0");
    }
    if (stat(s->server, &st) < 0) {
        return err_set(e, -ENETUNREACH, "audio: cannot find PipeWire's socket '%s': %s", s->server,
                       strerror(errno));
    }
    p->uid = st.st_uid;
    p->gid = st.st_gid;
    return 0;
}

static int make_ring(struct err *e)
{
    AUTO_FD fd = memfd_create("vmd-sound", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0 || ftruncate(fd, sizeof(struct sound_rings)) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        return err_errno(e, errno, "cannot make memory for sound");
    }
    return take_fd(&fd);
}

static char *program_path(void)
{
    AUTO_FREE char *net = net_path();
    char *slash = strrchr(net, '/');

    return xasprintf("%.*s/vmd-sound", (int)(slash - net), net);
}

static int run(struct process *p, struct err *e)
{
    int status[2];

    if (pipe2(status, O_CLOEXEC) < 0) {
        return err_errno(e, errno, "cannot make a pipe");
    }
    AUTO_FD status_r = status[0], status_w = status[1];
    p->status = status_w;
    pid_t pid = fork();
    if (pid == 0) {
        close(status_r);
        process_main(p);
    }
    if (pid < 0) {
        return err_errno(e, errno, "cannot make a process for sound");
    }
    close(take_fd(&status_w));
    int rc = p->st->cgroup ? cgroup_join(p->st->cgroup, pid, e) : 0;
    rc = rc == 0 ? net_ready(status_r, "vmd-sound", p->st->name, e) : rc;
    if (rc < 0) {
        kill(pid, SIGKILL); /* and nobody waits: we are about to end */
    }
    return rc;
}

int sound_start(struct start *st, struct err *e)
{
    AUTO_FREE char *path = program_path();
    struct process p = { .st = st, .path = path };
    int pair[2], rc;

    if (!st->sound.backend) {
        return 0;
    }
    rc = find_user(&p, e);
    if (rc < 0) {
        return rc;
    }
    AUTO_FD exe = open(path, O_RDONLY | O_CLOEXEC), ring = make_ring(e);
    if (exe < 0 || ring < 0) {
        return exe < 0 ? err_errno(e, errno, "cannot open '%s'", path) : ring;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        return err_errno(e, errno, "cannot make a socket pair");
    }
    AUTO_FD mine = pair[0], theirs = pair[1];
    p.exe = exe;
    p.sock = theirs;
    p.ring = ring;
    rc = run(&p, e);
    if (rc == 0) {
        st->sound_fd = take_fd(&mine);
        st->sound_ring_fd = take_fd(&ring);
    }
    return rc;
}
