/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Expansion ROMs: a file's images behind a function's ROM BAR, for firmware that runs them (PCI Local Bus 3.0 §6.2.5.2, §6.3; PCI Firmware 3.0).
 */
#ifndef VMD_DEVICES_BUS_PCI_ROM_H
#define VMD_DEVICES_BUS_PCI_ROM_H

#include "devices/bus/pci.h"

#define PCI_ROM_MOST (4u << 20) /* bytes of a file */

struct pci_rom {      /* as a device's property "rom" */
    const char *path; /* NULL: none */
    int fd;           /* the caller's; read once */
};

/*
 * Shows the file in the ROM BAR. Images of the function's vendor for another device number get the function's own (guests
 * match both), as one ROM drives all of a family. At realize, behind pci_fn_init(), before pci_fn_ready(). -EINVAL: it is no
 * expansion ROM, or another vendor's, or larger than 4 MiB; -EIO.
 */
int pci_rom_set(struct pci_fn *f, const struct pci_rom *rom, struct err *e);

#endif
