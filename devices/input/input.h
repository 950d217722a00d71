/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps of input for whatever a board has: virtio-input devices and those by USB. Main thread.
 */
#ifndef VMD_DEVICES_INPUT_INPUT_H
#define VMD_DEVICES_INPUT_INPUT_H

#include "devices/input/virtio_input.h"

/* virtio_input_send() or usb_hid_send(), by the device's class. */
int input_send(struct device *d, const struct input_step *step, unsigned n, struct err *e);

#endif
