/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Root ports, for boards.
 */
#ifndef VMD_DEVICES_BUS_PCI_ROOT_PORT_H
#define VMD_DEVICES_BUS_PCI_ROOT_PORT_H

struct device;
struct pci_bus;

/* The bus below a realized root port. */
struct pci_bus *pci_root_port_bus(struct device *port);

#endif
