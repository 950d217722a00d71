/* SPDX-License-Identifier: Apache-2.0 */
/*
 * USB keyboard, mouse and tablet (Device Class Definition for HID 1.11, HID Usage Tables). What each is stands in a row of `kinds`: its
 * descriptors, and how a step of input becomes a report. Owns the reports that the guest has not read yet. The host controller's
 * lock covers all.
 */
#include "devices/usb/hid.h"

#include "devices/registry.h"
#include "devices/usb/usb.h"
#include "engine/base/mem.h"
#include "engine/core/vm.h"

#include <errno.h>
#include <string.h>

#define REPORTS 64
#define REPORT_SIZE 8
#define KEYS_DOWN 6
enum { EP_REPORT = 0x81 };
enum {
    GET_REPORT = 1,
    GET_IDLE = 2,
    GET_PROTOCOL = 3,
    SET_REPORT = 9,
    SET_IDLE = 10,
    SET_PROTOCOL = 11
};
enum { USAGE_ROLL_OVER = 1, USAGE_LEFT_CTRL = 0xe0 };

/* A pointer's report as it waits; what a mouse sends of it is less at a time. */
struct pointer {
    uint8_t buttons;
    int16_t x, y;
    int8_t wheel, pan;
};

struct usb_hid {
    struct usb_dev u;
    uint8_t
        report[REPORTS *
               REPORT_SIZE]; /* oldest first: as sent; of a mouse: buttons, x, y, wheel, pan */
    uint32_t n_reports;
    uint8_t now[REPORT_SIZE]; /* the last report: what is held */
    uint8_t idle, protocol, lights;
};

/* --- descriptors --- */

#define HID_INTERFACE(subclass, protocol, size)                                                \
    {                                                                                          \
        9, USB_DT_INTERFACE, 0, 0, 1, 3, (subclass), (protocol), 0, /* HID */                  \
            9, USB_DT_HID, 0x11, 1, 0, 1, USB_DT_HID_REPORT, (size)&0xff,                      \
            (size) >> 8,                                        /* 1.11 */                     \
            7, USB_DT_ENDPOINT, EP_REPORT, 3, REPORT_SIZE, 0, 4 /* each millisecond */         \
    }

/* Modifiers as bits, a byte of nothing, six keys; five lights back. */
static const uint8_t keyboard_reports[] = {
    0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, 0x05, 0x07, 0x19, 0xe0, 0x29, 0xe7, 0x15,
    0x00, 0x25, 0x01, 0x75, 0x01, 0x95, 0x08, 0x81, 0x02, 0x75, 0x08, 0x95, 0x01,
    0x81, 0x01, 0x05, 0x08, 0x19, 0x01, 0x29, 0x05, 0x75, 0x01, 0x95, 0x05, 0x91,
    0x02, 0x75, 0x03, 0x95, 0x01, 0x91, 0x01, 0x05, 0x07, 0x19, 0x00, 0x2a, 0xff,
    0x00, 0x15, 0x00, 0x26, 0xff, 0x00, 0x75, 0x08, 0x95, 0x06, 0x81, 0x00, 0xc0
};
/* Five buttons, then x and y, then both wheels. */
#define POINTER(size, low0, low1, high0, high1, flags)                                         \
    {                                                                                          \
        0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xa1, 0x00, 0x05, 0x09, 0x19, 0x01,    \
            0x29, 0x05, 0x15, 0x00, 0x25, 0x01, 0x75, 0x01, 0x95, 0x05, 0x81, 0x02, 0x75,      \
            0x03, 0x95, 0x01, 0x81, 0x01, 0x05, 0x01, 0x09, 0x30, 0x09, 0x31, 0x16, (low0),    \
            (low1), 0x26, (high0), (high1), 0x75, (size), 0x95, 0x02, 0x81, (flags), 0x09,     \
            0x38, 0x15, 0x81, 0x25, 0x7f, 0x75, 0x08, 0x95, 0x01, 0x81, 0x06, 0x05, 0x0c,      \
            0x0a, 0x38, 0x02, 0x81, 0x06, 0xc0, 0xc0                                           \
    }
static const uint8_t mouse_reports[] = POINTER(8, 0x81, 0xff, 0x7f, 0x00, 0x06);
static const uint8_t tablet_reports[] = POINTER(16, 0x00, 0x00, 0xff, 0x7f, 0x02);

static const uint8_t keyboard_interface[] = HID_INTERFACE(1, 1, sizeof(keyboard_reports));
static const uint8_t mouse_interface[] = HID_INTERFACE(1, 2, sizeof(mouse_reports));
static const uint8_t tablet_interface[] = HID_INTERFACE(0, 0, sizeof(tablet_reports));

/* --- keys --- */

/* HID usages by the guest's key codes (input.h), 0: none; the modifiers are 0xe0 to 0xe7. */
static const uint8_t usages[] = {
    [1] = 0x29,   [2] = 0x1e,   [3] = 0x1f,   [4] = 0x20,   [5] = 0x21,   [6] = 0x22,
    [7] = 0x23,   [8] = 0x24,   [9] = 0x25,   [10] = 0x26,  [11] = 0x27,  [12] = 0x2d,
    [13] = 0x2e,  [14] = 0x2a,  [15] = 0x2b,  [16] = 0x14,  [17] = 0x1a,  [18] = 0x08,
    [19] = 0x15,  [20] = 0x17,  [21] = 0x1c,  [22] = 0x18,  [23] = 0x0c,  [24] = 0x12,
    [25] = 0x13,  [26] = 0x2f,  [27] = 0x30,  [28] = 0x28,  [29] = 0xe0,  [30] = 0x04,
    [31] = 0x16,  [32] = 0x07,  [33] = 0x09,  [34] = 0x0a,  [35] = 0x0b,  [36] = 0x0d,
    [37] = 0x0e,  [38] = 0x0f,  [39] = 0x33,  [40] = 0x34,  [41] = 0x35,  [42] = 0xe1,
    [43] = 0x31,  [44] = 0x1d,  [45] = 0x1b,  [46] = 0x06,  [47] = 0x19,  [48] = 0x05,
    [49] = 0x11,  [50] = 0x10,  [51] = 0x36,  [52] = 0x37,  [53] = 0x38,  [54] = 0xe5,
    [55] = 0x55,  [56] = 0xe2,  [57] = 0x2c,  [58] = 0x39,  [59] = 0x3a,  [60] = 0x3b,
    [61] = 0x3c,  [62] = 0x3d,  [63] = 0x3e,  [64] = 0x3f,  [65] = 0x40,  [66] = 0x41,
    [67] = 0x42,  [68] = 0x43,  [69] = 0x53,  [70] = 0x47,  [71] = 0x5f,  [72] = 0x60,
    [73] = 0x61,  [74] = 0x56,  [75] = 0x5c,  [76] = 0x5d,  [77] = 0x5e,  [78] = 0x57,
    [79] = 0x59,  [80] = 0x5a,  [81] = 0x5b,  [82] = 0x62,  [83] = 0x63,  [86] = 0x64,
    [87] = 0x44,  [88] = 0x45,  [89] = 0x87,  [92] = 0x8a,  [93] = 0x88,  [94] = 0x8b,
    [95] = 0x8c,  [96] = 0x58,  [97] = 0xe4,  [98] = 0x54,  [99] = 0x46,  [100] = 0xe6,
    [102] = 0x4a, [103] = 0x52, [104] = 0x4b, [105] = 0x50, [106] = 0x4f, [107] = 0x4d,
    [108] = 0x51, [109] = 0x4e, [110] = 0x49, [111] = 0x4c, [113] = 0x7f, [114] = 0x81,
    [115] = 0x80, [116] = 0x66, [117] = 0x67, [119] = 0x48, [121] = 0x85, [122] = 0x90,
    [123] = 0x91, [124] = 0x89, [125] = 0xe3, [126] = 0xe7, [127] = 0x65, [128] = 0x78,
    [129] = 0x79, [130] = 0x76, [131] = 0x7a, [133] = 0x7c, [134] = 0x74, [135] = 0x7d,
    [136] = 0x7e, [137] = 0x7b, [138] = 0x75, [183] = 0x68, [184] = 0x69, [185] = 0x6a,
    [186] = 0x6b, [187] = 0x6c, [188] = 0x6d, [189] = 0x6e, [190] = 0x6f, [191] = 0x70,
    [192] = 0x71, [193] = 0x72, [194] = 0x73,
};

static uint8_t usage_of(uint16_t code)
{
    return code < ARRAY_LEN(usages) ? usages[code] : 0;
}

static bool keyboard_has(const struct input_step *s)
{
    return s->type == INPUT_EV_KEY && usage_of(s->code);
}

static void keyboard_take(struct usb_hid *h, const struct input_step *s)
{
    uint8_t usage = usage_of(s->code), *keys = h->now + 2;

    if (usage >= USAGE_LEFT_CTRL) {
        uint8_t bit = (uint8_t)(1u << (usage - USAGE_LEFT_CTRL));

        h->now[0] = s->value ? h->now[0] | bit : h->now[0] & (uint8_t)~bit;
        return;
    }
    for (unsigned i = 0; i < KEYS_DOWN; i++) {
        if (keys[i] == usage) {
            memmove(keys + i, keys + i + 1, KEYS_DOWN - 1 - i);
            keys[KEYS_DOWN - 1] = 0;
            i--;
        }
    }
    for (unsigned i = 0; s->value && i < KEYS_DOWN; i++) {
        if (keys[i] == 0) { /* the seventh at once is not told of */
            keys[i] = usage;
            return;
        }
    }
}

/* --- pointers --- */

static struct pointer pointer_get(const uint8_t *r)
{
    return (struct pointer){ r[0], (int16_t)(r[1] | r[2] << 8), (int16_t)(r[3] | r[4] << 8),
                             (int8_t)r[5], (int8_t)r[6] };
}

static void pointer_put(uint8_t *r, struct pointer p)
{
    const uint8_t raw[REPORT_SIZE] = { p.buttons,
                                       (uint8_t)p.x,
                                       (uint8_t)((uint16_t)p.x >> 8),
                                       (uint8_t)p.y,
                                       (uint8_t)((uint16_t)p.y >> 8),
                                       (uint8_t)p.wheel,
                                       (uint8_t)p.pan };

    memcpy(r, raw, sizeof(raw));
}

static int32_t clamp(int32_t v, int32_t most)
{
    return v > most ? most : v < -most ? -most : v;
}

static bool is_button(const struct input_step *s)
{
    return s->type == INPUT_EV_KEY && s->code >= INPUT_BTN_LEFT && s->code <= INPUT_BTN_EXTRA;
}

static bool is_wheel(const struct input_step *s)
{
    return s->type == INPUT_EV_REL &&
           (s->code == INPUT_REL_WHEEL || s->code == INPUT_REL_HWHEEL);
}

static bool mouse_has(const struct input_step *s)
{
    return is_button(s) || is_wheel(s) ||
           (s->type == INPUT_EV_REL && (s->code == INPUT_REL_X || s->code == INPUT_REL_Y));
}

static bool tablet_has(const struct input_step *s)
{
    return is_button(s) || is_wheel(s) ||
           (s->type == INPUT_EV_ABS && (s->code == INPUT_ABS_X || s->code == INPUT_ABS_Y));
}

static void pointer_take(struct usb_hid *h, const struct input_step *s)
{
    struct pointer p = pointer_get(h->now);

    if (s->type == INPUT_EV_KEY) {
        uint8_t bit = (uint8_t)(1u << (s->code - INPUT_BTN_LEFT));

        p.buttons = s->value ? p.buttons | bit : p.buttons & (uint8_t)~bit;
    } else if (is_wheel(s)) {
        *(s->code == INPUT_REL_WHEEL ? &p.wheel : &p.pan) = (int8_t)clamp(s->value, 127);
    } else {
        *(s->code == 0 ? &p.x : &p.y) = (int16_t)clamp(s->value, INPUT_ABS_MAX);
    }
    pointer_put(h->now, p);
}

/* How far it went is told once, where it is always. */
static void mouse_rest(struct usb_hid *h)
{
    memset(h->now + 1, 0, REPORT_SIZE - 1);
}

static void tablet_rest(struct usb_hid *h)
{
    h->now[5] = h->now[6] = 0;
}

/* A mouse moves at most 127 a report; true: that was all of it. */
static bool mouse_send(uint8_t *waiting, uint8_t *out)
{
    struct pointer p = pointer_get(waiting);
    int32_t x = clamp(p.x, 127), y = clamp(p.y, 127);

    out[0] = p.buttons;
    out[1] = (uint8_t)x;
    out[2] = (uint8_t)y;
    out[3] = (uint8_t)p.wheel;
    out[4] = (uint8_t)p.pan;
    p.x = (int16_t)(p.x - x);
    p.y = (int16_t)(p.y - y);
    p.wheel = p.pan = 0;
    pointer_put(waiting, p);
    return p.x == 0 && p.y == 0;
}

/* --- kinds --- */

static enum usb_result hid_control(struct usb_dev *u, const struct usb_setup *s, uint8_t *data,
                                   unsigned *n);
static enum usb_result hid_data(struct usb_dev *u, uint8_t ep, struct usb_data *d);
static void hid_reset(struct usb_dev *u);

#define KIND_OPS(product_, title_, what)                                                       \
    {                                                                                          \
        .product = (product_), .title = (title_), .interface = what##_interface,               \
        .interface_size = sizeof(what##_interface), .control = hid_control, .data = hid_data,  \
        .bus_reset = hid_reset                                                                 \
    }
static const struct kind {
    struct usb_ops ops;
    const uint8_t *reports;
    uint16_t reports_size;
    uint8_t size; /* bytes of a report */
    bool (*has)(const struct input_step *s);
    void (*take)(struct usb_hid *h, const struct input_step *s);
    void (*rest)(struct usb_hid *h);
    bool (*send)(uint8_t *waiting, uint8_t *out); /* NULL: as it is */
} kinds[] = {
    { KIND_OPS(3, "USB Keyboard", keyboard), keyboard_reports, sizeof(keyboard_reports), 8,
      keyboard_has, keyboard_take, NULL, NULL },
    { KIND_OPS(4, "USB Mouse", mouse), mouse_reports, sizeof(mouse_reports), 5, mouse_has,
      pointer_take, mouse_rest, mouse_send },
    { KIND_OPS(5, "USB Tablet", tablet), tablet_reports, sizeof(tablet_reports), 7, tablet_has,
      pointer_take, tablet_rest, NULL },
};

static const struct kind *kind_of(const struct usb_dev *u)
{
    return container_of(u->ops, struct kind, ops);
}

/* --- reports --- */

static enum usb_result hid_data(struct usb_dev *u, uint8_t ep, struct usb_data *d)
{
    struct usb_hid *h = (struct usb_hid *)u;
    const struct kind *k = kind_of(u);
    uint8_t out[REPORT_SIZE];
    bool all = true;

    if (ep != EP_REPORT) {
        return USB_STALL;
    }
    if (h->n_reports == 0) {
        return USB_NAK;
    }
    if (k->send) {
        all = k->send(h->report, out);
    } else {
        memcpy(out, h->report, sizeof(out));
    }
    usb_put(d, out, k->size);
    if (all) {
        h->n_reports--;
        memmove(h->report, h->report + REPORT_SIZE, (size_t)h->n_reports * REPORT_SIZE);
    }
    return USB_OK;
}

static enum usb_result give(const void *p, unsigned size, uint8_t *data, unsigned *n)
{
    *n = *n < size ? *n : size;
    memcpy(data, p, *n);
    return USB_OK;
}

static enum usb_result hid_control(struct usb_dev *u, const struct usb_setup *s, uint8_t *data,
                                   unsigned *n)
{
    struct usb_hid *h = (struct usb_hid *)u;
    const struct kind *k = kind_of(u);
    uint8_t waiting[REPORT_SIZE], out[REPORT_SIZE] = { 0 };

    if (s->type == 0x81 && s->request == 6) {
        return s->value >> 8 == USB_DT_HID_REPORT ? give(k->reports, k->reports_size, data, n)
               : s->value >> 8 == USB_DT_HID      ? give(k->ops.interface + 9, 9, data, n)
                                                  : USB_STALL;
    }
    switch (s->type << 8 | s->request) {
    case 0xa1 << 8 | GET_REPORT:
        memcpy(waiting, h->now, sizeof(waiting));
        memcpy(out, h->now, sizeof(out));
        if (k->send) {
            (void)k->send(waiting, out);
        }
        return give(out, k->size, data, n);
    case 0xa1 << 8 | GET_IDLE:
        return give(&h->idle, 1, data, n);
    case 0xa1 << 8 | GET_PROTOCOL:
        return give(&h->protocol, 1, data, n);
    case 0x21 << 8 | SET_REPORT:
        h->lights = *n > 0 ? data[0] : h->lights;
        return USB_OK;
    case 0x21 << 8 | SET_IDLE:
        h->idle = (uint8_t)(s->value >> 8); /* reports come when something changes */
        return USB_OK;
    case 0x21 << 8 | SET_PROTOCOL: /* the reports begin as those of the boot protocol do */
        h->protocol = s->value & 1;
        return USB_OK;
    default:
        return USB_STALL;
    }
}

static void hid_reset(struct usb_dev *u)
{
    struct usb_hid *h = (struct usb_hid *)u;

    h->n_reports = 0;
    memset(h->now, 0, sizeof(h->now));
    h->idle = h->lights = 0;
    h->protocol = 1;
}

static int send_locked(struct usb_hid *h, const struct input_step *step, unsigned n,
                       struct err *e)
{
    const struct kind *k = kind_of(&h->u);

    for (unsigned i = 0; i < n; i++) {
        if (!k->has(&step[i])) {
            return err_set(e, -EINVAL, "%s has no %s %u", h->u.dev.id,
                           step[i].type == INPUT_EV_KEY ? "key" : "axis", step[i].code);
        }
    }
    if (!h->u.configuration) {
        return err_set(e, -ENODEV, "no driver of the guest listens to %s", h->u.dev.id);
    }
    if (h->n_reports == REPORTS) {
        return err_set(e, -ENOSPC, "the guest has not looked at what %s told it before",
                       h->u.dev.id);
    }
    for (unsigned i = 0; i < n; i++) {
        k->take(h, &step[i]);
    }
    memcpy(h->report + (size_t)h->n_reports++ * REPORT_SIZE, h->now, REPORT_SIZE);
    if (k->rest) {
        k->rest(h);
    }
    usb_wake(&h->u, EP_REPORT);
    return 0;
}

int usb_hid_send(struct device *d, const struct input_step *step, unsigned n, struct err *e)
{
    struct usb_hid *h = (struct usb_hid *)d;
    int rc;

    bus_lock(&h->u.bus->host->lock);
    rc = send_locked(h, step, n, e);
    bus_unlock(&h->u.bus->host->lock);
    return rc;
}

/* --- classes --- */

static int keyboard_realize(struct device *d, struct err *e)
{
    return usb_attach((struct usb_dev *)d, &kinds[0].ops, e);
}

static int mouse_realize(struct device *d, struct err *e)
{
    return usb_attach((struct usb_dev *)d, &kinds[1].ops, e);
}

static int tablet_realize(struct device *d, struct err *e)
{
    return usb_attach((struct usb_dev *)d, &kinds[2].ops, e);
}

static void hid_destroy(struct device *d)
{
    usb_detach((struct usb_dev *)d);
}

static int hid_loaded(void *obj, struct err *e)
{
    struct usb_hid *h = obj;

    return h->n_reports <= REPORTS ? 0
                                   : err_set(e, -EINVAL, "%s: %u reports wait, at most %d can",
                                             h->u.dev.id, h->n_reports, REPORTS);
}

#define N(member, kind, doc) ST_FIELD(struct usb_hid, member, kind, 1, doc)
static const struct st_field hid_fields[] = {
    USB_ST_FIELD,
    ST_ARRAY(struct usb_hid, report, ST_BYTES, REPORTS *REPORT_SIZE, 1,
             "reports that wait, 8 bytes each"),
    N(n_reports, ST_U32, "how many"),
    ST_ARRAY(struct usb_hid, now, ST_BYTES, REPORT_SIZE, 1, "what is held, where it is"),
    N(idle, ST_U8, "idle rate that the driver has set"),
    N(protocol, ST_U8, "0: boot, 1: report"),
    N(lights, ST_U8, "lights of the keyboard"),
    ST_END,
};
static const struct st_table hid_state = {
    .name = "usb-hid",
    .version = 1,
    .fields = hid_fields,
    .loaded = hid_loaded,
};

static const struct dev_prop hid_props[] = { USB_PROPS, { .name = NULL } };

#define HID_CLASS(name_, doc_, realize_)                                                       \
    {                                                                                          \
        .name = (name_), .doc = (doc_), .size = sizeof(struct usb_hid), .props = hid_props,    \
        .state = &hid_state, .realize = (realize_), .reset = usb_power_on,                     \
        .destroy = hid_destroy                                                                 \
    }
const struct device_class usb_keyboard_class = HID_CLASS("usb-keyboard", "USB keyboard",
                                                         keyboard_realize);
const struct device_class usb_mouse_class = HID_CLASS("usb-mouse", "USB mouse", mouse_realize);
const struct device_class usb_tablet_class = HID_CLASS(
    "usb-tablet", "USB tablet: a pointer that says where it is", tablet_realize);
