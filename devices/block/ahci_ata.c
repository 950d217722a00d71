/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ATA commands of the AHCI controller's drives (ACS-3 §7). Entered on the main loop with the lock
 * held. Each command's function either completes it or hands it to the block node.
 */
#include "devices/block/ahci.h"
#include "engine/base/mem.h"
#include "engine/core/vm.h"

#include <errno.h>
#include <string.h>

#define MAX_RANGES 512

typedef bool ata_fn(struct ahci_req *r);

uint64_t ata_sectors(const struct ahci_port *p)
{
    return p->unit.node ? blk_size(p->unit.node) / ATA_SECTOR : 0;
}

void ata_defaults(struct ahci_port *p)
{
    p->multiple = 0;
    p->transfer_mode = 0x46; /* UDMA 6 */
    p->smart_off = p->standby = false;
    p->unit.cache_off = false;
    memset(p->sense, 0, sizeof(p->sense));
    memset(p->ncq_error, 0, sizeof(p->ncq_error));
}

bool ata_fail(struct ahci_req *r, uint8_t error)
{
    r->status = ATA_READY | ATA_DSC | ATA_ERR;
    r->error = error;
    return true;
}

static bool good(struct ahci_req *r)
{
    r->status = ATA_READY | ATA_DSC;
    r->error = 0;
    return true;
}

size_t ata_put(struct ahci_req *r, const void *data, size_t n)
{
    const uint8_t *p = data;
    size_t done = 0;

    for (unsigned i = 0; i < r->n_iov && done < n; i++) {
        size_t part = r->iov[i].iov_len < n - done ? r->iov[i].iov_len : n - done;

        memcpy(r->iov[i].iov_base, p + done, part);
        done += part;
    }
    r->moved = done;
    return done;
}

size_t ata_get(const struct ahci_req *r, void *data, size_t n)
{
    uint8_t *p = data;
    size_t done = 0;

    for (unsigned i = 0; i < r->n_iov && done < n; i++) {
        size_t part = r->iov[i].iov_len < n - done ? r->iov[i].iov_len : n - done;

        memcpy(p + done, r->iov[i].iov_base, part);
        done += part;
    }
    return done;
}

static bool answer(struct ahci_req *r, const uint8_t *data, size_t n)
{
    ata_put(r, data, n);
    return good(r);
}

/* --- reading and writing --- */

struct span {
    uint64_t lba, sectors;
};

/* 28-bit addresses have four bits in the device register, or are cylinder, head, sector. */
static struct span span28(const struct ahci_req *r)
{
    const struct ata_file *f = &r->file;
    uint64_t low = f->lba & 0xffffff, sectors = f->count & 0xff ? f->count & 0xff : 256;

    if (f->device & 0x40) {
        return (struct span){ low | (uint64_t)(f->device & 15) << 24, sectors };
    }
    low = ((low >> 8) * 16 + (f->device & 15)) * 63 + (low & 0xff) - 1;
    return (struct span){ low, sectors };
}

static struct span span48(const struct ahci_req *r)
{
    return (struct span){ r->file.lba, r->file.count ? r->file.count : 65536 };
}

static bool inside(const struct ahci_req *r, const struct span *s)
{
    uint64_t all = ata_sectors(r->port);

    return s->lba <= all && s->sectors <= all - s->lba;
}

/* The pieces hold exactly what is to be moved, or the command fails. */
static bool move(struct ahci_req *r, struct span s)
{
    uint64_t length = s.sectors * ATA_SECTOR;

    if (!inside(r, &s)) {
        return ata_fail(r, ATA_NO_ID);
    }
    if (r->write && blk_readonly(r->port->unit.node)) {
        return ata_fail(r, ATA_ABORT);
    }
    if (r->length < length) {
        return ata_fail(r, ATA_ABORT);
    }
    for (uint64_t left = length, i = 0; left > 0; i++) { /* memory behind the data */
        if (r->iov[i].iov_len >= left) {
            r->iov[i].iov_len = left;
            r->n_iov = (unsigned)i + 1;
        }
        left -= r->iov[i].iov_len;
    }
    r->moved = length;
    r->io.offset = s.lba * ATA_SECTOR;
    r->io.length = length;
    r->io.iov = r->iov;
    r->io.n_iov = r->n_iov;
    r->flush_after = r->flush_after || (r->write && r->port->unit.cache_off);
    ahci_submit(r, r->write ? BLK_WRITE : BLK_READ);
    return false;
}

static bool rw28(struct ahci_req *r)
{
    return move(r, span28(r));
}

static bool rw48(struct ahci_req *r)
{
    return move(r, span48(r));
}

static bool rw_multiple28(struct ahci_req *r)
{
    return r->port->multiple ? rw28(r) : ata_fail(r, ATA_ABORT);
}

static bool rw_multiple48(struct ahci_req *r)
{
    return r->port->multiple ? rw48(r) : ata_fail(r, ATA_ABORT);
}

static bool write_fua(struct ahci_req *r)
{
    r->flush_after = true;
    return rw48(r);
}

/* Queued: features and count have changed places, FUA is in the device register. */
static bool queued(struct ahci_req *r)
{
    struct span s = { r->file.lba, r->file.features ? r->file.features : 65536 };

    r->flush_after = r->write && (r->file.device & 0x80);
    return move(r, s);
}

static bool verify28(struct ahci_req *r)
{
    struct span s = span28(r);

    return inside(r, &s) ? good(r) : ata_fail(r, ATA_NO_ID);
}

static bool verify48(struct ahci_req *r)
{
    struct span s = span48(r);

    return inside(r, &s) ? good(r) : ata_fail(r, ATA_NO_ID);
}

static bool flush(struct ahci_req *r)
{
    if (!r->port->unit.node) {
        return good(r);
    }
    ahci_submit(r, BLK_FLUSH);
    return false;
}

/* DATA SET MANAGEMENT with TRIM: blocks of 64 ranges, a length of 0 is an empty place. */
static bool dsm(struct ahci_req *r)
{
    uint8_t raw[MAX_RANGES * 8];
    size_t bytes = (size_t)(r->file.count ? r->file.count : 65536) * ATA_SECTOR;

    if (!(r->file.features & 1) || bytes > sizeof(raw) || blk_readonly(r->port->unit.node) ||
        ata_get(r, raw, bytes) != bytes) {
        return ata_fail(r, ATA_ABORT);
    }
    r->moved = bytes;
    r->ranges = xalloc_n(MAX_RANGES, sizeof(*r->ranges));
    for (unsigned i = 0; i < bytes / 8; i++) {
        struct span s = { pci_get(raw + 8 * i, 6), pci_get(raw + 8 * i + 6, 2) };

        if (!inside(r, &s)) {
            return ata_fail(r, ATA_NO_ID | ATA_ABORT);
        }
        if (s.sectors > 0) {
            r->ranges[r->n_ranges++] = (struct scsi_range){ s.lba * ATA_SECTOR,
                                                            s.sectors * ATA_SECTOR };
        }
    }
    if (r->n_ranges == 0) {
        return good(r);
    }
    r->io.offset = r->ranges[0].offset;
    r->io.length = r->ranges[0].length;
    r->next = 1;
    r->flush_after = r->port->unit.cache_off;
    ahci_submit(r, BLK_DISCARD);
    return false;
}

/* --- what the drive is and how it is set --- */

static bool identify(struct ahci_req *r)
{
    uint8_t out[ATA_SECTOR];

    ata_identify(r->port, out);
    return answer(r, out, sizeof(out));
}

static bool identify_packet(struct ahci_req *r)
{
    uint8_t out[ATA_SECTOR];

    ata_identify_packet(r->port, out);
    return answer(r, out, sizeof(out));
}

static bool set_features(struct ahci_req *r)
{
    struct ahci_port *p = r->port;
    uint8_t mode = (uint8_t)r->file.count;

    switch (r->file.features & 0xff) {
    case 0x02:
        p->unit.cache_off = false;
        return good(r);
    case 0x82: /* what the cache holds is durable first */
        p->unit.cache_off = true;
        return flush(r);
    case 0x03:
        if (mode >> 3 == 8 ? (mode & 7) > 6 : mode >> 3 == 4 ? (mode & 7) > 2 : mode >> 3 > 1) {
            return ata_fail(r, ATA_ABORT);
        }
        p->transfer_mode = mode;
        return good(r);
    case 0x10: /* SATA features on and off, look-ahead, defaults kept or not over a reset */
    case 0x90:
    case 0x55:
    case 0xaa:
    case 0x66:
    case 0xcc:
        return good(r);
    default:
        return ata_fail(r, ATA_ABORT);
    }
}

static bool set_multiple(struct ahci_req *r)
{
    uint8_t n = (uint8_t)r->file.count;

    if (n > 16 || (n & (n - 1))) {
        return ata_fail(r, ATA_ABORT);
    }
    r->port->multiple = n;
    return good(r);
}

static bool check_power(struct ahci_req *r)
{
    r->file.count = r->port->standby ? 0x00 : 0xff;
    return good(r);
}

static bool wake(struct ahci_req *r)
{
    r->port->standby = false;
    return good(r);
}

static bool standby(struct ahci_req *r)
{
    r->port->standby = true;
    return flush(r);
}

static bool nothing(struct ahci_req *r)
{
    return good(r);
}

static bool diagnose(struct ahci_req *r)
{
    r->file.count = 1;
    r->file.lba = r->port->unit.cdrom ? 0xeb1401 : 1;
    good(r);
    r->status = r->port->unit.cdrom ? 0 : ATA_READY | ATA_DSC;
    r->error = 1; /* passed */
    return true;
}

/* IDENTIFY DEVICE at a packet device: aborted, with the signature. */
static bool refuse_packet(struct ahci_req *r)
{
    r->file.lba = 0xeb1401;
    r->file.count = 1;
    return ata_fail(r, ATA_ABORT);
}

/* --- SMART and logs --- */

static bool self_test(struct ahci_req *r)
{
    struct ahci_port *p = r->port;
    uint8_t what = (uint8_t)r->file.lba;

    if (what != 0 && (what & 0x7f) != 1 && (what & 0x7f) != 2 && (what & 0x7f) != 127) {
        return ata_fail(r, ATA_ABORT);
    }
    if (what == 0 || (what & 0x7f) == 127) {
        return good(r);
    }
    p->self_test[p->self_tests++ % AHCI_SELF_TESTS] = what; /* it passes at once */
    if (what & 0x80) { /* captive: the result in the file */
        r->file.lba = (r->file.lba & 0xff) | 0xc24f00;
    }
    return good(r);
}

static bool read_log(struct ahci_req *r, bool gpl, uint8_t log, unsigned page, unsigned pages)
{
    AUTO_FREE uint8_t *out = NULL;

    if (pages == 0 || pages > 16 || r->length < (uint64_t)pages * ATA_SECTOR) {
        return ata_fail(r, ATA_ABORT);
    }
    out = xalloc_n(pages, ATA_SECTOR);
    for (unsigned i = 0; i < pages; i++) {
        if (!ata_log(r->port, gpl, log, page + i, out + i * ATA_SECTOR) && i == 0) {
            return ata_fail(r, gpl ? ATA_ABORT : ATA_NO_ID | ATA_ABORT);
        }
    }
    return answer(r, out, (size_t)pages * ATA_SECTOR);
}

static bool read_log_ext(struct ahci_req *r)
{
    uint64_t lba = r->file.lba;

    return read_log(r, true, (uint8_t)lba, (unsigned)((lba >> 8 & 0xff) | (lba >> 24 & 0xff00)),
                    r->file.count);
}

static bool smart(struct ahci_req *r)
{
    uint8_t out[ATA_SECTOR], what = (uint8_t)r->file.features;

    if ((r->file.lba >> 8 & 0xffff) != 0xc24f || (r->port->smart_off && what != 0xd8)) {
        return ata_fail(r, ATA_ABORT);
    }
    switch (what) {
    case 0xd0:
        ata_smart_data(r->port, out);
        return answer(r, out, sizeof(out));
    case 0xd1:
        ata_smart_thresholds(out);
        return answer(r, out, sizeof(out));
    case 0xd2: /* autosave, offline collection: as they are */
    case 0xdb:
        return good(r);
    case 0xd4:
        return self_test(r);
    case 0xd5:
        return read_log(r, false, (uint8_t)r->file.lba, 0, r->file.count & 0xff);
    case 0xd8:
    case 0xd9:
        r->port->smart_off = what == 0xd9;
        return good(r);
    case 0xda: /* nothing is beyond its threshold */
        return good(r);
    default:
        return ata_fail(r, ATA_ABORT);
    }
}

/* Only some of SMART has data. */
static enum ata_protocol smart_protocol(const struct ahci_req *r)
{
    uint8_t what = (uint8_t)r->file.features;

    return what == 0xd0 || what == 0xd1 || what == 0xd5 ? ATA_PIO_IN : ATA_NO_DATA;
}

/* --- packets --- */

static bool packet_done(struct ahci_req *r)
{
    struct ahci_port *p = r->port;
    uint8_t key = r->scsi.sense[2] & 15;

    r->moved = r->scsi.moved;
    r->file.count = 3; /* interrupt reason: status */
    if (r->scsi.status == SCSI_GOOD) {
        return good(r);
    }
    memcpy(p->sense, r->scsi.sense, sizeof(p->sense));
    return ata_fail(r, (uint8_t)(key << 4 | (key == 5 ? ATA_ABORT : 0)));
}

static void packet_end(struct scsi_cmd *c);

static bool packet(struct ahci_req *r)
{
    struct ahci_port *p = r->port;
    struct scsi_cmd *c = &r->scsi;

    r->protocol = ATA_PACKET;
    if (dma_read(&p->hba->pci.dev, r->table + 0x40, c->cdb, sizeof(c->cdb)) != 0) {
        return ata_fail(r, ATA_ABORT);
    }
    memset(c->cdb + 12, 0, sizeof(c->cdb) - 12);
    c->done = packet_end;
    c->in = c->out = r->iov;
    c->n_in = r->write ? 0 : r->n_iov;
    c->n_out = r->write ? r->n_iov : 0;
    c->in_len = r->write ? 0 : r->length;
    c->out_len = r->write ? r->length : 0;
    if (c->cdb[0] == 0x03 && p->sense[0] && !(c->cdb[1] & 1)) { /* of the last command */
        size_t n = c->cdb[4] < sizeof(p->sense) ? c->cdb[4] : sizeof(p->sense);

        c->moved = ata_put(r, p->sense, n);
        memset(p->sense, 0, sizeof(p->sense));
        return packet_done(r);
    }
    memset(p->sense, 0, sizeof(p->sense));
    return scsi_start(&p->bus, 0, 0, c) ? packet_done(r) : false;
}

/* Main loop, without the lock. */
static void packet_end(struct scsi_cmd *c)
{
    struct ahci_req *r = container_of(c, struct ahci_req, scsi);

    struct ahci *h = r->port->hba;

    bus_lock(&h->pci.dev.lock);
    if (r->generation != r->port->generation) {
        ahci_request_free(r);
    } else {
        packet_done(r);
        if (h->pci.dev.vm->state == VM_RUNNING) {
            ahci_request_end(r);
            ahci_service_soon(h);
        } else {
            list_remove(&r->node);
            list_append(&r->port->finished, &r->node);
        }
    }
    bus_unlock(&h->pci.dev.lock);
}

/* --- the table --- */

enum { DISK = 1, CD = 2, BOTH = 3 };

static const struct command {
    uint8_t code, kinds;
    uint8_t protocol; /* enum ata_protocol */
    bool write;
    ata_fn *fn;
} commands[] = {
    { 0x06, DISK, ATA_DMA, true, dsm },
    { 0x08, CD, ATA_NO_DATA, false, diagnose }, /* DEVICE RESET */
    { 0x10, DISK, ATA_NO_DATA, false, nothing },
    { 0x20, DISK, ATA_PIO_IN, false, rw28 },
    { 0x21, DISK, ATA_PIO_IN, false, rw28 },
    { 0x24, DISK, ATA_PIO_IN, false, rw48 },
    { 0x25, DISK, ATA_DMA, false, rw48 },
    { 0x29, DISK, ATA_PIO_IN, false, rw_multiple48 },
    { 0x2f, DISK, ATA_PIO_IN, false, read_log_ext },
    { 0x30, DISK, ATA_PIO_OUT, true, rw28 },
    { 0x31, DISK, ATA_PIO_OUT, true, rw28 },
    { 0x34, DISK, ATA_PIO_OUT, true, rw48 },
    { 0x35, DISK, ATA_DMA, true, rw48 },
    { 0x39, DISK, ATA_PIO_OUT, true, rw_multiple48 },
    { 0x3d, DISK, ATA_DMA, true, write_fua },
    { 0x40, DISK, ATA_NO_DATA, false, verify28 },
    { 0x41, DISK, ATA_NO_DATA, false, verify28 },
    { 0x42, DISK, ATA_NO_DATA, false, verify48 },
    { 0x47, DISK, ATA_DMA, false, read_log_ext },
    { 0x60, DISK, ATA_NCQ, false, queued },
    { 0x61, DISK, ATA_NCQ, true, queued },
    { 0x70, DISK, ATA_NO_DATA, false, verify28 },
    { 0x90, BOTH, ATA_NO_DATA, false, diagnose },
    { 0x91, DISK, ATA_NO_DATA, false, nothing },
    { 0xa0, CD, ATA_PACKET, false, packet },
    { 0xa1, CD, ATA_PIO_IN, false, identify_packet },
    { 0xb0, DISK, ATA_NO_DATA, false, smart },
    { 0xc4, DISK, ATA_PIO_IN, false, rw_multiple28 },
    { 0xc5, DISK, ATA_PIO_OUT, true, rw_multiple28 },
    { 0xc6, DISK, ATA_NO_DATA, false, set_multiple },
    { 0xc8, DISK, ATA_DMA, false, rw28 },
    { 0xc9, DISK, ATA_DMA, false, rw28 },
    { 0xca, DISK, ATA_DMA, true, rw28 },
    { 0xcb, DISK, ATA_DMA, true, rw28 },
    { 0xce, DISK, ATA_PIO_OUT, true, write_fua }, /* WRITE MULTIPLE FUA EXT */
    { 0xe0, BOTH, ATA_NO_DATA, false, standby },
    { 0xe1, BOTH, ATA_NO_DATA, false, wake },
    { 0xe2, BOTH, ATA_NO_DATA, false, standby },
    { 0xe3, BOTH, ATA_NO_DATA, false, wake },
    { 0xe5, BOTH, ATA_NO_DATA, false, check_power },
    { 0xe6, BOTH, ATA_NO_DATA, false, standby }, /* SLEEP */
    { 0xe7, BOTH, ATA_NO_DATA, false, flush },
    { 0xea, DISK, ATA_NO_DATA, false, flush },
    { 0xec, DISK, ATA_PIO_IN, false, identify },
    { 0xec, CD, ATA_NO_DATA, false, refuse_packet },
    { 0xef, BOTH, ATA_NO_DATA, false, set_features },
};

bool ata_start(struct ahci_req *r)
{
    uint8_t kind = r->port->unit.cdrom ? CD : DISK;

    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        const struct command *c = &commands[i];

        if (c->code == r->file.command && (c->kinds & kind)) {
            r->protocol = c->fn == smart ? smart_protocol(r) : (enum ata_protocol)c->protocol;
            if (r->protocol != ATA_NO_DATA && r->protocol != ATA_PACKET &&
                c->write != r->write) {
                return ata_fail(r, ATA_ABORT); /* the command header says the other direction */
            }
            return c->fn(r);
        }
    }
    r->protocol = ATA_NO_DATA;
    return ata_fail(r, ATA_ABORT);
}
