/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: join tokens, and addresses of daemons. A text lets in only with the secret of a token that is good now, and
 * is the one way to write it; what was used, is in use or has expired lets nobody in. The first byte: below 8, changes to one of
 * the daemon's tokens; else a text.
 */
#include "api-schema/tls/tls.h"
#include "daemon/auth/access.h"
#include "daemon/run/proc.h"
#include "engine/base/mem.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

const char fuzz_name[] = "fuzz_token";
static uint64_t n_parsed, n_let_in, n_addresses;

enum { VALID, USED, TAKEN, LATE, LATE_MONO, N_TOKENS };
static struct {
    struct list list;
    struct token tokens[N_TOKENS];
    unsigned char secrets[N_TOKENS][TLS_TOKEN_SECRET];
    char texts[N_TOKENS][TLS_TOKEN_MAX];
} all;

void fuzz_setup(void)
{
    unsigned char ca[32], digest[32];
    int64_t now = time_real_ns() / 1000000;

    list_init(&all.list);
    memset(ca, 0x5a, sizeof(ca));
    for (unsigned i = 0; i < N_TOKENS; i++) {
        struct token *t = &all.tokens[i];
        memset(all.secrets[i], (int)(17 * i + 3), TLS_TOKEN_SECRET);
        tls_sha256(all.secrets[i], TLS_TOKEN_SECRET, digest);
        tls_hex(digest, sizeof(digest), t->hash);
        tls_token_print(all.secrets[i], ca, all.texts[i]);
        t->expires_ms = i == LATE ? now - 1 : now + 86400000;
        t->mono_end_ns = i == LATE_MONO ? 1 : INT64_MAX;
        t->used = i == USED;
        t->taken = i == TAKEN;
        list_append(&all.list, &t->link);
    }
}

void fuzz_finish(void)
{
    printf("# %llu texts were tokens, %llu were let in; %llu were addresses\n",
           (unsigned long long)n_parsed, (unsigned long long)n_let_in,
           (unsigned long long)n_addresses);
}

static void try_address(const char *text)
{
    AUTO_FREE char *host = NULL;
    struct err e = ERR_INIT;
    int port = -1;

    if (tls_parse_address(text, &host, &port, &e) < 0) {
        if (!e.msg[0] || host) {
            FUZZ_FAIL("an address refused without a word, or half: '%s'", text);
        }
        return;
    }
    n_addresses++;
    if (!host || !host[0] || strlen(host) > 253 || port < 1 || port > 65535 ||
        !strstr(text, host)) {
        FUZZ_FAIL("'%s' is host '%s', port %d", text, host ? host : "", port);
    }
}

static void try_token(const char *text)
{
    unsigned char secret[TLS_TOKEN_SECRET], ca[32];
    char again[TLS_TOKEN_MAX];
    const char *why = NULL;
    struct err e = ERR_INIT;
    struct token *t = token_judge(&all.list, text, &why);
    bool parsed = tls_token_parse(text, secret, ca, &e) == 0;

    if ((t == NULL) != (why != NULL) || parsed == (e.msg[0] != 0)) {
        FUZZ_FAIL("let in with a reason, or refused without one: '%s'", text);
    }
    if (parsed) {
        n_parsed++;
        tls_token_print(secret, ca, again);
        if (strcmp(again, text) != 0) {
            FUZZ_FAIL("'%s' is also written '%s'", text, again);
        }
    }
    if (t) {
        n_let_in++;
        if (!parsed || t != &all.tokens[VALID] ||
            memcmp(secret, all.secrets[VALID], sizeof(secret)) != 0) {
            FUZZ_FAIL("'%s' is let in", text);
        }
    } else if (parsed && memcmp(secret, all.secrets[VALID], sizeof(secret)) == 0) {
        FUZZ_FAIL("a good token is refused: %s", why);
    }
}

void fuzz_one(const uint8_t *data, size_t size)
{
    AUTO_FREE char *text = xstrndup((const char *)data, size);

    if (size && data[0] < 8) {
        char token[TLS_TOKEN_MAX + 4] = "";
        memcpy(token, all.texts[data[0] % N_TOKENS], TLS_TOKEN_MAX);
        for (size_t i = 1; i + 1 < size && i < 8; i += 2) {
            token[data[i] % (TLS_TOKEN_MAX + 2)] = (char)data[i + 1];
        }
        try_token(token);
    }
    try_token(text);
    try_address(text);
}
