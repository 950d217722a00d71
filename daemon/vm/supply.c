/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Profiles, quotas, placement. Owns struct supply: the rows of both kinds in memory. Loop thread.
 */
#include "daemon/vm/supply.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/vm/preflight.h"
#include "daemon/run/proc.h"
#include "daemon/registry.h"
#include "daemon/run/spawner.h"
#include "daemon/store/store.h"
#include "engine/base/buf.h"
#include "engine/base/list.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PROFILES_MAX 1000
#define QUOTAS_MAX 10000
#define NO_BOUND (-1)

struct profile {
    struct list link; /* sorted by name */
    char *name, *doc;
    struct json_object *set;
};
struct quota {
    struct list link; /* sorted by project */
    char *project;
    int64_t vms, cpus, memory; /* NO_BOUND: none */
};
struct supply {
    struct vmd *d;
    struct list profiles, quotas;
    size_t n_profiles, n_quotas;
};

struct supply *supply_new(struct vmd *d)
{
    struct supply *s = xnew(struct supply);
    s->d = d;
    list_init(&s->profiles);
    list_init(&s->quotas);
    return s;
}

/* The text so far, ended; borrowed. */
static const char *text_of(struct buf *b)
{
    buf_add_char(b, 0);
    return (const char *)b->data;
}

/* ---- profiles ---- */

static struct profile *profile_find(struct supply *s, const char *name)
{
    list_for_each (n, &s->profiles) {
        struct profile *p = list_entry(n, struct profile, link);
        if (strcmp(p->name, name) == 0) {
            return p;
        }
    }
    return NULL;
}

static void profile_drop(struct supply *s, struct profile *p)
{
    list_remove(&p->link);
    s->n_profiles--;
    free(p->name);
    free(p->doc);
    json_object_put(p->set);
    free(p);
}

static void profile_keep(struct supply *s, const char *name, const char *doc,
                         struct json_object *take_set)
{
    struct profile *old = profile_find(s, name);
    struct list *at = s->profiles.next;
    if (old) {
        profile_drop(s, old);
        at = s->profiles.next;
    }
    while (at != &s->profiles && strcmp(list_entry(at, struct profile, link)->name, name) < 0) {
        at = at->next;
    }
    struct profile *p = xnew(struct profile);
    p->name = xstrdup(name);
    p->doc = doc ? xstrdup(doc) : NULL;
    p->set = take_set;
    list_append(at, &p->link); /* before `at` */
    s->n_profiles++;
}

static struct json_object *profile_json(const char *name, const char *doc,
                                        struct json_object *set)
{
    struct json_object *o = json_object_new_object();
    api_json_set_str(o, "name", name);
    if (doc) {
        api_json_set_str(o, "doc", doc);
    }
    api_json_set(o, "set", json_object_get(set));
    return o;
}

void supply_load_profile(struct vmd *d, const struct store_object *row)
{
    AUTO_JSON o = NULL;
    struct err e = ERR_INIT;
    if (api_json_parse(row->body, strlen(row->body), &o, &e) < 0 || !api_json_get(o, "set")) {
        log_error("daemon", "profile '%s' left out: %s", row->name, e.msg);
        return;
    }
    profile_keep(d->supply, row->name, api_json_get_str(o, "doc"),
                 json_object_get(api_json_get(o, "set")));
}

/* Members of `from` over those of `to`. */
static void lay_over(struct json_object *to, const struct json_object *from)
{
    json_object_object_foreach((struct json_object *)from, key, value)
    {
        json_object_object_add(to, key, json_object_get(value));
    }
}

int supply_apply(struct vmd *d, char **names, size_t n, const struct json_object *given,
                 struct api_vm_config *config, struct api_error *x)
{
    struct api_vm_config made;
    AUTO_JSON all = json_object_new_object();
    for (size_t i = 0; i < n; i++) {
        struct profile *p = profile_find(d->supply, names[i]);
        if (!p) {
            return api_error_set(x, API_E_NOT_FOUND, names[i],
                                 "'vmctl profile list' shows the profiles there are",
                                 "there is no profile '%s'", names[i]);
        }
        lay_over(all, p->set);
    }
    /* null in a profile puts the default back, which is what leaving it out does here */
    AUTO_JSON merged = json_object_new_object();
    json_object_object_foreach(all, key, value)
    {
        if (value) {
            json_object_object_add(merged, key, json_object_get(value));
        }
    }
    if (given) {
        lay_over(merged, given);
    }
    if (api_decode(&api_type_vm_config, merged, API_STRICT, "config", &made, x) < 0) {
        return -1;
    }
    api_release(&api_type_vm_config, config);
    *config = made;
    return 0;
}

struct put {
    struct supply *s;
    char *name, *doc;
    struct json_object *set;
    struct quota quota;
};

static void put_free(struct put *k)
{
    free(k->name);
    free(k->doc);
    json_object_put(k->set);
    free(k);
}

static void profile_stored(void *arg, const struct err *e)
{
    struct put *k = arg;
    if (!e) {
        profile_keep(k->s, k->name, k->doc, json_object_get(k->set));
    }
    put_free(k);
}

/* Would a definition take it? */
static int check_profile(struct vmd *d, const char *name, struct json_object *set,
                         struct api_error *x)
{
    struct api_vm_config c;
    AUTO_JSON o = json_object_new_object();
    (void)d;
    if (api_json_get(set, "project")) {
        return api_error_set(x, API_E_INVALID_PARAMS, "set.project",
                             "name the project in the definition",
                             "profile '%s' cannot choose the project of a VM", name);
    }
    api_json_set_str(o, "name", "profile");
    if (api_decode(&api_type_vm_config, o, API_STRICT, "config", &c, x) < 0) {
        return -1;
    }
    int rc = api_patch(&api_type_vm_config, &c, set, x);
    api_release(&api_type_vm_config, &c);
    return rc;
}

void api_handle_profile_set(struct api_call *call, struct api_profile_set_in *in)
{
    struct vmd *d = call_daemon(call);
    struct api_error x = API_ERROR_INIT;
    if (d->supply->n_profiles >= PROFILES_MAX && !profile_find(d->supply, in->name)) {
        api_fail(call, API_E_OVERLOAD, in->name, "delete profiles that are not needed",
                 "there are %d profiles, more are not possible", PROFILES_MAX);
        return;
    }
    if (check_profile(d, in->name, in->set, &x) < 0) {
        api_reply_error(call, &x);
        return;
    }
    struct json_object *row = profile_json(in->name, in->doc, in->set);
    struct put *k = xnew(struct put);
    *k = (struct put){ .s = d->supply,
                       .name = xstrdup(in->name),
                       .doc = in->doc ? xstrdup(in->doc) : NULL,
                       .set = json_object_get(in->set) };
    struct change *c = change_new(d);
    store_tx_object_put(change_tx(c), &(struct store_object){ .kind = "profile",
                                                              .scope = "",
                                                              .name = in->name,
                                                              .body = api_json_text(row),
                                                              .changed_ns = time_real_ns() });
    call_commit(d, call, c, in->name, row, profile_stored, k);
}

void api_handle_profile_list(struct api_call *call, struct api_profile_list_in *in)
{
    struct vmd *d = call_daemon(call);
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();
    (void)in;
    list_for_each (n, &d->supply->profiles) {
        struct profile *p = list_entry(n, struct profile, link);
        json_object_array_add(list, profile_json(p->name, p->doc, p->set));
    }
    api_json_set(o, "profiles", list);
    api_reply_json(call, o);
}

static void profile_deleted(void *arg, const struct err *e)
{
    struct put *k = arg;
    struct profile *p = profile_find(k->s, k->name);
    if (!e && p) {
        profile_drop(k->s, p);
    }
    put_free(k);
}

void api_handle_profile_delete(struct api_call *call, struct api_profile_delete_in *in)
{
    struct vmd *d = call_daemon(call);
    if (!profile_find(d->supply, in->name)) {
        api_fail(call, API_E_NOT_FOUND, in->name,
                 "'vmctl profile list' shows the profiles there are",
                 "there is no profile '%s'", in->name);
        return;
    }
    struct put *k = xnew(struct put);
    *k = (struct put){ .s = d->supply, .name = xstrdup(in->name) };
    struct change *c = change_new(d);
    store_tx_object_del(change_tx(c), "profile", "", in->name);
    struct api_profile_delete_out out = { .name = in->name };
    call_commit(d, call, c, in->name, api_encode(&api_type_profile_delete_out, &out),
                profile_deleted, k);
}

/* ---- quotas ---- */

static struct quota *quota_find(struct supply *s, const char *project)
{
    list_for_each (n, &s->quotas) {
        struct quota *q = list_entry(n, struct quota, link);
        if (strcmp(q->project, project) == 0) {
            return q;
        }
    }
    return NULL;
}

static struct quota *quota_get(struct supply *s, const char *project)
{
    struct quota *q = quota_find(s, project);
    struct list *at = s->quotas.next;
    if (q) {
        return q;
    }
    while (at != &s->quotas &&
           strcmp(list_entry(at, struct quota, link)->project, project) < 0) {
        at = at->next;
    }
    q = xnew(struct quota);
    *q = (struct quota){
        .project = xstrdup(project), .vms = NO_BOUND, .cpus = NO_BOUND, .memory = NO_BOUND
    };
    list_append(at, &q->link);
    s->n_quotas++;
    return q;
}

void supply_free(struct supply *s)
{
    if (!s) {
        return;
    }
    while (!list_empty(&s->profiles)) {
        profile_drop(s, list_entry(s->profiles.next, struct profile, link));
    }
    while (!list_empty(&s->quotas)) {
        struct quota *q = list_entry(s->quotas.next, struct quota, link);
        list_remove(&q->link);
        free(q->project);
        free(q);
    }
    free(s);
}

void supply_load_quota(struct vmd *d, const struct store_object *row)
{
    AUTO_JSON o = NULL;
    if (api_json_parse(row->body, strlen(row->body), &o, NULL) < 0) {
        log_error("daemon", "quota of project '%s' left out", row->name);
        return;
    }
    struct quota *q = quota_get(d->supply, row->name);
    q->vms = api_json_get_int(o, "vms", NO_BOUND);
    q->cpus = api_json_get_int(o, "cpus", NO_BOUND);
    q->memory = api_json_get_int(o, "memory", NO_BOUND);
}

struct used {
    int64_t vms, cpus, memory;
};

/* Pending definitions count: two calls at once must not both find room. */
static struct used project_used(struct vmd *d, const char *project, const struct vm *without)
{
    struct used u = { 0 };
    size_t n;
    struct vm **list = vm_list_all(d, &n);
    for (size_t i = 0; i < n; i++) {
        if (list[i] != without && strcmp(list[i]->config.project, project) == 0) {
            u.vms++;
            u.cpus += list[i]->config.cpus;
            u.memory += preflight_all_memory(&list[i]->config);
        }
    }
    free(list);
    return u;
}

static void add_reason(struct buf *to, const char *what, int64_t bound, int64_t used,
                       int64_t wanted, bool bytes)
{
    char a[32], b[32], c[32];
    if (bound == NO_BOUND || used + wanted <= bound) {
        return;
    }
    snprintf(a, sizeof(a), "%lld", (long long)bound);
    snprintf(b, sizeof(b), "%lld", (long long)used);
    snprintf(c, sizeof(c), "%lld", (long long)wanted);
    if (bytes) {
        str_size((uint64_t)bound, a, sizeof(a));
        str_size((uint64_t)used, b, sizeof(b));
        str_size((uint64_t)wanted, c, sizeof(c));
    }
    buf_printf(to, "%s%s: at most %s, in use %s, wanted %s", to->len ? "; " : "", what, a, b,
               c);
}

int supply_quota(struct vmd *d, const struct api_vm_config *c, const struct vm *instead,
                 struct api_error *x)
{
    const struct quota *q = quota_find(d->supply, c->project);
    AUTO_BUF why = BUF_INIT;
    if (!q) {
        return 0;
    }
    struct used u = project_used(d, c->project, instead);
    add_reason(&why, "VMs", instead ? NO_BOUND : q->vms, u.vms, 1, false);
    /* What asks for no more than it has is let through, also beyond the bound. */
    if (!instead || c->cpus > instead->config.cpus) {
        add_reason(&why, "vCPUs", q->cpus, u.cpus, c->cpus, false);
    }
    if (!instead || preflight_all_memory(c) > preflight_all_memory(&instead->config)) {
        add_reason(&why, "memory", q->memory, u.memory, preflight_all_memory(c), true);
    }
    return why.len == 0 ? 0
                        : api_error_set(x, API_E_QUOTA_EXCEEDED, c->project,
                                        "delete what is not needed, or ask for more: 'vmctl "
                                        "quota set'",
                                        "the quota of project '%s' has no room for VM '%s': %s",
                                        c->project, c->name, text_of(&why));
}

static void quota_stored(void *arg, const struct err *e)
{
    struct put *k = arg;
    if (!e) {
        struct quota *q = quota_get(k->s, k->name);
        q->vms = k->quota.vms;
        q->cpus = k->quota.cpus;
        q->memory = k->quota.memory;
    }
    put_free(k);
}

static struct json_object *quota_json(struct vmd *d, const char *project, const struct quota *q)
{
    struct used u = project_used(d, project, NULL);
    struct api_quota out = {
        .project = (char *)project,
        .vms = q->vms,
        .has_vms = q->vms != NO_BOUND,
        .cpus = q->cpus,
        .has_cpus = q->cpus != NO_BOUND,
        .memory = q->memory,
        .has_memory = q->memory != NO_BOUND,
        .used_vms = u.vms,
        .used_cpus = u.cpus,
        .used_memory = u.memory,
    };
    return api_encode(&api_type_quota, &out);
}

void api_handle_quota_set(struct api_call *call, struct api_quota_set_in *in)
{
    struct vmd *d = call_daemon(call);
    if (d->supply->n_quotas >= QUOTAS_MAX && !quota_find(d->supply, in->project)) {
        api_fail(call, API_E_OVERLOAD, in->project, NULL,
                 "there are quotas of %d projects, more are not possible", QUOTAS_MAX);
        return;
    }
    struct put *k = xnew(struct put);
    *k = (struct put){ .s = d->supply,
                       .name = xstrdup(in->project),
                       .quota = { .vms = in->has_vms ? in->vms : NO_BOUND,
                                  .cpus = in->has_cpus ? in->cpus : NO_BOUND,
                                  .memory = in->has_memory ? in->memory : NO_BOUND } };
    struct json_object *row = quota_json(d, in->project, &k->quota);
    struct change *c = change_new(d);
    store_tx_object_put(change_tx(c), &(struct store_object){ .kind = "quota",
                                                              .scope = "",
                                                              .name = in->project,
                                                              .body = api_json_text(row),
                                                              .changed_ns = time_real_ns() });
    call_commit(d, call, c, in->project, row, quota_stored, k);
}

void api_handle_quota_list(struct api_call *call, struct api_quota_list_in *in)
{
    struct vmd *d = call_daemon(call);
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();
    (void)in;
    list_for_each (n, &d->supply->quotas) {
        struct quota *q = list_entry(n, struct quota, link);
        json_object_array_add(list, quota_json(d, q->project, q));
    }
    api_json_set(o, "quotas", list);
    api_reply_json(call, o);
}

/* ---- placement ---- */

void supply_used(struct vmd *d, int64_t *cpus, int64_t *memory)
{
    size_t n;
    struct vm **list = vm_list_all(d, &n);
    *cpus = *memory = 0;
    for (size_t i = 0; i < n; i++) {
        if (list[i]->run) {
            *cpus += list[i]->config.cpus;
            *memory += preflight_all_memory(&list[i]->config);
        }
    }
    free(list);
}

int supply_sandbox(struct vmd *d, const struct api_vm_config *c, struct api_error *x)
{
    if (!d->opt.require_sandbox) {
        return 0;
    }
    struct json_object *layers = spawner_layers(d->spawner);
    AUTO_BUF why = BUF_INIT;
    size_t n = layers ? json_object_array_length(layers) : 0;
    for (size_t i = 0; i < n; i++) {
        struct json_object *l = json_object_array_get_idx(layers, i);
        if (!api_json_get_bool(l, "active", false)) {
            const char *reason = api_json_get_str(l, "reason");
            buf_printf(&why, "%s%s (%s)", why.len ? "; " : "", api_json_get_str(l, "name"),
                       reason ? reason : "no reason given");
        }
    }
    if (layers && why.len == 0) {
        return 0;
    }
    return api_error_set(x, API_E_HOST_LIMIT, c->name,
                         "mend the host, or end 'require-sandbox' in vmd's configuration",
                         "VM '%s' is not started without its whole sandbox: %s", c->name,
                         layers ? text_of(&why) : "the layers have not been tried yet");
}

int supply_place(struct vmd *d, const struct api_vm_config *c, struct api_error *x)
{
    int64_t cpus, memory, total, available;
    AUTO_BUF why = BUF_INIT;
    if (!d->opt.memory_overcommit && !d->opt.cpu_overcommit) {
        return 0;
    }
    supply_used(d, &cpus, &memory);
    preflight_memory(&total, &available);
    int64_t most_memory = d->opt.memory_overcommit ? total / 100 * d->opt.memory_overcommit
                                                   : NO_BOUND;
    int64_t host_cpus = sysconf(_SC_NPROCESSORS_ONLN);
    int64_t most_cpus = d->opt.cpu_overcommit ? host_cpus * d->opt.cpu_overcommit / 100
                                              : NO_BOUND;
    add_reason(&why, "vCPUs", most_cpus, cpus, c->cpus, false);
    add_reason(&why, "memory", most_memory, memory, preflight_all_memory(c), true);
    return why.len == 0
               ? 0
               : api_error_set(x, API_E_HOST_LIMIT, c->name,
                               "stop a VM, or raise the overcommit in vmd's configuration",
                               "this host has no room for VM '%s': %s", c->name, text_of(&why));
}
