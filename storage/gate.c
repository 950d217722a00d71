/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands between a user of a node and the node: what becomes of requests that fail (blk_set_policy). Owns the requests
 * that are kept; they are on no other list, and the pool's mutex guards them, since a vCPU that resets a device gives them
 * up (blk_abandon). Otherwise loop thread.
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

bool blk_gate_judge(struct blk_req *r, enum blk_on_error *did)
{
    struct blk_node *n = r->node;
    const struct blk_policy *p = n->policy;
    enum blk_on_error what;

    if (r->flags & BLK_REPORT || of_the_asker(r->result)) {
        return false;
    }
    what = r->op == BLK_READ ? p->read : p->write;
    if (what == BLK_ON_ENOSPC) {
        what = no_space(r->result) || r->result == -ENOTCONN ? BLK_ON_STOP : BLK_ON_REPORT;
    }
    if (what == BLK_ON_STOP) {
        list_append(&n->kept, &r->link);
        n->n_kept++;
    }
    if (what == BLK_ON_IGNORE) {
        r->result = 0;
    }
    *did = what;
    return true;
}

void blk_gate_tell(struct blk_node *n, enum blk_op op, int error, enum blk_on_error did)
{
    if (n->policy->failed) {
        n->policy->failed(n->policy->arg, n, op, error, did);
    }
}

unsigned blk_kept(const struct blk_node *n)
{
    return n->n_kept;
}

/* The oldest of those that are kept, or NULL. The pool's mutex is held. */
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

/* As take_kept(), and the node is not idle from then on. */
static struct blk_req *take_to_submit(struct blk_node *n)
{
    blk_pool_lock(n->pool);
    struct blk_req *r = take_kept(n);

    if (r) {
        atomic_fetch_add(&n->in_flight, 1);
    }
    blk_pool_unlock(n->pool);
    return r;
}

void blk_retry(struct blk_node *n)
{
    struct blk_req *r;
    unsigned turns = n->n_kept; /* what fails again comes later, from the loop */

    while (turns-- > 0 && (r = take_to_submit(n))) {
        blk_submit(n, r);
        if (atomic_fetch_sub(&n->in_flight, 1) == 1) {
            blk_pool_wake(n->pool);
        }
    }
}

static void give_up_kept(struct blk_node *n)
{
    struct blk_req *r;

    blk_pool_lock(n->pool);
    while ((r = take_kept(n))) {
        blk_pool_return_locked(n->pool, r, r->result);
    }
    blk_pool_report_locked(n->pool, n);
    blk_pool_unlock(n->pool);
}

void blk_abandon(struct blk_node *n)
{
    if (n->hook) {
        n->hook->abandon(n->hook);
    }
    if (n->pool) {
        (void)blk_throttle_cancel(n, NULL);
        blk_pool_wait_idle(n->pool, n);
        give_up_kept(n);
    }
}

void blk_settle(struct blk_node *n)
{
    blk_wait_idle(n);
    if (n->pool) {
        give_up_kept(n);
    }
}

bool blk_gate_cancel(struct blk_req *r)
{
    struct blk_node *n = r->node;
    bool found = false;

    if (!n->policy) {
        return false;
    }
    blk_pool_lock(n->pool);
    list_for_each (it, &n->kept) {
        if (it == &r->link) {
            list_remove(it);
            n->n_kept--;
            blk_pool_return_locked(n->pool, r, -ECANCELED);
            found = true;
            break;
        }
    }
    blk_pool_unlock(n->pool);
    return found;
}

void blk_gate_done(struct blk_node *n)
{
    list_init(&n->kept); /* their submitter closes the node: it waits for nothing */
    n->n_kept = 0;
    free(n->policy);
    n->policy = NULL;
}
