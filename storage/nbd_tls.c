/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS for the NBD server, by openssl over sockets that never block. Owns the context with the keys. Loop
 * thread. Files are named as qemu-nbd and libvirt name them.
 */
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "storage/nbd.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdlib.h>

struct nbd_session {
    SSL *ssl;
    unsigned want;
};

static struct nbd_session *tls_accept(void *arg, int fd)
{
    struct nbd_session *s;
    SSL *ssl = SSL_new(arg);

    if (!ssl || SSL_set_fd(ssl, fd) != 1) {
        SSL_free(ssl);
        return NULL;
    }
    SSL_set_accept_state(ssl);
    SSL_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    s = xnew(struct nbd_session);
    s->ssl = ssl;
    s->want = LOOP_READ;
    return s;
}

static ssize_t tls_result(struct nbd_session *s, int n)
{
    int why = n > 0 ? SSL_ERROR_NONE : SSL_get_error(s->ssl, n);

    ERR_clear_error();
    if (n > 0) {
        s->want = 0;
        return n;
    }
    s->want = why == SSL_ERROR_WANT_WRITE ? LOOP_WRITE : LOOP_READ;
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? -EAGAIN
           : why == SSL_ERROR_ZERO_RETURN                            ? 0
                                                                     : -EIO;
}

static ssize_t tls_read(struct nbd_session *s, void *p, size_t n)
{
    return tls_result(s, SSL_read(s->ssl, p, n < INT32_MAX ? (int)n : INT32_MAX));
}

static ssize_t tls_write(struct nbd_session *s, const void *p, size_t n)
{
    return tls_result(s, SSL_write(s->ssl, p, n < INT32_MAX ? (int)n : INT32_MAX));
}

static unsigned tls_want(const struct nbd_session *s)
{
    return s->want;
}

static void tls_free(struct nbd_session *s)
{
    if (s) {
        SSL_free(s->ssl);
        free(s);
    }
}

static int tls_error(struct err *e, const char *file, const char *what)
{
    char text[160];

    ERR_error_string_n(ERR_get_error(), text, sizeof(text));
    ERR_clear_error();
    return err_set(e, -EINVAL, "TLS: %s %s: %s", what, file, text);
}

static int load(SSL_CTX *x, const struct nbd_tls_files *f, struct err *e)
{
    AUTO_FREE char *cert = xasprintf("%s/server-cert.pem", f->dir);
    AUTO_FREE char *key = xasprintf("%s/server-key.pem", f->dir);
    AUTO_FREE char *ca = xasprintf("%s/ca-cert.pem", f->dir);

    if (SSL_CTX_use_certificate_chain_file(x, cert) != 1) {
        return tls_error(e, cert, "certificate");
    }
    if (SSL_CTX_use_PrivateKey_file(x, key, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(x) != 1) {
        return tls_error(e, key, "key");
    }
    if (f->verify) {
        if (SSL_CTX_load_verify_locations(x, ca, NULL) != 1) {
            return tls_error(e, ca, "authority");
        }
        SSL_CTX_set_verify(x, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    }
    return 0;
}

static SSL_CTX *context(struct err *e)
{
    /* no configuration file: a sandboxed process may open none */
    SSL_CTX *x = OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) == 1
                     ? SSL_CTX_new(TLS_server_method())
                     : NULL;

    if (!x) {
        err_set(e, -ENOMEM, "TLS: openssl cannot begin");
        return NULL;
    }
    SSL_CTX_set_min_proto_version(x, TLS1_2_VERSION);
    SSL_CTX_set_options(x, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
    return x;
}

static int finish(SSL_CTX *x, int rc, struct nbd_tls *out)
{
    if (rc != 0) {
        SSL_CTX_free(x);
        return rc;
    }
    *out = (struct nbd_tls){ .accept = tls_accept,
                             .read = tls_read,
                             .write = tls_write,
                             .want = tls_want,
                             .free = tls_free,
                             .arg = x };
    return 0;
}

int nbd_tls_new(const struct nbd_tls_files *f, struct nbd_tls *out, struct err *e)
{
    SSL_CTX *x = context(e);

    return x ? finish(x, load(x, f, e), out) : -ENOMEM;
}

/* --- from memory --- */

/* The next certificate; NULL: there is none. */
static X509 *next_cert(BIO *b)
{
    X509 *c = PEM_read_bio_X509(b, NULL, NULL, NULL);

    ERR_clear_error();
    return c;
}

static bool take_chain(SSL_CTX *x, const char *pem)
{
    BIO *b = BIO_new_mem_buf(pem, -1);
    X509 *c = b ? next_cert(b) : NULL;
    bool ok = c && SSL_CTX_use_certificate(x, c) == 1;

    X509_free(c);
    while (ok && (c = next_cert(b))) {
        ok = SSL_CTX_add1_chain_cert(x, c) == 1;
        X509_free(c);
    }
    BIO_free(b);
    return ok;
}

static bool take_key(SSL_CTX *x, const char *pem)
{
    BIO *b = BIO_new_mem_buf(pem, -1);
    EVP_PKEY *k = b ? PEM_read_bio_PrivateKey(b, NULL, NULL, NULL) : NULL;
    bool ok = k && SSL_CTX_use_PrivateKey(x, k) == 1 && SSL_CTX_check_private_key(x) == 1;

    EVP_PKEY_free(k);
    BIO_free(b);
    return ok;
}

static bool take_authority(SSL_CTX *x, const char *pem)
{
    BIO *b = BIO_new_mem_buf(pem, -1);
    unsigned n = 0;
    X509 *c;

    while (b && (c = next_cert(b))) {
        n += X509_STORE_add_cert(SSL_CTX_get_cert_store(x), c) == 1;
        X509_free(c);
    }
    BIO_free(b);
    SSL_CTX_set_verify(x, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return n > 0;
}

int nbd_tls_new_text(const struct nbd_tls_text *t, struct nbd_tls *out, struct err *e)
{
    SSL_CTX *x;
    int rc = 0;

    if (!t->certificate || !t->key) {
        return err_set(e, -EINVAL, "TLS needs a certificate and its key");
    }
    x = context(e);
    if (!x) {
        return -ENOMEM;
    }
    if (!take_chain(x, t->certificate)) {
        rc = tls_error(e, "of the server", "certificate");
    } else if (!take_key(x, t->key)) {
        rc = tls_error(e, "of the server", "key");
    } else if (t->authority && !take_authority(x, t->authority)) {
        rc = tls_error(e, "of clients", "authority");
    }
    return finish(x, rc, out);
}

void nbd_tls_free(struct nbd_tls *t)
{
    if (t && t->arg) {
        SSL_CTX_free(t->arg);
        t->arg = NULL;
    }
}
