/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs: long work with a number, known before it begins. A job that was alive when the daemon died
 * is told as it really ended: done when its VM was found running, failed otherwise.
 * Loop thread.
 */
#ifndef VMD_DAEMON_JOBS_H
#define VMD_DAEMON_JOBS_H

#include "api-schema/gen/types.h"
#include "api-schema/json/error.h"
#include "engine/base/list.h"

struct change;
struct jobs;
struct vmd;

struct job {
    struct list link;    /* in jobs, oldest first */
    struct api_job info; /* owned */
    int64_t owner;
    bool cancel;                  /* asked to stop */
    void (*on_cancel)(void *arg); /* while it can be cancelled */
    void *arg;
    struct list waiters;      /* job.wait calls; rpc_job.c */
    char told[12], name[128]; /* its status and name as QMP told them last; qmp/blockjob.c */
};

struct jobs *jobs_new(struct vmd *d);
void jobs_free(struct jobs *j);
int jobs_load(struct jobs *j, struct err *e);

/* A new job, queued; its row and event go into c, with what a later daemon must know of it to go on (`take_result`; NULL: nothing).
 * Dropped with job_forget() when c fails. */
struct job *job_new(struct vmd *d, struct change *c, const char *kind, const char *vm_uuid,
                    const char *vm_name, int64_t total, const char *unit, int64_t owner,
                    struct json_object *take_result);
void job_forget(struct vmd *d, struct job *job);
/* Progress and end are told in c. */
void job_progress(struct job *job, struct change *c, int64_t done);
/* x NULL: done, with an optional result (taken). */
void job_end(struct vmd *d, struct job *job, struct change *c, const struct api_error *x,
             struct json_object *take_result);
struct job *job_find(struct vmd *d, int64_t id);
bool job_active(const struct job *job);
/* Newest first. */
void jobs_each(struct vmd *d, void (*fn)(void *arg, struct job *job), void *arg);
unsigned jobs_active(struct vmd *d);

#endif
