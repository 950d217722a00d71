/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NVMe controller (NVM Express 1.4): registers, queues, interrupts, life. A vCPU's doorbell only
 * notes the new tail; commands are fetched, carried out and completed on the main loop. The
 * function's device lock covers all.
 *
 * A command is fetched only while its completion queue has a place for it, so completions never
 * wait; no more are under way than the submission queue has entries.
 */
#include "devices/block/nvme.h"
#include "devices/registry.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/core/replay.h"
#include "engine/core/vm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { REGS = 0x1000, BAR_SIZE = 0x4000, BAR_MSIX = 4 };
enum { CC_ENABLE = 1, CSTS_READY = 1, CSTS_FATAL = 2, CSTS_SHUTDOWN = 3 << 2 };
enum { CC_SHN = 3 << 14 };
#define NVME_VERSION 0x00010400u

static struct nvme *nvme_of(struct device *d)
{
    return (struct nvme *)d;
}

unsigned nvme_page(const struct nvme *n)
{
    return 4096u << (n->cc >> 7 & 15);
}

struct blk_node *nvme_disk(struct nvme *n, uint32_t nsid)
{
    return nsid >= 1 && nsid <= n->namespaces->n ? n->namespaces->node[nsid - 1] : NULL;
}

/* --- interrupts
 * ------------------------------------------------------------------------------ */

static bool cq_waits(const struct nvme *n, const struct nvme_cq *cq)
{
    return cq->size && cq->interrupts && cq->head != cq->tail && !(n->masked >> cq->vector & 1);
}

static void wire(struct nvme *n)
{
    bool level = false;

    for (unsigned i = 0; i < NVME_QUEUES; i++) {
        level = level || cq_waits(n, &n->cq[i]);
    }
    pci_intx_set(&n->pci, level);
}

void nvme_interrupt(struct nvme *n, struct nvme_cq *cq)
{
    if (pci_msix_on(&n->pci)) {
        if (cq->interrupts) {
            (void)pci_message(&n->pci, cq->vector);
        }
    } else {
        if (cq_waits(n, cq)) {
            (void)pci_message(&n->pci, 0);
        }
        wire(n);
    }
}

/* --- queues
 * ---------------------------------------------------------------------------------- */

static void fatal(struct nvme *n, const char *what)
{
    log_trace('v', "%s: %s; the controller stops", n->pci.dev.id, what);
    n->csts |= CSTS_FATAL;
}

void nvme_complete(struct nvme *n, uint16_t sqid, uint16_t cid, uint16_t status, uint32_t dw0)
{
    struct nvme_sq *sq = &n->sq[sqid];
    struct nvme_cq *cq = &n->cq[sq->cq];
    uint8_t entry[16];

    if (!sq->size || !cq->size) {
        return; /* deleted meanwhile */
    }
    pci_put(entry, dw0, 4);
    pci_put(entry + 4, 0, 4);
    pci_put(entry + 8, sq->head, 2);
    pci_put(entry + 10, sqid, 2);
    pci_put(entry + 12, cid, 2);
    pci_put(entry + 14, (uint16_t)(status << 1 | cq->phase), 2);
    sq->in_flight -= sq->in_flight > 0;
    cq->reserved -= cq->reserved > 0;
    /* The phase bit is in the last bytes: they are written apart, behind the rest. */
    if (dma_write(&n->pci.dev, cq->base + 16 * cq->tail, entry, 14) != 0) {
        fatal(n, "a completion queue is not in RAM");
        return;
    }
    atomic_thread_fence(memory_order_seq_cst);
    (void)dma_write(&n->pci.dev, cq->base + 16 * cq->tail + 14, entry + 14, 2);
    if (++cq->tail == cq->size) {
        cq->tail = 0;
        cq->phase = !cq->phase;
    }
    nvme_interrupt(n, cq);
}

/* Completions that the driver has not looked at. */
static unsigned cq_used(const struct nvme_cq *cq)
{
    return (cq->tail + cq->size - cq->head) % cq->size;
}

/* Places that neither they nor commands under way need. */
static unsigned cq_room(const struct nvme_cq *cq)
{
    unsigned used = cq_used(cq);

    return cq->size - 1 - used > cq->reserved ? cq->size - 1 - used - cq->reserved : 0;
}

static void decode(const uint8_t p[64], struct nvme_cmd *c)
{
    c->opcode = p[0];
    c->flags = p[1];
    c->cid = (uint16_t)pci_get(p + 2, 2);
    c->nsid = (uint32_t)pci_get(p + 4, 4);
    c->prp1 = pci_get(p + 24, 8);
    c->prp2 = pci_get(p + 32, 8);
    memcpy(c->sgl, p + 24, sizeof(c->sgl));
    c->dw10 = (uint32_t)pci_get(p + 40, 4);
    c->dw11 = (uint32_t)pci_get(p + 44, 4);
    c->dw12 = (uint32_t)pci_get(p + 48, 4);
    c->dw13 = (uint32_t)pci_get(p + 52, 4);
    c->dw14 = (uint32_t)pci_get(p + 56, 4);
    c->dw15 = (uint32_t)pci_get(p + 60, 4);
}

/* Fetches and starts one command of a queue; false when there is none, or no place for its
 * completion. */
static bool take(struct nvme *n, uint16_t id)
{
    struct nvme_sq *sq = &n->sq[id];
    struct nvme_cq *cq = &n->cq[sq->cq];
    uint8_t raw[64];
    struct nvme_cmd c;
    uint32_t dw0 = 0;
    uint16_t status;

    if (!sq->size || !cq->size || sq->head == sq->tail || sq->in_flight >= sq->size ||
        cq_room(cq) == 0 || n->bounces >= NVME_MAX_BOUNCES || (n->csts & CSTS_FATAL)) {
        return false;
    }
    if (dma_read(&n->pci.dev, sq->base + 64 * sq->head, raw, sizeof(raw)) != 0) {
        fatal(n, "a submission queue is not in RAM");
        return false;
    }
    sq->head = sq->head + 1u == sq->size ? 0 : (uint16_t)(sq->head + 1);
    sq->in_flight++;
    cq->reserved++;
    decode(raw, &c);
    status = id == 0 ? nvme_admin(n, &c, &dw0) : nvme_io(n, id, &c);
    if (status != NVME_PENDING) {
        nvme_complete(n, id, c.cid, status, dw0);
    }
    return true;
}

static bool in_use(const struct nvme *n)
{
    return (n->csts & (CSTS_READY | CSTS_FATAL)) == CSTS_READY;
}

static void shutdown_flushed(struct blk_req *io, int result);

/* A shutdown notification: what was written is made durable before SHST says it is done. */
static void start_shutdown(struct nvme *n)
{
    n->shutting_down = false;
    n->shutdown_left = n->namespaces->n;
    for (unsigned i = 0; i < n->namespaces->n; i++) {
        struct nvme_req *r = xnew(struct nvme_req);

        list_append(&n->in_flight, &r->node);
        r->owner = n;
        r->generation = n->generation;
        r->io.op = BLK_FLUSH;
        r->io.done = shutdown_flushed;
        blk_submit(n->namespaces->node[i], &r->io);
    }
}

static void shutdown_flushed(struct blk_req *io, int result)
{
    struct nvme_req *r = container_of(io, struct nvme_req, io);
    struct nvme *n = r->owner;
    struct bus_lock *lock = &n->pci.dev.lock;

    (void)result;
    bus_lock(lock);
    if (r->generation == n->generation && n->shutdown_left > 0 && --n->shutdown_left == 0) {
        n->csts = (n->csts & ~(uint32_t)CSTS_SHUTDOWN) | 2u << 2;
    }
    nvme_req_free(r);
    bus_unlock(lock);
}

/* Main loop: shows what completed during a pause, then serves the queues in turn. */
static void service(void *arg)
{
    struct nvme *n = arg;
    bool more = true;

    bus_lock(&n->pci.dev.lock);
    n->wanted = false;
    if (n->pci.dev.vm->state != VM_RUNNING) {
        bus_unlock(&n->pci.dev.lock);
        return; /* nvme_resumed() comes back */
    }
    while (!list_empty(&n->finished)) {
        nvme_req_end(list_entry(n->finished.next, struct nvme_req, node));
    }
    if (n->shutting_down) {
        start_shutdown(n);
    }
    for (unsigned turn = 0; turn < 64 && more && in_use(n); turn++) {
        more = false;
        for (unsigned q = 0; q < NVME_QUEUES && in_use(n); q++) {
            more = take(n, (uint16_t)q) || more;
        }
    }
    nvme_show_events(n);
    if (more) {
        nvme_service_soon(n); /* other work of the loop gets its turn */
    }
    bus_unlock(&n->pci.dev.lock);
}

void nvme_service_soon(struct nvme *n)
{
    if (!n->wanted) {
        n->wanted = true;
        vm_post(n->pci.dev.vm, service, n);
    }
}

void nvme_log_error(struct nvme *n, const struct nvme_req *r)
{
    n->error[n->errors % NVME_ERRORS] = (struct nvme_error){ .count = n->errors + 1,
                                                             .lba = r->lba,
                                                             .sqid = r->sqid,
                                                             .cid = r->cid,
                                                             .status = r->status,
                                                             .nsid = r->nsid };
    n->errors++;
}

/* --- registers
 * ------------------------------------------------------------------------------- */

/* Drops everything under way; when this returns nothing touches guest memory any more. */
static void controller_reset(struct nvme *n)
{
    for (unsigned i = 0; i < n->namespaces->n; i++) {
        blk_abandon(n->namespaces->node[i]);
    }
    n->generation++;
    n->bounces = 0;
    while (!list_empty(&n->finished)) {
        nvme_req_free(list_entry(n->finished.next, struct nvme_req, node));
    }
    memset(n->sq, 0, sizeof(n->sq));
    memset(n->cq, 0, sizeof(n->cq));
    n->csts = 0;
    n->masked = 0;
    n->n_aers = n->events = n->events_masked = 0;
    n->shutting_down = false;
    n->shutdown_left = 0;
    nvme_features_reset(n);
    wire(n);
}

static void enable(struct nvme *n)
{
    unsigned page = nvme_page(n);

    if ((n->cc >> 4 & 7) != 0 || (n->cc >> 11 & 7) != 0 || (n->cc >> 7 & 15) > 4 ||
        (n->asq & (page - 1)) || (n->acq & (page - 1)) || (n->aqa & 0xfff) == 0 ||
        (n->aqa >> 16 & 0xfff) == 0) {
        fatal(n, "enabled with settings that are not valid");
        return;
    }
    n->sq[0] = (struct nvme_sq){ .base = n->asq, .size = (n->aqa & 0xfff) + 1 };
    n->cq[0] = (struct nvme_cq){
        .base = n->acq, .size = (n->aqa >> 16 & 0xfff) + 1, .phase = true, .interrupts = true
    };
    n->csts |= CSTS_READY;
}

static void w_cc(struct device *d, const struct dev_reg *r, unsigned i, uint64_t old,
                 uint64_t value)
{
    struct nvme *n = nvme_of(d);

    (void)r, (void)i;
    if (!(value & CC_ENABLE) && (old & CC_ENABLE)) {
        controller_reset(n);
    } else if ((value & CC_ENABLE) && !(old & CC_ENABLE)) {
        enable(n);
    }
    if ((value & CC_SHN) && !(old & CC_SHN)) {
        n->csts = (n->csts & ~(uint32_t)CSTS_SHUTDOWN) | 1u << 2;
        n->shutting_down = true;
        nvme_service_soon(n);
    } else if (!(value & CC_SHN) && (old & CC_SHN)) {
        n->csts &= ~(uint32_t)CSTS_SHUTDOWN;
    }
}

static void w_mask(struct device *d, const struct dev_reg *r, unsigned i, uint64_t old,
                   uint64_t value)
{
    struct nvme *n = nvme_of(d);

    (void)i, (void)old;
    n->masked = r->offset == 0x0c ? n->masked | (uint32_t)value : n->masked & ~(uint32_t)value;
    wire(n);
}

static uint64_t r_mask(struct device *d, const struct dev_reg *r, unsigned i)
{
    (void)r, (void)i;
    return nvme_of(d)->masked;
}

static void sq_doorbell(struct nvme *n, unsigned id, uint32_t value)
{
    struct nvme_sq *sq = &n->sq[id];

    if (!sq->size) {
        nvme_event(n, NVME_EVENT_BAD_DOORBELL);
    } else if (value >= sq->size) {
        nvme_event(n, NVME_EVENT_BAD_DOORBELL_VALUE);
    } else {
        sq->tail = (uint16_t)value;
        nvme_service_soon(n);
    }
}

static void cq_doorbell(struct nvme *n, unsigned id, uint32_t value)
{
    struct nvme_cq *cq = &n->cq[id];
    unsigned freed;

    if (!cq->size) {
        nvme_event(n, NVME_EVENT_BAD_DOORBELL);
        return;
    }
    freed = value < cq->size ? (value + cq->size - cq->head) % cq->size : UINT32_MAX;
    if (freed > cq_used(cq)) {
        nvme_event(n, NVME_EVENT_BAD_DOORBELL_VALUE);
        return;
    }
    cq->head = (uint16_t)value;
    wire(n);
    nvme_service_soon(n); /* commands may have waited for the places */
}

static uint64_t bar_read(void *opaque, uint64_t offset, unsigned size)
{
    struct nvme *n = opaque;

    return offset < REGS ? dev_reg_ops.read(&n->pci.dev.port[0], offset, size) : 0;
}

static void bar_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct nvme *n = opaque;
    uint64_t bell = (offset - REGS) / 4;

    if (offset < REGS) {
        dev_reg_ops.write(&n->pci.dev.port[0], offset, value, size);
    } else if (in_use(n) && bell < 2 * NVME_QUEUES) {
        (bell & 1 ? cq_doorbell : sq_doorbell)(n, (unsigned)bell / 2, (uint32_t)value);
    }
}

/* Contiguous queues of up to 1024 entries, NVM command set, pages of 4 to 64 KiB, 10 s. */
#define CAPABILITIES                                                                           \
    ((NVME_MAX_ENTRIES - 1) | 1ull << 16 | 20ull << 24 | 1ull << 37 | 0ull << 48 | 4ull << 52)

static const struct dev_reg regs[] = {
    { .name = "CAP",
      .doc = "capabilities: 1024 entries a queue, pages of 4 to 64 KiB",
      .offset = 0x00,
      .size = 8,
      .reset = CAPABILITIES,
      .field = DEV_NO_FIELD },
    { .name = "VS",
      .doc = "1.4",
      .offset = 0x08,
      .size = 4,
      .reset = NVME_VERSION,
      .field = DEV_NO_FIELD },
    { .name = "INTMS",
      .doc = "sets bits of the interrupt mask (not for MSI-X)",
      .offset = 0x0c,
      .size = 4,
      .writable = UINT32_MAX,
      .field = DEV_NO_FIELD,
      .read = r_mask,
      .written = w_mask },
    { .name = "INTMC",
      .doc = "clears bits of the interrupt mask",
      .offset = 0x10,
      .size = 4,
      .writable = UINT32_MAX,
      .field = DEV_NO_FIELD,
      .read = r_mask,
      .written = w_mask },
    { .name = "CC",
      .doc = "configuration: enable, shutdown, sizes",
      .offset = 0x14,
      .size = 4,
      .writable = 0x00fffff1,
      .field = offsetof(struct nvme, cc),
      .written = w_cc },
    { .name = "CSTS",
      .doc = "status: ready, fatal, shutdown",
      .offset = 0x1c,
      .size = 4,
      .field = offsetof(struct nvme, csts) },
    { .name = "AQA",
      .doc = "sizes of the admin queues",
      .offset = 0x24,
      .size = 4,
      .writable = 0x0fff0fff,
      .field = offsetof(struct nvme, aqa) },
    { .name = "ASQ",
      .doc = "address of the admin submission queue",
      .offset = 0x28,
      .size = 8,
      .writable = ~0xfffull,
      .field = offsetof(struct nvme, asq) },
    { .name = "ACQ",
      .doc = "address of the admin completion queue",
      .offset = 0x30,
      .size = 8,
      .writable = ~0xfffull,
      .field = offsetof(struct nvme, acq) },
    { .name = NULL },
};

static const struct mem_io_ops bar_ops = { bar_read, bar_write, 4, 8 };

static const struct dev_reg_block blocks[] = {
    { .name = "registers", .size = REGS, .regs = regs, .min_size = 4, .max_size = 8 },
    { .name = "bar0", .size = BAR_SIZE, .ops = &bar_ops, .min_size = 4, .max_size = 8 },
    { .name = NULL },
};

/* --- class
 * ----------------------------------------------------------------------------------- */

static int nvme_realize(struct device *d, struct err *e)
{
    static const struct pci_ident id = {
        .vendor = 0x1af4,
        .device = 0x10f0, /* free for use; 1b36:0010 is known for bugs */
        .sub_vendor = 0x1af4,
        .sub_device = 0x1100,
        .class = 0x010802,
        .revision = 2
    };
    struct nvme *n = nvme_of(d);
    int rc;

    list_init(&n->in_flight);
    list_init(&n->finished);
    if (n->block_size & (n->block_size - 1)) {
        return err_set(e, -EINVAL, "%s: a block size of %llu bytes is no power of two", d->id,
                       (unsigned long long)n->block_size);
    }
    n->block_shift = (unsigned)__builtin_ctzll(n->block_size);
    rc = pci_fn_init(&n->pci, &id, e);
    if (rc != 0) {
        return rc;
    }
    pci_bar_set(&n->pci, 0, PCI_BAR_MEM64, d->mmio[1]);
    pci_cap_msix(&n->pci, NVME_QUEUES, BAR_MSIX);
    pci_cap_pm(&n->pci);
    pci_cap_express(&n->pci);
    pci_use_intx(&n->pci);
    pci_fn_ready(&n->pci);
    return 0;
}

static void nvme_reset(struct device *d)
{
    struct nvme *n = nvme_of(d);

    bus_lock(&d->lock);
    controller_reset(n);
    n->timestamp_set = false;
    bus_unlock(&d->lock);
    pci_fn_reset(&n->pci);
}

static bool nvme_quiesce(struct device *d)
{
    struct nvme *n = nvme_of(d);
    bool quiet;

    bus_lock(&d->lock);
    quiet = list_empty(&n->in_flight);
    while (quiet && !list_empty(&n->finished)) {
        nvme_req_end(list_entry(n->finished.next, struct nvme_req, node));
    }
    bus_unlock(&d->lock);
    return quiet;
}

static void nvme_resumed(struct device *d)
{
    struct nvme *n = nvme_of(d);

    bus_lock(&d->lock);
    nvme_service_soon(n);
    bus_unlock(&d->lock);
}

static void nvme_destroy(struct device *d)
{
    struct nvme *n = nvme_of(d);

    for (unsigned i = 0; n->namespaces && i < n->namespaces->n; i++) {
        blk_close(n->namespaces->node[i]);
    }
    while (n->in_flight.next && !list_empty(&n->in_flight)) {
        nvme_req_free(list_entry(n->in_flight.next, struct nvme_req, node));
    }
    while (n->finished.next && !list_empty(&n->finished)) {
        nvme_req_free(list_entry(n->finished.next, struct nvme_req, node));
    }
    free(n->namespaces);
    pci_fn_done(&n->pci);
}

/* Nothing is under way in a saved state, and every index is inside its queue. */
static int nvme_loaded(void *obj, struct err *e)
{
    struct nvme *n = obj;

    for (unsigned i = 0; i < NVME_QUEUES; i++) {
        struct nvme_sq *sq = &n->sq[i];
        struct nvme_cq *cq = &n->cq[i];

        if (sq->size > 4096 || (sq->size && (sq->head >= sq->size || sq->tail >= sq->size)) ||
            sq->cq >= NVME_QUEUES || cq->size > 4096 || cq->vector >= 32 ||
            (cq->size && (cq->head >= cq->size || cq->tail >= cq->size))) {
            return err_set(e, -EINVAL, "%s: queue %u has impossible indices", n->pci.dev.id, i);
        }
        sq->in_flight = cq->reserved = 0;
    }
    if (n->n_aers > NVME_AERS) {
        return err_set(e, -EINVAL, "%s: %u event requests", n->pci.dev.id, n->n_aers);
    }
    n->sq[0].in_flight = n->cq[0].reserved = n->n_aers;
    return 0;
}

static const struct st_field sq_fields[] = {
    ST_FIELD(struct nvme_sq, base, ST_U64, 1, "guest physical address"),
    ST_FIELD(struct nvme_sq, size, ST_U32, 1, "entries, 0: there is none"),
    ST_FIELD(struct nvme_sq, head, ST_U16, 1, "next command to take"),
    ST_FIELD(struct nvme_sq, tail, ST_U16, 1, "behind the last command"),
    ST_FIELD(struct nvme_sq, cq, ST_U16, 1, "its completion queue"),
    ST_END,
};
static const struct st_table sq_state = { .name = "nvme-sq",
                                          .version = 1,
                                          .fields = sq_fields };
static const struct st_field cq_fields[] = {
    ST_FIELD(struct nvme_cq, base, ST_U64, 1, "guest physical address"),
    ST_FIELD(struct nvme_cq, size, ST_U32, 1, "entries, 0: there is none"),
    ST_FIELD(struct nvme_cq, head, ST_U16, 1, "next completion that the driver will look at"),
    ST_FIELD(struct nvme_cq, tail, ST_U16, 1, "next one to write"),
    ST_FIELD(struct nvme_cq, vector, ST_U16, 1, "interrupt vector"),
    ST_FIELD(struct nvme_cq, phase, ST_BOOL, 1, "phase bit of the next completion"),
    ST_FIELD(struct nvme_cq, interrupts, ST_BOOL, 1, "interrupts are wanted"),
    ST_END,
};
static const struct st_table cq_state = { .name = "nvme-cq",
                                          .version = 1,
                                          .fields = cq_fields };

#define N(member, kind, doc) ST_FIELD(struct nvme, member, kind, 1, doc)
static const struct st_field nvme_fields[] = {
    PCI_ST_FIELD,
    N(cc, ST_U32, "configuration register"),
    N(csts, ST_U32, "status register"),
    N(aqa, ST_U32, "sizes of the admin queues"),
    N(asq, ST_U64, "admin submission queue"),
    N(acq, ST_U64, "admin completion queue"),
    N(masked, ST_U32, "interrupt mask"),
    N(arbitration, ST_U32, "feature 1"),
    N(temperature_high, ST_U32, "feature 4, over"),
    N(temperature_low, ST_U32, "feature 4, under"),
    N(error_recovery, ST_U32, "feature 5"),
    N(coalescing, ST_U32, "feature 8"),
    N(vector_config, ST_U32, "feature 9"),
    N(atomicity, ST_U32, "feature 10"),
    N(async_config, ST_U32, "feature 11"),
    N(shutting_down, ST_BOOL, "a shutdown is asked for and not begun"),
    N(cache_off, ST_BOOL, "the write cache is turned off"),
    N(timestamp, ST_U64, "feature 14, in ms, less the clock"),
    N(timestamp_set, ST_BOOL, "the host has set it"),
    ST_ARRAY(struct nvme, aer, ST_U16, NVME_AERS, 1, "event requests that wait"),
    N(n_aers, ST_U32, "how many"),
    N(events, ST_U32, "events that wait"),
    N(events_masked, ST_U32, "events whose log was not read yet"),
    N(errors, ST_U64, "entries that the error log has had"),
    N(reads, ST_U64, "read commands"),
    N(writes, ST_U64, "write commands"),
    N(read_bytes, ST_U64, "bytes read"),
    N(written_bytes, ST_U64, "bytes written"),
    N(media_errors, ST_U64, "commands that the disk failed"),
    { .name = "sq",
      .kind = ST_STRUCT,
      .offset = offsetof(struct nvme, sq),
      .count = NVME_QUEUES,
      .stride = sizeof(struct nvme_sq),
      .since = 1,
      .table = &sq_state,
      .doc = "submission queues" },
    { .name = "cq",
      .kind = ST_STRUCT,
      .offset = offsetof(struct nvme, cq),
      .count = NVME_QUEUES,
      .stride = sizeof(struct nvme_cq),
      .since = 1,
      .table = &cq_state,
      .doc = "completion queues" },
    ST_END,
};
static const struct st_table nvme_state = {
    .name = "nvme",
    .version = 1,
    .fields = nvme_fields,
    .loaded = nvme_loaded,
};

static const struct dev_prop nvme_props[] = {
    PCI_PROPS,
    { .name = "namespaces",
      .kind = PROP_PTR,
      .offset = offsetof(struct nvme, namespaces),
      .required = true,
      .doc = "block nodes of the namespaces; the device closes them" },
    { .name = "serial",
      .kind = PROP_STR,
      .offset = offsetof(struct nvme, serial),
      .doc = "serial number, up to 20 bytes" },
    { .name = "block-size",
      .kind = PROP_U64,
      .offset = offsetof(struct nvme, block_size),
      .def = 512,
      .min = 512,
      .max = 4096,
      .doc = "bytes of a logical block, a power of two" },
    { .name = NULL },
};

const struct device_class nvme_class = {
    .name = "nvme",
    .doc = "NVMe 1.4 controller with 16 I/O queues and up to 8 namespaces",
    .size = sizeof(struct nvme),
    .props = nvme_props,
    .blocks = blocks,
    .state = &nvme_state,
    .realize = nvme_realize,
    .reset = nvme_reset,
    .quiesce = nvme_quiesce,
    .resumed = nvme_resumed,
    .destroy = nvme_destroy,
};
