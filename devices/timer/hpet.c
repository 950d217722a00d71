/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hpet: High Precision Event Timers (IA-PC HPET 1.0a): a 64-bit counter of 100 MHz and three comparators, the first periodic, too. irq[0] and irq[1] take the place of the interval timer's
 * and the clock's interrupts when the guest asks for it. vCPU threads enter by MMIO, the main loop by timers.
 */
#include "devices/timer/hpet.h"

#include "devices/registry.h"
#include "engine/core/vm.h"

#include <errno.h>
#include <stdatomic.h>

#define TIMERS 3
#define PINS 24
#define TICK_NS 10
#define PERIOD_FS 10000000u
#define SHORTEST 2000u     /* ticks that a period takes at least */
#define ROUTES 0x00ff0104u /* pins 2, 8 and 16 to 23 */

enum { CAP_64BIT = 1 << 13, CAP_LEGACY = 1 << 15 };
enum { RUNS = 1, LEGACY = 2 };
enum {
    T_LEVEL = 2,
    T_ENABLE = 4,
    T_PERIODIC = 8,
    T_CAN_REPEAT = 0x10,
    T_CAN_64 = 0x20,
    T_SET_VALUE = 0x40,
    T_32BIT = 0x100,
    T_ROUTE = 0x3e00
};

struct hpet_timer {
    uint64_t config; /* the low half; the routes that it can take are fixed */
    uint64_t comparator, period;
    struct vtimer *timer;
};

struct hpet {
    struct device dev;
    uint64_t config, status;
    uint64_t counter; /* while it stands; else what it was at the virtual time `since` */
    uint64_t since;
    struct hpet_timer t[TIMERS];
    _Atomic bool legacy; /* copy of the bit of config, for whoever sends through */
    struct irq_line pin[PINS];
};

static struct hpet *hpet_of(struct device *d)
{
    return (struct hpet *)d;
}

/* --- what is wired through
 * ------------------------------------------------------------------------------- */

static void through(void *opaque, unsigned n, bool level)
{
    struct hpet *h = opaque;

    if (!atomic_load(&h->legacy)) {
        irq_set(&h->dev.irq[n], level);
    }
}

struct irq_line hpet_legacy_input(struct device *d, unsigned which)
{
    return (struct irq_line){ .set = through, .opaque = d, .n = which };
}

void hpet_set_pin(struct device *d, unsigned pin, struct irq_line line)
{
    if (pin < PINS) {
        hpet_of(d)->pin[pin] = line;
    }
}

/* --- counting
 * -------------------------------------------------------------------------------- */

static uint64_t counter_now(const struct hpet *h)
{
    uint64_t now = clock_now(h->dev.vm->clock);

    if (!(h->config & RUNS)) {
        return h->counter;
    }
    return h->counter + (now > h->since ? (now - h->since) / TICK_NS : 0);
}

static bool repeats(const struct hpet_timer *t)
{
    return t->config & T_PERIODIC && t->period;
}

static uint64_t wrap(const struct hpet_timer *t, uint64_t v)
{
    return t->config & T_32BIT ? v & UINT32_MAX : v;
}

static const struct irq_line *line_of(struct hpet *h, unsigned n)
{
    if (h->config & LEGACY && n < 2) {
        return &h->dev.irq[n];
    }
    return &h->pin[(h->t[n].config & T_ROUTE) >> 9 & 31]; /* routed() holds */
}

static bool routed(const struct hpet *h, unsigned n)
{
    return (h->config & LEGACY && n < 2) || ROUTES >> ((h->t[n].config & T_ROUTE) >> 9) & 1;
}

static void lower(struct hpet *h, unsigned n)
{
    h->status &= ~(1ull << n);
    if (routed(h, n)) {
        irq_set(line_of(h, n), false);
    }
}

static void fire(struct hpet *h, unsigned n)
{
    struct hpet_timer *t = &h->t[n];

    if (t->config & T_LEVEL) {
        h->status |= 1ull << n;
    }
    if (!(t->config & T_ENABLE) || !routed(h, n)) {
        return;
    }
    if (!(t->config & T_LEVEL)) {
        irq_pulse(line_of(h, n));
    } else {
        irq_set(line_of(h, n), true);
    }
}

static void arm(struct hpet *h, unsigned n)
{
    struct hpet_timer *t = &h->t[n];
    uint64_t left, now = clock_now(h->dev.vm->clock);

    if (!(h->config & RUNS) || !(t->config & T_ENABLE)) {
        vtimer_disarm(t->timer);
        return;
    }
    left = wrap(t, t->comparator - counter_now(h));
    if (left == 0) {
        left = wrap(t, UINT64_MAX);
    }
    if (repeats(t) && left < SHORTEST) {
        left = SHORTEST; /* what is missed is one interrupt, see on_timer() */
    }
    /* Farther than some hundred years is never. */
    vtimer_arm(t->timer, left > UINT64_MAX / TICK_NS / 4 ? UINT64_MAX : now + left * TICK_NS);
}

static void on_timer(struct hpet *h, unsigned n)
{
    struct hpet_timer *t = &h->t[n];

    bus_lock(&h->dev.lock);
    if (h->config & RUNS && t->config & T_ENABLE) {
        if (repeats(t)) { /* one interrupt for all periods that have passed */
            uint64_t behind = wrap(t, counter_now(h) - t->comparator);

            t->comparator = wrap(t, t->comparator + (behind / t->period + 1) * t->period);
        }
        fire(h, n);
        arm(h, n);
    }
    bus_unlock(&h->dev.lock);
}

static void on_timer0(void *arg)
{
    on_timer(arg, 0);
}

static void on_timer1(void *arg)
{
    on_timer(arg, 1);
}

static void on_timer2(void *arg)
{
    on_timer(arg, 2);
}

/* --- registers
 * ------------------------------------------------------------------------------- */

static void w_config(struct device *d, const struct dev_reg *r, unsigned index, uint64_t old,
                     uint64_t value)
{
    struct hpet *h = hpet_of(d);

    (void)r, (void)index;
    h->config = old;
    if ((old ^ value) & RUNS) {
        h->counter = counter_now(h);
        h->since = clock_now(d->vm->clock);
    }
    h->config = value;
    atomic_store(&h->legacy, (value & LEGACY) != 0);
    for (unsigned i = 0; i < TIMERS; i++) {
        arm(h, i);
    }
}

static void w_status(struct device *d, const struct dev_reg *r, unsigned index, uint64_t old,
                     uint64_t value)
{
    struct hpet *h = hpet_of(d);

    (void)r, (void)index, (void)value;
    for (unsigned i = 0; i < TIMERS; i++) {
        if ((old & ~h->status) >> i & 1) {
            lower(h, i);
        }
    }
}

static uint64_t r_counter(struct device *d, const struct dev_reg *r, unsigned index)
{
    (void)r, (void)index;
    return counter_now(hpet_of(d));
}

static void w_counter(struct device *d, const struct dev_reg *r, unsigned index, uint64_t old,
                      uint64_t value)
{
    struct hpet *h = hpet_of(d);

    (void)r, (void)index, (void)old;
    if (!(h->config & RUNS)) {
        h->counter = value;
    }
}

static uint64_t r_timer_config(struct device *d, const struct dev_reg *r, unsigned index)
{
    (void)r;
    return hpet_of(d)->t[index].config | T_CAN_64 | (index == 0 ? T_CAN_REPEAT : 0) |
           (uint64_t)ROUTES << 32;
}

static void w_timer_config(struct device *d, const struct dev_reg *r, unsigned index,
                           uint64_t old, uint64_t value)
{
    struct hpet *h = hpet_of(d);
    struct hpet_timer *t = &h->t[index];

    (void)r, (void)old;
    if (h->status >> index & 1) {
        lower(h, index); /* by the old route */
    }
    t->config = value & (T_LEVEL | T_ENABLE | T_SET_VALUE | T_32BIT | T_ROUTE |
                         (index == 0 ? T_PERIODIC : 0));
    t->comparator = wrap(t, t->comparator);
    t->period = wrap(t, t->period);
    arm(h, index);
}

static uint64_t r_comparator(struct device *d, const struct dev_reg *r, unsigned index)
{
    (void)r;
    return hpet_of(d)->t[index].comparator;
}

/* Of a periodic timer: the period, and with the bit for it the next match, too. */
static void w_comparator(struct device *d, const struct dev_reg *r, unsigned index,
                         uint64_t old, uint64_t value)
{
    struct hpet *h = hpet_of(d);
    struct hpet_timer *t = &h->t[index];

    (void)r, (void)old;
    if (!(t->config & T_PERIODIC) || t->config & T_SET_VALUE) {
        t->comparator = wrap(t, value);
    }
    if (t->config & T_PERIODIC) {
        t->period = wrap(t, value);
    }
    t->config &= ~(uint64_t)T_SET_VALUE;
    arm(h, index);
}

static const struct dev_reg hpet_regs[] = {
    { .name = "CAPABILITIES",
      .doc = "revision, three timers, 64 bits, can replace the interval timer; ticks of 10 ns",
      .offset = 0,
      .size = 8,
      .reset = (uint64_t)PERIOD_FS << 32 | 0x8086u << 16 | CAP_LEGACY | CAP_64BIT |
               (TIMERS - 1) << 8 | 1,
      .field = DEV_NO_FIELD },
    { .name = "CONFIGURATION",
      .doc = "bit 0 counts, bit 1 in place of interval timer and clock",
      .offset = 0x10,
      .size = 8,
      .writable = RUNS | LEGACY,
      .field = offsetof(struct hpet, config),
      .written = w_config },
    { .name = "STATUS",
      .doc = "level-triggered interrupts that ask",
      .offset = 0x20,
      .size = 8,
      .w1c = 7,
      .field = offsetof(struct hpet, status),
      .written = w_status },
    { .name = "COUNTER",
      .doc = "main counter; written while it stands",
      .offset = 0xf0,
      .size = 8,
      .writable = UINT64_MAX,
      .field = DEV_NO_FIELD,
      .read = r_counter,
      .written = w_counter },
    { .name = "TIMER",
      .doc = "bits 1 level, 2 interrupts, 3 periodic, 6 sets the match, 8 32 bits, 9 to 13 "
             "pin; the high half: pins that it can take",
      .offset = 0x100,
      .size = 8,
      .count = TIMERS,
      .stride = 0x20,
      .writable = 0x3f4e,
      .field = DEV_NO_FIELD,
      .read = r_timer_config,
      .written = w_timer_config },
    { .name = "COMPARATOR",
      .doc = "counter at which the timer interrupts next; its period",
      .offset = 0x108,
      .size = 8,
      .count = TIMERS,
      .stride = 0x20,
      .writable = UINT64_MAX,
      .field = DEV_NO_FIELD,
      .read = r_comparator,
      .written = w_comparator },
    { .name = NULL },
};
static const struct dev_reg_block hpet_blocks[] = {
    { .name = "mmio", .size = 0x400, .regs = hpet_regs, .min_size = 4, .max_size = 8 },
    { .name = NULL },
};

/* --- class
 * ----------------------------------------------------------------------------------- */

static int hpet_realize(struct device *d, struct err *e)
{
    static void (*const fn[TIMERS])(void *arg) = { on_timer0, on_timer1, on_timer2 };

    (void)e;
    for (unsigned i = 0; i < TIMERS; i++) {
        hpet_of(d)->t[i].timer = vtimer_new(d->vm->clock, fn[i], d);
    }
    return 0;
}

static void hpet_reset(struct device *d)
{
    struct hpet *h = hpet_of(d);

    bus_lock(&d->lock);
    for (unsigned i = 0; i < TIMERS; i++) {
        lower(h, i);
        h->t[i].config = h->t[i].period = 0;
        h->t[i].comparator = UINT64_MAX;
        vtimer_disarm(h->t[i].timer);
    }
    h->config = h->status = h->counter = h->since = 0;
    atomic_store(&h->legacy, false);
    bus_unlock(&d->lock);
}

static void hpet_destroy(struct device *d)
{
    for (unsigned i = 0; i < TIMERS; i++) {
        vtimer_free(hpet_of(d)->t[i].timer);
    }
}

static int hpet_loaded(void *obj, struct err *e)
{
    struct hpet *h = obj;

    if (h->config & ~(uint64_t)(RUNS | LEGACY)) {
        return err_set(e, -EINVAL, "hpet: its configuration has bits that it does not have");
    }
    atomic_store(&h->legacy, (h->config & LEGACY) != 0);
    for (unsigned i = 0; i < TIMERS; i++) {
        h->t[i].comparator = wrap(&h->t[i], h->t[i].comparator);
        h->t[i].period = wrap(&h->t[i], h->t[i].period);
    }
    return 0;
}

static const struct st_field timer_fields[] = {
    ST_FIELD(struct hpet_timer, config, ST_U64, 1, "configuration"),
    ST_FIELD(struct hpet_timer, comparator, ST_U64, 1, "next match"),
    ST_FIELD(struct hpet_timer, period, ST_U64, 1, "period, 0: none"),
    ST_FIELD(struct hpet_timer, timer, ST_TIMER, 1, "when it interrupts next"),
    ST_END,
};
static const struct st_table timer_state = {
    .name = "hpet-timer",
    .version = 1,
    .fields = timer_fields,
};
static const struct st_field hpet_fields[] = {
    ST_FIELD(struct hpet, config, ST_U64, 1, "configuration"),
    ST_FIELD(struct hpet, status, ST_U64, 1, "level-triggered interrupts that ask"),
    ST_FIELD(struct hpet, counter, ST_U64, 1, "counter when it was started or stopped last"),
    ST_FIELD(struct hpet, since, ST_U64, 1, "virtual time of that"),
    { .name = "t",
      .kind = ST_STRUCT,
      .offset = offsetof(struct hpet, t),
      .count = TIMERS,
      .stride = sizeof(struct hpet_timer),
      .since = 1,
      .table = &timer_state,
      .doc = "the timers" },
    ST_END,
};
static const struct st_table hpet_state = {
    .name = "hpet",
    .version = 1,
    .fields = hpet_fields,
    .loaded = hpet_loaded,
};

const struct device_class hpet_class = {
    .name = "hpet",
    .doc = "high precision event timers: a counter of 100 MHz and three comparators",
    .size = sizeof(struct hpet),
    .blocks = hpet_blocks,
    .n_irqs = 2,
    .state = &hpet_state,
    .realize = hpet_realize,
    .reset = hpet_reset,
    .destroy = hpet_destroy,
};
