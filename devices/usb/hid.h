/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input by USB: keyboard, mouse and tablet take the same steps as the virtio ones (virtio_input.h), whose errors apply.
 */
#ifndef VMD_DEVICES_USB_HID_H
#define VMD_DEVICES_USB_HID_H

#include "devices/input/virtio_input.h"

/* As virtio_input_send(); main thread, no lock held. */
int usb_hid_send(struct device *d, const struct input_step *step, unsigned n, struct err *e);

#endif
