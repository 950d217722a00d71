/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared folders: what the boards and the emulator need of virtio-fs and virtio-9p. Main thread.
 */
#ifndef VMD_DEVICES_FS_SHARE_H
#define VMD_DEVICES_FS_SHARE_H

#include "engine/core/device.h"

struct vhost_user;

/* The socket of a 9p server, owned. */
struct p9_server {
    int fd;
};

/* A device for a shared folder, not realized: virtio-fs when *take_back is not NULL, else virtio-9p at *take_fd. Both are the
 * device's from then on, and *take_back NULL, *take_fd -1. */
int share_device_new(struct vm *vm, const char *id, const char *tag,
                     struct vhost_user **take_back, int *take_fd, struct device **out,
                     struct err *e);

/* Does the guest use it? Then its server has state that is not in the machine's. Main thread. */
bool share_mounted(const struct device *d);
/* Of the two classes; main thread. */
bool virtio_fs_mounted(const struct device *d);
bool virtio_9p_mounted(const struct device *d);

#endif
