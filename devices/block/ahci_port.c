/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A port of the AHCI controller: command lists, FISes, the life of a command (AHCI 1.3.1 §4, §5, §6).
 * Commands are fetched, carried out and completed on the main loop; the function's device lock
 * covers all.
 *
 * A command that is not queued has the port for itself. One that fails stops the port until
 * software has started it anew, and its bit stays in PxCI (PxSACT when queued).
 */
#include "devices/block/ahci.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/core/vm.h"

#include <errno.h>
#include <string.h>

enum { CMD_START = 1, CMD_FRE = 0x10, CMD_CCS = 0x1f << 8, CMD_CR = 1 << 15 };
enum { IS_D2H = 1, IS_PIO = 2, IS_SDB = 8, IS_BUS = 1 << 29, IS_FAILED = 1 << 30 };
enum { FIS_H2D = 0x27, FIS_D2H = 0x34, FIS_PIO = 0x5f, FIS_SDB = 0xa1 };
enum { AT_PIO = 0x20, AT_D2H = 0x40, AT_SDB = 0x58 };
enum { HEADER_ATAPI = 1 << 5, HEADER_WRITE = 1 << 6, HEADER_CLEAR = 1 << 10 };
enum { SRST = 4 };

static struct mem_space *memory(struct ahci_port *p)
{
    return p->hba->pci.dev.vm->mem;
}

/* --- FISes to the host --- */

static void post(struct ahci_port *p, unsigned at, const uint8_t *fis, size_t n)
{
    if ((p->cmd & CMD_FRE) && dma_write(&p->hba->pci.dev, p->fb + at, fis, n) != 0) {
        log_trace('v', "%s: port %u has its FISes outside RAM", p->hba->pci.dev.id, p->n);
        p->is |= IS_BUS;
    }
}

static void fill_file(uint8_t *fis, const struct ata_file *f, uint8_t status, uint8_t error)
{
    fis[2] = status;
    fis[3] = error;
    pci_put(fis + 4, f->lba & 0xffffff, 3);
    fis[7] = f->device;
    pci_put(fis + 8, f->lba >> 24, 3);
    pci_put(fis + 12, f->count, 2);
}

static void post_d2h(struct ahci_port *p, const struct ata_file *f, uint8_t status,
                     uint8_t error, bool interrupt)
{
    uint8_t fis[20] = { FIS_D2H, interrupt ? 0x40 : 0 };

    fill_file(fis, f, status, error);
    post(p, AT_D2H, fis, sizeof(fis));
    p->tfd = (uint32_t)error << 8 | status;
    p->is |= interrupt ? IS_D2H : 0;
}

static void post_pio(struct ahci_port *p, const struct ahci_req *r, bool last)
{
    uint8_t fis[20] = { FIS_PIO, (uint8_t)((r->write ? 0 : 0x20) | (last ? 0x40 : 0)) };

    fill_file(fis, &r->file, ATA_READY | ATA_DSC | ATA_DRQ, 0);
    fis[15] = last ? r->status : ATA_READY | ATA_DSC;
    pci_put(fis + 16, r->moved > 0xffff ? 0xffff : r->moved, 2);
    post(p, AT_PIO, fis, sizeof(fis));
    if (last) {
        p->tfd = (uint32_t)r->error << 8 | r->status;
        p->is |= IS_PIO;
    }
}

static void post_sdb(struct ahci_port *p, uint32_t done, uint8_t status, uint8_t error)
{
    uint8_t fis[8] = { FIS_SDB, 0x40, status & 0x77, error };

    pci_put(fis + 4, done, 4);
    post(p, AT_SDB, fis, sizeof(fis));
    p->tfd = (uint32_t)error << 8 | (p->tfd & 0x88) | (status & 0x77);
    p->sact &= ~done;
    p->is |= IS_SDB;
}

/* --- resets --- */

void ahci_port_signature(struct ahci_port *p)
{
    struct ata_file f = { .count = 1, .lba = p->unit.cdrom ? 0xeb1401 : 1 };

    if (!p->signature_due || !(p->cmd & CMD_FRE)) {
        return;
    }
    p->signature_due = false;
    p->sig = p->unit.cdrom ? 0xeb140101 : 0x00000101;
    post_d2h(p, &f, p->unit.cdrom ? 0 : ATA_READY | ATA_DSC, 1, false);
}

static void drive_reset(struct ahci_port *p)
{
    ata_defaults(p);
    p->signature_due = true;
    ahci_port_signature(p);
}

void ahci_port_reset(struct ahci_port *p)
{
    p->tfd = 0x7f;
    p->sig = UINT32_MAX;
    p->in_reset = false;
    p->signature_due = false;
    p->ssts = 0;
    if (p->present) {
        p->tfd = 0xff & ~0x80;
        p->ssts = 0x133; /* active, 6 Gb/s, there and talking */
        p->serr |= 1 << 26 | 1 << 16;
        scsi_unit_reset(&p->unit);
        drive_reset(p);
    }
}

/* --- life of a port --- */

void ahci_port_start(struct ahci_port *p)
{
    p->cmd |= CMD_CR;
    p->stalled = false;
    ahci_service_soon(p->hba);
}

void ahci_port_stop(struct ahci_port *p)
{
    list_for_each (it, &p->in_flight) {
        list_entry(it, struct ahci_req, node)->scsi.aborted = true;
    }
    if (p->unit.node) {
        blk_abandon(p->unit.node);
    }
    p->generation++;
    while (!list_empty(&p->finished)) {
        ahci_request_free(list_entry(p->finished.next, struct ahci_req, node));
    }
    p->ci = p->sact = p->begun = 0;
    p->stalled = false;
    p->cmd &= ~(uint32_t)(CMD_CR | CMD_CCS);
    if (p->present && (p->tfd & ATA_BUSY)) {
        p->tfd = ATA_READY | ATA_DSC;
    }
}

/* --- completion --- */

/* The newest failed queued command, as log 10h tells it. */
static void note_ncq_error(struct ahci_port *p, const struct ahci_req *r)
{
    uint8_t *l = p->ncq_error;

    memset(l, 0, sizeof(p->ncq_error));
    l[0] = r->file.tag;
    l[2] = r->status;
    l[3] = r->error;
    pci_put(l + 4, r->file.lba & 0xffffff, 3);
    l[7] = r->file.device;
    pci_put(l + 8, r->file.lba >> 24, 3);
    pci_put(l + 12, r->file.count, 2);
}

static void count_bytes(struct ahci_port *p, const struct ahci_req *r)
{
    uint8_t bytes[4];

    pci_put(bytes, r->moved, 4);
    (void)dma_write(&p->hba->pci.dev, p->clb + 32 * r->slot + 4, bytes, sizeof(bytes));
}

static void end_plain(struct ahci_port *p, struct ahci_req *r, bool failed)
{
    if (r->protocol == ATA_PIO_IN && !failed) {
        post_pio(p, r, true);
    } else {
        if (r->protocol == ATA_PACKET && r->moved > 0 && !(r->file.features & 1)) {
            post_pio(p, r, false);
        }
        post_d2h(p, &r->file, r->status, r->error, true);
    }
    if (!failed) {
        p->ci &= ~(1u << r->slot);
    }
}

void ahci_request_end(struct ahci_req *r)
{
    struct ahci_port *p = r->port;
    bool failed = r->status & ATA_ERR;

    for (unsigned i = 0; !r->write && i < r->n_iov; i++) {
        mem_written(memory(p), r->gpa[i], r->iov[i].iov_len);
    }
    p->begun &= ~(1u << r->slot);
    if (p->stalled) {
        ahci_request_free(r); /* aborted by the failure of another queued command */
        return;
    }
    if (r->protocol != ATA_NCQ) {
        count_bytes(p, r);
        end_plain(p, r, failed);
    } else if (failed) {
        note_ncq_error(p, r);
        p->ci &= ~(1u << r->slot);
        post_sdb(p, 0, r->status, r->error);
    } else {
        post_sdb(p, 1u << r->slot, r->status, 0);
    }
    if (failed) {
        p->stalled = true;
        p->is |= IS_FAILED;
        p->cmd = (p->cmd & ~(uint32_t)CMD_CCS) | r->slot << 8;
    }
    ahci_request_free(r);
    ahci_interrupt(p->hba);
}

/* The next step of a command that has several; false when it is done. */
static bool next_step(struct ahci_req *r)
{
    if (r->next < r->n_ranges) {
        r->io.offset = r->ranges[r->next].offset;
        r->io.length = r->ranges[r->next++].length;
    } else if (r->flush_after) {
        r->flush_after = false;
        r->io.op = BLK_FLUSH;
    } else {
        return false;
    }
    blk_submit(r->port->unit.node, &r->io);
    return true;
}

static void on_done(struct blk_req *io, int result)
{
    struct ahci_req *r = container_of(io, struct ahci_req, io);
    struct ahci *h = r->port->hba;

    bus_lock(&h->pci.dev.lock);
    if (r->generation != r->port->generation) {
        ahci_request_free(r);
    } else if (result != 0 || !next_step(r)) {
        r->status = ATA_READY | ATA_DSC;
        if (result != 0) {
            log_trace('v', "%s: command 0x%02x fails: %s", h->pci.dev.id, r->file.command,
                      strerror(-result));
            ata_fail(r, io->op == BLK_READ ? ATA_UNC : ATA_ABORT);
        }
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

void ahci_submit(struct ahci_req *r, enum blk_op op)
{
    r->io.op = op;
    r->io.done = on_done;
    blk_submit(r->port->unit.node, &r->io);
}

/* --- fetching --- */

/* Behind an IOMMU one entry may be several. */
static bool add_pieces(struct ahci_req *r, uint64_t at, uint64_t length)
{
    for (uint64_t done = 0, piece; done < length; done += piece) {
        uint64_t gpa;
        void *host;

        piece = length - done;
        host = r->n_iov < AHCI_MAX_PIECES
                   ? dma_piece(&r->port->hba->pci.dev, at + done, &piece, !r->write, &gpa)
                   : NULL;
        if (!host) {
            return false;
        }
        if (r->n_iov == r->room) {
            r->room = r->room ? 2 * r->room : r->prds;
            r->iov = xrealloc_n(r->iov, r->room, sizeof(*r->iov));
            r->gpa = xrealloc_n(r->gpa, r->room, sizeof(*r->gpa));
        }
        r->iov[r->n_iov] = (struct iovec){ .iov_base = host, .iov_len = piece };
        r->gpa[r->n_iov++] = gpa;
        r->length += piece;
    }
    return true;
}

/* Finds the memory of a command; false when it is not in RAM or has too many pieces. */
static bool map_table(struct ahci_req *r)
{
    uint64_t at = r->table + 0x80;
    uint8_t raw[16];

    if (r->prds == 0) {
        return true;
    }
    if (r->prds > AHCI_MAX_PIECES) {
        return false;
    }
    for (unsigned i = 0; i < r->prds; i++, at += sizeof(raw)) {
        if (dma_read(&r->port->hba->pci.dev, at, raw, sizeof(raw)) != 0) {
            return false;
        }
        if (!add_pieces(r, pci_get(raw, 8) & ~1ull, (pci_get(raw + 12, 4) & 0x3fffff) + 1)) {
            return false;
        }
    }
    return true;
}

static void decode(const uint8_t *fis, struct ata_file *f)
{
    f->command = fis[2];
    f->features = (uint16_t)(fis[3] | fis[11] << 8);
    f->lba = pci_get(fis + 4, 3) | pci_get(fis + 8, 3) << 24;
    f->device = fis[7];
    f->count = (uint16_t)pci_get(fis + 12, 2);
    f->control = fis[15];
    f->tag = fis[12] >> 3;
}

static void bus_error(struct ahci_port *p, const char *what)
{
    log_trace('v', "%s: port %u: %s is not in RAM", p->hba->pci.dev.id, p->n, what);
    p->is |= IS_BUS;
    p->stalled = true;
    ahci_interrupt(p->hba);
}

/* A FIS that sets the control register: only SRST does something. */
static void control_fis(struct ahci_port *p, unsigned slot, uint8_t control)
{
    p->ci &= ~(1u << slot);
    if (control & SRST) {
        p->in_reset = true;
        p->tfd = ATA_BUSY;
    } else if (p->in_reset) {
        p->in_reset = false;
        drive_reset(p);
    }
}

/* Queued commands come together, any other has the port for itself. */
static bool may_begin(const struct ahci_port *p, bool is_queued)
{
    uint32_t queued_now = p->begun & p->sact;

    return is_queued ? p->begun == queued_now : p->begun == 0;
}

/* Fetches the command of a slot. False: it has to wait, or the port has stopped. */
static bool begin(struct ahci_port *p, unsigned slot)
{
    uint8_t header[16], fis[20];
    struct ahci_req *r;
    uint32_t flags;
    uint64_t table;
    bool is_queued;

    if (dma_read(&p->hba->pci.dev, p->clb + 32 * slot, header, sizeof(header)) != 0) {
        bus_error(p, "the command list");
        return false;
    }
    flags = (uint32_t)pci_get(header, 4);
    table = pci_get(header + 8, 8) & ~127ull;
    if (dma_read(&p->hba->pci.dev, table, fis, sizeof(fis)) != 0) {
        bus_error(p, "a command table");
        return false;
    }
    if (fis[0] != FIS_H2D || !(fis[1] & 0x80)) {
        if (p->begun) {
            return false;
        }
        control_fis(p, slot, fis[0] == FIS_H2D ? fis[15] : 0);
        return true;
    }
    is_queued = (fis[2] == 0x60 || fis[2] == 0x61) && !p->unit.cdrom;
    if (p->in_reset || !may_begin(p, is_queued)) {
        return false;
    }
    r = xnew(struct ahci_req);
    r->port = p;
    r->generation = p->generation;
    r->slot = slot;
    r->table = table;
    r->write = flags & HEADER_WRITE;
    r->prds = flags >> 16;
    decode(fis, &r->file);
    list_append(&p->in_flight, &r->node);
    p->begun |= 1u << slot;
    if (is_queued) { /* the drive has taken it: the slot's bit is PxSACT's from now on */
        p->ci &= ~(1u << slot);
    } else {
        p->tfd = (p->tfd & ~0xffu) | ATA_BUSY | ATA_READY;
        p->cmd = (p->cmd & ~(uint32_t)CMD_CCS) | slot << 8;
    }
    if (!map_table(r)) {
        r->protocol = is_queued ? ATA_NCQ : ATA_NO_DATA;
        ata_fail(r, ATA_ABORT);
        p->is |= IS_BUS;
        ahci_request_end(r);
    } else if (ata_start(r)) {
        ahci_request_end(r);
    }
    return true;
}

void ahci_port_serve(struct ahci_port *p)
{
    while (!list_empty(&p->finished)) {
        ahci_request_end(list_entry(p->finished.next, struct ahci_req, node));
    }
    for (unsigned slot = 0; slot < AHCI_SLOTS; slot++) {
        if ((p->ci >> slot & 1) && !(p->begun >> slot & 1) && !p->stalled &&
            (p->cmd & CMD_START) && p->present && !begin(p, slot)) {
            return;
        }
    }
}
