/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory balloons: vm.balloon, the event, and what vmd does by itself where VmConfig.balloon.mode is 'auto'. Loop thread.
 */
#ifndef VMD_DAEMON_VM_BALLOON_H
#define VMD_DAEMON_VM_BALLOON_H

#include <stdint.h>

struct balloons;
struct vm;
struct vmd;

struct balloons *balloons_new(struct vmd *d);
void balloons_begin(struct balloons *b); /* the VMs are there */
void balloons_free(struct balloons *b);  /* NULL is fine */
/* The emulator says that the guest has so many bytes now. */
void balloons_told(struct vm *vm, int64_t actual);

#endif
