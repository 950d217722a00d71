/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Escape acts: each kind of thread, once confined, tries what it must not do, and is killed for
 * it; what it needs it may still do. One child process for each act.
 */
#include "engine/base/mem.h"
#include "engine/emu/emu.h"
#include "tests/lib/testing.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* The system call with these arguments; the filter must not let it reach the kernel. */
static const struct act {
    const char *name;
    long call;
    long a, b, c, d;
} acts[] = {
    { "openat", SYS_openat, AT_FDCWD, 0, O_RDONLY, 0 },
#ifdef SYS_open /* calls that newer architectures never had */
    { "open", SYS_open, 0, O_RDONLY, 0, 0 },
    { "creat", SYS_creat, 0, 0, 0, 0 },
    { "unlink", SYS_unlink, 0, 0, 0, 0 },
    { "rename", SYS_rename, 0, 0, 0, 0 },
    { "mkdir", SYS_mkdir, 0, 0, 0, 0 },
    { "chmod", SYS_chmod, 0, 0, 0, 0 },
    { "fork", SYS_fork, 0, 0, 0, 0 },
    { "vfork", SYS_vfork, 0, 0, 0, 0 },
#endif
    { "openat2", SYS_openat2, AT_FDCWD, 0, 0, 0 },
    { "execve", SYS_execve, 0, 0, 0, 0 },
    { "execveat", SYS_execveat, 0, 0, 0, 0 },
    { "clone", SYS_clone, SIGCHLD, 0, 0, 0 },
    { "clone3", SYS_clone3, 0, 0, 0, 0 },
    { "ptrace", SYS_ptrace, 0, 0, 0, 0 },
    { "process_vm_readv", SYS_process_vm_readv, 1, 0, 0, 0 },
    { "kill", SYS_kill, 1, 0, 0, 0 },
    { "tkill", SYS_tkill, 1, 0, 0, 0 },
    { "socket", SYS_socket, 1, 1, 0, 0 },
    { "connect", SYS_connect, 0, 0, 0, 0 },
    { "bind", SYS_bind, 0, 0, 0, 0 },
    { "sendmsg", SYS_sendmsg, 0, 0, 0, 0 },
    { "recvmsg", SYS_recvmsg, 0, 0, 0, 0 }, /* but see may() */
    { "mount", SYS_mount, 0, 0, 0, 0 },
    { "chroot", SYS_chroot, 0, 0, 0, 0 },
    { "pivot_root", SYS_pivot_root, 0, 0, 0, 0 },
    { "unshare", SYS_unshare, 0, 0, 0, 0 },
    { "setns", SYS_setns, 0, 0, 0, 0 },
    { "setuid", SYS_setuid, 0, 0, 0, 0 },
    { "capset", SYS_capset, 0, 0, 0, 0 },
    { "prctl", SYS_prctl, 0, 0, 0, 0 },
    { "seccomp", SYS_seccomp, 0, 0, 0, 0 },
    { "bpf", SYS_bpf, 0, 0, 0, 0 },
    { "perf_event_open", SYS_perf_event_open, 0, 0, 0, 0 },
    { "io_uring_setup", SYS_io_uring_setup, 1, 0, 0, 0 },
    { "userfaultfd", SYS_userfaultfd, 0, 0, 0, 0 },
    { "memfd_create", SYS_memfd_create, 0, 0, 0, 0 },
    { "keyctl", SYS_keyctl, 0, 0, 0, 0 },
    { "init_module", SYS_init_module, 0, 0, 0, 0 },
    { "reboot", SYS_reboot, 0, 0, 0, 0 },
    { "setrlimit", SYS_prlimit64, 0, 0, 0, 0 },
    { "ioctl TIOCSTI", SYS_ioctl, 0, 0x5412, 0, 0 },
    { "fcntl F_SETOWN", SYS_fcntl, 0, F_SETOWN, 1, 0 },
    { "fcntl F_OFD_SETLK", SYS_fcntl, 0, F_OFD_SETLK, 0, 0 },
    { "executable mapping", SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC,
      MAP_PRIVATE | MAP_ANONYMOUS },
    { "executable and writable", SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
      MAP_PRIVATE | MAP_ANONYMOUS },
    { "mprotect to executable", SYS_mprotect, 0, 4096, PROT_READ | PROT_EXEC, 0 },
    { "pkey_mprotect", SYS_pkey_mprotect, 0, 4096, PROT_EXEC, 0 },
    { "32-bit ABI", -1, 0, 0, 0, 0 },
};

/* The main thread is given files while the VM runs, and locks them. */
static bool may(int kind, const struct act *a)
{
    return kind == CONFINE_MAIN &&
           (a->call == SYS_recvmsg || (a->call == SYS_fcntl && a->b == F_OFD_SETLK));
}

static const char *const kinds[] = { "main", "io", "vcpu" };

static void confine_or_exit(enum confine_kind kind)
{
    struct emu *m = xnew(struct emu);
    struct err e = ERR_INIT;

    m->opt.sandbox = SANDBOX_REQUIRE;
    if (confine_process(m, &e) != 0 || confine_thread(m, kind, &e) != 0) {
        fprintf(stderr, "%s\n", e.msg);
        _exit(2);
    }
}

static void do_act(const struct act *a)
{
    long rc;

    if (a->call >= 0) {
        rc = syscall(a->call, a->a, a->b, a->c, a->d, -1L, 0L);
    } else {
#ifdef __x86_64__
        __asm__ volatile("int $0x80" : "=a"(rc) : "a"(20L) : "memory"); /* getpid of i386 */
#else
        raise(SIGSYS);
#endif
    }
    (void)rc;
}

/* How a child ends that is confined and then runs fn. */
static int outcome(enum confine_kind kind, void (*fn)(const struct act *a), const struct act *a)
{
    int status = 0;
    pid_t pid = fork();

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        confine_or_exit(kind);
        fn(a);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return status;
}

START_TEST(each_escape_act_kills)
{
    const struct act *a = &acts[_i];

#ifdef VMD_SANITIZERS
    return; /* no filter in such a build: they need other system calls */
#endif
    for (int k = CONFINE_MAIN; k <= CONFINE_VCPU; k++) {
        int status = outcome((enum confine_kind)k, do_act, a);

        ck_assert_msg(may(k, a) || (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS),
                      "%s thread survives %s: 0x%x", kinds[k], a->name, status);
    }
}
END_TEST

static void ordinary(const struct act *a)
{
    struct timespec t;
    char *big;

    (void)a;
    for (unsigned i = 0; i < 200; i++) { /* brk, mmap, mremap, munmap */
        big = malloc((size_t)1 << (i % 24));
        big[0] = 1;
        free(big);
    }
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
    if (write(STDERR_FILENO, "", 0) != 0 || getpid() <= 0) {
        _exit(3);
    }
}

START_TEST(ordinary_work_is_allowed)
{
#ifdef VMD_SANITIZERS
    return;
#endif
    for (int k = CONFINE_MAIN; k <= CONFINE_VCPU; k++) {
        ck_assert_int_eq(outcome((enum confine_kind)k, ordinary, NULL), 0);
    }
}
END_TEST

static void *blocks[64];

static void *allocate(void *arg)
{
    for (size_t i = 0; i < ARRAY_LEN(blocks); i++) {
        blocks[i] = memset(malloc(100000), 1, 100000);
    }
    return arg;
}

/* A thread's own arena would be trimmed here, which opens a file in /proc. */
START_TEST(memory_of_another_thread_can_be_freed)
{
#ifdef VMD_SANITIZERS
    return;
#endif
    int status = 0;
    pid_t pid = fork();

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        struct emu *m = xnew(struct emu);
        pthread_t thread;

        m->opt.sandbox = SANDBOX_REQUIRE;
        if (confine_process(m, NULL) != 0 ||
            pthread_create(&thread, NULL, allocate, NULL) != 0 ||
            pthread_join(thread, NULL) != 0 || confine_thread(m, CONFINE_MAIN, NULL) != 0) {
            _exit(2);
        }
        for (size_t i = ARRAY_LEN(blocks); i-- > 0;) {
            free(blocks[i]);
        }
        _exit(0);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
}
END_TEST

static Suite *suite_confine(void)
{
    Suite *s = suite_create("confine");
    TCase *t = tcase_create("seccomp");

    tcase_add_loop_test(t, each_escape_act_kills, 0, (int)ARRAY_LEN(acts));
    tcase_add_test(t, ordinary_work_is_allowed);
    tcase_add_test(t, memory_of_another_thread_can_be_freed);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_confine, NULL);
}
