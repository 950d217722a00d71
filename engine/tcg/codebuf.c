/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The code buffer: one memfd mapped twice, writable at one random address and executable at another, sealed. No page is ever
 * writable and executable. It comes in huge pages where the host gives them. Owned by struct tcg_vm.
 */

#include "engine/tcg/internal.h"

#include "engine/base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif
#define HUGE_PAGE ((size_t)2 << 20)

/* A shared mapping that begins at a multiple of HUGE_PAGE, as the file does, so that both can be backed by huge pages. */
static void *map_aligned(size_t size, int prot, int fd)
{
    uint8_t *room = mmap(NULL, size + HUGE_PAGE, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) {
        return MAP_FAILED;
    }
    size_t before = -(uintptr_t)room & (HUGE_PAGE - 1);
    void *p = mmap(room + before, size, prot, MAP_SHARED | MAP_FIXED, fd, 0);
    if (p == MAP_FAILED) {
        int saved = errno;
        munmap(room, size + HUGE_PAGE);
        errno = saved;
        return MAP_FAILED;
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE), end = before + (size + page - 1) / page * page;
    if (before) {
        munmap(room, before);
    }
    munmap(room + end, size + HUGE_PAGE - end);
    return p;
}

void codebuf_grow(struct tcg_codebuf *b, size_t end)
{
    while (b->huge < end && b->size - b->huge >= HUGE_PAGE) {
        /* The kernel collapses only what has a page already. */
        *(volatile uint8_t *)(b->rw + b->huge) = b->rw[b->huge];
        if (madvise(b->rw + b->huge, HUGE_PAGE, MADV_COLLAPSE) < 0 ||
            madvise((void *)(uintptr_t)(b->rx + b->huge), HUGE_PAGE, MADV_COLLAPSE) < 0) {
            b->huge = b->size; /* none here: do not ask again */
            return;
        }
        b->huge += HUGE_PAGE;
    }
}

/* perf looks into its map for anonymous memory only: shared anonymous memory, mapped a second time. */
static int init_anonymous(struct tcg_codebuf *b, size_t size, struct err *e)
{
    void *rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    void *rx = rw == MAP_FAILED ? MAP_FAILED : mremap(rw, 0, size, MREMAP_MAYMOVE);
    if (rx == MAP_FAILED || mprotect(rx, size, PROT_READ | PROT_EXEC) != 0) {
        return err_errno(e, errno, "code cache of %zu bytes, for perf", size);
    }
    b->rw = rw;
    b->rx = rx;
    b->size = size;
    return 0;
}

int codebuf_init(struct tcg_codebuf *b, size_t size, bool for_perf, struct err *e)
{
    if (for_perf) {
        return init_anonymous(b, size, e);
    }
    AUTO_FD fd = memfd_create("vmd-code", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0) {
        return err_errno(e, errno, "code cache of %zu bytes", size);
    }
    void *rw = map_aligned(size, PROT_READ | PROT_WRITE, fd);
    if (rw == MAP_FAILED) {
        return err_errno(e, errno, "code cache of %zu bytes (writable view)", size);
    }
    void *rx = map_aligned(size, PROT_READ | PROT_EXEC, fd);
    if (rx == MAP_FAILED) {
        int saved = errno;
        munmap(rw, size);
        return err_errno(e, saved, "code cache of %zu bytes (executable view)", size);
    }
    /* Best effort: an old kernel lacks the last seal; the descriptor is closed anyway. */
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | 0x0010 /* F_SEAL_FUTURE_WRITE */) <
        0) {
        (void)fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
    }
    madvise(rw, size, MADV_DONTDUMP);
    b->rw = rw;
    b->rx = rx;
    b->size = size;
    b->huge = 0;
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
