/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys of a virtio-input device, for the board's owner.
 */
#ifndef VMD_DEVICES_INPUT_VIRTIO_INPUT_H
#define VMD_DEVICES_INPUT_VIRTIO_INPUT_H

#include "engine/base/err.h"

#include <stdint.h>

struct device;

#define INPUT_KEY_POWER 116 /* as in the guest's input.h */

/* Presses and lets go a key of the device. While the VM is paused the guest gets it when it runs again. Main thread. -ENODEV:
 * no driver in the guest listens; -EINVAL: it has no such key; -ENOSPC: the guest has not looked at former ones. */
int virtio_input_tap(struct device *d, uint16_t key, struct err *e);

#endif
