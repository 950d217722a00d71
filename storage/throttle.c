/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits on disks. A group owns its buckets and a timer; a member, one a node and as long-lived as the node, owns the
 * requests that wait. The queues and the counts of what waits are guarded by the pool's mutex, since a vCPU that resets a
 * device takes its requests back (blk_abandon); all else belongs to the loop's thread.
 */
#include "storage/throttle.h"

#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "storage/driver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { READS, WRITES, WAYS };

struct blk_group {
    struct list link; /* of the pool */
    struct blk_pool *pool;
    char *name; /* NULL: of one node alone */
    struct limits limits;
    struct bucket bucket[LIMIT_KINDS];
    int64_t leaked_at;
    struct list members; /* whose turn it is stands first */
    _Atomic unsigned waiting[WAYS];
    unsigned turn;
    struct loop_timer *timer; /* NULL: the pool's user has a clock of his own */
};

struct blk_member {
    struct list link; /* of its group */
    struct blk_node *node;
    struct blk_group *group; /* NULL: no limits now */
    struct list queue[WAYS]; /* struct blk_req.link */
};

/* Which buckets a request in that direction fills. */
static const enum limit_kind bytes_of[WAYS][2] = {
    [READS] = { LIMIT_BYTES, LIMIT_READ_BYTES },
    [WRITES] = { LIMIT_BYTES, LIMIT_WRITE_BYTES },
};
static const enum limit_kind ops_of[WAYS][2] = {
    [READS] = { LIMIT_OPS, LIMIT_READ_OPS },
    [WRITES] = { LIMIT_OPS, LIMIT_WRITE_OPS },
};

/* --- a group --- */

static void leak(struct blk_group *g)
{
    int64_t now = blk_pool_now(g->pool), past = now - g->leaked_at;

    if (past <= 0) {
        return;
    }
    g->leaked_at = now;
    for (unsigned i = 0; i < LIMIT_KINDS; i++) {
        bucket_leak(&g->bucket[i], past);
    }
}

static int64_t wait_of(const struct blk_group *g, unsigned way)
{
    int64_t longest = 0;

    for (unsigned i = 0; i < 2; i++) {
        int64_t a = bucket_wait(&g->bucket[bytes_of[way][i]]);
        int64_t b = bucket_wait(&g->bucket[ops_of[way][i]]);

        longest = a > longest ? a : longest;
        longest = b > longest ? b : longest;
    }
    return longest;
}

static unsigned way_of(const struct blk_req *r)
{
    return r->op == BLK_READ ? READS : WRITES;
}

static void charge(struct blk_group *g, const struct blk_req *r)
{
    unsigned way = way_of(r);
    double bytes = r->op == BLK_DISCARD ? 0 : (double)r->length, ops = 1;

    if (g->limits.op_size && bytes > (double)g->limits.op_size) {
        ops = bytes / (double)g->limits.op_size;
    }
    for (unsigned i = 0; i < 2; i++) {
        bucket_fill(&g->bucket[bytes_of[way][i]], bytes);
        bucket_fill(&g->bucket[ops_of[way][i]], ops);
    }
}

/* The next request in that direction, of the member whose turn it is; its node is not idle from then on. NULL: all that
 * waits is of nodes that are drained. */
static struct blk_req *take_next(struct blk_group *g, unsigned way)
{
    struct blk_req *r = NULL;

    blk_pool_lock(g->pool);
    list_for_each (it, &g->members) {
        struct blk_member *m = list_entry(it, struct blk_member, link);

        if (!m->node->drained && !list_empty(&m->queue[way])) {
            r = list_entry(m->queue[way].next, struct blk_req, link);
            list_remove(&r->link);
            g->waiting[way]--;
            list_remove(&m->link);
            list_append(&g->members, &m->link);
            atomic_fetch_add(&m->node->in_flight, 1);
            break;
        }
    }
    blk_pool_unlock(g->pool);
    return r;
}

static void let_go(struct blk_req *r)
{
    struct blk_node *n = r->node;

    blk_start(n, r);
    if (atomic_fetch_sub(&n->in_flight, 1) == 1) {
        blk_pool_wake(n->pool);
    }
}

static bool one_goes(struct blk_group *g)
{
    for (unsigned i = 0; i < WAYS; i++) {
        unsigned way = (g->turn + i) % WAYS;
        struct blk_req *r = g->waiting[way] && wait_of(g, way) == 0 ? take_next(g, way) : NULL;

        if (r) {
            g->turn = (way + 1) % WAYS;
            charge(g, r);
            let_go(r);
            return true;
        }
    }
    return false;
}

/* Until something may go; -1: nothing waits, or what waits may go already and its node is drained. */
static int64_t next_of(const struct blk_group *g)
{
    int64_t next = -1;

    for (unsigned way = 0; way < WAYS; way++) {
        int64_t wait = g->waiting[way] ? wait_of(g, way) : 0;

        if (wait > 0 && (next < 0 || wait < next)) {
            next = wait;
        }
    }
    return next;
}

static void arm(struct blk_group *g)
{
    int64_t next = next_of(g);

    if (g->timer && next >= 0) {
        loop_timer_arm(g->timer, next);
    }
}

static void run_group(struct blk_group *g)
{
    leak(g);
    while (one_goes(g)) {
    }
    arm(g);
}

static void on_timer(void *arg)
{
    run_group(arg);
}

int64_t blk_throttle_poll(struct blk_pool *p)
{
    int64_t next = -1;

    list_for_each (it, blk_pool_groups(p)) {
        struct blk_group *g = list_entry(it, struct blk_group, link);
        int64_t t;

        run_group(g);
        t = next_of(g);
        next = t >= 0 && (next < 0 || t < next) ? t : next;
    }
    return next;
}

/* --- requests --- */

bool blk_throttle_keep(struct blk_node *n, struct blk_req *r)
{
    struct blk_member *m = n->limited;
    struct blk_group *g = m->group;
    unsigned way = way_of(r);
    bool goes;

    if (!g || r->op == BLK_FLUSH || r->flags & BLK_UNLIMITED) {
        return false;
    }
    leak(g);
    blk_pool_lock(g->pool);
    goes = g->waiting[way] == 0 && wait_of(g, way) == 0;
    if (!goes) {
        list_append(&m->queue[way], &r->link);
        g->waiting[way]++;
    }
    blk_pool_unlock(g->pool);
    if (goes) {
        charge(g, r);
    } else {
        arm(g);
    }
    return !goes;
}

void blk_throttle_undrained(struct blk_node *n)
{
    if (n->limited && n->limited->group) {
        run_group(n->limited->group);
    }
}

/* The first that waits in either direction, and its node is not idle from then on. */
static struct blk_req *take_any(struct blk_member *m)
{
    struct blk_req *r = NULL;

    blk_pool_lock(m->node->pool);
    for (unsigned way = 0; way < WAYS && !r; way++) {
        if (!list_empty(&m->queue[way])) {
            r = list_entry(m->queue[way].next, struct blk_req, link);
            list_remove(&r->link);
            m->group->waiting[way]--;
            atomic_fetch_add(&m->node->in_flight, 1);
        }
    }
    blk_pool_unlock(m->node->pool);
    return r;
}

void blk_throttle_release(struct blk_node *n)
{
    struct blk_member *m = n->limited;
    struct blk_req *r;

    if (!m || !m->group || n->drained || !loop_in_thread(blk_pool_loop(n->pool))) {
        return;
    }
    leak(m->group);
    while ((r = take_any(m))) {
        charge(m->group, r);
        let_go(r);
    }
}

/* Pool's mutex held. `which` NULL: all. */
static bool cancel_locked(struct blk_member *m, const struct blk_req *which)
{
    bool found = false;

    for (unsigned way = 0; way < WAYS; way++) {
        list_for_each_safe (it, &m->queue[way]) {
            struct blk_req *r = list_entry(it, struct blk_req, link);

            if (!which || r == which) {
                list_remove(it);
                m->group->waiting[way]--;
                blk_pool_return_locked(m->node->pool, r, -ECANCELED);
                found = true;
            }
        }
    }
    return found;
}

bool blk_throttle_cancel(struct blk_node *n, const struct blk_req *which)
{
    bool found;

    if (!n->limited) {
        return false;
    }
    blk_pool_lock(n->pool);
    found = cancel_locked(n->limited, which);
    blk_pool_unlock(n->pool);
    return found;
}

/* --- who is in which group --- */

static struct blk_group *find_group(struct blk_pool *p, const char *name)
{
    list_for_each (it, blk_pool_groups(p)) {
        struct blk_group *g = list_entry(it, struct blk_group, link);

        if (name && g->name && strcmp(g->name, name) == 0) {
            return g;
        }
    }
    return NULL;
}

static struct blk_group *group_new(struct blk_pool *p, const char *name)
{
    struct blk_group *g = xnew(struct blk_group);

    g->pool = p;
    g->name = name ? xstrdup(name) : NULL;
    g->leaked_at = blk_pool_now(p);
    list_init(&g->members);
    g->timer = blk_pool_has_clock(p) ? NULL : loop_timer_new(blk_pool_loop(p), on_timer, g);
    list_append(blk_pool_groups(p), &g->link);
    return g;
}

/* The last member has left. */
static void group_free(struct blk_group *g)
{
    list_remove(&g->link);
    loop_timer_free(g->timer);
    free(g->name);
    free(g);
}

static struct blk_member *member_of(struct blk_node *n)
{
    struct blk_member *m = n->limited;

    if (!m) {
        m = xnew(struct blk_member);
        m->node = n;
        list_init(&m->link);
        list_init(&m->queue[READS]);
        list_init(&m->queue[WRITES]);
        n->limited = m;
    }
    return m;
}

/* With all that waits; `to` NULL: that goes to `out`. */
static void move(struct blk_member *m, struct blk_group *to, struct list *out)
{
    struct blk_group *was = m->group;

    blk_pool_lock(m->node->pool);
    for (unsigned way = 0; way < WAYS; way++) {
        list_for_each_safe (it, &m->queue[way]) {
            was->waiting[way]--;
            if (to) {
                to->waiting[way]++;
            } else {
                list_remove(it);
                list_append(out, it);
                atomic_fetch_add(&m->node->in_flight, 1);
            }
        }
    }
    m->group = to;
    list_remove(&m->link);
    if (to) {
        list_append(&to->members, &m->link);
    }
    blk_pool_unlock(m->node->pool);
    if (was && list_empty(&was->members)) {
        group_free(was);
    }
}

/* What is in the buckets stays there, so that asking again and again gives nobody more; but nobody waits longer than a
 * second for what went at another rate. */
static void configure(struct blk_group *g, const struct limits *l)
{
    leak(g);
    g->limits = *l;
    for (unsigned i = 0; i < LIMIT_KINDS; i++) {
        struct bucket *b = &g->bucket[i];
        const struct limit was = b->limit;
        double most;

        b->limit = l->at[i];
        if (was.rate == b->limit.rate && was.burst == b->limit.burst &&
            was.length == b->limit.length) {
            continue;
        }
        most = limit_size(&b->limit) + (double)b->limit.rate;
        b->level = b->level < most ? b->level : most;
        most = b->limit.length > 1 ? (double)b->limit.burst * 1.1 : 0;
        b->burst_level = b->burst_level < most ? b->burst_level : most;
    }
}

static void no_limits(struct blk_member *m)
{
    struct list out;

    list_init(&out);
    move(m, NULL, &out);
    while (!list_empty(&out)) {
        struct blk_req *r = list_entry(out.next, struct blk_req, link);

        list_remove(&r->link);
        if (m->node->drained) {
            list_append(&m->node->held, &r->link);
            atomic_fetch_sub(&m->node->in_flight, 1);
        } else {
            let_go(r);
        }
    }
}

int blk_throttle_set(struct blk_node *n, const char *group, const struct limits *l,
                     struct err *e)
{
    int rc = limits_check(l, e);
    struct blk_member *m;
    struct blk_group *g;

    if (rc != 0) {
        return rc;
    }
    m = member_of(n);
    if (limits_none(l)) {
        if (m->group) {
            no_limits(m);
        }
        return 0;
    }
    g = find_group(n->pool, group);
    if (!group && m->group && !m->group->name) {
        g = m->group;
    }
    g = g ? g : group_new(n->pool, group);
    if (g != m->group) {
        move(m, g, NULL);
    }
    configure(g, l);
    run_group(g);
    return 0;
}

bool blk_throttle_get(const struct blk_node *n, struct limits *out, const char **group)
{
    const struct blk_group *g = n->limited ? n->limited->group : NULL;

    if (g) {
        *out = g->limits;
        *group = g->name;
    }
    return g != NULL;
}

unsigned blk_throttle_waiting(const struct blk_node *n)
{
    unsigned count = 0;

    if (n->limited) {
        blk_pool_lock(n->pool);
        for (unsigned way = 0; way < WAYS; way++) {
            list_for_each (it, &n->limited->queue[way]) {
                count++;
            }
        }
        blk_pool_unlock(n->pool);
    }
    return count;
}

void blk_throttle_done(struct blk_node *n)
{
    struct blk_member *m = n->limited;
    struct list out;

    if (!m) {
        return;
    }
    list_init(&out);
    if (m->group) {
        move(
            m, NULL,
            &out); /* what a drain held up: its submitter closes the node and waits for nothing */
    }
    atomic_store(&n->in_flight, 0);
    free(m);
    n->limited = NULL;
}
