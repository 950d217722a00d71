/* SPDX-License-Identifier: Apache-2.0 */
/*
 * i8259: the two interrupt controllers of a PC, the second at pin 2 of the first (Intel 8259A data sheet; ICH9 data sheet §13.4 for the edge/level registers). irq[0] is the
 * processors' INTR. The device lock is an irqchip lock: devices call in with their own held; it calls only into the vCPU.
 */
#include "devices/irqchip/i8259.h"

#include "devices/registry.h"
#include "engine/base/log.h"
#include "engine/core/vm.h"

#include <errno.h>

enum { ICW1 = 0x10, ICW1_SINGLE = 2, ICW1_ICW4 = 1, ICW1_LEVEL = 8 };
enum { ICW4_AUTO_EOI = 2, ICW4_NESTED = 0x10 };
enum { OCW3 = 8 };
#define CASCADE 2
#define SPURIOUS 7
#define LEVEL_MASTER 0xf8 /* pins whose mode can be written */
#define LEVEL_SLAVE 0xde

struct chip {
    uint8_t irr, isr, imr, base, elcr;
    uint8_t lines;  /* pins that are asserted */
    uint8_t step;   /* the next write to port 1 is ICW 2, 3 or 4; 0: none of them */
    uint8_t lowest; /* pin of the lowest priority */
    bool icw4, auto_eoi, rotate, nested, single, poll, read_isr, special_mask, all_level;
};

struct i8259 {
    struct device dev;
    struct chip chip[2];
    uint8_t wires[I8259_PINS]; /* of each pin that are asserted */
};

static struct i8259 *pic_of(struct device *d)
{
    return (struct i8259 *)d;
}

/* --- priorities
 * ------------------------------------------------------------------------------ */

/* Highest priority of a set of pins: 0 to 7, counted from the pin behind the lowest; 8: none. */
static unsigned rank(const struct chip *c, uint8_t pins)
{
    unsigned n = 0;

    while (n < 8 && !(pins >> ((c->lowest + 1 + n) & 7) & 1)) {
        n++;
    }
    return n;
}

static unsigned pin_of(const struct chip *c, unsigned rank)
{
    return (c->lowest + 1 + rank) & 7;
}

/* The pin that interrupts, or -1. */
static int pending(const struct i8259 *p, unsigned chip)
{
    const struct chip *c = &p->chip[chip];
    unsigned ask = rank(c, c->irr & (uint8_t)~c->imr), served;
    uint8_t isr = c->isr;

    if (c->special_mask) {
        isr &= (uint8_t)~c->imr;
    }
    if (c->nested && chip == 0) { /* the second chip sorts its own */
        isr &= (uint8_t) ~(1 << CASCADE);
    }
    served = rank(c, isr);
    return ask < served ? (int)pin_of(c, ask) : -1;
}

static bool by_level(const struct chip *c, unsigned pin)
{
    return c->all_level || (c->elcr >> pin & 1);
}

static void set_pin(struct chip *c, unsigned pin, bool level)
{
    uint8_t bit = (uint8_t)(1 << pin);
    bool was = c->lines & bit;

    c->lines = (uint8_t)(level ? c->lines | bit : c->lines & ~bit);
    if (by_level(c, pin)) {
        c->irr = (uint8_t)(level ? c->irr | bit : c->irr & ~bit);
    } else if (level && !was) {
        c->irr |= bit;
    } else if (!level) {
        c->irr &= (uint8_t)~bit;
    }
}

static void update(struct i8259 *p)
{
    set_pin(&p->chip[0], CASCADE, pending(p, 1) >= 0);
    irq_set(&p->dev.irq[0], pending(p, 0) >= 0);
}

/* --- wires and the processor
 * -------------------------------------------------------------------------------- */

static void pic_set(void *opaque, unsigned n, bool level)
{
    struct i8259 *p = opaque;
    unsigned pin = n % I8259_PINS, wire = n / I8259_PINS;

    bus_lock(&p->dev.lock);
    p->wires[pin] = (uint8_t)((p->wires[pin] & ~(1u << wire)) | (unsigned)level << wire);
    set_pin(&p->chip[pin / 8], pin % 8, p->wires[pin] != 0);
    update(p);
    bus_unlock(&p->dev.lock);
}

struct irq_line i8259_input(struct device *d, unsigned pin, unsigned wire)
{
    return (struct irq_line){ .set = pic_set, .opaque = d, .n = wire * I8259_PINS + pin };
}

static void accept(struct chip *c, unsigned pin)
{
    if (!c->auto_eoi) {
        c->isr |= (uint8_t)(1 << pin);
    } else if (c->rotate) {
        c->lowest = (uint8_t)pin;
    }
    if (!by_level(c, pin)) {
        c->irr &= (uint8_t) ~(1 << pin);
    }
}

/* The vector of a chip; of its lowest pin when the request has gone meanwhile. */
static int take(struct i8259 *p, unsigned chip)
{
    struct chip *c = &p->chip[chip];
    int pin = pending(p, chip);

    if (pin < 0) {
        return c->base + SPURIOUS;
    }
    accept(c, (unsigned)pin);
    return chip == 0 && pin == CASCADE ? take(p, 1) : c->base + pin;
}

int i8259_ack(struct device *d)
{
    struct i8259 *p = pic_of(d);
    int vector = -1;

    bus_lock(&d->lock);
    if (pending(p, 0) >= 0) {
        vector = take(p, 0);
        update(p);
    }
    bus_unlock(&d->lock);
    return vector;
}

/* --- registers
 * ------------------------------------------------------------------------------- */

static void initialize(struct chip *c, uint8_t value)
{
    uint8_t elcr = c->elcr, lines = c->lines;

    *c = (struct chip){ .elcr = elcr, .lines = lines, .lowest = 7, .step = 2 };
    c->single = value & ICW1_SINGLE;
    c->icw4 = value & ICW1_ICW4;
    c->all_level = value & ICW1_LEVEL;
    for (unsigned i = 0; i < 8; i++) {
        c->irr |= by_level(c, i) ? (uint8_t)(lines & 1 << i) : 0;
    }
}

static void command(struct chip *c, uint8_t value)
{
    unsigned served = rank(c, c->isr), pin = value & 7;

    switch (value >> 5) {
    case 0:
    case 4: /* rotation with automatic EOI */
        c->rotate = value >> 7;
        break;
    case 1:
    case 5: /* EOI of what is served now */
        if (served < 8) {
            c->isr &= (uint8_t) ~(1 << pin_of(c, served));
            c->lowest = value >> 7 ? (uint8_t)pin_of(c, served) : c->lowest;
        }
        break;
    case 3:
    case 7: /* of a pin */
        c->isr &= (uint8_t) ~(1 << pin);
        c->lowest = value >> 7 ? (uint8_t)pin : c->lowest;
        break;
    case 6:
        c->lowest = (uint8_t)pin;
        break;
    default:
        break;
    }
}

static void select_read(struct chip *c, uint8_t value)
{
    c->poll = value & 4;
    if (value & 2) {
        c->read_isr = value & 1;
    }
    if (value & 0x40) {
        c->special_mask = value & 0x20;
    }
}

static void w_command(struct device *d, const struct dev_reg *r, unsigned index, uint64_t old,
                      uint64_t value)
{
    struct i8259 *p = pic_of(d);
    struct chip *c = &p->chip[r->offset >= 0xa0];

    (void)index, (void)old;
    if (value & ICW1) {
        initialize(c, (uint8_t)value);
    } else if (value & OCW3) {
        select_read(c, (uint8_t)value);
    } else {
        command(c, (uint8_t)value);
    }
    update(p);
}

static void w_data(struct device *d, const struct dev_reg *r, unsigned index, uint64_t old,
                   uint64_t value)
{
    struct i8259 *p = pic_of(d);
    struct chip *c = &p->chip[r->offset >= 0xa0];

    (void)index, (void)old;
    switch (c->step) {
    case 2:
        c->base = (uint8_t)(value & 0xf8);
        c->step = c->single ? c->icw4 ? 4 : 0 : 3;
        break;
    case 3: /* where the chips meet is wired */
        c->step = c->icw4 ? 4 : 0;
        break;
    case 4:
        c->auto_eoi = value & ICW4_AUTO_EOI;
        c->nested = value & ICW4_NESTED;
        c->step = 0;
        break;
    default:
        c->imr = (uint8_t)value;
    }
    update(p);
}

/* A poll is an acknowledge that the processor makes by a read. */
static uint8_t poll(struct i8259 *p, unsigned chip)
{
    int pin = pending(p, chip);

    p->chip[chip].poll = false;
    if (pin < 0) {
        return 0;
    }
    accept(&p->chip[chip], (unsigned)pin);
    update(p);
    return (uint8_t)(0x80 | pin);
}

static uint64_t r_command(struct device *d, const struct dev_reg *r, unsigned index)
{
    struct i8259 *p = pic_of(d);
    unsigned chip = r->offset >= 0xa0;
    const struct chip *c = &p->chip[chip];

    (void)index;
    return c->poll ? poll(p, chip) : c->read_isr ? c->isr : c->irr;
}

static uint64_t r_data(struct device *d, const struct dev_reg *r, unsigned index)
{
    struct i8259 *p = pic_of(d);
    unsigned chip = r->offset >= 0xa0;

    (void)index;
    return p->chip[chip].poll ? poll(p, chip) : p->chip[chip].imr;
}

static void w_level(struct device *d, const struct dev_reg *r, unsigned index, uint64_t old,
                    uint64_t value)
{
    struct i8259 *p = pic_of(d);
    struct chip *c = &p->chip[index];

    (void)r, (void)old, (void)value;
    for (unsigned i = 0; i < 8; i++) {
        if (by_level(c, i)) {
            c->irr = (uint8_t)((c->irr & ~(1 << i)) | (c->lines & 1 << i));
        }
    }
    update(p);
}

/* Blocks at 0x20, 0xa0 and 0x4d0; the offsets of the first two say which chip. */
#define PORTS(name_, at)                                                                       \
    { .name = name_ "_COMMAND",                                                                \
      .doc = "initialization word 1 (bit 4), operation words 2 and 3; reads requests, what "   \
             "is served, a poll",                                                              \
      .offset = (at),                                                                          \
      .size = 1,                                                                               \
      .writable = 0xff,                                                                        \
      .field = DEV_NO_FIELD,                                                                   \
      .read = r_command,                                                                       \
      .written = w_command },                                                                  \
    {                                                                                          \
        .name = name_ "_DATA", .doc = "initialization words 2 to 4, then the mask",            \
        .offset = (at) + 1, .size = 1, .writable = 0xff, .field = DEV_NO_FIELD,                \
        .read = r_data, .written = w_data                                                      \
    }

static const struct dev_reg pic_regs[] = {
    PORTS("PIC1", 0x20),
    PORTS("PIC2", 0xa0),
    { .name = NULL },
};

#define LEVEL(n, writable_)                                                                    \
    {                                                                                          \
        .name = "ELCR" #n, .doc = "pins that are level-triggered", .offset = (n)-1, .size = 1, \
        .writable = (writable_), .field = offsetof(struct i8259, chip[(n)-1].elcr),            \
        .written = w_level##n                                                                  \
    }

static void w_level1(struct device *d, const struct dev_reg *r, unsigned index, uint64_t old,
                     uint64_t value)
{
    (void)index;
    w_level(d, r, 0, old, value);
}

static void w_level2(struct device *d, const struct dev_reg *r, unsigned index, uint64_t old,
                     uint64_t value)
{
    (void)index;
    w_level(d, r, 1, old, value);
}

static const struct dev_reg level_regs[] = {
    LEVEL(1, LEVEL_MASTER),
    LEVEL(2, LEVEL_SLAVE),
    { .name = NULL },
};

static const struct dev_reg_block pic_blocks[] = {
    { .name = "ports", .size = 0xa2, .regs = pic_regs, .min_size = 1, .max_size = 1 },
    { .name = "level", .size = 2, .regs = level_regs, .min_size = 1, .max_size = 1 },
    { .name = NULL },
};

/* --- class
 * ----------------------------------------------------------------------------------- */

/* Wires belong to the devices and stay. */
static void pic_reset(struct device *d)
{
    struct i8259 *p = pic_of(d);

    bus_lock(&d->lock);
    for (unsigned i = 0; i < 2; i++) {
        p->chip[i] = (struct chip){ .lines = p->chip[i].lines, .lowest = 7, .imr = 0xff };
    }
    update(p);
    bus_unlock(&d->lock);
}

static int pic_loaded(void *obj, struct err *e)
{
    struct i8259 *p = obj;

    for (unsigned i = 0; i < 2; i++) {
        if (p->chip[i].step > 4 || p->chip[i].step == 1 || p->chip[i].lowest > 7) {
            return err_set(e, -EINVAL, "i8259: chip %u is in an impossible state", i);
        }
    }
    return 0;
}

static const struct st_field chip_fields[] = {
    ST_FIELD(struct chip, irr, ST_U8, 1, "requests"),
    ST_FIELD(struct chip, isr, ST_U8, 1, "in service"),
    ST_FIELD(struct chip, imr, ST_U8, 1, "mask"),
    ST_FIELD(struct chip, base, ST_U8, 1, "vector of pin 0"),
    ST_FIELD(struct chip, elcr, ST_U8, 1, "pins that are level-triggered"),
    ST_FIELD(struct chip, lines, ST_U8, 1, "pins that are asserted"),
    ST_FIELD(struct chip, step, ST_U8, 1, "initialization word that comes next, 0: none"),
    ST_FIELD(struct chip, lowest, ST_U8, 1, "pin of the lowest priority"),
    ST_FIELD(struct chip, icw4, ST_BOOL, 1, "a fourth word comes"),
    ST_FIELD(struct chip, auto_eoi, ST_BOOL, 1, "nothing stays in service"),
    ST_FIELD(struct chip, rotate, ST_BOOL, 1, "priorities turn at each automatic EOI"),
    ST_FIELD(struct chip, nested, ST_BOOL, 1, "special fully nested mode"),
    ST_FIELD(struct chip, single, ST_BOOL, 1, "no third word comes"),
    ST_FIELD(struct chip, poll, ST_BOOL, 1, "the next read is a poll"),
    ST_FIELD(struct chip, read_isr, ST_BOOL, 1, "reads tell what is served"),
    ST_FIELD(struct chip, special_mask, ST_BOOL, 1, "masked pins do not hold back others"),
    ST_FIELD(struct chip, all_level, ST_BOOL, 1, "all pins are level-triggered"),
    ST_END,
};
static const struct st_table chip_state = {
    .name = "i8259-chip",
    .version = 1,
    .fields = chip_fields,
};
static const struct st_field pic_fields[] = {
    { .name = "chip",
      .kind = ST_STRUCT,
      .offset = offsetof(struct i8259, chip),
      .count = 2,
      .stride = sizeof(struct chip),
      .since = 1,
      .table = &chip_state,
      .doc = "the two controllers" },
    ST_ARRAY(struct i8259, wires, ST_BYTES, I8259_PINS, 1,
             "wires of each pin that are asserted"),
    ST_END,
};
static const struct st_table pic_state = {
    .name = "i8259",
    .version = 1,
    .fields = pic_fields,
    .loaded = pic_loaded,
};

const struct device_class i8259_class = {
    .name = "i8259",
    .doc = "the two interrupt controllers of a PC",
    .size = sizeof(struct i8259),
    .blocks = pic_blocks,
    .n_irqs = 1,
    .state = &pic_state,
    .reset = pic_reset,
};
