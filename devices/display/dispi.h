/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registers of Bochs' VBE extension (vgabios, vbe_display_api), which bochs-display and vga have, and the pictures that they tell of when a pixel is two to four
 * bytes. Pure: the caller has the registers and the lock.
 */
#ifndef VMD_DEVICES_DISPLAY_DISPI_H
#define VMD_DEVICES_DISPLAY_DISPI_H

#include "devices/display/display.h"

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
enum { VBE_ENABLED = 1, VBE_TELL_MOST = 2, VBE_DAC_8BIT = 0x20, VBE_NO_CLEAR = 0x80 };

struct dispi_mode {
    uint32_t width, height,
        stride;     /* stride: bytes a row; with 4 bits a pixel, of each plane */
    uint64_t start; /* the first byte, of each plane with 4 bits */
    unsigned bpp;   /* 4, 8, 15, 16, 24, 32 */
};

uint64_t dispi_read(const uint16_t vbe[VBE_REGS], unsigned i, uint64_t memory);
/* True: the memory has to be cleared. */
bool dispi_write(uint16_t vbe[VBE_REGS], unsigned i, uint16_t value);
/* What the registers say, if that is a picture within the memory. */
bool dispi_mode(const uint16_t vbe[VBE_REGS], uint64_t memory, struct dispi_mode *m);

/* A picture being drawn over the last one: what differs is damage. Main thread. */
struct dispi_pen {
    struct display *display;
    uint32_t *out;
    uint32_t width, x0, x1, y0, y1;
};
/* False: there is no picture of that size. */
bool dispi_pen_begin(struct dispi_pen *p, struct display *d, uint32_t width, uint32_t height);
static inline void dispi_pen_put(struct dispi_pen *p, uint32_t x, uint32_t y, uint32_t colour)
{
    uint32_t *at = p->out + (uint64_t)y * p->width + x;

    if (*at != colour) {
        *at = colour;
        p->x0 = x < p->x0 ? x : p->x0;
        p->x1 = x + 1 > p->x1 ? x + 1 : p->x1;
        p->y0 = y < p->y0 ? y : p->y0;
        p->y1 = y + 1 > p->y1 ? y + 1 : p->y1;
    }
}
void dispi_pen_end(struct dispi_pen *p);

/* Draws a picture of 15 bits a pixel or more. */
void dispi_draw(struct dispi_pen *p, const struct dispi_mode *m, const uint8_t *memory);

#endif
