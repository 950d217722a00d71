/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input by the class of the device (input.h). Owns nothing.
 */
#include "devices/input/input.h"

#include "devices/input/i8042.h"
#include "devices/registry.h"
#include "devices/usb/hid.h"
#include "engine/core/device.h"

int input_send(struct device *d, const struct input_step *step, unsigned n, struct err *e)
{
    return d->cls == &virtio_input_class ? virtio_input_send(d, step, n, e)
           : d->cls == &i8042_class      ? i8042_send(d, step, n, e)
                                         : usb_hid_send(d, step, n, e);
}
