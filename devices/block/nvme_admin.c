/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NVMe: admin commands (NVM Express 1.4 §5), features, logs, events. Entered on the main loop with
 * the function's lock.
 */
#include "devices/block/nvme.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/core/vm.h"

#include <stdio.h>
#include <string.h>

enum {
    OP_DELETE_SQ = 0x00,
    OP_CREATE_SQ = 0x01,
    OP_GET_LOG = 0x02,
    OP_DELETE_CQ = 0x04,
    OP_CREATE_CQ = 0x05,
    OP_IDENTIFY = 0x06,
    OP_ABORT = 0x08,
    OP_SET_FEATURES = 0x09,
    OP_GET_FEATURES = 0x0a,
    OP_EVENT_REQUEST = 0x0c,
    OP_FORMAT = 0x80
};
enum {
    FEAT_ARBITRATION = 1,
    FEAT_POWER = 2,
    FEAT_TEMPERATURE = 4,
    FEAT_ERROR_RECOVERY = 5,
    FEAT_WRITE_CACHE = 6,
    FEAT_QUEUES = 7,
    FEAT_COALESCING = 8,
    FEAT_VECTOR = 9,
    FEAT_ATOMICITY = 10,
    FEAT_ASYNC = 11,
    FEAT_TIMESTAMP = 14
};
enum { LOG_ERRORS = 1, LOG_SMART = 2, LOG_FIRMWARE = 3, LOG_EFFECTS = 5 };
#define MISTAKE(status) ((uint16_t)((status) | NVME_DO_NOT_RETRY))
#define TOO_WARM 343 /* K */
#define TOO_HOT 373

/* --- queues
 * ---------------------------------------------------------------------------------- */

static uint16_t create_cq(struct nvme *n, const struct nvme_cmd *c)
{
    unsigned id = c->dw10 & 0xffff, size = (c->dw10 >> 16) + 1, vector = c->dw11 >> 16;

    if (id == 0 || id >= NVME_QUEUES || n->cq[id].size) {
        return MISTAKE(NVME_BAD_QID);
    }
    if (size < 2 || size > NVME_MAX_ENTRIES) {
        return MISTAKE(NVME_BAD_QSIZE);
    }
    if (vector >= NVME_QUEUES || (vector > 0 && !pci_msix_on(&n->pci))) {
        return MISTAKE(NVME_BAD_VECTOR);
    }
    if (!(c->dw11 & 1) || (c->prp1 & (nvme_page(n) - 1))) {
        return MISTAKE(NVME_BAD_FIELD); /* queues are contiguous */
    }
    n->cq[id] = (struct nvme_cq){ .base = c->prp1,
                                  .size = size,
                                  .vector = (uint16_t)vector,
                                  .phase = true,
                                  .interrupts = c->dw11 & 2 };
    return NVME_OK;
}

static uint16_t create_sq(struct nvme *n, const struct nvme_cmd *c)
{
    unsigned id = c->dw10 & 0xffff, size = (c->dw10 >> 16) + 1, cq = c->dw11 >> 16;

    if (id == 0 || id >= NVME_QUEUES || n->sq[id].size) {
        return MISTAKE(NVME_BAD_QID);
    }
    if (cq == 0 || cq >= NVME_QUEUES || !n->cq[cq].size) {
        return MISTAKE(NVME_BAD_CQ);
    }
    if (size < 2 || size > NVME_MAX_ENTRIES) {
        return MISTAKE(NVME_BAD_QSIZE);
    }
    if (!(c->dw11 & 1) || (c->prp1 & (nvme_page(n) - 1))) {
        return MISTAKE(NVME_BAD_FIELD);
    }
    n->sq[id] = (struct nvme_sq){ .base = c->prp1, .size = size, .cq = (uint16_t)cq };
    return NVME_OK;
}

/* Commands of the queue that are under way lose their completion, as the specification lets
 * them; what they still write to memory is waited for. */
static uint16_t delete_sq(struct nvme *n, const struct nvme_cmd *c)
{
    unsigned id = c->dw10 & 0xffff;

    if (id == 0 || id >= NVME_QUEUES || !n->sq[id].size) {
        return MISTAKE(NVME_BAD_QID);
    }
    if (n->sq[id].in_flight) {
        for (unsigned i = 0; i < n->namespaces->n; i++) {
            blk_abandon(n->namespaces->node[i]);
        }
        n->cq[n->sq[id].cq].reserved -= n->sq[id].in_flight;
    }
    list_for_each (it, &n->in_flight) {
        struct nvme_req *r = list_entry(it, struct nvme_req, node);

        if (r->sqid == id && r->generation == n->generation) {
            r->generation--; /* as from before a reset */
            n->bounces -= r->bounce != NULL;
        }
    }
    memset(&n->sq[id], 0, sizeof(n->sq[id]));
    return NVME_OK;
}

static uint16_t delete_cq(struct nvme *n, const struct nvme_cmd *c)
{
    unsigned id = c->dw10 & 0xffff;

    if (id == 0 || id >= NVME_QUEUES || !n->cq[id].size) {
        return MISTAKE(NVME_BAD_QID);
    }
    for (unsigned i = 1; i < NVME_QUEUES; i++) {
        if (n->sq[i].size && n->sq[i].cq == id) {
            return MISTAKE(NVME_BAD_DELETION);
        }
    }
    memset(&n->cq[id], 0, sizeof(n->cq[id]));
    return NVME_OK;
}

/* --- identify
 * -------------------------------------------------------------------------------- */

/* 16 bytes that stay the same for a disk of this name, in the form of a UUID (RFC 4122, version
 * 8 of its successor: made by the implementation). */
static void make_uuid(const struct nvme *n, uint32_t nsid, uint8_t out[16])
{
    AUTO_FREE char *text = xasprintf("%s/%s/%u", n->pci.dev.vm->uuid,
                                     n->serial ? n->serial : n->pci.dev.id, nsid);
    uint64_t h[2] = { 0xcbf29ce484222325ull, 0x84222325cbf29ce4ull };

    for (unsigned k = 0; k < 2; k++) {
        for (const char *p = text; *p; p++) {
            h[k] = (h[k] ^ (uint8_t)*p) * 0x100000001b3ull;
        }
        pci_put(out + 8 * k, h[k], 8);
    }
    out[6] = (uint8_t)((out[6] & 0x0f) | 0x80);
    out[8] = (uint8_t)((out[8] & 0x3f) | 0x80);
}

static void put_text(uint8_t *p, size_t n, const char *text)
{
    size_t len = strlen(text);

    memset(p, ' ', n);
    memcpy(p, text, len < n ? len : n);
}

static void identify_controller(struct nvme *n, uint8_t *p)
{
    uint8_t id[16];
    char *nqn = (char *)p + 768;
    int at;

    pci_put(p, 0x1af4, 2);
    pci_put(p + 2, 0x1af4, 2);
    put_text(p + 4, 20, n->serial ? n->serial : n->pci.dev.id);
    put_text(p + 24, 40, "vmd NVMe disk");
    put_text(p + 64, 8, "1.0");
    p[72] = 6;                    /* recommended arbitration burst */
    pci_put(p + 73, 0x005452, 3); /* OUI 52-54-00, locally administered */
    p[77] = NVME_MDTS;
    pci_put(p + 80, 0x00010400, 4);
    p[111] = 1;                  /* an I/O controller */
    pci_put(p + 256, 0x0002, 2); /* format */
    p[258] = 3;                  /* aborts at once, less 1 */
    p[259] = NVME_AERS - 1;
    p[260] = 0x03; /* one firmware slot, read-only */
    p[261] = 0x06; /* effects log, offsets in logs */
    p[262] = NVME_ERRORS - 1;
    pci_put(p + 266, TOO_WARM, 2);
    pci_put(p + 268, TOO_HOT, 2);
    p[512] = 0x66; /* 64 bytes a command */
    p[513] = 0x44; /* 16 bytes a completion */
    pci_put(p + 514, NVME_MAX_ENTRIES, 2);
    pci_put(p + 516, n->namespaces->n, 4);
    pci_put(p + 520, 0x005d, 2); /* compare, dataset management, zeroes, select, timestamp */
    p[525] = 0x07;               /* a write cache; flush takes all namespaces */
    pci_put(p + 536, 0x00000001, 4); /* SGLs, without bit buckets */
    make_uuid(n, 0, id);
    at = sprintf(nqn, "nqn.2014-08.org.nvmexpress:uuid:");
    for (unsigned i = 0; i < 16; i++) {
        at += sprintf(nqn + at, "%02x%s", id[i],
                      i == 3 || i == 5 || i == 7 || i == 9 ? "-" : "");
    }
    pci_put(p + 2048, 0x09c4, 2); /* 25 W */
    pci_put(p + 2052, 16, 4);
    pci_put(p + 2056, 4, 4);
}

static void identify_namespace(struct nvme *n, struct blk_node *disk, uint8_t *p)
{
    uint64_t blocks = blk_size(disk) >> n->block_shift;

    for (unsigned i = 0; i < 3; i++) { /* size, capacity, use */
        pci_put(p + 8 * i, blocks, 8);
    }
    p[33] = 0x08 | 0x01; /* zeroes may deallocate; then they read as zeroes */
    p[99] = blk_readonly(disk) ? 1 : 0;
    p[130] = (uint8_t)n->block_shift;
}

static uint16_t identify(struct nvme *n, const struct nvme_cmd *c)
{
    struct blk_node *disk = nvme_disk(n, c->nsid);
    uint8_t page[4096] = { 0 };

    switch (c->dw10 & 0xff) {
    case 0x00:
        if (disk) {
            identify_namespace(n, disk, page);
        } else if (c->nsid != UINT32_MAX) {
            return MISTAKE(NVME_BAD_NAMESPACE);
        } else {
            page[130] = (uint8_t)n->block_shift; /* what all namespaces have in common */
        }
        break;
    case 0x01:
        identify_controller(n, page);
        break;
    case 0x02:
        if (c->nsid >= 0xfffffffe) {
            return MISTAKE(NVME_BAD_NAMESPACE);
        }
        for (uint32_t id = c->nsid + 1, i = 0; id <= n->namespaces->n; id++, i++) {
            pci_put(page + 4 * i, id, 4);
        }
        break;
    case 0x03:
        if (!disk) {
            return MISTAKE(NVME_BAD_NAMESPACE);
        }
        page[0] = 3; /* a UUID */
        page[1] = 16;
        make_uuid(n, c->nsid, page + 4);
        break;
    default:
        return MISTAKE(NVME_BAD_FIELD);
    }
    return nvme_copy_out(n, c, page, sizeof(page));
}

/* --- logs
 * ------------------------------------------------------------------------------------ */

static void log_errors(struct nvme *n, uint8_t *p)
{
    uint64_t have = n->errors < NVME_ERRORS ? n->errors : NVME_ERRORS;

    for (uint64_t i = 0; i < have; i++, p += 64) { /* the newest first */
        const struct nvme_error *e = &n->error[(n->errors - 1 - i) % NVME_ERRORS];

        pci_put(p, e->count, 8);
        pci_put(p + 8, e->sqid, 2);
        pci_put(p + 10, e->cid, 2);
        pci_put(p + 12, (uint16_t)(e->status << 1), 2);
        pci_put(p + 14, 0xffff, 2);
        pci_put(p + 16, e->lba, 8);
        pci_put(p + 24, e->nsid, 4);
    }
}

static bool too_warm(const struct nvme *n)
{
    return NVME_TEMPERATURE >= n->temperature_high || NVME_TEMPERATURE <= n->temperature_low;
}

static void log_smart(struct nvme *n, uint8_t *p)
{
    p[0] = too_warm(n) ? 2 : 0;
    pci_put(p + 1, NVME_TEMPERATURE, 2);
    p[3] = 100; /* spare, and when it would be too little */
    p[4] = 10;
    pci_put(p + 32, (n->read_bytes + 511999) / 512000, 8);
    pci_put(p + 48, (n->written_bytes + 511999) / 512000, 8);
    pci_put(p + 64, n->reads, 8);
    pci_put(p + 80, n->writes, 8);
    pci_put(p + 112, 1, 8); /* power cycles */
    pci_put(p + 128, clock_now(n->pci.dev.vm->clock) / 1000000000ull / 3600, 8);
    pci_put(p + 160, n->media_errors, 8);
    pci_put(p + 176, n->errors, 8);
}

static void log_effects(uint8_t *p)
{
    static const uint8_t admin[] = { OP_DELETE_SQ,    OP_CREATE_SQ,    OP_GET_LOG,
                                     OP_DELETE_CQ,    OP_CREATE_CQ,    OP_IDENTIFY,
                                     OP_ABORT,        OP_SET_FEATURES, OP_GET_FEATURES,
                                     OP_EVENT_REQUEST };
    static const uint8_t io[] = { 0x00, 0x02, 0x05 };
    static const uint8_t changing[] = { 0x01, 0x08, 0x09 };

    for (unsigned i = 0; i < sizeof(admin); i++) {
        p[4 * admin[i]] = 1;
    }
    pci_put(p + 4 * OP_FORMAT, 1 | 2 | 2u << 16, 4); /* contents change; nothing else runs */
    for (unsigned i = 0; i < sizeof(io); i++) {
        p[1024 + 4 * io[i]] = 1;
    }
    for (unsigned i = 0; i < sizeof(changing); i++) {
        p[1024 + 4 * changing[i]] = 1 | 2;
    }
}

static uint16_t get_log(struct nvme *n, const struct nvme_cmd *c)
{
    uint64_t length = (((uint64_t)(c->dw11 & 0xffff) << 16 | c->dw10 >> 16) + 1) * 4;
    uint64_t offset = c->dw12 | (uint64_t)c->dw13 << 32;
    uint8_t page[4096] = { 0 }, *out;
    uint64_t have = sizeof(page);
    uint16_t status;

    switch (c->dw10 & 0xff) {
    case LOG_ERRORS:
        log_errors(n, page);
        have = NVME_ERRORS * 64;
        break;
    case LOG_SMART:
        if (c->nsid != 0 && c->nsid != UINT32_MAX) {
            return MISTAKE(NVME_BAD_FIELD); /* one for the controller, none for a namespace */
        }
        log_smart(n, page);
        have = 512;
        break;
    case LOG_FIRMWARE:
        page[0] = 1; /* slot 1 is active */
        put_text(page + 8, 8, "1.0");
        have = 512;
        break;
    case LOG_EFFECTS:
        log_effects(page);
        break;
    default:
        return MISTAKE(NVME_BAD_LOG);
    }
    if (offset > have || offset % 4 || length > NVME_MAX_TRANSFER) {
        return MISTAKE(NVME_BAD_FIELD);
    }
    out = xalloc(length); /* zeroes behind the log's end */
    memcpy(out, page + offset, have - offset < length ? have - offset : length);
    status = nvme_copy_out(n, c, out, length);
    free(out);
    if (!(c->dw10 & 1u << 15)) { /* the event may come again */
        n->events_masked &= (c->dw10 & 0xff) == LOG_SMART    ? ~(1u << NVME_EVENT_TEMPERATURE)
                            : (c->dw10 & 0xff) == LOG_ERRORS ? 1u << NVME_EVENT_TEMPERATURE
                                                             : UINT32_MAX;
    }
    return status;
}

/* --- features
 * -------------------------------------------------------------------------------- */

void nvme_features_reset(struct nvme *n)
{
    n->arbitration = 6;
    n->temperature_high = TOO_WARM;
    n->temperature_low = 0;
    n->error_recovery = n->coalescing = n->vector_config = n->atomicity = 0;
    n->async_config = 0;
    n->cache_off = false;
}

static uint64_t milliseconds(const struct nvme *n)
{
    return clock_now(n->pci.dev.vm->clock) / 1000000;
}

static uint16_t set_timestamp(struct nvme *n, const struct nvme_cmd *c)
{
    uint8_t raw[8];
    uint16_t status = nvme_copy_in(n, c, raw, sizeof(raw));

    if (status == NVME_OK) {
        n->timestamp = pci_get(raw, 6) - milliseconds(n);
        n->timestamp_set = true;
    }
    return status;
}

static uint16_t get_timestamp(struct nvme *n, const struct nvme_cmd *c)
{
    uint8_t raw[8] = { 0 };

    pci_put(raw, n->timestamp + milliseconds(n), 6);
    raw[6] = n->timestamp_set ? 2 : 0;
    return nvme_copy_out(n, c, raw, sizeof(raw));
}

static uint16_t set_temperature(struct nvme *n, uint32_t value)
{
    uint32_t sensor = value >> 16 & 15, kind = value >> 20 & 3;

    if (kind > 1 || (sensor > 8 && sensor != 15)) {
        return MISTAKE(NVME_BAD_FIELD);
    }
    if (sensor == 0 || sensor == 15) {
        *(kind ? &n->temperature_low : &n->temperature_high) = value & 0xffff;
        if (too_warm(n)) {
            nvme_event(n, NVME_EVENT_TEMPERATURE);
        }
    }
    return NVME_OK;
}

static uint16_t set_features(struct nvme *n, const struct nvme_cmd *c, uint32_t *dw0)
{
    if (c->dw10 >> 31) {
        return MISTAKE(NVME_NOT_SAVEABLE);
    }
    switch (c->dw10 & 0xff) {
    case FEAT_ARBITRATION:
        n->arbitration = c->dw11;
        return NVME_OK;
    case FEAT_POWER:
        return (c->dw11 & 31) == 0 ? NVME_OK : MISTAKE(NVME_BAD_FIELD);
    case FEAT_TEMPERATURE:
        return set_temperature(n, c->dw11);
    case FEAT_ERROR_RECOVERY:
        n->error_recovery = c->dw11 & 0xffff;
        return NVME_OK;
    case FEAT_WRITE_CACHE:
        n->cache_off = !(c->dw11 & 1);
        return NVME_OK;
    case FEAT_QUEUES:
        if ((c->dw11 & 0xffff) == 0xffff || c->dw11 >> 16 == 0xffff) {
            return MISTAKE(NVME_BAD_FIELD);
        }
        *dw0 = (NVME_QUEUES - 2) | (uint32_t)(NVME_QUEUES - 2) << 16;
        return NVME_OK;
    case FEAT_COALESCING:
        n->coalescing = c->dw11 & 0xffff;
        return NVME_OK;
    case FEAT_VECTOR:
        if ((c->dw11 & 0xffff) >= NVME_QUEUES) {
            return MISTAKE(NVME_BAD_FIELD);
        }
        n->vector_config = c->dw11 & 0x1ffff;
        return NVME_OK;
    case FEAT_ATOMICITY:
        n->atomicity = c->dw11 & 1;
        return NVME_OK;
    case FEAT_ASYNC:
        n->async_config = c->dw11;
        return NVME_OK;
    case FEAT_TIMESTAMP:
        return set_timestamp(n, c);
    default:
        return MISTAKE(NVME_BAD_FIELD);
    }
}

/* The current value, or the one after a reset. */
static uint32_t feature(const struct nvme *n, const struct nvme_cmd *c, bool current)
{
    bool low = c->dw11 >> 20 & 3;

    switch (c->dw10 & 0xff) {
    case FEAT_ARBITRATION:
        return current ? n->arbitration : 6;
    case FEAT_TEMPERATURE:
        return current ? (low ? n->temperature_low : n->temperature_high) : low ? 0 : TOO_WARM;
    case FEAT_ERROR_RECOVERY:
        return current ? n->error_recovery : 0;
    case FEAT_WRITE_CACHE:
        return current ? !n->cache_off : 1;
    case FEAT_QUEUES:
        return (NVME_QUEUES - 2) | (uint32_t)(NVME_QUEUES - 2) << 16;
    case FEAT_COALESCING:
        return current ? n->coalescing : 0;
    case FEAT_VECTOR:
        return (c->dw11 & 0xffff) |
               (current && (n->vector_config & 0xffff) == (c->dw11 & 0xffff)
                    ? n->vector_config & 0x10000
                    : 0);
    case FEAT_ATOMICITY:
        return current ? n->atomicity : 0;
    case FEAT_ASYNC:
        return current ? n->async_config : 0;
    default:
        return 0;
    }
}

static uint16_t get_features(struct nvme *n, const struct nvme_cmd *c, uint32_t *dw0)
{
    static const uint32_t known = 1u << FEAT_ARBITRATION | 1u << FEAT_POWER |
                                  1u << FEAT_TEMPERATURE | 1u << FEAT_ERROR_RECOVERY |
                                  1u << FEAT_WRITE_CACHE | 1u << FEAT_QUEUES |
                                  1u << FEAT_COALESCING | 1u << FEAT_VECTOR |
                                  1u << FEAT_ATOMICITY | 1u << FEAT_ASYNC |
                                  1u << FEAT_TIMESTAMP;
    unsigned id = c->dw10 & 0xff, select = c->dw10 >> 8 & 7;

    if (id >= 32 || !(known >> id & 1) || select > 3 ||
        (id == FEAT_VECTOR && (c->dw11 & 0xffff) >= NVME_QUEUES)) {
        return MISTAKE(NVME_BAD_FIELD);
    }
    if (select == 3) {
        *dw0 = 4; /* changeable, neither saveable nor of a namespace */
        return NVME_OK;
    }
    if (id == FEAT_TIMESTAMP) {
        return get_timestamp(n, c);
    }
    *dw0 = feature(n, c, select == 0);
    return NVME_OK;
}

/* --- events and the rest
 * --------------------------------------------------------------------- */

void nvme_event(struct nvme *n, enum nvme_event what)
{
    n->events |= 1u << what;
    nvme_service_soon(n);
}

void nvme_show_events(struct nvme *n)
{
    /* Type, information, log page. */
    static const uint32_t shown[NVME_EVENTS] = {
        [NVME_EVENT_BAD_DOORBELL] = 0 | 0u << 8 | LOG_ERRORS << 16,
        [NVME_EVENT_BAD_DOORBELL_VALUE] = 0 | 1u << 8 | LOG_ERRORS << 16,
        [NVME_EVENT_TEMPERATURE] = 1 | 1u << 8 | LOG_SMART << 16,
    };

    for (unsigned i = 0; i < NVME_EVENTS && n->n_aers > 0; i++) {
        bool off = i == NVME_EVENT_TEMPERATURE && !(n->async_config & 2);

        if ((n->events >> i & 1) && !(n->events_masked >> i & 1) && !off) {
            n->events &= ~(1u << i);
            n->events_masked |= 1u << i;
            nvme_complete(n, 0, n->aer[--n->n_aers], NVME_OK, shown[i]);
        }
    }
}

static uint16_t event_request(struct nvme *n, const struct nvme_cmd *c)
{
    if (n->n_aers == NVME_AERS) {
        return MISTAKE(NVME_AER_LIMIT);
    }
    n->aer[n->n_aers++] = c->cid;
    return NVME_PENDING;
}

/* Event requests are given back; everything else will be done before an abort could matter. */
static uint16_t abort_command(struct nvme *n, const struct nvme_cmd *c, uint32_t *dw0)
{
    uint16_t sqid = (uint16_t)c->dw10, cid = (uint16_t)(c->dw10 >> 16);

    *dw0 = 1;
    for (unsigned i = 0; sqid == 0 && i < n->n_aers; i++) {
        if (n->aer[i] == cid) {
            n->aer[i] = n->aer[--n->n_aers];
            nvme_complete(n, 0, cid, NVME_ABORTED, 0);
            *dw0 = 0;
        }
    }
    return NVME_OK;
}

/* The only format is the one there is; formatting erases. */
static uint16_t format(struct nvme *n, const struct nvme_cmd *c)
{
    bool all = c->nsid == UINT32_MAX && n->namespaces->n == 1;
    struct blk_node *disk = nvme_disk(n, all ? 1 : c->nsid);

    if (!disk) {
        return MISTAKE(NVME_BAD_NAMESPACE);
    }
    if ((c->dw10 & 15) != 0 || (c->dw10 >> 5 & 7) != 0 || (c->dw10 >> 9 & 7) > 1) {
        return MISTAKE(NVME_BAD_FORMAT);
    }
    return blk_readonly(disk) ? MISTAKE(NVME_READ_ONLY) : nvme_erase(n, c, disk);
}

uint16_t nvme_admin(struct nvme *n, const struct nvme_cmd *c, uint32_t *dw0)
{
    if (c->flags & 3) {
        return MISTAKE(NVME_BAD_FIELD);
    }
    switch (c->opcode) {
    case OP_DELETE_SQ:
        return delete_sq(n, c);
    case OP_CREATE_SQ:
        return create_sq(n, c);
    case OP_GET_LOG:
        return get_log(n, c);
    case OP_DELETE_CQ:
        return delete_cq(n, c);
    case OP_CREATE_CQ:
        return create_cq(n, c);
    case OP_IDENTIFY:
        return identify(n, c);
    case OP_ABORT:
        return abort_command(n, c, dw0);
    case OP_SET_FEATURES:
        return set_features(n, c, dw0);
    case OP_GET_FEATURES:
        return get_features(n, c, dw0);
    case OP_EVENT_REQUEST:
        return event_request(n, c);
    case OP_FORMAT:
        return format(n, c);
    default:
        return MISTAKE(NVME_BAD_OPCODE);
    }
}
