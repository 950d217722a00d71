/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SCSI target: mode pages (SPC-5 §6.13, §7.5; SBC-4 §6.5; MMC-6 annex E) and log pages (SPC-5 §6.8,
 * §7.3; SBC-4 §6.4). Entered as scsi.h says.
 */
#include "devices/scsi/scsi_int.h"

enum { CURRENT = 0, CHANGEABLE = 1, DEFAULTS = 2, SAVED = 3 };
enum { PAGE_CACHING = 0x08, WCE = 4 };

/* --- mode pages --- */

static unsigned page_recovery(const struct scsi_unit *u, unsigned control, uint8_t *p)
{
    (void)p, (void)control;
    if (control != CHANGEABLE && !u->cdrom) {
        p[2] = 0xc0; /* defects are reassigned */
    }
    return u->cdrom ? 8 : 12;
}

static unsigned page_caching(const struct scsi_unit *u, unsigned control, uint8_t *p)
{
    bool on = control == CURRENT ? !u->cache_off : true;

    p[2] = on ? WCE : 0;
    return 20;
}

static unsigned page_control(const struct scsi_unit *u, unsigned control, uint8_t *p)
{
    (void)u;
    if (control != CHANGEABLE) {
        p[2] = 2;    /* full sense */
        p[3] = 0x10; /* commands may be reordered */
        p[8] = p[9] = 0xff;
    }
    return 12;
}

static unsigned page_power(const struct scsi_unit *u, unsigned control, uint8_t *p)
{
    (void)u, (void)control, (void)p;
    return 12;
}

static unsigned page_exceptions(const struct scsi_unit *u, unsigned control, uint8_t *p)
{
    (void)u;
    if (control != CHANGEABLE) {
        p[3] = 6; /* on request */
    }
    return 12;
}

/* CD capabilities: reads CD and DVD, tray that ejects and locks, 50 times a CD's speed. */
static unsigned page_cd(const struct scsi_unit *u, unsigned control, uint8_t *p)
{
    if (control != CHANGEABLE) {
        p[2] = 0x3b; /* CD-R, CD-RW, DVD-ROM, DVD-R */
        p[4] = 0x70; /* mode 2, multisession */
        p[6] = (uint8_t)(0x29 | (u->locked ? 2 : 0));
        be_put(p + 8, 50 * 176, 2);
        be_put(p + 10, 2, 2);
        be_put(p + 12, 2048, 2);
        be_put(p + 14, 50 * 176, 2);
    }
    return 22;
}

static const struct page {
    uint8_t code;
    bool disk, cd;
    unsigned (*fill)(const struct scsi_unit *u, unsigned control, uint8_t *p);
} pages[] = {
    { 0x01, true, true, page_recovery },    { PAGE_CACHING, true, false, page_caching },
    { 0x0a, true, false, page_control },    { 0x1a, true, true, page_power },
    { 0x1c, true, false, page_exceptions }, { 0x2a, false, true, page_cd },
};
#define N_PAGES (sizeof(pages) / sizeof(pages[0]))

static unsigned add_page(const struct scsi_unit *u, const struct page *g, unsigned control,
                         uint8_t *p)
{
    unsigned n = g->fill(u, control, p);

    p[0] = g->code;
    p[1] = (uint8_t)(n - 2);
    return n;
}

/* The one block descriptor of a disk; returns its length. */
static unsigned block_descriptor(const struct scsi_unit *u, bool is_long, uint8_t *p)
{
    uint64_t blocks = scsi_blocks(u);

    if (is_long) {
        be_put(p, blocks, 8);
        be_put(p + 12, u->block_size, 4);
        return 16;
    }
    be_put(p, blocks > UINT32_MAX ? UINT32_MAX : blocks, 4);
    be_put(p + 5, u->block_size, 3);
    return 8;
}

bool scsi_mode_sense(struct scsi_unit *u, struct scsi_cmd *c)
{
    bool ten = c->cdb[0] == 0x5a, is_long = ten && (c->cdb[1] & 0x10);
    unsigned control = c->cdb[2] >> 6, code = c->cdb[2] & 0x3f, header = ten ? 8 : 4;
    unsigned n = header, blocks = 0, before;
    uint8_t out[256] = { 0 };

    if (control == SAVED) {
        return scsi_fail(c, SENSE_NO_SAVING);
    }
    if (c->cdb[3] != 0 && c->cdb[3] != 0xff) {
        return scsi_fail(c, SENSE_BAD_FIELD); /* no subpages */
    }
    if (!(c->cdb[1] & 8) && !u->cdrom) {
        blocks = block_descriptor(u, is_long, out + n);
        n += blocks;
    }
    before = n;
    for (unsigned i = 0; i < N_PAGES; i++) {
        if ((u->cdrom ? pages[i].cd : pages[i].disk) &&
            (code == 0x3f || code == pages[i].code)) {
            n += add_page(u, &pages[i], control, out + n);
        }
    }
    if (n == before && code != 0) {
        return scsi_fail(c, SENSE_BAD_FIELD);
    }
    /* Medium type, write protection, FUA; lengths do not count themselves. */
    out[ten ? 3 : 2] = u->cdrom ? 0 : (uint8_t)((scsi_readonly(u) ? 0x80 : 0) | 0x10);
    if (ten) {
        be_put(out, n - 2, 2);
        out[4] = is_long && blocks ? 1 : 0;
        be_put(out + 6, blocks, 2);
    } else {
        out[0] = (uint8_t)(n - 1);
        out[3] = (uint8_t)blocks;
    }
    return scsi_answer(c, out, n, ten ? be_get(c->cdb + 7, 2) : c->cdb[4]);
}

static const struct page *page_find(const struct scsi_unit *u, uint8_t code)
{
    for (unsigned i = 0; i < N_PAGES; i++) {
        if (pages[i].code == code && (u->cdrom ? pages[i].cd : pages[i].disk)) {
            return &pages[i];
        }
    }
    return NULL;
}

/* Checks a page that the guest sends: nothing may differ but what is changeable. */
static bool page_ok(const struct scsi_unit *u, const uint8_t *p, unsigned left)
{
    uint8_t now[64] = { 0 }, mask[64] = { 0 };
    const struct page *g = left >= 2 ? page_find(u, p[0] & 0x3f) : NULL;
    unsigned n = g ? add_page(u, g, CURRENT, now) : 0;

    if (!g || (p[0] & 0x40) || p[1] + 2u != n || n > left) {
        return false;
    }
    g->fill(u, CHANGEABLE, mask);
    for (unsigned i = 2; i < n; i++) {
        if ((p[i] ^ now[i]) & ~mask[i]) {
            return false;
        }
    }
    return true;
}

/* MODE SELECT: of all that the pages say only the write cache can be changed. */
bool scsi_mode_select(struct scsi_unit *u, struct scsi_cmd *c)
{
    bool ten = c->cdb[0] == 0x55;
    unsigned length = ten ? (unsigned)be_get(c->cdb + 7, 2) : c->cdb[4], at;
    uint8_t in[512];

    if (c->cdb[1] & 1) {
        return scsi_fail(c, SENSE_BAD_FIELD); /* nothing can be saved */
    }
    if (length == 0) {
        return scsi_good(c);
    }
    if (length > sizeof(in) || scsi_take(c, 0, in, length) != length ||
        length < (ten ? 8u : 4u)) {
        return scsi_fail(c, SENSE_LIST_LENGTH);
    }
    c->moved = length;
    at = ten ? 8 + (unsigned)be_get(in + 6, 2) : 4u + in[3];
    for (unsigned i = at; i < length; i += 2u + in[i + 1]) {
        if (!page_ok(u, in + i, length - i)) {
            return scsi_fail(c, SENSE_BAD_PARAMETER);
        }
    }
    for (unsigned i = at; i < length; i += 2u + in[i + 1]) {
        if ((in[i] & 0x3f) == PAGE_CACHING) {
            u->cache_off = !(in[i + 2] & WCE);
        }
    }
    /* What the cache holds is durable before it counts as turned off. */
    return u->cache_off && u->node ? scsi_flush(u, c) : scsi_good(c);
}

/* --- log pages --- */

static uint8_t *parameter(uint8_t *p, unsigned code, unsigned length)
{
    be_put(p, code, 2);
    p[2] = 3; /* binary, in a list */
    p[3] = (uint8_t)length;
    return p + 4;
}

static unsigned log_errors(uint8_t *p)
{
    for (unsigned i = 0; i < 7; i++) {
        parameter(p + 12 * i, i, 8);
    }
    return 7 * 12;
}

static unsigned log_other_errors(uint8_t *p)
{
    parameter(p, 0, 8);
    return 12;
}

static unsigned log_temperature(uint8_t *p)
{
    parameter(p, 0, 2)[1] = SCSI_TEMPERATURE;
    parameter(p + 6, 1, 2)[1] = 70;
    return 12;
}

static unsigned log_self_tests(uint8_t *p)
{
    for (unsigned i = 0; i < 20; i++) {
        parameter(p + 20 * i, i + 1, 16);
    }
    return 400;
}

static unsigned log_exceptions(uint8_t *p)
{
    parameter(p, 0, 4)[2] = SCSI_TEMPERATURE;
    return 8;
}

static const struct log {
    uint8_t code;
    unsigned (*fill)(uint8_t *p);
} logs[] = {
    { 0x02, log_errors },       { 0x03, log_errors },      { 0x05, log_errors },
    { 0x06, log_other_errors }, { 0x0d, log_temperature }, { 0x10, log_self_tests },
    { 0x2f, log_exceptions },
};
#define N_LOGS (sizeof(logs) / sizeof(logs[0]))

bool scsi_log_sense(struct scsi_unit *u, struct scsi_cmd *c)
{
    uint8_t out[512] = { 0 };
    unsigned n = 0, code = c->cdb[2] & 0x3f;
    bool there = code == 0;

    if (c->cdb[3] != 0 || (c->cdb[1] & 1) || be_get(c->cdb + 5, 2) != 0 || u->cdrom) {
        return scsi_fail(c, SENSE_BAD_FIELD);
    }
    out[0] = (uint8_t)code;
    out[4] = 0;
    n = code == 0 ? 1 : 0;
    for (unsigned i = 0; i < N_LOGS; i++) {
        if (code == 0) {
            out[4 + n++] = logs[i].code;
        } else if (logs[i].code == code) {
            n = logs[i].fill(out + 4);
            there = true;
        }
    }
    if (!there) {
        return scsi_fail(c, SENSE_BAD_FIELD);
    }
    be_put(out + 2, n, 2);
    return scsi_answer(c, out, 4 + n, be_get(c->cdb + 7, 2));
}
