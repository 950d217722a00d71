/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done with a VM's snapshots, step by step: files and images by threads, questions to the emulator, the end of the job. One
 * struct work_on for each VM at a time, which holds the VM's turn (ops.h). Loop thread, but for the functions work_run_*().
 */
#ifndef VMD_DAEMON_SNAPSHOT_WORK_H
#define VMD_DAEMON_SNAPSHOT_WORK_H

#include "api-schema/json/error.h"
#include "daemon/storage/work.h"
#include "daemon/vm/save.h"
#include "daemon/vm/snapshot.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct api_call;
struct change;
struct json_object;
struct loop_timer;
struct op;
struct snapshot_archive;

struct work_on {
    struct work w;
    struct list link; /* vmd.snapshot_work */
    struct vmd *d;
    struct op *op;
    int64_t vm, job;
    struct snapshot *s; /* lives as long as the VM's turn is ours */
    char *uuid, *dir, *key_file;
    char *program; /* vmd-state */
    uint8_t key[STATE_KEY_BYTES];
    int fd;
    char **image, **disk; /* of the disks that are in it, and their names, by n_images */
    size_t n_images;
    bool working, watching, waits_end, dead;
    bool asks_agent, orphan;         /* the agent's answer frees it */
    void (*then)(struct work_on *k); /* when the thread is done, or the VM has ended */
    void (*reply)(struct work_on *k, struct json_object *result, const struct api_error *x);
    struct loop_timer *timer;
    void (*tick)(struct work_on *k);
    unsigned tries;
    struct snapshot_archive *archive; /* of an export or import; owned */
    struct api_error x;               /* why it failed; code 0: it has not */
};

/* ---- what a call asks, until its turn comes: snapshot_ops.c ---- */

struct wish {
    struct vmd *d;
    int64_t vm, job;
    char *name, *file; /* of the snapshot (NULL: its archive says); the archive's */
    bool start, foreign;
    struct api_snapshot_create_in create; /* owned; all zero: another call */
    void (*begin)(struct op *op);
};

struct wish *wish_new(struct vm *vm, const char *name, void (*begin)(struct op *op));
void wish_free(struct wish *wish);
/* The wish is filled but for the job, and taken; the call is answered. */
void wish_begin_job(struct api_call *call, struct vm *vm, const char *kind,
                    struct wish *take_wish);
/* Was its job cancelled before it began? x says so. */
bool wish_called_off(const struct op *op, struct api_error *x);
/* Ends a job that never got so far as to have a snapshot. */
void wish_refuse(struct op *op, const struct api_error *x);
/* The job is at work. */
void wish_progress(struct op *op);
/* False: the call was told that the VM has no such snapshot. */
bool snapshot_is_there(struct api_call *call, const struct vm *vm, const char *name);

/* ---- the work ---- */

/* Of the op's VM and job (may be none). s NULL: none yet; then k->archive says what messages name. */
struct work_on *work_new(struct op *op, struct snapshot *s);
void work_free(struct work_on *k);
struct vm *work_vm(const struct work_on *k);
/* Why it fails; the first word counts. */
void work_set_why(struct work_on *k, int code, const char *remedy, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* c has the rows; the job ends in it, as k->x says, and the VM's turn. s: its result; NULL: none. */
void work_finish(struct work_on *k, struct change *c, const struct snapshot *s);
/* An event about the snapshot. */
void work_tell(struct work_on *k, struct change *c, const char *reason);
/* The VM is at s from now on; NULL: at none. */
void work_make_current(struct work_on *k, struct snapshot *s, struct change *c);

/* A thread runs it, then(k) goes on; k->w.e says how it went. */
void work_start(struct work_on *k, void (*run)(struct work *w),
                void (*then)(struct work_on *k));
void work_run_make(struct work *w);  /* the key, the file, new */
void work_run_sync(struct work *w);  /* the file is durable */
void work_run_open(struct work *w);  /* all of it is there; the key, the file */
void work_run_take(struct work *w);  /* of all images, which nobody uses */
void work_run_apply(struct work *w); /* all images are as they were */
/* The folder that a path lies in, the caller's; NULL: it is no absolute path. Any thread. */
char *work_folder_of(const char *path);
/* What came and went in it is durable. 0 or negative. Any thread. */
int work_sync_dir(const char *dir, struct err *e);
/* Whose images; false: k->x says why not. */
bool work_find_images(struct work_on *k);
/* Calls tick(k) then. */
void work_later(struct work_on *k, int64_t ns, void (*tick)(struct work_on *k));
/* Hears of the VM's end: a question is answered then, and who waits for the end (waits_end) goes on with k->then. */
void work_watch(struct work_on *k);
/* Asks the emulator; reply once, perhaps before this returns. */
void work_ask(struct work_on *k, const char *method, struct json_object *take_params,
              bool with_file, int64_t deadline_ns,
              void (*reply)(struct work_on *, struct json_object *, const struct api_error *));
/* Parameters with the key; the caller's. */
struct json_object *work_key(struct work_on *k);
/* It is whole; the work ends. */
void work_kept(struct work_on *k);
/* snapshot_archive.c */
const char *archive_file(const struct snapshot_archive *a);
void archive_free(struct snapshot_archive *a);
/* snapshot_disks.c: takes the disks, then work_kept() or work_drop(). */
void work_take_disks(struct work_on *k);
/* The guest may be frozen since another daemon; thaws it, then work_drop(). */
void work_free_guest(struct work_on *k);
/* Nothing stays of the snapshot; then the work ends. When that fails it stays in its state, for another attempt. */
void work_drop(struct work_on *k);

#endif
