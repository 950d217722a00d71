/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Root ports, for boards and for who changes cards while the VM runs (PCI Express Base 4.0 §6.7, native hot-plug).
 *
 * A slot has an attention button, a power controller, two indicators and presence detection, and is not for surprise
 * removal: a card that is to go waits until the guest has switched its slot off. Main thread, unless said otherwise.
 */
#ifndef VMD_DEVICES_BUS_PCI_ROOT_PORT_H
#define VMD_DEVICES_BUS_PCI_ROOT_PORT_H

#include "engine/base/err.h"

#include <stdbool.h>

struct device;
struct pci_bus;

enum pci_slot_event {
    PCI_SLOT_RELEASED, /* the guest, or a reset, has let go of the card that was asked for */
    PCI_SLOT_REFUSED   /* the guest has said that it keeps the card */
};

/* The bus below a realized root port. */
struct pci_bus *pci_root_port_bus(struct device *port);
/* Is there a card in its slot? */
bool pci_root_port_taken(struct device *port);
/* A card was realized on its bus: the guest is told. */
void pci_root_port_plugged(struct device *port);
/* Asks the guest for the card, by the attention button; fn(arg, ...) on the main loop when it has answered, which may
 * be never, or after a reset. Where no driver of the guest serves the slot, a card that none uses
 * either goes at once. 0; -ENODEV: no driver serves the slot, and the card is in use; -EALREADY: it was asked before; -ENXIO:
 * the slot is empty. */
int pci_root_port_ask(struct device *port,
                      void (*fn)(void *arg, struct device *port, enum pci_slot_event what),
                      void *arg, struct err *e);
/* The card that was released is gone: the slot is empty, and the guest sees it. */
void pci_root_port_emptied(struct device *port);

#endif
