/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls of a guest to programs of its host (vsock), in the monitor: the emulator has no way to connect to anything, and asks for
 * sockets of its own run folder by their number. One packet each way (engine/base/vsockcall.h). Nothing waits.
 */
#include "daemon/spawn/spawn.h"
#include "engine/base/fd.h"
#include "engine/base/vsockcall.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* The stream to who listens at vsock_PORT of the folder, or -1. */
static int call(int dir_fd, uint32_t port)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    char name[32];
    struct stat st;

    snprintf(name, sizeof(name), VM_VSOCK "_%u", (unsigned)port);
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISSOCK(st.st_mode)) {
        return -1;
    }
    snprintf(to.sun_path, sizeof(to.sun_path), "/proc/self/fd/%d/%s", dir_fd, name);
    AUTO_FD fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
        return -1;
    }
    return take_fd(&fd);
}

bool vsock_serve(int calls, int dir_fd)
{
    struct vsock_call c;
    ssize_t n = recv(calls, &c, sizeof(c), MSG_DONTWAIT);

    if (n != sizeof(c)) {
        return n < 0 && (errno == EAGAIN || errno == EINTR);
    }
    AUTO_FD fd = call(dir_fd, c.port);
    (void)fd_send(calls, &c, sizeof(c), &fd, fd >= 0 ? 1 : 0, NULL);
    return true;
}
