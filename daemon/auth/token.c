/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is a text a join token that is good now? Apart from the store and the connections, so that it can be fuzzed by itself.
 * Owns nothing. Loop thread.
 */
#include "api-schema/tls/tls.h"
#include "daemon/auth/access.h"
#include "daemon/run/proc.h"

#include <openssl/crypto.h>
#include <string.h>

static struct token *by_hash(struct list *tokens, const char *hash)
{
    list_for_each (n, tokens) {
        struct token *t = list_entry(n, struct token, link);
        if (strcmp(t->hash, hash) == 0) {
            return t;
        }
    }
    return NULL;
}

const char *token_state(const struct token *t)
{
    bool late = t->expires_ms <= time_real_ns() / 1000000 || time_mono_ns() > t->mono_end_ns;
    return t->used || t->taken ? "used" : late ? "expired" : "valid";
}

struct token *token_judge(struct list *tokens, const char *text, const char **why)
{
    unsigned char secret[TLS_TOKEN_SECRET], ca[32], digest[32];
    char hash[65];
    if (!text || tls_token_parse(text, secret, ca, NULL) < 0) {
        *why = "this is no join token";
        return NULL;
    }
    tls_sha256(secret, sizeof(secret), digest);
    OPENSSL_cleanse(secret, sizeof(secret));
    tls_hex(digest, sizeof(digest), hash);
    struct token *t = by_hash(tokens, hash);
    if (!t) {
        *why = "no such join token";
    } else if (strcmp(token_state(t), "valid") != 0) {
        *why = strcmp(token_state(t), "used") == 0 ? "the join token was used already"
                                                   : "the join token has expired";
        t = NULL;
    }
    return t;
}
