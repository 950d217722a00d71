/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pictures of a screen as files: PNG (ISO/IEC 15948), and PPM for those who ask for it. Functions on data; any thread.
 */
#ifndef VMD_DEVICES_DISPLAY_PNG_H
#define VMD_DEVICES_DISPLAY_PNG_H

#include "engine/base/buf.h"
#include "engine/base/err.h"

#include <stdint.h>

/* Appends the picture, 0x00RRGGBB, to b. */
int png_write(struct buf *b, const uint32_t *pixel, uint32_t width, uint32_t height,
              struct err *e);
void ppm_write(struct buf *b, const uint32_t *pixel, uint32_t width, uint32_t height);

#endif
