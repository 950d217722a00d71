/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rectangles on the wire (RFC 6143 §7.7; rfbproto for zlib and tight): raw, zlib, ZRLE and tight (filled, palette of two
 * colours, plain), in whatever pixel format the client asked for. Main thread.
 */
#include "engine/emu/vnc_int.h"

#include "engine/base/mem.h"

#include <endian.h>
#include <string.h>

#define PALETTE 16
#define TIGHT_MIN 12 /* bytes that tight leaves uncompressed */

void vnc_put16(struct buf *b, unsigned v)
{
    uint16_t be = htobe16((uint16_t)v);

    buf_add(b, &be, sizeof(be));
}

void vnc_put32(struct buf *b, uint32_t v)
{
    v = htobe32(v);
    buf_add(b, &v, sizeof(v));
}

void vnc_rect_head(struct buf *b, uint32_t x, uint32_t y, uint32_t w, uint32_t h,
                   int32_t encoding)
{
    vnc_put16(b, x);
    vnc_put16(b, y);
    vnc_put16(b, w);
    vnc_put16(b, h);
    vnc_put32(b, (uint32_t)encoding);
}

/* --- pixels ----------------------------------------------------------------------------------- */

static bool is_max(unsigned max)
{
    return max > 0 && max <= 255 && (max & (max + 1)) == 0;
}

bool vnc_format_derive(struct vnc_format *f)
{
    uint32_t mask;

    if ((f->bits != 8 && f->bits != 16 && f->bits != 32) || !f->colour || !is_max(f->r_max) ||
        !is_max(f->g_max) || !is_max(f->b_max) || f->r_shift >= f->bits ||
        f->g_shift >= f->bits || f->b_shift >= f->bits) {
        return false;
    }
    f->bytes = f->bits / 8;
    f->plain = f->bits == 32 && !f->big && f->r_max == 255 && f->g_max == 255 &&
               f->b_max == 255 && f->r_shift == 16 && f->g_shift == 8 && f->b_shift == 0;
    mask = (uint32_t)f->r_max << f->r_shift | (uint32_t)f->g_max << f->g_shift |
           (uint32_t)f->b_max << f->b_shift;
    f->compact = f->bytes;
    f->compact_high = false;
    if (f->bits == 32 && f->depth <= 24 && !(mask & 0xff000000)) {
        f->compact = 3;
    } else if (f->bits == 32 && f->depth <= 24 && !(mask & 0xff)) {
        f->compact = 3;
        f->compact_high = true;
    }
    f->tight = f->bits == 32 && f->depth == 24 && f->r_max == 255 && f->g_max == 255 &&
                       f->b_max == 255
                   ? 3
                   : f->bytes;
    return true;
}

static uint32_t pixel_value(const struct vnc_format *f, uint32_t c)
{
    return (((c >> 16 & 255) * f->r_max + 127) / 255) << f->r_shift |
           (((c >> 8 & 255) * f->g_max + 127) / 255) << f->g_shift |
           (((c & 255) * f->b_max + 127) / 255) << f->b_shift;
}

static uint8_t *put_pixel(const struct vnc_format *f, uint8_t *out, uint32_t c)
{
    uint32_t v = f->plain ? c : pixel_value(f, c);

    for (unsigned i = 0; i < f->bytes; i++) {
        out[i] = (uint8_t)(v >> 8 * (f->big ? f->bytes - 1u - i : i));
    }
    return out + f->bytes;
}

/* Of ZRLE: without the byte that says nothing. */
static uint8_t *put_compact(const struct vnc_format *f, uint8_t *out, uint32_t c)
{
    uint8_t whole[4];

    put_pixel(f, whole, c);
    if (f->compact == f->bytes) {
        memcpy(out, whole, f->bytes);
    } else { /* the unused byte is the first or the last one */
        memcpy(out, whole + (f->big != f->compact_high ? 1 : 0), 3);
    }
    return out + f->compact;
}

static uint8_t *put_tight(const struct vnc_format *f, uint8_t *out, uint32_t c)
{
    if (f->tight == 3) {
        out[0] = (uint8_t)(c >> 16);
        out[1] = (uint8_t)(c >> 8);
        out[2] = (uint8_t)c;
        return out + 3;
    }
    return put_pixel(f, out, c);
}

/* A rectangle of the picture, rows of r->w, black where there is none; the caller's. */
static uint32_t *cut_out(const uint32_t *pixel, uint32_t width, uint32_t height,
                         const struct display_rect *r)
{
    uint32_t *out = xnew_n(uint32_t, (size_t)r->w * r->h);
    uint32_t n = r->x < width ? (r->w < width - r->x ? r->w : width - r->x) : 0;

    for (uint32_t y = 0; y < r->h && r->y + y < height; y++) {
        memcpy(out + (size_t)y * r->w, pixel + (size_t)(r->y + y) * width + r->x, n * 4);
    }
    return out;
}

/* --- compression ------------------------------------------------------------------------------ */

/* Appends what zlib makes of it, flushed so that the client can read all. */
static void squeeze(z_stream *z, bool *on, unsigned level, struct buf *b, const uint8_t *p,
                    size_t n)
{
    if (!*on) {
        *z = (z_stream){ .zalloc = Z_NULL };
        if (deflateInit(z, (int)level) != Z_OK) {
            abort(); /* small memory is gone */
        }
        *on = true;
    }
    z->next_in = (Bytef *)(uintptr_t)p;
    z->avail_in = (uInt)n;
    do {
        buf_reserve(b, n / 4 + 256);
        z->next_out = (Bytef *)b->data + b->len;
        z->avail_out = (uInt)(b->cap - b->len - 1);
        uInt room = z->avail_out;
        (void)deflate(z, Z_SYNC_FLUSH);
        b->len += room - z->avail_out;
    } while (z->avail_out == 0);
    b->data[b->len] = 0;
}

static void put_length_at(struct buf *b, size_t at, uint32_t n)
{
    n = htobe32(n);
    memcpy(b->data + at, &n, sizeof(n));
}

static void as_pixels(const struct vnc_format *f, struct buf *b, const uint32_t *in, size_t n)
{
    uint8_t *out;

    buf_reserve(b, n * f->bytes);
    out = (uint8_t *)b->data + b->len;
    if (f->plain && BYTE_ORDER == LITTLE_ENDIAN) {
        memcpy(out, in, n * 4);
    } else {
        for (size_t i = 0; i < n; i++) {
            out = put_pixel(f, out, in[i]);
        }
    }
    b->len += n * f->bytes;
    b->data[b->len] = 0;
}

/* --- ZRLE ------------------------------------------------------------------------------------- */

/* Colours of a tile, up to PALETTE; returns how many, PALETTE + 1: more. */
static unsigned colours(const uint32_t *in, uint32_t stride, uint32_t w, uint32_t h,
                        uint32_t *palette)
{
    unsigned n = 0;

    for (uint32_t y = 0; y < h; y++, in += stride) {
        for (uint32_t x = 0; x < w; x++) {
            unsigned i = 0;

            while (i < n && palette[i] != in[x]) {
                i++;
            }
            if (i == n && n == PALETTE) {
                return PALETTE + 1;
            }
            palette[i] = in[x];
            n = i == n ? n + 1 : n;
        }
    }
    return n;
}

static unsigned index_of(const uint32_t *palette, uint32_t c)
{
    unsigned i = 0;

    while (palette[i] != c) {
        i++;
    }
    return i;
}

static uint8_t *packed(uint8_t *out, const uint32_t *in, uint32_t stride, uint32_t w,
                       uint32_t h, const uint32_t *palette, unsigned n)
{
    unsigned bits = n <= 2 ? 1 : n <= 4 ? 2 : 4;

    for (uint32_t y = 0; y < h; y++, in += stride) {
        unsigned have = 0, byte = 0;

        for (uint32_t x = 0; x < w; x++) {
            byte = byte << bits | index_of(palette, in[x]);
            have += bits;
            if (have == 8) {
                *out++ = (uint8_t)byte;
                have = byte = 0;
            }
        }
        if (have > 0) {
            *out++ = (uint8_t)(byte << (8 - have));
        }
    }
    return out;
}

static uint8_t *zrle_tile(const struct vnc_format *f, uint8_t *out, const uint32_t *in,
                          uint32_t stride, uint32_t w, uint32_t h)
{
    uint32_t palette[PALETTE];
    unsigned n = colours(in, stride, w, h, palette);

    if (n > PALETTE) {
        *out++ = 0; /* raw */
        for (uint32_t y = 0; y < h; y++, in += stride) {
            for (uint32_t x = 0; x < w; x++) {
                out = put_compact(f, out, in[x]);
            }
        }
        return out;
    }
    *out++ = (uint8_t)n; /* 1: all the same; else a palette of so many */
    for (unsigned i = 0; i < n; i++) {
        out = put_compact(f, out, palette[i]);
    }
    return n == 1 ? out : packed(out, in, stride, w, h, palette, n);
}

static void zrle(struct vnc_client *k, const uint32_t *in, const struct display_rect *r)
{
    AUTO_FREE uint8_t *plain = xalloc((size_t)r->w * r->h * 4 +
                                      (size_t)(r->w / 64 + 1) * (r->h / 64 + 1) * 80);
    uint8_t *out = plain;
    size_t at = k->out.len;

    for (uint32_t y = 0; y < r->h; y += 64) {
        for (uint32_t x = 0; x < r->w; x += 64) {
            out = zrle_tile(&k->format, out, in + (size_t)y * r->w + x, r->w,
                            r->w - x < 64 ? r->w - x : 64, r->h - y < 64 ? r->h - y : 64);
        }
    }
    vnc_put32(&k->out, 0);
    squeeze(&k->zrle, &k->zrle_on, k->level, &k->out, plain, (size_t)(out - plain));
    put_length_at(&k->out, at, (uint32_t)(k->out.len - at - 4));
}

/* --- tight ------------------------------------------------------------------------------------ */

static void tight_length(struct buf *b, size_t n)
{
    for (unsigned i = 0; i < 3; i++) {
        bool more = i < 2 && n > 127;

        buf_add_char(b, (char)((n & (i < 2 ? 127 : 255)) | (more ? 128 : 0)));
        n >>= 7;
        if (!more) {
            return;
        }
    }
}

static void tight_data(struct vnc_client *k, const uint8_t *p, size_t n)
{
    AUTO_BUF b = BUF_INIT;

    if (n < TIGHT_MIN) {
        buf_add(&k->out, p, n);
        return;
    }
    squeeze(&k->tight, &k->tight_on, k->level, &b, p, n);
    tight_length(&k->out, b.len);
    buf_add(&k->out, b.data, b.len);
}

/* One rectangle of at most 2048 by some: its compressed length has to fit 22 bits. */
static void tight(struct vnc_client *k, const uint32_t *in, const struct display_rect *r)
{
    const struct vnc_format *f = &k->format;
    size_t n = (size_t)r->w * r->h;
    uint32_t palette[PALETTE];
    unsigned many = colours(in, r->w, r->w, r->h, palette);
    AUTO_FREE uint8_t *plain = xalloc(n * 4 + 16);
    uint8_t *out = plain;

    if (many == 1) {
        uint8_t one[4];

        buf_add_char(&k->out, (char)0x80); /* filled */
        buf_add(&k->out, one, (size_t)(put_tight(f, one, palette[0]) - one));
    } else if (many == 2) {
        uint8_t two[8];

        buf_add_char(&k->out, 0x40); /* stream 0, with a filter: */
        buf_add_char(&k->out, 1);    /* palette */
        buf_add_char(&k->out, 1);    /* of two */
        out = put_tight(f, put_tight(f, two, palette[0]), palette[1]);
        buf_add(&k->out, two, (size_t)(out - two));
        out = packed(plain, in, r->w, r->w, r->h, palette, 2);
        tight_data(k, plain, (size_t)(out - plain));
    } else {
        buf_add_char(&k->out, 0); /* stream 0, as it is */
        for (size_t i = 0; i < n; i++) {
            out = put_tight(f, out, in[i]);
        }
        tight_data(k, plain, (size_t)(out - plain));
    }
}

/* --- all -------------------------------------------------------------------------------------- */

void vnc_encode(struct vnc_client *k, const uint32_t *pixel, uint32_t width, uint32_t height,
                const struct display_rect *r)
{
    AUTO_FREE uint32_t *in = cut_out(pixel, width, height, r);
    size_t n = (size_t)r->w * r->h;

    vnc_rect_head(&k->out, r->x, r->y, r->w, r->h, k->encoding);
    if (k->encoding == VNC_ZRLE) {
        zrle(k, in, r);
    } else if (k->encoding == VNC_TIGHT) {
        tight(k, in, r);
    } else if (k->encoding == VNC_ZLIB) {
        AUTO_BUF plain = BUF_INIT;
        size_t at = k->out.len;

        as_pixels(&k->format, &plain, in, n);
        vnc_put32(&k->out, 0);
        squeeze(&k->zlib, &k->zlib_on, k->level, &k->out, (uint8_t *)plain.data, plain.len);
        put_length_at(&k->out, at, (uint32_t)(k->out.len - at - 4));
    } else {
        as_pixels(&k->format, &k->out, in, n);
    }
}

void vnc_encode_cursor(struct vnc_client *k, const struct display_cursor *c)
{
    uint32_t w = c->visible ? c->w : 0, h = c->visible ? c->h : 0;

    vnc_rect_head(&k->out, c->visible ? c->hot_x : 0, c->visible ? c->hot_y : 0, w, h,
                  VNC_CURSOR);
    as_pixels(&k->format, &k->out, c->pixel, (size_t)w * h);
    for (uint32_t y = 0; y < h; y++) {
        for (uint32_t x = 0; x < w; x += 8) {
            unsigned byte = 0;

            for (uint32_t i = 0; i < 8 && x + i < w; i++) {
                byte |= (c->pixel[y * w + x + i] >> 24) >= 128 ? 0x80u >> i : 0;
            }
            buf_add_char(&k->out, (char)byte);
        }
    }
}

void vnc_encode_done(struct vnc_client *k)
{
    if (k->zlib_on) {
        deflateEnd(&k->zlib);
    }
    if (k->zrle_on) {
        deflateEnd(&k->zrle);
    }
    if (k->tight_on) {
        deflateEnd(&k->tight);
    }
}
