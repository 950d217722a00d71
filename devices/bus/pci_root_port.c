/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A PCI Express root port: a bridge from the root bus to a bus with one slot (PCI Express Base 4.0
 * §7.5.1.3, PCI-to-PCI Bridge 1.2 §3), whose card can come and go while the guest runs (§6.7, §7.5.3.9 to §7.5.3.11).
 *
 * The guest's writes change registers at once, under the port's lock; what they mean for the card (power, its removal)
 * is done on the main loop, at most one post at a time. Entered as pci.h says.
 */
#include "devices/bus/pci_root_port.h"
#include "devices/bus/pci_host.h"
#include "devices/registry.h"
#include "engine/base/log.h"
#include "engine/core/replay.h"
#include "engine/core/vm.h"

#include <errno.h>

enum {
    EXP_FLAGS = 2,
    EXP_SLOT = 0x100,
    EXP_LINK_CAP = 0x0c,
    EXP_LINK_STATUS = 0x12,
    EXP_SLOT_CAP = 0x14,
    EXP_SLOT_CONTROL = 0x18,
    EXP_SLOT_STATUS = 0x1a
};
enum { LINK_CAP_ACTIVE = 1 << 20, LINK_ACTIVE = 1 << 13, LINK_UP = LINK_ACTIVE | 0x11 };
enum { /* slot capabilities */
       SLOT_BUTTON = 1,
       SLOT_POWER = 2,
       SLOT_ATTENTION_LED = 8,
       SLOT_POWER_LED = 0x10,
       SLOT_HOTPLUG = 0x40,
       SLOT_NO_COMPLETION = 1 << 18,
       SLOT_CAPS = SLOT_BUTTON | SLOT_POWER | SLOT_ATTENTION_LED | SLOT_POWER_LED |
                   SLOT_HOTPLUG | SLOT_NO_COMPLETION
};
enum { /* slot control; the first ones enable the events of slot status at the same bits */
       CTL_BUTTON = 1,
       CTL_INTERRUPT = 0x20,
       CTL_POWER_LED = 0x300,
       CTL_LED_ON = 0x100,
       CTL_LED_BLINK = 0x200,
       CTL_OFF = 0x400,
       CTL_LINK = 0x1000,
       CTL_WRITABLE = 0x17ff
};
enum { /* slot status */
       ST_BUTTON = 1,
       ST_PRESENCE_CHANGED = 8,
       ST_PRESENT = 0x40,
       ST_LINK_CHANGED = 0x100,
       ST_EVENTS = 0x11f
};

struct pci_port {
    struct pci_fn pci;
    uint64_t slot;
    struct pci_bus below;
    /* The port's lock: */
    uint16_t control; /* as last looked at */
    bool asked;       /* the card is wanted back */
    bool blinked;     /* and the guest is thinking about it */
    bool refused;     /* and keeps it; to be told */
    bool idle;        /* no driver serves the slot, and none uses the card: it goes at once */
    bool powered;     /* what is in the slot has power */
    bool raised;      /* the interrupt's level */
    bool posted;      /* port_service() is under way */
    void (*answer)(void *arg, struct device *port, enum pci_slot_event what);
    void *answer_arg;
};

static uint8_t *express(struct pci_port *p)
{
    return p->pci.config + p->pci.cap_express;
}

static uint16_t get16(struct pci_port *p, unsigned at)
{
    return (uint16_t)pci_get(express(p) + at, 2);
}

static void put16(struct pci_port *p, unsigned at, unsigned value)
{
    pci_put(express(p) + at, value, 2);
}

struct pci_bus *pci_root_port_bus(struct device *port)
{
    return &((struct pci_port *)port)->below;
}

/* The interrupt follows the events that are enabled; the lock is held. */
static void notify(struct pci_port *p)
{
    uint16_t control = get16(p, EXP_SLOT_CONTROL), status = get16(p, EXP_SLOT_STATUS);
    uint16_t enabled = (uint16_t)((control & 0x1f) |
                                  (control & CTL_LINK ? ST_LINK_CHANGED : 0));
    bool level = (control & CTL_INTERRUPT) && (status & enabled & ST_EVENTS);

    if (level && !p->raised) {
        (void)pci_message(&p->pci, 0);
    }
    p->raised = level;
    pci_intx_set(&p->pci, level);
}

static void happened(struct pci_port *p, unsigned events)
{
    put16(p, EXP_SLOT_STATUS, get16(p, EXP_SLOT_STATUS) | events);
    notify(p);
}

static void set_link(struct pci_port *p)
{
    put16(p, EXP_LINK_STATUS, p->powered && p->below.fn[0] ? LINK_UP : 0);
}

static void port_service(void *arg);

static void post(struct pci_port *p)
{
    if (!p->posted) {
        p->posted = true;
        vm_post(p->pci.dev.vm, port_service, p);
    }
}

/* Main loop: gives the card power or takes it, as the guest has switched; tells what became of a request. */
static void port_service(void *arg)
{
    struct pci_port *p = arg;
    struct device *d = &p->pci.dev, *card;
    void (*fn)(void *arg, struct device *port, enum pci_slot_event what) = NULL;
    bool on, refused, cut;

    bus_lock(&d->lock);
    p->posted = false;
    on = !(p->control & CTL_OFF);
    card = p->below.fn[0] ? &p->below.fn[0]->dev : NULL;
    refused = p->asked && p->refused;
    if (refused || (p->asked && (!on || p->idle))) {
        fn = p->answer;
        p->answer = NULL;
        p->asked = p->blinked = p->refused = p->idle = false;
    }
    cut = p->powered && !on;
    bus_unlock(&d->lock);
    if (cut && card) {
        pci_host_power(&p->below, false);
        dev_reset(card); /* no DMA and no interrupt any more */
    } else if (on) {
        pci_host_power(&p->below, true);
    }
    bus_lock(&d->lock);
    if (p->powered != on) {
        p->powered = on;
        set_link(p);
        if (card) {
            happened(p, ST_LINK_CHANGED);
        }
    }
    bus_unlock(&d->lock);
    if (fn) {
        fn(p->answer_arg, d, refused ? PCI_SLOT_REFUSED : PCI_SLOT_RELEASED);
    }
}

/* A guest that was asked blinks the power indicator while it thinks; steady again, it keeps the card. */
static void look_at_led(struct pci_port *p, uint16_t now)
{
    if (!p->asked || ((now ^ p->control) & CTL_POWER_LED) == 0) {
        return;
    }
    if ((now & CTL_POWER_LED) == CTL_LED_BLINK) {
        p->blinked = true;
    } else if ((now & CTL_POWER_LED) == CTL_LED_ON && p->blinked && !(now & CTL_OFF)) {
        p->refused = true;
        post(p);
    }
}

static void port_written(struct pci_fn *f, unsigned offset, unsigned size)
{
    struct pci_port *p = (struct pci_port *)f;
    unsigned at = f->cap_express + EXP_SLOT_CONTROL;
    uint16_t now = get16(p, EXP_SLOT_CONTROL);

    if (offset < at + 4 && offset + size > at) {
        look_at_led(p, now);
        if ((now ^ p->control) & CTL_OFF) {
            p->control = now;
            post(p);
        }
        p->control = now;
    }
    notify(p); /* pci.c has given the wire the level from before */
}

/* --- for who changes cards --- */

bool pci_root_port_taken(struct device *port)
{
    return ((struct pci_port *)port)->below.fn[0] != NULL;
}

void pci_root_port_plugged(struct device *port)
{
    struct pci_port *p = (struct pci_port *)port;

    pci_host_power(&p->below, p->powered);
    bus_lock(&port->lock);
    set_link(p);
    happened(p, ST_PRESENT | ST_PRESENCE_CHANGED | (p->powered ? ST_LINK_CHANGED : 0));
    bus_unlock(&port->lock);
}

/* May the card touch memory? Drivers allow it before they use one. */
static bool in_use(struct pci_fn *card)
{
    bool master;

    bus_lock(&card->dev.lock);
    master = card->config[PCI_COMMAND] & PCI_CMD_MASTER;
    bus_unlock(&card->dev.lock);
    return master;
}

int pci_root_port_ask(struct device *port,
                      void (*fn)(void *arg, struct device *port, enum pci_slot_event what),
                      void *arg, struct err *e)
{
    struct pci_port *p = (struct pci_port *)port;
    bool used = p->below.fn[0] && in_use(p->below.fn[0]), served;
    int rc = 0;

    bus_lock(&port->lock);
    served = (p->control & (CTL_INTERRUPT | CTL_BUTTON)) == (CTL_INTERRUPT | CTL_BUTTON);
    if (!p->below.fn[0]) {
        rc = err_set(e, -ENXIO, "slot %llu is empty", (unsigned long long)p->slot);
    } else if (p->asked) {
        rc = err_set(e, -EALREADY, "the guest was asked before and has not answered yet");
    } else if (p->powered && !served && used) {
        rc = err_set(
            e, -ENODEV,
            "no driver of the guest serves its hot-plug slots, and the device is in use");
    } else {
        p->asked = true;
        p->blinked = p->refused = false;
        p->idle = !served;
        p->answer = fn;
        p->answer_arg = arg;
        if (p->powered && served) {
            happened(p, ST_BUTTON);
        } else {
            post(p); /* switched off already, or nobody will */
        }
    }
    bus_unlock(&port->lock);
    return rc;
}

void pci_root_port_emptied(struct device *port)
{
    struct pci_port *p = (struct pci_port *)port;

    bus_lock(&port->lock);
    put16(p, EXP_SLOT_STATUS, get16(p, EXP_SLOT_STATUS) & (unsigned)~ST_PRESENT);
    set_link(p);
    happened(p, ST_PRESENCE_CHANGED);
    bus_unlock(&port->lock);
}

/* --- class --- */

/* Which registers of a type 1 header a guest may write. */
static void header(struct pci_fn *f)
{
    pci_put(f->writable + PCI_PRIMARY, 0xffffff, 3);
    pci_put(f->writable + PCI_IO_BASE, 0xf0f0, 2);
    pci_put(f->w1c + PCI_IO_BASE + 2, 0xf900, 2); /* secondary status */
    pci_put(f->writable + PCI_MEM_BASE, 0xfff0fff0, 4);
    pci_put(f->writable + PCI_PREF_BASE, 0xfff0fff0, 4);
    pci_put(f->config + PCI_PREF_BASE, 0x00010001, 4); /* 64-bit */
    pci_put(f->writable + PCI_PREF_BASE_HIGH, UINT64_MAX, 8);
    pci_put(f->writable + PCI_BRIDGE_CONTROL, 0x0043, 2);
}

static int port_realize(struct device *d, struct err *e)
{
    static const struct pci_ident id = {
        .vendor = PCI_VENDOR_REDHAT, .device = 0x000c, .class = 0x060400, .bridge = true
    };
    struct pci_port *p = (struct pci_port *)d;
    struct pci_fn *f = &p->pci;
    int rc = pci_fn_init(f, &id, e);
    uint8_t *cap;

    if (rc != 0) {
        return rc;
    }
    header(f);
    pci_cap_add(f, PCI_CAP_SSVID, 8);
    pci_put(f->config + f->cap_end - 4, 0x11001af4, 4);
    pci_cap_msi(f);
    pci_cap_pm(f);
    pci_cap_express(f);
    cap = express(p);
    cap[EXP_FLAGS + 1] |= EXP_SLOT >> 8;
    pci_put(cap + EXP_LINK_CAP, pci_get(cap + EXP_LINK_CAP, 4) | LINK_CAP_ACTIVE, 4);
    pci_put(cap + EXP_SLOT_CAP, p->slot << 19 | SLOT_CAPS, 4);
    pci_put(f->writable + f->cap_express + EXP_SLOT_CONTROL, CTL_WRITABLE, 2);
    pci_put(f->w1c + f->cap_express + EXP_SLOT_STATUS, ST_EVENTS, 2);
    pci_put(f->writable + f->cap_express + 0x1c, 0x001f, 2); /* root control */
    pci_use_intx(f);
    f->config_written = port_written;
    pci_host_bus_init(&p->below, f);
    pci_fn_ready(f);
    return 0;
}

/* The slot has power, so that a guest without a driver for it finds cards, too; a card that was asked for goes now, since
 * no guest uses it. */
static void port_reset(struct device *d)
{
    struct pci_port *p = (struct pci_port *)d;
    bool card = p->below.fn[0];

    bus_lock(&d->lock);
    p->raised = false;
    p->powered = !p->asked;
    bus_unlock(&d->lock);
    pci_fn_reset(&p->pci);
    bus_lock(&d->lock);
    p->control = (p->powered ? 0 : CTL_OFF) | (p->powered && card ? CTL_LED_ON : CTL_POWER_LED);
    put16(p, EXP_SLOT_CONTROL, p->control);
    put16(p, EXP_SLOT_STATUS, card ? ST_PRESENT : 0);
    set_link(p);
    if (p->asked) {
        post(p);
    }
    bus_unlock(&d->lock);
    pci_host_power(&p->below, p->powered);
}

static void port_destroy(struct device *d)
{
    pci_fn_done((struct pci_fn *)d);
}

/* Where the card is concerned, what this VM was built with counts. */
static int port_loaded(void *obj, struct err *e)
{
    struct pci_port *p = obj;

    (void)e;
    p->control = get16(p, EXP_SLOT_CONTROL);
    p->powered = !(p->control & CTL_OFF);
    put16(p, EXP_SLOT_STATUS,
          (get16(p, EXP_SLOT_STATUS) & ST_EVENTS) | (p->below.fn[0] ? ST_PRESENT : 0));
    set_link(p);
    p->raised = p->pci.intx;
    if (p->below.host) {
        pci_host_power(&p->below, p->powered);
    }
    return 0;
}

static const struct st_field port_fields[] = { PCI_ST_FIELD, ST_END };
static const struct st_table port_state = {
    .name = "pcie-root-port",
    .version = 1,
    .fields = port_fields,
    .loaded = port_loaded,
};

static const struct dev_prop port_props[] = {
    PCI_PROPS,
    { .name = "slot",
      .kind = PROP_U64,
      .offset = offsetof(struct pci_port, slot),
      .max = 8191,
      .doc = "number of the slot, as on a chassis" },
    { .name = NULL },
};

const struct device_class pcie_root_port_class = {
    .name = "pcie-root-port",
    .doc = "PCI Express root port with one slot for native hot-plug",
    .size = sizeof(struct pci_port),
    .props = port_props,
    .state = &port_state,
    .realize = port_realize,
    .reset = port_reset,
    .destroy = port_destroy,
};
