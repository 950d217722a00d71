/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registers and pictures of Bochs' VBE extension (dispi.h). Owns nothing. Registers: the device's lock; drawing: main thread.
 */
#include "devices/display/dispi.h"

#define ID_FIRST 0xb0c0
#define ID_LAST 0xb0c5
#define MOST_BPP 32

uint64_t dispi_read(const uint16_t vbe[VBE_REGS], unsigned i, uint64_t memory)
{
    bool most = vbe[VBE_ENABLE] & VBE_TELL_MOST;

    switch (i) {
    case VBE_ID:
        return vbe[VBE_ID] ? vbe[VBE_ID] : ID_LAST;
    case VBE_MEMORY_64K:
        return memory >> 16;
    case VBE_XRES:
    case VBE_YRES:
        return most ? DISPLAY_MAX_SIDE : vbe[i];
    case VBE_BPP:
        return most ? MOST_BPP : vbe[i];
    case VBE_VIRT_WIDTH:
        return vbe[i] > vbe[VBE_XRES] ? vbe[i] : vbe[VBE_XRES];
    default:
        return i < VBE_REGS ? vbe[i] : 0;
    }
}

bool dispi_write(uint16_t vbe[VBE_REGS], unsigned i, uint16_t value)
{
    bool clear = i == VBE_ENABLE && (value & VBE_ENABLED) && !(value & VBE_NO_CLEAR) &&
                 !(vbe[VBE_ENABLE] & VBE_ENABLED);

    if (i >= VBE_REGS || (i == VBE_ID && (value < ID_FIRST || value > ID_LAST))) {
        return false;
    }
    vbe[i] = value;
    return clear;
}

bool dispi_mode(const uint16_t vbe[VBE_REGS], uint64_t memory, struct dispi_mode *m)
{
    unsigned bpp = vbe[VBE_BPP], bits = bpp == 15 ? 16 : bpp;
    uint32_t row = vbe[VBE_VIRT_WIDTH] > vbe[VBE_XRES] ? vbe[VBE_VIRT_WIDTH] : vbe[VBE_XRES];
    uint64_t last, room = bits == 4 ? memory / 4 : memory;

    if (!(vbe[VBE_ENABLE] & VBE_ENABLED) ||
        (bits != 4 && bits != 8 && bits != 16 && bits != 24 && bits != 32) ||
        !display_size_ok(vbe[VBE_XRES], vbe[VBE_YRES])) {
        return false;
    }
    m->bpp = bpp;
    m->width = vbe[VBE_XRES];
    m->height = vbe[VBE_YRES];
    bits = bits == 4 ? 1 : bits;
    m->stride = (row * bits + 7) / 8;
    m->start = (uint64_t)vbe[VBE_Y_OFFSET] * m->stride + (uint64_t)vbe[VBE_X_OFFSET] * bits / 8;
    last = m->start + (uint64_t)(m->height - 1) * m->stride +
           ((uint64_t)m->width * bits + 7) / 8;
    return last <= room;
}

bool dispi_pen_begin(struct dispi_pen *p, struct display *d, uint32_t width, uint32_t height)
{
    *p = (struct dispi_pen){ .display = d, .width = width, .x0 = width, .y0 = height };
    if (!display_resize(d, width, height)) {
        return false;
    }
    p->out = display_draw(d);
    return true;
}

void dispi_pen_end(struct dispi_pen *p)
{
    if (p->x0 < p->x1) {
        const struct display_rect r = { p->x0, p->y0, p->x1 - p->x0, p->y1 - p->y0 };

        display_damage(p->display, &r);
    }
}

static uint32_t colour(const uint8_t *p, unsigned bpp)
{
    uint32_t v = p[0] | (uint32_t)p[1] << 8, r, g, b;

    if (bpp > 16) {
        return v | (uint32_t)p[2] << 16;
    }
    b = v & 31;
    if (bpp == 15) { /* 5 bits each */
        r = v >> 10 & 31;
        g = v >> 5 & 31;
        g = g << 3 | g >> 2;
    } else { /* 5, 6 and 5 bits */
        r = v >> 11;
        g = v >> 5 & 63;
        g = g << 2 | g >> 4;
    }
    return (r << 3 | r >> 2) << 16 | g << 8 | (b << 3 | b >> 2);
}

void dispi_draw(struct dispi_pen *p, const struct dispi_mode *m, const uint8_t *memory)
{
    unsigned bytes = (m->bpp + 7) / 8;

    for (uint32_t y = 0; y < m->height; y++) {
        const uint8_t *in = memory + m->start + (uint64_t)y * m->stride;

        for (uint32_t x = 0; x < m->width; x++, in += bytes) {
            dispi_pen_put(p, x, y, colour(in, m->bpp));
        }
    }
}
