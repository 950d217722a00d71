/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joining: a client without a certificate says {"token", "request", "user"} in one line and gets
 * {"certificate", "ca", "user"}. The token is used up, the user made and the certificate recorded in
 * one transaction, and only when that is durable is the certificate handed out. Loop thread.
 */
#include "api-schema/json/json.h"
#include "api-schema/tls/tls.h"
#include "api-schema/tls/tunnel.h"
#include "daemon/auth/access.h"
#include "daemon/auth/listen.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/run/proc.h"
#include "daemon/store/store.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <stdio.h>
#include <string.h>

#define JOIN_SECONDS (365 * INT64_C(86400))

struct join {
    struct vmd *d;
    char address[64];
    struct token *token;
    struct user *user;
    bool new_user;
    struct user was; /* to undo */
    struct cert *cert;
    char *pem, *ca;
};

static void refuse(struct vmd *d, struct tunnel *t, const char *address, int code,
                   const char *why)
{
    doors_refuse(d->doors, address, "tls.join", why);
    doors_say_error(t, code, why);
}

/* The user this join is for; made when new. */
static struct user *find_user(struct join *j, const char *proposed, const char **why)
{
    const char *name = j->token->user[0] ? j->token->user : proposed;
    if (!name || !str_is_name(name)) {
        *why = "it proposes no user name: letters, digits and . _ + -, at most 63";
        return NULL;
    }
    struct user *u = user_find(j->d, name);
    if (u && !j->token->known) {
        *why = "the user name is taken; choose another";
        return NULL;
    }
    j->new_user = !u;
    u = u ? u : user_add(j->d, name);
    if (!u) {
        *why = "there are too many users";
    }
    return u;
}

static void undo(struct join *j)
{
    j->token->taken = false;
    if (j->cert) {
        cert_drop(j->cert);
    }
    if (j->new_user) {
        user_drop(j->user);
    } else if (j->user) {
        struct list link = j->user->link;
        *j->user = j->was;
        j->user->link = link;
    }
}

static void join_free(struct join *j)
{
    free(j->pem);
    free(j->ca);
    free(j);
}

static char *reply_text(const struct join *j)
{
    AUTO_JSON o = json_object_new_object();
    api_json_set_str(o, "certificate", j->pem);
    api_json_set_str(o, "ca", j->ca);
    api_json_set_str(o, "user", j->user->name);
    return xasprintf("%s\n", api_json_text(o));
}

/* The tunnel may have gone meanwhile; then the certificate is lost, and the token is used. */
static void kept(void *arg, const struct err *e)
{
    struct join *j = arg;
    struct tunnel *t = doors_joining(j->d->doors, j->address);
    char who[160];
    if (e) {
        undo(j);
        if (t) {
            refuse(j->d, t, j->address, API_E_STORE_ERROR, e->msg);
        }
        join_free(j);
        return;
    }
    j->token->taken = false;
    j->token->used = true;
    snprintf(who, sizeof(who), "%s@%s", j->user->name, j->address);
    log_info("access", "%s joined with role %s in project %s", who,
             api_role_names[j->token->role], j->token->project);
    access_audit(j->d, who, "tls.join", j->token->project, "ok");
    doors_recheck(j->d->doors);
    if (t) {
        AUTO_FREE char *text = reply_text(j);
        tunnel_say(t, text, strlen(text));
        tunnel_finish(t);
    }
    join_free(j);
}

static const char *prepare(struct join *j, const char *request, const char *proposed,
                           struct err *e)
{
    const char *why = "";
    struct ca_issued made = { 0 };
    j->user = find_user(j, proposed, &why);
    if (!j->user) {
        return why;
    }
    j->was = *j->user;
    if (ca_sign(j->d->opt.tls_dir, request ? request : "", j->user->name, JOIN_SECONDS, &made,
                e) < 0) {
        return e->msg;
    }
    j->pem = made.pem;
    j->ca = ca_read(j->d->opt.tls_dir, "ca.pem", e);
    j->cert = j->ca ? cert_add(j->d, &made, j->user->name) : NULL;
    if (!j->cert) {
        return j->ca ? "there are too many certificates" : e->msg;
    }
    if (user_grant(j->user, j->token->project,
                   j->token->role > access_grant_of(j->user, j->token->project)
                       ? j->token->role
                       : access_grant_of(j->user, j->token->project)) < 0) {
        return "the user has too many roles";
    }
    return NULL;
}

void doors_join(struct vmd *d, struct tunnel *t, const char *address, const char *line,
                size_t n)
{
    AUTO_JSON o = NULL;
    struct err e = ERR_INIT;
    const char *why = "the line is no JSON object";
    struct token *token = NULL;
    if (!d->opt.tls_builtin) {
        refuse(d, t, address, API_E_UNSUPPORTED,
               "this daemon's certificates come from elsewhere");
        return;
    }
    if (api_json_parse(line, n, &o, &e) == 0 && json_object_is_type(o, json_type_object)) {
        token = token_judge(access_tokens(d), api_json_get_str(o, "token"), &why);
    }
    if (!token) {
        refuse(d, t, address, API_E_DENIED, why);
        return;
    }
    struct join *j = xnew(struct join);
    j->d = d;
    j->token = token;
    str_copy(j->address, sizeof(j->address), address);
    token->taken = true;
    why = prepare(j, api_json_get_str(o, "request"), api_json_get_str(o, "user"), &e);
    if (why) {
        undo(j);
        refuse(d, t, address, API_E_INVALID_PARAMS, why);
        join_free(j);
        return;
    }
    struct change *c = change_new(d);
    struct token as = *token;
    as.used = true;
    str_copy(as.used_by, sizeof(as.used_by), j->user->name);
    str_copy(token->used_by, sizeof(token->used_by), j->user->name);
    token_put(&as, c);
    user_put(j->user, c);
    cert_put(j->cert, c);
    change_commit(c, kept, j);
}
