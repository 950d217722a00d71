/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS 1.3 by openssl, as vmd uses it: mutual, no session tickets, no resumption, no early data. A
 * context holds trust, certificate and key; connections keep the one they began with, so it can be
 * replaced while they live.
 *
 * The protocol spoken inside is chosen by ALPN (RFC 7301), so that one listener serves several and
 * none of them knows of TLS. A client that names none speaks tls_protos[TLS_PROTO_RPC]. A client of
 * TLS_PROTO_JOIN is asked for no certificate: it has none yet, and may do nothing but join.
 *
 * Contexts belong to the thread that made them; a struct ssl_st to the one that drives it.
 */
#ifndef VMD_API_TLS_H
#define VMD_API_TLS_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ssl_st;
struct x509_st;
struct tls_ctx;

#define TLS_PORT 16515
#define TLS_FINGERPRINT_HEX 65 /* SHA-256 in hexadecimal and the end */

enum tls_proto { TLS_PROTO_RPC, TLS_PROTO_STREAM, TLS_PROTO_JOIN, TLS_N_PROTOS };
extern const char *const tls_protos[TLS_N_PROTOS];

struct tls_files {
    const char *ca;   /* trusted certificates, PEM; a client that joins has none (NULL) */
    const char *cert; /* chain, leaf first; NULL: none */
    const char *key;  /* private key of the leaf */
    const char *crl;  /* revocation lists, PEM; NULL: none are consulted */
};

/* Judges a client's certificate that openssl found good, in the handshake. NULL when it may come
 * in, else why not (static text). */
typedef const char *tls_judge_fn(void *arg, struct x509_st *leaf, bool *revoked);

/* NULL on failure; the error names the file. `judge` may be NULL. */
struct tls_ctx *tls_server_new(const struct tls_files *f, tls_judge_fn *judge, void *arg,
                               struct err *e);
/* For clients that show no certificate and prove otherwise who they are; f->ca and f->crl are not looked at. */
struct tls_ctx *tls_public_new(const struct tls_files *f, struct err *e);
/* For browsers: nobody is asked for a certificate, and HTTP/1.1 is what is spoken inside. */
struct tls_ctx *tls_web_new(const struct tls_files *f, struct err *e);
struct tls_ctx *tls_client_new(const struct tls_files *f, struct err *e);
void tls_ctx_free(struct tls_ctx *c); /* NULL is fine; connections live on */

/* A connection on a connected, non-blocking descriptor that stays the caller's. */
struct ssl_st *tls_accept_new(struct tls_ctx *c, int fd, struct err *e);
/* The certificate must be for `name`: a DNS name or an IP address. `ca_pin` instead of trusted
 * certificates: the SHA-256 (32 bytes) that the root of the server's chain must have. */
struct ssl_st *tls_connect_new(struct tls_ctx *c, int fd, const char *name,
                               enum tls_proto proto, const unsigned char *ca_pin,
                               struct err *e);
void tls_ssl_free(struct ssl_st *s);

/* Looks again at the other side's certificate, with the trust and revocation lists of c. NULL when it
 * is still good, else why not (static text). */
const char *tls_still_good(struct tls_ctx *c, struct ssl_st *s);

/* What was agreed. */
enum tls_proto tls_proto_of(struct ssl_st *s);
/* Of the other side's leaf, after the handshake. NULL when it has none; borrowed. */
struct x509_st *tls_peer_cert(struct ssl_st *s);
void tls_fingerprint(struct x509_st *cert, char out[TLS_FINGERPRINT_HEX]);
/* Common name of the subject; false when there is none or it is no name (str_is_name). */
bool tls_common_name(struct x509_st *cert, char *out, size_t size);
/* Serial number in hexadecimal. */
void tls_serial(struct x509_st *cert, char *out, size_t size);
/* Seconds since 1970. */
int64_t tls_not_after(struct x509_st *cert);

/* What went wrong in the last call on s, for people: the reason of a refused certificate, the
 * alert of the other side. Empties openssl's queue of errors. `ret` is what that call returned. */
void tls_why(struct ssl_st *s, int ret, int errnum, struct err *e);
/* The PEM file's first certificate, or NULL; freed with tls_cert_free(). */
struct x509_st *tls_cert_read(const char *path, struct err *e);
struct x509_st *tls_cert_parse(const char *pem, size_t n, struct err *e);
void tls_cert_free(struct x509_st *cert);

/* A new key (EC P-256) and a request for a certificate with this common name, both PEM; the
 * caller's. */
int tls_make_request(const char *name, char **key_pem, char **request_pem, struct err *e);

/*
 * Join tokens: "vmd1." and 48 bytes in base64url: a secret of 16 bytes, then the SHA-256 of the
 * CA's certificate, by which a client that trusts nobody yet knows the server.
 */
#define TLS_TOKEN_SECRET 16
#define TLS_TOKEN_MAX 80
void tls_token_print(const unsigned char secret[TLS_TOKEN_SECRET], const unsigned char ca[32],
                     char out[TLS_TOKEN_MAX]);
int tls_token_parse(const char *text, unsigned char secret[TLS_TOKEN_SECRET],
                    unsigned char ca[32], struct err *e);
/* SHA-256. */
void tls_sha256(const void *p, size_t n, unsigned char out[32]);
void tls_hex(const unsigned char *p, size_t n, char *out); /* 2 n + 1 bytes */
/* Host and port of "host", "host:port", "[v6]:port" behind vmd+tls://; the caller frees *host. */
int tls_parse_address(const char *text, char **host, int *port, struct err *e);
/* The same where another port is the usual one. */
int tls_parse_address_at(const char *text, int usual, char **host, int *port, struct err *e);

#endif
