/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes and their events. A change is one durable transaction with the events that tell of it:
 * both become durable together, then the events are published in order of their numbers, then
 * the caller goes on. The journal keeps the last STORE_EVENTS_KEPT events in memory and in the
 * store; numbers only grow, also across restarts.
 * Loop thread.
 */
#ifndef VMD_DAEMON_EVENTS_H
#define VMD_DAEMON_EVENTS_H

#include "api-schema/gen/types.h"
#include "daemon/store/store.h"
#include "engine/base/err.h"
#include "engine/base/list.h"

#include <stdbool.h>
#include <stdint.h>

struct change;
struct events;
struct rpc_session;
struct vmd;

struct events *events_new(struct vmd *d);
void events_free(struct events *ev);
/* Reads the journal; `skip`: leave a gap in the numbers (after an unclean end). */
int events_load(struct events *ev, bool skip, struct err *e);

struct change *change_new(struct vmd *d);
struct store_tx *change_tx(struct change *c); /* for the rows */
/* Adds an event; seq and time_ms are filled at commit, the rest is copied. */
void change_event(struct change *c, const struct api_event *e);
/* The events tell of something that has happened whatever the store says: published even when
 * they cannot be made durable. */
void change_must_tell(struct change *c);
/* Consumes c. fn (may be NULL) runs after the events were published. */
void change_commit(struct change *c, void (*fn)(void *arg, const struct err *e), void *arg);
/* Nothing is written or told. */
void change_drop(struct change *c);

int64_t events_newest(const struct events *ev); /* 0: none yet */
int64_t events_oldest(const struct events *ev); /* newest + 1 when the journal is empty */

/* Which events someone wants. */
struct event_filter {
    char vm[64];    /* UUID; "" any */
    char user[64];  /* of TLS: only what this user may see; "" all */
    uint64_t types; /* bit 1 << enum api_event_type; 0: all */
};
/* Events after `after` that pass, oldest first, at most `max`; fn gets the JSON's text (borrowed).
 * Returns the cursor to go on from. */
int64_t events_page(const struct events *ev, int64_t after, unsigned max,
                    const struct event_filter *f, void (*fn)(void *arg, const char *event),
                    void *arg);

/* fn hears of every event as it is published, before the change's own fn runs, until it is removed from the list. */
struct event_listener {
    struct list link;
    void (*fn)(void *arg, const struct api_event *event);
    void *arg;
};
void events_listen(struct events *ev, struct event_listener *l);

/* Subscriptions end with their session (events_session_closed). Returns the number, or a negative
 * code: -ENOBUFS when the session has too many. Events after `after` (-1: only new ones) follow. */
int64_t events_subscribe(struct events *ev, struct rpc_session *s, int64_t after,
                         const struct event_filter *f);
int events_unsubscribe(struct events *ev, struct rpc_session *s, int64_t id);
void events_session_closed(struct events *ev, struct rpc_session *s);

#endif
