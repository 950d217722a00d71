/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Emulators that were killed and that the kernel cannot end yet, because a thread waits inside it for a disk that does
 * not answer (a stopped FUSE daemon, a dead NFS server). No instruction of theirs runs any more, so their VMs count as
 * ended; the VM's lock stays taken until the kernel is through, so none is started beside them. Loop thread.
 */
#ifndef VMD_DAEMON_LINGER_H
#define VMD_DAEMON_LINGER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct vmd;

/* All that is left of a killed process waits in the kernel where no signal wakes it. */
bool linger_stuck(pid_t pid);
/* Takes the pidfd; cleans the run folder up when the process is gone and the VM has no other. */
void linger_watch(struct vmd *d, int64_t vm, int take_pidfd);
/* Removes the control group of a VM that has ended: now, or when the last process in it has died. */
void linger_group(struct vmd *d, int64_t vm);
/* Removes the run folder of a VM that has ended: now, or when its monitor has written into it how it ended. */
void linger_folder(struct vmd *d, int64_t vm);
/* The daemon ends; the folders are swept by the next one. */
void lingers_free(struct vmd *d);

#endif
