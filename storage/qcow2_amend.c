/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing a qcow2 image's version and its lazy refcounts in place: what other programs of other times can read. The header is
 * written last, in one piece, so that a crash shows the one or the other image. Node without users, one thread.
 */
#include "storage/qcow2.h"

#include "engine/base/mem.h"

#include <errno.h>
#include <string.h>

enum { PIECE = 1 << 20 };

/* Version 2 knows no clusters that are zero without being there: they get bytes. */
static int write_zero_clusters(struct blk_node *n, struct err *e)
{
    AUTO_FREE char *zeroes = xalloc(PIECE);

    for (uint64_t at = 0; at < n->size;) {
        struct blk_extent x;
        int rc = blk_map_layer(n, at, &x, e);

        for (uint64_t done = 0; rc == 0 && x.present && !x.data && done < x.length;) {
            uint64_t k = x.length - done < PIECE ? x.length - done : PIECE;

            rc = blk_pwrite(n, at + done, zeroes, k);
            if (rc != 0) {
                return err_errno(e, -rc, "disk '%s' at offset %llu", n->name,
                                 (unsigned long long)(at + done));
            }
            done += k;
        }
        if (rc != 0) {
            return rc;
        }
        at += x.length;
    }
    return 0;
}

/* What stands in the way of another version; NULL: nothing. */
static const char *obstacle(const struct qcow2 *q, unsigned version, bool lazy)
{
    return q->h.n_snapshots           ? "it has snapshots; delete them first"
           : version >= 3             ? NULL
           : lazy                     ? "compat=0.10 has no lazy_refcounts"
           : q->h.incompatible        ? "it has features that compat=0.10 has not; convert it"
           : q->h.refcount_order != 4 ? "compat=0.10 has refcounts of 16 bits; convert it"
           : q->h.autoclear           ? "it keeps dirty bitmaps; remove them first"
                                      : NULL;
}

static int change_header(struct qcow2 *q, unsigned version, bool lazy, struct err *e)
{
    uint64_t compatible = q->h.compatible;
    int rc;

    pthread_mutex_lock(&q->lock);
    rc = q2_commit_all(q);
    if (rc == 0) {
        q->h.version = version;
        q->h.compatible = version < 3 ? 0
                          : lazy      ? compatible | Q2_C_LAZY
                                      : compatible & ~(uint64_t)Q2_C_LAZY;
        q->lazy = lazy && version >= 3;
        rc = q2_header_rewrite(q, e);
    } else {
        err_errno(e, -rc, "disk '%s'", q->node.name);
    }
    pthread_mutex_unlock(&q->lock);
    return rc;
}

int q2_amend(struct blk_node *n, const struct blk_amend *a, struct err *e)
{
    struct qcow2 *q = q2_of(n);
    unsigned version = a->version ? a->version : q->h.version;
    bool lazy = a->lazy < 0 ? version >= 3 && q->lazy : a->lazy;
    const char *why = version != q->h.version ? obstacle(q, version, a->lazy > 0)
                      : lazy && version < 3   ? "compat=0.10 has no lazy_refcounts"
                                              : NULL;
    int rc = 0;

    if (n->readonly) {
        return err_set(e, -EROFS, "disk '%s' is read-only", n->name);
    }
    if (why) {
        return err_set(e, -ENOTSUP, "disk '%s': %s", n->name, why);
    }
    if (version < q->h.version) {
        rc = write_zero_clusters(n, e);
    }
    return rc ? rc : change_header(q, version, lazy, e);
}
