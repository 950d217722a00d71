/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forks: running copies of a running VM (fork.c, fork_plan.c). The source's memory goes to a file of memory, as of one instant at which its disks
 * get overlays; the file is sealed, and each copy maps it privately, on overlays of its own over the same images (ADR 0031). Loop thread.
 */
#ifndef VMD_DAEMON_FORK_H
#define VMD_DAEMON_FORK_H

#include "api-schema/gen/methods.h"
#include "api-schema/json/error.h"
#include "daemon/storage/work.h"
#include "daemon/vm/save.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct api_call;
struct fork;
struct job;
struct op;
struct vm;
struct vmd;

/* A disk that is written. */
struct fork_disk {
    char *name, *file,
        *over; /* the image that all share from now on, and the source's overlay */
    enum api_disk_format format;
    struct run_disk was, now;
    int fd; /* of the overlay, until it is passed on; -1: none */
    bool made, passed;
};

struct fork_copy {
    struct fork *k;
    int64_t vm;
    char **over; /* by the disks */
    size_t n_made;
    struct op *op;
    bool over_now; /* it runs, or is no more */
};

struct fork {
    struct work w;
    struct list link; /* vmd.forks */
    struct vmd *d;
    int64_t vm, job, intent;
    struct op *op; /* holds the source's turn */
    struct fork_disk *disk;
    size_t n_disks, at;
    struct fork_copy *copy;
    size_t n_copies, next, left, starting;
    bool working, watching, paused;
    bool dead;         /* the daemon ends */
    bool gone;         /* it is over; the last answer frees it */
    unsigned asked;    /* answers of emulators that are still to come */
    int memory, state; /* files of memory */
    int64_t bytes;     /* of memory */
    int64_t pause_us;
    uint8_t key[STATE_KEY_BYTES];
    void (*then)(struct fork *k);
    void (*reply)(struct fork *k, struct json_object *result, const struct api_error *x);
    struct api_error x; /* why it failed; code 0: it has not */
};

/* fork_plan.c: one that gets overlays. */
bool fork_is_written(const struct api_disk *disk);
/* May the VM be forked as it is? False: x says why not. */
bool fork_may(const struct vm *vm, struct api_error *x);
/* Its copies, not durable yet (pending), and the paths of all overlays. False: x says why not, and nothing stays. */
bool fork_plan(struct fork *k, struct api_call *call, const struct vm *vm,
               const struct api_vm_fork_in *in, struct api_error *x);

/* ---- inside: fork.c, fork_copies.c ---- */

/* Counts a call to an emulator whose answer knows k; was_asked: run_call()'s. */
bool fork_asked(struct fork *k, bool was_asked);
/* An answer is here: may k be looked at? */
bool fork_answered(struct fork *k);
/* Why it fails; the first word counts. */
void fork_set_why(struct fork *k, int code, const char *remedy, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* A thread runs it, then(k) goes on; a failure is in k->x. */
void fork_work(struct fork *k, void (*run)(struct work *w), void (*then)(struct fork *k));
/* Copies that nobody has seen yet go. */
void fork_drop_pending(struct fork *k);
/* The job ends, as k->x says, and k. */
void fork_finish(struct fork *k);
/* The source has been taken and goes on: makes the copies, and finishes. */
void fork_copies_begin(struct fork *k);

/* A job that the last daemon left at work: if it is a fork, copies that it had not made go. */
void forks_clean(struct vmd *d, const struct job *job);
/* The daemon ends, the loop runs no more: nothing goes on. Then, when no thread is at work and nobody calls back, the rest. */
void forks_end(struct vmd *d);
void forks_free(struct vmd *d);

#endif
