/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xHCI host controller (xHCI 1.2) as a PCI function: registers, root hub ports, event rings, interrupts, life. Eight connectors, each
 * of which is a USB 2 port and a USB 3 port; a device shows at the one that its speed asks for. A vCPU that rings a doorbell only
 * notes it; rings are served on the main loop, a bounded piece a turn, and never while the VM is paused.
 */
#include "devices/usb/xhci.h"

#include "devices/registry.h"
#include "engine/base/log.h"
#include "engine/core/replay.h"
#include "engine/core/vm.h"

#include <errno.h>
#include <string.h>

enum {
    OPERATIONAL = 0x40,
    PORTS = 0x440,
    EXTENDED = 0x800,
    RUNTIME = 0x1000,
    DOORBELLS = 0x2000,
    BAR_SIZE = 0x4000,
    BAR_MSIX = 2
};
enum { CMD_RUN = 1, CMD_RESET = 2, CMD_INTE = 4 };
enum { STS_HALTED = 1, STS_HOST_ERROR = 4, STS_EVENT = 8, STS_PORT = 16, STS_ERROR = 1 << 12 };
enum { CRCR_STOP = 2, CRCR_ABORT = 4, CRCR_RUNNING = 8 };
enum { IMAN_PENDING = 1, IMAN_ENABLE = 2 };
enum { ERDP_BUSY = 8 };
/* Of a port. */
enum { P_CONNECTED = 1, P_ENABLED = 2, P_RESET = 1 << 4, P_POWER = 1 << 9, P_STROBE = 1 << 16 };
enum { P_CSC = 1 << 17, P_PEC = 1 << 18, P_WRC = 1 << 19, P_PRC = 1 << 21, P_PLC = 1 << 22 };
#define P_CHANGES (0x7fu << 17)
#define P_WAKES (7u << 25)
#define P_WARM_RESET (1u << 31)
#define P_LINK(n) ((uint32_t)(n) << 5)
#define P_SPEED(n) ((uint32_t)(n) << 10)
enum {
    LINK_U0 = 0,
    LINK_U3 = 3,
    LINK_DISABLED = 4,
    LINK_DETECT = 5,
    LINK_POLLING = 7,
    LINK_RESUME = 15
};
#define EVENTS_MAX 4096 /* of a ring's one segment */
#define MICROFRAME 125000

static struct xhci *xhci_of(struct device *d)
{
    return (struct xhci *)d;
}

const struct device *xhci_dma(const struct xhci *x)
{
    return &x->pci.dev;
}

struct usb_bus *usb_bus_of(struct device *host)
{
    return &xhci_of(host)->bus;
}

bool xhci_running(const struct xhci *x)
{
    return (x->usbcmd & CMD_RUN) && !(x->usbsts & (STS_HALTED | STS_HOST_ERROR)) &&
           (x->pci.command & PCI_CMD_MASTER) && x->pci.dev.vm->state == VM_RUNNING;
}

void xhci_fatal(struct xhci *x, const char *what)
{
    log_trace('u', "%s: %s", x->pci.dev.id, what);
    x->usbcmd &= ~(uint32_t)CMD_RUN;
    x->usbsts |= STS_HALTED | STS_HOST_ERROR;
}

/* --- interrupts and events --- */

static void wire(struct xhci *x)
{
    bool level = false;

    for (unsigned i = 0; i < XHCI_INTERRUPTERS; i++) {
        level |= (x->iman[i] & (IMAN_PENDING | IMAN_ENABLE)) == (IMAN_PENDING | IMAN_ENABLE);
    }
    pci_intx_set(&x->pci, level && (x->usbcmd & CMD_INTE));
}

/* There are events that the driver was not told of. */
static void interrupt(struct xhci *x, unsigned i)
{
    x->usbsts |= STS_EVENT;
    if (x->erdp[i] & ERDP_BUSY) {
        return; /* it is told when it has looked at those before */
    }
    x->erdp[i] |= ERDP_BUSY;
    x->iman[i] |= IMAN_PENDING;
    if ((x->iman[i] & IMAN_ENABLE) && (x->usbcmd & CMD_INTE) &&
        pci_message(&x->pci, pci_msix_on(&x->pci) ? i : 0)) {
        x->iman[i] &= ~(uint32_t)IMAN_PENDING; /* a message says it all */
    }
    wire(x);
}

/* The ring's only segment; false: there is none. */
static bool segment(struct xhci *x, unsigned i, uint64_t *base, uint32_t *size)
{
    uint8_t raw[16];

    if (x->erstsz[i] == 0 ||
        dma_read(xhci_dma(x), x->erstba[i] & ~63ull, raw, sizeof(raw)) != 0) {
        return false;
    }
    *base = pci_get(raw, 8) & ~63ull;
    *size = (uint32_t)pci_get(raw + 8, 2);
    return *size >= 16 && *size <= EVENTS_MAX;
}

static unsigned used(struct xhci *x, unsigned i, uint64_t base, uint32_t size)
{
    uint64_t head = ((x->erdp[i] & ~15ull) - base) / 16;

    return head < size ? (unsigned)((x->event_at[i] + size - head) % size) : 0;
}

bool xhci_event_room(struct xhci *x, unsigned interrupter, unsigned n)
{
    unsigned i = interrupter < XHCI_INTERRUPTERS ? interrupter : 0;
    uint64_t base;
    uint32_t size;

    if (!segment(x, i, &base, &size)) {
        return true; /* it goes nowhere */
    }
    n = n < size - 2 ? n : size - 2;
    if (used(x, i, base, size) + n < size - 1) {
        return true;
    }
    x->starved = true;
    return false;
}

void xhci_event(struct xhci *x, unsigned interrupter, uint64_t param, uint32_t status,
                uint32_t control, bool quiet)
{
    unsigned i = interrupter < XHCI_INTERRUPTERS ? interrupter : 0;
    uint8_t raw[16];
    uint64_t base;
    uint32_t size;

    if (!segment(x, i, &base, &size) || x->event_at[i] >= size ||
        used(x, i, base, size) + 1 >= size) {
        log_trace('u', "%s: no room for an event", x->pci.dev.id);
        return;
    }
    pci_put(raw, param, 8);
    pci_put(raw + 8, status, 4);
    pci_put(raw + 12, control | (x->event_cycle[i] ? TRB_CYCLE : 0), 4);
    if (dma_write(xhci_dma(x), base + 16ull * x->event_at[i], raw, sizeof(raw)) != 0) {
        xhci_fatal(x, "the event ring is none");
        return;
    }
    if (++x->event_at[i] == size) {
        x->event_at[i] = 0;
        x->event_cycle[i] = !x->event_cycle[i];
    }
    if (!quiet) {
        interrupt(x, i);
    }
}

/* --- the main loop's work --- */

static void tell_ports(struct xhci *x)
{
    for (unsigned i = 0; i < XHCI_PORTS && x->port_events; i++) {
        if (!(x->port_events >> i & 1)) {
            continue;
        }
        if (!xhci_running(x) || !xhci_event_room(x, 0, 1)) {
            return;
        }
        x->port_events &= ~(1u << i);
        x->usbsts |= STS_PORT;
        xhci_event(x, 0, (uint64_t)(i + 1) << 24, (uint32_t)CODE_SUCCESS << 24,
                   (uint32_t)TRB_PORT_EVENT << 10, false);
    }
}

static bool serve_slot(struct xhci *x, unsigned slot)
{
    struct xhci_slot *s = &x->slot[slot];
    uint32_t now = s->pending;
    bool done = true;

    s->pending = 0;
    for (; now; now &= now - 1) {
        unsigned ep = (unsigned)__builtin_ctz(now);

        if (!xhci_serve_endpoint(x, slot, ep)) {
            s->pending |= 1u << ep;
            done = false;
        }
    }
    return done;
}

static void service(void *arg)
{
    struct xhci *x = arg;
    bool more = false;

    bus_lock(&x->pci.dev.lock);
    x->wanted = false;
    if (xhci_running(x)) {
        tell_ports(x);
        if (x->commands_pending) {
            x->commands_pending = !xhci_serve_commands(x);
            more = x->commands_pending;
        }
        for (unsigned i = 1; i <= XHCI_SLOTS; i++) {
            more |= x->slot[i].pending && !serve_slot(x, i);
        }
        if (more) {
            xhci_service_soon(x); /* other work of the loop gets its turn */
        }
    }
    bus_unlock(&x->pci.dev.lock);
}

void xhci_service_soon(struct xhci *x)
{
    if (!x->wanted) {
        x->wanted = true;
        vm_post(x->pci.dev.vm, service, x);
    }
}

/* Everything is looked at again: after a pause, a load, or events that were read. */
static void look_again(struct xhci *x)
{
    x->starved = false;
    x->commands_pending = x->command_running;
    for (unsigned i = 1; i <= XHCI_SLOTS; i++) {
        struct xhci_slot *s = &x->slot[i];

        for (unsigned ep = 1; ep < XHCI_ENDPOINTS; ep++) {
            s->pending |= s->enabled && s->ep_state[ep] == EP_RUNNING ? 1u << ep : 0;
        }
    }
    xhci_service_soon(x);
}

static void wake(struct usb_bus *b, struct usb_dev *u, uint8_t ep)
{
    struct xhci *x = xhci_of(b->host);
    unsigned connector, id = (ep & 15u) * 2 + (ep & USB_IN ? 1 : 0);
    uint32_t route = usb_route(u, &connector);

    for (unsigned i = 1; i <= XHCI_SLOTS; i++) {
        struct xhci_slot *s = &x->slot[i];

        if (s->enabled && s->connector == connector && s->route == route) {
            s->pending |= 1u << id;
            xhci_service_soon(x);
        }
    }
}

/* --- ports --- */

static struct usb_dev *at_port(struct xhci *x, unsigned i)
{
    struct usb_dev *u = x->bus.kid[i % USB_CONNECTORS];

    return u && (u->speed == USB_SUPER) == (i >= USB_CONNECTORS) ? u : NULL;
}

static void port_changed(struct xhci *x, unsigned i, uint32_t what)
{
    uint32_t before = x->portsc[i];

    x->portsc[i] |= what;
    if (x->portsc[i] != before) {
        x->port_events |= 1u << i;
        xhci_service_soon(x);
    }
}

static void link(struct xhci *x, unsigned i, unsigned state)
{
    x->portsc[i] = (x->portsc[i] & ~P_LINK(15)) | P_LINK(state);
}

static void port_connect(struct xhci *x, unsigned i)
{
    struct usb_dev *u = at_port(x, i);

    x->portsc[i] = P_POWER | P_LINK(LINK_DETECT);
    if (u) {
        bool super = u->speed == USB_SUPER;

        x->portsc[i] = P_POWER | P_CONNECTED | P_SPEED(u->speed) | (super ? P_ENABLED : 0) |
                       P_LINK(super ? LINK_U0 : LINK_POLLING);
        port_changed(x, i, P_CSC);
    }
}

/* A device is there, or has come to itself again. */
static void plugged(struct usb_bus *b, struct usb_dev *u)
{
    struct xhci *x = xhci_of(b->host);

    port_connect(x, u->port - 1 + (u->speed == USB_SUPER ? USB_CONNECTORS : 0));
}

static void port_reset(struct xhci *x, unsigned i, bool warm)
{
    struct usb_dev *u = at_port(x, i);

    if (u) {
        usb_bus_reset(u);
        x->portsc[i] |= P_ENABLED;
        link(x, i, LINK_U0);
        port_changed(x, i, P_PRC | (warm ? P_WRC : 0));
    }
}

static void port_link(struct xhci *x, unsigned i, unsigned state)
{
    unsigned now = x->portsc[i] >> 5 & 15;

    if (state == LINK_U0 && (now == LINK_U3 || now == LINK_RESUME)) {
        link(x, i, LINK_U0);
        port_changed(x, i, P_PLC);
    } else if ((state == LINK_U3 || state == LINK_RESUME) && (x->portsc[i] & P_ENABLED)) {
        link(x, i, state);
    } else if (state == LINK_DISABLED && i >= USB_CONNECTORS) {
        x->portsc[i] &= ~(uint32_t)P_ENABLED;
        link(x, i, LINK_DISABLED);
    } else if (state == LINK_DETECT && i >= USB_CONNECTORS && now == LINK_DISABLED) {
        port_connect(x, i);
    }
}

static uint64_t r_portsc(struct device *d, const struct dev_reg *r, unsigned i)
{
    (void)r;
    return xhci_of(d)->portsc[i];
}

static void w_portsc(struct device *d, const struct dev_reg *r, unsigned i, uint64_t old,
                     uint64_t value)
{
    struct xhci *x = xhci_of(d);

    (void)r, (void)old;
    x->portsc[i] &= ~((uint32_t)value & P_CHANGES);
    x->portsc[i] = (x->portsc[i] & ~P_WAKES) | ((uint32_t)value & P_WAKES);
    if (!(value & P_POWER)) {
        x->portsc[i] &= P_WAKES;
        return;
    }
    if (!(x->portsc[i] & P_POWER)) {
        port_connect(x, i);
    } else if (value & (P_RESET | (i >= USB_CONNECTORS ? P_WARM_RESET : 0))) {
        port_reset(x, i, value & P_WARM_RESET);
    } else if ((value & P_ENABLED) && i < USB_CONNECTORS) { /* writing 1 disables */
        x->portsc[i] &= ~(uint32_t)P_ENABLED;
    } else if (value & P_STROBE) {
        port_link(x, i, value >> 5 & 15);
    }
}

/* --- registers --- */

static void controller_reset(struct xhci *x)
{
    dev_regs_reset(&x->pci.dev, &x->pci.dev.cls->blocks[0]);
    x->usbsts = STS_HALTED;
    x->command = 0;
    x->command_running = x->commands_pending = false;
    x->port_events = 0;
    xhci_slots_reset(x);
    for (unsigned i = 0; i < XHCI_INTERRUPTERS; i++) {
        x->event_at[i] = 0;
        x->event_cycle[i] = true;
    }
    for (unsigned i = 0; i < XHCI_PORTS; i++) {
        port_connect(x, i);
    }
    wire(x);
}

static void w_usbcmd(struct device *d, const struct dev_reg *r, unsigned i, uint64_t old,
                     uint64_t value)
{
    struct xhci *x = xhci_of(d);

    (void)r, (void)i, (void)value;
    if (x->usbcmd & CMD_RESET) {
        controller_reset(x);
        return;
    }
    if ((x->usbcmd & CMD_RUN) && !(old & CMD_RUN)) {
        x->usbsts &= ~(uint32_t)STS_HALTED;
        look_again(x);
    } else if (!(x->usbcmd & CMD_RUN)) {
        x->usbsts |= STS_HALTED;
        x->command_running = false;
    }
    wire(x);
}

static uint64_t r_crcr(struct device *d, const struct dev_reg *r, unsigned i)
{
    (void)r, (void)i;
    return xhci_of(d)->command_running ? CRCR_RUNNING : 0;
}

static void w_crcr(struct device *d, const struct dev_reg *r, unsigned i, uint64_t old,
                   uint64_t value)
{
    struct xhci *x = xhci_of(d);

    (void)r, (void)i, (void)old;
    if (x->command_running) {
        if (value & (CRCR_STOP | CRCR_ABORT)) {
            x->command_running = false;
            xhci_event(x, 0, x->command & ~15ull, (uint32_t)CODE_RING_STOPPED << 24,
                       (uint32_t)TRB_COMMAND_EVENT << 10, false);
        }
        return;
    }
    x->command = x->crcr & ~14ull;
}

static uint64_t r_mfindex(struct device *d, const struct dev_reg *r, unsigned i)
{
    (void)r, (void)i;
    return clock_now(xhci_of(d)->pci.dev.vm->clock) / MICROFRAME & 0x3fff;
}

static void w_iman(struct device *d, const struct dev_reg *r, unsigned i, uint64_t old,
                   uint64_t value)
{
    struct xhci *x = xhci_of(d);

    (void)r, (void)old, (void)value;
    if ((x->iman[i] & IMAN_ENABLE) && (x->iman[i] & IMAN_PENDING) && (x->usbcmd & CMD_INTE) &&
        pci_message(&x->pci, pci_msix_on(&x->pci) ? i : 0)) {
        x->iman[i] &= ~(uint32_t)IMAN_PENDING;
    }
    wire(x);
}

static void w_erstba(struct device *d, const struct dev_reg *r, unsigned i, uint64_t old,
                     uint64_t value)
{
    struct xhci *x = xhci_of(d);

    (void)r, (void)old, (void)value;
    x->event_at[i] = 0;
    x->event_cycle[i] = true;
}

/* What was read makes room; what came since is told. */
static void w_erdp(struct device *d, const struct dev_reg *r, unsigned i, uint64_t old,
                   uint64_t value)
{
    struct xhci *x = xhci_of(d);
    uint64_t base;
    uint32_t size;

    (void)r, (void)old;
    if ((value & ERDP_BUSY) && segment(x, i, &base, &size) && used(x, i, base, size) > 0) {
        interrupt(x, i);
    }
    if (x->starved && xhci_running(x)) {
        look_again(x);
    }
}

static void w_doorbell(struct device *d, const struct dev_reg *r, unsigned i, uint64_t old,
                       uint64_t value)
{
    struct xhci *x = xhci_of(d);
    unsigned target = value & 0xff;

    (void)r, (void)old;
    if (!xhci_running(x)) {
        return;
    }
    if (i == 0) {
        if (target == 0) {
            x->command_running = x->commands_pending = true;
            xhci_service_soon(x);
        }
        return;
    }
    struct xhci_slot *s = &x->slot[i];
    if (!s->enabled || target == 0 || target >= XHCI_ENDPOINTS || value >> 16) {
        log_trace('u', "%s: doorbell %u for %u", x->pci.dev.id, i, target);
        return;
    }
    if (s->ep_state[target] == EP_STOPPED) {
        s->ep_state[target] = EP_RUNNING;
        xhci_set_ep_state(x, i, target, EP_RUNNING);
    }
    s->pending |= 1u << target;
    xhci_service_soon(x);
}

#define CONSTANT(name_, doc_, at, size_, value)                                                \
    {                                                                                          \
        .name = (name_), .doc = (doc_), .offset = (at), .size = (size_), .reset = (value),     \
        .field = DEV_NO_FIELD                                                                  \
    }
#define PROTOCOL(at, next, major, first)                                                       \
    CONSTANT("USBPROTO", "extended capability: supported protocol", (at), 4,                   \
             2 | (next) << 8 | (uint64_t)(major) << 24),                                       \
        CONSTANT("USBNAME", "name of the protocol, 'USB '", (at) + 4, 4, 0x20425355),          \
        CONSTANT("USBPORTS", "its ports: first and how many", (at) + 8, 4,                     \
                 (first) | USB_CONNECTORS << 8)
#define FIELD(member) offsetof(struct xhci, member)

static const struct dev_reg regs[] = {
    CONSTANT("CAPLENGTH", "where the operational registers are", 0x00, 1, OPERATIONAL),
    CONSTANT("HCIVERSION", "1.1", 0x02, 2, 0x0110),
    CONSTANT("HCSPARAMS1", "slots, interrupters, ports", 0x04, 4,
             XHCI_SLOTS | XHCI_INTERRUPTERS << 8 | (uint64_t)XHCI_PORTS << 24),
    CONSTANT("HCSPARAMS2", "event rings of one segment", 0x08, 4, 1),
    CONSTANT("HCSPARAMS3", "leaving U1 and U2 takes no time", 0x0c, 4, 0),
    CONSTANT("HCCPARAMS1", "64-bit addresses; extended capabilities", 0x10, 4,
             1 | (uint64_t)(EXTENDED / 4) << 16),
    CONSTANT("DBOFF", "where the doorbells are", 0x14, 4, DOORBELLS),
    CONSTANT("RTSOFF", "where the runtime registers are", 0x18, 4, RUNTIME),
    CONSTANT("HCCPARAMS2", "nothing more", 0x1c, 4, 0),
    { .name = "USBCMD",
      .doc = "run, reset, interrupts",
      .offset = OPERATIONAL,
      .size = 4,
      .writable = 0x0000000f,
      .field = FIELD(usbcmd),
      .written = w_usbcmd },
    { .name = "USBSTS",
      .doc = "status: halted, host error, event, port change",
      .offset = OPERATIONAL + 0x04,
      .size = 4,
      .w1c = STS_HOST_ERROR | STS_EVENT | STS_PORT,
      .reset = STS_HALTED,
      .field = FIELD(usbsts) },
    CONSTANT("PAGESIZE", "4 KiB", OPERATIONAL + 0x08, 4, 1),
    { .name = "DNCTRL",
      .doc = "notifications of devices, of which there are none",
      .offset = OPERATIONAL + 0x14,
      .size = 4,
      .writable = 0xffff,
      .field = FIELD(dnctrl) },
    { .name = "CRCR",
      .doc = "command ring; reads as whether it runs",
      .offset = OPERATIONAL + 0x18,
      .size = 8,
      .writable = ~UINT64_C(0x38),
      .field = FIELD(crcr),
      .read = r_crcr,
      .written = w_crcr },
    { .name = "DCBAAP",
      .doc = "array of the addresses of device contexts",
      .offset = OPERATIONAL + 0x30,
      .size = 8,
      .writable = ~UINT64_C(0x3f),
      .field = FIELD(dcbaap) },
    { .name = "CONFIG",
      .doc = "slots that the driver uses",
      .offset = OPERATIONAL + 0x38,
      .size = 4,
      .writable = 0x3ff,
      .field = FIELD(config) },
    { .name = "PORTSC",
      .doc = "status of a port: the USB 2 ones, then those of USB 3",
      .offset = PORTS,
      .size = 4,
      .count = XHCI_PORTS,
      .stride = 16,
      .writable = P_ENABLED | P_RESET | P_LINK(15) | P_POWER | P_STROBE | P_WAKES |
                  P_WARM_RESET,
      .w1c = P_CHANGES,
      .field = DEV_NO_FIELD,
      .read = r_portsc,
      .written = w_portsc },
    { .name = "PORTPMSC",
      .doc = "power management of a port, which does nothing",
      .offset = PORTS + 4,
      .size = 4,
      .count = XHCI_PORTS,
      .stride = 16,
      .writable = 0xffff,
      .field = FIELD(portpmsc) },
    PROTOCOL(EXTENDED, 4, 2, 1),
    PROTOCOL(EXTENDED + 16, 0, 3, USB_CONNECTORS + 1),
    { .name = "MFINDEX",
      .doc = "microframes of 125 us, 14 bits",
      .offset = RUNTIME,
      .size = 4,
      .field = DEV_NO_FIELD,
      .read = r_mfindex },
    { .name = "IMAN",
      .doc = "interrupter: pending, enabled",
      .offset = RUNTIME + 0x20,
      .size = 4,
      .count = XHCI_INTERRUPTERS,
      .stride = 32,
      .writable = IMAN_ENABLE,
      .w1c = IMAN_PENDING,
      .field = FIELD(iman),
      .written = w_iman },
    { .name = "IMOD",
      .doc = "interrupter: least time between interrupts, which is not needed: the next waits "
             "until the driver is done",
      .offset = RUNTIME + 0x24,
      .size = 4,
      .count = XHCI_INTERRUPTERS,
      .stride = 32,
      .writable = UINT32_MAX,
      .reset = 4000,
      .field = FIELD(imod) },
    { .name = "ERSTSZ",
      .doc = "interrupter: segments of its event ring",
      .offset = RUNTIME + 0x28,
      .size = 4,
      .count = XHCI_INTERRUPTERS,
      .stride = 32,
      .writable = 1,
      .field = FIELD(erstsz) },
    { .name = "ERSTBA",
      .doc = "interrupter: table of segments; writing it begins the ring anew",
      .offset = RUNTIME + 0x30,
      .size = 8,
      .count = XHCI_INTERRUPTERS,
      .stride = 32,
      .writable = ~UINT64_C(0x3f),
      .field = FIELD(erstba),
      .written = w_erstba },
    { .name = "ERDP",
      .doc = "interrupter: what the driver has read of its event ring",
      .offset = RUNTIME + 0x38,
      .size = 8,
      .count = XHCI_INTERRUPTERS,
      .stride = 32,
      .writable = ~UINT64_C(0x8),
      .w1c = ERDP_BUSY,
      .field = FIELD(erdp),
      .written = w_erdp },
    { .name = "DB",
      .doc = "doorbells: 0 of the command ring, then one a slot",
      .offset = DOORBELLS,
      .size = 4,
      .count = XHCI_SLOTS + 1,
      .writable = UINT32_MAX,
      .field = DEV_NO_FIELD,
      .written = w_doorbell },
    { .name = NULL },
};

static const struct dev_reg_block blocks[] = {
    { .name = "bar0", .size = BAR_SIZE, .regs = regs, .min_size = 1, .max_size = 8 },
    { .name = NULL },
};

/* --- class --- */

static int xhci_realize(struct device *d, struct err *e)
{
    static const struct pci_ident id = { .vendor = PCI_VENDOR_REDHAT,
                                         .device = 0x000d,
                                         .sub_vendor = 0x1af4,
                                         .sub_device = 0x1100,
                                         .class = 0x0c0330,
                                         .revision = 1 };
    struct xhci *x = xhci_of(d);
    int rc = pci_fn_init(&x->pci, &id, e);

    x->bus.host = d;
    x->bus.wake = wake;
    x->bus.plugged = plugged;
    if (rc != 0) {
        return rc;
    }
    pci_bar_set(&x->pci, 0, PCI_BAR_MEM64, d->mmio[0]);
    x->pci.config[0x60] = 0x30; /* release of the interface: USB 3 */
    x->pci.cap_end = x->pci.cap_end < 0x64 ? 0x64 : x->pci.cap_end;
    pci_cap_msix(&x->pci, XHCI_INTERRUPTERS, BAR_MSIX);
    pci_cap_pm(&x->pci);
    pci_cap_express(&x->pci);
    pci_use_intx(&x->pci);
    pci_fn_ready(&x->pci);
    return 0;
}

static void xhci_reset(struct device *d)
{
    struct xhci *x = xhci_of(d);

    bus_lock(&d->lock);
    controller_reset(x);
    bus_unlock(&d->lock);
    pci_fn_reset(&x->pci);
}

static void xhci_resumed(struct device *d)
{
    struct xhci *x = xhci_of(d);

    bus_lock(&d->lock);
    look_again(x);
    bus_unlock(&d->lock);
}

static void xhci_destroy(struct device *d)
{
    pci_fn_done(&xhci_of(d)->pci);
}

static int xhci_loaded(void *obj, struct err *e)
{
    struct xhci *x = obj;

    for (unsigned i = 0; i < XHCI_INTERRUPTERS; i++) {
        if (x->event_at[i] >= EVENTS_MAX) {
            return err_set(e, -EINVAL, "%s: an event ring of more than %d events",
                           x->pci.dev.id, EVENTS_MAX);
        }
    }
    for (unsigned i = 0; i <= XHCI_SLOTS; i++) {
        for (unsigned ep = 0; ep < XHCI_ENDPOINTS; ep++) {
            if (x->slot[i].ep_state[ep] > EP_ERROR || x->slot[i].state > SLOT_CONFIGURED) {
                return err_set(e, -EINVAL, "%s: slot %u has an impossible state", x->pci.dev.id,
                               i);
            }
        }
    }
    return 0;
}

static const struct st_field slot_fields[] = {
    ST_FIELD(struct xhci_slot, enabled, ST_BOOL, 1, "the driver has it"),
    ST_FIELD(struct xhci_slot, state, ST_U8, 1, "enabled, default, addressed, configured"),
    ST_FIELD(struct xhci_slot, connector, ST_U8, 1, "of its device"),
    ST_FIELD(struct xhci_slot, route, ST_U32, 1, "ports of hubs on the way to its device"),
    ST_FIELD(struct xhci_slot, interrupter, ST_U16, 1, "that is told of the slot"),
    ST_ARRAY(struct xhci_slot, ep_state, ST_U8, XHCI_ENDPOINTS, 1, "states of endpoints"),
    ST_ARRAY(struct xhci_slot, ep_type, ST_U8, XHCI_ENDPOINTS, 1, "types of endpoints"),
    ST_ARRAY(struct xhci_slot, dequeue, ST_U64, XHCI_ENDPOINTS, 1,
             "dequeue pointers of endpoints, bit 0 the cycle"),
    ST_END,
};
static const struct st_table slot_state = { .name = "xhci-slot",
                                            .version = 1,
                                            .fields = slot_fields };

#define N(member, kind, doc) ST_FIELD(struct xhci, member, kind, 1, doc)
#define NI(member, kind, doc) ST_ARRAY(struct xhci, member, kind, XHCI_INTERRUPTERS, 1, doc)
static const struct st_field xhci_fields[] = {
    PCI_ST_FIELD,
    N(usbcmd, ST_U32, "command register"),
    N(usbsts, ST_U32, "status register"),
    N(dnctrl, ST_U32, "notification register"),
    N(config, ST_U32, "slots in use"),
    N(crcr, ST_U64, "command ring as written"),
    N(dcbaap, ST_U64, "device contexts"),
    ST_ARRAY(struct xhci, portsc, ST_U32, XHCI_PORTS, 1, "status of the ports"),
    ST_ARRAY(struct xhci, portpmsc, ST_U32, XHCI_PORTS, 1, "power management of the ports"),
    NI(iman, ST_U32, "interrupters: management"),
    NI(imod, ST_U32, "interrupters: moderation"),
    NI(erstsz, ST_U32, "interrupters: segments"),
    NI(erstba, ST_U64, "interrupters: table of segments"),
    NI(erdp, ST_U64, "interrupters: dequeue pointer"),
    N(command, ST_U64, "dequeue pointer of the command ring, bit 0 the cycle"),
    N(command_running, ST_BOOL, "the command ring runs"),
    NI(event_at, ST_U32, "next event in each ring"),
    NI(event_cycle, ST_BOOL, "cycle bit of the next event"),
    N(port_events, ST_U32, "ports whose change was not told yet"),
    { .name = "slot",
      .kind = ST_STRUCT,
      .offset = offsetof(struct xhci, slot),
      .count = XHCI_SLOTS + 1,
      .stride = sizeof(struct xhci_slot),
      .since = 1,
      .table = &slot_state,
      .doc = "device slots" },
    ST_END,
};
static const struct st_table xhci_state = {
    .name = "xhci",
    .version = 1,
    .fields = xhci_fields,
    .loaded = xhci_loaded,
};

static const struct dev_prop xhci_props[] = { PCI_PROPS, { .name = NULL } };

const struct device_class xhci_class = {
    .name = "xhci",
    .doc = "USB host controller, xHCI 1.1, with eight connectors for USB 2 and USB 3",
    .size = sizeof(struct xhci),
    .props = xhci_props,
    .blocks = blocks,
    .state = &xhci_state,
    .realize = xhci_realize,
    .reset = xhci_reset,
    .resumed = xhci_resumed,
    .destroy = xhci_destroy,
};
