/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all USB devices have in common (usb.h): places, descriptors and standard requests (USB 2.0 §9, USB 3.2 §9). Owns nothing.
 */
#include "devices/usb/usb.h"

#include "engine/core/dma.h"
#include "engine/core/vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VENDOR 0x1209 /* its first numbers are free for everybody */
#define CONFIG_MAX 256

enum {
    GET_STATUS = 0,
    CLEAR_FEATURE = 1,
    SET_FEATURE = 3,
    SET_ADDRESS = 5,
    GET_DESCRIPTOR = 6,
    GET_CONFIGURATION = 8,
    SET_CONFIGURATION = 9,
    GET_INTERFACE = 10,
    SET_INTERFACE = 11,
    SET_SEL = 48,
    SET_ISOCH_DELAY = 49
};
enum { TO_DEVICE = 0, TO_INTERFACE = 1, TO_ENDPOINT = 2 };
enum { FEATURE_HALT = 0, FEATURE_WAKEUP = 1, FEATURE_U1 = 48, FEATURE_LTM = 50 };
enum { STRING_VENDOR = 1, STRING_PRODUCT = 2, STRING_SERIAL = 3 };

/* --- memory of transfers --- */

static size_t move(struct usb_data *d, void *p, size_t n, bool put)
{
    uint64_t skip = d->moved;
    size_t done = 0;

    for (unsigned i = 0; i < d->n && done < n && !d->failed; i++) {
        uint64_t length = d->piece[i].length, part;

        if (skip >= length) {
            skip -= length;
            continue;
        }
        part = length - skip < n - done ? length - skip : n - done;
        d->failed = (put ? dma_write(d->dma, d->piece[i].at + skip, (char *)p + done, part)
                         : dma_read(d->dma, d->piece[i].at + skip, (char *)p + done, part)) !=
                    0;
        done += d->failed ? 0 : part;
        skip = 0;
    }
    d->moved += done;
    return done;
}

size_t usb_put(struct usb_data *d, const void *p, size_t n)
{
    return move(d, (void *)p, n, true);
}

size_t usb_take(struct usb_data *d, void *p, size_t n)
{
    return move(d, p, n, false);
}

/* --- places --- */

static bool free_place(struct usb_dev **kid, struct usb_dev *above, struct usb_dev *u)
{
    for (unsigned i = 0; i < USB_CONNECTORS; i++) {
        if (!kid[i]) {
            kid[i] = u;
            u->above = above;
            u->port = i + 1;
            return true;
        }
    }
    return false;
}

static unsigned depth(const struct usb_dev *u)
{
    unsigned n = 0;

    for (; u; u = u->above) {
        n++;
    }
    return n;
}

/* The first free port of a hub at the controller or at one of its hubs. */
static bool free_behind(struct usb_dev **kid, struct usb_dev *u, unsigned tiers)
{
    for (unsigned i = 0; i < USB_CONNECTORS; i++) {
        if (kid[i] && kid[i]->hub && kid[i] != u &&
            (free_place(kid[i]->kid, kid[i], u) ||
             (tiers > 1 && free_behind(kid[i]->kid, u, tiers - 1)))) {
            return true;
        }
    }
    return false;
}

static int take_place(struct usb_dev *u, struct err *e)
{
    struct usb_dev **kid = u->bus->kid, *above = NULL;
    const char *at = u->place;

    for (;;) {
        char *end;
        unsigned long n = *at >= '1' && *at <= '9' ? strtoul(at, &end, 10) : 0;

        if (n == 0 || n > USB_CONNECTORS || (*end && *end != '.')) {
            return err_set(e, -EINVAL,
                           "%s: '%s' is no USB port: numbers from 1 to %d, with dots between "
                           "those of hubs",
                           u->dev.id, u->place, USB_CONNECTORS);
        }
        if (!*end && kid[n - 1]) {
            return err_set(e, -EBUSY, "%s: USB port %s is taken by %s", u->dev.id, u->place,
                           kid[n - 1]->dev.id);
        }
        if (!*end) {
            kid[n - 1] = u;
            u->above = above;
            u->port = (unsigned)n;
            return 0;
        }
        above = kid[n - 1];
        if (!above || !above->hub) {
            return err_set(e, -EINVAL,
                           "%s: there is no hub on the way to USB port %s; name hubs first",
                           u->dev.id, u->place);
        }
        kid = above->kid;
        at = end + 1;
    }
}

int usb_attach(struct usb_dev *u, const struct usb_ops *ops, struct err *e)
{
    u->ops = ops;
    if (u->place) {
        int rc = take_place(u, e);

        if (rc != 0) {
            return rc;
        }
    } else if (!free_place(u->bus->kid, NULL, u) && !free_behind(u->bus->kid, u, USB_TIERS)) {
        return err_set(e, -ENOSPC,
                       "%s: no USB port is free; add a hub at one of the controller's %d",
                       u->dev.id, USB_CONNECTORS);
    }
    u->attached = true;
    if (depth(u) > USB_TIERS + (u->hub ? 0u : 1u)) {
        usb_detach(u);
        return err_set(e, -EINVAL, "%s: more than %d hubs one behind the other", u->dev.id,
                       USB_TIERS);
    }
    u->speed = ops->super && !u->above ? USB_SUPER : USB_HIGH;
    return 0;
}

void usb_detach(struct usb_dev *u)
{
    struct usb_dev **kid = u->above ? u->above->kid : u->attached ? u->bus->kid : NULL;

    if (kid && u->attached) {
        kid[u->port - 1] = NULL;
    }
    u->attached = false;
    u->above = NULL;
}

struct usb_dev *usb_find(struct usb_bus *b, unsigned connector, uint32_t route)
{
    struct usb_dev *u = connector >= 1 && connector <= USB_CONNECTORS ? b->kid[connector - 1]
                                                                      : NULL;

    for (; u && route; route >>= 4) {
        unsigned n = route & 15;

        u = n >= 1 && n <= USB_CONNECTORS ? u->kid[n - 1] : NULL;
    }
    return u;
}

uint32_t usb_route(const struct usb_dev *u, unsigned *connector)
{
    uint32_t route = 0;

    for (; u->above; u = u->above) {
        route = route << 4 | u->port;
    }
    *connector = u->port;
    return route;
}

void usb_wake(struct usb_dev *u, uint8_t ep)
{
    u->bus->wake(u->bus, u, ep);
}

/* --- descriptors --- */

static unsigned device_descriptor(const struct usb_dev *u, uint8_t *out)
{
    bool super = u->speed == USB_SUPER;
    const uint8_t d[18] = { 18,
                            USB_DT_DEVICE,
                            0,
                            super ? 3 : 2,
                            u->ops->class_code,
                            0,
                            u->ops->protocol,
                            super ? 9 : 64, /* of 512 bytes, as a power of two */
                            VENDOR & 0xff,
                            VENDOR >> 8,
                            (uint8_t)u->ops->product,
                            (uint8_t)(u->ops->product >> 8),
                            0,
                            1,
                            STRING_VENDOR,
                            STRING_PRODUCT,
                            u->serial ? STRING_SERIAL : 0,
                            1 };

    memcpy(out, d, sizeof(d));
    return sizeof(d);
}

/* The configuration with all its parts; at SuperSpeed bulk endpoints have larger packets, and each endpoint a companion. */
static unsigned config_descriptor(const struct usb_dev *u, uint8_t *out)
{
    const uint8_t *p = u->ops->interface, *end = p + u->ops->interface_size;
    bool super = u->speed == USB_SUPER;
    unsigned n = 9, interfaces = 0;

    for (; p < end; p += p[0]) {
        memcpy(out + n, p, p[0]);
        interfaces += p[1] == USB_DT_INTERFACE;
        if (p[1] == USB_DT_ENDPOINT && super) {
            const uint8_t companion[6] = { 6, USB_DT_COMPANION, 15, 0, 0, 0 };

            if ((p[3] & 3) == 2) {
                out[n + 4] = 0;
                out[n + 5] = 4; /* 1024 */
            }
            memcpy(out + n + p[0], companion, sizeof(companion));
            n += sizeof(companion);
        }
        n += p[0];
    }
    const uint8_t head[9] = {
        9, USB_DT_CONFIG, (uint8_t)n, (uint8_t)(n >> 8), (uint8_t)interfaces, 1,
        0, 0xe0, /* has power of its own, can wake the host */
        0
    };
    memcpy(out, head, sizeof(head));
    return n;
}

static unsigned bos_descriptor(uint8_t *out)
{
    static const uint8_t d[] = {
        5,  USB_DT_BOS,        22, 0, 2,               /* two capabilities: */
        7,  USB_DT_CAPABILITY, 2,  2, 0, 0, 0,         /* link power management */
        10, USB_DT_CAPABILITY, 3,  0, 8, 0, 3, 0, 0, 0 /* SuperSpeed, works from there on */
    };

    memcpy(out, d, sizeof(d));
    return sizeof(d);
}

static unsigned string_descriptor(const struct usb_dev *u, unsigned index, uint8_t *out)
{
    const char *text = index == STRING_VENDOR    ? "vmd"
                       : index == STRING_PRODUCT ? u->ops->title
                       : index == STRING_SERIAL  ? u->serial
                                                 : NULL;
    unsigned n = 2;

    if (index == 0) { /* languages: English */
        memcpy(out, "\4\3\x09\4", 4);
        return 4;
    }
    if (!text) {
        return 0;
    }
    for (; *text && n < 126; text++, n += 2) {
        out[n] = (uint8_t)*text;
        out[n + 1] = 0;
    }
    out[0] = (uint8_t)n;
    out[1] = USB_DT_STRING;
    return n;
}

static enum usb_result get_descriptor(struct usb_dev *u, const struct usb_setup *s,
                                      uint8_t *data, unsigned *n)
{
    uint8_t all[CONFIG_MAX];
    unsigned have = 0, index = s->value & 0xff;

    switch (s->value >> 8) {
    case USB_DT_DEVICE:
        have = device_descriptor(u, all);
        break;
    case USB_DT_CONFIG:
        have = index == 0 ? config_descriptor(u, all) : 0;
        break;
    case USB_DT_STRING:
        have = string_descriptor(u, index, all);
        break;
    case USB_DT_BOS:
        have = u->speed == USB_SUPER ? bos_descriptor(all) : 0;
        break;
    default:
        break;
    }
    if (have == 0) {
        return USB_STALL;
    }
    *n = have < *n ? have : *n;
    memcpy(data, all, *n);
    return USB_OK;
}

/* --- standard requests --- */

static uint32_t halt_bit(unsigned ep)
{
    return 1u << ((ep & 15) + (ep & USB_IN ? 16 : 0));
}

static enum usb_result get_status(struct usb_dev *u, const struct usb_setup *s, uint8_t *data,
                                  unsigned *n)
{
    unsigned to = s->type & 31;
    uint8_t status = to == TO_DEVICE ? (uint8_t)(1 | (u->wakeup ? 2 : 0))
                     : to == TO_ENDPOINT && (u->halted & halt_bit(s->index)) ? 1
                                                                             : 0;

    *n = *n < 2 ? *n : 2;
    for (unsigned i = 0; i < *n; i++) {
        data[i] = i == 0 ? status : 0;
    }
    return USB_OK;
}

static enum usb_result set_feature(struct usb_dev *u, const struct usb_setup *s, bool on)
{
    unsigned to = s->type & 31;

    if (to == TO_ENDPOINT && s->value == FEATURE_HALT) {
        u->halted = on ? u->halted | halt_bit(s->index) : u->halted & ~halt_bit(s->index);
        return USB_OK;
    }
    if (to == TO_DEVICE && s->value == FEATURE_WAKEUP) {
        u->wakeup = on;
        return USB_OK;
    }
    /* Power of links, which have none here, and of functions. */
    return to == TO_INTERFACE || (s->value >= FEATURE_U1 && s->value <= FEATURE_LTM)
               ? USB_OK
               : USB_STALL;
}

static enum usb_result give_byte(uint8_t byte, uint8_t *data, unsigned *n)
{
    *n = *n < 1 ? 0 : 1;
    if (*n) {
        data[0] = byte;
    }
    return USB_OK;
}

enum usb_result usb_control(struct usb_dev *u, const struct usb_setup *s, uint8_t *data,
                            unsigned *n)
{
    bool hid = s->request == GET_DESCRIPTOR && (s->type & 31) == TO_INTERFACE;

    u->halted &= ~(halt_bit(0) | halt_bit(USB_IN));
    if ((s->type & 0x60) || hid) {
        return u->ops->control ? u->ops->control(u, s, data, n) : USB_STALL;
    }
    switch (s->request) {
    case GET_STATUS:
        return get_status(u, s, data, n);
    case CLEAR_FEATURE:
        return set_feature(u, s, false);
    case SET_FEATURE:
        return set_feature(u, s, true);
    case GET_DESCRIPTOR:
        return get_descriptor(u, s, data, n);
    case GET_CONFIGURATION:
        return give_byte(u->configuration, data, n);
    case SET_CONFIGURATION:
        if (s->value > 1) {
            return USB_STALL;
        }
        u->configuration = (uint8_t)s->value;
        u->halted = 0;
        return USB_OK;
    case GET_INTERFACE:
        return give_byte(0, data, n);
    case SET_INTERFACE:
        u->halted = 0;
        return s->value == 0 ? USB_OK : USB_STALL;
    case SET_ADDRESS: /* the controller's work */
    case SET_SEL:
    case SET_ISOCH_DELAY:
        return USB_OK;
    default:
        return USB_STALL;
    }
}

enum usb_result usb_transfer(struct usb_dev *u, uint8_t ep, struct usb_data *d)
{
    enum usb_result r;

    if (!u->configuration || (u->halted & halt_bit(ep)) || !u->ops->data) {
        return USB_STALL;
    }
    r = u->ops->data(u, ep, d);
    if (r == USB_STALL) {
        u->halted |= halt_bit(ep);
    }
    return r;
}

void usb_bus_reset(struct usb_dev *u)
{
    u->configuration = 0;
    u->wakeup = false;
    u->halted = 0;
    if (u->ops->bus_reset) {
        u->ops->bus_reset(u);
    }
}

void usb_power_on(struct device *d)
{
    struct usb_dev *u = (struct usb_dev *)d;

    bus_lock(&u->bus->host->lock);
    usb_bus_reset(u);
    if (!u->above) {
        u->bus->plugged(u->bus, u);
    }
    bus_unlock(&u->bus->host->lock);
}

static const struct st_field usb_dev_fields[] = {
    ST_FIELD(struct usb_dev, configuration, ST_U8, 1,
             "configuration that the driver has set, 0: none"),
    ST_FIELD(struct usb_dev, wakeup, ST_BOOL, 1, "may wake the host"),
    ST_FIELD(struct usb_dev, halted, ST_U32, 1, "endpoints that are halted, 16 further for IN"),
    ST_END,
};
const struct st_table usb_dev_state = { .name = "usb-device",
                                        .version = 1,
                                        .fields = usb_dev_fields };
