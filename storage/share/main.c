/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmd-share: serves one folder by 9P2000.L to one emulator. Started by vmd-spawn in a jail of its own, with descriptors of the folder, of
 * its own /proc/self/fd and of a stream socket; ends with that. One thread.
 */
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "storage/share/confine.h"
#include "storage/share/p9.h"

#include <endian.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

struct options {
    int socket, root, proc, status;
    bool readonly, mapped;
};

static int parse_fd(const char *text, const char *what, int *fd, struct err *e)
{
    uint64_t n;
    int rc = str_to_u64(text, 0, 1 << 20, what, &n, e);

    *fd = rc == 0 ? (int)n : -1;
    return rc;
}

static int parse(struct options *o, int argc, char **argv, struct err *e)
{
    static const struct option list[] = {
        { "socket-fd", 1, NULL, 's' }, { "root-fd", 1, NULL, 'r' },
        { "proc-fd", 1, NULL, 'p' },   { "status-fd", 1, NULL, 't' },
        { "readonly", 0, NULL, 'o' },  { "mapped", 0, NULL, 'm' },
        { NULL, 0, NULL, 0 },
    };
    int opt, rc = 0;

    *o = (struct options){ .socket = -1, .root = -1, .proc = -1, .status = -1 };
    while (rc == 0 && (opt = getopt_long(argc, argv, "", list, NULL)) != -1) {
        switch (opt) {
        case 's':
            rc = parse_fd(optarg, "--socket-fd", &o->socket, e);
            break;
        case 'r':
            rc = parse_fd(optarg, "--root-fd", &o->root, e);
            break;
        case 'p':
            rc = parse_fd(optarg, "--proc-fd", &o->proc, e);
            break;
        case 't':
            rc = parse_fd(optarg, "--status-fd", &o->status, e);
            break;
        case 'o':
            o->readonly = true;
            break;
        case 'm':
            o->mapped = true;
            break;
        default:
            return err_set(e, -EINVAL, "vmd-share: unknown option; vmd-spawn starts it");
        }
    }
    return rc == 0 && (o->socket < 0 || o->root < 0 || o->proc < 0)
               ? err_set(e, -EINVAL, "vmd-share is started by vmd-spawn")
               : rc;
}

/* Until the client has gone, or says what is no 9P. */
static void serve(struct p9 *s, int sock)
{
    AUTO_FREE uint8_t *in = xalloc(P9_MSIZE), *out = xalloc(P9_MSIZE);

    for (;;) {
        uint32_t size;
        size_t n;

        if (fd_read_all(sock, in, P9_HEADER, "client", NULL) < 0) {
            return;
        }
        memcpy(&size, in, sizeof(size));
        size = le32toh(size);
        if (size < P9_HEADER || size > P9_MSIZE ||
            fd_read_all(sock, in + P9_HEADER, size - P9_HEADER, "client", NULL) < 0) {
            return;
        }
        n = p9_answer(s, in, size, out);
        if (fd_write_all(sock, out, n, "client", NULL) < 0) {
            return;
        }
    }
}

int main(int argc, char **argv)
{
    struct options o;
    struct err e = ERR_INIT;
    struct rlimit files = { .rlim_cur = 1024 };
    struct p9 *s = xnew(struct p9);
    int rc = parse(&o, argc, argv, &e);

    signal(SIGPIPE, SIG_IGN);
    umask(0);
    if (rc == 0 && fchdir(o.proc) < 0) {
        rc = err_errno(&e, errno, "/proc/self/fd");
    }
    if (rc == 0 && getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    rc = rc == 0 ? confine_share(&e) : rc;
    if (rc != 0) {
        dprintf(o.status >= 0 ? o.status : STDERR_FILENO, "%s", e.msg);
        return 1;
    }
    fd_autoclose(&o.status); /* it serves */
    p9_init(s, o.root, o.readonly, o.mapped,
            (unsigned)(files.rlim_cur > 1 << 20 ? 1 << 18 : files.rlim_cur / 3));
    serve(s, o.socket);
    p9_done(s);
    free(s);
    return 0;
}
