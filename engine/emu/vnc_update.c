/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of the picture a VNC client has not seen, by tiles, and when it gets it: one update for each request, no more than 30 a second,
 * in bands between which the loop turns, and never while much of the former one is still to be sent: a slow client gets fewer
 * pictures, not a longer queue. Main thread.
 */
#include "engine/emu/vnc_int.h"

#include "engine/base/mem.h"

#include <string.h>
#include <time.h>

#define BEGIN_NS INT64_C(30000000000) /* for the handshake */
#define FRAME_NS INT64_C(33000000)
#define BACKLOG (512u << 10) /* not yet sent: then nothing more is encoded */
#define MAX_TILES 32         /* in a row of a rectangle: 2048 pixels, what tight allows */
#define BAND_PIXELS 65536    /* encoded before the loop turns */

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

void vnc_mark(struct vnc_client *k, const struct display_rect *r)
{
    for (uint32_t y = r->y / VNC_TILE; y <= (r->y + r->h - 1) / VNC_TILE && y < VNC_TILES;
         y++) {
        for (uint32_t x = r->x / VNC_TILE; x <= (r->x + r->w - 1) / VNC_TILE && x < VNC_TILES;
             x++) {
            k->dirty[y][x / 64] |= 1ull << (x % 64);
        }
    }
    k->any_dirty = true;
}

static bool tile_take(struct vnc_client *k, uint32_t x, uint32_t y)
{
    uint64_t bit = 1ull << (x % 64);
    bool was = k->dirty[y][x / 64] & bit;

    k->dirty[y][x / 64] &= ~bit;
    return was;
}

/* The dirty tiles as rectangles: runs of tiles in a row, those below one another that are alike as one. */
static void gather(struct vnc_client *k, uint32_t width, uint32_t height)
{
    uint32_t columns = (width + VNC_TILE - 1) / VNC_TILE,
             rows = (height + VNC_TILE - 1) / VNC_TILE;

    k->n_rects = k->at_rect = 0;
    k->at_row = 0;
    for (uint32_t y = 0; y < rows; y++) {
        for (uint32_t x = 0; x < columns; x++) {
            uint32_t from = x;

            while (x < columns && x - from < MAX_TILES && k->n_rects < VNC_MAX_RECTS &&
                   tile_take(k, x, y)) {
                x++;
            }
            if (x == from) {
                continue;
            }
            x--; /* the loop goes on behind it */
            struct display_rect r = { from * VNC_TILE, y * VNC_TILE, (x + 1 - from) * VNC_TILE,
                                      VNC_TILE };
            struct display_rect *last = k->n_rects ? &k->rect[k->n_rects - 1] : NULL;
            display_clip(&r, width, height);
            if (last && last->x == r.x && last->w == r.w && last->y + last->h == r.y) {
                last->h += r.h;
            } else {
                k->rect[k->n_rects++] = r;
            }
        }
    }
    k->any_dirty = k->n_rects == VNC_MAX_RECTS;
}

/* Rectangles are cut so that one can be encoded in a turn. */
static uint32_t band_rows(const struct vnc_client *k, const struct display_rect *r)
{
    uint32_t rows = BAND_PIXELS / r->w & ~(uint32_t)(VNC_TILE - 1);

    (void)k;
    return rows < VNC_TILE ? VNC_TILE : rows;
}

static unsigned count_bands(const struct vnc_client *k)
{
    unsigned n = 0;

    for (unsigned i = 0; i < k->n_rects; i++) {
        uint32_t rows = band_rows(k, &k->rect[i]);

        n += (k->rect[i].h + rows - 1) / rows;
    }
    return n;
}

static void put_size(struct vnc_client *k, uint32_t width, uint32_t height)
{
    if (!k->ext_size) {
        vnc_rect_head(&k->out, 0, 0, width, height, VNC_DESKTOP_SIZE);
        return;
    }
    vnc_rect_head(&k->out, k->size_reason, k->size_status, width, height, VNC_EXT_DESKTOP_SIZE);
    buf_add(&k->out, "\1\0\0\0", 4); /* one screen: number 0, at 0,0 */
    vnc_put32(&k->out, 0);
    vnc_put32(&k->out, 0);
    vnc_put16(&k->out, width);
    vnc_put16(&k->out, height);
    vnc_put32(&k->out, 0);
    k->size_reason = k->size_status = 0;
}

static void begin(struct vnc_client *k)
{
    struct display *d = vnc_display(k);
    uint32_t width = display_width(d), height = display_height(d);
    bool size = k->resized && (k->size || k->ext_size);
    bool cursor = k->cursor && k->cursor_changed, keys = k->ext_key && !k->told_ext_key;

    gather(k, width, height);
    buf_add(&k->out, "\0\0", 2); /* FramebufferUpdate */
    vnc_put16(&k->out, count_bands(k) + size + cursor + keys);
    if (size) {
        put_size(k, width, height);
    }
    if (cursor) {
        vnc_encode_cursor(k, display_cursor(d));
    }
    if (keys) {
        vnc_rect_head(&k->out, 0, 0, 0, 0, VNC_EXT_KEY);
        k->told_ext_key = true;
    }
    k->resized = false;
    k->cursor_changed = false;
    k->wanted = false;
    k->last_ns = now_ns();
}

/* The next band; what the guest draws meanwhile is in it, and dirty for the next update. */
static void encode_band(struct vnc_client *k)
{
    struct display *d = vnc_display(k);
    const struct display_rect *r = &k->rect[k->at_rect];
    uint32_t rows = band_rows(k, r);
    struct display_rect band = { r->x, r->y + k->at_row, r->w,
                                 r->h - k->at_row < rows ? r->h - k->at_row : rows };

    vnc_encode(k, display_pixels(d), display_width(d), display_height(d), &band);
    k->at_row += band.h;
    if (k->at_row >= r->h) {
        k->at_row = 0;
        k->at_rect++;
    }
}

static bool something(const struct vnc_client *k)
{
    return k->any_dirty || (k->resized && (k->size || k->ext_size)) ||
           (k->cursor && k->cursor_changed) || (k->ext_key && !k->told_ext_key);
}

static void on_turn(void *arg)
{
    struct vnc_client *k = arg;

    if (k->at_rect < k->n_rects && k->out.len < BACKLOG) {
        encode_band(k);
        if (!vnc_flush(k)) {
            return;
        }
        if (k->at_rect < k->n_rects && k->out.len < BACKLOG) {
            loop_timer_arm(k->timer, 0); /* other work of the loop comes first */
            return;
        }
    }
    if (k->at_rect >= k->n_rects) {
        vnc_update(k);
    }
}

static void on_frame(void *arg)
{
    struct vnc_client *k = arg;

    if (!k->running) {
        vnc_drop(k, "it does not get on");
        return;
    }
    if (k->at_rect >= k->n_rects && k->wanted) {
        display_refresh(vnc_display(k)); /* marks what has changed */
    }
    on_turn(k);
}

void vnc_update(struct vnc_client *k)
{
    int64_t since = now_ns() - k->last_ns;

    if (k->at_rect < k->n_rects) {
        if (k->out.len < BACKLOG) {
            loop_timer_arm(k->timer, 0);
        }
        return;
    }
    if (!k->wanted || k->out.len > 0) {
        return;
    }
    if (since < FRAME_NS) {
        loop_timer_arm(k->timer, FRAME_NS - since);
        return;
    }
    if (!something(k)) { /* what changes is told, or has to be looked for */
        if (display_is_polled(vnc_display(k))) {
            loop_timer_arm(k->timer, FRAME_NS);
        }
        return;
    }
    begin(k);
    loop_timer_arm(k->timer, 0);
    (void)vnc_flush(k);
}

/* May be called while the device draws: nothing is sent before the loop turns. */
void vnc_damaged(struct vnc_client *k)
{
    if (k->wanted && k->at_rect >= k->n_rects) {
        int64_t since = now_ns() - k->last_ns;

        loop_timer_arm(k->timer, since < FRAME_NS ? FRAME_NS - since : 0);
    }
}

void vnc_update_init(struct vnc_client *k)
{
    k->timer = loop_timer_new(vnc_loop(k), on_frame, k);
    loop_timer_arm(k->timer, BEGIN_NS);
}

void vnc_update_done(struct vnc_client *k)
{
    loop_timer_free(k->timer);
    k->timer = NULL;
}
