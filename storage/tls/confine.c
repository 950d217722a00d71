/* SPDX-License-Identifier: Apache-2.0 */
/* The system calls of vmd-tls: an allowlist, default kill. It opens nothing and makes no socket. One thread. */
#include "engine/base/mem.h"
#include "storage/tls/relay.h"

#include <errno.h>
#include <malloc.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#ifdef VMD_SANITIZERS

int confine_relay(struct err *e)
{
    (void)e;
    return 0; /* sanitizers need more */
}

#else

static const int calls[] = {
    SCMP_SYS(read),         SCMP_SYS(write),         SCMP_SYS(close),
    SCMP_SYS(poll),         SCMP_SYS(ppoll),         SCMP_SYS(getrandom),
    SCMP_SYS(getpid),       SCMP_SYS(clock_gettime), SCMP_SYS(time),
    SCMP_SYS(gettimeofday), SCMP_SYS(munmap),        SCMP_SYS(mremap),
    SCMP_SYS(madvise),      SCMP_SYS(brk),           SCMP_SYS(futex),
    SCMP_SYS(rt_sigreturn), SCMP_SYS(exit_group),    SCMP_SYS(restart_syscall),
};

int confine_relay(struct err *e)
{
    const struct scmp_arg_cmp no_exec = {
        .arg = 2, .op = SCMP_CMP_MASKED_EQ, .datum_a = PROT_EXEC, .datum_b = 0
    };
    scmp_filter_ctx ctx;
    int rc;

    mallopt(M_ARENA_MAX, 1);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) {
        return err_set(e, -EPERM, "cannot give up privileges");
    }
    ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
    rc = ctx ? 0 : -ENOMEM;
    for (size_t i = 0; i < ARRAY_LEN(calls) && rc == 0; i++) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, calls[i], 0);
    }
    rc = rc == 0 ? seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, &no_exec)
                 : rc;
    rc = rc == 0 ? seccomp_load(ctx) : rc;
    seccomp_release(ctx);
    return rc == 0 ? 0 : err_errno(e, -rc, "the filter of system calls cannot be loaded");
}

#endif
