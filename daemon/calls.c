/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Idempotency keys, audit, and the order "durable, then answered". Owns the table of keys. Loop
 * thread.
 */
#include "daemon/calls.h"

#include "api-schema/json/json.h"
#include "daemon/auth/access.h"
#include "daemon/auth/listen.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/run/proc.h"
#include "daemon/registry.h"
#include "engine/base/hash.h"
#include "engine/base/list.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct idem {
    struct list link; /* idems.order, oldest first, once it has a reply */
    char *id;         /* "uid key" */
    char *method;
    char hash[20];
    char *reply;         /* JSON text; NULL while the call is at work */
    struct list waiters; /* struct idem_wait */
};
struct idem_wait {
    struct list link;
    struct api_call *call;
};
struct idems {
    struct vmd *d;
    struct hash *by_id;
    struct list order;
    size_t kept;
};

struct idems *idems_new(struct vmd *d)
{
    struct idems *t = xnew(struct idems);
    t->d = d;
    t->by_id = hash_new_str();
    list_init(&t->order);
    return t;
}

static void idem_free(struct idems *t, struct idem *i)
{
    hash_del_str(t->by_id, i->id);
    list_remove(&i->link);
    free(i->id);
    free(i->method);
    free(i->reply);
    free(i);
}

void idems_free(struct idems *t)
{
    if (!t) {
        return;
    }
    while (!list_empty(&t->order)) {
        idem_free(t, list_entry(t->order.next, struct idem, link));
    }
    hash_free(t->by_id);
    free(t);
}

static struct idem *idem_add(struct idems *t, int64_t uid, const char *key, const char *method)
{
    struct idem *i = xnew(struct idem);
    list_init(&i->link);
    list_init(&i->waiters);
    i->id = xasprintf("%lld %s", (long long)uid, key);
    i->method = xstrdup(method);
    hash_put_str(t->by_id, i->id, i);
    return i;
}

static void idem_keep(struct idems *t, struct idem *i, const char *reply)
{
    i->reply = xstrdup(reply);
    list_append(&t->order, &i->link);
    if (++t->kept > STORE_IDEM_KEPT) {
        idem_free(t, list_entry(t->order.next, struct idem, link));
        t->kept--;
    }
}

static void load_one(void *arg, const struct store_idem *row)
{
    struct idems *t = arg;
    struct idem *i = idem_add(t, row->uid, row->key, row->method);
    snprintf(i->hash, sizeof(i->hash), "%s", row->args_hash);
    idem_keep(t, i, row->reply);
}

int idems_load(struct idems *t, struct err *e)
{
    return store_load_idem(t->d->store, load_one, t, e);
}

static void hash_params(struct api_call *call, char out[20])
{
    struct json_object *o = api_call_params(call);
    const char *text = o ? api_json_text(o) : "{}";
    snprintf(out, 20, "%016llx", (unsigned long long)hash_bytes(text, strlen(text), 1));
}

static bool answer_known(struct api_call *call, struct idem *i)
{
    char hash[20];
    hash_params(call, hash);
    if (strcmp(i->method, api_call_method(call)->name) != 0 || strcmp(i->hash, hash) != 0) {
        api_fail(call, API_E_KEY_REUSED, api_call_key(call), "make a new key for each new call",
                 "the idempotency key was used before, with %s and other parameters",
                 i->method);
        return true;
    }
    if (!i->reply) {
        struct idem_wait *w = xnew(struct idem_wait);
        w->call = call;
        list_append(&i->waiters, &w->link);
        return true;
    }
    struct json_object *o = NULL;
    if (api_json_parse(i->reply, strlen(i->reply), &o, NULL) < 0) {
        api_fail(call, API_E_INTERNAL_ERROR, api_call_key(call), NULL,
                 "the remembered reply cannot be read");
        return true;
    }
    api_reply_json(call, o);
    return true;
}

bool calls_before(void *arg, struct api_call *call)
{
    struct vmd *d = arg;
    const char *key = api_call_key(call);
    const struct api_method *m = api_call_method(call);
    if (d->ending && m->mutating) {
        api_fail(call, API_E_CANCELLED, NULL, "call again once vmd is back",
                 "vmd is shutting down");
        return true;
    }
    if (access_refuses(call)) {
        return true;
    }
    if (!key || !m->mutating) {
        return false;
    }
    int64_t who = api_call_peer(call)->principal;
    AUTO_FREE char *id = xasprintf("%lld %s", (long long)who, key);
    struct idem *i = hash_get_str(d->idems->by_id, id);
    if (i) {
        return answer_known(call, i);
    }
    i = idem_add(d->idems, who, key, m->name);
    hash_params(call, i->hash);
    api_call_set_data(call, i);
    return false;
}

/* The first call of a key was answered: those that came meanwhile get the same. */
static void wake_waiters(struct list *from, struct json_object *result,
                         const struct api_error *error)
{
    struct list all;
    list_init(&all);
    while (!list_empty(from)) {
        struct list *n = from->next;
        list_remove(n);
        list_append(&all, n);
    }
    while (!list_empty(&all)) {
        struct idem_wait *w = list_entry(all.next, struct idem_wait, link);
        list_remove(&w->link);
        if (error) {
            api_reply_error(w->call, error);
        } else {
            api_reply_json(w->call, json_object_get(result));
        }
        free(w);
    }
}

static void audit_failure(struct vmd *d, struct api_call *call, const struct api_error *x)
{
    if (x->code == API_E_STORE_ERROR || d->ending) {
        return;
    }
    const struct rpc_peer *p = api_call_peer(call);
    AUTO_FREE char *outcome = xasprintf("%s: %s", api_code_name(x->code), x->message);
    char who[160];
    access_who(p, who, sizeof(who));
    if (x->code == API_E_DENIED) {
        doors_refuse(d->doors, who, api_call_method(call)->name, x->message);
        return;
    }
    struct store_tx *tx = store_tx_new(d->store);
    store_tx_audit_put(tx, &(struct store_audit){ .time_ns = time_real_ns(),
                                                  .uid = p->user[0] ? -1 : p->principal,
                                                  .who = p->user[0] ? who : NULL,
                                                  .pid = p->pid,
                                                  .method = api_call_method(call)->name,
                                                  .object = x->object,
                                                  .outcome = outcome });
    store_tx_commit(tx, NULL, NULL);
}

void calls_after(void *arg, struct api_call *call, struct json_object *result,
                 const struct api_error *error)
{
    struct vmd *d = arg;
    const struct api_method *m = api_call_method(call);
    struct idem *i = api_call_data(call);
    if (error && m &&
        (m->mutating || m->role == API_ROLE_ADMIN || error->code == API_E_DENIED)) {
        audit_failure(d, call, error);
    }
    if (!i) {
        return;
    }
    api_call_set_data(call, NULL);
    wake_waiters(&i->waiters, result, error);
    if (error || !i->reply) {
        idem_free(d->idems, i);
    }
}

/* ---- durable, then answered ---- */

struct commit {
    struct vmd *d;
    struct api_call *call;
    struct json_object *result;
    void (*then)(void *arg, const struct err *e);
    void *arg;
};

static void committed(void *arg, const struct err *e)
{
    struct commit *k = arg;
    struct idem *i = api_call_data(k->call);
    if (!e && i) {
        idem_keep(k->d->idems, i, api_json_text(k->result));
    }
    if (k->then) {
        k->then(k->arg, e);
    }
    if (e) {
        api_fail(k->call, API_E_STORE_ERROR, k->d->opt.store,
                 e->code == -ENOSPC ? "free space on the store's filesystem and call again"
                                    : "see the log of vmd; mend the disk under the store",
                 "nothing was changed: %s", e->msg);
        json_object_put(k->result);
    } else {
        api_reply_json(k->call, k->result);
    }
    free(k);
}

void call_commit(struct vmd *d, struct api_call *call, struct change *c, const char *object,
                 struct json_object *take_result, void (*then)(void *arg, const struct err *e),
                 void *arg)
{
    const struct rpc_peer *p = api_call_peer(call);
    const char *method = api_call_method(call)->name;
    char who[160];
    access_who(p, who, sizeof(who));
    struct idem *i = api_call_data(call);
    store_tx_audit_put(change_tx(c),
                       &(struct store_audit){ .time_ns = time_real_ns(),
                                              .uid = p->user[0] ? -1 : p->principal,
                                              .who = p->user[0] ? who : NULL,
                                              .pid = p->pid,
                                              .method = method,
                                              .object = object,
                                              .outcome = "ok" });
    if (i) {
        store_tx_idem_put(change_tx(c),
                          &(struct store_idem){ .uid = p->principal,
                                                .key = api_call_key(call),
                                                .method = method,
                                                .args_hash = i->hash,
                                                .reply = api_json_text(take_result),
                                                .time_ns = time_real_ns() });
    }
    struct commit *k = xnew(struct commit);
    *k = (struct commit){
        .d = d, .call = call, .result = take_result, .then = then, .arg = arg
    };
    change_commit(c, committed, k);
}

void call_finish(struct vmd *d, struct api_call *call, const char *object,
                 struct json_object *take_result)
{
    call_commit(d, call, change_new(d), object, take_result, NULL, NULL);
}

struct vm *call_vm(struct api_call *call, const char *ref)
{
    struct vm *vm = vm_find(call_daemon(call), ref, false);
    if (!vm) {
        api_fail(call, API_E_NOT_FOUND, ref, "'vmctl list' shows the VMs there are",
                 "there is no VM '%s'", ref);
    }
    return vm;
}

bool call_owns(struct api_call *call, const struct vm *vm)
{
    const struct rpc_peer *p = api_call_peer(call);
    if (p->user[0]) {
        return true; /* has the role in the VM's project: access_refuses() */
    }
    if (p->uid == 0 || p->uid == geteuid() || vm->owner == p->principal) {
        return true;
    }
    api_fail(call, API_E_DENIED, vm->config.name, "ask its owner or an administrator",
             "VM '%s' belongs to uid %lld, not to uid %u", vm->config.name,
             (long long)vm->owner, p->uid);
    return false;
}
