/* SPDX-License-Identifier: Apache-2.0 */
/*
 * USB devices and where they are plugged (USB 2.0, USB 3.2). A USB device is a device class whose instance begins with a struct
 * usb_dev; a host controller owns a struct usb_bus with its connectors, and hubs have some more. What all devices answer alike
 * (descriptors, configurations, halted endpoints) is here; a class adds its own requests and the data of its endpoints.
 *
 * Transfers are never under way: a device takes or gives data at once, or says USB_NAK and later usb_wake()s its endpoint. So a
 * host controller holds nothing of a guest's memory between two calls, and has nothing in flight when it is saved.
 *
 * The host controller's device lock covers the controller and all devices at it; it is held in each call below unless said
 * otherwise. Main loop.
 */
#ifndef VMD_DEVICES_USB_USB_H
#define VMD_DEVICES_USB_USB_H

#include "engine/core/device.h"

#define USB_CONNECTORS 8 /* of a host controller, and of a hub */
#define USB_TIERS 5      /* hubs between a controller and a device */
#define USB_IN 0x80      /* bit of an endpoint's address */
#define USB_CONTROL_MAX                                                                        \
    1024 /* bytes of a control transfer's data that a device gives or takes */

enum usb_speed { USB_FULL = 1, USB_LOW = 2, USB_HIGH = 3, USB_SUPER = 4 };
enum usb_result { USB_OK, USB_STALL, USB_NAK };

/* Types of descriptors. */
enum {
    USB_DT_DEVICE = 1,
    USB_DT_CONFIG = 2,
    USB_DT_STRING = 3,
    USB_DT_INTERFACE = 4,
    USB_DT_ENDPOINT = 5,
    USB_DT_BOS = 15,
    USB_DT_CAPABILITY = 16,
    USB_DT_HID = 0x21,
    USB_DT_HID_REPORT = 0x22,
    USB_DT_HUB = 0x29,
    USB_DT_COMPANION = 48
};

struct usb_setup {
    uint8_t type, request; /* bmRequestType, bRequest */
    uint16_t value, index, length;
};

/* Guest memory of a transfer. What is not RAM makes it fail. */
struct usb_piece {
    uint64_t at; /* the driver's address */
    uint32_t length;
};
struct usb_data {
    const struct device *dma; /* whose addresses these are */
    const struct usb_piece *piece;
    unsigned n;
    uint64_t length,
        moved;   /* bytes of all pieces; of those that were filled or read, from the front */
    bool failed; /* the memory is none */
};
/* Moves at most n bytes on; returns how many. */
size_t usb_put(struct usb_data *d, const void *p, size_t n);
size_t usb_take(struct usb_data *d, void *p, size_t n);

struct usb_bus;
struct usb_dev;

struct usb_ops {
    uint16_t product; /* of the descriptor */
    const char *title;
    uint8_t class_code, protocol; /* of the device; 0: the interfaces say it */
    bool super;                   /* can do SuperSpeed */
    /* Interface, class and endpoint descriptors of the one configuration, for high speed. */
    const uint8_t *interface;
    unsigned interface_size;
    /* Requests that are not standard ones of devices, and descriptors of the class. *n: bytes of data that came, or that fit; set
     * to what there is to give. */
    enum usb_result (*control)(struct usb_dev *u, const struct usb_setup *s, uint8_t *data,
                               unsigned *n);
    /* Endpoint `ep`, an address with USB_IN. */
    enum usb_result (*data)(struct usb_dev *u, uint8_t ep, struct usb_data *d);
    void (*bus_reset)(struct usb_dev *u); /* and at power on; may be NULL */
};

struct usb_dev {
    struct device dev;
    struct usb_bus *bus; /* property */
    char *place;         /* property: "2", "2.1"; NULL: the first that is free */
    const struct usb_ops *ops;
    const char *serial;    /* string descriptor, or NULL */
    struct usb_dev *above; /* a hub, or NULL */
    unsigned port;         /* from 1: of the hub, or the connector of the controller */
    bool hub, attached;
    struct usb_dev *kid[USB_CONNECTORS];
    enum usb_speed speed;

    /* Saved. */
    uint8_t configuration;
    bool wakeup;
    uint32_t halted; /* bit: number of the endpoint, plus 16 for IN */
};

struct usb_bus {
    struct device *host;
    struct usb_dev *kid[USB_CONNECTORS];
    /* The host controller's. */
    void (*wake)(struct usb_bus *b, struct usb_dev *u, uint8_t ep);
    void (*plugged)(struct usb_bus *b, struct usb_dev *u); /* at a connector */
};

/* Properties of each USB class. */
#define USB_PROPS                                                                              \
    { .name = "bus",                                                                           \
      .kind = PROP_PTR,                                                                        \
      .offset = offsetof(struct usb_dev, bus),                                                 \
      .required = true,                                                                        \
      .doc = "host controller's bus" },                                                        \
    {                                                                                          \
        .name = "port", .kind = PROP_STR, .offset = offsetof(struct usb_dev, place),           \
        .doc = "where it is plugged: a connector, behind hubs their ports, as in 1.4; by "     \
               "default the first free place"                                                  \
    }

extern const struct st_table usb_dev_state;
#define USB_ST_FIELD                                                                           \
    {                                                                                          \
        .name = "usb", .kind = ST_STRUCT, .offset = 0, .count = 1,                             \
        .stride = sizeof(struct usb_dev), .since = 1, .table = &usb_dev_state,                 \
        .doc = "what every USB device holds"                                                   \
    }

/* --- main thread, at realize, reset and destroy; no lock --- */

/* Takes its place. -EINVAL, -EBUSY, -ENOSPC with the place named. */
int usb_attach(struct usb_dev *u, const struct usb_ops *ops, struct err *e);
void usb_power_on(struct device *d); /* is a device_class.reset */
void usb_detach(struct usb_dev *u);  /* accepts what was never attached */

/* The bus of a host controller device (xhci.c); any thread, no lock. */
struct usb_bus *usb_bus_of(struct device *host);

/* --- for the host controller --- */

/* The device at a connector (from 1) and a route string (xHCI §4.3.3): four bits a hub, the nearest lowest. NULL: nothing there. */
struct usb_dev *usb_find(struct usb_bus *b, unsigned connector, uint32_t route);
uint32_t usb_route(const struct usb_dev *u, unsigned *connector); /* the way back */
void usb_bus_reset(struct usb_dev *u);
enum usb_result usb_control(struct usb_dev *u, const struct usb_setup *s, uint8_t *data,
                            unsigned *n);
enum usb_result usb_transfer(struct usb_dev *u, uint8_t ep, struct usb_data *d);

/* --- for devices --- */

/* The endpoint may have something to give, or room. */
void usb_wake(struct usb_dev *u, uint8_t ep);

#endif
