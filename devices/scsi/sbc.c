/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SCSI target: the commands that move blocks (SBC-4 §5). Data goes straight between guest memory and
 * the block node; a command of several steps takes the next one when the node has done one. Entered
 * as scsi.h says; steps run on the main loop without the initiator's lock and touch the command only.
 */
#include "devices/scsi/scsi_int.h"
#include "engine/base/mem.h"

#include <errno.h>

#define SAME_STEP (1u << 20) /* bytes of pattern that one write of WRITE SAME has */

/* Where the command says what to move. */
struct extent {
    uint64_t lba;
    uint64_t blocks;
};

/* By the CDB's length: 6, 10, 12 or 16 bytes. */
static struct extent extent_of(const uint8_t *cdb)
{
    switch (cdb[0] >> 5) {
    case 0:
        return (struct extent){ be_get(cdb + 1, 3) & 0x1fffff, cdb[4] ? cdb[4] : 256 };
    case 4:
        return (struct extent){ be_get(cdb + 2, 8), be_get(cdb + 10, 4) };
    case 5:
        return (struct extent){ be_get(cdb + 2, 4), be_get(cdb + 6, 4) };
    default:
        return (struct extent){ be_get(cdb + 2, 4), be_get(cdb + 7, 2) };
    }
}

static bool in_range(const struct scsi_unit *u, const struct extent *x)
{
    uint64_t blocks = scsi_blocks(u);

    return x->lba <= blocks && x->blocks <= blocks - x->lba;
}

static enum scsi_sense sense_of(enum blk_op op, int result)
{
    return result == -ENOSPC ? SENSE_NO_SPACE
           : op == BLK_READ  ? SENSE_READ_ERROR
                             : SENSE_WRITE_ERROR;
}

/* VERIFY has read what is there: is it what the guest sent? */
static void compare(struct scsi_cmd *c)
{
    if (memcmp(c->bounce, c->expected, c->io.length) != 0) {
        scsi_fail(c, SENSE_MISCOMPARE);
    }
}

/* Prepares the next step; false when all is done. */
static bool next_step(struct scsi_cmd *c)
{
    if (c->next < c->n_ranges) {
        c->io.offset = c->ranges[c->next].offset;
        c->io.length = c->ranges[c->next++].length;
        return true;
    }
    if (c->left > 0) {
        c->io.offset += c->io.length;
        c->io.length = c->left < SAME_STEP ? c->left : SAME_STEP;
        c->one.iov_len = c->io.length;
        c->left -= c->io.length;
        return true;
    }
    if (c->flush_after) {
        c->flush_after = false;
        c->io.op = BLK_FLUSH;
        c->io.offset = c->io.length = 0;
        return true;
    }
    return false;
}

static void step_done(struct blk_req *io, int result)
{
    struct scsi_cmd *c = container_of(io, struct scsi_cmd, io);

    if (result != 0) {
        scsi_fail(c, sense_of(io->op, result));
    } else if (!c->aborted) {
        if (c->expected) {
            compare(c);
        } else if (next_step(c)) {
            blk_submit(c->node, io);
            return;
        }
    }
    c->done(c);
}

static bool submit(struct scsi_cmd *c, enum blk_op op)
{
    c->status = SCSI_GOOD;
    c->io.op = op;
    c->io.done = step_done;
    blk_submit(c->node, &c->io);
    return false;
}

/* Sets io's range and memory; false when the command is complete already. */
static bool transfer(struct scsi_unit *u, struct scsi_cmd *c, const struct extent *x,
                     const struct iovec *iov, unsigned n_iov, uint64_t room)
{
    uint64_t length = x->blocks << u->block_shift, left = length;
    unsigned n = 0;

    if (!in_range(u, x)) {
        scsi_fail(c, SENSE_LBA_RANGE);
        return false;
    }
    if (length == 0 || length > room) {
        c->overrun = length > room;
        scsi_good(c);
        return false;
    }
    c->io.offset = x->lba << u->block_shift;
    c->io.length = length;
    c->moved = length;
    while (n < n_iov && left > iov[n].iov_len) {
        left -= iov[n++].iov_len;
    }
    c->io.iov = iov;
    c->io.n_iov = n + 1;
    if (left < iov[n].iov_len) { /* the memory goes on behind the data: cut a copy */
        struct iovec *cut = xalloc_n(n + 1, sizeof(*cut));

        memcpy(cut, iov, (n + 1) * sizeof(*cut));
        cut[n].iov_len = left;
        c->bounce = (uint8_t *)cut;
        c->io.iov = cut;
    }
    return true;
}

bool scsi_read(struct scsi_unit *u, struct scsi_cmd *c)
{
    struct extent x = extent_of(c->cdb);

    if (c->cdb[0] != 0x08 && !u->cdrom && (c->cdb[1] & 0xe0)) {
        return scsi_fail(c, SENSE_BAD_FIELD); /* protection information: there is none */
    }
    return transfer(u, c, &x, c->in, c->n_in, c->in_len) ? submit(c, BLK_READ) : true;
}

/* WRITE and WRITE AND VERIFY, which writes through: the host's disk verifies. */
bool scsi_write(struct scsi_unit *u, struct scsi_cmd *c)
{
    struct extent x = extent_of(c->cdb);
    bool verifies = (c->cdb[0] & 0x1f) == 0x0e, fua = c->cdb[0] != 0x0a && (c->cdb[1] & 8);

    if (c->cdb[0] != 0x0a && (c->cdb[1] & 0xe0)) {
        return scsi_fail(c, SENSE_BAD_FIELD);
    }
    c->flush_after = u->cache_off || fua || verifies;
    return transfer(u, c, &x, c->out, c->n_out, c->out_len) ? submit(c, BLK_WRITE) : true;
}

bool scsi_flush(struct scsi_unit *u, struct scsi_cmd *c)
{
    struct extent x = extent_of(c->cdb);

    c->node = u->node;
    if (((c->cdb[0] & 0x1f) == 0x11 || c->cdb[0] == 0x35) && !in_range(u, &x)) {
        return scsi_fail(c, SENSE_LBA_RANGE);
    }
    return submit(c, BLK_FLUSH);
}

/* SEEK and PRE-FETCH: nothing to do but to check. */
bool scsi_seek(struct scsi_unit *u, struct scsi_cmd *c)
{
    struct extent x = extent_of(c->cdb);

    return in_range(u, &x) ? scsi_good(c) : scsi_fail(c, SENSE_LBA_RANGE);
}

bool scsi_verify(struct scsi_unit *u, struct scsi_cmd *c)
{
    struct extent x = extent_of(c->cdb);
    unsigned check = c->cdb[1] >> 1 & 3;
    uint64_t length = x.blocks << u->block_shift;

    if (check == 2 || (check == 3 && x.blocks == 0)) {
        return scsi_fail(c, SENSE_BAD_FIELD);
    }
    if (!in_range(u, &x)) {
        return scsi_fail(c, SENSE_LBA_RANGE);
    }
    if (check == 0 || length == 0) {
        return scsi_good(c);
    }
    if (length > SCSI_MAX_VERIFY) {
        return scsi_fail(c, SENSE_BAD_FIELD);
    }
    c->expected = xalloc(length);
    c->bounce = xalloc(length);
    if (check == 3) { /* one block, that all are compared with */
        c->moved = scsi_take(c, 0, c->expected, u->block_size);
        for (uint64_t at = u->block_size; at < length; at += u->block_size) {
            memcpy(c->expected + at, c->expected, u->block_size);
        }
    } else {
        c->moved = scsi_take(c, 0, c->expected, length);
    }
    if (c->moved < (check == 3 ? u->block_size : length)) {
        c->overrun = true;
        return scsi_good(c);
    }
    c->one = (struct iovec){ .iov_base = c->bounce, .iov_len = length };
    c->io.iov = &c->one;
    c->io.n_iov = 1;
    c->io.offset = x.lba << u->block_shift;
    c->io.length = length;
    return submit(c, BLK_READ);
}

bool scsi_unmap(struct scsi_unit *u, struct scsi_cmd *c)
{
    uint8_t in[8 + 16 * SCSI_MAX_RANGES];
    unsigned length = (unsigned)be_get(c->cdb + 7, 2), bytes, n;

    if (c->cdb[1] & 1) {
        return scsi_fail(c, SENSE_BAD_FIELD); /* anchored: there is no such thing */
    }
    if (length == 0) {
        return scsi_good(c);
    }
    if (length < 8 || length > sizeof(in) || scsi_take(c, 0, in, length) != length) {
        return scsi_fail(c, SENSE_LIST_LENGTH);
    }
    bytes = (unsigned)be_get(in + 2, 2);
    n = bytes / 16;
    if (bytes % 16 || bytes > length - 8 || n >= SCSI_MAX_RANGES) {
        return scsi_fail(c, SENSE_BAD_PARAMETER);
    }
    c->moved = length;
    c->ranges = n > 0 ? xalloc_n(n, sizeof(*c->ranges)) : NULL;
    for (unsigned i = 0; i < n; i++) {
        const uint8_t *p = in + 8 + 16 * i;
        struct extent x = { be_get(p, 8), be_get(p + 8, 4) };

        if (!in_range(u, &x)) {
            return scsi_fail(c, SENSE_LBA_RANGE);
        }
        if (x.blocks << u->block_shift > SCSI_MAX_UNMAP) {
            return scsi_fail(c, SENSE_BAD_PARAMETER);
        }
        if (x.blocks > 0) {
            c->ranges[c->n_ranges++] = (struct scsi_range){ x.lba << u->block_shift,
                                                            x.blocks << u->block_shift };
        }
    }
    c->flush_after = u->cache_off;
    return c->n_ranges > 0 && next_step(c) ? submit(c, BLK_DISCARD) : scsi_good(c);
}

static bool all_zero(const uint8_t *p, size_t n)
{
    return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

/* The pattern of a WRITE SAME in a buffer that is written again and again. */
static bool write_pattern(struct scsi_unit *u, struct scsi_cmd *c, uint64_t length)
{
    uint64_t size = length < SAME_STEP ? length : SAME_STEP;

    c->bounce = xalloc(size);
    for (uint64_t at = 0; at < size; at += u->block_size) {
        scsi_take(c, 0, c->bounce + at, u->block_size);
    }
    c->one = (struct iovec){ .iov_base = c->bounce, .iov_len = size };
    c->io.iov = &c->one;
    c->io.n_iov = 1;
    c->io.length = size;
    c->left = length - size;
    return submit(c, BLK_WRITE);
}

bool scsi_write_same(struct scsi_unit *u, struct scsi_cmd *c)
{
    struct extent x = extent_of(c->cdb);
    bool no_data = c->cdb[0] == 0x93 && (c->cdb[1] & 1), unmap = c->cdb[1] & 8;
    uint64_t length = x.blocks << u->block_shift;
    uint8_t block[4096];

    /* Anchoring, protection, the old logical-block and physical-block patterns. */
    if ((c->cdb[1] & 0xf6) || x.blocks == 0 || length > SCSI_MAX_UNMAP) {
        return scsi_fail(c, SENSE_BAD_FIELD);
    }
    if (!in_range(u, &x)) {
        return scsi_fail(c, SENSE_LBA_RANGE);
    }
    memset(block, 0, sizeof(block));
    if (!no_data && scsi_take(c, 0, block, u->block_size) != u->block_size) {
        c->overrun = true;
        return scsi_good(c);
    }
    c->moved = no_data ? 0 : u->block_size;
    c->flush_after = u->cache_off;
    c->io.offset = x.lba << u->block_shift;
    if (!all_zero(block, u->block_size)) {
        return write_pattern(u, c, length);
    }
    c->io.length = length;
    c->io.flags = unmap ? BLK_UNMAP : 0;
    return submit(c, BLK_ZERO);
}

bool scsi_capacity10(struct scsi_unit *u, struct scsi_cmd *c)
{
    uint64_t blocks = scsi_blocks(u);
    uint8_t out[8];

    be_put(out, blocks > UINT32_MAX ? UINT32_MAX : blocks - (blocks > 0), 4);
    be_put(out + 4, u->block_size, 4);
    return scsi_answer(c, out, sizeof(out), sizeof(out));
}

bool scsi_capacity16(struct scsi_unit *u, struct scsi_cmd *c)
{
    uint64_t blocks = scsi_blocks(u);
    uint8_t out[32] = { 0 };

    be_put(out, blocks - (blocks > 0), 8);
    be_put(out + 8, u->block_size, 4);
    out[14] = 0x80; /* provisioning is managed */
    return scsi_answer(c, out, sizeof(out), be_get(c->cdb + 10, 4));
}

/* GET LBA STATUS: everything counts as mapped, which is always a right answer. */
bool scsi_lba_status(struct scsi_unit *u, struct scsi_cmd *c)
{
    uint64_t lba = be_get(c->cdb + 2, 8), blocks = scsi_blocks(u), left;
    uint8_t out[24] = { 0 };

    if (lba >= blocks) {
        return scsi_fail(c, SENSE_LBA_RANGE);
    }
    left = blocks - lba;
    be_put(out, sizeof(out) - 4, 4);
    be_put(out + 8, lba, 8);
    be_put(out + 16, left > UINT32_MAX ? UINT32_MAX : left, 4);
    return scsi_answer(c, out, sizeof(out), be_get(c->cdb + 10, 4));
}

/* START STOP UNIT (SBC-4 §5.31, MMC-6 §6.42): stopping makes what was written durable. */
bool scsi_start_stop(struct scsi_unit *u, struct scsi_cmd *c)
{
    bool start = c->cdb[4] & 1, tray = c->cdb[4] & 2;

    if (c->cdb[4] & 0xf0) { /* a power condition: all are the same here */
        return scsi_good(c);
    }
    if (tray && !u->removable) {
        return scsi_fail(c, SENSE_BAD_FIELD);
    }
    if (tray && !start && u->locked && !u->tray_open) {
        return scsi_fail(c, SENSE_LOCKED);
    }
    if (tray && scsi_move_tray(u, !start) && u->tray_moved) {
        u->tray_moved(u->tray_arg);
    }
    if (!u->cdrom && !tray) {
        u->stopped = !start;
        if (!start && u->node && !scsi_readonly(u)) {
            return scsi_flush(u, c);
        }
    }
    return scsi_good(c);
}

bool scsi_prevent(struct scsi_unit *u, struct scsi_cmd *c)
{
    u->locked = c->cdb[4] & 1;
    return scsi_good(c);
}
