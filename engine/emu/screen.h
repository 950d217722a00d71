/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The screen of a VM in its emulator: the display that the board's device draws, pictures of it, and what people type and
 * point. Belongs to the main thread.
 */
#ifndef VMD_EMU_SCREEN_H
#define VMD_EMU_SCREEN_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct board_config;
struct display;
struct emu;
struct emu_screen;

/* Where the configuration has a screen: makes the display, fills b->screen. Before the board is built. */
void screen_new(struct emu *m, struct board_config *b);
/* After the VM is gone. */
void screen_free(struct emu *m);
/* Serves VNC on the bound unix socket. */
int screen_listen(struct emu *m, int take_fd, struct err *e);

struct display *screen_display(struct emu_screen *s);
/* A key by the guest's number. A report that finds no room waits; those that a guest does not fetch are dropped. */
void screen_key(struct emu_screen *s, uint16_t code, bool down);
/* Where the pointer is, 0 to INPUT_ABS_MAX, and which buttons are down: bits left, middle, right, wheel up, down, left, right, side,
 * extra, as RFB numbers them. */
void screen_pointer(struct emu_screen *s, uint32_t x, uint32_t y, unsigned buttons);

/* A VNC client is connected, initialized, disconnected: told to who controls the emulator. */
void screen_viewed(struct emu_screen *s, const char *what);

#endif
