/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal of events, its subscribers, and changes (a transaction plus its events).
 *
 * Owns the ring of published events and the subscriptions. Loop thread. A subscriber that has to
 * catch up is fed in pieces, as fast as its connection takes them, so that neither a long journal
 * nor a slow reader costs more than its own connection.
 */
#include "daemon/events.h"

#include "api-schema/json/json.h"
#include "api-schema/rpc/conn.h"
#include "api-schema/rpc/server.h"
#include "daemon/auth/access.h"
#include "daemon/daemon.h"
#include "daemon/run/proc.h"
#include "daemon/registry.h"
#include "engine/base/buf.h"
#include "engine/base/list.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SUBS_PER_SESSION 16
#define FEED_QUEUE (128 * 1024) /* bytes queued at a client above which feeding pauses */
#define FEED_RETRY_NS 20000000
#define SEQ_GAP                                                                                \
    100000 /* left after an unclean end: numbers told but not durable are not reused */

struct entry {
    int64_t seq;
    enum api_event_type type;
    char vm[40];
    char *text; /* the API's Event as JSON, owned: a tenth of what a parsed one takes */
};
struct sub {
    struct list link;
    struct rpc_session *s;
    int64_t id, sent; /* last sequence number looked at */
    struct event_filter f;
};
struct events {
    struct vmd *d;
    struct entry *ring; /* STORE_EVENTS_KEPT entries */
    size_t first, n;
    int64_t next_seq; /* to be given next */
    int64_t newest;   /* last published */
    struct list subs;
    int64_t next_sub;
    struct loop_timer *feed_timer;
    struct list listeners; /* struct event_listener.link */
};
struct change {
    struct vmd *d;
    struct store_tx *tx;
    bool must_tell;
    struct api_event *events;
    size_t n_events;
    struct entry *entries; /* made at commit */
    void (*fn)(void *arg, const struct err *e);
    void *arg;
};

static void feed_all(void *arg);

struct events *events_new(struct vmd *d)
{
    struct events *ev = xnew(struct events);
    ev->d = d;
    ev->ring = xnew_n(struct entry, STORE_EVENTS_KEPT);
    ev->next_seq = 1;
    ev->next_sub = 1;
    list_init(&ev->subs);
    list_init(&ev->listeners);
    ev->feed_timer = loop_timer_new(d->loop, feed_all, ev);
    return ev;
}

void events_free(struct events *ev)
{
    if (!ev) {
        return;
    }
    list_for_each_safe (n, &ev->subs) {
        free(list_entry(n, struct sub, link));
    }
    for (size_t i = 0; i < ev->n; i++) {
        free(ev->ring[(ev->first + i) % STORE_EVENTS_KEPT].text);
    }
    loop_timer_free(ev->feed_timer);
    free(ev->ring);
    free(ev);
}

static void ring_add(struct events *ev, struct entry *take)
{
    if (ev->n == STORE_EVENTS_KEPT) {
        free(ev->ring[ev->first].text);
        ev->first = (ev->first + 1) % STORE_EVENTS_KEPT;
        ev->n--;
    }
    ev->ring[(ev->first + ev->n++) % STORE_EVENTS_KEPT] = *take;
    ev->newest = take->seq;
}

static const struct entry *ring_at(const struct events *ev, size_t i)
{
    return &ev->ring[(ev->first + i) % STORE_EVENTS_KEPT];
}

static void load_one(void *arg, const struct store_event *row)
{
    int type = api_enum_value(&api_type_event_type, row->type);
    struct entry en = { .seq = row->seq,
                        .type = type >= 0 ? (enum api_event_type)type : API_EVENT_TYPE_DAEMON,
                        .text = xstrdup(row->body) };
    str_copy(en.vm, sizeof(en.vm), row->vm);
    ring_add(arg, &en);
}

int events_load(struct events *ev, bool skip, struct err *e)
{
    int64_t vm, job;
    int rc = store_load_events(ev->d->store, load_one, ev, e);
    if (rc == 0) {
        rc = store_next_ids(ev->d->store, &vm, &job, &ev->next_seq, e);
    }
    if (rc == 0 && skip) {
        ev->next_seq += SEQ_GAP;
    }
    return rc;
}

int64_t events_newest(const struct events *ev)
{
    return ev->newest;
}

int64_t events_oldest(const struct events *ev)
{
    return ev->n ? ring_at(ev, 0)->seq : ev->newest + 1;
}

/* First index with seq > after. */
static size_t ring_find(const struct events *ev, int64_t after)
{
    size_t lo = 0, hi = ev->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (ring_at(ev, mid)->seq > after) {
            hi = mid;
        } else {
            lo = mid + 1;
        }
    }
    return lo;
}

/* An event of a VM that is gone is for those who see every project. */
static bool may_see(const struct events *ev, const struct event_filter *f,
                    const struct entry *en)
{
    struct rpc_peer p = { .uid = (uid_t)-1 };
    bool pool = en->type == API_EVENT_TYPE_POOL || en->type == API_EVENT_TYPE_VOLUME;
    if (!f->user[0] || (!en->vm[0] && !pool)) {
        return true;
    }
    str_copy(p.user, sizeof(p.user), f->user);
    if (pool) { /* the text is our own, and a project's name has no quotes */
        char project[64] = ACCESS_HOST;
        const char *at = strstr(en->text, "\"detail\":{\"project\":\"");
        if (at) {
            at += strlen("\"detail\":{\"project\":\"");
            snprintf(project, sizeof(project), "%.*s", (int)strcspn(at, "\""), at);
        }
        return access_peer_sees(ev->d, &p, project);
    }
    struct vm *vm = vm_find(ev->d, en->vm, false);
    return access_peer_sees(ev->d, &p, vm ? vm->config.project : ACCESS_HOST);
}

static bool passes(const struct events *ev, const struct event_filter *f,
                   const struct entry *en)
{
    return may_see(ev, f, en) && (!f->vm[0] || strcmp(f->vm, en->vm) == 0) &&
           (!f->types || (f->types & (UINT64_C(1) << en->type)));
}

int64_t events_page(const struct events *ev, int64_t after, unsigned max,
                    const struct event_filter *f, void (*fn)(void *arg, const char *event),
                    void *arg)
{
    for (size_t i = ring_find(ev, after); i < ev->n; i++) {
        const struct entry *en = ring_at(ev, i);
        if (passes(ev, f, en)) {
            if (max-- == 0) {
                return after;
            }
            fn(arg, en->text);
        }
        after = en->seq;
    }
    return after;
}

/* ---- subscriptions ---- */

/* False when the client has enough for now. */
static bool feed(struct events *ev, struct sub *sub)
{
    for (size_t i = ring_find(ev, sub->sent); i < ev->n; i++) {
        const struct entry *en = ring_at(ev, i);
        if (passes(ev, &sub->f, en)) {
            if (rpc_conn_queued(sub->s->conn) > FEED_QUEUE) {
                return false;
            }
            AUTO_BUF line = BUF_INIT;
            buf_printf(&line,
                       "{\"jsonrpc\":\"2.0\",\"method\":\"event\",\"params\":"
                       "{\"subscription\":%lld,\"event\":%s}}",
                       (long long)sub->id, en->text);
            rpc_conn_send_text(sub->s->conn, line.data, line.len);
        }
        sub->sent = en->seq;
    }
    return true;
}

static void feed_all(void *arg)
{
    struct events *ev = arg;
    bool again = false;
    list_for_each_safe (n, &ev->subs) {
        again |= !feed(ev, list_entry(n, struct sub, link));
    }
    if (again) {
        loop_timer_arm(ev->feed_timer, FEED_RETRY_NS);
    }
}

int64_t events_subscribe(struct events *ev, struct rpc_session *s, int64_t after,
                         const struct event_filter *f)
{
    unsigned has = 0;
    list_for_each (n, &ev->subs) {
        has += list_entry(n, struct sub, link)->s == s;
    }
    if (has >= SUBS_PER_SESSION) {
        return -ENOBUFS;
    }
    struct sub *sub = xnew(struct sub);
    sub->s = s;
    sub->id = ev->next_sub++;
    sub->sent = after >= 0 ? after : ev->newest;
    sub->f = *f;
    list_append(&ev->subs, &sub->link);
    /* Not at once: the reply with the number goes first. */
    loop_timer_arm(ev->feed_timer, 0);
    return sub->id;
}

int events_unsubscribe(struct events *ev, struct rpc_session *s, int64_t id)
{
    list_for_each_safe (n, &ev->subs) {
        struct sub *sub = list_entry(n, struct sub, link);
        if (sub->s == s && sub->id == id) {
            list_remove(n);
            free(sub);
            return 0;
        }
    }
    return -ENOENT;
}

void events_session_closed(struct events *ev, struct rpc_session *s)
{
    list_for_each_safe (n, &ev->subs) {
        struct sub *sub = list_entry(n, struct sub, link);
        if (sub->s == s) {
            list_remove(n);
            free(sub);
        }
    }
}

void events_listen(struct events *ev, struct event_listener *l)
{
    list_append(&ev->listeners, &l->link);
}

/* ---- changes ---- */

struct change *change_new(struct vmd *d)
{
    struct change *c = xnew(struct change);
    c->d = d;
    c->tx = store_tx_new(d->store);
    return c;
}

struct store_tx *change_tx(struct change *c)
{
    return c->tx;
}

void change_event(struct change *c, const struct api_event *e)
{
    c->events = xrealloc_n(c->events, c->n_events + 1, sizeof(*c->events));
    api_copy(&api_type_event, e, &c->events[c->n_events++]);
}

void change_must_tell(struct change *c)
{
    c->must_tell = true;
}

static void change_free(struct change *c)
{
    for (size_t i = 0; i < c->n_events; i++) {
        api_release(&api_type_event, &c->events[i]);
        if (c->entries) {
            free(c->entries[i].text);
        }
    }
    free(c->events);
    free(c->entries);
    free(c);
}

void change_drop(struct change *c)
{
    store_tx_drop(c->tx);
    change_free(c);
}

static void change_done(void *arg, const struct err *e)
{
    struct change *c = arg;
    if (!e || c->must_tell) {
        for (size_t i = 0; i < c->n_events; i++) {
            ring_add(c->d->events, &c->entries[i]);
            c->entries[i].text = NULL;
            list_for_each_safe (it, &c->d->events->listeners) {
                struct event_listener *l = list_entry(it, struct event_listener, link);
                l->fn(l->arg, &c->events[i]);
            }
        }
    }
    if (e && c->must_tell) {
        log_error("daemon", "not durable: %s", e->msg);
    }
    if (c->n_events && !list_empty(&c->d->events->subs)) {
        feed_all(c->d->events);
    }
    if (c->fn) {
        c->fn(c->arg, e);
    }
    change_free(c);
}

/* What leaves the ring when the i-th event of a change comes: the store drops it, too. Numbers have
 * gaps, so this cannot be told from the new number. */
static int64_t oldest_to_drop(const struct events *ev, size_t i)
{
    return ev->n == STORE_EVENTS_KEPT && i < ev->n ? ring_at(ev, i)->seq : 0;
}

void change_commit(struct change *c, void (*fn)(void *arg, const struct err *e), void *arg)
{
    struct events *ev = c->d->events;
    c->entries = xnew_n(struct entry, c->n_events ? c->n_events : 1);
    for (size_t i = 0; i < c->n_events; i++) {
        struct api_event *event = &c->events[i];
        event->seq = ev->next_seq++;
        event->time_ms = time_real_ns() / 1000000;
        struct entry *en = &c->entries[i];
        en->seq = event->seq;
        en->type = event->type;
        str_copy(en->vm, sizeof(en->vm), event->vm ? event->vm : "");
        AUTO_BUF text = BUF_INIT;
        api_write(&api_type_event, event, &text);
        en->text = buf_take(&text);
        store_tx_event_put(c->tx, &(struct store_event){ .seq = en->seq,
                                                         .type = api_event_type_name(en->type),
                                                         .vm = en->vm,
                                                         .body = en->text,
                                                         .drop = oldest_to_drop(ev, i) });
    }
    c->fn = fn;
    c->arg = arg;
    struct store_tx *tx = c->tx;
    c->tx = NULL;
    store_tx_commit(tx, change_done, c);
}
