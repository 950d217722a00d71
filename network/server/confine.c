/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system calls of vmd-net: an allowlist, default kill. Sockets are of IPv4 and IPv6 only (raw ones cannot be asked for
 * without privileges, which the process has none of), files are opened for reading only, nothing is executed. One thread.
 */
#include "network/server/confine.h"

#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#ifdef VMD_SANITIZERS

static int load_filter(struct err *e)
{
    (void)e;
    return 0; /* sanitizers need more */
}

#else

static const int calls[] = {
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(readv),
    SCMP_SYS(writev),
    SCMP_SYS(close),
    SCMP_SYS(recvfrom),
    SCMP_SYS(sendto),
    SCMP_SYS(recvmsg),
    SCMP_SYS(sendmsg),
    SCMP_SYS(connect),
    SCMP_SYS(bind),
    SCMP_SYS(listen),
    SCMP_SYS(accept),
    SCMP_SYS(accept4),
    SCMP_SYS(shutdown),
    SCMP_SYS(getsockname),
    SCMP_SYS(getpeername),
    SCMP_SYS(getsockopt),
    SCMP_SYS(setsockopt),
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(timerfd_settime),
    SCMP_SYS(poll),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(time),
    SCMP_SYS(futex),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(brk),
    SCMP_SYS(newfstatat),
    SCMP_SYS(fstat),
    SCMP_SYS(stat),
    SCMP_SYS(lseek),
    SCMP_SYS(pread64),
    SCMP_SYS(getrandom),
    SCMP_SYS(getpid),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
};

/* Allows a call when (argument & mask) is value. */
static int allow_if(scmp_filter_ctx ctx, int call, unsigned arg, uint64_t mask, uint64_t value)
{
    const struct scmp_arg_cmp cmp = {
        .arg = arg, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value
    };

    return seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, call, 1, &cmp);
}

static int load_filter(struct err *e)
{
    static const struct {
        int call;
        unsigned arg;
        uint64_t mask, value;
    } when[] = {
        { SCMP_SYS(socket), 0, UINT32_MAX, AF_INET },
        { SCMP_SYS(socket), 0, UINT32_MAX, AF_INET6 },
        { SCMP_SYS(openat), 2, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY },
        { SCMP_SYS(mmap), 2, PROT_EXEC, 0 },
        { SCMP_SYS(mprotect), 2, PROT_EXEC, 0 },
        { SCMP_SYS(ioctl), 1, UINT32_MAX, FIONREAD },
        { SCMP_SYS(ioctl), 1, UINT32_MAX, FIONBIO },
        { SCMP_SYS(fcntl), 1, UINT32_MAX, F_GETFL },
        { SCMP_SYS(fcntl), 1, UINT32_MAX, F_SETFL },
        { SCMP_SYS(fcntl), 1, UINT32_MAX, F_GETFD },
        { SCMP_SYS(fcntl), 1, UINT32_MAX, F_SETFD },
    };
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int rc = ctx ? 0 : -ENOMEM;

    for (size_t i = 0; i < ARRAY_LEN(calls) && rc == 0; i++) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, calls[i], 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(when) && rc == 0; i++) {
        rc = allow_if(ctx, when[i].call, when[i].arg, when[i].mask, when[i].value);
    }
    if (rc == 0) {
        rc = seccomp_load(ctx);
    }
    seccomp_release(ctx);
    return rc == 0 ? 0 : err_errno(e, -rc, "the filter of system calls cannot be loaded");
}

#endif

int confine_net(struct err *e)
{
    struct rlimit core = { 0, 0 };

    mallopt(M_ARENA_MAX, 1);
    tzset(); /* the log's times: the file is read now or never */
    (void)setrlimit(RLIMIT_CORE, &core);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) {
        return err_errno(e, errno, "cannot give up privileges");
    }
    return load_filter(e);
}
