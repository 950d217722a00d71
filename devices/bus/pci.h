/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCI Express functions and buses (PCI Express Base 4.0, PCI Local Bus 3.0).
 *
 * A PCI device is a device class whose instance begins with a struct pci_fn; each of its BARs shows
 * a memory region, usually one of the device's register blocks. The host bridge (pci_host.h) owns
 * the bus tree, the addresses where BARs are mapped and the four interrupt wires.
 *
 * A BAR that the guest moves must be at its new place before the guest's next instruction, which
 * the VM's own memory tree cannot promise to a running vCPU. So the bridge's windows stand in that
 * tree for ever, and the bridge keeps a tree of its own behind them, which it commits at once.
 *
 * Locks: a function's config space, BARs and interrupts are under its device lock; the host's lock
 * (inner to every device lock, outer to the irqchip's) covers what functions share. A device holds
 * its own lock in each call below unless said otherwise.
 */
#ifndef VMD_DEVICES_BUS_PCI_H
#define VMD_DEVICES_BUS_PCI_H

#include "engine/core/dma.h"

#define PCI_CONFIG_SIZE 4096
#define PCI_CONFIG_KEPT 512 /* bytes of config space that can hold something */
#define PCI_BAR_ROM 6       /* the expansion ROM's (pci_rom.h) */
#define PCI_BARS 7
#define PCI_MSIX_MAX 64 /* vectors of a function */
#define PCI_DEVFN(slot, fn) ((slot) << 3 | (fn))
#define PCI_VENDOR_REDHAT 0x1b36 /* the vendor whose numbers guests know for virtual hardware */

/* Offsets in config space and their bits. */
enum {
    PCI_VENDOR = 0x00,
    PCI_DEVICE = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_CLASS = 0x08, /* revision, interface, sub-class, class */
    PCI_HEADER = 0x0e,
    PCI_BAR0 = 0x10,
    PCI_PRIMARY = 0x18, /* type 1 from here ... */
    PCI_SECONDARY = 0x19,
    PCI_SUBORDINATE = 0x1a,
    PCI_IO_BASE = 0x1c,
    PCI_MEM_BASE = 0x20,
    PCI_PREF_BASE = 0x24,
    PCI_PREF_BASE_HIGH = 0x28,
    PCI_BRIDGE_CONTROL = 0x3e, /* ... to here */
    PCI_SUBSYSTEM = 0x2c,
    PCI_ROM = 0x30, /* type 0 */
    PCI_CAPABILITIES = 0x34,
    PCI_INT_LINE = 0x3c,
    PCI_INT_PIN = 0x3d,
};
enum {
    PCI_CMD_IO = 1,
    PCI_CMD_MEMORY = 2,
    PCI_CMD_MASTER = 4,
    PCI_CMD_NO_INTX = 0x400,
    PCI_STATUS_INTX = 0x08,
    PCI_STATUS_CAPS = 0x10
};
enum {
    PCI_CAP_PM = 0x01,
    PCI_CAP_MSI = 0x05,
    PCI_CAP_VENDOR = 0x09,
    PCI_CAP_EXPRESS = 0x10,
    PCI_CAP_MSIX = 0x11,
    PCI_CAP_SSVID = 0x0d,
    PCI_CAP_SATA = 0x12
};
#define PCI_ROM_ENABLE 1 /* in the ROM BAR */
enum pci_bar_kind {
    PCI_BAR_MEM32 = 0,
    PCI_BAR_IO = 1,
    PCI_BAR_MEM64 = 4,
    PCI_BAR_PREFETCH = 8
};

struct pci_host;
struct pci_fn;

struct pci_bus {
    struct pci_host *host;
    struct pci_fn *bridge;  /* the port above it; NULL: the root bus */
    struct pci_fn *fn[256]; /* by slot << 3 | function */
    bool off;               /* its slot has no power: nothing on it answers; the host's lock */
};

struct pci_bar {
    struct mem_region *region; /* NULL: no such BAR */
    uint64_t size;             /* a power of two, at least 16; I/O 4 */
    uint8_t kind;              /* enum pci_bar_kind bits */
    /* The host's lock: where it asks to be, and whether it is there. */
    uint64_t at;
    bool mapped;
};

/* What translates the addresses of functions. Any thread, also with a function's lock held; see struct dma_port. */
struct pci_iommu {
    int (*translate)(void *opaque, uint16_t requester, uint64_t at, bool write, uint64_t *gpa,
                     uint64_t *n);
    void *opaque;
};
/* Bus number, slot and function, as the guest has numbered the buses. Any thread. */
uint16_t pci_requester(const struct pci_fn *f);

struct pci_window { /* what a bridge passes on; empty when first > last */
    uint64_t first, last;
};

struct pci_fn {
    struct device dev;
    struct pci_bus *bus; /* property */
    uint64_t addr;       /* property: slot << 3 | function, or PCI_ADDR_AUTO */
    bool multifunction;  /* property */
    uint8_t devfn;
    bool plugged;

    uint8_t config[PCI_CONFIG_KEPT], initial[PCI_CONFIG_KEPT];
    uint8_t writable[PCI_CONFIG_KEPT], w1c[PCI_CONFIG_KEPT];
    struct pci_bar bar[PCI_BARS];
    uint8_t cap_end; /* first free byte for capabilities */
    uint8_t cap_msi, cap_msix, cap_express, cap_pm;
    bool intx, intx_out; /* what the device asks, what reaches the wire */
    unsigned n_vectors;
    uint8_t msix_table[PCI_MSIX_MAX * 16];
    uint64_t msix_pending;
    struct mem_region *msix_region, *rom_region;

    /* The host's lock: copies of what decides about decoding. */
    uint16_t command;
    struct pci_window io, mem, pref;
    uint8_t secondary, subordinate;
    struct pci_bus *below; /* of a bridge */
    struct dma_port dma;   /* to the host's IOMMU; dev.dma leads here where there is one */

    /* Hooks of the device, or NULL; its lock is held. */
    void (*config_reading)(struct pci_fn *f, unsigned offset, unsigned size);
    void (*config_written)(struct pci_fn *f, unsigned offset, unsigned size);
};

#define PCI_ADDR_AUTO 0x1000

/* Properties of each PCI class. */
#define PCI_PROPS                                                                              \
    { .name = "bus",                                                                           \
      .kind = PROP_PTR,                                                                        \
      .offset = offsetof(struct pci_fn, bus),                                                  \
      .required = true,                                                                        \
      .doc = "bus that the function is on" },                                                  \
        { .name = "addr",                                                                      \
          .kind = PROP_U64,                                                                    \
          .offset = offsetof(struct pci_fn, addr),                                             \
          .def = PCI_ADDR_AUTO,                                                                \
          .max = PCI_ADDR_AUTO,                                                                \
          .doc = "slot times 8 plus function; by default the first free slot" },               \
    {                                                                                          \
        .name = "multifunction", .kind = PROP_BOOL,                                            \
        .offset = offsetof(struct pci_fn, multifunction),                                      \
        .doc = "function 0 of a slot that has more"                                            \
    }

extern const struct st_table pci_fn_state;
#define PCI_ST_FIELD                                                                           \
    {                                                                                          \
        .name = "pci", .kind = ST_STRUCT, .offset = 0, .count = 1,                             \
        .stride = sizeof(struct pci_fn), .since = 1, .table = &pci_fn_state,                   \
        .doc = "configuration space and MSI-X table"                                           \
    }

/* What a function says it is. */
struct pci_ident {
    uint16_t vendor, device, sub_vendor, sub_device;
    uint32_t class; /* 24 bits: class, sub-class, interface */
    uint8_t revision;
    bool bridge; /* type 1 header */
};

/* --- at realize, in this order; main thread, no lock --- */

/* Fills the header and takes the function's place on its bus. -EBUSY: taken; -ENOSPC: full. */
int pci_fn_init(struct pci_fn *f, const struct pci_ident *id, struct err *e);
/* Shows `region` in BAR n (64-bit ones take n + 1 too). Its size is rounded up to a power of two. */
void pci_bar_set(struct pci_fn *f, unsigned n, unsigned kind, struct mem_region *region);
/* Adds a capability of `size` bytes, linked first; returns its offset. Its bytes behind the
 * header are zero and read-only until the caller says otherwise. */
unsigned pci_cap_add(struct pci_fn *f, uint8_t id, unsigned size);
void pci_cap_express(struct pci_fn *f); /* endpoint, root port or integrated endpoint */
void pci_cap_pm(struct pci_fn *f);
void pci_cap_msi(struct pci_fn *f); /* one message, 64-bit address */
/* n vectors (at most PCI_MSIX_MAX) with table and pending bits in BAR `bar` of their own. */
void pci_cap_msix(struct pci_fn *f, unsigned n, unsigned bar);
void pci_use_intx(struct pci_fn *f); /* pin A */
/* Last: what config space holds now is what a reset restores. */
void pci_fn_ready(struct pci_fn *f);

/* --- device_class.reset and destroy of a PCI class call these; no lock --- */

void pci_fn_reset(struct pci_fn *f);
void pci_fn_done(struct pci_fn *f);

/* --- interrupts --- */

bool pci_msix_on(const struct pci_fn *f);
bool pci_msi_on(const struct pci_fn *f);
/* Sends vector n by MSI-X, or the one message of MSI; false when neither is on: use the wire. */
bool pci_message(struct pci_fn *f, unsigned n);
/* The wire's level; nothing reaches the wire while messages are on. */
void pci_intx_set(struct pci_fn *f, bool level);

/* --- helpers for config bytes --- */

/* Where BAR i stands. */
static inline unsigned pci_bar_offset(unsigned i)
{
    return i == PCI_BAR_ROM ? PCI_ROM : PCI_BAR0 + 4 * i;
}
uint64_t pci_get(const uint8_t *p, unsigned size);
void pci_put(uint8_t *p, uint64_t value, unsigned size);

/* --- for the host; takes the function's lock --- */

uint32_t pci_config_read(struct pci_fn *f, unsigned offset, unsigned size);
void pci_config_write(struct pci_fn *f, unsigned offset, uint32_t value, unsigned size);

#endif
