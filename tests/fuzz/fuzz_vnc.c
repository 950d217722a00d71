/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: what a VNC client sends. A screen whose picture, size and cursor change meanwhile; the input is the client's bytes, in
 * pieces, behind a handshake that is mostly right. What the server sends is read and thrown away, or left lying.
 */
#include "devices/display/display.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/emu/screen.h"
#include "engine/emu/vnc.h"
#include "tests/fuzz/fuzz.h"

#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

const char fuzz_name[] = "fuzz_vnc";

static struct loop *loop;
static struct display *display;
static struct vnc *vnc;
static struct sockaddr_un address;
static socklen_t address_size;
static unsigned long keys, moves;

/* What the server uses of the emulator. */
struct display *screen_display(struct emu_screen *s)
{
    (void)s;
    return display;
}

void screen_key(struct emu_screen *s, uint16_t code, bool down)
{
    (void)s, (void)down;
    if (code == 0 || code > 0x2ff) {
        FUZZ_FAIL("key %u", code);
    }
    keys++;
}

void screen_viewed(struct emu_screen *s, const char *what)
{
    (void)s, (void)what;
}

void screen_pointer(struct emu_screen *s, uint32_t x, uint32_t y, unsigned buttons)
{
    (void)s, (void)buttons;
    if (x > 0x7fff || y > 0x7fff) {
        FUZZ_FAIL("pointer at %u,%u", x, y);
    }
    moves++;
}

void fuzz_setup(void)
{
    struct err e = ERR_INIT;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    log_init("fuzz", LOG_ERROR, STDERR_FILENO);
    loop = loop_new(&e);
    display = display_new(200, 150);
    address.sun_family = AF_UNIX; /* a name of the kernel's choice */
    address_size = sizeof(address);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(sa_family_t)) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &address_size) < 0 ||
        vnc_new(loop, NULL, "fuzz", fd, &vnc, &e) < 0) {
        FUZZ_FAIL("no listener: %s", e.msg);
    }
}

static void turn(unsigned n)
{
    while (n--) {
        (void)loop_run_once(loop, 0, NULL);
    }
}

static void drain(int fd)
{
    static char bytes[65536];

    while (recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0) {
    }
}

/* The guest draws. */
static void draw(struct fuzz_in *in)
{
    uint32_t w = display_width(display), h = display_height(display);
    struct display_rect r = { fuzz_below(in, w), fuzz_below(in, h), 1 + fuzz_below(in, 300),
                              1 + fuzz_below(in, 300) };
    uint32_t colour = (uint32_t)fuzz_64(in) & 0xffffff, mask = fuzz_8(in) & 1 ? 0xffffff : 1;

    if (fuzz_rarely(in, 4)) {
        (void)display_resize(display, 1 + fuzz_below(in, 2200), 1 + fuzz_below(in, 200));
        return;
    }
    if (fuzz_rarely(in, 6)) {
        struct display_cursor *c = display_draw_cursor(display);
        c->visible = fuzz_8(in) & 1;
        c->w = c->h = DISPLAY_CURSOR_SIDE;
        display_cursor_changed(display);
        return;
    }
    if (display_clip(&r, w, h)) {
        for (uint32_t y = r.y; y < r.y + r.h; y++) {
            for (uint32_t x = r.x; x < r.x + r.w; x++) {
                display_draw(display)[(size_t)y * w + x] = (colour + x * y) & mask;
            }
        }
        display_damage(display, &r);
    }
}

/* A message of the protocol with numbers of the input's; returns its length. */
static size_t message(struct fuzz_in *in, uint8_t *out)
{
    static const struct {
        uint8_t type, size;
    } kinds[] = { { 0, 20 }, { 2, 4 }, { 3, 10 },  { 4, 8 },
                  { 5, 6 },  { 6, 8 }, { 251, 8 }, { 255, 12 } };
    static const uint8_t encodings[] = { 0, 6, 7, 16, 0x21, 0x11, 0xfe, 0xcc };
    unsigned which = fuzz_below(in, ARRAY_LEN(kinds)), n = kinds[which].size;

    for (unsigned i = 0; i < n; i++) {
        out[i] = fuzz_8(in) & 1 ? fuzz_8(in) : 0;
    }
    out[0] = kinds[which].type;
    if (out[0] == 0 && !fuzz_rarely(in, 4)) { /* a format that is one */
        memcpy(out + 4, "\x20\x18\0\1\0\xff\0\xff\0\xff\x10\x08\0\0\0\0", 16);
        out[4] = (uint8_t)(8 << fuzz_below(in, 3));
    } else if (out[0] == 2) {
        out[2] = 0;
        out[3] = (uint8_t)fuzz_below(in, 6);
        for (unsigned i = 0; i < out[3]; i++, n += 4) {
            uint8_t e = encodings[fuzz_below(in, ARRAY_LEN(encodings))];
            memset(out + n, e > 16 ? 0xff : 0, 3);
            out[n + 3] = e;
            out[n + 2] = e == 0xfe || e == 0xcc ? 0xfe : out[n + 2];
        }
    }
    return n;
}

void fuzz_one(const uint8_t *data, size_t size)
{
    struct fuzz_in in;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    uint8_t bytes[64];

    fuzz_in_init(&in, data, size);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, address_size) < 0) {
        FUZZ_FAIL("cannot connect");
    }
    if (!fuzz_rarely(&in, 8)) {
        (void)!write(fd, "RFB 003.008\n\1\1", 14);
    }
    turn(3);
    for (unsigned steps = 1 + fuzz_below(&in, 40); steps > 0; steps--) {
        if (fuzz_rarely(&in, 12)) {
            uint64_t junk = fuzz_64(&in);
            (void)!send(fd, &junk, 1 + fuzz_below(&in, 8), MSG_NOSIGNAL | MSG_DONTWAIT);
        } else if (fuzz_rarely(&in, 3)) {
            draw(&in);
        } else {
            size_t n = message(&in, bytes);
            (void)!send(fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
        turn(1 + fuzz_below(&in, 3));
        if (!fuzz_rarely(&in, 5)) {
            drain(fd);
        }
    }
    close(fd);
    turn(4);
}

void fuzz_finish(void)
{
    vnc_free(vnc);
    display_free(display);
    loop_free(loop);
    printf("# %lu keys, %lu moves\n", keys, moves);
}
