/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory that is kept as it was, or filled, while the guest runs: its pages are watched through userfaultfd, a thread
 * answers the faults, and others go through all the rest. Two uses: `save` hands out memory as it was at one instant, copying a chunk before
 * the guest's first write to it is let through; `fill` brings chunks when they are first touched, and the rest in the background.
 *
 * What the threads may call is the "pager" list of confine.c. They wait for nobody but each other and files, never for the
 * main thread, which may itself wait for a page. Main thread, unless said.
 */
#ifndef VMD_EMU_STATE_PAGER_H
#define VMD_EMU_STATE_PAGER_H

#include "engine/emu/state/chunk.h"

struct emu;
struct pager;

struct pager_region {
    struct mem_region *r;
    uint64_t pages;
};

struct pager_op {
    const struct pager_region *region; /* copied */
    unsigned n_regions;
    bool fill;
    /* fill: is there anything for the chunk? If not it is zero. */
    bool (*wanted)(void *arg, unsigned region, uint64_t page);
    /* save: takes the chunk's n bytes. fill: writes them, all. Any of the pager's threads. */
    int (*piece)(void *arg, struct chunk_codec *c, unsigned region, uint64_t page,
                 uint8_t *bytes, size_t n, struct err *e);
    /* All is done, or the first error, once; the main thread. A fill that fails ends the process before. */
    void (*over)(void *arg, const struct err *e);
    void *arg;
};

/* m->pager is made by pager_start(), before the sandbox closes; where the host has no userfaultfd it stays NULL, and
 * m->no_pager says why.
 * Begins, with every vCPU at the barrier and nothing in flight; when this returns 0 they may go on. fill: the regions'
 * contents are gone. */
int pager_begin(struct pager *p, const struct pager_op *op, struct err *e);
/* A save ends early, with -ECANCELED. */
void pager_cancel(struct pager *p);
bool pager_busy(const struct pager *p);
/* Memory is still being filled: it must not be looked at page by page (mem_region_holds). NULL is fine. */
bool pager_filling(const struct pager *p);
uint64_t pager_completed(const struct pager *p); /* bytes done of the last one */

#endif
