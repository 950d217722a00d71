/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors: whole reads and writes, files replaced whole, unix sockets and what travels over
 * them. Owns nothing; any thread (each descriptor is the caller's).
 */
#include "engine/base/fd.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

enum { MAX_FDS = 64 }; /* a message carries no more; the kernel's own limit is 253 */

void fd_autoclose(int *fd)
{
    if (*fd >= 0) {
        int saved = errno;
        close(*fd);
        *fd = -1; /* a second one closes nothing that somebody else has opened since */
        errno = saved;
    }
}

int take_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

/* Sets or clears one bit of what fcntl(get) returns. */
static int fd_flag(int fd, int get, int set, int bit, bool on, struct err *e)
{
    int flags = fcntl(fd, get);
    if (flags < 0 || fcntl(fd, set, on ? flags | bit : flags & ~bit) < 0) {
        return err_errno(e, errno, "descriptor %d", fd);
    }
    return 0;
}

int fd_set_nonblock(int fd, bool on, struct err *e)
{
    return fd_flag(fd, F_GETFL, F_SETFL, O_NONBLOCK, on, e);
}

int fd_set_cloexec(int fd, bool on, struct err *e)
{
    return fd_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC, on, e);
}

int fd_write_all(int fd, const void *p, size_t n, const char *what, struct err *e)
{
    const char *from = p;
    while (n > 0) {
        ssize_t done = write(fd, from, n);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            return err_errno(e, errno, "cannot write %s", what);
        }
        from += done;
        n -= (size_t)done;
    }
    return 0;
}

int fd_read_all(int fd, void *p, size_t n, const char *what, struct err *e)
{
    size_t got = 0;
    while (got < n) {
        ssize_t done = read(fd, (char *)p + got, n - got);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            return err_errno(e, errno, "cannot read %s", what);
        }
        if (done == 0) {
            return err_set(e, -ENODATA, "%s ends after %zu of %zu bytes", what, got, n);
        }
        got += (size_t)done;
    }
    return 0;
}

ssize_t fd_pread(int fd, void *p, size_t n, uint64_t at)
{
    const struct iovec iov = { .iov_base = p, .iov_len = n };

    return preadv(fd, &iov, 1, (off_t)at);
}

ssize_t fd_pwrite(int fd, const void *p, size_t n, uint64_t at)
{
    const struct iovec iov = { .iov_base = (void *)(uintptr_t)p, .iov_len = n };

    return pwritev(fd, &iov, 1, (off_t)at);
}

int fd_slurp(int fd, struct buf *b, size_t max, const char *what, struct err *e)
{
    AUTO_BUF all = BUF_INIT;
    for (;;) {
        size_t want = max - all.len < 65536 ? max - all.len + 1
                                            : 65536; /* one more: too big? */
        buf_reserve(&all, want);
        ssize_t done = read(fd, all.data + all.len, want);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            return err_errno(e, errno, "cannot read %s", what);
        }
        if (done == 0) {
            break;
        }
        if ((size_t)done > max - all.len) {
            return err_set(e, -EFBIG, "%s is larger than %zu bytes", what, max);
        }
        all.len += (size_t)done;
        all.data[all.len] = '\0';
    }
    buf_add(b, all.data, all.len);
    return 0;
}

int file_slurp(const char *path, struct buf *b, size_t max, struct err *e)
{
    AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        return err_errno(e, errno, "cannot open %s", path);
    }
    return fd_slurp(fd, b, max, path, e);
}

/* The folder that holds `path`, opened; its last component in *base. */
static int open_parent(const char *path, const char **base, struct err *e)
{
    const char *slash = strrchr(path, '/');
    AUTO_FREE char *dir = slash ? xstrndup(path, slash == path ? 1 : (size_t)(slash - path))
                                : xstrdup(".");
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return err_errno(e, errno, "cannot open the folder %s", dir);
    }
    *base = slash ? slash + 1 : path;
    return fd;
}

/* Makes `tmp` in the folder with the bytes on the disk under it; gone again on failure. */
static int write_synced(int dir, const char *tmp, const void *p, size_t n, unsigned mode,
                        const char *path, struct err *e)
{
    AUTO_FD fd = openat(dir, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
                        (mode_t)mode);
    if (fd < 0) {
        return err_errno(e, errno, "cannot create %s.tmp", path);
    }
    int rc = fd_write_all(fd, p, n, path, e);
    if (!rc && (fchmod(fd, (mode_t)mode) < 0 || fsync(fd) < 0)) {
        rc = err_errno(e, errno, "cannot write %s", path);
    }
    if (rc) {
        unlinkat(dir, tmp, 0);
    }
    return rc;
}

int file_replace(const char *path, const void *p, size_t n, unsigned mode, struct err *e)
{
    const char *base;
    AUTO_FD dir = open_parent(path, &base, e);
    if (dir < 0) {
        return dir;
    }
    AUTO_FREE char *tmp = xasprintf("%s.tmp", base);
    int rc = write_synced(dir, tmp, p, n, mode, path, e);
    if (rc) {
        return rc;
    }
    if (renameat(dir, tmp, dir, base) < 0) {
        rc = err_errno(e, errno, "cannot replace %s", path);
        unlinkat(dir, tmp, 0);
        return rc;
    }
    if (fsync(dir) < 0) {
        return err_errno(e, errno, "cannot write the folder of %s", path);
    }
    return 0;
}

/* --- unix sockets --------------------------------------------------------------------------- */

/* Fills the address. A path longer than sun_path goes through /proc/self/fd/N of its folder,
 * which must stay open in *dir for the call that uses the address. */
static int unix_address(const char *path, struct sockaddr_un *sa, int *dir, struct err *e)
{
    *sa = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (strlen(path) < sizeof(sa->sun_path)) {
        strcpy(sa->sun_path, path);
        return 0;
    }
    const char *base;
    int fd = open_parent(path, &base, e);
    if (fd < 0) {
        return fd;
    }
    int n = snprintf(sa->sun_path, sizeof(sa->sun_path), "/proc/self/fd/%d/%s", fd, base);
    if (n < 0 || (size_t)n >= sizeof(sa->sun_path)) {
        close(fd);
        return err_set(e, -ENAMETOOLONG, "the socket name %s is too long", base);
    }
    *dir = fd;
    return 0;
}

/* Removes a socket file that nobody listens on. */
static int clear_stale(const struct sockaddr_un *sa, const char *path, struct err *e)
{
    struct stat st;
    if (lstat(path, &st) < 0) {
        return errno == ENOENT ? 0 : err_errno(e, errno, "cannot look at %s", path);
    }
    if (!S_ISSOCK(st.st_mode)) {
        return err_set(e, -EADDRINUSE, "%s exists and is no socket; move it away", path);
    }
    AUTO_FD probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0) {
        return err_errno(e, errno, "cannot make a socket");
    }
    if (connect(probe, (const struct sockaddr *)sa, sizeof(*sa)) == 0 || errno == EAGAIN) {
        return err_set(e, -EADDRINUSE, "another process listens on %s", path);
    }
    if (errno != ECONNREFUSED && errno != ENOENT) {
        return err_errno(e, errno, "cannot use the socket %s", path);
    }
    if (unlink(path) < 0 && errno != ENOENT) {
        return err_errno(e, errno, "cannot remove the stale socket %s", path);
    }
    return 0;
}

int unix_listen(const char *path, unsigned mode, int backlog, struct err *e)
{
    struct sockaddr_un sa;
    AUTO_FD dir = -1;
    int rc = unix_address(path, &sa, &dir, e);
    if (rc) {
        return rc;
    }
    rc = clear_stale(&sa, path, e);
    if (rc) {
        return rc;
    }
    AUTO_FD fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return err_errno(e, errno, "cannot make a socket");
    }
    /* The file is made with the socket's own mode, less the umask, so that it is never more
     * open than asked; chmod then adds what the umask took. */
    if (fchmod(fd, (mode_t)mode) < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        return err_errno(e, errno, "cannot make the socket %s", path);
    }
    if (chmod(path, (mode_t)mode) < 0 || (backlog >= 0 && listen(fd, backlog) < 0)) {
        rc = err_errno(e, errno, "cannot listen on %s", path);
        unlink(path);
        return rc;
    }
    return take_fd(&fd);
}

static int connect_to(const char *path, int flags, struct err *e)
{
    struct sockaddr_un sa;
    AUTO_FD dir = -1;
    int rc = unix_address(path, &sa, &dir, e);
    if (rc) {
        return rc;
    }
    AUTO_FD fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    if (fd < 0) {
        return err_errno(e, errno, "cannot make a socket");
    }
    do {
        rc = connect(fd, (struct sockaddr *)&sa, sizeof(sa));
    } while (rc < 0 && errno == EINTR);
    if (rc < 0 && errno == EAGAIN) {
        return err_set(e, -EAGAIN,
                       "cannot connect to %s: whoever listens there does not answer", path);
    }
    if (rc < 0) {
        return err_errno(e, errno, "cannot connect to %s", path);
    }
    return take_fd(&fd);
}

int unix_connect(const char *path, struct err *e)
{
    return connect_to(path, 0, e);
}

int unix_connect_now(const char *path, struct err *e)
{
    return connect_to(path, SOCK_NONBLOCK, e);
}

int unix_peer(int fd, pid_t *pid, uid_t *uid, gid_t *gid, struct err *e)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0) {
        return err_errno(e, errno, "cannot tell who is at the other end of the socket");
    }
    if (pid) {
        *pid = cred.pid;
    }
    if (uid) {
        *uid = cred.uid;
    }
    if (gid) {
        *gid = cred.gid;
    }
    return 0;
}

int fd_send(int sock, const void *p, size_t n, const int *fds, unsigned nfds, struct err *e)
{
    assert(n >= 1 && nfds <= MAX_FDS);
    union {
        char space[CMSG_SPACE(MAX_FDS * sizeof(int))];
        struct cmsghdr align;
    } control = { .space = { 0 } };
    const char *from = p;
    while (n > 0) {
        struct iovec iov = { .iov_base = (void *)(uintptr_t)from, .iov_len = n };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
        if (nfds > 0) {
            msg.msg_control = control.space;
            msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
            struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
            c->cmsg_level = SOL_SOCKET;
            c->cmsg_type = SCM_RIGHTS;
            c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
            memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
        }
        ssize_t done = sendmsg(sock, &msg, MSG_NOSIGNAL);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            return err_errno(e, errno, "cannot send over the socket");
        }
        nfds = 0; /* they went with the first byte */
        from += done;
        n -= (size_t)done;
    }
    return 0;
}

/* Copies descriptors out of the message; those that do not fit are closed and counted too. */
static unsigned collect_fds(struct msghdr *msg, int *fds, unsigned room)
{
    unsigned got = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++, got++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (got < room) {
                fds[got] = fd;
            } else {
                close(fd);
            }
        }
    }
    return got;
}

ssize_t fd_recv(int sock, void *p, size_t n, int *fds, unsigned *nfds, struct err *e)
{
    union {
        char space[CMSG_SPACE(MAX_FDS * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = { .iov_base = p, .iov_len = n };
    struct msghdr msg = { .msg_iov = &iov,
                          .msg_iovlen = 1,
                          .msg_control = control.space,
                          .msg_controllen = sizeof(control.space) };
    ssize_t done;
    do {
        done = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
    } while (done < 0 && errno == EINTR);
    if (done < 0) {
        return err_errno(e, errno, "cannot receive from the socket");
    }
    unsigned room = nfds ? *nfds : 0;
    unsigned got = collect_fds(&msg, fds, room);
    if (got > room || (msg.msg_flags & MSG_CTRUNC)) {
        for (unsigned i = 0; i < got && i < room; i++) {
            close(fds[i]);
        }
        return err_set(e, -EMSGSIZE,
                       "the message carries more descriptors than the %u expected", room);
    }
    if (nfds) {
        *nfds = got;
    }
    return done;
}
