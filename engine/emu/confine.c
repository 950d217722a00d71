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

#ifdef VMD_SANITIZERS

static int load_filter(enum confine_kind kind, unsigned *calls, struct err *e)
{
    (void)kind, (void)calls;
    return err_set(e, -ENOTSUP, "this build has sanitizers, which need more system calls");
}

#else

#define REGISTER_FILES_UPDATE 6 /* IORING_REGISTER_FILES_UPDATE, linux/io_uring.h */

/* What every thread needs: memory for malloc, locks, time, waking the loop, log lines, its
 * end. */
static const int common_calls[] = {
    SCMP_SYS(futex),
    SCMP_SYS(write),
    SCMP_SYS(munmap),
    SCMP_SYS(madvise),
    SCMP_SYS(brk),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(getpid),
};
static const int vcpu_calls[] = {
    SCMP_SYS(sched_yield),
    SCMP_SYS(getrandom),
};
static const int io_calls[] = {
    SCMP_SYS(preadv),    SCMP_SYS(pwritev), SCMP_SYS(pwrite64), SCMP_SYS(fdatasync),
    SCMP_SYS(fallocate), SCMP_SYS(mremap),  SCMP_SYS(lseek), /* block jobs ask where data lies */
};
static const int main_calls[] = {
    /* the loop */
    SCMP_SYS(read),
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(timerfd_settime),
    SCMP_SYS(poll),
    SCMP_SYS(close),
    /* control and console sockets */
    SCMP_SYS(accept4),
    SCMP_SYS(sendto),
    SCMP_SYS(recvfrom),
    SCMP_SYS(recvmsg), /* files that the daemon hands to a running VM */
    SCMP_SYS(readv),
    SCMP_SYS(writev),
    SCMP_SYS(shutdown),
    SCMP_SYS(getsockopt),
    /* kernel images at a reset, statistics, the console log */
    SCMP_SYS(pread64),
    SCMP_SYS(lseek),
    SCMP_SYS(newfstatat),
    SCMP_SYS(fstat),
    SCMP_SYS(ftruncate),
    SCMP_SYS(getrandom),
    SCMP_SYS(mremap),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(clock_nanosleep), /* an image's lock is asked for again */
    /* the restricted ring of storage/uring.c: reads and writes of files it was given */
    SCMP_SYS(io_uring_enter),
};

static int allow_all(scmp_filter_ctx ctx, const int *calls, size_t n, unsigned *count)
{
    int rc = 0;

    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, calls[i], 0);
        (*count)++;
    }
    return rc;
}

/* Allows a call when (argument `arg` & mask) is value. */
static int allow_if(scmp_filter_ctx ctx, int call, unsigned arg, uint64_t mask, uint64_t value)
{
    const struct scmp_arg_cmp cmp = {
        .arg = arg, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value
    };

    return seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, call, 1, &cmp);
}

/* Memory may be mapped and its protection changed, but never to be executable: translated code
 * lives in mappings made before. Of ioctl and fcntl only what libevent and the sockets need. */
static int allow_conditional(scmp_filter_ctx ctx, enum confine_kind kind, unsigned *count)
{
    /* The last four: locks of images that are opened while the VM runs. */
    static const unsigned fcntls[] = {
        F_GETFL,     F_SETFL, F_GETFD, F_SETFD,        F_OFD_SETLK,
        F_OFD_GETLK, F_SETLK, F_GETLK, F_DUPFD_CLOEXEC /* new images in files that were passed */
    };
    int rc = allow_if(ctx, SCMP_SYS(mmap), 2, PROT_EXEC, 0);

    if (rc == 0) {
        rc = allow_if(ctx, SCMP_SYS(mprotect), 2, PROT_EXEC, 0);
    }
    *count += 2;
    if (rc == 0 && kind == CONFINE_MAIN) {
        rc = allow_if(ctx, SCMP_SYS(ioctl), 1, UINT32_MAX, FIONREAD);
        for (unsigned i = 0; i < ARRAY_LEN(fcntls) && rc == 0; i++) {
            rc = allow_if(ctx, SCMP_SYS(fcntl), 1, UINT32_MAX, fcntls[i]);
        }
        if (rc == 0) {
            rc = allow_if(ctx, SCMP_SYS(io_uring_register), 1, UINT32_MAX,
                          REGISTER_FILES_UPDATE);
        }
        *count += 3;
    }
    return rc;
}

static int load_filter(enum confine_kind kind, unsigned *calls, struct err *e)
{
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int rc;

    if (!ctx) {
        return err_set(e, -ENOTSUP, "libseccomp cannot make a filter");
    }
    rc = allow_all(ctx, common_calls, ARRAY_LEN(common_calls), calls);
    if (rc == 0) {
        rc = allow_conditional(ctx, kind, calls);
    }
    if (rc == 0 && kind == CONFINE_MAIN) {
        rc = allow_all(ctx, main_calls, ARRAY_LEN(main_calls), calls);
    }
    if (rc == 0 && kind != CONFINE_VCPU) { /* the main thread closes images: their metadata */
        rc = allow_all(ctx, io_calls, ARRAY_LEN(io_calls), calls);
    }
    if (rc == 0 && kind == CONFINE_VCPU) {
        rc = allow_all(ctx, vcpu_calls, ARRAY_LEN(vcpu_calls), calls);
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
    rc = load_filter(kind, &calls, &why);
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
