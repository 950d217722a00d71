/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a snapshot is due its name is written down, then the emulator is asked, as an operation of the VM; then the oldest go. So what
 * was taken is known whatever dies in between, and a name that led to nothing does no harm when it is its turn to go. Times are of the
 * wall clock; periods that were missed are not made up for, and a clock that went back makes nobody wait longer than a
 * period. Owns struct schedule. Loop thread.
 */
#include "daemon/vm/schedule.h"

#include "api-schema/gen/methods.h"
#include "api-schema/gen/types.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/ops.h"
#include "daemon/registry.h"
#include "daemon/run/proc.h"
#include "daemon/run/supervise.h"
#include "daemon/store/store.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define KIND "schedule"
#define MS INT64_C(1000000)
#define ASK_NS INT64_C(60000000000)
#define LOOK_MS 30000 /* at least so often: the wall clock may have jumped */
#define SOON_MS 20
#define A_VM_MAX 16
/* So many more than are to be kept may wait for their end; then none is taken. */
#define SLACK 16

enum phase { IDLE, STORING, QUEUED, ASKED };

struct schedule {
    struct list link;
    struct schedules *s;
    char *uuid;               /* of its VM */
    struct api_schedule info; /* owned */
    enum phase phase;
    bool deleting; /* its row is going: none is put */
    bool gone;     /* freed when the emulator has answered */
    struct op *op; /* while ASKED */
    int64_t vm;    /* the same */
    bool removing; /* the oldest is being removed */
};

struct schedules {
    struct vmd *d;
    struct list all; /* by VM and name */
    struct loop_timer *timer;
};

static int64_t now_ms(void)
{
    return time_real_ns() / MS;
}

static void on_timer(void *arg);

struct schedules *schedules_new(struct vmd *d)
{
    struct schedules *s = xnew(struct schedules);

    s->d = d;
    list_init(&s->all);
    s->timer = loop_timer_new(d->loop, on_timer, s);
    return s;
}

static void schedule_free(struct schedule *k)
{
    list_remove(&k->link);
    api_release(&api_type_schedule, &k->info);
    free(k->uuid);
    free(k);
}

void schedules_free(struct schedules *s)
{
    if (s) {
        while (!list_empty(&s->all)) {
            schedule_free(list_entry(s->all.next, struct schedule, link));
        }
        loop_timer_free(s->timer);
        free(s);
    }
}

static struct schedule *find(struct schedules *s, const char *uuid, const char *name)
{
    list_for_each (it, &s->all) {
        struct schedule *k = list_entry(it, struct schedule, link);

        if (!k->gone && strcmp(k->uuid, uuid) == 0 && strcmp(k->info.name, name) == 0) {
            return k;
        }
    }
    return NULL;
}

/* Takes *info. */
static struct schedule *add(struct schedules *s, const char *uuid, struct api_schedule *info)
{
    struct schedule *k = xnew(struct schedule);
    struct list *at = s->all.next;

    while (at != &s->all) {
        const struct schedule *other = list_entry(at, struct schedule, link);
        int order = strcmp(other->uuid, uuid);

        if (order > 0 || (order == 0 && strcmp(other->info.name, info->name) > 0)) {
            break;
        }
        at = at->next;
    }
    k->s = s;
    k->uuid = xstrdup(uuid);
    k->info = *info;
    *info = (struct api_schedule){ 0 };
    list_append(at, &k->link); /* before `at` */
    return k;
}

/* It goes; when the emulator works for it, once that has answered. */
static void drop(struct schedule *k)
{
    if (k->phase == ASKED) {
        k->gone = true;
    } else {
        schedule_free(k);
    }
}

/* ---- rows ---- */

static void put_row(struct change *c, const char *uuid, const struct api_schedule *info)
{
    AUTO_JSON body = api_encode(&api_type_schedule, info);

    store_tx_object_put(change_tx(c), &(struct store_object){ .kind = KIND,
                                                              .scope = uuid,
                                                              .name = info->name,
                                                              .body = api_json_text(body),
                                                              .changed_ns = time_real_ns() });
}

static void put(struct schedule *k)
{
    struct change *c;

    if (k->deleting) {
        return;
    }
    c = change_new(k->s->d);
    put_row(c, k->uuid, &k->info);
    change_commit(c, NULL, NULL);
}

void schedules_load(struct vmd *d, const struct store_object *row)
{
    AUTO_JSON o = NULL;
    struct err e = ERR_INIT;
    struct api_error x = API_ERROR_INIT;
    struct api_schedule info;

    if (api_json_parse(row->body, strlen(row->body), &o, &e) < 0 ||
        api_decode(&api_type_schedule, o, API_LENIENT, "schedule", &info, &x) < 0) {
        log_error("daemon", "schedule '%s' left out: %s", row->name,
                  e.code ? e.msg : x.message);
        return;
    }
    (void)add(d->schedules, row->scope, &info);
}

void schedules_clear(struct vm *vm, struct change *c)
{
    struct schedules *s = vm->d->schedules;

    for (struct list *it = s->all.next; it != &s->all;) {
        struct schedule *k = list_entry(it, struct schedule, link);

        it = it->next;
        if (!k->gone && strcmp(k->uuid, vm->config.uuid) == 0) {
            store_tx_object_del(change_tx(c), KIND, k->uuid, k->info.name);
        }
    }
}

/* ---- names of snapshots ---- */

static void names_remove(struct api_schedule *i, const char *name)
{
    for (size_t n = 0; n < i->n_snapshots; n++) {
        if (strcmp(i->snapshots[n], name) == 0) {
            free(i->snapshots[n]);
            memmove(i->snapshots + n, i->snapshots + n + 1,
                    (i->n_snapshots - n - 1) * sizeof(*i->snapshots));
            i->n_snapshots--;
            return;
        }
    }
}

static bool names_have(const struct api_schedule *i, const char *name)
{
    for (size_t n = 0; n < i->n_snapshots; n++) {
        if (strcmp(i->snapshots[n], name) == 0) {
            return true;
        }
    }
    return false;
}

/* NAME-20260131T120000Z; with a number behind it where a clock that went back gives one twice. */
static const char *names_add(struct api_schedule *i, int64_t ms)
{
    time_t seconds = (time_t)(ms / 1000);
    char date[32];
    struct tm tm;
    char *name;

    gmtime_r(&seconds, &tm);
    strftime(date, sizeof(date), "%Y%m%dT%H%M%SZ", &tm);
    name = xasprintf("%s-%s", i->name, date);
    for (unsigned n = 2; names_have(i, name); n++) {
        free(name);
        name = xasprintf("%s-%s.%u", i->name, date, n);
    }
    i->snapshots = xrealloc_n(i->snapshots, i->n_snapshots + 1, sizeof(*i->snapshots));
    i->snapshots[i->n_snapshots++] = name;
    return name;
}

/* ---- taking one ---- */

static void arm(struct schedules *s)
{
    int64_t now = now_ms(), wait = LOOK_MS;

    list_for_each (it, &s->all) {
        const struct schedule *k = list_entry(it, struct schedule, link);
        int64_t left = k->info.next_ms - now;

        if (k->phase == IDLE && !k->deleting && left < wait) {
            wait = left;
        }
    }
    loop_timer_arm(s->timer, (wait < SOON_MS ? SOON_MS : wait) * MS);
}

static void outcome(struct schedule *k, enum api_schedule_outcome was, const char *error)
{
    struct vm *vm = vm_find(k->s->d, k->uuid, false);

    free(k->info.error);
    k->info.error = error ? xstrdup(error) : NULL;
    k->info.has_last = true;
    k->info.last = was;
    if (vm && was == API_SCHEDULE_OUTCOME_FAILED) {
        AUTO_JSON detail = json_object_new_object();
        struct change *c = change_new(k->s->d);

        log_warn("daemon", "VM '%s': schedule '%s': %s", vm->config.name, k->info.name, error);
        api_json_set_str(detail, "schedule", k->info.name);
        api_json_set_str(detail, "error", error);
        vm_event(vm, c, API_EVENT_TYPE_VM_POLICY, "snapshot-failed", detail);
        change_commit(c, NULL, NULL);
    }
}

/* Ends the operation; k may be freed. */
static void finish(struct schedule *k)
{
    struct schedules *s = k->s;
    struct vm *vm = vm_by_id(s->d, k->vm);
    struct op *op = k->op;

    k->phase = IDLE;
    k->op = NULL;
    if (k->gone) {
        schedule_free(k);
    } else {
        put(k);
    }
    if (vm && vm->op == op) {
        op_end(op);
    }
    arm(s);
}

static void vm_ended(void *arg, struct vm *vm, bool gone)
{
    struct schedule *k = arg;

    (void)vm;
    (void)gone;
    if (!k->removing) { /* whether it is there nobody knows: its name stays */
        outcome(k, API_SCHEDULE_OUTCOME_FAILED, "the VM ended meanwhile");
    }
    finish(k);
}

/* False: fn will not be called. */
static bool ask(struct schedule *k, const char *method, struct json_object *take_params,
                rpc_done_fn *fn)
{
    struct vm *vm = vm_by_id(k->s->d, k->vm);

    if (!vm || vm->op != k->op || !vm->run || run_has_ended(vm->run)) {
        json_object_put(take_params);
        return false;
    }
    run_on_end(vm->run, vm_ended, k);
    if (run_call_with(vm->run, method, take_params, ASK_NS, fn, k)) {
        return true;
    }
    run_on_end_cancel(vm->run, k);
    return false;
}

static void answered(struct schedule *k)
{
    struct vm *vm = vm_by_id(k->s->d, k->vm);

    if (vm && vm->run) {
        run_on_end_cancel(vm->run, k);
    }
}

static void prune(struct schedule *k);

static void on_removed(void *arg, struct json_object *result, const struct api_error *x)
{
    struct schedule *k = arg;

    (void)result;
    answered(k);
    if (x && x->code != API_E_NOT_FOUND) {
        log_warn("daemon", "schedule '%s': snapshot '%s' is not removed: %s", k->info.name,
                 k->info.snapshots[0], x->message);
        finish(k);
        return;
    }
    names_remove(&k->info, k->info.snapshots[0]);
    prune(k);
}

static void prune(struct schedule *k)
{
    struct json_object *o;

    if (k->gone || (int64_t)k->info.n_snapshots <= k->info.keep) {
        finish(k);
        return;
    }
    k->removing = true;
    o = json_object_new_object();
    api_json_set_str(o, "name", k->info.snapshots[0]);
    if (!ask(k, "emu.disk_snapshot_delete", o, on_removed)) {
        finish(k);
    }
}

static void on_taken(void *arg, struct json_object *result, const struct api_error *x)
{
    struct schedule *k = arg;

    (void)result;
    answered(k);
    if (!x) {
        outcome(k, API_SCHEDULE_OUTCOME_TAKEN, NULL);
        prune(k);
        return;
    }
    outcome(k, API_SCHEDULE_OUTCOME_FAILED, x->message);
    if (x->code != API_E_INTERNAL_ERROR && x->code != API_E_TIMEOUT) {
        names_remove(&k->info, k->info.snapshots[k->info.n_snapshots - 1]);
    } /* else it may be there */
    finish(k);
}

static bool wanted(const struct api_schedule *i, const struct api_disk *disk)
{
    for (size_t n = 0; n < i->n_disks; n++) {
        if (strcmp(i->disks[n], disk->name) == 0) {
            return true;
        }
    }
    return i->n_disks == 0 && !disk->readonly && !disk->cdrom;
}

static struct json_object *actions(const struct schedule *k, const struct vm *vm)
{
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();

    for (size_t i = 0; i < vm->config.n_disks; i++) {
        const struct api_disk *disk = &vm->config.disks[i];
        const struct api_disk_action a = { .act = API_DISK_ACTION_KIND_SNAPSHOT,
                                           .disk = disk->name,
                                           .name = k->info.snapshots[k->info.n_snapshots - 1] };

        if (wanted(&k->info, disk)) {
            json_object_array_add(list, api_encode(&api_type_disk_action, &a));
        }
    }
    api_json_set(o, "actions", list);
    return o;
}

/* The one that waits for this VM; what was deleted meanwhile leaves an operation behind that does nothing. */
static void begin(struct op *op)
{
    struct vm *vm = op->vm;
    struct schedules *s = vm->d->schedules;

    list_for_each (it, &s->all) {
        struct schedule *k = list_entry(it, struct schedule, link);

        if (k->phase == QUEUED && strcmp(k->uuid, vm->config.uuid) == 0) {
            k->phase = ASKED;
            k->op = op;
            k->vm = vm->id;
            k->removing = false;
            if (!ask(k, "emu.disk_actions", actions(k, vm), on_taken)) {
                names_remove(&k->info, k->info.snapshots[k->info.n_snapshots - 1]);
                outcome(k, API_SCHEDULE_OUTCOME_SKIPPED, NULL);
                finish(k);
            }
            return;
        }
    }
    op_end(op);
}

struct ticket {
    struct vmd *d;
    char *uuid, *name;
};

static void ticket_free(struct ticket *t)
{
    free(t->uuid);
    free(t->name);
    free(t);
}

static void on_stored(void *arg, const struct err *e)
{
    struct ticket *t = arg;
    struct vmd *d = t->d;
    struct schedule *k = find(d->schedules, t->uuid, t->name);
    struct vm *vm = vm_find(d, t->uuid, false);

    ticket_free(t);
    if (!k || k->phase != STORING) {
        return;
    }
    if (e || !vm) {
        names_remove(&k->info, k->info.snapshots[k->info.n_snapshots - 1]);
        k->phase = IDLE;
        outcome(k, API_SCHEDULE_OUTCOME_FAILED, e ? e->msg : "the VM is gone");
        arm(d->schedules);
        return;
    }
    k->phase = QUEUED;
    op_queue(vm, NULL, NULL, NULL, begin, false);
}

static void due(struct schedule *k, struct vm *vm, int64_t now)
{
    struct api_schedule *i = &k->info;
    struct ticket *t;
    struct change *c;

    i->has_last_ms = true;
    i->last_ms = now;
    i->next_ms += i->every_ms * ((now - i->next_ms) / i->every_ms + 1);
    if (vm->moving || !vm_is_live(vm)) {
        outcome(k, API_SCHEDULE_OUTCOME_SKIPPED, NULL);
        put(k);
        return;
    }
    if ((int64_t)i->n_snapshots >= i->keep + SLACK) {
        outcome(k, API_SCHEDULE_OUTCOME_FAILED, "older snapshots cannot be removed");
        put(k);
        return;
    }
    (void)names_add(i, now);
    k->phase = STORING;
    t = xnew(struct ticket);
    *t = (struct ticket){ .d = k->s->d, .uuid = xstrdup(k->uuid), .name = xstrdup(i->name) };
    c = change_new(k->s->d);
    put_row(c, k->uuid, i);
    change_commit(c, on_stored, t);
}

static void forget(struct schedule *k)
{
    struct change *c = change_new(k->s->d);

    store_tx_object_del(change_tx(c), KIND, k->uuid, k->info.name);
    change_commit(c, NULL, NULL);
    drop(k);
}

static void on_timer(void *arg)
{
    struct schedules *s = arg;
    int64_t now = now_ms();

    for (struct list *it = s->all.next; it != &s->all;) {
        struct schedule *k = list_entry(it, struct schedule, link);
        struct vm *vm = vm_find(s->d, k->uuid, true);

        it = it->next;
        if (k->gone || k->deleting || (vm && k->phase != IDLE)) {
            continue;
        }
        if (!vm) {
            forget(k);
            continue;
        }
        if (k->info.next_ms > now + k->info.every_ms) {
            k->info.next_ms = now + k->info.every_ms; /* the clock went back */
        }
        if (now >= k->info.next_ms && !s->d->ending) {
            due(k, vm, now);
        }
    }
    arm(s);
}

void schedules_begin(struct vmd *d)
{
    arm(d->schedules);
}

/* ---- calls ---- */

/* Inside a raw image there is no room for a snapshot: said now rather than when it is due. */
static bool fits(struct api_call *call, const struct vm *vm, const struct api_schedule *i)
{
    size_t found = 0;

    for (size_t n = 0; n < vm->config.n_disks; n++) {
        const struct api_disk *disk = &vm->config.disks[n];

        if (wanted(i, disk) && disk->format != API_DISK_FORMAT_QCOW2) {
            api_fail(call, API_E_UNSUPPORTED, disk->name,
                     "name the disks (only), or convert it with 'vmctl image convert -O qcow2'",
                     "disk '%s' is a raw image, which keeps no snapshots", disk->name);
            return false;
        }
        found += wanted(i, disk);
    }
    if (found == 0 || (i->n_disks && found != i->n_disks)) {
        api_fail(call, API_E_NOT_FOUND, vm->config.name,
                 "see 'vmctl show' for the names of disks",
                 "VM '%s' has no such disk, or none that is writable", vm->config.name);
        return false;
    }
    return true;
}

struct setting {
    struct vmd *d;
    char *uuid;
    struct api_schedule info;
};

static void on_set(void *arg, const struct err *e)
{
    struct setting *g = arg;
    struct schedule *k = find(g->d->schedules, g->uuid, g->info.name);

    if (!e && k) { /* names and outcome are its own, also when they changed meanwhile */
        struct api_schedule was = k->info;

        k->info.every_ms = g->info.every_ms;
        k->info.keep = g->info.keep;
        k->info.next_ms = g->info.next_ms;
        k->info.disks = g->info.disks;
        k->info.n_disks = g->info.n_disks;
        g->info.disks = was.disks;
        g->info.n_disks = was.n_disks;
        put(k);
    } else if (!e) {
        (void)add(g->d->schedules, g->uuid, &g->info);
    }
    arm(g->d->schedules);
    api_release(&api_type_schedule, &g->info);
    free(g->uuid);
    free(g);
}

static unsigned count(const struct schedules *s, const char *uuid)
{
    unsigned n = 0;

    list_for_each (it, &s->all) {
        n += strcmp(list_entry(it, struct schedule, link)->uuid, uuid) == 0;
    }
    return n;
}

void api_handle_schedule_set(struct api_call *call, struct api_schedule_set_in *in)
{
    struct vmd *d = call_daemon(call);
    struct vm *vm = call_vm(call, in->vm);
    const struct api_schedule asked = { .name = in->name,
                                        .every_ms = in->every_ms,
                                        .keep = in->keep,
                                        .disks = in->disks,
                                        .n_disks = in->n_disks,
                                        .next_ms = now_ms() + in->every_ms };
    struct schedule *k;
    struct setting *g;
    struct change *c;

    if (!vm || !fits(call, vm, &asked)) {
        return;
    }
    k = find(d->schedules, vm->config.uuid, in->name);
    if (!k && count(d->schedules, vm->config.uuid) >= A_VM_MAX) {
        api_fail(call, API_E_OVERLOAD, vm->config.name, "delete one: 'vmctl schedule rm'",
                 "VM '%s' has %d schedules, more are not possible", vm->config.name, A_VM_MAX);
        return;
    }
    g = xnew(struct setting);
    g->d = d;
    g->uuid = xstrdup(vm->config.uuid);
    api_copy(&api_type_schedule, &asked, &g->info);
    if (k) {
        struct api_schedule row = k->info;

        row.every_ms = asked.every_ms;
        row.keep = asked.keep;
        row.disks = asked.disks;
        row.n_disks = asked.n_disks;
        row.next_ms = asked.next_ms;
        c = change_new(d);
        put_row(c, g->uuid, &row);
        call_commit(d, call, c, vm->config.name, api_encode(&api_type_schedule, &row), on_set,
                    g);
        return;
    }
    c = change_new(d);
    put_row(c, g->uuid, &g->info);
    call_commit(d, call, c, vm->config.name, api_encode(&api_type_schedule, &g->info), on_set,
                g);
}

void api_handle_schedule_list(struct api_call *call, struct api_schedule_list_in *in)
{
    struct vmd *d = call_daemon(call);
    struct vm *vm = call_vm(call, in->vm);
    struct json_object *o, *list;

    if (!vm) {
        return;
    }
    o = json_object_new_object();
    list = json_object_new_array();
    list_for_each (it, &d->schedules->all) {
        const struct schedule *k = list_entry(it, struct schedule, link);

        if (!k->gone && strcmp(k->uuid, vm->config.uuid) == 0) {
            json_object_array_add(list, api_encode(&api_type_schedule, &k->info));
        }
    }
    api_json_set(o, "schedules", list);
    api_reply_json(call, o);
}

static void on_deleted(void *arg, const struct err *e)
{
    struct ticket *t = arg;
    struct schedule *k = find(t->d->schedules, t->uuid, t->name);

    if (!e && k) {
        drop(k);
    } else if (k) {
        k->deleting = false;
        put(k);
        arm(t->d->schedules);
    }
    ticket_free(t);
}

void api_handle_schedule_delete(struct api_call *call, struct api_schedule_delete_in *in)
{
    struct vmd *d = call_daemon(call);
    struct vm *vm = call_vm(call, in->vm);
    struct api_schedule_delete_out out = { .name = in->name };
    struct schedule *k;
    struct ticket *t;
    struct change *c;

    if (!vm) {
        return;
    }
    k = find(d->schedules, vm->config.uuid, in->name);
    if (!k) {
        api_fail(call, API_E_NOT_FOUND, in->name, "'vmctl schedule list' shows those there are",
                 "VM '%s' has no schedule '%s'", vm->config.name, in->name);
        return;
    }
    t = xnew(struct ticket);
    *t = (struct ticket){ .d = d, .uuid = xstrdup(vm->config.uuid), .name = xstrdup(in->name) };
    c = change_new(d);
    store_tx_object_del(change_tx(c), KIND, t->uuid, in->name);
    k->deleting = true;
    call_commit(d, call, c, vm->config.name, api_encode(&api_type_schedule_delete_out, &out),
                on_deleted, t);
}
