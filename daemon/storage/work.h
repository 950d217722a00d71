/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads for work on the files of pools, and the confined process that such work gives images to: the daemon itself
 * parses none. A piece of work is filled on the loop's thread, run by one thread, and ended on the loop's thread.
 */
#ifndef VMD_DAEMON_STORAGE_WORK_H
#define VMD_DAEMON_STORAGE_WORK_H

#include "engine/base/buf.h"
#include "engine/base/err.h"
#include "engine/base/list.h"

#include <stdbool.h>

struct loop;
struct works;

struct work {
    struct list link;
    void (*run)(struct work *w); /* a thread of works: sets failed and e, or what came of it */
    void (*ended)(struct work *w); /* loop */
    bool failed;
    struct err e;
};

struct works *works_new(struct loop *loop, const char *program, const char *vmctl);
/* Processes under way are killed; work that has no thread yet is not run: it failed with -ESHUTDOWN. `ended` is called
 * for all of it. */
void works_free(struct works *s);
/* False when there is too much under way, or no thread to be had: nothing was taken. */
bool works_start(struct works *s, struct work *w);

/* Runs `vmctl image ARGS...` in a process that reaches the files below `dir` and no others (NULL-terminated args, at
 * most 60). Any thread of works. out (may be NULL) gets what it prints. -EBUSY, -ENOSPC, -ESHUTDOWN or -EIO with its words. */
int works_image(struct works *s, const char *dir, const char *const *args, struct buf *out,
                struct err *e);

/* At most so many bytes of what a process prints are kept. */
#define WORKS_OUT (4 << 20)

/* The same, with descriptors (borrowed, at most WORKS_FILES) as its numbers from 3 on. */
#define WORKS_FILES 2
int works_image_with(struct works *s, const char *dir, const char *const *args,
                     const int *files, unsigned n, struct buf *out, struct err *e);

/* Runs `lvm WORDS...` (up to NULL, at most 60 without the program's name) in a process that may change block devices and lvm's own files, and
 * has two minutes. 0; positive: it failed, `said` has its words; negative: it did not run, or was ended. */
int works_lvm(struct works *s, const char *const *words, struct buf *out, struct buf *said,
              struct err *e);

/* Runs `program PID`, which looks into state files: a request on its standard input, the files on its descriptors from 3 on
 * (all borrowed, at most WORKS_FILES). `writes`: one of them. Any thread of works; otherwise as works_image. -EBADMSG: a file is damaged. */
int works_state(struct works *s, const char *program, bool writes, int request,
                const int *files, unsigned n, struct buf *out, struct err *e);

#endif
