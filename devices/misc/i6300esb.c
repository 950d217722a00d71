/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watchdog timer of Intel's 6300ESB (datasheet 300641, chapter 16), as Linux's i6300esb drives it. vCPU threads enter by MMIO and
 * configuration space with the device's lock; its timer runs on the main loop.
 *
 * Two stages count down one after the other, each from a preload of 20 bits, in units of 2^15 or 2^5 ticks of 33 MHz. The end of the
 * second one is what the host acts upon. A reload (bit 8 of RELOAD, unlocked by 0x80 and 0x86 first, as every register is)
 * starts the first stage anew.
 */
#include "devices/misc/i6300esb.h"

#include "devices/bus/pci.h"
#include "devices/registry.h"
#include "engine/base/log.h"
#include "engine/core/vm.h"

#define CONFIG 0x60 /* 16 bits, of configuration space */
#define LOCK 0x68   /* 8 bits */
#define TICK_HZ UINT64_C(33000000)

enum { CONFIG_FAST = 1 << 2, CONFIG_NO_REBOOT = 1 << 5 };
enum { LOCK_LOCKED = 1, LOCK_ENABLED = 2, LOCK_FREE = 4 };
enum { RELOAD_NOW = 1 << 8, RELOAD_TIMED_OUT = 1 << 9 };
enum { UNLOCK_NONE, UNLOCK_FIRST, UNLOCK_DONE };

struct esb {
    struct pci_fn pci;
    struct watchdog_host *host;
    uint32_t timer[2]; /* preloads */
    uint8_t interrupt; /* GINTSR */
    bool timed_out;
    uint8_t unlock, stage; /* stage: 0 stopped, 1, 2 */
    struct vtimer *clock;
};

static unsigned lock_byte(const struct esb *d)
{
    return d->pci.config[LOCK];
}

/* Of a stage, in ns. */
static uint64_t period(const struct esb *d, unsigned stage)
{
    unsigned shift = d->pci.config[CONFIG] & CONFIG_FAST ? 5 : 15;
    uint64_t ticks = ((uint64_t)d->timer[stage - 1] + 1) << shift;

    return ticks * 1000000000 / TICK_HZ;
}

static void begin(struct esb *d, unsigned stage)
{
    d->stage = (uint8_t)stage;
    if (stage == 0) {
        vtimer_disarm(d->clock);
    } else {
        vtimer_arm(d->clock, clock_now(d->pci.dev.vm->clock) + period(d, stage));
    }
}

static void on_clock(void *arg)
{
    struct esb *d = arg;
    bool expired = false;

    bus_lock(&d->pci.dev.lock);
    if (d->stage == 1) {
        begin(d, 2);
    } else if (d->stage == 2) {
        d->timed_out = true;
        expired = !(d->pci.config[CONFIG] & CONFIG_NO_REBOOT);
        begin(d, lock_byte(d) & LOCK_FREE ? 1 : 0);
    }
    bus_unlock(&d->pci.dev.lock);
    if (expired) {
        log_info("devices", "%s: the guest has not fed its watchdog in time", d->pci.dev.id);
        if (d->host) {
            d->host->expired(d->host->arg);
        }
    }
}

static void config_written(struct pci_fn *f, unsigned offset, unsigned size)
{
    struct esb *d = (struct esb *)f;

    if (offset <= LOCK && LOCK < offset + size) {
        if (lock_byte(d) & LOCK_LOCKED) { /* until the next reset */
            f->writable[LOCK] = 0;
        }
        if (!(lock_byte(d) & LOCK_ENABLED)) {
            begin(d, 0);
        } else if (d->stage == 0) {
            begin(d, 1);
        }
    }
}

/* One write passes after the two words have come. */
static bool unlocked(struct esb *d)
{
    bool ok = d->unlock == UNLOCK_DONE;

    d->unlock = UNLOCK_NONE;
    return ok;
}

static void timer_written(struct device *dev, const struct dev_reg *r, unsigned index,
                          uint64_t old, uint64_t value)
{
    struct esb *d = (struct esb *)dev;

    (void)r, (void)old;
    if (unlocked(d)) {
        d->timer[index] = (uint32_t)value;
    }
}

static uint64_t timer_read(struct device *dev, const struct dev_reg *r, unsigned index)
{
    (void)r;
    return ((struct esb *)dev)->timer[index];
}

static void reload_written(struct device *dev, const struct dev_reg *r, unsigned index,
                           uint64_t old, uint64_t value)
{
    struct esb *d = (struct esb *)dev;

    (void)r, (void)index, (void)old;
    if (value == 0x80) {
        d->unlock = UNLOCK_FIRST;
    } else if (value == 0x86 && d->unlock == UNLOCK_FIRST) {
        d->unlock = UNLOCK_DONE;
    } else if (unlocked(d)) {
        if (value & RELOAD_TIMED_OUT) {
            d->timed_out = false;
        }
        if ((value & RELOAD_NOW) && d->stage > 0) {
            begin(d, 1);
        }
    }
}

static uint64_t reload_read(struct device *dev, const struct dev_reg *r, unsigned index)
{
    (void)r, (void)index;
    return ((struct esb *)dev)->timed_out ? RELOAD_TIMED_OUT : 0;
}

static const struct dev_reg esb_regs[] = {
    { .name = "TIMER",
      .doc = "preloads of the two stages",
      .offset = 0x00,
      .size = 4,
      .count = 2,
      .writable = 0xfffff,
      .field = DEV_NO_FIELD,
      .read = timer_read,
      .written = timer_written },
    { .name = "GINTSR",
      .doc = "interrupt of the first stage, which is not raised",
      .offset = 0x08,
      .size = 1,
      .w1c = 1,
      .field = offsetof(struct esb, interrupt) },
    { .name = "RELOAD",
      .doc = "0x80, 0x86: unlock the next write; bit 8: start anew; bit 9: it has ended (1 "
             "clears)",
      .offset = 0x0c,
      .size = 2,
      .writable = 0x3ff,
      .field = DEV_NO_FIELD,
      .read = reload_read,
      .written = reload_written },
    { .name = NULL },
};

static const struct dev_reg_block esb_blocks[] = {
    { .name = "mmio", .size = 16, .regs = esb_regs, .min_size = 1, .max_size = 4 },
    { .name = NULL },
};

static int esb_realize(struct device *dev, struct err *e)
{
    static const struct pci_ident id = { .vendor = 0x8086,
                                         .device = 0x25ab,
                                         .sub_vendor = 0x1af4,
                                         .sub_device = 0x1100,
                                         .class = 0x088000,
                                         .revision = 0 };
    struct esb *d = (struct esb *)dev;
    int rc = pci_fn_init(&d->pci, &id, e);

    if (rc == 0) {
        d->clock = vtimer_new(dev->vm->clock, on_clock, d);
        pci_bar_set(&d->pci, 0, PCI_BAR_MEM32, dev->mmio[0]);
        d->pci.writable[CONFIG] = 0x27;
        d->pci.writable[LOCK] = LOCK_LOCKED | LOCK_ENABLED | LOCK_FREE;
        d->pci.config_written = config_written;
        pci_fn_ready(&d->pci);
    }
    return rc;
}

static void esb_reset(struct device *dev)
{
    struct esb *d = (struct esb *)dev;

    pci_fn_reset(&d->pci);
    d->pci.writable[LOCK] = LOCK_LOCKED | LOCK_ENABLED | LOCK_FREE;
    d->timer[0] = d->timer[1] = 0xfffff;
    d->unlock = UNLOCK_NONE;
    d->timed_out = false;
    begin(d, 0);
}

static void esb_destroy(struct device *dev)
{
    struct esb *d = (struct esb *)dev;

    vtimer_free(d->clock);
    pci_fn_done(&d->pci);
}

static int esb_loaded(void *obj, struct err *e)
{
    struct esb *d = obj;

    if (d->stage > 2 || d->timer[0] > 0xfffff || d->timer[1] > 0xfffff) {
        return err_set(e, -22, "%s: an impossible state of the watchdog", d->pci.dev.id);
    }
    d->pci.writable[LOCK] = lock_byte(d) & LOCK_LOCKED ? 0
                                                       : LOCK_LOCKED | LOCK_ENABLED | LOCK_FREE;
    return 0;
}

static const struct st_field esb_fields[] = {
    PCI_ST_FIELD,
    { .name = "timer",
      .kind = ST_U32,
      .offset = offsetof(struct esb, timer),
      .count = 2,
      .stride = sizeof(uint32_t),
      .since = 1,
      .doc = "preloads of the two stages" },
    ST_FIELD(struct esb, interrupt, ST_U8, 1, "interrupt status"),
    ST_FIELD(struct esb, timed_out, ST_BOOL, 1, "it has ended once"),
    ST_FIELD(struct esb, unlock, ST_U8, 1, "words of the unlocking that have come"),
    ST_FIELD(struct esb, stage, ST_U8, 1, "stage that counts; 0: none"),
    ST_FIELD(struct esb, clock, ST_TIMER, 1, "end of the stage"),
    ST_END,
};
static const struct st_table esb_state = {
    .name = "i6300esb",
    .version = 1,
    .fields = esb_fields,
    .loaded = esb_loaded,
};

static const struct dev_prop esb_props[] = {
    PCI_PROPS,
    { .name = "host",
      .kind = PROP_PTR,
      .offset = offsetof(struct esb, host),
      .doc = "who acts when it is not fed; none: it only tells the log" },
    { .name = NULL },
};

const struct device_class i6300esb_class = {
    .name = "i6300esb",
    .doc = "watchdog timer of the 6300ESB",
    .size = sizeof(struct esb),
    .props = esb_props,
    .blocks = esb_blocks,
    .state = &esb_state,
    .realize = esb_realize,
    .reset = esb_reset,
    .destroy = esb_destroy,
};
