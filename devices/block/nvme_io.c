/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NVMe: data pointers (NVM Express 1.4 §4.3, §4.4) and the NVM command set (§6). Entered on the
 * main loop with the function's lock, completions too.
 *
 * PRP lists and SGL segments are copied before they are looked at, and followed no further than
 * the transfer is long or NVME_MAX_PIECES allow.
 */
#include "devices/block/nvme.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/core/vm.h"

#include <string.h>

enum {
    OP_FLUSH = 0x00,
    OP_WRITE = 0x01,
    OP_READ = 0x02,
    OP_COMPARE = 0x05,
    OP_WRITE_ZEROES = 0x08,
    OP_DSM = 0x09,
    OP_VERIFY = 0x0c
};
enum { FUA = 1u << 30, DEALLOCATE = 1u << 25, DSM_DEALLOCATE = 4 };
enum { SGL_DATA = 0, SGL_BIT_BUCKET = 1, SGL_SEGMENT = 2, SGL_LAST_SEGMENT = 3 };
#define SGL_MAX_SEGMENTS 16

/* --- data pointers
 * --------------------------------------------------------------------------- */

/* Behind an IOMMU it may lie in several. */
static uint16_t add_piece(struct nvme *n, struct nvme_data *d, uint64_t at, uint64_t length,
                          bool write)
{
    for (uint64_t done = 0, piece; done < length; done += piece) {
        uint64_t gpa;
        void *host;

        if (d->n == NVME_MAX_PIECES) {
            return NVME_BAD_SGL_COUNT | NVME_DO_NOT_RETRY;
        }
        piece = length - done;
        host = dma_piece(&n->pci.dev, at + done, &piece, write, &gpa);
        if (!host) {
            return NVME_TRANSFER_ERROR;
        }
        d->iov[d->n] = (struct iovec){ .iov_base = host, .iov_len = piece };
        d->gpa[d->n++] = gpa;
        d->length += piece;
    }
    return NVME_OK;
}

/* The list that PRP2 points to. Its last entry in a page leads to the next page of the list, if
 * more than one page of data is left. */
static uint16_t prp_list(struct nvme *n, uint64_t list, uint64_t left, bool write,
                         struct nvme_data *d)
{
    uint64_t page = nvme_page(n), entry;
    uint16_t status = NVME_OK;

    for (unsigned steps = 0; left > 0 && status == NVME_OK; steps++) {
        bool last = (list & (page - 1)) == page - 8;

        if (steps > 2 * NVME_MAX_PIECES || list % 8 ||
            dma_read(&n->pci.dev, list, &entry, 8) != 0) {
            return list % 8 ? NVME_BAD_PRP_OFFSET | NVME_DO_NOT_RETRY : NVME_TRANSFER_ERROR;
        }
        entry = le64toh(entry);
        if (last && left > page) {
            list = entry;
            continue;
        }
        if (entry & (page - 1)) {
            return NVME_BAD_PRP_OFFSET | NVME_DO_NOT_RETRY;
        }
        status = add_piece(n, d, entry, left < page ? left : page, write);
        left -= left < page ? left : page;
        list += 8;
    }
    return status;
}

static uint16_t map_prps(struct nvme *n, const struct nvme_cmd *c, uint64_t length, bool write,
                         struct nvme_data *d)
{
    uint64_t page = nvme_page(n), first = page - (c->prp1 & (page - 1)), left;
    uint16_t status;

    if (c->prp1 & 3) {
        return NVME_BAD_PRP_OFFSET | NVME_DO_NOT_RETRY;
    }
    first = first < length ? first : length;
    left = length - first;
    status = add_piece(n, d, c->prp1, first, write);
    if (status != NVME_OK || left == 0) {
        return status;
    }
    if (left > page) {
        return prp_list(n, c->prp2, left, write, d);
    }
    return c->prp2 & (page - 1) ? NVME_BAD_PRP_OFFSET | NVME_DO_NOT_RETRY
                                : add_piece(n, d, c->prp2, left, write);
}

struct sgl {
    uint64_t addr;
    uint32_t length;
    uint8_t type;
};

static struct sgl sgl_read(const uint8_t p[16])
{
    return (struct sgl){ pci_get(p, 8), (uint32_t)pci_get(p + 8, 4), p[15] };
}

static uint16_t sgl_data(struct nvme *n, const struct sgl *s, uint64_t *left, bool write,
                         struct nvme_data *d)
{
    uint64_t length = s->length < *left ? s->length : *left;

    if (s->type >> 4 != SGL_DATA || s->type & 15) {
        return NVME_BAD_SGL_TYPE | NVME_DO_NOT_RETRY;
    }
    *left -= length;
    return add_piece(n, d, s->addr, length, write);
}

/* One segment; *next is the descriptor of the one behind it, its type SGL_DATA when there is
 * none. */
static uint16_t sgl_segment(struct nvme *n, struct sgl *next, uint64_t *left, bool write,
                            struct nvme_data *d)
{
    unsigned count = next->length / 16;
    bool last = next->type >> 4 == SGL_LAST_SEGMENT;
    uint64_t at = next->addr;
    uint16_t status = NVME_OK;
    uint8_t raw[16];

    if (next->length % 16 || count == 0 || count > NVME_MAX_PIECES) {
        return NVME_BAD_SGL_SEGMENT | NVME_DO_NOT_RETRY;
    }
    next->type = SGL_DATA;
    for (unsigned i = 0; i<count && * left> 0 && status == NVME_OK; i++, at += 16) {
        struct sgl s;

        if (dma_read(&n->pci.dev, at, raw, sizeof(raw)) != 0) {
            return NVME_TRANSFER_ERROR;
        }
        s = sgl_read(raw);
        if (!last && i + 1 == count &&
            (s.type >> 4 == SGL_SEGMENT || s.type >> 4 == SGL_LAST_SEGMENT)) {
            *next = s;
            return NVME_OK;
        }
        status = sgl_data(n, &s, left, write, d);
    }
    return status;
}

static uint16_t map_sgl(struct nvme *n, const struct nvme_cmd *c, uint64_t length, bool write,
                        struct nvme_data *d)
{
    struct sgl s = sgl_read(c->sgl);
    uint64_t left = length;
    uint16_t status = NVME_OK;

    if (s.type >> 4 == SGL_DATA) {
        status = sgl_data(n, &s, &left, write, d);
    } else if (s.type >> 4 != SGL_SEGMENT && s.type >> 4 != SGL_LAST_SEGMENT) {
        return NVME_BAD_SGL_TYPE | NVME_DO_NOT_RETRY;
    }
    for (unsigned i = 0; status == NVME_OK && left > 0 && s.type >> 4 != SGL_DATA; i++) {
        status = i < SGL_MAX_SEGMENTS ? sgl_segment(n, &s, &left, write, d)
                                      : NVME_BAD_SGL_COUNT | NVME_DO_NOT_RETRY;
    }
    return status == NVME_OK && left > 0 ? NVME_BAD_SGL_LENGTH | NVME_DO_NOT_RETRY : status;
}

uint16_t nvme_map(struct nvme *n, const struct nvme_cmd *c, uint64_t length, bool write,
                  struct nvme_data *out)
{
    out->n = 0;
    out->length = 0;
    switch (c->flags >> 6) {
    case 0:
        return map_prps(n, c, length, write, out);
    case 1:
        return map_sgl(n, c, length, write, out);
    default:
        return NVME_BAD_FIELD | NVME_DO_NOT_RETRY;
    }
}

uint16_t nvme_copy_in(struct nvme *n, const struct nvme_cmd *c, void *out, uint64_t length)
{
    struct nvme_data d;
    uint16_t status = nvme_map(n, c, length, false, &d);
    uint8_t *to = out;

    for (unsigned i = 0; status == NVME_OK && i < d.n; i++) {
        memcpy(to, d.iov[i].iov_base, d.iov[i].iov_len);
        to += d.iov[i].iov_len;
    }
    return status;
}

uint16_t nvme_copy_out(struct nvme *n, const struct nvme_cmd *c, const void *in,
                       uint64_t length)
{
    struct nvme_data d;
    uint16_t status = nvme_map(n, c, length, true, &d);
    const uint8_t *from = in;

    for (unsigned i = 0; status == NVME_OK && i < d.n; i++) {
        memcpy(d.iov[i].iov_base, from, d.iov[i].iov_len);
        mem_written(n->pci.dev.vm->mem, d.gpa[i], d.iov[i].iov_len);
        from += d.iov[i].iov_len;
    }
    return status;
}

/* --- requests
 * -------------------------------------------------------------------------------- */

void nvme_req_free(struct nvme_req *r)
{
    list_remove(&r->node);
    if (r->bounce && r->generation == r->owner->generation) {
        r->owner->bounces--;
    }
    free(r->bounce);
    free(r->ranges);
    free(r->iov);
    free(r->gpa);
    free(r);
}

/* Keeps the pieces for as long as the request lives. */
static void keep(struct nvme_req *r, const struct nvme_data *d)
{
    r->n_iov = d->n;
    r->iov = xalloc_n(d->n, sizeof(*r->iov));
    r->gpa = xalloc_n(d->n, sizeof(*r->gpa));
    memcpy(r->iov, d->iov, d->n * sizeof(*r->iov));
    memcpy(r->gpa, d->gpa, d->n * sizeof(*r->gpa));
}

static void compare(struct nvme_req *r)
{
    const uint8_t *p = r->bounce;

    for (unsigned i = 0; i < r->n_iov; i++) {
        if (memcmp(p, r->iov[i].iov_base, r->iov[i].iov_len) != 0) {
            r->status = NVME_COMPARE_FAILED | NVME_DO_NOT_RETRY;
        }
        p += r->iov[i].iov_len;
    }
}

void nvme_req_end(struct nvme_req *r)
{
    struct nvme *n = r->owner;

    for (unsigned i = 0; r->io.op == BLK_READ && !r->bounce && i < r->n_iov; i++) {
        mem_written(n->pci.dev.vm->mem, r->gpa[i], r->iov[i].iov_len);
    }
    if (r->bounce && r->status == NVME_OK) {
        compare(r);
    }
    if (r->status != NVME_OK) {
        nvme_log_error(n, r);
    }
    nvme_complete(n, r->sqid, r->cid, r->status, r->dw0);
    nvme_req_free(r);
}

/* The next range of a request that has several; false when all are done. */
static bool next_range(struct nvme_req *r)
{
    if (r->next == r->n_ranges) {
        return false;
    }
    r->io.offset = r->ranges[r->next].offset;
    r->io.length = r->ranges[r->next++].length;
    return true;
}

static void on_done(struct blk_req *io, int result)
{
    struct nvme_req *r = container_of(io, struct nvme_req, io);
    struct nvme *n = r->owner;
    struct bus_lock *lock = &n->pci.dev.lock;

    bus_lock(lock);
    if (r->generation != n->generation) {
        nvme_req_free(r);
        r = NULL;
    } else if (result != 0) {
        log_trace('v', "%s: command fails: %s", n->pci.dev.id, strerror(-result));
        r->status = io->op == BLK_READ ? NVME_READ_ERROR : NVME_WRITE_FAULT;
        n->media_errors++;
    } else if (next_range(r)) {
        blk_submit(r->disk, io);
        r = NULL;
    } else if (r->all && r->all < n->namespaces->n) {
        r->disk = n->namespaces->node[r->all++];
        blk_submit(r->disk, io);
        r = NULL;
    } else if (r->flush_after) {
        r->flush_after = false;
        io->op = BLK_FLUSH;
        blk_submit(r->disk, io);
        r = NULL;
    }
    if (r) {
        if (n->pci.dev.vm->state == VM_RUNNING) {
            nvme_req_end(r);
            nvme_service_soon(n);
        } else {
            list_remove(&r->node);
            list_append(&n->finished, &r->node);
        }
    }
    bus_unlock(lock);
}

static struct nvme_req *req_new(struct nvme *n, uint16_t sqid, const struct nvme_cmd *c,
                                struct blk_node *disk)
{
    struct nvme_req *r = xnew(struct nvme_req);

    r->owner = n;
    r->disk = disk;
    r->generation = n->generation;
    r->sqid = sqid;
    r->cid = c->cid;
    r->nsid = c->nsid;
    r->io.done = on_done;
    r->io.queue = sqid;
    list_append(&n->in_flight, &r->node);
    return r;
}

/* --- commands
 * -------------------------------------------------------------------------------- */

/* LBA range of a command as bytes; status NVME_LBA_RANGE outside the namespace. */
static uint16_t byte_range(struct nvme *n, struct blk_node *disk, uint64_t lba, uint64_t blocks,
                           struct nvme_range *out)
{
    uint64_t size = blk_size(disk) >> n->block_shift;

    if (lba > size || blocks > size - lba) {
        return NVME_LBA_RANGE | NVME_DO_NOT_RETRY;
    }
    out->offset = lba << n->block_shift;
    out->length = blocks << n->block_shift;
    return NVME_OK;
}

static uint64_t lba_of(const struct nvme_cmd *c)
{
    return c->dw10 | (uint64_t)c->dw11 << 32;
}

static uint16_t read_write(struct nvme *n, uint16_t sqid, const struct nvme_cmd *c,
                           struct blk_node *disk)
{
    bool write = c->opcode == OP_WRITE;
    struct nvme_range range;
    struct nvme_data d;
    struct nvme_req *r;
    uint16_t status = byte_range(n, disk, lba_of(c), (c->dw12 & 0xffff) + 1, &range);

    if (status == NVME_OK && range.length > NVME_MAX_TRANSFER) {
        status = NVME_BAD_FIELD | NVME_DO_NOT_RETRY;
    }
    if (status == NVME_OK) {
        status = nvme_map(n, c, range.length, c->opcode == OP_READ, &d);
    }
    if (status != NVME_OK) {
        return status;
    }
    r = req_new(n, sqid, c, disk);
    keep(r, &d);
    r->lba = lba_of(c);
    r->io.op = write ? BLK_WRITE : BLK_READ;
    r->io.offset = range.offset;
    r->io.length = range.length;
    r->io.iov = r->iov;
    r->io.n_iov = r->n_iov;
    r->flush_after = (write && n->cache_off) || (c->dw12 & FUA);
    if (c->opcode == OP_COMPARE) {
        r->bounce = xalloc(range.length);
        r->bounce_iov = (struct iovec){ .iov_base = r->bounce, .iov_len = range.length };
        r->io.iov = &r->bounce_iov;
        r->io.n_iov = 1;
        n->bounces++;
    }
    n->reads += !write;
    n->writes += write;
    *(write ? &n->written_bytes : &n->read_bytes) += range.length;
    blk_submit(disk, &r->io);
    return NVME_PENDING;
}

static uint16_t flush(struct nvme *n, uint16_t sqid, const struct nvme_cmd *c,
                      struct blk_node *disk)
{
    struct nvme_req *r = req_new(n, sqid, c, disk);

    r->all = c->nsid == UINT32_MAX ? 1 : 0;
    r->io.op = BLK_FLUSH;
    blk_submit(disk, &r->io);
    return NVME_PENDING;
}

static uint16_t write_zeroes(struct nvme *n, uint16_t sqid, const struct nvme_cmd *c,
                             struct blk_node *disk)
{
    struct nvme_range range;
    uint16_t status = byte_range(n, disk, lba_of(c), (c->dw12 & 0xffff) + 1, &range);
    struct nvme_req *r;

    if (status != NVME_OK) {
        return status;
    }
    r = req_new(n, sqid, c, disk);
    r->lba = lba_of(c);
    r->io.op = BLK_ZERO;
    r->io.flags = c->dw12 & DEALLOCATE ? BLK_UNMAP : 0;
    r->io.offset = range.offset;
    r->io.length = range.length;
    r->flush_after = n->cache_off || (c->dw12 & FUA);
    blk_submit(disk, &r->io);
    return NVME_PENDING;
}

/* Dataset management: only deallocation does something; other attributes are hints. */
static uint16_t dsm(struct nvme *n, uint16_t sqid, const struct nvme_cmd *c,
                    struct blk_node *disk)
{
    unsigned count = (c->dw10 & 0xff) + 1;
    uint8_t raw[NVME_MAX_RANGES * 16];
    struct nvme_range ranges[NVME_MAX_RANGES];
    uint16_t status = nvme_copy_in(n, c, raw, count * 16);
    unsigned used = 0;
    struct nvme_req *r;

    for (unsigned i = 0; i < count && status == NVME_OK; i++) {
        uint64_t blocks = pci_get(raw + 16 * i + 4, 4), lba = pci_get(raw + 16 * i + 8, 8);

        status = byte_range(n, disk, lba, blocks, &ranges[used]);
        used += status == NVME_OK && blocks > 0;
    }
    if (status != NVME_OK || !(c->dw11 & DSM_DEALLOCATE) || used == 0) {
        return status;
    }
    r = req_new(n, sqid, c, disk);
    r->ranges = xalloc_n(used, sizeof(*r->ranges));
    memcpy(r->ranges, ranges, used * sizeof(*r->ranges));
    r->n_ranges = used;
    r->io.op = BLK_DISCARD;
    (void)next_range(r);
    blk_submit(disk, &r->io);
    return NVME_PENDING;
}

#define ERASE_STEP (1ull << 30)

uint16_t nvme_erase(struct nvme *n, const struct nvme_cmd *c, struct blk_node *disk)
{
    uint64_t size = blk_size(disk);
    unsigned count = (unsigned)((size + ERASE_STEP - 1) / ERASE_STEP);
    struct nvme_req *r;

    if (count == 0) {
        return NVME_OK;
    }
    r = req_new(n, 0, c, disk);
    r->ranges = xalloc_n(count, sizeof(*r->ranges));
    for (unsigned i = 0; i < count; i++) {
        uint64_t at = i * ERASE_STEP;

        r->ranges[i] = (struct nvme_range){ at,
                                            size - at < ERASE_STEP ? size - at : ERASE_STEP };
    }
    r->n_ranges = count;
    r->io.op = BLK_ZERO;
    r->io.flags = BLK_UNMAP;
    r->flush_after = true;
    (void)next_range(r);
    blk_submit(disk, &r->io);
    return NVME_PENDING;
}

uint16_t nvme_io(struct nvme *n, uint16_t sqid, const struct nvme_cmd *c)
{
    bool all = c->opcode == OP_FLUSH && c->nsid == UINT32_MAX;
    struct blk_node *disk = nvme_disk(n, all ? 1 : c->nsid);
    bool writes = c->opcode == OP_WRITE || c->opcode == OP_WRITE_ZEROES || c->opcode == OP_DSM;

    if (c->flags & 3) { /* fused operations are not offered */
        return NVME_BAD_FIELD | NVME_DO_NOT_RETRY;
    }
    if (!disk) {
        return NVME_BAD_NAMESPACE | NVME_DO_NOT_RETRY;
    }
    if (writes && blk_readonly(disk)) {
        return NVME_READ_ONLY | NVME_DO_NOT_RETRY;
    }
    switch (c->opcode) {
    case OP_FLUSH:
        return flush(n, sqid, c, disk);
    case OP_WRITE:
    case OP_READ:
    case OP_COMPARE:
        return read_write(n, sqid, c, disk);
    case OP_WRITE_ZEROES:
        return write_zeroes(n, sqid, c, disk);
    case OP_DSM:
        return dsm(n, sqid, c, disk);
    default:
        return NVME_BAD_OPCODE | NVME_DO_NOT_RETRY;
    }
}
