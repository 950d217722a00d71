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

#endif
