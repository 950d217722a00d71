/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The emulator's jail, layer by layer. Each layer is tried at start by running
 * `emulator --version` inside it; what fails is left out and reported with the reason. Seccomp,
 * Landlock and "not dumpable" are the emulator's own doing, after it has started.
 *
 * Owns nothing. The spawner's one thread, and the children it clones.
 */
#include "daemon/spawn/spawn.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* User ids of emulators that root starts: above every range that systemd or shadow hand out. */
#define JAIL_UID_BASE 0x70000000u
#define JAIL_UID_COUNT 0x0f000000u
#define JAIL_NOBODY 65534
/* Where the new root is put together, in a mount namespace of its own: a folder every uid reaches. */
#define JAIL_MOUNT "/tmp"
/* What the emulator calls itself inside its user namespace; not 0, so exec drops capabilities. */
#define JAIL_INNER_ID 1000
/* For `emulator --version`, on a machine that has much to do. */
#define PROBE_NS INT64_C(10000000000)

const char *const layer_name[LAYER_COUNT] = {
    [LAYER_NO_NEW_PRIVS] = "no-new-privs",
    [LAYER_RLIMITS] = "rlimits",
    [LAYER_USER] = "user",
    [LAYER_PID] = "pid-namespace",
    [LAYER_NET] = "net-namespace",
    [LAYER_IPC] = "ipc-namespace",
    [LAYER_MOUNT] = "mount-namespace",
    [LAYER_ROOT] = "empty-root",
};

static bool on(const struct spawner *sp, enum layer l)
{
    return sp->layer[l].active;
}

static unsigned jail_uid(const struct spawner *sp, int64_t vm)
{
    return sp->root ? JAIL_UID_BASE + (unsigned)(vm % JAIL_UID_COUNT) : (unsigned)geteuid();
}

uint64_t jail_clone_flags(const struct spawner *sp)
{
    uint64_t flags = 0;
    flags |= on(sp, LAYER_USER) ? CLONE_NEWUSER : 0;
    flags |= on(sp, LAYER_PID) ? CLONE_NEWPID : 0;
    flags |= on(sp, LAYER_NET) ? CLONE_NEWNET : 0;
    flags |= on(sp, LAYER_IPC) ? CLONE_NEWIPC | CLONE_NEWUTS : 0;
    flags |= on(sp, LAYER_MOUNT) ? CLONE_NEWNS : 0;
    return flags;
}

/* ---- ids ---- */

static int proc_write(pid_t pid, const char *name, const char *text, struct err *e)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    AUTO_FD fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return err_errno(e, errno, "%s", path);
    }
    return fd_write_all(fd, text, strlen(text), path, e);
}

int jail_map_ids(const struct spawner *sp, pid_t child, int64_t vm, struct err *e)
{
    if (!on(sp, LAYER_USER)) {
        return 0;
    }
    char map[64];
    unsigned uid = jail_uid(sp, vm), gid = sp->root ? uid : (unsigned)getegid();
    int rc = 0;
    if (!sp->root) {
        rc = proc_write(child, "setgroups", "deny", e);
    }
    if (rc == 0) {
        snprintf(map, sizeof(map), "%d %u 1\n", JAIL_INNER_ID, gid);
        rc = proc_write(child, "gid_map", map, e);
    }
    if (rc == 0) {
        snprintf(map, sizeof(map), "%d %u 1\n", JAIL_INNER_ID, uid);
        rc = proc_write(child, "uid_map", map, e);
    }
    return rc;
}

static void drop_caps(void)
{
    for (int cap = 0; cap <= 63; cap++) {
        prctl(PR_CAPBSET_DROP, cap, 0, 0, 0); /* fails for capabilities the kernel lacks */
    }
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

static int become(unsigned id)
{
    return setresgid(id, id, id) < 0 || setresuid(id, id, id) < 0 ? -1 : 0;
}

/* Root without a user namespace of its own: some id that is nobody's. In a container that has neither,
 * the emulator keeps the id, without any capability. */
static int drop_root(const struct spawner *sp, int64_t vm, struct err *e)
{
    struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct none[2] = { { 0, 0, 0 }, { 0, 0, 0 } };
    setgroups(0, NULL); /* refused where groups cannot be changed at all */
    if (become(jail_uid(sp, vm)) < 0) {
        (void)become(JAIL_NOBODY);
    }
    return syscall(SYS_capset, &head, none) < 0
               ? err_errno(e, errno, "jail: cannot drop capabilities")
               : 0;
}

/* In a user namespace capabilities (over the namespace) stay until exec, since no id in it is 0. */
static int drop_ids(const struct spawner *sp, int64_t vm, struct err *e)
{
    if (!on(sp, LAYER_USER)) {
        return sp->root ? drop_root(sp, vm, e) : 0; /* an ordinary user stays who it is */
    }
    if (sp->root && setgroups(0, NULL) < 0) {
        return err_errno(e, errno, "jail: cannot drop groups");
    }
    return become(JAIL_INNER_ID) < 0
               ? err_errno(e, errno, "jail: cannot become uid %d", JAIL_INNER_ID)
               : 0;
}

/* ---- root folder ---- */

static int lock_mount(const char *at, struct err *e)
{
    struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID |
                                           MOUNT_ATTR_NODEV };
    if (mount_setattr(AT_FDCWD, at, AT_RECURSIVE, &attr, sizeof(attr)) < 0) {
        return err_errno(e, errno, "jail: cannot make '%s' read-only", at);
    }
    return 0;
}

/* The system's libraries, which the dynamic linker needs; nothing else of the host. */
static int bind_folder(const char *root, const char *what, struct err *e)
{
    AUTO_FREE char *at = xasprintf("%s%s", root, what);
    char link[256];
    struct stat st;
    if (lstat(what, &st) < 0) {
        return 0;
    }
    if (S_ISLNK(st.st_mode)) {
        ssize_t n = readlink(what, link, sizeof(link) - 1);
        if (n < 0) {
            return err_errno(e, errno, "jail: '%s'", what);
        }
        link[n] = 0;
        return symlink(link, at) < 0 ? err_errno(e, errno, "jail: '%s'", at) : 0;
    }
    if (mkdir(at, 0755) < 0 || mount(what, at, NULL, MS_BIND | MS_REC, NULL) < 0) {
        return err_errno(e, errno, "jail: cannot bind '%s'", what);
    }
    return lock_mount(at, e);
}

/* One file or folder of the host, read-only; absent ones are left out. */
static int bind_one(const char *root, const char *what, const char *at, struct err *e)
{
    AUTO_FREE char *full = xasprintf("%s%s", root, at);
    struct stat st;
    if (stat(what, &st) < 0) {
        return 0;
    }
    if (S_ISDIR(st.st_mode)) {
        mkdir(full, 0755);
    } else {
        int fd = open(full, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        fd_autoclose(&fd);
    }
    if (mount(what, full, NULL, MS_BIND, NULL) < 0) {
        return err_errno(e, errno, "jail: cannot bind '%s'", what);
    }
    return lock_mount(full, e);
}

static int bind_net(const char *root, const struct jail_net *extra, struct err *e)
{
    AUTO_FREE char *etc = xasprintf("%s/etc", root);
    if (mkdir(etc, 0755) < 0) {
        return err_errno(e, errno, "jail: '%s'", etc);
    }
    int rc = bind_one(root, "/etc/resolv.conf", "/etc/resolv.conf", e);
    if (rc == 0 && extra->tftp) {
        rc = bind_one(root, extra->tftp, extra->tftp_at, e);
    }
    return rc;
}

static int new_root(const struct jail_net *extra, struct err *e)
{
    const char *root = JAIL_MOUNT;
    static const char *const libs[] = { "/usr/lib", "/usr/lib64", "/lib", "/lib64" };
    if (mount("vmd-root", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=0755") < 0) {
        return err_errno(e, errno, "jail: cannot mount a tmpfs on '%s'", root);
    }
    AUTO_FREE char *usr = xasprintf("%s/usr", root);
    if (mkdir(usr, 0755) < 0) {
        return err_errno(e, errno, "jail: '%s'", usr);
    }
    for (unsigned i = 0; i < ARRAY_LEN(libs); i++) {
        int rc = bind_folder(root, libs[i], e);
        if (rc < 0) {
            return rc;
        }
    }
    if (extra) {
        int rc = bind_net(root, extra, e);
        if (rc < 0) {
            return rc;
        }
    }
    if (chdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ||
        umount2(".", MNT_DETACH) < 0 || chdir("/") < 0) {
        return err_errno(e, errno, "jail: cannot change the root folder");
    }
    return lock_mount("/", e);
}

/* ---- entering ---- */

static int limit(int what, rlim_t value, const char *name, struct err *e)
{
    struct rlimit was, now = { value, value };
    if (getrlimit(what, &was) == 0 && was.rlim_max != RLIM_INFINITY && was.rlim_max < value) {
        now.rlim_cur = now.rlim_max = was.rlim_max;
    }
    return setrlimit(what, &now) < 0 ? err_errno(e, errno, "jail: rlimit %s", name) : 0;
}

static int set_limits(const struct spawner *sp, struct err *e)
{
    int rc = limit(RLIMIT_CORE, 0, "core", e);
    if (rc == 0) {
        rc = limit(RLIMIT_NOFILE, 1024, "nofile", e);
    }
    /* Counts threads, of the uid: only where the uid is the VM's own. */
    if (rc == 0 && sp->root && on(sp, LAYER_USER)) {
        rc = limit(RLIMIT_NPROC, 1024, "nproc", e);
    }
    return rc;
}

static int enter(const struct spawner *sp, int64_t vm, const struct jail_net *extra, struct err *e)
{
    int rc = 0;
    umask(022);
    if (on(sp, LAYER_USER)) { /* first: only mapped ids may own what a mount holds */
        rc = drop_ids(sp, vm, e);
    }
    if (rc == 0 && on(sp, LAYER_MOUNT) &&
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        rc = err_errno(e, errno, "jail: cannot make mounts private");
    }
    if (rc == 0 && on(sp, LAYER_ROOT)) {
        rc = new_root(extra, e);
    }
    if (rc == 0 && !on(sp, LAYER_ROOT) && chdir("/") < 0) {
        rc = err_errno(e, errno, "jail: cannot enter /");
    }
    if (rc == 0 && on(sp, LAYER_RLIMITS)) {
        rc = set_limits(sp, e);
    }
    drop_caps();
    umask(077);
    if (rc == 0 && !on(sp, LAYER_USER)) {
        rc = drop_ids(sp, vm, e);
    }
    if (rc == 0 && on(sp, LAYER_NO_NEW_PRIVS) && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        rc = err_errno(e, errno, "jail: no_new_privs");
    }
    return rc;
}

int jail_enter(const struct spawner *sp, int64_t vm, struct err *e)
{
    return enter(sp, vm, NULL, e);
}

int jail_enter_net(const struct spawner *sp, int64_t vm, const struct jail_net *extra,
                   struct err *e)
{
    return enter(sp, vm, extra, e);
}

/* ---- servers of shared folders ---- */

/* Root's server keeps root's ids, since it gives files to others; an ordinary user's is that user, in a namespace where its id is
 * the only one. */
uint64_t jail_share_flags(const struct spawner *sp)
{
    return jail_clone_flags(sp) & ~(sp->root ? (uint64_t)CLONE_NEWUSER : 0);
}

int jail_share_ids(const struct spawner *sp, pid_t child, struct err *e)
{
    AUTO_FREE char *uid = xasprintf("%u %u 1\n", (unsigned)geteuid(), (unsigned)geteuid());
    AUTO_FREE char *gid = xasprintf("%u %u 1\n", (unsigned)getegid(), (unsigned)getegid());
    int rc = 0;
    if (sp->root || !on(sp, LAYER_USER)) {
        return 0;
    }
    rc = proc_write(child, "setgroups", "deny", e);
    rc = rc == 0 ? proc_write(child, "gid_map", gid, e) : rc;
    return rc == 0 ? proc_write(child, "uid_map", uid, e) : rc;
}

static void keep_file_caps(void)
{
    static const int kept[] = { CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID,
                                CAP_SETGID, CAP_SETUID,       CAP_MKNOD,  CAP_SETFCAP };
    for (int cap = 0; cap <= 63; cap++) {
        bool keep = false;
        for (unsigned i = 0; i < ARRAY_LEN(kept); i++) {
            keep = keep || kept[i] == cap;
        }
        if (!keep) {
            prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
        }
    }
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

int jail_enter_share(const struct spawner *sp, int folder, bool readonly, int *tree, struct err *e)
{
    struct mount_attr attr = { .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC |
                                           (readonly ? MOUNT_ATTR_RDONLY : 0) };
    int rc = 0;
    umask(0);
    *tree = folder;
    if (on(sp, LAYER_MOUNT)) {
        if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
            return err_errno(e, errno, "jail: cannot make mounts private");
        }
        *tree = open_tree(folder, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);
        if (*tree < 0 || mount_setattr(*tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof(attr)) < 0) {
            return err_errno(e, errno, "jail: cannot make a mount of the folder");
        }
    }
    if (on(sp, LAYER_ROOT)) {
        rc = new_root(NULL, e);
    }
    if (rc == 0 && on(sp, LAYER_RLIMITS)) {
        rc = limit(RLIMIT_CORE, 0, "core", e);
        rc = rc == 0 ? limit(RLIMIT_NOFILE, 65536, "nofile", e) : rc;
    }
    keep_file_caps();
    umask(0);
    if (rc == 0 && on(sp, LAYER_NO_NEW_PRIVS) && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        rc = err_errno(e, errno, "jail: no_new_privs");
    }
    return rc;
}

bool jail_has_root(const struct spawner *sp)
{
    return on(sp, LAYER_ROOT);
}

/* ---- trying ---- */

static void __attribute__((noreturn))
probe_child(const struct spawner *sp, int gate, int status)
{
    struct err e = ERR_INIT;
    char go;
    if (read(gate, &go, 1) != 1) {
        _exit(1);
    }
    char *argv[] = { (char *)sp->emulator, (char *)"--version", NULL };
    char *envp[] = { NULL };
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, 0);
    dup2(null, 1);
    dup2(status, 2); /* what it has to say about itself, such as a library that is missing */
    if (jail_enter(sp, 0, &e) == 0) {
        syscall(SYS_execveat, sp->emulator_fd, "", argv, envp, AT_EMPTY_PATH);
        if (errno == ENOENT) {
            execve(sp->emulator, argv, envp);
        }
        err_errno(&e, errno, "cannot execute it");
    }
    ssize_t n = write(status, e.msg, strlen(e.msg));
    _exit(n > 0 ? 1 : 2);
}

/* What the child says until it ends or `end` has come: why it cannot be executed, or its own last words. */
static void probe_read(int fd, int64_t end, char *why, size_t size)
{
    size_t got = 0;
    for (;;) {
        int64_t left = (end - time_mono_ns()) / 1000000;
        struct pollfd p = { .fd = fd, .events = POLLIN };
        int rc = left > 0 ? poll(&p, 1, (int)left) : 0;
        if (rc < 0 && errno == EINTR) {
            continue;
        }
        char drop[64];
        bool full = got >= size - 1;
        ssize_t n = rc > 0 ? read(fd, full ? drop : why + got,
                                  full ? sizeof(drop) : size - 1 - got)
                           : 0;
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            break;
        }
        got += full ? 0 : (size_t)n;
    }
    why[got] = 0;
    why[strcspn(why, "\n")] = 0;
}

static int probe_wait(pid_t pid, int status, char *why, size_t size)
{
    int64_t end = time_mono_ns() + PROBE_NS;
    int w = -1;
    probe_read(status, end, why, size);
    while (waitpid(pid, &w, WNOHANG) == 0) {
        if (time_mono_ns() > end) {
            kill(pid, SIGKILL);
            waitpid(pid, &w, 0);
            snprintf(why, size, "it did not answer --version within %d s",
                     (int)(PROBE_NS / 1000000000));
            return -1;
        }
        usleep(1000);
    }
    if (WIFEXITED(w) && WEXITSTATUS(w) == 0) {
        return 0;
    }
    if (!why[0]) {
        snprintf(why, size, WIFSIGNALED(w) ? "it was ended by signal %d" : "it exited with %d",
                 WIFSIGNALED(w) ? WTERMSIG(w) : WEXITSTATUS(w));
    }
    return -1;
}

/* Does the emulator run with the layers that are active now? */
static int probe(const struct spawner *sp, char *why, size_t size)
{
    int gate[2], status[2];
    struct err e = ERR_INIT;
    if (pipe2(gate, O_CLOEXEC) < 0) {
        return -1;
    }
    AUTO_FD gate_r = gate[0], gate_w = gate[1];
    if (pipe2(status, O_CLOEXEC) < 0) {
        return -1;
    }
    AUTO_FD status_r = status[0], status_w = status[1];
    struct clone_args args = { .flags = jail_clone_flags(sp), .exit_signal = SIGCHLD };
    pid_t pid = args.flags ? (pid_t)syscall(SYS_clone3, &args, sizeof(args)) : fork();
    if (pid < 0) {
        snprintf(why, size, "the kernel refuses: %s", strerror(errno));
        return -1;
    }
    if (pid == 0) {
        close(gate_w);
        close(status_r);
        probe_child(sp, gate_r, status_w);
    }
    close(take_fd(&status_w));
    int rc = jail_map_ids(sp, pid, 0, &e);
    if (rc < 0) {
        snprintf(why, size, "%s", e.msg);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return -1;
    }
    if (write(gate_w, "g", 1) != 1) {
        return -1;
    }
    return probe_wait(pid, status_r, why, size);
}

/* Builds it up one layer at a time; needs an emulator that runs without any. */
static void probe_each(struct spawner *sp, char *why, size_t size)
{
    for (unsigned i = LAYER_USER; i < LAYER_COUNT; i++) {
        if (i == LAYER_ROOT && !on(sp, LAYER_MOUNT)) {
            str_copy(sp->layer[i].reason, sizeof(sp->layer[i].reason), "needs mount-namespace");
            continue;
        }
        sp->layer[i].active = true;
        if (probe(sp, why, size) < 0) {
            sp->layer[i].active = false;
            snprintf(sp->layer[i].reason, sizeof(sp->layer[i].reason),
                     "the emulator does not run in it: %.120s", why);
        }
    }
}

static int no_emulator(struct spawner *sp, const char *why, struct err *e)
{
    for (unsigned i = 0; i < LAYER_COUNT; i++) {
        sp->layer[i].active = false;
        str_copy(sp->layer[i].reason, sizeof(sp->layer[i].reason),
                 "not tried: the emulator does not run");
    }
    return err_set(e, -ENOEXEC, "the emulator '%s' does not run: %s", sp->emulator, why);
}

/* What exec itself would not say before the jail is built, or in words that help nobody. */
static int open_emulator(struct spawner *sp, char *why, size_t size)
{
    struct stat st;
    fd_autoclose(&sp->emulator_fd);
    sp->emulator_fd = open(sp->emulator, O_PATH | O_CLOEXEC);
    if (sp->emulator_fd < 0 || fstat(sp->emulator_fd, &st) < 0) {
        snprintf(why, size, "%s", strerror(errno));
        return -1;
    }
    if (!S_ISREG(st.st_mode) || access(sp->emulator, X_OK) < 0) {
        snprintf(why, size, S_ISREG(st.st_mode) ? "it is not executable" : "it is no file");
        return -1;
    }
    return 0;
}

int jail_probe(struct spawner *sp, struct err *e)
{
    char why[160] = "";
    if (open_emulator(sp, why, sizeof(why)) < 0) {
        return no_emulator(sp, why, e);
    }
    for (unsigned i = 0; i < LAYER_COUNT; i++) {
        sp->layer[i].active = true;
        sp->layer[i].reason[0] = 0;
    }
    if (probe(sp, why, sizeof(why)) < 0) {
        for (unsigned i = LAYER_USER; i < LAYER_COUNT; i++) {
            sp->layer[i].active = false;
        }
        if (probe(sp, why, sizeof(why)) < 0) {
            return no_emulator(sp, why, e);
        }
        probe_each(sp, why, sizeof(why));
    }
    sp->tried = true;
    return 0;
}
