/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of user.*, token.* and audit.*. A change is made in memory at once and undone when the store
 * cannot keep it. Loop thread.
 */
#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "api-schema/tls/tls.h"
#include "daemon/auth/access.h"
#include "daemon/auth/listen.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/run/proc.h"
#include "daemon/store/store.h"
#include "engine/base/list.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>
#include <sys/random.h>

/* ---- users ---- */

static struct json_object *grants_json(const struct grant *g, unsigned n)
{
    struct json_object *list = json_object_new_array();
    for (unsigned i = 0; i < n; i++) {
        struct json_object *o = json_object_new_object();
        api_json_set_str(o, "project", g[i].project);
        api_json_set_str(o, "role", api_role_names[g[i].role]);
        json_object_array_add(list, o);
    }
    return list;
}

static struct json_object *user_json(struct vmd *d, const struct user *u)
{
    struct json_object *o = json_object_new_object();
    int certs = 0;
    list_for_each (n, access_certs(d)) {
        const struct cert *k = list_entry(n, struct cert, link);
        certs += strcmp(k->user, u->name) == 0 && strcmp(cert_state(k), "valid") == 0;
    }
    api_json_set_str(o, "user", u->name);
    api_json_set(o, "grants", grants_json(u->grants, u->n_grants));
    api_json_set_int(o, "certs", certs);
    api_json_set_int(o, "connections", doors_count(d->doors, u->name, NULL));
    api_json_set_int(o, "created_ms", u->created_ms);
    return o;
}

void api_handle_user_whoami(struct api_call *call, struct api_user_whoami_in *in)
{
    struct vmd *d = call_daemon(call);
    const struct rpc_peer *p = api_call_peer(call);
    struct json_object *o = json_object_new_object();
    struct grant local = { .project = ACCESS_HOST, .role = api_call_role(call) };
    struct user *u = p->user[0] ? user_find(d, p->user) : NULL;
    char who[160];
    (void)in;
    access_who(p, who, sizeof(who));
    api_json_set_str(o, "user", p->user[0] ? p->user : who);
    if (p->user[0]) {
        api_json_set_str(o, "address", p->address);
        api_json_set_str(o, "cert", p->cert);
    }
    api_json_set(o, "grants",
                 p->user[0] ? grants_json(u ? u->grants : NULL, u ? u->n_grants : 0)
                            : grants_json(&local, 1));
    api_reply_json(call, o);
}

void api_handle_user_list(struct api_call *call, struct api_user_list_in *in)
{
    struct vmd *d = call_daemon(call);
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();
    (void)in;
    list_for_each (n, access_users(d)) {
        json_object_array_add(list, user_json(d, list_entry(n, struct user, link)));
    }
    api_json_set(o, "users", list);
    api_reply_json(call, o);
}

struct user_change {
    struct vmd *d;
    struct user *user, was;
    bool made;
};

static void user_kept(void *arg, const struct err *e)
{
    struct user_change *k = arg;
    if (e && k->made) {
        user_drop(k->user);
    } else if (e) {
        struct list link = k->user->link;
        *k->user = k->was;
        k->user->link = link;
    }
    doors_recheck(k->d->doors);
    free(k);
}

/* Finds or makes a user, for a change that ends in user_kept(). NULL after the call was answered. */
static struct user_change *change_user(struct api_call *call, const char *name)
{
    struct vmd *d = call_daemon(call);
    struct user_change *k = xnew(struct user_change);
    k->d = d;
    k->user = user_find(d, name);
    k->made = !k->user;
    k->user = k->user ? k->user : user_add(d, name);
    if (!k->user) {
        api_fail(call, API_E_OVERLOAD, name, "delete users that are not needed",
                 "%d users are defined, more are not possible", ACCESS_USERS);
        free(k);
        return NULL;
    }
    k->was = *k->user;
    return k;
}

void api_handle_user_set(struct api_call *call, struct api_user_set_in *in)
{
    struct vmd *d = call_daemon(call);
    struct user_change *k = change_user(call, in->user);
    if (!k) {
        return;
    }
    /* The schema's roles are those of the code, in the same order. */
    if (user_grant(k->user, in->project, (enum api_role)in->role) < 0) {
        api_fail(call, API_E_OVERLOAD, in->user, "give one role in project * instead",
                 "user '%s' has %d roles, more are not possible", in->user, ACCESS_GRANTS);
        free(k);
        return;
    }
    struct change *c = change_new(d);
    user_put(k->user, c);
    AUTO_FREE char *object = xasprintf("%s: %s in %s", in->user, api_grant_role_name(in->role),
                                       in->project);
    call_commit(d, call, c, object, user_json(d, k->user), user_kept, k);
}

/* A join that is being written holds on to its user. */
static bool is_joining(struct vmd *d, const char *name)
{
    list_for_each (n, access_tokens(d)) {
        const struct token *t = list_entry(n, struct token, link);
        if (t->taken && strcmp(t->used_by, name) == 0) {
            return true;
        }
    }
    return false;
}

void api_handle_user_delete(struct api_call *call, struct api_user_delete_in *in)
{
    struct vmd *d = call_daemon(call);
    struct user *u = user_find(d, in->user);
    if (!u) {
        api_fail(call, API_E_NOT_FOUND, in->user, "'vmctl user list' shows the users there are",
                 "there is no user '%s'", in->user);
        return;
    }
    if (is_joining(d, in->user)) {
        api_fail(call, API_E_BUSY, in->user, "call again", "user '%s' is just joining",
                 in->user);
        return;
    }
    struct change *c = change_new(d);
    store_tx_object_del(change_tx(c), "user", "", in->user);
    list_for_each (n, access_certs(d)) {
        struct cert *x = list_entry(n, struct cert, link);
        if (strcmp(x->user, in->user) == 0 && !x->revoked_ms) {
            x->revoked_ms = time_real_ns() / 1000000;
            str_copy(x->reason, sizeof(x->reason), "the user was deleted");
            cert_put(x, c);
        }
    }
    /* Out at once: if the store cannot keep it, the user is gone until the daemon starts again, which
     * is the safe side. */
    user_drop(u);
    call_commit(d, call, c, in->user, json_object_new_object(), NULL, NULL);
    doors_recheck(d->doors);
}

/* ---- tokens ---- */

static struct json_object *token_json(const struct token *t)
{
    struct json_object *o = json_object_new_object();
    char id[9];
    snprintf(id, sizeof(id), "%.8s", t->hash);
    api_json_set_str(o, "id", id);
    if (t->user[0]) {
        api_json_set_str(o, "user", t->user);
    }
    api_json_set_str(o, "project", t->project);
    api_json_set_str(o, "role", api_role_names[t->role]);
    api_json_set_str(o, "state", token_state(t));
    api_json_set_int(o, "expires_ms", t->expires_ms);
    if (t->used_by[0]) {
        api_json_set_str(o, "used_by", t->used_by);
    }
    return o;
}

/* Answers the call and returns false when no such token can be made. */
static bool token_possible(struct api_call *call, const struct api_token_create_in *in)
{
    struct vmd *d = call_daemon(call);
    unsigned n_tokens = 0;
    list_for_each (n, access_tokens(d)) {
        n_tokens++;
    }
    if (n_tokens >= ACCESS_TOKENS) {
        api_fail(call, API_E_OVERLOAD, NULL, "wait; tokens are forgotten after a day",
                 "%d tokens were made in a day, more are not possible", ACCESS_TOKENS);
    } else if (!d->opt.tls_builtin || !ca_there(d->opt.tls_dir)) {
        api_fail(call, API_E_BAD_STATE, "tls",
                 d->opt.tls_builtin ? "'vmctl host init-tls' makes a certificate authority"
                                    : "issue certificates with the authority you use",
                 "this daemon has no certificate authority of its own");
    } else if (in->role == API_GRANT_ROLE_NONE) {
        api_fail(call, API_E_INVALID_PARAMS, "role", NULL, "role: a token gives a role");
    } else if (in->user && user_find(d, in->user) &&
               access_role(d, api_call_peer(call), ACCESS_HOST) < API_ROLE_ADMIN) {
        api_fail(call, API_E_EXISTS, in->user, "choose another name",
                 "user '%s' exists; only an administrator of the host gives it one more key",
                 in->user);
    } else {
        return true;
    }
    return false;
}

static void token_kept(void *arg, const struct err *e)
{
    struct token *t = arg;
    if (e) {
        list_remove(&t->link);
        free(t);
    }
}

void api_handle_token_create(struct api_call *call, struct api_token_create_in *in)
{
    struct vmd *d = call_daemon(call);
    unsigned char secret[TLS_TOKEN_SECRET], ca[32], digest[32];
    char text[TLS_TOKEN_MAX], id[9];
    struct err e = ERR_INIT;
    if (!token_possible(call, in)) {
        return;
    }
    if (ca_fingerprint(d->opt.tls_dir, ca, &e) < 0 ||
        getrandom(secret, sizeof(secret), 0) != (ssize_t)sizeof(secret)) {
        api_fail(call, API_E_INTERNAL_ERROR, "tls", NULL, "cannot make a token: %s", e.msg);
        return;
    }
    struct token *t = xnew(struct token);
    tls_sha256(secret, sizeof(secret), digest);
    tls_hex(digest, sizeof(digest), t->hash);
    tls_token_print(secret, ca, text);
    OPENSSL_cleanse(secret, sizeof(secret));
    str_copy(t->user, sizeof(t->user), in->user ? in->user : "");
    t->known = in->user && user_find(d, in->user);
    str_copy(t->project, sizeof(t->project), in->project);
    t->role = (enum api_role)in->role;
    t->expires_ms = time_real_ns() / 1000000 + in->minutes * 60000;
    t->mono_end_ns = time_mono_ns() + in->minutes * INT64_C(60000000000);
    list_append(access_tokens(d), &t->link);
    struct change *c = change_new(d);
    tokens_trim(d, c);
    token_put(t, c);
    snprintf(id, sizeof(id), "%.8s", t->hash);
    struct json_object *o = json_object_new_object();
    api_json_set_str(o, "token", text);
    api_json_set_str(o, "id", id);
    api_json_set_int(o, "expires_ms", t->expires_ms);
    AUTO_FREE char *object = xasprintf("%s: %s in %s", id, api_grant_role_name(in->role),
                                       in->project);
    call_commit(d, call, c, object, o, token_kept, t);
}

void api_handle_token_list(struct api_call *call, struct api_token_list_in *in)
{
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();
    (void)in;
    list_for_each (n, access_tokens(call_daemon(call))) {
        json_object_array_add(list, token_json(list_entry(n, struct token, link)));
    }
    api_json_set(o, "tokens", list);
    api_reply_json(call, o);
}

void api_handle_token_delete(struct api_call *call, struct api_token_delete_in *in)
{
    struct vmd *d = call_daemon(call);
    list_for_each (n, access_tokens(d)) {
        struct token *t = list_entry(n, struct token, link);
        if (strlen(in->id) < 8 || strncmp(t->hash, in->id, strlen(in->id)) != 0 || t->taken) {
            continue;
        }
        struct change *c = change_new(d);
        store_tx_object_del(change_tx(c), "token", "", t->hash);
        list_remove(&t->link);
        free(t);
        call_commit(d, call, c, in->id, json_object_new_object(), NULL, NULL);
        return;
    }
    api_fail(call, API_E_NOT_FOUND, in->id, "'vmctl token list' shows the tokens there are",
             "there is no token '%s'", in->id);
}

/* ---- audit ---- */

static void add_entry(void *arg, const struct store_audit *row)
{
    struct json_object *o = json_object_new_object();
    AUTO_FREE char *uid = xasprintf("uid %lld", (long long)row->uid);
    api_json_set_int(o, "id", row->id);
    api_json_set_int(o, "time_ms", row->time_ns / 1000000);
    api_json_set_str(o, "who", row->who[0] ? row->who : uid);
    if (row->pid > 0) {
        api_json_set_int(o, "pid", row->pid);
    }
    api_json_set_str(o, "method", row->method);
    if (row->object[0]) {
        api_json_set_str(o, "object", row->object);
    }
    api_json_set_str(o, "outcome", row->outcome);
    json_object_array_add(arg, o);
}

void api_handle_audit_list(struct api_call *call, struct api_audit_list_in *in)
{
    struct vmd *d = call_daemon(call);
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();
    struct err e = ERR_INIT;
    api_json_set(o, "entries", list);
    if (store_audit_page(d->store, in->before, (unsigned)in->limit,
                         in->method ? in->method : "", in->who ? in->who : "", add_entry, list,
                         &e) < 0) {
        json_object_put(o);
        api_fail_err(call, API_E_STORE_ERROR, d->opt.store, NULL, &e);
        return;
    }
    api_reply_json(call, o);
}
