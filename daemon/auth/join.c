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
#include "daemon/auth/admit.h"
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
    struct admission in;
    struct cert *cert;
    char *pem, *ca;
};

static void refuse(struct vmd *d, struct tunnel *t, const char *address, int code,
                   const char *why)
{
    doors_refuse(d->doors, address, "tls.join", why);
    doors_say_error(t, code, why);
}

static void undo(struct join *j)
{
    if (j->cert) {
        cert_drop(j->cert);
    }
    admit_end(&j->in, false);
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
    api_json_set_str(o, "user", j->in.user->name);
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
    admit_end(&j->in, true);
    snprintf(who, sizeof(who), "%s@%s", j->in.user->name, j->address);
    log_info("access", "%s joined with role %s in project %s", who,
             api_role_names[j->in.token->role], j->in.token->project);
    access_audit(j->d, who, "tls.join", j->in.token->project, "ok");
    doors_recheck(j->d->doors);
    if (t) {
        AUTO_FREE char *text = reply_text(j);
        tunnel_say(t, text, strlen(text));
        tunnel_finish(t);
    }
    join_free(j);
}

static const char *prepare(struct join *j, const char *request, struct err *e)
{
    struct ca_issued made = { 0 };
    if (ca_sign(j->d->opt.tls_dir, request ? request : "", j->in.user->name, JOIN_SECONDS,
                &made, e) < 0) {
        return e->msg;
    }
    j->pem = made.pem;
    j->ca = ca_read(j->d->opt.tls_dir, "ca.pem", e);
    j->cert = j->ca ? cert_add(j->d, &made, j->in.user->name) : NULL;
    if (!j->cert) {
        return j->ca ? "there are too many certificates" : e->msg;
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
    str_copy(j->address, sizeof(j->address), address);
    why = admit_begin(&j->in, d, token, api_json_get_str(o, "user"));
    bool in = !why;
    why = why ? why : prepare(j, api_json_get_str(o, "request"), &e);
    if (why) {
        if (in) {
            undo(j);
        }
        refuse(d, t, address, API_E_INVALID_PARAMS, why);
        join_free(j);
        return;
    }
    struct change *c = change_new(d);
    admit_put(&j->in, c);
    cert_put(j->cert, c);
    change_commit(c, kept, j);
}
