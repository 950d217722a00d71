/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands between a user of a node and the node: what becomes of requests that fail (blk_set_policy). Owns the requests
 * that are kept; they are on no other list. Loop thread.
 */
#include "engine/base/mem.h"
#include "storage/driver.h"

#include <errno.h>
#include <stdlib.h>

void blk_set_policy(struct blk_node *n, const struct blk_policy *p)
{
    if (!n->policy) {
        n->policy = xnew(struct blk_policy);
    }
    *n->policy = *p;
}

static bool no_space(int error)
{
    return error == -ENOSPC || error == -EDQUOT;
}

/* A mistake of whoever asked, or his own wish; trying again would change nothing. */
static bool of_the_asker(int error)
{
    return error == -ECANCELED || error == -EINVAL || error == -EROFS || error == -ENOTSUP;
}

bool blk_gate_failed(struct blk_req *r)
{
    struct blk_node *n = r->node;
    const struct blk_policy *p = n->policy;
    enum blk_on_error what;

    if (r->flags & BLK_REPORT || of_the_asker(r->result)) {
        return false;
    }
    what = r->op == BLK_READ ? p->read : p->write;
    if (what == BLK_ON_ENOSPC) {
        what = no_space(r->result) ? BLK_ON_STOP : BLK_ON_REPORT;
    }
    if (what == BLK_ON_STOP) {
        list_append(&n->kept, &r->link);
        n->n_kept++;
    }
    if (p->failed) {
        p->failed(p->arg, n, r->op, r->result, what);
    }
    if (what == BLK_ON_IGNORE) {
        r->result = 0;
    }
    return what == BLK_ON_STOP;
}

unsigned blk_kept(const struct blk_node *n)
{
    return n->n_kept;
}

/* The oldest of those that are kept, or NULL. */
static struct blk_req *take_kept(struct blk_node *n)
{
    if (list_empty(&n->kept)) {
        return NULL;
    }
    struct blk_req *r = list_entry(n->kept.next, struct blk_req, link);

    list_remove(&r->link);
    n->n_kept--;
    return r;
}

void blk_retry(struct blk_node *n)
{
    struct blk_req *r;
    unsigned turns = n->n_kept; /* what fails again comes later, from the loop */

    while (turns-- > 0 && (r = take_kept(n))) {
        blk_submit(n, r);
    }
}

void blk_abandon(struct blk_node *n)
{
    struct blk_req *r;

    while ((r = take_kept(n))) {
        r->flags |= BLK_REPORT;
        r->node = n;
        atomic_fetch_add(&n->in_flight, 1);
        blk_pool_complete(n->pool, r, r->result);
    }
    blk_wait_idle(n);
    if (n->pool) {
        blk_pool_report(n->pool, n);
    }
}

bool blk_gate_cancel(struct blk_req *r)
{
    struct blk_node *n = r->node;

    list_for_each (it, &n->kept) {
        if (it == &r->link) {
            list_remove(it);
            n->n_kept--;
            atomic_fetch_add(&n->in_flight, 1);
            blk_pool_complete(n->pool, r, -ECANCELED);
            return true;
        }
    }
    return false;
}

void blk_gate_done(struct blk_node *n)
{
    while (take_kept(n)) { /* their submitter closes the node: it waits for nothing */
    }
    free(n->policy);
    n->policy = NULL;
}
