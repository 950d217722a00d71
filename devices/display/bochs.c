/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bochs-display: a plain framebuffer on PCI with the registers of Bochs' VBE extension (QEMU, docs/specs/standard-vga; vgabios,
 * vbe_display_api), which Linux and EDK2 drive. No VGA. BAR 0 is the memory, BAR 2 has EDID and registers. Owns the memory and
 * what of it was shown last, to know what has changed. vCPUs write the memory without anybody being told, so the picture is
 * compared when somebody looks. Where the board asks for it, the memory is seen in the VM's own tree, too (vram.h). Registers: device lock; refresh: main loop.
 */
#include "devices/bus/pci.h"
#include "devices/display/dispi.h"
#include "devices/display/edid.h"
#include "devices/display/vram.h"
#include "devices/registry.h"
#include "engine/base/mem.h"
#include "engine/core/vm.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define VRAM (16u << 20)
#define ENDIAN_LITTLE 0x1e1e1e1eu
enum { BAR_MEMORY = 0, BAR_REGS = 2 };
enum { AT_EDID = 0, AT_DISPI = 0x500, AT_EXT = 0x600 };
struct bochs {
    struct pci_fn pci;
    struct display *display;
    uint64_t first_width, first_height; /* properties */
    bool mapped;
    struct mem_region *memory;
    struct vram_view view;
    uint16_t vbe[VBE_REGS];
    uint8_t edid[EDID_SIZE];
};

static struct bochs *bochs_of(struct device *d)
{
    return (struct bochs *)d;
}

/* --- the picture ------------------------------------------------------------------------------ */

static void bochs_refresh(void *arg)
{
    struct bochs *b = arg;
    struct device *d = &b->pci.dev;
    struct dispi_mode m;
    struct dispi_pen pen;
    bool on;

    bus_lock(&d->lock);
    on = dispi_mode(b->vbe, VRAM, &m) && m.bpp >= 15;
    bus_unlock(&d->lock);
    if (on && dispi_pen_begin(&pen, b->display, m.width, m.height)) {
        dispi_draw(&pen, &m, mem_ram_host(b->memory));
        dispi_pen_end(&pen);
    }
}

/* --- registers -------------------------------------------------------------------------------- */

static uint64_t r_edid(struct device *d, const struct dev_reg *r, unsigned i)
{
    (void)r;
    return bochs_of(d)->edid[i];
}

static uint64_t r_vbe(struct device *d, const struct dev_reg *r, unsigned i)
{
    (void)r;
    return dispi_read(bochs_of(d)->vbe, i, VRAM);
}

static void w_vbe(struct device *d, const struct dev_reg *r, unsigned i, uint64_t old,
                  uint64_t value)
{
    struct bochs *b = bochs_of(d);

    (void)r, (void)old;
    if (dispi_write(b->vbe, i, (uint16_t)value)) {
        memset(mem_ram_host(b->memory), 0, VRAM);
        mem_region_dirty(d->vm->mem, b->memory, 0, VRAM);
    }
}

static const struct dev_reg bochs_regs[] = {
    { .name = "EDID",
      .doc = "what the monitor says of itself",
      .offset = AT_EDID,
      .size = 1,
      .count = EDID_SIZE,
      .field = DEV_NO_FIELD,
      .read = r_edid },
    { .name = "VBE",
      .doc = "id, width, height, bits a pixel, enable, bank, virtual width and height, x and y "
             "offset, memory in 64 KiB",
      .offset = AT_DISPI,
      .size = 2,
      .count = VBE_REGS,
      .writable = 0xffff,
      .field = DEV_NO_FIELD,
      .read = r_vbe,
      .written = w_vbe },
    { .name = "SIZE",
      .doc = "bytes of registers from here on",
      .offset = AT_EXT,
      .size = 4,
      .reset = 8,
      .field = DEV_NO_FIELD },
    { .name = "ENDIAN",
      .doc = "byte order of the picture: little",
      .offset = AT_EXT + 4,
      .size = 4,
      .reset = ENDIAN_LITTLE,
      .field = DEV_NO_FIELD },
    { .name = NULL },
};
static const struct dev_reg_block bochs_blocks[] = {
    { .name = "mmio", .size = 0x1000, .regs = bochs_regs, .min_size = 1, .max_size = 4 },
    { .name = NULL },
};

/* --- class ------------------------------------------------------------------------------------ */

static int bochs_realize(struct device *d, struct err *e)
{
    static const struct pci_ident id = { .vendor = 0x1234,
                                         .device = 0x1111,
                                         .sub_vendor = 0x1af4,
                                         .sub_device = 0x1100,
                                         .class = 0x038000,
                                         .revision = 2 };
    struct bochs *b = bochs_of(d);
    const struct display_source source = { .refresh = bochs_refresh, .arg = b };
    int rc = mem_new_ram("bochs-display", VRAM, &b->memory, e);

    if (rc == 0) {
        rc = pci_fn_init(&b->pci, &id, e);
    }
    if (rc == 0) {
        edid_fill(b->edid, (uint32_t)b->first_width, (uint32_t)b->first_height);
        pci_bar_set(&b->pci, BAR_MEMORY, PCI_BAR_MEM32 | PCI_BAR_PREFETCH, b->memory);
        pci_bar_set(&b->pci, BAR_REGS, PCI_BAR_MEM32, d->mmio[0]);
        b->pci.config_written = b->mapped ? vram_config_written : NULL;
        pci_fn_ready(&b->pci);
        rc = b->mapped ? vram_view_init(&b->view, &b->pci, b->memory, e) : 0;
        display_set_source(b->display, &source);
    }
    return rc;
}

static void bochs_reset(struct device *d)
{
    struct bochs *b = bochs_of(d);

    pci_fn_reset(&b->pci);
    bus_lock(&d->lock);
    memset(b->vbe, 0, sizeof(b->vbe));
    bus_unlock(&d->lock);
}

static void bochs_destroy(struct device *d)
{
    struct bochs *b = bochs_of(d);

    if (b->display) {
        display_set_source(b->display, NULL);
    }
    pci_fn_done(&b->pci);
    vram_view_done(&b->view);
    mem_free(b->memory);
}

static void bochs_remap(struct device *d)
{
    vram_view_follow(&bochs_of(d)->view, &bochs_of(d)->pci);
}

static const struct st_field bochs_fields[] = {
    PCI_ST_FIELD,
    ST_ARRAY(struct bochs, vbe, ST_U16, VBE_REGS, 1, "registers of the extension"),
    ST_END,
};
static const struct st_table bochs_state = {
    .name = "bochs-display",
    .version = 1,
    .fields = bochs_fields,
};

static const struct dev_prop bochs_props[] = {
    PCI_PROPS,
    { .name = "display",
      .kind = PROP_PTR,
      .offset = offsetof(struct bochs, display),
      .required = true,
      .doc = "screen that it draws" },
    { .name = "mapped",
      .kind = PROP_BOOL,
      .offset = offsetof(struct bochs, mapped),
      .doc = "guests write the memory without an exit, and it is part of saved states" },
    { .name = "width",
      .kind = PROP_U64,
      .offset = offsetof(struct bochs, first_width),
      .def = 1280,
      .min = DISPLAY_MIN_WIDTH,
      .max = DISPLAY_MAX_SIDE,
      .doc = "width that the monitor prefers" },
    { .name = "height",
      .kind = PROP_U64,
      .offset = offsetof(struct bochs, first_height),
      .def = 800,
      .min = DISPLAY_MIN_HEIGHT,
      .max = DISPLAY_MAX_SIDE,
      .doc = "height that the monitor prefers" },
    { .name = NULL },
};

const struct device_class bochs_display_class = {
    .name = "bochs-display",
    .doc = "framebuffer on PCI with the registers of Bochs' VBE extension",
    .size = sizeof(struct bochs),
    .props = bochs_props,
    .blocks = bochs_blocks,
    .state = &bochs_state,
    .realize = bochs_realize,
    .reset = bochs_reset,
    .remap = bochs_remap,
    .destroy = bochs_destroy,
};
