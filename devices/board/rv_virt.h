/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the rv-virt board: its address map, and what its files share.
 */
#ifndef VMD_DEVICES_BOARD_RV_VIRT_H
#define VMD_DEVICES_BOARD_RV_VIRT_H

#include "devices/board/parts.h"
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
    struct board_parts p; /* first */
    struct mem_region *ram, *rom;
    bool flash[BOARD_MAX_FLASH]; /* which banks there are */
    struct device *fw_cfg, *button;
    uint64_t pci_mmio64; /* address of the window for 64-bit BARs, 0: none */
    struct loader_image firmware, kernel;
    uint64_t initrd_at, initrd_size;
    uint64_t fdt_at;
    void *fdt;
    size_t fdt_size;
    bool fresh; /* images were just loaded by build */
};

#define RV_PCI_MMIO64_SIZE (16ull << 30)

/* Builds the device tree into b->fdt; vCPUs exist, initrd is placed. */
int rv_virt_fdt(struct board *b, struct err *e);

#endif
