/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system calls of vmd-share: an allowlist, default kill. What changes and asks files is there, relative to descriptors that it has;
 * no sockets are made, nothing is executed, no other process is touched. One thread.
 */
#include "storage/share/confine.h"

#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#ifdef VMD_SANITIZERS

int confine_share(struct err *e)
{
    (void)e;
    return 0; /* sanitizers need more */
}

#else

static const int calls[] = {
    SCMP_SYS(read),         SCMP_SYS(write),      SCMP_SYS(pread64),
    SCMP_SYS(pwrite64),     SCMP_SYS(close),      SCMP_SYS(lseek),
    SCMP_SYS(openat),       SCMP_SYS(openat2),    SCMP_SYS(newfstatat),
    SCMP_SYS(fstat),        SCMP_SYS(fstatfs),    SCMP_SYS(getdents64),
    SCMP_SYS(fchownat),     SCMP_SYS(fchmodat),   SCMP_SYS(utimensat),
    SCMP_SYS(ftruncate),    SCMP_SYS(mkdirat),    SCMP_SYS(mknodat),
    SCMP_SYS(symlinkat),    SCMP_SYS(readlinkat), SCMP_SYS(linkat),
    SCMP_SYS(unlinkat),     SCMP_SYS(renameat),   SCMP_SYS(renameat2),
    SCMP_SYS(getxattr),     SCMP_SYS(setxattr),   SCMP_SYS(listxattr),
    SCMP_SYS(removexattr),  SCMP_SYS(fsync),      SCMP_SYS(fdatasync),
    SCMP_SYS(geteuid),      SCMP_SYS(munmap),     SCMP_SYS(mremap),
    SCMP_SYS(madvise),      SCMP_SYS(brk),        SCMP_SYS(futex),
    SCMP_SYS(rt_sigreturn), SCMP_SYS(exit_group), SCMP_SYS(restart_syscall),
};

static const struct {
    int call;
    unsigned arg;
    uint64_t mask, value;
} narrowed[] = {
    { SCMP_SYS(mmap), 2, PROT_EXEC, 0 },
    { SCMP_SYS(fcntl), 1, UINT32_MAX, F_DUPFD_CLOEXEC },
    { SCMP_SYS(fcntl), 1, UINT32_MAX, F_GETFL },
    { SCMP_SYS(fcntl), 1, UINT32_MAX, F_OFD_SETLK },
    { SCMP_SYS(fcntl), 1, UINT32_MAX, F_OFD_GETLK },
};

int confine_share(struct err *e)
{
    scmp_filter_ctx ctx;
    int rc;

    mallopt(M_ARENA_MAX, 1);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) {
        return err_errno(e, errno, "cannot give up privileges");
    }
    ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
    rc = ctx ? 0 : -ENOMEM;
    for (size_t i = 0; i < ARRAY_LEN(calls) && rc == 0; i++) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, calls[i], 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(narrowed) && rc == 0; i++) {
        const struct scmp_arg_cmp cmp = { .arg = narrowed[i].arg,
                                          .op = SCMP_CMP_MASKED_EQ,
                                          .datum_a = narrowed[i].mask,
                                          .datum_b = narrowed[i].value };

        rc = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, narrowed[i].call, 1, &cmp);
    }
    rc = rc == 0 ? seccomp_load(ctx) : rc;
    seccomp_release(ctx);
    return rc == 0 ? 0 : err_errno(e, -rc, "the filter of system calls cannot be loaded");
}

#endif
