/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocking work beside the I/O of the disks: threads of their own, so that a job or an export that waits for
 * a slow peer never keeps a guest's request waiting. Work is queued from the loop's thread and its end is told there.
 */
#ifndef VMD_STORAGE_WORK_H
#define VMD_STORAGE_WORK_H

#include "engine/base/err.h"
#include "engine/base/list.h"

#include <stdbool.h>

struct loop;
struct workers;

struct work {
    struct list link;
    void (*run)(struct work *w);  /* on a thread */
    void (*done)(struct work *w); /* on the loop, later; may queue or free it */
};

struct workers_options {
    unsigned threads;                /* 0: 4 */
    void (*thread_start)(void *arg); /* as in struct blk_pool_options */
    void *arg;
};
int workers_new(struct loop *loop, const struct workers_options *o, struct workers **out,
                struct err *e);
/* Runs what is queued to its end; what was done but not told is told no more. NULL is fine. */
void workers_free(struct workers *w);
/* Loop thread. */
void workers_queue(struct workers *ws, struct work *w);

#endif
