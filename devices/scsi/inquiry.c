/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SCSI target: INQUIRY and its vital product data (SPC-5 §6.6, §7.7; SBC-4 §6.6). Entered as scsi.h
 * says.
 */
#include "devices/scsi/scsi_int.h"

#define VPD_MAX 256

static const char *serial(const struct scsi_unit *u)
{
    return u->serial[0] ? u->serial : "0";
}

static unsigned vpd_serial(const struct scsi_unit *u, uint8_t *p)
{
    size_t n = strlen(serial(u));

    memcpy(p, serial(u), n);
    return (unsigned)n;
}

/* A name that stays when the disk moves: its serial number, as text and as a 60-bit number. */
static unsigned vpd_identification(const struct scsi_unit *u, uint8_t *p)
{
    const char *s = serial(u);
    size_t n = strlen(s);
    uint64_t hash = 0xcbf29ce484222325ull;

    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ (uint8_t)s[i]) * 0x100000001b3ull;
    }
    p[0] = 2; /* ASCII */
    p[1] = 1; /* of the unit, by T10 vendor */
    p[3] = (uint8_t)(8 + n);
    scsi_text(p + 4, SCSI_VENDOR, 8);
    memcpy(p + 12, s, n);
    p += 12 + n;
    p[0] = 1; /* binary */
    p[1] = 3; /* NAA, locally assigned */
    p[3] = 8;
    be_put(p + 4, 3ull << 60 | hash >> 4, 8);
    return (unsigned)(12 + n + 12);
}

/* Block limits. */
static unsigned vpd_limits(const struct scsi_unit *u, uint8_t *p)
{
    uint32_t most = (uint32_t)(SCSI_MAX_UNMAP >> u->block_shift);

    p -= 4;                                 /* offsets as in the standard */
    p[4] = 1;                               /* WRITE SAME with no length is refused */
    be_put(p + 6, 1, 2);                    /* granularity of transfers */
    be_put(p + 20, most, 4);                /* of an UNMAP range */
    be_put(p + 24, SCSI_MAX_RANGES - 1, 4); /* ranges */
    be_put(p + 28, 4096 >> u->block_shift, 4);
    be_put(p + 36, most, 8); /* of WRITE SAME */
    return 0x3c;
}

static unsigned vpd_characteristics(const struct scsi_unit *u, uint8_t *p)
{
    (void)u;
    be_put(p, 1, 2); /* does not rotate */
    return 0x3c;
}

static unsigned vpd_provisioning(const struct scsi_unit *u, uint8_t *p)
{
    (void)u;
    p[1] = 0x80 | 0x40 | 0x20; /* UNMAP, and both WRITE SAME with UNMAP */
    p[2] = 2;                  /* thin */
    return 4;
}

static const struct vpd {
    uint8_t page;
    bool disk_only;
    unsigned (*fill)(const struct scsi_unit *u, uint8_t *p); /* what follows the header */
} vpds[] = {
    { 0x80, false, vpd_serial },      { 0x83, false, vpd_identification },
    { 0xb0, true, vpd_limits },       { 0xb1, true, vpd_characteristics },
    { 0xb2, true, vpd_provisioning },
};
#define N_VPDS (sizeof(vpds) / sizeof(vpds[0]))

static uint8_t kind(const struct scsi_unit *u)
{
    return u->cdrom ? 5 : 0;
}

static bool vpd(struct scsi_unit *u, struct scsi_cmd *c)
{
    uint8_t out[VPD_MAX] = { kind(u), c->cdb[2] };
    unsigned n = 0;

    if (c->cdb[2] == 0) {
        n = 1; /* itself */
    }
    for (unsigned i = 0; i < N_VPDS; i++) {
        if (vpds[i].disk_only && u->cdrom) {
            continue;
        }
        if (c->cdb[2] == 0) {
            out[4 + n++] = vpds[i].page;
        } else if (c->cdb[2] == vpds[i].page) {
            n = vpds[i].fill(u, out + 4);
        }
    }
    if (n == 0) {
        return scsi_fail(c, SENSE_BAD_FIELD);
    }
    be_put(out + 2, n, 2);
    return scsi_answer(c, out, 4 + n, be_get(c->cdb + 3, 2));
}

bool scsi_inquiry(struct scsi_unit *u, struct scsi_cmd *c)
{
    /* What it keeps to: SAM-5, SPC-4, and SBC-3 or MMC-6. */
    static const uint16_t disk[] = { 0x00a0, 0x0460, 0x04c0 },
                          cd[] = { 0x00a0, 0x0460, 0x04e0 };
    uint8_t out[96] = { 0 };

    if (c->cdb[1] & 1) {
        return vpd(u, c);
    }
    if (c->cdb[2] != 0) {
        return scsi_fail(c, SENSE_BAD_FIELD);
    }
    out[0] = kind(u);
    out[1] = u->removable ? 0x80 : 0;
    out[2] = u->atapi ? 0 : 6; /* SPC-4 */
    out[3] = u->atapi ? 0x32 : 0x12;
    out[4] = u->atapi ? 31 : sizeof(out) - 5;
    out[7] = u->atapi ? 0 : 2; /* command queuing */
    scsi_text(out + 8, SCSI_VENDOR, 8);
    scsi_text(out + 16, scsi_product(u), 16);
    scsi_text(out + 32, SCSI_REVISION, 4);
    for (unsigned i = 0; i < 3; i++) {
        be_put(out + 58 + 2 * i, u->cdrom ? cd[i] : disk[i], 2);
    }
    return scsi_answer(c, out, u->atapi ? 36 : sizeof(out), be_get(c->cdb + 3, 2));
}
