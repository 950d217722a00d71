/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmgenid: a random number of 128 bits that is another one whenever the machine goes on from a saved moment (Microsoft, "Virtual Machine Generation ID"; Linux'
 * devicetree binding microsoft,vmgenid: the number at the device's address, an interrupt when it changes). Linux seeds its random numbers anew then.
 *
 * Holds no state on purpose: what is loaded gets another number, and so do states of machines that had no such device. Reading the number takes the
 * interrupt back, since there is no register for that. vCPU threads enter by MMIO, the main thread by vmgenid_renew().
 */
#include "devices/misc/vmgenid.h"

#include "devices/registry.h"
#include "engine/core/clock.h"
#include "engine/core/vm.h"

#include <string.h>
#include <sys/random.h>

struct vmgenid {
    struct device dev;
    uint32_t id[4]; /* as the guest reads them */
    bool tell;      /* the guest is to be told when it runs */
};

static uint64_t genid_read(struct device *d, const struct dev_reg *r, unsigned index)
{
    (void)index;
    irq_set(&d->irq[0], false);
    return ((struct vmgenid *)d)->id[r->offset / 4];
}

#define WORD(n)                                                                                \
    {                                                                                          \
        .name = "ID" #n, .doc = "32 bits of the number", .offset = 4 * (n), .size = 4,         \
        .field = DEV_NO_FIELD, .read = genid_read                                              \
    }

static const struct dev_reg genid_regs[] = {
    WORD(0), WORD(1), WORD(2), WORD(3), { .name = NULL }
};

static const struct dev_reg_block genid_blocks[] = {
    { .name = "mmio", .size = 0x1000, .regs = genid_regs, .min_size = 1, .max_size = 8 },
    { .name = NULL },
};

/* A machine whose time is counted in instructions does the same each time, so its numbers are counted, too. */
static void draw(struct vmgenid *g)
{
    uint32_t id[4];

    if (clock_driven(g->dev.vm->clock)) {
        g->id[0]++;
    } else if (getrandom(id, sizeof(id), 0) ==
               (ssize_t)sizeof(id)) { /* so few bytes never fail */
        memcpy(g->id, id, sizeof(id));
    }
}

void vmgenid_renew(struct device *d)
{
    bus_lock(&d->lock);
    draw((struct vmgenid *)d);
    ((struct vmgenid *)d)->tell = true;
    bus_unlock(&d->lock);
}

/* Not before: a machine that is loaded and saved again without having run is what it was. */
static void genid_resumed(struct device *d)
{
    struct vmgenid *g = (struct vmgenid *)d;

    bus_lock(&d->lock);
    if (g->tell) {
        g->tell = false;
        irq_set(&d->irq[0], true);
    }
    bus_unlock(&d->lock);
}

static int genid_realize(struct device *d, struct err *e)
{
    (void)e;
    draw((struct vmgenid *)d);
    return 0;
}

static void genid_reset(struct device *d)
{
    ((struct vmgenid *)d)->tell = false; /* what boots asks for the number itself */
    irq_set(&d->irq[0], false);
}

const struct device_class vmgenid_class = {
    .name = "vmgenid",
    .doc = "generation id: another number whenever the machine goes on from a saved moment",
    .size = sizeof(struct vmgenid),
    .blocks = genid_blocks,
    .n_irqs = 1,
    .realize = genid_realize,
    .reset = genid_reset,
    .resumed = genid_resumed,
};
