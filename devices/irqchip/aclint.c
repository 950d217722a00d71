/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aclint: RISC-V Advanced Core Local Interruptor (ACLINT specification 1.0), laid out like the
 * SiFive CLINT: MSWI at 0, MTIMER compare registers at 0x4000, mtime at 0xbff8. Drives MSIP and
 * MTIP of every hart.
 *
 * vCPU threads enter by MMIO, the main loop by timers; the device lock covers all. mtime ticks
 * at RISCV_TIMEBASE_HZ of the virtual clock.
 */
#include "devices/registry.h"
#include "engine/arch/riscv/cpu.h"
#include "engine/core/vm.h"

#include <errno.h>

#define MAX_HARTS 512
#define NS_PER_TICK (1000000000u / RISCV_TIMEBASE_HZ)

struct aclint;
struct aclint_hart {
    struct aclint *owner;
    unsigned index;
    struct vtimer *timer;
};

struct aclint {
    struct device dev;
    uint32_t msip[MAX_HARTS];
    uint64_t mtimecmp[MAX_HARTS];
    uint64_t time_offset; /* mtime minus virtual time, in ticks */
    struct aclint_hart *harts;
    unsigned n_harts;
};

static uint64_t aclint_time(const struct aclint *a)
{
    return clock_now(a->dev.vm->clock) / NS_PER_TICK + a->time_offset;
}

/* MTIP follows mtime >= mtimecmp; the timer fires when that becomes true. */
static void aclint_update_timer(struct aclint *a, unsigned h)
{
    uint64_t cmp = a->mtimecmp[h], now = aclint_time(a);
    uint64_t wait = cmp - now, now_ns = clock_now(a->dev.vm->clock);

    if (now >= cmp) {
        vtimer_disarm(a->harts[h].timer);
        vcpu_irq_set(a->dev.vm->vcpus[h], RISCV_IRQ_MTI, true);
        return;
    }
    vcpu_irq_set(a->dev.vm->vcpus[h], RISCV_IRQ_MTI, false);
    if (wait >= (UINT64_MAX - now_ns) / NS_PER_TICK) {
        vtimer_disarm(a->harts[h].timer); /* centuries away */
    } else {
        /* The tick boundary, not now plus the distance: never early, never a tick late. */
        vtimer_arm(a->harts[h].timer, (now_ns / NS_PER_TICK + wait) * NS_PER_TICK);
    }
}

static void aclint_timer_fired(void *arg)
{
    struct aclint_hart *h = arg;

    bus_lock(&h->owner->dev.lock);
    aclint_update_timer(h->owner, h->index);
    bus_unlock(&h->owner->dev.lock);
}

static void aclint_written_msip(struct device *d, const struct dev_reg *r, unsigned index,
                                uint64_t old, uint64_t value)
{
    struct aclint *a = (struct aclint *)d;

    (void)r, (void)old, (void)value;
    if (index < a->n_harts) {
        vcpu_irq_set(d->vm->vcpus[index], RISCV_IRQ_MSI, a->msip[index] & 1);
    } else {
        a->msip[index] = 0; /* no such hart: hardwired to zero */
    }
}

static void aclint_written_cmp(struct device *d, const struct dev_reg *r, unsigned index,
                               uint64_t old, uint64_t value)
{
    struct aclint *a = (struct aclint *)d;

    (void)r, (void)old, (void)value;
    if (index < a->n_harts) {
        aclint_update_timer(a, index);
    } else {
        a->mtimecmp[index] = UINT64_MAX;
    }
}

static uint64_t aclint_read_time(struct device *d, const struct dev_reg *r, unsigned index)
{
    (void)r, (void)index;
    return aclint_time((struct aclint *)d);
}

static void aclint_written_time(struct device *d, const struct dev_reg *r, unsigned index,
                                uint64_t old, uint64_t value)
{
    struct aclint *a = (struct aclint *)d;

    (void)r, (void)index, (void)old;
    a->time_offset += value - aclint_time(a);
    riscv_time_set_offset(d->vm, a->time_offset);
    for (unsigned h = 0; h < a->n_harts; h++) {
        aclint_update_timer(a, h);
    }
}

static int aclint_realize(struct device *d, struct err *e)
{
    struct aclint *a = (struct aclint *)d;

    if (d->vm->n_vcpus > MAX_HARTS) {
        return err_set(e, -EINVAL, "aclint: %u harts, at most %d can be served", d->vm->n_vcpus,
                       MAX_HARTS);
    }
    a->n_harts = d->vm->n_vcpus;
    a->harts = xnew_n(struct aclint_hart, a->n_harts);
    for (unsigned h = 0; h < a->n_harts; h++) {
        a->harts[h].owner = a;
        a->harts[h].index = h;
        a->harts[h].timer = vtimer_new(d->vm->clock, aclint_timer_fired, &a->harts[h]);
    }
    return 0;
}

static void aclint_reset(struct device *d)
{
    struct aclint *a = (struct aclint *)d;

    a->time_offset = 0;
    riscv_time_set_offset(d->vm, 0);
    for (unsigned h = 0; h < a->n_harts; h++) {
        vcpu_irq_set(d->vm->vcpus[h], RISCV_IRQ_MSI, false);
        aclint_update_timer(a, h);
    }
}

static void aclint_destroy(struct device *d)
{
    struct aclint *a = (struct aclint *)d;

    for (unsigned h = 0; h < a->n_harts; h++) {
        vtimer_free(a->harts[h].timer);
    }
    free(a->harts);
}

/* Timers and interrupt levels follow from the registers. */
static int aclint_loaded(void *obj, struct err *e)
{
    struct aclint *a = obj;

    (void)e;
    riscv_time_set_offset(a->dev.vm, a->time_offset);
    for (unsigned h = 0; h < a->n_harts; h++) {
        vcpu_irq_set(a->dev.vm->vcpus[h], RISCV_IRQ_MSI, a->msip[h] & 1);
        aclint_update_timer(a, h);
    }
    return 0;
}

static const struct st_field aclint_fields[] = {
    ST_ARRAY(struct aclint, msip, ST_U32, MAX_HARTS, 1, "software interrupt of each hart"),
    ST_ARRAY(struct aclint, mtimecmp, ST_U64, MAX_HARTS, 1, "timer compare of each hart"),
    ST_FIELD(struct aclint, time_offset, ST_U64, 1, "mtime minus virtual time, ticks"),
    ST_END,
};

static const struct st_table aclint_state = {
    .name = "aclint",
    .version = 1,
    .fields = aclint_fields,
    .loaded = aclint_loaded,
};

static const struct dev_reg aclint_regs[] = {
    { .name = "MSIP",
      .doc = "bit 0: software interrupt of hart n",
      .offset = 0,
      .size = 4,
      .count = MAX_HARTS,
      .writable = 1,
      .field = offsetof(struct aclint, msip),
      .written = aclint_written_msip },
    { .name = "MTIMECMP",
      .doc = "timer compare of hart n",
      .offset = 0x4000,
      .size = 8,
      .count = MAX_HARTS,
      .writable = UINT64_MAX,
      .reset = UINT64_MAX,
      .field = offsetof(struct aclint, mtimecmp),
      .written = aclint_written_cmp },
    { .name = "MTIME",
      .doc = "time in ticks of the timebase",
      .offset = 0xbff8,
      .size = 8,
      .writable = UINT64_MAX,
      .field = DEV_NO_FIELD,
      .read = aclint_read_time,
      .written = aclint_written_time },
    { .name = NULL },
};

static const struct dev_reg_block aclint_blocks[] = {
    { .name = "mmio", .size = 0x10000, .regs = aclint_regs, .min_size = 4, .max_size = 8 },
    { .name = NULL },
};

const struct device_class aclint_class = {
    .name = "aclint",
    .doc = "RISC-V software and timer interrupts (ACLINT MSWI and MTIMER, CLINT layout)",
    .size = sizeof(struct aclint),
    .blocks = aclint_blocks,
    .state = &aclint_state,
    .realize = aclint_realize,
    .reset = aclint_reset,
    .destroy = aclint_destroy,
};
