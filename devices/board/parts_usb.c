/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The USB controller of a board, its devices and disks. Main thread.
 */
#include "devices/board/disks.h"
#include "devices/board/parts.h"
#include "devices/registry.h"
#include "devices/usb/usb.h"
#include "engine/core/vm.h"

#include <stdio.h>

static const struct usb_kind {
    const struct device_class *cls;
    const char *id;
    int input; /* enum board_input, or -1 */
} usb_kinds[] = {
    [BOARD_USB_HUB] = { &usb_hub_class, "usb-hub", -1 },
    [BOARD_USB_KEYBOARD] = { &usb_keyboard_class, "usb-keyboard", BOARD_KEYBOARD },
    [BOARD_USB_TABLET] = { &usb_tablet_class, "usb-tablet", BOARD_TABLET },
    [BOARD_USB_MOUSE] = { &usb_mouse_class, "usb-mouse", BOARD_MOUSE },
};

static bool wanted(const struct board_config *c)
{
    bool some = c->n_usb > 0;

    for (unsigned i = 0; i < c->n_disks; i++) {
        some |= c->disk[i].bus == BOARD_USB;
    }
    return some;
}

/* Plugs a device in, and frees it when that fails. */
static int plug(struct board_parts *b, struct device *d, const char *port, struct err *e)
{
    int rc = dev_set_ptr(d, "bus", usb_bus_of(b->usb), e);

    if (rc == 0 && port) {
        rc = dev_set_str(d, "port", port, e);
    }
    if (rc == 0) {
        rc = dev_realize(d, e);
    }
    if (rc != 0) {
        dev_free(d);
    }
    return rc;
}

static int add_device(struct board_parts *b, unsigned i, struct err *e)
{
    const struct board_usb *u = &b->cfg.usb[i];
    const struct usb_kind *k = &usb_kinds[u->kind];
    struct device *d;
    char id[32];
    int rc;

    snprintf(id, sizeof(id), "%s%u", k->id, i);
    rc = dev_new(b->vm, k->cls, id, &d, e);
    if (rc == 0) {
        rc = plug(b, d, u->port, e);
    }
    if (rc == 0 && k->input >= 0 && !b->input[k->input]) {
        b->input[k->input] = d;
    }
    return rc;
}

static int add_disk(struct board_parts *b, unsigned i, struct err *e)
{
    struct device *d = NULL;
    int rc = board_new_disk(b->vm, &b->cfg, i, &d, e);

    if (rc != 0) {
        dev_free(d);
        return rc;
    }
    return plug(b, d, NULL, e);
}

/* Devices that name their port go first, so that no other takes it. */
int parts_add_usb(struct board_parts *b, struct err *e)
{
    struct device *d;
    int rc;

    if (!wanted(&b->cfg)) {
        return 0;
    }
    rc = dev_new(b->vm, &xhci_class, "usb0", &d, e);
    if (rc == 0) {
        rc = parts_plug(b, d, e);
    }
    if (rc != 0) {
        return rc;
    }
    b->usb = d;
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < b->cfg.n_usb && rc == 0; i++) {
            if ((b->cfg.usb[i].port != NULL) == (pass == 0)) {
                rc = add_device(b, i, e);
            }
        }
    }
    for (unsigned i = 0; i < b->cfg.n_disks && rc == 0; i++) {
        if (b->cfg.disk[i].bus == BOARD_USB) {
            rc = add_disk(b, i, e);
        }
    }
    return rc;
}
