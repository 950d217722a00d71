/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmd-tls: between an emulator that speaks NBD and a server that wants TLS for it. Started by vmd-spawn in a jail of its own, with the
 * connection, one end of a socket pair and descriptors of the certificates; ends when either side does. It has the keys, and the
 * emulator has not. One thread.
 */
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "storage/tls/relay.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { FAR, NEAR, STATUS, CA, CERT, KEY, FDS };
enum { PEM_MAX = 1 << 20, PATIENCE_MS = 8000, ROUNDS = 100 };

struct options {
    int fd[FDS]; /* CERT and KEY: -1 when the server knows us otherwise */
    const char *host;
};

static int parse(struct options *o, int argc, char **argv, struct err *e)
{
    static const struct option list[] = {
        { "far-fd", 1, NULL, FAR },       { "near-fd", 1, NULL, NEAR },
        { "status-fd", 1, NULL, STATUS }, { "ca-fd", 1, NULL, CA },
        { "cert-fd", 1, NULL, CERT },     { "key-fd", 1, NULL, KEY },
        { "host", 1, NULL, FDS },         { NULL, 0, NULL, 0 }
    };
    int opt, rc = 0;

    *o = (struct options){ .fd = { -1, -1, -1, -1, -1, -1 } };
    while (rc == 0 && (opt = getopt_long(argc, argv, "", list, NULL)) != -1) {
        uint64_t n = 0;

        if (opt == FDS) {
            o->host = optarg;
        } else if (opt >= 0 && opt < FDS) {
            rc = str_to_u64(optarg, 0, 1 << 20, "descriptor", &n, e);
            o->fd[opt] = (int)n;
        } else {
            rc = -EINVAL;
        }
    }
    return rc == 0 && o->fd[FAR] >= 0 && o->fd[NEAR] >= 0 && o->fd[CA] >= 0 && o->host
               ? 0
               : err_set(e, -EINVAL, "vmd-tls is started by vmd-spawn");
}

/* --- certificates --- */

static int why(struct err *e, const char *what)
{
    const char *reason = ERR_reason_error_string(ERR_get_error());

    ERR_clear_error();
    return err_set(e, -EINVAL, "%s: %s", what, reason ? reason : "no PEM");
}

static BIO *slurp(int fd)
{
    AUTO_BUF b = BUF_INIT;
    char piece[4096];
    ssize_t n;

    while ((n = read(fd, piece, sizeof(piece))) > 0 && b.len + (size_t)n <= PEM_MAX) {
        buf_add(&b, piece, (size_t)n);
    }
    BIO *m = BIO_new(BIO_s_mem());
    if (m && b.len > 0) {
        BIO_write(m, b.data, (int)b.len);
    }
    return m;
}

static int take_authority(SSL_CTX *x, int fd, struct err *e)
{
    BIO *b = slurp(fd);
    unsigned n = 0;
    X509 *c;

    while (b && (c = PEM_read_bio_X509(b, NULL, NULL, NULL))) {
        n += X509_STORE_add_cert(SSL_CTX_get_cert_store(x), c) == 1;
        X509_free(c);
    }
    BIO_free(b);
    return n > 0 ? (ERR_clear_error(), 0) : why(e, "ca-cert.pem");
}

static int take_own(SSL_CTX *x, int cert_fd, int key_fd, struct err *e)
{
    BIO *b = slurp(cert_fd), *k = slurp(key_fd);
    X509 *c = b ? PEM_read_bio_X509(b, NULL, NULL, NULL) : NULL;
    EVP_PKEY *key = k ? PEM_read_bio_PrivateKey(k, NULL, NULL, NULL) : NULL;
    int rc = 0;

    if (!c || SSL_CTX_use_certificate(x, c) != 1) {
        rc = why(e, "client-cert.pem");
    } else if (!key || SSL_CTX_use_PrivateKey(x, key) != 1 ||
               SSL_CTX_check_private_key(x) != 1) {
        rc = why(e, "client-key.pem");
    }
    X509_free(c);
    while (rc == 0 && (c = PEM_read_bio_X509(b, NULL, NULL, NULL))) {
        (void)SSL_CTX_add1_chain_cert(x, c);
        X509_free(c);
    }
    ERR_clear_error();
    EVP_PKEY_free(key);
    BIO_free(b);
    BIO_free(k);
    return rc;
}

/* Of the server's certificate: the name, or the address. */
static bool expect(SSL *ssl, const char *host)
{
    unsigned char address[sizeof(struct in6_addr)];
    bool ip = inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;

    return ip ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1
              : SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

static int session(const struct options *o, SSL **out, struct err *e)
{
    /* no configuration file: nothing else than what was given is opened */
    SSL_CTX *x = OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) == 1
                     ? SSL_CTX_new(TLS_client_method())
                     : NULL;
    int rc = x ? take_authority(x, o->fd[CA], e) : err_set(e, -ENOMEM, "openssl cannot begin");

    if (rc == 0 && o->fd[CERT] >= 0 && o->fd[KEY] >= 0) {
        rc = take_own(x, o->fd[CERT], o->fd[KEY], e);
    }
    if (rc != 0) {
        SSL_CTX_free(x);
        return rc;
    }
    SSL_CTX_set_min_proto_version(x, TLS1_2_VERSION);
    SSL_CTX_set_options(x, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_verify(x, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(x, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL *ssl = SSL_new(x);
    SSL_CTX_free(x); /* the session holds it */
    if (!ssl || SSL_set_fd(ssl, o->fd[FAR]) != 1 || !expect(ssl, o->host)) {
        SSL_free(ssl);
        return err_set(e, -EINVAL, "'%s' is no name that a certificate can have", o->host);
    }
    *out = ssl;
    return 0;
}

/* --- the handshake --- */

static int refused(SSL *ssl, const char *host, struct err *e)
{
    long verdict = SSL_get_verify_result(ssl);
    unsigned long code = ERR_peek_error();
    const char *reason = ERR_reason_error_string(code);

    if (verdict != X509_V_OK) {
        return err_set(e, -EACCES, "the certificate of '%s' is refused: %s", host,
                       X509_verify_cert_error_string(verdict));
    }
    return err_set(e, -EACCES, "TLS with '%s' fails: %s", host,
                   reason ? reason : "the server has hung up");
}

static int shake(SSL *ssl, int fd, const char *host, struct err *e)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        int n = SSL_connect(ssl), what = SSL_get_error(ssl, n);
        struct pollfd p = { .fd = fd,
                            .events = what == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN };

        if (n == 1) {
            return 0;
        }
        if (what != SSL_ERROR_WANT_READ && what != SSL_ERROR_WANT_WRITE) {
            return refused(ssl, host, e);
        }
        if (poll(&p, 1, PATIENCE_MS) == 0) {
            break;
        }
    }
    return err_set(e, -ETIMEDOUT, "the server does not end its TLS handshake");
}

static int begin(const struct options *o, SSL **ssl, unsigned char *greeting, struct err *e)
{
    int rc = fd_set_nonblock(o->fd[FAR], true, e);

    rc = rc ? rc : fd_set_nonblock(o->fd[NEAR], true, e);
    rc = rc ? rc : session(o, ssl, e);
    rc = rc ? rc : confine_relay(e);
    rc = rc ? rc : relay_start_tls(o->fd[FAR], greeting, e);
    return rc ? rc : shake(*ssl, o->fd[FAR], o->host, e);
}

int main(int argc, char **argv)
{
    const struct rlimit none = { 0, 0 };
    unsigned char greeting[GREETING];
    struct options o;
    struct err e = ERR_INIT;
    SSL *ssl = NULL;

    signal(SIGPIPE, SIG_IGN);
    setrlimit(RLIMIT_CORE, &none);
    tzset(); /* what looks at the dates of certificates reads a file otherwise */
    int rc = parse(&o, argc, argv, &e);
    rc = rc ? rc : begin(&o, &ssl, greeting, &e);
    if (rc != 0) { /* who has started us tells it */
        return o.fd[STATUS] >= 0 && write(o.fd[STATUS], e.msg, strlen(e.msg)) > 0 ? 1 : 2;
    }
    if (write(o.fd[STATUS], "+", 1) != 1) {
        return 1;
    }
    close(o.fd[STATUS]);
    rc = relay_run(ssl, o.fd[FAR], o.fd[NEAR], greeting, &e);
    _exit(rc == 0 ? 0 : 1);
}
