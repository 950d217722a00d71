/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RFB 3.3, 3.7 and 3.8 (RFC 6143) with the pseudo-encodings for cursor, size of the desktop and extended keys. What a client sends is
 * bounded: no message is kept longer than its fixed part and a list of encodings; a text of the clipboard is skipped. A client that
 * breaks the protocol is dropped, others notice nothing. Owns clients and listener. Main thread.
 */
#include "engine/emu/vnc.h"

#include "devices/input/keys.h"
#include "devices/input/virtio_input.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/emu/screen.h"
#include "engine/emu/vnc_int.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_CLIENTS 16
#define READ_MAX 16384
#define OUT_MAX                                                                                \
    (4u                                                                                        \
     << 20) /* answers that a client asks for and does not read: then nothing more is read from it */
#define MAX_ENCODINGS 1024
#define MAX_SCREENS 16
#define MAX_CUT_TEXT (1u << 20)
#define SHIFT_L 42
#define SHIFT_R 54

enum { S_VERSION, S_SECURITY, S_INIT, S_RUNNING };
enum { SEC_NONE = 1 };
enum { REASON_CLIENT = 1, STATUS_PROHIBITED = 1, STATUS_INVALID = 3, STATUS_FORWARDED = 4 };

struct vnc {
    struct loop *loop;
    struct emu_screen *screen;
    const char *name;
    int fd;
    struct loop_fd *listener;
    struct list clients;
    unsigned n_clients;
};

struct display *vnc_display(const struct vnc_client *k)
{
    return screen_display(k->owner->screen);
}

struct loop *vnc_loop(const struct vnc_client *k)
{
    return k->owner->loop;
}

/* --- life of a client ------------------------------------------------------------------------- */

static bool is_down(const struct vnc_client *k, uint16_t code)
{
    return code < 256 && (k->down[code / 32] >> code % 32 & 1);
}

static void key(struct vnc_client *k, uint16_t code, bool down)
{
    if (code == 0 || code > INPUT_KEY_LAST || (!down && !is_down(k, code))) {
        return;
    }
    if (down) {
        k->down[code / 32] |= 1u << code % 32;
    } else {
        k->down[code / 32] &= ~(1u << code % 32);
    }
    screen_key(k->owner->screen, code, down);
}

static void client_free(struct vnc_client *k)
{
    for (uint16_t code = 1; code <= INPUT_KEY_LAST;
         code++) { /* nobody else would let go of them */
        key(k, code, false);
    }
    list_remove(&k->node);
    k->owner->n_clients--;
    screen_viewed(k->owner->screen, "disconnected");
    display_detach(vnc_display(k), &k->viewer);
    vnc_update_done(k);
    vnc_encode_done(k);
    loop_fd_free(k->watch);
    close(k->fd);
    buf_done(&k->in);
    buf_done(&k->out);
    free(k);
}

void vnc_drop(struct vnc_client *k, const char *why)
{
    log_debug("emu", "a VNC client is dropped: %s", why);
    client_free(k);
}

static void watch(struct vnc_client *k)
{
    loop_fd_set(k->watch,
                (k->out.len < OUT_MAX ? LOOP_READ : 0) | (k->out.len ? LOOP_WRITE : 0));
}

bool vnc_flush(struct vnc_client *k)
{
    size_t sent = 0;

    while (sent < k->out.len) {
        ssize_t n = send(k->fd, k->out.data + sent, k->out.len - sent,
                         MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
            client_free(k);
            return false;
        }
        if (n < 0) {
            break;
        }
        sent += (size_t)n;
    }
    buf_consume(&k->out, sent);
    watch(k);
    return true;
}

/* --- what the display tells ------------------------------------------------------------------- */

static void on_damage(void *arg, const struct display_rect *r)
{
    vnc_mark(arg, r);
    vnc_damaged(arg);
}

static void mark_all(struct vnc_client *k)
{
    const struct display_rect all = { 0, 0, display_width(vnc_display(k)),
                                      display_height(vnc_display(k)) };

    memset(k->dirty, 0, sizeof(k->dirty));
    vnc_mark(k, &all);
}

static void on_resize(void *arg)
{
    struct vnc_client *k = arg;

    k->resized = true;
    mark_all(k);
    vnc_damaged(k);
}

static void on_cursor(void *arg)
{
    struct vnc_client *k = arg;

    k->cursor_changed = true;
    vnc_damaged(k);
}

/* --- messages: each has its length in bytes before it is looked at -------------------------------- */

static unsigned get16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}

/* 0, or why the client is dropped. */
typedef const char *handle_fn(struct vnc_client *k, const uint8_t *p);

static const char *set_format(struct vnc_client *k, const uint8_t *p)
{
    struct vnc_format f = { .bits = p[4],
                            .depth = p[5],
                            .big = p[6] != 0,
                            .colour = p[7] != 0,
                            .r_max = (uint16_t)get16(p + 8),
                            .g_max = (uint16_t)get16(p + 10),
                            .b_max = (uint16_t)get16(p + 12),
                            .r_shift = p[14],
                            .g_shift = p[15],
                            .b_shift = p[16] };

    if (!vnc_format_derive(&f)) {
        return "a pixel format that is none, or has colour maps";
    }
    k->format = f;
    return NULL;
}

static const char *set_encodings(struct vnc_client *k, const uint8_t *p)
{
    unsigned n = get16(p + 2);
    bool ext_size = k->ext_size;

    k->encoding = VNC_RAW;
    k->cursor = k->size = k->ext_size = k->ext_key = false;
    for (unsigned i = n; i > 0; i--) { /* the first one that we know wins */
        int32_t e = (int32_t)get32(p + 4 * i);

        if (e == VNC_RAW || e == VNC_ZLIB || e == VNC_TIGHT || e == VNC_ZRLE) {
            k->encoding = e;
        }
        k->cursor |= e == VNC_CURSOR;
        k->size |= e == VNC_DESKTOP_SIZE;
        k->ext_size |= e == VNC_EXT_DESKTOP_SIZE;
        k->ext_key |= e == VNC_EXT_KEY;
    }
    k->cursor_changed = k->cursor && display_cursor(vnc_display(k))->visible;
    k->resized |= k->ext_size && !ext_size; /* tells that sizes may be asked for */
    return NULL;
}

static const char *request(struct vnc_client *k, const uint8_t *p)
{
    struct display_rect r = { get16(p + 2), get16(p + 4), get16(p + 6), get16(p + 8) };

    if (!p[1] &&
        display_clip(&r, display_width(vnc_display(k)), display_height(vnc_display(k)))) {
        display_refresh(vnc_display(k));
        vnc_mark(k, &r);
    }
    k->wanted = true;
    return NULL;
}

static void key_by_symbol(struct vnc_client *k, uint32_t sym, bool down)
{
    bool shift, held = is_down(k, SHIFT_L) || is_down(k, SHIFT_R);
    const struct key *which = key_by_sym(sym, &shift);

    if (!which) {
        return;
    }
    if (down && shift && !held) {
        key(k, SHIFT_L, true);
        k->shifted = which->code;
    }
    key(k, which->code, down);
    if (!down && k->shifted == which->code) {
        key(k, SHIFT_L, false);
        k->shifted = 0;
    }
}

static const char *key_event(struct vnc_client *k, const uint8_t *p)
{
    key_by_symbol(k, get32(p + 4), p[1] != 0);
    return NULL;
}

static const char *ext_key_event(struct vnc_client *k, const uint8_t *p)
{
    const struct key *which = key_by_scan(get32(p + 8));

    if (p[1] != 0) {
        return "a message that was not agreed";
    }
    if (which) {
        key(k, which->code, get16(p + 2) != 0);
    } else {
        key_by_symbol(k, get32(p + 4), get16(p + 2) != 0);
    }
    return NULL;
}

static uint32_t place(unsigned at, uint32_t size)
{
    uint32_t last = size > 1 ? size - 1 : 1;

    return (uint32_t)((uint64_t)(at < last ? at : last) * INPUT_ABS_MAX / last);
}

static const char *pointer_event(struct vnc_client *k, const uint8_t *p)
{
    struct display *d = vnc_display(k);

    screen_pointer(k->owner->screen, place(get16(p + 2), display_width(d)),
                   place(get16(p + 4), display_height(d)), p[1]);
    return NULL;
}

static const char *set_size(struct vnc_client *k, const uint8_t *p)
{
    bool one = p[6] == 1;

    k->size_reason = REASON_CLIENT;
    k->size_status = !one ? STATUS_INVALID
                     : display_ask_size(vnc_display(k), get16(p + 2), get16(p + 4))
                         ? STATUS_FORWARDED
                         : STATUS_PROHIBITED;
    k->resized = k->ext_size;
    return NULL;
}

static const char *cut_text(struct vnc_client *k, const uint8_t *p)
{
    (void)k, (void)p; /* the guest has no clipboard that could take it */
    return NULL;
}

static const struct {
    uint8_t type, fixed;                /* bytes */
    uint8_t count_at, count_size, each; /* more of them: a number there says how many */
    uint32_t max;
    handle_fn *handle;
} messages[] = {
    { 0, 20, 0, 0, 0, 0, set_format },
    { 2, 4, 2, 2, 4, MAX_ENCODINGS, set_encodings },
    { 3, 10, 0, 0, 0, 0, request },
    { 4, 8, 0, 0, 0, 0, key_event },
    { 5, 6, 0, 0, 0, 0, pointer_event },
    { 6, 8, 4, 4, 1, MAX_CUT_TEXT, cut_text },
    { 251, 8, 6, 1, 16, MAX_SCREENS, set_size },
    { 255, 12, 0, 0, 0, 0, ext_key_event },
};

/* Length of the message that begins at p; 0: not yet known; SIZE_MAX: none of ours, or too long. */
static size_t message_length(const uint8_t *p, size_t n, unsigned *which)
{
    uint32_t count;

    for (unsigned i = 0; i < ARRAY_LEN(messages); i++) {
        if (messages[i].type != p[0]) {
            continue;
        }
        *which = i;
        if (n < messages[i].fixed) {
            return 0;
        }
        p += messages[i].count_at;
        count = messages[i].count_size == 0   ? 0
                : messages[i].count_size == 1 ? *p
                : messages[i].count_size == 2 ? get16(p)
                                              : get32(p);
        return count > messages[i].max ? SIZE_MAX
                                       : messages[i].fixed + count * messages[i].each;
    }
    return SIZE_MAX;
}

/* --- the beginning ---------------------------------------------------------------------------- */

static void say_init(struct vnc_client *k)
{
    struct display *d = vnc_display(k);
    size_t n = strlen(k->owner->name);

    vnc_put16(&k->out, display_width(d));
    vnc_put16(&k->out, display_height(d));
    buf_add(&k->out, "\x20\x18\0\1\0\xff\0\xff\0\xff\x10\x08\0\0\0\0", 16);
    vnc_put32(&k->out, (uint32_t)n);
    buf_add(&k->out, k->owner->name, n);
}

/* Bytes that the state takes from p, 0: there are too few; or why the client is dropped. */
static size_t begin(struct vnc_client *k, const uint8_t *p, size_t n, const char **why)
{
    unsigned minor = 0;

    switch (k->state) {
    case S_VERSION:
        if (n < 12) {
            return 0;
        }
        if (sscanf((const char *)p, "RFB 003.%3u\n", &minor) != 1) {
            *why = "it does not speak RFB 3";
        }
        k->state = minor < 7 ? S_INIT : S_SECURITY;
        if (minor < 7) {
            vnc_put32(&k->out, SEC_NONE);
        } else {
            buf_add(&k->out, "\1\1", 2);
            k->level = minor; /* for the next state */
        }
        return 12;
    case S_SECURITY:
        if (p[0] != SEC_NONE) {
            *why = "it asks for a kind of security that was not offered";
        } else if (k->level >= 8) {
            vnc_put32(&k->out, 0);
        }
        k->state = S_INIT;
        return 1;
    default: /* S_INIT: the screen is shared whatever it says */
        say_init(k);
        k->state = S_RUNNING;
        k->running = true;
        screen_viewed(k->owner->screen, "initialized");
        k->level = 2;
        mark_all(k);
        loop_timer_disarm(k->timer);
        return 1;
    }
}

/* Looks at what has come; false when the client is gone. */
static bool digest(struct vnc_client *k)
{
    const uint8_t *p = (const uint8_t *)k->in.data;
    size_t at = 0, n = k->in.len, used = 1;
    const char *why = NULL;

    while (at < n && used > 0 && !why) {
        unsigned which = 0;

        if (k->state != S_RUNNING) {
            used = begin(k, p + at, n - at, &why);
            at += used;
            continue;
        }
        used = message_length(p + at, n - at, &which);
        if (used == SIZE_MAX) {
            why = "a message that is none, or too long";
        } else if (used == 0 || used > n - at) {
            break;
        } else {
            why = messages[which].handle(k, p + at);
            at += used;
        }
    }
    if (why) {
        vnc_drop(k, why);
        return false;
    }
    buf_consume(&k->in, at);
    if (!vnc_flush(k)) {
        return false;
    }
    if (k->state == S_RUNNING) {
        vnc_update(k);
    }
    return true;
}

static void on_client(void *arg, int fd, unsigned events)
{
    struct vnc_client *k = arg;
    char bytes[READ_MAX];
    ssize_t n;

    if (events & LOOP_WRITE) {
        if (!vnc_flush(k)) {
            return;
        }
        if (k->state == S_RUNNING && !(events & LOOP_READ)) {
            vnc_update(k);
            return;
        }
    }
    if (!(events & LOOP_READ)) {
        return;
    }
    n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
        client_free(k);
    } else if (n > 0) {
        buf_add(&k->in, bytes, (size_t)n);
        (void)digest(k);
    }
}

/* --- coming in -------------------------------------------------------------------------------- */

static void on_connect(void *arg, int fd, unsigned events)
{
    struct vnc *v = arg;
    struct vnc_client *k;
    int s = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)events;
    if (s < 0) {
        return;
    }
    if (v->n_clients >= MAX_CLIENTS) {
        log_warn("emu", "VNC: more than %d clients, one is turned away", MAX_CLIENTS);
        close(s);
        return;
    }
    k = xnew(struct vnc_client);
    k->owner = v;
    k->fd = s;
    k->format = (struct vnc_format){ .bits = 32,
                                     .depth = 24,
                                     .colour = 1,
                                     .r_max = 255,
                                     .g_max = 255,
                                     .b_max = 255,
                                     .r_shift = 16,
                                     .g_shift = 8 };
    (void)vnc_format_derive(&k->format);
    k->viewer = (struct display_viewer){
        .damaged = on_damage, .resized = on_resize, .cursor = on_cursor, .arg = k
    };
    display_attach(screen_display(v->screen), &k->viewer);
    list_append(&v->clients, &k->node);
    v->n_clients++;
    k->watch = loop_fd_new(v->loop, s, LOOP_READ, on_client, k);
    vnc_update_init(k);
    screen_viewed(v->screen, "connected");
    buf_add_str(&k->out, "RFB 003.008\n");
    (void)vnc_flush(k);
}

int vnc_new(struct loop *l, struct emu_screen *s, const char *name, int take_fd,
            struct vnc **out, struct err *e)
{
    struct vnc *v;
    int rc = fd_set_nonblock(take_fd, true, e);

    if (rc == 0 && listen(take_fd, MAX_CLIENTS) != 0) {
        rc = err_errno(e, errno, "VNC socket: listen");
    }
    if (rc != 0) {
        close(take_fd);
        return rc;
    }
    v = xnew(struct vnc);
    v->loop = l;
    v->screen = s;
    v->name = name;
    v->fd = take_fd;
    list_init(&v->clients);
    v->listener = loop_fd_new(l, take_fd, LOOP_READ, on_connect, v);
    *out = v;
    return 0;
}

unsigned vnc_clients(const struct vnc *v)
{
    return v ? v->n_clients : 0;
}

void vnc_free(struct vnc *v)
{
    if (!v) {
        return;
    }
    list_for_each_safe (it, &v->clients) {
        client_free(list_entry(it, struct vnc_client, node));
    }
    loop_fd_free(v->listener);
    close(v->fd);
    free(v);
}
