/* SPDX-License-Identifier: Apache-2.0 */
/* The text of join tokens, digests, and addresses of servers. No state, any thread. */
#include "api-schema/tls/tls.h"

#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <string.h>

#define PREFIX "vmd1."
enum { BYTES = TLS_TOKEN_SECRET + 32, LETTERS = BYTES / 3 * 4 };

static const char letters[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void tls_sha256(const void *p, size_t n, unsigned char out[32])
{
    SHA256(p, n, out);
}

void tls_token_print(const unsigned char secret[TLS_TOKEN_SECRET], const unsigned char ca[32],
                     char out[TLS_TOKEN_MAX])
{
    unsigned char all[BYTES];
    char *at = out + sizeof(PREFIX) - 1;

    memcpy(out, PREFIX, sizeof(PREFIX));
    memcpy(all, secret, TLS_TOKEN_SECRET);
    memcpy(all + TLS_TOKEN_SECRET, ca, 32);
    for (int i = 0; i < BYTES; i += 3) {
        unsigned v = (unsigned)all[i] << 16 | (unsigned)all[i + 1] << 8 | all[i + 2];
        *at++ = letters[v >> 18];
        *at++ = letters[v >> 12 & 63];
        *at++ = letters[v >> 6 & 63];
        *at++ = letters[v & 63];
    }
    *at = 0;
}

int tls_token_parse(const char *text, unsigned char secret[TLS_TOKEN_SECRET],
                    unsigned char ca[32], struct err *e)
{
    unsigned char all[BYTES];
    const char *at = text + sizeof(PREFIX) - 1;

    if (!str_starts(text, PREFIX)) {
        return err_set(e, -EINVAL,
                       "a join token begins with " PREFIX "; 'vmctl token create' makes one");
    }
    if (strlen(at) != LETTERS) {
        return err_set(e, -EINVAL, "a join token has %d characters, this has %zu: was it cut?",
                       LETTERS + (int)sizeof(PREFIX) - 1, strlen(text));
    }
    for (int i = 0; i < BYTES; i += 3) {
        unsigned v = 0;
        for (int k = 0; k < 4; k++, at++) {
            const char *found = strchr(letters, *at);
            if (!found) {
                return err_set(e, -EINVAL,
                               "character %zu of the join token is none of base64url",
                               (size_t)(at - text) + 1);
            }
            v = v << 6 | (unsigned)(found - letters);
        }
        all[i] = (unsigned char)(v >> 16);
        all[i + 1] = (unsigned char)(v >> 8);
        all[i + 2] = (unsigned char)v;
    }
    memcpy(secret, all, TLS_TOKEN_SECRET);
    memcpy(ca, all + TLS_TOKEN_SECRET, 32);
    return 0;
}

int tls_parse_address(const char *text, char **host, int *port, struct err *e)
{
    return tls_parse_address_at(text, TLS_PORT, host, port, e);
}

int tls_parse_address_at(const char *text, int usual, char **host, int *port, struct err *e)
{
    const char *end, *colon = NULL;
    uint64_t number = (uint64_t)usual;

    if (text[0] == '[') {
        text++;
        end = strchr(text, ']');
        if (!end || (end[1] && end[1] != ':')) {
            return err_set(e, -EINVAL, "'[%s' is no address; write [2001:db8::1]:16515", text);
        }
        colon = end[1] ? end + 1 : NULL;
    } else {
        end = strchr(text, ':');
        if (end && strchr(end + 1, ':')) {
            return err_set(e, -EINVAL, "'%s': an IPv6 address stands in brackets", text);
        }
        colon = end;
        end = end ? end : text + strlen(text);
    }
    if (end == text || end - text > 253 || strcspn(text, "/ \t@?#") < (size_t)(end - text)) {
        return err_set(e, -EINVAL, "'%s' has no host name or address", text);
    }
    if (colon && str_to_u64(colon + 1, 1, 65535, "port", &number, e) < 0) {
        return e && e->code ? e->code : -EINVAL;
    }
    *host = xstrndup(text, (size_t)(end - text));
    *port = (int)number;
    return 0;
}
