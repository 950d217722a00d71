/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Socket activation and notification, by hand: both protocols are a few lines. No state.
 */
#include "daemon/host/systemd.h"

#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define FIRST_FD 3

static bool is_listener(int fd)
{
    int type = 0, listens = 0;
    struct sockaddr_storage at;
    socklen_t n = sizeof(type), m = sizeof(listens), k = sizeof(at);
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_STREAM &&
           getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &m) == 0 && listens &&
           getsockname(fd, (struct sockaddr *)&at, &k) == 0 && at.ss_family == AF_UNIX;
}

static bool ends_in_ro(const char *name)
{
    size_t n = strlen(name);
    return n >= 2 && strcmp(name + n - 2, "ro") == 0;
}

unsigned sd_take_fds(struct sd_fd out[SD_FDS_MAX])
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    const char *names = getenv("LISTEN_FDNAMES");
    uint64_t for_pid = 0, n = 0;
    unsigned taken = 0;
    AUTO_FREE char *list = xstrdup(names ? names : "");
    char *rest = list;
    if (!pid || !count || str_to_u64(pid, 1, INT32_MAX, "LISTEN_PID", &for_pid, NULL) < 0 ||
        (pid_t)for_pid != getpid() || str_to_u64(count, 0, 64, "LISTEN_FDS", &n, NULL) < 0) {
        n = 0;
    }
    for (unsigned i = 0; i < n; i++) {
        const char *name = strsep(&rest, ":");
        int fd = FIRST_FD + (int)i;
        if (taken == SD_FDS_MAX || !is_listener(fd)) {
            log_warn("daemon", "descriptor %d of LISTEN_FDS is no listening unix socket", fd);
            close(fd);
            continue;
        }
        fd_set_cloexec(fd, true, NULL);
        out[taken++] = (struct sd_fd){ .fd = fd, .read_only = name && ends_in_ro(name) };
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    return taken;
}

void sd_tell_init(char *address, unsigned size)
{
    const char *at = getenv("NOTIFY_SOCKET");
    str_copy(address, size, at ? at : "");
    unsetenv("NOTIFY_SOCKET");
}

int64_t sd_watchdog_ns(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    uint64_t us = 0, for_pid = 0;
    if (!usec || str_to_u64(usec, 1, UINT64_C(86400000000), "WATCHDOG_USEC", &us, NULL) < 0 ||
        (pid && (str_to_u64(pid, 1, INT32_MAX, "WATCHDOG_PID", &for_pid, NULL) < 0 ||
                 (pid_t)for_pid != getpid()))) {
        us = 0;
    }
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    return (int64_t)us * 1000;
}

void sd_tell(const char *address, const char *text)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    size_t n = strlen(address);
    if (n < 2 || n >= sizeof(at.sun_path) || (address[0] != '/' && address[0] != '@')) {
        return;
    }
    memcpy(at.sun_path, address, n);
    if (address[0] == '@') {
        at.sun_path[0] = 0; /* the abstract namespace */
    }
    AUTO_FD fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    if (fd < 0 ||
        sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&at, len) < 0) {
        log_warn("daemon", "the service manager could not be told '%s'", text);
    }
}
