/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Confinement of the emulator from within (the jail around it is the spawner's): no new
 * privileges, no core dumps and no ptrace by equals, limits, and a system-call allowlist for
 * each kind of thread, default kill. Each layer is tried and its outcome kept for people. Each
 * thread confines itself before it does anything for the guest.
 */
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/emu/emu.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <malloc.h>
#include <pthread.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define MAX_FILES 1024

static const char *const kind_names[] = {
    [CONFINE_MAIN] = "seccomp-main",
    [CONFINE_IO] = "seccomp-io",
    [CONFINE_VCPU] = "seccomp-vcpu",
    [CONFINE_PAGER] = "seccomp-pager",
};

static void report(struct emu *m, const char *layer, bool on, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static void report(struct emu *m, const char *layer, bool on, const char *fmt, ...)
{
    va_list ap;

    if (m->confine.n >= CONFINE_LAYERS) {
        return;
    }
    m->confine.layer[m->confine.n].layer = layer;
    m->confine.layer[m->confine.n].on = on;
    va_start(ap, fmt);
    vsnprintf(m->confine.layer[m->confine.n].state, sizeof(m->confine.layer[0].state), fmt, ap);
    va_end(ap);
    m->confine.n++;
}

bool confine_wanted(const struct emu *m)
{
    return m->opt.sandbox >= SANDBOX_ON;
}

/* --- the process
 * ----------------------------------------------------------------------------- */

/* One layer that either holds or not; the reason is errno's. */
static int layer_done(struct emu *m, const char *layer, int rc, struct err *e)
{
    int why = errno;

    report(m, layer, rc == 0, "%s%s", rc == 0 ? "on" : "off: ", rc == 0 ? "" : strerror(why));
    if (rc != 0 && m->opt.sandbox == SANDBOX_REQUIRE) {
        return err_errno(e, why, "sandbox: %s", layer);
    }
    return 0;
}

static int limit(int what, rlim_t soft)
{
    struct rlimit r;

    if (getrlimit((__rlimit_resource_t)what, &r) != 0) {
        return -1;
    }
    if (soft < r.rlim_max || r.rlim_max == RLIM_INFINITY) {
        r.rlim_cur = r.rlim_max = soft;
    }
    return setrlimit((__rlimit_resource_t)what, &r);
}

int confine_process(struct emu *m, struct err *e)
{
    char name[16];
    int rc;

    /* One malloc arena: the C library opens files in /proc and /sys when it makes a thread's
     * own or gives one's memory back, and the filters end a process that opens a file. */
    mallopt(M_ARENA_MAX, 1);
    /* Image locks of other VMs find us by this name (storage/lock.c). */
    snprintf(name, sizeof(name), "vm:%s", m->config.name);
    (void)prctl(PR_SET_NAME, name, 0, 0, 0);
    if (!confine_wanted(m)) {
        report(m, "sandbox", false, "off: not asked for");
        return 0;
    }
    tzset(); /* the log's times: the file is read now or never */
    rc = layer_done(m, "no-new-privs", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), e);
    if (rc == 0) {
        rc = layer_done(m, "not-dumpable", prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), e);
    }
    if (rc == 0) {
        rc = layer_done(m, "limits", limit(RLIMIT_CORE, 0) | limit(RLIMIT_NOFILE, MAX_FILES),
                        e);
    }
    return rc;
}

/* --- threads
 * --------------------------------------------------------------------------------- */

#ifdef __NR_epoll_wait
#define CALL_EPOLL SCMP_SYS(epoll_wait)
#else /* architectures that came later have only the general form */
#define CALL_EPOLL SCMP_SYS(epoll_pwait)
#endif

enum {
    ON_MAIN = 1 << CONFINE_MAIN,
    ON_IO = 1 << CONFINE_IO,
    ON_VCPU = 1 << CONFINE_VCPU,
    ON_PAGER = 1 << CONFINE_PAGER
};
enum { ON_ALL = ON_MAIN | ON_IO | ON_VCPU | ON_PAGER };

/* A call that one of the threads may make. One row is one call, which may be narrowed by rows of narrowed[]. */
struct allowed {
    int call;
    unsigned on; /* which threads */
};

/* What every VM needs, hotplug included: a filter can never be widened again. The bounds are 35 calls for the main thread, 30 for
 * storage, 20 for a vCPU and for the pager (tests/emu/confine_test.c). A call that only one place needs at run time is better replaced there by one
 * that is allowed anyway, or made before the filters close. Left out on purpose, with what is used in their place:
 *   pread64, pwrite64          fd_pread(), fd_pwrite(), by preadv and pwritev
 *   rt_sigaction, rt_sigreturn signals are read from a descriptor
 *   getpid, clock_nanosleep    asked once; a condition with a deadline
 *   readv, recvmmsg            read, recvfrom, recvmsg
 *   ioctl, dup, pipe, socket   descriptors come ready from the spawner; the size of a device by lseek */
static const struct allowed allowed[] = {
    /* memory, locks, time, log lines and waking others, the end */
    { SCMP_SYS(futex), ON_ALL },
    { SCMP_SYS(write), ON_ALL },
    { SCMP_SYS(mmap), ON_ALL }, /* narrowed */
    { SCMP_SYS(munmap), ON_ALL },
    { SCMP_SYS(madvise), ON_ALL },
    { SCMP_SYS(brk), ON_ALL },
    { SCMP_SYS(clock_gettime),
      ON_ALL }, /* clocks of processors, and hosts without a page for the others */
    { SCMP_SYS(restart_syscall), ON_ALL }, /* a wait that SIGSTOP interrupted */
    { SCMP_SYS(exit_group), ON_ALL },
    { SCMP_SYS(exit), ON_IO | ON_VCPU | ON_PAGER },
    { SCMP_SYS(rt_sigprocmask), ON_IO | ON_VCPU | ON_PAGER }, /* a thread's end */
    { SCMP_SYS(sched_yield), ON_VCPU },
    { SCMP_SYS(getrandom), ON_MAIN | ON_VCPU },
    /* the loop */
    { SCMP_SYS(read), ON_MAIN | ON_PAGER },
    { CALL_EPOLL, ON_MAIN },
    { SCMP_SYS(epoll_ctl), ON_MAIN },
    { SCMP_SYS(timerfd_settime), ON_MAIN | ON_VCPU }, /* of a vCPU: the guest's own timers */
    { SCMP_SYS(poll), ON_MAIN | ON_IO | ON_PAGER },
    { SCMP_SYS(close), ON_MAIN },
    { SCMP_SYS(fcntl), ON_MAIN }, /* narrowed */
    /* sockets: control, consoles, network cards, exports; files that the daemon hands to a running VM */
    { SCMP_SYS(accept4), ON_MAIN },
    { SCMP_SYS(getsockopt), ON_MAIN },
    { SCMP_SYS(sendto), ON_MAIN },
    { SCMP_SYS(recvfrom),
      ON_MAIN | ON_IO }, /* ON_IO, with poll and writev: disks of NBD servers */
    { SCMP_SYS(recvmsg), ON_MAIN },
    { SCMP_SYS(writev), ON_MAIN | ON_IO },
    { SCMP_SYS(shutdown), ON_MAIN },
    /* images and logs; the main thread writes metadata when it closes an image */
    { SCMP_SYS(preadv), ON_MAIN | ON_IO | ON_PAGER },
    { SCMP_SYS(pwritev), ON_MAIN | ON_IO | ON_PAGER },
    { SCMP_SYS(fdatasync), ON_MAIN | ON_IO },
    { SCMP_SYS(fallocate), ON_MAIN | ON_IO },
    { SCMP_SYS(lseek), ON_MAIN | ON_IO | ON_PAGER }, /* block jobs ask where data lies */
    { SCMP_SYS(ftruncate), ON_MAIN },
    { SCMP_SYS(newfstatat), ON_MAIN },        /* narrowed; fstat() of this C library */
    { SCMP_SYS(io_uring_enter), ON_MAIN },    /* the restricted ring of storage/uring.c */
    { SCMP_SYS(io_uring_register), ON_MAIN }, /* narrowed */
    { SCMP_SYS(ioctl), ON_PAGER },            /* narrowed: userfaultfd */
};

/* What a feature alone needs: allowed where the VM is configured with it when it starts (a feature that can be added to a
 * running VM has its calls above). All together keep to the bounds above. */
static bool on_terminal(const struct emu *m)
{
    return m->opt.console == CONSOLE_STDIO;
}

static bool by_kvm(const struct emu *m)
{
    return m->kvm.pid != 0;
}

static bool on_terminal_or_kvm(const struct emu *m)
{
    return on_terminal(m) || by_kvm(m);
}

/* Not beside KVM: shares_open() refuses it, so that no thread may make more calls than the bounds say. */
static bool by_vhost(const struct emu *m)
{
    return m->vhost;
}

static bool by_io_threads(const struct emu *m)
{
    return m->config.io_threads > 0;
}

static const struct feature {
    const char *name;
    bool (*wanted)(const struct emu *m);
    struct allowed calls[4];
} features[] = {
    { "console on a terminal, or KVM", on_terminal_or_kvm, { { SCMP_SYS(ioctl), ON_MAIN } } },
    { "KVM",
      by_kvm,
      { { SCMP_SYS(ioctl), ON_VCPU },
        { SCMP_SYS(tgkill), ON_MAIN | ON_VCPU },
        { SCMP_SYS(rt_sigtimedwait), ON_VCPU } } },
    { "I/O threads",
      by_io_threads,
      { { SCMP_SYS(io_uring_enter), ON_IO }, { SCMP_SYS(read), ON_IO } } },
    { "shared folders by vhost-user", by_vhost, { { SCMP_SYS(sendmsg), ON_MAIN } } },
};

/* The next call of a kind of thread, or NULL; *at begins as 0. */
static const struct allowed *next_call(const struct emu *m, enum confine_kind kind,
                                       unsigned *at)
{
    const unsigned per = ARRAY_LEN(features[0].calls);

    while (*at < ARRAY_LEN(allowed) + ARRAY_LEN(features) * per) {
        unsigned i = (*at)++;
        const struct allowed *a = i < ARRAY_LEN(allowed) ? &allowed[i] : NULL;

        if (!a) {
            const struct feature *f = &features[(i - ARRAY_LEN(allowed)) / per];

            a = &f->calls[(i - ARRAY_LEN(allowed)) % per];
            if (!f->wanted(m)) {
                continue;
            }
        }
        if (a->on & 1u << kind) {
            return a;
        }
    }
    return NULL;
}

unsigned confine_calls(const struct emu *m, enum confine_kind kind, int *call, unsigned n)
{
    const struct allowed *a;
    unsigned at = 0, count = 0;

    while ((a = next_call(m, kind, &at)) != NULL) {
        if (count < n) {
            call[count] = a->call;
        }
        count++;
    }
    return count;
}

#ifdef VMD_SANITIZERS

static int load_filter(const struct emu *m, enum confine_kind kind, unsigned *calls,
                       struct err *e)
{
    (void)m, (void)kind, (void)calls;
    return err_set(e, -ENOTSUP, "this build has sanitizers, which need more system calls");
}

#else

#define REGISTER_FILES_UPDATE 6 /* IORING_REGISTER_FILES_UPDATE, linux/io_uring.h */

/* Only when (argument `arg` & mask) is value; several rows of one call: any of them. Memory may be mapped, but never to be
 * executable: translated code lives in mappings made before. Of fcntl what libevent and the sockets need. */
static const struct {
    int call;
    unsigned arg;
    uint64_t mask, value;
    unsigned on;                         /* which threads; 0: all that may make the call */
    bool (*wanted)(const struct emu *m); /* NULL: always */
} narrowed[] = {
    { SCMP_SYS(mmap), 2, PROT_EXEC, 0, 0, NULL },
    { SCMP_SYS(fcntl), 1, UINT32_MAX, F_GETFL, 0, NULL },
    { SCMP_SYS(fcntl), 1, UINT32_MAX, F_SETFL, 0, NULL },
    { SCMP_SYS(fcntl), 1, UINT32_MAX, F_GETFD, 0, NULL },
    { SCMP_SYS(fcntl), 1, UINT32_MAX, F_SETFD, 0, NULL },
    { SCMP_SYS(fcntl), 1, UINT32_MAX, F_OFD_SETLK, 0,
      NULL }, /* locks of images that are opened while the VM runs */
    { SCMP_SYS(fcntl), 1, UINT32_MAX, F_OFD_GETLK, 0, NULL },
    { SCMP_SYS(fcntl), 1, UINT32_MAX, F_SETLK, 0, NULL },
    { SCMP_SYS(fcntl), 1, UINT32_MAX, F_GETLK, 0, NULL },
    { SCMP_SYS(fcntl), 1, UINT32_MAX, F_DUPFD_CLOEXEC, 0,
      NULL }, /* new images in files that were passed */
    { SCMP_SYS(newfstatat), 3, UINT32_MAX, AT_EMPTY_PATH, 0, NULL },
    { SCMP_SYS(io_uring_register), 1, UINT32_MAX, REGISTER_FILES_UPDATE, 0, NULL },
    { SCMP_SYS(ioctl), 1, UINT32_MAX, UFFDIO_REGISTER, ON_PAGER, NULL },
    { SCMP_SYS(ioctl), 1, UINT32_MAX, UFFDIO_UNREGISTER, ON_PAGER, NULL },
    { SCMP_SYS(ioctl), 1, UINT32_MAX, UFFDIO_WAKE, ON_PAGER, NULL },
    { SCMP_SYS(ioctl), 1, UINT32_MAX, UFFDIO_COPY, ON_PAGER, NULL },
    { SCMP_SYS(ioctl), 1, UINT32_MAX, UFFDIO_ZEROPAGE, ON_PAGER, NULL },
    { SCMP_SYS(ioctl), 1, UINT32_MAX, UFFDIO_WRITEPROTECT, ON_PAGER, NULL },
    { SCMP_SYS(ioctl), 1, UINT32_MAX, TCSETS, ON_MAIN,
      on_terminal }, /* the terminal gets back what it had */
};

/* Refused with an error that the C library has an answer to (it copies), and so neither allowed nor deadly. */
static const struct {
    int call, error;
} refused[] = {
    { SCMP_SYS(mremap), ENOMEM },
    { SCMP_SYS(getpid), ENOSYS },  /* openssl, to notice a fork: there is none */
    { SCMP_SYS(sysinfo), ENOSYS }, /* how much memory sorting may use */
};

static int allow_if(scmp_filter_ctx ctx, int call, unsigned arg, uint64_t mask, uint64_t value)
{
    const struct scmp_arg_cmp cmp = {
        .arg = arg, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value
    };

    return seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, call, 1, &cmp);
}

/* What threads of a running VM ask of KVM, and the one signal to threads of this process. */
static int allow_kvm(const struct emu *m, scmp_filter_ctx ctx, int call)
{
    const struct scmp_arg_cmp kick[] = { { .arg = 0,
                                           .op = SCMP_CMP_MASKED_EQ,
                                           .datum_a = UINT32_MAX,
                                           .datum_b = (uint32_t)m->pid },
                                         { .arg = 2,
                                           .op = SCMP_CMP_MASKED_EQ,
                                           .datum_a = UINT32_MAX,
                                           .datum_b = KVM_KICK_SIGNAL } };
    int rc = 0;

    if (call == SCMP_SYS(tgkill)) {
        return seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, call, ARRAY_LEN(kick), kick);
    }
    for (unsigned i = 0; i < kvm_n_requests && rc == 0; i++) {
        rc = allow_if(ctx, call, 1, UINT32_MAX, (uint32_t)kvm_requests[i]);
    }
    return rc;
}

/* Allows a call, whatever its arguments or as narrowed[] says. */
static int allow(const struct emu *m, scmp_filter_ctx ctx, enum confine_kind kind, int call)
{
    bool kvm = by_kvm(m) && kind != CONFINE_PAGER &&
               (call == SCMP_SYS(ioctl) || call == SCMP_SYS(tgkill));
    bool narrow = kvm;
    int rc = kvm ? allow_kvm(m, ctx, call) : 0;

    for (unsigned i = 0; i < ARRAY_LEN(narrowed) && rc == 0; i++) {
        if (narrowed[i].call != call || (narrowed[i].on && !(narrowed[i].on & 1u << kind)) ||
            (narrowed[i].wanted && !narrowed[i].wanted(m))) {
            continue;
        }
        narrow = true;
        rc = allow_if(ctx, call, narrowed[i].arg, narrowed[i].mask, narrowed[i].value);
    }
    return narrow ? rc : seccomp_rule_add(ctx, SCMP_ACT_ALLOW, call, 0);
}

static int load_filter(const struct emu *m, enum confine_kind kind, unsigned *calls,
                       struct err *e)
{
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
    const struct allowed *a;
    unsigned at = 0;
    int rc = 0;

    if (!ctx) {
        return err_set(e, -ENOTSUP, "libseccomp cannot make a filter");
    }
    while (rc == 0 && (a = next_call(m, kind, &at)) != NULL) {
        rc = allow(m, ctx, kind, a->call);
        (*calls)++;
    }
    for (unsigned i = 0; i < ARRAY_LEN(refused) && rc == 0; i++) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO((uint32_t)refused[i].error), refused[i].call,
                              0);
    }
    if (rc == 0) {
        rc = seccomp_load(ctx); /* this thread only */
    }
    seccomp_release(ctx);
    return rc == 0 ? 0 : err_errno(e, -rc, "seccomp");
}

#endif

int confine_thread(struct emu *m, enum confine_kind kind, struct err *e)
{
    unsigned calls = 0;
    struct err why = ERR_INIT;
    int rc;

    if (!confine_wanted(m)) {
        return 0;
    }
    rc = load_filter(m, kind, &calls, &why);
    atomic_store(&m->filter[kind], rc == 0 ? (int)calls : -1);
    if (rc != 0 && m->opt.sandbox == SANDBOX_REQUIRE) {
        return err_set(e, rc, "sandbox: %s: %s", kind_names[kind], why.msg);
    }
    if (rc != 0) {
        log_info("emu", "sandbox: %s is off: %s", kind_names[kind], why.msg);
    }
    return 0;
}

unsigned confine_describe(const struct emu *m, char **lines, unsigned n)
{
    unsigned count = 0;

    for (unsigned i = 0; i < m->confine.n && count < n; i++) {
        lines[count++] = xasprintf("%s: %s", m->confine.layer[i].layer,
                                   m->confine.layer[i].state);
    }
    for (unsigned k = 0; k < ARRAY_LEN(kind_names) && count < n; k++) {
        int calls = atomic_load(&((struct emu *)(uintptr_t)m)->filter[k]);

        if (calls > 0) {
            lines[count++] = xasprintf("%s: on (%d system calls)", kind_names[k], calls);
        } else if (calls < 0) {
            lines[count++] = xasprintf("%s: off: the filter could not be loaded",
                                       kind_names[k]);
        }
    }
    return count;
}

/* A thread that must be confined and cannot be must not run. */
static void confine_or_die(struct emu *m, enum confine_kind kind)
{
    struct err e = ERR_INIT;

    if (confine_thread(m, kind, &e) != 0) {
        log_error("emu", "%s", e.msg);
        _exit(EMU_EXIT_INTERNAL);
    }
}

void confine_io_thread(void *emu)
{
    confine_or_die(emu, CONFINE_IO);
}

void confine_vcpu_thread(void *emu, struct vcpu *c)
{
    (void)c;
    confine_or_die(emu, CONFINE_VCPU);
}

void confine_pager_thread(struct emu *m)
{
    confine_or_die(m, CONFINE_PAGER);
}
