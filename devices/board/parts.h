/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What boards have in common: from a configuration to devices. A board is addresses, interrupts and devices of its own; it begins with a struct board_parts, makes what it has of the
 * lists here, and places it. Main thread.
 */
#ifndef VMD_DEVICES_BOARD_PARTS_H
#define VMD_DEVICES_BOARD_PARTS_H

#include "devices/board/board.h"

struct device;
struct device_class;
struct mem_region;

struct board_parts {
    struct vm *vm;
    struct board_config cfg;
    struct device *serial; /* with the ports, or NULL */
    struct device *usb;    /* the host controller, or NULL */
    struct device *pci, *nic[BOARD_MAX_NICS], *port[BOARD_MAX_PORTS], *input[BOARD_N_INPUTS];
    struct mem_region *more[BOARD_MAX_MEMORY]; /* of memory devices */
    unsigned sata_at;    /* slot and function of the first SATA controller, 0: the next free */
    bool map_screen;     /* the memory of a bochs-display is seen in the VM's own tree, too */
    uint64_t memory_end; /* where memory devices may lie: set by the board */
};

/* Realizes a device whose properties are set (rc 0), or frees it. */
int parts_finish(struct device *d, int rc, struct err *e);
/* Makes and realizes a device that needs no properties. */
int parts_plain(struct board_parts *b, const struct device_class *cls, const char *id,
                struct device **out, struct err *e);
/* Makes the bank of flash i, which then owns its node. */
int parts_new_flash(struct board_parts *b, unsigned i, struct device **out, struct err *e);
/* What no device has taken of the configuration. */
void parts_close(struct board_parts *b);
/* Gives back what devices were using until now. */
void parts_done(struct board_parts *b);
/* The VM's UUID as 16 bytes in the order of the text; false: it has none. */
bool parts_uuid(const struct board_parts *b, uint8_t out[16]);

/* Devices of the configuration, not realized; *out may be set when that fails, for dev_free(). */
int parts_new_net(struct board_parts *b, unsigned i, struct device **out, struct err *e);
/* 0: what draws the screen, then keyboard and tablet. */
int parts_new_screen(struct board_parts *b, unsigned i, struct device **out, struct err *e);
int parts_new_serial(struct board_parts *b, struct device **out, struct err *e);
int parts_new_console(struct board_parts *b, struct device **out, struct err *e);
int parts_new_balloon(struct board_parts *b, struct device **out, struct err *e);
int parts_new_vsock(struct board_parts *b, struct device **out, struct err *e);

/* Which of them are in slots of virtio-mmio, for boards that have PCI, too. */
bool parts_nic_on_pci(const struct board_nic *n);
unsigned parts_slot_nics(const struct board_config *c);
unsigned parts_slot_nic(const struct board_config *c, unsigned slot);
unsigned parts_slot_screens(const struct board_config *c);

/* Memory that comes and goes: where device i of it lies; with i the number of them, where what follows may. */
uint64_t parts_memory_at(const struct board_parts *b, unsigned i);
/* Behind them, and behind the room for more (board_class.memory_room). */
uint64_t parts_memory_end(const struct board_parts *b);
bool parts_memory_room(struct board *b, uint64_t *at, uint64_t *size);

/* --- on PCI */

/* Where a host bridge has its windows, and how its own function and its wires are. */
struct parts_pci {
    uint64_t mmio, mmio_size, mmio64, mmio64_size;
    bool own_bridge;
    unsigned direct_from; /* 0: none */
};
/* Makes the host bridge b->pci; the board maps its windows and connects its wires. */
int parts_add_host(struct board_parts *b, const struct parts_pci *p, struct err *e);
/* IOMMU, root ports and all that the configuration puts on PCI, in the order that addresses depend on. */
#define PARTS_IOMMU_SLOT 30 /* in a place of its own, so that others keep theirs */
int parts_add_pci(struct board_parts *b, struct err *e);
/* On the root bus: a function; a virtio device behind a function of its own. Freed when that fails. */
int parts_plug(struct board_parts *b, struct device *d, struct err *e);
int parts_plug_at(struct board_parts *b, struct device *d, unsigned devfn, bool multifunction,
                  struct err *e);
int parts_add_virtio(struct board_parts *b, struct device *behind, struct err *e);
/* Inside of parts_add_pci(): screen, keyboard and tablet; balloon, vsock, watchdog; USB; memory devices. */
int parts_add_screen(struct board_parts *b, struct err *e);
int parts_add_extras(struct board_parts *b, struct err *e);
int parts_add_usb(struct board_parts *b, struct err *e);
int parts_add_memory(struct board_parts *b, struct err *e);

/* Of struct board_class, for boards that begin with a struct board_parts. */
struct device *parts_nic(struct board *b, unsigned i);
struct device *parts_port(struct board *b, unsigned i);
struct device *parts_serial(struct board *b);
struct device *parts_input(struct board *b, enum board_input kind);

#endif
