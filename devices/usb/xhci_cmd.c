/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xHCI: the command ring, device slots and contexts (xHCI 1.2 §4.6, §6.2). Contexts have 32 bytes. What a driver may change in
 * guest memory at any time is copied when a command names it; the controller works with its own copy. Entered on the main loop
 * with the function's lock.
 */
#include "devices/usb/xhci.h"
#include "engine/base/log.h"
#include "engine/core/vm.h"

#include <string.h>

#define TURN 64 /* commands of a turn */
#define CONTEXT 32
#define BSR                                                                                    \
    (1u << 9) /* of Address Device: no address yet; of Configure Endpoint: deconfigure */

struct context {
    uint32_t dw[8];
};

static bool read_context(struct xhci *x, uint64_t at, struct context *c)
{
    uint8_t raw[CONTEXT];

    if (dma_read(xhci_dma(x), at, raw, sizeof(raw)) != 0) {
        return false;
    }
    for (unsigned i = 0; i < 8; i++) {
        c->dw[i] = (uint32_t)pci_get(raw + 4 * i, 4);
    }
    return true;
}

/* Where the contexts of a slot that the driver reads are; 0: nowhere. */
static uint64_t output(struct xhci *x, unsigned slot)
{
    uint8_t raw[8];

    return dma_read(xhci_dma(x), (x->dcbaap & ~63ull) + 8ull * slot, raw, 8) == 0
               ? pci_get(raw, 8) & ~63ull
               : 0;
}

static bool write_context(struct xhci *x, unsigned slot, unsigned index,
                          const struct context *c)
{
    uint64_t at = output(x, slot);
    uint8_t raw[CONTEXT];

    for (unsigned i = 0; i < 8; i++) {
        pci_put(raw + 4 * i, c->dw[i], 4);
    }
    return at && dma_write(xhci_dma(x), at + (uint64_t)CONTEXT * index, raw, sizeof(raw)) == 0;
}

static bool read_output(struct xhci *x, unsigned slot, unsigned index, struct context *c)
{
    uint64_t at = output(x, slot);

    return at && read_context(x, at + (uint64_t)CONTEXT * index, c);
}

/* Shows a slot's state, an endpoint's state and place to the driver. */
static void show_slot(struct xhci *x, unsigned slot, unsigned address)
{
    struct context c;

    if (read_output(x, slot, 0, &c)) {
        c.dw[3] = (uint32_t)x->slot[slot].state << 27 | address;
        (void)write_context(x, slot, 0, &c);
    }
}

static void show_endpoint(struct xhci *x, unsigned slot, unsigned ep)
{
    struct xhci_slot *s = &x->slot[slot];
    struct context c;

    if (read_output(x, slot, ep, &c)) {
        c.dw[0] = (c.dw[0] & ~7u) | s->ep_state[ep];
        c.dw[2] = (uint32_t)s->dequeue[ep];
        c.dw[3] = (uint32_t)(s->dequeue[ep] >> 32);
        (void)write_context(x, slot, ep, &c);
    }
}

void xhci_set_ep_state(struct xhci *x, unsigned slot, unsigned ep, enum xhci_ep_state state)
{
    x->slot[slot].ep_state[ep] = (uint8_t)state;
    show_endpoint(x, slot, ep);
}

struct usb_dev *xhci_device(struct xhci *x, const struct xhci_slot *s)
{
    return usb_find(&x->bus, s->connector, s->route);
}

void xhci_slots_reset(struct xhci *x)
{
    memset(x->slot, 0, sizeof(x->slot));
}

/* --- commands --- */

static enum xhci_code enable_slot(struct xhci *x, unsigned *slot)
{
    for (unsigned i = 1; i <= (x->config & 0xff) && i <= XHCI_SLOTS; i++) {
        if (!x->slot[i].enabled) {
            x->slot[i] = (struct xhci_slot){ .enabled = true };
            *slot = i;
            return CODE_SUCCESS;
        }
    }
    return CODE_NO_SLOTS;
}

static enum xhci_code disable_slot(struct xhci *x, unsigned slot)
{
    x->slot[slot] = (struct xhci_slot){ .enabled = false };
    show_slot(x, slot, 0);
    return CODE_SUCCESS;
}

static bool in_use(const struct xhci *x, unsigned slot, unsigned connector, uint32_t route)
{
    for (unsigned i = 1; i <= XHCI_SLOTS; i++) {
        const struct xhci_slot *s = &x->slot[i];

        if (i != slot && s->enabled && s->state != SLOT_ENABLED && s->connector == connector &&
            s->route == route) {
            return true;
        }
    }
    return false;
}

static enum xhci_code address_device(struct xhci *x, unsigned slot, const struct xhci_trb_at *t)
{
    struct xhci_slot *s = &x->slot[slot];
    uint64_t in = t->param & ~15ull;
    struct context control, sc, ec;
    unsigned port, connector;
    bool bsr = t->control & BSR;

    if (!read_context(x, in, &control) || !read_context(x, in + CONTEXT, &sc) ||
        !read_context(x, in + 2 * CONTEXT, &ec) || !output(x, slot)) {
        return CODE_TRB;
    }
    if ((control.dw[1] & 3) != 3 || control.dw[0] || (ec.dw[1] >> 3 & 7) != EP_CONTROL) {
        return CODE_PARAMETER;
    }
    if (s->state > (bsr ? SLOT_ENABLED : SLOT_DEFAULT)) {
        return CODE_CONTEXT_STATE;
    }
    port = sc.dw[1] >> 16 & 0xff;
    connector = (port - 1) % USB_CONNECTORS + 1;
    if (port == 0 || port > XHCI_PORTS || in_use(x, slot, connector, sc.dw[0] & 0xfffff)) {
        return CODE_PARAMETER;
    }
    struct usb_dev *u = usb_find(&x->bus, connector, sc.dw[0] & 0xfffff);
    if (!u || !(x->portsc[port - 1] & 1)) {
        return CODE_TRANSACTION;
    }
    s->connector = (uint8_t)connector;
    s->route = sc.dw[0] & 0xfffff;
    s->interrupter = (uint16_t)(sc.dw[2] >> 22);
    s->state = bsr ? SLOT_DEFAULT : SLOT_ADDRESSED;
    s->ep_state[1] = EP_RUNNING;
    s->ep_type[1] = EP_CONTROL;
    s->dequeue[1] = ((uint64_t)ec.dw[3] << 32 | ec.dw[2]) & ~14ull;
    sc.dw[3] = (uint32_t)s->state << 27 | (bsr ? 0 : slot);
    ec.dw[0] = (ec.dw[0] & ~7u) | EP_RUNNING;
    return write_context(x, slot, 0, &sc) && write_context(x, slot, 1, &ec) ? CODE_SUCCESS
                                                                            : CODE_TRB;
}

static enum xhci_code add_endpoint(struct xhci *x, unsigned slot, unsigned ep, uint64_t in)
{
    struct xhci_slot *s = &x->slot[slot];
    struct context c;
    unsigned type;

    if (!read_context(x, in + (uint64_t)CONTEXT * (ep + 1), &c)) {
        return CODE_TRB;
    }
    type = c.dw[1] >> 3 & 7;
    if (type == 1 || type == 5) {
        return CODE_RESOURCE; /* isochronous: no device has such */
    }
    if (type == 0 || type == EP_CONTROL || (type >> 2) != (ep & 1) || (c.dw[0] >> 10 & 31)) {
        return CODE_PARAMETER; /* the other direction, or streams */
    }
    s->ep_state[ep] = EP_RUNNING;
    s->ep_type[ep] = (uint8_t)type;
    s->dequeue[ep] = ((uint64_t)c.dw[3] << 32 | c.dw[2]) & ~14ull;
    c.dw[0] = (c.dw[0] & ~7u) | EP_RUNNING;
    return write_context(x, slot, ep, &c) ? CODE_SUCCESS : CODE_TRB;
}

static void drop_endpoints(struct xhci *x, unsigned slot, uint32_t which)
{
    for (unsigned ep = 2; ep < XHCI_ENDPOINTS; ep++) {
        if (which >> ep & 1) {
            xhci_set_ep_state(x, slot, ep, EP_DISABLED);
        }
    }
}

static unsigned last_endpoint(const struct xhci_slot *s)
{
    unsigned last = 1;

    for (unsigned ep = 2; ep < XHCI_ENDPOINTS; ep++) {
        last = s->ep_state[ep] != EP_DISABLED ? ep : last;
    }
    return last;
}

static enum xhci_code configure(struct xhci *x, unsigned slot, const struct xhci_trb_at *t)
{
    struct xhci_slot *s = &x->slot[slot];
    uint64_t in = t->param & ~15ull;
    struct context control, sc, new_sc;
    enum xhci_code code = CODE_SUCCESS;

    if (s->state < SLOT_ADDRESSED) {
        return CODE_CONTEXT_STATE;
    }
    if (t->control & BSR) {
        drop_endpoints(x, slot, UINT32_MAX);
        s->state = SLOT_ADDRESSED;
        show_slot(x, slot, slot);
        return CODE_SUCCESS;
    }
    if (!read_context(x, in, &control) || !read_context(x, in + CONTEXT, &new_sc) ||
        !read_output(x, slot, 0, &sc)) {
        return CODE_TRB;
    }
    if ((control.dw[0] & 3) || (control.dw[1] & 2)) {
        return CODE_PARAMETER;
    }
    drop_endpoints(x, slot, control.dw[0]);
    for (unsigned ep = 2; ep < XHCI_ENDPOINTS && code == CODE_SUCCESS; ep++) {
        if (control.dw[1] >> ep & 1) {
            code = add_endpoint(x, slot, ep, in);
        }
    }
    if (code != CODE_SUCCESS) {
        return code;
    }
    s->state = last_endpoint(s) > 1 ? SLOT_CONFIGURED : SLOT_ADDRESSED;
    if (control.dw[1] & 1) { /* that it is a hub, and of how many ports */
        sc.dw[0] = (sc.dw[0] & ~(3u << 25)) | (new_sc.dw[0] & 3u << 25);
        sc.dw[1] = (sc.dw[1] & 0xffffff) | (new_sc.dw[1] & 0xff000000);
        sc.dw[2] = (sc.dw[2] & ~(3u << 16)) | (new_sc.dw[2] & 3u << 16);
    }
    sc.dw[0] = (sc.dw[0] & 0x07ffffff) | last_endpoint(s) << 27;
    sc.dw[3] = (uint32_t)s->state << 27 | slot;
    return write_context(x, slot, 0, &sc) ? CODE_SUCCESS : CODE_TRB;
}

static enum xhci_code evaluate(struct xhci *x, unsigned slot, const struct xhci_trb_at *t)
{
    struct xhci_slot *s = &x->slot[slot];
    uint64_t in = t->param & ~15ull;
    struct context control, now, asked;

    if (s->state < SLOT_DEFAULT) {
        return CODE_CONTEXT_STATE;
    }
    if (!read_context(x, in, &control)) {
        return CODE_TRB;
    }
    if (control.dw[0] || (control.dw[1] & ~3u)) {
        return CODE_PARAMETER;
    }
    if (control.dw[1] & 1) {
        if (!read_context(x, in + CONTEXT, &asked) || !read_output(x, slot, 0, &now)) {
            return CODE_TRB;
        }
        now.dw[1] = (now.dw[1] & ~0xffffu) | (asked.dw[1] & 0xffff);
        now.dw[2] = (now.dw[2] & 0x3fffff) | (asked.dw[2] & ~0x3fffffu);
        s->interrupter = (uint16_t)(asked.dw[2] >> 22);
        (void)write_context(x, slot, 0, &now);
    }
    if (control.dw[1] & 2) {
        if (!read_context(x, in + 2 * CONTEXT, &asked) || !read_output(x, slot, 1, &now)) {
            return CODE_TRB;
        }
        now.dw[1] = (now.dw[1] & 0xffff) | (asked.dw[1] & 0xffff0000);
        (void)write_context(x, slot, 1, &now);
    }
    return CODE_SUCCESS;
}

static enum xhci_code endpoint_command(struct xhci *x, unsigned slot,
                                       const struct xhci_trb_at *t, unsigned type)
{
    struct xhci_slot *s = &x->slot[slot];
    unsigned ep = t->control >> 16 & 31;
    unsigned state = s->ep_state[ep];

    if (ep == 0) {
        return CODE_TRB;
    }
    if (state == EP_DISABLED) {
        return CODE_EP_NOT_ENABLED;
    }
    if (type == TRB_SET_DEQUEUE) {
        if (state != EP_STOPPED && state != EP_ERROR) {
            return CODE_CONTEXT_STATE;
        }
        s->dequeue[ep] = t->param & ~14ull;
        state = EP_STOPPED;
    } else if (type == TRB_RESET_ENDPOINT ? state != EP_HALTED : state != EP_RUNNING) {
        return CODE_CONTEXT_STATE;
    }
    xhci_set_ep_state(x, slot, ep, EP_STOPPED);
    return CODE_SUCCESS;
}

static enum xhci_code reset_device(struct xhci *x, unsigned slot)
{
    struct xhci_slot *s = &x->slot[slot];

    if (s->state < SLOT_ADDRESSED) {
        return CODE_CONTEXT_STATE;
    }
    drop_endpoints(x, slot, UINT32_MAX);
    s->state = SLOT_DEFAULT;
    show_slot(x, slot, 0);
    return CODE_SUCCESS;
}

static enum xhci_code command(struct xhci *x, const struct xhci_trb_at *t, unsigned *slot)
{
    unsigned type = t->control >> 10 & 63;

    if (type == TRB_NO_OP_COMMAND) {
        return CODE_SUCCESS;
    }
    if (type == TRB_ENABLE_SLOT) {
        return enable_slot(x, slot);
    }
    if (type < TRB_DISABLE_SLOT || type > TRB_RESET_DEVICE) {
        return CODE_TRB;
    }
    *slot = t->control >> 24;
    if (*slot == 0 || *slot > XHCI_SLOTS || !x->slot[*slot].enabled) {
        return CODE_SLOT_NOT_ENABLED;
    }
    switch (type) {
    case TRB_DISABLE_SLOT:
        return disable_slot(x, *slot);
    case TRB_ADDRESS_DEVICE:
        return address_device(x, *slot, t);
    case TRB_CONFIGURE_ENDPOINT:
        return configure(x, *slot, t);
    case TRB_EVALUATE_CONTEXT:
        return evaluate(x, *slot, t);
    case TRB_RESET_DEVICE:
        return reset_device(x, *slot);
    default:
        return endpoint_command(x, *slot, t, type);
    }
}

bool xhci_serve_commands(struct xhci *x)
{
    for (unsigned i = 0; i < TURN; i++) {
        struct xhci_trb_at t;
        uint64_t next = x->command;
        unsigned slot = 0;
        int rc;

        if (!xhci_running(x) || !x->command_running || !xhci_event_room(x, 0, 1)) {
            return true;
        }
        rc = xhci_fetch(x, &next, &t);
        if (rc < 0) {
            xhci_fatal(x, "the command ring is none");
        }
        x->command = rc < 0 ? x->command : next;
        if (rc != 1) {
            return true;
        }
        enum xhci_code code = command(x, &t, &slot);
        log_trace('u', "%s: command %u, slot %u: code %d", x->pci.dev.id, t.control >> 10 & 63,
                  slot, (int)code);
        xhci_event(x, 0, t.at, (uint32_t)code << 24,
                   (uint32_t)TRB_COMMAND_EVENT << 10 | slot << 24, false);
    }
    return false;
}
