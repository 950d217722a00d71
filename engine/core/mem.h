/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest physical memory: a tree of regions, flattened once at commit.
 *
 * A container holds children at offsets with priorities; RAM, ROM and I/O regions are
 * leaves; an alias shows a window of another region. mem_commit() computes the flat view:
 * sorted, non-overlapping ranges. The tree is changed only by the main loop's thread with
 * the vCPUs paused (or before they start); flat views are immutable and swapped atomically,
 * old ones are freed at the next pause, so readers (vCPU and I/O threads) take no lock.
 *
 * DMA reaches RAM-backed regions only; device-to-device DMA is refused, MSI goes through
 * irq.
 */
#ifndef VMD_CORE_MEM_H
#define VMD_CORE_MEM_H

#include "engine/base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MEM_PAGE_BITS 12
#define MEM_PAGE_SIZE (1u << MEM_PAGE_BITS)

struct vm;
struct mem_region;
struct mem_space;

enum mem_kind { MEM_CONTAINER, MEM_RAM, MEM_ROM, MEM_IO, MEM_ALIAS };

/* Accesses of a device. Offsets are within the region; size is 1, 2, 4 or 8 bytes; values
 * are little-endian numbers (host integers). The dispatcher (bus.h) holds the device's lock;
 * accesses outside [min,max] size are split or widened by it. */
struct mem_io_ops {
    uint64_t (*read)(void *opaque, uint64_t offset, unsigned size);
    void (*write)(void *opaque, uint64_t offset, uint64_t value, unsigned size);
    uint8_t min_size, max_size; /* 0: 1 and 8 */
};

struct bus_lock; /* bus.h */

struct mem_region *mem_new_container(const char *name, uint64_t size);
/* Anonymous memfd, size-sealed, close-on-exec, out of core dumps. -ENOMEM names the size. */
int mem_new_ram(const char *name, uint64_t size, struct mem_region **out, struct err *e);
/* The same in a memfd of that size that is there already, sealed against another one; takes it, also when it fails. */
int mem_new_ram_in(const char *name, uint64_t size, int take_fd, struct mem_region **out,
                   struct err *e);
int mem_new_rom(const char *name, uint64_t size, struct mem_region **out, struct err *e);
struct mem_region *mem_new_io(const char *name, uint64_t size, const struct mem_io_ops *ops,
                              void *opaque, struct bus_lock *lock);

/* Places of an I/O region where a write does nothing but ring a bell that the main loop answers: `rung(arg, n)` for the one at offset + n *
 * step, n below count. By value (match): all n are at the offset itself, n is what was written. An engine may call rung() on the main loop, any
 * time after the write and once for several, in place of the region's write(), which has to do the same for engines that do
 * not; the vCPU does not wait for it then. size: bytes of the write where it is known by value. */
struct mem_bells {
    uint64_t offset;
    unsigned step, count, size;
    bool match;
    void (*rung)(void *arg, unsigned n);
    void *arg;
};
/* Before the region is first mapped; once. */
void mem_set_bells(struct mem_region *r, const struct mem_bells *bells);
/* NULL: it has none. Any thread. */
const struct mem_bells *mem_region_bells(const struct mem_region *r);

struct mem_region *mem_new_alias(const char *name, struct mem_region *of, uint64_t offset,
                                 uint64_t size);
/* The same, but what is RAM there is read-only by this way. */
struct mem_region *mem_new_ro_alias(const char *name, struct mem_region *of, uint64_t offset,
                                    uint64_t size);
void mem_free(struct mem_region *r); /* NULL is fine; must be unmapped */
/* As mem_free() of RAM while the VM runs on: its addresses stay taken, so that what is still on its way into it ends in memory of
 * nobody's. NULL is fine. */
void mem_retire(struct mem_space *s, struct mem_region *r);

uint8_t *mem_ram_host(struct mem_region *r); /* RAM or ROM bytes, else NULL */
uint64_t mem_region_size(const struct mem_region *r);
const char *mem_region_name(const struct mem_region *r);
enum mem_kind mem_region_kind(const struct mem_region *r);

/* Calls fn for every leaf of RAM or ROM in the tree, seen by the guest at the moment or not, once each. Main thread. */
void mem_each_ram(struct mem_space *s, void (*fn)(void *arg, struct mem_region *r), void *arg);
/* Does the region hold anything at `offset` but zeroes that nobody has touched? *length as in mem_range_holds(). Any thread. */
bool mem_region_holds(const struct mem_region *r, uint64_t offset, uint64_t *length);
/* Is it a file of memory (which tells what was never touched), or only memory? */
bool mem_region_is_shared(const struct mem_region *r);
/* Makes a part zero and gives its memory back to the host where that goes. The caller tells the engine. Any thread. */
void mem_region_clear(struct mem_region *r, uint64_t offset, uint64_t n);

/* The region's bytes become those of a file of memory that nobody writes to any more, as long as the region: pages that are written from now on are copied first.
 * What the file does not hold is zero, and takes memory when it is written. fd is borrowed. Main thread, vCPUs at the barrier, pages shown
 * nowhere else. When it fails the region's contents are gone. */
int mem_region_borrow(struct mem_region *r, int fd, struct err *e);
/* Its pages may be a file's, which others read, too. */
bool mem_region_is_borrowed(const struct mem_region *r);

/* Gives the memory of the whole pages in [gpa, gpa+n) of RAM back to the host: they read as zeroes from now on, are dirty, and have no
 * translations. What is no RAM is passed over. Returns the bytes given back. Main thread, and not while mem_held(). */
uint64_t mem_discard(struct mem_space *s, uint64_t gpa, uint64_t n);
/* Is memory being watched where it is (mem_region_hold), so that nothing may be taken out of it? Main thread. */
bool mem_held(struct mem_space *s);

/* Places child at offset `at` of a container; among overlapping children the higher priority
 * wins, then the later. Takes effect at mem_commit(). */
int mem_map(struct mem_region *parent, uint64_t at, int priority, struct mem_region *child,
            struct err *e);
void mem_unmap(struct mem_region *child);
void mem_set_enabled(struct mem_region *r, bool on);

/* One leaf window of the flat view. Immutable while the view lives. */
struct mem_range {
    uint64_t base, size;       /* guest physical, bytes */
    struct mem_region *region; /* leaf */
    uint64_t offset;           /* of base within the leaf */
    uint8_t *host;             /* RAM/ROM: host address of base, else NULL */
    enum mem_kind kind;        /* MEM_RAM, MEM_ROM or MEM_IO */
    const struct mem_io_ops *ops;
    void *opaque;
    struct bus_lock *lock;
    /* RAM: the space-wide dirty bitmap (bit N: page N), or NULL when not logging */
    _Atomic uint64_t *dirty;
    /* RAM: number of the page that holds the range's first byte; see mem_range_page() */
    uint64_t ram_page;
};

/* RAM ranges: number of the page that holds gpa in the space-wide numbering (stable while
 * the region lives). */
static inline uint64_t mem_range_page(const struct mem_range *r, uint64_t gpa)
{
    return r->ram_page +
           ((((r->offset & (MEM_PAGE_SIZE - 1)) + (gpa - r->base))) >> MEM_PAGE_BITS);
}
/* Marks the page of gpa dirty if logging. Any thread; for stores that do not go through
 * mem_written(). */
static inline void mem_range_dirty(const struct mem_range *r, uint64_t gpa)
{
    if (r->dirty) {
        uint64_t page = mem_range_page(r, gpa), bit = 1ull << (page % 64);
        if (!(atomic_load_explicit(&r->dirty[page / 64], memory_order_relaxed) & bit)) {
            atomic_fetch_or_explicit(&r->dirty[page / 64], bit, memory_order_release);
        }
    }
}

/* A vCPU begins to use the page at gpa of a range of RAM or ROM: gives it a huge page where the host has one. Any thread. */
void mem_range_settle(const struct mem_range *r, uint64_t gpa);

/* Does the range hold anything at gpa but zeroes that nobody has ever touched? *length: bytes from there on of which the same is true, at
 * least 1. Reading what it does not hold would give it memory. Any thread. */
bool mem_range_holds(const struct mem_range *r, uint64_t gpa, uint64_t *length);

/* Maps the page at gpa of a range of RAM a second time, at `at`, readable and writable. False where the host does not do that, or the
 * page is not one of the host's. Any thread. */
bool mem_range_show(const struct mem_range *r, uint64_t gpa, void *at);

/* From now on no page of the region is shown a second time, until this is called with false: its pages are watched where
 * they are. What was shown before is the engine's to take away (engine.h). Main thread, at the barrier. */
void mem_region_hold(struct mem_region *r, bool on);

struct mem_flat {
    unsigned n;
    const struct mem_range *r; /* sorted by base */
};

struct mem_space *mem_space_new(struct mem_region *root);
void mem_space_free(struct mem_space *s);
/* Recomputes the flat view and calls the commit hook (the engine). Main thread, vCPUs paused
 * or not started. */
void mem_commit(struct mem_space *s);
void mem_set_hooks(struct mem_space *s, void (*committed)(void *arg, const struct mem_flat *),
                   void (*written)(void *arg, uint64_t gpa, uint64_t len), void *arg);
/* `sync` (or NULL) is called with the hooks' arg before the dirty bitmap is taken or cleared, so that who keeps a log of its own
 * marks what it holds. Main thread. */
void mem_set_dirty_hook(struct mem_space *s, void (*sync)(void *arg));
/* The current view. vCPU threads and the main thread; valid till the next pause. */
const struct mem_flat *mem_flat(const struct mem_space *s);
/* Frees views that a commit replaced. Main thread, every vCPU at the pause barrier (vm_pause
 * calls it). */
void mem_reclaim(struct mem_space *s);
/* Range holding gpa, or NULL. vCPU threads and the main thread (others use the mem_dma_
 * calls, which hold the view); binary search with a small per-thread hint by the caller if
 * wanted. */
const struct mem_range *mem_find(const struct mem_space *s, uint64_t gpa);

/* Total number of guest RAM pages over all RAM regions (the numbering of ram_page). */
uint64_t mem_ram_pages(const struct mem_space *s);

/* Number of the region's first page in it; false: no commit has seen the region yet, nothing marks its pages. Main thread. */
bool mem_region_numbered(const struct mem_region *r, uint64_t *first);

/* DMA. RAM (and ROM for reads) only; -EFAULT on anything else, before anything is
 * transferred. Any thread. mem_dma_write calls mem_written() itself. */
int mem_dma_read(struct mem_space *s, uint64_t gpa, void *out, size_t n);
int mem_dma_write(struct mem_space *s, uint64_t gpa, const void *in, size_t n);
/* The device that owns a region of RAM has written to it, where the guest may see it or not. Any thread. No translations of code are dropped. */
void mem_region_dirty(struct mem_space *s, const struct mem_region *r, uint64_t offset,
                      uint64_t n);
/* Would mem_dma_read or mem_dma_write of this many bytes succeed? */
bool mem_dma_reaches(struct mem_space *s, uint64_t gpa, uint64_t n, bool write);
/* Host pointer for [gpa, gpa+n) when it lies in one RAM range, else NULL. A writer calls
 * mem_written() after. */
void *mem_dma_map(struct mem_space *s, uint64_t gpa, size_t n, bool write);
/* Marks pages dirty and invalidates translated code, before a completion is visible to the
 * guest. Any thread. */
void mem_written(struct mem_space *s, uint64_t gpa, uint64_t n);

/* Atomic 8/4-byte access to naturally aligned RAM for page walks and A/D updates (loads
 * reach ROM too); false when it is not that. A swap that succeeded has called mem_written(). */
bool mem_cas64(struct mem_space *s, uint64_t gpa, uint64_t old, uint64_t new_, bool *swapped);
bool mem_cas32(struct mem_space *s, uint64_t gpa, uint32_t old, uint32_t new_, bool *swapped);
bool mem_load64(struct mem_space *s, uint64_t gpa, uint64_t *out);
bool mem_load32(struct mem_space *s, uint64_t gpa, uint32_t *out);

/* Dirty logging (migration, live snapshot): one bit a RAM page, numbered as ram_page. */
/* All pages start clean; the engine is told through the commit hook. */
void mem_dirty_start(struct mem_space *s);
void mem_dirty_stop(struct mem_space *s);
bool mem_dirty_logging(const struct mem_space *s);
/* Moves the bitmap into out (mem_ram_pages bits, 64-bit words) and clears it. Main thread. */
void mem_dirty_take(struct mem_space *s, uint64_t *out);

#endif
