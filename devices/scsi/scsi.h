/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SCSI target: disks (SBC-4) and CD-ROM drives (MMC-6) on block nodes, with the commands that all
 * devices have (SPC-5). Transport-neutral: an initiator port (virtio-scsi, AHCI's ATAPI ports, USB
 * storage) owns a bus of logical units, gives commands with their data already found in memory, and
 * gets status and sense.
 *
 * All calls on the main loop with the initiator's lock held, except that done() comes on the
 * main loop without it. The units' state is under that lock.
 */
#ifndef VMD_DEVICES_SCSI_SCSI_H
#define VMD_DEVICES_SCSI_SCSI_H

#include "engine/core/device.h"
#include "engine/core/state.h"
#include "storage/block.h"

#define SCSI_SENSE_SIZE 18
#define SCSI_CDB_SIZE 16
#define SCSI_SERIAL_SIZE 36

enum scsi_status { SCSI_GOOD = 0x00, SCSI_CHECK_CONDITION = 0x02, SCSI_TASK_ABORTED = 0x40 };

/* Sense key, additional code and qualifier (SPC-5 §4.4, annex F). */
enum scsi_sense {
    SENSE_NONE = 0,
    SENSE_STOPPED = 0x020402,
    SENSE_NO_MEDIUM = 0x023a01,
    SENSE_TRAY_OPEN = 0x023a02,
    SENSE_READ_ERROR = 0x031100,
    SENSE_WRITE_ERROR = 0x030c00,
    SENSE_LIST_LENGTH = 0x051a00,
    SENSE_BAD_OPCODE = 0x052000,
    SENSE_LBA_RANGE = 0x052100,
    SENSE_BAD_FIELD = 0x052400,
    SENSE_BAD_LUN = 0x052500,
    SENSE_BAD_PARAMETER = 0x052600,
    SENSE_NO_SAVING = 0x053900,
    SENSE_LOCKED = 0x055302,
    SENSE_BAD_TRACK_MODE = 0x056400,
    SENSE_MEDIUM_CHANGED = 0x062800,
    SENSE_RESET = 0x062900,
    SENSE_MODE_CHANGED = 0x062a01,
    SENSE_CAPACITY_CHANGED = 0x062a09,
    SENSE_WRITE_PROTECTED = 0x072700,
    SENSE_NO_SPACE = 0x072707,
    SENSE_ABORTED = 0x0b0000,
    SENSE_MISCOMPARE = 0x0e1d00
};

/* A logical unit. The initiator fills the first part before scsi_unit_init(). */
struct scsi_unit {
    uint16_t target, lun;
    bool cdrom, removable;
    bool gone; /* unplugged: commands that are under way leave, others do not find it */
    struct blk_node *node; /* the initiator's; NULL: a drive without a medium */
    char serial[SCSI_SERIAL_SIZE + 1];
    char product[17];    /* "": by kind */
    uint32_t block_size; /* bytes; 0: by kind */
    bool atapi;          /* says version 0, as drives behind PACKET do */
    /* The guest has opened or closed the tray; any thread, the initiator's lock held. NULL: nobody wants to know. */
    void (*tray_moved)(void *arg);
    void *tray_arg;

    /* What the guest can change (saved). */
    uint32_t attentions; /* a bit for each unit attention that waits */
    bool locked;         /* the medium may not be removed */
    bool tray_open;
    bool stopped;
    bool cache_off;      /* writes are durable when they complete */
    uint8_t media_event; /* of GET EVENT STATUS NOTIFICATION */
    unsigned block_shift;
};

struct scsi_bus {
    struct scsi_unit *unit;
    unsigned n;
};

struct scsi_range {
    uint64_t offset, length;
};

/* A command. What it points to stays untouched until it is done. */
struct scsi_cmd {
    /* The initiator's; the rest is zero. */
    uint8_t cdb[SCSI_CDB_SIZE];
    const struct iovec *out,
        *in; /* pieces of guest memory that the unit reads, that it fills */
    unsigned n_out, n_in;
    uint64_t out_len, in_len;
    void (*done)(struct scsi_cmd *c); /* may free the command */
    bool aborted; /* no further step is begun and nobody looks at the result */

    /* The result. */
    uint8_t status;
    uint8_t sense[SCSI_SENSE_SIZE];
    unsigned sense_len; /* 0 when there is none */
    bool overrun;       /* the command wants to move more than there is memory for */
    uint64_t moved;     /* bytes of `in` that were filled, or of `out` that were used */

    /* The unit's. */
    struct blk_req io;
    struct blk_node *node;
    struct scsi_range *ranges; /* of UNMAP: what is left to do */
    unsigned next, n_ranges;
    uint8_t *bounce, *expected; /* WRITE SAME's pattern; VERIFY's data and what it should be */
    struct iovec one;
    uint64_t left; /* of WRITE SAME: bytes behind io's */
    bool flush_after;
};

/* Checks and completes a unit. -EINVAL: a block size that is none. */
int scsi_unit_init(struct scsi_unit *u, struct err *e);
/* Power on, or a reset of the unit: back to defaults, and the guest is told. */
void scsi_unit_reset(struct scsi_unit *u);
void scsi_unit_attention(struct scsi_unit *u, enum scsi_sense what);
/* struct device_class.tray of the initiator whose unit it is. False: its medium does not come out. */
bool scsi_unit_tray(struct scsi_unit *u, enum dev_tray_act act, struct dev_tray *now);
extern const struct st_table scsi_unit_state;

struct scsi_unit *scsi_find(struct scsi_bus *b, unsigned target, unsigned lun);
bool scsi_has_target(const struct scsi_bus *b, unsigned target);

/* Starts a command for a unit of a target that exists; the unit need not. True: it is complete, and
 * done() is not called. */
bool scsi_start(struct scsi_bus *b, unsigned target, unsigned lun, struct scsi_cmd *c);
/* Frees what the unit attached; the command itself is the initiator's. */
void scsi_cmd_done(struct scsi_cmd *c);

#endif
