/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the AHCI controller (Serial ATA AHCI 1.3.1; ATA/ATAPI Command Set 3): what its files
 * share. ahci.c has the class, registers and interrupts; ahci_port.c command lists, FISes and the life of
 * a command; ahci_ata.c the commands of disks; ahci_identify.c what a drive says of itself. The
 * function's device lock covers all of it.
 */
#ifndef VMD_DEVICES_BLOCK_AHCI_H
#define VMD_DEVICES_BLOCK_AHCI_H

#include "devices/bus/pci.h"
#include "devices/scsi/units.h"

#define AHCI_PORTS 6
#define AHCI_SLOTS 32
#define AHCI_MAX_PIECES 1024
#define AHCI_SELF_TESTS 21
#define ATA_SECTOR 512
#define ATA_TEMPERATURE 37

enum {
    ATA_ERR = 0x01,
    ATA_DRQ = 0x08,
    ATA_DSC = 0x10,
    ATA_FAULT = 0x20,
    ATA_READY = 0x40,
    ATA_BUSY = 0x80
};
enum { ATA_ABORT = 0x04, ATA_NO_ID = 0x10, ATA_UNC = 0x40 }; /* the error register */
enum ata_protocol { ATA_NO_DATA, ATA_PIO_IN, ATA_PIO_OUT, ATA_DMA, ATA_NCQ, ATA_PACKET };

struct ahci;
struct ahci_port;

/* What a host-to-device FIS holds. */
struct ata_file {
    uint8_t command, device, control, tag;
    uint16_t features, count;
    uint64_t lba; /* 48 bits */
};

struct ahci_req {
    struct blk_req io;
    struct scsi_cmd scsi;
    struct list node; /* in_flight or finished */
    struct ahci_port *port;
    uint32_t generation;
    unsigned slot;
    struct ata_file file;
    enum ata_protocol protocol;
    bool write; /* data goes to the drive, as the command header says */
    bool flush_after;
    uint8_t status, error;
    uint64_t moved; /* bytes, for the command header */
    uint32_t prds;
    uint64_t table; /* address of the command table */
    struct iovec *iov;
    uint64_t *gpa;
    unsigned n_iov, room, next, n_ranges; /* room: of iov and gpa */
    uint64_t length;                      /* of the pieces */
    struct scsi_range *ranges;
};

struct ahci_port {
    struct ahci *hba;
    unsigned n;
    struct scsi_unit unit;
    struct scsi_bus bus;
    bool present;
    struct list in_flight, finished;
    uint32_t generation;

    /* Registers. */
    uint64_t clb, fb;
    uint32_t is, ie, cmd, tfd, sig, ssts, sctl, serr, sact, ci;

    /* The drive. */
    uint32_t begun;     /* commands under way, by slot */
    bool stalled;       /* a command failed: nothing more until the port is started anew */
    bool in_reset;      /* by SRST */
    bool signature_due; /* when there is a place for it */
    bool smart_off, standby;
    uint8_t multiple;
    uint8_t transfer_mode;
    uint8_t sense[SCSI_SENSE_SIZE]; /* of the last packet command; all zero: none */
    uint8_t ncq_error[16];          /* what READ LOG tells of the failed queued command */
    uint32_t self_tests;            /* that there were */
    uint8_t self_test[AHCI_SELF_TESTS];
};

struct ahci {
    struct pci_fn pci;
    struct scsi_units *units; /* property, taken */
    struct ahci_port port[AHCI_PORTS];
    bool wanted; /* a service is posted */
    uint32_t ghc, is;
};

/* ahci.c */
void ahci_interrupt(struct ahci *h);
void ahci_service_soon(struct ahci *h);
void ahci_request_free(struct ahci_req *r);

/* ahci_port.c: lock held */
void ahci_port_reset(struct ahci_port *p);     /* power on, COMRESET */
void ahci_port_signature(struct ahci_port *p); /* the FIS after a reset, when it has a place */
void ahci_port_start(struct ahci_port *p);
/* Drops what is under way; when it returns nothing touches guest memory any more. */
void ahci_port_stop(struct ahci_port *p);
void ahci_port_serve(struct ahci_port *p); /* main loop */
/* Shows a result to the guest and frees the request. */
void ahci_request_end(struct ahci_req *r);
/* Hands r->io to the node. */
void ahci_submit(struct ahci_req *r, enum blk_op op);

/* ahci_ata.c: true when the command is complete */
bool ata_start(struct ahci_req *r);
bool ata_fail(struct ahci_req *r, uint8_t error);
void ata_defaults(struct ahci_port *p);
uint64_t ata_sectors(const struct ahci_port *p);
/* Copies between the command's memory and a buffer; the bytes moved. */
size_t ata_put(struct ahci_req *r, const void *data, size_t n);
size_t ata_get(const struct ahci_req *r, void *data, size_t n);

/* ahci_identify.c: fill 512 bytes each */
void ata_identify(const struct ahci_port *p, uint8_t *out);
void ata_identify_packet(const struct ahci_port *p, uint8_t *out);
void ata_smart_data(const struct ahci_port *p, uint8_t *out);
void ata_smart_thresholds(uint8_t *out);
/* Page of a log; false when there is no such one. `gpl`: by READ LOG EXT, not by SMART. */
bool ata_log(const struct ahci_port *p, bool gpl, uint8_t log, unsigned page, uint8_t *out);

#endif
