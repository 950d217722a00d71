/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a vhost-user front end needs of the host (vhost_user.h). Before the process confines itself; main thread.
 */
#include "devices/virtio/vhost_int.h"
#include "engine/base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

int vhost_kit_open(struct vhost_kit *k, struct err *e)
{
    void *at;

    *k = (struct vhost_kit){ .kick = { -1, -1 }, .call = { -1, -1 } };
    k->window_fd = memfd_create("vmd-vhost", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (k->window_fd < 0 || ftruncate(k->window_fd, VHOST_WINDOW) < 0 ||
        fcntl(k->window_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        return err_errno(e, errno, "cannot make memory for vhost-user");
    }
    at = mmap(NULL, VHOST_WINDOW, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
              k->window_fd, 0);
    if (at == MAP_FAILED) {
        return err_errno(e, errno, "cannot map memory for vhost-user");
    }
    (void)madvise(at, VHOST_WINDOW, MADV_DONTDUMP);
    k->window = at;
    for (unsigned q = 0; q < VHOST_MAX_QUEUES; q++) {
        k->kick[q] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        k->call[q] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (k->kick[q] < 0 || k->call[q] < 0) {
            return err_errno(e, errno, "cannot make bells for vhost-user");
        }
    }
    return 0;
}

void vhost_kit_close(struct vhost_kit *k)
{
    if (k->window) {
        munmap(k->window, VHOST_WINDOW);
    }
    fd_autoclose(&k->window_fd);
    for (unsigned q = 0; q < VHOST_MAX_QUEUES; q++) {
        fd_autoclose(&k->kick[q]);
        fd_autoclose(&k->call[q]);
    }
    *k = (struct vhost_kit){ .window_fd = -1, .kick = { -1, -1 }, .call = { -1, -1 } };
}
