/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Callbacks of clients, and the journal's events in libvirt's words. A session hears what its user may see. Loop thread.
 */
#include "daemon/libvirt/events.h"

#include "api-schema/gen/types.h"
#include "daemon/auth/access.h"
#include "daemon/daemon.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/jobs.h"
#include "daemon/libvirt/parts.h"
#include "daemon/libvirt/procs.h"
#include "daemon/libvirt/session.h"
#include "daemon/registry.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <stdio.h>
#include <string.h>

/* virDomainEventID, and of the old call that each was told by before callbacks had handles. */
enum domain_event {
    LIFECYCLE = 0,
    REBOOT = 1,
    WATCHDOG = 3,
    IO_ERROR = 4,
    IO_ERROR_REASON = 6,
    BLOCK_JOB = 8,
    TRAY_CHANGE = 10,
    BALLOON_CHANGE = 13,
    DEVICE_REMOVED = 15,
    BLOCK_JOB_2 = 16,
    AGENT_LIFECYCLE = 18,
    DEVICE_ADDED = 19,
    DEVICE_REMOVAL_FAILED = 22,
    DOMAIN_EVENTS = 26,
};

/* --- registering ------------------------------------------------------------------------------------- */

static struct lv_callback *add(struct lv_call *c, enum lv_kind kind, int event,
                               const char *uuid)
{
    struct lv_session *q = c->q;
    struct lv_callback *cb;

    if (q->n_callbacks >= LV_CALLBACKS) {
        lv_fail(c, LV_E_OPERATION_FAILED, "a connection has at most %d callbacks",
                LV_CALLBACKS);
        return NULL;
    }
    cb = xnew(struct lv_callback);
    cb->kind = kind;
    cb->event = event;
    cb->id = q->next_callback++;
    str_copy(cb->uuid, sizeof(cb->uuid), uuid ? uuid : "");
    list_append(&q->callbacks, &cb->link);
    q->n_callbacks++;
    return cb;
}

static void drop(struct lv_session *q, struct lv_callback *cb)
{
    list_remove(&cb->link);
    free(cb);
    q->n_callbacks--;
}

static void register_one(struct lv_call *c, enum lv_kind kind)
{
    struct json_object *object = json_object_array_get_idx(api_json_get(c->args, "object"), 0),
                       *o;
    struct lv_callback *cb = add(c, kind, (int)lv_int(c, "event_id"),
                                 api_json_get_str(object, "uuid"));

    if (cb) {
        o = json_object_new_object();
        api_json_set_int(o, "callback_id", cb->id);
        lv_reply(c, o);
    }
}

void lv_do_domain_event_register(struct lv_call *c)
{
    int64_t event = lv_int(c, "event_id");

    if (event < 0 || event >= DOMAIN_EVENTS) {
        lv_fail(c, LV_E_INVALID_ARG, "unexpected event %lld", (long long)event);
    } else {
        register_one(c, LV_DOMAINS);
    }
}

void lv_do_network_event_register(struct lv_call *c)
{
    register_one(c, LV_NETWORKS);
}

void lv_do_pool_event_register(struct lv_call *c)
{
    register_one(c, LV_POOLS);
}

void lv_do_device_event_register(struct lv_call *c)
{
    register_one(c, LV_NODE_DEVICES); /* the host's devices do not change for us: never told */
}

void lv_do_secret_event_register(struct lv_call *c)
{
    register_one(c, LV_SECRETS);
}

void lv_do_event_deregister(struct lv_call *c)
{
    list_for_each (it, &c->q->callbacks) {
        struct lv_callback *cb = list_entry(it, struct lv_callback, link);
        if (cb->id == lv_int(c, "callback_id") && !cb->legacy) {
            drop(c->q, cb);
            lv_reply(c, NULL);
            return;
        }
    }
    lv_fail(c, LV_E_INVALID_ARG, "there is no callback %lld",
            (long long)lv_int(c, "callback_id"));
}

/* Without handles: one of each event. */
static bool register_old(struct lv_call *c, int event)
{
    struct lv_callback *cb = add(c, LV_DOMAINS, event, NULL);

    if (cb) {
        cb->legacy = true;
    }
    return cb != NULL;
}

static void deregister_old(struct lv_session *q, int event)
{
    list_for_each_safe (it, &q->callbacks) {
        struct lv_callback *cb = list_entry(it, struct lv_callback, link);
        if (cb->legacy && cb->event == event) {
            drop(q, cb);
        }
    }
}

static void reply_registered(struct lv_call *c)
{
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "cb_registered", 1);
    lv_reply(c, o);
}

void lv_do_event_register_old(struct lv_call *c)
{
    if (register_old(c, LIFECYCLE)) {
        reply_registered(c);
    }
}

void lv_do_event_deregister_old(struct lv_call *c)
{
    deregister_old(c->q, LIFECYCLE);
    reply_registered(c);
}

void lv_do_event_register_any_old(struct lv_call *c)
{
    if (register_old(c, (int)lv_int(c, "event_id"))) {
        lv_reply(c, NULL);
    }
}

void lv_do_event_deregister_any_old(struct lv_call *c)
{
    deregister_old(c->q, (int)lv_int(c, "event_id"));
    lv_reply(c, NULL);
}

/* --- telling ------------------------------------------------------------------------------------------- */

/* How one event goes out: `form` is of its message; nested: it is a struct of its own behind the handle. */
struct telling {
    int event;
    uint32_t procedure, legacy; /* 0: there is none */
    const char *form;
    bool nested;
};

static const struct telling tellings[] = {
    { LIFECYCLE, 318, 107, "dom:D event:i detail:i", true },
    { REBOOT, 319, 169, "dom:D", true },
    { WATCHDOG, 321, 171, "dom:D action:i", true },
    { IO_ERROR, 322, 172, "dom:D src_path:s dev_alias:s action:i", true },
    { IO_ERROR_REASON, 324, 195, "dom:D src_path:s dev_alias:s action:i reason:s", true },
    { BLOCK_JOB, 326, 241, "dom:D path:s type:i status:i", true },
    { TRAY_CHANGE, 328, 268, "dom:D dev_alias:s reason:i", true },
    { BALLOON_CHANGE, 331, 276, "dom:D actual:H", true },
    { DEVICE_REMOVED, 333, 311, "dom:D dev_alias:s", true },
    { BLOCK_JOB_2, 339, 0, "dom:D path:s type:i status:i", false },
    { AGENT_LIFECYCLE, 348, 0, "dom:D state:i reason:i", false },
    { DEVICE_ADDED, 354, 0, "dom:D dev_alias:s", false },
    { DEVICE_REMOVAL_FAILED, 367, 0, "dom:D dev_alias:s", false },
};

static void tell_one(struct lv_session *q, const struct lv_callback *cb,
                     const struct telling *t, struct json_object *msg)
{
    char form[256];

    if (cb->legacy) {
        if (t->legacy) {
            lv_send_event(q, t->legacy, t->form, msg);
        }
        return;
    }
    AUTO_JSON with = json_object_new_object();
    api_json_set_int(with, "callback_id", cb->id);
    if (t->nested) {
        snprintf(form, sizeof(form), "callback_id:i msg:{%s}", t->form);
        api_json_set(with, "msg", json_object_get(msg));
    } else {
        snprintf(form, sizeof(form), "callback_id:i %s", t->form);
        json_object_object_foreach(msg, key, value)
        {
            api_json_set(with, key, json_object_get(value));
        }
    }
    lv_send_event(q, t->procedure, form, with);
}

/* To everyone who wants it and may see the project. */
static void tell(struct libvirt *l, enum lv_kind kind, const char *uuid, const char *project,
                 const struct telling *t, struct json_object *take_msg)
{
    AUTO_JSON msg = take_msg;

    list_for_each_safe (s, &l->sessions) {
        struct lv_session *q = list_entry(s, struct lv_session, link);
        if (list_empty(&q->callbacks) || !access_peer_sees(l->d, &q->s->peer, project)) {
            continue;
        }
        list_for_each (it, &q->callbacks) {
            const struct lv_callback *cb = list_entry(it, struct lv_callback, link);
            if (cb->kind == (int)kind && cb->event == t->event &&
                (!cb->uuid[0] || strcmp(cb->uuid, uuid) == 0)) {
                tell_one(q, cb, t, msg);
            }
        }
    }
}

/* The VM that an event is about. */
struct about {
    struct libvirt *l;
    const struct api_event *ev;
    const struct vm *vm; /* NULL: gone */
};

static struct json_object *domain_of(const struct about *a)
{
    struct json_object *o;

    if (a->vm) {
        return lv_domain(a->vm);
    }
    o = lv_object("name", a->ev->name ? a->ev->name : "");
    api_json_set_str(o, "uuid", a->ev->vm);
    api_json_set_int(o, "id", -1);
    return o;
}

static void tell_domain(const struct about *a, enum domain_event event,
                        struct json_object *take_msg)
{
    api_json_set(take_msg, "dom", domain_of(a));
    for (unsigned i = 0; i < ARRAY_LEN(tellings); i++) {
        if (tellings[i].event == (int)event) {
            tell(a->l, LV_DOMAINS, a->ev->vm, a->vm ? a->vm->config.project : ACCESS_HOST,
                 &tellings[i], take_msg);
            return;
        }
    }
    json_object_put(take_msg);
}

static void tell_life(const struct about *a, int event, int detail)
{
    struct json_object *msg = json_object_new_object();

    api_json_set_int(msg, "event", event);
    api_json_set_int(msg, "detail", detail);
    tell_domain(a, LIFECYCLE, msg);
}

/* virDomainEventType and the details that are used. */
enum {
    DEFINED = 0,
    UNDEFINED = 1,
    STARTED = 2,
    SUSPENDED = 3,
    RESUMED = 4,
    STOPPED = 5,
    DEFINED_ADDED = 0,
    DEFINED_UPDATED = 1,
    DEFINED_RENAMED = 2,
    STARTED_BOOTED = 0,
    STARTED_RESTORED = 2,
    SUSPENDED_PAUSED = 0,
    SUSPENDED_IO_ERROR = 2,
    SUSPENDED_WATCHDOG = 3,
    STOPPED_SHUTDOWN = 0,
    STOPPED_DESTROYED = 1,
    STOPPED_CRASHED = 2,
    STOPPED_MIGRATED = 3,
    STOPPED_SAVED = 4,
    STOPPED_FAILED = 5,
};

static int stopped_detail(const char *reason)
{
    static const struct {
        const char *reason;
        int detail;
    } known[] = { { "quit", STOPPED_DESTROYED },     { "killed", STOPPED_DESTROYED },
                  { "watchdog", STOPPED_DESTROYED }, { "panic", STOPPED_CRASHED },
                  { "crashed", STOPPED_CRASHED },    { "lost", STOPPED_CRASHED },
                  { "saved", STOPPED_SAVED },        { "migrated", STOPPED_MIGRATED },
                  { "start-failed", STOPPED_FAILED } };

    for (unsigned i = 0; reason && i < ARRAY_LEN(known); i++) {
        if (strcmp(known[i].reason, reason) == 0) {
            return known[i].detail;
        }
    }
    return STOPPED_SHUTDOWN;
}

/* What is remembered of each VM, so that a start and a resume are told apart. One of which nothing is known ran before this daemon
 * did. */
static const char *before(struct libvirt *l, const char *uuid)
{
    const char *was = api_json_get_str(l->states, uuid);

    return was ? was : "unknown";
}

static void on_vm_state(const struct about *a)
{
    const char *now = api_vm_state_name(a->ev->state), *reason = a->ev->reason;
    AUTO_FREE char *was = xstrdup(before(a->l, a->ev->vm));
    bool ran = lv_active_word(was) && strcmp(was, "starting") != 0;

    switch (a->ev->state) {
    case API_VM_STATE_STARTING:
        break;
    case API_VM_STATE_RUNNING:
    case API_VM_STATE_PAUSED:
        if (reason && strcmp(reason, "adopted") == 0) {
            break; /* as it was, only this daemon did not know */
        }
        if (!ran) {
            tell_life(a, STARTED,
                      reason && strcmp(reason, "restored") == 0 ? STARTED_RESTORED
                                                                : STARTED_BOOTED);
        }
        if (a->ev->state == API_VM_STATE_PAUSED && strcmp(was, "paused") != 0) {
            tell_life(a, SUSPENDED,
                      reason && strcmp(reason, "io-error") == 0   ? SUSPENDED_IO_ERROR
                      : reason && strcmp(reason, "watchdog") == 0 ? SUSPENDED_WATCHDOG
                                                                  : SUSPENDED_PAUSED);
        } else if (ran && a->ev->state == API_VM_STATE_RUNNING && strcmp(was, "paused") == 0) {
            tell_life(a, RESUMED, 0);
        }
        break;
    case API_VM_STATE_STOPPED:
        tell_life(a, STOPPED, stopped_detail(reason));
        break;
    case API_VM_STATE_CRASHED:
        tell_life(a, STOPPED, STOPPED_CRASHED);
        break;
    default:
        return; /* on its way, or not answering: still what it was */
    }
    api_json_set_str(a->l->states, a->ev->vm, now);
}

static void on_io_error(const struct about *a)
{
    enum { NONE, PAUSE, REPORT };
    const char *did = a->ev->reason, *disk = api_json_get_str(a->ev->detail, "disk");
    struct json_object *msg = json_object_new_object();
    bool full = api_json_get_bool(a->ev->detail, "nospace", false);

    api_json_set_str(msg, "src_path", "");
    for (size_t i = 0; a->vm && disk && i < a->vm->config.n_disks; i++) {
        const struct api_disk *d = &a->vm->config.disks[i];
        if (strcmp(d->name, disk) == 0 && d->file) {
            api_json_set_str(msg, "src_path", d->file);
        }
    }
    api_json_set_str(msg, "dev_alias", disk ? disk : "");
    api_json_set_int(msg, "action",
                     !did                         ? NONE
                     : strcmp(did, "stop") == 0   ? PAUSE
                     : strcmp(did, "report") == 0 ? REPORT
                                                  : NONE);
    api_json_set_str(msg, "reason", full ? "enospc" : "");
    tell_domain(a, IO_ERROR, json_object_get(msg));
    tell_domain(a, IO_ERROR_REASON, msg);
}

static void on_watchdog(const struct about *a)
{
    static const char *const actions[] = { "none", "pause", "reset", "poweroff" };
    struct json_object *msg = json_object_new_object();

    for (unsigned i = 0; a->ev->reason && i < ARRAY_LEN(actions); i++) {
        if (strcmp(actions[i], a->ev->reason) == 0) {
            api_json_set_int(msg, "action", i);
        }
    }
    tell_domain(a, WATCHDOG, msg);
}

static void on_device(const struct about *a)
{
    const char *what = a->ev->reason ? a->ev->reason : "",
               *name = api_json_get_str(a->ev->detail, "name");

    tell_domain(a,
                strcmp(what, "attached") == 0   ? DEVICE_ADDED
                : strcmp(what, "detached") == 0 ? DEVICE_REMOVED
                                                : DEVICE_REMOVAL_FAILED,
                lv_object("dev_alias", name ? name : ""));
}

static void on_channel(const struct about *a)
{
    enum { CONNECTED = 1, DISCONNECTED = 2, BY_CHANNEL = 2 };
    const char *name = api_json_get_str(a->ev->detail, "name");
    struct json_object *msg;

    if (name && strcmp(name, "org.qemu.guest_agent.0") == 0) {
        msg = json_object_new_object();
        api_json_set_int(msg, "state",
                         a->ev->reason && strcmp(a->ev->reason, "opened") == 0 ? CONNECTED
                                                                               : DISCONNECTED);
        api_json_set_int(msg, "reason", BY_CHANNEL);
        tell_domain(a, AGENT_LIFECYCLE, msg);
    }
}

static void on_tray(const struct about *a)
{
    enum { OPEN, CLOSE };
    const char *name = api_json_get_str(a->ev->detail, "name");
    struct json_object *msg = lv_object("dev_alias", name ? name : "");

    api_json_set_int(msg, "reason",
                     a->ev->reason && strcmp(a->ev->reason, "opened") == 0 ? OPEN : CLOSE);
    tell_domain(a, TRAY_CHANGE, msg);
}

static void on_balloon(const struct about *a)
{
    struct json_object *msg = json_object_new_object();

    api_json_set_int(msg, "actual", api_json_get_int(a->ev->detail, "actual", 0) / 1024);
    tell_domain(a, BALLOON_CHANGE, msg);
}

/* How a block job stands that clients are to hear of: virConnectDomainEventBlockJobStatus; -1: nothing new. */
static int job_status(struct libvirt *l, const struct api_job *job)
{
    enum { COMPLETED, FAILED, CANCELED, READY };
    const char *state = api_json_get_str(job->result, "state");
    AUTO_FREE char *key = xasprintf("job-%lld", (long long)job->job);

    switch (job->state) {
    case API_JOB_STATE_DONE:
    case API_JOB_STATE_FAILED:
    case API_JOB_STATE_CANCELLED:
        json_object_object_del(l->states, key);
        return job->state == API_JOB_STATE_DONE     ? COMPLETED
               : job->state == API_JOB_STATE_FAILED ? FAILED
                                                    : CANCELED;
    default:
        if (!state || strcmp(state, "ready") != 0 || api_json_get(l->states, key)) {
            return -1;
        }
        api_json_set_str(l->states, key, state);
        return READY;
    }
}

/* Of a job on a disk: once by the name of its file, once by that of its target. */
static void on_job(const struct about *a)
{
    const struct api_job *job = a->ev->job;
    const char *disk = job ? api_json_get_str(job->result, "disk") : NULL;
    int type = job ? lv_block_job_type(job->kind) : 0, status;
    struct json_object *msg;
    char name[80];

    if (!type || !a->vm || !disk) {
        return;
    }
    status = job_status(a->l, job);
    for (size_t i = 0; status >= 0 && i < a->vm->config.n_disks; i++) {
        lv_disk_name(a->vm, (int)i, name, sizeof(name));
        if (strcmp(name, disk) != 0) {
            continue;
        }
        const char *file = a->vm->config.disks[i].file;
        AUTO_FREE char *dev = lv_disk_dev(a->vm, (int)i);
        msg = lv_object("path", file ? file : "");
        api_json_set_int(msg, "type", type);
        api_json_set_int(msg, "status", status);
        tell_domain(a, BLOCK_JOB, msg);
        msg = lv_object("path", dev);
        api_json_set_int(msg, "type", type);
        api_json_set_int(msg, "status", status);
        tell_domain(a, BLOCK_JOB_2, msg);
    }
}

/* Networks and pools: lifecycle events count alike. */
static void on_object(struct libvirt *l, const struct api_event *ev, enum lv_kind kind)
{
    static const char *const words[] = { "defined", "undefined", "started", "stopped" };
    const struct telling network = { 0, 315, 0, "net:N event:i detail:i", false },
                         pool = { 0, 370, 0, "pool:P event:i detail:i", false },
                         refreshed = { 1, 373, 0, "pool:P", false };
    const char *project = api_json_get_str(ev->detail, "project"),
               *uuid = api_json_get_str(ev->detail, "uuid");
    struct json_object *msg = json_object_new_object(),
                       *handle = lv_object("name", ev->name ? ev->name : "");

    api_json_set_str(handle, "uuid", uuid ? uuid : "");
    api_json_set(msg, kind == LV_POOLS ? "pool" : "net", handle);
    for (unsigned i = 0; ev->reason && i < ARRAY_LEN(words); i++) {
        if (strcmp(words[i], ev->reason) == 0) {
            api_json_set_int(msg, "event", i);
            tell(l, kind, uuid ? uuid : "", project ? project : ACCESS_HOST,
                 kind == LV_POOLS ? &pool : &network, json_object_get(msg));
        }
    }
    if (kind == LV_POOLS && ev->reason && strcmp(ev->reason, "refreshed") == 0) {
        tell(l, kind, uuid ? uuid : "", project ? project : ACCESS_HOST, &refreshed,
             json_object_get(msg));
    }
    json_object_put(msg);
}

void lv_on_event(void *arg, const struct api_event *ev)
{
    struct libvirt *l = arg;
    const struct about a = { .l = l,
                             .ev = ev,
                             .vm = ev->vm ? vm_find(l->d, ev->vm, false) : NULL };

    switch (ev->type) {
    case API_EVENT_TYPE_VM_DEFINED:
        tell_life(&a, DEFINED, DEFINED_ADDED);
        break;
    case API_EVENT_TYPE_VM_CHANGED:
        tell_life(&a, DEFINED, DEFINED_UPDATED);
        break;
    case API_EVENT_TYPE_VM_RENAMED:
        tell_life(&a, DEFINED, DEFINED_RENAMED);
        break;
    case API_EVENT_TYPE_VM_DELETED:
        tell_life(&a, UNDEFINED, 0);
        json_object_object_del(l->states, ev->vm);
        break;
    case API_EVENT_TYPE_VM_STATE:
        on_vm_state(&a);
        break;
    case API_EVENT_TYPE_VM_RESET:
        tell_domain(&a, REBOOT, json_object_new_object());
        break;
    case API_EVENT_TYPE_VM_WATCHDOG:
        on_watchdog(&a);
        break;
    case API_EVENT_TYPE_VM_IO_ERROR:
        on_io_error(&a);
        break;
    case API_EVENT_TYPE_VM_DEVICE:
        on_device(&a);
        break;
    case API_EVENT_TYPE_VM_CHANNEL:
        on_channel(&a);
        break;
    case API_EVENT_TYPE_VM_TRAY:
        on_tray(&a);
        break;
    case API_EVENT_TYPE_JOB:
        on_job(&a);
        break;
    case API_EVENT_TYPE_VM_BALLOON:
        on_balloon(&a);
        break;
    case API_EVENT_TYPE_NETWORK:
        on_object(l, ev, LV_NETWORKS);
        break;
    case API_EVENT_TYPE_POOL:
        on_object(l, ev, LV_POOLS);
        break;
    default:
        break;
    }
}
