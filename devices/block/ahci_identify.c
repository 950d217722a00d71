/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a SATA drive says of itself: IDENTIFY DEVICE, SMART data, logs (ACS-3 §7.12, §7.48, annex A).
 * Pure functions on the drive's state.
 */
#include "devices/block/ahci.h"

#include <string.h>

#define FIRMWARE "1.0"

static void word(uint8_t *out, unsigned n, uint16_t v)
{
    pci_put(out + 2 * n, v, 2);
}

/* Strings have their characters in pairs the wrong way round, padded with blanks. */
static void text(uint8_t *out, unsigned n, unsigned words, const char *s)
{
    char padded[64];
    size_t length = strlen(s);

    memset(padded, ' ', sizeof(padded));
    memcpy(padded, s, length < 2 * words ? length : 2 * words);
    for (unsigned i = 0; i < words; i++) {
        out[2 * (n + i)] = (uint8_t)padded[2 * i + 1];
        out[2 * (n + i) + 1] = (uint8_t)padded[2 * i];
    }
}

/* Makes the 512 bytes sum up to zero. */
static void checksum(uint8_t *out)
{
    uint8_t sum = 0;

    for (unsigned i = 0; i < 511; i++) {
        sum = (uint8_t)(sum + out[i]);
    }
    out[511] = (uint8_t)-sum;
}

static void common(const struct ahci_port *p, uint8_t *out)
{
    text(out, 10, 10, p->unit.serial[0] ? p->unit.serial : "0");
    text(out, 23, 4, FIRMWARE);
    text(out, 27, 20, p->unit.cdrom ? "VMD CD-ROM" : "VMD DISK");
    word(out, 49, 0x0f00 | (p->unit.cdrom ? 0 : 0x2000)); /* DMA, LBA, IORDY, timers */
    word(out, 53, 7);
    word(out, 63, 0x0007 | (p->transfer_mode >> 3 == 4 ? 0x100u << (p->transfer_mode & 7) : 0));
    word(out, 64, 3);
    for (unsigned i = 65; i <= 68; i++) {
        word(out, i, 120);
    }
    word(out, 77, 3 << 1); /* 6 Gb/s */
    word(out, 80, 0x07f0); /* ATA-4 to ACS-3 */
    word(out, 88, 0x007f | (p->transfer_mode >> 3 == 8 ? 0x100u << (p->transfer_mode & 7) : 0));
    word(out, 222, 0x107f); /* serial, up to SATA 3.1 */
}

static void name(const struct ahci_port *p, uint8_t *out)
{
    uint64_t hash = 0xcbf29ce484222325ull;

    for (const char *s = p->unit.serial; *s; s++) {
        hash = (hash ^ (uint8_t)*s) * 0x100000001b3ull;
    }
    hash = 5ull << 60 | hash >> 4;
    for (unsigned i = 0; i < 4; i++) {
        word(out, 108 + i, (uint16_t)(hash >> (48 - 16 * i)));
    }
}

static void geometry(uint8_t *out, uint64_t sectors)
{
    uint64_t cylinders = sectors / (16 * 63);

    cylinders = cylinders > 16383 ? 16383 : cylinders;
    word(out, 1, (uint16_t)cylinders);
    word(out, 3, 16);
    word(out, 6, 63);
    word(out, 54, (uint16_t)cylinders);
    word(out, 55, 16);
    word(out, 56, 63);
    pci_put(out + 2 * 57, cylinders * 16 * 63, 4);
}

void ata_identify(const struct ahci_port *p, uint8_t *out)
{
    uint64_t sectors = ata_sectors(p);
    bool writable = !blk_readonly(p->unit.node);

    memset(out, 0, ATA_SECTOR);
    common(p, out);
    word(out, 0, 0x0040);
    geometry(out, sectors);
    word(out, 47, 0x8010);
    word(out, 50, 0x4000);
    word(out, 59, p->multiple ? 0x100 | p->multiple : 0);
    pci_put(out + 2 * 60, sectors > 0x0fffffff ? 0x0fffffff : sectors, 4);
    word(out, 75, AHCI_SLOTS - 1);
    word(out, 76, 0x010e | 1 << 15); /* three speeds, NCQ, READ LOG DMA like READ LOG */
    /* SMART, power management, write cache, look-ahead; 48 bits, flushes; logs, FUA, name. */
    word(out, 82, 0x4069);
    word(out, 83, 0x7400);
    word(out, 84, 0x4163);
    word(out, 85, (uint16_t)(0x4048 | (p->unit.cache_off ? 0 : 0x20) | (p->smart_off ? 0 : 1)));
    word(out, 86, 0xb400);
    word(out, 87, 0x4163);
    pci_put(out + 2 * 100, sectors, 8);
    name(p, out);
    word(out, 119, 0x4008); /* READ LOG DMA */
    word(out, 120, 0x4008);
    if (writable) {
        word(out, 105, 8); /* blocks of ranges */
        word(out, 169, 1); /* TRIM */
    }
    word(out, 217, 1); /* does not rotate */
    out[510] = 0xa5;
    checksum(out);
}

void ata_identify_packet(const struct ahci_port *p, uint8_t *out)
{
    memset(out, 0, ATA_SECTOR);
    common(p, out);
    word(out, 0, 0x85c0); /* a removable CD drive, 12-byte packets */
    word(out, 76, 0x000e);
    word(out, 82, 0x4218); /* NOP, DEVICE RESET, packets, power management */
    word(out, 83, 0x4000);
    word(out, 84, 0x4000);
    word(out, 85, 0x4218);
    word(out, 86, 0x0000);
    word(out, 87, 0x4000);
    out[510] = 0xa5;
    checksum(out);
}

/* --- SMART --- */

static const struct attribute {
    uint8_t id, threshold;
    uint16_t flags;
    uint8_t raw;
} attributes[] = {
    { 5, 10, 0x0033, 0 },  /* reallocated sectors */
    { 9, 0, 0x0032, 1 },   /* hours powered on */
    { 12, 0, 0x0032, 1 },  /* power cycles */
    { 187, 0, 0x0032, 0 }, /* reported uncorrectable errors */
    { 194, 0, 0x0022, ATA_TEMPERATURE },
    { 197, 0, 0x0032, 0 }, /* pending sectors */
    { 198, 0, 0x0030, 0 }, /* offline uncorrectable */
    { 199, 0, 0x003e, 0 }, /* CRC errors */
};
#define N_ATTRIBUTES (sizeof(attributes) / sizeof(attributes[0]))

void ata_smart_data(const struct ahci_port *p, uint8_t *out)
{
    (void)p;
    memset(out, 0, ATA_SECTOR);
    out[0] = 16;
    for (unsigned i = 0; i < N_ATTRIBUTES; i++) {
        uint8_t *a = out + 2 + 12 * i;

        a[0] = attributes[i].id;
        pci_put(a + 1, attributes[i].flags, 2);
        a[3] = a[4] = 100;
        a[5] = attributes[i].raw;
    }
    out[362] = 0x82; /* offline collection was completed */
    out[367] = 0x19; /* it and self-tests by command */
    out[368] = 3;
    out[370] = 1; /* error log */
    out[372] = out[373] = 1;
    checksum(out);
}

void ata_smart_thresholds(uint8_t *out)
{
    memset(out, 0, ATA_SECTOR);
    out[0] = 16;
    for (unsigned i = 0; i < N_ATTRIBUTES; i++) {
        out[2 + 12 * i] = attributes[i].id;
        out[3 + 12 * i] = attributes[i].threshold;
    }
    checksum(out);
}

/* --- logs --- */

enum {
    LOG_DIRECTORY = 0x00,
    LOG_SUMMARY = 0x01,
    LOG_ERRORS = 0x03,
    LOG_SELF_TEST = 0x06,
    LOG_SELF_TEST_EXT = 0x07,
    LOG_NCQ = 0x10
};

/* Which logs there are: by SMART, by READ LOG EXT; all have one page. */
static const struct {
    uint8_t log;
    bool smart, gpl;
} logs[] = { { LOG_DIRECTORY, true, true },      { LOG_SUMMARY, true, false },
             { LOG_ERRORS, false, true },        { LOG_SELF_TEST, true, false },
             { LOG_SELF_TEST_EXT, false, true }, { LOG_NCQ, false, true } };
#define N_LOGS (sizeof(logs) / sizeof(logs[0]))

/* The newest entries, `size` bytes each from `at`; the byte of the index tells which is newest. */
static void self_tests(const struct ahci_port *p, uint8_t *out, unsigned at, unsigned size,
                       unsigned most)
{
    for (uint32_t i = 0; i < most && i < p->self_tests && i < AHCI_SELF_TESTS; i++) {
        uint32_t number = p->self_tests - 1 - i, place = number % AHCI_SELF_TESTS;
        uint8_t *e = out + at + size * (number % most);

        e[0] = p->self_test[place];
        e[2] = 1; /* hours */
    }
}

static void directory(bool gpl, uint8_t *out)
{
    out[0] = 1;
    for (unsigned i = 1; i < N_LOGS; i++) {
        out[2 * logs[i].log] = gpl ? logs[i].gpl : logs[i].smart;
    }
}

bool ata_log(const struct ahci_port *p, bool gpl, uint8_t log, unsigned page, uint8_t *out)
{
    bool there = false;

    for (unsigned i = 0; i < N_LOGS; i++) {
        there = there || (logs[i].log == log && (gpl ? logs[i].gpl : logs[i].smart));
    }
    memset(out, 0, ATA_SECTOR);
    if (!there || page > 0) {
        return false;
    }
    switch (log) {
    case LOG_DIRECTORY:
        directory(gpl, out);
        return true; /* has no checksum */
    case LOG_NCQ:
        memcpy(out, p->ncq_error, sizeof(p->ncq_error));
        break;
    case LOG_SELF_TEST:
        out[0] = 1;
        self_tests(p, out, 2, 24, AHCI_SELF_TESTS);
        out[508] = (uint8_t)(p->self_tests ? (p->self_tests - 1) % AHCI_SELF_TESTS + 1 : 0);
        break;
    case LOG_SELF_TEST_EXT:
        out[0] = 1;
        self_tests(p, out, 4, 26, 19);
        pci_put(out + 2, p->self_tests ? (p->self_tests - 1) % 19 + 1 : 0, 2);
        break;
    default: /* no errors */
        out[0] = 1;
    }
    checksum(out);
    return true;
}
