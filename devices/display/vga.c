/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vga: the screen of PCs: an IBM VGA by its ports and its window below 1 MiB, with the registers of Bochs' VBE extension by ports and, as on bochs-display, by BAR 2. BAR 0 is all of the
 * memory; an alias shows it in the VM's own tree, so that guests write it without an exit, and it is saved, moved and logged as RAM is. Owns the memory. Registers: device lock;
 * picture: main thread, which compares when somebody looks.
 */
#include "devices/display/vga.h"

#include "devices/bus/pci.h"
#include "devices/display/edid.h"
#include "devices/display/vram.h"
#include "devices/registry.h"
#include "engine/base/mem.h"
#include "engine/core/vm.h"

#include <string.h>

#define ENDIAN_LITTLE 0x1e1e1e1eu
enum { BAR_MEMORY = 0, BAR_REGS = 2 };
enum { AT_EDID = 0, AT_PORTS = 0x400, PORTS_SEEN = 0x20, AT_DISPI = 0x500, AT_EXT = 0x600 };
enum { CHAIN4 = 8, ODD_EVEN = 0x10, RETRACE = 8, BLANKING = 1 };

struct vga {
    struct pci_fn pci;
    struct display *display;
    uint64_t first_width, first_height; /* properties */
    struct mem_region *memory;
    struct vram_view view;
    struct vga_regs g;
    uint8_t edid[EDID_SIZE];
};

static struct vga *vga_of(struct device *d)
{
    return (struct vga *)d;
}

static void touched(struct vga *v, uint64_t at, uint64_t n)
{
    mem_region_dirty(v->pci.dev.vm->mem, v->memory, at, n);
}

/* --- memory below 1 MiB ------------------------------------------------------------------------ */

/* The address in a plane, or with CHAIN4 in all of them, of an offset in the window; false: nothing is there. */
static bool place_of(const struct vga_regs *g, uint64_t offset, uint64_t *at)
{
    static const struct {
        uint32_t first, size;
    } maps[4] = { { 0, 0x20000 }, { 0, 0x10000 }, { 0x10000, 0x8000 }, { 0x18000, 0x8000 } };
    unsigned map = g->vbe[VBE_ENABLE] & VBE_ENABLED ? 1 : g->gr[6] >> 2 & 3;

    if (offset < maps[map].first || offset - maps[map].first >= maps[map].size) {
        return false;
    }
    *at = offset - maps[map].first;
    if (g->vbe[VBE_ENABLE] & VBE_ENABLED) {
        *at += (uint64_t)g->vbe[VBE_BANK] << 16;
    }
    return true;
}

static bool linear(const struct vga_regs *g)
{
    return g->vbe[VBE_ENABLE] & VBE_ENABLED ? g->vbe[VBE_BPP] != 4 : g->sr[4] & CHAIN4;
}

static uint64_t window_read(void *opaque, uint64_t offset, unsigned size)
{
    struct vga *v = opaque;
    struct vga_regs *g = &v->g;
    const uint8_t *m = mem_ram_host(v->memory);
    uint64_t at;
    uint8_t differs = 0;

    (void)size;
    if (!place_of(g, offset, &at)) {
        return 0xff;
    }
    if (linear(g)) {
        return at < VGA_VRAM ? m[at] : 0xff;
    }
    if (g->gr[5] & ODD_EVEN) {
        at = (at & ~1ull) * 2 + (at & 1) + (g->gr[4] & 2);
        return at < VGA_VRAM ? m[at] : 0xff;
    }
    if (at >= VGA_VRAM / 4) {
        return 0xff;
    }
    memcpy(g->latch, m + at * 4, 4);
    if (!(g->gr[5] & 8)) {
        return g->latch[g->gr[4] & 3];
    }
    for (unsigned p = 0; p < 4; p++) { /* colour compare */
        uint8_t want = g->gr[2] >> p & 1 ? 0xff : 0;

        differs |= g->gr[7] >> p & 1 ? g->latch[p] ^ want : 0;
    }
    return (uint8_t)~differs;
}

static uint8_t rotate(uint8_t v, unsigned n)
{
    return (uint8_t)(v >> n | v << (8 - n));
}

/* What a write puts into plane p, through the graphics controller. */
static uint8_t plane_byte(const struct vga_regs *g, unsigned p, uint8_t v)
{
    unsigned mode = g->gr[5] & 3;
    uint8_t turned = rotate(v, g->gr[3] & 7), mask = g->gr[8], latch = g->latch[p], in;

    if (mode == 1) {
        return latch;
    }
    if (mode == 2) {
        in = v >> p & 1 ? 0xff : 0;
    } else if (mode == 3) {
        in = g->gr[0] >> p & 1 ? 0xff : 0;
        mask &= turned;
        return (uint8_t)((in & mask) | (latch & ~mask));
    } else {
        in = g->gr[1] >> p & 1 ? (g->gr[0] >> p & 1 ? 0xff : 0) : turned;
    }
    switch (g->gr[3] >> 3 & 3) {
    case 1:
        in &= latch;
        break;
    case 2:
        in |= latch;
        break;
    case 3:
        in ^= latch;
        break;
    default:
        break;
    }
    return (uint8_t)((in & mask) | (latch & ~mask));
}

static void window_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct vga *v = opaque;
    const struct vga_regs *g = &v->g;
    uint8_t *m = mem_ram_host(v->memory);
    bool vbe = g->vbe[VBE_ENABLE] & VBE_ENABLED, one = linear(g);
    uint64_t at;

    (void)size;
    if (!place_of(g, offset, &at)) {
        return;
    }
    if (one || (g->gr[5] & ODD_EVEN)) {
        unsigned plane = one ? at & 3 : at & 1;

        at = one ? at : (at & ~1ull) * 2 + plane;
        if (at < VGA_VRAM && ((vbe && one) || (g->sr[2] >> plane & 1))) {
            m[at] = (uint8_t)value;
            touched(v, at, 1);
        }
        return;
    }
    if (at >= VGA_VRAM / 4) {
        return;
    }
    for (unsigned p = 0; p < 4; p++) {
        if (g->sr[2] >> p & 1) {
            m[at * 4 + p] = plane_byte(g, p, (uint8_t)value);
        }
    }
    touched(v, at * 4, 4);
}

/* --- VBE --------------------------------------------------------------------------------------- */

static void vbe_write(struct vga *v, unsigned i, uint16_t value)
{
    uint16_t *vbe = v->g.vbe;
    bool was = vbe[VBE_ENABLE] & VBE_ENABLED;

    if (dispi_write(vbe, i, value)) {
        memset(mem_ram_host(v->memory), 0, VGA_VRAM);
        touched(v, 0, VGA_VRAM);
    }
    if (i == VBE_ENABLE && !was && (value & VBE_ENABLED)) { /* a new mode begins as one */
        vbe[VBE_VIRT_WIDTH] = vbe[VBE_X_OFFSET] = vbe[VBE_Y_OFFSET] = vbe[VBE_BANK] = 0;
    }
}

/* The number at 0x1ce, a value at 0x1cf or 0x1d0. A value at an odd port comes byte by byte. */
static uint64_t dispi_in(void *opaque, uint64_t offset, unsigned size)
{
    struct vga *v = opaque;
    uint64_t value = dispi_read(v->g.vbe, v->g.vbe_index, VGA_VRAM);

    if (offset == 0) {
        return v->g.vbe_index;
    }
    return offset == 2 && size == 1 ? value >> 8 : size == 1 ? value & 0xff : value;
}

static void dispi_out(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct vga *v = opaque;

    if (offset == 0) {
        v->g.vbe_index = (uint16_t)value;
    } else if (offset == 1) {
        v->g.vbe_low = (uint8_t)value;
    } else if (offset == 2) {
        vbe_write(v, v->g.vbe_index, (uint16_t)(size == 1 ? value << 8 | v->g.vbe_low : value));
    }
}

/* --- ports ------------------------------------------------------------------------------------- */

/* Ports of the CRT controller are 0x3b_ or 0x3d_. */
static bool is_crt(const struct vga_regs *g, unsigned port)
{
    return (port & ~0xfu) == (g->misc & 1 ? 0x3d0u : 0x3b0u);
}

static uint8_t status_read(struct vga_regs *g)
{
    g->ar_data = false;
    g->retrace ^= RETRACE | BLANKING; /* who waits for either does not wait long */
    return g->retrace;
}

static uint8_t dac_value(struct vga_regs *g)
{
    uint8_t v = g->dac[g->dac_read * 3u + g->dac_part];

    g->dac_part = (uint8_t)((g->dac_part + 1) % 3);
    g->dac_read = (uint8_t)(g->dac_read + (g->dac_part == 0));
    return v;
}

static uint8_t crt_read(struct vga_regs *g, unsigned port)
{
    switch (port & 0xf) {
    case 4:
        return g->cr_index;
    case 5:
        return g->cr_index < VGA_CRS ? g->cr[g->cr_index] : 0;
    case 10:
        return status_read(g);
    default:
        return 0xff;
    }
}

static uint64_t port_in(void *opaque, uint64_t offset, unsigned size)
{
    struct vga_regs *g = &((struct vga *)opaque)->g;
    unsigned port = VGA_PORTS + (unsigned)offset;

    (void)size;
    if (port >= 0x3d0 || port < 0x3c0) {
        return is_crt(g, port) ? crt_read(g, port) : 0xff;
    }
    switch (port) {
    case 0x3c0:
        return g->ar_data ? 0 : g->ar_index;
    case 0x3c1:
        return g->ar[g->ar_index & (VGA_ARS - 1)];
    case 0x3c4:
        return g->sr_index;
    case 0x3c5:
        return g->sr[g->sr_index & (VGA_SEQS - 1)];
    case 0x3c6:
        return g->dac_mask;
    case 0x3c7:
        return g->dac_reading ? 3 : 0;
    case 0x3c8:
        return g->dac_write;
    case 0x3c9:
        return dac_value(g);
    case 0x3ca:
        return g->feature;
    case 0x3cc:
        return g->misc;
    case 0x3ce:
        return g->gr_index;
    case 0x3cf:
        return g->gr[g->gr_index & (VGA_GRS - 1)];
    default:
        return 0;
    }
}

static void crt_write(struct vga_regs *g, unsigned port, uint8_t v)
{
    unsigned i = g->cr_index;

    if ((port & 0xf) == 4) {
        g->cr_index = v;
    } else if ((port & 0xf) == 10) {
        g->feature = v & 8;
    } else if ((port & 0xf) == 5 && i < VGA_CRS) {
        if (i > 7 || !(g->cr[0x11] & 0x80)) {
            g->cr[i] = v;
        } else if (i == 7) { /* locked, but for the line of the split */
            g->cr[7] = (uint8_t)((g->cr[7] & ~0x10u) | (v & 0x10u));
        }
    }
}

static void attribute_write(struct vga_regs *g, uint8_t v)
{
    static const uint8_t masks[0x15] = { 63, 63, 63, 63, 63, 63,   63,   63, 63, 63, 63,
                                         63, 63, 63, 63, 63, 0xef, 0xff, 63, 15, 15 };
    unsigned i = g->ar_index & (VGA_ARS - 1);

    if (!g->ar_data) {
        g->ar_index = v & 0x3f;
    } else if (i < sizeof(masks) && (i >= 16 || !(g->ar_index & 0x20))) {
        g->ar[i] = v & masks[i];
    }
    g->ar_data = !g->ar_data;
}

static void dac_put(struct vga_regs *g, uint8_t v)
{
    uint8_t *at = g->dac + g->dac_write * 3u;

    if (g->dac_part < 2) {
        g->dac_cache[g->dac_part++] = v;
        return;
    }
    at[0] = g->dac_cache[0];
    at[1] = g->dac_cache[1];
    at[2] = v;
    g->dac_part = 0;
    g->dac_write++;
}

static void sequencer_write(struct vga_regs *g, uint8_t v)
{
    static const uint8_t masks[VGA_SEQS] = { 3, 0x3d, 0x0f, 0x3f, 0x0e, 0, 0, 0xff };
    unsigned i = g->sr_index & (VGA_SEQS - 1);

    g->sr[i] = v & masks[i];
}

static void graphics_write(struct vga_regs *g, uint8_t v)
{
    static const uint8_t masks[VGA_GRS] = { 15, 15, 15, 0x1f, 3, 0x7b, 15, 15, 0xff };
    unsigned i = g->gr_index & (VGA_GRS - 1);

    g->gr[i] = v & masks[i];
}

static void dac_start(struct vga_regs *g, uint8_t v, bool reading)
{
    *(reading ? &g->dac_read : &g->dac_write) = v;
    g->dac_reading = reading;
    g->dac_part = 0;
}

static void port_out(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct vga_regs *g = &((struct vga *)opaque)->g;
    unsigned port = VGA_PORTS + (unsigned)offset;
    uint8_t v = (uint8_t)value;

    (void)size;
    if (port >= 0x3d0 || port < 0x3c0) {
        if (is_crt(g, port)) {
            crt_write(g, port, v);
        }
        return;
    }
    switch (port) {
    case 0x3c0:
        attribute_write(g, v);
        break;
    case 0x3c2:
        g->misc = v & 0xef;
        break;
    case 0x3c4:
        g->sr_index = v & (VGA_SEQS - 1);
        break;
    case 0x3c5:
        sequencer_write(g, v);
        break;
    case 0x3c6:
        g->dac_mask = v;
        break;
    case 0x3c7:
    case 0x3c8:
        dac_start(g, v, port == 0x3c7);
        break;
    case 0x3c9:
        dac_put(g, v);
        break;
    case 0x3ce:
        g->gr_index = v & (VGA_GRS - 1);
        break;
    case 0x3cf:
        graphics_write(g, v);
        break;
    default:
        break;
    }
}

/* --- BAR 2 ------------------------------------------------------------------------------------- */

static uint64_t r_edid(struct device *d, const struct dev_reg *r, unsigned i)
{
    (void)r;
    return vga_of(d)->edid[i];
}

static uint64_t r_port(struct device *d, const struct dev_reg *r, unsigned i)
{
    (void)r;
    return port_in(d, 0x10 + i, 1);
}

static void w_port(struct device *d, const struct dev_reg *r, unsigned i, uint64_t old,
                   uint64_t value)
{
    (void)r, (void)old;
    port_out(d, 0x10 + i, value, 1);
}

static uint64_t r_vbe(struct device *d, const struct dev_reg *r, unsigned i)
{
    (void)r;
    return dispi_read(vga_of(d)->g.vbe, i, VGA_VRAM);
}

static void w_vbe(struct device *d, const struct dev_reg *r, unsigned i, uint64_t old,
                  uint64_t value)
{
    (void)r, (void)old;
    vbe_write(vga_of(d), i, (uint16_t)value);
}

static const struct dev_reg vga_regs[] = {
    { .name = "EDID",
      .doc = "what the monitor says of itself",
      .offset = AT_EDID,
      .size = 1,
      .count = EDID_SIZE,
      .field = DEV_NO_FIELD,
      .read = r_edid },
    { .name = "PORT",
      .doc = "the ports 0x3c0 to 0x3df",
      .offset = AT_PORTS,
      .size = 1,
      .count = PORTS_SEEN,
      .writable = 0xff,
      .field = DEV_NO_FIELD,
      .read = r_port,
      .written = w_port },
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
static const struct mem_io_ops port_ops = { port_in, port_out, 1, 1 };
static const struct mem_io_ops dispi_ops = { dispi_in, dispi_out, 1, 2 };
static const struct mem_io_ops window_ops = { window_read, window_write, 1, 1 };
static const struct dev_reg_block vga_blocks[] = {
    [VGA_BLOCK_BAR] = { .name = "mmio",
                        .size = 0x1000,
                        .regs = vga_regs,
                        .min_size = 1,
                        .max_size = 4 },
    [VGA_BLOCK_PORTS] = { .name = "ports",
                          .size = VGA_N_PORTS,
                          .ops = &port_ops,
                          .min_size = 1,
                          .max_size = 1 },
    [VGA_BLOCK_DISPI] = { .name = "vbe-ports",
                          .size = 4,
                          .ops = &dispi_ops,
                          .min_size = 1,
                          .max_size = 2 },
    [VGA_BLOCK_WINDOW] = { .name = "window",
                           .size = 0x20000,
                           .ops = &window_ops,
                           .min_size = 1,
                           .max_size = 1 },
    { .name = NULL },
};

/* --- the picture and its memory ------------------------------------------------------------------ */

static void vga_refresh(void *arg)
{
    struct vga *v = arg;
    struct vga_regs g;

    bus_lock(&v->pci.dev.lock);
    g = v->g;
    bus_unlock(&v->pci.dev.lock);
    vga_draw(v->display, &g, mem_ram_host(v->memory));
}

static void vga_remap(struct device *d)
{
    vram_view_follow(&vga_of(d)->view, &vga_of(d)->pci);
}

/* --- class --------------------------------------------------------------------------------------- */

static int vga_realize(struct device *d, struct err *e)
{
    static const struct pci_ident id = { .vendor = 0x1234,
                                         .device = 0x1111,
                                         .sub_vendor = 0x1af4,
                                         .sub_device = 0x1100,
                                         .class = 0x030000,
                                         .revision = 2 };
    struct vga *v = vga_of(d);
    const struct display_source source = { .refresh = vga_refresh, .arg = v };
    int rc = mem_new_ram("vga", VGA_VRAM, &v->memory, e);

    rc = rc == 0 ? pci_fn_init(&v->pci, &id, e) : rc;
    if (rc != 0) {
        return rc;
    }
    edid_fill(v->edid, (uint32_t)v->first_width, (uint32_t)v->first_height);
    pci_bar_set(&v->pci, BAR_MEMORY, PCI_BAR_MEM32 | PCI_BAR_PREFETCH, v->memory);
    pci_bar_set(&v->pci, BAR_REGS, PCI_BAR_MEM32, d->mmio[VGA_BLOCK_BAR]);
    v->pci.config_written = vram_config_written;
    pci_fn_ready(&v->pci);
    rc = vram_view_init(&v->view, &v->pci, v->memory, e);
    display_set_source(v->display, &source);
    return rc;
}

static void vga_reset(struct device *d)
{
    struct vga *v = vga_of(d);

    pci_fn_reset(&v->pci);
    bus_lock(&d->lock);
    v->g = (struct vga_regs){ .dac_mask = 0xff, .misc = 1 };
    bus_unlock(&d->lock);
}

static void vga_destroy(struct device *d)
{
    struct vga *v = vga_of(d);

    if (v->display) {
        display_set_source(v->display, NULL);
    }
    pci_fn_done(&v->pci);
    vram_view_done(&v->view);
    mem_free(v->memory);
}

/* Numbers that count on being small. */
static int vga_loaded(void *obj, struct err *e)
{
    struct vga *v = obj;

    (void)e;
    v->g.dac_part %= 3;
    return 0;
}

static const struct st_field vga_fields[] = {
    PCI_ST_FIELD,
    ST_FIELD(struct vga, g.misc, ST_U8, 1, "miscellaneous output"),
    ST_FIELD(struct vga, g.feature, ST_U8, 1, "feature control"),
    ST_FIELD(struct vga, g.sr_index, ST_U8, 1, "register of the sequencer"),
    ST_ARRAY(struct vga, g.sr, ST_U8, VGA_SEQS, 1, "sequencer"),
    ST_FIELD(struct vga, g.gr_index, ST_U8, 1, "register of the graphics controller"),
    ST_ARRAY(struct vga, g.gr, ST_U8, VGA_GRS, 1, "graphics controller"),
    ST_FIELD(struct vga, g.cr_index, ST_U8, 1, "register of the CRT controller"),
    ST_ARRAY(struct vga, g.cr, ST_U8, VGA_CRS, 1, "CRT controller"),
    ST_FIELD(struct vga, g.ar_index, ST_U8, 1, "register of the attribute controller"),
    ST_ARRAY(struct vga, g.ar, ST_U8, VGA_ARS, 1, "attribute controller"),
    ST_FIELD(struct vga, g.ar_data, ST_BOOL, 1, "the next write to 0x3c0 is a value"),
    ST_FIELD(struct vga, g.dac_mask, ST_U8, 1, "mask of colours"),
    ST_FIELD(struct vga, g.dac_read, ST_U8, 1, "colour that is read"),
    ST_FIELD(struct vga, g.dac_write, ST_U8, 1, "colour that is written"),
    ST_FIELD(struct vga, g.dac_part, ST_U8, 1, "red, green or blue"),
    ST_ARRAY(struct vga, g.dac_cache, ST_U8, 2, 1, "parts of a colour that is half written"),
    ST_FIELD(struct vga, g.dac_reading, ST_BOOL, 1, "colours are read"),
    ST_ARRAY(struct vga, g.dac, ST_BYTES, VGA_DAC, 1, "colours"),
    ST_ARRAY(struct vga, g.latch, ST_U8, 4, 1, "latches"),
    ST_ARRAY(struct vga, g.vbe, ST_U16, VBE_REGS, 1, "registers of the extension"),
    ST_FIELD(struct vga, g.vbe_index, ST_U16, 1, "number of the extension's register"),
    ST_FIELD(struct vga, g.vbe_low, ST_U8, 1, "first byte of a value"),
    ST_FIELD(struct vga, g.retrace, ST_U8, 1, "status that was read last"),
    ST_END,
};
static const struct st_table vga_state = {
    .name = "vga",
    .version = 1,
    .fields = vga_fields,
    .loaded = vga_loaded,
};

static const struct dev_prop vga_props[] = {
    PCI_PROPS,
    { .name = "display",
      .kind = PROP_PTR,
      .offset = offsetof(struct vga, display),
      .required = true,
      .doc = "screen that it draws" },
    { .name = "width",
      .kind = PROP_U64,
      .offset = offsetof(struct vga, first_width),
      .def = 1280,
      .min = DISPLAY_MIN_WIDTH,
      .max = DISPLAY_MAX_SIDE,
      .doc = "width that the monitor prefers" },
    { .name = "height",
      .kind = PROP_U64,
      .offset = offsetof(struct vga, first_height),
      .def = 800,
      .min = DISPLAY_MIN_HEIGHT,
      .max = DISPLAY_MAX_SIDE,
      .doc = "height that the monitor prefers" },
    { .name = NULL },
};

const struct device_class vga_class = {
    .name = "vga",
    .doc = "VGA with the registers of Bochs' VBE extension, on PCI",
    .size = sizeof(struct vga),
    .props = vga_props,
    .blocks = vga_blocks,
    .state = &vga_state,
    .realize = vga_realize,
    .reset = vga_reset,
    .remap = vga_remap,
    .destroy = vga_destroy,
};
