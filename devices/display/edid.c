/* SPDX-License-Identifier: Apache-2.0 */
/*
 * EDID of a digital monitor with 96 dots an inch. A function on data; any thread.
 */
#include "devices/display/edid.h"

#include <string.h>

#define DOTS_PER_INCH 96
#define BLANK_X 160 /* reduced blanking (VESA CVT-RB) */
#define SYNC_X 32
#define FRONT_X 48
#define BLANK_Y 30
#define SYNC_Y 6
#define FRONT_Y 3

/* Detailed timing (3.10.2). A size beyond its 12 bits, or a clock beyond its 16, is cut. */
static void timing(uint8_t *p, uint32_t w, uint32_t h, uint32_t mm_x, uint32_t mm_y)
{
    uint64_t clock = (uint64_t)(w + BLANK_X) * (h + BLANK_Y) * 60 / 10000; /* of 10 kHz */

    clock = clock > 0xffff ? 0xffff : clock;
    p[0] = (uint8_t)clock;
    p[1] = (uint8_t)(clock >> 8);
    p[2] = (uint8_t)w;
    p[3] = BLANK_X & 0xff;
    p[4] = (uint8_t)((w >> 8 & 15) << 4 | BLANK_X >> 8);
    p[5] = (uint8_t)h;
    p[6] = BLANK_Y;
    p[7] = (uint8_t)((h >> 8 & 15) << 4);
    p[8] = FRONT_X;
    p[9] = SYNC_X;
    p[10] = FRONT_Y << 4 | SYNC_Y;
    p[12] = (uint8_t)mm_x;
    p[13] = (uint8_t)mm_y;
    p[14] = (uint8_t)((mm_x >> 8 & 15) << 4 | (mm_y >> 8 & 15));
    p[17] = 0x1e; /* digital, separate, both syncs positive */
}

static void text(uint8_t *p, uint8_t tag, const char *s)
{
    size_t n = strlen(s);

    p[3] = tag;
    memset(p + 5, ' ', 13);
    memcpy(p + 5, s, n);
    p[5 + n] = '\n';
}

void edid_fill(uint8_t out[EDID_SIZE], uint32_t width, uint32_t height)
{
    static const uint8_t head[8] = { 0, 255, 255, 255, 255, 255, 255, 0 };
    static const uint8_t srgb[10] = {
        0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54
    };
    /* 40 to 125 Hz, 20 to 160 kHz, 600 MHz, no formula for more modes */
    static const uint8_t limits[13] = { 40,  125, 20,  160, 60,  1,  '\n',
                                        ' ', ' ', ' ', ' ', ' ', ' ' };
    uint32_t w = width < 4095 ? width & ~7u : 4088, h = height < 4095 ? height : 4095;
    uint32_t mm_x = w * 254 / (DOTS_PER_INCH * 10), mm_y = h * 254 / (DOTS_PER_INCH * 10);
    unsigned sum = 0;

    memset(out, 0, EDID_SIZE);
    memcpy(out, head, sizeof(head));
    out[8] = ('V' - '@') << 2 | ('M' - '@') >> 3; /* manufacturer VMD */
    out[9] = (uint8_t)(('M' - '@') << 5 | ('D' - '@'));
    out[10] = 1; /* product */
    out[16] = 1; /* week, year 2024 */
    out[17] = 2024 - 1990;
    out[18] = 1; /* EDID 1.4 */
    out[19] = 4;
    out[20] = 0xa5; /* digital, 8 bits a colour, DisplayPort */
    out[21] = (uint8_t)((mm_x + 5) / 10 > 255 ? 255 : (mm_x + 5) / 10);
    out[22] = (uint8_t)((mm_y + 5) / 10 > 255 ? 255 : (mm_y + 5) / 10);
    out[23] = 120;  /* gamma 2.2 */
    out[24] = 0x06; /* sRGB; the first timing is the preferred one */
    memcpy(out + 25, srgb, sizeof(srgb));
    out[35] = 0x21; /* 640x480, 800x600 */
    out[36] = 0x08; /* 1024x768 */
    memset(out + 38, 1, 16);
    timing(out + 54, w, h, mm_x, mm_y);
    out[72 + 3] = 0xfd; /* limits */
    memcpy(out + 72 + 5, limits, sizeof(limits));
    text(out + 90, 0xfc, "vmd monitor");
    out[108 + 3] = 0x10; /* nothing */
    for (unsigned i = 0; i < EDID_SIZE - 1; i++) {
        sum += out[i];
    }
    out[127] = (uint8_t)(0x100 - (sum & 0xff));
}
