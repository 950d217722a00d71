/* SPDX-License-Identifier: Apache-2.0 */
/*
 * i8042: keyboard controller of a PC with a PS/2 keyboard and a PS/2 mouse with a wheel (IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller"; data at
 * offset 0, status and commands at 4; port 0x92 as a block of its own). irq[0] is the keyboard's, irq[1] the mouse's. The keyboard speaks scan code set 2, which the controller turns
 * into set 1 as long as its mode says so. vCPU threads enter by ports, the main thread by i8042_send().
 */
#include "devices/input/i8042.h"

#include "devices/input/keys.h"
#include "devices/registry.h"
#include "engine/base/log.h"
#include "engine/core/vm.h"

#include <errno.h>
#include <string.h>

#define QUEUE 64 /* bytes of one device that wait */
#define ROOM 16  /* of them for answers */
enum {
    STATUS_FULL = 1,
    STATUS_SYSTEM = 4,
    STATUS_COMMAND = 8,
    STATUS_UNLOCKED = 0x10,
    STATUS_AUX = 0x20
};
enum {
    MODE_KBD_IRQ = 1,
    MODE_AUX_IRQ = 2,
    MODE_SYSTEM = 4,
    MODE_KBD_OFF = 0x10,
    MODE_AUX_OFF = 0x20,
    MODE_TRANSLATE = 0x40
};
enum { ACK = 0xfa, RESEND = 0xfe, TESTED = 0xaa };
enum { FROM_NOBODY, FROM_KBD, FROM_AUX, FROM_CONTROLLER, FROM_CONTROLLER_AUX };
enum { A20_RESET = 1, A20_ON = 2 };

struct queue {
    uint8_t byte[QUEUE];
    uint8_t n;
};

struct kbc {
    struct device dev;
    uint8_t mode, command, out, from; /* command: takes the next byte of data */
    bool was_command;
    uint8_t a20;
    struct queue kbd, aux;
    /* keyboard */
    uint8_t kbd_command, set, lights, rate;
    bool scanning, break_code; /* break_code: the translator has seen 0xf0 */
    /* mouse */
    uint8_t aux_command, sample, resolution, buttons, id;
    uint8_t knock[3]; /* sample rates that were set last: 200, 100, 80 turn the wheel on */
    bool reporting, remote, scaling;
};

static struct kbc *kbc_of(struct device *d)
{
    return (struct kbc *)d;
}

/* --- bytes to the guest
 * -------------------------------------------------------------------------------- */

static bool put(struct queue *q, uint8_t byte)
{
    if (q->n == QUEUE) {
        return false;
    }
    q->byte[q->n++] = byte;
    return true;
}

static uint8_t get(struct queue *q)
{
    uint8_t byte = q->byte[0];

    memmove(q->byte, q->byte + 1, --q->n);
    return byte;
}

static const uint8_t set1_of[0x84] = {
    [0x00] = 0xff, [0x01] = 0x43, [0x02] = 0x41, [0x03] = 0x3f, [0x04] = 0x3d, [0x05] = 0x3b,
    [0x06] = 0x3c, [0x07] = 0x58, [0x08] = 0x64, [0x09] = 0x44, [0x0a] = 0x42, [0x0b] = 0x40,
    [0x0c] = 0x3e, [0x0d] = 0x0f, [0x0e] = 0x29, [0x0f] = 0x59, [0x10] = 0x65, [0x11] = 0x38,
    [0x12] = 0x2a, [0x13] = 0x70, [0x14] = 0x1d, [0x15] = 0x10, [0x16] = 0x02, [0x17] = 0x5a,
    [0x18] = 0x66, [0x19] = 0x71, [0x1a] = 0x2c, [0x1b] = 0x1f, [0x1c] = 0x1e, [0x1d] = 0x11,
    [0x1e] = 0x03, [0x1f] = 0x5b, [0x20] = 0x67, [0x21] = 0x2e, [0x22] = 0x2d, [0x23] = 0x20,
    [0x24] = 0x12, [0x25] = 0x05, [0x26] = 0x04, [0x27] = 0x5c, [0x28] = 0x68, [0x29] = 0x39,
    [0x2a] = 0x2f, [0x2b] = 0x21, [0x2c] = 0x14, [0x2d] = 0x13, [0x2e] = 0x06, [0x2f] = 0x5d,
    [0x30] = 0x69, [0x31] = 0x31, [0x32] = 0x30, [0x33] = 0x23, [0x34] = 0x22, [0x35] = 0x15,
    [0x36] = 0x07, [0x37] = 0x5e, [0x38] = 0x6a, [0x39] = 0x72, [0x3a] = 0x32, [0x3b] = 0x24,
    [0x3c] = 0x16, [0x3d] = 0x08, [0x3e] = 0x09, [0x3f] = 0x5f, [0x40] = 0x6b, [0x41] = 0x33,
    [0x42] = 0x25, [0x43] = 0x17, [0x44] = 0x18, [0x45] = 0x0b, [0x46] = 0x0a, [0x47] = 0x60,
    [0x48] = 0x6c, [0x49] = 0x34, [0x4a] = 0x35, [0x4b] = 0x26, [0x4c] = 0x27, [0x4d] = 0x19,
    [0x4e] = 0x0c, [0x4f] = 0x61, [0x50] = 0x6d, [0x51] = 0x73, [0x52] = 0x28, [0x53] = 0x74,
    [0x54] = 0x1a, [0x55] = 0x0d, [0x56] = 0x62, [0x57] = 0x6e, [0x58] = 0x3a, [0x59] = 0x36,
    [0x5a] = 0x1c, [0x5b] = 0x1b, [0x5c] = 0x75, [0x5d] = 0x2b, [0x5e] = 0x63, [0x5f] = 0x76,
    [0x60] = 0x55, [0x61] = 0x56, [0x62] = 0x77, [0x63] = 0x78, [0x64] = 0x79, [0x65] = 0x7a,
    [0x66] = 0x0e, [0x67] = 0x7b, [0x68] = 0x7c, [0x69] = 0x4f, [0x6a] = 0x7d, [0x6b] = 0x4b,
    [0x6c] = 0x47, [0x6d] = 0x7e, [0x6e] = 0x7f, [0x6f] = 0x6f, [0x70] = 0x52, [0x71] = 0x53,
    [0x72] = 0x50, [0x73] = 0x4c, [0x74] = 0x4d, [0x75] = 0x48, [0x76] = 0x01, [0x77] = 0x45,
    [0x78] = 0x57, [0x79] = 0x4e, [0x7a] = 0x51, [0x7b] = 0x4a, [0x7c] = 0x37, [0x7d] = 0x49,
    [0x7e] = 0x46, [0x7f] = 0x54, [0x80] = 0x80, [0x81] = 0x81, [0x82] = 0x82, [0x83] = 0x41,
};

/* A byte of the keyboard as the guest sees it; false: it is the first half of one. */
static bool translated(struct kbc *k, uint8_t in, uint8_t *out)
{
    *out = in;
    if (!(k->mode & MODE_TRANSLATE)) {
        return true;
    }
    if (in == 0xf0) {
        k->break_code = true;
        return false;
    }
    *out = in < sizeof(set1_of) ? set1_of[in] : in;
    if (k->break_code) {
        *out |= 0x80;
        k->break_code = false;
    }
    return true;
}

static void update_irq(struct kbc *k)
{
    bool aux = k->from == FROM_AUX || k->from == FROM_CONTROLLER_AUX;

    irq_set(&k->dev.irq[0], k->from && !aux && k->mode & MODE_KBD_IRQ);
    irq_set(&k->dev.irq[1], k->from && aux && k->mode & MODE_AUX_IRQ);
}

static void show(struct kbc *k, uint8_t byte, uint8_t from)
{
    k->out = byte;
    k->from = from;
    update_irq(k);
}

/* The next byte goes out when the one before was read. */
static void next(struct kbc *k)
{
    uint8_t byte;

    while (!k->from && k->kbd.n && !(k->mode & MODE_KBD_OFF)) {
        if (translated(k, get(&k->kbd), &byte)) {
            show(k, byte, FROM_KBD);
        }
    }
    if (!k->from && k->aux.n && !(k->mode & MODE_AUX_OFF)) {
        show(k, get(&k->aux), FROM_AUX);
    }
}

/* --- keyboard
 * -------------------------------------------------------------------------------- */

static void kbd_defaults(struct kbc *k)
{
    k->set = 2;
    k->rate = 0x2b;
    k->kbd_command = 0;
}

static void kbd_argument(struct kbc *k, uint8_t value)
{
    uint8_t command = k->kbd_command;

    k->kbd_command = 0;
    put(&k->kbd, ACK);
    if (command == 0xed) {
        k->lights = value & 7;
    } else if (command == 0xf3) {
        k->rate = value & 0x7f;
    } else if (value == 0) { /* 0xf0 */
        put(&k->kbd, k->set);
    } else if (value <= 3) {
        k->set = value;
    }
}

static void kbd_write(struct kbc *k, uint8_t value)
{
    if (k->kbd_command && value < 0x80) {
        kbd_argument(k, value);
        return;
    }
    k->kbd_command = 0;
    switch (value) {
    case 0xed:
    case 0xf0:
    case 0xf3:
        k->kbd_command = value;
        put(&k->kbd, ACK);
        break;
    case 0xee:
        put(&k->kbd, 0xee);
        break;
    case 0xf2:
        put(&k->kbd, ACK);
        put(&k->kbd, 0xab);
        put(&k->kbd, 0x83);
        break;
    case 0xf4:
        k->scanning = true;
        put(&k->kbd, ACK);
        break;
    case 0xf5:
    case 0xf6:
        kbd_defaults(k);
        k->scanning = value == 0xf6;
        put(&k->kbd, ACK);
        break;
    case 0xff:
        kbd_defaults(k);
        k->scanning = true;
        k->kbd.n = 0;
        put(&k->kbd, ACK);
        put(&k->kbd, TESTED);
        break;
    default:
        put(&k->kbd, RESEND);
    }
}

/* --- mouse
 * ----------------------------------------------------------------------------------- */

static void aux_defaults(struct kbc *k)
{
    k->sample = 100;
    k->resolution = 2;
    k->reporting = k->remote = k->scaling = false;
    k->aux_command = 0;
}

static void aux_argument(struct kbc *k, uint8_t value)
{
    if (k->aux_command == 0xf3) {
        k->sample = value;
        k->knock[0] = k->knock[1];
        k->knock[1] = k->knock[2];
        k->knock[2] = value;
        if (memcmp(k->knock, "\xc8\x64\x50", 3) == 0) {
            k->id = 3; /* with a wheel */
        }
    } else {
        k->resolution = value & 3;
    }
    k->aux_command = 0;
    put(&k->aux, ACK);
}

static void aux_packet(struct kbc *k, int dx, int dy, int dz)
{
    dx = dx < -255 ? -255 : dx > 255 ? 255 : dx;
    dy = dy < -255 ? -255 : dy > 255 ? 255 : dy;
    dz = dz < -8 ? -8 : dz > 7 ? 7 : dz;
    put(&k->aux, (uint8_t)(8 | (k->buttons & 7) | (dx < 0) << 4 | (dy < 0) << 5));
    put(&k->aux, (uint8_t)dx);
    put(&k->aux, (uint8_t)dy);
    if (k->id == 3) {
        put(&k->aux, (uint8_t)dz);
    }
}

static void aux_status(struct kbc *k)
{
    put(&k->aux,
        (uint8_t)(k->remote << 6 | k->reporting << 5 | k->scaling << 4 | (k->buttons & 1) << 2 |
                  (k->buttons & 4) >> 1 | (k->buttons & 2) >> 1));
    put(&k->aux, k->resolution);
    put(&k->aux, k->sample);
}

static void aux_command(struct kbc *k, uint8_t value)
{
    put(&k->aux, ACK);
    switch (value) {
    case 0xe6:
    case 0xe7:
        k->scaling = value == 0xe7;
        break;
    case 0xe8:
    case 0xf3:
        k->aux_command = value;
        break;
    case 0xe9:
        aux_status(k);
        break;
    case 0xea:
    case 0xf0:
        k->remote = value == 0xf0;
        break;
    case 0xeb:
        aux_packet(k, 0, 0, 0);
        break;
    case 0xf2:
        put(&k->aux, k->id);
        break;
    case 0xf4:
    case 0xf5:
        k->reporting = value == 0xf4;
        break;
    case 0xf6:
        aux_defaults(k);
        break;
    case 0xff:
        aux_defaults(k);
        k->id = 0;
        k->aux.n = 0;
        put(&k->aux, ACK);
        put(&k->aux, TESTED);
        put(&k->aux, 0);
        break;
    default:
        k->aux.byte[k->aux.n - 1] = RESEND;
    }
}

static void aux_write(struct kbc *k, uint8_t value)
{
    if (k->aux.n > QUEUE - ROOM) {
        return; /* the guest reads nothing: the mouse hears nothing */
    }
    if (k->aux_command) {
        aux_argument(k, value);
    } else {
        aux_command(k, value);
    }
}

/* --- what people do
 * ------------------------------------------------------------------------------ */

/* Set 2 has its own order; a key's code there is the one whose translation is the key's. */
static uint8_t set2_of(uint8_t set1)
{
    for (unsigned i = 1; i < sizeof(set1_of); i++) {
        if (set1_of[i] == set1) {
            return i == 2 && set1 == 0x41 ? 0x83 : (uint8_t)i;
        }
    }
    return 0;
}

static int send_key(struct kbc *k, uint16_t code, bool down, struct err *e)
{
    const struct key *key = key_by_code(code);
    uint8_t scan = key ? set2_of(key->scan & 0x7f) : 0;

    if (!scan) {
        return err_set(e, -EINVAL, "%s: a PS/2 keyboard has no key %u", k->dev.id, code);
    }
    if (!k->scanning || k->kbd.n > QUEUE - ROOM - 3) {
        return k->scanning ? err_set(e, -ENOSPC, "%s: the guest reads no keys", k->dev.id)
                           : 0; /* as a keyboard that is switched off */
    }
    if (key->scan & 0x80) {
        put(&k->kbd, 0xe0);
    }
    if (!down) {
        put(&k->kbd, 0xf0);
    }
    put(&k->kbd, scan);
    return 0;
}

struct motion {
    int dx, dy, dz;
    bool any;
};

static bool take_mouse(struct kbc *k, const struct input_step *s, struct motion *m)
{
    static const uint16_t buttons[] = { INPUT_BTN_LEFT, INPUT_BTN_RIGHT, INPUT_BTN_MIDDLE };

    if (s->type == INPUT_EV_REL) {
        int value = s->value < -4096 ? -4096 : s->value > 4096 ? 4096 : s->value;

        m->dx += s->code == INPUT_REL_X ? value : 0;
        m->dy -= s->code == INPUT_REL_Y ? value : 0;
        m->dz -= s->code == INPUT_REL_WHEEL ? value : 0;
        m->any = true;
        return true;
    }
    for (unsigned i = 0; i < 3 && s->type == INPUT_EV_KEY; i++) {
        if (s->code == buttons[i]) {
            k->buttons = (uint8_t)((k->buttons & ~(1u << i)) | (unsigned)(s->value != 0) << i);
            m->any = true;
            return true;
        }
    }
    return false;
}

static int send_locked(struct kbc *k, const struct input_step *step, unsigned n, struct err *e)
{
    struct motion m = { 0 };
    int rc = 0;

    for (unsigned i = 0; i < n && rc == 0; i++) {
        if (step[i].type == INPUT_EV_SYN || take_mouse(k, &step[i], &m)) {
            continue;
        }
        if (step[i].type != INPUT_EV_KEY) {
            return err_set(e, -EINVAL, "%s: a PS/2 mouse has no such axis", k->dev.id);
        }
        rc = send_key(k, step[i].code, step[i].value != 0, e);
    }
    if (rc == 0 && m.any && k->reporting && k->aux.n <= QUEUE - ROOM - 4) {
        aux_packet(k, m.dx, m.dy, m.dz);
    }
    next(k);
    return rc;
}

int i8042_send(struct device *d, const struct input_step *step, unsigned n, struct err *e)
{
    int rc;

    bus_lock(&d->lock);
    rc = send_locked(kbc_of(d), step, n, e);
    bus_unlock(&d->lock);
    return rc;
}

/* --- registers
 * ------------------------------------------------------------------------------- */

static uint64_t r_data(struct device *d, const struct dev_reg *r, unsigned index)
{
    struct kbc *k = kbc_of(d);
    uint8_t byte = k->out;

    (void)r, (void)index;
    k->from = FROM_NOBODY;
    update_irq(k);
    next(k);
    return byte;
}

/* A byte of data that a command of the controller waits for. */
static void argument(struct kbc *k, uint8_t command, uint8_t value)
{
    switch (command) {
    case 0x60:
        k->mode = value;
        update_irq(k);
        break;
    case 0xd1:
        k->a20 = (uint8_t)((k->a20 & ~A20_ON) | (value & A20_ON));
        if (!(value & 1)) {
            vm_request(k->dev.vm, VM_REQ_RESET, "guest-reset");
        }
        break;
    case 0xd2:
        show(k, value, FROM_CONTROLLER);
        break;
    case 0xd3:
        show(k, value, FROM_CONTROLLER_AUX);
        break;
    default:
        k->mode &= (uint8_t)~MODE_AUX_OFF;
        aux_write(k, value);
    }
}

static void w_data(struct device *d, const struct dev_reg *r, unsigned index, uint64_t old,
                   uint64_t value)
{
    struct kbc *k = kbc_of(d);
    uint8_t command = k->command;

    (void)r, (void)index, (void)old;
    k->was_command = false;
    k->command = 0;
    if (command) {
        argument(k, command, (uint8_t)value);
    } else {
        k->mode &= (uint8_t)~MODE_KBD_OFF;
        if (k->kbd.n <= QUEUE - ROOM) {
            kbd_write(k, (uint8_t)value);
        }
    }
    next(k);
}

static uint64_t r_status(struct device *d, const struct dev_reg *r, unsigned index)
{
    const struct kbc *k = kbc_of(d);

    (void)r, (void)index;
    return (k->from ? STATUS_FULL : 0u) | (k->mode & MODE_SYSTEM) |
           (k->was_command ? STATUS_COMMAND : 0u) | STATUS_UNLOCKED |
           (k->from == FROM_AUX || k->from == FROM_CONTROLLER_AUX ? STATUS_AUX : 0u);
}

static void w_command(struct device *d, const struct dev_reg *r, unsigned index, uint64_t old,
                      uint64_t value)
{
    struct kbc *k = kbc_of(d);

    (void)r, (void)index, (void)old;
    k->was_command = true;
    k->command = 0;
    switch (value) {
    case 0x20:
        show(k, k->mode, FROM_CONTROLLER);
        break;
    case 0x60:
    case 0xd1:
    case 0xd2:
    case 0xd3:
    case 0xd4:
        k->command = (uint8_t)value;
        break;
    case 0xa7:
    case 0xa8:
        k->mode = (uint8_t)(value == 0xa7 ? k->mode | MODE_AUX_OFF : k->mode & ~MODE_AUX_OFF);
        break;
    case 0xa9:
    case 0xab:
        show(k, 0, FROM_CONTROLLER);
        break;
    case 0xaa:
        k->mode |= MODE_SYSTEM;
        show(k, 0x55, FROM_CONTROLLER);
        break;
    case 0xad:
    case 0xae:
        k->mode = (uint8_t)(value == 0xad ? k->mode | MODE_KBD_OFF : k->mode & ~MODE_KBD_OFF);
        break;
    case 0xd0:
        show(k, (uint8_t)(1 | (k->a20 & A20_ON)), FROM_CONTROLLER);
        break;
    case 0xdd:
    case 0xdf:
        k->a20 = (uint8_t)((k->a20 & ~A20_ON) | (value == 0xdf ? A20_ON : 0));
        break;
    case 0xfe:
        vm_request(d->vm, VM_REQ_RESET, "guest-reset");
        break;
    default:
        log_trace('u', "%s: command 0x%02x", d->id, (unsigned)value);
    }
    next(k);
}

static void w_port92(struct device *d, const struct dev_reg *r, unsigned index, uint64_t old,
                     uint64_t value)
{
    (void)r, (void)index;
    if (value & ~old & A20_RESET) {
        vm_request(d->vm, VM_REQ_RESET, "guest-reset");
    }
}

static const struct dev_reg kbc_regs[] = {
    { .name = "DATA",
      .doc = "bytes of keyboard, mouse and controller; bytes for the keyboard, or what a "
             "command takes",
      .offset = 0,
      .size = 1,
      .writable = 0xff,
      .field = DEV_NO_FIELD,
      .read = r_data,
      .written = w_data },
    { .name = "STATUS/COMMAND",
      .doc = "read: bit 0 a byte waits, 5 of the mouse; write: a command",
      .offset = 4,
      .size = 1,
      .writable = 0xff,
      .field = DEV_NO_FIELD,
      .read = r_status,
      .written = w_command },
    { .name = NULL },
};
static const struct dev_reg port92_regs[] = {
    { .name = "CONTROL_A",
      .doc = "bit 0 resets the machine, bit 1 address line 20, which is always on",
      .offset = 0,
      .size = 1,
      .writable = 3,
      .reset = A20_ON,
      .field = offsetof(struct kbc, a20),
      .written = w_port92 },
    { .name = NULL },
};
static const struct dev_reg_block kbc_blocks[] = {
    { .name = "ports", .size = 5, .regs = kbc_regs, .min_size = 1, .max_size = 1 },
    { .name = "port92", .size = 1, .regs = port92_regs, .min_size = 1, .max_size = 1 },
    { .name = NULL },
};

/* --- class
 * ----------------------------------------------------------------------------------- */

static void kbc_reset(struct device *d)
{
    struct kbc *k = kbc_of(d);

    bus_lock(&d->lock);
    k->mode = MODE_KBD_IRQ | MODE_AUX_IRQ;
    k->command = k->out = k->from = 0;
    k->was_command = k->break_code = false;
    k->kbd.n = k->aux.n = 0;
    k->lights = k->buttons = k->id = 0;
    memset(k->knock, 0, sizeof(k->knock));
    kbd_defaults(k);
    k->scanning = true;
    aux_defaults(k);
    update_irq(k);
    bus_unlock(&d->lock);
}

static int kbc_loaded(void *obj, struct err *e)
{
    const struct kbc *k = obj;

    if (k->kbd.n > QUEUE || k->aux.n > QUEUE || k->from > FROM_CONTROLLER_AUX) {
        return err_set(e, -EINVAL, "i8042: more bytes wait than can");
    }
    return 0;
}

static const struct st_field queue_fields[] = {
    ST_ARRAY(struct queue, byte, ST_BYTES, QUEUE, 1, "bytes that wait"),
    ST_FIELD(struct queue, n, ST_U8, 1, "how many"),
    ST_END,
};
static const struct st_table queue_state = {
    .name = "i8042-queue",
    .version = 1,
    .fields = queue_fields,
};
#define QUEUE_FIELD(member, doc_)                                                              \
    {                                                                                          \
        .name = #member, .kind = ST_STRUCT, .offset = offsetof(struct kbc, member),            \
        .count = 1, .stride = sizeof(struct queue), .since = 1, .table = &queue_state,         \
        .doc = (doc_)                                                                          \
    }

static const struct st_field kbc_fields[] = {
    ST_FIELD(struct kbc, mode, ST_U8, 1, "command byte of the controller"),
    ST_FIELD(struct kbc, command, ST_U8, 1, "command that takes the next byte, 0: none"),
    ST_FIELD(struct kbc, out, ST_U8, 1, "byte that the guest reads"),
    ST_FIELD(struct kbc, from, ST_U8, 1, "whose it is, 0: it was read"),
    ST_FIELD(struct kbc, was_command, ST_BOOL, 1, "the last write was a command"),
    ST_FIELD(struct kbc, a20, ST_U8, 1, "port 0x92"),
    QUEUE_FIELD(kbd, "bytes of the keyboard"),
    QUEUE_FIELD(aux, "bytes of the mouse"),
    ST_FIELD(struct kbc, kbd_command, ST_U8, 1, "command of the keyboard that takes a byte"),
    ST_FIELD(struct kbc, set, ST_U8, 1, "scan code set"),
    ST_FIELD(struct kbc, lights, ST_U8, 1, "lights"),
    ST_FIELD(struct kbc, rate, ST_U8, 1, "repeat rate"),
    ST_FIELD(struct kbc, scanning, ST_BOOL, 1, "keys are told"),
    ST_FIELD(struct kbc, break_code, ST_BOOL, 1, "the translator is between two bytes"),
    ST_FIELD(struct kbc, aux_command, ST_U8, 1, "command of the mouse that takes a byte"),
    ST_FIELD(struct kbc, sample, ST_U8, 1, "reports a second"),
    ST_FIELD(struct kbc, resolution, ST_U8, 1, "resolution"),
    ST_FIELD(struct kbc, buttons, ST_U8, 1, "buttons that are held"),
    ST_FIELD(struct kbc, id, ST_U8, 1, "0, or 3 with the wheel"),
    ST_ARRAY(struct kbc, knock, ST_BYTES, 3, 1, "the last sample rates"),
    ST_FIELD(struct kbc, reporting, ST_BOOL, 1, "movements are told"),
    ST_FIELD(struct kbc, remote, ST_BOOL, 1, "only when asked"),
    ST_FIELD(struct kbc, scaling, ST_BOOL, 1, "2:1"),
    ST_END,
};
static const struct st_table kbc_state = {
    .name = "i8042",
    .version = 1,
    .fields = kbc_fields,
    .loaded = kbc_loaded,
};

const struct device_class i8042_class = {
    .name = "i8042",
    .doc = "keyboard controller of a PC with PS/2 keyboard and mouse",
    .size = sizeof(struct kbc),
    .blocks = kbc_blocks,
    .n_irqs = 2,
    .state = &kbc_state,
    .reset = kbc_reset,
};
