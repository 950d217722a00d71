/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the SCSI target: what its files share. target.c dispatches, inquiry.c and mode.c say
 * what a unit is, sbc.c moves blocks, mmc.c has what only CD-ROM drives know. Entered as scsi.h says.
 */
#ifndef VMD_DEVICES_SCSI_SCSI_INT_H
#define VMD_DEVICES_SCSI_SCSI_INT_H

#include "devices/scsi/scsi.h"

#include <string.h>

#define SCSI_VENDOR "VMD"
#define SCSI_REVISION "1.0"
#define SCSI_MAX_UNMAP (2ull << 30) /* bytes of a range */
#define SCSI_MAX_RANGES 256
#define SCSI_MAX_VERIFY (4u << 20) /* bytes that VERIFY compares */
#define SCSI_TEMPERATURE 37

/* Media events of GET EVENT STATUS NOTIFICATION (MMC-6 §6.6.5.2). */
enum { EVENT_NONE, EVENT_EJECT_REQUEST, EVENT_NEW_MEDIA, EVENT_REMOVED };

/* Big-endian numbers, as everything in SCSI. */
static inline uint64_t be_get(const uint8_t *p, unsigned size)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < size; i++) {
        v = v << 8 | p[i];
    }
    return v;
}

static inline void be_put(uint8_t *p, uint64_t v, unsigned size)
{
    while (size > 0) {
        p[--size] = (uint8_t)v;
        v >>= 8;
    }
}

/* Text padded with blanks, not ended. */
static inline void scsi_text(uint8_t *p, const char *text, size_t size)
{
    size_t n = strnlen(text, size);

    memset(p, ' ', size);
    memcpy(p, text, n);
}

/* Each returns true, which is "complete" for a command's function. */
bool scsi_fail(struct scsi_cmd *c, enum scsi_sense what);
bool scsi_good(struct scsi_cmd *c);
/* Answers with data, no more than the CDB allows. */
bool scsi_answer(struct scsi_cmd *c, const uint8_t *data, size_t length, uint64_t allowed);

/* Copies from the command's data; the bytes that there were. */
size_t scsi_take(const struct scsi_cmd *c, uint64_t skip, void *to, size_t n);

const char *scsi_product(const struct scsi_unit *u);
bool scsi_has_medium(const struct scsi_unit *u);
/* False: it was there already. */
bool scsi_move_tray(struct scsi_unit *u, bool open);
uint64_t scsi_blocks(const struct scsi_unit *u); /* 0 without a medium */
bool scsi_readonly(const struct scsi_unit *u);
unsigned scsi_sense_fill(uint8_t out[SCSI_SENSE_SIZE], enum scsi_sense what);

typedef bool scsi_fn(struct scsi_unit *u, struct scsi_cmd *c);
scsi_fn scsi_inquiry, scsi_mode_sense, scsi_mode_select, scsi_log_sense;
scsi_fn scsi_read, scsi_write, scsi_verify, scsi_flush, scsi_unmap, scsi_write_same, scsi_seek;
scsi_fn scsi_capacity10, scsi_capacity16, scsi_lba_status, scsi_start_stop, scsi_prevent;
scsi_fn scsi_read_toc, scsi_configuration, scsi_event_status, scsi_disc_info, scsi_track_info,
    scsi_mechanism, scsi_read_cd, scsi_nothing;

#endif
