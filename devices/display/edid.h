/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a monitor says of itself (VESA E-EDID 1.4, one block). A function on data; any thread.
 */
#ifndef VMD_DEVICES_DISPLAY_EDID_H
#define VMD_DEVICES_DISPLAY_EDID_H

#include <stdint.h>

#define EDID_SIZE 128

/* A monitor whose preferred mode has that size, at 60 Hz. */
void edid_fill(uint8_t out[EDID_SIZE], uint32_t width, uint32_t height);

#endif
