/* SPDX-License-Identifier: Apache-2.0 */
/* Handlers of cert.*: the built-in authority, issued certificates, reloading. Loop thread. */
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
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <unistd.h>

/* ---- the daemon's own ---- */

static struct json_object *addresses(struct vmd *d)
{
    struct json_object *list = json_object_new_array();
    for (unsigned i = 0;; i++) {
        AUTO_FREE char *text = doors_address(d->doors, i);
        if (!text) {
            return list;
        }
        json_object_array_add(list, json_object_new_string(text));
    }
}

static void add_name(struct json_object *list, const GENERAL_NAME *g)
{
    char text[64];
    if (g->type == GEN_DNS) {
        json_object_array_add(
            list, json_object_new_string_len((const char *)ASN1_STRING_get0_data(g->d.dNSName),
                                             ASN1_STRING_length(g->d.dNSName)));
    } else if (g->type == GEN_IPADD) {
        const unsigned char *p = ASN1_STRING_get0_data(g->d.iPAddress);
        if (ASN1_STRING_length(g->d.iPAddress) == 4) {
            snprintf(text, sizeof(text), "%u.%u.%u.%u", p[0], p[1], p[2], p[3]);
        } else {
            tls_hex(p, 16, text);
        }
        json_object_array_add(list, json_object_new_string(text));
    }
}

/* Names and expiry of the daemon's certificate into o; nothing when there is none. */
static void describe_server(struct vmd *d, struct json_object *o)
{
    AUTO_FREE char *path = doors_file(d, "server.pem");
    struct json_object *list = json_object_new_array();
    struct x509_st *cert = path ? tls_cert_read(path, NULL) : NULL;
    api_json_set(o, "names", list);
    if (!cert) {
        return;
    }
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; names && i < sk_GENERAL_NAME_num(names) && i < 32; i++) {
        add_name(list, sk_GENERAL_NAME_value(names, i));
    }
    GENERAL_NAMES_free(names);
    api_json_set_int(o, "expires_ms", tls_not_after(cert) * 1000);
    tls_cert_free(cert);
}

static void describe_ca(struct vmd *d, struct json_object *o)
{
    AUTO_FREE char *path = doors_file(d, "ca.pem");
    struct x509_st *cert = path ? tls_cert_read(path, NULL) : NULL;
    if (cert) {
        char fingerprint[TLS_FINGERPRINT_HEX];
        tls_fingerprint(cert, fingerprint);
        api_json_set_str(o, "fingerprint", fingerprint);
        tls_cert_free(cert);
    }
}

void api_handle_cert_info(struct api_call *call, struct api_cert_info_in *in)
{
    struct vmd *d = call_daemon(call);
    struct json_object *o = json_object_new_object();
    (void)in;
    api_json_set(o, "listen", addresses(d));
    api_json_set_bool(o, "builtin", d->opt.tls_builtin);
    describe_ca(d, o);
    describe_server(d, o);
    api_json_set_int(o, "connections", doors_count(d->doors, NULL, NULL));
    api_json_set_int(o, "refused", doors_refused(d->doors));
    api_reply_json(call, o);
}

void api_handle_cert_init(struct api_call *call, struct api_cert_init_in *in)
{
    struct vmd *d = call_daemon(call);
    char host[254] = "localhost", *own[1] = { host };
    char **names = in->n_names ? in->names : own;
    size_t n = in->n_names ? in->n_names : 1;
    struct err e = ERR_INIT;
    if (!d->opt.tls_builtin) {
        api_fail(call, API_E_UNSUPPORTED, "tls", "start vmd without --tls-cert",
                 "this daemon's certificates come from elsewhere");
        return;
    }
    gethostname(host, sizeof(host) - 1);
    int rc = ca_there(d->opt.tls_dir) ? ca_renew_server(d->opt.tls_dir, names, n, &e)
                                      : ca_create(d->opt.tls_dir, names, n, &e);
    rc = rc == 0 ? doors_load(d->doors, NULL, &e) : rc;
    if (rc < 0) {
        api_fail_err(call, rc == -EINVAL ? API_E_INVALID_PARAMS : API_E_BAD_STATE,
                     d->opt.tls_dir, "check the names, and that vmd may write this folder", &e);
        return;
    }
    struct json_object *o = json_object_new_object();
    describe_ca(d, o);
    describe_server(d, o);
    json_object_object_del(o, "expires_ms");
    api_json_set(o, "listen", addresses(d));
    call_finish(d, call, "server.pem", o);
}

void api_handle_cert_reload(struct api_call *call, struct api_cert_reload_in *in)
{
    struct vmd *d = call_daemon(call);
    struct err e = ERR_INIT;
    unsigned dropped = 0;
    (void)in;
    if (doors_load(d->doors, &dropped, &e) < 0) {
        log_error("access", "certificates were not read again: %s", e.msg);
        api_fail_err(call, API_E_FILE_ERROR, "tls",
                     "mend the file and call again; until then the former ones are in use", &e);
        return;
    }
    struct json_object *o = json_object_new_object();
    describe_server(d, o);
    json_object_object_del(o, "names");
    api_json_set_int(o, "dropped", dropped);
    call_finish(d, call, "tls", o);
}

/* ---- issuing ---- */

struct issue {
    struct vmd *d;
    struct user *user; /* made for it; NULL: was there */
    struct cert *cert;
};

static void issue_kept(void *arg, const struct err *e)
{
    struct issue *k = arg;
    if (e) {
        cert_drop(k->cert);
        if (k->user) {
            user_drop(k->user);
        }
    }
    free(k);
}

static struct json_object *issued_json(const struct cert *k, const char *pem, const char *ca)
{
    struct json_object *o = json_object_new_object();
    api_json_set_str(o, "serial", k->serial);
    api_json_set_str(o, "fingerprint", k->fingerprint);
    api_json_set_int(o, "expires_ms", k->expires_ms);
    api_json_set_str(o, "certificate", pem);
    api_json_set_str(o, "ca", ca);
    return o;
}

/* Signs and answers. */
static void issue(struct api_call *call, const char *user, const char *request, int64_t days)
{
    struct vmd *d = call_daemon(call);
    const char *dir = d->opt.tls_dir;
    struct ca_issued made = { 0 };
    struct err e = ERR_INIT;
    if (!d->opt.tls_builtin || !ca_there(dir)) {
        api_fail(call, API_E_BAD_STATE, "tls", "'vmctl host init-tls' makes one",
                 "this daemon has no certificate authority of its own");
        return;
    }
    int rc = ca_sign(dir, request, user, days * 86400, &made, &e);
    AUTO_FREE char *pem = made.pem;
    AUTO_FREE char *ca = rc == 0 ? ca_read(dir, "ca.pem", &e) : NULL;
    if (!ca) {
        api_fail_err(call, rc == -EINVAL ? API_E_INVALID_PARAMS : API_E_INTERNAL_ERROR,
                     "request", "make a request with 'vmctl cert issue' or 'openssl req -new'",
                     &e);
        return;
    }
    struct issue *k = xnew(struct issue);
    k->d = d;
    k->user = user_find(d, user) ? NULL : user_add(d, user);
    k->cert = user_find(d, user) ? cert_add(d, &made, user) : NULL;
    if (!k->cert) {
        if (k->user) {
            user_drop(k->user);
        }
        free(k);
        api_fail(call, API_E_OVERLOAD, user, "delete users that are not needed",
                 "there are too many users or certificates");
        return;
    }
    struct change *c = change_new(d);
    cert_put(k->cert, c);
    if (k->user) {
        user_put(k->user, c);
    }
    AUTO_FREE char *object = xasprintf("%s: %s", user, k->cert->serial);
    call_commit(d, call, c, object, issued_json(k->cert, pem, ca), issue_kept, k);
}

void api_handle_cert_issue(struct api_call *call, struct api_cert_issue_in *in)
{
    issue(call, in->user, in->request, in->days);
}

void api_handle_cert_renew(struct api_call *call, struct api_cert_renew_in *in)
{
    const struct rpc_peer *p = api_call_peer(call);
    if (!p->user[0]) {
        api_fail(call, API_E_UNSUPPORTED, NULL, "'vmctl cert issue' makes one for a user",
                 "a certificate is renewed over TLS, by the user who has it");
        return;
    }
    issue(call, p->user, in->request, 365);
}

/* ---- looking and revoking ---- */

static struct json_object *cert_json(struct vmd *d, const struct cert *k)
{
    struct json_object *o = json_object_new_object();
    api_json_set_str(o, "serial", k->serial);
    api_json_set_str(o, "user", k->user);
    api_json_set_str(o, "fingerprint", k->fingerprint);
    api_json_set_str(o, "state", cert_state(k));
    api_json_set_int(o, "created_ms", k->created_ms);
    api_json_set_int(o, "expires_ms", k->expires_ms);
    if (k->revoked_ms) {
        api_json_set_int(o, "revoked_ms", k->revoked_ms);
    }
    if (k->reason[0]) {
        api_json_set_str(o, "reason", k->reason);
    }
    api_json_set_int(o, "connections", doors_count(d->doors, NULL, k->fingerprint));
    return o;
}

void api_handle_cert_list(struct api_call *call, struct api_cert_list_in *in)
{
    struct vmd *d = call_daemon(call);
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();
    list_for_each (n, access_certs(d)) {
        const struct cert *k = list_entry(n, struct cert, link);
        if ((!in->user || strcmp(k->user, in->user) == 0) &&
            (in->all || strcmp(cert_state(k), "valid") == 0)) {
            json_object_array_add(list, cert_json(d, k));
        }
    }
    api_json_set(o, "certs", list);
    api_reply_json(call, o);
}

static struct cert *call_cert(struct api_call *call, const char *text)
{
    struct cert *k = cert_find(call_daemon(call), text);
    if (!k) {
        api_fail(call, API_E_NOT_FOUND, text,
                 "'vmctl cert list --all' shows the certificates there are",
                 "there is no certificate '%s', or more than one", text);
    }
    return k;
}

void api_handle_cert_get(struct api_call *call, struct api_cert_get_in *in)
{
    struct cert *k = call_cert(call, in->serial);
    if (k) {
        api_reply_json(call, cert_json(call_daemon(call), k));
    }
}

/* For other programs; vmd itself goes by its store. */
static void write_crl(struct vmd *d)
{
    struct err e = ERR_INIT;
    size_t n = 0;
    struct ca_revoked *list = xnew_n(struct ca_revoked, ACCESS_CERTS);
    list_for_each (it, access_certs(d)) {
        const struct cert *k = list_entry(it, struct cert, link);
        if (k->revoked_ms) {
            list[n++] = (struct ca_revoked){ .serial = k->serial,
                                             .when = k->revoked_ms / 1000 };
        }
    }
    if (d->opt.tls_builtin && ca_write_crl(d->opt.tls_dir, list, n, &e) < 0) {
        log_warn("access", "the revocation list for other programs is not up to date: %s",
                 e.msg);
    }
    free(list);
}

static void revoke_kept(void *arg, const struct err *e)
{
    struct vmd *d = arg;
    if (!e) {
        write_crl(d);
    }
}

void api_handle_cert_revoke(struct api_call *call, struct api_cert_revoke_in *in)
{
    struct vmd *d = call_daemon(call);
    struct cert *k = call_cert(call, in->serial);
    if (!k) {
        return;
    }
    if (k->revoked_ms) {
        api_fail(call, API_E_BAD_STATE, k->serial, NULL, "certificate %s is revoked already",
                 k->serial);
        return;
    }
    /* In memory first: should the store fail, the certificate stays out until the daemon starts
     * again, and the caller learns that it must be revoked anew. */
    k->revoked_ms = time_real_ns() / 1000000;
    str_copy(k->reason, sizeof(k->reason), in->reason ? in->reason : "");
    struct change *c = change_new(d);
    cert_put(k, c);
    struct json_object *o = cert_json(d, k);
    AUTO_FREE char *object = xasprintf("%s of %s", k->serial, k->user);
    call_commit(d, call, c, object, o, revoke_kept, d);
    doors_recheck(d->doors);
}
