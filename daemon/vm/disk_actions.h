/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Actions on disks of a running VM at one instant: disk.transaction, disk.snapshot, disk.bitmap. Loop thread, but for threads that
 * open files.
 */
#ifndef VMD_DAEMON_DISK_ACTIONS_H
#define VMD_DAEMON_DISK_ACTIONS_H

struct vmd;

/* The daemon ends: waits for the threads; the loop runs no more. */
void disk_actions_end(struct vmd *d);
/* The same of disk.export_start (disk_export.c). */
void disk_exports_end(struct vmd *d);

#endif
