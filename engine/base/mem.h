/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of our own: small allocations abort when memory is gone (nothing could go on);
 * sizes that a guest, file or client chose use the try_ forms and become an error.
 */
#ifndef VMD_BASE_MEM_H
#define VMD_BASE_MEM_H

#include <stddef.h>
#include <stdlib.h>

/* Zero-filled; never NULL; abort with a message when memory is gone. Release with free(). */
void *xalloc(size_t size) __attribute__((malloc, alloc_size(1), returns_nonnull));
void *xalloc_n(size_t n, size_t size) __attribute__((malloc, returns_nonnull)); /* overflow-checked */
/* The same at a multiple of align, a power of two. */
void *xalloc_aligned(size_t align, size_t size) __attribute__((malloc, returns_nonnull));
/* The new tail is NOT cleared. */
void *xrealloc_n(void *p, size_t n, size_t size) __attribute__((returns_nonnull));
char *xstrdup(const char *s) __attribute__((malloc, returns_nonnull));
char *xstrndup(const char *s, size_t n) __attribute__((malloc, returns_nonnull));
void *xmemdup(const void *p, size_t n) __attribute__((malloc, returns_nonnull));
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2), malloc, returns_nonnull));

/* Zero-filled or NULL. For sizes from outside; the caller reports which object asked. */
void *try_alloc_n(size_t n, size_t size) __attribute__((malloc));

/* Zero-filled memory of its own mapping, from a multiple of 2 MiB on and, when it is at least that large, of huge pages where the
 * host gives them (transparent huge pages, "madvise" or "always"). Pages come when first touched. NULL with
 * errno when there is none; size from outside is fine. Release with mem_unmap_huge() and the same size. Any thread. */
void *mem_map_huge(size_t size);
void mem_unmap_huge(void *p, size_t size);

#define xnew(type) ((type *)xalloc(sizeof(type)))
#define xnew_aligned(type, align) ((type *)xalloc_aligned((align), sizeof(type)))
#define xnew_n(type, n) ((type *)xalloc_n((n), sizeof(type)))

void mem_autofree(void *pp);
/* AUTO_FREE char *s = xstrdup("..."): freed when it goes out of scope. */
#define AUTO_FREE __attribute__((cleanup(mem_autofree)))
/* AUTO(thing_free) struct thing *t: any destructor that accepts NULL. Define the wrapper once
 * with AUTO_DEFINE(struct thing *, thing_free). */
#define AUTO_DEFINE(type, fn)                                                                   \
    static inline void fn##_autop(type *p)                                                      \
    {                                                                                           \
        if (*p) {                                                                               \
            fn(*p);                                                                             \
        }                                                                                       \
    }
#define AUTO(fn) __attribute__((cleanup(fn##_autop)))

/* Moves a pointer out of an AUTO_FREE variable. */
#define take_ptr(p)                                                                             \
    ({                                                                                          \
        __typeof__(p) taken_ = (p);                                                             \
        (p) = NULL;                                                                             \
        taken_;                                                                                 \
    })

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member)                                                         \
    ((type *)((char *)(ptr)-offsetof(type, member)))

#endif
