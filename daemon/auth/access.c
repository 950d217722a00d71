/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Users, certificates and tokens in memory and as objects of the store; roles; the check of each
 * call. Owns the lists. Loop thread.
 */
#include "daemon/auth/access.h"

#include "api-schema/json/json.h"
#include "api-schema/net/nbdaddr.h"
#include "api-schema/rpc/call.h"
#include "api-schema/rpc/server.h"
#include "api-schema/tls/tls.h"
#include "daemon/auth/images.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/jobs.h"
#include "daemon/run/proc.h"
#include "daemon/registry.h"
#include "daemon/storage/pools.h"
#include "daemon/store/store.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TOKEN_MINUTES_MAX 60 /* of the schema */

struct access {
    struct vmd *d;
    struct list users, certs, tokens;
    unsigned n_users, n_certs;
    int64_t next_user;
};

static int64_t now_ms(void)
{
    return time_real_ns() / 1000000;
}

struct list *access_users(struct vmd *d)
{
    return &d->access->users;
}

struct list *access_certs(struct vmd *d)
{
    return &d->access->certs;
}

struct list *access_tokens(struct vmd *d)
{
    return &d->access->tokens;
}

struct access *access_new(struct vmd *d)
{
    struct access *a = xnew(struct access);
    a->d = d;
    a->next_user = 1;
    list_init(&a->users);
    list_init(&a->certs);
    list_init(&a->tokens);
    return a;
}

void access_free(struct access *a)
{
    if (!a) {
        return;
    }
    list_for_each_safe (n, &a->users) {
        free(list_entry(n, struct user, link));
    }
    list_for_each_safe (n, &a->certs) {
        free(list_entry(n, struct cert, link));
    }
    list_for_each_safe (n, &a->tokens) {
        free(list_entry(n, struct token, link));
    }
    free(a);
}

/* ---- users ---- */

struct user *user_find(struct vmd *d, const char *name)
{
    list_for_each (n, &d->access->users) {
        struct user *u = list_entry(n, struct user, link);
        if (strcmp(u->name, name) == 0) {
            return u;
        }
    }
    return NULL;
}

/* Kept sorted by name. */
static void insert_user(struct access *a, struct user *u)
{
    struct list *at = a->users.prev;
    while (at != &a->users && strcmp(list_entry(at, struct user, link)->name, u->name) > 0) {
        at = at->prev;
    }
    list_insert(at, &u->link);
    a->n_users++;
}

struct user *user_add(struct vmd *d, const char *name)
{
    struct access *a = d->access;
    if (a->n_users >= ACCESS_USERS) {
        return NULL;
    }
    struct user *u = xnew(struct user);
    str_copy(u->name, sizeof(u->name), name);
    /* Numbers own VMs and keys, so one must not come back: the clock makes them unique across
     * deletions and restarts. */
    int64_t id = now_ms();
    u->id = id > a->next_user ? id : a->next_user;
    a->next_user = u->id + 1;
    u->created_ms = now_ms();
    insert_user(a, u);
    return u;
}

void user_drop(struct user *u)
{
    list_remove(&u->link);
    free(u);
}

int user_grant(struct user *u, const char *project, enum api_role role)
{
    unsigned at = 0;
    while (at < u->n_grants && strcmp(u->grants[at].project, project) != 0) {
        at++;
    }
    if (role == API_ROLE_NONE) {
        if (at < u->n_grants) {
            u->grants[at] = u->grants[--u->n_grants];
        }
        return 0;
    }
    if (at == ACCESS_GRANTS) {
        return -ENOBUFS;
    }
    str_copy(u->grants[at].project, sizeof(u->grants[at].project), project);
    u->grants[at].role = role;
    u->n_grants += at == u->n_grants;
    return 0;
}

enum api_role access_grant_of(const struct user *u, const char *project)
{
    for (unsigned i = 0; i < u->n_grants; i++) {
        if (strcmp(u->grants[i].project, project) == 0) {
            return u->grants[i].role;
        }
    }
    return API_ROLE_NONE;
}

static void put(struct change *c, const char *kind, const char *name, struct json_object *body)
{
    store_tx_object_put(change_tx(c), &(struct store_object){ .kind = kind,
                                                              .scope = "",
                                                              .name = name,
                                                              .body = api_json_text(body),
                                                              .changed_ns = time_real_ns() });
    json_object_put(body);
}

void user_put(const struct user *u, struct change *c)
{
    struct json_object *o = json_object_new_object(), *grants = json_object_new_array();
    api_json_set_int(o, "id", u->id);
    api_json_set_int(o, "created_ms", u->created_ms);
    for (unsigned i = 0; i < u->n_grants; i++) {
        struct json_object *g = json_object_new_object();
        api_json_set_str(g, "project", u->grants[i].project);
        api_json_set_str(g, "role", api_role_names[u->grants[i].role]);
        json_object_array_add(grants, g);
    }
    api_json_set(o, "grants", grants);
    put(c, "user", u->name, o);
}

static enum api_role role_of(const char *name)
{
    for (int r = API_ROLE_VIEWER; name && r <= API_ROLE_ADMIN; r++) {
        if (strcmp(api_role_names[r], name) == 0) {
            return (enum api_role)r;
        }
    }
    return API_ROLE_NONE;
}

static void load_user(struct access *a, const char *name, struct json_object *o)
{
    struct user *u = xnew(struct user);
    struct json_object *grants = api_json_get(o, "grants");
    size_t n = json_object_is_type(grants, json_type_array) ? json_object_array_length(grants)
                                                            : 0;
    str_copy(u->name, sizeof(u->name), name);
    u->id = api_json_get_int(o, "id", 0);
    u->created_ms = api_json_get_int(o, "created_ms", 0);
    for (size_t i = 0; i < n; i++) {
        struct json_object *g = json_object_array_get_idx(grants, i);
        const char *project = api_json_get_str(g, "project");
        user_grant(u, project ? project : "default", role_of(api_json_get_str(g, "role")));
    }
    a->next_user = u->id >= a->next_user ? u->id + 1 : a->next_user;
    insert_user(a, u);
}

/* ---- certificates ---- */

struct cert *cert_by_fingerprint(struct vmd *d, const char *fingerprint)
{
    list_for_each (n, &d->access->certs) {
        struct cert *k = list_entry(n, struct cert, link);
        if (strcmp(k->fingerprint, fingerprint) == 0) {
            return k;
        }
    }
    return NULL;
}

struct cert *cert_find(struct vmd *d, const char *text)
{
    size_t len = strlen(text);
    struct cert *found = NULL;
    unsigned n_found = 0;
    list_for_each (n, &d->access->certs) {
        struct cert *k = list_entry(n, struct cert, link);
        if (strcmp(k->serial, text) == 0 || strcmp(k->fingerprint, text) == 0) {
            return k;
        }
        if (len >= 6 &&
            (strncmp(k->serial, text, len) == 0 || strncmp(k->fingerprint, text, len) == 0)) {
            found = k;
            n_found++;
        }
    }
    return n_found == 1 ? found : NULL;
}

struct cert *cert_add(struct vmd *d, const struct ca_issued *made, const char *user)
{
    if (d->access->n_certs >= ACCESS_CERTS) {
        return NULL;
    }
    struct cert *k = xnew(struct cert);
    str_copy(k->serial, sizeof(k->serial), made->serial);
    str_copy(k->fingerprint, sizeof(k->fingerprint), made->fingerprint);
    str_copy(k->user, sizeof(k->user), user);
    k->created_ms = now_ms();
    k->expires_ms = made->not_after * 1000;
    list_append(&d->access->certs, &k->link);
    d->access->n_certs++;
    return k;
}

void cert_drop(struct cert *k)
{
    list_remove(&k->link);
    free(k);
}

const char *cert_state(const struct cert *k)
{
    return k->revoked_ms ? "revoked" : k->expires_ms <= now_ms() ? "expired" : "valid";
}

void cert_put(const struct cert *k, struct change *c)
{
    struct json_object *o = json_object_new_object();
    api_json_set_str(o, "fingerprint", k->fingerprint);
    api_json_set_str(o, "user", k->user);
    api_json_set_int(o, "created_ms", k->created_ms);
    api_json_set_int(o, "expires_ms", k->expires_ms);
    api_json_set_int(o, "revoked_ms", k->revoked_ms);
    api_json_set_str(o, "reason", k->reason);
    put(c, "cert", k->serial, o);
}

static void copy_member(char *out, size_t size, struct json_object *o, const char *name)
{
    const char *s = api_json_get_str(o, name);
    str_copy(out, size, s ? s : "");
}

static void load_cert(struct access *a, const char *name, struct json_object *o)
{
    struct cert *k = xnew(struct cert);
    str_copy(k->serial, sizeof(k->serial), name);
    copy_member(k->fingerprint, sizeof(k->fingerprint), o, "fingerprint");
    copy_member(k->user, sizeof(k->user), o, "user");
    copy_member(k->reason, sizeof(k->reason), o, "reason");
    k->created_ms = api_json_get_int(o, "created_ms", 0);
    k->expires_ms = api_json_get_int(o, "expires_ms", 0);
    k->revoked_ms = api_json_get_int(o, "revoked_ms", 0);
    list_append(&a->certs, &k->link);
    a->n_certs++;
}

/* ---- tokens ---- */

void token_put(const struct token *t, struct change *c)
{
    struct json_object *o = json_object_new_object();
    api_json_set_str(o, "user", t->user);
    api_json_set_bool(o, "known", t->known);
    api_json_set_str(o, "project", t->project);
    api_json_set_str(o, "role", api_role_names[t->role]);
    api_json_set_int(o, "expires_ms", t->expires_ms);
    api_json_set_bool(o, "used", t->used);
    api_json_set_str(o, "used_by", t->used_by);
    put(c, "token", t->hash, o);
}

/* Of a token that another daemon made. One that would be valid for longer than any token is was made before the
 * clock was set back: it is over. */
static int64_t mono_end(int64_t expires_ms)
{
    int64_t left = expires_ms - now_ms();
    return left > TOKEN_MINUTES_MAX * INT64_C(60000) ? 0 : time_mono_ns() + left * 1000000;
}

static void load_token(struct access *a, const char *name, struct json_object *o)
{
    struct token *t = xnew(struct token);
    str_copy(t->hash, sizeof(t->hash), name);
    copy_member(t->user, sizeof(t->user), o, "user");
    copy_member(t->project, sizeof(t->project), o, "project");
    copy_member(t->used_by, sizeof(t->used_by), o, "used_by");
    t->role = role_of(api_json_get_str(o, "role"));
    t->expires_ms = api_json_get_int(o, "expires_ms", 0);
    t->mono_end_ns = mono_end(t->expires_ms);
    t->used = json_object_get_boolean(api_json_get(o, "used"));
    t->known = json_object_get_boolean(api_json_get(o, "known"));
    list_append(&a->tokens, &t->link);
}

void tokens_trim(struct vmd *d, struct change *c)
{
    int64_t old = now_ms() - INT64_C(86400000);
    list_for_each_safe (n, &d->access->tokens) {
        struct token *t = list_entry(n, struct token, link);
        if (t->expires_ms < old && !t->taken) {
            store_tx_object_del(change_tx(c), "token", "", t->hash);
            list_remove(n);
            free(t);
        }
    }
}

/* ---- loading ---- */

static void load_one(void *arg, const struct store_object *row)
{
    static const struct {
        const char *kind;
        void (*load)(struct access *a, const char *name, struct json_object *o);
    } kinds[] = { { "user", load_user }, { "cert", load_cert }, { "token", load_token } };
    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
        AUTO_JSON o = NULL;
        if (strcmp(kinds[i].kind, row->kind) == 0 &&
            api_json_parse(row->body, strlen(row->body), &o, NULL) == 0) {
            kinds[i].load(arg, row->name, o);
        }
    }
}

int access_load(struct access *a, struct err *e)
{
    return store_load_objects(a->d->store, load_one, a, e);
}

/* ---- roles ---- */

enum api_role access_role(struct vmd *d, const struct rpc_peer *p, const char *project)
{
    enum api_role best = API_ROLE_NONE;
    if (!p->user[0]) {
        if (p->principal < 0 || p->principal >= RPC_REMOTE || p->uid == (uid_t)-1) {
            return API_ROLE_NONE;
        }
        /* Members of the socket's group run VMs and own those they defined (call_owns). */
        return p->uid == 0 || p->uid == geteuid() ? API_ROLE_ADMIN : API_ROLE_OWNER;
    }
    struct user *u = user_find(d, p->user);
    for (unsigned i = 0; u && i < u->n_grants; i++) {
        const struct grant *g = &u->grants[i];
        if ((strcmp(g->project, ACCESS_HOST) == 0 || strcmp(g->project, project) == 0) &&
            g->role > best) {
            best = g->role;
        }
    }
    return best;
}

enum api_role access_role_of(struct api_call *call, const char *project)
{
    enum api_role most = api_call_role(call);
    if (!api_call_peer(call)->user[0]) {
        return most;
    }
    enum api_role there = access_role(call_daemon(call), api_call_peer(call), project);
    return there < most ? there : most;
}

enum api_role access_role_anywhere(struct vmd *d, const struct rpc_peer *p)
{
    enum api_role best = API_ROLE_NONE;
    if (!p->user[0]) {
        return access_role(d, p, ACCESS_HOST);
    }
    struct user *u = user_find(d, p->user);
    for (unsigned i = 0; u && i < u->n_grants; i++) {
        best = u->grants[i].role > best ? u->grants[i].role : best;
    }
    return best;
}

bool access_peer_sees(struct vmd *d, const struct rpc_peer *p, const char *project)
{
    return access_role(d, p, project ? project : "default") >= API_ROLE_VIEWER;
}

bool access_sees(struct api_call *call, const char *project)
{
    return access_peer_sees(call_daemon(call), api_call_peer(call), project);
}

/* ---- the check of a call ---- */

/* Where this call asks for its role; NULL: nowhere in particular. *vm is set when it is one's. */
static const char *project_of(struct api_call *call, struct vm **vm)
{
    struct vmd *d = call_daemon(call);
    struct json_object *params = api_call_params(call);
    const char *ref = api_json_get_str(params, "vm");
    const char *named;
    struct job *job;
    switch (api_call_method(call)->scope) {
    case API_SCOPE_ANY:
    case API_SCOPE_VM:
        *vm = ref ? vm_find(d, ref, false) : NULL;
        return *vm ? (*vm)->config.project : NULL;
    case API_SCOPE_CONFIG:
        named = api_json_get_str(api_json_get(params, "config"), "project");
        return named ? named : "default";
    case API_SCOPE_JOB:
        job = job_find(d, api_json_get_int(params, "job", 0));
        *vm = job && job->info.vm ? vm_find(d, job->info.vm, false) : NULL;
        return !job ? NULL : *vm ? (*vm)->config.project : ACCESS_HOST;
    case API_SCOPE_PROJECT:
        named = api_json_get_str(params, "project");
        return named ? named : "default";
    default:
        return ACCESS_HOST;
    }
}

bool access_refuses(struct api_call *call)
{
    const struct api_method *m = api_call_method(call);
    const struct rpc_peer *p = api_call_peer(call);
    struct vm *vm = NULL;
    if (!p->user[0]) {
        return false; /* the connection's role holds everywhere; owners are asked for by call_owns */
    }
    const char *project = project_of(call, &vm);
    if (!project) {
        return false; /* the answer is cut to what the caller may see, or there is no such thing */
    }
    enum api_role has = access_role(call_daemon(call), p, project);
    if (has >= m->role) {
        return false;
    }
    if (vm && has == API_ROLE_NONE) {
        /* As if it were not there. */
        const char *ref = api_json_get_str(api_call_params(call), "vm");
        api_fail(call, API_E_NOT_FOUND, ref ? ref : "job",
                 "'vmctl list' shows the VMs there are",
                 ref ? "there is no VM '%s'" : "there is no such job%s", ref ? ref : "");
        return true;
    }
    bool host = strcmp(project, ACCESS_HOST) == 0;
    api_fail(call, API_E_DENIED, host ? m->name : project,
             "ask an administrator: 'vmctl user set' gives roles",
             "%s needs role %s %s%s, user '%s' has %s there", m->name, api_role_names[m->role],
             host ? "on the host" : "in project ", host ? "" : project, p->user,
             api_role_names[has]);
    return true;
}

/* Whose definition, and where in it. */
struct path_check {
    const struct rpc_peer *p;
    struct vmd *d;
    const char *project;
    struct api_error *x;
};

static int check_path(const struct path_check *k, const char *where, const char *path)
{
    if (!path || path[0] != '/' || images_may_use(k->d, k->project, path) ||
        pools_may_use(k->d, k->project, path)) {
        return 0;
    }
    return api_error_set(
        k->x, API_E_DENIED, path,
        "use an image of the project ('vmctl image list' shows their files) or a volume, or "
        "ask an administrator of the host",
        "%s: user '%s' may only use images of project '%s', not '%s'", where, k->p->user,
        k->project, path);
}

static int check_paths(const struct path_check *k, const struct api_type *t, const void *s,
                       const char *where);

static int check_one(const struct path_check *k, const struct api_member *m, const void *at,
                     const char *where)
{
    if (m->kind == API_STRUCT) {
        return check_paths(k, m->type, at, where);
    }
    if (m->kind != API_STRING || (m->check != API_PATH && m->check != API_IMAGE)) {
        return 0;
    }
    const char *text = *(char *const *)at;
    return m->check == API_IMAGE && text && nbd_addr_is(text) &&
                   !pools_may_use(k->d, k->project, text)
               ? api_error_set(
                     k->x, API_E_DENIED, where,
                     "use an image of the project or a volume, or ask an administrator "
                     "of the host",
                     "%s: user '%s' may not have this host connect to NBD servers", where,
                     k->p->user)
               : check_path(k, where, text);
}

static int check_list(const struct path_check *k, const struct api_member *m, const void *s,
                      const char *where)
{
    size_t n = *(const size_t *)((const char *)s + m->has_offset);
    size_t size = m->kind == API_STRUCT ? m->type->size : sizeof(char *);
    const char *first = *(char *const *)((const char *)s + m->offset);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        AUTO_FREE char *which = xasprintf("%s[%zu]", where, i);
        rc = check_one(k, m, first + i * size, which);
    }
    return rc;
}

/* Every member that the schema says is a path, whatever its name and however deep: a new one is
 * closed without a line here. */
static int check_paths(const struct path_check *k, const struct api_type *t, const void *s,
                       const char *where)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < t->n_members; i++) {
        const struct api_member *m = &t->members[i];
        if (m->kind != API_STRUCT && m->kind != API_STRING) {
            continue;
        }
        AUTO_FREE char *which = xasprintf("%s.%s", where, m->name);
        const char *at = (const char *)s + m->offset;
        if (m->flags & API_F_LIST) {
            rc = check_list(k, m, s, which);
        } else if (m->kind != API_STRUCT) {
            rc = check_one(k, m, at, which);
        } else if (*(void *const *)at) {
            rc = check_one(k, m, *(void *const *)at, which);
        }
    }
    return rc;
}

int access_config(struct api_call *call, const struct api_vm_config *k, enum api_role need,
                  struct api_error *x)
{
    struct vmd *d = call_daemon(call);
    const struct rpc_peer *p = api_call_peer(call);
    if (!p->user[0] || access_role(d, p, ACCESS_HOST) >= API_ROLE_ADMIN) {
        return 0;
    }
    if (access_role(d, p, k->project) < need) {
        return api_error_set(
            x, API_E_DENIED, k->project, "ask an administrator: 'vmctl user set' gives roles",
            "user '%s' is no %s in project '%s'", p->user, api_role_names[need], k->project);
    }
    for (size_t i = 0; i < k->n_nics; i++) {
        if (k->nics[i].type == API_NIC_TYPE_TAP || k->nics[i].type == API_NIC_TYPE_BRIDGE) {
            return api_error_set(x, API_E_DENIED, "config.nics",
                                 "use a card of type user, or ask an administrator of the host",
                                 "user '%s' may not use interfaces of the host", p->user);
        }
    }
    if (k->audio && k->audio->backend != API_AUDIO_BACKEND_FILE) {
        return api_error_set(x, API_E_DENIED, "config.audio",
                             "use the backend file, or ask an administrator of the host",
                             "user '%s' may not use sound devices of the host", p->user);
    }
    if (k->vnc) {
        return api_error_set(x, API_E_DENIED, "config.vnc",
                             "use 'vmctl vnc', or ask an administrator of the host",
                             "user '%s' may not open ports of the host", p->user);
    }
    return check_paths(&(struct path_check){ .p = p, .d = d, .project = k->project, .x = x },
                       &api_type_vm_config, k, "config");
}

int access_file(struct api_call *call, const char *project, const char *where, const char *path,
                struct api_error *x)
{
    struct vmd *d = call_daemon(call);
    const struct rpc_peer *p = api_call_peer(call);
    if (!p->user[0] || access_role(d, p, ACCESS_HOST) >= API_ROLE_ADMIN) {
        return 0;
    }
    return check_path(&(struct path_check){ .p = p, .d = d, .project = project, .x = x }, where,
                      path);
}

/* ---- certificates at the door ---- */

const char *access_judge(void *vmd, struct x509_st *leaf, bool *revoked)
{
    struct vmd *d = vmd;
    char name[64], fingerprint[TLS_FINGERPRINT_HEX];
    tls_fingerprint(leaf, fingerprint);
    struct cert *k = cert_by_fingerprint(d, fingerprint);
    *revoked = k && k->revoked_ms;
    if (*revoked) {
        return "certificate was revoked";
    }
    if (!tls_common_name(leaf, name, sizeof(name))) {
        return "its common name is no user name";
    }
    if (d->opt.tls_builtin && (!k || strcmp(k->user, name) != 0)) {
        return "this daemon did not issue it";
    }
    if (!user_find(d, name)) {
        return "there is no such user";
    }
    return NULL;
}

/* ---- audit ---- */

void access_who(const struct rpc_peer *p, char *out, size_t size)
{
    if (p->user[0]) {
        snprintf(out, size, "%s@%s", p->user, p->address);
    } else {
        snprintf(out, size, "uid %lld", (long long)p->principal);
    }
}

void access_audit(struct vmd *d, const char *who, const char *method, const char *object,
                  const char *outcome)
{
    struct store_tx *tx = store_tx_new(d->store);
    store_tx_audit_put(tx, &(struct store_audit){ .time_ns = time_real_ns(),
                                                  .uid = -1,
                                                  .method = method,
                                                  .object = object,
                                                  .outcome = outcome,
                                                  .who = who });
    store_tx_commit(tx, NULL, NULL);
}
