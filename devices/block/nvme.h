/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the NVMe controller (NVM Express 1.4): what its three files share. nvme.c has
 * registers, queues and the class; nvme_admin.c the admin commands; nvme_io.c data pointers and the
 * commands that read and write. The function's device lock covers all of it.
 */
#ifndef VMD_DEVICES_BLOCK_NVME_H
#define VMD_DEVICES_BLOCK_NVME_H

#include "devices/block/nvme_namespaces.h"
#include "devices/bus/pci.h"
#include "storage/block.h"

#define NVME_QUEUES 17 /* admin and 16 for I/O */
#define NVME_MAX_ENTRIES 1024
#define NVME_MAX_TRANSFER (512u << 10)
#define NVME_MDTS 7         /* the same as a power of two of 4 KiB pages */
#define NVME_MAX_PIECES 260 /* of a transfer in guest memory */
#define NVME_MAX_BOUNCES 16 /* compares under way */
#define NVME_MAX_RANGES 256
#define NVME_AERS 4
#define NVME_ERRORS 16 /* entries of the error log */
#define NVME_TEMPERATURE 310

enum nvme_status {
    NVME_OK = 0,
    NVME_BAD_OPCODE = 0x01,
    NVME_BAD_FIELD = 0x02,
    NVME_TRANSFER_ERROR = 0x04,
    NVME_INTERNAL = 0x06,
    NVME_ABORTED = 0x07,
    NVME_BAD_NAMESPACE = 0x0b,
    NVME_BAD_SGL_SEGMENT = 0x0d,
    NVME_BAD_SGL_COUNT = 0x0e,
    NVME_BAD_SGL_LENGTH = 0x0f,
    NVME_BAD_SGL_TYPE = 0x11,
    NVME_BAD_PRP_OFFSET = 0x13,
    NVME_LBA_RANGE = 0x80,
    NVME_BAD_CQ = 0x100,
    NVME_BAD_QID = 0x101,
    NVME_BAD_QSIZE = 0x102,
    NVME_ABORT_LIMIT = 0x103,
    NVME_AER_LIMIT = 0x105,
    NVME_BAD_VECTOR = 0x108,
    NVME_BAD_LOG = 0x109,
    NVME_BAD_FORMAT = 0x10a,
    NVME_BAD_DELETION = 0x10c,
    NVME_NOT_SAVEABLE = 0x10d,
    NVME_NOT_CHANGEABLE = 0x10e,
    NVME_READ_ONLY = 0x182,
    NVME_WRITE_FAULT = 0x280,
    NVME_READ_ERROR = 0x281,
    NVME_COMPARE_FAILED = 0x285,
    NVME_DO_NOT_RETRY = 0x4000,
    NVME_PENDING = 0xffff /* of a handler: it completes later */
};

struct nvme;

struct nvme_cmd {
    uint8_t opcode, flags;
    uint16_t cid;
    uint32_t nsid;
    uint64_t prp1, prp2;
    uint8_t sgl[16]; /* the same 16 bytes as prp1 and prp2 */
    uint32_t dw10, dw11, dw12, dw13, dw14, dw15;
};

struct nvme_sq {
    uint64_t base;
    uint32_t size; /* entries, 0: there is none */
    uint16_t head, tail, cq;
    uint32_t in_flight;
};
struct nvme_cq {
    uint64_t base;
    uint32_t size;
    uint16_t head, tail, vector;
    bool phase, interrupts;
    uint32_t reserved; /* places that commands under way will need */
};

struct nvme_error {
    uint64_t count, lba;
    uint16_t sqid, cid, status;
    uint32_t nsid;
};

/* Pieces of guest memory. */
struct nvme_data {
    unsigned n;
    uint64_t length;
    struct iovec iov[NVME_MAX_PIECES];
    uint64_t gpa[NVME_MAX_PIECES];
};

struct nvme_range {
    uint64_t offset, length;
};

struct nvme_req {
    struct blk_req io;
    struct list node; /* in_flight or finished */
    struct nvme *owner;
    struct blk_node *disk;
    uint32_t generation;
    uint16_t sqid, cid, status;
    uint32_t nsid, dw0;
    uint64_t lba;
    bool flush_after;
    unsigned all;            /* of a flush of all namespaces: those that were */
    unsigned next, n_ranges; /* what of `ranges` is left to do */
    struct nvme_range *ranges;
    uint8_t *bounce; /* of a compare */
    struct iovec bounce_iov;
    struct iovec *iov;
    uint64_t *gpa;
    unsigned n_iov;
};

struct nvme {
    struct pci_fn pci;
    struct nvme_namespaces *namespaces; /* property, taken */
    char *serial;
    uint64_t block_size; /* property */
    unsigned block_shift;
    bool wanted; /* a service is posted */
    struct list in_flight, finished;
    unsigned bounces;
    uint32_t generation;

    /* Registers. */
    uint32_t cc, csts, aqa, masked;
    uint64_t asq, acq;
    struct nvme_sq sq[NVME_QUEUES];
    struct nvme_cq cq[NVME_QUEUES];
    bool shutting_down;
    unsigned shutdown_left;

    /* Features. */
    uint32_t arbitration, temperature_high, temperature_low, error_recovery, coalescing,
        vector_config, atomicity, async_config;
    bool cache_off;
    uint64_t timestamp; /* of the host, in ms, less the clock's at that time */
    bool timestamp_set;

    uint16_t aer[NVME_AERS]; /* command ids */
    uint32_t n_aers;
    uint32_t events;        /* a bit for each of enum nvme_event that waits */
    uint32_t events_masked; /* shown, and the log not read yet */
    struct nvme_error error[NVME_ERRORS];
    uint64_t errors;
    uint64_t reads, writes, read_bytes, written_bytes, media_errors;
};

enum nvme_event {
    NVME_EVENT_BAD_DOORBELL,
    NVME_EVENT_BAD_DOORBELL_VALUE,
    NVME_EVENT_TEMPERATURE,
    NVME_EVENTS
};

unsigned nvme_page(const struct nvme *n);                  /* bytes, by CC.MPS */
struct blk_node *nvme_disk(struct nvme *n, uint32_t nsid); /* NULL: no such namespace */
void nvme_event(struct nvme *n, enum nvme_event what);
void nvme_service_soon(struct nvme *n);
/* Completes a command that nvme_take() counted. */
void nvme_complete(struct nvme *n, uint16_t sqid, uint16_t cid, uint16_t status, uint32_t dw0);
/* After the completion of a batch: the wire and messages. */
void nvme_interrupt(struct nvme *n, struct nvme_cq *cq);
void nvme_log_error(struct nvme *n, const struct nvme_req *r);

/* nvme_admin.c */
uint16_t nvme_admin(struct nvme *n, const struct nvme_cmd *c, uint32_t *dw0);
void nvme_features_reset(struct nvme *n);
void nvme_show_events(struct nvme *n); /* to AERs that wait */

/* nvme_io.c */
/* Finds `length` bytes of a command's data pointer in RAM. `write`: the device will. */
uint16_t nvme_map(struct nvme *n, const struct nvme_cmd *c, uint64_t length, bool write,
                  struct nvme_data *out);
/* Copies from or to the data pointer; for small things. */
uint16_t nvme_copy_in(struct nvme *n, const struct nvme_cmd *c, void *out, uint64_t length);
uint16_t nvme_copy_out(struct nvme *n, const struct nvme_cmd *c, const void *in,
                       uint64_t length);
uint16_t nvme_io(struct nvme *n, uint16_t sqid, const struct nvme_cmd *c);
/* Zeroes a namespace for Format; completes the command later. */
uint16_t nvme_erase(struct nvme *n, const struct nvme_cmd *c, struct blk_node *disk);
void nvme_req_end(struct nvme_req *r); /* shows its result to the guest and frees it */
void nvme_req_free(struct nvme_req *r);

#endif
