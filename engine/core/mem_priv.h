/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the memory room, shared by its three files only: mem_region (the tree), mem_flat
 * (views, dirty bitmap) and mem_dma (access).
 */
#ifndef VMD_CORE_MEM_PRIV_H
#define VMD_CORE_MEM_PRIV_H

#include "engine/base/list.h"
#include "engine/core/mem.h"

/* A node of the tree. Main thread; readers see only the ranges made from it. */
struct mem_region {
    char *name;
    uint64_t size;
    enum mem_kind kind;
    bool enabled;

    struct mem_region *parent; /* NULL: not mapped */
    uint64_t at;               /* offset in parent */
    int priority;
    /* parent->children: highest priority first, later mapped first among equals */
    struct list node;
    struct list children; /* container */

    struct mem_region *of; /* alias */
    uint64_t of_offset;
    bool read_only; /* RAM seen through it is ROM */

    uint8_t *host;          /* RAM, ROM */
    size_t host_size;       /* rounded up to host pages */
    int fd;                 /* of the memory when it is shared, else -1 */
    _Atomic bool held;      /* shown nowhere else */
    bool borrowed;          /* mapped from a file that others have, too; fd is -1 */
    unsigned pieces;        /* of a borrowed region: mappings that it was cut into */
    _Atomic uint64_t *huge; /* shared: bit per huge page that was asked for */
    uint64_t ram_page;      /* RAM: number of the first page, given at its first commit */
    bool ram_numbered;
    bool listed; /* while mem_each_ram() is at work, in its list */
    struct list seen;

    const struct mem_io_ops *ops; /* I/O */
    void *opaque;
    struct bus_lock *lock;
    struct mem_bells bells; /* count 0: none */
};

/* A flat view and what it alone owns. */
struct mem_view {
    struct mem_flat flat; /* first: what readers see */
    struct mem_range *ranges;
    struct mem_view *next; /* retired views, waiting for the pause */
};

/* A dirty bitmap that was replaced while someone might still mark in it. */
struct mem_bitmap {
    _Atomic uint64_t *words;
    size_t n_words;
    struct mem_bitmap *next;
};

struct mem_gap {
    uint64_t first, n;
};

/* view, readers: atomic. All else: main thread. */
struct mem_space {
    struct mem_region *root;
    _Atomic(struct mem_view *) view;
    /* accesses in flight on threads that the pause barrier does not stop */
    _Atomic unsigned readers;
    struct mem_view *retired;
    uint64_t ram_pages;
    struct mem_gap *gaps; /* numbers of pages that went, in no order, no two side by side */
    unsigned n_gaps;

    bool logging;
    struct mem_bitmap bitmap; /* current */
    struct mem_bitmap *old_bitmaps;

    void (*committed)(void *arg, const struct mem_flat *flat);
    void (*written)(void *arg, uint64_t gpa, uint64_t len);
    void (*sync)(void *arg);
    void *hook_arg;
};

/* Gives whole pages of RAM back to the host, as mem_discard(); false where the host does not take them. */
bool mem_region_discard(struct mem_region *r, uint64_t offset, uint64_t n);

/* Range of the view that holds gpa, or NULL. */
const struct mem_range *mem_flat_find(const struct mem_flat *f, uint64_t gpa);

/* mem_flat.c: a region that had numbers for its pages goes; others may get them. */
void mem_numbers_free(struct mem_space *s, const struct mem_region *r);

#endif
