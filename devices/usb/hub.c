/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A high-speed USB hub with eight ports (USB 2.0 §11). Owns the state of its ports; the devices are plugged for good.
 */
#include "devices/registry.h"
#include "devices/usb/usb.h"
#include "engine/core/vm.h"

#include <errno.h>
#include <string.h>

enum { EP_CHANGE = 0x81 };
enum { GET_STATUS = 0, CLEAR_FEATURE = 1, SET_FEATURE = 3, GET_DESCRIPTOR = 6 };
enum {
    PORT_CONNECTION = 0,
    PORT_ENABLE = 1,
    PORT_SUSPEND = 2,
    PORT_RESET = 4,
    PORT_POWER = 8,
    PORT_HIGH_SPEED = 10,
    C_PORT = 16 /* changes, in the order of what changes */
};
#define BIT(n) (1u << (n))

struct usb_hub {
    struct usb_dev u;
    uint32_t port[USB_CONNECTORS]; /* wPortStatus, and wPortChange above it */
};

static const uint8_t interface[] = {
    9, USB_DT_INTERFACE, 0,         0, 1, 9, 0,  0, 0, /* hub */
    7, USB_DT_ENDPOINT,  EP_CHANGE, 3, 2, 0, 12,
};

static bool there(const struct usb_hub *h, unsigned i)
{
    return h->u.kid[i] != NULL;
}

static enum usb_result hub_data(struct usb_dev *u, uint8_t ep, struct usb_data *d)
{
    struct usb_hub *h = (struct usb_hub *)u;
    uint8_t bits[2] = { 0, 0 };

    if (ep != EP_CHANGE) {
        return USB_STALL;
    }
    for (unsigned i = 0; i < USB_CONNECTORS; i++) {
        if (h->port[i] >> 16) {
            bits[(i + 1) / 8] |= (uint8_t)BIT((i + 1) % 8);
        }
    }
    if (!bits[0] && !bits[1]) {
        return USB_NAK;
    }
    usb_put(d, bits, sizeof(bits));
    return USB_OK;
}

static void changed(struct usb_hub *h, unsigned i, unsigned what)
{
    h->port[i] |= BIT(C_PORT + what);
    usb_wake(&h->u, EP_CHANGE);
}

static void set_port(struct usb_hub *h, unsigned i, unsigned feature)
{
    switch (feature) {
    case PORT_POWER:
        if (!(h->port[i] & BIT(PORT_POWER))) {
            h->port[i] |= BIT(PORT_POWER);
            if (there(h, i)) {
                h->port[i] |= BIT(PORT_CONNECTION);
                changed(h, i, PORT_CONNECTION);
            }
        }
        break;
    case PORT_RESET:
        if (h->port[i] & BIT(PORT_CONNECTION)) {
            usb_bus_reset(h->u.kid[i]);
            h->port[i] &= ~BIT(PORT_SUSPEND);
            h->port[i] |= BIT(PORT_ENABLE) | BIT(PORT_HIGH_SPEED);
            changed(h, i, PORT_RESET);
        }
        break;
    case PORT_SUSPEND:
        if (h->port[i] & BIT(PORT_ENABLE)) {
            h->port[i] |= BIT(PORT_SUSPEND);
        }
        break;
    default: /* lights */
        break;
    }
}

static void clear_port(struct usb_hub *h, unsigned i, unsigned feature)
{
    if (feature >= C_PORT && feature <= C_PORT + PORT_RESET) {
        h->port[i] &= ~BIT(feature);
    } else if (feature == PORT_ENABLE) {
        h->port[i] &= ~(BIT(PORT_ENABLE) | BIT(PORT_SUSPEND));
    } else if (feature == PORT_SUSPEND && (h->port[i] & BIT(PORT_SUSPEND))) {
        h->port[i] &= ~BIT(PORT_SUSPEND);
        changed(h, i, PORT_SUSPEND);
    } else if (feature == PORT_POWER) {
        h->port[i] = 0;
    }
}

static enum usb_result give(const void *p, unsigned size, uint8_t *data, unsigned *n)
{
    *n = *n < size ? *n : size;
    memcpy(data, p, *n);
    return USB_OK;
}

static enum usb_result hub_control(struct usb_dev *u, const struct usb_setup *s, uint8_t *data,
                                   unsigned *n)
{
    static const uint8_t descriptor[] = { 11,   USB_DT_HUB, USB_CONNECTORS,
                                          0x09, 0, /* each port's power and current by itself */
                                          5,    0,          0,
                                          0,    0xff,       0xff };
    struct usb_hub *h = (struct usb_hub *)u;
    unsigned i = (s->index & 0xffu) - 1;

    switch (s->type << 8 | s->request) {
    case 0xa0 << 8 | GET_DESCRIPTOR:
        return s->value >> 8 == USB_DT_HUB ? give(descriptor, sizeof(descriptor), data, n)
                                           : USB_STALL;
    case 0xa0 << 8 | GET_STATUS:
        return give("\0\0\0\0", 4, data, n);
    case 0x20 << 8 | CLEAR_FEATURE:
    case 0x20 << 8 | SET_FEATURE:
        return USB_OK;
    default:
        break;
    }
    if (i >= USB_CONNECTORS) {
        return USB_STALL;
    }
    switch (s->type << 8 | s->request) {
    case 0xa3 << 8 | GET_STATUS: {
        const uint8_t status[4] = { (uint8_t)h->port[i], (uint8_t)(h->port[i] >> 8),
                                    (uint8_t)(h->port[i] >> 16), (uint8_t)(h->port[i] >> 24) };
        return give(status, 4, data, n);
    }
    case 0x23 << 8 | SET_FEATURE:
        set_port(h, i, s->value);
        return USB_OK;
    case 0x23 << 8 | CLEAR_FEATURE:
        clear_port(h, i, s->value);
        return USB_OK;
    default:
        return USB_STALL;
    }
}

static void hub_reset(struct usb_dev *u)
{
    struct usb_hub *h = (struct usb_hub *)u;

    memset(h->port, 0, sizeof(h->port));
}

static const struct usb_ops hub_ops = { .product = 1,
                                        .title = "USB Hub",
                                        .class_code = 9,
                                        .protocol = 1, /* a single translator */
                                        .interface = interface,
                                        .interface_size = sizeof(interface),
                                        .control = hub_control,
                                        .data = hub_data,
                                        .bus_reset = hub_reset };

static int hub_realize(struct device *d, struct err *e)
{
    struct usb_dev *u = (struct usb_dev *)d;

    u->hub = true;
    return usb_attach(u, &hub_ops, e);
}

static void hub_destroy(struct device *d)
{
    usb_detach((struct usb_dev *)d);
}

static const struct st_field hub_fields[] = {
    USB_ST_FIELD,
    ST_ARRAY(struct usb_hub, port, ST_U32, USB_CONNECTORS, 1,
             "status of the ports, changes above it"),
    ST_END,
};
static const struct st_table hub_state = { .name = "usb-hub",
                                           .version = 1,
                                           .fields = hub_fields };

static const struct dev_prop hub_props[] = { USB_PROPS, { .name = NULL } };

const struct device_class usb_hub_class = {
    .name = "usb-hub",
    .doc = "USB 2.0 hub with eight ports",
    .size = sizeof(struct usb_hub),
    .props = hub_props,
    .state = &hub_state,
    .realize = hub_realize,
    .reset = usb_power_on,
    .destroy = hub_destroy,
};
