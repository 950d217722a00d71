/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fids of the 9P server: what the client holds of the folder, and how it gets there. Owns their descriptors. One thread.
 */
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "storage/share/p9.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MSIZE_MIN 4096
#define WALK_MAX 16

struct p9_proc p9_proc(int fd)
{
    struct p9_proc p;

    snprintf(p.name, sizeof(p.name), "%d", fd);
    return p;
}

static struct list *bucket(struct p9 *s, uint32_t id)
{
    return &s->fids[(id * 2654435761u >> 16) % P9_BUCKETS];
}

void p9_init(struct p9 *s, int root, bool readonly, bool mapped, unsigned max_fids)
{
    struct stat st;

    *s = (struct p9){ .root = root,
                      .readonly = readonly,
                      .mapped = mapped,
                      .msize = P9_MSIZE,
                      .max_fids = max_fids };
    for (unsigned i = 0; i < P9_BUCKETS; i++) {
        list_init(&s->fids[i]);
    }
    s->root_dev = fstat(root, &st) == 0 ? st.st_dev : 0;
}

struct p9_fid *p9_find(struct p9 *s, uint32_t id)
{
    list_for_each (n, bucket(s, id)) {
        struct p9_fid *f = list_entry(n, struct p9_fid, node);

        if (f->id == id) {
            return f;
        }
    }
    return NULL;
}

int p9_fid_new(struct p9 *s, uint32_t id, uint32_t uid, int take_path, struct p9_fid **out)
{
    struct p9_fid *f;

    if (p9_find(s, id) || s->n_fids >= s->max_fids) {
        close(take_path);
        return s->n_fids >= s->max_fids ? -EMFILE : -EINVAL;
    }
    f = xnew(struct p9_fid);
    *f = (struct p9_fid){ .id = id, .uid = uid, .path = take_path, .io = -1, .lock = -1 };
    list_append(bucket(s, id), &f->node);
    s->n_fids++;
    if (out) {
        *out = f;
    }
    return 0;
}

void p9_fid_free(struct p9 *s, struct p9_fid *f)
{
    list_remove(&f->node);
    s->n_fids--;
    fd_autoclose(&f->path);
    fd_autoclose(&f->io);
    fd_autoclose(&f->lock);
    free(f->xname);
    free(f->xvalue);
    free(f);
}

void p9_fid_free_all(struct p9 *s)
{
    for (unsigned i = 0; i < P9_BUCKETS; i++) {
        while (!list_empty(&s->fids[i])) {
            p9_fid_free(s, list_entry(s->fids[i].next, struct p9_fid, node));
        }
    }
}

void p9_done(struct p9 *s)
{
    p9_fid_free_all(s);
}

/* --- names --- */

bool p9_name_ok(const char *name)
{
    return name[0] && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && !strchr(name, '/');
}

int p9_lookup(int folder, const char *name)
{
    const struct open_how how = { .flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
                                  .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };
    int fd;

    if (!p9_name_ok(name)) {
        return name[0] ? -EOPNOTSUPP : -ENOENT;
    }
    fd = (int)syscall(SYS_openat2, folder, name, &how, sizeof(how));
    return fd < 0 ? -errno : fd;
}

/* --- requests --- */

int p9_version(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    char version[33];
    uint32_t msize = p9_get32(in);
    bool known;

    p9_get_str(in, version, sizeof(version) - 1);
    if (in->bad || msize < MSIZE_MIN) {
        return -EINVAL;
    }
    known = strcmp(version, "9P2000.L") == 0;
    p9_fid_free_all(s); /* a new session */
    s->msize = msize < P9_MSIZE ? msize : P9_MSIZE;
    out->cap = s->msize;
    p9_put32(out, s->msize);
    p9_put_str(out, known ? "9P2000.L" : "unknown");
    return 0;
}

int p9_attach(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    char text[1025];
    struct p9_stat st;
    uint32_t id = p9_get32(in), uid;
    int fd, rc;

    (void)p9_get32(in); /* of authentication, which there is none of */
    p9_get_str(in, text, 1024);
    p9_get_str(in, text, 1024); /* which folder: there is one */
    uid = p9_get32(in);
    if (in->bad) {
        return -EINVAL;
    }
    rc = p9_stat(s, s->root, &st);
    fd = rc == 0 ? fcntl(s->root, F_DUPFD_CLOEXEC, 3) : -1;
    if (fd < 0) {
        return rc < 0 ? rc : -errno;
    }
    rc = p9_fid_new(s, id, uid == UINT32_MAX ? 0 : uid, fd, NULL);
    p9_put_qid(out, &st);
    return rc;
}

static int walk_on(struct p9 *s, struct p9_in *in, int *at, struct p9_out *qids, uint16_t names,
                   uint16_t *walked)
{
    char name[P9_NAME_MAX + 1];
    struct p9_stat st;

    for (*walked = 0; *walked < names; ++*walked) {
        int next, rc;

        p9_get_str(in, name, P9_NAME_MAX);
        next = in->bad ? -EINVAL : p9_lookup(*at, name);
        rc = next < 0 ? next : p9_stat(s, next, &st);
        if (rc < 0) {
            fd_autoclose(&next);
            return rc;
        }
        close(*at);
        *at = next;
        p9_put_qid(qids, &st);
    }
    return 0;
}

int p9_walk(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    uint8_t room[WALK_MAX * 13];
    struct p9_out qids = { .p = room, .cap = sizeof(room) };
    uint32_t from = p9_get32(in), to = p9_get32(in);
    uint16_t names = p9_get16(in), walked = 0;
    struct p9_fid *f = p9_find(s, from);
    int at, rc;

    if (in->bad || names > WALK_MAX || !f || f->xname || (to != from && p9_find(s, to))) {
        return !f && !in->bad ? -EBADF : -EINVAL;
    }
    at = fcntl(f->path, F_DUPFD_CLOEXEC, 3);
    if (at < 0) {
        return -errno;
    }
    rc = walk_on(s, in, &at, &qids, names, &walked);
    if (walked < names) {
        close(at); /* part of the way is no way, but the client learns how far it went */
        if (walked == 0 || in->bad) {
            return rc;
        }
    } else if (to == from) {
        if (f->io >= 0) {
            close(at);
            return -EINVAL;
        }
        close(f->path);
        f->path = at;
    } else {
        rc = p9_fid_new(s, to, f->uid, at, NULL);
        if (rc < 0) {
            return rc;
        }
    }
    p9_put16(out, walked);
    p9_put_bytes(out, qids.p, qids.n);
    return 0;
}

int p9_clunk(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    struct p9_fid *f = p9_find(s, p9_get32(in));
    int rc;

    (void)out;
    if (in->bad || !f) {
        return -EBADF;
    }
    rc = p9_xattr_flush(s, f);
    p9_fid_free(s, f);
    return rc;
}

/* A fid knows no name: clients take the other request, unlinkat. The fid goes all the same. */
int p9_remove(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    int rc = p9_clunk(s, in, out);

    return rc < 0 ? rc : -EOPNOTSUPP;
}

/* All that came before has been answered. */
int p9_flush(struct p9 *s, struct p9_in *in, struct p9_out *out)
{
    (void)s;
    (void)out;
    (void)p9_get16(in);
    return in->bad ? -EINVAL : 0;
}
