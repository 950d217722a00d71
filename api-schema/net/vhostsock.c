/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process that makes connections to a vhost-user back end (vhostsock.h). It owns the socket it listens at, and its file. It reads nothing
 * that a guest or a back end sends. One thread.
 */
#include "api-schema/net/vhostsock.h"

#include "engine/base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define AGAIN_MS 500 /* between a back end that was lost and the next try */

enum { ASK = 3, LISTEN = 4 }; /* descriptors that it keeps */

/* Waits; false: nobody wants connections any more. */
static bool wait_for(int fd, int ms)
{
    struct pollfd p[2] = { { .fd = ASK, .events = 0 }, { .fd = fd, .events = POLLIN } };

    while (poll(p, 2, ms) < 0 && errno == EINTR) {
    }
    return !(p[0].revents & (POLLHUP | POLLERR | POLLNVAL));
}

static int one_connection(const char *path, bool listens)
{
    if (!listens) {
        return unix_connect(path, NULL);
    }
    return wait_for(LISTEN, -1) ? accept4(LISTEN, NULL, NULL, SOCK_CLOEXEC) : -1;
}

static void __attribute__((noreturn)) serve(const char *path, bool listens)
{
    bool again = !listens; /* the first is there, so who asks has lost it */
    char byte;

    while (recv(ASK, &byte, 1, 0) == 1) {
        AUTO_FD fd = -1;

        while (fd < 0) {
            if ((again && !wait_for(-1, AGAIN_MS)) || !wait_for(-1, 0)) {
                break;
            }
            again = true;
            fd = one_connection(path, listens);
        }
        if (fd < 0 || fd_send(ASK, "c", 1, &fd, 1, NULL) < 0) {
            break;
        }
    }
    if (listens) {
        (void)unlink(path);
    }
    _exit(0);
}

static void __attribute__((noreturn)) child(const char *path, int ask, int listener)
{
    int high_ask = fcntl(ask, F_DUPFD_CLOEXEC, 10),
        null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int high = listener >= 0 ? fcntl(listener, F_DUPFD_CLOEXEC, 10) : -1;
    sigset_t none;

    setsid();
    for (int sig = 1; sig < NSIG; sig++) {
        signal(sig, SIG_DFL);
    }
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int fd = 0; fd < 3; fd++) {
        dup2(null, fd);
    }
    dup2(high_ask, ASK);
    if (high >= 0) {
        dup2(high, LISTEN);
    }
    close_range(high >= 0 ? LISTEN + 1 : LISTEN, ~0U, 0);
    prctl(PR_SET_NAME, "vmd-vhost-sock");
    serve(path, high >= 0);
}

int vhost_sock_start(const char *path, bool listens, pid_t *pid, struct err *e)
{
    AUTO_FD fd = listens ? unix_listen(path, 0660, 1, e) : unix_connect(path, e);
    int pair[2], rc = 0;

    if (fd < 0) {
        return fd;
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        return err_errno(e, errno, "cannot make a socket pair");
    }
    AUTO_FD mine = pair[0], theirs = pair[1];
    if (!listens) {
        rc = fd_send(theirs, "c", 1, &fd, 1, e);
    }
    if (rc == 0) {
        *pid = fork();
        if (*pid == 0) {
            child(path, theirs, listens ? fd : -1);
        }
        rc = *pid < 0 ? err_errno(e, errno, "cannot make a process that connects to '%s'", path)
                      : 0;
    }
    return rc == 0 ? take_fd(&mine) : rc;
}
