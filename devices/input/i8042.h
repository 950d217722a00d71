/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys and movements for the PS/2 keyboard and mouse at a PC's keyboard controller. Main thread.
 */
#ifndef VMD_DEVICES_INPUT_I8042_H
#define VMD_DEVICES_INPUT_I8042_H

#include "devices/input/virtio_input.h"

/* As virtio_input_send(). */
int i8042_send(struct device *d, const struct input_step *step, unsigned n, struct err *e);

#endif
