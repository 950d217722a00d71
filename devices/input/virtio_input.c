/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-input: keys and pointers for a guest (virtio 1.2 §5.8). What it is follows from its kind, a row of the table
 * below: a power button, a keyboard, a mouse, a tablet. Queue 0 carries events to the guest, queue 1 what the guest sets (lights), which nothing here shows.
 * Owns the events that no buffer was there for yet. Main loop, transport's lock.
 */
#include "devices/input/virtio_input.h"

#include "devices/registry.h"
#include "devices/virtio/virtio.h"
#include "engine/core/vm.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define QUEUE_SIZE 64
#define EVENTS_MAX 64
#define CONFIG_TEXT 128

enum { Q_EVENT = 0, Q_STATUS = 1 };
/* What the driver asks the configuration space for (§5.8.4). */
enum {
    CFG_UNSET = 0,
    CFG_ID_NAME = 1,
    CFG_ID_SERIAL = 2,
    CFG_ID_DEVIDS = 3,
    CFG_EV_BITS = 0x11,
    CFG_ABS_INFO = 0x12,
};
enum { BUS_VIRTUAL = 6 };

struct input_kind {
    const char *name, *title;
    uint16_t product;
    struct {
        uint16_t first, last;
    } key[2];          /* ranges; 0 ends them */
    uint16_t rel, abs; /* axes, a bit each; all of them below 16 */
    bool repeats;      /* the guest's driver repeats a key that is held */
};

#define AXIS(n) (1u << (n))
static const struct input_kind kinds[] = {
    { "power-button",
      "Power Button",
      1,
      { { INPUT_KEY_POWER, INPUT_KEY_POWER } },
      0,
      0,
      false },
    { "keyboard", "vmd Keyboard", 2, { { 1, INPUT_KEY_LAST } }, 0, 0, true },
    { "mouse",
      "vmd Mouse",
      3,
      { { INPUT_BTN_LEFT, INPUT_BTN_EXTRA } },
      AXIS(INPUT_REL_X) | AXIS(INPUT_REL_Y) | AXIS(INPUT_REL_WHEEL) | AXIS(INPUT_REL_HWHEEL),
      0,
      false },
    { "tablet",
      "vmd Tablet",
      4,
      { { INPUT_BTN_LEFT, INPUT_BTN_EXTRA } },
      AXIS(INPUT_REL_WHEEL) | AXIS(INPUT_REL_HWHEEL),
      AXIS(INPUT_ABS_X) | AXIS(INPUT_ABS_Y),
      false },
};

struct input_event { /* on the wire, little-endian */
    uint16_t type, code;
    uint32_t value;
};
struct vinput {
    struct virtio v;
    char *kind_name;
    const struct input_kind *kind;
    uint8_t select, subsel;     /* of the configuration space */
    uint64_t event[EVENTS_MAX]; /* type | code << 16 | value << 32, oldest first */
    uint32_t n_events;
};

static struct vinput *input_of(struct virtio *v)
{
    return (struct vinput *)v;
}

/* --- configuration space ---------------------------------------------------------------------- */

static unsigned set_bit(uint8_t *out, unsigned bit, unsigned size)
{
    out[bit / 8] |= (uint8_t)(1u << (bit % 8));
    return bit / 8 + 1 > size ? bit / 8 + 1 : size;
}

/* Which codes of an event type it sends; returns bytes of the bitmap. */
static unsigned event_bits(const struct input_kind *kind, uint8_t type, uint8_t *out)
{
    unsigned size = 0, axes = type == INPUT_EV_REL   ? kind->rel
                              : type == INPUT_EV_ABS ? kind->abs
                                                     : 0;

    for (unsigned i = 0; type == INPUT_EV_KEY && i < ARRAY_LEN(kind->key) && kind->key[i].first;
         i++) {
        for (unsigned k = kind->key[i].first; k <= kind->key[i].last; k++) {
            size = set_bit(out, k, size);
        }
    }
    for (unsigned i = 0; i < 16; i++) {
        size = axes >> i & 1 ? set_bit(out, i, size) : size;
    }
    if (type == INPUT_EV_REP && kind->repeats) {
        size = set_bit(out, 1, set_bit(out, 0, size)); /* delay, period */
    }
    return size;
}

static unsigned abs_info(const struct input_kind *kind, uint8_t axis, uint8_t *out)
{
    const uint32_t info[5] = { 0, htole32(INPUT_ABS_MAX), 0, 0,
                               0 }; /* fuzz, flat, resolution */

    if (axis >= 16 || !(kind->abs >> axis & 1)) {
        return 0;
    }
    memcpy(out, info, sizeof(info));
    return sizeof(info);
}

/* The selected piece; returns its size, 0 when there is none. */
static unsigned fill_config(const struct vinput *n, uint8_t *out)
{
    const uint16_t ids[4] = { htole16(BUS_VIRTUAL), 0, htole16(n->kind->product), htole16(1) };

    switch (n->select) {
    case CFG_ID_NAME:
        memcpy(out, n->kind->title, strlen(n->kind->title));
        return (unsigned)strlen(n->kind->title);
    case CFG_ID_SERIAL:
        memcpy(out, n->kind->name, strlen(n->kind->name));
        return (unsigned)strlen(n->kind->name);
    case CFG_ID_DEVIDS:
        memcpy(out, ids, sizeof(ids));
        return sizeof(ids);
    case CFG_EV_BITS:
        return event_bits(n->kind, n->subsel, out);
    case CFG_ABS_INFO:
        return abs_info(n->kind, n->subsel, out);
    default:
        return 0;
    }
}

static void vinput_config(struct virtio *v, uint8_t *out)
{
    struct vinput *n = input_of(v);

    memset(out, 0, 8 + CONFIG_TEXT);
    out[0] = n->select;
    out[1] = n->subsel;
    out[2] = (uint8_t)fill_config(n, out + 8);
}

static void vinput_config_written(struct virtio *v, uint32_t offset, uint64_t value,
                                  unsigned size)
{
    struct vinput *n = input_of(v);

    for (unsigned i = 0; i < size; i++, value >>= 8) {
        if (offset + i == 0) {
            n->select = (uint8_t)value;
        } else if (offset + i == 1) {
            n->subsel = (uint8_t)value;
        }
    }
}

/* --- queues ----------------------------------------------------------------------------------- */

static bool deliver_one(struct vinput *n)
{
    struct virtio_elem *el = virtq_pop(&n->v, Q_EVENT);
    uint64_t x = n->event[0];
    const struct input_event out = { htole16((uint16_t)x), htole16((uint16_t)(x >> 16)),
                                     htole32((uint32_t)(x >> 32)) };

    if (!el) {
        return false;
    }
    if (el->in_len < sizeof(out)) {
        virtio_elem_free(el);
        virtio_broken(&n->v, "a buffer for events is too small");
        return false;
    }
    virtq_push(&n->v, Q_EVENT, el, virtio_put(el, 0, &out, sizeof(out)));
    n->n_events--;
    memmove(n->event, n->event + 1, n->n_events * sizeof(n->event[0]));
    return true;
}

static void serve_events(struct vinput *n)
{
    bool some = false;

    while (n->n_events > 0 &&
           (deliver_one(n) || (virtio_working(&n->v) && virtq_rearm(&n->v, Q_EVENT)))) {
        some = true;
    }
    if (some) {
        virtq_signal(&n->v, Q_EVENT);
    }
}

static void serve_status(struct vinput *n)
{
    for (unsigned i = 0; i < QUEUE_SIZE;) {
        struct virtio_elem *el = virtq_pop(&n->v, Q_STATUS);

        if (el) {
            i++;
            virtq_push(&n->v, Q_STATUS, el, 0);
        } else if (!virtq_rearm(&n->v, Q_STATUS)) {
            virtq_signal(&n->v, Q_STATUS);
            return;
        }
    }
    virtq_signal(&n->v, Q_STATUS);
    virtio_ring(&n->v, Q_STATUS);
}

static void vinput_serve(struct virtio *v, unsigned q)
{
    if (q == Q_EVENT) {
        serve_events(input_of(v));
    } else {
        serve_status(input_of(v));
    }
}

static void vinput_reset(struct virtio *v)
{
    struct vinput *n = input_of(v);

    n->n_events = 0;
    n->select = n->subsel = CFG_UNSET;
}

static void add_event(struct vinput *n, uint16_t type, uint16_t code, uint32_t value)
{
    n->event[n->n_events++] = type | (uint64_t)code << 16 | (uint64_t)value << 32;
}

static bool sends(const struct input_kind *kind, const struct input_step *step)
{
    if (step->type != INPUT_EV_KEY) {
        unsigned axes = step->type == INPUT_EV_REL   ? kind->rel
                        : step->type == INPUT_EV_ABS ? kind->abs
                                                     : 0;

        return step->code < 16 && (axes >> step->code & 1);
    }
    for (unsigned i = 0; i < ARRAY_LEN(kind->key) && kind->key[i].first; i++) {
        if (step->code >= kind->key[i].first && step->code <= kind->key[i].last) {
            return true;
        }
    }
    return false;
}

static int send_locked(struct vinput *n, const struct input_step *step, unsigned count,
                       struct err *e)
{
    unsigned events = count + 1; /* and what ends the report */

    for (unsigned i = 0; i < count; i++) {
        if (!sends(n->kind, &step[i])) {
            return err_set(e, -EINVAL, "%s has no %s %u", n->v.dev.id,
                           step[i].type == INPUT_EV_KEY ? "key" : "axis", step[i].code);
        }
    }
    if (!virtio_working(&n->v) || !n->v.queue[Q_EVENT].ready) {
        return err_set(e, -ENODEV, "no driver of the guest listens to %s", n->v.dev.id);
    }
    if (n->n_events + events > EVENTS_MAX) {
        return err_set(e, -ENOSPC, "the guest has not looked at what %s told it before",
                       n->v.dev.id);
    }
    for (unsigned i = 0; i < count; i++) {
        add_event(n, step[i].type, step[i].code, (uint32_t)step[i].value);
    }
    add_event(n, INPUT_EV_SYN, 0, 0);
    virtio_ring(&n->v, Q_EVENT);
    return 0;
}

int virtio_input_send(struct device *d, const struct input_step *step, unsigned n,
                      struct err *e)
{
    struct vinput *v = (struct vinput *)d;
    int rc;

    bus_lock(v->v.lock);
    rc = send_locked(v, step, n, e);
    bus_unlock(v->v.lock);
    return rc;
}

static int tap_locked(struct vinput *n, uint16_t key, struct err *e)
{
    const struct input_step down = { INPUT_EV_KEY, key, 1 }, up = { INPUT_EV_KEY, key, 0 };

    if (n->n_events + 4 > EVENTS_MAX && sends(n->kind, &down) && virtio_working(&n->v)) {
        return err_set(e, -ENOSPC, "the guest has not looked at what %s told it before",
                       n->v.dev.id);
    }
    int rc = send_locked(n, &down, 1, e);
    return rc != 0 ? rc : send_locked(n, &up, 1, e);
}

int virtio_input_tap(struct device *d, uint16_t key, struct err *e)
{
    struct vinput *n = (struct vinput *)d;
    int rc;

    bus_lock(n->v.lock);
    rc = tap_locked(n, key, e);
    bus_unlock(n->v.lock);
    return rc;
}

/* --- class ------------------------------------------------------------------------------------ */

static const struct virtio_ops vinput_ops = {
    .id = 18,
    .n_queues = 2,
    .queue_max = { QUEUE_SIZE, QUEUE_SIZE },
    .config_size = 8 + CONFIG_TEXT,
    .serve = vinput_serve,
    .config = vinput_config,
    .config_written = vinput_config_written,
    .reset = vinput_reset,
};

static int vinput_realize(struct device *d, struct err *e)
{
    struct vinput *n = (struct vinput *)d;

    n->kind = NULL;
    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
        if (n->kind_name && strcmp(n->kind_name, kinds[i].name) == 0) {
            n->kind = &kinds[i];
        }
    }
    if (!n->kind) {
        return err_set(e, -EINVAL, "%s: there is no kind '%s'", d->id,
                       n->kind_name ? n->kind_name : "");
    }
    virtio_setup(&n->v, &vinput_ops, 0, 0);
    return 0;
}

static void vinput_destroy(struct device *d)
{
    virtio_done((struct virtio *)d);
}

static int vinput_loaded(void *obj, struct err *e)
{
    struct vinput *n = obj;

    return n->n_events <= EVENTS_MAX
               ? 0
               : err_set(e, -EINVAL, "%s: %u events wait, at most %d are possible", n->v.dev.id,
                         n->n_events, EVENTS_MAX);
}

static const struct st_field vinput_fields[] = {
    VIRTIO_ST_FIELD,
    ST_FIELD(struct vinput, select, ST_U8, 1, "selected piece of the configuration space"),
    ST_FIELD(struct vinput, subsel, ST_U8, 1, "which of that piece"),
    ST_ARRAY(struct vinput, event, ST_U64, EVENTS_MAX, 1,
             "events that wait for a buffer: type, code << 16, value << 32"),
    ST_FIELD(struct vinput, n_events, ST_U32, 1, "how many wait"),
    ST_END,
};
static const struct st_table vinput_state = {
    .name = "virtio-input",
    .version = 1,
    .fields = vinput_fields,
    .loaded = vinput_loaded,
};

static const struct dev_prop vinput_props[] = {
    { .name = "kind",
      .kind = PROP_STR,
      .offset = offsetof(struct vinput, kind_name),
      .doc = "what it is: power-button, keyboard, mouse or tablet" },
    { .name = NULL },
};

const struct device_class virtio_input_class = {
    .name = "virtio-input",
    .doc = "virtio input device: a power button, keyboard, mouse or tablet",
    .size = sizeof(struct vinput),
    .props = vinput_props,
    .state = &vinput_state,
    .realize = vinput_realize,
    .resumed = virtio_resumed,
    .destroy = vinput_destroy,
};
