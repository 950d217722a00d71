/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The code buffer: one memfd mapped twice, writable at one random address and executable at another, sealed. No page is ever
 * writable and executable. Owned by struct tcg_vm.
 */

#include "engine/tcg/internal.h"

#include "engine/base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

int codebuf_init(struct tcg_codebuf *b, size_t size, struct err *e)
{
    AUTO_FD fd = memfd_create("vmd-code", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0) {
        return err_errno(e, errno, "code cache of %zu bytes", size);
    }
    void *rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (rw == MAP_FAILED) {
        return err_errno(e, errno, "code cache of %zu bytes (writable view)", size);
    }
    void *rx = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    if (rx == MAP_FAILED) {
        int saved = errno;
        munmap(rw, size);
        return err_errno(e, saved, "code cache of %zu bytes (executable view)", size);
    }
    /* Best effort: an old kernel lacks the last seal; the descriptor is closed anyway. */
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | 0x0010 /* F_SEAL_FUTURE_WRITE */) < 0) {
        (void)fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
    }
    madvise(rw, size, MADV_DONTDUMP);
    b->rw = rw;
    b->rx = rx;
    b->size = size;
    return 0;
}

void codebuf_done(struct tcg_codebuf *b)
{
    if (b->rw) {
        munmap(b->rw, b->size);
        munmap((void *)(uintptr_t)b->rx, b->size);
    }
    b->rw = NULL;
    b->rx = NULL;
}
