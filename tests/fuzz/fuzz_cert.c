/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: certificates, requests and revocation lists of others. The first byte says what the rest is: PEM as it
 * is, or DER of a certificate, a request, a revocation list to be put into PEM. Of what is accepted each question has an
 * answer; a request that is signed gives a certificate of the user that the authority named, whatever the request says.
 */
#include "api-schema/tls/tls.h"
#include "daemon/auth/ca.h"
#include "engine/base/mem.h"
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>
#include <unistd.h>

const char fuzz_name[] = "fuzz_cert";
static uint64_t n_certs, n_signed, n_crls;
static char dir[] = "/tmp/fuzz-cert-XXXXXX";
static char file[64], ca[64], cert[64], key[64];

void fuzz_setup(void)
{
    char *names[] = { "localhost" };
    struct err e = ERR_INIT;

    if (!mkdtemp(dir) || ca_create(dir, names, 1, &e) < 0) {
        FUZZ_FAIL("%s: %s", dir, e.msg);
    }
    snprintf(file, sizeof(file), "%s/given.pem", dir);
    snprintf(ca, sizeof(ca), "%s/ca.pem", dir);
    snprintf(cert, sizeof(cert), "%s/server.pem", dir);
    snprintf(key, sizeof(key), "%s/server.key", dir);
}

void fuzz_finish(void)
{
    static const char *const names[] = { "ca.pem", "ca.key", "server.pem", "server.key", "crl.pem", "given.pem" };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char path[80];
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
    printf("# %llu certificates, %llu requests signed, %llu revocation lists\n",
           (unsigned long long)n_certs, (unsigned long long)n_signed, (unsigned long long)n_crls);
}

static char *to_pem(const char *kind, const uint8_t *data, size_t size)
{
    AUTO_FREE char *text = xalloc(size * 2 + 100);

    EVP_EncodeBlock((unsigned char *)text, data, (int)size);
    return xasprintf("-----BEGIN %s-----\n%s\n-----END %s-----\n", kind, text, kind);
}

static void try_cert(const char *pem, size_t n)
{
    char name[64], print[TLS_FINGERPRINT_HEX], serial[CA_SERIAL_MAX];
    struct err e = ERR_INIT;
    struct x509_st *x = tls_cert_parse(pem, n, &e);

    if (!x) {
        if (!e.msg[0]) {
            FUZZ_FAIL("a certificate refused without a word");
        }
        return;
    }
    n_certs++;
    if (tls_common_name(x, name, sizeof(name)) && (!name[0] || strpbrk(name, "/\n@ "))) {
        FUZZ_FAIL("'%s' is no name", name);
    }
    tls_fingerprint(x, print);
    tls_serial(x, serial, sizeof(serial));
    (void)tls_not_after(x);
    if (strlen(print) != 64 || strlen(serial) >= sizeof(serial)) {
        FUZZ_FAIL("fingerprint '%s', serial '%s'", print, serial);
    }
    tls_cert_free(x);
}

static void try_request(const char *pem)
{
    struct ca_issued made = { 0 };
    struct err e = ERR_INIT;
    char name[64];

    if (ca_sign(dir, pem, "ann", 3600, &made, &e) < 0) {
        if (!e.msg[0] || made.pem) {
            FUZZ_FAIL("a request refused without a word, or half");
        }
        return;
    }
    n_signed++;
    struct x509_st *x = tls_cert_parse(made.pem, strlen(made.pem), &e);
    if (!x || !tls_common_name(x, name, sizeof(name)) || strcmp(name, "ann") != 0) {
        FUZZ_FAIL("signed for another: %s", made.pem);
    }
    tls_cert_free(x);
    free(made.pem);
}

static void try_crl(const char *pem, size_t n)
{
    struct tls_files files = { .ca = ca, .cert = cert, .key = key, .crl = file };
    struct err e = ERR_INIT;
    int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0 || write(fd, pem, n) != (ssize_t)n) {
        FUZZ_FAIL("%s cannot be written", file);
    }
    close(fd);
    struct tls_ctx *c = tls_server_new(&files, NULL, NULL, &e);
    if (!c && (!e.msg[0] || !strstr(e.msg, file))) {
        FUZZ_FAIL("a revocation list refused without its name: %s", e.msg);
    }
    n_crls += c != NULL;
    tls_ctx_free(c);
}

void fuzz_one(const uint8_t *data, size_t size)
{
    static const char *const kinds[] = { "CERTIFICATE", "CERTIFICATE REQUEST", "X509 CRL" };
    AUTO_FREE char *pem = NULL;

    if (!size) {
        return;
    }
    if (data[0] % 4 == 3) {
        pem = xstrndup((const char *)data + 1, size - 1);
    } else {
        pem = to_pem(kinds[data[0] % 4], data + 1, size - 1);
    }
    try_cert(pem, strlen(pem));
    if (data[0] % 4 != 2) {
        try_request(pem);
    }
    if (data[0] % 4 != 1) {
        try_crl(pem, strlen(pem));
    }
}
