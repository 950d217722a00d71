/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the q35 board: its address map, and what its files share.
 */
#ifndef VMD_DEVICES_BOARD_Q35_H
#define VMD_DEVICES_BOARD_Q35_H

#include "devices/board/parts.h"

#include "engine/base/buf.h"
#include "engine/core/irq.h"

/* Guest physical addresses. RAM ends below the first of the two that leaves room for it, and goes on at Q35_HIGH. */
#define Q35_GAP_MOST 0xb0000000ull
#define Q35_GAP 0x80000000ull
#define Q35_HIGH 0x100000000ull
#define Q35_IOAPIC 0xfec00000ull
#define Q35_HPET 0xfed00000ull
#define Q35_GENID 0xfed45000ull
#define Q35_BIOS_LOW 0xe0000ull
#define Q35_BIOS_LOW_SIZE 0x20000ull
#define Q35_FLASH_MOST (8ull << 20) /* below 4 GiB */

/* Ports. Power management and config space are where the guest's firmware puts them; the tables say where that usually is. */
enum {
    Q35_PIC1 = 0x20,
    Q35_PIT = 0x40,
    Q35_KBC = 0x60,
    Q35_SPEAKER = 0x61,
    Q35_RTC = 0x70,
    Q35_PORT92 = 0x92,
    Q35_PIC2 = 0xa0,
    Q35_APM = 0xb2,
    Q35_COM1 = 0x3f8,
    Q35_DEBUG = 0x402,
    Q35_ELCR = 0x4d0,
    Q35_FW_CFG = 0x510,
    Q35_PM = 0x600,
    Q35_PCI = 0xcf8
};

enum { Q35_SLOT_CHIPSET = 31, Q35_FIRST_DIRECT = 25 };
enum {
    Q35_IRQ_KBD = 1,
    Q35_IRQ_COM1 = 4,
    Q35_IRQ_RTC = 8,
    Q35_IRQ_SCI = 9,
    Q35_IRQ_MOUSE = 12
};
enum { Q35_EVENT_GENID = 5 }; /* of general-purpose event 0 */

#define Q35_WINDOWS 8
#define Q35_GSIS 24

struct device;
struct mem_region;

struct board {
    struct board_parts p;                         /* first */
    struct mem_region *ram, *low, *legacy, *high; /* all of it, and its windows */
    struct mem_region *bios, *bios_low, *flash[BOARD_MAX_FLASH];
    struct mem_region *window[Q35_WINDOWS]; /* parts of blocks, at ports */
    unsigned n_windows;
    struct device *pic, *ioapic, *hpet, *rtc, *kbc, *mch, *lpc, *fw_cfg, *genid;
    struct irq_line rtc_irq; /* where the RTC's interrupt goes */
    uint64_t mmio64;         /* where 64-bit BARs may be */
};

/* Where the window for 64-bit BARs ends that begins at `from`. */
uint64_t q35_mmio64_end(uint64_t from);
/* May its guests sleep in RAM? */
bool q35_sleeps(const struct board *b);
/* RAM below 4 GiB. */
uint64_t q35_low_ram(const struct board *b);

/* q35_tables.c: what firmware is told by fw_cfg. */
int q35_add_tables(struct board *b, struct err *e);
/* q35_acpi.c: the tables; the places of pointers between them are in `loader`, as commands of fw_cfg's table loader. */
void q35_acpi(const struct board *b, struct buf *tables, struct buf *rsdp, struct buf *loader);
/* q35_smbios.c */
void q35_smbios(const struct board *b, struct buf *anchor, struct buf *tables);

#endif
