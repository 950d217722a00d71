/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mc146818: real-time clock and CMOS memory of a PC (Motorola MC146818 data sheet; ICH9 data sheet §13.6): index at offset 0, data at 1. irq[0] is the interrupt, periodic, alarm and
 * update-ended. The time is the host's plus an offset that the guest sets. vCPU threads enter by ports, the main loop by the timer.
 */
#include "devices/timer/mc146818.h"

#include "devices/registry.h"
#include "engine/core/vm.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define NS 1000000000ull
#define BYTES 128
#define LAST_YEAR 2200 /* ns since 1970 have 64 bits */
enum {
    SECOND,
    SECOND_ALARM,
    MINUTE,
    MINUTE_ALARM,
    HOUR,
    HOUR_ALARM,
    WEEKDAY,
    DAY,
    MONTH,
    YEAR
};
enum { REG_A = 10, REG_B, REG_C, REG_D, CENTURY = 0x32 };
enum { A_UPDATING = 0x80, A_RATE = 0x0f, A_DIVIDER = 0x70, A_RUNS = 0x20 };
enum {
    B_DST = 1,
    B_24H = 2,
    B_BINARY = 4,
    B_UPDATE = 0x10,
    B_ALARM = 0x20,
    B_PERIODIC = 0x40,
    B_SET = 0x80
};
enum { C_IRQ = 0x80, D_VALID = 0x80 };
enum { SHUTDOWN_STATUS = 0x0f, FROM_SLEEP = 0xfe }; /* what firmware of PCs looks at first */
#define UPDATE_NS 244000 /* how long before a second the time is about to change */

struct rtc {
    struct device dev;
    uint8_t initial[BYTES]; /* the board's */
    uint8_t byte[BYTES];    /* the time among them while it is being set */
    uint8_t index;
    int64_t offset;         /* guest time minus host time, ns */
    uint64_t periodic_from; /* virtual time of the last periodic interrupt that was due */
    uint64_t second;        /* of the guest's time that was looked at last */
    struct vtimer *timer;
};

static struct rtc *rtc_of(struct device *d)
{
    return (struct rtc *)d;
}

void mc146818_set(struct device *d, unsigned at, uint8_t value)
{
    struct rtc *t = rtc_of(d);

    if (at > REG_D && at < BYTES) {
        t->initial[at] = t->byte[at] = value;
    }
}

/* --- the time as bytes
 * ----------------------------------------------------------------------- */

static uint64_t now_ns(const struct rtc *t)
{
    return clock_wall(t->dev.vm->clock) + (uint64_t)t->offset;
}

static uint8_t encode(const struct rtc *t, unsigned v)
{
    return (uint8_t)(t->byte[REG_B] & B_BINARY ? v : v / 10 % 10 << 4 | v % 10);
}

static unsigned decode(const struct rtc *t, uint8_t v)
{
    return t->byte[REG_B] & B_BINARY ? v : (v >> 4) * 10u + (v & 15u);
}

static uint8_t encode_hour(const struct rtc *t, unsigned hour)
{
    if (t->byte[REG_B] & B_24H) {
        return encode(t, hour);
    }
    return (uint8_t)(encode(t, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0));
}

static unsigned decode_hour(const struct rtc *t, uint8_t v)
{
    if (t->byte[REG_B] & B_24H) {
        return decode(t, v);
    }
    return decode(t, v & 0x7f) % 12 + (v & 0x80 ? 12 : 0);
}

static void fill(struct rtc *t)
{
    time_t s = (time_t)(now_ns(t) / NS);
    struct tm tm;

    if (t->byte[REG_B] & B_SET || !gmtime_r(&s, &tm)) {
        return; /* stands while it is set */
    }
    t->byte[SECOND] = encode(t, (unsigned)tm.tm_sec);
    t->byte[MINUTE] = encode(t, (unsigned)tm.tm_min);
    t->byte[HOUR] = encode_hour(t, (unsigned)tm.tm_hour);
    t->byte[WEEKDAY] = encode(t, (unsigned)tm.tm_wday + 1);
    t->byte[DAY] = encode(t, (unsigned)tm.tm_mday);
    t->byte[MONTH] = encode(t, (unsigned)tm.tm_mon + 1);
    t->byte[YEAR] = encode(t, (unsigned)tm.tm_year % 100);
    t->byte[CENTURY] = encode(t, ((unsigned)tm.tm_year + 1900) / 100);
}

/* What the guest has written becomes the time. */
static void take(struct rtc *t)
{
    unsigned year = decode(t, t->byte[CENTURY]) * 100 + decode(t, t->byte[YEAR]);
    struct tm tm = { .tm_sec = (int)decode(t, t->byte[SECOND]),
                     .tm_min = (int)decode(t, t->byte[MINUTE]),
                     .tm_hour = (int)decode_hour(t, t->byte[HOUR]),
                     .tm_mday = (int)decode(t, t->byte[DAY]),
                     .tm_mon = (int)decode(t, t->byte[MONTH]) - 1,
                     .tm_year = (int)(year < 1970        ? 1970
                                      : year > LAST_YEAR ? LAST_YEAR
                                                         : year) -
                                1900 };
    int64_t wanted = (int64_t)timegm(&tm);

    wanted = wanted < 0 ? 0 : wanted; /* fields may carry it before 1970 */
    t->offset = (int64_t)((uint64_t)t->offset + ((uint64_t)wanted - now_ns(t) / NS) * NS);
    t->second = now_ns(t) / NS;
}

/* --- interrupts
 * ------------------------------------------------------------------------------ */

static void update_irq(struct rtc *t)
{
    uint8_t why = t->byte[REG_C] & t->byte[REG_B] & (B_UPDATE | B_ALARM | B_PERIODIC);

    t->byte[REG_C] = (uint8_t)((t->byte[REG_C] & ~C_IRQ) | (why ? C_IRQ : 0));
    irq_set(&t->dev.irq[0], why != 0);
}

/* 0: none. Rates 1 and 2 are those of 8 and 9. */
static uint64_t period(const struct rtc *t)
{
    unsigned rate = t->byte[REG_A] & A_RATE;

    if (!rate || !(t->byte[REG_B] & B_PERIODIC)) {
        return 0;
    }
    rate = rate < 3 ? rate + 7 : rate;
    return (NS << (rate - 1)) / 32768;
}

static bool alarm_matches(const struct rtc *t, unsigned alarm, unsigned at)
{
    return (t->byte[alarm] & 0xc0) == 0xc0 || t->byte[alarm] == t->byte[at];
}

/* Flags of what has come since it was looked last. */
static void look(struct rtc *t)
{
    uint64_t every = period(t), now = clock_now(t->dev.vm->clock), second = now_ns(t) / NS;

    if (every && now >= t->periodic_from + every) {
        t->periodic_from += (now - t->periodic_from) / every * every;
        t->byte[REG_C] |= B_PERIODIC;
    }
    if (second != t->second && !(t->byte[REG_B] & B_SET)) {
        t->second = second;
        fill(t);
        t->byte[REG_C] |= B_UPDATE;
        if (alarm_matches(t, SECOND_ALARM, SECOND) && alarm_matches(t, MINUTE_ALARM, MINUTE) &&
            alarm_matches(t, HOUR_ALARM, HOUR)) {
            t->byte[REG_C] |= B_ALARM;
        }
    }
}

/* A timer runs only for interrupts that are wanted. */
static void arm(struct rtc *t)
{
    uint64_t every = period(t), now = clock_now(t->dev.vm->clock), next = UINT64_MAX;

    if (every) {
        next = t->periodic_from + every;
    }
    if (t->byte[REG_B] & (B_UPDATE | B_ALARM) && !(t->byte[REG_B] & B_SET)) {
        uint64_t left = NS - now_ns(t) % NS;

        next = now + left < next ? now + left : next;
    }
    if (next == UINT64_MAX) {
        vtimer_disarm(t->timer);
    } else {
        vtimer_arm(t->timer, next);
    }
}

static void on_timer(void *arg)
{
    struct rtc *t = arg;

    bus_lock(&t->dev.lock);
    look(t);
    update_irq(t);
    arm(t);
    bus_unlock(&t->dev.lock);
}

/* --- registers
 * ------------------------------------------------------------------------------- */

static uint64_t r_data(struct device *d, const struct dev_reg *r, unsigned index)
{
    struct rtc *t = rtc_of(d);
    uint8_t v;

    (void)r, (void)index;
    look(t);
    switch (t->index) {
    case REG_A:
        return t->byte[REG_A] |
               (!(t->byte[REG_B] & B_SET) && NS - now_ns(t) % NS <= UPDATE_NS ? A_UPDATING
                                                                              : 0u);
    case REG_C:
        update_irq(t);
        v = t->byte[REG_C];
        t->byte[REG_C] = 0;
        update_irq(t);
        arm(t);
        return v;
    case REG_D:
        return D_VALID;
    default:
        fill(t);
        return t->byte[t->index];
    }
}

static void w_control(struct rtc *t, uint8_t value)
{
    uint8_t was = t->byte[REG_B];

    fill(t); /* before it stands */
    t->byte[REG_B] = value;
    if (!(was & B_SET) && value & B_SET) {
        t->byte[REG_B] &= (uint8_t)~B_UPDATE;
    } else if (was & B_SET && !(value & B_SET)) {
        take(t);
    }
    if (!(was & B_PERIODIC) && value & B_PERIODIC) {
        t->periodic_from = clock_now(t->dev.vm->clock);
    }
}

static void w_data(struct device *d, const struct dev_reg *r, unsigned index, uint64_t old,
                   uint64_t value)
{
    struct rtc *t = rtc_of(d);
    uint8_t at = t->index, v = (uint8_t)value;

    (void)r, (void)index, (void)old;
    look(t);
    if (at == REG_A) {
        t->byte[REG_A] = v & (uint8_t)~A_UPDATING;
        t->periodic_from = clock_now(d->vm->clock);
    } else if (at == REG_B) {
        w_control(t, v);
    } else if (at == REG_C || at == REG_D) {
        return;
    } else {
        bool time = at == SECOND || at == MINUTE ||
                    (at >= HOUR && at <= YEAR && at != HOUR_ALARM) || at == CENTURY;

        if (time) {
            fill(t);
        }
        t->byte[at] = v;
        if (time && !(t->byte[REG_B] & B_SET)) {
            take(t);
        }
    }
    update_irq(t);
    arm(t);
}

static const struct dev_reg rtc_regs[] = {
    { .name = "INDEX",
      .doc = "which byte DATA shows; bit 7 is the NMI's mask, which is not kept",
      .offset = 0,
      .size = 1,
      .writable = 0x7f,
      .field = offsetof(struct rtc, index) },
    { .name = "DATA",
      .doc = "the byte: 0 to 9 time and alarm, 10 to 13 control, 0x32 century, the rest memory",
      .offset = 1,
      .size = 1,
      .writable = 0xff,
      .field = DEV_NO_FIELD,
      .read = r_data,
      .written = w_data },
    { .name = NULL },
};
static const struct dev_reg_block rtc_blocks[] = {
    { .name = "ports", .size = 2, .regs = rtc_regs, .min_size = 1, .max_size = 1 },
    { .name = NULL },
};

/* --- class
 * ----------------------------------------------------------------------------------- */

static int rtc_realize(struct device *d, struct err *e)
{
    struct rtc *t = rtc_of(d);

    (void)e;
    t->timer = vtimer_new(d->vm->clock, on_timer, d);
    t->byte[REG_A] = A_RUNS | 6;
    t->byte[REG_B] = B_24H;
    t->second = now_ns(t) / NS;
    return 0;
}

/* Time and memory are on a battery, what the board has put there comes back. */
static void rtc_reset(struct device *d)
{
    struct rtc *t = rtc_of(d);

    bus_lock(&d->lock);
    for (unsigned i = REG_D + 1; i < BYTES; i++) {
        t->byte[i] = t->initial[i] ? t->initial[i] : t->byte[i];
    }
    if (d->vm->waking) {
        t->byte[SHUTDOWN_STATUS] = FROM_SLEEP;
    }
    t->byte[REG_B] &= (uint8_t) ~(B_UPDATE | B_ALARM | B_PERIODIC | B_SET);
    t->byte[REG_C] = 0;
    update_irq(t);
    arm(t);
    bus_unlock(&d->lock);
}

static void rtc_destroy(struct device *d)
{
    vtimer_free(rtc_of(d)->timer);
}

static int rtc_loaded(void *obj, struct err *e)
{
    struct rtc *t = obj;
    uint64_t now = clock_now(t->dev.vm->clock);

    if (t->index >= BYTES) {
        return err_set(e, -EINVAL, "mc146818: index %u, there are %d bytes", t->index, BYTES);
    }
    t->periodic_from = t->periodic_from < now ? t->periodic_from : now;
    return 0;
}

static const struct st_field rtc_fields[] = {
    ST_ARRAY(struct rtc, byte, ST_BYTES, BYTES, 1, "time, control registers and memory"),
    ST_FIELD(struct rtc, index, ST_U8, 1, "byte that DATA shows"),
    ST_FIELD(struct rtc, offset, ST_U64, 1, "guest time minus host time, ns"),
    ST_FIELD(struct rtc, periodic_from, ST_U64, 1,
             "virtual time of the last periodic interrupt"),
    ST_FIELD(struct rtc, second, ST_U64, 1, "second of the last update"),
    ST_FIELD(struct rtc, timer, ST_TIMER, 1, "next interrupt"),
    ST_END,
};
static const struct st_table rtc_state = {
    .name = "mc146818",
    .version = 1,
    .fields = rtc_fields,
    .loaded = rtc_loaded,
};

const struct device_class mc146818_class = {
    .name = "mc146818",
    .doc = "real-time clock and CMOS memory of a PC",
    .size = sizeof(struct rtc),
    .blocks = rtc_blocks,
    .n_irqs = 1,
    .state = &rtc_state,
    .realize = rtc_realize,
    .reset = rtc_reset,
    .destroy = rtc_destroy,
};
