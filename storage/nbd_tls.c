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

int nbd_tls_new(const struct nbd_tls_files *f, struct nbd_tls *out, struct err *e)
{
    SSL_CTX *x = SSL_CTX_new(TLS_server_method());
    int rc;

    if (!x) {
        return err_set(e, -ENOMEM, "TLS: openssl cannot begin");
    }
    SSL_CTX_set_min_proto_version(x, TLS1_2_VERSION);
    SSL_CTX_set_options(x, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
    rc = load(x, f, e);
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

void nbd_tls_free(struct nbd_tls *t)
{
    if (t && t->arg) {
        SSL_CTX_free(t->arg);
        t->arg = NULL;
    }
}
