/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the rv-virt board: its address map, and what its two files share.
 */
#ifndef VMD_DEVICES_BOARD_RV_VIRT_H
#define VMD_DEVICES_BOARD_RV_VIRT_H

#include "devices/board/board.h"
#include "engine/core/loader.h"

#define RV_SLOTS 8 /* virtio-mmio */

/* Where everything lies: as on the "virt" board of QEMU, so that its firmware and kernels
 * run here. */
enum {
    RV_ROM = 0x1000,
    RV_ROM_SIZE = 0xf000,
    RV_ROM_WAIT = 0x80, /* offset: where a hart waits for its first software interrupt */
    RV_TEST = 0x100000,
    RV_RTC = 0x101000,
    RV_ACLINT = 0x2000000,
    RV_PLIC = 0xc000000,
    RV_UART = 0x10000000,
    RV_VIRTIO = 0x10001000,
    RV_VIRTIO_STEP = 0x1000,
    RV_BUTTON = 0x10009000, /* a slot of its own, which QEMU's board does not have */
    RV_GENID = 0x1000a000,  /* the same */
    RV_FW_CFG = 0x10100000,
    RV_FLASH = 0x20000000,
    RV_FLASH_BANK = 0x2000000,
    RV_PCI_PIO = 0x3000000,
    RV_PCI_PIO_SIZE = 0x10000,
    RV_PCI_ECAM = 0x30000000,
    RV_PCI_ECAM_SIZE = 0x10000000,
    RV_PCI_MMIO = 0x40000000,
    RV_PCI_MMIO_SIZE = 0x40000000
};
#define RV_RAM 0x80000000ull
#define RV_KERNEL_OFFSET 0x200000 /* of a payload without a header: behind the firmware */

/* Interrupt sources of the PLIC. */
enum {
    RV_IRQ_VIRTIO = 1,
    RV_IRQ_UART = 10,
    RV_IRQ_RTC = 11,
    RV_IRQ_BUTTON = 12,
    RV_IRQ_GENID = 13,
    RV_IRQ_PCI = 32
};

struct device;
struct mem_region;

struct board {
    struct vm *vm;
    struct board_config cfg;
    struct mem_region *ram, *rom, *more[BOARD_MAX_MEMORY]; /* of memory devices */
    bool flash[BOARD_MAX_FLASH]; /* which banks there are */
    struct device *serial; /* with the ports, or NULL */
    struct device *usb; /* the host controller, or NULL */
    struct device *fw_cfg, *button, *pci, *nic[BOARD_MAX_NICS], *port[BOARD_MAX_PORTS], *input[BOARD_N_INPUTS];
    uint64_t pci_mmio64; /* address of the window for 64-bit BARs, 0: none */
    struct loader_image firmware, kernel;
    uint64_t initrd_at, initrd_size;
    uint64_t fdt_at;
    void *fdt;
    size_t fdt_size;
    bool fresh; /* images were just loaded by build */
};

#define RV_PCI_MMIO64_SIZE (16ull << 30)

/* The PCI host with its windows, and what the configuration puts on its bus. */
int rv_virt_add_pci(struct board *b, struct device *plic, struct err *e);

struct device *rv_virt_port(struct board *b, unsigned i);

/* Network cards (rv_virt_net.c): those in slots, in order; making the i-th, which then owns its port. */
bool rv_virt_nic_on_pci(const struct board_nic *n);
unsigned rv_virt_slot_nics(const struct board_config *c);
unsigned rv_virt_slot_nic(const struct board_config *c, unsigned slot);
int rv_virt_new_net(struct board *b, unsigned i, struct device **out, struct err *e);
struct device *rv_virt_nic(struct board *b, unsigned i);
void rv_virt_close_nics(struct board *b);
void rv_virt_close_shares(struct board *b);

/* Screen, keyboard and tablet (rv_virt_screen.c): how many of them are in slots; making the i-th; those on PCI. */
unsigned rv_virt_slot_screens(const struct board_config *c);
int rv_virt_new_screen(struct board *b, unsigned i, struct device **out, struct err *e);
int rv_virt_add_screen(struct board *b, struct err *e);
struct device *rv_virt_input(struct board *b, enum board_input kind);
/* What a board may have besides (rv_virt_extras.c), on the root bus, behind all else. */
int rv_virt_add_extras(struct board *b, struct err *e);
/* Memory that comes and goes (rv_virt_extras.c): where device i of it lies, behind RAM; with i the number of them, where what follows may. */
uint64_t rv_virt_memory_at(const struct board *b, unsigned i);
/* Behind everything else on the root bus. */
int rv_virt_add_memory(struct board *b, struct err *e);
/* The USB controller and what is at it (rv_virt_usb.c): the devices of the configuration and the disks, behind everything else. */
int rv_virt_add_usb(struct board *b, struct err *e);
/* On the root bus: a virtio device behind a function of its own; a function. Freed when that fails. */
int rv_virt_add_virtio(struct board *b, struct device *behind, struct err *e);
int rv_virt_plug(struct board *b, struct device *d, struct err *e);

/* Builds the device tree into b->fdt; vCPUs exist, initrd is placed. */
int rv_virt_fdt(struct board *b, struct err *e);

#endif
