/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block jobs of running VMs: the daemon's jobs of the kinds disk.mirror, disk.backup, disk.stream and disk.commit. The emulator does
 * the work and knows its jobs by "job-NUMBER"; ours follow them, also those that another daemon began. Loop thread,
 * but for threads that open files.
 */
#ifndef VMD_DAEMON_BLOCKJOBS_H
#define VMD_DAEMON_BLOCKJOBS_H

#include <stdbool.h>

struct job;
struct vmd;

/* A job that another daemon began: followed to its end. False: it is no block job, or its VM is gone. */
bool blockjob_follow(struct vmd *d, struct job *job);
/* The daemon ends: waits for the threads; the loop runs no more. */
void blockjobs_end(struct vmd *d);

#endif
