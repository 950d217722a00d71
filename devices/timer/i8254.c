/* SPDX-License-Identifier: Apache-2.0 */
/*
 * i8254: the interval timer of a PC with the gate of its third counter (Intel 82C54 data sheet; port 0x61: ICH9 data sheet §13.7.1). irq[0] is the output of counter 0. Counters are
 * computed from virtual time; only counter 0 has a timer. vCPU threads enter by ports, the main loop by the timer.
 */
#include "devices/registry.h"
#include "engine/core/vm.h"

#include <errno.h>

#define HZ 1193182u
#define COUNTERS 3
#define SHORTEST 24u     /* ticks between interrupts at least */
#define REFRESH_NS 15085 /* half a period of the refresh clock that port 0x61 shows */

enum { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };
enum { PORT_GATE = 1, PORT_SPEAKER = 2, PORT_REFRESH = 0x10, PORT_OUT = 0x20 };

struct counter {
    uint64_t start; /* virtual time when it was loaded or its gate rose */
    uint32_t count; /* that it begins with, 1 to 65536; 0: none was written yet */
    uint16_t latch;
    uint8_t mode, access;
    uint8_t latched;             /* bytes of the latch that were not read yet */
    uint8_t low;                 /* written, its high byte is yet to come */
    uint8_t status;              /* latched */
    bool bcd, gate, status_held; /* gate: the input's level */
    bool write_high, read_high;  /* the next access is the second of two */
};

struct pit {
    struct device dev;
    struct counter counter[COUNTERS];
    uint8_t speaker;
    struct vtimer *timer;
};

static struct pit *pit_of(struct device *d)
{
    return (struct pit *)d;
}

/* --- counting
 * -------------------------------------------------------------------------------- */

static uint64_t ticks(const struct pit *p, const struct counter *c)
{
    uint64_t now = clock_now(p->dev.vm->clock), ns = now > c->start ? now - c->start : 0;

    return (uint64_t)((unsigned __int128)ns * HZ / 1000000000u);
}

static uint64_t time_of(const struct counter *c, uint64_t tick)
{
    return c->start + (uint64_t)(((unsigned __int128)tick * 1000000000u + HZ - 1) / HZ);
}

static uint32_t count_of(const struct counter *c)
{
    return c->count ? c->count : 65536;
}

static bool periodic(const struct counter *c)
{
    return c->mode == 2 || c->mode == 3;
}

static uint16_t value_of(const struct pit *p, const struct counter *c)
{
    uint32_t n = count_of(c);
    uint64_t t = ticks(p, c);

    if (!c->gate && c->mode != 1 && c->mode != 5) {
        return (uint16_t)n; /* stands */
    }
    if (c->mode == 3) {
        return (uint16_t)(n - (2 * t % n & ~1ull));
    }
    return (uint16_t)(periodic(c) ? n - t % n : n - t);
}

static bool output_of(const struct pit *p, const struct counter *c)
{
    uint32_t n = count_of(c);
    uint64_t t = ticks(p, c);

    if (!c->count) {
        return c->mode != 0;
    }
    switch (c->mode) {
    case 0:
    case 1:
        return t >= n;
    case 2:
        return !c->gate || t % n != n - 1;
    case 3:
        return !c->gate || t % n < (n + 1) / 2;
    default:
        return t != n;
    }
}

/* Until what may interrupt next. */
static void arm(struct pit *p)
{
    const struct counter *c = &p->counter[0];
    uint64_t n = count_of(c), t = ticks(p, c);

    if (!c->count) {
        vtimer_disarm(p->timer);
    } else if (periodic(c)) {
        n = n < SHORTEST ? n * ((SHORTEST + n - 1) / n)
                         : n; /* what is left out is one interrupt */
        vtimer_arm(p->timer, time_of(c, (t / n + 1) * n));
    } else if (t < n) {
        vtimer_arm(p->timer, time_of(c, n));
    } else {
        vtimer_disarm(p->timer);
    }
}

static void on_timer(void *arg)
{
    struct pit *p = arg;

    bus_lock(&p->dev.lock);
    irq_set(&p->dev.irq[0], false); /* an edge each time, however late */
    irq_set(&p->dev.irq[0], true);
    arm(p);
    bus_unlock(&p->dev.lock);
}

static void started(struct pit *p, struct counter *c)
{
    c->start = clock_now(p->dev.vm->clock);
    if (c == &p->counter[0]) {
        irq_set(&p->dev.irq[0], output_of(p, c));
        arm(p);
    }
}

/* --- registers
 * ------------------------------------------------------------------------------- */

static uint32_t from_bcd(uint16_t v)
{
    return (v & 15u) + (v >> 4 & 15u) * 10 + (v >> 8 & 15u) * 100 + (v >> 12) * 1000u;
}

static uint16_t to_bcd(uint32_t v)
{
    v %= 10000;
    return (uint16_t)(v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 << 12);
}

static uint16_t shown(const struct pit *p, const struct counter *c)
{
    uint16_t v = value_of(p, c);

    return c->bcd ? to_bcd(v) : v;
}

static void load(struct pit *p, struct counter *c, uint16_t value)
{
    uint32_t n = c->bcd ? from_bcd(value) : value;

    c->count = n ? n : c->bcd ? 10000 : 65536;
    started(p, c);
}

static void latch_count(struct pit *p, struct counter *c)
{
    if (!c->latched) {
        c->latch = shown(p, c);
        c->latched = c->access == ACCESS_BOTH ? 2 : 1;
    }
}

static void latch_status(struct pit *p, struct counter *c)
{
    if (!c->status_held) {
        c->status = (uint8_t)(output_of(p, c) << 7 | !c->count << 6 | c->access << 4 |
                              c->mode << 1 | c->bcd);
        c->status_held = true;
    }
}

static void read_back(struct pit *p, uint8_t value)
{
    for (unsigned i = 0; i < COUNTERS; i++) {
        if (value >> (i + 1) & 1) {
            if (!(value & 0x20)) {
                latch_count(p, &p->counter[i]);
            }
            if (!(value & 0x10)) {
                latch_status(p, &p->counter[i]);
            }
        }
    }
}

static void w_control(struct device *d, const struct dev_reg *r, unsigned index, uint64_t old,
                      uint64_t value)
{
    struct pit *p = pit_of(d);
    unsigned n = (unsigned)value >> 6, access = value >> 4 & 3;

    (void)r, (void)index, (void)old;
    if (n == 3) {
        read_back(p, (uint8_t)value);
        return;
    }
    struct counter *c = &p->counter[n];
    if (access == ACCESS_LATCH) {
        latch_count(p, c);
        return;
    }
    *c = (struct counter){ .gate = c->gate,
                           .access = (uint8_t)access,
                           .mode = value >> 1 & 7,
                           .bcd = value & 1,
                           .start = clock_now(d->vm->clock) };
    c->mode = c->mode > 5 ? c->mode - 4 : c->mode;
    if (n == 0) {
        irq_set(&d->irq[0], c->mode != 0);
        arm(p);
    }
}

static void w_counter(struct device *d, const struct dev_reg *r, unsigned index, uint64_t old,
                      uint64_t value)
{
    struct pit *p = pit_of(d);
    struct counter *c = &p->counter[index];

    (void)r, (void)old;
    switch (c->access) {
    case ACCESS_LOW:
        load(p, c, (uint16_t)value);
        break;
    case ACCESS_HIGH:
        load(p, c, (uint16_t)(value << 8));
        break;
    default:
        if (c->write_high) {
            load(p, c, (uint16_t)(value << 8 | c->low));
        }
        c->low = (uint8_t)value;
        c->write_high = !c->write_high;
    }
}

static uint64_t r_counter(struct device *d, const struct dev_reg *r, unsigned index)
{
    struct pit *p = pit_of(d);
    struct counter *c = &p->counter[index];
    uint16_t v;

    (void)r;
    if (c->status_held) {
        c->status_held = false;
        return c->status;
    }
    v = c->latched ? c->latch : shown(p, c);
    if (c->latched) {
        c->latched--;
    }
    if (c->access == ACCESS_LOW) {
        return v & 0xff;
    }
    if (c->access == ACCESS_HIGH) {
        return v >> 8;
    }
    c->read_high = !c->read_high;
    return c->read_high ? v & 0xff : v >> 8;
}

static uint64_t r_speaker(struct device *d, const struct dev_reg *r, unsigned index)
{
    const struct pit *p = pit_of(d);
    bool refresh = clock_now(d->vm->clock) / REFRESH_NS & 1;

    (void)r, (void)index;
    return p->speaker | (refresh ? PORT_REFRESH : 0u) |
           (output_of(p, &p->counter[2]) ? PORT_OUT : 0u);
}

static void w_speaker(struct device *d, const struct dev_reg *r, unsigned index, uint64_t old,
                      uint64_t value)
{
    struct pit *p = pit_of(d);
    struct counter *c = &p->counter[2];
    bool gate = value & PORT_GATE;

    (void)r, (void)index, (void)old;
    if (gate && !c->gate && c->mode != 0 &&
        c->mode != 4) { /* these two go on from where they stood; near enough from the start */
        started(p, c);
    } else if (gate && !c->gate) {
        c->start = clock_now(d->vm->clock);
    }
    c->gate = gate;
    p->speaker = (uint8_t)value;
}

static const struct dev_reg pit_regs[] = {
    { .name = "COUNTER",
      .doc = "counts 0 to 2: low byte, high byte or both in turn, as the control word says",
      .offset = 0,
      .size = 1,
      .count = COUNTERS,
      .writable = 0xff,
      .field = DEV_NO_FIELD,
      .read = r_counter,
      .written = w_counter },
    { .name = "CONTROL",
      .doc = "bits 7-6 counter (3: read back), 5-4 access (0: latch), 3-1 mode, 0 BCD",
      .offset = 3,
      .size = 1,
      .writable = 0xff,
      .field = DEV_NO_FIELD,
      .written = w_control },
    { .name = NULL },
};
static const struct dev_reg speaker_regs[] = {
    { .name = "NMI_SC",
      .doc = "bit 0 gate of counter 2, 1 speaker, 4 turns with the refresh clock, 5 output of "
             "counter 2",
      .offset = 0,
      .size = 1,
      .writable = 0x0f,
      .field = DEV_NO_FIELD,
      .read = r_speaker,
      .written = w_speaker },
    { .name = NULL },
};
static const struct dev_reg_block pit_blocks[] = {
    { .name = "counters", .size = 4, .regs = pit_regs, .min_size = 1, .max_size = 1 },
    { .name = "speaker", .size = 1, .regs = speaker_regs, .min_size = 1, .max_size = 1 },
    { .name = NULL },
};

/* --- class
 * ----------------------------------------------------------------------------------- */

static int pit_realize(struct device *d, struct err *e)
{
    (void)e;
    pit_of(d)->timer = vtimer_new(d->vm->clock, on_timer, d);
    return 0;
}

static void pit_reset(struct device *d)
{
    struct pit *p = pit_of(d);

    bus_lock(&d->lock);
    for (unsigned i = 0; i < COUNTERS; i++) {
        p->counter[i] = (struct counter){ .gate = i != 2, .mode = 3, .access = ACCESS_BOTH };
    }
    p->speaker = 0;
    vtimer_disarm(p->timer);
    irq_set(&d->irq[0], false);
    bus_unlock(&d->lock);
}

static void pit_destroy(struct device *d)
{
    vtimer_free(pit_of(d)->timer);
}

static int pit_loaded(void *obj, struct err *e)
{
    const struct pit *p = obj;

    for (unsigned i = 0; i < COUNTERS; i++) {
        const struct counter *c = &p->counter[i];

        if (c->count > 65536 || c->mode > 5 || c->access > ACCESS_BOTH || c->latched > 2) {
            return err_set(e, -EINVAL, "i8254: counter %u is in an impossible state", i);
        }
    }
    return 0;
}

static const struct st_field counter_fields[] = {
    ST_FIELD(struct counter, start, ST_U64, 1, "virtual time when it began to count, ns"),
    ST_FIELD(struct counter, count, ST_U32, 1, "what it began with, 0: nothing yet"),
    ST_FIELD(struct counter, latch, ST_U16, 1, "count that waits to be read"),
    ST_FIELD(struct counter, mode, ST_U8, 1, "mode, 0 to 5"),
    ST_FIELD(struct counter, access, ST_U8, 1, "which bytes are written and read"),
    ST_FIELD(struct counter, latched, ST_U8, 1, "bytes of it that were not read yet"),
    ST_FIELD(struct counter, low, ST_U8, 1, "low byte whose high byte is to come"),
    ST_FIELD(struct counter, status, ST_U8, 1, "status that waits to be read"),
    ST_FIELD(struct counter, bcd, ST_BOOL, 1, "counts in decimal"),
    ST_FIELD(struct counter, gate, ST_BOOL, 1, "gate"),
    ST_FIELD(struct counter, status_held, ST_BOOL, 1, "a status waits"),
    ST_FIELD(struct counter, write_high, ST_BOOL, 1, "the high byte is written next"),
    ST_FIELD(struct counter, read_high, ST_BOOL, 1, "the high byte is read next"),
    ST_END,
};
static const struct st_table counter_state = {
    .name = "i8254-counter",
    .version = 1,
    .fields = counter_fields,
};
static const struct st_field pit_fields[] = {
    { .name = "counter",
      .kind = ST_STRUCT,
      .offset = offsetof(struct pit, counter),
      .count = COUNTERS,
      .stride = sizeof(struct counter),
      .since = 1,
      .table = &counter_state,
      .doc = "the counters" },
    ST_FIELD(struct pit, speaker, ST_U8, 1, "port 0x61"),
    ST_FIELD(struct pit, timer, ST_TIMER, 1, "next interrupt"),
    ST_END,
};
static const struct st_table pit_state = {
    .name = "i8254",
    .version = 1,
    .fields = pit_fields,
    .loaded = pit_loaded,
};

const struct device_class i8254_class = {
    .name = "i8254",
    .doc = "interval timer of a PC and the gate of its speaker",
    .size = sizeof(struct pit),
    .blocks = pit_blocks,
    .n_irqs = 1,
    .state = &pit_state,
    .realize = pit_realize,
    .reset = pit_reset,
    .destroy = pit_destroy,
};
