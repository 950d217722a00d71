/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Views of the memory of screens (vram.h): an alias of it in the VM's tree that follows its BAR.
 */
#include "devices/display/vram.h"

#include "engine/base/mem.h"
#include "engine/core/vm.h"

#define PRIORITY                                                                               \
    -1 /* over the host bridge's windows, since it comes later; below RAM and the chip set */

int vram_view_init(struct vram_view *v, struct pci_fn *f, struct mem_region *memory,
                   struct err *e)
{
    v->view = mem_new_alias("vram-view", memory, 0, mem_region_size(memory));
    mem_set_enabled(v->view, false);
    return mem_map(f->dev.vm->root, 0, PRIORITY, v->view, e);
}

void vram_view_done(struct vram_view *v)
{
    mem_free(v->view);
    v->view = NULL;
}

void vram_view_follow(struct vram_view *v, const struct pci_fn *f)
{
    bool on = pci_get(f->config + PCI_COMMAND, 2) & PCI_CMD_MEMORY;
    uint64_t at = on ? pci_get(f->config + PCI_BAR0, 4) & ~15ull : 0;

    if (v->view && at != v->at) {
        mem_unmap(v->view);
        mem_set_enabled(v->view, at != 0);
        v->at = at;
        (void)mem_map(f->dev.vm->root, at, PRIORITY, v->view, NULL);
    }
}

void vram_config_written(struct pci_fn *f, unsigned offset, unsigned size)
{
    (void)size;
    if (offset < PCI_BAR0 + 4) {
        vm_request(f->dev.vm, VM_REQ_REMAP, "remap");
    }
}
