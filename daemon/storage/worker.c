/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmd-image: `vmd-image PID DIR PROGRAM ARGS...` runs a program that can reach the files below DIR and, to read, those of
 * the system's libraries; no others, whatever an image it opens says. `vmd-image PID --lvm PROGRAM ARGS...` runs lvm, which
 * can reach block devices and its own files, for two minutes. Ends with the process PID that started it. No loop, no thread.
 *
 * Landlock where the kernel has it; no new privileges, no capabilities but those for files, no network, bounded
 * memory and descriptors everywhere.
 */
#include "daemon/storage/worker.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What checks a program while it runs maps terabytes and reads /proc. */
#if defined(__SANITIZE_ADDRESS__)
#define CHECKED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CHECKED 1
#endif
#endif
#ifndef CHECKED
#define CHECKED 0
#endif

#define READ_RIGHTS                                                                            \
    (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define WRITE_RIGHTS                                                                           \
    (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE |                            \
     LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |                            \
     LANDLOCK_ACCESS_FS_MAKE_REG)
enum { LVM_SECONDS = 120 };
/* Version 1: what every kernel that has Landlock knows. */
#define ALL_RIGHTS ((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1)

static int allow(int rules, const char *path, unsigned long long rights)
{
    struct landlock_path_beneath_attr a = { .allowed_access = rights };
    a.parent_fd = open(path, O_PATH | O_CLOEXEC);
    if (a.parent_fd < 0) {
        return errno == ENOENT ? 0 : -1;
    }
    int rc = (int)syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &a, 0);
    close(a.parent_fd);
    return rc;
}

/* Where lvm makes nodes and keeps locks and the copies of its metadata. */
static int allow_lvm(int rules)
{
    static const char *const writable[] = { "/dev", "/run", "/etc/lvm", "/var/lib/lvm" };
    int rc = allow(rules, "/sys", READ_RIGHTS);
    rc = rc == 0 ? allow(rules, "/proc", READ_RIGHTS) : rc;
    for (unsigned i = 0; rc == 0 && i < ARRAY_LEN(writable); i++) {
        rc = allow(rules, writable[i], ALL_RIGHTS & ~LANDLOCK_ACCESS_FS_EXECUTE);
    }
    return rc == 0 ? allow(rules, "/etc/lvm", READ_RIGHTS) : rc;
}

/* 0 also when the kernel has none: the daemon's own checks of names hold then. */
static int lock_in(const char *dir, const char *program)
{
    static const char *const readable[] = { "/usr", "/lib", "/lib64", "/etc/ld.so.cache",
                                            "/proc" };
    struct landlock_ruleset_attr a = { .handled_access_fs = ALL_RIGHTS };
    int rules = (int)syscall(SYS_landlock_create_ruleset, &a, sizeof(a), 0);
    if (rules < 0) {
        return errno == ENOSYS || errno == EOPNOTSUPP ? 0 : -1;
    }
    int rc = strcmp(dir, WORKER_LVM) == 0 ? allow_lvm(rules) : allow(rules, dir, WRITE_RIGHTS);
    if (rc == 0) {
        rc = allow(rules, program, LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE);
    }
    if (rc == 0) {
        rc = allow(rules, "/dev/null",
                   LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE);
    }
    for (unsigned i = 0; rc == 0 && i < ARRAY_LEN(readable) - !CHECKED; i++) {
        unsigned long long rights = i == 3 ? LANDLOCK_ACCESS_FS_READ_FILE : READ_RIGHTS;
        rc = allow(rules, readable[i], rights);
    }
    return rc == 0 ? (int)syscall(SYS_landlock_restrict_self, rules, 0) : rc;
}

/* What lvm needs for the device mapper, its nodes and to stay in memory meanwhile. */
static bool is_lvms(unsigned long cap)
{
    return cap == CAP_SYS_ADMIN || cap == CAP_MKNOD || cap == CAP_IPC_LOCK ||
           cap == CAP_SYS_NICE || cap == CAP_CHOWN || cap == CAP_IPC_OWNER;
}

static void drop(bool lvm)
{
    const struct rlimit none = { 0, 0 }, files = { 256, 256 };
    const struct rlimit memory = { 4ull << 30, 4ull << 30 };
    for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++) {
        if (cap != CAP_DAC_OVERRIDE && cap != CAP_DAC_READ_SEARCH && cap != CAP_FOWNER &&
            !(lvm && is_lvms(cap))) {
            (void)prctl(PR_CAPBSET_DROP, cap); /* without the right to, there are none anyway */
        }
    }
    (void)unshare(CLONE_NEWNET);
    setrlimit(RLIMIT_CORE, &none);
    setrlimit(RLIMIT_NOFILE, &files);
    if (!CHECKED) {
        setrlimit(RLIMIT_AS, &memory);
    }
}

int main(int argc, char **argv)
{
    static char *const clean[] = { (char *)"PATH=/usr/bin:/bin", (char *)"LC_ALL=C.UTF-8",
                                   (char *)"LVM_SUPPRESS_FD_WARNINGS=1", NULL };
    const bool lvm = argc > 2 && strcmp(argv[2], WORKER_LVM) == 0;
    if (argc < 4) {
        fprintf(stderr, "usage: vmd-image PID DIR PROGRAM ARGS...\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != atoi(argv[1])) {
        return 1; /* it had ended before */
    }
    drop(lvm);
    if (lvm) {
        alarm(LVM_SECONDS);
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || lock_in(argv[2], argv[3]) < 0) {
        fprintf(stderr, "cannot confine the work on images: %s\n", strerror(errno));
        return 1;
    }
    execve(argv[3], argv + 3, clean);
    fprintf(stderr, "cannot run '%s': %s\n", argv[3], strerror(errno));
    return 1;
}
