/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the microvm board: its address map, and what its files share.
 */
#ifndef VMD_DEVICES_BOARD_MICROVM_H
#define VMD_DEVICES_BOARD_MICROVM_H

#include "devices/board/parts.h"
#include "engine/core/loader.h"

#define MICROVM_SLOTS 24    /* virtio-mmio, the last of them the power button's */
#define MICROVM_SLOT_PIN 16 /* first of eight pins of the I/O APIC that the slots share */

/* Guest physical addresses. RAM ends at MICROVM_GAP and goes on at MICROVM_HIGH. */
enum {
    MICROVM_GDT = 0x500,
    MICROVM_START_INFO = 0x6000, /* for PVH kernels, with what it points to */
    MICROVM_PARAMS = 0x7000,     /* for bzImages: the boot parameters */
    MICROVM_CMDLINE = 0x20000,
    MICROVM_CMDLINE_MAX = 0x10000,
    MICROVM_LOW_END = 0x9fc00,
    MICROVM_ACPI = 0xe0000,
    MICROVM_MP_TABLE = 0xf0000,
    MICROVM_KERNEL = 0x100000
};
#define MICROVM_GAP 0xc0000000ull
#define MICROVM_VIRTIO 0xfeb00000ull
#define MICROVM_VIRTIO_STEP 0x1000
#define MICROVM_IOAPIC 0xfec00000ull
#define MICROVM_HIGH 0x100000000ull

/* Ports. */
enum { MICROVM_KBC = 0x60, MICROVM_COM1 = 0x3f8, MICROVM_PM1 = 0x604, MICROVM_SLEEP = 0x606 };
enum { MICROVM_COM1_PIN = 4 };

struct device;
struct mem_region;

struct board {
    struct board_parts p;                /* first */
    struct mem_region *ram, *low, *high; /* all of it, and its two windows */
    struct mem_region *com1;
    struct device *ioapic, *button;
    unsigned n_slots; /* taken */
    struct loader_image kernel;
    struct loader_bzimage linux_image;
    bool is_bzimage;
    uint64_t initrd_at, initrd_size;
    bool acpi;  /* the kernel finds its devices by ACPI, else by its command line */
    bool fresh; /* images were just loaded by build */
};

/* microvm_slots.c: the virtio devices, each in a slot of its own. */
int microvm_check_slots(const struct board_config *c, struct err *e);
int microvm_add_slots(struct board *b, struct err *e);

/* microvm_boot.c: kernel, initrd, and the tables that the kernel looks for; again at each reset. */
int microvm_load(struct board *b, struct err *e);
/* microvm_acpi.c: the tables, as they lie from MICROVM_ACPI on. */
struct buf;
void microvm_acpi(const struct board *b, struct buf *t);
/* The first processor stands at the kernel's entry. */
void microvm_start(struct board *b);

#endif
