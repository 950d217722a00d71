/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Escape acts: each kind of thread, once confined, tries what it must not do, and is killed for
 * it; what it needs it may still do. One child process for each act.
 */
#include "engine/base/buf.h"
#include "engine/base/mem.h"
#include "engine/emu/emu.h"
#include "tests/lib/testing.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
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
    /* files */
    { "openat to make one", SYS_openat, AT_FDCWD, 0, O_CREAT | O_WRONLY, 0600 },
    { "open_by_handle_at", SYS_open_by_handle_at, AT_FDCWD, 0, 0, 0 },
    { "name_to_handle_at", SYS_name_to_handle_at, AT_FDCWD, 0, 0, 0 },
    { "linkat", SYS_linkat, AT_FDCWD, 0, AT_FDCWD, 0 },
    { "symlinkat", SYS_symlinkat, 0, AT_FDCWD, 0, 0 },
    { "unlinkat", SYS_unlinkat, AT_FDCWD, 0, 0, 0 },
    { "renameat2", SYS_renameat2, AT_FDCWD, 0, AT_FDCWD, 0 },
    { "mkdirat", SYS_mkdirat, AT_FDCWD, 0, 0700, 0 },
    { "mknodat", SYS_mknodat, AT_FDCWD, 0, S_IFBLK | 0600, 0x800 },
    { "fchmod", SYS_fchmod, 0, 0777, 0, 0 },
    { "fchmodat", SYS_fchmodat, AT_FDCWD, 0, 0777, 0 },
    { "fchown", SYS_fchown, 0, 0, 0, 0 },
    { "fchownat", SYS_fchownat, AT_FDCWD, 0, 0, 0 },
    { "truncate", SYS_truncate, 0, 0, 0, 0 },
    { "utimensat", SYS_utimensat, AT_FDCWD, 0, 0, 0 },
    { "fsetxattr", SYS_fsetxattr, 0, 0, 0, 0 },
    { "readlinkat", SYS_readlinkat, AT_FDCWD, 0, 0, 0 },
    { "getdents64", SYS_getdents64, 0, 0, 0, 0 },
    { "getcwd", SYS_getcwd, 0, 0, 0, 0 },
    { "chdir", SYS_chdir, 0, 0, 0, 0 },
    { "fchdir", SYS_fchdir, 0, 0, 0, 0 },
    { "fstatat of a path", SYS_newfstatat, AT_FDCWD, 0, 0, 0 },
    { "statx", SYS_statx, AT_FDCWD, 0, 0, 0 },
    { "statfs", SYS_statfs, 0, 0, 0, 0 },
    { "inotify_init1", SYS_inotify_init1, 0, 0, 0, 0 },
    { "fanotify_init", SYS_fanotify_init, 0, 0, 0, 0 },
    { "fcntl F_SETLEASE", SYS_fcntl, 0, F_SETLEASE, F_WRLCK, 0 },
    { "fcntl F_NOTIFY", SYS_fcntl, 0, F_NOTIFY, 0, 0 },
    { "fcntl F_SETSIG", SYS_fcntl, 0, F_SETSIG, 9, 0 },
    { "fcntl F_SETPIPE_SZ", SYS_fcntl, 0, F_SETPIPE_SZ, 4096, 0 },
    { "umask", SYS_umask, 0, 0, 0, 0 },
    { "copy_file_range", SYS_copy_file_range, 0, 0, 1, 0 },
    { "sendfile", SYS_sendfile, 1, 0, 0, 1 },
    { "splice", SYS_splice, 0, 0, 1, 0 },
    { "vmsplice", SYS_vmsplice, 1, 0, 0, 0 },
    /* descriptors, sockets, devices */
    { "dup", SYS_dup, 0, 0, 0, 0 },
    { "dup3", SYS_dup3, 0, 100, 0, 0 },
    { "pipe2", SYS_pipe2, 0, 0, 0, 0 },
    { "socketpair", SYS_socketpair, 1, 1, 0, 0 },
    { "listen", SYS_listen, 0, 0, 0, 0 },
    { "sendmmsg", SYS_sendmmsg, 0, 0, 0, 0 },
    { "recvmmsg", SYS_recvmmsg, 0, 0, 0, 0 },
    { "ioctl TUNSETIFF", SYS_ioctl, 0, 0x400454ca, 0, 0 },
    { "ioctl KVM_CREATE_VM", SYS_ioctl, 0, 0xae01, 0, 0 },
    { "ioctl SIOCSIFADDR", SYS_ioctl, 0, 0x8916, 0, 0 },
    { "ioctl VHOST_SET_OWNER", SYS_ioctl, 0, 0xaf01, 0, 0 },
    { "ioctl FS_IOC_SETFLAGS", SYS_ioctl, 0, 0x40086602, 0, 0 },
    { "io_uring_register of a personality", SYS_io_uring_register, 0, 9, 0, 0 },
    { "io_uring_register of buffers", SYS_io_uring_register, 0, 0, 0, 0 },
    { "epoll_create1", SYS_epoll_create1, 0, 0, 0, 0 },
    { "timerfd_create", SYS_timerfd_create, 1, 0, 0, 0 },
    { "eventfd2", SYS_eventfd2, 0, 0, 0, 0 },
    /* other processes */
    { "tgkill", SYS_tgkill, 1, 1, 0, 0 },
    { "rt_sigqueueinfo", SYS_rt_sigqueueinfo, 1, 9, 0, 0 },
    { "pidfd_open", SYS_pidfd_open, 1, 0, 0, 0 },
    { "pidfd_getfd", SYS_pidfd_getfd, 0, 0, 0, 0 },
    { "pidfd_send_signal", SYS_pidfd_send_signal, 0, 9, 0, 0 },
    { "process_vm_writev", SYS_process_vm_writev, 1, 0, 0, 0 },
    { "kcmp", SYS_kcmp, 1, 1, 0, 0 },
    { "wait4", SYS_wait4, -1, 0, 0, 0 },
    { "setpriority", SYS_setpriority, 0, 0, 0, 0 },
    { "sched_setscheduler", SYS_sched_setscheduler, 0, 1, 0, 0 },
    { "sched_setaffinity", SYS_sched_setaffinity, 1, 0, 0, 0 },
    { "ioprio_set", SYS_ioprio_set, 1, 0, 0, 0 },
    { "process_madvise", SYS_process_madvise, 0, 0, 0, 0 },
    /* who it is */
    { "setgid", SYS_setgid, 0, 0, 0, 0 },
    { "setresuid", SYS_setresuid, 0, 0, 0, 0 },
    { "setgroups", SYS_setgroups, 0, 0, 0, 0 },
    { "setfsuid", SYS_setfsuid, 0, 0, 0, 0 },
    { "setsid", SYS_setsid, 0, 0, 0, 0 },
    { "personality", SYS_personality, 0x0040000, 0, 0, 0 },
    { "rt_sigaction", SYS_rt_sigaction, 11, 0, 0, 8 },
    { "add_key", SYS_add_key, 0, 0, 0, 0 },
    { "request_key", SYS_request_key, 0, 0, 0, 0 },
    /* the machine */
    { "umount2", SYS_umount2, 0, 0, 0, 0 },
    { "fsopen", SYS_fsopen, 0, 0, 0, 0 },
    { "open_tree", SYS_open_tree, AT_FDCWD, 0, 0, 0 },
    { "move_mount", SYS_move_mount, 0, 0, 0, 0 },
    { "mount_setattr", SYS_mount_setattr, AT_FDCWD, 0, 0, 0 },
    { "sethostname", SYS_sethostname, 0, 0, 0, 0 },
    { "clock_settime", SYS_clock_settime, 0, 0, 0, 0 },
    { "adjtimex", SYS_adjtimex, 0, 0, 0, 0 },
    { "finit_module", SYS_finit_module, 0, 0, 0, 0 },
    { "delete_module", SYS_delete_module, 0, 0, 0, 0 },
    { "kexec_load", SYS_kexec_load, 0, 0, 0, 0 },
    { "swapon", SYS_swapon, 0, 0, 0, 0 },
    { "acct", SYS_acct, 0, 0, 0, 0 },
    { "syslog", SYS_syslog, 3, 0, 0, 0 },
    /* memory and memory of others */
    { "shmat", SYS_shmat, 0, 0, 0, 0 },
    { "shmget", SYS_shmget, 0, 4096, 01777, 0 },
    { "msgget", SYS_msgget, 0, 01777, 0, 0 },
    { "mq_open", SYS_mq_open, 0, 0, 0, 0 },
    { "remap_file_pages", SYS_remap_file_pages, 0, 4096, 0, 0 },
    { "mprotect", SYS_mprotect, 0, 4096, PROT_READ, 0 },
    { "move_pages", SYS_move_pages, 1, 0, 0, 0 },
    { "mlock", SYS_mlock, 0, 4096, 0, 0 },
    { "landlock_create_ruleset", SYS_landlock_create_ruleset, 0, 0, 1, 0 },
    { "32-bit ABI", -1, 0, 0, 0, 0 },
};

/* The main thread is given files while the VM runs, and locks them. */
static bool may(int kind, const struct act *a)
{
    return kind == CONFINE_MAIN &&
           (a->call == SYS_recvmsg || (a->call == SYS_fcntl && a->b == F_OFD_SETLK));
}

static const char *const kinds[] = { "main", "io", "vcpu", "pager" };

/* What a VM has that its threads make more calls for. */
enum variant { PLAIN, WITH_KVM, VARIANTS };

static void set_variant(struct emu *m, enum variant v)
{
    m->opt.console = CONSOLE_STDIO; /* the terminal's call goes with both */
    if (v == WITH_KVM) {
        m->kvm.pid = m->pid = getpid();
    } else {
        m->vhost = true;
    }
}

static void confine_or_exit(enum confine_kind kind, enum variant v)
{
    struct emu *m = xnew(struct emu);
    struct err e = ERR_INIT;

    m->opt.sandbox = SANDBOX_REQUIRE;
    if (v != PLAIN) {
        set_variant(m, v);
    }
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
static int outcome(enum confine_kind kind, enum variant v, void (*fn)(const struct act *a),
                   const struct act *a)
{
    int status = 0;
    pid_t pid = fork();

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        confine_or_exit(kind, v);
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
    for (int i = 0; i < (CONFINE_PAGER + 1) * VARIANTS; i++) {
        int k = i / VARIANTS, status = outcome((enum confine_kind)k, i % VARIANTS, do_act, a);

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
    if (write(STDERR_FILENO, "", 0) != 0) {
        _exit(3);
    }
}

START_TEST(ordinary_work_is_allowed)
{
#ifdef VMD_SANITIZERS
    return;
#endif
    for (int k = CONFINE_MAIN; k <= CONFINE_PAGER; k++) {
        ck_assert_int_eq(outcome((enum confine_kind)k, PLAIN, ordinary, NULL), 0);
    }
}
END_TEST

/* What vCPUs of KVM are called out by, and asked for: reaches the kernel, which knows no such thread and no such descriptor. */
static void kick_and_ask(pid_t self)
{
    if (syscall(SYS_tgkill, self, INT32_MAX, KVM_KICK_SIGNAL) != -1 || errno != ESRCH) {
        _exit(4);
    }
    if (syscall(SYS_ioctl, -1, kvm_requests[0], 0) != -1 || errno != EBADF) {
        _exit(5);
    }
}

START_TEST(kvm_threads_may_kick_and_ask)
{
#ifdef VMD_SANITIZERS
    return;
#endif
    static const enum confine_kind both[] = { CONFINE_MAIN, CONFINE_VCPU };

    for (unsigned i = 0; i < ARRAY_LEN(both); i++) {
        int status = 0;
        pid_t pid = fork();

        ck_assert_int_ge(pid, 0);
        if (pid == 0) {
            pid_t self = getpid();

            confine_or_exit(both[i], WITH_KVM);
            kick_and_ask(self);
            _exit(0);
        }
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_int_eq(status, 0);
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

/* The promise is docs/SECURITY.md's; a hundred acts are tried above. */
START_TEST(each_thread_may_make_few_calls)
{
    static const unsigned most[] = { 35, 30, 20, 20 };

    ck_assert_uint_ge(ARRAY_LEN(acts), 100);
    for (int at = 0; at < (CONFINE_PAGER + 1) * VARIANTS; at++) {
        AUTO_FREE struct emu *m = xnew(struct emu);
        AUTO_BUF names = BUF_INIT;
        int calls[64], k = at / VARIANTS;

        set_variant(m, at % VARIANTS);
        unsigned n = confine_calls(m, (enum confine_kind)k, calls, ARRAY_LEN(calls));

        ck_assert_uint_le(n, ARRAY_LEN(calls));
        for (unsigned i = 0; i < n; i++) {
            char *name = seccomp_syscall_resolve_num_arch(seccomp_arch_native(), calls[i]);

            buf_printf(&names, " %s", name ? name : "?");
            free(name);
            for (unsigned j = 0; j < i; j++) {
                ck_assert_msg(calls[i] != calls[j], "%s has two rows", kinds[k]);
            }
        }
        printf("# a %s thread%s may make %u system calls of %u:%s\n", kinds[k],
               at % VARIANTS == WITH_KVM ? " of KVM" : "", n, most[k], names.data);
        ck_assert_msg(n <= most[k], "a %s thread may make %u calls", kinds[k], n);
    }
}
END_TEST

static Suite *suite_confine(void)
{
    Suite *s = suite_create("confine");
    TCase *t = tcase_create("seccomp");

    tcase_add_loop_test(t, each_escape_act_kills, 0, (int)ARRAY_LEN(acts));
    tcase_add_test(t, each_thread_may_make_few_calls);
    tcase_add_test(t, ordinary_work_is_allowed);
    tcase_add_test(t, kvm_threads_may_kick_and_ask);
    tcase_add_test(t, memory_of_another_thread_can_be_freed);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_confine, NULL);
}
