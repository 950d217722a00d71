/* SPDX-License-Identifier: Apache-2.0 */
/*
 * goldfish-rtc: real-time clock of the Android emulator's "goldfish" platform (its hardware
 * specification, GOLDFISH RTC): nanoseconds since 1970 and one alarm. vCPU threads enter by
 * MMIO, the main loop by the alarm timer.
 *
 * The guest sees the host's wall clock plus an offset that it sets by writing the time.
 */
#include "devices/registry.h"
#include "engine/core/vm.h"

struct rtc {
    struct device dev;
    uint64_t offset; /* guest time minus host time, ns, modulo 2^64 */
    uint64_t alarm;  /* ns since 1970 */
    bool alarm_armed, irq_enabled, irq_pending;
    uint32_t time_high;  /* latched by reading TIME_LOW */
    uint32_t write_high; /* halves written first */
    uint32_t alarm_high;
    struct vtimer *timer;
};

static uint64_t rtc_now(const struct rtc *t)
{
    return clock_wall(t->dev.vm->clock) + t->offset;
}

static void rtc_update_irq(struct rtc *t)
{
    irq_set(&t->dev.irq[0], t->irq_pending && t->irq_enabled);
}

static void rtc_update_alarm(struct rtc *t)
{
    uint64_t now = rtc_now(t), deadline;

    if (!t->alarm_armed) {
        vtimer_disarm(t->timer);
    } else if (t->alarm <= now) {
        t->alarm_armed = false;
        t->irq_pending = true;
        vtimer_disarm(t->timer);
        rtc_update_irq(t);
    } else if (!__builtin_add_overflow(clock_now(t->dev.vm->clock), t->alarm - now,
                                       &deadline)) {
        vtimer_arm(t->timer, deadline);
    }
}

static void rtc_timer_fired(void *arg)
{
    struct rtc *t = arg;

    bus_lock(&t->dev.lock);
    rtc_update_alarm(t);
    bus_unlock(&t->dev.lock);
}

static uint64_t rtc_read_time_low(struct device *d, const struct dev_reg *r, unsigned index)
{
    struct rtc *t = (struct rtc *)d;
    uint64_t now = rtc_now(t);

    (void)r, (void)index;
    t->time_high = now >> 32;
    return now & UINT32_MAX;
}

static uint64_t rtc_read_time_high(struct device *d, const struct dev_reg *r, unsigned index)
{
    (void)r, (void)index;
    return ((struct rtc *)d)->time_high;
}

/* Drivers write the high half first, the low half sets the clock. */
static void rtc_written_time_low(struct device *d, const struct dev_reg *r, unsigned index,
                                 uint64_t old, uint64_t value)
{
    struct rtc *t = (struct rtc *)d;

    (void)r, (void)index, (void)old;
    t->offset += ((uint64_t)t->write_high << 32 | value) - rtc_now(t);
    rtc_update_alarm(t);
}

static void rtc_written_time_high(struct device *d, const struct dev_reg *r, unsigned index,
                                  uint64_t old, uint64_t value)
{
    (void)r, (void)index, (void)old;
    ((struct rtc *)d)->write_high = value;
}

static uint64_t rtc_read_alarm_low(struct device *d, const struct dev_reg *r, unsigned index)
{
    (void)r, (void)index;
    return ((struct rtc *)d)->alarm & UINT32_MAX;
}

static uint64_t rtc_read_alarm_high(struct device *d, const struct dev_reg *r, unsigned index)
{
    (void)r, (void)index;
    return ((struct rtc *)d)->alarm >> 32;
}

static void rtc_written_alarm_low(struct device *d, const struct dev_reg *r, unsigned index,
                                  uint64_t old, uint64_t value)
{
    struct rtc *t = (struct rtc *)d;

    (void)r, (void)index, (void)old;
    t->alarm = (uint64_t)t->alarm_high << 32 | value;
    t->alarm_armed = true;
    rtc_update_alarm(t);
}

static void rtc_written_alarm_high(struct device *d, const struct dev_reg *r, unsigned index,
                                   uint64_t old, uint64_t value)
{
    (void)r, (void)index, (void)old;
    ((struct rtc *)d)->alarm_high = value;
}

static void rtc_written_enable(struct device *d, const struct dev_reg *r, unsigned index,
                               uint64_t old, uint64_t value)
{
    struct rtc *t = (struct rtc *)d;

    (void)r, (void)index, (void)old;
    t->irq_enabled = value & 1;
    rtc_update_irq(t);
}

static uint64_t rtc_read_enable(struct device *d, const struct dev_reg *r, unsigned index)
{
    (void)r, (void)index;
    return ((struct rtc *)d)->irq_enabled;
}

static void rtc_written_clear_alarm(struct device *d, const struct dev_reg *r, unsigned index,
                                    uint64_t old, uint64_t value)
{
    struct rtc *t = (struct rtc *)d;

    (void)r, (void)index, (void)old, (void)value;
    t->alarm_armed = false;
    rtc_update_alarm(t);
}

static uint64_t rtc_read_alarm_status(struct device *d, const struct dev_reg *r, unsigned index)
{
    (void)r, (void)index;
    return ((struct rtc *)d)->alarm_armed;
}

static void rtc_written_clear_irq(struct device *d, const struct dev_reg *r, unsigned index,
                                  uint64_t old, uint64_t value)
{
    struct rtc *t = (struct rtc *)d;

    (void)r, (void)index, (void)old, (void)value;
    t->irq_pending = false;
    rtc_update_irq(t);
}

static int rtc_realize(struct device *d, struct err *e)
{
    (void)e;
    ((struct rtc *)d)->timer = vtimer_new(d->vm->clock, rtc_timer_fired, d);
    return 0;
}

/* The time itself survives a reset, as on a battery. */
static void rtc_reset(struct device *d)
{
    struct rtc *t = (struct rtc *)d;

    t->alarm = 0;
    t->alarm_armed = t->irq_enabled = t->irq_pending = false;
    t->time_high = t->write_high = t->alarm_high = 0;
    vtimer_disarm(t->timer);
    rtc_update_irq(t);
}

static void rtc_destroy(struct device *d)
{
    vtimer_free(((struct rtc *)d)->timer);
}

static const struct st_field rtc_fields[] = {
    ST_FIELD(struct rtc, offset, ST_U64, 1, "guest time minus host time, ns"),
    ST_FIELD(struct rtc, alarm, ST_U64, 1, "alarm, ns since 1970"),
    ST_FIELD(struct rtc, alarm_armed, ST_BOOL, 1, "alarm waits"),
    ST_FIELD(struct rtc, irq_enabled, ST_BOOL, 1, "interrupt enabled"),
    ST_FIELD(struct rtc, irq_pending, ST_BOOL, 1, "alarm went off"),
    ST_FIELD(struct rtc, time_high, ST_U32, 1, "upper half latched by a read of the lower"),
    ST_FIELD(struct rtc, write_high, ST_U32, 1, "upper half of the time to be set"),
    ST_FIELD(struct rtc, alarm_high, ST_U32, 1, "upper half of the alarm to be set"),
    ST_FIELD(struct rtc, timer, ST_TIMER, 1, "alarm timer"),
    ST_END,
};
static const struct st_table rtc_state = {
    .name = "goldfish-rtc",
    .version = 1,
    .fields = rtc_fields,
};

static const struct dev_reg rtc_regs[] = {
    { .name = "TIME_LOW",
      .doc = "time, low half; a read latches the high half, a write sets the clock",
      .offset = 0x00,
      .size = 4,
      .writable = UINT32_MAX,
      .field = DEV_NO_FIELD,
      .read = rtc_read_time_low,
      .written = rtc_written_time_low },
    { .name = "TIME_HIGH",
      .doc = "time, high half; written first",
      .offset = 0x04,
      .size = 4,
      .writable = UINT32_MAX,
      .field = DEV_NO_FIELD,
      .read = rtc_read_time_high,
      .written = rtc_written_time_high },
    { .name = "ALARM_LOW",
      .doc = "alarm, low half; a write arms it",
      .offset = 0x08,
      .size = 4,
      .writable = UINT32_MAX,
      .field = DEV_NO_FIELD,
      .read = rtc_read_alarm_low,
      .written = rtc_written_alarm_low },
    { .name = "ALARM_HIGH",
      .doc = "alarm, high half; written first",
      .offset = 0x0c,
      .size = 4,
      .writable = UINT32_MAX,
      .field = DEV_NO_FIELD,
      .read = rtc_read_alarm_high,
      .written = rtc_written_alarm_high },
    { .name = "IRQ_ENABLED",
      .doc = "bit 0: the alarm interrupts",
      .offset = 0x10,
      .size = 4,
      .writable = 1,
      .field = DEV_NO_FIELD,
      .read = rtc_read_enable,
      .written = rtc_written_enable },
    { .name = "CLEAR_ALARM",
      .doc = "a write disarms the alarm",
      .offset = 0x14,
      .size = 4,
      .writable = UINT32_MAX,
      .field = DEV_NO_FIELD,
      .written = rtc_written_clear_alarm },
    { .name = "ALARM_STATUS",
      .doc = "1 while the alarm waits",
      .offset = 0x18,
      .size = 4,
      .field = DEV_NO_FIELD,
      .read = rtc_read_alarm_status },
    { .name = "CLEAR_INTERRUPT",
      .doc = "a write ends the interrupt",
      .offset = 0x1c,
      .size = 4,
      .writable = UINT32_MAX,
      .field = DEV_NO_FIELD,
      .written = rtc_written_clear_irq },
    { .name = NULL },
};

static const struct dev_reg_block rtc_blocks[] = {
    { .name = "mmio", .size = 0x1000, .regs = rtc_regs, .min_size = 4, .max_size = 4 },
    { .name = NULL },
};

const struct device_class goldfish_rtc_class = {
    .name = "goldfish-rtc",
    .doc = "real-time clock in nanoseconds with one alarm",
    .size = sizeof(struct rtc),
    .blocks = rtc_blocks,
    .n_irqs = 1,
    .state = &rtc_state,
    .realize = rtc_realize,
    .reset = rtc_reset,
    .destroy = rtc_destroy,
};
