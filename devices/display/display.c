/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The screen. Owns its pixels and the list of viewers. Main thread.
 */
#include "devices/display/display.h"

#include "engine/base/mem.h"

#include <string.h>

struct display {
    uint32_t width, height;
    uint32_t *pixel;
    struct display_cursor cursor;
    struct display_source source;
    struct list viewers;
};

bool display_size_ok(uint32_t width, uint32_t height)
{
    return width > 0 && height > 0 && width <= DISPLAY_MAX_SIDE && height <= DISPLAY_MAX_SIDE &&
           (uint64_t)width * height <= DISPLAY_MAX_PIXELS;
}

struct display *display_new(uint32_t width, uint32_t height)
{
    struct display *d = xnew(struct display);

    list_init(&d->viewers);
    if (!display_size_ok(width, height)) {
        width = 1024;
        height = 768;
    }
    d->width = width;
    d->height = height;
    d->pixel = xnew_n(uint32_t, (size_t)width * height);
    return d;
}

void display_free(struct display *d)
{
    if (d) {
        free(d->pixel);
        free(d);
    }
}

void display_attach(struct display *d, struct display_viewer *v)
{
    list_append(&d->viewers, &v->node);
}

void display_detach(struct display *d, struct display_viewer *v)
{
    (void)d;
    list_remove(&v->node);
}

void display_refresh(struct display *d)
{
    if (d->source.refresh) {
        d->source.refresh(d->source.arg);
    }
}

bool display_is_polled(const struct display *d)
{
    return d->source.refresh != NULL;
}

uint32_t display_width(const struct display *d)
{
    return d->width;
}

uint32_t display_height(const struct display *d)
{
    return d->height;
}

const uint32_t *display_pixels(const struct display *d)
{
    return d->pixel;
}

const struct display_cursor *display_cursor(const struct display *d)
{
    return &d->cursor;
}

bool display_ask_size(struct display *d, uint32_t width, uint32_t height)
{
    if (!d->source.ask_size || !display_size_ok(width, height) || width < DISPLAY_MIN_WIDTH ||
        height < DISPLAY_MIN_HEIGHT) {
        return false;
    }
    d->source.ask_size(d->source.arg, width, height);
    return true;
}

void display_set_source(struct display *d, const struct display_source *s)
{
    d->source = s ? *s : (struct display_source){ .refresh = NULL };
}

bool display_resize(struct display *d, uint32_t width, uint32_t height)
{
    uint32_t *pixel;

    if (width == d->width && height == d->height) {
        return true;
    }
    pixel = display_size_ok(width, height) ? try_alloc_n((size_t)width * height, sizeof(*pixel))
                                           : NULL;
    if (!pixel) {
        return false;
    }
    free(d->pixel);
    d->pixel = pixel;
    d->width = width;
    d->height = height;
    list_for_each_safe (it, &d->viewers) {
        struct display_viewer *v = list_entry(it, struct display_viewer, node);

        if (v->resized) {
            v->resized(v->arg);
        }
    }
    return true;
}

uint32_t *display_draw(struct display *d)
{
    return d->pixel;
}

bool display_clip(struct display_rect *r, uint32_t width, uint32_t height)
{
    if (r->x >= width || r->y >= height) {
        return false;
    }
    r->w = r->w < width - r->x ? r->w : width - r->x;
    r->h = r->h < height - r->y ? r->h : height - r->y;
    return r->w > 0 && r->h > 0;
}

void display_damage(struct display *d, const struct display_rect *r)
{
    struct display_rect in = *r;

    if (!display_clip(&in, d->width, d->height)) {
        return;
    }
    list_for_each_safe (it, &d->viewers) {
        struct display_viewer *v = list_entry(it, struct display_viewer, node);

        if (v->damaged) {
            v->damaged(v->arg, &in);
        }
    }
}

struct display_cursor *display_draw_cursor(struct display *d)
{
    return &d->cursor;
}

void display_cursor_changed(struct display *d)
{
    list_for_each_safe (it, &d->viewers) {
        struct display_viewer *v = list_entry(it, struct display_viewer, node);

        if (v->cursor) {
            v->cursor(v->arg);
        }
    }
}
