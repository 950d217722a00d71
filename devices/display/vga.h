/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the VGA: the registers of an IBM VGA (FreeVGA project; Intel Open Source HD Graphics PRM, volume 2c: VGA registers) and the picture they make of
 * its memory. Memory holds the four planes side by side: the byte of plane p at address a is 4a + p.
 */
#ifndef VMD_DEVICES_DISPLAY_VGA_H
#define VMD_DEVICES_DISPLAY_VGA_H

#include "devices/display/dispi.h"

#define VGA_PORTS 0x3b0 /* the first port of its block */
#define VGA_N_PORTS 0x30
#define VGA_DISPI_PORTS 0x1ce
#define VGA_WINDOW 0xa0000ull
#define VGA_VRAM (16u << 20)

enum { VGA_SEQS = 8, VGA_GRS = 16, VGA_ARS = 32, VGA_CRS = 32, VGA_DAC = 768 };

/* Blocks of the class: what BAR 2 shows; ports; DISPI's ports; memory below 1 MiB. */
enum { VGA_BLOCK_BAR, VGA_BLOCK_PORTS, VGA_BLOCK_DISPI, VGA_BLOCK_WINDOW };

struct vga_regs {
    uint8_t misc, feature;
    uint8_t sr_index, sr[VGA_SEQS], gr_index, gr[VGA_GRS], cr_index, cr[VGA_CRS];
    uint8_t ar_index, ar[VGA_ARS];
    bool ar_data; /* the next write to 0x3c0 is a value */
    uint8_t dac_mask, dac_read, dac_write, dac_part, dac_cache[2];
    bool dac_reading;
    uint8_t dac[VGA_DAC];
    uint8_t latch[4];
    uint16_t vbe[VBE_REGS], vbe_index;
    uint8_t vbe_low; /* of a value that comes byte by byte */
    uint8_t retrace; /* what reading the status has shown last */
};

/* Draws what the registers say; memory: VGA_VRAM bytes, which the guest may be writing. Main thread. */
void vga_draw(struct display *d, const struct vga_regs *g, const uint8_t *memory);

#endif
