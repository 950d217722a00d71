/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an OVF descriptor says about a VM, as far as it has a counterpart here (DMTF DSP0243 1.1: sections 7 references, 8 hardware, 9.1
 * disks; CIM's resource types). Pure; any thread.
 */
#ifndef VMD_CLI_IMAGE_OVA_H
#define VMD_CLI_IMAGE_OVA_H

#include "engine/base/err.h"

#include <stddef.h>
#include <stdint.h>

enum { OVF_MAX = 4 << 20, OVF_DISKS = 32, OVF_NICS = 8 };
enum ovf_bus { OVF_BUS_OTHER, OVF_BUS_IDE, OVF_BUS_SCSI, OVF_BUS_SATA };

struct ovf_disk {
    char *file; /* its name in the archive; NULL: an empty disk */
    uint64_t capacity;
    enum ovf_bus bus;
};

struct ovf {
    char *name;      /* NULL: it says none */
    uint64_t cpus;   /* 0: it does not say */
    uint64_t memory; /* bytes; 0 likewise */
    struct ovf_disk disk[OVF_DISKS];
    size_t n_disks, n_nics, n_cdroms;
    char *left_out; /* kinds of devices that have no counterpart, with commas; NULL: none */
};

/* Reads a descriptor; errors name line and element. */
int ovf_read(const char *text, size_t len, struct ovf *o, struct err *e);
void ovf_done(struct ovf *o);

#endif
