/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a part of a file. Owns its descriptor. No image locks: who keeps images inside a file writes it once. Any thread.
 */
#include "storage/window.h"

#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "storage/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct blk_window {
    struct blk_node node;
    int fd;
    uint64_t start;
};

static int window_open(struct blk_node *n, const struct blk_options *o, struct err *e)
{
    struct blk_window *w = (struct blk_window *)n;
    struct stat st;

    w->fd = -1;
    if (!o->readonly) {
        return err_set(e, -EROFS, "disk '%s': what is inside %s is only read", o->name,
                       o->path);
    }
    w->fd = o->fd >= 0 ? fcntl(o->fd, F_DUPFD_CLOEXEC, 3)
                       : open(o->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (w->fd < 0 || fstat(w->fd, &st) != 0) {
        return err_errno(e, errno, "disk '%s': cannot open %s", o->name, o->path);
    }
    if (!S_ISREG(st.st_mode) || o->start > (uint64_t)st.st_size ||
        o->length > (uint64_t)st.st_size - o->start) {
        return err_set(e, -EINVAL, "disk '%s': %s ends before it", o->name, o->path);
    }
    w->start = o->start;
    n->size = o->length;
    return 0;
}

static int window_read(const struct blk_window *w, uint64_t at, char *p, size_t n)
{
    uint64_t have = at < w->node.size ? w->node.size - at : 0;
    size_t want = n < have ? n : (size_t)have;

    memset(p + want, 0, n - want);
    while (want > 0) {
        ssize_t got = fd_pread(w->fd, p, want, w->start + at);

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got < 0 ? -errno : -EIO;
        }
        p += got;
        at += (uint64_t)got;
        want -= (size_t)got;
    }
    return 0;
}

static int window_run(struct blk_node *n, struct blk_req *r)
{
    uint64_t at = r->at;
    int rc = 0;

    if (r->op == BLK_FLUSH) {
        return 0;
    }
    if (r->op != BLK_READ) {
        return -EROFS;
    }
    for (unsigned i = 0; i < r->n_iov && rc == 0; i++) {
        rc = window_read((const struct blk_window *)n, at, r->iov[i].iov_base,
                         r->iov[i].iov_len);
        at += r->iov[i].iov_len;
    }
    return rc;
}

static int window_map(struct blk_node *n, uint64_t offset, struct blk_extent *out,
                      struct err *e)
{
    (void)e;
    *out = (struct blk_extent){ .length = n->size - offset, .data = true, .present = true };
    return 0;
}

static int window_close(struct blk_node *n)
{
    fd_autoclose(&((struct blk_window *)n)->fd);
    return 0;
}

const struct blk_driver blk_window_driver = {
    .name = "window",
    .doc = "a part of a file, read-only",
    .kind = BLK_PROTOCOL,
    .size = sizeof(struct blk_window),
    .open = window_open,
    .run = window_run,
    .map = window_map,
    .close = window_close,
};
