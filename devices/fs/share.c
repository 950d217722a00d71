/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes the device of a shared folder (share.h). Owns nothing. Main thread.
 */
#include "devices/fs/share.h"
#include "devices/registry.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

int share_device_new(struct vm *vm, const char *id, const char *tag,
                     struct vhost_user **take_back, int *take_fd, struct device **out,
                     struct err *e)
{
    bool fs = *take_back != NULL;
    struct device *d;
    int rc = dev_new(vm, fs ? &virtio_fs_class : &virtio_9p_class, id, &d, e);

    if (rc != 0) {
        return rc;
    }
    if (fs) {
        rc = dev_set_ptr(d, "back", *take_back, e);
        *take_back = rc == 0 ? NULL : *take_back;
    } else {
        struct p9_server *s = xnew(struct p9_server);

        s->fd = *take_fd;
        rc = dev_set_ptr(d, "server", s, e);
        if (rc == 0) {
            *take_fd = -1;
        } else {
            free(s);
        }
    }
    rc = rc == 0 ? dev_set_str(d, "tag", tag, e) : rc;
    if (rc != 0) {
        dev_free(d);
        return rc;
    }
    *out = d;
    return 0;
}

bool share_mounted(const struct device *d)
{
    return d->cls == &virtio_fs_class ? virtio_fs_mounted(d) : virtio_9p_mounted(d);
}
