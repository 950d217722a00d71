/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys, buttons and axes of a virtio-input device, for the board's owner. Numbers are those of the guest's input.h (Linux,
 * input-event-codes).
 */
#ifndef VMD_DEVICES_INPUT_VIRTIO_INPUT_H
#define VMD_DEVICES_INPUT_VIRTIO_INPUT_H

#include "engine/base/err.h"

#include <stdint.h>

struct device;

enum {
    INPUT_EV_SYN = 0,
    INPUT_EV_KEY = 1,
    INPUT_EV_REL = 2,
    INPUT_EV_ABS = 3,
    INPUT_EV_REP = 0x14
};
enum { INPUT_REL_X = 0, INPUT_REL_Y = 1, INPUT_REL_HWHEEL = 6, INPUT_REL_WHEEL = 8 };
enum { INPUT_ABS_X = 0, INPUT_ABS_Y = 1, INPUT_ABS_MAX = 0x7fff };
enum {
    INPUT_BTN_LEFT = 0x110,
    INPUT_BTN_RIGHT = 0x111,
    INPUT_BTN_MIDDLE = 0x112,
    INPUT_BTN_SIDE = 0x113,
    INPUT_BTN_EXTRA = 0x114
};
#define INPUT_KEY_POWER 116
#define INPUT_KEY_LAST 248 /* of a keyboard */

struct input_step {
    uint16_t type, code; /* INPUT_EV_KEY, _REL or _ABS */
    int32_t value;       /* 1 down, 0 up; how far; where, 0 to INPUT_ABS_MAX */
};

/* Sends n steps that belong together, as one report, or nothing. While the VM is paused the guest gets it when it runs again. Main
 * thread. -ENODEV: no driver in the guest listens; -EINVAL: it has no such key or axis; -ENOSPC: the guest has not looked at
 * former ones. */
int virtio_input_send(struct device *d, const struct input_step *step, unsigned n,
                      struct err *e);
/* Presses and lets go a key of the device: both or neither. Errors as above. */
int virtio_input_tap(struct device *d, uint16_t key, struct err *e);

#endif
