/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two small protocols of a service manager: sockets handed over (LISTEN_FDS, sd_listen_fds(3))
 * and telling how it goes (NOTIFY_SOCKET, sd_notify(3)). Main thread, at start and end.
 */
#ifndef VMD_DAEMON_SYSTEMD_H
#define VMD_DAEMON_SYSTEMD_H

#include <stdbool.h>
#include <stdint.h>

#define SD_FDS_MAX 8

struct sd_fd {
    int fd;
    bool read_only; /* its name (FileDescriptorName=) ends in "ro" */
};

/* Sockets that were handed over, close-on-exec from now on; the variables are removed. Returns how
 * many; descriptors that are no listening unix stream sockets are closed with a warning. */
unsigned sd_take_fds(struct sd_fd out[SD_FDS_MAX]);
/* Keeps where to tell and removes the variable; then tells, e.g. "READY=1". No manager: nothing. */
void sd_tell_init(char *address, unsigned size);
/* How often the manager wants WATCHDOG=1 (WATCHDOG_USEC), ns; 0: it does not. Removes the variables. */
int64_t sd_watchdog_ns(void);
void sd_tell(const char *address, const char *text);

#endif
