/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the VNC server: vnc.c has the protocol, vnc_update.c what changed and when it is sent, vnc_encode.c how a rectangle
 * looks on the wire.
 */
#ifndef VMD_EMU_VNC_INT_H
#define VMD_EMU_VNC_INT_H

#include "devices/display/display.h"
#include "engine/base/buf.h"
#include "engine/base/list.h"
#include "engine/base/loop.h"

#include <zlib.h>

#define VNC_TILE 64
#define VNC_TILES (DISPLAY_MAX_SIDE / VNC_TILE) /* in a row */
#define VNC_MAX_RECTS 4096

/* Encodings and pseudo-encodings. */
enum {
    VNC_RAW = 0,
    VNC_ZLIB = 6,
    VNC_TIGHT = 7,
    VNC_ZRLE = 16,
    VNC_DESKTOP_SIZE = -223,
    VNC_CURSOR = -239,
    VNC_EXT_KEY = -258,
    VNC_EXT_DESKTOP_SIZE = -308
};

struct vnc_format {
    uint8_t bits, depth, big, colour;
    uint16_t r_max, g_max, b_max;
    uint8_t r_shift, g_shift, b_shift;
    /* derived */
    uint8_t bytes;
    bool plain;        /* 32 bits, 0x00RRGGBB, little-endian: as the display has it */
    uint8_t compact;   /* bytes of a ZRLE pixel: 3 where a colour leaves a byte unused */
    bool compact_high; /* and it is the lowest byte that is */
    uint8_t tight;     /* bytes of a tight pixel */
};

struct vnc_client {
    struct list node;
    struct vnc *owner;
    int fd;
    struct loop_fd *watch;
    struct buf in, out;
    unsigned state;
    bool running; /* the handshake is over */
    struct display_viewer viewer;

    struct vnc_format format;
    int32_t encoding;
    unsigned level; /* of compression */
    bool cursor, size, ext_size, ext_key, told_ext_key;
    z_stream zlib, zrle, tight; /* streams last as long as the connection */
    bool zlib_on, zrle_on, tight_on;

    uint64_t dirty[VNC_TILES][VNC_TILES / 64];
    bool any_dirty, wanted, resized, cursor_changed;
    uint16_t size_reason, size_status;
    struct display_rect rect[VNC_MAX_RECTS]; /* of the update at work */
    unsigned n_rects, at_rect;
    uint32_t at_row; /* of the rectangle at work, which goes out in bands */
    int64_t last_ns;
    struct loop_timer *timer;

    uint16_t shifted; /* key that a shift was added for, 0: none */
    uint32_t down[8]; /* keys that are held, by the guest's number */
};

/* --- vnc_encode.c --- */
bool vnc_format_derive(struct vnc_format *f); /* false: not a format that can be sent */
/* Appends a rectangle with its header. Pixels outside of the picture are black. */
void vnc_encode(struct vnc_client *k, const uint32_t *pixel, uint32_t width, uint32_t height,
                const struct display_rect *r);
void vnc_rect_head(struct buf *b, uint32_t x, uint32_t y, uint32_t w, uint32_t h,
                   int32_t encoding);
void vnc_put16(struct buf *b, unsigned v);
void vnc_put32(struct buf *b, uint32_t v);
void vnc_encode_cursor(struct vnc_client *k, const struct display_cursor *c);
void vnc_encode_done(struct vnc_client *k);

/* --- vnc_update.c --- */
void vnc_update_init(struct vnc_client *k);
void vnc_update_done(struct vnc_client *k);
void vnc_mark(struct vnc_client *k, const struct display_rect *r);
/* The picture, its size or the cursor changed. */
void vnc_damaged(struct vnc_client *k);
/* Something was asked for, has changed or was sent: sends an update if it is time for one. The client may be gone (and freed) after it. */
void vnc_update(struct vnc_client *k);

/* --- vnc.c --- */
struct display *vnc_display(const struct vnc_client *k);
struct loop *vnc_loop(const struct vnc_client *k);
/* Sends what is queued; false when the client is gone (and freed). */
bool vnc_flush(struct vnc_client *k);
void vnc_drop(struct vnc_client *k, const char *why);

#endif
