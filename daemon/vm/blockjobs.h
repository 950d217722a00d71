/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block jobs of running VMs: the daemon's jobs of the kinds disk.mirror, disk.backup, disk.stream and disk.commit. The emulator does
 * the work and knows its jobs by "job-NUMBER"; ours follow them, also those that another daemon began. Loop thread,
 * but for threads that open files.
 */
#ifndef VMD_DAEMON_BLOCKJOBS_H
#define VMD_DAEMON_BLOCKJOBS_H

#include "api-schema/gen/types.h"

#include <stdbool.h>
#include <stdint.h>

struct api_error;
struct change;
struct job;
struct vm;
struct vmd;

/* A job that another daemon began: followed to its end. False: it is no block job, or its VM is gone. */
bool blockjob_follow(struct vmd *d, struct job *job);
/* After those: what emulators still hold of jobs that nobody follows is dropped. */
void blockjobs_begin(struct vmd *d);
/* A backup that begins with others by emu.disk_actions (disk_actions.c), as "job-NUMBER": its row goes into c. `id` NULL: QMP calls
 * it after the disk. */
int64_t blockjob_plan(struct vm *vm, struct change *c, const char *disk, const char *file,
                      const char *id, int64_t owner);
/* What became of it: begun (x NULL), or failed; `forget`: there is no row of it. */
void blockjob_planned(struct vmd *d, int64_t job, const struct api_error *x, bool forget);
/* In a definition: that image is the disk's from now on. */
void disk_takes_file(struct api_disk *disk, const char *file, enum api_disk_format format);
/* No more jobs may begin. */
bool blockjobs_full(struct vmd *d);
/* The daemon ends: waits for the threads; the loop runs no more. */
void blockjobs_end(struct vmd *d);

#endif
