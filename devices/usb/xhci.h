/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the xHCI host controller (xHCI 1.2): what its three files share. xhci.c has registers, ports, the event ring and the
 * class; xhci_cmd.c the command ring, slots and contexts; xhci_ring.c transfer rings. The function's device lock covers all of it.
 */
#ifndef VMD_DEVICES_USB_XHCI_H
#define VMD_DEVICES_USB_XHCI_H

#include "devices/bus/pci.h"
#include "devices/usb/usb.h"

#define XHCI_SLOTS 64
#define XHCI_PORTS (2 * USB_CONNECTORS) /* each connector once for USB 2 and once for USB 3 */
#define XHCI_INTERRUPTERS 4
#define XHCI_ENDPOINTS 32 /* of a slot, by their numbers in contexts: 1 is endpoint 0 */
#define XHCI_TD 512       /* TRBs of a transfer */

enum xhci_trb {
    TRB_NORMAL = 1,
    TRB_SETUP = 2,
    TRB_DATA = 3,
    TRB_STATUS = 4,
    TRB_ISOCH = 5,
    TRB_LINK = 6,
    TRB_EVENT_DATA = 7,
    TRB_NO_OP = 8,
    TRB_ENABLE_SLOT = 9,
    TRB_DISABLE_SLOT = 10,
    TRB_ADDRESS_DEVICE = 11,
    TRB_CONFIGURE_ENDPOINT = 12,
    TRB_EVALUATE_CONTEXT = 13,
    TRB_RESET_ENDPOINT = 14,
    TRB_STOP_ENDPOINT = 15,
    TRB_SET_DEQUEUE = 16,
    TRB_RESET_DEVICE = 17,
    TRB_NO_OP_COMMAND = 23,
    TRB_TRANSFER_EVENT = 32,
    TRB_COMMAND_EVENT = 33,
    TRB_PORT_EVENT = 34
};
enum { /* bits of a TRB's last word */
       TRB_CYCLE = 1,
       TRB_TOGGLE = 1 << 1, /* of a link */
       TRB_ISP = 1 << 2,
       TRB_CHAIN = 1 << 4,
       TRB_IOC = 1 << 5,
       TRB_IDT = 1 << 6,
       TRB_BEI = 1 << 9,
       TRB_IN = 1 << 16
};
enum xhci_code {
    CODE_SUCCESS = 1,
    CODE_DATA_BUFFER = 2,
    CODE_TRANSACTION = 4,
    CODE_TRB = 5,
    CODE_STALL = 6,
    CODE_RESOURCE = 7,
    CODE_NO_SLOTS = 9,
    CODE_SLOT_NOT_ENABLED = 11,
    CODE_EP_NOT_ENABLED = 12,
    CODE_SHORT = 13,
    CODE_PARAMETER = 17,
    CODE_CONTEXT_STATE = 19,
    CODE_RING_STOPPED = 24
};
enum xhci_ep_state {
    EP_DISABLED = 0,
    EP_RUNNING = 1,
    EP_HALTED = 2,
    EP_STOPPED = 3,
    EP_ERROR = 4
};
enum xhci_ep_type {
    EP_CONTROL = 4,
    EP_BULK_OUT = 2,
    EP_INT_OUT = 3,
    EP_BULK_IN = 6,
    EP_INT_IN = 7
};
enum xhci_slot_state {
    SLOT_ENABLED = 0,
    SLOT_DEFAULT = 1,
    SLOT_ADDRESSED = 2,
    SLOT_CONFIGURED = 3
};

struct xhci_trb_at {
    uint64_t param, at; /* at: guest physical address */
    uint32_t status, control;
};

struct xhci_slot {
    bool enabled;
    uint8_t state; /* enum xhci_slot_state */
    uint8_t connector;
    uint32_t route;
    uint16_t interrupter;
    uint8_t ep_state[XHCI_ENDPOINTS], ep_type[XHCI_ENDPOINTS];
    uint64_t dequeue[XHCI_ENDPOINTS]; /* and the cycle bit as bit 0 */
    uint32_t pending;                 /* endpoints to be looked at; not saved */
};

struct xhci {
    struct pci_fn pci;
    struct usb_bus bus;
    bool wanted; /* a service is posted */
    bool commands_pending;
    bool starved; /* something waits until the driver has read events */

    /* Registers. */
    uint32_t usbcmd, usbsts, dnctrl, config;
    uint64_t crcr, dcbaap;
    uint32_t portsc[XHCI_PORTS], portpmsc[XHCI_PORTS];
    uint32_t iman[XHCI_INTERRUPTERS], imod[XHCI_INTERRUPTERS], erstsz[XHCI_INTERRUPTERS];
    uint64_t erstba[XHCI_INTERRUPTERS], erdp[XHCI_INTERRUPTERS];

    uint64_t command; /* dequeue pointer of the command ring, the cycle bit as bit 0 */
    bool command_running;
    uint32_t event_at
        [XHCI_INTERRUPTERS]; /* next event to write, by its number in the ring's segment */
    bool event_cycle[XHCI_INTERRUPTERS];
    uint32_t port_events;                  /* ports whose change was not told yet */
    struct xhci_slot slot[XHCI_SLOTS + 1]; /* by number, from 1 */

    /* The transfer that is being looked at. */
    struct xhci_trb_at td[XHCI_TD];
    struct usb_piece piece[XHCI_TD];
};

/* xhci.c */
bool xhci_running(const struct xhci *x);
void xhci_service_soon(struct xhci *x);
const struct device *xhci_dma(const struct xhci *x); /* whose reach transfers have */
/* Room for n events, or for as many as a ring can hold? */
bool xhci_event_room(struct xhci *x, unsigned interrupter, unsigned n);
void xhci_event(struct xhci *x, unsigned interrupter, uint64_t param, uint32_t status,
                uint32_t control, bool quiet);
/* Memory that is none, rings that are none: the controller stops, as after a host system error. */
void xhci_fatal(struct xhci *x, const char *what);

/* xhci_ring.c: the TRB at *at (cycle bit as bit 0), links followed; *at moves behind it. 1: there is one; 0: none yet; -1: the ring
 * is broken. */
int xhci_fetch(struct xhci *x, uint64_t *at, struct xhci_trb_at *t);
/* Serves endpoint `ep` of a slot; false: it wants another turn. */
bool xhci_serve_endpoint(struct xhci *x, unsigned slot, unsigned ep);

/* xhci_cmd.c */
bool xhci_serve_commands(struct xhci *x);
struct usb_dev *xhci_device(struct xhci *x, const struct xhci_slot *s);
void xhci_set_ep_state(struct xhci *x, unsigned slot, unsigned ep, enum xhci_ep_state state);
void xhci_slots_reset(struct xhci *x);

#endif
