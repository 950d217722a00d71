/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SCSI target: units, sense, unit attentions, the table of commands and their dispatch (SPC-5).
 * Owns nothing; entered as scsi.h says.
 */
#include "devices/scsi/scsi_int.h"
#include "engine/base/mem.h"

#include <errno.h>

/* --- results --- */

unsigned scsi_sense_fill(uint8_t out[SCSI_SENSE_SIZE], enum scsi_sense what)
{
    memset(out, 0, SCSI_SENSE_SIZE);
    out[0] = 0x70; /* current, fixed format */
    out[2] = (uint8_t)(what >> 16);
    out[7] = SCSI_SENSE_SIZE - 8;
    out[12] = (uint8_t)(what >> 8);
    out[13] = (uint8_t)what;
    return SCSI_SENSE_SIZE;
}

bool scsi_fail(struct scsi_cmd *c, enum scsi_sense what)
{
    c->status = SCSI_CHECK_CONDITION;
    c->sense_len = scsi_sense_fill(c->sense, what);
    c->moved = 0;
    return true;
}

bool scsi_good(struct scsi_cmd *c)
{
    c->status = SCSI_GOOD;
    return true;
}

bool scsi_answer(struct scsi_cmd *c, const uint8_t *data, size_t length, uint64_t allowed)
{
    uint64_t n = length < allowed ? length : allowed;

    c->overrun = n > c->in_len;
    n = n < c->in_len ? n : c->in_len;
    c->moved = n;
    for (unsigned i = 0; n > 0; i++) {
        size_t part = c->in[i].iov_len < n ? c->in[i].iov_len : n;

        memcpy(c->in[i].iov_base, data, part);
        data += part;
        n -= part;
    }
    return scsi_good(c);
}

size_t scsi_take(const struct scsi_cmd *c, uint64_t skip, void *to, size_t n)
{
    uint8_t *p = to;
    size_t taken = 0;

    for (unsigned i = 0; i < c->n_out && taken < n; i++) {
        size_t part = c->out[i].iov_len;

        if (skip >= part) {
            skip -= part;
            continue;
        }
        part = part - skip < n - taken ? part - skip : n - taken;
        memcpy(p + taken, (const uint8_t *)c->out[i].iov_base + skip, part);
        taken += part;
        skip = 0;
    }
    return taken;
}

void scsi_cmd_done(struct scsi_cmd *c)
{
    free(c->ranges);
    free(c->bounce);
    free(c->expected);
    c->ranges = NULL;
    c->bounce = c->expected = NULL;
}

/* --- units --- */

/* Unit attentions in the order in which they are told (SPC-5 §5.14). */
static const enum scsi_sense attentions[] = { SENSE_RESET, SENSE_MEDIUM_CHANGED,
                                              SENSE_CAPACITY_CHANGED, SENSE_MODE_CHANGED };
#define N_ATTENTIONS (sizeof(attentions) / sizeof(attentions[0]))

void scsi_unit_attention(struct scsi_unit *u, enum scsi_sense what)
{
    for (unsigned i = 0; i < N_ATTENTIONS; i++) {
        u->attentions |= attentions[i] == what ? 1u << i : 0;
    }
}

/* Takes the most important one. */
static enum scsi_sense take_attention(struct scsi_unit *u)
{
    for (unsigned i = 0; i < N_ATTENTIONS; i++) {
        if (u->attentions >> i & 1) {
            u->attentions &= ~(1u << i);
            return attentions[i];
        }
    }
    return SENSE_NONE;
}

int scsi_unit_init(struct scsi_unit *u, struct err *e)
{
    uint32_t size = u->block_size ? u->block_size : u->cdrom ? 2048 : 512;

    if (size < 512 || size > 4096 || (size & (size - 1))) {
        return err_set(e, -EINVAL, "a SCSI unit cannot have blocks of %u bytes", size);
    }
    u->block_size = size;
    u->block_shift = (unsigned)__builtin_ctz(size);
    u->removable = u->removable || u->cdrom;
    return 0;
}

void scsi_unit_reset(struct scsi_unit *u)
{
    u->attentions = 0;
    u->locked = u->stopped = u->cache_off = false;
    u->media_event = scsi_has_medium(u) && u->cdrom ? EVENT_NEW_MEDIA : 0;
    scsi_unit_attention(u, SENSE_RESET);
}

bool scsi_move_tray(struct scsi_unit *u, bool open)
{
    if (u->tray_open == open) {
        return false;
    }
    u->tray_open = open;
    u->stopped = false;
    u->media_event = scsi_has_medium(u) ? EVENT_NEW_MEDIA : EVENT_REMOVED;
    if (scsi_has_medium(u)) {
        scsi_unit_attention(u, SENSE_MEDIUM_CHANGED);
    }
    return true;
}

bool scsi_unit_tray(struct scsi_unit *u, enum dev_tray_act act, struct dev_tray *now)
{
    if (!u->removable) {
        return false;
    }
    if (act == DEV_TRAY_ASK) {
        u->media_event = EVENT_EJECT_REQUEST;
    } else if (act != DEV_TRAY_LOOK) {
        scsi_move_tray(u, act == DEV_TRAY_OPEN);
    }
    *now = (struct dev_tray){ u->tray_open, u->locked };
    return true;
}

const char *scsi_product(const struct scsi_unit *u)
{
    return u->product[0] ? u->product : u->cdrom ? "CD-ROM" : "DISK";
}

bool scsi_has_medium(const struct scsi_unit *u)
{
    /* A drive without a medium stands on an image of no bytes. */
    return u->node && !u->tray_open && (!u->removable || blk_size(u->node) > 0);
}

uint64_t scsi_blocks(const struct scsi_unit *u)
{
    return scsi_has_medium(u) ? blk_size(u->node) >> u->block_shift : 0;
}

bool scsi_readonly(const struct scsi_unit *u)
{
    return u->cdrom || !u->node || blk_readonly(u->node);
}

struct scsi_unit *scsi_find(struct scsi_bus *b, unsigned target, unsigned lun)
{
    for (unsigned i = 0; i < b->n; i++) {
        if (b->unit[i].target == target && b->unit[i].lun == lun && !b->unit[i].gone) {
            return &b->unit[i];
        }
    }
    return NULL;
}

bool scsi_has_target(const struct scsi_bus *b, unsigned target)
{
    for (unsigned i = 0; i < b->n; i++) {
        if (b->unit[i].target == target && !b->unit[i].gone) {
            return true;
        }
    }
    return false;
}

/* --- commands without a medium --- */

bool scsi_nothing(struct scsi_unit *u, struct scsi_cmd *c)
{
    (void)u;
    return scsi_good(c);
}

/* REPORT LUNS (SPC-5 §6.33): all units, in either of the two reports that include them. */
static bool report_luns(const struct scsi_bus *b, unsigned target, struct scsi_cmd *c)
{
    uint8_t out[8 + 8 * 256] = { 0 };
    uint32_t allowed = (uint32_t)be_get(c->cdb + 6, 4);
    unsigned n = 0;

    if (c->cdb[2] > 2) {
        return scsi_fail(c, SENSE_BAD_FIELD);
    }
    /* In ascending order. */
    for (unsigned lun = 0; lun < 256 && c->cdb[2] != 1; lun++) {
        bool there = false;

        for (unsigned i = 0; i < b->n; i++) {
            there = there ||
                    (b->unit[i].target == target && b->unit[i].lun == lun && !b->unit[i].gone);
        }
        if (there) {
            out[8 + 8 * n++ + 1] = (uint8_t)lun; /* peripheral device addressing */
        }
    }
    be_put(out, 8 * n, 4);
    return scsi_answer(c, out, 8 + 8 * n, allowed);
}

static bool request_sense(struct scsi_unit *u, struct scsi_cmd *c, enum scsi_sense what)
{
    uint8_t fixed[SCSI_SENSE_SIZE], descriptor[8] = { 0x72 };

    if (u) {
        what = take_attention(u);
        if (what == SENSE_NONE && u->cdrom && !scsi_has_medium(u)) {
            what = u->tray_open ? SENSE_TRAY_OPEN : SENSE_NO_MEDIUM;
        }
    }
    if (c->cdb[1] & 1) {
        descriptor[1] = (uint8_t)(what >> 16);
        descriptor[2] = (uint8_t)(what >> 8);
        descriptor[3] = (uint8_t)what;
        return scsi_answer(c, descriptor, sizeof(descriptor), c->cdb[4]);
    }
    scsi_sense_fill(fixed, what);
    return scsi_answer(c, fixed, sizeof(fixed), c->cdb[4]);
}

static bool unit_sense(struct scsi_unit *u, struct scsi_cmd *c)
{
    return request_sense(u, c, SENSE_NONE);
}

/* SEND DIAGNOSTIC (SPC-5 §6.41): self-tests pass, at once; other pages there are none. */
static bool send_diagnostic(struct scsi_unit *u, struct scsi_cmd *c)
{
    (void)u;
    return be_get(c->cdb + 3, 2) != 0 ? scsi_fail(c, SENSE_BAD_FIELD) : scsi_good(c);
}

/* REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-5 §6.36): all but those of ACA and of a target. */
static bool report_functions(struct scsi_unit *u, struct scsi_cmd *c)
{
    /* Abort task and task set, clear task set, unit reset, query task; query set, nexus reset. */
    static const uint8_t out[16] = { 0x80 | 0x40 | 0x10 | 0x08 | 0x01, 0x02 | 0x01, 0, 12 };

    (void)u;
    return scsi_answer(c, out, c->cdb[2] & 0x80 ? sizeof(out) : 4, be_get(c->cdb + 6, 4));
}

static scsi_fn report_opcodes;

/* --- the table --- */

enum { DISK = 1, CD = 2, BOTH = 3 };
enum {
    MEDIUM = 1,  /* needs one */
    WRITES = 2,  /* the medium */
    ALWAYS = 4,  /* unit attentions do not hold it up */
    SERVICE = 8, /* the row is of one service action, in byte 1 */
    LUNS = 16    /* report_luns(), which has no unit */
};

/* usage: which bits of the CDB mean something, from byte 1 on, for REPORT SUPPORTED OPERATION
 * CODES. */
struct op {
    uint8_t code, action, kinds, flags;
    scsi_fn *fn;
    uint8_t usage[15];
};

#define LBA4 0xff, 0xff, 0xff, 0xff
#define LBA8 LBA4, LBA4
#define CTL 0x07

static const struct op ops[] = {
    { 0x00, 0, BOTH, MEDIUM, scsi_nothing, { 0, 0, 0, 0, CTL } }, /* TEST UNIT READY */
    { 0x03, 0, BOTH, ALWAYS, unit_sense, { 1, 0, 0, 0xff, CTL } },
    { 0x08, 0, DISK, MEDIUM, scsi_read, { 0x1f, 0xff, 0xff, 0xff, CTL } },
    { 0x0a, 0, DISK, MEDIUM | WRITES, scsi_write, { 0x1f, 0xff, 0xff, 0xff, CTL } },
    { 0x12, 0, BOTH, ALWAYS, scsi_inquiry, { 1, 0xff, 0xff, 0xff, CTL } },
    { 0x15, 0, BOTH, 0, scsi_mode_select, { 0x11, 0, 0, 0xff, CTL } },
    { 0x1a, 0, BOTH, 0, scsi_mode_sense, { 8, 0xff, 0xff, 0xff, CTL } },
    { 0x1b, 0, BOTH, 0, scsi_start_stop, { 1, 0, 0x0f, 0xf7, CTL } },
    { 0x1d, 0, BOTH, 0, send_diagnostic, { 0xff, 0, 0xff, 0xff, CTL } },
    { 0x1e, 0, BOTH, 0, scsi_prevent, { 0, 0, 0, 3, CTL } },
    { 0x25, 0, BOTH, MEDIUM, scsi_capacity10, { 0, 0, 0, 0, 0, 0, 0, 0, CTL } },
    { 0x28, 0, BOTH, MEDIUM, scsi_read, { 0x18, LBA4, 0, 0xff, 0xff, CTL } },
    { 0x2a, 0, DISK, MEDIUM | WRITES, scsi_write, { 0x18, LBA4, 0, 0xff, 0xff, CTL } },
    { 0x2b, 0, BOTH, MEDIUM, scsi_seek, { 0, LBA4, 0, 0, 0, CTL } },
    { 0x2e, 0, DISK, MEDIUM | WRITES, scsi_write, { 0x12, LBA4, 0, 0xff, 0xff, CTL } },
    { 0x2f, 0, BOTH, MEDIUM, scsi_verify, { 0x16, LBA4, 0, 0xff, 0xff, CTL } },
    { 0x34, 0, DISK, MEDIUM, scsi_seek, { 2, LBA4, 0, 0xff, 0xff, CTL } },
    { 0x35, 0, BOTH, MEDIUM, scsi_flush, { 2, LBA4, 0, 0xff, 0xff, CTL } },
    { 0x41, 0, DISK, MEDIUM | WRITES, scsi_write_same, { 8, LBA4, 0, 0xff, 0xff, CTL } },
    { 0x42, 0, DISK, MEDIUM | WRITES, scsi_unmap, { 0, 0, 0, 0, 0, 0, 0xff, 0xff, CTL } },
    { 0x43, 0, CD, MEDIUM, scsi_read_toc, { 2, 0xf, 0, 0, 0, 0xff, 0xff, 0xff, 0xc7 } },
    { 0x46, 0, CD, ALWAYS, scsi_configuration, { 3, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, CTL } },
    { 0x4a, 0, CD, ALWAYS, scsi_event_status, { 1, 0, 0, 0xff, 0, 0, 0xff, 0xff, CTL } },
    { 0x4d, 0, BOTH, 0, scsi_log_sense, { 1, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, CTL } },
    { 0x51, 0, CD, MEDIUM, scsi_disc_info, { 7, 0, 0, 0, 0, 0, 0xff, 0xff, CTL } },
    { 0x52, 0, CD, MEDIUM, scsi_track_info, { 3, LBA4, 0, 0xff, 0xff, CTL } },
    { 0x55, 0, BOTH, 0, scsi_mode_select, { 0x11, 0, 0, 0, 0, 0, 0xff, 0xff, CTL } },
    { 0x5a, 0, BOTH, 0, scsi_mode_sense, { 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, CTL } },
    { 0x88, 0, DISK, MEDIUM, scsi_read, { 0x18, LBA8, LBA4, 0, CTL } },
    { 0x8a, 0, DISK, MEDIUM | WRITES, scsi_write, { 0x18, LBA8, LBA4, 0, CTL } },
    { 0x8e, 0, DISK, MEDIUM | WRITES, scsi_write, { 0x12, LBA8, LBA4, 0, CTL } },
    { 0x8f, 0, DISK, MEDIUM, scsi_verify, { 0x16, LBA8, LBA4, 0, CTL } },
    { 0x90, 0, DISK, MEDIUM, scsi_seek, { 2, LBA8, LBA4, 0, CTL } },
    { 0x91, 0, DISK, MEDIUM, scsi_flush, { 2, LBA8, LBA4, 0, CTL } },
    { 0x93, 0, DISK, MEDIUM | WRITES, scsi_write_same, { 8, LBA8, LBA4, 0, CTL } },
    { 0x9e, 0x10, DISK, MEDIUM | SERVICE, scsi_capacity16, { 0x10, LBA8, LBA4, 1, CTL } },
    { 0x9e, 0x12, DISK, MEDIUM | SERVICE, scsi_lba_status, { 0x12, LBA8, LBA4, 0, CTL } },
    { 0xa0, 0, BOTH, ALWAYS | LUNS, NULL, { 0, 0xff, 0, 0, 0, LBA4, 0, CTL } },
    { 0xa3,
      0x0c,
      BOTH,
      SERVICE,
      report_opcodes,
      { 0x0c, 0x87, 0xff, 0xff, 0xff, LBA4, 0, CTL } },
    { 0xa3, 0x0d, BOTH, SERVICE, report_functions, { 0x0d, 0x80, 0, 0, 0, LBA4, 0, CTL } },
    { 0xa8, 0, BOTH, MEDIUM, scsi_read, { 0x18, LBA4, LBA4, 0, CTL } },
    { 0xaa, 0, DISK, MEDIUM | WRITES, scsi_write, { 0x18, LBA4, LBA4, 0, CTL } },
    { 0xae, 0, DISK, MEDIUM | WRITES, scsi_write, { 0x12, LBA4, LBA4, 0, CTL } },
    { 0xaf, 0, DISK, MEDIUM, scsi_verify, { 0x16, LBA4, LBA4, 0, CTL } },
    { 0xbb, 0, CD, 0, scsi_nothing, { 3, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, CTL } },
    { 0xbd, 0, CD, 0, scsi_mechanism, { 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, CTL } },
    { 0xbe, 0, CD, MEDIUM, scsi_read_cd, { 0x1e, LBA4, 0xff, 0xff, 0xff, 0xf8, 7, CTL } },
};
#define N_OPS (sizeof(ops) / sizeof(ops[0]))

/* CDB length by the opcode's group (SPC-5 §4.2.5.1). */
static unsigned cdb_length(uint8_t code)
{
    static const uint8_t lengths[8] = { 6, 10, 10, 0, 16, 12, 0, 0 };

    return lengths[code >> 5];
}

static const struct op *find(const struct scsi_unit *u, uint8_t code, unsigned action)
{
    for (unsigned i = 0; i < N_OPS; i++) {
        if (ops[i].code == code && (ops[i].kinds & (u->cdrom ? CD : DISK)) &&
            (!(ops[i].flags & SERVICE) || ops[i].action == action)) {
            return &ops[i];
        }
    }
    return NULL;
}

/* REPORT SUPPORTED OPERATION CODES, one command. */
static bool report_one(struct scsi_unit *u, struct scsi_cmd *c, uint32_t allowed)
{
    unsigned how = c->cdb[2] & 7, action = (unsigned)be_get(c->cdb + 4, 2);
    const struct op *op = find(u, c->cdb[3], action);
    uint8_t out[4 + SCSI_CDB_SIZE] = { 0 };
    unsigned length;

    if (op && ((how == 1 && (op->flags & SERVICE)) || (how == 2 && !(op->flags & SERVICE)))) {
        return scsi_fail(c, SENSE_BAD_FIELD);
    }
    if (op && how == 3 && !(op->flags & SERVICE) && action != 0) {
        op = NULL;
    }
    out[1] = op ? 3 : 1;
    if (!op) {
        return scsi_answer(c, out, 4, allowed);
    }
    length = cdb_length(op->code);
    be_put(out + 2, length, 2);
    out[4] = op->code;
    memcpy(out + 5, op->usage, length - 1);
    return scsi_answer(c, out, 4 + length, allowed);
}

/* SPC-5 §6.35 */
static bool report_opcodes(struct scsi_unit *u, struct scsi_cmd *c)
{
    uint8_t out[4 + N_OPS * 20] = { 0 };
    uint32_t allowed = (uint32_t)be_get(c->cdb + 6, 4);
    bool timeouts = c->cdb[2] & 0x80;
    unsigned size = timeouts ? 20 : 8, n = 0;

    if ((c->cdb[2] & 7) > 3) {
        return scsi_fail(c, SENSE_BAD_FIELD);
    }
    if (c->cdb[2] & 7) {
        return report_one(u, c, allowed);
    }
    for (unsigned i = 0; i < N_OPS; i++) {
        uint8_t *p = out + 4 + n * size;

        if (!(ops[i].kinds & (u->cdrom ? CD : DISK))) {
            continue;
        }
        p[0] = ops[i].code;
        be_put(p + 2, ops[i].action, 2);
        p[5] = (uint8_t)((ops[i].flags & SERVICE ? 1 : 0) | (timeouts ? 2 : 0));
        be_put(p + 6, cdb_length(ops[i].code), 2);
        if (timeouts) {
            be_put(p + 8, 10, 2); /* a descriptor that promises nothing */
        }
        n++;
    }
    be_put(out, n * size, 4);
    return scsi_answer(c, out, 4 + n * size, allowed);
}

/* A LUN that is not there still answers three commands (SAM-6 §4.8, SPC-5 §6.6.1). */
static bool no_unit(struct scsi_cmd *c)
{
    static const uint8_t nothing[36] = { 0x7f, 0, 6, 2, 31 };

    switch (c->cdb[0]) {
    case 0x12:
        return c->cdb[1] & 1 ? scsi_fail(c, SENSE_BAD_FIELD)
                             : scsi_answer(c, nothing, sizeof(nothing), be_get(c->cdb + 3, 2));
    case 0x03:
        return request_sense(NULL, c, SENSE_BAD_LUN);
    default:
        return scsi_fail(c, SENSE_BAD_LUN);
    }
}

static bool not_ready(struct scsi_unit *u, const struct op *op, struct scsi_cmd *c)
{
    if (!scsi_has_medium(u)) {
        return scsi_fail(c, u->tray_open ? SENSE_TRAY_OPEN : SENSE_NO_MEDIUM);
    }
    if (u->stopped && !u->cdrom) {
        return scsi_fail(c, SENSE_STOPPED);
    }
    if ((op->flags & WRITES) && scsi_readonly(u)) {
        return scsi_fail(c, SENSE_WRITE_PROTECTED);
    }
    return false;
}

bool scsi_start(struct scsi_bus *b, unsigned target, unsigned lun, struct scsi_cmd *c)
{
    struct scsi_unit *u = scsi_find(b, target, lun);
    const struct op *op;

    if (c->cdb[0] == 0xa0 && !(u && u->cdrom && u->atapi)) {
        return report_luns(b, target, c);
    }
    if (!u) {
        return no_unit(c);
    }
    op = find(u, c->cdb[0], c->cdb[1] & 0x1f);
    if (op && !(op->flags & ALWAYS) && u->attentions) {
        return scsi_fail(c, take_attention(u));
    }
    if (!op || (op->flags & LUNS)) {
        return scsi_fail(c, SENSE_BAD_OPCODE);
    }
    if ((op->flags & MEDIUM) && not_ready(u, op, c)) {
        return true;
    }
    c->node = u->node;
    return op->fn(u, c);
}

/* --- state --- */

static const struct st_field unit_fields[] = {
    ST_FIELD(struct scsi_unit, attentions, ST_U32, 1, "unit attentions that wait"),
    ST_FIELD(struct scsi_unit, locked, ST_BOOL, 1, "the medium may not be removed"),
    ST_FIELD(struct scsi_unit, tray_open, ST_BOOL, 1, "the tray is open"),
    ST_FIELD(struct scsi_unit, stopped, ST_BOOL, 1, "the unit is stopped"),
    ST_FIELD(struct scsi_unit, cache_off, ST_BOOL, 1, "the write cache is turned off"),
    ST_FIELD(struct scsi_unit, media_event, ST_U8, 1, "media event that was not asked for yet"),
    ST_END,
};
const struct st_table scsi_unit_state = {
    .name = "scsi-unit",
    .version = 1,
    .fields = unit_fields,
};
