/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SCSI target: what only CD-ROM drives know (MMC-6). A medium is one session with one data track;
 * one that no CD could hold is a DVD. Entered as scsi.h says.
 */
#include "devices/scsi/scsi_int.h"

enum { PROFILE_CD = 0x08, PROFILE_DVD = 0x10 };
enum { TRACK = 0x14, LEAD_OUT = 0xaa }; /* data track, digital copy prohibited */
#define CD_BLOCKS (80 * 60 * 75)

static uint16_t profile(const struct scsi_unit *u)
{
    return !scsi_has_medium(u) ? 0 : scsi_blocks(u) > CD_BLOCKS ? PROFILE_DVD : PROFILE_CD;
}

/* An address as minute, second, frame, or as a number. */
static void put_address(uint8_t *p, uint64_t lba, bool msf)
{
    if (msf) {
        lba += 150;
        p[0] = 0;
        p[1] = (uint8_t)(lba / 75 / 60 > 255 ? 255 : lba / 75 / 60);
        p[2] = (uint8_t)(lba / 75 % 60);
        p[3] = (uint8_t)(lba % 75);
    } else {
        be_put(p, lba, 4);
    }
}

static unsigned toc(struct scsi_unit *u, uint8_t *out, bool msf, uint8_t first)
{
    unsigned n = 4;

    out[2] = out[3] = 1; /* tracks from and to */
    if (first <= 1) {
        out[n + 1] = TRACK;
        out[n + 2] = 1;
        put_address(out + n + 4, 0, msf);
        n += 8;
    }
    out[n + 1] = TRACK;
    out[n + 2] = LEAD_OUT;
    put_address(out + n + 4, scsi_blocks(u), msf);
    return n + 8;
}

static unsigned raw_toc(struct scsi_unit *u, uint8_t *out)
{
    static const uint8_t points[] = { 0xa0, 0xa1, 0xa2, 0x01 };
    unsigned n = 4;

    out[2] = out[3] = 1; /* sessions */
    for (unsigned i = 0; i < sizeof(points); i++) {
        uint8_t *p = out + n, at[4];

        p[0] = 1;
        p[1] = TRACK;
        p[3] = points[i];
        if (points[i] == 0xa0 || points[i] == 0xa1) {
            p[8] = 1; /* first track, last track */
        } else {
            put_address(at, points[i] == 0xa2 ? scsi_blocks(u) : 0, true);
            memcpy(p + 8, at + 1, 3);
        }
        n += 11;
    }
    return n;
}

bool scsi_read_toc(struct scsi_unit *u, struct scsi_cmd *c)
{
    bool msf = c->cdb[1] & 2;
    /* The format is in byte 2; drives before MMC-2 had it in the control byte. */
    unsigned format = c->cdb[2] & 15 ? c->cdb[2] & 15 : c->cdb[9] >> 6;
    uint8_t out[64] = { 0 };
    unsigned n;

    switch (format) {
    case 0:
        if (c->cdb[6] > 1 && c->cdb[6] != LEAD_OUT) {
            return scsi_fail(c, SENSE_BAD_FIELD);
        }
        n = toc(u, out, msf, c->cdb[6]);
        break;
    case 1: /* sessions */
        out[2] = out[3] = 1;
        out[5] = TRACK;
        out[6] = 1;
        put_address(out + 8, 0, msf);
        n = 12;
        break;
    case 2:
        n = raw_toc(u, out);
        break;
    default:
        return scsi_fail(c, SENSE_BAD_FIELD);
    }
    be_put(out, n - 2, 2);
    return scsi_answer(c, out, n, be_get(c->cdb + 7, 2));
}

/* Features, in ascending order; `current` says whether it applies to the medium. */
static unsigned feature(const struct scsi_unit *u, unsigned code, uint8_t *p)
{
    uint16_t now = profile(u);
    bool current = true;
    unsigned extra = 0;

    switch (code) {
    case 0x00: /* profiles */
        be_put(p + 4, PROFILE_DVD, 2);
        p[6] = now == PROFILE_DVD;
        be_put(p + 8, PROFILE_CD, 2);
        p[10] = now == PROFILE_CD;
        extra = 8;
        break;
    case 0x01: /* core: ATAPI or SCSI; says INQUIRY's second page and device busy events */
        be_put(p + 4, u->atapi ? 2 : 1, 4);
        p[8] = 1;
        extra = 8;
        break;
    case 0x03: /* removable: a tray that can be locked, ejected, loaded */
        p[4] = 0x39;
        extra = 4;
        break;
    case 0x10: /* random reads of 2 KiB */
        be_put(p + 4, 2048, 4);
        be_put(p + 8, 1, 2);
        extra = 8;
        current = now != 0;
        break;
    case 0x1e:
        extra = 4;
        current = now == PROFILE_CD;
        break;
    default: /* 0x1f: DVD */
        current = now == PROFILE_DVD;
    }
    be_put(p, code, 2);
    p[2] = (uint8_t)((code == 1 ? 2 << 2 : 0) | (code == 0 || code == 1 || code == 3 ? 2 : 0) |
                     (current ? 1 : 0));
    p[3] = (uint8_t)extra;
    return 4 + extra;
}

bool scsi_configuration(struct scsi_unit *u, struct scsi_cmd *c)
{
    static const uint16_t codes[] = { 0x00, 0x01, 0x03, 0x10, 0x1e, 0x1f };
    unsigned how = c->cdb[1] & 3, from = (unsigned)be_get(c->cdb + 2, 2), n = 8;
    uint8_t out[128] = { 0 };

    if (how == 3) {
        return scsi_fail(c, SENSE_BAD_FIELD);
    }
    be_put(out + 6, profile(u), 2);
    for (unsigned i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        unsigned length;

        if (codes[i] < from || (how == 2 && codes[i] != from)) {
            continue;
        }
        length = feature(u, codes[i], out + n);
        if (how == 1 && !(out[n + 2] & 1)) {
            memset(out + n, 0, length);
            continue;
        }
        n += length;
    }
    be_put(out, n - 4, 4);
    return scsi_answer(c, out, n, be_get(c->cdb + 7, 2));
}

/* GET EVENT STATUS NOTIFICATION: polled only; events of the medium. */
bool scsi_event_status(struct scsi_unit *u, struct scsi_cmd *c)
{
    uint8_t out[8] = { 0 };
    unsigned n = 4;

    if (!(c->cdb[1] & 1)) {
        return scsi_fail(c, SENSE_BAD_FIELD); /* asynchronous */
    }
    out[3] = 1 << 4; /* the classes there are */
    if (c->cdb[4] & 1 << 4) {
        out[2] = 4;
        out[4] = u->media_event;
        out[5] = (uint8_t)((u->tray_open ? 1 : 0) | (scsi_has_medium(u) ? 2 : 0));
        u->media_event = 0;
        n = 8;
    } else {
        out[2] = 0x80; /* no event of the classes asked for */
    }
    be_put(out, n - 2, 2);
    return scsi_answer(c, out, n, be_get(c->cdb + 7, 2));
}

bool scsi_disc_info(struct scsi_unit *u, struct scsi_cmd *c)
{
    uint8_t out[34] = { 0 };

    (void)u;
    if (c->cdb[1] & 7) {
        return scsi_fail(c, SENSE_BAD_FIELD);
    }
    be_put(out, sizeof(out) - 2, 2);
    out[2] = 0x0e; /* complete, last session complete */
    out[3] = out[4] = out[5] = out[6] = 1;
    out[7] = 0x20; /* no bar code, for any use */
    memset(out + 16, 0xff, 8);
    return scsi_answer(c, out, sizeof(out), be_get(c->cdb + 7, 2));
}

bool scsi_track_info(struct scsi_unit *u, struct scsi_cmd *c)
{
    uint64_t blocks = scsi_blocks(u), number = be_get(c->cdb + 2, 4);
    unsigned by = c->cdb[1] & 3;
    uint8_t out[36] = { 0 };

    if ((by == 0 && number >= blocks) || (by == 1 && number != 1) || (by == 2 && number != 1) ||
        by == 3) {
        return scsi_fail(c, SENSE_BAD_FIELD);
    }
    be_put(out, sizeof(out) - 2, 2);
    out[2] = out[3] = 1;
    out[5] = TRACK & 15;
    out[6] = 1; /* mode 1 */
    be_put(out + 24, blocks, 4);
    return scsi_answer(c, out, sizeof(out), be_get(c->cdb + 7, 2));
}

bool scsi_mechanism(struct scsi_unit *u, struct scsi_cmd *c)
{
    uint8_t out[8] = { 0 };

    out[1] = u->tray_open ? 0x10 : 0;
    return scsi_answer(c, out, sizeof(out), be_get(c->cdb + 8, 2));
}

/* READ CD: the user data of data sectors; there is nothing else on these discs. */
bool scsi_read_cd(struct scsi_unit *u, struct scsi_cmd *c)
{
    unsigned type = c->cdb[1] >> 2 & 7;
    uint64_t lba = be_get(c->cdb + 2, 4), count = be_get(c->cdb + 6, 3);

    if (c->cdb[10] & 7) {
        return scsi_fail(c, SENSE_BAD_FIELD); /* sub-channels */
    }
    if ((type != 0 && type != 2) || (c->cdb[9] & 0xf8 && (c->cdb[9] & 0xf8) != 0x10)) {
        return scsi_fail(c, SENSE_BAD_TRACK_MODE);
    }
    if (!(c->cdb[9] & 0x10)) {
        return scsi_good(c); /* no field is asked for */
    }
    memset(c->cdb + 1, 0, sizeof(c->cdb) - 1); /* as READ(12) */
    c->cdb[0] = 0xa8;
    be_put(c->cdb + 2, lba, 4);
    be_put(c->cdb + 6, count, 4);
    return scsi_read(u, c);
}
