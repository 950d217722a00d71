/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree of memory regions: making, mapping and freeing nodes. Owns the RAM behind them
 * (a sealed memfd each, so that pages can be shown at a second address; anonymous memory where the host has no huge
 * pages for that). Main thread only, but for mem_range_settle().
 */
#include "engine/base/fd.h"
#include "engine/base/str.h"
#include "engine/core/mem_priv.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif
#define CHUNK_BITS 21
#define CHUNK (1ull << CHUNK_BITS) /* a huge page of the host */

static struct mem_region *region_new(const char *name, uint64_t size, enum mem_kind kind)
{
    struct mem_region *r = xnew(struct mem_region);
    r->name = xstrdup(name);
    r->size = size;
    r->kind = kind;
    r->enabled = true;
    r->fd = -1;
    list_init(&r->node);
    list_init(&r->children);
    return r;
}

struct mem_region *mem_new_container(const char *name, uint64_t size)
{
    return region_new(name, size, MEM_CONTAINER);
}

/* The kernel makes a huge page of what has a small one already. */
static bool collapse(uint8_t *at)
{
    *(volatile uint8_t *)at = *at;
    return madvise(at, CHUNK, MADV_COLLAPSE) == 0;
}

static int new_memfd(size_t size)
{
    AUTO_FD fd = memfd_create("vmd-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0) {
        return -1;
    }
    return take_fd(&fd);
}

/* Shared memory at a multiple of CHUNK, in a file that is taken; NULL where there is none of huge pages. */
static void *map_shared(struct mem_region *r, size_t size, int own_fd)
{
    AUTO_FD fd = own_fd;
    if (fd < 0) {
        return NULL;
    }
    void *host = mem_map_huge(size); /* room that is aligned */
    if (!host) {
        return NULL;
    }
    if (mmap(host, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd,
             0) == MAP_FAILED ||
        !collapse(host)) {
        mem_unmap_huge(host, size);
        return NULL;
    }
    r->huge = xnew_n(_Atomic uint64_t, (size >> CHUNK_BITS) / 64 + 1);
    r->fd = take_fd(&fd);
    return host;
}

void mem_range_settle(const struct mem_range *range, uint64_t gpa)
{
    const struct mem_region *r = range->region;
    uint64_t at = range->offset + (gpa - range->base), chunk = at >> CHUNK_BITS,
             bit = 1ull << chunk % 64;
    if (!r->huge || ((chunk + 1) << CHUNK_BITS) > r->host_size ||
        (atomic_load_explicit(&r->huge[chunk / 64], memory_order_relaxed) & bit) ||
        (atomic_fetch_or(&r->huge[chunk / 64], bit) & bit)) {
        return;
    }
    (void)collapse(r->host +
                   (chunk << CHUNK_BITS)); /* a host without a free one leaves small pages */
}

bool mem_range_show(const struct mem_range *range, uint64_t gpa, void *at)
{
    const struct mem_region *r = range->region;
    uint64_t from = range->offset + (gpa - range->base);
    return range->kind == MEM_RAM && r->fd >= 0 && !atomic_load(&r->held) &&
           from % MEM_PAGE_SIZE == 0 &&
           mmap(at, MEM_PAGE_SIZE, PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_FIXED | MAP_POPULATE, r->fd, (off_t)from) != MAP_FAILED &&
           madvise(at, MEM_PAGE_SIZE, MADV_DONTDUMP) == 0;
}

bool mem_region_is_shared(const struct mem_region *r)
{
    return r->fd >= 0;
}

void mem_region_hold(struct mem_region *r, bool on)
{
    atomic_store(&r->held, on);
}

bool mem_region_holds(const struct mem_region *r, uint64_t from, uint64_t *length)
{
    uint64_t rest = r->size - from;
    off_t data = r->fd >= 0 ? lseek(r->fd, (off_t)from, SEEK_DATA) : (off_t)from, hole;

    *length = rest;
    if (data < 0) {
        return errno != ENXIO; /* ENXIO: no data from here on */
    }
    if ((uint64_t)data > from) {
        *length = (uint64_t)data - from < rest ? (uint64_t)data - from : rest;
        return false;
    }
    hole = r->fd >= 0 ? lseek(r->fd, (off_t)from, SEEK_HOLE) : -1;
    if (hole > data && (uint64_t)(hole - data) < rest) {
        *length = (uint64_t)(hole - data);
    }
    return true;
}

bool mem_range_holds(const struct mem_range *range, uint64_t gpa, uint64_t *length)
{
    uint64_t rest = range->size - (gpa - range->base);
    bool holds = mem_region_holds(range->region, range->offset + (gpa - range->base), length);

    *length = *length < rest ? *length : rest;
    return holds;
}

/* ---- memory that others read, too ---- */

enum { PIECES_MAX = 8192 }; /* mappings of a region; a process has 65,530 */

/* Memory of nobody else's, zero. Small pages: a huge one for each place that is written would be most of what a copy costs. */
static bool map_own(struct mem_region *r, uint64_t from, uint64_t n)
{
    if (mmap(r->host + from, n, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED) {
        return false;
    }
    (void)madvise(r->host + from, n, MADV_DONTDUMP);
    (void)madvise(r->host + from, n, MADV_NOHUGEPAGE);
    return true;
}

static bool map_theirs(struct mem_region *r, int fd, uint64_t from, uint64_t n)
{
    return mmap(r->host + from, n, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, (off_t)from) != MAP_FAILED &&
           madvise(r->host + from, n, MADV_DONTDUMP) == 0;
}

/* The next part of the file that holds something, in steps of CHUNK so that there are few; the last one is the rest. */
static bool next_part(const struct mem_region *r, int fd, uint64_t at, uint64_t *from,
                      uint64_t *n)
{
    off_t data = at < r->host_size ? lseek(fd, (off_t)at, SEEK_DATA) : -1, hole;

    if (data < 0 || (uint64_t)data >= r->host_size) {
        return false;
    }
    hole = lseek(fd, data, SEEK_HOLE);
    *from = (uint64_t)data & ~(CHUNK - 1);
    *from = *from < at ? at : *from;
    uint64_t end = hole > data ? ((uint64_t)hole + CHUNK - 1) & ~(CHUNK - 1) : r->host_size;
    end = end < r->host_size && r->pieces < PIECES_MAX / 2 ? end : r->host_size;
    *n = end - *from;
    return true;
}

int mem_region_borrow(struct mem_region *r, int fd, struct err *e)
{
    uint64_t from = 0, n = 0;
    off_t size = lseek(fd, 0, SEEK_END);

    if (r->kind != MEM_RAM || size < 0 || (uint64_t)size != r->host_size) {
        return err_set(e, -EINVAL, "the file of memory has %lld bytes, memory '%s' has %zu",
                       (long long)size, r->name, r->host_size);
    }
    r->borrowed = true;
    r->pieces = 0;
    if (r->fd >= 0) {
        close(r->fd);
        r->fd = -1;
    }
    free((void *)r->huge);
    r->huge = NULL;
    bool ok = map_own(r, 0, r->host_size);
    while (ok && next_part(r, fd, from + n, &from, &n)) {
        ok = map_theirs(r, fd, from, n);
        r->pieces += 2;
    }
    return ok ? 0 : err_errno(e, errno, "memory '%s' cannot be mapped from a file", r->name);
}

bool mem_region_is_borrowed(const struct mem_region *r)
{
    return r->borrowed;
}

/* The page below a private one is not zero: giving that back would show it. */
static void clear_borrowed(struct mem_region *r, uint64_t offset, uint64_t n)
{
    for (uint64_t at = offset, end = offset + n, next; at < end; at = next) {
        const uint8_t *p = r->host + at;

        next = (at | (MEM_PAGE_SIZE - 1)) + 1;
        next = next < end ? next : end;
        if (p[0] != 0 || memcmp(p, p + 1, next - at - 1) != 0) { /* writing makes a copy */
            memset(r->host + at, 0, next - at);
        }
    }
}

void mem_region_clear(struct mem_region *r, uint64_t offset, uint64_t n)
{
    uint64_t first = (offset + MEM_PAGE_SIZE - 1) & ~(uint64_t)(MEM_PAGE_SIZE - 1);
    uint64_t end = (offset + n) & ~(uint64_t)(MEM_PAGE_SIZE - 1);

    if (r->borrowed) {
        clear_borrowed(r, offset, n);
    } else if (first < end && madvise(r->host + first, end - first,
                                      r->fd >= 0 ? MADV_REMOVE : MADV_DONTNEED) == 0) {
        memset(r->host + offset, 0, first - offset);
        memset(r->host + end, 0, offset + n - end);
    } else {
        memset(r->host + offset, 0, n);
    }
}

/* A huge page that was given back as a whole may come back as one; of one that lost a part, the part would come back with it. */
static void mark_huge(struct mem_region *r, uint64_t first, uint64_t end)
{
    for (uint64_t chunk = first >> CHUNK_BITS; r->huge && chunk <= (end - 1) >> CHUNK_BITS;
         chunk++) {
        uint64_t bit = 1ull << chunk % 64;

        if (chunk << CHUNK_BITS >= first && (chunk + 1) << CHUNK_BITS <= end) {
            atomic_fetch_and(&r->huge[chunk / 64], ~bit);
        } else {
            atomic_fetch_or(&r->huge[chunk / 64], bit);
        }
    }
}

bool mem_region_discard(struct mem_region *r, uint64_t offset, uint64_t n)
{
    if (r->borrowed) {
        bool room = r->pieces < PIECES_MAX;

        r->pieces += room ? 2 : 0;
        return room && map_own(r, offset, n);
    }
    mark_huge(r, offset, offset + n);
    return madvise(r->host + offset, n, r->fd >= 0 ? MADV_REMOVE : MADV_DONTNEED) == 0;
}

static void any_held(void *arg, struct mem_region *r)
{
    *(bool *)arg |= atomic_load(&r->held);
}

bool mem_held(struct mem_space *s)
{
    bool held = false;

    mem_each_ram(s, any_held, &held);
    return held;
}

static void each_ram(struct mem_region *r, void (*fn)(void *arg, struct mem_region *r),
                     void *arg, struct list *seen)
{
    if (r->kind == MEM_ALIAS) {
        each_ram(r->of, fn, arg, seen);
    } else if (r->host && !r->listed) {
        r->listed = true;
        list_append(seen, &r->seen);
        fn(arg, r);
    }
    list_for_each (it, &r->children) {
        each_ram(list_entry(it, struct mem_region, node), fn, arg, seen);
    }
}

void mem_each_ram(struct mem_space *s, void (*fn)(void *arg, struct mem_region *r), void *arg)
{
    struct list seen;

    list_init(&seen);
    each_ram(s->root, fn, arg, &seen);
    while (!list_empty(&seen)) {
        struct mem_region *r = list_entry(seen.next, struct mem_region, seen);

        list_remove(&r->seen);
        r->listed = false;
    }
}

/* own_fd: its memfd, taken; -1: one is made where it is of use. */
static int new_ram(const char *name, uint64_t size, enum mem_kind kind, int own_fd,
                   struct mem_region **out, struct err *e)
{
    AUTO_FD fd = own_fd;
    char size_text[40];
    str_size(size, size_text, sizeof(size_text));
    if (size == 0 || size > (uint64_t)INT64_MAX / 2) {
        return err_set(e, -EINVAL, "memory '%s' cannot have %s", name, size_text);
    }
    size_t host_size = (size + MEM_PAGE_SIZE - 1) & ~(uint64_t)(MEM_PAGE_SIZE - 1);
    struct mem_region *r = region_new(name, size, kind);
    bool shared = kind == MEM_RAM && host_size >= CHUNK;
    if (shared && fd < 0) {
        fd = new_memfd(host_size);
    }
    void *host = shared ? map_shared(r, host_size, take_fd(&fd)) : NULL;
    if (!host && !(host = mem_map_huge(host_size))) {
        int saved = errno;
        mem_free(r);
        return err_errno(e, saved, "cannot map the memory '%s' of %s", name, size_text);
    }
    /* Guest memory holds the guest's secrets, and would make a core dump useless by its
     * size. */
    (void)madvise(host, host_size, MADV_DONTDUMP);
    r->host = host;
    r->host_size = host_size;
    *out = r;
    return 0;
}

int mem_new_ram(const char *name, uint64_t size, struct mem_region **out, struct err *e)
{
    return new_ram(name, size, MEM_RAM, -1, out, e);
}

int mem_new_ram_in(const char *name, uint64_t size, int own_fd, struct mem_region **out,
                   struct err *e)
{
    AUTO_FD fd = own_fd;
    struct stat st;

    if (fstat(fd, &st) != 0 || (uint64_t)st.st_size != size || !S_ISREG(st.st_mode)) {
        return err_set(e, -EINVAL, "memory '%s': the file that came for it is not of its size",
                       name);
    }
    return new_ram(name, size, MEM_RAM, take_fd(&fd), out, e);
}

int mem_new_rom(const char *name, uint64_t size, struct mem_region **out, struct err *e)
{
    return new_ram(name, size, MEM_ROM, -1, out, e);
}

struct mem_region *mem_new_io(const char *name, uint64_t size, const struct mem_io_ops *ops,
                              void *opaque, struct bus_lock *lock)
{
    struct mem_region *r = region_new(name, size, MEM_IO);
    r->ops = ops;
    r->opaque = opaque;
    r->lock = lock;
    return r;
}

void mem_set_bells(struct mem_region *r, const struct mem_bells *bells)
{
    r->bells = *bells;
}

const struct mem_bells *mem_region_bells(const struct mem_region *r)
{
    return r->bells.count ? &r->bells : NULL;
}

struct mem_region *mem_new_alias(const char *name, struct mem_region *of, uint64_t offset,
                                 uint64_t size)
{
    struct mem_region *r = region_new(name, size, MEM_ALIAS);
    r->of = of;
    r->of_offset = offset;
    return r;
}

struct mem_region *mem_new_ro_alias(const char *name, struct mem_region *of, uint64_t offset,
                                    uint64_t size)
{
    struct mem_region *r = mem_new_alias(name, of, offset, size);
    r->read_only = true;
    return r;
}

void mem_free(struct mem_region *r)
{
    if (!r) {
        return;
    }
    mem_unmap(r);
    list_for_each_safe (it, &r->children) {
        mem_unmap(list_entry(it, struct mem_region, node));
    }
    if (r->host) {
        mem_unmap_huge(r->host, r->host_size);
    }
    if (r->fd >= 0) {
        close(r->fd);
    }
    free((void *)r->huge);
    free(r->name);
    free(r);
}

void mem_retire(struct mem_space *s, struct mem_region *r)
{
    if (!r) {
        return;
    }
    mem_numbers_free(s, r);
    if (r->host &&
        mmap(r->host, r->host_size, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED) {
        (void)madvise(r->host, r->host_size, MADV_DONTDUMP);
        r->host = NULL;
    }
    mem_free(r);
}

uint8_t *mem_ram_host(struct mem_region *r)
{
    return r->host;
}

uint64_t mem_region_size(const struct mem_region *r)
{
    return r->size;
}

const char *mem_region_name(const struct mem_region *r)
{
    return r->name;
}

enum mem_kind mem_region_kind(const struct mem_region *r)
{
    return r->kind;
}

/* Does the sub-tree of r, followed through aliases, hold `what`? The tree has no cycle, so
 * this ends. */
static bool reaches(const struct mem_region *r, const struct mem_region *what)
{
    if (r == what) {
        return true;
    }
    if (r->kind == MEM_ALIAS) {
        return reaches(r->of, what);
    }
    list_for_each (it, &r->children) {
        if (reaches(list_entry(it, struct mem_region, node), what)) {
            return true;
        }
    }
    return false;
}

int mem_map(struct mem_region *parent, uint64_t at, int priority, struct mem_region *child,
            struct err *e)
{
    if (parent->kind != MEM_CONTAINER) {
        return err_set(e, -EINVAL, "memory region '%s' cannot hold '%s': it is no container",
                       parent->name, child->name);
    }
    if (child->parent) {
        return err_set(e, -EBUSY, "memory region '%s' is already mapped in '%s'", child->name,
                       child->parent->name);
    }
    if (child->size == 0 || at >= parent->size || child->size > parent->size - at) {
        return err_set(e, -ERANGE,
                       "memory region '%s' of 0x%" PRIx64 " bytes at 0x%" PRIx64
                       " does not fit in '%s' of 0x%" PRIx64 " bytes",
                       child->name, child->size, at, parent->name, parent->size);
    }
    if (reaches(child, parent)) {
        return err_set(e, -EINVAL, "memory region '%s' in '%s' would hold itself", child->name,
                       parent->name);
    }
    child->parent = parent;
    child->at = at;
    child->priority = priority;
    struct list *before = &parent->children;
    list_for_each (it, &parent->children) {
        if (list_entry(it, struct mem_region, node)->priority <= priority) {
            break;
        }
        before = it;
    }
    list_insert(before, &child->node);
    return 0;
}

void mem_unmap(struct mem_region *child)
{
    child->parent = NULL;
    list_remove(&child->node);
}

void mem_set_enabled(struct mem_region *r, bool on)
{
    r->enabled = on;
}
