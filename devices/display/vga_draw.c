/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The picture of a VGA: text, the graphics modes of CGA, EGA and VGA, and those of the VBE extension (vga.h). Pure but for the display. Main thread.
 */
#include "devices/display/vga.h"

#include <string.h>

#define PLANE_MASK 0xffffu /* addresses of a plane */
enum { CR_MAX_SCAN = 9, CR_CURSOR = 10, CR_CURSOR_END = 11, CR_START = 12, CR_AT = 14 };
enum { CR_HEIGHT = 0x12, CR_PITCH = 0x13, CR_MODE = 0x17, CR_COMPARE = 0x18 };
enum { AR_MODE = 0x10, AR_OVERSCAN, AR_PLANES, AR_PAN, AR_HIGH };
enum { AR_LINE_GRAPHICS = 4, AR_BLINK = 8, AR_P54 = 0x80, AR_VIDEO_ON = 0x20 };
enum { GLYPH_ROOM = 32, FONT_SIZE = 0x2000, PLANE_FONT = 2 };

/* Six bits of a colour as eight; or eight as they are. */
static uint32_t dac_colour(const struct vga_regs *g, unsigned i)
{
    uint32_t out = 0;
    bool wide = (g->vbe[VBE_ENABLE] & VBE_ENABLED) && (g->vbe[VBE_ENABLE] & VBE_DAC_8BIT);

    for (unsigned k = 0; k < 3; k++) {
        uint32_t v = g->dac[(i & g->dac_mask) * 3 + k];

        out = out << 8 | (wide ? v : ((v & 63) << 2 | (v & 63) >> 4));
    }
    return out;
}

static void colours16(const struct vga_regs *g, uint32_t out[16])
{
    for (unsigned i = 0; i < 16; i++) {
        unsigned v = g->ar[i], high = g->ar[AR_HIGH];

        v = g->ar[AR_MODE] & AR_P54 ? (high & 15) << 4 | (v & 15) : (high & 12) << 4 | (v & 63);
        out[i] = dac_colour(g, v);
    }
}

static void colours256(const struct vga_regs *g, uint32_t out[256])
{
    for (unsigned i = 0; i < 256; i++) {
        out[i] = dac_colour(g, i);
    }
}

/* What the CRT controller counts. */
struct raster {
    uint32_t columns, height; /* characters; scan lines */
    uint32_t start, pitch;    /* addresses of a plane */
    uint32_t scans, repeat;   /* of a row; times each is shown */
    uint32_t compare;         /* the last line before the screen's split */
    uint32_t dot;             /* pixels a dot */
};

static struct raster raster_of(const struct vga_regs *g)
{
    const uint8_t *cr = g->cr;

    return (struct raster){
        .columns = cr[1] + 1u,
        .height = (cr[CR_HEIGHT] | (cr[7] & 2u) << 7 | (cr[7] & 0x40u) << 3) + 1,
        .start = (uint32_t)cr[CR_START] << 8 | cr[CR_START + 1],
        .pitch = cr[CR_PITCH] * 2u,
        .scans = (cr[CR_MAX_SCAN] & 31u) + 1,
        .repeat = cr[CR_MAX_SCAN] & 0x80 ? 2 : 1,
        .compare = cr[CR_COMPARE] | (cr[7] & 0x10u) << 4 | (cr[CR_MAX_SCAN] & 0x40u) << 3,
        .dot = g->sr[1] & 8 ? 2 : 1,
    };
}

/* --- text ------------------------------------------------------------------------------------- */

struct text {
    uint32_t colour[16];
    const uint8_t *font[2]; /* by bit 3 of the attribute; the bytes of plane 2 are 4 apart */
    unsigned width;         /* dots of a character */
    bool blink, line_graphics;
};

static struct text text_of(const struct vga_regs *g, const uint8_t *memory)
{
    static const uint8_t places[8] = { 0, 2, 4, 6, 1, 3, 5, 7 };
    unsigned map = g->sr[3], a = (map >> 2 & 3) | (map >> 3 & 4),
             b = (map & 3) | (map >> 2 & 4);
    struct text t = { .width = g->sr[1] & 1 ? 8 : 9,
                      .blink = g->ar[AR_MODE] & AR_BLINK,
                      .line_graphics = g->ar[AR_MODE] & AR_LINE_GRAPHICS };

    t.font[0] = memory + places[b] * FONT_SIZE * 4u + PLANE_FONT;
    t.font[1] = memory + places[a] * FONT_SIZE * 4u + PLANE_FONT;
    colours16(g, t.colour);
    return t;
}

struct cell {
    uint32_t x, y; /* of its first pixel */
    uint8_t code, attribute;
    unsigned cursor_first, cursor_last; /* scan lines; first > last: none */
};

static void draw_cell(struct dispi_pen *p, const struct text *t, const struct raster *r,
                      const struct cell *c, uint32_t lines)
{
    const uint8_t *glyph = t->font[c->attribute >> 3 & 1] + c->code * GLYPH_ROOM * 4u;
    bool joins = t->line_graphics && c->code >= 0xc0 && c->code <= 0xdf;
    uint32_t ink = t->colour[c->attribute & 15],
             paper = t->colour[c->attribute >> 4 & (t->blink ? 7 : 15)];

    for (unsigned s = 0; s < lines; s++) {
        unsigned bits = (unsigned)glyph[s * 4] << 1 | (joins ? glyph[s * 4] & 1u : 0);

        bits = s >= c->cursor_first && s <= c->cursor_last ? 0x1ff : bits;
        for (unsigned x = 0; x < t->width * r->dot; x++) {
            dispi_pen_put(p, c->x + x, c->y + s, bits >> (8 - x / r->dot) & 1 ? ink : paper);
        }
    }
}

static void draw_text(struct display *d, const struct vga_regs *g, const uint8_t *memory)
{
    const struct text t = text_of(g, memory);
    const struct raster r = raster_of(g);
    uint32_t cursor = (uint32_t)g->cr[CR_AT] << 8 | g->cr[CR_AT + 1];
    struct dispi_pen p;

    if (!dispi_pen_begin(&p, d, r.columns * t.width * r.dot, r.height)) {
        return;
    }
    for (uint32_t y = 0, row = 0; y < r.height; y += r.scans, row++) {
        uint32_t lines = r.height - y < r.scans ? r.height - y : r.scans;

        for (uint32_t x = 0; x < r.columns; x++) {
            uint32_t at = (r.start + row * r.pitch + x) & PLANE_MASK;
            bool here = at == cursor && !(g->cr[CR_CURSOR] & 0x20);
            const struct cell c = { .x = x * t.width * r.dot,
                                    .y = y,
                                    .code = memory[at * 4],
                                    .attribute = memory[at * 4 + 1],
                                    .cursor_first = here ? g->cr[CR_CURSOR] & 31u : 1,
                                    .cursor_last = here ? g->cr[CR_CURSOR_END] & 31u : 0 };

            draw_cell(&p, &t, &r, &c, lines);
        }
    }
    dispi_pen_end(&p);
}

/* --- graphics --------------------------------------------------------------------------------- */

/* The four planes' bytes at an address, as one pixel's bits. */
static unsigned planar_pixel(const uint8_t *cell, unsigned dot)
{
    unsigned bit = 7 - dot % 8;

    return (cell[0] >> bit & 1) | (cell[1] >> bit & 1) << 1 | (cell[2] >> bit & 1) << 2 |
           (cell[3] >> bit & 1) << 3;
}

/* Two bits a pixel: four of plane 0, then four of plane 1; planes 2 and 3 have two bits more. */
static unsigned cga_pixel(const uint8_t *cell, unsigned dot)
{
    unsigned plane = dot / 4 % 2, shift = 6 - dot % 4 * 2;

    return (cell[plane] >> shift & 3) | (cell[plane + 2] >> shift & 3) << 2;
}

static void draw_graphics(struct display *d, const struct vga_regs *g, const uint8_t *memory)
{
    const struct raster r = raster_of(g);
    unsigned shift = g->gr[5] >> 5 & 3;
    uint32_t few[16], many[256], width = r.columns * 8 * r.dot;
    struct dispi_pen p;

    if (!dispi_pen_begin(&p, d, width, r.height)) {
        return;
    }
    colours16(g, few);
    colours256(g, many);
    for (uint32_t y = 0; y < r.height; y++) {
        bool split = y > r.compare;
        uint32_t scan = (split ? y - r.compare - 1 : y) / r.repeat, in_row = scan % r.scans,
                 line = (split ? 0 : r.start) + scan / r.scans * r.pitch;

        for (uint32_t x = 0; x < width; x++) {
            uint32_t dot = x / r.dot, at = line + dot / 8;

            at = g->cr[CR_MODE] & 1 ? at : (at & ~0x2000u) | (in_row & 1) << 13;
            at = g->cr[CR_MODE] & 2 ? at : (at & ~0x4000u) | (in_row >> 1 & 1) << 14;
            if (shift >= 2) { /* a byte a pixel, two dots wide */
                dispi_pen_put(&p, x, y, many[memory[(line * 4 + dot / 2) & 0x3ffff]]);
            } else {
                const uint8_t *cell = memory + (at & PLANE_MASK) * 4;
                unsigned v = shift ? cga_pixel(cell, dot) : planar_pixel(cell, dot);

                dispi_pen_put(&p, x, y, few[v & g->ar[AR_PLANES] & 15]);
            }
        }
    }
    dispi_pen_end(&p);
}

/* --- VBE modes with a palette ------------------------------------------------------------------ */

static void draw_few(struct dispi_pen *p, const struct vga_regs *g, const struct dispi_mode *m,
                     const uint8_t *memory)
{
    uint32_t few[16], many[256];

    colours16(g, few);
    colours256(g, many);
    for (uint32_t y = 0; y < m->height; y++) {
        uint64_t line = m->start + (uint64_t)y * m->stride;

        for (uint32_t x = 0; x < m->width; x++) {
            unsigned v = m->bpp == 8 ? memory[line + x]
                                     : planar_pixel(memory + (line + x / 8) * 4, x);

            dispi_pen_put(p, x, y, m->bpp == 8 ? many[v] : few[v & g->ar[AR_PLANES] & 15]);
        }
    }
}

static void draw_vbe(struct display *d, const struct vga_regs *g, const struct dispi_mode *m,
                     const uint8_t *memory)
{
    struct dispi_pen p;

    if (!dispi_pen_begin(&p, d, m->width, m->height)) {
        return;
    }
    if (m->bpp >= 15) {
        dispi_draw(&p, m, memory);
    } else {
        draw_few(&p, g, m, memory);
    }
    dispi_pen_end(&p);
}

static void draw_black(struct display *d)
{
    struct dispi_pen p;
    uint32_t height = display_height(d);

    (void)dispi_pen_begin(&p, d, display_width(d), height);
    for (uint32_t y = 0; y < height; y++) {
        for (uint32_t x = 0; x < p.width; x++) {
            dispi_pen_put(&p, x, y, 0);
        }
    }
    dispi_pen_end(&p);
}

void vga_draw(struct display *d, const struct vga_regs *g, const uint8_t *memory)
{
    struct dispi_mode m;

    if (g->vbe[VBE_ENABLE] & VBE_ENABLED) {
        if (dispi_mode(g->vbe, VGA_VRAM, &m)) {
            draw_vbe(d, g, &m, memory);
        }
    } else if (!(g->ar_index & AR_VIDEO_ON) || g->sr[1] & 0x20 || !(g->cr[CR_MODE] & 0x80)) {
        draw_black(d);
    } else if (g->gr[6] & 1) {
        draw_graphics(d, g, memory);
    } else {
        draw_text(d, g, memory);
    }
}
