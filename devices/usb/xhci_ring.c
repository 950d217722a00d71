/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xHCI: transfer rings (xHCI 1.2 §4.9 to §4.11). A transfer descriptor is taken whole: copied, checked, given to the device at
 * once, and left where it is when the device has nothing to say yet. Entered on the main loop with the function's lock.
 *
 * Bounds: a TD has at most XHCI_TD TRBs, a ring at most LINKS links one behind the other, a turn of an endpoint TURN TDs.
 */
#include "devices/usb/xhci.h"
#include "engine/base/log.h"
#include "engine/core/vm.h"

#include <string.h>

#define LINKS 16
#define TURN 64

static unsigned type_of(const struct xhci_trb_at *t)
{
    return t->control >> 10 & 63;
}

static uint32_t length_of(const struct xhci_trb_at *t)
{
    return t->status & 0x1ffff;
}

int xhci_fetch(struct xhci *x, uint64_t *at, struct xhci_trb_at *t)
{
    uint8_t raw[16];

    for (unsigned links = 0; links < LINKS; links++) {
        uint64_t where = *at & ~15ull;

        if (dma_read(xhci_dma(x), where, raw, sizeof(raw)) != 0) {
            return -1;
        }
        t->at = where;
        t->param = pci_get(raw, 8);
        t->status = (uint32_t)pci_get(raw + 8, 4);
        t->control = (uint32_t)pci_get(raw + 12, 4);
        if ((t->control & TRB_CYCLE) != (*at & 1)) {
            return 0;
        }
        if (type_of(t) != TRB_LINK) {
            *at = (where + 16) | (*at & 1);
            return 1;
        }
        *at = (t->param & ~15ull) | ((*at & 1) ^ (t->control & TRB_TOGGLE ? 1u : 0u));
    }
    return -1;
}

/* A transfer: its TRBs in x->td, its memory in x->piece. */
struct transfer {
    struct xhci *x;
    unsigned slot, ep, n, n_events;
    uint64_t next; /* dequeue pointer behind it */
    struct usb_data data;
    struct usb_setup setup;
};

/* Copies the TRBs of the next TD, a control transfer with all its stages. 1, 0 or -1 as xhci_fetch(). */
static int gather(struct transfer *t, bool control)
{
    struct xhci *x = t->x;

    for (t->n = 0, t->n_events = 1; t->n < XHCI_TD;) {
        struct xhci_trb_at *trb = &x->td[t->n];
        int rc = xhci_fetch(x, &t->next, trb);

        if (rc != 1) {
            return rc;
        }
        t->n++;
        t->n_events += (trb->control & (TRB_IOC | TRB_ISP)) != 0;
        if (control && t->n == 1 && type_of(trb) != TRB_SETUP) {
            return type_of(trb) == TRB_NO_OP ? 1 : -1;
        }
        if (control && t->n > 1 && type_of(trb) == TRB_SETUP) {
            return -1;
        }
        if (!(trb->control & TRB_CHAIN) &&
            (!control || type_of(trb) == TRB_STATUS ||
             (type_of(trb) == TRB_EVENT_DATA && t->n > 1 && type_of(trb - 1) == TRB_STATUS))) {
            return 1;
        }
    }
    return -1;
}

static bool carries(const struct xhci_trb_at *t)
{
    return type_of(t) == TRB_NORMAL || type_of(t) == TRB_DATA;
}

/* Finds the memory; false: a TRB is none that may be here. */
static bool collect(struct transfer *t, bool control)
{
    struct xhci *x = t->x;

    t->data = (struct usb_data){ .dma = xhci_dma(x), .piece = x->piece };
    for (unsigned i = 0; i < t->n; i++) {
        const struct xhci_trb_at *trb = &x->td[i];
        unsigned type = type_of(trb);

        if (type == TRB_SETUP) {
            if (!control || length_of(trb) != 8 || !(trb->control & TRB_IDT)) {
                return false;
            }
            t->setup = (struct usb_setup){ (uint8_t)trb->param, (uint8_t)(trb->param >> 8),
                                           (uint16_t)(trb->param >> 16),
                                           (uint16_t)(trb->param >> 32),
                                           (uint16_t)(trb->param >> 48) };
        } else if (carries(trb)) {
            bool inside = trb->control & TRB_IDT;

            if ((type == TRB_DATA && !control) || (inside && length_of(trb) > 8)) {
                return false;
            }
            x->piece[t->data.n++] = (struct usb_piece){ inside ? trb->at : trb->param,
                                                        length_of(trb) };
            t->data.length += length_of(trb);
        } else if (type != TRB_EVENT_DATA && type != TRB_NO_OP &&
                   (type != TRB_STATUS || !control)) {
            return false;
        }
    }
    return true;
}

static void tell(struct transfer *t, const struct xhci_trb_at *trb, enum xhci_code code,
                 uint64_t param, uint32_t length, bool event_data)
{
    uint32_t control = (uint32_t)TRB_TRANSFER_EVENT << 10 | t->ep << 16 | t->slot << 24 |
                       (event_data ? 4u : 0u);

    xhci_event(t->x, trb->status >> 22, param, (length & 0xffffff) | (uint32_t)code << 24,
               control, trb->control & TRB_BEI);
}

/* Events of a transfer that went well or short. A short packet ends the stage, and is told once. */
static void tell_done(struct transfer *t)
{
    uint64_t left = t->data.moved;
    uint32_t sum = 0;
    bool is_short = false, told = false;

    for (unsigned i = 0; i < t->n; i++) {
        const struct xhci_trb_at *trb = &t->x->td[i];
        uint32_t length = carries(trb) ? length_of(trb) : 0;
        uint32_t done = length < left ? length : (uint32_t)left;

        if (type_of(trb) == TRB_STATUS) {
            is_short = told = false;
        }
        is_short |= done < length;
        left -= done;
        sum += done;
        if (type_of(trb) == TRB_EVENT_DATA) {
            if (trb->control & TRB_IOC) {
                tell(t, trb, is_short ? CODE_SHORT : CODE_SUCCESS, trb->param, sum, true);
            }
            sum = 0;
        } else if (!told &&
                   ((trb->control & TRB_IOC) || (is_short && (trb->control & TRB_ISP)))) {
            tell(t, trb, is_short ? CODE_SHORT : CODE_SUCCESS, trb->at, length - done, false);
            told = is_short;
        }
    }
}

/* The endpoint halts at the TRB that went wrong. */
static void tell_halt(struct transfer *t, enum xhci_code code)
{
    const struct xhci_trb_at *at = &t->x->td[0];
    uint64_t left = t->data.moved;
    uint32_t rest = 0;

    for (unsigned i = 0; i < t->n; i++) {
        const struct xhci_trb_at *trb = &t->x->td[i];

        if (type_of(trb) == TRB_EVENT_DATA) {
            continue;
        }
        at = trb;
        rest = 0;
        if (carries(trb)) {
            if (left < length_of(trb)) {
                rest = length_of(trb) - (uint32_t)left;
                break;
            }
            left -= length_of(trb);
        }
    }
    tell(t, at, code, at->at, rest, false);
    xhci_set_ep_state(t->x, t->slot, t->ep, code == CODE_TRB ? EP_ERROR : EP_HALTED);
}

static enum usb_result run_control(struct transfer *t, struct usb_dev *u)
{
    const struct usb_setup *s = &t->setup;
    uint8_t data[USB_CONTROL_MAX] = { 0 };
    unsigned n = s->length < sizeof(data) ? s->length : sizeof(data);
    enum usb_result r;

    if (s->type & USB_IN) {
        n = t->data.length < n ? (unsigned)t->data.length : n;
        r = usb_control(u, s, data, &n);
        if (r == USB_OK) {
            usb_put(&t->data, data, n);
        }
        return r;
    }
    if (s->length > sizeof(data) || usb_take(&t->data, data, n) != n) {
        return USB_STALL;
    }
    return usb_control(u, s, data, &n);
}

static enum usb_result run(struct transfer *t, struct usb_dev *u)
{
    unsigned address = t->ep / 2 | (t->ep & 1 ? USB_IN : 0);

    if (t->ep == 1) {
        return type_of(&t->x->td[0]) == TRB_SETUP ? run_control(t, u) : USB_OK;
    }
    return t->data.n > 0 ? usb_transfer(u, (uint8_t)address, &t->data) : USB_OK;
}

/* The next TD of an endpoint. 1: done, look for another; 0: nothing to do until something changes. */
static int step(struct transfer *t)
{
    struct xhci *x = t->x;
    struct xhci_slot *s = &x->slot[t->slot];
    struct usb_dev *u = xhci_device(x, s);
    enum usb_result r;
    int rc;

    t->next = s->dequeue[t->ep];
    rc = gather(t, t->ep == 1);
    if (rc == 0) {
        return 0;
    }
    if (!xhci_event_room(x, s->interrupter, t->n_events)) {
        return 0; /* when the driver has read some, everything is looked at again */
    }
    if (rc < 0 || !collect(t, t->ep == 1)) {
        log_trace('u', "%s: slot %u, endpoint %u: no transfer at 0x%llx", x->pci.dev.id,
                  t->slot, t->ep, (unsigned long long)s->dequeue[t->ep]);
        t->n = t->n ? t->n : 1;
        t->data.moved = 0;
        tell_halt(t, CODE_TRB);
        return 0;
    }
    if (!u) {
        tell_halt(t, CODE_TRANSACTION);
        return 0;
    }
    r = run(t, u);
    if (r == USB_NAK) {
        return 0;
    }
    if (r != USB_OK || t->data.failed) {
        tell_halt(t, t->data.failed ? CODE_DATA_BUFFER : CODE_STALL);
        return 0;
    }
    s->dequeue[t->ep] = t->next;
    tell_done(t);
    return 1;
}

bool xhci_serve_endpoint(struct xhci *x, unsigned slot, unsigned ep)
{
    struct xhci_slot *s = &x->slot[slot];
    struct transfer t = { .x = x, .slot = slot, .ep = ep };

    for (unsigned i = 0; i < TURN; i++) {
        if (!xhci_running(x) || !s->enabled || s->ep_state[ep] != EP_RUNNING || step(&t) == 0) {
            return true;
        }
    }
    return false;
}
