/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts and connections of openssl with the settings vmd insists on, and what is asked of
 * certificates. Owns SSL_CTX objects. No thread of its own; see tls.h.
 */
#include "api-schema/tls/tls.h"

#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

const char *const tls_protos[TLS_N_PROTOS] = { "vmd-rpc/1", "vmd-stream/1", "vmd-join/1" };

struct tls_ctx {
    SSL_CTX *ctx;
    tls_judge_fn *judge;
    void *arg;
};

/* What one connection must remember while it verifies. */
struct verdict {
    const char *why;     /* of the judge; NULL: openssl's own */
    tls_judge_fn *judge; /* outlives the context, which may be replaced meanwhile */
    void *arg;
    const unsigned char *ca_pin; /* client that trusts a fingerprint alone */
    unsigned char pin[32];
};

static int ssl_err(struct err *e, int code, const char *what, const char *path)
{
    unsigned long n = ERR_peek_last_error();
    const char *why = n ? ERR_reason_error_string(n) : NULL;

    ERR_clear_error();
    return err_set(e, code, "%s%s%s%s: %s", what, path ? " '" : "", path ? path : "",
                   path ? "'" : "", why ? why : "openssl does not say why");
}

/* --- verification ------------------------------------------------------------------------- */

static bool pinned_root(struct verdict *v, X509_STORE_CTX *x)
{
    STACK_OF(X509) *chain = X509_STORE_CTX_get0_chain(x);
    int n = chain ? sk_X509_num(chain) : 0;
    unsigned char have[32];
    unsigned int len = 0;

    return n > 0 && X509_digest(sk_X509_value(chain, n - 1), EVP_sha256(), have, &len) == 1 &&
           len == sizeof(have) && CRYPTO_memcmp(have, v->ca_pin, sizeof(have)) == 0;
}

/* A client that has only the CA's fingerprint: the chain must end in that certificate, which was
 * sent along; all else is checked as ever. */
static int verify_pinned(int ok, X509_STORE_CTX *x, struct verdict *v)
{
    int error = X509_STORE_CTX_get_error(x);

    if (!ok && (error == X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN ||
                error == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT)) {
        if (pinned_root(v, x)) {
            X509_STORE_CTX_set_error(x, X509_V_OK);
            return 1;
        }
        v->why = "its CA is not the one that the token names";
    }
    return ok;
}

/* The leaf needs a revocation list of its issuer; authorities above it are looked up where there is one, since many have
 * none for those below them. */
static int verify_lists(int ok, X509_STORE_CTX *x)
{
    if (!ok && X509_STORE_CTX_get_error(x) == X509_V_ERR_UNABLE_TO_GET_CRL &&
        X509_STORE_CTX_get_error_depth(x) > 0) {
        X509_STORE_CTX_set_error(x, X509_V_OK);
        return 1;
    }
    return ok;
}

static int verify(int ok, X509_STORE_CTX *x)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(x, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct verdict *v = SSL_get_app_data(ssl);
    bool revoked = false;

    if (!v) {
        return 0;
    }
    if (v->ca_pin) {
        return verify_pinned(ok, x, v);
    }
    ok = verify_lists(ok, x);
    if (!ok || X509_STORE_CTX_get_error_depth(x) != 0 || !v->judge) {
        return ok;
    }
    v->why = v->judge(v->arg, X509_STORE_CTX_get_current_cert(x), &revoked);
    if (v->why) {
        X509_STORE_CTX_set_error(x, revoked ? X509_V_ERR_CERT_REVOKED
                                            : X509_V_ERR_APPLICATION_VERIFICATION);
        return 0;
    }
    return ok;
}

/* --- contexts ----------------------------------------------------------------------------- */

static int no_password(char *buf, int size, int rwflag, void *arg)
{
    (void)buf;
    (void)size;
    (void)rwflag;
    (void)arg;
    return -1; /* a daemon cannot ask */
}

static int load_own(SSL_CTX *ctx, const struct tls_files *f, struct err *e)
{
    if (SSL_CTX_use_certificate_chain_file(ctx, f->cert) != 1) {
        return ssl_err(e, -EINVAL, "cannot use the certificate", f->cert);
    }
    if (SSL_CTX_use_PrivateKey_file(ctx, f->key, SSL_FILETYPE_PEM) != 1) {
        return ssl_err(e, -EINVAL, "cannot use the private key", f->key);
    }
    if (SSL_CTX_check_private_key(ctx) != 1) {
        return ssl_err(e, -EINVAL, "the certificate is not for the private key", f->key);
    }
    return 0;
}

static int load_trust(SSL_CTX *ctx, const struct tls_files *f, struct err *e)
{
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);

    if (SSL_CTX_load_verify_file(ctx, f->ca) != 1) {
        return ssl_err(e, -EINVAL, "cannot use the CA's certificate", f->ca);
    }
    if (f->crl) {
        X509_LOOKUP *lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file());
        if (!lookup || X509_load_crl_file(lookup, f->crl, X509_FILETYPE_PEM) < 1) {
            return ssl_err(e, -EINVAL, "cannot use the revocation list", f->crl);
        }
        X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    }
    return 0;
}

static struct tls_ctx *new_ctx(const SSL_METHOD *method, const struct tls_files *f,
                               struct err *e)
{
    SSL_CTX *ctx = SSL_CTX_new(method);
    struct tls_ctx *c;

    if (!ctx) {
        ssl_err(e, -ENOMEM, "cannot make a TLS context", NULL);
        return NULL;
    }
    SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
    SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION);
    SSL_CTX_set_security_level(ctx, 2);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(ctx,
                        SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_num_tickets(ctx, 0);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_default_passwd_cb(ctx, no_password);
    SSL_CTX_set_verify_depth(ctx, 4);
    if ((f->cert && load_own(ctx, f, e) < 0) || (f->ca && load_trust(ctx, f, e) < 0)) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    c = xnew(struct tls_ctx);
    c->ctx = ctx;
    return c;
}

/* Takes the first of our protocols that the client offers, in its order. */
static int choose_proto(SSL *ssl, const unsigned char **out, unsigned char *outlen,
                        const unsigned char *in, unsigned int inlen, void *arg)
{
    (void)arg;
    for (unsigned at = 0; at < inlen && at + 1 + in[at] <= inlen; at += 1U + in[at]) {
        for (int p = 0; p < TLS_N_PROTOS; p++) {
            if (strlen(tls_protos[p]) == in[at] &&
                memcmp(tls_protos[p], in + at + 1, in[at]) == 0) {
                *out = in + at + 1;
                *outlen = in[at];
                if (p == TLS_PROTO_JOIN) {
                    SSL_set_verify(ssl, SSL_VERIFY_NONE, NULL);
                }
                return SSL_TLSEXT_ERR_OK;
            }
        }
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

struct tls_ctx *tls_server_new(const struct tls_files *f, tls_judge_fn *judge, void *arg,
                               struct err *e)
{
    struct tls_ctx *c = new_ctx(TLS_server_method(), f, e);

    if (c) {
        STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(f->ca);
        c->judge = judge;
        c->arg = arg;
        SSL_CTX_set_verify(c->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, verify);
        SSL_CTX_set_alpn_select_cb(c->ctx, choose_proto, NULL);
        SSL_CTX_set_client_CA_list(c->ctx, names);
        SSL_CTX_set_max_early_data(c->ctx, 0);
        ERR_clear_error();
    }
    return c;
}

struct tls_ctx *tls_public_new(const struct tls_files *f, struct err *e)
{
    struct tls_files own = { .cert = f->cert, .key = f->key };
    struct tls_ctx *c = new_ctx(TLS_server_method(), &own, e);

    if (c) {
        SSL_CTX_set_verify(c->ctx, SSL_VERIFY_NONE, NULL);
        SSL_CTX_set_max_early_data(c->ctx, 0);
        ERR_clear_error();
    }
    return c;
}

/* Those who offer no protocol speak it too. */
static int choose_http(SSL *ssl, const unsigned char **out, unsigned char *outlen,
                       const unsigned char *in, unsigned int inlen, void *arg)
{
    static const unsigned char http[] = "\x08http/1.1";
    unsigned char *chosen;
    (void)ssl;
    (void)arg;
    if (SSL_select_next_proto(&chosen, outlen, http, sizeof(http) - 1, in, inlen) !=
        OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

struct tls_ctx *tls_web_new(const struct tls_files *f, struct err *e)
{
    struct tls_ctx *c = new_ctx(TLS_server_method(), f, e);

    if (c) {
        SSL_CTX_set_verify(c->ctx, SSL_VERIFY_NONE, NULL);
        SSL_CTX_set_alpn_select_cb(c->ctx, choose_http, NULL);
        SSL_CTX_set_max_early_data(c->ctx, 0);
    }
    return c;
}

struct tls_ctx *tls_client_new(const struct tls_files *f, struct err *e)
{
    struct tls_ctx *c = new_ctx(TLS_client_method(), f, e);

    if (c) {
        SSL_CTX_set_verify(c->ctx, SSL_VERIFY_PEER, verify);
    }
    return c;
}

void tls_ctx_free(struct tls_ctx *c)
{
    if (c) {
        SSL_CTX_free(c->ctx);
        free(c);
    }
}

/* --- connections -------------------------------------------------------------------------- */

static SSL *new_ssl(struct tls_ctx *c, int fd, struct err *e)
{
    SSL *s = SSL_new(c->ctx);
    struct verdict *v;

    if (!s || SSL_set_fd(s, fd) != 1) {
        ssl_err(e, -ENOMEM, "cannot make a TLS connection", NULL);
        SSL_free(s);
        return NULL;
    }
    v = xnew(struct verdict);
    v->judge = c->judge;
    v->arg = c->arg;
    SSL_set_app_data(s, v);
    return s;
}

struct ssl_st *tls_accept_new(struct tls_ctx *c, int fd, struct err *e)
{
    SSL *s = new_ssl(c, fd, e);

    if (s) {
        SSL_set_accept_state(s);
    }
    return s;
}

static bool is_address(const char *name)
{
    struct in6_addr six;
    struct in_addr four;

    return inet_pton(AF_INET, name, &four) == 1 || inet_pton(AF_INET6, name, &six) == 1;
}

struct ssl_st *tls_connect_new(struct tls_ctx *c, int fd, const char *name,
                               enum tls_proto proto, const unsigned char *ca_pin, struct err *e)
{
    SSL *s = new_ssl(c, fd, e);
    unsigned char wire[32];
    size_t n = strlen(tls_protos[proto]);
    bool ok;

    if (!s) {
        return NULL;
    }
    wire[0] = (unsigned char)n;
    memcpy(wire + 1, tls_protos[proto], n);
    SSL_set_alpn_protos(s, wire, (unsigned)n + 1);
    /* Names stand in the alternative names; the common name has meant nothing since RFC 6125. */
    SSL_set_hostflags(s, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS |
                             X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    if (is_address(name)) {
        ok = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(s), name) == 1;
    } else {
        ok = SSL_set1_host(s, name) == 1 && SSL_set_tlsext_host_name(s, name) == 1;
    }
    if (!ok) {
        err_set(e, -EINVAL, "'%s' is no host name", name);
        tls_ssl_free(s);
        return NULL;
    }
    if (ca_pin) {
        struct verdict *v = SSL_get_app_data(s);
        memcpy(v->pin, ca_pin, sizeof(v->pin));
        v->ca_pin = v->pin;
    }
    SSL_set_connect_state(s);
    return s;
}

void tls_ssl_free(struct ssl_st *s)
{
    if (s) {
        free(SSL_get_app_data(s));
        SSL_free(s);
        ERR_clear_error();
    }
}

enum tls_proto tls_proto_of(struct ssl_st *s)
{
    const unsigned char *name;
    unsigned n;

    SSL_get0_alpn_selected(s, &name, &n);
    for (int p = 0; p < TLS_N_PROTOS; p++) {
        if (strlen(tls_protos[p]) == n && memcmp(tls_protos[p], name, n) == 0) {
            return (enum tls_proto)p;
        }
    }
    return TLS_PROTO_RPC;
}

struct x509_st *tls_peer_cert(struct ssl_st *s)
{
    return SSL_get0_peer_certificate(s);
}

const char *tls_still_good(struct tls_ctx *c, struct ssl_st *s)
{
    X509 *leaf = SSL_get0_peer_certificate(s);
    X509_STORE_CTX *x = X509_STORE_CTX_new();
    const char *why = "its certificate cannot be verified";

    if (leaf && x &&
        X509_STORE_CTX_init(x, SSL_CTX_get_cert_store(c->ctx), leaf,
                            SSL_get_peer_cert_chain(s)) == 1) {
        X509_STORE_CTX_set_verify_cb(x, verify_lists);
        X509_STORE_CTX_set_default(x, SSL_is_server(s) ? "ssl_client" : "ssl_server");
        why = X509_verify_cert(x) == 1
                  ? NULL
                  : X509_verify_cert_error_string(X509_STORE_CTX_get_error(x));
    }
    X509_STORE_CTX_free(x);
    ERR_clear_error();
    return why;
}

/* An alert of the other side about our certificate, in words of this one. */
static const char *alert_text(int reason)
{
    switch (reason) {
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
        return "the other side requires a certificate";
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
        return "the other side says that our certificate has expired or is not valid yet";
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
        return "the other side says that our certificate was revoked";
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
        return "the other side does not know the CA of our certificate";
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
    case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
    case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE:
        return "the other side refuses our certificate";
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
    case SSL_R_UNSUPPORTED_PROTOCOL:
        return "the other side does not speak TLS 1.3";
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        return "it has no certificate";
    case SSL_R_UNEXPECTED_EOF_WHILE_READING:
        return "the connection ended in the middle of TLS";
    case SSL_R_NO_APPLICATION_PROTOCOL:
        return "it asks for a protocol that is not spoken here";
    default:
        return NULL;
    }
}

void tls_why(struct ssl_st *s, int ret, int errnum, struct err *e)
{
    int kind = SSL_get_error(s, ret);
    unsigned long n = ERR_peek_last_error();
    struct verdict *v = SSL_get_app_data(s);
    long verified = SSL_get_verify_result(s);
    const char *text = n ? alert_text(ERR_GET_REASON(n)) : NULL;
    bool about_cert = n && ERR_GET_REASON(n) == SSL_R_CERTIFICATE_VERIFY_FAILED;

    ERR_clear_error();
    if (about_cert) {
        err_set(e, -EACCES, "its certificate is refused: %s",
                v && v->why ? v->why : X509_verify_cert_error_string(verified));
    } else if (text) {
        err_set(e, -EACCES, "%s", text);
    } else if (n) {
        const char *why = ERR_reason_error_string(n);
        err_set(e, -EPROTO, "TLS: %s", why ? why : "failed");
    } else if (kind == SSL_ERROR_SYSCALL && errnum && errnum != EPIPE && errnum != ECONNRESET) {
        err_errno(e, errnum, "connection failed");
    } else {
        err_set(e, -EPIPE, "the peer has gone");
    }
}

/* --- certificates ------------------------------------------------------------------------- */

void tls_hex(const unsigned char *p, size_t n, char *out)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[p[i] >> 4];
        out[2 * i + 1] = digits[p[i] & 15];
    }
    out[2 * n] = 0;
}

void tls_fingerprint(struct x509_st *cert, char out[TLS_FINGERPRINT_HEX])
{
    unsigned char d[EVP_MAX_MD_SIZE];
    unsigned int n = 0;

    if (X509_digest(cert, EVP_sha256(), d, &n) != 1 || n != 32) {
        n = 0;
    }
    tls_hex(d, n, out);
}

bool tls_common_name(struct x509_st *cert, char *out, size_t size)
{
    X509_NAME *subject = X509_get_subject_name(cert);
    int at = subject ? X509_NAME_get_index_by_NID(subject, NID_commonName, -1) : -1;
    unsigned char *text = NULL;
    bool ok = false;
    int n;

    if (at < 0 || X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0) {
        return false; /* none, or two: which would count? */
    }
    n = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    if (n > 0 && (size_t)n < size && strlen((char *)text) == (size_t)n) {
        memcpy(out, text, (size_t)n + 1);
        ok = str_is_name(out);
    }
    OPENSSL_free(text);
    return ok;
}

void tls_serial(struct x509_st *cert, char *out, size_t size)
{
    const ASN1_INTEGER *number = X509_get0_serialNumber(cert);
    int n = ASN1_STRING_length(number);

    out[0] = 0;
    if (n > 0 && size >= 2 * (size_t)n + 1) {
        tls_hex(ASN1_STRING_get0_data(number), (size_t)n, out);
    }
}

int64_t tls_not_after(struct x509_st *cert)
{
    struct tm t = { 0 };

    return ASN1_TIME_to_tm(X509_get0_notAfter(cert), &t) == 1 ? (int64_t)timegm(&t) : 0;
}

struct x509_st *tls_cert_parse(const char *pem, size_t n, struct err *e)
{
    BIO *b = n < 1 << 20 ? BIO_new_mem_buf(pem, (int)n) : NULL;
    X509 *cert = b ? PEM_read_bio_X509(b, NULL, no_password, NULL) : NULL;

    BIO_free(b);
    if (!cert) {
        ssl_err(e, -EINVAL, "this is no certificate in PEM", NULL);
    }
    return cert;
}

struct x509_st *tls_cert_read(const char *path, struct err *e)
{
    BIO *b = BIO_new_file(path, "r");
    X509 *cert = b ? PEM_read_bio_X509(b, NULL, no_password, NULL) : NULL;

    BIO_free(b);
    if (!cert) {
        ssl_err(e, -EINVAL, "cannot read a certificate from", path);
    }
    return cert;
}

void tls_cert_free(struct x509_st *cert)
{
    X509_free(cert);
}

static char *bio_text(BIO *b)
{
    char *p;
    long n = BIO_get_mem_data(b, &p);

    return n > 0 ? xstrndup(p, (size_t)n) : NULL;
}

static bool fill_request(X509_REQ *req, EVP_PKEY *key, const char *name)
{
    X509_NAME *subject = X509_REQ_get_subject_name(req);

    return X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)name,
                                      -1, -1, 0) == 1 &&
           X509_REQ_set_pubkey(req, key) == 1 && X509_REQ_sign(req, key, EVP_sha256()) > 0;
}

int tls_make_request(const char *name, char **key_pem, char **request_pem, struct err *e)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509_REQ *req = X509_REQ_new();
    BIO *kb = BIO_new(BIO_s_mem()), *rb = BIO_new(BIO_s_mem());
    int rc = -EIO;

    if (key && req && kb && rb && fill_request(req, key, name) &&
        PEM_write_bio_PrivateKey(kb, key, NULL, NULL, 0, NULL, NULL) == 1 &&
        PEM_write_bio_X509_REQ(rb, req) == 1) {
        *key_pem = bio_text(kb);
        *request_pem = bio_text(rb);
        rc = 0;
    } else {
        ssl_err(e, rc, "cannot make a key and a request for a certificate", NULL);
    }
    BIO_free(kb);
    BIO_free(rb);
    X509_REQ_free(req);
    EVP_PKEY_free(key);
    return rc;
}
