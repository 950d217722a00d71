/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PNG by zlib: 8 bits a channel, no alpha, each row as its difference from the one above, which makes rows of text and of
 * plain colour short. Functions on data; any thread.
 */
#include "devices/display/png.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <zlib.h>

#define LEVEL 3
#define PIECE 65536
enum { COLOUR_RGB = 2, FILTER_UP = 2 };

static void put32(struct buf *b, uint32_t v)
{
    v = htobe32(v);
    buf_add(b, &v, sizeof(v));
}

static void chunk(struct buf *b, const char *type, const void *p, size_t n)
{
    uLong crc = crc32(0, (const Bytef *)type, 4);

    put32(b, (uint32_t)n);
    buf_add(b, type, 4);
    if (n > 0) {
        buf_add(b, p, n);
        crc = crc32(crc, p, (uInt)n);
    }
    put32(b, (uint32_t)crc);
}

static void filter_row(uint8_t *out, const uint32_t *row, const uint32_t *above, uint32_t width)
{
    *out++ = FILTER_UP;
    for (uint32_t x = 0; x < width; x++, out += 3) {
        uint32_t p = row[x], a = above ? above[x] : 0;

        out[0] = (uint8_t)((p >> 16) - (a >> 16));
        out[1] = (uint8_t)((p >> 8) - (a >> 8));
        out[2] = (uint8_t)(p - a);
    }
}

/* One row more, or the end; pieces that are full go out. */
static bool deflate_some(z_stream *z, struct buf *b, uint8_t *piece, bool last)
{
    int rc;

    do {
        rc = deflate(z, last ? Z_FINISH : Z_NO_FLUSH);
        if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR) {
            return false;
        }
        if (z->avail_out == 0 || (last && rc == Z_STREAM_END)) {
            chunk(b, "IDAT", piece, PIECE - z->avail_out);
            z->next_out = piece;
            z->avail_out = PIECE;
        }
    } while (z->avail_in > 0 || (last && rc != Z_STREAM_END));
    return true;
}

int png_write(struct buf *b, const uint32_t *pixel, uint32_t width, uint32_t height,
              struct err *e)
{
    static const uint8_t magic[8] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' };
    AUTO_FREE uint8_t *row = xalloc(1 + 3 * (size_t)width), *piece = xalloc(PIECE);
    const uint32_t size[2] = { htobe32(width), htobe32(height) };
    uint8_t head[13] = { 0 };
    z_stream z = { .next_out = piece, .avail_out = PIECE };
    bool ok = deflateInit(&z, LEVEL) == Z_OK;

    if (!ok) {
        return err_set(e, -ENOMEM, "zlib cannot begin");
    }
    memcpy(head, size, sizeof(size));
    head[8] = 8;
    head[9] = COLOUR_RGB;
    buf_add(b, magic, sizeof(magic));
    chunk(b, "IHDR", head, sizeof(head));
    for (uint32_t y = 0; y < height && ok; y++) {
        filter_row(row, pixel + (size_t)y * width, y ? pixel + (size_t)(y - 1) * width : NULL,
                   width);
        z.next_in = row;
        z.avail_in = (uInt)(1 + 3 * (size_t)width);
        ok = deflate_some(&z, b, piece, false);
    }
    ok = ok && deflate_some(&z, b, piece, true);
    deflateEnd(&z);
    chunk(b, "IEND", NULL, 0);
    return ok ? 0 : err_set(e, -EIO, "zlib cannot compress the picture");
}

void ppm_write(struct buf *b, const uint32_t *pixel, uint32_t width, uint32_t height)
{
    size_t n = (size_t)width * height;
    uint8_t *out;

    buf_printf(b, "P6\n%u %u\n255\n", width, height);
    buf_reserve(b, 3 * n);
    out = (uint8_t *)b->data + b->len;
    for (size_t i = 0; i < n; i++, out += 3) {
        out[0] = (uint8_t)(pixel[i] >> 16);
        out[1] = (uint8_t)(pixel[i] >> 8);
        out[2] = (uint8_t)pixel[i];
    }
    b->len += 3 * n;
    b->data[b->len] = 0;
}
