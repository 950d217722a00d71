/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allocation that cannot fail, for sizes of our own making. Owns nothing; any thread.
 */
#include "engine/base/mem.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* No allocation and no lock from here on: the process ends. */
static void *out_of_memory(void)
{
    static const char text[] = "out of memory\n";
    if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0) {
        /* nothing more can be said */
    }
    abort();
}

void *xalloc(size_t size)
{
    return xalloc_n(1, size);
}

void *xalloc_n(size_t n, size_t size)
{
    if (n == 0 || size == 0) {
        n = size = 1; /* a pointer of its own all the same */
    }
    void *p = calloc(n, size);
    return p ? p : out_of_memory();
}

void *xalloc_aligned(size_t align, size_t size)
{
    size_t whole = (size + align - 1) & ~(align - 1);
    void *p = aligned_alloc(align, whole);
    return p ? memset(p, 0, whole) : out_of_memory();
}

void *xrealloc_n(void *p, size_t n, size_t size)
{
    if (n == 0 || size == 0) {
        n = size = 1;
    }
    void *bigger = reallocarray(p, n, size);
    return bigger ? bigger : out_of_memory();
}

char *xstrdup(const char *s)
{
    return xmemdup(s, strlen(s) + 1);
}

char *xstrndup(const char *s, size_t n)
{
    size_t len = strnlen(s, n);
    char *copy = xalloc(len + 1);
    memcpy(copy, s, len);
    return copy;
}

void *xmemdup(const void *p, size_t n)
{
    void *copy = xalloc(n);
    if (n > 0) {
        memcpy(copy, p, n);
    }
    return copy;
}

char *xasprintf(const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    return n >= 0 ? text : out_of_memory();
}

void *try_alloc_n(size_t n, size_t size)
{
    return n == 0 || size == 0 ? calloc(1, 1) : calloc(n, size);
}

void mem_autofree(void *pp)
{
    void *p;
    memcpy(&p, pp, sizeof(p));
    free(p);
}

#define HUGE_PAGE ((size_t)2 << 20)

static size_t whole_pages(size_t size)
{
    return (size + 4095) & ~(size_t)4095;
}

void *mem_map_huge(size_t size)
{
    size_t whole = whole_pages(size), room = whole + HUGE_PAGE;
    if (whole < size || room < whole) {
        errno = ENOMEM;
        return NULL;
    }
    char *p = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        return NULL;
    }
    size_t before = -(uintptr_t)p & (HUGE_PAGE - 1);
    if (before) {
        munmap(p, before);
    }
    munmap(p + before + whole, room - before - whole);
    if (whole >= HUGE_PAGE) {
        (void)madvise(p + before, whole, MADV_HUGEPAGE); /* a host without them has small ones */
    }
    return p + before;
}

void mem_unmap_huge(void *p, size_t size)
{
    if (p) {
        munmap(p, whole_pages(size));
    }
}
