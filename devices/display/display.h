/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A screen: the picture that a display device draws and that viewers (VNC, screenshots) look at, with the rectangles that
 * changed, a cursor and a size that a viewer may ask for. The pixels are the display's own copy, so no viewer reads memory
 * that a guest writes. Belongs to the main thread, every call.
 */
#ifndef VMD_DEVICES_DISPLAY_DISPLAY_H
#define VMD_DEVICES_DISPLAY_DISPLAY_H

#include "engine/base/list.h"

#include <stdbool.h>
#include <stdint.h>

#define DISPLAY_MAX_SIDE 8192u
#define DISPLAY_MAX_PIXELS (16u << 20)
#define DISPLAY_CURSOR_SIDE 64
#define DISPLAY_MIN_WIDTH 320
#define DISPLAY_MIN_HEIGHT 200

struct display_rect {
    uint32_t x, y, w, h;
};

struct display_cursor {
    bool visible;
    uint32_t x, y; /* of the hot spot, as the guest has put it */
    uint32_t hot_x, hot_y, w, h;
    uint32_t
        pixel[DISPLAY_CURSOR_SIDE * DISPLAY_CURSOR_SIDE]; /* 0xAARRGGBB, not premultiplied */
};

/* One who looks. Hooks may be NULL; none of them changes the display. */
struct display_viewer {
    struct list node;
    void (*damaged)(void *arg, const struct display_rect *r); /* within the picture */
    void (*resized)(void *arg); /* size and pixels are new; all is damaged */
    void (*cursor)(void *arg);  /* its shape or whether it is shown */
    void *arg;
};

/* The device's side; hooks may be NULL. */
struct display_source {
    /* Brings the picture up to date, for devices whose picture is memory that a guest writes as it likes. */
    void (*refresh)(void *arg);
    /* A viewer would like another size; the guest may follow or not. */
    void (*ask_size)(void *arg, uint32_t width, uint32_t height);
    void *arg;
};

struct display;

struct display *display_new(uint32_t width, uint32_t height); /* the first size, black */
void display_free(struct display *d); /* NULL is fine; no viewer is left */

/* --- viewers --- */
void display_attach(struct display *d, struct display_viewer *v);
void display_detach(struct display *d, struct display_viewer *v);
void display_refresh(struct display *d);
bool display_is_polled(const struct display *d); /* changes show only by display_refresh() */
uint32_t display_width(const struct display *d);
uint32_t display_height(const struct display *d);
/* 0x00RRGGBB, width of them a row; valid until the size changes. */
const uint32_t *display_pixels(const struct display *d);
const struct display_cursor *display_cursor(const struct display *d);
/* False: no device can be asked, or that is no size. */
bool display_ask_size(struct display *d, uint32_t width, uint32_t height);

/* --- the device --- */
void display_set_source(struct display *d,
                        const struct display_source *s); /* copied; NULL: none */
bool display_size_ok(uint32_t width, uint32_t height);
/* Another size, black; false and unchanged when it is none or there is no memory. */
bool display_resize(struct display *d, uint32_t width, uint32_t height);
uint32_t *display_draw(struct display *d); /* as display_pixels(), to be written */
/* What was written; clipped. */
void display_damage(struct display *d, const struct display_rect *r);
struct display_cursor *display_draw_cursor(struct display *d);
void display_cursor_changed(struct display *d);
/* Cuts r to a picture of that size; false when nothing is left. */
bool display_clip(struct display_rect *r, uint32_t width, uint32_t height);

#endif
