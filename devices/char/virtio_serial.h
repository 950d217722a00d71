/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-serial: a virtio console with many ports (virtio 1.2 §5.3 with VIRTIO_CONSOLE_F_MULTIPORT), each a chr. Ports
 * come and go while the guest runs. Main loop.
 */
#ifndef VMD_DEVICES_CHAR_VIRTIO_SERIAL_H
#define VMD_DEVICES_CHAR_VIRTIO_SERIAL_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct chr;
struct device;

#define VIRTIO_SERIAL_PORTS 9     /* port 0 is left to a console */
#define VIRTIO_SERIAL_NAME_MAX 64 /* bytes, with the terminator */

/* Adds a port with that name, or (console) one that the guest makes a terminal of. The stream outlives the port. -EEXIST: there is
 * one of that name; -ENOSPC: there are no more. Before or after the device is realized. */
int virtio_serial_add(struct device *d, const char *name, bool console, struct chr *chr,
                      struct err *e);
/* Takes it away from the guest, whether it likes that or not; the stream is free at once. -ENOENT: there is none. */
int virtio_serial_remove(struct device *d, const char *name, struct err *e);
/* The terminal at the other end of a console has that size now. */
int virtio_serial_resize(struct device *d, const char *name, uint16_t columns, uint16_t rows,
                         struct err *e);
/* Has a program of the guest opened it? */
bool virtio_serial_is_open(struct device *d, const char *name);

#endif
