/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of a screen on PCI, shown in the VM's own tree where its BAR is, so that guests write it without an exit and it is saved, moved and logged as RAM is. Main thread, but for
 * vram_config_written().
 */
#ifndef VMD_DEVICES_DISPLAY_VRAM_H
#define VMD_DEVICES_DISPLAY_VRAM_H

#include "devices/bus/pci.h"

struct vram_view {
    struct mem_region *view; /* NULL: there is none */
    uint64_t at;             /* 0: nowhere */
};

/* Makes the view of all of `memory`, which is the function's BAR 0, of 32 bits. */
int vram_view_init(struct vram_view *v, struct pci_fn *f, struct mem_region *memory,
                   struct err *e);
void vram_view_done(struct vram_view *v);
/* The view goes where the BAR is: for device_class.remap. Without a view it does nothing. */
void vram_view_follow(struct vram_view *v, const struct pci_fn *f);
/* For pci_fn.config_written: asks for that when a register was written that says where. */
void vram_config_written(struct pci_fn *f, unsigned offset, unsigned size);

#endif
