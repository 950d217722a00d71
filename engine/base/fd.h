/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors: reading and writing whole, passing over unix sockets, unix listeners.
 * All descriptors made here are close-on-exec.
 */
#ifndef VMD_BASE_FD_H
#define VMD_BASE_FD_H

#include "engine/base/buf.h"
#include "engine/base/err.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

void fd_autoclose(int *fd);
#define AUTO_FD __attribute__((cleanup(fd_autoclose))) int /* AUTO_FD fd = -1; */
int take_fd(int *fd);                                      /* moves it out, leaves -1 */

int fd_set_nonblock(int fd, bool on, struct err *e);
int fd_set_cloexec(int fd, bool on, struct err *e);
/* `what` names the object in errors (a path, "VM 'x' control socket"). Retry on EINTR. */
int fd_write_all(int fd, const void *p, size_t n, const char *what, struct err *e);
int fd_read_all(int fd, void *p, size_t n, const char *what,
                struct err *e); /* short: -ENODATA */
/* pread(2) and pwrite(2) for what runs inside a sandbox, which allows preadv(2) and pwritev(2) alone. */
ssize_t fd_pread(int fd, void *p, size_t n, uint64_t at);
ssize_t fd_pwrite(int fd, const void *p, size_t n, uint64_t at);
/* Whole file into b; -EFBIG beyond max bytes. */
int fd_slurp(int fd, struct buf *b, size_t max, const char *what, struct err *e);
int file_slurp(const char *path, struct buf *b, size_t max, struct err *e);
/* Writes path.tmp, fsyncs, renames over path, fsyncs the folder. */
int file_replace(const char *path, const void *p, size_t n, unsigned mode, struct err *e);

/* Unix stream sockets. A stale socket file (nobody listens) is replaced, a live one is
 * -EADDRINUSE. A negative backlog binds only: the process that gets the descriptor calls
 * listen() and is then the peer that SO_PEERCRED names. Paths may be longer than sun_path.
 * Both return the descriptor or a negative code. */
int unix_listen(const char *path, unsigned mode, int backlog, struct err *e);
int unix_connect(const char *path, struct err *e);
/* For loops: never waits. -EAGAIN where the listener accepts nobody; the descriptor does not block either. */
int unix_connect_now(const char *path, struct err *e);
int unix_peer(int fd, pid_t *pid, uid_t *uid, gid_t *gid, struct err *e); /* SO_PEERCRED */
/* Sends n bytes (n >= 1) with up to 64 descriptors; receives likewise (*nfds in: room, out: got). */
int fd_send(int sock, const void *p, size_t n, const int *fds, unsigned nfds, struct err *e);
ssize_t fd_recv(int sock, void *p, size_t n, int *fds, unsigned *nfds, struct err *e);

#endif
