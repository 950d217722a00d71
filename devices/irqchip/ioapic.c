/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ioapic: I/O APIC with 24 pins (Intel 82093AA data sheet; the EOI register is that of version 0x20, ICH9 data sheet §13.5). Each pin becomes a message
 * to local APICs, by vm->msi.
 *
 * The device lock is an irqchip lock: devices call in (irq_set) with their own lock held; it calls only into the engine. Wires say
 * whether they are asserted, so that the polarity that a guest writes changes nothing.
 */
#include "devices/irqchip/ioapic.h"

#include "devices/registry.h"
#include "engine/base/log.h"
#include "engine/core/vm.h"

#include <errno.h>

#define IOAPIC_VERSION 0x20u
#define FIRST_REDIR 0x10 /* index of the low word of pin 0 */

#define REDIR_VECTOR 0xffull
#define REDIR_STATUS (1ull << 12)
#define REDIR_IRR (1ull << 14) /* sent, and not served yet */
#define REDIR_LEVEL (1ull << 15)
#define REDIR_MASKED (1ull << 16)
#define REDIR_WRITABLE (0xff0000000001ffffull & ~(REDIR_STATUS | REDIR_IRR))

struct ioapic {
    struct device dev;
    uint64_t first_id; /* property */
    uint32_t id, select;
    uint64_t redir[IOAPIC_PINS];
    uint32_t level[IOAPIC_PINS]; /* a bit for each wire */
};

static bool by_level(uint64_t redir)
{
    return (redir & (REDIR_LEVEL | REDIR_MASKED)) == REDIR_LEVEL;
}

static struct irq_message message(uint64_t redir)
{
    return (struct irq_message){ .address = 0xfee00000u | redir >> 56 << 12 |
                                            (redir >> 11 & 1) << 2,
                                 .data = (uint32_t)(redir & (REDIR_VECTOR | 7 << 8)) |
                                         (uint32_t)(redir & REDIR_LEVEL) | 1u << 14 };
}

static void send(struct ioapic *a, unsigned pin)
{
    const struct irq_msi *to = &a->dev.vm->msi;
    struct irq_message m = message(a->redir[pin]);

    if (a->redir[pin] & REDIR_LEVEL) {
        a->redir[pin] |= REDIR_IRR;
    }
    if (to->send) {
        to->send(to->opaque, m.address, m.data);
    }
}

static void again(struct ioapic *a, unsigned pin)
{
    if (by_level(a->redir[pin]) && a->level[pin] && !(a->redir[pin] & REDIR_IRR)) {
        send(a, pin);
    }
}

static void ioapic_set(void *opaque, unsigned n, bool level)
{
    struct ioapic *a = opaque;
    unsigned pin = n % IOAPIC_PINS, wire = n / IOAPIC_PINS;
    uint32_t was;

    bus_lock(&a->dev.lock);
    was = a->level[pin];
    a->level[pin] = (was & ~(1u << wire)) | (uint32_t)level << wire;
    if (a->redir[pin] & REDIR_LEVEL) {
        again(a, pin);
    } else if (!was && a->level[pin] && !(a->redir[pin] & REDIR_MASKED)) {
        send(a, pin);
    }
    bus_unlock(&a->dev.lock);
}

struct irq_line ioapic_input(struct device *ioapic, unsigned pin, unsigned wire)
{
    return (
        struct irq_line){ .set = ioapic_set, .opaque = ioapic, .n = wire * IOAPIC_PINS + pin };
}

static void served(struct ioapic *a, unsigned vector)
{
    for (unsigned i = 0; i < IOAPIC_PINS; i++) {
        if (a->redir[i] & REDIR_LEVEL && (a->redir[i] & REDIR_VECTOR) == vector) {
            a->redir[i] &= ~REDIR_IRR;
            again(a, i);
        }
    }
}

void ioapic_eoi(void *ioapic, unsigned vector)
{
    struct ioapic *a = ioapic;

    bus_lock(&a->dev.lock);
    served(a, vector);
    bus_unlock(&a->dev.lock);
}

/* The engine hears of pins whose EOI it has to tell. */
static void tell(struct ioapic *a)
{
    const struct engine_ops *engine = a->dev.vm->engine;
    struct irq_message m[IOAPIC_PINS];

    if (!engine->level_pins) {
        return;
    }
    for (unsigned i = 0; i < IOAPIC_PINS; i++) {
        m[i] = by_level(a->redir[i]) ? message(a->redir[i]) : (struct irq_message){ 0, 0 };
    }
    engine->level_pins(a->dev.vm, m, IOAPIC_PINS);
}

/* --- registers
 * ------------------------------------------------------------------------------- */

static uint64_t ioapic_read_window(struct device *d, const struct dev_reg *r, unsigned index)
{
    const struct ioapic *a = (const struct ioapic *)d;
    unsigned n = a->select - FIRST_REDIR;

    (void)r, (void)index;
    if (a->select >= FIRST_REDIR && n / 2 < IOAPIC_PINS) {
        return a->redir[n / 2] >> n % 2 * 32 & UINT32_MAX;
    }
    return a->select == 1                     ? IOAPIC_VERSION | (IOAPIC_PINS - 1) << 16
           : a->select == 0 || a->select == 2 ? a->id
                                              : 0;
}

static void write_redir(struct ioapic *a, unsigned n, uint32_t value)
{
    uint64_t *redir = &a->redir[n / 2], old = *redir, half = (uint64_t)UINT32_MAX << n % 2 * 32;
    uint64_t mask = half & REDIR_WRITABLE;

    *redir = (old & ~mask) | ((uint64_t)value << n % 2 * 32 & mask);
    if (!(*redir & REDIR_LEVEL)) {
        *redir &= ~REDIR_IRR;
    }
    if (old != *redir && (by_level(old) || by_level(*redir))) {
        tell(a);
    }
    again(a, n / 2);
}

static void ioapic_written_window(struct device *d, const struct dev_reg *r, unsigned index,
                                  uint64_t old, uint64_t value)
{
    struct ioapic *a = (struct ioapic *)d;
    unsigned n = a->select - FIRST_REDIR;

    (void)r, (void)index, (void)old;
    if (a->select == 0) {
        a->id = value & 0xff000000u;
    } else if (a->select >= FIRST_REDIR && n / 2 < IOAPIC_PINS) {
        write_redir(a, n, (uint32_t)value);
    } else {
        log_trace('u', "%s: write to register 0x%x", d->id, a->select);
    }
}

static void ioapic_written_eoi(struct device *d, const struct dev_reg *r, unsigned index,
                               uint64_t old, uint64_t value)
{
    (void)r, (void)index, (void)old;
    served((struct ioapic *)d, value & REDIR_VECTOR);
}

/* --- class
 * ----------------------------------------------------------------------------------- */

/* Wires belong to the devices and stay. */
static void ioapic_reset(struct device *d)
{
    struct ioapic *a = (struct ioapic *)d;

    a->id = (uint32_t)a->first_id << 24;
    for (unsigned i = 0; i < IOAPIC_PINS; i++) {
        a->redir[i] = REDIR_MASKED;
    }
    tell(a);
}

static int ioapic_loaded(void *obj, struct err *e)
{
    struct ioapic *a = obj;

    for (unsigned i = 0; i < IOAPIC_PINS; i++) {
        if (a->redir[i] & ~(REDIR_WRITABLE | REDIR_IRR)) {
            return err_set(e, -EINVAL, "ioapic: pin %u has bits that no register has", i);
        }
    }
    tell(a);
    return 0;
}

static const struct st_field ioapic_fields[] = {
    ST_FIELD(struct ioapic, id, ST_U32, 1, "identification register"),
    ST_FIELD(struct ioapic, select, ST_U32, 1, "register that the window shows"),
    ST_ARRAY(struct ioapic, redir, ST_U64, IOAPIC_PINS, 1, "redirection table"),
    ST_ARRAY(struct ioapic, level, ST_U32, IOAPIC_PINS, 1,
             "wires of each pin that are asserted"),
    ST_END,
};
static const struct st_table ioapic_state = {
    .name = "ioapic",
    .version = 1,
    .fields = ioapic_fields,
    .loaded = ioapic_loaded,
};

static const struct dev_reg ioapic_regs[] = {
    { .name = "IOREGSEL",
      .doc = "selects the register that IOWIN shows: 0 identification, 1 version, 2 "
             "arbitration, from 0x10 on the redirection table",
      .offset = 0,
      .size = 4,
      .writable = 0xff,
      .field = offsetof(struct ioapic, select) },
    { .name = "IOWIN",
      .doc = "the selected register",
      .offset = 0x10,
      .size = 4,
      .writable = UINT32_MAX,
      .field = DEV_NO_FIELD,
      .read = ioapic_read_window,
      .written = ioapic_written_window },
    { .name = "EOIR",
      .doc = "a vector that was served",
      .offset = 0x40,
      .size = 4,
      .writable = 0xff,
      .field = DEV_NO_FIELD,
      .written = ioapic_written_eoi },
    { .name = NULL },
};

static const struct dev_reg_block ioapic_blocks[] = {
    { .name = "mmio", .size = 0x1000, .regs = ioapic_regs, .min_size = 4, .max_size = 4 },
    { .name = NULL },
};

static const struct dev_prop ioapic_props[] = {
    { .name = "id",
      .kind = PROP_U64,
      .offset = offsetof(struct ioapic, first_id),
      .max = 255,
      .doc = "identification after a reset" },
    { .name = NULL },
};

const struct device_class ioapic_class = {
    .name = "ioapic",
    .doc = "I/O APIC with 24 pins",
    .size = sizeof(struct ioapic),
    .props = ioapic_props,
    .blocks = ioapic_blocks,
    .state = &ioapic_state,
    .reset = ioapic_reset,
};
