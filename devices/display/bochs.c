/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bochs-display: a plain framebuffer on PCI with the registers of Bochs' VBE extension (QEMU, docs/specs/standard-vga; vgabios,
 * vbe_display_api), which Linux and EDK2 drive. No VGA. BAR 0 is the memory, BAR 2 has EDID and registers. Owns the memory and
 * what of it was shown last, to know what has changed. vCPUs write the memory without anybody being told, so the picture is
 * compared when somebody looks. Registers: device lock; refresh: main loop.
 */
#include "devices/bus/pci.h"
#include "devices/display/display.h"
#include "devices/display/edid.h"
#include "devices/registry.h"
#include "engine/base/mem.h"
#include "engine/core/vm.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define VRAM (16u << 20)
#define ID_VALUE 0xb0c5
#define ENDIAN_LITTLE 0x1e1e1e1eu
enum { BAR_MEMORY = 0, BAR_REGS = 2 };
enum { AT_EDID = 0, AT_DISPI = 0x500, AT_EXT = 0x600 };
enum {
    VBE_ID,
    VBE_XRES,
    VBE_YRES,
    VBE_BPP,
    VBE_ENABLE,
    VBE_BANK,
    VBE_VIRT_WIDTH,
    VBE_VIRT_HEIGHT,
    VBE_X_OFFSET,
    VBE_Y_OFFSET,
    VBE_MEMORY_64K,
    VBE_REGS
};
enum { ENABLED = 1, NO_CLEAR = 0x80 };

struct bochs {
    struct pci_fn pci;
    struct display *display;
    uint64_t first_width, first_height; /* properties */
    struct mem_region *memory;
    uint16_t vbe[VBE_REGS];
    uint8_t edid[EDID_SIZE];
};

static struct bochs *bochs_of(struct device *d)
{
    return (struct bochs *)d;
}

/* --- the picture ------------------------------------------------------------------------------ */

struct mode {
    uint32_t width, height, stride; /* bytes */
    uint64_t start;
    unsigned bytes; /* a pixel */
};

/* What the registers say, if that is a picture within the memory. Lock held. */
static bool mode_of(const struct bochs *b, struct mode *m)
{
    unsigned bpp = b->vbe[VBE_BPP] == 15 ? 16 : b->vbe[VBE_BPP];
    uint32_t row = b->vbe[VBE_VIRT_WIDTH] > b->vbe[VBE_XRES] ? b->vbe[VBE_VIRT_WIDTH]
                                                             : b->vbe[VBE_XRES];

    if (!(b->vbe[VBE_ENABLE] & ENABLED) || (bpp != 16 && bpp != 24 && bpp != 32) ||
        !display_size_ok(b->vbe[VBE_XRES], b->vbe[VBE_YRES])) {
        return false;
    }
    m->bytes = bpp / 8;
    m->width = b->vbe[VBE_XRES];
    m->height = b->vbe[VBE_YRES];
    m->stride = row * m->bytes;
    m->start = (uint64_t)b->vbe[VBE_Y_OFFSET] * m->stride +
               (uint64_t)b->vbe[VBE_X_OFFSET] * m->bytes;
    return m->start + (uint64_t)(m->height - 1) * m->stride + (uint64_t)m->width * m->bytes <=
           VRAM;
}

static uint32_t colour(const uint8_t *p, unsigned bytes)
{
    uint32_t v = p[0] | (uint32_t)p[1] << 8;

    if (bytes == 2) { /* 5, 6 and 5 bits */
        uint32_t r = v >> 11, g = v >> 5 & 63, b = v & 31;

        return (r << 3 | r >> 2) << 16 | (g << 2 | g >> 4) << 8 | (b << 3 | b >> 2);
    }
    return v | (uint32_t)p[2] << 16;
}

/* One row; true when it differs from what was shown, from *x0 to *x1. */
static bool draw_row(const uint8_t *in, uint32_t *out, const struct mode *m, uint32_t *x0,
                     uint32_t *x1)
{
    bool changed = false;

    for (uint32_t x = 0; x < m->width; x++, in += m->bytes) {
        uint32_t c = colour(in, m->bytes);

        if (out[x] != c) {
            out[x] = c;
            *x0 = changed || x >= *x0 ? *x0 : x;
            *x1 = x + 1 > *x1 ? x + 1 : *x1;
            changed = true;
        }
    }
    return changed;
}

static void bochs_refresh(void *arg)
{
    struct bochs *b = arg;
    struct device *d = &b->pci.dev;
    struct mode m;
    bool on;

    bus_lock(&d->lock);
    on = mode_of(b, &m);
    bus_unlock(&d->lock);
    if (!on || !display_resize(b->display, m.width, m.height)) {
        return;
    }
    uint32_t x0 = m.width, x1 = 0, y0 = m.height, y1 = 0;
    const uint8_t *in = mem_ram_host(b->memory) + m.start;
    uint32_t *out = display_draw(b->display);
    for (uint32_t y = 0; y < m.height; y++, in += m.stride, out += m.width) {
        if (draw_row(in, out, &m, &x0, &x1)) {
            y0 = y < y0 ? y : y0;
            y1 = y + 1;
        }
    }
    if (x0 < x1) {
        const struct display_rect r = { x0, y0, x1 - x0, y1 - y0 };

        display_damage(b->display, &r);
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
    struct bochs *b = bochs_of(d);

    (void)r;
    switch (i) {
    case VBE_ID:
        return ID_VALUE;
    case VBE_MEMORY_64K:
        return VRAM >> 16;
    case VBE_VIRT_WIDTH:
        return b->vbe[i] > b->vbe[VBE_XRES] ? b->vbe[i] : b->vbe[VBE_XRES];
    default:
        return i < VBE_REGS ? b->vbe[i] : 0;
    }
}

static void w_vbe(struct device *d, const struct dev_reg *r, unsigned i, uint64_t old,
                  uint64_t value)
{
    struct bochs *b = bochs_of(d);

    (void)r, (void)old;
    if (i == VBE_ENABLE && (value & ENABLED) && !(value & NO_CLEAR) &&
        !(b->vbe[VBE_ENABLE] & ENABLED)) {
        memset(mem_ram_host(b->memory), 0, VRAM);
    }
    if (i != VBE_ID && i < VBE_REGS) {
        b->vbe[i] = (uint16_t)value;
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
        pci_fn_ready(&b->pci);
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
    mem_free(b->memory);
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
    .destroy = bochs_destroy,
};
