/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots of disks at set times (rows of kind "schedule"). Loop thread. */
#ifndef VMD_DAEMON_SCHEDULE_H
#define VMD_DAEMON_SCHEDULE_H

struct change;
struct schedules;
struct store_object;
struct vm;
struct vmd;

struct schedules *schedules_new(struct vmd *d);
void schedules_free(struct schedules *s);
void schedules_load(struct vmd *d, const struct store_object *row);
/* VMs were taken up again: from now on what is due is done. */
void schedules_begin(struct vmd *d);
/* The VM's definition goes, and so do its schedules. */
void schedules_clear(struct vm *vm, struct change *c);

#endif
