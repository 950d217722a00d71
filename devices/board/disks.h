/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the disks of a board's configuration to their controllers, the same on every board: which
 * disks share one, at which places. Main thread.
 */
#ifndef VMD_DEVICES_BOARD_DISKS_H
#define VMD_DEVICES_BOARD_DISKS_H

#include "devices/board/board.h"

struct device;

/* True when disk i is the first of its controller, whose device is then made with it. */
bool board_disk_leads(const struct board_config *c, unsigned i);
/* Makes the controller of disk i, which leads, not yet realized; it takes the nodes of all disks at
 * it out of `c`. *out may be set when this fails, for dev_free(). */
int board_new_disk(struct vm *vm, struct board_config *c, unsigned i, struct device **out,
                   struct err *e);
/* Disk i, on the bus scsi, as a unit of a virtio-scsi adapter that is there: its place, and its node, which is taken out of `c`. */
struct scsi_unit;
int board_disk_unit(struct board_config *c, unsigned i, struct scsi_unit *out, struct err *e);
/* Id of the device that shows disk i to the guest, "disk0", "scsi0". */
void board_disk_device(const struct board_config *c, unsigned i, char out[24]);

#endif
