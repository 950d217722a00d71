/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Screen and input of the VM: control methods for pictures, keys and texts, and the way of an event from a client to the
 * guest. Reports wait in a line of their own until the guest's driver has room, so that a text is typed as fast as the guest reads
 * it and no faster. Owns struct emu_screen. Main thread.
 */
#include "engine/emu/screen.h"

#include "api-schema/gen/methods.h"
#include "api-schema/rpc/call.h"
#include "devices/display/display.h"
#include "devices/display/png.h"
#include "devices/input/keys.h"
#include "devices/input/input.h"
#include "engine/base/base64.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/emu/emu.h"
#include "engine/emu/vnc.h"

#include <errno.h>
#include <string.h>

#define PICTURES 4
#define PIECE (510u << 10) /* of a file in an answer */
#define STEPS_MAX 20000
#define STEPS_REPORT 4
#define TURN_NS                                                                                \
    INT64_C(4000000) /* between reports, and until a full queue is looked at again */
#define GIVE_UP 500  /* turns without room: the guest does not read */
#define BUTTONS 9

struct report {
    enum board_input device;
    unsigned n;
    struct input_step step[STEPS_REPORT];
    uint32_t hold_ms; /* before the next one */
};

struct picture {
    int64_t id; /* 0: none */
    uint32_t width, height;
    struct buf file;
};

struct emu_screen {
    struct emu *m;
    struct display *display;
    struct vnc *vnc;
    struct loop_timer *timer;
    bool armed;
    struct report *line; /* ring of STEPS_MAX */
    unsigned first, n, stuck;
    struct picture picture[PICTURES];
    int64_t last_picture;
    uint32_t x, y;
    unsigned buttons;
};

struct display *screen_display(struct emu_screen *s)
{
    return s->display;
}

/* --- reports ---------------------------------------------------------------------------------- */

static struct device *device_of(struct emu_screen *s, enum board_input kind)
{
    const struct board_class *c = s->m->board_class;

    return s->m->board && c->input ? c->input(s->m->board, kind) : NULL;
}

static void arm(struct emu_screen *s, int64_t ns)
{
    s->armed = true;
    loop_timer_arm(s->timer, ns);
}

static void drop_first(struct emu_screen *s)
{
    s->first = (s->first + 1) % STEPS_MAX;
    s->n--;
    s->stuck = 0;
}

/* Gives the guest what it has room for. */
static void on_turn(void *arg)
{
    struct emu_screen *s = arg;

    s->armed = false;
    while (s->n > 0) {
        struct report *r = &s->line[s->first];
        struct device *d = device_of(s, r->device);
        struct err e = ERR_INIT;
        int rc = d ? input_send(d, r->step, r->n, &e) : -ENODEV;
        uint32_t hold = r->hold_ms;

        if (rc == -ENOSPC && s->m->vm->state != VM_RUNNING) {
            arm(s, TURN_NS * 10);
            return;
        }
        if (rc == -ENOSPC && ++s->stuck < GIVE_UP) {
            arm(s, TURN_NS);
            return;
        }
        if (rc == -ENOSPC) { /* all of it */
            log_debug("emu", "input: %s", e.msg);
            s->n = 0;
            s->stuck = 0;
            return;
        }
        drop_first(s);
        if (hold > 0) {
            arm(s, (int64_t)hold * 1000000);
            return;
        }
    }
}

static bool add(struct emu_screen *s, const struct report *r)
{
    if (s->n >= STEPS_MAX) {
        return false;
    }
    s->line[(s->first + s->n++) % STEPS_MAX] = *r;
    if (!s->armed) {
        on_turn(s);
    }
    return true;
}

static struct report key_report(uint16_t code, bool down, uint32_t hold_ms)
{
    bool button = code >= INPUT_BTN_LEFT && code <= INPUT_BTN_EXTRA;

    return (struct report){ .device = button ? BOARD_TABLET : BOARD_KEYBOARD,
                            .n = 1,
                            .step = { { INPUT_EV_KEY, code, down } },
                            .hold_ms = hold_ms };
}

void screen_key(struct emu_screen *s, uint16_t code, bool down)
{
    const struct report r = key_report(code, down, 0);

    (void)add(s, &r);
}

void screen_pointer(struct emu_screen *s, uint32_t x, uint32_t y, unsigned buttons)
{
    static const struct {
        uint16_t code;
        int8_t rel, step; /* a wheel */
    } by_bit[BUTTONS] = { { INPUT_BTN_LEFT, -1, 0 },  { INPUT_BTN_MIDDLE, -1, 0 },
                          { INPUT_BTN_RIGHT, -1, 0 }, { 0, INPUT_REL_WHEEL, 1 },
                          { 0, INPUT_REL_WHEEL, -1 }, { 0, INPUT_REL_HWHEEL, -1 },
                          { 0, INPUT_REL_HWHEEL, 1 }, { INPUT_BTN_SIDE, -1, 0 },
                          { INPUT_BTN_EXTRA, -1, 0 } };
    unsigned changed = s->buttons ^ buttons;

    if (x != s->x || y != s->y) {
        const struct report r = { .device = BOARD_TABLET,
                                  .n = 2,
                                  .step = { { INPUT_EV_ABS, INPUT_ABS_X, (int32_t)x },
                                            { INPUT_EV_ABS, INPUT_ABS_Y, (int32_t)y } } };
        (void)add(s, &r);
    }
    for (unsigned i = 0; i < BUTTONS; i++) {
        bool down = buttons >> i & 1;
        struct report r = key_report(by_bit[i].code, down, 0);

        if (by_bit[i].rel >= 0) {
            r.device = BOARD_TABLET;
            r.step[0] = (struct input_step){ INPUT_EV_REL, (uint16_t)by_bit[i].rel,
                                             by_bit[i].step };
        }
        if ((changed >> i & 1) && (by_bit[i].rel < 0 || down)) {
            (void)add(s, &r);
        }
    }
    s->x = x;
    s->y = y;
    s->buttons = buttons;
}

/* --- control methods -------------------------------------------------------------------------- */

/* Answers for the call where there is no screen; with `input`: or nothing that can be typed at. */
static struct emu_screen *screen_of(struct api_call *call, bool input)
{
    struct emu *m = control_emu(call);

    if (!m->screen) {
        api_fail(call, API_E_UNSUPPORTED, m->vm->name,
                 "give it one: 'vmctl set VM --display virtio', then start it anew",
                 "the VM has no screen");
        return NULL;
    }
    if (input && !device_of(m->screen, BOARD_KEYBOARD)) {
        api_fail(call, API_E_UNSUPPORTED, m->vm->name, "set display.input, then start it anew",
                 "the VM has no keyboard");
        return NULL;
    }
    return m->screen;
}

static bool has_room(struct api_call *call, const struct emu_screen *s, unsigned reports)
{
    if (s->n + reports <= STEPS_MAX) {
        return true;
    }
    api_fail(call, API_E_HOST_LIMIT, s->m->vm->name, "wait until it has been typed",
             "the guest has not yet read what was typed before");
    return false;
}

static struct picture *take_picture(struct emu_screen *s, bool ppm)
{
    struct picture *p = &s->picture[s->last_picture % PICTURES];
    struct err e = ERR_INIT;

    buf_done(&p->file);
    display_refresh(s->display);
    p->width = display_width(s->display);
    p->height = display_height(s->display);
    p->id = ++s->last_picture;
    if (ppm) {
        ppm_write(&p->file, display_pixels(s->display), p->width, p->height);
    } else if (png_write(&p->file, display_pixels(s->display), p->width, p->height, &e) != 0) {
        p->id = 0;
        return NULL;
    }
    return p;
}

static struct picture *picture_find(struct emu_screen *s, int64_t id)
{
    for (unsigned i = 0; i < PICTURES; i++) {
        if (s->picture[i].id == id) {
            return &s->picture[i];
        }
    }
    return NULL;
}

void api_handle_emu_screenshot(struct api_call *call, struct api_emu_screenshot_in *in)
{
    struct emu_screen *s = screen_of(call, false);
    struct picture *p;
    AUTO_BUF text = BUF_INIT;

    if (!s) {
        return;
    }
    p = in->picture == 0 ? take_picture(s, in->format == API_PICTURE_FORMAT_PPM)
                         : picture_find(s, in->picture);
    if (!p || (size_t)in->after > p->file.len) {
        api_fail(call, p || in->picture ? API_E_NOT_FOUND : API_E_HOST_LIMIT, s->m->vm->name,
                 "take another one", "there is no such picture, or no such piece of it");
        return;
    }
    size_t at = (size_t)in->after, n = p->file.len - at < PIECE ? p->file.len - at : PIECE;
    base64_add(&text, p->file.data + at, n);
    struct api_emu_screenshot_out out = { .picture = p->id,
                                          .width = p->width,
                                          .height = p->height,
                                          .size = (int64_t)p->file.len,
                                          .data = text.data,
                                          .next = (int64_t)(at + n),
                                          .has_next = at + n < p->file.len };
    api_reply_emu_screenshot(call, &out);
    if (!out.has_next) {
        buf_done(&p->file);
        p->id = 0;
    }
}

void screen_viewed(struct emu_screen *s, const char *what)
{
    control_event(s->m, "vnc", what);
}

void api_handle_emu_vnc(struct api_call *call, struct api_emu_vnc_in *in)
{
    const struct emu_screen *s = screen_of(call, false);

    (void)in;
    if (s) {
        struct api_emu_vnc_out out = { .clients = vnc_clients(s->vnc) };
        api_reply_emu_vnc(call, &out);
    }
}

/* A name of QMP's, or # and a scan code; NULL: no such key. */
static const struct key *key_of(const char *name)
{
    uint64_t scan;

    if (name[0] != '#') {
        return key_by_name(name);
    }
    return str_to_u64(name + 1, 1, 0xffff, "scan code", &scan, NULL) == 0
               ? key_by_scan((uint32_t)scan)
               : NULL;
}

static const struct key *named_key(struct api_call *call, const char *name)
{
    const struct key *k = key_of(name);

    if (!k) {
        api_fail(call, API_E_INVALID_PARAMS, name,
                 "names are QMP's: ctrl, alt, a, f1, ret, spc", "there is no key '%s'", name);
    }
    return k;
}

void api_handle_emu_send_key(struct api_call *call, struct api_emu_send_key_in *in)
{
    struct emu_screen *s = screen_of(call, true);
    const struct key *key[16];

    if (!s || !has_room(call, s, 2 * (unsigned)in->n_keys)) {
        return;
    }
    for (size_t i = 0; i < in->n_keys; i++) {
        key[i] = named_key(call, in->keys[i]);
        if (!key[i]) {
            return;
        }
    }
    for (size_t i = 0; i < in->n_keys; i++) {
        const struct report r = key_report(key[i]->code, true,
                                           i + 1 == in->n_keys ? (uint32_t)in->hold_ms : 0);
        (void)add(s, &r);
    }
    for (size_t i = in->n_keys; i > 0; i--) {
        const struct report r = key_report(key[i - 1]->code, false, 0);
        (void)add(s, &r);
    }
    api_reply_emu_send_key(call);
}

/* The key of a character; NULL: none has it. */
static const struct key *char_key(char c, bool *shift)
{
    *shift = false;
    return c == '\n' || c == '\r' ? key_by_name("ret")
           : c == '\t'            ? key_by_name("tab")
           : (unsigned char)c >= 32 && (unsigned char)c < 127
               ? key_by_sym((unsigned char)c, shift)
               : NULL;
}

void api_handle_emu_type_text(struct api_call *call, struct api_emu_type_text_in *in)
{
    struct emu_screen *s = screen_of(call, true);
    bool shift;

    if (!s || !has_room(call, s, 4 * (unsigned)strlen(in->text))) {
        return;
    }
    for (const char *p = in->text; *p; p++) {
        if (!char_key(*p, &shift)) {
            api_fail(call, API_E_INVALID_PARAMS, "text", "use send_key for other keys",
                     "no key of a US keyboard types byte 0x%02x", (unsigned char)*p);
            return;
        }
    }
    for (const char *p = in->text; *p; p++) {
        const struct key *k = char_key(*p, &shift);
        const struct report r[4] = { key_report(KEYS_LEFT_SHIFT, true, 0),
                                     key_report(k->code, true, 0),
                                     key_report(k->code, false, 0),
                                     key_report(KEYS_LEFT_SHIFT, false, 0) };
        for (unsigned i = shift ? 0 : 1; i < (shift ? 4 : 3); i++) {
            (void)add(s, &r[i]);
        }
    }
    api_reply_emu_type_text(call);
}

static const struct {
    const char *name;
    uint16_t type, code;
} pointer_parts[] = {
    { "left", INPUT_EV_KEY, INPUT_BTN_LEFT },     { "right", INPUT_EV_KEY, INPUT_BTN_RIGHT },
    { "middle", INPUT_EV_KEY, INPUT_BTN_MIDDLE }, { "side", INPUT_EV_KEY, INPUT_BTN_SIDE },
    { "extra", INPUT_EV_KEY, INPUT_BTN_EXTRA },   { "x", INPUT_EV_ABS, INPUT_ABS_X },
    { "y", INPUT_EV_ABS, INPUT_ABS_Y },           { "wheel", INPUT_EV_REL, INPUT_REL_WHEEL },
    { "hwheel", INPUT_EV_REL, INPUT_REL_HWHEEL },
};

/* The number of a key or, with btn- before its name, of a button; 0: there is none. */
static uint16_t key_code(const char *name)
{
    const struct key *k = key_of(name);

    for (unsigned i = 0; i < ARRAY_LEN(pointer_parts) && strncmp(name, "btn-", 4) == 0; i++) {
        if (pointer_parts[i].type == INPUT_EV_KEY &&
            strcmp(name + 4, pointer_parts[i].name) == 0) {
            return pointer_parts[i].code;
        }
    }
    return k ? k->code : 0;
}

static unsigned axis_report(const char *name, int64_t value, struct report *out)
{
    for (unsigned i = 0; i < ARRAY_LEN(pointer_parts); i++) {
        uint16_t type = pointer_parts[i].type;

        if (type != INPUT_EV_KEY && strcmp(name, pointer_parts[i].name) == 0) {
            *out = (struct report){ .device = BOARD_TABLET,
                                    .n = 1,
                                    .step = {
                                        { type, pointer_parts[i].code, (int32_t)value } } };
            return type == INPUT_EV_REL || value >= 0;
        }
    }
    return 0;
}

/* What an event means: 1 or 2 reports; 0: nothing. */
static unsigned event_reports(const struct api_input_event *ev, struct report out[2])
{
    uint16_t code = ev->key ? key_code(ev->key) : 0;

    if (!ev->key != !code || !ev->key == !ev->axis) {
        return 0;
    }
    if (ev->axis) {
        return axis_report(ev->axis, ev->value, out);
    }
    out[0] = key_report(code, ev->action != API_INPUT_ACTION_UP, 0);
    out[1] = key_report(code, false, 0);
    return ev->action == API_INPUT_ACTION_PRESS ? 2 : 1;
}

void api_handle_emu_input(struct api_call *call, struct api_emu_input_in *in)
{
    struct emu_screen *s = screen_of(call, true);
    struct report r[64][2];
    unsigned n[64];

    if (!s || !has_room(call, s, 2 * (unsigned)in->n_events)) {
        return;
    }
    for (size_t i = 0; i < in->n_events; i++) {
        n[i] = event_reports(&in->events[i], r[i]);
        if (n[i] == 0) {
            const char *what = in->events[i].key    ? in->events[i].key
                               : in->events[i].axis ? in->events[i].axis
                                                    : "";
            api_fail(call, API_E_INVALID_PARAMS, what, "see the documentation of InputEvent",
                     "event %zu: there is no key or axis '%s', or no such value", i, what);
            return;
        }
    }
    for (size_t i = 0; i < in->n_events; i++) {
        for (unsigned k = 0; k < n[i]; k++) {
            (void)add(s, &r[i][k]);
        }
    }
    api_reply_emu_input(call);
}

/* --- life ------------------------------------------------------------------------------------- */

void screen_new(struct emu *m, struct board_config *b)
{
    static const enum board_gpu gpus[] = {
        [API_DISPLAY_DEVICE_VIRTIO] = BOARD_GPU_VIRTIO_PCI,
        [API_DISPLAY_DEVICE_VIRTIO_MMIO] = BOARD_GPU_VIRTIO_MMIO,
        [API_DISPLAY_DEVICE_BOCHS] = BOARD_GPU_BOCHS,
        [API_DISPLAY_DEVICE_VGA] = BOARD_GPU_VGA
    };
    const struct api_display *c = m->config.display;
    struct emu_screen *s;

    if (!c) {
        return;
    }
    s = xnew(struct emu_screen);
    s->m = m;
    s->display = display_new((uint32_t)c->width, (uint32_t)c->height);
    s->timer = loop_timer_new(m->loop, on_turn, s);
    s->line = xnew_n(struct report, STEPS_MAX);
    m->screen = s;
    b->screen = (struct board_screen){ .gpu = gpus[c->device],
                                       .display = s->display,
                                       .width = (unsigned)c->width,
                                       .height = (unsigned)c->height,
                                       .input = c->input };
}

int screen_listen(struct emu *m, int take_fd, struct err *e)
{
    return vnc_new(m->loop, m->screen, m->config.name, take_fd, &m->screen->vnc, e);
}

void screen_free(struct emu *m)
{
    struct emu_screen *s = take_ptr(m->screen);

    if (!s) {
        return;
    }
    vnc_free(s->vnc);
    loop_timer_free(s->timer);
    display_free(s->display);
    for (unsigned i = 0; i < PICTURES; i++) {
        buf_done(&s->picture[i].file);
    }
    free(s->line);
    free(s);
}
