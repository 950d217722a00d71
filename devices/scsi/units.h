/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The units of a SCSI host adapter, as a board gives them to its property "units".
 */
#ifndef VMD_DEVICES_SCSI_UNITS_H
#define VMD_DEVICES_SCSI_UNITS_H

#include "devices/scsi/scsi.h"

#define SCSI_MAX_UNITS 16

/* Allocated by the caller; the device closes the nodes and frees it. Filled as scsi.h says. */
struct scsi_units {
    unsigned n;
    struct scsi_unit unit[SCSI_MAX_UNITS];
};

struct device;

/* Units that come and go while the VM runs, of a virtio-scsi adapter. Main thread, not from within a completion. The unit is
 * filled as scsi.h says; its node is the device's when this succeeds. -EEXIST, -ENOSPC, -EINVAL. */
int virtio_scsi_plug(struct device *d, const struct scsi_unit *unit, struct err *e);
/* Can the driver be told? Without one there is nobody to tell. */
bool virtio_scsi_listens(struct device *d);
/* From now on there is no such unit for the driver, which is told; what it had under way is given up. False: it was told
 * so before. */
bool virtio_scsi_unplug(struct device *d, const struct blk_node *node);
/* True when nothing of it is under way any more: the unit is gone then, and the node the caller's. */
bool virtio_scsi_release(struct device *d, const struct blk_node *node);

#endif
