/* SPDX-License-Identifier: Apache-2.0 */
/* Keys, certificates and the revocation list, by openssl. Owns nothing between calls. Loop thread. */
#include "daemon/auth/ca.h"

#include "api-schema/tls/tls.h"
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DAY INT64_C(86400)
#define CA_SECONDS (3650 * DAY)
#define SERVER_SECONDS (825 * DAY)
#define CRL_SECONDS (3650 * DAY)
#define SKEW INT64_C(300) /* clocks differ */

static int fail(struct err *e, const char *doing)
{
    unsigned long n = ERR_peek_last_error();
    const char *why = n ? ERR_reason_error_string(n) : NULL;
    ERR_clear_error();
    return err_set(e, -EIO, "%s: %s", doing, why ? why : "openssl does not say why");
}

/* ---- files ---- */

static int write_bio(const char *dir, const char *name, BIO *b, unsigned mode, struct err *e)
{
    AUTO_FREE char *path = xasprintf("%s/%s", dir, name);
    char *p;
    long n = BIO_get_mem_data(b, &p);
    return file_replace(path, p, (size_t)n, mode, e);
}

char *ca_read(const char *dir, const char *name, struct err *e)
{
    AUTO_FREE char *path = xasprintf("%s/%s", dir, name);
    AUTO_BUF b = BUF_INIT;
    return file_slurp(path, &b, 1 << 20, e) < 0 ? NULL : buf_take(&b);
}

bool ca_there(const char *dir)
{
    AUTO_FREE char *path = xasprintf("%s/ca.key", dir);
    return access(path, R_OK) == 0;
}

static X509 *read_cert(const char *dir, struct err *e)
{
    AUTO_FREE char *path = xasprintf("%s/ca.pem", dir);
    return tls_cert_read(path, e);
}

static EVP_PKEY *read_key(const char *dir, struct err *e)
{
    AUTO_FREE char *text = ca_read(dir, "ca.key", e);
    if (!text) {
        return NULL;
    }
    BIO *b = BIO_new_mem_buf(text, -1);
    EVP_PKEY *key = b ? PEM_read_bio_PrivateKey(b, NULL, NULL, (void *)"") : NULL;
    BIO_free(b);
    OPENSSL_cleanse(text, strlen(text));
    if (!key) {
        fail(e, "cannot use the key of the certificate authority");
    }
    return key;
}

static int write_key(const char *dir, const char *name, EVP_PKEY *key, struct err *e)
{
    BIO *b = BIO_new(BIO_s_secmem());
    int rc = -EIO;
    if (b && PEM_write_bio_PrivateKey(b, key, NULL, NULL, 0, NULL, NULL) == 1) {
        rc = write_bio(dir, name, b, 0600, e);
    } else {
        fail(e, "cannot write a key");
    }
    BIO_free(b);
    return rc;
}

/* `more`: appended, NULL: nothing. */
static int write_certs(const char *dir, const char *name, X509 *cert, X509 *more, struct err *e)
{
    BIO *b = BIO_new(BIO_s_mem());
    int rc = -EIO;
    if (b && PEM_write_bio_X509(b, cert) == 1 && (!more || PEM_write_bio_X509(b, more) == 1)) {
        rc = write_bio(dir, name, b, 0644, e);
    } else {
        fail(e, "cannot write a certificate");
    }
    BIO_free(b);
    return rc;
}

/* ---- certificates ---- */

static bool set_serial(X509 *cert)
{
    unsigned char raw[16];
    BIGNUM *n = NULL;
    bool ok = RAND_bytes(raw, sizeof(raw)) == 1;
    raw[0] = (raw[0] & 0x3f) | 0x40; /* positive, always as long */
    ok = ok && (n = BN_bin2bn(raw, sizeof(raw), NULL)) &&
         BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert));
    BN_free(n);
    return ok;
}

static bool add_ext(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *x = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    bool ok = x && X509_add_ext(cert, x, -1) == 1;
    X509_EXTENSION_free(x);
    return ok;
}

/* A certificate with everything but its extensions and signature. issuer NULL: its own. */
static X509 *new_cert(EVP_PKEY *key, const char *name, X509 *issuer, int64_t seconds)
{
    X509 *cert = X509_new();
    X509_NAME *subject = cert ? X509_get_subject_name(cert) : NULL;
    if (cert && X509_set_version(cert, X509_VERSION_3) == 1 && set_serial(cert) &&
        X509_gmtime_adj(X509_getm_notBefore(cert), -SKEW) &&
        X509_gmtime_adj(X509_getm_notAfter(cert), seconds) &&
        X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)name,
                                   -1, -1, 0) == 1 &&
        X509_set_issuer_name(cert, issuer ? X509_get_subject_name(issuer) : subject) == 1 &&
        X509_set_pubkey(cert, key) == 1) {
        return cert;
    }
    X509_free(cert);
    return NULL;
}

static X509 *make_root(EVP_PKEY *key)
{
    char host[128] = "", name[64];
    gethostname(host, sizeof(host) - 1);
    snprintf(name, sizeof(name), "vmd CA of %.48s", host);
    X509 *cert = new_cert(key, name, NULL, CA_SECONDS);
    if (cert && add_ext(cert, cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
        add_ext(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign") &&
        add_ext(cert, cert, NID_subject_key_identifier, "hash") &&
        X509_sign(cert, key, EVP_sha256()) > 0) {
        return cert;
    }
    X509_free(cert);
    return NULL;
}

static bool add_leaf_exts(X509 *cert, X509 *root, const char *usage)
{
    return add_ext(cert, root, NID_basic_constraints, "critical,CA:FALSE") &&
           /* libvirt's clients take no certificate without the second, whatever its key */
           add_ext(cert, root, NID_key_usage, "critical,digitalSignature,keyEncipherment") &&
           add_ext(cert, root, NID_ext_key_usage, usage) &&
           add_ext(cert, root, NID_subject_key_identifier, "hash") &&
           add_ext(cert, root, NID_authority_key_identifier, "keyid:always");
}

static int check_name(const char *name, bool *address, struct err *e)
{
    struct in6_addr six;
    struct in_addr four;
    *address = inet_pton(AF_INET, name, &four) == 1 || inet_pton(AF_INET6, name, &six) == 1;
    if (!*address &&
        (!name[0] || strlen(name) > 253 ||
         strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                      "-._*") != strlen(name))) {
        return err_set(e, -EINVAL, "'%s' is neither a host name nor an address", name);
    }
    return 0;
}

/* "DNS:a,IP:1.2.3.4"; the names were checked for commas by their letters. */
static int alt_names(char *const *names, size_t n, struct buf *out, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        bool address;
        int rc = check_name(names[i], &address, e);
        if (rc < 0) {
            return rc;
        }
        buf_printf(out, "%s%s:%s", i ? "," : "", address ? "IP" : "DNS", names[i]);
    }
    return 0;
}

static int make_server(const char *dir, X509 *root, EVP_PKEY *root_key, char *const *names,
                       size_t n, struct err *e)
{
    AUTO_BUF alt = BUF_INIT;
    int rc = alt_names(names, n, &alt, e);
    if (rc < 0) {
        return rc;
    }
    EVP_PKEY *key = EVP_EC_gen("P-256");
    char common[64];
    snprintf(common, sizeof(common), "%.63s", names[0]);
    X509 *cert = key ? new_cert(key, common, root, SERVER_SECONDS) : NULL;
    if (cert && add_leaf_exts(cert, root, "serverAuth") &&
        add_ext(cert, root, NID_subject_alt_name, alt.data) &&
        X509_sign(cert, root_key, EVP_sha256()) > 0) {
        rc = write_key(dir, "server.key", key, e);
        rc = rc == 0 ? write_certs(dir, "server.pem", cert, root, e) : rc;
    } else {
        rc = fail(e, "cannot make the daemon's certificate");
    }
    X509_free(cert);
    EVP_PKEY_free(key);
    return rc;
}

int ca_create(const char *dir, char *const *names, size_t n, struct err *e)
{
    AUTO_BUF alt = BUF_INIT;
    int rc = alt_names(names, n, &alt, e);
    if (rc < 0) {
        return rc;
    }
    if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
        return err_errno(e, errno, "cannot make folder '%s'", dir);
    }
    if (ca_there(dir)) {
        return err_set(e, -EEXIST, "there is a certificate authority in '%s'", dir);
    }
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *root = key ? make_root(key) : NULL;
    if (root) {
        /* The key last: with it there, all is. */
        rc = write_certs(dir, "ca.pem", root, NULL, e);
        rc = rc == 0 ? make_server(dir, root, key, names, n, e) : rc;
        rc = rc == 0 ? write_key(dir, "ca.key", key, e) : rc;
    } else {
        rc = fail(e, "cannot make the certificate authority");
    }
    X509_free(root);
    EVP_PKEY_free(key);
    return rc == 0 ? ca_write_crl(dir, NULL, 0, e) : rc;
}

int ca_renew_server(const char *dir, char *const *names, size_t n, struct err *e)
{
    X509 *root = read_cert(dir, e);
    EVP_PKEY *key = root ? read_key(dir, e) : NULL;
    int rc = key ? make_server(dir, root, key, names, n, e) : -ENOENT;
    EVP_PKEY_free(key);
    X509_free(root);
    return rc;
}

int ca_fingerprint(const char *dir, unsigned char out[32], struct err *e)
{
    X509 *root = read_cert(dir, e);
    unsigned int n = 0;
    int rc = root && X509_digest(root, EVP_sha256(), out, &n) == 1 && n == 32 ? 0 : -ENOENT;
    X509_free(root);
    return rc;
}

/* ---- signing ---- */

static EVP_PKEY *request_key(const char *text, struct err *e)
{
    size_t n = strlen(text);
    BIO *b = n <= 16384 ? BIO_new_mem_buf(text, (int)n) : NULL;
    X509_REQ *req = b ? PEM_read_bio_X509_REQ(b, NULL, NULL, (void *)"") : NULL;
    EVP_PKEY *key = req ? X509_REQ_get_pubkey(req) : NULL;
    if (!req) {
        err_set(e, -EINVAL, "the request for a certificate is no PKCS #10 in PEM");
    } else if (!key || X509_REQ_verify(req, key) != 1) {
        err_set(e, -EINVAL, "the request for a certificate is not signed by its own key");
        EVP_PKEY_free(key);
        key = NULL;
    } else if (EVP_PKEY_get_security_bits(key) < 112) {
        err_set(e, -EINVAL, "the key of the request is too weak: RSA needs 2048 bits");
        EVP_PKEY_free(key);
        key = NULL;
    }
    ERR_clear_error();
    X509_REQ_free(req);
    BIO_free(b);
    return key;
}

static void describe(X509 *cert, struct ca_issued *out)
{
    BIO *b = BIO_new(BIO_s_mem());
    char *p;
    if (b && PEM_write_bio_X509(b, cert) == 1) {
        long n = BIO_get_mem_data(b, &p);
        out->pem = xstrndup(p, (size_t)n);
    }
    BIO_free(b);
    tls_serial(cert, out->serial, sizeof(out->serial));
    tls_fingerprint(cert, out->fingerprint);
    out->not_after = tls_not_after(cert);
    out->not_before = (int64_t)time(NULL) - SKEW;
}

int ca_sign(const char *dir, const char *request, const char *user, int64_t seconds,
            struct ca_issued *out, struct err *e)
{
    X509 *root = read_cert(dir, e), *cert = NULL;
    EVP_PKEY *root_key = root ? read_key(dir, e) : NULL;
    EVP_PKEY *key = root_key ? request_key(request, e) : NULL;
    int rc = key ? 0 : e && e->code ? e->code : -ENOENT;
    if (key) {
        cert = new_cert(key, user, root, seconds);
        if (cert && add_leaf_exts(cert, root, "clientAuth") &&
            X509_sign(cert, root_key, EVP_sha256()) > 0) {
            describe(cert, out);
            rc = out->pem ? 0 : -ENOMEM;
        } else {
            rc = fail(e, "cannot sign a certificate");
        }
    }
    X509_free(cert);
    EVP_PKEY_free(key);
    EVP_PKEY_free(root_key);
    X509_free(root);
    return rc;
}

/* ---- the revocation list ---- */

static bool add_revoked(X509_CRL *crl, const struct ca_revoked *r)
{
    X509_REVOKED *one = X509_REVOKED_new();
    BIGNUM *n = NULL;
    ASN1_INTEGER *serial = BN_hex2bn(&n, r->serial) ? BN_to_ASN1_INTEGER(n, NULL) : NULL;
    ASN1_TIME *when = ASN1_TIME_set(NULL, (time_t)r->when);
    bool ok = one && serial && when && X509_REVOKED_set_serialNumber(one, serial) == 1 &&
              X509_REVOKED_set_revocationDate(one, when) == 1 &&
              X509_CRL_add0_revoked(crl, one) == 1;
    if (!ok) {
        X509_REVOKED_free(one);
    }
    ASN1_TIME_free(when);
    ASN1_INTEGER_free(serial);
    BN_free(n);
    return ok;
}

static bool fill_crl(X509_CRL *crl, X509 *root, const struct ca_revoked *list, size_t n)
{
    ASN1_TIME *now = ASN1_TIME_set(NULL, time(NULL));
    ASN1_TIME *next = ASN1_TIME_set(NULL, time(NULL) + CRL_SECONDS);
    bool ok = crl && now && next && X509_CRL_set_version(crl, X509_CRL_VERSION_2) == 1 &&
              X509_CRL_set_issuer_name(crl, X509_get_subject_name(root)) == 1 &&
              X509_CRL_set1_lastUpdate(crl, now) == 1 &&
              X509_CRL_set1_nextUpdate(crl, next) == 1;
    for (size_t i = 0; ok && i < n; i++) {
        ok = add_revoked(crl, &list[i]);
    }
    ASN1_TIME_free(now);
    ASN1_TIME_free(next);
    return ok;
}

int ca_write_crl(const char *dir, const struct ca_revoked *list, size_t n, struct err *e)
{
    X509 *root = read_cert(dir, e);
    EVP_PKEY *key = root ? read_key(dir, e) : NULL;
    X509_CRL *crl = key ? X509_CRL_new() : NULL;
    BIO *b = BIO_new(BIO_s_mem());
    int rc = key ? -EIO : -ENOENT;
    if (key && fill_crl(crl, root, list, n) && X509_CRL_sort(crl) == 1 &&
        X509_CRL_sign(crl, key, EVP_sha256()) > 0 && PEM_write_bio_X509_CRL(b, crl) == 1) {
        rc = write_bio(dir, "crl.pem", b, 0644, e);
    } else if (key) {
        fail(e, "cannot write the revocation list");
    }
    BIO_free(b);
    X509_CRL_free(crl);
    EVP_PKEY_free(key);
    X509_free(root);
    return rc;
}
